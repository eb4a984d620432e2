//! Who belongs to the group.
//!
//! ```text
//!   a new node            any member                     the leader
//!   token (random) ─────► allocate_node ───────────────► next id, committed under the token
//!   starts with its id ─► add_member ──────────────────► learner: gets log or snapshot
//!                                                        voter, once it has caught up (promote)
//! ```
//!
//! Who is removed is removed for ever: its id stays behind as a row, and whoever announces it again is refused. Who
//! may be removed is judged by what would be left ([`judge_removal`]).
//!
//! Ids are rows like others, in a keyspace of their own, so they are given by an ordinary optimistic
//! commit: the same token finds the same id again, and the counter only grows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::{Duration, Instant};

use amphora_storage::key::table_prefix;
use amphora_storage::schema::{IndexId, TableId};
use amphora_storage::{Timestamp, codec};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};
use uuid::Uuid;

use super::group::{Group, Inner};
use super::tenure::Tenure;
use super::transport::{Refusal, Reply, Request};
use super::types::{CommitRequest, Expected, Member, TypeConfig, Write};
use crate::api::LockMode;
use crate::{Error, NodeId, Result};

/// The keyspace of given node ids.
const NODE_IDS: TableId = TableId(2);
/// A learner this close to the end of the log, in entries, has caught up.
pub const CAUGHT_UP: u64 = 500;
/// How often learners are looked at.
const PROMOTE_INTERVAL: Duration = Duration::from_millis(300);
/// How long members may take to show that they are alive, before one is removed.
const ROLL_CALL: Duration = Duration::from_millis(600);
/// How long to wait for a change of membership.
const CHANGE_PATIENCE: Duration = Duration::from_secs(10);

/// The SQLSTATE of what concerns a node that has been removed.
pub const REMOVED: &str = "42704";

type WriteError = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

/// A change of membership.
enum Change {
    Add(NodeId, Member),
    Remove(NodeId),
    /// A read replica is to vote
    Promote(NodeId),
}

/// A member, as the leader sees it when another is to be removed.
#[derive(Clone, Copy, Debug)]
struct Standing {
    id: NodeId,
    votes: bool,
    alive: bool,
}

/// Whether the cluster works on without a member; if not, why, for an operator. With `force` a removal may use
/// up what can fail, but never stop the cluster.
fn judge_removal(members: &[Standing], id: NodeId, force: bool) -> std::result::Result<(), String> {
    let Some(gone) = members.iter().find(|m| m.id == id && m.votes) else { return Ok(()) };
    let left: Vec<&Standing> = members.iter().filter(|m| m.votes && m.id != id).collect();
    if left.is_empty() {
        return Err(format!("node {id} is the only voter: without it nothing is left of the cluster"));
    }
    let majority = left.len() / 2 + 1;
    let dead: Vec<String> = left.iter().filter(|m| !m.alive).map(|m| m.id.to_string()).collect();
    let alive = left.len() - dead.len();
    let dead = dead.join(", ");
    if alive < majority {
        return Err(format!(
            "without node {id} only {alive} of {} voters would be alive, and strong tables need {majority}; bring \
             back or remove the dead first (node {dead})",
            left.len(),
        ));
    }
    if gone.alive && alive == majority && !dead.is_empty() && !force {
        return Err(format!(
            "node {id} works, and without it no other could fail any more; bring back or remove the dead first \
             (node {dead}), or use --force",
        ));
    }
    Ok(())
}

fn counter_key() -> Vec<u8> {
    table_prefix(NODE_IDS, IndexId::PRIMARY).to_vec()
}

/// The row that says that a node has been removed. Tokens are longer.
fn removed_key(id: NodeId) -> Vec<u8> {
    let mut key = counter_key();
    key.extend_from_slice(&id.to_be_bytes());
    key
}

fn token_key(token: Uuid) -> Vec<u8> {
    let mut key = counter_key();
    key.extend_from_slice(token.as_bytes());
    key
}

impl Group {
    /// Founds a cluster of one, this node. Harmless if it is founded already.
    pub async fn bootstrap(&self) -> Result<()> {
        let failed =
            |e: &dyn std::fmt::Display| Error::new("58000", format!("could not found the cluster: {e}"));
        if !self.inner.raft.is_initialized().await.map_err(|e| failed(&e))? {
            let members = BTreeMap::from([(self.inner.node_id, self.inner.member.clone())]);
            self.inner.raft.initialize(members).await.map_err(|e| failed(&e))?;
        }
        let until = Instant::now() + CHANGE_PATIENCE;
        while !self.is_leader() && self.leader().is_none_or(|l| l == self.inner.node_id) {
            if Instant::now() > until {
                return Err(failed(&"this node was not elected"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// True if this node belongs to a cluster, be it founded or joined.
    pub async fn is_initialized(&self) -> bool {
        self.inner.raft.is_initialized().await.unwrap_or(false)
    }

    /// An id for the node that chose this token: the same for the same token, never given twice.
    pub async fn allocate_node(&self, token: Uuid) -> Result<NodeId> {
        match self.ask_leader(Request::AllocateNode(token), CHANGE_PATIENCE).await? {
            Reply::Node(id) => Ok(id),
            other => Err(change_failed(&other)),
        }
    }

    /// Adds a member, or changes its addresses. A new member becomes a voter by itself once it has caught
    /// up. May be repeated.
    pub async fn add_member(&self, id: NodeId, member: Member) -> Result<()> {
        self.change(Request::AddLearner(id, member)).await
    }

    /// Removes a member for ever. Refused where strong tables would stop; with `force` not where it would
    /// merely leave no node to spare.
    pub async fn remove_member(&self, id: NodeId, force: bool) -> Result<()> {
        self.change(Request::RemoveMember(id, force)).await
    }

    /// Lets a read replica vote, once it has caught up.
    pub async fn promote_member(&self, id: NodeId) -> Result<()> {
        self.change(Request::Promote(id)).await
    }

    async fn change(&self, request: Request) -> Result<()> {
        match self.ask_leader(request, CHANGE_PATIENCE).await? {
            Reply::Done => Ok(()),
            other => Err(change_failed(&other)),
        }
    }

    pub(super) async fn allocate_as_leader(&self, tenure: &Tenure, token: Uuid) -> Reply {
        let until = Instant::now() + CHANGE_PATIENCE;
        while Instant::now() < until {
            let replica = &self.inner.replica;
            let (known, counter) =
                match (replica.newest_row(&token_key(token)), replica.newest_row(&counter_key())) {
                    (Ok(known), Ok(counter)) => (known, counter),
                    (Err(e), _) | (_, Err(e)) => return Reply::Failed(e.to_string()),
                };
            if let Some((_, value)) = known {
                return match codec::decode::<NodeId>(&value) {
                    Ok(id) => Reply::Node(id),
                    Err(e) => Reply::Failed(e.to_string()),
                };
            }
            let last_given = counter.as_ref().and_then(|(_, v)| codec::decode::<NodeId>(v).ok()).unwrap_or(0);
            let greatest_member = self.members().iter().map(|(id, _, _)| *id).max().unwrap_or(0);
            let id = last_given.max(greatest_member) + 1;
            let counter_version = counter.map_or(Timestamp::ZERO, |(version, _)| version);
            let value = Some(codec::encode(&id));
            let request = self.own_commit(vec![
                (token_key(token), Timestamp::ZERO, value.clone()),
                (counter_key(), counter_version, value),
            ]);
            match tenure.commit(tenure.leader(), None, request).await {
                Reply::Committed(_) => return Reply::Node(id),
                Reply::Refused(Refusal::Conflict) => tokio::time::sleep(Duration::from_millis(5)).await,
                // Asked again, the token finds its id if it was given.
                _ => return Reply::NotLeader(None),
            }
        }
        Reply::Failed("too many nodes join at once".to_owned())
    }

    /// An optimistic commit of rows of the group's own: keys, the versions they must have, and new values.
    fn own_commit(&self, rows: Vec<(Vec<u8>, Timestamp, Option<Vec<u8>>)>) -> CommitRequest {
        let expected = |(key, version, _): &(Vec<u8>, Timestamp, Option<Vec<u8>>)| Expected {
            key: key.clone(),
            version: *version,
            mode: LockMode::Exclusive,
        };
        CommitRequest {
            id: self.transaction_id(),
            locked: false,
            expected: rows.iter().map(expected).collect(),
            tables: Vec::new(),
            intents: Vec::new(),
            writes: rows.into_iter().map(|(key, _, value)| Write { key, value }).collect(),
            staged: super::types::Staged::default(),
            staged_into: Vec::new(),
            reads: None,
            leaderless: Vec::new(),
            clock: Timestamp::ZERO,
            durability: Default::default(),
        }
    }

    pub(super) async fn add_as_leader(&self, id: NodeId, member: Member) -> Reply {
        match self.inner.replica.newest_row(&removed_key(id)) {
            Ok(None) => self.change_as_leader(Change::Add(id, member)).await,
            Ok(Some(_)) => Reply::Removed(id),
            Err(e) => Reply::Failed(e.to_string()),
        }
    }

    pub(super) async fn promote_as_leader(&self, id: NodeId) -> Reply {
        match self.members().iter().any(|(known, ..)| *known == id) {
            true => self.change_as_leader(Change::Promote(id)).await,
            false => Reply::Failed(format!("node {id} is not a member of the cluster")),
        }
    }

    pub(super) async fn remove_as_leader(&self, tenure: &Tenure, id: NodeId, force: bool) -> Reply {
        if !self.members().iter().any(|(known, ..)| *known == id) {
            return match self.inner.replica.newest_row(&removed_key(id)) {
                Ok(Some(_)) => Reply::Done,
                Ok(None) => Reply::Failed(format!("node {id} is not a member of the cluster")),
                Err(e) => Reply::Failed(e.to_string()),
            };
        }
        // Who died a moment ago must not be counted on: the change itself could then never be committed.
        let asked = Instant::now();
        let mut standings = self.standings(asked);
        while standings.iter().any(|m| !m.alive) && asked.elapsed() < ROLL_CALL {
            tokio::time::sleep(self.inner.timing.heartbeat / 4).await;
            standings = self.standings(asked);
        }
        if let Err(reason) = judge_removal(&standings, id, force) {
            return Reply::Failed(reason);
        }
        if id == self.inner.node_id {
            return match self.transfer_as_leader(tenure, super::leadership::FITTEST).await {
                // Whoever asked asks the successor.
                Reply::Done => Reply::NotLeader(self.leader()),
                other => other,
            };
        }
        // First of all it can never come back, then it goes.
        let newest = match self.inner.replica.newest_row(&removed_key(id)) {
            Ok(newest) => newest.map_or(Timestamp::ZERO, |(version, _)| version),
            Err(e) => return Reply::Failed(e.to_string()),
        };
        let row = (removed_key(id), newest, Some(codec::encode(&id)));
        match tenure.commit(tenure.leader(), None, self.own_commit(vec![row])).await {
            Reply::Committed(_) => self.change_as_leader(Change::Remove(id)).await,
            // Asked again, it finds what it has done.
            _ => Reply::NotLeader(None),
        }
    }

    /// On the leader, who votes, and who has answered what was sent since then.
    fn standings(&self, since: Instant) -> Vec<Standing> {
        let members = self.members();
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let since = since.elapsed();
        let alive = |id: &NodeId| {
            let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(id).cloned().flatten());
            *id == self.inner.node_id || heard.is_some_and(|at| at.elapsed() < since)
        };
        members.iter().map(|(id, _, votes)| Standing { id: *id, votes: *votes, alive: alive(id) }).collect()
    }

    async fn try_change(&self, change: &Change) -> std::result::Result<(), WriteError> {
        let find = |id: &NodeId| self.members().into_iter().find(|(known, _, _)| known == id);
        let raft = &self.inner.raft;
        let change = match change {
            Change::Add(id, member) => match find(id) {
                Some((_, known, _)) if known.says_the_same(member) => return Ok(()),
                Some((_, known, _)) => {
                    let member = Member { learner: known.learner, ..member.clone() };
                    ChangeMembers::SetNodes(BTreeMap::from([(*id, member)]))
                }
                None => return raft.add_learner(*id, member.clone(), false).await.map(|_| ()),
            },
            Change::Remove(id) => match find(id) {
                None => return Ok(()),
                Some((_, _, true)) => ChangeMembers::RemoveVoters(BTreeSet::from([*id])),
                Some((_, _, false)) => ChangeMembers::RemoveNodes(BTreeSet::from([*id])),
            },
            Change::Promote(id) => match find(id) {
                Some((_, known, _)) if known.learner => {
                    let member = Member { learner: false, ..known };
                    ChangeMembers::SetNodes(BTreeMap::from([(*id, member)]))
                }
                _ => return Ok(()),
            },
        };
        // Voters that are removed leave altogether; all others stay what they are.
        let retain = matches!(change, ChangeMembers::SetNodes(_));
        raft.change_membership(change, retain).await.map(|_| ())
    }

    /// Tries a change until no other is under way.
    async fn change_as_leader(&self, change: Change) -> Reply {
        let until = Instant::now() + CHANGE_PATIENCE / 2;
        loop {
            match self.try_change(&change).await {
                Ok(()) => return Reply::Done,
                Err(e) if e.forward_to_leader().is_some() => return Reply::NotLeader(None),
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                ))) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(e) => return Reply::Failed(e.to_string()),
            }
        }
    }
}

pub(super) fn change_failed(reply: &Reply) -> Error {
    match reply {
        Reply::Failed(message) => Error::new("55000", message.clone()),
        Reply::Removed(id) => Error::new(REMOVED, format!("node {id} has been removed from the cluster")),
        _ => Error::new("55000", "the membership could not be changed"),
    }
}

/// On the leader, makes voters of learners that have caught up.
pub(super) async fn promote(group: Weak<Inner>) {
    loop {
        tokio::time::sleep(PROMOTE_INTERVAL).await;
        let Some(inner) = group.upgrade() else { return };
        let group = Group { inner };
        if !group.is_leader() {
            continue;
        }
        let ready: BTreeSet<NodeId> = {
            let metrics = group.inner.raft.metrics();
            let metrics = metrics.borrow_watched();
            let (Some(replication), Some(heartbeat)) = (&metrics.replication, &metrics.heartbeat) else {
                continue;
            };
            let last = metrics.last_log_index.unwrap_or(0);
            // One that has died since must not become part of the quorum.
            let lately = group.inner.timing.election.1 * 2;
            let caught_up = |id: &NodeId| {
                let matched = replication.get(id).and_then(|l| l.as_ref());
                let heard = heartbeat.get(id).and_then(|at| at.as_ref());
                matched.is_some_and(|l| l.index + CAUGHT_UP >= last)
                    && heard.is_some_and(|at| at.elapsed() < lately)
            };
            let membership = metrics.membership_config.membership();
            let may_vote = |id: &NodeId| membership.get_node(id).is_some_and(|member| !member.learner);
            membership.learner_ids().filter(|id| may_vote(id) && caught_up(id)).collect()
        };
        if ready.is_empty() {
            continue;
        }
        match group.inner.raft.change_membership(ChangeMembers::AddVoterIds(ready.clone()), true).await {
            Ok(_) => tracing::info!(nodes = ?ready, "caught up: now voters"),
            Err(e) => tracing::debug!(nodes = ?ready, "not yet voters: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` a voter that is alive, `-` a dead one, `o` a replica; ids from 1.
    fn cluster(picture: &str) -> Vec<Standing> {
        let standing = |(i, c)| Standing { id: i as NodeId + 1, votes: c != 'o', alive: c != '-' };
        picture.chars().enumerate().map(standing).collect()
    }

    #[test]
    fn a_removal_never_stops_the_cluster() {
        // Members, who goes, without and with force
        for (picture, id, plain, forced) in [
            ("+", 1, false, false),
            ("++", 1, true, true),
            ("+++", 3, true, true),
            ("++-", 3, true, true),
            ("++-", 1, false, false),
            ("+++-", 1, false, true),
            ("+++-", 4, true, true),
            ("+++--", 1, false, false),
            ("+++--", 5, true, true),
            ("++++-", 1, false, true),
            ("+++++", 1, true, true),
            ("++++--", 1, false, true),
            ("+o", 2, true, true),
            ("+o", 1, false, false),
        ] {
            let members = cluster(picture);
            assert_eq!(judge_removal(&members, id, false).is_ok(), plain, "{picture} without {id}");
            assert_eq!(judge_removal(&members, id, true).is_ok(), forced, "{picture} without {id}, forced");
        }
        let reason = judge_removal(&cluster("++-"), 1, true).err().unwrap_or_default();
        assert!(reason.contains("only 1 of 2 voters") && reason.contains("node 3"), "{reason}");
    }
}

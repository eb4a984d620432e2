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
//! may be removed is judged by what would be left. What is decided, and why that is safe, is in `roster.rs`; here it is done.
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
use openraft::raft::Precondition;
use openraft::{ChangeMembers, Instant as _};
use uuid::Uuid;

use super::group::{Group, Inner};
use super::roster::{Change, FITTEST, Roster, Seen, Step};
use super::tenure::Tenure;
use super::transport::{Refusal, Reply, Request};
use super::types::{CommitRequest, Expected, Member, Write};
use crate::api::LockMode;
use crate::{Error, NodeId, Result};

/// The keyspace of given node ids.
const NODE_IDS: TableId = TableId(2);
/// A learner this close to the end of the log, in entries, has caught up.
pub const CAUGHT_UP: u64 = 500;
/// How often learners are looked at.
const PROMOTE_INTERVAL: Duration = Duration::from_millis(300);
/// In how many of these rounds removals are looked for that were begun and not ended.
const FINISH_ROUNDS: u64 = 10;
/// How long members may take to show that they are alive, before one is removed.
const ROLL_CALL: Duration = Duration::from_millis(600);
/// How long to wait for a change of membership.
const CHANGE_PATIENCE: Duration = Duration::from_secs(10);

/// The SQLSTATE of what concerns a node that has been removed.
pub const REMOVED: &str = "42704";

fn counter_key() -> Vec<u8> {
    table_prefix(NODE_IDS, IndexId::PRIMARY).to_vec()
}

/// The row that says that a node has been removed. Tokens are longer.
fn removed_key(id: NodeId) -> Vec<u8> {
    let mut key = counter_key();
    key.extend_from_slice(&id.to_be_bytes());
    key
}

/// The row that every note of a removal writes.
fn notes_key() -> Vec<u8> {
    let mut key = counter_key();
    key.push(0);
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

    /// The members, as this node sees them, which leads.
    pub(super) fn roster(&self) -> Roster {
        let own = self.inner.node_id;
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let last = membership.get_joint_config().last();
        let matched = |id: &NodeId| metrics.replication.as_ref()?.get(id)?.as_ref().map(|l| l.index);
        let heard = |id: &NodeId| match *id == own {
            true => Some(Duration::ZERO),
            false => metrics.heartbeat.as_ref()?.get(id)?.as_ref().map(|at| at.elapsed()),
        };
        let seen = |(id, member): (&NodeId, &Member)| Seen {
            id: *id,
            member: member.clone(),
            votes: voters.contains(id),
            stays: last.is_some_and(|last| last.contains(id)),
            matched: matched(id),
            heard: heard(id),
        };
        Roster {
            own,
            last: metrics.last_log_index.unwrap_or(0),
            caught_up: CAUGHT_UP,
            as_of: *metrics.membership_config.log_id(),
            joint: membership.get_joint_config().len() > 1,
            members: membership.nodes().map(seen).collect(),
        }
    }

    fn is_removed(&self, id: NodeId) -> Result<bool> {
        Ok(self.inner.replica.newest_row(&removed_key(id))?.is_some())
    }

    /// Who has been noted as removed, of the members and the node that is to be changed.
    fn noted(&self, roster: &Roster, change: &Change) -> Result<BTreeSet<NodeId>> {
        let named = match change {
            Change::Add(id, _) | Change::Remove(id, _) => Some(*id),
            Change::Promote(_) | Change::Vote => None,
        };
        let mut noted = BTreeSet::new();
        for id in roster.members.iter().map(|seen| seen.id).chain(named) {
            if self.is_removed(id)? {
                noted.insert(id);
            }
        }
        Ok(noted)
    }

    /// The version of the last note of a removal.
    fn last_note(&self) -> Result<Timestamp> {
        Ok(self.inner.replica.newest_row(&notes_key())?.map_or(Timestamp::ZERO, |(version, _)| version))
    }

    /// On the leader, makes the membership what is wanted, step by step.
    pub(super) async fn change_as_leader(&self, tenure: &Tenure, change: Change) -> Reply {
        let until = Instant::now() + CHANGE_PATIENCE / 2;
        loop {
            let noted_at = self.last_note();
            let (roster, since) = match change {
                Change::Remove(..) => self.roll_call().await,
                _ => (self.roster(), self.lately()),
            };
            let (noted_at, noted) = match (noted_at, self.noted(&roster, &change)) {
                (Ok(noted_at), Ok(noted)) => (noted_at, noted),
                (Err(e), _) | (_, Err(e)) => return Reply::Failed(e.to_string()),
            };
            let members = match (roster.decide(&change, &noted, since), &change) {
                (Step::Done, _) => return Reply::Done,
                (Step::Refuse(why), _) => return Reply::Failed(why),
                (Step::Removed, Change::Add(id, _) | Change::Remove(id, _)) => return Reply::Removed(*id),
                (Step::HandOver, _) => {
                    return match self.transfer_as_leader(tenure, FITTEST).await {
                        // Whoever asked asks the successor.
                        Reply::Done => Reply::NotLeader(self.leader()),
                        other => other,
                    };
                }
                (Step::Note, Change::Remove(id, _)) => {
                    let value = Some(codec::encode(id));
                    let request = self.own_commit(vec![
                        (removed_key(*id), Timestamp::ZERO, value.clone()),
                        (notes_key(), noted_at, value),
                    ]);
                    match tenure.commit(tenure.leader(), None, request).await {
                        Reply::Committed(_) => continue,
                        Reply::Refused(Refusal::Conflict) if Instant::now() < until => {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                            continue;
                        }
                        // Asked again, it finds what it has done.
                        _ => return Reply::NotLeader(None),
                    }
                }
                (Step::Removed | Step::Note, _) => return Reply::Failed("no node was named".to_owned()),
                (Step::Agree(members), _) => members,
            };
            // Voters that are removed leave altogether; all others stay what they are.
            let retain = matches!(members, ChangeMembers::SetNodes(_) | ChangeMembers::AddNodes(_));
            let same = Precondition::LastMembershipLogId { last_membership_log_id: roster.as_of };
            match self.inner.raft.change_membership_if(members, retain, [same]).await {
                Ok(_) => {}
                Err(e) if e.forward_to_leader().is_some() => return Reply::NotLeader(None),
                Err(RaftError::APIError(
                    ClientWriteError::PreconditionFailed(_)
                    | ClientWriteError::ChangeMembershipError(
                        ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                    ),
                )) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(e) => return Reply::Failed(e.to_string()),
            }
        }
    }

    /// The roster when all have answered what was sent from now on, or have had the time to. Who died a moment ago must
    /// not be counted on: a change could then never be committed.
    async fn roll_call(&self) -> (Roster, Duration) {
        let asked = Instant::now();
        loop {
            let roster = self.roster();
            let since = asked.elapsed();
            if roster.all_answer(since) || since >= ROLL_CALL {
                return (roster, since);
            }
            tokio::time::sleep(self.inner.timing.heartbeat / 4).await;
        }
    }

    /// Who was heard not longer ago than this is alive, if nobody's life depends on it.
    pub(super) fn lately(&self) -> Duration {
        self.inner.timing.election.1 * 2
    }

    /// Members that were noted as removed and are still there: whoever asked for it has gone away half way.
    fn left_behind(&self) -> Vec<NodeId> {
        let members = self.members().into_iter().map(|(id, ..)| id);
        members.filter(|id| matches!(self.is_removed(*id), Ok(true))).collect()
    }
}

pub(super) fn change_failed(reply: &Reply) -> Error {
    match reply {
        Reply::Failed(message) => Error::new("55000", message.clone()),
        Reply::Removed(id) => Error::new(REMOVED, format!("node {id} has been removed from the cluster")),
        _ => Error::new("55000", "the membership could not be changed"),
    }
}

/// On the leader, makes voters of learners that have caught up, and ends what others have begun.
pub(super) async fn promote(group: Weak<Inner>) {
    for round in 0u64.. {
        tokio::time::sleep(PROMOTE_INTERVAL).await;
        let Some(inner) = group.upgrade() else { return };
        let group = Group { inner };
        let Some(tenure) = group.inner.tenure.load_full().filter(|t| !t.has_ended()) else { continue };
        let roster = group.roster();
        let Ok(noted) = group.noted(&roster, &Change::Vote) else { continue };
        let step = roster.decide(&Change::Vote, &noted, group.lately());
        if step != Step::Done {
            match group.change_as_leader(&tenure, Change::Vote).await {
                Reply::Done => tracing::info!(?step, "the voters have changed"),
                other => tracing::debug!(?step, ?other, "the voters have not changed yet"),
            }
        }
        if round % FINISH_ROUNDS == 0 {
            for id in group.left_behind() {
                let reply = group.change_as_leader(&tenure, Change::Remove(id, true)).await;
                tracing::info!(node = id, ?reply, "a removal that was begun is ended");
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::testing::{Cluster, put};
    use super::*;

    /// The leader goes away between the two steps of a removal; who leads then takes the second.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_removal_that_was_left_half_done_is_finished() {
        let mut cluster = Cluster::three().await;
        let one = cluster.node(1).group.clone();
        let row = (removed_key(3), Timestamp::ZERO, Some(codec::encode(&3u64)));
        one.commit(one.own_commit(vec![row])).await.unwrap();
        let members =
            |c: &Cluster| -> Vec<NodeId> { c.node(2).group.members().iter().map(|m| m.0).collect() };
        let joint = |c: &Cluster| c.node(2).group.roster().joint;
        // Noted is enough: whoever leads may have ended it by now.
        if !joint(&cluster) && members(&cluster).contains(&3) {
            let _ = one.transfer_leader(1).await;
            cluster.wire.cut(1, 2);
            cluster.wire.cut(1, 3);
            let change = ChangeMembers::RemoveVoters(BTreeSet::from([3]));
            let first = one.inner.raft.change_membership(change, false);
            let _ = tokio::time::timeout(Duration::from_millis(50), first).await;
            cluster.wire.heal();
        }
        let _ = one.transfer_leader(2).await;
        cluster.until("it is done", |c| members(c) == [1, 2] && !joint(c)).await;
        assert_eq!(cluster.node(2).group.voters(), [1, 2]);
        cluster.kill(3).await;
        one.commit(put(&one, "a", Timestamp::ZERO, "1")).await.unwrap();
    }
}

//! Who belongs to the group.
//!
//! ```text
//!   a new node            any member                     the leader
//!   token (random) ─────► allocate_node ───────────────► next id, committed under the token
//!   starts with its id ─► add_member ──────────────────► learner: gets log or snapshot
//!                                                        voter, once it has caught up (promote)
//! ```
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
/// How long to wait for a change of membership.
const CHANGE_PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for a transfer of leadership.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(3);

type WriteError = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

/// A change of membership.
enum Change {
    Add(NodeId, Member),
    Remove(NodeId),
}

fn counter_key() -> Vec<u8> {
    table_prefix(NODE_IDS, IndexId::PRIMARY).to_vec()
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

    /// Removes a member for ever.
    pub async fn remove_member(&self, id: NodeId) -> Result<()> {
        self.change(Request::RemoveMember(id)).await
    }

    /// Hands leadership to a voter, and returns once it leads.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<()> {
        match self.members().iter().find(|(id, _, _)| *id == to) {
            Some((_, _, true)) => self.change(Request::TransferTo(to)).await,
            Some(_) => Err(Error::new("55000", format!("node {to} is not a voter"))),
            None => Err(Error::new("42704", format!("node {to} does not exist"))),
        }
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
            let expected = |key, version| Expected { key, version, mode: LockMode::Exclusive };
            let value = Some(codec::encode(&id));
            let request = CommitRequest {
                id: self.transaction_id(),
                locked: false,
                expected: vec![
                    expected(token_key(token), Timestamp::ZERO),
                    expected(counter_key(), counter_version),
                ],
                tables: Vec::new(),
                intents: Vec::new(),
                writes: vec![
                    Write { key: token_key(token), value: value.clone() },
                    Write { key: counter_key(), value },
                ],
                staged: super::types::Staged::default(),
                staged_into: Vec::new(),
                reads: None,
                leaderless: Vec::new(),
                clock: Timestamp::ZERO,
                durability: Default::default(),
            };
            match tenure.commit(tenure.leader(), None, request).await {
                Reply::Committed(_) => return Reply::Node(id),
                Reply::Refused(Refusal::Conflict) => tokio::time::sleep(Duration::from_millis(5)).await,
                // Asked again, the token finds its id if it was given.
                _ => return Reply::NotLeader(None),
            }
        }
        Reply::Failed("too many nodes join at once".to_owned())
    }

    pub(super) async fn add_as_leader(&self, id: NodeId, member: Member) -> Reply {
        self.change_as_leader(Change::Add(id, member)).await
    }

    pub(super) async fn remove_as_leader(&self, id: NodeId) -> Reply {
        if id == self.inner.node_id {
            return Reply::Failed("the leader cannot remove itself: transfer leadership first".to_owned());
        }
        self.change_as_leader(Change::Remove(id)).await
    }

    async fn try_change(&self, change: &Change) -> std::result::Result<(), WriteError> {
        let find = |id: &NodeId| self.members().into_iter().find(|(known, _, _)| known == id);
        let raft = &self.inner.raft;
        let change = match change {
            Change::Add(id, member) => match find(id) {
                Some((_, known, _)) if known == *member => return Ok(()),
                Some(_) => ChangeMembers::SetNodes(BTreeMap::from([(*id, member.clone())])),
                None => return raft.add_learner(*id, member.clone(), false).await.map(|_| ()),
            },
            Change::Remove(id) => match find(id) {
                None => return Ok(()),
                Some((_, _, true)) => ChangeMembers::RemoveVoters(BTreeSet::from([*id])),
                Some((_, _, false)) => ChangeMembers::RemoveNodes(BTreeSet::from([*id])),
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

    pub(super) async fn transfer_as_leader(&self, tenure: &Tenure, to: NodeId) -> Reply {
        if to == self.inner.node_id {
            return Reply::Done;
        }
        // Whoever takes over does not wait for our lease to end: stop relying on it first.
        tenure.suspend_lease().await;
        if let Err(e) = self.inner.raft.trigger().transfer_leader(to).await {
            return Reply::Failed(e.to_string());
        }
        let until = Instant::now() + TRANSFER_PATIENCE;
        while Instant::now() < until {
            match self.leader() {
                Some(leader) if leader == to => return Reply::Done,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        Reply::Failed(format!("node {to} did not take over leadership in time"))
    }

    /// The voter that is the least behind, to hand leadership to.
    pub(super) fn successor(&self) -> Option<NodeId> {
        let voters: Vec<NodeId> =
            self.members().into_iter().filter(|(_, _, voter)| *voter).map(|(id, _, _)| id).collect();
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        replication
            .iter()
            .filter(|(id, matched)| voters.contains(id) && **id != self.inner.node_id && matched.is_some())
            .max_by_key(|(_, matched)| matched.as_ref().map(|l| l.index))
            .map(|(id, _)| *id)
    }
}

fn change_failed(reply: &Reply) -> Error {
    match reply {
        Reply::Failed(message) => Error::new("55000", message.clone()),
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
            metrics.membership_config.membership().learner_ids().filter(caught_up).collect()
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

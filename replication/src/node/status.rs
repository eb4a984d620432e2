//! The cluster as this node sees it, for people and for load balancers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use amphora_storage::key;
use amphora_storage::schema::{Table, TableId};
use amphora_storage::store::Cf;
use parking_lot::Mutex;

use super::Node;
use crate::NodeId;
use crate::api::{ClusterStatus, NodeRole, NodeState, NodeStatus, TableStatus};
use crate::leaderless::Progress;

/// How long after its start a node thinks well of members it has not heard.
const GRACE: Duration = Duration::from_secs(5);

/// How long a table's size is good enough for the planner.
const SIZE_LIFETIME: Duration = Duration::from_secs(5);

/// Tables whose sizes are remembered.
const MAX_SIZES: usize = 10_000;

/// Sizes of tables, measured lately.
#[derive(Default)]
pub(super) struct TableSizes(Mutex<HashMap<TableId, (Instant, Option<u64>)>>);

impl TableSizes {
    /// The size of a table, measured now if it was not measured lately.
    pub(super) fn of(&self, table: TableId, measure: impl FnOnce() -> Option<u64>) -> Option<u64> {
        let now = Instant::now();
        if let Some((at, size)) = self.0.lock().get(&table)
            && now.duration_since(*at) < SIZE_LIFETIME
        {
            return *size;
        }
        let size = measure();
        let mut sizes = self.0.lock();
        if sizes.len() >= MAX_SIZES {
            sizes.clear();
        }
        sizes.insert(table, (now, size));
        size
    }
}

impl Node {
    /// The cluster as this node sees it. Local and immediate.
    pub fn cluster_status(&self) -> ClusterStatus {
        let mut replication = self.group.peer_lag();
        replication.extend(self.leaderless.lag());
        replication.sort_by(|a, b| (a.node_id, &a.mode).cmp(&(b.node_id, &b.mode)));
        ClusterStatus {
            cluster_id: self.cluster,
            nodes: self.node_statuses(),
            raft: self.group.status(),
            replication,
            tables: self.table_statuses(),
        }
    }

    fn node_statuses(&self) -> Vec<NodeStatus> {
        let leader = self.group.leader();
        let mut members = self.group.members();
        if !members.iter().any(|(id, ..)| *id == self.id) {
            members.push((self.id, self.member.clone(), false));
        }
        members.sort_by_key(|(id, ..)| *id);
        let skew = self.skew.lock().clone();
        let progress = self.leaderless.progress();
        let status = |(id, member, voter): (NodeId, crate::strong::Member, bool)| NodeStatus {
            node_id: id,
            role: match voter {
                _ if leader == Some(id) => NodeRole::Leader,
                true => NodeRole::Voter,
                false => NodeRole::Learner,
            },
            state: self.liveness(id),
            pg_address: member.pg_address,
            rpc_address: member.rpc_address,
            http_address: member.http_address,
            region: member.region,
            leader_preference: member.preference,
            version: member.version,
            clock_skew_ms: skew.get(&id).copied().unwrap_or(0),
            leaderless: progress.get(&id).copied().unwrap_or(Progress::Unknown),
        };
        members.into_iter().map(status).collect()
    }

    pub(super) fn liveness(&self, node: NodeId) -> NodeState {
        if node == self.id {
            return match self.draining.is_cancelled() {
                true => NodeState::Draining,
                false => NodeState::Alive,
            };
        }
        match self.gossip.peers().get(&node) {
            Some(peer) => peer.state,
            None if Instant::now() < self.started + GRACE => NodeState::Suspect,
            None => NodeState::Dead,
        }
    }

    fn table_statuses(&self) -> Vec<TableStatus> {
        let catalog = self.catalog.current();
        let size = |table: &std::sync::Arc<Table>| TableStatus {
            table_id: table.id,
            // A size that cannot be had just now is not worth failing a view for.
            size_bytes: self.measure(table.id).unwrap_or(0),
        };
        catalog.tables().map(size).collect()
    }

    /// Bytes of a table in files, about.
    pub(super) fn measure(&self, table: TableId) -> Option<u64> {
        let catalog = self.catalog.current();
        let table = catalog.table_by_id(table)?;
        let range = key::table_range(table.keyspace());
        let size = |cf| self.store.approximate_size(cf, &range).ok();
        match table.is_strong() {
            true => size(Cf::Strong),
            false if table.indexes.is_empty() => size(Cf::Leaderless),
            false => Some(size(Cf::Leaderless)? + size(Cf::LeaderlessIndex)?),
        }
    }

    /// Whether clients should be sent here: a member that has caught up with a leader it knows. If not,
    /// the reason, in a sentence.
    pub fn ready(&self) -> Result<(), String> {
        if self.stop.is_cancelled() {
            return Err("the node is stopping".to_owned());
        }
        if let Some(reason) = self.removed.lock().clone() {
            return Err(reason);
        }
        if self.draining.is_cancelled() {
            return Err("the node is being drained".to_owned());
        }
        if !self.group.members().iter().any(|(id, ..)| *id == self.id) {
            return Err("the node is not yet a member of the cluster".to_owned());
        }
        if self.group.is_ready() {
            return Ok(());
        }
        if let Some(reason) = self.group.failure() {
            return Err(format!("the disk is full or fails: {reason}; mend it, then restart the node"));
        }
        let raft = self.group.status();
        if raft.leader.is_none() {
            return Err("no leader is known: strong tables need a majority of the voters; leaderless \
                        tables can be read and written"
                .to_owned());
        }
        Err(format!(
            "the node is catching up: applied entry {} of {}",
            raft.applied_index, raft.committed_index
        ))
    }
}

//! The cluster as this node sees it, for people and for load balancers.

use std::time::{Duration, Instant};

use amphora_storage::key;
use amphora_storage::schema::Table;
use amphora_storage::store::Cf;

use super::Node;
use crate::NodeId;
use crate::api::{ClusterStatus, NodeRole, NodeState, NodeStatus, TableStatus};

/// How long after its start a node thinks well of members it has not heard.
const GRACE: Duration = Duration::from_secs(5);

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
            version: member.version,
            clock_skew_ms: skew.get(&id).copied().unwrap_or(0),
        };
        members.into_iter().map(status).collect()
    }

    fn liveness(&self, node: NodeId) -> NodeState {
        if node == self.id {
            return NodeState::Alive;
        }
        match self.gossip.peers().get(&node) {
            Some(peer) => peer.state,
            None if Instant::now() < self.started + GRACE => NodeState::Suspect,
            None => NodeState::Dead,
        }
    }

    fn table_statuses(&self) -> Vec<TableStatus> {
        let catalog = self.catalog.current();
        let size = |table: &std::sync::Arc<Table>| {
            let cf = if table.is_strong() { Cf::Strong } else { Cf::Leaderless };
            // A size that cannot be had just now is not worth failing a view for.
            let size_bytes = self.store.approximate_size(cf, &key::table_range(table.id)).unwrap_or(0);
            TableStatus { table_id: table.id, size_bytes }
        };
        catalog.tables().map(size).collect()
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

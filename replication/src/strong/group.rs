//! The group as the rest of the node sees it.

use std::sync::Arc;
use std::time::Duration;

use amphora_storage::{Hlc, Timestamp};
use tokio::sync::watch;
use uuid::Uuid;

use super::transport::{Reply, Request, Transport};
use super::types::{CommitRequest, KeyLock, LockRequest, Member, TransactionId};
use crate::api::{PeerLag, RaftStatus};
use crate::{Error, NodeId, Result};

/// Applies the leaderless operations that ride in the group's entries.
pub trait ApplyHook: Send + Sync + 'static {
    /// Joins `ops` (as they were in [`CommitRequest::leaderless`]).
    fn apply_group_ops(&self, log_index: u64, timestamp: Timestamp, ops: &[u8]) -> Result<()>;
}

/// Raft's clocks, in one place. The defaults give a failover in about a second.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Between two heartbeats
    pub heartbeat: Duration,
    /// Least and greatest election timeout; the greatest is also the leader's lease
    pub election: (Duration, Duration),
    /// How long reads, locks and commits look for a leader before they fail
    pub patience: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(250), Duration::from_millis(500)),
            patience: Duration::from_secs(5),
        }
    }
}

/// All that a group is made of.
pub struct GroupConfig {
    /// This node
    pub node_id: NodeId,
    /// Its addresses
    pub member: Member,
    /// The node's clock
    pub clock: Arc<Hlc>,
    /// The wire
    pub transport: Arc<dyn Transport>,
    /// Applies leaderless operations
    pub hook: Arc<dyn ApplyHook>,
    /// Clocks
    pub timing: Timing,
}

/// This node's part in the Raft group. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    node_id: NodeId,
}

fn starting() -> Error {
    Error::unavailable("the Raft group is starting")
}

impl Group {
    /// Opens the group from disk and takes part in it.
    pub async fn start(config: GroupConfig) -> Result<Group> {
        Ok(Group { node_id: config.node_id })
    }

    /// Founds a cluster of one.
    pub async fn bootstrap(&self) -> Result<()> {
        Err(starting())
    }

    /// Serves a request from a peer.
    pub async fn handle(&self, _from: NodeId, _request: Request) -> Reply {
        Reply::NotLeader(None)
    }

    /// A new transaction's name.
    pub fn transaction_id(&self) -> TransactionId {
        TransactionId { node: self.node_id, epoch: 0, counter: 0 }
    }

    /// A timestamp at which reads see every commit acknowledged anywhere before the call; all up to it is
    /// applied here. Waits for a leader up to the configured patience, then fails with kind `Unavailable`.
    pub async fn read_timestamp(&self) -> Result<Timestamp> {
        Err(starting())
    }

    /// The newest commit applied here. Immediate, and possibly stale.
    pub fn applied_timestamp(&self) -> Timestamp {
        Timestamp::ZERO
    }

    /// Locks keys for a transaction. One per key, in the request's order.
    pub async fn lock(&self, _request: LockRequest) -> Result<Vec<KeyLock>> {
        Err(starting())
    }

    /// Commits, and gives back all locks. Returns the commit timestamp once it is applied on the leader.
    pub async fn commit(&self, _request: CommitRequest) -> Result<Timestamp> {
        Err(starting())
    }

    /// Gives back all locks of a transaction that will not commit. Returns at once.
    pub fn release(&self, _id: TransactionId) {}

    /// Changes with every applied commit that wrote to the catalog's keyspace.
    pub fn catalog_version(&self) -> watch::Receiver<Timestamp> {
        watch::channel(Timestamp::ZERO).1
    }

    /// An id for the node that chose this token: the same for the same token, never given twice.
    pub async fn allocate_node(&self, _token: Uuid) -> Result<NodeId> {
        Err(starting())
    }

    /// Adds a member, or changes its addresses. A new member becomes a voter by itself once it has caught up.
    pub async fn add_member(&self, _id: NodeId, _member: Member) -> Result<()> {
        Err(starting())
    }

    /// Removes a member for ever.
    pub async fn remove_member(&self, _id: NodeId) -> Result<()> {
        Err(starting())
    }

    /// Hands leadership to a voter.
    pub async fn transfer_leader(&self, _to: NodeId) -> Result<()> {
        Err(starting())
    }

    /// All members: id, addresses, true if a voter.
    pub fn members(&self) -> Vec<(NodeId, Member, bool)> {
        Vec::new()
    }

    /// True if this node leads.
    pub fn is_leader(&self) -> bool {
        false
    }

    /// The leader, if one is known.
    pub fn leader(&self) -> Option<NodeId> {
        None
    }

    /// True if this node is a member that has caught up and knows a leader.
    pub fn is_ready(&self) -> bool {
        false
    }

    /// Where this node is in the log.
    pub fn status(&self) -> RaftStatus {
        RaftStatus::default()
    }

    /// On the leader, how far each peer is behind.
    pub fn peer_lag(&self) -> Vec<PeerLag> {
        Vec::new()
    }

    /// Hands over leadership, if it has it, and stops.
    pub async fn shutdown(&self) {}
}

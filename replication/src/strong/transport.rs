//! The group's messages, and the wire as the group sees it.
//!
//! The group knows no sockets: a [`Transport`] carries a [`Request`] to a node and brings its [`Reply`],
//! and the node's server side hands what it receives to [`Group::handle`](super::Group::handle).

use std::time::Duration;

use amphora_storage::Timestamp;
use amphora_storage::schema::TableId;
use async_trait::async_trait;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::leases::Lease;
use super::sequences::{SequenceAnswer, SequenceCall};
use super::types::{
    CommitRequest, KeyLock, LeaderId, LockRequest, Member, SnapshotMeta, TransactionId, TypeConfig, Vote,
};
use crate::NodeId;

/// Carries requests to peers. One call is one request and its reply.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends a request to a node and waits for its reply, `deadline` at most.
    ///
    /// Dropping the future gives up waiting. A node that stays silent must not be waited for longer than
    /// `deadline`: Raft's liveness hangs on it.
    async fn call(
        &self,
        target: NodeId,
        address: &str,
        request: Request,
        deadline: Duration,
    ) -> Result<Reply, TransportError>;
}

/// Why there is no reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// The request was certainly not delivered.
    #[error("node {0} cannot be reached: {1}")]
    Unreachable(NodeId, String),
    /// The request may have been delivered, and acted on, or may yet be.
    #[error("no reply from node {0}: {1}")]
    Lost(NodeId, String),
}

/// What one member of the group asks of another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Raft: entries, or a heartbeat
    AppendEntries(AppendEntriesRequest<TypeConfig>),
    /// Raft: a candidate asks for a vote
    Vote(VoteRequest<TypeConfig>),
    /// Raft: would you vote for me?
    PreVote(VoteRequest<TypeConfig>),
    /// Raft: the leader hands over
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    /// A piece of a snapshot
    Snapshot(SnapshotPart),
    /// To the leader: what is the newest commit that anyone has been told of?
    ReadIndex,
    /// Answer when this is applied there
    WaitApplied(Timestamp),
    /// From the leader: a commit comes, give up your read leases up to this one
    Recall(Lease),
    /// To the leader: lock these keys
    Lock {
        /// The leadership under which the transaction holds locks already, if it does
        held_under: Option<LeaderId>,
        /// How long the reply may be held back before it says [`Reply::LockWaiting`]
        patience: Duration,
        /// What to lock
        request: LockRequest,
    },
    /// To the leader: certify and commit
    Commit {
        /// The leadership this is meant for; any other refuses it
        leader: LeaderId,
        /// The leadership under which the transaction holds locks, if it does
        held_under: Option<LeaderId>,
        /// What to commit
        request: CommitRequest,
    },
    /// To the leader: these transactions are over, one way or the other
    Release(Vec<TransactionId>),
    /// To the leader: all transactions of a gateway that may hold locks are still alive
    Renew(Vec<TransactionId>),
    /// To the leader: what became of this commit? If it has not been seen, refuse it from now on.
    Outcome {
        /// The leadership this is meant for; any other refuses it
        leader: LeaderId,
        /// The transaction
        id: TransactionId,
        /// Every entry that could carry it lies after this index
        after: u64,
    },
    /// To the leader: a question about a sequence
    Sequence(TableId, SequenceCall),
    /// To the leader: an id for the node that chose this token
    AllocateNode(Uuid),
    /// To the leader: replicate to this node, and make it a voter when it has caught up
    AddLearner(NodeId, Member),
    /// To the leader: forget this node; if true, also where no other may fail afterwards
    RemoveMember(NodeId, bool),
    /// To the leader: this read replica is to vote
    Promote(NodeId),
    /// To the leader: hand over to this voter; 0 is the fittest
    TransferTo(NodeId),
}

/// What a member of the group answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To `AppendEntries`
    AppendEntries(AppendEntriesResponse<TypeConfig>),
    /// To `Vote` and `PreVote`
    Vote(VoteResponse<TypeConfig>),
    /// To `TransferLeader`
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    /// To `Snapshot`: the part is safe
    SnapshotPart,
    /// To the last part of a snapshot: it is installed
    SnapshotInstalled(SnapshotResponse<TypeConfig>),
    /// To `ReadIndex`
    ReadIndex {
        /// Read at this timestamp or later, once it is applied
        at: Timestamp,
        /// From then on, a lease
        lease: Option<Lease>,
    },
    /// To `Lock`: what became of each key
    Locked {
        /// The leadership that holds the locks
        leader: LeaderId,
        /// One per key, in the request's order
        keys: Vec<KeyLock>,
    },
    /// To `Lock`: still waiting; ask again to go on, the place in the queue is kept
    LockWaiting,
    /// To `Lock`: refused
    LockRefused(LockRefusal),
    /// To `Commit` and `Outcome`: committed and applied
    Committed(Timestamp),
    /// To `Commit`: certainly not committed
    Refused(Refusal),
    /// To `Outcome`: certainly not committed, and it never will be
    NotCommitted,
    /// To `Commit` and `Outcome`: it may or may not be committed
    Unknown,
    /// To `Sequence`
    Sequence(SequenceAnswer),
    /// To `AllocateNode`
    Node(NodeId),
    /// To `AddLearner`: this node has been removed, for ever
    Removed(NodeId),
    /// Done
    Done,
    /// This node does not lead, or not yet; nothing was done. Who does, if known.
    NotLeader(Option<NodeId>),
    /// The request could not be served here and now
    Failed(String),
}

/// Why locks are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockRefusal {
    /// Waited for `lock_timeout` (55P03)
    Timeout,
    /// NOWAIT, and another holds it (55P03)
    NotAvailable,
    /// To wait would close a circle (40P01)
    Deadlock,
    /// Locks that the transaction held are gone (40001)
    LocksLost,
    /// Too many locks or waiters (53200)
    Overloaded,
}

/// Why a commit is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// A version moved, or a key is locked by another
    Conflict,
    /// What a SERIALIZABLE transaction read has been written since, or may have been (40001)
    ReadsMoved,
    /// A table changed after the transaction was planned
    CatalogMoved,
    /// Locks that the transaction held are gone (40001)
    LocksLost,
    /// The certifier's queue is full (53300)
    Overloaded,
    /// The gateway's clock is too far ahead (58000)
    ClockDrift,
    /// The outcome was asked for before the commit arrived, and was promised to be "not committed"
    Fenced,
}

/// A snapshot travels as a list of files, then their contents piece by piece, then a request to install.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum SnapshotPart {
    /// Makes room for a transfer; any earlier unfinished one is dropped.
    Begin {
        /// Chosen by the sender
        transfer: u64,
        /// Sender's leadership
        vote: Vote,
        /// Which entry it ends with, at least
        meta: SnapshotMeta,
        /// File names (no directories) and sizes in bytes
        files: Vec<(String, u64)>,
    },
    /// A piece of a file
    Chunk {
        /// The transfer
        transfer: u64,
        /// Position in the list of files
        file: u32,
        /// Where in the file it goes, in bytes
        offset: u64,
        /// CRC-32 of `bytes`
        crc: u32,
        /// The piece
        bytes: bytes::Bytes,
    },
    /// All pieces have been sent: install it.
    Install {
        /// The transfer
        transfer: u64,
    },
}

impl SnapshotPart {
    /// Bytes of files in it.
    pub fn bytes(&self) -> u64 {
        match self {
            SnapshotPart::Chunk { bytes, .. } => bytes.len() as u64,
            SnapshotPart::Begin { .. } | SnapshotPart::Install { .. } => 0,
        }
    }
}

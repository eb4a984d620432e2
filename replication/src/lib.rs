//! Amphora's replication floor: one [`Transaction`] over two kinds of table.
//!
//! Above this floor SQL sees rows; below it storage sees keys. Here a transaction gathers what it reads
//! and writes, and its commit goes one of three ways: through the Raft group (strong tables), into this
//! node's op log (leaderless tables), or, when it touched both, through the Raft group with the leaderless
//! operations riding in the same entry.

// The future of a write nests through locks, the leader's answer and its restarts.
#![recursion_limit = "256"]

pub mod api;
pub mod error;
pub mod gossip;
mod index_entry;
pub mod leaderless;
pub mod node;
pub mod rpc;
pub mod sessions;
pub mod strong;
pub mod token;
pub mod transaction;
pub mod verify;

pub use api::{
    Access, AdvisoryLock, ClusterStatus, Direction, Engine, IndexFunctions, InsertOutcome, IsolationLevel,
    KeyBound, KeyRange, LockMode, NodeRole, NodeState, NodeStatus, OnConflict, PeerLag, Quorums, RaftStatus,
    ReadMode, RowLock, RowStream, SavepointId, Scan, SequenceGrant, Sequences, StoredRow, SynchronousCommit,
    TableStatus, Transaction, TransactionOptions, Verdict, Verification, WaitPolicy,
};
pub use error::{ConflictingKey, Error, ErrorKind, Result};
pub use strong::EarlyCommit;
pub use token::{NotAToken, Token};

/// A node's id: never used again after the node is removed. 0 is no node.
pub type NodeId = u64;

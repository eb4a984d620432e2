//! What nodes say to each other about leaderless tables.
//!
//! There is one kind of answer, the receiver's version vector, because it is at once acknowledgement,
//! progress report and request: whoever sees it knows what its owner lacks.

use amphora_storage::Timestamp;
use amphora_storage::schema::TableId;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::dots::VersionVector;
use super::op::RowOp;
use super::row_state::RowState;
use crate::{NodeId, Result};

/// One commit of one origin: a record of the op log, and what streams carry. It is encoded once, by its origin,
/// and passed on and logged as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpBatch {
    /// The node that committed it
    pub origin: NodeId,
    /// The origin's how-manieth commit it is, from 1
    pub seq: u64,
    /// A [`BatchBody`], encoded
    pub body: Bytes,
}

/// What a commit did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchBody {
    /// When
    pub hlc: Timestamp,
    /// What the origin had seen before it
    pub context: VersionVector,
    /// What became of which rows: row keys with deltas
    pub rows: Vec<(Vec<u8>, RowState)>,
}

/// A mixed transaction's operation, as it rides in a Raft entry: table, row key, operation.
pub type GroupOp = (TableId, Vec<u8>, RowOp);

/// What one node sends to another. The answer is always the receiver's vector of what it has on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerMessage {
    /// The sender
    pub from: NodeId,
    /// The sender's clock: one too far ahead is refused before anything of it is adopted
    pub clock: Timestamp,
    /// What the sender has on disk
    pub vector: VersionVector,
    /// What it wants
    pub body: PeerBody,
}

/// The kinds of [`PeerMessage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerBody {
    /// Here are commits, in order per origin. The receiver takes what continues what it has.
    Push(Vec<OpBatch>),
    /// What do you have? If `wanting`, the sender waits for what it lacks: pass on other origins' commits
    /// at once.
    Vector {
        /// Whether the sender waits
        wanting: bool,
    },
    /// You are so far behind that the log no longer reaches back to you: here are the rows themselves.
    Reseed(ReseedPage),
}

/// A piece of a table transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReseedPage {
    /// Row keys with their whole states
    pub rows: Vec<(Vec<u8>, RowState)>,
    /// With the last page: what all pages together cover
    pub complete: Option<VersionVector>,
}

/// Carries messages to peers.
#[async_trait]
pub trait PeerTransport: Send + Sync + 'static {
    /// Delivers a message to a node, whose [`Engine::handle`](super::Engine::handle) answers. Fails if
    /// there is no answer in reasonable time; the message may then have been delivered all the same.
    async fn call(&self, peer: NodeId, message: PeerMessage) -> Result<VersionVector>;
}

/// Bytes of commits in one message: small enough that a slow link makes progress between deadlines.
pub const PUSH_BYTES: usize = 1 << 20;

/// Bytes of one commit, encoded: it must fit a message, because a stream cannot pass by it.
pub const MAX_COMMIT_BYTES: usize = 12 << 20;

//! What the group replicates, and what its gateways ask of its leader.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use amphora_storage::Timestamp;
use amphora_storage::schema::TableId;
use serde::{Deserialize, Serialize};

use super::early::{Durability, OnDisk};
use super::raw;
use super::read_set::Reads;
use crate::NodeId;
use crate::api::{LockMode, WaitPolicy};

openraft::declare_raft_types!(
    /// The types openraft works with. Leader ids are (term, node): more than one node may lead in a term,
    /// and the pair, not the term, is what an entry is fenced by.
    pub TypeConfig:
        D = Command,
        R = Applied,
        NodeId = NodeId,
        Node = Member,
);

/// One leadership: the term and who leads in it.
pub type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;
/// Position of an entry and the leadership it was appended under.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// A vote, or a leadership if committed.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// One entry of the log.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// Members and voters, with the entry that made them so.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// Which entry a snapshot ends with.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// A member of the cluster as its catalog of members knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where peers connect
    pub rpc_address: String,
    /// Where SQL clients connect
    pub pg_address: String,
    /// Where `/health`, `/ready` and the console are
    pub http_address: String,
    /// `--region`
    pub region: String,
    /// Amphora's version
    pub version: String,
    /// The newest version of the peers' messages it understands
    pub protocol: u32,
    /// `--leader-preference`: leadership moves to the greatest that is fit
    pub preference: i32,
    /// `--learner`: a read replica, which never votes. Said when it joins; from then on `promote` decides.
    pub learner: bool,
}

impl Member {
    /// True if both say the same of a node, but for what the cluster decides itself.
    pub fn says_the_same(&self, other: &Member) -> bool {
        *self == Member { learner: self.learner, ..other.clone() }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rpc_address)
    }
}

/// A transaction's name, unique for ever: which node, which life of its process, which of that life's
/// transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransactionId {
    /// The gateway
    pub node: NodeId,
    /// Random, new in every life of the gateway's process
    pub epoch: u64,
    /// Counted by the gateway
    pub counter: u64,
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}.{}", self.node, self.epoch, self.counter)
    }
}

/// One key of the strong keyspace and its new value; `None` deletes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Encoded key, with its table's prefix
    #[serde(with = "raw")]
    pub key: Vec<u8>,
    /// Encoded row
    #[serde(with = "raw::option")]
    pub value: Option<Vec<u8>>,
}

/// A certified transaction as the log carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedTransaction {
    /// Who asked
    pub id: TransactionId,
    /// The version of everything it writes
    pub timestamp: Timestamp,
    /// Strong writes, changes of the catalog among them
    pub writes: Vec<Write>,
    /// More strong writes, that went ahead (`staging.rs`)
    pub staged: Staged,
    /// Encoded leaderless operations, for [`ApplyHook`](super::ApplyHook); empty if there are none
    #[serde(with = "raw")]
    pub leaderless: Vec<u8>,
}

/// Writes of a transaction that went ahead of its commit, in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// Parts, numbered from 0
    pub parts: u32,
    /// Bytes of their writes
    pub bytes: u64,
}

/// What an entry of the log says. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Transactions certified together
    Commit(Arc<CommitBatch>),
}

/// Transactions that the certifier found ready at the same moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommitBatch {
    /// The leadership that certified it. In the log under any other, it is applied as aborted.
    pub leader: LeaderId,
    /// In the order of their timestamps
    pub transactions: Vec<CommittedTransaction>,
    /// Who waits until it is on this node's own disk; no part of the entry
    #[serde(skip)]
    pub on_disk: Option<Arc<OnDisk>>,
}

impl Command {
    /// Bytes it takes in a message, about.
    pub fn size(&self) -> usize {
        let Command::Commit(batch) = self;
        batch.size()
    }
}

impl CommitBatch {
    /// Bytes it takes in a message, about.
    pub fn size(&self) -> usize {
        self.transactions.iter().map(|t| size(&t.writes, &t.leaderless)).sum()
    }
}

/// What a write or an expectation takes in a message beside its key and its value, at most.
pub const WRITE_OVERHEAD: usize = 16;

fn size(writes: &[Write], leaderless: &[u8]) -> usize {
    let strong = writes.iter().map(|w| w.key.len() + w.value.as_ref().map_or(0, Vec::len) + WRITE_OVERHEAD);
    strong.sum::<usize>() + leaderless.len() + 64
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Commit(batch) => {
                write!(f, "{} commits certified by {}", batch.transactions.len(), batch.leader)
            }
        }
    }
}

/// What applying an entry came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// Nothing to apply but the position itself
    Nothing,
    /// All of the entry's transactions are committed.
    Committed,
    /// None of the entry's transactions is: it was certified under another leadership.
    Aborted,
}

/// A version that an optimistic transaction read and that must still be the newest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Encoded key
    #[serde(with = "raw")]
    pub key: Vec<u8>,
    /// The version read; [`Timestamp::ZERO`] if there was no row
    pub version: Timestamp,
    /// Exclusive for what is written, shared for what must merely stay (a foreign key's parent)
    pub mode: LockMode,
}

/// A table that a transaction was planned with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableVersion {
    /// The table
    pub table: TableId,
    /// Encoded key of its descriptor's row in the catalog
    #[serde(with = "raw")]
    pub key: Vec<u8>,
    /// The descriptor's version
    pub version: Timestamp,
}

/// A commit, as the gateway asks for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CommitRequest {
    /// The transaction
    pub id: TransactionId,
    /// True if every key that needs one was locked with [`Group::lock`](super::Group::lock): the locks
    /// must still be held. False if the transaction is optimistic: `expected` is checked instead.
    pub locked: bool,
    /// Versions that must still be the newest, if not `locked`; may be empty
    pub expected: Vec<Expected>,
    /// Tables it was planned with, at the versions it was planned with
    pub tables: Vec<TableVersion>,
    /// Keys that stand for whole tables, to be locked shared while an optimistic commit is in flight
    pub intents: Vec<Vec<u8>>,
    /// Strong writes
    pub writes: Vec<Write>,
    /// More strong writes, that went ahead; only if `locked`
    pub staged: Staged,
    /// Keyspaces that those write to; none named stands for all
    pub staged_into: Vec<TableId>,
    /// What a SERIALIZABLE transaction read, if it read anything
    pub reads: Option<Reads>,
    /// Encoded leaderless operations; empty if there are none
    #[serde(with = "raw")]
    pub leaderless: Vec<u8>,
    /// The gateway's clock, which the commit's timestamp passes
    pub clock: Timestamp,
    /// When it is acknowledged
    pub durability: Durability,
}

impl CommitRequest {
    /// A transaction that does nothing but to have a timestamp greater than `clock`.
    pub fn empty(id: TransactionId, clock: Timestamp) -> CommitRequest {
        CommitRequest {
            id,
            locked: false,
            expected: Vec::new(),
            tables: Vec::new(),
            intents: Vec::new(),
            writes: Vec::new(),
            staged: Staged::default(),
            staged_into: Vec::new(),
            reads: None,
            leaderless: Vec::new(),
            clock,
            durability: Durability::Majority,
        }
    }

    /// Bytes of what it writes and of what certifying it takes, about.
    pub fn size(&self) -> usize {
        let expected: usize = self.expected.iter().map(|e| e.key.len() + WRITE_OVERHEAD).sum();
        size(&self.writes, &self.leaderless) + expected + self.reads.as_ref().map_or(0, Reads::size)
    }
}

/// One key to lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockKey {
    /// Encoded key
    #[serde(with = "raw")]
    pub key: Vec<u8>,
    /// What it excludes
    pub mode: LockMode,
}

/// Locks, as the gateway asks for them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LockRequest {
    /// The transaction
    pub id: TransactionId,
    /// Its session, by a number that tells the sessions of a node apart; 0 for none. A session that waits for its
    /// own locks through others is in a deadlock.
    #[serde(skip)]
    pub session: u64,
    /// What else its session holds: the counters of those transactions. [`Group::lock`](super::Group::lock) knows.
    pub partners: Vec<u64>,
    /// What to lock, in any order
    pub keys: Vec<LockKey>,
    /// What to do where another holds a lock
    pub wait: WaitPolicy,
    /// How long to wait for all of them; zero waits for ever
    pub timeout: Duration,
    /// The table's name, for messages
    pub relation: String,
    /// Not all of the keys, but the first that are free
    pub pick: Option<Pick>,
}

impl LockRequest {
    /// Nothing yet, of no session, to be waited for for ever.
    pub fn new(id: TransactionId, relation: impl Into<String>) -> LockRequest {
        LockRequest {
            id,
            session: 0,
            partners: Vec::new(),
            keys: Vec::new(),
            wait: WaitPolicy::Wait,
            timeout: Duration::ZERO,
            relation: relation.into(),
            pick: None,
        }
    }
}

/// SKIP LOCKED: of the keys of a request, in its order, so many are locked as are free and have not moved. Whoever
/// takes work from a queue finds some in one round, however many others are at it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pick {
    /// How many to lock at most
    pub wanted: usize,
    /// The version of each key that is wanted
    pub versions: Vec<Timestamp>,
    /// What stands for the table, to be locked shared before any key; if another has it, none is
    pub table: Vec<u8>,
}

/// What became of one key of a [`LockRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyLock {
    /// Locked. No one else can commit to the key now, and this is its newest version:
    /// [`Timestamp::ZERO`] if it has no row.
    Granted(Timestamp),
    /// Held by another, and the request said to skip such keys
    Skipped,
    /// It has another version than the one that was wanted, and is not locked
    Moved,
    /// Not tried: enough were locked before it, or the table was not
    Untried,
}

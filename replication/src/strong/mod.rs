//! Strong tables: one Raft group orders every commit.
//!
//! ```text
//!   any node (gateway)                              the leader
//!  ┌───────────────────────┐                ┌────────────────────────────────────┐
//!  │ Transaction           │  ReadIndex     │ lease, applied timestamp           │
//!  │   reads at a          ├───────────────►│                                    │
//!  │   timestamp, locally  │  Lock          │ lock table   (locks.rs)            │
//!  │   buffers its writes  ├───────────────►│   FIFO, deadlocks, expiry          │
//!  │                       │  Commit        │ certifier    (certifier.rs)        │
//!  │   Group (group.rs)    ├───────────────►│   checks, stamps, batches ─┐       │
//!  └───────────┬───────────┘                └────────────────────────────┼───────┘
//!              │ applied locally                                         │ one entry,
//!              │ (state_machine.rs)                                      ▼ many commits
//!  ┌───────────┴──────────────────────────────────────────────────────────────────┐
//!  │ openraft: log (log_store.rs) ── replication (network.rs) ── apply, snapshots │
//!  └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What keeps it correct, in one paragraph. Locks and certification live in the memory of one leader, and
//! an entry names the leadership it was certified under: an entry that ends up in the log under another
//! leadership is applied as aborted by everyone. A leader grants and certifies nothing before the first
//! entry of its own term is applied, so it has seen all that was committed before it. A commit is
//! acknowledged after it is applied on the leader, so the leader's applied timestamp covers everything
//! acknowledged, and reading at it while the lease holds is linearizable. Commit timestamps grow strictly
//! in log order, so a timestamp names a prefix of the log and a read at it is a consistent snapshot on
//! every replica that has applied as far.

mod admission;
mod advisory;
mod apply_queue;
mod certification;
mod certifier;
mod changes;
pub mod early;
mod gaps;
mod gateway;
pub mod group;
mod history;
mod leadership;
mod leases;
pub mod locks;
mod log_store;
mod membership;
mod network;
mod open;
mod outcomes;
mod raw;
mod read_set;
mod reads;
mod recent_writes;
pub mod recovery;
pub mod replica;
mod retention;
mod roster;
pub mod sequences;
mod snapshot;
mod staging;
mod staleness;
mod state_machine;
mod tenure;
pub mod transport;
pub mod types;

pub use early::{Durability, EarlyCommit};
pub use gaps::{Gaps, SLOW};
pub use gateway::MAX_COMMIT_BYTES;
pub use group::{Group, GroupConfig, LogLimits, Timing};
pub use history::SnapshotHold;
pub use membership::REMOVED;
pub use read_set::{ReadRange, ReadSet, Reads};
pub use replica::{ApplyHook, ApplyOps, InstallHook, in_catalog};
pub use sequences::{SequenceAnswer, SequenceCall, sequence_key};
pub use staging::StagedParts;
pub(crate) use staleness::{FOLLOW_PATIENCE, not_caught_up};
pub use transport::{Reply, Request, Transport, TransportError};
pub use types::{
    CommitRequest, CommittedTransaction, Expected, KeyLock, LockKey, LockRequest, Member, Pick, Staged,
    TableVersion, TransactionId, TypeConfig, WRITE_OVERHEAD, Write,
};

type RaftHandle = openraft::Raft<TypeConfig, state_machine::StateMachine>;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod leadership_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod lease_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod serializability_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
mod simulation;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod staging_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
pub(crate) mod testing;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

//! Leaderless tables: every node writes, and concurrent writes merge.
//!
//! ```text
//!   transaction ──► RowOp ──resolve──► RowState (delta) ──join──► RowState (state)
//!                     │                     │
//!                     │                     └──► op log (origin, seq) ──► peer streams ──► join
//!                     └──► Raft entry (mixed transaction) ──► every replica resolves and joins
//! ```
//!
//! `docs/leaderless.md` tells the whole story.

pub mod cell;
pub mod conflicts;
mod difference;
mod document;
pub mod dot_map;
pub mod dots;
pub mod engine;
pub mod group;
mod hot_rows;
mod indexes;
pub mod inspect;
mod log_index;
pub mod merkle;
pub mod messages;
pub mod op;
mod oplog;
pub mod peer_stream;
mod quorums;
pub mod repair;
mod retention;
pub mod row_state;
pub(crate) mod stored_row;
mod streams;
pub mod surface;

pub use conflicts::{Conflict, ConflictKind, Side, TableOf};
pub use difference::initial;
pub use dots::{Context, Dot, GROUP, VersionVector};
pub use engine::{Committed, Engine};
pub use group::GroupApply;
pub use messages::{GroupOp, OpBatch, PeerBody, PeerMessage, PeerTransport};
pub use op::{CellOp, RowOp};
pub use quorums::QUORUM_TIMEOUT;
pub use retention::{OpLogLimits, Progress};
pub use row_state::{GroupIndex, RowState};
pub use surface::{PendingRow, plan_delete, plan_insert, plan_update, visible, visible_columns};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod conflict_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod convergence;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod engine_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod histories;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod index_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod repair_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod schema_tests;

//! The consistency check: are the replicas of a strong table equal, and is each equal to its own indexes?
//! (Those of a leaderless table are another question, with another answer: [`merged`].)
//!
//! A timestamp names a prefix of the log, so what a table holds at one is the same on every replica, to the
//! byte; if it is not, something is broken that no protocol above notices: a disk, memory, or Amphora itself.
//! Whoever is asked takes a timestamp, and everybody computes what it has as of that:
//!
//! ```text
//!   coordinator ── Check {table, at} ──► each member     rows:     n, SHA-256 over key, version, value in key order
//!        ▲                                    │          an index: n, the same
//!        │                                    │          and:      Σ hash(entry) over the index
//!        └─────────── report ─────────────────┘               =?   Σ hash(entry that the row should have) over the rows
//! ```
//!
//! The sums do not depend on the order, so rows and entries are each read once, in their own order. Only if they differ
//! the rows and entries that do not fit are looked for, one by one ([`check`]).
//!
//! What differs is reported, in the log of every node and in `amphora.verification`, and is not repaired: which
//! side is right is a person's decision, and the one with the fewer friends is not always wrong. A replica that is
//! wrong is replaced by removing its node and joining a fresh one.
//!
//! A member may take as long as it needs: the coordinator asks again for the same job until it is done, and a job
//! that nobody asks for any more ends ([`jobs`]). The leader goes through all tables now and then,
//! slowly ([`background`]); `amphora.verify_table` does it at full speed, from any node.

mod background;
pub mod check;
mod coordinator;
mod jobs;
mod merged;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

use std::time::Duration;

use amphora_storage::Timestamp;
use amphora_storage::schema::TableId;
use serde::{Deserialize, Serialize};

pub use check::{ObjectReport, Pace};
pub use jobs::Jobs;

use crate::NodeId;
use crate::api::{IndexFunctions, Verification};
use crate::leaderless::repair::{RepairReply, RepairRequest};

/// How a node checks its tables.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Between two checks of all tables; zero makes none
    pub every: Duration,
    /// Bytes that each node reads in a second for that, at most
    pub bytes_per_second: u64,
    /// Computes the entries of indexes on expressions and on some rows; without it those are compared among
    /// replicas and not with their tables
    pub indexes: Option<&'static dyn IndexFunctions>,
}

impl Default for VerifyOptions {
    fn default() -> VerifyOptions {
        VerifyOptions { every: Duration::from_secs(24 * 3600), bytes_per_second: 8 << 20, indexes: None }
    }
}

/// What is asked of a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum VerifyRequest {
    /// Check a table; asked again with the same job until it is done
    Check(CheckOrder),
    /// This is what a check found
    Publish(Vec<Verification>),
    /// Compare rows of a leaderless table
    Repair(RepairRequest),
}

/// A table to be checked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CheckOrder {
    /// Chosen by the coordinator
    pub job: u64,
    /// The table
    pub table: TableId,
    /// As of when
    pub at: Timestamp,
    /// Bytes to read in a second, at most
    pub bytes_per_second: Option<u64>,
}

/// What a member answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum VerifyReply {
    /// Ask again
    Working,
    /// The table and its indexes, in the order of the descriptor
    Done(Vec<ObjectReport>),
    /// It could not be checked
    Failed(String),
    /// To `Publish`
    Noted,
    /// To `Repair`
    Repair(RepairReply),
}

/// Who said what about one table.
struct Answers {
    reports: Vec<(NodeId, Vec<ObjectReport>)>,
    /// Those that could not say, and why
    silent: Vec<(NodeId, String)>,
}

//! The sessions of the cluster: who lists them, and who stops them, from any node.
//!
//! A session's process id says on which node it is, so that one number is enough to reach it:
//!
//! ```text
//!   bit  30          20 19                    0
//!       ┌──────────────┬───────────────────────┐
//!       │ node, modulo │ counted by that node, │
//!       │ 2048         │ modulo 1,048,576      │
//!       └──────────────┴───────────────────────┘
//! ```
//!
//! Node ids count up, and are never used again; two members whose ids are 2048 apart share the upper half, so a signal
//! asks both. A list is asked of all members that are not taken for dead, at the same time and for two seconds at most:
//! whoever does not answer is named instead, so a list never hangs on a node.

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// Bits of a process id that its node counts.
const COUNTER_BITS: u32 = 20;
/// Nodes that process ids tell apart.
const NODES: u64 = 1 << (31 - COUNTER_BITS);
/// Bytes of a statement that are shown, at most, as in PostgreSQL.
pub const MAX_QUERY_BYTES: usize = 1024;
/// Advisory locks that a node lists, at most, over all its sessions.
pub const MAX_LISTED_LOCKS: usize = 100_000;

/// The process id of a node's n-th session; never 0.
pub fn process_id(node: NodeId, n: u32) -> i32 {
    let counter = n & ((1 << COUNTER_BITS) - 1);
    let pid = ((node % NODES) as u32) << COUNTER_BITS | counter;
    i32::try_from(pid.max(1)).unwrap_or(i32::MAX)
}

/// True if a process id may be one of this node's sessions.
pub fn may_be_of(node: NodeId, pid: i32) -> bool {
    u32::try_from(pid).is_ok_and(|pid| u64::from(pid >> COUNTER_BITS) == node % NODES)
}

/// A session, as `pg_stat_activity` shows it. Times are microseconds since 2000-01-01 UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Where it is
    pub node: NodeId,
    /// Its process id
    pub pid: i32,
    /// Its user
    pub user: String,
    /// Its database
    pub database: String,
    /// `application_name`
    pub application: String,
    /// `active`, `idle`, `idle in transaction`, `idle in transaction (aborted)`
    pub state: String,
    /// The beginning of the statement that it runs, or ran last
    pub query: Option<String>,
    /// When the session began
    pub started: i64,
    /// When its transaction began, if there is one
    pub transaction_start: Option<i64>,
    /// When the statement began
    pub query_start: Option<i64>,
    /// When the state began
    pub state_change: Option<i64>,
    /// The advisory locks that it holds
    pub locks: Vec<HeldKey>,
}

/// An advisory lock that a session holds, as `pg_locks` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldKey {
    /// `classid`: the upper half of a key, or the first of two
    pub class: u32,
    /// `objid`: the lower half, or the second
    pub object: u32,
    /// `objsubid`: 1 for one key, 2 for two
    pub kind: i16,
    /// Others may have it too
    pub shared: bool,
}

/// What a session is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// Nothing: is it there?
    Probe,
    /// `pg_cancel_backend`, called by this role
    Cancel(String),
    /// `pg_terminate_backend`, called by this role
    Terminate(String),
    /// A client's request to cancel, with the session's secret
    CancelRequest(Vec<u8>),
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signalled {
    /// The session was told
    Sent,
    /// There is no such session
    Unknown,
    /// It is a superuser's, and who calls is none (42501)
    NeedsSuperuser,
    /// It is another role's (42501)
    NeedsRole,
    /// Its node does not answer: nobody knows
    Silent(NodeId),
}

/// What one node asks another about its sessions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum SessionsRequest {
    /// Which are there?
    List,
    /// Tell the one with this process id
    Signal(i32, Signal),
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum SessionsReply {
    /// To `List`
    List(Vec<SessionInfo>),
    /// To `Signal`
    Signalled(Signalled),
}

/// The sessions of other nodes, and the nodes that did not answer.
#[derive(Clone, Debug, Default)]
pub struct RemoteSessions {
    /// What those that answered have
    pub sessions: Vec<SessionInfo>,
    /// Those that did not
    pub silent: Vec<NodeId>,
}

/// Knows the sessions of a node. Its methods answer at once.
pub trait SessionDirectory: Send + Sync {
    /// All of them, by process id.
    fn list(&self) -> Vec<SessionInfo>;

    /// Tells one of them something, if who asks may.
    fn signal(&self, pid: i32, signal: &Signal) -> Signalled;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_id_names_its_node() {
        for (node, n) in [(1, 1), (7, 1 << 19), (2047, u32::MAX), (2049, 5), (123_456, 0)] {
            let pid = process_id(node, n);
            assert!(pid > 0 && may_be_of(node, pid), "{node} {n} {pid}");
            assert!(!may_be_of(node + 1, pid));
        }
        assert_eq!(process_id(2048, 0), 1, "0 is no process");
        assert!(!may_be_of(1, -1));
    }
}

//! Commits that are acknowledged before a majority has them, and commits that wait for more than a majority.
//!
//! ```text
//!   synchronous_commit      acknowledged when                              lost with
//!   off                     certified, stamped, and queued for the log     the leader
//!   local                   it is on the leader's own disk                 the leader, if it does not come back as
//!                                                                          the leader, or its disk
//!   on                      a majority has it on disk, and it is applied   a majority of the disks
//!   remote_apply            and every node in reach has applied it         a majority of the disks
//! ```
//!
//! Whichever it is, the transaction goes the same way: certified by the leader, one entry of the log, locks held and
//! invisible to everyone until it is applied. So atomicity, isolation and order do not depend on it; only whether what
//! was acknowledged is there afterwards does.
//!
//! **Never a hole.** A session's next statement on strong tables first waits until its own early commit is decided
//! ([`Group::settle_early`]): applied here, and then it is read; or certainly lost, and then the statement fails with
//! 57P02. It can be told without asking anyone: timestamps grow in log order, so once something newer is applied here,
//! a commit that was not applied before it never will be. If the leadership has changed and nothing newer comes,
//! the next leader is asked what became of it, and refuses it from then on. So of the commits 1 … n of a session that has
//! not been told of a loss, those that survive are 1 … m, and n - m is at most one.

use std::time::{Duration, Instant};

use amphora_storage::Timestamp;
use futures::future::join_all;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::group::{Group, known_leader};
use super::outcomes::Outcome;
use super::transport::{Reply, Request, TransportError};
use super::types::{LeaderId, TransactionId};
use crate::{Error, ErrorKind, NodeId, Result};

/// How long a commit with `remote_apply` waits for a node.
pub const REMOTE_APPLY: Duration = Duration::from_secs(2);
/// How long a node that was too late is not waited for.
const LATE: Duration = Duration::from_secs(10);
/// Between two looks at who leads.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// When the leader acknowledges a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// A majority has it on disk, and it is applied
    #[default]
    Majority,
    /// It is on the leader's own disk
    Leader,
    /// It has its place in the order of commits
    Queued,
}

/// Acknowledgements that wait until an entry is on the leader's own disk.
#[derive(Debug, Default)]
pub struct OnDisk(Mutex<Vec<(Timestamp, oneshot::Sender<Reply>)>>);

/// No part of what an entry says.
impl PartialEq for OnDisk {
    fn eq(&self, _: &OnDisk) -> bool {
        true
    }
}

impl OnDisk {
    /// Those who wait.
    pub fn new(waiting: Vec<(Timestamp, oneshot::Sender<Reply>)>) -> OnDisk {
        OnDisk(Mutex::new(waiting))
    }

    /// The entry is on disk.
    pub fn written(&self) {
        for (timestamp, reply) in std::mem::take(&mut *self.0.lock()) {
            // Whoever asked may have given up.
            let _ = reply.send(Reply::Committed(timestamp));
        }
    }

    /// Who waits for this commit, if they still do: its fate was known first.
    pub fn take(&self, timestamp: Timestamp) -> Option<oneshot::Sender<Reply>> {
        let mut waiting = self.0.lock();
        let position = waiting.iter().position(|(at, _)| *at == timestamp)?;
        Some(waiting.swap_remove(position).1)
    }
}

/// A commit as its session was told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlyCommit {
    /// The transaction
    pub id: TransactionId,
    /// Its entry comes after this index
    pub after: u64,
    /// Who acknowledged it
    pub leader: LeaderId,
    /// What it was stamped with
    pub timestamp: Timestamp,
}

/// Nodes that were too late for a commit with `remote_apply`, and until when they are not waited for.
#[derive(Debug, Default)]
pub struct Late(Mutex<std::collections::HashMap<NodeId, Instant>>);

impl Late {
    fn is(&self, node: NodeId) -> bool {
        self.0.lock().get(&node).is_some_and(|until| *until > Instant::now())
    }

    fn note(&self, node: NodeId) {
        let now = Instant::now();
        let mut late = self.0.lock();
        late.retain(|_, until| *until > now);
        late.insert(node, now + LATE);
    }
}

fn lost() -> Error {
    Error::new("57P02", "a transaction that was acknowledged before it was durable has been lost")
        .detail(
            "The leader failed or was replaced before a majority had it; synchronous_commit was local or off.",
        )
        .hint("It was this session's last commit. All that it committed before is there.")
}

impl Group {
    /// Waits until a session's own early commit can be read here. 57P02 if it never will be.
    pub async fn settle_early(&self, commit: EarlyCommit) -> Result<()> {
        let replica = &self.inner.replica;
        let until = Instant::now() + self.inner.timing.patience * 2;
        let mut applied = replica.watch_applied();
        loop {
            if applied.borrow_and_update().timestamp >= commit.timestamp {
                match replica.outcome(commit.id, commit.after) {
                    Outcome::Committed(_) => return Ok(()),
                    Outcome::NotCommitted => return Err(lost()),
                    // Too long ago for what is remembered here.
                    Outcome::Unknown => return self.ask_early(commit).await,
                }
            }
            let leader = known_leader(&self.inner.server.borrow_watched());
            if leader.is_some_and(|leader| leader != commit.leader) {
                return self.ask_early(commit).await;
            }
            if Instant::now() >= until {
                return Err(Error::unavailable(
                    "strong tables are not available: this session's last commit is not decided yet",
                ));
            }
            let _ = tokio::time::timeout(LOOK_INTERVAL, applied.changed()).await;
        }
    }

    /// Asks the leader what became of it. If it has not been seen, it is refused from then on.
    async fn ask_early(&self, commit: EarlyCommit) -> Result<()> {
        match self.resolve(commit.id, commit.after, false).await {
            Ok(timestamp) => self.follow(timestamp).await,
            Err(e) if e.kind == ErrorKind::Retry => Err(lost()),
            Err(e) => Err(e),
        }
    }

    /// Waits until every member has applied a commit; gives those that are down or too late, which are not waited
    /// for any longer.
    pub async fn wait_applied_everywhere(&self, timestamp: Timestamp) -> Vec<NodeId> {
        let others = self.members().into_iter().filter(|(id, ..)| *id != self.inner.node_id);
        let each = others.map(|(id, member, _)| async move {
            if self.inner.late.is(id) {
                return Some(id);
            }
            let request = Request::WaitApplied(timestamp);
            match self.inner.transport.call(id, &member.rpc_address, request, REMOTE_APPLY).await {
                Ok(Reply::Done) => None,
                Err(TransportError::Unreachable(..)) => Some(id),
                Ok(_) | Err(TransportError::Lost(..)) => {
                    self.inner.late.note(id);
                    Some(id)
                }
            }
        });
        let (left_out, own) = tokio::join!(join_all(each), self.applied_in_time(timestamp));
        let own = (!own).then_some(self.inner.node_id);
        left_out.into_iter().flatten().chain(own).collect()
    }

    /// True if a commit is applied here before it is too late.
    pub(super) async fn applied_in_time(&self, timestamp: Timestamp) -> bool {
        tokio::time::timeout(REMOTE_APPLY, self.inner.replica.wait_applied(timestamp)).await.is_ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_for_the_disk_is_answered_once_by_it_or_by_the_fate() {
        let (first, mut on_disk) = oneshot::channel();
        let (second, mut by_fate) = oneshot::channel();
        let waiting = OnDisk::new(vec![(Timestamp(1), first), (Timestamp(2), second)]);
        assert!(waiting.take(Timestamp(3)).is_none());
        waiting.take(Timestamp(2)).unwrap().send(Reply::NotLeader(None)).unwrap();
        waiting.written();
        waiting.written();
        assert!(matches!(on_disk.try_recv(), Ok(Reply::Committed(Timestamp(1)))));
        assert!(matches!(by_fate.try_recv(), Ok(Reply::NotLeader(None))));
        assert!(waiting.take(Timestamp(1)).is_none());
    }

    #[test]
    fn who_was_late_is_not_waited_for_for_a_while() {
        let late = Late::default();
        assert!(!late.is(1));
        late.note(1);
        assert!(late.is(1) && !late.is(2));
    }
}

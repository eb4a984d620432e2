//! The entries that are committed and not yet applied here, and how many there may be.
//!
//! ```text
//!   log   … applied │ committed, to be applied: the queue │ not committed yet │
//!                   └── no more than the limits ──────────┘
//! ```
//!
//! **What it is made of.** The entries themselves are on disk, and in memory only as many as are read at a time
//! (`LogStore::entries_stream`); openraft's queue to the state machine holds ranges of indexes. On a leader the certifier
//! bounds it: of what it proposes 16 entries are in flight, and an entry is so until it is applied. On a follower
//! nothing would: a majority without it commits as fast as it can, and sends it all.
//!
//! **Why that needs a bound.** A member that is elected applies what it has before it serves anyone, so the queue is part of
//! a failover's time. What is not applied cannot be purged, so it is disk, too. And openraft's core waits, heartbeats and
//! all, when more commands are queued for the state machine than fit ([`COMMANDS`]).
//!
//! **What happens at the bound.** A follower holds back messages with entries, and so their sender, which
//! sends it one at a time: until there is room, or for [`HOLD`], and then refuses them; they come again. Heartbeats go
//! through. The others form a majority without it; if they do not, the cluster is as fast as it can apply, which is right. Since
//! only *committed* entries count, what is needed for room is all here and nobody has to be waited for.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use super::group::{Group, LogLimits};

/// What openraft may queue for the state machine before its core waits: more than one for each entry of a full
/// queue, and of the message that comes at the bound.
pub const COMMANDS: u64 = 64 << 10;
/// How long a message is held back: well below what its sender waits for the answer.
const HOLD: Duration = Duration::from_secs(1);

/// True if so many entries of so many bytes are as much as may wait.
fn is_full(limits: &LogLimits, entries: u64, bytes: impl FnOnce() -> u64) -> bool {
    entries >= limits.unapplied || (entries > 0 && bytes() >= limits.unapplied_bytes)
}

impl Group {
    /// True if no more should come until some of what is committed has been applied.
    fn has_much_to_apply(&self, limits: &LogLimits) -> bool {
        let applied = self.applied_index();
        let committed = self.inner.data.borrow_watched().local_committed.map_or(0, |last| last.index);
        is_full(limits, committed.saturating_sub(applied), || {
            let log = &self.inner.raft_log;
            log.bytes_after(applied).saturating_sub(log.bytes_after(committed))
        })
    }

    /// Waits until there is room for more entries to apply; false if that takes too long.
    pub(super) async fn room_to_apply(&self) -> bool {
        let limits = &self.inner.log_limits;
        if !self.has_much_to_apply(limits) {
            return true;
        }
        let until = Instant::now() + HOLD;
        let mut applied = self.inner.replica.watch_applied();
        while self.has_much_to_apply(limits) {
            if !matches!(tokio::time::timeout_at(until, applied.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::testing::{Cluster, put};
    use super::*;
    use amphora_storage::Timestamp;
    use std::sync::atomic::Ordering;

    #[test]
    fn the_bound_is_of_entries_and_of_bytes_and_one_entry_always_fits() {
        let limits = LogLimits { unapplied: 10, unapplied_bytes: 1000, ..LogLimits::default() };
        assert!(!is_full(&limits, 9, || 999));
        assert!(is_full(&limits, 10, || 0));
        assert!(is_full(&limits, 1, || 1000));
        assert!(!is_full(&limits, 0, || 5000), "what is queued is what was asked for, at least");
    }

    /// A follower that does not get on with applying takes a bounded number of entries, keeps hearing its leader, and
    /// nobody waits for it; later it has all of them.
    #[tokio::test(flavor = "multi_thread", worker_threads = 6)]
    async fn a_follower_that_cannot_apply_holds_back_what_comes_and_nobody_else() {
        const BOUND: u64 = 50;
        // As many entries as openraft puts into one message.
        const MESSAGE: u64 = 300;
        let limits = LogLimits { unapplied: BOUND, ..LogLimits::default() };
        let cluster = Cluster::three_with(limits).await;
        let leader = cluster.node(1).group.clone();
        let slow = cluster.node(3).group.clone();
        let stopped = cluster.node(3).stopped.clone();
        let term = leader.status().term;
        stopped.store(true, Ordering::SeqCst);
        let before = slow.applied_index();
        for n in 0..2 * (BOUND + MESSAGE) {
            let mut request = put(&leader, &n.to_string(), Timestamp::ZERO, "x");
            request.leaderless = vec![1];
            leader.commit(request).await.unwrap();
        }
        let has = slow.status().last_log_index;
        assert!(has > before, "it takes some");
        assert!(has <= before + BOUND + MESSAGE + 1, "{has} of {}", leader.status().last_log_index);
        // Longer than an election takes.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(slow.status().last_log_index, has);
        assert_eq!((leader.status().term, leader.is_leader()), (term, true));
        assert_eq!(slow.status().term, term);
        stopped.store(false, Ordering::SeqCst);
        let last = leader.status().last_log_index;
        cluster.until("it has applied all", |_| slow.applied_index() >= last).await;
        assert_eq!(cluster.node(3).read("0").await.as_deref(), Some("x"));
    }
}

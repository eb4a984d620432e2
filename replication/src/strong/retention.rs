//! How much of the log is kept.
//!
//! ```text
//!   purged │ ……… needed by a peer that is about to get it ……… │ keep entries, keep_bytes │ newest
//!          ▲                                                   ▲
//!          hard: twice as much of both                         soft: what is older goes, if nobody needs it
//! ```
//!
//! Entries are kept for peers that are behind, as many and of as many bytes as the limits say. A peer that answers
//! is about to get what it lacks, and a snapshot on its way will be followed by what came after it: for them twice
//! as much stays, so that a node that catches up under load is not overtaken by the purge again and again. A peer that
//! is silent holds nothing back; it gets a snapshot.
//!
//! What is purged must be on disk in the tables. openraft sees to it every so many entries; large
//! entries are many bytes before they are many, so here it is seen to every so many bytes.

use std::sync::Weak;
use std::time::{Duration, Instant};

use super::group::{Group, Inner, LogLimits};
use super::network::Outgoings;

/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// A peer that was silent for longer holds nothing back.
const SILENT_MS: u64 = 10_000;
/// Tables are flushed for the log's sake no more often than this.
const FLUSH_PAUSE: Duration = Duration::from_secs(2);

/// The log as it stands.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// The last entry
    last: u64,
    /// The last that the tables on disk have
    flushed: u64,
    /// The last that is gone
    purged: u64,
    /// The first that somebody will need who is about to get it
    needed: Option<u64>,
}

/// Up to where the log can go; `None` if that is not worth the trouble. `first_within(n)` is the first of the
/// newest entries that have `n` bytes together.
fn purge_upto(
    standing: Standing,
    limits: &LogLimits,
    first_within: impl Fn(u64) -> Option<u64>,
) -> Option<u64> {
    let kept = |times: u64| {
        let by_entries = standing.last.saturating_sub(limits.keep.saturating_mul(times));
        let by_bytes = first_within(limits.keep_bytes.saturating_mul(times)).unwrap_or(0);
        by_entries.max(by_bytes.saturating_sub(1))
    };
    let (soft, hard) = (kept(1), kept(2));
    let wanted = standing.needed.map_or(soft, |needed| soft.min(needed.saturating_sub(1)).max(hard));
    let upto = wanted.min(standing.flushed);
    let batch = (limits.keep / 32).clamp(1, 256);
    let by_bytes = first_within(limits.keep_bytes).is_some_and(|first| first > standing.purged + 1);
    (upto >= standing.purged + batch || (by_bytes && upto > standing.purged)).then_some(upto)
}

/// Keeps the log within its limits for as long as the group lives.
pub(super) async fn trim(group: Weak<Inner>, limits: LogLimits, outgoing: Outgoings) {
    let mut flushed_at = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(inner) = group.upgrade() else { return };
        let group = Group { inner };
        let (raft, log) = (&group.inner.raft, &group.inner.raft_log);
        let status = group.status();
        if log.bytes_after(status.snapshot_index) > limits.flush_bytes && flushed_at.elapsed() > FLUSH_PAUSE {
            flushed_at = Instant::now();
            // Fails if Raft has stopped, which others report.
            let _ = raft.trigger().snapshot().await;
        }
        let (_, peers) = group.peer_positions();
        let behind =
            peers.iter().filter(|(.., silent)| *silent < SILENT_MS).map(|(_, matched, _)| matched + 1);
        let standing = Standing {
            last: status.last_log_index,
            flushed: status.snapshot_index,
            purged: status.purged_index,
            needed: behind.chain(outgoing.first_needed()).min(),
        };
        if let Some(upto) = purge_upto(standing, &limits, |bytes| log.first_within(bytes)) {
            let _ = raft.trigger().purge_log(upto).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> LogLimits {
        LogLimits { keep: 1000, keep_bytes: 100, ..LogLimits::default() }
    }

    /// Entries of a byte each, up to `last`.
    fn upto(standing: Standing) -> Option<u64> {
        let last = standing.last;
        purge_upto(standing, &limits(), |bytes| last.checked_sub(bytes).map(|n| n + 1).filter(|n| *n > 1))
    }

    #[test]
    fn the_log_is_bounded_by_bytes_and_waits_for_who_gets_it_but_not_for_ever() {
        let standing = Standing { last: 500, flushed: 500, purged: 0, needed: None };
        assert_eq!(upto(standing), Some(400), "a hundred bytes stay");
        assert_eq!(upto(Standing { flushed: 350, ..standing }), Some(350), "what is not on disk stays");
        assert_eq!(upto(Standing { needed: Some(490), ..standing }), Some(400));
        assert_eq!(upto(Standing { needed: Some(351), ..standing }), Some(350), "somebody gets the rest");
        assert_eq!(upto(Standing { needed: Some(2), ..standing }), Some(300), "too far behind");
        assert_eq!(upto(Standing { purged: 400, ..standing }), None);
        assert_eq!(upto(Standing { last: 90, flushed: 90, ..standing }), None);
    }

    #[test]
    fn the_log_is_bounded_by_entries() {
        let standing = Standing { last: 5000, flushed: 5000, purged: 0, needed: None };
        assert_eq!(purge_upto(standing, &limits(), |_| None), Some(4000));
        let standing = Standing { purged: 3990, ..standing };
        assert_eq!(purge_upto(standing, &limits(), |_| None), None, "not for a few");
        let none = LogLimits { keep: 0, ..limits() };
        assert_eq!(purge_upto(standing, &none, |_| None), Some(5000));
    }
}

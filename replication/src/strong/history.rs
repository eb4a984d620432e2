//! Which snapshots are read at on this node, so that no version is collected that one of them can see.
//!
//! ```text
//!   versions:   ──●────●──────●────────●──────●───►  time
//!                 low ▲       ▲ oldest snapshot      ▲ newest commit applied
//!                     └───────┴ `low` goes at most to here
//! ```
//!
//! A snapshot's timestamp is chosen before it is registered, and `low` may move between the two. Both
//! [`register`](History::register) and [`advance`](History::advance) decide under one lock: either the
//! snapshot is registered first, and `low` stops at it, or `low` moves first, and a snapshot below it is
//! refused (72000). There is no third order. A group in which nothing has been committed for the whole
//! retention time lets `low` come up to the newest commit, so a snapshot can be refused just when the next
//! commit is applied; whoever only wants to read what is newest takes another then.
//!
//! A snapshot that has run for very long does not hold `low` any more: one forgotten session must not keep the
//! garbage of days. Its next read is refused (72000). It never reads what is only half there: RocksDB compares a
//! read's timestamp with `low` once it holds the files that it reads, so no check of ours at the end could see more.

use std::collections::BTreeMap;
use std::sync::Arc;

use amphora_storage::{StorageError, Timestamp};
use parking_lot::Mutex;

use crate::Result;

/// The snapshots in use on one node.
#[derive(Debug, Default)]
pub struct History {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    low: Timestamp,
    /// How many there are at each timestamp
    running: BTreeMap<Timestamp, usize>,
}

/// A registered snapshot: while it lives, what it sees stays readable.
#[derive(Debug)]
pub struct SnapshotHold {
    history: Arc<History>,
    at: Timestamp,
}

impl History {
    /// Registers a snapshot; 72000 if its history may be gone.
    pub fn register(self: &Arc<Self>, at: Timestamp) -> Result<Arc<SnapshotHold>> {
        let mut state = self.state.lock();
        if at < state.low {
            return Err(StorageError::SnapshotTooOld { at, low: state.low }.into());
        }
        *state.running.entry(at).or_default() += 1;
        drop(state);
        Ok(Arc::new(SnapshotHold { history: self.clone(), at }))
    }

    /// The oldest timestamp that is not refused.
    pub fn low(&self) -> Timestamp {
        self.state.lock().low
    }

    /// Moves the oldest timestamp that may be read towards `wanted`, but past no registered snapshot that is not
    /// older than `limit`, and returns where it is now. From this moment older snapshots are refused.
    pub fn advance(&self, wanted: Timestamp, limit: Timestamp) -> Timestamp {
        let mut state = self.state.lock();
        let low = state.running.keys().next().map_or(wanted, |oldest| wanted.min(*oldest));
        state.low = state.low.max(low).max(limit.min(wanted));
        state.low
    }
}

impl SnapshotHold {
    /// What it reads at.
    pub fn at(&self) -> Timestamp {
        self.at
    }
}

impl Drop for SnapshotHold {
    fn drop(&mut self) {
        let mut state = self.history.state.lock();
        if let Some(count) = state.running.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                state.running.remove(&self.at);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn low_stops_at_the_oldest_snapshot_and_refuses_older_ones() {
        let history = Arc::new(History::default());
        let (first, again) =
            (history.register(Timestamp(5)).unwrap(), history.register(Timestamp(5)).unwrap());
        let later = history.register(Timestamp(8)).unwrap();
        assert_eq!(history.advance(Timestamp(10), Timestamp(2)), Timestamp(5));
        drop(first);
        assert_eq!(history.advance(Timestamp(10), Timestamp(5)), Timestamp(5));
        drop(again);
        assert_eq!(history.advance(Timestamp(10), Timestamp(0)), Timestamp(8));
        assert_eq!(history.register(Timestamp(7)).unwrap_err().sqlstate, "72000");
        assert_eq!(history.advance(Timestamp(10), Timestamp(9)), Timestamp(9), "it ran for too long");
        assert_eq!(history.register(Timestamp(8)).unwrap_err().sqlstate, "72000");
        drop(later);
        assert_eq!(history.advance(Timestamp(3), Timestamp(0)), Timestamp(9), "it never goes back");
    }
}

//! Row states that were written lately, decoded.
//!
//! An increment reads its row three times: the statement looks at it, the write buffer plans from it, the commit
//! joins into it; and every peer reads it once more. Rows that are written often are read so often that looking
//! them up in the store and decoding them was half of an increment's work.
//!
//! ```text
//!                     vacate            the store's write           fill
//!   cache   old state ──────┐ (nothing) ─────────────────┐ (nothing) ───── new state
//!   store   old ────────────┴─ old ──────────────────────┴─ new ────────── new
//! ```
//!
//! *Only the holder of the merge lock puts anything in*, and vacates what it is about to write before it writes. So
//! what is here is what the store has, whoever reads here or there sees the same order of states, and after a
//! failed write the row is not here. A reader that misses reads the store, and puts nothing in.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::row_state::RowState;

/// Encoded bytes, keys included, that are kept; decoded they take some times as much.
const CAPACITY: usize = 8 << 20;
/// So that sessions and streams do not wait for each other.
const SHARDS: usize = 16;
/// What a row costs besides its bytes.
const OVERHEAD: usize = 256;
/// A row larger than this is not kept.
const LARGEST: usize = 16 << 10;

/// The cache.
pub(super) struct HotRows {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    rows: FxHashMap<Arc<[u8]>, Slot>,
    /// The rows in the order in which they are looked at when room is needed
    queue: VecDeque<Arc<[u8]>>,
    bytes: usize,
}

struct Slot {
    /// `None` while it is being written
    state: Option<Arc<RowState>>,
    bytes: usize,
    /// Read since it was last looked at
    used: bool,
}

impl HotRows {
    pub(super) fn new() -> HotRows {
        HotRows { shards: std::array::from_fn(|_| Mutex::default()) }
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        // The upper bits: the map inside uses the lower ones.
        let hash = FxBuildHasher.hash_one(key) >> 56;
        &self.shards[hash as usize % SHARDS]
    }

    /// The row's state, if it is here.
    pub(super) fn get(&self, key: &[u8]) -> Option<Arc<RowState>> {
        let mut shard = self.shard(key).lock();
        let slot = shard.rows.get_mut(key)?;
        slot.used = true;
        slot.state.clone()
    }

    /// The row is about to be written.
    pub(super) fn vacate(&self, key: &[u8]) {
        if let Some(slot) = self.shard(key).lock().rows.get_mut(key) {
            slot.state = None;
        }
    }

    /// The row has been written; `encoded` is the length of its state in the store.
    pub(super) fn fill(&self, key: &[u8], state: RowState, encoded: usize) {
        let bytes = 2 * key.len() + encoded + OVERHEAD;
        if bytes > LARGEST {
            return;
        }
        let state = Some(Arc::new(state));
        let mut shard = self.shard(key).lock();
        let before = match shard.rows.get_mut(key) {
            Some(slot) => {
                slot.state = state;
                std::mem::replace(&mut slot.bytes, bytes)
            }
            None => {
                let key: Arc<[u8]> = key.into();
                shard.queue.push_back(key.clone());
                shard.rows.insert(key, Slot { state, bytes, used: false });
                0
            }
        };
        shard.bytes = shard.bytes + bytes - before;
        shard.make_room();
    }

    /// The store's data are others now.
    pub(super) fn clear(&self) {
        self.shards.iter().for_each(|shard| *shard.lock() = Shard::default());
    }
}

impl Shard {
    /// Second chance: a row that was read since the last look stays for another round.
    fn make_room(&mut self) {
        while self.bytes > CAPACITY / SHARDS {
            let Some(key) = self.queue.pop_front() else { return };
            match self.rows.get_mut(&key) {
                Some(slot) if slot.used => {
                    slot.used = false;
                    self.queue.push_back(key);
                }
                Some(_) => {
                    let bytes = self.rows.remove(&key).map_or(0, |slot| slot.bytes);
                    self.bytes -= bytes;
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn state(cl: u64) -> RowState {
        RowState { cl, ..RowState::default() }
    }

    #[test]
    fn a_row_is_not_here_while_it_is_written() {
        let rows = HotRows::new();
        rows.fill(b"k", state(1), 10);
        assert_eq!(rows.get(b"k").unwrap().cl, 1);
        rows.vacate(b"k");
        assert!(rows.get(b"k").is_none());
        rows.fill(b"k", state(2), 10);
        assert_eq!(rows.get(b"k").unwrap().cl, 2);
        rows.clear();
        assert!(rows.get(b"k").is_none());
    }

    #[test]
    fn what_is_read_stays_and_the_rest_makes_room() {
        let rows = HotRows::new();
        rows.fill(b"hot", state(7), 100);
        rows.fill(b"large", state(1), LARGEST);
        assert!(rows.get(b"large").is_none());
        for i in 0..100_000u32 {
            rows.fill(&i.to_be_bytes(), state(1), 100);
            assert_eq!(rows.get(b"hot").unwrap().cl, 7, "after {i} others");
        }
        let (kept, bytes) = rows.shards.iter().fold((0, 0), |(kept, bytes), shard| {
            let shard = shard.lock();
            assert_eq!(shard.queue.len(), shard.rows.len());
            (kept + shard.rows.len(), bytes + shard.bytes)
        });
        assert!(bytes <= CAPACITY && kept > CAPACITY / 1000, "{kept} rows, {bytes} bytes");
    }
}

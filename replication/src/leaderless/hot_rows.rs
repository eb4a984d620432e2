//! Row states that were written lately, decoded; and the states that the store is still to get.
//!
//! An increment reads its row three times: the statement looks at it, the write buffer plans from it, the commit
//! joins into it; and every peer reads it once more. Rows that are written often are read so often that looking
//! them up in the store and decoding them was half of an increment's work.
//!
//! ```text
//!   first write        vacate            the store's write           fill
//!     cache  old state ──────┐ (nothing) ─────────────────┐ (nothing) ───── new state
//!     store  old ────────────┴─ old ──────────────────────┴─ new ────────── new
//!
//!   next writes        owe         owe         owe        the store's write       settled
//!     cache  new ───── newer ───── newer ───── newest ────┐ newest ─────────────── newest
//!     store  new ───── new ─────── new ─────── new ───────┴─ newest ────────────── newest
//! ```
//!
//! A row that is here when it is written again is *owed* to the store: only its last state gets there, with all
//! others that are owed, when [`Engine::settle`](super::Engine::settle) says so. Until then the op log alone has what
//! changed, which is what it is for. To put each state of a busy row into the store at once took a fifth of an
//! increment's time, all of it looking for a place among its former states.
//!
//! *Only the holder of the merge lock puts anything in*, and vacates what it is about to write before it writes. So
//! what is here is what the store has or will have, whoever reads one row here or there sees the same order of states,
//! and after a failed write the row is not here. A reader that misses reads the store, and puts nothing in. Whoever reads
//! many rows from the store settles first.

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
    /// Those that are owed to the store
    owed: Vec<Arc<[u8]>>,
    bytes: usize,
}

struct Slot {
    /// `None` while it is being written
    state: Option<Arc<RowState>>,
    bytes: usize,
    /// Read since it was last looked at
    used: bool,
    /// The store has an older state
    owed: bool,
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

    /// True if a state of this row can be [owed](HotRows::owe).
    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.shard(key).lock().rows.get(key).is_some_and(|slot| slot.state.is_some())
    }

    /// A new state of a row that [is here](HotRows::has), which the store gets later.
    pub(super) fn owe(&self, key: &[u8], state: RowState) {
        let mut guard = self.shard(key).lock();
        let shard = &mut *guard;
        let Some((known, _)) = shard.rows.get_key_value(key) else { return };
        let known = known.clone();
        let Some(slot) = shard.rows.get_mut(key) else { return };
        slot.state = Some(Arc::new(state));
        if !std::mem::replace(&mut slot.owed, true) {
            shard.owed.push(known);
        }
    }

    /// Shows all states that are owed. `stage` returns the encoded length of each.
    pub(super) fn stage_owed(&self, mut stage: impl FnMut(&[u8], &RowState) -> usize) {
        for shard in &self.shards {
            let shard = &mut *shard.lock();
            for key in &shard.owed {
                let Some(slot) = shard.rows.get_mut(key) else { continue };
                let Some(state) = &slot.state else { continue };
                let bytes = room(key, stage(key, state));
                shard.bytes = shard.bytes + bytes - std::mem::replace(&mut slot.bytes, bytes);
            }
        }
    }

    /// The store has got what was owed.
    pub(super) fn settled(&self) {
        for shard in &self.shards {
            let shard = &mut *shard.lock();
            for key in shard.owed.drain(..) {
                if let Some(slot) = shard.rows.get_mut(&key) {
                    slot.owed = false;
                    // It has grown.
                    if slot.bytes > LARGEST {
                        slot.state = None;
                    }
                }
            }
            shard.make_room();
        }
    }

    /// The row is about to be written. It must not be owed.
    pub(super) fn vacate(&self, key: &[u8]) {
        if let Some(slot) = self.shard(key).lock().rows.get_mut(key) {
            slot.state = None;
        }
    }

    /// The row has been written; `encoded` is the length of its state in the store.
    pub(super) fn fill(&self, key: &[u8], state: RowState, encoded: usize) {
        let bytes = room(key, encoded);
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
                shard.rows.insert(key, Slot { state, bytes, used: false, owed: false });
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

/// What a row takes.
fn room(key: &[u8], encoded: usize) -> usize {
    2 * key.len() + encoded + OVERHEAD
}

impl Shard {
    /// Second chance: a row that was read since the last look stays for another round. So does one that is owed.
    fn make_room(&mut self) {
        // All may be owed, until they are settled.
        let mut looks = 2 * self.queue.len();
        while self.bytes > CAPACITY / SHARDS && looks > 0 {
            looks -= 1;
            let Some(key) = self.queue.pop_front() else { return };
            match self.rows.get_mut(&key) {
                Some(slot) if slot.used || slot.owed => {
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
    fn what_is_owed_stays_until_it_is_settled() {
        let rows = HotRows::new();
        assert!(!rows.has(b"k"));
        rows.fill(b"k", state(1), 10);
        rows.vacate(b"k");
        assert!(!rows.has(b"k"));
        rows.fill(b"k", state(2), 10);
        for cl in 3..6 {
            rows.owe(b"k", state(cl));
        }
        for i in 0..100_000u32 {
            rows.fill(&i.to_be_bytes(), state(1), 100);
        }
        assert_eq!(rows.get(b"k").unwrap().cl, 5);
        let mut staged = Vec::new();
        rows.stage_owed(|key, state| {
            staged.push((key.to_vec(), state.cl));
            1000
        });
        assert_eq!(staged, [(b"k".to_vec(), 5)]);
        rows.settled();
        rows.stage_owed(|_, _| panic!("nothing is owed"));
        for i in 0..100_000u32 {
            rows.fill(&i.to_le_bytes(), state(1), 100);
        }
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

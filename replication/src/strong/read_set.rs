//! What a SERIALIZABLE transaction has read: ranges of keys, kept small.
//!
//! A transaction notes what its scans really walked, not what their conditions say: up to the last row that was
//! taken, the gaps between rows included, because a row that appears in a gap is a phantom. A scan that
//! LIMIT stopped has read no further than that.
//!
//! ```text
//!   rows      ·  a     c        f   h      m
//!   scanned      [──────────────]              WHERE … LIMIT 3
//!   got                                [m]     by key
//!   coarser      [─────────────────────────]   when there is no room for both
//! ```
//!
//! Memory is bounded: past [`MAX_RANGES`] or [`MAX_BYTES`] neighbours become one range with what lies between
//! them, and if that is not enough, whole indexes. That can only make the certifier see conflicts that are none,
//! never miss one.

use std::collections::BTreeMap;

use amphora_storage::{Timestamp, key};
use serde::{Deserialize, Serialize};

use super::raw;

/// Ranges that one transaction keeps, at most.
const MAX_RANGES: usize = 4_096;
/// Bytes of keys that one transaction keeps for its ranges, at most.
const MAX_BYTES: usize = 512 << 10;
/// Bytes of a key that name its table and index.
const INDEX_PREFIX: usize = 8;

/// Keys from `start` on, before `end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRange {
    /// The first key
    #[serde(with = "raw")]
    pub start: Vec<u8>,
    /// The first key after it
    #[serde(with = "raw")]
    pub end: Vec<u8>,
}

/// What a transaction has read, as it asks for its commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reads {
    /// The snapshot it was read at
    pub since: Timestamp,
    /// Disjoint, in ascending order
    pub ranges: Vec<ReadRange>,
}

impl Reads {
    /// Bytes it takes in a message, about.
    pub fn size(&self) -> usize {
        self.ranges.iter().map(|r| r.start.len() + r.end.len() + 8).sum()
    }
}

/// What a transaction has read so far.
#[derive(Debug)]
pub struct ReadSet {
    since: Timestamp,
    /// Start to end; disjoint, and no two of them touch
    ranges: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
    max_ranges: usize,
    max_bytes: usize,
}

impl ReadSet {
    /// Nothing, of this snapshot.
    pub fn new(since: Timestamp) -> ReadSet {
        ReadSet::with_limits(since, MAX_RANGES, MAX_BYTES)
    }

    /// With bounds of its own.
    pub fn with_limits(since: Timestamp, max_ranges: usize, max_bytes: usize) -> ReadSet {
        ReadSet { since, ranges: BTreeMap::new(), bytes: 0, max_ranges, max_bytes }
    }

    /// One key, whether it has a row or not.
    pub fn add_key(&mut self, key: &[u8]) {
        if self.covers(key) {
            return;
        }
        let mut end = Vec::with_capacity(key.len() + 1);
        end.extend_from_slice(key);
        end.push(0);
        self.add(key.to_vec(), end);
    }

    fn covers(&self, key: &[u8]) -> bool {
        let before =
            self.ranges.range::<[u8], _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(key)));
        before.into_iter().next_back().is_some_and(|(_, end)| key < end.as_slice())
    }

    /// All keys from `start` on, before `end`.
    pub fn add(&mut self, mut start: Vec<u8>, mut end: Vec<u8>) {
        if start >= end {
            return;
        }
        // Whatever it overlaps or touches becomes one with it: at most the last that starts no later than it
        // ends, and again.
        while let Some((s, e)) = self.ranges.range(..=end.clone()).next_back() {
            if *e < start {
                break;
            }
            if *s <= start && *e >= end {
                return;
            }
            let s = s.clone();
            if let Some(e) = self.ranges.remove(&s) {
                self.bytes -= s.len() + e.len();
                start = start.min(s);
                end = end.max(e);
            }
        }
        self.insert(start, end);
        if self.is_over() {
            self.coarsen();
        }
    }

    fn insert(&mut self, start: Vec<u8>, end: Vec<u8>) {
        self.bytes += start.len() + end.len();
        self.ranges.insert(start, end);
    }

    fn is_over(&self) -> bool {
        self.ranges.len() > self.max_ranges || self.bytes > self.max_bytes
    }

    /// Makes room: first two neighbours of one index become one, then whole indexes, at last everything.
    fn coarsen(&mut self) {
        let mut paired = false;
        self.merge(|(a, _), (b, _)| {
            paired = !paired && a.get(..INDEX_PREFIX) == b.get(..INDEX_PREFIX);
            paired
        });
        // Half of the room is to be free afterwards, or this would happen with every other key.
        let is_roomy =
            |set: &ReadSet| set.ranges.len() <= set.max_ranges * 3 / 4 && set.bytes <= set.max_bytes * 3 / 4;
        if is_roomy(self) {
            return;
        }
        for (start, end) in std::mem::take(&mut self.ranges) {
            let index = start.get(..INDEX_PREFIX).unwrap_or(&start).to_vec();
            let successor = key::prefix_successor(&index);
            let end = end.max(successor);
            match self.ranges.last_entry() {
                Some(mut last) if *last.get() >= index => {
                    let end = end.max(last.get().clone());
                    last.insert(end);
                }
                _ => drop(self.ranges.insert(index, end)),
            }
        }
        self.count();
        if !is_roomy(self) {
            self.merge(|_, _| true);
        }
    }

    /// Makes one range of neighbours where `joins` says so of the range so far and the next.
    fn merge(&mut self, mut joins: impl FnMut((&[u8], &[u8]), (&[u8], &[u8])) -> bool) {
        let mut so_far: Option<(Vec<u8>, Vec<u8>)> = None;
        for (start, end) in std::mem::take(&mut self.ranges) {
            so_far = Some(match so_far.take() {
                Some((s, e)) if joins((&s, &e), (&start, &end)) => (s, end),
                Some((s, e)) => {
                    self.ranges.insert(s, e);
                    (start, end)
                }
                None => (start, end),
            });
        }
        self.ranges.extend(so_far);
        self.count();
    }

    fn count(&mut self) {
        self.bytes = self.ranges.iter().map(|(s, e)| s.len() + e.len()).sum();
    }

    /// For the certifier.
    pub fn to_reads(&self) -> Reads {
        let range = |(start, end): (&Vec<u8>, &Vec<u8>)| ReadRange { start: start.clone(), end: end.clone() };
        Reads { since: self.since, ranges: self.ranges.iter().map(range).collect() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn key(table: u8, n: u16) -> Vec<u8> {
        let mut key = vec![0, 0, 0, table, 0, 0, 0, 0];
        key.extend_from_slice(&n.to_be_bytes());
        key
    }

    fn covers(reads: &Reads, key: &[u8]) -> bool {
        reads.ranges.iter().any(|r| r.start.as_slice() <= key && key < r.end.as_slice())
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let mut set = ReadSet::new(Timestamp(1));
        set.add(key(1, 10), key(1, 20));
        set.add(key(1, 30), key(1, 40));
        set.add(key(1, 20), key(1, 30));
        set.add_key(&key(1, 15));
        set.add_key(&key(1, 50));
        let reads = set.to_reads();
        assert_eq!(reads.ranges.len(), 2);
        assert_eq!(reads.ranges[0], ReadRange { start: key(1, 10), end: key(1, 40) });
    }

    /// Whatever was added stays covered, the bounds hold, and what is exact stays exact while there is room.
    #[test]
    fn bounded_and_never_too_small() {
        let seed = std::env::var("AMPHORA_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
        println!("AMPHORA_SEED={seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..300 {
            let (most, tables) = (rng.random_range(1..40), rng.random_range(1..60));
            let mut set = ReadSet::with_limits(Timestamp(1), most, 4_000);
            let mut added = Vec::new();
            for _ in 0..200 {
                let (table, from) = (rng.random_range(0..tables), rng.random_range(0..1_000u16));
                let to = if rng.random_bool(0.5) { from } else { from + rng.random_range(0..50) };
                if from == to {
                    set.add_key(&key(table, from));
                } else {
                    set.add(key(table, from), key(table, to + 1));
                }
                added.push((table, from, to));
                let reads = set.to_reads();
                assert!(reads.ranges.len() <= most, "seed {seed}");
                let sorted = reads.ranges.windows(2).all(|w| w[0].end < w[1].start);
                assert!(sorted && reads.ranges.iter().all(|r| r.start < r.end), "seed {seed}");
                let bytes: usize = reads.ranges.iter().map(|r| r.start.len() + r.end.len()).sum();
                assert_eq!(bytes, set.bytes, "seed {seed}");
            }
            let reads = set.to_reads();
            for (table, from, to) in added {
                assert!((from..=to).all(|n| covers(&reads, &key(table, n))), "seed {seed}");
            }
        }
    }
}

//! Where records lie in the op log, and the newest of them.
//!
//! ```text
//!   journal   │ A7 B3 A8 A9 B4 │ B5 A10 B6 B7 │ A11 B8 …      A, B: origins
//!   segments    A..9  B..4       A..10  B..7    A..11  B..8    each file's last seq of each origin
//!   marks       A7 B3            B5 A10         A11 B8         a place now and then: reading begins at one
//!   recent                                B7 A11 B8            bodies in memory: what peers that keep up are sent
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use amphora_storage::journal::Position;

use super::dots::VersionVector;
use super::messages::OpBatch;
use crate::NodeId;

/// An origin's records are marked once in so many bytes of a file.
const MARK_BYTES: u32 = 32 << 10;
/// Bodies kept in memory.
const RECENT_BYTES: usize = 4 << 20;

/// What one file of the log holds.
struct Held {
    segment: u64,
    /// The last seq of each origin
    last: BTreeMap<NodeId, u64>,
    bytes: u64,
    /// When it was written to last, or this index was made
    written: Instant,
}

/// The index of the op log.
#[derive(Default)]
pub(super) struct LogIndex {
    /// Oldest first
    segments: VecDeque<Held>,
    /// Of all of them
    bytes: u64,
    marks: BTreeMap<NodeId, VecDeque<(u64, Position)>>,
    recent: BTreeMap<NodeId, VecDeque<OpBatch>>,
    /// The origins of what is recent, oldest first
    order: VecDeque<NodeId>,
    recent_bytes: usize,
}

impl LogIndex {
    /// A record lies here now, after all others.
    pub(super) fn note(&mut self, record: OpBatch, at: Position) {
        self.note_place(record.origin, record.seq, record.body.len(), at);
        self.recent_bytes += record.body.len();
        self.order.push_back(record.origin);
        self.recent.entry(record.origin).or_default().push_back(record);
        while self.recent_bytes > RECENT_BYTES
            && let Some(oldest) = self.order.pop_front()
            && let Some(record) = self.recent.get_mut(&oldest).and_then(VecDeque::pop_front)
        {
            self.recent_bytes -= record.body.len();
        }
    }

    /// The vector jumps here: the file is needed until the rows that stand for it are flushed.
    pub(super) fn note_jump(&mut self, vector: &VersionVector, at: Position) {
        for (origin, seq) in vector.iter() {
            self.held(at.segment).last.insert(origin, seq);
        }
    }

    fn held(&mut self, segment: u64) -> &mut Held {
        if self.segments.back().is_none_or(|held| held.segment != segment) {
            self.segments.push_back(Held {
                segment,
                last: BTreeMap::new(),
                bytes: 0,
                written: Instant::now(),
            });
        }
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }

    /// As [`note`](LogIndex::note), of what need not be in memory.
    pub(super) fn note_place(&mut self, origin: NodeId, seq: u64, length: usize, at: Position) {
        let held = self.held(at.segment);
        held.last.insert(origin, seq);
        held.bytes += length as u64;
        held.written = Instant::now();
        self.bytes += length as u64;
        let marks = self.marks.entry(origin).or_default();
        let far = |mark: &Position| mark.segment != at.segment || at.offset - mark.offset >= MARK_BYTES;
        if marks.back().is_none_or(|(_, mark)| far(mark)) {
            marks.push_back((seq, at));
        }
    }

    /// Consecutive recent records of an origin from `from` to `to`; `None` if the first is not in memory.
    pub(super) fn recent(&self, origin: NodeId, from: u64, to: u64, bytes: usize) -> Option<Vec<OpBatch>> {
        let recent = self.recent.get(&origin)?;
        let start = recent.partition_point(|record| record.seq < from);
        let mut size = 0;
        let fits = |(n, record): &(usize, &OpBatch)| {
            size += record.body.len();
            record.seq == from + *n as u64 && record.seq <= to && (*n == 0 || size <= bytes)
        };
        let found: Vec<OpBatch> =
            recent.range(start..).enumerate().take_while(fits).map(|(_, record)| record.clone()).collect();
        (!found.is_empty()).then_some(found)
    }

    /// Where to begin to read for an origin's record; `None` if the log does not reach back to it.
    pub(super) fn place_before(&self, origin: NodeId, seq: u64) -> Option<Position> {
        let marks = self.marks.get(&origin)?;
        let after = marks.partition_point(|(marked, _)| *marked <= seq);
        Some(marks.get(after.checked_sub(1)?)?.1)
    }

    /// The first file that must stay: the oldest that holds something `covered` does not, or without which
    /// there would be fewer than `retain` bytes.
    pub(super) fn first_needed(&self, covered: &VersionVector, retain: u64) -> Option<u64> {
        let mut left = self.bytes;
        let needed = |held: &&Held| {
            left -= held.bytes;
            left < retain || held.last.iter().any(|(origin, seq)| covered.get(*origin) < *seq)
        };
        self.segments.iter().find(needed).map(|held| held.segment)
    }

    /// Bytes of all records.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The oldest file that may stay: those before it are more than `bytes`, or were written to last longer than
    /// `age` ago. `None` if none may.
    pub(super) fn first_within(&self, bytes: u64, age: Duration) -> Option<u64> {
        let mut left = self.bytes;
        let stays = |held: &&Held| {
            let fits = left <= bytes && held.written.elapsed() <= age;
            left -= held.bytes;
            fits
        };
        self.segments.iter().find(stays).map(|held| held.segment)
    }

    /// What lies in the files before this one, by origin.
    pub(super) fn last_before(&self, segment: u64) -> VersionVector {
        let before = self.segments.iter().take_while(|held| held.segment < segment);
        before.flat_map(|held| held.last.iter().map(|(origin, seq)| (*origin, *seq))).collect()
    }

    /// The oldest record of an origin that is still there.
    pub(super) fn first_of(&self, origin: NodeId) -> Option<u64> {
        self.marks.get(&origin)?.front().map(|(seq, _)| *seq)
    }

    /// The files before this one are gone.
    pub(super) fn forget_before(&mut self, segment: u64) {
        while let Some(held) = self.segments.pop_front_if(|held| held.segment < segment) {
            self.bytes -= held.bytes;
        }
        for marks in self.marks.values_mut() {
            while marks.front().is_some_and(|(_, at)| at.segment < segment) {
                marks.pop_front();
            }
        }
    }
}

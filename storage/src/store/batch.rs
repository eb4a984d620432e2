//! What is written together.

use std::ops::Range;

use crate::hlc::Timestamp;

/// A column family with one value per key. (`strong` has its own methods, because it has versions.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cf {
    /// Rows and index entries of strong tables; only for sizes, never for plain reads and writes
    Strong,
    /// Merge states of leaderless tables
    Leaderless,
    /// Entries of leaderless tables' secondary indexes: what each node makes of its own rows
    LeaderlessIndex,
    /// Losers of concurrent writes
    Conflicts,
    /// Facts of this node
    Meta,
}

impl Cf {
    /// All, in the order in which they are made.
    pub(super) const ALL: [Cf; 5] =
        [Cf::Strong, Cf::Leaderless, Cf::LeaderlessIndex, Cf::Conflicts, Cf::Meta];

    /// RocksDB's name of it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Cf::Strong => "strong",
            Cf::Leaderless => "leaderless",
            Cf::LeaderlessIndex => "leaderless_index",
            Cf::Conflicts => "conflicts",
            Cf::Meta => "meta",
        }
    }
}

/// The strong key under which the applied record lies: table 0, which is no table.
pub(super) const APPLIED_KEY: &[u8] = b"\0\0\0\0applied";
/// The key in `meta` under which the joined record lies.
pub(super) const JOINED_KEY: &[u8] = b"\0store/joined";
/// Where scans of the strong family begin: behind what is reserved.
pub(super) const FIRST_STRONG_KEY: &[u8] = &[0, 0, 0, 1];
/// Prefixes waiting to be reclaimed, in `meta`, where keys that begin with `\0store/` are the store's own.
pub(super) const DROPPED: &[u8] = b"\0store/dropped/";

/// What one entry of a batch does. Keys and values are ranges of the batch's buffer.
pub(super) enum Op {
    PutVersion { ts: Timestamp, key: Range<usize>, value: Range<usize> },
    DeleteVersion { ts: Timestamp, key: Range<usize> },
    Put { cf: Cf, key: Range<usize>, value: Range<usize> },
    Delete { cf: Cf, key: Range<usize> },
    DeleteRange { cf: Cf, start: Range<usize>, end: Range<usize> },
}

/// Writes that become visible and durable together. It belongs to no store until it is written.
#[derive(Default)]
pub struct Batch {
    buffer: Vec<u8>,
    ops: Vec<Op>,
    applied: Option<Vec<u8>>,
    joined: Option<Vec<u8>>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        start..self.buffer.len()
    }

    pub(super) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.buffer[range.clone()]
    }

    pub(super) fn ops(&self) -> &[Op] {
        &self.ops
    }

    pub(super) fn applied(&self) -> Option<&[u8]> {
        self.applied.as_deref()
    }

    pub(super) fn joined(&self) -> Option<&[u8]> {
        self.joined.as_deref()
    }

    /// A version of a key of a strong table.
    pub fn put_strong(&mut self, key: impl AsRef<[u8]>, ts: Timestamp, value: impl AsRef<[u8]>) {
        let key = self.keep(key.as_ref());
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&ts.0.to_le_bytes());
        self.buffer.extend_from_slice(value.as_ref());
        self.ops.push(Op::PutVersion { ts, key, value: start..self.buffer.len() });
    }

    /// A deletion of a key of a strong table, from `ts` on.
    pub fn delete_strong(&mut self, key: impl AsRef<[u8]>, ts: Timestamp) {
        let key = self.keep(key.as_ref());
        self.ops.push(Op::DeleteVersion { ts, key });
    }

    /// See [`Store::drop_table_range`](super::Store::drop_table_range).
    pub fn drop_strong_prefix(&mut self, prefix: &[u8], at: Timestamp) {
        let mut key = DROPPED.to_vec();
        key.extend_from_slice(prefix);
        self.put(Cf::Meta, key, at.0.to_le_bytes());
    }

    /// The value of a key of a plain column family.
    pub fn put(&mut self, cf: Cf, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (key, value) = (self.keep(key.as_ref()), self.keep(value.as_ref()));
        self.ops.push(Op::Put { cf, key, value });
    }

    /// Removes a key of a plain column family.
    pub fn delete(&mut self, cf: Cf, key: impl AsRef<[u8]>) {
        let key = self.keep(key.as_ref());
        self.ops.push(Op::Delete { cf, key });
    }

    /// Removes all keys of a range of a plain column family. The end must not be empty.
    pub fn delete_range(&mut self, cf: Cf, range: &Range<Vec<u8>>) {
        let (start, end) = (self.keep(&range.start), self.keep(&range.end));
        self.ops.push(Op::DeleteRange { cf, start, end });
    }

    /// The record of how far the Raft log is applied with this batch. Opaque here.
    pub fn set_applied(&mut self, record: impl Into<Vec<u8>>) {
        self.applied = Some(record.into());
    }

    /// The record of how far the op log is joined with this batch. Opaque here.
    pub fn set_joined(&mut self, record: impl Into<Vec<u8>>) {
        self.joined = Some(record.into());
    }

    /// Number of writes.
    pub fn len(&self) -> usize {
        self.ops.len() + usize::from(self.applied.is_some()) + usize::from(self.joined.is_some())
    }

    /// True if there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of keys and values.
    pub fn size(&self) -> usize {
        let length = |record: &Option<Vec<u8>>| record.as_ref().map_or(0, Vec::len);
        self.buffer.len() + length(&self.applied) + length(&self.joined)
    }
}

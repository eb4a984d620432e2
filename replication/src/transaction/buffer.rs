//! What a transaction has written and not yet committed.
//!
//! Strong writes are keys and values, index entries included. Leaderless writes are, per row, the state
//! that the transaction first saw, the visible row it has made of it, and the one operation that leads
//! from the first to the second; however often a row is written, one operation leaves the transaction.
//!
//! Every change first pushes what it replaces on an undo stack. A savepoint is a height of that stack, and
//! so is the start of a statement.
//!
//! All of it is in memory until the commit, so it is counted ([`memory.rs`](super::memory)): what a write takes,
//! and what it replaces for as long as that could come back.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::Arc;

use amphora_storage::schema::{Table, TableId};
use amphora_storage::{Row, Timestamp};

use crate::api::LockMode;
use crate::leaderless::RowOp;
use crate::leaderless::surface::PendingRow;
use crate::strong::{MAX_COMMIT_BYTES, WRITE_OVERHEAD};
use crate::transaction::memory::Charged;
use crate::{Error, Result};

/// What a write takes in memory beside its key and its value, about: its places in the map and on the undo stack.
const OVERHEAD: usize = 160;

/// A leaderless row, its table, and what it takes in memory.
type PendingWrite = (Arc<Table>, PendingRow, usize);

/// A strong write: the new value, or `None` for a deletion.
pub type StrongWrite = Option<Arc<[u8]>>;

enum Undo {
    Strong(Arc<[u8]>, Option<StrongWrite>),
    Leaderless(Arc<[u8]>, Option<PendingWrite>),
    Expected(Arc<[u8]>, Option<LockMode>),
    Touched(TableId),
}

/// A leaderless row as the transaction sees it under its key; `None` if it deleted it.
pub type VisibleRow = (Arc<[u8]>, Option<Row>);

/// The writes of one transaction.
#[derive(Default)]
pub struct WriteBuffer {
    strong: BTreeMap<Arc<[u8]>, StrongWrite>,
    leaderless: BTreeMap<Arc<[u8]>, PendingWrite>,
    /// Versions that an autocommit statement read and that must still be the newest
    expected: BTreeMap<Arc<[u8]>, (Timestamp, LockMode)>,
    /// Strong tables written, with the versions of their descriptors
    tables: BTreeMap<TableId, Timestamp>,
    undo: Vec<Undo>,
    /// What all of it takes
    memory: Charged,
    /// Bytes of strong writes and expectations that a commit would send
    to_commit: usize,
}

impl WriteBuffer {
    /// An empty buffer that may take as much memory as this.
    pub fn within(memory: Charged) -> WriteBuffer {
        WriteBuffer { memory, ..WriteBuffer::default() }
    }

    /// A copy of the writes as they stand, to be read and not to be written to.
    pub fn frozen(&self) -> WriteBuffer {
        WriteBuffer {
            strong: self.strong.clone(),
            leaderless: self.leaderless.clone(),
            ..WriteBuffer::default()
        }
    }

    /// True if nothing is buffered.
    pub fn is_empty(&self) -> bool {
        self.strong.is_empty() && self.leaderless.is_empty()
    }

    /// True if strong tables (or the catalog) were written.
    pub fn has_strong(&self) -> bool {
        !self.strong.is_empty()
    }

    /// Bytes of strong writes and expectations that a commit would send.
    pub fn bytes_to_commit(&self) -> usize {
        self.to_commit
    }

    /// The keyspaces that strong writes go to.
    pub fn keyspaces(&self) -> Vec<TableId> {
        let mut found = Vec::new();
        let mut from = Some(0u32);
        while let Some(start) = from.map(u32::to_be_bytes) {
            let rest = (Bound::Included(start.as_slice()), Bound::Unbounded);
            let first = self.strong.range::<[u8], _>(rest).next();
            let id = first.and_then(|(key, _)| key.first_chunk::<4>()).map(|name| u32::from_be_bytes(*name));
            found.extend(id.map(TableId));
            from = id.and_then(|id| id.checked_add(1));
        }
        found
    }

    /// The height of the undo stack: a savepoint.
    pub fn mark(&self) -> usize {
        self.undo.len()
    }

    /// Takes back everything since a savepoint.
    pub fn rollback_to(&mut self, mark: usize) {
        while self.undo.len() > mark {
            match self.undo.pop() {
                Some(Undo::Strong(key, old)) => {
                    let now = self.strong.get(&key).map_or(0, |now| size(&key, now));
                    self.to_commit -= now;
                    self.memory.give_back(now + OVERHEAD);
                    self.to_commit += old.as_ref().map_or(0, |old| size(&key, old));
                    restore(&mut self.strong, key, old);
                }
                Some(Undo::Leaderless(key, old)) => {
                    self.memory.give_back(self.leaderless.get(&key).map_or(0, |(.., bytes)| *bytes));
                    restore(&mut self.leaderless, key, old);
                }
                Some(Undo::Expected(key, None)) => {
                    self.expected.remove(&key);
                    self.to_commit -= key.len() + WRITE_OVERHEAD;
                }
                Some(Undo::Expected(key, Some(before))) => {
                    if let Some((_, mode)) = self.expected.get_mut(&key) {
                        *mode = before;
                    }
                }
                Some(Undo::Touched(id)) => {
                    self.tables.remove(&id);
                }
                None => break,
            }
        }
    }

    /// Buffers a strong write.
    pub fn put(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<()> {
        let written = key.len() + value.as_ref().map_or(0, Vec::len) + WRITE_OVERHEAD;
        if written > MAX_COMMIT_BYTES {
            return Err(Error::row_too_large(MAX_COMMIT_BYTES));
        }
        self.memory.take(written + OVERHEAD)?;
        let (key, value): (Arc<[u8]>, StrongWrite) = (key.into(), value.map(Into::into));
        self.to_commit += written;
        let old = self.strong.insert(key.clone(), value);
        self.to_commit -= old.as_ref().map_or(0, |old| size(&key, old));
        self.undo.push(Undo::Strong(key, old));
        Ok(())
    }

    /// The buffered strong write of a key: `Some(None)` is a buffered deletion.
    pub fn get(&self, key: &[u8]) -> Option<&StrongWrite> {
        self.strong.get(key)
    }

    /// Buffers a leaderless write.
    pub fn put_row(&mut self, key: Vec<u8>, table: &Arc<Table>, pending: PendingRow) -> Result<()> {
        let row = pending.row(table)?;
        let row: usize = row.iter().flatten().map(amphora_storage::Datum::memory).sum();
        let bytes = key.len() + 2 * row + OVERHEAD;
        self.memory.take(bytes)?;
        let key: Arc<[u8]> = key.into();
        let old = self.leaderless.insert(key.clone(), (table.clone(), pending, bytes));
        self.undo.push(Undo::Leaderless(key, old));
        Ok(())
    }

    /// The buffered leaderless write of a key.
    pub fn get_row(&self, key: &[u8]) -> Option<&PendingRow> {
        self.leaderless.get(key).map(|(_, pending, _)| pending)
    }

    /// Demands at commit that this version of a key is still the newest, and that nobody else's commit in
    /// flight conflicts with this mode. The first version stands, and the stronger mode.
    pub fn expect(&mut self, key: &[u8], version: Timestamp, mode: LockMode) {
        match self.expected.get_mut(key) {
            None => {
                let key: Arc<[u8]> = key.into();
                self.to_commit += key.len() + WRITE_OVERHEAD;
                self.expected.insert(key.clone(), (version, mode));
                self.undo.push(Undo::Expected(key, None));
            }
            Some((_, before)) if *before < mode => {
                let weaker = std::mem::replace(before, mode);
                self.undo.push(Undo::Expected(key.into(), Some(weaker)));
            }
            Some(_) => {}
        }
    }

    /// Notes that a table was written, or relied on, by a statement planned with this version of it. The first version
    /// stands: what was written with it knows nothing of indexes that came later.
    pub fn touch(&mut self, table: &Table) {
        if let Entry::Vacant(slot) = self.tables.entry(table.id) {
            slot.insert(table.version);
            self.undo.push(Undo::Touched(table.id));
        }
    }

    /// The version of a table with which this transaction first wrote to it.
    pub fn touched(&self, id: TableId) -> Option<Timestamp> {
        self.tables.get(&id).copied()
    }

    /// The strong writes of a key range, in key order.
    pub fn range(&self, from: &[u8], to: &[u8]) -> Vec<(Arc<[u8]>, StrongWrite)> {
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        if from >= to {
            return Vec::new();
        }
        self.strong.range::<[u8], _>(bounds).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// The leaderless rows of a key range as the transaction sees them, in key order.
    pub fn row_range(&self, from: &[u8], to: &[u8]) -> Result<Vec<VisibleRow>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let rows = self.leaderless.range::<[u8], _>(bounds);
        rows.map(|(key, (table, pending, _))| Ok((key.clone(), pending.row(table)?))).collect()
    }

    /// The strong writes, for the commit.
    pub fn strong_writes(&self) -> impl Iterator<Item = (&Arc<[u8]>, &StrongWrite)> {
        self.strong.iter()
    }

    /// The leaderless operations, for the commit.
    pub fn leaderless_ops(&self) -> impl Iterator<Item = (&Arc<[u8]>, &Arc<Table>, &RowOp)> {
        self.leaderless.iter().filter_map(|(k, (table, p, _))| p.op().map(|op| (k, table, op)))
    }

    /// The versions demanded at commit.
    pub fn expectations(&self) -> impl Iterator<Item = (&Arc<[u8]>, Timestamp, LockMode)> {
        self.expected.iter().map(|(k, (version, mode))| (k, *version, *mode))
    }

    /// The strong tables written and the versions of their descriptors.
    pub fn tables(&self) -> impl Iterator<Item = (TableId, Timestamp)> {
        self.tables.iter().map(|(id, v)| (*id, *v))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = WriteBuffer::within(self.memory.emptied());
    }
}

/// Bytes of a strong write in a commit.
fn size(key: &[u8], value: &StrongWrite) -> usize {
    key.len() + value.as_ref().map_or(0, |v| v.len()) + WRITE_OVERHEAD
}

fn restore<V>(map: &mut BTreeMap<Arc<[u8]>, V>, key: Arc<[u8]>, old: Option<V>) {
    match old {
        Some(value) => {
            map.insert(key, value);
        }
        None => {
            map.remove(&key);
        }
    }
}

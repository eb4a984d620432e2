//! Scans: what the store holds, with the transaction's own writes laid over it.
//!
//! A stream owns all it needs. The part of the write buffer that lies in the range is copied when the scan
//! is opened (usually nothing), so a portal may outlive the statement, and a statement never meets rows
//! that it writes itself.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use amphora_storage::schema::{Index, IndexId, KeyOrder, Table};
use amphora_storage::store::{Cf, Scan as StoreScan, Store};
use amphora_storage::{DataType, Datum, Row, Timestamp, key, row};
use parking_lot::Mutex;

use super::HybridTransaction;
use super::leaderless_index;
use crate::api::{Direction, KeyBound, KeyRange, RowStream, Scan, StoredRow};
use crate::index_entry::split_entry;
use crate::leaderless::{stored_row, surface};
use crate::strong::{Gaps, ReadSet, SLOW, SnapshotHold};
use crate::{Error, Result};

/// Opens a scan of either kind of table.
pub(super) fn open(tx: &HybridTransaction, scan: &Scan) -> Result<Box<dyn RowStream>> {
    let range = key_range(&scan.table, scan.index, &scan.range)?;
    let columns = scan.columns.clone();
    if !scan.table.is_strong() && scan.index != IndexId::PRIMARY {
        return leaderless_index::open(tx, scan, range);
    }
    if !scan.table.is_strong() {
        tx.context.leaderless.settle()?;
        return Ok(Box::new(LeaderlessRows {
            inner: tx.context.store.scan_plain(Cf::Leaderless, range.clone(), scan.direction.into())?,
            overlay: Overlay::new(tx.visible().row_range(&range.start, &range.end)?, scan.direction),
            table: scan.table.clone(),
            columns,
            peeked: None,
            done: false,
            direction: scan.direction,
        }));
    }
    let forward = scan.direction == Direction::Forward;
    let gaps = tx.context.group.gaps();
    let mut walked = range.clone();
    if forward && let Some(from) = gaps.skip(&range, tx.snapshot()) {
        walked.start = from;
    }
    let entries = StrongEntries {
        inner: tx.context.store.scan(walked, tx.snapshot(), scan.direction.into())?,
        probe: forward.then(|| gaps.clone()),
        overlay: Overlay::new(tx.visible().range(&range.start, &range.end), scan.direction),
        peeked: None,
        done: false,
        direction: scan.direction,
        reading: tx.reads.clone().map(|reads| Reading {
            reads,
            range: range.clone(),
            direction: scan.direction,
            last: Vec::new(),
        }),
        range,
    };
    if scan.index == IndexId::PRIMARY {
        return Ok(Box::new(PrimaryRows { entries, table: scan.table.clone(), columns }));
    }
    if let (Some(columns), Some(index)) = (&columns, scan.table.index(scan.index))
        && index.covers(&scan.table, columns)
    {
        let reader = EntryReader::new(index, &scan.table, columns);
        return Ok(Box::new(EntryRows { entries, reader }));
    }
    let Some(index) = scan.table.index(scan.index) else {
        return Err(Error::new("42704", "index does not exist"));
    };
    let mut own = std::collections::HashMap::new();
    for (_, entry) in &entries.overlay.items {
        if let Some(entry) = entry {
            let (row_key, _) = split_entry(index, entry)?;
            if let Some(Some(bytes)) = tx.visible().get(row_key) {
                own.insert(row_key.into(), bytes.clone());
            }
        }
    }
    Ok(Box::new(IndexedRows {
        includes: !index.include.is_empty(),
        index: scan.index,
        entries,
        own,
        store: tx.context.store.clone(),
        snapshot: tx.snapshot(),
        _hold: tx.check.clone().or_else(|| tx.snapshot.clone()),
        table: scan.table.clone(),
        columns,
    }))
}

/// The bytes between which the entries of a [`KeyRange`] lie.
fn key_range(table: &Table, index: IndexId, range: &KeyRange) -> Result<Range<Vec<u8>>> {
    let mut prefix = key::table_prefix(table.keyspace(), index).to_vec();
    let known = table.index(index);
    let order = |place: usize| known.map_or_else(KeyOrder::default, |index| index.order(place));
    for (place, datum) in range.prefix.iter().enumerate() {
        key::encode_ordered(&mut prefix, datum, order(place))?;
    }
    let next = order(range.prefix.len());
    let with = |datum: &Datum| -> Result<Vec<u8>> {
        let mut bytes = prefix.clone();
        key::encode_ordered(&mut bytes, datum, next)?;
        Ok(bytes)
    };
    let (first, last) = match next.descending {
        false => (&range.lower, &range.upper),
        true => (&range.upper, &range.lower),
    };
    let start = match first {
        KeyBound::Unbounded => prefix.clone(),
        KeyBound::Included(d) => with(d)?,
        KeyBound::Excluded(d) => key::prefix_successor(&with(d)?),
    };
    let end = match last {
        KeyBound::Unbounded => key::prefix_successor(&prefix),
        KeyBound::Included(d) => key::prefix_successor(&with(d)?),
        KeyBound::Excluded(d) => with(d)?,
    };
    Ok(start..end)
}

impl From<Direction> for amphora_storage::store::Direction {
    fn from(d: Direction) -> Self {
        match d {
            Direction::Forward => amphora_storage::store::Direction::Forward,
            Direction::Backward => amphora_storage::store::Direction::Backward,
        }
    }
}

/// Buffered writes of a range, in the order of the scan.
struct Overlay<V> {
    items: Vec<(Arc<[u8]>, V)>,
    next: usize,
}

impl<V> Overlay<V> {
    fn new(mut items: Vec<(Arc<[u8]>, V)>, direction: Direction) -> Overlay<V> {
        if direction == Direction::Backward {
            items.reverse();
        }
        Overlay { items, next: 0 }
    }

    fn peek(&self) -> Option<&(Arc<[u8]>, V)> {
        self.items.get(self.next)
    }
}

/// Which of two keys a scan meets first.
pub(super) fn order(a: &[u8], b: &[u8], direction: Direction) -> Ordering {
    match direction {
        Direction::Forward => a.cmp(b),
        Direction::Backward => b.cmp(a),
    }
}

/// How far a scan of a SERIALIZABLE transaction has come: what it has read is its range up to the last entry
/// that was taken, and all of it once there was no more.
struct Reading {
    reads: Arc<Mutex<ReadSet>>,
    range: Range<Vec<u8>>,
    direction: Direction,
    last: Vec<u8>,
}

impl Reading {
    fn at(&mut self, key: &[u8]) {
        self.last.clear();
        self.last.extend_from_slice(key);
    }

    /// After a batch.
    fn note(&mut self, ended: bool) {
        let mut range = self.range.clone();
        match self.direction {
            _ if ended => {}
            _ if self.last.is_empty() => return,
            Direction::Forward => {
                range.end.clone_from(&self.last);
                range.end.push(0);
            }
            Direction::Backward => range.start.clone_from(&self.last),
        }
        self.reads.lock().add(range.start, range.end);
    }
}

/// The entries of a range of the strong keyspace, own writes included.
struct StrongEntries {
    inner: StoreScan,
    overlay: Overlay<Option<Arc<[u8]>>>,
    /// An entry of `inner` that was read and not yet given
    peeked: Option<(Vec<u8>, Timestamp, Vec<u8>)>,
    done: bool,
    direction: Direction,
    reading: Option<Reading>,
    range: Range<Vec<u8>>,
    /// Whom to tell if the first entry is long in coming; none once it has come
    probe: Option<Arc<Gaps>>,
}

impl StrongEntries {
    /// Hands up to `limit` entries to `give`; fewer only at the end. How many.
    fn next_batch(
        &mut self,
        limit: usize,
        mut give: impl FnMut(&[u8], Timestamp, &[u8]) -> Result<()>,
    ) -> Result<usize> {
        let Some(mut reading) = self.reading.take() else { return self.take(limit, give) };
        let given = self.take(limit, |key, version, value| {
            reading.at(key);
            give(key, version, value)
        });
        reading.note(given.as_ref().is_ok_and(|given| *given < limit));
        self.reading = Some(reading);
        given
    }

    fn take(
        &mut self,
        limit: usize,
        mut give: impl FnMut(&[u8], Timestamp, &[u8]) -> Result<()>,
    ) -> Result<usize> {
        let mut given = 0;
        if let Some(gaps) = self.probe.take() {
            let began = Instant::now();
            let mut waited = None;
            let any = limit > 0
                && self.next(|key, version, value| {
                    waited = Some(began.elapsed());
                    give(key, version, value)
                })?;
            if waited.unwrap_or_else(|| began.elapsed()) > SLOW {
                gaps.ask(self.range.clone());
            }
            if !any {
                return Ok(0);
            }
            given = 1;
        }
        while given < limit && self.next(&mut give)? {
            given += 1;
        }
        Ok(given)
    }

    /// Hands the next entry's key, version and value to `give`. The version of own writes is ZERO.
    /// False at the end.
    fn next(&mut self, mut give: impl FnMut(&[u8], Timestamp, &[u8]) -> Result<()>) -> Result<bool> {
        loop {
            // The usual case: nothing of our own in the range, nothing to compare and nothing to copy.
            if self.overlay.peek().is_none() && self.peeked.is_none() {
                return match self.inner.next()? {
                    Some(entry) => give(entry.key, entry.ts, entry.value).map(|()| true),
                    None => Ok(false),
                };
            }
            if self.peeked.is_none() && !self.done {
                self.peeked = self.inner.next()?.map(|e| (e.key.to_vec(), e.ts, e.value.to_vec()));
                self.done = self.peeked.is_none();
            }
            let Some((own_key, own)) = self.overlay.peek() else {
                return match self.peeked.take() {
                    Some((key, ts, value)) => give(&key, ts, &value).map(|()| true),
                    None => Ok(false),
                };
            };
            let which = match &self.peeked {
                Some((key, ..)) => order(key, own_key, self.direction),
                None => Ordering::Greater,
            };
            if which == Ordering::Less {
                if let Some((key, ts, value)) = self.peeked.take() {
                    return give(&key, ts, &value).map(|()| true);
                }
                continue;
            }
            if which == Ordering::Equal {
                self.peeked = None;
            }
            let (own_key, own) = (own_key.clone(), own.clone());
            self.overlay.next += 1;
            if let Some(value) = own {
                return give(&own_key, Timestamp::ZERO, &value).map(|()| true);
            }
        }
    }
}

fn decode(table: &Table, columns: Option<&[usize]>, bytes: &[u8]) -> Result<Row> {
    match columns {
        None => Ok(row::decode_row(table, bytes)?),
        Some(positions) => {
            let mut out = vec![Datum::Null; table.columns.len()];
            row::decode_columns(table, bytes, positions, &mut out)?;
            Ok(out)
        }
    }
}

/// The rows of a range of the primary key.
struct PrimaryRows {
    entries: StrongEntries,
    table: Arc<Table>,
    columns: Option<Arc<[usize]>>,
}

impl RowStream for PrimaryRows {
    fn next_batch(&mut self, limit: usize, out: &mut Vec<StoredRow>) -> Result<usize> {
        let (table, columns) = (&self.table, self.columns.as_deref());
        self.entries.next_batch(limit, |_, version, bytes| {
            out.push(StoredRow { row: decode(table, columns, bytes)?, version });
            Ok(())
        })
    }
}

/// The rows of a range of a secondary index: entries first, then their rows, many at a time.
///
/// A row that this transaction wrote has all its entries in the overlay, so a row found through any other
/// entry is the store's own.
struct IndexedRows {
    entries: StrongEntries,
    index: IndexId,
    /// Entries hold more than the row's key
    includes: bool,
    own: std::collections::HashMap<Arc<[u8]>, Arc<[u8]>>,
    store: Arc<Store>,
    snapshot: Timestamp,
    /// Rows are read after the entries, maybe long after: their versions stay until then
    _hold: Option<Arc<SnapshotHold>>,
    table: Arc<Table>,
    columns: Option<Arc<[usize]>>,
}

impl RowStream for IndexedRows {
    fn next_batch(&mut self, limit: usize, out: &mut Vec<StoredRow>) -> Result<usize> {
        let mut keys: Vec<Vec<u8>> = Vec::with_capacity(limit.min(1024));
        let index = self.table.index(self.index).filter(|_| self.includes);
        self.entries.next_batch(limit, |_, _, value| {
            let row_key = match index {
                Some(index) => split_entry(index, value)?.0,
                None => value,
            };
            keys.push(row_key.to_vec());
            Ok(())
        })?;
        if let Some(reading) = &self.entries.reading {
            let mut reads = reading.reads.lock();
            keys.iter().for_each(|key| reads.add_key(key));
        }
        let found = self.store.multi_get(&keys, self.snapshot)?;
        for (key, version) in keys.iter().zip(found) {
            let (ts, row) = match (self.own.get(key.as_slice()), version) {
                (Some(own), _) => (Timestamp::ZERO, decode(&self.table, self.columns.as_deref(), own)?),
                (None, Some(v)) => (v.ts, decode(&self.table, self.columns.as_deref(), &v.value)?),
                (None, None) => {
                    return Err(Error::new("XX001", "an index entry has no row")
                        .detail(format!("In an index of table \"{}\".", self.table.name))
                        .hint("Drop and create the index again, and report this as a bug."));
                }
            };
            out.push(StoredRow { row, version: ts });
        }
        Ok(keys.len())
    }
}

/// The rows of a range of a secondary index, as far as its entries have them: nothing is fetched.
struct EntryRows {
    entries: StrongEntries,
    reader: EntryReader,
}

/// Reads of an entry what it has of its row.
///
/// ```text
///   entry   table | index | a | b           →   table | 0 | key        c, d (INCLUDE)
/// ```
pub(super) struct EntryReader {
    table: Arc<Table>,
    index: IndexId,
    /// What the entry's key begins with, as far as it is read: where each goes, its type and its order
    indexed: Vec<Part>,
    /// What the row's key begins with, likewise
    keyed: Vec<Part>,
    /// Positions of columns that are read from what the entry includes
    included: Vec<usize>,
}

/// A column in a key.
struct Part {
    /// Position in the row; beyond its end if it is not wanted
    column: usize,
    ty: DataType,
    order: KeyOrder,
}

impl EntryReader {
    pub(super) fn new(index: &Index, table: &Arc<Table>, columns: &[usize]) -> EntryReader {
        let included: Vec<usize> = columns.iter().filter(|c| index.include.contains(c)).copied().collect();
        let in_key: Vec<usize> = columns.iter().filter(|c| !index.include.contains(c)).copied().collect();
        let last = |of: &[usize], wanted: &mut dyn Iterator<Item = &usize>| {
            wanted.filter_map(|c| of.iter().position(|i| i == c)).max().map_or(0, |last| last + 1)
        };
        let parts = |of: &[usize], n: usize, order: &dyn Fn(usize) -> KeyOrder| -> Vec<Part> {
            let part = |(place, &column): (usize, &usize)| {
                let ty = index.type_of(table, column)?.clone();
                Some(Part { column, ty, order: order(place) })
            };
            of[..n].iter().enumerate().filter_map(part).collect()
        };
        let n = last(&index.columns, &mut in_key.iter());
        let indexed = parts(&index.columns, n, &|place| index.order(place));
        let key = &table.primary.columns;
        let n = last(key, &mut in_key.iter().filter(|c| !index.columns.contains(c)));
        let keyed = parts(key, n, &|_| KeyOrder::default());
        EntryReader { table: table.clone(), index: index.id, indexed, keyed, included }
    }

    /// The row, with NULL for the columns that are not wanted.
    pub(super) fn row(&self, key: &[u8], value: &[u8]) -> Result<Row> {
        let mut row = vec![Datum::Null; self.table.columns.len()];
        let Some(index) = self.table.index(self.index) else { return Ok(row) };
        let (row_key, more) = split_entry(index, value)?;
        EntryReader::read(row_key, &self.keyed, &mut row)?;
        EntryReader::read(key, &self.indexed, &mut row)?;
        if !self.included.is_empty() {
            row::decode_columns(&self.table, more, &self.included, &mut row)?;
        }
        Ok(row)
    }

    /// Reads values from `bytes` into the columns that they are.
    fn read(bytes: &[u8], parts: &[Part], out: &mut Row) -> Result<()> {
        let Some((_, _, mut rest)) = key::split_prefix(bytes) else {
            return Err(Error::new("XX001", "an index entry is too short"));
        };
        for part in parts {
            let (datum, read) = key::decode_ordered(rest, &part.ty, part.order)?;
            if let Some(slot) = out.get_mut(part.column) {
                *slot = datum;
            }
            rest = &rest[read..];
        }
        Ok(())
    }
}

impl RowStream for EntryRows {
    fn next_batch(&mut self, limit: usize, out: &mut Vec<StoredRow>) -> Result<usize> {
        let EntryRows { entries, reader } = self;
        entries.next_batch(limit, |key, version, value| {
            out.push(StoredRow { row: reader.row(key, value)?, version });
            Ok(())
        })
    }
}

/// The visible rows of a range of a leaderless table.
struct LeaderlessRows {
    inner: amphora_storage::store::PlainScan,
    overlay: Overlay<Option<Row>>,
    table: Arc<Table>,
    columns: Option<Arc<[usize]>>,
    peeked: Option<(Vec<u8>, Vec<u8>)>,
    done: bool,
    direction: Direction,
}

impl LeaderlessRows {
    fn next(&mut self) -> Result<Option<Row>> {
        loop {
            if self.peeked.is_none() && !self.done {
                self.peeked = self.inner.next()?.map(|e| (e.key.to_vec(), e.value.to_vec()));
                self.done = self.peeked.is_none();
            }
            let which = match (&self.peeked, self.overlay.peek()) {
                (None, None) => return Ok(None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((key, _)), Some((own, _))) => order(key, own, self.direction),
            };
            let stored = if which == Ordering::Greater { None } else { self.peeked.take() };
            if which == Ordering::Less {
                if let Some((key, bytes)) = stored {
                    let state = stored_row::sound(&key, &bytes)?;
                    let row = match &self.columns {
                        None => surface::visible(&self.table, &state)?,
                        Some(columns) => surface::visible_columns(&self.table, &state, columns)?,
                    };
                    if row.is_some() {
                        return Ok(row);
                    }
                }
                continue;
            }
            let own = self.overlay.peek().and_then(|(_, row)| row.clone());
            self.overlay.next += 1;
            if own.is_some() {
                return Ok(own);
            }
        }
    }
}

impl RowStream for LeaderlessRows {
    fn next_batch(&mut self, limit: usize, out: &mut Vec<StoredRow>) -> Result<usize> {
        for given in 0..limit {
            match self.next()? {
                Some(row) => out.push(StoredRow { row, version: Timestamp::ZERO }),
                None => return Ok(given),
            }
        }
        Ok(limit)
    }
}

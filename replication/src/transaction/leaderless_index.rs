//! Scans of a secondary index of a leaderless table.
//!
//! Entries and rows are read as they were at one moment, so that a row that moves within the range meanwhile is found
//! once. Rows that the transaction itself has written are taken from its buffer, at the places that their entries
//! would have; what the index says of them is passed over.
//!
//! An index that this node has not finished building is made for the range that is read, in memory.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use amphora_storage::schema::{Index, IndexId, Table};
use amphora_storage::store::{Cf, PlainEntry, PlainScan, PlainSnapshot};
use amphora_storage::{Row, Timestamp, key};

use super::HybridTransaction;
use super::scan::{EntryReader, order};
use crate::api::{Direction, RowStream, Scan, StoredRow};
use crate::index_entry::split_entry;
use crate::leaderless::{stored_row, surface};
use crate::{Error, Result};

/// Bytes of entries that are made for an index that is not ready.
const MADE_BYTES: usize = 64 << 20;

/// Opens a scan of the entries between these keys.
pub(super) fn open(tx: &HybridTransaction, scan: &Scan, range: Range<Vec<u8>>) -> Result<Box<dyn RowStream>> {
    let table = &scan.table;
    let Some(index) = table.index(scan.index) else {
        return Err(Error::new("42704", "index does not exist"));
    };
    let own = OwnRows::new(tx, table, index, &range, scan.direction)?;
    let (snapshot, entries) = match tx.context.leaderless.index_snapshot(table, scan.index) {
        Some(snapshot) => {
            let entries = snapshot.scan(Cf::LeaderlessIndex, range, scan.direction.into())?;
            (snapshot, Entries::Stored(entries))
        }
        None => {
            tx.context.leaderless.settle()?;
            let snapshot = tx.context.store.plain_snapshot();
            let entries = make(tx, &snapshot, table, index, &range, scan.direction)?;
            (snapshot, Entries::Made(entries.into_iter()))
        }
    };
    let columns = scan.columns.clone();
    let reader = columns.as_ref().filter(|columns| index.covers(table, columns));
    Ok(Box::new(LeaderlessIndexRows {
        reader: reader.map(|columns| EntryReader::new(index, table, columns)),
        table: table.clone(),
        index: scan.index,
        columns,
        snapshot,
        entries,
        peeked: None,
        own,
        direction: scan.direction,
    }))
}

/// The entries of a range, from the rows.
fn make(
    tx: &HybridTransaction,
    snapshot: &PlainSnapshot,
    table: &Arc<Table>,
    index: &Index,
    range: &Range<Vec<u8>>,
    direction: Direction,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let (mut made, mut bytes) = (Vec::new(), 0);
    let rows = key::index_range(table.keyspace(), IndexId::PRIMARY);
    let mut scan = snapshot.scan(Cf::Leaderless, rows, Direction::Forward.into())?;
    while let Some(PlainEntry { key, value }) = scan.next()? {
        let state = stored_row::sound(key, value)?;
        let entries = tx.context.leaderless.index_entries_of_state(table, index, key, &state);
        for entry in entries.into_iter().filter(|(key, _)| lies_in(key, range)) {
            bytes += entry.0.len() + entry.1.len();
            made.push(entry);
        }
        if bytes > MADE_BYTES {
            return Err(Error::new("57P03", format!("index \"{}\" is being built on this node", index.name))
                .hint(
                    "Try again when it is ready, or read the table without it: SET enable_indexscan = off.",
                ));
        }
    }
    made.sort_unstable_by(|(a, _), (b, _)| order(a, b, direction));
    Ok(made)
}

fn lies_in(key: &[u8], range: &Range<Vec<u8>>) -> bool {
    range.start.as_slice() <= key && (range.end.is_empty() || key < range.end.as_slice())
}

/// Entries in the order of the scan.
enum Entries {
    Stored(PlainScan),
    Made(std::vec::IntoIter<(Vec<u8>, Vec<u8>)>),
}

impl Entries {
    fn next(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        Ok(match self {
            Entries::Stored(scan) => scan.next()?.map(|e| (e.key.to_vec(), e.value.to_vec())),
            Entries::Made(entries) => entries.next(),
        })
    }
}

/// What the transaction has written to the table.
struct OwnRows {
    /// Row keys, of deleted rows too
    keys: HashSet<Arc<[u8]>>,
    /// What has an entry in the range, by its key; the next is the last
    rows: Vec<(Vec<u8>, Row)>,
}

impl OwnRows {
    fn new(
        tx: &HybridTransaction,
        table: &Table,
        index: &Index,
        range: &Range<Vec<u8>>,
        direction: Direction,
    ) -> Result<OwnRows> {
        let all = key::index_range(table.keyspace(), IndexId::PRIMARY);
        let mut own = OwnRows { keys: HashSet::new(), rows: Vec::new() };
        for (row_key, row) in tx.visible().row_range(&all.start, &all.end)? {
            if let Some(row) = row {
                let entries = tx.context.leaderless.index_entries(table, index, &row_key, &row)?;
                let entries = entries.into_iter().filter(|(key, _)| lies_in(key, range));
                own.rows.extend(entries.map(|(key, _)| (key, row.clone())));
            }
            own.keys.insert(row_key);
        }
        own.rows.sort_unstable_by(|(a, _), (b, _)| order(b, a, direction));
        Ok(own)
    }
}

/// The rows of a range of an index.
struct LeaderlessIndexRows {
    table: Arc<Table>,
    index: IndexId,
    columns: Option<Arc<[usize]>>,
    snapshot: PlainSnapshot,
    entries: Entries,
    peeked: Option<(Vec<u8>, Vec<u8>)>,
    own: OwnRows,
    direction: Direction,
    /// Reads entries, if they have all that is wanted
    reader: Option<EntryReader>,
}

/// A row on its way.
enum Found {
    Row(Row),
    /// The next of the rows that are fetched together
    Fetched,
}

impl LeaderlessIndexRows {
    /// The next entry that is not of a row of the transaction's own.
    fn next_entry(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let Some(index) = self.table.index(self.index) else { return Ok(None) };
        while let Some((key, value)) = self.entries.next()? {
            let (row_key, _) = split_entry(index, &value)?;
            if self.own.keys.is_empty() || !self.own.keys.contains(row_key) {
                return Ok(Some((key, value)));
            }
        }
        Ok(None)
    }

    /// The next row, or the key of it to fetch.
    fn next(&mut self, fetch: &mut Vec<Vec<u8>>) -> Result<Option<Found>> {
        if self.peeked.is_none() {
            self.peeked = self.next_entry()?;
        }
        let own_first = match (&self.peeked, self.own.rows.last()) {
            (None, None) => return Ok(None),
            (Some((key, _)), Some((own, _))) => order(own, key, self.direction).is_lt(),
            (entry, _) => entry.is_none(),
        };
        if own_first {
            return Ok(self.own.rows.pop().map(|(_, row)| Found::Row(row)));
        }
        let Some((key, value)) = self.peeked.take() else { return Ok(None) };
        if let Some(reader) = &self.reader {
            return Ok(Some(Found::Row(reader.row(&key, &value)?)));
        }
        let Some(index) = self.table.index(self.index) else { return Ok(None) };
        fetch.push(split_entry(index, &value)?.0.to_vec());
        Ok(Some(Found::Fetched))
    }

    fn decode(&self, row_key: &[u8], stored: Option<Vec<u8>>) -> Result<Row> {
        let row = match stored {
            Some(bytes) => {
                let state = stored_row::sound(row_key, &bytes)?;
                match &self.columns {
                    None => surface::visible(&self.table, &state)?,
                    Some(columns) => surface::visible_columns(&self.table, &state, columns)?,
                }
            }
            None => None,
        };
        row.ok_or_else(|| {
            Error::new("XX001", "an index entry has no row")
                .detail(format!("In an index of table \"{}\".", self.table.name))
                .hint("REINDEX TABLE makes the index anew; report this as a bug.")
        })
    }
}

impl RowStream for LeaderlessIndexRows {
    fn next_batch(&mut self, limit: usize, out: &mut Vec<StoredRow>) -> Result<usize> {
        let (mut found, mut keys) = (Vec::with_capacity(limit.min(1024)), Vec::new());
        while found.len() < limit {
            let Some(next) = self.next(&mut keys)? else { break };
            found.push(next);
        }
        let fetched = self.snapshot.multi_get(Cf::Leaderless, &keys)?;
        let mut fetched = keys.iter().zip(fetched);
        let given = found.len();
        for next in found {
            let row = match next {
                Found::Row(row) => row,
                Found::Fetched => {
                    let (row_key, stored) = fetched.next().map_or((&[][..], None), |(key, row)| (key, row));
                    self.decode(row_key, stored)?
                }
            };
            out.push(StoredRow { row, version: Timestamp::ZERO });
        }
        Ok(given)
    }
}

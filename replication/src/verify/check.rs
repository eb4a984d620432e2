//! One table on one node: checksums of its rows and indexes as of a timestamp, and whether they fit together.

use std::time::{Duration, Instant};

use amphora_storage::schema::{Index, IndexId, KeyOrder, Table};
use amphora_storage::store::{Direction, Scan, Store};
use amphora_storage::{Datum, Row, Timestamp, key, row};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::api::IndexFunctions;
use crate::index_entry::split_entry;
use crate::{Error, Result};

/// Misfits that are named; the others are counted.
const MAX_NAMED: usize = 5;
/// Rows or entries looked up at a time.
const BATCH: usize = 256;
/// After so many bytes it is looked whether the reading goes too fast, or is wanted any more.
const PACE_BYTES: u64 = 256 << 10;

/// How fast a check may read, and whether it is still wanted.
pub struct Pace {
    bytes_per_second: Option<u64>,
    wanted: Box<dyn Fn() -> bool + Send>,
    began: Instant,
    spent: u64,
    looked: u64,
}

impl Pace {
    /// No faster than this, and for as long as `wanted`.
    pub fn new(bytes_per_second: Option<u64>, wanted: impl Fn() -> bool + Send + 'static) -> Pace {
        let wanted = Box::new(wanted);
        Pace { bytes_per_second, wanted, began: Instant::now(), spent: 0, looked: 0 }
    }

    /// So many bytes were read. Sleeps if that was too fast; 57014 if nobody wants to know any more.
    fn spend(&mut self, bytes: usize) -> Result<()> {
        self.spent += bytes as u64;
        if self.spent - self.looked < PACE_BYTES {
            return Ok(());
        }
        self.looked = self.spent;
        if !(self.wanted)() {
            return Err(Error::new("57014", "the check was given up"));
        }
        if let Some(rate) = self.bytes_per_second {
            let due = Duration::from_secs_f64(self.spent as f64 / rate.max(1) as f64);
            std::thread::sleep(due.saturating_sub(self.began.elapsed()));
        }
        Ok(())
    }
}

/// What a node has of a table's rows, or of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectReport {
    /// The table's or the index's name
    pub name: String,
    /// Rows or entries
    pub rows: u64,
    /// Over keys, versions and values in the order of keys
    pub checksum: [u8; 16],
    /// What does not fit together here, in words; empty if all does
    pub misfits: String,
    /// Why it could not be read
    pub failed: Option<String>,
}

impl ObjectReport {
    fn of(name: &str, result: Result<Sums>) -> ObjectReport {
        let mut report = ObjectReport {
            name: name.to_owned(),
            rows: 0,
            checksum: [0; 16],
            misfits: String::new(),
            failed: None,
        };
        match result {
            Ok(sums) => {
                report.rows = sums.rows;
                report.checksum.copy_from_slice(&sums.ordered.finalize()[..16]);
            }
            Err(e) => report.failed = Some(e.to_string()),
        }
        report
    }
}

/// What is added up while a range is read.
#[derive(Default)]
struct Sums {
    rows: u64,
    ordered: Sha256,
}

impl Sums {
    fn add(&mut self, key: &[u8], version: Timestamp, value: &[u8]) {
        self.rows += 1;
        self.ordered.update((key.len() as u64).to_le_bytes());
        self.ordered.update(key);
        self.ordered.update(version.0.to_le_bytes());
        self.ordered.update((value.len() as u64).to_le_bytes());
        self.ordered.update(value);
    }
}

/// A sum of hashes of entries, whatever their order. A set that differs by accident has another sum; nobody
/// chooses entries to deceive it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Bag {
    entries: u64,
    sum: u128,
}

impl Bag {
    fn add(&mut self, entry: &Entry) {
        let mut hash = Sha256::new();
        for part in [&entry.key, &entry.row_key, &entry.included] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let hash = hash.finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&hash[..16]);
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(half));
        self.entries += 1;
    }
}

/// An entry of an index, taken apart, with included columns as the table has them now: a column that was
/// widened keeps its old bytes, in rows and in entries.
#[derive(PartialEq, Eq)]
struct Entry {
    key: Vec<u8>,
    row_key: Vec<u8>,
    included: Vec<u8>,
}

/// A table as of a timestamp on this node. The caller holds its history.
pub struct TableCheck<'a> {
    /// The node's data
    pub store: &'a Store,
    /// The table as it was then
    pub table: &'a Table,
    /// When
    pub at: Timestamp,
    /// Computes the entries of indexes that are not plain
    pub functions: Option<&'static dyn IndexFunctions>,
}

impl TableCheck<'_> {
    /// Reads the rows and every index once; the rows and one index more if those do not fit. Blocks. What cannot be
    /// read is part of the report; 57014 if the check is not wanted any more.
    pub fn run(&self, pace: &mut Pace) -> Result<Vec<ObjectReport>> {
        let mut expected: Vec<Option<Bag>> =
            self.table.indexes.iter().map(|index| self.can_compute(index).then(Bag::default)).collect();
        let rows = wanted(self.read_rows(&mut expected, pace))?;
        let rows_failed = rows.is_err();
        let mut reports = vec![ObjectReport::of(&self.table.name, rows)];
        for (index, expected) in self.table.indexes.iter().zip(expected) {
            let mut found = Bag::default();
            let read = wanted(self.read_index(index, expected.is_some().then_some(&mut found), pace))?;
            let failed = read.is_err();
            let mut report = ObjectReport::of(&index.name, read);
            if !failed && !rows_failed && expected.is_some_and(|expected| expected != found) {
                report.misfits = match wanted(self.misfits(index, pace))? {
                    Ok(misfits) => misfits,
                    Err(e) => format!("entries and rows do not fit; which could not be found out: {e}"),
                };
            }
            reports.push(report);
        }
        Ok(reports)
    }

    fn can_compute(&self, index: &Index) -> bool {
        index.is_plain() || self.functions.is_some()
    }

    fn scan(&self, index: IndexId) -> Result<Scan> {
        let range = key::index_range(self.table.keyspace(), index);
        Ok(self.store.scan_once(range, self.at, Direction::Forward)?)
    }

    fn read_rows(&self, expected: &mut [Option<Bag>], pace: &mut Pace) -> Result<Sums> {
        let mut sums = Sums::default();
        let mut scan = self.scan(IndexId::PRIMARY)?;
        while let Some(found) = scan.next()? {
            pace.spend(found.key.len() + found.value.len())?;
            sums.add(found.key, found.ts, found.value);
            let row = row::decode_row(self.table, found.value)?;
            for (index, bag) in self.table.indexes.iter().zip(&mut *expected) {
                if let Some(bag) = bag
                    && let Some(entry) = self.entry_of(index, found.key, &row)?
                {
                    bag.add(&entry);
                }
            }
        }
        Ok(sums)
    }

    fn read_index(&self, index: &Index, mut bag: Option<&mut Bag>, pace: &mut Pace) -> Result<Sums> {
        let mut sums = Sums::default();
        let mut scan = self.scan(index.id)?;
        while let Some(found) = scan.next()? {
            pace.spend(found.key.len() + found.value.len())?;
            sums.add(found.key, found.ts, found.value);
            if let Some(bag) = &mut bag {
                bag.add(&self.entry(index, found.key, found.value)?);
            }
        }
        Ok(sums)
    }

    /// The entry that a row should have.
    fn entry_of(&self, index: &Index, row_key: &[u8], row: &Row) -> Result<Option<Entry>> {
        let computed = match self.functions {
            _ if index.is_plain() => Vec::new(),
            Some(functions) => match functions.compute(self.table, index, row)? {
                Some(computed) => computed,
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        let key = key::index_key(self.table, index, row, &computed)?;
        Ok(Some(Entry { key, row_key: row_key.to_vec(), included: self.included(index, row)? }))
    }

    /// An entry as it is.
    fn entry(&self, index: &Index, key: &[u8], value: &[u8]) -> Result<Entry> {
        let (row_key, more) = split_entry(index, value)?;
        let mut row = vec![Datum::Null; self.table.columns.len()];
        if !index.include.is_empty() {
            let mut columns = index.include.clone();
            columns.sort_unstable();
            row::decode_columns(self.table, more, &columns, &mut row)?;
        }
        let included = self.included(index, &row)?;
        Ok(Entry { key: key.to_vec(), row_key: row_key.to_vec(), included })
    }

    fn included(&self, index: &Index, row: &Row) -> Result<Vec<u8>> {
        if index.include.is_empty() {
            return Ok(Vec::new());
        }
        let slots = index.include.iter().filter_map(|&c| Some((self.table.columns.get(c)?.id, row.get(c)?)));
        Ok(row::encode_slots(slots)?)
    }

    /// Which entries have no row that they fit, and which rows lack their entry.
    fn misfits(&self, index: &Index, pace: &mut Pace) -> Result<String> {
        let mut stray = Named::default();
        let mut scan = self.scan(index.id)?;
        loop {
            let mut entries = Vec::with_capacity(BATCH);
            while entries.len() < BATCH
                && let Some(found) = scan.next()?
            {
                pace.spend(found.key.len() + found.value.len())?;
                entries.push(self.entry(index, found.key, found.value)?);
            }
            if entries.is_empty() {
                break;
            }
            let keys: Vec<&[u8]> = entries.iter().map(|e| e.row_key.as_slice()).collect();
            for (entry, found) in entries.iter().zip(self.store.multi_get(&keys, self.at)?) {
                let fits = match found {
                    None => false,
                    Some(version) => {
                        let row = row::decode_row(self.table, &version.value)?;
                        self.entry_of(index, &entry.row_key, &row)?.as_ref() == Some(entry)
                    }
                };
                if !fits {
                    stray.add(|| show(self.table, &entry.row_key));
                }
            }
        }
        let mut lacking = Named::default();
        let mut scan = self.scan(IndexId::PRIMARY)?;
        loop {
            let mut entries = Vec::with_capacity(BATCH);
            while entries.len() < BATCH
                && let Some(found) = scan.next()?
            {
                pace.spend(found.key.len() + found.value.len())?;
                let row = row::decode_row(self.table, found.value)?;
                // Rows without an entry keep the loop going.
                entries.push((found.key.to_vec(), self.entry_of(index, found.key, &row)?));
            }
            if entries.is_empty() {
                break;
            }
            let with_entry: Vec<(&[u8], &[u8])> = entries
                .iter()
                .filter_map(|(row_key, entry)| Some((row_key.as_slice(), entry.as_ref()?.key.as_slice())))
                .collect();
            let keys: Vec<&[u8]> = with_entry.iter().map(|(_, key)| *key).collect();
            for ((row_key, _), found) in with_entry.iter().zip(self.store.multi_get(&keys, self.at)?) {
                if found.is_none() {
                    lacking.add(|| show(self.table, row_key));
                }
            }
        }
        let parts = [
            stray.tell("entry without its row", "entries without their rows"),
            lacking.tell("row without its entry", "rows without their entries"),
        ];
        let told = parts.into_iter().flatten().collect::<Vec<_>>().join("; ");
        Ok(if told.is_empty() { "entries and rows do not fit".to_owned() } else { told })
    }
}

/// A row's key as a person reads it.
pub(super) fn show(table: &Table, row_key: &[u8]) -> String {
    let mut rest = match key::split_prefix(row_key) {
        Some((.., rest)) => rest,
        None => return hex(row_key),
    };
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for &column in &table.primary.columns {
        let Some(column) = table.columns.get(column) else { return hex(row_key) };
        let Ok((datum, read)) = key::decode_ordered(rest, &column.ty, KeyOrder::default()) else {
            return hex(row_key);
        };
        let value = match &datum {
            Datum::Text(text) => text.to_string(),
            other => match other.as_i64() {
                Some(number) => number.to_string(),
                None => hex(rest.get(..read).unwrap_or_default()),
            },
        };
        rest = rest.get(read..).unwrap_or_default();
        names.push(column.name.as_str());
        values.push(value);
    }
    format!("({})=({})", names.join(", "), values.join(", "))
}

/// Tells a check that is not wanted any more from one that could not read something.
fn wanted<T>(result: Result<T>) -> Result<Result<T>> {
    match result {
        Err(e) if e.sqlstate == "57014" => Err(e),
        other => Ok(other),
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\\x{digits}")
}

/// Some of many.
#[derive(Default)]
pub(super) struct Named {
    count: u64,
    named: Vec<String>,
}

impl Named {
    pub(super) fn add(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(name());
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn tell(&self, one: &str, many: &str) -> Option<String> {
        let more = self.count.saturating_sub(self.named.len() as u64);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        let what = if self.count == 1 { one } else { many };
        (self.count > 0).then(|| format!("{} {what}: {}{rest}", self.count, self.named.join(", ")))
    }
}

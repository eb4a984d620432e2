//! Secondary indexes of leaderless tables: each node makes them of its own rows.
//!
//! What nodes exchange is rows. An entry follows from the merged row and the index's definition alone, so no node
//! tells another of entries; each writes, in the batch that writes a row, what the change of that row makes of them:
//!
//! ```text
//!   merge lock ─┬─ read      row: a = 3             (commit, received batch, mixed transaction, replay, transfer: `Rows`)
//!               ├─ join      row: a = 5
//!               └─ write     row │ − (3, key) + (5, key)      one batch, so equal at every moment and after a crash
//!
//!   catalog  ──► index is new: ● maintained from here on ─── rows of before are walked, part by part ──► ready
//!   catalog  ──► index is gone: maintained no more ─── entries erased
//! ```
//!
//! For that, a row that has entries is not owed to the store ([`HotRows`](super::hot_rows)): it gets every state.
//!
//! *Nobody waits for an index.* Nodes learn of one at different times (a node that was cut off much later), and each
//! begins when it does. Until it is ready here, who reads through it gets what the rows say, sorted on the spot. A
//! mark beside the entries says how far an index is; the entries of one that is not ready are made anew after a crash,
//! and all are when another node's data take the place of ours.
//!
//! *Entries are what the row reads as.* What changes that without changing a row (a column's conflict policy) gives
//! the index a new id, and so new entries. A value that cannot be read (a counter beyond bigint) is NULL in an index;
//! a row for which an index's expressions fail, which only a merge can bring about, has no entry in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use amphora_storage::schema::{Catalog, Index, IndexId, Table, TableId};
use amphora_storage::store::{Batch, Cf, Direction, PlainEntry, PlainSnapshot, Store};
use amphora_storage::{Datum, Row, StorageError, key};
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, watch};

use super::engine::Engine;
use super::row_state::RowState;
use super::stored_row;
use super::surface::readable_columns;
use crate::api::IndexFunctions;
use crate::index_entry::entry_value;
use crate::{Error, Result};

/// Rows that are looked at under one holding of the merge lock while an index is built.
const BUILD_ROWS: usize = 256;
/// The same in bytes.
const BUILD_BYTES: usize = 1 << 20;

/// An index of a keyspace.
type Place = (TableId, IndexId);

/// An entry: its key and its value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// The indexes that a node maintains.
pub(super) struct Indexes {
    functions: Option<&'static dyn IndexFunctions>,
    /// `None` if there are none: the usual case, in which nothing is done for a row. Replaced under the merge lock.
    current: ArcSwapOption<Maintained>,
    /// What the store has entries of, and whether they are complete
    marks: Mutex<BTreeMap<Place, bool>>,
    /// Held by who builds and erases
    tending: Mutex<()>,
    pub(super) wake: Notify,
    /// Ticks when an index is ready
    ready: watch::Sender<u64>,
}

/// What is maintained, by keyspace.
pub(super) struct Maintained {
    functions: Option<&'static dyn IndexFunctions>,
    tables: FxHashMap<TableId, MaintainedTable>,
}

struct MaintainedTable {
    table: Arc<Table>,
    indexes: Vec<MaintainedIndex>,
}

#[derive(Clone)]
struct MaintainedIndex {
    id: IndexId,
    /// Positions of the columns on which entries depend
    columns: Arc<[usize]>,
    /// All rows have their entries
    ready: Arc<AtomicBool>,
}

/// What there is to do beside the statements.
enum Work {
    Erase(Place),
    Build(Arc<Table>, MaintainedIndex),
}

/// Where it is written how far an index is.
fn mark_key((keyspace, index): Place) -> Vec<u8> {
    let mut key = key::table_prefix(TableId(0), IndexId::PRIMARY).to_vec();
    key.extend_from_slice(&key::table_prefix(keyspace, index));
    key
}

fn read_marks(store: &Store) -> Result<BTreeMap<Place, bool>> {
    let range = key::index_range(TableId(0), IndexId::PRIMARY);
    let mut scan = store.scan_plain(Cf::LeaderlessIndex, range, Direction::Forward)?;
    let mut marks = BTreeMap::new();
    while let Some(PlainEntry { key, value }) = scan.next()? {
        let place = key.get(8..).and_then(key::split_prefix);
        let (keyspace, index, _) = place.ok_or_else(|| StorageError::corrupt("a mark of no index"))?;
        marks.insert((keyspace, index), value == [1]);
    }
    Ok(marks)
}

/// Takes all entries and marks out, because the rows are others: they are made anew.
pub(super) fn erase_all(batch: &mut Batch) {
    batch.delete_range(Cf::LeaderlessIndex, &(Vec::new()..vec![0xff; 9]));
}

impl Indexes {
    /// The indexes of the store, as the catalog that is in it names them.
    pub(super) fn open(
        store: &Store,
        functions: Option<&'static dyn IndexFunctions>,
        catalog: &Catalog,
    ) -> Result<Indexes> {
        let marks = read_marks(store)?;
        let indexes = Indexes {
            functions,
            current: ArcSwapOption::empty(),
            marks: Mutex::new(marks),
            tending: Mutex::new(()),
            wake: Notify::new(),
            ready: watch::Sender::new(0),
        };
        indexes.follow(catalog);
        Ok(indexes)
    }

    /// What is maintained now. Under the merge lock.
    pub(super) fn maintained(&self) -> Option<Arc<Maintained>> {
        self.current.load_full()
    }

    /// Maintains what the catalog names. Under the merge lock.
    fn follow(&self, catalog: &Catalog) {
        let leaderless = catalog.tables().filter(|t| !t.is_strong() && !t.indexes.is_empty());
        let tables: Vec<Arc<Table>> = leaderless.cloned().collect();
        let before = self.current.load_full();
        if tables.is_empty() && before.is_none() && self.marks.lock().is_empty() {
            return;
        }
        let marks = self.marks.lock().clone();
        let known = |place: Place| before.as_ref().and_then(|set| set.index(place)).map(|i| i.ready.clone());
        let ready = |place: Place| {
            known(place).unwrap_or_else(|| Arc::new(AtomicBool::new(marks.get(&place) == Some(&true))))
        };
        let next = Maintained::new(self.functions, &tables, ready);
        for index in before.iter().flat_map(|set| set.all()).filter(|(place, _)| next.index(*place).is_none())
        {
            index.1.ready.store(false, Ordering::Release);
        }
        self.current.store((!tables.is_empty()).then(|| Arc::new(next)));
        self.wake.notify_one();
    }

    /// The store's data are others now, without entries. Under the merge lock.
    pub(super) fn installed(&self) {
        self.marks.lock().clear();
        let Some(before) = self.current.load_full() else { return };
        before.all().for_each(|(_, index)| index.ready.store(false, Ordering::Release));
        let tables: Vec<Arc<Table>> = before.tables.values().map(|t| t.table.clone()).collect();
        let next = Maintained::new(self.functions, &tables, |_| Arc::default());
        self.current.store(Some(Arc::new(next)));
        self.wake.notify_one();
    }

    /// Has all entries of some keyspaces made anew, because nobody knows which a row had: says so in the batch that
    /// writes the row. Under the merge lock.
    pub(super) fn renew(&self, keyspaces: &BTreeSet<TableId>, batch: &mut Batch) {
        let Some(before) = self.current.load_full() else { return };
        let mut marks = self.marks.lock();
        for (place, index) in before.all().filter(|(place, _)| keyspaces.contains(&place.0)) {
            index.ready.store(false, Ordering::Release);
            marks.insert(place, false);
            batch.put(Cf::LeaderlessIndex, mark_key(place), [0]);
        }
        drop(marks);
        let tables: Vec<Arc<Table>> = before.tables.values().map(|t| t.table.clone()).collect();
        let kept = |place: Place| before.index(place).filter(|_| !keyspaces.contains(&place.0));
        let ready = |place: Place| kept(place).map(|index| index.ready.clone()).unwrap_or_default();
        self.current.store(Some(Arc::new(Maintained::new(self.functions, &tables, ready))));
        self.wake.notify_one();
    }

    fn next_work(&self) -> Option<Work> {
        let current = self.current.load_full();
        let is_known = |place: &Place| current.as_ref().is_some_and(|set| set.index(*place).is_some());
        if let Some(place) = self.marks.lock().keys().find(|place| !is_known(place)) {
            return Some(Work::Erase(*place));
        }
        let current = current?;
        let unready = |t: &&MaintainedTable| t.indexes.iter().any(|i| current.is_buildable(t, i));
        let table = current.tables.values().find(unready)?;
        let index = table.indexes.iter().find(|i| current.is_buildable(table, i))?;
        Some(Work::Build(table.table.clone(), index.clone()))
    }
}

impl Maintained {
    fn new(
        functions: Option<&'static dyn IndexFunctions>,
        tables: &[Arc<Table>],
        ready: impl Fn(Place) -> Arc<AtomicBool>,
    ) -> Maintained {
        let maintained = |table: &Arc<Table>| {
            let index = |index: &Index| MaintainedIndex {
                id: index.id,
                columns: columns_of(functions, table, index).into(),
                ready: ready((table.keyspace(), index.id)),
            };
            let indexes = table.indexes.iter().map(index).collect();
            (table.keyspace(), MaintainedTable { table: table.clone(), indexes })
        };
        Maintained { functions, tables: tables.iter().map(maintained).collect() }
    }

    fn all(&self) -> impl Iterator<Item = (Place, &MaintainedIndex)> {
        self.tables.iter().flat_map(|(keyspace, t)| t.indexes.iter().map(|i| ((*keyspace, i.id), i)))
    }

    fn index(&self, (keyspace, index): Place) -> Option<&MaintainedIndex> {
        self.tables.get(&keyspace)?.indexes.iter().find(|i| i.id == index)
    }

    fn is_buildable(&self, table: &MaintainedTable, index: &MaintainedIndex) -> bool {
        let computable = || table.table.index(index.id).is_some_and(|i| i.is_plain());
        !index.ready.load(Ordering::Acquire) && (self.functions.is_some() || computable())
    }

    /// True if a row with this key has to be compared with what it was.
    pub(super) fn concerns(&self, row_key: &[u8]) -> bool {
        key::split_prefix(row_key).is_some_and(|(keyspace, ..)| self.tables.contains_key(&keyspace))
    }

    /// Adds to a batch what a row's change makes of entries.
    pub(super) fn stage(&self, batch: &mut Batch, row_key: &[u8], old: &RowState, new: &RowState) {
        let Some((keyspace, ..)) = key::split_prefix(row_key) else { return };
        let Some(MaintainedTable { table, indexes }) = self.tables.get(&keyspace) else { return };
        for maintained in indexes {
            let Some(index) = table.index(maintained.id).filter(|_| maintained.is_touched(table, old, new))
            else {
                continue;
            };
            let entries =
                |state: &RowState| self.entries_of_state((table, index), &maintained.columns, row_key, state);
            let (before, after) = (entries(old), entries(new));
            for (key, _) in before.iter().filter(|(key, _)| !after.contains_key(*key)) {
                batch.delete(Cf::LeaderlessIndex, key);
            }
            for (key, value) in after.iter().filter(|(key, value)| before.get(*key) != Some(value)) {
                batch.put(Cf::LeaderlessIndex, key, value);
            }
        }
    }

    fn entries_of_state(
        &self,
        (table, index): (&Table, &Index),
        columns: &[usize],
        row_key: &[u8],
        state: &RowState,
    ) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let Some(row) = readable_columns(table, state, columns) else { return BTreeMap::new() };
        // What fails has no entry: whoever writes is told before (`check_row`).
        entries_of_row(self.functions, (table, index), row_key, &row).unwrap_or_default()
    }
}

impl MaintainedIndex {
    /// False if both states certainly have the same entries.
    fn is_touched(&self, table: &Table, old: &RowState, new: &RowState) -> bool {
        let mut ids = self.columns.iter().filter_map(|c| Some(table.columns.get(*c)?.id));
        old.is_visible() != new.is_visible() || ids.any(|id| old.cells.get(&id) != new.cells.get(&id))
    }
}

/// Columns on which an index's entries depend.
fn columns_of(functions: Option<&'static dyn IndexFunctions>, table: &Table, index: &Index) -> Vec<usize> {
    let mut columns = match functions {
        Some(functions) => functions.columns(table, index),
        None if !index.is_plain() => (0..table.columns.len()).collect(),
        None => index.columns.iter().chain(&index.include).copied().collect(),
    };
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// The entries of a row in an index.
fn entries_of_row(
    functions: Option<&'static dyn IndexFunctions>,
    (table, index): (&Table, &Index),
    row_key: &[u8],
    row: &Row,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let computed = match (index.is_plain(), functions) {
        (true, _) => Vec::new(),
        (false, None) => {
            let message = format!("nobody here computes the entries of index \"{}\"", index.name);
            return Err(Error::new("XX000", message));
        }
        (false, Some(functions)) => match functions.compute(table, index, row)? {
            Some(computed) => computed,
            None => return Ok(BTreeMap::new()),
        },
    };
    let mut start = key::table_prefix(table.keyspace(), index.id).to_vec();
    let suffix = row_key.get(8..).unwrap_or_default();
    let value = entry_value(table, index, row, row_key)?;
    if index.is_of_elements() {
        let column = index.columns.first().copied().unwrap_or_default();
        let Datum::Array(array) = key::indexed(row, &computed, column) else { return Ok(BTreeMap::new()) };
        let mut entries = BTreeMap::new();
        for element in array.items.iter().filter(|element| !element.is_null()) {
            let mut key = start.clone();
            key::encode_datum(&mut key, element)?;
            key.extend_from_slice(suffix);
            entries.insert(key, value.clone());
        }
        return Ok(entries);
    }
    for (place, &column) in index.columns.iter().enumerate() {
        key::encode_ordered(&mut start, key::indexed(row, &computed, column), index.order(place))?;
    }
    start.extend_from_slice(suffix);
    Ok(BTreeMap::from([(start, value)]))
}

impl Engine {
    /// Maintains the indexes that a catalog names, which is never older than the last. Immediate but for the merge
    /// lock; what is to be built is built in the background.
    pub fn follow_catalog(&self, catalog: &Catalog) -> Result<()> {
        let _lock = self.log.store().merge_lock();
        // Rows that are indexed are never owed to the store: entries and rows are written together.
        self.settle_owed()?;
        self.indexes.follow(catalog);
        Ok(())
    }

    /// Builds and erases whatever is to be. Blocks, for as long as it takes.
    pub fn tend_indexes(&self) -> Result<()> {
        let _one = self.indexes.tending.lock();
        while let Some(work) = self.indexes.next_work() {
            if self.stopped.is_cancelled() {
                return Ok(());
            }
            match work {
                Work::Erase(place) => self.erase_index(place)?,
                Work::Build(table, index) => self.build_index(&table, &index)?,
            }
        }
        Ok(())
    }

    fn erase_index(&self, place: Place) -> Result<()> {
        let _lock = self.log.store().merge_lock();
        // It may have come back meanwhile, by a catalog that this node had not seen.
        if self.indexes.maintained().is_some_and(|set| set.index(place).is_some()) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.delete_range(Cf::LeaderlessIndex, &key::index_range(place.0, place.1));
        batch.delete(Cf::LeaderlessIndex, mark_key(place));
        self.log.store().write(batch)?;
        self.indexes.marks.lock().remove(&place);
        Ok(())
    }

    fn build_index(&self, table: &Arc<Table>, index: &MaintainedIndex) -> Result<()> {
        let (place, store) = ((table.keyspace(), index.id), self.log.store());
        self.mark(place, index, false)?;
        tracing::info!(table = %table.name, index = index.id.0, "building an index of a leaderless table");
        let mut from = key::index_range(place.0, IndexId::PRIMARY);
        loop {
            let lock = store.merge_lock();
            // A change of the catalog since is no harm, but for one that takes the index away.
            let current = self.indexes.maintained();
            let Some(current) = current
                .filter(|set| set.index(place).is_some_and(|now| Arc::ptr_eq(&now.ready, &index.ready)))
            else {
                return Ok(());
            };
            let Some(last) = self.build_part(&current, place, &from)? else { break };
            from.start = last;
            // A key is its own successor with a zero behind it.
            from.start.push(0);
            parking_lot::MutexGuard::unlock_fair(lock);
            if self.stopped.is_cancelled() {
                return Ok(());
            }
        }
        self.mark(place, index, true)
    }

    /// Writes the entries of the first rows of a range, and returns the last of them; `None` if there are none.
    /// Under the merge lock.
    fn build_part(
        &self,
        current: &Maintained,
        (keyspace, id): Place,
        range: &Range<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>> {
        let store = self.log.store();
        let Some(MaintainedTable { table, indexes }) = current.tables.get(&keyspace) else { return Ok(None) };
        let (Some(index), Some(known)) = (table.index(id), indexes.iter().find(|i| i.id == id)) else {
            return Ok(None);
        };
        let (mut batch, mut last, mut rows, mut bytes) = (Batch::new(), None, 0, 0);
        let mut scan = store.scan_plain(Cf::Leaderless, range.clone(), Direction::Forward)?;
        while rows < BUILD_ROWS && bytes < BUILD_BYTES {
            let Some(PlainEntry { key, value }) = scan.next()? else { break };
            let state = stored_row::sound(key, value)?;
            for (key, value) in current.entries_of_state((table, index), &known.columns, key, &state) {
                batch.put(Cf::LeaderlessIndex, key, value);
            }
            rows += 1;
            bytes += value.len();
            last = Some(key.to_vec());
        }
        store.write(batch)?;
        Ok(last)
    }

    /// Writes how far an index is. One that begins has no entries but those that are written from now on.
    fn mark(&self, place: Place, index: &MaintainedIndex, ready: bool) -> Result<()> {
        let _lock = self.log.store().merge_lock();
        let is_same =
            |set: Arc<Maintained>| set.index(place).is_some_and(|now| Arc::ptr_eq(&now.ready, &index.ready));
        if !self.indexes.maintained().is_some_and(is_same) {
            return Ok(());
        }
        let mut batch = Batch::new();
        if !ready {
            batch.delete_range(Cf::LeaderlessIndex, &key::index_range(place.0, place.1));
        }
        batch.put(Cf::LeaderlessIndex, mark_key(place), [u8::from(ready)]);
        self.log.store().write(batch)?;
        self.indexes.marks.lock().insert(place, ready);
        index.ready.store(ready, Ordering::Release);
        self.indexes.ready.send_modify(|n| *n = n.wrapping_add(1));
        Ok(())
    }

    /// True if the index has the entries of all rows.
    fn is_ready(&self, place: Place) -> bool {
        let current = self.indexes.current.load();
        current.as_ref().and_then(|set| set.index(place)).is_some_and(|i| i.ready.load(Ordering::Acquire))
    }

    /// Waits until the indexes of a table are ready, or gone.
    pub async fn indexes_ready(&self, table: &Table) {
        let keyspace = table.keyspace();
        let mut news = self.indexes.ready.subscribe();
        let unready = |index: &Index| {
            let current = self.indexes.current.load();
            let known = current.as_ref().and_then(|set| set.index((keyspace, index.id)));
            known.is_some_and(|i| !i.ready.load(Ordering::Acquire))
        };
        while table.indexes.iter().any(unready) {
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                () = self.stopped.cancelled() => return,
            }
        }
    }

    /// Rows and entries as they are now, if the index has the entries of all rows.
    pub(crate) fn index_snapshot(&self, table: &Table, index: IndexId) -> Option<PlainSnapshot> {
        let place = (table.keyspace(), index);
        if !self.is_ready(place) {
            return None;
        }
        let snapshot = self.log.store().plain_snapshot();
        // An index that is given up is not ready before its entries go.
        self.is_ready(place).then_some(snapshot)
    }

    /// The entries of a row as SQL sees it.
    pub(crate) fn index_entries(
        &self,
        table: &Table,
        index: &Index,
        row_key: &[u8],
        row: &Row,
    ) -> Result<Vec<Entry>> {
        Ok(entries_of_row(self.indexes.functions, (table, index), row_key, row)?.into_iter().collect())
    }

    /// Fails if a row that a statement writes cannot be indexed.
    pub(crate) fn check_row(&self, table: &Table, row_key: &[u8], row: &Row) -> Result<()> {
        table.indexes.iter().try_for_each(|index| {
            entries_of_row(self.indexes.functions, (table, index), row_key, row).map(|_| ())
        })
    }

    /// The entries of a stored row.
    pub(crate) fn index_entries_of_state(
        &self,
        table: &Table,
        index: &Index,
        row_key: &[u8],
        state: &RowState,
    ) -> Vec<Entry> {
        let columns = columns_of(self.indexes.functions, table, index);
        let Some(row) = readable_columns(table, state, &columns) else { return Vec::new() };
        let entries = entries_of_row(self.indexes.functions, (table, index), row_key, &row);
        entries.unwrap_or_default().into_iter().collect()
    }

    /// Compares an index with the rows: entries that there should be, entries that there are, and how many of both
    /// are not the other's. `None` if it is not ready. Blocks for as long as it takes to read the table.
    pub fn compare_index(&self, table: &Table, index: IndexId) -> Result<Option<(usize, usize, usize)>> {
        let (Some(snapshot), Some(known)) = (self.index_snapshot(table, index), table.index(index)) else {
            return Ok(None);
        };
        let mut expected = BTreeSet::new();
        let rows = key::index_range(table.keyspace(), IndexId::PRIMARY);
        let mut scan = snapshot.scan(Cf::Leaderless, rows, Direction::Forward)?;
        while let Some(PlainEntry { key, value }) = scan.next()? {
            expected.extend(self.index_entries_of_state(table, known, key, &stored_row::sound(key, value)?));
        }
        let mut found = BTreeSet::new();
        let entries = key::index_range(table.keyspace(), index);
        let mut scan = snapshot.scan(Cf::LeaderlessIndex, entries, Direction::Forward)?;
        while let Some(PlainEntry { key, value }) = scan.next()? {
            found.insert((key.to_vec(), value.to_vec()));
        }
        let differing = expected.symmetric_difference(&found).count();
        Ok(Some((expected.len(), found.len(), differing)))
    }
}

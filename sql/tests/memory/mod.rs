//! A replication floor in memory, for tests of this one: one node, whole copies instead of versions.
//!
//! A transaction works on its own copy of everything. A commit puts the copy in place, unless another
//! commit came in between: then it must be run again. That is cruder than the real thing and as strict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use amphora_replication::{
    Access, ClusterStatus, Direction, Engine, Error, IndexFunctions, InsertOutcome, KeyBound, KeyRange,
    LockMode, NodeId, OnConflict, Result, RowStream, SavepointId, Scan, SequenceGrant, Sequences, StoredRow,
    Transaction, TransactionOptions, WaitPolicy,
};
use amphora_storage::schema::{
    Catalog, Column, Descriptor, Index, IndexId, Sequence, SequenceState, Table, TableId,
};
use amphora_storage::{Datum, Row, Timestamp};
use async_trait::async_trait;
use parking_lot::Mutex;

type Rows = Arc<BTreeMap<Vec<Datum>, Row>>;

/// Everything there is.
#[derive(Clone)]
struct State {
    version: u64,
    catalog: Arc<Catalog>,
    rows: BTreeMap<TableId, Rows>,
    next_id: u32,
}

struct Shared {
    state: Mutex<State>,
    unique: AtomicI64,
    /// Outside of transactions, restarts too: cruder than the real thing
    sequences: Mutex<BTreeMap<TableId, SequenceState>>,
}

#[async_trait]
impl Sequences for Shared {
    async fn next(&self, sequence: &Sequence, count: u32) -> Result<SequenceGrant> {
        let mut states = self.sequences.lock();
        let state = states.get_mut(&sequence.id).ok_or_else(|| Error::new("42P01", "no such sequence"))?;
        let values = state.take(count).map_err(|end| {
            let what = if end.at_max { "maximum" } else { "minimum" };
            let message =
                format!("nextval: reached {what} value of sequence \"{}\" ({})", sequence.name, end.bound);
            Error::new("2200H", message)
        })?;
        Ok(SequenceGrant { values, generation: 0 })
    }

    async fn give_back(&self, id: TableId, rest: SequenceGrant) -> Result<()> {
        if let Some(state) = self.sequences.lock().get_mut(&id) {
            state.last = rest.values.first - rest.values.step;
        }
        Ok(())
    }

    async fn set(&self, sequence: &Sequence, value: i64, called: bool) -> Result<()> {
        if !(sequence.min..=sequence.max).contains(&value) {
            let message = format!(
                "setval: value {value} is out of bounds for sequence \"{}\" ({}..{})",
                sequence.name, sequence.min, sequence.max
            );
            return Err(Error::new("22003", message));
        }
        if let Some(state) = self.sequences.lock().get_mut(&sequence.id) {
            (state.last, state.called) = (value, called);
        }
        Ok(())
    }

    async fn read(&self, sequence: &Sequence) -> Result<(SequenceState, u32)> {
        let states = self.sequences.lock();
        let state = states.get(&sequence.id).ok_or_else(|| Error::new("42P01", "no such sequence"))?;
        // PostgreSQL's first value logs 32 more.
        Ok((*state, if state.called { 32 } else { 0 }))
    }
}

/// The engine.
#[derive(Clone)]
pub struct MemoryEngine(Arc<Shared>);

impl MemoryEngine {
    pub fn new() -> MemoryEngine {
        let state = State {
            version: 1,
            catalog: Arc::new(Catalog::default()),
            rows: BTreeMap::new(),
            next_id: TableId::FIRST_USER.0,
        };
        MemoryEngine(Arc::new(Shared {
            state: Mutex::new(state),
            unique: AtomicI64::new(1),
            sequences: Mutex::default(),
        }))
    }
}

impl Engine for MemoryEngine {
    fn begin(&self, options: TransactionOptions) -> Box<dyn Transaction> {
        let state = self.0.state.lock().clone();
        Box::new(MemoryTransaction {
            shared: self.0.clone(),
            options,
            base: state.version,
            statement: state.clone(),
            state,
            savepoints: Vec::new(),
            dirty: false,
            held: None,
            see_all: false,
        })
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.0.state.lock().catalog.clone()
    }

    fn unique_id(&self) -> i64 {
        self.0.unique.fetch_add(1, Ordering::Relaxed)
    }

    fn node_id(&self) -> NodeId {
        1
    }

    fn temp_dir(&self) -> Option<std::path::PathBuf> {
        Some(std::env::temp_dir())
    }

    fn status(&self) -> ClusterStatus {
        ClusterStatus::default()
    }
}

struct MemoryTransaction {
    shared: Arc<Shared>,
    options: TransactionOptions,
    /// The version the copy was taken at
    base: u64,
    state: State,
    /// The state when the statement began
    statement: State,
    savepoints: Vec<State>,
    dirty: bool,
    /// What reads see, while that is not the state
    held: Option<State>,
    see_all: bool,
}

struct Batches(std::vec::IntoIter<StoredRow>);

impl RowStream for Batches {
    fn next_batch(&mut self, limit: usize, out: &mut Vec<StoredRow>) -> Result<usize> {
        let before = out.len();
        out.extend(self.0.by_ref().take(limit));
        Ok(out.len() - before)
    }
}

fn stored(row: &Row) -> StoredRow {
    StoredRow { row: row.clone(), version: Timestamp(1) }
}

/// What an index has for a row; `None` if it has no entry.
fn values(table: &Table, index: &Index, row: &[Datum]) -> Option<Vec<Datum>> {
    let computed = match index.is_plain() {
        true => Vec::new(),
        false => amphora_sql::index::SQL_INDEXES.compute(table, index, row).ok()??,
    };
    Some(index.columns.iter().map(|&c| amphora_storage::key::indexed(row, &computed, c).clone()).collect())
}

/// The key of a row's entry, by which a scan orders rows.
fn position(table: &Table, index: &Index, row: &[Datum]) -> Vec<u8> {
    let mut key = Vec::new();
    for (place, datum) in values(table, index, row).unwrap_or_default().iter().enumerate() {
        amphora_storage::key::encode_ordered(&mut key, datum, index.order(place)).unwrap();
    }
    key
}

fn inside(index: &Index, range: &KeyRange, key: &[Datum]) -> bool {
    let (prefix, rest) = key.split_at(range.prefix.len());
    let next = rest.first();
    let nulls_low = index.order(range.prefix.len()).nulls_low();
    prefix == range.prefix
        && match (&range.lower, next) {
            (KeyBound::Unbounded, _) => true,
            (_, Some(Datum::Null)) if nulls_low => false,
            (KeyBound::Included(b), Some(v)) => v >= b,
            (KeyBound::Excluded(b), Some(v)) => v > b,
            _ => false,
        }
        && match (&range.upper, next) {
            (KeyBound::Unbounded, _) => true,
            (_, Some(Datum::Null)) => nulls_low,
            (KeyBound::Included(b), Some(v)) => v <= b,
            (KeyBound::Excluded(b), Some(v)) => v < b,
            _ => false,
        }
}

impl MemoryTransaction {
    fn table(&mut self, id: TableId) -> &mut BTreeMap<Vec<Datum>, Row> {
        self.dirty = true;
        Arc::make_mut(self.state.rows.entry(id).or_default())
    }

    fn find(&self, table: &Table, index: &Index, wanted: &[Datum]) -> Option<Row> {
        if wanted.iter().any(Datum::is_null) && !index.nulls_not_distinct {
            return None;
        }
        let rows = self.state.rows.get(&table.keyspace())?;
        rows.values().find(|row| values(table, index, row).is_some_and(|key| key == wanted)).cloned()
    }

    fn taken(&self, table: &Table, row: &Row) -> Option<(Index, Row)> {
        table
            .all_indexes()
            .filter(|i| i.unique)
            .find_map(|i| self.find(table, i, &values(table, i, row)?).map(|old| (i.clone(), old)))
    }
}

fn duplicated(table: &Table, index: &Index, row: &Row) -> Error {
    let mut error = duplicate(table, index, row);
    error.message = format!("could not create unique index \"{}\"", index.name);
    error.detail = error.detail.map(|d| d.replace("already exists", "is duplicated").into());
    error
}

fn duplicate(table: &Table, index: &Index, row: &Row) -> Error {
    let names = amphora_sql::index::SQL_INDEXES.names(table, index);
    let shown: Vec<String> = values(table, index, row)
        .unwrap_or_default()
        .iter()
        .zip(&index.columns)
        .map(|(v, &c)| match (v, index.type_of(table, c)) {
            (Datum::Null, _) | (_, None) => "null".into(),
            (v, Some(ty)) => amphora_sql::types::to_text(v, ty, &Default::default()),
        })
        .collect();
    let mut error =
        Error::new("23505", format!("duplicate key value violates unique constraint \"{}\"", index.name))
            .detail(format!("Key ({})=({}) already exists.", names.join(", "), shown.join(", ")));
    error.constraint = Some(index.name.clone().into());
    error.table = Some(table.name.clone().into());
    error
}

#[async_trait]
impl Transaction for MemoryTransaction {
    fn catalog(&self) -> Arc<Catalog> {
        self.state.catalog.clone()
    }

    async fn refresh_catalog(&mut self) {
        if !self.dirty {
            self.state = self.shared.state.lock().clone();
            self.base = self.state.version;
        }
    }

    async fn begin_statement(&mut self, _: Access, tables: &[Arc<Table>]) -> Result<()> {
        use amphora_replication::IsolationLevel::ReadCommitted;
        if !self.dirty && self.options.isolation == ReadCommitted {
            self.refresh_catalog().await;
        }
        for table in tables {
            match self.state.catalog.table_by_id(table.id) {
                Some(now) if now == table => {}
                _ => return Err(Error::catalog_moved()),
            }
        }
        self.statement = self.state.clone();
        self.held = None;
        self.see_all = false;
        Ok(())
    }

    async fn restart_statement(&mut self) -> Result<()> {
        self.state = self.shared.state.lock().clone();
        self.base = self.state.version;
        self.statement = self.state.clone();
        self.dirty = false;
        self.held = None;
        self.see_all = false;
        Ok(())
    }

    fn rollback_statement(&mut self) {
        self.state = self.statement.clone();
    }

    fn get(&self, table: &Arc<Table>, key: &[Datum]) -> Result<Option<StoredRow>> {
        let state = self.held.as_ref().filter(|_| !self.see_all).unwrap_or(&self.state);
        Ok(state.rows.get(&table.keyspace()).and_then(|rows| rows.get(key)).map(stored))
    }

    fn hold_reads(&mut self, hold: bool) {
        self.held = hold.then(|| self.state.clone());
    }

    fn see_all(&mut self, all: bool) {
        self.see_all = all;
    }

    fn scan(&self, scan: &Scan) -> Result<Box<dyn RowStream>> {
        let Some(index) = scan.table.index(scan.index) else {
            return Err(Error::new("XX000", "no such index"));
        };
        let state = self.held.as_ref().filter(|_| !self.see_all).unwrap_or(&self.state);
        let rows = state.rows.get(&scan.table.keyspace()).cloned().unwrap_or_default();
        let mut found: Vec<&Row> = rows
            .values()
            .filter(|row| values(&scan.table, index, row).is_some_and(|key| inside(index, &scan.range, &key)))
            .collect();
        found.sort_by_key(|row| position(&scan.table, index, row));
        if scan.direction == Direction::Backward {
            found.reverse();
        }
        let read = |row: &Row| match &scan.columns {
            None => stored(row),
            Some(columns) => {
                let mut part = vec![Datum::Null; row.len()];
                for &c in columns.iter() {
                    part[c] = row[c].clone();
                }
                stored(&part)
            }
        };
        let found: Vec<StoredRow> = found.into_iter().map(read).collect();
        Ok(Box::new(Batches(found.into_iter())))
    }

    async fn insert(
        &mut self,
        table: &Arc<Table>,
        rows: Vec<Row>,
        on_conflict: OnConflict,
    ) -> Result<Vec<InsertOutcome>> {
        let mut outcomes = Vec::new();
        for mut row in rows {
            if table.hidden_key
                && let Some(last) = row.last_mut()
            {
                *last = Datum::Int8(self.shared.unique.fetch_add(1, Ordering::Relaxed));
            }
            if let Some((index, old)) = self.taken(table, &row) {
                match on_conflict {
                    OnConflict::Report(wanted) if wanted.is_none_or(|w| w == index.id) => {
                        outcomes.push(InsertOutcome::Conflict(stored(&old)));
                        continue;
                    }
                    _ => return Err(duplicate(table, &index, &row)),
                }
            }
            self.table(table.keyspace()).insert(table.key_of(&row), row);
            outcomes.push(InsertOutcome::Inserted);
        }
        Ok(outcomes)
    }

    async fn update(&mut self, table: &Arc<Table>, changes: Vec<(StoredRow, Row)>) -> Result<()> {
        for (old, _) in &changes {
            self.table(table.keyspace()).remove(&table.key_of(&old.row));
        }
        for (_, new) in changes {
            if let Some((index, _)) = self.taken(table, &new) {
                return Err(duplicate(table, &index, &new));
            }
            self.table(table.keyspace()).insert(table.key_of(&new), new);
        }
        Ok(())
    }

    async fn delete(&mut self, table: &Arc<Table>, rows: Vec<StoredRow>) -> Result<()> {
        for old in rows {
            self.table(table.keyspace()).remove(&table.key_of(&old.row));
        }
        Ok(())
    }

    async fn lock_rows(
        &mut self,
        _: &Arc<Table>,
        rows: &[StoredRow],
        _: LockMode,
        _: WaitPolicy,
    ) -> Result<Vec<bool>> {
        Ok(vec![true; rows.len()])
    }

    fn lock_before_writing(&mut self) {}

    fn find_keys(&self, table: &Arc<Table>, index: IndexId, keys: &[Vec<Datum>]) -> Result<Vec<bool>> {
        let Some(index) = table.index(index) else { return Err(Error::new("XX000", "no such index")) };
        Ok(keys.iter().map(|key| self.find(table, index, key).is_some()).collect())
    }

    async fn hold_keys(
        &mut self,
        parent: &Arc<Table>,
        index: IndexId,
        keys: &[Vec<Datum>],
    ) -> Result<Vec<bool>> {
        self.find_keys(parent, index, keys)
    }

    async fn seize_keys(&mut self, _: &Arc<Table>, _: IndexId, _: &[Vec<Datum>]) -> Result<()> {
        Ok(())
    }

    fn depend_on(&mut self, _: &Arc<Table>) -> Result<()> {
        Ok(())
    }

    async fn lock_catalog(&mut self) -> Result<()> {
        self.refresh_catalog().await;
        Ok(())
    }

    async fn lock_table(&mut self, _: &Arc<Table>) -> Result<()> {
        Ok(())
    }

    fn allocate_id(&mut self) -> Result<TableId> {
        self.dirty = true;
        self.state.next_id += 1;
        Ok(TableId(self.state.next_id))
    }

    fn put_object(&mut self, object: Descriptor) -> Result<()> {
        self.dirty = true;
        if let Descriptor::Table(new) = &object
            && let Some(old) = self.state.catalog.table_by_id(new.id).cloned()
            && old.keyspace() == new.keyspace()
            && old.columns != new.columns
        {
            // The real thing reads rows by column; here they are as wide as their table.
            let read = |row: &Row| -> Row {
                let place = |id| old.columns.iter().position(|c| c.id == id);
                let value = |c: &Column| place(c.id).map_or_else(|| c.missing.clone(), |p| row[p].clone());
                new.columns.iter().map(value).collect()
            };
            let rows = self.table(new.keyspace());
            *rows = rows.iter().map(|(key, row)| (key.clone(), read(row))).collect();
        }
        Arc::make_mut(&mut self.state.catalog).put_object(object);
        Ok(())
    }

    fn drop_object(&mut self, id: TableId) -> Result<()> {
        self.dirty = true;
        Arc::make_mut(&mut self.state.catalog).remove(id);
        Ok(())
    }

    fn drop_table(&mut self, id: TableId) -> Result<()> {
        self.dirty = true;
        let catalog = Arc::make_mut(&mut self.state.catalog);
        if let Some(table) = catalog.table_by_id(id) {
            self.state.rows.remove(&table.keyspace());
        }
        catalog.remove(id);
        Ok(())
    }

    fn load_rows(&mut self, table: &Arc<Table>, rows: Vec<Row>) -> Result<()> {
        for mut row in rows {
            if table.hidden_key {
                row.truncate(table.columns.len() - 1);
                row.push(Datum::Int8(self.shared.unique.fetch_add(1, Ordering::Relaxed)));
            }
            if let Some((index, _)) = self.taken(table, &row) {
                return Err(duplicated(table, &index, &row));
            }
            self.table(table.keyspace()).insert(table.key_of(&row), row);
        }
        Ok(())
    }

    async fn write_sequence(&mut self, id: TableId, state: Option<SequenceState>) -> Result<()> {
        let mut states = self.shared.sequences.lock();
        match state {
            Some(state) => states.insert(id, state),
            None => states.remove(&id),
        };
        Ok(())
    }

    fn sequences(&self) -> Arc<dyn Sequences> {
        self.shared.clone()
    }

    fn build_index(&mut self, table: &Arc<Table>, index: IndexId) -> Result<()> {
        let Some(index) = table.index(index).filter(|i| i.unique) else { return Ok(()) };
        let rows = self.state.rows.get(&table.keyspace()).cloned().unwrap_or_default();
        let mut seen = std::collections::BTreeSet::new();
        for row in rows.values() {
            let Some(key) = values(table, index, row) else { continue };
            if (index.nulls_not_distinct || key.iter().all(|v| !v.is_null())) && !seen.insert(key) {
                return Err(duplicated(table, index, row));
            }
        }
        Ok(())
    }

    fn savepoint(&mut self) -> SavepointId {
        self.savepoints.push(self.state.clone());
        SavepointId(self.savepoints.len() - 1)
    }

    fn rollback_to(&mut self, savepoint: SavepointId) -> Result<()> {
        self.savepoints.truncate(savepoint.0 + 1);
        self.state = self.savepoints[savepoint.0].clone();
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        !self.dirty
    }

    async fn commit(&mut self) -> Result<()> {
        if !self.dirty {
            return Ok(());
        }
        let mut shared = self.shared.state.lock();
        if shared.version != self.base {
            return Err(if self.options.autocommit { Error::restart() } else { Error::serialization() });
        }
        let mut state = self.state.clone();
        state.version += 1;
        let mut catalog = (*state.catalog).clone();
        catalog.version = Timestamp(state.version);
        state.catalog = Arc::new(catalog);
        *shared = state;
        Ok(())
    }

    async fn rollback(&mut self) {
        self.dirty = false;
    }
}

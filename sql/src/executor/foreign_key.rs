//! Foreign keys at work: what an INSERT, UPDATE or DELETE means for the tables around its own.
//!
//! A statement notes what it does to rows that refer, or are referred to, and when all is written the notes
//! are worked off, in PostgreSQL's order: change by change, and for each the keys in the order in which they
//! were made. What an action writes is a change like any other and goes to the end of the queue, so a
//! cascade as long as a chain of rows needs no deep stack.
//!
//! ```text
//!   DELETE FROM p ──► queue: [p: rows gone]
//!                        │ c refers to p, ON DELETE CASCADE: lock p's keys, read c's rows, delete them
//!                        ▼
//!                     queue: [c: rows gone]     … until it is empty
//!                        ▼
//!                     keys that new rows refer to: are they there?
//! ```
//!
//! Keys are looked up and locked many at a time, never row by row. How locks and snapshots keep both sides
//! honest is told in `replication/src/transaction/references.rs`. Values are compared as keys compare: the
//! binder lets columns refer to each other only where their encodings agree.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use amphora_replication::{Direction, KeyRange, Scan, StoredRow, Transaction};
use amphora_storage::schema::{Catalog, ForeignKey, Index, IndexId, ReferentialAction, Table, TableId};
use amphora_storage::{Datum, Row, key};
use parking_lot::Mutex;

use super::guard::{Held, row_memory};
use super::write::{Constraints, shown};
use super::{BATCH, Builder, Expression, Runtime, blocking};
use crate::error::{Result, SqlError};
use crate::frontend::PlannerContext;

/// Keys looked up and locked at a time.
const KEY_BATCH: usize = 4_096;

/// Keys whose checks a transaction may put off.
const MAX_DEFERRED: usize = 1_000_000;

/// A key's values, in the order of the foreign key's columns.
type Key = Vec<Datum>;

/// A key as it compares: its encoding.
type EncodedKey = Vec<u8>;

fn encoded(key: &[Datum]) -> Result<EncodedKey> {
    let mut out = Vec::with_capacity(key.len() * 10);
    for value in key {
        key::encode_datum(&mut out, value).map_err(amphora_replication::Error::from)?;
    }
    Ok(out)
}

/// Keys of one constraint that are to be looked at, and whether a parent went (else a child came).
type Waiting = BTreeMap<EncodedKey, (Key, bool)>;

/// Different keys in the order in which the statement met them: the first one that is wrong is reported.
#[derive(Debug, Default)]
struct Keys {
    list: Vec<Key>,
    places: HashMap<EncodedKey, usize>,
}

impl Keys {
    /// True if it was not there.
    fn insert(&mut self, key: Key) -> Result<bool> {
        match self.places.entry(encoded(&key)?) {
            Entry::Occupied(_) => Ok(false),
            Entry::Vacant(slot) => {
                slot.insert(self.list.len());
                self.list.push(key);
                Ok(true)
            }
        }
    }

    fn place(&self, key: &[u8]) -> Option<usize> {
        self.places.get(key).copied()
    }

    /// Keeps the keys whose flag is false.
    fn without(self, flags: &[bool]) -> Result<Keys> {
        let mut left = Keys::default();
        for (key, _) in self.list.into_iter().zip(flags).filter(|(_, flag)| !**flag) {
            left.insert(key)?;
        }
        Ok(left)
    }
}

/// Checks that wait for COMMIT, and what SET CONSTRAINTS said.
#[derive(Debug, Default)]
pub struct Deferred {
    /// SET CONSTRAINTS ALL
    all: Option<bool>,
    /// SET CONSTRAINTS of single ones, by OID
    single: HashMap<u32, bool>,
    /// By constraint: keys to look at, and whether a parent went (else a child came)
    waiting: BTreeMap<u32, Waiting>,
    count: usize,
}

/// What the statements of a transaction share about it.
pub type SharedDeferred = Arc<Mutex<Deferred>>;

impl Deferred {
    fn is_deferred(&self, key: &ForeignKey) -> bool {
        key.deferrable && self.single.get(&key.oid).copied().or(self.all).unwrap_or(key.deferred)
    }

    /// SET CONSTRAINTS ALL
    pub fn set_all(&mut self, deferred: bool) {
        self.all = Some(deferred);
        self.single.clear();
    }

    /// SET CONSTRAINTS of one, by OID.
    pub fn set(&mut self, oid: u32, deferred: bool) {
        self.single.insert(oid, deferred);
    }

    /// True if COMMIT has nothing to check.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets what waits: the statement that said so is run again.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.count = 0;
    }

    fn put_off(&mut self, oid: u32, key: Key, parent_went: bool) -> Result<()> {
        if self.count >= MAX_DEFERRED {
            return Err(SqlError::program_limit_exceeded("too many deferred foreign key checks")
                .with_detail(format!("A transaction may put off the checks of {MAX_DEFERRED} keys."))
                .with_hint("Commit more often, or SET CONSTRAINTS ALL IMMEDIATE."));
        }
        let keys = self.waiting.entry(oid).or_default();
        if keys.insert(encoded(&key)?, (key, parent_went)).is_none() {
            self.count += 1;
        }
        Ok(())
    }
}

/// A foreign key, with its columns found.
struct Reference {
    child: Arc<Table>,
    parent: Arc<Table>,
    key: ForeignKey,
    /// Positions in the child
    columns: Vec<usize>,
    /// Positions in the parent, in the same order
    parent_columns: Vec<usize>,
    /// The parent's unique index
    index: IndexId,
    /// For each of the index's columns, which column of the key it is
    order: Vec<usize>,
}

impl Reference {
    fn new(catalog: &Catalog, child: &Arc<Table>, key: &ForeignKey) -> Result<Reference> {
        let broken = || SqlError::internal(format!("foreign key \"{}\" refers to nothing", key.name));
        let parent = catalog.table_by_id(key.parent).ok_or_else(broken)?;
        let columns = child.positions(&key.columns).ok_or_else(broken)?;
        let parent_columns = parent.positions(&key.parent_columns).ok_or_else(broken)?;
        let order_of = |index: &Index| -> Option<Vec<usize>> {
            let place = |c: &usize| parent_columns.iter().position(|p| p == c);
            let order: Option<Vec<usize>> = index.columns.iter().map(place).collect();
            order.filter(|order| index.is_key() && order.len() == parent_columns.len())
        };
        let (index, order) =
            parent.all_indexes().find_map(|i| Some((i.id, order_of(i)?))).ok_or_else(broken)?;
        Ok(Reference {
            child: child.clone(),
            parent: parent.clone(),
            key: key.clone(),
            columns,
            parent_columns,
            index,
            order,
        })
    }

    fn in_index_order(&self, key: &[Datum]) -> Key {
        self.order.iter().map(|&i| key[i].clone()).collect()
    }

    fn all_in_index_order<'k>(&self, keys: impl Iterator<Item = &'k Key>) -> Vec<Key> {
        keys.map(|key| self.in_index_order(key)).collect()
    }

    /// What a child's row refers to; `None` if it refers to nothing. 23503
    fn child_key(&self, row: &[Datum]) -> Result<Option<Key>> {
        let key: Key = self.columns.iter().map(|&c| row[c].clone()).collect();
        let nulls = key.iter().filter(|v| v.is_null()).count();
        if nulls == 0 {
            return Ok(Some(key));
        }
        if self.key.match_full && nulls < key.len() {
            return Err(self
                .child_violation()
                .with_detail("MATCH FULL does not allow mixing of null and nonnull key values."));
        }
        Ok(None)
    }

    /// What a parent's row can be referred to by; `None` if by nothing.
    fn parent_key(&self, row: &[Datum]) -> Option<Key> {
        let key: Key = self.parent_columns.iter().map(|&c| row[c].clone()).collect();
        (!key.iter().any(Datum::is_null)).then_some(key)
    }

    fn child_violation(&self) -> SqlError {
        SqlError::foreign_key_violation(format!(
            "insert or update on table \"{}\" violates foreign key constraint \"{}\"",
            self.child.name, self.key.name
        ))
        .with_table(&self.child.schema, &self.child.name)
        .with_constraint(&self.key.name)
    }

    fn absent(&self, key: &[Datum], run: &Runtime) -> SqlError {
        self.child_violation().with_detail(format!(
            "Key {} is not present in table \"{}\".",
            self.shown(&self.child, &self.columns, key, run),
            self.parent.name
        ))
    }

    fn still_referenced(&self, key: &[Datum], run: &Runtime) -> SqlError {
        SqlError::foreign_key_violation(format!(
            "update or delete on table \"{}\" violates foreign key constraint \"{}\" on table \"{}\"",
            self.parent.name, self.key.name, self.child.name
        ))
        .with_detail(format!(
            "Key {} is still referenced from table \"{}\".",
            self.shown(&self.parent, &self.parent_columns, key, run),
            self.child.name
        ))
        .with_table(&self.child.schema, &self.child.name)
        .with_constraint(&self.key.name)
    }

    /// `(a, b)=(1, 2)`
    fn shown(&self, table: &Table, columns: &[usize], key: &[Datum], run: &Runtime) -> String {
        let names: Vec<&str> = columns.iter().map(|&c| table.columns[c].name.as_str()).collect();
        let values: Vec<String> = columns
            .iter()
            .zip(key)
            .map(|(&c, v)| shown(v, &table.columns[c].ty.base(), &run.eval.format))
            .collect();
        format!("({})=({})", names.join(", "), values.join(", "))
    }

    /// The children that refer to these keys, each with its key's place; with `only_first` perhaps not all, but
    /// some of the first key that has any. Reads through an index that begins with the
    /// key's columns if there is one, and the whole table once if not.
    fn children(
        &self,
        txn: &dyn Transaction,
        run: &Runtime,
        keys: &Keys,
        only_first: bool,
    ) -> Result<Vec<(usize, StoredRow)>> {
        let mut found = Vec::new();
        let mut held = Held::default();
        let mut batch = Vec::new();
        let limit = if only_first { 1 } else { BATCH };
        let mut scan = |index: IndexId, prefix: Key, found: &mut Vec<(usize, StoredRow)>| {
            let scan = Scan {
                table: self.child.clone(),
                index,
                range: KeyRange::prefix(prefix),
                direction: Direction::Forward,
                columns: None,
            };
            let mut rows = txn.scan(&scan)?;
            while rows.next_batch(if index == IndexId::PRIMARY { BATCH } else { limit }, &mut batch)? > 0 {
                run.guard.check()?;
                for stored in batch.drain(..) {
                    let values: Key = self.columns.iter().map(|&c| stored.row[c].clone()).collect();
                    if values.iter().any(Datum::is_null) {
                        continue;
                    }
                    if let Some(place) = keys.place(&encoded(&values)?) {
                        held.add(&run.guard, &stored.row)?;
                        found.push((place, stored));
                    }
                }
                if only_first && found.iter().any(|(place, _)| *place == 0) {
                    break;
                }
            }
            Ok::<(), SqlError>(())
        };
        match self.child_index() {
            None => scan(IndexId::PRIMARY, Vec::new(), &mut found)?,
            Some((index, order)) => {
                for values in &keys.list {
                    scan(index, order.iter().map(|&i| values[i].clone()).collect(), &mut found)?;
                    if only_first && !found.is_empty() {
                        break;
                    }
                }
            }
        }
        held.release(&run.guard);
        Ok(found)
    }

    /// A default that is the very key that is gone: the row refers to it as before. 23503
    fn check_defaults(
        &self,
        changes: &[(StoredRow, Row)],
        txn: &dyn Transaction,
        run: &Runtime,
    ) -> Result<()> {
        let same = |(old, new): &&(StoredRow, Row)| self.columns.iter().all(|&c| old.row[c] == new[c]);
        for (old, _) in changes.iter().filter(same) {
            let key: Key = self.columns.iter().map(|&c| old.row[c].clone()).collect();
            if txn.find_keys(&self.parent, self.index, &[self.in_index_order(&key)])? == [false] {
                return Err(self.still_referenced(&key, run));
            }
        }
        Ok(())
    }

    /// An index of the child whose first columns are the key's, and their order in it.
    fn child_index(&self) -> Option<(IndexId, Vec<usize>)> {
        self.child.all_indexes().find_map(|index| {
            let first = index.columns.get(..self.columns.len()).filter(|_| index.predicate.is_none())?;
            let place = |c: &usize| self.columns.iter().position(|own| own == c);
            Some((index.id, first.iter().map(place).collect::<Option<Vec<usize>>>()?))
        })
    }
}

/// A row before and after; `None` where there is none.
type Change = (Option<Row>, Option<Row>);

/// What a statement did to a table that takes part in foreign keys.
struct Work {
    table: Arc<Table>,
    changes: Vec<Change>,
}

/// The foreign keys that a statement has to keep.
pub(crate) struct Enforcer {
    catalog: Arc<Catalog>,
    deferred: SharedDeferred,
    /// The table written has foreign keys, or is referred to
    refers: bool,
    referenced: bool,
    queue: VecDeque<Work>,
    held: Held,
    references: HashMap<u32, Arc<Reference>>,
    /// Keys that new rows refer to, by constraint
    wanted: BTreeMap<u32, Keys>,
}

impl Enforcer {
    /// What a statement that writes this table has to keep; `None` if nothing, as for most tables.
    pub(crate) fn new(table: &Table, txn: &dyn Transaction, run: &Runtime) -> Option<Enforcer> {
        if !table.is_strong() {
            return None;
        }
        let refers = !table.foreign_keys.is_empty();
        let catalog = txn.catalog();
        let referenced = catalog.is_referenced(table.id);
        (refers || referenced).then(|| Enforcer {
            catalog,
            deferred: run.deferred.clone(),
            refers,
            referenced,
            queue: VecDeque::new(),
            held: Held::default(),
            references: HashMap::new(),
            wanted: BTreeMap::new(),
        })
    }

    /// Before an UPDATE or DELETE writes.
    pub(crate) fn before_change(&self, txn: &mut dyn Transaction) {
        if self.referenced {
            txn.lock_before_writing();
        }
    }

    /// Rows that were inserted.
    pub(crate) fn inserted<'r>(
        &mut self,
        table: &Arc<Table>,
        rows: impl Iterator<Item = &'r Row>,
        run: &Runtime,
    ) -> Result<()> {
        if self.refers {
            let references = self.own_references(table)?;
            for row in rows {
                self.want(&references, None, row, run)?;
            }
        }
        Ok(())
    }

    /// A row that was updated.
    pub(crate) fn updated(&mut self, table: &Arc<Table>, old: &Row, new: &Row, run: &Runtime) -> Result<()> {
        if self.referenced {
            return self.note(table, (Some(old.clone()), Some(new.clone())), run);
        }
        let references = self.own_references(table)?;
        self.want(&references, Some(old), new, run)
    }

    /// A row that was deleted.
    pub(crate) fn deleted(&mut self, table: &Arc<Table>, old: &Row, run: &Runtime) -> Result<()> {
        if self.referenced { self.note(table, (Some(old.clone()), None), run) } else { Ok(()) }
    }

    fn note(&mut self, table: &Arc<Table>, change: Change, run: &Runtime) -> Result<()> {
        let bytes = [&change.0, &change.1].into_iter().flatten().map(|row| row_memory(row)).sum();
        self.held.add_bytes(&run.guard, bytes)?;
        match self.queue.back_mut() {
            Some(work) if work.table.id == table.id => work.changes.push(change),
            _ => self.queue.push_back(Work { table: table.clone(), changes: vec![change] }),
        }
        Ok(())
    }

    fn reference(&mut self, child: &Arc<Table>, key: &ForeignKey) -> Result<Arc<Reference>> {
        if let Some(known) = self.references.get(&key.oid) {
            return Ok(known.clone());
        }
        let reference = Arc::new(Reference::new(&self.catalog, child, key)?);
        self.references.insert(key.oid, reference.clone());
        Ok(reference)
    }

    /// The foreign keys that this table has.
    fn own_references(&mut self, table: &Arc<Table>) -> Result<Vec<Arc<Reference>>> {
        table.foreign_keys.iter().map(|key| self.reference(table, key)).collect()
    }

    /// The foreign keys that refer to this table.
    fn references_to(&mut self, table: TableId) -> Result<Vec<Arc<Reference>>> {
        let catalog = self.catalog.clone();
        catalog.referencing(table).into_iter().map(|(child, key)| self.reference(child, key)).collect()
    }

    /// A new row, or a new image of an old one, refers to keys.
    fn want(
        &mut self,
        references: &[Arc<Reference>],
        old: Option<&Row>,
        new: &Row,
        run: &Runtime,
    ) -> Result<()> {
        for reference in references {
            if old.is_some_and(|old| reference.columns.iter().all(|&c| old[c] == new[c])) {
                continue;
            }
            if let Some(key) = reference.child_key(new)? {
                let keys = self.wanted.entry(reference.key.oid).or_default();
                let bytes = row_memory(&key);
                if keys.insert(key)? {
                    self.held.add_bytes(&run.guard, bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Between two batches of a long INSERT: looks up what may be looked up already, so that not all keys
    /// are held until the end. A row may refer to one of its own table that comes later.
    pub(crate) async fn between_batches(
        &mut self,
        txn: &mut dyn Transaction,
        run: &mut Runtime,
    ) -> Result<()> {
        let many = self.wanted.values().any(|keys| keys.list.len() >= KEY_BATCH);
        if many { self.check_wanted(txn, run, false).await } else { Ok(()) }
    }

    /// The statement has written all it will: acts, and checks.
    pub(crate) async fn finish(&mut self, txn: &mut dyn Transaction, run: &mut Runtime) -> Result<()> {
        txn.see_all(true);
        let finished = self.finish_all(txn, run).await;
        txn.see_all(false);
        self.held.release(&run.guard);
        finished
    }

    async fn finish_all(&mut self, txn: &mut dyn Transaction, run: &mut Runtime) -> Result<()> {
        while let Some(work) = self.queue.pop_front() {
            self.work_off(&work, txn, run).await?;
        }
        self.check_wanted(txn, run, true).await
    }

    async fn work_off(&mut self, work: &Work, txn: &mut dyn Transaction, run: &mut Runtime) -> Result<()> {
        for reference in self.references_to(work.table.id)? {
            // Keys that are gone: of rows deleted, and of rows whose key became another.
            let (mut deleted, mut changed, mut new_keys) = (Keys::default(), Keys::default(), Vec::new());
            for (old, new) in &work.changes {
                let Some(old) = old else { continue };
                let Some(key) = reference.parent_key(old) else { continue };
                match new {
                    None => {
                        deleted.insert(key)?;
                    }
                    Some(new) if reference.parent_columns.iter().any(|&c| old[c] != new[c]) => {
                        if changed.insert(key)? {
                            new_keys.push(reference.parent_columns.iter().map(|&c| new[c].clone()).collect());
                        }
                    }
                    Some(_) => {}
                }
            }
            if !deleted.list.is_empty() {
                let action = reference.key.on_delete;
                self.act(&reference, action, deleted, None, txn, run).await?;
            }
            if !changed.list.is_empty() {
                let action = reference.key.on_update;
                self.act(&reference, action, changed, Some(new_keys), txn, run).await?;
            }
        }
        let references = self.own_references(&work.table)?;
        for (old, new) in &work.changes {
            if let Some(new) = new {
                self.want(&references, old.as_ref(), new, run)?;
            }
        }
        Ok(())
    }

    /// These keys of a parent are gone. With `new`, they became others.
    async fn act(
        &mut self,
        reference: &Arc<Reference>,
        action: ReferentialAction,
        mut keys: Keys,
        new: Option<Vec<Key>>,
        txn: &mut dyn Transaction,
        run: &mut Runtime,
    ) -> Result<()> {
        let no_action = action == ReferentialAction::NoAction;
        if no_action && self.deferred.lock().is_deferred(&reference.key) {
            let mut deferred = self.deferred.lock();
            return keys.list.into_iter().try_for_each(|key| deferred.put_off(reference.key.oid, key, true));
        }
        let (parent, index) = (&reference.parent, reference.index);
        let listed = reference.all_in_index_order(keys.list.iter());
        txn.depend_on(&reference.child)?;
        txn.seize_keys(parent, index, &listed).await?;
        if no_action {
            // Another row of the statement may have taken the key.
            let found = blocking(|| txn.find_keys(parent, index, &listed))?;
            keys = keys.without(&found)?;
        }
        if keys.list.is_empty() {
            return Ok(());
        }
        let refuses = matches!(action, ReferentialAction::NoAction | ReferentialAction::Restrict);
        let children = blocking(|| reference.children(&*txn, run, &keys, refuses))?;
        if children.is_empty() {
            return Ok(());
        }
        match action {
            ReferentialAction::NoAction | ReferentialAction::Restrict => {
                let first = children.iter().map(|(place, _)| *place).min().unwrap_or(0);
                Err(reference.still_referenced(&keys.list[first], run))
            }
            ReferentialAction::Cascade if new.is_none() => {
                let rows: Vec<StoredRow> = children.into_iter().map(|(_, row)| row).collect();
                for row in &rows {
                    self.note(&reference.child, (Some(row.row.clone()), None), run)?;
                }
                Ok(txn.delete(&reference.child, rows).await?)
            }
            _ => {
                let changes = self.new_images(reference, action, children, new.as_deref(), &*txn, run)?;
                if action == ReferentialAction::SetDefault {
                    reference.check_defaults(&changes, &*txn, run)?;
                }
                for (old, new) in &changes {
                    self.note(&reference.child, (Some(old.row.clone()), Some(new.clone())), run)?;
                }
                Ok(txn.update(&reference.child, changes).await?)
            }
        }
    }

    /// Children whose columns the action sets.
    fn new_images(
        &self,
        reference: &Reference,
        action: ReferentialAction,
        children: Vec<(usize, StoredRow)>,
        new: Option<&[Key]>,
        txn: &dyn Transaction,
        run: &Runtime,
    ) -> Result<Vec<(StoredRow, Row)>> {
        let builder = &mut Builder::new();
        let planner =
            PlannerContext { format: run.eval.format.clone(), ..PlannerContext::new(self.catalog.clone()) };
        let stored = crate::binder::stored_expressions(&planner, &reference.child, &reference.columns)?;
        let constraints = Constraints::compile(&reference.child, &stored.checks, builder)?;
        let defaults = Expression::compile_all(&stored.defaults, builder)?;
        let context = run.context(txn);
        let mut changes = Vec::with_capacity(children.len());
        for (place, old) in children {
            let mut row = old.row.clone();
            for (i, &column) in reference.columns.iter().enumerate() {
                row[column] = match action {
                    ReferentialAction::SetDefault => defaults[i].eval(&[], &context)?,
                    ReferentialAction::Cascade => {
                        let value = new.and_then(|new| new.get(place)).and_then(|key| key.get(i));
                        let value = value.cloned().unwrap_or(Datum::Null);
                        let ty = |table: &Table, c: usize| table.columns[c].ty.clone();
                        let from = ty(&reference.parent, reference.parent_columns[i]);
                        crate::types::cast(
                            &value,
                            &from,
                            &ty(&reference.child, column),
                            crate::types::CastContext::Assignment,
                            &run.eval.format,
                        )?
                    }
                    _ => Datum::Null,
                };
            }
            constraints.complete(&mut row, &context)?;
            changes.push((old, row));
        }
        Ok(changes)
    }

    /// Keys that new rows refer to must be there. Without `all`, those in the written table wait.
    async fn check_wanted(&mut self, txn: &mut dyn Transaction, run: &mut Runtime, all: bool) -> Result<()> {
        let oids: Vec<u32> = self.wanted.keys().copied().collect();
        for oid in oids {
            let Some(reference) = self.references.get(&oid).cloned() else { continue };
            if !all && reference.parent.id == reference.child.id {
                continue;
            }
            let keys = self.wanted.remove(&oid).unwrap_or_default();
            if self.deferred.lock().is_deferred(&reference.key) {
                let mut deferred = self.deferred.lock();
                keys.list.into_iter().try_for_each(|key| deferred.put_off(oid, key, false))?;
                continue;
            }
            for keys in keys.list.chunks(KEY_BATCH) {
                let listed = reference.all_in_index_order(keys.iter());
                let found = txn.hold_keys(&reference.parent, reference.index, &listed).await?;
                if let Some(missing) = found.iter().position(|found| !found) {
                    return Err(reference.absent(&keys[missing], run));
                }
            }
        }
        Ok(())
    }
}

/// At COMMIT, or at SET CONSTRAINTS … IMMEDIATE: looks at what was put off, of all constraints or of these.
///
/// A key that was noted need not matter any more: the row may be gone again, or never have been (a savepoint).
/// So what counts is what is there now: a row that refers to the key, and no row that has it.
pub(crate) async fn check_deferred(
    deferred: &SharedDeferred,
    only: Option<&HashSet<u32>>,
    txn: &mut dyn Transaction,
    run: &mut Runtime,
) -> Result<()> {
    let waiting: Vec<(u32, Waiting)> = {
        let mut deferred = deferred.lock();
        let (now, later) = std::mem::take(&mut deferred.waiting)
            .into_iter()
            .partition(|(oid, _)| only.is_none_or(|only| only.contains(oid)));
        deferred.waiting = later;
        deferred.count = deferred.waiting.values().map(BTreeMap::len).sum();
        let now: BTreeMap<_, _> = now;
        now.into_iter().collect()
    };
    let catalog = txn.catalog();
    for (oid, keys) in waiting {
        let found = catalog
            .tables()
            .find_map(|table| Some((table, table.foreign_keys.iter().find(|key| key.oid == oid)?)));
        // Dropped since: nothing to keep.
        let Some((child, key)) = found else { continue };
        let reference = Reference::new(&catalog, child, key)?;
        let keys: Vec<(EncodedKey, (Key, bool))> = keys.into_iter().collect();
        for keys in keys.chunks(KEY_BATCH) {
            let listed = reference.all_in_index_order(keys.iter().map(|(_, (key, _))| key));
            let found = txn.hold_keys(&reference.parent, reference.index, &listed).await?;
            let missing: Vec<_> =
                keys.iter().zip(found).filter(|(_, found)| !found).map(|(k, _)| k).collect();
            if missing.is_empty() {
                continue;
            }
            let listed = reference.all_in_index_order(missing.iter().map(|(_, (key, _))| key));
            txn.depend_on(&reference.child)?;
            txn.seize_keys(&reference.parent, reference.index, &listed).await?;
            let mut wanted = Keys::default();
            for (_, (key, _)) in &missing {
                wanted.insert(key.clone())?;
            }
            let children = blocking(|| reference.children(&*txn, run, &wanted, true))?;
            if let Some(place) = children.iter().map(|(place, _)| *place).min() {
                let (_, (key, parent_went)) = missing[place];
                return Err(match parent_went {
                    true => reference.still_referenced(key, run),
                    false => reference.absent(key, run),
                });
            }
        }
    }
    Ok(())
}

/// Every row of `child` refers to something, for a foreign key that is made or validated now: both tables
/// are locked.
pub(crate) fn validate(
    child: &Arc<Table>,
    key: &ForeignKey,
    txn: &dyn Transaction,
    run: &Runtime,
) -> Result<()> {
    let reference = Reference::new(&txn.catalog(), child, key)?;
    let mut columns = reference.columns.clone();
    columns.sort_unstable();
    let scan = Scan {
        table: child.clone(),
        index: IndexId::PRIMARY,
        range: KeyRange::all(),
        direction: Direction::Forward,
        columns: Some(columns.into()),
    };
    let mut rows = txn.scan(&scan)?;
    let mut batch = Vec::new();
    while rows.next_batch(BATCH, &mut batch)? > 0 {
        run.guard.check()?;
        let mut keys = Keys::default();
        for stored in batch.drain(..) {
            if let Some(key) = reference.child_key(&stored.row)? {
                keys.insert(key)?;
            }
        }
        let keys = keys.list;
        let found =
            txn.find_keys(&reference.parent, reference.index, &reference.all_in_index_order(keys.iter()))?;
        if let Some(missing) = found.iter().position(|found| !found) {
            return Err(reference.absent(&keys[missing], run));
        }
    }
    Ok(())
}

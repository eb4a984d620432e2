//! Between SQL's rows and what replication keeps of them.
//!
//! SQL reads a row and writes a row. What it *meant* is the difference: `SET n = n + 1` and an ORM's
//! `SET n = 42` both arrive as a new value and become "add new minus old" for a counter; an array that
//! lacks an element it had becomes "take out the element I saw". So every driver and ORM can write CRDT columns,
//! and what merges is what each writer changed, not what each happened to see.

use std::collections::BTreeSet;
use std::sync::Arc;

use amphora_storage::schema::{ColumnId, Table};
use amphora_storage::{Datum, Row, Timestamp};

use super::difference::{From, admit, difference, read, rebase};
use super::op::{Author, RowOp};
use super::row_state::RowState;
use crate::{NodeId, Result};

/// The row as SQL sees it; `None` if it does not exist.
pub fn visible(table: &Table, state: &RowState) -> Result<Option<Row>> {
    if !state.is_visible() {
        return Ok(None);
    }
    table.columns.iter().map(|c| read(c, state.cells.get(&c.id))).collect::<Result<Row>>().map(Some)
}

/// Like [`visible`], but only these positions of `table.columns` (ascending) are read; others are NULL.
pub fn visible_columns(table: &Table, state: &RowState, columns: &[usize]) -> Result<Option<Row>> {
    if !state.is_visible() {
        return Ok(None);
    }
    let mut row = vec![Datum::Null; table.columns.len()];
    for &position in columns {
        if let (Some(column), Some(value)) = (table.columns.get(position), row.get_mut(position)) {
            *value = read(column, state.cells.get(&column.id))?;
        }
    }
    Ok(Some(row))
}

/// Like [`visible_columns`], but a value that cannot be read (a sum that no bigint holds) is NULL too.
pub(super) fn readable_columns(table: &Table, state: &RowState, columns: &[usize]) -> Option<Row> {
    if !state.is_visible() {
        return None;
    }
    let mut row = vec![Datum::Null; table.columns.len()];
    for &position in columns {
        if let (Some(column), Some(value)) = (table.columns.get(position), row.get_mut(position)) {
            *value = read(column, state.cells.get(&column.id)).unwrap_or(Datum::Null);
        }
    }
    Some(row)
}

/// The operation that inserts `row`, where `existing` is what this node keeps under its key, if anything.
///
/// NULLs are not written: where two nodes insert one key at once, a value beats its absence. But where a column that
/// was not written reads as a value, a NULL is one like others.
pub fn plan_insert(table: &Table, existing: Option<&RowState>, row: &[Datum]) -> Result<RowOp> {
    let cl = existing.map_or(1, RowState::next_alive);
    let mut cells = Vec::with_capacity(row.len());
    for (column, value) in table.columns.iter().zip(row) {
        if !value.is_null() || !column.missing.is_null() {
            difference(column, From { cell: None, value: None, reset: false }, value, &mut cells)?;
        }
    }
    Ok(RowOp { cl, insert: true, must_not_exist: true, cells })
}

/// The operation that turns `old_row`, as `old` showed it, into `new_row`. The key must be the same. Of the
/// columns in `reset` all that `old` has is taken out first.
pub fn plan_update(
    table: &Table,
    old: &RowState,
    old_row: &[Datum],
    new_row: &[Datum],
    reset: &BTreeSet<ColumnId>,
) -> Result<RowOp> {
    let mut cells = Vec::new();
    for ((column, before), after) in table.columns.iter().zip(old_row).zip(new_row) {
        let from =
            From { cell: old.cells.get(&column.id), value: Some(before), reset: reset.contains(&column.id) };
        difference(column, from, after, &mut cells)?;
    }
    Ok(RowOp { cl: old.cl, insert: false, must_not_exist: false, cells })
}

/// The operation that deletes a row.
pub fn plan_delete(existing: &RowState) -> RowOp {
    RowOp { cl: existing.next_dead(), insert: false, must_not_exist: false, cells: Vec::new() }
}

/// One row in a transaction's write buffer.
///
/// It keeps the state first read, and after each statement plans the whole way from there to the row as it is
/// now. So any number of statements on a row commit as one operation, and the transaction reads what
/// it wrote.
#[derive(Clone, Debug)]
pub struct PendingRow {
    base: Arc<RowState>,
    /// The row's operation; `None` while base and result are the same
    op: Option<RowOp>,
    /// A row deleted and inserted again by this transaction is a new generation.
    replaced: bool,
    /// Columns of which this transaction takes out all that was there
    reset: BTreeSet<ColumnId>,
}

impl PendingRow {
    /// A row as found under its key; `None` if nothing is kept there.
    pub fn new(base: Option<impl Into<Arc<RowState>>>) -> PendingRow {
        PendingRow {
            base: base.map(Into::into).unwrap_or_default(),
            op: None,
            replaced: false,
            reset: BTreeSet::new(),
        }
    }

    /// The row as this transaction sees it.
    pub fn row(&self, table: &Table) -> Result<Option<Row>> {
        let Some(op) = &self.op else { return visible(table, &self.base) };
        let nobody = Author { origin: NodeId::MAX, seq: 0, hlc: Timestamp::MAX };
        // No such origin and no such time: the delta is only ever read here.
        let mut state = RowState::clone(&self.base);
        state.join(&op.resolve(&self.base, nobody));
        visible(table, &state)
    }

    /// INSERT of a row that is not there, or UPDATE of one that is.
    ///
    /// `old` is the row as the statement read it, `None` for an insert. The row may have moved since, by
    /// another session's commit or a peer's batch: what is written is the difference between `old` and `new`, on
    /// top of what the row is now. An update of a row that has gone meanwhile does nothing.
    pub fn put(&mut self, table: &Table, old: Option<&[Datum]>, new: &[Datum]) -> Result<()> {
        let base_row = visible(table, &self.base)?;
        let current = if self.op.is_some() { self.row(table)? } else { base_row.clone() };
        let new = match (old, current) {
            (None, Some(_)) => {
                // It has come to be since the statement looked. The commit will find that too: 23505.
                self.op = Some(plan_insert(table, Some(&self.base), new)?);
                return Ok(());
            }
            (None, None) => new.to_vec(),
            (Some(_), None) => return Ok(()),
            (Some(old), Some(current)) => {
                let columns = table.columns.iter().zip(old).zip(new).zip(current);
                let rebased = columns.map(|(((column, old), new), current)| {
                    if !self.reset.contains(&column.id) {
                        admit(column, Some(old), new)?;
                    }
                    rebase(column, old, new, current)
                });
                rebased.collect::<Result<Row>>()?
            }
        };
        self.op = Some(match base_row {
            Some(base_row) if !self.replaced => plan_update(table, &self.base, &base_row, &new, &self.reset)?,
            Some(_) => {
                let mut op = plan_insert(table, None, &new)?;
                op.cl = self.base.next_dead().saturating_add(1);
                op.must_not_exist = false;
                op
            }
            None => plan_insert(table, Some(&self.base), &new)?,
        });
        Ok(())
    }

    /// `crdt_reset` of these columns, given by their positions, in the UPDATE that is [put](PendingRow::put) next.
    pub fn reset(&mut self, table: &Table, columns: &[usize]) {
        let columns = columns.iter().filter_map(|&position| table.columns.get(position));
        self.reset.extend(columns.map(|column| column.id));
    }

    /// DELETE.
    pub fn delete(&mut self) {
        self.replaced = self.base.is_visible();
        self.op = self.replaced.then(|| plan_delete(&self.base));
    }

    /// What to commit, if anything.
    pub fn op(&self) -> Option<&RowOp> {
        self.op.as_ref().filter(|op| !op.is_empty(&self.base))
    }
}

//! Between SQL's rows and what replication keeps of them.
//!
//! SQL reads a row and writes a row. What it *meant* is the difference: `SET n = n + 1` and an ORM's
//! `SET n = 42` both arrive as a new value and become "add new minus old" for a counter; an array that
//! lacks an element it had becomes "take out the element I saw". So every driver and ORM can write CRDT columns,
//! and what merges is what each writer changed, not what each happened to see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use amphora_storage::schema::{Column, ColumnId, Table};
use amphora_storage::types::Crdt;
use amphora_storage::{DataType, Datum, Row, Timestamp};

use super::cell::{Cell, canonical};
use super::dots::Dot;
use super::op::{CellOp, RowOp};
use super::row_state::RowState;
use crate::{Error, NodeId, Result};

/// The row as SQL sees it; `None` if it does not exist.
pub fn visible(table: &Table, state: &RowState) -> Result<Option<Row>> {
    if !state.is_visible() {
        return Ok(None);
    }
    table.columns.iter().map(|c| read(c, state)).collect::<Result<Row>>().map(Some)
}

/// Like [`visible`], but only these positions of `table.columns` (ascending) are read; others are NULL.
pub fn visible_columns(table: &Table, state: &RowState, columns: &[usize]) -> Result<Option<Row>> {
    if !state.is_visible() {
        return Ok(None);
    }
    let mut row = vec![Datum::Null; table.columns.len()];
    for &position in columns {
        if let (Some(column), Some(value)) = (table.columns.get(position), row.get_mut(position)) {
            *value = read(column, state)?;
        }
    }
    Ok(Some(row))
}

/// One column's value. A cell never written reads as NULL, 0, false or the empty set.
fn read(column: &Column, state: &RowState) -> Result<Datum> {
    let cell = state.cells.get(&column.id);
    Ok(match &column.ty {
        DataType::Crdt(Crdt::Counter) => match cell {
            Some(Cell::Counter(c)) => Datum::Int8(i64::try_from(c.value()).map_err(|_| {
                Error::new("22003", "bigint out of range").detail(format!(
                    "Counter \"{}\" has been added up to {} by several nodes.",
                    column.name,
                    c.value()
                ))
            })?),
            _ => Datum::Int8(0),
        },
        DataType::Crdt(Crdt::Flag) => {
            Datum::Bool(matches!(cell, Some(Cell::Flag(f)) if !f.enables.is_empty()))
        }
        DataType::Crdt(Crdt::Set(element)) => {
            let items = match cell {
                Some(Cell::Set(set)) => set.elements.keys().cloned().collect(),
                _ => Vec::new(),
            };
            Datum::array((**element).clone(), items)
        }
        _ => match cell {
            Some(Cell::Lww(lww)) => lww.value.clone(),
            Some(Cell::Max(value) | Cell::Min(value)) => value.clone(),
            _ => Datum::Null,
        },
    })
}

/// The operation that inserts `row`, where `existing` is what this node keeps under its key, if anything.
///
/// NULLs are not written: where two nodes insert one key at once, a value beats its absence.
pub fn plan_insert(table: &Table, existing: Option<&RowState>, row: &[Datum]) -> Result<RowOp> {
    let cl = existing.map_or(1, RowState::next_alive);
    let mut cells = Vec::with_capacity(row.len());
    for (column, value) in table.columns.iter().zip(row) {
        if !value.is_null() {
            difference(column, None, None, value, &mut cells)?;
        }
    }
    Ok(RowOp { cl, insert: true, must_not_exist: true, cells })
}

/// The operation that turns `old_row`, as `old` showed it, into `new_row`. The key must be the same.
pub fn plan_update(table: &Table, old: &RowState, old_row: &[Datum], new_row: &[Datum]) -> Result<RowOp> {
    let mut cells = Vec::new();
    for ((column, before), after) in table.columns.iter().zip(old_row).zip(new_row) {
        difference(column, old.cells.get(&column.id), Some(before), after, &mut cells)?;
    }
    Ok(RowOp { cl: old.cl, insert: false, must_not_exist: false, cells })
}

/// The operation that deletes a row.
pub fn plan_delete(existing: &RowState) -> RowOp {
    RowOp { cl: existing.next_dead(), insert: false, must_not_exist: false, cells: Vec::new() }
}

/// Appends what takes one column from `before` to `after`.
fn difference(
    column: &Column,
    cell: Option<&Cell>,
    before: Option<&Datum>,
    after: &Datum,
    out: &mut Vec<(ColumnId, CellOp)>,
) -> Result<()> {
    let DataType::Crdt(crdt) = &column.ty else {
        if !before.is_some_and(|before| same(before, after)) {
            out.push((column.id, CellOp::Set(after.clone())));
        }
        return Ok(());
    };
    let refuse_null = || {
        Err(Error::new("22004", format!("null value is not allowed in column \"{}\"", column.name))
            .detail(format!("The column is of type {}, which has no null value.", column.ty)))
    };
    let op = match crdt {
        Crdt::Counter => {
            let Some(after) = after.as_i64() else { return refuse_null() };
            let before = before.and_then(Datum::as_i64).unwrap_or(0);
            match i128::from(after) - i128::from(before) {
                0 => return Ok(()),
                n => CellOp::Add(n),
            }
        }
        Crdt::Max(_) | Crdt::Min(_) => {
            if after.is_null() || before == Some(after) {
                return Ok(());
            }
            if matches!(crdt, Crdt::Max(_)) { CellOp::Max(after.clone()) } else { CellOp::Min(after.clone()) }
        }
        Crdt::Flag => match (before.and_then(Datum::as_bool).unwrap_or(false), after.as_bool()) {
            (_, None) => return refuse_null(),
            (false, Some(true)) => CellOp::FlagEnable,
            (true, Some(false)) => CellOp::FlagDisable(match cell {
                Some(Cell::Flag(f)) => f.enables.iter().copied().collect(),
                _ => Vec::new(),
            }),
            _ => return Ok(()),
        },
        Crdt::Set(_) => return set_difference(column, cell, after, out),
    };
    out.push((column.id, op));
    Ok(())
}

/// Elements that are new are added; so is one that the new array holds twice, which is what
/// `array_append` of a present element leaves: the writer wants it there, whatever others remove.
fn set_difference(
    column: &Column,
    cell: Option<&Cell>,
    after: &Datum,
    out: &mut Vec<(ColumnId, CellOp)>,
) -> Result<()> {
    let Datum::Array(array) = after else {
        return Err(Error::new("22004", format!("null value is not allowed in column \"{}\"", column.name))
            .detail(format!("The column is of type {}, which has no null value.", column.ty)));
    };
    let observed = match cell {
        Some(Cell::Set(set)) => Some(&set.elements),
        _ => None,
    };
    let mut wanted: BTreeMap<Datum, usize> = BTreeMap::new();
    for item in &array.items {
        if item.is_null() {
            return Err(Error::new("22004", format!("null element in set \"{}\"", column.name))
                .detail("The elements of a set are values."));
        }
        *wanted.entry(canonical(item.clone())).or_default() += 1;
    }
    let removed: Vec<(Datum, Vec<Dot>)> = observed
        .into_iter()
        .flatten()
        .filter(|(element, _)| !wanted.contains_key(element))
        .map(|(element, dots)| (element.clone(), dots.iter().copied().collect()))
        .collect();
    let added: Vec<Datum> = wanted
        .into_iter()
        .filter(|(element, times)| *times > 1 || !observed.is_some_and(|o| o.contains_key(element)))
        .map(|(element, _)| element)
        .collect();
    if !removed.is_empty() {
        out.push((column.id, CellOp::SetRemove(removed)));
    }
    if !added.is_empty() {
        out.push((column.id, CellOp::SetAdd(added)));
    }
    Ok(())
}

/// What a statement changed between `old` and `new`, done to `current`.
fn rebase(table: &Table, old: &[Datum], new: &[Datum], current: Row) -> Result<Row> {
    let columns = table.columns.iter().zip(old).zip(new).zip(current);
    columns
        .map(|(((column, old), new), current)| {
            Ok(match (&column.ty, old, new, &current) {
                (DataType::Crdt(Crdt::Counter), Datum::Int8(old), Datum::Int8(new), Datum::Int8(now)) => {
                    let sum = i128::from(*now) + i128::from(*new) - i128::from(*old);
                    let sum = i64::try_from(sum).map_err(|_| Error::new("22003", "bigint out of range"))?;
                    Datum::Int8(sum)
                }
                (
                    DataType::Crdt(Crdt::Set(element)),
                    Datum::Array(old),
                    Datum::Array(new),
                    Datum::Array(now),
                ) => {
                    let stays = |d: &&Datum| !old.items.contains(d) || new.items.contains(d);
                    let mut items: Vec<Datum> = now.items.iter().filter(stays).cloned().collect();
                    let mut seen = BTreeSet::new();
                    // An element that is new, or that appears for a second time, is an addition.
                    let additions = new.items.iter().filter(|d| !seen.insert(*d) || !old.items.contains(d));
                    items.extend(additions.cloned());
                    Datum::array((**element).clone(), items)
                }
                _ if same(old, new) => current,
                _ => new.clone(),
            })
        })
        .collect()
}

/// Equal as kept, not merely as SQL compares: `1.0` and `1.00` are equal and yet a change.
fn same(a: &Datum, b: &Datum) -> bool {
    use Datum::*;
    match (a, b) {
        (Null, Null) => true,
        (Bool(a), Bool(b)) => a == b,
        (Int2(a), Int2(b)) => a == b,
        (Int4(a), Int4(b)) | (Date(a), Date(b)) => a == b,
        (Int8(a), Int8(b)) | (Time(a), Time(b)) => a == b,
        (Timestamp(a), Timestamp(b)) | (Timestamptz(a), Timestamptz(b)) => a == b,
        (Oid(a), Oid(b)) => a == b,
        (Text(a), Text(b)) => a == b,
        (Bytea(a), Bytea(b)) => a == b,
        (Uuid(a), Uuid(b)) => a == b,
        _ => a == b && format!("{a:?}") == format!("{b:?}"),
    }
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
}

impl PendingRow {
    /// A row as found under its key; `None` if nothing is kept there.
    pub fn new(base: Option<impl Into<Arc<RowState>>>) -> PendingRow {
        PendingRow { base: base.map(Into::into).unwrap_or_default(), op: None, replaced: false }
    }

    /// The row as this transaction sees it.
    pub fn row(&self, table: &Table) -> Result<Option<Row>> {
        let Some(op) = &self.op else { return visible(table, &self.base) };
        // No such origin and no such time: the delta is only ever read here.
        let mut state = RowState::clone(&self.base);
        state.join(&op.resolve(&self.base, NodeId::MAX, Timestamp::MAX));
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
            (Some(old), Some(current)) => rebase(table, old, new, current)?,
        };
        self.op = Some(match base_row {
            Some(base_row) if !self.replaced => plan_update(table, &self.base, &base_row, &new)?,
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

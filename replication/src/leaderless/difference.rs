//! One column: what its cell reads as, and the operation that takes it from one value to another.
//!
//! What an operation says is *relative*: the difference between the value that the writer saw and the one that
//! it leaves. What a writer did not touch it does not write, so what others did to it meanwhile stays.

use std::collections::{BTreeMap, BTreeSet};

use amphora_storage::schema::{Column, ColumnId, ConflictPolicy};
use amphora_storage::types::Crdt;
use amphora_storage::{DataType, Datum, Json, Numeric};
use bigdecimal::BigDecimal;
use serde_json::{Map, Value};

use super::cell::{Cell, Extreme, Register, Written, canonical, total_cmp};
use super::document;
use super::dots::Dot;
use super::op::CellOp;
use crate::{Error, Result};

/// One column's value. A cell never written reads as the type's initial value.
pub(super) fn read(column: &Column, cell: Option<&Cell>) -> Result<Datum> {
    let Some(cell) = cell else {
        // Whoever wrote the row did not know of the column, or left it alone.
        return Ok(if column.missing.is_null() { initial(&column.ty) } else { column.missing.clone() });
    };
    let overflow = |ty: &str, sum: String| {
        Error::new("22003", format!("{ty} out of range"))
            .detail(format!("Column \"{}\" has been added up to {sum} by several nodes.", column.name))
    };
    Ok(match (&column.ty, cell) {
        (_, Cell::Lww(lww)) => lww.value.clone(),
        (_, Cell::Counter(c)) => {
            Datum::Int8(i64::try_from(c.value()).map_err(|_| overflow("bigint", c.value().to_string()))?)
        }
        (_, Cell::Max(extreme) | Cell::Min(extreme)) => extreme.value.clone().unwrap_or(Datum::Null),
        (_, Cell::Flag(flag)) => Datum::Bool(!flag.entries.is_empty()),
        (DataType::Crdt(Crdt::Sum(modifier)), Cell::Sum(sum)) => {
            let sum = sum.value();
            let scaled = match modifier {
                Some((precision, scale)) => {
                    let scaled = sum.with_scale_round(i64::from(*scale), bigdecimal::RoundingMode::HalfUp);
                    // Zero has one digit, which counts for nothing before the point.
                    let digits = if bigdecimal::Zero::is_zero(&scaled) { 0 } else { scaled.digits() };
                    if digits > u64::from(*precision) {
                        return Err(overflow("numeric", sum.to_plain_string()));
                    }
                    scaled
                }
                None => sum,
            };
            Datum::numeric(Numeric::finite(scaled))
        }
        (DataType::Crdt(Crdt::Set(element)), Cell::Set(set)) => {
            elements(element, set.entries.keys().map(|e| &e.0))
        }
        (DataType::Crdt(Crdt::RemoveSet(element)), Cell::RemoveSet(set)) => {
            let there = set.entries.iter().filter(|(_, dots)| dots.values().all(|is_in| *is_in));
            elements(element, there.map(|(e, _)| &e.0))
        }
        (DataType::Crdt(Crdt::Register(element)), Cell::Register(register)) => {
            let mut values: Vec<&Datum> = register.iter().map(|(_, _, written)| &written.value).collect();
            values.sort();
            elements(element, values.into_iter())
        }
        (DataType::Crdt(_), Cell::Register(_)) => initial(&column.ty),
        (_, Cell::Register(writes)) => {
            shown(column.conflict, writes).map_or(Datum::Null, |(_, written)| written.value.clone())
        }
        (_, Cell::Map(map)) => document::read(map),
        (ty, _) => initial(ty),
    })
}

/// An array of values in order, without those that SQL calls equal to the one before.
fn elements<'a>(ty: &DataType, values: impl Iterator<Item = &'a Datum>) -> Datum {
    let mut items: Vec<Datum> = Vec::new();
    for value in values {
        if items.last() != Some(value) {
            items.push(value.clone());
        }
    }
    Datum::array(ty.clone(), items)
}

/// What a column reads as before it is written, and after `crdt_reset`.
pub fn initial(ty: &DataType) -> Datum {
    match ty {
        DataType::Crdt(Crdt::Counter | Crdt::Gcounter) => Datum::Int8(0),
        DataType::Crdt(Crdt::Sum(modifier)) => {
            let scale = modifier.map_or(0, |(_, scale)| i64::from(scale));
            Datum::numeric(Numeric::finite(BigDecimal::from(0).with_scale(scale)))
        }
        DataType::Crdt(Crdt::Flag) => Datum::Bool(false),
        DataType::Crdt(Crdt::Set(t) | Crdt::RemoveSet(t) | Crdt::Register(t)) => {
            Datum::array((**t).clone(), Vec::new())
        }
        DataType::Crdt(Crdt::Map) => Datum::jsonb(Json(Value::Object(Map::new()))),
        _ => Datum::Null,
    }
}

/// Where one column's way begins.
#[derive(Clone, Copy)]
pub(super) struct From<'a> {
    /// What is kept of it
    pub(super) cell: Option<&'a Cell>,
    /// What that reads as; `None` if there is no row yet
    pub(super) value: Option<&'a Datum>,
    /// All that is kept is to be taken out first
    pub(super) reset: bool,
}

/// Appends what takes one column from where it is to `after`.
pub(super) fn difference(
    column: &Column,
    from: From<'_>,
    after: &Datum,
    out: &mut Vec<(ColumnId, CellOp)>,
) -> Result<()> {
    let DataType::Crdt(crdt) = &column.ty else {
        if from.reset || !from.value.is_some_and(|before| same(before, after)) {
            out.push((column.id, plain_write(column, from.cell, after)));
        }
        return Ok(());
    };
    admit(column, None, after)?;
    let op = match crdt {
        Crdt::Counter | Crdt::Gcounter => {
            let mut before = from.value.and_then(Datum::as_i64).unwrap_or(0);
            if let (true, Some(Cell::Counter(counter))) = (from.reset, from.cell) {
                out.push((column.id, CellOp::Clear(counter.seen().into_iter().collect())));
                before = 0;
            }
            let added = i128::from(after.as_i64().unwrap_or(0)) - i128::from(before);
            (added != 0).then_some(CellOp::Add(added))
        }
        Crdt::Sum(_) => {
            let zero = BigDecimal::from(0);
            let number = |d: &Datum| finite(d).cloned();
            let mut before = from.value.and_then(number).unwrap_or_else(|| zero.clone());
            if let (true, Some(Cell::Sum(sum))) = (from.reset, from.cell) {
                out.push((column.id, CellOp::ClearDecimal(sum.seen().into_iter().collect())));
                before = zero.clone();
            }
            let added = number(after).unwrap_or_else(|| zero.clone()) - before;
            (added != zero).then(|| CellOp::AddDecimal(Numeric::finite(added)))
        }
        Crdt::Max(_) | Crdt::Min(_) => extreme(crdt, from, after),
        Crdt::Flag => {
            let dots = match from.cell {
                Some(Cell::Flag(flag)) => flag.dots().collect(),
                _ => Vec::new(),
            };
            let before = from.value.and_then(Datum::as_bool).unwrap_or(false);
            match (before, after.as_bool()) {
                (true, Some(true)) if from.reset => {
                    out.push((column.id, CellOp::FlagDisable(dots)));
                    Some(CellOp::FlagEnable)
                }
                (false, Some(true)) => Some(CellOp::FlagEnable),
                (true, Some(false)) => Some(CellOp::FlagDisable(dots)),
                _ => None,
            }
        }
        Crdt::Set(_) | Crdt::RemoveSet(_) => set(from, crdt, after),
        Crdt::Register(_) => register(from, after),
        Crdt::Map => map(from, after),
    };
    out.extend(op.map(|op| (column.id, op)));
    Ok(())
}

/// A write to an ordinary column. One that has a policy keeps the writes that no other has seen side by side, and
/// so does one that had a policy when it was written last.
fn plain_write(column: &Column, cell: Option<&Cell>, after: &Datum) -> CellOp {
    match cell {
        Some(Cell::Register(writes)) => {
            CellOp::Write { seen: writes.dots().collect(), values: vec![after.clone()] }
        }
        _ if column.conflict != ConflictPolicy::Lww => {
            CellOp::Write { seen: Vec::new(), values: vec![after.clone()] }
        }
        _ => CellOp::Set(after.clone()),
    }
}

/// Of the concurrent writes to an ordinary column the one that its policy shows.
pub(super) fn shown(policy: ConflictPolicy, writes: &Register) -> Option<(Dot, &Written)> {
    let writes = || writes.iter().map(|(_, dot, written)| (dot, written));
    let by_clock = |(dot, written): &(Dot, &Written)| (written.hlc, *dot);
    // NULL is neither great nor small; the same value written twice is the later's.
    let values = || {
        let mut values: Vec<_> = writes().filter(|(_, w)| !w.value.is_null()).collect();
        values.sort_by(|a, b| total_cmp(&a.1.value, &b.1.value).then_with(|| by_clock(a).cmp(&by_clock(b))));
        values
    };
    match policy {
        ConflictPolicy::Lww | ConflictPolicy::ErrorLog => writes().max_by_key(by_clock),
        ConflictPolicy::First => writes().min_by_key(by_clock),
        ConflictPolicy::Max => values().pop().or_else(|| writes().max_by_key(by_clock)),
        ConflictPolicy::Min => values().into_iter().next().or_else(|| writes().max_by_key(by_clock)),
    }
}

/// Refuses what a type cannot take. `before` is what the writer saw, if it is about a step and not a value.
pub(super) fn admit(column: &Column, before: Option<&Datum>, after: &Datum) -> Result<()> {
    let DataType::Crdt(crdt) = &column.ty else { return Ok(()) };
    let (name, ty) = (&column.name, &column.ty);
    if after.is_null() && !matches!(crdt, Crdt::Max(_) | Crdt::Min(_)) {
        return Err(Error::new("22004", format!("null value is not allowed in column \"{name}\""))
            .detail(format!("The column is of type {ty}, which has no null value."))
            .hint(format!("To empty it, write crdt_reset({name}).")));
    }
    match crdt {
        Crdt::Gcounter => {
            let (before, after) = (before.and_then(Datum::as_i64).unwrap_or(0), after.as_i64().unwrap_or(0));
            if after < before {
                return Err(Error::new("23514", format!("column \"{name}\" of type {ty} cannot be decreased"))
                    .detail(format!("It is {before}, and the new value is {after}."))
                    .hint(format!(
                        "Use the type crdt_counter for a number that also falls, or crdt_reset({name}) to begin anew."
                    )));
            }
        }
        Crdt::Sum(_) if finite(after).is_none() => {
            let value = match after {
                Datum::Numeric(n) => n.to_string(),
                other => format!("{other:?}"),
            };
            return Err(Error::new("22023", format!("column \"{name}\" of type {ty} cannot be {value}"))
                .detail("Only finite numbers can be added up.")
                .hint("Write a number, or use a column of type numeric."));
        }
        Crdt::Set(_) | Crdt::RemoveSet(_) | Crdt::Register(_) => {
            if let Datum::Array(array) = after
                && array.items.iter().any(Datum::is_null)
            {
                return Err(Error::new("22004", format!("null element in column \"{name}\" of type {ty}"))
                    .detail("The elements of a set or a register are values.")
                    .hint("Leave NULLs out: array_remove(…, NULL)."));
            }
        }
        Crdt::Map if document::flatten(after).is_none() => {
            return Err(Error::new("22023", format!("column \"{name}\" of type {ty} must be a JSON object"))
                .detail("What merges is the values under its keys.")
                .hint("Write an object, or use a column of type jsonb."));
        }
        _ => {}
    }
    Ok(())
}

fn finite(d: &Datum) -> Option<&BigDecimal> {
    match d {
        Datum::Numeric(n) => n.as_finite(),
        _ => None,
    }
}

fn extreme(crdt: &Crdt, from: From<'_>, after: &Datum) -> Option<CellOp> {
    let resets = match from.cell {
        Some(Cell::Max(e) | Cell::Min(e)) => e.resets,
        _ => 0,
    };
    let value = (!after.is_null()).then(|| after.clone());
    let new = match (from.reset, value) {
        (true, value) => Extreme { resets: resets.saturating_add(1), value },
        (false, Some(value)) if from.value != Some(after) => Extreme { resets, value: Some(value) },
        _ => return None,
    };
    Some(if matches!(crdt, Crdt::Max(_)) { CellOp::Max(new) } else { CellOp::Min(new) })
}

/// Elements that are new are added; so is one that the new array holds twice, which is what
/// `array_append` of a present element leaves: the writer wants it there, whatever others remove.
fn set(from: From<'_>, crdt: &Crdt, after: &Datum) -> Option<CellOp> {
    let mut wanted: BTreeMap<Datum, usize> = BTreeMap::new();
    for item in items(after) {
        *wanted.entry(canonical(item.clone())).or_default() += 1;
    }
    // Of each element: its dots, and whether it is in.
    let mut observed: BTreeMap<&Datum, (Vec<Dot>, bool)> = BTreeMap::new();
    match from.cell {
        Some(Cell::Set(set)) => {
            for (element, dots) in &set.entries {
                let (all, is_in) = observed.entry(&element.0).or_default();
                all.extend(dots.keys());
                *is_in = true;
            }
        }
        Some(Cell::RemoveSet(set)) => {
            for (element, dots) in &set.entries {
                let (all, is_in) = observed.entry(&element.0).or_default();
                all.extend(dots.keys());
                *is_in |= dots.values().all(|is_in| *is_in);
            }
        }
        _ => {}
    }
    let shown = |d: &Datum| observed.get(d).is_some_and(|(_, is_in)| *is_in);
    let added: Vec<Datum> = wanted
        .iter()
        .filter(|(element, times)| from.reset || **times > 1 || !shown(element))
        .map(|(element, _)| element.clone())
        .collect();
    let removed: Vec<Datum> = observed
        .iter()
        .filter(|(element, (_, is_in))| *is_in && !wanted.contains_key(element))
        .map(|(element, _)| Datum::clone(element))
        .collect();
    let dots_of = |d: &Datum| observed.get(d).into_iter().flat_map(|(dots, _)| dots.iter().copied());
    let everything = || observed.values().flat_map(|(dots, _)| dots.iter().copied());
    if added.is_empty() && removed.is_empty() && (!from.reset || observed.is_empty()) {
        return None;
    }
    if matches!(crdt, Crdt::Set(_)) {
        let seen = match from.reset {
            true => everything().collect(),
            false => removed.iter().flat_map(dots_of).collect(),
        };
        return Some(CellOp::SetChange { seen, add: added });
    }
    // A removal is an event of its own, and whoever adds takes out the removals that it has seen.
    let seen = match from.reset {
        true => everything().collect(),
        false => removed.iter().chain(&added).flat_map(dots_of).collect(),
    };
    let removals = removed.into_iter().filter(|_| !from.reset).map(|d| (d, false));
    let put = added.into_iter().map(|d| (d, true)).chain(removals).collect();
    Some(CellOp::RemoveSetChange { seen, put })
}

fn items(array: &Datum) -> &[Datum] {
    match array {
        Datum::Array(array) => &array.items,
        _ => &[],
    }
}

fn register(from: From<'_>, after: &Datum) -> Option<CellOp> {
    let seen: Vec<Dot> = match from.cell {
        Some(Cell::Register(register)) => register.dots().collect(),
        _ => Vec::new(),
    };
    let distinct = |values: &[Datum]| values.iter().cloned().map(canonical).collect::<BTreeSet<Datum>>();
    let values = distinct(items(after));
    let unchanged = from.value.is_some_and(|before| distinct(items(before)) == values);
    if (seen.is_empty() && values.is_empty()) || (unchanged && !from.reset) {
        return None;
    }
    Some(CellOp::Write { seen, values: values.into_iter().collect() })
}

fn map(from: From<'_>, after: &Datum) -> Option<CellOp> {
    let cell = match from.cell {
        Some(Cell::Map(map)) => Some(map),
        _ => None,
    };
    let after = document::flatten(after)?;
    if from.reset {
        let seen: Vec<Dot> = cell.into_iter().flat_map(|map| map.dots()).collect();
        let put = after.into_iter().map(|(path, v)| (path, Datum::jsonb(Json(v)))).collect();
        return Some(CellOp::Edit { seen, put });
    }
    let before = from.value.and_then(document::flatten).unwrap_or_default();
    document::difference(cell, &before, &after)
}

/// What a statement changed between `old` and `new`, done to `current`.
pub(super) fn rebase(column: &Column, old: &Datum, new: &Datum, current: Datum) -> Result<Datum> {
    Ok(match (&column.ty, old, new, &current) {
        (
            DataType::Crdt(Crdt::Counter | Crdt::Gcounter),
            Datum::Int8(old),
            Datum::Int8(new),
            Datum::Int8(now),
        ) => {
            let sum = i128::from(*now) + i128::from(*new) - i128::from(*old);
            Datum::Int8(i64::try_from(sum).map_err(|_| Error::new("22003", "bigint out of range"))?)
        }
        (DataType::Crdt(Crdt::Sum(_)), old, new, now) => match (finite(old), finite(new), finite(now)) {
            (Some(old), Some(new), Some(now)) => Datum::numeric(Numeric::finite(now + (new - old))),
            _ => new.clone(),
        },
        (
            DataType::Crdt(Crdt::Set(element) | Crdt::RemoveSet(element)),
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
        (DataType::Crdt(Crdt::Map), old, new, now) => {
            match (document::flatten(old), document::flatten(new), document::flatten(now)) {
                (Some(old), Some(new), Some(now)) => document::unflatten(&document::rebase(&old, &new, now)),
                _ => new.clone(),
            }
        }
        _ if same(old, new) => current,
        _ => new.clone(),
    })
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

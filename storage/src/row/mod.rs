//! Rows at rest: compact, and one column can be read without the rest.
//!
//! ```text
//!   ┌────────┬───────────┬──────────────────────┬─────────┬─────────┬───
//!   │ format │ slots u16 │ end offset per slot  │ value 0 │ value 1 │ …
//!   └────────┴───────────┴──────────────────────┴─────────┴─────────┴───
//!     1: offsets are u16, 2: u32     value: tag │ payload; an empty slot is an absent column
//! ```
//!
//! A slot is addressed by [`ColumnId`], which is stable while columns come and go: a column added after a
//! row was written lies beyond its slots, or in an empty one, and is absent; a dropped column's slot is
//! skipped and is not written again. Values carry their own tag, so a row can be read without its schema,
//! and an integer column that was widened reads its old values.

mod document;
mod value;

use crate::datum::{Datum, Row};
use crate::error::{Result, StorageError};
use crate::schema::{ColumnId, Table};
use crate::types::DataType;

pub use value::{decode_value, encode_value};

/// Offsets of two bytes.
const SMALL: u8 = 1;
/// Offsets of four bytes.
const LARGE: u8 = 2;
const HEADER: usize = 3;
/// A column id beyond this is damage; PostgreSQL's limit is 1600 columns, and ids of dropped ones are lost.
const MAX_SLOTS: usize = u16::MAX as usize;

fn damaged(why: &str) -> StorageError {
    StorageError::corrupt(format!("a row {why}"))
}

/// Encodes a row, which has one datum per entry of `table.columns`; missing ones at the end are NULL.
pub fn encode_row(table: &Table, row: &[Datum]) -> Result<Vec<u8>> {
    encode_slots(table.columns.iter().map(|c| c.id).zip(row.iter().chain(std::iter::repeat(&Datum::Null))))
}

/// Encodes any columns, in any order; those not given are absent.
pub fn encode_slots<'a>(columns: impl Iterator<Item = (ColumnId, &'a Datum)> + Clone) -> Result<Vec<u8>> {
    let slots = columns.clone().map(|(id, _)| id.0 as usize + 1).max().unwrap_or(0);
    if slots > MAX_SLOTS {
        return Err(damaged("has a column id out of range"));
    }
    let table = slots * 2;
    let mut out = Vec::with_capacity(HEADER + table + slots * 10);
    out.push(SMALL);
    out.extend_from_slice(&(slots as u16).to_le_bytes());
    out.resize(HEADER + table, 0);
    let start = out.len();
    let mut in_order = true;
    let mut next = 0;
    for (id, datum) in columns.clone() {
        let slot = id.0 as usize;
        if slot < next {
            in_order = false;
            break;
        }
        let here = (out.len() - start) as u16;
        for skipped in next..slot {
            set_small(&mut out, skipped, here);
        }
        encode_value(&mut out, datum)?;
        let end = out.len() - start;
        if end > usize::from(u16::MAX) {
            in_order = false;
            break;
        }
        set_small(&mut out, slot, end as u16);
        next = slot + 1;
    }
    if in_order {
        return Ok(out);
    }
    encode_large(columns, slots)
}

fn set_small(out: &mut [u8], slot: usize, end: u16) {
    let at = HEADER + slot * 2;
    out[at..at + 2].copy_from_slice(&end.to_le_bytes());
}

/// The general case: columns in any order, offsets of four bytes.
fn encode_large<'a>(columns: impl Iterator<Item = (ColumnId, &'a Datum)>, slots: usize) -> Result<Vec<u8>> {
    let mut by_slot: Vec<Option<&Datum>> = vec![None; slots];
    for (id, datum) in columns {
        by_slot[id.0 as usize] = Some(datum);
    }
    let mut out = Vec::with_capacity(HEADER + slots * 16);
    out.push(LARGE);
    out.extend_from_slice(&(slots as u16).to_le_bytes());
    out.resize(HEADER + slots * 4, 0);
    let start = out.len();
    for (slot, datum) in by_slot.into_iter().enumerate() {
        if let Some(datum) = datum {
            encode_value(&mut out, datum)?;
        }
        let end = u32::try_from(out.len() - start).map_err(|_| damaged("is longer than 4 GB"))?;
        let at = HEADER + slot * 4;
        out[at..at + 4].copy_from_slice(&end.to_le_bytes());
    }
    Ok(out)
}

/// A row read in place.
#[derive(Clone, Copy, Debug)]
pub struct RowView<'a> {
    slots: usize,
    large: bool,
    offsets: &'a [u8],
    values: &'a [u8],
}

impl<'a> RowView<'a> {
    /// Looks at an encoded row.
    pub fn new(bytes: &'a [u8]) -> Result<RowView<'a>> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or_else(|| damaged("ends early"))?;
        let large = match header[0] {
            SMALL => false,
            LARGE => true,
            _ => return Err(damaged("has an unknown format")),
        };
        let slots = usize::from(u16::from_le_bytes([header[1], header[2]]));
        let width = if large { 4 } else { 2 };
        let (offsets, values) = rest.split_at_checked(slots * width).ok_or_else(|| damaged("ends early"))?;
        Ok(RowView { slots, large, offsets, values })
    }

    fn end(&self, slot: usize) -> usize {
        if self.large {
            let at = slot * 4;
            self.offsets.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
        } else {
            let at = slot * 2;
            self.offsets.get(at..at + 2).map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])))
        }
    }

    /// The encoded value of a column; `None` if the row has none.
    pub fn raw(&self, column: ColumnId) -> Result<Option<&'a [u8]>> {
        let slot = column.0 as usize;
        if slot >= self.slots {
            return Ok(None);
        }
        let start = if slot == 0 { 0 } else { self.end(slot - 1) };
        let bytes = self.values.get(start..self.end(slot)).ok_or_else(|| damaged("has a broken offset"))?;
        Ok(if bytes.is_empty() { None } else { Some(bytes) })
    }

    /// The value of a column, as its type is now; `None` if the row was written before the column was.
    pub fn column(&self, column: ColumnId, ty: &DataType) -> Result<Option<Datum>> {
        match self.raw(column)? {
            None => Ok(None),
            Some(bytes) => Ok(Some(widen(decode_value(bytes)?, ty))),
        }
    }
}

/// An integer or float written before its column was widened, in its new width; an enumerated value with its
/// label.
fn widen(datum: Datum, ty: &DataType) -> Datum {
    match (datum, ty) {
        (Datum::Int2(v), DataType::Int4) => Datum::Int4(v.into()),
        (Datum::Int2(v), DataType::Int8) => Datum::Int8(v.into()),
        (Datum::Int4(v), DataType::Int8) => Datum::Int8(v.into()),
        (Datum::Float4(v), DataType::Float8) => Datum::Float8(v.into()),
        (datum @ (Datum::Enum(_) | Datum::Array(_)), ty) => datum.labelled(ty),
        (datum, DataType::Domain(domain)) => widen(datum, &domain.base),
        (datum, _) => datum,
    }
}

/// Decodes a row: one datum per entry of `table.columns`; where it has none, because it is older than the
/// column, what the column says is missing.
pub fn decode_row(table: &Table, bytes: &[u8]) -> Result<Row> {
    let view = RowView::new(bytes)?;
    let mut row = Row::with_capacity(table.columns.len());
    for column in &table.columns {
        row.push(view.column(column.id, &column.ty)?.unwrap_or_else(|| column.missing.clone()));
    }
    Ok(row)
}

/// Decodes the columns at these positions of `table.columns`, in this order.
pub fn decode_listed(table: &Table, bytes: &[u8], positions: &[usize]) -> Result<Row> {
    let view = RowView::new(bytes)?;
    let mut row = Row::with_capacity(positions.len());
    for &position in positions {
        let column = table.columns.get(position).ok_or_else(|| damaged("lacks a column"))?;
        row.push(view.column(column.id, &column.ty)?.unwrap_or_else(|| column.missing.clone()));
    }
    Ok(row)
}

/// Decodes the columns at these positions of `table.columns` into the same positions of `out`, which is
/// made as wide as the table; the rest of `out` stays as it is.
pub fn decode_columns(table: &Table, bytes: &[u8], positions: &[usize], out: &mut Row) -> Result<()> {
    let view = RowView::new(bytes)?;
    if out.len() < table.columns.len() {
        out.resize(table.columns.len(), Datum::Null);
    }
    for &position in positions {
        if let (Some(column), Some(slot)) = (table.columns.get(position), out.get_mut(position)) {
            *slot = view.column(column.id, &column.ty)?.unwrap_or_else(|| column.missing.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

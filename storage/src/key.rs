//! Order-preserving keys: comparing two keys byte by byte compares the values they were made of.
//!
//! Everything stored lies under one order:
//!
//! ```text
//!   ┌──────────────┬──────────────┬──────────┬──────────┬───
//!   │ table id, BE │ index id, BE │ column 1 │ column 2 │ …      index 0 is the rows themselves
//!   └──────────────┴──────────────┴──────────┴──────────┴───
//!       4 bytes        4 bytes      tag │ body, self-delimiting
//! ```
//!
//! A column is a tag, which orders kinds as [`Datum`]'s `Ord` does and puts NULL last, and a body:
//!
//! | kind | body |
//! |---|---|
//! | integers of any width | 8 bytes, big endian, sign flipped, so that equal integers are equal keys |
//! | floats | `f64` bits, big endian, flipped so that they sort; −0 is 0, every NaN is one, last |
//! | numeric | class, decimal exponent, digits in pairs; all inverted if negative; trailing zeros gone |
//! | text, bytea | bytes with 00 written as 00 FF, ended by 00 01 |
//! | interval | its comparable length, 16 bytes |
//! | timetz | its instant as of Greenwich, then its zone |
//! | enumerated types | the label's place, as an integer (`user_type.rs`) |
//! | jsonb | see `key/document.rs` |
//! | arrays, records | their columns, ended by a byte below every tag; an array's dimensions after them |
//!
//! An entry of a secondary index has the indexed columns, then the primary key's if the index is not unique
//! or one of its columns is NULL (NULLs seldom conflict); its value is the row's primary key, and what INCLUDE
//! adds. A descending column is inverted bit by bit. Some encodings
//! forget what does not take part in the order (`1.0` and `1.00`, `1 day` and `24:00`, `-0`), so values are
//! read from the row, never from its key, unless [`is_exact`] says so.

mod document;

use std::ops::Range;
use std::sync::Arc;

use num_bigint::{BigInt, Sign};

use crate::array::{Array, Dimension};
use crate::datum::{Datum, Interval, Timetz};
use crate::error::{Result, StorageError};
use crate::numeric::Numeric;
use crate::schema::{Index, IndexId, KeyOrder, Table, TableId};
use crate::types::DataType;
use crate::user_type::Label;

/// Ends an array or record; below every tag.
const END: u8 = 0x01;
/// NULL, above every tag.
const NULL: u8 = 0xff;

const BOOL: u8 = 0x10;
const INT: u8 = 0x11;
const OID: u8 = 0x12;
const FLOAT: u8 = 0x13;
const NUMERIC: u8 = 0x14;
const TEXT: u8 = 0x15;
const BYTEA: u8 = 0x16;
const DATE: u8 = 0x17;
const TIME: u8 = 0x18;
const TIMESTAMP: u8 = 0x19;
const TIMESTAMPTZ: u8 = 0x1a;
const INTERVAL: u8 = 0x1b;
const UUID: u8 = 0x1c;
const JSONB: u8 = 0x1d;
const ARRAY: u8 = 0x1e;
const RECORD: u8 = 0x1f;
const TIMETZ: u8 = 0x20;
const ENUM: u8 = 0x21;

/// After an array's elements: one dimension that begins below 1.
const LOW_SHAPE: u8 = 1;
/// One dimension that begins at 1.
const USUAL_SHAPE: u8 = 2;
/// One dimension that begins above 1.
const HIGH_SHAPE: u8 = 3;
/// Several dimensions: so many more than this.
const MANY_SHAPE: u8 = 2;

/// How deep arrays and records may nest in a key.
const MAX_DEPTH: usize = 16;

/// What all keys of an index begin with.
pub fn table_prefix(table: TableId, index: IndexId) -> [u8; 8] {
    let mut prefix = [0; 8];
    prefix[..4].copy_from_slice(&table.0.to_be_bytes());
    prefix[4..].copy_from_slice(&index.0.to_be_bytes());
    prefix
}

/// All keys of a table, its rows and all its indexes.
pub fn table_range(table: TableId) -> Range<Vec<u8>> {
    prefix_range(&table.0.to_be_bytes())
}

/// All keys of one index.
pub fn index_range(table: TableId, index: IndexId) -> Range<Vec<u8>> {
    prefix_range(&table_prefix(table, index))
}

/// The table and index a key belongs to.
pub fn split_prefix(key: &[u8]) -> Option<(TableId, IndexId, &[u8])> {
    let (table, rest) = key.split_first_chunk::<4>()?;
    let (index, rest) = rest.split_first_chunk::<4>()?;
    Some((TableId(u32::from_be_bytes(*table)), IndexId(u32::from_be_bytes(*index)), rest))
}

/// All keys that begin with these bytes. An empty end means: to the end of the keyspace.
pub fn prefix_range(prefix: &[u8]) -> Range<Vec<u8>> {
    prefix.to_vec()..prefix_successor(prefix)
}

/// The first key after all those that begin with these bytes. Empty if there is none (all bytes are FF).
pub fn prefix_successor(prefix: &[u8]) -> Vec<u8> {
    let kept = prefix.iter().rposition(|&b| b != 0xff).map_or(0, |last| last + 1);
    let mut successor = prefix[..kept].to_vec();
    if let Some(last) = successor.last_mut() {
        *last += 1;
    }
    successor
}

/// The key of the row with this primary key.
pub fn row_key(table: &Table, key: &[Datum]) -> Result<Vec<u8>> {
    let mut out = start(table.keyspace(), IndexId::PRIMARY);
    for datum in key {
        encode_datum(&mut out, datum)?;
    }
    Ok(out)
}

/// The key of this row.
pub fn row_key_of(table: &Table, row: &[Datum]) -> Result<Vec<u8>> {
    let mut out = start(table.keyspace(), IndexId::PRIMARY);
    for &column in &table.primary.columns {
        encode_datum(&mut out, column_of(row, column))?;
    }
    Ok(out)
}

/// The key of this row's entry in a secondary index. The entry's value is [`row_key_of`] the row. `computed`
/// are the values of the index's expressions.
pub fn index_key(table: &Table, index: &Index, row: &[Datum], computed: &[Datum]) -> Result<Vec<u8>> {
    let mut out = start(table.keyspace(), index.id);
    let mut null = false;
    for (place, &column) in index.columns.iter().enumerate() {
        let datum = indexed(row, computed, column);
        null |= datum.is_null();
        encode_ordered(&mut out, datum, index.order(place))?;
    }
    let distinct = !index.unique || (null && !index.nulls_not_distinct);
    if index.id != IndexId::PRIMARY && distinct {
        for &column in &table.primary.columns {
            encode_datum(&mut out, column_of(row, column))?;
        }
    }
    Ok(out)
}

/// What an index has in the place of an entry of [`Index::columns`].
pub fn indexed<'a>(row: &'a [Datum], computed: &'a [Datum], column: usize) -> &'a Datum {
    match column.checked_sub(Index::EXPRESSION) {
        Some(expression) => column_of(computed, expression),
        None => column_of(row, column),
    }
}

/// Appends a column of an index, in the order it has there. A descending value has all its bits inverted;
/// no encoding is the beginning of another, so that reverses their order.
pub fn encode_ordered(out: &mut Vec<u8>, datum: &Datum, order: KeyOrder) -> Result<()> {
    if datum.is_null() {
        out.push(if order.nulls_first { !NULL } else { NULL });
        return Ok(());
    }
    let start = out.len();
    encode_datum(out, datum)?;
    if order.descending {
        out[start..].iter_mut().for_each(|b| *b = !*b);
    }
    Ok(())
}

/// Reads a column of an index back, and how many bytes it had.
pub fn decode_ordered(bytes: &[u8], ty: &DataType, order: KeyOrder) -> Result<(Datum, usize)> {
    match bytes.first() {
        Some(&tag) if tag == NULL || tag == !NULL => Ok((Datum::Null, 1)),
        _ if order.descending => {
            let plain: Vec<u8> = bytes.iter().map(|b| !b).collect();
            let (datum, rest) = decode_datum(&plain, ty)?;
            Ok((datum, plain.len() - rest.len()))
        }
        _ => {
            let (datum, rest) = decode_datum(bytes, ty)?;
            Ok((datum, bytes.len() - rest.len()))
        }
    }
}

fn start(table: TableId, index: IndexId) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    out.extend_from_slice(&table_prefix(table, index));
    out
}

fn column_of(row: &[Datum], position: usize) -> &Datum {
    row.get(position).unwrap_or(&Datum::Null)
}

/// True of types whose values can be read back from a key just as they were written.
pub fn is_exact(ty: &DataType) -> bool {
    match ty {
        DataType::Float4
        | DataType::Float8
        | DataType::Numeric(_)
        | DataType::Interval(_)
        | DataType::Jsonb
        | DataType::Record
        | DataType::Row(_)
        | DataType::Crdt(_) => false,
        DataType::Array(t) => is_exact(t),
        _ => true,
    }
}

/// Appends one column.
pub fn encode_datum(out: &mut Vec<u8>, datum: &Datum) -> Result<()> {
    encode_nested(out, datum, 0)
}

fn encode_nested(out: &mut Vec<u8>, datum: &Datum, depth: usize) -> Result<()> {
    match datum {
        Datum::Null => out.push(NULL),
        Datum::Bool(v) => out.extend_from_slice(&[BOOL, u8::from(*v)]),
        Datum::Int2(v) => signed(out, INT, i64::from(*v)),
        Datum::Int4(v) => signed(out, INT, i64::from(*v)),
        Datum::Int8(v) => signed(out, INT, *v),
        Datum::Oid(v) => {
            out.push(OID);
            out.extend_from_slice(&v.to_be_bytes());
        }
        Datum::Float4(v) => float(out, f64::from(*v)),
        Datum::Float8(v) => float(out, *v),
        Datum::Numeric(n) => {
            out.push(NUMERIC);
            encode_numeric(out, n);
        }
        Datum::Text(s) => escaped(out, TEXT, s.as_bytes()),
        Datum::Bytea(b) => escaped(out, BYTEA, b),
        Datum::Date(d) => {
            out.push(DATE);
            out.extend_from_slice(&((*d as u32) ^ (1 << 31)).to_be_bytes());
        }
        Datum::Time(v) => signed(out, TIME, *v),
        Datum::Timetz(v) => {
            signed(out, TIMETZ, v.utc());
            out.extend_from_slice(&((v.west as u32) ^ (1 << 31)).to_be_bytes());
        }
        Datum::Enum(v) => signed(out, ENUM, v.place),
        Datum::Timestamp(v) => signed(out, TIMESTAMP, *v),
        Datum::Timestamptz(v) => signed(out, TIMESTAMPTZ, *v),
        Datum::Interval(v) => {
            out.push(INTERVAL);
            out.extend_from_slice(&((v.comparable() as u128) ^ (1 << 127)).to_be_bytes());
        }
        Datum::Uuid(u) => {
            out.push(UUID);
            out.extend_from_slice(&u[..]);
        }
        Datum::Jsonb(json) => {
            out.push(JSONB);
            document::encode(out, json);
        }
        Datum::Array(a) => {
            sequence(out, ARRAY, &a.items, depth)?;
            shape(out, a);
        }
        Datum::Record(r) => return sequence(out, RECORD, r, depth),
    }
    Ok(())
}

fn sequence(out: &mut Vec<u8>, tag: u8, items: &[Datum], depth: usize) -> Result<()> {
    if depth >= MAX_DEPTH {
        return Err(StorageError::TooDeep(MAX_DEPTH));
    }
    out.push(tag);
    for item in items {
        encode_nested(out, item, depth + 1)?;
    }
    out.push(END);
    Ok(())
}

/// An array's dimensions, after its elements: how many, their lengths, where they begin. The length of a
/// single one is the number of elements, which is known.
fn shape(out: &mut Vec<u8>, array: &Array) {
    let Some(dimensions) = &array.shape else { return out.push(USUAL_SHAPE) };
    out.push(match &dimensions[..] {
        [one] if one.lower < 1 => LOW_SHAPE,
        [_] => HIGH_SHAPE,
        // At most `MAX_DIMENSIONS`.
        many => MANY_SHAPE + many.len() as u8,
    });
    if dimensions.len() > 1 {
        dimensions.iter().for_each(|d| out.extend_from_slice(&d.length.to_be_bytes()));
    }
    dimensions.iter().for_each(|d| out.extend_from_slice(&((d.lower as u32) ^ (1 << 31)).to_be_bytes()));
}

fn take_shape(bytes: &[u8], items: usize) -> Result<(Vec<Dimension>, &[u8])> {
    let ([kind], mut rest) = take::<1>(bytes)?;
    let count = match kind {
        USUAL_SHAPE => return Ok((vec![Dimension::from_one(items)], rest)),
        LOW_SHAPE | HIGH_SHAPE => 1,
        many => usize::from(many.saturating_sub(MANY_SHAPE)),
    };
    let mut dimensions = vec![Dimension::from_one(items); count];
    if dimensions.len() > 1 {
        for dimension in &mut dimensions {
            let (length, after) = take::<4>(rest)?;
            dimension.length = u32::from_be_bytes(length);
            rest = after;
        }
    }
    for dimension in &mut dimensions {
        let (lower, after) = take::<4>(rest)?;
        dimension.lower = (u32::from_be_bytes(lower) ^ (1 << 31)) as i32;
        rest = after;
    }
    Ok((dimensions, rest))
}

fn signed(out: &mut Vec<u8>, tag: u8, v: i64) {
    out.push(tag);
    out.extend_from_slice(&((v as u64) ^ (1 << 63)).to_be_bytes());
}

fn float(out: &mut Vec<u8>, v: f64) {
    out.push(FLOAT);
    // -0 + 0 is 0; the canonical NaN is positive and so greater than infinity.
    let bits = if v.is_nan() { f64::NAN.abs().to_bits() } else { (v + 0.0).to_bits() };
    let ordered = if bits >> 63 == 1 { !bits } else { bits ^ (1 << 63) };
    out.extend_from_slice(&ordered.to_be_bytes());
}

fn escaped(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.reserve(bytes.len() + 3);
    out.push(tag);
    let mut rest = bytes;
    while let Some(zero) = rest.iter().position(|&b| b == 0) {
        out.extend_from_slice(&rest[..=zero]);
        out.push(0xff);
        rest = &rest[zero + 1..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(&[0x00, 0x01]);
}

// Classes of numeric, in their order.
const NEG_INFINITY: u8 = 1;
const NEGATIVE: u8 = 2;
const ZERO: u8 = 3;
const POSITIVE: u8 = 4;
const INFINITY: u8 = 5;
const NAN: u8 = 6;

/// A number is `0.d₁d₂d₃… × 10^exponent` with d₁ ≠ 0: the exponent orders first, then the digits. Digits go
/// two to a byte (1 to 100) and end with 0, below all of them. A negative number is the same, inverted.
fn encode_numeric(out: &mut Vec<u8>, n: &Numeric) {
    let d = match n {
        Numeric::NegInfinity => return out.push(NEG_INFINITY),
        Numeric::Infinity => return out.push(INFINITY),
        Numeric::NaN => return out.push(NAN),
        Numeric::Finite(d) => d,
    };
    let (value, scale) = d.as_bigint_and_scale();
    let negative = match value.sign() {
        Sign::NoSign => return out.push(ZERO),
        Sign::Minus => true,
        Sign::Plus => false,
    };
    out.push(if negative { NEGATIVE } else { POSITIVE });
    let digits = value.magnitude().to_string().into_bytes();
    let exponent = (digits.len() as i64).saturating_sub(scale);
    let significant = digits.iter().rposition(|&c| c != b'0').map_or(0, |last| last + 1);
    let body = out.len();
    out.extend_from_slice(&((exponent as u64) ^ (1 << 63)).to_be_bytes());
    for pair in digits[..significant].chunks(2) {
        let (tens, units) = (pair[0] - b'0', pair.get(1).map_or(0, |u| u - b'0'));
        out.push(tens * 10 + units + 1);
    }
    out.push(0);
    if negative {
        out[body..].iter_mut().for_each(|b| *b = !*b);
    }
}

/// Reads one column back, as a value of the given type, and what follows it.
pub fn decode_datum<'a>(bytes: &'a [u8], ty: &DataType) -> Result<(Datum, &'a [u8])> {
    decode_nested(bytes, ty, 0)
}

fn damaged(why: &str) -> StorageError {
    StorageError::corrupt(format!("a key {why}"))
}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8])> {
    bytes.split_first_chunk::<N>().map(|(head, rest)| (*head, rest)).ok_or_else(|| damaged("ends early"))
}

fn take_signed(bytes: &[u8]) -> Result<(i64, &[u8])> {
    let (body, rest) = take::<8>(bytes)?;
    Ok(((u64::from_be_bytes(body) ^ (1 << 63)) as i64, rest))
}

fn decode_nested<'a>(bytes: &'a [u8], ty: &DataType, depth: usize) -> Result<(Datum, &'a [u8])> {
    if depth > MAX_DEPTH {
        return Err(StorageError::TooDeep(MAX_DEPTH));
    }
    let (&tag, rest) = bytes.split_first().ok_or_else(|| damaged("ends early"))?;
    Ok(match tag {
        NULL => (Datum::Null, rest),
        BOOL => {
            let ([b], rest) = take::<1>(rest)?;
            (Datum::Bool(b != 0), rest)
        }
        INT => {
            let (v, rest) = take_signed(rest)?;
            let narrow = || damaged("holds an integer too wide for its column");
            let datum = match ty.base() {
                DataType::Int2 => Datum::Int2(i16::try_from(v).map_err(|_| narrow())?),
                DataType::Int4 => Datum::Int4(i32::try_from(v).map_err(|_| narrow())?),
                _ => Datum::Int8(v),
            };
            (datum, rest)
        }
        OID => {
            let (v, rest) = take::<4>(rest)?;
            (Datum::Oid(u32::from_be_bytes(v)), rest)
        }
        FLOAT => {
            let (v, rest) = take::<8>(rest)?;
            let ordered = u64::from_be_bytes(v);
            let v = f64::from_bits(if ordered >> 63 == 1 { ordered ^ (1 << 63) } else { !ordered });
            let datum =
                if ty.base() == DataType::Float4 { Datum::Float4(v as f32) } else { Datum::Float8(v) };
            (datum, rest)
        }
        NUMERIC => {
            let (n, rest) = decode_numeric(rest)?;
            (Datum::numeric(n), rest)
        }
        TEXT => {
            let (bytes, rest) = unescaped(rest)?;
            let text = String::from_utf8(bytes).map_err(|_| damaged("holds text that is not UTF-8"))?;
            (Datum::text(text), rest)
        }
        BYTEA => {
            let (bytes, rest) = unescaped(rest)?;
            (Datum::Bytea(bytes.into()), rest)
        }
        DATE => {
            let (v, rest) = take::<4>(rest)?;
            (Datum::Date((u32::from_be_bytes(v) ^ (1 << 31)) as i32), rest)
        }
        TIME => take_signed(rest).map(|(v, rest)| (Datum::Time(v), rest))?,
        ENUM => take_signed(rest).map(|(v, rest)| (Datum::Enum(Label::at(v).into()).labelled(ty), rest))?,
        TIMESTAMP => take_signed(rest).map(|(v, rest)| (Datum::Timestamp(v), rest))?,
        TIMESTAMPTZ => take_signed(rest).map(|(v, rest)| (Datum::Timestamptz(v), rest))?,
        INTERVAL => {
            let (v, rest) = take::<16>(rest)?;
            let length = (u128::from_be_bytes(v) ^ (1 << 127)) as i128;
            (Datum::Interval(interval_of(length)?.into()), rest)
        }
        UUID => {
            let (v, rest) = take::<16>(rest)?;
            (Datum::uuid(v), rest)
        }
        TIMETZ => {
            let (utc, rest) = take_signed(rest)?;
            let (west, rest) = take::<4>(rest)?;
            let west = (u32::from_be_bytes(west) ^ (1 << 31)) as i32;
            (Datum::Timetz(Timetz { micros: utc - i64::from(west) * 1_000_000, west }), rest)
        }
        JSONB => {
            let (json, rest) = document::decode(rest)?;
            (Datum::jsonb(json), rest)
        }
        ARRAY | RECORD => {
            let element = match ty.base() {
                DataType::Array(t) => *t,
                _ => DataType::Unknown,
            };
            let (mut items, mut rest) = (Vec::new(), rest);
            while rest.first() != Some(&END) {
                let (item, after) = decode_nested(rest, &element, depth + 1)?;
                items.push(item);
                rest = after;
            }
            let rest = &rest[1..];
            if tag == RECORD {
                return Ok((Datum::Record(items.into()), rest));
            }
            let (dimensions, rest) = take_shape(rest, items.len())?;
            let array = Array::shaped(element, items, &dimensions);
            let array = array.ok_or_else(|| damaged("has an array of another shape"))?;
            (Datum::Array(Arc::new(array)), rest)
        }
        _ => return Err(damaged("has an unknown tag")),
    })
}

fn unescaped(bytes: &[u8]) -> Result<(Vec<u8>, &[u8])> {
    let (mut out, mut rest) = (Vec::new(), bytes);
    loop {
        let zero = rest.iter().position(|&b| b == 0).ok_or_else(|| damaged("ends early"))?;
        out.extend_from_slice(&rest[..zero]);
        match rest.get(zero + 1) {
            Some(0x01) => return Ok((out, &rest[zero + 2..])),
            Some(0xff) => out.push(0),
            _ => return Err(damaged("has a broken escape")),
        }
        rest = &rest[zero + 2..];
    }
}

fn decode_numeric(bytes: &[u8]) -> Result<(Numeric, &[u8])> {
    let ([class], rest) = take::<1>(bytes)?;
    let flip = match class {
        NEG_INFINITY => return Ok((Numeric::NegInfinity, rest)),
        ZERO => return Ok((Numeric::from(0), rest)),
        INFINITY => return Ok((Numeric::Infinity, rest)),
        NAN => return Ok((Numeric::NaN, rest)),
        NEGATIVE => 0xff,
        POSITIVE => 0x00,
        _ => return Err(damaged("has an unknown class of numeric")),
    };
    let (exponent, rest) = take::<8>(rest)?;
    let exponent = (u64::from_be_bytes(exponent.map(|b| b ^ flip)) ^ (1 << 63)) as i64;
    let end = rest.iter().position(|&b| b == flip).ok_or_else(|| damaged("ends early"))?;
    let mut digits = Vec::with_capacity(end * 2);
    for &byte in &rest[..end] {
        match byte ^ flip {
            pair @ 1..=100 => digits.extend_from_slice(&[b'0' + (pair - 1) / 10, b'0' + (pair - 1) % 10]),
            _ => return Err(damaged("has a broken digit")),
        }
    }
    if digits.last() == Some(&b'0') {
        digits.pop();
    }
    let magnitude = BigInt::parse_bytes(&digits, 10).ok_or_else(|| damaged("has no digits"))?;
    let value = if flip == 0 { magnitude } else { -magnitude };
    let scale = (digits.len() as i64).checked_sub(exponent).ok_or_else(|| damaged("has a huge exponent"))?;
    // More than PostgreSQL's limits on a numeric (131072 digits before the point) is damage, and would
    // ask for as many zeros.
    if scale < -200_000 {
        return Err(damaged("has a huge exponent"));
    }
    Ok((Numeric::finite(bigdecimal::BigDecimal::new(value, scale)), &rest[end + 1..]))
}

/// An interval of this comparable length.
fn interval_of(length: i128) -> Result<Interval> {
    const DAY: i128 = 86_400_000_000;
    let (days, micros) = (length.div_euclid(DAY), length.rem_euclid(DAY) as i64);
    let months = (days / 30).clamp(i128::from(i32::MIN), i128::from(i32::MAX)) as i32;
    let left = days - i128::from(months) * 30;
    let too_long = || damaged("holds an interval out of range");
    match i32::try_from(left) {
        Ok(days) => Ok(Interval { months, days, micros }),
        Err(_) => {
            let days = left.clamp(i128::from(i32::MIN), i128::from(i32::MAX)) as i32;
            let over = (left - i128::from(days)) * DAY + i128::from(micros);
            Ok(Interval { months, days, micros: i64::try_from(over).map_err(|_| too_long())? })
        }
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;

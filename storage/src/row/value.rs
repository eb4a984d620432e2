//! One value at rest: a tag and a payload that ends where the value's slot ends.

use std::sync::Arc;

use bigdecimal::BigDecimal;
use num_bigint::BigInt;

use super::document;
use crate::array::{Array, Dimension};
use crate::codec;
use crate::datum::{Datum, Interval, Timetz};
use crate::error::{Result, StorageError};
use crate::numeric::Numeric;
use crate::types::DataType;
use crate::user_type::Label;

// Tags are on disk for ever: add, never change.
const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT2: u8 = 3;
const INT4: u8 = 4;
const INT8: u8 = 5;
const OID: u8 = 6;
const FLOAT4: u8 = 7;
const FLOAT8: u8 = 8;
const NUMERIC: u8 = 9;
const NUMERIC_NAN: u8 = 10;
const NUMERIC_INFINITY: u8 = 11;
const NUMERIC_NEG_INFINITY: u8 = 12;
const TEXT: u8 = 13;
const BYTEA: u8 = 14;
const DATE: u8 = 15;
const TIME: u8 = 16;
const TIMESTAMP: u8 = 17;
const TIMESTAMPTZ: u8 = 18;
const INTERVAL: u8 = 19;
const UUID: u8 = 20;
const JSONB: u8 = 21;
const ARRAY: u8 = 22;
const RECORD: u8 = 23;
/// Text that ends in spaces, as char(n) does: how many, then the rest.
const PADDED_TEXT: u8 = 24;
const TIMETZ: u8 = 25;
const ENUM: u8 = 26;

/// How deep arrays and records may nest.
const MAX_DEPTH: usize = 64;
/// So many spaces at the end of a text are counted instead of kept …
const MIN_PADDING: usize = 4;
/// … but not more, so that damage cannot ask for more memory than this.
const MAX_PADDING: usize = 16 << 20;
const SPACES: &str = "                                                                ";
/// An encoded element type is shorter than this.
const MAX_TYPE: usize = 64;

pub(super) fn damaged(why: &str) -> StorageError {
    StorageError::corrupt(format!("a value {why}"))
}

/// Appends a value.
pub fn encode_value(out: &mut Vec<u8>, datum: &Datum) -> Result<()> {
    encode(out, datum, 0)
}

/// Reads a value that fills these bytes.
pub fn decode_value(bytes: &[u8]) -> Result<Datum> {
    decode(bytes, 0)
}

fn encode(out: &mut Vec<u8>, datum: &Datum, depth: usize) -> Result<()> {
    match datum {
        Datum::Null => out.push(NULL),
        Datum::Bool(false) => out.push(FALSE),
        Datum::Bool(true) => out.push(TRUE),
        Datum::Int2(v) => integer(out, INT2, i64::from(*v)),
        Datum::Int4(v) => integer(out, INT4, i64::from(*v)),
        Datum::Int8(v) => integer(out, INT8, *v),
        Datum::Oid(v) => fixed(out, OID, v.to_le_bytes()),
        Datum::Float4(v) => fixed(out, FLOAT4, v.to_le_bytes()),
        Datum::Float8(v) => fixed(out, FLOAT8, v.to_le_bytes()),
        Datum::Numeric(n) => encode_numeric(out, n),
        Datum::Text(s) => encode_text(out, s),
        Datum::Bytea(b) => tagged(out, BYTEA, b),
        Datum::Date(v) => integer(out, DATE, i64::from(*v)),
        Datum::Time(v) => integer(out, TIME, *v),
        Datum::Timetz(v) => {
            out.push(TIMETZ);
            out.extend_from_slice(&v.west.to_le_bytes());
            out.extend_from_slice(&v.micros.to_le_bytes());
        }
        Datum::Enum(v) => integer(out, ENUM, v.place),
        Datum::Timestamp(v) => integer(out, TIMESTAMP, *v),
        Datum::Timestamptz(v) => integer(out, TIMESTAMPTZ, *v),
        Datum::Interval(v) => {
            out.push(INTERVAL);
            out.extend_from_slice(&v.months.to_le_bytes());
            out.extend_from_slice(&v.days.to_le_bytes());
            out.extend_from_slice(&v.micros.to_le_bytes());
        }
        Datum::Uuid(v) => tagged(out, UUID, &v[..]),
        Datum::Jsonb(v) => {
            out.push(JSONB);
            document::encode(out, &v.0)?;
        }
        Datum::Array(a) => {
            out.push(ARRAY);
            let element = codec::encode(&a.element);
            put_varint(out, element.len() as u64);
            out.extend_from_slice(&element);
            let shape = a.shape.as_deref().unwrap_or_default();
            put_varint(out, shape.len() as u64);
            for dimension in shape {
                out.extend_from_slice(&dimension.length.to_le_bytes());
                out.extend_from_slice(&dimension.lower.to_le_bytes());
            }
            encode_items(out, &a.items, depth)?;
        }
        Datum::Record(r) => {
            out.push(RECORD);
            encode_items(out, r, depth)?;
        }
    }
    Ok(())
}

fn encode_items(out: &mut Vec<u8>, items: &[Datum], depth: usize) -> Result<()> {
    if depth >= MAX_DEPTH {
        return Err(StorageError::TooDeep(MAX_DEPTH));
    }
    put_varint(out, items.len() as u64);
    let mut item_bytes = Vec::new();
    for item in items {
        item_bytes.clear();
        encode(&mut item_bytes, item, depth + 1)?;
        put_varint(out, item_bytes.len() as u64);
        out.extend_from_slice(&item_bytes);
    }
    Ok(())
}

fn tagged(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.reserve(bytes.len() + 1);
    out.push(tag);
    out.extend_from_slice(bytes);
}

fn encode_text(out: &mut Vec<u8>, text: &str) {
    let kept = text.trim_end_matches(' ');
    match text.len() - kept.len() {
        padding @ MIN_PADDING..=MAX_PADDING => {
            out.push(PADDED_TEXT);
            put_varint(out, padding as u64);
            out.extend_from_slice(kept.as_bytes());
        }
        _ => tagged(out, TEXT, text.as_bytes()),
    }
}

fn decode_text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| damaged("is text that is not UTF-8"))
}

fn decode_padded(bytes: &[u8]) -> Result<Datum> {
    let (padding, kept) = take_varint(bytes)?;
    let padding = usize::try_from(padding).ok().filter(|n| *n <= MAX_PADDING);
    let padding = padding.ok_or_else(|| damaged("has too many spaces"))?;
    let kept = decode_text(kept)?;
    let mut text = String::with_capacity(kept.len() + padding);
    text.push_str(kept);
    let mut missing = padding;
    while missing > 0 {
        let some = missing.min(SPACES.len());
        text.push_str(&SPACES[..some]);
        missing -= some;
    }
    Ok(Datum::Text(text.into()))
}

fn fixed<const N: usize>(out: &mut Vec<u8>, tag: u8, bytes: [u8; N]) {
    out.push(tag);
    out.extend_from_slice(&bytes);
}

/// Little endian, without the bytes that only repeat the sign: 0 takes none, −128 to 127 take one.
fn integer(out: &mut Vec<u8>, tag: u8, v: i64) {
    out.push(tag);
    if v == 0 {
        return;
    }
    let magnitude = if v < 0 { !v } else { v };
    let bits = 65 - magnitude.leading_zeros() as usize;
    out.extend_from_slice(&v.to_le_bytes()[..bits.div_ceil(8)]);
}

fn read_integer(bytes: &[u8]) -> Result<i64> {
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut wide = if negative { [0xff; 8] } else { [0; 8] };
    wide.get_mut(..bytes.len())
        .ok_or_else(|| damaged("is an integer of more than 8 bytes"))?
        .copy_from_slice(bytes);
    Ok(i64::from_le_bytes(wide))
}

fn encode_numeric(out: &mut Vec<u8>, n: &Numeric) {
    match n {
        Numeric::NaN => out.push(NUMERIC_NAN),
        Numeric::Infinity => out.push(NUMERIC_INFINITY),
        Numeric::NegInfinity => out.push(NUMERIC_NEG_INFINITY),
        Numeric::Finite(d) => {
            out.push(NUMERIC);
            let (digits, scale) = d.as_bigint_and_scale();
            put_varint(out, ((scale << 1) ^ (scale >> 63)) as u64);
            match i64::try_from(digits.as_ref()) {
                Ok(v) => {
                    let magnitude = if v < 0 { !v } else { v };
                    let bits = 65 - magnitude.leading_zeros() as usize;
                    out.extend_from_slice(&v.to_le_bytes()[..bits.div_ceil(8)]);
                }
                Err(_) => out.extend_from_slice(&digits.to_signed_bytes_le()),
            }
        }
    }
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| damaged("has the wrong length"))
}

fn decode(bytes: &[u8], depth: usize) -> Result<Datum> {
    let (&tag, body) = bytes.split_first().ok_or_else(|| damaged("is empty"))?;
    let narrow = || damaged("is out of its type's range");
    Ok(match tag {
        NULL => Datum::Null,
        FALSE => Datum::Bool(false),
        TRUE => Datum::Bool(true),
        INT2 => Datum::Int2(read_integer(body)?.try_into().map_err(|_| narrow())?),
        INT4 => Datum::Int4(read_integer(body)?.try_into().map_err(|_| narrow())?),
        INT8 => Datum::Int8(read_integer(body)?),
        OID => Datum::Oid(u32::from_le_bytes(exactly(body)?)),
        FLOAT4 => Datum::Float4(f32::from_le_bytes(exactly(body)?)),
        FLOAT8 => Datum::Float8(f64::from_le_bytes(exactly(body)?)),
        NUMERIC => {
            let (zigzag, digits) = take_varint(body)?;
            let scale = ((zigzag >> 1) as i64) ^ -((zigzag & 1) as i64);
            if scale < 0 {
                return Err(damaged("is a numeric of negative scale"));
            }
            let digits = match read_integer(digits) {
                Ok(small) => BigInt::from(small),
                Err(_) => BigInt::from_signed_bytes_le(digits),
            };
            Datum::numeric(Numeric::Finite(BigDecimal::new(digits, scale)))
        }
        NUMERIC_NAN => Datum::numeric(Numeric::NaN),
        NUMERIC_INFINITY => Datum::numeric(Numeric::Infinity),
        NUMERIC_NEG_INFINITY => Datum::numeric(Numeric::NegInfinity),
        TEXT => Datum::Text(Arc::from(decode_text(body)?)),
        PADDED_TEXT => decode_padded(body)?,
        BYTEA => Datum::Bytea(Arc::from(body)),
        DATE => Datum::Date(read_integer(body)?.try_into().map_err(|_| narrow())?),
        TIME => Datum::Time(read_integer(body)?),
        TIMETZ => {
            let fields: [u8; 12] = exactly(body)?;
            let [a, b, c, d, micros @ ..] = fields;
            Datum::Timetz(Timetz {
                west: i32::from_le_bytes([a, b, c, d]),
                micros: i64::from_le_bytes(micros),
            })
        }
        ENUM => Datum::Enum(Arc::new(Label::at(read_integer(body)?))),
        TIMESTAMP => Datum::Timestamp(read_integer(body)?),
        TIMESTAMPTZ => Datum::Timestamptz(read_integer(body)?),
        INTERVAL => {
            let fields: [u8; 16] = exactly(body)?;
            let [a, b, c, d, e, f, g, h, micros @ ..] = fields;
            Datum::Interval(Arc::new(Interval {
                months: i32::from_le_bytes([a, b, c, d]),
                days: i32::from_le_bytes([e, f, g, h]),
                micros: i64::from_le_bytes(micros),
            }))
        }
        UUID => Datum::uuid(exactly(body)?),
        JSONB => Datum::jsonb(crate::Json(document::decode(body)?)),
        ARRAY => {
            let (length, rest) = take_varint(body)?;
            let (element, rest) = take_bytes(rest, length)?;
            if element.len() > MAX_TYPE {
                return Err(damaged("is an array of too long a type"));
            }
            let element: DataType = codec::decode(element)?;
            let (count, mut rest) = take_varint(rest)?;
            let mut shape = Vec::new();
            for _ in 0..count.min(crate::array::MAX_DIMENSIONS as u64) {
                let (dimension, after) = take_bytes(rest, 8)?;
                let [a, b, c, d, e, f, g, h] = exactly(dimension)?;
                let length = u32::from_le_bytes([a, b, c, d]);
                shape.push(Dimension { length, lower: i32::from_le_bytes([e, f, g, h]) });
                rest = after;
            }
            let items = decode_items(rest, depth)?;
            if shape.is_empty() {
                return Ok(Datum::array(element, items));
            }
            let array = Array::shaped(element, items, &shape);
            Datum::Array(Arc::new(array.ok_or_else(|| damaged("is an array of another shape"))?))
        }
        RECORD => Datum::Record(decode_items(body, depth)?.into()),
        _ => return Err(damaged("has an unknown tag")),
    })
}

fn decode_items(bytes: &[u8], depth: usize) -> Result<Vec<Datum>> {
    if depth >= MAX_DEPTH {
        return Err(StorageError::TooDeep(MAX_DEPTH));
    }
    let (count, mut rest) = take_varint(bytes)?;
    // Every item takes two bytes at least, so the input bounds the allocation.
    let mut items = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(rest.len() / 2));
    for _ in 0..count {
        let (length, after) = take_varint(rest)?;
        let (item, after) = take_bytes(after, length)?;
        items.push(decode(item, depth + 1)?);
        rest = after;
    }
    if rest.is_empty() { Ok(items) } else { Err(damaged("has bytes left over")) }
}

/// Appends an integer, seven bits to a byte, least significant first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

pub(super) fn take_varint(bytes: &[u8]) -> Result<(u64, &[u8])> {
    let mut v = 0;
    for (i, &byte) in bytes.iter().take(10).enumerate() {
        v |= u64::from(byte & 0x7f) << (7 * i).min(63);
        if byte & 0x80 == 0 {
            return Ok((v, &bytes[i + 1..]));
        }
    }
    Err(damaged("has a broken length"))
}

pub(super) fn take_bytes(bytes: &[u8], length: u64) -> Result<(&[u8], &[u8])> {
    let length = usize::try_from(length).map_err(|_| damaged("ends early"))?;
    bytes.split_at_checked(length).ok_or_else(|| damaged("ends early"))
}

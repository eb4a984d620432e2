//! `jsonb` in keys, in PostgreSQL's order: Object > Array > Boolean > Number > String > Null, containers by
//! size first, and an empty array at the top before every scalar.
//!
//! ```text
//!   document   01                                        []
//!              02 value                                  a scalar
//!              03 value                                  another array or object
//!   value      00 | 01 text | 02 numeric | 03 bool | 04 count value… | 05 count (length key value)…
//! ```
//!
//! A key's bytes are the keys' order: an object's keys go shorter ones first. A number forgets its trailing
//! zeros, as a numeric does.

use serde_json::{Map, Number, Value};

use super::{damaged, decode_numeric, encode_numeric, escaped, take, unescaped};
use crate::error::Result;
use crate::json::{Json, number, sorted};
use crate::numeric::Numeric;

const EMPTY: u8 = 1;
const SCALAR: u8 = 2;
const CONTAINER: u8 = 3;

const NULL: u8 = 0;
const STRING: u8 = 1;
const NUMBER: u8 = 2;
const BOOL: u8 = 3;
const ARRAY: u8 = 4;
const OBJECT: u8 = 5;

/// How deep documents nest; the parser allows no more.
const MAX_DEPTH: usize = 1000;

/// Appends a document.
pub(super) fn encode(out: &mut Vec<u8>, json: &Json) {
    match &json.0 {
        Value::Array(items) if items.is_empty() => return out.push(EMPTY),
        Value::Array(_) | Value::Object(_) => out.push(CONTAINER),
        _ => out.push(SCALAR),
    }
    value(out, &json.0);
}

fn value(out: &mut Vec<u8>, json: &Value) {
    let count = |out: &mut Vec<u8>, n: usize| out.extend_from_slice(&(n as u32).to_be_bytes());
    match json {
        Value::Null => out.push(NULL),
        Value::String(text) => escaped(out, STRING, text.as_bytes()),
        Value::Number(n) => {
            out.push(NUMBER);
            encode_numeric(out, &Numeric::finite(number(n)));
        }
        Value::Bool(b) => out.extend_from_slice(&[BOOL, u8::from(*b)]),
        Value::Array(items) => {
            out.push(ARRAY);
            count(out, items.len());
            items.iter().for_each(|item| value(out, item));
        }
        Value::Object(entries) => {
            out.push(OBJECT);
            count(out, entries.len());
            for (key, inner) in sorted(entries) {
                count(out, key.len());
                out.extend_from_slice(key.as_bytes());
                value(out, inner);
            }
        }
    }
}

/// Reads a document back, and what follows it.
pub(super) fn decode(bytes: &[u8]) -> Result<(Json, &[u8])> {
    let ([kind], rest) = take::<1>(bytes)?;
    if kind == EMPTY {
        return Ok((Json(Value::Array(Vec::new())), rest));
    }
    let (value, rest) = read(rest, 0)?;
    Ok((Json(value), rest))
}

fn read(bytes: &[u8], depth: usize) -> Result<(Value, &[u8])> {
    if depth > MAX_DEPTH {
        return Err(damaged("holds a document that is too deep"));
    }
    let ([kind], rest) = take::<1>(bytes)?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| damaged("holds text that is not UTF-8"));
    Ok(match kind {
        NULL => (Value::Null, rest),
        STRING => {
            let (bytes, rest) = unescaped(rest)?;
            (Value::String(text(bytes)?), rest)
        }
        NUMBER => {
            let (numeric, rest) = decode_numeric(rest)?;
            let Numeric::Finite(finite) = numeric else { return Err(damaged("holds a broken number")) };
            let number: Number =
                finite.to_plain_string().parse().map_err(|_| damaged("holds a broken number"))?;
            (Value::Number(number), rest)
        }
        BOOL => {
            let ([b], rest) = take::<1>(rest)?;
            (Value::Bool(b != 0), rest)
        }
        ARRAY => {
            let (count, mut rest) = take::<4>(rest)?;
            let mut items = Vec::new();
            for _ in 0..u32::from_be_bytes(count) {
                let (item, after) = read(rest, depth + 1)?;
                items.push(item);
                rest = after;
            }
            (Value::Array(items), rest)
        }
        OBJECT => {
            let (count, mut rest) = take::<4>(rest)?;
            let mut entries = Map::new();
            for _ in 0..u32::from_be_bytes(count) {
                let (length, after) = take::<4>(rest)?;
                let length = u32::from_be_bytes(length) as usize;
                let (key, after) = after.split_at_checked(length).ok_or_else(|| damaged("ends early"))?;
                let (inner, after) = read(after, depth + 1)?;
                entries.insert(text(key.to_vec())?, inner);
                rest = after;
            }
            (Value::Object(entries), rest)
        }
        _ => return Err(damaged("has an unknown kind of JSON")),
    })
}

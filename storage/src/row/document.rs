//! A `jsonb` document at rest: a tag per node, lengths before what has one, numbers as they were written.

use serde_json::{Map, Number, Value};

use super::value::{damaged, put_varint, take_bytes, take_varint};
use crate::error::{Result, StorageError};

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const NUMBER: u8 = 3;
const STRING: u8 = 4;
const ARRAY: u8 = 5;
const OBJECT: u8 = 6;

/// How deep a document may nest. Bounds the stack of whoever walks it.
const MAX_DEPTH: usize = 512;

/// Appends a document.
pub(super) fn encode(out: &mut Vec<u8>, value: &Value) -> Result<()> {
    put(out, value, 0)
}

/// Reads a document that fills these bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Value> {
    let (value, rest) = take(bytes, 0)?;
    if rest.is_empty() { Ok(value) } else { Err(damaged("has bytes left over")) }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put(out: &mut Vec<u8>, value: &Value, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(StorageError::TooDeep(MAX_DEPTH));
    }
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(b) => out.push(if *b { TRUE } else { FALSE }),
        Value::Number(n) => {
            out.push(NUMBER);
            put_text(out, &n.to_string());
        }
        Value::String(s) => {
            out.push(STRING);
            put_text(out, s);
        }
        Value::Array(items) => {
            out.push(ARRAY);
            put_varint(out, items.len() as u64);
            for item in items {
                put(out, item, depth + 1)?;
            }
        }
        Value::Object(fields) => {
            out.push(OBJECT);
            put_varint(out, fields.len() as u64);
            for (name, field) in fields {
                put_text(out, name);
                put(out, field, depth + 1)?;
            }
        }
    }
    Ok(())
}

fn take_text(bytes: &[u8]) -> Result<(&str, &[u8])> {
    let (length, rest) = take_varint(bytes)?;
    let (text, rest) = take_bytes(rest, length)?;
    Ok((std::str::from_utf8(text).map_err(|_| damaged("is text that is not UTF-8"))?, rest))
}

fn take(bytes: &[u8], depth: usize) -> Result<(Value, &[u8])> {
    if depth > MAX_DEPTH {
        return Err(StorageError::TooDeep(MAX_DEPTH));
    }
    let (&tag, rest) = bytes.split_first().ok_or_else(|| damaged("ends early"))?;
    Ok(match tag {
        NULL => (Value::Null, rest),
        FALSE => (Value::Bool(false), rest),
        TRUE => (Value::Bool(true), rest),
        NUMBER => {
            let (text, rest) = take_text(rest)?;
            let number: Number = serde_json::from_str(text).map_err(|_| damaged("has a broken number"))?;
            (Value::Number(number), rest)
        }
        STRING => {
            let (text, rest) = take_text(rest)?;
            (Value::String(text.to_owned()), rest)
        }
        ARRAY => {
            let (count, mut rest) = take_varint(rest)?;
            let mut items = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(rest.len()));
            for _ in 0..count {
                let (item, after) = take(rest, depth + 1)?;
                items.push(item);
                rest = after;
            }
            (Value::Array(items), rest)
        }
        OBJECT => {
            let (count, mut rest) = take_varint(rest)?;
            let mut fields = Map::new();
            for _ in 0..count {
                let (name, after) = take_text(rest)?;
                let (field, after) = take(after, depth + 1)?;
                fields.insert(name.to_owned(), field);
                rest = after;
            }
            (Value::Object(fields), rest)
        }
        _ => return Err(damaged("has an unknown tag")),
    })
}

//! `json` and `jsonb`: taking apart, comparing, changing.

use amphora_storage::datum::Array as ArrayValue;
use amphora_storage::{DataType, Datum, Json as Document};
use serde_json::{Map, Value};

use super::arithmetic::{int, wrong_kind};
use super::json_span;
use super::signature::Ty::*;
use super::string::str_of;
use super::{Call, ScalarFunction, function};
use crate::error::{Result, SqlError};
use crate::types::parse_json;

pub(super) fn jsonb(d: &Datum) -> Result<&Value> {
    match d {
        Datum::Jsonb(j) => Ok(&j.0),
        _ => Err(wrong_kind()),
    }
}

fn boxed(value: Value) -> Datum {
    Datum::jsonb(Document(value))
}

/// A JSON value as `->>` gives it: strings bare, `null` as NULL.
pub(super) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(s) => Some(s.clone()),
        other => Some(Document(other.clone()).to_string()),
    }
}

fn as_text(value: Option<&Value>) -> Datum {
    value.and_then(scalar_text).map_or(Datum::Null, Datum::text)
}

fn as_jsonb(value: Option<&Value>) -> Datum {
    value.map_or(Datum::Null, |v| boxed(v.clone()))
}

/// A position from the end if it is negative.
fn index(items: &[Value], i: i64) -> Option<usize> {
    let at = if i < 0 { items.len() as i64 + i } else { i };
    usize::try_from(at).ok().filter(|at| *at < items.len())
}

fn element(value: &Value, i: i64) -> Option<&Value> {
    let items = value.as_array()?;
    items.get(index(items, i)?)
}

/// A scalar at the top is kept by `jsonb` as an array of one.
fn item(value: &Value, i: i64) -> Option<&Value> {
    match value {
        Value::Array(_) | Value::Object(_) => element(value, i),
        scalar => matches!(i, 0 | -1).then_some(scalar),
    }
}

fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.as_object()?.get(name)
}

fn step<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(o) => o.get(key),
        Value::Array(_) => element(value, key.trim().parse().ok()?),
        _ => None,
    }
}

fn array(d: &Datum) -> Result<&ArrayValue> {
    match d {
        Datum::Array(a) => Ok(a),
        _ => Err(wrong_kind()),
    }
}

/// A `text[]` argument; `None` if an element is NULL.
fn path(d: &Datum) -> Result<Option<Vec<&str>>> {
    Ok(array(d)?.items.iter().map(Datum::as_str).collect())
}

fn at_path<'a>(value: &'a Value, d: &Datum) -> Result<Option<&'a Value>> {
    let Some(keys) = path(d)? else { return Ok(None) };
    Ok(keys.iter().try_fold(value, |v, key| step(v, key)))
}

fn along<'a>(value: &'a Value, keys: &[Datum]) -> Option<&'a Value> {
    keys.iter().try_fold(value, |v, key| step(v, key.as_str()?))
}

/// jsonb's `@>`: objects and arrays contain by parts; an array also contains a scalar it has.
fn contains(whole: &Value, part: &Value, top: bool) -> bool {
    match (whole, part) {
        (Value::Object(w), Value::Object(p)) => {
            p.iter().all(|(k, v)| w.get(k).is_some_and(|inner| contains(inner, v, false)))
        }
        (Value::Array(w), Value::Array(p)) => {
            p.iter().all(|v| w.iter().any(|inner| contains(inner, v, false)))
        }
        (Value::Array(w), scalar) if top && !scalar.is_object() => w.iter().any(|inner| same(inner, scalar)),
        (a, b) => same(a, b),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => Document(a.clone()) == Document(b.clone()),
        _ => a == b,
    }
}

/// jsonb's `?`: a key of an object, a string of an array, or the string itself.
fn has_key(value: &Value, key: &str) -> bool {
    match value {
        Value::Object(o) => o.contains_key(key),
        Value::Array(a) => a.iter().any(|v| v.as_str() == Some(key)),
        Value::String(s) => s == key,
        _ => false,
    }
}

fn has_keys(a: &[Datum], all: bool) -> Result<Datum> {
    let value = jsonb(&a[0])?;
    let mut keys = array(&a[1])?.items.iter().filter_map(Datum::as_str);
    Ok(Datum::Bool(match all {
        true => keys.all(|k| has_key(value, k)),
        false => keys.any(|k| has_key(value, k)),
    }))
}

/// jsonb's `||`: objects merge, everything else concatenates as arrays.
fn concat(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let items = |v: &Value| match v {
        Value::Array(items) => items.clone(),
        other => vec![other.clone()],
    };
    Ok(boxed(match (jsonb(&a[0])?, jsonb(&a[1])?) {
        (Value::Object(x), Value::Object(y)) => {
            let mut merged = x.clone();
            merged.extend(y.iter().map(|(k, v)| (k.clone(), v.clone())));
            Value::Object(merged)
        }
        (x, y) => {
            let mut joined = items(x);
            joined.extend(items(y));
            Value::Array(joined)
        }
    }))
}

fn delete_from_scalar() -> SqlError {
    SqlError::invalid_parameter_value("cannot delete from scalar")
}

fn delete_keys(value: &Value, keys: &[&str]) -> Result<Datum> {
    match value {
        Value::Object(o) => {
            let kept = o.iter().filter(|(k, _)| !keys.contains(&k.as_str()));
            Ok(boxed(Value::Object(kept.map(|(k, v)| (k.clone(), v.clone())).collect())))
        }
        Value::Array(items) => {
            let kept = items.iter().filter(|v| v.as_str().is_none_or(|s| !keys.contains(&s)));
            Ok(boxed(Value::Array(kept.cloned().collect())))
        }
        _ => Err(delete_from_scalar()),
    }
}

fn delete_index(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    match jsonb(&a[0])? {
        Value::Array(items) => {
            let mut kept = items.clone();
            if let Some(i) = index(items, int(&a[1])?) {
                kept.remove(i);
            }
            Ok(boxed(Value::Array(kept)))
        }
        Value::Object(_) => {
            Err(SqlError::invalid_parameter_value("cannot delete from object using integer index"))
        }
        _ => Err(delete_from_scalar()),
    }
}

/// What is done at the end of a path.
#[derive(Clone, Copy)]
enum Change<'a> {
    Delete,
    Set { value: &'a Value, create: bool },
    Insert { value: &'a Value, after: bool },
}

fn change(target: &Value, keys: &[&str], level: usize, what: Change<'_>) -> Result<Value> {
    let Some(key) = keys.first() else { return Ok(target.clone()) };
    let last = keys.len() == 1;
    match target {
        Value::Object(o) => {
            let mut changed = o.clone();
            match (o.get(*key), last, what) {
                (Some(inner), false, _) => {
                    changed.insert(key.to_string(), change(inner, &keys[1..], level + 1, what)?);
                }
                (Some(_), true, Change::Delete) => {
                    changed.remove(*key);
                }
                (Some(_), true, Change::Insert { .. }) => {
                    return Err(SqlError::invalid_parameter_value("cannot replace existing key")
                        .with_hint("Try using the function jsonb_set to replace key value."));
                }
                (_, true, Change::Set { value, create: true } | Change::Insert { value, .. })
                | (Some(_), true, Change::Set { value, .. }) => {
                    changed.insert(key.to_string(), value.clone());
                }
                _ => {}
            }
            Ok(Value::Object(changed))
        }
        Value::Array(items) if items.is_empty() && matches!(what, Change::Delete) => Ok(target.clone()),
        Value::Array(items) => {
            let i: i64 = key.trim().parse().map_err(|_| {
                let message = format!("path element at position {} is not an integer: \"{key}\"", level + 1);
                SqlError::invalid_text_representation(message)
            })?;
            let mut changed = items.clone();
            let found = index(items, i);
            match (found, last, what) {
                (Some(at), false, _) => changed[at] = change(&items[at], &keys[1..], level + 1, what)?,
                (Some(at), true, Change::Delete) => {
                    changed.remove(at);
                }
                (Some(at), true, Change::Set { value, .. }) => changed[at] = value.clone(),
                (Some(at), true, Change::Insert { value, after }) => {
                    changed.insert(at + usize::from(after), value.clone());
                }
                (None, true, Change::Set { value, create: true } | Change::Insert { value, .. }) => {
                    let at = if i < 0 { 0 } else { changed.len() };
                    changed.insert(at, value.clone());
                }
                _ => {}
            }
            Ok(Value::Array(changed))
        }
        scalar if level > 0 => Ok(scalar.clone()),
        _ => Err(SqlError::invalid_parameter_value(match what {
            Change::Delete => "cannot delete path in scalar",
            _ => "cannot set path in scalar",
        })),
    }
}

fn null_path() -> SqlError {
    SqlError::null_value_not_allowed("path element at position 1 is null")
}

fn set(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let keys = path(&a[1])?.ok_or_else(null_path)?;
    let create = a.get(3).is_none_or(|d| d.as_bool() == Some(true));
    let what = Change::Set { value: jsonb(&a[2])?, create };
    Ok(boxed(change(jsonb(&a[0])?, &keys, 0, what)?))
}

/// `jsonb_set` with a choice of what NULL means.
fn set_lax(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() || a[1].is_null() || a.get(3).is_some_and(Datum::is_null) {
        return Ok(Datum::Null);
    }
    if !a[2].is_null() {
        return set(&a[..a.len().min(4)], c);
    }
    match a.get(4).map_or(Some("use_json_null"), Datum::as_str) {
        Some("use_json_null") => {
            let mut with_null = a[..a.len().min(4)].to_vec();
            with_null[2] = boxed(Value::Null);
            set(&with_null, c)
        }
        Some("delete_key") => delete_path(&a[..2], c),
        Some("return_target") => Ok(a[0].clone()),
        Some("raise_exception") => Err(SqlError::null_value_not_allowed("JSON value must not be null")
            .with_detail("Exception was raised because null_value_treatment is \"raise_exception\".")
            .with_hint("To avoid, either change the null_value_treatment argument or ensure that an SQL NULL is not passed.")),
        _ => Err(SqlError::invalid_parameter_value(
            "null_value_treatment must be \"delete_key\", \"return_target\", \"use_json_null\", or \"raise_exception\"",
        )),
    }
}

fn insert(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let keys = path(&a[1])?.ok_or_else(null_path)?;
    let after = a.get(3).is_some_and(|d| d.as_bool() == Some(true));
    let what = Change::Insert { value: jsonb(&a[2])?, after };
    Ok(boxed(change(jsonb(&a[0])?, &keys, 0, what)?))
}

fn delete_path(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    if !matches!(jsonb(&a[0])?, Value::Array(_) | Value::Object(_)) {
        return Err(SqlError::invalid_parameter_value("cannot delete path in scalar"));
    }
    // Of nothing nothing can be deleted, whatever the path.
    if matches!(jsonb(&a[0])?, Value::Array(items) if items.is_empty())
        || matches!(jsonb(&a[0])?, Value::Object(fields) if fields.is_empty())
    {
        return Ok(a[0].clone());
    }
    let keys = path(&a[1])?.ok_or_else(null_path)?;
    Ok(boxed(change(jsonb(&a[0])?, &keys, 0, Change::Delete)?))
}

fn strip_nulls(value: &Value) -> Value {
    match value {
        Value::Object(o) => {
            let kept: Map<String, Value> =
                o.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), strip_nulls(v))).collect();
            Value::Object(kept)
        }
        Value::Array(items) => Value::Array(items.iter().map(strip_nulls).collect()),
        other => other.clone(),
    }
}

fn type_name(value: &Value) -> Datum {
    Datum::text(match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    })
}

fn array_length(value: &Value) -> Result<Datum> {
    match value {
        Value::Array(items) => Ok(Datum::Int4(items.len() as i32)),
        Value::Object(_) => Err(SqlError::invalid_parameter_value("cannot get array length of a non-array")),
        _ => Err(SqlError::invalid_parameter_value("cannot get array length of a scalar")),
    }
}

/// Four spaces a level, as `jsonb_pretty` prints.
fn pretty(value: &Value, depth: usize, out: &mut String) {
    let indent = |depth: usize, out: &mut String| {
        out.push('\n');
        out.push_str(&"    ".repeat(depth));
    };
    match value {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                indent(depth + 1, out);
                pretty(item, depth + 1, out);
            }
            indent(depth, out);
            out.push(']');
        }
        Value::Object(o) => {
            let mut entries: Vec<_> = o.iter().collect();
            entries.sort_by(|a, b| a.0.len().cmp(&b.0.len()).then_with(|| a.0.cmp(b.0)));
            out.push('{');
            for (i, (k, v)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                indent(depth + 1, out);
                crate::types::write_json_string(k, out);
                out.push_str(": ");
                pretty(v, depth + 1, out);
            }
            indent(depth, out);
            out.push('}');
        }
        scalar => out.push_str(&Document(scalar.clone()).to_string()),
    }
}

fn json(d: &Datum) -> Result<Value> {
    Ok(parse_json(str_of(d)?)?.0)
}

/// A part of a `json` value, as JSON text.
fn json_part(value: Option<&Value>) -> Datum {
    value.map_or(Datum::Null, |v| Datum::text(v.to_string()))
}

/// The functions of this family.
pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    function("jsonb_typeof", &[Jsonb], Text, |a, _| Ok(type_name(jsonb(&a[0])?))),
    function("json_typeof", &[Json], Text, |a, _| Ok(type_name(&json(&a[0])?))),
    function("jsonb_array_length", &[Jsonb], Int4, |a, _| array_length(jsonb(&a[0])?)),
    function("json_array_length", &[Json], Int4, |a, _| array_length(&json(&a[0])?)),
    function("jsonb_extract_path", &[Jsonb, Text], Jsonb, |a, _| Ok(as_jsonb(along(jsonb(&a[0])?, &a[1..]))))
        .variadic(),
    function("jsonb_extract_path_text", &[Jsonb, Text], Text, |a, _| {
        Ok(as_text(along(jsonb(&a[0])?, &a[1..])))
    })
    .variadic(),
    function("json_extract_path", &[Json, Text], Json, |a, _| Ok(json_part(along(&json(&a[0])?, &a[1..]))))
        .variadic(),
    function("json_extract_path_text", &[Json, Text], Text, |a, _| {
        Ok(as_text(along(&json(&a[0])?, &a[1..])))
    })
    .variadic(),
    function("jsonb_set", &[Jsonb, Array(&Text), Jsonb], Jsonb, set),
    function("jsonb_set", &[Jsonb, Array(&Text), Jsonb, Bool], Jsonb, set),
    function("jsonb_set_lax", &[Jsonb, Array(&Text), Jsonb], Jsonb, set_lax).called_on_null(),
    function("jsonb_set_lax", &[Jsonb, Array(&Text), Jsonb, Bool], Jsonb, set_lax).called_on_null(),
    function("jsonb_set_lax", &[Jsonb, Array(&Text), Jsonb, Bool, Text], Jsonb, set_lax).called_on_null(),
    function("jsonb_insert", &[Jsonb, Array(&Text), Jsonb], Jsonb, insert),
    function("jsonb_insert", &[Jsonb, Array(&Text), Jsonb, Bool], Jsonb, insert),
    function("jsonb_strip_nulls", &[Jsonb], Jsonb, |a, _| Ok(boxed(strip_nulls(jsonb(&a[0])?)))),
    function("json_strip_nulls", &[Json], Json, |a, _| {
        Ok(Datum::text(strip_nulls(&json(&a[0])?).to_string()))
    }),
    function("jsonb_pretty", &[Jsonb], Text, |a, _| {
        let mut out = String::new();
        pretty(jsonb(&a[0])?, 0, &mut out);
        Ok(Datum::text(out))
    }),
];

/// The operators of this family.
pub(super) static OPERATORS: &[ScalarFunction] = &[
    function("->", &[Jsonb, Text], Jsonb, |a, _| Ok(as_jsonb(field(jsonb(&a[0])?, str_of(&a[1])?)))),
    function("->", &[Jsonb, Int4], Jsonb, |a, _| Ok(as_jsonb(item(jsonb(&a[0])?, int(&a[1])?)))),
    function("->>", &[Jsonb, Text], Text, |a, _| Ok(as_text(field(jsonb(&a[0])?, str_of(&a[1])?)))),
    function("->>", &[Jsonb, Int4], Text, |a, _| Ok(as_text(item(jsonb(&a[0])?, int(&a[1])?)))),
    function("#>", &[Jsonb, Array(&Text)], Jsonb, |a, _| Ok(as_jsonb(at_path(jsonb(&a[0])?, &a[1])?))),
    function("#>>", &[Jsonb, Array(&Text)], Text, |a, _| Ok(as_text(at_path(jsonb(&a[0])?, &a[1])?))),
    function("->", &[Json, Text], Json, |a, _| {
        Ok(json_span::field(str_of(&a[0])?, str_of(&a[1])?).map_or(Datum::Null, Datum::text))
    }),
    function("->", &[Json, Int4], Json, |a, _| {
        Ok(json_span::element(str_of(&a[0])?, int(&a[1])?).map_or(Datum::Null, Datum::text))
    }),
    function("->>", &[Json, Text], Text, |a, _| Ok(as_text(field(&json(&a[0])?, str_of(&a[1])?)))),
    function("->>", &[Json, Int4], Text, |a, _| Ok(as_text(element(&json(&a[0])?, int(&a[1])?)))),
    function("#>", &[Json, Array(&Text)], Json, |a, _| Ok(json_part(at_path(&json(&a[0])?, &a[1])?))),
    function("#>>", &[Json, Array(&Text)], Text, |a, _| Ok(as_text(at_path(&json(&a[0])?, &a[1])?))),
    function("@>", &[Jsonb, Jsonb], Bool, |a, _| {
        Ok(Datum::Bool(contains(jsonb(&a[0])?, jsonb(&a[1])?, true)))
    }),
    function("<@", &[Jsonb, Jsonb], Bool, |a, _| {
        Ok(Datum::Bool(contains(jsonb(&a[1])?, jsonb(&a[0])?, true)))
    }),
    function("?", &[Jsonb, Text], Bool, |a, _| Ok(Datum::Bool(has_key(jsonb(&a[0])?, str_of(&a[1])?)))),
    function("?|", &[Jsonb, Array(&Text)], Bool, |a, _| has_keys(a, false)),
    function("?&", &[Jsonb, Array(&Text)], Bool, |a, _| has_keys(a, true)),
    function("||", &[Jsonb, Jsonb], Jsonb, concat),
    function("-", &[Jsonb, Text], Jsonb, |a, _| delete_keys(jsonb(&a[0])?, &[str_of(&a[1])?])),
    function("-", &[Jsonb, Array(&Text)], Jsonb, |a, _| {
        let keys: Vec<&str> = array(&a[1])?.items.iter().filter_map(Datum::as_str).collect();
        delete_keys(jsonb(&a[0])?, &keys)
    }),
    function("-", &[Jsonb, Int4], Jsonb, delete_index),
    function("#-", &[Jsonb, Array(&Text)], Jsonb, delete_path),
];

/// Whether a value is the type that JSON documents have.
pub(super) fn is_json(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Json | DataType::Jsonb)
}

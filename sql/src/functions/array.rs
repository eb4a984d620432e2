//! Array functions and operators.

use std::sync::Arc;

use amphora_storage::array::Dimension;
use amphora_storage::datum::Array as ArrayValue;
use amphora_storage::{DataType, Datum};

use super::arithmetic::{int, wrong_kind};
use super::array_shape::{append, cat, prepend};
use super::pattern::split_text;
use super::signature::Ty::*;
use super::{Call, ScalarFunction, function};
use crate::error::{Result, SqlError};
use crate::types::to_text;

pub(super) fn array(d: &Datum) -> Result<&ArrayValue> {
    match d {
        Datum::Array(a) => Ok(a),
        _ => Err(wrong_kind()),
    }
}

/// The items of an array, none of NULL.
pub(super) fn items(d: &Datum) -> Result<&[Datum]> {
    match d {
        Datum::Null => Ok(&[]),
        other => Ok(&array(other)?.items),
    }
}

/// An array of the call's result type.
pub(super) fn result(c: &Call<'_>, items: Vec<Datum>) -> Datum {
    match c.return_type {
        DataType::Array(element) => Datum::array((**element).clone(), items),
        other => Datum::array(other.clone(), items),
    }
}

fn optional(v: Option<i32>) -> Result<Datum> {
    Ok(v.map_or(Datum::Null, Datum::Int4))
}

fn remove(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let old = array(&a[0])?;
    if old.dimensions().len() > 1 {
        return Err(SqlError::feature_not_supported(
            "removing elements from multidimensional arrays is not supported",
        ));
    }
    let kept: Vec<Datum> = old.items.iter().filter(|i| **i != a[1]).cloned().collect();
    let lower = lower_bound(old);
    let shape = [Dimension { lower, ..Dimension::from_one(kept.len()) }];
    match ArrayValue::shaped(old.element.clone(), kept, &shape) {
        Some(array) => Ok(Datum::Array(Arc::new(array))),
        None => Ok(result(c, Vec::new())),
    }
}

fn replace(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let old = array(&a[0])?;
    let replaced = old.items.iter().map(|i| if *i == a[1] { a[2].clone() } else { i.clone() });
    Ok(Datum::Array(Arc::new(old.with_items(old.element.clone(), replaced.collect()))))
}

fn lower_bound(array: &ArrayValue) -> i32 {
    array.shape.as_ref().and_then(|s| s.first()).map_or(1, |d| d.lower)
}

/// An array of one dimension, to look for something in.
fn searched(d: &Datum) -> Result<&ArrayValue> {
    let array = array(d)?;
    if array.dimensions().len() > 1 {
        return Err(SqlError::feature_not_supported(
            "searching for elements in multidimensional arrays is not supported",
        ));
    }
    Ok(array)
}

fn position(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let lower = i64::from(lower_bound(searched(&a[0])?));
    let start = match a.get(2) {
        Some(d) if d.is_null() => {
            return Err(SqlError::null_value_not_allowed("initial position must not be null"));
        }
        Some(d) => usize::try_from(int(d)? - lower).unwrap_or(0),
        None => 0,
    };
    let found = items(&a[0])?.iter().skip(start).position(|i| *i == a[1]);
    optional(found.map(|i| (i as i64 + start as i64 + lower) as i32))
}

fn positions(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let found = (lower_bound(searched(&a[0])?)..).zip(items(&a[0])?).filter(|(_, item)| **item == a[1]);
    Ok(Datum::array(DataType::Int4, found.map(|(i, _)| Datum::Int4(i)).collect()))
}

fn to_string(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() || a[1].is_null() {
        return Ok(Datum::Null);
    }
    let separator = a[1].as_str().ok_or_else(wrong_kind)?;
    let null = a.get(2).and_then(Datum::as_str);
    let values = array(&a[0])?;
    let shown = values.items.iter().filter_map(|item| match item.is_null() {
        true => null.map(str::to_string),
        false => Some(to_text(item, &values.element, &c.context.format)),
    });
    Ok(Datum::text(shown.collect::<Vec<_>>().join(separator)))
}

fn from_string(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let pieces = split_text(a)?.into_iter().map(|p| p.map_or(Datum::Null, Datum::text));
    Ok(Datum::array(DataType::Text, pieces.collect()))
}

/// True if every item of `part` is in `whole`; NULL equals nothing.
fn contains(whole: &[Datum], part: &[Datum]) -> bool {
    part.iter().all(|p| !p.is_null() && whole.contains(p))
}

/// The path of SEARCH and CYCLE with one row more.
pub(crate) static APPEND_ROW: ScalarFunction =
    function("array_append", &[Any, Any], Any, |a, _| match &a[0] {
        Datum::Array(path) => {
            let mut items = path.items.clone();
            items.push(a[1].clone());
            Ok(Datum::array(path.element.clone(), items))
        }
        _ => Err(wrong_kind()),
    });

/// The functions of this family.
pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    function("array_remove", &[AnyArray, AnyElement], AnyArray, remove).called_on_null(),
    function("array_replace", &[AnyArray, AnyElement, AnyElement], AnyArray, replace).called_on_null(),
    function("array_position", &[AnyArray, AnyElement], Int4, position).called_on_null(),
    function("array_position", &[AnyArray, AnyElement, Int4], Int4, position).called_on_null(),
    function("array_positions", &[AnyArray, AnyElement], Array(&Int4), positions).called_on_null(),
    function("array_to_string", &[AnyArray, Text], Text, to_string).stable(),
    function("array_to_string", &[AnyArray, Text, Text], Text, to_string).called_on_null().stable(),
    function("string_to_array", &[Text, Text], Array(&Text), from_string).called_on_null(),
    function("string_to_array", &[Text, Text, Text], Array(&Text), from_string).called_on_null(),
];

/// The operators of this family.
pub(super) static OPERATORS: &[ScalarFunction] = &[
    function("||", &[AnyArray, AnyArray], AnyArray, cat).called_on_null(),
    function("||", &[AnyArray, AnyElement], AnyArray, append).called_on_null(),
    function("||", &[AnyElement, AnyArray], AnyArray, prepend).called_on_null(),
    function("@>", &[AnyArray, AnyArray], Bool, |a, _| {
        Ok(Datum::Bool(contains(items(&a[0])?, items(&a[1])?)))
    }),
    function("<@", &[AnyArray, AnyArray], Bool, |a, _| {
        Ok(Datum::Bool(contains(items(&a[1])?, items(&a[0])?)))
    }),
    function("&&", &[AnyArray, AnyArray], Bool, |a, _| {
        let (x, y) = (items(&a[0])?, items(&a[1])?);
        Ok(Datum::Bool(x.iter().any(|i| !i.is_null() && y.contains(i))))
    }),
];

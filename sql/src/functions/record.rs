//! Rows: their fields, and rows made from JSON objects.
//!
//! `json_populate_record` and its kin give rows of a type that only the call knows: the type of their first
//! argument, or the column definitions after them. They find it in [`Call::return_type`].

use std::sync::Arc;

use amphora_storage::{DataType, Datum};
use serde_json::Value;

use super::arithmetic::{int, wrong_kind};
use super::set_returning::{Rows, SetFunction, set};
use super::signature::Ty::*;
use super::{Call, ScalarFunction, function};
use crate::error::{Result, SqlError};
use crate::types::{CastContext, FormatContext, cast, parse_json};

/// The field of a row at a position, from 0: what `(row).field` becomes.
pub(crate) static FIELD: ScalarFunction = function("field", &[Record, Int4], Any, |a, _| match &a[0] {
    Datum::Record(fields) => {
        let position = usize::try_from(int(&a[1])?).unwrap_or(usize::MAX);
        Ok(fields.get(position).cloned().unwrap_or(Datum::Null))
    }
    _ => Err(wrong_kind()),
});

/// `GROUPING(…)`, as the binder keeps it until the grouping sets are known; it is never called.
pub(crate) static GROUPING: ScalarFunction =
    function("grouping", &[Any], Int4, |_, _| Err(SqlError::internal("GROUPING was not resolved")));

/// The document of a `json` or `jsonb` argument.
fn document(d: &Datum) -> Result<Value> {
    match d {
        Datum::Jsonb(j) => Ok(j.0.clone()),
        Datum::Text(s) => Ok(parse_json(s)?.0),
        _ => Err(wrong_kind()),
    }
}

/// A JSON value as a value of this type.
fn value(json: &Value, ty: &DataType, format: &FormatContext) -> Result<Datum> {
    match (json, ty) {
        (Value::Null, DataType::Json) => Ok(Datum::text("null")),
        (Value::Null, DataType::Jsonb) => Ok(Datum::jsonb(amphora_storage::Json(Value::Null))),
        (Value::Null, _) => Ok(Datum::Null),
        (json, DataType::Json) => Ok(Datum::text(json.to_string())),
        (json, DataType::Jsonb) => Ok(Datum::jsonb(amphora_storage::Json(json.clone()))),
        (Value::Array(items), DataType::Array(element)) => {
            let items = items.iter().map(|i| value(i, element, format)).collect::<Result<_>>()?;
            Ok(Datum::array((**element).clone(), items))
        }
        (Value::Object(_), DataType::Row(fields)) => row(json, fields, None, format),
        (Value::Object(_), ty @ DataType::Array(_)) => {
            let message = format!("expected JSON array, got {ty}");
            Err(SqlError::invalid_text_representation(message))
        }
        (json, ty) => {
            let text = match json {
                Value::String(s) => s.clone(),
                other => other.to_string(),
            };
            cast(&Datum::text(text), &DataType::Text, ty, CastContext::Assignment, format)
        }
    }
}

/// An object as a row of these fields; a key that it does not have keeps the base's value.
fn row(
    object: &Value,
    fields: &[(String, DataType)],
    base: Option<&[Datum]>,
    format: &FormatContext,
) -> Result<Datum> {
    let Value::Object(map) = object else {
        let kind = if object.is_array() { "an array" } else { "a scalar" };
        return Err(SqlError::invalid_parameter_value(format!("cannot call populate_composite on {kind}")));
    };
    let mut values = Vec::with_capacity(fields.len());
    for (i, (name, ty)) in fields.iter().enumerate() {
        values.push(match map.get(name) {
            Some(json) => value(json, ty, format)?,
            None => base.and_then(|b| b.get(i)).cloned().unwrap_or(Datum::Null),
        });
    }
    Ok(Datum::Record(Arc::from(values)))
}

fn fields(ty: &DataType) -> Result<&[(String, DataType)]> {
    ty.fields().ok_or_else(|| {
        SqlError::datatype_mismatch("could not determine row type for result")
            .with_hint("Provide a non-null record argument, or call the function in the FROM clause using a column definition list.")
    })
}

fn base(d: &Datum) -> Option<&[Datum]> {
    match d {
        Datum::Record(values) => Some(values),
        _ => None,
    }
}

fn populate(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    if a[1].is_null() {
        return Ok(a[0].clone());
    }
    row(&document(&a[1])?, fields(c.return_type)?, base(&a[0]), &c.context.format)
}

/// The rows of an array of objects.
fn rows(array: &Datum, first: Option<&Datum>, c: &Call<'_>, name: &str) -> Result<Rows> {
    if array.is_null() {
        return Ok(Box::new(std::iter::empty()));
    }
    let Value::Array(objects) = document(array)? else {
        return Err(SqlError::invalid_parameter_value(format!("cannot call {name} on a non-array")));
    };
    let fields: Vec<(String, DataType)> = fields(c.return_type)?.to_vec();
    let format = c.context.format.clone();
    let first: Option<Vec<Datum>> = first.and_then(base).map(<[Datum]>::to_vec);
    let name = name.to_owned();
    Ok(Box::new(objects.into_iter().map(move |object| {
        if !object.is_object() {
            let message = format!("argument of {name} must be an array of objects");
            return Err(SqlError::invalid_parameter_value(message));
        }
        match row(&object, &fields, first.as_deref(), &format)? {
            Datum::Record(values) => Ok(values.to_vec()),
            _ => Err(wrong_kind()),
        }
    })))
}

/// One object, as the only row.
fn only(object: &Datum, c: &Call<'_>) -> Result<Rows> {
    if object.is_null() {
        return Ok(Box::new(std::iter::empty()));
    }
    match row(&document(object)?, fields(c.return_type)?, None, &c.context.format)? {
        Datum::Record(values) => Ok(Box::new(std::iter::once(Ok(values.to_vec())))),
        _ => Err(wrong_kind()),
    }
}

/// The functions of this family.
pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    function("json_populate_record", &[AnyElement, Json], AnyElement, populate).called_on_null().stable(),
    function("jsonb_populate_record", &[AnyElement, Jsonb], AnyElement, populate).called_on_null().stable(),
];

/// The set-returning functions of this family.
pub(super) static SET_FUNCTIONS: &[SetFunction] = &[
    set("json_populate_recordset", &[AnyElement, Json], AnyElement, |a, c| {
        rows(&a[1], Some(&a[0]), c, "json_populate_recordset")
    })
    .called_on_null(),
    set("jsonb_populate_recordset", &[AnyElement, Jsonb], AnyElement, |a, c| {
        rows(&a[1], Some(&a[0]), c, "jsonb_populate_recordset")
    })
    .called_on_null(),
    set("json_to_recordset", &[Json], Record, |a, c| rows(&a[0], None, c, "json_to_recordset")),
    set("jsonb_to_recordset", &[Jsonb], Record, |a, c| rows(&a[0], None, c, "jsonb_to_recordset")),
    set("json_to_record", &[Json], Record, |a, c| only(&a[0], c)),
    set("jsonb_to_record", &[Jsonb], Record, |a, c| only(&a[0], c)),
];

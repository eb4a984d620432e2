//! Making JSON from SQL values: `to_jsonb`, `jsonb_build_object`, `row_to_json`.

use amphora_storage::array::{Array as ArrayValue, Dimension};
use amphora_storage::{DataType, Datum};

use super::json::is_json;
use super::signature::Ty::*;
use super::{Call, ScalarFunction, function};
use crate::error::{Result, SqlError};
use crate::types::{FormatContext, parse_json, to_text, write_json_string};

/// Appends a value as JSON: numbers and booleans bare, documents as they are, arrays and records by their
/// parts, timestamps in ISO 8601, everything else as a string.
pub(super) fn write_json(
    value: &Datum,
    data_type: &DataType,
    format: &FormatContext,
    out: &mut String,
) -> Result<()> {
    match value {
        Datum::Null => out.push_str("null"),
        Datum::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_) => out.push_str(&to_text(value, data_type, format)),
        Datum::Float4(_) | Datum::Float8(_) | Datum::Numeric(_) => {
            let text = to_text(value, data_type, format);
            // JSON has no infinities; they are strings.
            match text.ends_with(|c: char| c.is_ascii_digit()) {
                true => out.push_str(&text),
                false => write_json_string(&text, out),
            }
        }
        Datum::Text(s) if is_json(data_type) => out.push_str(s),
        Datum::Jsonb(j) => out.push_str(&j.to_string()),
        Datum::Array(a) => {
            let dimensions = a.dimensions();
            let inner = dimensions.get(1..).unwrap_or_default();
            write_array(a, &a.items, inner, ",", format, out)?;
        }
        Datum::Record(fields) => {
            write_row(fields, data_type, ",", format, out)?;
        }
        Datum::Timestamp(_) | Datum::Timestamptz(_) | Datum::Date(_) => {
            write_json_string(&crate::types::to_iso_text(value, format), out);
        }
        other => write_json_string(&to_text(other, data_type, format), out),
    }
    Ok(())
}

/// A value as a JSON value, as `to_jsonb` makes it.
pub(crate) fn json_value(value: &Datum, data_type: &DataType, format: &FormatContext) -> serde_json::Value {
    let mut text = String::new();
    match write_json(value, data_type, format, &mut text) {
        Ok(()) => serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)),
        Err(_) => serde_json::Value::Null,
    }
}

/// A row as an object, its fields by their names.
fn write_row(
    values: &[Datum],
    data_type: &DataType,
    separator: &str,
    format: &FormatContext,
    out: &mut String,
) -> Result<()> {
    let fields = data_type.fields().unwrap_or_default();
    out.push('{');
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            out.push_str(separator);
        }
        match fields.get(i) {
            Some((name, _)) => write_json_string(name, out),
            None => out.push_str(&format!("\"f{}\"", i + 1)),
        }
        out.push(':');
        write_json(value, fields.get(i).map_or(&DataType::Unknown, |f| &f.1), format, out)?;
    }
    out.push('}');
    Ok(())
}

/// `row_to_json(row, true)`: a line for each field.
fn pretty_row(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let separator = if a[1].as_bool() == Some(true) { ",\n " } else { "," };
    let mut out = String::new();
    match &a[0] {
        Datum::Record(values) => {
            write_row(values, &arg_type(c, 0), separator, &c.context.format, &mut out)?;
        }
        other => write_json(other, &arg_type(c, 0), &c.context.format, &mut out)?,
    }
    Ok(Datum::text(out))
}

/// `array_to_json(array, true)`: a line for each element.
fn pretty_array(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let Datum::Array(array) = &a[0] else { return json(one(a, c)?) };
    let separator = if a[1].as_bool() == Some(true) { ",\n " } else { "," };
    let mut out = String::new();
    let dimensions = array.dimensions();
    let inner = dimensions.get(1..).unwrap_or_default();
    write_array(array, &array.items, inner, separator, &c.context.format, &mut out)?;
    json(out)
}

/// The items of one place of the dimensions before `inner`.
fn write_array(
    array: &ArrayValue,
    items: &[Datum],
    inner: &[Dimension],
    separator: &str,
    format: &FormatContext,
    out: &mut String,
) -> Result<()> {
    let size = inner.iter().map(|d| d.length as usize).product::<usize>().max(1);
    out.push('[');
    for (i, part) in items.chunks(size).enumerate() {
        if i > 0 {
            out.push_str(separator);
        }
        match (inner.split_first(), part) {
            (Some((_, deeper)), part) => write_array(array, part, deeper, ",", format, out)?,
            (None, part) => part.iter().try_for_each(|item| write_json(item, &array.element, format, out))?,
        }
    }
    out.push(']');
    Ok(())
}

fn arg_type(c: &Call<'_>, i: usize) -> DataType {
    c.arg_types.get(i).cloned().unwrap_or(DataType::Text)
}

fn one(a: &[Datum], c: &Call<'_>) -> Result<String> {
    let mut out = String::new();
    write_json(&a[0], &arg_type(c, 0), &c.context.format, &mut out)?;
    Ok(out)
}

fn list(a: &[Datum], c: &Call<'_>) -> Result<String> {
    let mut out = String::from("[");
    for (i, value) in a.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write_json(value, &arg_type(c, i), &c.context.format, &mut out)?;
    }
    out.push(']');
    Ok(out)
}

fn object(a: &[Datum], c: &Call<'_>, function: &str) -> Result<String> {
    if !a.len().is_multiple_of(2) {
        return Err(SqlError::invalid_parameter_value("argument list must have even number of elements")
            .with_hint(format!(
                "The arguments of {function}() must consist of alternating keys and values."
            )));
    }
    let mut out = String::from("{");
    for i in (0..a.len()).step_by(2) {
        if i > 0 {
            out.push_str(", ");
        }
        if a[i].is_null() {
            let message = format!("argument {} cannot be null", i + 1);
            return Err(SqlError::invalid_parameter_value(message).with_hint("Object keys should be text."));
        }
        let key = match &a[i] {
            Datum::Bool(b) => b.to_string(),
            other => to_text(other, &arg_type(c, i), &c.context.format),
        };
        write_json_string(&key, &mut out);
        out.push_str(" : ");
        write_json(&a[i + 1], &arg_type(c, i + 1), &c.context.format, &mut out)?;
    }
    out.push('}');
    Ok(out)
}

/// `json_object(text[])` of alternating keys and values, or of keys and values apart.
fn from_arrays(a: &[Datum]) -> Result<String> {
    let items = |d: &Datum| match d {
        Datum::Array(a) => a.items.clone(),
        _ => Vec::new(),
    };
    let (keys, values) = match a {
        [pairs] => {
            let pairs = items(pairs);
            if !pairs.len().is_multiple_of(2) {
                return Err(SqlError::array_subscript_error("array must have even number of elements"));
            }
            let (even, odd): (Vec<_>, Vec<_>) = pairs.into_iter().enumerate().partition(|(i, _)| i % 2 == 0);
            (
                even.into_iter().map(|p| p.1).collect::<Vec<_>>(),
                odd.into_iter().map(|p| p.1).collect::<Vec<_>>(),
            )
        }
        [keys, values] => (items(keys), items(values)),
        _ => (Vec::new(), Vec::new()),
    };
    if keys.len() != values.len() {
        return Err(SqlError::array_subscript_error("mismatched array dimensions"));
    }
    let mut out = String::from("{");
    for (i, (key, value)) in keys.iter().zip(&values).enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        let Some(key) = key.as_str() else {
            return Err(SqlError::null_value_not_allowed("null value not allowed for object key"));
        };
        write_json_string(key, &mut out);
        out.push_str(" : ");
        match value.as_str() {
            Some(value) => write_json_string(value, &mut out),
            None => out.push_str("null"),
        }
    }
    out.push('}');
    Ok(out)
}

fn json(text: String) -> Result<Datum> {
    Ok(Datum::text(text))
}

fn jsonb(text: String) -> Result<Datum> {
    Ok(Datum::jsonb(parse_json(&text)?))
}

/// The functions of this family.
pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    function("to_json", &[AnyElement], Json, |a, c| json(one(a, c)?)).stable(),
    function("to_jsonb", &[AnyElement], Jsonb, |a, c| jsonb(one(a, c)?)).stable(),
    function("row_to_json", &[Record], Json, |a, c| json(one(a, c)?)).stable(),
    function("row_to_json", &[Record, Bool], Json, pretty_row).stable(),
    function("array_to_json", &[AnyArray, Bool], Json, pretty_array).stable(),
    function("array_to_json", &[AnyArray], Json, |a, c| json(one(a, c)?)).stable(),
    function("json_build_array", &[], Json, |a, c| json(list(a, c)?)).called_on_null().stable(),
    function("json_build_array", &[Any], Json, |a, c| json(list(a, c)?)).variadic().called_on_null().stable(),
    function("jsonb_build_array", &[], Jsonb, |a, c| jsonb(list(a, c)?)).called_on_null().stable(),
    function("jsonb_build_array", &[Any], Jsonb, |a, c| jsonb(list(a, c)?))
        .variadic()
        .called_on_null()
        .stable(),
    function("json_build_object", &[], Json, |_, _| json("{}".to_string())).called_on_null().stable(),
    function("json_build_object", &[Any], Json, |a, c| json(object(a, c, "json_build_object")?))
        .variadic()
        .called_on_null()
        .stable(),
    function("jsonb_build_object", &[], Jsonb, |_, _| jsonb("{}".to_string())).called_on_null().stable(),
    function("jsonb_build_object", &[Any], Jsonb, |a, c| jsonb(object(a, c, "jsonb_build_object")?))
        .variadic()
        .called_on_null()
        .stable(),
    function("json_object", &[Array(&Text)], Json, |a, _| json(from_arrays(a)?)),
    function("json_object", &[Array(&Text), Array(&Text)], Json, |a, _| json(from_arrays(a)?)),
    function("jsonb_object", &[Array(&Text)], Jsonb, |a, _| jsonb(from_arrays(a)?)),
    function("jsonb_object", &[Array(&Text), Array(&Text)], Jsonb, |a, _| jsonb(from_arrays(a)?)),
];

//! Functions that give rows: `generate_series`, `unnest`, the elements of JSON documents.

use std::fmt;
use std::sync::Arc;

use amphora_storage::array::Dimension;
use amphora_storage::datum::Interval as Span;
use amphora_storage::{DataType, Datum, Json as Document, Numeric as Number, Row};
use serde_json::Value;

use super::arithmetic::{int, numeric, wrong_kind};
use super::datetime_operator::add_interval;
use super::json::scalar_text;
use super::signature::Signature;
use super::signature::Ty::{self, *};
use super::{Call, decimal, pattern};
use crate::error::{Result, SqlError};
use crate::types::{TimeZone, parse_json};

/// The rows of a call, made as they are asked for.
pub type Rows = Box<dyn Iterator<Item = Result<Row>> + Send>;

/// A row of the table of set-returning functions.
pub struct SetFunction {
    /// Its name
    pub name: &'static str,
    /// Its types; `returns` is the type of its column, where it has but one
    pub signature: Signature,
    /// Its columns; empty for a single column named like the function
    pub columns: &'static [(&'static str, Ty)],
    /// No rows if any argument is NULL
    pub strict: bool,
    /// What it does
    pub eval: fn(&[Datum], &Call<'_>) -> Result<Rows>,
}

impl fmt::Debug for SetFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?})", self.name, self.signature.args)
    }
}

type Eval = fn(&[Datum], &Call<'_>) -> Result<Rows>;

pub(super) const fn set(name: &'static str, args: &'static [Ty], returns: Ty, eval: Eval) -> SetFunction {
    SetFunction {
        name,
        signature: Signature { args, variadic: false, returns },
        columns: &[],
        strict: true,
        eval,
    }
}

impl SetFunction {
    pub(super) const fn called_on_null(mut self) -> SetFunction {
        self.strict = false;
        self
    }

    /// True if what its rows are depends on the call.
    pub fn is_row_typed(&self) -> bool {
        self.columns.is_empty() && matches!(self.signature.returns, Record | AnyElement)
    }

    /// True if only the call's column definitions say what its columns are.
    pub fn needs_definitions(&self) -> bool {
        self.columns.is_empty() && self.signature.returns == Record
    }

    const fn columns(mut self, columns: &'static [(&'static str, Ty)]) -> SetFunction {
        self.columns = columns;
        self
    }
}

fn one_column(values: impl Iterator<Item = Datum> + Send + 'static) -> Rows {
    Box::new(values.map(|v| Ok(vec![v])))
}

fn zero_step() -> SqlError {
    SqlError::invalid_parameter_value("step size cannot equal zero")
}

fn int_series(a: &[Datum], make: fn(i64) -> Datum) -> Result<Rows> {
    let (start, stop) = (int(&a[0])?, int(&a[1])?);
    let step = a.get(2).map_or(Ok(1), int)?;
    if step == 0 {
        return Err(zero_step());
    }
    let mut next = Some(start);
    Ok(one_column(std::iter::from_fn(move || {
        let value = next.filter(|v| if step > 0 { *v <= stop } else { *v >= stop })?;
        next = value.checked_add(step);
        Some(make(value))
    })))
}

fn int4_series(a: &[Datum], _: &Call<'_>) -> Result<Rows> {
    int_series(a, |v| Datum::Int4(v as i32))
}

fn int8_series(a: &[Datum], _: &Call<'_>) -> Result<Rows> {
    int_series(a, Datum::Int8)
}

fn numeric_series(a: &[Datum], _: &Call<'_>) -> Result<Rows> {
    let (start, stop) = (numeric(&a[0])?.clone(), numeric(&a[1])?.clone());
    let step = a.get(2).map_or(Ok(Number::from(1)), |d| numeric(d).cloned())?;
    for (value, name) in [(&start, "start"), (&stop, "stop"), (&step, "step")] {
        if value.as_finite().is_none() {
            let what = if matches!(value, Number::NaN) { "NaN" } else { "infinity" };
            let noun = if name == "step" { "step size" } else { name };
            let tail = if name == "step" { "" } else { " value" };
            return Err(SqlError::invalid_parameter_value(format!("{noun}{tail} cannot be {what}")));
        }
    }
    let direction = decimal::sign(&step);
    if direction == 0 {
        return Err(zero_step());
    }
    let mut next = Some(start);
    Ok(Box::new(std::iter::from_fn(move || {
        let value = next.take().filter(|v| if direction > 0 { *v <= stop } else { *v >= stop })?;
        match decimal::add(&value, &step) {
            Ok(following) => next = Some(following),
            Err(e) => return Some(Err(e)),
        }
        Some(Ok(vec![Datum::numeric(value)]))
    })))
}

fn time_series(a: &[Datum], zone: Option<TimeZone>) -> Result<Rows> {
    let micros = |d: &Datum| match d {
        Datum::Timestamp(t) | Datum::Timestamptz(t) => Ok(*t),
        _ => Err(wrong_kind()),
    };
    let (start, stop) = (micros(&a[0])?, micros(&a[1])?);
    let Datum::Interval(step) = &a[2] else { return Err(wrong_kind()) };
    let step: Span = **step;
    let direction = step.comparable().signum();
    if direction == 0 {
        return Err(zero_step());
    }
    let mut next = Some(start);
    Ok(Box::new(std::iter::from_fn(move || {
        let value = next.take().filter(|v| if direction > 0 { *v <= stop } else { *v >= stop })?;
        match add_interval(value, &step, zone.as_ref()) {
            Ok(following) => next = Some(following),
            Err(e) => return Some(Err(e)),
        }
        let datum = if zone.is_some() { Datum::Timestamptz(value) } else { Datum::Timestamp(value) };
        Some(Ok(vec![datum]))
    })))
}

fn unnest(a: &[Datum], _: &Call<'_>) -> Result<Rows> {
    let Datum::Array(array) = &a[0] else { return Err(wrong_kind()) };
    let array = Arc::clone(array);
    let mut i = 0;
    Ok(one_column(std::iter::from_fn(move || {
        let item = array.items.get(i).cloned();
        i += 1;
        item
    })))
}

/// No table is a partition of another.
fn no_partitions(_: &[Datum], _: &Call<'_>) -> Result<Rows> {
    Ok(Box::new(std::iter::empty()))
}

fn generate_subscripts(a: &[Datum], call: &Call<'_>) -> Result<Rows> {
    let Datum::Array(array) = &a[0] else { return Err(wrong_kind()) };
    let dimensions = array.dimensions();
    let place = usize::try_from(int(&a[1])? - 1).ok();
    let dimension = place.and_then(|i| dimensions.get(i)).copied();
    let dimension = dimension.unwrap_or(Dimension { length: 0, lower: 1 });
    // The catalogs' vectors are counted from 0.
    let first = dimension.lower - 1 + call.arg_types.first().map_or(1, DataType::lower_bound);
    let count = dimension.length as i32;
    match a.get(2).and_then(Datum::as_bool) {
        Some(true) => Ok(one_column((first..first + count).rev().map(Datum::Int4))),
        _ => Ok(one_column((first..first + count).map(Datum::Int4))),
    }
}

/// The document of a `json` or `jsonb` argument.
fn document(d: &Datum) -> Result<Value> {
    match d {
        Datum::Jsonb(j) => Ok(j.0.clone()),
        Datum::Text(s) => Ok(parse_json(s)?.0),
        _ => Err(wrong_kind()),
    }
}

/// A part of a document as the function's column shows it.
fn part(value: Value, as_text: bool, as_json: bool) -> Datum {
    match (as_text, as_json) {
        (true, _) => scalar_text(&value).map_or(Datum::Null, Datum::text),
        (_, true) => Datum::text(value.to_string()),
        _ => Datum::jsonb(Document(value)),
    }
}

fn array_elements(a: &[Datum], as_text: bool) -> Result<Rows> {
    let json = matches!(a[0], Datum::Text(_));
    match document(&a[0])? {
        Value::Array(items) => Ok(one_column(items.into_iter().map(move |v| part(v, as_text, json)))),
        Value::Object(_) => Err(SqlError::invalid_parameter_value("cannot extract elements from an object")),
        _ => Err(SqlError::invalid_parameter_value("cannot extract elements from a scalar")),
    }
}

/// The entries of an object as they are written.
struct InOrder(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for InOrder {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<InOrder, D::Error> {
        struct Entries;

        impl<'de> serde::de::Visitor<'de> for Entries {
            type Value = InOrder;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<InOrder, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(InOrder(entries))
            }
        }

        d.deserialize_map(Entries)
    }
}

/// An object's entries in jsonb's order: shorter keys first.
fn entries(d: &Datum, function: &str) -> Result<Vec<(String, Value)>> {
    // `json` keeps the order in which it is written, and every key.
    if let Datum::Text(text) = d
        && let Ok(InOrder(entries)) = serde_json::from_str(text)
    {
        return Ok(entries);
    }
    match document(d)? {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.len().cmp(&b.0.len()).then_with(|| a.0.cmp(&b.0)));
            Ok(entries)
        }
        Value::Array(_) => {
            let message = match function.ends_with("object_keys") {
                true => format!("cannot call {function} on an array"),
                false => format!("cannot call {function} on a non-object"),
            };
            Err(SqlError::invalid_parameter_value(message))
        }
        _ => {
            let message = match function.ends_with("object_keys") {
                true => format!("cannot call {function} on a scalar"),
                false => format!("cannot call {function} on a non-object"),
            };
            Err(SqlError::invalid_parameter_value(message))
        }
    }
}

fn each(a: &[Datum], function: &str, as_text: bool) -> Result<Rows> {
    let json = matches!(a[0], Datum::Text(_));
    let entries = entries(&a[0], function)?;
    Ok(Box::new(entries.into_iter().map(move |(k, v)| Ok(vec![Datum::text(k), part(v, as_text, json)]))))
}

fn object_keys(a: &[Datum], function: &str) -> Result<Rows> {
    Ok(one_column(entries(&a[0], function)?.into_iter().map(|(k, _)| Datum::text(k))))
}

fn texts(strings: Vec<Option<String>>) -> Rows {
    one_column(strings.into_iter().map(|s| s.map_or(Datum::Null, Datum::text)))
}

const ELEMENT_TEXT: &[(&str, Ty)] = &[("value", Text)];
const ELEMENT_JSON: &[(&str, Ty)] = &[("value", Json)];
const ELEMENT_JSONB: &[(&str, Ty)] = &[("value", Jsonb)];
const PAIR_TEXT: &[(&str, Ty)] = &[("key", Text), ("value", Text)];
const PAIR_JSON: &[(&str, Ty)] = &[("key", Text), ("value", Json)];
const PAIR_JSONB: &[(&str, Ty)] = &[("key", Text), ("value", Jsonb)];

const OPTIONS: &[(&str, Ty)] = &[("option_name", Text), ("option_value", Text)];
const PARTITIONS: &[(&str, Ty)] =
    &[("relid", Regclass), ("parentrelid", Regclass), ("isleaf", Bool), ("level", Int4)];

const EXPANDED: &[(&str, Ty)] = &[("x", AnyElement), ("n", Int4)];

/// Elements with their places, from 1.
fn expand_array(a: &[Datum]) -> Result<Rows> {
    let Datum::Array(array) = &a[0] else { return Err(wrong_kind()) };
    let rows: Vec<Row> =
        array.items.iter().zip(1..).map(|(item, n)| vec![item.clone(), Datum::Int4(n)]).collect();
    Ok(Box::new(rows.into_iter().map(Ok)))
}

/// `name=value`, one row each.
fn options_to_table(a: &[Datum]) -> Result<Rows> {
    let Datum::Array(options) = &a[0] else { return Err(wrong_kind()) };
    let row = |option: &Datum| {
        let option = option.as_str().unwrap_or_default();
        let (name, value) =
            option.split_once('=').map_or((option, Datum::Null), |(n, v)| (n, Datum::text(v)));
        vec![Datum::text(name), value]
    };
    let rows: Vec<Row> = options.items.iter().map(row).collect();
    Ok(Box::new(rows.into_iter().map(Ok)))
}

/// The replicas of a table, compared: see `amphora_replication::verify`.
fn verify_table(a: &[Datum], call: &Call<'_>) -> Result<Rows> {
    let table = u32::try_from(int(&a[0])?).unwrap_or(0);
    Ok(Box::new(call.context.session.verify_table(table)?.into_iter().map(Ok)))
}

const VERIFICATION: &[(&str, Ty)] = &[
    ("object", Text),
    ("node_id", Int8),
    ("rows", Int8),
    ("checksum", Text),
    ("verdict", Text),
    ("detail", Text),
];

/// A table that has no partitions is its own tree.
fn partition_tree(a: &[Datum]) -> Result<Rows> {
    let row = vec![a[0].clone(), Datum::Null, Datum::Bool(true), Datum::Int4(0)];
    Ok(Box::new(std::iter::once(Ok(row))))
}

/// The columns of `pg_get_keywords`.
const KEYWORD: &[(&str, Ty)] =
    &[("word", Text), ("catcode", Char), ("barelabel", Bool), ("catdesc", Text), ("baredesc", Text)];

/// The set-returning functions.
pub(super) static SET_FUNCTIONS: &[SetFunction] = &[
    set("generate_series", &[Int4, Int4], Int4, int4_series),
    set("generate_series", &[Int4, Int4, Int4], Int4, int4_series),
    set("generate_series", &[Int8, Int8], Int8, int8_series),
    set("generate_series", &[Int8, Int8, Int8], Int8, int8_series),
    set("generate_series", &[Numeric, Numeric], Numeric, numeric_series),
    set("generate_series", &[Numeric, Numeric, Numeric], Numeric, numeric_series),
    set("generate_series", &[Timestamp, Timestamp, Interval], Timestamp, |a, _| time_series(a, None)),
    set("generate_series", &[Timestamptz, Timestamptz, Interval], Timestamptz, |a, c| {
        time_series(a, Some(c.context.timezone().clone()))
    }),
    set("pg_partition_ancestors", &[Regclass], Regclass, no_partitions),
    set("pg_get_keywords", &[], Record, super::keywords::rows).columns(KEYWORD),
    set("generate_subscripts", &[AnyArray, Int4], Int4, generate_subscripts),
    set("generate_subscripts", &[Int2vector, Int4], Int4, generate_subscripts),
    set("generate_subscripts", &[Oidvector, Int4], Int4, generate_subscripts),
    set("generate_subscripts", &[AnyArray, Int4, Bool], Int4, generate_subscripts),
    set("unnest", &[AnyArray], AnyElement, unnest),
    set("jsonb_array_elements", &[Jsonb], Jsonb, |a, _| array_elements(a, false)).columns(ELEMENT_JSONB),
    set("jsonb_array_elements_text", &[Jsonb], Text, |a, _| array_elements(a, true)).columns(ELEMENT_TEXT),
    set("json_array_elements", &[Json], Json, |a, _| array_elements(a, false)).columns(ELEMENT_JSON),
    set("json_array_elements_text", &[Json], Text, |a, _| array_elements(a, true)).columns(ELEMENT_TEXT),
    set("jsonb_each", &[Jsonb], Record, |a, _| each(a, "jsonb_each", false)).columns(PAIR_JSONB),
    set("jsonb_each_text", &[Jsonb], Record, |a, _| each(a, "jsonb_each_text", true)).columns(PAIR_TEXT),
    set("json_each", &[Json], Record, |a, _| each(a, "json_each", false)).columns(PAIR_JSON),
    set("json_each_text", &[Json], Record, |a, _| each(a, "json_each_text", true)).columns(PAIR_TEXT),
    set("jsonb_object_keys", &[Jsonb], Text, |a, _| object_keys(a, "jsonb_object_keys")),
    set("json_object_keys", &[Json], Text, |a, _| object_keys(a, "json_object_keys")),
    set("_pg_expandarray", &[AnyArray], AnyElement, |a, _| expand_array(a)).columns(EXPANDED),
    set("pg_options_to_table", &[Array(&Text)], Record, |a, _| options_to_table(a)).columns(OPTIONS),
    set("pg_partition_tree", &[Regclass], Record, |a, _| partition_tree(a)).columns(PARTITIONS),
    set("verify_table", &[Regclass], Record, verify_table).columns(VERIFICATION),
    set("string_to_table", &[Text, Text], Text, |a, _| Ok(texts(pattern::split_text(a)?))),
    set("regexp_split_to_table", &[Text, Text], Text, |a, _| Ok(texts(pattern::regexp_split(a)?))),
    set("regexp_split_to_table", &[Text, Text, Text], Text, |a, _| Ok(texts(pattern::regexp_split(a)?))),
    set("regexp_matches", &[Text, Text], Array(&Text), |a, _| {
        Ok(one_column(pattern::matches(a)?.into_iter()))
    }),
    set("regexp_matches", &[Text, Text, Text], Array(&Text), |a, _| {
        Ok(one_column(pattern::matches(a)?.into_iter()))
    }),
];

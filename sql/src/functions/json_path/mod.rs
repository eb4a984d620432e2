//! The SQL/JSON path language: `jsonb_path_query(document, '$.items[*] ? (@.price > 10)')`.
//!
//! ```text
//!   text ──parse──▶ Path ──evaluate(document, variables)──▶ sequence of JSON values
//! ```
//!
//! A path is a small expression language of its own (PostgreSQL manual, section 9.16.2). Here a path is
//! untyped text wherever SQL has `jsonpath`: it is parsed once, kept for the calls that follow, and a
//! function's argument is declared as `text`.

mod evaluate;
mod parse;
mod token;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use amphora_storage::{Datum, Json as Document};
use serde_json::Value;

use self::parse::Path;
use super::json::jsonb;
use super::set_returning::{Rows, SetFunction, set};
use super::signature::Ty::*;
use super::string::str_of;
use super::{ScalarFunction, function};
use crate::error::{Result, SqlError};

/// How many parsed paths a thread keeps.
const CACHE: usize = 64;

thread_local! {
    static PATHS: RefCell<HashMap<String, Rc<Path>>> = RefCell::new(HashMap::new());
}

fn compiled(text: &str) -> Result<Rc<Path>> {
    if let Some(found) = PATHS.with_borrow(|c| c.get(text).cloned()) {
        return Ok(found);
    }
    let path = Rc::new(parse::parse(text)?);
    PATHS.with_borrow_mut(|c| {
        if c.len() >= CACHE {
            c.clear();
        }
        c.insert(text.to_owned(), Rc::clone(&path));
    });
    Ok(path)
}

/// The sequence that a call's path gives. With `silent`, errors of the data give nothing.
fn sequence(a: &[Datum]) -> Result<Option<Vec<Value>>> {
    let document = jsonb(&a[0])?;
    let path = compiled(str_of(&a[1])?)?;
    let none = Value::Object(Default::default());
    let variables = match a.get(2) {
        Some(d) => jsonb(d)?,
        None => &none,
    };
    if !variables.is_object() {
        return Err(SqlError::invalid_parameter_value("\"vars\" argument is not an object")
            .with_detail("Jsonpath parameters should be encoded as key-value pairs of \"vars\" object."));
    }
    let silent = a.get(3).and_then(Datum::as_bool) == Some(true);
    match evaluate::evaluate(&path, document, variables) {
        Ok(found) => Ok(Some(found)),
        Err(_) if silent => Ok(None),
        Err(error) => Err(error),
    }
}

fn exists(a: &[Datum]) -> Result<Datum> {
    Ok(sequence(a)?.map_or(Datum::Null, |found| Datum::Bool(!found.is_empty())))
}

/// The value of a predicate.
fn matches(a: &[Datum]) -> Result<Datum> {
    let silent = a.get(3).and_then(Datum::as_bool) == Some(true);
    match sequence(a)?.as_deref() {
        Some([Value::Bool(b)]) => Ok(Datum::Bool(*b)),
        Some([Value::Null]) => Ok(Datum::Null),
        None => Ok(Datum::Null),
        Some(_) if silent => Ok(Datum::Null),
        Some(_) => Err(SqlError::new("22038", "single boolean result is expected")),
    }
}

/// The arguments of an operator: errors of the data give NULL.
fn quiet(a: &[Datum]) -> Vec<Datum> {
    let variables = Datum::jsonb(Document(Value::Object(Default::default())));
    vec![a[0].clone(), a[1].clone(), variables, Datum::Bool(true)]
}

fn array(a: &[Datum]) -> Result<Datum> {
    let found = sequence(a)?.unwrap_or_default();
    Ok(Datum::jsonb(Document(Value::Array(found))))
}

fn first(a: &[Datum]) -> Result<Datum> {
    let found = sequence(a)?.unwrap_or_default().into_iter().next();
    Ok(found.map_or(Datum::Null, |v| Datum::jsonb(Document(v))))
}

fn rows(a: &[Datum]) -> Result<Rows> {
    let found = sequence(a)?.unwrap_or_default();
    Ok(Box::new(found.into_iter().map(|v| Ok(vec![Datum::jsonb(Document(v))]))))
}

macro_rules! scalars {
    ($($name:literal => $returns:expr, $eval:expr);* $(;)?) => {
        &[$(
            function($name, &[Jsonb, Text], $returns, |a, _| $eval(a)),
            function($name, &[Jsonb, Text, Jsonb], $returns, |a, _| $eval(a)),
            function($name, &[Jsonb, Text, Jsonb, Bool], $returns, |a, _| $eval(a)),
        )*]
    };
}

/// The functions of this family.
pub(super) static FUNCTIONS: &[ScalarFunction] = scalars![
    "jsonb_path_exists" => Bool, exists;
    "jsonb_path_match" => Bool, matches;
    "jsonb_path_query_array" => Jsonb, array;
    "jsonb_path_query_first" => Jsonb, first;
];

/// The operators of this family.
pub(super) static OPERATORS: &[ScalarFunction] = &[
    function("@?", &[Jsonb, Text], Bool, |a, _| exists(&quiet(a))),
    function("@@", &[Jsonb, Text], Bool, |a, _| matches(&quiet(a))),
];

/// The set-returning functions of this family.
pub(super) static SET_FUNCTIONS: &[SetFunction] = &[
    set("jsonb_path_query", &[Jsonb, Text], Jsonb, |a, _| rows(a)),
    set("jsonb_path_query", &[Jsonb, Text, Jsonb], Jsonb, |a, _| rows(a)),
    set("jsonb_path_query", &[Jsonb, Text, Jsonb, Bool], Jsonb, |a, _| rows(a)),
];

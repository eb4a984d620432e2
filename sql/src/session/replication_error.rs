//! Errors of the floor below, in this floor's terms.

use amphora_replication::{ConflictingKey, Error};

use crate::error::SqlError;
use crate::types::{self, FormatContext};

impl From<Error> for SqlError {
    fn from(error: Error) -> SqlError {
        let mut converted = SqlError::new(error.sqlstate, error.message);
        converted.detail = error.detail.map(String::from);
        if let Some(key) = &error.key {
            converted.detail = Some(describe(key));
        }
        converted.hint = error.hint.map(String::from);
        converted.constraint = error.constraint.map(String::from);
        if let Some(table) = error.table {
            converted.schema = Some("public".into());
            converted.table = Some(table.into());
        }
        converted.retry = Some(error.kind);
        converted
    }
}

/// `Key (a, b)=(1, x) already exists.`
fn describe(key: &ConflictingKey) -> String {
    let context = FormatContext::default();
    let names: Vec<&str> = key.columns.iter().map(|(name, _)| name.as_str()).collect();
    let values = key.columns.iter().zip(&key.values).map(|((_, ty), value)| {
        let mut text = String::new();
        match value.is_null() {
            true => text.push_str("null"),
            false => types::format(value, ty, &context, &mut text),
        }
        text
    });
    format!("Key ({})=({}) {}.", names.join(", "), values.collect::<Vec<_>>().join(", "), key.verb)
}

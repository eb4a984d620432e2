//! Errors of the floor below, in this floor's terms.

use amphora_replication::Error;

use crate::error::SqlError;

impl From<Error> for SqlError {
    fn from(error: Error) -> SqlError {
        let mut converted = SqlError::new(error.sqlstate, error.message);
        converted.detail = error.detail.map(String::from);
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

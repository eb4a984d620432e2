//! Errors of the floor below, in this floor's terms.

use amphora_replication::Error;

use crate::error::SqlError;

impl From<Error> for SqlError {
    fn from(error: Error) -> SqlError {
        let mut converted = SqlError::new(error.sqlstate, error.message);
        converted.detail = error.detail;
        converted.hint = error.hint;
        converted.constraint = error.constraint;
        if let Some(table) = error.table {
            converted.schema = Some("public".into());
            converted.table = Some(table);
        }
        converted.retry = Some(error.kind);
        converted
    }
}

//! What a session has prepared and declared, where the views and functions of its statements find it:
//! `pg_prepared_statements`, `pg_cursors`, and `WHERE CURRENT OF`.
//!
//! The statements and cursors themselves belong to the session, which is busy while a statement runs. This
//! is told of them whenever one comes or goes; unnamed statements, which come with every query of many drivers,
//! are nobody's business.

use std::collections::BTreeMap;

use amphora_storage::Datum;
use amphora_storage::schema::{Table, TableId};

use crate::error::{Result, SqlError};

/// A prepared statement, as it is listed.
#[derive(Clone, Debug)]
pub struct ListedStatement {
    /// Name
    pub name: String,
    /// Its text
    pub text: String,
    /// When it was prepared: microseconds since 2000-01-01 UTC
    pub prepared: i64,
    /// OIDs of its parameters' types
    pub parameters: Vec<u32>,
    /// PREPARE made it, not the protocol's Parse
    pub from_sql: bool,
}

/// A cursor, as it is listed.
#[derive(Clone, Debug)]
pub struct ListedCursor {
    /// Name
    pub name: String,
    /// The text that declared it
    pub text: String,
    /// WITH HOLD
    pub hold: bool,
    /// BINARY
    pub binary: bool,
    /// It goes backward
    pub scroll: bool,
    /// When it was declared: microseconds since 2000-01-01 UTC
    pub created: i64,
    /// Its transaction has ended
    pub held: bool,
    /// The primary keys, by table, of the row it stands on; `None` if it stands on none
    pub current: Option<Vec<(TableId, Vec<Datum>)>>,
    /// The tables that it could name rows of
    pub tables: Vec<TableId>,
}

/// All of a session's.
#[derive(Debug, Default)]
pub struct Listing {
    /// Prepared statements by name
    pub statements: BTreeMap<String, ListedStatement>,
    /// Cursors by name
    pub cursors: BTreeMap<String, ListedCursor>,
}

impl Listing {
    /// The key of the row of `table` that a cursor stands on. 34000, 24000
    pub fn current(&self, cursor: &str, table: &Table) -> Result<Vec<Datum>> {
        let listed = self
            .cursors
            .get(cursor)
            .ok_or_else(|| SqlError::invalid_cursor_name(format!("cursor \"{cursor}\" does not exist")))?;
        let state = |message: String| SqlError::new("24000", message);
        if listed.held {
            return Err(state(format!("cursor \"{cursor}\" is held from a previous transaction")));
        }
        if !listed.tables.contains(&table.id) {
            return Err(state(format!(
                "cursor \"{cursor}\" is not a simply updatable scan of table \"{}\"",
                table.name
            )));
        }
        let row = listed
            .current
            .as_ref()
            .ok_or_else(|| state(format!("cursor \"{cursor}\" is not positioned on a row")))?;
        // A row that an outer join left empty is no row of the table: nothing is found.
        let key = row.iter().find(|(id, _)| *id == table.id).map(|(_, key)| key.clone());
        Ok(key.unwrap_or_default())
    }
}

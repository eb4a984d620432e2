//! `amphora.restore(conflict_id)`: the write that lost is made again, on top of all that came since.
//!
//! It is a transaction of its own, which stands when it returns: what is restored is a new write like any other, and
//! travels like one.

use std::sync::Arc;

use amphora_replication::{
    Access, Engine, Error, OnConflict, Result, Transaction, TransactionOptions, leaderless::Conflict,
};
use amphora_storage::schema::Table;
use amphora_storage::{Datum, Row};

use crate::catalog::{conflict_key, conflict_of};

/// Writes the loser of a conflict back. False if the row has these values already.
pub(super) async fn restore(engine: &dyn Engine, id: i64) -> Result<bool> {
    let unknown = || {
        Error::new("22023", format!("conflict {id} does not exist on this node"))
            .hint("amphora.conflicts lists those that are kept.")
    };
    let conflict = engine.conflict(id)?.ok_or_else(unknown)?;
    let catalog = engine.catalog();
    let table = catalog.tables().find(|t| conflict_of(t, &conflict.key)).cloned().ok_or_else(unknown)?;
    let mut txn = engine.begin(TransactionOptions { autocommit: true, ..TransactionOptions::default() });
    txn.begin_statement(Access::Local, std::slice::from_ref(&table)).await?;
    let written = write(&mut *txn, &table, &conflict).await;
    match written {
        Ok(true) => txn.commit().await.map(|()| true),
        other => {
            txn.rollback().await;
            other
        }
    }
}

async fn write(txn: &mut dyn Transaction, table: &Arc<Table>, conflict: &Conflict) -> Result<bool> {
    let key = conflict_key(table, &conflict.key);
    let position = |id| table.columns.iter().position(|c| c.id == id);
    let lost = conflict.loser.values.iter().filter_map(|(id, value)| Some((position(*id)?, value)));
    let mut lost: Vec<(usize, &Datum)> = lost.collect();
    lost.retain(|(c, _)| !table.primary.columns.contains(c));
    if key.len() != table.primary.columns.len() {
        return Err(Error::new("XX001", format!("the key of conflict {} cannot be read", conflict.id)));
    }
    match txn.get(table, &key)? {
        Some(old) => {
            let mut new = old.row.clone();
            for (column, value) in lost {
                new[column] = value.clone();
            }
            if new == old.row {
                return Ok(false);
            }
            txn.update(table, vec![(old, new)]).await?;
        }
        // A column of the row was lost, and since then the row has gone too.
        None if conflict.column.is_some() => {
            return Err(Error::new("02000", format!("the row of conflict {} has been deleted", conflict.id))
                .hint("Insert it anew; the value that lost stands in amphora.conflicts."));
        }
        None => {
            let mut row: Row = vec![Datum::Null; table.columns.len()];
            for (&column, value) in table.primary.columns.iter().zip(key) {
                row[column] = value;
            }
            for (column, value) in lost {
                row[column] = value.clone();
            }
            let missing = table.columns.iter().zip(&row).find(|(c, value)| c.not_null && value.is_null());
            if let Some((column, _)) = missing {
                return Err(Error::new(
                    "23502",
                    format!("conflict {} does not tell the value of column \"{}\"", conflict.id, column.name),
                )
                .detail("Only what the update wrote came here; the row had gone.")
                .hint("Restore it on the node that wrote the update, or insert the row anew."));
            }
            txn.insert(table, vec![row], OnConflict::Error).await?;
        }
    }
    Ok(true)
}

//! Rows written anew, and rows looked at.
//!
//! A rewrite gives the table a keyspace of its own (`Table::storage`) and fills it, indexes included, from
//! the old one, batch by batch. Nobody knows the new keyspace before the descriptor that names it commits,
//! so nothing of it needs to be locked or compared; readers of older snapshots go on with the old one, which
//! is reclaimed, like a dropped table, when no snapshot can ask for it any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use amphora_replication::{Direction, KeyRange, Scan};
use amphora_storage::schema::{IndexId, Table};
use amphora_storage::{Datum, Row};

use super::super::Session;
use crate::binder::stored_expressions;
use crate::error::{Result, SqlError};
use crate::executor::{self, Builder, Context, Expression, blocking};
use crate::expr::Expr;
use crate::plan::Rule;

/// Rows read and written at a time.
const ROWS: usize = 1024;

/// What existing rows must satisfy.
#[derive(Debug, Default)]
pub(super) struct Verify {
    /// Positions of columns
    pub(super) not_null: Vec<usize>,
    /// Names of checks of the table
    pub(super) checks: BTreeSet<String>,
}

/// For each column of the new table its value over a row of the old one; NULL for what that has not.
pub(super) fn copy_columns(old: &Table, new: &Table) -> Vec<Expr> {
    let value =
        |column: &amphora_storage::schema::Column| match old.columns.iter().position(|c| c.id == column.id) {
            Some(position) => Expr::Column(position, old.columns[position].ty.base()),
            None => Expr::Literal(Datum::Null, column.ty.base()),
        };
    new.columns.iter().map(value).collect()
}

fn all_rows(table: &Arc<Table>) -> Scan {
    Scan {
        table: table.clone(),
        index: IndexId::PRIMARY,
        range: KeyRange::all(),
        direction: Direction::Forward,
        columns: None,
    }
}

/// Calls `each` with every row of a table.
fn each_row(
    table: &Arc<Table>,
    context: &Context<'_>,
    mut each: impl FnMut(&Row) -> Result<()>,
) -> Result<()> {
    let mut rows = context.txn.scan(&all_rows(table))?;
    let mut batch = Vec::new();
    while rows.next_batch(ROWS, &mut batch)? > 0 {
        context.run.guard.check()?;
        for stored in batch.drain(..) {
            each(&stored.row)?;
        }
    }
    Ok(())
}

impl Session {
    /// Puts a new descriptor in the old one's place, and all rows, as these expressions make them, in a new
    /// keyspace. 23505
    pub(super) fn rewrite(&mut self, old: &Arc<Table>, mut new: Table, values: &[Expr]) -> Result<()> {
        let run = self.runtime(&Arc::from([]), None);
        let values = Expression::compile_all(values, &mut Builder::new())?;
        let txn = self.transaction(false);
        new.storage = Some(txn.allocate_id()?);
        txn.put_table(new)?;
        let new = txn.catalog().table_by_id(old.id).cloned().ok_or_else(super::super::ddl::table_gone)?;
        blocking(|| {
            let mut rows = txn.scan(&all_rows(old))?;
            let mut batch = Vec::new();
            while rows.next_batch(ROWS, &mut batch)? > 0 {
                run.guard.check()?;
                let context = run.context(txn.as_ref());
                let made = batch.drain(..).map(|stored| executor::eval_all(&values, &stored.row, &context));
                let made = made.collect::<Result<Vec<Row>>>()?;
                txn.load_rows(&new, made)?;
            }
            Ok(())
        })
    }

    /// Looks at all rows. 23502, 23514
    pub(super) fn verify(&mut self, table: &Arc<Table>, what: &Verify) -> Result<()> {
        if what.not_null.is_empty() && what.checks.is_empty() {
            return Ok(());
        }
        let planner = self.altered_planner();
        let builder = &mut Builder::new();
        let bound = stored_expressions(&planner, table, &[])?.checks;
        let checks = bound.into_iter().filter_map(|(rule, e)| match rule {
            Rule::Check(name) if what.checks.contains(&name) => Some((name, e)),
            _ => None,
        });
        let checks = checks
            .map(|(name, e)| Ok((name, Expression::compile(&e, builder)?)))
            .collect::<Result<Vec<_>>>()?;
        let run = self.runtime(&Arc::from([]), None);
        let txn = self.transaction(false);
        let context = run.context(txn.as_ref());
        blocking(|| {
            each_row(table, &context, |row| {
                if let Some(&column) = what.not_null.iter().find(|&&c| row[c].is_null()) {
                    let name = &table.columns[column].name;
                    return Err(SqlError::not_null_violation(format!(
                        "column \"{name}\" of relation \"{}\" contains null values",
                        table.name
                    ))
                    .with_table(&table.schema, &table.name)
                    .with_column(name));
                }
                for (name, check) in &checks {
                    if check.value(row, &context)?.as_bool() == Some(false) {
                        return Err(SqlError::check_violation(format!(
                            "check constraint \"{name}\" of relation \"{}\" is violated by some row",
                            table.name
                        ))
                        .with_table(&table.schema, &table.name)
                        .with_constraint(name));
                    }
                }
                Ok(())
            })
        })
    }
}

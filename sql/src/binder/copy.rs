//! COPY: its columns, its options, and the INSERT or the query it stands for.

use std::sync::Arc;

use amphora_replication::OnConflict;
use amphora_storage::schema::Table;
use sqlparser::ast::{self, Spanned};

use super::from::Found;
use super::insert::{full_fields, table_scope};
use super::level::{Clause, Level};
use super::query::node;
use super::{Binder, fold, name_parts};
use crate::copy::{Columns, Copy, CopyFrom, CopyOptions, CopyTo, Direction};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::parser::{CopyPlace, CopyStatement, CopySubject, parse};
use crate::plan::{Field, Insert, Node, Statement};

/// What is said to who would read or write the server's files.
const USE_THE_CLIENT: &str =
    "Anyone can COPY to stdout or from stdin. psql's \\copy command also works for anyone.";

impl Binder<'_> {
    pub(super) fn copy(&mut self, copy: &CopyStatement) -> Result<(Statement, Arc<[Field]>)> {
        self.no_parameters = true;
        allowed(copy)?;
        let direction = if copy.from {
            Direction::From(Box::new(self.copy_from(copy)?))
        } else {
            Direction::To(Box::new(self.copy_to(copy)?))
        };
        let options = CopyOptions::read(copy.from, &copy.options)?;
        let mut copy = Copy { options, direction };
        name_columns(&mut copy)?;
        Ok((Statement::Copy(Box::new(copy)), Arc::from([])))
    }

    fn copy_from(&mut self, copy: &CopyStatement) -> Result<CopyFrom> {
        let CopySubject::Table { name, columns } = &copy.subject else {
            return Err(SqlError::syntax_error("COPY FROM needs a table"));
        };
        let table = self.copied_table(name, true)?;
        self.use_table(&table);
        let columns = self.copied_columns(&table, columns)?;
        let given =
            columns.iter().enumerate().map(|(i, &c)| Expr::Column(i, table.columns[c].ty.base())).collect();
        let row = self.full_row(&table, &columns, given)?;
        let filter = match &copy.filter {
            None => None,
            Some(condition) => {
                let scope = table_scope(&table, &table.name);
                let level = Level::new(scope, Clause::CopyWhere);
                Some(self.in_level(level, |b| b.condition(condition, "WHERE"))?.0)
            }
        };
        let insert = Insert {
            table: table.clone(),
            source: node(Node::Values(Vec::new()), full_fields(&table)),
            on_conflict: OnConflict::Error,
            do_update: None,
            checks: self.checks(&table)?,
            returning: Vec::new(),
        };
        let none = vec![false; columns.len()];
        Ok(CopyFrom { table, columns, row, filter, insert, force_not_null: none.clone(), force_null: none })
    }

    fn copy_to(&mut self, copy: &CopyStatement) -> Result<CopyTo> {
        let mut of = None;
        let (statement, schema) = match &copy.subject {
            CopySubject::Query(query) => {
                let bound = self.ast(query)?;
                match &bound.0 {
                    Statement::Query(_) => {}
                    Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                        if bound.1.is_empty() {
                            return Err(SqlError::feature_not_supported(
                                "COPY query must have a RETURNING clause",
                            ));
                        }
                    }
                    _ => return Err(SqlError::syntax_error("COPY takes a SELECT, INSERT, UPDATE or DELETE")),
                }
                bound
            }
            CopySubject::Table { name, columns } => {
                let table = self.copied_table(name, false)?;
                let columns = self.copied_columns(&table, columns)?;
                let names: Vec<String> = columns.iter().map(|&c| quoted(&table.columns[c].name)).collect();
                let query = format!(
                    "SELECT {} FROM {}.{}",
                    names.join(", "),
                    quoted(&table.schema),
                    quoted(&table.name)
                );
                let parsed = parse(&query)?;
                let Some(query) = parsed.first() else {
                    return Err(SqlError::internal("the query of COPY is empty"));
                };
                of = Some(table);
                self.ast(query.ast()?)?
            }
        };
        Ok(CopyTo { statement, table: of, force_quote: vec![false; schema.len()], schema })
    }

    /// The table that is copied from or to. 42P01, 42809
    fn copied_table(&mut self, name: &ast::ObjectName, into: bool) -> Result<Arc<Table>> {
        match self.find_relation(name).map_err(without_position)? {
            Found::Table(table) => Ok(table),
            _ => {
                let parts = name_parts(name)?;
                let bare = parts.last().map(|i| fold(i)).unwrap_or_default();
                Err(if into {
                    SqlError::wrong_object_type(format!("cannot copy to view \"{bare}\""))
                        .with_hint("To enable copying to a view, provide an INSTEAD OF INSERT trigger.")
                } else {
                    SqlError::wrong_object_type(format!("cannot copy from view \"{bare}\""))
                        .with_hint("Try the COPY (SELECT ...) TO variant.")
                })
            }
        }
    }

    /// Positions of the columns named; all visible ones if none is. 42703, 42701
    fn copied_columns(&self, table: &Table, names: &[ast::ObjectName]) -> Result<Vec<usize>> {
        if names.is_empty() {
            let visible = table.visible_columns().iter().enumerate();
            return Ok(visible.filter(|(_, c)| c.generated.is_none()).map(|(i, _)| i).collect());
        }
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            let column = self.target_column(table, name).map_err(without_position)?;
            let bare = &table.columns[column].name;
            if table.columns[column].generated.is_some() {
                let message = format!("column \"{bare}\" is a generated column");
                return Err(SqlError::invalid_column_reference(message)
                    .with_detail("Generated columns cannot be used in COPY."));
            }
            if columns.contains(&column) {
                let error = SqlError::duplicate_column(format!("column \"{bare}\" specified more than once"));
                return Err(without_position(self.at(error, name.span())));
            }
            columns.push(column);
        }
        Ok(columns)
    }
}

/// PostgreSQL looks the columns of COPY up when it runs, where it knows of no position.
fn without_position(mut error: SqlError) -> SqlError {
    error.position = None;
    error
}

/// 42501 for anything but the client's own data.
fn allowed(copy: &CopyStatement) -> Result<()> {
    let (role, what) = match (copy.place, copy.from) {
        (CopyPlace::Client, _) => return Ok(()),
        (CopyPlace::File, true) => ("pg_read_server_files", "COPY from a file"),
        (CopyPlace::File, false) => ("pg_write_server_files", "COPY to a file"),
        (CopyPlace::Program, _) => ("pg_execute_server_program", "COPY to or from an external program"),
    };
    let message = format!("must be superuser or have privileges of the {role} role to {what}");
    Err(SqlError::insufficient_privilege(message).with_hint(USE_THE_CLIENT))
}

/// Finds the columns that options name among those copied. 42P10
fn name_columns(copy: &mut Copy) -> Result<()> {
    let options = &copy.options;
    match &mut copy.direction {
        Direction::From(from) => {
            let table = Some(&from.table);
            let names: Vec<&str> =
                from.columns.iter().map(|&c| from.table.columns[c].name.as_str()).collect();
            let not_null = marked("FORCE_NOT_NULL", &options.force_not_null, &names, table)?;
            let null = marked("FORCE_NULL", &options.force_null, &names, table)?;
            (from.force_not_null, from.force_null) = (not_null, null);
        }
        Direction::To(to) => {
            let names: Vec<&str> = to.schema.iter().map(|f| f.name.as_str()).collect();
            to.force_quote = marked("FORCE_QUOTE", &options.force_quote, &names, to.table.as_ref())?;
        }
    }
    Ok(())
}

fn marked(option: &str, wanted: &Columns, names: &[&str], table: Option<&Arc<Table>>) -> Result<Vec<bool>> {
    let mut marks = vec![*wanted == Columns::All; names.len()];
    if let Columns::Named(columns) = wanted {
        for column in columns {
            let Some(place) = names.iter().position(|name| name == column) else {
                if let Some(table) = table
                    && table.column_position(column).is_none()
                {
                    return Err(SqlError::undefined_column(format!(
                        "column \"{column}\" of relation \"{}\" does not exist",
                        table.name
                    )));
                }
                let message = format!("{option} column \"{column}\" not referenced by COPY");
                return Err(SqlError::invalid_column_reference(message));
            };
            marks[place] = true;
        }
    }
    Ok(marks)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

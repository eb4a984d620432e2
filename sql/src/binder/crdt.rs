//! `crdt_inspect(column)` and `crdt_reset(column)`: functions of a column rather than of its value.

use std::sync::Arc;

use amphora_storage::schema::Table;
use amphora_storage::{DataType, Datum};
use sqlparser::ast::FunctionArg;

use super::Binder;
use super::level::Clause;
use crate::error::{Result, SqlError};
use crate::expr::{CRDT_RESET, Expr};
use crate::functions;

/// The function that tells what is kept of a column.
pub(super) const CRDT_INSPECT: &str = "crdt_inspect";

/// A column of a stored table, among those of a row.
struct StoredColumn {
    table: Arc<Table>,
    /// Among the table's columns
    position: usize,
    /// How many queries outwards the row is
    depth: usize,
    /// Where in the row the table's columns begin
    start: usize,
}

impl StoredColumn {
    /// Another column of the same table and row.
    fn reference(&self, column: usize, ty: DataType) -> Expr {
        match self.depth {
            0 => Expr::Column(self.start + column, ty),
            depth => Expr::Outer { depth, position: self.start + column, ty },
        }
    }
}

impl Binder<'_> {
    /// A call of one of the two. 42809 if its argument is no column of a leaderless table.
    pub(super) fn crdt_call(&mut self, name: &str, args: &[FunctionArg]) -> Result<Expr> {
        let args = self.call_args(args)?;
        let [arg] = &args[..] else {
            return Err(SqlError::undefined_function(format!("function {name} takes one column")));
        };
        let column = self.stored_column(name, arg)?;
        if name == CRDT_INSPECT {
            return self.inspect_call(&column);
        }
        let (table, position) = (&column.table, column.position);
        let ty = table.columns[position].ty.clone();
        if !matches!(ty, DataType::Crdt(_)) {
            return Err(not_of_a_column(name).with_hint(format!(
                "Column \"{}\" is of type {ty}, which is overwritten as a whole: assign it a value.",
                table.columns[position].name
            )));
        }
        if self.level()?.clause != Clause::Set {
            return Err(stands_alone());
        }
        let resolved = functions::resolve_function(CRDT_RESET, &[ty.base()])?;
        let (base, args) = (ty.base(), vec![column.reference(position, ty)]);
        Ok(Expr::Call { function: resolved.function, args, ty: base })
    }

    /// The stored column that an argument is.
    fn stored_column(&mut self, name: &str, arg: &Expr) -> Result<StoredColumn> {
        let (depth, position) = match arg {
            Expr::Column(position, _) => (0, *position),
            Expr::Outer { depth, position, .. } => (*depth, *position),
            _ => return Err(not_of_a_column(name)),
        };
        let level = self.levels.len().checked_sub(depth + 1).and_then(|i| self.levels.get(i));
        let scope = &level.ok_or_else(|| SqlError::internal("no query level"))?.scope;
        let relation = scope.columns.get(position).and_then(|c| c.relation);
        let relation = relation.and_then(|r| scope.relations.get(r)).ok_or_else(|| not_of_a_column(name))?;
        let table = relation.table.clone().ok_or_else(|| not_of_a_column(name))?;
        if table.is_strong() {
            return Err(not_of_a_column(name)
                .with_detail(format!("Table \"{}\" is strong, and keeps plain values.", table.name)));
        }
        let start = relation.columns.start;
        let column = position.checked_sub(start).filter(|c| *c < table.columns.len());
        let column = column.ok_or_else(|| not_of_a_column(name))?;
        Ok(StoredColumn { table, position: column, depth, start })
    }

    fn inspect_call(&mut self, column: &StoredColumn) -> Result<Expr> {
        let table = &column.table;
        let id = i32::try_from(table.columns[column.position].id.0).unwrap_or(i32::MAX);
        let mut args = vec![
            Expr::Literal(Datum::Oid(table.id.0), DataType::Oid),
            Expr::Literal(Datum::Int4(id), DataType::Int4),
        ];
        let key = table.primary.columns.iter();
        args.extend(key.map(|&c| column.reference(c, table.columns[c].ty.base())));
        self.call_named("crdt_state", args)
    }
}

/// Among assignments: what begins a column anew stands alone, and names the column that it is assigned to.
pub(super) fn check_resets(table: &Table, assignments: &[(usize, Expr)]) -> Result<()> {
    for (column, e) in assignments {
        let resets = e.any(&mut |e| matches!(e, Expr::Call { function, .. } if function.name == CRDT_RESET));
        let own = e.any(&mut |e| matches!(e, Expr::Column(c, _) if c == column));
        if resets && !(e.is_reset() && own) {
            let name = &table.columns[*column].name;
            return Err(stands_alone().with_hint(format!("Write SET {name} = crdt_reset({name}).")));
        }
    }
    Ok(())
}

fn not_of_a_column(name: &str) -> SqlError {
    let what = if name == CRDT_INSPECT { "a column" } else { "a mergeable column" };
    SqlError::wrong_object_type(format!("argument of {name} must be {what} of a leaderless table"))
}

fn stands_alone() -> SqlError {
    SqlError::feature_not_supported("crdt_reset can only be what UPDATE assigns to the column it names")
}

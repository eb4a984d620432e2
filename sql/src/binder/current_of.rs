//! `WHERE CURRENT OF cursor`.
//!
//! A cursor over rows that are a table's carries their primary keys behind the columns that it shows:
//!
//! ```text
//!   DECLARE c CURSOR FOR SELECT b FROM t     rows: b ++ key of t       shown: b
//!   UPDATE t SET … WHERE CURRENT OF c        WHERE id = current_of('c', t, 0)
//! ```
//!
//! The condition is an ordinary one on the key, so it finds the row by its index, and locks and restarts are
//! those of every other statement.

use std::sync::Arc;

use amphora_storage::schema::Table;
use amphora_storage::{DataType, Datum};

use super::Binder;
use crate::error::Result;
use crate::expr::Expr;
use crate::functions;
use crate::plan::{Field, Node, Plan};

/// The name of the fields behind those that a cursor shows.
pub(super) const KEY_FIELD: &str = "key of the current row";

impl Binder<'_> {
    /// The condition that a target's row is the one a cursor stands on.
    pub(super) fn current_of(&mut self, table: &Arc<Table>, cursor: &str) -> Result<Expr> {
        let mut conditions = Vec::with_capacity(table.primary.columns.len());
        for (i, &column) in table.primary.columns.iter().enumerate() {
            let ty = table.columns[column].ty.base();
            let args = vec![
                Expr::Literal(Datum::text(cursor), DataType::Text),
                Expr::Literal(Datum::Oid(table.id.0), DataType::Oid),
                Expr::Literal(Datum::Int4(i32::try_from(i).unwrap_or(i32::MAX)), DataType::Int4),
            ];
            let value = Expr::Call { function: &functions::CURRENT_OF, args, ty: ty.clone() };
            conditions.push(self.operator("=", Some(Expr::Column(column, ty)), value)?);
        }
        Ok(match conditions.len() {
            1 => conditions.remove(0),
            _ => Expr::And(conditions),
        })
    }
}

/// The cursor of a condition that is nothing but CURRENT OF (see `parser/rewrite.rs`).
pub(super) fn cursor_of(condition: &sqlparser::ast::Expr) -> Option<String> {
    let sqlparser::ast::Expr::Identifier(ident) = condition else { return None };
    let name = ident.value.strip_prefix(crate::parser::CURRENT_OF)?;
    ident.quote_style.is_none().then(|| name.to_owned())
}

/// Puts keys behind a cursor's columns, where its rows are rows of tables: of the one table it scans, or of
/// those whose rows it locks.
pub(super) fn carry_keys(plan: &mut Plan) {
    let Node::Project { input, exprs } = &mut plan.node else { return };
    let mut fields = plan.schema.to_vec();
    for (table, positions) in keyed(input) {
        for (position, column) in positions.iter().zip(&table.primary.columns) {
            let ty = input.schema.get(*position).map_or(DataType::Unknown, |f| f.ty.clone());
            exprs.push(Expr::Column(*position, ty.clone()));
            let number = i16::try_from(column + 1).unwrap_or(i16::MAX);
            fields.push(Field { name: KEY_FIELD.into(), ty, origin: Some((table.id.0, number)) });
        }
    }
    plan.schema = Arc::from(fields);
}

/// The tables whose rows a plan's rows are, with the positions of their keys.
fn keyed(plan: &Plan) -> Vec<(Arc<Table>, Vec<usize>)> {
    let mut inner = plan;
    let (mut locked, mut sorted) = (Vec::new(), false);
    loop {
        match &inner.node {
            Node::Limit { input, .. } => inner = input,
            Node::Lock { input, targets, .. } => {
                for target in targets {
                    locked.push((target.table.clone(), target.key.clone()));
                }
                inner = input;
            }
            Node::Filter { input, .. } => inner = input,
            Node::Sort { input, .. } => {
                sorted = true;
                inner = input;
            }
            Node::TableScan(scan) if !sorted && locked.is_empty() => {
                return vec![(scan.table.clone(), scan.table.primary.columns.clone())];
            }
            _ => break,
        }
    }
    // Of a table that is there twice nobody could say which row is meant.
    let once = |table: &Table| locked.iter().filter(|(t, _)| t.id == table.id).count() == 1;
    locked.iter().filter(|(table, _)| once(table)).cloned().collect()
}

//! Writing through a view: INSERT, UPDATE and DELETE of a view whose rows are the rows of one table.
//!
//! PostgreSQL's rule: one table in FROM, and nothing that makes rows of other rows (DISTINCT, grouping, set
//! operations, WITH, LIMIT, functions that give sets). The statement then runs on the table itself. The
//! view's WHERE says which rows there are, and the view's columns are the only names in sight. Here every column
//! of the view must be a column of the table as it is; PostgreSQL also takes views in which some are computed, and
//! then writes the others. Such views, and views of views, are refused (55000).

use std::sync::Arc;

use amphora_storage::schema::{Table, View};
use sqlparser::ast;
use sqlparser::ast::{Expr as AstExpr, GroupByExpr, SelectItem, SetExpr, TableFactor};

use super::Binder;
use super::level::{Clause, Level};
use super::scope::Scope;
use super::select::filter;
use super::view::not_updatable;
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::parser;
use crate::plan::{Node, Plan};

/// Names of columns, and their positions in the table.
pub(super) type Columns = Arc<[(String, usize)]>;

/// What a statement writes to: a table, by itself or through a view.
pub(super) struct Target {
    /// The table
    pub(super) table: Arc<Table>,
    /// Its rows, whole, as far as the view shows them
    pub(super) plan: Plan,
    /// The names in sight
    pub(super) scope: Scope,
    /// Names and positions of the columns that may be written; `None` is all of the table's own
    pub(super) columns: Option<Columns>,
}

/// The one table in FROM and the WHERE of a query whose rows are a table's rows.
fn simple(query: &ast::Query) -> Option<(&ast::Select, &ast::TableWithJoins)> {
    let plain = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty();
    let SetExpr::Select(select) = &*query.body else { return None };
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(keys, sets) if keys.is_empty() && sets.is_empty());
    let flat = select.distinct.is_none() && select.having.is_none() && select.named_window.is_empty();
    let [item] = &select.from[..] else { return None };
    let one = item.joins.is_empty() && matches!(&item.relation, TableFactor::Table { args: None, .. });
    (plain && ungrouped && flat && one).then_some((&**select, item))
}

/// The column that an item of the SELECT list is, if it is one.
fn column_of(item: &SelectItem) -> Option<&AstExpr> {
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { return None };
    matches!(expr, AstExpr::Identifier(_) | AstExpr::CompoundIdentifier(_)).then_some(expr)
}

impl Binder<'_> {
    /// The table behind a view. 55000 if there is not exactly one.
    pub(super) fn target_of_view(&mut self, view: &Arc<View>, alias: &str, verb: &str) -> Result<Target> {
        let refused = || not_updatable(verb, &view.name);
        let query = parser::parse_query(&view.query)?;
        let (select, item) = simple(&query).ok_or_else(refused)?;
        let items: Option<Vec<&AstExpr>> = select.projection.iter().map(column_of).collect();
        let items = items.ok_or_else(refused)?;
        let (plan, scope, positions) = self
            .inside(view, |b| {
                let (plan, scope) = b.table_with_joins(item)?;
                let (bound, level) = b.in_level(Level::new(scope, Clause::Where), |b| {
                    let condition = select.selection.as_ref().map(|e| b.condition(e, "WHERE")).transpose()?;
                    let columns = items.iter().map(|e| b.expr(e)).collect::<Result<Vec<Expr>>>()?;
                    Ok((condition, columns))
                })?;
                let (condition, columns) = bound;
                let positions = columns.iter().map(|column| match column {
                    Expr::Column(position, _) => Some(*position),
                    _ => None,
                });
                Ok((plan, condition, level.scope, positions.collect::<Option<Vec<usize>>>()))
            })
            .map(|(plan, condition, scope, positions)| {
                let plan = match condition {
                    Some(condition) => filter(plan, condition),
                    None => plan,
                };
                (plan, scope, positions)
            })?;
        let table = scope.relations.first().and_then(|r| r.table.clone()).ok_or_else(refused)?;
        let positions = positions.ok_or_else(refused)?;
        let once = positions.iter().enumerate().all(|(i, p)| !positions[..i].contains(p));
        if !once || plan.width() != table.columns.len() || !reads(&plan) {
            return Err(refused());
        }
        let columns: Vec<(String, usize)> =
            view.columns.iter().zip(&positions).map(|((name, _), p)| (name.clone(), *p)).collect();
        Ok(Target { table, plan, scope: shown(scope, view, alias, &columns), columns: Some(columns.into()) })
    }

    /// The position of a column that a statement through a view names; its own error if it has none.
    pub(super) fn written_column(&self, table: &Table, name: &str) -> Option<usize> {
        match &self.written {
            Some((id, columns)) if *id == table.id => {
                columns.iter().find(|(shown, _)| shown == name).map(|(_, position)| *position)
            }
            _ => table.column_position(name),
        }
    }
}

/// True of a scan, filtered or not: the rows of a table and not of a view's subquery.
fn reads(plan: &Plan) -> bool {
    match &plan.node {
        Node::TableScan(_) => true,
        Node::Filter { input, .. } => reads(input),
        _ => false,
    }
}

/// The table's row under the view's names.
fn shown(mut scope: Scope, view: &View, alias: &str, columns: &[(String, usize)]) -> Scope {
    scope.star.clear();
    scope.columns.iter_mut().for_each(|c| c.hidden = true);
    for (name, position) in columns {
        if let Some(column) = scope.columns.get_mut(*position) {
            column.hidden = false;
            column.name.clone_from(name);
            scope.star.push(*position);
        }
    }
    if let Some(relation) = scope.relations.first_mut() {
        alias.clone_into(&mut relation.name);
        relation.schema = (alias == view.name).then(|| view.schema.clone());
        // Its whole row is the view's, not the table's.
        relation.table = None;
    }
    scope
}

/// 42703
pub(super) fn no_such_column(name: &str, relation: &str) -> SqlError {
    SqlError::undefined_column(format!("column \"{name}\" of relation \"{relation}\" does not exist"))
}

//! UPDATE and DELETE.

use std::sync::Arc;

use amphora_storage::schema::Table;
use sqlparser::ast;
use sqlparser::ast::{AssignmentTarget, FromTable, Spanned, TableFactor, UpdateTableFromKind};

use super::expr::{table_fields, unwrap_nested};
use super::from::table_scan;
use super::insert::{is_default, table_scope};
use super::level::{Clause, Level};
use super::query::project;
use super::scope::Scope;
use super::select::filter;
use super::{Binder, fold};
use crate::error::{Result, SqlError};
use crate::expr::{Expr, Subquery, SubqueryKind};
use crate::plan::{Delete, Field, Plan, Statement, Update};

impl Binder<'_> {
    pub(super) fn update(&mut self, update: &ast::Update) -> Result<(Statement, Arc<[Field]>)> {
        let (table, plan, scope) = self.target(&update.table, "update")?;
        let from = match &update.from {
            None => &[][..],
            Some(UpdateTableFromKind::BeforeSet(items) | UpdateTableFromKind::AfterSet(items)) => items,
        };
        let (source, scope) = self.source(plan, scope, from, update.selection.as_ref())?;
        let (assignments, level) =
            self.in_level(Level::new(scope, Clause::Set), |b| b.assignments(&table, &update.assignments))?;
        let checks = self.checks(&table)?;
        let (returning, schema) = self.returning(update.returning.as_deref(), level.scope)?;
        let update = Update { table, source, assignments, checks, returning };
        Ok((Statement::Update(Box::new(update)), schema))
    }

    pub(super) fn delete(&mut self, delete: &ast::Delete) -> Result<(Statement, Arc<[Field]>)> {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let [target] = &from[..] else {
            return Err(SqlError::syntax_error("DELETE takes one table").with_hint("Join others with USING."));
        };
        let (table, plan, scope) = self.target(target, "delete from")?;
        let using = delete.using.as_deref().unwrap_or_default();
        let (source, scope) = self.source(plan, scope, using, delete.selection.as_ref())?;
        let (returning, schema) = self.returning(delete.returning.as_deref(), scope)?;
        Ok((Statement::Delete(Box::new(Delete { table, source, returning })), schema))
    }

    /// The table a statement changes, whole rows of it.
    fn target(&mut self, item: &ast::TableWithJoins, verb: &str) -> Result<(Arc<Table>, Plan, Scope)> {
        let TableFactor::Table { name, alias, args: None, .. } = &item.relation else {
            return Err(SqlError::syntax_error(format!("cannot {verb} this")));
        };
        if !item.joins.is_empty() {
            return Err(SqlError::syntax_error("a join cannot be written to")
                .with_hint("Join other tables with FROM or USING."));
        }
        let table = self.writable(name, verb)?;
        let alias = alias.as_ref().map_or_else(|| table.name.clone(), |a| fold(&a.name));
        let scope = table_scope(&table, &alias);
        let plan = table_scan(table.clone(), table_fields(&table).into());
        Ok((table, plan, scope))
    }

    /// The rows to change: the table's, joined with others, for which WHERE is true.
    fn source(
        &mut self,
        plan: Plan,
        scope: Scope,
        others: &[ast::TableWithJoins],
        selection: Option<&ast::Expr>,
    ) -> Result<(Plan, Scope)> {
        let mut joined = (plan, scope);
        for item in others {
            joined = self.add_from(joined, item)?;
        }
        let (plan, scope) = joined;
        let Some(e) = selection else { return Ok((plan, scope)) };
        let (condition, level) =
            self.in_level(Level::new(scope, Clause::Where), |b| b.condition(e, "WHERE"))?;
        Ok((filter(plan, condition), level.scope))
    }

    /// SET's assignments, in the innermost level. 42601 if a column is assigned twice.
    pub(super) fn assignments(
        &mut self,
        table: &Arc<Table>,
        assignments: &[ast::Assignment],
    ) -> Result<Vec<(usize, Expr)>> {
        let mut bound: Vec<(usize, Expr)> = Vec::with_capacity(assignments.len());
        for assignment in assignments {
            match &assignment.target {
                AssignmentTarget::ColumnName(name) => {
                    let column = self.target_column(table, name)?;
                    let value = self.assigned(table, column, &assignment.value)?;
                    bound.push((column, value));
                }
                AssignmentTarget::Tuple(names) => {
                    let columns =
                        names.iter().map(|n| self.target_column(table, n)).collect::<Result<Vec<_>>>()?;
                    bound.extend(self.assigned_row(table, &columns, &assignment.value)?);
                }
            }
        }
        for (i, (column, _)) in bound.iter().enumerate() {
            if bound[..i].iter().any(|(c, _)| c == column) {
                let name = &table.columns[*column].name;
                return Err(SqlError::syntax_error(format!(
                    "multiple assignments to same column \"{name}\""
                )));
            }
        }
        Ok(bound)
    }

    fn assigned(&mut self, table: &Table, column: usize, value: &ast::Expr) -> Result<Expr> {
        if is_default(value) {
            return self.default_value(table, column);
        }
        let expr = self.expr(value)?;
        let target = &table.columns[column];
        self.assign(expr, &target.name, &target.ty).map_err(|error| self.at(error, value.span()))
    }

    /// `(a, b) = (1, 2)`, `(a, b) = (SELECT …)`
    fn assigned_row(
        &mut self,
        table: &Arc<Table>,
        columns: &[usize],
        value: &ast::Expr,
    ) -> Result<Vec<(usize, Expr)>> {
        let mismatch = || SqlError::syntax_error("number of columns does not match number of values");
        match unwrap_nested(value) {
            ast::Expr::Tuple(values) => {
                if values.len() != columns.len() {
                    return Err(mismatch());
                }
                columns.iter().zip(values).map(|(&c, v)| Ok((c, self.assigned(table, c, v)?))).collect()
            }
            ast::Expr::Subquery(query) => {
                let (plan, correlated) = self.subplan(query)?;
                if plan.width() != columns.len() {
                    return Err(mismatch());
                }
                let mut bound = Vec::with_capacity(columns.len());
                for (i, &column) in columns.iter().enumerate() {
                    let field = plan.schema[i].clone();
                    let ty = field.ty.clone();
                    let one = project(plan.clone(), vec![Expr::Column(i, ty.clone())], Arc::from([field]));
                    let kind = SubqueryKind::Scalar;
                    let value = Subquery { kind, plan: one.into(), correlated, ty };
                    let target = &table.columns[column];
                    let value = self.assign(Expr::Subquery(Box::new(value)), &target.name, &target.ty)?;
                    bound.push((column, value));
                }
                Ok(bound)
            }
            other if columns.len() == 1 => Ok(vec![(columns[0], self.assigned(table, columns[0], other)?)]),
            _ => Err(SqlError::syntax_error(
                "source for a multiple-column UPDATE item must be a sub-SELECT or ROW() expression",
            )),
        }
    }
}

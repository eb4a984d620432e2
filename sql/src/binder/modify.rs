//! UPDATE and DELETE.

use std::sync::Arc;

use amphora_storage::schema::{Column, Identity, Table};
use amphora_storage::{DataType, Datum};
use sqlparser::ast;
use sqlparser::ast::{AssignmentTarget, FromTable, Spanned, TableFactor, UpdateTableFromKind};

use super::current_of::cursor_of;
use super::expr::unwrap_nested;
use super::insert::{always, generated, is_default};
use super::level::{Clause, Level};
use super::query::project;
use super::scope::Scope;
use super::select::filter;
use super::updatable::Target;
use super::{Binder, fold};
use crate::error::{Result, SqlError};
use crate::expr::{Expr, Subquery, SubqueryKind};
use crate::functions;
use crate::plan::{Delete, Field, Plan, Statement, Update};
use crate::types::CastContext;

/// The column and the subscripts of an assignment to a part of it (see `parser/rewrite.rs`).
fn subscripts(name: &ast::ObjectName) -> Option<(ast::ObjectName, String)> {
    let (last, column) = name.0.split_last()?;
    let last = last.as_ident().filter(|i| i.quote_style.is_none() && i.value.starts_with('['))?;
    Some((ast::ObjectName(column.to_vec()), last.value.clone()))
}

impl Binder<'_> {
    pub(super) fn update(&mut self, update: &ast::Update) -> Result<(Statement, Arc<[Field]>)> {
        let (table, plan, scope) = self.target(&update.table, "update")?;
        let from = match &update.from {
            None => &[][..],
            Some(UpdateTableFromKind::BeforeSet(items) | UpdateTableFromKind::AfterSet(items)) => items,
        };
        let (source, scope) = self.source(&table, (plan, scope), from, update.selection.as_ref())?;
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
        let (source, scope) = self.source(&table, (plan, scope), using, delete.selection.as_ref())?;
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
        let Target { table, plan, scope, columns } =
            self.write_target(name, alias.as_ref().map(|a| fold(&a.name)), verb)?;
        self.written = columns.map(|columns| (table.id, columns));
        Ok((table, plan, scope))
    }

    /// The rows to change: the table's, joined with others, for which WHERE is true.
    fn source(
        &mut self,
        table: &Arc<Table>,
        target: (Plan, Scope),
        others: &[ast::TableWithJoins],
        selection: Option<&ast::Expr>,
    ) -> Result<(Plan, Scope)> {
        let mut joined = target;
        for item in others {
            joined = self.add_from(joined, item)?;
        }
        let (plan, scope) = joined;
        let Some(e) = selection else { return Ok((plan, scope)) };
        if let Some(cursor) = cursor_of(e) {
            let condition = self.current_of(table, &cursor)?;
            return Ok((filter(plan, condition), scope));
        }
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
                AssignmentTarget::ColumnName(name) if subscripts(name).is_some() => {
                    self.assign_part(table, name, &assignment.value, &mut bound)?;
                }
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
        super::crdt::check_resets(table, &bound)?;
        Ok(bound)
    }

    /// `column[i] = value`, `column[i:j] = array`, `document['key'] = value`. Several of one column go on
    /// from each other.
    fn assign_part(
        &mut self,
        table: &Table,
        name: &ast::ObjectName,
        value: &ast::Expr,
        bound: &mut Vec<(usize, Expr)>,
    ) -> Result<()> {
        let (column_name, text) = match subscripts(name) {
            Some(parts) => parts,
            None => return Err(SqlError::internal("an assignment without subscripts")),
        };
        let column = self.target_column(table, &column_name)?;
        let target = &table.columns[column];
        let ty = target.ty.base();
        let ast::Expr::CompoundFieldAccess { access_chain, .. } =
            crate::parser::parse_expression(&format!("a{text}"))?
        else {
            return Err(SqlError::syntax_error(format!("syntax error in subscripts {text}")));
        };
        let subscripts: Option<Vec<&ast::Subscript>> = access_chain
            .iter()
            .map(|access| match access {
                ast::AccessExpr::Subscript(subscript) => Some(subscript),
                ast::AccessExpr::Dot(_) => None,
            })
            .collect();
        let subscripts = subscripts.unwrap_or_default();
        let known = bound.iter().position(|(c, _)| *c == column);
        let old = match known {
            Some(i) => bound[i].1.clone(),
            None => Expr::Column(column, ty.clone()),
        };
        let value = self.expr(value)?;
        let int = |b: &mut Self, e: Option<&ast::Expr>| match e {
            Some(e) => {
                let index = b.expr(e)?;
                b.coerce(index, &DataType::Int4, CastContext::Assignment)
            }
            None => Err(SqlError::feature_not_supported("array slices in assignments need both bounds")),
        };
        let indexes = subscripts.iter().map(|s| match s {
            ast::Subscript::Index { index } => Some(index),
            ast::Subscript::Slice { .. } => None,
        });
        let indexes: Option<Vec<&ast::Expr>> = indexes.collect();
        let new = match (&ty, &subscripts[..]) {
            (DataType::Array(element), [_, ..]) if indexes.is_some() => {
                let mut args = vec![old, self.assign(value, &target.name, element)?];
                for index in indexes.unwrap_or_default() {
                    args.push(int(self, Some(index))?);
                }
                Expr::Call { function: &functions::ASSIGN, args, ty }
            }
            (DataType::Array(_), [ast::Subscript::Slice { lower_bound, upper_bound, .. }]) => {
                let (low, high) = (int(self, lower_bound.as_ref())?, int(self, upper_bound.as_ref())?);
                let value = self.assign(value, &target.name, &ty)?;
                Expr::Call { function: &functions::ASSIGN_SLICE, args: vec![old, low, high, value], ty }
            }
            (DataType::Array(_), _) => {
                return Err(SqlError::feature_not_supported(
                    "slices of several dimensions cannot be assigned to",
                )
                .with_hint("Assign to the elements, or to the whole array."));
            }
            (DataType::Jsonb, [ast::Subscript::Index { index }]) => {
                let key = self.expr(index)?;
                let key = self.coerce(key, &DataType::Text, CastContext::Assignment)?;
                let value = self.assign(value, &target.name, &DataType::Jsonb)?;
                let empty = Expr::Literal(Datum::jsonb(crate::types::parse_json("{}")?), DataType::Jsonb);
                let old = Expr::Coalesce(vec![old, empty], DataType::Jsonb);
                let path = Expr::Array { items: vec![key], element: DataType::Text };
                self.call_named("jsonb_set", vec![old, path, value])?
            }
            (DataType::Jsonb, _) => {
                return Err(SqlError::feature_not_supported("an assignment takes one subscript of jsonb"));
            }
            (other, _) => {
                return Err(SqlError::datatype_mismatch(format!(
                    "cannot subscript type {} because it does not support subscripting",
                    super::coerce::type_name(other)
                )));
            }
        };
        match known {
            Some(i) => bound[i].1 = new,
            None => bound.push((column, new)),
        }
        Ok(())
    }

    fn assigned(&mut self, table: &Table, column: usize, value: &ast::Expr) -> Result<Expr> {
        check_settable(&table.columns[column], value)?;
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
            // ROW(…)
            ast::Expr::Function(row) if row.name.to_string().eq_ignore_ascii_case("row") => {
                let ast::FunctionArguments::List(list) = &row.args else { return Err(mismatch()) };
                if list.args.len() != columns.len() {
                    return Err(mismatch());
                }
                let mut bound = Vec::with_capacity(columns.len());
                for (&column, arg) in columns.iter().zip(&list.args) {
                    let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(value)) = arg else {
                        return Err(mismatch());
                    };
                    bound.push((column, self.assigned(table, column, value)?));
                }
                Ok(bound)
            }
            ast::Expr::Subquery(query) => {
                let (plan, correlated) = self.subplan(query)?;
                if plan.width() != columns.len() {
                    return Err(mismatch());
                }
                let mut bound = Vec::with_capacity(columns.len());
                for (i, &column) in columns.iter().enumerate() {
                    check_settable(&table.columns[column], value)?;
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

/// 428C9: what is GENERATED ALWAYS, or computed, is not set to anything else.
fn check_settable(column: &Column, value: &ast::Expr) -> Result<()> {
    if is_default(value) {
        return Ok(());
    }
    let detail = match column.identity {
        _ if column.generated.is_some() => generated(column),
        Some(Identity::Always) => always(column),
        _ => return Ok(()),
    };
    let message = format!("column \"{}\" can only be updated to DEFAULT", column.name);
    Err(SqlError::new("428C9", message).with_detail(detail))
}

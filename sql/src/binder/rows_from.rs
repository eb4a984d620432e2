//! `unnest(a, b, …)` and `ROWS FROM (f(), g())` in FROM: arrays and functions side by side, the shorter ones
//! filled up with NULLs.
//!
//! Each array is unnested with its positions, as WITH ORDINALITY gives them to a function; the pieces are joined on them, neither side losing a row,
//! and sorted by them.

use std::sync::Arc;

use amphora_storage::DataType;

use sqlparser::ast;
use sqlparser::ast::{FunctionArg, FunctionArgExpr, FunctionArguments};

use super::from::alias_columns;
use super::query::{fields_of, node, project, rename};
use super::scope::Scope;
use super::{Binder, fold};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::functions;
use crate::plan::{Field, JoinKind, Node, Plan, SortKey};

impl Binder<'_> {
    /// The rows of several arrays: one column for each, and their position last.
    pub(super) fn unnest_together(&mut self, arrays: Vec<Expr>) -> Result<Plan> {
        let mut together: Option<Plan> = None;
        for array in arrays {
            let next = self.unnest_one(array)?;
            together = Some(match together {
                None => next,
                Some(left) => self.beside(left, next)?,
            });
        }
        let plan = together.unwrap_or_else(|| node(Node::Values(Vec::new()), Arc::from([])));
        let position = plan.width().saturating_sub(1);
        let key =
            SortKey { expr: Expr::Column(position, DataType::Int8), descending: false, nulls_first: false };
        let schema = plan.schema.clone();
        Ok(node(Node::Sort { input: Box::new(plan), keys: vec![key], limit: None }, schema))
    }

    /// `ROWS FROM (…)`
    pub(super) fn rows_from(
        &mut self,
        calls: &[FunctionArg],
        alias: Option<&ast::TableAlias>,
        ordinality: bool,
    ) -> Result<(Plan, Scope)> {
        let mut together: Option<Plan> = None;
        for (i, call) in calls.iter().enumerate() {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Function(call))) = call else {
                return Err(SqlError::syntax_error("ROWS FROM takes function calls"));
            };
            let FunctionArguments::List(list) = &call.args else {
                return Err(SqlError::syntax_error("ROWS FROM takes function calls"));
            };
            if i == 0 && calls.len() == 1 {
                return self.function_relation(&call.name, &list.args, alias, ordinality);
            }
            let (next, _) = self.function_relation(&call.name, &list.args, None, true)?;
            together = Some(match together {
                None => next,
                Some(left) => self.beside(left, next)?,
            });
        }
        let Some(mut plan) = together else {
            return Err(SqlError::syntax_error("ROWS FROM without functions"));
        };
        let position = plan.width().saturating_sub(1);
        let expr = Expr::Column(position, DataType::Int8);
        let key = SortKey { expr, descending: false, nulls_first: false };
        let schema = plan.schema.clone();
        plan = node(Node::Sort { input: Box::new(plan), keys: vec![key], limit: None }, schema);
        if !ordinality {
            let exprs = (0..position).map(|i| Expr::Column(i, plan.schema[i].ty.clone())).collect();
            let schema: Arc<[Field]> = plan.schema[..position].into();
            plan = project(plan, exprs, schema);
        }
        let shown = alias.map_or_else(String::new, |a| fold(&a.name));
        let schema = rename(&plan.schema, &alias_columns(alias)?, &shown)?;
        let scope = Scope::relation(shown, None, &schema);
        Ok((Plan { schema, ..plan }, scope))
    }

    /// One array's elements and their positions.
    fn unnest_one(&mut self, array: Expr) -> Result<Plan> {
        let resolved = functions::resolve_set_function("unnest", &[array.ty().base()])?;
        let args = self.arguments(vec![array], &resolved.arg_types)?;
        let mut columns = resolved.columns;
        columns.push(("ordinality".into(), DataType::Int8));
        let scan = Node::FunctionScan { function: resolved.function, args, ordinality: true };
        Ok(node(scan, fields_of(&columns)))
    }

    /// Two sets of rows, joined on their positions.
    fn beside(&mut self, left: Plan, mut right: Plan) -> Result<Plan> {
        right.shift_outer(1);
        let (last, width) = (left.width() - 1, left.width());
        let both: Vec<Field> = left.schema.iter().chain(right.schema.iter()).cloned().collect();
        let positions = [Expr::Column(last, DataType::Int8), Expr::Column(both.len() - 1, DataType::Int8)];
        let [l, r] = positions.clone();
        let condition = Some(self.operator("=", Some(l), r)?);
        let kind = JoinKind::Full;
        let joined = Node::NestedLoop { left: Box::new(left), right: Box::new(right), kind, condition };
        let joined = node(joined, Arc::from(both.clone()));
        let theirs = both.len() - width - 1;
        let columns = (0..last).chain(width..width + theirs);
        let mut exprs: Vec<Expr> = columns.clone().map(|i| Expr::Column(i, both[i].ty.clone())).collect();
        let mut fields: Vec<Field> = columns.map(|i| both[i].clone()).collect();
        exprs.push(Expr::Coalesce(positions.into(), DataType::Int8));
        fields.push(both[last].clone());
        Ok(project(joined, exprs, Arc::from(fields)))
    }
}

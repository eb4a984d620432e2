//! `unnest(a, b, …)` in FROM: arrays side by side, the shorter ones filled up with NULLs.
//!
//! Each array is unnested with its positions; the pieces are joined on them, neither side losing a row,
//! and sorted by them.

use std::sync::Arc;

use amphora_storage::DataType;

use super::Binder;
use super::query::{fields_of, node, project};
use crate::error::Result;
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
        let positions = [Expr::Column(last, DataType::Int8), Expr::Column(width + 1, DataType::Int8)];
        let [l, r] = positions.clone();
        let condition = Some(self.operator("=", Some(l), r)?);
        let kind = JoinKind::Full;
        let joined = Node::NestedLoop { left: Box::new(left), right: Box::new(right), kind, condition };
        let joined = node(joined, Arc::from(both.clone()));
        let columns = (0..last).chain([width]);
        let mut exprs: Vec<Expr> = columns.clone().map(|i| Expr::Column(i, both[i].ty.clone())).collect();
        let mut fields: Vec<Field> = columns.map(|i| both[i].clone()).collect();
        exprs.push(Expr::Coalesce(positions.into(), DataType::Int8));
        fields.push(both[last].clone());
        Ok(project(joined, exprs, Arc::from(fields)))
    }
}

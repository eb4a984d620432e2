//! From plans to operators.

use super::distinct::{HashDistinct, Unique};
use super::hash_aggregate::HashAggregate;
use super::hash_join::HashJoin;
use super::lock::LockedRows;
use super::merge_join::MergeJoin;
use super::nested_loop::NestedLoop;
use super::projection::{Filter, Limit, Project, ProjectSet};
use super::recursive::Recursive;
use super::scan::{CteScan, FunctionScan, SystemScan, Values, WorkTableScan};
use super::set_operation::{Append, SetOperation};
use super::sort::Sort;
use super::sorted_aggregate::SortedAggregate;
use super::statistics::Measured;
use super::table_scan::TableScanOperator;
use super::window::Window;
use super::{Expression, Operator, Statistics};
use crate::error::Result;
use crate::expr::Expr;
use crate::plan::{Node, Plan};

/// Builds the operators of one execution.
#[derive(Default)]
pub struct Builder {
    statistics: Option<Statistics>,
}

impl Builder {
    /// A builder of plain operators.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// A builder of operators that count what they do.
    pub fn measuring() -> Builder {
        Builder { statistics: Some(Statistics::default()) }
    }

    /// What the operators count.
    pub fn take_statistics(&mut self) -> Statistics {
        self.statistics.take().unwrap_or_default()
    }

    /// Builds a plan's operator and those below it.
    pub fn build(&mut self, plan: &Plan) -> Result<Box<dyn Operator>> {
        self.build_node(plan, false)
    }

    /// Builds a plan whose rows are rows of one stored table, each followed by its version as a `bigint`:
    /// what writing them back needs. `None` if the plan does more than select such rows.
    pub(super) fn build_versioned(&mut self, plan: &Plan) -> Result<Option<Box<dyn Operator>>> {
        let mut node = &plan.node;
        loop {
            match node {
                Node::Filter { input, .. } | Node::Sort { input, .. } | Node::Limit { input, .. } => {
                    node = &input.node;
                }
                Node::TableScan(scan) if scan.columns.len() == scan.table.columns.len() => break,
                _ => return Ok(None),
            }
        }
        self.build_node(plan, true).map(Some)
    }

    fn build_node(&mut self, plan: &Plan, versioned: bool) -> Result<Box<dyn Operator>> {
        let operator = self.operator(plan, versioned)?;
        Ok(match &mut self.statistics {
            Some(statistics) => Box::new(Measured::new(operator, statistics.node(plan))),
            None => operator,
        })
    }

    fn operator(&mut self, plan: &Plan, versioned: bool) -> Result<Box<dyn Operator>> {
        Ok(match &plan.node {
            Node::Values(rows) => Box::new(Values::new(rows, self)?),
            Node::TableScan(scan) => Box::new(TableScanOperator::new(scan, versioned, self)?),
            Node::SystemScan { view, equal } => Box::new(SystemScan::new(view, equal, self)?),
            Node::FunctionScan { function, args, ordinality } => {
                Box::new(FunctionScan::new(function, args, *ordinality, &plan.schema, self)?)
            }
            Node::CteScan(id) => Box::new(CteScan::new(*id)),
            Node::WorkTable(id) => Box::new(WorkTableScan::new(*id)),
            Node::Filter { input, condition } => {
                let input = self.build_node(input, versioned)?;
                Box::new(Filter::new(input, Expression::compile(condition, self)?))
            }
            Node::Project { input, exprs } => {
                let input = self.build(input)?;
                Box::new(Project::new(input, Expression::compile_all(exprs, self)?))
            }
            Node::ProjectSet { input, exprs } => {
                let input = self.build(input)?;
                Box::new(ProjectSet::new(input, exprs, &plan.schema, self)?)
            }
            Node::NestedLoop { left, right, kind, condition } => {
                Box::new(NestedLoop::new(left, right, *kind, condition.as_ref(), self)?)
            }
            Node::HashJoin { left, right, kind, left_keys, right_keys, condition } => {
                Box::new(HashJoin::new(left, right, *kind, left_keys, right_keys, condition.as_ref(), self)?)
            }
            Node::MergeJoin { left, right, kind, left_keys, right_keys, condition } => {
                let (left, right) = ((&**left, &left_keys[..]), (&**right, &right_keys[..]));
                Box::new(MergeJoin::new(left, right, *kind, condition.as_ref(), self)?)
            }
            Node::Aggregate { input, keys, aggregates, sorted } => {
                let input = self.build(input)?;
                match sorted {
                    true => Box::new(SortedAggregate::new(input, keys, aggregates, self)?),
                    false => Box::new(HashAggregate::new(input, keys, aggregates, self)?),
                }
            }
            Node::Window { input, functions } => {
                let input = self.build(input)?;
                Box::new(Window::new(input, functions, self)?)
            }
            Node::Sort { input, keys, limit } => {
                let input = self.build_node(input, versioned)?;
                Box::new(Sort::new(input, keys, limit.as_ref(), self)?)
            }
            Node::Limit { input, limit, offset } => {
                let input = self.build_node(input, versioned)?;
                Box::new(Limit::new(input, limit.as_ref(), offset.as_ref(), self)?)
            }
            Node::Distinct { input, on, sorted } => {
                let (input, on) = (self.build(input)?, Expression::compile_all(on, self)?);
                match sorted {
                    true => Box::new(Unique::new(input, on)),
                    false => Box::new(HashDistinct::new(input, on)),
                }
            }
            Node::Append(inputs) => {
                Box::new(Append::new(inputs.iter().map(|p| self.build(p)).collect::<Result<_>>()?))
            }
            Node::SetOperation { left, right, intersect, all } => {
                let (left, right) = (self.build(left)?, self.build(right)?);
                let operation = Box::new(SetOperation::new(left, right, *intersect, *all));
                if *intersect || *all {
                    return Ok(operation);
                }
                let columns = plan.schema.iter().enumerate();
                let on: Vec<Expr> = columns.map(|(i, f)| Expr::Column(i, f.ty.clone())).collect();
                Box::new(HashDistinct::new(operation, Expression::compile_all(&on, self)?))
            }
            Node::Recursive { id, base, step, distinct } => {
                let (base, step) = (self.build(base)?, self.build(step)?);
                Box::new(Recursive::new(*id, base, step, *distinct))
            }
            Node::Lock { .. } => Box::new(LockedRows),
        })
    }
}

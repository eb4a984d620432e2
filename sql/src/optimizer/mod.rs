//! From the plainest plan to a quick one.
//!
//! ```text
//!   hoist     FOR UPDATE in subqueries into WITH queries that run first                    hoist.rs
//!   inline    WITH queries that are read once                                            inline.rs
//!   fold      constants, so that a literal cast to the column's type is a literal       fold.rs
//!   unnest    EXISTS and IN into joins                                                  unnest.rs
//!             scalar aggregates into joins with their groups                       decorrelate.rs
//!   push      conditions down to where their columns come from                          push.rs
//!              ├─ into a scan: which index, which ranges, which order                   access.rs
//!              └─ into joins: which columns are equal,                                equivalence.rs
//!                   in which order,                                                   join_order.rs
//!                   by hash, by index lookups                                         join.rs
//!                   or by merging what is in order                          merge.rs, ordering.rs
//!   prune     columns that nobody reads                                                 prune.rs
//!   tidy      projections that do nothing                                               tidy.rs
//!   estimate  rows and cost of every operator, on the way up                            cost.rs
//!              ├─ how many rows and values there are: what ANALYZE learned              planner.rs
//!              └─ which share of them a condition keeps                                 selectivity.rs
//! ```
//!
//! Every step gives an equivalent plan, so each can be read, tested and left out alone.

mod access;
mod cost;
mod decorrelate;
mod equivalence;
mod fold;
mod hoist;
mod inline;
mod join;
mod join_order;
mod merge;
mod ordering;
mod planner;
mod point;
mod prune;
mod push;
mod ranges;
mod selectivity;
mod tidy;
mod unnest;

pub(crate) use fold::{fold, is_volatile, is_volatile_plan};

use std::sync::Arc;

use crate::copy::Direction;
use crate::error::Result;
use crate::expr::{Expr, SubqueryKind};
use crate::frontend::PlannerContext;
use crate::plan::{Explain, Plan, Prepared, Statement};
use planner::Planner;

/// Plans a bound statement.
pub fn optimize(mut prepared: Prepared, context: &PlannerContext) -> Result<Prepared> {
    let p = &Planner::new(context);
    hoist::hoist(&mut prepared)?;
    // Among statements that write, each WITH query is run once and where it stands.
    if prepared.writes.is_empty() {
        inline::inline(&mut prepared.ctes, &mut prepared.statement);
    }
    for plan in &mut prepared.ctes {
        fold::fold_plan(plan)?;
    }
    fold::fold_statement(&mut prepared.statement)?;
    for (_, write) in &mut prepared.writes {
        fold::fold_statement(write)?;
        statement(p, write);
    }
    for plan in &mut prepared.ctes {
        optimize_plan(p, plan);
    }
    statement(p, &mut prepared.statement);
    prepared.point = point::find(&prepared);
    Ok(prepared)
}

fn statement(p: &Planner<'_>, bound: &mut Statement) {
    match bound {
        Statement::Query(plan) => optimize_plan(p, plan),
        Statement::Insert(insert) => {
            optimize_plan(p, &mut insert.source);
            if let Some(update) = &mut insert.do_update {
                update.assignments.iter_mut().for_each(|(_, e)| expression(p, e));
                update.condition.iter_mut().for_each(|e| expression(p, e));
            }
            insert.checks.iter_mut().for_each(|(_, e)| expression(p, e));
            insert.returning.iter_mut().for_each(|e| expression(p, e));
        }
        Statement::Update(update) => {
            optimize_plan(p, &mut update.source);
            update.assignments.iter_mut().for_each(|(_, e)| expression(p, e));
            update.checks.iter_mut().for_each(|(_, e)| expression(p, e));
            update.returning.iter_mut().for_each(|e| expression(p, e));
        }
        Statement::Delete(delete) => {
            optimize_plan(p, &mut delete.source);
            delete.returning.iter_mut().for_each(|e| expression(p, e));
        }
        Statement::Merge(merge) => {
            optimize_plan(p, &mut merge.source);
            merge.exprs_mut(&mut |e| expression(p, e));
        }
        Statement::Copy(copy) => match &mut copy.direction {
            Direction::To(to) => statement(p, &mut to.statement),
            Direction::From(from) => {
                from.row.iter_mut().chain(&mut from.filter).for_each(|e| expression(p, e));
                from.insert.checks.iter_mut().for_each(|(_, e)| expression(p, e));
            }
        },
        Statement::Explain(explain) => {
            let Explain { statement: inner, .. } = &mut **explain;
            statement(p, inner);
        }
        Statement::Command(command) => {
            if let crate::command::Command::Execute { args, .. } = &mut **command {
                args.iter_mut().for_each(|e| expression(p, e));
            }
        }
    }
}

/// An expression outside of plans.
fn expression(p: &Planner<'_>, e: &mut Expr) {
    subqueries(p, e);
}

/// A whole plan whose output columns are all wanted.
fn optimize_plan(p: &Planner<'_>, plan: &mut Plan) {
    let wanted = vec![true; plan.width()];
    optimize_for(p, plan, &wanted);
}

/// A whole plan, of whose output columns some are wanted; the others stay but may be anything.
fn optimize_for(p: &Planner<'_>, plan: &mut Plan, wanted: &[bool]) {
    unnest::unnest(plan);
    every_subquery(p, plan);
    // What a scan must give decides which index has it all; what a join must give, how wide its rows are.
    prune::prune(plan, wanted);
    let taken = std::mem::replace(plan, cost::nothing());
    let mut pushed = push::push(p, taken, Vec::new());
    prune::prune(&mut pushed, wanted);
    tidy::tidy(&mut pushed);
    *plan = pushed;
}

/// Optimizes the subqueries of every expression of a plan.
fn every_subquery(p: &Planner<'_>, plan: &mut Plan) {
    plan.node.exprs_mut(&mut |e| subqueries(p, e));
    plan.node.inputs_mut(&mut |input, _| every_subquery(p, input));
}

fn subqueries(p: &Planner<'_>, e: &mut Expr) {
    e.children_mut(&mut |e| subqueries(p, e));
    if let Expr::Subquery(subquery) = e {
        let wanted = match subquery.kind {
            SubqueryKind::Exists => vec![false; subquery.plan.width()],
            _ => vec![true; subquery.plan.width()],
        };
        optimize_for(p, Arc::make_mut(&mut subquery.plan), &wanted);
    }
}

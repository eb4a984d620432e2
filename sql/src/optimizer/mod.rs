//! From the plainest plan to a quick one.
//!
//! ```text
//!   inline    WITH queries that are read once                                            inline.rs
//!   fold      constants, so that a literal cast to the column's type is a literal       fold.rs
//!   unnest    EXISTS and IN into joins                                                  unnest.rs
//!   push      conditions down to where their columns come from                          push.rs
//!              ├─ into a scan: which index, which ranges, which order                   access.rs
//!              └─ into joins: in which order, by hash or by index lookups               join.rs
//!   prune     columns that nobody reads                                                 prune.rs
//!   tidy      projections that do nothing                                               tidy.rs
//!   estimate  rows and cost of every operator, on the way up                            cost.rs
//! ```
//!
//! Every step gives an equivalent plan, so each can be read, tested and left out alone. There are no
//! statistics yet: a table counts as `cost::TABLE_ROWS` rows, and a condition keeps PostgreSQL's default
//! share of them.

mod access;
mod cost;
mod fold;
mod inline;
mod join;
mod prune;
mod push;
mod tidy;
mod unnest;

use std::sync::Arc;

use crate::error::Result;
use crate::expr::{Expr, SubqueryKind};
use crate::plan::{Explain, Plan, Prepared, Statement};

/// Plans a bound statement.
pub fn optimize(mut prepared: Prepared) -> Result<Prepared> {
    inline::inline(&mut prepared.ctes, &mut prepared.statement);
    for plan in &mut prepared.ctes {
        fold::fold_plan(plan)?;
    }
    fold::fold_statement(&mut prepared.statement)?;
    for plan in &mut prepared.ctes {
        optimize_plan(plan);
    }
    statement(&mut prepared.statement);
    Ok(prepared)
}

fn statement(bound: &mut Statement) {
    match bound {
        Statement::Query(plan) => optimize_plan(plan),
        Statement::Insert(insert) => {
            optimize_plan(&mut insert.source);
            if let Some(update) = &mut insert.do_update {
                update.assignments.iter_mut().for_each(|(_, e)| expression(e));
                update.condition.iter_mut().for_each(expression);
            }
            insert.checks.iter_mut().for_each(|(_, e)| expression(e));
            insert.returning.iter_mut().for_each(expression);
        }
        Statement::Update(update) => {
            optimize_plan(&mut update.source);
            update.assignments.iter_mut().for_each(|(_, e)| expression(e));
            update.checks.iter_mut().for_each(|(_, e)| expression(e));
            update.returning.iter_mut().for_each(expression);
        }
        Statement::Delete(delete) => {
            optimize_plan(&mut delete.source);
            delete.returning.iter_mut().for_each(expression);
        }
        Statement::Explain(explain) => {
            let Explain { statement: inner, .. } = &mut **explain;
            statement(inner);
        }
        Statement::Command(command) => {
            if let crate::command::Command::Execute { args, .. } = &mut **command {
                args.iter_mut().for_each(expression);
            }
        }
    }
}

/// An expression outside of plans.
fn expression(e: &mut Expr) {
    subqueries(e);
}

/// A whole plan whose output columns are all wanted.
fn optimize_plan(plan: &mut Plan) {
    let wanted = vec![true; plan.width()];
    optimize_for(plan, &wanted);
}

/// A whole plan, of whose output columns some are wanted; the others stay but may be anything.
fn optimize_for(plan: &mut Plan, wanted: &[bool]) {
    unnest::unnest(plan);
    every_subquery(plan);
    let taken = std::mem::replace(plan, cost::nothing());
    let mut pushed = push::push(taken, Vec::new());
    prune::prune(&mut pushed, wanted);
    tidy::tidy(&mut pushed);
    *plan = pushed;
}

/// Optimizes the subqueries of every expression of a plan.
fn every_subquery(plan: &mut Plan) {
    plan.node.exprs_mut(&mut subqueries);
    plan.node.inputs_mut(&mut |input, _| every_subquery(input));
}

fn subqueries(e: &mut Expr) {
    e.children_mut(&mut subqueries);
    if let Expr::Subquery(subquery) = e {
        let wanted = match subquery.kind {
            SubqueryKind::Exists => vec![false; subquery.plan.width()],
            _ => vec![true; subquery.plan.width()],
        };
        optimize_for(Arc::make_mut(&mut subquery.plan), &wanted);
    }
}

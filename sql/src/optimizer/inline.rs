//! A WITH query that is read once stands where it is read, as PostgreSQL has it since version 12: then
//! conditions reach into it. One that is read in several places, or calls volatile functions, is run once
//! and kept.

use super::fold::is_volatile;
use super::{cost, hoist};
use crate::copy::Direction;
use crate::expr::Expr;
use crate::plan::{Node, Plan, Statement};

/// Inlines what may be. The place of an inlined query in the list stays, empty.
pub(super) fn inline(ctes: &mut [Plan], statement: &mut Statement) {
    for id in 0..ctes.len() {
        if matches!(ctes[id].node, Node::Recursive { .. })
            || calls_volatile(&ctes[id])
            || hoist::is_locking(&ctes[id])
        {
            continue;
        }
        let mut uses = Uses::default();
        main_plan(statement, &mut |plan| count(plan, id, &mut uses));
        ctes[id + 1..].iter().for_each(|plan| count(plan, id, &mut uses));
        if uses.all != 1 || uses.replaceable != 1 {
            continue;
        }
        let mut query = Some(std::mem::replace(&mut ctes[id], cost::nothing()));
        main_plan_mut(statement, &mut |plan| replace(plan, id, &mut query));
        ctes[id + 1..].iter_mut().for_each(|plan| replace(plan, id, &mut query));
    }
}

/// How often a WITH query is read.
#[derive(Default)]
struct Uses {
    /// Anywhere
    all: usize,
    /// Where it would not be run again for every row of something
    replaceable: usize,
}

fn count(plan: &Plan, id: usize, uses: &mut Uses) {
    if matches!(plan.node, Node::CteScan(i) if i == id) {
        uses.all += 1;
        uses.replaceable += 1;
    }
    plan.node.exprs(&mut |e| in_subqueries(e, id, uses));
    plan.node.inputs(&mut |input, _| count(input, id, uses));
}

fn in_subqueries(e: &Expr, id: usize, uses: &mut Uses) {
    e.children(&mut |child| in_subqueries(child, id, uses));
    if let Expr::Subquery(subquery) = e {
        let mut inside = Uses::default();
        count(&subquery.plan, id, &mut inside);
        uses.all += inside.all;
    }
}

fn replace(plan: &mut Plan, id: usize, query: &mut Option<Plan>) {
    if matches!(plan.node, Node::CteScan(i) if i == id) {
        if let Some(query) = query.take() {
            *plan = Plan { schema: plan.schema.clone(), ..query };
        }
        return;
    }
    plan.node.inputs_mut(&mut |input, _| replace(input, id, query));
}

fn calls_volatile(plan: &Plan) -> bool {
    let mut found = false;
    plan.node.exprs(&mut |e| found |= is_volatile(e));
    plan.node.inputs(&mut |input, _| found |= calls_volatile(input));
    found
}

/// The plan of a statement, and its expressions' subqueries. Those outside the plan keep what they read.
fn main_plan(statement: &Statement, f: &mut dyn FnMut(&Plan)) {
    match statement {
        Statement::Query(plan) => f(plan),
        Statement::Insert(insert) => f(&insert.source),
        Statement::Copy(copy) => {
            if let Direction::To(to) = &copy.direction {
                main_plan(&to.statement, f);
            }
        }
        Statement::Explain(explain) => main_plan(&explain.statement, f),
        Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_) | Statement::Command(_) => {}
    }
}

fn main_plan_mut(statement: &mut Statement, f: &mut dyn FnMut(&mut Plan)) {
    match statement {
        Statement::Query(plan) => f(plan),
        Statement::Insert(insert) => f(&mut insert.source),
        Statement::Copy(copy) => {
            if let Direction::To(to) = &mut copy.direction {
                main_plan_mut(&mut to.statement, f);
            }
        }
        Statement::Explain(explain) => main_plan_mut(&mut explain.statement, f),
        Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_) | Statement::Command(_) => {}
    }
}

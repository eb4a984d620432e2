//! SELECT … FOR UPDATE below the top of a statement becomes a WITH query that runs first.
//!
//! Locking a row may wait for another transaction, and operators do not wait. What stands at the top of a
//! query is locked before the rest of the plan runs (`executor/lock.rs`); so is what stands in a subquery or in
//! FROM, once it is a query of its own:
//!
//! ```text
//!   DELETE FROM jobs                          WITH #0 AS (SELECT id FROM jobs … LIMIT 1
//!   WHERE id = (SELECT id FROM jobs …   ──►               FOR UPDATE SKIP LOCKED)
//!               LIMIT 1                       DELETE FROM jobs WHERE id = (SELECT id FROM #0)
//!               FOR UPDATE SKIP LOCKED)
//! ```
//!
//! It runs once, which for a subquery that reads nothing of the rows around it is the same. One that does is refused
//! (0A000): PostgreSQL locks its rows again and again as it goes.

use std::sync::Arc;

use super::cost;
use crate::copy::Direction;
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::plan::{Node, Plan, Prepared, Statement};

/// Positions of hoisted queries before all positions are settled.
const HOISTED: usize = usize::MAX / 2;

/// Hoists what must be, and notes in the statement which WITH queries lock.
pub(super) fn hoist(prepared: &mut Prepared) -> Result<()> {
    let mut hoist = Hoist::default();
    for plan in &mut prepared.ctes {
        match top_lock(plan) {
            Some(input) => hoist.refuse_in(input),
            None => hoist.refuse_in(plan),
        }
    }
    for (_, write) in &mut prepared.writes {
        hoist.statement(write);
    }
    hoist.statement(&mut prepared.statement);
    if let Some(error) = hoist.error {
        return Err(error);
    }
    let first = hoist.queries.len();
    if first > 0 {
        hoist.queries.append(&mut prepared.ctes);
        prepared.ctes = hoist.queries;
        prepared.ctes.iter_mut().for_each(|plan| settle(plan, first));
        for (id, write) in &mut prepared.writes {
            *id += first;
            each_part(write, &mut |part| settle_part(part, first));
        }
        each_part(&mut prepared.statement, &mut |part| settle_part(part, first));
    }
    prepared.locks = (0..prepared.ctes.len()).filter(|&id| is_locking(&prepared.ctes[id])).collect();
    Ok(())
}

/// True of a query that locks its rows, and nothing but LIMIT and the SELECT list stands above that.
pub(super) fn is_locking(plan: &Plan) -> bool {
    match &plan.node {
        Node::Lock { .. } => true,
        Node::Project { input, .. } | Node::Limit { input, .. } => is_locking(input),
        _ => false,
    }
}

/// What the locked rows are made of.
fn top_lock(plan: &mut Plan) -> Option<&mut Plan> {
    if !is_locking(plan) {
        return None;
    }
    match &mut plan.node {
        Node::Lock { input, .. } => Some(input),
        Node::Project { input, .. } | Node::Limit { input, .. } => top_lock(input),
        _ => None,
    }
}

fn contains_lock(plan: &Plan) -> bool {
    let mut found = matches!(plan.node, Node::Lock { .. });
    plan.node.exprs(&mut |e| found |= e.any(&mut in_subquery(contains_lock)));
    plan.node.inputs(&mut |input, _| found |= contains_lock(input));
    found
}

fn reads_with(plan: &Plan) -> bool {
    let mut found = matches!(plan.node, Node::CteScan(_) | Node::WorkTable(_));
    plan.node.exprs(&mut |e| found |= e.any(&mut in_subquery(reads_with)));
    plan.node.inputs(&mut |input, _| found |= reads_with(input));
    found
}

fn in_subquery(test: fn(&Plan) -> bool) -> impl FnMut(&Expr) -> bool {
    move |e| matches!(e, Expr::Subquery(subquery) if test(&subquery.plan))
}

#[derive(Default)]
struct Hoist {
    queries: Vec<Plan>,
    error: Option<SqlError>,
}

impl Hoist {
    fn refuse(&mut self, whose: &str) {
        let error = SqlError::feature_not_supported(format!("FOR UPDATE in {whose} is not supported"));
        let hint = "Lock the rows with a SELECT of its own, or in a WITH query, and use what it returns.";
        self.error.get_or_insert_with(|| error.with_hint(hint));
    }

    fn refuse_in(&mut self, plan: &Plan) {
        if contains_lock(plan) {
            self.refuse("a subquery of a WITH query");
        }
    }

    fn statement(&mut self, statement: &mut Statement) {
        let query = match statement {
            Statement::Query(plan) => Some(plan),
            Statement::Explain(explain) => return self.statement(&mut explain.statement),
            Statement::Copy(copy) => match &mut copy.direction {
                Direction::To(to) => return self.statement(&mut to.statement),
                Direction::From(_) => None,
            },
            _ => None,
        };
        match query {
            Some(plan) => match top_lock(plan) {
                Some(input) => self.plan(input),
                None => self.plan(plan),
            },
            None => each_part(statement, &mut |part| match part {
                Part::Plan(plan) => self.plan(plan),
                Part::Expr(e) => self.expr(e),
            }),
        }
    }

    fn plan(&mut self, plan: &mut Plan) {
        if !contains_lock(plan) {
            return;
        }
        if is_locking(plan) {
            return self.take(plan);
        }
        if let Node::Lock { .. } = plan.node {
            return self.refuse("this place");
        }
        plan.node.exprs_mut(&mut |e| self.expr(e));
        plan.node.inputs_mut(&mut |input, _| self.plan(input));
    }

    fn expr(&mut self, e: &mut Expr) {
        e.children_mut(&mut |e| self.expr(e));
        if let Expr::Subquery(subquery) = e
            && contains_lock(&subquery.plan)
        {
            self.plan(Arc::make_mut(&mut subquery.plan));
        }
    }

    fn take(&mut self, plan: &mut Plan) {
        if plan.is_correlated() {
            return self.refuse("a subquery that reads the rows of an outer query");
        }
        if reads_with(plan) {
            return self.refuse("a subquery that reads a WITH query");
        }
        if let Some(input) = top_lock(plan) {
            self.plan(input);
        }
        let schema = plan.schema.clone();
        let read = cost::unplanned(Node::CteScan(HOISTED + self.queries.len()), schema);
        self.queries.push(std::mem::replace(plan, read));
    }
}

/// What a statement consists of.
enum Part<'a> {
    Plan(&'a mut Plan),
    Expr(&'a mut Expr),
}

fn each_part(statement: &mut Statement, f: &mut dyn FnMut(Part<'_>)) {
    match statement {
        Statement::Query(plan) => f(Part::Plan(plan)),
        Statement::Insert(insert) => {
            f(Part::Plan(&mut insert.source));
            if let Some(update) = &mut insert.do_update {
                update.assignments.iter_mut().for_each(|(_, e)| f(Part::Expr(e)));
                update.condition.iter_mut().for_each(|e| f(Part::Expr(e)));
            }
            insert.returning.iter_mut().for_each(|e| f(Part::Expr(e)));
        }
        Statement::Update(update) => {
            f(Part::Plan(&mut update.source));
            update.assignments.iter_mut().for_each(|(_, e)| f(Part::Expr(e)));
            update.returning.iter_mut().for_each(|e| f(Part::Expr(e)));
        }
        Statement::Delete(delete) => {
            f(Part::Plan(&mut delete.source));
            delete.returning.iter_mut().for_each(|e| f(Part::Expr(e)));
        }
        Statement::Merge(merge) => {
            f(Part::Plan(&mut merge.source));
            merge.exprs_mut(&mut |e| f(Part::Expr(e)));
        }
        Statement::Copy(copy) => {
            if let Direction::To(to) = &mut copy.direction {
                each_part(&mut to.statement, f);
            }
        }
        Statement::Explain(explain) => each_part(&mut explain.statement, f),
        Statement::Command(_) => {}
    }
}

fn settle_part(part: Part<'_>, first: usize) {
    match part {
        Part::Plan(plan) => settle(plan, first),
        Part::Expr(e) => settle_expr(e, first),
    }
}

/// The hoisted queries come first, and all others after them.
fn settle(plan: &mut Plan, first: usize) {
    if let Node::CteScan(id) = &mut plan.node {
        *id = if *id >= HOISTED { *id - HOISTED } else { *id + first };
    }
    plan.node.exprs_mut(&mut |e| settle_expr(e, first));
    plan.node.inputs_mut(&mut |input, _| settle(input, first));
}

fn settle_expr(e: &mut Expr, first: usize) {
    e.children_mut(&mut |e| settle_expr(e, first));
    if let Expr::Subquery(subquery) = e {
        settle(Arc::make_mut(&mut subquery.plan), first);
    }
}

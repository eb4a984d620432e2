//! EXISTS and IN become joins.
//!
//! ```text
//!   Filter (EXISTS (Filter (o.cid = outer.id AND o.total > 5) o))  c
//!     ⇒  Semi join (c.id = o.cid)  c, Filter (o.total > 5) o
//! ```
//!
//! A semi join can be hashed, or look an index up; a subquery can only be run for every row. NOT EXISTS
//! becomes an anti join. NOT IN does not: a NULL among its rows makes it unknown, which an anti join would
//! not see.

use std::sync::Arc;

use amphora_storage::DataType;

use super::cost;
use super::decorrelate::{decorrelate, has_scalar};
use super::fold::is_volatile;
use super::push::{conjuncts, has_subquery};
use crate::expr::{Expr, Subquery, SubqueryKind};
use crate::plan::{JoinKind, Node, Plan};

/// Turns what it can in every filter of a plan.
pub(super) fn unnest(plan: &mut Plan) {
    plan.node.inputs_mut(&mut |input, _| unnest(input));
    if let Node::Project { input, exprs } = &mut plan.node
        && exprs.iter().any(has_scalar)
    {
        let taken = std::mem::replace(&mut **input, cost::nothing());
        **input = decorrelate(taken, exprs);
        return;
    }
    let Node::Filter { condition, .. } = &plan.node else { return };
    if !condition.any(&mut |e| matches!(e, Expr::Subquery(_))) {
        return;
    }
    let taken = std::mem::replace(plan, cost::nothing());
    let Node::Filter { input, condition } = taken.node else { return };
    let mut left = *input;
    let mut rest = Vec::new();
    for condition in conjuncts(condition) {
        match join(&left, &condition) {
            Some((mut right, on, kind)) => {
                unnest(&mut right);
                let schema = left.schema.clone();
                let node =
                    Node::NestedLoop { left: Box::new(left), right: Box::new(right), kind, condition: on };
                left = cost::unplanned(node, schema);
            }
            None => rest.push(condition),
        }
    }
    if rest.iter().any(has_scalar) {
        let schema = left.schema.clone();
        let left = decorrelate(left, &mut rest);
        if left.width() == schema.len() {
            *plan = kept(left, rest);
            return;
        }
        let exprs = schema.iter().enumerate().map(|(i, f)| Expr::Column(i, f.ty.clone())).collect();
        let input = Box::new(kept(left, rest));
        *plan = cost::unplanned(Node::Project { input, exprs }, schema);
        return;
    }
    *plan = kept(left, rest);
}

/// The right side, condition and kind of the join that a conjunct becomes.
fn join(left: &Plan, conjunct: &Expr) -> Option<(Plan, Option<Expr>, JoinKind)> {
    let (subquery, kind) = match conjunct {
        Expr::Subquery(subquery) => (subquery, JoinKind::Semi),
        Expr::Not(inner) => match &**inner {
            Expr::Subquery(subquery) if matches!(subquery.kind, SubqueryKind::Exists) => {
                (subquery, JoinKind::Anti)
            }
            _ => return None,
        },
        _ => return None,
    };
    let Subquery { kind: what, plan, correlated, .. } = &**subquery;
    let width = left.width();
    match what {
        // Without a reference to the outer row it is one question, asked once.
        SubqueryKind::Exists if *correlated => {
            let (right, on, _) = pull_up(plan, width)?;
            Some((right, super::access::conjunction(on), kind))
        }
        SubqueryKind::AnyAll { left: key, function, all: false } if function.name == "=" => {
            if key.is_row_free() || has_subquery(key) || is_volatile(key) {
                return None;
            }
            let (right, mut on, value) = if *correlated {
                pull_up(plan, width)?
            } else {
                let ty = plan.schema.first()?.ty.clone();
                ((**plan).clone(), Vec::new(), vec![Expr::Column(width, ty)])
            };
            let value = value.into_iter().next()?;
            on.push(Expr::Call { function, args: vec![key.clone(), value], ty: DataType::Bool });
            Some((right, super::access::conjunction(on), kind))
        }
        _ => None,
    }
}

/// Takes the conditions that read the outer row out of a subquery. Gives what is left, those conditions
/// and the subquery's output, the latter two over (outer row ++ what is left).
fn pull_up(plan: &Arc<Plan>, width: usize) -> Option<(Plan, Vec<Expr>, Vec<Expr>)> {
    let mut plan: &Plan = plan;
    let mut output: Option<Vec<Expr>> = None;
    loop {
        match &plan.node {
            // Rows are only asked whether they are there: any limit but zero changes nothing.
            Node::Limit { input, limit: Some(limit), offset: None }
                if cost::count(limit).is_some_and(|n| n >= 1.0) && output.is_none() =>
            {
                plan = input;
            }
            Node::Sort { input, .. } if output.is_none() => plan = input,
            Node::Project { input, exprs } if output.is_none() => {
                if exprs.iter().any(|e| has_subquery(e) || is_volatile(e)) {
                    return None;
                }
                output = Some(exprs.clone());
                plan = input;
            }
            _ => break,
        }
    }
    let (base, conditions) = match &plan.node {
        Node::Filter { input, condition } => (&**input, conjuncts(condition.clone())),
        _ => (plan, Vec::new()),
    };
    if base.is_correlated() {
        return None;
    }
    let output = output.unwrap_or_else(|| {
        base.schema.iter().enumerate().map(|(i, f)| Expr::Column(i, f.ty.clone())).collect()
    });
    let (mut local, mut on) = (Vec::new(), Vec::new());
    for condition in conditions {
        if !reads_outside(&condition) {
            local.push(condition);
        } else if has_subquery(&condition) || is_volatile(&condition) {
            return None;
        } else {
            on.push(beside(condition, width));
        }
    }
    let output = output.into_iter().map(|e| beside(e, width)).collect();
    Some((kept(base.clone(), local), on, output))
}

/// A filter over a plan that is not planned yet.
pub(super) fn kept(plan: Plan, conditions: Vec<Expr>) -> Plan {
    let schema = plan.schema.clone();
    match super::access::conjunction(conditions) {
        None => plan,
        Some(condition) => cost::unplanned(Node::Filter { input: Box::new(plan), condition }, schema),
    }
}

pub(super) fn reads_outside(e: &Expr) -> bool {
    let mut found = false;
    e.references(0, &mut |e, level| found |= matches!(e, Expr::Outer { depth, .. } if *depth > level));
    found
}

/// An expression of a subquery, as one over (outer row ++ subquery's row).
pub(super) fn beside(mut e: Expr, width: usize) -> Expr {
    e.references_mut(0, &mut |e, _| match e {
        Expr::Column(position, _) => *position += width,
        Expr::Outer { depth: 1, position, ty } => *e = Expr::Column(*position, ty.clone()),
        Expr::Outer { depth, .. } => *depth -= 1,
        _ => {}
    });
    e
}

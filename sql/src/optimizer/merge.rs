//! Merge joins: what it takes to have both sides in order.
//!
//! A side that is a table may have an index that gives the order; a side that comes in it already needs
//! nothing; any other is sorted.

use super::access::{Wanted, conjunction};
use super::cost;
use super::join::Sides;
use super::ordering::{ascending, gives};
use super::planner::Planner;
use super::push::push_ordered;
use crate::expr::Expr;
use crate::plan::{Node, Plan, SortKey};

/// Rows of both sides from which on a merge join is thought of.
pub(super) const MERGE_ROWS: f64 = 1000.0;

/// What a side was planned from, so that it can be planned again for an order: a table under filters.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    plan: &'a Plan,
    conditions: &'a [Expr],
}

impl<'a> Source<'a> {
    /// A source, if an index may give it an order.
    pub(super) fn of(plan: &'a Plan, conditions: &'a [Expr]) -> Option<Source<'a>> {
        let mut base = plan;
        while let Node::Filter { input, .. } | Node::Project { input, .. } = &base.node {
            base = input;
        }
        matches!(base.node, Node::TableScan(_)).then_some(Source { plan, conditions })
    }
}

/// The merge join of two sides on all their keys.
pub(super) fn merged(
    p: &Planner<'_>,
    sides: &Sides,
    left: Option<Source<'_>>,
    right: Option<Source<'_>>,
) -> Option<Plan> {
    let pairs: Vec<&(Expr, Expr)> = sides.keys.iter().map(|(pair, _)| pair).collect();
    let mut best = in_order(p, sides, &pairs, left, right);
    if pairs.len() == 2 {
        let other = in_order(p, sides, &[pairs[1], pairs[0]], left, right);
        if other.cost < best.cost {
            best = other;
        }
    }
    Some(best)
}

/// The merge join on keys in this order.
fn in_order(
    p: &Planner<'_>,
    sides: &Sides,
    pairs: &[&(Expr, Expr)],
    left: Option<Source<'_>>,
    right: Option<Source<'_>>,
) -> Plan {
    let key = |expr: &Expr| SortKey { expr: expr.clone(), descending: false, nulls_first: false };
    let left_keys: Vec<SortKey> = pairs.iter().map(|(l, _)| key(l)).collect();
    let right_keys: Vec<SortKey> = pairs.iter().map(|(_, r)| key(r)).collect();
    let node = Node::MergeJoin {
        left: Box::new(ordered(p, &sides.left, left, &left_keys)),
        right: Box::new(ordered(p, &sides.right, right, &right_keys)),
        kind: sides.kind,
        left_keys,
        right_keys,
        condition: conjunction(sides.others.clone()),
    };
    cost::plan(p, node, sides.schema.clone())
}

/// A side in order, the cheapest way.
pub(super) fn ordered(p: &Planner<'_>, plan: &Plan, source: Option<Source<'_>>, keys: &[SortKey]) -> Plan {
    // Keys that are equal to earlier ones order nothing.
    let exprs: Vec<Expr> = keys.iter().map(|k| k.expr.clone()).collect();
    let keys = ascending(&exprs);
    if gives(plan, &keys) {
        return plan.clone();
    }
    let sorted = |plan: Plan| {
        let schema = plan.schema.clone();
        cost::plan(p, Node::Sort { input: Box::new(plan), keys: keys.clone(), limit: None }, schema)
    };
    let Some(Source { plan: unplanned, conditions }) = source else { return sorted(plan.clone()) };
    let wanted = Wanted { keys: &keys, limit: None };
    let (found, is_ordered) = push_ordered(p, unplanned.clone(), conditions.to_vec(), Some(&wanted));
    if is_ordered { found } else { sorted(plan.clone()) }
}

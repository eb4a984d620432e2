//! The order in which a plan gives its rows, known from what it is made of.
//!
//! A scan walks an index, a merge join its left keys, a filter keeps the order it finds; a hash join that
//! goes to files keeps none. Whoever needs an order asks first whether it is there: a sort, a merge join, a
//! grouping by the order's columns.

use super::access;
use super::push::keys_below;
use crate::expr::Expr;
use crate::plan::{JoinKind, Node, Plan, SortKey};
use crate::walk::same_expr;

/// Columns up to which every order of them is tried.
const MAX_PERMUTED: usize = 4;

/// Ascending keys, as an index has them.
pub(super) fn ascending(exprs: &[Expr]) -> Vec<SortKey> {
    let mut keys: Vec<SortKey> = Vec::new();
    for expr in exprs {
        if !keys.iter().any(|k| same_expr(&k.expr, expr)) {
            keys.push(SortKey { expr: expr.clone(), descending: false, nulls_first: false });
        }
    }
    keys
}

/// True if the plan's rows come ordered by these keys over its output.
pub(super) fn gives(plan: &Plan, keys: &[SortKey]) -> bool {
    if keys.is_empty() {
        return true;
    }
    match &plan.node {
        Node::TableScan(scan) => access::gives(scan, keys),
        Node::Filter { input, .. } | Node::Limit { input, .. } => gives(input, keys),
        Node::Distinct { input, sorted: true, .. } => gives(input, keys),
        Node::Project { input, exprs } => keys_below(keys, exprs).is_some_and(|below| gives(input, &below)),
        Node::Aggregate { input, keys: groups, sorted: true, .. } => {
            keys_below_any(keys, groups).is_some_and(|below| gives(input, &below))
        }
        Node::Sort { keys: sorted, .. } => begins_with(sorted, keys, 0),
        Node::NestedLoop {
            left,
            kind: JoinKind::Inner | JoinKind::Left | JoinKind::Semi | JoinKind::Anti,
            ..
        } => of_left(keys, left) && gives(left, keys),
        Node::MergeJoin { left, kind, left_keys, right_keys, .. } => match kind {
            JoinKind::Inner => {
                begins_with(left_keys, keys, 0)
                    || begins_with(right_keys, keys, left.width())
                    || of_left(keys, left) && gives(left, keys)
            }
            JoinKind::Left | JoinKind::Semi | JoinKind::Anti => {
                begins_with(left_keys, keys, 0) || of_left(keys, left) && gives(left, keys)
            }
            JoinKind::Right | JoinKind::Full => false,
        },
        _ => false,
    }
}

/// An order in which the plan's rows come, of all of these expressions over its output.
pub(super) fn grouped(plan: &Plan, exprs: &[Expr]) -> Option<Vec<SortKey>> {
    let keys = ascending(exprs);
    if keys.len() > MAX_PERMUTED {
        return gives(plan, &keys).then_some(keys);
    }
    let mut found = None;
    permute(keys, 0, &mut |keys| {
        if found.is_none() && gives(plan, keys) {
            found = Some(keys.to_vec());
        }
    });
    found
}

/// Calls `f` with every order of the keys from `start` on.
fn permute(mut keys: Vec<SortKey>, start: usize, f: &mut dyn FnMut(&[SortKey])) {
    if start + 1 >= keys.len() {
        return f(&keys);
    }
    for i in start..keys.len() {
        keys.swap(start, i);
        permute(keys.clone(), start + 1, f);
        keys.swap(start, i);
    }
}

/// True if all keys read left columns alone.
fn of_left(keys: &[SortKey], left: &Plan) -> bool {
    let mut only = true;
    keys.iter().for_each(|k| k.expr.columns(&mut |c| only &= c < left.width()));
    only
}

/// True if `sorted`, over columns that begin at `offset`, begins with `keys`.
fn begins_with(sorted: &[SortKey], keys: &[SortKey], offset: usize) -> bool {
    keys.len() <= sorted.len()
        && keys.iter().zip(sorted).all(|(key, sorted)| {
            let same = match (&key.expr, &sorted.expr) {
                (Expr::Column(a, _), Expr::Column(b, _)) => *a == *b + offset,
                (a, b) => offset == 0 && same_expr(a, b),
            };
            same && key.descending == sorted.descending && key.nulls_first == sorted.nulls_first
        })
}

/// Keys over a grouping's output as keys over its input, if they are group keys.
fn keys_below_any(keys: &[SortKey], groups: &[Expr]) -> Option<Vec<SortKey>> {
    let below = |key: &SortKey| match &key.expr {
        Expr::Column(i, _) => Some(SortKey { expr: groups.get(*i)?.clone(), ..key.clone() }),
        _ => None,
    };
    keys.iter().map(below).collect()
}

//! Conditions move down to where their columns come from, and choose access paths and joins there.

use std::sync::Arc;

use amphora_storage::{DataType, Datum};

use crate::expr::Expr;
use crate::functions;
use crate::plan::{Aggregate, Field, JoinKind, Node, Plan, SortKey};
use crate::walk::same_expr;

use super::access::{self, Wanted, conjunction};
use super::cost::{self, Size};
use super::fold::is_volatile;
use super::join;
use super::merge::{self, MERGE_ROWS, Source};
use super::ordering::{ascending, gives, grouped};
use super::planner::Planner;

/// The conjuncts of a condition.
pub(super) fn conjuncts(condition: Expr) -> Vec<Expr> {
    match condition {
        Expr::And(operands) => operands.into_iter().flat_map(conjuncts).collect(),
        Expr::Literal(Datum::Bool(true), _) => Vec::new(),
        other => factor(other),
    }
}

/// `(a AND x) OR (a AND y)` holds only where `a` does: `a` becomes a conjunct of its own.
fn factor(condition: Expr) -> Vec<Expr> {
    let Expr::Or(branches) = &condition else { return vec![condition] };
    let Some(Expr::And(first)) = branches.first() else { return vec![condition] };
    if branches.len() > 16 {
        return vec![condition];
    }
    let in_all = |e: &Expr| {
        branches.iter().all(|b| match b {
            Expr::And(operands) => operands.iter().any(|o| same_expr(o, e)),
            other => same_expr(other, e),
        })
    };
    let mut out: Vec<Expr> = first.iter().filter(|e| in_all(e) && !is_volatile(e)).cloned().collect();
    out.push(condition);
    out
}

/// A filter over a plan; none if there are no conditions.
pub(super) fn filtered(p: &Planner<'_>, plan: Plan, conditions: Vec<Expr>) -> Plan {
    let schema = plan.schema.clone();
    match conjunction(conditions) {
        None => plan,
        Some(condition) => cost::plan(p, Node::Filter { input: Box::new(plan), condition }, schema),
    }
}

/// Plans `plan` with `conditions` over its output, all of which the result fulfils. The output columns
/// stay the same.
pub(super) fn push(p: &Planner<'_>, plan: Plan, conditions: Vec<Expr>) -> Plan {
    push_ordered(p, plan, conditions, None).0
}

/// Like [`push`]; true if the rows come in the wanted order.
pub(super) fn push_ordered(
    p: &Planner<'_>,
    plan: Plan,
    mut conditions: Vec<Expr>,
    wanted: Option<&Wanted<'_>>,
) -> (Plan, bool) {
    let schema = plan.schema.clone();
    let Plan { node, rows, cost: old_cost, .. } = plan;
    match node {
        Node::Filter { input, condition } => {
            conditions.extend(conjuncts(condition));
            push_ordered(p, *input, conditions, wanted)
        }
        Node::TableScan(scan) => {
            let (stay, conditions) = split(conditions, |c| is_volatile(c) || has_correlated_subquery(c));
            let plan = Plan { node: Node::Values(Vec::new()), schema, rows, cost: old_cost };
            let (plan, ordered) = access::access(p, scan, &plan, conditions, wanted);
            (filtered(p, plan, stay), ordered)
        }
        Node::SystemScan { view, mut equal } => {
            for condition in &conditions {
                if let Some(pair) = system_equal(condition) {
                    equal.push(pair);
                }
            }
            (filtered(p, cost::plan(p, Node::SystemScan { view, equal }, schema), conditions), false)
        }
        Node::Project { input, exprs } => {
            let (down, stay) = split(conditions, |c| can_substitute(c, &exprs));
            let down = down.into_iter().map(|c| substitute(c, &exprs)).collect();
            let keys = wanted.and_then(|w| keys_below(w.keys, &exprs));
            let below = keys.as_ref().zip(wanted).map(|(keys, w)| Wanted { keys, limit: w.limit });
            let (input, ordered) = push_ordered(p, *input, down, below.as_ref());
            // A projection of all columns in order is nothing.
            let identity = exprs.len() == input.width()
                && exprs.iter().enumerate().all(|(i, e)| matches!(e, Expr::Column(c, _) if *c == i));
            if identity {
                return (filtered(p, Plan { schema, ..input }, stay), ordered);
            }
            let node = Node::Project { input: Box::new(input), exprs };
            (filtered(p, cost::plan(p, node, schema), stay), ordered)
        }
        Node::Sort { input, keys, limit } => (push_sort(p, *input, keys, limit, conditions, schema), false),
        Node::Limit { input, limit, offset } => {
            let mut input = *input;
            if let Node::Sort { limit: kept, .. } = &mut input.node {
                *kept = sum(limit.as_ref(), offset.as_ref());
            }
            let input = push(p, input, Vec::new());
            let plan = cost::plan(p, Node::Limit { input: Box::new(input), limit, offset }, schema);
            (filtered(p, plan, conditions), false)
        }
        Node::Distinct { input, on, sorted } => {
            let (down, stay) = split(conditions, |c| {
                let mut all = !is_volatile(c);
                c.columns(&mut |i| all &= on.iter().any(|e| matches!(e, Expr::Column(k, _) if *k == i)));
                all
            });
            let (input, sorted) = match sorted {
                true => (push(p, *input, down), true),
                false => group_input(p, *input, down, &on, false),
            };
            let node = Node::Distinct { input: Box::new(input), on, sorted };
            (filtered(p, cost::plan(p, node, schema), stay), false)
        }
        Node::Aggregate { input, keys, aggregates, .. } => {
            let (down, stay) = split(conditions, |c| {
                let mut only_keys = !keys.is_empty();
                c.columns(&mut |i| only_keys &= i < keys.len());
                only_keys && can_substitute(c, &keys)
            });
            let down = down.into_iter().map(|c| substitute(c, &keys)).collect();
            if let Some(plan) = extreme(p, &input, &keys, &aggregates, &schema) {
                return (filtered(p, plan, stay), false);
            }
            // What a call keeps until its group's end is kept for one group at a time.
            let keeps = aggregates.iter().any(|a| a.distinct || !a.order_by.is_empty());
            let (input, sorted) = group_input(p, *input, down, &keys, keeps);
            let node = Node::Aggregate { input: Box::new(input), keys, aggregates, sorted };
            (filtered(p, cost::plan(p, node, schema), stay), false)
        }
        Node::Append(inputs) => {
            let (stay, down) = split(conditions, is_volatile);
            let inputs = inputs.into_iter().map(|input| push(p, input, down.clone())).collect();
            (filtered(p, cost::plan(p, Node::Append(inputs), schema), stay), false)
        }
        Node::SetOperation { left, right, intersect, all } => {
            let (stay, down) = split(conditions, is_volatile);
            let left = Box::new(push(p, *left, down.clone()));
            let right = Box::new(push(p, *right, down));
            (
                filtered(p, cost::plan(p, Node::SetOperation { left, right, intersect, all }, schema), stay),
                false,
            )
        }
        Node::NestedLoop { left, right, kind: JoinKind::Inner, condition } => {
            let plan = Plan {
                node: Node::NestedLoop { left, right, kind: JoinKind::Inner, condition },
                schema,
                rows,
                cost: old_cost,
            };
            join::inner(p, plan, conditions, wanted)
        }
        Node::NestedLoop { left, right, kind, condition } => {
            join::outer(p, *left, *right, (kind, condition), conditions, schema, wanted)
        }
        Node::ProjectSet { input, exprs } => {
            let input = Box::new(push(p, *input, Vec::new()));
            (filtered(p, cost::plan(p, Node::ProjectSet { input, exprs }, schema), conditions), false)
        }
        Node::Window { input, functions } => {
            // A condition over what every window is partitioned by keeps whole partitions.
            let (down, stay) = split(conditions, |c| {
                let mut whole = !is_volatile(c) && !has_subquery(c) && !c.is_row_free();
                let is = |e: &Expr, i: usize| matches!(e, Expr::Column(k, _) if *k == i);
                c.columns(&mut |i| {
                    whole &= functions.iter().all(|call| call.partition_by.iter().any(|e| is(e, i)));
                });
                whole
            });
            let input = Box::new(push(p, *input, down));
            (filtered(p, cost::plan(p, Node::Window { input, functions }, schema), stay), false)
        }
        Node::Lock { input, targets, mode, wait } => {
            let input = Box::new(push(p, *input, Vec::new()));
            (filtered(p, cost::plan(p, Node::Lock { input, targets, mode, wait }, schema), conditions), false)
        }
        Node::Recursive { id, base, step, distinct } => {
            let base = Box::new(push(p, *base, Vec::new()));
            let step = Box::new(push(p, *step, Vec::new()));
            (
                filtered(p, cost::plan(p, Node::Recursive { id, base, step, distinct }, schema), conditions),
                false,
            )
        }
        leaf @ (Node::Values(_)
        | Node::FunctionScan { .. }
        | Node::CteScan(_)
        | Node::WorkTable(_)
        | Node::MergeJoin { .. }
        | Node::HashJoin { .. }) => (filtered(p, cost::plan(p, leaf, schema), conditions), false),
    }
}

/// The wanted order over a projection's input instead of its output, if those are its columns.
pub(super) fn keys_below(keys: &[SortKey], exprs: &[Expr]) -> Option<Vec<SortKey>> {
    keys.iter()
        .map(|key| {
            let Expr::Column(i, _) = &key.expr else { return None };
            let below = exprs.get(*i).filter(|e| !is_volatile(e) && !has_subquery(e))?;
            Some(SortKey { expr: below.clone(), ..key.clone() })
        })
        .collect()
}

/// `min(x)` and `max(x)` alone, where an index has `x` in order: its first value that is not NULL.
fn extreme(
    p: &Planner<'_>,
    input: &Plan,
    keys: &[Expr],
    aggregates: &[Aggregate],
    schema: &Arc<[Field]>,
) -> Option<Plan> {
    let [aggregate] = aggregates else { return None };
    let [arg @ Expr::Column(..)] = &aggregate.args[..] else { return None };
    let descending = match aggregate.function.name {
        "min" => false,
        "max" => true,
        _ => return None,
    };
    if !keys.is_empty() || aggregate.filter.is_some() || !aggregate.order_by.is_empty() {
        return None;
    }
    let key = SortKey { expr: arg.clone(), descending, nulls_first: descending };
    let wanted = Wanted { keys: std::slice::from_ref(&key), limit: Some(1.0) };
    let known = Expr::IsNull { input: Box::new(arg.clone()), negated: true };
    let (found, ordered) = push_ordered(p, input.clone(), vec![known], Some(&wanted));
    if !ordered {
        return None;
    }
    let one = Expr::Literal(Datum::Int8(1), DataType::Int8);
    let fields = found.schema.clone();
    let first = cost::plan(p, Node::Limit { input: Box::new(found), limit: Some(one), offset: None }, fields);
    let (aggregates, input) = (aggregates.to_vec(), Box::new(first));
    let node = Node::Aggregate { input, keys: Vec::new(), aggregates, sorted: false };
    Some(cost::plan(p, node, schema.clone()))
}

/// The input of a grouping by `keys`, and whether its groups come one after the other: because they do, or
/// because sorting them is cheaper than hashing, or has to be.
fn group_input(
    p: &Planner<'_>,
    input: Plan,
    conditions: Vec<Expr>,
    keys: &[Expr],
    must_sort: bool,
) -> (Plan, bool) {
    if keys.is_empty() || keys.iter().any(|k| is_volatile(k) || has_subquery(k)) {
        return (push(p, input, conditions), false);
    }
    let source = Source::of(&input, &conditions).is_some().then(|| (input.clone(), conditions.clone()));
    let plan = push(p, input, conditions);
    if grouped(&plan, keys).is_some() {
        return (plan, true);
    }
    if plan.rows < MERGE_ROWS && !must_sort && p.options().hashagg {
        return (plan, false);
    }
    let source = source.as_ref().and_then(|(plan, conditions)| Source::of(plan, conditions));
    let sorted = merge::ordered(p, &plan, source, &ascending(keys));
    let groups = p.groups(keys, &plan.schema, plan.rows);
    let cost = |plan: &Plan, sorted| plan.cost + cost::group_cost(p, Size::of(plan), groups, sorted);
    if must_sort || cost(&sorted, true) < cost(&plan, false) { (sorted, true) } else { (plan, false) }
}

/// A sort: gone if an index gives the order.
fn push_sort(
    p: &Planner<'_>,
    input: Plan,
    keys: Vec<SortKey>,
    limit: Option<Expr>,
    conditions: Vec<Expr>,
    schema: Arc<[Field]>,
) -> Plan {
    // With a limit, fewer rows in would mean other rows out.
    let (down, stay) = if limit.is_some() { (Vec::new(), conditions) } else { (conditions, Vec::new()) };
    let wanted = Wanted { keys: &keys, limit: limit.as_ref().map(|l| cost::count(l).unwrap_or(10.0)) };
    let (input, ordered) = push_ordered(p, input, down, Some(&wanted));
    let plan = if ordered || (limit.is_none() && gives(&input, &keys)) {
        input
    } else {
        cost::plan(p, Node::Sort { input: Box::new(input), keys, limit }, schema)
    };
    filtered(p, plan, stay)
}

/// Rows to keep for LIMIT and OFFSET.
fn sum(limit: Option<&Expr>, offset: Option<&Expr>) -> Option<Expr> {
    let limit = limit?;
    let Some(offset) = offset else { return Some(limit.clone()) };
    let resolved = functions::resolve_operator("+", Some(&limit.ty()), &offset.ty()).ok()?;
    let ty = resolved.return_type;
    let mut sum = Expr::Call { function: resolved.function, args: vec![limit.clone(), offset.clone()], ty };
    super::fold::fold(&mut sum).ok()?;
    // A negative or overflowing sum is the Limit operator's to report.
    match &sum {
        Expr::Literal(value, _) if value.as_i64().is_some_and(|n| n >= 0) => Some(sum),
        _ => None,
    }
}

/// Separates by a test: those that pass, and the rest.
pub(super) fn split(conditions: Vec<Expr>, test: impl Fn(&Expr) -> bool) -> (Vec<Expr>, Vec<Expr>) {
    conditions.into_iter().partition(|c| test(c))
}

/// True if a condition may be evaluated over a projection's input instead of its output.
fn can_substitute(condition: &Expr, exprs: &[Expr]) -> bool {
    if is_volatile(condition) {
        return false;
    }
    // Columns named inside subplans can only be replaced by columns.
    let mut fine = true;
    condition.references(0, &mut |e, level| match e {
        Expr::Column(i, _) => {
            fine &= exprs.get(*i).is_some_and(|e| !is_volatile(e) && !has_subquery(e));
        }
        Expr::Outer { depth, position, .. } if *depth == level && level > 0 => {
            fine &= matches!(exprs.get(*position), Some(Expr::Column(..)));
        }
        _ => {}
    });
    fine
}

/// The condition over a projection's input.
fn substitute(mut condition: Expr, exprs: &[Expr]) -> Expr {
    condition.references_mut(0, &mut |e, level| match e {
        Expr::Column(i, _) => {
            if let Some(new) = exprs.get(*i) {
                *e = new.clone();
            }
        }
        Expr::Outer { depth, position, .. } if *depth == level && level > 0 => {
            if let Some(Expr::Column(new, _)) = exprs.get(*position) {
                *position = *new;
            }
        }
        _ => {}
    });
    condition
}

pub(super) fn has_subquery(e: &Expr) -> bool {
    e.any(&mut |e| matches!(e, Expr::Subquery(_)))
}

pub(super) fn has_correlated_subquery(e: &Expr) -> bool {
    e.any(&mut |e| matches!(e, Expr::Subquery(s) if s.correlated))
}

/// `column = constant`, which a system view may use to make fewer rows.
fn system_equal(condition: &Expr) -> Option<(usize, Expr)> {
    let Expr::Call { function, args, .. } = condition else { return None };
    let [left, right] = &args[..] else { return None };
    if function.name != "=" {
        return None;
    }
    match (left, right) {
        (Expr::Column(i, ty), value) | (value, Expr::Column(i, ty))
            if value.is_row_free() && value.ty() == *ty && !is_volatile(value) && !has_subquery(value) =>
        {
            Some((*i, value.clone()))
        }
        _ => None,
    }
}

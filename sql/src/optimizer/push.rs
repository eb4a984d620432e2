//! Conditions move down to where their columns come from, and choose access paths and joins there.

use crate::expr::Expr;
use crate::functions;
use crate::plan::{JoinKind, Node, Plan, SortKey};
use crate::walk::same_expr;

use super::access::{self, Wanted, conjunction};
use super::cost;
use super::fold::is_volatile;
use super::join;

/// The conjuncts of a condition.
pub(super) fn conjuncts(condition: Expr) -> Vec<Expr> {
    match condition {
        Expr::And(operands) => operands.into_iter().flat_map(conjuncts).collect(),
        Expr::Literal(amphora_storage::Datum::Bool(true), _) => Vec::new(),
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
pub(super) fn filtered(plan: Plan, conditions: Vec<Expr>) -> Plan {
    let schema = plan.schema.clone();
    match conjunction(conditions) {
        None => plan,
        Some(condition) => cost::plan(Node::Filter { input: Box::new(plan), condition }, schema),
    }
}

/// Plans `plan` with `conditions` over its output, all of which the result fulfils. The output columns
/// stay the same.
pub(super) fn push(plan: Plan, conditions: Vec<Expr>) -> Plan {
    push_ordered(plan, conditions, None).0
}

/// Like [`push`]; true if the rows come in the wanted order.
pub(super) fn push_ordered(
    plan: Plan,
    mut conditions: Vec<Expr>,
    wanted: Option<&Wanted<'_>>,
) -> (Plan, bool) {
    let schema = plan.schema.clone();
    let Plan { node, rows, cost: old_cost, .. } = plan;
    match node {
        Node::Filter { input, condition } => {
            conditions.extend(conjuncts(condition));
            push_ordered(*input, conditions, wanted)
        }
        Node::TableScan(scan) => {
            let (stay, conditions) = split(conditions, |c| is_volatile(c) || has_correlated_subquery(c));
            let plan = Plan { node: Node::Values(Vec::new()), schema, rows, cost: old_cost };
            let (plan, ordered) = access::access(scan, &plan, conditions, wanted);
            (filtered(plan, stay), ordered)
        }
        Node::SystemScan { view, mut equal } => {
            for condition in &conditions {
                if let Some(pair) = system_equal(condition) {
                    equal.push(pair);
                }
            }
            (filtered(cost::plan(Node::SystemScan { view, equal }, schema), conditions), false)
        }
        Node::Project { input, exprs } => {
            let (down, stay) = split(conditions, |c| can_substitute(c, &exprs));
            let down = down.into_iter().map(|c| substitute(c, &exprs)).collect();
            let input = push(*input, down);
            // A projection of all columns in order is nothing.
            let identity = exprs.len() == input.width()
                && exprs.iter().enumerate().all(|(i, e)| matches!(e, Expr::Column(c, _) if *c == i));
            if identity {
                return (filtered(Plan { schema, ..input }, stay), false);
            }
            (filtered(cost::plan(Node::Project { input: Box::new(input), exprs }, schema), stay), false)
        }
        Node::Sort { input, keys, limit } => (push_sort(*input, keys, limit, conditions, schema), false),
        Node::Limit { input, limit, offset } => {
            let mut input = *input;
            if let Node::Sort { limit: kept, .. } = &mut input.node {
                *kept = sum(limit.as_ref(), offset.as_ref());
            }
            let input = push(input, Vec::new());
            let plan = cost::plan(Node::Limit { input: Box::new(input), limit, offset }, schema);
            (filtered(plan, conditions), false)
        }
        Node::Distinct { input, on } => {
            let (down, stay) = split(conditions, |c| {
                let mut all = !is_volatile(c);
                c.columns(&mut |i| all &= on.iter().any(|e| matches!(e, Expr::Column(k, _) if *k == i)));
                all
            });
            let input = push(*input, down);
            (filtered(cost::plan(Node::Distinct { input: Box::new(input), on }, schema), stay), false)
        }
        Node::Aggregate { input, keys, aggregates } => {
            let (down, stay) = split(conditions, |c| {
                let mut only_keys = !keys.is_empty();
                c.columns(&mut |i| only_keys &= i < keys.len());
                only_keys && can_substitute(c, &keys)
            });
            let down = down.into_iter().map(|c| substitute(c, &keys)).collect();
            let input = push(*input, down);
            (
                filtered(
                    cost::plan(Node::Aggregate { input: Box::new(input), keys, aggregates }, schema),
                    stay,
                ),
                false,
            )
        }
        Node::Append(inputs) => {
            let (stay, down) = split(conditions, is_volatile);
            let inputs = inputs.into_iter().map(|input| push(input, down.clone())).collect();
            (filtered(cost::plan(Node::Append(inputs), schema), stay), false)
        }
        Node::SetOperation { left, right, intersect, all } => {
            let (stay, down) = split(conditions, is_volatile);
            let left = Box::new(push(*left, down.clone()));
            let right = Box::new(push(*right, down));
            (filtered(cost::plan(Node::SetOperation { left, right, intersect, all }, schema), stay), false)
        }
        Node::NestedLoop { left, right, kind: JoinKind::Inner, condition } => {
            let plan = Plan {
                node: Node::NestedLoop { left, right, kind: JoinKind::Inner, condition },
                schema,
                rows,
                cost: old_cost,
            };
            (join::inner(plan, conditions), false)
        }
        Node::NestedLoop { left, right, kind, condition } => {
            (join::outer(*left, *right, kind, condition, conditions, schema), false)
        }
        Node::ProjectSet { input, exprs } => {
            let input = Box::new(push(*input, Vec::new()));
            (filtered(cost::plan(Node::ProjectSet { input, exprs }, schema), conditions), false)
        }
        Node::Window { input, functions } => {
            let input = Box::new(push(*input, Vec::new()));
            (filtered(cost::plan(Node::Window { input, functions }, schema), conditions), false)
        }
        Node::Lock { input, targets, mode, wait } => {
            let input = Box::new(push(*input, Vec::new()));
            (filtered(cost::plan(Node::Lock { input, targets, mode, wait }, schema), conditions), false)
        }
        Node::Recursive { id, base, step, distinct } => {
            let base = Box::new(push(*base, Vec::new()));
            let step = Box::new(push(*step, Vec::new()));
            (filtered(cost::plan(Node::Recursive { id, base, step, distinct }, schema), conditions), false)
        }
        leaf @ (Node::Values(_)
        | Node::FunctionScan { .. }
        | Node::CteScan(_)
        | Node::WorkTable(_)
        | Node::HashJoin { .. }) => (filtered(cost::plan(leaf, schema), conditions), false),
    }
}

/// A sort: gone if an index gives the order.
fn push_sort(
    input: Plan,
    keys: Vec<SortKey>,
    limit: Option<Expr>,
    conditions: Vec<Expr>,
    schema: std::sync::Arc<[crate::plan::Field]>,
) -> Plan {
    // With a limit, fewer rows in would mean other rows out.
    let (down, stay) = if limit.is_some() { (Vec::new(), conditions) } else { (conditions, Vec::new()) };
    let wanted = Wanted { keys: &keys, limit: limit.as_ref().map(|l| cost::count(l).unwrap_or(10.0)) };
    let (input, ordered) = push_ordered(input, down, Some(&wanted));
    let plan =
        if ordered { input } else { cost::plan(Node::Sort { input: Box::new(input), keys, limit }, schema) };
    filtered(plan, stay)
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

fn has_correlated_subquery(e: &Expr) -> bool {
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

//! A correlated scalar aggregate becomes a join with all its groups.
//!
//! ```text
//!   (SELECT sum(x) FROM t WHERE t.k = outer.k AND t.y > 5)
//!     ⇒  Left join (outer.k = g.k)  …, Aggregate by k: sum(x)  Filter (t.y > 5) t
//! ```
//!
//! That reads `t` once instead of once a row. Where an index on `k` can be looked into, each question is
//! cheap and there may be few of them: then the subquery stays as it is.

use amphora_storage::schema::Index;
use std::sync::Arc;

use amphora_storage::{DataType, Datum};

use super::cost;
use super::fold::is_volatile;
use super::join::hashes_alike;
use super::push::{conjuncts, has_subquery};
use super::unnest::{beside, kept, reads_outside};
use crate::expr::{Expr, Subquery, SubqueryKind};
use crate::plan::{Aggregate, Field, JoinKind, Node, Plan};

/// Aggregates of no rows that are NULL, beside `count`, which is 0.
const NULL_OF_NOTHING: &[&str] =
    &["sum", "avg", "min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or", "stddev", "variance"];

/// Replaces what it can in expressions over `input`; the input then has more columns behind its own.
pub(super) fn decorrelate(input: Plan, exprs: &mut [Expr]) -> Plan {
    let mut input = input;
    for expr in exprs {
        replace(&mut input, expr);
    }
    input
}

/// True if there may be something to replace.
pub(super) fn has_scalar(e: &Expr) -> bool {
    e.any(&mut |e| matches!(e, Expr::Subquery(s) if s.correlated && matches!(s.kind, SubqueryKind::Scalar)))
}

fn replace(input: &mut Plan, expr: &mut Expr) {
    match expr {
        // Only what is always evaluated may be evaluated beforehand.
        Expr::Case { .. } | Expr::Coalesce(..) | Expr::Or(_) => return,
        _ => expr.children_mut(&mut |e| replace(input, e)),
    }
    let Expr::Subquery(subquery) = &*expr else { return };
    let Some((groups, on, value)) = grouped(subquery, input.width()) else { return };
    let schema: Arc<[Field]> = input.schema.iter().chain(groups.schema.iter()).cloned().collect();
    let left = std::mem::replace(input, cost::nothing());
    let node = Node::NestedLoop {
        left: Box::new(left),
        right: Box::new(groups),
        kind: JoinKind::Left,
        condition: super::access::conjunction(on),
    };
    *input = cost::unplanned(node, schema);
    *expr = value;
}

/// The groups, the condition on (row ++ group), and the subquery's value over that.
fn grouped(subquery: &Subquery, width: usize) -> Option<(Plan, Vec<Expr>, Expr)> {
    if !subquery.correlated || !matches!(subquery.kind, SubqueryKind::Scalar) {
        return None;
    }
    let mut value = None;
    let mut plan: &Plan = &subquery.plan;
    if let Node::Project { input, exprs } = &plan.node
        && let [only] = &exprs[..]
    {
        value = Some(only.clone());
        plan = input;
    }
    let Node::Aggregate { input, keys, aggregates, .. } = &plan.node else { return None };
    let Node::Filter { input: base, condition } = &input.node else { return None };
    if !keys.is_empty() || base.is_correlated() || !aggregates.iter().all(is_simple) {
        return None;
    }
    let Node::TableScan(scan) = &base.node else { return None };
    let mut value = value.or_else(|| Some(Expr::Column(0, plan.schema.first()?.ty.clone())))?;
    if reads_outside(&value) || has_subquery(&value) || is_volatile(&value) {
        return None;
    }
    let (mut local, mut keys, mut on) = (Vec::new(), Vec::new(), Vec::new());
    for condition in conjuncts(condition.clone()) {
        if is_volatile(&condition) {
            return None;
        }
        if !reads_outside(&condition) {
            local.push(condition);
            continue;
        }
        let Expr::Call { function, args, ty } = condition else { return None };
        let [a, b] = &args[..] else { return None };
        if function.name != "=" || !hashes_alike(&a.ty(), &b.ty()) || has_subquery(a) || has_subquery(b) {
            return None;
        }
        let (outside, inside) = if reads_outside(a) { (a, b) } else { (b, a) };
        if !outside.is_row_free() || reads_outside(inside) || inside.is_row_free() {
            return None;
        }
        // An index that begins with the key answers each question at once.
        if let Expr::Column(position, _) = inside {
            let column = scan.columns.get(*position)?;
            let answers =
                |i: &Index| i.predicate.is_none() && !i.is_of_elements() && i.columns.first() == Some(column);
            if scan.table.all_indexes().any(answers) {
                return None;
            }
        }
        let group = Expr::Column(width + keys.len(), inside.ty());
        on.push(Expr::Call { function, args: vec![beside(outside.clone(), width), group], ty });
        keys.push(inside.clone());
    }
    if keys.is_empty() {
        return None;
    }
    let offset = width + keys.len();
    value.references_mut(0, &mut |e, _| {
        let Expr::Column(position, ty) = e else { return };
        let counts = aggregates.get(*position).is_some_and(|a| a.function.name == "count");
        let column = Expr::Column(*position + offset, ty.clone());
        *e = match counts {
            true => Expr::Coalesce(vec![column, Expr::Literal(Datum::Int8(0), DataType::Int8)], ty.clone()),
            false => column,
        };
    });
    let unnamed = |ty: DataType| Field { name: "?column?".into(), ty, origin: None };
    let key_fields = keys.iter().map(|key| match key {
        Expr::Column(i, ty) => base.schema.get(*i).cloned().unwrap_or_else(|| unnamed(ty.clone())),
        other => unnamed(other.ty()),
    });
    let schema: Arc<[Field]> = key_fields.chain(plan.schema.iter().cloned()).collect();
    let node = Node::Aggregate {
        input: Box::new(kept((**base).clone(), local)),
        keys,
        aggregates: aggregates.clone(),
        sorted: false,
    };
    Some((cost::unplanned(node, schema), on, value))
}

/// True of a call that reads no outer row, of whose value over no rows we are sure, and which fails for no
/// group that nobody asks for.
fn is_simple(call: &Aggregate) -> bool {
    (call.function.name == "count" || NULL_OF_NOTHING.contains(&call.function.name))
        && call.args.iter().all(cannot_fail)
        && call.filter.is_none()
        && call.order_by.is_empty()
}

fn cannot_fail(e: &Expr) -> bool {
    match e {
        Expr::Column(..) | Expr::Literal(..) => true,
        Expr::Call { function, args, ty } => {
            matches!(function.name, "+" | "-" | "*")
                && matches!(ty, DataType::Numeric(_))
                && args.iter().all(cannot_fail)
        }
        _ => false,
    }
}

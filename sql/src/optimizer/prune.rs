//! Columns that nobody reads are not read.
//!
//! Going down, each operator says which of its input's columns it needs; coming up, it is told where they
//! have gone. An operator may keep columns that are not wanted; it never loses one that is.

use std::sync::Arc;

use super::cost;
use crate::expr::Expr;
use crate::plan::{Field, JoinKind, Node, Plan};

/// Prunes under a plan whose own output must keep its shape.
pub(super) fn prune(plan: &mut Plan, wanted: &[bool]) {
    let moved = narrow(plan, wanted);
    let identity = moved.len() == plan.width() && moved.iter().enumerate().all(|(i, m)| *m == Some(i));
    if identity || wanted.iter().all(|w| !w) {
        return;
    }
    // Some column was dropped or moved: put the wanted ones back into place.
    let taken = std::mem::replace(plan, cost::nothing());
    let schema: Vec<(Field, Option<usize>)> = moved
        .iter()
        .map(|m| match m {
            Some(i) => (taken.schema[*i].clone(), Some(*i)),
            None => {
                (Field { name: "?column?".into(), ty: amphora_storage::DataType::Text, origin: None }, None)
            }
        })
        .collect();
    let exprs = schema
        .iter()
        .map(|(field, place)| match place {
            Some(i) => Expr::Column(*i, field.ty.clone()),
            None => Expr::Literal(amphora_storage::Datum::Null, field.ty.clone()),
        })
        .collect();
    let fields: Arc<[Field]> = schema.into_iter().map(|(field, _)| field).collect();
    let (rows, cost) = (taken.rows, taken.cost);
    *plan = Plan { node: Node::Project { input: Box::new(taken), exprs }, schema: fields, rows, cost };
}

/// Where each old column is now; `None` if it is gone.
type Moved = Vec<Option<usize>>;

fn need(needed: &mut [bool], e: &Expr) {
    e.columns(&mut |c| {
        if let Some(slot) = needed.get_mut(c) {
            *slot = true;
        }
    });
}

fn remap(e: &mut Expr, moved: &Moved) {
    e.map_columns(&mut |c| moved.get(c).copied().flatten().unwrap_or(c));
}

fn identity(width: usize) -> Moved {
    (0..width).map(Some).collect()
}

/// Narrows a plan to the wanted columns, or more.
fn narrow(plan: &mut Plan, wanted: &[bool]) -> Moved {
    let width = plan.width();
    let moved = match &mut plan.node {
        Node::TableScan(scan) => {
            let mut needed = wanted.to_vec();
            if let Some(filter) = &scan.filter {
                need(&mut needed, filter);
            }
            let mut moved = vec![None; width];
            let mut columns = Vec::new();
            for (i, &keep) in needed.iter().enumerate() {
                if keep {
                    moved[i] = Some(columns.len());
                    columns.push(scan.columns[i]);
                }
            }
            scan.columns = columns;
            if let Some(filter) = &mut scan.filter {
                remap(filter, &moved);
            }
            moved
        }
        Node::Filter { input, condition } => {
            let mut needed = wanted.to_vec();
            need(&mut needed, condition);
            let moved = narrow(input, &needed);
            remap(condition, &moved);
            moved
        }
        Node::Sort { input, keys, .. } => {
            let mut needed = wanted.to_vec();
            keys.iter().for_each(|k| need(&mut needed, &k.expr));
            let moved = narrow(input, &needed);
            keys.iter_mut().for_each(|k| remap(&mut k.expr, &moved));
            moved
        }
        Node::Limit { input, .. } => narrow(input, wanted),
        Node::Lock { input, targets, .. } => {
            let mut needed = wanted.to_vec();
            for target in targets.iter() {
                target.key.iter().for_each(|&k| needed[k] = true);
            }
            let moved = narrow(input, &needed);
            for target in targets.iter_mut() {
                target.key.iter_mut().for_each(|k| *k = moved.get(*k).copied().flatten().unwrap_or(*k));
            }
            moved
        }
        Node::Project { input, exprs } => {
            let mut moved = vec![None; width];
            let mut kept = Vec::new();
            for (i, e) in std::mem::take(exprs).into_iter().enumerate() {
                if wanted[i] {
                    moved[i] = Some(kept.len());
                    kept.push(e);
                }
            }
            let mut needed = vec![false; input.width()];
            kept.iter().for_each(|e| need(&mut needed, e));
            let below = narrow(input, &needed);
            kept.iter_mut().for_each(|e| remap(e, &below));
            *exprs = kept;
            moved
        }
        Node::Aggregate { input, keys, aggregates, .. } => {
            let mut moved: Moved = (0..keys.len()).map(Some).collect();
            let mut kept = Vec::new();
            for (i, aggregate) in std::mem::take(aggregates).into_iter().enumerate() {
                if wanted[keys.len() + i] {
                    moved.push(Some(keys.len() + kept.len()));
                    kept.push(aggregate);
                } else {
                    moved.push(None);
                }
            }
            *aggregates = kept;
            let mut needed = vec![false; input.width()];
            keys.iter().for_each(|k| need(&mut needed, k));
            for aggregate in aggregates.iter() {
                aggregate.args.iter().chain(&aggregate.filter).for_each(|e| need(&mut needed, e));
                aggregate.order_by.iter().for_each(|k| need(&mut needed, &k.expr));
            }
            let below = narrow(input, &needed);
            keys.iter_mut().for_each(|k| remap(k, &below));
            for aggregate in aggregates.iter_mut() {
                aggregate.args.iter_mut().chain(&mut aggregate.filter).for_each(|e| remap(e, &below));
                aggregate.order_by.iter_mut().for_each(|k| remap(&mut k.expr, &below));
            }
            moved
        }
        Node::NestedLoop { left, right, kind, condition } => {
            let (mut on_left, mut on_right) = sides(wanted, left.width(), right.width());
            if let Some(condition) = condition {
                need_both(condition, &mut on_left, &mut on_right);
            }
            right.references(1, &mut |e, level| {
                if let Expr::Outer { depth, position, .. } = e
                    && *depth == level
                {
                    on_left[*position] = true;
                }
            });
            let left_moved = narrow(left, &on_left);
            right.references_mut(1, &mut |e, level| {
                if let Expr::Outer { depth, position, .. } = e
                    && *depth == level
                {
                    *position = left_moved.get(*position).copied().flatten().unwrap_or(*position);
                }
            });
            let right_moved = narrow(right, &on_right);
            let both = joined(&left_moved, &right_moved, left.width());
            if let Some(condition) = condition {
                remap(condition, &both);
            }
            output(both, *kind, left_moved.len())
        }
        Node::HashJoin { left, right, kind, left_keys, right_keys, condition } => {
            let (mut on_left, mut on_right) = sides(wanted, left.width(), right.width());
            if let Some(condition) = condition {
                need_both(condition, &mut on_left, &mut on_right);
            }
            left_keys.iter().for_each(|k| need(&mut on_left, k));
            right_keys.iter().for_each(|k| need(&mut on_right, k));
            let left_moved = narrow(left, &on_left);
            let right_moved = narrow(right, &on_right);
            left_keys.iter_mut().for_each(|k| remap(k, &left_moved));
            right_keys.iter_mut().for_each(|k| remap(k, &right_moved));
            let both = joined(&left_moved, &right_moved, left.width());
            if let Some(condition) = condition {
                remap(condition, &both);
            }
            output(both, *kind, left_moved.len())
        }
        Node::MergeJoin { left, right, kind, left_keys, right_keys, condition } => {
            let (mut on_left, mut on_right) = sides(wanted, left.width(), right.width());
            if let Some(condition) = condition {
                need_both(condition, &mut on_left, &mut on_right);
            }
            left_keys.iter().for_each(|k| need(&mut on_left, &k.expr));
            right_keys.iter().for_each(|k| need(&mut on_right, &k.expr));
            let left_moved = narrow(left, &on_left);
            let right_moved = narrow(right, &on_right);
            left_keys.iter_mut().for_each(|k| remap(&mut k.expr, &left_moved));
            right_keys.iter_mut().for_each(|k| remap(&mut k.expr, &right_moved));
            let both = joined(&left_moved, &right_moved, left.width());
            if let Some(condition) = condition {
                remap(condition, &both);
            }
            output(both, *kind, left_moved.len())
        }
        Node::Window { input, functions } => {
            let inner = input.width();
            let mut needed = wanted[..inner].to_vec();
            for call in functions.iter() {
                call.exprs(&mut |e| need(&mut needed, e));
            }
            let mut moved = narrow(input, &needed);
            for call in functions.iter_mut() {
                call.exprs_mut(&mut |e| remap(e, &moved));
            }
            let base = input.width();
            moved.extend((0..functions.len()).map(|i| Some(base + i)));
            moved
        }
        Node::Append(inputs) => {
            // Every branch must have the same columns, so each keeps its shape.
            inputs.iter_mut().for_each(|input| prune(input, &vec![true; input.width()]));
            identity(width)
        }
        node => {
            node.inputs_mut(&mut |input, _| {
                let all = vec![true; input.width()];
                prune(input, &all);
            });
            identity(width)
        }
    };
    if moved.iter().enumerate().any(|(i, m)| *m != Some(i)) {
        let kept = moved.iter().zip(plan.schema.iter()).filter(|(m, _)| m.is_some()).map(|(_, f)| f.clone());
        plan.schema = kept.collect();
    }
    moved
}

/// The wanted columns of a join, by side. A semi join gives only left columns.
fn sides(wanted: &[bool], left: usize, right: usize) -> (Vec<bool>, Vec<bool>) {
    let on_left = wanted[..left.min(wanted.len())].to_vec();
    let mut on_right: Vec<bool> = wanted.get(left..).unwrap_or_default().to_vec();
    on_right.resize(right, false);
    (on_left, on_right)
}

fn need_both(condition: &Expr, left: &mut [bool], right: &mut [bool]) {
    condition.columns(&mut |c| match left.get_mut(c) {
        Some(slot) => *slot = true,
        None => {
            if let Some(slot) = right.get_mut(c - left.len()) {
                *slot = true;
            }
        }
    });
}

/// Where the columns of (left ++ right) have gone.
fn joined(left: &Moved, right: &Moved, new_left_width: usize) -> Moved {
    left.iter().copied().chain(right.iter().map(|m| m.map(|i| i + new_left_width))).collect()
}

fn output(both: Moved, kind: JoinKind, left: usize) -> Moved {
    match kind {
        JoinKind::Semi | JoinKind::Anti => both[..left].to_vec(),
        _ => both,
    }
}

//! Joins: in which order, and how.
//!
//! Inner joins beside each other are taken apart into relations and conditions, and put together again
//! greedily: the smallest relation first, then each time the one whose joining costs least, by index
//! lookups or by hashing. Outer joins stay where they are.
//!
//! Everything on the right of a nested loop is one level further in than everything on the right of a hash
//! join. While relations are loose, they and their conditions are on the level of the whole; going to the
//! right of a nested loop shifts them in by one.

use std::sync::Arc;

use super::access::{self, conjunction};
use super::cost;
use super::fold::is_volatile;
use super::push::{conjuncts, filtered, has_subquery, push, split};
use crate::expr::Expr;
use crate::plan::{Field, JoinKind, Node, Plan};

/// Relations beyond which the order is left as it was written.
const MAX_ORDERED: usize = 12;

/// A relation of a cluster of inner joins.
struct Relation {
    plan: Plan,
    /// Its first column in the cluster's row
    offset: usize,
    /// Conditions over it alone, in its own columns
    conditions: Vec<Expr>,
}

impl Relation {
    fn columns(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.plan.width()
    }
}

/// Plans a cluster of inner joins, with conditions over its output.
pub(super) fn inner(plan: Plan, conditions: Vec<Expr>) -> Plan {
    let schema = plan.schema.clone();
    let mut relations = Vec::new();
    let mut loose = conditions;
    flatten(plan, 0, &mut relations, &mut loose);
    if let [_] = relations[..] {
        return match relations.pop() {
            Some(only) => lateral(only.plan, loose),
            None => cost::nothing(),
        };
    }
    let (stay, mut loose) = split(loose, is_volatile);
    // Conditions over one relation go into it; those over none are checked once, in the first.
    loose.retain(|condition| {
        let used = columns_of(condition);
        let home = relations.iter().position(|r| used.iter().all(|c| r.columns().contains(c)));
        let Some(home) = home else { return true };
        let mut condition = condition.clone();
        let offset = relations[home].offset;
        condition.map_columns(&mut |c| c - offset);
        relations[home].conditions.push(condition);
        false
    });
    filtered(assemble(relations, loose, schema), stay)
}

/// Takes a tree of inner joins apart. A right side that reads its left row is not loose: the join with it
/// is one relation.
fn flatten(plan: Plan, offset: usize, relations: &mut Vec<Relation>, loose: &mut Vec<Expr>) {
    match plan.node {
        Node::NestedLoop { left, right, kind: JoinKind::Inner, condition } if !right.reads_nearest_row() => {
            let width = left.width();
            let mut right = *right;
            right.shift_outer(-1);
            flatten(*left, offset, relations, loose);
            flatten(right, offset + width, relations, loose);
            for mut condition in condition.into_iter().flat_map(conjuncts) {
                condition.map_columns(&mut |c| c + offset);
                loose.push(condition);
            }
        }
        Node::Filter { input, condition }
            if matches!(&input.node, Node::NestedLoop { kind: JoinKind::Inner, .. }) =>
        {
            for mut condition in conjuncts(condition) {
                condition.map_columns(&mut |c| c + offset);
                loose.push(condition);
            }
            flatten(*input, offset, relations, loose);
        }
        node => relations.push(Relation { plan: Plan { node, ..plan }, offset, conditions: Vec::new() }),
    }
}

/// A join whose right side reads the left row, or any other plan that is a cluster alone.
fn lateral(plan: Plan, conditions: Vec<Expr>) -> Plan {
    let schema = plan.schema.clone();
    match plan.node {
        Node::NestedLoop { left, right, kind: JoinKind::Inner, condition } => {
            let width = left.width();
            let mut conditions = conditions;
            conditions.extend(condition.into_iter().flat_map(conjuncts));
            let (stay, conditions) = split(conditions, is_volatile);
            let (to_left, rest) = split(conditions, |c| columns_of(c).iter().all(|&c| c < width));
            let (to_right, both) = split(rest, |c| columns_of(c).iter().all(|&c| c >= width));
            let left = push(*left, to_left);
            let right = push(*right, to_right.into_iter().map(|c| into_right(c, width)).collect());
            let condition = conjunction(both);
            let node = Node::NestedLoop {
                left: Box::new(left),
                right: Box::new(right),
                kind: JoinKind::Inner,
                condition,
            };
            filtered(cost::plan(node, schema), stay)
        }
        node => push(Plan { node, ..plan }, conditions),
    }
}

/// A condition over a join's right columns alone, as the right side sees it.
fn into_right(mut condition: Expr, width: usize) -> Expr {
    condition.map_columns(&mut |c| c - width);
    condition.shift_outer(1);
    condition
}

fn columns_of(e: &Expr) -> Vec<usize> {
    let mut columns = Vec::new();
    e.columns(&mut |c| columns.push(c));
    columns
}

/// Rows and columns joined so far.
struct Joined {
    plan: Plan,
    /// For each output column, the column of the cluster that it is
    columns: Vec<usize>,
}

impl Joined {
    /// Where a column of the cluster is now.
    fn place(&self, column: usize) -> Option<usize> {
        self.columns.iter().position(|&c| c == column)
    }
}

fn assemble(relations: Vec<Relation>, mut loose: Vec<Expr>, schema: Arc<[Field]>) -> Plan {
    let ordered = relations.len() <= MAX_ORDERED;
    // Each relation alone, to know its size.
    let mut rest: Vec<(Relation, Plan)> = relations
        .into_iter()
        .map(|relation| {
            let alone = push(relation.plan.clone(), relation.conditions.clone());
            (relation, alone)
        })
        .collect();
    let first = if ordered { smallest(&rest) } else { 0 };
    let (relation, plan) = rest.remove(first);
    let mut joined = Joined { columns: relation.columns().collect(), plan };
    while !rest.is_empty() {
        let mut best: Option<(usize, Joined, Vec<usize>)> = None;
        for (i, (relation, alone)) in rest.iter().enumerate() {
            // Without a condition between them a join is a product: only when nothing else is left.
            let usable = usable(&joined, relation, &loose);
            let connected = usable.iter().any(|&c| is_equality(&loose[c]));
            if ordered && !connected && rest.iter().any(|(r, _)| usable_equality(&joined, r, &loose)) {
                continue;
            }
            let candidate = join_with(&joined, relation, alone, &usable, &loose);
            if best.as_ref().is_none_or(|(_, b, _)| candidate.plan.cost < b.plan.cost) {
                best = Some((i, candidate, usable));
            }
            if !ordered {
                break;
            }
        }
        let Some((i, next, used)) = best else { break };
        joined = next;
        rest.remove(i);
        let mut index = 0;
        loose.retain(|_| {
            index += 1;
            !used.contains(&(index - 1))
        });
    }
    let Joined { plan, columns } = joined;
    // Back to the order of columns that everyone above knows.
    let total = columns.len();
    if columns.iter().enumerate().all(|(i, &c)| i == c) {
        return filtered(Plan { schema, ..plan }, loose);
    }
    let mut exprs = Vec::with_capacity(total);
    for column in 0..total {
        let place = columns.iter().position(|&c| c == column).unwrap_or(column);
        exprs.push(Expr::Column(place, schema[column].ty.clone()));
    }
    filtered(cost::plan(Node::Project { input: Box::new(plan), exprs }, schema), loose)
}

fn smallest(relations: &[(Relation, Plan)]) -> usize {
    let mut best = 0;
    for (i, (_, plan)) in relations.iter().enumerate() {
        if plan.rows < relations[best].1.rows {
            best = i;
        }
    }
    best
}

/// The loose conditions that can be checked once `relation` is joined.
fn usable(joined: &Joined, relation: &Relation, loose: &[Expr]) -> Vec<usize> {
    let range = relation.columns();
    let known = |c: &usize| range.contains(c) || joined.columns.contains(c);
    (0..loose.len()).filter(|&i| columns_of(&loose[i]).iter().all(known)).collect()
}

fn usable_equality(joined: &Joined, relation: &Relation, loose: &[Expr]) -> bool {
    usable(joined, relation, loose).iter().any(|&c| is_equality(&loose[c]))
}

fn is_equality(e: &Expr) -> bool {
    matches!(e, Expr::Call { function, args, .. } if function.name == "=" && args.len() == 2)
}

/// Joins one more relation: by looking its rows up for every row so far, or by hashing it.
fn join_with(joined: &Joined, relation: &Relation, alone: &Plan, usable: &[usize], loose: &[Expr]) -> Joined {
    let width = joined.columns.len();
    let range = relation.columns();
    let mut columns = joined.columns.clone();
    columns.extend(range.clone());
    let schema: Arc<[Field]> =
        joined.plan.schema.iter().chain(relation.plan.schema.iter()).cloned().collect();
    // The conditions over (rows so far ++ relation).
    let conditions: Vec<Expr> = usable
        .iter()
        .map(|&i| {
            let mut condition = loose[i].clone();
            condition.map_columns(&mut |c| match joined.place(c) {
                Some(place) => place,
                None => c - range.start + width,
            });
            condition
        })
        .collect();
    let plan = join_sides(
        &joined.plan,
        &relation.plan,
        &relation.conditions,
        alone,
        conditions,
        JoinKind::Inner,
        schema,
    );
    Joined { plan, columns }
}

/// The cheapest way to join two sides. `right` with `right_conditions` is what `alone` plans; both are on
/// the level of the whole.
fn join_sides(
    left: &Plan,
    right: &Plan,
    right_conditions: &[Expr],
    alone: &Plan,
    conditions: Vec<Expr>,
    kind: JoinKind,
    schema: Arc<[Field]>,
) -> Plan {
    let width = left.width();
    let mut keys = Vec::new();
    let mut others = Vec::new();
    for condition in conditions {
        match equal_sides(&condition, width) {
            Some(pair) => keys.push((pair, condition)),
            None => others.push(condition),
        }
    }
    if keys.is_empty() {
        let mut right_side = alone.clone();
        right_side.shift_outer(1);
        let node = Node::NestedLoop {
            left: Box::new(left.clone()),
            right: Box::new(right_side),
            kind,
            condition: conjunction(others),
        };
        return cost::plan(node, schema);
    }
    // Where both sides can be compared for equality nobody loops: an estimate of few rows may be wrong.
    let lookup = lookup_join(left, right, right_conditions, &keys, &others, kind, &schema);
    let (left_keys, right_keys) = keys.into_iter().map(|(pair, _)| pair).unzip();
    let node = Node::HashJoin {
        left: Box::new(left.clone()),
        right: Box::new(alone.clone()),
        kind,
        left_keys,
        right_keys,
        condition: conjunction(others),
    };
    let hash = cost::plan(node, schema);
    match lookup {
        Some(lookup) if lookup.cost < hash.cost => lookup,
        _ => hash,
    }
}

/// The right side looked up by an index for every left row.
fn lookup_join(
    left: &Plan,
    right: &Plan,
    right_conditions: &[Expr],
    keys: &[((Expr, Expr), Expr)],
    others: &[Expr],
    kind: JoinKind,
    schema: &Arc<[Field]>,
) -> Option<Plan> {
    // Only a plain scan, perhaps under filters, has an index to look into.
    let mut conditions: Vec<Expr> = right_conditions.to_vec();
    let mut base = right;
    while let Node::Filter { input, condition } = &base.node {
        conditions.extend(conjuncts(condition.clone()));
        base = input;
    }
    let Node::TableScan(scan) = &base.node else { return None };
    if conditions.iter().any(|c| is_volatile(c) || has_subquery(c)) {
        return None;
    }
    conditions.iter_mut().for_each(|c| c.shift_outer(1));
    for ((l, r), condition) in keys {
        let Expr::Call { function, ty, .. } = condition else { continue };
        if has_subquery(l) || has_subquery(r) {
            return None;
        }
        let mut r = r.clone();
        r.shift_outer(1);
        let args = vec![r, l.clone().into_outer()];
        conditions.push(Expr::Call { function, args, ty: ty.clone() });
    }
    let (mut found, _) = access::access(scan.clone(), base, conditions, None);
    let Node::TableScan(chosen) = &found.node else { return None };
    let uses_left = chosen.ranges.iter().any(|range| {
        let reads = |e: &Expr| {
            let mut found = false;
            e.references(0, &mut |e, level| {
                found |= matches!(e, Expr::Outer { depth, .. } if *depth == level + 1)
            });
            found
        };
        range.prefix.iter().any(reads) || range.lower.iter().chain(&range.upper).any(|(e, _)| reads(e))
    });
    if !uses_left {
        return None;
    }
    found.schema = right.schema.clone();
    let rows = match kind {
        JoinKind::Left => (left.rows * found.rows).max(left.rows),
        JoinKind::Semi | JoinKind::Anti => (left.rows / 2.0).max(1.0),
        _ => (left.rows * found.rows).max(1.0),
    };
    let cost = left.cost + left.rows.max(1.0) * found.cost;
    let node = Node::NestedLoop {
        left: Box::new(left.clone()),
        right: Box::new(found),
        kind,
        condition: conjunction(others.to_vec()),
    };
    Some(Plan { node, schema: schema.clone(), rows, cost })
}

/// `left = right`, each side over its own columns; the right one in its own numbering.
fn equal_sides(condition: &Expr, width: usize) -> Option<(Expr, Expr)> {
    let Expr::Call { function, args, .. } = condition else { return None };
    let [a, b] = &args[..] else { return None };
    // Hashing needs both sides to be of one kind, and equal exactly when the operator says so.
    if function.name != "=" || !hashes_alike(&a.ty(), &b.ty()) {
        return None;
    }
    let (a_columns, b_columns) = (columns_of(a), columns_of(b));
    if a_columns.is_empty() || b_columns.is_empty() {
        return None;
    }
    let is_left = |columns: &[usize]| columns.iter().all(|&c| c < width);
    let is_right = |columns: &[usize]| columns.iter().all(|&c| c >= width);
    let (left, right) = if is_left(&a_columns) && is_right(&b_columns) {
        (a, b)
    } else if is_left(&b_columns) && is_right(&a_columns) {
        (b, a)
    } else {
        return None;
    };
    let mut right = right.clone();
    right.map_columns(&mut |c| c - width);
    Some((left.clone(), right))
}

fn hashes_alike(a: &amphora_storage::DataType, b: &amphora_storage::DataType) -> bool {
    use amphora_storage::DataType as T;
    let kind = |t: &T| match t.base() {
        T::Int2 | T::Int4 | T::Int8 => 20,
        T::Text | T::Varchar(_) | T::Name | T::InternalChar => 25,
        other if other.is_oid_like() => 26,
        // Compared without its padding, and floats of two widths by value: not by the datum as it lies.
        T::Char(_) => 0,
        other => other.oid(),
    };
    kind(a) == kind(b) && kind(a) != 0
}

/// Plans an outer join, with conditions over its output.
pub(super) fn outer(
    left: Plan,
    right: Plan,
    kind: JoinKind,
    condition: Option<Expr>,
    conditions: Vec<Expr>,
    schema: Arc<[Field]>,
) -> Plan {
    let width = left.width();
    let on: Vec<Expr> = condition.into_iter().flat_map(conjuncts).collect();
    match kind {
        JoinKind::Right => mirrored(left, right, on, conditions, schema),
        JoinKind::Left | JoinKind::Semi | JoinKind::Anti => {
            let (down, stay) =
                split(conditions, |c| !is_volatile(c) && columns_of(c).iter().all(|&c| c < width));
            let left = push(left, down);
            let (to_right, both) = split(on, |c| {
                let columns = columns_of(c);
                !is_volatile(c) && !columns.is_empty() && columns.iter().all(|&c| c >= width)
            });
            if right.reads_nearest_row() {
                let right = push(right, to_right.into_iter().map(|c| into_right(c, width)).collect());
                let node = Node::NestedLoop {
                    left: Box::new(left),
                    right: Box::new(right),
                    kind,
                    condition: conjunction(both),
                };
                return filtered(cost::plan(node, schema), stay);
            }
            let mut right = right;
            right.shift_outer(-1);
            let own: Vec<Expr> = to_right
                .into_iter()
                .map(|mut c| {
                    c.map_columns(&mut |c| c - width);
                    c
                })
                .collect();
            let alone = push(right.clone(), own.clone());
            filtered(join_sides(&left, &right, &own, &alone, both, kind, schema), stay)
        }
        _ => {
            let left = push(left, Vec::new());
            let mut right = right;
            right.shift_outer(-1);
            let alone = push(right.clone(), Vec::new());
            filtered(join_sides(&left, &right, &[], &alone, on, kind, schema), conditions)
        }
    }
}

/// A right join is a left join seen from the other side.
fn mirrored(left: Plan, right: Plan, on: Vec<Expr>, conditions: Vec<Expr>, schema: Arc<[Field]>) -> Plan {
    let (width, right_width) = (left.width(), right.width());
    let swap = |c: usize| if c < width { c + right_width } else { c - width };
    let (mut left, mut right) = (left, right);
    left.shift_outer(1);
    right.shift_outer(-1);
    let swapped_schema: Arc<[Field]> = schema[width..].iter().chain(&schema[..width]).cloned().collect();
    let swapped = |conditions: Vec<Expr>| -> Vec<Expr> {
        conditions
            .into_iter()
            .map(|mut c| {
                c.map_columns(&mut |c| swap(c));
                c
            })
            .collect()
    };
    let plan =
        outer(right, left, JoinKind::Left, conjunction(swapped(on)), swapped(conditions), swapped_schema);
    let exprs = schema.iter().enumerate().map(|(c, field)| Expr::Column(swap(c), field.ty.clone())).collect();
    cost::plan(Node::Project { input: Box::new(plan), exprs }, schema)
}

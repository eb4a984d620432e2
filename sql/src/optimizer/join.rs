//! Joins: in which order, and how.
//!
//! Inner joins beside each other are taken apart into relations and conditions: equalities of columns become
//! classes (`equivalence.rs`), the order is searched for over sizes alone (`join_order.rs`), and the tree
//! that is found is built here. Outer joins stay where they are, unless a condition above them refuses the
//! rows that they would add.
//!
//! Everything on the right of a nested loop is one level further in than everything on the right of a hash
//! join. While relations are loose, they and their conditions are on the level of the whole; going to the
//! right of a nested loop shifts them in by one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::access::{self, Wanted, conjunction};
use super::cost;
use super::cost::Size;
use super::equivalence::{self, Class};
use super::fold::is_volatile;
use super::join_order::{self, Graph, Link, MAX_RELATIONS, Method, Predicate, Tree, bit};
use super::merge::{self, MERGE_ROWS, Source};
use super::ordering;
use super::planner::Planner;
use super::push::{conjuncts, filtered, has_correlated_subquery, has_subquery, push, push_ordered, split};
use super::ranges;
use crate::expr::Expr;
use crate::plan::{Field, JoinKind, Node, Plan, SortKey};

/// A relation of a cluster of inner joins.
#[derive(Clone)]
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

/// Plans a cluster of inner joins, with conditions over its output. True if it comes in the wanted order.
pub(super) fn inner(
    p: &Planner<'_>,
    plan: Plan,
    conditions: Vec<Expr>,
    wanted: Option<&Wanted<'_>>,
) -> (Plan, bool) {
    let schema = plan.schema.clone();
    let mut relations = Vec::new();
    let mut loose = conditions;
    flatten(plan, 0, &mut relations, &mut loose);
    if let [_] = relations[..] {
        return match relations.pop() {
            Some(only) => (lateral(p, only.plan, loose), false),
            None => (cost::nothing(), false),
        };
    }
    let (stay, mut loose) = split(loose, is_volatile);
    // Columns of every relation, before the classes lose sight of them.
    let mut classes = equivalence::classes(&mut loose);
    for class in &mut classes {
        loose.extend(class.pinned());
        // Within one relation, equality is that relation's own condition.
        for relation in &relations {
            let inside: Vec<usize> =
                class.members.iter().copied().filter(|c| relation.columns().contains(c)).collect();
            if class.value.is_none() {
                loose.extend(inside.windows(2).map(|pair| class.equality(pair[0], pair[1])));
            }
        }
    }
    // What is pinned to a value needs no comparison any more.
    classes.retain(|class| class.value.is_none());
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
    let cluster = Cluster::new(p, relations, loose, classes);
    let walked = wanted.and_then(|wanted| cluster.walked(&schema, wanted));
    let (plan, ordered) = best(p, cluster.plan(schema), walked, wanted);
    (filtered(p, plan, stay), ordered)
}

/// The cheaper of a plan that is still to be sorted and one that comes in the wanted order and is read only
/// as far as is wanted.
fn best(p: &Planner<'_>, plan: Plan, walked: Option<Plan>, wanted: Option<&Wanted<'_>>) -> (Plan, bool) {
    let Some((wanted, walked)) = wanted.zip(walked) else { return (plan, false) };
    let limit = wanted.limit.unwrap_or(plan.rows);
    let share = (limit / plan.rows.max(1.0)).min(1.0);
    let sorted = plan.cost + cost::sort_cost(p, Size::of(&plan), limit);
    if walked.cost * share < sorted { (walked, true) } else { (plan, false) }
}

/// Takes a tree of inner joins apart. A right side that reads its left row is not loose: the join with it
/// is one relation. A left join whose added rows a condition refuses is an inner join.
fn flatten(plan: Plan, offset: usize, relations: &mut Vec<Relation>, loose: &mut Vec<Expr>) {
    match plan.node {
        Node::NestedLoop { left, right, kind, condition }
            if !right.reads_nearest_row()
                && (kind == JoinKind::Inner
                    || kind == JoinKind::Left
                        && refuses_nulls(loose, offset + left.width(), right.width())) =>
        {
            let width = left.width();
            let mut right = *right;
            right.shift_outer(-1);
            for mut condition in condition.into_iter().flat_map(conjuncts) {
                condition.map_columns(&mut |c| c + offset);
                loose.push(condition);
            }
            flatten(*left, offset, relations, loose);
            flatten(right, offset + width, relations, loose);
        }
        Node::Filter { input, condition }
            if matches!(&input.node, Node::NestedLoop { kind: JoinKind::Inner | JoinKind::Left, .. }) =>
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

/// True if some condition cannot hold where all of these columns are NULL.
fn refuses_nulls(conditions: &[Expr], start: usize, width: usize) -> bool {
    let range = start..start + width;
    conditions.iter().any(|c| !is_volatile(c) && is_never_true(c, &range))
}

/// True of a condition that is false or unknown where these columns are NULL.
fn is_never_true(condition: &Expr, nulls: &std::ops::Range<usize>) -> bool {
    match condition {
        Expr::And(operands) => operands.iter().any(|e| is_never_true(e, nulls)),
        Expr::Or(operands) => operands.iter().all(|e| is_never_true(e, nulls)),
        Expr::IsNull { input, negated: true } => is_null(input, nulls),
        Expr::IsBool { input, value: Some(_), negated: false } => is_null(input, nulls),
        Expr::InList { input, .. } => is_null(input, nulls),
        Expr::AnyAll { left, all: false, .. } => is_null(left, nulls),
        other => is_null(other, nulls),
    }
}

/// True of an expression that is NULL where these columns are.
fn is_null(e: &Expr, nulls: &std::ops::Range<usize>) -> bool {
    match e {
        Expr::Column(i, _) => nulls.contains(i),
        Expr::Call { function, args, .. } => function.strict && args.iter().any(|a| is_null(a, nulls)),
        Expr::Cast { input, .. } | Expr::Not(input) => is_null(input, nulls),
        _ => false,
    }
}

/// A join whose right side reads the left row, or any other plan that is a cluster alone.
fn lateral(p: &Planner<'_>, plan: Plan, conditions: Vec<Expr>) -> Plan {
    let schema = plan.schema.clone();
    match plan.node {
        Node::NestedLoop { left, right, kind: JoinKind::Inner, condition } => {
            let width = left.width();
            let mut conditions = conditions;
            conditions.extend(condition.into_iter().flat_map(conjuncts));
            let (stay, conditions) = split(conditions, is_volatile);
            let (to_left, rest) = split(conditions, |c| columns_of(c).iter().all(|&c| c < width));
            let (to_right, both) = split(rest, |c| columns_of(c).iter().all(|&c| c >= width));
            let left = push(p, *left, to_left);
            let right = push(p, *right, to_right.into_iter().map(|c| into_right(c, width)).collect());
            let condition = conjunction(both);
            let node = Node::NestedLoop {
                left: Box::new(left),
                right: Box::new(right),
                kind: JoinKind::Inner,
                condition,
            };
            filtered(p, cost::plan(p, node, schema), stay)
        }
        node => push(p, Plan { node, ..plan }, conditions),
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
    /// The relation that it is, if it is one alone
    alone: Option<usize>,
}

/// Lookups into a relation by some of its columns.
type Lookups = HashMap<(usize, Vec<usize>), Option<Size>>;

/// Relations that are all joined with each other, in any order.
struct Cluster<'a> {
    p: &'a Planner<'a>,
    relations: Vec<Relation>,
    /// Each relation, planned alone; taken when it is built
    alone: Vec<Plan>,
    /// Conditions over several relations
    loose: Vec<Expr>,
    classes: Vec<Class>,
    /// What is known of lookups into a relation by these of its columns
    lookups: RefCell<Lookups>,
}

impl<'a> Cluster<'a> {
    fn new(
        p: &'a Planner<'a>,
        relations: Vec<Relation>,
        loose: Vec<Expr>,
        classes: Vec<Class>,
    ) -> Cluster<'a> {
        let alone = relations.iter().map(|r| push(p, r.plan.clone(), r.conditions.clone())).collect();
        Cluster { p, relations, alone, loose, classes, lookups: RefCell::default() }
    }

    /// The whole, with the columns in the order that everyone above knows.
    fn plan(mut self, schema: Arc<[Field]>) -> Plan {
        let mut joined: Option<Joined> = None;
        let mut first = 0;
        while first < self.relations.len() {
            let last = (first + MAX_RELATIONS).min(self.relations.len());
            let tree = self.graph(first, last);
            let part = self.build(&tree, first);
            joined = Some(match joined {
                None => part,
                Some(before) => self.join(before, part, Method::Equal, None),
            });
            first = last;
        }
        match joined {
            Some(joined) => self.whole(joined, schema),
            None => cost::nothing(),
        }
    }

    /// All relations joined by walking one of them in the wanted order and looking the others up, if its
    /// indexes and theirs allow it: the best for the first few rows of many.
    fn walked(&self, schema: &Arc<[Field]>, wanted: &Wanted<'_>) -> Option<Plan> {
        wanted.limit?;
        let mut keys = Vec::with_capacity(wanted.keys.len());
        let mut home = None;
        for key in wanted.keys {
            let Expr::Column(column, ty) = &key.expr else { return None };
            let relation = self.relation_of(*column);
            if home.replace(relation).is_some_and(|other| other != relation) {
                return None;
            }
            let own = column - self.relations.get(relation)?.offset;
            keys.push(SortKey { expr: Expr::Column(own, ty.clone()), ..key.clone() });
        }
        let home = home?;
        let relation = &self.relations[home];
        Source::of(&relation.plan, &relation.conditions)?;
        let own = Wanted { keys: &keys, limit: wanted.limit };
        let (plan, ordered) =
            push_ordered(self.p, relation.plan.clone(), relation.conditions.clone(), Some(&own));
        if !ordered {
            return None;
        }
        let mut copy = Cluster {
            p: self.p,
            relations: self.relations.clone(),
            alone: self.alone.clone(),
            loose: self.loose.clone(),
            classes: self.classes.clone(),
            lookups: RefCell::default(),
        };
        let mut joined = Joined { plan, columns: relation.columns().collect(), alone: None };
        let mut rest: Vec<usize> = (0..self.relations.len()).filter(|r| *r != home).collect();
        while !rest.is_empty() {
            let known = |r: usize| !rest.contains(&r);
            let next = rest
                .iter()
                .filter_map(|&r| self.lookup(r, &known).map(|size| (r, size.rows)))
                .min_by(|a, b| a.1.total_cmp(&b.1))?
                .0;
            rest.retain(|r| *r != next);
            let plan = std::mem::replace(&mut copy.alone[next], cost::nothing());
            let right = Joined { plan, columns: self.relations[next].columns().collect(), alone: None };
            joined = copy.join(joined, right, Method::Lookup, Some(next));
        }
        let whole = copy.whole(joined, schema.clone());
        ordering::gives(&whole, wanted.keys).then_some(whole)
    }

    /// What has been joined, with its columns in the order that everyone above knows.
    fn whole(mut self, joined: Joined, schema: Arc<[Field]>) -> Plan {
        let Joined { plan, columns, .. } = joined;
        let loose = std::mem::take(&mut self.loose);
        if columns.iter().enumerate().all(|(i, &c)| i == c) {
            return filtered(self.p, Plan { schema, ..plan }, loose);
        }
        let mut places = vec![0; columns.len()];
        columns.iter().enumerate().for_each(|(place, &c)| places[c] = place);
        let exprs = places.iter().zip(schema.iter()).map(|(&i, f)| Expr::Column(i, f.ty.clone())).collect();
        let node = Node::Project { input: Box::new(plan), exprs };
        filtered(self.p, cost::plan(self.p, node, schema), loose)
    }

    /// The relation that a column of the cluster belongs to.
    fn relation_of(&self, column: usize) -> usize {
        self.relations.partition_point(|r| r.offset <= column).saturating_sub(1)
    }

    /// How many different values an expression over one relation, or several, has.
    fn distinct(&self, e: &Expr) -> f64 {
        let home = columns_of(e).first().map(|&c| self.relation_of(c));
        let Some(home) = home else { return 1.0 };
        let mut own = e.clone();
        let relation = &self.relations[home];
        if !columns_of(e).iter().all(|c| relation.columns().contains(c)) {
            return self.alone[home].rows;
        }
        own.map_columns(&mut |c| c - relation.offset);
        self.p.distinct(&own, &relation.plan.schema, self.alone[home].rows)
    }

    /// The best tree of the relations from `first` to `last`.
    fn graph(&self, first: usize, last: usize) -> Tree {
        let inside = |r: &usize| (first..last).contains(r);
        let link = |class: &Class| {
            let mut distinct: Vec<(usize, f64)> = Vec::new();
            for &column in &class.members {
                let relation = self.relation_of(column);
                if inside(&relation) && !distinct.iter().any(|(r, _)| *r == relation - first) {
                    let ty = self.relations[relation].plan.schema[column - self.relations[relation].offset]
                        .ty
                        .clone();
                    distinct.push((relation - first, self.distinct(&Expr::Column(column, ty))));
                }
            }
            Link { distinct }
        };
        let set = |e: &Expr| -> Option<join_order::Set> {
            let relations: Vec<usize> = columns_of(e).into_iter().map(|c| self.relation_of(c)).collect();
            relations.iter().all(inside).then(|| relations.iter().fold(0, |s, r| s | bit(r - first)))
        };
        let predicate = |condition: &Expr| -> Option<Predicate> {
            let relations = set(condition)?;
            let equality = match condition {
                Expr::Call { function, args, .. } if function.name == "=" => match &args[..] {
                    [a, b] if hashes_alike(&a.ty(), &b.ty()) => Some((a, b)),
                    _ => None,
                },
                _ => None,
            };
            let sides = equality.and_then(|(a, b)| Some((set(a)?, set(b)?)));
            let sides = sides.filter(|(a, b)| *a != 0 && *b != 0 && a & b == 0);
            let share = match (equality, sides) {
                (Some((a, b)), Some(_)) => 1.0 / self.distinct(a).max(self.distinct(b)).max(1.0),
                _ => self.p.selectivity(condition, &[]),
            };
            Some(Predicate { relations, share, sides })
        };
        let lookup = |relation: usize, known: join_order::Set| {
            let known = |r: usize| (first..last).contains(&r) && known & bit(r - first) != 0;
            self.lookup(relation + first, &known)
        };
        let graph = Graph {
            relations: self.alone[first..last].iter().map(Size::of).collect(),
            links: self.classes.iter().map(link).filter(|l| l.distinct.len() > 1).collect(),
            predicates: self.loose.iter().filter_map(predicate).collect(),
            lookup: &lookup,
            equal: &|left, right, rows| {
                let hash = cost::hash_cost(self.p, left, right, rows);
                if left.rows + right.rows < MERGE_ROWS && self.p.options().hashjoin {
                    return hash;
                }
                let sorted = |s: Size| Size { cost: s.cost + cost::sort_cost(self.p, s, s.rows), ..s };
                hash.min(cost::merge_cost(self.p, sorted(left), sorted(right), rows))
            },
            no_equal: !self.p.options().hashjoin && !self.p.options().mergejoin,
            loop_penalty: cost::disabled(!self.p.options().nestloop),
        };
        graph.search()
    }

    /// What one lookup into a relation costs, once the rows of others are known.
    fn lookup(&self, relation: usize, known: &dyn Fn(usize) -> bool) -> Option<Size> {
        let range = self.relations[relation].columns();
        let mut columns: Vec<usize> = Vec::new();
        for class in &self.classes {
            if class.members.iter().any(|&c| !range.contains(&c) && known(self.relation_of(c))) {
                columns.extend(class.members.iter().filter(|c| range.contains(c)));
            }
        }
        for condition in &self.loose {
            let Expr::Call { function, args, .. } = condition else { continue };
            let [a, b] = &args[..] else { continue };
            for (own, other) in [(a, b), (b, a)] {
                if function.name == "="
                    && let Some(column) = ranges::plain_column(own)
                    && range.contains(&column)
                    && columns_of(other).iter().all(|&c| !range.contains(&c) && known(self.relation_of(c)))
                {
                    columns.push(column);
                }
            }
        }
        if columns.is_empty() {
            return None;
        }
        columns.sort_unstable();
        columns.dedup();
        let offset = range.start;
        let key = (relation, columns);
        if let Some(found) = self.lookups.borrow().get(&key) {
            return *found;
        }
        let relation = &self.relations[relation];
        let keys: Vec<Expr> = key
            .1
            .iter()
            .filter_map(|&c| {
                let ty = relation.plan.schema.get(c - offset)?.ty.clone();
                let equals = crate::functions::resolve_operator("=", Some(&ty), &ty).ok()?;
                let outer = Expr::Outer { depth: 1, position: 0, ty: ty.clone() };
                let args = vec![Expr::Column(c - offset, ty), outer];
                Some(Expr::Call { function: equals.function, args, ty: amphora_storage::DataType::Bool })
            })
            .collect();
        let found = find(self.p, &relation.plan, &relation.conditions, keys);
        let size = found.map(|plan| Size::of(&plan));
        self.lookups.borrow_mut().insert(key, size);
        size
    }

    /// Builds a tree.
    fn build(&mut self, tree: &Tree, first: usize) -> Joined {
        match tree {
            Tree::Leaf(relation) => {
                let relation = relation + first;
                let plan = std::mem::replace(&mut self.alone[relation], cost::nothing());
                let columns = self.relations[relation].columns().collect();
                Joined { plan, columns, alone: Some(relation) }
            }
            Tree::Join { left, right, method, size } => {
                let left = self.build(left, first);
                let lookup = match (method, &**right) {
                    (Method::Lookup, Tree::Leaf(relation)) => Some(relation + first),
                    _ => None,
                };
                let right = self.build(right, first);
                self.join_as(left, right, *method, lookup, *size)
            }
        }
    }

    fn join_as(
        &mut self,
        left: Joined,
        right: Joined,
        method: Method,
        lookup: Option<usize>,
        size: Size,
    ) -> Joined {
        let mut joined = self.join(left, right, method, lookup);
        joined.plan.rows = size.rows;
        joined.plan.cost = size.cost;
        joined
    }

    /// Joins two parts. `lookup` is the relation that the right one is, if it is to be looked up.
    fn join(&mut self, left: Joined, right: Joined, method: Method, lookup: Option<usize>) -> Joined {
        let width = left.columns.len();
        let (left_alone, right_alone) = (left.alone, right.alone);
        let mut columns = left.columns;
        columns.extend(right.columns);
        let place: HashMap<usize, usize> = columns.iter().enumerate().map(|(i, &c)| (c, i)).collect();
        let mut conditions: Vec<Expr> = Vec::new();
        for class in &self.classes {
            let at: Vec<usize> = class.members.iter().filter_map(|c| place.get(c).copied()).collect();
            let Some(&known) = at.iter().find(|&&i| i < width) else { continue };
            let others = at.iter().filter(|&&i| i >= width);
            // One is enough, unless an index may need another.
            let count = if lookup.is_some() { at.len() } else { 1 };
            conditions.extend(others.take(count).map(|&other| class.equality(known, other)));
        }
        self.loose.retain(|condition| {
            let used = columns_of(condition);
            if !used.iter().all(|c| place.contains_key(c)) {
                return true;
            }
            let mut condition = condition.clone();
            condition.map_columns(&mut |c| place.get(&c).copied().unwrap_or(c));
            conditions.push(condition);
            false
        });
        let schema = left.plan.schema.iter().chain(right.plan.schema.iter()).cloned().collect();
        let sides = Sides::new(left.plan, right.plan, conditions, JoinKind::Inner, schema);
        let plan = match (method, lookup) {
            (Method::Lookup, Some(relation)) => {
                let Relation { plan, conditions, .. } = &self.relations[relation];
                match sides.lookup(self.p, plan, conditions) {
                    Some(found) => sides.looked_up(found),
                    None => sides.by_keys(self.p, None, None),
                }
            }
            (Method::Loop, _) => sides.looped(self.p),
            _ => {
                let source = |relation: Option<usize>| {
                    relation.and_then(|r| Source::of(&self.relations[r].plan, &self.relations[r].conditions))
                };
                sides.by_keys(self.p, source(left_alone), source(right_alone))
            }
        };
        Joined { plan, columns, alone: None }
    }
}

/// Two sides of a join, and how their rows find each other.
pub(super) struct Sides {
    pub(super) left: Plan,
    /// On the level of the whole
    pub(super) right: Plan,
    /// Equalities: the left key, the right key in its own numbering, and the condition itself
    pub(super) keys: Vec<((Expr, Expr), Expr)>,
    pub(super) others: Vec<Expr>,
    pub(super) kind: JoinKind,
    pub(super) schema: Arc<[Field]>,
}

impl Sides {
    fn new(left: Plan, right: Plan, conditions: Vec<Expr>, kind: JoinKind, schema: Arc<[Field]>) -> Sides {
        let width = left.width();
        let (mut keys, mut others) = (Vec::new(), Vec::new());
        for condition in conditions {
            match equal_sides(&condition, width) {
                Some(pair) => keys.push((pair, condition)),
                None => others.push(condition),
            }
        }
        Sides { left, right, keys, others, kind, schema }
    }

    /// By equal keys, whichever way is cheaper; every pair is looked at if there are no keys.
    fn by_keys(self, p: &Planner<'_>, left: Option<Source<'_>>, right: Option<Source<'_>>) -> Plan {
        if self.keys.is_empty() {
            return self.looped(p);
        }
        let rows = self.left.rows + self.right.rows;
        let merged = match p.options().mergejoin && (rows >= MERGE_ROWS || !p.options().hashjoin) {
            true => merge::merged(p, &self, left, right),
            false => None,
        };
        let hashed = self.hashed(p);
        merged.filter(|merged| merged.cost < hashed.cost).unwrap_or(hashed)
    }

    fn hashed(self, p: &Planner<'_>) -> Plan {
        let (left_keys, right_keys) = self.keys.into_iter().map(|(pair, _)| pair).unzip();
        let node = Node::HashJoin {
            left: Box::new(self.left),
            right: Box::new(self.right),
            kind: self.kind,
            left_keys,
            right_keys,
            condition: conjunction(self.others),
        };
        cost::plan(p, node, self.schema)
    }

    /// Every pair is looked at.
    fn looped(self, p: &Planner<'_>) -> Plan {
        let mut right = self.right;
        right.shift_outer(1);
        let mut conditions = self.others;
        conditions.extend(self.keys.into_iter().map(|(_, condition)| condition));
        let node = Node::NestedLoop {
            left: Box::new(self.left),
            right: Box::new(right),
            kind: self.kind,
            condition: conjunction(conditions),
        };
        cost::plan(p, node, self.schema)
    }

    /// The right side as it is looked up for every left row: `right` with `conditions`, by an index.
    fn lookup(&self, p: &Planner<'_>, right: &Plan, conditions: &[Expr]) -> Option<Plan> {
        let mut keys = Vec::with_capacity(self.keys.len());
        for ((l, r), condition) in &self.keys {
            let Expr::Call { function, ty, .. } = condition else { continue };
            if has_subquery(l) || has_subquery(r) {
                return None;
            }
            let mut r = r.clone();
            r.shift_outer(1);
            let args = vec![r, l.clone().into_outer()];
            keys.push(Expr::Call { function, args, ty: ty.clone() });
        }
        find(p, right, conditions, keys)
    }

    fn looked_up(self, found: Plan) -> Plan {
        let rows = cost::joined_rows(self.left.rows, self.left.rows * found.rows, self.kind);
        let cost = self.left.cost + self.left.rows.max(1.0) * found.cost + rows * cost::EVALUATE;
        let node = Node::NestedLoop {
            left: Box::new(self.left),
            right: Box::new(found),
            kind: self.kind,
            condition: conjunction(self.others),
        };
        Plan { node, schema: self.schema, rows, cost }
    }
}

/// The cheapest way to join two sides. `right` with `right_conditions` is what its plan was made of; both
/// are on the level of the whole.
fn join_sides(
    p: &Planner<'_>,
    sides: Sides,
    left: Option<Source<'_>>,
    right: &Plan,
    right_conditions: &[Expr],
) -> Plan {
    if sides.keys.is_empty() {
        return sides.looped(p);
    }
    let can_loop = !matches!(sides.kind, JoinKind::Right | JoinKind::Full);
    let lookup = if can_loop { sides.lookup(p, right, right_conditions) } else { None };
    let (before, left_rows) = (Size::of(&sides.left), sides.left.rows.max(1.0));
    if can_loop && !p.options().hashjoin && !p.options().mergejoin && p.options().nestloop {
        return match lookup {
            Some(found) => sides.looked_up(found),
            None => sides.looped(p),
        };
    }
    if let Some(found) = lookup {
        let cost =
            before.cost + left_rows * (found.cost + cost::EVALUATE) + cost::disabled(!p.options().nestloop);
        if cost < cost::hash_cost(p, before, Size::of(&sides.right), before.rows) {
            return sides.looked_up(found);
        }
    }
    sides.by_keys(p, left, Source::of(right, right_conditions))
}

/// A scan of `right` under its own conditions and these keys, which read the row outside; `None` if no index
/// helps.
fn find(p: &Planner<'_>, right: &Plan, right_conditions: &[Expr], keys: Vec<Expr>) -> Option<Plan> {
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
    conditions.extend(keys);
    let (mut found, _) = access::access(p, scan.clone(), base, conditions, None);
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
    Some(found)
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

pub(super) fn hashes_alike(a: &amphora_storage::DataType, b: &amphora_storage::DataType) -> bool {
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

/// Plans an outer join, with conditions over its output. True if it comes in the wanted order.
pub(super) fn outer(
    p: &Planner<'_>,
    left: Plan,
    right: Plan,
    (kind, condition): (JoinKind, Option<Expr>),
    conditions: Vec<Expr>,
    schema: Arc<[Field]>,
    wanted: Option<&Wanted<'_>>,
) -> (Plan, bool) {
    let width = left.width();
    if kind == JoinKind::Left
        && !right.reads_nearest_row()
        && refuses_nulls(&conditions, width, right.width())
    {
        let (left, right) = (Box::new(left), Box::new(right));
        let node = Node::NestedLoop { left, right, kind: JoinKind::Inner, condition };
        return inner(p, cost::unplanned(node, schema), conditions, wanted);
    }
    let on: Vec<Expr> = condition.into_iter().flat_map(conjuncts).collect();
    match kind {
        JoinKind::Right => (mirrored(p, left, right, on, conditions, schema), false),
        JoinKind::Left | JoinKind::Semi | JoinKind::Anti => {
            // A question for every row is better asked of the rows that a semi join leaves.
            let late =
                |c: &Expr| matches!(kind, JoinKind::Semi | JoinKind::Anti) && has_correlated_subquery(c);
            let (down, stay) = split(conditions, |c| {
                !is_volatile(c) && !late(c) && columns_of(c).iter().all(|&c| c < width)
            });
            let (mut to_right, both) = split(on, |c| {
                let columns = columns_of(c);
                !is_volatile(c) && !columns.is_empty() && columns.iter().all(|&c| c >= width)
            });
            // A value that a left key has, its right partner has too.
            let mut known: Vec<Expr> = both.iter().chain(&down).cloned().collect();
            let classes = equivalence::classes(&mut known);
            let pinned = classes.iter().flat_map(Class::pinned);
            to_right.extend(pinned.filter(|c| columns_of(c).iter().all(|&c| c >= width)));
            let unplanned = Source::of(&left, &down).is_some().then(|| (left.clone(), down.clone()));
            let left = push(p, left, down);
            if right.reads_nearest_row() {
                let right = push(p, right, to_right.into_iter().map(|c| into_right(c, width)).collect());
                let node = Node::NestedLoop {
                    left: Box::new(left),
                    right: Box::new(right),
                    kind,
                    condition: conjunction(both),
                };
                return (filtered(p, cost::plan(p, node, schema), stay), false);
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
            let alone = push(p, right.clone(), own.clone());
            let source = unplanned.as_ref().and_then(|(plan, conditions)| Source::of(plan, conditions));
            let walked =
                wanted.filter(|w| w.limit.is_some()).zip(unplanned.as_ref()).and_then(|(w, left)| {
                    let (left, ordered) = push_ordered(p, left.0.clone(), left.1.clone(), Some(w));
                    let sides = Sides::new(left, alone.clone(), both.clone(), kind, schema.clone());
                    let found = sides.lookup(p, &right, &own).filter(|_| ordered)?;
                    Some(sides.looked_up(found)).filter(|plan| ordering::gives(plan, w.keys))
                });
            let sides = Sides::new(left, alone, both, kind, schema);
            let (plan, ordered) = best(p, join_sides(p, sides, source, &right, &own), walked, wanted);
            (filtered(p, plan, stay), ordered)
        }
        _ => {
            let unplanned = Source::of(&left, &[]).is_some().then(|| left.clone());
            let left = push(p, left, Vec::new());
            let mut right = right;
            right.shift_outer(-1);
            let alone = push(p, right.clone(), Vec::new());
            let sides = Sides::new(left, alone, on, kind, schema);
            let source = unplanned.as_ref().and_then(|plan| Source::of(plan, &[]));
            (filtered(p, join_sides(p, sides, source, &right, &[]), conditions), false)
        }
    }
}

/// A right join is a left join seen from the other side.
fn mirrored(
    p: &Planner<'_>,
    left: Plan,
    right: Plan,
    on: Vec<Expr>,
    conditions: Vec<Expr>,
    schema: Arc<[Field]>,
) -> Plan {
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
    let how = (JoinKind::Left, conjunction(swapped(on)));
    let (plan, _) = outer(p, right, left, how, swapped(conditions), swapped_schema, None);
    let exprs = schema.iter().enumerate().map(|(c, field)| Expr::Column(swap(c), field.ty.clone())).collect();
    cost::plan(p, Node::Project { input: Box::new(plan), exprs }, schema)
}

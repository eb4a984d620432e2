//! Walking bound expressions and plans.
//!
//! The one difficulty is *levels*. A plan under a subquery, or on the right of a nested loop, runs once
//! for every row of something outside it and sees that row as [`Expr::Outer`]:
//!
//! ```text
//!   level 0   Filter(condition: #2 = (subquery))          #2 is Column(2) of this row
//!   level 1     └─ TableScan(filter: #0 = outer(1).2)     the same value: Outer { depth: 1, position: 2 }
//!   level 2          └─ … (subquery) … outer(2).2         and again, one level further in
//! ```
//!
//! So a reference seen at level `n` is to the starting row if its depth is `n`, to something further out
//! if it is more, and is the subplan's own affair if it is less. A `Column` is a reference of depth 0.

use std::sync::Arc;

use crate::expr::{Expr, SubqueryKind};
use crate::plan::{Aggregate, Node, Plan, ProjectItem, ScanRange, SortKey};

macro_rules! children {
    ($name:ident, $iter:ident $(, $m:tt)?) => {
        /// Calls `f` with every direct operand. A subquery's plan is not entered.
        pub fn $name(&$($m)? self, f: &mut dyn FnMut(&$($m)? Expr)) {
            match self {
                Expr::Literal(..) | Expr::Column(..) | Expr::Outer { .. } | Expr::Parameter(..) => {}
                Expr::Call { args, .. } | Expr::Extreme { args, .. } => args.$iter().for_each(f),
                Expr::Coalesce(args, _) | Expr::And(args) | Expr::Or(args) | Expr::Row(args) => {
                    args.$iter().for_each(f)
                }
                Expr::Array { items, .. } => items.$iter().for_each(f),
                Expr::Cast { input, .. }
                | Expr::Domain { input, .. }
                | Expr::IsNull { input, .. }
                | Expr::IsBool { input, .. }
                | Expr::Not(input) => f(input),
                Expr::IsDistinct { left, right, .. } => {
                    f(left);
                    f(right);
                }
                Expr::Case { branches, otherwise, .. } => {
                    for (condition, value) in branches {
                        f(condition);
                        f(value);
                    }
                    f(otherwise);
                }
                Expr::InList { input, list, .. } => {
                    f(input);
                    list.$iter().for_each(f);
                }
                Expr::AnyAll { left, array, .. } => {
                    f(left);
                    f(array);
                }
                Expr::Subscript { array, index, .. } => {
                    f(array);
                    f(index);
                }
                Expr::Subquery(subquery) => {
                    if let SubqueryKind::AnyAll { left, .. } = &$($m)? subquery.kind {
                        f(left);
                    }
                }
            }
        }
    };
}

impl Expr {
    children!(children, iter);
    children!(children_mut, iter_mut, mut);

    /// Calls `f` with every reference to a row, and the level it stands on, `level` being this
    /// expression's own. References inside subplans to their own rows are left out.
    pub fn references(&self, level: usize, f: &mut dyn FnMut(&Expr, usize)) {
        match self {
            Expr::Column(..) if level > 0 => {}
            Expr::Column(..) | Expr::Outer { .. } => f(self, level),
            _ => {
                self.children(&mut |e| e.references(level, f));
                if let Expr::Subquery(subquery) = self {
                    subquery.plan.references(level + 1, f);
                }
            }
        }
    }

    /// Like [`Expr::references`]; `f` may replace what it is given.
    pub fn references_mut(&mut self, level: usize, f: &mut dyn FnMut(&mut Expr, usize)) {
        match self {
            Expr::Column(..) if level > 0 => {}
            Expr::Column(..) | Expr::Outer { .. } => f(self, level),
            _ => {
                self.children_mut(&mut |e| e.references_mut(level, f));
                if let Expr::Subquery(subquery) = self {
                    Arc::make_mut(&mut subquery.plan).references_mut(level + 1, f);
                }
            }
        }
    }

    /// Calls `f` with the position of every column of the input row that this expression needs, its
    /// subqueries included.
    pub fn columns(&self, f: &mut dyn FnMut(usize)) {
        self.references(0, &mut |e, level| match e {
            Expr::Column(position, _) => f(*position),
            Expr::Outer { depth, position, .. } if *depth == level && level > 0 => f(*position),
            _ => {}
        });
    }

    /// Replaces the position of every column of the input row.
    pub fn map_columns(&mut self, f: &mut dyn FnMut(usize) -> usize) {
        self.references_mut(0, &mut |e, level| match e {
            Expr::Column(position, _) => *position = f(*position),
            Expr::Outer { depth, position, .. } if *depth == level && level > 0 => *position = f(*position),
            _ => {}
        });
    }

    /// Adds `delta` to the depth of every reference to a row outside this expression's own.
    pub fn shift_outer(&mut self, delta: isize) {
        if delta != 0 {
            self.references_mut(0, &mut |e, level| shift(e, level, delta));
        }
    }

    /// The same expression one level further in: its columns become columns of the nearest outer row.
    pub fn into_outer(mut self) -> Expr {
        self.references_mut(0, &mut |e, level| match e {
            Expr::Column(position, ty) => *e = Expr::Outer { depth: 1, position: *position, ty: ty.clone() },
            Expr::Outer { depth, .. } if *depth >= level => *depth += 1,
            _ => {}
        });
        self
    }

    /// True if it reads no column of the input row.
    pub fn is_row_free(&self) -> bool {
        let mut free = true;
        self.columns(&mut |_| free = false);
        free
    }

    /// True if this or any operand, not entering subplans, satisfies `f`.
    pub fn any(&self, f: &mut dyn FnMut(&Expr) -> bool) -> bool {
        let mut found = f(self);
        if !found {
            self.children(&mut |e| found = found || e.any(f));
        }
        found
    }

    /// Calls `f` with this and every operand, operands first, entering subplans too.
    pub fn visit_mut(&mut self, f: &mut dyn FnMut(&mut Expr)) {
        self.children_mut(&mut |e| e.visit_mut(f));
        if let Expr::Subquery(subquery) = self {
            Arc::make_mut(&mut subquery.plan).visit_exprs_mut(f);
        }
        f(self);
    }
}

/// Shifts a reference that points beyond `level`.
fn shift(e: &mut Expr, level: usize, delta: isize) {
    if let Expr::Outer { depth, .. } = e
        && *depth > level
    {
        *depth = depth.saturating_add_signed(delta);
    }
}

macro_rules! node_parts {
    ($exprs:ident, $inputs:ident, $iter:ident, $range:ident, $keys:ident, $aggregate:ident $(, $m:tt)?) => {
        /// Calls `f` with every expression of this operator.
        pub fn $exprs(&$($m)? self, f: &mut dyn FnMut(&$($m)? Expr)) {
            match self {
                Node::Values(rows) => rows.$iter().for_each(|row| row.$iter().for_each(&mut *f)),
                Node::TableScan(scan) => {
                    for range in &$($m)? scan.ranges {
                        $range(range, f);
                    }
                    scan.filter.$iter().for_each(f);
                }
                Node::SystemScan { equal, .. } => equal.$iter().for_each(|(_, e)| f(e)),
                Node::FunctionScan { args, .. } => args.$iter().for_each(f),
                Node::CteScan(_) | Node::WorkTable(_) | Node::Append(_) => {}
                Node::SetOperation { .. } | Node::Recursive { .. } | Node::Lock { .. } => {}
                Node::Filter { condition, .. } => f(condition),
                Node::Project { exprs, .. } => exprs.$iter().for_each(f),
                Node::ProjectSet { exprs, .. } => {
                    for item in exprs {
                        match item {
                            ProjectItem::Scalar(e) => f(e),
                            ProjectItem::Set { args, .. } => args.$iter().for_each(&mut *f),
                        }
                    }
                }
                Node::NestedLoop { condition, .. } => condition.$iter().for_each(f),
                Node::HashJoin { left_keys, right_keys, condition, .. } => {
                    left_keys.$iter().for_each(&mut *f);
                    right_keys.$iter().for_each(&mut *f);
                    condition.$iter().for_each(f);
                }
                Node::MergeJoin { left_keys, right_keys, condition, .. } => {
                    $keys(left_keys, &mut *f);
                    $keys(right_keys, &mut *f);
                    condition.$iter().for_each(f);
                }
                Node::Aggregate { keys, aggregates, .. } => {
                    keys.$iter().for_each(&mut *f);
                    aggregates.$iter().for_each(|a| $aggregate(a, f));
                }
                Node::Window { functions, .. } => {
                    functions.$iter().for_each(|call| call.$exprs(f));
                }
                Node::Sort { keys, limit, .. } => {
                    $keys(keys, f);
                    limit.$iter().for_each(f);
                }
                Node::Limit { limit, offset, .. } => {
                    limit.$iter().for_each(&mut *f);
                    offset.$iter().for_each(f);
                }
                Node::Distinct { on, .. } => on.$iter().for_each(f),
            }
        }

        /// Calls `f` with every input, and whether it runs anew for each row of its sibling, one level in.
        pub fn $inputs(&$($m)? self, f: &mut dyn FnMut(&$($m)? Plan, bool)) {
            match self {
                Node::Values(_)
                | Node::TableScan(_)
                | Node::SystemScan { .. }
                | Node::FunctionScan { .. }
                | Node::CteScan(_)
                | Node::WorkTable(_) => {}
                Node::Filter { input, .. }
                | Node::Project { input, .. }
                | Node::ProjectSet { input, .. }
                | Node::Aggregate { input, .. }
                | Node::Window { input, .. }
                | Node::Sort { input, .. }
                | Node::Limit { input, .. }
                | Node::Distinct { input, .. }
                | Node::Lock { input, .. } => f(input, false),
                Node::NestedLoop { left, right, .. } => {
                    f(left, false);
                    f(right, true);
                }
                Node::HashJoin { left, right, .. }
                | Node::MergeJoin { left, right, .. }
                | Node::SetOperation { left, right, .. } => {
                    f(left, false);
                    f(right, false);
                }
                Node::Append(inputs) => inputs.$iter().for_each(|p| f(p, false)),
                Node::Recursive { base, step, .. } => {
                    f(base, false);
                    f(step, false);
                }
            }
        }
    };
}

fn range_exprs(range: &ScanRange, f: &mut dyn FnMut(&Expr)) {
    range.prefix.iter().for_each(&mut *f);
    range.lower.iter().chain(&range.upper).for_each(|(e, _)| f(e));
}

fn range_exprs_mut(range: &mut ScanRange, f: &mut dyn FnMut(&mut Expr)) {
    range.prefix.iter_mut().for_each(&mut *f);
    range.lower.iter_mut().chain(&mut range.upper).for_each(|(e, _)| f(e));
}

fn key_exprs(keys: &[SortKey], f: &mut dyn FnMut(&Expr)) {
    keys.iter().for_each(|k| f(&k.expr));
}

fn key_exprs_mut(keys: &mut [SortKey], f: &mut dyn FnMut(&mut Expr)) {
    keys.iter_mut().for_each(|k| f(&mut k.expr));
}

fn aggregate_exprs(aggregate: &Aggregate, f: &mut dyn FnMut(&Expr)) {
    aggregate.args.iter().chain(&aggregate.filter).for_each(&mut *f);
    key_exprs(&aggregate.order_by, f);
}

fn aggregate_exprs_mut(aggregate: &mut Aggregate, f: &mut dyn FnMut(&mut Expr)) {
    aggregate.args.iter_mut().chain(&mut aggregate.filter).for_each(&mut *f);
    key_exprs_mut(&mut aggregate.order_by, f);
}

impl Node {
    node_parts!(exprs, inputs, iter, range_exprs, key_exprs, aggregate_exprs);
    node_parts!(exprs_mut, inputs_mut, iter_mut, range_exprs_mut, key_exprs_mut, aggregate_exprs_mut, mut);
}

impl Plan {
    /// Calls `f` with every [`Expr::Outer`] and the level it stands on, `level` being this plan's own.
    pub fn references(&self, level: usize, f: &mut dyn FnMut(&Expr, usize)) {
        self.node.exprs(&mut |e| {
            e.references(level, &mut |e, l| {
                if matches!(e, Expr::Outer { .. }) {
                    f(e, l);
                }
            });
        });
        self.node.inputs(&mut |plan, nested| plan.references(level + usize::from(nested), f));
    }

    /// Like [`Plan::references`]; `f` may replace what it is given.
    pub fn references_mut(&mut self, level: usize, f: &mut dyn FnMut(&mut Expr, usize)) {
        self.node.exprs_mut(&mut |e| {
            e.references_mut(level, &mut |e, l| {
                if matches!(e, Expr::Outer { .. }) {
                    f(e, l);
                }
            });
        });
        self.node.inputs_mut(&mut |plan, nested| plan.references_mut(level + usize::from(nested), f));
    }

    /// Adds `delta` to the depth of every reference to rows outside this plan.
    pub fn shift_outer(&mut self, delta: isize) {
        if delta != 0 {
            self.references_mut(0, &mut |e, level| shift(e, level, delta));
        }
    }

    /// True if it reads the row of the nested loop (or subquery expression) that it stands under.
    pub fn reads_nearest_row(&self) -> bool {
        let mut found = false;
        self.references(1, &mut |e, level| {
            found |= matches!(e, Expr::Outer { depth, .. } if *depth == level);
        });
        found
    }

    /// True if it reads any row outside itself.
    pub fn is_correlated(&self) -> bool {
        let mut found = false;
        self.references(0, &mut |e, level| {
            found |= matches!(e, Expr::Outer { depth, .. } if *depth > level);
        });
        found
    }

    /// Calls `f` with every expression and operand of this plan, operands first, subplans included.
    pub fn visit_exprs_mut(&mut self, f: &mut dyn FnMut(&mut Expr)) {
        self.node.exprs_mut(&mut |e| e.visit_mut(f));
        self.node.inputs_mut(&mut |plan, _| plan.visit_exprs_mut(f));
    }

    /// The number of output columns.
    pub fn width(&self) -> usize {
        self.schema.len()
    }
}

/// True of two expressions that are written alike, and so give the same value on the same row.
pub fn same_expr(a: &Expr, b: &Expr) -> bool {
    let all = |a: &[Expr], b: &[Expr]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_expr(a, b));
    match (a, b) {
        (Expr::Literal(a, t), Expr::Literal(b, u)) => t == u && a == b,
        (Expr::Column(a, _), Expr::Column(b, _)) => a == b,
        (Expr::Parameter(a, t), Expr::Parameter(b, u)) => a == b && t == u,
        (Expr::Outer { depth: d, position: p, .. }, Expr::Outer { depth: e, position: q, .. }) => {
            d == e && p == q
        }
        (Expr::Call { function: f, args: a, .. }, Expr::Call { function: g, args: b, .. }) => {
            std::ptr::eq(*f, *g) && all(a, b)
        }
        (
            Expr::Cast { input: a, to: t, explicit: x, .. },
            Expr::Cast { input: b, to: u, explicit: y, .. },
        ) => t == u && x == y && same_expr(a, b),
        (Expr::And(a), Expr::And(b)) | (Expr::Or(a), Expr::Or(b)) | (Expr::Row(a), Expr::Row(b)) => all(a, b),
        (Expr::Not(a), Expr::Not(b)) => same_expr(a, b),
        (Expr::IsNull { input: a, negated: n }, Expr::IsNull { input: b, negated: m }) => {
            n == m && same_expr(a, b)
        }
        (
            Expr::IsBool { input: a, value: v, negated: n },
            Expr::IsBool { input: b, value: w, negated: m },
        ) => n == m && v == w && same_expr(a, b),
        (
            Expr::IsDistinct { left: a, right: b, negated: n },
            Expr::IsDistinct { left: c, right: d, negated: m },
        ) => n == m && same_expr(a, c) && same_expr(b, d),
        (Expr::Case { branches: a, otherwise: o, .. }, Expr::Case { branches: b, otherwise: p, .. }) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| same_expr(&a.0, &b.0) && same_expr(&a.1, &b.1))
                && same_expr(o, p)
        }
        (Expr::Coalesce(a, _), Expr::Coalesce(b, _)) => all(a, b),
        (Expr::Extreme { greatest: g, args: a, .. }, Expr::Extreme { greatest: h, args: b, .. }) => {
            g == h && all(a, b)
        }
        (Expr::InList { input: a, list: l, negated: n }, Expr::InList { input: b, list: k, negated: m }) => {
            n == m && same_expr(a, b) && all(l, k)
        }
        (
            Expr::AnyAll { left: a, function: f, array: x, all: n },
            Expr::AnyAll { left: b, function: g, array: y, all: m },
        ) => n == m && std::ptr::eq(*f, *g) && same_expr(a, b) && same_expr(x, y),
        (Expr::Array { items: a, .. }, Expr::Array { items: b, .. }) => all(a, b),
        (Expr::Subscript { array: a, index: i, .. }, Expr::Subscript { array: b, index: j, .. }) => {
            same_expr(a, b) && same_expr(i, j)
        }
        _ => false,
    }
}

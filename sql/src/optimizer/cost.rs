//! Estimated rows and costs, in PostgreSQL's unit: one sequential page read.

use std::sync::Arc;

use super::planner::Planner;
use crate::expr::Expr;
use crate::plan::{Field, JoinKind, Node, Plan};

/// Reading one row of a scan.
pub(super) const ROW: f64 = 0.02;
/// Finding the place in an index.
pub(super) const LOOKUP: f64 = 0.2;
/// Fetching the row that a secondary index's entry points to, many at a time.
pub(super) const FETCH: f64 = 0.1;
/// Evaluating a condition or projection on one row.
pub(super) const EVALUATE: f64 = 0.0025;
/// Putting one row into a hash table.
pub(super) const BUILD: f64 = 0.015;
/// Looking one row up in a hash table.
pub(super) const PROBE: f64 = 0.0075;
/// Writing one row to a temporary file and reading it back.
const SPILL: f64 = 0.04;
/// Bytes that a value of a type without a fixed length is taken to have in memory, beside its datum.
const VARIABLE: f64 = 16.0;
/// What PostgreSQL adds to the cost of an operator that the session does not want.
pub(super) const DISABLED: f64 = 1e10;

/// A plan without rows, to leave in the place of one that was taken.
pub(super) fn nothing() -> Plan {
    Plan { node: Node::Values(Vec::new()), schema: Arc::from([]), rows: 0.0, cost: 0.0 }
}

/// A plan that will be estimated later.
pub(super) fn unplanned(node: Node, schema: Arc<[Field]>) -> Plan {
    Plan { node, schema, rows: 0.0, cost: 0.0 }
}

/// A plan with its estimates.
pub(super) fn plan(p: &Planner<'_>, node: Node, schema: Arc<[Field]>) -> Plan {
    let (rows, cost) = estimate(p, &node);
    Plan { node, schema, rows, cost }
}

/// Rows and cost of an operator from those of its inputs. Scans of tables are estimated where their
/// access path is chosen.
fn estimate(p: &Planner<'_>, node: &Node) -> (f64, f64) {
    match node {
        Node::Values(rows) => (rows.len() as f64, rows.len() as f64 * EVALUATE),
        Node::TableScan(scan) => {
            let rows = p.table_rows(&scan.table);
            (rows, rows * ROW)
        }
        Node::SystemScan { equal, .. } => {
            let rows = if equal.is_empty() { 100.0 } else { 5.0 };
            (rows, rows * ROW)
        }
        Node::FunctionScan { .. } => (100.0, 100.0 * EVALUATE),
        Node::CteScan(_) | Node::WorkTable(_) => (100.0, 100.0 * EVALUATE),
        Node::Filter { input, condition } => {
            let share = p.selectivity(condition, &input.schema);
            ((input.rows * share).max(1.0), input.cost + input.rows * EVALUATE)
        }
        Node::Project { input, .. } | Node::Window { input, .. } | Node::Lock { input, .. } => {
            (input.rows, input.cost + input.rows * EVALUATE)
        }
        Node::ProjectSet { input, .. } => (input.rows * 10.0, input.cost + input.rows * EVALUATE * 10.0),
        Node::NestedLoop { left, right, kind, condition } => {
            let share = condition.as_ref().map_or(1.0, |c| p.selectivity(c, &both(left, right)));
            let rows = joined_rows(left.rows, left.rows * right.rows * share, *kind);
            let again = if right.reads_nearest_row() { left.rows.max(1.0) } else { 1.0 };
            let cost = left.cost + again * right.cost + left.rows * right.rows * EVALUATE;
            (rows, cost + disabled(!p.options().nestloop))
        }
        Node::HashJoin { left, right, kind, left_keys, right_keys, condition } => {
            let mut share = condition.as_ref().map_or(1.0, |c| p.selectivity(c, &both(left, right)));
            for (l, r) in left_keys.iter().zip(right_keys) {
                share *= p.equi_join((l, &left.schema, left.rows), (r, &right.schema, right.rows));
            }
            let rows = joined_rows(left.rows, left.rows * right.rows * share, *kind);
            (rows, hash_cost(p, Size::of(left), Size::of(right), rows))
        }
        Node::MergeJoin { left, right, kind, left_keys, right_keys, condition } => {
            let mut share = condition.as_ref().map_or(1.0, |c| p.selectivity(c, &both(left, right)));
            for (l, r) in left_keys.iter().zip(right_keys) {
                share *=
                    p.equi_join((&l.expr, &left.schema, left.rows), (&r.expr, &right.schema, right.rows));
            }
            let rows = joined_rows(left.rows, left.rows * right.rows * share, *kind);
            (rows, merge_cost(p, Size::of(left), Size::of(right), rows))
        }
        Node::Aggregate { input, keys, sorted, .. } => {
            let rows = p.groups(keys, &input.schema, input.rows);
            (rows, input.cost + group_cost(p, Size::of(input), rows, *sorted) + rows * EVALUATE)
        }
        Node::Sort { input, limit, .. } => {
            let kept = limit.as_ref().and_then(count).unwrap_or(input.rows).min(input.rows);
            (kept, input.cost + sort_cost(p, Size::of(input), kept))
        }
        Node::Limit { input, limit, .. } => {
            let rows =
                limit.as_ref().map_or(input.rows, |l| count(l).unwrap_or(input.rows / 10.0)).min(input.rows);
            let share = if input.rows > 0.0 { rows / input.rows } else { 1.0 };
            // Only what is pulled is paid, where the input can stop early.
            let cost = if stops_early(&input.node) { input.cost * share } else { input.cost };
            (rows, cost)
        }
        Node::Distinct { input, on, sorted } => {
            let rows = p.groups(on, &input.schema, input.rows);
            (rows, input.cost + group_cost(p, Size::of(input), rows, *sorted))
        }
        Node::Append(inputs) => (inputs.iter().map(|p| p.rows).sum(), inputs.iter().map(|p| p.cost).sum()),
        Node::SetOperation { left, right, .. } => {
            (left.rows, left.cost + right.cost + (left.rows + right.rows) * BUILD)
        }
        Node::Recursive { base, step, .. } => (base.rows * 10.0, base.cost + step.cost * 10.0),
    }
}

/// How much there is of something, and what it costs to have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) rows: f64,
    pub(super) cost: f64,
    /// Bytes of a row in memory
    pub(super) width: f64,
}

impl Size {
    pub(super) fn of(plan: &Plan) -> Size {
        Size { rows: plan.rows, cost: plan.cost, width: width(&plan.schema) }
    }

    fn fits(&self, p: &Planner<'_>) -> bool {
        self.rows * self.width <= p.options().work_memory as f64
    }
}

/// Bytes of a row in memory, about.
pub(super) fn width(schema: &[Field]) -> f64 {
    let value = |f: &Field| if f.ty.len() > 0 { 0.0 } else { VARIABLE };
    schema.iter().map(|f| std::mem::size_of::<amphora_storage::Datum>() as f64 + value(f)).sum::<f64>() + 24.0
}

/// The cost of a hash join of two inputs.
pub(super) fn hash_cost(p: &Planner<'_>, left: Size, right: Size, rows: f64) -> f64 {
    let files = if right.fits(p) { 0.0 } else { (left.rows + right.rows) * SPILL };
    left.cost
        + right.cost
        + right.rows * BUILD
        + left.rows * PROBE
        + rows * EVALUATE
        + files
        + disabled(!p.options().hashjoin)
}

/// The cost of a merge join of two inputs that are ordered.
pub(super) fn merge_cost(p: &Planner<'_>, left: Size, right: Size, rows: f64) -> f64 {
    left.cost
        + right.cost
        + (left.rows + right.rows) * EVALUATE * 2.0
        + rows * EVALUATE
        + disabled(!p.options().mergejoin)
}

/// What sorting costs, if so many rows are kept.
pub(super) fn sort_cost(p: &Planner<'_>, input: Size, kept: f64) -> f64 {
    let kept = Size { rows: kept.min(input.rows), ..input };
    let files = if kept.fits(p) { 0.0 } else { input.rows * SPILL };
    input.rows * kept.rows.max(2.0).log2() * EVALUATE * 2.0 + files + disabled(!p.options().sort)
}

/// What it costs to make so many groups.
pub(super) fn group_cost(p: &Planner<'_>, input: Size, groups: f64, sorted: bool) -> f64 {
    if sorted {
        return input.rows * EVALUATE * 2.0;
    }
    let files = if (Size { rows: groups, ..input }).fits(p) { 0.0 } else { input.rows * SPILL };
    input.rows * BUILD + files + disabled(!p.options().hashagg)
}

/// What an unwanted operator costs more.
pub(super) fn disabled(unwanted: bool) -> f64 {
    if unwanted { DISABLED } else { 0.0 }
}

/// The columns of a join's condition.
fn both(left: &Plan, right: &Plan) -> Vec<Field> {
    left.schema.iter().chain(right.schema.iter()).cloned().collect()
}

/// The rows of a join that has so many matches.
pub(super) fn joined_rows(left: f64, matches: f64, kind: JoinKind) -> f64 {
    match kind {
        JoinKind::Inner => matches.max(1.0),
        JoinKind::Left | JoinKind::Full | JoinKind::Right => matches.max(left),
        // Whether a left row has a match, if it has so many on average.
        JoinKind::Semi => matches.min(left).max(1.0),
        JoinKind::Anti => (left - matches.min(left) * 0.9).max(1.0),
    }
}

/// False of operators that must see all rows before they give one.
fn stops_early(node: &Node) -> bool {
    match node {
        Node::Aggregate { input, sorted: true, .. } => stops_early(&input.node),
        Node::Sort { .. } | Node::Aggregate { .. } | Node::Window { .. } | Node::SetOperation { .. } => false,
        Node::Filter { input, .. } | Node::Project { input, .. } | Node::Lock { input, .. } => {
            stops_early(&input.node)
        }
        _ => true,
    }
}

/// A row count that is a constant.
pub(super) fn count(e: &Expr) -> Option<f64> {
    match e {
        Expr::Literal(value, _) => value.as_i64().map(|n| n.max(0) as f64),
        _ => None,
    }
}

//! Estimated rows and costs, in PostgreSQL's unit: one sequential page read.

use std::sync::Arc;

use amphora_storage::Datum;

use crate::expr::Expr;
use crate::plan::{Field, JoinKind, Node, Plan};

/// Rows of a table of which nothing is known.
pub(super) const TABLE_ROWS: f64 = 1000.0;
/// Reading one row of a scan.
pub(super) const ROW: f64 = 0.02;
/// Finding the place in an index.
pub(super) const LOOKUP: f64 = 0.1;
/// Fetching the row that a secondary index's entry points to.
pub(super) const FETCH: f64 = 0.1;
/// Evaluating a condition or projection on one row.
const EVALUATE: f64 = 0.0025;
/// Putting one row into a hash table.
pub(super) const BUILD: f64 = 0.01;
/// Share of rows that `=` keeps.
pub(super) const EQUAL: f64 = 0.01;
/// Share of rows that one bound keeps.
pub(super) const BOUND: f64 = 1.0 / 3.0;

/// A plan without rows, to leave in the place of one that was taken.
pub(super) fn nothing() -> Plan {
    Plan { node: Node::Values(Vec::new()), schema: Arc::from([]), rows: 0.0, cost: 0.0 }
}

/// A plan with its estimates.
pub(super) fn plan(node: Node, schema: Arc<[Field]>) -> Plan {
    let (rows, cost) = estimate(&node);
    Plan { node, schema, rows, cost }
}

/// The share of rows that a condition keeps.
pub(super) fn selectivity(condition: &Expr) -> f64 {
    match condition {
        Expr::And(operands) => operands.iter().map(selectivity).product(),
        Expr::Or(operands) => 1.0 - operands.iter().map(|e| 1.0 - selectivity(e)).product::<f64>(),
        Expr::Not(input) => 1.0 - selectivity(input),
        Expr::Literal(Datum::Bool(true), _) => 1.0,
        Expr::Literal(..) => 0.0,
        Expr::Call { function, .. } => match function.name {
            "=" => EQUAL,
            "<>" => 1.0 - EQUAL,
            "<" | "<=" | ">" | ">=" => BOUND,
            "~~" | "~" | "~~*" | "~*" => 0.05,
            _ => 0.25,
        },
        Expr::InList { list, negated, .. } => {
            let share = (list.len() as f64 * EQUAL).min(0.5);
            if *negated { 1.0 - share } else { share }
        }
        Expr::IsNull { negated, .. } => {
            if *negated {
                0.99
            } else {
                0.01
            }
        }
        Expr::AnyAll { .. } => 0.05,
        _ => 0.5,
    }
}

/// Rows and cost of an operator from those of its inputs. Scans of tables are estimated where their
/// access path is chosen.
pub(super) fn estimate(node: &Node) -> (f64, f64) {
    match node {
        Node::Values(rows) => (rows.len() as f64, rows.len() as f64 * EVALUATE),
        Node::TableScan(_) => (TABLE_ROWS, TABLE_ROWS * ROW),
        Node::SystemScan { equal, .. } => {
            let rows = if equal.is_empty() { 100.0 } else { 5.0 };
            (rows, rows * ROW)
        }
        Node::FunctionScan { .. } => (100.0, 100.0 * EVALUATE),
        Node::CteScan(_) | Node::WorkTable(_) => (100.0, 100.0 * EVALUATE),
        Node::Filter { input, condition } => {
            ((input.rows * selectivity(condition)).max(1.0), input.cost + input.rows * EVALUATE)
        }
        Node::Project { input, .. } | Node::Window { input, .. } | Node::Lock { input, .. } => {
            (input.rows, input.cost + input.rows * EVALUATE)
        }
        Node::ProjectSet { input, .. } => (input.rows * 10.0, input.cost + input.rows * EVALUATE * 10.0),
        Node::NestedLoop { left, right, kind, condition } => {
            let share = condition.as_ref().map_or(1.0, selectivity);
            let rows = joined_rows(left.rows, left.rows * right.rows * share, *kind);
            (rows, left.cost + left.rows.max(1.0) * right.cost + left.rows * right.rows * EVALUATE)
        }
        Node::HashJoin { left, right, kind, .. } => {
            let matches = left.rows * right.rows / left.rows.max(right.rows).max(1.0);
            let rows = joined_rows(left.rows, matches, *kind);
            (rows, left.cost + right.cost + right.rows * BUILD + (left.rows + rows) * EVALUATE)
        }
        Node::Aggregate { input, keys, .. } => {
            let rows = if keys.is_empty() { 1.0 } else { (input.rows / 5.0).max(1.0) };
            (rows, input.cost + input.rows * BUILD)
        }
        Node::Sort { input, limit, .. } => {
            let kept = limit.as_ref().and_then(count).unwrap_or(input.rows).min(input.rows);
            (kept, input.cost + input.rows * kept.max(2.0).log2() * EVALUATE)
        }
        Node::Limit { input, limit, .. } => {
            let rows =
                limit.as_ref().map_or(input.rows, |l| count(l).unwrap_or(input.rows / 10.0)).min(input.rows);
            let share = if input.rows > 0.0 { rows / input.rows } else { 1.0 };
            // Only what is pulled is paid, where the input can stop early.
            let cost = if stops_early(&input.node) { input.cost * share } else { input.cost };
            (rows, cost)
        }
        Node::Distinct { input, .. } => ((input.rows / 2.0).max(1.0), input.cost + input.rows * BUILD),
        Node::Append(inputs) => (inputs.iter().map(|p| p.rows).sum(), inputs.iter().map(|p| p.cost).sum()),
        Node::SetOperation { left, right, .. } => {
            (left.rows, left.cost + right.cost + (left.rows + right.rows) * BUILD)
        }
        Node::Recursive { base, step, .. } => (base.rows * 10.0, base.cost + step.cost * 10.0),
    }
}

fn joined_rows(left: f64, matches: f64, kind: JoinKind) -> f64 {
    match kind {
        JoinKind::Inner => matches.max(1.0),
        JoinKind::Left | JoinKind::Full | JoinKind::Right => matches.max(left),
        JoinKind::Semi | JoinKind::Anti => (left / 2.0).max(1.0),
    }
}

/// False of operators that must see all rows before they give one.
fn stops_early(node: &Node) -> bool {
    match node {
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

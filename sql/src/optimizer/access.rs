//! How to read a table: which index, which ranges of it, in which direction.
//!
//! An index on `(a, b, c)` and the conditions `a = 1 AND b IN (2, 3) AND c > 4 AND d = 5` give
//!
//! ```text
//!   range  (1, 2, c > 4)
//!   range  (1, 3, c > 4)        filter: d = 5
//! ```
//!
//! Every candidate index is tried and the cheapest taken; one that gives the wanted order saves the sort.

use amphora_replication::Direction;
use amphora_storage::schema::{Index, IndexId, Table};
use amphora_storage::{DataType, Datum};

use super::cost::{self, BOUND, EQUAL, FETCH, LOOKUP, ROW, TABLE_ROWS};
use super::fold::is_volatile;
use crate::expr::{Expr, SubqueryKind};
use crate::plan::{Node, Plan, ScanRange, SortKey, TableScan};

/// Ranges that IN lists may become.
const MAX_RANGES: usize = 10_000;

/// An order that the reader would like, and how many rows of it are wanted.
pub(super) struct Wanted<'a> {
    pub(super) keys: &'a [SortKey],
    pub(super) limit: Option<f64>,
}

/// A condition on one column that an index can use.
enum Use {
    /// `= e`, or `IN (…)`
    Equal(Vec<Expr>),
    /// A lower bound
    Lower(Expr, bool),
    /// An upper bound
    Upper(Expr, bool),
}

/// One way to read.
struct Path {
    index: IndexId,
    ranges: Vec<ScanRange>,
    direction: Direction,
    ordered: bool,
    point: bool,
    /// Conditions that the ranges guarantee
    used: Vec<usize>,
    /// Rows read, before the filter
    read: f64,
    cost: f64,
}

/// Reads a whole table scan's rows for which `conditions` hold. True if they come in the wanted order.
pub(super) fn access(
    scan: TableScan,
    plan: &Plan,
    conditions: Vec<Expr>,
    wanted: Option<&Wanted<'_>>,
) -> (Plan, bool) {
    let table = scan.table.clone();
    let uses: Vec<(usize, usize, Use)> = conditions
        .iter()
        .enumerate()
        .filter_map(|(i, condition)| {
            let (column, use_) = column_use(condition)?;
            let column = *scan.columns.get(column)?;
            fits(&table, column, &use_).then_some((i, column, use_))
        })
        .collect();
    let filter_share: f64 = conditions.iter().map(cost::selectivity).product();
    let mut best: Option<Path> = None;
    for index in table.all_indexes() {
        let mut path = index_path(&table, index, &uses);
        let (ordered, direction) = match wanted {
            Some(wanted) => order(&table, index, &path, wanted.keys, &scan.columns),
            None => (false, Direction::Forward),
        };
        path.ordered = ordered;
        path.direction = direction;
        if let Some(wanted) = wanted {
            let rows = (TABLE_ROWS * filter_share).max(1.0);
            match (ordered, wanted.limit) {
                // Reading stops when enough rows are found.
                (true, Some(limit)) => path.cost *= (limit / rows).min(1.0),
                (true, None) => {}
                (false, _) => path.cost += rows * rows.max(2.0).log2() * 0.005,
            }
        }
        if best.as_ref().is_none_or(|b| path.cost < b.cost) {
            best = Some(path);
        }
    }
    let Some(path) = best else {
        return (Plan { node: Node::TableScan(scan), ..plan.clone() }, false);
    };
    let rest: Vec<Expr> = conditions
        .into_iter()
        .enumerate()
        .filter(|(i, _)| !path.used.contains(i))
        .map(|(_, condition)| condition)
        .collect();
    let share: f64 = rest.iter().map(cost::selectivity).product();
    let filter = conjunction(rest);
    let rows = if path.point { path.read * share } else { (path.read * share).max(1.0) };
    let scan = TableScan {
        index: path.index,
        ranges: path.ranges,
        direction: path.direction,
        filter,
        point: path.point,
        ..scan
    };
    let plan = Plan { node: Node::TableScan(scan), schema: plan.schema.clone(), rows, cost: path.cost };
    (plan, path.ordered)
}

/// All of these, as one condition.
pub(super) fn conjunction(mut conditions: Vec<Expr>) -> Option<Expr> {
    match conditions.len() {
        0 => None,
        1 => conditions.pop(),
        _ => Some(Expr::And(conditions)),
    }
}

/// What of an index the conditions leave to read.
fn index_path(table: &Table, index: &Index, uses: &[(usize, usize, Use)]) -> Path {
    let mut ranges = vec![ScanRange { prefix: Vec::new(), lower: None, upper: None }];
    let mut used = Vec::new();
    let mut share = 1.0;
    let mut whole_key = true;
    for &column in &index.columns {
        let equal = uses.iter().find_map(|(i, c, u)| match u {
            Use::Equal(list) if *c == column && ranges.len() * list.len() <= MAX_RANGES => Some((*i, list)),
            _ => None,
        });
        if let Some((i, list)) = equal {
            used.push(i);
            share *= EQUAL;
            ranges = ranges
                .into_iter()
                .flat_map(|range| {
                    list.iter().map(move |value| {
                        let mut range = range.clone();
                        range.prefix.push(value.clone());
                        range
                    })
                })
                .collect();
            continue;
        }
        whole_key = false;
        let bound = |lower: bool| {
            uses.iter().find_map(|(i, c, u)| match u {
                Use::Lower(e, inclusive) if *c == column && lower => Some((*i, (e.clone(), *inclusive))),
                Use::Upper(e, inclusive) if *c == column && !lower => Some((*i, (e.clone(), *inclusive))),
                _ => None,
            })
        };
        let (lower, upper) = (bound(true), bound(false));
        if let Some((i, _)) = &upper {
            used.push(*i);
            share *= BOUND;
        }
        if let Some((i, _)) = &lower {
            share *= BOUND;
            // NULLs sort last, so a range without upper end reaches them.
            if upper.is_some() || table.columns.get(column).is_some_and(|c| c.not_null) {
                used.push(*i);
            }
        }
        for range in &mut ranges {
            range.lower = lower.as_ref().map(|(_, bound)| bound.clone());
            range.upper = upper.as_ref().map(|(_, bound)| bound.clone());
        }
        break;
    }
    let point = whole_key && index.unique && !index.columns.is_empty();
    let count = ranges.len() as f64;
    let read = if point { count } else { (TABLE_ROWS * share * count).clamp(1.0, TABLE_ROWS) };
    let secondary = index.id != IndexId::PRIMARY;
    let per_row = if secondary { ROW + FETCH } else { ROW };
    let cost = count * LOOKUP + read * per_row;
    Path { index: index.id, ranges, direction: Direction::Forward, ordered: false, point, used, read, cost }
}

/// Whether walking the path gives the wanted order, and which way to walk.
fn order(
    table: &Table,
    index: &Index,
    path: &Path,
    keys: &[SortKey],
    columns: &[usize],
) -> (bool, Direction) {
    let [range] = &path.ranges[..] else {
        return (path.point && path.ranges.len() <= 1, Direction::Forward);
    };
    if path.point {
        return (true, Direction::Forward);
    }
    let pinned = &index.columns[..range.prefix.len().min(index.columns.len())];
    let mut rest = index.columns[pinned.len()..].iter();
    let mut direction = None;
    for key in keys {
        let Expr::Column(position, _) = &key.expr else { return (false, Direction::Forward) };
        let Some(&column) = columns.get(*position) else { return (false, Direction::Forward) };
        if pinned.contains(&column) {
            continue;
        }
        if rest.next() != Some(&column) {
            return (false, Direction::Forward);
        }
        let not_null = table.columns.get(column).is_some_and(|c| c.not_null);
        if key.nulls_first != key.descending && !not_null {
            return (false, Direction::Forward);
        }
        let wanted = if key.descending { Direction::Backward } else { Direction::Forward };
        if direction.is_some_and(|d| d != wanted) {
            return (false, Direction::Forward);
        }
        direction = Some(wanted);
    }
    (true, direction.unwrap_or(Direction::Forward))
}

/// The column a condition restricts, and how.
fn column_use(condition: &Expr) -> Option<(usize, Use)> {
    match condition {
        Expr::Call { function, args, .. } => {
            let [left, right] = &args[..] else { return None };
            let (column, value, name) = match (plain_column(left), plain_column(right)) {
                (Some(column), _) if is_bound(right) => (column, right, function.name),
                (_, Some(column)) if is_bound(left) => (column, left, mirrored(function.name)?),
                _ => return None,
            };
            let value = value.clone();
            Some((
                column,
                match name {
                    "=" => Use::Equal(vec![value]),
                    "<" => Use::Upper(value, false),
                    "<=" => Use::Upper(value, true),
                    ">" => Use::Lower(value, false),
                    ">=" => Use::Lower(value, true),
                    _ => return None,
                },
            ))
        }
        Expr::InList { input, list, negated: false } => {
            let column = plain_column(input)?;
            list.iter().all(is_bound).then(|| (column, Use::Equal(list.clone())))
        }
        // `= ANY` of an array that is written out.
        Expr::AnyAll { left, function, array, all: false } if function.name == "=" => {
            let column = plain_column(left)?;
            let Expr::Literal(Datum::Array(array), _) = &**array else { return None };
            let list = array.items.iter().filter(|v| !v.is_null());
            Some((
                column,
                Use::Equal(list.map(|v| Expr::Literal(v.clone(), array.element.clone())).collect()),
            ))
        }
        _ => None,
    }
}

/// A column, seen through a cast that keeps value and order.
fn plain_column(e: &Expr) -> Option<usize> {
    match e {
        Expr::Column(i, _) => Some(*i),
        Expr::Cast { input, from, to, .. }
            if is_integer(from) && is_integer(to) && to.len() >= from.len() =>
        {
            plain_column(input)
        }
        _ => None,
    }
}

fn is_integer(ty: &DataType) -> bool {
    matches!(ty, DataType::Int2 | DataType::Int4 | DataType::Int8)
}

/// True of what has one value for the whole scan.
fn is_bound(e: &Expr) -> bool {
    let simple = !e.any(&mut |e| match e {
        Expr::Subquery(s) => s.correlated || !matches!(s.kind, SubqueryKind::Scalar),
        _ => false,
    });
    simple && e.is_row_free() && !is_volatile(e)
}

fn mirrored(operator: &str) -> Option<&'static str> {
    Some(match operator {
        "=" => "=",
        "<" => ">",
        "<=" => ">=",
        ">" => "<",
        ">=" => "<=",
        _ => return None,
    })
}

/// True if the values compare with the column's as they lie in the index.
fn fits(table: &Table, column: usize, use_: &Use) -> bool {
    let Some(column) = table.columns.get(column) else { return false };
    // char(n) compares without its padding, but lies in the index with it.
    if matches!(column.ty, DataType::Crdt(_) | DataType::Char(_)) {
        return false;
    }
    let kind = |ty: &DataType| match ty.base() {
        DataType::Int2 | DataType::Int4 | DataType::Int8 => 20,
        DataType::Text | DataType::Varchar(_) | DataType::Name => 25,
        other => other.oid(),
    };
    let same = |e: &Expr| kind(&e.ty()) == kind(&column.ty);
    match use_ {
        Use::Equal(list) => list.iter().all(same),
        Use::Lower(e, _) | Use::Upper(e, _) => same(e),
    }
}

//! How to read a table: which index, which ranges of it (`ranges.rs`), in which direction.
//!
//! Every index is tried and the cheapest way taken; one that gives the wanted order saves the sort, and with
//! a LIMIT need not be read to its end. An index that has all the columns that are read saves the rows. A
//! partial index is tried only where the conditions say that its predicate holds (`index/implication.rs`).

use amphora_replication::Direction;
use amphora_storage::schema::{Index, IndexId, KeyOrder, Table};

use super::cost::{self, FETCH, LOOKUP, ROW, Size};
use super::planner::Planner;
use super::ranges::{self, Ranges, Subjects, Uses, over_output};
use crate::expr::Expr;
use crate::index::{implied, program};
use crate::plan::{Node, Plan, ScanRange, SortKey, TableScan};

/// Elements of an array whose length is not known.
const ARRAY_LENGTH: f64 = 10.0;

/// An order that the reader would like, and how many rows of it are wanted.
pub(super) struct Wanted<'a> {
    pub(super) keys: &'a [SortKey],
    pub(super) limit: Option<f64>,
}

/// One way to read.
struct Path {
    index: IndexId,
    ranges: Ranges,
    direction: Direction,
    ordered: bool,
    /// What it costs to read all there is
    cost: f64,
    /// What it costs to read what is wanted, and to sort it if that is needed
    effort: f64,
}

/// Reads a whole table scan's rows for which `conditions` hold. True if they come in the wanted order.
pub(super) fn access(
    p: &Planner<'_>,
    scan: TableScan,
    plan: &Plan,
    conditions: Vec<Expr>,
    wanted: Option<&Wanted<'_>>,
) -> (Plan, bool) {
    let table = scan.table.clone();
    let plain = Subjects::new(&table, &scan.columns);
    let uses = Uses::new(&plain, &conditions);
    // The commonest of all: one row by its key. Nothing can be better, and no statistics are needed.
    let by_key = uses.ranges(&table, &table.primary);
    if by_key.point && by_key.ranges.len() == 1 && by_key.ranges.iter().all(|r| r.each.is_empty()) {
        let path = Path {
            index: IndexId::PRIMARY,
            ranges: by_key,
            direction: Direction::Forward,
            ordered: true,
            cost: LOOKUP,
            effort: LOOKUP,
        };
        return (scan_by(path, scan, plan, conditions, 1.0), true);
    }
    let total = p.table_rows(&table);
    let rows = (total * p.all(&conditions, &plan.schema)).max(1.0);
    let mut best: Option<Path> = None;
    for index in table.all_indexes() {
        let special = match index.is_plain() {
            true => None,
            false => match Special::new(index, &scan, &conditions) {
                Some(special) => Some(special),
                None => continue,
            },
        };
        let (subjects, uses) = special.as_ref().map_or((&plain, &uses), |s| (&s.subjects, &s.uses));
        let predicate = special.as_ref().map_or(&[][..], |s| &s.predicate);
        let held = p.all(predicate, &plan.schema) * total;
        let mut path = index_path(p, &scan, index, uses, &conditions, plan, held);
        // A row whose array is empty has no entry.
        if index.is_of_elements() && path.ranges.is_whole() {
            continue;
        }
        if let Some(special) = &special {
            // What the predicate says need not be asked of the rows.
            let says = |i: &usize| implied(&conditions[*i], &special.predicate, &|_| false);
            path.ranges.guaranteed.extend((0..conditions.len()).filter(says));
        }
        if let Some(wanted) = wanted {
            (path.ordered, path.direction) =
                order(&table, index, &path.ranges.ranges, path.ranges.point, wanted.keys, subjects);
            let share = wanted.limit.map_or(1.0, |limit| (limit / rows).min(1.0));
            path.effort = match path.ordered {
                // Reading stops when enough rows are found.
                true => path.cost * share + LOOKUP,
                false => {
                    let size = Size { rows, cost: 0.0, width: cost::width(&plan.schema) };
                    path.cost + cost::sort_cost(p, size, wanted.limit.unwrap_or(rows))
                }
            };
        }
        if best.as_ref().is_none_or(|b| path.effort < b.effort) {
            best = Some(path);
        }
    }
    let Some(path) = best else {
        return (Plan { node: Node::TableScan(scan), ..plan.clone() }, false);
    };
    let ordered = path.ordered;
    (scan_by(path, scan, plan, conditions, rows), ordered)
}

/// What is to be known of an index that is not made of columns alone, for all rows.
struct Special<'a> {
    subjects: Subjects<'a>,
    uses: Uses,
    /// The conditions of its predicate, over the scan's output
    predicate: Vec<Expr>,
}

impl<'a> Special<'a> {
    /// `None` if it cannot be used, because it may lack rows that are wanted.
    fn new(index: &'a Index, scan: &'a TableScan, conditions: &[Expr]) -> Option<Special<'a>> {
        let table = &scan.table;
        let program = program(table, index).ok()?;
        let output = |c: usize| scan.columns.get(c).and_then(|c| table.columns.get(*c));
        let not_null = |c: usize| output(c).is_some_and(|c| c.not_null);
        let mut predicate = Vec::with_capacity(program.conditions.len());
        for condition in &program.conditions {
            // What is said of a column that the scan does not even give follows from no condition.
            let condition = over_output(condition, &scan.columns)?;
            if !implied(&condition, conditions, &not_null) {
                return None;
            }
            predicate.push(condition);
        }
        let subjects = Subjects::of_index(table, &scan.columns, index, &program.folded);
        let uses = Uses::new(&subjects, conditions);
        Some(Special { subjects, uses, predicate })
    }
}

/// The scan that a path is.
fn scan_by(path: Path, scan: TableScan, plan: &Plan, conditions: Vec<Expr>, rows: f64) -> Plan {
    let rest: Vec<Expr> = conditions
        .into_iter()
        .enumerate()
        .filter(|(i, _)| !path.ranges.guaranteed.contains(i))
        .map(|(_, condition)| condition)
        .collect();
    let most = if path.ranges.point { count(&path.ranges) } else { f64::MAX };
    let scan = TableScan {
        index: path.index,
        point: path.ranges.point,
        ranges: path.ranges.ranges,
        direction: path.direction,
        filter: conjunction(rest),
        ..scan
    };
    Plan { node: Node::TableScan(scan), schema: plan.schema.clone(), rows: rows.min(most), cost: path.cost }
}

/// All of these, as one condition.
pub(super) fn conjunction(mut conditions: Vec<Expr>) -> Option<Expr> {
    match conditions.len() {
        0 => None,
        1 => conditions.pop(),
        _ => Some(Expr::And(conditions)),
    }
}

/// How many ranges there will be.
fn count(ranges: &Ranges) -> f64 {
    let each = |n: usize| ARRAY_LENGTH.powi(i32::try_from(n).unwrap_or(i32::MAX));
    ranges.ranges.iter().map(|r| each(r.each.len())).sum()
}

/// Reading what conditions leave of an index.
fn index_path(
    p: &Planner<'_>,
    scan: &TableScan,
    index: &Index,
    uses: &Uses,
    conditions: &[Expr],
    plan: &Plan,
    total: f64,
) -> Path {
    let ranges = uses.ranges(&scan.table, index);
    let narrowing: Vec<Expr> = ranges.narrowing.iter().filter_map(|&i| conditions.get(i)).cloned().collect();
    let count = count(&ranges);
    let read = if ranges.point {
        count.min(total)
    } else {
        (total * p.all(&narrowing, &plan.schema)).clamp(1.0, total.max(1.0))
    };
    let options = p.options();
    let secondary = index.id != IndexId::PRIMARY;
    let covers = index.covers(&scan.table, &scan.columns) && options.indexonlyscan;
    let per_row = if secondary && !covers { ROW + FETCH } else { ROW };
    let unwanted = match (secondary || !ranges.is_whole(), covers && secondary) {
        (_, true) => false,
        (true, false) => !options.indexscan,
        (false, false) => !options.seqscan,
    };
    let filter = read * cost::EVALUATE * conditions.len().saturating_sub(ranges.guaranteed.len()) as f64;
    let cost = count * LOOKUP + read * per_row + filter + cost::disabled(unwanted);
    Path { index: index.id, ranges, direction: Direction::Forward, ordered: false, cost, effort: cost }
}

/// True if a scan gives its rows in this order.
pub(super) fn gives(scan: &TableScan, keys: &[SortKey]) -> bool {
    let table = &scan.table;
    let Some(index) = table.all_indexes().find(|index| index.id == scan.index) else { return false };
    let program = match index.is_plain() {
        true => None,
        false => program(table, index).ok(),
    };
    let subjects = match &program {
        Some(program) => Subjects::of_index(table, &scan.columns, index, &program.folded),
        None => Subjects::new(table, &scan.columns),
    };
    let (ordered, direction) = order(table, index, &scan.ranges, scan.point, keys, &subjects);
    ordered && direction == scan.direction
}

/// Whether walking the ranges, which are sorted, gives the wanted order, and which way to walk.
fn order(
    table: &Table,
    index: &Index,
    ranges: &[ScanRange],
    point: bool,
    keys: &[SortKey],
    subjects: &Subjects<'_>,
) -> (bool, Direction) {
    let unordered = (false, Direction::Forward);
    if index.is_of_elements() {
        return unordered;
    }
    if point && ranges.len() <= 1 && ranges.iter().all(|r| r.each.is_empty()) {
        return (true, Direction::Forward);
    }
    let pinned = &index.columns[..ranges::fixed(ranges).min(index.columns.len())];
    // Entries that are equal lie in the order of their rows' keys.
    let suffix: &[usize] = if index.unique { &[] } else { &table.primary.columns };
    let own = index.columns.iter().enumerate().skip(pinned.len()).map(|(i, c)| (*c, index.order(i)));
    let mut rest = own.chain(suffix.iter().map(|c| (*c, KeyOrder::default())));
    let mut direction = None;
    for key in keys {
        let Some(column) = subjects.of(&key.expr) else { return unordered };
        if pinned.contains(&column) {
            continue;
        }
        let Some((_, order)) = rest.next().filter(|(next, _)| *next == column) else { return unordered };
        let not_null = table.columns.get(column).is_some_and(|c| c.not_null);
        let backward = key.descending != order.descending;
        if key.nulls_first != (order.nulls_first != backward) && !not_null {
            return unordered;
        }
        let wanted = if backward { Direction::Backward } else { Direction::Forward };
        if direction.is_some_and(|d| d != wanted) {
            return unordered;
        }
        direction = Some(wanted);
    }
    (true, direction.unwrap_or(Direction::Forward))
}

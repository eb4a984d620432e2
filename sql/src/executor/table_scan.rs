//! Rows of stored tables.

use std::cmp::Ordering;
use std::sync::Arc;

use amphora_replication::{Direction, KeyBound, KeyRange, RowStream, Scan, StoredRow};
use amphora_storage::schema::{IndexId, Table};
use amphora_storage::{Datum, Row};

use super::{BATCH, Builder, Context, Expression, Operator};
use crate::error::Result;
use crate::expr::Expr;
use crate::plan::{ScanRange, TableScan};

/// Rows of the first batch; each later one is four times as large, up to [`BATCH`]. A LIMIT above, or a
/// nested loop that finds what it wants, then costs little.
const FIRST_BATCH: usize = 64;

/// Walks the ranges of an index one after the other.
pub(super) struct TableScanOperator {
    table: Arc<Table>,
    index: IndexId,
    /// Positions of the output columns in the stored row; `None` is all of them
    columns: Option<Arc<[usize]>>,
    ranges: Vec<CompiledRange>,
    direction: Direction,
    /// Which of the index's columns descend; those not listed ascend
    descending: Vec<bool>,
    filter: Option<Expression>,
    /// The ranges are whole primary keys: each is one `get`
    by_key: bool,
    /// Each row is followed by its version
    versioned: bool,
    state: Option<State>,
    buffer: Vec<StoredRow>,
}

struct CompiledRange {
    prefix: Vec<Expression>,
    each: Vec<usize>,
    lower: Option<(Expression, bool)>,
    upper: Option<(Expression, bool)>,
}

struct State {
    ranges: std::vec::IntoIter<KeyRange>,
    stream: Option<Box<dyn RowStream>>,
    batch: usize,
}

impl TableScanOperator {
    pub(super) fn new(scan: &TableScan, versioned: bool, builder: &mut Builder) -> Result<TableScanOperator> {
        let all = scan.columns.len() == scan.table.columns.len();
        let key_width = scan.table.primary.columns.len();
        let ranges =
            scan.ranges.iter().map(|r| CompiledRange::compile(r, builder)).collect::<Result<Vec<_>>>()?;
        let by_key = scan.index == IndexId::PRIMARY
            && scan.point
            && ranges.iter().all(|r| r.prefix.len() == key_width);
        Ok(TableScanOperator {
            table: scan.table.clone(),
            index: scan.index,
            columns: (!all).then(|| scan.columns.clone().into()),
            ranges,
            direction: scan.direction,
            descending: scan
                .table
                .index(scan.index)
                .map_or_else(Vec::new, |index| index.orders.iter().map(|order| order.descending).collect()),
            filter: scan.filter.as_ref().map(|f| Expression::compile(f, builder)).transpose()?,
            by_key,
            versioned,
            state: None,
            buffer: Vec::new(),
        })
    }

    /// The ranges for this execution, apart from each other, in the direction of the scan.
    fn key_ranges(&self, context: &Context<'_>) -> Result<Vec<KeyRange>> {
        let mut ranges = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            range.eval(context, &mut ranges)?;
        }
        if ranges.len() > 1 {
            ranges = merged(ranges, &self.descending);
            if self.direction == Direction::Backward {
                ranges.reverse();
            }
        }
        Ok(ranges)
    }

    /// Gives a stored row its output columns, and keeps it if the filter does.
    fn emit(&self, stored: StoredRow, context: &Context<'_>, out: &mut Vec<Row>) -> Result<()> {
        let mut row = match &self.columns {
            None => stored.row,
            Some(columns) => {
                let mut full = stored.row;
                columns.iter().map(|&c| std::mem::replace(&mut full[c], Datum::Null)).collect()
            }
        };
        if let Some(filter) = &self.filter
            && !filter.is_true(&row, context)?
        {
            return Ok(());
        }
        if self.versioned {
            row.push(Datum::Int8(stored.version.0.cast_signed()));
        }
        out.push(row);
        Ok(())
    }

    fn next_by_key(&self, state: &mut State, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        for range in state.ranges.by_ref().take(BATCH) {
            context.run.guard.tick()?;
            if let Some(stored) = context.txn.get(&self.table, &range.prefix)? {
                self.emit(stored, context, out)?;
            }
        }
        Ok(state.ranges.len() > 0)
    }

    fn next_by_range(
        &mut self,
        state: &mut State,
        context: &Context<'_>,
        out: &mut Vec<Row>,
    ) -> Result<bool> {
        let mut stream = match state.stream.take() {
            Some(stream) => stream,
            None => {
                let Some(range) = state.ranges.next() else { return Ok(false) };
                context.txn.scan(&Scan {
                    table: self.table.clone(),
                    index: self.index,
                    range,
                    direction: self.direction,
                    columns: self.columns.clone(),
                })?
            }
        };
        let wanted = state.batch;
        state.batch = (wanted * 4).min(BATCH);
        let mut buffer = std::mem::take(&mut self.buffer);
        let got = stream.next_batch(wanted, &mut buffer)?;
        for stored in buffer.drain(..) {
            self.emit(stored, context, out)?;
        }
        self.buffer = buffer;
        if got == wanted {
            state.stream = Some(stream);
            return Ok(true);
        }
        Ok(state.ranges.len() > 0)
    }
}

impl Operator for TableScanOperator {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        context.run.guard.check()?;
        let mut state = match self.state.take() {
            Some(state) => state,
            None => {
                let ranges = self.key_ranges(context)?.into_iter();
                State { ranges, stream: None, batch: FIRST_BATCH }
            }
        };
        let more = if self.by_key {
            self.next_by_key(&mut state, context, out)?
        } else {
            self.next_by_range(&mut state, context, out)?
        };
        self.state = Some(state);
        Ok(more)
    }

    fn reset(&mut self, _: &Context<'_>) {
        self.state = None;
    }
}

impl CompiledRange {
    fn compile(range: &ScanRange, builder: &mut Builder) -> Result<CompiledRange> {
        let mut bound = |b: &Option<(Expr, bool)>| -> Result<Option<(Expression, bool)>> {
            let Some((expr, inclusive)) = b else { return Ok(None) };
            Ok(Some((Expression::compile(expr, builder)?, *inclusive)))
        };
        let (lower, upper) = (bound(&range.lower)?, bound(&range.upper)?);
        let prefix = Expression::compile_all(&range.prefix, builder)?;
        Ok(CompiledRange { prefix, each: range.each.clone(), lower, upper })
    }

    /// Adds the range's values: none if one of them is NULL, which nothing equals; one range for every
    /// combination of its arrays' elements.
    fn eval(&self, context: &Context<'_>, out: &mut Vec<KeyRange>) -> Result<()> {
        let bound = |b: &Option<(Expression, bool)>| -> Result<Option<KeyBound>> {
            let Some((expr, inclusive)) = b else { return Ok(Some(KeyBound::Unbounded)) };
            let value = expr.eval(&[], context)?;
            Ok(match value {
                Datum::Null => None,
                value if *inclusive => Some(KeyBound::Included(value)),
                value => Some(KeyBound::Excluded(value)),
            })
        };
        let (Some(lower), Some(upper)) = (bound(&self.lower)?, bound(&self.upper)?) else { return Ok(()) };
        let mut prefix = Vec::with_capacity(self.prefix.len());
        let mut arrays = Vec::new();
        for (position, expr) in self.prefix.iter().enumerate() {
            match expr.eval(&[], context)? {
                Datum::Null => return Ok(()),
                Datum::Array(array) if self.each.contains(&position) => {
                    arrays.push((position, array));
                    prefix.push(Datum::Null);
                }
                value => prefix.push(value),
            }
        }
        let mut made = vec![KeyRange { prefix, lower, upper }];
        for (position, array) in arrays {
            let elements = || array.items.iter().filter(|v| !v.is_null());
            let mut next = Vec::with_capacity(made.len() * elements().count());
            for range in &made {
                for element in elements() {
                    context.run.guard.tick()?;
                    let mut range = range.clone();
                    range.prefix[position] = element.clone();
                    next.push(range);
                }
            }
            made = next;
        }
        out.append(&mut made);
        Ok(())
    }
}

/// Where a range begins, or ends, among all keys: values from the left, and whether what begins with them
/// comes before (`Less`) or after (`Greater`) that place.
struct Edge<'a> {
    values: &'a [Datum],
    next: Option<&'a Datum>,
    side: Ordering,
}

impl<'a> Edge<'a> {
    fn start(range: &'a KeyRange, descending: &[bool]) -> Edge<'a> {
        let (next, side) = match first_bound(range, descending) {
            KeyBound::Unbounded => (None, Ordering::Less),
            KeyBound::Included(d) => (Some(d), Ordering::Less),
            KeyBound::Excluded(d) => (Some(d), Ordering::Greater),
        };
        Edge { values: &range.prefix, next, side }
    }

    fn end(range: &'a KeyRange, descending: &[bool]) -> Edge<'a> {
        let last = if descends(descending, range.prefix.len()) { &range.lower } else { &range.upper };
        let (next, side) = match last {
            KeyBound::Unbounded => (None, Ordering::Greater),
            KeyBound::Included(d) => (Some(d), Ordering::Greater),
            KeyBound::Excluded(d) => (Some(d), Ordering::Less),
        };
        Edge { values: &range.prefix, next, side }
    }

    fn compare(&self, other: &Edge<'_>, descending: &[bool]) -> Ordering {
        let mut mine = self.values.iter().chain(self.next);
        let mut theirs = other.values.iter().chain(other.next);
        for place in 0.. {
            match (mine.next(), theirs.next()) {
                (Some(a), Some(b)) if a == b => {}
                (Some(a), Some(b)) if descends(descending, place) => return b.cmp(a),
                (Some(a), Some(b)) => return a.cmp(b),
                // The shorter one stands before or after all that begins with it.
                (None, Some(_)) => return self.side,
                (Some(_), None) => return other.side.reverse(),
                (None, None) => break,
            }
        }
        self.side.cmp(&other.side)
    }
}

fn descends(descending: &[bool], place: usize) -> bool {
    descending.get(place).copied().unwrap_or_default()
}

/// The bound that a scan of a range meets first.
fn first_bound<'a>(range: &'a KeyRange, descending: &[bool]) -> &'a KeyBound {
    if descends(descending, range.prefix.len()) { &range.upper } else { &range.lower }
}

/// The same keys in ranges that are sorted and do not overlap.
///
/// Of two ranges that overlap, either both have the same prefix, and are joined, or one contains the other:
/// the bounds of the one with the shorter prefix let the longer prefix in as a whole, or not at all.
fn merged(mut ranges: Vec<KeyRange>, descending: &[bool]) -> Vec<KeyRange> {
    ranges.retain(|r| Edge::start(r, descending).compare(&Edge::end(r, descending), descending).is_lt());
    ranges.sort_by(|a, b| {
        let by_start = Edge::start(a, descending).compare(&Edge::start(b, descending), descending);
        by_start.then_with(|| Edge::end(b, descending).compare(&Edge::end(a, descending), descending))
    });
    let mut out: Vec<KeyRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let Some(last) = out.last_mut() else {
            out.push(range);
            continue;
        };
        if Edge::start(&range, descending).compare(&Edge::end(last, descending), descending).is_ge() {
            out.push(range);
        } else if Edge::end(&range, descending).compare(&Edge::end(last, descending), descending).is_gt() {
            match descends(descending, last.prefix.len()) {
                true => last.lower = range.lower,
                false => last.upper = range.upper,
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(prefix: &[i64], lower: KeyBound, upper: KeyBound) -> KeyRange {
        KeyRange { prefix: prefix.iter().map(|&v| Datum::Int8(v)).collect(), lower, upper }
    }

    fn above(v: i64) -> KeyBound {
        KeyBound::Excluded(Datum::Int8(v))
    }

    fn from(v: i64) -> KeyBound {
        KeyBound::Included(Datum::Int8(v))
    }

    use KeyBound::Unbounded;

    #[test]
    fn ranges_of_an_in_list_are_sorted_and_given_once() {
        let made = [3, 1, 3, 2].map(|v| range(&[v], Unbounded, Unbounded)).to_vec();
        assert_eq!(merged(made, &[]), [1, 2, 3].map(|v| range(&[v], Unbounded, Unbounded)));
    }

    #[test]
    fn pages_follow_each_other() {
        let page = vec![range(&[], above(1), Unbounded), range(&[1], above(5), Unbounded)];
        let sorted = vec![range(&[1], above(5), Unbounded), range(&[], above(1), Unbounded)];
        assert_eq!(merged(page, &[]), sorted);
    }

    #[test]
    fn descending_ranges_begin_at_their_upper_bound() {
        let page = vec![
            range(&[], Unbounded, above(5)),
            range(&[5], Unbounded, above(3)),
            range(&[9], from(1), from(2)),
        ];
        let sorted = vec![
            range(&[9], from(1), from(2)),
            range(&[5], Unbounded, above(3)),
            range(&[], Unbounded, above(5)),
        ];
        assert_eq!(merged(page, &[true, false]), sorted);
        assert_eq!(
            merged(vec![range(&[], from(1), from(6)), range(&[], from(5), from(9))], &[true]),
            [range(&[], from(1), from(9))]
        );
    }

    #[test]
    fn overlapping_ranges_become_one() {
        assert_eq!(
            merged(vec![range(&[], from(5), from(9)), range(&[], from(1), above(6))], &[]),
            [range(&[], from(1), from(9))]
        );
        assert_eq!(
            merged(vec![range(&[7], above(2), Unbounded), range(&[], from(1), from(9))], &[]),
            [range(&[], from(1), from(9))]
        );
        assert_eq!(
            merged(vec![range(&[9], Unbounded, Unbounded), range(&[], from(1), above(9))], &[]),
            [range(&[], from(1), above(9)), range(&[9], Unbounded, Unbounded)]
        );
        assert_eq!(merged(vec![range(&[], from(9), from(1)), range(&[], from(1), above(1))], &[]), []);
    }
}

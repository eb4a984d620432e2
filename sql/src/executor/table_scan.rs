//! Rows of stored tables.

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
            filter: scan.filter.as_ref().map(|f| Expression::compile(f, builder)).transpose()?,
            by_key,
            versioned,
            state: None,
            buffer: Vec::new(),
        })
    }

    /// The ranges for this execution, each once, in the direction of the scan.
    fn key_ranges(&self, context: &Context<'_>) -> Result<Vec<KeyRange>> {
        let mut ranges = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            if let Some(range) = range.eval(context)? {
                ranges.push(range);
            }
        }
        if ranges.len() > 1 {
            ranges.sort_by(|a, b| a.prefix.cmp(&b.prefix));
            ranges.dedup();
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
        Ok(CompiledRange { prefix: Expression::compile_all(&range.prefix, builder)?, lower, upper })
    }

    /// The range's values; `None` if one of them is NULL, which nothing equals.
    fn eval(&self, context: &Context<'_>) -> Result<Option<KeyRange>> {
        let mut prefix = Vec::with_capacity(self.prefix.len());
        for expr in &self.prefix {
            let value = expr.eval(&[], context)?;
            if value.is_null() {
                return Ok(None);
            }
            prefix.push(value);
        }
        let bound = |b: &Option<(Expression, bool)>| -> Result<Option<KeyBound>> {
            let Some((expr, inclusive)) = b else { return Ok(Some(KeyBound::Unbounded)) };
            let value = expr.eval(&[], context)?;
            Ok(match value {
                Datum::Null => None,
                value if *inclusive => Some(KeyBound::Included(value)),
                value => Some(KeyBound::Excluded(value)),
            })
        };
        Ok(match (bound(&self.lower)?, bound(&self.upper)?) {
            (Some(lower), Some(upper)) => Some(KeyRange { prefix, lower, upper }),
            _ => None,
        })
    }
}

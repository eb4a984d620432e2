//! Window functions.
//!
//! Rows are gathered, and every distinct window (PARTITION BY and ORDER BY) orders them once, for all of
//! its calls; a window whose keys are the first ones of the order at hand needs no sort at all:
//!
//! ```text
//!   rows ─► sort by (a, b, c) ─► calls OVER (PARTITION BY a, b ORDER BY c)
//!                             ─► calls OVER (PARTITION BY a)            the same order serves
//!        ─► sort by (d)       ─► calls OVER (ORDER BY d)
//! ```
//!
//! Each call then walks partition by partition. What it sees of one is its frame (`frame`), two ends that
//! only move forward, so that aggregates are folded as rows come in and, where they can be, taken back as
//! rows go out (`aggregate`).

mod aggregate;
mod frame;

use amphora_storage::{DataType, Datum, Row};

use self::frame::{Frames, Peers};
use super::expression::eval_all;
use super::guard::{Held, row_memory};
use super::sort::Order;
use super::{BATCH, Builder, Context, Expression, Operator};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::plan::{SortKey, WindowCall, WindowFunction};
use crate::walk::same_expr;

pub(super) struct Window {
    input: Box<dyn Operator>,
    specs: Vec<Spec>,
    calls: usize,
    rows: Option<std::vec::IntoIter<Row>>,
    held: Held,
}

/// One PARTITION BY and ORDER BY, and the calls over it.
struct Spec {
    keys: Vec<SortKey>,
    /// All keys, the partition's first
    order: Order,
    /// How many of them are the partition's
    partition: usize,
    calls: Vec<Call>,
}

/// One compiled call.
struct Call {
    /// Its place among the columns that are added
    column: usize,
    function: WindowFunction,
    args: Vec<Expression>,
    arg_types: Vec<DataType>,
    filter: Option<Expression>,
    frame: frame::Compiled,
}

/// A partition: its rows, and the keys they were sorted by.
struct Partition<'a> {
    rows: &'a [Row],
    peers: &'a Peers,
    /// Values of the first ORDER BY column, for RANGE offsets
    keys: &'a [Vec<Datum>],
    key: usize,
}

impl Window {
    pub(super) fn new(
        input: Box<dyn Operator>,
        calls: &[WindowCall],
        builder: &mut Builder,
    ) -> Result<Window> {
        let mut specs: Vec<Spec> = Vec::new();
        for (column, call) in calls.iter().enumerate() {
            let partition = call.partition_by.iter().map(|expr| SortKey {
                expr: expr.clone(),
                descending: false,
                nulls_first: false,
            });
            let keys: Vec<SortKey> = partition.chain(call.order_by.iter().cloned()).collect();
            let compiled = Call {
                column,
                function: call.function,
                args: Expression::compile_all(&call.args, builder)?,
                arg_types: call.args.iter().map(Expr::ty).collect(),
                filter: call.filter.as_ref().map(|f| Expression::compile(f, builder)).transpose()?,
                frame: frame::Compiled::new(call, builder)?,
            };
            let partition = call.partition_by.len();
            match specs.iter_mut().find(|s| s.partition == partition && same_keys(&s.keys, &keys)) {
                Some(spec) => spec.calls.push(compiled),
                None => {
                    let order = Order::compile(&keys, builder)?;
                    specs.push(Spec { keys, order, partition, calls: vec![compiled] });
                }
            }
        }
        // Longer orders first: they serve the shorter ones that they begin with.
        specs.sort_by_key(|s| std::cmp::Reverse(s.keys.len()));
        Ok(Window { input, specs, calls: calls.len(), rows: None, held: Held::default() })
    }

    fn run(&mut self, context: &Context<'_>) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let (held, calls) = (&mut self.held, self.calls);
        let mut width = 0;
        super::drain(self.input.as_mut(), context, |mut row| {
            width = row.len();
            row.resize(width + calls, Datum::Null);
            held.add(&context.run.guard, &row)?;
            rows.push(row);
            Ok(())
        })?;
        let mut sorted: &[SortKey] = &[];
        for spec in &self.specs {
            let ordered =
                sorted.len() >= spec.keys.len() && same_keys(&sorted[..spec.keys.len()], &spec.keys);
            rows = spec.run(rows, width, ordered, context)?;
            if !ordered {
                sorted = &spec.keys;
            }
        }
        Ok(rows)
    }
}

/// True of two lists of keys that order rows alike.
fn same_keys(a: &[SortKey], b: &[SortKey]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            a.descending == b.descending && a.nulls_first == b.nulls_first && same_expr(&a.expr, &b.expr)
        })
}

impl Spec {
    /// Fills the columns of this window's calls; the rows come out in its order.
    fn run(&self, rows: Vec<Row>, width: usize, ordered: bool, context: &Context<'_>) -> Result<Vec<Row>> {
        let guard = &context.run.guard;
        let mut held = Held::default();
        let mut keyed = Vec::with_capacity(rows.len());
        for row in rows {
            guard.tick()?;
            let key = self.order.key(&row, context)?;
            held.add_bytes(guard, row_memory(&key))?;
            keyed.push((key, row));
        }
        if !ordered {
            keyed.sort_by(|a, b| self.order.compare(&a.0, &b.0));
        }
        let (keys, mut rows): (Vec<Vec<Datum>>, Vec<Row>) = keyed.into_iter().unzip();
        let mut start = 0;
        for partition in keys.chunk_by(|a, b| a[..self.partition] == b[..self.partition]) {
            guard.check()?;
            let end = start + partition.len();
            let peers = Peers::of(partition, self.partition);
            for call in &self.calls {
                let view = Partition {
                    rows: &rows[start..end],
                    peers: &peers,
                    keys: partition,
                    key: self.partition,
                };
                let values = call.values(&view, context)?;
                for (row, value) in rows[start..end].iter_mut().zip(values) {
                    held.add_bytes(guard, value.memory())?;
                    row[width + call.column] = value;
                }
            }
            start = end;
        }
        held.release(guard);
        Ok(rows)
    }
}

impl Call {
    /// The values of one partition's rows.
    fn values(&self, partition: &Partition<'_>, context: &Context<'_>) -> Result<Vec<Datum>> {
        let (count, peers) = (partition.rows.len(), partition.peers);
        let ranked = |f: &dyn Fn(usize) -> Datum| Ok((0..count).map(f).collect());
        match self.function {
            WindowFunction::RowNumber => ranked(&|i| number(i + 1)),
            WindowFunction::Rank => ranked(&|i| number(peers.start(i) + 1)),
            WindowFunction::DenseRank => ranked(&|i| number(peers.group(i) + 1)),
            WindowFunction::PercentRank => ranked(&|i| match count {
                1 => Datum::Float8(0.0),
                _ => Datum::Float8(peers.start(i) as f64 / (count - 1) as f64),
            }),
            WindowFunction::CumeDist => ranked(&|i| Datum::Float8(peers.end(i) as f64 / count as f64)),
            WindowFunction::Ntile => self.ntile(partition, context),
            WindowFunction::Shift(forward) => {
                (0..count).map(|i| self.shifted(partition, i, forward, context)).collect()
            }
            WindowFunction::FirstValue | WindowFunction::LastValue | WindowFunction::NthValue => {
                self.of_frame(partition, context)
            }
            WindowFunction::Aggregate(function) => self.aggregate(function, partition, context),
        }
    }

    /// Buckets that differ in size by one at most, the larger ones first.
    fn ntile(&self, partition: &Partition<'_>, context: &Context<'_>) -> Result<Vec<Datum>> {
        let count = partition.rows.len();
        let Some(argument) = self.args.first() else { return Err(SqlError::internal("ntile of nothing")) };
        let Some(buckets) = argument.eval(&partition.rows[0], context)?.as_i64() else {
            return Ok(vec![Datum::Null; count]);
        };
        if buckets <= 0 {
            return Err(SqlError::new("22014", "argument of ntile must be greater than zero"));
        }
        let buckets = usize::try_from(buckets).unwrap_or(usize::MAX);
        let (size, larger) = (count / buckets, count % buckets);
        let bucket = |i: usize| match i.checked_sub(larger * (size + 1)) {
            None => i / (size + 1),
            Some(rest) => larger + rest.checked_div(size).unwrap_or(0),
        };
        let value = |n: usize| Datum::Int4(i32::try_from(n).unwrap_or(i32::MAX));
        Ok((0..count).map(|i| value(bucket(i) + 1)).collect())
    }

    /// `lag(value, offset, default)`, or `lead` if forward.
    fn shifted(
        &self,
        partition: &Partition<'_>,
        position: usize,
        forward: bool,
        context: &Context<'_>,
    ) -> Result<Datum> {
        let [value, offset, default] = &self.args[..] else {
            return Err(SqlError::internal("lag without its arguments"));
        };
        let row = &partition.rows[position];
        let Some(offset) = offset.value(row, context)?.as_i64() else { return Ok(Datum::Null) };
        let offset = if forward { offset } else { -offset };
        let target = i64::try_from(position).unwrap_or(i64::MAX).saturating_add(offset);
        match usize::try_from(target).ok().and_then(|t| partition.rows.get(t)) {
            Some(row) => value.eval(row, context),
            None => default.eval(row, context),
        }
    }

    /// `first_value`, `last_value`, `nth_value`
    fn of_frame(&self, partition: &Partition<'_>, context: &Context<'_>) -> Result<Vec<Datum>> {
        let Some(value) = self.args.first() else { return Err(SqlError::internal("a value of nothing")) };
        let mut frames = Frames::new(&self.frame, partition, context)?;
        let mut values = Vec::with_capacity(partition.rows.len());
        for (i, row) in partition.rows.iter().enumerate() {
            context.run.guard.tick()?;
            let frame = frames.next(i)?;
            let found = match self.function {
                WindowFunction::FirstValue => frame.nth(0),
                WindowFunction::LastValue => frame.last(),
                _ => {
                    let n = match self.args.get(1) {
                        Some(n) => n.value(row, context)?.as_i64(),
                        None => None,
                    };
                    match n {
                        None => None,
                        Some(n) if n <= 0 => {
                            let message = "argument of nth_value must be greater than zero";
                            return Err(SqlError::new("22016", message));
                        }
                        Some(n) => frame.nth(usize::try_from(n - 1).unwrap_or(usize::MAX)),
                    }
                }
            };
            values.push(match found {
                Some(found) => value.eval(&partition.rows[found], context)?,
                None => Datum::Null,
            });
        }
        Ok(values)
    }

    /// The arguments of the partition's rows; none for a row that FILTER leaves out.
    fn inputs(&self, partition: &Partition<'_>, context: &Context<'_>) -> Result<Vec<Option<Vec<Datum>>>> {
        let input = |row: &Row| {
            context.run.guard.tick()?;
            match &self.filter {
                Some(filter) if !filter.is_true(row, context)? => Ok(None),
                _ => eval_all(&self.args, row, context).map(Some),
            }
        };
        partition.rows.iter().map(input).collect()
    }
}

fn number(n: usize) -> Datum {
    Datum::Int8(i64::try_from(n).unwrap_or(i64::MAX))
}

impl Operator for Window {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        if self.rows.is_none() {
            self.rows = Some(self.run(context)?.into_iter());
        }
        let Some(rows) = &mut self.rows else { return Ok(false) };
        out.extend(rows.by_ref().take(BATCH));
        if rows.len() == 0 {
            self.held.release(&context.run.guard);
            return Ok(false);
        }
        Ok(true)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.input.reset(context);
        self.rows = None;
        self.held.release(&context.run.guard);
    }
}

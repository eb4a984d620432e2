//! ORDER BY. With a limit only the best rows are kept.
//!
//! What does not fit into `work_mem` is sorted in parts, which are written to files and merged while they are
//! read (Knuth, The Art of Computer Programming 3, 5.4.1).

use std::cmp::Ordering;

use amphora_storage::{Datum, Row};

use super::guard::{Held, row_memory};
use super::projection::limit_value;
use super::spill::{Spill, Spilled};
use super::{BATCH, Builder, Context, Expression, Operator};
use crate::error::Result;
use crate::expr::Expr;
use crate::plan::SortKey;

/// How rows compare.
pub(super) struct Order {
    keys: Vec<Expression>,
    directions: Vec<Direction>,
}

#[derive(Clone, Copy)]
struct Direction {
    descending: bool,
    nulls_first: bool,
}

impl Order {
    pub(super) fn compile(keys: &[SortKey], builder: &mut Builder) -> Result<Order> {
        let directions =
            keys.iter().map(|k| Direction { descending: k.descending, nulls_first: k.nulls_first }).collect();
        let keys = keys.iter().map(|k| Expression::compile(&k.expr, builder)).collect::<Result<_>>()?;
        Ok(Order { keys, directions })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The values that a row is ordered by.
    pub(super) fn key(&self, row: &[Datum], context: &Context<'_>) -> Result<Vec<Datum>> {
        super::expression::eval_all(&self.keys, row, context)
    }

    /// The order of two rows' keys.
    pub(super) fn compare(&self, a: &[Datum], b: &[Datum]) -> Ordering {
        for ((a, b), direction) in a.iter().zip(b).zip(&self.directions) {
            let order = match (a.is_null(), b.is_null()) {
                (true, true) => Ordering::Equal,
                (true, false) if direction.nulls_first => Ordering::Less,
                (true, false) => Ordering::Greater,
                (false, true) if direction.nulls_first => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) if direction.descending => b.cmp(a),
                (false, false) => a.cmp(b),
            };
            if order.is_ne() {
                return order;
            }
        }
        Ordering::Equal
    }
}

/// A row and what it is ordered by.
type Keyed = (Vec<Datum>, Row);

/// Runs that are merged at a time; more become one first.
const MAX_RUNS: usize = 128;

pub(super) struct Sort {
    input: Box<dyn Operator>,
    order: Order,
    limit: Option<Expression>,
    sorted: Option<Sorted>,
    held: Held,
    done: Done,
}

/// Rows in order.
enum Sorted {
    /// All in memory
    Rows(std::vec::IntoIter<Keyed>),
    /// In runs that are merged while they are read
    Runs(Merge),
}

/// What was done, for EXPLAIN ANALYZE.
#[derive(Clone, Copy, Default)]
struct Done {
    memory: usize,
    disk: u64,
    limited: bool,
}

impl Sort {
    pub(super) fn new(
        input: Box<dyn Operator>,
        keys: &[SortKey],
        limit: Option<&Expr>,
        builder: &mut Builder,
    ) -> Result<Sort> {
        let limit = limit.map(|e| Expression::compile(e, builder)).transpose()?;
        Ok(Sort {
            input,
            order: Order::compile(keys, builder)?,
            limit,
            sorted: None,
            held: Held::default(),
            done: Done::default(),
        })
    }

    fn sort(&mut self, context: &Context<'_>) -> Result<Sorted> {
        let limit = limit_value(self.limit.as_ref(), context)?;
        let limit = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        self.done = Done { limited: limit < usize::MAX, ..Done::default() };
        let (order, held, done) = (&self.order, &mut self.held, &mut self.done);
        let guard = &context.run.guard;
        let mut rows: Vec<Keyed> = Vec::new();
        let mut runs: Vec<Spill> = Vec::new();
        if limit == 0 {
            return Ok(Sorted::Rows(rows.into_iter()));
        }
        let directory = context.run.engine.temp_dir();
        // Twice as many as are wanted are gathered, then the worse half is dropped.
        let capacity = limit.saturating_mul(2).max(BATCH);
        let mut worst: Option<Vec<Datum>> = None;
        super::drain(self.input.as_mut(), context, |row| {
            let key = order.key(&row, context)?;
            if worst.as_ref().is_some_and(|w| order.compare(&key, w).is_ge()) {
                return Ok(());
            }
            let bytes = row_memory(&key) + row_memory(&row);
            if let Some(directory) = &directory
                && !rows.is_empty()
                && (held.bytes() + bytes > guard.work_memory() || !guard.has_room(bytes))
            {
                rows.sort_by(|a, b| order.compare(&a.0, &b.0));
                rows.truncate(limit);
                let mut run = Spill::new(directory)?;
                for keyed in rows.drain(..) {
                    guard.tick()?;
                    run.write(&keyed)?;
                }
                done.disk += run.bytes();
                runs.push(run);
                held.release(guard);
                if runs.len() >= MAX_RUNS {
                    let mut whole = Spill::new(directory)?;
                    let mut merge = Merge::new(std::mem::take(&mut runs), order)?;
                    let mut left = limit;
                    while left > 0
                        && let Some(keyed) = merge.next(order)?
                    {
                        guard.tick()?;
                        whole.write(&keyed)?;
                        left -= 1;
                    }
                    runs.push(whole);
                }
            }
            held.add_bytes(guard, bytes)?;
            done.memory = done.memory.max(held.bytes());
            rows.push((key, row));
            if rows.len() >= capacity {
                rows.sort_by(|a, b| order.compare(&a.0, &b.0));
                rows.truncate(limit);
                worst = rows.last().map(|r| r.0.clone());
                held.release(guard);
                for (key, row) in &rows {
                    held.add_bytes(guard, row_memory(key) + row_memory(row))?;
                }
            }
            Ok(())
        })?;
        rows.sort_by(|a, b| order.compare(&a.0, &b.0));
        rows.truncate(limit);
        if runs.is_empty() {
            return Ok(Sorted::Rows(rows.into_iter()));
        }
        let Some(directory) = &directory else { return Ok(Sorted::Rows(rows.into_iter())) };
        let mut last = Spill::new(directory)?;
        for keyed in rows {
            last.write(&keyed)?;
        }
        done.disk += last.bytes();
        runs.push(last);
        held.release(guard);
        let mut merge = Merge::new(runs, order)?;
        merge.left = limit;
        Ok(Sorted::Runs(merge))
    }
}

/// Merges sorted runs: a heap of the first row of each.
struct Merge {
    runs: Vec<Spilled>,
    /// The first rows, and the run that each is of: none comes before the one at half its place
    heap: Vec<(Keyed, usize)>,
    /// Rows still to give
    left: usize,
}

impl Merge {
    fn new(runs: Vec<Spill>, order: &Order) -> Result<Merge> {
        let runs = runs.into_iter().map(Spill::read).collect::<Result<Vec<_>>>()?;
        let mut merge = Merge { runs, heap: Vec::new(), left: usize::MAX };
        for run in 0..merge.runs.len() {
            if let Some(keyed) = merge.runs[run].next()? {
                merge.heap.push((keyed, run));
                let mut child = merge.heap.len() - 1;
                while child > 0 && merge.before(child, (child - 1) / 2, order) {
                    merge.heap.swap(child, (child - 1) / 2);
                    child = (child - 1) / 2;
                }
            }
        }
        Ok(merge)
    }

    /// Whether one place's row comes before another's; equal rows in the order of their runs.
    fn before(&self, a: usize, b: usize, order: &Order) -> bool {
        let ((x, i), (y, j)) = (&self.heap[a], &self.heap[b]);
        order.compare(&x.0, &y.0).then(i.cmp(j)).is_lt()
    }

    fn next(&mut self, order: &Order) -> Result<Option<Keyed>> {
        let Some(run) = self.heap.first().map(|(_, run)| *run).filter(|_| self.left > 0) else {
            return Ok(None);
        };
        self.left -= 1;
        let first = match self.runs[run].next()? {
            Some(keyed) => std::mem::replace(&mut self.heap[0], (keyed, run)),
            None => self.heap.swap_remove(0),
        };
        let mut parent = 0;
        loop {
            let mut least = parent;
            for child in [2 * parent + 1, 2 * parent + 2] {
                if child < self.heap.len() && self.before(child, least, order) {
                    least = child;
                }
            }
            if least == parent {
                return Ok(Some(first.0));
            }
            self.heap.swap(parent, least);
            parent = least;
        }
    }
}

impl Operator for Sort {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        if self.sorted.is_none() {
            self.sorted = Some(self.sort(context)?);
        }
        match &mut self.sorted {
            None => Ok(false),
            Some(Sorted::Rows(rows)) => {
                out.extend(rows.by_ref().take(BATCH).map(|(_, row)| row));
                if rows.len() == 0 {
                    self.held.release(&context.run.guard);
                    return Ok(false);
                }
                Ok(true)
            }
            Some(Sorted::Runs(merge)) => {
                for _ in 0..BATCH {
                    context.run.guard.tick()?;
                    match merge.next(&self.order)? {
                        Some((_, row)) => out.push(row),
                        None => return Ok(false),
                    }
                }
                Ok(true)
            }
        }
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.input.reset(context);
        self.sorted = None;
        self.held.release(&context.run.guard);
    }

    fn notes(&self) -> Vec<(&'static str, String)> {
        let Done { memory, disk, limited } = self.done;
        let kilobytes = |bytes: u64| bytes.div_ceil(1024);
        let note = match (disk, limited) {
            (0, false) => format!("quicksort  Memory: {}kB", kilobytes(memory as u64)),
            (0, true) => format!("top-N heapsort  Memory: {}kB", kilobytes(memory as u64)),
            _ => format!("external merge  Disk: {}kB", kilobytes(disk)),
        };
        vec![("Sort Method", note)]
    }
}

//! ORDER BY. With a limit only the best rows are kept.
//!
//! What does not fit into `work_mem` is sorted in parts, which are written to files and merged while they are
//! read (Knuth, The Art of Computer Programming 3, 5.4.1).

use std::cmp::Ordering;

use amphora_storage::{Datum, Row};

use super::guard::{Held, row_memory};
use super::projection::limit_value;
use super::spill::{Spill, Spilled};
use super::{BATCH, Builder, Context, Expression, Operator, Runtime};
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

    /// The order of two rows' keys. What is behind the keys of this order is compared as it is.
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
        let known = self.directions.len();
        match (a.get(known..), b.get(known..)) {
            (Some(a), Some(b)) => a.cmp(b),
            _ => Ordering::Equal,
        }
    }
}

/// What a row is ordered by, and the row.
pub(super) type Keyed = (Vec<Datum>, Row);

/// Runs that are merged at a time; more become one first.
const MAX_RUNS: usize = 128;

/// Sorts what it is given.
pub(super) struct Sorter {
    /// Rows that are wanted
    limit: usize,
    rows: Vec<Keyed>,
    runs: Vec<Spill>,
    /// What a row must come before
    worst: Option<Vec<Datum>>,
    held: Held,
    done: Done,
}

/// Rows in order.
pub(super) enum Sorted {
    /// All in memory
    Rows(std::vec::IntoIter<Keyed>, Held),
    /// In runs that are merged while they are read
    Runs(Merge),
}

/// What was done, for EXPLAIN ANALYZE.
#[derive(Clone, Copy, Default)]
pub(super) struct Done {
    memory: usize,
    disk: u64,
    limited: bool,
}

impl Sorter {
    /// A sorter of which so many rows are wanted.
    pub(super) fn new(limit: usize) -> Sorter {
        Sorter {
            limit,
            rows: Vec::new(),
            runs: Vec::new(),
            worst: None,
            held: Held::default(),
            done: Done { limited: limit < usize::MAX, ..Done::default() },
        }
    }

    /// Adds a row with its key.
    pub(super) fn push(&mut self, order: &Order, key: Vec<Datum>, row: Row, run: &Runtime) -> Result<()> {
        if self.worst.as_ref().is_some_and(|w| order.compare(&key, w).is_ge()) {
            return Ok(());
        }
        let bytes = row_memory(&key) + row_memory(&row);
        if !self.rows.is_empty() && run.is_over(&self.held, bytes) {
            self.spill(order, run)?;
        }
        self.held.add_bytes(&run.guard, bytes)?;
        self.done.memory = self.done.memory.max(self.held.bytes());
        self.rows.push((key, row));
        // Twice as many as are wanted are gathered, then the worse half is dropped.
        if self.rows.len() >= self.limit.saturating_mul(2).max(BATCH) {
            self.arrange(order);
            self.worst = self.rows.last().map(|r| r.0.clone());
            self.held.release(&run.guard);
            for (key, row) in &self.rows {
                self.held.add_bytes(&run.guard, row_memory(key) + row_memory(row))?;
            }
        }
        Ok(())
    }

    fn arrange(&mut self, order: &Order) {
        self.rows.sort_by(|a, b| order.compare(&a.0, &b.0));
        self.rows.truncate(self.limit);
    }

    /// Writes the rows in memory as a run.
    fn spill(&mut self, order: &Order, run: &Runtime) -> Result<()> {
        self.arrange(order);
        let mut file = run.new_spill()?;
        for keyed in self.rows.drain(..) {
            run.guard.tick()?;
            file.write(&keyed)?;
        }
        self.done.disk += file.bytes();
        self.runs.push(file);
        self.held.release(&run.guard);
        if self.runs.len() < MAX_RUNS {
            return Ok(());
        }
        let mut whole = run.new_spill()?;
        let mut merge = Merge::new(std::mem::take(&mut self.runs), order, self.limit)?;
        while let Some(keyed) = merge.next(order)? {
            run.guard.tick()?;
            whole.write(&keyed)?;
        }
        self.runs.push(whole);
        Ok(())
    }

    /// The rows in order, and what was done.
    pub(super) fn finish(mut self, order: &Order, run: &Runtime) -> Result<(Sorted, Done)> {
        if self.runs.is_empty() {
            self.arrange(order);
            return Ok((Sorted::Rows(self.rows.into_iter(), self.held), self.done));
        }
        if !self.rows.is_empty() {
            self.spill(order, run)?;
        }
        Ok((Sorted::Runs(Merge::new(self.runs, order, self.limit)?), self.done))
    }
}

impl Sorted {
    /// The next row and its key.
    pub(super) fn next(&mut self, order: &Order, run: &Runtime) -> Result<Option<Keyed>> {
        run.guard.tick()?;
        match self {
            Sorted::Runs(merge) => merge.next(order),
            Sorted::Rows(rows, held) => {
                let next = rows.next();
                if next.is_none() {
                    held.release(&run.guard);
                }
                Ok(next)
            }
        }
    }

    /// Gives back what is counted for rows in memory.
    pub(super) fn release(&mut self, run: &Runtime) {
        if let Sorted::Rows(_, held) = self {
            held.release(&run.guard);
        }
    }
}

pub(super) struct Sort {
    input: Box<dyn Operator>,
    order: Order,
    limit: Option<Expression>,
    sorted: Option<Sorted>,
    done: Done,
}

impl Sort {
    pub(super) fn new(
        input: Box<dyn Operator>,
        keys: &[SortKey],
        limit: Option<&Expr>,
        builder: &mut Builder,
    ) -> Result<Sort> {
        let limit = limit.map(|e| Expression::compile(e, builder)).transpose()?;
        Ok(Sort { input, order: Order::compile(keys, builder)?, limit, sorted: None, done: Done::default() })
    }

    fn sort(&mut self, context: &Context<'_>) -> Result<Sorted> {
        let limit = limit_value(self.limit.as_ref(), context)?;
        let limit = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        let mut sorter = Sorter::new(limit);
        let order = &self.order;
        if limit > 0 {
            super::drain(self.input.as_mut(), context, |row| {
                let key = order.key(&row, context)?;
                sorter.push(order, key, row, context.run)
            })?;
        }
        let (sorted, done) = sorter.finish(order, context.run)?;
        self.done = done;
        Ok(sorted)
    }
}

/// Merges sorted runs: a heap of the first row of each.
pub(super) struct Merge {
    runs: Vec<Spilled>,
    /// The first rows, and the run that each is of: none comes before the one at half its place
    heap: Vec<(Keyed, usize)>,
    /// Rows still to give
    left: usize,
}

impl Merge {
    fn new(runs: Vec<Spill>, order: &Order, limit: usize) -> Result<Merge> {
        let read = |run: Spill| run.finish().map(|file| file.read());
        let runs = runs.into_iter().map(read).collect::<Result<Vec<_>>>()?;
        let mut merge = Merge { runs, heap: Vec::new(), left: limit };
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
            Some(Sorted::Rows(rows, held)) => {
                out.extend(rows.by_ref().take(BATCH).map(|(_, row)| row));
                if rows.len() == 0 {
                    held.release(&context.run.guard);
                    return Ok(false);
                }
                Ok(true)
            }
            Some(sorted) => {
                for _ in 0..BATCH {
                    match sorted.next(&self.order, context.run)? {
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
        if let Some(mut sorted) = self.sorted.take() {
            sorted.release(context.run);
        }
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

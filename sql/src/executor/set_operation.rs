//! UNION ALL, INTERSECT and EXCEPT.

use std::collections::HashMap;

use amphora_storage::Row;

use super::guard::{Held, row_memory};
use super::partition::{MAX_LEVEL, Partitions};
use super::spill::{SpillFile, Spilled};
use super::{BATCH, Context, Operator, Runtime};
use crate::error::Result;

/// The rows of one input after those of the other.
pub(super) struct Append {
    inputs: Vec<Box<dyn Operator>>,
    current: usize,
}

impl Append {
    pub(super) fn new(inputs: Vec<Box<dyn Operator>>) -> Append {
        Append { inputs, current: 0 }
    }
}

impl Operator for Append {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        let Some(input) = self.inputs.get_mut(self.current) else { return Ok(false) };
        if !input.next(context, out)? {
            self.current += 1;
        }
        Ok(self.current < self.inputs.len())
    }

    fn reset(&mut self, context: &Context<'_>) {
        for input in &mut self.inputs {
            input.reset(context);
        }
        self.current = 0;
    }
}

/// Left rows that the right side has (INTERSECT) or has not (EXCEPT). EXCEPT without ALL still wants its
/// equal rows made one.
///
/// The right side's rows are counted in a hash table. If they do not fit into `work_mem`, both sides are
/// divided among files, and files of the same place are worked on one by one.
pub(super) struct SetOperation {
    left: Box<dyn Operator>,
    right: Box<dyn Operator>,
    intersect: bool,
    all: bool,
    /// How often the right side has each row. In INTERSECT without ALL, 0 marks one that was given.
    counts: Option<HashMap<Row, u64>>,
    held: Held,
    rows: Vec<Row>,
    /// Left rows in a file; `None` is the left side itself
    file: Option<Spilled>,
    tasks: Vec<Task>,
}

/// Two files of one place.
struct Task {
    left: SpillFile,
    right: Option<SpillFile>,
    level: u32,
}

impl SetOperation {
    pub(super) fn new(
        left: Box<dyn Operator>,
        right: Box<dyn Operator>,
        intersect: bool,
        all: bool,
    ) -> SetOperation {
        SetOperation {
            left,
            right,
            intersect,
            all,
            counts: None,
            held: Held::default(),
            rows: Vec::new(),
            file: None,
            tasks: Vec::new(),
        }
    }

    /// Counts a row `times` more; `false` if there is no room for it.
    fn count(
        counts: &mut HashMap<Row, u64>,
        (row, times): (&Row, u64),
        can_divide: bool,
        held: &mut Held,
        run: &Runtime,
    ) -> Result<bool> {
        if let Some(n) = counts.get_mut(row) {
            *n += times;
            return Ok(true);
        }
        let bytes = row_memory(row) + 24;
        if can_divide && !counts.is_empty() && run.is_over(held, bytes) {
            return Ok(false);
        }
        held.add_bytes(&run.guard, bytes)?;
        counts.insert(row.clone(), times);
        Ok(true)
    }

    /// Counts the right side, or divides both.
    fn begin(&mut self, context: &Context<'_>) -> Result<HashMap<Row, u64>> {
        let run = context.run;
        let mut counts = HashMap::new();
        let mut files: Option<Partitions> = None;
        let held = &mut self.held;
        super::drain(self.right.as_mut(), context, |row| {
            if files.is_none() {
                if SetOperation::count(&mut counts, (&row, 1), true, held, run)? {
                    return Ok(());
                }
                let files = files.insert(Partitions::new(0));
                for (row, times) in counts.drain() {
                    files.write(run, &row, &(&row, times))?;
                }
                held.release(&run.guard);
            }
            match &mut files {
                Some(files) => files.write(run, &row, &(&row, 1_u64)),
                None => Ok(()),
            }
        })?;
        if let Some(right) = files {
            let mut left = Partitions::new(0);
            super::drain(self.left.as_mut(), context, |row| left.write(run, &row, &row))?;
            self.divide(left, right)?;
        }
        Ok(counts)
    }

    fn divide(&mut self, left: Partitions, right: Partitions) -> Result<()> {
        let (level, left, right) = (left.next_level(), left.finish()?, right.finish()?);
        for (left, right) in left.into_iter().zip(right) {
            if let Some(left) = left
                && (right.is_some() || !self.intersect)
            {
                self.tasks.push(Task { left, right, level });
            }
        }
        Ok(())
    }

    /// Makes the next pair of files ready; false if there is none.
    fn proceed(&mut self, context: &Context<'_>) -> Result<bool> {
        let run = context.run;
        while let Some(task) = self.tasks.pop() {
            self.held.release(&run.guard);
            let mut counts = HashMap::new();
            let mut fits = true;
            if let Some(right) = &task.right {
                let mut rows = right.read();
                while fits && let Some((row, times)) = rows.next::<(Row, u64)>()? {
                    run.guard.tick()?;
                    let can_divide = task.level < MAX_LEVEL;
                    fits = SetOperation::count(&mut counts, (&row, times), can_divide, &mut self.held, run)?;
                }
            }
            if fits {
                self.file = Some(task.left.read());
                self.counts = Some(counts);
                return Ok(true);
            }
            drop(counts);
            let (mut left, mut right) = (Partitions::new(task.level), Partitions::new(task.level));
            let mut rows = task.left.read();
            while let Some(row) = rows.next::<Row>()? {
                left.write(run, &row, &row)?;
            }
            if let Some(file) = &task.right {
                let mut rows = file.read();
                while let Some((row, times)) = rows.next::<(Row, u64)>()? {
                    right.write(run, &row, &(&row, times))?;
                }
            }
            self.divide(left, right)?;
        }
        Ok(false)
    }
}

impl Operator for SetOperation {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        context.run.guard.check()?;
        if self.counts.is_none() {
            let counts = self.begin(context)?;
            self.counts = Some(counts);
            if !self.tasks.is_empty() {
                return self.proceed(context);
            }
        }
        let Some(counts) = &mut self.counts else { return Ok(false) };
        let more = match &mut self.file {
            None => self.left.next(context, &mut self.rows)?,
            Some(file) => {
                while self.rows.len() < BATCH
                    && let Some(row) = file.next()?
                {
                    self.rows.push(row);
                }
                file.left() > 0
            }
        };
        for row in self.rows.drain(..) {
            let give = match (self.intersect, self.all, counts.get_mut(&row)) {
                (true, true, Some(n)) if *n > 0 => {
                    *n -= 1;
                    true
                }
                (true, false, Some(n)) if *n > 0 => {
                    *n = 0;
                    true
                }
                (false, true, Some(n)) if *n > 0 => {
                    *n -= 1;
                    false
                }
                (false, true, _) | (false, false, None) => true,
                _ => false,
            };
            if give {
                out.push(row);
            }
        }
        if more { Ok(true) } else { self.proceed(context) }
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.left.reset(context);
        self.right.reset(context);
        self.counts = None;
        self.file = None;
        self.tasks.clear();
        self.held.release(&context.run.guard);
    }
}

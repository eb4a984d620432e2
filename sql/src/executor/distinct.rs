//! DISTINCT and DISTINCT ON: the first row of each kind.
//!
//! Where equal rows come one after the other, the last one is all that is remembered. Otherwise the kinds
//! that have been seen are in a hash table; rows of further kinds than fit into `work_mem` are divided
//! among files, which are worked on one by one at the end.

use std::collections::HashSet;

use amphora_storage::{Datum, Row};

use super::expression::eval_all;
use super::guard::{Held, row_memory};
use super::partition::{MAX_LEVEL, Partitions, Pending, pending};
use super::{BATCH, Context, Expression, Operator};
use crate::error::Result;

pub(super) struct HashDistinct {
    input: Box<dyn Operator>,
    on: Vec<Expression>,
    seen: HashSet<Vec<Datum>>,
    held: Held,
    rows: Vec<Row>,
    /// What is being read: the input, or what was set aside
    file: Option<Pending>,
    others: Option<Partitions>,
    pending: Vec<Pending>,
    done: Done,
}

/// What was done, for EXPLAIN ANALYZE.
#[derive(Default)]
struct Done {
    memory: usize,
    disk: u64,
    batches: usize,
}

impl HashDistinct {
    pub(super) fn new(input: Box<dyn Operator>, on: Vec<Expression>) -> HashDistinct {
        HashDistinct {
            input,
            on,
            seen: HashSet::new(),
            held: Held::default(),
            rows: Vec::new(),
            file: None,
            others: None,
            pending: Vec::new(),
            done: Done::default(),
        }
    }

    fn add(&mut self, row: Row, context: &Context<'_>, out: &mut Vec<Row>) -> Result<()> {
        let key = eval_all(&self.on, &row, context)?;
        if self.seen.contains(&key) {
            return Ok(());
        }
        let level = self.file.as_ref().map_or(0, |file| file.level);
        let bytes = row_memory(&key) + 16;
        let full = self.others.is_some()
            || (!self.seen.is_empty() && level < MAX_LEVEL && context.run.is_over(&self.held, bytes));
        if full {
            let others = self.others.get_or_insert_with(|| Partitions::new(level));
            return others.write(context.run, &key, &row);
        }
        self.held.add_bytes(&context.run.guard, bytes)?;
        self.done.memory = self.done.memory.max(self.held.bytes());
        self.seen.insert(key);
        out.push(row);
        Ok(())
    }

    /// What is being read is at its end; true if there is more to read.
    fn proceed(&mut self, context: &Context<'_>) -> Result<bool> {
        self.done.batches += 1;
        if let Some(others) = self.others.take() {
            self.done.disk += others.bytes();
            self.pending.extend(pending(others)?);
        }
        self.file = self.pending.pop();
        if self.file.is_some() {
            self.seen.clear();
            self.held.release(&context.run.guard);
        }
        Ok(self.file.is_some())
    }
}

impl Operator for HashDistinct {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        context.run.guard.check()?;
        let mut rows = std::mem::take(&mut self.rows);
        let more = match &mut self.file {
            None => self.input.next(context, &mut rows)?,
            Some(file) => {
                while rows.len() < BATCH
                    && let Some(row) = file.rows.next()?
                {
                    rows.push(row);
                }
                file.rows.left() > 0
            }
        };
        for row in rows.drain(..) {
            self.add(row, context, out)?;
        }
        self.rows = rows;
        if more { Ok(true) } else { self.proceed(context) }
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.input.reset(context);
        self.seen.clear();
        self.file = None;
        self.others = None;
        self.pending.clear();
        self.held.release(&context.run.guard);
    }

    fn notes(&self) -> Vec<(&'static str, String)> {
        let Done { memory, disk, batches } = self.done;
        let mut note = format!("{}  Memory Usage: {}kB", batches.max(1), memory.div_ceil(1024).max(1));
        if disk > 0 {
            note.push_str(&format!("  Disk Usage: {}kB", disk.div_ceil(1024)));
        }
        vec![("Batches", note)]
    }
}

/// DISTINCT of rows that come in an order in which equal ones are neighbours.
pub(super) struct Unique {
    input: Box<dyn Operator>,
    on: Vec<Expression>,
    last: Option<Vec<Datum>>,
}

impl Unique {
    pub(super) fn new(input: Box<dyn Operator>, on: Vec<Expression>) -> Unique {
        Unique { input, on, last: None }
    }
}

impl Operator for Unique {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        context.run.guard.check()?;
        let mut rows = Vec::new();
        let more = self.input.next(context, &mut rows)?;
        for row in rows {
            let key = eval_all(&self.on, &row, context)?;
            if self.last.as_ref() != Some(&key) {
                self.last = Some(key);
                out.push(row);
            }
        }
        Ok(more)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.input.reset(context);
        self.last = None;
    }
}

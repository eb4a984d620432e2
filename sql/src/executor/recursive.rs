//! WITH RECURSIVE: the base's rows, then the step over the last rows it gave, until it gives none.

use std::collections::HashSet;
use std::sync::Arc;

use amphora_storage::Row;

use super::buffer::RowBuffer;
use super::guard::Held;
use super::{Context, Operator};
use crate::error::Result;

pub(super) struct Recursive {
    id: usize,
    base: Box<dyn Operator>,
    step: Box<dyn Operator>,
    /// UNION: rows already given are dropped
    distinct: bool,
    seen: HashSet<Row>,
    held: Held,
    /// What is being read: the base, or the step
    stepping: bool,
    /// Rows given since the step began: its next input
    fresh: RowBuffer,
    /// What the step's input takes
    work_held: Held,
}

impl Recursive {
    pub(super) fn new(
        id: usize,
        base: Box<dyn Operator>,
        step: Box<dyn Operator>,
        distinct: bool,
    ) -> Recursive {
        Recursive {
            id,
            base,
            step,
            distinct,
            seen: HashSet::new(),
            held: Held::default(),
            stepping: false,
            fresh: RowBuffer::default(),
            work_held: Held::default(),
        }
    }
}

impl Operator for Recursive {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        let guard = &context.run.guard;
        guard.check()?;
        let start = out.len();
        let side = if self.stepping { &mut self.step } else { &mut self.base };
        let more = side.next(context, out)?;
        if self.distinct {
            let mut kept = start;
            for i in start..out.len() {
                if !self.seen.contains(&out[i]) {
                    self.held.add(guard, &out[i])?;
                    self.seen.insert(out[i].clone());
                    out.swap(kept, i);
                    kept += 1;
                }
            }
            out.truncate(kept);
        }
        for row in &out[start..] {
            self.fresh.push(context.run, row.clone())?;
        }
        if more {
            return Ok(true);
        }
        if self.fresh.is_empty() {
            return Ok(false);
        }
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.finish()?;
        // From here on the rows of the step before are not counted any more.
        self.work_held.release(guard);
        self.work_held = fresh.take_held();
        context.set_work_table(self.id, Arc::new(fresh));
        if std::mem::replace(&mut self.stepping, true) {
            self.step.reset(context);
        }
        Ok(true)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.base.reset(context);
        if std::mem::replace(&mut self.stepping, false) {
            self.step.reset(context);
        }
        self.seen.clear();
        self.fresh.clear(context.run);
        self.work_held.release(&context.run.guard);
        self.held.release(&context.run.guard);
    }
}

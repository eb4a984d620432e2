//! UNION ALL, INTERSECT and EXCEPT.

use std::collections::HashMap;

use amphora_storage::Row;

use super::guard::Held;
use super::{Context, Operator};
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

/// Left rows that the right side has (INTERSECT) or has not (EXCEPT).
pub(super) struct SetOperation {
    left: Box<dyn Operator>,
    right: Box<dyn Operator>,
    intersect: bool,
    all: bool,
    /// How often the right side has each row. Without ALL, 0 marks a row that was already given.
    counts: Option<HashMap<Row, u64>>,
    held: Held,
    rows: Vec<Row>,
}

impl SetOperation {
    pub(super) fn new(
        left: Box<dyn Operator>,
        right: Box<dyn Operator>,
        intersect: bool,
        all: bool,
    ) -> SetOperation {
        SetOperation { left, right, intersect, all, counts: None, held: Held::default(), rows: Vec::new() }
    }

    fn count(&mut self, context: &Context<'_>) -> Result<HashMap<Row, u64>> {
        let mut counts = HashMap::new();
        let held = &mut self.held;
        super::drain(self.right.as_mut(), context, |row| {
            match counts.get_mut(&row) {
                Some(n) => *n += 1,
                None => {
                    held.add(&context.run.guard, &row)?;
                    counts.insert(row, 1);
                }
            }
            Ok(())
        })?;
        Ok(counts)
    }
}

impl Operator for SetOperation {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        context.run.guard.check()?;
        if self.counts.is_none() {
            self.counts = Some(self.count(context)?);
        }
        let Some(counts) = &mut self.counts else { return Ok(false) };
        let more = self.left.next(context, &mut self.rows)?;
        for row in self.rows.drain(..) {
            let count = counts.get_mut(&row);
            let give = match (self.intersect, self.all, count) {
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
                (false, true, _) => true,
                (false, false, None) => {
                    self.held.add(&context.run.guard, &row)?;
                    counts.insert(row.clone(), 0);
                    true
                }
                _ => false,
            };
            if give {
                out.push(row);
            }
        }
        Ok(more)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.left.reset(context);
        self.right.reset(context);
        self.counts = None;
        self.held.release(&context.run.guard);
    }
}

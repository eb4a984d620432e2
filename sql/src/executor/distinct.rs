//! DISTINCT and DISTINCT ON: the first row of each kind.

use std::collections::HashSet;

use amphora_storage::{Datum, Row};

use super::expression::eval_all;
use super::guard::Held;
use super::{Context, Expression, Operator};
use crate::error::Result;

pub(super) struct HashDistinct {
    input: Box<dyn Operator>,
    on: Vec<Expression>,
    seen: HashSet<Vec<Datum>>,
    held: Held,
    rows: Vec<Row>,
}

impl HashDistinct {
    pub(super) fn new(input: Box<dyn Operator>, on: Vec<Expression>) -> HashDistinct {
        HashDistinct { input, on, seen: HashSet::new(), held: Held::default(), rows: Vec::new() }
    }
}

impl Operator for HashDistinct {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        context.run.guard.check()?;
        let more = self.input.next(context, &mut self.rows)?;
        for row in self.rows.drain(..) {
            let key = eval_all(&self.on, &row, context)?;
            if !self.seen.contains(&key) {
                self.held.add(&context.run.guard, &key)?;
                self.seen.insert(key);
                out.push(row);
            }
        }
        Ok(more)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.input.reset(context);
        self.seen.clear();
        self.held.release(&context.run.guard);
    }
}

//! GROUP BY over rows that come ordered by the group's keys: a group ends where the next key begins.

use amphora_storage::Row;

use super::aggregate::{AggregateCall, Group};
use super::expression::eval_all;
use super::guard::Held;
use super::{Builder, Context, Expression, Operator};
use crate::error::Result;
use crate::expr::Expr;
use crate::plan::Aggregate;

pub(super) struct SortedAggregate {
    input: Box<dyn Operator>,
    keys: Vec<Expression>,
    calls: Vec<AggregateCall>,
    group: Option<Group>,
    held: Held,
}

impl SortedAggregate {
    pub(super) fn new(
        input: Box<dyn Operator>,
        keys: &[Expr],
        aggregates: &[Aggregate],
        builder: &mut Builder,
    ) -> Result<SortedAggregate> {
        let keys = Expression::compile_all(keys, builder)?;
        let calls = aggregates.iter().map(|a| AggregateCall::compile(a, builder)).collect::<Result<_>>()?;
        Ok(SortedAggregate { input, keys, calls, group: None, held: Held::default() })
    }

    /// Ends the group at hand.
    fn end(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<()> {
        if let Some(group) = self.group.take() {
            out.push(group.finish(&self.calls, context)?);
            self.held.release(&context.run.guard);
        }
        Ok(())
    }
}

impl Operator for SortedAggregate {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        context.run.guard.check()?;
        let mut rows = Vec::new();
        let more = self.input.next(context, &mut rows)?;
        for row in rows {
            context.run.guard.tick()?;
            let key = eval_all(&self.keys, &row, context)?;
            if self.group.as_ref().is_some_and(|group| group.key != key) {
                self.end(context, out)?;
            }
            let group = match &mut self.group {
                Some(group) => group,
                None => self.group.insert(Group::new(key, &self.calls, context)),
            };
            group.add(&row, &self.calls, context, &mut self.held)?;
        }
        if !more {
            self.end(context, out)?;
        }
        Ok(more)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.input.reset(context);
        self.group = None;
        self.held.release(&context.run.guard);
    }
}

//! Aggregate calls and the groups they are made over.
//!
//! DISTINCT and ORDER BY inside a call keep the group's arguments until its end and hand them on sorted, as
//! PostgreSQL does; beyond `work_mem` they are in files.

use amphora_storage::{DataType, Datum, Row};

use super::expression::eval_all;
use super::guard::Held;
use super::sort::{Order, Sorter};
use super::{Builder, Context, Expression};
use crate::error::Result;
use crate::expr::Expr;
use crate::functions::{AggregateFunction, AggregateState};
use crate::plan::Aggregate;

/// After how many rows a state's memory is looked at again.
const ROWS_PER_MEASURE: u32 = 32;

/// One compiled aggregate call.
pub(super) struct AggregateCall {
    function: &'static AggregateFunction,
    arg_types: Vec<DataType>,
    args: Vec<Expression>,
    filter: Option<Expression>,
    distinct: bool,
    order: Order,
}

impl AggregateCall {
    pub(super) fn compile(aggregate: &Aggregate, builder: &mut Builder) -> Result<AggregateCall> {
        Ok(AggregateCall {
            function: aggregate.function,
            arg_types: aggregate.args.iter().map(Expr::ty).collect(),
            args: Expression::compile_all(&aggregate.args, builder)?,
            filter: aggregate.filter.as_ref().map(|f| Expression::compile(f, builder)).transpose()?,
            distinct: aggregate.distinct,
            order: Order::compile(&aggregate.order_by, builder)?,
        })
    }

    fn new_state(&self, context: &Context<'_>) -> State {
        let state = (self.function.new_state)(&self.arg_types, &context.run.eval);
        let kept = (self.distinct || !self.order.is_empty()).then(|| Sorter::new(usize::MAX));
        State { state, kept, rows: 0, measured: 0 }
    }
}

/// One call's state in one group.
struct State {
    state: Box<dyn AggregateState>,
    /// Arguments, where they must wait for the end
    kept: Option<Sorter>,
    rows: u32,
    measured: usize,
}

impl State {
    fn update(
        &mut self,
        call: &AggregateCall,
        row: &[Datum],
        context: &Context<'_>,
        held: &mut Held,
    ) -> Result<()> {
        if let Some(filter) = &call.filter
            && !filter.is_true(row, context)?
        {
            return Ok(());
        }
        let args = eval_all(&call.args, row, context)?;
        if let Some(kept) = &mut self.kept {
            let mut key = call.order.key(row, context)?;
            if call.distinct {
                // Equal arguments have equal keys, and so come one after the other.
                key.extend_from_slice(&args);
            }
            return kept.push(&call.order, key, args, context.run);
        }
        self.state.update(&args)?;
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS_PER_MEASURE) {
            let memory = self.state.memory();
            held.add_bytes(&context.run.guard, memory.saturating_sub(self.measured))?;
            self.measured = self.measured.max(memory);
        }
        Ok(())
    }

    fn finish(mut self, call: &AggregateCall, context: &Context<'_>) -> Result<Datum> {
        if let Some(kept) = self.kept.take() {
            let (mut sorted, _) = kept.finish(&call.order, context.run)?;
            let mut last: Option<Vec<Datum>> = None;
            while let Some((_, args)) = sorted.next(&call.order, context.run)? {
                if call.distinct && last.as_ref() == Some(&args) {
                    continue;
                }
                self.state.update(&args)?;
                last = call.distinct.then_some(args);
            }
        }
        self.state.finish()
    }
}

/// A group that is being made.
pub(super) struct Group {
    pub(super) key: Vec<Datum>,
    states: Vec<State>,
}

impl Group {
    /// A group without rows.
    pub(super) fn new(key: Vec<Datum>, calls: &[AggregateCall], context: &Context<'_>) -> Group {
        Group { key, states: calls.iter().map(|c| c.new_state(context)).collect() }
    }

    /// One more row.
    pub(super) fn add(
        &mut self,
        row: &[Datum],
        calls: &[AggregateCall],
        context: &Context<'_>,
        held: &mut Held,
    ) -> Result<()> {
        for (state, call) in self.states.iter_mut().zip(calls) {
            state.update(call, row, context, held)?;
        }
        Ok(())
    }

    /// The row that it gives.
    pub(super) fn finish(self, calls: &[AggregateCall], context: &Context<'_>) -> Result<Row> {
        let Group { key: mut row, states } = self;
        for (state, call) in states.into_iter().zip(calls) {
            row.push(state.finish(call, context)?);
        }
        Ok(row)
    }
}

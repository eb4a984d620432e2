//! GROUP BY by hashing.
//!
//! Groups come out in the order in which they were first seen. DISTINCT and ORDER BY inside a call keep
//! the group's arguments until its end and hand them on sorted, as PostgreSQL does.

use std::collections::HashMap;

use amphora_storage::{DataType, Datum, Row};

use super::expression::eval_all;
use super::guard::{Held, row_memory};
use super::sort::Order;
use super::{BATCH, Builder, Context, Expression, Operator};
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
    fn compile(aggregate: &Aggregate, builder: &mut Builder) -> Result<AggregateCall> {
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
        let kept = (self.distinct || !self.order.is_empty()).then(Vec::new);
        State { state, kept, rows: 0, measured: 0 }
    }
}

/// One call's state in one group.
struct State {
    state: Box<dyn AggregateState>,
    /// (sort key, arguments), where they must wait for the end
    kept: Option<Vec<(Vec<Datum>, Vec<Datum>)>>,
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
            let key = call.order.key(row, context)?;
            held.add_bytes(&context.run.guard, row_memory(&key) + row_memory(&args))?;
            kept.push((key, args));
            return Ok(());
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

    fn finish(&mut self, call: &AggregateCall) -> Result<Datum> {
        if let Some(mut kept) = self.kept.take() {
            if call.distinct {
                kept.sort_by(|a, b| a.1.cmp(&b.1));
                kept.dedup_by(|a, b| a.1 == b.1);
            }
            kept.sort_by(|a, b| call.order.compare(&a.0, &b.0));
            for (_, args) in &kept {
                self.state.update(args)?;
            }
        }
        self.state.finish()
    }
}

pub(super) struct HashAggregate {
    input: Box<dyn Operator>,
    keys: Vec<Expression>,
    calls: Vec<AggregateCall>,
    groups: Option<std::vec::IntoIter<Group>>,
    held: Held,
}

struct Group {
    key: Vec<Datum>,
    states: Vec<State>,
}

impl HashAggregate {
    pub(super) fn new(
        input: Box<dyn Operator>,
        keys: &[Expr],
        aggregates: &[Aggregate],
        builder: &mut Builder,
    ) -> Result<HashAggregate> {
        let keys = Expression::compile_all(keys, builder)?;
        let calls = aggregates.iter().map(|a| AggregateCall::compile(a, builder)).collect::<Result<_>>()?;
        Ok(HashAggregate { input, keys, calls, groups: None, held: Held::default() })
    }

    fn group(&mut self, context: &Context<'_>) -> Result<Vec<Group>> {
        let (keys, calls, held) = (&self.keys, &self.calls, &mut self.held);
        let new_group =
            |key: Vec<Datum>| Group { key, states: calls.iter().map(|c| c.new_state(context)).collect() };
        let mut groups: Vec<Group> = Vec::new();
        if keys.is_empty() {
            groups.push(new_group(Vec::new()));
        }
        let mut positions: HashMap<Vec<Datum>, usize> = HashMap::new();
        super::drain(self.input.as_mut(), context, |row| {
            let position = if keys.is_empty() {
                0
            } else {
                let key = eval_all(keys, &row, context)?;
                match positions.get(&key) {
                    Some(position) => *position,
                    None => {
                        let memory = 2 * row_memory(&key) + 64 + 96 * calls.len();
                        held.add_bytes(&context.run.guard, memory)?;
                        groups.push(new_group(key.clone()));
                        positions.insert(key, groups.len() - 1);
                        groups.len() - 1
                    }
                }
            };
            if let Some(group) = groups.get_mut(position) {
                for (state, call) in group.states.iter_mut().zip(calls) {
                    state.update(call, &row, context, held)?;
                }
            }
            Ok(())
        })?;
        Ok(groups)
    }
}

impl Operator for HashAggregate {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        if self.groups.is_none() {
            self.groups = Some(self.group(context)?.into_iter());
        }
        let Some(groups) = &mut self.groups else { return Ok(false) };
        for group in groups.by_ref().take(BATCH) {
            let Group { key: mut row, mut states } = group;
            for (state, call) in states.iter_mut().zip(&self.calls) {
                row.push(state.finish(call)?);
            }
            out.push(row);
        }
        if groups.len() == 0 {
            self.held.release(&context.run.guard);
            return Ok(false);
        }
        Ok(true)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.input.reset(context);
        self.groups = None;
        self.held.release(&context.run.guard);
    }
}

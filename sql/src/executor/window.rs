//! Window functions over the default frame: from the partition's start to the current row's last peer.

use amphora_storage::{DataType, Datum, Row};

use super::expression::eval_all;
use super::guard::Held;
use super::sort::Order;
use super::{BATCH, Builder, Context, Expression, Operator};
use crate::error::Result;
use crate::expr::Expr;
use crate::functions::AggregateFunction;
use crate::plan::{SortKey, WindowCall, WindowFunction};

pub(super) struct Window {
    input: Box<dyn Operator>,
    calls: Vec<Call>,
    rows: Option<std::vec::IntoIter<Row>>,
    held: Held,
}

struct Call {
    function: WindowFunction,
    args: Vec<Expression>,
    arg_types: Vec<DataType>,
    partition: Order,
    order: Order,
}

/// A row, its place in its partition, and its arguments.
struct Member {
    partition: Vec<Datum>,
    order: Vec<Datum>,
    args: Vec<Datum>,
    row: Row,
}

impl Window {
    pub(super) fn new(
        input: Box<dyn Operator>,
        calls: &[WindowCall],
        builder: &mut Builder,
    ) -> Result<Window> {
        let calls = calls
            .iter()
            .map(|call| {
                let partition: Vec<SortKey> = call
                    .partition_by
                    .iter()
                    .map(|expr| SortKey { expr: expr.clone(), descending: false, nulls_first: false })
                    .collect();
                Ok(Call {
                    function: call.function,
                    args: Expression::compile_all(&call.args, builder)?,
                    arg_types: call.args.iter().map(Expr::ty).collect(),
                    partition: Order::compile(&partition, builder)?,
                    order: Order::compile(&call.order_by, builder)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Window { input, calls, rows: None, held: Held::default() })
    }

    fn run(&mut self, context: &Context<'_>) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let held = &mut self.held;
        super::drain(self.input.as_mut(), context, |row| {
            held.add(&context.run.guard, &row)?;
            rows.push(row);
            Ok(())
        })?;
        for call in &self.calls {
            rows = call.run(rows, context)?;
        }
        Ok(rows)
    }
}

impl Call {
    /// Adds this call's column to all rows, which come out in the window's order.
    fn run(&self, rows: Vec<Row>, context: &Context<'_>) -> Result<Vec<Row>> {
        let mut members = Vec::with_capacity(rows.len());
        for row in rows {
            context.run.guard.tick()?;
            members.push(Member {
                partition: self.partition.key(&row, context)?,
                order: self.order.key(&row, context)?,
                args: eval_all(&self.args, &row, context)?,
                row,
            });
        }
        members.sort_by(|a, b| {
            self.partition
                .compare(&a.partition, &b.partition)
                .then_with(|| self.order.compare(&a.order, &b.order))
        });
        let mut values = Vec::with_capacity(members.len());
        for partition in members.chunk_by(|a, b| a.partition == b.partition) {
            context.run.guard.check()?;
            self.partition_values(partition, &mut values, context)?;
        }
        let finished = members.into_iter().zip(values).map(|(member, value)| {
            let mut row = member.row;
            row.push(value);
            row
        });
        Ok(finished.collect())
    }

    fn partition_values(
        &self,
        members: &[Member],
        values: &mut Vec<Datum>,
        context: &Context<'_>,
    ) -> Result<()> {
        match self.function {
            WindowFunction::RowNumber => values.extend((1..=members.len()).map(number)),
            WindowFunction::Rank => {
                let mut before = 0;
                for peers in members.chunk_by(|a, b| a.order == b.order) {
                    values.extend(peers.iter().map(|_| number(before + 1)));
                    before += peers.len();
                }
            }
            WindowFunction::DenseRank => {
                for (rank, peers) in members.chunk_by(|a, b| a.order == b.order).enumerate() {
                    values.extend(peers.iter().map(|_| number(rank + 1)));
                }
            }
            WindowFunction::Shift(forward) => {
                values.extend((0..members.len()).map(|i| shifted(members, i, forward)));
            }
            WindowFunction::Aggregate(function) => self.aggregate(function, members, values, context)?,
        }
        Ok(())
    }

    fn aggregate(
        &self,
        function: &'static AggregateFunction,
        members: &[Member],
        values: &mut Vec<Datum>,
        context: &Context<'_>,
    ) -> Result<()> {
        let mut state = (function.new_state)(&self.arg_types, &context.run.eval);
        // Without ORDER BY all rows are peers.
        for peers in members.chunk_by(|a, b| self.order.is_empty() || a.order == b.order) {
            for member in peers {
                state.update(&member.args)?;
            }
            let value = state.finish()?;
            values.extend(peers.iter().map(|_| value.clone()));
        }
        Ok(())
    }
}

fn number(n: usize) -> Datum {
    Datum::Int8(i64::try_from(n).unwrap_or(i64::MAX))
}

/// `lag(value, offset, default)`, or `lead` if forward.
fn shifted(members: &[Member], position: usize, forward: bool) -> Datum {
    let args = &members[position].args;
    let offset = match args.get(1) {
        None => 1,
        Some(offset) => match offset.as_i64() {
            Some(offset) => offset,
            None => return Datum::Null,
        },
    };
    let offset = if forward { offset } else { -offset };
    let target = i64::try_from(position).unwrap_or(i64::MAX).saturating_add(offset);
    match usize::try_from(target).ok().and_then(|t| members.get(t)) {
        Some(member) => member.args.first().cloned().unwrap_or(Datum::Null),
        None => args.get(2).cloned().unwrap_or(Datum::Null),
    }
}

impl Operator for Window {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        if self.rows.is_none() {
            self.rows = Some(self.run(context)?.into_iter());
        }
        let Some(rows) = &mut self.rows else { return Ok(false) };
        out.extend(rows.by_ref().take(BATCH));
        if rows.len() == 0 {
            self.held.release(&context.run.guard);
            return Ok(false);
        }
        Ok(true)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.input.reset(context);
        self.rows = None;
        self.held.release(&context.run.guard);
    }
}

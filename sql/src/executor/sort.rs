//! ORDER BY, in memory. With a limit only the best rows are kept.

use std::cmp::Ordering;

use amphora_storage::{Datum, Row};

use super::guard::{Held, row_memory};
use super::projection::limit_value;
use super::{BATCH, Builder, Context, Expression, Operator};
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

    /// The order of two rows' keys.
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
        Ordering::Equal
    }
}

/// A row and what it is ordered by.
type Keyed = (Vec<Datum>, Row);

pub(super) struct Sort {
    input: Box<dyn Operator>,
    order: Order,
    limit: Option<Expression>,
    sorted: Option<std::vec::IntoIter<Keyed>>,
    held: Held,
}

impl Sort {
    pub(super) fn new(
        input: Box<dyn Operator>,
        keys: &[SortKey],
        limit: Option<&Expr>,
        builder: &mut Builder,
    ) -> Result<Sort> {
        let limit = limit.map(|e| Expression::compile(e, builder)).transpose()?;
        Ok(Sort { input, order: Order::compile(keys, builder)?, limit, sorted: None, held: Held::default() })
    }

    fn sort(&mut self, context: &Context<'_>) -> Result<Vec<Keyed>> {
        let limit = limit_value(self.limit.as_ref(), context)?;
        let limit = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        let (order, held, guard) = (&self.order, &mut self.held, &context.run.guard);
        let mut rows: Vec<Keyed> = Vec::new();
        if limit == 0 {
            return Ok(rows);
        }
        // Twice as many as are wanted are gathered, then the worse half is dropped.
        let capacity = limit.saturating_mul(2).max(BATCH);
        let mut worst: Option<Vec<Datum>> = None;
        super::drain(self.input.as_mut(), context, |row| {
            let key = order.key(&row, context)?;
            if worst.as_ref().is_some_and(|w| order.compare(&key, w).is_ge()) {
                return Ok(());
            }
            held.add_bytes(guard, row_memory(&key) + row_memory(&row))?;
            rows.push((key, row));
            if rows.len() >= capacity {
                rows.sort_by(|a, b| order.compare(&a.0, &b.0));
                rows.truncate(limit);
                worst = rows.last().map(|r| r.0.clone());
                held.release(guard);
                for (key, row) in &rows {
                    held.add_bytes(guard, row_memory(key) + row_memory(row))?;
                }
            }
            Ok(())
        })?;
        rows.sort_by(|a, b| order.compare(&a.0, &b.0));
        rows.truncate(limit);
        Ok(rows)
    }
}

impl Operator for Sort {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        if self.sorted.is_none() {
            self.sorted = Some(self.sort(context)?.into_iter());
        }
        let Some(sorted) = &mut self.sorted else { return Ok(false) };
        out.extend(sorted.by_ref().take(BATCH).map(|(_, row)| row));
        if sorted.len() == 0 {
            self.held.release(&context.run.guard);
            return Ok(false);
        }
        Ok(true)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.input.reset(context);
        self.sorted = None;
        self.held.release(&context.run.guard);
    }
}

//! Hash joins: the right side is put into a hash table by its keys, the left side looks them up.
//!
//! NULL keys match nothing. RIGHT and FULL joins mark the right rows that found a partner and give the
//! others at the end.

use std::collections::HashMap;

use amphora_storage::{Datum, Row};
use smallvec::SmallVec;

use super::guard::Held;
use super::{Builder, Context, Expression, Operator};
use crate::error::Result;
use crate::expr::Expr;
use crate::plan::{JoinKind, Plan};

type Key = SmallVec<[Datum; 2]>;

pub(super) struct HashJoin {
    left: Box<dyn Operator>,
    right: Box<dyn Operator>,
    left_width: usize,
    right_width: usize,
    kind: JoinKind,
    left_keys: Vec<Expression>,
    right_keys: Vec<Expression>,
    condition: Option<Expression>,
    table: Option<Table>,
    held: Held,
    left_rows: std::vec::IntoIter<Row>,
    left_done: bool,
    unmatched: usize,
}

/// The right side.
struct Table {
    rows: Vec<Row>,
    matched: Vec<bool>,
    /// Positions in `rows`
    by_key: HashMap<Key, SmallVec<[u32; 2]>>,
}

impl HashJoin {
    pub(super) fn new(
        left: &Plan,
        right: &Plan,
        kind: JoinKind,
        left_keys: &[Expr],
        right_keys: &[Expr],
        condition: Option<&Expr>,
        builder: &mut Builder,
    ) -> Result<HashJoin> {
        Ok(HashJoin {
            left: builder.build(left)?,
            right: builder.build(right)?,
            left_width: left.schema.len(),
            right_width: right.schema.len(),
            kind,
            left_keys: Expression::compile_all(left_keys, builder)?,
            right_keys: Expression::compile_all(right_keys, builder)?,
            condition: condition.map(|c| Expression::compile(c, builder)).transpose()?,
            table: None,
            held: Held::default(),
            left_rows: Vec::new().into_iter(),
            left_done: false,
            unmatched: 0,
        })
    }

    fn keeps_right(&self) -> bool {
        matches!(self.kind, JoinKind::Right | JoinKind::Full)
    }

    fn build(&mut self, context: &Context<'_>) -> Result<Table> {
        let mut table = Table { rows: Vec::new(), matched: Vec::new(), by_key: HashMap::new() };
        let keeps = self.keeps_right();
        let (keys, held) = (&self.right_keys, &mut self.held);
        super::drain(self.right.as_mut(), context, |row| {
            let key = key(keys, &row, context)?;
            if key.is_none() && !keeps {
                return Ok(());
            }
            held.add(&context.run.guard, &row)?;
            let position = u32::try_from(table.rows.len()).unwrap_or(u32::MAX);
            if let Some(key) = key {
                held.add_bytes(&context.run.guard, 64 + std::mem::size_of_val(key.as_slice()))?;
                table.by_key.entry(key).or_default().push(position);
            }
            table.rows.push(row);
            Ok(())
        })?;
        if keeps {
            table.matched = vec![false; table.rows.len()];
        }
        Ok(table)
    }

    /// Gives what a left row gives.
    fn probe(&self, table: &mut Table, left: Row, context: &Context<'_>, out: &mut Vec<Row>) -> Result<()> {
        let Table { rows, matched, by_key } = table;
        let mut found = false;
        if let Some(key) = key(&self.left_keys, &left, context)?
            && let Some(positions) = by_key.get(&key)
        {
            for &position in positions {
                context.run.guard.tick()?;
                let right = &rows[position as usize];
                let mut joined = Vec::with_capacity(left.len() + right.len());
                joined.extend_from_slice(&left);
                joined.extend_from_slice(right);
                if let Some(condition) = &self.condition
                    && !condition.is_true(&joined, context)?
                {
                    continue;
                }
                found = true;
                if matches!(self.kind, JoinKind::Semi | JoinKind::Anti) {
                    break;
                }
                if let Some(mark) = matched.get_mut(position as usize) {
                    *mark = true;
                }
                out.push(joined);
            }
        }
        match (self.kind, found) {
            (JoinKind::Left | JoinKind::Full, false) => {
                let mut row = left;
                row.extend(std::iter::repeat_n(Datum::Null, self.right_width));
                out.push(row);
            }
            (JoinKind::Semi, true) | (JoinKind::Anti, false) => out.push(left),
            _ => {}
        }
        Ok(())
    }
}

/// The key of a row; `None` if part of it is NULL.
fn key(exprs: &[Expression], row: &[Datum], context: &Context<'_>) -> Result<Option<Key>> {
    let mut key = Key::with_capacity(exprs.len());
    for expr in exprs {
        let value = expr.eval(row, context)?;
        if value.is_null() {
            return Ok(None);
        }
        key.push(value);
    }
    Ok(Some(key))
}

impl Operator for HashJoin {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        context.run.guard.check()?;
        let mut table = match self.table.take() {
            Some(table) => table,
            None => self.build(context)?,
        };
        if self.left_rows.len() == 0 && !self.left_done {
            let nothing = table.by_key.is_empty() && matches!(self.kind, JoinKind::Inner | JoinKind::Semi);
            let mut rows = Vec::new();
            self.left_done = nothing || !self.left.next(context, &mut rows)?;
            self.left_rows = rows.into_iter();
        }
        if self.left_rows.len() > 0 {
            let start = out.len();
            while out.len() - start < super::BATCH
                && let Some(row) = self.left_rows.next()
            {
                self.probe(&mut table, row, context, out)?;
            }
        } else if self.left_done && self.keeps_right() {
            let end = (self.unmatched + super::BATCH).min(table.rows.len());
            for position in self.unmatched..end {
                if !table.matched[position] {
                    let mut row = vec![Datum::Null; self.left_width];
                    row.append(&mut table.rows[position]);
                    out.push(row);
                }
            }
            self.unmatched = end;
        }
        let more = !self.left_done
            || self.left_rows.len() > 0
            || (self.keeps_right() && self.unmatched < table.rows.len());
        self.table = Some(table);
        Ok(more)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.left.reset(context);
        self.right.reset(context);
        self.table = None;
        self.held.release(&context.run.guard);
        self.left_rows = Vec::new().into_iter();
        self.left_done = false;
        self.unmatched = 0;
    }
}

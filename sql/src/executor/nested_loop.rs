//! Nested loops: for every left row the right side anew.
//!
//! The right side sees the left row as its nearest outer row, which makes LATERAL and lookups by index.
//! One that does not look is run once, and its rows are kept.

use amphora_storage::{Datum, Row};

use super::buffer::{Reader, RowBuffer};
use super::{Builder, Context, Expression, Operator};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::plan::{JoinKind, Plan};

pub(super) struct NestedLoop {
    left: Box<dyn Operator>,
    right: Box<dyn Operator>,
    left_width: usize,
    right_width: usize,
    kind: JoinKind,
    condition: Option<Expression>,
    /// The right side does not read the left row
    keep: bool,
    kept: Option<RowBuffer>,
    /// Which of the kept rows have found a partner (RIGHT, FULL), and how far they have been looked at since
    matched: Vec<bool>,
    unmatched: Reader,
    right_started: bool,
    left_rows: std::vec::IntoIter<Row>,
    left_done: bool,
    current: Option<Current>,
}

/// The left row whose matches are being looked for.
struct Current {
    row: Row,
    matched: bool,
    /// How far it has come among the kept right rows
    reader: Reader,
}

impl NestedLoop {
    pub(super) fn new(
        left: &Plan,
        right: &Plan,
        kind: JoinKind,
        condition: Option<&Expr>,
        builder: &mut Builder,
    ) -> Result<NestedLoop> {
        let lateral = right.reads_nearest_row();
        if lateral && matches!(kind, JoinKind::Right | JoinKind::Full) {
            return Err(SqlError::internal("a RIGHT or FULL join cannot be LATERAL"));
        }
        Ok(NestedLoop {
            left: builder.build(left)?,
            right_width: right.schema.len(),
            keep: !lateral,
            left_width: left.schema.len(),
            right: builder.build(right)?,
            kind,
            condition: condition.map(|c| Expression::compile(c, builder)).transpose()?,
            kept: None,
            matched: Vec::new(),
            unmatched: Reader::default(),
            right_started: false,
            left_rows: Vec::new().into_iter(),
            left_done: false,
            current: None,
        })
    }

    /// The next left row, if there is one.
    fn advance(&mut self, context: &Context<'_>) -> Result<Option<Row>> {
        loop {
            if let Some(row) = self.left_rows.next() {
                return Ok(Some(row));
            }
            if self.left_done {
                return Ok(None);
            }
            let mut rows = Vec::new();
            self.left_done = !self.left.next(context, &mut rows)?;
            self.left_rows = rows.into_iter();
        }
    }

    /// Fills `kept` with the right side's rows.
    fn keep_right(&mut self, context: &Context<'_>) -> Result<()> {
        let mut rows = RowBuffer::default();
        let right = &mut self.right;
        // The right side stands one level in even if it does not look at the row there.
        context.inside(&[], |inner| super::drain(right.as_mut(), inner, |row| rows.push(inner.run, row)))?;
        rows.finish()?;
        if matches!(self.kind, JoinKind::Right | JoinKind::Full) {
            self.matched = vec![false; rows.len()];
        }
        self.kept = Some(rows);
        Ok(())
    }

    /// Joins the left row with some right rows, and tells which of them it met. True if it needs no more.
    fn meet(
        &self,
        current: &mut Current,
        right: impl Iterator<Item = Row>,
        context: &Context<'_>,
        out: &mut Vec<Row>,
        met: &mut Vec<usize>,
    ) -> Result<bool> {
        for (position, right) in right.enumerate() {
            context.run.guard.tick()?;
            let mut joined = Vec::with_capacity(current.row.len() + right.len());
            joined.extend_from_slice(&current.row);
            joined.extend(right);
            if let Some(condition) = &self.condition
                && !condition.is_true(&joined, context)?
            {
                continue;
            }
            current.matched = true;
            match self.kind {
                JoinKind::Semi | JoinKind::Anti => return Ok(true),
                JoinKind::Right | JoinKind::Full => met.push(position),
                JoinKind::Inner | JoinKind::Left => {}
            }
            out.push(joined);
        }
        Ok(false)
    }

    /// What a left row gives once all its matches are known.
    fn finish(&self, current: Current, out: &mut Vec<Row>) {
        match (self.kind, current.matched) {
            (JoinKind::Left | JoinKind::Full, false) => {
                let mut row = current.row;
                row.extend(std::iter::repeat_n(Datum::Null, self.right_width));
                out.push(row);
            }
            (JoinKind::Semi, true) | (JoinKind::Anti, false) => out.push(current.row),
            _ => {}
        }
    }

    /// One batch of right rows for the current left row; true if there are no more.
    fn step(&mut self, current: &mut Current, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        let mut met = Vec::new();
        let mut batch = Vec::new();
        if let Some(kept) = &self.kept {
            let start = current.reader.position();
            let more = current.reader.read(kept, super::BATCH, &mut batch)?;
            let enough = self.meet(current, batch.into_iter(), context, out, &mut met)?;
            for position in met {
                self.matched[start + position] = true;
            }
            return Ok(enough || !more);
        }
        let right = &mut self.right;
        let more = context.inside(&current.row, |inner| right.next(inner, &mut batch))?;
        Ok(self.meet(current, batch.into_iter(), context, out, &mut met)? || !more)
    }

    /// The right rows that found no partner, in batches; false when all have been given.
    fn give_unmatched(&mut self, out: &mut Vec<Row>) -> Result<bool> {
        let Some(kept) = self.kept.as_ref().filter(|_| !self.matched.is_empty()) else { return Ok(false) };
        let start = self.unmatched.position();
        let mut batch = Vec::new();
        let more = self.unmatched.read(kept, super::BATCH, &mut batch)?;
        for (mut right, _) in batch.into_iter().zip(&self.matched[start..]).filter(|(_, matched)| !**matched)
        {
            let mut row = vec![Datum::Null; self.left_width];
            row.append(&mut right);
            out.push(row);
        }
        Ok(more)
    }
}

impl Operator for NestedLoop {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        let start = out.len();
        if self.keep && self.kept.is_none() {
            self.keep_right(context)?;
        }
        while out.len() - start < super::BATCH {
            context.run.guard.tick()?;
            let mut current = match self.current.take() {
                Some(current) => current,
                None => {
                    let Some(row) = self.advance(context)? else { return self.give_unmatched(out) };
                    if !self.keep && std::mem::replace(&mut self.right_started, true) {
                        let right = &mut self.right;
                        context.inside(&row, |inner| right.reset(inner));
                    }
                    Current { row, matched: false, reader: Reader::default() }
                }
            };
            if self.step(&mut current, context, out)? {
                self.finish(current, out);
            } else {
                self.current = Some(current);
            }
        }
        Ok(true)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.left.reset(context);
        self.left_rows = Vec::new().into_iter();
        self.left_done = false;
        self.current = None;
        self.unmatched = Reader::default();
        if self.keep {
            let right = &mut self.right;
            context.inside(&[], |inner| right.reset(inner));
            if let Some(mut kept) = self.kept.take() {
                kept.clear(context.run);
            }
        }
    }
}

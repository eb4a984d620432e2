//! Merge joins: both sides come ordered by their keys, and are read once, side by side.
//!
//! ```text
//!   left   1  2  2  4        the right rows of one key are gathered (the group), and every left row of
//!          │  ├──┤           that key is joined with all of them
//!   right  1  2  2  3
//! ```
//!
//! NULL keys match nothing, wherever they stand in the order. Memory is bounded by the rows of one key, and
//! those go to a file beyond `work_mem` ([`RowBuffer`]).

use std::cmp::Ordering;

use amphora_storage::{Datum, Row};

use super::buffer::{Reader, RowBuffer};
use super::sort::Order;
use super::{BATCH, Builder, Context, Expression, Operator};
use crate::error::Result;
use crate::expr::Expr;
use crate::plan::{JoinKind, Plan, SortKey};

pub(super) struct MergeJoin {
    left: Side,
    right: Side,
    /// How keys compare, on both sides
    order: Order,
    kind: JoinKind,
    condition: Option<Expression>,
    group: Option<Group>,
    current: Option<Current>,
}

/// An ordered input.
struct Side {
    input: Box<dyn Operator>,
    keys: Order,
    width: usize,
    rows: std::vec::IntoIter<Row>,
    done: bool,
    /// The next row and its key
    next: Option<(Vec<Datum>, Row)>,
}

/// The right rows of one key.
struct Group {
    key: Vec<Datum>,
    rows: RowBuffer,
    /// Which of them have found a partner (RIGHT, FULL)
    matched: Vec<bool>,
    /// All left rows of the key have been joined: those without a partner are given
    leaving: Option<Reader>,
}

/// A left row that is being joined with the group.
struct Current {
    row: Row,
    reader: Reader,
    found: bool,
}

impl Side {
    fn new(plan: &Plan, keys: &[SortKey], builder: &mut Builder) -> Result<Side> {
        Ok(Side {
            input: builder.build(plan)?,
            keys: Order::compile(keys, builder)?,
            width: plan.schema.len(),
            rows: Vec::new().into_iter(),
            done: false,
            next: None,
        })
    }

    /// The key of the next row, which is read if it has to be.
    fn peek(&mut self, context: &Context<'_>) -> Result<Option<&[Datum]>> {
        while self.next.is_none() {
            if let Some(row) = self.rows.next() {
                context.run.guard.tick()?;
                self.next = Some((self.keys.key(&row, context)?, row));
            } else if self.done {
                break;
            } else {
                let mut rows = Vec::new();
                self.done = !self.input.next(context, &mut rows)?;
                self.rows = rows.into_iter();
                context.run.guard.check()?;
            }
        }
        Ok(self.next.as_ref().map(|(key, _)| &key[..]))
    }

    fn take(&mut self) -> Option<(Vec<Datum>, Row)> {
        self.next.take()
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.input.reset(context);
        self.rows = Vec::new().into_iter();
        self.done = false;
        self.next = None;
    }
}

impl MergeJoin {
    pub(super) fn new(
        left: (&Plan, &[SortKey]),
        right: (&Plan, &[SortKey]),
        kind: JoinKind,
        condition: Option<&Expr>,
        builder: &mut Builder,
    ) -> Result<MergeJoin> {
        Ok(MergeJoin {
            left: Side::new(left.0, left.1, builder)?,
            right: Side::new(right.0, right.1, builder)?,
            order: Order::compile(left.1, builder)?,
            kind,
            condition: condition.map(|c| Expression::compile(c, builder)).transpose()?,
            group: None,
            current: None,
        })
    }

    fn keeps_left(&self) -> bool {
        matches!(self.kind, JoinKind::Left | JoinKind::Full | JoinKind::Anti)
    }

    fn keeps_right(&self) -> bool {
        matches!(self.kind, JoinKind::Right | JoinKind::Full)
    }

    /// Only whether there is a partner counts.
    fn is_semi(&self) -> bool {
        matches!(self.kind, JoinKind::Semi | JoinKind::Anti)
    }

    fn lonely_left(&self, mut row: Row, out: &mut Vec<Row>) {
        if self.kind != JoinKind::Anti {
            row.extend(std::iter::repeat_n(Datum::Null, self.right.width));
        }
        out.push(row);
    }

    fn lonely_right(&self, mut right: Row, out: &mut Vec<Row>) {
        let mut row = vec![Datum::Null; self.left.width];
        row.append(&mut right);
        out.push(row);
    }

    /// Joins the current left row with some rows of the group; true once it is done with.
    fn meet(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        let (Some(mut current), Some(group)) = (self.current.take(), &mut self.group) else {
            return Ok(true);
        };
        let semi = matches!(self.kind, JoinKind::Semi | JoinKind::Anti);
        let start = current.reader.position();
        let mut batch = Vec::new();
        let mut more = true;
        if semi && self.condition.is_none() {
            (current.found, more) = (true, false);
        } else {
            more &= current.reader.read(&group.rows, BATCH, &mut batch)?;
        }
        for (i, right) in batch.into_iter().enumerate() {
            context.run.guard.tick()?;
            let mut joined = Vec::with_capacity(current.row.len() + right.len());
            joined.extend_from_slice(&current.row);
            joined.extend(right);
            if let Some(condition) = &self.condition
                && !condition.is_true(&joined, context)?
            {
                continue;
            }
            current.found = true;
            if semi {
                more = false;
                break;
            }
            if let Some(mark) = group.matched.get_mut(start + i) {
                *mark = true;
            }
            out.push(joined);
        }
        if more {
            self.current = Some(current);
            return Ok(false);
        }
        match (self.kind, current.found) {
            (JoinKind::Semi, true) => out.push(current.row),
            (_, false) if self.keeps_left() => self.lonely_left(current.row, out),
            _ => {}
        }
        Ok(true)
    }

    /// The group's rows without a partner; true once it is gone.
    fn leave(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        let keeps = self.keeps_right();
        let Some(mut group) = self.group.take() else { return Ok(true) };
        if keeps {
            let reader = group.leaving.get_or_insert_with(Reader::default);
            let start = reader.position();
            let mut batch = Vec::new();
            let more = reader.read(&group.rows, BATCH, &mut batch)?;
            for (i, right) in batch.into_iter().enumerate() {
                if !group.matched.get(start + i).copied().unwrap_or(false) {
                    self.lonely_right(right, out);
                }
            }
            if more {
                self.group = Some(group);
                return Ok(false);
            }
        }
        group.rows.clear(context.run);
        Ok(true)
    }

    /// Gathers the right rows that have the key of the next one.
    fn gather(&mut self, context: &Context<'_>) -> Result<()> {
        let Some((key, row)) = self.right.take() else { return Ok(()) };
        // Without a condition, one partner is as good as many.
        let one = self.is_semi() && self.condition.is_none();
        let mut rows = RowBuffer::default();
        rows.push(context.run, row)?;
        while self.right.peek(context)?.is_some_and(|next| next == key) {
            if let Some((_, row)) = self.right.take()
                && !one
            {
                rows.push(context.run, row)?;
            }
        }
        rows.finish()?;
        let matched = if self.keeps_right() { vec![false; rows.len()] } else { Vec::new() };
        self.group = Some(Group { key, rows, matched, leaving: None });
        Ok(())
    }

    /// One step: something is given, or an input moves on. False at the end.
    fn step(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        if self.current.is_some() {
            self.meet(context, out)?;
            return Ok(true);
        }
        if self.group.as_ref().is_some_and(|group| group.leaving.is_some()) {
            self.leave(context, out)?;
            return Ok(true);
        }
        let left = match self.left.peek(context)? {
            Some(key) if key.iter().any(Datum::is_null) => {
                if let Some((_, row)) = self.left.take()
                    && self.keeps_left()
                {
                    self.lonely_left(row, out);
                }
                return Ok(true);
            }
            left => left,
        };
        if let (Some(group), Some(left)) = (&self.group, left)
            && group.key == left
        {
            if let Some((_, row)) = self.left.take() {
                self.current = Some(Current { row, reader: Reader::default(), found: false });
            }
            return Ok(true);
        }
        if self.group.is_some() {
            self.leave(context, out)?;
            return Ok(true);
        }
        let Some(left) = left else {
            // Only right rows are left.
            if !self.keeps_right() || self.right.peek(context)?.is_none() {
                return Ok(false);
            }
            if let Some((_, row)) = self.right.take() {
                self.lonely_right(row, out);
            }
            return Ok(true);
        };
        let Some(right) = self.right.peek(context)? else {
            if !self.keeps_left() {
                return Ok(false);
            }
            if let Some((_, row)) = self.left.take() {
                self.lonely_left(row, out);
            }
            return Ok(true);
        };
        let order = match right.iter().any(Datum::is_null) {
            true => Ordering::Greater,
            false => self.order.compare(left, right),
        };
        match order {
            Ordering::Equal => self.gather(context)?,
            Ordering::Less => {
                if let Some((_, row)) = self.left.take()
                    && self.keeps_left()
                {
                    self.lonely_left(row, out);
                }
            }
            Ordering::Greater => {
                if let Some((_, row)) = self.right.take()
                    && self.keeps_right()
                {
                    self.lonely_right(row, out);
                }
            }
        }
        Ok(true)
    }
}

impl Operator for MergeJoin {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        let enough = out.len() + BATCH;
        while out.len() < enough {
            context.run.guard.tick()?;
            if !self.step(context, out)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.left.reset(context);
        self.right.reset(context);
        if let Some(mut group) = self.group.take() {
            group.rows.clear(context.run);
        }
        self.current = None;
    }
}

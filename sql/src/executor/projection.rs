//! Operators that look at one row at a time: filter, projection, limit.

use amphora_storage::{Datum, Row};

use super::expression::eval_all;
use super::scan::SetCall;
use super::{Builder, Context, Expression, Operator};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::functions::Rows;
use crate::plan::{Field, ProjectItem};

/// Rows for which a condition is true.
pub(super) struct Filter {
    input: Box<dyn Operator>,
    condition: Expression,
}

impl Filter {
    pub(super) fn new(input: Box<dyn Operator>, condition: Expression) -> Filter {
        Filter { input, condition }
    }
}

impl Operator for Filter {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        context.run.guard.check()?;
        let start = out.len();
        let more = self.input.next(context, out)?;
        let mut kept = start;
        for i in start..out.len() {
            if self.condition.is_true(&out[i], context)? {
                out.swap(kept, i);
                kept += 1;
            }
        }
        out.truncate(kept);
        Ok(more)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.input.reset(context);
    }
}

/// One expression per column.
pub(super) struct Project {
    input: Box<dyn Operator>,
    exprs: Vec<Expression>,
    rows: Vec<Row>,
}

impl Project {
    pub(super) fn new(input: Box<dyn Operator>, exprs: Vec<Expression>) -> Project {
        Project { input, exprs, rows: Vec::new() }
    }
}

impl Operator for Project {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        self.rows.clear();
        let more = self.input.next(context, &mut self.rows)?;
        out.reserve(self.rows.len());
        for row in self.rows.drain(..) {
            context.run.guard.tick()?;
            out.push(eval_all(&self.exprs, &row, context)?);
        }
        Ok(more)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.input.reset(context);
    }
}

/// Projection with set-returning functions: for each input row as many rows as the longest of them
/// gives, the shorter ones padded with NULL.
pub(super) struct ProjectSet {
    input: Box<dyn Operator>,
    items: Vec<Item>,
    rows: Vec<Row>,
}

enum Item {
    Scalar(Expression),
    Set(SetCall),
}

impl ProjectSet {
    pub(super) fn new(
        input: Box<dyn Operator>,
        items: &[ProjectItem],
        schema: &[Field],
        builder: &mut Builder,
    ) -> Result<ProjectSet> {
        let items = items
            .iter()
            .zip(schema)
            .map(|(item, field)| {
                Ok(match item {
                    ProjectItem::Scalar(e) => Item::Scalar(Expression::compile(e, builder)?),
                    ProjectItem::Set { function, args } => {
                        Item::Set(SetCall::new(function, args, field.ty.clone(), builder)?)
                    }
                })
            })
            .collect::<Result<_>>()?;
        Ok(ProjectSet { input, items, rows: Vec::new() })
    }

    fn expand(&self, row: &[Datum], context: &Context<'_>, out: &mut Vec<Row>) -> Result<()> {
        let mut scalars: Vec<Datum> = Vec::with_capacity(self.items.len());
        let mut sets: Vec<Option<Rows>> = Vec::with_capacity(self.items.len());
        for item in &self.items {
            match item {
                Item::Scalar(e) => {
                    scalars.push(e.eval(row, context)?);
                    sets.push(None);
                }
                Item::Set(call) => {
                    scalars.push(Datum::Null);
                    sets.push(Some(call.rows(row, context)?));
                }
            }
        }
        loop {
            context.run.guard.tick()?;
            let mut result = scalars.clone();
            let mut any = false;
            for (set, slot) in sets.iter_mut().zip(&mut result) {
                let Some(rows) = set else { continue };
                if let Some(row) = rows.next() {
                    any = true;
                    let mut row = row?;
                    *slot = match row.len() {
                        1 => row.pop().unwrap_or(Datum::Null),
                        _ => Datum::Record(row.into()),
                    };
                }
            }
            if !any {
                return Ok(());
            }
            out.push(result);
        }
    }
}

impl Operator for ProjectSet {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        let mut rows = std::mem::take(&mut self.rows);
        let more = self.input.next(context, &mut rows)?;
        for row in rows.drain(..) {
            self.expand(&row, context, out)?;
        }
        self.rows = rows;
        Ok(more)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.input.reset(context);
    }
}

/// LIMIT and OFFSET.
pub(super) struct Limit {
    input: Box<dyn Operator>,
    limit: Option<Expression>,
    offset: Option<Expression>,
    /// Rows still to skip and to give, once known
    left: Option<(u64, u64)>,
}

impl Limit {
    pub(super) fn new(
        input: Box<dyn Operator>,
        limit: Option<&Expr>,
        offset: Option<&Expr>,
        builder: &mut Builder,
    ) -> Result<Limit> {
        let limit = limit.map(|e| Expression::compile(e, builder)).transpose()?;
        let offset = offset.map(|e| Expression::compile(e, builder)).transpose()?;
        Ok(Limit { input, limit, offset, left: None })
    }
}

/// The value of LIMIT: none if it is absent or NULL.
pub(super) fn limit_value(expr: Option<&Expression>, context: &Context<'_>) -> Result<Option<u64>> {
    count(expr, context, || SqlError::invalid_row_count("LIMIT must not be negative"))
}

/// The value of OFFSET.
pub(super) fn offset_value(expr: Option<&Expression>, context: &Context<'_>) -> Result<u64> {
    let negative = || SqlError::new("2201X", "OFFSET must not be negative");
    Ok(count(expr, context, negative)?.unwrap_or(0))
}

fn count(
    expr: Option<&Expression>,
    context: &Context<'_>,
    negative: impl FnOnce() -> SqlError,
) -> Result<Option<u64>> {
    let Some(expr) = expr else { return Ok(None) };
    match expr.value(&[], context)?.as_i64() {
        None => Ok(None),
        Some(n) => u64::try_from(n).map(Some).map_err(|_| negative()),
    }
}

impl Operator for Limit {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        let (skip, give) = match &mut self.left {
            Some((skip, give)) => (skip, give),
            empty => {
                let limit = limit_value(self.limit.as_ref(), context)?.unwrap_or(u64::MAX);
                let (skip, give) = empty.insert((offset_value(self.offset.as_ref(), context)?, limit));
                (skip, give)
            }
        };
        if *give == 0 {
            return Ok(false);
        }
        let start = out.len();
        let more = self.input.next(context, out)?;
        let got = out.len() - start;
        let skipped = got.min(usize::try_from(*skip).unwrap_or(usize::MAX));
        *skip -= skipped as u64;
        out.drain(start..start + skipped);
        let given = (got - skipped).min(usize::try_from(*give).unwrap_or(usize::MAX));
        *give -= given as u64;
        out.truncate(start + given);
        Ok(more && *give > 0)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.left = None;
        self.input.reset(context);
    }
}

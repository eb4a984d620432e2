//! Subqueries in expressions.
//!
//! An uncorrelated subquery runs once a statement and its result is kept: a value, a truth, an array, or
//! for IN a hash set. A correlated one is reset and run for every row.

use std::cell::RefCell;
use std::collections::HashSet;

use amphora_storage::{DataType, Datum, Row};

use super::expression::Operation;
use super::guard::Held;
use super::{Builder, Context, Expression, Operator};
use crate::error::{Result, SqlError};
use crate::expr::{Subquery, SubqueryKind};

/// A subquery with its operators.
pub(super) struct CompiledSubquery {
    kind: Kind,
    correlated: bool,
    state: RefCell<State>,
}

struct State {
    operator: Box<dyn Operator>,
    /// The value of an uncorrelated scalar, EXISTS or ARRAY
    value: Option<Datum>,
    /// The rows of an uncorrelated ANY or ALL
    members: Option<Members>,
    started: bool,
}

enum Kind {
    Scalar,
    Exists,
    Array(DataType),
    AnyAll { left: Expression, operator: Operation, all: bool },
}

/// What an uncorrelated ANY or ALL compares with.
enum Members {
    Hashed { set: HashSet<Datum>, null: bool },
    Listed(Vec<Datum>),
}

impl CompiledSubquery {
    pub(super) fn compile(subquery: &Subquery, builder: &mut Builder) -> Result<CompiledSubquery> {
        let operator = builder.build(&subquery.plan)?;
        let kind = match &subquery.kind {
            SubqueryKind::Scalar => Kind::Scalar,
            SubqueryKind::Exists => Kind::Exists,
            SubqueryKind::Array => match subquery.ty.base() {
                DataType::Array(element) => Kind::Array(*element),
                other => Kind::Array(other),
            },
            SubqueryKind::AnyAll { left, function, all } => {
                let right = match &subquery.plan.schema[..] {
                    [field] => field.ty.clone(),
                    _ => DataType::Record,
                };
                let operator = Operation::new(function, left.ty(), right);
                Kind::AnyAll { left: Expression::compile(left, builder)?, operator, all: *all }
            }
        };
        let state = State { operator, value: None, members: None, started: false };
        Ok(CompiledSubquery { kind, correlated: subquery.correlated, state: RefCell::new(state) })
    }

    /// The value for this row.
    pub(super) fn eval(&self, row: &[Datum], context: &Context<'_>) -> Result<Datum> {
        if let Kind::AnyAll { left, operator, all } = &self.kind {
            let left = left.eval(row, context)?;
            return self.any_all(&left, operator, *all, row, context);
        }
        let mut state = self.state.borrow_mut();
        if let Some(value) = &state.value {
            return Ok(value.clone());
        }
        let value = context.inside(row, |inner| state.run(&self.kind, inner))?;
        if !self.correlated {
            state.value = Some(value.clone());
        }
        Ok(value)
    }

    fn any_all(
        &self,
        left: &Datum,
        operator: &Operation,
        all: bool,
        row: &[Datum],
        context: &Context<'_>,
    ) -> Result<Datum> {
        let mut state = self.state.borrow_mut();
        if self.correlated {
            return context.inside(row, |inner| {
                let mut result = Some(all);
                state.each(inner, |row| {
                    match operator.apply(left, &single(row), context)? {
                        Some(held) if held != all => {
                            result = Some(held);
                            return Ok(false);
                        }
                        Some(_) => {}
                        None => result = None,
                    }
                    Ok(true)
                })?;
                Ok(result.map_or(Datum::Null, Datum::Bool))
            });
        }
        if state.members.is_none() {
            let hashed = operator.is_membership(all);
            state.members = Some(context.inside(row, |inner| state.members(hashed, inner))?);
        }
        let result = match &state.members {
            Some(Members::Hashed { set, null }) => {
                let member = if set.is_empty() && !null {
                    Some(false)
                } else if left.is_null() {
                    None
                } else if set.contains(left) {
                    Some(true)
                } else if *null {
                    None
                } else {
                    Some(false)
                };
                // `<> ALL` is NOT IN.
                member.map(|is| is != all)
            }
            Some(Members::Listed(members)) => {
                let mut result = Some(all);
                for member in members {
                    context.run.guard.tick()?;
                    match operator.apply(left, member, context)? {
                        Some(held) if held != all => {
                            result = Some(held);
                            break;
                        }
                        Some(_) => {}
                        None => result = None,
                    }
                }
                result
            }
            None => None,
        };
        Ok(result.map_or(Datum::Null, Datum::Bool))
    }
}

/// The only column of a row, or the whole of it.
fn single(mut row: Row) -> Datum {
    match row.len() {
        1 => row.pop().unwrap_or(Datum::Null),
        _ => Datum::Record(row.into()),
    }
}

impl State {
    fn run(&mut self, kind: &Kind, context: &Context<'_>) -> Result<Datum> {
        match kind {
            Kind::Scalar => {
                let mut value = None;
                self.each(context, |row| {
                    if value.is_some() {
                        return Err(SqlError::cardinality_violation(
                            "more than one row returned by a subquery used as an expression",
                        ));
                    }
                    value = Some(single(row));
                    Ok(true)
                })?;
                Ok(value.unwrap_or(Datum::Null))
            }
            Kind::Exists => {
                let mut found = false;
                self.each(context, |_| {
                    found = true;
                    Ok(false)
                })?;
                Ok(Datum::Bool(found))
            }
            Kind::Array(element) => {
                let (mut items, mut held) = (Vec::new(), Held::default());
                self.each(context, |row| {
                    held.add(&context.run.guard, &row)?;
                    items.push(single(row));
                    Ok(true)
                })?;
                held.release(&context.run.guard);
                Ok(Datum::array(element.clone(), items))
            }
            Kind::AnyAll { .. } => Err(SqlError::internal("ANY and ALL compare with a value")),
        }
    }

    fn members(&mut self, hashed: bool, context: &Context<'_>) -> Result<Members> {
        let mut held = Held::default();
        if hashed {
            let (mut set, mut null) = (HashSet::new(), false);
            self.each(context, |row| {
                held.add(&context.run.guard, &row)?;
                match single(row) {
                    Datum::Null => null = true,
                    value => drop(set.insert(value)),
                }
                Ok(true)
            })?;
            return Ok(Members::Hashed { set, null });
        }
        let mut members = Vec::new();
        self.each(context, |row| {
            held.add(&context.run.guard, &row)?;
            members.push(single(row));
            Ok(true)
        })?;
        Ok(Members::Listed(members))
    }

    /// Runs the query from its beginning, until `each` gives false.
    fn each(&mut self, context: &Context<'_>, mut each: impl FnMut(Row) -> Result<bool>) -> Result<()> {
        if std::mem::replace(&mut self.started, true) {
            self.operator.reset(context);
        }
        let mut batch = Vec::new();
        loop {
            context.run.guard.tick()?;
            let more = self.operator.next(context, &mut batch)?;
            for row in batch.drain(..) {
                if !each(row)? {
                    return Ok(());
                }
            }
            if !more {
                return Ok(());
            }
        }
    }
}

//! Subqueries in expressions.
//!
//! An uncorrelated subquery runs once a statement and its result is kept: a value, a truth, an array, or
//! for IN a hash set. A correlated one is reset and run for every row whose values have not been asked for
//! before, as far as its answers can be kept.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use amphora_storage::{DataType, Datum, Row};

use super::expression::Operation;
use super::guard::{Held, row_memory};
use super::{Builder, Context, Expression, Operator};
use crate::error::{Result, SqlError};
use crate::expr::{Expr, Subquery, SubqueryKind};
use crate::optimizer::is_volatile_plan;

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
    memo: Option<Memo>,
}

/// Values of a correlated scalar subquery or EXISTS by what it reads of outer rows.
struct Memo {
    /// What it reads: how many levels out, 0 being the row of the expression, and which column
    reads: Vec<(usize, usize)>,
    values: HashMap<Vec<Datum>, Datum>,
    held: Held,
    asked: usize,
    found: usize,
}

/// After so many questions a memo that has seldom known the answer is given up.
const MEMO_TRIAL: usize = 1000;

/// Things that a memo's key may be made of.
const MEMO_KEY: usize = 4;

impl Memo {
    fn of(subquery: &Subquery) -> Option<Memo> {
        if !subquery.correlated || !matches!(subquery.kind, SubqueryKind::Scalar | SubqueryKind::Exists) {
            return None;
        }
        let mut reads: Vec<(usize, usize)> = Vec::new();
        subquery.plan.references(1, &mut |e, level| {
            if let Expr::Outer { depth, position, .. } = e
                && *depth >= level
                && !reads.contains(&(depth - level, *position))
            {
                reads.push((depth - level, *position));
            }
        });
        let fits = reads.len() <= MEMO_KEY && !is_volatile_plan(&subquery.plan);
        fits.then(|| Memo { reads, values: HashMap::new(), held: Held::default(), asked: 0, found: 0 })
    }

    fn key(&self, row: &[Datum], context: &Context<'_>) -> Result<Vec<Datum>> {
        let read = |&(level, position): &(usize, usize)| match level {
            0 => row.get(position).cloned().ok_or_else(|| SqlError::internal("no such outer column")),
            level => context.outer_column(level, position).cloned(),
        };
        self.reads.iter().map(read).collect()
    }

    fn get(&mut self, key: &[Datum]) -> Option<Datum> {
        self.asked += 1;
        let value = self.values.get(key).cloned();
        self.found += usize::from(value.is_some());
        value
    }

    fn is_useless(&self) -> bool {
        self.asked >= MEMO_TRIAL && self.found * 10 < self.asked
    }

    /// Keeps a value, as long as there is room.
    fn put(&mut self, key: Vec<Datum>, value: &Datum, context: &Context<'_>) -> Result<()> {
        let guard = &context.run.guard;
        let bytes = row_memory(&key) + value.memory() + 32;
        if self.held.bytes() + bytes <= guard.work_memory() && guard.has_room(bytes) {
            self.held.add_bytes(guard, bytes)?;
            self.values.insert(key, value.clone());
        }
        Ok(())
    }
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
        let memo = Memo::of(subquery);
        let state = State { operator, value: None, members: None, started: false, memo };
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
        let mut key = None;
        if let Some(memo) = &mut state.memo {
            let asked = memo.key(row, context)?;
            if let Some(value) = memo.get(&asked) {
                return Ok(value);
            }
            key = Some(asked);
        }
        let value = context.inside(row, |inner| state.run(&self.kind, inner))?;
        if let Some((memo, key)) = state.memo.as_mut().zip(key) {
            memo.put(key, &value, context)?;
            if memo.is_useless() {
                memo.held.release(&context.run.guard);
                state.memo = None;
            }
        }
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

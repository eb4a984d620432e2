//! Constant folding: what is always the same is computed once, now.
//!
//! An error found on the way is the statement's, even where no row would have come to it: PostgreSQL plans
//! the same way, so `SELECT 1 / 0 FROM empty` fails on both. What a constant decides against is not looked at:
//! `CASE WHEN true THEN 1 ELSE 1 / 0 END` is 1.

use std::sync::Arc;

use amphora_storage::{DataType, Datum};

use crate::command::Command;
use crate::copy::Direction;
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::functions::{EvalContext, Resolved, Volatility};
use crate::plan::{Explain, Node, Plan, Statement};
use crate::types::{self, CastContext, FormatContext};

/// Folds every expression of a statement.
pub(super) fn fold_statement(statement: &mut Statement) -> Result<()> {
    let mut first = Ok(());
    let mut each = |e: &mut Expr| keep(&mut first, fold(e));
    match statement {
        Statement::Query(_) => {}
        Statement::Insert(insert) => {
            if let Some(update) = &mut insert.do_update {
                update.assignments.iter_mut().for_each(|(_, e)| each(e));
                update.condition.iter_mut().for_each(&mut each);
            }
            insert.checks.iter_mut().for_each(|(_, e)| each(e));
            insert.returning.iter_mut().for_each(&mut each);
        }
        Statement::Update(update) => {
            update.assignments.iter_mut().for_each(|(_, e)| each(e));
            update.checks.iter_mut().for_each(|(_, e)| each(e));
            update.returning.iter_mut().for_each(&mut each);
        }
        Statement::Delete(delete) => delete.returning.iter_mut().for_each(&mut each),
        Statement::Merge(merge) => merge.exprs_mut(&mut each),
        Statement::Copy(copy) => match &mut copy.direction {
            Direction::To(to) => return fold_statement(&mut to.statement),
            Direction::From(from) => {
                from.row.iter_mut().chain(&mut from.filter).for_each(&mut each);
                from.insert.checks.iter_mut().for_each(|(_, e)| each(e));
            }
        },
        Statement::Explain(explain) => {
            let Explain { statement: inner, .. } = &mut **explain;
            return fold_statement(inner);
        }
        Statement::Command(command) => {
            if let Command::Execute { args, .. } = &mut **command {
                args.iter_mut().for_each(&mut each);
            }
        }
    }
    first?;
    match statement {
        Statement::Query(plan) => fold_plan(plan),
        Statement::Insert(insert) => fold_plan(&mut insert.source),
        Statement::Update(update) => fold_plan(&mut update.source),
        Statement::Delete(delete) => fold_plan(&mut delete.source),
        Statement::Merge(merge) => fold_plan(&mut merge.source),
        Statement::Copy(_) | Statement::Explain(_) | Statement::Command(_) => Ok(()),
    }
}

/// Folds every expression of a plan.
pub(super) fn fold_plan(plan: &mut Plan) -> Result<()> {
    let mut first = Ok(());
    plan.node.exprs_mut(&mut |e| keep(&mut first, fold(e)));
    plan.node.inputs_mut(&mut |input, _| keep(&mut first, fold_plan(input)));
    first
}

fn keep(first: &mut Result<()>, next: Result<()>) {
    if first.is_ok() {
        *first = next;
    }
}

/// Folds one expression, operands first and from the left.
pub(crate) fn fold(e: &mut Expr) -> Result<()> {
    let folded = match e {
        Expr::And(operands) => connective(operands, true)?,
        Expr::Or(operands) => connective(operands, false)?,
        Expr::Coalesce(args, _) => coalesce(args)?,
        Expr::Case { branches, otherwise, .. } => case(branches, otherwise)?,
        _ => {
            let mut first = Ok(());
            e.children_mut(&mut |child| keep(&mut first, fold(child)));
            first?;
            simple(e)?
        }
    };
    if let Some(folded) = folded {
        *e = folded;
    }
    Ok(())
}

/// Forms all of whose operands are always evaluated.
fn simple(e: &mut Expr) -> Result<Option<Expr>> {
    Ok(match e {
        Expr::Subquery(subquery) => {
            fold_plan(Arc::make_mut(&mut subquery.plan))?;
            None
        }
        Expr::Call { function, args, ty } if function.volatility == Volatility::Immutable => {
            call(function, args, ty)?
        }
        Expr::Cast { input, from, to, explicit } => cast(input, from, to, *explicit)?,
        Expr::Not(input) => match &**input {
            Expr::Literal(Datum::Bool(b), ty) => Some(Expr::Literal(Datum::Bool(!b), ty.clone())),
            Expr::Literal(Datum::Null, ty) => Some(Expr::Literal(Datum::Null, ty.clone())),
            Expr::Not(inner) => Some((**inner).clone()),
            _ => None,
        },
        Expr::IsNull { input, negated } => match &**input {
            Expr::Literal(Datum::Record(_), _) => None,
            Expr::Literal(value, _) => {
                Some(Expr::Literal(Datum::Bool(value.is_null() != *negated), DataType::Bool))
            }
            _ => None,
        },
        Expr::Array { items, element } if items.iter().all(|i| matches!(i, Expr::Literal(..))) => {
            let values = items.iter().filter_map(literal).cloned().collect();
            Some(Expr::Literal(Datum::array(element.clone(), values), element.clone().array()))
        }
        _ => None,
    })
}

fn literal(e: &Expr) -> Option<&Datum> {
    match e {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

fn call(
    function: &'static crate::functions::ScalarFunction,
    args: &[Expr],
    ty: &DataType,
) -> Result<Option<Expr>> {
    if function.strict && args.iter().any(|a| literal(a).is_some_and(Datum::is_null)) {
        return Ok(Some(Expr::Literal(Datum::Null, ty.clone())));
    }
    let Some(values) = args.iter().map(|a| literal(a).cloned()).collect::<Option<Vec<Datum>>>() else {
        return Ok(None);
    };
    // Text forms of dates and times depend on the session, sums of them do not.
    let text = |t: &DataType| t.is_string() || t.element().is_some();
    let timely = args.iter().any(|a| is_plain_time(&a.ty()));
    if args.iter().any(|a| depends_on_session(&a.ty()) && !is_plain_time(&a.ty()))
        || (depends_on_session(ty) && !(is_plain_time(ty) && args.iter().all(|a| !text(&a.ty()))))
        || (timely && text(ty))
    {
        return Ok(None);
    }
    let arg_types = args.iter().map(Expr::ty).collect();
    let resolved = Resolved { function, arg_types, return_type: ty.clone() };
    let value = match resolved.eval(&values, &EvalContext::default()) {
        Ok(value) => value,
        Err(error) => return refused(error),
    };
    // A result far larger than what it was made of is better made when it is needed.
    Ok((value.memory() < 4096).then(|| Expr::Literal(value, ty.clone())))
}

fn cast(input: &Expr, from: &DataType, to: &DataType, explicit: bool) -> Result<Option<Expr>> {
    let Some(value) = literal(input) else { return Ok(None) };
    if !value.is_null() && (depends_on_session(from) || depends_on_session(to)) {
        let written = from.is_string()
            && matches!(to.base(), DataType::Date | DataType::Timestamp(_))
            && value.as_str().is_some_and(is_iso);
        if !(written || is_plain_time(from) && is_plain_time(to)) {
            return Ok(None);
        }
    }
    // What reads an array's text is not the same in every session.
    if from.is_string() && matches!(to, DataType::Array(_)) {
        return Ok(None);
    }
    let context = if explicit { CastContext::Explicit } else { CastContext::Assignment };
    match types::cast(value, from, to, context, &FormatContext::default()) {
        Ok(value) => Ok(Some(Expr::Literal(value, to.clone()))),
        Err(error) => refused(error),
    }
}

/// Wrong data is the statement's error; what is not possible here and now may be when it runs.
fn refused(error: SqlError) -> Result<Option<Expr>> {
    if error.sqlstate.starts_with("22") { Err(error) } else { Ok(None) }
}

/// COALESCE: NULLs vanish, and behind a constant nothing counts.
fn coalesce(args: &mut Vec<Expr>) -> Result<Option<Expr>> {
    let mut i = 0;
    while i < args.len() {
        fold(&mut args[i])?;
        match literal(&args[i]) {
            Some(Datum::Null) if args.len() > 1 => {
                args.remove(i);
            }
            Some(Datum::Null) | None => i += 1,
            Some(_) => {
                args.truncate(i + 1);
                break;
            }
        }
    }
    match &args[..] {
        [only @ Expr::Literal(..)] => Ok(Some(only.clone())),
        _ => Ok(None),
    }
}

/// CASE: branches that are never taken vanish; one that always is becomes the rest.
fn case(branches: &mut Vec<(Expr, Expr)>, otherwise: &mut Expr) -> Result<Option<Expr>> {
    let mut kept = Vec::with_capacity(branches.len());
    let mut decided = false;
    for (mut condition, mut value) in std::mem::take(branches) {
        fold(&mut condition)?;
        match literal(&condition) {
            Some(Datum::Bool(true)) => {
                fold(&mut value)?;
                *otherwise = value;
                decided = true;
                break;
            }
            Some(_) => {}
            None => {
                fold(&mut value)?;
                kept.push((condition, value));
            }
        }
    }
    if !decided {
        fold(otherwise)?;
    }
    *branches = kept;
    Ok(branches.is_empty().then(|| otherwise.clone()))
}

/// Times whose values, not their texts, are the same in every session.
fn is_plain_time(ty: &DataType) -> bool {
    matches!(ty.base(), DataType::Date | DataType::Time(_) | DataType::Timestamp(_) | DataType::Interval(_))
}

/// `2026-11-21`, perhaps with `12:30:00` behind it: what every DateStyle reads alike.
fn is_iso(text: &str) -> bool {
    let shape = |pattern: &str, text: &str| {
        pattern.len() == text.len()
            && pattern
                .bytes()
                .zip(text.bytes())
                .all(|(p, t)| if p == b'0' { t.is_ascii_digit() } else { p == t })
    };
    shape("0000-00-00", text) || shape("0000-00-00 00:00", text) || shape("0000-00-00 00:00:00", text)
}

fn depends_on_session(ty: &DataType) -> bool {
    match ty.base() {
        DataType::Date
        | DataType::Time(_)
        | DataType::Timetz(_)
        | DataType::Timestamp(_)
        | DataType::Timestamptz(_)
        | DataType::Interval(_)
        | DataType::Json
        | DataType::Jsonb
        | DataType::Record
        | DataType::Row(_)
        | DataType::Unknown => true,
        // An OID is a number; the others are names.
        DataType::Oid => false,
        t if t.is_oid_like() => true,
        DataType::Array(element) => depends_on_session(&element),
        _ => false,
    }
}

/// AND: true operands vanish, a false one decides and what follows it is not looked at. OR the other way
/// round.
fn connective(operands: &mut Vec<Expr>, is_and: bool) -> Result<Option<Expr>> {
    let bool_of = |e: &Expr| literal(e).and_then(Datum::as_bool);
    for operand in operands.iter_mut() {
        fold(operand)?;
        if bool_of(operand) == Some(!is_and) {
            return Ok(Some(Expr::Literal(Datum::Bool(!is_and), DataType::Bool)));
        }
    }
    operands.retain(|e| bool_of(e) != Some(is_and));
    Ok(match operands.len() {
        0 => Some(Expr::Literal(Datum::Bool(is_and), DataType::Bool)),
        1 => operands.pop(),
        _ => None,
    })
}

/// True if it must stay where it is and be evaluated as often as it says.
pub(crate) fn is_volatile(e: &Expr) -> bool {
    e.any(&mut |e| match e {
        Expr::Call { function, .. } => function.volatility == Volatility::Volatile,
        _ => false,
    })
}

/// True of a plan that does not give the same rows each time it is run.
pub(crate) fn is_volatile_plan(plan: &Plan) -> bool {
    let mut found = false;
    plan.node.exprs(&mut |e| {
        found = found
            || is_volatile(e)
            || e.any(&mut |e| matches!(e, Expr::Subquery(s) if is_volatile_plan(&s.plan)));
    });
    plan.node.inputs(&mut |input, _| found = found || is_volatile_plan(input));
    found || matches!(plan.node, Node::FunctionScan { .. } | Node::ProjectSet { .. } | Node::WorkTable(_))
}

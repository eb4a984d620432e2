//! Constant folding: what is always the same is computed once, now.
//!
//! Nothing is folded that could fail in a branch that is never taken: an error leaves the expression as it
//! is, and the executor raises it if it gets there.

use amphora_storage::{DataType, Datum};

use crate::expr::Expr;
use crate::functions::{EvalContext, Resolved, Volatility};
use crate::plan::Plan;
use crate::types::{self, CastContext, FormatContext};

/// Folds every expression of a plan.
pub(super) fn fold_plan(plan: &mut Plan) {
    plan.node.exprs_mut(&mut fold);
    plan.node.inputs_mut(&mut |input, _| fold_plan(input));
}

/// Folds one expression, operands first.
pub(super) fn fold(e: &mut Expr) {
    e.children_mut(&mut fold);
    if let Expr::Subquery(subquery) = e {
        fold_plan(std::sync::Arc::make_mut(&mut subquery.plan));
    }
    let folded = match e {
        Expr::Call { function, args, ty } if function.volatility == Volatility::Immutable => {
            call(function, args, ty)
        }
        Expr::Cast { input, from, to, explicit } => cast(input, from, to, *explicit),
        Expr::And(operands) => connective(operands, true),
        Expr::Or(operands) => connective(operands, false),
        Expr::Not(input) => match &**input {
            Expr::Literal(Datum::Bool(b), ty) => Some(Expr::Literal(Datum::Bool(!b), ty.clone())),
            Expr::Literal(Datum::Null, ty) => Some(Expr::Literal(Datum::Null, ty.clone())),
            Expr::Not(inner) => Some((**inner).clone()),
            _ => None,
        },
        Expr::IsNull { input, negated } => match &**input {
            Expr::Literal(value, _) => {
                Some(Expr::Literal(Datum::Bool(value.is_null() != *negated), DataType::Bool))
            }
            _ => None,
        },
        Expr::Coalesce(args, _) => match args.first() {
            Some(Expr::Literal(value, _)) if !value.is_null() => args.first().cloned(),
            _ => None,
        },
        Expr::Array { items, element } if items.iter().all(|i| matches!(i, Expr::Literal(..))) => {
            let values = items.iter().filter_map(literal).cloned().collect();
            Some(Expr::Literal(Datum::array(element.clone(), values), element.clone().array()))
        }
        _ => None,
    };
    if let Some(folded) = folded {
        *e = folded;
    }
}

fn literal(e: &Expr) -> Option<&Datum> {
    match e {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

fn call(function: &'static crate::functions::ScalarFunction, args: &[Expr], ty: &DataType) -> Option<Expr> {
    if function.strict && args.iter().any(|a| literal(a).is_some_and(Datum::is_null)) {
        return Some(Expr::Literal(Datum::Null, ty.clone()));
    }
    let values: Vec<Datum> = args.iter().map(|a| literal(a).cloned()).collect::<Option<_>>()?;
    // Text forms of dates and times depend on the session.
    if args.iter().any(|a| depends_on_session(&a.ty())) || depends_on_session(ty) {
        return None;
    }
    let arg_types = args.iter().map(Expr::ty).collect();
    let resolved = Resolved { function, arg_types, return_type: ty.clone() };
    let value = resolved.eval(&values, &EvalContext::default()).ok()?;
    // A result far larger than what it was made of is better made when it is needed.
    (value.memory() < 4096).then(|| Expr::Literal(value, ty.clone()))
}

fn cast(input: &Expr, from: &DataType, to: &DataType, explicit: bool) -> Option<Expr> {
    let value = literal(input)?;
    if !value.is_null() && (depends_on_session(from) || depends_on_session(to)) {
        return None;
    }
    let context = if explicit { CastContext::Explicit } else { CastContext::Assignment };
    let value = types::cast(value, from, to, context, &FormatContext::default()).ok()?;
    Some(Expr::Literal(value, to.clone()))
}

fn depends_on_session(ty: &DataType) -> bool {
    match ty.base() {
        DataType::Date
        | DataType::Time
        | DataType::Timestamp
        | DataType::Timestamptz
        | DataType::Interval
        | DataType::Json
        | DataType::Jsonb
        | DataType::Regclass
        | DataType::Regtype
        | DataType::Regproc
        | DataType::Regnamespace
        | DataType::Regrole
        | DataType::Record
        | DataType::Unknown => true,
        DataType::Array(element) => depends_on_session(&element),
        _ => false,
    }
}

/// AND: true operands vanish, a false one decides. OR the other way round.
fn connective(operands: &mut Vec<Expr>, is_and: bool) -> Option<Expr> {
    let bool_of = |e: &Expr| literal(e).and_then(Datum::as_bool);
    if operands.iter().any(|e| bool_of(e) == Some(!is_and)) {
        return Some(Expr::Literal(Datum::Bool(!is_and), DataType::Bool));
    }
    operands.retain(|e| bool_of(e) != Some(is_and));
    match operands.len() {
        0 => Some(Expr::Literal(Datum::Bool(is_and), DataType::Bool)),
        1 => operands.pop(),
        _ => None,
    }
}

/// True if it must stay where it is and be evaluated as often as it says.
pub(super) fn is_volatile(e: &Expr) -> bool {
    e.any(&mut |e| match e {
        Expr::Call { function, .. } => function.volatility == Volatility::Volatile,
        _ => false,
    })
}

//! Immutable expressions over a row, without a session or a transaction.
//!
//! An entry of an index must be the same whoever computes it: on whichever node, in whichever session, today
//! and in ten years. So nothing is at hand here that could make a difference: the context of every call is
//! the default one, and what asks for more is refused when the index is made.

use std::borrow::Cow;
use std::sync::LazyLock;

use amphora_storage::{DataType, Datum};

use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::functions::{Call, EvalContext};
use crate::types::{CastContext, cast};

/// What every call may know.
static CONTEXT: LazyLock<EvalContext> = LazyLock::new(EvalContext::default);

/// The value of an expression for a row.
pub(super) fn evaluate(e: &Expr, row: &[Datum]) -> Result<Datum> {
    value(e, row).map(Cow::into_owned)
}

/// True if the condition is true of a row, and neither false nor NULL.
pub(super) fn is_true(e: &Expr, row: &[Datum]) -> Result<bool> {
    Ok(truth(e, row)? == Some(true))
}

fn value<'a>(e: &'a Expr, row: &'a [Datum]) -> Result<Cow<'a, Datum>> {
    Ok(Cow::Owned(match e {
        Expr::Literal(value, _) => return Ok(Cow::Borrowed(value)),
        Expr::Column(position, _) => return Ok(Cow::Borrowed(row.get(*position).unwrap_or(&Datum::Null))),
        Expr::Call { function, args, ty } => {
            let values = args.iter().map(|arg| evaluate(arg, row)).collect::<Result<Vec<_>>>()?;
            if function.strict && values.iter().any(Datum::is_null) {
                Datum::Null
            } else {
                let arg_types: Vec<DataType> = args.iter().map(Expr::ty).collect();
                (function.eval)(&values, &Call { context: &CONTEXT, arg_types: &arg_types, return_type: ty })?
            }
        }
        Expr::Cast { input, from, to, explicit } => {
            let context = if *explicit { CastContext::Explicit } else { CastContext::Assignment };
            cast(value(input, row)?.as_ref(), from, to, context, &CONTEXT.format)?
        }
        Expr::Domain { input, checks } => {
            let value = [evaluate(input, row)?];
            if checks.not_null && value[0].is_null() {
                return Err(checks.refuses_null());
            }
            for (name, condition) in &checks.checks {
                if truth(condition, &value)? == Some(false) {
                    return Err(checks.refuses(name));
                }
            }
            let [value] = value;
            value
        }
        Expr::Case { branches, otherwise, .. } => {
            for (when, then) in branches {
                if is_true(when, row)? {
                    return value(then, row);
                }
            }
            return value(otherwise, row);
        }
        Expr::Coalesce(args, _) => {
            for arg in args {
                let value = value(arg, row)?;
                if !value.is_null() {
                    return Ok(value);
                }
            }
            Datum::Null
        }
        Expr::Extreme { greatest, args, .. } => {
            let mut best = Datum::Null;
            for arg in args {
                let value = evaluate(arg, row)?;
                let better = if *greatest { value > best } else { value < best };
                if !value.is_null() && (best.is_null() || better) {
                    best = value;
                }
            }
            best
        }
        Expr::Array { items, element } => {
            let items = items.iter().map(|item| evaluate(item, row)).collect::<Result<Vec<_>>>()?;
            Datum::array(element.clone(), items)
        }
        Expr::Row(fields) => {
            let fields = fields.iter().map(|field| evaluate(field, row)).collect::<Result<Vec<_>>>()?;
            Datum::Record(fields.into())
        }
        Expr::Subscript { array, index, .. } => {
            match (value(array, row)?.as_ref(), value(index, row)?.as_i64()) {
                (Datum::Array(array), Some(index)) => {
                    let item = usize::try_from(index - 1).ok().and_then(|i| array.items.get(i));
                    item.cloned().unwrap_or(Datum::Null)
                }
                _ => Datum::Null,
            }
        }
        Expr::And(_)
        | Expr::Or(_)
        | Expr::Not(_)
        | Expr::IsNull { .. }
        | Expr::IsBool { .. }
        | Expr::IsDistinct { .. }
        | Expr::InList { .. }
        | Expr::AnyAll { .. } => truth(e, row)?.map_or(Datum::Null, Datum::Bool),
        Expr::Outer { .. } | Expr::Parameter(..) | Expr::Subquery(_) => {
            return Err(SqlError::internal("an index reads what is not in the row"));
        }
    }))
}

/// The value of a condition; `None` is NULL.
fn truth(e: &Expr, row: &[Datum]) -> Result<Option<bool>> {
    Ok(match e {
        Expr::And(args) => junction(args, row, false)?,
        Expr::Or(args) => junction(args, row, true)?,
        Expr::Not(input) => truth(input, row)?.map(|b| !b),
        Expr::IsNull { input, negated } => Some(match value(input, row)?.as_ref() {
            Datum::Record(fields) if *negated => fields.iter().all(|f| !f.is_null()),
            Datum::Record(fields) => fields.iter().all(Datum::is_null),
            other => other.is_null() != *negated,
        }),
        Expr::IsBool { input, value, negated } => Some((truth(input, row)? == *value) != *negated),
        Expr::IsDistinct { left, right, negated } => {
            Some((value(left, row)? != value(right, row)?) != *negated)
        }
        Expr::InList { input, list, negated } => {
            let wanted = value(input, row)?;
            if wanted.is_null() {
                return Ok(None);
            }
            let mut null = false;
            for item in list {
                let item = value(item, row)?;
                if item == wanted {
                    return Ok(Some(!negated));
                }
                null |= item.is_null();
            }
            if null { None } else { Some(*negated) }
        }
        Expr::AnyAll { left, function, array, all } => {
            let wanted = evaluate(left, row)?;
            let array_type = array.ty().base();
            let element = array_type.element().unwrap_or(array_type);
            let array = value(array, row)?;
            let Datum::Array(array) = array.as_ref() else { return Ok(None) };
            let arg_types = [left.ty(), element];
            let call = Call { context: &CONTEXT, arg_types: &arg_types, return_type: &DataType::Bool };
            let mut result = Some(*all);
            for item in &array.items {
                if wanted.is_null() || item.is_null() {
                    result = None;
                    continue;
                }
                let holds = (function.eval)(&[wanted.clone(), item.clone()], &call)?.as_bool();
                match holds {
                    Some(held) if held != *all => return Ok(Some(held)),
                    Some(_) => {}
                    None => result = None,
                }
            }
            result
        }
        other => value(other, row)?.as_bool(),
    })
}

/// AND, or OR: the first operand that decides, NULL if one is and none does.
fn junction(args: &[Expr], row: &[Datum], or: bool) -> Result<Option<bool>> {
    let mut result = Some(!or);
    for arg in args {
        match truth(arg, row)? {
            Some(b) if b == or => return Ok(Some(or)),
            Some(_) => {}
            None => result = None,
        }
    }
    Ok(result)
}

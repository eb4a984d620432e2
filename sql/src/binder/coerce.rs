//! Making an expression be of a type.

use amphora_storage::{DataType, Datum};

use super::Binder;
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::types::{self, CastContext, Category, category};

/// A type's name in messages: without modifier, `character` without its length.
pub(super) fn type_name(ty: &DataType) -> String {
    match ty {
        DataType::Char(_) => "character".into(),
        other => other.unmodified().to_string(),
    }
}

/// True of types whose text form means something different at another time or in another session.
fn is_session_dependent(ty: &DataType) -> bool {
    match ty {
        DataType::Date
        | DataType::Time(_)
        | DataType::Timetz(_)
        | DataType::Timestamp(_)
        | DataType::Timestamptz(_) => true,
        // An OID is a number; the others are names.
        DataType::Oid => false,
        t if t.is_oid_like() => true,
        DataType::Array(element) => is_session_dependent(element),
        _ => false,
    }
}

/// True of two string types between which no value changes: `varchar` to `text`, say.
fn relabels(from: &DataType, to: &DataType) -> bool {
    let plain = |t: &DataType| matches!(t, DataType::Text | DataType::Varchar(None));
    plain(to) && (plain(from) || matches!(from, DataType::Varchar(_) | DataType::Name))
        || *to == DataType::Oid && from.is_oid_like()
        || from.oid() == to.oid() && *to == to.unmodified()
        || from.lower_bound() == 0
            && matches!((from.element(), to), (Some(e), DataType::Array(t)) if e == **t)
}

/// The expression's values, which do not change, under another type.
fn relabel(expr: Expr, to: &DataType) -> Expr {
    let to = to.clone();
    match expr {
        Expr::Literal(value, _) => Expr::Literal(value, to),
        Expr::Column(position, _) => Expr::Column(position, to),
        Expr::Outer { depth, position, .. } => Expr::Outer { depth, position, ty: to },
        Expr::Parameter(position, _) => Expr::Parameter(position, to),
        Expr::Subscript { array, index, .. } => Expr::Subscript { array, index, ty: to },
        other => Expr::Cast { from: other.ty().base(), input: Box::new(other), to, explicit: false },
    }
}

impl Binder<'_> {
    /// Casts to a type as the context allows; 42804 otherwise (`what` names the place).
    pub(super) fn coerce(&mut self, expr: Expr, to: &DataType, context: CastContext) -> Result<Expr> {
        if let DataType::Domain(domain) = to {
            return self.coerce_to_domain(expr, &domain.clone(), context);
        }
        let to = to.base();
        let from = expr.ty().base();
        if from == DataType::Unknown {
            return self.coerce_unknown(expr, &to, context);
        }
        if from == to || to == DataType::Unknown {
            return Ok(expr);
        }
        let explicit = context == CastContext::Explicit;
        if relabels(&from, &to) {
            return Ok(relabel(expr, &to));
        }
        if from.oid() != to.oid() && !types::can_coerce(&from, &to, context) {
            if let (Expr::Array { items, .. }, DataType::Array(element)) = (&expr, &to)
                && explicit
            {
                let items = items.clone();
                return self.array_of(items, element, context);
            }
            let (from, to) = (type_name(&from), type_name(&to));
            return Err(if explicit {
                SqlError::cannot_coerce(format!("cannot cast type {from} to {to}"))
            } else {
                SqlError::datatype_mismatch(format!("cannot convert type {from} to {to}"))
            });
        }
        Ok(Expr::Cast { input: Box::new(expr), from, to, explicit })
    }

    /// `ARRAY[…]` with every element cast.
    fn array_of(&mut self, items: Vec<Expr>, element: &DataType, context: CastContext) -> Result<Expr> {
        let items = items.into_iter().map(|e| self.coerce(e, element, context)).collect::<Result<_>>()?;
        Ok(Expr::Array { items, element: element.clone() })
    }

    /// An untyped literal or parameter takes the type it is used as.
    fn coerce_unknown(&mut self, expr: Expr, to: &DataType, context: CastContext) -> Result<Expr> {
        if *to == DataType::Unknown {
            return Ok(expr);
        }
        match expr {
            Expr::Literal(Datum::Null, _) => Ok(Expr::Literal(Datum::Null, to.clone())),
            Expr::Literal(Datum::Text(text), _) => {
                if is_session_dependent(to) {
                    // Read again when it is run, but a text that no session can read is wrong already.
                    if matches!(category(to), Category::DateTime) {
                        types::parse(&text, to, &self.context.format)?;
                    }
                    let input = Box::new(Expr::Literal(Datum::Text(text), DataType::Text));
                    return Ok(Expr::Cast { input, from: DataType::Text, to: to.clone(), explicit: true });
                }
                // An interval's fields say how it is read.
                let read = if matches!(to, DataType::Interval(_)) { to.clone() } else { to.unmodified() };
                let value = types::parse(&text, &read, &self.context.format)?;
                let explicit = context == CastContext::Explicit;
                let value = types::coerce_to_modifier(value, to, explicit)?;
                Ok(Expr::Literal(value, to.clone()))
            }
            Expr::Parameter(i, _) => {
                let plain = to.unmodified();
                match self.parameters.get(i).cloned().flatten() {
                    Some(known) => self.coerce(Expr::Parameter(i, known), to, context),
                    None => {
                        if let Some(slot) = self.parameters.get_mut(i) {
                            *slot = Some(plain.clone());
                        }
                        self.coerce(Expr::Parameter(i, plain), to, context)
                    }
                }
            }
            // A subquery or CASE whose branches were all untyped: its values are text.
            other => {
                let input = Box::new(other);
                Ok(match to {
                    DataType::Text => *input,
                    to => Expr::Cast { input, from: DataType::Text, to: to.clone(), explicit: true },
                })
            }
        }
    }

    /// Anything still untyped becomes `text`.
    pub(super) fn settle(&mut self, expr: Expr) -> Result<Expr> {
        match expr.ty() {
            DataType::Unknown => self.coerce(expr, &DataType::Text, CastContext::Implicit),
            _ => Ok(expr),
        }
    }

    /// All of one type: that of UNION, CASE, IN, … `what` begins the message if there is none.
    pub(super) fn unify(&mut self, exprs: Vec<Expr>, what: &str) -> Result<(Vec<Expr>, DataType)> {
        let types: Vec<DataType> = exprs.iter().map(|e| e.ty().base()).collect();
        let common = types::common_type(&types).map_err(|e| prefixed(e, what))?;
        let exprs = exprs
            .into_iter()
            .map(|e| self.coerce(e, &common, CastContext::Implicit))
            .collect::<Result<_>>()?;
        Ok((exprs, common))
    }

    /// A condition. 42804 `argument of WHERE must be type boolean, not type integer`.
    pub(super) fn boolean(&mut self, expr: Expr, what: &str) -> Result<Expr> {
        let ty = expr.ty();
        match ty.base() {
            DataType::Bool => Ok(expr),
            DataType::Unknown => self.coerce(expr, &DataType::Bool, CastContext::Implicit),
            other => Err(SqlError::datatype_mismatch(format!(
                "argument of {what} must be type boolean, not type {}",
                type_name(&other)
            ))),
        }
    }

    /// The value of a column in INSERT and UPDATE. 42804 as PostgreSQL words it.
    pub(super) fn assign(&mut self, expr: Expr, column: &str, to: &DataType) -> Result<Expr> {
        let from = expr.ty().base();
        let domain = to;
        let to = to.base();
        let fits = from == DataType::Unknown
            || from.oid() == to.oid()
            || relabels(&from, &to)
            || types::can_coerce(&from, &to, CastContext::Assignment);
        if !fits {
            return Err(SqlError::datatype_mismatch(format!(
                "column \"{column}\" is of type {} but expression is of type {}",
                type_name(domain),
                type_name(&from)
            ))
            .with_hint("You will need to rewrite or cast the expression."));
        }
        self.coerce(expr, domain, CastContext::Assignment)
    }
}

/// `types integer and text cannot be matched` becomes `UNION types integer and text cannot be matched`.
fn prefixed(mut error: SqlError, what: &str) -> SqlError {
    if error.message.starts_with("types ") && !what.is_empty() {
        error.message = format!("{what} {}", error.message);
    }
    error
}

//! Casts: which exist and when they apply (PostgreSQL's `pg_cast`), and what they do.
//!
//! A cast *implicit* may happen anywhere in an expression, one by *assignment* only when a value is stored
//! in a column, one that is *explicit* only where `CAST` or `::` is written. What is not in the matrix goes
//! through text when one side is a string type.

use std::sync::Arc;

use amphora_storage::datum::Timetz;
use amphora_storage::{DataType, Datum, Numeric};
use bigdecimal::{BigDecimal, RoundingMode};
use num_traits::ToPrimitive;
use serde_json::Value;

use super::category::{Category, category};
use super::datetime::DAY;
use super::{FormatContext, coerce_to_modifier, parse, to_text};
use crate::error::{Result, SqlError};

/// When a cast may be applied. A later one includes the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CastContext {
    /// Anywhere
    Implicit,
    /// When a value is stored in a column
    Assignment,
    /// Where a cast is written
    Explicit,
}

/// The least context in which `from` casts to `to`; `None` if there is no such cast.
pub fn can_cast(from: &DataType, to: &DataType) -> Option<CastContext> {
    use CastContext::*;
    use DataType as T;
    let (from, to) = (from.base(), to.base());
    if from.oid() == to.oid() || from == T::Unknown {
        return Some(Implicit);
    }
    if let (T::Array(a), T::Array(b)) = (&from, &to) {
        return can_cast(a, b);
    }
    let listed = match (&from, &to) {
        (T::Int2, T::Int4 | T::Int8 | T::Float4 | T::Float8 | T::Numeric(_)) => Some(Implicit),
        (T::Int4, T::Int8 | T::Float4 | T::Float8 | T::Numeric(_)) => Some(Implicit),
        (T::Int8, T::Float4 | T::Float8 | T::Numeric(_)) => Some(Implicit),
        (T::Numeric(_), T::Float4 | T::Float8) | (T::Float4, T::Float8) => Some(Implicit),
        (T::Int4, T::Int2) | (T::Int8, T::Int2 | T::Int4) => Some(Assignment),
        (T::Numeric(_), T::Int2 | T::Int4 | T::Int8) => Some(Assignment),
        (T::Float4, T::Int2 | T::Int4 | T::Int8 | T::Numeric(_)) => Some(Assignment),
        (T::Float8, T::Int2 | T::Int4 | T::Int8 | T::Float4 | T::Numeric(_)) => Some(Assignment),
        (T::Int4, T::Bool) | (T::Bool, T::Int4) => Some(Explicit),
        (T::Int4, T::InternalChar) | (T::InternalChar, T::Int4) => Some(Explicit),
        (T::Int2 | T::Int4 | T::Int8, t) if t.is_oid_like() => Some(Implicit),
        (f, T::Int4 | T::Int8) if f.is_oid_like() => Some(Assignment),
        (f, T::Oid) if f.is_oid_like() => Some(Implicit),
        (T::Oid, t) if t.is_oid_like() => Some(Implicit),
        (T::Regproc, T::Regprocedure) | (T::Regprocedure, T::Regproc) => Some(Implicit),
        (T::Regoper, T::Regoperator) | (T::Regoperator, T::Regoper) => Some(Implicit),
        (T::Text | T::Varchar(_), T::Regclass) => Some(Implicit),
        (T::Text | T::Varchar(_) | T::Char(_), T::Text | T::Varchar(_) | T::Char(_) | T::Name) => {
            Some(Implicit)
        }
        (T::Name | T::InternalChar, T::Text) => Some(Implicit),
        (T::Name | T::InternalChar, T::Varchar(_) | T::Char(_)) => Some(Assignment),
        (T::Text | T::Varchar(_) | T::Char(_), T::InternalChar) => Some(Assignment),
        (T::Date, T::Timestamp(_) | T::Timestamptz(_)) | (T::Timestamp(_), T::Timestamptz(_)) => {
            Some(Implicit)
        }
        (T::Timestamp(_), T::Date | T::Time(_)) => Some(Assignment),
        (T::Timestamptz(_), T::Date | T::Time(_) | T::Timestamp(_)) => Some(Assignment),
        (T::Time(_), T::Interval(_) | T::Timetz(_)) => Some(Implicit),
        (T::Timetz(_), T::Time(_)) | (T::Timestamptz(_), T::Timetz(_)) => Some(Assignment),
        (T::Interval(_), T::Time(_)) => Some(Assignment),
        (T::Json, T::Jsonb) | (T::Jsonb, T::Json) => Some(Assignment),
        (T::Jsonb, T::Bool | T::Int2 | T::Int4 | T::Int8 | T::Float4 | T::Float8 | T::Numeric(_)) => {
            Some(Explicit)
        }
        _ => None,
    };
    let string = |t: &T| category(t) == Category::String;
    match listed {
        Some(context) => Some(context),
        None if from == T::Void || to == T::Void || to == T::Unknown => None,
        None if string(&to) => Some(Assignment),
        None if string(&from) && !to.is_record() => Some(Explicit),
        None => None,
    }
}

/// True if a cast is allowed in this context.
pub fn can_coerce(from: &DataType, to: &DataType, context: CastContext) -> bool {
    can_cast(from, to).is_some_and(|least| least <= context)
}

/// Casts a value. The caller has checked with [`can_cast`] that the context allows it; an explicit cast
/// also cuts strings that are too long for the target. 22003, 22P02, 22008 … if the value does not fit,
/// 42846 if there is no such cast.
pub fn cast(
    value: &Datum,
    from: &DataType,
    to: &DataType,
    context: CastContext,
    format: &FormatContext,
) -> Result<Datum> {
    if value.is_null() {
        return Ok(Datum::Null);
    }
    let explicit = context == CastContext::Explicit;
    let (from, to) = (&from.base(), &to.base());
    if from == to && !super::modifier::has_modifier(to) {
        return Ok(value.clone());
    }
    let converted = convert(value, from, to, context, format)?;
    coerce_to_modifier(converted, to, explicit)
}

fn convert(
    value: &Datum,
    from: &DataType,
    to: &DataType,
    context: CastContext,
    format: &FormatContext,
) -> Result<Datum> {
    use DataType as T;
    Ok(match (value, to) {
        (_, T::Int2 | T::Int4 | T::Int8) if from.is_numeric() || from.is_oid_like() => {
            return to_int(value, to);
        }
        (_, T::Float4 | T::Float8) if from.is_numeric() => return to_float(value, to),
        (_, T::Numeric(_)) if from.is_numeric() => to_numeric(value, from)?,
        (_, t) if t.is_oid_like() && value.as_i64().is_some() => return to_oid(value),
        (Datum::Int4(v), T::Bool) => Datum::Bool(*v != 0),
        (Datum::Bool(v), T::Int4) => Datum::Int4(i32::from(*v)),
        (Datum::Int4(v), T::InternalChar) => internal_char(*v)?,
        (Datum::Text(s), T::Int4) if *from == T::InternalChar => {
            Datum::Int4(s.bytes().next().map_or(0, |b| i32::from(b as i8)))
        }
        (Datum::Jsonb(j), T::Bool | T::Int2 | T::Int4 | T::Int8 | T::Float4 | T::Float8 | T::Numeric(_)) => {
            return from_jsonb(&j.0, to, format);
        }
        (Datum::Date(d), T::Timestamp(_)) => Datum::Timestamp(date_to_timestamp(*d)?),
        (Datum::Date(d), T::Timestamptz(_)) => {
            Datum::Timestamptz(format.timezone.to_utc(date_to_timestamp(*d)?))
        }
        (Datum::Timestamp(t), T::Timestamptz(_)) => Datum::Timestamptz(format.timezone.to_utc(*t)),
        (Datum::Timestamp(t), T::Date) => timestamp_to_date(*t),
        (Datum::Timestamp(t), T::Time(_)) => timestamp_to_time(*t),
        (Datum::Timestamptz(t), T::Timestamp(_)) => Datum::Timestamp(format.timezone.to_local(*t)),
        (Datum::Timestamptz(t), T::Date) => timestamp_to_date(format.timezone.to_local(*t)),
        (Datum::Timestamptz(t), T::Time(_)) => timestamp_to_time(format.timezone.to_local(*t)),
        (Datum::Time(t), T::Interval(_)) => {
            Datum::Interval(Arc::new(amphora_storage::datum::Interval { months: 0, days: 0, micros: *t }))
        }
        (Datum::Time(t), T::Timetz(_)) => Datum::Timetz(Timetz {
            micros: *t,
            west: -format
                .timezone
                .offset_at_local(format.timezone.to_local(format.now).div_euclid(DAY) * DAY + *t),
        }),
        (Datum::Timetz(t), T::Time(_)) => Datum::Time(t.micros),
        (Datum::Timestamptz(t), T::Timetz(_)) => match *t {
            i64::MAX | i64::MIN => Datum::Null,
            _ => Datum::Timetz(Timetz {
                micros: format.timezone.to_local(*t).rem_euclid(DAY),
                west: -format.timezone.offset_at(*t),
            }),
        },
        (Datum::Interval(i), T::Time(_)) => Datum::Time(i.micros.rem_euclid(DAY)),
        (Datum::Array(a), T::Array(element)) => {
            let mut items = Vec::with_capacity(a.items.len());
            for item in &a.items {
                items.push(cast(item, &a.element, element, context, format)?);
            }
            Datum::Array(Arc::new(a.with_items((**element).clone(), items)))
        }
        (Datum::Text(s), T::Json) if *from != T::Json => parse(s, to, format)?,
        (Datum::Text(s), T::Text | T::Varchar(_) | T::Char(_) | T::Name) => match from {
            // A char(n) loses its padding when it becomes any other string type.
            T::Char(_) if !matches!(to, T::Char(_)) && s.ends_with(' ') => {
                Datum::text(s.trim_end_matches(' '))
            }
            _ => value.clone(),
        },
        (Datum::Text(_), T::InternalChar) => value.clone(),
        (Datum::Bool(b), T::Text | T::Varchar(_) | T::Char(_)) => {
            Datum::text(if *b { "true" } else { "false" })
        }
        // Read as if there were no modifier, whose fields say what a bare number counts.
        (Datum::Text(s), T::Interval(_)) => parse(s, &T::Interval(None), format)?,
        (Datum::Text(s), _) => parse(s, to, format)?,
        (Datum::Jsonb(j), T::Json) => Datum::text(j.to_string()),
        (_, t) if t.is_string() => Datum::text(to_text(value, from, format)),
        _ if from.oid() == to.oid() => value.clone(),
        _ => return Err(SqlError::cannot_coerce(format!("cannot cast type {from} to {to}"))),
    })
}

fn to_int(value: &Datum, to: &DataType) -> Result<Datum> {
    let wide = match value {
        Datum::Float4(f) => float_to_i64(f64::from(*f), to)?,
        Datum::Float8(f) => float_to_i64(*f, to)?,
        Datum::Numeric(n) => match &**n {
            Numeric::Finite(d) => {
                let rounded = d.with_scale_round(0, RoundingMode::HalfUp);
                rounded.to_i64().ok_or_else(|| SqlError::out_of_range(to))?
            }
            Numeric::NaN => {
                return Err(SqlError::feature_not_supported(format!("cannot convert NaN to {to}")));
            }
            _ => return Err(SqlError::feature_not_supported(format!("cannot convert infinity to {to}"))),
        },
        Datum::Oid(v) if *to == DataType::Int4 => i64::from(*v as i32),
        other => other.as_i64().ok_or_else(|| SqlError::internal("not a number"))?,
    };
    let narrow = match to {
        DataType::Int2 => i16::try_from(wide).ok().map(Datum::Int2),
        DataType::Int4 => i32::try_from(wide).ok().map(Datum::Int4),
        _ => Some(Datum::Int8(wide)),
    };
    narrow.ok_or_else(|| SqlError::out_of_range(to))
}

/// Rounds half to even, as `rint` does.
fn float_to_i64(f: f64, to: &DataType) -> Result<i64> {
    let rounded = f.round_ties_even();
    if rounded.is_nan() || !(-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded) {
        return Err(SqlError::out_of_range(to));
    }
    Ok(rounded as i64)
}

fn to_float(value: &Datum, to: &DataType) -> Result<Datum> {
    if *to == DataType::Float4 {
        let overflow = || SqlError::numeric_value_out_of_range("value out of range: overflow");
        let narrow = match value {
            Datum::Float4(f) => *f,
            Datum::Float8(f) => {
                let narrow = *f as f32;
                if narrow.is_infinite() && f.is_finite() {
                    return Err(overflow());
                }
                if narrow == 0.0 && *f != 0.0 {
                    return Err(SqlError::numeric_value_out_of_range("value out of range: underflow"));
                }
                narrow
            }
            Datum::Numeric(n) => {
                let text = n.to_string();
                let narrow: f32 = text.parse().unwrap_or(f32::NAN);
                if narrow.is_infinite() && n.as_finite().is_some() {
                    let message = format!("\"{text}\" is out of range for type real");
                    return Err(SqlError::numeric_value_out_of_range(message));
                }
                narrow
            }
            other => other.as_i64().unwrap_or_default() as f32,
        };
        return Ok(Datum::Float4(narrow));
    }
    Ok(Datum::Float8(match value {
        Datum::Float4(f) => f64::from(*f),
        Datum::Float8(f) => *f,
        Datum::Numeric(n) => {
            let wide: f64 = n.to_string().parse().unwrap_or(f64::NAN);
            if wide.is_infinite() && n.as_finite().is_some() {
                let message = format!("\"{n}\" is out of range for type double precision");
                return Err(SqlError::numeric_value_out_of_range(message));
            }
            wide
        }
        other => other.as_i64().unwrap_or_default() as f64,
    }))
}

fn to_numeric(value: &Datum, from: &DataType) -> Result<Datum> {
    let from_float = |f: f64, digits: usize| -> Result<Numeric> {
        if f.is_nan() {
            return Ok(Numeric::NaN);
        }
        if f.is_infinite() {
            return Ok(if f > 0.0 { Numeric::Infinity } else { Numeric::NegInfinity });
        }
        // As `%.*g` prints it: so many significant digits and no trailing zeros.
        let text = format!("{:.*e}", digits - 1, f);
        let number: BigDecimal =
            text.parse().map_err(|_| SqlError::internal("a float did not convert to numeric"))?;
        Ok(Numeric::finite(number.normalized()))
    };
    Ok(Datum::numeric(match value {
        Datum::Numeric(_) => return Ok(value.clone()),
        Datum::Float4(f) => from_float(f64::from(*f), 6)?,
        Datum::Float8(f) => from_float(*f, 15)?,
        other => match other.as_i64() {
            Some(v) => Numeric::from(v),
            None => return Err(SqlError::cannot_coerce(format!("cannot cast type {from} to numeric"))),
        },
    }))
}

fn to_oid(value: &Datum) -> Result<Datum> {
    let wide = value.as_i64().unwrap_or_default();
    match value {
        // A negative integer is the OID with the same bits, as in PostgreSQL.
        Datum::Int2(v) => Ok(Datum::Oid(i32::from(*v) as u32)),
        Datum::Int4(v) => Ok(Datum::Oid(*v as u32)),
        _ => u32::try_from(wide)
            .map(Datum::Oid)
            .map_err(|_| SqlError::numeric_value_out_of_range("OID out of range")),
    }
}

fn internal_char(v: i32) -> Result<Datum> {
    match u8::try_from(v) {
        Ok(0) => Ok(Datum::text("")),
        Ok(b) if b < 128 => Ok(Datum::text((b as char).to_string())),
        _ => Err(SqlError::numeric_value_out_of_range("\"char\" out of range")),
    }
}

fn from_jsonb(json: &Value, to: &DataType, format: &FormatContext) -> Result<Datum> {
    let kind = match json {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "numeric",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    match (json, to) {
        (Value::Bool(b), DataType::Bool) => Ok(Datum::Bool(*b)),
        (Value::Number(n), t) if *t != DataType::Bool => {
            let number = super::parse_numeric(&n.to_string())?;
            cast(&Datum::numeric(number), &DataType::Numeric(None), to, CastContext::Explicit, format)
        }
        _ => {
            let message = format!("cannot cast jsonb {kind} to type {}", to.unmodified());
            Err(SqlError::invalid_parameter_value(message))
        }
    }
}

fn date_to_timestamp(days: i32) -> Result<i64> {
    match days {
        i32::MAX => Ok(i64::MAX),
        i32::MIN => Ok(i64::MIN),
        _ if days >= super::datetime::END_TIMESTAMP_DAYS => {
            Err(SqlError::datetime_field_overflow("date out of range for timestamp"))
        }
        _ => Ok(i64::from(days) * DAY),
    }
}

fn timestamp_to_date(t: i64) -> Datum {
    Datum::Date(match t {
        i64::MAX => i32::MAX,
        i64::MIN => i32::MIN,
        _ => t.div_euclid(DAY) as i32,
    })
}

fn timestamp_to_time(t: i64) -> Datum {
    match t {
        i64::MAX | i64::MIN => Datum::Null,
        _ => Datum::Time(t.rem_euclid(DAY)),
    }
}

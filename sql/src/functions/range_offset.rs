//! The distances of RANGE frames: `RANGE BETWEEN '1 day' PRECEDING AND CURRENT ROW`.
//!
//! PostgreSQL asks an operator family's `in_range` whether a row lies within the offset of another. Here
//! the bound itself is computed, once per row, and compared with the rows' values: the type in which it
//! is computed ([`range_key`]) is wide enough not to overflow, or holds at infinity.

use std::sync::Arc;

use amphora_storage::datum::Interval as Span;
use amphora_storage::{DataType, Datum, Numeric};

use super::arithmetic::{numeric, wrong_kind};
use super::datetime_operator::{add_interval, negate};
use super::decimal;
use crate::error::{Result, SqlError};
use crate::types::TimeZone;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// The type of an offset from values of this type; `None` where RANGE takes no offset.
pub fn range_offset_type(key: &DataType) -> Option<DataType> {
    Some(match key.base() {
        DataType::Int2 | DataType::Int4 | DataType::Int8 => DataType::Int8,
        DataType::Float4 | DataType::Float8 => DataType::Float8,
        DataType::Numeric(_) => DataType::Numeric(None),
        DataType::Date
        | DataType::Time(_)
        | DataType::Timestamp(_)
        | DataType::Timestamptz(_)
        | DataType::Interval(_) => DataType::Interval(None),
        _ => return None,
    })
}

/// A value of an ORDER BY column in the form in which bounds are computed and compared.
pub fn range_key(value: &Datum) -> Datum {
    match value {
        Datum::Int2(v) => Datum::Int8(i64::from(*v)),
        Datum::Int4(v) => Datum::Int8(i64::from(*v)),
        Datum::Float4(v) => Datum::Float8(f64::from(*v)),
        Datum::Date(i32::MAX) => Datum::Timestamp(i64::MAX),
        Datum::Date(i32::MIN) => Datum::Timestamp(i64::MIN),
        Datum::Date(days) => Datum::Timestamp(i64::from(*days).saturating_mul(MICROS_PER_DAY)),
        other => other.clone(),
    }
}

/// 22013 unless the offset is one that a frame may have.
pub fn check_range_offset(offset: &Datum) -> Result<()> {
    let bad = match offset {
        Datum::Int8(v) => *v < 0,
        Datum::Float8(v) => v.is_nan() || *v < 0.0,
        Datum::Numeric(n) => matches!(**n, Numeric::NaN) || decimal::sign(n) < 0,
        Datum::Interval(i) => i.comparable() < 0,
        _ => false,
    };
    match bad {
        true => Err(SqlError::new("22013", "invalid preceding or following size in window function")),
        false => Ok(()),
    }
}

/// The value that lies `offset` before (or after) a key.
pub fn range_bound(key: &Datum, offset: &Datum, before: bool, zone: &TimeZone) -> Result<Datum> {
    let span = |i: &Span| if before { negate(i) } else { Ok(*i) };
    Ok(match (key, offset) {
        (Datum::Int8(k), Datum::Int8(o)) => {
            Datum::Int8(if before { k.saturating_sub(*o) } else { k.saturating_add(*o) })
        }
        (Datum::Float8(k), Datum::Float8(o)) => {
            // Infinities of one sign keep their distance from themselves.
            let bound = if before { k - o } else { k + o };
            Datum::Float8(if bound.is_nan() { *k } else { bound })
        }
        (Datum::Numeric(k), Datum::Numeric(o)) => Datum::numeric(match before {
            true => decimal::subtract(k, numeric(offset)?)?,
            false => decimal::add(k, o)?,
        }),
        (Datum::Timestamp(k), Datum::Interval(o)) => Datum::Timestamp(saturated(*k, &span(o)?, before, None)),
        (Datum::Timestamptz(k), Datum::Interval(o)) => {
            Datum::Timestamptz(saturated(*k, &span(o)?, before, Some(zone)))
        }
        (Datum::Time(k), Datum::Interval(o)) => {
            // Only the time part counts, and the clock does not wrap.
            Datum::Time(if before { k.saturating_sub(o.micros) } else { k.saturating_add(o.micros) })
        }
        (Datum::Interval(k), Datum::Interval(o)) => {
            let o = span(o)?;
            Datum::Interval(Arc::new(Span {
                months: k.months.saturating_add(o.months),
                days: k.days.saturating_add(o.days),
                micros: k.micros.saturating_add(o.micros),
            }))
        }
        _ => return Err(wrong_kind()),
    })
}

/// A moment moved by an interval; beyond the calendar's end it is at infinity.
fn saturated(value: i64, span: &Span, before: bool, zone: Option<&TimeZone>) -> i64 {
    add_interval(value, span, zone).unwrap_or(if before { i64::MIN } else { i64::MAX })
}

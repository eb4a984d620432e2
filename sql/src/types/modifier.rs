//! Type modifiers: the length of `varchar(n)` and `char(n)`, the precision and scale of `numeric(p,s)`, the
//! digits of a second that `timestamp(p)` keeps, the fields of `interval year to month`.

use std::sync::Arc;

use amphora_storage::datum::{Interval, Timetz};
use amphora_storage::types::IntervalModifier;
use amphora_storage::{DataType, Datum, Numeric};
use bigdecimal::{BigDecimal, RoundingMode};
use num_bigint::BigInt;
use num_traits::Signed;

use super::datetime::{HOUR, MINUTE};
use crate::error::{Result, SqlError};

/// Fits a value of the right type to the type's modifier. An `explicit` cast cuts a string that is too
/// long; otherwise only its trailing spaces may be cut (22001).
pub fn coerce_to_modifier(value: Datum, to: &DataType, explicit: bool) -> Result<Datum> {
    match (to, &value) {
        (DataType::Varchar(Some(n)), Datum::Text(s)) => match fit(s, *n as usize, explicit, to)? {
            Some(end) => Ok(Datum::text(&s[..end])),
            None => Ok(value),
        },
        (DataType::Char(n), Datum::Text(s)) if *n > 0 => {
            let n = *n as usize;
            match fit(s, n, explicit, to)? {
                Some(end) => Ok(Datum::text(&s[..end])),
                None => {
                    let length = s.chars().count();
                    if length == n {
                        return Ok(value);
                    }
                    let mut padded = String::with_capacity(s.len() + n - length);
                    padded.push_str(s);
                    padded.extend(std::iter::repeat_n(' ', n - length));
                    Ok(Datum::text(padded))
                }
            }
        }
        (DataType::Name, Datum::Text(s)) if s.len() > 63 => {
            let end = (0..=63).rev().find(|i| s.is_char_boundary(*i)).unwrap_or(0);
            Ok(Datum::text(&s[..end]))
        }
        (DataType::InternalChar, Datum::Text(s)) => {
            let end = s.chars().next().map_or(0, char::len_utf8);
            Ok(if end == s.len() { value } else { Datum::text(&s[..end]) })
        }
        (DataType::Numeric(Some((precision, scale))), Datum::Numeric(n)) => match &**n {
            Numeric::Finite(d) => Ok(Datum::numeric(Numeric::Finite(fit_numeric(d, *precision, *scale)?))),
            Numeric::NaN => Ok(value),
            _ => Err(SqlError::numeric_value_out_of_range("numeric field overflow").with_detail(format!(
                "A field with precision {precision}, scale {scale} cannot hold an infinite value."
            ))),
        },
        (DataType::Time(Some(p)), Datum::Time(t)) => Ok(Datum::Time(round_micros(*t, *p))),
        (DataType::Timetz(Some(p)), Datum::Timetz(t)) => {
            Ok(Datum::Timetz(Timetz { micros: round_micros(t.micros, *p), west: t.west }))
        }
        (DataType::Timestamp(Some(p)), Datum::Timestamp(t)) => Ok(Datum::Timestamp(round_timestamp(*t, *p)?)),
        (DataType::Timestamptz(Some(p)), Datum::Timestamptz(t)) => {
            Ok(Datum::Timestamptz(round_timestamp(*t, *p)?))
        }
        (DataType::Interval(Some(m)), Datum::Interval(i)) => {
            Ok(Datum::Interval(Arc::new(fit_interval(i, m))))
        }
        (DataType::Array(element), Datum::Array(a)) if has_modifier(element) => {
            let mut items = Vec::with_capacity(a.items.len());
            for item in &a.items {
                items.push(coerce_to_modifier(item.clone(), element, explicit)?);
            }
            Ok(Datum::Array(Arc::new(a.with_items((**element).clone(), items))))
        }
        (DataType::Crdt(c), _) => coerce_to_modifier(value, &c.base(), explicit),
        _ => Ok(value),
    }
}

/// True if values of this type must pass through [`coerce_to_modifier`].
pub(super) fn has_modifier(data_type: &DataType) -> bool {
    match data_type {
        DataType::Varchar(Some(_))
        | DataType::Char(1..)
        | DataType::Numeric(Some(_))
        | DataType::Time(Some(_))
        | DataType::Timetz(Some(_))
        | DataType::Timestamp(Some(_))
        | DataType::Timestamptz(Some(_))
        | DataType::Interval(Some(_))
        | DataType::Name
        | DataType::InternalChar => true,
        DataType::Array(t) => has_modifier(t),
        DataType::Crdt(c) => has_modifier(&c.base()),
        _ => false,
    }
}

/// Where to cut the string, if it must be cut.
fn fit(s: &Arc<str>, n: usize, explicit: bool, to: &DataType) -> Result<Option<usize>> {
    if s.len() <= n {
        return Ok(None);
    }
    let Some((end, _)) = s.char_indices().nth(n) else {
        return Ok(None);
    };
    if !explicit && s[end..].chars().any(|c| c != ' ') {
        return Err(SqlError::string_data_right_truncation(format!("value too long for type {to}")));
    }
    Ok(Some(end))
}

/// Rounds half away from zero to the scale, and checks the precision.
fn fit_numeric(d: &BigDecimal, precision: u16, scale: i16) -> Result<BigDecimal> {
    let rounded = d.with_scale_round(i64::from(scale), RoundingMode::HalfUp);
    let (digits, _) = rounded.as_bigint_and_exponent();
    if digits.abs() >= BigInt::from(10).pow(u32::from(precision)) {
        let whole = i32::from(precision) - i32::from(scale);
        let bound = if whole == 0 { "1".to_string() } else { format!("10^{whole}") };
        return Err(SqlError::numeric_value_out_of_range("numeric field overflow").with_detail(format!(
            "A field with precision {precision}, scale {scale} must round to an absolute value less than {bound}."
        )));
    }
    Ok(if scale < 0 { rounded.with_scale(0) } else { rounded })
}

/// Rounds microseconds to so many digits of a second, half away from zero. Saturates, and the callers'
/// values are far from that.
pub(crate) fn round_micros(micros: i64, digits: u8) -> i64 {
    let unit = 10_i64.pow(6_u32.saturating_sub(u32::from(digits)));
    let half = (unit / 2) * micros.signum();
    micros.saturating_add(half) / unit * unit
}

/// [`round_micros`], but the infinities stay. 22008 beyond the last timestamp.
fn round_timestamp(t: i64, digits: u8) -> Result<i64> {
    if matches!(t, i64::MAX | i64::MIN) {
        return Ok(t);
    }
    let rounded = round_micros(t, digits);
    if rounded >= i64::from(super::datetime::END_TIMESTAMP_DAYS) * super::datetime::DAY {
        return Err(SqlError::datetime_field_overflow("timestamp out of range"));
    }
    Ok(rounded)
}

/// What an interval type with these fields keeps: nothing below its least field. The fields above its
/// greatest one stay, as in PostgreSQL.
fn fit_interval(i: &Interval, m: &IntervalModifier) -> Interval {
    use IntervalModifier as M;
    let whole = |unit: i64| i.micros / unit * unit;
    let mut kept = *i;
    if m.fields != M::ALL {
        kept = match m.fields {
            f if f & M::SECOND != 0 => kept,
            f if f & M::MINUTE != 0 => Interval { micros: whole(MINUTE), ..kept },
            f if f & M::HOUR != 0 => Interval { micros: whole(HOUR), ..kept },
            f if f & M::DAY != 0 => Interval { micros: 0, ..kept },
            f if f & M::MONTH != 0 => Interval { micros: 0, days: 0, ..kept },
            _ => Interval { micros: 0, days: 0, months: kept.months / 12 * 12 },
        };
    }
    if let Some(p) = m.precision {
        kept.micros = round_micros(kept.micros, p);
    }
    kept
}

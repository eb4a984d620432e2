//! Type modifiers: the length of `varchar(n)` and `char(n)`, the precision and scale of `numeric(p,s)`.

use std::sync::Arc;

use amphora_storage::{DataType, Datum, Numeric};
use bigdecimal::{BigDecimal, RoundingMode};
use num_bigint::BigInt;
use num_traits::Signed;

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
        (DataType::Array(element), Datum::Array(a)) if has_modifier(element) => {
            let mut items = Vec::with_capacity(a.items.len());
            for item in &a.items {
                items.push(coerce_to_modifier(item.clone(), element, explicit)?);
            }
            Ok(Datum::array((**element).clone(), items))
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

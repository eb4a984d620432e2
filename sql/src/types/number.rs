//! Numbers as text.

use amphora_storage::{DataType, Numeric};
use bigdecimal::BigDecimal;

use crate::error::{Result, SqlError};

/// An integer of the given type, widened: `22P02` if it is no integer, `22003` if it does not fit.
pub fn parse_int(text: &str, data_type: &DataType) -> Result<i64> {
    let trimmed = text.trim_matches(is_space);
    let digits = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SqlError::invalid_input(data_type, text));
    }
    let (low, high) = match data_type {
        DataType::Int2 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DataType::Int4 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        DataType::Int8 => (i64::MIN, i64::MAX),
        _ => (i64::from(i32::MIN), i64::from(u32::MAX)),
    };
    trimmed.parse::<i64>().ok().filter(|v| (low..=high).contains(v)).ok_or_else(|| {
        let message = format!("value \"{text}\" is out of range for type {data_type}");
        SqlError::numeric_value_out_of_range(message)
    })
}

/// What PostgreSQL's input functions skip at both ends.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// A decimal number as PostgreSQL writes it: sign, digits with a point, exponent.
fn is_decimal(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(i) => (&unsigned[..i], Some(&unsigned[i + 1..])),
        None => (unsigned, None),
    };
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let points = mantissa.bytes().filter(|b| *b == b'.').count();
    if digits == 0 || points > 1 || digits + points != mantissa.len() {
        return false;
    }
    exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && e.bytes().all(|b| b.is_ascii_digit())
    })
}

/// Infinity or NaN, by any of its spellings; the sign of an infinity.
fn special(text: &str) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    let (sign, name) = match lower.as_bytes().first()? {
        b'-' => (-1.0, &lower[1..]),
        b'+' => (1.0, &lower[1..]),
        _ => (1.0, lower.as_str()),
    };
    match name {
        "infinity" | "inf" => Some(sign * f64::INFINITY),
        "nan" if lower == "nan" => Some(f64::NAN),
        _ => None,
    }
}

/// `double precision` from text.
pub fn parse_float8(text: &str) -> Result<f64> {
    let trimmed = text.trim_matches(is_space);
    if let Some(value) = special(trimmed) {
        return Ok(value);
    }
    if !is_decimal(trimmed) {
        return Err(SqlError::invalid_input(&DataType::Float8, text));
    }
    let value: f64 = trimmed.parse().map_err(|_| SqlError::invalid_input(&DataType::Float8, text))?;
    if value.is_infinite() || (value == 0.0 && has_nonzero_digit(trimmed)) {
        let message = format!("\"{trimmed}\" is out of range for type double precision");
        return Err(SqlError::numeric_value_out_of_range(message));
    }
    Ok(value)
}

/// `real` from text.
pub fn parse_float4(text: &str) -> Result<f32> {
    let trimmed = text.trim_matches(is_space);
    if let Some(value) = special(trimmed) {
        return Ok(value as f32);
    }
    if !is_decimal(trimmed) {
        return Err(SqlError::invalid_input(&DataType::Float4, text));
    }
    let value: f32 = trimmed.parse().map_err(|_| SqlError::invalid_input(&DataType::Float4, text))?;
    if value.is_infinite() || (value == 0.0 && has_nonzero_digit(trimmed)) {
        let message = format!("\"{trimmed}\" is out of range for type real");
        return Err(SqlError::numeric_value_out_of_range(message));
    }
    Ok(value)
}

fn has_nonzero_digit(text: &str) -> bool {
    text.split(['e', 'E']).next().unwrap_or("").bytes().any(|b| (b'1'..=b'9').contains(&b))
}

/// Digits PostgreSQL keeps before the decimal point, and after it.
const MAX_WHOLE_DIGITS: i64 = 131_072;
/// See [`MAX_WHOLE_DIGITS`].
const MAX_SCALE: i64 = 16_383;

/// `numeric` from text, keeping its scale for display.
pub fn parse_numeric(text: &str) -> Result<Numeric> {
    let trimmed = text.trim_matches(is_space);
    if let Some(value) = special(trimmed) {
        return Ok(match value {
            v if v.is_nan() => Numeric::NaN,
            v if v > 0.0 => Numeric::Infinity,
            _ => Numeric::NegInfinity,
        });
    }
    if !is_decimal(trimmed) {
        return Err(SqlError::invalid_input(&DataType::Numeric(None), text));
    }
    let overflow = || SqlError::numeric_value_out_of_range("value overflows numeric format");
    let exponent = match trimmed.find(['e', 'E']) {
        Some(i) => trimmed[i + 1..].parse::<i64>().map_err(|_| overflow())?,
        None => 0,
    };
    if !(-MAX_SCALE..=MAX_WHOLE_DIGITS).contains(&exponent) {
        return Err(overflow());
    }
    let number: BigDecimal =
        trimmed.parse().map_err(|_| SqlError::invalid_input(&DataType::Numeric(None), text))?;
    check_numeric(number)
}

/// A finite numeric within PostgreSQL's limits, or 22003.
pub fn check_numeric(number: BigDecimal) -> Result<Numeric> {
    let scale = number.fractional_digit_count();
    if scale > MAX_SCALE || number.digits() as i64 - scale > MAX_WHOLE_DIGITS {
        return Err(SqlError::numeric_value_out_of_range("value overflows numeric format"));
    }
    Ok(Numeric::finite(number))
}

/// `double precision` as text. With `extra_float_digits` above 0, the shortest that reads back the same.
pub fn format_float8(value: f64, extra_float_digits: i32) -> String {
    if extra_float_digits > 0 {
        return shortest(value.is_nan(), value.is_infinite(), value < 0.0, 15, || format!("{value:e}"));
    }
    let digits = (15 + extra_float_digits).max(1) as usize;
    general(value, digits)
}

/// `real` as text.
pub fn format_float4(value: f32, extra_float_digits: i32) -> String {
    if extra_float_digits > 0 {
        return shortest(value.is_nan(), value.is_infinite(), value < 0.0, 6, || format!("{value:e}"));
    }
    let digits = (6 + extra_float_digits).max(1) as usize;
    general(f64::from(value), digits)
}

/// Like C's `%.*g`.
fn general(value: f64, digits: usize) -> String {
    shortest(value.is_nan(), value.is_infinite(), value < 0.0, digits as i32, || {
        let text = format!("{value:.*e}", digits - 1);
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let mantissa = match mantissa.contains('.') {
            true => mantissa.trim_end_matches('0').trim_end_matches('.'),
            false => mantissa,
        };
        format!("{mantissa}e{exponent}")
    })
}

/// Lays out `d.ddde±x` as PostgreSQL does: plainly while the exponent is in -4..limit, else as `1e+20`.
fn shortest(
    nan: bool,
    infinite: bool,
    negative: bool,
    limit: i32,
    scientific: impl Fn() -> String,
) -> String {
    if nan {
        return "NaN".to_string();
    }
    if infinite {
        return if negative { "-Infinity" } else { "Infinity" }.to_string();
    }
    let text = scientific();
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..limit).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let (sign, unsigned) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let digits: String = unsigned.chars().filter(|c| *c != '.').collect();
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat((-exponent - 1) as usize));
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        format!("{sign}{digits}{}", "0".repeat(whole - digits.len()))
    } else {
        format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
    }
}

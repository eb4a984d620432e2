//! Texts with a syntax of their own: qualified names, Unicode escapes, sizes with units.

use amphora_storage::{DataType, Datum};
use bigdecimal::{BigDecimal, RoundingMode};
use num_traits::ToPrimitive;

use super::signature::Ty::*;
use super::string::str_of;
use super::{Call, ScalarFunction, function};
use crate::error::{Result, SqlError};

fn is_start(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic() || !c.is_ascii()
}

/// `parse_ident('"Some".name')`: the parts of a qualified name, folded where they are not quoted.
fn parse_ident(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let text = str_of(&a[0])?;
    let strict = a.get(1).and_then(Datum::as_bool).unwrap_or(true);
    let wrong = |detail: Option<String>| {
        let error =
            SqlError::invalid_parameter_value(format!("string is not a valid identifier: \"{text}\""));
        match detail {
            Some(detail) => error.with_detail(detail),
            None => error,
        }
    };
    let mut parts = Vec::new();
    let mut rest = text.trim_start();
    let mut after_dot = false;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut part = String::new();
            let mut characters = quoted.char_indices().peekable();
            let end = loop {
                match characters.next() {
                    None => return Err(wrong(Some("String has unclosed double quotes.".into()))),
                    Some((_, '"')) if characters.next_if(|(_, c)| *c == '"').is_some() => part.push('"'),
                    Some((i, '"')) => break i + 1,
                    Some((_, c)) => part.push(c),
                }
            };
            if part.is_empty() {
                return Err(wrong(Some("Quoted identifier must not be empty.".into())));
            }
            parts.push(part);
            rest = &quoted[end..];
        } else if rest.starts_with(is_start) {
            let inside = |c: char| is_start(c) || c.is_ascii_digit() || c == '$';
            let end = rest.find(|c| !inside(c)).unwrap_or(rest.len());
            parts.push(rest[..end].to_ascii_lowercase());
            rest = &rest[end..];
        } else if rest.starts_with('.') {
            return Err(wrong(Some("No valid identifier before \".\".".into())));
        } else if after_dot {
            return Err(wrong(Some("No valid identifier after \".\".".into())));
        } else {
            return Err(wrong(None));
        }
        rest = rest.trim_start();
        match rest.strip_prefix('.') {
            Some(next) => {
                rest = next.trim_start();
                after_dot = true;
            }
            None if rest.is_empty() || !strict => break,
            None => return Err(wrong(None)),
        }
    }
    Ok(Datum::array(DataType::Text, parts.into_iter().map(Datum::text).collect()))
}

/// `unistr('d\0061t\U00000061')`
fn unistr(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let text = str_of(&a[0])?;
    let wrong = || {
        SqlError::syntax_error("invalid Unicode escape")
            .with_hint("Unicode escapes must be \\XXXX, \\+XXXXXX, \\uXXXX, or \\UXXXXXXXX.")
    };
    let pair = || SqlError::syntax_error("invalid Unicode surrogate pair");
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let mut high: Option<u32> = None;
    while let Some(c) = characters.next() {
        if c != '\\' {
            if high.is_some() {
                return Err(pair());
            }
            out.push(c);
            continue;
        }
        let digits = match characters.peek() {
            Some('\\') if high.is_none() => {
                characters.next();
                out.push('\\');
                continue;
            }
            Some('+') => 6,
            Some('u') => 4,
            Some('U') => 8,
            _ => 0,
        };
        if digits > 0 {
            characters.next();
        }
        let mut code: u32 = 0;
        for _ in 0..digits.max(4) {
            let digit = characters.next().and_then(|c| c.to_digit(16)).ok_or_else(wrong)?;
            code = code.wrapping_mul(16).wrapping_add(digit);
        }
        match (high.take(), code) {
            (None, 0xd800..=0xdbff) => high = Some(code),
            (Some(first), 0xdc00..=0xdfff) => {
                out.extend(char::from_u32(0x10000 + ((first - 0xd800) << 10) + (code - 0xdc00)));
            }
            (Some(_), _) | (None, 0xdc00..=0xdfff) => return Err(pair()),
            (None, code) => match char::from_u32(code).filter(|c| *c != '\0') {
                Some(c) => out.push(c),
                None => {
                    let message = format!("invalid Unicode code point: {code:04X}");
                    return Err(SqlError::invalid_parameter_value(message));
                }
            },
        }
    }
    if high.is_some() {
        return Err(pair());
    }
    Ok(Datum::text(out))
}

/// `pg_size_bytes('1.5 kB')`
fn size_bytes(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let text = str_of(&a[0])?;
    let wrong = || SqlError::invalid_parameter_value(format!("invalid size: \"{text}\""));
    let trimmed = text.trim();
    let end = trimmed
        .char_indices()
        .find(|(i, c)| !(c.is_ascii_digit() || *c == '.' || (*i == 0 && matches!(c, '+' | '-'))))
        .map_or(trimmed.len(), |(i, _)| i);
    // An exponent belongs to the number if digits follow.
    let tail = trimmed[end..].strip_prefix(['e', 'E']);
    let exponent = tail.map_or(0, |tail| {
        let sign = usize::from(tail.starts_with(['+', '-']));
        let digits = tail[sign..].bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 3 { 0 } else { 1 + sign + digits }
    });
    let (number, unit) = trimmed.split_at(end + exponent);
    let number: BigDecimal = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim();
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "bytes" => 0,
        "kb" => 10,
        "mb" => 20,
        "gb" => 30,
        "tb" => 40,
        "pb" => 50,
        _ => {
            return Err(wrong()
                .with_detail(format!("Invalid size unit: \"{unit}\"."))
                .with_hint("Valid units are \"bytes\", \"kB\", \"MB\", \"GB\", \"TB\", and \"PB\"."));
        }
    };
    let bytes = (number * BigDecimal::from(1_i64 << shift)).with_scale_round(0, RoundingMode::HalfUp);
    let bytes = bytes.to_i64().ok_or_else(|| SqlError::numeric_value_out_of_range("bigint out of range"))?;
    Ok(Datum::Int8(bytes))
}

/// The functions of this family.
pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    function("parse_ident", &[Text], Array(&Text), parse_ident),
    function("parse_ident", &[Text, Bool], Array(&Text), parse_ident),
    function("unistr", &[Text], Text, unistr),
    function("pg_size_bytes", &[Text], Int8, size_bytes),
];

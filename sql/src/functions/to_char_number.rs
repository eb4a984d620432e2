//! `to_char` of numbers and `to_number`.
//!
//! The template is read into a list of marks first. Digits are then laid into it from the decimal point
//! outwards; a number that needs more digits than the template has becomes `#`.

use amphora_storage::Numeric;
use bigdecimal::BigDecimal;
use num_traits::{Signed, ToPrimitive, Zero};

use super::decimal;
use crate::error::{Result, SqlError};

/// A mark of a template.
#[derive(Clone, Debug, PartialEq)]
enum Mark {
    Nine,
    Zero,
    Point,
    Comma,
    Sign,
    Minus,
    Plus,
    PlusMinus,
    Brackets,
    Currency,
    Ordinal(bool),
    Text(String),
}

/// What the whole template says.
#[derive(Default)]
struct Template {
    marks: Vec<Mark>,
    fill: bool,
    roman: bool,
    scientific: bool,
    shift: u32,
    blank: bool,
}

fn read(template: &str) -> Result<Template> {
    let mut t = Template::default();
    let mut rest = template;
    let (mut after_v, mut seen_point) = (false, false);
    while let Some(c) = rest.chars().next() {
        let upper = rest.get(..4.min(rest.len())).unwrap_or(rest).to_ascii_uppercase();
        let (mark, length) = if c == '"' {
            let body = &rest[1..];
            let end = body.find('"').unwrap_or(body.len());
            (Some(Mark::Text(body[..end].to_string())), (end + 2).min(rest.len()))
        } else if upper.starts_with("FM") {
            t.fill = true;
            (None, 2)
        } else if upper.starts_with("EEEE") {
            t.scientific = true;
            (None, 4)
        } else if upper.starts_with("RN") {
            t.roman = true;
            (None, 2)
        } else if upper.starts_with("TH") {
            (Some(Mark::Ordinal(rest.starts_with("TH"))), 2)
        } else if upper.starts_with("MI") {
            (Some(Mark::Minus), 2)
        } else if upper.starts_with("PL") {
            (Some(Mark::Plus), 2)
        } else if upper.starts_with("SG") {
            (Some(Mark::PlusMinus), 2)
        } else if upper.starts_with("PR") {
            (Some(Mark::Brackets), 2)
        } else {
            match upper.chars().next() {
                Some('9') => (Some(Mark::Nine), 1),
                Some('0') => (Some(Mark::Zero), 1),
                Some('.' | 'D') => {
                    if seen_point {
                        return Err(SqlError::syntax_error("multiple decimal points"));
                    }
                    seen_point = true;
                    (Some(Mark::Point), 1)
                }
                Some(',' | 'G') => (Some(Mark::Comma), 1),
                Some('S') => (Some(Mark::Sign), 1),
                Some('L') => (Some(Mark::Currency), 1),
                Some('B') => {
                    t.blank = true;
                    (None, 1)
                }
                Some('V') => {
                    after_v = true;
                    (None, 1)
                }
                _ => (Some(Mark::Text(c.to_string())), c.len_utf8()),
            }
        };
        if after_v && matches!(mark, Some(Mark::Nine | Mark::Zero)) {
            t.shift += 1;
        }
        t.marks.extend(mark);
        rest = rest.get(length..).unwrap_or("");
    }
    Ok(t)
}

fn roman(d: &BigDecimal, fill: bool) -> String {
    const DIGITS: [(i64, &str); 13] = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    let mut n = decimal::round(d, 0).to_i64().unwrap_or(0);
    if !(1..=3999).contains(&n) {
        return "#".repeat(15);
    }
    let mut out = String::new();
    for (value, digits) in DIGITS {
        while n >= value {
            out.push_str(digits);
            n -= value;
        }
    }
    if fill { out } else { format!("{out:>15}") }
}

fn scientific(d: &BigDecimal, decimals: usize) -> String {
    let sign = if d.is_negative() { "-" } else { " " };
    let digits = decimals as u64 + 1;
    let rounded = if d.is_zero() {
        d.clone()
    } else {
        d.abs().with_precision_round(nonzero(digits), bigdecimal::RoundingMode::HalfUp)
    };
    let (unscaled, scale) = rounded.as_bigint_and_exponent();
    let mut text = unscaled.to_string();
    let exponent = if d.is_zero() { 0 } else { text.len() as i64 - 1 - scale };
    while text.len() < digits as usize {
        text.push('0');
    }
    text.truncate(digits as usize);
    let point = if decimals > 0 { "." } else { "" };
    let exponent_sign = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{}{point}{}e{exponent_sign}{:02}", &text[..1], &text[1..], exponent.abs())
}

fn nonzero(v: u64) -> std::num::NonZeroU64 {
    std::num::NonZeroU64::new(v).unwrap_or(std::num::NonZeroU64::MIN)
}

fn ordinal(n: &str, upper: bool) -> &'static str {
    let teen = n.len() > 1 && n.as_bytes()[n.len() - 2] == b'1';
    match (n.bytes().last(), teen, upper) {
        (Some(b'1'), false, false) => "st",
        (Some(b'2'), false, false) => "nd",
        (Some(b'3'), false, false) => "rd",
        (_, _, false) => "th",
        (Some(b'1'), false, true) => "ST",
        (Some(b'2'), false, true) => "ND",
        (Some(b'3'), false, true) => "RD",
        (_, _, true) => "TH",
    }
}

/// A number by a template.
pub(super) fn to_char(number: &Numeric, template: &str) -> Result<String> {
    let t = read(template)?;
    let place = |m: &Mark| matches!(m, Mark::Nine | Mark::Zero);
    let point = t.marks.iter().position(|m| *m == Mark::Point).unwrap_or(t.marks.len());
    let whole_places = t.marks[..point].iter().filter(|m| place(m)).count();
    let decimals = t.marks[point..].iter().filter(|m| place(m)).count();
    let Some(d) = number.as_finite() else {
        return Ok(if t.fill { number.to_string() } else { format!(" {number}") });
    };
    if t.roman {
        return Ok(roman(d, t.fill));
    }
    if t.scientific {
        let text = scientific(d, decimals);
        return Ok(if t.fill { text.trim_start().to_string() } else { text });
    }
    let shifted = d * BigDecimal::new(num_bigint::BigInt::from(10).pow(t.shift), 0);
    let rounded = decimal::round(&shifted, decimals as i64);
    let negative = rounded.is_negative();
    let plain = rounded.abs().to_plain_string();
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let whole = if whole == "0" { "" } else { whole };
    let overflow = whole.len() > whole_places;
    Ok(lay_out(&t, point, whole_places, whole, fraction, negative, overflow))
}

/// Lays digits into the marks.
fn lay_out(
    t: &Template,
    point: usize,
    whole_places: usize,
    whole: &str,
    fraction: &str,
    negative: bool,
    overflow: bool,
) -> String {
    let place = |m: &Mark| matches!(m, Mark::Nine | Mark::Zero);
    let explicit_sign =
        t.marks.iter().any(|m| matches!(m, Mark::Sign | Mark::Minus | Mark::PlusMinus | Mark::Brackets));
    let sign_mark = t.marks.iter().position(|m| *m == Mark::Sign);
    let brackets = t.marks.contains(&Mark::Brackets);
    let first_zero = t.marks[..point].iter().filter(|m| place(m)).position(|m| *m == Mark::Zero);
    // Digits shown begin at the first that is significant or that the template forces.
    let first_digit = whole_places.saturating_sub(whole.len());
    let mut start = first_zero.map_or(first_digit, |z| z.min(first_digit));
    let has_decimals = t.marks[point..].iter().any(&place);
    // Zero shows one digit where nothing else would; `9.99` leaves it out.
    if start == whole_places && !has_decimals && whole_places > 0 {
        start = whole_places - 1;
    }
    let sign_before = match sign_mark {
        Some(at) => at < t.marks.iter().position(&place).unwrap_or(0),
        None => false,
    };
    let lead = match (negative, explicit_sign) {
        (true, false) => Some('-'),
        (false, false) if !t.fill => Some(' '),
        (true, true) if brackets => Some('<'),
        (false, true) if brackets && !t.fill => Some(' '),
        (true, true) if sign_before => Some('-'),
        (false, true) if sign_before => Some('+'),
        _ => None,
    };
    let last_fraction = fraction_shown(t, point, fraction);
    let mut out = String::new();
    let mut pending = lead;
    let (mut at, mut fraction_at) = (0usize, 0usize);
    for (i, mark) in t.marks.iter().enumerate() {
        match mark {
            Mark::Nine | Mark::Zero if i < point => {
                if at < start {
                    if !t.fill {
                        out.push(' ');
                    }
                } else {
                    out.extend(pending.take());
                    let digit =
                        (at + whole.len()).checked_sub(whole_places).and_then(|k| whole.as_bytes().get(k));
                    out.push(if overflow { '#' } else { digit.map_or('0', |b| *b as char) });
                }
                at += 1;
            }
            Mark::Nine | Mark::Zero => {
                let digit = fraction.as_bytes().get(fraction_at).map_or('0', |b| *b as char);
                if fraction_at < last_fraction {
                    out.push(if overflow { '#' } else { digit });
                }
                fraction_at += 1;
            }
            Mark::Point => {
                out.extend(pending.take());
                out.push('.');
            }
            Mark::Comma if at <= start => {
                if !t.fill {
                    out.push(' ');
                }
            }
            Mark::Comma => out.push(','),
            Mark::Minus => match (negative, t.fill) {
                (true, _) => out.push('-'),
                (false, false) => out.push(' '),
                _ => {}
            },
            Mark::Plus => match (negative, t.fill) {
                (false, _) => out.push('+'),
                (true, false) => out.push(' '),
                _ => {}
            },
            Mark::PlusMinus => out.push(if negative { '-' } else { '+' }),
            Mark::Sign if sign_before => {}
            Mark::Sign => out.push(if negative { '-' } else { '+' }),
            Mark::Brackets => match (negative, t.fill) {
                (true, _) => out.push('>'),
                (false, false) => out.push(' '),
                _ => {}
            },
            Mark::Currency => {
                if !t.fill {
                    out.push(' ');
                }
            }
            Mark::Ordinal(upper) => {
                let whole = if whole.is_empty() { "0" } else { whole };
                if !negative && fraction.is_empty() {
                    out.push_str(ordinal(whole, *upper));
                }
            }
            Mark::Text(text) => out.push_str(text),
        }
    }
    // A sign that no digit claimed stands before what there is.
    if let Some(sign) = pending {
        out.insert(0, sign);
    }
    // PL and MI before the number have already been written in their places.
    if t.blank && whole.is_empty() && fraction.bytes().all(|b| b == b'0') {
        " ".repeat(out.len())
    } else {
        out
    }
}

/// How many decimals are shown: with FM, trailing zeros at nines are not.
fn fraction_shown(t: &Template, point: usize, fraction: &str) -> usize {
    let marks: Vec<&Mark> =
        t.marks[point..].iter().filter(|m| matches!(m, Mark::Nine | Mark::Zero)).collect();
    if !t.fill {
        return marks.len();
    }
    let forced = marks.iter().rposition(|m| **m == Mark::Zero).map_or(0, |i| i + 1);
    let significant = fraction.trim_end_matches('0').len();
    forced.max(significant)
}

/// The number a text holds by a template: marks that are not digits are skipped.
pub(super) fn to_number(text: &str, template: &str) -> Result<Numeric> {
    let t = read(template)?;
    let mut digits = String::new();
    let negative = text.contains('-') || (t.marks.contains(&Mark::Brackets) && text.contains('<'));
    let mut chars = text.chars().peekable();
    for mark in &t.marks {
        while chars.next_if(|c| matches!(c, ' ' | '-' | '+' | '<')).is_some() {}
        match mark {
            Mark::Nine | Mark::Zero => digits.extend(chars.next_if(char::is_ascii_digit)),
            Mark::Point => digits.extend(chars.next_if_eq(&'.')),
            Mark::Comma => {
                chars.next_if_eq(&',');
            }
            Mark::Text(skipped) => {
                for _ in skipped.chars() {
                    chars.next_if(|c| !c.is_ascii_digit());
                }
            }
            Mark::Currency => {
                chars.next_if(|c| !c.is_ascii_digit() && *c != '.');
            }
            _ => {}
        }
    }
    if digits.is_empty() || digits == "." {
        return Err(SqlError::invalid_input(
            &amphora_storage::DataType::Numeric(None),
            text.get(..1).unwrap_or(" "),
        ));
    }
    let value = crate::types::parse_numeric(&digits)?;
    let value = match value.as_finite() {
        Some(d) if t.shift > 0 => {
            let (unscaled, scale) = d.as_bigint_and_exponent();
            Numeric::finite(BigDecimal::new(unscaled, scale + i64::from(t.shift)))
        }
        _ => value,
    };
    Ok(if negative { decimal::negate(&value) } else { value })
}

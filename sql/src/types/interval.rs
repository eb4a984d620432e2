//! `interval` as text, in PostgreSQL's style.

use std::fmt::{self, Write};

use amphora_storage::datum::Interval;
use amphora_storage::types::IntervalModifier;

use super::datetime::{DAY, HOUR, MINUTE, SECOND, fraction_micros, write_fraction};
use super::number::is_space;
use crate::error::{Result, SqlError};

/// A unit of time, as a number of one of the interval's three fields.
#[derive(Clone, Copy)]
enum Unit {
    Months(i64),
    Days(i64),
    Micros(i64),
}

fn unit(name: &str) -> Option<Unit> {
    Some(match name {
        "us" | "usec" | "usecs" | "microsecond" | "microseconds" | "microsecon" | "usecond" | "useconds" => {
            Unit::Micros(1)
        }
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" | "msecond" | "mseconds" => {
            Unit::Micros(1000)
        }
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Micros(SECOND),
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Micros(MINUTE),
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Micros(HOUR),
        "d" | "day" | "days" => Unit::Days(1),
        "w" | "week" | "weeks" => Unit::Days(7),
        "mon" | "mons" | "month" | "months" => Unit::Months(1),
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Months(12),
        "dec" | "decs" | "decade" | "decades" => Unit::Months(120),
        "c" | "cent" | "century" | "centuries" => Unit::Months(1200),
        "mil" | "mils" | "millennium" | "millennia" => Unit::Months(12_000),
        _ => return None,
    })
}

/// The sum of what the words have said; wide, and checked at the end.
#[derive(Default)]
struct Sum {
    months: i128,
    days: i128,
    micros: i128,
}

impl Sum {
    /// Adds a decimal number of units. What is less than a unit goes to the next field: a month has 30
    /// days then.
    fn add(&mut self, number: &str, unit: Unit) -> Option<()> {
        let (sign, unsigned) = match number.as_bytes().first()? {
            b'-' => (-1, &number[1..]),
            b'+' => (1, &number[1..]),
            _ => (1, number),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        if whole.is_empty() && fraction.is_empty() || whole.len() > 18 {
            return None;
        }
        if !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let part: f64 = if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse().ok()? };
        let sign_f = sign as f64;
        match unit {
            Unit::Micros(n) if n == SECOND => {
                self.micros += sign * (whole * i128::from(n) + i128::from(fraction_micros(fraction)));
            }
            Unit::Micros(n) => {
                self.micros += sign * whole * i128::from(n);
                self.micros += (sign_f * part * n as f64).round_ties_even() as i128;
            }
            Unit::Days(n) => {
                self.days += sign * whole * i128::from(n);
                self.add_days(sign_f * part * n as f64);
            }
            Unit::Months(1) => {
                self.months += sign * whole;
                self.add_days(sign_f * part * 30.0);
            }
            Unit::Months(n) => {
                self.months += sign * whole * i128::from(n);
                self.months += (sign_f * part * n as f64).round_ties_even() as i128;
            }
        }
        Some(())
    }

    fn add_days(&mut self, days: f64) {
        let whole = days.trunc();
        self.days += whole as i128;
        self.micros += ((days - whole) * DAY as f64).round_ties_even() as i128;
    }

    fn negate(&mut self) {
        (self.months, self.days, self.micros) = (-self.months, -self.days, -self.micros);
    }

    fn finish(self) -> Option<Interval> {
        Some(Interval {
            months: i32::try_from(self.months).ok()?,
            days: i32::try_from(self.days).ok()?,
            micros: i64::try_from(self.micros).ok()?,
        })
    }
}

/// `interval` from text: `1 year 2 mons 3 days 04:05:06.7`, `1 day ago`, `P1Y2M3DT4H5M6S`, `1-2`.
pub fn parse_interval(text: &str) -> Result<Interval> {
    parse_interval_of(text, IntervalModifier::ALL)
}

/// [`parse_interval`] for a type with these fields, which say what a bare number counts, and whether
/// `1:30` is of hours or of minutes.
pub(super) fn parse_interval_of(text: &str, fields: u16) -> Result<Interval> {
    let syntax =
        || SqlError::invalid_datetime_format(format!("invalid input syntax for type interval: \"{text}\""));
    let range = || SqlError::new("22015", format!("interval field value out of range: \"{text}\""));
    if text.len() > 400 {
        return Err(syntax());
    }
    let trimmed = text.trim_matches(is_space);
    let sum = match trimmed.strip_prefix(['P', 'p']) {
        Some(iso) => iso_interval(iso),
        None => words_interval(trimmed, fields),
    };
    sum.ok_or_else(syntax)?.finish().ok_or_else(range)
}

/// Splits `1h30m` into `1`, `h`, `30` and `m`, so that spaces between them are free.
fn split_words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for word in text.split(|c| is_space(c) || c == ',').filter(|w| !w.is_empty()) {
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let letters = first.is_ascii_alphabetic();
            let end = rest.find(|c: char| c.is_ascii_alphabetic() != letters).unwrap_or(rest.len());
            words.push(&rest[..end]);
            rest = &rest[end..];
        }
    }
    words
}

/// What a number without a unit counts: the least field.
fn bare_unit(fields: u16) -> Unit {
    use IntervalModifier as M;
    match fields {
        M::ALL => Unit::Micros(SECOND),
        f if f & M::SECOND != 0 => Unit::Micros(SECOND),
        f if f & M::MINUTE != 0 => Unit::Micros(MINUTE),
        f if f & M::HOUR != 0 => Unit::Micros(HOUR),
        f if f & M::DAY != 0 => Unit::Days(1),
        f if f & M::MONTH != 0 => Unit::Months(1),
        _ => Unit::Months(12),
    }
}

fn words_interval(text: &str, fields: u16) -> Option<Sum> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_prefix('@').unwrap_or(&lower);
    let mut words = split_words(lower);
    let ago = words.last() == Some(&"ago");
    if ago {
        words.pop();
    }
    if words.is_empty() {
        return None;
    }
    let mut sum = Sum::default();
    let mut i = 0;
    while i < words.len() {
        let word = words[i];
        let following = words.get(i + 1).copied();
        if word.contains(':') {
            sum.micros += clock(word, fields == IntervalModifier::MINUTE | IntervalModifier::SECOND)?;
        } else if let Some(u) = following.and_then(unit) {
            sum.add(word, u)?;
            i += 1;
        } else if let Some((years, months)) = year_month(word) {
            sum.months += years * 12 + months;
        } else if following.is_some_and(|w| w.contains(':')) {
            sum.add(word, Unit::Days(1))?;
        } else if following.is_none() {
            sum.add(word, bare_unit(fields))?;
        } else {
            return None;
        }
        i += 1;
    }
    if ago {
        sum.negate();
    }
    Some(sum)
}

/// `[-]H:MM[:SS[.ffffff]]`; of two numbers without a fraction the first are minutes if so told.
fn clock(word: &str, minutes: bool) -> Option<i128> {
    let (sign, unsigned) = match word.as_bytes().first()? {
        b'-' => (-1, &word[1..]),
        b'+' => (1, &word[1..]),
        _ => (1, word),
    };
    let parts: Vec<&str> = unsigned.split(':').collect();
    let whole = |s: &str| match s.is_empty() || s.len() > 12 || !s.bytes().all(|b| b.is_ascii_digit()) {
        true => None,
        false => s.parse::<i128>().ok(),
    };
    let micros = match parts[..] {
        // `1:02.5` is minutes and seconds.
        [m, s] if minutes || s.contains('.') => whole(m)? * i128::from(MINUTE) + second(s)?,
        [h, m] if whole(m)? < 60 => whole(h)? * i128::from(HOUR) + whole(m)? * i128::from(MINUTE),
        [h, m, s] if whole(m)? < 60 => {
            whole(h)? * i128::from(HOUR) + whole(m)? * i128::from(MINUTE) + second(s)?
        }
        _ => return None,
    };
    Some(sign * micros)
}

fn second(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.len() > 2 || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    if whole > 60 {
        return None;
    }
    Some(i128::from(whole * SECOND + fraction_micros(fraction)))
}

/// SQL's `1-2`: a year and two months.
fn year_month(word: &str) -> Option<(i128, i128)> {
    let (sign, unsigned) = match word.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    let (years, months) = unsigned.split_once('-')?;
    let (years, months): (i64, i64) = (years.parse().ok()?, months.parse().ok()?);
    (0..12).contains(&months).then_some((sign * i128::from(years), sign * i128::from(months)))
}

/// ISO 8601 after its `P`.
fn iso_interval(text: &str) -> Option<Sum> {
    let mut sum = Sum::default();
    let (mut in_time, mut number, mut any) = (false, String::new(), false);
    for c in text.chars() {
        match c.to_ascii_uppercase() {
            'T' if !in_time && number.is_empty() => in_time = true,
            c @ ('0'..='9' | '.' | '-' | '+') => number.push(c),
            ',' => number.push('.'),
            c => {
                let unit = match (c, in_time) {
                    ('Y', false) => Unit::Months(12),
                    ('M', false) => Unit::Months(1),
                    ('W', false) => Unit::Days(7),
                    ('D', false) => Unit::Days(1),
                    ('H', true) => Unit::Micros(HOUR),
                    ('M', true) => Unit::Micros(MINUTE),
                    ('S', true) => Unit::Micros(SECOND),
                    _ => return None,
                };
                sum.add(&number, unit)?;
                number.clear();
                any = true;
            }
        }
    }
    (any && number.is_empty()).then_some(sum)
}

/// `IntervalStyle`: how intervals are written. All of them are read, whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IntervalStyle {
    /// `1 year 2 mons -3 days +04:05:06.7`
    #[default]
    Postgres,
    /// `@ 1 year 2 mons -3 days 4 hours 5 mins 6.7 secs`
    PostgresVerbose,
    /// `+1-2 -3 +4:05:06.7`
    SqlStandard,
    /// `P1Y2M-3DT4H5M6.7S`
    Iso8601,
}

impl IntervalStyle {
    /// The style of this name, in lower case.
    pub fn parse(name: &str) -> Option<IntervalStyle> {
        Some(match name {
            "postgres" => IntervalStyle::Postgres,
            "postgres_verbose" => IntervalStyle::PostgresVerbose,
            "sql_standard" => IntervalStyle::SqlStandard,
            "iso_8601" => IntervalStyle::Iso8601,
            _ => return None,
        })
    }
}

/// Writes an interval in a style, as PostgreSQL's `EncodeInterval` does.
pub fn format_interval(
    interval: &Interval,
    style: IntervalStyle,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    match style {
        IntervalStyle::Postgres => format_postgres(interval, out),
        IntervalStyle::PostgresVerbose => format_verbose(interval, out),
        IntervalStyle::SqlStandard => format_sql_standard(interval, out),
        IntervalStyle::Iso8601 => format_iso(interval, out),
    }
}

/// An interval's time: hours, minutes, seconds, microseconds, without the sign.
fn clock_fields(interval: &Interval) -> (u64, u64, u64, i64) {
    let micros = interval.micros.unsigned_abs();
    let (hour, minute, second) = (HOUR as u64, MINUTE as u64, SECOND as u64);
    (micros / hour, micros / minute % 60, micros / second % 60, (micros % second) as i64)
}

fn format_iso(interval: &Interval, out: &mut (impl Write + ?Sized)) -> fmt::Result {
    let Interval { months, days, micros } = *interval;
    if (months, days, micros) == (0, 0, 0) {
        return out.write_str("PT0S");
    }
    let sign = if micros < 0 { "-" } else { "" };
    let (h, m, s, fraction) = clock_fields(interval);
    out.write_char('P')?;
    for (value, unit) in [(months / 12, 'Y'), (months % 12, 'M'), (days, 'D')] {
        if value != 0 {
            write!(out, "{value}{unit}")?;
        }
    }
    if micros != 0 {
        out.write_char('T')?;
    }
    for (value, unit) in [(h, 'H'), (m, 'M')] {
        if value != 0 {
            write!(out, "{sign}{value}{unit}")?;
        }
    }
    if s != 0 || fraction != 0 {
        write!(out, "{sign}{s}")?;
        write_fraction(fraction, out)?;
        out.write_char('S')?;
    }
    Ok(())
}

fn format_sql_standard(interval: &Interval, out: &mut (impl Write + ?Sized)) -> fmt::Result {
    let Interval { months, days, micros } = *interval;
    let (h, m, s, fraction) = clock_fields(interval);
    let negative = months < 0 || days < 0 || micros < 0;
    let positive = months > 0 || days > 0 || micros > 0;
    let (years, rest) = (months.unsigned_abs() / 12, months.unsigned_abs() % 12);
    let day = days.unsigned_abs();
    if !negative && !positive {
        return out.write_char('0');
    }
    // The standard has one sign for all, and no months beside days.
    if negative && positive || months != 0 && (days != 0 || micros != 0) {
        let sign = |below: bool| if below { '-' } else { '+' };
        write!(out, "{}{years}-{rest} {}{day} ", sign(months < 0), sign(days < 0))?;
        write!(out, "{}{h}:{m:02}:{s:02}", sign(micros < 0))?;
        return write_fraction(fraction, out);
    }
    if negative {
        out.write_char('-')?;
    }
    if months != 0 {
        return write!(out, "{years}-{rest}");
    }
    if days != 0 {
        write!(out, "{day} ")?;
    }
    write!(out, "{h}:{m:02}:{s:02}")?;
    write_fraction(fraction, out)
}

fn format_verbose(interval: &Interval, out: &mut (impl Write + ?Sized)) -> fmt::Result {
    let (h, m, s, fraction) = clock_fields(interval);
    let time = |value: u64| if interval.micros < 0 { -(value as i64) } else { value as i64 };
    let parts = [
        (i64::from(interval.months / 12), "year"),
        (i64::from(interval.months % 12), "mon"),
        (i64::from(interval.days), "day"),
        (time(h), "hour"),
        (time(m), "min"),
    ];
    out.write_char('@')?;
    // The first field decides whether all of it is "ago".
    let mut ago = None;
    for (value, unit) in parts {
        if value != 0 {
            let value = if *ago.get_or_insert(value < 0) { -value } else { value };
            write!(out, " {value} {unit}{}", if value == 1 { "" } else { "s" })?;
        }
    }
    if s != 0 || fraction != 0 {
        let below = interval.micros < 0;
        let sign = if *ago.get_or_insert(below) == below { "" } else { "-" };
        write!(out, " {sign}{s}")?;
        write_fraction(fraction, out)?;
        write!(out, " sec{}", if s == 1 && fraction == 0 { "" } else { "s" })?;
    }
    match ago {
        None => out.write_str(" 0"),
        Some(true) => out.write_str(" ago"),
        Some(false) => Ok(()),
    }
}

fn format_postgres(interval: &Interval, out: &mut (impl Write + ?Sized)) -> fmt::Result {
    let (mut first, mut before) = (true, false);
    let mut part = |value: i32, name: &str, out: &mut dyn Write| -> fmt::Result {
        if value == 0 {
            return Ok(());
        }
        let space = if first { "" } else { " " };
        let plus = if before && value > 0 { "+" } else { "" };
        let plural = if value == 1 { "" } else { "s" };
        first = false;
        before = value < 0;
        write!(out, "{space}{plus}{value} {name}{plural}")
    };
    let mut text = String::new();
    part(interval.months / 12, "year", &mut text)?;
    part(interval.months % 12, "mon", &mut text)?;
    part(interval.days, "day", &mut text)?;
    out.write_str(&text)?;
    if first || interval.micros != 0 {
        let space = if first { "" } else { " " };
        let sign = match interval.micros < 0 {
            true => "-",
            false if before => "+",
            false => "",
        };
        let (h, m, s, fraction) = clock_fields(interval);
        write!(out, "{space}{sign}{h:02}:{m:02}:{s:02}")?;
        write_fraction(fraction, out)?;
    }
    Ok(())
}

//! `to_char` of dates and times, and `to_timestamp` and `to_date`, by PostgreSQL's template patterns.

use amphora_storage::datum::Interval as Span;
use amphora_storage::{Datum, Numeric as Number};
use bigdecimal::BigDecimal;

use super::arithmetic::{float, int, numeric};
use super::datetime_operator::{interval, micros};
use super::signature::Ty::*;
use super::string::str_of;
use super::{Call, ScalarFunction, function, to_char_number};
use crate::error::{Result, SqlError};
use crate::types::{
    Civil, HOUR, MINUTE, SECOND, TimeZone, civil_from_days, date_from_civil, days_from_civil, iso_week,
    iso_week_monday, join_timestamp, month_number, split_timestamp, weekday,
};

/// The patterns, longest first where one begins another.
const PATTERNS: &[&str] = &[
    "HH24", "HH12", "SSSSS", "SSSS", "Y,YYY", "YYYY", "IYYY", "MONTH", "Month", "month", "A.D.", "B.C.",
    "a.d.", "b.c.", "A.M.", "P.M.", "a.m.", "p.m.", "YYY", "IYY", "DAY", "Day", "day", "DDD", "IDDD", "MON",
    "Mon", "mon", "TZH", "TZM", "FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "HH", "MI", "SS", "MS", "US", "AM",
    "PM", "am", "pm", "YY", "IY", "AD", "BC", "ad", "bc", "MM", "DY", "Dy", "dy", "DD", "ID", "WW", "IW",
    "CC", "RM", "rm", "TZ", "tz", "OF", "Y", "I", "D", "W", "J", "Q",
];

/// Patterns whose letters' case does not matter; the others come in each case they have.
const ANY_CASE: &[&str] = &[
    "HH24", "HH12", "SSSSS", "SSSS", "Y,YYY", "YYYY", "IYYY", "YYY", "IYY", "DDD", "IDDD", "TZH", "TZM",
    "FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "HH", "MI", "SS", "MS", "US", "YY", "IY", "MM", "DD", "ID",
    "WW", "IW", "CC", "OF", "Y", "I", "D", "W", "J", "Q",
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Pattern { name: &'static str, fill: bool, ordinal: Option<bool> },
    Text(String),
}

fn starts(rest: &str, pattern: &str) -> bool {
    match ANY_CASE.contains(&pattern) {
        true => rest.get(..pattern.len()).is_some_and(|head| head.eq_ignore_ascii_case(pattern)),
        false => rest.starts_with(pattern),
    }
}

fn pieces(template: &str) -> Vec<Piece> {
    let mut out = Vec::new();
    let (mut rest, mut fill) = (template, false);
    while let Some(c) = rest.chars().next() {
        if starts_modifier(rest, "FM") {
            fill = true;
            rest = &rest[2..];
        } else if starts_modifier(rest, "FX") || starts_modifier(rest, "TM") {
            rest = &rest[2..];
        } else if c == '"' {
            let body = &rest[1..];
            let end = body.find('"').unwrap_or(body.len());
            out.push(Piece::Text(body[..end].to_string()));
            rest = body.get(end + 1..).unwrap_or("");
        } else if let Some(name) = PATTERNS.iter().find(|p| starts(rest, p)) {
            rest = &rest[name.len()..];
            let ordinal = match rest.get(..2) {
                Some("TH") => Some(true),
                Some("th") => Some(false),
                _ => None,
            };
            if ordinal.is_some() {
                rest = &rest[2..];
            }
            out.push(Piece::Pattern { name, fill, ordinal });
            fill = false;
        } else {
            let literal = if c == '\\' { rest[1..].chars().next().unwrap_or(c) } else { c };
            let taken = if c == '\\' && rest.len() > 1 { 1 + literal.len_utf8() } else { c.len_utf8() };
            out.push(Piece::Text(literal.to_string()));
            rest = &rest[taken..];
        }
    }
    out
}

fn starts_modifier(rest: &str, modifier: &str) -> bool {
    rest.get(..2).is_some_and(|head| head.eq_ignore_ascii_case(modifier))
}

/// A moment taken apart for printing.
struct Moment {
    civil: Civil,
    days: i64,
    time: i64,
    offset: i32,
    zone: String,
    span: bool,
}

fn suffix(text: &str, ordinal: Option<bool>) -> &'static str {
    let Some(upper) = ordinal else { return "" };
    let teen = text.len() > 1 && text.as_bytes()[text.len() - 2] == b'1';
    let lower = match text.bytes().last() {
        Some(b'1') if !teen => "st",
        Some(b'2') if !teen => "nd",
        Some(b'3') if !teen => "rd",
        _ => "th",
    };
    match (upper, lower) {
        (true, "st") => "ST",
        (true, "nd") => "ND",
        (true, "rd") => "RD",
        (true, _) => "TH",
        (false, lower) => lower,
    }
}

fn zero_padded(value: i64, width: usize, fill: bool) -> String {
    match (fill, value < 0) {
        (true, _) => value.to_string(),
        (false, true) => format!("-{:0width$}", -value),
        (false, false) => format!("{value:0width$}"),
    }
}

fn cased(name: &str, pattern: &str) -> String {
    if pattern.chars().all(|c| c.is_ascii_uppercase()) {
        name.to_uppercase()
    } else if pattern.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.to_lowercase()
    } else {
        name.to_string()
    }
}

fn year_shown(m: &Moment, year: i32) -> i64 {
    i64::from(if year > 0 || m.span { year } else { 1 - year })
}

fn pattern(m: &Moment, name: &str, fill: bool) -> String {
    let hour = m.time / HOUR;
    let year = year_shown(m, m.civil.year);
    let iso = iso_week(m.days);
    let padded = |text: String| if fill { text } else { format!("{text:<9}") };
    let pad = |value: i64, width: usize| zero_padded(value, width, fill);
    let offset = m.offset.abs();
    match name {
        "HH24" => pad(hour, 2),
        "HH" | "HH12" => pad(if hour % 12 == 0 { 12 } else { hour % 12 }, 2),
        "MI" => pad(m.time / MINUTE % 60, 2),
        "SS" => pad(m.time / SECOND % 60, 2),
        "MS" => format!("{:03}", m.time % SECOND / 1000),
        "US" => format!("{:06}", m.time % SECOND),
        "SSSSS" | "SSSS" => (m.time / SECOND).to_string(),
        "AM" | "PM" => if hour % 24 >= 12 { "PM" } else { "AM" }.to_string(),
        "am" | "pm" => if hour % 24 >= 12 { "pm" } else { "am" }.to_string(),
        "A.M." | "P.M." => if hour % 24 >= 12 { "P.M." } else { "A.M." }.to_string(),
        "a.m." | "p.m." => if hour % 24 >= 12 { "p.m." } else { "a.m." }.to_string(),
        "YYYY" => pad(year, 4),
        "Y,YYY" => format!("{},{:03}", year / 1000, year % 1000),
        "YYY" => pad(year % 1000, 3),
        "YY" => pad(year % 100, 2),
        "Y" => (year % 10).to_string(),
        "IYYY" => pad(year_shown(m, iso.0), 4),
        "IYY" => pad(year_shown(m, iso.0) % 1000, 3),
        "IY" => pad(year_shown(m, iso.0) % 100, 2),
        "I" => (year_shown(m, iso.0) % 10).to_string(),
        "AD" | "BC" => if m.civil.year > 0 { "AD" } else { "BC" }.to_string(),
        "ad" | "bc" => if m.civil.year > 0 { "ad" } else { "bc" }.to_string(),
        "A.D." | "B.C." => if m.civil.year > 0 { "A.D." } else { "B.C." }.to_string(),
        "a.d." | "b.c." => if m.civil.year > 0 { "a.d." } else { "b.c." }.to_string(),
        "MONTH" | "Month" | "month" => padded(cased(month_name(m), name)),
        "MON" | "Mon" | "mon" => cased(month_name(m).get(..3).unwrap_or(""), name),
        "MM" => pad(i64::from(m.civil.month), 2),
        "DAY" | "Day" | "day" => padded(cased(DAYS[weekday(m.days) as usize], name)),
        "DY" | "Dy" | "dy" => cased(&DAYS[weekday(m.days) as usize][..3], name),
        "DDD" => pad(if m.span { m.days } else { day_of_year(m) }, 3),
        "IDDD" => pad(m.days - iso_week_monday(iso.0, 1) + 1, 3),
        "DD" => pad(i64::from(m.civil.day), 2),
        "D" => (weekday(m.days) + 1).to_string(),
        "ID" => ((weekday(m.days) + 6) % 7 + 1).to_string(),
        "WW" => pad((day_of_year(m) - 1) / 7 + 1, 2),
        "W" => ((m.civil.day - 1) / 7 + 1).to_string(),
        "IW" => pad(i64::from(iso.1), 2),
        "CC" => pad(if year > 0 { (year + 99) / 100 } else { year / 100 - 1 }, 2),
        "J" => (m.days + 2_451_545).to_string(),
        "Q" => ((m.civil.month - 1) / 3 + 1).to_string(),
        "RM" | "rm" => {
            let text = roman(m);
            let text = if name == "rm" { text.to_lowercase() } else { text.to_string() };
            if fill { text } else { format!("{text:<4}") }
        }
        "TZ" => m.zone.clone(),
        "tz" => m.zone.to_lowercase(),
        "TZH" => format!("{}{:02}", if m.offset < 0 { '-' } else { '+' }, offset / 3600),
        "TZM" => format!("{:02}", offset / 60 % 60),
        "OF" => {
            let minutes = offset / 60 % 60;
            let tail = if minutes == 0 { String::new() } else { format!(":{minutes:02}") };
            format!("{}{:02}{tail}", if m.offset < 0 { '-' } else { '+' }, offset / 3600)
        }
        other => match other.strip_prefix("FF").and_then(|d| d.parse::<usize>().ok()) {
            Some(digits) => format!("{:06}", m.time % SECOND).get(..digits).unwrap_or("").to_string(),
            None => String::new(),
        },
    }
}

fn month_name(m: &Moment) -> &'static str {
    MONTHS.get((m.civil.month - 1) as usize).copied().unwrap_or("")
}

fn roman(m: &Moment) -> &'static str {
    ROMAN.get((m.civil.month - 1) as usize).copied().unwrap_or("")
}

fn day_of_year(m: &Moment) -> i64 {
    m.days - days_from_civil(m.civil.year, 1, 1) + 1
}

fn print(m: &Moment, template: &str) -> Datum {
    let mut out = String::new();
    for piece in pieces(template) {
        match piece {
            Piece::Text(text) => out.push_str(&text),
            Piece::Pattern { name, fill, ordinal } => {
                let text = pattern(m, name, fill);
                out.push_str(&text);
                out.push_str(suffix(&text, ordinal));
            }
        }
    }
    Datum::text(out)
}

fn print_timestamp(local: i64, offset: i32, zone: String, template: &str) -> Datum {
    if local == i64::MAX || local == i64::MIN || template.is_empty() {
        return Datum::Null;
    }
    let (days, time) = split_timestamp(local);
    print(&Moment { civil: civil_from_days(days), days, time, offset, zone, span: false }, template)
}

fn timestamp_to_char(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    Ok(print_timestamp(micros(&a[0])?, 0, String::new(), str_of(&a[1])?))
}

fn timestamptz_to_char(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let (value, zone): (i64, &TimeZone) = (micros(&a[0])?, c.context.timezone());
    Ok(print_timestamp(
        zone.to_local(value),
        zone.offset_at(value),
        zone.abbreviation_at(value),
        str_of(&a[1])?,
    ))
}

fn interval_to_char(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let i: &Span = interval(&a[0])?;
    let civil = Civil { year: i.months / 12, month: i.months % 12, day: i.days };
    let moment = Moment {
        civil,
        days: i64::from(i.months) * 30 + i64::from(i.days),
        time: i.micros,
        offset: 0,
        zone: String::new(),
        span: true,
    };
    let template = str_of(&a[1])?;
    Ok(if template.is_empty() { Datum::Null } else { print(&moment, template) })
}

fn number_to_char(number: &Number, template: &Datum) -> Result<Datum> {
    Ok(Datum::text(to_char_number::to_char(number, str_of(template)?)?))
}

fn float_number(v: f64, digits: usize) -> Number {
    match v {
        v if v.is_nan() => Number::NaN,
        v if v.is_infinite() && v > 0.0 => Number::Infinity,
        v if v.is_infinite() => Number::NegInfinity,
        v => {
            let text = format!("{v:.*e}", digits - 1);
            text.parse::<BigDecimal>().map_or(Number::NaN, |d| Number::finite(d.normalized()))
        }
    }
}

/// What a text says by a template.
#[derive(Default)]
struct Parsed {
    year: Option<i32>,
    month: Option<i32>,
    day: Option<i32>,
    day_of_year: Option<i32>,
    julian: Option<i64>,
    iso_year: Option<i32>,
    iso_week: Option<i32>,
    iso_day: Option<i32>,
    week: Option<i32>,
    hour: i64,
    minute: i64,
    second: i64,
    fraction: i64,
    seconds_of_day: Option<i64>,
    pm: Option<bool>,
    twelve: bool,
    bc: bool,
    offset: Option<i32>,
}

struct Input<'a> {
    rest: &'a str,
    name: &'static str,
}

impl Input<'_> {
    fn number(&mut self, width: usize) -> Result<i64> {
        self.rest = self.rest.trim_start();
        let (sign, body) = match self.rest.strip_prefix('-') {
            Some(body) => (-1, body),
            None => (1, self.rest.strip_prefix('+').unwrap_or(self.rest)),
        };
        let digits: usize = body.bytes().take(width).take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            let shown: String = self.rest.chars().take(width).collect();
            return Err(SqlError::invalid_datetime_format(format!(
                "invalid value \"{shown}\" for \"{}\"",
                self.name
            ))
            .with_detail("Value must be an integer."));
        }
        let value: i64 = body[..digits].parse().map_err(|_| {
            SqlError::datetime_field_overflow(format!(
                "value for \"{}\" in source string is out of range",
                self.name
            ))
        })?;
        self.rest = &body[digits..];
        Ok(sign * value)
    }

    /// The index of the first word of a list the text begins with, by its first `least` letters or whole.
    fn word(&mut self, words: &[&str], short: bool) -> Result<usize> {
        self.rest = self.rest.trim_start();
        for (i, word) in words.iter().enumerate() {
            let wanted = if short { &word[..3.min(word.len())] } else { word };
            if self.rest.get(..wanted.len()).is_some_and(|head| head.eq_ignore_ascii_case(wanted)) {
                self.rest = &self.rest[wanted.len()..];
                return Ok(i);
            }
        }
        let shown: String = self.rest.chars().take_while(|c| c.is_alphanumeric()).collect();
        Err(SqlError::invalid_datetime_format(format!("invalid value \"{shown}\" for \"{}\"", self.name))
            .with_detail("The given value did not match any of the allowed values for this field."))
    }
}

fn narrow(v: i64) -> i32 {
    v.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

fn read(text: &str, template: &str) -> Result<Parsed> {
    let mut p = Parsed::default();
    let mut input = Input { rest: text, name: "" };
    let list = pieces(template);
    for (i, piece) in list.iter().enumerate() {
        let (name, ordinal) = match piece {
            Piece::Text(literal) => {
                // Separators match any separator, or none; other characters are skipped one by one.
                for c in literal.chars() {
                    if c.is_alphanumeric() {
                        let mut chars = input.rest.chars();
                        chars.next();
                        input.rest = chars.as_str();
                    } else {
                        input.rest = input.rest.trim_start();
                        let separator = |c: char| !c.is_alphanumeric() && c != '-' && c != '+';
                        match input.rest.strip_prefix(c).or_else(|| input.rest.strip_prefix(separator)) {
                            Some(rest) => input.rest = rest,
                            None if input.rest.starts_with('-') && c != ' ' => input.rest = &input.rest[1..],
                            None => {}
                        }
                    }
                }
                continue;
            }
            Piece::Pattern { name, ordinal, .. } => (*name, ordinal),
        };
        input.name = name;
        // Digits run together only if another number follows at once.
        let followed = matches!(list.get(i + 1), Some(Piece::Pattern { .. }));
        let width = |w: usize| if followed { w } else { 20 };
        match name {
            "HH24" => p.hour = input.number(2)?,
            "HH" | "HH12" => {
                p.hour = input.number(2)?;
                p.twelve = true;
            }
            "MI" => p.minute = input.number(2)?,
            "SS" => p.second = input.number(2)?,
            "MS" | "US" | "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
                let digits: usize = input.rest.bytes().take(6).take_while(u8::is_ascii_digit).count();
                let value = input.number(6)?;
                p.fraction = value * 10i64.pow(6 - digits.min(6) as u32);
            }
            "SSSSS" | "SSSS" => p.seconds_of_day = Some(input.number(5)?),
            "AM" | "PM" | "am" | "pm" => p.pm = Some(input.word(&["AM", "PM"], false)? == 1),
            "A.M." | "P.M." | "a.m." | "p.m." => p.pm = Some(input.word(&["A.M.", "P.M."], false)? == 1),
            "YYYY" => p.year = Some(narrow(input.number(width(4))?)),
            "Y,YYY" => {
                let thousands = input.number(20)?;
                input.rest = input.rest.strip_prefix(',').unwrap_or(input.rest);
                p.year = Some(narrow(thousands.saturating_mul(1000) + input.number(3)?));
            }
            "YYY" | "YY" | "Y" => {
                let digits: usize = input.rest.trim_start().bytes().take_while(u8::is_ascii_digit).count();
                let value = input.number(name.len())?;
                p.year = Some(narrow(match digits.min(name.len()) {
                    1 | 2 if value < 70 => value + 2000,
                    1 | 2 => value + 1900,
                    _ if value < 520 => value + 2000,
                    _ => value + 1000,
                }));
            }
            "IYYY" => p.iso_year = Some(narrow(input.number(width(4))?)),
            "IYY" | "IY" | "I" => p.iso_year = Some(narrow(input.number(name.len())? + 2000)),
            "IW" => p.iso_week = Some(narrow(input.number(2)?)),
            "ID" => p.iso_day = Some(narrow(input.number(1)?)),
            "AD" | "BC" | "ad" | "bc" => p.bc = input.word(&["AD", "BC"], false)? == 1,
            "A.D." | "B.C." | "a.d." | "b.c." => p.bc = input.word(&["A.D.", "B.C."], false)? == 1,
            "MONTH" | "Month" | "month" => {
                // Abbreviations are taken too.
                let word: String =
                    input.rest.trim_start().chars().take_while(|c| c.is_alphabetic()).collect();
                match month_number(&word) {
                    Some(month) => {
                        p.month = Some(month);
                        input.rest = &input.rest.trim_start()[word.len()..];
                    }
                    None => p.month = Some(input.word(&MONTHS, false)? as i32 + 1),
                }
            }
            "MON" | "Mon" | "mon" => p.month = Some(input.word(&MONTHS, true)? as i32 + 1),
            "MM" => p.month = Some(narrow(input.number(2)?)),
            "DAY" | "Day" | "day" => drop(input.word(&DAYS, false)?),
            "DY" | "Dy" | "dy" => drop(input.word(&DAYS, true)?),
            "DDD" => p.day_of_year = Some(narrow(input.number(3)?)),
            "DD" => p.day = Some(narrow(input.number(2)?)),
            "D" | "Q" | "CC" => drop(input.number(2)?),
            "WW" | "W" => p.week = Some(narrow(input.number(2)?)),
            "J" => p.julian = Some(input.number(20)?),
            "TZH" => p.offset = Some(narrow(input.number(2)? * 3600)),
            "TZM" => {
                let minutes = narrow(input.number(2)? * 60);
                p.offset = p.offset.map(|o| if o < 0 { o - minutes } else { o + minutes });
            }
            "RM" | "rm" => p.month = Some(roman_month(&mut input)?),
            _ => {
                let message = format!("formatting field \"{name}\" is only supported in to_char");
                return Err(SqlError::feature_not_supported(message));
            }
        }
        if ordinal.is_some() {
            input.rest = input.rest.get(2..).unwrap_or("");
        }
    }
    Ok(p)
}

fn roman_month(input: &mut Input<'_>) -> Result<i32> {
    let word: String = input.rest.trim_start().chars().take_while(|c| c.is_alphabetic()).collect();
    let upper = word.to_uppercase();
    match ROMAN.iter().position(|r| *r == upper) {
        Some(i) => {
            input.rest = &input.rest.trim_start()[word.len()..];
            Ok(i as i32 + 1)
        }
        None => input.word(&ROMAN, false).map(|i| i as i32 + 1),
    }
}

impl Parsed {
    fn days(&self, text: &str) -> Result<i64> {
        let out_of_range =
            || SqlError::datetime_field_overflow(format!("date/time field value out of range: \"{text}\""));
        if let Some(julian) = self.julian {
            return Ok(julian - 2_451_545);
        }
        if let (Some(year), Some(week)) = (self.iso_year, self.iso_week) {
            return Ok(iso_week_monday(year, week) + i64::from(self.iso_day.unwrap_or(1)) - 1);
        }
        let year = match self.year {
            Some(year) if self.bc && year > 0 => 1 - year,
            Some(year) if year < 0 => year + 1,
            Some(0) | None => 0,
            Some(year) => year,
        };
        if let Some(day) = self.day_of_year {
            let days = days_from_civil(year, 1, 1) + i64::from(day) - 1;
            return if (1..=366).contains(&day) { Ok(days) } else { Err(out_of_range()) };
        }
        date_from_civil(year, self.month.unwrap_or(1), self.day.unwrap_or(1))
            .map(i64::from)
            .ok_or_else(out_of_range)
    }

    fn time(&self, text: &str) -> Result<i64> {
        if let Some(seconds) = self.seconds_of_day {
            return Ok(seconds * SECOND + self.fraction);
        }
        if self.twelve && !(1..=12).contains(&self.hour) {
            return Err(SqlError::invalid_datetime_format(format!(
                "hour \"{}\" is invalid for the 12-hour clock",
                self.hour
            ))
            .with_hint("Use the 24-hour clock, or give an hour between 1 and 12."));
        }
        if !(0..24).contains(&self.hour) || !(0..60).contains(&self.minute) || !(0..60).contains(&self.second)
        {
            let message = format!("date/time field value out of range: \"{text}\"");
            return Err(SqlError::datetime_field_overflow(message));
        }
        let hour = match (self.twelve, self.pm) {
            (true, Some(true)) => self.hour % 12 + 12,
            (true, Some(false)) => self.hour % 12,
            (true, None) => self.hour % 12 + if self.hour == 12 { 12 } else { 0 },
            _ => self.hour,
        };
        let hour = if self.twelve && self.pm.is_none() { self.hour } else { hour };
        Ok(hour * HOUR + self.minute * MINUTE + self.second * SECOND + self.fraction)
    }
}

fn to_timestamp(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let (text, template) = (str_of(&a[0])?, str_of(&a[1])?);
    let parsed = read(text, template)?;
    let local = join_timestamp(parsed.days(text)?, parsed.time(text)?)
        .ok_or_else(|| SqlError::datetime_field_overflow("timestamp out of range"))?;
    Ok(Datum::Timestamptz(match parsed.offset {
        Some(offset) => local - i64::from(offset) * SECOND,
        None => c.context.timezone().to_utc(local),
    }))
}

fn to_date(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (text, template) = (str_of(&a[0])?, str_of(&a[1])?);
    let days = read(text, template)?.days(text)?;
    i32::try_from(days)
        .map(Datum::Date)
        .map_err(|_| SqlError::datetime_field_overflow(format!("date out of range: \"{text}\"")))
}

/// The functions of this family.
pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    function("to_char", &[Timestamp, Text], Text, timestamp_to_char),
    function("to_char", &[Timestamptz, Text], Text, timestamptz_to_char).stable(),
    function("to_char", &[Interval, Text], Text, interval_to_char),
    function("to_char", &[Int4, Text], Text, |a, _| number_to_char(&Number::from(int(&a[0])?), &a[1])),
    function("to_char", &[Int8, Text], Text, |a, _| number_to_char(&Number::from(int(&a[0])?), &a[1])),
    function("to_char", &[Numeric, Text], Text, |a, _| number_to_char(numeric(&a[0])?, &a[1])),
    function("to_char", &[Float4, Text], Text, |a, _| number_to_char(&float_number(float(&a[0])?, 6), &a[1])),
    function("to_char", &[Float8, Text], Text, |a, _| {
        number_to_char(&float_number(float(&a[0])?, 15), &a[1])
    }),
    function("to_number", &[Text, Text], Numeric, |a, _| {
        Ok(Datum::numeric(to_char_number::to_number(str_of(&a[0])?, str_of(&a[1])?)?))
    }),
    function("to_timestamp", &[Text, Text], Timestamptz, to_timestamp).stable(),
    function("to_date", &[Text, Text], Date, to_date),
];

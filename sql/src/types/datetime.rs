//! Dates, times and timestamps as text.
//!
//! Input is split into words first and each word is then recognized by its looks, as PostgreSQL does, so
//! the parts may come in almost any order:
//!
//! ```text
//!   "Tue Jan 2 03:04:05.6 2024 BC Europe/Berlin"
//!     │   │  │      │         │  │       └── zone by name       ISO output:
//!     │   │  │      │         │  └── era                        2024-01-02 03:04:05.6+01
//!     └skip └month └time of day └year
//! ```

use std::fmt::{self, Write};

use amphora_storage::DataType;
use amphora_storage::datum::Timetz;

use super::FormatContext;
use super::calendar::{Civil, civil_from_days, days_from_civil, days_in_month};
use super::number::is_space;
use super::zone::{TimeZone, parse_offset};
use crate::error::{Result, SqlError};

/// Microseconds in a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds in a minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Microseconds in an hour.
pub const HOUR: i64 = 60 * MINUTE;
/// Microseconds in a day.
pub const DAY: i64 = 24 * HOUR;
/// The date `infinity`; its negative bound is `i32::MIN`.
pub const INFINITY_DATE: i32 = i32::MAX;
/// The first day that is too late for a timestamp: 294277-01-01.
pub(super) const END_TIMESTAMP_DAYS: i32 = 106_751_983;
/// The first day there is: 4714-11-24 BC, day 0 of the Julian calendar.
pub(super) const FIRST_DAY: i64 = -2_451_545;
/// The first day that is too late for a date: 5874898-06-04.
const END_DATE_DAYS: i64 = 2_147_483_494 - 2_451_545;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const MONTH_NAMES: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const WEEKDAY_NAMES: [&str; 7] =
    ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

/// The month of an English name or its abbreviation, 1 to 12.
pub fn month_number(name: &str) -> Option<i32> {
    let name = name.to_ascii_lowercase();
    let found =
        (0..12).find(|&i| MONTHS[i] == name || MONTH_NAMES[i] == name || (i == 8 && name == "sept"))?;
    Some(found as i32 + 1)
}

/// Days since 2000-01-01 of a calendar day (astronomical year), if it exists and is in PostgreSQL's range.
pub fn date_from_civil(year: i32, month: i32, day: i32) -> Option<i32> {
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    if !(FIRST_DAY..END_DATE_DAYS).contains(&days) {
        return None;
    }
    i32::try_from(days).ok()
}

/// Days and microseconds of the day of a finite timestamp.
pub fn split_timestamp(micros: i64) -> (i64, i64) {
    (micros.div_euclid(DAY), micros.rem_euclid(DAY))
}

/// The timestamp of a day and a time of day, if it is in range.
pub fn join_timestamp(days: i64, micros: i64) -> Option<i64> {
    let value = days.checked_mul(DAY)?.checked_add(micros)?;
    (FIRST_DAY * DAY..i64::from(END_TIMESTAMP_DAYS) * DAY).contains(&value).then_some(value)
}

/// What the words of a date or time have said.
#[derive(Default)]
struct Fields {
    numbers: Vec<(i64, usize)>,
    date: Option<(i64, i32, i32)>,
    month: Option<i32>,
    julian: Option<i64>,
    time: Option<i64>,
    pm: Option<bool>,
    bc: bool,
    zone: Option<TimeZone>,
    special: Option<Special>,
}

#[derive(Clone, Copy, PartialEq)]
enum Special {
    Infinity,
    NegInfinity,
    Epoch,
    Now,
    Today,
    Tomorrow,
    Yesterday,
}

/// Why a text is no date or time.
enum Bad {
    Syntax,
    Range,
    Zone(String),
    ZoneRange,
}

impl Bad {
    fn into_error(self, text: &str, data_type: &DataType) -> SqlError {
        match self {
            Bad::Syntax => SqlError::invalid_datetime_format(format!(
                "invalid input syntax for type {}: \"{text}\"",
                match data_type {
                    DataType::Time(_) => "time",
                    DataType::Timestamp(_) => "timestamp",
                    _ =>
                        return SqlError::invalid_datetime_format(format!(
                            "invalid input syntax for type {data_type}: \"{text}\""
                        )),
                }
            )),
            Bad::Range => {
                let err = SqlError::datetime_field_overflow(format!(
                    "date/time field value out of range: \"{text}\""
                ));
                match text.bytes().filter(|b| matches!(b, b'/' | b'-')).count() {
                    2.. if text.contains('/') => {
                        err.with_hint("Perhaps you need a different \"datestyle\" setting.")
                    }
                    _ => err,
                }
            }
            Bad::Zone(zone) => {
                SqlError::invalid_parameter_value(format!("time zone \"{zone}\" not recognized"))
            }
            Bad::ZoneRange => {
                SqlError::new("22009", format!("time zone displacement out of range: \"{text}\""))
            }
        }
    }
}

/// `HH:MM[:SS[.ffffff]]` in microseconds.
fn clock(text: &str) -> Result<i64, Bad> {
    let mut parts = text.split(':');
    let mut field = |max: i64, required: bool| match parts.next() {
        None if !required => Ok(0),
        Some(p) if !p.is_empty() && p.len() <= 2 && p.bytes().all(|b| b.is_ascii_digit()) => {
            let v: i64 = p.parse().map_err(|_| Bad::Syntax)?;
            if v > max { Err(Bad::Range) } else { Ok(v) }
        }
        _ => Err(Bad::Syntax),
    };
    let hours = field(24, true)?;
    let minutes = field(59, true)?;
    let seconds = match parts.next() {
        Some(s) => seconds(s)?,
        None => 0,
    };
    if parts.next().is_some() {
        return Err(Bad::Syntax);
    }
    let micros = hours * HOUR + minutes * MINUTE + seconds;
    if micros > DAY { Err(Bad::Range) } else { Ok(micros) }
}

/// `SS[.ffffff]` in microseconds, rounded; 60 is the next minute.
fn seconds(text: &str) -> Result<i64, Bad> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty()
        || whole.len() > 2
        || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
    {
        return Err(Bad::Syntax);
    }
    let whole: i64 = whole.parse().map_err(|_| Bad::Syntax)?;
    if whole > 60 {
        return Err(Bad::Range);
    }
    Ok(whole * SECOND + fraction_micros(fraction))
}

/// The digits after a decimal point, as microseconds, rounded.
pub(super) fn fraction_micros(digits: &str) -> i64 {
    let mut micros = 0;
    for i in 0..6 {
        micros = micros * 10 + digits.as_bytes().get(i).map_or(0, |b| i64::from(b - b'0'));
    }
    if digits.as_bytes().get(6).is_some_and(|b| *b >= b'5') { micros + 1 } else { micros }
}

impl Fields {
    fn read(text: &str) -> Result<Fields, Bad> {
        let mut fields = Fields::default();
        let cleaned: String = text.chars().map(|c| if c == ',' || is_space(c) { ' ' } else { c }).collect();
        let mut words: Vec<&str> = cleaned.split(' ').filter(|w| !w.is_empty()).collect();
        if words.is_empty() || text.len() > 200 {
            return Err(Bad::Syntax);
        }
        // An era makes two digits a whole year.
        fields.bc = words.iter().any(|w| w.eq_ignore_ascii_case("bc"));
        words.reverse();
        while let Some(word) = words.pop() {
            fields.word(word, &mut words)?;
        }
        Ok(fields)
    }

    fn word<'a>(&mut self, word: &'a str, rest: &mut Vec<&'a str>) -> Result<(), Bad> {
        let first = word.as_bytes()[0];
        if first.is_ascii_digit() {
            return self.numeric(word, rest);
        }
        if matches!(first, b'+' | b'-') && word.len() > 1 && word.as_bytes()[1].is_ascii_digit() {
            if self.time.is_none() && self.date.is_none() {
                return Err(Bad::Syntax);
            }
            self.zone = Some(TimeZone::Fixed(parse_offset(word).ok_or(Bad::ZoneRange)?, word.to_string()));
            return Ok(());
        }
        let lower = word.to_ascii_lowercase();
        // `T` before a time, and a month or zone glued to what follows: `T03:04`, `Jan-02-2024`.
        let clock = |s: &str| s.contains(':') || s.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if lower.starts_with('t')
            && lower[1..].starts_with(|c: char| c.is_ascii_digit())
            && clock(&lower[1..])
        {
            rest.push(&word[1..]);
            return Ok(());
        }
        if lower.starts_with('j') && lower.len() > 1 && lower[1..].bytes().all(|b| b.is_ascii_digit()) {
            self.julian = Some(lower[1..].parse().map_err(|_| Bad::Range)?);
            return Ok(());
        }
        match lower.as_str() {
            "infinity" | "+infinity" => self.special = Some(Special::Infinity),
            "-infinity" => self.special = Some(Special::NegInfinity),
            "epoch" => self.special = Some(Special::Epoch),
            "now" => self.special = Some(Special::Now),
            "today" => self.special = Some(Special::Today),
            "tomorrow" => self.special = Some(Special::Tomorrow),
            "yesterday" => self.special = Some(Special::Yesterday),
            "allballs" => {
                self.time = Some(0);
                self.zone = Some(TimeZone::UTC);
            }
            "am" | "pm" => self.pm = Some(lower == "pm"),
            "ad" | "bc" => {}
            "t" | "at" | "on" => {}
            _ => {
                if let Some(month) = month_number(&lower) {
                    self.month = Some(month);
                    return Ok(());
                }
                let day = WEEKDAYS.contains(&lower.as_str()) || WEEKDAY_NAMES.contains(&lower.as_str());
                if day || matches!(lower.as_str(), "tues" | "wednes" | "thur" | "thurs") {
                    return Ok(());
                }
                if let Some((name, tail)) = lower.split_once('-')
                    && let Some(month) = month_number(name)
                {
                    self.month = Some(month);
                    let at = word.len() - tail.len();
                    return self.split_date(&word[at..]);
                }
                return self.zone_name(word);
            }
        }
        Ok(())
    }

    /// The rest of `Jan-02-2024`.
    fn split_date(&mut self, tail: &str) -> Result<(), Bad> {
        for part in tail.split('-') {
            let value = part.parse().map_err(|_| Bad::Syntax)?;
            self.numbers.push((value, part.len()));
        }
        Ok(())
    }

    fn zone_name(&mut self, word: &str) -> Result<(), Bad> {
        // A zone's name may carry an offset: `UTC+3` is POSIX, and counts west.
        if let Some(zone) = TimeZone::parse(word) {
            self.zone = Some(zone);
            return Ok(());
        }
        let looks_like_zone =
            word.contains('/') || word.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
        match looks_like_zone && (self.time.is_some() || self.date.is_some()) {
            true if word.contains('/') => Err(Bad::Zone(word.to_ascii_lowercase())),
            _ => Err(Bad::Syntax),
        }
    }

    /// A word that begins with a digit: a time, a date, or a lone number; perhaps with a zone glued on.
    fn numeric<'a>(&mut self, word: &'a str, rest: &mut Vec<&'a str>) -> Result<(), Bad> {
        if let Some(t) = word.find(['T', 't']) {
            let (date, time) = (&word[..t], &word[t + 1..]);
            if date.bytes().all(|b| b.is_ascii_digit() || b == b'-' || b == b'/')
                && time.as_bytes().first().is_some_and(u8::is_ascii_digit)
            {
                rest.push(time);
                self.date_word(date)?;
                // What follows may be `030405`, a time without colons.
                if !time.contains(':') {
                    let time = rest.pop().unwrap_or("");
                    return self.compact_time(time, rest);
                }
                return Ok(());
            }
        }
        if word.contains(':') {
            let end = word.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.').unwrap_or(word.len());
            self.time = Some(clock(&word[..end])?);
            if end < word.len() {
                rest.push(&word[end..]);
            }
            return Ok(());
        }
        self.date_word(word)
    }

    fn compact_time<'a>(&mut self, word: &'a str, rest: &mut Vec<&'a str>) -> Result<(), Bad> {
        let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
        let (digits, fraction) = word[..end].split_once('.').unwrap_or((&word[..end], ""));
        let two = |i: usize| digits.get(i..i + 2).and_then(|d| d.parse::<i64>().ok());
        let (h, m, s) = match digits.len() {
            2 => (two(0), Some(0), Some(0)),
            4 => (two(0), two(2), Some(0)),
            6 => (two(0), two(2), two(4)),
            _ => return Err(Bad::Syntax),
        };
        let (Some(h), Some(m), Some(s)) = (h, m, s) else { return Err(Bad::Syntax) };
        if h > 24 || m > 59 || s > 60 {
            return Err(Bad::Range);
        }
        self.time = Some(h * HOUR + m * MINUTE + s * SECOND + fraction_micros(fraction));
        if end < word.len() {
            rest.push(&word[end..]);
        }
        Ok(())
    }

    fn date_word(&mut self, word: &str) -> Result<(), Bad> {
        if word.bytes().all(|b| b.is_ascii_digit()) {
            return self.lone_number(word);
        }
        let separator = if word.contains('-') {
            '-'
        } else if word.contains('/') {
            '/'
        } else {
            '.'
        };
        let parts: Vec<&str> = word.split(separator).collect();
        let [a, b, c] = parts[..] else { return self.two_part(&parts) };
        let number = |s: &str| match s.is_empty() || s.len() > 7 || !s.bytes().all(|b| b.is_ascii_digit()) {
            true => Err(Bad::Syntax),
            false => s.parse::<i64>().map_err(|_| Bad::Syntax),
        };
        if let Some(month) = month_number(b) {
            // `02-Jan-2024` and `2024-Jan-02`
            let (x, z) = (number(a)?, number(c)?);
            self.date = Some(if a.len() > 2 {
                (x, month, z as i32)
            } else {
                (self.full_year(z, c.len()), month, x as i32)
            });
            return Ok(());
        }
        let (x, y, z) = (number(a)?, number(b)?, number(c)?);
        self.date = Some(if a.len() > 2 {
            (x, y as i32, z as i32)
        } else {
            // Month first, the default DateStyle.
            (self.full_year(z, c.len()), x as i32, y as i32)
        });
        Ok(())
    }

    /// `2024.123`: year and day of year; anything else is wrong.
    fn two_part(&mut self, parts: &[&str]) -> Result<(), Bad> {
        let [year, day] = parts else { return Err(Bad::Syntax) };
        let digits = |s: &str| !s.is_empty() && s.len() < 8 && s.bytes().all(|b| b.is_ascii_digit());
        if year.len() != 4 || day.len() != 3 || !digits(year) || !digits(day) {
            return Err(Bad::Syntax);
        }
        let year: i32 = year.parse().map_err(|_| Bad::Syntax)?;
        let day: i32 = day.parse().map_err(|_| Bad::Syntax)?;
        let civil = civil_from_days(days_from_civil(year, 1, 1) + i64::from(day) - 1);
        if day == 0 || civil.year != year {
            return Err(Bad::Range);
        }
        self.date = Some((i64::from(civil.year), civil.month, civil.day));
        Ok(())
    }

    fn lone_number(&mut self, word: &str) -> Result<(), Bad> {
        let part =
            |r: std::ops::Range<usize>| word.get(r).and_then(|d| d.parse::<i64>().ok()).ok_or(Bad::Syntax);
        match word.len() {
            8 if self.date.is_none() && self.month.is_none() => {
                self.date = Some((part(0..4)?, part(4..6)? as i32, part(6..8)? as i32));
            }
            6 if self.date.is_some() && self.time.is_none() => {
                return self.compact_time(word, &mut Vec::new());
            }
            6 if self.date.is_none() && self.month.is_none() => {
                self.date = Some((self.full_year(part(0..2)?, 2), part(2..4)? as i32, part(4..6)? as i32));
            }
            // The last four are month and day, and all before them the year.
            9.. if self.date.is_none() && self.month.is_none() => {
                let (year, rest) = word.split_at(word.len() - 4);
                let (year, tail) = (year.parse::<i64>().map_err(|_| Bad::Range)?, rest.parse::<i32>());
                let tail = tail.map_err(|_| Bad::Syntax)?;
                self.date = Some((year, tail / 100, tail % 100));
            }
            1..=7 => self.numbers.push((word.parse().map_err(|_| Bad::Range)?, word.len())),
            _ => return Err(Bad::Syntax),
        }
        Ok(())
    }

    /// The date, as days.
    fn days(&self) -> Result<Option<i64>, Bad> {
        if let Some(julian) = self.julian {
            return Ok(Some(julian + FIRST_DAY));
        }
        let (year, month, day) = match (self.date, self.month, self.numbers.as_slice()) {
            (Some(date), None, []) => date,
            (None, Some(month), [(a, a_len), (b, b_len)]) => {
                if *a_len > 2 {
                    (*a, month, *b as i32)
                } else {
                    (self.full_year(*b, *b_len), month, *a as i32)
                }
            }
            (None, None, []) => return Ok(None),
            // A number alone is taken for a month, or for a year, month and day without anything between.
            (None, None, [(n, 1..=2)]) if !(1..=12).contains(n) => return Err(Bad::Range),
            (None, None, [(_, 9..)]) => return Err(Bad::Range),
            _ => return Err(Bad::Syntax),
        };
        if self.bc && year <= 0 || !self.bc && year == 0 || year > 6_000_000 {
            return Err(Bad::Range);
        }
        let year = if self.bc { 1 - year } else { year } as i32;
        match date_from_civil(year, month, day) {
            Some(days) => Ok(Some(i64::from(days))),
            None => Err(Bad::Range),
        }
    }

    /// Two digits mean 1970 to 2069, unless an era is given.
    fn full_year(&self, year: i64, digits: usize) -> i64 {
        match digits {
            1 | 2 if self.bc => year,
            1 | 2 if year < 70 => year + 2000,
            1 | 2 => year + 1900,
            _ => year,
        }
    }

    /// The time of day, 12-hour clock applied.
    fn time_of_day(&self) -> Result<i64, Bad> {
        let time = self.time.unwrap_or(0);
        match self.pm {
            None => Ok(time),
            Some(_) if time / HOUR > 12 => Err(Bad::Range),
            Some(true) if time / HOUR < 12 => Ok(time + 12 * HOUR),
            Some(false) if time / HOUR == 12 => Ok(time - 12 * HOUR),
            Some(_) => Ok(time),
        }
    }
}

/// A local timestamp and the zone that stood with it.
fn timestamp_fields(text: &str, ctx: &FormatContext) -> Result<(i64, Option<TimeZone>), Bad> {
    let fields = Fields::read(text)?;
    let today = || split_timestamp(ctx.timezone.to_local(ctx.now)).0;
    let special_day = match fields.special {
        Some(Special::Infinity) => return Ok((i64::MAX, None)),
        Some(Special::NegInfinity) => return Ok((i64::MIN, None)),
        Some(Special::Epoch) => return Ok((days_from_civil(1970, 1, 1) * DAY, Some(TimeZone::UTC))),
        Some(Special::Now) => return Ok((ctx.now, Some(TimeZone::UTC))),
        Some(Special::Today) => Some(today()),
        Some(Special::Tomorrow) => Some(today() + 1),
        Some(Special::Yesterday) => Some(today() - 1),
        None => None,
    };
    let days = match special_day {
        Some(days) => days,
        None => fields.days()?.ok_or(Bad::Syntax)?,
    };
    let local = join_timestamp(days, fields.time_of_day()?).ok_or(Bad::Range)?;
    Ok((local, fields.zone))
}

/// `timestamp` from text; a zone in the text is ignored, as the standard asks.
pub fn parse_timestamp(text: &str, ctx: &FormatContext) -> Result<i64> {
    match timestamp_fields(text, ctx) {
        Ok((utc, Some(TimeZone::UTC))) if text.trim().eq_ignore_ascii_case("now") => {
            Ok(ctx.timezone.to_local(utc))
        }
        Ok((local, _)) => Ok(local),
        Err(Bad::Range) if is_plain_date(text) => {
            Err(SqlError::datetime_field_overflow(format!("timestamp out of range: \"{text}\"")))
        }
        Err(bad) => Err(bad.into_error(text, &DataType::Timestamp(None))),
    }
}

/// True of a date that exists, though a timestamp does not reach it.
fn is_plain_date(text: &str) -> bool {
    Fields::read(text).ok().is_some_and(|f| matches!(f.days(), Ok(Some(_))) && f.time_of_day().is_ok())
}

/// `timestamptz` from text; without a zone in the text, local to the session's.
pub fn parse_timestamptz(text: &str, ctx: &FormatContext) -> Result<i64> {
    match timestamp_fields(text, ctx) {
        Ok((i64::MAX, _)) => Ok(i64::MAX),
        Ok((i64::MIN, _)) => Ok(i64::MIN),
        Ok((local, zone)) => Ok(zone.as_ref().unwrap_or(&ctx.timezone).to_utc(local)),
        Err(Bad::Range) if is_plain_date(text) => {
            Err(SqlError::datetime_field_overflow(format!("timestamp out of range: \"{text}\"")))
        }
        Err(bad) => Err(bad.into_error(text, &DataType::Timestamptz(None))),
    }
}

/// `date` from text; a time in the text is ignored.
pub fn parse_date(text: &str, ctx: &FormatContext) -> Result<i32> {
    let bad = |bad: Bad| bad.into_error(text, &DataType::Date);
    let fields = Fields::read(text).map_err(bad)?;
    let today = || split_timestamp(ctx.timezone.to_local(ctx.now)).0;
    let days = match fields.special {
        Some(Special::Infinity) => return Ok(INFINITY_DATE),
        Some(Special::NegInfinity) => return Ok(i32::MIN),
        Some(Special::Epoch) => days_from_civil(1970, 1, 1),
        Some(Special::Now | Special::Today) => today(),
        Some(Special::Tomorrow) => today() + 1,
        Some(Special::Yesterday) => today() - 1,
        None => fields.days().map_err(bad)?.ok_or_else(|| bad(Bad::Syntax))?,
    };
    if !(FIRST_DAY..END_DATE_DAYS).contains(&days) {
        return Err(SqlError::datetime_field_overflow(format!("date out of range: \"{text}\"")));
    }
    i32::try_from(days).map_err(|_| bad(Bad::Range))
}

/// `time` from text; a date in the text is ignored.
pub fn parse_time(text: &str, ctx: &FormatContext) -> Result<i64> {
    let bad = |bad: Bad| bad.into_error(text, &DataType::Time(None));
    let fields = Fields::read(text).map_err(bad)?;
    if fields.special == Some(Special::Now) {
        return Ok(split_timestamp(ctx.timezone.to_local(ctx.now)).1);
    }
    if fields.time.is_none() {
        // `030405` and `0304` are times where a time is wanted.
        let mut alone = Fields::default();
        let word = text.trim_matches(is_space);
        let digits = word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if digits && alone.compact_time(word, &mut Vec::new()).is_ok() && word.len() >= 4 {
            return alone.time_of_day().map_err(bad);
        }
        return Err(bad(Bad::Syntax));
    }
    let time = fields.time_of_day().map_err(bad)?;
    if time > DAY { Err(bad(Bad::Range)) } else { Ok(time) }
}

/// `time with time zone` from text; without a zone in the text, the session's at the date in the text, or
/// today's.
pub fn parse_timetz(text: &str, ctx: &FormatContext) -> Result<Timetz> {
    let bad = |bad: Bad| bad.into_error(text, &DataType::Timetz(None));
    let fields = Fields::read(text).map_err(bad)?;
    let now = ctx.timezone.to_local(ctx.now);
    if fields.special == Some(Special::Now) {
        return Ok(Timetz { micros: split_timestamp(now).1, west: -ctx.timezone.offset_at(ctx.now) });
    }
    let plain = fields.time.is_none() && fields.zone.is_none();
    let micros = if plain { parse_time(text, ctx)? } else { fields.time_of_day().map_err(bad)? };
    if fields.time.is_none() && !plain {
        return Err(bad(Bad::Syntax));
    }
    if micros > DAY {
        return Err(bad(Bad::Range));
    }
    let day = fields.days().map_err(bad)?;
    // The offset of a zone by name depends on the day.
    if matches!(fields.zone, Some(TimeZone::Named(zone)) if zone != chrono_tz::UTC) && day.is_none() {
        return Err(bad(Bad::Syntax));
    }
    let local = join_timestamp(day.unwrap_or_else(|| split_timestamp(now).0), micros);
    let local = local.ok_or_else(|| bad(Bad::Range))?;
    let zone = fields.zone.as_ref().unwrap_or(&ctx.timezone);
    Ok(Timetz { micros, west: -zone.offset_at_local(local) })
}

/// `+02`, `-03:30`; with `minutes` always as far as those.
pub(super) fn write_offset(offset: i32, minutes: bool, out: &mut (impl Write + ?Sized)) -> fmt::Result {
    let (sign, abs) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
    write!(out, "{sign}{:02}", abs / 3600)?;
    let (m, s) = (abs / 60 % 60, abs % 60);
    if m != 0 || s != 0 || minutes {
        write!(out, ":{m:02}")?;
    }
    if s != 0 {
        write!(out, ":{s:02}")?;
    }
    Ok(())
}

/// `2024-01-02`; the era is left to the caller.
fn write_civil(civil: Civil, out: &mut (impl Write + ?Sized)) -> fmt::Result {
    let year = if civil.year > 0 { civil.year } else { 1 - civil.year };
    write!(out, "{year:04}-{:02}-{:02}", civil.month, civil.day)
}

/// `03:04:05.6`
pub(super) fn write_time(micros: i64, out: &mut (impl Write + ?Sized)) -> fmt::Result {
    write!(out, "{:02}:{:02}:{:02}", micros / HOUR, micros / MINUTE % 60, micros / SECOND % 60)?;
    write_fraction(micros % SECOND, out)
}

/// `.6`, without trailing zeros; nothing if there is no fraction.
pub(super) fn write_fraction(micros: i64, out: &mut (impl Write + ?Sized)) -> fmt::Result {
    if micros == 0 {
        return Ok(());
    }
    let (mut digits, mut width) = (micros, 6);
    while digits % 10 == 0 {
        digits /= 10;
        width -= 1;
    }
    write!(out, ".{digits:0width$}")
}

/// A `date` in ISO style.
pub(super) fn write_date(days: i32, out: &mut (impl Write + ?Sized)) -> fmt::Result {
    match days {
        i32::MAX => return out.write_str("infinity"),
        i32::MIN => return out.write_str("-infinity"),
        _ => {}
    }
    let civil = civil_from_days(i64::from(days));
    write_civil(civil, out)?;
    if civil.year <= 0 { out.write_str(" BC") } else { Ok(()) }
}

/// A `timestamp` in ISO style, with the offset of a `timestamptz`; `t` separates date and time.
pub(super) fn write_timestamp(
    local: i64,
    offset: Option<i32>,
    separator: char,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    match local {
        i64::MAX => return out.write_str("infinity"),
        i64::MIN => return out.write_str("-infinity"),
        _ => {}
    }
    let (days, micros) = split_timestamp(local);
    let civil = civil_from_days(days);
    write_civil(civil, out)?;
    out.write_char(separator)?;
    write_time(micros, out)?;
    if let Some(offset) = offset {
        // JSON always has the minutes.
        write_offset(offset, separator == 'T', out)?;
    }
    if civil.year <= 0 { out.write_str(" BC") } else { Ok(()) }
}

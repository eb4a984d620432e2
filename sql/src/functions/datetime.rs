//! Date and time functions: the clocks, fields, truncation, construction, time zones.

use amphora_storage::datum::{Interval as Span, Timetz as ZonedTime};
use amphora_storage::{Datum, Numeric as Number};
use bigdecimal::BigDecimal;

use super::arithmetic::{float, int, wrong_kind};
use super::datetime_operator::{
    add_interval, date, date_to_timestamp, interval, justify_hours, micros, negate, span, timetz,
};
use super::signature::Ty::*;
use super::string::str_of;
use super::{Call, ScalarFunction, function};
use crate::error::{Result, SqlError};
use crate::types::{
    Civil, DAY, HOUR, MINUTE, SECOND, TimeZone, civil_from_days, current_timestamp, date_from_civil,
    days_from_civil, days_in_month, iso_week, iso_week_monday, join_timestamp, round_micros, split_timestamp,
    to_text, weekday,
};

/// Days since 2000-01-01 of 1970-01-01.
const EPOCH_1970: i64 = -10_957;
/// The Julian day of 2000-01-01.
const JULIAN_2000: i64 = 2_451_545;

/// What is asked of a date or time: a field and its spellings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    DayOfWeek,
    IsoDayOfWeek,
    DayOfYear,
    IsoYear,
    Julian,
    Epoch,
    Timezone,
    TimezoneHour,
    TimezoneMinute,
}

fn field_of(name: &str) -> Option<Field> {
    Some(match name.to_ascii_lowercase().as_str() {
        "microseconds" | "microsecond" | "us" | "usec" | "usecs" => Field::Microsecond,
        "milliseconds" | "millisecond" | "ms" | "msec" | "msecs" => Field::Millisecond,
        "second" | "seconds" | "s" | "sec" | "secs" => Field::Second,
        "minute" | "minutes" | "m" | "min" | "mins" => Field::Minute,
        "hour" | "hours" | "h" | "hr" | "hrs" => Field::Hour,
        "day" | "days" | "d" => Field::Day,
        "week" | "weeks" | "w" => Field::Week,
        "month" | "months" | "mon" | "mons" => Field::Month,
        "quarter" | "qtr" => Field::Quarter,
        "year" | "years" | "y" | "yr" | "yrs" => Field::Year,
        "decade" | "decades" | "dec" | "decs" => Field::Decade,
        "century" | "centuries" | "c" | "cent" => Field::Century,
        "millennium" | "millennia" | "mil" | "mils" => Field::Millennium,
        "dow" => Field::DayOfWeek,
        "isodow" => Field::IsoDayOfWeek,
        "doy" => Field::DayOfYear,
        "isoyear" => Field::IsoYear,
        "julian" | "jd" | "j" => Field::Julian,
        "epoch" => Field::Epoch,
        "timezone" | "tz" => Field::Timezone,
        "timezone_hour" | "tzh" => Field::TimezoneHour,
        "timezone_minute" | "tzm" => Field::TimezoneMinute,
        _ => return None,
    })
}

fn unrecognized(name: &str, type_name: &str) -> SqlError {
    SqlError::invalid_parameter_value(format!("unit \"{name}\" not recognized for type {type_name}"))
}

fn unsupported(name: &str, type_name: &str) -> SqlError {
    SqlError::feature_not_supported(format!("unit \"{name}\" not supported for type {type_name}"))
}

/// A number of so many millionths, thousandths or units.
fn scaled(value: i128, scale: i64) -> Number {
    Number::Finite(BigDecimal::new(value.into(), scale))
}

fn whole(value: i64) -> Number {
    Number::from(value)
}

/// A year as people count: there is none before 1.
fn shown_year(year: i32) -> i64 {
    i64::from(if year > 0 { year } else { year - 1 })
}

fn century_of(year: i64, length: i64) -> i64 {
    if year > 0 { (year + length - 1) / length } else { -((length - 1 - (year - 1)) / length) }
}

/// The parts of a time of day, in microseconds.
fn time_field(field: Field, time: i64) -> Option<Number> {
    Some(match field {
        Field::Microsecond => whole(time % MINUTE),
        Field::Millisecond => scaled(i128::from(time % MINUTE), 3),
        Field::Second => scaled(i128::from(time % MINUTE), 6),
        Field::Minute => whole(time / MINUTE % 60),
        Field::Hour => whole(time / HOUR),
        _ => return None,
    })
}

/// The parts of a day.
fn day_field(field: Field, days: i64) -> Option<Number> {
    let Civil { year, month, day } = civil_from_days(days);
    Some(whole(match field {
        Field::Day => i64::from(day),
        Field::Week => i64::from(iso_week(days).1),
        Field::Month => i64::from(month),
        Field::Quarter => i64::from((month - 1) / 3 + 1),
        Field::Year => shown_year(year),
        Field::Decade => i64::from(year.div_euclid(10)),
        Field::Century => century_of(i64::from(year), 100),
        Field::Millennium => century_of(i64::from(year), 1000),
        Field::DayOfWeek => i64::from(weekday(days)),
        Field::IsoDayOfWeek => i64::from((weekday(days) + 6) % 7 + 1),
        Field::DayOfYear => days - days_from_civil(year, 1, 1) + 1,
        Field::IsoYear => shown_year(iso_week(days).0),
        _ => return None,
    }))
}

/// What an infinite date or timestamp has: fields that only grow are infinite, the others NULL.
fn infinite_field(field: Field, positive: bool) -> Option<Number> {
    match field {
        Field::Year
        | Field::Decade
        | Field::Century
        | Field::Millennium
        | Field::IsoYear
        | Field::Julian
        | Field::Epoch => Some(if positive { Number::Infinity } else { Number::NegInfinity }),
        _ => None,
    }
}

/// A field of a timestamp; `None` is NULL. `offset` is a timestamptz's.
fn timestamp_field(name: &str, local: i64, offset: Option<i32>, type_name: &str) -> Result<Option<Number>> {
    let field = field_of(name).ok_or_else(|| unrecognized(name, type_name))?;
    if local == i64::MAX || local == i64::MIN {
        return Ok(infinite_field(field, local == i64::MAX));
    }
    let (days, time) = split_timestamp(local);
    if let Some(found) = time_field(field, time).or_else(|| day_field(field, days)) {
        return Ok(Some(found));
    }
    Ok(Some(match (field, offset) {
        (Field::Julian, _) => {
            let fraction = super::decimal::divide(&whole(time), &whole(DAY))?;
            super::decimal::add(&whole(days + JULIAN_2000), &fraction)?
        }
        (Field::Epoch, offset) => {
            let utc = i128::from(local) - i128::from(offset.unwrap_or(0)) * i128::from(SECOND);
            scaled(utc - i128::from(EPOCH_1970) * i128::from(DAY), 6)
        }
        (Field::Timezone, Some(offset)) => whole(i64::from(offset)),
        (Field::TimezoneHour, Some(offset)) => whole(i64::from(offset / 3600)),
        (Field::TimezoneMinute, Some(offset)) => whole(i64::from(offset / 60 % 60)),
        _ => return Err(unsupported(name, type_name)),
    }))
}

fn interval_field(name: &str, i: &Span) -> Result<Option<Number>> {
    let field = field_of(name).ok_or_else(|| unrecognized(name, "interval"))?;
    let years = i64::from(i.months / 12);
    Ok(Some(match field {
        Field::Hour | Field::Minute | Field::Second | Field::Millisecond | Field::Microsecond => {
            let found = time_field(field, i.micros.abs());
            let found = found.unwrap_or_else(|| whole(0));
            if i.micros < 0 { super::decimal::negate(&found) } else { found }
        }
        Field::Day => whole(i64::from(i.days)),
        Field::Month => whole(i64::from(i.months % 12)),
        Field::Quarter => whole(i64::from(i.months % 12 / 3 + 1)),
        Field::Year => whole(years),
        Field::Decade => whole(years / 10),
        Field::Century => whole(years / 100),
        Field::Millennium => whole(years / 1000),
        Field::Epoch => {
            // A year is 365.25 days here, a month that does not make a year 30.
            let days = i128::from(i.months % 12) * 30 + i128::from(i.days);
            let micros =
                i128::from(years) * 31_557_600 * 1_000_000 + days * i128::from(DAY) + i128::from(i.micros);
            scaled(micros, 6)
        }
        _ => return Err(unsupported(name, "interval")),
    }))
}

fn extract(a: &[Datum], c: &Call<'_>) -> Result<Option<Number>> {
    let name = str_of(&a[0])?;
    match &a[1] {
        Datum::Timestamp(t) => timestamp_field(name, *t, None, "timestamp without time zone"),
        Datum::Timestamptz(t) => {
            let zone = c.context.timezone();
            timestamp_field(name, zone.to_local(*t), Some(zone.offset_at(*t)), "timestamp with time zone")
        }
        Datum::Date(d) => {
            let field = field_of(name).ok_or_else(|| unrecognized(name, "date"))?;
            match *d {
                i32::MAX | i32::MIN => Ok(infinite_field(field, *d == i32::MAX)),
                d => {
                    let d = i64::from(d);
                    let found = match field {
                        Field::Julian => Some(whole(d + JULIAN_2000)),
                        Field::Epoch => Some(whole((d - EPOCH_1970) * 86_400)),
                        other => day_field(other, d),
                    };
                    found.map(Some).ok_or_else(|| unsupported(name, "date"))
                }
            }
        }
        Datum::Time(t) => {
            let field = field_of(name).ok_or_else(|| unrecognized(name, "time without time zone"))?;
            let found = match field {
                Field::Epoch => Some(scaled(i128::from(*t), 6)),
                other => time_field(other, *t),
            };
            found.map(Some).ok_or_else(|| unsupported(name, "time without time zone"))
        }
        Datum::Timetz(t) => {
            let field = field_of(name).ok_or_else(|| unrecognized(name, "time with time zone"))?;
            let offset = i64::from(-t.west);
            let found = match field {
                Field::Epoch => Some(scaled(i128::from(t.utc()), 6)),
                Field::Timezone => Some(whole(offset)),
                Field::TimezoneHour => Some(whole(offset / 3600)),
                Field::TimezoneMinute => Some(whole(offset / 60 % 60)),
                other => time_field(other, t.micros),
            };
            found.map(Some).ok_or_else(|| unsupported(name, "time with time zone"))
        }
        Datum::Interval(i) => interval_field(name, i),
        _ => Err(wrong_kind()),
    }
}

fn extract_numeric(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    Ok(extract(a, c)?.map_or(Datum::Null, Datum::numeric))
}

fn date_part(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    Ok(match extract(a, c)? {
        Some(n) => Datum::Float8(crate::types::parse_float8(&n.to_string())?),
        None => Datum::Null,
    })
}

/// The first moment of the unit a local timestamp lies in.
fn truncate(name: &str, local: i64, type_name: &str) -> Result<i64> {
    if local == i64::MAX || local == i64::MIN {
        return Ok(local);
    }
    let field = field_of(name).ok_or_else(|| unrecognized(name, type_name))?;
    let (days, time) = split_timestamp(local);
    let civil = civil_from_days(days);
    let first = |year: i32, month: i32| days_from_civil(year, month, 1);
    let (days, time) = match field {
        Field::Microsecond => (days, time),
        Field::Millisecond => (days, time - time % 1000),
        Field::Second => (days, time - time % SECOND),
        Field::Minute => (days, time - time % MINUTE),
        Field::Hour => (days, time - time % HOUR),
        Field::Day => (days, 0),
        Field::Week => (days - i64::from((weekday(days) + 6) % 7), 0),
        Field::Month => (first(civil.year, civil.month), 0),
        Field::Quarter => (first(civil.year, (civil.month - 1) / 3 * 3 + 1), 0),
        Field::Year => (first(civil.year, 1), 0),
        Field::Decade => (first(civil.year.div_euclid(10) * 10, 1), 0),
        Field::Century => (first((civil.year - 1).div_euclid(100) * 100 + 1, 1), 0),
        Field::Millennium => (first((civil.year - 1).div_euclid(1000) * 1000 + 1, 1), 0),
        Field::IsoYear => (iso_week_monday(iso_week(days).0, 1), 0),
        _ => return Err(unsupported(name, type_name)),
    };
    join_timestamp(days, time).ok_or_else(|| SqlError::datetime_field_overflow("timestamp out of range"))
}

fn trunc_zoned(name: &str, value: i64, zone: &TimeZone) -> Result<Datum> {
    let local = truncate(name, zone.to_local(value), "timestamp with time zone")?;
    Ok(Datum::Timestamptz(zone.to_utc(local)))
}

fn trunc_interval(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (name, i) = (str_of(&a[0])?, interval(&a[1])?);
    let field = field_of(name).ok_or_else(|| unrecognized(name, "interval"))?;
    let cut = |unit: i64| Span { months: i.months, days: i.days, micros: i.micros - i.micros % unit };
    let months = |unit: i32| Span { months: i.months - i.months % unit, days: 0, micros: 0 };
    Ok(span(match field {
        Field::Microsecond => *i,
        Field::Millisecond => cut(1000),
        Field::Second => cut(SECOND),
        Field::Minute => cut(MINUTE),
        Field::Hour => cut(HOUR),
        Field::Day => Span { months: i.months, days: i.days, micros: 0 },
        Field::Month => months(1),
        Field::Quarter => months(3),
        Field::Year => months(12),
        Field::Decade => months(120),
        Field::Century => months(1200),
        Field::Millennium => months(12_000),
        _ => {
            return Err(unsupported(name, "interval").with_detail(match field {
                Field::Week => "Months usually have fractional weeks.",
                _ => return Err(unsupported(name, "interval")),
            }));
        }
    }))
}

fn zone_named(name: &str) -> Result<TimeZone> {
    TimeZone::parse(name)
        .ok_or_else(|| SqlError::invalid_parameter_value(format!("time zone \"{name}\" not recognized")))
}

fn zone_of(d: &Datum) -> Result<TimeZone> {
    match d {
        Datum::Interval(i) if i.months != 0 || i.days != 0 => {
            Err(SqlError::invalid_parameter_value("interval time zone must not include months or days"))
        }
        Datum::Interval(i) => Ok(TimeZone::Fixed((i.micros / SECOND) as i32, String::new())),
        other => zone_named(str_of(other)?),
    }
}

/// `AT TIME ZONE`
/// The same moment of the day in another zone, at the offset that zone has now.
fn time_at_zone(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let offset = zone_of(&a[0])?.offset_at(c.context.transaction_timestamp);
    let micros = (timetz(&a[1])?.utc() + i64::from(offset) * SECOND).rem_euclid(DAY);
    Ok(Datum::Timetz(ZonedTime { micros, west: -offset }))
}

fn at_zone(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    // Infinity is everywhere, even where there is no such place.
    if matches!(a[1], Datum::Timestamp(i64::MAX | i64::MIN)) {
        return Ok(Datum::Timestamptz(micros(&a[1])?));
    }
    if matches!(a[1], Datum::Timestamptz(i64::MAX | i64::MIN)) {
        return Ok(Datum::Timestamp(micros(&a[1])?));
    }
    let zone = zone_of(&a[0])?;
    Ok(match &a[1] {
        Datum::Timestamp(t) => Datum::Timestamptz(zone.to_utc(*t)),
        Datum::Timestamptz(t) => Datum::Timestamp(zone.to_local(*t)),
        _ => return Err(wrong_kind()),
    })
}

/// The difference of two local timestamps in years, months, days and time.
fn age_between(x: i64, y: i64) -> Result<Datum> {
    if x == i64::MIN || y == i64::MIN {
        return Err(SqlError::datetime_field_overflow("timestamp out of range"));
    }
    let (later, earlier, sign) = if x >= y { (x, y, 1) } else { (y, x, -1) };
    let ((later_days, later_time), (earlier_days, earlier_time)) =
        (split_timestamp(later), split_timestamp(earlier));
    let (a, b) = (civil_from_days(later_days), civil_from_days(earlier_days));
    let mut months = (a.year - b.year) * 12 + a.month - b.month;
    let mut days = a.day - b.day;
    let mut time = later_time - earlier_time;
    if time < 0 {
        time += DAY;
        days -= 1;
    }
    if days < 0 {
        // The month that is borrowed is the earlier one's.
        days += days_in_month(b.year, b.month);
        months -= 1;
    }
    let result = Span { months, days, micros: time };
    Ok(span(if sign < 0 { negate(&result)? } else { result }))
}

fn age(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let zone = c.context.timezone();
    let local = |d: &Datum| match d {
        Datum::Timestamptz(t) => Ok(zone.to_local(*t)),
        other => micros(other),
    };
    match a {
        [x, y] => age_between(local(x)?, local(y)?),
        _ => {
            let today = split_timestamp(zone.to_local(c.context.transaction_timestamp)).0 * DAY;
            age_between(today, local(&a[0])?)
        }
    }
}

fn make_days(a: &[Datum]) -> Result<i32> {
    let (year, month, day) = (int(&a[0])?, int(&a[1])?, int(&a[2])?);
    let out_of_range = || {
        SqlError::datetime_field_overflow(format!(
            "date field value out of range: {year}-{month:02}-{day:02}"
        ))
    };
    if year == 0 {
        return Err(out_of_range());
    }
    let year = if year < 0 { year + 1 } else { year };
    let fit = |v: i64| i32::try_from(v).ok();
    let (Some(y), Some(m), Some(d)) = (fit(year), fit(month), fit(day)) else { return Err(out_of_range()) };
    if y > 5_874_897 {
        return Err(out_of_range());
    }
    date_from_civil(y, m, d).ok_or_else(out_of_range)
}

fn make_clock(hour: &Datum, minute: &Datum, second: &Datum) -> Result<i64> {
    let (h, m, s) = (int(hour)?, int(minute)?, float(second)?);
    let micros = (s * 1e6).round_ties_even();
    let fields = (0..=24).contains(&h) && (0..60).contains(&m) && (0.0..=60e6).contains(&micros);
    let total = if fields { h * HOUR + m * MINUTE + micros as i64 } else { i64::MAX };
    if total > DAY {
        let shown =
            to_text(second, &amphora_storage::DataType::Float8, &crate::types::FormatContext::default());
        return Err(SqlError::datetime_field_overflow(format!(
            "time field value out of range: {h}:{m:02}:{shown:0>2}"
        )));
    }
    Ok(total)
}

fn make_local(a: &[Datum]) -> Result<i64> {
    let days = make_days(a)?;
    join_timestamp(i64::from(days), make_clock(&a[3], &a[4], &a[5])?)
        .ok_or_else(|| SqlError::datetime_field_overflow("timestamp out of range"))
}

fn make_interval(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let range = || SqlError::datetime_field_overflow("interval out of range");
    let at = |i: usize| a.get(i).map_or(Ok(0), int);
    let months = at(0)? * 12 + at(1)?;
    let days = at(2)? * 7 + at(3)?;
    let seconds = a.get(6).map_or(Ok(0.0), float)?;
    if !seconds.is_finite() || seconds.abs() > 1e13 {
        return Err(range());
    }
    let micros = i128::from(at(4)?) * i128::from(HOUR)
        + i128::from(at(5)?) * i128::from(MINUTE)
        + (seconds * 1e6).round_ties_even() as i128;
    Ok(span(Span {
        months: i32::try_from(months).map_err(|_| range())?,
        days: i32::try_from(days).map_err(|_| range())?,
        micros: i64::try_from(micros).map_err(|_| range())?,
    }))
}

fn from_epoch(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let seconds = float(&a[0])?;
    if seconds.is_nan() {
        return Err(SqlError::datetime_field_overflow("timestamp cannot be NaN"));
    }
    if seconds.is_infinite() {
        return Ok(Datum::Timestamptz(if seconds > 0.0 { i64::MAX } else { i64::MIN }));
    }
    let micros = (seconds * 1e6).round_ties_even() + (EPOCH_1970 * DAY) as f64;
    // Whole seconds are exact even where a double's microseconds are not.
    let exact = if seconds.fract() == 0.0 && seconds.abs() < 9e12 {
        seconds as i64 * SECOND + EPOCH_1970 * DAY
    } else {
        micros as i64
    };
    let (days, time) = split_timestamp(exact);
    join_timestamp(days, time)
        .map(Datum::Timestamptz)
        .ok_or_else(|| SqlError::datetime_field_overflow(format!("timestamp out of range: \"{seconds}\"")))
}

fn justify_days(i: &Span) -> Result<Span> {
    let range = || SqlError::datetime_field_overflow("interval out of range");
    let mut months = i.months.checked_add(i.days / 30).ok_or_else(range)?;
    let mut days = i.days % 30;
    if months > 0 && days < 0 {
        (months, days) = (months - 1, days + 30);
    } else if months < 0 && days > 0 {
        (months, days) = (months + 1, days - 30);
    }
    Ok(Span { months, days, micros: i.micros })
}

fn justify_interval(i: &Span) -> Result<Span> {
    let range = || SqlError::datetime_field_overflow("interval out of range");
    let mut j = Span { months: i.months, days: i.days, micros: i.micros % DAY };
    j.days = i32::try_from(i64::from(j.days) + i.micros / DAY).map_err(|_| range())?;
    j.months = j.months.checked_add(j.days / 30).ok_or_else(range)?;
    j.days %= 30;
    if j.months > 0 && (j.days < 0 || (j.days == 0 && j.micros < 0)) {
        (j.months, j.days) = (j.months - 1, j.days + 30);
    } else if j.months < 0 && (j.days > 0 || (j.days == 0 && j.micros > 0)) {
        (j.months, j.days) = (j.months + 1, j.days - 30);
    }
    if j.days > 0 && j.micros < 0 {
        (j.days, j.micros) = (j.days - 1, j.micros + DAY);
    } else if j.days < 0 && j.micros > 0 {
        (j.days, j.micros) = (j.days + 1, j.micros - DAY);
    }
    Ok(j)
}

/// The start of the bin of `stride` that a timestamp lies in, counted from an origin.
fn date_bin(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let stride = interval(&a[0])?;
    if stride.months != 0 {
        return Err(SqlError::feature_not_supported(
            "timestamps cannot be binned into intervals containing months or years",
        ));
    }
    let width = i64::from(stride.days)
        .checked_mul(DAY)
        .and_then(|days| days.checked_add(stride.micros))
        .ok_or_else(|| SqlError::datetime_field_overflow("interval out of range"))?;
    if width <= 0 {
        return Err(SqlError::datetime_field_overflow("stride must be greater than zero"));
    }
    let (value, origin) = (micros(&a[1])?, micros(&a[2])?);
    if matches!(value, i64::MAX | i64::MIN) {
        return Ok(a[1].clone());
    }
    if matches!(origin, i64::MAX | i64::MIN) {
        return Err(SqlError::datetime_field_overflow("origin out of range"));
    }
    let behind = (i128::from(value) - i128::from(origin)).rem_euclid(i128::from(width));
    let bin = i128::from(value) - behind;
    let bin = i64::try_from(bin).map_err(|_| SqlError::datetime_field_overflow("timestamp out of range"))?;
    Ok(match &a[1] {
        Datum::Timestamptz(_) => Datum::Timestamptz(bin),
        _ => Datum::Timestamp(bin),
    })
}

fn local_now(c: &Call<'_>) -> i64 {
    c.context.timezone().to_local(c.context.transaction_timestamp)
}

/// Rounds to so many decimals of a second, as `current_timestamp(3)` asks.
fn to_precision(value: i64, digits: &Datum) -> Result<i64> {
    Ok(round_micros(value, int(digits)?.clamp(0, 6) as u8))
}

fn overlaps(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let end = |start: &Datum, end: &Datum| -> Result<i64> {
        match end {
            Datum::Interval(i) => {
                let zone = matches!(start, Datum::Timestamptz(_)).then(|| c.context.timezone());
                add_interval(instant(start)?, i, zone)
            }
            other => instant(other),
        }
    };
    let (s1, e1, s2, e2) = (instant(&a[0])?, end(&a[0], &a[1])?, instant(&a[2])?, end(&a[2], &a[3])?);
    let ((s1, e1), (s2, e2)) = ((s1.min(e1), s1.max(e1)), (s2.min(e2), s2.max(e2)));
    Ok(Datum::Bool(if s1 == s2 {
        true
    } else if s1 > s2 {
        s1 < e2
    } else {
        s2 < e1
    }))
}

fn instant(d: &Datum) -> Result<i64> {
    match d {
        Datum::Date(v) => date_to_timestamp(*v),
        other => micros(other),
    }
}

fn is_finite(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    Ok(Datum::Bool(match &a[0] {
        Datum::Date(d) => *d != i32::MAX && *d != i32::MIN,
        Datum::Interval(_) => true,
        other => !matches!(micros(other)?, i64::MAX | i64::MIN),
    }))
}

/// A clock that shows the transaction's start.
macro_rules! transaction_clock {
    ($($name:literal),*) => {
        &[$(
            function($name, &[], Timestamptz, |_, c| Ok(Datum::Timestamptz(c.context.transaction_timestamp))).stable(),
            function($name, &[Int4], Timestamptz, |a, c| {
                Ok(Datum::Timestamptz(to_precision(c.context.transaction_timestamp, &a[0])?))
            })
            .stable(),
        )*]
    };
}

/// `now()` and its like.
pub(super) static CLOCKS: &[ScalarFunction] =
    transaction_clock!["now", "current_timestamp", "transaction_timestamp"];

macro_rules! fields {
    ($($ty:expr),*) => {
        &[$(
            function("extract", &[Text, $ty], Numeric, extract_numeric).stable(),
            function("date_part", &[Text, $ty], Float8, date_part).stable(),
        )*]
    };
}

/// `extract` and `date_part`.
pub(super) static FIELDS: &[ScalarFunction] = fields![Timestamptz, Timestamp, Date, Time, Timetz, Interval];

/// The other functions of this family.
pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    function("statement_timestamp", &[], Timestamptz, |_, c| {
        Ok(Datum::Timestamptz(c.context.statement_timestamp))
    })
    .stable(),
    function("clock_timestamp", &[], Timestamptz, |_, _| Ok(Datum::Timestamptz(current_timestamp())))
        .volatile(),
    function("timeofday", &[], Text, |_, c| {
        let now = Datum::Timestamptz(current_timestamp());
        Ok(Datum::text(to_text(&now, &amphora_storage::DataType::Timestamptz(None), &c.context.format)))
    })
    .volatile(),
    function("localtimestamp", &[], Timestamp, |_, c| Ok(Datum::Timestamp(local_now(c)))).stable(),
    function("localtimestamp", &[Int4], Timestamp, |a, c| {
        Ok(Datum::Timestamp(to_precision(local_now(c), &a[0])?))
    })
    .stable(),
    function("current_date", &[], Date, |_, c| Ok(Datum::Date(split_timestamp(local_now(c)).0 as i32)))
        .stable(),
    function("current_time", &[], Timetz, |_, c| {
        let west = -c.context.timezone().offset_at(c.context.transaction_timestamp);
        Ok(Datum::Timetz(ZonedTime { micros: split_timestamp(local_now(c)).1, west }))
    })
    .stable(),
    function("current_time", &[Int4], Timetz, |a, c| {
        let west = -c.context.timezone().offset_at(c.context.transaction_timestamp);
        Ok(Datum::Timetz(ZonedTime { micros: to_precision(split_timestamp(local_now(c)).1, &a[0])?, west }))
    })
    .stable(),
    function("localtime", &[Int4], Time, |a, c| {
        Ok(Datum::Time(to_precision(split_timestamp(local_now(c)).1, &a[0])?))
    })
    .stable(),
    function("localtime", &[], Time, |_, c| Ok(Datum::Time(split_timestamp(local_now(c)).1))).stable(),
    function("date_trunc", &[Text, Timestamp], Timestamp, |a, _| {
        Ok(Datum::Timestamp(truncate(str_of(&a[0])?, micros(&a[1])?, "timestamp without time zone")?))
    }),
    function("date_trunc", &[Text, Timestamptz], Timestamptz, |a, c| {
        trunc_zoned(str_of(&a[0])?, micros(&a[1])?, c.context.timezone())
    })
    .stable(),
    function("date_trunc", &[Text, Timestamptz, Text], Timestamptz, |a, _| {
        trunc_zoned(str_of(&a[0])?, micros(&a[1])?, &zone_named(str_of(&a[2])?)?)
    }),
    function("date_trunc", &[Text, Interval], Interval, trunc_interval),
    function("date_bin", &[Interval, Timestamp, Timestamp], Timestamp, date_bin),
    function("date_bin", &[Interval, Timestamptz, Timestamptz], Timestamptz, date_bin),
    function("timezone", &[Text, Timestamp], Timestamptz, at_zone),
    function("timezone", &[Text, Timestamptz], Timestamp, at_zone),
    function("timezone", &[Interval, Timestamp], Timestamptz, at_zone),
    function("timezone", &[Interval, Timestamptz], Timestamp, at_zone),
    function("timezone", &[Text, Timetz], Timetz, time_at_zone).stable(),
    function("timezone", &[Interval, Timetz], Timetz, time_at_zone).stable(),
    function("age", &[Timestamptz, Timestamptz], Interval, age).stable(),
    function("age", &[Timestamp, Timestamp], Interval, age),
    function("age", &[Timestamptz], Interval, age).stable(),
    function("age", &[Timestamp], Interval, age).stable(),
    function("make_date", &[Int4, Int4, Int4], Date, |a, _| Ok(Datum::Date(make_days(a)?))),
    function("make_time", &[Int4, Int4, Float8], Time, |a, _| {
        Ok(Datum::Time(make_clock(&a[0], &a[1], &a[2])?))
    }),
    function("make_timestamp", &[Int4, Int4, Int4, Int4, Int4, Float8], Timestamp, |a, _| {
        Ok(Datum::Timestamp(make_local(a)?))
    }),
    function("make_timestamptz", &[Int4, Int4, Int4, Int4, Int4, Float8], Timestamptz, |a, c| {
        Ok(Datum::Timestamptz(c.context.timezone().to_utc(make_local(a)?)))
    })
    .stable(),
    function("make_timestamptz", &[Int4, Int4, Int4, Int4, Int4, Float8, Text], Timestamptz, |a, _| {
        Ok(Datum::Timestamptz(zone_named(str_of(&a[6])?)?.to_utc(make_local(a)?)))
    }),
    function("make_interval", &[], Interval, make_interval),
    function("make_interval", &[Int4], Interval, make_interval),
    function("make_interval", &[Int4, Int4], Interval, make_interval),
    function("make_interval", &[Int4, Int4, Int4], Interval, make_interval),
    function("make_interval", &[Int4, Int4, Int4, Int4], Interval, make_interval),
    function("make_interval", &[Int4, Int4, Int4, Int4, Int4], Interval, make_interval),
    function("make_interval", &[Int4, Int4, Int4, Int4, Int4, Int4], Interval, make_interval),
    function("make_interval", &[Int4, Int4, Int4, Int4, Int4, Int4, Float8], Interval, make_interval),
    function("to_timestamp", &[Float8], Timestamptz, from_epoch),
    function("justify_hours", &[Interval], Interval, |a, _| Ok(span(justify_hours(interval(&a[0])?)?))),
    function("justify_days", &[Interval], Interval, |a, _| Ok(span(justify_days(interval(&a[0])?)?))),
    function("justify_interval", &[Interval], Interval, |a, _| Ok(span(justify_interval(interval(&a[0])?)?))),
    function("isfinite", &[Date], Bool, is_finite),
    function("isfinite", &[Timestamp], Bool, is_finite),
    function("isfinite", &[Timestamptz], Bool, is_finite),
    function("isfinite", &[Interval], Bool, is_finite),
    function("overlaps", &[Timestamp, Timestamp, Timestamp, Timestamp], Bool, overlaps),
    function("overlaps", &[Timestamptz, Timestamptz, Timestamptz, Timestamptz], Bool, overlaps),
    function("overlaps", &[Timestamp, Interval, Timestamp, Interval], Bool, overlaps),
    function("overlaps", &[Timestamptz, Interval, Timestamptz, Interval], Bool, overlaps).stable(),
    // Casts that are also written as functions.
    function("date", &[Timestamp], Date, |a, _| {
        Ok(Datum::Date(match micros(&a[0])? {
            i64::MAX => i32::MAX,
            i64::MIN => i32::MIN,
            t => split_timestamp(t).0 as i32,
        }))
    }),
    function("date", &[Timestamptz], Date, |a, c| {
        Ok(Datum::Date(split_timestamp(c.context.timezone().to_local(micros(&a[0])?)).0 as i32))
    })
    .stable(),
    function("date", &[Date], Date, |a, _| Ok(Datum::Date(date(&a[0])?))),
];

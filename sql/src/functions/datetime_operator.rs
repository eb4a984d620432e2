//! Date and time arithmetic.

use std::sync::Arc;

use amphora_storage::Datum;
use amphora_storage::datum::{Interval as Span, Timetz as ZonedTime};

use super::arithmetic::{float, int, wrong_kind};
use super::signature::Ty::*;
use super::{Call, ScalarFunction, function};
use crate::error::{Result, SqlError};
use crate::types::{
    DAY, TimeZone, civil_from_days, date_from_civil, days_in_month, join_timestamp, split_timestamp,
};

fn timestamp_range() -> SqlError {
    SqlError::datetime_field_overflow("timestamp out of range")
}

fn interval_range() -> SqlError {
    SqlError::datetime_field_overflow("interval out of range")
}

pub(super) fn interval(d: &Datum) -> Result<&Span> {
    match d {
        Datum::Interval(i) => Ok(i),
        _ => Err(wrong_kind()),
    }
}

pub(super) fn micros(d: &Datum) -> Result<i64> {
    match d {
        Datum::Timestamp(t) | Datum::Timestamptz(t) | Datum::Time(t) => Ok(*t),
        _ => Err(wrong_kind()),
    }
}

pub(super) fn date(d: &Datum) -> Result<i32> {
    match d {
        Datum::Date(v) => Ok(*v),
        _ => Err(wrong_kind()),
    }
}

pub(super) fn span(value: Span) -> Datum {
    Datum::Interval(Arc::new(value))
}

/// A local timestamp plus months (the day is cut to the month's last) and days.
fn add_calendar(local: i64, months: i32, days: i32) -> Result<i64> {
    let (mut day_number, time) = split_timestamp(local);
    if months != 0 {
        let civil = civil_from_days(day_number);
        let total = i64::from(civil.year) * 12 + i64::from(civil.month) - 1 + i64::from(months);
        let year = i32::try_from(total.div_euclid(12)).map_err(|_| timestamp_range())?;
        let month = total.rem_euclid(12) as i32 + 1;
        let day = civil.day.min(days_in_month(year, month));
        day_number = i64::from(date_from_civil(year, month, day).ok_or_else(timestamp_range)?);
    }
    join_timestamp(day_number + i64::from(days), time).ok_or_else(timestamp_range)
}

/// A timestamp plus an interval. With a zone it is a `timestamptz`: months and days are counted on the
/// zone's clock, so that a day across a change of its offset is not 24 hours.
pub(crate) fn add_interval(value: i64, interval: &Span, zone: Option<&TimeZone>) -> Result<i64> {
    if value == i64::MAX || value == i64::MIN {
        return Ok(value);
    }
    let moved = if interval.months == 0 && interval.days == 0 {
        value
    } else {
        match zone {
            Some(zone) => zone.to_utc(add_calendar(zone.to_local(value), interval.months, interval.days)?),
            None => add_calendar(value, interval.months, interval.days)?,
        }
    };
    let sum = moved.checked_add(interval.micros).ok_or_else(timestamp_range)?;
    let (days, time) = split_timestamp(sum);
    join_timestamp(days, time).ok_or_else(timestamp_range)
}

pub(super) fn negate(i: &Span) -> Result<Span> {
    Ok(Span {
        months: i.months.checked_neg().ok_or_else(interval_range)?,
        days: i.days.checked_neg().ok_or_else(interval_range)?,
        micros: i.micros.checked_neg().ok_or_else(interval_range)?,
    })
}

fn sum(a: &Span, b: &Span) -> Result<Datum> {
    Ok(span(Span {
        months: a.months.checked_add(b.months).ok_or_else(interval_range)?,
        days: a.days.checked_add(b.days).ok_or_else(interval_range)?,
        micros: a.micros.checked_add(b.micros).ok_or_else(interval_range)?,
    }))
}

/// An interval times a number: what is less than a month becomes days of a 30-day month, what is less
/// than a day becomes time.
pub(super) fn scale_interval(i: &Span, factor: f64) -> Result<Datum> {
    scale(i, |v| v * factor)
}

/// An interval divided by a count, for averages.
pub(super) fn multiply_interval(i: &Span, factor: f64) -> Result<Datum> {
    scale(i, |v| v * factor)
}

pub(super) fn divide_interval(i: &Span, divisor: f64) -> Result<Datum> {
    scale(i, |v| v / divisor)
}

fn scale(i: &Span, by: impl Fn(f64) -> f64) -> Result<Datum> {
    let round6 = |v: f64| (v * 1e6).round_ties_even() / 1e6;
    let in_range = |v: f64| !v.is_nan() && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&v);
    let months = by(f64::from(i.months));
    let days = by(f64::from(i.days));
    if !in_range(months) || !in_range(days) {
        return Err(interval_range());
    }
    let month_days = round6((months - months.trunc()) * 30.0);
    let mut seconds = round6((days - days.trunc() + month_days - month_days.trunc()) * 86_400.0);
    let mut whole_days = days.trunc() as i64;
    // A fraction that rounds to a day is one.
    if seconds.abs() >= 86_400.0 {
        let carried = (seconds / 86_400.0).trunc();
        whole_days += carried as i64;
        seconds -= carried * 86_400.0;
    }
    whole_days += month_days.trunc() as i64;
    let micros = (by(i.micros as f64) + seconds * 1e6).round_ties_even();
    if micros.is_nan() || micros.abs() >= 9.2e18 {
        return Err(interval_range());
    }
    Ok(span(Span {
        months: months.trunc() as i32,
        days: i32::try_from(whole_days).map_err(|_| interval_range())?,
        micros: micros as i64,
    }))
}

/// Whole 24 hours become days, as subtraction of timestamps shows them.
pub(super) fn justify_hours(i: &Span) -> Result<Span> {
    let mut days = i64::from(i.days) + i.micros / DAY;
    let mut micros = i.micros % DAY;
    if days > 0 && micros < 0 {
        micros += DAY;
        days -= 1;
    } else if days < 0 && micros > 0 {
        micros -= DAY;
        days += 1;
    }
    Ok(Span { months: i.months, days: i32::try_from(days).map_err(|_| interval_range())?, micros })
}

fn subtract_timestamps(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (x, y) = (micros(&a[0])?, micros(&a[1])?);
    if [x, y].iter().any(|t| *t == i64::MAX || *t == i64::MIN) {
        return Err(SqlError::datetime_field_overflow("cannot subtract infinite timestamps"));
    }
    let difference = x.checked_sub(y).ok_or_else(interval_range)?;
    Ok(span(justify_hours(&Span { months: 0, days: 0, micros: difference })?))
}

fn date_plus(days: i32, delta: i64) -> Result<Datum> {
    if days == i32::MAX || days == i32::MIN {
        return Ok(Datum::Date(days));
    }
    let sum = i64::from(days) + delta;
    let last = i32::MAX - 2_451_545;
    i32::try_from(sum)
        .ok()
        .filter(|d| (-2_451_545..last).contains(d))
        .map(Datum::Date)
        .ok_or_else(|| SqlError::datetime_field_overflow("date out of range"))
}

pub(super) fn date_to_timestamp(days: i32) -> Result<i64> {
    match days {
        i32::MAX => Ok(i64::MAX),
        i32::MIN => Ok(i64::MIN),
        d => join_timestamp(i64::from(d), 0)
            .ok_or_else(|| SqlError::datetime_field_overflow("date out of range for timestamp")),
    }
}

fn subtract_dates(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (x, y) = (date(&a[0])?, date(&a[1])?);
    if [x, y].iter().any(|d| *d == i32::MAX || *d == i32::MIN) {
        return Err(SqlError::datetime_field_overflow("cannot subtract infinite dates"));
    }
    x.checked_sub(y)
        .map(Datum::Int4)
        .ok_or_else(|| SqlError::numeric_value_out_of_range("integer out of range"))
}

fn date_interval(d: &Datum, i: &Span) -> Result<Datum> {
    Ok(Datum::Timestamp(add_interval(date_to_timestamp(date(d)?)?, i, None)?))
}

fn time_interval(time: i64, i: &Span) -> Datum {
    Datum::Time((time + i.micros % DAY).rem_euclid(DAY))
}

fn local(d: &Datum, i: &Span) -> Result<Datum> {
    Ok(Datum::Timestamp(add_interval(micros(d)?, i, None)?))
}

fn zoned(d: &Datum, i: &Span, c: &Call<'_>) -> Result<Datum> {
    Ok(Datum::Timestamptz(add_interval(micros(d)?, i, Some(c.context.timezone()))?))
}

fn date_and_time(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (d, t) = if matches!(a[0], Datum::Date(_)) { (&a[0], &a[1]) } else { (&a[1], &a[0]) };
    let start = date_to_timestamp(date(d)?)?;
    if start == i64::MAX || start == i64::MIN {
        return Ok(Datum::Timestamp(start));
    }
    start.checked_add(micros(t)?).map(Datum::Timestamp).ok_or_else(timestamp_range)
}

pub(super) fn timetz(d: &Datum) -> Result<ZonedTime> {
    match d {
        Datum::Timetz(t) => Ok(*t),
        _ => Err(SqlError::internal("not a time with time zone")),
    }
}

fn date_and_timetz(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (d, t) = if matches!(a[0], Datum::Date(_)) { (&a[0], &a[1]) } else { (&a[1], &a[0]) };
    let start = date_to_timestamp(date(d)?)?;
    if start == i64::MAX || start == i64::MIN {
        return Ok(Datum::Timestamptz(start));
    }
    start.checked_add(timetz(t)?.utc()).map(Datum::Timestamptz).ok_or_else(timestamp_range)
}

fn timetz_interval(t: &Datum, i: &Span) -> Result<Datum> {
    let ZonedTime { micros, west } = timetz(t)?;
    Ok(Datum::Timetz(ZonedTime { micros: (micros + i.micros % DAY).rem_euclid(DAY), west }))
}

fn divided(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let divisor = float(&a[1])?;
    if divisor == 0.0 {
        return Err(SqlError::division_by_zero());
    }
    // Dividing, not multiplying by the inverse, keeps the last digits PostgreSQL's.
    divide_interval(interval(&a[0])?, divisor)
}

/// The operators of dates, times, timestamps and intervals.
pub(super) static OPERATORS: &[ScalarFunction] = &[
    function("+", &[Date, Int4], Date, |a, _| date_plus(date(&a[0])?, int(&a[1])?)),
    function("+", &[Int4, Date], Date, |a, _| date_plus(date(&a[1])?, int(&a[0])?)),
    function("-", &[Date, Int4], Date, |a, _| date_plus(date(&a[0])?, -int(&a[1])?)),
    function("-", &[Date, Date], Int4, subtract_dates),
    function("+", &[Date, Interval], Timestamp, |a, _| date_interval(&a[0], interval(&a[1])?)),
    function("+", &[Interval, Date], Timestamp, |a, _| date_interval(&a[1], interval(&a[0])?)),
    function("-", &[Date, Interval], Timestamp, |a, _| date_interval(&a[0], &negate(interval(&a[1])?)?)),
    function("+", &[Date, Time], Timestamp, date_and_time),
    function("+", &[Time, Date], Timestamp, date_and_time),
    function("+", &[Date, Timetz], Timestamptz, date_and_timetz),
    function("+", &[Timetz, Date], Timestamptz, date_and_timetz),
    function("+", &[Timetz, Interval], Timetz, |a, _| timetz_interval(&a[0], interval(&a[1])?)),
    function("+", &[Interval, Timetz], Timetz, |a, _| timetz_interval(&a[1], interval(&a[0])?)),
    function("-", &[Timetz, Interval], Timetz, |a, _| timetz_interval(&a[0], &negate(interval(&a[1])?)?)),
    function("+", &[Time, Interval], Time, |a, _| Ok(time_interval(micros(&a[0])?, interval(&a[1])?))),
    function("+", &[Interval, Time], Time, |a, _| Ok(time_interval(micros(&a[1])?, interval(&a[0])?))),
    function("-", &[Time, Interval], Time, |a, _| {
        Ok(time_interval(micros(&a[0])?, &negate(interval(&a[1])?)?))
    }),
    function("-", &[Time, Time], Interval, |a, _| {
        Ok(span(Span { months: 0, days: 0, micros: micros(&a[0])? - micros(&a[1])? }))
    }),
    function("+", &[Timestamp, Interval], Timestamp, |a, _| local(&a[0], interval(&a[1])?)),
    function("+", &[Interval, Timestamp], Timestamp, |a, _| local(&a[1], interval(&a[0])?)),
    function("-", &[Timestamp, Interval], Timestamp, |a, _| local(&a[0], &negate(interval(&a[1])?)?)),
    function("-", &[Timestamp, Timestamp], Interval, subtract_timestamps),
    function("+", &[Timestamptz, Interval], Timestamptz, |a, c| zoned(&a[0], interval(&a[1])?, c)).stable(),
    function("+", &[Interval, Timestamptz], Timestamptz, |a, c| zoned(&a[1], interval(&a[0])?, c)).stable(),
    function("-", &[Timestamptz, Interval], Timestamptz, |a, c| zoned(&a[0], &negate(interval(&a[1])?)?, c))
        .stable(),
    function("-", &[Timestamptz, Timestamptz], Interval, subtract_timestamps),
    function("+", &[Interval, Interval], Interval, |a, _| sum(interval(&a[0])?, interval(&a[1])?)),
    function("-", &[Interval, Interval], Interval, |a, _| sum(interval(&a[0])?, &negate(interval(&a[1])?)?)),
    function("-", &[Interval], Interval, |a, _| Ok(span(negate(interval(&a[0])?)?))),
    function("*", &[Interval, Float8], Interval, |a, _| scale_interval(interval(&a[0])?, float(&a[1])?)),
    function("*", &[Float8, Interval], Interval, |a, _| scale_interval(interval(&a[1])?, float(&a[0])?)),
    function("/", &[Interval, Float8], Interval, divided),
];

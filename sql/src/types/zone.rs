//! Time zones: names of the tz database, abbreviations and fixed offsets.

use chrono::{DateTime, NaiveDateTime, Offset, TimeZone as _, Utc};

use amphora_storage::datum::Interval;

use super::datetime::DAY;
use super::interval::parse_interval;
use crate::error::{Result, SqlError};

/// Seconds from 1970 to 2000.
const EPOCH_2000: i64 = 946_684_800;

/// How far from Greenwich a zone given as a number may be, in seconds.
const MAX_OFFSET: i64 = 167 * 3600;

/// A session's or value's time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeZone {
    /// A zone of the tz database
    Named(chrono_tz::Tz),
    /// Seconds east of Greenwich, and the name it was given by
    Fixed(i32, String),
}

/// Abbreviations of PostgreSQL's default set that are in wide use, with seconds east of Greenwich.
const ABBREVIATIONS: &[(&str, i32)] = &[
    ("utc", 0),
    ("gmt", 0),
    ("z", 0),
    ("zulu", 0),
    ("ut", 0),
    ("wet", 0),
    ("bst", 3600),
    ("west", 3600),
    ("cet", 3600),
    ("met", 3600),
    ("cest", 7200),
    ("eet", 7200),
    ("eest", 10800),
    ("msk", 10800),
    ("ist", 7200),
    ("jst", 32400),
    ("kst", 32400),
    ("est", -18000),
    ("edt", -14400),
    ("cst", -21600),
    ("cdt", -18000),
    ("mst", -25200),
    ("mdt", -21600),
    ("pst", -28800),
    ("pdt", -25200),
    ("akst", -32400),
    ("akdt", -28800),
    ("hst", -36000),
    ("nzst", 43200),
    ("nzdt", 46800),
    ("aest", 36000),
    ("aedt", 39600),
    ("awst", 28800),
];

impl TimeZone {
    /// Coordinated universal time.
    pub const UTC: TimeZone = TimeZone::Named(chrono_tz::UTC);

    /// The zone of this name, whatever its case; an abbreviation; or a POSIX zone without summer time
    /// (`UTC+3`, `<+05>-05`, `-08`), whose offset counts west of Greenwich.
    pub fn parse(name: &str) -> Option<TimeZone> {
        let name = name.trim();
        if name.eq_ignore_ascii_case("utc") {
            return Some(TimeZone::UTC);
        }
        if let Ok(tz) = name.parse::<chrono_tz::Tz>() {
            return Some(TimeZone::Named(tz));
        }
        if let Some(offset) = TimeZone::abbreviation(name) {
            return Some(TimeZone::Fixed(offset, name.to_ascii_uppercase()));
        }
        if let Some((_, offset)) = posix(name) {
            return Some(TimeZone::Fixed(offset, name.to_string()));
        }
        let found = chrono_tz::TZ_VARIANTS.iter().find(|tz| tz.name().eq_ignore_ascii_case(name))?;
        Some(TimeZone::Named(*found))
    }

    /// What `SET timezone` takes besides the names: hours east of Greenwich as a number, or `INTERVAL '…'`.
    pub fn setting(value: &str) -> Result<Option<TimeZone>> {
        let seconds = if let Some(text) = interval_literal(value) {
            let Interval { months, days, micros } = parse_interval(text)?;
            for (amount, unit) in [(months, "months"), (days, "days")] {
                if amount != 0 {
                    let error = format!("invalid value for parameter \"TimeZone\": \"{value}\"");
                    return Err(SqlError::invalid_parameter_value(error)
                        .with_detail(format!("Cannot specify {unit} in time zone interval.")));
                }
            }
            micros / 1_000_000
        } else {
            match value.parse::<f64>() {
                Ok(hours) if hours.is_finite() => (hours * 3600.0) as i64,
                _ => return Ok(TimeZone::parse(value)),
            }
        };
        TimeZone::east(seconds).map(Some).ok_or_else(|| {
            let error = format!("invalid value for parameter \"TimeZone\": \"{value}\"");
            SqlError::invalid_parameter_value(error).with_detail("UTC timezone offset is out of range.")
        })
    }

    /// The zone this many seconds east of Greenwich, named as PostgreSQL names it: `<+05:30>-05:30`. None if
    /// it is too far from there.
    pub fn east(seconds: i64) -> Option<TimeZone> {
        if seconds.abs() > MAX_OFFSET {
            return None;
        }
        let clock = |sign: char| {
            let (h, m, s) = (seconds.abs() / 3600, seconds.abs() / 60 % 60, seconds.abs() % 60);
            match (m, s) {
                (0, 0) => format!("{sign}{h:02}"),
                (_, 0) => format!("{sign}{h:02}:{m:02}"),
                _ => format!("{sign}{h:02}:{m:02}:{s:02}"),
            }
        };
        let (east, west) = if seconds < 0 { ('-', '+') } else { ('+', '-') };
        Some(TimeZone::Fixed(seconds as i32, format!("<{}>{}", clock(east), clock(west))))
    }

    /// Seconds east of Greenwich of an abbreviation such as `EST`.
    pub fn abbreviation(name: &str) -> Option<i32> {
        let found = ABBREVIATIONS.iter().find(|(a, _)| a.eq_ignore_ascii_case(name))?;
        Some(found.1)
    }

    /// The name, as `SHOW timezone` prints it.
    pub fn name(&self) -> String {
        match self {
            TimeZone::Named(tz) => tz.name().to_string(),
            TimeZone::Fixed(_, name) => name.clone(),
        }
    }

    /// Seconds east of Greenwich at an instant (microseconds since 2000-01-01 UTC).
    pub fn offset_at(&self, utc: i64) -> i32 {
        match self {
            TimeZone::Fixed(offset, _) => *offset,
            TimeZone::Named(chrono_tz::UTC) => 0,
            TimeZone::Named(tz) => tz.offset_from_utc_datetime(&naive(utc)).fix().local_minus_utc(),
        }
    }

    /// Seconds east of Greenwich at a local time (microseconds since local 2000-01-01). As in
    /// PostgreSQL, a time that was skipped takes the offset before the change, one that happened twice
    /// the offset after it.
    pub fn offset_at_local(&self, local: i64) -> i32 {
        match self {
            TimeZone::Fixed(offset, _) => *offset,
            TimeZone::Named(chrono_tz::UTC) => 0,
            TimeZone::Named(tz) => match tz.offset_from_local_datetime(&naive(local)) {
                chrono::LocalResult::Single(o) | chrono::LocalResult::Ambiguous(_, o) => {
                    o.fix().local_minus_utc()
                }
                chrono::LocalResult::None => self.offset_at(local.saturating_sub(DAY)),
            },
        }
    }

    /// The local time of an instant.
    pub fn to_local(&self, utc: i64) -> i64 {
        if utc == i64::MAX || utc == i64::MIN {
            return utc;
        }
        utc.saturating_add(i64::from(self.offset_at(utc)) * 1_000_000)
    }

    /// The instant of a local time.
    pub fn to_utc(&self, local: i64) -> i64 {
        if local == i64::MAX || local == i64::MIN {
            return local;
        }
        local.saturating_sub(i64::from(self.offset_at_local(local)) * 1_000_000)
    }

    /// The abbreviation in use at an instant: `CEST`, or the offset where the zone has none.
    pub fn abbreviation_at(&self, utc: i64) -> String {
        match self {
            TimeZone::Named(tz) => tz.offset_from_utc_datetime(&naive(utc)).to_string(),
            TimeZone::Fixed(_, name) => {
                posix(name).map_or(name.as_str(), |(abbreviation, _)| abbreviation).into()
            }
        }
    }
}

/// The text of `INTERVAL 'text'`.
fn interval_literal(value: &str) -> Option<&str> {
    let (word, rest) = value.split_at_checked("interval".len())?;
    let text = rest.trim_start().strip_prefix('\'')?.strip_suffix('\'')?;
    word.eq_ignore_ascii_case("interval").then_some(text)
}

/// A POSIX zone without summer time: its abbreviation and seconds east of Greenwich.
fn posix(text: &str) -> Option<(&str, i32)> {
    let (name, offset) = match text.strip_prefix('<') {
        Some(rest) => rest.split_once('>')?,
        None => text.split_at(text.find(|c: char| !c.is_ascii_alphabetic())?),
    };
    let (sign, digits) = match offset.strip_prefix('-') {
        Some(digits) => (1, digits),
        None => (-1, offset.strip_prefix('+').unwrap_or(offset)),
    };
    let mut seconds = 0;
    for (i, part) in digits.split(':').enumerate() {
        let (unit, most) = *[(3600, 24 * 7 - 1), (60, 59), (1, 59)].get(i)?;
        if part.is_empty() || part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let value: i32 = part.parse().ok()?;
        if value > most {
            return None;
        }
        seconds += unit * value;
    }
    Some((name, sign * seconds))
}

/// `+02`, `-3`, `+05:30`, `+0530`, `+05:30:15`: seconds east of Greenwich.
pub fn parse_offset(text: &str) -> Option<i32> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let field = |s: &str| if s.is_empty() || s.len() > 2 { None } else { s.parse::<i32>().ok() };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b':') {
        return None;
    }
    let (h, m, s) = if digits.contains(':') {
        let mut parts = digits.split(':');
        let h = field(parts.next()?)?;
        let m = field(parts.next().unwrap_or("0"))?;
        let s = field(parts.next().unwrap_or("0"))?;
        (h, m, s)
    } else {
        match digits.len() {
            1 | 2 => (field(digits)?, 0, 0),
            3 | 4 => {
                let split = digits.len() - 2;
                (field(&digits[..split])?, field(&digits[split..])?, 0)
            }
            6 => (field(&digits[..2])?, field(&digits[2..4])?, field(&digits[4..])?),
            _ => return None,
        }
    };
    if h > 15 || m > 59 || s > 59 {
        return None;
    }
    Some(sign * (h * 3600 + m * 60 + s))
}

/// The calendar time chrono knows nearest to this one; it does not reach as far as PostgreSQL.
fn naive(micros: i64) -> NaiveDateTime {
    let seconds = micros.div_euclid(1_000_000).saturating_add(EPOCH_2000);
    let clamped = seconds.clamp(-8_000_000_000_000, 8_000_000_000_000);
    DateTime::<Utc>::from_timestamp(clamped, 0).unwrap_or_default().naive_utc()
}

/// Microseconds since 2000-01-01 UTC, by this machine's clock.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX) - EPOCH_2000 * 1_000_000
}

//! PostgreSQL's types: their names, text and binary forms, modifiers and casts.
//!
//! ```text
//!   name ──names──▶ DataType          "abc" ──text──▶ Datum ──text──▶ "abc"
//!                                     bytes ─binary─▶ Datum ─binary─▶ bytes
//!   DataType × DataType ──cast──▶ may it be cast, and when      Datum ──cast──▶ Datum
//!   [DataType] ──category──▶ the one type of a UNION, CASE or ARRAY
//! ```
//!
//! A value does not carry its type, so everything here takes the [`DataType`] beside the datum. CRDT
//! types behave as their base types everywhere.

mod array;
mod binary;
mod calendar;
mod cast;
mod category;
mod datetime;
mod interval;
mod json_text;
mod modifier;
mod names;
mod number;
#[cfg(test)]
mod tests;
mod text;
mod zone;

use std::sync::Arc;

use amphora_storage::DataType;

use crate::error::Result;

pub(crate) use array::too_many_dimensions;
pub use array::{parse_array, parse_record};
pub use binary::{format_binary, parse_binary};
pub use calendar::{
    Civil, civil_from_days, days_from_civil, days_in_month, iso_week, iso_week_monday, weekday,
};
pub use cast::{CastContext, can_cast, can_coerce, cast};
pub use category::{Category, category, common_type, is_preferred};
pub use datetime::{
    DAY, HOUR, INFINITY_DATE, MINUTE, SECOND, date_from_civil, join_timestamp, month_number, parse_date,
    parse_time, parse_timestamp, parse_timestamptz, split_timestamp,
};
pub use interval::{IntervalStyle, format_interval, parse_interval};
pub use json_text::{parse_json, validate_json, write_json_string};
pub use modifier::coerce_to_modifier;
pub(crate) use modifier::round_micros;
pub use names::type_from_name;
pub use number::{format_float4, format_float8, parse_float4, parse_float8, parse_int, parse_numeric};
pub(crate) use text::parse_hex;
pub use text::{format, parse, to_iso_text, to_text};
pub use zone::TimeZone;

/// How `regclass`, `regproc`, `regnamespace` and `regrole` values get and give their names.
pub trait ObjectNames: Send + Sync {
    /// The name by which the object of this kind prints, qualified if it must be.
    fn name_of(&self, kind: &DataType, oid: u32) -> Option<String>;
    /// The OID of the object with this (perhaps qualified, perhaps quoted) name.
    fn oid_of(&self, kind: &DataType, name: &str) -> Result<Option<u32>>;
}

/// What text input and output depend on besides the type: the session's settings.
#[derive(Clone)]
pub struct FormatContext {
    /// `TimeZone`
    pub timezone: TimeZone,
    /// `extra_float_digits`; above 0 floats print as the shortest text that reads back the same
    pub extra_float_digits: i32,
    /// `IntervalStyle`
    pub interval_style: IntervalStyle,
    /// The transaction's start, for `'now'` and `'today'`: microseconds since 2000-01-01 UTC
    pub now: i64,
    /// The catalog's names, where there is a catalog
    pub names: Option<Arc<dyn ObjectNames>>,
}

impl Default for FormatContext {
    fn default() -> FormatContext {
        FormatContext {
            timezone: TimeZone::UTC,
            extra_float_digits: 1,
            interval_style: IntervalStyle::Postgres,
            now: zone::now(),
            names: None,
        }
    }
}

impl std::fmt::Debug for FormatContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FormatContext").field("timezone", &self.timezone).finish_non_exhaustive()
    }
}

/// Microseconds since 2000-01-01 UTC, by this machine's clock.
pub fn current_timestamp() -> i64 {
    zone::now()
}

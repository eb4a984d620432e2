//! `=`, `<>`, `<`, `<=`, `>`, `>=` for every type that has an order.
//!
//! A datum's own order is PostgreSQL's btree order of its type, so one function an operator serves nearly
//! all types. The exceptions compare across kinds: `date` with `timestamp` and `timestamptz`, and
//! `char(n)`, whose trailing spaces do not count.

use std::cmp::Ordering;

use amphora_storage::Datum;

use super::signature::Ty::*;
use super::{Call, ScalarFunction, function};
use crate::error::Result;
use crate::types::{DAY, TimeZone};

/// The order of two values that are not NULL: dates and timestamps by the instant they stand for,
/// everything else by its type's order.
pub fn compare(left: &Datum, right: &Datum, timezone: &TimeZone) -> Ordering {
    use Datum::{Date, Timestamp, Timestamptz};
    let day = |d: i32| match d {
        i32::MAX => i64::MAX,
        i32::MIN => i64::MIN,
        d => i64::from(d).saturating_mul(DAY),
    };
    match (left, right) {
        (Date(a), Timestamp(b)) => day(*a).cmp(b),
        (Timestamp(a), Date(b)) => a.cmp(&day(*b)),
        (Date(a), Timestamptz(b)) => timezone.to_utc(day(*a)).cmp(b),
        (Timestamptz(a), Date(b)) => a.cmp(&timezone.to_utc(day(*b))),
        (Timestamp(a), Timestamptz(b)) => timezone.to_utc(*a).cmp(b),
        (Timestamptz(a), Timestamp(b)) => a.cmp(&timezone.to_utc(*b)),
        (a, b) => a.cmp(b),
    }
}

/// `IS DISTINCT FROM`: like `<>`, but NULL is equal to NULL and to nothing else.
pub fn is_distinct(left: &Datum, right: &Datum) -> bool {
    left != right
}

fn eq(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    Ok(Datum::Bool(a[0] == a[1]))
}

fn ne(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    Ok(Datum::Bool(a[0] != a[1]))
}

fn lt(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    Ok(Datum::Bool(a[0] < a[1]))
}

fn le(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    Ok(Datum::Bool(a[0] <= a[1]))
}

fn gt(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    Ok(Datum::Bool(a[0] > a[1]))
}

fn ge(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    Ok(Datum::Bool(a[0] >= a[1]))
}

fn instants(a: &[Datum], c: &Call<'_>) -> Ordering {
    compare(&a[0], &a[1], c.context.timezone())
}

fn padded(a: &[Datum], _: &Call<'_>) -> Ordering {
    let trimmed = |d: &Datum| d.as_str().unwrap_or("").trim_end_matches(' ').to_string();
    trimmed(&a[0]).cmp(&trimmed(&a[1]))
}

/// The six operators of two types by their datums' own order.
macro_rules! ordered {
    ($(($left:expr, $right:expr)),* $(,)?) => {
        &[$(
            function("=", &[$left, $right], Bool, eq),
            function("<>", &[$left, $right], Bool, ne),
            function("<", &[$left, $right], Bool, lt),
            function("<=", &[$left, $right], Bool, le),
            function(">", &[$left, $right], Bool, gt),
            function(">=", &[$left, $right], Bool, ge),
        )*]
    };
}

/// The six operators of two types by an order of their own.
macro_rules! ordered_by {
    ($order:ident: $(($left:expr, $right:expr)),* $(,)?) => {
        &[$(
            function("=", &[$left, $right], Bool, |a, c| Ok(Datum::Bool($order(a, c).is_eq()))).stable(),
            function("<>", &[$left, $right], Bool, |a, c| Ok(Datum::Bool($order(a, c).is_ne()))).stable(),
            function("<", &[$left, $right], Bool, |a, c| Ok(Datum::Bool($order(a, c).is_lt()))).stable(),
            function("<=", &[$left, $right], Bool, |a, c| Ok(Datum::Bool($order(a, c).is_le()))).stable(),
            function(">", &[$left, $right], Bool, |a, c| Ok(Datum::Bool($order(a, c).is_gt()))).stable(),
            function(">=", &[$left, $right], Bool, |a, c| Ok(Datum::Bool($order(a, c).is_ge()))).stable(),
        )*]
    };
}

/// Types compared with themselves or with a narrower or wider one.
pub(super) static ORDERED: &[ScalarFunction] = ordered![
    (Bool, Bool),
    (Int2, Int2),
    (Int2, Int4),
    (Int2, Int8),
    (Int4, Int2),
    (Int4, Int4),
    (Int4, Int8),
    (Int8, Int2),
    (Int8, Int4),
    (Int8, Int8),
    (Float4, Float4),
    (Float4, Float8),
    (Float8, Float4),
    (Float8, Float8),
    (Numeric, Numeric),
    (Text, Text),
    (Name, Name),
    (Name, Text),
    (Text, Name),
    (Char, Char),
    (Bytea, Bytea),
    (Date, Date),
    (Time, Time),
    (Timetz, Timetz),
    (Timestamp, Timestamp),
    (Timestamptz, Timestamptz),
    (Interval, Interval),
    (Uuid, Uuid),
    (Jsonb, Jsonb),
    (Oid, Oid),
    (Record, Record),
    (AnyArray, AnyArray),
    (AnyEnum, AnyEnum),
];

/// Types compared across kinds.
pub(super) static ACROSS: &[ScalarFunction] = ordered_by![instants:
    (Date, Timestamp),
    (Timestamp, Date),
    (Date, Timestamptz),
    (Timestamptz, Date),
    (Timestamp, Timestamptz),
    (Timestamptz, Timestamp),
];

/// The order of `text_pattern_ops`: by bytes, as all text is ordered here.
pub(super) static PATTERN: &[ScalarFunction] = &[
    function("~<~", &[Text, Text], Bool, lt),
    function("~<=~", &[Text, Text], Bool, le),
    function("~>=~", &[Text, Text], Bool, ge),
    function("~>~", &[Text, Text], Bool, gt),
    function("~<~", &[Bpchar, Bpchar], Bool, |a, c| Ok(Datum::Bool(padded(a, c).is_lt()))),
    function("~<=~", &[Bpchar, Bpchar], Bool, |a, c| Ok(Datum::Bool(padded(a, c).is_le()))),
    function("~>=~", &[Bpchar, Bpchar], Bool, |a, c| Ok(Datum::Bool(padded(a, c).is_ge()))),
    function("~>~", &[Bpchar, Bpchar], Bool, |a, c| Ok(Datum::Bool(padded(a, c).is_gt()))),
];

/// `char(n)`, whose trailing spaces do not count.
pub(super) static PADDED: &[ScalarFunction] = ordered_by![padded: (Bpchar, Bpchar)];

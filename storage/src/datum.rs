//! One SQL value.
//!
//! A [`Datum`] carries its value but not its modifier; the [`DataType`] beside it says
//! whether a `Text` is a `text`, a `varchar(10)` or a `name`. It is three words wide and clones without
//! copying: what is long is shared.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use crate::array::{Array, Dimension};
use crate::json::Json;
use crate::numeric::Numeric;
use crate::types::DataType;
use crate::user_type::Label;

/// A row of values, in the order of the table's columns or of a query's output.
pub type Row = Vec<Datum>;

/// One SQL value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Datum {
    /// SQL's NULL, of any type
    Null,
    /// `boolean`
    Bool(bool),
    /// `smallint`
    Int2(i16),
    /// `integer`
    Int4(i32),
    /// `bigint`
    Int8(i64),
    /// `oid` and the `reg…` types
    Oid(u32),
    /// `real`
    Float4(f32),
    /// `double precision`
    Float8(f64),
    /// `numeric`
    Numeric(Arc<Numeric>),
    /// `text`, `varchar`, `char`, `name`, `"char"`, `json` (kept as it was written)
    Text(Arc<str>),
    /// `bytea`
    Bytea(Arc<[u8]>),
    /// `date`: days since 2000-01-01
    Date(i32),
    /// `time`: microseconds since midnight
    Time(i64),
    /// `timestamp`: microseconds since 2000-01-01 00:00
    Timestamp(i64),
    /// `timestamptz`: microseconds since 2000-01-01 00:00 UTC
    Timestamptz(i64),
    /// `interval`
    Interval(Arc<Interval>),
    /// `uuid`
    Uuid(Arc<[u8; 16]>),
    /// `jsonb`
    Jsonb(Arc<Json>),
    /// An array
    Array(Arc<Array>),
    /// A row value: `ROW(1, 'a')`
    Record(Arc<[Datum]>),
    /// `time with time zone`
    Timetz(Timetz),
    /// A value of an enumerated type
    Enum(Arc<Label>),
}

/// `interval`, as PostgreSQL keeps it: three fields that do not carry into each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Interval {
    /// months
    pub months: i32,
    /// days
    pub days: i32,
    /// microseconds
    pub micros: i64,
}

/// `time with time zone`: ordered by the instant it names, then by its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timetz {
    /// Microseconds since midnight, in its zone
    pub micros: i64,
    /// The zone: seconds west of Greenwich, as PostgreSQL keeps it
    pub west: i32,
}

impl Timetz {
    /// Microseconds since midnight in Greenwich; may be below zero or beyond a day.
    pub fn utc(&self) -> i64 {
        self.micros + i64::from(self.west) * 1_000_000
    }
}

impl Ord for Timetz {
    fn cmp(&self, other: &Timetz) -> Ordering {
        self.utc().cmp(&other.utc()).then_with(|| self.west.cmp(&other.west))
    }
}

impl PartialOrd for Timetz {
    fn partial_cmp(&self, other: &Timetz) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Interval {
    /// The length by which intervals are compared: a month is 30 days, a day 24 hours. Microseconds.
    pub fn comparable(&self) -> i128 {
        let days = i128::from(self.months) * 30 + i128::from(self.days);
        days * 86_400_000_000 + i128::from(self.micros)
    }
}

impl Datum {
    /// A `text` value.
    pub fn text(s: impl AsRef<str>) -> Datum {
        Datum::Text(Arc::from(s.as_ref()))
    }

    /// An array value of one dimension that begins at 1.
    pub fn array(element: DataType, items: Vec<Datum>) -> Datum {
        Datum::Array(Arc::new(Array::flat(element, items)))
    }

    /// A `uuid` value.
    pub fn uuid(bytes: [u8; 16]) -> Datum {
        Datum::Uuid(Arc::new(bytes))
    }

    /// A `numeric` value.
    pub fn numeric(n: Numeric) -> Datum {
        Datum::Numeric(Arc::new(n))
    }

    /// A `jsonb` value.
    pub fn jsonb(j: Json) -> Datum {
        Datum::Jsonb(Arc::new(j))
    }

    /// True of NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Datum::Null)
    }

    /// The text of a `Text` value.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Datum::Text(s) => Some(s),
            _ => None,
        }
    }

    /// Any integer or OID, widened.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Datum::Int2(v) => Some(i64::from(*v)),
            Datum::Int4(v) => Some(i64::from(*v)),
            Datum::Int8(v) => Some(*v),
            Datum::Oid(v) => Some(i64::from(*v)),
            _ => None,
        }
    }

    /// The value of a `Bool`.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Datum::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// Bytes this value holds in memory, to within what matters to a budget.
    pub fn memory(&self) -> usize {
        let own = std::mem::size_of::<Datum>();
        own + match self {
            Datum::Text(s) => s.len() + 16,
            Datum::Bytea(b) => b.len() + 16,
            Datum::Numeric(n) => n.memory() + 16,
            Datum::Jsonb(j) => j.memory() + 16,
            Datum::Array(a) => a.items.iter().map(Datum::memory).sum::<usize>() + 48,
            Datum::Record(r) => r.iter().map(Datum::memory).sum::<usize>() + 16,
            Datum::Uuid(_) | Datum::Interval(_) => 32,
            _ => 0,
        }
    }

    /// A rank of kinds, so that the order below is total even across kinds. NULL sorts last.
    fn rank(&self) -> u8 {
        match self {
            Datum::Bool(_) => 0,
            Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_) => 1,
            Datum::Oid(_) => 2,
            Datum::Float4(_) | Datum::Float8(_) => 3,
            Datum::Numeric(_) => 4,
            Datum::Text(_) => 5,
            Datum::Bytea(_) => 6,
            Datum::Date(_) => 7,
            Datum::Time(_) => 8,
            Datum::Timestamp(_) => 9,
            Datum::Timestamptz(_) => 10,
            Datum::Interval(_) => 11,
            Datum::Uuid(_) => 12,
            Datum::Jsonb(_) => 13,
            Datum::Array(_) => 14,
            Datum::Record(_) => 15,
            Datum::Timetz(_) => 16,
            Datum::Enum(_) => 17,
            Datum::Null => 255,
        }
    }
}

/// PostgreSQL's order of floats: all NaNs equal and greater than every number; -0 equals 0.
pub fn cmp_f64(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The order of an index: PostgreSQL's btree order within a type (text by bytes, as collation `C`),
/// NULL last, and an arbitrary but fixed order between kinds. Equal exactly when `=` is, except that
/// NULL equals NULL.
impl Ord for Datum {
    fn cmp(&self, other: &Datum) -> Ordering {
        use Datum::*;
        match (self, other) {
            (Bool(a), Bool(b)) => a.cmp(b),
            (Float4(a), Float4(b)) => cmp_f64(f64::from(*a), f64::from(*b)),
            (Float8(a), Float8(b)) => cmp_f64(*a, *b),
            (Float4(a), Float8(b)) => cmp_f64(f64::from(*a), *b),
            (Float8(a), Float4(b)) => cmp_f64(*a, f64::from(*b)),
            (Oid(a), Oid(b)) => a.cmp(b),
            (Numeric(a), Numeric(b)) => a.cmp(b),
            (Text(a), Text(b)) => a.cmp(b),
            (Bytea(a), Bytea(b)) => a.cmp(b),
            (Date(a), Date(b)) => a.cmp(b),
            (Time(a), Time(b)) => a.cmp(b),
            (Timetz(a), Timetz(b)) => a.cmp(b),
            (Enum(a), Enum(b)) => a.place.cmp(&b.place),
            (Timestamp(a), Timestamp(b)) => a.cmp(b),
            (Timestamptz(a), Timestamptz(b)) => a.cmp(b),
            (Interval(a), Interval(b)) => a.comparable().cmp(&b.comparable()),
            (Uuid(a), Uuid(b)) => a.cmp(b),
            (Jsonb(a), Jsonb(b)) => a.cmp(b),
            (Array(a), Array(b)) => a.cmp(b),
            (Record(a), Record(b)) => a.cmp(b),
            (Null, Null) => Ordering::Equal,
            (a, b) => match (a, b) {
                (Int2(_) | Int4(_) | Int8(_), Int2(_) | Int4(_) | Int8(_)) => a.as_i64().cmp(&b.as_i64()),
                _ => a.rank().cmp(&b.rank()),
            },
        }
    }
}

impl PartialOrd for Datum {
    fn partial_cmp(&self, other: &Datum) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Datum {
    fn eq(&self, other: &Datum) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Datum {}

/// Agrees with `==`: integers hash by value whatever their width, floats with -0 and NaN made one.
impl std::hash::Hash for Datum {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        use Datum::*;
        let float = |v: f64| if v.is_nan() { f64::NAN.to_bits() } else { (v + 0.0).to_bits() };
        self.rank().hash(state);
        match self {
            Null => {}
            Bool(v) => v.hash(state),
            Int2(_) | Int4(_) | Int8(_) => self.as_i64().hash(state),
            Oid(v) => v.hash(state),
            Float4(v) => float(f64::from(*v)).hash(state),
            Float8(v) => float(*v).hash(state),
            Numeric(v) => v.hash(state),
            Text(v) => v.hash(state),
            Bytea(v) => v.hash(state),
            Date(v) => v.hash(state),
            Time(v) | Timestamp(v) | Timestamptz(v) => v.hash(state),
            Timetz(v) => v.hash(state),
            Enum(v) => v.place.hash(state),
            Interval(v) => v.comparable().hash(state),
            Uuid(v) => v.hash(state),
            Jsonb(v) => v.hash(state),
            Array(v) => v.items.hash(state),
            Record(v) => v.hash(state),
        }
    }
}

//! The types a column can have.
//!
//! A [`DataType`] is what PostgreSQL calls a type together with its modifier (`varchar(10)`,
//! `numeric(8,2)`), or one of Amphora's CRDT types over a base type. Every type has the OID by which
//! clients know it; a CRDT type shows its base type's OID, so that every driver decodes it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::user_type::{DomainType, EnumType};

/// A column or expression type, with its modifier.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DataType {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric`, `numeric(precision, scale)`
    Numeric(Option<(u16, i16)>),
    /// `text`
    Text,
    /// `varchar`, `varchar(n)`; n in characters
    Varchar(Option<u32>),
    /// `char(n)`, blank-padded; 0 is `bpchar`, of any length
    Char(u32),
    /// PostgreSQL's `name`, used by the system catalogs
    Name,
    /// PostgreSQL's internal one-byte `"char"`, used by the system catalogs
    InternalChar,
    /// `bytea`
    Bytea,
    /// `date`
    Date,
    /// `time`, `time(p)`; p is how many digits of a second's fraction are kept, 0 to 6
    Time(Option<u8>),
    /// `timestamp`, `timestamp(p)`
    Timestamp(Option<u8>),
    /// `timestamptz`, `timestamptz(p)`
    Timestamptz(Option<u8>),
    /// `interval`, `interval(p)`, `interval year to month`
    Interval(Option<IntervalModifier>),
    /// `uuid`
    Uuid,
    /// `json`, kept as text
    Json,
    /// `jsonb`
    Jsonb,
    /// `oid`
    Oid,
    /// `regclass`: an OID that prints as a relation's name
    Regclass,
    /// `regtype`: an OID that prints as a type's name
    Regtype,
    /// `regproc`: an OID that prints as a function's name
    Regproc,
    /// `regnamespace`
    Regnamespace,
    /// `regrole`
    Regrole,
    /// An array, of any number of dimensions
    Array(Box<DataType>),
    /// A row of anonymous fields: what `ROW(…)` gives
    Record,
    /// `void`: what a function returns that returns nothing
    Void,
    /// The type of an untyped literal or parameter before the binder has decided
    Unknown,
    /// A mergeable column of a leaderless table; on a strong table the base type is used instead
    Crdt(Crdt),
    /// `int2vector`, of the system catalogs: an array of `smallint` counted from 0, without NULLs
    Int2vector,
    /// `oidvector`, of the system catalogs: an array of `oid` counted from 0, without NULLs
    Oidvector,
    /// `regprocedure`: an OID that prints as a function's name with its argument types
    Regprocedure,
    /// `regoper`: an OID that prints as an operator's name
    Regoper,
    /// `regoperator`: an OID that prints as an operator with its operand types
    Regoperator,
    /// `regcollation`: an OID that prints as a collation's name
    Regcollation,
    /// A row whose fields are known: what a table's name gives where a value stands. Never stored.
    Row(Arc<[(String, DataType)]>),
    /// `time with time zone`, `time(p) with time zone`
    Timetz(Option<u8>),
    /// An enumerated type that a user made
    Enum(Arc<EnumType>),
    /// A domain that a user made; expressions see its base type
    Domain(Arc<DomainType>),
}

/// What an `interval` column keeps: which fields, and how many digits of the seconds' fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IntervalModifier {
    /// The fields, as PostgreSQL's bits (`INTERVAL_MASK`); [`IntervalModifier::ALL`] if none was named
    pub fields: u16,
    /// Digits of the fraction, 0 to 6
    pub precision: Option<u8>,
}

impl IntervalModifier {
    /// All fields
    pub const ALL: u16 = 0x7fff;
    /// `year`
    pub const YEAR: u16 = 1 << 2;
    /// `month`
    pub const MONTH: u16 = 1 << 1;
    /// `day`
    pub const DAY: u16 = 1 << 3;
    /// `hour`
    pub const HOUR: u16 = 1 << 10;
    /// `minute`
    pub const MINUTE: u16 = 1 << 11;
    /// `second`
    pub const SECOND: u16 = 1 << 12;
    /// The fields from the greatest to the least, with their names.
    pub const FIELDS: [(u16, &'static str); 6] = [
        (Self::YEAR, "year"),
        (Self::MONTH, "month"),
        (Self::DAY, "day"),
        (Self::HOUR, "hour"),
        (Self::MINUTE, "minute"),
        (Self::SECOND, "second"),
    ];

    /// The fields from one to another: `day to second`. `None` if there is no such type in SQL.
    pub fn range(first: u16, last: u16) -> Option<u16> {
        let place = |field| Self::FIELDS.iter().position(|(f, _)| *f == field);
        let (from, to) = (place(first)?, place(last)?);
        // Years and months are apart from the others, whose lengths they do not know.
        if from > to || (from < 2 && to >= 2) {
            return None;
        }
        Some(Self::FIELDS[from..=to].iter().fold(0, |all, (f, _)| all | f))
    }

    /// True if the least field that is kept is at most `field`.
    pub fn keeps(&self, field: u16) -> bool {
        self.fields & field != 0
    }

    fn typmod(&self) -> i32 {
        (i32::from(self.fields) << 16) | self.precision.map_or(0xffff, i32::from)
    }

    fn from_typmod(typmod: i32) -> Option<IntervalModifier> {
        let fields = u16::try_from((typmod >> 16) & 0x7fff).ok()?;
        let precision = match typmod & 0xffff {
            0xffff => None,
            p => Some(u8::try_from(p).ok()?),
        };
        Some(IntervalModifier { fields, precision })
    }
}

/// ` year to month`, ` day to second(3)`, `(3)`: what follows `interval`.
impl std::fmt::Display for IntervalModifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.fields != Self::ALL {
            let mut named =
                Self::FIELDS.iter().filter(|(field, _)| self.keeps(*field)).map(|(_, name)| *name);
            if let Some(first) = named.next() {
                write!(f, " {first}")?;
            }
            if let Some(last) = named.next_back() {
                write!(f, " to {last}")?;
            }
        }
        match self.precision {
            Some(p) => write!(f, "({p})"),
            None => Ok(()),
        }
    }
}

/// The mergeable column types (`docs/leaderless.md`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Crdt {
    /// `crdt_counter`: a bigint to which every node adds
    Counter,
    /// `crdt_max(T)`: the greatest value ever written
    Max(Box<DataType>),
    /// `crdt_min(T)`: the least value ever written
    Min(Box<DataType>),
    /// `crdt_set(T)`: an add-wins set, read as `T[]`
    Set(Box<DataType>),
    /// `crdt_flag`: a boolean in which a concurrent enable wins
    Flag,
    /// `crdt_gcounter`: a bigint to which every node adds, and that never falls
    Gcounter,
    /// `crdt_sum(numeric)`, with the modifier of `numeric`
    Sum(Option<(u16, i16)>),
    /// `crdt_rset(T)`: a remove-wins set, read as `T[]`
    RemoveSet(Box<DataType>),
    /// `crdt_register(T)`: all values written concurrently, read as `T[]`
    Register(Box<DataType>),
    /// `crdt_map`: a JSON object that merges key by key
    Map,
}

impl Crdt {
    /// The type as which clients see a column of this kind.
    pub fn base(&self) -> DataType {
        match self {
            Crdt::Counter | Crdt::Gcounter => DataType::Int8,
            Crdt::Sum(modifier) => DataType::Numeric(*modifier),
            Crdt::Max(t) | Crdt::Min(t) => (**t).clone(),
            Crdt::Set(t) | Crdt::RemoveSet(t) | Crdt::Register(t) => DataType::Array(t.clone()),
            Crdt::Flag => DataType::Bool,
            Crdt::Map => DataType::Jsonb,
        }
    }
}

impl DataType {
    /// This type as expressions see it: CRDT types and domains become their base types, all others stay.
    pub fn base(&self) -> DataType {
        match self {
            DataType::Crdt(c) => c.base(),
            DataType::Domain(domain) => domain.base.base(),
            other => other.clone(),
        }
    }

    /// The type without its modifier: `varchar(10)` becomes `varchar`.
    pub fn unmodified(&self) -> DataType {
        match self {
            DataType::Numeric(_) => DataType::Numeric(None),
            DataType::Varchar(_) => DataType::Varchar(None),
            DataType::Char(_) => DataType::Char(0),
            DataType::Time(_) => DataType::Time(None),
            DataType::Timetz(_) => DataType::Timetz(None),
            DataType::Timestamp(_) => DataType::Timestamp(None),
            DataType::Timestamptz(_) => DataType::Timestamptz(None),
            DataType::Interval(_) => DataType::Interval(None),
            DataType::Array(t) => DataType::Array(Box::new(t.unmodified())),
            other => other.clone(),
        }
    }

    /// True of enumerated types and domains, and of arrays of them.
    pub fn is_user_made(&self) -> bool {
        match self {
            DataType::Enum(_) | DataType::Domain(_) => true,
            DataType::Array(element) => element.is_user_made(),
            _ => false,
        }
    }

    /// True of rows, whether their fields are known or not.
    pub fn is_record(&self) -> bool {
        matches!(self, DataType::Record | DataType::Row(_))
    }

    /// The fields of a row whose fields are known.
    pub fn fields(&self) -> Option<&[(String, DataType)]> {
        match self {
            DataType::Row(fields) => Some(fields),
            _ => None,
        }
    }

    /// An array of this type.
    pub fn array(self) -> DataType {
        DataType::Array(Box::new(self))
    }

    /// The OID in PostgreSQL's `pg_type`.
    pub fn oid(&self) -> u32 {
        match self {
            DataType::Bool => 16,
            DataType::Bytea => 17,
            DataType::InternalChar => 18,
            DataType::Name => 19,
            DataType::Int8 => 20,
            DataType::Int2 => 21,
            DataType::Int2vector => 22,
            DataType::Int4 => 23,
            DataType::Regproc => 24,
            DataType::Text => 25,
            DataType::Oid => 26,
            DataType::Oidvector => 30,
            DataType::Json => 114,
            DataType::Float4 => 700,
            DataType::Float8 => 701,
            DataType::Unknown => 705,
            DataType::Char(_) => 1042,
            DataType::Varchar(_) => 1043,
            DataType::Date => 1082,
            DataType::Time(_) => 1083,
            DataType::Timetz(_) => 1266,
            DataType::Timestamp(_) => 1114,
            DataType::Timestamptz(_) => 1184,
            DataType::Interval(_) => 1186,
            DataType::Numeric(_) => 1700,
            DataType::Regprocedure => 2202,
            DataType::Regoper => 2203,
            DataType::Regoperator => 2204,
            DataType::Regcollation => 4191,
            DataType::Regclass => 2205,
            DataType::Regtype => 2206,
            DataType::Record | DataType::Row(_) => 2249,
            DataType::Void => 2278,
            DataType::Uuid => 2950,
            DataType::Jsonb => 3802,
            DataType::Regnamespace => 4089,
            DataType::Regrole => 4096,
            DataType::Crdt(c) => c.base().oid(),
            DataType::Enum(ty) => ty.oid,
            DataType::Domain(ty) => ty.oid,
            DataType::Array(t) => match t.base() {
                DataType::Enum(ty) => ty.array,
                DataType::Bool => 1000,
                DataType::Bytea => 1001,
                DataType::InternalChar => 1002,
                DataType::Name => 1003,
                DataType::Int2 => 1005,
                DataType::Int4 => 1007,
                DataType::Regproc => 1008,
                DataType::Text => 1009,
                DataType::Char(_) => 1014,
                DataType::Varchar(_) => 1015,
                DataType::Int8 => 1016,
                DataType::Float4 => 1021,
                DataType::Float8 => 1022,
                DataType::Oid => 1028,
                DataType::Timestamp(_) => 1115,
                DataType::Date => 1182,
                DataType::Time(_) => 1183,
                DataType::Timetz(_) => 1270,
                DataType::Timestamptz(_) => 1185,
                DataType::Interval(_) => 1187,
                DataType::Json => 199,
                DataType::Numeric(_) => 1231,
                DataType::Regclass => 2210,
                DataType::Regtype => 2211,
                DataType::Uuid => 2951,
                DataType::Jsonb => 3807,
                DataType::Record | DataType::Row(_) => 2287,
                _ => 2277,
            },
        }
    }

    /// The unmodified type that has this OID, if Amphora has it.
    pub fn from_oid(oid: u32) -> Option<DataType> {
        Some(match oid {
            16 => DataType::Bool,
            17 => DataType::Bytea,
            18 => DataType::InternalChar,
            19 => DataType::Name,
            20 => DataType::Int8,
            21 => DataType::Int2,
            22 => DataType::Int2vector,
            23 => DataType::Int4,
            24 => DataType::Regproc,
            25 => DataType::Text,
            26 => DataType::Oid,
            30 => DataType::Oidvector,
            114 => DataType::Json,
            700 => DataType::Float4,
            701 => DataType::Float8,
            705 => DataType::Unknown,
            1042 => DataType::Char(0),
            1043 => DataType::Varchar(None),
            1082 => DataType::Date,
            1083 => DataType::Time(None),
            1266 => DataType::Timetz(None),
            1114 => DataType::Timestamp(None),
            1184 => DataType::Timestamptz(None),
            1186 => DataType::Interval(None),
            1700 => DataType::Numeric(None),
            2202 => DataType::Regprocedure,
            2203 => DataType::Regoper,
            2204 => DataType::Regoperator,
            4191 => DataType::Regcollation,
            2205 => DataType::Regclass,
            2206 => DataType::Regtype,
            2249 => DataType::Record,
            2278 => DataType::Void,
            2950 => DataType::Uuid,
            3802 => DataType::Jsonb,
            4089 => DataType::Regnamespace,
            4096 => DataType::Regrole,
            1000 => DataType::Bool.array(),
            1001 => DataType::Bytea.array(),
            1002 => DataType::InternalChar.array(),
            1003 => DataType::Name.array(),
            1005 => DataType::Int2.array(),
            1007 => DataType::Int4.array(),
            1008 => DataType::Regproc.array(),
            1009 => DataType::Text.array(),
            1014 => DataType::Char(0).array(),
            1015 => DataType::Varchar(None).array(),
            1016 => DataType::Int8.array(),
            1021 => DataType::Float4.array(),
            1022 => DataType::Float8.array(),
            1028 => DataType::Oid.array(),
            1115 => DataType::Timestamp(None).array(),
            1182 => DataType::Date.array(),
            1183 => DataType::Time(None).array(),
            1270 => DataType::Timetz(None).array(),
            1185 => DataType::Timestamptz(None).array(),
            1187 => DataType::Interval(None).array(),
            199 => DataType::Json.array(),
            1231 => DataType::Numeric(None).array(),
            2210 => DataType::Regclass.array(),
            2211 => DataType::Regtype.array(),
            2951 => DataType::Uuid.array(),
            3807 => DataType::Jsonb.array(),
            2287 => DataType::Record.array(),
            _ => return None,
        })
    }

    /// PostgreSQL's `typlen`: bytes of a value, or -1 where it varies.
    #[expect(clippy::len_without_is_empty, reason = "the name is PostgreSQL's; no type is empty")]
    pub fn len(&self) -> i16 {
        match self.base() {
            DataType::Bool | DataType::InternalChar => 1,
            DataType::Int2 => 2,
            DataType::Int4 | DataType::Float4 | DataType::Date | DataType::Void | DataType::Enum(_) => 4,
            t if t.is_oid_like() => 4,
            DataType::Int8
            | DataType::Float8
            | DataType::Time(_)
            | DataType::Timestamp(_)
            | DataType::Timestamptz(_) => 8,
            DataType::Timetz(_) => 12,
            DataType::Interval(_) | DataType::Uuid => 16,
            DataType::Name => 64,
            DataType::Unknown => -2,
            _ => -1,
        }
    }

    /// PostgreSQL's `atttypmod`: the modifier as clients see it, or -1.
    pub fn modifier(&self) -> i32 {
        match self {
            DataType::Numeric(Some((p, s))) => ((i32::from(*p) << 16) | (i32::from(*s) & 0x7ff)) + 4,
            DataType::Char(0) => -1,
            DataType::Varchar(Some(n)) | DataType::Char(n) => i32::try_from(*n).unwrap_or(i32::MAX - 4) + 4,
            DataType::Time(Some(p))
            | DataType::Timetz(Some(p))
            | DataType::Timestamp(Some(p))
            | DataType::Timestamptz(Some(p)) => i32::from(*p),
            DataType::Interval(Some(m)) => m.typmod(),
            DataType::Array(t) => t.modifier(),
            DataType::Crdt(c) => c.base().modifier(),
            DataType::Domain(_) => -1,
            _ => -1,
        }
    }

    /// A type of time with the modifier that clients know; `None` if this is none, or the modifier means nothing.
    pub fn with_time_modifier(&self, modifier: i32) -> Option<DataType> {
        let digits = || u8::try_from(modifier).ok().filter(|p| *p <= 6).map(Some);
        Some(match self {
            DataType::Time(_) => DataType::Time(digits()?),
            DataType::Timetz(_) => DataType::Timetz(digits()?),
            DataType::Timestamp(_) => DataType::Timestamp(digits()?),
            DataType::Timestamptz(_) => DataType::Timestamptz(digits()?),
            DataType::Interval(_) if modifier >= 0 => {
                DataType::Interval(Some(IntervalModifier::from_typmod(modifier)?))
            }
            _ => return None,
        })
    }

    /// The type of an array's elements, of the catalogs' vectors too.
    pub fn element(&self) -> Option<DataType> {
        match self {
            DataType::Array(element) => Some((**element).clone()),
            DataType::Int2vector => Some(DataType::Int2),
            DataType::Oidvector => Some(DataType::Oid),
            _ => None,
        }
    }

    /// The subscript of an array's first element: 0 for the catalogs' vectors.
    pub fn lower_bound(&self) -> i32 {
        i32::from(!matches!(self, DataType::Int2vector | DataType::Oidvector))
    }

    /// True of the types whose values are whole OIDs.
    pub fn is_oid_like(&self) -> bool {
        matches!(
            self,
            DataType::Oid
                | DataType::Regclass
                | DataType::Regtype
                | DataType::Regproc
                | DataType::Regprocedure
                | DataType::Regoper
                | DataType::Regoperator
                | DataType::Regcollation
                | DataType::Regnamespace
                | DataType::Regrole
        )
    }

    /// True of `text`, `varchar`, `char`, `name` and `"char"`.
    pub fn is_string(&self) -> bool {
        matches!(
            self,
            DataType::Text
                | DataType::Varchar(_)
                | DataType::Char(_)
                | DataType::Name
                | DataType::InternalChar
        )
    }

    /// True of the integer, floating and numeric types.
    pub fn is_numeric(&self) -> bool {
        matches!(
            self,
            DataType::Int2
                | DataType::Int4
                | DataType::Int8
                | DataType::Float4
                | DataType::Float8
                | DataType::Numeric(_)
        )
    }
}

/// The type's name as `format_type` prints it: `character varying(10)`, `timestamp with time zone`.
impl std::fmt::Display for DataType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            DataType::Bool => "boolean",
            DataType::Int2 => "smallint",
            DataType::Int4 => "integer",
            DataType::Int8 => "bigint",
            DataType::Float4 => "real",
            DataType::Float8 => "double precision",
            DataType::Numeric(None) => "numeric",
            DataType::Numeric(Some((p, s))) => return write!(f, "numeric({p},{s})"),
            DataType::Text => "text",
            DataType::Varchar(None) => "character varying",
            DataType::Varchar(Some(n)) => return write!(f, "character varying({n})"),
            DataType::Char(0) => "character",
            DataType::Char(n) => return write!(f, "character({n})"),
            DataType::Name => "name",
            DataType::InternalChar => "\"char\"",
            DataType::Bytea => "bytea",
            DataType::Date => "date",
            DataType::Time(None) => "time without time zone",
            DataType::Timetz(None) => "time with time zone",
            DataType::Timestamp(None) => "timestamp without time zone",
            DataType::Timestamptz(None) => "timestamp with time zone",
            DataType::Time(Some(p)) => return write!(f, "time({p}) without time zone"),
            DataType::Timetz(Some(p)) => return write!(f, "time({p}) with time zone"),
            DataType::Timestamp(Some(p)) => return write!(f, "timestamp({p}) without time zone"),
            DataType::Timestamptz(Some(p)) => return write!(f, "timestamp({p}) with time zone"),
            DataType::Interval(None) => "interval",
            DataType::Interval(Some(m)) => return write!(f, "interval{m}"),
            DataType::Uuid => "uuid",
            DataType::Json => "json",
            DataType::Jsonb => "jsonb",
            DataType::Oid => "oid",
            DataType::Regclass => "regclass",
            DataType::Regtype => "regtype",
            DataType::Regproc => "regproc",
            DataType::Regprocedure => "regprocedure",
            DataType::Regoper => "regoper",
            DataType::Regoperator => "regoperator",
            DataType::Regcollation => "regcollation",
            DataType::Regnamespace => "regnamespace",
            DataType::Regrole => "regrole",
            DataType::Array(t) => return write!(f, "{t}[]"),
            DataType::Record | DataType::Row(_) => "record",
            DataType::Void => "void",
            DataType::Unknown => "unknown",
            DataType::Crdt(Crdt::Counter) => "crdt_counter",
            DataType::Crdt(Crdt::Max(t)) => return write!(f, "crdt_max({t})"),
            DataType::Crdt(Crdt::Min(t)) => return write!(f, "crdt_min({t})"),
            DataType::Crdt(Crdt::Set(t)) => return write!(f, "crdt_set({t})"),
            DataType::Crdt(Crdt::Flag) => "crdt_flag",
            DataType::Crdt(Crdt::Gcounter) => "crdt_gcounter",
            DataType::Crdt(Crdt::Sum(modifier)) => {
                return write!(f, "crdt_sum({})", DataType::Numeric(*modifier));
            }
            DataType::Crdt(Crdt::RemoveSet(t)) => return write!(f, "crdt_rset({t})"),
            DataType::Crdt(Crdt::Register(t)) => return write!(f, "crdt_register({t})"),
            DataType::Crdt(Crdt::Map) => "crdt_map",
            DataType::Int2vector => "int2vector",
            DataType::Oidvector => "oidvector",
            DataType::Enum(ty) => &ty.name,
            DataType::Domain(ty) => &ty.name,
        };
        f.write_str(name)
    }
}

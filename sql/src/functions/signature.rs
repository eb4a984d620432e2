//! What a function takes and gives, in a form that fits a static table.

use amphora_storage::DataType;

/// A type in a signature: a real one without modifiers, or a polymorphic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Ty {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Text,
    Varchar,
    Bpchar,
    Name,
    Char,
    Bytea,
    Date,
    Time,
    Timetz,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    Json,
    Jsonb,
    Oid,
    Regclass,
    Regtype,
    Regproc,
    Regprocedure,
    Regoper,
    Regoperator,
    Regcollation,
    Regnamespace,
    Regrole,
    Int2vector,
    Oidvector,
    Record,
    Void,
    /// An array of a type
    Array(&'static Ty),
    /// `"any"`: whatever the caller has
    Any,
    /// `anyelement`/`anycompatible`: all of them, and the elements of `AnyArray`, become one type
    AnyElement,
    /// `anyarray`: see `AnyElement`
    AnyArray,
    /// `anynonarray`
    AnyNonArray,
    /// `anyenum`: an enumerated type, and one with `AnyElement`
    AnyEnum,
}

impl Ty {
    /// The real type; `None` for a polymorphic one.
    pub fn data_type(self) -> Option<DataType> {
        Some(match self {
            Ty::Bool => DataType::Bool,
            Ty::Int2 => DataType::Int2,
            Ty::Int4 => DataType::Int4,
            Ty::Int8 => DataType::Int8,
            Ty::Float4 => DataType::Float4,
            Ty::Float8 => DataType::Float8,
            Ty::Numeric => DataType::Numeric(None),
            Ty::Text => DataType::Text,
            Ty::Varchar => DataType::Varchar(None),
            Ty::Bpchar => DataType::Char(0),
            Ty::Name => DataType::Name,
            Ty::Char => DataType::InternalChar,
            Ty::Bytea => DataType::Bytea,
            Ty::Date => DataType::Date,
            Ty::Time => DataType::Time(None),
            Ty::Timetz => DataType::Timetz(None),
            Ty::Timestamp => DataType::Timestamp(None),
            Ty::Timestamptz => DataType::Timestamptz(None),
            Ty::Interval => DataType::Interval(None),
            Ty::Uuid => DataType::Uuid,
            Ty::Json => DataType::Json,
            Ty::Jsonb => DataType::Jsonb,
            Ty::Oid => DataType::Oid,
            Ty::Regclass => DataType::Regclass,
            Ty::Regtype => DataType::Regtype,
            Ty::Regproc => DataType::Regproc,
            Ty::Regprocedure => DataType::Regprocedure,
            Ty::Regoper => DataType::Regoper,
            Ty::Regoperator => DataType::Regoperator,
            Ty::Regcollation => DataType::Regcollation,
            Ty::Regnamespace => DataType::Regnamespace,
            Ty::Regrole => DataType::Regrole,
            Ty::Int2vector => DataType::Int2vector,
            Ty::Oidvector => DataType::Oidvector,
            Ty::Record => DataType::Record,
            Ty::Void => DataType::Void,
            Ty::Array(element) => element.data_type()?.array(),
            Ty::Any | Ty::AnyElement | Ty::AnyArray | Ty::AnyNonArray | Ty::AnyEnum => return None,
        })
    }

    /// The OID in `pg_type`, polymorphic types included.
    pub fn oid(self) -> u32 {
        match self {
            Ty::Any => 2276,
            Ty::AnyElement => 2283,
            Ty::AnyArray => 2277,
            Ty::AnyNonArray => 2776,
            Ty::AnyEnum => 3500,
            real => real.data_type().map_or(0, |t| t.oid()),
        }
    }

    /// True of `AnyElement`, `AnyArray`, `AnyNonArray` and `Any`.
    pub fn is_polymorphic(self) -> bool {
        matches!(self, Ty::Any | Ty::AnyElement | Ty::AnyArray | Ty::AnyNonArray | Ty::AnyEnum)
    }
}

/// Argument types and the result's.
#[derive(Clone, Copy, Debug)]
pub struct Signature {
    /// The declared arguments
    pub args: &'static [Ty],
    /// The last argument may be repeated
    pub variadic: bool,
    /// The result
    pub returns: Ty,
}

impl Signature {
    /// The declared type of the i-th of `count` actual arguments, if that many are taken.
    pub fn arg(&self, i: usize, count: usize) -> Option<Ty> {
        if count != self.args.len() && !(self.variadic && count >= self.args.len()) {
            return None;
        }
        self.args.get(i).or(if self.variadic { self.args.last() } else { None }).copied()
    }

    /// True if it can be called with so many arguments.
    pub fn takes(&self, count: usize) -> bool {
        count == self.args.len() || (self.variadic && count >= self.args.len())
    }
}

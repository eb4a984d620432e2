//! Type categories, preferred types, and the one type of many (PostgreSQL manual, chapter 10).

use amphora_storage::DataType;

use super::cast::{CastContext, can_coerce};
use crate::error::{Result, SqlError};

/// PostgreSQL's `typcategory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// `A`
    Array,
    /// `B`
    Boolean,
    /// `D`
    DateTime,
    /// `E`
    Enum,
    /// `N`
    Numeric,
    /// `P`
    Pseudo,
    /// `S`
    String,
    /// `T`
    Timespan,
    /// `U`
    User,
    /// `X`
    Unknown,
    /// `Z`
    Internal,
}

impl Category {
    /// The letter in `pg_type.typcategory`.
    pub fn letter(self) -> char {
        match self {
            Category::Array => 'A',
            Category::Boolean => 'B',
            Category::DateTime => 'D',
            Category::Enum => 'E',
            Category::Numeric => 'N',
            Category::Pseudo => 'P',
            Category::String => 'S',
            Category::Timespan => 'T',
            Category::User => 'U',
            Category::Unknown => 'X',
            Category::Internal => 'Z',
        }
    }
}

/// The category of a type.
pub fn category(data_type: &DataType) -> Category {
    match data_type {
        DataType::Bool => Category::Boolean,
        DataType::Int2
        | DataType::Int4
        | DataType::Int8
        | DataType::Float4
        | DataType::Float8
        | DataType::Numeric(_)
        | DataType::Oid
        | DataType::Regclass
        | DataType::Regtype
        | DataType::Regproc
        | DataType::Regprocedure
        | DataType::Regoper
        | DataType::Regoperator
        | DataType::Regcollation
        | DataType::Regnamespace
        | DataType::Regrole => Category::Numeric,
        DataType::Text | DataType::Varchar(_) | DataType::Char(_) | DataType::Name => Category::String,
        DataType::InternalChar => Category::Internal,
        DataType::Date
        | DataType::Time(_)
        | DataType::Timetz(_)
        | DataType::Timestamp(_)
        | DataType::Timestamptz(_) => Category::DateTime,
        DataType::Interval(_) => Category::Timespan,
        DataType::Bytea | DataType::Uuid | DataType::Json | DataType::Jsonb => Category::User,
        DataType::Array(_) | DataType::Int2vector | DataType::Oidvector => Category::Array,
        DataType::Record | DataType::Row(_) | DataType::Void => Category::Pseudo,
        DataType::Unknown => Category::Unknown,
        DataType::Enum(_) => Category::Enum,
        DataType::Domain(domain) => category(&domain.base),
        DataType::Crdt(c) => category(&c.base()),
    }
}

/// True of the type its category prefers: `boolean`, `text`, `float8`, `oid`, `timestamptz`, `interval`.
pub fn is_preferred(data_type: &DataType) -> bool {
    matches!(
        data_type.base(),
        DataType::Bool
            | DataType::Text
            | DataType::Float8
            | DataType::Oid
            | DataType::Timestamptz(_)
            | DataType::Interval(_)
    )
}

/// The one type that UNION, CASE, COALESCE, ARRAY, VALUES and GREATEST give to several expressions.
/// Untyped literals ([`DataType::Unknown`]) take the others' type; if all are untyped, `text`.
/// 42804 if there is none.
pub fn common_type(types: &[DataType]) -> Result<DataType> {
    let mut known = types.iter().filter(|t| **t != DataType::Unknown).map(DataType::base);
    let Some(first) = known.next() else {
        return Ok(DataType::Text);
    };
    let rest: Vec<DataType> = known.collect();
    if rest.iter().all(|t| *t == first) {
        return Ok(first);
    }
    let mut chosen = first.unmodified();
    for candidate in rest.iter().map(DataType::unmodified) {
        if candidate.oid() == chosen.oid() {
            continue;
        }
        if category(&candidate) != category(&chosen) {
            let message = format!("types {chosen} and {candidate} cannot be matched");
            return Err(SqlError::datatype_mismatch(message));
        }
        let forward = can_coerce(&chosen, &candidate, CastContext::Implicit);
        let backward = can_coerce(&candidate, &chosen, CastContext::Implicit);
        if !is_preferred(&chosen) && forward && !backward {
            chosen = candidate;
        }
    }
    for t in &rest {
        if !can_coerce(t, &chosen, CastContext::Implicit) {
            return Err(SqlError::cannot_coerce(format!("could not convert type {t} to {chosen}")));
        }
    }
    Ok(chosen)
}

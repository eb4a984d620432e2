//! From the name in a statement to the type.

use amphora_storage::DataType;
use amphora_storage::types::{Crdt, IntervalModifier};

/// The type of this name, as in `CREATE TABLE` or a cast. `arguments` are what stood in parentheses:
/// numbers for modifiers, type names for CRDT types, e.g. `["10", "2"]` or `["text"]`. A name that ends
/// in `[]` or begins with `_` is an array. `None` if there is no such type or its arguments are wrong.
pub fn type_from_name(schema: Option<&str>, name: &str, arguments: &[&str]) -> Option<DataType> {
    if !matches!(schema, None | Some("pg_catalog" | "public" | "amphora")) {
        return None;
    }
    let name = name.trim();
    if let Some(element) = name.strip_suffix("[]") {
        return array_of(type_from_name(schema, element, arguments)?);
    }
    let lower = name.to_ascii_lowercase();
    if let (Some(open), true) = (lower.find('('), arguments.is_empty()) {
        let close = lower.rfind(')')?;
        let inner: Vec<&str> = lower.get(open + 1..close)?.split(',').map(str::trim).collect();
        let whole = format!("{} {}", lower[..open].trim(), lower[close + 1..].trim());
        return type_from_name(schema, whole.trim(), &inner);
    }
    // More digits than there are become as many as there are.
    let digits = || match arguments.len() {
        0 => Some(None),
        1 => number_at(arguments, 0).filter(|n| *n >= 0).map(|n| Some(n.min(6) as u8)),
        _ => None,
    };
    let number = |i: usize| number_at(arguments, i);
    let length = || match arguments.len() {
        0 => Some(None),
        1 => number(0).filter(|n| (1..=10_485_760).contains(n)).map(|n| Some(n as u32)),
        _ => None,
    };
    let element = || match arguments {
        [inner] => type_from_name(None, inner, &[]).filter(|t| !matches!(t, DataType::Crdt(_))),
        _ => None,
    };
    let scalar = || element().filter(|t| !matches!(t, DataType::Array(_)));
    Some(match lower.as_str() {
        "bool" | "boolean" => DataType::Bool,
        "int2" | "smallint" => DataType::Int2,
        "int" | "int4" | "integer" => DataType::Int4,
        "int8" | "bigint" => DataType::Int8,
        "float4" | "real" => DataType::Float4,
        "float8" | "double precision" | "double" => DataType::Float8,
        "float" => match number(0) {
            None if arguments.is_empty() => DataType::Float8,
            Some(1..=24) => DataType::Float4,
            Some(25..=53) => DataType::Float8,
            _ => return None,
        },
        "numeric" | "decimal" | "dec" => match arguments.len() {
            0 => DataType::Numeric(None),
            1 | 2 => {
                let precision = number(0).filter(|p| (1..=1000).contains(p))?;
                let scale = if arguments.len() == 2 { number(1)? } else { 0 };
                if !(-1000..=1000).contains(&scale) {
                    return None;
                }
                DataType::Numeric(Some((precision as u16, scale as i16)))
            }
            _ => return None,
        },
        "text" | "string" => DataType::Text,
        "varchar" | "character varying" | "char varying" => DataType::Varchar(length()?),
        "bpchar" => DataType::Char(length()?.unwrap_or(0)),
        "character" | "char" => DataType::Char(length()?.unwrap_or(1)),
        "name" => DataType::Name,
        "\"char\"" => DataType::InternalChar,
        "bytea" => DataType::Bytea,
        "date" => DataType::Date,
        "time" | "time without time zone" => DataType::Time(digits()?),
        "timetz" | "time with time zone" => DataType::Timetz(digits()?),
        "timestamp" | "timestamp without time zone" => DataType::Timestamp(digits()?),
        "timestamptz" | "timestamp with time zone" => DataType::Timestamptz(digits()?),
        "interval" => {
            let precision = digits()?;
            DataType::Interval(
                precision.map(|p| IntervalModifier { fields: IntervalModifier::ALL, precision: Some(p) }),
            )
        }
        fields if fields.starts_with("interval ") => {
            let fields = interval_fields(fields.strip_prefix("interval ")?)?;
            let precision = digits()?;
            if precision.is_some() && fields & IntervalModifier::SECOND == 0 {
                return None;
            }
            DataType::Interval(Some(IntervalModifier { fields, precision }))
        }
        "uuid" => DataType::Uuid,
        "json" => DataType::Json,
        // A path is text until it is used (`functions/json_path`).
        "jsonpath" => DataType::Text,
        "jsonb" => DataType::Jsonb,
        "oid" => DataType::Oid,
        "regclass" => DataType::Regclass,
        "regtype" => DataType::Regtype,
        "int2vector" => DataType::Int2vector,
        "oidvector" => DataType::Oidvector,
        "regproc" => DataType::Regproc,
        "regprocedure" => DataType::Regprocedure,
        "regoper" => DataType::Regoper,
        "regoperator" => DataType::Regoperator,
        "regcollation" => DataType::Regcollation,
        "regnamespace" => DataType::Regnamespace,
        "regrole" => DataType::Regrole,
        "record" => DataType::Record,
        "void" => DataType::Void,
        "unknown" => DataType::Unknown,
        "crdt_counter" => DataType::Crdt(Crdt::Counter),
        "crdt_flag" => DataType::Crdt(Crdt::Flag),
        "crdt_gcounter" => DataType::Crdt(Crdt::Gcounter),
        "crdt_map" => DataType::Crdt(Crdt::Map),
        "crdt_sum" => match arguments {
            [] => DataType::Crdt(Crdt::Sum(None)),
            _ => match element()? {
                DataType::Numeric(modifier) => DataType::Crdt(Crdt::Sum(modifier)),
                _ => return None,
            },
        },
        "crdt_max" => DataType::Crdt(Crdt::Max(Box::new(element()?))),
        "crdt_min" => DataType::Crdt(Crdt::Min(Box::new(element()?))),
        "crdt_set" => DataType::Crdt(Crdt::Set(Box::new(scalar()?))),
        "crdt_rset" => DataType::Crdt(Crdt::RemoveSet(Box::new(scalar()?))),
        "crdt_register" => DataType::Crdt(Crdt::Register(Box::new(scalar()?))),
        other => match other.strip_prefix('_') {
            Some("char") => DataType::InternalChar.array(),
            Some(element) => return array_of(type_from_name(schema, element, arguments)?),
            None => return None,
        },
    })
}

/// PostgreSQL has one array type for all dimensions.
fn array_of(element: DataType) -> Option<DataType> {
    match element {
        DataType::Array(_) => Some(element),
        DataType::Crdt(_) | DataType::Void | DataType::Unknown => None,
        other => Some(other.array()),
    }
}

fn number_at(arguments: &[&str], i: usize) -> Option<i64> {
    arguments.get(i).and_then(|a| a.trim().parse::<i64>().ok())
}

/// `year to month`, `second`
fn interval_fields(words: &str) -> Option<u16> {
    let field =
        |name: &str| IntervalModifier::FIELDS.iter().find(|(_, n)| *n == name.trim()).map(|(f, _)| *f);
    let (first, last) = words.split_once(" to ").unwrap_or((words, words));
    IntervalModifier::range(field(first)?, field(last)?)
}

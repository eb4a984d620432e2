//! `pg_type` and what describes types further.

use amphora_storage::{DataType, Datum, Row};

use super::{
    Columns, Definition, PG_CATALOG_OID, POSTGRES_ROLE_OID, SystemContext, Ty, char, nothing, pg, row, text,
};
use crate::error::Result;

pub(super) const DEFINITIONS: &[Definition] = &[
    pg("pg_type", 1247, TYPE, types),
    pg(
        "pg_enum",
        3501,
        &[("oid", Ty::Oid), ("enumtypid", Ty::Oid), ("enumsortorder", Ty::Float4), ("enumlabel", Ty::Name)],
        nothing,
    ),
    pg(
        "pg_range",
        3541,
        &[
            ("rngtypid", Ty::Oid),
            ("rngsubtype", Ty::Oid),
            ("rngmultitypid", Ty::Oid),
            ("rngcollation", Ty::Oid),
            ("rngsubopc", Ty::Oid),
        ],
        nothing,
    ),
    pg(
        "pg_cast",
        2605,
        &[
            ("oid", Ty::Oid),
            ("castsource", Ty::Oid),
            ("casttarget", Ty::Oid),
            ("castfunc", Ty::Oid),
            ("castcontext", Ty::Char),
            ("castmethod", Ty::Char),
        ],
        nothing,
    ),
];

const TYPE: Columns = &[
    ("oid", Ty::Oid),
    ("typname", Ty::Name),
    ("typnamespace", Ty::Oid),
    ("typowner", Ty::Oid),
    ("typlen", Ty::Int2),
    ("typbyval", Ty::Bool),
    ("typtype", Ty::Char),
    ("typcategory", Ty::Char),
    ("typispreferred", Ty::Bool),
    ("typisdefined", Ty::Bool),
    ("typdelim", Ty::Char),
    ("typrelid", Ty::Oid),
    ("typsubscript", Ty::Regproc),
    ("typelem", Ty::Oid),
    ("typarray", Ty::Oid),
    ("typinput", Ty::Regproc),
    ("typoutput", Ty::Regproc),
    ("typreceive", Ty::Regproc),
    ("typsend", Ty::Regproc),
    ("typmodin", Ty::Regproc),
    ("typmodout", Ty::Regproc),
    ("typanalyze", Ty::Regproc),
    ("typalign", Ty::Char),
    ("typstorage", Ty::Char),
    ("typnotnull", Ty::Bool),
    ("typbasetype", Ty::Oid),
    ("typtypmod", Ty::Int4),
    ("typndims", Ty::Int4),
    ("typcollation", Ty::Oid),
    ("typdefaultbin", Ty::Text),
    ("typdefault", Ty::Text),
    ("typacl", Ty::Texts),
];

/// Every base type with its internal name and category; arrays are made from them.
fn base_types() -> Vec<(DataType, &'static str, char)> {
    vec![
        (DataType::Bool, "bool", 'B'),
        (DataType::Bytea, "bytea", 'U'),
        (DataType::InternalChar, "char", 'Z'),
        (DataType::Name, "name", 'S'),
        (DataType::Int8, "int8", 'N'),
        (DataType::Int2, "int2", 'N'),
        (DataType::Int4, "int4", 'N'),
        (DataType::Regproc, "regproc", 'N'),
        (DataType::Text, "text", 'S'),
        (DataType::Oid, "oid", 'N'),
        (DataType::Json, "json", 'U'),
        (DataType::Float4, "float4", 'N'),
        (DataType::Float8, "float8", 'N'),
        (DataType::Char(1), "bpchar", 'S'),
        (DataType::Varchar(None), "varchar", 'S'),
        (DataType::Date, "date", 'D'),
        (DataType::Time, "time", 'D'),
        (DataType::Timestamp, "timestamp", 'D'),
        (DataType::Timestamptz, "timestamptz", 'D'),
        (DataType::Interval, "interval", 'T'),
        (DataType::Numeric(None), "numeric", 'N'),
        (DataType::Regclass, "regclass", 'N'),
        (DataType::Regtype, "regtype", 'N'),
        (DataType::Uuid, "uuid", 'U'),
        (DataType::Jsonb, "jsonb", 'U'),
        (DataType::Regnamespace, "regnamespace", 'N'),
        (DataType::Regrole, "regrole", 'N'),
    ]
}

/// Whether a type is the preferred one of its category.
fn is_preferred(name: &str) -> bool {
    matches!(name, "bool" | "text" | "oid" | "float8" | "timestamptz" | "interval")
}

fn types(_: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (ty, name, category) in base_types() {
        let array = ty.clone().array();
        rows.push(type_row(&ty, name, 'b', category, 0, array.oid()));
        rows.push(type_row(&array, &format!("_{name}"), 'b', 'A', ty.oid(), 0));
    }
    rows.push(type_row(&DataType::Unknown, "unknown", 'p', 'X', 0, 0));
    rows.push(type_row(&DataType::Void, "void", 'p', 'P', 0, 0));
    rows.push(type_row(&DataType::Record, "record", 'p', 'P', 0, DataType::Record.array().oid()));
    Ok(rows)
}

fn type_row(ty: &DataType, name: &str, kind: char, category: char, element: u32, array: u32) -> Row {
    let (no, none) = (Datum::Bool(false), Datum::Oid(0));
    let collation = if ty.is_string() { super::objects::DEFAULT_COLLATION } else { 0 };
    row(
        TYPE,
        &[
            ("oid", Datum::Oid(ty.oid())),
            ("typname", text(name)),
            ("typnamespace", Datum::Oid(PG_CATALOG_OID)),
            ("typowner", Datum::Oid(POSTGRES_ROLE_OID)),
            ("typlen", Datum::Int2(ty.len())),
            ("typbyval", Datum::Bool(matches!(ty.len(), 1..=8))),
            ("typtype", char(kind)),
            ("typcategory", char(category)),
            ("typispreferred", Datum::Bool(is_preferred(name))),
            ("typisdefined", Datum::Bool(true)),
            ("typdelim", char(',')),
            ("typrelid", none.clone()),
            ("typsubscript", none.clone()),
            ("typelem", Datum::Oid(element)),
            ("typarray", Datum::Oid(array)),
            ("typinput", none.clone()),
            ("typoutput", none.clone()),
            ("typreceive", none.clone()),
            ("typsend", none.clone()),
            ("typmodin", none.clone()),
            ("typmodout", none.clone()),
            ("typanalyze", none.clone()),
            ("typalign", char('i')),
            ("typstorage", char(if ty.len() < 0 { 'x' } else { 'p' })),
            ("typnotnull", no),
            ("typbasetype", none),
            ("typtypmod", Datum::Int4(-1)),
            ("typndims", Datum::Int4(0)),
            ("typcollation", Datum::Oid(collation)),
        ],
    )
}

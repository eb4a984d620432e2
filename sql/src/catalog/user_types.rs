//! Users' types: their rows in `pg_type`, `pg_enum` and `pg_constraint`, and `information_schema`'s domains.

use amphora_storage::schema::{Catalog, UserType, UserTypeKind};
use amphora_storage::user_type::Label;
use amphora_storage::{DataType, Datum, Row};

use super::layout::LAYOUTS;
use super::seed::TYPES;
use super::{Columns, Definition, SystemContext, Ty, char, pg, role_oid, row, schema_oid, text};
use crate::error::Result;
use crate::types::{Category, category};

pub(super) const DEFINITIONS: &[Definition] = &[
    pg("pg_enum", 3501, ENUM, labels),
    Definition {
        schema: "information_schema",
        name: "domains",
        oid: 13_060,
        columns: DOMAINS,
        laid_out: false,
        rows: domains,
    },
];

/// PostgreSQL's functions that read and write values of users' types: of enumerated types, of domains.
pub(super) const INPUT_AND_OUTPUT: [u32; 6] = [3506, 3507, 3532, 3533, 2597, 2598];

/// A user's type that a plain name finds in these schemas.
pub fn user_type<'a>(
    catalog: &Catalog,
    mut schemas: impl Iterator<Item = &'a str>,
    name: &str,
) -> Option<DataType> {
    schemas.find_map(|schema| catalog.type_named(schema, name)).map(|(_, ty)| ty.clone())
}

/// The schema and name of a type in `pg_type`: `pg_catalog`, `int4`.
pub(super) fn type_name(catalog: &Catalog, ty: &DataType) -> (String, String) {
    let (oid, prefix) = match ty {
        DataType::Array(element) if element.is_user_made() => (element.oid(), "_"),
        other => (other.oid(), ""),
    };
    match catalog.type_by_id(amphora_storage::schema::TableId(oid)) {
        Some((ty, _)) => (ty.schema.clone(), format!("{prefix}{}", ty.name)),
        None => {
            let known = TYPES.get(oid).map(|t| t.text("typname").to_owned());
            ("pg_catalog".to_owned(), known.unwrap_or_else(|| ty.to_string()))
        }
    }
}

/// OID of a domain's CHECK constraint: as of a table's, by its place.
pub fn domain_check_oid(ty: &UserType, position: usize) -> u32 {
    0x8000_0000 | (ty.id.0 << 6) | (position as u32 & 63)
}

/// A domain's CHECK constraint as `pg_get_constraintdef` prints it.
pub fn domain_constraint_definition(catalog: &Catalog, oid: u32) -> Option<String> {
    catalog.types().find_map(|(ty, _)| match &ty.kind {
        UserTypeKind::Domain { checks, .. } => {
            let found = checks.iter().enumerate().find(|(i, _)| domain_check_oid(ty, *i) == oid)?.1;
            let not_valid = if found.validated { "" } else { " NOT VALID" };
            Some(format!("CHECK ({}){not_valid}", shown_types(catalog, &found.expression)))
        }
        UserTypeKind::Enum(_) => None,
    })
}

/// A stored text with users' types by their names: `'sad'::"16400"` is `'sad'::mood`.
pub fn shown_types(catalog: &Catalog, stored: &str) -> String {
    if catalog.types().next().is_none() || !stored.contains('"') {
        return stored.to_owned();
    }
    let mut out = String::with_capacity(stored.len());
    let mut rest = stored;
    while let Some(open) = rest.find(['"', '\'']) {
        let quote = rest.get(open..=open).unwrap_or("\"");
        let Some(close) = rest[open + 1..].find(quote).map(|i| open + 1 + i) else { break };
        let inner = &rest[open + 1..close];
        let known = (quote == "\"")
            .then(|| {
                inner.parse().ok().and_then(|id| catalog.type_by_id(amphora_storage::schema::TableId(id)))
            })
            .flatten();
        match known {
            Some((ty, _)) => {
                out.push_str(&rest[..open]);
                out.push_str(&ty.shown());
            }
            None => out.push_str(&rest[..=close]),
        }
        rest = &rest[close + 1..];
    }
    out.push_str(rest);
    out
}

/// Rows of `pg_type`: each type, and its array type.
pub(super) fn type_rows(context: &SystemContext<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (ty, data_type) in context.catalog.types() {
        rows.push(type_row(context, ty, data_type, false));
        rows.push(type_row(context, ty, data_type, true));
    }
    rows
}

fn type_row(context: &SystemContext<'_>, ty: &UserType, data_type: &DataType, array: bool) -> Row {
    let base = data_type.base();
    let of_base = TYPES.get(base.oid());
    let from_base = |name: &str| of_base.as_ref().map_or(Datum::Null, |t| t.datum(name).clone());
    let of_array = |name: &str| TYPES.get(1007).map_or(Datum::Null, |t| t.datum(name).clone());
    let [enum_in, enum_out, enum_recv, enum_send, domain_in, domain_recv] = INPUT_AND_OUTPUT.map(Datum::Oid);
    let is_enum = matches!(ty.kind, UserTypeKind::Enum(_));
    let input = match (array, is_enum) {
        (true, _) => ["typinput", "typoutput", "typreceive", "typsend"].map(of_array),
        (false, true) => [enum_in, enum_out, enum_recv, enum_send],
        (false, false) => {
            let [output, send] = ["typoutput", "typsend"].map(from_base);
            [domain_in, output, domain_recv, send]
        }
    };
    let [typinput, typoutput, typreceive, typsend] = input;
    let own_category = if is_enum { Category::Enum } else { category(&base) };
    let letter = if array { 'A' } else { own_category.letter() };
    let length = if array || !is_enum && base.len() < 0 { -1 } else { base.len() };
    let by_value = if is_enum { Datum::Bool(true) } else { from_base("typbyval") };
    let (not_null, default) = match &ty.kind {
        UserTypeKind::Domain { not_null, default, .. } if !array => {
            (*not_null, default.as_ref().map_or(Datum::Null, |d| text(shown_types(context.catalog, d))))
        }
        _ => (false, Datum::Null),
    };
    let below = match data_type {
        DataType::Domain(domain) if !array => Some(&domain.base),
        _ => None,
    };
    let name = if array { format!("_{}", ty.name) } else { ty.name.clone() };
    let zero = || Datum::Oid(0);
    let value = |column: &str| match column {
        "oid" => Datum::Oid(if array { ty.array } else { ty.id.0 }),
        "typname" => text(&name),
        "typnamespace" => Datum::Oid(schema_oid(context.catalog, &ty.schema).unwrap_or(0)),
        "typowner" => Datum::Oid(role_oid(context.catalog, &ty.owner)),
        "typlen" => Datum::Int2(length),
        "typbyval" if array => Datum::Bool(false),
        "typbyval" => by_value.clone(),
        "typtype" => char(match (array, is_enum) {
            (true, _) => 'b',
            (false, true) => 'e',
            (false, false) => 'd',
        }),
        "typcategory" => char(letter),
        "typispreferred" => Datum::Bool(false),
        "typisdefined" => Datum::Bool(true),
        "typdelim" => char(','),
        "typelem" => Datum::Oid(if array { ty.id.0 } else { 0 }),
        "typarray" => Datum::Oid(if array { 0 } else { ty.array }),
        "typsubscript" => {
            if array {
                of_array("typsubscript")
            } else {
                zero()
            }
        }
        "typinput" => typinput.clone(),
        "typoutput" => typoutput.clone(),
        "typreceive" => typreceive.clone(),
        "typsend" => typsend.clone(),
        "typanalyze" if array => of_array("typanalyze"),
        "typalign" if !array && !is_enum => from_base("typalign"),
        "typalign" => char('i'),
        "typstorage" if array => char('x'),
        "typstorage" if !is_enum => from_base("typstorage"),
        "typstorage" => char('p'),
        "typnotnull" => Datum::Bool(not_null),
        "typbasetype" => Datum::Oid(below.map_or(0, DataType::oid)),
        "typtypmod" => Datum::Int4(below.map_or(-1, DataType::modifier)),
        "typcollation" if !array && !is_enum => from_base("typcollation"),
        "typndims" => Datum::Int4(0),
        "typdefault" => default.clone(),
        "typrelid" | "typmodin" | "typmodout" | "typanalyze" | "typcollation" => zero(),
        _ => Datum::Null,
    };
    let columns = LAYOUTS.get("pg_type").map(|layout| layout.columns.iter());
    columns.into_iter().flatten().map(|(column, _)| value(column)).collect()
}

const ENUM: Columns =
    &[("oid", Ty::Oid), ("enumtypid", Ty::Oid), ("enumsortorder", Ty::Float4), ("enumlabel", Ty::Name)];

fn labels(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (ty, _) in context.catalog.types() {
        let UserTypeKind::Enum(labels) = &ty.kind else { continue };
        for (oid, place, label) in labels {
            let order = Label::at(*place).sort_order();
            rows.push(vec![Datum::Oid(*oid), Datum::Oid(ty.id.0), Datum::Float4(order), text(label)]);
        }
    }
    Ok(rows)
}

const DOMAINS: Columns = &[
    ("domain_catalog", Ty::Name),
    ("domain_schema", Ty::Name),
    ("domain_name", Ty::Name),
    ("data_type", Ty::Text),
    ("character_maximum_length", Ty::Int4),
    ("numeric_precision", Ty::Int4),
    ("numeric_scale", Ty::Int4),
    ("domain_default", Ty::Text),
    ("udt_catalog", Ty::Name),
    ("udt_schema", Ty::Name),
    ("udt_name", Ty::Name),
    ("dtd_identifier", Ty::Name),
];

fn domains(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (ty, data_type) in context.catalog.types() {
        let DataType::Domain(domain) = data_type else { continue };
        let base = domain.base.base();
        let length = match &base {
            DataType::Varchar(Some(n)) | DataType::Char(n) => {
                Datum::Int4(i32::try_from(*n).unwrap_or(i32::MAX))
            }
            _ => Datum::Null,
        };
        let (precision, scale) = match &base {
            DataType::Numeric(Some((p, s))) => (Datum::Int4(i32::from(*p)), Datum::Int4(i32::from(*s))),
            _ => (Datum::Null, Datum::Null),
        };
        let default = domain.default.as_ref();
        rows.push(row(
            DOMAINS,
            &[
                ("domain_catalog", text(context.database)),
                ("domain_schema", text(&ty.schema)),
                ("domain_name", text(&ty.name)),
                ("data_type", text(base.unmodified().to_string())),
                ("character_maximum_length", length),
                ("numeric_precision", precision),
                ("numeric_scale", scale),
                ("domain_default", default.map_or(Datum::Null, |d| text(shown_types(context.catalog, d)))),
                ("udt_catalog", text(context.database)),
                ("udt_schema", text("pg_catalog")),
                ("udt_name", TYPES.get(base.oid()).map_or(Datum::Null, |t| t.datum("typname").clone())),
                ("dtd_identifier", text("1")),
            ],
        ));
    }
    Ok(rows)
}

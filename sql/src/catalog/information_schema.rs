//! The SQL standard's own views, as far as tools ask for them.

use amphora_storage::schema::{Identity, Sequence, View};
use amphora_storage::{DataType, Datum, Row};

use super::{
    BUILT_IN_SCHEMAS, Columns, Definition, MakeRows, SystemContext, Ty, row, shown_default, shown_types,
    system_views, text, type_name, view_definition,
};
use crate::error::Result;

pub(super) const fn info(name: &'static str, oid: u32, columns: Columns, rows: MakeRows) -> Definition {
    Definition { schema: "information_schema", name, oid, columns, laid_out: false, rows }
}

pub(super) const DEFINITIONS: &[Definition] = &[
    info("schemata", 13_001, SCHEMATA, schemata),
    info("views", 13_016, VIEWS, views),
    info("tables", 13_002, TABLES, tables),
    info("columns", 13_003, COLUMNS, columns),
];

const SCHEMATA: Columns =
    &[("catalog_name", Ty::Name), ("schema_name", Ty::Name), ("schema_owner", Ty::Name)];

fn schemata(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let built_in = BUILT_IN_SCHEMAS.iter().map(|(name, _)| (*name, "postgres"));
    let users = context.catalog.schemas().map(|s| (s.name.as_str(), s.owner.as_str()));
    let one = |(name, owner): (&str, &str)| vec![text(context.database), text(name), text(owner)];
    Ok(built_in.chain(users).map(one).collect())
}

const VIEWS: Columns = &[
    ("table_catalog", Ty::Name),
    ("table_schema", Ty::Name),
    ("table_name", Ty::Name),
    ("view_definition", Ty::Text),
    ("check_option", Ty::Text),
    ("is_updatable", Ty::Text),
    ("is_insertable_into", Ty::Text),
    ("is_trigger_updatable", Ty::Text),
    ("is_trigger_deletable", Ty::Text),
    ("is_trigger_insertable_into", Ty::Text),
];

fn views(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let no = || text("NO");
    let one = |view: &std::sync::Arc<View>| {
        let definition = context.names.map(|names| view_definition(context.catalog, names, view));
        row(
            VIEWS,
            &[
                ("table_catalog", text(context.database)),
                ("table_schema", text(&view.schema)),
                ("table_name", text(&view.name)),
                ("view_definition", definition.map_or(Datum::Null, text)),
                ("check_option", text("NONE")),
                ("is_updatable", no()),
                ("is_insertable_into", no()),
                ("is_trigger_updatable", no()),
                ("is_trigger_deletable", no()),
                ("is_trigger_insertable_into", no()),
            ],
        )
    };
    Ok(context.catalog.views().map(one).collect())
}

const TABLES: Columns = &[
    ("table_catalog", Ty::Name),
    ("table_schema", Ty::Name),
    ("table_name", Ty::Name),
    ("table_type", Ty::Text),
    ("self_referencing_column_name", Ty::Name),
    ("reference_generation", Ty::Text),
    ("user_defined_type_catalog", Ty::Name),
    ("user_defined_type_schema", Ty::Name),
    ("user_defined_type_name", Ty::Name),
    ("is_insertable_into", Ty::Text),
    ("is_typed", Ty::Text),
    ("commit_action", Ty::Text),
];

fn tables(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let user = context.catalog.tables().map(|t| (t.schema.as_str(), t.name.as_str(), true));
    let user = user.chain(context.catalog.views().map(|v| (v.schema.as_str(), v.name.as_str(), false)));
    let system = system_views().iter().map(|v| (v.schema, v.name, false));
    Ok(user
        .chain(system)
        .map(|(schema, name, writable)| {
            let kind = if writable || schema == "pg_catalog" { "BASE TABLE" } else { "VIEW" };
            row(
                TABLES,
                &[
                    ("table_catalog", text(context.database)),
                    ("table_schema", text(schema)),
                    ("table_name", text(name)),
                    ("table_type", text(kind)),
                    ("is_insertable_into", text(if writable { "YES" } else { "NO" })),
                    ("is_typed", text("NO")),
                ],
            )
        })
        .collect())
}

const COLUMNS: Columns = &[
    ("table_catalog", Ty::Name),
    ("table_schema", Ty::Name),
    ("table_name", Ty::Name),
    ("column_name", Ty::Name),
    ("ordinal_position", Ty::Int4),
    ("column_default", Ty::Text),
    ("is_nullable", Ty::Text),
    ("data_type", Ty::Text),
    ("character_maximum_length", Ty::Int4),
    ("character_octet_length", Ty::Int4),
    ("numeric_precision", Ty::Int4),
    ("numeric_precision_radix", Ty::Int4),
    ("numeric_scale", Ty::Int4),
    ("datetime_precision", Ty::Int4),
    ("interval_type", Ty::Text),
    ("interval_precision", Ty::Int4),
    ("character_set_catalog", Ty::Name),
    ("character_set_schema", Ty::Name),
    ("character_set_name", Ty::Name),
    ("collation_catalog", Ty::Name),
    ("collation_schema", Ty::Name),
    ("collation_name", Ty::Name),
    ("domain_catalog", Ty::Name),
    ("domain_schema", Ty::Name),
    ("domain_name", Ty::Name),
    ("udt_catalog", Ty::Name),
    ("udt_schema", Ty::Name),
    ("udt_name", Ty::Name),
    ("scope_catalog", Ty::Name),
    ("scope_schema", Ty::Name),
    ("scope_name", Ty::Name),
    ("maximum_cardinality", Ty::Int4),
    ("dtd_identifier", Ty::Name),
    ("is_self_referencing", Ty::Text),
    ("is_identity", Ty::Text),
    ("identity_generation", Ty::Text),
    ("identity_start", Ty::Text),
    ("identity_increment", Ty::Text),
    ("identity_maximum", Ty::Text),
    ("identity_minimum", Ty::Text),
    ("identity_cycle", Ty::Text),
    ("is_generated", Ty::Text),
    ("generation_expression", Ty::Text),
    ("is_updatable", Ty::Text),
];

struct ColumnOf<'a> {
    schema: &'a str,
    table: &'a str,
    name: &'a str,
    position: usize,
    ty: DataType,
    not_null: bool,
    default: Option<&'a str>,
    identity: Option<Identity>,
    generated: Option<&'a str>,
    sequence: Option<&'a Sequence>,
    writable: bool,
}

/// A default as the session sees it.
fn shown(context: &SystemContext<'_>, default: &str) -> String {
    let shown = context.names.map_or_else(|| default.to_owned(), |names| shown_default(names, default));
    shown_types(context.catalog, &shown)
}

fn column_row(context: &SystemContext<'_>, c: &ColumnOf<'_>) -> Row {
    let base = c.ty.base();
    let number = |n: i32| Datum::Int4(n);
    let (length, octets) = match &base {
        DataType::Varchar(Some(n)) | DataType::Char(n) if *n > 0 => {
            (number(*n as i32), number(*n as i32 * 4))
        }
        DataType::Text | DataType::Varchar(_) | DataType::Char(_) => (Datum::Null, number(1 << 30)),
        _ => (Datum::Null, Datum::Null),
    };
    let (udt_schema, udt_name) = type_name(context.catalog, &base);
    let domain = match &c.ty {
        DataType::Domain(_) => Some(type_name(context.catalog, &c.ty)),
        _ => None,
    };
    let of_domain = |value: Option<String>| value.map_or(Datum::Null, text);
    let (precision, radix, scale) = match &base {
        DataType::Int2 => (number(16), number(2), number(0)),
        DataType::Int4 => (number(32), number(2), number(0)),
        DataType::Int8 => (number(64), number(2), number(0)),
        DataType::Float4 => (number(24), number(2), Datum::Null),
        DataType::Float8 => (number(53), number(2), Datum::Null),
        DataType::Numeric(Some((p, s))) => (number(i32::from(*p)), number(10), number(i32::from(*s))),
        DataType::Numeric(None) => (Datum::Null, number(10), Datum::Null),
        _ => (Datum::Null, Datum::Null, Datum::Null),
    };
    // The default collation of the database has no name here.
    let collation = |name: &str| if base == DataType::Name { text(name) } else { Datum::Null };
    let of_identity = |value: &dyn Fn(&Sequence) -> String| {
        c.sequence.map_or(Datum::Null, |sequence| text(value(sequence)))
    };
    let kind = match &base {
        DataType::Enum(_) => "USER-DEFINED".to_owned(),
        DataType::Array(_) => "ARRAY".to_owned(),
        other => other.unmodified().to_string(),
    };
    row(
        COLUMNS,
        &[
            ("table_catalog", text(context.database)),
            ("table_schema", text(c.schema)),
            ("table_name", text(c.table)),
            ("column_name", text(c.name)),
            ("ordinal_position", Datum::Int4(c.position as i32)),
            ("column_default", c.default.map_or(Datum::Null, |d| text(shown(context, d)))),
            ("is_nullable", text(if c.not_null { "NO" } else { "YES" })),
            ("data_type", text(kind)),
            ("character_maximum_length", length),
            ("character_octet_length", octets),
            ("numeric_precision", precision),
            ("numeric_precision_radix", radix),
            ("numeric_scale", scale),
            ("datetime_precision", datetime_precision(&c.ty.base()).map_or(Datum::Null, Datum::Int4)),
            ("interval_type", interval_type(&c.ty.base()).map_or(Datum::Null, Datum::text)),
            ("collation_catalog", collation(context.database)),
            ("collation_schema", collation("pg_catalog")),
            ("collation_name", collation("C")),
            ("dtd_identifier", text(c.position.to_string())),
            ("is_self_referencing", text("NO")),
            ("identity_start", of_identity(&|s| s.start.to_string())),
            ("identity_increment", of_identity(&|s| s.increment.to_string())),
            ("identity_maximum", of_identity(&|s| s.max.to_string())),
            ("identity_minimum", of_identity(&|s| s.min.to_string())),
            ("identity_cycle", text(if c.sequence.is_some_and(|s| s.cycle) { "YES" } else { "NO" })),
            ("udt_catalog", text(context.database)),
            ("udt_schema", text(udt_schema)),
            ("udt_name", text(udt_name)),
            ("domain_catalog", of_domain(domain.as_ref().map(|_| context.database.to_owned()))),
            ("domain_schema", of_domain(domain.as_ref().map(|(schema, _)| schema.clone()))),
            ("domain_name", of_domain(domain.map(|(_, name)| name))),
            ("is_identity", text(if c.identity.is_some() { "YES" } else { "NO" })),
            (
                "identity_generation",
                match c.identity {
                    None => Datum::Null,
                    Some(Identity::Always) => text("ALWAYS"),
                    Some(Identity::ByDefault) => text("BY DEFAULT"),
                },
            ),
            ("is_generated", text(if c.generated.is_some() { "ALWAYS" } else { "NEVER" })),
            ("generation_expression", c.generated.map_or(Datum::Null, |e| text(shown(context, e)))),
            ("is_updatable", text(if c.writable { "YES" } else { "NO" })),
        ],
    )
}

/// Digits of a second's fraction that a column of a type of time keeps.
fn datetime_precision(ty: &DataType) -> Option<i32> {
    let digits = match ty {
        DataType::Date => Some(0),
        DataType::Time(p) | DataType::Timetz(p) | DataType::Timestamp(p) | DataType::Timestamptz(p) => *p,
        DataType::Interval(m) => m.and_then(|m| m.precision),
        _ => return None,
    };
    Some(digits.map_or(6, i32::from))
}

/// The fields that an interval column was declared with.
fn interval_type(ty: &DataType) -> Option<String> {
    let name = ty.to_string();
    let fields = name.strip_prefix("interval ").filter(|_| matches!(ty, DataType::Interval(_)))?;
    Some(fields.to_uppercase())
}

fn columns(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for table in context.catalog.tables() {
        for (i, column) in table.visible_columns().iter().enumerate() {
            rows.push(column_row(
                context,
                &ColumnOf {
                    schema: &table.schema,
                    table: &table.name,
                    name: &column.name,
                    position: table.attribute_number(i) as usize,
                    ty: column.ty.clone(),
                    not_null: column.not_null,
                    default: column.default.as_deref().filter(|_| column.identity.is_none()),
                    identity: column.identity,
                    generated: column.generated.as_deref(),
                    sequence: column.identity.and_then(|_| {
                        let owner = Some((table.id, column.id));
                        context.catalog.sequences().find(|s| s.owned_by == owner).map(|s| &**s)
                    }),
                    writable: true,
                },
            ));
        }
    }
    for view in context.catalog.views() {
        for (i, (name, ty)) in view.columns.iter().enumerate() {
            rows.push(column_row(
                context,
                &ColumnOf {
                    schema: &view.schema,
                    table: &view.name,
                    name,
                    position: i + 1,
                    ty: ty.clone(),
                    not_null: false,
                    default: None,
                    identity: None,
                    generated: None,
                    sequence: None,
                    writable: false,
                },
            ));
        }
    }
    for view in system_views() {
        for (i, (name, ty)) in view.columns.iter().take(view.visible).enumerate() {
            rows.push(column_row(
                context,
                &ColumnOf {
                    schema: view.schema,
                    table: view.name,
                    name,
                    position: i + 1,
                    ty: ty.clone(),
                    not_null: false,
                    default: None,
                    identity: None,
                    generated: None,
                    sequence: None,
                    writable: false,
                },
            ));
        }
    }
    Ok(rows)
}

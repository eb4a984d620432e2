//! System catalogs: `pg_catalog`, `information_schema` and `amphora`, as views computed when they are read.
//!
//! A view is a list of columns and a function that makes its rows from what the node knows. Rows are made
//! by column name: what a view has in PostgreSQL and not here reads as NULL (or as the type's plain zero
//! where a client would stumble over NULL), so that clients find every column they ask for ([`layout`]).

mod activity;
mod cluster;
mod conflicts;
mod constraint_usage;
mod constraints;
mod definitions;
mod information_schema;
mod layout;
mod objects;
mod relations;
mod roles;
mod routine;
mod seed;
mod sequences;
mod session_views;
mod statistics;
mod user_types;

pub use cluster::verification_row;
pub(crate) use conflicts::{holds as conflict_of, key_values as conflict_key};
pub use constraints::{constraint_definition, pretty_expression};
pub use definitions::{
    column_comment, comments, describe_object, object_comment, shown_default, view_definition,
};
pub use relations::{index_attribute, index_definition, quoted};
pub use roles::{all_roles, find_role, is_built_in, oid_of_role, role_name, role_oid};
pub use routine::{
    function_arguments, function_by_name, function_definition, function_name, function_result,
    operator_by_name, operator_name,
};
pub use seed::{
    collation_by_name, collation_name, description, operator_class_fits, pseudo_type, pseudo_type_name,
};
pub use user_types::{domain_check_oid, domain_constraint_definition, shown_types, user_type};

use std::sync::{Arc, LazyLock};

use amphora_replication::{Engine, Transaction};
use amphora_storage::schema::{Catalog, ForeignKey, Index, Table, TableId};
use amphora_storage::{DataType, Datum, Row};

use crate::error::Result;
use crate::types::ObjectNames;
use layout::LAYOUTS;
use user_types::type_name;

/// OID of schema `pg_catalog`.
pub const PG_CATALOG_OID: u32 = 11;
/// OID of schema `public`.
pub const PUBLIC_OID: u32 = 2200;
/// OID of schema `information_schema`.
pub const INFORMATION_SCHEMA_OID: u32 = 13_000;
/// OID of schema `amphora`.
pub const AMPHORA_SCHEMA_OID: u32 = 13_500;
/// OID of the role `postgres`, and of all that the system owns.
pub const POSTGRES_ROLE_OID: u32 = 10;
/// OID of the role `amphora`.
pub const AMPHORA_ROLE_OID: u32 = 16_000;

/// What a view is computed from.
pub struct SystemContext<'a> {
    /// The tables, as the transaction sees them
    pub catalog: &'a Arc<Catalog>,
    /// The node
    pub engine: &'a dyn Engine,
    /// The session's user
    pub user: &'a str,
    /// The session's database
    pub database: &'a str,
    /// How relations are named, seen from the session's search path
    pub names: Option<&'a dyn ObjectNames>,
    /// The transaction, where a view must ask for more than the catalog has
    pub txn: &'a dyn Transaction,
    /// The session's settings, for `pg_settings`: (name, value, description)
    pub settings: &'a dyn Fn() -> Vec<(String, String, String)>,
    /// The session's statements and cursors
    pub session: &'a dyn crate::functions::SessionHook,
}

/// Makes a view's rows. `equal` lists columns known to equal a constant: a view may use it to make fewer
/// rows, the caller filters again anyway.
pub type MakeRows = fn(&SystemContext<'_>, equal: &[(usize, Datum)]) -> Result<Vec<Row>>;

/// A view over what the node knows.
pub struct SystemView {
    /// `pg_catalog`, `information_schema`, `amphora`
    pub schema: &'static str,
    /// Name
    pub name: &'static str,
    /// OID: PostgreSQL's own where it has the relation
    pub oid: u32,
    /// `r` or `v`
    pub kind: char,
    /// Columns; after those that `*` gives comes `tableoid`
    pub columns: Vec<(&'static str, DataType)>,
    /// How many `*` gives
    pub visible: usize,
    /// Which of them are NOT NULL
    pub not_null: Vec<bool>,
    make: MakeRows,
    /// Where each visible column is in the rows that `make` makes; none is NULL
    places: Vec<Option<usize>>,
}

impl SystemView {
    /// The rows. `equal` lists columns known to equal a constant: fewer rows may be made, and the caller filters
    /// again anyway.
    pub fn rows(&self, context: &SystemContext<'_>, equal: &[(usize, Datum)]) -> Result<Vec<Row>> {
        let own = |(column, value): &(usize, Datum)| {
            self.places.get(*column).copied().flatten().map(|place| (place, value.clone()))
        };
        let equal: Vec<(usize, Datum)> = equal.iter().filter_map(own).collect();
        let oid = Datum::Oid(self.oid);
        let laid_out = |row: Row| {
            let value =
                |place: &Option<usize>| place.and_then(|p| row.get(p)).cloned().unwrap_or(Datum::Null);
            self.places.iter().map(value).chain([oid.clone()]).collect()
        };
        Ok((self.make)(context, &equal)?.into_iter().map(laid_out).collect())
    }
}

impl std::fmt::Debug for SystemView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SystemView({}.{})", self.schema, self.name)
    }
}

/// The view of this name. An unqualified name is looked for in `pg_catalog`.
pub fn system_view(schema: Option<&str>, name: &str) -> Option<&'static SystemView> {
    let schema = schema.unwrap_or("pg_catalog");
    system_views().iter().find(|v| v.schema == schema && v.name == name)
}

/// All views.
pub fn system_views() -> &'static [SystemView] {
    &VIEWS
}

static VIEWS: LazyLock<Vec<SystemView>> = LazyLock::new(|| {
    let families = [
        relations::DEFINITIONS,
        constraints::DEFINITIONS,
        seed::DEFINITIONS,
        activity::DEFINITIONS,
        objects::DEFINITIONS,
        sequences::DEFINITIONS,
        roles::DEFINITIONS,
        session_views::DEFINITIONS,
        statistics::DEFINITIONS,
        user_types::DEFINITIONS,
        information_schema::DEFINITIONS,
        constraint_usage::DEFINITIONS,
        cluster::DEFINITIONS,
    ];
    let defined: Vec<&Definition> = families.iter().flat_map(|family| family.iter()).collect();
    let is_defined = |name: &str| defined.iter().any(|d| d.schema == "pg_catalog" && d.name == name);
    let empty = LAYOUTS.values().filter(|layout| !is_defined(layout.name));
    let empty = empty.map(|layout| pg(layout.name, layout.oid, &[], nothing).view());
    defined.iter().map(|definition| definition.view()).chain(empty).collect()
});

/// Column types of the catalogs, in a form that constants can hold.
#[derive(Clone, Copy, Debug)]
enum Ty {
    Bool,
    Char,
    Float4,
    Float4s,
    Int2,
    Int2s,
    Int4,
    Int8,
    Name,
    Oid,
    Oids,
    Text,
    Texts,
    Regtypes,
    Jsonb,
    Timestamptz,
    Uuid,
}

impl Ty {
    fn data_type(self) -> DataType {
        match self {
            Ty::Bool => DataType::Bool,
            Ty::Char => DataType::InternalChar,
            Ty::Float4 => DataType::Float4,
            Ty::Jsonb => DataType::Jsonb,
            Ty::Int2 => DataType::Int2,
            Ty::Int2s => DataType::Int2.array(),
            Ty::Int4 => DataType::Int4,
            Ty::Int8 => DataType::Int8,
            Ty::Name => DataType::Name,
            Ty::Oid => DataType::Oid,
            Ty::Oids => DataType::Oid.array(),
            Ty::Text => DataType::Text,
            Ty::Texts => DataType::Text.array(),
            Ty::Regtypes => DataType::Regtype.array(),
            Ty::Float4s => DataType::Float4.array(),
            Ty::Timestamptz => DataType::Timestamptz(None),
            Ty::Uuid => DataType::Uuid,
        }
    }
}

type Columns = &'static [(&'static str, Ty)];

/// A view as the files of this folder define it.
struct Definition {
    schema: &'static str,
    name: &'static str,
    oid: u32,
    columns: Columns,
    /// The rows have PostgreSQL's columns; `columns` is empty
    laid_out: bool,
    rows: MakeRows,
}

impl Definition {
    /// The view, with PostgreSQL's columns where it is one of its catalogs.
    fn view(&self) -> SystemView {
        let layout = LAYOUTS.get(self.name).filter(|_| self.schema == "pg_catalog");
        let (oid, kind, mut columns, mut not_null) = match layout {
            Some(layout) => (layout.oid, layout.kind, layout.columns.clone(), layout.not_null.clone()),
            None => {
                let columns = self.columns.iter().map(|(name, ty)| (*name, ty.data_type()));
                (self.oid, 'v', columns.collect(), vec![false; self.columns.len()])
            }
        };
        let place = |name: &str| self.columns.iter().position(|(own, _)| *own == name);
        let places = columns.iter().enumerate();
        let places = places.map(|(i, (name, _))| if self.laid_out { Some(i) } else { place(name) }).collect();
        let visible = columns.len();
        columns.push(("tableoid", DataType::Oid));
        not_null.push(true);
        SystemView {
            schema: self.schema,
            name: self.name,
            oid,
            kind,
            columns,
            visible,
            not_null,
            make: self.rows,
            places,
        }
    }
}

/// A view of `pg_catalog`.
const fn pg(name: &'static str, oid: u32, columns: Columns, rows: MakeRows) -> Definition {
    Definition { schema: "pg_catalog", name, oid, columns, laid_out: false, rows }
}

/// A view of `pg_catalog` whose rows have the columns of [`layout`], in their order.
const fn pg_laid_out(name: &'static str, rows: MakeRows) -> Definition {
    Definition { schema: "pg_catalog", name, oid: 0, columns: &[], laid_out: true, rows }
}

/// Rows of a catalog that Amphora has nothing for.
fn nothing(_: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    Ok(Vec::new())
}

/// A row by column name; columns not named are NULL.
fn row(columns: Columns, values: &[(&str, Datum)]) -> Row {
    debug_assert!(values.iter().all(|(n, _)| columns.iter().any(|(c, _)| c == n)), "{values:?}");
    let value = |name: &str| values.iter().find(|(n, _)| *n == name).map_or(Datum::Null, |(_, v)| v.clone());
    columns.iter().map(|(name, _)| value(name)).collect()
}

fn text(s: impl AsRef<str>) -> Datum {
    Datum::text(s)
}

fn char(c: char) -> Datum {
    Datum::text(c.to_string())
}

fn int2s(items: impl IntoIterator<Item = i16>) -> Datum {
    Datum::array(DataType::Int2, items.into_iter().map(Datum::Int2).collect())
}

fn oids(items: impl IntoIterator<Item = u32>) -> Datum {
    Datum::array(DataType::Oid, items.into_iter().map(Datum::Oid).collect())
}

/// The schemas that are always there, with their OIDs.
const BUILT_IN_SCHEMAS: [(&str, u32); 4] = [
    ("pg_catalog", PG_CATALOG_OID),
    ("public", PUBLIC_OID),
    ("information_schema", INFORMATION_SCHEMA_OID),
    ("amphora", AMPHORA_SCHEMA_OID),
];

/// The OID of a schema by name.
pub fn schema_oid(catalog: &Catalog, schema: &str) -> Option<u32> {
    let built_in = BUILT_IN_SCHEMAS.iter().find(|(name, _)| *name == schema);
    built_in.map(|(_, oid)| *oid).or_else(|| catalog.schema(schema).map(|s| s.id.0))
}

/// The name of a schema by OID.
pub fn schema_name(catalog: &Catalog, oid: u32) -> Option<&str> {
    let built_in = BUILT_IN_SCHEMAS.iter().find(|(_, known)| *known == oid);
    built_in.map(|(name, _)| *name).or_else(|| catalog.schema_by_id(TableId(oid)).map(|s| s.name.as_str()))
}

/// The index of a parent that a foreign key refers to.
pub fn referenced_index<'a>(parent: &'a Table, key: &ForeignKey) -> Option<&'a Index> {
    let columns = parent.positions(&key.parent_columns)?;
    parent.all_indexes().find(|index| {
        index.is_key()
            && index.columns.len() == columns.len()
            && index.columns.iter().all(|c| columns.contains(c))
    })
}

/// OID of a CHECK constraint: its table's id and its place among the table's checks, above all others.
pub fn check_oid(table: &Table, position: usize) -> u32 {
    0x8000_0000 | (table.id.0 << 6) | (position as u32 & 63)
}

/// OID of a column's default in `pg_attrdef`.
pub fn default_oid(table: &Table, position: usize) -> u32 {
    0x4000_0000 | (table.id.0 << 8) | (position as u32 & 255)
}

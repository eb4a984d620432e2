//! What the catalog holds beside tables: schemas, views, sequences, and what ANALYZE learned.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Check, ColumnId, Table, TableId};
use crate::datum::Datum;
use crate::hlc::Timestamp;
use crate::types::DataType;
use crate::user_type::{DomainType, EnumType, Label};

/// One object of the catalog, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // nearly all are tables, and none is kept in bulk
pub enum Descriptor {
    /// A table
    Table(Table),
    /// A view
    View(View),
    /// A sequence
    Sequence(Sequence),
    /// A schema
    Schema(Schema),
    /// What ANALYZE learned of a table
    Statistics(TableStatistics),
    /// A role
    Role(Role),
    /// A type that a user made
    Type(UserType),
}

impl Descriptor {
    /// Its id.
    pub fn id(&self) -> TableId {
        match self {
            Descriptor::Table(table) => table.id,
            Descriptor::View(view) => view.id,
            Descriptor::Sequence(sequence) => sequence.id,
            Descriptor::Schema(schema) => schema.id,
            Descriptor::Statistics(statistics) => statistics.id,
            Descriptor::Role(role) => role.id,
            Descriptor::Type(ty) => ty.id,
        }
    }

    /// Sets the commit that made it.
    pub fn set_version(&mut self, version: Timestamp) {
        match self {
            Descriptor::Table(table) => table.version = version,
            Descriptor::View(view) => view.version = version,
            Descriptor::Sequence(sequence) => sequence.version = version,
            Descriptor::Schema(_) | Descriptor::Statistics(_) | Descriptor::Role(_) | Descriptor::Type(_) => {
            }
        }
    }
}

/// A schema that a user made. `public` and the system's schemas are always there and are none of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Id, and OID
    pub id: TableId,
    /// Name
    pub name: String,
    /// Owner's name
    pub owner: String,
    /// COMMENT ON SCHEMA
    pub comment: Option<String>,
}

/// A view: a named query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Id, and OID
    pub id: TableId,
    /// The commit that made this version
    pub version: Timestamp,
    /// Schema's name
    pub schema: String,
    /// Name
    pub name: String,
    /// Owner's name
    pub owner: String,
    /// Output columns: name and type
    pub columns: Vec<(String, DataType)>,
    /// The query, as SQL text in which tables and views are named by their ids (`FROM "16385" AS t`) and
    /// columns as they were named when the view was made; `relations` says which columns those are. So
    /// renaming something changes nothing, and neither does a column that is added later.
    pub query: String,
    /// The tables and views it reads, for the text and for DROP … CASCADE
    pub relations: Vec<ViewRelation>,
    /// Sequences it takes values from
    pub sequences: Vec<TableId>,
    /// COMMENT ON VIEW
    pub comment: Option<String>,
}

/// A table or view that a view reads, with the names its columns had when the view was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewRelation {
    /// The table or view
    pub id: TableId,
    /// Its columns: a table's by id; a view's by position, as an id
    pub columns: Vec<(ColumnId, String)>,
}

/// A sequence's definition. Its state is a row of [`TableId::SEQUENCES`], so that `nextval` writes no
/// catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// Id, and OID
    pub id: TableId,
    /// The commit that made this version
    pub version: Timestamp,
    /// Schema's name
    pub schema: String,
    /// Name
    pub name: String,
    /// Owner's name
    pub owner: String,
    /// smallint, integer or bigint
    pub ty: DataType,
    /// First value
    pub start: i64,
    /// Step; never 0
    pub increment: i64,
    /// Least value
    pub min: i64,
    /// Greatest value
    pub max: i64,
    /// Values a session may take at once
    pub cache: i64,
    /// CYCLE
    pub cycle: bool,
    /// The column that it is dropped with: OWNED BY, serial, identity
    pub owned_by: Option<(TableId, ColumnId)>,
    /// COMMENT ON SEQUENCE
    pub comment: Option<String>,
}

/// A role: who may connect, and as what. The roles that every cluster has are here only once they were
/// altered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Id, and OID
    pub id: TableId,
    /// Name
    pub name: String,
    /// LOGIN
    pub login: bool,
    /// SUPERUSER
    pub superuser: bool,
    /// CREATEROLE
    pub create_role: bool,
    /// CREATEDB
    pub create_database: bool,
    /// INHERIT
    pub inherit: bool,
    /// REPLICATION
    pub replication: bool,
    /// BYPASSRLS
    pub bypass_rls: bool,
    /// What a password is checked against, as PostgreSQL writes it (`SCRAM-SHA-256$…`)
    pub verifier: Option<String>,
    /// VALID UNTIL, for the password: microseconds since 2000-01-01 UTC
    pub valid_until: Option<i64>,
    /// COMMENT ON ROLE
    pub comment: Option<String>,
}

/// A type that a user made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserType {
    /// Id, and OID
    pub id: TableId,
    /// OID of its array type
    pub array: u32,
    /// Schema's name
    pub schema: String,
    /// Name
    pub name: String,
    /// Owner's name
    pub owner: String,
    /// What it is
    pub kind: UserTypeKind,
    /// COMMENT ON TYPE
    pub comment: Option<String>,
}

impl UserType {
    /// The type below a domain.
    pub fn base(&self) -> Option<&DataType> {
        match &self.kind {
            UserTypeKind::Enum(_) => None,
            UserTypeKind::Domain { base, .. } => Some(base),
        }
    }

    /// Its name as messages show it: qualified outside of `public`.
    pub fn shown(&self) -> String {
        match self.schema.as_str() {
            "public" => quoted(&self.name),
            schema => format!("{}.{}", quoted(schema), quoted(&self.name)),
        }
    }

    /// What columns of it are. `base` is the type below a domain.
    pub fn data_type(&self, base: &DataType) -> DataType {
        let (oid, array, name) = (self.id.0, self.array, self.shown());
        match &self.kind {
            UserTypeKind::Enum(labels) => {
                let label = |(oid, place, text): &(u32, i64, String)| {
                    Arc::new(Label { oid: *oid, place: *place, text: Arc::from(text.as_str()) })
                };
                let labels = labels.iter().map(label).collect();
                DataType::Enum(Arc::new(EnumType { oid, array, name, labels }))
            }
            UserTypeKind::Domain { not_null, default, checks, .. } => {
                DataType::Domain(Arc::new(DomainType {
                    oid,
                    array,
                    name,
                    base: base.clone(),
                    not_null: *not_null,
                    default: default.clone(),
                    checks: checks.iter().map(|c| (c.name.clone(), c.expression.clone())).collect(),
                }))
            }
        }
    }
}

/// An identifier as SQL needs it.
fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// What a user's type is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserTypeKind {
    /// CREATE TYPE … AS ENUM: labels by place, ascending, as (OID, place, text)
    Enum(Vec<(u32, i64, String)>),
    /// CREATE DOMAIN
    Domain {
        /// The type below
        base: DataType,
        /// NOT NULL
        not_null: bool,
        /// DEFAULT, as SQL text
        default: Option<String>,
        /// CHECK constraints over VALUE, as SQL text
        checks: Vec<Check>,
    },
}

/// GENERATED … AS IDENTITY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// GENERATED ALWAYS
    Always,
    /// GENERATED BY DEFAULT
    ByDefault,
}

/// A FOREIGN KEY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// Constraint's name
    pub name: String,
    /// OID, for pg_catalog
    pub oid: u32,
    /// Referencing columns, in order. By id: positions move when columns are dropped.
    pub columns: Vec<ColumnId>,
    /// Referenced table
    pub parent: TableId,
    /// Referenced columns: the whole primary key, or a unique index's columns
    pub parent_columns: Vec<ColumnId>,
    /// ON DELETE
    pub on_delete: ReferentialAction,
    /// ON UPDATE
    pub on_update: ReferentialAction,
    /// MATCH FULL: its columns are all NULL or none is
    pub match_full: bool,
    /// DEFERRABLE: SET CONSTRAINTS may put its check off until COMMIT
    pub deferrable: bool,
    /// INITIALLY DEFERRED: it is put off unless SET CONSTRAINTS says otherwise
    pub deferred: bool,
    /// False after NOT VALID, until VALIDATE CONSTRAINT: rows older than it were not looked at
    pub validated: bool,
    /// COMMENT ON CONSTRAINT
    pub comment: Option<String>,
}

/// What becomes of referencing rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReferentialAction {
    /// Refused (23503), checked at the end of the statement
    NoAction,
    /// Refused (23503), checked at once
    Restrict,
    /// They go, or change, too
    Cascade,
    /// Their columns become NULL
    SetNull,
    /// Their columns get their defaults
    SetDefault,
}

/// What ANALYZE learned of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStatistics {
    /// Id of this record itself
    pub id: TableId,
    /// The table
    pub table: TableId,
    /// Rows
    pub rows: u64,
    /// Bytes of its rows, about
    pub bytes: u64,
    /// Columns that were looked at
    pub columns: Vec<ColumnStatistics>,
}

/// What ANALYZE learned of a column. Fractions are in millionths, so that descriptors compare exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnStatistics {
    /// The column
    pub column: ColumnId,
    /// NULLs, in millionths of the rows
    pub null_fraction: u32,
    /// Mean width in bytes
    pub width: u32,
    /// Different values; see `distinct_scales`
    pub distinct: u64,
    /// True if `distinct` is in millionths of the rows, because it grows with them
    pub distinct_scales: bool,
    /// Most common values, most frequent first
    pub most_common: MostCommon,
    /// Bounds of equally filled buckets of the other values, ascending
    pub histogram: Histogram,
    /// How far the stored order follows the column's, in millionths (−1,000,000 … 1,000,000)
    pub correlation: i32,
}

/// Values and their frequencies in millionths of the rows.
pub type MostCommon = Vec<(Datum, u32)>;

/// Bounds of equally filled buckets.
pub type Histogram = Vec<Datum>;

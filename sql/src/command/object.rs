//! Commands about schemas, sequences, views and comments, and what makes or empties tables beside CREATE
//! TABLE.

use std::sync::Arc;

use amphora_storage::DataType;
use amphora_storage::schema::{ColumnId, TableId, ViewRelation};
use sqlparser::ast;

use super::{CreateTable, TypeCommand};
use crate::dependency::Object;

/// A command, bound: names are resolved, and looked at again when it runs.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // a variant's comment says what its fields are
pub enum ObjectCommand {
    /// CREATE SCHEMA
    CreateSchema { name: String, owner: Option<String>, if_not_exists: bool },
    /// ALTER SCHEMA … RENAME TO
    RenameSchema { name: String, to: String },
    /// CREATE SEQUENCE
    CreateSequence { schema: String, name: String, if_not_exists: bool, sequence: NewSequence },
    /// ALTER SEQUENCE
    AlterSequence { id: TableId, sequence: NewSequence },
    /// ALTER VIEW | SEQUENCE … RENAME TO, SET SCHEMA: new schema and name
    Rename { id: TableId, tag: &'static str, schema: Option<String>, name: Option<String> },
    /// ALTER VIEW … RENAME COLUMN
    RenameViewColumn { id: TableId, tag: &'static str, column: String, to: String },
    /// ALTER … OWNER TO
    SetOwner { object: Object, tag: &'static str, owner: String },
    /// COMMENT ON; `None` removes it
    Comment { on: Commented, text: Option<String> },
    /// CREATE VIEW
    CreateView(Box<CreateView>),
    /// CREATE TABLE … AS
    CreateTableAs(Box<CreateTableAs>),
    /// Enumerated types and domains
    Type(TypeCommand),
    /// TRUNCATE
    Truncate { tables: Vec<TableId>, restart: bool, cascade: bool },
    /// DROP TABLE | VIEW | SEQUENCE | SCHEMA
    Drop { tag: &'static str, objects: Vec<Object>, cascade: bool, notices: Vec<String> },
}

impl ObjectCommand {
    /// The command's name, as its tag.
    pub fn tag(&self) -> &'static str {
        match self {
            ObjectCommand::CreateSchema { .. } => "CREATE SCHEMA",
            ObjectCommand::RenameSchema { .. } => "ALTER SCHEMA",
            ObjectCommand::CreateSequence { .. } => "CREATE SEQUENCE",
            ObjectCommand::AlterSequence { .. } => "ALTER SEQUENCE",
            ObjectCommand::Comment { .. } => "COMMENT",
            ObjectCommand::CreateView(_) => "CREATE VIEW",
            ObjectCommand::CreateTableAs(_) => "CREATE TABLE AS",
            ObjectCommand::Type(command) => command.tag(),
            ObjectCommand::Truncate { .. } => "TRUNCATE TABLE",
            ObjectCommand::Rename { tag, .. }
            | ObjectCommand::RenameViewColumn { tag, .. }
            | ObjectCommand::SetOwner { tag, .. }
            | ObjectCommand::Drop { tag, .. } => tag,
        }
    }
}

/// The options of CREATE or ALTER SEQUENCE; what was not given is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewSequence {
    /// AS
    pub ty: Option<DataType>,
    /// INCREMENT
    pub increment: Option<i64>,
    /// MINVALUE; NO MINVALUE is `Some(None)`
    pub min: Option<Option<i64>>,
    /// MAXVALUE
    pub max: Option<Option<i64>>,
    /// START
    pub start: Option<i64>,
    /// CACHE
    pub cache: Option<i64>,
    /// CYCLE
    pub cycle: Option<bool>,
    /// OWNED BY; NONE is `Some(None)`
    pub owned_by: Option<Option<(TableId, ColumnId)>>,
    /// RESTART, with a value or without
    pub restart: Option<Option<i64>>,
}

/// What a comment is on.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Commented {
    /// A table, view or sequence
    Relation(TableId),
    /// A column of a table
    Column(TableId, ColumnId),
    /// An index of a table, or its constraint, by name
    Index(TableId, String),
    /// A foreign key
    ForeignKey(TableId, String),
    /// A schema
    Schema(TableId),
    /// A user's type
    Type(TableId),
}

/// CREATE VIEW, bound.
#[derive(Clone, Debug)]
pub struct CreateView {
    /// Schema
    pub schema: String,
    /// Name
    pub name: String,
    /// OR REPLACE
    pub or_replace: bool,
    /// Output columns
    pub columns: Vec<(String, DataType)>,
    /// The query as it is stored
    pub query: String,
    /// What it reads
    pub relations: Vec<ViewRelation>,
    /// Sequences it takes values from
    pub sequences: Vec<TableId>,
}

/// CREATE TABLE … AS, bound.
#[derive(Clone, Debug)]
pub struct CreateTableAs {
    /// The table
    pub table: CreateTable,
    /// What fills it; `None` is WITH NO DATA
    pub query: Option<Arc<ast::Query>>,
}

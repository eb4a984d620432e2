//! Commands about enumerated types and domains.

use amphora_storage::DataType;
use amphora_storage::schema::TableId;

/// A command about a user's type.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // a variant's comment says what its fields are
pub enum TypeCommand {
    /// CREATE TYPE … AS ENUM
    CreateEnum { schema: String, name: String, labels: Vec<String> },
    /// CREATE DOMAIN
    CreateDomain(Box<NewDomain>),
    /// ALTER TYPE … ADD VALUE; before (true) or after another
    AddValue { id: TableId, label: String, if_not_exists: bool, neighbour: Option<(bool, String)> },
    /// ALTER TYPE … RENAME VALUE
    RenameValue { id: TableId, from: String, to: String },
    /// ALTER DOMAIN
    AlterDomain { id: TableId, change: DomainChange },
    /// RENAME TO, SET SCHEMA
    Rename { id: TableId, tag: &'static str, schema: Option<String>, name: Option<String> },
}

/// CREATE DOMAIN, bound.
#[derive(Clone, Debug)]
pub struct NewDomain {
    /// Schema
    pub schema: String,
    /// Name
    pub name: String,
    /// The type below
    pub base: DataType,
    /// NOT NULL
    pub not_null: bool,
    /// DEFAULT, as SQL text
    pub default: Option<String>,
    /// CHECK: name and SQL text
    pub checks: Vec<(String, String)>,
}

/// What ALTER DOMAIN does.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum DomainChange {
    /// SET or DROP DEFAULT
    Default(Option<String>),
    /// SET or DROP NOT NULL
    NotNull(bool),
    /// ADD CONSTRAINT: name and SQL text; existing values are looked at if `validate`
    AddCheck { name: String, check: String, validate: bool },
    /// DROP CONSTRAINT
    DropCheck { name: String, if_exists: bool },
    /// RENAME CONSTRAINT
    RenameCheck { name: String, to: String },
    /// VALIDATE CONSTRAINT
    Validate(String),
}

impl TypeCommand {
    /// The command's name, as its tag.
    pub fn tag(&self) -> &'static str {
        match self {
            TypeCommand::CreateEnum { .. } => "CREATE TYPE",
            TypeCommand::CreateDomain(_) => "CREATE DOMAIN",
            TypeCommand::AddValue { .. } | TypeCommand::RenameValue { .. } => "ALTER TYPE",
            TypeCommand::AlterDomain { .. } => "ALTER DOMAIN",
            TypeCommand::Rename { tag, .. } => tag,
        }
    }
}

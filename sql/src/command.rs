//! Statements that are carried out, not planned.

mod object;
mod user_type;

use std::sync::Arc;

use amphora_replication::IsolationLevel;
use amphora_storage::DataType;
use amphora_storage::schema::{ForeignKey, Identity, Index, IndexId, Quorum, Replication, Table, TableId};

pub use object::{Commented, CreateTableAs, CreateView, NewSequence, ObjectCommand};
pub use user_type::{DomainChange, NewDomain, TypeCommand};

use crate::plan::Prepared;

/// A command.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // a variant's comment says what its fields are
pub enum Command {
    /// BEGIN, START TRANSACTION
    Begin(TransactionModes),
    /// COMMIT, END
    Commit,
    /// ROLLBACK, ABORT
    Rollback,
    /// SAVEPOINT
    Savepoint(String),
    /// RELEASE SAVEPOINT
    Release(String),
    /// ROLLBACK TO SAVEPOINT
    RollbackTo(String),
    /// SET TRANSACTION, SET SESSION CHARACTERISTICS (true)
    SetTransaction(TransactionModes, bool),
    /// SET [LOCAL] name = value; `None` is DEFAULT, and RESET
    Set { name: String, value: Option<String>, local: bool },
    /// RESET ALL
    ResetAll,
    /// SET CONSTRAINTS: schema and name of each, or ALL; DEFERRED (true) or IMMEDIATE
    SetConstraints { names: Option<Vec<(Option<String>, String)>>, deferred: bool },
    /// SHOW name; `all`
    Show(String),
    /// DISCARD ALL and its kin: forgets session state
    Discard,
    /// FETCH, MOVE
    Fetch(Fetch),
    /// CLOSE name; `None` is ALL
    CloseCursor(Option<String>),
    /// DEALLOCATE name; `None` is ALL
    Deallocate(Option<String>),
    /// PREPARE name AS …
    Prepare { name: String, parameters: Vec<DataType>, sql: String },
    /// EXECUTE name (…)
    Execute { name: String, args: Vec<crate::expr::Expr> },
    /// CREATE TABLE
    CreateTable(Box<CreateTable>),
    /// ALTER TABLE
    AlterTable(Box<AlterTable>),
    /// ALTER INDEX … RENAME TO
    RenameIndex { table: TableId, old: String, new: String },
    /// ALTER INDEX … SET and RESET: the index's options as they will be
    SetIndexOptions { table: TableId, index: IndexId, options: Vec<(String, String)> },
    /// REINDEX: indexes are never out of step with their rows, nor bloated. What it is called if it runs in no
    /// transaction block; and the indexes of leaderless tables, which are made anew all the same: a table's index of
    /// this name, or all that it has.
    Reindex { alone: Option<&'static str>, renew: Vec<(TableId, Option<String>)> },
    /// Schemas, sequences, views, comments; DROP of those and of tables; TRUNCATE; CREATE TABLE … AS
    Object(Box<ObjectCommand>),
    /// CREATE INDEX
    CreateIndex(Box<CreateIndex>),
    /// DROP INDEX: (table, index name)
    DropIndexes { indexes: Vec<(TableId, String)>, notices: Vec<String>, concurrently: bool },
    /// CREATE, ALTER and DROP ROLE
    Role(Box<RoleCommand>),
    /// Nothing to do, with a notice to say why (IF [NOT] EXISTS)
    Notice(&'static str, String),
    /// A statement accepted for compatibility that changes nothing here (command tag)
    Nothing(&'static str),
    /// ANALYZE, or VACUUM (ANALYZE): tables, and positions of their columns
    Analyze { tag: &'static str, tables: Vec<(TableId, Vec<usize>)>, warnings: Vec<String> },
    /// EXECUTE's statement, bound
    Bound(Box<Prepared>),
}

/// Modes of a transaction, where given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionModes {
    /// ISOLATION LEVEL
    pub isolation: Option<IsolationLevel>,
    /// READ ONLY / READ WRITE
    pub read_only: Option<bool>,
    /// DEFERRABLE / NOT DEFERRABLE
    pub deferrable: Option<bool>,
    /// AS OF SYSTEM TIME: a time, or an interval from now
    pub as_of: Option<Box<str>>,
}

/// CREATE TABLE, checked and typed; ids are given when it runs.
#[derive(Clone, Debug)]
pub struct CreateTable {
    /// Schema
    pub schema: String,
    /// Name
    pub name: String,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// strong or leaderless
    pub replication: Replication,
    /// Columns: name, type, NOT NULL, DEFAULT as SQL text
    pub columns: Vec<NewColumn>,
    /// PRIMARY KEY, without ids yet; `None` gives a hidden key
    pub primary_key: Option<Index>,
    /// UNIQUE constraints, without ids yet
    pub uniques: Vec<Index>,
    /// Indexes that are no constraints, without ids yet
    pub indexes: Vec<Index>,
    /// CHECK: name and SQL text
    pub checks: Vec<(String, String)>,
    /// FOREIGN KEY: column ids are positions, and a reference to the table itself has id 0
    pub foreign_keys: Vec<ForeignKey>,
    /// Tables referred to, as they were when the keys were checked
    pub parents: Vec<Arc<Table>>,
    /// Which nodes a commit waits for (leaderless)
    pub write_quorum: Quorum,
    /// Which nodes a read asks (leaderless)
    pub read_quorum: Quorum,
    /// What the client should be told
    pub notices: Vec<String>,
}

/// ALTER TABLE. Its actions are bound one after the other as they are carried out.
#[derive(Clone, Debug)]
pub struct AlterTable {
    /// The table
    pub table: TableId,
    /// The actions, as parsed
    pub(crate) actions: Vec<crate::parser::TableAction>,
}

/// A column of CREATE TABLE.
#[derive(Clone, Debug)]
pub struct NewColumn {
    /// Name
    pub name: String,
    /// Type
    pub ty: DataType,
    /// NOT NULL
    pub not_null: bool,
    /// DEFAULT, as SQL text
    pub default: Option<String>,
    /// The sequence that fills it: serial, identity
    pub sequence: Option<NewSequence>,
    /// GENERATED … AS IDENTITY
    pub identity: Option<Identity>,
    /// GENERATED ALWAYS AS (…) STORED, as SQL text
    pub generated: Option<String>,
}

impl NewColumn {
    /// A column that may be NULL, without default.
    pub fn plain(name: String, ty: DataType) -> NewColumn {
        NewColumn {
            name,
            ty,
            not_null: false,
            default: None,
            sequence: None,
            identity: None,
            generated: None,
        }
    }
}

/// CREATE INDEX.
#[derive(Clone, Debug)]
pub struct CreateIndex {
    /// On
    pub table: TableId,
    /// The index, without ids yet; its name was given, or made up as PostgreSQL does
    pub index: Index,
    /// IF NOT EXISTS
    pub if_not_exists: bool,
    /// CONCURRENTLY
    pub concurrently: bool,
}

/// What is to be done to a role.
#[derive(Clone, Debug)]
pub enum RoleCommand {
    /// CREATE ROLE, CREATE USER (whose role may log in)
    Create {
        /// Name
        name: String,
        /// The command spelled USER, which implies LOGIN
        user: bool,
        /// What it may do
        options: RoleOptions,
    },
    /// ALTER ROLE … options
    Alter {
        /// Name
        name: String,
        /// What changes
        options: RoleOptions,
    },
    /// ALTER ROLE … RENAME TO
    Rename {
        /// Old name
        name: String,
        /// New name
        to: String,
    },
    /// DROP ROLE
    Drop {
        /// Names
        names: Vec<String>,
        /// IF EXISTS
        if_exists: bool,
    },
}

/// Options of a role, where given.
#[derive(Clone, Debug, Default)]
pub struct RoleOptions {
    /// LOGIN
    pub login: Option<bool>,
    /// SUPERUSER
    pub superuser: Option<bool>,
    /// CREATEROLE
    pub create_role: Option<bool>,
    /// CREATEDB
    pub create_database: Option<bool>,
    /// INHERIT
    pub inherit: Option<bool>,
    /// REPLICATION
    pub replication: Option<bool>,
    /// BYPASSRLS
    pub bypass_rls: Option<bool>,
    /// PASSWORD; the inner `None` is NULL
    pub password: Option<Option<String>>,
    /// VALID UNTIL, as text
    pub valid_until: Option<String>,
}

/// A cursor as DECLARE describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CursorOptions {
    /// Name
    pub name: String,
    /// BINARY: its values are sent in their binary form
    pub binary: bool,
    /// SCROLL (true) or NO SCROLL, where given
    pub scroll: Option<bool>,
    /// WITH HOLD: it outlives its transaction
    pub hold: bool,
}

/// FETCH and MOVE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The cursor
    pub name: String,
    /// Which way and how far
    pub motion: Motion,
    /// FETCH: the rows are shown
    pub shows: bool,
}

/// How a cursor moves. `None` is ALL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    /// FORWARD, NEXT, a bare count
    Forward(Option<i64>),
    /// BACKWARD, PRIOR
    Backward(Option<i64>),
    /// ABSOLUTE, FIRST, LAST: from the end if negative
    Absolute(i64),
    /// RELATIVE
    Relative(i64),
}

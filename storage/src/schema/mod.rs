//! What a table is: its columns, keys, indexes and checks, and how it is replicated.
//!
//! A descriptor is an immutable value with a version. Statements hold an `Arc` of the descriptors they
//! were planned with; the commit says which versions it was planned with and the certifier refuses it if
//! one has moved.

mod catalog;
mod index;
mod object;
mod quorum;
mod sequence;

use serde::{Deserialize, Serialize};

use crate::datum::Datum;
use crate::hlc::Timestamp;
use crate::types::DataType;

pub use catalog::{Catalog, Relation};
pub use index::{Derived, Index, IndexExpression, IndexMethod, KeyOrder};
pub use object::{
    ColumnStatistics, Descriptor, ForeignKey, Histogram, Identity, MostCommon, ReferentialAction, Role,
    Schema, Sequence, TableStatistics, UserType, UserTypeKind, View, ViewRelation,
};
pub use quorum::{NoQuorum, Quorum};
pub use sequence::{SequenceEnd, SequenceState, SequenceValues};

/// The id of a table, or of any other object of the catalog: all draw from one counter, and none is ever
/// used again, not even after DROP. Also its OID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableId(pub u32);

/// An index's id within its table. [`IndexId::PRIMARY`] is the rows themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IndexId(pub u32);

/// A column's id within its table: stable when other columns are dropped, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ColumnId(pub u32);

impl TableId {
    /// The first id given to a user's table; PostgreSQL's first normal OID too.
    pub const FIRST_USER: TableId = TableId(16384);
    /// The keyspace of the catalog itself: one row per descriptor.
    pub const CATALOG: TableId = TableId(1);
    /// The keyspace of sequences' states: one row per sequence, keyed by its id.
    pub const SEQUENCES: TableId = TableId(2);
    /// The keyspace of what large transactions have sent ahead of their commit.
    pub const STAGING: TableId = TableId(3);
}

impl IndexId {
    /// The primary index: the rows.
    pub const PRIMARY: IndexId = IndexId(0);
}

/// How a table is replicated: the `replication` option of CREATE TABLE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Replication {
    /// One Raft leader orders every commit
    Strong,
    /// Every node writes; concurrent writes merge
    Leaderless,
}

impl Replication {
    /// The option's value, as SQL spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Replication::Strong => "strong",
            Replication::Leaderless => "leaderless",
        }
    }
}

/// Which of two concurrent writes to a plain column of a leaderless table is shown: the column's option
/// `conflict`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConflictPolicy {
    /// The later by clock
    #[default]
    Lww,
    /// The earlier by clock
    First,
    /// The greater value
    Max,
    /// The lesser value
    Min,
    /// The later by clock, and the conflict is reported in the log as an error
    ErrorLog,
}

impl ConflictPolicy {
    /// The option's value, as SQL spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            ConflictPolicy::Lww => "lww",
            ConflictPolicy::First => "first",
            ConflictPolicy::Max => "max",
            ConflictPolicy::Min => "min",
            ConflictPolicy::ErrorLog => "error_log",
        }
    }

    /// The policy of this name.
    pub fn from_name(name: &str) -> Option<ConflictPolicy> {
        use ConflictPolicy::*;
        [Lww, First, Max, Min, ErrorLog].into_iter().find(|policy| policy.as_str() == name)
    }
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Stable id
    pub id: ColumnId,
    /// Name, already case-folded
    pub name: String,
    /// Declared type; a CRDT type only on leaderless tables
    pub ty: DataType,
    /// NOT NULL
    pub not_null: bool,
    /// DEFAULT, as SQL text that the binder can bind again
    pub default: Option<String>,
    /// GENERATED … AS IDENTITY; its sequence is the one that this column owns
    pub identity: Option<Identity>,
    /// GENERATED ALWAYS AS (…) STORED: the expression over the row's other columns, as SQL text
    pub generated: Option<String>,
    /// What rows hold that were written before ADD COLUMN … DEFAULT; NULL for most columns
    pub missing: Datum,
    /// COMMENT ON COLUMN
    pub comment: Option<String>,
    /// What becomes of concurrent writes; a mergeable type has its own way
    pub conflict: ConflictPolicy,
}

impl Column {
    /// A column that may be NULL, without default.
    pub fn new(id: ColumnId, name: impl Into<String>, ty: DataType) -> Column {
        Column {
            id,
            name: name.into(),
            ty,
            not_null: false,
            default: None,
            identity: None,
            generated: None,
            missing: Datum::Null,
            comment: None,
            conflict: ConflictPolicy::Lww,
        }
    }
}

/// A CHECK constraint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Name
    pub name: String,
    /// The condition, as SQL text that the binder can bind again
    pub expression: String,
    /// False after NOT VALID, until VALIDATE CONSTRAINT: rows older than it were not looked at
    pub validated: bool,
}

/// A table. `columns` is in attribute order; a row holds one datum per entry of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Id, and OID
    pub id: TableId,
    /// The commit that made this version; [`Timestamp::ZERO`] until it has committed
    pub version: Timestamp,
    /// Schema's name (`public`)
    pub schema: String,
    /// Table's name, already case-folded
    pub name: String,
    /// Owner's name
    pub owner: String,
    /// Strong or leaderless
    pub replication: Replication,
    /// The columns
    pub columns: Vec<Column>,
    /// The primary key, id 0. A table declared without one gets a hidden key column at the end:
    /// see [`Table::hidden_key`].
    pub primary: Index,
    /// True if the last column is a hidden `bigint` key that the system fills
    pub hidden_key: bool,
    /// Secondary indexes
    pub indexes: Vec<Index>,
    /// CHECK constraints
    pub checks: Vec<Check>,
    /// FOREIGN KEY constraints of this table. Who refers to it: [`Catalog::referencing`].
    pub foreign_keys: Vec<ForeignKey>,
    /// COMMENT ON TABLE
    pub comment: Option<String>,
    /// Ids already used, so that none is used again
    pub next_column_id: u32,
    /// Ids already used, so that none is used again
    pub next_index_id: u32,
    /// Where its rows lie since they were last written anew as a whole: a keyspace of that id, which is no
    /// object's. `None` is its own id. What lay elsewhere is reclaimed like a dropped table.
    pub storage: Option<TableId>,
    /// Which nodes a leaderless commit waits for
    pub write_quorum: Quorum,
    /// Which nodes a leaderless read asks
    pub read_quorum: Quorum,
}

impl Table {
    /// True of a strong table.
    pub fn is_strong(&self) -> bool {
        self.replication == Replication::Strong
    }

    /// The columns a user sees: all but a hidden key.
    pub fn visible_columns(&self) -> &[Column] {
        let n = self.columns.len() - usize::from(self.hidden_key);
        &self.columns[..n]
    }

    /// Position of a column by name, hidden ones excluded.
    pub fn column_position(&self, name: &str) -> Option<usize> {
        self.visible_columns().iter().position(|c| c.name == name)
    }

    /// The key columns' values of a row, in key order.
    pub fn key_of(&self, row: &[Datum]) -> Vec<Datum> {
        self.primary.columns.iter().map(|&c| row[c].clone()).collect()
    }

    /// The primary index and the secondary ones.
    pub fn all_indexes(&self) -> impl Iterator<Item = &Index> {
        std::iter::once(&self.primary).chain(&self.indexes)
    }

    /// The keyspace of its rows and index entries.
    pub fn keyspace(&self) -> TableId {
        self.storage.unwrap_or(self.id)
    }

    /// The number by which catalogs and clients know the column at this position, from 1: it stays when other
    /// columns are dropped. A hidden key has none of its own and leaves no gap.
    pub fn attribute_number(&self, position: usize) -> i16 {
        let Some(column) = self.columns.get(position) else { return 0 };
        let hidden = self.columns.last().filter(|last| self.hidden_key && last.id < column.id);
        i16::try_from(column.id.0 + 1 - u32::from(hidden.is_some())).unwrap_or(i16::MAX)
    }

    /// Positions in [`Table::columns`] of columns given by id; `None` if one of them is gone.
    pub fn positions(&self, columns: &[ColumnId]) -> Option<Vec<usize>> {
        columns.iter().map(|id| self.columns.iter().position(|c| c.id == *id)).collect()
    }

    /// Gives secondary indexes ids that they never had: what has entries of them makes them anew.
    pub fn renew_indexes(&mut self, which: impl Fn(&Index) -> bool) {
        for index in self.indexes.iter_mut().filter(|index| which(index)) {
            index.id = IndexId(self.next_index_id);
            self.next_index_id += 1;
        }
    }

    /// An index by id.
    pub fn index(&self, id: IndexId) -> Option<&Index> {
        self.all_indexes().find(|i| i.id == id)
    }
}

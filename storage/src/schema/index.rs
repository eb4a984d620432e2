//! What an index is.
//!
//! ```text
//!   CREATE UNIQUE INDEX ON users (tenant, lower(email) DESC) INCLUDE (name) WHERE deleted_at IS NULL
//!
//!   columns      [1, EXPRESSION + 0]        what is indexed, in order
//!   expressions  [lower(email): text]       what of it is no column
//!   orders       [asc, desc]                how each lies in the keyspace
//!   include      [4]                        kept in the entry, and no part of its key
//!   predicate    deleted_at IS NULL         rows that have an entry
//! ```
//!
//! Expressions and predicates are SQL text here; what computes them lives above and keeps what it made of
//! the text in [`Index::derived`], for as long as the descriptor lives.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::{IndexId, Table};
use crate::key;
use crate::types::DataType;

/// A secondary index, or the primary key (id 0).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Id within the table
    pub id: IndexId,
    /// Name, unique within the schema
    pub name: String,
    /// OID, for pg_catalog
    pub oid: u32,
    /// What is indexed, in order: positions in [`Table::columns`], and from [`Index::EXPRESSION`] on places in
    /// [`Index::expressions`]
    pub columns: Vec<usize>,
    /// How each of `columns` is ordered; those that are not listed ascend, NULLs last
    pub orders: Vec<KeyOrder>,
    /// What of `columns` an entry is made of
    pub method: IndexMethod,
    /// What is indexed and is no column
    pub expressions: Vec<IndexExpression>,
    /// INCLUDE: positions in [`Table::columns`] of columns that entries hold beside their key
    pub include: Vec<usize>,
    /// WHERE, as SQL text: only rows for which it is true have an entry
    pub predicate: Option<String>,
    /// Operator classes that were named, for each of `columns`; empty if none was
    pub classes: Vec<Option<String>>,
    /// `fillfactor` and its like, as given: nothing is made of them
    pub options: Vec<(String, String)>,
    /// UNIQUE
    pub unique: bool,
    /// NULLS NOT DISTINCT: NULLs conflict too
    pub nulls_not_distinct: bool,
    /// True if made by a UNIQUE or PRIMARY KEY constraint rather than by CREATE INDEX
    pub constraint: bool,
    /// DEFERRABLE, of a constraint's
    pub deferrable: bool,
    /// INITIALLY DEFERRED, of a constraint's
    pub deferred: bool,
    /// CLUSTER was last done by it
    pub clustered: bool,
    /// COMMENT ON INDEX, or on its constraint
    pub comment: Option<String>,
    /// What the floor above made of the texts
    #[serde(skip)]
    pub derived: Derived,
}

/// What an entry of an index is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexMethod {
    /// The values, in their order: one entry a row
    #[default]
    BTree,
    /// Each element of one array: as many entries a row as it has different elements that are not NULL
    Gin,
}

impl IndexMethod {
    /// As `USING` names it.
    pub fn as_str(self) -> &'static str {
        match self {
            IndexMethod::BTree => "btree",
            IndexMethod::Gin => "gin",
        }
    }
}

/// How a column of an index is ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyOrder {
    /// DESC
    pub descending: bool,
    /// NULLS FIRST
    pub nulls_first: bool,
}

impl KeyOrder {
    /// True if NULLs lie beside the smallest values rather than beside the greatest.
    pub fn nulls_low(self) -> bool {
        self.descending != self.nulls_first
    }
}

/// What an index has in the place of a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexExpression {
    /// SQL text that the binder can bind again
    pub text: String,
    /// Name of the index's attribute
    pub name: String,
    /// Type of its values
    pub ty: DataType,
}

/// A place for what is made of a descriptor. It is no part of its value: a copy, which may be changed, begins
/// with nothing.
#[derive(Default)]
pub struct Derived(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Derived {
    /// What is there, or else what `make` gives.
    pub fn get_or_make<T, E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E>
    where
        T: Any + Send + Sync,
    {
        if let Some(known) = self.0.get().cloned().and_then(|known| known.downcast::<T>().ok()) {
            return Ok(known);
        }
        let made = Arc::new(make()?);
        // Another may have been quicker with the same.
        let _ = self.0.set(made.clone());
        Ok(made)
    }
}

impl Clone for Derived {
    fn clone(&self) -> Derived {
        Derived::default()
    }
}

impl PartialEq for Derived {
    fn eq(&self, _: &Derived) -> bool {
        true
    }
}

impl Eq for Derived {}

impl std::fmt::Debug for Derived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Derived")
    }
}

impl Index {
    /// Above every column's position: `EXPRESSION + i` in [`Index::columns`] is [`Index::expressions`]`[i]`.
    pub const EXPRESSION: usize = 1 << 20;

    /// An index over columns of its table, for all of its rows.
    pub fn new(id: IndexId, name: impl Into<String>, oid: u32, columns: Vec<usize>) -> Index {
        Index {
            id,
            name: name.into(),
            oid,
            columns,
            orders: Vec::new(),
            method: IndexMethod::BTree,
            expressions: Vec::new(),
            include: Vec::new(),
            predicate: None,
            classes: Vec::new(),
            options: Vec::new(),
            unique: false,
            nulls_not_distinct: false,
            constraint: false,
            deferrable: false,
            deferred: false,
            clustered: false,
            comment: None,
            derived: Derived::default(),
        }
    }

    /// A UNIQUE or PRIMARY KEY constraint's.
    pub fn of_constraint(id: IndexId, name: impl Into<String>, oid: u32, columns: Vec<usize>) -> Index {
        Index { unique: true, constraint: true, ..Index::new(id, name, oid, columns) }
    }

    /// True if its entries are known from a row's columns alone, and every row has one.
    pub fn is_plain(&self) -> bool {
        self.expressions.is_empty() && self.predicate.is_none()
    }

    /// True of a unique index that keeps any two rows of the table from having the same columns.
    pub fn is_key(&self) -> bool {
        self.unique && self.is_plain()
    }

    /// True of an index that has the elements of an array, and not the array.
    pub fn is_of_elements(&self) -> bool {
        self.method == IndexMethod::Gin
    }

    /// The order of the column at this place.
    pub fn order(&self, place: usize) -> KeyOrder {
        self.orders.get(place).copied().unwrap_or_default()
    }

    /// The expression that an entry of `columns` names, if it names none of the table's columns.
    pub fn expression(&self, column: usize) -> Option<&IndexExpression> {
        column.checked_sub(Index::EXPRESSION).and_then(|i| self.expressions.get(i))
    }

    /// The type of what an entry of `columns` names.
    pub fn type_of<'a>(&'a self, table: &'a Table, column: usize) -> Option<&'a DataType> {
        match self.expression(column) {
            Some(expression) => Some(&expression.ty),
            None => table.columns.get(column).map(|c| &c.ty),
        }
    }

    /// True if the table's column at this position is indexed or included as it is. Expressions and the
    /// predicate may read it all the same.
    pub fn names(&self, position: usize) -> bool {
        self.columns.contains(&position) || self.include.contains(&position)
    }

    /// The table's columns have moved: `to` gives the new position of each.
    pub fn move_columns(&mut self, to: impl Fn(usize) -> usize) {
        let columns = self.columns.iter_mut().filter(|c| **c < Index::EXPRESSION);
        columns.chain(&mut self.include).for_each(|c| *c = to(*c));
    }

    /// True of a secondary index whose entries have all of these columns of its table (positions), just as
    /// they are in the rows: nothing need be fetched to read them.
    pub fn covers(&self, table: &Table, columns: &[usize]) -> bool {
        let has = |column: &usize| {
            self.include.contains(column)
                || (self.columns.contains(column) || table.primary.columns.contains(column))
                    && table.columns.get(*column).is_some_and(|c| key::is_exact(&c.ty))
        };
        self.id != IndexId::PRIMARY && !self.is_of_elements() && columns.iter().all(has)
    }
}

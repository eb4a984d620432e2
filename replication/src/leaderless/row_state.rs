//! A row of a leaderless table: state, delta and log record are this one type, with one `join`.
//!
//! A row's life is its *causal length* (Yu, Rostad, 2020): a number that starts at 0, is odd while the row is
//! alive and even while it is not. An insert takes it to the next odd number, a delete to the next even one,
//! and a join takes the greater. Nothing else is needed for deletes to converge, however many nodes
//! delete and insert at once.
//!
//! ```text
//!   node A   insert(1) ───► update n ───────────────────────────┐
//!   node B       └────────► delete(2) ──────────┐               ├──► 3: alive, B's new cells only
//!   node C                                      └─► insert(3) ──┘
//!
//!   a delete beats the updates it had not seen; a re-insert beats the delete
//! ```
//!
//! The cells belong to the generation that the causal length names. The join of two rows of different
//! lengths is the longer one with its cells; of equal lengths, cell by cell. (This is the lexicographic
//! product of a chain and a semilattice with a least element, which is again a semilattice.)
//!
//! An update may overtake the insert it depends on, when they come from two origins. Such a row is not
//! `born` here yet and stays invisible until the insert arrives.

use std::collections::BTreeMap;

use amphora_storage::Timestamp;
use amphora_storage::schema::ColumnId;
use serde::{Deserialize, Serialize};

use super::cell::Cell;
use super::dots::Dot;

/// A mixed transaction's place in the Raft log. Transactions of one entry are ordered by their commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupIndex {
    /// The entry's log index
    pub log_index: u64,
    /// The transaction's commit timestamp
    pub commit: Timestamp,
}

/// The state of a row, or what a commit changed of it, or what one replica has that another may lack.
///
/// The default is the row of which nothing is known: the least element of the join.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowState {
    /// Causal length: odd is alive, even is not, 0 is never inserted
    pub cl: u64,
    /// True once the insert of this generation has been joined; without it the row is invisible
    pub born: bool,
    /// The last mixed transaction merged into this row: the Raft log delivers in order, so all earlier
    /// ones are in it too, and a replay after a crash skips them
    pub group_index: GroupIndex,
    /// The commit that brought the row to this length, once it has been deleted: its origin and number
    pub ended: Option<Dot>,
    /// The cells of this generation; a column never written has none
    pub cells: BTreeMap<ColumnId, Cell>,
}

impl RowState {
    /// Merges another state or delta of the same row. Associative, commutative, idempotent.
    pub fn join(&mut self, other: &RowState) {
        self.group_index = self.group_index.max(other.group_index);
        if other.cl < self.cl {
            return;
        }
        if other.cl > self.cl {
            self.cl = other.cl;
            self.born = other.born;
            self.ended = other.ended;
            self.cells.clone_from(&other.cells);
            return;
        }
        self.born |= other.born;
        self.ended = self.ended.max(other.ended);
        for (column, theirs) in &other.cells {
            match self.cells.get_mut(column) {
                Some(ours) => ours.join(theirs),
                None => {
                    self.cells.insert(*column, theirs.clone());
                }
            }
        }
    }

    /// True if the row exists for SQL.
    pub fn is_visible(&self) -> bool {
        self.cl % 2 == 1 && self.born
    }

    /// The causal length at which an insert leaves this row: its own if it is alive already.
    pub fn next_alive(&self) -> u64 {
        self.cl | 1
    }

    /// The causal length at which a delete leaves this row: its own if it is dead already.
    pub fn next_dead(&self) -> u64 {
        self.cl.saturating_add(self.cl % 2)
    }
}

//! What a transaction wants of a row, and how a commit turns it into state.
//!
//! A [`RowOp`] is relative where merging needs it to be: *add 2*, *put this element in*, *take out the
//! elements I saw*. At the moment of its commit it is [resolved](RowOp::resolve) against the row as it
//! then is and becomes a delta of absolute state, which may arrive anywhere twice or out of order:
//!
//! ```text
//!   UPDATE … SET n = n + 2        RowOp { cl: 1, n: Add(2) }       buffered by the transaction
//!        commit on node 3         RowState { cl: 1, n: {3: total 9, version 4} }      logged, streamed, joined
//! ```
//!
//! A commit on one node is an origin's own doing, one at a time, so the origin's totals and dots are
//! always complete where they are advanced. A mixed transaction rides in a Raft entry instead, and its
//! operations are resolved by every replica for itself, with the group as origin. All that such a
//! resolution reads is what the group itself has written, and so all replicas, which apply the same
//! entries in the same order, resolve to the same.

use std::collections::BTreeMap;

use amphora_storage::schema::ColumnId;
use amphora_storage::{Datum, Numeric, Timestamp};
use serde::{Deserialize, Serialize};

use super::cell::{Cell, Counter, DecimalShare, Element, Extreme, Lww, Path, Share, Sum, Written, canonical};
use super::dot_map::DotMap;
use super::dots::{Dot, GROUP};
use super::row_state::{GroupIndex, RowState};
use crate::NodeId;

/// What one transaction does to one row of a leaderless table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowOp {
    /// The causal length it leads to: for an update the one it saw
    pub cl: u64,
    /// True of an insert: the row is born in this generation
    pub insert: bool,
    /// A plain INSERT: the commit fails with 23505 if the row has come to exist meanwhile
    pub must_not_exist: bool,
    /// What becomes of which columns
    pub cells: Vec<(ColumnId, CellOp)>,
}

/// What becomes of one column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CellOp {
    /// Ordinary column: this is the last write
    Set(Datum),
    /// Counter: add this
    Add(i128),
    /// Sum: add this, which is finite
    AddDecimal(Numeric),
    /// Counter: take out what was seen of each origin
    Clear(Vec<(NodeId, Share)>),
    /// Sum: take out what was seen of each origin
    ClearDecimal(Vec<(NodeId, DecimalShare)>),
    /// Maximum: raise to this
    Max(Extreme),
    /// Minimum: lower to this
    Min(Extreme),
    /// Set: take out the additions that were seen of some elements, and put others in
    SetChange {
        /// The additions
        seen: Vec<Dot>,
        /// The others
        add: Vec<Datum>,
    },
    /// Set in which a removal wins: the same, where taking out is an event too
    RemoveSetChange {
        /// What was seen of these elements
        seen: Vec<Dot>,
        /// Elements, each to be in or out
        put: Vec<(Datum, bool)>,
    },
    /// Flag: enable
    FlagEnable,
    /// Flag: disable the enables that were seen
    FlagDisable(Vec<Dot>),
    /// Register: write these values in the place of those seen
    Write {
        /// The writes that were seen
        seen: Vec<Dot>,
        /// One value, unless the writer wants several side by side
        values: Vec<Datum>,
    },
    /// Document: change what is under some paths
    Edit {
        /// What was seen there
        seen: Vec<Dot>,
        /// What is to be there
        put: Vec<(Path, Datum)>,
    },
}

/// A commit that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Author {
    /// Whose
    pub origin: NodeId,
    /// The origin's how-manieth; 0 of the group's
    pub seq: u64,
    /// When
    pub hlc: Timestamp,
}

impl RowOp {
    /// True if it changes nothing.
    pub fn is_empty(&self, state: &RowState) -> bool {
        self.cells.is_empty() && !self.insert && self.cl <= state.cl
    }

    /// The delta that this operation is on `state`, written by `author`.
    ///
    /// For a node's own origin, `state` must hold everything that origin has committed to the row. For
    /// [`GROUP`] the outcome depends on the operation and on the group's own part of `state` only.
    pub fn resolve(&self, state: &RowState, author: Author) -> RowState {
        // A node that commits an insert sees the row afterwards, even if it was deleted since the
        // transaction looked. The group cannot adapt: what nodes deleted differs between replicas.
        let cl =
            if self.insert && author.origin != GROUP { self.cl.max(state.next_alive()) } else { self.cl };
        // By the operation alone, not by the state: a replica may hold a later delta already.
        let ends = cl > 1 && (self.insert || cl % 2 == 0);
        let ended = ends.then_some(Dot { origin: author.origin, counter: author.seq });
        let mut delta = RowState { cl, born: self.insert, ended, ..RowState::default() };
        for (column, op) in &self.cells {
            let current = if state.cl == cl { state.cells.get(column) } else { None };
            let cell = op.resolve(current, delta.cells.get(column), author);
            match delta.cells.get_mut(column) {
                Some(earlier) => earlier.join(&cell),
                None => {
                    delta.cells.insert(*column, cell);
                }
            }
        }
        delta
    }

    /// Joins a mixed transaction's operation into `state`, as every replica does when it applies the Raft
    /// entry. Does nothing if the entry is in the row already.
    pub fn apply_group(&self, state: &mut RowState, at: GroupIndex) {
        if state.group_index < at {
            let mut delta = self.resolve(state, Author { origin: GROUP, seq: 0, hlc: at.commit });
            delta.group_index = at;
            state.join(&delta);
        }
    }
}

impl CellOp {
    /// `current` is the column's state, `pending` the delta that the same operation has made of it so far.
    fn resolve(&self, current: Option<&Cell>, pending: Option<&Cell>, author: Author) -> Cell {
        let Author { origin, seq, hlc } = author;
        macro_rules! known {
            ($kind:path) => {
                [current, pending].map(|cell| match cell {
                    Some($kind(cell)) => Some(cell),
                    _ => None,
                })
            };
        }
        match self {
            CellOp::Set(value) => Cell::Lww(Lww { hlc, origin, seq, value: value.clone() }),
            CellOp::Add(n) => {
                let base = [pending, current].into_iter().flatten().find_map(|c| match c {
                    Cell::Counter(c) => c.shares.get(&origin).copied(),
                    _ => None,
                });
                let base = base.unwrap_or_default();
                let share =
                    Share { version: base.version.saturating_add(1), total: base.total.saturating_add(*n) };
                Cell::Counter(Counter { shares: BTreeMap::from([(origin, share)]), ..Counter::default() })
            }
            CellOp::AddDecimal(n) => {
                let base = [pending, current].into_iter().flatten().find_map(|c| match c {
                    Cell::Sum(sum) => sum.shares.get(&origin),
                    _ => None,
                });
                let added = n.as_finite().cloned().unwrap_or_default();
                let share = DecimalShare::after(base, &added);
                Cell::Sum(Sum { shares: BTreeMap::from([(origin, share)]), ..Sum::default() })
            }
            CellOp::Clear(seen) => {
                Cell::Counter(Counter { cleared: seen.iter().copied().collect(), ..Counter::default() })
            }
            CellOp::ClearDecimal(seen) => {
                Cell::Sum(Sum { cleared: seen.iter().cloned().collect(), ..Sum::default() })
            }
            CellOp::Max(value) => Cell::Max(value.clone()),
            CellOp::Min(value) => Cell::Min(value.clone()),
            CellOp::SetChange { seen, add } => {
                let known = known!(Cell::Set);
                let add: Vec<Element> = add.iter().map(|v| Element(canonical(v.clone()))).collect();
                // The new dot stands for the origin's earlier ones: adding again does not pile up.
                let state = known.into_iter().flatten();
                let own = state.flat_map(|set| add.iter().filter_map(|e| set.entries.get(e)));
                let own = own.flat_map(|dots| dots.keys().copied()).filter(|d| d.origin == origin);
                let seen = seen.iter().copied().chain(own);
                Cell::Set(DotMap::change(known, origin, seen, add.iter().map(|e| (e.clone(), ()))))
            }
            CellOp::RemoveSetChange { seen, put } => {
                let put = put.iter().map(|(value, is_in)| (Element(canonical(value.clone())), *is_in));
                Cell::RemoveSet(DotMap::change(known!(Cell::RemoveSet), origin, seen.iter().copied(), put))
            }
            CellOp::FlagEnable => Cell::Flag(DotMap::change(known!(Cell::Flag), origin, [], [((), ())])),
            CellOp::FlagDisable(seen) => {
                Cell::Flag(DotMap::change(known!(Cell::Flag), origin, seen.iter().copied(), []))
            }
            CellOp::Write { seen, values } => {
                let put = values.iter().map(|value| ((), Written { hlc, seq, value: value.clone() }));
                Cell::Register(DotMap::change(known!(Cell::Register), origin, seen.iter().copied(), put))
            }
            CellOp::Edit { seen, put } => {
                let put = put
                    .iter()
                    .map(|(path, value)| (path.clone(), Written { hlc, seq, value: value.clone() }));
                Cell::Map(DotMap::change(known!(Cell::Map), origin, seen.iter().copied(), put))
            }
        }
    }
}

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

use std::collections::{BTreeMap, BTreeSet};

use amphora_storage::schema::ColumnId;
use amphora_storage::{Datum, Timestamp};
use serde::{Deserialize, Serialize};

use super::cell::{Cell, Counter, Flag, Lww, OrSet, Share, canonical};
use super::dots::{Context, Dot, GROUP};
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
    /// Maximum: raise to this
    Max(Datum),
    /// Minimum: lower to this
    Min(Datum),
    /// Set: put these elements in
    SetAdd(Vec<Datum>),
    /// Set: take these elements out, as far as they were seen (the dots)
    SetRemove(Vec<(Datum, Vec<Dot>)>),
    /// Flag: enable
    FlagEnable,
    /// Flag: disable the enables that were seen
    FlagDisable(Vec<Dot>),
}

impl RowOp {
    /// True if it changes nothing.
    pub fn is_empty(&self, state: &RowState) -> bool {
        self.cells.is_empty() && !self.insert && self.cl <= state.cl
    }

    /// The delta that this operation is on `state`, written by `origin` at `hlc`.
    ///
    /// For a node's own origin, `state` must hold everything that origin has committed to the row. For
    /// [`GROUP`] the outcome depends on the operation and on the group's own part of `state` only.
    pub fn resolve(&self, state: &RowState, origin: NodeId, hlc: Timestamp) -> RowState {
        // A node that commits an insert sees the row afterwards, even if it was deleted since the
        // transaction looked. The group cannot adapt: what nodes deleted differs between replicas.
        let cl = if self.insert && origin != GROUP { self.cl.max(state.next_alive()) } else { self.cl };
        let mut delta = RowState { cl, born: self.insert, ..RowState::default() };
        for (column, op) in &self.cells {
            let current = if state.cl == cl { state.cells.get(column) } else { None };
            let cell = op.resolve(current, delta.cells.get(column), origin, hlc);
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
            let mut delta = self.resolve(state, GROUP, at.commit);
            delta.group_index = at;
            state.join(&delta);
        }
    }
}

impl CellOp {
    /// `current` is the column's state, `pending` the delta that the same operation has made of it so far.
    fn resolve(
        &self,
        current: Option<&Cell>,
        pending: Option<&Cell>,
        origin: NodeId,
        hlc: Timestamp,
    ) -> Cell {
        match self {
            CellOp::Set(value) => Cell::Lww(Lww { hlc, origin, value: value.clone() }),
            CellOp::Add(n) => {
                let base = [pending, current].into_iter().flatten().find_map(|c| match c {
                    Cell::Counter(c) => c.shares.get(&origin).copied(),
                    _ => None,
                });
                let base = base.unwrap_or_default();
                let share =
                    Share { version: base.version.saturating_add(1), total: base.total.saturating_add(*n) };
                Cell::Counter(Counter { shares: BTreeMap::from([(origin, share)]) })
            }
            CellOp::Max(value) => Cell::Max(value.clone()),
            CellOp::Min(value) => Cell::Min(value.clone()),
            CellOp::SetAdd(values) => {
                let last = [pending, current].into_iter().flatten().map(|c| match c {
                    Cell::Set(set) => last_dot(origin, &set.context, set.group_dots),
                    _ => 0,
                });
                let mut counter = last.max().unwrap_or(0);
                let mut delta = OrSet::default();
                for value in values {
                    let value = canonical(value.clone());
                    counter = counter.saturating_add(1);
                    let dot = Dot { origin, counter };
                    delta.context.insert(dot);
                    // The new dot stands for the origin's earlier ones: adding again does not pile up.
                    if let Some(Cell::Set(set)) = current {
                        let own = set.elements.get(&value).into_iter().flatten();
                        own.filter(|d| d.origin == origin).for_each(|d| delta.context.insert(*d));
                    }
                    delta.elements.entry(value).or_default().insert(dot);
                }
                if origin == GROUP {
                    delta.group_dots = counter;
                }
                Cell::Set(delta)
            }
            CellOp::SetRemove(observed) => Cell::Set(OrSet {
                elements: BTreeMap::new(),
                group_dots: 0,
                context: Context::of(observed.iter().flat_map(|(_, dots)| dots.iter().copied())),
            }),
            CellOp::FlagEnable => {
                let last = match current {
                    Some(Cell::Flag(flag)) => last_dot(origin, &flag.context, flag.group_dots),
                    _ => 0,
                };
                let dot = Dot { origin, counter: last.saturating_add(1) };
                Cell::Flag(Flag {
                    enables: BTreeSet::from([dot]),
                    group_dots: if origin == GROUP { dot.counter } else { 0 },
                    context: Context::of([dot]),
                })
            }
            CellOp::FlagDisable(observed) => Cell::Flag(Flag {
                enables: BTreeSet::new(),
                group_dots: 0,
                context: Context::of(observed.iter().copied()),
            }),
        }
    }
}

/// The last dot that `origin` has given out in a cell.
///
/// A node sees its own dots before anyone, so the context tells. The group's dots may reach a replica in
/// a node's removal before the entry that made them, so the group counts them itself.
fn last_dot(origin: NodeId, context: &Context, group_dots: u64) -> u64 {
    if origin == GROUP { group_dots } else { context.last(origin) }
}

//! One column of one row, as a value that can be joined.
//!
//! | column type | what is kept | join | reads as |
//! |---|---|---|---|
//! | any other | the last write: clock, origin, value | greater (clock, origin) | the value |
//! | `crdt_counter` | one total an origin, with a version | higher version, origin by origin | the sum |
//! | `crdt_max`, `crdt_min` | the value | greater, smaller | the value |
//! | `crdt_set` | the dots under which each element was added | add wins | a sorted array |
//! | `crdt_flag` | the dots of its enables | enable wins | a boolean |
//!
//! A counter keeps *totals* rather than increments, because every path that repairs a node delivers
//! things twice: a total that arrives twice counts once.
//!
//! Sets and flags are the optimized observed-remove set of Bieniusa et al. (2012) in its delta form
//! (Almeida, Shoker, Baquero, 2016). A dot that one side has and the other's context covers was seen there
//! and removed, so it goes; a dot that the other's context does not cover is news, so it stays.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use amphora_storage::{Datum, Timestamp};
use serde::{Deserialize, Serialize};

use super::dots::{Context, Dot};
use crate::NodeId;

/// The state, or a delta, of one column of one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cell {
    /// A column of an ordinary type: the last writer wins
    Lww(Lww),
    /// `crdt_counter`
    Counter(Counter),
    /// `crdt_max(T)`
    Max(Datum),
    /// `crdt_min(T)`
    Min(Datum),
    /// `crdt_set(T)`
    Set(OrSet),
    /// `crdt_flag`
    Flag(Flag),
}

impl Cell {
    /// Merges another state or delta of this column. Associative, commutative, idempotent.
    pub fn join(&mut self, other: &Cell) {
        match (&mut *self, other) {
            (Cell::Lww(a), Cell::Lww(b)) => a.join(b),
            (Cell::Counter(a), Cell::Counter(b)) => a.join(b),
            (Cell::Max(a), Cell::Max(b)) => {
                if total_cmp(b, a).is_gt() {
                    *a = b.clone();
                }
            }
            (Cell::Min(a), Cell::Min(b)) => {
                if total_cmp(b, a).is_lt() {
                    *a = b.clone();
                }
            }
            (Cell::Set(a), Cell::Set(b)) => a.join(b),
            (Cell::Flag(a), Cell::Flag(b)) => a.join(b),
            // A column's kind never changes, so this is a peer's mistake; even then all nodes agree.
            (a, b) => {
                if b.rank() > a.rank() {
                    *a = b.clone();
                }
            }
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Cell::Lww(_) => 0,
            Cell::Counter(_) => 1,
            Cell::Max(_) => 2,
            Cell::Min(_) => 3,
            Cell::Set(_) => 4,
            Cell::Flag(_) => 5,
        }
    }
}

/// SQL's order, and between values that SQL calls equal (`1.0` and `1.00`) a fixed one, so that two
/// nodes never keep two spellings of one value.
fn total_cmp(a: &Datum, b: &Datum) -> Ordering {
    a.cmp(b).then_with(|| spelling(a).cmp(&spelling(b)))
}

fn spelling(d: &Datum) -> String {
    match d {
        // The only equal values of these kinds are identical; spare the formatting.
        Datum::Null | Datum::Bool(_) | Datum::Text(_) | Datum::Bytea(_) | Datum::Uuid(_) => String::new(),
        other => format!("{other:?}"),
    }
}

/// A last-writer-wins register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lww {
    /// When it was written
    pub hlc: Timestamp,
    /// By whom; decides between equal clocks
    pub origin: NodeId,
    /// What was written, NULL included
    pub value: Datum,
}

impl Lww {
    fn join(&mut self, other: &Lww) {
        let order = (other.hlc, other.origin)
            .cmp(&(self.hlc, self.origin))
            .then_with(|| total_cmp(&other.value, &self.value));
        if order.is_gt() {
            *self = other.clone();
        }
    }
}

/// A counter to which every origin adds in a share of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// By origin
    pub shares: BTreeMap<NodeId, Share>,
}

/// What one origin has added to a counter, all in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Share {
    /// How many times it has added: the newer of two totals has the higher one
    pub version: u64,
    /// The sum of what it has added. Wider than a bigint: additions of bigints cannot overflow it.
    pub total: i128,
}

impl Counter {
    fn join(&mut self, other: &Counter) {
        for (&origin, &theirs) in &other.shares {
            let ours = self.shares.entry(origin).or_default();
            *ours = theirs.max(*ours);
        }
    }

    /// The counter's value, which may lie outside a bigint.
    pub fn value(&self) -> i128 {
        self.shares.values().fold(0, |sum, s| sum.saturating_add(s.total))
    }
}

/// An add-wins observed-remove set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrSet {
    /// Each element with the dots of the additions that put it there; never without one
    pub elements: BTreeMap<Datum, BTreeSet<Dot>>,
    /// How many dots the Raft group has given out here
    pub group_dots: u64,
    /// Every addition seen, those since removed included
    pub context: Context,
}

impl OrSet {
    fn join(&mut self, other: &OrSet) {
        // Ours that the other side has not, and has seen: removed there.
        self.elements.retain(|element, dots| {
            let theirs = other.elements.get(element);
            dots.retain(|d| theirs.is_some_and(|t| t.contains(d)) || !other.context.contains(*d));
            !dots.is_empty()
        });
        // Theirs that we have not seen: added there.
        for (element, dots) in &other.elements {
            let news: BTreeSet<Dot> = dots.iter().copied().filter(|d| !self.context.contains(*d)).collect();
            if !news.is_empty() {
                self.elements.entry(element.clone()).or_default().extend(news);
            }
        }
        self.group_dots = self.group_dots.max(other.group_dots);
        self.context.join(&other.context);
    }
}

/// An enable-wins flag: true while any enable is left that no one has disabled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flag {
    /// The enables in force
    pub enables: BTreeSet<Dot>,
    /// How many dots the Raft group has given out here
    pub group_dots: u64,
    /// Every enable seen, those since disabled included
    pub context: Context,
}

impl Flag {
    fn join(&mut self, other: &Flag) {
        self.enables.retain(|d| other.enables.contains(d) || !other.context.contains(*d));
        self.enables.extend(other.enables.iter().copied().filter(|d| !self.context.contains(*d)));
        self.group_dots = self.group_dots.max(other.group_dots);
        self.context.join(&other.context);
    }
}

/// The one spelling under which a value is an element of a set, so that `1.0` and `1.00` are the same
/// element on every node.
pub(super) fn canonical(value: Datum) -> Datum {
    match value {
        Datum::Float4(0.0) => Datum::Float4(0.0),
        Datum::Float4(v) if v.is_nan() => Datum::Float4(f32::NAN),
        Datum::Float8(0.0) => Datum::Float8(0.0),
        Datum::Float8(v) if v.is_nan() => Datum::Float8(f64::NAN),
        Datum::Numeric(n) => match n.as_finite() {
            Some(d) => Datum::numeric(amphora_storage::Numeric::finite(d.normalized())),
            None => Datum::Numeric(n),
        },
        other => other,
    }
}

//! One column of one row, as a value that can be joined.
//!
//! | column type | what is kept | join | reads as |
//! |---|---|---|---|
//! | any other | the last write: clock, origin, value | greater (clock, origin) | the value |
//! | `crdt_counter`, `crdt_gcounter` | one total an origin, with a version | higher version, origin by origin | the sum |
//! | `crdt_sum(numeric)` | the same, in decimal digits | the same | the sum |
//! | `crdt_max`, `crdt_min` | the value, and how often it was reset | more resets, then greater, smaller | the value |
//! | `crdt_set` | the dots under which each element was added | add wins | a sorted array |
//! | `crdt_rset` | the dots of its additions and removals | remove wins | a sorted array |
//! | `crdt_flag` | the dots of its enables | enable wins | a boolean |
//! | `crdt_register` | the dots of the writes that no other write has seen | all of them stay | an array |
//! | `crdt_map` | the same, under each path of the document | path by path | a document |
//!
//! A counter keeps *totals* rather than increments, because every path that repairs a node delivers
//! things twice: a total that arrives twice counts once. All that has to do with dots is in
//! [`dot_map`](super::dot_map).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use amphora_storage::{Datum, Numeric, Timestamp};
use bigdecimal::BigDecimal;
use serde::{Deserialize, Serialize};

use super::dot_map::DotMap;
use crate::NodeId;

/// The state, or a delta, of one column of one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cell {
    /// A column of an ordinary type: the last writer wins
    Lww(Lww),
    /// `crdt_counter`, `crdt_gcounter`
    Counter(Counter),
    /// `crdt_max(T)`
    Max(Extreme),
    /// `crdt_min(T)`
    Min(Extreme),
    /// `crdt_set(T)`
    Set(OrSet),
    /// `crdt_flag`
    Flag(Flag),
    /// `crdt_sum(numeric)`
    Sum(Sum),
    /// `crdt_rset(T)`
    RemoveSet(RemoveSet),
    /// `crdt_register(T)`
    Register(Register),
    /// `crdt_map`
    Map(Document),
}

/// An add-wins set: an element is in it while any of its additions is left.
pub type OrSet = DotMap<Element, ()>;
/// A remove-wins set: an element is in it if an addition is left and no removal (`false`) is.
pub type RemoveSet = DotMap<Element, bool>;
/// An enable-wins flag: true while any enable is left that no one has disabled.
pub type Flag = DotMap<(), ()>;
/// A multi-value register: the writes that no other write has seen.
pub type Register = DotMap<(), Written>;
/// A document: under each path from its root the writes that no other write there has seen.
pub type Document = DotMap<Path, Written>;
/// The keys from a document's root to a value.
pub type Path = Vec<String>;

/// A value, and when it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The commit's time
    pub hlc: Timestamp,
    /// Its number among its origin's commits; 0 of the group's
    pub seq: u64,
    /// What was written
    pub value: Datum,
}

impl Cell {
    /// Merges another state or delta of this column. Associative, commutative, idempotent.
    pub fn join(&mut self, other: &Cell) {
        match (&mut *self, other) {
            (Cell::Lww(a), Cell::Lww(b)) => a.join(b),
            (Cell::Counter(a), Cell::Counter(b)) => a.join(b),
            (Cell::Max(a), Cell::Max(b)) => a.join(b, Ordering::Greater),
            (Cell::Min(a), Cell::Min(b)) => a.join(b, Ordering::Less),
            (Cell::Set(a), Cell::Set(b)) => a.join(b),
            (Cell::Flag(a), Cell::Flag(b)) => a.join(b),
            (Cell::Sum(a), Cell::Sum(b)) => a.join(b),
            (Cell::RemoveSet(a), Cell::RemoveSet(b)) => a.join(b),
            (Cell::Register(a), Cell::Register(b)) => a.join(b),
            (Cell::Map(a), Cell::Map(b)) => a.join(b),
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
            Cell::Sum(_) => 6,
            Cell::RemoveSet(_) => 7,
            Cell::Register(_) => 8,
            Cell::Map(_) => 9,
        }
    }
}

/// An element of a set. What SQL calls equal and is spelled differently (`1.0` and `1.00`, `24:00:00` and
/// `1 day`) are two elements here, of which SQL is shown one: no node has to guess which spelling stays.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Element(pub Datum);

impl Ord for Element {
    fn cmp(&self, other: &Element) -> Ordering {
        total_cmp(&self.0, &other.0)
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Element) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Element) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Element {}

/// SQL's order, and between values that SQL calls equal (`1.0` and `1.00`) a fixed one, so that two
/// nodes never keep two spellings of one value.
pub(super) fn total_cmp(a: &Datum, b: &Datum) -> Ordering {
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
    /// In the origin's how-manieth commit; 0 of the group's
    pub seq: u64,
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
    /// What `crdt_reset` has seen of each origin, and taken out: whatever is reset twice is taken out once
    pub cleared: BTreeMap<NodeId, Share>,
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
        let newest = |ours: &mut BTreeMap<NodeId, Share>, theirs: &BTreeMap<NodeId, Share>| {
            for (&origin, &theirs) in theirs {
                let ours = ours.entry(origin).or_default();
                *ours = theirs.max(*ours);
            }
        };
        newest(&mut self.shares, &other.shares);
        newest(&mut self.cleared, &other.cleared);
    }

    /// The newest that is known of each origin. A reset may overtake what it has seen.
    pub fn seen(&self) -> BTreeMap<NodeId, Share> {
        let mut seen = self.shares.clone();
        for (&origin, &cleared) in &self.cleared {
            let share = seen.entry(origin).or_default();
            *share = cleared.max(*share);
        }
        seen
    }

    /// The counter's value, which may lie outside a bigint.
    pub fn value(&self) -> i128 {
        let sum = |shares: &BTreeMap<NodeId, Share>| {
            shares.values().fold(0, |sum: i128, s| sum.saturating_add(s.total))
        };
        match self.cleared.is_empty() {
            true => sum(&self.shares),
            false => sum(&self.seen()).saturating_sub(sum(&self.cleared)),
        }
    }
}

/// A sum of decimal numbers to which every origin adds in a share of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// By origin
    pub shares: BTreeMap<NodeId, DecimalShare>,
    /// What `crdt_reset` has seen of each origin, and taken out
    pub cleared: BTreeMap<NodeId, DecimalShare>,
}

/// What one origin has added to a sum, all in all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecimalShare {
    /// How many times it has added: the newer of two totals has the higher one
    pub version: u64,
    /// The sum of what it has added; always finite
    pub total: Numeric,
}

impl DecimalShare {
    /// After one more addition; `before` is the origin's share until now.
    pub fn after(before: Option<&DecimalShare>, added: &BigDecimal) -> DecimalShare {
        let version = before.map_or(0, |s| s.version).saturating_add(1);
        let total = match before.and_then(|s| s.total.as_finite()) {
            Some(total) => total + added,
            None => added.clone(),
        };
        DecimalShare { version, total: Numeric::finite(total) }
    }
}

impl Sum {
    fn join(&mut self, other: &Sum) {
        newest_shares(&mut self.shares, &other.shares);
        newest_shares(&mut self.cleared, &other.cleared);
    }

    /// The newest that is known of each origin. A reset may overtake what it has seen.
    pub fn seen(&self) -> BTreeMap<NodeId, DecimalShare> {
        let mut seen = self.shares.clone();
        newest_shares(&mut seen, &self.cleared);
        seen
    }

    /// The sum, with as many digits after the point as the longest share has.
    pub fn value(&self) -> BigDecimal {
        let sum = |shares: &BTreeMap<NodeId, DecimalShare>| {
            let totals = shares.values().filter_map(|s| s.total.as_finite());
            totals.fold(BigDecimal::from(0), |sum, total| sum + total)
        };
        match self.cleared.is_empty() {
            true => sum(&self.shares),
            false => sum(&self.seen()) - sum(&self.cleared),
        }
    }
}

fn newest_shares(ours: &mut BTreeMap<NodeId, DecimalShare>, theirs: &BTreeMap<NodeId, DecimalShare>) {
    for (&origin, theirs) in theirs {
        match ours.get_mut(&origin) {
            Some(ours) if ours.version >= theirs.version => {}
            Some(ours) => ours.clone_from(theirs),
            None => {
                ours.insert(origin, theirs.clone());
            }
        }
    }
}

/// The greatest or the least value of all that were written since the last reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extreme {
    /// How often it was reset: what was written without having seen a reset loses to it
    pub resets: u64,
    /// The value; `None` after a reset
    pub value: Option<Datum>,
}

impl Extreme {
    /// `better` is how a value compares to the one that it takes the place of.
    fn join(&mut self, other: &Extreme, better: Ordering) {
        let value = match (&self.value, &other.value) {
            (Some(ours), Some(theirs)) => total_cmp(theirs, ours) == better,
            (ours, theirs) => theirs.is_some() && ours.is_none(),
        };
        let wins = match other.resets.cmp(&self.resets) {
            Ordering::Equal => value,
            order => order.is_gt(),
        };
        if wins {
            self.clone_from(other);
        }
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

//! Dots, version vectors and causal contexts: how a node says exactly what it has seen.
//!
//! A *dot* names one event: the `counter`-th event of `origin`. A *version vector* is a set of dots without
//! gaps, kept as one number an origin. A [`Context`] is any set of dots: a vector plus a cloud of the dots
//! that lie beyond its gaps.
//!
//! ```text
//!                 1   2   3   4   5   6   7
//!   origin 1      ●   ●   ●   ●               vector {1: 4, 2: 2}
//!   origin 2      ●   ●       ●   ●           cloud  {(2,4), (2,5)}      (2,3) not seen yet
//! ```
//!
//! A delta's context is a cloud of exactly the dots it speaks of, and a state's context is nearly always
//! a bare vector, because origins number their events without gaps: as soon as a gap is filled the
//! cloud's dots move into the vector. A context is therefore always in its one canonical form, and two
//! contexts are equal exactly if they are the same set.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// The Raft group as an origin: what mixed transactions write is written by no single node.
pub const GROUP: NodeId = 0;

/// One event of one origin. Counters start at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who made the event
    pub origin: NodeId,
    /// Which of the origin's events it is, from 1
    pub counter: u64,
}

/// For each origin, how many of its events are known, from the first and without a gap.
///
/// An origin that is not listed stands at 0; zeros are never stored, so that equality is equality of sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionVector(BTreeMap<NodeId, u64>);

impl VersionVector {
    /// A vector that knows nothing.
    pub fn new() -> VersionVector {
        VersionVector::default()
    }

    /// How many of this origin's events are known.
    pub fn get(&self, origin: NodeId) -> u64 {
        self.0.get(&origin).copied().unwrap_or(0)
    }

    /// Raises one component; never lowers it.
    pub fn advance(&mut self, origin: NodeId, to: u64) {
        if to > 0 {
            let known = self.0.entry(origin).or_insert(0);
            *known = to.max(*known);
        }
    }

    /// Becomes the union of both.
    pub fn join(&mut self, other: &VersionVector) {
        for (&origin, &n) in &other.0 {
            self.advance(origin, n);
        }
    }

    /// Keeps only what both know.
    pub fn meet(&mut self, other: &VersionVector) {
        self.0.retain(|origin, n| {
            *n = (*n).min(other.get(*origin));
            *n > 0
        });
    }

    /// True if everything that `other` knows is known here.
    pub fn covers(&self, other: &VersionVector) -> bool {
        other.0.iter().all(|(&origin, &n)| self.get(origin) >= n)
    }

    /// True if this event is known.
    pub fn contains(&self, dot: Dot) -> bool {
        dot.counter <= self.get(dot.origin)
    }

    /// The components, by origin.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, u64)> + '_ {
        self.0.iter().map(|(&o, &n)| (o, n))
    }

    /// True if nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(NodeId, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (NodeId, u64)>>(components: I) -> VersionVector {
        let mut vector = VersionVector::new();
        for (origin, n) in components {
            vector.advance(origin, n);
        }
        vector
    }
}

/// The order of knowledge: less is *has seen a part of*; concurrent vectors are not ordered.
impl PartialOrd for VersionVector {
    fn partial_cmp(&self, other: &VersionVector) -> Option<std::cmp::Ordering> {
        use std::cmp::Ordering::*;
        match (self.covers(other), other.covers(self)) {
            (true, true) => Some(Equal),
            (true, false) => Some(Greater),
            (false, true) => Some(Less),
            (false, false) => None,
        }
    }
}

/// Any set of dots, in canonical form: no dot of the cloud is in the vector or could be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    vector: VersionVector,
    cloud: BTreeSet<Dot>,
}

impl Context {
    /// A context of exactly these dots.
    pub fn of(dots: impl IntoIterator<Item = Dot>) -> Context {
        let mut context = Context { vector: VersionVector::new(), cloud: dots.into_iter().collect() };
        context.compact();
        context
    }

    /// True if the dot has been seen.
    pub fn contains(&self, dot: Dot) -> bool {
        self.vector.contains(dot) || self.cloud.contains(&dot)
    }

    /// Adds one dot.
    pub fn insert(&mut self, dot: Dot) {
        self.cloud.insert(dot);
        self.compact();
    }

    /// Becomes the union of both.
    pub fn join(&mut self, other: &Context) {
        self.vector.join(&other.vector);
        self.cloud.extend(other.cloud.iter().copied());
        self.compact();
    }

    /// The highest counter seen of this origin.
    pub fn last(&self, origin: NodeId) -> u64 {
        let all = Dot { origin, counter: 0 }..=Dot { origin, counter: u64::MAX };
        let cloud = self.cloud.range(all).next_back().map_or(0, |d| d.counter);
        cloud.max(self.vector.get(origin))
    }

    /// The dots seen without a gap.
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// The dots seen beyond the gaps, in order.
    pub fn cloud(&self) -> impl Iterator<Item = Dot> + '_ {
        self.cloud.iter().copied()
    }

    /// True if no dot has been seen.
    pub fn is_empty(&self) -> bool {
        self.vector.is_empty() && self.cloud.is_empty()
    }

    /// Moves into the vector what has become contiguous. The cloud is ordered by origin and counter, so
    /// one pass does it.
    fn compact(&mut self) {
        let vector = &mut self.vector;
        self.cloud.retain(|dot| {
            let known = vector.get(dot.origin);
            if dot.counter.checked_sub(1) == Some(known) {
                vector.advance(dot.origin, dot.counter);
            }
            dot.counter > vector.get(dot.origin)
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn dot(origin: NodeId, counter: u64) -> Dot {
        Dot { origin, counter }
    }

    #[test]
    fn a_filled_gap_moves_the_cloud_into_the_vector() {
        let mut c = Context::of([dot(1, 1), dot(1, 3), dot(1, 4), dot(2, 2)]);
        assert!(c.contains(dot(1, 4)) && !c.contains(dot(1, 2)));
        c.insert(dot(1, 2));
        assert_eq!(c.vector.get(1), 4);
        assert_eq!(c.cloud.len(), 1);
        assert_eq!((c.last(1), c.last(2), c.last(3)), (4, 2, 0));
    }

    #[test]
    fn vectors_are_ordered_by_knowledge() {
        let a: VersionVector = [(1, 2), (2, 1)].into_iter().collect();
        let b: VersionVector = [(1, 2), (2, 3)].into_iter().collect();
        let c: VersionVector = [(3, 1)].into_iter().collect();
        assert!(a < b);
        assert_eq!(a.partial_cmp(&c), None);
        let mut d = a.clone();
        d.join(&c);
        assert!(d.covers(&a) && d.covers(&c));
        d.meet(&b);
        assert_eq!(d, a);
    }
}

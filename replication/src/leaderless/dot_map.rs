//! A map whose entries are events: the observed-remove structure behind sets, flags, registers and maps.
//!
//! Whoever puts a value under a key makes a *dot*; whoever takes something out names the dots that it saw.
//! A dot that one side has and the other's context covers was seen there and removed, so it goes; a dot that
//! the other's context does not cover is news, so it stays. (The optimized observed-remove set of Bieniusa et
//! al., 2012, in its delta form of Almeida, Shoker, Baquero, 2016.)
//!
//! ```text
//!             key    value under a dot
//!   set       x      ()                   add wins: there while any dot is left
//!   rset      x      added or removed     remove wins: there if no dot is left that says removed
//!   flag      ()     ()                   enable wins
//!   register  ()     value and time       all concurrent values
//!   map       path   value and time       the latest under each path; an update wins over a removal
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dots::{Context, Dot, GROUP};
use crate::NodeId;

/// Keys with the dots under which something was put there, and what was put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DotMap<K: Ord, V> {
    /// What is there; no key is without a dot
    pub entries: BTreeMap<K, BTreeMap<Dot, V>>,
    /// How many dots the Raft group has given out here
    pub group_dots: u64,
    /// Every dot seen, those since removed included
    pub context: Context,
}

impl<K: Ord, V> Default for DotMap<K, V> {
    fn default() -> DotMap<K, V> {
        DotMap { entries: BTreeMap::new(), group_dots: 0, context: Context::default() }
    }
}

impl<K: Ord + Clone, V: Clone> DotMap<K, V> {
    /// Merges another state or delta. What stands under one dot is the same everywhere.
    pub fn join(&mut self, other: &DotMap<K, V>) {
        // Ours that the other side has not, and has seen: removed there.
        self.entries.retain(|key, dots| {
            let theirs = other.entries.get(key);
            dots.retain(|d, _| theirs.is_some_and(|t| t.contains_key(d)) || !other.context.contains(*d));
            !dots.is_empty()
        });
        // Theirs that we have not seen: added there.
        for (key, dots) in &other.entries {
            let mut news = dots.iter().filter(|(d, _)| !self.context.contains(**d)).peekable();
            if news.peek().is_some() {
                let ours = self.entries.entry(key.clone()).or_default();
                ours.extend(news.map(|(d, v)| (*d, v.clone())));
            }
        }
        self.group_dots = self.group_dots.max(other.group_dots);
        self.context.join(&other.context);
    }

    /// All dots that are in force.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.entries.values().flat_map(|dots| dots.keys().copied())
    }

    /// Everything that is in force: key, dot, value.
    pub fn iter(&self) -> impl Iterator<Item = (&K, Dot, &V)> {
        self.entries.iter().flat_map(|(k, dots)| dots.iter().map(move |(d, v)| (k, *d, v)))
    }

    /// The delta that takes out the dots in `seen` and puts these entries in, each under a new dot of `origin`.
    ///
    /// `known` are the state, and what the same operation has made of it so far.
    pub fn change(
        known: [Option<&DotMap<K, V>>; 2],
        origin: NodeId,
        seen: impl IntoIterator<Item = Dot>,
        put: impl IntoIterator<Item = (K, V)>,
    ) -> DotMap<K, V> {
        let last = known.into_iter().flatten().map(|map| map.last_dot(origin));
        let first = last.max().unwrap_or(0);
        let mut counter = first;
        let mut delta = DotMap::default();
        let mut covered: Vec<Dot> = seen.into_iter().collect();
        for (key, value) in put {
            counter = counter.saturating_add(1);
            let dot = Dot { origin, counter };
            covered.push(dot);
            delta.entries.entry(key).or_default().insert(dot, value);
        }
        if origin == GROUP && counter > first {
            delta.group_dots = counter;
        }
        delta.context = Context::of(covered);
        delta
    }

    /// The last dot that `origin` has given out here.
    ///
    /// A node sees its own dots before anyone, so the context tells. The group's dots may reach a replica in
    /// a node's removal before the entry that made them, so the group counts them itself.
    fn last_dot(&self, origin: NodeId) -> u64 {
        if origin == GROUP { self.group_dots } else { self.context.last(origin) }
    }
}

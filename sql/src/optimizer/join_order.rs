//! The search for a join order, over sizes alone.
//!
//! ```text
//!   relations   a 1000   b 10   c 50            what a set of relations gives does not depend on the order
//!   links       a─b 1/1000   b─c 1/10           in which it was joined: rows(a b c) = 1000·10·50/1000/10
//!
//!   {a b} {b c}          each set's cheapest tree, from the cheapest trees of its parts
//!      {a b c}
//! ```
//!
//! Up to [`MAX_EXHAUSTIVE`] relations every bushy tree without needless products is looked at, by dynamic
//! programming (Selinger 1979). Beyond that the pair whose joining gives the fewest rows is joined, again
//! and again (Fegaras 1998, "GOO"). Parts without a link between them are joined last, the smallest first.

use std::collections::HashMap;

use super::cost::{EVALUATE, Size};

/// Relations of one cluster; more are joined as they are written.
pub(super) const MAX_RELATIONS: usize = 128;

/// Relations up to which all trees are looked at.
const MAX_EXHAUSTIVE: usize = 10;

/// A set of relations.
pub(super) type Set = u128;

/// A class of equal columns: for each relation that has one, how many different values it has there.
pub(super) struct Link {
    pub(super) distinct: Vec<(usize, f64)>,
}

/// A condition over several relations.
pub(super) struct Predicate {
    pub(super) relations: Set,
    pub(super) share: f64,
    /// The relations of either side, if it is an equality that can be hashed
    pub(super) sides: Option<(Set, Set)>,
}

/// How two inputs are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// By equal keys: the right one is hashed, or both are merged
    Equal,
    /// The right one, a single relation, is looked up by index
    Lookup,
    /// Every pair
    Loop,
}

/// A join tree.
#[derive(Debug)]
pub(super) enum Tree {
    /// A relation
    Leaf(usize),
    /// A join
    Join { left: Box<Tree>, right: Box<Tree>, method: Method, size: Size },
}

/// What the search works on.
pub(super) struct Graph<'a> {
    pub(super) relations: Vec<Size>,
    pub(super) links: Vec<Link>,
    pub(super) predicates: Vec<Predicate>,
    /// Rows and cost of one lookup into a relation, once these others are known
    pub(super) lookup: &'a dyn Fn(usize, Set) -> Option<Size>,
    /// The cost of joining two inputs on equal keys so that so many rows come out, whichever way is cheaper
    pub(super) equal: &'a dyn Fn(Size, Size, f64) -> f64,
    /// Joining on equal keys is not wanted in any way
    pub(super) no_equal: bool,
    /// What a nested loop costs more
    pub(super) loop_penalty: f64,
}

/// The cheapest way found to join a set.
#[derive(Clone, Copy)]
struct Best {
    size: Size,
    /// Left part and method; `None` is a single relation
    split: Option<(Set, Method)>,
}

pub(super) fn bit(relation: usize) -> Set {
    1 << relation
}

fn members(mut set: Set) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if set == 0 {
            return None;
        }
        let next = set.trailing_zeros() as usize;
        set &= set - 1;
        Some(next)
    })
}

impl Graph<'_> {
    /// The tree to build. There is at least one relation, and at most [`MAX_RELATIONS`].
    pub(super) fn search(&self) -> Tree {
        let mut best: HashMap<Set, Best> = HashMap::new();
        for (i, size) in self.relations.iter().enumerate() {
            best.insert(bit(i), Best { size: *size, split: None });
        }
        let mut parts: Vec<Set> = Vec::new();
        for component in self.components() {
            if component.count_ones() as usize <= MAX_EXHAUSTIVE {
                self.exhaust(component, &mut best);
                parts.push(component);
            } else {
                parts.extend(self.merge(members(component).map(bit).collect(), &mut best));
            }
        }
        // Products, the smallest first; an index may still be looked into.
        let rows = |set: &Set| best.get(set).map_or(f64::MAX, |b| b.size.rows);
        parts.sort_by(|a, b| rows(a).total_cmp(&rows(b)));
        let mut whole = parts.first().copied().unwrap_or(0);
        for part in parts.into_iter().skip(1) {
            self.consider(whole, part, &mut best);
            whole |= part;
        }
        self.tree(whole, &best)
    }

    /// Sets of relations that are linked.
    fn components(&self) -> Vec<Set> {
        let mut components: Vec<Set> = (0..self.relations.len()).map(bit).collect();
        let mut unite = |set: Set| {
            let (touched, mut rest): (Vec<Set>, Vec<Set>) =
                components.iter().partition(|component| **component & set != 0);
            if touched.len() > 1 {
                rest.push(touched.into_iter().fold(0, |a, b| a | b));
                components = rest;
            }
        };
        for link in &self.links {
            unite(link.distinct.iter().fold(0, |set, (relation, _)| set | bit(*relation)));
        }
        self.predicates.iter().filter(|p| p.sides.is_some()).for_each(|p| unite(p.relations));
        components
    }

    /// True if an equality stands between two sets.
    fn linked(&self, left: Set, right: Set) -> bool {
        let in_both = |link: &Link| {
            let has = |set: Set| link.distinct.iter().any(|(r, _)| set & bit(*r) != 0);
            has(left) && has(right)
        };
        self.links.iter().any(in_both)
            || self.predicates.iter().any(|p| {
                p.sides.is_some_and(|(a, b)| {
                    (a & !left == 0 && b & !right == 0) || (a & !right == 0 && b & !left == 0)
                })
            })
    }

    /// The share of pairs that a join keeps.
    fn share(&self, left: Set, right: Set) -> f64 {
        let mut share = 1.0;
        for link in &self.links {
            let least = |set: Set| {
                let inside = link.distinct.iter().filter(|(r, _)| set & bit(*r) != 0);
                inside.map(|(_, distinct)| *distinct).min_by(f64::total_cmp)
            };
            if let (Some(l), Some(r)) = (least(left), least(right)) {
                share /= l.max(r).max(1.0);
            }
        }
        for predicate in &self.predicates {
            let inside = |set: Set| predicate.relations & !set == 0;
            if inside(left | right) && !inside(left) && !inside(right) {
                share *= predicate.share;
            }
        }
        share
    }

    /// The cheapest way to join two sets, each with its own cheapest way.
    fn join(&self, left: Set, right: Set, best: &HashMap<Set, Best>) -> Option<(Size, Set, Method)> {
        let (l, r) = (best.get(&left)?.size, best.get(&right)?.size);
        let rows = match best.get(&(left | right)) {
            Some(known) => known.size.rows,
            None => (l.rows * r.rows * self.share(left, right)).max(1.0),
        };
        let mut found: Option<(f64, Set, Method)> = None;
        let mut offer = |cost: f64, left: Set, method: Method| {
            if found.is_none_or(|(known, ..)| cost < known) {
                found = Some((cost, left, method));
            }
        };
        if self.linked(left, right) {
            offer((self.equal)(l, r, rows), left, Method::Equal);
            offer((self.equal)(r, l, rows), right, Method::Equal);
            for (outer, size, inner) in [(left, l, right), (right, r, left)] {
                if inner.count_ones() == 1
                    && let Some(one) = (self.lookup)(inner.trailing_zeros() as usize, outer)
                {
                    let cost = size.cost + size.rows.max(1.0) * one.cost + rows * EVALUATE;
                    offer(cost + self.loop_penalty, outer, Method::Lookup);
                }
            }
            if self.no_equal {
                offer(product(l, r) + self.loop_penalty, left, Method::Loop);
            }
        } else {
            offer(product(l, r) + self.loop_penalty, left, Method::Loop);
            offer(product(r, l) + self.loop_penalty, right, Method::Loop);
        }
        found.map(|(cost, left, method)| (Size { rows, cost, width: l.width + r.width }, left, method))
    }

    fn consider(&self, left: Set, right: Set, best: &mut HashMap<Set, Best>) {
        if let Some((size, left_part, method)) = self.join(left, right, best) {
            let entry = best.entry(left | right).or_insert(Best { size, split: Some((left_part, method)) });
            if size.cost < entry.size.cost {
                *entry = Best { size, split: Some((left_part, method)) };
            }
        }
    }

    /// Every tree of a linked set.
    fn exhaust(&self, component: Set, best: &mut HashMap<Set, Best>) {
        let relations: Vec<usize> = members(component).collect();
        let count = relations.len();
        let spread = |mask: u32| -> Set {
            relations.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1).fold(0, |s, (_, r)| s | bit(*r))
        };
        for mask in 1u32..1 << count {
            if mask.count_ones() < 2 {
                continue;
            }
            // Each split once: the part with the lowest relation on the left.
            let lowest = mask & mask.wrapping_neg();
            let mut left = (mask - 1) & mask;
            while left > 0 {
                if left & lowest != 0 {
                    let (l, r) = (spread(left), spread(mask & !left));
                    if best.contains_key(&l) && best.contains_key(&r) && self.linked(l, r) {
                        self.consider(l, r, best);
                    }
                }
                left = (left - 1) & mask;
            }
        }
        // A condition over more than two relations may link none of them pairwise.
        if !best.contains_key(&component) {
            let whole = self.merge(relations.into_iter().map(bit).collect(), best);
            let mut whole = whole.into_iter();
            let Some(mut joined) = whole.next() else { return };
            for part in whole {
                self.consider(joined, part, best);
                joined |= part;
            }
        }
    }

    /// Joins linked parts, always those two that give the fewest rows, until no two are linked.
    fn merge(&self, mut parts: Vec<Set>, best: &mut HashMap<Set, Best>) -> Vec<Set> {
        let rows = |l: Set, r: Set, best: &HashMap<Set, Best>| -> f64 {
            let of = |s: Set| best.get(&s).map_or(1.0, |b| b.size.rows);
            of(l) * of(r) * self.share(l, r)
        };
        // Links between parts, kept as parts are joined.
        let mut candidates: Vec<(Set, Set, f64)> = Vec::new();
        for (i, &l) in parts.iter().enumerate() {
            for &r in &parts[i + 1..] {
                if self.linked(l, r) {
                    candidates.push((l, r, rows(l, r, best)));
                }
            }
        }
        while let Some(&(l, r, _)) = candidates.iter().min_by(|a, b| a.2.total_cmp(&b.2)) {
            self.consider(l, r, best);
            let joined = l | r;
            let touched = |&(a, b, _): &(Set, Set, f64)| a == l || a == r || b == l || b == r;
            candidates.retain(|c| !touched(c));
            parts.retain(|p| *p != l && *p != r);
            for &part in &parts {
                if self.linked(joined, part) {
                    candidates.push((joined, part, rows(joined, part, best)));
                }
            }
            parts.push(joined);
        }
        parts
    }

    fn tree(&self, set: Set, best: &HashMap<Set, Best>) -> Tree {
        match best.get(&set) {
            Some(Best { size, split: Some((left, method)) }) => Tree::Join {
                left: Box::new(self.tree(*left, best)),
                right: Box::new(self.tree(set & !left, best)),
                method: *method,
                size: *size,
            },
            _ => Tree::Leaf(set.trailing_zeros() as usize),
        }
    }
}

/// The cost of a nested loop over rows that are kept.
fn product(left: Size, right: Size) -> f64 {
    left.cost + right.cost + left.rows * right.rows * EVALUATE * 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(rows: &[f64]) -> Graph<'static> {
        let links =
            (1..rows.len()).map(|i| Link { distinct: vec![(i - 1, rows[i - 1]), (i, rows[i])] }).collect();
        Graph {
            relations: rows.iter().map(|&rows| Size { rows, cost: rows * 0.02, width: 100.0 }).collect(),
            links,
            predicates: Vec::new(),
            lookup: &|_, _| None,
            equal: &|l, r, rows| l.cost + r.cost + r.rows * 0.015 + l.rows * 0.0075 + rows * EVALUATE,
            no_equal: false,
            loop_penalty: 0.0,
        }
    }

    fn leaves(tree: &Tree, out: &mut Vec<usize>) {
        match tree {
            Tree::Leaf(i) => out.push(*i),
            Tree::Join { left, right, .. } => {
                leaves(left, out);
                leaves(right, out);
            }
        }
    }

    #[test]
    fn every_relation_is_joined_once() {
        for n in [1, 2, 5, 10, 11, 64, 128] {
            let rows: Vec<f64> = (0..n).map(|i| 10.0 + f64::from(i)).collect();
            let mut seen = Vec::new();
            leaves(&chain(&rows).search(), &mut seen);
            seen.sort_unstable();
            assert_eq!(seen, (0..n as usize).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_linked_graph_has_no_products() {
        fn check(tree: &Tree) {
            if let Tree::Join { left, right, method, .. } = tree {
                assert_ne!(*method, Method::Loop);
                check(left);
                check(right);
            }
        }
        check(&chain(&[1000.0, 10.0, 500.0, 3.0]).search());
        check(&chain(&vec![10.0; 64]).search());
    }

    #[test]
    fn the_smallest_pair_comes_first_and_the_small_side_is_hashed() {
        let graph = chain(&[1_000_000.0, 1000.0, 10.0]);
        let Tree::Join { left, right, method, .. } = graph.search() else { panic!("no join") };
        assert_eq!(method, Method::Equal);
        assert!(matches!(*left, Tree::Leaf(0)));
        assert!(matches!(*right, Tree::Join { .. }));
    }
}

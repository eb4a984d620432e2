//! Is a register's history linearizable? (Wing and Gong, "Testing and Verifying Concurrent Objects", 1993; with
//! Lowe's memory of what was tried, "Testing for Linearizability", 2017.)
//!
//! ```text
//!   A  ├── write 1 ──┤                      order that explains it:
//!   B       ├────── read → 1 ──────┤          write 1, read → 1, write 2, read → 2
//!   C               ├── write 2 ──┤         an order may put one before another only if that one
//!   D                            ├ read → 2 ┤   had not ended before this one began
//! ```
//!
//! The search takes, again and again, one of the operations that may come next: one that began before any that is left
//! ended. If the register's value does not allow it, it takes another, and goes back when there is none. Which
//! operations have been taken, together with the value they left, is remembered: what led nowhere once does so again.
//! An operation whose answer was lost never ended: it may come at any later time, or never.

use std::collections::HashSet;
use std::time::Duration;

/// What was asked of the register, and what it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It was read; the value
    Read(i64),
    /// It was written
    Write(i64),
    /// It was compared with the first, and set to the second if it was equal; whether it was, if that is known
    CompareAndSet(i64, i64, Option<bool>),
}

/// An operation of a history.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// What it was
    pub action: Action,
    /// When it was asked for
    pub began: Duration,
    /// When it was answered; never, of an operation whose fate is not known
    pub ended: Option<Duration>,
}

/// What the search has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains the history
    Linearizable,
    /// There is none
    Broken,
    /// It would have taken too long to know
    Undecided,
}

/// States remembered, at most: about 200 MB.
const MAX_STATES: usize = 2_000_000;

impl Action {
    /// The value afterwards, if this can happen at that value.
    fn apply(self, value: i64) -> Option<i64> {
        match self {
            Action::Read(seen) => (seen == value).then_some(value),
            Action::Write(new) => Some(new),
            Action::CompareAndSet(old, new, equal) => match equal {
                Some(true) | None => (old == value).then_some(new),
                Some(false) => (old != value).then_some(value),
            },
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Taken(Box<[u64]>);

impl Taken {
    fn has(&self, n: usize) -> bool {
        self.0[n / 64] & (1 << (n % 64)) != 0
    }

    fn flip(&mut self, n: usize) {
        self.0[n / 64] ^= 1 << (n % 64);
    }
}

/// Looks for an order that explains a history of a register that began with `initial`.
pub fn check(initial: i64, history: &[Operation]) -> Verdict {
    let mut history = history.to_vec();
    history.sort_by_key(|op| op.began);
    let ended = |n: usize| history[n].ended.unwrap_or(Duration::MAX);
    let known = history.iter().filter(|op| op.ended.is_some()).count();
    let mut taken = Taken(vec![0; history.len().div_ceil(64)].into());
    let mut seen: HashSet<(Taken, i64)> = HashSet::new();
    // Each step: what was taken, the value before it. On top of the stack: from where to look on.
    let mut steps: Vec<(usize, i64)> = Vec::new();
    let (mut value, mut from, mut left, mut first) = (initial, 0, known, 0);
    loop {
        if left == 0 {
            return Verdict::Linearizable;
        }
        while first < history.len() && taken.has(first) {
            first += 1;
        }
        // Whoever began after another ended cannot come before it.
        let mut horizon = Duration::MAX;
        for (n, operation) in history.iter().enumerate().skip(first) {
            if operation.began > horizon {
                break;
            }
            if !taken.has(n) {
                horizon = horizon.min(ended(n));
            }
        }
        let mut next = None;
        for (n, operation) in history.iter().enumerate().skip(from.max(first)) {
            if operation.began > horizon {
                break;
            }
            if taken.has(n) {
                continue;
            }
            let Some(after) = operation.action.apply(value) else { continue };
            taken.flip(n);
            if seen.insert((taken.clone(), after)) {
                next = Some((n, after));
                break;
            }
            taken.flip(n);
        }
        if seen.len() > MAX_STATES {
            return Verdict::Undecided;
        }
        match next {
            Some((n, after)) => {
                steps.push((n, value));
                left -= usize::from(history[n].ended.is_some());
                (value, from) = (after, 0);
            }
            None => {
                let Some((n, before)) = steps.pop() else { return Verdict::Broken };
                taken.flip(n);
                left += usize::from(history[n].ended.is_some());
                (value, from) = (before, n + 1);
                first = first.min(n);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use Action::{CompareAndSet as Cas, Read as R, Write as W};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn op(action: Action, began: u64, ended: u64) -> Operation {
        let at = Duration::from_millis;
        Operation { action, began: at(began), ended: (ended > 0).then(|| at(ended)) }
    }

    #[test]
    fn known_good_histories() {
        assert_eq!(check(0, &[]), Verdict::Linearizable);
        let essay = [op(W(1), 0, 10), op(R(1), 5, 25), op(W(2), 12, 22), op(R(2), 24, 30)];
        assert_eq!(check(0, &essay), Verdict::Linearizable);
        // Side by side, a read may see either.
        for seen in [0, 1] {
            assert_eq!(check(0, &[op(W(1), 0, 10), op(R(seen), 5, 8)]), Verdict::Linearizable);
        }
        let cas = [op(Cas(0, 1, Some(true)), 0, 5), op(Cas(0, 2, Some(false)), 1, 9), op(R(1), 10, 11)];
        assert_eq!(check(0, &cas), Verdict::Linearizable);
        // Of unknown fate: seen late, or never.
        assert_eq!(check(0, &[op(W(1), 0, 0), op(R(0), 5, 6), op(R(1), 50, 60)]), Verdict::Linearizable);
        assert_eq!(check(0, &[op(W(1), 0, 0), op(R(0), 5, 6), op(R(0), 50, 60)]), Verdict::Linearizable);
        assert_eq!(check(0, &[op(Cas(0, 1, None), 0, 0), op(R(1), 50, 60)]), Verdict::Linearizable);
    }

    #[test]
    fn known_bad_histories() {
        let stale = [op(W(1), 0, 10), op(R(0), 11, 12)];
        assert_eq!(check(0, &stale), Verdict::Broken);
        let back_again = [op(W(1), 0, 100), op(R(1), 5, 10), op(R(0), 11, 20)];
        assert_eq!(check(0, &back_again), Verdict::Broken);
        let lost = [op(W(1), 0, 10), op(W(2), 11, 20), op(R(1), 21, 30)];
        assert_eq!(check(0, &lost), Verdict::Broken);
        let both = [op(Cas(0, 1, Some(true)), 0, 10), op(Cas(0, 2, Some(true)), 0, 10)];
        assert_eq!(check(0, &both), Verdict::Broken);
        let from_nowhere = [op(R(7), 0, 10)];
        assert_eq!(check(0, &from_nowhere), Verdict::Broken);
        // It was seen, so it happened; and then it was not.
        let unknown = [op(W(1), 0, 0), op(R(1), 5, 6), op(R(0), 50, 60)];
        assert_eq!(check(0, &unknown), Verdict::Broken);
        let before_it_began = [op(R(1), 0, 5), op(W(1), 6, 0)];
        assert_eq!(check(0, &before_it_began), Verdict::Broken);
    }

    /// Histories of a true register, with clients side by side, some answers lost; and the same with one value changed.
    #[test]
    fn histories_of_a_true_register_pass_and_spoilt_ones_mostly_do_not() {
        let seed = crate::seed();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut caught = 0;
        for _ in 0..200 {
            let (mut value, mut history, mut free) = (0, Vec::new(), [0u64; 4]);
            for n in 1..=80 {
                let client = rng.random_range(0..4);
                let began = free[client] + rng.random_range(1..20);
                // It takes place at a moment between its two ends; moments are visited in order.
                history.push((client, began, n));
                free[client] = began + rng.random_range(1..60);
            }
            let mut moments: Vec<(u64, u64, u64, i64)> = history
                .iter()
                .map(|&(_, began, n)| {
                    let ended = began + rng.random_range(1..40);
                    (rng.random_range(began..=ended), began, ended, n)
                })
                .collect();
            moments.sort_unstable();
            let mut ops: Vec<Operation> = Vec::new();
            for (_, began, ended, n) in moments {
                let lost = rng.random_bool(0.05);
                let action = match rng.random_range(0..3) {
                    0 => R(value),
                    1 => W(n),
                    _ => Cas(if rng.random_bool(0.7) { value } else { n - 1 }, n, None),
                };
                let action = match (action, lost) {
                    (R(_), true) => continue,
                    (Cas(old, new, _), false) => Cas(old, new, Some(old == value)),
                    (action, _) => action,
                };
                if !lost || rng.random_bool(0.5) {
                    value = action.apply(value).unwrap_or(value);
                }
                ops.push(op(action, began, if lost { 0 } else { ended }));
            }
            assert_eq!(check(0, &ops), Verdict::Linearizable, "AMPHORA_SEED={seed}: {ops:?}");
            if let Some(read) = ops.iter_mut().find(|op| matches!(op.action, R(seen) if seen > 0)) {
                read.action = R(0);
                caught += usize::from(check(0, &ops) == Verdict::Broken);
            }
        }
        assert!(caught > 50, "AMPHORA_SEED={seed}: only {caught} spoilt histories were found");
    }
}

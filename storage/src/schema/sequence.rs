//! A sequence's state: which value comes next. Arithmetic alone; who keeps it where is another's affair.
//!
//! ```text
//!   called = false            called = true
//!   next is `last` itself     next is `last` + increment, or the other end if CYCLE
//! ```

use serde::{Deserialize, Serialize};

use super::Sequence;

/// Where a sequence stands, with what is needed to go on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceState {
    /// `last_value`
    pub last: i64,
    /// `is_called`: false if `last` itself has not been given yet
    pub called: bool,
    /// Step; never 0
    pub increment: i64,
    /// Least value
    pub min: i64,
    /// Greatest value
    pub max: i64,
    /// CYCLE
    pub cycle: bool,
}

/// Values that follow each other: `first`, `first + step`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceValues {
    /// The first of them
    pub first: i64,
    /// From one to the next
    pub step: i64,
    /// How many
    pub count: u32,
}

impl SequenceValues {
    /// Takes the first of them away.
    pub fn pop(&mut self) -> Option<i64> {
        let value = self.first;
        self.count = self.count.checked_sub(1)?;
        // The one after the last may lie outside the type; nobody will see it.
        self.first = value.wrapping_add(self.step);
        Some(value)
    }
}

/// A sequence without CYCLE has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceEnd {
    /// The bound that was reached
    pub bound: i64,
    /// True if it is the greatest value, false if the least
    pub at_max: bool,
}

impl SequenceState {
    /// The state of a sequence that begins.
    pub fn start_of(sequence: &Sequence) -> SequenceState {
        SequenceState {
            last: sequence.start,
            called: false,
            increment: sequence.increment,
            min: sequence.min,
            max: sequence.max,
            cycle: sequence.cycle,
        }
    }

    /// The next values: at least one, at most `count`, and none beyond a turn of the cycle.
    pub fn take(&mut self, count: u32) -> Result<SequenceValues, SequenceEnd> {
        let first = if !self.called {
            self.last
        } else {
            let next = self.last.checked_add(self.increment);
            match next.filter(|v| (self.min..=self.max).contains(v)) {
                Some(next) => next,
                None if self.cycle && self.increment > 0 => self.min,
                None if self.cycle => self.max,
                None => {
                    let at_max = self.increment > 0;
                    return Err(SequenceEnd { bound: if at_max { self.max } else { self.min }, at_max });
                }
            }
        };
        let room = if self.increment > 0 {
            i128::from(self.max) - i128::from(first)
        } else {
            i128::from(first) - i128::from(self.min)
        };
        let more = room.max(0) / i128::from(self.increment).abs();
        let count = u32::try_from((more + 1).min(i128::from(count.max(1)))).unwrap_or(1);
        let last = i128::from(first) + i128::from(self.increment) * i128::from(count - 1);
        // Within min and max, so within the type.
        self.last = i64::try_from(last).unwrap_or(first);
        self.called = true;
        Ok(SequenceValues { first, step: self.increment, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(last: i64, increment: i64, min: i64, max: i64, cycle: bool) -> SequenceState {
        SequenceState { last, called: false, increment, min, max, cycle }
    }

    fn values(state: &mut SequenceState, count: u32) -> Vec<i64> {
        let Ok(mut values) = state.take(count) else { return Vec::new() };
        std::iter::from_fn(|| values.pop()).collect()
    }

    #[test]
    fn the_first_value_is_the_start_itself() {
        let mut s = state(5, 2, 1, 100, false);
        assert_eq!(values(&mut s, 3), [5, 7, 9]);
        assert_eq!(values(&mut s, 1), [11]);
    }

    #[test]
    fn a_grant_ends_at_the_bound_and_then_there_is_an_error_or_a_turn() {
        let mut s = state(8, 1, 1, 10, false);
        assert_eq!(values(&mut s, 100), [8, 9, 10]);
        assert_eq!(s.take(1), Err(SequenceEnd { bound: 10, at_max: true }));
        s.cycle = true;
        assert_eq!(values(&mut s, 2), [1, 2]);
        let mut down = state(-1, -3, -7, -1, true);
        assert_eq!(values(&mut down, 9), [-1, -4, -7]);
        assert_eq!(values(&mut down, 1), [-1]);
    }

    #[test]
    fn the_ends_of_the_type_overflow_nothing() {
        let mut s = state(i64::MAX - 1, 1, 1, i64::MAX, false);
        assert_eq!(values(&mut s, u32::MAX), [i64::MAX - 1, i64::MAX]);
        assert_eq!(s.take(1), Err(SequenceEnd { bound: i64::MAX, at_max: true }));
        let mut s = state(i64::MIN + 1, i64::MIN, i64::MIN, -1, false);
        assert_eq!(values(&mut s, 2), [i64::MIN + 1]);
        assert_eq!(s.take(1), Err(SequenceEnd { bound: i64::MIN, at_max: false }));
        let mut whole = state(i64::MIN, 1, i64::MIN, i64::MAX, false);
        assert_eq!(values(&mut whole, 2), [i64::MIN, i64::MIN + 1]);
    }
}

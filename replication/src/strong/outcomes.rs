//! What became of recent transactions, for gateways whose reply was lost.
//!
//! Every replica notes the commits it applies, so whoever leads next can answer. The notes cover the log
//! after some index; before it, a missing note means nothing.
//!
//! ```text
//!   log:   … 90   91   92   93   94   95
//!               │    └──── noted ────────┘        "not committed" is certain for a transaction
//!          covers_after = 91                      that could only be after 91
//! ```

use std::collections::{HashMap, VecDeque};

use amphora_storage::Timestamp;

use super::types::TransactionId;

/// Commits remembered, at most.
const CAPACITY: usize = 65_536;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Committed, at this timestamp
    Committed(Timestamp),
    /// Not in the log
    NotCommitted,
    /// Too long ago to say
    Unknown,
}

/// Recent commits in log order.
#[derive(Debug, Default)]
pub struct Outcomes {
    commits: HashMap<TransactionId, Timestamp>,
    order: VecDeque<(u64, TransactionId)>,
    covers_after: u64,
}

impl Outcomes {
    /// Notes that begin after this index.
    pub fn after(index: u64) -> Outcomes {
        Outcomes { covers_after: index, ..Outcomes::default() }
    }

    /// A commit was applied.
    pub fn note(&mut self, index: u64, id: TransactionId, timestamp: Timestamp) {
        self.commits.insert(id, timestamp);
        self.order.push_back((index, id));
        if self.order.len() > CAPACITY
            && let Some((index, id)) = self.order.pop_front()
        {
            self.commits.remove(&id);
            self.covers_after = self.covers_after.max(index);
        }
    }

    /// What became of a transaction that, if it is in the log, is after this index.
    pub fn get(&self, id: TransactionId, after: u64) -> Outcome {
        match self.commits.get(&id) {
            Some(timestamp) => Outcome::Committed(*timestamp),
            None if after >= self.covers_after => Outcome::NotCommitted,
            None => Outcome::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_only_an_answer_where_notes_were_taken() {
        let id = |counter| TransactionId { node: 1, epoch: 1, counter };
        let mut outcomes = Outcomes::after(10);
        assert_eq!(outcomes.get(id(0), 9), Outcome::Unknown);
        assert_eq!(outcomes.get(id(0), 10), Outcome::NotCommitted);
        for n in 0..=CAPACITY as u64 {
            outcomes.note(11 + n, id(n), Timestamp(n));
        }
        assert_eq!(outcomes.get(id(0), 10), Outcome::Unknown, "forgotten");
        assert_eq!(outcomes.get(id(0), 11), Outcome::NotCommitted);
        assert_eq!(outcomes.get(id(1), 10), Outcome::Committed(Timestamp(1)));
    }
}

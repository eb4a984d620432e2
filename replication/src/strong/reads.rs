//! One read-index round trip for all statements that wait at the moment.
//!
//! ```text
//!   statements   a b c          d e f g           h
//!                └─┬─┘          └──┬──┘           │
//!   round trips    ├───────────────┤├─────────────┤├────…
//!                  asks for a,b,c   asks for d…g    asks for h
//! ```
//!
//! A statement that arrives while a question is on its way must not use its answer: the leader may have
//! given it before the statement's own earlier commit. It goes with the next one.

use amphora_storage::Timestamp;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{Error, Result};

/// Statements waiting for a read index, at most.
const MAX_WAITING: usize = 65_536;

type Waiter = oneshot::Sender<Result<Timestamp>>;

#[derive(Default)]
struct State {
    waiting: Vec<Waiter>,
    asking: bool,
    /// One more question is wanted, whoever waits
    renewing: bool,
}

/// The statements that wait.
#[derive(Default)]
pub struct ReadIndex {
    state: Mutex<State>,
}

impl ReadIndex {
    /// Takes a place. If the second part is true the caller has to see that someone asks, again and again
    /// until there is no [`next_batch`](ReadIndex::next_batch).
    pub fn join(&self) -> Result<(oneshot::Receiver<Result<Timestamp>>, bool)> {
        let (tx, rx) = oneshot::channel();
        let mut state = self.state.lock();
        if state.waiting.len() >= MAX_WAITING {
            return Err(Error::new("53300", "too many statements are waiting for a snapshot"));
        }
        state.waiting.push(tx);
        Ok((rx, !std::mem::replace(&mut state.asking, true)))
    }

    /// Sees to it that a question is asked, for nobody in particular. If true the caller has to, as after
    /// [`join`](ReadIndex::join); if not one is on its way.
    pub fn begin(&self) -> bool {
        let mut state = self.state.lock();
        state.renewing = true;
        !std::mem::replace(&mut state.asking, true)
    }

    /// Those who wait now and get the answer to the next question; `None`, and the end of asking, if
    /// there are none.
    pub fn next_batch(&self) -> Option<Batch> {
        let mut state = self.state.lock();
        if !std::mem::take(&mut state.renewing) && state.waiting.is_empty() {
            state.asking = false;
            return None;
        }
        Some(Batch(std::mem::take(&mut state.waiting)))
    }
}

/// Statements that share one question.
pub struct Batch(Vec<Waiter>);

impl Batch {
    /// Gives all of them the answer.
    pub fn answer(self, answer: Result<Timestamp>) {
        for waiter in self.0 {
            // Its statement may have been cancelled.
            let _ = waiter.send(answer.clone());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn late_comers_share_the_next_question() {
        let reads = ReadIndex::default();
        let (mut first, drive) = reads.join().unwrap();
        assert!(drive);
        let batch = reads.next_batch().unwrap();
        let mut late: Vec<_> = (0..3).map(|_| reads.join().unwrap()).collect();
        batch.answer(Ok(Timestamp(1)));
        assert_eq!(first.try_recv().unwrap().unwrap(), Timestamp(1));
        for (answer, drive) in &mut late {
            assert!(!*drive);
            assert!(answer.try_recv().is_err(), "the answer was too early for them");
        }
        reads.next_batch().unwrap().answer(Ok(Timestamp(2)));
        for (answer, _) in &mut late {
            assert_eq!(answer.try_recv().unwrap().unwrap(), Timestamp(2));
        }
        assert!(reads.next_batch().is_none());
        assert!(reads.join().unwrap().1, "the next one drives again");
    }
}

//! Which commits a leadership lets in, and what it says of those that it does not know.
//!
//! ```text
//!   Commit ──► admit ──► on its way ──► finish            Outcome of one that is on its way: wait
//!                 │ Fenced, if its outcome was told        Outcome of any other: look it up, and fence it
//! ```
//!
//! **An outcome once told never changes.** Whoever asks what became of a commit that has not come, or is no longer on its
//! way, is told what the log says; if that is "not committed", it must stay so. So from then on the commit is refused
//! under this leadership, should it still come. Under the next it cannot come: a commit names the leadership that it is for.
//!
//! A state machine without time or I/O of its own.

use std::collections::{HashSet, VecDeque};

use super::types::TransactionId;

/// Transactions whose late commit is to be refused, remembered at most.
const MAX_FENCED: usize = 65_536;

/// Why a commit is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// Leadership is being handed over
    Paused,
    /// Somebody was told that it was not committed, or its locks have expired
    Fenced,
    /// It is on its way already
    Twice,
}

/// Commits between arrival and reply, and those that must not arrive any more.
#[derive(Default)]
pub struct Admission {
    commits: HashSet<TransactionId>,
    paused: bool,
    fenced: HashSet<TransactionId>,
    fenced_order: VecDeque<TransactionId>,
}

impl Admission {
    /// Lets a commit in, or says why not.
    pub fn admit(&mut self, id: TransactionId) -> Result<(), Turned> {
        if self.paused {
            return Err(Turned::Paused);
        }
        if self.fenced.contains(&id) {
            return Err(Turned::Fenced);
        }
        if !self.commits.insert(id) {
            return Err(Turned::Twice);
        }
        Ok(())
    }

    /// A commit has its answer.
    pub fn finish(&mut self, id: TransactionId) {
        self.commits.remove(&id);
    }

    /// True while a commit is on its way.
    pub fn is_active(&self, id: TransactionId) -> bool {
        self.commits.contains(&id)
    }

    /// True if no commit is on its way.
    pub fn is_idle(&self) -> bool {
        self.commits.is_empty()
    }

    /// Lets none in from now on, or again.
    pub fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// True while none is let in.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// A late commit of this transaction is refused from now on.
    pub fn fence(&mut self, id: TransactionId) {
        if self.fenced.insert(id) {
            self.fenced_order.push_back(id);
            if self.fenced_order.len() > MAX_FENCED
                && let Some(oldest) = self.fenced_order.pop_front()
            {
                self.fenced.remove(&oldest);
            }
        }
    }

    /// True if it can be told what became of a commit: it is not on its way, and never will be from now on.
    pub fn settle(&mut self, id: TransactionId) -> bool {
        let settled = !self.is_active(id);
        if settled {
            self.fence(id);
        }
        settled
    }
}

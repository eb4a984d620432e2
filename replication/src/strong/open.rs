//! What this node's transactions may hold at the leader.
//!
//! A name enters before its first lock is asked for and leaves when it is released or committed: what is in here
//! is renewed, and is what its session holds ([`locks`](super::locks) says why that matters).

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::types::{LeaderId, TransactionId};

/// Transactions that may hold locks. All are of one node, and of one life of its process.
#[derive(Default)]
pub(super) struct OpenTransactions {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    transactions: HashMap<TransactionId, Open>,
    /// Of each session, the counters of its names
    sessions: HashMap<u64, SmallVec<[u64; 2]>>,
}

#[derive(Default)]
struct Open {
    held_under: Option<LeaderId>,
    session: u64,
}

impl OpenTransactions {
    /// A transaction of a session (0 for none) is about to ask for locks. Under which leadership does it hold some
    /// already?
    pub(super) fn enter(&self, id: TransactionId, session: u64) -> Option<LeaderId> {
        let mut state = self.state.lock();
        let State { transactions, sessions } = &mut *state;
        match transactions.entry(id) {
            Entry::Occupied(open) => open.get().held_under,
            Entry::Vacant(slot) => {
                slot.insert(Open { held_under: None, session });
                if session != 0 {
                    sessions.entry(session).or_default().push(id.counter);
                }
                None
            }
        }
    }

    /// Under which other names its session holds locks, or may: their counters.
    pub(super) fn partners(&self, id: TransactionId) -> Vec<u64> {
        let state = self.state.lock();
        let names = state.transactions.get(&id).and_then(|open| state.sessions.get(&open.session));
        names.into_iter().flatten().copied().filter(|counter| *counter != id.counter).collect()
    }

    /// Locks were granted. False if others are held under another leadership.
    pub(super) fn granted(&self, id: TransactionId, leader: LeaderId) -> bool {
        let mut state = self.state.lock();
        let open = state.transactions.get_mut(&id);
        open.is_none_or(|open| *open.held_under.get_or_insert(leader) == leader)
    }

    /// The leadership under which it holds locks, if it does.
    pub(super) fn held_under(&self, id: TransactionId) -> Option<LeaderId> {
        self.state.lock().transactions.get(&id).and_then(|open| open.held_under)
    }

    /// It is over. False if it was not here.
    pub(super) fn leave(&self, id: TransactionId) -> bool {
        let mut state = self.state.lock();
        let Some(open) = state.transactions.remove(&id) else { return false };
        if let Entry::Occupied(mut names) = state.sessions.entry(open.session) {
            names.get_mut().retain(|counter| *counter != id.counter);
            if names.get().is_empty() {
                names.remove();
            }
        }
        true
    }

    /// All of them.
    pub(super) fn ids(&self) -> Vec<TransactionId> {
        self.state.lock().transactions.keys().copied().collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.transactions.is_empty() && state.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_the_names_that_are_open() {
        let name = |counter| TransactionId { node: 1, epoch: 1, counter };
        let open = OpenTransactions::default();
        for (counter, session) in [(1, 7), (2, 7), (3, 8), (4, 0), (5, 0)] {
            assert_eq!(open.enter(name(counter), session), None);
        }
        assert_eq!(open.partners(name(1)), [2]);
        assert!(open.partners(name(3)).is_empty() && open.partners(name(4)).is_empty());
        assert!(open.leave(name(2)) && !open.leave(name(2)));
        assert!(open.partners(name(1)).is_empty());
        for counter in [1, 3, 4, 5] {
            assert!(open.leave(name(counter)));
        }
        assert!(open.is_empty());
    }
}

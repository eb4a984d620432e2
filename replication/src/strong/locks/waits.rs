//! Who waits for whom: the graph without circles.
//!
//! A session has one transaction, and each of its advisory locks is a transaction of its own to the table, because
//! they begin and end on their own. But a session does one thing at a time: while it waits under one name it gives
//! nothing back under the others. So a session is one node of the graph, whatever its names:
//!
//! ```text
//!   session S   T1 holds row r        session P   T2 waits for r        S waits under A1, and names T1 as its partner:
//!               A1 waits for a ───────────────►   A2 holds a            A1 → A2 = P → T1 = S: a circle
//! ```
//!
//! **A waiting request names its partners**: what else the session holds. It says so when it begins to wait, and
//! again each time it asks (a lost advisory lock is locked again under a new name). Nobody else is taken for the
//! session's: what it gave back a moment ago, and of which the table has not heard, must not close a circle, for
//! the release is on its way. While no session waits, none of this is kept.
//!
//! *Invariant*: nobody waits for a node that waits for it. An edge appears only when a request is queued, or
//! names more partners, and both are refused if they close a circle. Nothing else makes one: who is served goes on,
//! those behind it waited for it before.

use std::collections::HashSet;
use std::collections::hash_map::Entry;

use smallvec::SmallVec;

use super::{Event, LockTable, Progress, conflict};
use crate::strong::transport::LockRefusal;
use crate::strong::types::TransactionId;

/// Names of a session other than `id`, as they are kept.
pub(super) fn sorted(id: TransactionId, partners: &[TransactionId]) -> Box<[TransactionId]> {
    let mut partners: Vec<TransactionId> = partners.iter().copied().filter(|p| *p != id).collect();
    partners.sort_unstable();
    partners.dedup();
    partners.into()
}

impl LockTable {
    /// A request is in a queue from now on.
    pub(super) fn begin_waiting(&mut self, id: TransactionId) {
        self.waiting += 1;
        if let Some(pending) = self.transactions.get(&id).and_then(|t| t.pending.as_ref()) {
            for partner in &pending.partners {
                self.held_up.entry(*partner).or_default().push(id);
            }
        }
    }

    /// A request leaves its queue.
    pub(super) fn stop_waiting(&mut self, id: TransactionId) {
        let Some(pending) = self.transactions.get(&id).and_then(|t| t.pending.as_ref()) else { return };
        self.waiting -= 1;
        for partner in &pending.partners {
            if let Entry::Occupied(mut held_up) = self.held_up.entry(*partner) {
                held_up.get_mut().retain(|by| *by != id);
                if held_up.get().is_empty() {
                    held_up.remove();
                }
            }
        }
    }

    /// A waiting request asks again, and says what its session holds now.
    pub(super) fn wait_on(
        &mut self,
        id: TransactionId,
        partners: Box<[TransactionId]>,
        events: &mut Vec<Event>,
    ) -> Progress {
        let pending = self.transactions.get(&id).and_then(|t| t.pending.as_ref());
        if pending.is_none_or(|pending| pending.partners == partners) {
            return Progress::Waiting;
        }
        self.stop_waiting(id);
        if let Some(pending) = self.transactions.get_mut(&id).and_then(|t| t.pending.as_mut()) {
            pending.partners = partners;
        }
        self.begin_waiting(id);
        if self.waits_for_itself(id) {
            self.cancel(id, events);
            return Progress::Refused(LockRefusal::Deadlock);
        }
        Progress::Waiting
    }

    /// Those whom a waiting request waits for.
    pub(super) fn blockers(&self, id: TransactionId) -> SmallVec<[TransactionId; 4]> {
        let mut blockers = SmallVec::new();
        let Some(pending) = self.transactions.get(&id).and_then(|t| t.pending.as_ref()) else {
            return blockers;
        };
        let Some(state) = pending.keys.get(pending.next).and_then(|(key, _)| self.keys.get(key)) else {
            return blockers;
        };
        let Some(at) = state.waiters.iter().position(|w| w.id == id) else { return blockers };
        let mode = state.waiters[at].mode;
        blockers
            .extend(state.holders.iter().filter(|(h, m)| *h != id && conflict(*m, mode)).map(|(h, _)| *h));
        blockers.extend(state.waiters.iter().take(at).filter(|w| conflict(w.mode, mode)).map(|w| w.id));
        blockers
    }

    /// True if the session of a waiting request is among those that it waits for, through whomever.
    pub(super) fn waits_for_itself(&self, id: TransactionId) -> bool {
        let pending = self.transactions.get(&id).and_then(|t| t.pending.as_ref());
        let own = pending.map_or(&[][..], |pending| &pending.partners);
        let mut seen = HashSet::new();
        let mut open: Vec<TransactionId> = self.blockers(id).to_vec();
        while let Some(next) = open.pop() {
            if next == id || own.binary_search(&next).is_ok() {
                return true;
            }
            if seen.insert(next) {
                open.extend(self.blockers(next));
                for by in self.held_up.get(&next).into_iter().flatten() {
                    if *by == id {
                        return true;
                    }
                    open.extend(self.blockers(*by));
                }
            }
        }
        false
    }
}

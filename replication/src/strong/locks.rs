//! The leader's lock table: who holds which key, and who waits for whom.
//!
//! A state machine without clocks, threads or channels of its own. It is told what happens and says who
//! may go on; `tenure.rs` is the shell that talks to the outside.
//!
//! ```text
//!   key ──► holders  {T1: shared, T4: shared}          T may pass if it conflicts with no holder
//!      └──► waiters  [T2: exclusive, T3: shared]       and nobody waits before it: FIFO
//!
//!   a request takes its keys in key order, one at a time, and waits for at most one:
//!   T2 waits for T1 and T4;  T3 waits for T2         ← edges of the wait-for graph
//! ```
//!
//! A request that would close a circle in that graph is refused when it is about to wait (Dijkstra's "a
//! process that waits knows for whom"), so the graph never has a circle and no timer looks for one. Who
//! upgrades shared to exclusive goes before all who wait, for they wait for it anyway. A session may hold locks
//! under several names, and is one node of the graph: `waits.rs`.
//!
//! Invariants, held by the property test: an exclusive holder is alone; a waiter at the head of a
//! queue conflicts with a holder (no wakeup is lost); later waiters never overtake earlier ones; the
//! wait-for graph has no circle.

mod waits;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::transport::LockRefusal;
use super::types::{LockKey, TransactionId};
use crate::api::{LockMode, WaitPolicy};

/// Locks held by all transactions together, at most.
pub const MAX_LOCKS: usize = 4_000_000;
/// Transactions waiting at a time, at most.
pub const MAX_WAITERS: usize = 65_536;

type Key = Arc<[u8]>;

/// What a transaction asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who
    pub id: TransactionId,
    /// Under which names its session holds other locks that it will not give back before this is answered
    pub partners: &'a [TransactionId],
    /// What
    pub keys: &'a [LockKey],
    /// What to do where another holds a lock
    pub wait: WaitPolicy,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All keys are locked, but for those skipped.
    Granted {
        /// Keys that others hold, if the request said to skip such
        skipped: Vec<Arc<[u8]>>,
    },
    /// The transaction is in a queue; an [`Event`] will tell.
    Waiting,
    /// Nothing more is locked.
    Refused(LockRefusal),
}

/// A waiting request came to an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whose request
    pub id: TransactionId,
    /// Granted or refused
    pub progress: Progress,
}

#[derive(Default)]
struct KeyState {
    holders: SmallVec<[(TransactionId, LockMode); 1]>,
    waiters: VecDeque<Waiter>,
}

struct Waiter {
    id: TransactionId,
    mode: LockMode,
    upgrade: bool,
}

struct Pending {
    /// Sorted, each once
    keys: Vec<(Key, LockMode)>,
    /// The first that is not yet held; the transaction is in that key's queue
    next: usize,
    skipped: Vec<Key>,
    wait: WaitPolicy,
    /// Other names of its session, sorted
    partners: Box<[TransactionId]>,
}

struct TransactionState {
    held: HashMap<Key, LockMode>,
    pending: Option<Pending>,
    touched: Instant,
    committing: bool,
}

/// The lock table.
#[derive(Default)]
pub struct LockTable {
    keys: HashMap<Key, KeyState>,
    transactions: HashMap<TransactionId, TransactionState>,
    /// Names of sessions that wait under another: those others
    held_up: HashMap<TransactionId, SmallVec<[TransactionId; 1]>>,
    locks: usize,
    waiting: usize,
}

fn conflict(a: LockMode, b: LockMode) -> bool {
    a == LockMode::Exclusive || b == LockMode::Exclusive
}

fn sorted(keys: &[LockKey]) -> Vec<(Key, LockMode)> {
    let mut keys: Vec<(Key, LockMode)> = keys.iter().map(|k| (Arc::from(k.key.as_slice()), k.mode)).collect();
    // Of a key that is named twice the stronger mode comes first, and stays.
    keys.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    keys.dedup_by(|a, b| a.0 == b.0);
    keys
}

impl KeyState {
    fn blocked_by_holders(&self, id: TransactionId, mode: LockMode) -> bool {
        self.holders.iter().any(|(h, m)| *h != id && conflict(*m, mode))
    }

    fn hold(&mut self, id: TransactionId, mode: LockMode) {
        match self.holders.iter_mut().find(|(h, _)| *h == id) {
            Some(held) => held.1 = held.1.max(mode),
            None => self.holders.push((id, mode)),
        }
    }
}

impl LockTable {
    /// An empty table.
    pub fn new() -> LockTable {
        LockTable::default()
    }

    /// [`ask`](Self::ask), of a transaction that is all its session has.
    pub fn request(
        &mut self,
        now: Instant,
        id: TransactionId,
        keys: &[LockKey],
        wait: WaitPolicy,
        events: &mut Vec<Event>,
    ) -> Progress {
        self.ask(now, Ask { id, partners: &[], keys, wait }, events)
    }

    /// Asks for keys. Asking again for what is being waited for keeps the place in the queue, and says what else
    /// the session holds now; asking for something else instead gives the place up.
    pub fn ask(&mut self, now: Instant, ask: Ask<'_>, events: &mut Vec<Event>) -> Progress {
        let Ask { id, wait, .. } = ask;
        let keys = sorted(ask.keys);
        let partners = waits::sorted(id, ask.partners);
        let pending = self.transactions.get_mut(&id).map(|t| {
            t.touched = now;
            t.pending.as_ref().map(|p| p.keys == keys)
        });
        match pending {
            Some(Some(true)) => return self.wait_on(id, partners, events),
            Some(Some(false)) => self.cancel(id, events),
            _ => {}
        }
        if self.locks + keys.len() > MAX_LOCKS {
            return Progress::Refused(LockRefusal::Overloaded);
        }
        let transaction = self.transactions.entry(id).or_insert_with(|| TransactionState {
            held: HashMap::new(),
            pending: None,
            touched: now,
            committing: false,
        });
        transaction.pending = Some(Pending { keys, next: 0, skipped: Vec::new(), wait, partners });
        let progress = self.advance(id);
        self.forget_if_idle(id);
        progress
    }

    /// Locks keys for a transaction that is about to commit, if none of them is held or waited for by
    /// another in a conflicting mode. All or none; never waits.
    pub fn try_lock(&mut self, now: Instant, id: TransactionId, keys: &[LockKey]) -> bool {
        let keys = sorted(keys);
        if self.locks + keys.len() > MAX_LOCKS {
            return false;
        }
        let free = |(key, mode): &(Key, LockMode)| match self.keys.get(key) {
            None => true,
            Some(state) => state.waiters.is_empty() && !state.blocked_by_holders(id, *mode),
        };
        if !keys.iter().all(free) {
            return false;
        }
        let transaction = self.transactions.entry(id).or_insert_with(|| TransactionState {
            held: HashMap::new(),
            pending: None,
            touched: now,
            committing: true,
        });
        transaction.touched = now;
        transaction.committing = true;
        for (key, mode) in keys {
            self.hold(id, key, mode);
        }
        true
    }

    /// True if someone holds a key, `own` aside.
    pub fn is_held_by_other(&self, key: &[u8], own: Option<TransactionId>) -> bool {
        self.keys.get(key).is_some_and(|state| state.holders.iter().any(|(h, _)| Some(*h) != own))
    }

    /// True if the transaction is known, that is if none of its locks has been taken away.
    pub fn knows(&self, id: TransactionId) -> bool {
        self.transactions.contains_key(&id)
    }

    /// True if the transaction is queued for a key.
    pub fn is_waiting(&self, id: TransactionId) -> bool {
        self.transactions.get(&id).is_some_and(|t| t.pending.is_some())
    }

    /// Keeps a transaction's locks from expiring until it is released: its commit is in flight.
    pub fn set_committing(&mut self, id: TransactionId) {
        if let Some(transaction) = self.transactions.get_mut(&id) {
            transaction.committing = true;
        }
    }

    /// The transaction's gateway is alive.
    pub fn touch(&mut self, now: Instant, id: TransactionId) {
        if let Some(transaction) = self.transactions.get_mut(&id) {
            transaction.touched = now;
        }
    }

    /// Takes a waiting request out of its queue. What it had locked stays locked.
    pub fn cancel(&mut self, id: TransactionId, events: &mut Vec<Event>) {
        self.stop_waiting(id);
        let Some(pending) = self.transactions.get_mut(&id).and_then(|t| t.pending.take()) else { return };
        if let Some((key, _)) = pending.keys.get(pending.next) {
            if let Some(state) = self.keys.get_mut(key) {
                state.waiters.retain(|w| w.id != id);
            }
            self.wake(vec![key.clone()], events);
        }
        self.forget_if_idle(id);
    }

    /// Gives back everything a transaction holds or waits for.
    pub fn release(&mut self, id: TransactionId, events: &mut Vec<Event>) {
        self.cancel(id, events);
        let Some(transaction) = self.transactions.remove(&id) else { return };
        self.locks -= transaction.held.len();
        let mut freed = Vec::with_capacity(transaction.held.len());
        for (key, _) in transaction.held {
            if let Entry::Occupied(mut state) = self.keys.entry(key.clone()) {
                state.get_mut().holders.retain(|(h, _)| *h != id);
                if state.get().holders.is_empty() && state.get().waiters.is_empty() {
                    state.remove();
                } else {
                    freed.push(key);
                }
            }
        }
        self.wake(freed, events);
    }

    /// True if the transaction holds a key in this mode or a stronger one.
    pub fn holds(&self, id: TransactionId, key: &[u8], mode: LockMode) -> bool {
        self.transactions.get(&id).and_then(|t| t.held.get(key)).is_some_and(|held| *held >= mode)
    }

    /// Gives back one key that was locked a moment ago and turned out not to be wanted.
    pub fn unlock(&mut self, id: TransactionId, key: &[u8], events: &mut Vec<Event>) {
        let Some((key, _)) = self.transactions.get_mut(&id).and_then(|t| t.held.remove_entry(key)) else {
            return;
        };
        self.locks -= 1;
        if let Some(state) = self.keys.get_mut(&key) {
            state.holders.retain(|(h, _)| *h != id);
        }
        self.wake(vec![key], events);
        self.forget_if_idle(id);
    }

    /// Releases all transactions not heard of for longer than `limit`, and names them.
    pub fn expire(&mut self, now: Instant, limit: Duration, events: &mut Vec<Event>) -> Vec<TransactionId> {
        let silent: Vec<TransactionId> = self
            .transactions
            .iter()
            .filter(|(_, t)| !t.committing && now.saturating_duration_since(t.touched) > limit)
            .map(|(id, _)| *id)
            .collect();
        for id in &silent {
            self.release(*id, events);
        }
        silent
    }

    /// Locks held now.
    pub fn len(&self) -> usize {
        self.locks
    }

    /// True if nothing is locked.
    pub fn is_empty(&self) -> bool {
        self.locks == 0
    }

    fn hold(&mut self, id: TransactionId, key: Key, mode: LockMode) {
        self.keys.entry(key.clone()).or_default().hold(id, mode);
        if let Some(transaction) = self.transactions.get_mut(&id) {
            match transaction.held.entry(key) {
                Entry::Occupied(mut held) => {
                    let stronger = mode.max(*held.get());
                    held.insert(stronger);
                }
                Entry::Vacant(slot) => {
                    slot.insert(mode);
                    self.locks += 1;
                }
            }
        }
    }

    /// A transaction that neither holds nor waits is no one we need to remember.
    fn forget_if_idle(&mut self, id: TransactionId) {
        if let Entry::Occupied(t) = self.transactions.entry(id)
            && t.get().held.is_empty()
            && t.get().pending.is_none()
        {
            t.remove();
        }
    }

    /// Takes a request's keys in order until one must be waited for.
    fn advance(&mut self, id: TransactionId) -> Progress {
        loop {
            let Some(transaction) = self.transactions.get_mut(&id) else {
                return Progress::Refused(LockRefusal::LocksLost);
            };
            let Some(pending) = &mut transaction.pending else {
                return Progress::Refused(LockRefusal::LocksLost);
            };
            let Some((key, mode)) = pending.keys.get(pending.next).cloned() else {
                let skipped = std::mem::take(&mut pending.skipped);
                transaction.pending = None;
                return Progress::Granted { skipped };
            };
            let held = transaction.held.get(&key).copied();
            if held.is_some_and(|h| h >= mode) {
                pending.next += 1;
                continue;
            }
            let wait = pending.wait;
            let upgrade = held.is_some();
            let free = self.keys.get(&key).is_none_or(|state| {
                !state.blocked_by_holders(id, mode) && (upgrade || state.waiters.is_empty())
            });
            if free {
                self.hold(id, key, mode);
                self.step(id, None);
                continue;
            }
            match wait {
                WaitPolicy::Skip => self.step(id, Some(key)),
                WaitPolicy::NoWait => return self.refuse(id, LockRefusal::NotAvailable),
                WaitPolicy::Wait => return self.enqueue(id, &key, mode, upgrade),
            }
        }
    }

    fn step(&mut self, id: TransactionId, skipped: Option<Key>) {
        if let Some(pending) = self.transactions.get_mut(&id).and_then(|t| t.pending.as_mut()) {
            pending.next += 1;
            pending.skipped.extend(skipped);
        }
    }

    fn refuse(&mut self, id: TransactionId, why: LockRefusal) -> Progress {
        if let Some(transaction) = self.transactions.get_mut(&id) {
            transaction.pending = None;
        }
        Progress::Refused(why)
    }

    fn enqueue(&mut self, id: TransactionId, key: &Key, mode: LockMode, upgrade: bool) -> Progress {
        if self.waiting >= MAX_WAITERS {
            return self.refuse(id, LockRefusal::Overloaded);
        }
        let state = self.keys.entry(key.clone()).or_default();
        let waiter = Waiter { id, mode, upgrade };
        if upgrade {
            let at = state.waiters.iter().take_while(|w| w.upgrade).count();
            state.waiters.insert(at, waiter);
        } else {
            state.waiters.push_back(waiter);
        }
        if self.waits_for_itself(id) {
            if let Some(state) = self.keys.get_mut(key) {
                state.waiters.retain(|w| w.id != id);
            }
            return self.refuse(id, LockRefusal::Deadlock);
        }
        self.begin_waiting(id);
        Progress::Waiting
    }

    /// Grants what the keys' queues allow now, and what follows from that.
    fn wake(&mut self, mut keys: Vec<Key>, events: &mut Vec<Event>) {
        while let Some(key) = keys.pop() {
            while let Some(state) = self.keys.get_mut(&key) {
                let Some(first) = state.waiters.front() else {
                    if state.holders.is_empty() {
                        self.keys.remove(&key);
                    }
                    break;
                };
                if state.blocked_by_holders(first.id, first.mode) {
                    break;
                }
                let (id, mode) = (first.id, first.mode);
                state.waiters.pop_front();
                self.stop_waiting(id);
                self.hold(id, key.clone(), mode);
                self.step(id, None);
                let progress = self.advance(id);
                if progress != Progress::Waiting {
                    events.push(Event { id, progress });
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

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
//! upgrades shared to exclusive goes before all who wait, for they wait for it anyway.
//!
//! Invariants, held by the property test below: an exclusive holder is alone; a waiter at the head of a
//! queue conflicts with a holder (no wakeup is lost); later waiters never overtake earlier ones; the
//! wait-for graph has no circle.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
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

    /// Asks for keys. Asking again for what is being waited for changes nothing; asking for something
    /// else instead gives up the place in the queue.
    pub fn request(
        &mut self,
        now: Instant,
        id: TransactionId,
        keys: &[LockKey],
        wait: WaitPolicy,
        events: &mut Vec<Event>,
    ) -> Progress {
        let keys = sorted(keys);
        let pending = self.transactions.get_mut(&id).map(|t| {
            t.touched = now;
            t.pending.as_ref().map(|p| p.keys == keys)
        });
        match pending {
            Some(Some(true)) => return Progress::Waiting,
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
        transaction.pending = Some(Pending { keys, next: 0, skipped: Vec::new(), wait });
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
        let Some(pending) = self.transactions.get_mut(&id).and_then(|t| t.pending.take()) else { return };
        self.waiting -= 1;
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
        self.waiting += 1;
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
                self.waiting -= 1;
                self.hold(id, key.clone(), mode);
                self.step(id, None);
                let progress = self.advance(id);
                if progress != Progress::Waiting {
                    events.push(Event { id, progress });
                }
            }
        }
    }

    /// Those whom a waiting transaction waits for.
    fn blockers(&self, id: TransactionId) -> SmallVec<[TransactionId; 4]> {
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

    fn waits_for_itself(&self, id: TransactionId) -> bool {
        let mut seen = HashSet::new();
        let mut open: Vec<TransactionId> = self.blockers(id).to_vec();
        while let Some(next) = open.pop() {
            if next == id {
                return true;
            }
            if seen.insert(next) {
                open.extend(self.blockers(next));
            }
        }
        false
    }
}

#[cfg(test)]
type Queues = HashMap<Key, Queue>;

#[cfg(test)]
#[derive(Default)]
pub(super) struct Queue {
    holders: Vec<TransactionId>,
    waiters: Vec<TransactionId>,
}

#[cfg(test)]
impl LockTable {
    /// The invariants, wherever the table is tested.
    pub(super) fn check(&self) {
        let mut held = 0;
        for (key, state) in &self.keys {
            held += state.holders.len();
            let exclusive = state.holders.iter().any(|(_, m)| *m == LockMode::Exclusive);
            assert!(!exclusive || state.holders.len() == 1, "an exclusive holder is alone");
            assert!(!(state.holders.is_empty() && state.waiters.is_empty()), "empty keys are forgotten");
            if let Some(first) = state.waiters.front() {
                assert!(state.blocked_by_holders(first.id, first.mode), "a wakeup was lost on {key:?}");
            }
            for (id, mode) in &state.holders {
                assert_eq!(self.transactions[id].held.get(key), Some(mode));
            }
        }
        assert_eq!(held, self.locks);
        let waiting: Vec<&TransactionId> =
            self.transactions.iter().filter(|(_, t)| t.pending.is_some()).map(|(id, _)| id).collect();
        assert_eq!(waiting.len(), self.waiting);
        for id in waiting {
            assert!(!self.waits_for_itself(*id), "a circle");
            assert!(!self.blockers(*id).is_empty(), "waits for nobody");
        }
    }

    /// Of each key, who holds it, and who waits for it, in order, but for those who upgrade.
    pub(super) fn queues(&self) -> Queues {
        let queue = |state: &KeyState| Queue {
            holders: state.holders.iter().map(|(id, _)| *id).collect(),
            waiters: state.waiters.iter().filter(|w| !w.upgrade).map(|w| w.id).collect(),
        };
        self.keys.iter().map(|(key, state)| (key.clone(), queue(state))).collect()
    }

    /// Nobody but who acted moved within a queue, and nobody was served before one who came earlier.
    pub(super) fn check_order(&self, before: &Queues, actor: TransactionId) {
        let after = self.queues();
        let nobody = Queue::default();
        for (key, before) in before {
            let now = after.get(key).unwrap_or(&nobody);
            let waited = |id: &&TransactionId| **id != actor && before.waiters.contains(id);
            let waits = |id: &&TransactionId| **id != actor && now.waiters.contains(id);
            let stayed: Vec<_> = before.waiters.iter().filter(waits).collect();
            let still: Vec<_> = now.waiters.iter().filter(waited).collect();
            assert_eq!(stayed, still, "the queue was reordered");
            if let Some(first) = before.waiters.iter().position(|id| waits(&id)) {
                let served = |id: &&TransactionId| !now.waiters.contains(id) && now.holders.contains(id);
                let later = before.waiters.iter().skip(first).filter(|id| **id != actor).find(served);
                assert_eq!(later, None, "overtaken");
                let new = now.holders.contains(&actor) && !before.holders.contains(&actor);
                assert!(
                    !new || before.waiters.contains(&actor),
                    "who came last is served before those who wait"
                );
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn t(n: u64) -> TransactionId {
        TransactionId { node: 1, epoch: 1, counter: n }
    }

    fn x(key: u8) -> LockKey {
        LockKey { key: vec![key], mode: LockMode::Exclusive }
    }

    fn s(key: u8) -> LockKey {
        LockKey { key: vec![key], mode: LockMode::Shared }
    }

    fn granted() -> Progress {
        Progress::Granted { skipped: Vec::new() }
    }

    struct Bench {
        table: LockTable,
        now: Instant,
        events: Vec<Event>,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { table: LockTable::new(), now: Instant::now(), events: Vec::new() }
        }

        fn lock(&mut self, id: u64, keys: &[LockKey]) -> Progress {
            self.table.request(self.now, t(id), keys, WaitPolicy::Wait, &mut self.events)
        }

        fn release(&mut self, id: u64) -> Vec<u64> {
            self.table.release(t(id), &mut self.events);
            self.events.drain(..).map(|e| e.id.counter).collect()
        }
    }

    #[test]
    fn waiters_are_served_in_order() {
        let mut b = Bench::new();
        assert_eq!(b.lock(1, &[x(1)]), granted());
        assert_eq!(b.lock(2, &[x(1)]), Progress::Waiting);
        assert_eq!(b.lock(3, &[s(1)]), Progress::Waiting);
        assert_eq!(b.lock(4, &[s(1)]), Progress::Waiting);
        assert_eq!(b.release(1), [2]);
        assert_eq!(b.release(2), [3, 4]);
        assert_eq!(b.lock(5, &[x(1)]), Progress::Waiting);
        assert_eq!(b.lock(6, &[s(1)]), Progress::Waiting, "a reader does not overtake a writer");
        b.table.cancel(t(5), &mut b.events);
        assert_eq!(b.events.drain(..).map(|e| e.id).collect::<Vec<_>>(), [t(6)]);
        for id in [3, 4, 6] {
            b.release(id);
        }
        assert!(b.table.is_empty() && b.table.keys.is_empty() && b.table.transactions.is_empty());
    }

    #[test]
    fn deadlock_is_refused_to_who_would_close_the_circle() {
        let mut b = Bench::new();
        assert_eq!(b.lock(1, &[x(1)]), granted());
        assert_eq!(b.lock(2, &[x(2)]), granted());
        assert_eq!(b.lock(1, &[x(2)]), Progress::Waiting);
        assert_eq!(b.lock(2, &[x(1)]), Progress::Refused(LockRefusal::Deadlock));
        assert_eq!(b.release(2), [1]);
    }

    #[test]
    fn two_upgraders_of_one_key_deadlock() {
        let mut b = Bench::new();
        assert_eq!(b.lock(1, &[s(1)]), granted());
        assert_eq!(b.lock(2, &[s(1)]), granted());
        assert_eq!(b.lock(1, &[x(1)]), Progress::Waiting);
        assert_eq!(b.lock(2, &[x(1)]), Progress::Refused(LockRefusal::Deadlock));
        assert_eq!(b.release(2), [1]);
    }

    #[test]
    fn nowait_and_skip_never_wait() {
        let mut b = Bench::new();
        assert_eq!(b.lock(1, &[x(1)]), granted());
        let now = b.now;
        assert_eq!(
            b.table.request(now, t(2), &[x(1)], WaitPolicy::NoWait, &mut b.events),
            Progress::Refused(LockRefusal::NotAvailable)
        );
        assert_eq!(
            b.table.request(now, t(2), &[x(2), x(1), x(3)], WaitPolicy::Skip, &mut b.events),
            Progress::Granted { skipped: vec![Arc::from([1u8].as_slice())] }
        );
        assert!(!b.table.try_lock(now, t(3), &[x(4), x(2)]));
        assert!(b.table.try_lock(now, t(3), &[x(4)]), "all or none: 4 was left free");
    }

    #[test]
    fn silent_transactions_lose_their_locks_unless_they_commit() {
        let mut b = Bench::new();
        assert_eq!(b.lock(1, &[x(1)]), granted());
        assert_eq!(b.lock(2, &[x(2)]), granted());
        assert_eq!(b.lock(3, &[x(1)]), Progress::Waiting);
        b.table.set_committing(t(2));
        let later = b.now + Duration::from_secs(6);
        b.table.touch(later, t(3));
        assert_eq!(b.table.expire(later, Duration::from_secs(5), &mut b.events), [t(1)]);
        assert_eq!(b.events, [Event { id: t(3), progress: granted() }]);
        assert!(!b.table.knows(t(1)) && b.table.knows(t(2)));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Lock(u64, Vec<(u8, bool)>, u8),
        TryLock(u64, Vec<(u8, bool)>),
        Cancel(u64),
        Release(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let keys = || prop::collection::vec((0u8..5, any::<bool>()), 1..4);
        prop_oneof![
            6 => (0u64..6, keys(), 0u8..6).prop_map(|(t, k, w)| Op::Lock(t, k, w)),
            1 => (0u64..6, keys()).prop_map(|(t, k)| Op::TryLock(t, k)),
            1 => (0u64..6).prop_map(Op::Cancel),
            3 => (0u64..6).prop_map(Op::Release),
        ]
    }

    proptest! {
        #[test]
        fn invariants_hold(ops in prop::collection::vec(op(), 1..120)) {
            let mut table = LockTable::new();
            let now = Instant::now();
            let mut events = Vec::new();
            let keys = |k: Vec<(u8, bool)>| -> Vec<LockKey> {
                k.into_iter().map(|(k, e)| if e { x(k) } else { s(k) }).collect()
            };
            for op in ops {
                let before = table.queues();
                let actor = match op {
                    Op::Lock(id, k, w) => {
                        let wait = match w { 0 => WaitPolicy::NoWait, 1 => WaitPolicy::Skip, _ => WaitPolicy::Wait };
                        let waited = table.is_waiting(t(id));
                        let progress = table.request(now, t(id), &keys(k), wait, &mut events);
                        prop_assert!(wait == WaitPolicy::Wait || waited || progress != Progress::Waiting);
                        id
                    }
                    Op::TryLock(id, k) => {
                        if !table.is_waiting(t(id)) {
                            table.try_lock(now, t(id), &keys(k));
                        }
                        id
                    }
                    Op::Cancel(id) => { table.cancel(t(id), &mut events); id }
                    Op::Release(id) => { table.release(t(id), &mut events); id }
                };
                table.check();
                table.check_order(&before, t(actor));
            }
            for id in 0..6 {
                table.release(t(id), &mut events);
            }
            prop_assert!(table.is_empty() && table.keys.is_empty() && table.transactions.is_empty());
        }
    }
}

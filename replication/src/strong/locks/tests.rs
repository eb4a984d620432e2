//! Invariants of the lock table, checked wherever it is tested, and its own tests.

use proptest::prelude::*;

use super::*;

pub(in crate::strong) type Queues = HashMap<Key, Queue>;

#[derive(Default)]
pub(in crate::strong) struct Queue {
    holders: Vec<TransactionId>,
    waiters: Vec<TransactionId>,
}

impl LockTable {
    /// The invariants, wherever the table is tested.
    pub(in crate::strong) fn check(&self) {
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
        let mut named = 0;
        for id in waiting {
            assert!(!self.waits_for_itself(*id), "a circle");
            assert!(!self.blockers(*id).is_empty(), "waits for nobody");
            for partner in &self.transactions[id].pending.as_ref().unwrap().partners {
                assert!(self.held_up[partner].contains(id), "a partner is forgotten");
                named += 1;
            }
        }
        let kept: usize = self.held_up.values().map(|by| by.len()).sum();
        assert_eq!(named, kept, "a partner is kept of who does not wait");
    }

    /// Of each key, who holds it, and who waits for it, in order, but for those who upgrade.
    pub(in crate::strong) fn queues(&self) -> Queues {
        let queue = |state: &KeyState| Queue {
            holders: state.holders.iter().map(|(id, _)| *id).collect(),
            waiters: state.waiters.iter().filter(|w| !w.upgrade).map(|w| w.id).collect(),
        };
        self.keys.iter().map(|(key, state)| (key.clone(), queue(state))).collect()
    }

    /// Nobody but who acted moved within a queue, and nobody was served before one who came earlier.
    pub(in crate::strong) fn check_order(&self, before: &Queues, actor: TransactionId) {
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

    /// As `lock`, of a session that has other names.
    fn lock_as(&mut self, id: u64, partners: &[u64], keys: &[LockKey]) -> Progress {
        let partners: Vec<_> = partners.iter().map(|n| t(*n)).collect();
        let ask = Ask { id: t(id), partners: &partners, keys, wait: WaitPolicy::Wait };
        let progress = self.table.ask(self.now, ask, &mut self.events);
        self.table.check();
        progress
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
fn a_session_is_one_node_of_the_graph() {
    // Session one is 1, 11, 12; session two is 2, 21, 22.
    let mut b = Bench::new();
    assert_eq!(b.lock_as(11, &[1], &[x(1)]), granted());
    assert_eq!(b.lock_as(21, &[2], &[x(2)]), granted());
    assert_eq!(b.lock_as(12, &[1, 11], &[x(2)]), Progress::Waiting);
    assert_eq!(b.lock_as(22, &[2, 21], &[x(1)]), Progress::Refused(LockRefusal::Deadlock));
    assert_eq!(b.release(21), [12]);
    assert!(b.table.held_up.is_empty());

    // An advisory lock and a row lock, through a third.
    let mut b = Bench::new();
    assert_eq!(b.lock_as(1, &[], &[x(1)]), granted());
    assert_eq!(b.lock_as(21, &[2], &[x(2)]), granted());
    assert_eq!(b.lock_as(3, &[], &[x(3)]), granted());
    assert_eq!(b.lock_as(2, &[21], &[x(3)]), Progress::Waiting);
    assert_eq!(b.lock_as(3, &[], &[x(1)]), Progress::Waiting);
    assert_eq!(b.lock_as(11, &[1], &[x(2)]), Progress::Refused(LockRefusal::Deadlock));
    assert_eq!(b.release(1), [3]);
    assert_eq!(b.release(3), [2]);
}

#[test]
fn what_a_session_gave_back_closes_no_circle() {
    // 11 was given back by session one, of which the table has not heard; 2 waits for it, and 12 behind 2.
    let mut b = Bench::new();
    assert_eq!(b.lock_as(11, &[1], &[x(1)]), granted());
    assert_eq!(b.lock(2, &[x(1)]), Progress::Waiting);
    assert_eq!(b.lock_as(12, &[1], &[x(1)]), Progress::Waiting);
    assert_eq!(b.release(11), [2]);
    assert_eq!(b.release(2), [12]);
}

#[test]
fn a_partner_that_is_named_later_counts() {
    let mut b = Bench::new();
    assert_eq!(b.lock(11, &[x(1)]), granted());
    assert_eq!(b.lock(2, &[x(2)]), granted());
    assert_eq!(b.lock_as(1, &[], &[x(2)]), Progress::Waiting);
    assert_eq!(b.lock(2, &[x(1)]), Progress::Waiting);
    assert_eq!(b.lock_as(1, &[], &[x(2)]), Progress::Waiting);
    assert_eq!(b.lock_as(1, &[11], &[x(2)]), Progress::Refused(LockRefusal::Deadlock));
    assert_eq!(b.release(11), [2]);
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
    fn invariants_hold(ops in prop::collection::vec(op(), 1..120), sessions in 0usize..2) {
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
                    // Three sessions, each of two names.
                    let (keys, partners) = (keys(k), [t(id ^ 1)]);
                    let ask = Ask { id: t(id), partners: &partners[..sessions], keys: &keys, wait };
                    let progress = table.ask(now, ask, &mut events);
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

//! The certifier of a leader and of the one after it: optimistic commits, commits under locks, changes of the catalog and
//! SERIALIZABLE transactions, while messages are lost and late, locks expire, leadership is handed over or lost with what is
//! in flight, and gateways ask what became of their commits.
//!
//! ```text
//!   gateway  Commit ─► admitted ─► certified, stamped ─► in flight ─► applied ─► Committed
//!      │                  │ Fenced      │ Refused             │ leader lost: kept up to some entry, the rest is gone
//!      └─ no answer: Outcome? ─► wait │ Committed │ NotCommitted, and fenced
//! ```
//!
//! In the end the log is judged: nobody has overwritten or relied on a version that was not the newest, nothing that a
//! SERIALIZABLE transaction read was written between its snapshot and its commit, nothing is there twice, and whatever
//! gateways were told is so.
//!
//! [`Certification`], [`Admission`], [`Outcomes`], [`LockTable`] and [`ReadSet`] are the real ones. Around them the rules of
//! `Certifier`, `Tenure` and `Group::commit` are followed.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use amphora_storage::Timestamp;
use amphora_storage::schema::TableId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Bag, Weather, schedules};
use crate::api::{LockMode, WaitPolicy};
use crate::strong::admission::{Admission, Turned};
use crate::strong::certification::{Certification, Denied, Ground};
use crate::strong::locks::{LockTable, Progress};
use crate::strong::outcomes::{Outcome, Outcomes};
use crate::strong::read_set::ReadSet;
use crate::strong::types::{CommitRequest, Expected, LeaderId, LockKey, TableVersion, TransactionId, Write};

/// After this moment no message is lost and leadership stays.
const TROUBLE: u64 = 600_000;
const END: u64 = 5_000_000;
const SILENCE: Duration = Duration::from_millis(150);
const EXPIRY: u64 = 40_000;
/// How long a gateway waits for an answer.
const PATIENCE: u64 = 60_000;
/// Rows of the one table.
const ROWS: u8 = 6;

type Key = Vec<u8>;

fn row(n: u8) -> Key {
    vec![0, 0, 0, 9, 0, 0, 0, 0, n]
}

/// The table's descriptor.
fn descriptor() -> Key {
    [&TableId::CATALOG.0.to_be_bytes()[..], &[0, 0, 0, 0, 9]].concat()
}

/// A transaction in the log.
#[derive(Clone)]
struct Committed {
    id: TransactionId,
    at: Timestamp,
    writes: Vec<Key>,
}

/// An entry: what was certified together, and by whom.
type Entry = Vec<Committed>;

/// What is known of a transaction when it asks for its commit: what must not have moved.
#[derive(Clone, Default)]
struct Basis {
    versions: BTreeMap<Key, Timestamp>,
    snapshot: Timestamp,
    /// Rows from, to; nothing but for SERIALIZABLE
    ranges: Vec<(u8, u8)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Reply {
    Committed(Timestamp),
    NotCommitted,
    Refused,
    Unknown,
    NotLeader,
    /// Locks, and the versions of what is locked
    Locked(Vec<(Key, Timestamp)>),
}

#[derive(Clone)]
enum Ask {
    Lock(Vec<LockKey>),
    Commit(Box<CommitRequest>),
    Outcome { after: u64 },
}

enum Event {
    Begin,
    /// To a leadership: which call of whom
    Arrives {
        reign: u64,
        id: TransactionId,
        call: u64,
        ask: Ask,
    },
    Answered {
        id: TransactionId,
        call: u64,
        reply: Reply,
    },
    TooLate {
        id: TransactionId,
        call: u64,
    },
    Certify(u64),
    Replicated(u64),
    Finish(u64),
    Expire(u64),
    Deposed,
    /// A leader learns that it is none: its Raft first
    Learns(u64),
    Ends(u64),
    HandOver,
    HandedOver(u64, u64),
}

/// A commit in the certifier's queue.
struct Item {
    request: Box<CommitRequest>,
    call: u64,
}

/// An entry in flight: where it is in the log, and who waits.
struct InFlight {
    /// None was never in the log of anyone who leads
    index: Option<usize>,
    waiting: Vec<(TransactionId, u64, Timestamp, Vec<Key>)>,
}

/// A leadership, until it knows that it is none.
struct Reign {
    leader: LeaderId,
    locks: RefCell<LockTable>,
    admission: Admission,
    certification: Certification,
    outcomes: Outcomes,
    applied: usize,
    clock: u64,
    queue: Vec<Item>,
    in_flight: VecDeque<InFlight>,
    /// Its Raft knows that another leads; and so does it
    knows: bool,
    ended: bool,
}

struct Tx {
    /// The leaderships it has heard of
    reign: u64,
    basis: Basis,
    request: Box<CommitRequest>,
    /// What it will lock first
    locks: Vec<LockKey>,
    call: u64,
    sent: bool,
    after: u64,
    doubts: u32,
}

struct World {
    rng: SmallRng,
    bag: Bag<Event>,
    weather: Weather,
    origin: Instant,
    log: Vec<Entry>,
    committed: usize,
    /// The present leadership is the last
    reigns: BTreeMap<u64, Reign>,
    reign: u64,
    open: BTreeMap<TransactionId, Tx>,
    bases: BTreeMap<TransactionId, Basis>,
    told: BTreeMap<TransactionId, Reply>,
    counter: u64,
    /// Under which leadership each has locked
    held: BTreeMap<TransactionId, u64>,
    refused: u64,
}

/// What a leader compares a request with.
struct View<'a> {
    reign: &'a Reign,
    log: &'a [Entry],
    now: Instant,
}

fn newest(log: &[Entry], key: &[u8]) -> Timestamp {
    let commits = log.iter().rev().flat_map(|entry| entry.iter().rev());
    let found = commits.into_iter().find(|commit| commit.writes.iter().any(|k| k == key));
    found.map_or(Timestamp::ZERO, |commit| commit.at)
}

fn last(log: &[Entry]) -> Timestamp {
    log.last().and_then(|entry| entry.last()).map_or(Timestamp(10), |commit| commit.at)
}

impl Ground for View<'_> {
    fn hold(&self, id: TransactionId, held_under: Option<LeaderId>) -> bool {
        let mut locks = self.reign.locks.borrow_mut();
        if held_under != Some(self.reign.leader) || !locks.knows(id) {
            return false;
        }
        locks.set_committing(id);
        true
    }

    fn try_lock(&self, id: TransactionId, keys: &[LockKey]) -> bool {
        self.reign.locks.borrow_mut().try_lock(self.now, id, keys)
    }

    fn newest(&self, key: &[u8]) -> Result<Timestamp, String> {
        Ok(newest(&self.log[..self.reign.applied], key))
    }

    fn catalog_version(&self) -> Timestamp {
        newest(&self.log[..self.reign.applied], &descriptor())
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut weather = Weather::draw(&mut rng);
        if rng.random_bool(0.3) {
            weather.longest = 250_000;
        }
        let mut bag = Bag::new();
        for _ in 0..rng.random_range(5..30) {
            bag.after(rng.random_range(0..TROUBLE), Event::Begin);
        }
        for _ in 0..rng.random_range(0..4) {
            let event = if rng.random_bool(0.6) { Event::Deposed } else { Event::HandOver };
            bag.after(rng.random_range(0..TROUBLE), event);
        }
        let mut world = World {
            rng,
            bag,
            weather,
            origin: Instant::now(),
            log: Vec::new(),
            committed: 0,
            reigns: BTreeMap::new(),
            reign: 0,
            open: BTreeMap::new(),
            bases: BTreeMap::new(),
            told: BTreeMap::new(),
            counter: 0,
            held: BTreeMap::new(),
            refused: 0,
        };
        world.lead();
        world
    }

    fn now(&self) -> Instant {
        self.origin + Duration::from_micros(self.bag.now)
    }

    /// Another begins to lead: all that is in its log is committed and applied.
    fn lead(&mut self) {
        self.reign += 1;
        self.committed = self.log.len();
        // One that was started lately has noted the outcomes of a part only.
        let noted = if self.rng.random_bool(0.7) { 0 } else { self.rng.random_range(0..=self.log.len()) };
        let mut outcomes = Outcomes::after(noted as u64);
        for (at, entry) in self.log.iter().enumerate().skip(noted) {
            entry.iter().for_each(|commit| outcomes.note(at as u64 + 1, commit.id, commit.at));
        }
        let reign = Reign {
            leader: LeaderId { term: self.reign, node_id: 1 },
            locks: RefCell::new(LockTable::new()),
            admission: Admission::default(),
            certification: Certification::after(last(&self.log)),
            outcomes,
            applied: self.log.len(),
            clock: last(&self.log).0 + self.rng.random_range(0..3),
            queue: Vec::new(),
            in_flight: VecDeque::new(),
            knows: false,
            ended: false,
        };
        self.reigns.insert(self.reign, reign);
        self.bag.after(EXPIRY, Event::Expire(self.reign));
    }

    fn run(&mut self) {
        while let Some(event) = self.bag.next() {
            if self.bag.now > TROUBLE && self.open.is_empty() {
                break;
            }
            assert!(self.bag.now < END, "they wait for ever: {:?}", self.open.keys());
            self.happen(event);
        }
        self.judge();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Begin => self.begin(),
            Event::Arrives { reign, id, call, ask } => self.arrives(reign, id, call, ask),
            Event::Answered { id, call, reply } => {
                if self.open.get(&id).is_some_and(|tx| tx.call == call) {
                    self.answered(id, reply);
                }
            }
            Event::TooLate { id, call } => {
                if self.open.get(&id).is_some_and(|tx| tx.call == call) {
                    self.too_late(id);
                }
            }
            Event::Certify(reign) => self.certify(reign),
            Event::Replicated(reign) => self.replicated(reign),
            Event::Finish(reign) => self.finish(reign),
            Event::Expire(number) => {
                let now = self.now();
                let Some(reign) = self.reigns.get_mut(&number).filter(|reign| !reign.ended) else { return };
                let mut woken = Vec::new();
                for id in reign.locks.borrow_mut().expire(now, SILENCE, &mut woken) {
                    reign.admission.fence(id);
                }
                self.bag.after(EXPIRY, Event::Expire(number));
            }
            Event::Deposed => {
                // What is in flight is kept up to some entry.
                let kept = self.rng.random_range(self.committed..=self.log.len());
                self.log.truncate(kept);
                self.succeed();
            }
            Event::Learns(number) => {
                if let Some(reign) = self.reigns.get_mut(&number) {
                    reign.knows = true;
                }
                let delay = self.rng.random_range(0..20_000);
                self.bag.after(delay, Event::Ends(number));
            }
            Event::Ends(number) => self.end(number),
            Event::HandOver => {
                let number = self.reign;
                if let Some(reign) = self.reigns.get_mut(&number) {
                    reign.admission.set_paused(true);
                    self.bag.after(1_000, Event::HandedOver(number, self.bag.now + 60_000));
                }
            }
            Event::HandedOver(number, until) => {
                let Some(reign) = self.reigns.get_mut(&number).filter(|_| number == self.reign) else {
                    return;
                };
                if reign.admission.is_idle() {
                    self.succeed();
                } else if self.bag.now > until {
                    reign.admission.set_paused(false);
                } else {
                    self.bag.after(1_000, Event::HandedOver(number, until));
                }
            }
        }
    }

    fn succeed(&mut self) {
        let old = self.reign;
        self.lead();
        // A leader that is cut off does not know for a while.
        let delay = self.rng.random_range(0..120_000);
        self.bag.after(delay, Event::Learns(old));
    }

    fn begin(&mut self) {
        self.counter += 1;
        let id = TransactionId { node: 1, epoch: 1, counter: self.counter };
        // What is applied at the gateway.
        let applied = self.rng.random_range(self.committed.saturating_sub(2)..=self.committed);
        let seen = &self.log[..applied];
        let snapshot = last(seen);
        let mut request = Box::new(CommitRequest::empty(id, Timestamp::ZERO));
        let mut basis = Basis { snapshot, ..Basis::default() };
        let table = newest(seen, &descriptor());
        request.tables = vec![TableVersion { table: TableId(9), key: descriptor(), version: table }];
        basis.versions.insert(descriptor(), table);
        let mut locks = Vec::new();
        let (changes_table, locked) = (self.rng.random_bool(0.08), self.rng.random_bool(0.4));
        let mut rows: Vec<u8> =
            (0..self.rng.random_range(1..=3)).map(|_| self.rng.random_range(0..ROWS)).collect();
        rows.sort_unstable();
        rows.dedup();
        for (position, n) in rows.iter().enumerate() {
            let shared = position > 0 && self.rng.random_bool(0.3);
            let mode = if shared { LockMode::Shared } else { LockMode::Exclusive };
            let key = if changes_table { descriptor() } else { row(*n) };
            if !shared {
                request.writes.push(Write { key: key.clone(), value: None });
            }
            if locked || changes_table {
                locks.push(LockKey { key, mode });
            } else {
                let version = newest(seen, &key);
                basis.versions.insert(key.clone(), version);
                request.expected.push(Expected { key, version, mode });
            }
            if changes_table {
                request.tables.clear();
                basis.versions.clear();
                break;
            }
        }
        request.locked = !locks.is_empty();
        if self.rng.random_bool(0.4) {
            let mut reads = ReadSet::new(snapshot);
            for _ in 0..self.rng.random_range(1..3) {
                let from = self.rng.random_range(0..ROWS);
                let to = self.rng.random_range(from..=ROWS);
                reads.add(row(from), row(to));
                basis.ranges.push((from, to));
            }
            request.reads = Some(reads.to_reads());
        }
        let reign = self.rng.random_range(self.reign.saturating_sub(1).max(1)..=self.reign);
        let tx = Tx { reign, basis, request, locks, call: 0, sent: false, after: applied as u64, doubts: 0 };
        self.open.insert(id, tx);
        self.call(id);
    }

    /// Asks for what is next: locks, the commit, or what became of it.
    fn call(&mut self, id: TransactionId) {
        let calm = self.bag.now > TROUBLE;
        let Some(tx) = self.open.get_mut(&id) else { return };
        tx.call += 1;
        let ask = if !tx.locks.is_empty() {
            Ask::Lock(tx.locks.clone())
        } else if !tx.sent {
            Ask::Commit(tx.request.clone())
        } else {
            Ask::Outcome { after: tx.after }
        };
        let (reign, call) = (tx.reign, tx.call);
        if calm {
            self.weather = Weather { lost: 0.0, doubled: 0.0, longest: 2_000 };
        }
        let mut arrivals: Vec<u64> = self.weather.arrivals(&mut self.rng).collect();
        if let Ask::Commit(_) = ask {
            // Nothing on the way doubles a commit.
            arrivals.truncate(1);
            self.bases.insert(id, self.open[&id].basis.clone());
        }
        for delay in arrivals {
            self.bag.after(delay, Event::Arrives { reign, id, call, ask: ask.clone() });
        }
        self.bag.after(PATIENCE, Event::TooLate { id, call });
    }

    fn reply(&mut self, id: TransactionId, call: u64, reply: Reply) {
        if let Reply::Committed(_) | Reply::NotCommitted | Reply::Refused = reply {
            // It is told when it is said, heard or not.
            match (self.told.get(&id), &reply) {
                (None | Some(Reply::Refused | Reply::NotCommitted), Reply::Refused | Reply::NotCommitted) => {
                    self.told.insert(id, Reply::NotCommitted);
                }
                (None, _) => _ = self.told.insert(id, reply.clone()),
                (Some(before), _) => assert_eq!(*before, reply, "{id} was told something else before"),
            }
        }
        for delay in self.weather.arrivals(&mut self.rng).collect::<Vec<_>>() {
            self.bag.after(delay, Event::Answered { id, call, reply: reply.clone() });
        }
    }

    fn arrives(&mut self, number: u64, id: TransactionId, call: u64, ask: Ask) {
        let now = self.now();
        let Some(reign) = self.reigns.get_mut(&number).filter(|reign| !reign.ended) else {
            return self.reply(id, call, Reply::NotLeader);
        };
        let reply = match ask {
            Ask::Lock(_) if reign.admission.is_paused() => Reply::NotLeader,
            Ask::Lock(keys) => {
                let mut woken = Vec::new();
                let progress = reign.locks.borrow_mut().request(now, id, &keys, WaitPolicy::Skip, &mut woken);
                match progress {
                    Progress::Granted { skipped } if skipped.is_empty() => {
                        let log = &self.log[..reign.applied];
                        Reply::Locked(keys.iter().map(|k| (k.key.clone(), newest(log, &k.key))).collect())
                    }
                    _ => {
                        reign.locks.borrow_mut().release(id, &mut woken);
                        Reply::Unknown
                    }
                }
            }
            Ask::Commit(request) => match reign.admission.admit(id) {
                Ok(()) => {
                    reign.queue.push(Item { request, call });
                    if reign.queue.len() == 1 {
                        let delay = self.rng.random_range(10..5_000);
                        self.bag.after(delay, Event::Certify(number));
                    }
                    return;
                }
                Err(Turned::Paused) => Reply::NotLeader,
                Err(Turned::Fenced) => Reply::Refused,
                Err(Turned::Twice) => Reply::Unknown,
            },
            Ask::Outcome { after } => match reign.admission.settle(id) {
                false => Reply::Unknown,
                true => match reign.outcomes.get(id, after) {
                    Outcome::Committed(at) => Reply::Committed(at),
                    Outcome::NotCommitted => Reply::NotCommitted,
                    Outcome::Unknown => Reply::Unknown,
                },
            },
        };
        self.reply(id, call, reply);
    }

    /// As `Certifier::take` and `propose`.
    fn certify(&mut self, number: u64) {
        let now = self.now();
        let Some(reign) = self.reigns.get_mut(&number) else { return };
        let (mut entry, mut waiting, mut replies) = (Entry::new(), Vec::new(), Vec::new());
        for Item { request, call } in std::mem::take(&mut reign.queue) {
            let id = request.id;
            if reign.ended || reign.knows {
                reign.locks.borrow_mut().release(id, &mut Vec::new());
                reign.admission.finish(id);
                replies.push((id, call, Reply::NotLeader));
                continue;
            }
            let held_under = self.held.get(&id).map(|held| LeaderId { term: *held, node_id: 1 });
            let mut certification =
                std::mem::replace(&mut reign.certification, Certification::after(Timestamp(0)));
            let view = View { reign: &*reign, log: &self.log, now };
            let verdict = certification.certify(&view, &request, held_under);
            reign.certification = certification;
            match verdict {
                Ok(()) => {
                    reign.clock = reign.clock.max(last(&self.log[..reign.applied]).0) + 1;
                    let at = Timestamp(reign.clock);
                    let keys = reign.certification.accept(&request, at);
                    waiting.push((id, call, at, keys));
                    let writes = request.writes.iter().map(|write| write.key.clone()).collect();
                    entry.push(Committed { id, at, writes });
                }
                Err(Denied::Refused(_)) => {
                    reign.locks.borrow_mut().release(id, &mut Vec::new());
                    reign.admission.finish(id);
                    replies.push((id, call, Reply::Refused));
                    self.refused += 1;
                }
                Err(Denied::Failed(why)) => panic!("{why}"),
            }
        }
        if !entry.is_empty() {
            // Who does not lead any more and does not know appends what is lost.
            let index = (number == self.reign).then_some(self.log.len());
            if index.is_some() {
                self.log.push(entry);
                let delay = self.rng.random_range(500..30_000);
                self.bag.after(delay, Event::Replicated(number));
            }
            reign.in_flight.push_back(InFlight { index, waiting });
        }
        for (id, call, reply) in replies {
            self.reply(id, call, reply);
        }
    }

    /// A majority has the next entry in flight: it is committed, and applied by the leader.
    fn replicated(&mut self, number: u64) {
        let Some(reign) = self.reigns.get_mut(&number).filter(|_| number == self.reign) else { return };
        self.committed += 1;
        let entry = &self.log[self.committed - 1];
        entry.iter().for_each(|commit| reign.outcomes.note(self.committed as u64, commit.id, commit.at));
        reign.applied = self.committed;
        let delay = self.rng.random_range(0..3_000);
        self.bag.after(delay, Event::Finish(number));
    }

    /// As `Certifier::finish`, of all that is applied.
    fn finish(&mut self, number: u64) {
        let Some(reign) = self.reigns.get_mut(&number) else { return };
        let mut replies = Vec::new();
        while reign.in_flight.front().is_some_and(|entry| entry.index.is_some_and(|at| at < reign.applied)) {
            let Some(done) = reign.in_flight.pop_front() else { break };
            for (id, call, at, keys) in done.waiting {
                reign.locks.borrow_mut().release(id, &mut Vec::new());
                reign.certification.finish(&keys);
                reign.admission.finish(id);
                replies.push((id, call, Reply::Committed(at)));
            }
        }
        for (id, call, reply) in replies {
            self.reply(id, call, reply);
        }
    }

    /// What was in flight is in doubt, what was in the queue was not done.
    fn end(&mut self, number: u64) {
        let Some(reign) = self.reigns.get_mut(&number) else { return };
        reign.ended = true;
        let mut replies: Vec<_> = reign
            .in_flight
            .drain(..)
            .flat_map(|entry| entry.waiting)
            .map(|w| (w.0, w.1, Reply::Unknown))
            .collect();
        replies.extend(reign.queue.drain(..).map(|item| (item.request.id, item.call, Reply::NotLeader)));
        for (id, call, reply) in replies {
            self.reply(id, call, reply);
        }
    }

    fn answered(&mut self, id: TransactionId, reply: Reply) {
        let newest = self.reign;
        let Some(tx) = self.open.get_mut(&id) else { return };
        match reply {
            Reply::Committed(_) | Reply::NotCommitted | Reply::Refused => _ = self.open.remove(&id),
            Reply::Locked(versions) => {
                tx.locks.clear();
                tx.basis.versions.extend(versions);
                self.held.insert(id, tx.reign);
                if self.rng.random_bool(0.1) {
                    // Its gateway dies.
                    self.open.remove(&id);
                }
                self.call(id);
            }
            Reply::NotLeader => {
                tx.reign = if self.rng.random_bool(0.8) { newest } else { tx.reign };
                self.call(id);
            }
            // Locks that are not free are not waited for.
            Reply::Unknown if !tx.locks.is_empty() => _ = self.open.remove(&id),
            Reply::Unknown => self.too_late(id),
        }
    }

    fn too_late(&mut self, id: TransactionId) {
        let (newest, calm) = (self.reign, self.bag.now > TROUBLE);
        let Some(tx) = self.open.get_mut(&id) else { return };
        if !tx.locks.is_empty() {
            self.open.remove(&id);
            return;
        }
        tx.sent = true;
        tx.doubts += u32::from(calm);
        // Whoever leads is asked, never one from before the one that had the commit.
        tx.reign = if calm || self.rng.random_bool(0.7) { newest } else { tx.reign };
        if tx.doubts > 20 {
            // Nobody has noted it: 08007.
            self.open.remove(&id);
            return;
        }
        self.call(id);
    }

    fn judge(&self) {
        let (mut versions, mut applied): (BTreeMap<&Key, Timestamp>, BTreeMap<_, Timestamp>) =
            Default::default();
        let mut before = Timestamp::ZERO;
        let commits: Vec<&Committed> = self.log.iter().flatten().collect();
        for (position, commit) in commits.iter().enumerate() {
            let id = commit.id;
            assert!(commit.at > before, "{id} is not later than the one before it");
            before = commit.at;
            assert!(applied.insert(id, commit.at).is_none(), "{id} is committed twice");
            let basis = &self.bases[&id];
            for (key, seen) in &basis.versions {
                let newest = versions.get(key).copied().unwrap_or(Timestamp::ZERO);
                assert_eq!(newest, *seen, "{id} relies on a version of {key:?} that is not the newest");
            }
            let later = commits[..position].iter().filter(|other| other.at > basis.snapshot);
            for key in later.flat_map(|other| &other.writes) {
                let read = basis.ranges.iter().any(|(from, to)| row(*from) <= *key && *key < row(*to));
                assert!(!read, "{id} has read {key:?}, and that was written before it commits");
            }
            for key in &commit.writes {
                versions.insert(key, commit.at);
            }
        }
        for (id, told) in &self.told {
            let is = applied.get(id).map_or(Reply::NotCommitted, |at| Reply::Committed(*at));
            assert_eq!(*told, is, "{id} was told what is not so");
        }
    }
}

#[test]
fn what_is_told_is_so_and_nothing_is_lost_or_done_twice() {
    let run = |seed| {
        let mut world = World::new(seed);
        world.run();
        let commits: usize = world.log.iter().map(Vec::len).sum();
        [1, commits as u64, world.refused, world.reign - 1]
    };
    let [schedules, commits, refused, reigns] = schedules(20_000, run);
    println!("{schedules} schedules, {commits} commits, {refused} refused, {reigns} changes of leadership");
    let enough = commits > 3 * schedules && refused > schedules && reigns * 2 > schedules;
    assert!(schedules == 1 || enough, "too little happened to prove anything");
}

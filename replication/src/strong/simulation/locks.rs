//! Row locks between gateways and a leader: whoever commits what it has locked overwrites nothing that it has not seen,
//! nobody waits for ever, and every circle of waiting transactions is broken.
//!
//! ```text
//!   gateway   Lock ──► Locked(versions) ──► Commit ──► Committed          each may be lost, doubled or late;
//!      │       again after a while: the same        │                     gateways fall silent, and die;
//!      └─ Renew, now and then, what is open         └─ Release            leaders come and go
//! ```
//!
//! The lock table is the real one. The leader's rules are those of `Tenure::lock`, `TenureState::hold_for_commit` and
//! `expire`, the gateway's those of `Group::lock` and `Group::commit`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Bag, Weather, schedules};
use crate::api::{LockMode, WaitPolicy};
use crate::strong::locks::{Event as Woken, LockTable, Progress};
use crate::strong::transport::LockRefusal;
use crate::strong::types::{LockKey, TransactionId};

const KEYS: u8 = 4;
const GATEWAYS: u64 = 3;
/// After this moment no message is lost, nobody dies, and all must come to an end.
const TROUBLE: u64 = 800_000;
/// All is over by then.
const END: u64 = 20_000_000;
const RENEW: u64 = 40_000;
const SILENCE: Duration = Duration::from_millis(150);
/// How long a gateway waits for an answer before it asks again.
const PATIENCE: u64 = 30_000;

type Versions = BTreeMap<u8, u64>;

#[derive(Clone)]
enum Wire {
    Lock {
        id: TransactionId,
        /// Which of the transaction's questions it is: an answer is one to this call alone
        ask: u64,
        held_under: Option<u64>,
        keys: Vec<LockKey>,
        wait: WaitPolicy,
    },
    Locked {
        id: TransactionId,
        ask: u64,
        reign: u64,
        keys: Vec<LockKey>,
        versions: Versions,
        skipped: BTreeSet<u8>,
    },
    Refused {
        id: TransactionId,
        ask: u64,
        why: LockRefusal,
    },
    Commit {
        id: TransactionId,
        held_under: Option<u64>,
        writes: Versions,
    },
    /// What became of it? If it has not come yet it is refused from now on
    Outcome(TransactionId),
    Ended {
        id: TransactionId,
    },
    Renew(Vec<TransactionId>),
    Release(TransactionId),
}

enum Event {
    ToLeader(u64, Wire),
    ToGateway(Wire),
    Begin(u64),
    /// A transaction has waited for an answer for long enough
    Again(TransactionId, u64),
    Renew(u64),
    Expire(u64),
    /// An entry comes to its end: applied, or aborted if its leader is gone
    Applied(u64, TransactionId, u64, Versions),
    Deposed,
    /// Nothing goes to or comes from this gateway for a while
    Silent(u64, u64),
    Dies(u64),
}

/// A transaction as its gateway knows it.
struct Tx {
    gateway: u64,
    held_under: Option<u64>,
    /// What is asked for now; none once it commits
    asked: Option<(Vec<LockKey>, WaitPolicy)>,
    /// Requests still to come
    rounds: u32,
    granted: Versions,
    exclusive: BTreeSet<u8>,
    asks: u64,
    commit_sent: bool,
}

struct World {
    rng: SmallRng,
    bag: Bag<Event>,
    weather: Weather,
    origin: Instant,
    /// Which leadership it is, and what it has in memory
    reign: u64,
    table: LockTable,
    waiters: HashMap<TransactionId, (u64, u64, Vec<LockKey>)>,
    active: BTreeSet<TransactionId>,
    fenced: BTreeSet<TransactionId>,
    /// What is committed, by key
    versions: Versions,
    open: BTreeMap<TransactionId, Tx>,
    silent_until: BTreeMap<u64, u64>,
    counter: u64,
    committed: u64,
    deadlocks: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut weather = Weather::draw(&mut rng);
        // A message may come after its sender was given up.
        if rng.random_bool(0.3) {
            weather.longest = 150_000;
        }
        let mut bag = Bag::new();
        for gateway in 0..GATEWAYS {
            for _ in 0..rng.random_range(1..5) {
                bag.after(rng.random_range(0..TROUBLE), Event::Begin(gateway));
            }
            bag.after(rng.random_range(0..RENEW), Event::Renew(gateway));
            if rng.random_bool(0.3) {
                let long = rng.random_range(50_000..400_000);
                bag.after(rng.random_range(0..TROUBLE), Event::Silent(gateway, long));
            }
            if rng.random_bool(0.1) {
                bag.after(rng.random_range(0..TROUBLE), Event::Dies(gateway));
            }
        }
        bag.after(0, Event::Expire(0));
        if rng.random_bool(0.3) {
            bag.after(rng.random_range(0..TROUBLE), Event::Deposed);
        }
        World {
            rng,
            bag,
            weather,
            origin: Instant::now(),
            reign: 0,
            table: LockTable::new(),
            waiters: HashMap::new(),
            active: BTreeSet::new(),
            fenced: BTreeSet::new(),
            versions: (0..KEYS).map(|key| (key, 0)).collect(),
            open: BTreeMap::new(),
            silent_until: BTreeMap::new(),
            counter: 0,
            committed: 0,
            deadlocks: 0,
        }
    }

    fn now(&self) -> Instant {
        self.origin + Duration::from_micros(self.bag.now)
    }

    fn send(&mut self, gateway: u64, event: impl Fn() -> Event) {
        if self.silent_until.get(&gateway).is_some_and(|until| *until > self.bag.now) {
            return;
        }
        if self.bag.now > TROUBLE {
            self.weather = Weather { lost: 0.0, doubled: 0.0, longest: 2_000 };
        }
        for delay in self.weather.arrivals(&mut self.rng) {
            self.bag.after(delay, event());
        }
    }

    fn tell_leader(&mut self, gateway: u64, wire: Wire) {
        let doubled = self.weather.doubled;
        if matches!(wire, Wire::Commit { .. }) {
            self.weather.doubled = 0.0;
        }
        self.send(gateway, || Event::ToLeader(gateway, wire.clone()));
        self.weather.doubled = doubled;
    }

    fn tell_gateway(&mut self, gateway: u64, wire: Wire) {
        self.send(gateway, || Event::ToGateway(wire.clone()));
    }

    fn run(&mut self) {
        while let Some(event) = self.bag.next() {
            if self.bag.now > END || (self.bag.now > TROUBLE && self.open.is_empty() && self.table.is_empty())
            {
                break;
            }
            self.happen(event);
        }
        let stuck: Vec<_> = self.open.keys().collect();
        assert!(stuck.is_empty(), "they wait for ever: {stuck:?}");
        assert!(self.table.is_empty(), "locks that nobody gives back");
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToLeader(gateway, wire) => self.at_leader(gateway, wire),
            Event::ToGateway(wire) => self.at_gateway(wire),
            Event::Begin(gateway) => self.begin(gateway),
            Event::Again(id, asks) => {
                if self.open.get(&id).is_some_and(|tx| tx.asks == asks) {
                    self.ask(id);
                }
            }
            Event::Renew(gateway) => {
                let ids =
                    self.open.iter().filter(|(_, tx)| tx.gateway == gateway).map(|(id, _)| *id).collect();
                self.tell_leader(gateway, Wire::Renew(ids));
                self.bag.after(RENEW, Event::Renew(gateway));
            }
            Event::Expire(reign) if reign == self.reign => {
                let mut woken = Vec::new();
                for id in self.table.expire(self.now(), SILENCE, &mut woken) {
                    self.waiters.remove(&id);
                    self.fenced.insert(id);
                }
                self.table.check();
                self.deliver(woken);
                self.bag.after(RENEW, Event::Expire(reign));
            }
            Event::Expire(_) => {}
            Event::Applied(reign, id, gateway, writes) => self.applied(reign, id, gateway, &writes),
            Event::Deposed => {
                self.reign += 1;
                self.table = LockTable::new();
                self.waiters.clear();
                self.active.clear();
                self.fenced.clear();
                self.bag.after(RENEW, Event::Expire(self.reign));
            }
            Event::Silent(gateway, long) => {
                self.silent_until.insert(gateway, self.bag.now + long);
            }
            Event::Dies(gateway) => self.open.retain(|_, tx| tx.gateway != gateway),
        }
    }

    fn keys(&mut self) -> Vec<LockKey> {
        let mut keys = Vec::new();
        for _ in 0..self.rng.random_range(1..=2) {
            let mode = if self.rng.random_bool(0.7) { LockMode::Exclusive } else { LockMode::Shared };
            keys.push(LockKey { key: vec![self.rng.random_range(0..KEYS)], mode });
        }
        keys
    }

    fn begin(&mut self, gateway: u64) {
        self.counter += 1;
        let id = TransactionId { node: gateway, epoch: 1, counter: self.counter };
        let (keys, rounds) = (self.keys(), self.rng.random_range(0..3));
        let wait = if self.rng.random_bool(0.85) { WaitPolicy::Wait } else { WaitPolicy::Skip };
        let tx = Tx {
            gateway,
            held_under: None,
            asked: Some((keys, wait)),
            rounds,
            granted: Versions::new(),
            exclusive: BTreeSet::new(),
            asks: 0,
            commit_sent: false,
        };
        self.open.insert(id, tx);
        self.ask(id);
    }

    fn ask(&mut self, id: TransactionId) {
        let Some(tx) = self.open.get_mut(&id) else { return };
        tx.asks += 1;
        let (gateway, held_under, asks) = (tx.gateway, tx.held_under, tx.asks);
        let wire = match &tx.asked {
            Some((keys, wait)) => Wire::Lock { id, ask: asks, held_under, keys: keys.clone(), wait: *wait },
            // It goes once: then its outcome is asked for.
            None if std::mem::replace(&mut tx.commit_sent, true) => Wire::Outcome(id),
            None => {
                let writes = tx.granted.iter().filter(|(key, _)| tx.exclusive.contains(*key));
                Wire::Commit {
                    id,
                    held_under,
                    writes: writes.map(|(key, version)| (*key, *version)).collect(),
                }
            }
        };
        self.tell_leader(gateway, wire);
        self.bag.after(PATIENCE, Event::Again(id, asks));
    }

    fn at_leader(&mut self, gateway: u64, wire: Wire) {
        match wire {
            Wire::Lock { id, ask, held_under, keys, wait } => {
                let lost = held_under.is_some_and(|reign| reign != self.reign || !self.table.knows(id));
                if lost {
                    let why = LockRefusal::LocksLost;
                    return self.tell_gateway(gateway, Wire::Refused { id, ask, why });
                }
                let (mut woken, before) = (Vec::new(), self.table.queues());
                let progress = self.table.request(self.now(), id, &keys, wait, &mut woken);
                self.table.check();
                self.table.check_order(&before, id);
                self.deliver(woken);
                match progress {
                    Progress::Waiting => _ = self.waiters.insert(id, (gateway, ask, keys)),
                    progress => self.answer(gateway, id, ask, keys, progress),
                }
            }
            Wire::Commit { id, held_under, writes } => {
                if self.fenced.contains(&id) || held_under != Some(self.reign) || !self.table.knows(id) {
                    return self.tell_gateway(gateway, Wire::Ended { id });
                }
                self.table.set_committing(id);
                self.active.insert(id);
                let delay = self.rng.random_range(500..40_000);
                self.bag.after(delay, Event::Applied(self.reign, id, gateway, writes));
            }
            Wire::Outcome(id) if !self.active.contains(&id) => {
                self.fenced.insert(id);
                self.tell_gateway(gateway, Wire::Ended { id });
            }
            Wire::Renew(ids) => {
                let now = self.now();
                ids.iter().for_each(|id| self.table.touch(now, *id));
            }
            Wire::Release(id) if !self.active.contains(&id) => self.release(id),
            _ => {}
        }
    }

    fn release(&mut self, id: TransactionId) {
        let (mut woken, before) = (Vec::new(), self.table.queues());
        self.waiters.remove(&id);
        self.table.release(id, &mut woken);
        self.table.check();
        self.table.check_order(&before, id);
        self.deliver(woken);
    }

    fn deliver(&mut self, woken: Vec<Woken>) {
        for Woken { id, progress } in woken {
            if let Some((gateway, ask, keys)) = self.waiters.remove(&id) {
                self.answer(gateway, id, ask, keys, progress);
            }
        }
    }

    fn answer(&mut self, gateway: u64, id: TransactionId, ask: u64, keys: Vec<LockKey>, progress: Progress) {
        let reply = match progress {
            Progress::Granted { skipped } => {
                let versions = keys.iter().map(|k| (k.key[0], self.versions[&k.key[0]])).collect();
                let skipped = skipped.iter().map(|key| key[0]).collect();
                Wire::Locked { id, ask, reign: self.reign, keys, versions, skipped }
            }
            Progress::Refused(why) => Wire::Refused { id, ask, why },
            Progress::Waiting => return,
        };
        self.tell_gateway(gateway, reply);
    }

    fn at_gateway(&mut self, wire: Wire) {
        match wire {
            Wire::Locked { id, ask, reign, keys, versions, skipped } => {
                // An answer to an earlier question goes to a call that nobody waits for any more.
                let Some(tx) = self.open.get_mut(&id).filter(|tx| tx.asks == ask) else { return };
                if tx.held_under.replace(reign).is_some_and(|before| before != reign) {
                    panic!("{id} holds locks under two leaderships");
                }
                for key in keys.iter().filter(|k| !skipped.contains(&k.key[0])) {
                    // What was locked first was seen first.
                    tx.granted.entry(key.key[0]).or_insert(versions[&key.key[0]]);
                    if key.mode == LockMode::Exclusive {
                        tx.exclusive.insert(key.key[0]);
                    }
                }
                let gateway = tx.gateway;
                if tx.rounds == 0 {
                    tx.asked = None;
                    // Some roll back.
                    if self.rng.random_bool(0.2) {
                        self.open.remove(&id);
                        return self.tell_leader(gateway, Wire::Release(id));
                    }
                } else {
                    tx.rounds -= 1;
                    let next = self.keys();
                    if let Some(tx) = self.open.get_mut(&id) {
                        tx.asked = Some((next, WaitPolicy::Wait));
                    }
                }
                self.ask(id);
            }
            Wire::Refused { id, ask, why } => {
                if self.open.get(&id).is_none_or(|tx| tx.asks != ask) {
                    return;
                }
                let Some(tx) = self.open.remove(&id) else { return };
                self.deadlocks += u64::from(why == LockRefusal::Deadlock);
                self.tell_leader(tx.gateway, Wire::Release(id));
            }
            Wire::Ended { id } => _ = self.open.remove(&id),
            _ => {}
        }
    }

    fn applied(&mut self, reign: u64, id: TransactionId, gateway: u64, writes: &Versions) {
        // Certified under one leadership and not in the log by its end: aborted by everyone.
        if reign == self.reign {
            for (key, seen) in writes {
                let version = self.versions[key];
                assert_eq!(version, *seen, "{id} overwrites a version of key {key} that it has not seen");
                self.versions.insert(*key, version + 1);
            }
            self.committed += 1;
            self.active.remove(&id);
            self.release(id);
        }
        self.tell_gateway(gateway, Wire::Ended { id });
    }
}

#[test]
fn what_is_locked_is_not_overwritten_and_nobody_waits_for_ever() {
    let run = |seed| {
        let mut world = World::new(seed);
        world.run();
        [1, world.committed, world.deadlocks]
    };
    let [schedules, committed, deadlocks] = schedules(40_000, run);
    println!("{schedules} schedules, {committed} commits, {deadlocks} deadlocks");
    let enough = committed > schedules && deadlocks * 20 > schedules;
    assert!(schedules == 1 || enough, "too little happened to prove anything");
}

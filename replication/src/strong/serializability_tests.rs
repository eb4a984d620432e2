//! Random histories of SERIALIZABLE transactions, certified as a leader does it and judged by an oracle that knows
//! nothing of certification: it builds the graph of dependencies from what each transaction saw and wrote (Adya:
//! write-write, write-read, read-write, of single keys and of ranges) and looks for a cycle.
//!
//! ```text
//!   begin at what is applied ──► reads, writes ──► certified ──► in flight ──► applied
//!                                                     │ refused       │ leader changes: the tail is lost
//! ```

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use amphora_storage::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::read_set::ReadSet;
use super::recent_writes::RecentWrites;

const KEYS: u8 = 8;

type Key = (u8, u8);

fn encode((table, n): Key) -> Vec<u8> {
    vec![0, 0, 0, table, 0, 0, 0, 0, n]
}

/// What a transaction saw of a range of one table: of each key in it, which transaction wrote it (0: nobody).
struct Seen {
    table: u8,
    range: Range<u8>,
    writers: BTreeMap<u8, u32>,
}

struct Tx {
    id: u32,
    /// How much of the log it sees
    snapshot: usize,
    reads: ReadSet,
    seen: Vec<Seen>,
    writes: Vec<Key>,
}

/// An accepted commit.
struct Commit {
    id: u32,
    at: Timestamp,
    writes: Vec<Key>,
}

struct World {
    rng: StdRng,
    certify: bool,
    log: Vec<Commit>,
    /// How much of the log is applied
    applied: usize,
    clock: u64,
    recent: RecentWrites,
    open: Vec<Tx>,
    /// What each transaction saw that committed, or only read
    finished: HashMap<u32, Vec<Seen>>,
    next_id: u32,
    refused: usize,
}

impl World {
    fn new(seed: u64, certify: bool) -> World {
        World {
            rng: StdRng::seed_from_u64(seed),
            certify,
            log: Vec::new(),
            applied: 0,
            clock: 10,
            recent: RecentWrites::with_limit(Timestamp(10), 2_000),
            open: Vec::new(),
            finished: HashMap::new(),
            next_id: 1,
            refused: 0,
        }
    }

    fn at(&self, position: usize) -> Timestamp {
        position.checked_sub(1).map_or(Timestamp(10), |last| self.log[last].at)
    }

    fn begin(&mut self) {
        let reads = match self.rng.random_bool(0.5) {
            true => ReadSet::new(self.at(self.applied)),
            false => ReadSet::with_limits(self.at(self.applied), self.rng.random_range(1..4), 60),
        };
        let id = self.next_id;
        self.next_id += 1;
        self.open.push(Tx { id, snapshot: self.applied, reads, seen: Vec::new(), writes: Vec::new() });
    }

    fn read(&mut self, tx: usize) {
        let (table, from) = (self.rng.random_range(1..3), self.rng.random_range(0..KEYS));
        let to = if self.rng.random_bool(0.6) { from + 1 } else { self.rng.random_range(from..=KEYS) };
        let tx = &mut self.open[tx];
        if to == from + 1 {
            tx.reads.add_key(&encode((table, from)));
        } else {
            tx.reads.add(encode((table, from)), encode((table, to)));
        }
        let writer = |n: u8| {
            let newest = self.log[..tx.snapshot].iter().rev().find(|c| c.writes.contains(&(table, n)));
            newest.map_or(0, |c| c.id)
        };
        tx.seen.push(Seen { table, range: from..to, writers: (from..to).map(|n| (n, writer(n))).collect() });
    }

    fn commit(&mut self, tx: usize) {
        let tx = self.open.swap_remove(tx);
        if tx.writes.is_empty() {
            self.finished.insert(tx.id, tx.seen);
            return;
        }
        if self.certify && self.recent.have_moved(&tx.reads.to_reads()) {
            self.refused += 1;
            return;
        }
        self.clock += 1;
        let at = Timestamp(self.clock);
        if self.rng.random_bool(0.05) {
            let tables: Vec<[u8; 4]> = tx.writes.iter().map(|(table, _)| [0, 0, 0, *table]).collect();
            self.recent.note_all_of(at, tables.into_iter());
        } else {
            let keys: Vec<Vec<u8>> = tx.writes.iter().map(|key| encode(*key)).collect();
            self.recent.note(at, keys.iter().map(Vec::as_slice));
        }
        self.log.push(Commit { id: tx.id, at, writes: tx.writes });
        self.finished.insert(tx.id, tx.seen);
    }

    /// Another leader: some of what was in flight is lost, the rest is applied before it begins.
    fn change_leader(&mut self) {
        let kept = self.rng.random_range(self.applied..=self.log.len());
        for lost in self.log.drain(kept..) {
            self.finished.remove(&lost.id);
        }
        self.applied = kept;
        self.recent = RecentWrites::with_limit(self.at(kept), 2_000);
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..20 if self.open.len() < 6 => self.begin(),
            20..50 if !self.open.is_empty() => {
                let tx = self.rng.random_range(0..self.open.len());
                self.read(tx);
            }
            50..70 if !self.open.is_empty() => {
                let tx = self.rng.random_range(0..self.open.len());
                let key = (self.rng.random_range(1..3), self.rng.random_range(0..KEYS));
                if !self.open[tx].writes.contains(&key) {
                    self.open[tx].writes.push(key);
                }
            }
            70..85 if !self.open.is_empty() => {
                let tx = self.rng.random_range(0..self.open.len());
                self.commit(tx);
            }
            85..99 => self.applied = self.rng.random_range(self.applied..=self.log.len()),
            99 => self.change_leader(),
            _ => {}
        }
    }

    /// Who must come before whom, and whether that can be.
    fn has_cycle(&self) -> bool {
        let mut writers: HashMap<Key, Vec<u32>> = HashMap::new();
        for commit in &self.log {
            for key in &commit.writes {
                writers.entry(*key).or_default().push(commit.id);
            }
        }
        let mut edges: Vec<(u32, u32)> = Vec::new();
        for order in writers.values() {
            edges.extend(order.windows(2).map(|w| (w[0], w[1])));
        }
        for (reader, seen) in &self.finished {
            for seen in seen {
                for n in seen.range.clone() {
                    let order = writers.get(&(seen.table, n)).map_or(&[][..], Vec::as_slice);
                    let writer = seen.writers[&n];
                    let position = order.iter().position(|w| *w == writer);
                    assert!(writer == 0 || position.is_some(), "what was seen was committed");
                    let next = order.get(position.map_or(0, |p| p + 1));
                    edges.extend((writer != 0).then_some((writer, *reader)));
                    edges.extend(next.map(|next| (*reader, *next)));
                }
            }
        }
        edges.retain(|(a, b)| a != b);
        edges.sort_unstable();
        edges.dedup();
        // Takes away whoever depends on nobody, until nobody is left, or a cycle.
        let mut waits: HashMap<u32, usize> = self.finished.keys().map(|id| (*id, 0)).collect();
        for (_, to) in &edges {
            *waits.entry(*to).or_default() += 1;
        }
        let mut free: Vec<u32> = waits.iter().filter(|(_, n)| **n == 0).map(|(id, _)| *id).collect();
        let mut gone = 0;
        while let Some(id) = free.pop() {
            gone += 1;
            let from = edges.partition_point(|(a, _)| *a < id);
            for (_, to) in edges[from..].iter().take_while(|(a, _)| *a == id) {
                let n = waits.get_mut(to).unwrap();
                *n -= 1;
                if *n == 0 {
                    free.push(*to);
                }
            }
        }
        gone < waits.len()
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Runs schedules; how many have a cycle, how many commits were accepted, and how many refused.
fn run(seed: u64, schedules: u64, certify: bool) -> (Vec<u64>, usize, usize) {
    let (mut cyclic, mut accepted, mut refused) = (Vec::new(), 0, 0);
    for schedule in seed..seed + schedules {
        let mut world = World::new(schedule, certify);
        for _ in 0..120 {
            world.step();
        }
        while !world.open.is_empty() {
            world.commit(0);
        }
        accepted += world.log.len();
        refused += world.refused;
        if world.has_cycle() {
            cyclic.push(schedule);
        }
    }
    (cyclic, accepted, refused)
}

#[test]
fn certified_histories_have_no_cycle() {
    let seed = number("AMPHORA_SEED", rand::random_range(0..1 << 40));
    let schedules = number("AMPHORA_SCHEDULES", 30_000);
    println!("AMPHORA_SEED={seed}");
    let (cyclic, accepted, refused) = run(seed, schedules, true);
    println!("{schedules} schedules, {accepted} commits, {refused} refused");
    assert!(cyclic.is_empty(), "AMPHORA_SEED={} AMPHORA_SCHEDULES=1", cyclic[0]);
    assert!(accepted > refused, "too much is refused: {accepted} commits, {refused} refused");
}

#[test]
fn without_certification_the_oracle_sees_cycles() {
    let (cyclic, ..) = run(1, 200, false);
    assert!(cyclic.len() > 50, "only {}", cyclic.len());
}

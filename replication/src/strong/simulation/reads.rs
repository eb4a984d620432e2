//! Linearizable reads on every node: whatever was acknowledged, or read by anyone, before a read began, it sees. Under
//! clocks that run at different rates within the bound, lost, doubled and late messages, crashes, elections and
//! leadership that is handed over.
//!
//! A node's state is how far it has applied the log; a read returns such a position. The rules by which the shells
//! (`gateway.rs`, `certifier.rs`, `tenure.rs`) use leases and read indexes are followed step by step; leases and read
//! indexes are the real ones.

use std::time::{Duration, Instant};

use amphora_storage::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot::Receiver;

use super::raft::{ELECTION, Message, NODES, Node, Out, Raft};
use super::{Bag, Weather, schedules};
use crate::strong::leases::{GRANTED, Granted, Held, LEASE, Lease, Recall, Standing, leads_for};
use crate::strong::reads::{Batch, ReadIndex};
use crate::strong::types::LeaderId;

const HEARTBEAT: u64 = 150_000;
/// For how long nothing is written while the leases are plotted against.
const PLOT: u64 = 750_000;
/// How long a schedule lasts, in microseconds of true time.
const LENGTH: u64 = 2_000_000;

/// What nodes tell each other.
#[derive(Clone)]
enum Wire {
    Raft(Message),
    Ask(u64),
    Answer(u64, usize, Option<Lease>),
    Recall(Lease),
    Recalled(Lease),
}

/// What happens.
enum Event {
    Arrives {
        from: Node,
        to: Node,
        wire: Wire,
    },
    Heartbeat(Node, u64),
    Election(Node, u64),
    Apply(Node, u64),
    /// A recall has waited for as long as it must
    RecallEnds(Node, u64),
    HandOver(Node, u64, Node),
    /// A question has waited for as long as it may
    QuestionEnds(Node, u64),
    Read(Node),
    Write(Node),
    Crash(Node),
    Start(Node),
    Transfer(Node),
    /// Nothing gets from one to the other until then
    Cut(Node, Node, u64),
}

/// A read that has begun, and what it must see.
struct Read {
    must: usize,
}

/// What a leader has in memory once an entry of its own is applied.
struct Tenure {
    leader: LeaderId,
    leases: Granted,
    suspended: bool,
    /// Commits that wait for the certifier
    queued: usize,
    recall: Option<(Recall, u64)>,
    in_flight: Vec<usize>,
    /// Questions that wait for a round of heartbeats: from whom, which, asked when
    unsure: Vec<(Node, u64, Instant)>,
}

struct Replica {
    raft: Raft,
    up: bool,
    life: u64,
    rate: f64,
    applied: usize,
    tenure: Option<Tenure>,
    held: Held,
    reads: ReadIndex,
    question: Option<(u64, Batch, Instant)>,
    waiting: Vec<(Read, Receiver<crate::Result<Timestamp>>)>,
    applying: Vec<(Read, usize)>,
}

struct World {
    rng: SmallRng,
    bag: Bag<Event>,
    weather: Weather,
    cut: [[u64; NODES]; NODES],
    origin: Instant,
    nodes: Vec<Replica>,
    /// The newest that anyone has been told of
    seen: usize,
    /// The term of each entry that was applied anywhere
    truth: Vec<u64>,
    number: u64,
    reads: u64,
    without_asking: u64,
    commits: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = SmallRng::seed_from_u64(seed);
        // A lease's bound is a ninth.
        let drift = if rng.random_bool(0.5) { 0.05 } else { 0.0 };
        let origin = Instant::now();
        let weather = Weather::draw(&mut rng);
        let nodes = (0..NODES)
            .map(|id| Replica {
                raft: Raft::new(id, origin).without_waiting(),
                up: true,
                life: 0,
                rate: 1.0 + rng.random_range(-drift..=drift),
                applied: 0,
                tenure: None,
                held: Held::since(origin),
                reads: ReadIndex::default(),
                question: None,
                waiting: Vec::new(),
                applying: Vec::new(),
            })
            .collect();
        let mut world = World {
            rng,
            bag: Bag::new(),
            weather,
            cut: [[0; NODES]; NODES],
            origin,
            nodes,
            seen: 0,
            truth: Vec::new(),
            number: 0,
            reads: 0,
            without_asking: 0,
            commits: 0,
        };
        world.bag.after(0, Event::Election(0, 0));
        for node in 1..NODES {
            world.arm_election(node);
        }
        let quiet_from = world.plot_against_the_lease();
        let mut at = 0;
        // Bursts of writes with quiet between them, in which leases are granted.
        while at < LENGTH {
            let quiet = world.rng.random_bool(0.15);
            at += if quiet {
                world.rng.random_range(100_000..250_000)
            } else {
                world.rng.random_range(200..15_000)
            };
            let node = world.rng.random_range(0..NODES);
            if quiet_from.is_none_or(|from| !(from..from + PLOT).contains(&at)) {
                world.bag.after(at, Event::Write(node));
            }
        }
        for _ in 0..120 {
            let (at, node) = (world.rng.random_range(0..LENGTH), world.rng.random_range(0..NODES));
            world.bag.after(at, Event::Read(node));
        }
        for _ in 0..world.rng.random_range(0..4) {
            let (at, node) = (world.rng.random_range(0..LENGTH), world.rng.random_range(0..NODES));
            match world.rng.random_range(0..3) {
                0 => {
                    world.bag.after(at, Event::Crash(node));
                    let down = world.rng.random_range(1_000..400_000);
                    world.bag.after(at + down, Event::Start(node));
                }
                1 => world.bag.after(at, Event::Transfer(node)),
                // The first is likely to lead: from both others, from one, or one way only.
                _ => {
                    let until = at + world.rng.random_range(100_000..1_200_000);
                    for other in (0..NODES).filter(|other| *other != node) {
                        for (from, to) in [(node, other), (other, node)] {
                            if world.rng.random_bool(0.7) {
                                world.bag.after(at, Event::Cut(from, to, until));
                            }
                        }
                    }
                }
            }
        }
        world
    }

    /// Now and then the worst for a lease, which luck alone hardly finds: the leader does not reach the third node for so
    /// long that this one stands for election, and the second, whose word the lease rests on, is started anew, hears the
    /// leader no more, and is asked for its vote. Nothing is written meanwhile, so that the third has all of the log.
    fn plot_against_the_lease(&mut self) -> Option<u64> {
        if !self.rng.random_bool(0.1) {
            return None;
        }
        let (leader, voter, rival) = (0, 1, 2);
        let from = self.rng.random_range(100_000..900_000);
        let crash = from + PLOT - self.rng.random_range(30_000..120_000);
        for (at, other) in [(from + 10_000, rival), (crash, voter)] {
            self.bag.after(at, Event::Cut(leader, other, from + 2 * PLOT));
            self.bag.after(at, Event::Cut(other, leader, from + 2 * PLOT));
        }
        self.bag.after(crash, Event::Crash(voter));
        self.bag.after(crash + self.rng.random_range(1_000..20_000), Event::Start(voter));
        Some(from)
    }

    /// What a node's monotonic clock says.
    fn clock(&self, node: Node) -> Instant {
        let rate = self.nodes[node].rate;
        self.origin + Duration::from_micros((self.bag.now as f64 * rate) as u64) + ELECTION
    }

    /// How long a node must wait in true time until its clock has reached a moment.
    fn until(&self, node: Node, at: Instant) -> u64 {
        let left = at.saturating_duration_since(self.clock(node)).as_micros() as f64;
        (left / self.nodes[node].rate) as u64 + 1
    }

    fn send(&mut self, from: Node, to: Node, wire: Wire) {
        if from == to {
            return self.bag.after(1, Event::Arrives { from, to, wire });
        }
        if self.bag.now < self.cut[from][to] {
            return;
        }
        for delay in self.weather.arrivals(&mut self.rng) {
            self.bag.after(delay, Event::Arrives { from, to, wire: wire.clone() });
        }
    }

    fn send_all(&mut self, from: Node, out: Out) {
        for (to, message) in out {
            self.send(from, to, Wire::Raft(message));
        }
    }

    fn arm_election(&mut self, node: Node) {
        let delay = self.rng.random_range(300_000..600_000);
        let life = self.nodes[node].life;
        self.bag.after(delay, Event::Election(node, life));
    }

    fn run(&mut self) {
        while let Some(event) = self.bag.next() {
            if self.bag.now > LENGTH {
                return;
            }
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives { from, to, wire } if self.nodes[to].up => self.arrives(from, to, wire),
            Event::Arrives { .. } => {}
            Event::Heartbeat(node, term) => {
                let raft = &self.nodes[node].raft;
                if self.nodes[node].up && raft.term == term && raft.leading.is_some() {
                    let mut out = Out::new();
                    raft.replicate(self.clock(node), &mut out);
                    self.send_all(node, out);
                    self.bag.after(HEARTBEAT, Event::Heartbeat(node, term));
                }
            }
            Event::Election(node, life) if self.nodes[node].up && self.nodes[node].life == life => {
                let (now, mut out) = (self.clock(node), Out::new());
                self.nodes[node].raft.elect(now, false, &mut out);
                self.send_all(node, out);
                self.arm_election(node);
            }
            Event::Election(..) => {}
            Event::Apply(node, life) if self.nodes[node].up && self.nodes[node].life == life => {
                self.apply(node)
            }
            Event::Apply(..) => {}
            Event::RecallEnds(node, term) => {
                if self.tenure(node, term).is_some_and(|t| t.recall.take().is_some()) {
                    self.propose(node);
                }
            }
            Event::HandOver(node, term, to) => {
                if self.tenure(node, term).is_some() {
                    self.send(node, to, Wire::Raft(Message::HandOver { term }));
                }
            }
            Event::QuestionEnds(node, number) => {
                let replica = &mut self.nodes[node];
                if let Some((_, batch, _)) = replica.question.take_if(|(n, _, _)| *n == number) {
                    batch.answer(Err(crate::Error::new("57P03", "no answer")));
                    self.ask(node);
                }
            }
            Event::Read(node) if self.nodes[node].up => self.read(node),
            Event::Read(_) => {}
            Event::Write(node) => self.write(node),
            Event::Crash(node) => self.crash(node),
            Event::Start(node) => self.start(node),
            Event::Transfer(to) => self.transfer(to),
            Event::Cut(from, to, until) => self.cut[from][to] = until,
        }
    }

    /// A node's tenure, if it is still the one of this term.
    fn tenure(&mut self, node: Node, term: u64) -> Option<&mut Tenure> {
        let replica = &mut self.nodes[node];
        replica.tenure.as_mut().filter(|t| replica.up && t.leader.term == term)
    }

    fn arrives(&mut self, from: Node, to: Node, wire: Wire) {
        match wire {
            Wire::Raft(message) => {
                let (now, mut out) = (self.clock(to), Out::new());
                let (led, committed) = (self.nodes[to].raft.leading.is_some(), self.nodes[to].raft.committed);
                self.nodes[to].raft.handle(now, from, message, &mut out);
                self.send_all(to, out);
                let raft = &self.nodes[to].raft;
                let (leads, life, term) = (raft.leading.is_some(), self.nodes[to].life, raft.term);
                let over = self.nodes[to].tenure.as_ref().is_some_and(|t| !leads || t.leader.term != term);
                if over {
                    self.nodes[to].tenure = None;
                }
                if leads && !led {
                    self.bag.after(HEARTBEAT, Event::Heartbeat(to, term));
                }
                if self.nodes[to].raft.committed > committed {
                    let delay = self.rng.random_range(10..4_000);
                    self.bag.after(delay, Event::Apply(to, life));
                }
                self.sure(to);
            }
            Wire::Ask(number) => self.asked(to, from, number),
            Wire::Answer(number, at, lease) => self.answered(to, number, at, lease),
            Wire::Recall(lease) => {
                self.nodes[to].held.recall(lease);
                self.send(to, from, Wire::Recalled(lease));
            }
            Wire::Recalled(lease) => {
                let Some(tenure) = self.tenure(to, lease.leader.term) else { return };
                let Some((recall, _)) = tenure.recall.as_mut().filter(|(r, _)| r.lease == lease) else {
                    return;
                };
                recall.holders.retain(|(holder, _)| *holder != from as u64);
                if recall.holders.is_empty() {
                    tenure.recall = None;
                    self.propose(to);
                }
            }
        }
    }

    fn apply(&mut self, node: Node) {
        let replica = &mut self.nodes[node];
        let target = replica.raft.committed;
        for at in replica.applied..target {
            let term = replica.raft.log[at];
            match self.truth.get(at) {
                Some(known) => assert_eq!(*known, term, "two nodes applied different entries at {at}"),
                None => self.truth.push(term),
            }
        }
        replica.applied = replica.applied.max(target);
        let (applied, term) = (replica.applied, replica.raft.term);
        let first = replica.raft.leading.as_ref().map(|l| l.first);
        match (&mut replica.tenure, first) {
            (None, Some(first)) if applied >= first => {
                let leader = LeaderId { term, node_id: node as u64 };
                let leases = Granted::new(leader, self.clock(node));
                self.nodes[node].tenure = Some(Tenure {
                    leader,
                    leases,
                    suspended: false,
                    queued: 0,
                    recall: None,
                    in_flight: Vec::new(),
                    unsure: Vec::new(),
                });
            }
            (Some(tenure), _) => {
                let done = tenure.in_flight.iter().filter(|at| **at <= applied).count();
                tenure.in_flight.retain(|at| *at > applied);
                for _ in 0..done {
                    tenure.leases.end_write(true);
                }
                if done > 0 {
                    // Acknowledged: whoever reads from now on must see it.
                    self.commits += done as u64;
                    self.seen = self.seen.max(applied);
                }
            }
            _ => {}
        }
        self.finish_reads(node);
    }

    fn leads_for(&self, node: Node, time: Duration) -> bool {
        let acked = self.nodes[node].raft.quorum_acked();
        acked
            .is_some_and(|acked| leads_for(self.clock(node).saturating_duration_since(acked), time, ELECTION))
    }

    fn may_use_lease(&self, node: Node) -> bool {
        let tenure = self.nodes[node].tenure.as_ref();
        tenure.is_some_and(|t| !t.suspended) && self.leads_for(node, Duration::ZERO)
    }

    fn read(&mut self, node: Node) {
        let read = Read { must: self.seen };
        if self.may_use_lease(node) {
            self.without_asking += 1;
            return self.reads_as(node, &read, self.nodes[node].applied);
        }
        let standing = self.nodes[node].held.standing_at(self.clock(node));
        if standing != Standing::None {
            self.without_asking += 1;
            if standing == Standing::Ending && self.nodes[node].reads.begin() {
                self.ask(node);
            }
            return self.reads_as(node, &read, self.nodes[node].applied);
        }
        let (answer, drive) = self.nodes[node].reads.join().unwrap();
        self.nodes[node].waiting.push((read, answer));
        if drive {
            self.ask(node);
        }
    }

    fn reads_as(&mut self, node: Node, read: &Read, value: usize) {
        let (now, must) = (self.bag.now, read.must);
        assert!(value >= must, "at {now} µs node {node} read {value} where {must} was known when it began");
        self.seen = self.seen.max(value);
        self.reads += 1;
    }

    /// Asks the leader for those who wait, as `Group::drive_reads`.
    fn ask(&mut self, node: Node) {
        self.finish_reads(node);
        let Some(batch) = self.nodes[node].reads.next_batch() else { return };
        self.number += 1;
        let number = self.number;
        self.nodes[node].question = Some((number, batch, self.clock(node)));
        let leads = self.nodes[node].raft.leading.is_some();
        let leader = if leads { Some(node) } else { self.nodes[node].raft.leader.map(|l| l.0) };
        if let Some(leader) = leader {
            self.send(node, leader, Wire::Ask(number));
        }
        self.bag.after(100_000, Event::QuestionEnds(node, number));
    }

    /// As `Group::read_index`.
    fn asked(&mut self, node: Node, from: Node, number: u64) {
        if self.may_use_lease(node) {
            return self.answer(node, from, number);
        }
        let now = self.clock(node);
        if let Some(tenure) = &mut self.nodes[node].tenure {
            tenure.unsure.push((from, number, now));
            let mut out = Out::new();
            self.nodes[node].raft.replicate(now, &mut out);
            self.send_all(node, out);
        }
    }

    /// A round of heartbeats may have come back: who asked before it was sent is answered.
    fn sure(&mut self, node: Node) {
        let Some(acked) = self.nodes[node].raft.quorum_acked() else { return };
        let Some(tenure) = &mut self.nodes[node].tenure else { return };
        let sure: Vec<_> = tenure.unsure.extract_if(.., |(_, _, asked)| *asked <= acked).collect();
        for (from, number, _) in sure {
            self.answer(node, from, number);
        }
    }

    fn answer(&mut self, node: Node, from: Node, number: u64) {
        let (leads, now) = (self.leads_for(node, GRANTED), self.clock(node));
        let replica = &self.nodes[node];
        let Some(tenure) = &replica.tenure else { return };
        let lease = if from != node && leads && !tenure.suspended {
            tenure.leases.grant(now, from as u64)
        } else {
            None
        };
        self.send(node, from, Wire::Answer(number, replica.applied, lease));
    }

    fn answered(&mut self, node: Node, number: u64, at: usize, lease: Option<Lease>) {
        let replica = &mut self.nodes[node];
        let Some((_, batch, asked)) = replica.question.take_if(|(n, _, _)| *n == number) else { return };
        if let Some(lease) = lease.filter(|_| replica.applied >= at) {
            replica.held.take(lease, asked);
        }
        batch.answer(Ok(Timestamp(at as u64)));
        self.ask(node);
    }

    /// Reads that know how far this node must have applied, and those that it now has.
    fn finish_reads(&mut self, node: Node) {
        let replica = &mut self.nodes[node];
        for (read, mut answer) in std::mem::take(&mut replica.waiting) {
            match answer.try_recv() {
                Ok(Ok(at)) => replica.applying.push((read, at.0 as usize)),
                Err(tokio::sync::oneshot::error::TryRecvError::Empty) => replica.waiting.push((read, answer)),
                _ => {}
            }
        }
        let applied = replica.applied;
        let ready: Vec<_> = replica.applying.extract_if(.., |(_, at)| *at <= applied).collect();
        for (read, at) in ready {
            self.reads_as(node, &read, at);
        }
    }

    fn write(&mut self, node: Node) {
        if let Some(tenure) = &mut self.nodes[node].tenure {
            tenure.queued += 1;
            self.propose(node);
        } else if let Some(leader) = self.nodes[node].raft.leader.map(|l| l.0)
            && let Some(tenure) = self.nodes[leader].tenure.as_mut()
        {
            tenure.queued += 1;
            self.propose(leader);
        }
    }

    /// As the certifier: recalls leases, then proposes, one after another.
    fn propose(&mut self, node: Node) {
        let now = self.clock(node);
        loop {
            let Some(tenure) = self.nodes[node].tenure.as_mut() else { return };
            if tenure.recall.is_some() {
                return;
            }
            // What has been recalled for is counted already.
            if tenure.in_flight.len() < tenure.leases.writing() {
                let mut out = Out::new();
                let at = self.nodes[node].raft.propose(now, &mut out);
                if let Some(tenure) = self.nodes[node].tenure.as_mut() {
                    tenure.in_flight.push(at);
                }
                self.send_all(node, out);
                continue;
            }
            if tenure.queued == 0 {
                return;
            }
            tenure.queued -= 1;
            if let Some(recall) = tenure.leases.begin_write(now) {
                let (lease, term) = (recall.lease, tenure.leader.term);
                let last = recall.holders.iter().map(|(_, until)| *until).max().unwrap_or(now);
                let holders: Vec<Node> = recall.holders.iter().map(|(node, _)| *node as usize).collect();
                tenure.recall = Some((recall, term));
                for holder in holders {
                    self.send(node, holder, Wire::Recall(lease));
                }
                let wait = self.until(node, last);
                self.bag.after(wait, Event::RecallEnds(node, term));
            }
        }
    }

    fn crash(&mut self, node: Node) {
        let kept = self.rng.random_range(0..=self.nodes[node].applied);
        let replica = &mut self.nodes[node];
        replica.up = false;
        replica.life += 1;
        replica.tenure = None;
        replica.question = None;
        replica.waiting.clear();
        replica.applying.clear();
        // What was not flushed is applied again.
        replica.applied = kept;
    }

    fn start(&mut self, node: Node) {
        if self.nodes[node].up {
            return;
        }
        let now = self.clock(node);
        let replica = &mut self.nodes[node];
        replica.up = true;
        replica.raft = replica.raft.restarted(now);
        replica.raft.committed = replica.applied;
        (replica.held, replica.reads) = (Held::since(self.origin), ReadIndex::default());
        self.arm_election(node);
    }

    /// As `Group::transfer_as_leader`.
    fn transfer(&mut self, to: Node) {
        let leader = (0..NODES).find(|n| *n != to && self.nodes[*n].up && self.nodes[*n].tenure.is_some());
        let Some(node) = leader else { return };
        let now = self.clock(node);
        let Some(tenure) = self.nodes[node].tenure.as_mut() else { return };
        tenure.suspended = true;
        let (term, until) = (tenure.leader.term, tenure.leases.suspend().unwrap_or(now));
        let wait = self.until(node, until);
        self.bag.after(wait, Event::HandOver(node, term, to));
    }
}

#[test]
fn a_read_sees_what_anyone_knew_when_it_began() {
    assert!(GRANTED > LEASE * 21 / 19, "the bound of the clocks' rates that is tried here");
    let run = |seed| {
        let mut world = World::new(seed);
        world.run();
        [1, world.reads, world.without_asking, world.commits]
    };
    let [schedules, reads, without_asking, commits] = schedules(30_000, run);
    println!("{schedules} schedules, {reads} reads, {without_asking} without asking, {commits} commits");
    let enough = without_asking > schedules && reads > 10 * schedules && commits > schedules;
    assert!(enough, "too little happened to prove anything");
}

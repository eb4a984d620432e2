//! Members are added, promoted and removed while messages are lost, nodes crash, one dies for ever, and leadership
//! changes. Whatever happens there are never two majorities, nobody removed comes back, no removal is made that takes the
//! quorum away, nobody votes that should not, and once the trouble is over the membership becomes what was wanted.
//!
//! ```text
//!   operator  Remove, Promote ──┐  asked again until answered,      leader   roster ─► decide ─► step ─► roster …
//!   nodes     Add (themselves) ─┴─ lost, doubled, late, given up             (the real ones)      │
//!                                                                  a Raft of up to eight ◄────────┘ if still as it was
//! ```
//!
//! What is decided is [`Roster`]'s; the way there is that of `Group::change_as_leader` and `membership::promote`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use openraft::ChangeMembers;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::joint::{Config, ELECTION, Entry, Message, Out, Raft, What};
use super::{Bag, Weather, schedules};
use crate::NodeId;
use crate::strong::roster::{Change, FITTEST, Roster, Seen, Step};
use crate::strong::types::Member;

const HEARTBEAT: u64 = 150_000;
/// After this moment no message is lost and nobody dies, and whoever is not dead for ever comes back.
const TROUBLE: u64 = 3_000_000;
/// All is as wanted by then.
const END: u64 = 40_000_000;
const LATELY: Duration = Duration::from_millis(1200);
const ROLL_CALL: Duration = Duration::from_millis(600);
const PATIENCE: u64 = 5_000_000;
const CAUGHT_UP: u64 = 2;

#[derive(Clone)]
enum Wire {
    Raft(Message),
    Order(usize),
    Answer(usize, Reply),
}

#[derive(Clone, Debug, PartialEq)]
enum Reply {
    Done,
    Refused,
    /// Not now, or not here
    Again,
}

enum Event {
    Arrives { from: NodeId, to: NodeId, wire: Wire },
    Heartbeat(NodeId, u64),
    Election(NodeId, u64),
    Housekeeping(NodeId, u64),
    Job(NodeId, u64, u64),
    Give(Change, bool),
    Ask(usize),
    Announce(NodeId),
    Join(NodeId),
    Crash(NodeId),
    Start(NodeId),
    DiesForEver(NodeId),
    Transfer,
    Cut(NodeId, NodeId, u64),
}

/// What is asked of the leader.
struct Order {
    change: Change,
    /// Asked for until it is done or refused
    kept: bool,
    open: bool,
}

enum Stage {
    /// Looks at the members; who is alive is to be known as of then
    Looks(u64),
    /// Has decided on this, in view of a roster
    Agrees(ChangeMembers<NodeId, Member>, Box<Roster>, u64),
    /// Waits until this entry is committed
    Waits(usize),
}

/// A change on its way at a leader.
struct Job {
    number: u64,
    /// Whose order it is; none is the leader's own
    order: Option<usize>,
    change: Change,
    term: u64,
    stage: Stage,
    until: u64,
}

struct Node {
    raft: Raft,
    up: bool,
    life: u64,
    down_since: u64,
    /// How much of what it knows to be committed has been compared with the truth
    learned: usize,
    jobs: Vec<Job>,
}

struct World {
    rng: SmallRng,
    bag: Bag<Event>,
    weather: Weather,
    origin: Instant,
    nodes: BTreeMap<NodeId, Node>,
    cut: BTreeMap<(NodeId, NodeId), u64>,
    orders: Vec<Order>,
    dead: Option<NodeId>,
    /// What is committed
    truth: Vec<Entry>,
    removed: BTreeSet<NodeId>,
    /// Removed, and no member any more
    gone: BTreeSet<NodeId>,
    promoted: BTreeSet<NodeId>,
    numbers: u64,
    changes: u64,
    refusals: u64,
}

fn member(learner: bool) -> Member {
    Member { learner, ..Member::default() }
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = SmallRng::seed_from_u64(seed);
        let origin = Instant::now() + ELECTION * 2;
        let founders = rng.random_range(1..=5);
        let config = Config {
            voters: vec![(1..=founders).collect()],
            members: (1..=founders).map(|id| (id, member(false))).collect(),
        };
        let node = |id| {
            let raft = Raft::founder(id, origin, config.clone());
            (id, Node { raft, up: true, life: 0, down_since: 0, learned: 0, jobs: Vec::new() })
        };
        let nodes = (1..=founders).map(node).collect();
        let weather = Weather::draw(&mut rng);
        let mut world = World {
            rng,
            bag: Bag::new(),
            weather,
            origin,
            nodes,
            cut: BTreeMap::new(),
            orders: Vec::new(),
            dead: None,
            truth: Vec::new(),
            removed: BTreeSet::new(),
            gone: BTreeSet::new(),
            promoted: BTreeSet::new(),
            numbers: 0,
            changes: 0,
            refusals: 0,
        };
        for id in 1..=founders {
            world.arm_election(id);
        }
        let newcomers = world.rng.random_range(0..4);
        let everyone: Vec<NodeId> = (1..=founders).chain(11..11 + newcomers).collect();
        let some = |world: &mut World| everyone[world.rng.random_range(0..everyone.len())];
        for id in 11..11 + newcomers {
            let at = world.rng.random_range(0..TROUBLE / 2);
            world.bag.after(at, Event::Join(id));
            let learner = world.rng.random_bool(0.3);
            world.bag.after(at, Event::Give(Change::Add(id, member(learner)), true));
        }
        for _ in 0..world.rng.random_range(1..5) {
            let (at, id, kept) = (world.rng.random_range(0..TROUBLE), some(&mut world), world.rng.random());
            let change = match world.rng.random_range(0..4) {
                0 => Change::Promote(id),
                _ => Change::Remove(id, world.rng.random()),
            };
            world.bag.after(at, Event::Give(change, kept));
        }
        for _ in 0..world.rng.random_range(0..6) {
            let (at, id) = (world.rng.random_range(0..TROUBLE), some(&mut world));
            match world.rng.random_range(0..5) {
                0 => world.bag.after(at, Event::Transfer),
                1 => world.bag.after(at, Event::DiesForEver(id)),
                2 => {
                    let until = at + world.rng.random_range(100_000..1_500_000);
                    for other in everyone.iter().filter(|other| **other != id) {
                        for (from, to) in [(id, *other), (*other, id)] {
                            if world.rng.random_bool(0.7) {
                                world.bag.after(at, Event::Cut(from, to, until));
                            }
                        }
                    }
                }
                _ => {
                    world.bag.after(at, Event::Crash(id));
                    let down = world.rng.random_range(1_000..1_000_000);
                    world.bag.after((at + down).min(TROUBLE), Event::Start(id));
                }
            }
        }
        world
    }

    fn now(&self) -> Instant {
        self.origin + Duration::from_micros(self.bag.now)
    }

    fn send(&mut self, from: NodeId, to: NodeId, wire: Wire) {
        let calm = self.bag.now > TROUBLE;
        if !calm && self.cut.get(&(from, to)).is_some_and(|until| self.bag.now < *until) {
            return;
        }
        if calm {
            self.weather = Weather { lost: 0.0, doubled: 0.0, longest: 2_000 };
        }
        for delay in self.weather.arrivals(&mut self.rng) {
            self.bag.after(delay, Event::Arrives { from, to, wire: wire.clone() });
        }
    }

    fn send_all(&mut self, from: NodeId, out: Out) {
        for (to, message) in out {
            self.send(from, to, Wire::Raft(message));
        }
    }

    fn arm_election(&mut self, id: NodeId) {
        let delay = self.rng.random_range(300_000..600_000);
        let life = self.nodes[&id].life;
        self.bag.after(delay, Event::Election(id, life));
    }

    /// Does something to the Raft of a node that is up, and what follows from it.
    fn with_raft<T>(&mut self, id: NodeId, act: impl FnOnce(&mut Raft, Instant, &mut Out) -> T) -> Option<T> {
        let now = self.now();
        let node = self.nodes.get_mut(&id).filter(|node| node.up)?;
        let (led, mut out) = (node.raft.leading.is_some(), Out::new());
        let result = act(&mut node.raft, now, &mut out);
        let (leads, term, life) = (node.raft.leading.is_some(), node.raft.term, node.life);
        self.send_all(id, out);
        self.learn(id);
        if leads && !led {
            self.bag.after(HEARTBEAT, Event::Heartbeat(id, term));
            let delay = self.rng.random_range(0..300_000);
            self.bag.after(delay, Event::Housekeeping(id, life));
        }
        Some(result)
    }

    /// What a node knows to be committed is what all know to be committed.
    fn learn(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        let (raft, learned) = (&node.raft, node.learned);
        for at in learned..raft.committed {
            match self.truth.get(at) {
                Some(known) => assert_eq!(*known, raft.log[at], "two majorities at entry {at}"),
                None => self.truth.push(raft.log[at].clone()),
            }
            if at + 1 < self.truth.len() {
                continue;
            }
            match &self.truth[at].1 {
                What::Blank => {}
                What::Removed(id) => _ = self.removed.insert(*id),
                What::Members(config) => {
                    for id in &self.gone {
                        assert!(!config.members.contains_key(id), "node {id} is back from the dead");
                    }
                    let left = self.removed.iter().filter(|id| !config.members.contains_key(id));
                    self.gone.extend(left.copied());
                    for id in config.voters.iter().flatten() {
                        let learner = config.members.get(id).is_none_or(|member| member.learner);
                        assert!(!learner, "node {id} votes and is a replica, or no member");
                        let new = *id > 10
                            && self.orders.iter().any(
                                |order| matches!(&order.change, Change::Add(n, m) if n == id && m.learner),
                            );
                        assert!(!new || self.promoted.contains(id), "nobody has promoted node {id}");
                    }
                }
            }
        }
        let committed = self.nodes[&id].raft.committed;
        self.nodes.entry(id).and_modify(|node| node.learned = node.learned.max(committed));
    }

    fn run(&mut self) {
        let mut look = TROUBLE;
        let mut asked_for_dead = false;
        while let Some(event) = self.bag.next() {
            if self.bag.now > TROUBLE && !asked_for_dead {
                asked_for_dead = true;
                for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                    self.bag.after(0, Event::Start(id));
                }
                if let Some(dead) = self.dead {
                    self.bag.after(0, Event::Give(Change::Remove(dead, true), true));
                }
            }
            self.happen(event);
            if asked_for_dead && self.bag.now > look + 100_000 {
                look = self.bag.now;
                match self.unsettled() {
                    None => return,
                    Some(what) => assert!(self.bag.now < END, "{what}: {}", self.state()),
                }
            }
        }
    }

    /// How all stand, for whoever reads a failure.
    fn state(&self) -> String {
        let node = |(id, node): (&NodeId, &Node)| {
            let (raft, config) = (&node.raft, node.raft.config().0);
            let leads = if raft.leading.is_some() { " leads" } else { "" };
            let up = if node.up { "" } else { " down" };
            let (term, committed, length) = (raft.term, raft.committed, raft.log.len());
            format!(
                "\n{id}{up}{leads} in term {term}, {committed} of {length} committed, {:?}",
                config.voters
            )
        };
        self.nodes.iter().map(node).collect()
    }

    /// What is not yet as wanted.
    fn unsettled(&self) -> Option<String> {
        let open = self.orders.iter().find(|order| order.open && order.kept);
        if let Some(order) = open {
            return Some(format!("{:?} is not answered", order.change));
        }
        let leaders = self.nodes.values().filter(|node| node.up && node.raft.leading.is_some());
        let Some(leader) = leaders.max_by_key(|node| node.raft.term) else {
            return Some("nobody leads".into());
        };
        let raft = &leader.raft;
        if raft.committed < raft.log.len() {
            return Some("not all is committed".into());
        }
        let (config, _) = raft.config();
        let [voters] = &config.voters[..] else { return Some(format!("two configurations: {config:?}")) };
        if let Some(id) = self.removed.iter().find(|id| config.members.contains_key(id)) {
            return Some(format!("node {id} was noted as removed and is there"));
        }
        let wanted = |(id, member): (&NodeId, &Member)| (!member.learner).then_some(*id);
        let wanted: BTreeSet<NodeId> = config.members.iter().filter_map(wanted).collect();
        (wanted != *voters).then(|| format!("{voters:?} vote, {wanted:?} should"))
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives { from, to, wire } => self.arrives(from, to, wire),
            Event::Heartbeat(id, term) => {
                let leads = |raft: &Raft| raft.term == term && raft.leading.is_some();
                let beat =
                    |raft: &mut Raft, now, out: &mut Out| leads(raft).then(|| raft.replicate(now, out));
                if let Some(Some(())) = self.with_raft(id, beat) {
                    self.bag.after(HEARTBEAT, Event::Heartbeat(id, term));
                }
            }
            Event::Election(id, life) if self.nodes[&id].life == life => {
                self.with_raft(id, |raft, now, out| raft.elect(now, false, out));
                self.arm_election(id);
            }
            Event::Election(..) => {}
            Event::Housekeeping(id, life) => self.keep_house(id, life),
            Event::Job(id, life, number) if self.nodes[&id].life == life => self.work(id, number),
            Event::Job(..) => {}
            Event::Give(change, kept) => {
                if let Change::Promote(id) = &change {
                    self.promoted.insert(*id);
                }
                let announced = match &change {
                    Change::Add(id, _) => Some(*id),
                    _ => None,
                };
                self.orders.push(Order { change, kept, open: true });
                self.bag.after(0, Event::Ask(self.orders.len() - 1));
                if let Some(id) = announced.filter(|_| self.rng.random_bool(0.5)) {
                    let delay = self.rng.random_range(0..TROUBLE);
                    self.bag.after(delay, Event::Announce(id));
                }
            }
            Event::Ask(order) => self.ask(order),
            // A node says where it is, removed or not; it is not waited for.
            Event::Announce(id) => {
                if self.nodes.get(&id).is_some_and(|node| node.up) {
                    let known = self.orders.iter().find_map(|order| match &order.change {
                        Change::Add(n, member) if *n == id => Some(member.learner),
                        _ => None,
                    });
                    let said = Member { protocol: self.rng.random(), ..member(known.unwrap_or(false)) };
                    self.orders.push(Order { change: Change::Add(id, said), kept: false, open: true });
                    self.ask(self.orders.len() - 1);
                    let delay = self.rng.random_range(50_000..900_000);
                    if self.bag.now < TROUBLE {
                        self.bag.after(delay, Event::Announce(id));
                    }
                }
            }
            Event::Join(id) => {
                let raft = Raft::new(id, self.now());
                self.nodes.insert(
                    id,
                    Node { raft, up: true, life: 0, down_since: 0, learned: 0, jobs: Vec::new() },
                );
                self.arm_election(id);
            }
            Event::Crash(id) => self.crash(id),
            Event::Start(id) => {
                let (now, dead) = (self.now(), self.dead);
                let Some(node) = self.nodes.get_mut(&id).filter(|node| !node.up && dead != Some(id)) else {
                    return;
                };
                (node.up, node.raft, node.learned) = (true, node.raft.restarted(now), 0);
                self.arm_election(id);
                self.bag.after(1_000, Event::Announce(id));
            }
            Event::DiesForEver(id) => {
                if self.dead.is_none() && self.can_lose(id) {
                    self.crash(id);
                    self.dead = Some(id);
                }
            }
            Event::Transfer => {
                let leader = self.nodes.iter().find(|(_, node)| node.up && node.raft.leading.is_some());
                if let Some(id) = leader.map(|(id, _)| *id) {
                    self.hand_over(id);
                }
            }
            Event::Cut(from, to, until) => _ = self.cut.insert((from, to), until),
        }
    }

    fn crash(&mut self, id: NodeId) {
        let now = self.bag.now;
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.up) else { return };
        (node.up, node.down_since) = (false, now);
        node.life += 1;
        node.raft.leading = None;
        node.jobs.clear();
    }

    /// True if the group can do without this node for ever, whatever becomes of the changes that are on their way.
    fn can_lose(&self, id: NodeId) -> bool {
        let removal = |change: &Change| matches!(change, Change::Remove(..));
        let calm = self.nodes.values().all(|node| !node.jobs.iter().any(|job| removal(&job.change)));
        let asked = self.orders.iter().any(|order| order.open && removal(&order.change));
        let at = self.truth.iter().rposition(|(_, what)| matches!(what, What::Members(_))).unwrap_or(0);
        let agrees = |(_, what): &Entry| match what {
            What::Members(config) => {
                config.agree(|n| n != id) && config.voters.iter().all(|set| set.len() > 1)
            }
            _ => true,
        };
        let logs =
            self.nodes.values().all(|node| node.raft.log.get(at..).is_none_or(|l| l.iter().all(agrees)));
        self.nodes.contains_key(&id) && calm && !asked && logs && !self.truth.is_empty()
    }

    fn arrives(&mut self, from: NodeId, to: NodeId, wire: Wire) {
        match wire {
            Wire::Raft(message) => {
                self.with_raft(to, |raft, now, out| raft.handle(now, from, message, out));
            }
            Wire::Order(order) => {
                let change = self.orders[order].change.clone();
                if !self.begin(to, Some(order), change) {
                    self.send(to, 0, Wire::Answer(order, Reply::Again));
                }
            }
            Wire::Answer(order, reply) => {
                let order = &mut self.orders[order];
                let of_dead = matches!(order.change, Change::Remove(id, _) if Some(id) == self.dead);
                match reply {
                    Reply::Done => order.open = false,
                    // The dead must go in the end.
                    Reply::Refused if self.bag.now > TROUBLE && of_dead => {}
                    Reply::Refused => order.open = false,
                    Reply::Again => {}
                }
            }
        }
    }

    fn ask(&mut self, order: usize) {
        if !self.orders[order].open {
            return;
        }
        let up: Vec<NodeId> = self.nodes.iter().filter(|(_, node)| node.up).map(|(id, _)| *id).collect();
        let leaders = up.iter().filter(|id| self.nodes[*id].raft.leading.is_some());
        let newest = leaders.max_by_key(|id| self.nodes[*id].raft.term).copied();
        let any = (!up.is_empty()).then(|| up[self.rng.random_range(0..up.len())]);
        let to = newest.filter(|_| self.rng.random_bool(0.9)).or(any);
        if let Some(to) = to {
            self.send(0, to, Wire::Order(order));
        }
        // Who does not care asks once or twice.
        if self.orders[order].kept || self.rng.random_bool(0.3) {
            let delay = self.rng.random_range(200_000..1_500_000);
            self.bag.after(delay, Event::Ask(order));
        }
    }

    /// Begins a change on a node, if it leads.
    fn begin(&mut self, id: NodeId, order: Option<usize>, change: Change) -> bool {
        let now = self.bag.now;
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.up && node.raft.leading.is_some()) else {
            return false;
        };
        self.numbers += 1;
        let (number, term, life) = (self.numbers, node.raft.term, node.life);
        node.jobs.push(Job { number, order, change, term, stage: Stage::Looks(now), until: now + PATIENCE });
        self.bag.after(0, Event::Job(id, life, number));
        true
    }

    /// As `membership::promote`.
    fn keep_house(&mut self, id: NodeId, life: u64) {
        let node = &self.nodes[&id];
        if !node.up || node.life != life || node.raft.leading.is_none() {
            return;
        }
        if !node.jobs.iter().any(|job| job.order.is_none()) {
            let members = node.raft.config().0;
            let applied = &node.raft.log[..node.raft.committed];
            let removed = applied.iter().find_map(|(_, what)| match what {
                What::Removed(id) if members.members.contains_key(id) => Some(*id),
                _ => None,
            });
            let change = match removed.filter(|_| self.rng.random_bool(0.3)) {
                Some(removed) => Change::Remove(removed, true),
                None => Change::Vote,
            };
            self.begin(id, None, change);
        }
        self.bag.after(300_000, Event::Housekeeping(id, life));
    }

    fn roster(&self, id: NodeId) -> Roster {
        let (now, raft) = (self.now(), &self.nodes[&id].raft);
        let config = raft.config().0;
        let progress = raft.leading.as_ref();
        let seen = |(member, what): (&NodeId, &Member)| {
            let peer = progress.and_then(|p| p.get(member));
            let own = *member == id;
            Seen {
                id: *member,
                member: what.clone(),
                votes: config.votes(*member),
                stays: config.voters.last().is_some_and(|last| last.contains(member)),
                matched: peer.and_then(|p| p.matched).map(|matched| matched as u64),
                heard: if own { Some(Duration::ZERO) } else { peer.and_then(|p| p.acked).map(|at| now - at) },
            }
        };
        Roster {
            own: id,
            last: raft.log.len() as u64,
            caught_up: CAUGHT_UP,
            as_of: raft.as_of(),
            joint: config.voters.len() > 1,
            members: config.members.iter().map(seen).collect(),
        }
    }

    /// The next step of a change, as `Group::change_as_leader`.
    fn work(&mut self, id: NodeId, number: u64) {
        let node = self.nodes.get_mut(&id).expect("a node with a change");
        let Some(at) = node.jobs.iter().position(|job| job.number == number) else { return };
        let mut job = node.jobs.swap_remove(at);
        if node.raft.leading.is_none() || node.raft.term != job.term {
            return self.answer(id, &job, Reply::Again);
        }
        let (life, mut pause) = (node.life, 0);
        job.stage = match std::mem::replace(&mut job.stage, Stage::Waits(0)) {
            Stage::Looks(asked) => match self.look(id, &job, asked) {
                Ok((stage, wait)) => {
                    pause = wait;
                    stage
                }
                Err(reply) => return self.answer(id, &job, reply),
            },
            Stage::Agrees(change, roster, asked) => {
                let as_of = roster.as_of;
                let agreed = self
                    .with_raft(id, |raft, now, out| raft.change(&change, as_of, now, out))
                    .expect("it is up");
                match agreed {
                    Ok(entry) => {
                        self.check_step(&change, &roster, asked);
                        Stage::Waits(entry)
                    }
                    Err(()) if self.bag.now > job.until => return self.answer(id, &job, Reply::Again),
                    Err(()) => {
                        pause = 50_000;
                        Stage::Looks(self.bag.now + pause)
                    }
                }
            }
            Stage::Waits(entry) if self.nodes[&id].raft.committed < entry => {
                pause = 5_000;
                Stage::Waits(entry)
            }
            Stage::Waits(entry) => {
                // The core goes on from two configurations to one.
                let (config, newest) = self.nodes[&id].raft.config();
                let rest = ChangeMembers::AddVoterIds(BTreeSet::new());
                if config.voters.len() > 1 && newest == entry {
                    let flat = self.with_raft(id, |raft, now, out| {
                        let as_of = raft.as_of();
                        raft.change(&rest, as_of, now, out)
                    });
                    match flat {
                        Some(Ok(entry)) => Stage::Waits(entry),
                        _ => return self.answer(id, &job, Reply::Again),
                    }
                } else {
                    Stage::Looks(self.bag.now)
                }
            }
        };
        pause += self.rng.random_range(10..3_000);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.jobs.push(job);
        self.bag.after(pause, Event::Job(id, life, number));
    }

    /// Decides what is next, and how long to wait before it; or the answer.
    fn look(&mut self, id: NodeId, job: &Job, asked: u64) -> Result<(Stage, u64), Reply> {
        let roster = self.roster(id);
        let since = Duration::from_micros(self.bag.now.saturating_sub(asked));
        let removal = matches!(job.change, Change::Remove(..));
        if removal && !roster.all_answer(since) && since < ROLL_CALL {
            return Ok((Stage::Looks(asked), 40_000));
        }
        let raft = &self.nodes[&id].raft;
        let notes = |log: &[Entry]| -> BTreeSet<NodeId> {
            let noted = log.iter().filter_map(|(_, what)| match what {
                What::Removed(id) => Some(*id),
                _ => None,
            });
            noted.collect()
        };
        let (noted, all) = (notes(&raft.log[..raft.committed]), notes(&raft.log));
        let since = if removal { since } else { LATELY };
        match roster.decide(&job.change, &noted, since) {
            // Another note is on its way.
            Step::Note if noted != all => Ok((Stage::Looks(asked), 5_000)),
            Step::Done => Err(Reply::Done),
            Step::Refuse(_) | Step::Removed => {
                self.refusals += 1;
                Err(Reply::Refused)
            }
            Step::HandOver => {
                self.hand_over(id);
                Err(Reply::Again)
            }
            Step::Note => {
                let Change::Remove(gone, _) = job.change else { panic!("{:?} is noted", job.change) };
                let at = self.with_raft(id, |raft, now, out| raft.propose(What::Removed(gone), now, out));
                Ok((Stage::Waits(at.expect("it is up")), 0))
            }
            Step::Agree(change) => Ok((Stage::Agrees(change, Box::new(roster), asked), 0)),
        }
    }

    /// What a step rests on must be true.
    fn check_step(&mut self, change: &ChangeMembers<NodeId, Member>, roster: &Roster, asked: u64) {
        self.changes += 1;
        let was_up = |id: &NodeId, since: u64| {
            self.nodes.get(id).is_some_and(|node| node.up || node.down_since >= since)
        };
        match change {
            ChangeMembers::RemoveVoters(gone) => {
                // What is left now, whatever the roster showed.
                let config = self.nodes[&roster.own].raft.config().0;
                let left = config.voters.last().expect("voters");
                assert!(left.is_disjoint(gone));
                let alive = left.iter().filter(|id| was_up(id, asked)).count();
                let all = left.len();
                assert!(alive > all / 2, "without {gone:?} {alive} of {all} are alive");
            }
            ChangeMembers::AddVoterIds(new) => {
                for id in new {
                    let length = self.nodes[id].raft.log.len() as u64;
                    assert!(length + CAUGHT_UP >= roster.last, "node {id} votes and is far behind");
                    let lately = self.bag.now.saturating_sub(LATELY.as_micros() as u64 + 5_000);
                    assert!(was_up(id, lately), "node {id} votes and is dead");
                }
            }
            _ => {}
        }
    }

    fn hand_over(&mut self, id: NodeId) {
        if let Ok(to) = self.roster(id).successor(FITTEST, LATELY, &BTreeSet::new()) {
            let term = self.nodes[&id].raft.term;
            self.send(id, to, Wire::Raft(Message::HandOver { term }));
        }
    }

    fn answer(&mut self, id: NodeId, job: &Job, reply: Reply) {
        if let Some(order) = job.order {
            self.send(id, 0, Wire::Answer(order, reply));
        }
    }
}

#[test]
fn members_become_what_was_wanted_and_the_quorum_stays() {
    let run = |seed| {
        let mut world = World::new(seed);
        world.run();
        [1, world.changes, world.refusals, world.gone.len() as u64]
    };
    let [schedules, changes, refusals, gone] = schedules(10_000, run);
    println!("{schedules} schedules, {changes} changes, {refusals} refused, {gone} removed");
    let enough = changes > schedules && gone * 2 > schedules && refusals * 4 > schedules;
    assert!(schedules == 1 || enough, "too little happened to prove anything");
}

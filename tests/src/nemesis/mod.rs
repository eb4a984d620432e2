//! What befalls a cluster, as a schedule that one seed decides.
//!
//! ```text
//!   seed ──► kill leader 1.2 s · calm 0.9 s · node 2 hears nobody 2 s · calm 0.4 s · node 3's clock +60 s …
//!                └ each begins, lasts and is mended before the next
//! ```
//!
//! Victims are named when the schedule is made, all but "the leader", which is looked for when its turn comes. A fault
//! that takes the quorum away must be followed by service again: [`run`] waits for it after every fault.

mod members;

use std::fmt;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::Cluster;

/// Who suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// This node
    Node(usize),
    /// Whoever leads then
    Leader,
}

/// What befalls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, and a start after a while
    Kill(Victim),
    /// `kill -9` of all but one, which is not the leader if that can be had
    KillMajority(Victim),
    /// `kill -9` of all at once
    KillAll,
    /// SIGSTOP
    Pause(Victim),
    /// No link to or from it works
    CutOff(Victim),
    /// It hears nobody, and is heard
    Deaf(Victim),
    /// It hears, and is not heard
    Mute(Victim),
    /// It and the next node do not hear each other; both hear the third
    OneLink(Victim),
    /// It is cut off and joined again, several times a second
    Flapping(Victim),
    /// Its time of day jumps by so many seconds, and back
    Clock(Victim, i64),
    /// Every fsync of its takes so many milliseconds more
    SlowDisk(Victim, u64),
    /// Its disk is full; it is restarted when there is room again
    FullDisk(Victim),
    /// Leadership goes from one to the next, several times a second
    Shuffle,
    /// It is drained, stopped in order, and started again
    Roll(Victim),
    /// One more joins and leaves again; if so said it is a read replica first and promoted
    Guest(bool),
    /// One more joins and leaves again, and amidst of each that one dies and comes back
    GuestAmidst(Victim),
    /// It dies for ever, is removed, and a fresh one takes its place and its address
    Replace(Victim),
    /// It is removed while it works, then as above
    Exile(Victim),
}

/// Kinds of faults, of which a schedule is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Processes die
    Kills,
    /// Processes stop and links break
    Links,
    /// Clocks jump
    Clocks,
    /// Disks are slow or full
    Disks,
    /// Members come and go, and leadership moves
    Members,
}

/// A fault, how long it lasts, and the calm before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Before it
    pub calm: Duration,
    /// What
    pub fault: Fault,
    /// How long
    pub lasts: Duration,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} for {:.1} s after {:.1} s",
            self.fault,
            self.lasts.as_secs_f64(),
            self.calm.as_secs_f64()
        )
    }
}

/// An endless schedule.
pub struct Schedule {
    rng: StdRng,
    kinds: Vec<Kind>,
    nodes: usize,
}

impl Schedule {
    /// Of these kinds, for so many nodes.
    pub fn new(seed: u64, kinds: &[Kind], nodes: usize) -> Schedule {
        Schedule { rng: StdRng::seed_from_u64(seed), kinds: kinds.to_vec(), nodes }
    }

    fn fault(&mut self) -> Fault {
        let rng = &mut self.rng;
        let kind = self.kinds[rng.random_range(0..self.kinds.len())];
        let victim = match rng.random_bool(0.5) {
            true => Victim::Leader,
            false => Victim::Node(rng.random_range(0..self.nodes)),
        };
        match kind {
            Kind::Kills => match rng.random_range(0..6) {
                0 => Fault::KillAll,
                1 => Fault::KillMajority(victim),
                _ => Fault::Kill(victim),
            },
            Kind::Links => match rng.random_range(0..6) {
                0 => Fault::Pause(victim),
                1 => Fault::CutOff(victim),
                2 => Fault::Deaf(victim),
                3 => Fault::Mute(victim),
                4 => Fault::OneLink(victim),
                _ => Fault::Flapping(victim),
            },
            Kind::Clocks => Fault::Clock(victim, if rng.random_bool(0.5) { 60 } else { -60 }),
            // Only the last node has a disk of its own that can be filled.
            Kind::Disks => match rng.random_range(0..3) {
                0 => Fault::FullDisk(Victim::Node(self.nodes - 1)),
                _ => Fault::SlowDisk(victim, rng.random_range(20..400)),
            },
            Kind::Members => match rng.random_range(0..8) {
                0 => Fault::Shuffle,
                1 => Fault::Roll(victim),
                2 | 3 => Fault::Guest(rng.random_bool(0.5)),
                4 | 5 => Fault::GuestAmidst(victim),
                6 => Fault::Replace(victim),
                _ => Fault::Exile(victim),
            },
        }
    }
}

impl Iterator for Schedule {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let fault = self.fault();
        let calm = Duration::from_millis(self.rng.random_range(300..2000));
        let lasts = Duration::from_millis(self.rng.random_range(300..3500));
        Some(Event { calm, fault, lasts })
    }
}

/// Lets a schedule befall a cluster for so long, and mends everything.
pub async fn run(cluster: &mut Cluster, schedule: Schedule, limit: Duration) {
    let start = Instant::now();
    for event in schedule {
        if start.elapsed() + event.calm > limit {
            break;
        }
        tokio::time::sleep(event.calm).await;
        println!("{:6.1} s: {event}", start.elapsed().as_secs_f64());
        befall(cluster, event).await;
    }
}

async fn befall(cluster: &mut Cluster, Event { fault, lasts, .. }: Event) {
    let all: Vec<usize> = (0..cluster.len()).collect();
    let others = |node: usize| all.iter().copied().filter(move |n| *n != node);
    match fault {
        Fault::Kill(victim) => {
            let node = find(cluster, victim).await;
            kill(cluster, vec![node], lasts).await;
        }
        Fault::KillMajority(spared) => {
            let leader = find(cluster, spared).await;
            let spared = (leader + 1) % cluster.len();
            kill(cluster, others(spared).collect(), lasts).await;
        }
        Fault::KillAll => kill(cluster, all.clone(), lasts).await,
        Fault::Pause(victim) => {
            let node = find(cluster, victim).await;
            cluster.node(node).pause();
            tokio::time::sleep(lasts).await;
            cluster.node(node).resume();
        }
        Fault::CutOff(victim) => {
            let node = find(cluster, victim).await;
            cluster.partition(&[node], &others(node).collect::<Vec<_>>()).await;
            tokio::time::sleep(lasts).await;
            cluster.heal().await;
        }
        Fault::Deaf(victim) | Fault::Mute(victim) => {
            let node = find(cluster, victim).await;
            for other in others(node) {
                match fault {
                    Fault::Deaf(_) => cluster.silence(node, other),
                    _ => cluster.silence(other, node),
                }
            }
            tokio::time::sleep(lasts).await;
            cluster.heal().await;
        }
        Fault::OneLink(victim) => {
            let node = find(cluster, victim).await;
            cluster.partition(&[node], &[(node + 1) % cluster.len()]).await;
            tokio::time::sleep(lasts).await;
            cluster.heal().await;
        }
        Fault::Flapping(victim) => {
            let node = find(cluster, victim).await;
            let until = Instant::now() + lasts;
            while Instant::now() < until {
                cluster.partition(&[node], &others(node).collect::<Vec<_>>()).await;
                tokio::time::sleep(Duration::from_millis(250)).await;
                cluster.heal().await;
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        }
        Fault::Clock(victim, seconds) => {
            let node = find(cluster, victim).await;
            cluster.faults(node).shift_clock(seconds);
            tokio::time::sleep(lasts).await;
            cluster.faults(node).shift_clock(0);
        }
        Fault::SlowDisk(victim, millis) => {
            let node = find(cluster, victim).await;
            cluster.faults(node).slow_disk(Duration::from_millis(millis));
            tokio::time::sleep(lasts).await;
            cluster.faults(node).slow_disk(Duration::ZERO);
        }
        Fault::FullDisk(victim) => {
            let node = find(cluster, victim).await;
            let ballast = cluster.fill_disk(node);
            tokio::time::sleep(lasts).await;
            std::fs::remove_file(ballast).expect("the ballast");
            cluster.node(node).restart();
            cluster.wait_ready(node).await;
        }
        Fault::Shuffle => members::shuffle(cluster, lasts).await,
        Fault::Roll(victim) => {
            let node = find(cluster, victim).await;
            members::roll(cluster, node, lasts).await;
        }
        Fault::Guest(replica) => members::guest(cluster, replica, lasts).await,
        Fault::GuestAmidst(victim) => members::guest_amidst(cluster, victim, lasts).await,
        Fault::Replace(victim) => {
            let node = find(cluster, victim).await;
            members::replace(cluster, node, true, lasts).await;
        }
        Fault::Exile(victim) => {
            let node = find(cluster, victim).await;
            members::replace(cluster, node, false, lasts).await;
        }
    }
    wait_for_service(cluster).await;
}

async fn find(cluster: &Cluster, victim: Victim) -> usize {
    match victim {
        Victim::Node(node) => node,
        Victim::Leader => cluster.leader().await,
    }
}

async fn kill(cluster: &mut Cluster, nodes: Vec<usize>, lasts: Duration) {
    for node in &nodes {
        cluster.node(*node).kill();
    }
    tokio::time::sleep(lasts).await;
    for node in &nodes {
        cluster.node(*node).start();
    }
    for node in nodes {
        cluster.wait_ready(node).await;
    }
}

/// Every node must read again, through the leader, within a time that a busy machine needs.
async fn wait_for_service(cluster: &Cluster) {
    let start = Instant::now();
    for node in cluster.nodes() {
        loop {
            let ask = async {
                let client = node.try_client(Duration::from_secs(1)).await?;
                client.query_one("SELECT n FROM nemesis.service", &[]).await
            };
            match tokio::time::timeout(Duration::from_secs(5), ask).await {
                Ok(Ok(_)) => break,
                answer => assert!(
                    start.elapsed() < Duration::from_secs(45),
                    "{} does not serve after the fault is mended: {answer:?}\n{}",
                    node.pg,
                    node.tail(60)
                ),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_schedule() {
        let kinds = [Kind::Kills, Kind::Links, Kind::Clocks, Kind::Disks, Kind::Members];
        let schedule = |seed| Schedule::new(seed, &kinds, 3).take(300).collect::<Vec<_>>();
        assert_eq!(schedule(7), schedule(7));
        assert_ne!(schedule(7), schedule(8));
        let told = format!("{:?}", schedule(7));
        for name in [
            "Kill(",
            "KillMajority",
            "KillAll",
            "Pause",
            "CutOff",
            "Deaf",
            "Mute",
            "OneLink",
            "Flapping",
            "Clock",
            "SlowDisk",
            "FullDisk",
            "Shuffle",
            "Roll",
            "Guest(true)",
            "Guest(false)",
            "GuestAmidst",
            "Replace",
            "Exile",
        ] {
            assert!(told.contains(name), "{name} never comes up");
        }
    }
}

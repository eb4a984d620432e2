//! The group's state machines under every order of events that luck finds, in virtual time.
//!
//! ```text
//!   seed ──► bag of events, each at a moment ──► take the first ──► state machine ──► more events
//!              ▲      a message may be lost,                                             │
//!              │      doubled, or come after a later one                                 │
//!              └─────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What is driven is the real code: [`LockTable`](super::locks::LockTable),
//! [`Granted`](super::leases::Granted), [`Held`](super::leases::Held), [`ReadIndex`](super::reads::ReadIndex),
//! [`RecentWrites`](super::recent_writes::RecentWrites), [`Roster`](super::roster::Roster). Around it stand models, as small as they can be, of what they
//! stand in: gateways that ask again, clocks that do not run equally fast, a Raft of three nodes. A schedule is a
//! fraction of a second of virtual time; tens of thousands of them run in a few seconds.
//!
//! `AMPHORA_SEED` repeats one schedule, `AMPHORA_SCHEDULES` says how many.

mod commits;
mod joint;
mod locks;
mod members;
mod raft;
mod reads;

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::SmallRng;

/// Events on their way, by their moment in microseconds.
struct Bag<E> {
    now: u64,
    count: u64,
    events: BTreeMap<(u64, u64), E>,
}

impl<E> Bag<E> {
    fn new() -> Bag<E> {
        Bag { now: 0, count: 0, events: BTreeMap::new() }
    }

    /// Something happens after so long.
    fn after(&mut self, delay: u64, event: E) {
        self.count += 1;
        self.events.insert((self.now + delay, self.count), event);
    }

    /// The next thing to happen. Time goes on to it.
    fn next(&mut self) -> Option<E> {
        let ((at, _), event) = self.events.pop_first()?;
        self.now = at;
        Some(event)
    }
}

/// How a network treats messages.
#[derive(Clone, Copy)]
struct Weather {
    lost: f64,
    doubled: f64,
    /// The longest way, in microseconds
    longest: u64,
}

impl Weather {
    fn draw(rng: &mut SmallRng) -> Weather {
        let lost = if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..0.3) };
        let longest = if rng.random_bool(0.7) { 2_000 } else { 60_000 };
        Weather { lost, doubled: rng.random_range(0.0..0.1), longest }
    }

    /// When a message arrives: never, once or twice.
    fn arrivals(&self, rng: &mut SmallRng) -> impl Iterator<Item = u64> + use<> {
        let first = (!rng.random_bool(self.lost)).then(|| rng.random_range(50..=self.longest));
        let second = rng.random_bool(self.doubled).then(|| rng.random_range(50..=self.longest * 4));
        first.into_iter().chain(second)
    }
}

/// Runs many schedules, on two threads, or the one that `AMPHORA_SEED` names. Returns the sums of what they count.
fn schedules<const N: usize>(default: u64, run: fn(u64) -> [u64; N]) -> [u64; N] {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    if let Some(seed) = number("AMPHORA_SEED") {
        return run(seed);
    }
    let (first, count) = (rand::random::<u64>() >> 1, number("AMPHORA_SCHEDULES").unwrap_or(default));
    let part = move |odd: u64| {
        let mut sums = [0; N];
        for n in 0..count / 2 {
            let seed = first + n * 2 + odd;
            let counts = std::panic::catch_unwind(|| run(seed));
            let counts = counts.unwrap_or_else(|_| panic!("AMPHORA_SEED={seed} repeats this"));
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        sums
    };
    let other = std::thread::spawn(move || part(1));
    let mine = part(0);
    let other = other.join().expect("the other half has said why");
    std::array::from_fn(|n| mine[n] + other[n])
}

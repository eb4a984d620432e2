//! Read leases: for a short time a follower answers reads without asking the leader.
//!
//! A linearizable read on a follower asks the leader how far it must have applied: a round trip for each
//! statement or each few of them. While nobody writes, the answer is always the same. So the leader may add
//! a promise to its answer: *for [`LEASE`] nothing becomes visible anywhere unless you have been told.*
//!
//! ```text
//!   follower   ask ──────────► reads, reads, reads, ask, reads …         recall: asks again for each
//!               │   at, lease ▲                                          ▲         │
//!   leader      └─────────────┘        … quiet …          COMMIT ──► recall        │
//!                                                                        └── told ◄┘──► propose
//! ```
//!
//! **Why it is safe.** A commit is visible somewhere only after its entry was proposed, and before it
//! proposes, the certifier *recalls* the leases: it waits until every holder has said that it gave its own
//! up, or until that has run out. A lease is granted only while no entry is in flight, and together with a
//! timestamp that covers every entry that was; the follower uses it once it has applied that much. So
//! while a lease holds, what its holder has applied is all that anyone can have seen.
//!
//! - *Clocks.* A lease counts for its holder from when it asked, for the leader from when it granted, and a
//!   ninth longer. Only the rate of the clocks matters, as for Raft's own lease.
//! - *Other leaders.* A lease ends within the leader's own (`lease_is_valid_for`), so no other node can have
//!   been elected while it holds. Before leadership is handed over, which waits for no lease, all have to have
//!   run out ([`Granted::suspend`]).
//! - *Messages that overtake each other.* Grants are numbered in rounds, a recall names the round it ends;
//!   a grant of such a round that arrives late is worth nothing.
//! - *An entry whose fate is not known* may become visible at any time: no lease is granted any more.
//!
//! **What it costs writers.** The first commit after a while without any ([`QUIET`]) waits for one round
//! trip to whoever reads on a follower, the others not at all: leases are not granted again before it is
//! quiet. A holder that has died delays one commit by what is left of its lease.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::types::LeaderId;
use crate::NodeId;

/// How long a follower may rely on a lease after it has asked for it.
pub const LEASE: Duration = Duration::from_millis(30);
/// How long the leader takes it to hold: a ninth is for clocks that do not run equally fast.
pub const GRANTED: Duration = Duration::from_micros(33_334);
/// No lease is granted before nobody has written for so long.
pub const QUIET: Duration = Duration::from_millis(100);
/// A lease that ends so soon is renewed before it does.
const RENEW: Duration = Duration::from_millis(12);
/// Nodes that hold leases at a time, at most.
const MAX_HOLDERS: usize = 64;

/// True if a leader that a quorum acknowledged so long ago still leads for `time`, whoever else wants to: its
/// followers vote for nobody before `election` is over. A tenth is left for clocks that do not run equally fast.
pub fn leads_for(acked_ago: Duration, time: Duration, election: Duration) -> bool {
    acked_ago + time < election * 9 / 10
}

/// A lease as it is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// By which leadership
    pub leader: LeaderId,
    /// In which of its rounds
    pub round: u64,
}

/// What the leader has granted. Lives as long as its tenure.
pub struct Granted {
    leader: LeaderId,
    state: Mutex<State>,
}

struct State {
    round: u64,
    /// Who holds leases of this round, and until when
    holders: SmallVec<[(NodeId, Instant); 8]>,
    /// Entries proposed whose fate is not known
    writing: usize,
    quiet_at: Instant,
    /// When the last of all leases ever granted will have run out, recalled or not
    last: Option<Instant>,
    closed: bool,
    /// Leadership is being handed over
    suspended: bool,
}

/// Leases that must be given up before an entry is proposed.
#[derive(Debug, PartialEq, Eq)]
pub struct Recall {
    /// What the holders are told
    pub lease: Lease,
    /// Who they are, and when they need not be waited for any more
    pub holders: SmallVec<[(NodeId, Instant); 8]>,
}

impl Granted {
    /// Nothing yet.
    pub fn new(leader: LeaderId, now: Instant) -> Granted {
        let state = State {
            round: 1,
            holders: SmallVec::new(),
            writing: 0,
            quiet_at: now + QUIET,
            last: None,
            closed: false,
            suspended: false,
        };
        Granted { leader, state: Mutex::new(state) }
    }

    /// Grants a lease, if it is quiet. The caller has made sure that this node leads for [`GRANTED`] at
    /// least, and reads the timestamp that goes with it afterwards.
    pub fn grant(&self, now: Instant, node: NodeId) -> Option<Lease> {
        let mut state = self.state.lock();
        if state.closed || state.suspended || state.writing > 0 || now < state.quiet_at {
            return None;
        }
        let until = now + GRANTED;
        match state.holders.iter_mut().find(|(holder, _)| *holder == node) {
            Some((_, known)) => *known = until,
            None => {
                state.holders.retain(|(_, until)| *until > now);
                if state.holders.len() >= MAX_HOLDERS {
                    return None;
                }
                state.holders.push((node, until));
            }
        }
        state.last = state.last.max(Some(until));
        Some(Lease { leader: self.leader, round: state.round })
    }

    /// An entry is about to be proposed: from here on nothing is granted until it has
    /// [ended](Granted::end_write). It may be proposed when what is returned has been recalled.
    pub fn begin_write(&self, now: Instant) -> Option<Recall> {
        let mut state = self.state.lock();
        state.writing += 1;
        state.quiet_at = now + QUIET;
        if state.holders.is_empty() {
            return None;
        }
        let mut holders = std::mem::take(&mut state.holders);
        holders.retain(|(_, until)| *until > now);
        let lease = Lease { leader: self.leader, round: state.round };
        state.round += 1;
        (!holders.is_empty()).then_some(Recall { lease, holders })
    }

    /// Entries proposed, or about to be, whose fate is not known.
    #[cfg(test)]
    pub fn writing(&self) -> usize {
        self.state.lock().writing
    }

    /// An entry is applied here, or certainly never will be anywhere; if not, it is not `known`.
    pub fn end_write(&self, known: bool) {
        let mut state = self.state.lock();
        state.writing = state.writing.saturating_sub(1);
        state.closed |= !known;
    }

    /// Grants nothing until [`resume`](Granted::resume). Returns when the last lease will have run out: one that
    /// is being recalled counts, since its holder may not have heard of it yet.
    pub fn suspend(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        state.suspended = true;
        state.last
    }

    /// Leadership was not handed over after all.
    pub fn resume(&self) {
        self.state.lock().suspended = false;
    }
}

/// What this node holds, as a follower. Reading it takes no lock.
pub struct Held {
    origin: Instant,
    /// In nanoseconds since `origin`; 0 for none
    until: AtomicU64,
    /// The newest recall
    recalled: Mutex<Option<Lease>>,
}

/// How a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is none: ask
    None,
    /// It holds
    Holds,
    /// It holds, and should be renewed
    Ending,
}

impl Default for Held {
    fn default() -> Held {
        Held::since(Instant::now())
    }
}

impl Held {
    /// Nothing yet; all moments that it is told of come after `origin`.
    pub fn since(origin: Instant) -> Held {
        Held { origin, until: AtomicU64::new(0), recalled: Mutex::default() }
    }

    fn nanos(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.origin).as_nanos() as u64
    }

    /// How this node's lease stands.
    pub fn standing(&self) -> Standing {
        self.standing_at(Instant::now())
    }

    /// How it stands at a moment.
    pub fn standing_at(&self, now: Instant) -> Standing {
        let until = self.until.load(Ordering::Acquire);
        if until == 0 {
            return Standing::None;
        }
        match until.checked_sub(self.nanos(now)) {
            None | Some(0) => Standing::None,
            Some(left) if left < RENEW.as_nanos() as u64 => Standing::Ending,
            Some(_) => Standing::Holds,
        }
    }

    /// Takes a lease that was asked for at `asked`, once all that came with it is applied here.
    pub fn take(&self, lease: Lease, asked: Instant) {
        let recalled = self.recalled.lock();
        let void = recalled.is_some_and(|recalled| {
            lease.leader.term < recalled.leader.term
                || (lease.leader == recalled.leader && lease.round <= recalled.round)
        });
        if !void {
            self.until.fetch_max(self.nanos(asked + LEASE), Ordering::AcqRel);
        }
    }

    /// Gives the lease up. When this has returned no statement that begins relies on it.
    pub fn recall(&self, lease: Lease) {
        let mut recalled = self.recalled.lock();
        let newer = recalled.is_none_or(|known| {
            lease.leader.term > known.leader.term
                || (lease.leader == known.leader && lease.round > known.round)
        });
        if newer {
            *recalled = Some(lease);
        }
        self.until.store(0, Ordering::Release);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn leader(term: u64) -> LeaderId {
        LeaderId { term, node_id: 1 }
    }

    fn quiet() -> (Granted, Instant) {
        let now = Instant::now();
        (Granted::new(leader(1), now), now + QUIET)
    }

    #[test]
    fn a_write_recalls_what_has_not_run_out_and_ends_the_granting() {
        let (granted, now) = quiet();
        assert_eq!(granted.grant(now - Duration::from_millis(1), 2), None, "not quiet for long enough");
        let first = granted.grant(now, 2).unwrap();
        let later = now + LEASE / 2;
        assert_eq!(granted.grant(later, 3), Some(first), "the same round");
        // Node 2's has run out by then, node 3's has not.
        let write = now + GRANTED;
        let recall = granted.begin_write(write).unwrap();
        assert_eq!(recall.lease, first);
        assert_eq!(recall.holders.as_slice(), [(3, later + GRANTED)]);
        assert_eq!(granted.grant(write + QUIET * 2, 2), None, "an entry is in flight");
        assert_eq!(granted.begin_write(write), None, "nothing is left to recall");
        granted.end_write(true);
        assert_eq!(granted.grant(write + QUIET * 2, 2), None, "another still is");
        granted.end_write(true);
        assert_eq!(granted.grant(write + QUIET / 2, 2), None, "not quiet");
        assert!(granted.grant(write + QUIET, 2).unwrap().round > first.round);
    }

    #[test]
    fn an_entry_of_unknown_fate_and_a_handover_end_it_for_good() {
        let (granted, now) = quiet();
        granted.begin_write(now);
        granted.end_write(false);
        assert_eq!(granted.grant(now + QUIET * 9, 2), None);
        let (granted, now) = quiet();
        granted.grant(now, 2).unwrap();
        granted.begin_write(now).unwrap();
        assert_eq!(granted.suspend(), Some(now + GRANTED), "its recall may be on its way");
        assert_eq!(granted.grant(now + QUIET * 9, 2), None);
        granted.end_write(true);
        granted.resume();
        assert!(granted.grant(now + QUIET * 9, 2).is_some(), "it leads on");
    }

    #[test]
    fn a_grant_that_its_recall_has_overtaken_is_worth_nothing() {
        let held = Held::default();
        let now = Instant::now();
        let lease = |term, round| Lease { leader: leader(term), round };
        held.take(lease(1, 1), now);
        assert_ne!(held.standing(), Standing::None);
        held.recall(lease(1, 1));
        assert_eq!(held.standing(), Standing::None);
        held.take(lease(1, 1), now);
        assert_eq!(held.standing(), Standing::None);
        held.take(lease(1, 2), now);
        assert_ne!(held.standing(), Standing::None);
        // A new leadership counts its rounds from the beginning, and an old one is over.
        held.recall(lease(2, 7));
        held.take(lease(1, 9), now);
        assert_eq!(held.standing(), Standing::None);
        held.recall(lease(1, 99));
        held.take(lease(2, 7), now);
        assert_eq!(held.standing(), Standing::None);
        held.take(lease(3, 1), now);
        assert_ne!(held.standing(), Standing::None);
    }

    #[test]
    fn a_lease_ends_by_itself_before_the_leader_takes_it_to() {
        let held = Held::default();
        let lease = Lease { leader: leader(1), round: 1 };
        held.take(lease, Instant::now() - LEASE + Duration::from_millis(4));
        assert_eq!(held.standing(), Standing::Ending);
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(held.standing(), Standing::None);
        assert!(GRANTED > LEASE * 10 / 9);
    }
}

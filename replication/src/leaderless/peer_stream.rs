//! One peer as this node sees it, and what to send it next: a state machine without clock, disk or wire.
//!
//! ```text
//!                     ┌─────────── backoff (50 ms, doubling to 2 s) ◄──────── no answer
//!                     ▼                                                           ▲
//!   unknown ──► ask its vector ──► has all of ours? ── no ──► push our own ───────┤
//!                                         │ yes                                   │
//!                                         ▼                                       │
//!                          has all of the others'? ── for 500 ms not, ── relay ───┤
//!                                         │ yes       or the origin is dead       │
//!                                         ▼                                       │
//!                             sleep until new data,                               │
//!                             at most 1.5 s ────────► exchange vectors ───────────┘
//! ```
//!
//! A node sends its own commits to every peer at once, if it has sent nothing for [`PACE`]; else what has
//! gathered when that time is over: a busy node sends larger messages and not more of them, and a peer syncs
//! its disk once for each. Who waits for a write quorum does not wait for that. Another origin's commits it passes on only where the
//! origin itself seems not to manage: the peer still lacks what this node has had for half a second, and
//! said so after that half second. That is the anti-entropy of Demers et al. (1987), with version vectors in
//! place of checksums.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::dots::VersionVector;
use crate::NodeId;

/// How long a peer may lack another origin's commits before this node passes them on.
pub const RELAY_AFTER: Duration = Duration::from_millis(500);
/// Least time between two messages with this node's commits to one peer, while nobody waits for them.
pub const PACE: Duration = Duration::from_millis(10);
/// How often vectors are exchanged when nothing happens.
pub const IDLE_EXCHANGE: Duration = Duration::from_millis(1500);
/// First wait after a failed call.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest wait after failed calls.
pub const BACKOFF_LAST: Duration = Duration::from_secs(2);

/// What to do next for a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the commits of these origins, each from this sequence number on, as many as fit
    Push(Vec<(NodeId, u64)>),
    /// Ask for its vector
    Ask,
    /// Nothing before then, unless there is new data or the peer is heard
    Wait(Instant),
    /// Nothing before then, unless somebody is in a hurry: there is something to send, and soon more
    Gather(Instant),
}

/// What is known of one peer.
#[derive(Debug)]
pub struct PeerStream {
    own: NodeId,
    /// What the peer has on disk, as far as we know; nothing while `heard` is `None`
    acked: VersionVector,
    heard: Option<Instant>,
    failures: u32,
    retry_at: Option<Instant>,
    /// Other origins' commits that the peer seems to lack: since when, and up to which
    lacking: BTreeMap<NodeId, (Instant, u64)>,
    /// The peer waits for commits of any origin
    wanting: bool,
    /// When commits were sent last
    pushed: Option<Instant>,
    /// Someone here waits for the peer to have this node's commits
    hurried: bool,
}

impl PeerStream {
    /// A peer of node `own` of which nothing is known yet.
    pub fn new(own: NodeId) -> PeerStream {
        PeerStream {
            own,
            acked: VersionVector::new(),
            heard: None,
            failures: 0,
            retry_at: None,
            lacking: BTreeMap::new(),
            wanting: false,
            pushed: None,
            hurried: false,
        }
    }

    /// What the peer has on disk, as far as is known.
    pub fn acked(&self) -> &VersionVector {
        &self.acked
    }

    /// When the peer was last heard.
    pub fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// The peer said what it has: an answer, or a message of its own. True if that may be news to the
    /// stream.
    pub fn on_vector(&mut self, now: Instant, vector: &VersionVector) -> bool {
        let news = self.retry_at.is_some() || self.heard.is_none() || !self.acked.covers(vector);
        // Assigned, not joined: a peer that lost its disk has less than it said before.
        self.acked = vector.clone();
        self.heard = Some(now);
        self.failures = 0;
        self.retry_at = None;
        news
    }

    /// The peer waits for what it lacks.
    pub fn on_wanting(&mut self) {
        self.wanting = true;
    }

    /// Someone waits for the peer to have what this node has committed by now.
    pub fn hurry(&mut self) {
        self.hurried = true;
    }

    /// A call to the peer failed, or brought nothing forward.
    pub fn on_failure(&mut self, now: Instant) {
        let wait = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(6)).min(BACKOFF_LAST);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + wait);
    }

    /// What to do now, when this node has `durable` on disk and takes `dead` nodes for dead.
    pub fn next(&mut self, now: Instant, durable: &VersionVector, dead: &BTreeSet<NodeId>) -> Step {
        if let Some(at) = self.retry_at.filter(|at| *at > now) {
            return Step::Wait(at);
        }
        let Some(heard) = self.heard else { return Step::Ask };
        let mut wake = heard + IDLE_EXCHANGE;
        let mut push = Vec::new();
        let mut ask = now >= wake;
        for (origin, have) in durable.iter() {
            let acked = self.acked.get(origin);
            if have <= acked {
                self.lacking.remove(&origin);
                continue;
            }
            if origin == self.own || self.wanting || dead.contains(&origin) {
                push.push((origin, acked + 1));
                continue;
            }
            let (since, up_to) = *self.lacking.entry(origin).or_insert((now, have));
            if acked >= up_to {
                // It gets there by itself; watch what came since.
                self.lacking.insert(origin, (now, have));
                wake = wake.min(now + RELAY_AFTER);
            } else if now < since + RELAY_AFTER {
                wake = wake.min(since + RELAY_AFTER);
            } else if heard < since + RELAY_AFTER {
                // What we know of it is older than our patience.
                ask = true;
            } else {
                push.push((origin, acked + 1));
            }
        }
        if !push.is_empty() {
            let gather = self.pushed.map(|at| at + PACE).filter(|until| *until > now);
            if let Some(until) = gather.filter(|_| !self.hurried && !self.wanting) {
                return Step::Gather(until);
            }
            self.pushed = Some(now);
            self.hurried = false;
            // Its own commits first: no one else sends them.
            push.sort_by_key(|(origin, _)| *origin != self.own);
            return Step::Push(push);
        }
        self.wanting = false;
        if ask { Step::Ask } else { Step::Wait(wake) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn vector(parts: &[(NodeId, u64)]) -> VersionVector {
        parts.iter().copied().collect()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn own_commits_go_at_once_and_in_order() {
        let t = Instant::now();
        let mut peer = PeerStream::new(1);
        let none = BTreeSet::new();
        assert_eq!(peer.next(t, &vector(&[(1, 5)]), &none), Step::Ask);
        peer.on_vector(t, &vector(&[(1, 3)]));
        assert_eq!(peer.next(t, &vector(&[(1, 5)]), &none), Step::Push(vec![(1, 4)]));
        peer.on_vector(t, &vector(&[(1, 5)]));
        assert_eq!(peer.next(t, &vector(&[(1, 5)]), &none), Step::Wait(t + IDLE_EXCHANGE));
        assert_eq!(peer.next(t + IDLE_EXCHANGE, &vector(&[(1, 5)]), &none), Step::Ask);
    }

    #[test]
    fn a_busy_node_gathers_unless_someone_waits() {
        let t = Instant::now();
        let none = BTreeSet::new();
        let mut peer = PeerStream::new(1);
        peer.on_vector(t, &vector(&[]));
        assert_eq!(peer.next(t, &vector(&[(1, 1)]), &none), Step::Push(vec![(1, 1)]));
        peer.on_vector(t, &vector(&[(1, 1)]));
        assert_eq!(peer.next(t + ms(1), &vector(&[(1, 2)]), &none), Step::Gather(t + PACE));
        assert_eq!(peer.next(t + PACE, &vector(&[(1, 7)]), &none), Step::Push(vec![(1, 2)]));
        peer.on_vector(t + PACE, &vector(&[(1, 7)]));
        peer.hurry();
        assert_eq!(peer.next(t + PACE, &vector(&[(1, 8)]), &none), Step::Push(vec![(1, 8)]));
        peer.on_vector(t + PACE, &vector(&[(1, 8)]));
        peer.on_wanting();
        assert_eq!(peer.next(t + PACE, &vector(&[(1, 9)]), &none), Step::Push(vec![(1, 9)]));
    }

    #[test]
    fn others_commits_are_passed_on_only_where_the_peer_still_lacks_them() {
        let t = Instant::now();
        let none = BTreeSet::new();
        let have = vector(&[(1, 1), (2, 7)]);
        let mut peer = PeerStream::new(1);
        peer.on_vector(t, &vector(&[(1, 1), (2, 6)]));
        assert_eq!(peer.next(t, &have, &none), Step::Wait(t + RELAY_AFTER));
        // Half a second later its word is asked, not assumed.
        let later = t + RELAY_AFTER;
        assert_eq!(peer.next(later, &have, &none), Step::Ask);
        peer.on_vector(later, &vector(&[(1, 1), (2, 6)]));
        assert_eq!(peer.next(later, &have, &none), Step::Push(vec![(2, 7)]));
        peer.on_vector(later, &have);
        assert_eq!(peer.next(later, &have, &none), Step::Wait(later + IDLE_EXCHANGE));
    }

    #[test]
    fn a_dead_origins_commits_and_a_wanting_peers_are_passed_on_at_once() {
        let t = Instant::now();
        let have = vector(&[(1, 1), (2, 7)]);
        let mut peer = PeerStream::new(1);
        peer.on_vector(t, &vector(&[(1, 1)]));
        assert_eq!(peer.next(t, &have, &BTreeSet::from([2])), Step::Push(vec![(2, 1)]));
        peer.on_wanting();
        assert_eq!(peer.next(t, &have, &BTreeSet::new()), Step::Push(vec![(2, 1)]));
    }

    #[test]
    fn failures_back_off_and_a_word_from_the_peer_ends_that() {
        let mut t = Instant::now();
        let have = vector(&[(1, 1)]);
        let none = BTreeSet::new();
        let mut peer = PeerStream::new(1);
        let mut waits = Vec::new();
        for _ in 0..8 {
            peer.on_failure(t);
            let Step::Wait(at) = peer.next(t, &have, &none) else { panic!("no backoff") };
            waits.push(at - t);
            t = at;
        }
        assert_eq!(waits[..3], [ms(50), ms(100), ms(200)]);
        assert_eq!(waits[7], BACKOFF_LAST);
        peer.on_failure(t);
        assert!(peer.on_vector(t, &vector(&[])));
        assert_eq!(peer.next(t, &have, &none), Step::Push(vec![(1, 1)]));
    }
}

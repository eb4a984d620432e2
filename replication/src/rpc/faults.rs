//! A switch that cuts this node off from chosen peers, as a broken network would, or puts them far away.
//!
//! Tests and the partition demonstration use it where they cannot change the machine's network. A cut
//! works in both directions at this end: nothing is sent, and nothing that arrives is let in, replies to
//! calls already under way included. A delay is added to each call to a peer, so that there and back takes that much longer;
//! gossip's datagrams are not delayed. While nothing is cut or delayed it costs one relaxed load a call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::NodeId;

/// Which peers this node is cut off from, and which are far away.
#[derive(Debug, Default)]
pub struct Faults {
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cut: BTreeSet<NodeId>,
    delays: BTreeMap<NodeId, Duration>,
}

impl Faults {
    /// Nothing is cut.
    pub fn new() -> Faults {
        Faults::default()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        self.any.store(!state.cut.is_empty() || !state.delays.is_empty(), Ordering::Release);
    }

    /// Cuts this node off from a peer.
    pub fn cut(&self, peer: NodeId) {
        self.change(|state| {
            state.cut.insert(peer);
        });
    }

    /// Joins what was cut.
    pub fn heal(&self, peer: NodeId) {
        self.change(|state| {
            state.cut.remove(&peer);
        });
    }

    /// Joins all that was cut.
    pub fn heal_all(&self) {
        self.change(|state| state.cut.clear());
    }

    /// Adds this much to each call to these peers, and nothing to calls to others.
    pub fn delay(&self, delays: BTreeMap<NodeId, Duration>) {
        self.change(|state| state.delays = delays);
    }

    /// What is added to a call to the peer.
    pub fn delay_to(&self, peer: NodeId) -> Option<Duration> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.state.lock().delays.get(&peer).copied()
    }

    /// True if this node is cut off from the peer.
    pub fn is_cut(&self, peer: NodeId) -> bool {
        self.any.load(Ordering::Acquire) && self.state.lock().cut.contains(&peer)
    }

    /// All peers that this node is cut off from.
    pub fn all(&self) -> Vec<NodeId> {
        self.state.lock().cut.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_and_delays_come_and_go_apart() {
        let faults = Faults::new();
        let far = Duration::from_millis(40);
        faults.delay(BTreeMap::from([(2, far)]));
        faults.cut(3);
        assert_eq!((faults.delay_to(2), faults.delay_to(3)), (Some(far), None));
        assert!(faults.is_cut(3) && !faults.is_cut(2));
        faults.heal_all();
        assert_eq!((faults.delay_to(2), faults.is_cut(3)), (Some(far), false));
        faults.delay(BTreeMap::new());
        assert_eq!(faults.delay_to(2), None);
        assert!(!faults.any.load(Ordering::Acquire));
    }
}

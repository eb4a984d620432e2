//! A switch that cuts this node off from chosen peers, as a broken network would.
//!
//! Tests and the partition demonstration use it where they cannot change the machine's network. A cut
//! works in both directions at this end: nothing is sent, and nothing that arrives is let in, replies to
//! calls already under way included. While nothing is cut it costs one relaxed load a call.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::NodeId;

/// Which peers this node is cut off from.
#[derive(Debug, Default)]
pub struct Faults {
    any: AtomicBool,
    cut: Mutex<BTreeSet<NodeId>>,
}

impl Faults {
    /// Nothing is cut.
    pub fn new() -> Faults {
        Faults::default()
    }

    /// Cuts this node off from a peer.
    pub fn cut(&self, peer: NodeId) {
        let mut cut = self.cut.lock();
        cut.insert(peer);
        self.any.store(true, Ordering::Release);
    }

    /// Joins what was cut.
    pub fn heal(&self, peer: NodeId) {
        let mut cut = self.cut.lock();
        cut.remove(&peer);
        self.any.store(!cut.is_empty(), Ordering::Release);
    }

    /// Joins all that was cut.
    pub fn heal_all(&self) {
        let mut cut = self.cut.lock();
        cut.clear();
        self.any.store(false, Ordering::Release);
    }

    /// True if this node is cut off from the peer.
    pub fn is_cut(&self, peer: NodeId) -> bool {
        self.any.load(Ordering::Acquire) && self.cut.lock().contains(&peer)
    }

    /// All peers that this node is cut off from.
    pub fn all(&self) -> Vec<NodeId> {
        self.cut.lock().iter().copied().collect()
    }
}

//! Ids that no two nodes ever give alike, without asking each other.
//!
//! ```text
//!   62                        22 21       12 11         0
//!  ┌────────────────────────────┬───────────┬────────────┐
//!  │ milliseconds since 2020    │  node id  │  counter   │     bit 63 is 0: the id is positive
//!  └────────────────────────────┴───────────┴────────────┘
//! ```
//!
//! Time comes from the node's hybrid clock, which never goes back and passes, when a node starts, all that
//! it has on disk. A full counter borrows from the next millisecond. 41 bits last until 2089.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amphora_storage::Hlc;

use crate::{Error, NodeId, Result};

/// 2020-01-01T00:00:00Z in milliseconds since 1970.
const EPOCH_MS: u64 = 1_577_836_800_000;
const COUNTER_BITS: u32 = 12;
const NODE_BITS: u32 = 10;

/// The greatest node id there can be.
pub const MAX_NODE_ID: NodeId = (1 << NODE_BITS) - 1;

/// Gives the ids of one node.
#[derive(Debug)]
pub struct UniqueIds {
    node: u64,
    clock: Arc<Hlc>,
    /// Milliseconds and counter of the last id
    last: AtomicU64,
}

impl UniqueIds {
    /// The ids of this node.
    pub fn new(node: NodeId, clock: Arc<Hlc>) -> Result<UniqueIds> {
        if node > MAX_NODE_ID {
            return Err(Error::new("53400", "the cluster has used up its node ids")
                .detail(format!("This node would be node {node}; the greatest id is {MAX_NODE_ID}.")));
        }
        Ok(UniqueIds { node, clock, last: AtomicU64::new(0) })
    }

    /// The next id.
    pub fn next(&self) -> i64 {
        let now = self.clock.now().millis().saturating_sub(EPOCH_MS) << COUNTER_BITS;
        let mut last = self.last.load(Ordering::Relaxed);
        let next = loop {
            let next = now.max(last + 1);
            match self.last.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break next,
                Err(seen) => last = seen,
            }
        };
        let (ms, counter) = (next >> COUNTER_BITS, next & ((1 << COUNTER_BITS) - 1));
        (ms << (COUNTER_BITS + NODE_BITS) | self.node << COUNTER_BITS | counter) as i64
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_and_nodes_never_meet() {
        let clock = Arc::new(Hlc::with_wall(Hlc::DEFAULT_DRIFT, || EPOCH_MS + 7));
        let one = UniqueIds::new(1, clock.clone()).unwrap();
        let last = UniqueIds::new(MAX_NODE_ID, clock.clone()).unwrap();
        let mut previous = 0;
        let mut theirs = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let id = one.next();
            assert!(id > previous);
            previous = id;
            theirs.insert(last.next());
        }
        assert_eq!(theirs.len(), 10_000);
        assert!(theirs.iter().all(|id| *id > 0 && (*id >> COUNTER_BITS) & 0x3ff == MAX_NODE_ID as i64));
        assert!(UniqueIds::new(MAX_NODE_ID + 1, clock).is_err());
    }
}

//! What EXPLAIN ANALYZE measures.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use amphora_storage::Row;
use parking_lot::Mutex;

use super::{Context, Operator};
use crate::error::Result;
use crate::plan::Plan;

/// What one node of a plan did.
#[derive(Debug, Default)]
pub struct NodeStatistics {
    /// How often it was run
    pub loops: AtomicU64,
    /// Rows of all loops
    pub rows: AtomicU64,
    /// Nanoseconds until the first batch, all loops
    pub startup: AtomicU64,
    /// Nanoseconds altogether, all loops
    pub total: AtomicU64,
    /// What the operator has to say of its last loop
    pub notes: Mutex<Vec<(&'static str, String)>>,
}

/// What each node of a plan did, by the node's place in memory: the plan outlives its execution.
#[derive(Debug, Default)]
pub struct Statistics {
    nodes: HashMap<usize, Arc<NodeStatistics>>,
}

impl Statistics {
    /// The statistics of a node, if it was built.
    pub fn of(&self, plan: &Plan) -> Option<&NodeStatistics> {
        self.nodes.get(&address(plan)).map(Arc::as_ref)
    }

    /// The statistics of a node, begun now if it is new.
    pub(super) fn node(&mut self, plan: &Plan) -> Arc<NodeStatistics> {
        self.nodes.entry(address(plan)).or_default().clone()
    }
}

fn address(plan: &Plan) -> usize {
    std::ptr::from_ref(plan) as usize
}

/// An operator that is watched.
pub(super) struct Measured {
    inner: Box<dyn Operator>,
    statistics: Arc<NodeStatistics>,
    started: bool,
}

impl Measured {
    pub(super) fn new(inner: Box<dyn Operator>, statistics: Arc<NodeStatistics>) -> Measured {
        Measured { inner, statistics, started: false }
    }
}

impl Operator for Measured {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        let before = out.len();
        let begin = Instant::now();
        let more = self.inner.next(context, out)?;
        let elapsed = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.statistics.total.fetch_add(elapsed, Relaxed);
        self.statistics.rows.fetch_add((out.len() - before) as u64, Relaxed);
        let first = !self.started;
        if first {
            self.started = true;
            self.statistics.loops.fetch_add(1, Relaxed);
            self.statistics.startup.fetch_add(elapsed, Relaxed);
        }
        if first || !more {
            let notes = self.inner.notes();
            if !notes.is_empty() {
                *self.statistics.notes.lock() = notes;
            }
        }
        Ok(more)
    }

    fn reset(&mut self, context: &Context<'_>) {
        self.started = false;
        self.inner.reset(context);
    }
}

//! Mixed transactions: leaderless operations that ride in Raft entries.
//!
//! The state machine applies an entry's strong writes and these operations in one batch to the store. From the
//! first read of a row to that write it holds the merge lock, as everything does that changes rows.

use std::collections::BTreeSet;

use amphora_storage::store::Batch;
use amphora_storage::{Timestamp, codec};
use parking_lot::MutexGuard;

use super::engine::{Engine, Rows};
use super::messages::GroupOp;
use super::row_state::GroupIndex;
use crate::{Error, Result};

/// Mixed transactions on their way into one batch. They see each other.
///
/// Holds the merge lock until it is dropped, which must be after the batch is written.
pub struct GroupApply<'a> {
    engine: &'a Engine,
    rows: Rows<'a>,
    _lock: MutexGuard<'a, ()>,
}

impl Engine {
    /// Begins to apply mixed transactions.
    pub fn begin_group(&self) -> GroupApply<'_> {
        let lock = self.log.store().merge_lock();
        GroupApply { engine: self, rows: Rows::new(self), _lock: lock }
    }
}

impl GroupApply<'_> {
    /// Joins one transaction's operations (an encoded `Vec<GroupOp>`), the same on every replica.
    ///
    /// `commit` is the transaction's timestamp; transactions of one entry come in its order. Rows that have the
    /// entry already are left as they are.
    pub fn apply(&mut self, log_index: u64, commit: Timestamp, ops: &[u8]) -> Result<()> {
        let ops: Vec<GroupOp> = codec::decode(ops).map_err(|e| {
            Error::new(
                "XX001",
                format!("the leaderless operations of log entry {log_index} cannot be decoded"),
            )
            .detail(e.to_string())
        })?;
        // The batch goes to the store in another's hands: whether it gets there is not known here.
        self.engine.settle_owed()?;
        // What is written here later must win over it.
        self.engine.clock.adopt(commit);
        let at = GroupIndex { log_index, commit };
        // A second operation of this transaction on a row must not take the first for a replay.
        let mut touched = BTreeSet::new();
        for (_, key, op) in &ops {
            let state = self.rows.get(key)?;
            if touched.contains(key.as_slice()) {
                state.group_index = GroupIndex::default();
            } else if state.group_index >= at {
                continue;
            }
            touched.insert(key.as_slice());
            op.apply_group(state, at);
        }
        Ok(())
    }

    /// Adds the joined rows to the batch that also holds the entries' strong writes.
    pub fn stage(&mut self, batch: &mut Batch) {
        self.rows.stage_all(batch);
    }
}

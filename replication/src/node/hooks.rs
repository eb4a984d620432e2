//! Where the Raft group's log meets leaderless rows.
//!
//! The group knows nothing of row states and the leaderless engine nothing of Raft; a mixed transaction
//! and a snapshot concern both, and meet here.

use std::path::Path;

use amphora_storage::store::{Batch, Store};
use amphora_storage::{StorageError, Timestamp};

use crate::Result;
use crate::leaderless::{Engine, GroupApply};
use crate::strong::{ApplyHook, ApplyOps, InstallHook};

impl ApplyHook for Engine {
    fn begin(&self) -> Box<dyn ApplyOps + '_> {
        Box::new(self.begin_group())
    }
}

impl ApplyOps for GroupApply<'_> {
    fn apply(&mut self, log_index: u64, timestamp: Timestamp, ops: &[u8]) -> Result<()> {
        GroupApply::apply(self, log_index, timestamp, ops)
    }

    fn stage(&mut self, batch: &mut Batch) {
        GroupApply::stage(self, batch);
    }
}

impl InstallHook for Engine {
    fn install(&self, _: &Store, directory: &Path) -> std::result::Result<(), StorageError> {
        self.install_checkpoint(directory).map_err(|e| StorageError::Engine(e.to_string()))
    }
}

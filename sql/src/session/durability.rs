//! `synchronous_commit` and `amphora.write_quorum`: what a commit waits for, and what the session's next statement then has to wait for.

use std::time::Instant;

use amphora_replication::{ErrorKind, SynchronousCommit};

use super::statement::interruptible;
use super::{Notice, Session};
use crate::error::{Result, SqlError};

impl Session {
    /// The transaction is about to commit.
    pub(super) fn choose_durability(&mut self) {
        let Some(txn) = self.tx.txn.as_mut().filter(|txn| !txn.is_read_only()) else { return };
        let (when, quorums) = {
            let settings = self.shared.settings.lock();
            let effective = settings.effective();
            (effective.synchronous_commit, effective.quorums)
        };
        txn.set_quorums(quorums);
        if when != SynchronousCommit::On {
            txn.set_synchronous_commit(when);
        }
    }

    /// The transaction has committed.
    pub(super) fn note_durability(&mut self) {
        let Some(txn) = &self.tx.txn else { return };
        if let Some(early) = txn.early_commit() {
            self.early = Some(early);
        }
        let left_out = txn.left_out();
        if !left_out.is_empty() {
            let nodes: Vec<String> = left_out.iter().map(u64::to_string).collect();
            let nodes = nodes.join(", ");
            self.notices.push(Notice::warning(
                "01000",
                format!("the transaction is committed, but not applied yet on these nodes: {nodes}"),
            ));
        }
    }

    /// Waits until the last commit can be read. 57P02 if it has been lost, which is said once.
    pub(super) async fn settle_early(&mut self, deadline: Option<Instant>) -> Result<()> {
        let Some(early) = self.early else { return Ok(()) };
        let (engine, cancel) = (self.shared.engine.clone(), self.shared.cancel.clone());
        let settled: Result<()> = interruptible(&cancel, deadline, engine.settle(early)).await;
        let undecided =
            |error: &SqlError| error.sqlstate == "57014" || error.retry == Some(ErrorKind::Unavailable);
        if !settled.as_ref().is_err_and(undecided) {
            self.early = None;
        }
        settled
    }
}

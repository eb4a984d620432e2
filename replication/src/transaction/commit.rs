//! What a transaction sends when it commits, and when.

use std::collections::BTreeSet;
use std::sync::Arc;

use amphora_storage::schema::{Quorum, TableId};
use amphora_storage::{Timestamp, codec};

use super::locking::{MAX_LOCK_BATCH, table_intent};
use super::{HybridTransaction, buffer};
use crate::api::{LockMode, SynchronousCommit, WaitPolicy};
use crate::error::ErrorKind;
use crate::leaderless;
use crate::strong::{
    CommitRequest, Durability, Expected, KeyLock, LockKey, Staged, StagedParts, TableVersion, Write,
    in_catalog,
};
use crate::{Error, Result};

/// A commit of more bytes goes ahead in parts.
const STAGE_BYTES: usize = 8 << 20;

impl HybridTransaction {
    /// The commit; without the writes of rows if those were `staged`.
    pub(super) fn commit_request(&self, staged: Staged) -> CommitRequest {
        let own_ddl = |id: &TableId| self.ddl.as_ref().is_some_and(|d| d.touches(*id));
        let tables = self.buffer.tables().filter(|(id, _)| !own_ddl(id));
        let expected = |(key, version, mode): (&Arc<[u8]>, Timestamp, LockMode)| Expected {
            key: key.to_vec(),
            version,
            mode,
        };
        let ops: Vec<(TableId, Vec<u8>, leaderless::RowOp)> =
            self.buffer.leaderless_ops().map(|(k, t, op)| (t.id, k.to_vec(), op.clone())).collect();
        CommitRequest {
            id: self.id,
            locked: self.pessimistic,
            expected: if self.pessimistic {
                Vec::new()
            } else {
                self.buffer.expectations().map(expected).collect()
            },
            intents: if self.pessimistic {
                Vec::new()
            } else {
                self.buffer.tables().map(|(id, _)| table_intent(id)).collect()
            },
            tables: tables
                .map(|(id, version)| TableVersion { table: id, key: crate::node::catalog_key(id), version })
                .collect(),
            writes: self
                .buffer
                .strong_writes()
                .filter(|(k, _)| staged.parts == 0 || in_catalog(k))
                .map(write)
                .collect(),
            staged_into: if staged.parts == 0 { Vec::new() } else { self.buffer.keyspaces() },
            staged,
            reads: self.reads.as_ref().map(|reads| reads.lock().to_reads()),
            leaderless: if ops.is_empty() { Vec::new() } else { codec::encode(&ops) },
            clock: self.context.clock.last(),
            durability: Default::default(),
        }
    }

    pub(super) async fn commit_strong(&mut self) -> Result<()> {
        let parts = match self.buffer.bytes_to_commit() > STAGE_BYTES {
            true => Some(self.stage().await?),
            false => None,
        };
        let mut request = self.commit_request(parts.as_ref().map(StagedParts::staged).unwrap_or_default());
        let mixed = !request.leaderless.is_empty();
        let ddl = self.ddl.is_some();
        // What is read on this node at once, and what other statements' plans rest on, is not to be taken back.
        let early = !mixed && !ddl && parts.is_none();
        request.durability = match self.when {
            SynchronousCommit::Local if early => Durability::Leader,
            SynchronousCommit::Off if early => Durability::Queued,
            _ => Durability::Majority,
        };
        let early = request.durability != Durability::Majority;
        let outcome = self.context.group.commit_early(request).await;
        if let Some(parts) = parts
            && outcome.as_ref().err().is_none_or(|e| e.sqlstate == "08007")
        {
            parts.keep();
        }
        let commit = outcome?;
        let timestamp = commit.timestamp;
        self.early = early.then_some(commit);
        self.locks.clear();
        // What was written must be readable on this node at once where reads do not ask the leader:
        // leaderless rows, and the catalog.
        if mixed || ddl {
            self.context.group.wait_applied(timestamp).await;
            self.context.catalog.refresh();
        }
        if ddl {
            Box::pin(self.await_indexes()).await;
        }
        if self.when == SynchronousCommit::RemoteApply {
            // Seldom, and a large future: not a part of every commit's.
            self.left_out = Box::pin(self.context.group.wait_applied_everywhere(timestamp)).await;
        }
        Ok(())
    }

    /// After DDL: this node's indexes of the leaderless tables that were changed are built. Other nodes build theirs
    /// when they learn of them, and nobody waits for that.
    async fn await_indexes(&self) {
        let Some(draft) = &self.ddl else { return };
        for table in draft.catalog().tables().filter(|t| !t.is_strong() && draft.touches(t.id)) {
            self.context.leaderless.indexes_ready(table).await;
        }
    }

    /// Sends the writes of rows ahead of the commit. What the certifier looks at stays: the catalog's.
    pub(super) async fn stage(&mut self) -> Result<StagedParts> {
        self.lock_expected().await?;
        let rows = self.buffer.strong_writes().filter(|(key, _)| !in_catalog(key)).map(write);
        self.context.group.stage(self.id, rows).await
    }

    /// Locks what was only to be compared at commit, and compares it now: what commits in parts must hold
    /// locks from the first to the last.
    pub(super) async fn lock_expected(&mut self) -> Result<()> {
        if self.pessimistic {
            return Ok(());
        }
        let relation = "several tables";
        let intents = self.buffer.tables().map(|(id, _)| table_intent(id));
        let intents = intents.map(|key| LockKey { key, mode: LockMode::Shared }).collect();
        self.request_locks(relation, intents, WaitPolicy::Wait).await?;
        let lock = |(key, version, mode): (&Arc<[u8]>, Timestamp, LockMode)| {
            (LockKey { key: key.to_vec(), mode }, version)
        };
        let expected: Vec<(LockKey, Timestamp)> = self.buffer.expectations().map(lock).collect();
        for batch in expected.chunks(MAX_LOCK_BATCH) {
            let keys = batch.iter().map(|(key, _)| key.clone());
            let replies = self.request_locks(relation, keys.collect(), WaitPolicy::Wait).await?;
            for ((_, version), reply) in batch.iter().zip(&replies) {
                match reply {
                    KeyLock::Granted(newest) if newest == version => {}
                    KeyLock::Granted(newest) => return Err(self.moved(*newest)),
                    KeyLock::Skipped | KeyLock::Moved | KeyLock::Untried => {
                        return Err(Error::new("XX000", "a lock that was waited for was skipped"));
                    }
                }
            }
        }
        self.pessimistic = true;
        Ok(())
    }

    pub(super) async fn commit_leaderless(&mut self) -> Result<()> {
        let ops: Vec<_> = self
            .buffer
            .leaderless_ops()
            .map(|(key, table, op)| (table.clone(), key.to_vec(), op.clone()))
            .collect();
        if ops.is_empty() {
            return Ok(());
        }
        let engine = self.context.leaderless.clone();
        let quorums: BTreeSet<Quorum> =
            ops.iter().map(|(table, ..)| self.quorums.write.unwrap_or(table.write_quorum)).collect();
        for quorum in &quorums {
            engine.check_quorum("write", *quorum)?;
        }
        match engine.commit(ops).await {
            // Another session of this node inserted the same key meanwhile: run the statement again and
            // let it decide (ON CONFLICT, or 23505 with the row in sight).
            Err(e) if e.sqlstate == "23505" && self.options.autocommit => Err(e.kind(ErrorKind::Restart)),
            Err(e) => Err(e),
            // It changed nothing.
            Ok(committed) if committed.seq == 0 => Ok(()),
            Ok(committed) => engine.wait_quorums(committed.seq, &quorums, self.quorums.patience).await,
        }
    }
}

fn write((key, value): (&Arc<[u8]>, &buffer::StrongWrite)) -> Write {
    Write { key: key.to_vec(), value: value.as_ref().map(|v| v.to_vec()) }
}

//! A transaction over both kinds of table.
//!
//! ```text
//!            reads                                   writes
//!   ┌──────────────────────┐            ┌──────────────────────────────┐
//!   │ store, at snapshot   │◄─ overlay ─┤ WriteBuffer                  │
//!   │ (strong: MVCC)       │            │  strong: key → value         │
//!   │ store, merged states │◄─ overlay ─┤  leaderless: row → one RowOp │
//!   │ (leaderless)         │            └──────────────┬───────────────┘
//!   └──────────────────────┘                           │ commit
//!                                  only leaderless ────┤──── any strong
//!                                        ▼                       ▼
//!                                 op log, own fsync       certifier, one Raft entry,
//!                                                         leaderless operations inside
//! ```
//!
//! **Two ways to write a strong row.** A transaction of several statements locks each key on the leader
//! before it buffers the write; the grant carries the key's newest version, and if that is not the
//! version its snapshot shows, a READ COMMITTED statement starts over on a newer snapshot (holding its
//! locks, so it cannot be overtaken again on those keys) and a REPEATABLE READ transaction fails with
//! 40001. A transaction of one statement skips the round trip: it notes the version of every key it
//! touches, and the certifier compares. If that fails it becomes a locking one and starts over.
//!
//! **Invariant.** At commit, for every key in the strong buffer except entries of non-unique indexes
//! (which the lock of their row covers), either this transaction holds the exclusive lock of the key, or of
//! its whole table, since before it compared versions, or the key is among the expectations. So the certifier's answer "yes"
//! means that nothing the writes were computed from has moved.

mod buffer;
mod ddl;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod ddl_tests;
mod leaderless_rows;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod pick_tests;
mod references;
mod scan;
mod sequences;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod serializable_tests;
mod strong_rows;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use amphora_storage::schema::{Catalog, Descriptor, IndexId, SequenceState, Table, TableId};
use amphora_storage::store::Store;
use amphora_storage::{Datum, Hlc, Row, Timestamp, codec, key};
use async_trait::async_trait;
use parking_lot::Mutex;

use crate::api::{
    Access, InsertOutcome, IsolationLevel, LockMode, OnConflict, RowLock, RowStream, SavepointId, Scan,
    Sequences, StoredRow, Transaction, TransactionOptions, WaitPolicy,
};
use crate::error::ErrorKind;
use crate::leaderless;
use crate::node::{CatalogCache, UniqueIds};
use crate::strong::{
    CommitRequest, Expected, Group, KeyLock, LockKey, LockRequest, Pick, ReadSet, SnapshotHold, Staged,
    StagedParts, TableVersion, TransactionId, Write, in_catalog,
};
use crate::{Error, Result};

use buffer::WriteBuffer;

/// What transactions of one node share.
pub struct TransactionContext {
    /// Data
    pub store: Arc<Store>,
    /// The Raft group
    pub group: Group,
    /// The leaderless engine
    pub leaderless: Arc<leaderless::Engine>,
    /// The newest applied catalog
    pub catalog: Arc<CatalogCache>,
    /// Node-unique ids, for hidden keys
    pub ids: Arc<UniqueIds>,
    /// The node's clock
    pub clock: Arc<Hlc>,
}

/// How long a name that was not found is looked for elsewhere: longer than a failover takes, and no longer
/// than somebody who mistyped it on a node without a quorum should have to wait.
const CATALOG_PATIENCE: Duration = Duration::from_secs(2);

/// A commit of more bytes goes ahead in parts.
const STAGE_BYTES: usize = 8 << 20;

/// After so many keys of one table, and again after as many more, the table itself is tried.
const ESCALATE_EVERY: usize = 16_384;

/// Keys in one request for locks: the leader reads the version of each, and a reply has its deadline.
const MAX_LOCK_BATCH: usize = 4_096;

/// The one implementation of [`Transaction`].
pub struct HybridTransaction {
    context: Arc<TransactionContext>,
    options: TransactionOptions,
    id: TransactionId,
    /// What strong tables are read at; `None` before the first statement that needs it
    snapshot: Option<Arc<SnapshotHold>>,
    /// What it has read, if that is to be certified (SERIALIZABLE, and not READ ONLY)
    reads: Option<Arc<Mutex<ReadSet>>>,
    /// A newer one, at which the rest of the statement checks foreign keys (`references.rs`)
    check: Option<Arc<SnapshotHold>>,
    buffer: WriteBuffer,
    /// What the keys of new rows are looked for at, once that must be newer than what the statement reads:
    /// whoever inserts collides with what is there now, not with what was there when the statement began
    latest: Option<Arc<SnapshotHold>>,
    /// The writes that reads see, while that is not all of them (`hold_reads`)
    held: Option<Box<WriteBuffer>>,
    /// Reads see all writes although they are held
    see_all: bool,
    /// Height of the buffer when the current statement began
    statement: usize,
    /// Savepoints, as heights
    savepoints: Vec<usize>,
    /// Keys locked on the leader
    locks: HashMap<Vec<u8>, LockMode>,
    /// Entries whose reference locks are held, and that were in the store at some moment since
    present: HashSet<Vec<u8>>,
    /// How many keys of each table were locked one by one
    claimed: HashMap<TableId, usize>,
    /// Writes lock first. False only for a single statement that has not yet met a conflict.
    pessimistic: bool,
    /// The catalog with this transaction's own DDL, once there is any
    ddl: Option<ddl::CatalogDraft>,
    /// Made when it is first asked for
    sequences: OnceLock<Arc<sequences::TransactionSequences>>,
    finished: bool,
}

impl HybridTransaction {
    /// A transaction that has done nothing yet.
    pub fn new(context: Arc<TransactionContext>, options: TransactionOptions) -> HybridTransaction {
        let id = context.group.transaction_id();
        HybridTransaction {
            context,
            options,
            id,
            snapshot: None,
            reads: None,
            check: None,
            latest: None,
            buffer: WriteBuffer::default(),
            held: None,
            see_all: false,
            statement: 0,
            savepoints: Vec::new(),
            locks: HashMap::new(),
            present: HashSet::new(),
            claimed: HashMap::new(),
            pessimistic: !options.autocommit,
            ddl: None,
            sequences: OnceLock::new(),
            finished: false,
        }
    }

    /// The own writes that a statement's reads see.
    fn visible(&self) -> &WriteBuffer {
        match &self.held {
            Some(held) if !self.see_all => held,
            _ => &self.buffer,
        }
    }

    fn snapshot(&self) -> Timestamp {
        let snapshot = self.check.as_ref().or(self.snapshot.as_ref());
        snapshot.map_or_else(|| self.context.group.applied_timestamp(), |s| s.at())
    }

    /// What the keys of new rows are looked for at.
    fn latest(&self) -> Timestamp {
        let latest = self.latest.as_ref().map_or(Timestamp::ZERO, |s| s.at());
        latest.max(self.snapshot())
    }

    fn check_writable(&self, what: &str) -> Result<()> {
        if self.options.read_only {
            let message = format!("cannot execute {what} in a read-only transaction");
            return Err(Error::new("25006", message));
        }
        Ok(())
    }

    /// A row that this statement read is not the newest any more: this version is, ZERO if it is gone.
    fn moved(&self, newest: Timestamp) -> Error {
        match self.options.isolation {
            IsolationLevel::ReadCommitted => Error::restart(),
            _ if newest == Timestamp::ZERO => Error::serialization_deleted(),
            IsolationLevel::RepeatableRead | IsolationLevel::Serializable => Error::serialization(),
        }
    }

    /// Makes sure that no one else can commit to these keys before this transaction ends, and that the
    /// versions given (ZERO for a key without a row) are still the newest.
    async fn claim(&mut self, table: &Table, keys: Vec<(Vec<u8>, Timestamp)>, mode: LockMode) -> Result<()> {
        if !self.pessimistic {
            for (key, version) in &keys {
                self.buffer.expect(key, *version, mode);
            }
            return Ok(());
        }
        if self.holds_table(table) {
            return self.compare_here(&keys);
        }
        let granted = self.lock_keys(table, &keys, mode, WaitPolicy::Wait).await?;
        debug_assert!(granted.iter().all(|g| *g));
        if self.has_claimed_many(table, keys.len()) {
            // Seldom, and a large future: not a part of every write's.
            Box::pin(self.escalate(table)).await?;
        }
        Ok(())
    }

    /// True if no one else can write to the table before this transaction ends.
    fn holds_table(&self, table: &Table) -> bool {
        self.locks.get(&table_intent(table.id)) == Some(&LockMode::Exclusive)
    }

    /// With the table to itself, all that was ever committed to it is here: versions are compared without
    /// asking the leader. A snapshot that is newer than the table's lock needs not even that.
    fn compare_here(&self, keys: &[(Vec<u8>, Timestamp)]) -> Result<()> {
        if self.latest.is_none() && self.options.isolation == IsolationLevel::ReadCommitted {
            return Ok(());
        }
        for (key, version) in keys {
            let newest = self.context.store.newest(key)?;
            if newest != *version {
                return Err(self.moved(newest));
            }
        }
        Ok(())
    }

    /// Counts keys that were locked one by one; true each time that another [`ESCALATE_EVERY`] are full.
    fn has_claimed_many(&mut self, table: &Table, keys: usize) -> bool {
        let claimed = self.claimed.entry(table.id).or_default();
        let before = *claimed / ESCALATE_EVERY;
        *claimed += keys;
        *claimed / ESCALATE_EVERY != before
    }

    /// After very many rows of a table it is cheaper for everyone to lock the table than to go on one by
    /// one, if nobody else is writing to it. Whoever wants to write to it then waits for the end of this
    /// transaction.
    async fn escalate(&mut self, table: &Table) -> Result<()> {
        let intent = LockKey { key: table_intent(table.id), mode: LockMode::Exclusive };
        match self.request_locks(&table.name, vec![intent], WaitPolicy::NoWait).await {
            // What was committed before the lock was granted must be here before versions are compared here.
            Ok(_) => self.take_latest().await,
            Err(e) if e.sqlstate == "55P03" => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Locks keys on the leader and compares versions. False where skipped.
    async fn lock_keys(
        &mut self,
        table: &Table,
        keys: &[(Vec<u8>, Timestamp)],
        mode: LockMode,
        wait: WaitPolicy,
    ) -> Result<Vec<bool>> {
        let held =
            |locks: &HashMap<Vec<u8>, LockMode>, key: &[u8]| locks.get(key).is_some_and(|m| *m >= mode);
        let mut wanted: Vec<usize> = (0..keys.len()).filter(|&i| !held(&self.locks, &keys[i].0)).collect();
        let mut seen = std::collections::HashSet::new();
        wanted.retain(|&i| seen.insert(keys[i].0.as_slice()));
        let mut result = vec![true; keys.len()];
        if wanted.is_empty() {
            return Ok(result);
        }
        // The leader takes the keys of one request in their order; so that two large statements do not close
        // a circle, many requests keep it too.
        if wanted.len() > MAX_LOCK_BATCH {
            wanted.sort_unstable_by(|&a, &b| keys[a].0.cmp(&keys[b].0));
        }
        let mut moved = None;
        for wanted in wanted.chunks(MAX_LOCK_BATCH) {
            let request = wanted.iter().map(|&i| LockKey { key: keys[i].0.clone(), mode }).collect();
            let replies = self.request_row_locks(table, request, wait).await?;
            moved = moved.or(self.compare_versions(keys, wanted, &replies, &mut result));
        }
        match moved {
            Some(newest) => Err(self.moved(newest)),
            None => Ok(result),
        }
    }

    /// Locks keys of a table, and the table itself shared, so that whoever wants the table alone (CREATE
    /// INDEX, DROP) waits for its writers.
    async fn request_row_locks(
        &mut self,
        table: &Table,
        mut request: Vec<LockKey>,
        wait: WaitPolicy,
    ) -> Result<Vec<KeyLock>> {
        let intent = LockKey { key: table_intent(table.id), mode: LockMode::Shared };
        if self.locks.contains_key(&intent.key) {
            return self.request_locks(&table.name, request, wait).await;
        }
        request.insert(0, intent.clone());
        let mut replies = self.request_locks(&table.name, request, wait).await?;
        // SKIP LOCKED skips rows, not tables: no row may be written without the table's lock.
        if replies.remove(0) == KeyLock::Skipped {
            self.request_locks(&table.name, vec![intent], WaitPolicy::Wait).await?;
        }
        Ok(replies)
    }

    /// The newest version of the first key that has moved since it was read. Notes in `result` what was skipped.
    fn compare_versions(
        &mut self,
        keys: &[(Vec<u8>, Timestamp)],
        wanted: &[usize],
        replies: &[KeyLock],
        result: &mut [bool],
    ) -> Option<Timestamp> {
        let mut moved = None;
        for (&i, reply) in wanted.iter().zip(replies) {
            match reply {
                KeyLock::Granted(newest) if *newest != keys[i].1 => {
                    moved.get_or_insert(*newest);
                    // The snapshot stays, and so must the refusal, if this is tried again after a savepoint:
                    // what is not known as held is asked for and compared again.
                    if self.options.isolation.has_one_snapshot() {
                        self.locks.remove(&keys[i].0);
                    }
                }
                KeyLock::Granted(_) => {}
                KeyLock::Skipped | KeyLock::Moved | KeyLock::Untried => result[i] = false,
            }
        }
        moved
    }

    async fn request_locks(
        &mut self,
        relation: &str,
        keys: Vec<LockKey>,
        wait: WaitPolicy,
    ) -> Result<Vec<KeyLock>> {
        let request = LockRequest {
            id: self.id,
            keys,
            wait,
            timeout: self.options.lock_timeout,
            relation: relation.to_owned(),
            pick: None,
        };
        self.send_locks(request).await
    }

    async fn send_locks(&mut self, request: LockRequest) -> Result<Vec<KeyLock>> {
        let keys = request.keys.clone();
        let replies = match self.context.group.lock(request).await {
            Err(e) if self.may_start_over(&e) => return Err(self.start_over()),
            replies => replies?,
        };
        for (key, reply) in keys.into_iter().zip(&replies) {
            if matches!(reply, KeyLock::Granted(_)) {
                let mode = self.locks.entry(key.key).or_insert(key.mode);
                *mode = (*mode).max(key.mode);
            }
        }
        Ok(replies)
    }

    /// Locks the first `wanted` of these keys that are free and have not moved.
    async fn pick_keys(
        &mut self,
        table: &Table,
        keys: &[(Vec<u8>, Timestamp)],
        mode: LockMode,
        wanted: usize,
    ) -> Result<Vec<KeyLock>> {
        let intent = table_intent(table.id);
        let request = |tx: &HybridTransaction| LockRequest {
            id: tx.id,
            keys: keys.iter().map(|(key, _)| LockKey { key: key.clone(), mode }).collect(),
            wait: WaitPolicy::Skip,
            timeout: tx.options.lock_timeout,
            relation: table.name.clone(),
            pick: Some(Pick {
                wanted,
                versions: keys.iter().map(|(_, version)| *version).collect(),
                table: intent.clone(),
            }),
        };
        let mut replies = self.send_locks(request(self)).await?;
        if replies.first() == Some(&KeyLock::Untried) && wanted > 0 {
            // SKIP LOCKED skips rows, not tables: whoever has the table alone is waited for.
            let table_lock = LockKey { key: intent.clone(), mode: LockMode::Shared };
            self.request_locks(&table.name, vec![table_lock], WaitPolicy::Wait).await?;
            replies = self.send_locks(request(self)).await?;
        }
        self.locks.entry(intent).or_insert(LockMode::Shared);
        Ok(replies)
    }

    /// True if a single statement can be run again by itself after this error: a row moved, or the leader
    /// that held the locks is gone. A deadlock is told to the client, as PostgreSQL does.
    fn may_start_over(&self, e: &Error) -> bool {
        self.options.autocommit
            && (e.kind == ErrorKind::Restart || (e.kind == ErrorKind::Retry && e.sqlstate == "40001"))
    }

    /// Gives up this attempt. Nothing of it was written, and under its name nothing ever will be: whoever
    /// was asked what became of it may have promised so. The next attempt has a name and locks of its own.
    fn start_over(&mut self) -> Error {
        self.release_locks();
        self.id = self.context.group.transaction_id();
        Error::restart()
    }

    async fn take_snapshot(&mut self) -> Result<()> {
        self.snapshot = self.fresh_snapshot().await?;
        self.check = None;
        self.latest = None;
        // If there was one before, what was read at it counts as read then: DDL takes newer ones.
        let certified = self.options.isolation == IsolationLevel::Serializable && !self.options.read_only;
        if certified && self.reads.is_none() {
            self.reads = Some(Arc::new(Mutex::new(ReadSet::new(self.snapshot()))));
        }
        Ok(())
    }

    /// A snapshot that sees every commit acknowledged, and every lock given back, before the call.
    async fn fresh_snapshot(&self) -> Result<Option<Arc<SnapshotHold>>> {
        let group = &self.context.group;
        let hold = match group.hold_history(group.read_timestamp().await?) {
            // History moved past it meanwhile. The next is newer than that.
            Err(e) if e.sqlstate == "72000" => group.hold_history(group.read_timestamp().await?)?,
            held => held?,
        };
        Ok(Some(hold))
    }

    /// From here on new rows are compared with what is committed now; reads stay where they are.
    async fn take_latest(&mut self) -> Result<()> {
        self.latest = self.fresh_snapshot().await?;
        Ok(())
    }

    /// Keys that were looked up, whether there was a row or not.
    fn note_reads(&self, keys: &[Vec<u8>]) {
        if let Some(reads) = &self.reads {
            let mut reads = reads.lock();
            keys.iter().for_each(|key| reads.add_key(key));
        }
    }

    /// The tables a plan was made with are still those of the catalog.
    fn check_tables(&self, tables: &[Arc<Table>]) -> Result<()> {
        let catalog = self.catalog();
        let current = |t: &Arc<Table>| {
            catalog.table_by_id(t.id).is_some_and(|c| Arc::ptr_eq(c, t) || c.version == t.version)
        };
        if tables.iter().all(current) { Ok(()) } else { Err(Error::catalog_moved()) }
    }

    /// The commit; without the writes of rows if those were `staged`.
    fn commit_request(&self, staged: Staged) -> CommitRequest {
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
        }
    }

    async fn commit_strong(&mut self) -> Result<()> {
        let parts = match self.buffer.bytes_to_commit() > STAGE_BYTES {
            true => Some(self.stage().await?),
            false => None,
        };
        let request = self.commit_request(parts.as_ref().map(StagedParts::staged).unwrap_or_default());
        let mixed = !request.leaderless.is_empty();
        let ddl = self.ddl.is_some();
        let outcome = self.context.group.commit(request).await;
        if let Some(parts) = parts
            && outcome.as_ref().err().is_none_or(|e| e.sqlstate == "08007")
        {
            parts.keep();
        }
        let timestamp = outcome?;
        self.locks.clear();
        // What was written must be readable on this node at once where reads do not ask the leader:
        // leaderless rows, and the catalog.
        if mixed || ddl {
            self.context.group.wait_applied(timestamp).await;
            self.context.catalog.refresh();
        }
        Ok(())
    }

    /// Sends the writes of rows ahead of the commit. What the certifier looks at stays: the catalog's.
    async fn stage(&mut self) -> Result<StagedParts> {
        self.lock_expected().await?;
        let rows = self.buffer.strong_writes().filter(|(key, _)| !in_catalog(key)).map(write);
        self.context.group.stage(self.id, rows).await
    }

    /// Locks what was only to be compared at commit, and compares it now: what commits in parts must hold
    /// locks from the first to the last.
    async fn lock_expected(&mut self) -> Result<()> {
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

    async fn commit_leaderless(&mut self) -> Result<()> {
        let ops: Vec<_> = self
            .buffer
            .leaderless_ops()
            .map(|(key, table, op)| (table.clone(), key.to_vec(), op.clone()))
            .collect();
        if ops.is_empty() {
            return Ok(());
        }
        let outcome = self.context.leaderless.commit(ops).await;
        match outcome {
            // Another session of this node inserted the same key meanwhile: run the statement again and
            // let it decide (ON CONFLICT, or 23505 with the row in sight).
            Err(e) if e.sqlstate == "23505" && self.options.autocommit => Err(e.kind(ErrorKind::Restart)),
            other => other.map(|_| ()),
        }
    }

    fn release_locks(&mut self) {
        self.present.clear();
        self.claimed.clear();
        if !self.locks.is_empty() {
            self.locks.clear();
            self.context.group.release(self.id);
        }
    }
}

fn write((key, value): (&Arc<[u8]>, &buffer::StrongWrite)) -> Write {
    Write { key: key.to_vec(), value: value.as_ref().map(|v| v.to_vec()) }
}

/// The key that stands for a whole table in the lock table. It is no key of any row: rows have an index id
/// and columns after the table's id.
fn table_intent(id: TableId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

#[async_trait]
impl Transaction for HybridTransaction {
    fn catalog(&self) -> Arc<Catalog> {
        match &self.ddl {
            Some(draft) => draft.catalog(),
            None => self.context.catalog.current(),
        }
    }

    async fn refresh_catalog(&mut self) {
        if self.ddl.is_some() {
            return;
        }
        // Without a quorum there is nothing newer to be had: the caller reports what it did not find.
        let latest = self.context.group.read_timestamp();
        if let Ok(Ok(_)) = tokio::time::timeout(CATALOG_PATIENCE, latest).await {
            self.context.catalog.refresh();
        }
    }

    async fn begin_statement(&mut self, access: Access, tables: &[Arc<Table>]) -> Result<()> {
        self.statement = self.buffer.mark();
        self.check = None;
        self.latest = None;
        self.held = None;
        self.see_all = false;
        if access == Access::Strong {
            let keep = self.options.isolation.has_one_snapshot() && self.snapshot.is_some();
            if !keep {
                self.take_snapshot().await?;
            }
            self.context.catalog.refresh();
        }
        self.check_tables(tables)?;
        // A snapshot kept from before a table's last change must not be read through indexes that were
        // filled after it.
        let newer = |t: &Arc<Table>| t.is_strong() && t.version > self.snapshot();
        if access == Access::Strong && tables.iter().any(newer) {
            return Err(Error::serialization());
        }
        // TRUNCATE and its like leave the rows alone and change where they are looked for.
        if let Some(reads) = &self.reads {
            let mut reads = reads.lock();
            tables
                .iter()
                .filter(|t| t.is_strong())
                .for_each(|t| reads.add_key(&crate::node::catalog_key(t.id)));
        }
        Ok(())
    }

    async fn restart_statement(&mut self) -> Result<()> {
        self.undo_statement();
        self.check = None;
        self.pessimistic = true;
        // Only a statement that is a whole transaction is run again at a level that notes what was read.
        self.reads = None;
        if self.snapshot.is_some() {
            self.take_snapshot().await?;
        }
        Ok(())
    }

    fn rollback_statement(&mut self) {
        self.undo_statement();
    }

    fn get(&self, table: &Arc<Table>, key: &[Datum]) -> Result<Option<StoredRow>> {
        let key = key::row_key(table, key)?;
        if table.is_strong() {
            self.note_reads(std::slice::from_ref(&key));
        }
        match table.is_strong() {
            true => self.strong_get_in(self.visible(), table, &key),
            false => self.leaderless_get_in(self.visible(), table, &key),
        }
    }

    fn scan(&self, scan: &Scan) -> Result<Box<dyn RowStream>> {
        scan::open(self, scan)
    }

    fn hold_reads(&mut self, hold: bool) {
        self.held = hold.then(|| Box::new(self.buffer.frozen()));
    }

    fn see_all(&mut self, all: bool) {
        self.see_all = all;
    }

    async fn insert(
        &mut self,
        table: &Arc<Table>,
        mut rows: Vec<Row>,
        on_conflict: OnConflict,
    ) -> Result<Vec<InsertOutcome>> {
        self.check_writable("INSERT")?;
        if table.hidden_key {
            for row in &mut rows {
                row.truncate(table.columns.len() - 1);
                row.push(Datum::Int8(self.context.ids.next()));
            }
        }
        if table.is_strong() {
            self.insert_strong(table, rows, on_conflict).await
        } else {
            self.insert_leaderless(table, rows, &on_conflict)
        }
    }

    async fn update(&mut self, table: &Arc<Table>, changes: Vec<(StoredRow, Row)>) -> Result<()> {
        self.check_writable("UPDATE")?;
        if table.is_strong() {
            self.update_strong(table, changes).await
        } else {
            self.update_leaderless(table, changes)
        }
    }

    async fn delete(&mut self, table: &Arc<Table>, rows: Vec<StoredRow>) -> Result<()> {
        self.check_writable("DELETE")?;
        if table.is_strong() {
            self.delete_strong(table, rows).await
        } else {
            self.delete_leaderless(table, rows)
        }
    }

    async fn lock_rows(
        &mut self,
        table: &Arc<Table>,
        rows: &[StoredRow],
        mode: LockMode,
        wait: WaitPolicy,
    ) -> Result<Vec<bool>> {
        self.check_writable("SELECT FOR UPDATE")?;
        if !table.is_strong() {
            return Ok(vec![true; rows.len()]);
        }
        let mut keys = Vec::with_capacity(rows.len());
        for row in rows {
            keys.push((key::row_key_of(table, &row.row)?, row.version));
        }
        // A row that this transaction wrote itself has no committed version to compare and is locked
        // already, or covered by the certifier.
        let own: Vec<bool> = keys.iter().map(|(k, _)| self.buffer.get(k).is_some()).collect();
        let others: Vec<_> =
            keys.iter().zip(&own).filter(|(_, own)| !**own).map(|(k, _)| k.clone()).collect();
        let mut granted = self.lock_keys(table, &others, mode, wait).await?.into_iter();
        Ok(own.iter().map(|own| *own || granted.next().unwrap_or(false)).collect())
    }

    async fn lock_free_rows(
        &mut self,
        table: &Arc<Table>,
        rows: &[StoredRow],
        mode: LockMode,
        wanted: usize,
    ) -> Result<Vec<RowLock>> {
        self.check_writable("SELECT FOR UPDATE")?;
        let mut result = vec![RowLock::Untried; rows.len()];
        let (mut left, mut tried, mut keys) = (wanted, Vec::new(), Vec::new());
        for (position, row) in rows.iter().enumerate() {
            let key = key::row_key_of(table, &row.row)?;
            let own = !table.is_strong() || self.buffer.get(&key).is_some() || self.holds_table(table);
            if own && left == 0 {
                break;
            }
            if own {
                left -= 1;
                result[position] = RowLock::Locked;
            } else {
                tried.push(position);
                keys.push((key, row.version));
            }
        }
        if keys.is_empty() || left == 0 {
            return Ok(result);
        }
        let replies = self.pick_keys(table, &keys, mode, left).await?;
        if replies.contains(&KeyLock::Moved) && self.options.isolation.has_one_snapshot() {
            return Err(Error::serialization());
        }
        for (position, reply) in tried.into_iter().zip(replies) {
            result[position] = match reply {
                KeyLock::Granted(_) => RowLock::Locked,
                KeyLock::Skipped => RowLock::Skipped,
                KeyLock::Moved => RowLock::Moved,
                KeyLock::Untried => RowLock::Untried,
            };
        }
        Ok(result)
    }

    fn lock_before_writing(&mut self) {
        self.pessimistic |= self.buffer.is_empty();
    }

    fn find_keys(&self, table: &Arc<Table>, index: IndexId, keys: &[Vec<Datum>]) -> Result<Vec<bool>> {
        self.find_entries(table, index, keys)
    }

    async fn hold_keys(
        &mut self,
        parent: &Arc<Table>,
        index: IndexId,
        keys: &[Vec<Datum>],
    ) -> Result<Vec<bool>> {
        self.hold_entries(parent, index, keys).await
    }

    async fn seize_keys(&mut self, parent: &Arc<Table>, index: IndexId, keys: &[Vec<Datum>]) -> Result<()> {
        self.seize_entries(parent, index, keys).await
    }

    fn depend_on(&mut self, table: &Arc<Table>) -> Result<()> {
        self.check_tables(std::slice::from_ref(table))?;
        HybridTransaction::depend_on(self, table);
        Ok(())
    }

    async fn lock_catalog(&mut self) -> Result<()> {
        self.check_writable("DDL")?;
        self.begin_ddl().await
    }

    async fn lock_table(&mut self, table: &Arc<Table>) -> Result<()> {
        self.pessimistic = true;
        let key = LockKey { key: table_intent(table.id), mode: LockMode::Exclusive };
        self.request_locks(&table.name, vec![key], WaitPolicy::Wait).await?;
        self.take_snapshot().await
    }

    async fn try_lock_table(&mut self, table: &Arc<Table>) -> Result<bool> {
        if !table.is_strong() || !self.pessimistic {
            return Ok(false);
        }
        if self.holds_table(table) {
            return Ok(true);
        }
        // A transaction with one snapshot must not see what others committed before the lock was granted.
        if self.options.isolation.has_one_snapshot() {
            return Ok(false);
        }
        let key = LockKey { key: table_intent(table.id), mode: LockMode::Exclusive };
        match self.request_locks(&table.name, vec![key], WaitPolicy::Skip).await?.first() {
            Some(KeyLock::Granted(_)) => self.take_snapshot().await.map(|()| true),
            _ => Ok(false),
        }
    }

    fn allocate_id(&mut self) -> Result<TableId> {
        self.allocate_table_id()
    }

    fn put_object(&mut self, object: Descriptor) -> Result<()> {
        self.put_descriptor(object)
    }

    fn drop_object(&mut self, id: TableId) -> Result<()> {
        self.drop_descriptor(id)
    }

    fn drop_table(&mut self, id: TableId) -> Result<()> {
        self.drop_descriptor(id)
    }

    fn load_rows(&mut self, table: &Arc<Table>, rows: Vec<Row>) -> Result<()> {
        self.load(table, rows)
    }

    async fn write_sequence(&mut self, id: TableId, state: Option<SequenceState>) -> Result<()> {
        self.check_writable("DDL")?;
        self.pessimistic = true;
        self.write_sequence_state(id, state).await
    }

    fn sequences(&self) -> Arc<dyn Sequences> {
        self.own_sequences().clone()
    }

    fn build_index(&mut self, table: &Arc<Table>, index: IndexId) -> Result<()> {
        self.fill_index(table, index)
    }

    fn savepoint(&mut self) -> SavepointId {
        self.savepoints.push(self.buffer.mark());
        SavepointId(self.savepoints.len() - 1)
    }

    fn rollback_to(&mut self, savepoint: SavepointId) -> Result<()> {
        let Some(&mark) = self.savepoints.get(savepoint.0) else {
            return Err(Error::new("3B001", "savepoint does not exist"));
        };
        self.savepoints.truncate(savepoint.0 + 1);
        self.buffer.rollback_to(mark);
        self.forget_undone_sequences();
        self.rebuild_draft()
    }

    fn is_read_only(&self) -> bool {
        self.buffer.is_empty()
    }

    async fn commit(&mut self) -> Result<()> {
        self.settle_sequences()?;
        let outcome = if self.buffer.has_strong() {
            self.commit_strong().await
        } else {
            self.commit_leaderless().await
        };
        match outcome {
            Err(e) if self.may_start_over(&e) => return Err(self.start_over()),
            Err(e) => {
                self.finish();
                return Err(e);
            }
            Ok(()) => {}
        }
        self.finish();
        Ok(())
    }

    async fn rollback(&mut self) {
        self.finish();
    }
}

impl HybridTransaction {
    fn undo_statement(&mut self) {
        self.held = None;
        self.see_all = false;
        self.buffer.rollback_to(self.statement);
        self.forget_undone_sequences();
        if let Err(e) = self.rebuild_draft() {
            // The draft was decodable when it was written.
            tracing::error!("the catalog draft cannot be rebuilt: {e}");
        }
    }

    fn forget_undone_sequences(&mut self) {
        if let Some(sequences) = self.sequences.get() {
            sequences.follow(&self.buffer);
        }
    }

    fn finish(&mut self) {
        self.release_locks();
        self.buffer.clear();
        self.snapshot = None;
        self.reads = None;
        self.check = None;
        self.latest = None;
        self.finished = true;
    }
}

impl Drop for HybridTransaction {
    fn drop(&mut self) {
        if !self.finished {
            self.release_locks();
        }
    }
}

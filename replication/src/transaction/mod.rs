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
mod commit;
mod ddl;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod ddl_tests;
mod leaderless_index;
mod leaderless_rows;
mod locking;
mod memory;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod pick_tests;
mod read_mode;
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

use amphora_storage::schema::{Catalog, Descriptor, IndexId, Quorum, SequenceState, Table, TableId};
use amphora_storage::store::Store;
use amphora_storage::{DataType, Datum, Hlc, Row, Timestamp, key};
use async_trait::async_trait;
use parking_lot::Mutex;

use crate::api::{
    Access, InsertOutcome, IsolationLevel, LockMode, OnConflict, Quorums, ReadMode, RowLock, RowStream,
    SavepointId, Scan, Sequences, StoredRow, SynchronousCommit, Transaction, TransactionOptions, WaitPolicy,
};
use crate::error::ErrorKind;
use crate::leaderless;
use crate::node::{CatalogCache, UniqueIds};
use crate::strong::{EarlyCommit, Group, KeyLock, LockKey, ReadSet, SnapshotHold, TransactionId};
use crate::{Error, NodeId, Result, Token};

pub use memory::{DEFAULT_TRANSACTION_MEMORY, WriteMemory};

use buffer::WriteBuffer;
use locking::table_intent;

/// What transactions of one node share.
pub struct TransactionContext {
    /// Which cluster it is
    pub cluster: uuid::Uuid,
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
    /// Memory for writes that are not committed
    pub memory: Arc<WriteMemory>,
}

/// How long a name that was not found is looked for elsewhere: longer than a failover takes, and no longer
/// than somebody who mistyped it on a node without a quorum should have to wait.
const CATALOG_PATIENCE: Duration = Duration::from_secs(2);

/// The one implementation of [`Transaction`].
pub struct HybridTransaction {
    context: Arc<TransactionContext>,
    options: TransactionOptions,
    id: TransactionId,
    /// How new snapshots are to be, and how new the present one is
    mode: ReadMode,
    taken: ReadMode,
    /// When the commit is acknowledged, and what came of that
    when: SynchronousCommit,
    early: Option<EarlyCommit>,
    left_out: Vec<NodeId>,
    /// Whom leaderless tables wait for
    quorums: Quorums,
    /// What every statement must see
    token: Option<Arc<Token>>,
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
        let buffer = WriteBuffer::within(context.memory.begin(options.write_memory));
        HybridTransaction {
            context,
            options,
            id,
            mode: ReadMode::Linearizable,
            taken: ReadMode::Linearizable,
            when: SynchronousCommit::On,
            early: None,
            left_out: Vec::new(),
            quorums: Quorums::default(),
            token: None,
            snapshot: None,
            reads: None,
            check: None,
            latest: None,
            buffer,
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
        if let ReadMode::AsOf(_) = self.mode {
            let message = format!("cannot execute {what} in a transaction that reads AS OF SYSTEM TIME");
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
        self.taken = ReadMode::Linearizable;
        self.begin_snapshot();
        Ok(())
    }

    fn begin_snapshot(&mut self) {
        self.check = None;
        self.latest = None;
        // If there was one before, what was read at it counts as read then: DDL takes newer ones.
        let certified = self.options.isolation == IsolationLevel::Serializable && !self.options.read_only;
        if certified && self.reads.is_none() {
            self.reads = Some(Arc::new(Mutex::new(ReadSet::new(self.snapshot()))));
        }
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

    fn release_locks(&mut self) {
        self.present.clear();
        self.claimed.clear();
        if !self.locks.is_empty() {
            self.locks.clear();
            self.context.group.release(self.id);
        }
    }
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
        if self.mode != ReadMode::Linearizable {
            return self.context.catalog.refresh();
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
            let chosen = self.mode != ReadMode::Linearizable || self.token.is_some();
            if !keep && chosen {
                // Seldom, and a large future: not a part of every statement's.
                Box::pin(self.take_chosen_snapshot()).await?;
            } else if !keep {
                self.take_snapshot().await?;
            }
            self.context.catalog.refresh();
        }
        if self.token.is_some() && tables.iter().any(|t| !t.is_strong()) {
            Box::pin(self.follow_leaderless()).await?;
        }
        self.check_tables(tables)?;
        if tables.iter().any(|t| !t.is_strong() && self.read_quorum_of(t) != Quorum::ONE) {
            Box::pin(self.ask_read_quorums(tables)).await?;
        }
        if let ReadMode::AsOf(_) = self.taken {
            self.check_past(tables)?;
        }
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

    fn set_read_mode(&mut self, mode: ReadMode) {
        self.mode = mode;
    }

    fn read_mode(&self) -> ReadMode {
        self.taken
    }

    fn follow(&mut self, token: Option<Arc<Token>>) -> Result<()> {
        if let Some(token) = &token
            && token.cluster != self.context.cluster
        {
            return Err(Error::new("22023", "the value of amphora.token is of another cluster"));
        }
        self.token = token;
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

    fn get_columns(&self, table: &Arc<Table>, key: &[Datum], columns: &[usize]) -> Result<Option<Row>> {
        if !table.is_strong() {
            let part = |row: Row| columns.iter().filter_map(|&c| row.get(c).cloned()).collect();
            return Ok(self.get(table, key)?.map(|stored| part(stored.row)));
        }
        let key = key::row_key(table, key)?;
        self.note_reads(std::slice::from_ref(&key));
        self.strong_columns(table, &key, columns)
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

    fn reset_columns(&mut self, table: &Arc<Table>, rows: &[StoredRow], columns: &[usize]) -> Result<()> {
        self.check_writable("UPDATE")?;
        self.reset_leaderless(table, rows, columns)
    }

    fn inspect(
        &self,
        table: &Arc<Table>,
        key: &[Datum],
        column: usize,
        text: &dyn Fn(&Datum, &DataType) -> serde_json::Value,
    ) -> Result<Option<serde_json::Value>> {
        let key = key::row_key(table, key)?;
        let (Some(state), Some(column)) = (self.context.leaderless.state(&key)?, table.columns.get(column))
        else {
            return Ok(None);
        };
        Ok(state.is_visible().then(|| leaderless::inspect::inspect(column, &state, text)))
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

    fn set_synchronous_commit(&mut self, when: SynchronousCommit) {
        self.when = when;
    }

    fn set_quorums(&mut self, quorums: Quorums) {
        self.quorums = quorums;
    }

    fn early_commit(&self) -> Option<EarlyCommit> {
        self.early
    }

    fn left_out(&self) -> &[NodeId] {
        &self.left_out
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

    fn commit_nothing(&mut self) -> bool {
        let nothing = self.buffer.is_empty() && self.sequences.get().is_none();
        if nothing {
            self.finish();
        }
        nothing
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

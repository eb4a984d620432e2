//! What has been applied on this node, and everyone who wants to know of it.
//!
//! Entries are applied in batches, each one storage batch with the write-ahead log off: the Raft log is
//! the log. The position goes into the same batch, so a crash loses data and position together, and the
//! log is replayed from there. Applying is blind (no reads, no decisions but one: see
//! [`CommitBatch::leader`](super::types::CommitBatch)), and applying twice is harmless.

use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use amphora_storage::schema::TableId;
use amphora_storage::store::{Batch, Store};
use amphora_storage::{Hlc, StorageError, Timestamp, codec};
use openraft::EntryPayload;
use openraft::storage::ApplyResponder;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::changes::{Changes, Written};
use super::gaps::Gaps;
use super::history::{History, SnapshotHold};
use super::outcomes::{Outcome, Outcomes};
use super::staging;
use super::types::{
    Applied, Command, CommittedTransaction, Entry, LogId, SnapshotMeta, StoredMembership, TransactionId,
    TypeConfig, Write,
};
use crate::{Error, Result};

/// A storage batch is written when it has grown to this many bytes.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Threads that put a large transaction's rows in their place, at most.
const MAX_UNSTAGING: usize = 4;
/// Bytes of what they write at a time: so small that RocksDB lets several in at once.
const UNSTAGING_BATCH_BYTES: usize = 256 << 10;

/// Applies the leaderless operations that ride in the group's entries.
pub trait ApplyHook: Send + Sync + 'static {
    /// Begins to join operations into rows. No one else changes leaderless rows until the returned value is
    /// dropped, which is after the batch it was staged into is written.
    fn begin(&self) -> Box<dyn ApplyOps + '_>;
}

/// Leaderless operations on their way into one batch. They see each other.
pub trait ApplyOps {
    /// Joins one transaction's operations, as they were in
    /// [`CommitRequest::leaderless`](super::CommitRequest). Rows that have them already stay as they are.
    fn apply(&mut self, log_index: u64, timestamp: Timestamp, ops: &[u8]) -> Result<()>;

    /// Adds the joined rows to the batch that holds the strong writes too.
    fn stage(&mut self, batch: &mut Batch);
}

/// Puts a snapshot in the place of the node's data.
pub trait InstallHook: Send + Sync + 'static {
    /// Replaces the store's data by the checkpoint in `directory`, joined with the leaderless state this
    /// node has.
    fn install(&self, store: &Store, directory: &Path) -> std::result::Result<(), StorageError>;
}

/// A position in the log, with what it means.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Position {
    /// The last entry applied
    pub log_id: Option<LogId>,
    /// The last membership applied; shared, because every commit makes a new position
    pub membership: Arc<StoredMembership>,
    /// The newest commit applied
    pub timestamp: Timestamp,
}

impl Position {
    fn index(&self) -> u64 {
        self.log_id.map_or(0, |l| l.index)
    }
}

/// What has been applied on this node.
pub struct Replica {
    /// The node's data
    pub store: Arc<Store>,
    /// The node's clock; it has passed every commit applied
    pub clock: Arc<Hlc>,
    /// Where snapshots in transit lie
    pub snapshots: PathBuf,
    hook: Arc<dyn ApplyHook>,
    install: Arc<dyn InstallHook>,
    timestamp: AtomicU64,
    applied: watch::Sender<Position>,
    catalog: watch::Sender<Timestamp>,
    outcomes: Mutex<Outcomes>,
    snapshot: Mutex<Option<SnapshotMeta>>,
    /// Timestamps that are being read at, and by how many
    history: Arc<History>,
    changes: Changes,
    /// Where scans find nothing
    pub gaps: Arc<Gaps>,
}

/// True of keys of the catalog's keyspace.
pub fn in_catalog(key: &[u8]) -> bool {
    key.starts_with(&TableId::CATALOG.0.to_be_bytes())
}

pub(super) fn storage_error(e: StorageError) -> Error {
    let error = Error::new(e.sqlstate(), e.to_string());
    match e.hint() {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn load(store: &Store) -> Result<Position> {
    match store.applied().map_err(storage_error)? {
        Some(bytes) => codec::decode(&bytes).map_err(storage_error),
        None => Ok(Position::default()),
    }
}

/// One entry and whom to tell that it is applied.
pub type ToApply = (Entry, Option<ApplyResponder<TypeConfig>>);

/// What one storage batch holds before it is written.
struct Pending<'a> {
    batch: Batch,
    leaderless: Option<Box<dyn ApplyOps + 'a>>,
    leaderless_bytes: usize,
    catalog: Option<Timestamp>,
    changes: Written,
    commits: Vec<(u64, TransactionId, Timestamp)>,
    responders: Vec<(ApplyResponder<TypeConfig>, Applied)>,
}

impl Pending<'_> {
    fn new() -> Self {
        Pending {
            batch: Batch::new(),
            leaderless: None,
            leaderless_bytes: 0,
            catalog: None,
            changes: Written::default(),
            commits: Vec::new(),
            responders: Vec::new(),
        }
    }

    fn bytes(&self) -> usize {
        self.batch.size() + self.leaderless_bytes
    }
}

impl Replica {
    /// Reads from the store how far this node is.
    pub fn open(
        store: Arc<Store>,
        clock: Arc<Hlc>,
        snapshots: PathBuf,
        hook: Arc<dyn ApplyHook>,
        install: Arc<dyn InstallHook>,
    ) -> Result<Arc<Replica>> {
        let failed = |e: io::Error| Error::new("58030", format!("could not prepare {snapshots:?}: {e}"));
        // What is left of transfers of an earlier life is of no use.
        if snapshots.exists() {
            std::fs::remove_dir_all(&snapshots).map_err(failed)?;
        }
        std::fs::create_dir_all(&snapshots).map_err(failed)?;
        let position = load(&store)?;
        clock.adopt(position.timestamp);
        let replica = Replica {
            store,
            clock,
            snapshots,
            hook,
            install,
            timestamp: AtomicU64::new(position.timestamp.0),
            catalog: watch::Sender::new(position.timestamp),
            outcomes: Mutex::new(Outcomes::after(position.index())),
            snapshot: Mutex::new(position.log_id.map(|_| meta_of(&position))),
            applied: watch::Sender::new(position),
            history: Arc::default(),
            changes: Changes::default(),
            gaps: Arc::default(),
        };
        Ok(Arc::new(replica))
    }

    /// The newest commit applied here.
    pub fn applied_timestamp(&self) -> Timestamp {
        Timestamp(self.timestamp.load(Ordering::Acquire))
    }

    /// The last entry applied here.
    pub fn applied_index(&self) -> u64 {
        self.applied.borrow().index()
    }

    /// How far this node is.
    pub fn position(&self) -> Position {
        self.applied.borrow().clone()
    }

    /// Changes with every batch applied.
    pub fn watch_applied(&self) -> watch::Receiver<Position> {
        self.applied.subscribe()
    }

    /// Waits until everything up to a commit is applied here.
    pub async fn wait_applied(&self, timestamp: Timestamp) {
        if self.applied.borrow().timestamp < timestamp {
            // Fails only if the sender is gone, and we have it.
            let _ = self.applied.subscribe().wait_for(|p| p.timestamp >= timestamp).await;
        }
    }

    /// Changes with every applied commit that wrote to the catalog.
    pub fn watch_catalog(&self) -> watch::Receiver<Timestamp> {
        self.catalog.subscribe()
    }

    /// The last applied commit that wrote to the catalog, or an upper bound of it.
    pub fn catalog_version(&self) -> Timestamp {
        *self.catalog.borrow()
    }

    /// The newest version of a key; ZERO if it has no row.
    pub fn newest(&self, key: &[u8]) -> Result<Timestamp> {
        self.store.newest(key).map_err(storage_error)
    }

    /// The newest row of a key.
    pub fn newest_row(&self, key: &[u8]) -> Result<Option<(Timestamp, Vec<u8>)>> {
        let row = self.store.get(key, Timestamp::MAX).map_err(storage_error)?;
        Ok(row.map(|version| (version.ts, version.value)))
    }

    /// Rows of a table that were written since this node started.
    pub fn table_changes(&self, table: TableId) -> u64 {
        self.changes.of(table)
    }

    /// Keeps the versions that a snapshot sees; 72000 if they may be gone.
    pub fn hold_history(&self, at: Timestamp) -> Result<Arc<SnapshotHold>> {
        self.history.register(at)
    }

    /// The oldest timestamp that may be read, as far as snapshots are registered.
    pub fn history_low(&self) -> Timestamp {
        self.history.low()
    }

    /// Gives up versions that no read at or after `wanted` and no running snapshot can see; whatever runs, those
    /// that none at or after `limit` can see.
    pub fn forget_before(&self, wanted: Timestamp, limit: Timestamp) -> Result<()> {
        let newest = self.applied_timestamp();
        let low = self.history.advance(wanted.min(newest), limit.min(newest));
        self.store.advance_history(low).map_err(storage_error)
    }

    /// What became of a transaction that, if it is in the log, is after this index.
    pub fn outcome(&self, id: TransactionId, after: u64) -> Outcome {
        self.outcomes.lock().get(id, after)
    }

    /// Applies entries in order, tells who waits for them.
    pub fn apply(&self, entries: Vec<ToApply>) -> Result<()> {
        let mut position = self.position();
        let mut pending = Pending::new();
        let _applying = self.gaps.begin();
        for (entry, responder) in entries {
            let index = entry.log_id.index;
            let mut result = Applied::Nothing;
            // A snapshot may have brought entries that come again in the log.
            if position.log_id.is_none_or(|applied| applied.index < index) {
                result = match entry.payload {
                    EntryPayload::Blank => Applied::Nothing,
                    EntryPayload::Membership(membership) => {
                        let membership = StoredMembership::new(Some(entry.log_id), membership);
                        position.membership = Arc::new(membership);
                        Applied::Nothing
                    }
                    EntryPayload::Normal(Command::Commit(batch)) => {
                        if batch.leader == entry.log_id.leader_id {
                            for transaction in &batch.transactions {
                                if transaction.staged.parts > 0 {
                                    self.write(std::mem::replace(&mut pending, Pending::new()), &position)?;
                                    self.unstage(&mut pending.batch, transaction)?;
                                }
                                self.add(&mut pending, &mut position, index, transaction)?;
                            }
                            Applied::Committed
                        } else {
                            tracing::info!(index, certified_by = %batch.leader, "commits aborted: their leader was deposed");
                            Applied::Aborted
                        }
                    }
                };
                position.log_id = Some(entry.log_id);
            }
            pending.responders.extend(responder.map(|r| (r, result)));
            if pending.bytes() > MAX_BATCH_BYTES {
                self.write(std::mem::replace(&mut pending, Pending::new()), &position)?;
            }
        }
        self.write(pending, &position)
    }

    /// Puts what a transaction sent ahead at its timestamp: it is written at once, by several threads, and cannot be
    /// read before the position is published. See `staging.rs`.
    fn unstage(&self, batch: &mut Batch, transaction: &CommittedTransaction) -> Result<()> {
        let next = AtomicU32::new(0);
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let helpers = (transaction.staged.parts as usize).min(cores).min(MAX_UNSTAGING) - 1;
        std::thread::scope(|scope| {
            let unstage = || self.unstage_parts(transaction, &next);
            let named = || std::thread::Builder::new().name("unstage".to_owned());
            // With fewer threads than wanted it takes longer.
            let helping: Vec<_> =
                (0..helpers).map_while(|_| named().spawn_scoped(scope, unstage).ok()).collect();
            let own = unstage();
            let panicked =
                || Error::new("XX000", "a thread that applied a large transaction ended abnormally");
            helping.into_iter().fold(own, |all, one| all.and(one.join().unwrap_or_else(|_| Err(panicked()))))
        })?;
        for part in 0..transaction.staged.parts {
            batch.delete_strong(staging::part_key(transaction.id, part), transaction.timestamp);
        }
        Ok(())
    }

    /// One thread's share of the parts: as long as there are some, the next.
    fn unstage_parts(&self, transaction: &CommittedTransaction, next: &AtomicU32) -> Result<()> {
        let timestamp = transaction.timestamp;
        let mut batch = Batch::new();
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= transaction.staged.parts {
                return self.store.write(batch).map_err(storage_error);
            }
            let key = staging::part_key(transaction.id, part);
            let Some((_, bytes)) = self.newest_row(&key)? else {
                let message = format!("part {part} of transaction {} is missing", transaction.id);
                return Err(Error::new("XX001", message));
            };
            let writes = staging::unpack(&bytes)?;
            self.gaps.put(values(&writes));
            for write in writes {
                match &write.value {
                    Some(value) => batch.put_strong(&write.key, timestamp, value),
                    None => batch.delete_strong(&write.key, timestamp),
                }
                if batch.size() > UNSTAGING_BATCH_BYTES {
                    let full = std::mem::replace(&mut batch, Batch::new());
                    self.store.write(full).map_err(storage_error)?;
                }
            }
        }
    }

    fn add<'a>(
        &'a self,
        pending: &mut Pending<'a>,
        position: &mut Position,
        index: u64,
        transaction: &CommittedTransaction,
    ) -> Result<()> {
        let timestamp = transaction.timestamp;
        self.gaps.put(values(&transaction.writes));
        for write in &transaction.writes {
            match &write.value {
                Some(value) => pending.batch.put_strong(&write.key, timestamp, value),
                None => pending.batch.delete_strong(&write.key, timestamp),
            }
            if in_catalog(&write.key) {
                pending.catalog = Some(timestamp);
            }
            pending.changes.add(&write.key);
        }
        if !transaction.leaderless.is_empty() {
            let joining = pending.leaderless.get_or_insert_with(|| self.hook.begin());
            joining.apply(index, timestamp, &transaction.leaderless)?;
            pending.leaderless_bytes += transaction.leaderless.len();
        }
        pending.commits.push((index, transaction.id, timestamp));
        position.timestamp = position.timestamp.max(timestamp);
        Ok(())
    }

    /// Data first, then what tells others of it, last those who wait for exactly this.
    fn write(&self, mut pending: Pending<'_>, position: &Position) -> Result<()> {
        if let Some(joined) = &mut pending.leaderless {
            joined.stage(&mut pending.batch);
        }
        pending.batch.set_applied(codec::encode(position));
        self.store.write(pending.batch).map_err(storage_error)?;
        drop(pending.leaderless);
        {
            let mut outcomes = self.outcomes.lock();
            for (index, id, timestamp) in pending.commits {
                outcomes.note(index, id, timestamp);
            }
        }
        self.changes.add(pending.changes);
        self.publish(position.clone(), pending.catalog);
        for (responder, result) in pending.responders {
            responder.send(result);
        }
        Ok(())
    }

    /// The catalog's change is announced before who waits for the position is woken: whoever has seen a
    /// commit applied finds its catalog too.
    fn publish(&self, position: Position, catalog: Option<Timestamp>) {
        self.clock.adopt(position.timestamp);
        self.timestamp.store(position.timestamp.0, Ordering::Release);
        if let Some(version) = catalog {
            self.catalog.send_replace(version);
        }
        self.applied.send_replace(position);
    }

    /// Flushes the tables: the log up to what is applied now is not needed for a restart any more.
    pub fn flush(&self) -> Result<SnapshotMeta> {
        let position = self.position();
        self.store.flush().map_err(storage_error)?;
        let meta = meta_of(&position);
        *self.snapshot.lock() = Some(meta.clone());
        Ok(meta)
    }

    /// The last entry known to be flushed, as openraft calls it.
    pub fn snapshot(&self) -> Option<SnapshotMeta> {
        self.snapshot.lock().clone()
    }

    /// Links the node's data files into a new directory.
    pub fn checkpoint(&self, directory: &Path) -> io::Result<()> {
        self.store.checkpoint(directory).map(|_| ()).map_err(io::Error::other)
    }

    /// Takes over a checkpoint in the place of the data.
    pub fn install(&self, meta: &SnapshotMeta, directory: &Path) -> Result<()> {
        self.install.install(&self.store, directory).map_err(storage_error)?;
        let position = load(&self.store)?;
        *self.outcomes.lock() = Outcomes::after(position.index());
        self.gaps.clear();
        *self.snapshot.lock() = Some(meta.clone());
        let version = position.timestamp;
        self.publish(position, Some(version));
        Ok(())
    }
}

/// The keys that get values.
fn values(writes: &[Write]) -> impl Iterator<Item = &[u8]> {
    writes.iter().filter(|write| write.value.is_some()).map(|write| write.key.as_slice())
}

fn meta_of(position: &Position) -> SnapshotMeta {
    SnapshotMeta { last_log_id: position.log_id, last_membership: (*position.membership).clone() }
}

//! The data of a node: one RocksDB with five column families.
//!
//! ```text
//!   strong      row and index entries of strong tables, every version under its commit timestamp
//!   leaderless  merge states of leaderless tables              ┐
//!   leaderless_index  entries of their secondary indexes       │ plain: the newest value only
//!   conflicts   losers of concurrent writes                    │
//!   meta        facts of this node                             ┘
//! ```
//!
//! **Versions** are RocksDB's user-defined timestamps, so a read "as of t" is a read option. A version's
//! value begins with its own timestamp as well, because compaction zeroes the timestamps of keys whose
//! history is collected, and the certifier compares them for as long as the row lives.
//!
//! **Durability.** Nothing here has a log of its own, for two logs can replay it: the Raft log what strong
//! tables hold, the op log what leaderless tables hold. The records of how far they have been written into the data
//! ([`Batch::set_applied`], [`Batch::set_joined`]) ride in the same batches, and all families flush atomically, so
//! after a crash data and records agree, at some earlier point. The logs may be purged up to
//! [`Store::durable_applied`] and [`Store::durable_joined`].
//!
//! ```text
//!   Raft log ─ apply ──┐
//!                      ├──► write ──► memtables ──flush──► SST files      the durable records move on
//!   op log ─── join ───┘
//! ```
//!
//! **Replacing everything.** A node that fell too far behind receives a checkpoint and
//! [installs](Store::install) it: a new generation of the database beside the old one, and one rename that
//! decides which of them is the node's data.

mod batch;
mod checkpoint;
mod flush;
mod generation;
mod reclaim;
mod scan;
mod snapshot;
mod view;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard, RwLock};

pub use batch::{Batch, Cf};
pub use scan::{Direction, Entry, PlainEntry, PlainScan, Scan};
pub use snapshot::PlainSnapshot;
pub use view::{Version, View};

use crate::error::{Result, StorageError};
use crate::hlc::Timestamp;
use flush::Flusher;
use generation::{Generation, Layout};

/// How much memory the store takes and how often it flushes.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Blocks of SST files kept in memory, in bytes, for all column families together
    pub block_cache_bytes: usize,
    /// A column family's memtable is flushed when it has this many bytes
    pub write_buffer_bytes: usize,
    /// All memtables together are flushed when they have this many bytes
    pub total_write_buffer_bytes: usize,
    /// Threads for flushes and compactions
    pub background_jobs: i32,
    /// Everything is flushed, and the Raft log may be purged, after this many unlogged bytes …
    pub flush_bytes: u64,
    /// … or after this time, if anything was written
    pub flush_interval: Duration,
}

impl Default for StoreOptions {
    /// About 200 MB when busy, little when idle.
    fn default() -> StoreOptions {
        StoreOptions {
            block_cache_bytes: 48 << 20,
            write_buffer_bytes: 64 << 20,
            total_write_buffer_bytes: 128 << 20,
            background_jobs: 2,
            flush_bytes: 48 << 20,
            flush_interval: Duration::from_secs(60),
        }
    }
}

/// A node's data. Shared, and used from any thread; all calls may touch the disk and block.
pub struct Store {
    shared: Arc<Shared>,
    layout: Layout,
    flusher: Flusher,
    merge: Mutex<()>,
}

/// What the background threads share with the store.
struct Shared {
    current: ArcSwap<Generation>,
    options: StoreOptions,
    /// Held for reading by every write, for writing while a checkpoint takes the data's place.
    swap: RwLock<()>,
    flushed: flush::Progress,
}

impl Store {
    /// Opens the data in a node's data directory, or makes it. The directory's lock is the caller's
    /// ([`DataDir`](crate::data_dir::DataDir)).
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Arc<Store>> {
        let layout = Layout::new(dir);
        let generation = layout.open(&options)?;
        let durable = flush::Frontier::of(&View::new(generation.clone()))?;
        let shared = Arc::new(Shared {
            current: ArcSwap::new(generation),
            options,
            swap: RwLock::new(()),
            flushed: flush::Progress::new(durable),
        });
        Ok(Arc::new(Store {
            flusher: Flusher::start(shared.clone())?,
            merge: Mutex::new(()),
            shared,
            layout,
        }))
    }

    /// The data as it is now, for several reads that must not straddle an [`install`](Store::install).
    pub fn view(&self) -> View {
        self.shared.view()
    }

    /// The newest version of a key at or before `at`.
    pub fn get(&self, key: impl AsRef<[u8]>, at: Timestamp) -> Result<Option<Version>> {
        self.view().get(key, at)
    }

    /// As [`get`](Store::get), of which `read` makes something, without a copy.
    pub fn get_with<T>(
        &self,
        key: impl AsRef<[u8]>,
        at: Timestamp,
        read: impl FnOnce(Timestamp, &[u8]) -> Result<T>,
    ) -> Result<Option<T>> {
        self.view().get_with(key, at, read)
    }

    /// As [`get`](Store::get), for many keys at once; one answer per key, in order.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K], at: Timestamp) -> Result<Vec<Option<Version>>> {
        self.view().multi_get(keys, at)
    }

    /// The commit timestamp of a key's newest version; ZERO if there is none or it is a deletion.
    pub fn newest(&self, key: impl AsRef<[u8]>) -> Result<Timestamp> {
        self.view().newest(key)
    }

    /// The keys of a range that are alive at `at`. The scan owns what it reads: it sees the data of this
    /// moment however long it lives. An empty end is the end of the keyspace.
    pub fn scan(&self, range: Range<Vec<u8>>, at: Timestamp, direction: Direction) -> Result<Scan> {
        self.view().scan(range, at, direction)
    }

    /// As [`scan`](Store::scan), for who reads much and once: what others read stays in memory.
    pub fn scan_once(&self, range: Range<Vec<u8>>, at: Timestamp, direction: Direction) -> Result<Scan> {
        self.view().scan_once(range, at, direction)
    }

    /// A value of a plain column family.
    pub fn get_plain(&self, cf: Cf, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.view().get_plain(cf, key)
    }

    /// As [`scan`](Store::scan), of a plain column family.
    pub fn scan_plain(&self, cf: Cf, range: Range<Vec<u8>>, direction: Direction) -> Result<PlainScan> {
        self.view().scan_plain(cf, range, direction)
    }

    /// The plain column families as they are now, for reads that must agree with each other.
    pub fn plain_snapshot(&self) -> PlainSnapshot {
        self.view().plain_snapshot()
    }

    /// The record of the last batch that [set](Batch::set_applied) one.
    pub fn applied(&self) -> Result<Option<Vec<u8>>> {
        self.view().applied()
    }

    /// The record of the last batch that [set](Batch::set_joined) one.
    pub fn joined(&self) -> Result<Option<Vec<u8>>> {
        self.view().joined()
    }

    /// Writes a batch, atomically and visible at once. Durable only after a [flush](Store::flush).
    pub fn write(&self, batch: Batch) -> Result<()> {
        let bytes = batch.size() as u64;
        {
            let _no_swap = self.shared.swap.read();
            self.shared.current.load().write(&batch)?;
        }
        if self.shared.flushed.wrote(bytes) >= self.shared.options.flush_bytes {
            self.flusher.wake();
        }
        Ok(())
    }

    /// Excludes other read-modify-writes of leaderless states. Never hold it across an await.
    pub fn merge_lock(&self) -> MutexGuard<'_, ()> {
        self.merge.lock()
    }

    /// Flushes all memtables and returns when their contents are durable.
    pub fn flush(&self) -> Result<()> {
        self.shared.flush()
    }

    /// The newest applied record known to be durable: the Raft log may be purged up to it.
    pub fn durable_applied(&self) -> Option<Vec<u8>> {
        self.shared.flushed.durable().applied
    }

    /// The newest joined record known to be durable: the op log may be purged up to it.
    pub fn durable_joined(&self) -> Option<Vec<u8>> {
        self.shared.flushed.durable().joined
    }

    /// Lets versions that no read at or after `low` can see be collected. Reads below `low` fail from now
    /// on with [`StorageError::SnapshotTooOld`]. Never goes back; an older `low` is ignored.
    pub fn advance_history(&self, low: Timestamp) -> Result<()> {
        let _no_swap = self.shared.swap.read();
        self.shared.current.load().advance_history(low)?;
        self.flusher.wake_for_reclaim();
        Ok(())
    }

    /// The oldest timestamp that can be read.
    pub fn history_low(&self) -> Timestamp {
        self.shared.current.load().history_low()
    }

    /// Gives back the space of all strong keys with this prefix, whose table was dropped at `at`. Nothing
    /// is written under the prefix after `at`; history before `at` stays readable until
    /// [`advance_history`](Store::advance_history) passes it, and then goes in the background. Remembered
    /// from the next flush on. [`Batch::drop_strong_prefix`] does the same as part of a batch.
    pub fn drop_table_range(&self, prefix: &[u8], at: Timestamp) -> Result<()> {
        let mut batch = Batch::new();
        batch.drop_strong_prefix(prefix, at);
        self.write(batch)
    }

    /// Reclaims now what the background would reclaim: dropped prefixes whose history has passed. Returns
    /// how many were finished.
    pub fn reclaim_dropped(&self) -> Result<usize> {
        self.shared.reclaim()
    }

    /// Bytes on disk of a range, about.
    pub fn approximate_size(&self, cf: Cf, range: &Range<Vec<u8>>) -> Result<u64> {
        self.shared.current.load().approximate_size(cf, range)
    }

    /// Bytes in memtables, table readers and the block cache, about.
    pub fn memory_usage(&self) -> u64 {
        self.shared.current.load().memory_usage()
    }

    /// The data directory, in which the logs lie beside the database.
    pub fn dir(&self) -> &Path {
        self.layout.dir()
    }

    /// Where the database lies now; it moves with [`install`](Store::install).
    pub fn path(&self) -> PathBuf {
        self.shared.current.load().path().to_owned()
    }
}

impl Shared {
    fn view(&self) -> View {
        View::new(self.current.load_full())
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path()).finish_non_exhaustive()
    }
}

fn start_thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|e| StorageError::Engine(format!("could not start thread {name}: {e}")))
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;

//! The Raft log: a RocksDB of its own, so that its fsyncs and memtables are apart from the data's.
//!
//! Raft counts an entry of this node only once it is on its disk, and a vote likewise. So every change has two
//! moments: when it is *written* (readable, in memory) and when it is *durable* (its callback is called).
//!
//! ```text
//!   append 5,6 ─► written ─┐                                   ┌─► callback 5,6
//!   vote       ─► written ─┼─ queue of actions ─► writer thread ─► ONE flush_wal(true) ─┼─► callback vote
//!   append 7   ─► written ─┘      (bounded)                    └─► callback 7        in this order
//! ```
//!
//! Writing happens under one lock and in the caller's thread: it is an insertion into a memtable and a
//! buffer, a few microseconds, and what `append` has returned from can be read. Durability is the writer
//! thread's: it takes all actions that are queued, makes the write-ahead log durable once, and calls their
//! callbacks in order. A write or fsync that fails is final, because what is on disk is unknown from
//! then on: that error is what every later action and callback gets.

mod sizes;
mod writer;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, Options, ReadOptions, WriteBatch};

use crate::error::{Result, StorageError};
use sizes::Sizes;
use writer::{Action, Writer};

/// Called once what it was given with is durable, or can never be.
pub type Flushed = Box<dyn FnOnce(io::Result<()>) + Send>;

/// How much memory the log takes.
#[derive(Clone, Debug)]
pub struct RaftLogOptions {
    /// Blocks of old entries kept in memory, in bytes
    pub block_cache_bytes: usize,
    /// Newest entries, in bytes; they are also what is read most. A large transaction should fit: who appends
    /// waits for tables that are written out too slowly
    pub write_buffer_bytes: usize,
    /// Actions that may wait for the writer thread; more make the caller wait
    pub queue: usize,
}

impl Default for RaftLogOptions {
    fn default() -> RaftLogOptions {
        RaftLogOptions { block_cache_bytes: 4 << 20, write_buffer_bytes: 64 << 20, queue: 4096 }
    }
}

// Keys: entries under 1 and their index, big endian; single facts under 0 and their name.
const ENTRY: u8 = 1;
const VOTE: &[u8] = b"\0vote";
const COMMITTED: &[u8] = b"\0committed";
const PURGED: &[u8] = b"\0purged";

fn entry_key(index: u64) -> [u8; 9] {
    let mut key = [ENTRY; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The key after all entries.
const AFTER_ENTRIES: [u8; 1] = [ENTRY + 1];

fn index_of(key: &[u8]) -> Option<u64> {
    let (&ENTRY, index) = key.split_first()? else { return None };
    index.try_into().ok().map(u64::from_be_bytes)
}

/// What the log holds, and whether it still can be written. Whoever changes the log holds it.
struct State {
    /// Indexes of the first and the last entry
    bounds: Option<(u64, u64)>,
    failed: Option<StorageError>,
    sizes: Sizes,
}

/// A node's Raft log. Entries, votes and positions are bytes to it. Shared; used from any thread.
pub struct RaftLog {
    inner: Arc<Inner>,
    writer: Writer,
}

/// What the writer thread shares with the log.
struct Inner {
    db: DB,
    state: Mutex<State>,
}

impl Inner {
    /// Remembers the first failure; returns it.
    fn fail(&self, error: StorageError) -> StorageError {
        let mut state = self.state.lock();
        state.failed.get_or_insert(error).clone()
    }

    fn sync(&self) -> Result<()> {
        if let Some(failed) = &self.state.lock().failed {
            return Err(failed.clone());
        }
        self.db.flush_wal(true).map_err(|e| self.fail(e.into()))
    }
}

impl RaftLog {
    /// Opens the log in the folder `raft` of a node's data directory, or makes it.
    pub fn open(dir: &Path, options: RaftLogOptions) -> Result<Arc<RaftLog>> {
        let path = dir.join("raft");
        std::fs::create_dir_all(&path).map_err(|e| StorageError::io("create directory", &path, &e))?;
        let db = DB::open(&database_options(&options), &path).map_err(|e| {
            if e.as_ref().contains("lock hold") || e.as_ref().contains("While lock file") {
                return StorageError::Locked { path: path.clone(), holder: None };
            }
            e.into()
        })?;
        let bounds = bounds(&db)?;
        let everything = rocksdb::Range::new(&[ENTRY], &AFTER_ENTRIES);
        let sizes = Sizes::new(bounds, db.get_approximate_sizes(&[everything]).into_iter().sum());
        let inner = Arc::new(Inner { db, state: Mutex::new(State { bounds, failed: None, sizes }) });
        let writer = Writer::start(inner.clone(), options.queue)?;
        Ok(Arc::new(RaftLog { inner, writer }))
    }

    /// Writes under the lock and queues the action that makes it durable. The order of writes is the order
    /// of callbacks.
    fn change(
        &self,
        done: Flushed,
        action: impl FnOnce(Flushed) -> Action,
        build: impl FnOnce(&mut State, &mut WriteBatch) -> Result<()>,
    ) -> Result<()> {
        self.writer.wait_for_room();
        let mut state = self.inner.state.lock();
        let result = match &state.failed {
            Some(failed) => Err(failed.clone()),
            None => {
                let mut batch = WriteBatch::default();
                let bounds = state.bounds;
                build(&mut state, &mut batch).and_then(|()| {
                    if batch.is_empty() {
                        return Ok(());
                    }
                    self.inner.db.write(batch).map_err(|e| {
                        state.bounds = bounds;
                        let error = StorageError::from(e);
                        state.failed = Some(error.clone());
                        error
                    })
                })
            }
        };
        match result {
            Ok(()) => {
                self.writer.push(action(done));
                Ok(())
            }
            Err(error) => {
                drop(state);
                done(Err(error.clone().into()));
                Err(error)
            }
        }
    }

    /// Appends entries, whose indexes follow each other and the log's last. Readable on return; `done` is
    /// called when they are durable.
    pub fn append(&self, entries: impl IntoIterator<Item = (u64, Vec<u8>)>, done: Flushed) -> Result<()> {
        self.change(done, Action::Append, |state, batch| {
            let mut bounds = state.bounds;
            for (index, bytes) in entries {
                bounds = match bounds {
                    None => Some((index, index)),
                    Some((first, last)) if index == last + 1 => Some((first, index)),
                    Some((_, last)) => {
                        return Err(StorageError::LogGap { expected: last + 1, found: index });
                    }
                };
                state.sizes.append(index, bytes.len() as u64);
                batch.put(entry_key(index), bytes);
            }
            state.bounds = bounds;
            Ok(())
        })
    }

    /// Removes the entries at `from` and after it.
    pub fn truncate(&self, from: u64, done: Flushed) -> Result<()> {
        self.change(done, Action::Truncate, |state, batch| {
            batch.delete_range(&entry_key(from)[..], &AFTER_ENTRIES[..]);
            state.sizes.truncate(from);
            state.bounds = match state.bounds {
                Some((first, last)) if from > first => Some((first, last.min(from - 1))),
                _ => None,
            };
            Ok(())
        })
    }

    /// Removes the entries up to and including `upto` and records what Raft calls the last purged id.
    pub fn purge(&self, upto: u64, purged: &[u8], done: Flushed) -> Result<()> {
        self.change(done, Action::Purge, |state, batch| {
            let after = match upto.checked_add(1) {
                Some(next) => entry_key(next).to_vec(),
                None => AFTER_ENTRIES.to_vec(),
            };
            batch.delete_range(&entry_key(0)[..], &after);
            batch.put(PURGED, purged);
            state.sizes.purge(upto);
            state.bounds = match state.bounds {
                Some((first, last)) if last > upto => Some((first.max(upto + 1), last)),
                _ => None,
            };
            Ok(())
        })
    }

    /// Records this node's vote. It counts only once `done` is called.
    pub fn save_vote(&self, vote: &[u8], done: Flushed) -> Result<()> {
        self.change(done, Action::SaveVote, |_, batch| {
            batch.put(VOTE, vote);
            Ok(())
        })
    }

    /// Records how far the log is known to be committed. A hint for the next start: it becomes durable with
    /// whatever is made durable next.
    pub fn save_committed(&self, committed: &[u8]) -> Result<()> {
        let state = self.inner.state.lock();
        if let Some(failed) = &state.failed {
            return Err(failed.clone());
        }
        Ok(self.inner.db.put(COMMITTED, committed)?)
    }

    /// The entries of a range that exist, in order; it stops early once they hold `max_bytes`, but never
    /// before the first.
    pub fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<(u64, Vec<u8>)>> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        self.visit(range, |index, entry| {
            if !found.is_empty() && bytes + entry.len() > max_bytes {
                return false;
            }
            bytes += entry.len();
            found.push((index, entry.to_vec()));
            true
        })?;
        Ok(found)
    }

    /// Bytes of the entries of a range, as far as they exist; `limit` entries are looked at, at most.
    pub fn size(&self, range: Range<u64>, limit: usize) -> Result<u64> {
        let (mut bytes, mut seen) = (0, 0);
        self.visit(range, |_, entry| {
            bytes += entry.len() as u64;
            seen += 1;
            seen < limit
        })?;
        Ok(bytes)
    }

    /// Bytes of the entries after an index, about. Nothing is read.
    pub fn bytes_after(&self, index: u64) -> u64 {
        self.inner.state.lock().sizes.after(index)
    }

    /// The first of the newest entries that have no more than so many bytes together, about; `None` if all the
    /// log has no more. Nothing is read.
    pub fn first_within(&self, bytes: u64) -> Option<u64> {
        self.inner.state.lock().sizes.first_within(bytes)
    }

    /// Shows the entries of a range that exist, in order, for as long as `visitor` says so.
    fn visit(&self, range: Range<u64>, mut visitor: impl FnMut(u64, &[u8]) -> bool) -> Result<()> {
        let Some((first, last)) = self.inner.state.lock().bounds else { return Ok(()) };
        // Purged entries lie before `first`; to begin there spares the iterator their tombstones.
        let (start, end) = (range.start.max(first), range.end.min(last.saturating_add(1)));
        if start >= end {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(entry_key(end));
        let mut iter = self.inner.db.raw_iterator_opt(options);
        iter.seek(entry_key(start));
        while let Some((key, value)) = iter.item() {
            let index =
                index_of(key).ok_or_else(|| StorageError::corrupt("a raft log entry without an index"))?;
            if !visitor(index, value) {
                return Ok(());
            }
            iter.next();
        }
        Ok(iter.status()?)
    }

    /// One entry.
    pub fn entry(&self, index: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.inner.db.get(entry_key(index))?)
    }

    /// Index of the first entry, if there are any.
    pub fn first(&self) -> Option<u64> {
        self.inner.state.lock().bounds.map(|(first, _)| first)
    }

    /// Index of the last entry, if there are any.
    pub fn last(&self) -> Option<u64> {
        self.inner.state.lock().bounds.map(|(_, last)| last)
    }

    /// The vote as it was saved last.
    pub fn vote(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.inner.db.get(VOTE)?)
    }

    /// The committed position as it was saved last.
    pub fn committed(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.inner.db.get(COMMITTED)?)
    }

    /// What Raft called the last purged id when entries were purged last.
    pub fn purged(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.inner.db.get(PURGED)?)
    }

    /// Resolves once everything written so far is durable.
    pub fn flushed(&self) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let (done, answer) = futures::channel::oneshot::channel();
        let failed = self.change(
            Box::new(move |result| {
                let _ = done.send(result);
            }),
            Action::Sync,
            |_, _| Ok(()),
        );
        async move {
            let closed = || Err(io::Error::from(StorageError::Closed));
            match failed {
                Err(error) => Err(error.into()),
                Ok(()) => answer.await.unwrap_or_else(|_| closed()),
            }
        }
    }
}

impl std::fmt::Debug for RaftLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftLog")
            .field("first", &self.first())
            .field("last", &self.last())
            .finish_non_exhaustive()
    }
}

fn bounds(db: &DB) -> Result<Option<(u64, u64)>> {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound([ENTRY]);
    options.set_iterate_upper_bound(AFTER_ENTRIES);
    let mut iter = db.raw_iterator_opt(options);
    iter.seek_to_first();
    let first = iter.key().and_then(index_of);
    iter.seek_to_last();
    let last = iter.key().and_then(index_of);
    iter.status()?;
    Ok(first.zip(last))
}

/// Old files of the write-ahead log kept to be written over.
const RECYCLED_FILES: usize = 2;

fn database_options(options: &RaftLogOptions) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(options.block_cache_bytes));
    table.set_format_version(6);
    let mut o = Options::default();
    o.create_if_missing(true);
    o.set_block_based_table_factory(&table);
    o.set_manual_wal_flush(true);
    // A file that is written over keeps its size, and its fdatasync waits for no journal of the file system.
    o.set_recycle_log_file_num(RECYCLED_FILES);
    o.set_compression_type(DBCompressionType::Lz4);
    o.set_write_buffer_size(options.write_buffer_bytes);
    o.set_max_write_buffer_number(3);
    o.set_max_background_jobs(2);
    o.set_max_open_files(128);
    o.set_keep_log_file_num(4);
    o.set_max_log_file_size(4 << 20);
    o.set_stats_dump_period_sec(0);
    o
}

#[cfg(test)]
mod tests;

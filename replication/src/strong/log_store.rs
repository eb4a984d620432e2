//! openraft's log, on storage's [`RaftLog`].
//!
//! Storage keeps bytes and syncs them in groups on a thread of its own; here entries become bytes, and the
//! newest entries are also kept as they are, since the next to ask for them are this node's state machine
//! and its followers.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use amphora_storage::codec;
use amphora_storage::raft_log::RaftLog;
use futures::{Stream, TryStreamExt, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend, RaftLogReader};
use parking_lot::Mutex;

use super::early::OnDisk;
use super::replica::storage_error;
use super::types::{Command, Entry, LogId, TypeConfig, Vote};

/// Entries kept in memory, at most.
const CACHE_ENTRIES: usize = 4_096;
/// Their bytes, about, at most.
const CACHE_BYTES: usize = 16 << 20;
/// Bytes read from the log at a time, for a message to a follower or to be applied, about.
const READ_BYTES: usize = 4 << 20;

#[derive(Default)]
struct Cache {
    /// Consecutive, up to the end of the log
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    purged: Option<LogId>,
    last: Option<LogId>,
    vote: Option<Vote>,
}

impl Cache {
    fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|(e, _)| e.log_id.index)
    }

    fn push(&mut self, entry: Entry, bytes: usize) {
        self.last = Some(entry.log_id);
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
        while self.entries.len() > CACHE_ENTRIES || self.bytes > CACHE_BYTES {
            let Some((_, bytes)) = self.entries.pop_front() else { break };
            self.bytes -= bytes;
        }
    }

    fn truncate(&mut self, from: u64) {
        while self.entries.back().is_some_and(|(e, _)| e.log_id.index >= from) {
            if let Some((_, bytes)) = self.entries.pop_back() {
                self.bytes -= bytes;
            }
        }
    }

    fn purge(&mut self, upto: u64) {
        while self.first_index().is_some_and(|first| first <= upto) {
            if let Some((_, bytes)) = self.entries.pop_front() {
                self.bytes -= bytes;
            }
        }
    }

    /// Entries of a range, if its first is here; it stops early before `max_bytes` would be exceeded, but
    /// never before the first.
    fn get(&self, start: u64, end: u64, max_bytes: usize) -> Option<Vec<Entry>> {
        let first = self.first_index()?;
        if start < first {
            return None;
        }
        let (mut found, mut bytes) = (Vec::new(), 0);
        for (entry, size) in self.entries.iter().skip((start - first) as usize) {
            bytes += size;
            if entry.log_id.index >= end || (!found.is_empty() && bytes > max_bytes) {
                break;
            }
            found.push(entry.clone());
        }
        Some(found)
    }
}

/// See the module's text. Clones share everything.
#[derive(Clone)]
pub struct LogStore {
    log: Arc<RaftLog>,
    cache: Arc<Mutex<Cache>>,
}

fn corrupt(e: amphora_storage::StorageError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

/// The first index of a range, and the one after its last.
fn ends(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(i) => *i,
        Bound::Excluded(i) => i.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(i) => i.saturating_add(1),
        Bound::Excluded(i) => *i,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

/// Who waits until an entry is on this disk.
fn on_disk(entry: &Entry) -> Option<Arc<OnDisk>> {
    match &entry.payload {
        EntryPayload::Normal(Command::Commit(batch)) => batch.on_disk.clone(),
        _ => None,
    }
}

impl LogStore {
    /// Reads the log's ends.
    pub fn open(log: Arc<RaftLog>) -> crate::Result<LogStore> {
        let mut cache = Cache::default();
        if let Some(bytes) = log.purged().map_err(storage_error)? {
            cache.purged = Some(codec::decode(&bytes).map_err(storage_error)?);
        }
        if let Some(bytes) = log.vote().map_err(storage_error)? {
            cache.vote = Some(codec::decode(&bytes).map_err(storage_error)?);
        }
        let last = match log.last() {
            Some(index) => log.entry(index).map_err(storage_error)?,
            None => None,
        };
        cache.last = match last {
            Some(bytes) => Some(codec::decode::<Entry>(&bytes).map_err(storage_error)?.log_id),
            None => cache.purged,
        };
        Ok(LogStore { log, cache: Arc::new(Mutex::new(cache)) })
    }

    fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        if start >= end {
            return Ok(entries);
        }
        for (_, bytes) in self.log.read(start..end, max_bytes).map_err(io::Error::other)? {
            entries.push(codec::decode(&bytes).map_err(corrupt)?);
        }
        Ok(entries)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = ends(&range);
        if let Some(entries) = self.cache.lock().get(start, end, usize::MAX) {
            return Ok(entries);
        }
        self.read(start, end, usize::MAX)
    }

    /// What is to be applied, a piece at a time: after a restart that is the log since the last flush.
    async fn entries_stream<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend {
        let (start, end) = ends(&range);
        let pieces = stream::try_unfold((self.clone(), start), move |(mut log, start)| async move {
            let entries = log.limited_get_log_entries(start, end).await?;
            let next = entries.last().map(|last| (last.log_id.index + 1).max(start + 1));
            Ok::<_, io::Error>(next.map(|next| (stream::iter(entries.into_iter().map(Ok)), (log, next))))
        });
        Box::pin(pieces.try_flatten())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        if let Some(entries) = self.cache.lock().get(start, end, READ_BYTES) {
            return Ok(entries);
        }
        self.read(start, end, READ_BYTES)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.cache.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let cache = self.cache.lock();
        Ok(LogState { last_purged_log_id: cache.purged, last_log_id: cache.last })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, saved) = tokio::sync::oneshot::channel();
        let done = Box::new(move |result| drop(done.send(result)));
        self.log.save_vote(&codec::encode(vote), done).map_err(io::Error::other)?;
        saved.await.map_err(io::Error::other)??;
        self.cache.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.log.save_committed(&codec::encode(&committed)).map_err(io::Error::other)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        match self.log.committed().map_err(io::Error::other)? {
            Some(bytes) => codec::decode(&bytes).map_err(corrupt),
            None => Ok(None),
        }
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let encoded: Vec<(u64, Vec<u8>)> =
            entries.iter().map(|e| (e.log_id.index, codec::encode(e))).collect();
        let sizes: Vec<usize> = encoded.iter().map(|(_, bytes)| bytes.len()).collect();
        let waiting: Vec<Arc<OnDisk>> = entries.iter().filter_map(on_disk).collect();
        let written = move |result: io::Result<()>| {
            if result.is_ok() {
                waiting.iter().for_each(|waiting| waiting.written());
            }
            callback.io_completed(result);
        };
        self.log.append(encoded, Box::new(written)).map_err(io::Error::other)?;
        let mut cache = self.cache.lock();
        for (entry, bytes) in entries.into_iter().zip(sizes) {
            cache.push(entry, bytes);
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |l| l.index + 1);
        // What is appended next becomes durable after this, so no one has to wait for it.
        self.log.truncate(from, Box::new(drop)).map_err(io::Error::other)?;
        let mut cache = self.cache.lock();
        cache.truncate(from);
        cache.last = cache.last.min(last);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.log.purge(upto.index, &codec::encode(&upto), Box::new(drop)).map_err(io::Error::other)?;
        let mut cache = self.cache.lock();
        cache.purge(upto.index);
        cache.purged = Some(upto);
        cache.last = cache.last.max(Some(upto));
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::testing::{Cluster, put};
    use super::*;
    use amphora_storage::Timestamp;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_to_be_applied_comes_in_pieces_and_whole() {
        let cluster = Cluster::one().await;
        let group = &cluster.node(1).group;
        let megabyte = "x".repeat(1 << 20);
        for n in 0..20 {
            group.commit(put(group, &n.to_string(), Timestamp::ZERO, &megabyte)).await.unwrap();
        }
        let last = group.status().last_log_index;
        // As after a restart: nothing is in its memory.
        let mut log = LogStore::open(group.inner.raft_log.clone()).unwrap();
        let piece = log.limited_get_log_entries(1, last + 1).await.unwrap();
        assert!(piece.len() < 8, "{} entries of a megabyte at once", piece.len());
        let all: Vec<Entry> = log.entries_stream(1..=last).await.try_collect().await.unwrap();
        let indexes: Vec<u64> = all.iter().map(|entry| entry.log_id.index).collect();
        assert_eq!(indexes, (1..=last).collect::<Vec<_>>());
        let some: Vec<Entry> = log.entries_stream(3..9).await.try_collect().await.unwrap();
        assert_eq!(some, all[2..8]);
    }
}

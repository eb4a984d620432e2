//! What the engine keeps: row states and the vector in the store, commits in a journal.
//!
//! ```text
//!   oplog/       journal of (origin, seq, BatchBody), as its origin encoded it      fsynced in groups
//!      │ joined, at once                                │ after a crash, from the durable joined record on
//!      ▼                                                ▼
//!   leaderless   row key → RowState          joined record: Joined               no log
//! ```
//!
//! The journal is the log of the rows, as the Raft log is that of strong tables: rows and vector are written without a
//! log, and what a crash takes from memory is joined again from the journal. To join twice does no
//! harm, so that it only matters that nothing is left out. Hence four rules:
//!
//! - *A batch goes to the store before it goes to the journal*, but for rows that are [owed](super::hot_rows), and only
//!   if the journal has made room for it; both under the merge lock. What is in the journal is in the rows, here or
//!   owed; what failed is in neither.
//! - *The joined record says no more than the rows in the store hold*: it is written with all that is owed, in one batch.
//! - *A file of the journal is given up* only when its records are in rows that are flushed (the store's durable joined
//!   record covers them) and every member has them.
//! - *A vector that jumps* (after a transfer of rows, which passes by the journal) does so in the journal, after the
//!   rows are flushed. So the records of an origin that follow each other, from the joined record on, are all there.

use std::sync::Arc;
use std::time::Duration;

use amphora_storage::codec;
use amphora_storage::journal::{self, Journal, JournalOptions, Position};
use amphora_storage::store::{Batch, Cf, Direction, PlainEntry, Store, View};
use amphora_storage::{Result as StorageResult, StorageError, Timestamp};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::dots::VersionVector;
use super::indexes;
use super::log_index::LogIndex;
use super::messages::OpBatch;
use super::row_state::RowState;
use super::stored_row::{self, StoredRow};
use crate::{NodeId, Result};

/// Bytes of commits that the log retains although every member has them, so that a peer which lost a little can catch
/// up from the log.
const RETAIN_BYTES: u64 = 64 << 20;

/// How much is kept for members that are away, and how fast they are helped back.
#[derive(Clone, Copy, Debug)]
pub struct OpLogLimits {
    /// Bytes of the log
    pub bytes: u64,
    /// Bytes that it may be beyond twice that, for what is committed until it is truncated
    pub slack: u64,
    /// Its age. What was there when the node started counts from then on
    pub age: Duration,
    /// Bytes a second that a member is sent that has much to catch up with
    pub catch_up_rate: u64,
}

impl Default for OpLogLimits {
    fn default() -> OpLogLimits {
        OpLogLimits {
            bytes: 4 << 30,
            slack: 256 << 20,
            age: Duration::from_secs(7 * 24 * 3600),
            catch_up_rate: 64 << 20,
        }
    }
}

/// Files of the log that are kept to be written over: what a busy node gives up at a time.
const RECYCLED_FILES: usize = 8;

/// The engine's part of the store, and its log.
pub(super) struct OpLog {
    store: Arc<Store>,
    journal: Arc<Journal>,
    index: Mutex<LogIndex>,
}

/// How far the rows are, as it is written with them.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Joined {
    /// All that is joined
    pub(super) vector: VersionVector,
    /// This node's clock then
    pub(super) clock: Timestamp,
}

/// A record of the journal, as it is replayed.
pub(super) enum Record<'a> {
    /// Origin, seq and body
    Commit(NodeId, u64, &'a [u8]),
    /// Everything that this covers was joined in another way
    Covered(VersionVector),
    /// Id and encoding of a conflict that the commits before it led to
    Conflict(i64, &'a [u8]),
}

// Records begin with their kind; a commit's origin and seq follow.
const COMMIT: u8 = 1;
const COVERED: u8 = 2;
const CONFLICT: u8 = 3;
const CONFLICT_HEAD: usize = 9;
const COMMIT_HEAD: usize = 17;

fn commit_head(record: &OpBatch) -> [u8; COMMIT_HEAD] {
    let mut head = [COMMIT; COMMIT_HEAD];
    head[1..9].copy_from_slice(&record.origin.to_le_bytes());
    head[9..].copy_from_slice(&record.seq.to_le_bytes());
    head
}

fn conflict_head(id: i64) -> [u8; CONFLICT_HEAD] {
    let mut head = [CONFLICT; CONFLICT_HEAD];
    head[1..].copy_from_slice(&id.to_le_bytes());
    head
}

fn decode_record(bytes: &[u8]) -> StorageResult<Record<'_>> {
    if let Some((head, body)) = bytes.split_first_chunk::<COMMIT_HEAD>()
        && head[0] == COMMIT
    {
        let number = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        return Ok(Record::Commit(number(1), number(9), body));
    }
    if let Some(([CONFLICT, id @ ..], encoded)) = bytes.split_first_chunk::<CONFLICT_HEAD>() {
        return Ok(Record::Conflict(i64::from_le_bytes(*id), encoded));
    }
    match bytes.split_first() {
        Some((&COVERED, vector)) => Ok(Record::Covered(codec::decode(vector)?)),
        _ => Err(StorageError::corrupt("a record of the op log of no known kind")),
    }
}

fn decode_joined(record: Option<Vec<u8>>) -> StorageResult<Joined> {
    record.map_or_else(|| Ok(Joined::default()), |bytes| codec::decode(&bytes))
}

impl OpLog {
    /// Opens the log. What of it is not in the rows must be [replayed](OpLog::replay) before anything else is done.
    pub(super) fn open(store: Arc<Store>) -> Result<OpLog> {
        let mut index = LogIndex::default();
        let dir = store.dir().join("oplog");
        let options = JournalOptions { recycled: RECYCLED_FILES, ..JournalOptions::default() };
        let journal = Journal::open(&dir, options, |at, bytes| {
            match decode_record(bytes)? {
                Record::Commit(origin, seq, body) => index.note_place(origin, seq, body.len(), at),
                Record::Covered(vector) => index.note_jump(&vector, at),
                // It lies in the file of the commits that led to it.
                Record::Conflict(..) => {}
            }
            Ok(())
        })?;
        Ok(OpLog { store, journal, index: Mutex::new(index) })
    }

    /// Shows all records that the durable joined record may not cover, in their order.
    pub(super) fn replay(&self, mut visit: impl FnMut(Record<'_>) -> Result<()>) -> Result<()> {
        // Files before it hold nothing but what is covered.
        let first = self.index.lock().first_needed(&self.joined()?.vector, 0);
        let Some(segment) = first else { return Ok(()) };
        let mut scan = self.journal.scan(Position { segment, offset: 0 });
        while let Some((_, bytes)) = scan.next()? {
            visit(decode_record(bytes)?)?;
        }
        Ok(())
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn joined(&self) -> Result<Joined> {
        Ok(decode_joined(self.store.joined()?)?)
    }

    pub(super) fn state(&self, key: &[u8]) -> Result<Option<RowState>> {
        match self.store.get_plain(Cf::Leaderless, key)? {
            Some(stored) => stored_row::sound(key, &stored).map(Some),
            None => Ok(None),
        }
    }

    /// The length of what is put.
    pub(super) fn put_state(&self, batch: &mut Batch, key: &[u8], state: &RowState) -> usize {
        let encoded = stored_row::encode(key, state);
        batch.put(Cf::Leaderless, key, &encoded);
        encoded.len()
    }

    /// Writes rows, and that the store has all rows up to there. Under the merge lock.
    pub(super) fn write_joined(&self, mut batch: Batch, joined: &Joined) -> Result<()> {
        batch.set_joined(codec::encode(joined));
        Ok(self.store.write(batch)?)
    }

    /// Writes what commits lead to, and then logs them. Under the merge lock. Nothing is written if there is no room.
    pub(super) fn write(
        &self,
        batch: Batch,
        commits: Vec<OpBatch>,
        conflicts: &[(i64, Vec<u8>)],
    ) -> Result<()> {
        let lengths = commits.iter().map(|commit| COMMIT_HEAD + commit.body.len());
        let more = conflicts.iter().map(|(_, conflict)| CONFLICT_HEAD + conflict.len());
        self.journal.prepare(journal::bytes_of(lengths.chain(more)))?;
        if !batch.is_empty() {
            self.store.write(batch)?;
        }
        let mut index = self.index.lock();
        for commit in commits {
            let at = self.journal.append(&[&commit_head(&commit), &commit.body])?;
            index.note(commit, at);
        }
        for (id, conflict) in conflicts {
            self.journal.append(&[&conflict_head(*id), conflict])?;
        }
        Ok(())
    }

    /// Logs that everything up to a vector is joined, in rows that are flushed. Under the merge lock.
    pub(super) fn write_covered(&self, joined: &Joined) -> Result<()> {
        let record = codec::encode(&joined.vector);
        self.journal.prepare(journal::bytes_of([1 + record.len()]))?;
        self.write_joined(Batch::new(), joined)?;
        let at = self.journal.append(&[&[COVERED], &record])?;
        self.index.lock().note_jump(&joined.vector, at);
        Ok(())
    }

    /// Waits until all that was written is on disk; shared by all who wait at the moment.
    pub(super) async fn sync(&self) -> Result<()> {
        Ok(self.journal.sync().await?)
    }

    /// Consecutive records of an origin from `from` to `to`: at least the first, and no more than `bytes`
    /// if one fits. Empty if the log does not reach back to `from`.
    pub(super) fn read(&self, origin: NodeId, from: u64, to: u64, bytes: usize) -> Result<Vec<OpBatch>> {
        let place = {
            let index = self.index.lock();
            if let Some(found) = index.recent(origin, from, to, bytes) {
                return Ok(found);
            }
            index.place_before(origin, from)
        };
        let Some(place) = place else { return Ok(Vec::new()) };
        let (mut out, mut size): (Vec<OpBatch>, usize) = (Vec::new(), 0);
        let mut scan = self.journal.scan(place);
        while let Some((_, record)) = scan.next()? {
            let Record::Commit(of, seq, body) = decode_record(record)? else { continue };
            if of != origin || seq < from {
                continue;
            }
            if seq != from + out.len() as u64 || seq > to || (!out.is_empty() && size + body.len() > bytes) {
                break;
            }
            size += body.len();
            out.push(OpBatch { origin, seq, body: Bytes::copy_from_slice(body) });
        }
        Ok(out)
    }

    /// Row states after a key, about `bytes` of them; empty at the end.
    pub(super) fn states(&self, after: Option<&[u8]>, bytes: usize) -> Result<Vec<(Vec<u8>, RowState)>> {
        let mut start = after.map(<[u8]>::to_vec).unwrap_or_default();
        if after.is_some() {
            start.push(0);
        }
        let (mut out, mut size) = (Vec::new(), 0);
        let mut scan = self.store.scan_plain(Cf::Leaderless, start..Vec::new(), Direction::Forward)?;
        while let Some(PlainEntry { key, value }) = scan.next()? {
            size += key.len() + value.len();
            out.push((key.to_vec(), stored_row::sound(key, value)?));
            if size >= bytes {
                break;
            }
        }
        Ok(out)
    }

    /// Bytes of all records.
    pub(super) fn bytes(&self) -> u64 {
        self.index.lock().bytes()
    }

    /// The oldest commit of an origin that can be read.
    pub(super) fn first_of(&self, origin: NodeId) -> Option<u64> {
        self.index.lock().first_of(origin)
    }

    /// Gives up the oldest files of the log, of those that flushed rows contain: what `acked` covers, but for the
    /// newest; and beyond the limits all, whoever lacks it. Returns what was given up, by origin.
    pub(super) fn truncate(&self, acked: &VersionVector, limits: &OpLogLimits) -> Result<VersionVector> {
        self.truncate_to(acked, RETAIN_BYTES.min(limits.bytes), limits)
    }

    /// The same, as long as `retain` bytes stay.
    pub(super) fn truncate_to(
        &self,
        acked: &VersionVector,
        retain: u64,
        limits: &OpLogLimits,
    ) -> Result<VersionVector> {
        let flushed = decode_joined(self.store.durable_joined())?.vector;
        let mut covered = flushed.clone();
        covered.meet(acked);
        let active = self.journal.active_segment();
        let mut index = self.index.lock();
        let wanted = index.first_needed(&covered, retain).unwrap_or(active);
        let allowed = index.first_within(limits.bytes, limits.age).unwrap_or(active);
        let possible = index.first_needed(&flushed, 0).unwrap_or(active);
        let before = wanted.max(allowed.min(possible)).min(active);
        let given_up = index.last_before(before);
        index.forget_before(before);
        drop(index);
        self.journal.release(before)?;
        Ok(given_up)
    }
}

/// Rows that are written together while stores are joined.
const JOIN_ROWS: usize = 1000;

/// Joins a node's old data into a checkpoint that takes its place: what `Store::install` calls.
///
/// The checkpoint is another node's: it may know more than the old data, and it lacks what only this node
/// has, above all its own latest commits. Rows and vectors are joined, conflicts are collected. The log is not part of a checkpoint: this node's
/// stays what it was, and has a gap where the vector jumps.
pub(super) fn join_stores(old: &View, new: &View) -> StorageResult<()> {
    let mut batch = Batch::new();
    let write = |batch: &mut Batch| {
        if batch.len() > JOIN_ROWS { new.write(&std::mem::take(batch)) } else { Ok(()) }
    };
    let mut scan = old.scan_plain(Cf::Leaderless, Vec::new()..Vec::new(), Direction::Forward)?;
    while let Some(PlainEntry { key, value }) = scan.next()? {
        let theirs = new.get_plain(Cf::Leaderless, key)?;
        match (
            stored_row::decode(key, value),
            theirs.as_deref().map(|theirs| stored_row::decode(key, theirs)),
        ) {
            (StoredRow::Sound(mut state), Some(StoredRow::Sound(theirs))) => {
                state.join(&theirs);
                batch.put(Cf::Leaderless, key, stored_row::encode(key, &state));
            }
            (StoredRow::Sound(_), _) => batch.put(Cf::Leaderless, key, value),
            // What it lacks then is found when the table is compared with the other nodes'.
            (StoredRow::Damaged, _) => tracing::error!("a damaged row of a leaderless table is left out"),
        }
        write(&mut batch)?;
    }
    // Entries are made of the joined rows.
    indexes::erase_all(&mut batch);
    // One that both found has the same id, and is the same.
    let mut scan = old.scan_plain(Cf::Conflicts, Vec::new()..Vec::new(), Direction::Forward)?;
    while let Some(PlainEntry { key, value }) = scan.next()? {
        batch.put(Cf::Conflicts, key, value);
        write(&mut batch)?;
    }
    let (mut joined, theirs) = (decode_joined(old.joined()?)?, decode_joined(new.joined()?)?);
    joined.vector.join(&theirs.vector);
    joined.clock = joined.clock.max(theirs.clock);
    batch.set_joined(codec::encode(&joined));
    new.write(&batch)
}

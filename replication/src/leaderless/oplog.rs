//! What the engine keeps in the store: row states, log records, vectors.
//!
//! ```text
//!   leaderless   row key                          → RowState
//!   oplog        origin (8 bytes) | seq (8 bytes) → BatchBody, as its origin encoded it
//!   meta         leaderless/vector                → VersionVector of all that is joined
//! ```
//!
//! A batch's record, the states it leads to and the vector are one write to the store. Its log therefore
//! ends, after a crash, between two commits and never within one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use amphora_storage::codec;
use amphora_storage::store::{Batch, Cf, Direction, PlainEntry, Store, View, Wal};
use bytes::Bytes;
use parking_lot::Mutex;

use super::dots::VersionVector;
use super::messages::OpBatch;
use super::row_state::RowState;
use crate::{NodeId, Result};

const VECTOR: &[u8] = b"leaderless/vector";

/// Bytes of acknowledged batches that an origin's log retains, so that a peer which lost a little can
/// catch up from the log.
pub const RETAIN_BYTES: u64 = 64 << 20;

/// The engine's part of the store.
pub(super) struct OpLog {
    store: Arc<Store>,
    /// Bytes in the log, by origin
    bytes: Mutex<BTreeMap<NodeId, u64>>,
}

fn record_key(origin: NodeId, seq: u64) -> Vec<u8> {
    [origin.to_be_bytes(), seq.to_be_bytes()].concat()
}

fn split_record_key(key: &[u8]) -> Option<(NodeId, u64)> {
    let (origin, seq) = key.split_at_checked(8)?;
    Some((NodeId::from_be_bytes(origin.try_into().ok()?), u64::from_be_bytes(seq.try_into().ok()?)))
}

/// The records of an origin from `from` to `to`, both included.
fn records(origin: NodeId, from: u64, to: u64) -> Range<Vec<u8>> {
    let mut end = record_key(origin, to);
    end.push(0);
    record_key(origin, from)..end
}

impl OpLog {
    pub(super) fn open(store: Arc<Store>) -> Result<OpLog> {
        let log = OpLog { store, bytes: Mutex::default() };
        log.measure()?;
        Ok(log)
    }

    /// Counts the bytes of the log anew.
    pub(super) fn measure(&self) -> Result<()> {
        let mut bytes: BTreeMap<NodeId, u64> = BTreeMap::new();
        let mut scan = self.store.scan_plain(Cf::Oplog, Vec::new()..Vec::new(), Direction::Forward)?;
        while let Some(entry) = scan.next()? {
            if let Some((origin, _)) = split_record_key(entry.key) {
                *bytes.entry(origin).or_default() += entry.value.len() as u64;
            }
        }
        *self.bytes.lock() = bytes;
        Ok(())
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn vector(&self) -> Result<VersionVector> {
        match self.store.get_plain(Cf::Meta, VECTOR)? {
            Some(bytes) => Ok(codec::decode(&bytes)?),
            None => Ok(VersionVector::new()),
        }
    }

    pub(super) fn put_vector(&self, batch: &mut Batch, vector: &VersionVector) {
        batch.put(Cf::Meta, VECTOR, codec::encode(vector));
    }

    pub(super) fn state(&self, key: &[u8]) -> Result<Option<RowState>> {
        match self.store.get_plain(Cf::Leaderless, key)? {
            Some(bytes) => Ok(Some(codec::decode(&bytes)?)),
            None => Ok(None),
        }
    }

    /// The length of what is put.
    pub(super) fn put_state(&self, batch: &mut Batch, key: &[u8], state: &RowState) -> usize {
        let encoded = codec::encode(state);
        batch.put(Cf::Leaderless, key, &encoded);
        encoded.len()
    }

    pub(super) fn append(&self, batch: &mut Batch, record: &OpBatch) {
        *self.bytes.lock().entry(record.origin).or_default() += record.body.len() as u64;
        batch.put(Cf::Oplog, record_key(record.origin, record.seq), &record.body);
    }

    /// Writes with the write-ahead log, and does not wait for the disk.
    pub(super) fn write(&self, batch: Batch) -> Result<()> {
        Ok(self.store.write(batch, Wal::On)?)
    }

    /// Waits until all that was written is on disk; shared by all who wait at the moment.
    pub(super) async fn sync(&self) -> Result<()> {
        Ok(self.store.sync().await?)
    }

    /// One record, if it is there.
    pub(super) fn record(&self, origin: NodeId, seq: u64) -> Result<Option<OpBatch>> {
        let body = self.store.get_plain(Cf::Oplog, record_key(origin, seq))?;
        Ok(body.map(|body| OpBatch { origin, seq, body: body.into() }))
    }

    /// Consecutive records of an origin from `from` to `to`: at least the first, and no more than `bytes`
    /// if one fits. Empty if the log does not reach back to `from`.
    pub(super) fn read(&self, origin: NodeId, from: u64, to: u64, bytes: usize) -> Result<Vec<OpBatch>> {
        let mut out: Vec<OpBatch> = Vec::new();
        let mut size = 0;
        let mut scan = self.store.scan_plain(Cf::Oplog, records(origin, from, to), Direction::Forward)?;
        while let Some(PlainEntry { key, value: body }) = scan.next()? {
            let next = from + out.len() as u64;
            if split_record_key(key) != Some((origin, next)) || (!out.is_empty() && size + body.len() > bytes)
            {
                break;
            }
            size += body.len();
            out.push(OpBatch { origin, seq: next, body: Bytes::copy_from_slice(body) });
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
            out.push((key.to_vec(), codec::decode(value)?));
            if size >= bytes {
                break;
            }
        }
        Ok(out)
    }

    /// Removes records that `acked` covers, oldest first, while an origin's log is larger than `retain` bytes.
    pub(super) fn truncate_to(&self, acked: &VersionVector, retain: u64) -> Result<()> {
        for (origin, acked) in acked.iter() {
            let size = self.bytes.lock().get(&origin).copied().unwrap_or(0);
            let mut excess = size.saturating_sub(retain);
            if excess == 0 {
                continue;
            }
            let mut batch = Batch::default();
            let mut removed = 0;
            let mut scan = self.store.scan_plain(Cf::Oplog, records(origin, 0, acked), Direction::Forward)?;
            while let Some(PlainEntry { key, value }) = scan.next()? {
                if excess == 0 {
                    break;
                }
                excess = excess.saturating_sub(value.len() as u64);
                removed += value.len() as u64;
                batch.delete(Cf::Oplog, key);
            }
            self.write(batch)?;
            if let Some(bytes) = self.bytes.lock().get_mut(&origin) {
                *bytes = bytes.saturating_sub(removed);
            }
        }
        Ok(())
    }
}

/// Rows and records that are written together while stores are joined.
const JOIN_ROWS: usize = 1000;

/// Joins a node's old data into a checkpoint that takes its place: what `Store::install` calls.
///
/// The checkpoint is another node's: it may know more than the old data, and it lacks what only this node
/// has, above all its own latest commits. Rows and vectors are joined; of the log, what the checkpoint's vector
/// does not cover is copied.
pub fn join_stores(old: &View, new: &View) -> amphora_storage::Result<()> {
    let vector_of = |view: &View| match view.get_plain(Cf::Meta, VECTOR)? {
        Some(bytes) => codec::decode::<VersionVector>(&bytes),
        None => Ok(VersionVector::new()),
    };
    let (ours, theirs) = (vector_of(old)?, vector_of(new)?);
    let mut batch = Batch::new();
    let write = |batch: &mut Batch, most: usize| {
        if batch.len() > most { new.write(&std::mem::take(batch)) } else { Ok(()) }
    };
    let mut scan = old.scan_plain(Cf::Leaderless, Vec::new()..Vec::new(), Direction::Forward)?;
    while let Some(PlainEntry { key, value }) = scan.next()? {
        let mut state: RowState = codec::decode(value)?;
        if let Some(theirs) = new.get_plain(Cf::Leaderless, key)? {
            state.join(&codec::decode(&theirs)?);
        }
        batch.put(Cf::Leaderless, key, codec::encode(&state));
        write(&mut batch, JOIN_ROWS)?;
    }
    for (origin, have) in ours.iter() {
        let range = records(origin, theirs.get(origin).saturating_add(1), have);
        let mut scan = old.scan_plain(Cf::Oplog, range, Direction::Forward)?;
        while let Some(PlainEntry { key, value }) = scan.next()? {
            batch.put(Cf::Oplog, key, value);
            write(&mut batch, JOIN_ROWS)?;
        }
    }
    let mut vector = ours;
    vector.join(&theirs);
    batch.put(Cf::Meta, VECTOR, codec::encode(&vector));
    write(&mut batch, 0)
}

//! Large transactions: staged in parts, committed by one small entry.
//!
//! An entry of the log travels in one message and is in memory as a whole on every node, so a transaction
//! that writes much must not be one entry. Its writes go ahead in parts, as rows of a keyspace that no
//! statement reads, and the commit itself carries only their number:
//!
//! ```text
//!   gateway            log                                      every replica
//!   sorted writes ─┬─► part 0 ─┐                                STAGING|id|0 → 2 MB of writes
//!                  ├─► part 1  │ ordinary commits, interleaved  STAGING|id|1 → …
//!                  ├─► part 2 ─┘ with everybody else's
//!                  └─► commit of id, 3 parts, at T ───────────► the parts' writes at T, the parts deleted
//! ```
//!
//! **Why it is atomic.** The parts say nothing until the commit is applied. Then their writes are put at its
//! timestamp T, in several storage batches, by several threads: no key is in two parts. T becomes readable with the
//! last batch, which also deletes the parts and moves the applied position. A crash in between finds the old position and the parts, and applies the entry
//! again: the same writes at the same T. Every replica has the parts, because they precede the commit in the log, and
//! a checkpoint has them, because they are rows.
//!
//! **Why nothing stays behind.** A gateway locks the key that stands for its parts before it stages the first, and a
//! staged commit is always a locking one. Whoever gets that lock knows that the transaction is over: it was
//! given up, or its gateway fell silent and its late commit will be refused. So the leader's sweep takes the lock, without
//! waiting, and deletes what it finds.

use std::ops::Range;
use std::sync::Weak;
use std::time::{Duration, Instant};

use amphora_storage::schema::{IndexId, TableId};
use amphora_storage::store::Direction;
use amphora_storage::{Timestamp, codec, key};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::group::{Group, Inner};
use super::replica::storage_error;
use super::types::{CommitRequest, LockKey, LockRequest, Staged, TransactionId, WRITE_OVERHEAD, Write};
use crate::api::{LockMode, WaitPolicy};
use crate::{Error, Result};

/// Bytes in one part, unless a single write has more.
const PART_BYTES: usize = 2 << 20;
/// Parts on their way at a time.
const PARTS_IN_FLIGHT: usize = 4;

/// How long a leader that is overloaded is asked again to take a part …
const OVERLOAD_PATIENCE: Duration = Duration::from_secs(30);
/// … and how often.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(100);

/// How often the leader looks for what unfinished transactions left.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The first of the keys of a transaction's parts; stands for all of them in the lock table.
pub fn owner_key(id: TransactionId) -> Vec<u8> {
    let mut key = key::table_prefix(TableId::STAGING, IndexId::PRIMARY).to_vec();
    key.extend_from_slice(&id.node.to_be_bytes());
    key.extend_from_slice(&id.epoch.to_be_bytes());
    key.extend_from_slice(&id.counter.to_be_bytes());
    key
}

/// The key of one part.
pub fn part_key(id: TransactionId, part: u32) -> Vec<u8> {
    let mut key = owner_key(id);
    key.extend_from_slice(&part.to_be_bytes());
    key
}

/// The transaction whose part this is.
fn owner_of(key: &[u8]) -> Option<TransactionId> {
    let prefix = key::table_prefix(TableId::STAGING, IndexId::PRIMARY);
    let words = key.strip_prefix(prefix.as_slice())?;
    let word = |i: usize| Some(u64::from_be_bytes(words.get(i * 8..i * 8 + 8)?.try_into().ok()?));
    Some(TransactionId { node: word(0)?, epoch: word(1)?, counter: word(2)? })
}

/// The writes of a part.
pub fn unpack(part: &[u8]) -> Result<Vec<Write>> {
    codec::decode(part).map_err(storage_error)
}

/// Parts that are deleted again unless their transaction commits.
pub struct StagedParts {
    group: Group,
    id: TransactionId,
    staged: Staged,
    keep: bool,
}

impl StagedParts {
    /// How many there are.
    pub fn staged(&self) -> Staged {
        self.staged
    }

    /// The commit has consumed them, or may have.
    pub fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for StagedParts {
    fn drop(&mut self) {
        if self.keep || self.staged.parts == 0 {
            return;
        }
        let (group, id, parts) = (self.group.clone(), self.id, 0..self.staged.parts);
        // Outside a runtime the node is stopping; the leader's sweep finds them.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(e) = group.delete_parts(id, parts).await {
                    tracing::debug!(transaction = %id, error = %e, "its staged writes are left to the sweep");
                }
            });
        }
    }
}

impl Group {
    /// Sends the writes of a transaction ahead of its commit. The transaction must lock, not expect; it
    /// gets one more lock here, on what stands for the parts.
    pub async fn stage(
        &self,
        id: TransactionId,
        mut writes: impl Iterator<Item = Write> + Send,
    ) -> Result<StagedParts> {
        self.lock_parts(id, id, WaitPolicy::Wait).await?;
        let mut parts = StagedParts { group: self.clone(), id, staged: Staged::default(), keep: false };
        let mut in_flight = FuturesUnordered::new();
        while let Some((part, bytes)) = next_part(&mut writes) {
            if in_flight.len() >= PARTS_IN_FLIGHT
                && let Some(sent) = in_flight.next().await
            {
                sent?;
            }
            let write = Write { key: part_key(id, parts.staged.parts), value: Some(part) };
            // Counted before it is sent: it may arrive even if this is given up.
            parts.staged.parts += 1;
            parts.staged.bytes += bytes as u64;
            in_flight.push(self.commit_part(write));
        }
        while let Some(sent) = in_flight.next().await {
            sent?;
        }
        Ok(parts)
    }

    /// Commits a part. A leader that has too much to do for now is asked again: whoever sends a large transaction
    /// has no better use for the time, and nobody waits behind it.
    async fn commit_part(&self, part: Write) -> Result<Timestamp> {
        let until = Instant::now() + OVERLOAD_PATIENCE;
        loop {
            match self.commit(self.blind(vec![part.clone()])).await {
                Err(e) if e.sqlstate == "53300" && Instant::now() < until => {
                    tokio::time::sleep(OVERLOAD_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Locks what stands for the parts of `owner`, for `id`.
    async fn lock_parts(&self, id: TransactionId, owner: TransactionId, wait: WaitPolicy) -> Result<()> {
        let key = LockKey { key: owner_key(owner), mode: LockMode::Exclusive };
        let keys = vec![key];
        self.lock(LockRequest { keys, wait, ..LockRequest::new(id, "staged writes") }).await.map(drop)
    }

    /// A transaction of its own that checks nothing: nobody else writes these keys.
    fn blind(&self, writes: Vec<Write>) -> CommitRequest {
        CommitRequest {
            id: self.transaction_id(),
            locked: false,
            expected: Vec::new(),
            tables: Vec::new(),
            intents: Vec::new(),
            writes,
            staged: Staged::default(),
            staged_into: Vec::new(),
            reads: None,
            leaderless: Vec::new(),
            clock: Timestamp::ZERO,
            durability: Default::default(),
        }
    }

    async fn delete_parts(&self, id: TransactionId, parts: Range<u32>) -> Result<()> {
        let writes = parts.map(|part| Write { key: part_key(id, part), value: None }).collect();
        self.commit(self.blind(writes)).await.map(drop)
    }

    /// Deletes the parts of transactions that are over. For the leader, now and then.
    pub async fn sweep_staged(&self) -> Result<()> {
        for (owner, parts) in self.staged_parts()? {
            let sweeper = self.transaction_id();
            match self.lock_parts(sweeper, owner, WaitPolicy::NoWait).await {
                Ok(()) => {}
                Err(e) if e.sqlstate == "55P03" => continue,
                Err(e) => return Err(e),
            }
            tracing::info!(transaction = %owner, parts = parts.end, "deleting what an unfinished transaction left");
            let deleted = self.delete_parts(owner, parts).await;
            self.release(sweeper);
            deleted?;
        }
        Ok(())
    }

    /// Who has parts here, and up to which number.
    fn staged_parts(&self) -> Result<Vec<(TransactionId, Range<u32>)>> {
        let store = self.store();
        let mut found: Vec<(TransactionId, Range<u32>)> = Vec::new();
        let mut from = key::index_range(TableId::STAGING, IndexId::PRIMARY);
        loop {
            let mut rows = store
                .scan(from.clone(), self.applied_timestamp(), Direction::Forward)
                .map_err(storage_error)?;
            let Some(row) = rows.next().map_err(storage_error)? else { return Ok(found) };
            let Some(owner) = owner_of(row.key) else {
                return Err(Error::new("XX001", "a staged write has no owner"));
            };
            // Parts are numbered from 0 and the last may be missing: all numbers up to the highest seen.
            let next = key::prefix_successor(&owner_key(owner));
            let mut rows = store
                .scan(from.start.clone()..next.clone(), self.applied_timestamp(), Direction::Backward)
                .map_err(storage_error)?;
            let last = rows.next().map_err(storage_error)?;
            let last = last.and_then(|row| row.key.last_chunk::<4>().map(|n| u32::from_be_bytes(*n)));
            found.push((owner, 0..last.unwrap_or(0).saturating_add(1)));
            from.start = next;
        }
    }
}

/// Sweeps for as long as the group lives, wherever its leader is.
pub(super) async fn sweep(group: Weak<Inner>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let Some(inner) = group.upgrade() else { return };
        let group = Group { inner };
        if group.is_leader()
            && let Err(e) = group.sweep_staged().await
        {
            tracing::debug!(error = %e, "unfinished transactions are looked for again later");
        }
    }
}

/// The next part, encoded, and the bytes of its writes; `None` after the last.
fn next_part(writes: &mut (impl Iterator<Item = Write> + Send)) -> Option<(Vec<u8>, usize)> {
    let (mut part, mut bytes) = (Vec::new(), 0);
    while bytes < PART_BYTES {
        let Some(write) = writes.next() else { break };
        bytes += write.key.len() + write.value.as_ref().map_or(0, Vec::len) + WRITE_OVERHEAD;
        part.push(write);
    }
    (!part.is_empty()).then(|| (codec::encode(&part), bytes))
}

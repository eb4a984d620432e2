//! The locks of a transaction's rows: what it claims before it writes.

use std::collections::HashMap;

use amphora_storage::Timestamp;
use amphora_storage::schema::{Table, TableId};

use super::HybridTransaction;
use crate::Result;
use crate::api::{IsolationLevel, LockMode, WaitPolicy};
use crate::strong::{KeyLock, LockKey, LockRequest, Pick};

/// After so many keys of one table, and again after as many more, the table itself is tried.
const ESCALATE_EVERY: usize = 16_384;

/// Keys in one request for locks: the leader reads the version of each, and a reply has its deadline.
pub(super) const MAX_LOCK_BATCH: usize = 4_096;

impl HybridTransaction {
    /// Makes sure that no one else can commit to these keys before this transaction ends, and that the
    /// versions given (ZERO for a key without a row) are still the newest.
    pub(super) async fn claim(
        &mut self,
        table: &Table,
        keys: Vec<(Vec<u8>, Timestamp)>,
        mode: LockMode,
    ) -> Result<()> {
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
    pub(super) fn holds_table(&self, table: &Table) -> bool {
        self.locks.get(&table_intent(table.id)) == Some(&LockMode::Exclusive)
    }

    /// With the table to itself, all that was ever committed to it is here: versions are compared without
    /// asking the leader. A snapshot that is newer than the table's lock needs not even that.
    pub(super) fn compare_here(&self, keys: &[(Vec<u8>, Timestamp)]) -> Result<()> {
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
    pub(super) fn has_claimed_many(&mut self, table: &Table, keys: usize) -> bool {
        let claimed = self.claimed.entry(table.id).or_default();
        let before = *claimed / ESCALATE_EVERY;
        *claimed += keys;
        *claimed / ESCALATE_EVERY != before
    }

    /// After very many rows of a table it is cheaper for everyone to lock the table than to go on one by
    /// one, if nobody else is writing to it. Whoever wants to write to it then waits for the end of this
    /// transaction.
    pub(super) async fn escalate(&mut self, table: &Table) -> Result<()> {
        let intent = LockKey { key: table_intent(table.id), mode: LockMode::Exclusive };
        match self.request_locks(&table.name, vec![intent], WaitPolicy::NoWait).await {
            // What was committed before the lock was granted must be here before versions are compared here.
            Ok(_) => self.take_latest().await,
            Err(e) if e.sqlstate == "55P03" => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Locks keys on the leader and compares versions. False where skipped.
    pub(super) async fn lock_keys(
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
    pub(super) async fn request_row_locks(
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
    pub(super) fn compare_versions(
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

    pub(super) async fn request_locks(
        &mut self,
        relation: &str,
        keys: Vec<LockKey>,
        wait: WaitPolicy,
    ) -> Result<Vec<KeyLock>> {
        let request = LockRequest {
            session: self.options.session,
            keys,
            wait,
            timeout: self.options.lock_timeout,
            ..LockRequest::new(self.id, relation)
        };
        self.send_locks(request).await
    }

    pub(super) async fn send_locks(&mut self, request: LockRequest) -> Result<Vec<KeyLock>> {
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
    pub(super) async fn pick_keys(
        &mut self,
        table: &Table,
        keys: &[(Vec<u8>, Timestamp)],
        mode: LockMode,
        wanted: usize,
    ) -> Result<Vec<KeyLock>> {
        let intent = table_intent(table.id);
        let request = |tx: &HybridTransaction| LockRequest {
            session: tx.options.session,
            keys: keys.iter().map(|(key, _)| LockKey { key: key.clone(), mode }).collect(),
            wait: WaitPolicy::Skip,
            timeout: tx.options.lock_timeout,
            pick: Some(Pick {
                wanted,
                versions: keys.iter().map(|(_, version)| *version).collect(),
                table: intent.clone(),
            }),
            ..LockRequest::new(tx.id, &*table.name)
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
}

/// The key that stands for a whole table in the lock table. It is no key of any row: rows have an index id
/// and columns after the table's id.
pub(super) fn table_intent(id: TableId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

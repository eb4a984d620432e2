//! Foreign keys: what keeps a referenced row while someone refers to it.
//!
//! A reference is a pair of facts in two tables that no single key covers, so a lock stands for it: the
//! *reference lock* of a parent's key, which is no row's own key, so that it conflicts with nothing but the
//! two parties below. A parent's row may be updated all day while children come (PostgreSQL's FOR KEY
//! SHARE and FOR NO KEY UPDATE).
//!
//! ```text
//!   child arrives                               parent's key goes
//!   ─────────────                               ─────────────────
//!   lock (key, Shared)                          lock (row), buffer the deletion
//!   read: is the parent there?                  lock (key, Exclusive)
//!     at a snapshot not older than the lock     read: are there children?
//!   write the child                               at a snapshot not older than the lock
//! ```
//!
//! **Invariant.** Between a child's check and its commit nobody commits the deletion of its parent, and
//! between a parent's check and its commit nobody commits a new child. For each party holds its lock from
//! before its check until its commit is applied; whoever comes second gets the lock when the first has
//! committed or given up, and reads after that. Locks vanish with a leadership, and with a gateway that
//! falls silent; then the certifier refuses the commit of whoever held them, also of one that held nothing
//! but shared locks, because it asks for the transaction and not for its keys
//! (`TenureState::hold_for_commit`).
//!
//! A single statement that commits by itself asks for no locks. A child expects instead that the version of
//! the parent's entry that it saw is still the newest, and the certifier locks that entry, shared, while
//! the commit is in flight. A parent that goes holds its entry's lock, exclusively, from before its check
//! until it is applied, so one of the two sees the other. A parent cannot do without locks: that *no*
//! child is there is no version that could be compared.
//!
//! Both parties are refused if the other's descriptor has changed since they were planned
//! ([`HybridTransaction::depend_on`]): a foreign key that is being added moves both tables.

use std::sync::Arc;

use amphora_storage::schema::{IndexId, Table};
use amphora_storage::{Datum, Timestamp, key};

use super::HybridTransaction;
use super::locking::MAX_LOCK_BATCH;
use crate::api::{LockMode, StoredRow, WaitPolicy};
use crate::strong::LockKey;
use crate::{Error, Result};

/// The key of an entry of a unique index whose columns have these values.
fn entry_key(table: &Table, index: IndexId, values: &[Datum]) -> Result<Vec<u8>> {
    let mut entry = key::table_prefix(table.keyspace(), index).to_vec();
    for value in values {
        key::encode_datum(&mut entry, value)?;
    }
    Ok(entry)
}

/// The lock that stands for references to an entry. A column's encoding never begins with this byte, so it
/// is no entry's key.
fn reference_lock(mut entry: Vec<u8>) -> Vec<u8> {
    entry.push(0);
    entry
}

impl HybridTransaction {
    fn entry_keys(table: &Table, index: IndexId, keys: &[Vec<Datum>]) -> Result<Vec<Vec<u8>>> {
        keys.iter().map(|values| entry_key(table, index, values)).collect()
    }

    /// Which entries are there: own writes first, then what the store has at `at`, with its version.
    fn entries_at(&self, entries: &[Vec<u8>], at: Timestamp) -> Result<Vec<Option<Timestamp>>> {
        let stored = self.context.store.multi_get(entries, at)?;
        let own = |entry: &[u8]| self.buffer.get(entry).map(|w| w.as_ref().map(|_| Timestamp::ZERO));
        Ok(entries
            .iter()
            .zip(stored)
            .map(|(entry, stored)| own(entry).unwrap_or_else(|| stored.map(|v| v.ts)))
            .collect())
    }

    pub(super) fn find_entries(
        &self,
        table: &Table,
        index: IndexId,
        keys: &[Vec<Datum>],
    ) -> Result<Vec<bool>> {
        let entries = Self::entry_keys(table, index, keys)?;
        self.note_reads(&entries);
        Ok(self.entries_at(&entries, self.snapshot())?.iter().map(Option::is_some).collect())
    }

    /// The child's side.
    pub(super) async fn hold_entries(
        &mut self,
        parent: &Arc<Table>,
        index: IndexId,
        keys: &[Vec<Datum>],
    ) -> Result<Vec<bool>> {
        self.depend_on(parent);
        let entries = Self::entry_keys(parent, index, keys)?;
        if !self.pessimistic {
            let found = self.entries_at(&entries, self.snapshot())?;
            for (entry, version) in entries.iter().zip(&found) {
                if let Some(version) = version.filter(|_| self.buffer.get(entry).is_none()) {
                    self.buffer.expect(entry, version, LockMode::Shared);
                }
            }
            return Ok(found.iter().map(Option::is_some).collect());
        }
        self.lock_references(parent, entries.clone(), LockMode::Shared).await?;
        // What was seen once since it was locked is still there. A snapshot older than the lock proves nothing.
        let known = |entry: &[u8]| self.buffer.get(entry).map(Option::is_some);
        let unknown: Vec<Vec<u8>> = entries
            .iter()
            .filter(|entry| known(entry).is_none() && !self.present.contains(*entry))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            let hold = self.fresh_snapshot().await?;
            let at = hold.as_ref().map_or_else(|| self.snapshot(), |hold| hold.at());
            let found = self.context.store.multi_get(&unknown, at)?;
            let found = unknown.into_iter().zip(found).filter(|(_, version)| version.is_some());
            self.present.extend(found.map(|(entry, _)| entry));
        }
        let known = |entry: &[u8]| self.buffer.get(entry).map(Option::is_some);
        Ok(entries.iter().map(|entry| known(entry).unwrap_or_else(|| self.present.contains(entry))).collect())
    }

    /// The parent's side.
    pub(super) async fn seize_entries(
        &mut self,
        parent: &Arc<Table>,
        index: IndexId,
        keys: &[Vec<Datum>],
    ) -> Result<()> {
        if !self.pessimistic {
            // What was written so far is expected, not locked. Once more, with locks.
            self.pessimistic = true;
            return Err(Error::restart());
        }
        let entries = Self::entry_keys(parent, index, keys)?;
        self.lock_references(parent, entries, LockMode::Exclusive).await?;
        self.check = self.fresh_snapshot().await?;
        Ok(())
    }

    async fn lock_references(&mut self, parent: &Table, entries: Vec<Vec<u8>>, mode: LockMode) -> Result<()> {
        let mut keys: Vec<Vec<u8>> = entries.into_iter().map(reference_lock).collect();
        keys.retain(|key| self.locks.get(key).is_none_or(|held| *held < mode));
        keys.sort_unstable();
        keys.dedup();
        for keys in keys.chunks(MAX_LOCK_BATCH) {
            let request = keys.iter().map(|key| LockKey { key: key.clone(), mode }).collect();
            self.request_row_locks(parent, request, WaitPolicy::Wait).await?;
        }
        Ok(())
    }

    /// The commit is refused if this table's descriptor has moved by then: an index that was walked for
    /// children may have been dropped, and entries not be kept any more.
    pub(super) fn depend_on(&mut self, table: &Table) {
        self.buffer.touch(table);
    }

    /// 40001 for a row that a REPEATABLE READ transaction cannot see, and met only because foreign keys are
    /// checked at a newer snapshot.
    pub(super) fn check_visible(&self, rows: &[&StoredRow]) -> Result<()> {
        let Some(snapshot) = self.snapshot.as_ref().filter(|_| self.check.is_some()) else { return Ok(()) };
        let newer = |row: &&StoredRow| row.version > snapshot.at();
        if self.options.isolation.has_one_snapshot() && rows.iter().any(newer) {
            return Err(Error::serialization());
        }
        Ok(())
    }
}

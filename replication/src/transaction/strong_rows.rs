//! Rows of strong tables: keys to claim, index entries to keep.

use std::sync::Arc;

use amphora_storage::schema::{Index, IndexId, Table};
use amphora_storage::{Datum, Row, Timestamp, key, row};

use super::HybridTransaction;
use super::buffer::WriteBuffer;
use crate::api::{IndexFunctions, InsertOutcome, IsolationLevel, LockMode, OnConflict, StoredRow};
use crate::error::ErrorKind;
use crate::index_entry::{entry_value, split_entry};
use crate::{Error, Result};

/// True if an entry of this unique index excludes other rows: NULLs do not collide unless it says so.
fn excludes(index: &Index, row: &[Datum], computed: &[Datum]) -> bool {
    let is_null = |&c: &usize| key::indexed(row, computed, c).is_null();
    index.unique && (index.nulls_not_distinct || !index.columns.iter().any(is_null))
}

/// The entry of a secondary index: its key, and whether it is a unique one that excludes others.
struct IndexEntry<'a> {
    index: &'a Index,
    key: Vec<u8>,
    exclusive: bool,
}

impl HybridTransaction {
    /// The values of an index's expressions; `None` if it has no entry for the row.
    fn computed(&self, table: &Table, index: &Index, row: &[Datum]) -> Result<Option<Vec<Datum>>> {
        if index.is_plain() {
            return Ok(Some(Vec::new()));
        }
        self.index_functions(index)?.compute(table, index, row)
    }

    fn index_functions(&self, index: &Index) -> Result<&'static dyn IndexFunctions> {
        let message = || format!("nobody here computes the entries of index \"{}\"", index.name);
        self.options.indexes.ok_or_else(|| Error::new("XX000", message()))
    }

    fn entry<'a>(&self, table: &Table, index: &'a Index, row: &[Datum]) -> Result<Option<IndexEntry<'a>>> {
        let Some(computed) = self.computed(table, index, row)? else { return Ok(None) };
        let key = key::index_key(table, index, row, &computed)?;
        Ok(Some(IndexEntry { index, key, exclusive: excludes(index, row, &computed) }))
    }

    /// The entries of a row in all secondary indexes.
    fn entries<'a>(&self, table: &'a Table, row: &[Datum]) -> Result<Vec<IndexEntry<'a>>> {
        let mut entries = Vec::with_capacity(table.indexes.len());
        for index in &table.indexes {
            entries.extend(self.entry(table, index, row)?);
        }
        Ok(entries)
    }

    /// 23505 for a row of a statement.
    pub(super) fn unique_violation(&self, table: &Table, index: IndexId, row: &[Datum]) -> Error {
        let index = table.index(index).unwrap_or(&table.primary);
        self.with_key(Error::unique_violation(table, index), table, index, row, "already exists")
    }

    /// 23505 for rows that are there.
    fn duplicated(&self, table: &Table, index: &Index, row: &[Datum]) -> Error {
        let message = format!("could not create unique index \"{}\"", index.name);
        let mut error = self.with_key(Error::new("23505", message), table, index, row, "is duplicated");
        error.constraint = Some(index.name.as_str().into());
        error.table = Some(table.name.as_str().into());
        error
    }

    fn with_key(
        &self,
        error: Error,
        table: &Table,
        index: &Index,
        row: &[Datum],
        verb: &'static str,
    ) -> Error {
        match (self.computed(table, index, row), self.options.indexes) {
            (Ok(Some(computed)), Some(functions)) if !index.is_plain() => {
                let names = functions.names(table, index);
                error.computed_key(table, index, row, &computed, names, verb)
            }
            _ => error.key(table, index, row, verb),
        }
    }

    /// The newest value of a key that this transaction may see: its own write, or the snapshot's.
    /// The version is ZERO for its own.
    pub(super) fn strong_value(&self, key: &[u8]) -> Result<Option<(Timestamp, Arc<[u8]>)>> {
        self.value_at(key, self.snapshot())
    }

    fn value_at(&self, key: &[u8], at: Timestamp) -> Result<Option<(Timestamp, Arc<[u8]>)>> {
        self.value_in(&self.buffer, key, at)
    }

    fn value_in(
        &self,
        buffer: &WriteBuffer,
        key: &[u8],
        at: Timestamp,
    ) -> Result<Option<(Timestamp, Arc<[u8]>)>> {
        if let Some(own) = buffer.get(key) {
            return Ok(own.as_ref().map(|v| (Timestamp::ZERO, v.clone())));
        }
        let version = self.context.store.get(key, at)?;
        Ok(version.map(|v| (v.ts, Arc::from(v.value.as_ref()))))
    }

    /// The committed version of a key that is about to be written anew, own writes aside; ZERO if there is
    /// none.
    fn committed_version(&self, key: &[u8]) -> Result<Timestamp> {
        Ok(self.context.store.get(key, self.latest())?.map_or(Timestamp::ZERO, |v| v.ts))
    }

    /// The columns at these positions, in this order, of a row that this transaction may see.
    pub(super) fn strong_columns(&self, table: &Table, key: &[u8], columns: &[usize]) -> Result<Option<Row>> {
        match self.visible().get(key) {
            Some(own) => {
                Ok(own.as_ref().map(|bytes| row::decode_listed(table, bytes, columns)).transpose()?)
            }
            None => {
                let read = |_, bytes: &[u8]| row::decode_listed(table, bytes, columns);
                Ok(self.context.store.get_with(key, self.snapshot(), read)?)
            }
        }
    }

    /// The row as this buffer over the snapshot has it.
    pub(super) fn strong_get_in(
        &self,
        buffer: &WriteBuffer,
        table: &Table,
        key: &[u8],
    ) -> Result<Option<StoredRow>> {
        let Some((version, bytes)) = self.value_in(buffer, key, self.snapshot())? else { return Ok(None) };
        Ok(Some(StoredRow { row: row::decode_row(table, &bytes)?, version }))
    }

    /// Claims keys about to be written, whatever is there now. Keys this transaction has already written were
    /// claimed then.
    ///
    /// What is written here was not computed from what is found under these keys, so under READ COMMITTED a
    /// key that has moved since the statement began is no reason to start the statement over: it is looked
    /// at again, and cannot move any more.
    async fn claim_fresh(&mut self, table: &Table, mut keys: Vec<Vec<u8>>) -> Result<()> {
        keys.retain(|key| self.buffer.get(key).is_none());
        let claimed = self.claim_at_latest(table, &keys).await;
        let again = self.pessimistic && self.options.isolation == IsolationLevel::ReadCommitted;
        match claimed {
            Err(e) if again && e.kind == ErrorKind::Restart => {
                // Seldom, and a large future: not a part of every write's.
                Box::pin(async {
                    self.take_latest().await?;
                    self.claim_at_latest(table, &keys).await
                })
                .await
            }
            claimed => claimed,
        }
    }

    async fn claim_at_latest(&mut self, table: &Table, keys: &[Vec<u8>]) -> Result<()> {
        let mut wanted = Vec::with_capacity(keys.len());
        for key in keys {
            wanted.push((key.clone(), self.committed_version(key)?));
        }
        self.claim(table, wanted, LockMode::Exclusive).await
    }

    pub(super) async fn insert_strong(
        &mut self,
        table: &Arc<Table>,
        rows: Vec<Row>,
        on_conflict: OnConflict,
    ) -> Result<Vec<InsertOutcome>> {
        // With the table to itself, the look at what is there now says it all; but a transaction with one
        // snapshot looks at what was there.
        if !self.holds_table(table) || self.options.isolation.has_one_snapshot() {
            let mut keys = Vec::with_capacity(rows.len() * (1 + table.indexes.len()));
            for row in &rows {
                keys.push(key::row_key_of(table, row)?);
                keys.extend(self.entries(table, row)?.into_iter().filter(|e| e.exclusive).map(|e| e.key));
            }
            self.claim_fresh(table, keys).await?;
        }
        self.buffer.touch(table);
        let mut outcomes = Vec::with_capacity(rows.len());
        for row in rows {
            let arbiter = match &on_conflict {
                OnConflict::Report(arbiter) => *arbiter,
                OnConflict::Error => None,
            };
            match self.conflict(table, &row, arbiter)? {
                None => {
                    self.write_row(table, &row)?;
                    outcomes.push(InsertOutcome::Inserted);
                }
                Some((index, existing_key)) => {
                    let reported = match &on_conflict {
                        OnConflict::Error => false,
                        OnConflict::Report(None) => true,
                        OnConflict::Report(Some(wanted)) => *wanted == index,
                    };
                    if !reported {
                        return Err(self.unique_violation(table, index, &row));
                    }
                    outcomes.push(InsertOutcome::Conflict(self.claim_existing(table, &existing_key).await?));
                }
            }
        }
        Ok(outcomes)
    }

    /// The row that already has one of `row`'s unique keys: which index, and the row's own key. The index
    /// named in ON CONFLICT is looked at first: who conflicts there is not inserted, and conflicts nowhere else.
    fn conflict(
        &self,
        table: &Table,
        row: &[Datum],
        arbiter: Option<IndexId>,
    ) -> Result<Option<(IndexId, Vec<u8>)>> {
        let key = key::row_key_of(table, row)?;
        let mut entries: Vec<_> = self.entries(table, row)?.into_iter().filter(|e| e.exclusive).collect();
        entries.sort_by_key(|e| Some(e.index.id) != arbiter);
        let primary_first = entries.first().is_none_or(|e| Some(e.index.id) != arbiter);
        let latest = self.latest();
        let primary = self.value_at(&key, latest)?.map(|_| (IndexId::PRIMARY, key));
        if primary.is_some() && primary_first {
            return Ok(primary);
        }
        for entry in entries {
            if let Some((_, existing)) = self.value_at(&entry.key, latest)? {
                let (row_key, _) = split_entry(entry.index, &existing)?;
                return Ok(Some((entry.index.id, row_key.to_vec())));
            }
        }
        Ok(primary)
    }

    /// The row an INSERT collided with, claimed, so that DO UPDATE may change it.
    async fn claim_existing(&mut self, table: &Table, key: &[u8]) -> Result<StoredRow> {
        self.claim_fresh(table, vec![key.to_vec()]).await?;
        match self.value_at(key, self.latest())? {
            Some((version, bytes)) => Ok(StoredRow { row: row::decode_row(table, &bytes)?, version }),
            // The entry is there and the row is not: it moved between the two reads.
            None => Err(self.moved(Timestamp::ZERO)),
        }
    }

    /// Claims the keys of rows this statement read: the rows themselves at the versions it read, and
    /// their unique entries.
    async fn claim_read(&mut self, table: &Table, rows: &[&StoredRow]) -> Result<()> {
        self.check_visible(rows)?;
        let mut keys = Vec::with_capacity(rows.len());
        let mut uniques = Vec::new();
        for stored in rows {
            let key = key::row_key_of(table, &stored.row)?;
            if self.buffer.get(&key).is_none() {
                keys.push((key, stored.version));
            }
            uniques
                .extend(self.entries(table, &stored.row)?.into_iter().filter(|e| e.exclusive).map(|e| e.key));
        }
        self.claim(table, keys, LockMode::Exclusive).await?;
        if !uniques.is_empty() {
            self.claim_fresh(table, uniques).await?;
        }
        Ok(())
    }

    pub(super) async fn update_strong(
        &mut self,
        table: &Arc<Table>,
        changes: Vec<(StoredRow, Row)>,
    ) -> Result<()> {
        let old: Vec<&StoredRow> = changes.iter().map(|(old, _)| old).collect();
        self.claim_read(table, &old).await?;
        let mut fresh = Vec::new();
        for (old, new) in &changes {
            let key = key::row_key_of(table, new)?;
            if key != key::row_key_of(table, &old.row)? {
                fresh.push(key);
            }
            fresh.extend(self.entries(table, new)?.into_iter().filter(|e| e.exclusive).map(|e| e.key));
        }
        self.claim_fresh(table, fresh).await?;
        self.buffer.touch(table);
        for (old, _) in &changes {
            self.erase_row(table, &old.row)?;
        }
        for (_, new) in &changes {
            if let Some((index, _)) = self.conflict(table, new, None)? {
                return Err(self.unique_violation(table, index, new));
            }
            self.write_row(table, new)?;
        }
        Ok(())
    }

    pub(super) async fn delete_strong(&mut self, table: &Arc<Table>, rows: Vec<StoredRow>) -> Result<()> {
        let read: Vec<&StoredRow> = rows.iter().collect();
        self.claim_read(table, &read).await?;
        self.buffer.touch(table);
        for stored in &rows {
            self.erase_row(table, &stored.row)?;
        }
        Ok(())
    }

    fn write_row(&mut self, table: &Table, row: &[Datum]) -> Result<()> {
        let key = key::row_key_of(table, row)?;
        for entry in self.entries(table, row)? {
            let value = entry_value(table, entry.index, row, &key)?;
            self.buffer.put(entry.key, Some(value))?;
        }
        self.buffer.put(key, Some(row::encode_row(table, row)?))
    }

    fn erase_row(&mut self, table: &Table, row: &[Datum]) -> Result<()> {
        for entry in self.entries(table, row)? {
            self.buffer.put(entry.key, None)?;
        }
        self.buffer.put(key::row_key_of(table, row)?, None)
    }

    /// Writes rows into a keyspace that has none but this transaction's: nothing to claim, and what is not in
    /// the buffer is nowhere.
    pub(super) fn load(&mut self, table: &Table, rows: Vec<Row>) -> Result<()> {
        for mut row in rows {
            if table.hidden_key {
                row.truncate(table.columns.len() - 1);
                row.push(Datum::Int8(self.context.ids.next()));
            }
            let key = key::row_key_of(table, &row)?;
            if matches!(self.buffer.get(&key), Some(Some(_))) {
                return Err(self.duplicated(table, &table.primary, &row));
            }
            for entry in self.entries(table, &row)? {
                if entry.exclusive && matches!(self.buffer.get(&entry.key), Some(Some(_))) {
                    return Err(self.duplicated(table, entry.index, &row));
                }
                let value = entry_value(table, entry.index, &row, &key)?;
                self.buffer.put(entry.key, Some(value))?;
            }
            self.buffer.put(key, Some(row::encode_row(table, &row)?))?;
        }
        Ok(())
    }

    /// Fills a new index from the rows visible now. (Of a leaderless table's each node makes it of its own rows, as
    /// soon as it learns of the index.)
    pub(super) fn fill_index(&mut self, table: &Arc<Table>, index: IndexId) -> Result<()> {
        if !table.is_strong() {
            return Ok(());
        }
        let Some(wanted) = table.index(index).cloned() else {
            return Err(Error::new("42704", "index does not exist"));
        };
        let scan = crate::api::Scan {
            table: table.clone(),
            index: IndexId::PRIMARY,
            range: crate::api::KeyRange::all(),
            direction: crate::api::Direction::Forward,
            columns: None,
        };
        let mut rows = crate::api::Transaction::scan(self, &scan)?;
        let mut batch = Vec::new();
        while rows.next_batch(1024, &mut batch)? > 0 {
            for stored in batch.drain(..) {
                let Some(entry) = self.entry(table, &wanted, &stored.row)? else { continue };
                if entry.exclusive && self.strong_value(&entry.key)?.is_some() {
                    return Err(self.duplicated(table, &wanted, &stored.row));
                }
                let row_key = key::row_key_of(table, &stored.row)?;
                self.buffer.put(entry.key, Some(entry_value(table, &wanted, &stored.row, &row_key)?))?;
            }
        }
        Ok(())
    }
}

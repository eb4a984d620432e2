//! Rows of leaderless tables: one operation a row, however often it is written.

use std::sync::Arc;

use amphora_storage::schema::{IndexId, Table};
use amphora_storage::{Row, Timestamp, key};

use super::HybridTransaction;
use super::buffer::WriteBuffer;
use crate::Result;
use crate::api::{InsertOutcome, OnConflict, StoredRow};
use crate::leaderless::surface::{self, PendingRow};

impl HybridTransaction {
    pub(super) fn leaderless_get(&self, table: &Table, key: &[u8]) -> Result<Option<StoredRow>> {
        self.leaderless_get_in(&self.buffer, table, key)
    }

    /// The row as this buffer over what is committed has it.
    pub(super) fn leaderless_get_in(
        &self,
        buffer: &WriteBuffer,
        table: &Table,
        key: &[u8],
    ) -> Result<Option<StoredRow>> {
        let row = match buffer.get_row(key) {
            Some(pending) => pending.row(table)?,
            None => match self.context.leaderless.state(key)? {
                Some(state) => surface::visible(table, &state)?,
                None => None,
            },
        };
        Ok(row.map(|row| StoredRow { row, version: Timestamp::ZERO }))
    }

    /// The row as buffered, or as found now.
    fn pending(&self, key: &[u8]) -> Result<PendingRow> {
        match self.buffer.get_row(key) {
            Some(pending) => Ok(pending.clone()),
            None => Ok(PendingRow::new(self.context.leaderless.state(key)?)),
        }
    }

    /// `old` is the row as the statement read it; `None` for an insert.
    fn put_leaderless(
        &mut self,
        table: &Arc<Table>,
        key: Vec<u8>,
        old: Option<&Row>,
        new: &Row,
    ) -> Result<()> {
        if !table.indexes.is_empty() {
            self.context.leaderless.check_row(table, &key, new)?;
        }
        let mut pending = self.pending(&key)?;
        pending.put(table, old.map(Vec::as_slice), new)?;
        self.buffer.put_row(key, table, pending)
    }

    fn erase_leaderless(&mut self, table: &Arc<Table>, key: Vec<u8>) -> Result<()> {
        let mut pending = self.pending(&key)?;
        pending.delete();
        self.buffer.put_row(key, table, pending)
    }

    pub(super) fn insert_leaderless(
        &mut self,
        table: &Arc<Table>,
        rows: Vec<Row>,
        on_conflict: &OnConflict,
    ) -> Result<Vec<InsertOutcome>> {
        let mut outcomes = Vec::with_capacity(rows.len());
        for row in rows {
            let key = key::row_key_of(table, &row)?;
            match self.leaderless_get(table, &key)? {
                Some(_) if *on_conflict == OnConflict::Error => {
                    return Err(self.unique_violation(table, IndexId::PRIMARY, &row));
                }
                Some(existing) => outcomes.push(InsertOutcome::Conflict(existing)),
                None => {
                    self.put_leaderless(table, key, None, &row)?;
                    outcomes.push(InsertOutcome::Inserted);
                }
            }
        }
        Ok(outcomes)
    }

    pub(super) fn update_leaderless(
        &mut self,
        table: &Arc<Table>,
        changes: Vec<(StoredRow, Row)>,
    ) -> Result<()> {
        let mut moved: Vec<(Vec<u8>, Row)> = Vec::new();
        for (old, new) in changes {
            let (from, to) = (key::row_key_of(table, &old.row)?, key::row_key_of(table, &new)?);
            if from == to {
                self.put_leaderless(table, to, Some(&old.row), &new)?;
            } else {
                self.erase_leaderless(table, from)?;
                moved.push((to, new));
            }
        }
        for (key, row) in moved {
            if self.leaderless_get(table, &key)?.is_some() {
                return Err(self.unique_violation(table, IndexId::PRIMARY, &row));
            }
            self.put_leaderless(table, key, None, &row)?;
        }
        Ok(())
    }

    pub(super) fn reset_leaderless(
        &mut self,
        table: &Arc<Table>,
        rows: &[StoredRow],
        columns: &[usize],
    ) -> Result<()> {
        for old in rows {
            let key = key::row_key_of(table, &old.row)?;
            let mut pending = self.pending(&key)?;
            pending.reset(table, columns);
            self.buffer.put_row(key, table, pending)?;
        }
        Ok(())
    }

    pub(super) fn delete_leaderless(&mut self, table: &Arc<Table>, rows: Vec<StoredRow>) -> Result<()> {
        for stored in rows {
            let key = key::row_key_of(table, &stored.row)?;
            self.erase_leaderless(table, key)?;
        }
        Ok(())
    }
}

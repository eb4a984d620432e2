//! How many rows of each table were written, for those who keep statistics.

use std::collections::HashMap;

use amphora_storage::key;
use amphora_storage::schema::{IndexId, TableId};
use parking_lot::Mutex;

/// Rows written by a batch.
#[derive(Default)]
pub(super) struct Written(Vec<(TableId, u64)>);

impl Written {
    /// Counts a write, if it is one of a row. A batch writes to few tables, usually one after the other.
    pub(super) fn add(&mut self, key: &[u8]) {
        let Some((table, IndexId::PRIMARY, _)) = key::split_prefix(key) else { return };
        match self.0.iter_mut().rev().find(|(known, _)| *known == table) {
            Some((_, count)) => *count += 1,
            None => self.0.push((table, 1)),
        }
    }
}

/// Rows written since the node started.
#[derive(Default)]
pub(super) struct Changes(Mutex<HashMap<TableId, u64>>);

impl Changes {
    pub(super) fn add(&self, written: Written) {
        let mut counts = self.0.lock();
        for (table, count) in written.0 {
            *counts.entry(table).or_insert(0) += count;
        }
    }

    pub(super) fn of(&self, table: TableId) -> u64 {
        self.0.lock().get(&table).copied().unwrap_or(0)
    }
}

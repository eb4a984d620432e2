//! Reads of the plain column families that must agree with each other.
//!
//! A batch is written to all families at once, and a scan keeps the data of the moment it was opened; but a read
//! after it, of another family, sees what came since. Whoever finds keys in one family and looks them up in
//! another takes a snapshot first.

use std::ops::Range;
use std::sync::Arc;

use rocksdb::{DB, ReadOptions, SnapshotWithThreadMode};

use super::batch::Cf;
use super::generation::Generation;
use super::scan::{Direction, PlainScan, extend};
use crate::error::Result;

/// The plain column families as they were at one moment, for as long as this lives.
pub struct PlainSnapshot {
    // Declared, and so dropped, before the database that it points into.
    snapshot: SnapshotWithThreadMode<'static, DB>,
    generation: Arc<Generation>,
}

impl PlainSnapshot {
    pub(super) fn new(generation: Arc<Generation>) -> PlainSnapshot {
        PlainSnapshot { snapshot: extend(&generation).snapshot(), generation }
    }

    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options
    }

    /// The values of keys; one answer a key, in order.
    pub fn multi_get<K: AsRef<[u8]>>(&self, cf: Cf, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
        let (db, family) = (self.generation.db(), self.generation.plain(cf)?);
        let found = db.batched_multi_get_cf_opt(family, keys, false, &self.options());
        found.into_iter().map(|value| Ok(value?.map(|bytes| bytes.to_vec()))).collect()
    }

    /// The keys of a range. It may outlive the snapshot.
    pub fn scan(&self, cf: Cf, range: Range<Vec<u8>>, direction: Direction) -> Result<PlainScan> {
        PlainScan::with(self.generation.clone(), self.options(), cf, range, direction)
    }
}

impl std::fmt::Debug for PlainSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainSnapshot").field("path", &self.generation.path()).finish_non_exhaustive()
    }
}

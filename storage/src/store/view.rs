//! Reads of one generation of the data.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use rocksdb::ReadOptions;

use super::batch::{APPLIED_KEY, Batch, Cf, JOINED_KEY};
use super::generation::Generation;
use super::scan::{Direction, PlainScan, Scan};
use super::snapshot::PlainSnapshot;
use crate::error::{Result, StorageError};
use crate::hlc::Timestamp;

thread_local! {
    /// The options of point reads: making them anew costs as much as finding the filter.
    static POINT_OPTIONS: RefCell<ReadOptions> = RefCell::default();
}

/// A version of a key of a strong table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The commit that wrote it
    pub ts: Timestamp,
    /// What it wrote
    pub value: Vec<u8>,
}

/// The data of a node between two [installs](super::Store::install). Reads see writes as they come; what
/// holds a view still is a timestamp, or a scan.
#[derive(Clone)]
pub struct View {
    generation: Arc<Generation>,
}

/// Separates a stored version into its timestamp and its value.
pub(super) fn split_version(stored: &[u8]) -> Result<(Timestamp, &[u8])> {
    let (ts, value) = stored
        .split_first_chunk::<8>()
        .ok_or_else(|| StorageError::corrupt("a version without a timestamp"))?;
    Ok((Timestamp(u64::from_le_bytes(*ts)), value))
}

impl View {
    pub(super) fn new(generation: Arc<Generation>) -> View {
        View { generation }
    }

    pub(super) fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    fn check_history(&self, at: Timestamp) -> Result<()> {
        let low = self.generation.history_low();
        if at < low { Err(StorageError::SnapshotTooOld { at, low }) } else { Ok(()) }
    }

    /// Read options "as of" a timestamp, if its history is still there.
    fn as_of(&self, at: Timestamp) -> Result<ReadOptions> {
        self.check_history(at)?;
        let mut options = ReadOptions::default();
        options.set_timestamp(at.0.to_le_bytes());
        Ok(options)
    }

    /// A failed read: that history was collected between our check and RocksDB's is no damage.
    fn read_error(&self, error: rocksdb::Error, at: Timestamp) -> StorageError {
        let low = self.generation.history_low();
        if at < low { StorageError::SnapshotTooOld { at, low } } else { error.into() }
    }

    /// See [`Store::get`](super::Store::get).
    pub fn get(&self, key: impl AsRef<[u8]>, at: Timestamp) -> Result<Option<Version>> {
        self.get_with(key, at, |ts, value| Ok(Version { ts, value: value.to_vec() }))
    }

    /// See [`Store::get_with`](super::Store::get_with).
    pub fn get_with<T>(
        &self,
        key: impl AsRef<[u8]>,
        at: Timestamp,
        read: impl FnOnce(Timestamp, &[u8]) -> Result<T>,
    ) -> Result<Option<T>> {
        self.check_history(at)?;
        let (db, family) = (self.generation.db(), self.generation.cf(Cf::Strong)?);
        let found = POINT_OPTIONS.with_borrow_mut(|options| {
            options.set_timestamp(at.0.to_le_bytes());
            db.get_pinned_cf_opt(family, key, options)
        });
        match found.map_err(|e| self.read_error(e, at))? {
            None => Ok(None),
            Some(stored) => {
                let (ts, value) = split_version(&stored)?;
                Ok(Some(read(ts, value)?))
            }
        }
    }

    /// See [`Store::multi_get`](super::Store::multi_get).
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K], at: Timestamp) -> Result<Vec<Option<Version>>> {
        let (generation, options) = (&self.generation, self.as_of(at)?);
        let found =
            generation.db().batched_multi_get_cf_opt(generation.cf(Cf::Strong)?, keys, false, &options);
        let version =
            |found: std::result::Result<Option<rocksdb::DBPinnableSlice<'_>>, rocksdb::Error>| match found
                .map_err(|e| self.read_error(e, at))?
            {
                None => Ok(None),
                Some(stored) => {
                    let (ts, value) = split_version(&stored)?;
                    Ok(Some(Version { ts, value: value.to_vec() }))
                }
            };
        found.into_iter().map(version).collect()
    }

    /// See [`Store::newest`](super::Store::newest).
    pub fn newest(&self, key: impl AsRef<[u8]>) -> Result<Timestamp> {
        let (generation, options) = (&self.generation, self.as_of(Timestamp::MAX)?);
        let found = generation.db().get_pinned_cf_opt(generation.cf(Cf::Strong)?, key, &options)?;
        found.map_or(Ok(Timestamp::ZERO), |stored| Ok(split_version(&stored)?.0))
    }

    /// See [`Store::scan`](super::Store::scan).
    pub fn scan(&self, range: Range<Vec<u8>>, at: Timestamp, direction: Direction) -> Result<Scan> {
        let options = self.as_of(at)?;
        Scan::new(self.generation.clone(), options, at, range, direction)
    }

    /// See [`Store::scan_once`](super::Store::scan_once).
    pub fn scan_once(&self, range: Range<Vec<u8>>, at: Timestamp, direction: Direction) -> Result<Scan> {
        let mut options = self.as_of(at)?;
        options.fill_cache(false);
        Scan::new(self.generation.clone(), options, at, range, direction)
    }

    /// See [`Store::get_plain`](super::Store::get_plain).
    pub fn get_plain(&self, cf: Cf, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let family = self.generation.plain(cf)?;
        Ok(self.generation.db().get_cf_opt(family, key, &ReadOptions::default())?)
    }

    /// See [`Store::scan_plain`](super::Store::scan_plain).
    pub fn scan_plain(&self, cf: Cf, range: Range<Vec<u8>>, direction: Direction) -> Result<PlainScan> {
        PlainScan::new(self.generation.clone(), cf, range, direction)
    }

    /// See [`Store::plain_snapshot`](super::Store::plain_snapshot).
    pub fn plain_snapshot(&self) -> PlainSnapshot {
        PlainSnapshot::new(self.generation.clone())
    }

    /// See [`Store::applied`](super::Store::applied).
    pub fn applied(&self) -> Result<Option<Vec<u8>>> {
        let mut options = ReadOptions::default();
        options.set_timestamp(Timestamp::MAX.0.to_le_bytes());
        Ok(self.generation.db().get_cf_opt(self.generation.cf(Cf::Strong)?, APPLIED_KEY, &options)?)
    }

    /// See [`Store::joined`](super::Store::joined).
    pub fn joined(&self) -> Result<Option<Vec<u8>>> {
        self.get_plain(Cf::Meta, JOINED_KEY)
    }

    /// Writes to this generation. Only for the new side of an [`install`](super::Store::install), which
    /// makes it durable; all else goes through [`Store::write`](super::Store::write).
    pub fn write(&self, batch: &Batch) -> Result<()> {
        self.generation.write(batch)
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("path", &self.generation.path()).finish_non_exhaustive()
    }
}

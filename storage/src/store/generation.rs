//! One RocksDB of the node's data, and which of those on disk it is.
//!
//! ```text
//!   DIR/CURRENT-DATA   "3"        the pointer: written beside, fsynced, renamed
//!   DIR/data-3/        RocksDB    what it points to
//!   DIR/data-2/        …          an older one, being deleted; or a newer one, never finished
//! ```

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB,
    DBCompressionType, FlushOptions, Options, WriteBatch, WriteOptions,
};

use super::StoreOptions;
use super::batch::{APPLIED_KEY, Batch, Cf, JOINED_KEY, Op};
use crate::error::{Result, StorageError};
use crate::file;
use crate::hlc::Timestamp;

/// The timestamp under which the applied record lies; never collected, always overwritten.
const APPLIED_TS: [u8; 8] = [0; 8];

/// An open database. Whoever reads holds it by `Arc`, so that it outlives being replaced.
pub(super) struct Generation {
    // Declared, and so dropped, before `folder`.
    db: DB,
    cache: Cache,
    history_low: AtomicU64,
    folder: Folder,
}

/// Deletes the folder when the database in it is closed, if it was replaced.
struct Folder {
    path: PathBuf,
    number: u64,
    obsolete: AtomicBool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire)
            && let Err(e) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(
                "could not delete \"{}\", it is tried again at the next start: {e}",
                self.path.display()
            );
        }
    }
}

/// Keys of the strong family end with their timestamp, 8 bytes, little endian.
fn without_ts(key: &[u8], has_ts: bool) -> &[u8] {
    if has_ts { &key[..key.len().saturating_sub(8)] } else { key }
}

fn ts_of(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// By key, newest version first.
fn compare_versions(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    let (a_key, a_ts) = a.split_at(a.len().saturating_sub(8));
    let (b_key, b_ts) = b.split_at(b.len().saturating_sub(8));
    compare_bytes(a_key, b_key).then_with(|| ts_of(b_ts).cmp(&ts_of(a_ts)))
}

/// As `a.cmp(b)`, faster for short keys: a point read compares some thirty of them, and a call of memcmp costs more
/// than two steps of eight bytes.
fn compare_bytes(mut a: &[u8], mut b: &[u8]) -> std::cmp::Ordering {
    while let (Some((a_word, a_rest)), Some((b_word, b_rest))) =
        (a.split_first_chunk::<8>(), b.split_first_chunk::<8>())
    {
        if a_word != b_word {
            return u64::from_be_bytes(*a_word).cmp(&u64::from_be_bytes(*b_word));
        }
        (a, b) = (a_rest, b_rest);
    }
    a.cmp(b)
}

impl Generation {
    /// Opens the database in a folder; `fresh` makes it.
    pub(super) fn open(
        path: &Path,
        number: u64,
        fresh: bool,
        options: &StoreOptions,
    ) -> Result<Arc<Generation>> {
        // Not the LRU cache: it is cut into shards, and what is greater than a shard, as a filter of a large
        // file is, never stays in it.
        let cache = Cache::new_hyper_clock_cache(options.block_cache_bytes, 0);
        let families =
            Cf::ALL.map(|cf| ColumnFamilyDescriptor::new(cf.name(), family_options(cf, &cache, options)));
        let db = DB::open_cf_descriptors(&database_options(fresh, options), path, families)
            .map_err(|e| open_error(path, e))?;
        let generation = Generation {
            db,
            cache,
            history_low: AtomicU64::new(0),
            folder: Folder { path: path.to_owned(), number, obsolete: AtomicBool::new(false) },
        };
        let low =
            generation.db.get_full_history_ts_low(generation.cf(Cf::Strong)?).map_or(0, |low| ts_of(&low));
        generation.history_low.store(low, Ordering::Release);
        Ok(Arc::new(generation))
    }

    pub(super) fn db(&self) -> &DB {
        &self.db
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder.path
    }

    pub(super) fn number(&self) -> u64 {
        self.folder.number
    }

    /// Its folder is deleted when the last reader has let go.
    pub(super) fn make_obsolete(&self) {
        self.folder.obsolete.store(true, Ordering::Release);
    }

    pub(super) fn cf(&self, cf: Cf) -> Result<&ColumnFamily> {
        let missing = || StorageError::corrupt(format!("column family \"{}\" is missing", cf.name()));
        self.db.cf_handle(cf.name()).ok_or_else(missing)
    }

    pub(super) fn history_low(&self) -> Timestamp {
        Timestamp(self.history_low.load(Ordering::Acquire))
    }

    pub(super) fn advance_history(&self, low: Timestamp) -> Result<()> {
        if low <= self.history_low() {
            return Ok(());
        }
        // Readers are refused first: nothing may be collected under one that was let in.
        self.history_low.fetch_max(low.0, Ordering::AcqRel);
        match self.db.increase_full_history_ts_low(self.cf(Cf::Strong)?, low.0.to_le_bytes()) {
            // Another thread was faster and went further.
            Err(e)
                if matches!(e.kind(), rocksdb::ErrorKind::TryAgain | rocksdb::ErrorKind::InvalidArgument) =>
            {
                Ok(())
            }
            other => Ok(other?),
        }
    }

    pub(super) fn write(&self, batch: &Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut out = WriteBatch::with_capacity_bytes(batch.size() + batch.len() * 24 + 64);
        let strong = self.cf(Cf::Strong)?;
        for op in batch.ops() {
            match op {
                Op::PutVersion { ts, key, value } => {
                    out.put_cf_with_ts(strong, batch.bytes(key), ts.0.to_le_bytes(), batch.bytes(value));
                }
                Op::DeleteVersion { ts, key } => {
                    out.delete_cf_with_ts(strong, batch.bytes(key), ts.0.to_le_bytes());
                }
                Op::Put { cf, key, value } => {
                    out.put_cf(self.plain(*cf)?, batch.bytes(key), batch.bytes(value))
                }
                Op::Delete { cf, key } => out.delete_cf(self.plain(*cf)?, batch.bytes(key)),
                Op::DeleteRange { cf, start, end } => {
                    out.delete_range_cf(self.plain(*cf)?, batch.bytes(start), batch.bytes(end));
                }
            }
        }
        if let Some(record) = batch.applied() {
            out.put_cf_with_ts(strong, APPLIED_KEY, APPLIED_TS, record);
        }
        if let Some(record) = batch.joined() {
            out.put_cf(self.plain(Cf::Meta)?, JOINED_KEY, record);
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        Ok(self.db.write_opt(out, &options)?)
    }

    /// A family that has no versions.
    pub(super) fn plain(&self, cf: Cf) -> Result<&ColumnFamily> {
        if cf == Cf::Strong {
            return Err(StorageError::Engine("the strong family has no plain keys".to_owned()));
        }
        self.cf(cf)
    }

    /// Flushes all families, atomically.
    pub(super) fn flush(&self) -> Result<()> {
        let families = Cf::ALL.iter().map(|cf| self.cf(*cf)).collect::<Result<Vec<_>>>()?;
        let mut options = FlushOptions::default();
        options.set_wait(true);
        Ok(self.db.flush_cfs_opt(&families, &options)?)
    }

    pub(super) fn approximate_size(&self, cf: Cf, range: &Range<Vec<u8>>) -> Result<u64> {
        let end = if range.end.is_empty() { &[0xff; 64][..] } else { &range.end };
        let sizes = self.db.get_approximate_sizes_cf(self.cf(cf)?, &[rocksdb::Range::new(&range.start, end)]);
        Ok(sizes.into_iter().sum())
    }

    pub(super) fn memory_usage(&self) -> u64 {
        let of = |property: &str| -> u64 {
            let family = |cf: &Cf| {
                let value = self.db.property_int_value_cf(self.cf(*cf).ok()?, property).ok()?;
                Some(value.unwrap_or(0))
            };
            Cf::ALL.iter().filter_map(family).sum()
        };
        of("rocksdb.cur-size-all-mem-tables")
            + of("rocksdb.estimate-table-readers-mem")
            + self.cache.get_usage() as u64
    }
}

fn database_options(fresh: bool, options: &StoreOptions) -> Options {
    let mut o = Options::default();
    o.create_if_missing(fresh);
    o.create_missing_column_families(true);
    o.set_atomic_flush(true);
    o.set_max_background_jobs(options.background_jobs);
    o.set_db_write_buffer_size(options.total_write_buffer_bytes);
    o.set_bytes_per_sync(1 << 20);
    o.set_max_open_files(512);
    o.set_keep_log_file_num(4);
    o.set_max_log_file_size(4 << 20);
    o.set_stats_dump_period_sec(0);
    o
}

/// A piece of an index or a filter.
const METADATA_BLOCK_BYTES: usize = 8 << 10;

/// After so many entries of a block a whole key is written, not only where it differs from the one before. A point
/// read walks half of them, each as dear as a step of the binary search that finds them; rows are much longer than
/// keys, so that it takes one percent more room than RocksDB's 16.
const RESTART_INTERVAL: i32 = 4;

fn family_options(cf: Cf, cache: &Cache, options: &StoreOptions) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(6);
    table.set_block_restart_interval(RESTART_INTERVAL);
    // Indexes and filters are in the cache, so that all memory is bounded by it, and in pieces, so that a
    // read needs a few kilobytes of them and not all that a file has.
    table.set_cache_index_and_filter_blocks(true);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(METADATA_BLOCK_BYTES);
    table.set_pin_top_level_index_and_filter(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut o = Options::default();
    o.set_block_based_table_factory(&table);
    o.set_compression_type(DBCompressionType::Lz4);
    o.set_write_buffer_size(options.write_buffer_bytes);
    o.set_max_write_buffer_number(3);
    o.set_target_file_size_base(32 << 20);
    if cf == Cf::Strong {
        o.set_comparator_with_ts(
            "amphora.bytewise-u64ts",
            8,
            Box::new(compare_versions),
            Box::new(|a, b| ts_of(a).cmp(&ts_of(b))),
            Box::new(|a, a_has, b, b_has| without_ts(a, a_has).cmp(without_ts(b, b_has))),
        );
    }
    o
}

fn open_error(path: &Path, error: rocksdb::Error) -> StorageError {
    let message = error.as_ref();
    if message.contains("LOCK") && (message.contains("lock hold") || message.contains("While lock file")) {
        return StorageError::Locked { path: path.to_owned(), holder: None };
    }
    if message.contains("does not exist") {
        return StorageError::corrupt(format!("\"{}\" holds no database: {message}", path.display()));
    }
    error.into()
}

/// Where the generations of a data directory lie.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub(super) fn new(dir: &Path) -> Layout {
        Layout { dir: dir.to_owned() }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn folder(&self, number: u64) -> PathBuf {
        self.dir.join(format!("data-{number}"))
    }

    fn pointer(&self) -> PathBuf {
        self.dir.join("CURRENT-DATA")
    }

    /// Decides, durably, which generation is the node's data.
    pub(super) fn point_to(&self, number: u64) -> Result<()> {
        file::replace(&self.pointer(), format!("{number}\n").as_bytes())
    }

    /// Opens the generation pointed to and deletes all others. A directory without any gets its first.
    pub(super) fn open(&self, options: &StoreOptions) -> Result<Arc<Generation>> {
        fs::create_dir_all(&self.dir).map_err(|e| StorageError::io("create directory", &self.dir, &e))?;
        let found = self.generations()?;
        let pointer = self.pointer();
        let damaged = |what: String| Err(StorageError::corrupt(what));
        let number = match fs::read_to_string(&pointer) {
            Ok(text) => match text.trim().parse::<u64>() {
                Ok(number) => Some(number),
                Err(_) => return damaged(format!("\"{}\" is not a number", pointer.display())),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(StorageError::io("read file", &pointer, &e)),
        };
        let generation = match number {
            Some(number) if found.contains(&number) => {
                Generation::open(&self.folder(number), number, false, options)?
            }
            Some(number) => {
                return damaged(format!("\"{}\" is missing", self.folder(number).display()));
            }
            // The very first start, or one that was cut off before the pointer was written.
            None if found.iter().all(|&n| n == 1) => {
                let generation = Generation::open(&self.folder(1), 1, true, options)?;
                self.point_to(1)?;
                generation
            }
            None => return damaged(format!("\"{}\" is missing", pointer.display())),
        };
        for other in found.into_iter().filter(|&n| n != generation.number()) {
            let folder = self.folder(other);
            fs::remove_dir_all(&folder).map_err(|e| StorageError::io("delete directory", &folder, &e))?;
        }
        Ok(generation)
    }

    fn generations(&self) -> Result<Vec<u64>> {
        let failed = |e: std::io::Error| StorageError::io("read directory", &self.dir, &e);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number =
                name.to_str().and_then(|n| n.strip_prefix("data-")).and_then(|n| n.parse::<u64>().ok());
            found.extend(number);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few values, so that long common beginnings are frequent.
        #[test]
        fn bytes_compare_as_slices_do(
            a in prop::collection::vec(prop::sample::select(vec![0u8, 1, 0x7f, 0x80, 0xff]), 0..28),
            b in prop::collection::vec(prop::sample::select(vec![0u8, 1, 0x7f, 0x80, 0xff]), 0..28),
            common in 0usize..28,
        ) {
            prop_assert_eq!(compare_bytes(&a, &b), a.cmp(&b));
            let b = [&a[..common.min(a.len())], &b[..]].concat();
            prop_assert_eq!(compare_bytes(&a, &b), a.cmp(&b));
            prop_assert_eq!(compare_bytes(&b, &a), b.cmp(&a));
        }
    }
}

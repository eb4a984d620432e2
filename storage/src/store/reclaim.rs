//! Giving back the space of dropped tables.
//!
//! RocksDB cannot delete a range of versioned keys in one go. So a dropped prefix is noted in `meta` in the
//! batch that drops it, and once no read can ask for its history any more: files that lie wholly inside it
//! are deleted, what is left gets deletions in bounded batches, and compaction, which may now collect them,
//! does the rest. The note goes last, after a flush, so a crash on the way starts over.

use super::Shared;
use super::batch::{Batch, Cf, DROPPED};
use super::scan::Direction;
use super::view::View;
use crate::error::{Result, StorageError};
use crate::hlc::Timestamp;
use crate::key;

/// Deletions per batch.
const BATCH: usize = 1000;

impl Shared {
    /// Reclaims all prefixes whose history has passed. Returns how many.
    pub(super) fn reclaim(&self) -> Result<usize> {
        let view = self.view();
        let low = view.generation().history_low();
        let mut finished = 0;
        for (prefix, at) in dropped(&view)? {
            if at < low {
                self.reclaim_prefix(&view, &prefix, at)?;
                finished += 1;
            }
        }
        Ok(finished)
    }

    fn reclaim_prefix(&self, view: &View, prefix: &[u8], at: Timestamp) -> Result<()> {
        let (generation, range) = (view.generation(), key::prefix_range(prefix));
        if range.end.is_empty() {
            return Err(StorageError::corrupt("a dropped prefix that is no table's"));
        }
        // The drop itself must be durable before anything of the table is gone.
        generation.flush()?;
        generation.db().delete_file_in_range_cf(generation.cf(Cf::Strong)?, &range.start, &range.end)?;
        let mut scan = view.scan(range, Timestamp::MAX, Direction::Forward)?;
        loop {
            let mut batch = Batch::new();
            while batch.len() < BATCH {
                match scan.next()? {
                    Some(entry) => batch.delete_strong(entry.key, at),
                    None => break,
                }
            }
            if batch.is_empty() {
                break;
            }
            generation.write(&batch)?;
        }
        generation.flush()?;
        let mut done = Batch::new();
        done.delete(Cf::Meta, [DROPPED, prefix].concat());
        generation.write(&done)
    }
}

/// The prefixes that wait, and when their tables were dropped.
fn dropped(view: &View) -> Result<Vec<(Vec<u8>, Timestamp)>> {
    let mut found = Vec::new();
    let mut scan = view.scan_plain(Cf::Meta, key::prefix_range(DROPPED), Direction::Forward)?;
    while let Some(entry) = scan.next()? {
        let at = entry.value.try_into().map_err(|_| StorageError::corrupt("the note of a dropped table"))?;
        found.push((entry.key[DROPPED.len()..].to_vec(), Timestamp(u64::from_le_bytes(at))));
    }
    Ok(found)
}

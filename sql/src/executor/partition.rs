//! Rows divided among files by the hash of their key, for operators whose hash table does not fit into
//! `work_mem`: what belongs together is in one file, and each file is worked on alone.
//!
//! ```text
//!   level 0    ├──0──┼──1──┼── … ──┼─31─┤      each file fits into memory, or is divided again,
//!   level 1          ├0┼1┼ … ┼31┤              with another hash
//! ```
//!
//! (DeWitt and Gerber 1985, "Multiprocessor hash-based join algorithms": the GRACE hash join.)

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher};

use amphora_storage::Datum;
use serde::Serialize;

use super::Runtime;
use super::spill::{Spill, SpillFile, Spilled};
use crate::error::Result;

/// Files that rows are divided among at a time.
const FANOUT: usize = 32;

/// How often rows are divided: thirty-two to the fourth files hold more than any disk.
pub(super) const MAX_LEVEL: u32 = 4;

/// Files that are being written, each when its first row comes.
pub(super) struct Partitions {
    files: Vec<Option<Spill>>,
    level: u32,
    bytes: u64,
}

impl Partitions {
    /// Files of this level, the first one being 0.
    pub(super) fn new(level: u32) -> Partitions {
        Partitions { files: std::iter::repeat_with(|| None).take(FANOUT).collect(), level, bytes: 0 }
    }

    /// Writes a row where its key belongs.
    pub(super) fn write<T: Serialize + ?Sized>(
        &mut self,
        run: &Runtime,
        key: &[Datum],
        row: &T,
    ) -> Result<()> {
        self.write_to(run, place(key, self.level), row)
    }

    /// Writes a row that has no key; it may be anywhere.
    pub(super) fn write_keyless<T: Serialize + ?Sized>(&mut self, run: &Runtime, row: &T) -> Result<()> {
        self.write_to(run, 0, row)
    }

    fn write_to<T: Serialize + ?Sized>(&mut self, run: &Runtime, place: usize, row: &T) -> Result<()> {
        run.guard.tick()?;
        let Some(slot) = self.files.get_mut(place) else { return Ok(()) };
        let file = match slot {
            Some(file) => file,
            None => slot.insert(run.new_spill()?),
        };
        let before = file.bytes();
        file.write(row)?;
        self.bytes += file.bytes() - before;
        Ok(())
    }

    /// Bytes written.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The level below the files'.
    pub(super) fn next_level(&self) -> u32 {
        self.level + 1
    }

    /// The files, in order; `None` has no rows.
    pub(super) fn finish(self) -> Result<Vec<Option<SpillFile>>> {
        self.files.into_iter().map(|file| file.map(Spill::finish).transpose()).collect()
    }
}

/// Where a key belongs on a level.
fn place(key: &[Datum], level: u32) -> usize {
    let mut hasher = BuildHasherDefault::<DefaultHasher>::default().build_hasher();
    level.hash(&mut hasher);
    key.hash(&mut hasher);
    (hasher.finish() % FANOUT as u64) as usize
}

/// Rows set aside in a file, to be worked on by themselves.
pub(super) struct Pending {
    /// The rows
    pub(super) rows: Spilled,
    /// The level of the files that they would be divided among
    pub(super) level: u32,
}

/// The files of a level that is complete, as work that is still to be done.
pub(super) fn pending(partitions: Partitions) -> Result<Vec<Pending>> {
    let level = partitions.next_level();
    let files = partitions.finish()?;
    Ok(files.into_iter().flatten().map(|file| Pending { rows: file.read(), level }).collect())
}

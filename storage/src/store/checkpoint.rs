//! Copies of the data, and taking one in the data's place.
//!
//! ```text
//!   received/ ──rename──► data-4/ ──open──► join(old, new) ──flush──► CURRENT-DATA := 4 ──► data-3/ deleted
//!                                                                            │
//!                     a crash before: data-3 is the data, data-4 is deleted ─┤
//!                     a crash after:  data-4 is the data, data-3 is deleted ─┘
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use rocksdb::checkpoint::Checkpoint;

use super::flush::Frontier;
use super::generation::Generation;
use super::view::View;
use super::{Store, StoreOptions};
use crate::error::{Result, StorageError};
use crate::file;

impl Store {
    /// Writes a copy of all data into a directory that does not exist yet; files are hard links where the
    /// file system allows it. Everything written before the call is inside. Returns the applied record of
    /// the copy.
    pub fn checkpoint(&self, dir: &Path) -> Result<Option<Vec<u8>>> {
        if dir.exists() {
            fs::remove_dir_all(dir).map_err(|e| StorageError::io("delete directory", dir, &e))?;
        }
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(|e| StorageError::io("create directory", parent, &e))?;
        }
        let view = self.view();
        // Unlogged writes are only in a checkpoint if they are flushed, and the applied record with them.
        // Writers wait, so that the copy holds exactly what the record says.
        let _still = self.shared.swap.write();
        view.generation().flush()?;
        let applied = view.applied()?;
        Checkpoint::new(view.generation().db())?.create_checkpoint(dir)?;
        file::sync_parent(dir)?;
        Ok(applied)
    }

    /// Where to put the files of a checkpoint that is being received: on the same file system as the data.
    pub fn incoming_dir(&self) -> PathBuf {
        self.layout.dir().join("incoming")
    }

    /// Takes a received checkpoint in the data's place. `join` gets the old data and the new, and writes
    /// into the new what only the old had; it must not call the store itself. The folder is moved, so it
    /// must lie on the data's file system ([`incoming_dir`](Store::incoming_dir)).
    ///
    /// Writes wait meanwhile. Whoever computes a write from what it read must hold
    /// [`merge_lock`](Store::merge_lock) around both, and so must the caller around this, or the write could land on data it
    /// was not computed from. Scans that are open keep reading the old data. On any error, and after any
    /// crash before the end, the old data is the data.
    pub fn install(&self, checkpoint: &Path, join: impl FnOnce(&View, &View) -> Result<()>) -> Result<()> {
        let _still = self.shared.swap.write();
        let old = self.view();
        let number = old.generation().number() + 1;
        let folder = self.layout.folder(number);
        remove(&folder)?;
        fs::rename(checkpoint, &folder).map_err(|e| StorageError::io("move directory to", &folder, &e))?;
        let installed = self.switch(&old, &folder, number, join);
        if installed.is_err() {
            // Closed by now. What cannot be deleted is deleted at the next start.
            let _ = remove(&folder);
        }
        installed
    }

    fn switch(
        &self,
        old: &View,
        folder: &Path,
        number: u64,
        join: impl FnOnce(&View, &View) -> Result<()>,
    ) -> Result<()> {
        let options: &StoreOptions = &self.shared.options;
        let new = View::new(Generation::open(folder, number, false, options)?);
        // Our own history limit also holds for the new data: reads below it were refused already.
        new.generation().advance_history(old.generation().history_low())?;
        join(old, &new)?;
        new.generation().flush()?;
        file::sync_dir(folder)?;
        file::sync_dir(self.layout.dir())?;
        let frontier = Frontier::of(&new)?;
        self.layout.point_to(number)?;
        self.shared.current.store(new.generation().clone());
        self.shared.flushed.reset(frontier);
        old.generation().make_obsolete();
        Ok(())
    }
}

fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder).map_err(|e| StorageError::io("delete directory", folder, &e))
}

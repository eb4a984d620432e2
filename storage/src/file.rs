//! Small files that must be whole or absent, whatever happens.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::error::{Result, StorageError};

/// Replaces a file: written beside, fsynced, renamed, and the rename fsynced. After a crash the file is
/// the old one or the new one.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    let beside = path.with_extension("new");
    let failed = |e: std::io::Error| StorageError::io("write file", &beside, &e);
    let mut file = File::create(&beside).map_err(failed)?;
    file.write_all(contents).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    drop(file);
    fs::rename(&beside, path).map_err(|e| StorageError::io("rename file to", path, &e))?;
    sync_parent(path)
}

/// Makes durable which names a directory holds.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| StorageError::io("fsync directory", dir, &e))
}

/// Makes durable that a file or directory exists under its name.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

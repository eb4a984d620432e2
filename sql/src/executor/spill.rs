//! Rows that do not fit into memory, in temporary files.
//!
//! A file is unlinked as soon as it is open: it has no name by which it could be left behind, and its space
//! is given back when it is closed, be it by a crash. Rows are written in order, and read in order as often
//! as is needed: every reader has a place of its own. What the files of one statement take is counted
//! against `temp_file_limit`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amphora_storage::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Result, SqlError};

/// Bytes read or written at a time.
const BUFFER: usize = 16 << 10;

/// Numbers the files of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// What the temporary files of a statement take, and may take.
#[derive(Debug)]
pub(super) struct TempSpace {
    /// Bytes, `u64::MAX` for no limit
    limit: u64,
    used: AtomicU64,
}

impl TempSpace {
    /// Space of so many bytes.
    pub(super) fn new(limit: u64) -> TempSpace {
        TempSpace { limit, used: AtomicU64::new(0) }
    }
}

/// Bytes taken of the space, given back when they are dropped.
struct Lease {
    space: Arc<TempSpace>,
    bytes: u64,
}

impl Lease {
    /// 53400 if there is no more.
    fn take(&mut self, bytes: u64) -> Result<()> {
        let before = self.space.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before.saturating_add(bytes) > self.space.limit {
            let message =
                format!("temporary file size exceeds temp_file_limit ({}kB)", self.space.limit >> 10);
            return Err(SqlError::new("53400", message));
        }
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.space.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A file that is being written.
pub(super) struct Spill {
    file: BufWriter<File>,
    rows: u64,
    lease: Lease,
}

/// A file that is complete.
#[derive(Clone)]
pub(super) struct SpillFile(Arc<Complete>);

struct Complete {
    file: File,
    rows: u64,
    /// Held as long as anyone can read it
    _lease: Lease,
}

/// A reader of a complete file.
pub(super) struct Spilled {
    file: BufReader<At>,
    left: u64,
    bytes: Vec<u8>,
}

/// A place in a file that others read too.
struct At {
    file: Arc<Complete>,
    offset: u64,
}

impl Read for At {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.file.read_at(into, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Spill {
    /// A new file in this directory.
    pub(super) fn new(directory: &Path, space: &Arc<TempSpace>) -> Result<Spill> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("spill-{}-{number}", std::process::id()));
        let open = || -> io::Result<File> {
            let options = || OpenOptions::new().create_new(true).read(true).write(true).open(&path);
            let file = match options() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(directory)?;
                    options()?
                }
                other => other?,
            };
            fs::remove_file(&path)?;
            Ok(file)
        };
        let file = open().map_err(|e| failed("create", &e))?;
        let lease = Lease { space: space.clone(), bytes: 0 };
        Ok(Spill { file: BufWriter::with_capacity(BUFFER, file), rows: 0, lease })
    }

    /// Writes a row, or whatever is kept of one.
    pub(super) fn write<T: Serialize + ?Sized>(&mut self, row: &T) -> Result<()> {
        let bytes = codec::encode(row);
        let length = u32::try_from(bytes.len())
            .map_err(|_| SqlError::out_of_memory("a row is too large for a temporary file"))?;
        self.lease.take(u64::from(length) + 4)?;
        let written = self.file.write_all(&length.to_le_bytes()).and_then(|()| self.file.write_all(&bytes));
        written.map_err(|e| failed("write to", &e))?;
        self.rows += 1;
        Ok(())
    }

    /// Bytes written.
    pub(super) fn bytes(&self) -> u64 {
        self.lease.bytes
    }

    /// The file, with all that was written.
    pub(super) fn finish(self) -> Result<SpillFile> {
        let file = self.file.into_inner().map_err(|e| failed("write to", e.error()))?;
        Ok(SpillFile(Arc::new(Complete { file, rows: self.rows, _lease: self.lease })))
    }
}

impl SpillFile {
    /// Rows in it.
    pub(super) fn rows(&self) -> u64 {
        self.0.rows
    }

    /// Reads it from its beginning.
    pub(super) fn read(&self) -> Spilled {
        let at = At { file: self.0.clone(), offset: 0 };
        Spilled { file: BufReader::with_capacity(BUFFER, at), left: self.0.rows, bytes: Vec::new() }
    }
}

impl Spilled {
    /// The next row; `None` at the end.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.file.read_exact(&mut length).map_err(|e| failed("read", &e))?;
        self.bytes.resize(u32::from_le_bytes(length) as usize, 0);
        self.file.read_exact(&mut self.bytes).map_err(|e| failed("read", &e))?;
        self.left -= 1;
        codec::decode(&self.bytes).map(Some).map_err(|e| SqlError::internal(format!("a temporary file: {e}")))
    }

    /// Rows not read yet.
    pub(super) fn left(&self) -> u64 {
        self.left
    }
}

/// 53100 for a full disk, else 58030.
fn failed(what: &str, error: &io::Error) -> SqlError {
    let sqlstate = if error.kind() == io::ErrorKind::StorageFull { "53100" } else { "58030" };
    SqlError::new(sqlstate, format!("could not {what} a temporary file: {error}"))
}

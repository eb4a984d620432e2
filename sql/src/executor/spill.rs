//! Rows that do not fit into memory, in temporary files.
//!
//! A file is unlinked as soon as it is open: it has no name by which it could be left behind, and its space
//! is given back when it is closed, be it by a crash. Rows are written and read in order, once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use amphora_storage::{Row, codec};

use crate::error::{Result, SqlError};

/// Bytes read or written at a time.
const BUFFER: usize = 64 << 10;

/// Numbers the files of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A file that is being written.
pub(super) struct Spill {
    file: BufWriter<File>,
    bytes: u64,
}

/// A file that is being read.
pub(super) struct Spilled {
    file: BufReader<File>,
    left: u64,
}

impl Spill {
    /// A new file in this directory.
    pub(super) fn new(directory: &Path) -> Result<Spill> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("spill-{}-{number}", std::process::id()));
        let open = || -> io::Result<File> {
            fs::create_dir_all(directory)?;
            let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path)?;
            fs::remove_file(&path)?;
            Ok(file)
        };
        let file = open().map_err(|e| failed("create", &e))?;
        Ok(Spill { file: BufWriter::with_capacity(BUFFER, file), bytes: 0 })
    }

    /// Writes a row's parts.
    pub(super) fn write(&mut self, row: &(Row, Row)) -> Result<()> {
        let bytes = codec::encode(row);
        let length = u32::try_from(bytes.len())
            .map_err(|_| SqlError::out_of_memory("a row is too large for a temporary file"))?;
        let written = self.file.write_all(&length.to_le_bytes()).and_then(|()| self.file.write_all(&bytes));
        written.map_err(|e| failed("write to", &e))?;
        self.bytes += u64::from(length) + 4;
        Ok(())
    }

    /// Bytes written.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file from its beginning.
    pub(super) fn read(self) -> Result<Spilled> {
        let mut file = self.file.into_inner().map_err(|e| failed("write to", e.error()))?;
        file.seek(SeekFrom::Start(0)).map_err(|e| failed("read", &e))?;
        Ok(Spilled { file: BufReader::with_capacity(BUFFER, file), left: self.bytes })
    }
}

impl Spilled {
    /// The next row's parts; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(Row, Row)>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.file.read_exact(&mut length).map_err(|e| failed("read", &e))?;
        let length = u32::from_le_bytes(length);
        let mut bytes = vec![0; length as usize];
        self.file.read_exact(&mut bytes).map_err(|e| failed("read", &e))?;
        self.left = self.left.saturating_sub(u64::from(length) + 4);
        codec::decode(&bytes).map(Some).map_err(|e| SqlError::internal(format!("a temporary file: {e}")))
    }
}

/// 53100 for a full disk, else 58030.
fn failed(what: &str, error: &io::Error) -> SqlError {
    let sqlstate = if error.kind() == io::ErrorKind::StorageFull { "53100" } else { "58030" };
    SqlError::new(sqlstate, format!("could not {what} a temporary file: {error}"))
}

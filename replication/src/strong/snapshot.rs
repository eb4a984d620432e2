//! Snapshots: RocksDB checkpoints, sent file by file.
//!
//! "Building" a snapshot only flushes what is in memory and notes which entry is on disk then: that is
//! all that purging the log needs. Files are linked (a checkpoint) when a peer needs them. Such a checkpoint may
//! hold later entries than the note says. That is harmless: the receiver knows from the data itself how
//! far it is, and skips what it has applied already.
//!
//! ```text
//!   sender                                    receiver
//!   checkpoint ──► Begin {vote, meta, files}  empty staging directory
//!              ──► Chunk {file, offset, crc}  checked, written           (…), no faster than it may
//!              ──► Install                    synced; Store::install swaps it in, openraft is told
//! ```

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::alias::SnapshotOf;
use tokio::task::spawn_blocking;

use super::replica::Replica;
use super::transport::SnapshotPart;
use super::types::{SnapshotMeta, TypeConfig, Vote};

/// Bytes in one piece.
const CHUNK: usize = 1 << 20;
/// Files in one snapshot, at most.
const MAX_FILES: usize = 100_000;

/// What openraft passes around as a snapshot's data.
#[derive(Clone)]
pub enum SnapshotData {
    /// This node's own data, from which a checkpoint is made when it is needed
    Own(Arc<Replica>),
    /// A checkpoint in a directory
    Staged(Arc<Directory>),
}

impl std::fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SnapshotData::Own(_) => f.write_str("Own"),
            SnapshotData::Staged(directory) => write!(f, "Staged({:?})", directory.path),
        }
    }
}

/// A directory that is removed with its owner.
#[derive(Debug)]
pub struct Directory {
    /// Where
    pub path: PathBuf,
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Gone if it was installed.
        let _ = fs::remove_dir_all(&self.path);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

/// The directory of a snapshot, made now if need be.
pub async fn directory(data: SnapshotData) -> io::Result<Arc<Directory>> {
    match data {
        SnapshotData::Staged(directory) => Ok(directory),
        SnapshotData::Own(replica) => {
            blocking(move || {
                let path = replica.snapshots.join(format!("out-{:016x}", rand::random::<u64>()));
                let directory = Directory { path };
                replica.checkpoint(&directory.path)?;
                Ok(Arc::new(directory))
            })
            .await
        }
    }
}

/// A snapshot on its way to a peer.
pub struct Outgoing {
    transfer: u64,
    begin: Option<(Vote, SnapshotMeta)>,
    directory: Arc<Directory>,
    files: Arc<Vec<(String, u64)>>,
    file: usize,
    offset: u64,
}

impl Outgoing {
    /// Makes the checkpoint and lists its files.
    pub async fn open(vote: Vote, snapshot: SnapshotOf<TypeConfig, SnapshotData>) -> io::Result<Outgoing> {
        let directory = directory(snapshot.snapshot).await?;
        let listed = directory.clone();
        let files = blocking(move || {
            let mut files = Vec::new();
            for entry in fs::read_dir(&listed.path)? {
                let entry = entry?;
                let name = entry.file_name().into_string().map_err(|n| io::Error::other(format!("{n:?}")))?;
                files.push((name, entry.metadata()?.len()));
            }
            Ok(files)
        })
        .await?;
        let begin = Some((vote, snapshot.meta));
        Ok(Outgoing {
            transfer: rand::random(),
            begin,
            directory,
            files: Arc::new(files),
            file: 0,
            offset: 0,
        })
    }

    /// The next part to send, but for the last.
    pub async fn next(&mut self) -> io::Result<Option<SnapshotPart>> {
        let transfer = self.transfer;
        if let Some((vote, meta)) = self.begin.take() {
            let files = self.files.as_ref().clone();
            return Ok(Some(SnapshotPart::Begin { transfer, vote, meta, files }));
        }
        loop {
            let Some((name, size)) = self.files.get(self.file).cloned() else { return Ok(None) };
            if self.offset >= size {
                self.file += 1;
                self.offset = 0;
                continue;
            }
            let path = self.directory.path.join(name);
            let (file, offset) = (self.file as u32, self.offset);
            let length = CHUNK.min((size - offset) as usize);
            let bytes = blocking(move || {
                let mut file = fs::File::open(path)?;
                file.seek(SeekFrom::Start(offset))?;
                let mut bytes = vec![0; length];
                file.read_exact(&mut bytes)?;
                Ok(bytes)
            })
            .await?;
            self.offset += length as u64;
            let crc = crc32fast::hash(&bytes);
            return Ok(Some(SnapshotPart::Chunk { transfer, file, offset, crc, bytes: bytes.into() }));
        }
    }

    /// The last part.
    pub fn install(&self) -> SnapshotPart {
        SnapshotPart::Install { transfer: self.transfer }
    }
}

/// A snapshot on its way in.
pub struct Incoming {
    transfer: u64,
    vote: Vote,
    meta: SnapshotMeta,
    directory: Arc<Directory>,
    files: Vec<(String, u64)>,
    /// Bytes received of each file
    received: Vec<u64>,
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// A file name that names nothing outside its directory.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() < 256
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && name != "."
        && name != ".."
}

impl Incoming {
    /// Makes room for a transfer under `snapshots`.
    pub async fn begin(
        snapshots: &Path,
        transfer: u64,
        vote: Vote,
        meta: SnapshotMeta,
        files: Vec<(String, u64)>,
    ) -> io::Result<Incoming> {
        if files.len() > MAX_FILES || !files.iter().all(|(name, _)| is_plain(name)) {
            return Err(refused("the list of files is not one of a checkpoint"));
        }
        let path = snapshots.join(format!("in-{transfer:016x}"));
        let received = vec![0; files.len()];
        let names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
        let directory = blocking(move || {
            fs::create_dir_all(&path)?;
            for name in names {
                fs::File::create(path.join(name))?;
            }
            Ok(Arc::new(Directory { path }))
        })
        .await?;
        Ok(Incoming { transfer, vote, meta, directory, files, received })
    }

    /// True if this is the transfer meant.
    pub fn is(&self, transfer: u64) -> bool {
        self.transfer == transfer
    }

    /// Writes a piece. A piece that was written already (its acknowledgement was lost) is no error.
    pub async fn write(&mut self, file: u32, offset: u64, crc: u32, bytes: bytes::Bytes) -> io::Result<()> {
        let at = file as usize;
        let (Some((name, size)), Some(received)) = (self.files.get(at), self.received.get(at).copied())
        else {
            return Err(refused("no such file in this transfer"));
        };
        let end = offset.checked_add(bytes.len() as u64).filter(|end| end <= size);
        let Some(end) = end else { return Err(refused("a piece beyond its file's end")) };
        if crc32fast::hash(&bytes) != crc {
            return Err(refused("a piece's checksum does not match"));
        }
        if end <= received {
            return Ok(());
        }
        if offset != received {
            return Err(refused("a piece out of order"));
        }
        let path = self.directory.path.join(name);
        blocking(move || {
            let mut file = fs::OpenOptions::new().append(true).open(path)?;
            file.write_all(&bytes)
        })
        .await?;
        if let Some(received) = self.received.get_mut(at) {
            *received = end;
        }
        Ok(())
    }

    /// All there: synced, and ready for openraft.
    pub async fn finish(self) -> io::Result<(Vote, SnapshotOf<TypeConfig, SnapshotData>)> {
        if self.files.iter().zip(&self.received).any(|((_, size), received)| size != received) {
            return Err(refused("the transfer is not complete"));
        }
        let path = self.directory.path.clone();
        let names: Vec<String> = self.files.into_iter().map(|(name, _)| name).collect();
        blocking(move || {
            for name in names {
                fs::File::open(path.join(name))?.sync_all()?;
            }
            fs::File::open(&path)?.sync_all()
        })
        .await?;
        let snapshot = SnapshotOf::<TypeConfig, SnapshotData> {
            meta: self.meta,
            snapshot: SnapshotData::Staged(self.directory),
        };
        Ok((self.vote, snapshot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        assert!(is_plain("000012.sst") && is_plain("MANIFEST-000004") && is_plain("CURRENT"));
        for name in ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\0b"] {
            assert!(!is_plain(name), "{name:?}");
        }
    }
}

//! What can go wrong on this floor, and what an operator does about it.

use std::path::{Path, PathBuf};

use crate::hlc::Timestamp;

/// The result of everything fallible on this floor.
pub type Result<T> = std::result::Result<T, StorageError>;

/// An error of storage. Its text is a primary message in PostgreSQL's style; [`hint`](Self::hint) says
/// what to do next and [`sqlstate`](Self::sqlstate) what a client is told. It clones, because one failed
/// fsync is reported to everyone who waited for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// A file or directory could not be worked with
    #[error("could not {action} \"{}\": {message}", path.display())]
    Io {
        /// `open file`, `create directory`, …
        action: &'static str,
        /// Which
        path: PathBuf,
        /// The system's words
        message: String,
    },
    /// The disk is full
    #[error("no space left on the device of the data directory: {message}")]
    DiskFull {
        /// The system's words
        message: String,
    },
    /// Stored bytes are not what was written
    #[error("stored data is damaged: {what}")]
    Corrupt {
        /// What was found
        what: String,
        /// What to do
        hint: String,
    },
    /// Another process works in this data directory
    #[error("data directory \"{}\" is in use by another process{}", path.display(), holder.map_or_else(String::new, |p| format!(" (pid {p})")))]
    Locked {
        /// The data directory
        path: PathBuf,
        /// Who holds it, if it said so
        holder: Option<u32>,
    },
    /// The data directory was written by an Amphora with another format
    #[error("data directory \"{}\" has format version {found}, this program reads {supported} only", path.display())]
    FormatVersion {
        /// The data directory
        path: PathBuf,
        /// Its version
        found: u32,
        /// Ours
        supported: u32,
    },
    /// The data directory belongs to another cluster
    #[error("data directory \"{}\" belongs to cluster {found}, not to cluster {expected}", path.display())]
    WrongCluster {
        /// The data directory
        path: PathBuf,
        /// The cluster it belongs to
        found: uuid::Uuid,
        /// The cluster asked for
        expected: uuid::Uuid,
    },
    /// A read asked for versions that are collected already
    #[error("snapshot too old: versions before {low} are collected, {at} was asked for")]
    SnapshotTooOld {
        /// The timestamp read at
        at: Timestamp,
        /// The oldest that can be read
        low: Timestamp,
    },
    /// A value that is nested deeper than storage takes
    #[error("value is nested more than {0} levels deep")]
    TooDeep(usize),
    /// An append that would leave a hole in the Raft log
    #[error("raft log entry {found} was appended where {expected} is next")]
    LogGap {
        /// The index that is next
        expected: u64,
        /// The index given
        found: u64,
    },
    /// The store is being closed
    #[error("storage is shutting down")]
    Closed,
    /// RocksDB refused, for none of the reasons above
    #[error("storage engine: {0}")]
    Engine(String),
}

impl StorageError {
    /// Damage, with the hint that fits a single node of a cluster.
    pub fn corrupt(what: impl Into<String>) -> StorageError {
        StorageError::Corrupt {
            what: what.into(),
            hint: "Check the disk. Remove this node from the cluster and let it join again with an empty \
                   data directory, or restore a backup."
                .to_owned(),
        }
    }

    /// A failed file operation.
    pub fn io(action: &'static str, path: impl AsRef<Path>, error: &std::io::Error) -> StorageError {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return StorageError::DiskFull { message: error.to_string() };
        }
        StorageError::Io { action, path: path.as_ref().to_owned(), message: error.to_string() }
    }

    /// The code a client is told, from PostgreSQL's appendix A.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            StorageError::Io { .. } => "58030",
            StorageError::DiskFull { .. } => "53100",
            StorageError::Corrupt { .. } => "XX001",
            StorageError::Locked { .. } => "55006",
            StorageError::FormatVersion { .. } | StorageError::WrongCluster { .. } => "F0000",
            StorageError::SnapshotTooOld { .. } => "72000",
            StorageError::TooDeep(_) => "54001",
            StorageError::Closed => "57P01",
            StorageError::LogGap { .. } => "XX000",
            StorageError::Engine(_) => "58000",
        }
    }

    /// What to do next, in a sentence.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            StorageError::Corrupt { hint, .. } => return Some(hint.clone()),
            StorageError::DiskFull { .. } => {
                "Free space on the device, then restart the node if it does not recover by itself."
            }
            StorageError::Io { .. } => "Check the path, its permissions and the disk.",
            StorageError::Locked { .. } => {
                "Stop the other process, or give this one another directory with --data-dir."
            }
            StorageError::FormatVersion { .. } => "Start the Amphora version that wrote it.",
            StorageError::WrongCluster { .. } => {
                "Give the right --data-dir or --join, or empty the directory to let this node join anew."
            }
            StorageError::SnapshotTooOld { .. } => {
                "Run the transaction again, or read a time inside the retention window."
            }
            StorageError::Engine(_) => "See the LOG file in the data directory.",
            StorageError::TooDeep(_) | StorageError::Closed | StorageError::LogGap { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// RocksDB has one error type whose text says what happened.
impl From<rocksdb::Error> for StorageError {
    fn from(error: rocksdb::Error) -> StorageError {
        let kind = error.kind();
        let message = error.into_string();
        if message.contains("No space left") {
            return StorageError::DiskFull { message };
        }
        match kind {
            rocksdb::ErrorKind::Corruption => StorageError::corrupt(message),
            rocksdb::ErrorKind::ShutdownInProgress => StorageError::Closed,
            _ => StorageError::Engine(message),
        }
    }
}

impl From<StorageError> for std::io::Error {
    fn from(error: StorageError) -> std::io::Error {
        let kind = match error {
            StorageError::DiskFull { .. } => std::io::ErrorKind::StorageFull,
            StorageError::Corrupt { .. } => std::io::ErrorKind::InvalidData,
            _ => std::io::ErrorKind::Other,
        };
        std::io::Error::new(kind, error)
    }
}

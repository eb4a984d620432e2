//! A node's data directory: who may use it, and whose it is.
//!
//! ```text
//!   DIR/LOCK           held by the running process, its pid inside
//!   DIR/IDENTITY       which cluster and which node this is
//!   DIR/JOIN-TOKEN     what a node that has no identity yet asks for one with
//!   DIR/REMOVED        the cluster has removed this node; why
//!   DIR/CURRENT-DATA   ┐
//!   DIR/data-N/        ┘ the data            (store)
//!   DIR/raft/          the Raft log          (raft_log)
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Result, StorageError};
use crate::file;

/// The format of the whole directory that this program writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 6;

/// Whose a data directory is. Written once, when the node has become a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Format of the directory
    pub format_version: u32,
    /// The cluster
    pub cluster_id: Uuid,
    /// The node within it
    pub node_id: u64,
    /// Made by the node before it first asked to join, so that a repeated request is recognized
    pub join_token: Uuid,
    /// The clusters that this one was made of by force, after the loss of their majorities; the last is the newest
    #[serde(default)]
    pub former_clusters: Vec<Uuid>,
}

impl Identity {
    /// An identity in today's format.
    pub fn new(cluster_id: Uuid, node_id: u64, join_token: Uuid) -> Identity {
        Identity {
            format_version: FORMAT_VERSION,
            cluster_id,
            node_id,
            join_token,
            former_clusters: Vec::new(),
        }
    }
}

/// A data directory that this process holds. Dropping it lets go.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is not there, and takes it for this process.
    pub fn open(path: impl Into<PathBuf>) -> Result<DataDir> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(|e| StorageError::io("create directory", &path, &e))?;
        let lock = lock(&path)?;
        let directory = DataDir { path, _lock: lock };
        // What an earlier process left is of no use.
        let temp = directory.temp_dir();
        if temp.exists() {
            fs::remove_dir_all(&temp).map_err(|e| StorageError::io("remove directory", &temp, &e))?;
        }
        Ok(directory)
    }

    /// Where temporary files may be made; emptied whenever the directory is opened.
    pub fn temp_dir(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn identity_path(&self) -> PathBuf {
        self.path.join("IDENTITY")
    }

    /// Whose it is; `None` if it is new.
    pub fn identity(&self) -> Result<Option<Identity>> {
        let path = self.identity_path();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StorageError::io("read file", &path, &e)),
        };
        // The version is read alone first: another format may have other fields.
        #[derive(Deserialize)]
        struct Format {
            format_version: u32,
        }
        let damaged = |e: serde_json::Error| StorageError::corrupt(format!("\"{}\": {e}", path.display()));
        let format: Format = serde_json::from_str(&text).map_err(damaged)?;
        if format.format_version != FORMAT_VERSION {
            return Err(StorageError::FormatVersion {
                path: self.path.clone(),
                found: format.format_version,
                supported: FORMAT_VERSION,
            });
        }
        serde_json::from_str(&text).map(Some).map_err(damaged)
    }

    /// The token with which this directory's node asks to join: made at the first call, durably, and the
    /// same ever after.
    pub fn join_token(&self) -> Result<Uuid> {
        let path = self.path.join("JOIN-TOKEN");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let token = Uuid::new_v4();
                file::replace(&path, format!("{token}\n").as_bytes())?;
                return Ok(token);
            }
            Err(e) => return Err(StorageError::io("read file", &path, &e)),
        };
        let token = text.trim().parse();
        token.map_err(|e| StorageError::corrupt(format!("\"{}\": {e}", path.display())))
    }

    /// Notes, durably, that the cluster has removed this node.
    pub fn mark_removed(&self, why: &str) -> Result<()> {
        file::replace(&self.path.join("REMOVED"), format!("{why}\n").as_bytes())
    }

    /// Why the cluster does not want this node any more, if so.
    pub fn removed(&self) -> Result<Option<String>> {
        let path = self.path.join("REMOVED");
        match fs::read_to_string(&path) {
            Ok(why) => Ok(Some(why.trim().to_owned())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StorageError::io("read file", &path, &e)),
        }
    }

    /// As [`identity`](DataDir::identity), and an error if it is another cluster's.
    pub fn identity_of(&self, cluster: Uuid) -> Result<Option<Identity>> {
        match self.identity()? {
            Some(identity) if identity.cluster_id != cluster => Err(StorageError::WrongCluster {
                path: self.path.clone(),
                found: identity.cluster_id,
                expected: cluster,
            }),
            other => Ok(other),
        }
    }

    /// Says, durably, whose it is.
    pub fn write_identity(&self, identity: &Identity) -> Result<()> {
        let text = serde_json::to_string_pretty(identity)
            .map_err(|e| StorageError::Engine(format!("an identity cannot be written: {e}")))?;
        file::replace(&self.identity_path(), format!("{text}\n").as_bytes())
    }
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("LOCK");
    let failed = |e: std::io::Error| StorageError::io("open file", &path, &e);
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let holder = file.read_to_string(&mut pid).ok().and_then(|_| pid.trim().parse().ok());
            return Err(StorageError::Locked { path: dir.to_owned(), holder });
        }
        Err(TryLockError::Error(e)) => return Err(StorageError::io("lock file", &path, &e)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(|e| StorageError::io("write file", &path, &e))?;
    Ok(file)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&dir.path().display().to_string()), "{text}");
        assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
        drop(held);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn identity_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::open(dir.path().join("deep/er")).unwrap();
        assert_eq!(held.identity().unwrap(), None);
        assert_eq!(held.join_token().unwrap(), held.join_token().unwrap());
        let identity = Identity::new(Uuid::new_v4(), 3, Uuid::new_v4());
        held.write_identity(&identity).unwrap();
        assert_eq!(held.identity().unwrap(), Some(identity.clone()));
        assert_eq!(held.identity_of(identity.cluster_id).unwrap(), Some(identity.clone()));
        let other = Uuid::new_v4();
        assert!(matches!(held.identity_of(other), Err(StorageError::WrongCluster { .. })));
    }

    #[test]
    fn newer_formats_and_damage_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::open(dir.path()).unwrap();
        fs::write(dir.path().join("IDENTITY"), r#"{"format_version": 99, "new": true}"#).unwrap();
        assert!(matches!(held.identity(), Err(StorageError::FormatVersion { found: 99, .. })));
        fs::write(dir.path().join("IDENTITY"), "{").unwrap();
        assert!(matches!(held.identity(), Err(StorageError::Corrupt { .. })));
    }
}

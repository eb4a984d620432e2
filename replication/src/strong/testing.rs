//! Groups of one process for tests: a wire with cuts in it, and nodes that can be stopped and started.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use amphora_storage::store::{Batch, Store, StoreOptions};
use amphora_storage::{Hlc, RaftLog, RaftLogOptions, StorageError, Timestamp, codec};
use async_trait::async_trait;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::NodeId;
use crate::api::LockMode;

/// Hands requests over in memory, encoded and decoded as a real wire would, unless the link is cut.
#[derive(Default)]
pub struct Wire {
    groups: Mutex<HashMap<NodeId, Group>>,
    cut: Mutex<HashSet<(NodeId, NodeId)>>,
    /// From whom replies to commits do not come back
    mute: Mutex<HashSet<NodeId>>,
    /// Whoever is told to take over leadership is cut off at that moment
    pub loses_successors: AtomicBool,
    /// Every third piece of a snapshot is lost, before or after it arrives
    pub breaks_snapshots: AtomicBool,
    /// Snapshots begun, and their pieces on the way
    pub snapshots: (AtomicU64, AtomicU64),
}

impl Wire {
    pub fn cut(&self, a: NodeId, b: NodeId) {
        self.cut.lock().extend([(a, b), (b, a)]);
    }

    pub fn heal(&self) {
        self.cut.lock().clear();
        self.mute.lock().clear();
    }

    pub fn lose_commit_replies_of(&self, node: NodeId) {
        self.mute.lock().insert(node);
    }
}

/// One node's end of the wire.
pub struct End {
    pub wire: Arc<Wire>,
    pub from: NodeId,
}

#[async_trait]
impl Transport for End {
    async fn call(
        &self,
        target: NodeId,
        _address: &str,
        request: Request,
        deadline: Duration,
    ) -> Result<Reply, TransportError> {
        if let Request::TransferLeader(order) = &request
            && self.wire.loses_successors.load(Ordering::Relaxed)
        {
            let nodes: Vec<NodeId> = self.wire.groups.lock().keys().copied().collect();
            nodes.into_iter().for_each(|node| self.wire.cut(*order.to_node_id(), node));
        }
        if self.wire.cut.lock().contains(&(self.from, target)) {
            tokio::time::sleep(deadline.min(Duration::from_millis(200))).await;
            return Err(TransportError::Lost(target, "cut".to_owned()));
        }
        let group = self.wire.groups.lock().get(&target).cloned();
        let Some(group) = group else {
            return Err(TransportError::Unreachable(target, "down".to_owned()));
        };
        if let Request::Snapshot(part) = &request {
            if matches!(part, super::transport::SnapshotPart::Begin { .. }) {
                self.wire.snapshots.0.fetch_add(1, Ordering::Relaxed);
            }
            let n = self.wire.snapshots.1.fetch_add(1, Ordering::Relaxed);
            let last = matches!(part, super::transport::SnapshotPart::Install { .. });
            if self.wire.breaks_snapshots.load(Ordering::Relaxed) && n % 3 == 2 && !last {
                if n.is_multiple_of(2) {
                    group.handle(self.from, request).await;
                }
                return Err(TransportError::Lost(target, "broken".to_owned()));
            }
        }
        let is_commit = matches!(request, Request::Commit { .. });
        let request: Request = codec::decode(&codec::encode(&request)).unwrap();
        let reply = tokio::time::timeout(deadline, group.handle(self.from, request)).await;
        let lost = TransportError::Lost(target, "lost".to_owned());
        if is_commit && self.wire.mute.lock().contains(&target)
            || self.wire.cut.lock().contains(&(target, self.from))
        {
            return Err(lost);
        }
        reply.map(|reply| codec::decode(&codec::encode(&reply)).unwrap()).map_err(|_| lost)
    }
}

/// Leaderless operations are written down under their own bytes.
#[derive(Default)]
pub struct Note {
    /// Entries with such operations are not applied for now
    pub stopped: Arc<AtomicBool>,
}

struct Noted(Vec<Vec<u8>>);

impl ApplyHook for Note {
    fn begin(&self) -> Box<dyn ApplyOps + '_> {
        while self.stopped.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Box::new(Noted(Vec::new()))
    }
}

impl ApplyOps for Noted {
    fn apply(&mut self, _: u64, _: Timestamp, ops: &[u8]) -> crate::Result<()> {
        self.0.push(ops.to_vec());
        Ok(())
    }

    fn stage(&mut self, batch: &mut Batch) {
        for ops in &self.0 {
            batch.put(amphora_storage::Cf::Leaderless, ops, b"applied");
        }
    }
}

impl InstallHook for Note {
    fn install(&self, store: &Store, directory: &Path) -> Result<(), StorageError> {
        store.install(directory, |_, _| Ok(()))
    }
}

/// A node while it runs.
pub struct Node {
    pub id: NodeId,
    /// Whether entries with leaderless operations wait to be applied
    pub stopped: Arc<AtomicBool>,
    pub store: Arc<Store>,
    pub group: Group,
}

/// Nodes on one wire.
pub struct Cluster {
    pub wire: Arc<Wire>,
    pub nodes: Vec<Node>,
    pub limits: LogLimits,
    root: TempDir,
}

pub fn member(id: NodeId) -> Member {
    Member { rpc_address: format!("memory:{id}"), ..Member::default() }
}

/// Opens a store. A group that was stopped in this process may still be letting go of it: its last task,
/// a flush, say, ends when it ends.
pub fn open_store(dir: &Path) -> Arc<Store> {
    let start = std::time::Instant::now();
    loop {
        match Store::open(dir, StoreOptions::default()) {
            Err(StorageError::Locked { .. }) if start.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            opened => return opened.unwrap(),
        }
    }
}

pub fn open_log(dir: &Path) -> Arc<RaftLog> {
    RaftLog::open(dir, RaftLogOptions::default()).unwrap()
}

impl Cluster {
    /// A cluster of one.
    pub async fn one() -> Cluster {
        Cluster::with_limits(LogLimits::default()).await
    }

    pub async fn with_limits(limits: LogLimits) -> Cluster {
        let root = tempfile::tempdir().unwrap();
        let mut cluster = Cluster { wire: Arc::default(), nodes: Vec::new(), limits, root };
        cluster.start(1).await;
        cluster.nodes[0].group.bootstrap().await.unwrap();
        cluster
    }

    /// Three voters, the first leads.
    pub async fn three() -> Cluster {
        Cluster::three_with(LogLimits::default()).await
    }

    /// The same, with these limits of their logs.
    pub async fn three_with(limits: LogLimits) -> Cluster {
        let mut cluster = Cluster::with_limits(limits).await;
        cluster.join().await;
        cluster.join().await;
        cluster
            .until("all are voters", |c| {
                c.nodes.iter().all(|n| n.group.members().iter().filter(|(_, _, voter)| *voter).count() == 3)
            })
            .await;
        cluster
    }

    pub async fn start(&mut self, id: NodeId) {
        let dir = self.root.path().join(id.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let store = open_store(&dir);
        let hook = Arc::new(Note::default());
        let group = Group::start(GroupConfig {
            node_id: id,
            member: member(id),
            store: store.clone(),
            raft_log: open_log(&dir),
            snapshots: dir.join("snapshots"),
            clock: Arc::new(Hlc::new(Hlc::DEFAULT_DRIFT)),
            transport: Arc::new(End { wire: self.wire.clone(), from: id }),
            hook: hook.clone(),
            install: hook.clone(),
            timing: Timing { patience: Duration::from_secs(3), ..Timing::default() },
            log_limits: self.limits.clone(),
        })
        .await
        .unwrap();
        self.wire.groups.lock().insert(id, group.clone());
        self.nodes.push(Node { id, stopped: hook.stopped.clone(), store, group });
    }

    /// What a crash would leave of a node at this moment, started on a wire of its own.
    pub async fn crashed_copy(&self, id: NodeId) -> Cluster {
        self.start_copy(id, self.copy_of(id)).await
    }

    /// What a crash would leave of a node at this moment: its directory is `id` in this one.
    pub fn copy_of(&self, id: NodeId) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        copy(&self.root.path().join(id.to_string()), &root.path().join(id.to_string()));
        root
    }

    /// The log of a copy becomes what the node's is by now.
    pub fn copy_log(&self, id: NodeId, root: &TempDir) {
        let log = Path::new(&id.to_string()).join("raft");
        std::fs::remove_dir_all(root.path().join(&log)).unwrap();
        copy(&self.root.path().join(&log), &root.path().join(&log));
    }

    /// Starts a copy on a wire of its own.
    pub async fn start_copy(&self, id: NodeId, root: TempDir) -> Cluster {
        let limits = self.limits.clone();
        let mut cluster = Cluster { wire: Arc::default(), nodes: Vec::new(), limits, root };
        cluster.start(id).await;
        cluster
    }

    /// A new node joins through the first.
    pub async fn join(&mut self) {
        let id = self.nodes[0].group.allocate_node(uuid::Uuid::new_v4()).await.unwrap();
        self.start(id).await;
        self.nodes[0].group.add_member(id, member(id)).await.unwrap();
    }

    /// Takes a node off the wire at once and stops it without a handover.
    pub async fn kill(&mut self, id: NodeId) {
        self.wire.groups.lock().remove(&id);
        let at = self.nodes.iter().position(|n| n.id == id).unwrap();
        let node = self.nodes.remove(at);
        node.group.abort().await;
        let weak = Arc::downgrade(&node.store);
        drop(node);
        let until = Instant::now() + Duration::from_secs(10);
        while weak.strong_count() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(weak.strong_count(), 0, "something still holds the stopped node's store");
    }

    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes.iter().find(|n| n.id == id).unwrap()
    }

    pub async fn until(&self, what: &str, condition: impl Fn(&Cluster) -> bool) {
        let until = Instant::now() + Duration::from_secs(15);
        while !condition(self) {
            assert!(Instant::now() < until, "waited too long until {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Copies a folder of a node that runs. A journal renames its next file when it is whole: what is gone when its turn
/// comes was not there yet.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            match std::fs::copy(entry.path(), target) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.wire.groups.lock().clear();
    }
}

/// A key of a table that tests own.
pub fn key(name: &str) -> Vec<u8> {
    let mut key = 20_000u32.to_be_bytes().to_vec();
    key.extend_from_slice(&0u32.to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

/// An empty commit of a group's next transaction.
pub fn commit(group: &Group) -> CommitRequest {
    CommitRequest::empty(group.transaction_id(), Timestamp::ZERO)
}

/// An optimistic commit of one key that was read at a version.
pub fn put(group: &Group, name: &str, version: Timestamp, value: &str) -> CommitRequest {
    CommitRequest {
        expected: vec![Expected { key: key(name), version, mode: LockMode::Exclusive }],
        writes: vec![Write { key: key(name), value: Some(value.as_bytes().to_vec()) }],
        ..commit(group)
    }
}

/// A request for exclusive locks.
pub fn locks(id: TransactionId, names: &[&str]) -> LockRequest {
    LockRequest {
        keys: names.iter().map(|n| LockKey { key: key(n), mode: LockMode::Exclusive }).collect(),
        timeout: Duration::from_secs(10),
        ..LockRequest::new(id, "t")
    }
}

impl Node {
    /// The value of a key at a fresh snapshot on this node.
    pub async fn read(&self, name: &str) -> Option<String> {
        let at = self.group.read_timestamp().await.unwrap();
        let row = self.store.get(key(name), at).unwrap();
        row.map(|version| String::from_utf8(version.value).unwrap())
    }
}

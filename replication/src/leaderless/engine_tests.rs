//! Engines on real stores, joined by a network that drops, repeats, delays and partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use amphora_storage::schema::{Quorum, Table};
use amphora_storage::store::{Batch, Store, StoreOptions};
use amphora_storage::{Datum, Hlc, Timestamp, codec};
use async_trait::async_trait;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::convergence::{new_row, table};
use super::messages::BatchBody;
use super::*;
use crate::{Error, NodeId, Result};

mod quorums;
mod retention;

/// A network between engines.
struct Net {
    engines: Mutex<BTreeMap<NodeId, Arc<Engine>>>,
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    lossy: AtomicBool,
    random: Mutex<StdRng>,
    pushed: Mutex<BTreeMap<(NodeId, NodeId), usize>>,
    /// What every message takes, in milliseconds, and how many there were
    latency: AtomicU64,
    calls: AtomicU64,
}

impl Net {
    fn cut_both(&self, a: NodeId, b: NodeId) {
        self.cut.lock().extend([(a, b), (b, a)]);
    }

    fn heal(&self) {
        self.cut.lock().clear();
        self.lossy.store(false, Ordering::Relaxed);
    }

    /// What the network does to a message: delays, loses the request, loses the answer, repeats.
    fn fate(&self) -> (Duration, bool, bool, bool) {
        let random = &mut *self.random.lock();
        let lossy = self.lossy.load(Ordering::Relaxed);
        let mut chance = |p: f64| lossy && random.random_bool(p);
        let (request, answer, repeat, slow) = (chance(0.15), chance(0.15), chance(0.15), chance(0.3));
        let latency = Duration::from_millis(self.latency.load(Ordering::Relaxed));
        let delay =
            latency + if slow { Duration::from_millis(random.random_range(1..20)) } else { Duration::ZERO };
        (delay, request, answer, repeat)
    }
}

#[async_trait]
impl PeerTransport for Net {
    async fn call(&self, peer: NodeId, message: PeerMessage) -> Result<VersionVector> {
        let lost = || Error::new("08006", "lost");
        let from = message.from;
        self.calls.fetch_add(1, Ordering::Relaxed);
        let (delay, lose_request, lose_answer, repeat) = self.fate();
        tokio::time::sleep(delay).await;
        if lose_request || self.cut.lock().contains(&(from, peer)) {
            return Err(lost());
        }
        if let PeerBody::Push(batches) = &message.body {
            let others = batches.iter().filter(|b| b.origin != from).count();
            *self.pushed.lock().entry((from, peer)).or_default() += others;
        }
        let target = self.engines.lock().get(&peer).cloned().ok_or_else(lost)?;
        if repeat {
            let (target, message) = (target.clone(), message.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(15)).await;
                let _ = target.handle(message).await;
            });
        }
        let answer = target.handle(message).await;
        if lose_answer || self.cut.lock().contains(&(peer, from)) { Err(lost()) } else { answer }
    }
}

/// Nodes and what they stand on.
struct Cluster {
    net: Arc<Net>,
    disks: BTreeMap<NodeId, Disk>,
}

struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn new() -> Disk {
        Disk { folder: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> Arc<Store> {
        Store::open(self.folder.path(), StoreOptions::default()).unwrap()
    }
}

impl Cluster {
    fn new(nodes: NodeId, seed: u64) -> Cluster {
        let net = Net {
            engines: Mutex::default(),
            cut: Mutex::default(),
            lossy: AtomicBool::new(false),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            pushed: Mutex::default(),
            latency: AtomicU64::new(0),
            calls: AtomicU64::new(0),
        };
        let mut cluster = Cluster { net: Arc::new(net), disks: BTreeMap::new() };
        for id in 1..=nodes {
            cluster.disks.insert(id, Disk::new());
        }
        for id in 1..=nodes {
            cluster.start(id);
        }
        cluster
    }

    fn start(&mut self, id: NodeId) {
        let store = self.disks[&id].open();
        let clock = Arc::new(Hlc::new(Hlc::DEFAULT_DRIFT));
        let engine = Engine::open(store, id, clock).unwrap();
        self.net.engines.lock().insert(id, engine.clone());
        engine.set_members(self.disks.keys().copied());
        engine.start(self.net.clone());
    }

    /// Stops a node; what it had on disk stays.
    async fn stop(&mut self, id: NodeId) {
        self.halt(id).await.settle().unwrap();
    }

    /// Takes a node from the network, and ends what it does.
    async fn halt(&mut self, id: NodeId) -> Arc<Engine> {
        let engine = self.net.engines.lock().remove(&id).unwrap();
        engine.stop();
        // Its tasks, and messages it is answering, let go of it.
        while Arc::strong_count(&engine) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        engine
    }

    /// A node loses what it has in memory, and starts again.
    async fn crash(&mut self, id: NodeId) {
        let engine = self.halt(id).await;
        let after = loop {
            // The store may be deleting or writing files: a copy must be of one moment.
            let copied = Disk::new();
            if copy(self.disks[&id].folder.path(), copied.folder.path()).unwrap_or(false) {
                break copied;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        drop(engine);
        self.disks.insert(id, after);
        self.start(id);
    }

    fn node(&self, id: NodeId) -> Arc<Engine> {
        self.net.engines.lock().get(&id).unwrap().clone()
    }

    /// Waits until all running nodes have everything that any of them has.
    async fn converge(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let engines: Vec<_> = self.net.engines.lock().values().cloned().collect();
            let vectors: Vec<_> = engines.iter().map(|e| e.vector()).collect();
            if vectors.windows(2).all(|w| w[0] == w[1]) {
                return;
            }
            assert!(Instant::now() < deadline, "no convergence: {vectors:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The names and lengths of all files.
fn files(dir: &Path) -> std::io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => found.extend(files(&entry.path())?),
            false => found.push((entry.path(), entry.metadata()?.len())),
        }
    }
    found.sort();
    Ok(found)
}

/// Copies a folder; false if something in it changed meanwhile.
pub(super) fn copy(from: &Path, to: &Path) -> std::io::Result<bool> {
    let before = files(from)?;
    for (file, _) in &before {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap())?;
        std::fs::copy(file, target)?;
    }
    Ok(files(from)? == before)
}

fn key(k: &str) -> Vec<u8> {
    k.as_bytes().to_vec()
}

fn test_table() -> &'static Arc<Table> {
    static TABLE: OnceLock<Arc<Table>> = OnceLock::new();
    TABLE.get_or_init(table)
}

fn read(engine: &Engine, k: &str) -> Option<amphora_storage::Row> {
    let state = engine.state(&key(k)).unwrap()?;
    visible(test_table(), &state).unwrap()
}

fn counter(engine: &Engine, k: &str) -> i64 {
    read(engine, k).map_or(0, |row| row[2].as_i64().unwrap())
}

/// INSERT … ON CONFLICT DO UPDATE SET n = n + `by`
fn upsert(engine: &Engine, k: &str, by: i64) -> RowOp {
    let mut row = PendingRow::new(engine.state(&key(k)).unwrap());
    let old = row.row(test_table()).unwrap();
    let mut new = old.clone().unwrap_or_else(|| new_row(k, 0));
    new[2] = Datum::Int8(new[2].as_i64().unwrap() + by);
    row.put(test_table(), old.as_deref(), &new).unwrap();
    row.op().unwrap().clone()
}

async fn add(engine: &Engine, k: &str, by: i64) -> Committed {
    for _ in 0..100 {
        match engine.commit(vec![(test_table().clone(), key(k), upsert(engine, k, by))]).await {
            Err(e) if e.sqlstate == "23505" => {}
            other => return other.unwrap(),
        }
    }
    panic!("another session inserts the same row again and again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_converge_under_faults_and_lose_no_increment() {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let mut cluster = Cluster::new(3, seed);
    let mut random = StdRng::seed_from_u64(seed);
    cluster.net.lossy.store(true, Ordering::Relaxed);
    let keys = ["a", "b", "c", "d"];
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for round in 0..300 {
        if round % 50 == 10 {
            cluster.net.cut_both(random.random_range(1..4), random.random_range(1..4));
        }
        if round % 50 == 40 {
            cluster.net.cut.lock().clear();
        }
        if round % 100 == 70 {
            let id = random.random_range(1..4);
            cluster.stop(id).await;
            cluster.start(id);
        }
        let node = cluster.node(random.random_range(1..4));
        let (k, by) = (keys[random.random_range(0..keys.len())], random.random_range(1..50));
        add(&node, k, by).await;
        *sums.entry(k).or_default() += by;
    }
    cluster.net.heal();
    cluster.converge().await;
    for id in 1..4 {
        for k in keys {
            assert_eq!(
                counter(&cluster.node(id), k),
                sums.get(k).copied().unwrap_or(0),
                "key {k} on node {id}"
            );
            let (mine, first) = (cluster.node(id).state(&key(k)), cluster.node(1).state(&key(k)));
            assert_eq!(mine.unwrap(), first.unwrap());
            // What is remembered of a row is what is stored.
            let (node, k) = (cluster.node(id), key(k));
            node.settle().unwrap();
            assert_eq!(node.state(&k).unwrap().as_deref(), node.log.state(&k).unwrap().as_ref());
        }
    }
}

/// What the store has of a row.
fn stored(engine: &Engine, k: &str) -> i64 {
    let state = engine.log.state(&key(k)).unwrap().unwrap_or_default();
    visible(test_table(), &state).unwrap().map_or(0, |row| row[2].as_i64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_row_gets_to_the_store_when_it_is_asked_for_and_a_crash_takes_nothing_of_it() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::new(1, 0);
    let keys = ["a", "b", "c"];
    let mut sums = BTreeMap::<&str, i64>::new();
    for _ in 0..400 {
        let node = cluster.node(1);
        match random.random_range(0..20) {
            0 => {
                node.settle().unwrap();
                for k in keys {
                    assert_eq!(stored(&node, k), sums.get(k).copied().unwrap_or(0));
                }
            }
            1 => node.log.store().flush().unwrap(),
            2 => {
                drop(node);
                cluster.crash(1).await;
                let node = cluster.node(1);
                for k in keys {
                    assert_eq!(counter(&node, k), sums.get(k).copied().unwrap_or(0), "{k} after a crash");
                    assert_eq!(stored(&node, k), counter(&node, k));
                }
            }
            3 => node.change_store(|_| Ok(())).unwrap(),
            _ => {
                let k = keys[random.random_range(0..keys.len())];
                add(&node, k, 1).await;
                *sums.entry(k).or_default() += 1;
                assert!(stored(&node, k) <= sums[k]);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_erased_do_not_come_back_from_memory() {
    let cluster = Cluster::new(1, 0);
    let node = cluster.node(1);
    for k in ["erased", "kept"] {
        add(&node, k, 1).await;
        add(&node, k, 1).await;
    }
    let mut batch = Batch::new();
    batch.delete_range(amphora_storage::Cf::Leaderless, &(key("erased")..key("erasee")));
    node.change_store(|store| Ok(store.write(batch)?)).unwrap();
    node.settle().unwrap();
    assert_eq!((stored(&node, "erased"), stored(&node, "kept")), (0, 2));
    assert_eq!((read(&node, "erased"), counter(&node, "kept")), (None, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_of_one_node_lose_no_increment() {
    let cluster = Cluster::new(1, 0);
    let node = cluster.node(1);
    let sessions: Vec<_> = (0..16)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    add(&node, "k", 1).await;
                }
            })
        })
        .collect();
    for session in sessions {
        session.await.unwrap();
    }
    assert_eq!(counter(&node, "k"), 400);
    assert_eq!(node.vector().get(1), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_soon_readable_everywhere_and_is_not_relayed() {
    let cluster = Cluster::new(3, 0);
    add(&cluster.node(1), "k", 1).await;
    cluster.converge().await;
    let mut latencies = Vec::new();
    for n in 2..40 {
        let started = Instant::now();
        add(&cluster.node(1), "k", 1).await;
        while (2..4).any(|id| counter(&cluster.node(id), "k") < n) {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        latencies.push(started.elapsed());
    }
    latencies.sort();
    println!("median {:?}, worst {:?}", latencies[latencies.len() / 2], latencies.last());
    assert!(latencies[latencies.len() / 2] < Duration::from_millis(50), "{latencies:?}");
    // Long enough for anyone to find that a peer lacks something.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(cluster.net.pushed.lock().values().all(|n| *n == 0), "{:?}", cluster.net.pushed.lock());
    assert!(cluster.node(1).lag().iter().all(|l| l.lag == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survivors_pass_on_what_a_dead_node_could_not() {
    let mut cluster = Cluster::new(3, 0);
    cluster.net.cut_both(1, 3);
    add(&cluster.node(1), "k", 7).await;
    while cluster.node(2).vector().get(1) < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cluster.stop(1).await;
    cluster.converge().await;
    assert_eq!(counter(&cluster.node(3), "k"), 7);
    // And so does a node in reach of both, while the origin lives but cannot get through.
    cluster.start(1);
    add(&cluster.node(1), "k", 1).await;
    cluster.converge().await;
    assert_eq!(counter(&cluster.node(3), "k"), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_catches_up_after_downtime_and_keeps_what_it_had() {
    let mut cluster = Cluster::new(3, 0);
    add(&cluster.node(3), "k", 1).await;
    cluster.converge().await;
    cluster.stop(3).await;
    for _ in 0..50 {
        add(&cluster.node(1), "k", 1).await;
        add(&cluster.node(2), "k", 1).await;
    }
    cluster.start(3);
    assert_eq!(counter(&cluster.node(3), "k"), 1);
    assert_eq!(cluster.node(1).lag().len(), 2);
    assert_eq!(add(&cluster.node(3), "k", 1).await.seq, 2, "numbers go on where they were");
    cluster.converge().await;
    assert_eq!(counter(&cluster.node(3), "k"), 102);
    assert_eq!(counter(&cluster.node(1), "k"), 102);
}

#[tokio::test]
async fn a_plain_insert_of_a_key_taken_meanwhile_is_refused_and_writes_nothing() {
    let cluster = Cluster::new(1, 0);
    let node = cluster.node(1);
    let (first, second) = (upsert(&node, "k", 1), upsert(&node, "k", 2));
    node.commit(vec![(test_table().clone(), key("k"), first)]).await.unwrap();
    let other = upsert(&node, "other", 1);
    let ops = vec![(test_table().clone(), key("other"), other), (test_table().clone(), key("k"), second)];
    let error = node.commit(ops).await.unwrap_err();
    assert_eq!((error.sqlstate, error.constraint.as_deref()), ("23505", Some("t_pkey")));
    assert_eq!((counter(&node, "k"), read(&node, "other")), (1, None));
    assert_eq!(node.vector().get(1), 1);
}

#[tokio::test]
async fn a_commit_that_no_message_could_carry_is_refused() {
    let cluster = Cluster::new(1, 0);
    let node = cluster.node(1);
    let mut row = new_row("k", 1);
    row[1] = Datum::text("x".repeat(13 << 20));
    let op = plan_insert(test_table(), None, &row).unwrap();
    let error = node.commit(vec![(test_table().clone(), key("k"), op)]).await.unwrap_err();
    assert_eq!(error.sqlstate, "54000");
    assert_eq!(read(&node, "k"), None);
}

#[tokio::test]
async fn gaps_repeats_and_the_future_are_not_taken() {
    let cluster = Cluster::new(1, 0);
    let node = cluster.node(1);
    let batch = |seq, hlc| {
        let op = upsert(&node, "k", 1);
        let delta = op.resolve(&RowState::default(), super::op::Author { origin: 9, seq: 1, hlc });
        let body = BatchBody { hlc, context: VersionVector::new(), rows: vec![(key("k"), delta)] };
        OpBatch { origin: 9, seq, body: codec::encode(&body).into() }
    };
    let now = Hlc::new(Hlc::DEFAULT_DRIFT).now();
    let future = Timestamp::from_millis(now.millis() + 60_000);
    let got = node.receive(vec![batch(1, now), batch(1, now), batch(3, now)]).await.unwrap();
    assert_eq!(got.get(9), 1);
    let error = node.receive(vec![batch(2, now), batch(3, future), batch(4, now)]).await.unwrap_err();
    assert_eq!(error.sqlstate, "58000");
    assert_eq!(node.vector().get(9), 2);
    assert!(node.clock.last() < future);
    let garbage = OpBatch { origin: 9, seq: 3, body: vec![1, 255, 255].into() };
    assert!(node.receive(vec![garbage]).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_behind_the_beginning_of_the_log_is_sent_the_rows() {
    let mut cluster = Cluster::new(2, 0);
    for n in 0..40 {
        add(&cluster.node(1), &format!("k{n}"), n).await;
    }
    cluster.converge().await;
    for id in 1..3 {
        // A log is given up by whole files, and its newest commits are in memory too.
        cluster.stop(id).await;
        cluster.start(id);
        let engine = cluster.node(id);
        engine.log.truncate_to(&engine.vector(), 0, &OpLogLimits::default()).unwrap();
        assert!(engine.log.read(1, 1, 40, 1 << 20).unwrap().is_empty());
    }
    cluster.disks.insert(3, Disk::new());
    cluster.start(3);
    for id in 1..3 {
        cluster.node(id).set_members([1, 2, 3]);
    }
    add(&cluster.node(1), "k39", 1).await;
    cluster.converge().await;
    assert_eq!(counter(&cluster.node(3), "k39"), 40);
    assert_eq!(counter(&cluster.node(3), "k7"), 7);
    add(&cluster.node(3), "k7", 1).await;
    cluster.converge().await;
    assert_eq!(counter(&cluster.node(1), "k7"), 8);
    // What came as rows, and what came after it, is still there when the memory is gone.
    add(&cluster.node(1), "k8", 1).await;
    cluster.converge().await;
    cluster.crash(3).await;
    let node = cluster.node(3);
    assert_eq!(node.vector().get(1), 42);
    assert_eq!((counter(&node, "k7"), counter(&node, "k8"), counter(&node, "k39")), (8, 9, 40));
    assert_eq!(add(&node, "k7", 1).await.seq, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_was_away_is_sent_what_is_in_the_files_of_the_log() {
    let mut cluster = Cluster::new(3, 0);
    cluster.stop(3).await;
    let (a, b) = (cluster.node(1), cluster.node(2));
    for n in 0..300 {
        let k = format!("k{}", n % 7);
        tokio::join!(add(&a, &k, 1), add(&b, &k, 1));
    }
    drop((a, b));
    cluster.converge().await;
    for id in 1..3 {
        cluster.crash(id).await;
    }
    let engine = cluster.node(2);
    let (first, all) =
        (engine.log.read(1, 17, 300, 0).unwrap(), engine.log.read(1, 17, 300, 1 << 30).unwrap());
    assert_eq!((first.len(), all.len()), (1, 284));
    assert!(all.iter().zip(17..).all(|(batch, seq)| batch.origin == 1 && batch.seq == seq));
    drop(engine);
    cluster.start(3);
    cluster.converge().await;
    let sum: i64 = (0..7).map(|k| counter(&cluster.node(3), &format!("k{k}"))).sum();
    assert_eq!(sum, 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_lose_nothing_that_was_acknowledged() {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let mut cluster = Cluster::new(3, seed);
    let mut random = StdRng::seed_from_u64(seed);
    let mut acknowledged = [0i64; 4];
    for _ in 0..150 {
        let id = random.random_range(1..=3);
        let node = cluster.node(id);
        match random.random_range(0..100) {
            0..70 => {
                let (k, by) = (random.random_range(0..4), random.random_range(1..9));
                add(&node, &format!("k{k}"), by).await;
                acknowledged[k] += by;
            }
            70..80 => node.log.store().flush().unwrap(),
            80..88 => {
                if let Some(acked) = node.acked_by_all() {
                    node.log.truncate_to(&acked, 0, &OpLogLimits::default()).unwrap();
                }
            }
            88..92 => cluster.net.cut_both(id, id % 3 + 1),
            92..95 => cluster.net.heal(),
            _ => {
                let before = node.vector().get(id);
                drop(node);
                cluster.crash(id).await;
                assert_eq!(cluster.node(id).vector().get(id), before, "own commits are durable");
            }
        }
    }
    cluster.net.heal();
    cluster.converge().await;
    for id in 1..=3 {
        let found: [i64; 4] = std::array::from_fn(|k| counter(&cluster.node(id), &format!("k{k}")));
        assert_eq!(found, acknowledged, "node {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_lacks_is_never_truncated() {
    let mut cluster = Cluster::new(3, 0);
    add(&cluster.node(1), "k", 1).await;
    cluster.converge().await;
    cluster.stop(3).await;
    for _ in 0..10 {
        add(&cluster.node(1), "k", 1).await;
    }
    let engine = cluster.node(1);
    engine.truncate().unwrap();
    engine.log.truncate_to(&engine.acked_by_all().unwrap(), 0, &OpLogLimits::default()).unwrap();
    assert_eq!(engine.log.read(1, 2, 11, 1 << 20).unwrap().len(), 10);
    cluster.start(3);
    cluster.converge().await;
    assert_eq!(counter(&cluster.node(3), "k"), 11);
}

#[tokio::test]
async fn mixed_transactions_see_each_other_and_replay_harmlessly() {
    let cluster = Cluster::new(2, 0);
    let table_id = test_table().id;
    let plan = |by| (table_id, key("k"), upsert(&cluster.node(1), "k", by));
    let (insert, same) = (plan(5), plan(7));
    let entry = [
        (Timestamp(10), codec::encode(&vec![insert.clone()])),
        (Timestamp(11), codec::encode(&vec![same.clone(), same])),
    ];
    for id in [1, 2, 1] {
        let node = cluster.node(id);
        let mut batch = Batch::default();
        let mut group = node.begin_group();
        for (commit, ops) in &entry {
            group.apply(4, *commit, ops).unwrap();
        }
        group.stage(&mut batch);
        node.log.store().write(batch).unwrap();
        drop(group);
    }
    assert_eq!(counter(&cluster.node(1), "k"), 19);
    add(&cluster.node(1), "k", 1).await;
    cluster.converge().await;
    assert_eq!(counter(&cluster.node(2), "k"), 20);
    assert_eq!(cluster.node(1).state(&key("k")).unwrap(), cluster.node(2).state(&key("k")).unwrap());
    assert!(cluster.node(1).begin_group().apply(5, Timestamp(12), &[9]).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_takes_the_place_of_the_data_and_loses_nothing() {
    let cluster = Cluster::new(3, 0);
    add(&cluster.node(2), "k", 1).await;
    cluster.converge().await;
    cluster.net.cut_both(1, 2);
    cluster.net.cut_both(1, 3);
    for (id, by) in [(1, 10), (1, 20), (2, 100), (3, 1000)] {
        add(&cluster.node(id), "k", by).await;
    }
    add(&cluster.node(1), "only here", 5).await;
    let (mine, theirs) = (cluster.node(1), cluster.node(2));
    let store = mine.log.store();
    let received = store.incoming_dir();
    theirs.settle().unwrap();
    theirs.log.store().checkpoint(&received).unwrap();
    mine.install_checkpoint(&received).unwrap();
    assert_eq!(counter(&mine, "only here"), 5);
    assert!(counter(&mine, "k") >= 131);
    assert_eq!(add(&mine, "k", 1).await.seq, 4);
    cluster.net.heal();
    cluster.converge().await;
    for id in 1..4 {
        assert_eq!(counter(&cluster.node(id), "k"), 1132);
        assert_eq!(counter(&cluster.node(id), "only here"), 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_lost_commits_gets_them_back_before_it_numbers_new_ones() {
    let mut cluster = Cluster::new(3, 0);
    for _ in 0..5 {
        add(&cluster.node(1), "k", 1).await;
    }
    cluster.converge().await;
    cluster.stop(1).await;
    cluster.disks.insert(1, Disk::new());
    cluster.start(1);
    let node = cluster.node(1);
    // Once a peer has been heard, no number is given out that a peer has.
    node.ask_quorums(&BTreeSet::from([Quorum::Nodes(2)]), Duration::from_secs(5)).await.unwrap();
    assert_eq!(add(&node, "k", 1).await.seq, 6);
    cluster.converge().await;
    for id in 1..4 {
        assert_eq!(counter(&cluster.node(id), "k"), 6);
    }
}

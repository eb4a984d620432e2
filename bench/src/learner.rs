//! What a long read on a read replica costs those who write on the leader.
//!
//! All nodes share this machine's cores, so the processor time that the read takes is taken from the leader as well,
//! which it would not be on a machine of the replica's own. So the read is compared with a process that only counts, as many
//! threads of it as keep as busy, both at the lowest priority: what differs is what replication has to do with it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amphora_tests::Cluster;
use amphora_tests::load::Stop;

use crate::Settings;
use crate::pgbench::{Target, command};
use crate::report::{Figure, Goal};

/// Clients that write.
const CLIENTS: usize = 8;
/// What the replica does meanwhile.
const READ: &str = "SELECT bid, count(*), sum(abalance), avg(aid), max(filler) FROM pgbench_accounts GROUP BY bid ORDER BY 2";

/// What pgbench's simple-update did: a second, and the 99th percentile of its latencies in milliseconds.
#[derive(Clone, Copy, Default)]
struct Done {
    tps: f64,
    p99: f64,
}

/// The leader's rate and latency with a busy replica, against those beside a counting process.
pub async fn figures(settings: &Settings) -> Vec<Figure> {
    eprintln!("a read replica that reads …");
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let address = cluster.nodes()[leader].pg.clone();
    let target = Target { port: address.rsplit_once(':').and_then(|(_, p)| p.parse().ok()).expect("a port") };
    crate::load::tables(target, "(id int PRIMARY KEY, n int)").await;
    let replica = cluster.add_node(&["--learner"]).await;
    cluster.wait_ready(replica).await;
    let reader = cluster.client(replica).await;
    while reader.query("SELECT count(*) FROM pgbench_accounts", &[]).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    lower_priority(cluster.nodes()[replica].pid());
    let folder = cluster.path().to_owned();
    let (mut alone, mut beside, mut reading) = (Vec::new(), Vec::new(), Vec::new());
    let reads: Arc<AtomicU64> = Arc::default();
    for _ in 0..settings.rounds {
        alone.push(write(target, settings.seconds, &folder).await);
        let mut counting = std::process::Command::new("nice")
            .args(["-n", "19", "sh", "-c", "while :; do :; done"])
            .spawn()
            .expect("a process that counts");
        beside.push(write(target, settings.seconds, &folder).await);
        let ended = counting.kill().and_then(|()| counting.wait());
        assert!(ended.is_ok(), "it counts no more");
        let (stop, reads) = (Stop::default(), reads.clone());
        let (stopped, read) = (stop.clone(), connect_to(&cluster.nodes()[replica].pg).await);
        let task = tokio::spawn(async move {
            while !stopped.is_stopped() {
                read.query(READ, &[]).await.expect("the replica answers");
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        reading.push(write(target, settings.seconds, &folder).await);
        stop.stop();
        task.await.expect("the read ends");
    }
    let (alone, beside, reading) = (median(&alone), median(&beside), median(&reading));
    vec![
        Figure::new("updates on the leader, alone", alone.tps, "/s", Goal::None),
        Figure::new("… beside a process that counts", beside.tps, "/s", Goal::None),
        Figure::new("… beside reads on a learner", reading.tps, "/s", Goal::None),
        Figure::new("… reads over counting", reading.tps / beside.tps, "", Goal::AtLeast(0.85)),
        Figure::new("… p99 alone", alone.p99, "ms", Goal::None),
        Figure::new("… p99 beside a process that counts", beside.p99, "ms", Goal::None),
        Figure::new("… p99 beside reads on a learner", reading.p99, "ms", Goal::None),
        Figure::new("… reads of the learner", reads.load(Ordering::Relaxed) as f64, "", Goal::None),
    ]
}

async fn connect_to(address: &str) -> tokio_postgres::Client {
    amphora_tests::load::connect(address, Duration::from_secs(5)).await.expect("the replica answers")
}

/// Lowers the priority of all threads of a process; those that they start inherit it.
fn lower_priority(process: u32) {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("its threads");
    let tasks = tasks.flatten().map(|task| task.file_name());
    let niced = std::process::Command::new("renice").args(["-n", "19", "-p"]).args(tasks).output();
    assert!(niced.is_ok_and(|o| o.status.success()), "the replica's priority is lowered");
}

/// The median of each.
fn median(done: &[Done]) -> Done {
    let middle = |value: fn(&Done) -> f64| {
        let mut sorted: Vec<f64> = done.iter().map(value).collect();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    Done { tps: middle(|d| d.tps), p99: middle(|d| d.p99) }
}

/// simple-update, every latency noted.
async fn write(target: Target, seconds: u32, folder: &Path) -> Done {
    let prefix = folder.join("latencies");
    let mut pgbench = command(target);
    pgbench
        .args(["--no-vacuum", "-N", "-M", "prepared", "-c", &CLIENTS.to_string(), "-j", "2"])
        .args(["-T", &seconds.to_string(), "--log", "--log-prefix"])
        .arg(&prefix);
    let output = pgbench.output().await.expect("pgbench runs");
    let out = String::from_utf8_lossy(&output.stdout);
    let tps = out.lines().find_map(|l| l.strip_prefix("tps = ")?.split_whitespace().next()?.parse().ok());
    let tps = tps.unwrap_or_else(|| panic!("pgbench: {}", String::from_utf8_lossy(&output.stderr)));
    let mut latencies: Vec<u64> = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder").flatten() {
        if entry.file_name().to_string_lossy().starts_with("latencies") {
            let text = std::fs::read_to_string(entry.path()).expect("a log");
            // client, transaction, microseconds, …
            latencies.extend(text.lines().filter_map(|l| l.split(' ').nth(2)?.parse::<u64>().ok()));
            let _ = std::fs::remove_file(entry.path());
        }
    }
    latencies.sort_unstable();
    let p99 = latencies[latencies.len() * 99 / 100] as f64 / 1e3;
    Done { tps, p99 }
}

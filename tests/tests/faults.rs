//! The fault suite: all workloads at once on one cluster, while a nemesis does what its seed says, and checkers that
//! look for what must not be. `AMPHORA_SEED=… cargo nextest run -p amphora-tests --test faults NAME` repeats a schedule.
//!
//! When something is broken, all histories are written to files in `AMPHORA_HISTORIES`, or in a directory below that for
//! temporary files. Needs root: partitions are real, between network namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amphora_tests::load::Stop;
use amphora_tests::nemesis::{self, Kind, Schedule};
use amphora_tests::workload::{self, Workload};
use amphora_tests::{Cluster, seed};

const ALL: [Kind; 5] = [Kind::Kills, Kind::Links, Kind::Clocks, Kind::Disks, Kind::Members];

/// Writes all histories down; where they are.
fn write_histories(seed: u64, workloads: &[Arc<dyn Workload>], broken: &[String]) -> PathBuf {
    let root = std::env::var_os("AMPHORA_HISTORIES").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = root.join(format!("amphora-history-{seed}"));
    std::fs::create_dir_all(&directory).unwrap();
    for workload in workloads {
        std::fs::write(directory.join(format!("{}.txt", workload.name())), workload.history()).unwrap();
    }
    std::fs::write(directory.join("broken.txt"), broken.join("\n")).unwrap();
    directory
}

async fn run(kinds: &[Kind], limit: Duration) {
    let seed = seed();
    let mut cluster = Cluster::start_for_faults(3, kinds.contains(&Kind::Disks)).await;
    let client = cluster.client(0).await;
    let service = "CREATE SCHEMA nemesis; CREATE TABLE nemesis.service AS SELECT 1 AS n";
    client.batch_execute(service).await.unwrap();
    let workloads = workload::all();
    for workload in &workloads {
        workload.prepare(&client).await.unwrap();
    }
    let mut addresses: Vec<String> = cluster.nodes().iter().map(|n| n.pg.clone()).collect();
    if kinds.contains(&Kind::Members) {
        addresses.push(cluster.guest_address());
    }
    let (stop, start) = (Stop::default(), Instant::now());
    let mut workers = Vec::new();
    for (index, workload) in workloads.iter().enumerate() {
        for number in 1..=workload.workers() as i64 {
            let luck = seed ^ ((index as u64) << 32) ^ number as u64;
            let work = workload::work(workload.clone(), addresses.clone(), number, luck, start, stop.clone());
            workers.push(tokio::spawn(work));
        }
    }
    nemesis::run(&mut cluster, Schedule::new(seed, kinds, 3), limit).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.stop();
    for worker in workers {
        worker.await.unwrap();
    }
    cluster.wait_settled().await;
    let mut clients = Vec::new();
    for node in 0..cluster.len() {
        clients.push(cluster.client(node).await);
    }
    let (mut broken, mut idle) = (Vec::new(), Vec::new());
    for workload in &workloads {
        let verdict = workload.judge(&clients).await.unwrap();
        println!("{}: {}", workload.name(), verdict.summary);
        if verdict.done < 5 {
            idle.push(workload.name());
        }
        broken.extend(verdict.broken.into_iter().map(|what| format!("{}: {what}", workload.name())));
    }
    if !broken.is_empty() {
        let directory = write_histories(seed, &workloads, &broken);
        let shown: Vec<String> = broken.iter().take(10).map(|b| b.chars().take(2000).collect()).collect();
        let number = broken.len();
        panic!("AMPHORA_SEED={seed}: {number} violations, histories in {directory:?}\n{}", shown.join("\n"));
    }
    assert!(idle.is_empty(), "too little happened to prove anything: {idle:?}");
}

/// How long a schedule runs: `AMPHORA_FAULT_SECONDS`, or 42 s.
fn limit() -> Duration {
    let seconds = std::env::var("AMPHORA_FAULT_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(42))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_die() {
    run(&[Kind::Kills], limit()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_stop_and_links_break() {
    run(&[Kind::Links], limit()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_jump() {
    run(&[Kind::Clocks], limit()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_are_slow_and_full() {
    run(&[Kind::Disks], limit()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go() {
    run(&[Kind::Members], limit()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_it() {
    run(&ALL, limit()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs for SOAK_MINUTES: `make soak`"]
async fn all_of_it_for_long() {
    let minutes: u64 = std::env::var("SOAK_MINUTES").ok().and_then(|m| m.parse().ok()).unwrap_or(10);
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    while Instant::now() < until {
        run(&ALL, Duration::from_secs(90)).await;
    }
}

/// Asks a node until it answers so.
async fn until(cluster: &Cluster, node: usize, sql: &str, expected: &str) {
    let client = cluster.client(node).await;
    let sql = format!("SELECT ({sql})::text");
    amphora_tests::eventually(&format!("{sql} on {node}: {expected}"), Duration::from_secs(60), || async {
        let row = client.query_one(sql.as_str(), &[]).await;
        row.is_ok_and(|row| row.get::<_, Option<String>>(0).as_deref() == Some(expected))
    })
    .await;
}

/// Two nodes write one row while they cannot see each other; the later write has to win.
async fn the_later_write_wins(cluster: &Cluster, earlier: usize, later: usize, round: i64) {
    let write = |what: &str| format!("UPDATE clocks SET note = '{what} {round}', n = n + 1 WHERE k = 1");
    let (first, second) = (cluster.client(earlier).await, cluster.client(later).await);
    let rest: Vec<usize> = (0..3).filter(|node| *node != later).collect();
    cluster.partition(&[later], &rest).await;
    first.batch_execute(&write("early")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    second.batch_execute(&write("late")).await.unwrap();
    cluster.heal().await;
    for node in 0..3 {
        until(cluster, node, "SELECT note || n FROM clocks", &format!("late {round}{}", 2 * round)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_an_hour_off_wins_no_conflict_and_loses_no_write() {
    let cluster = Cluster::start_for_faults(3, false).await;
    let client = cluster.client(0).await;
    client
        .batch_execute(
            "CREATE TABLE clocks (k int PRIMARY KEY, n crdt_counter, note text) WITH (replication = 'leaderless');
             INSERT INTO clocks VALUES (1, 0, '')",
        )
        .await
        .unwrap();
    for node in 0..3 {
        until(&cluster, node, "SELECT count(*) FROM clocks", "1").await;
    }
    let (ahead, behind) = (cluster.id(1).await, cluster.id(2).await);
    cluster.faults(1).shift_clock(3600);
    the_later_write_wins(&cluster, 1, 0, 1).await;
    // Everybody knows whose clock is wrong, the node itself too.
    let off = |id: u64| {
        format!("SELECT (clock_skew_ms + 1800000) / 3600000 FROM amphora.nodes WHERE node_id = {id}")
    };
    for node in 0..3 {
        until(&cluster, node, &off(ahead), "1").await;
        assert!(cluster.nodes()[node].log().contains("synchronize it (NTP)"));
    }
    assert!(cluster.nodes()[1].log().contains("is not followed"));
    cluster.faults(1).shift_clock(0);
    for node in 0..3 {
        until(&cluster, node, &off(ahead), "0").await;
    }
    cluster.faults(2).shift_clock(-3600);
    the_later_write_wins(&cluster, 0, 2, 2).await;
    until(&cluster, 0, &off(behind).replace("+ 1800000", "- 1800000"), "-1").await;
    cluster.faults(2).shift_clock(0);
}

//! Measures a cluster of the binary in `AMPHORA_BIN` (see `bench/README.md`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amphora_tests::Cluster;
use amphora_tests::load::{Acknowledgements, Roaming, Stop};
use serde_json::json;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let results = std::env::args().nth(1).expect("usage: amphora-bench RESULTS_FOLDER");
    let (memory, cpu) = idle().await;
    let (p50, p99) = propagation().await;
    let (gap, lost) = failover(10).await;
    let rows = [
        ("write gap after kill -9, median of 10", format!("{:.2} s", gap.as_secs_f64()), "≤ 2 s"),
        ("acknowledged rows lost", lost.to_string(), "0"),
        ("idle memory, a node", format!("{} MB", memory >> 20), "≤ 150 MB"),
        ("idle processor, three nodes", format!("{cpu:.1} % of a core"), "≤ 3 %"),
        ("leaderless propagation, p50", format!("{:.1} ms", p50.as_secs_f64() * 1e3), ""),
        ("leaderless propagation, p99", format!("{:.1} ms", p99.as_secs_f64() * 1e3), "≤ 50 ms"),
    ];
    println!("{:<42} {:>16}   goal", "figure", "measured");
    for (name, value, goal) in &rows {
        println!("{name:<42} {value:>16}   {goal}");
    }
    let figures = json!({
        "write_gap_ms": gap.as_millis() as u64,
        "lost_rows": lost,
        "idle_memory_bytes": memory,
        "idle_cpu_percent_of_a_core": cpu,
        "propagation_p50_us": p50.as_micros() as u64,
        "propagation_p99_us": p99.as_micros() as u64,
    });
    std::fs::create_dir_all(&results).unwrap();
    let path = format!("{results}/figures.json");
    std::fs::write(&path, format!("{figures:#}\n")).unwrap();
    println!("written to {path}");
}

/// Greatest resident memory of a node, and processor time of all in percent of one core.
async fn idle() -> (u64, f64) {
    let cluster = Cluster::start(3).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let used = |c: &Cluster| c.nodes().iter().map(|n| n.cpu_time()).sum::<Duration>();
    let (before, start) = (used(&cluster), Instant::now());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let cpu = (used(&cluster) - before).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;
    let memory = cluster.nodes().iter().map(|n| n.resident_bytes()).max().unwrap();
    (memory, cpu)
}

/// From the acknowledgement of a leaderless insert on one node to its being read on another.
async fn propagation() -> (Duration, Duration) {
    let cluster = Cluster::start(3).await;
    let writer = cluster.client(0).await;
    let reader = cluster.client(1).await;
    writer
        .batch_execute("CREATE TABLE p (k int PRIMARY KEY, v text) WITH (replication = 'leaderless')")
        .await
        .unwrap();
    while reader.query("SELECT count(*) FROM p", &[]).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let select = reader.prepare("SELECT v FROM p WHERE k = $1").await.unwrap();
    let mut times = Vec::new();
    for k in 0..200i32 {
        writer.execute("INSERT INTO p VALUES ($1, 'x')", &[&k]).await.unwrap();
        let start = Instant::now();
        while reader.query_opt(&select, &[&k]).await.unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(10), "row {k} has not arrived");
        }
        times.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    times.sort();
    (times[100], times[198])
}

/// Median write gap, and how many acknowledged rows were lost.
async fn failover(rounds: usize) -> (Duration, usize) {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    client.batch_execute("CREATE TABLE ledger (id bigint PRIMARY KEY)").await.unwrap();
    let addresses: Vec<String> = cluster.nodes().iter().map(|n| n.pg.clone()).collect();
    let acknowledged: Arc<Mutex<BTreeSet<i64>>> = Arc::default();
    let mut gaps = Vec::new();
    for round in 0..rounds {
        let (stop, times) = (Stop::default(), Acknowledgements::default());
        let writers: Vec<_> = (0..6i64)
            .map(|w| {
                let base = (round as i64 * 6 + w) * 1_000_000;
                let mut connection = Roaming::new(addresses.clone(), w as usize);
                let (stop, times, acknowledged) = (stop.clone(), times.clone(), acknowledged.clone());
                tokio::spawn(async move {
                    let mut id = base;
                    while !stop.is_stopped() {
                        id += 1;
                        let sql = format!("INSERT INTO ledger VALUES ({id})");
                        let client = connection.client().await;
                        let insert = client.batch_execute(&sql);
                        match tokio::time::timeout(Duration::from_secs(10), insert).await {
                            Ok(Ok(())) => {
                                acknowledged.lock().unwrap().insert(id);
                                times.note();
                            }
                            _ => connection.move_on(),
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let leader = cluster.leader().await;
        let killed = Instant::now();
        cluster.node(leader).kill();
        tokio::time::sleep(Duration::from_secs(5)).await;
        stop.stop();
        for writer in writers {
            writer.await.unwrap();
        }
        gaps.push(times.gap_around(killed).expect("writes went on"));
        cluster.node(leader).restart();
        cluster.wait_settled().await;
    }
    gaps.sort();
    let client = cluster.client(0).await;
    let rows = client.query("SELECT id FROM ledger", &[]).await.unwrap();
    let found: BTreeSet<i64> = rows.iter().map(|r| r.get(0)).collect();
    let lost = acknowledged.lock().unwrap().difference(&found).count();
    (gaps[rounds / 2], lost)
}

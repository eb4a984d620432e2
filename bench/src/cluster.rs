//! Figures of the cluster by itself: footprint, propagation.

use std::time::{Duration, Instant};

use amphora_tests::Cluster;

use crate::report::{Figure, Goal};

/// All of them.
pub async fn figures() -> Vec<Figure> {
    let (memory, cpu) = idle().await;
    let (p50, p99) = propagation().await;
    let seconds = |d: Duration| d.as_secs_f64();
    vec![
        Figure::new("idle memory, a node", memory as f64 / 1e6, "MB", Goal::AtMost(150.0)),
        Figure::new("idle processor, three nodes", cpu, "% of a core", Goal::AtMost(3.0)),
        Figure::new("leaderless propagation, p50", seconds(p50) * 1e3, "ms", Goal::None),
        Figure::new("leaderless propagation, p99", seconds(p99) * 1e3, "ms", Goal::AtMost(50.0)),
    ]
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

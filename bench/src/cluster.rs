//! Figures of the cluster by itself: footprint.

use std::time::{Duration, Instant};

use amphora_tests::Cluster;

use crate::report::{Figure, Goal};

/// All of them.
pub async fn figures() -> Vec<Figure> {
    let (memory, cpu) = idle().await;
    vec![
        Figure::new("idle memory, a node", memory as f64 / 1e6, "MB", Goal::AtMost(150.0)),
        Figure::new("idle processor, three nodes", cpu, "% of a core", Goal::AtMost(3.0)),
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

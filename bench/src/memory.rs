//! What connections and large results cost in memory.

use std::time::Duration;

use amphora_tests::{Cluster, Node};
use futures::TryStreamExt;

use crate::load;
use crate::pgbench::Target;
use crate::report::{Figure, Goal};

/// Connections that do nothing.
const CONNECTIONS: usize = 500;
/// Rows of the large result.
const ROWS: u64 = 10_000_000;

/// Memory over idle.
pub async fn figures() -> Vec<Figure> {
    eprintln!("memory …");
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let node = &cluster.nodes()[leader];
    let port = node.pg.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("host:port");
    let target = Target { port };
    vec![
        Figure::new(
            "500 idle connections, over idle",
            connections(node, target).await,
            "MB",
            Goal::AtMost(100.0),
        ),
        Figure::new(
            "SELECT of 10,000,000 rows, over idle",
            rows(node, target).await,
            "MB",
            Goal::AtMost(50.0),
        ),
    ]
}

async fn settled(node: &Node) -> f64 {
    tokio::time::sleep(Duration::from_secs(2)).await;
    node.resident_bytes() as f64 / 1e6
}

async fn connections(node: &Node, target: Target) -> f64 {
    drop(load::connect(target).await);
    let before = settled(node).await;
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let client = load::connect(target).await;
        client.query("SELECT 1", &[]).await.unwrap();
        clients.push(client);
    }
    settled(node).await - before
}

/// A table read a hundred times over, in one statement.
async fn rows(node: &Node, target: Target) -> f64 {
    let client = load::connect(target).await;
    client
        .batch_execute(
            "CREATE TABLE wide (i int PRIMARY KEY, t text);
             INSERT INTO wide SELECT i, 'row ' || i FROM generate_series(1, 100000) AS g(i)",
        )
        .await
        .unwrap();
    client.query("SELECT count(*) FROM wide", &[]).await.unwrap();
    let before = settled(node).await;
    let query = "SELECT w.i, w.t FROM generate_series(1, 100) AS g(k) CROSS JOIN wide AS w";
    let stream = client.query_raw(query, Vec::<i32>::new()).await.unwrap();
    futures::pin_mut!(stream);
    let (mut seen, mut greatest) = (0, 0.0f64);
    while stream.try_next().await.unwrap().is_some() {
        seen += 1;
        if seen % 100_000 == 0 {
            greatest = greatest.max(node.resident_bytes() as f64 / 1e6);
        }
    }
    assert_eq!(seen, ROWS, "rows streamed");
    greatest - before
}

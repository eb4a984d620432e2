//! A harness for black-box tests: clusters of the real binary, on this machine, under faults.
//!
//! ```no_run
//! # async fn example() {
//! use amphora_tests::Cluster;
//! let mut cluster = Cluster::start(3).await;          // three processes, fresh directories, free ports
//! let client = cluster.client(0).await;
//! client.batch_execute("CREATE TABLE t (k int PRIMARY KEY)").await.unwrap();
//! let leader = cluster.leader().await;
//! cluster.node(leader).kill();                        // kill -9
//! cluster.node(leader).restart();
//! cluster.wait_ready(leader).await;
//! # }
//! ```
//!
//! With [`Cluster::start_in_namespaces`] every node lives in a network namespace of its own, as on a
//! machine of its own, and [`Cluster::partition`] cuts real links with iptables.
//!
//! Everything is torn down when the cluster is dropped, and a failed test prints the nodes' last lines.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod cluster;
pub mod differential;
pub mod isolation;
pub mod linearizable;
pub mod list_append;
pub mod load;
pub mod logic;
pub mod namespaces;
pub mod nemesis;
pub mod node;
pub mod postgres;
pub mod preload;
pub mod workload;

pub use cluster::Cluster;
pub use node::Node;

use std::time::{Duration, Instant};

/// The binary under test: `AMPHORA_BIN`, or the one that was built beside the tests.
pub fn binary() -> std::path::PathBuf {
    if let Some(path) = std::env::var_os("AMPHORA_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.ancestors().nth(2).expect("tests live two folders below the profile's folder");
    let path = profile.join("amphora");
    assert!(path.exists(), "{} is missing: build it with `cargo build -p amphora-server`", path.display());
    path
}

/// A free TCP port on loopback, below the range from which clients get theirs.
///
/// A port the kernel hands out could be taken by somebody's outgoing connection before the node binds it;
/// these cannot.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 500) as u16 * 40;
    loop {
        let port = 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let tcp = std::net::TcpListener::bind(("127.0.0.1", port));
        let udp = std::net::UdpSocket::bind(("127.0.0.1", port));
        if tcp.is_ok() && udp.is_ok() {
            return port;
        }
    }
}

/// Asks again every few milliseconds until the answer is yes; panics with `what` after `limit`.
pub async fn eventually<F, Fut>(what: &str, limit: Duration, mut check: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A seed for a random test: `AMPHORA_SEED`, or a new one. Printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let seed = std::env::var("AMPHORA_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("AMPHORA_SEED={seed}");
    seed
}

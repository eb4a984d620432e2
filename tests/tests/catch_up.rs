//! A follower that was down for long under load comes back: it needs a snapshot and then the log, and the leader's
//! clients hardly notice.
//!
//! In `make test` an hour is a few seconds and the log keeps a few hundred entries; in `make soak` the follower is down for
//! `SOAK_MINUTES` under the default limits.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amphora_tests::load::{Acknowledgements, Stop};
use amphora_tests::{Cluster, eventually};
use tokio::task::JoinHandle;

/// Clients that write.
const WRITERS: usize = 4;
/// Of what the leader did with the follower away, what it does at least while that catches up. Here they share
/// their cores with it and with all other tests.
const LEAST: f64 = 0.25;

const SCHEMA: &str = "
    CREATE TABLE ledger (id bigint PRIMARY KEY, note text NOT NULL);
    CREATE TABLE hot (k int PRIMARY KEY, n bigint NOT NULL, note text NOT NULL);
    CREATE INDEX by_note ON ledger (note);
    INSERT INTO hot SELECT i, 0, md5(i::text) || md5((i * 7)::text) FROM generate_series(1, 10000) AS g(i)";

/// Writers on the nodes that stay, and what they were promised.
struct Load {
    stop: Stop,
    times: Acknowledgements,
    inserted: Arc<Mutex<BTreeSet<i64>>>,
    updated: Arc<AtomicI64>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    async fn start(cluster: &Cluster, through: [usize; 2]) -> Load {
        let mut load = Load {
            stop: Stop::default(),
            times: Acknowledgements::default(),
            inserted: Arc::default(),
            updated: Arc::default(),
            writers: Vec::new(),
        };
        for writer in 0..WRITERS {
            let client = cluster.client(through[writer % 2]).await;
            let (stop, times) = (load.stop.clone(), load.times.clone());
            let (inserted, updated) = (load.inserted.clone(), load.updated.clone());
            load.writers.push(tokio::spawn(async move {
                let mut n = writer as i64 * 100_000_000;
                while !stop.is_stopped() {
                    n += 1;
                    let insert = format!("INSERT INTO ledger VALUES ({n}, md5('{n}'))");
                    client.batch_execute(&insert).await.unwrap();
                    inserted.lock().unwrap().insert(n);
                    times.note();
                    let k = (n * 7919) % 10_000 + 1;
                    client.batch_execute(&format!("UPDATE hot SET n = n + 1 WHERE k = {k}")).await.unwrap();
                    updated.fetch_add(1, Ordering::Relaxed);
                    times.note();
                }
            }));
        }
        load
    }

    /// Commits a second since `from`.
    fn rate_since(&self, from: Instant) -> f64 {
        self.times.count_since(from) as f64 / from.elapsed().as_secs_f64()
    }
}

async fn index_of(cluster: &Cluster, node: usize, which: &str) -> u64 {
    cluster.status(node).await["cluster"]["raft"][which].as_u64().expect("an index")
}

/// The follower is away for so long and comes back; the leader goes on throughout.
async fn comes_back(arguments: &[&str], away: Duration) {
    let mut cluster = Cluster::start_with(3, arguments).await;
    let leader = cluster.leader().await;
    let client = cluster.client(leader).await;
    client.batch_execute(SCHEMA).await.unwrap();
    let (stays, falls) = ((leader + 1) % 3, (leader + 2) % 3);
    let load = Load::start(&cluster, [leader, stays]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;

    cluster.node(falls).kill();
    let had = index_of(&cluster, leader, "last_log_index").await;
    let alone = Instant::now();
    tokio::time::sleep(away).await;
    let gone = async || index_of(&cluster, leader, "purged_index").await > had;
    eventually("the log does not reach back to when it fell", away + Duration::from_secs(120), gone).await;
    let before = load.rate_since(alone);

    let back = Instant::now();
    cluster.node(falls).restart();
    let target = index_of(&cluster, leader, "last_log_index").await;
    let caught_up = async || {
        let Ok((200, body)) = cluster.nodes()[falls].http("GET", "/status", "").await else { return false };
        let status: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        status["cluster"]["raft"]["applied_index"].as_u64().is_some_and(|applied| applied >= target)
    };
    eventually("it has what the leader had when it came back", Duration::from_secs(120), caught_up).await;
    let took = back.elapsed();
    tokio::time::sleep(Duration::from_secs(2).saturating_sub(took)).await;
    let meanwhile = load.rate_since(back);
    let gap = load.times.gap_around(back).expect("writes went on");
    load.stop.stop();
    for writer in load.writers {
        writer.await.unwrap();
    }
    println!(
        "{before:.0} commits/s without it, {meanwhile:.0} while it caught up, which took {took:?}; longest gap {gap:?}"
    );
    assert!(cluster.nodes()[leader].log().contains("a snapshot has been sent"), "the log alone did not do");
    assert!(meanwhile >= before * LEAST, "{meanwhile:.0} commits/s and not {before:.0}");
    assert!(gap < Duration::from_secs(3), "nobody's commit was acknowledged for {gap:?}");

    // It is equal, to the checksum, and has all that was promised.
    cluster.wait_settled().await;
    let client = cluster.client(falls).await;
    for table in ["ledger", "hot"] {
        let sql = format!("SELECT object, node_id, verdict FROM amphora.verify_table('{table}')");
        let rows = client.query(sql.as_str(), &[]).await.unwrap();
        let wrong: Vec<_> = rows.iter().filter(|row| row.get::<_, String>(2) != "ok").collect();
        assert!(wrong.is_empty() && rows.len() >= 3, "{table}: {wrong:?} of {}", rows.len());
    }
    let found: BTreeSet<i64> =
        client.query("SELECT id FROM ledger", &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(found, *load.inserted.lock().unwrap());
    let sum = client.query_one("SELECT sum(n)::bigint FROM hot", &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(sum, load.updated.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_missed_more_than_the_log_keeps_comes_back_and_the_leader_goes_on() {
    comes_back(&["--raft-log-keep", "100"], Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs for SOAK_MINUTES: `make soak`"]
async fn a_follower_is_down_for_long() {
    let minutes: u64 = std::env::var("SOAK_MINUTES").ok().and_then(|m| m.parse().ok()).unwrap_or(10);
    comes_back(&[], Duration::from_secs(minutes * 60)).await;
}

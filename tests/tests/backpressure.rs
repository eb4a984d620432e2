//! Limits: what is too much is refused quickly and in words, and the rest goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use amphora_tests::Cluster;
use tokio_postgres::Client;

async fn code(client: &Client, sql: &str) -> String {
    match client.batch_execute(sql).await {
        Ok(()) => "ok".to_owned(),
        Err(e) => e.code().map_or_else(|| e.to_string(), |code| code.code().to_owned()),
    }
}

fn insert(from: u32, megabytes: u32) -> String {
    let to = from + megabytes - 1;
    format!("INSERT INTO t SELECT i, repeat('x', 1000000) FROM generate_series({from}, {to}) i")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_are_not_committed_have_so_much_memory_and_no_more() {
    let cluster = Cluster::start_with(1, &["--write-memory", "32"]).await;
    let (one, two) = (cluster.client(0).await, cluster.client(0).await);
    one.batch_execute("CREATE TABLE t (k int PRIMARY KEY, v text)").await.unwrap();

    // One transaction's own limit.
    one.batch_execute("SET amphora.transaction_memory = '10MB'; BEGIN").await.unwrap();
    assert_eq!(code(&one, &insert(1, 5)).await, "ok");
    assert_eq!(code(&one, "SAVEPOINT s").await, "ok");
    assert_eq!(code(&one, &insert(100, 10)).await, "54000");
    // What was refused and undone takes nothing.
    assert_eq!(code(&one, "ROLLBACK TO s").await, "ok");
    assert_eq!(code(&one, &insert(100, 4)).await, "ok");
    one.batch_execute("COMMIT; RESET amphora.transaction_memory").await.unwrap();

    // The node's.
    one.batch_execute("BEGIN").await.unwrap();
    assert_eq!(code(&one, &insert(200, 20)).await, "ok");
    assert_eq!(code(&two, &insert(300, 20)).await, "53200");
    assert_eq!(code(&two, "INSERT INTO t VALUES (1000, 'small')").await, "ok", "small ones go on");
    one.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(code(&two, &insert(300, 20)).await, "ok", "it recovers by itself");
    assert_eq!(code(&one, &insert(400, 20)).await, "ok", "and so does what a commit held");
    let n: i64 = two.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(n, 5 + 4 + 1 + 20 + 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_follower_costs_the_leader_neither_time_nor_memory() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let victim = (leader + 1) % 3;
    let client = cluster.client(leader).await;
    client.batch_execute("CREATE TABLE t (k bigserial PRIMARY KEY, v text)").await.unwrap();

    let (stop, commits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut writers = Vec::new();
    for _ in 0..8 {
        let client = cluster.client(leader).await;
        let (stop, commits) = (stop.clone(), commits.clone());
        writers.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                client
                    .batch_execute("INSERT INTO t (v) SELECT repeat(md5(random()::text), 500)")
                    .await
                    .unwrap();
                commits.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let rate = async |seconds: u64| {
        let (before, began) = (commits.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        (commits.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64()
    };
    rate(1).await;
    let with_all = rate(3).await;
    let before = cluster.nodes()[leader].resident_bytes();
    cluster.nodes()[victim].pause();
    let at_once = rate(2).await;
    let without = rate(8).await;
    let after = cluster.nodes()[leader].resident_bytes();
    cluster.nodes()[victim].resume();
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let grown = after.saturating_sub(before) >> 20;
    println!(
        "commits/s: {with_all:.0} with all, {at_once:.0} at first and {without:.0} then without one; +{grown} MB"
    );
    assert!(at_once > with_all / 4.0, "the leader waits for a stopped follower: {at_once} of {with_all}");
    assert!(without > with_all / 2.0, "a stopped follower slows the leader down: {without} of {with_all}");
    assert!(grown < 256, "the leader holds what a stopped follower has not taken: {grown} MB");
    cluster.wait_settled().await;
    let sql = "SELECT object, node_id, verdict FROM amphora.verify_table('t') WHERE verdict <> 'ok'";
    assert!(client.query(sql, &[]).await.unwrap().is_empty());
}

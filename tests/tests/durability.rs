//! What was acknowledged is there again after any restart, and a node that was away catches up.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use amphora_tests::load::{Roaming, Stop};
use amphora_tests::{Cluster, eventually};
use tokio_postgres::Client;

const SCHEMA: &str = "
    CREATE TABLE orders (id bigint PRIMARY KEY, item text NOT NULL, qty int NOT NULL DEFAULT 1 CHECK (qty > 0));
    CREATE INDEX orders_item ON orders (item);
    CREATE TABLE views (page text PRIMARY KEY, n crdt_counter) WITH (replication = 'leaderless');
    CREATE TABLE logs (id bigint PRIMARY KEY, line text) WITH (replication = 'leaderless');
    INSERT INTO views VALUES ('home', 0);";

async fn number(client: &Client, query: &str) -> Option<i64> {
    client.query_one(query, &[]).await.ok().map(|row| row.get(0))
}

async fn expect_everywhere(cluster: &Cluster, query: &str, expected: i64) {
    for index in 0..cluster.len() {
        if !cluster.nodes()[index].is_running() {
            continue;
        }
        let client = cluster.client(index).await;
        let (what, client) = (format!("node {}: {query} = {expected}", index + 1), &client);
        eventually(&what, Duration::from_secs(30), || async move {
            number(client, query).await == Some(expected)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_restarts_alone_and_all_restart_together() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    client.batch_execute(SCHEMA).await.unwrap();
    let mut orders = 0;
    let mut views = 0;
    for round in 0..3 {
        cluster.node(round).restart();
        cluster.wait_ready(round).await;
        let client = cluster.client(round).await;
        for _ in 0..20 {
            orders += 1;
            client.execute("INSERT INTO orders VALUES ($1, 'jar')", &[&orders]).await.unwrap();
            client.batch_execute("UPDATE views SET n = n + 1 WHERE page = 'home'").await.unwrap();
            views += 1;
        }
    }
    expect_everywhere(&cluster, "SELECT count(*) FROM orders", orders).await;
    expect_everywhere(&cluster, "SELECT n FROM views", views).await;
    // All at once, without warning.
    for index in 0..3 {
        cluster.node(index).kill();
    }
    for index in 0..3 {
        cluster.node(index).start();
    }
    cluster.wait_settled().await;
    expect_everywhere(&cluster, "SELECT count(*) FROM orders", orders).await;
    expect_everywhere(&cluster, "SELECT count(*) FROM orders WHERE item = 'jar'", orders).await;
    expect_everywhere(&cluster, "SELECT n FROM views", views).await;
    // And politely.
    for index in 0..3 {
        assert_eq!(cluster.node(index).terminate(), Some(0), "SIGTERM ends with status 0");
        cluster.node(index).start();
        cluster.wait_ready(index).await;
    }
    expect_everywhere(&cluster, "SELECT count(*) FROM orders", orders).await;
    expect_everywhere(&cluster, "SELECT n FROM views", views).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_catches_up_from_the_log() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    client.batch_execute(SCHEMA).await.unwrap();
    cluster.node(2).kill();
    for id in 1..=300i64 {
        client.execute("INSERT INTO orders VALUES ($1, 'oil')", &[&id]).await.unwrap();
        client.execute("INSERT INTO logs VALUES ($1, 'line')", &[&id]).await.unwrap();
    }
    cluster.node(2).start();
    cluster.wait_ready(2).await;
    expect_everywhere(&cluster, "SELECT count(*) FROM orders", 300).await;
    expect_everywhere(&cluster, "SELECT count(*) FROM logs", 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_far_behind_and_a_new_node_catch_up_by_snapshot() {
    let mut cluster = Cluster::start_with(3, &["--raft-log-keep", "200"]).await;
    let client = cluster.client(0).await;
    client.batch_execute(SCHEMA).await.unwrap();
    cluster.node(2).kill();
    let addresses: Vec<String> = cluster.nodes()[..2].iter().map(|n| n.pg.clone()).collect();
    // Enough entries that the log has been purged of what node 3 lacks.
    let per_writer = 500i64;
    let writers: Vec<_> = (0..8i64)
        .map(|w| {
            let mut connection = Roaming::new(addresses.clone(), w as usize);
            tokio::spawn(async move {
                let client = connection.client().await;
                for i in 0..per_writer {
                    let id = w * per_writer + i;
                    client.execute("INSERT INTO orders VALUES ($1, 'wine')", &[&id]).await.unwrap();
                    if i % 10 == 0 {
                        client.execute("INSERT INTO logs VALUES ($1, 'line')", &[&id]).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let leader = cluster.leader().await;
    let query = "SELECT purged_index FROM amphora.raft";
    let asked = cluster.client(leader).await;
    let asked = &asked;
    eventually("the log is purged", Duration::from_secs(30), || async move {
        number(asked, query).await.is_some_and(|purged| purged > 100)
    })
    .await;
    cluster.node(2).start();
    cluster.wait_ready(2).await;
    let fourth = cluster.add_node(&["--raft-log-keep", "200"]).await;
    cluster.wait_ready(fourth).await;
    expect_everywhere(&cluster, "SELECT count(*) FROM orders", 8 * per_writer).await;
    expect_everywhere(&cluster, "SELECT count(*) FROM orders WHERE item = 'wine'", 8 * per_writer).await;
    expect_everywhere(&cluster, "SELECT count(*) FROM logs", 8 * per_writer / 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_over_both_kinds_is_atomic_across_crashes() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    client.batch_execute(SCHEMA).await.unwrap();
    expect_everywhere(&cluster, "SELECT count(*) FROM views", 1).await;
    let addresses: Vec<String> = cluster.nodes().iter().map(|n| n.pg.clone()).collect();
    let stop = Stop::default();
    let writers: Vec<_> = (1..=4i64)
        .map(|w| {
            let (addresses, stop) = (addresses.clone(), stop.clone());
            tokio::spawn(async move {
                let mut connection = Roaming::new(addresses, w as usize);
                let mut id = w * 1_000_000;
                while !stop.is_stopped() {
                    id += 1;
                    let sql = format!(
                        "BEGIN; INSERT INTO orders VALUES ({id}, 'both'); \
                         UPDATE views SET n = n + 1 WHERE page = 'home'; COMMIT"
                    );
                    let client = connection.client().await;
                    let run = tokio::time::timeout(Duration::from_secs(10), client.batch_execute(&sql));
                    if !matches!(run.await, Ok(Ok(()))) {
                        connection.move_on();
                    }
                }
            })
        })
        .collect();
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let victim = if round % 2 == 0 { cluster.leader().await } else { round % 3 };
        cluster.node(victim).kill();
        tokio::time::sleep(Duration::from_millis(1000)).await;
        cluster.node(victim).start();
        cluster.wait_ready(victim).await;
    }
    stop.stop();
    for writer in writers {
        writer.await.unwrap();
    }
    // Every order has its view and every view its order, on every node.
    let client = cluster.client(0).await;
    let orders = number(&client, "SELECT count(*) FROM orders").await.unwrap();
    assert!(orders > 50, "only {orders} transactions");
    expect_everywhere(&cluster, "SELECT count(*) FROM orders", orders).await;
    expect_everywhere(&cluster, "SELECT n FROM views", orders).await;
}

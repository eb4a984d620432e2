//! Money moves between accounts while nodes are killed; the total never changes, on any node, at any time.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::{Duration, Instant};

use amphora_tests::load::{Roaming, Stop};
use amphora_tests::{Cluster, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const ACCOUNTS: i32 = 10;
const EACH: i64 = 100;

/// One transfer as an application writes it, with a row in the ledger to know it by.
async fn transfer(
    client: &mut tokio_postgres::Client,
    id: i64,
    from: i32,
    to: i32,
    amount: i64,
) -> Result<bool, tokio_postgres::Error> {
    let tx = client.transaction().await?;
    // In the order of ids, as careful applications do; the other order is what the deadlock test is for.
    let (a, b) = (from.min(to), from.max(to));
    let rows = tx
        .query("SELECT id, balance FROM accounts WHERE id IN ($1, $2) ORDER BY id FOR UPDATE", &[&a, &b])
        .await?;
    let balance: i64 = rows.iter().find(|r| r.get::<_, i32>(0) == from).map(|r| r.get(1)).unwrap();
    if balance < amount {
        tx.rollback().await?;
        return Ok(false);
    }
    tx.execute("UPDATE accounts SET balance = balance - $1 WHERE id = $2", &[&amount, &from]).await?;
    tx.execute("UPDATE accounts SET balance = balance + $1 WHERE id = $2", &[&amount, &to]).await?;
    tx.execute("INSERT INTO transfers VALUES ($1, $2, $3, $4)", &[&id, &from, &to, &amount]).await?;
    tx.commit().await?;
    Ok(true)
}

async fn teller(addresses: Vec<String>, number: i64, seed: u64, stop: Stop) -> Vec<i64> {
    let mut rng = StdRng::seed_from_u64(seed ^ number as u64);
    let mut connection = Roaming::new(addresses, number as usize);
    let mut acknowledged = Vec::new();
    let mut id = number * 1_000_000;
    while !stop.is_stopped() {
        id += 1;
        let from = rng.random_range(0..ACCOUNTS);
        let to = (from + rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let amount = rng.random_range(1..=30);
        let client = connection.client().await;
        let attempt = transfer(client, id, from, to, amount);
        match tokio::time::timeout(Duration::from_secs(10), attempt).await {
            Ok(Ok(true)) => acknowledged.push(id),
            Ok(Ok(false)) => {}
            Ok(Err(e)) => match e.as_db_error().map(|d| d.code().code()) {
                // Retryable, with the connection as good as before.
                Some("40001" | "40P01" | "57P03") => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => connection.move_on(),
            },
            Err(_) => connection.move_on(),
        }
    }
    acknowledged
}

async fn auditor(addresses: Vec<String>, start: usize, stop: Stop) -> usize {
    let mut connection = Roaming::new(addresses, start);
    let mut audits = 0;
    while !stop.is_stopped() {
        let client = connection.client().await;
        let ask = client.query_one("SELECT sum(balance)::bigint, min(balance) FROM accounts", &[]);
        match tokio::time::timeout(Duration::from_secs(10), ask).await {
            Ok(Ok(row)) => {
                let total: i64 = row.get(0);
                assert_eq!(total, i64::from(ACCOUNTS) * EACH, "money was made or lost");
                assert!(row.get::<_, i64>(1) >= 0, "an account was overdrawn");
                audits += 1;
            }
            _ => connection.move_on(),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    audits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_total_holds_while_nodes_are_killed() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    client
        .batch_execute(
            "CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0));
             CREATE TABLE transfers (id bigint PRIMARY KEY, src int, dst int, amount bigint NOT NULL);",
        )
        .await
        .unwrap();
    for id in 0..ACCOUNTS {
        client.execute("INSERT INTO accounts VALUES ($1, $2)", &[&id, &EACH]).await.unwrap();
    }
    let addresses: Vec<String> = cluster.nodes().iter().map(|n| n.pg.clone()).collect();
    let stop = Stop::default();
    let tellers: Vec<_> =
        (1..=4).map(|n| tokio::spawn(teller(addresses.clone(), n, seed, stop.clone()))).collect();
    let auditors: Vec<_> =
        (0..3).map(|n| tokio::spawn(auditor(addresses.clone(), n, stop.clone()))).collect();
    let end = Instant::now() + Duration::from_secs(25);
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(rng.random_range(500..2500))).await;
        let victim = rng.random_range(0..3);
        println!("kill -9 of node {}", victim + 1);
        cluster.node(victim).kill();
        tokio::time::sleep(Duration::from_millis(rng.random_range(200..2500))).await;
        cluster.node(victim).restart();
        cluster.wait_ready(victim).await;
    }
    stop.stop();
    let mut acknowledged = Vec::new();
    for teller in tellers {
        acknowledged.extend(teller.await.unwrap());
    }
    let mut audits = 0;
    for auditor in auditors {
        audits += auditor.await.unwrap();
    }
    println!("{} transfers acknowledged, {audits} audits", acknowledged.len());
    assert!(acknowledged.len() > 20 && audits > 20, "too little happened to prove anything");
    for index in 0..3 {
        let client = cluster.client(index).await;
        let rows = client.query("SELECT id FROM transfers", &[]).await.unwrap();
        let found: std::collections::BTreeSet<i64> = rows.iter().map(|r| r.get(0)).collect();
        let lost: Vec<_> = acknowledged.iter().filter(|id| !found.contains(id)).collect();
        assert!(lost.is_empty(), "node {} has lost acknowledged transfers {lost:?}", index + 1);
        // The balances are exactly what the ledger says: no transfer half done.
        let query = "SELECT a.id, a.balance, \
                     coalesce((SELECT sum(amount)::bigint FROM transfers WHERE dst = a.id), 0) \
                     - coalesce((SELECT sum(amount)::bigint FROM transfers WHERE src = a.id), 0) \
                     FROM accounts a ORDER BY a.id";
        for row in client.query(query, &[]).await.unwrap() {
            let (id, balance, moved): (i32, i64, i64) = (row.get(0), row.get(1), row.get(2));
            assert_eq!(balance, EACH + moved, "account {id} on node {}", index + 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_across_gateways_is_found() {
    let cluster = Cluster::start(3).await;
    let mut one = cluster.client(0).await;
    let mut two = cluster.client(1).await;
    one.batch_execute("CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0), (2, 0)")
        .await
        .unwrap();
    let a = one.transaction().await.unwrap();
    let b = two.transaction().await.unwrap();
    a.execute("UPDATE t SET v = 1 WHERE k = 1", &[]).await.unwrap();
    b.execute("UPDATE t SET v = 2 WHERE k = 2", &[]).await.unwrap();
    let start = Instant::now();
    let (first, second) = tokio::join!(a.execute("UPDATE t SET v = 1 WHERE k = 2", &[]), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let result = b.execute("UPDATE t SET v = 2 WHERE k = 1", &[]).await;
        if result.is_err() {
            b.rollback().await.unwrap();
        }
        result
    });
    let error = second.expect_err("one of the two must be told of the deadlock");
    assert_eq!(error.as_db_error().unwrap().code().code(), "40P01");
    assert!(start.elapsed() < Duration::from_secs(2), "found after {:?}", start.elapsed());
    assert_eq!(first.unwrap(), 1);
    a.commit().await.unwrap();
}

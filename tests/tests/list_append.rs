//! Transactions that append to lists and read them, on all nodes, at every level, while nodes are killed, stopped and
//! cut off: the history has none of the anomalies that its level forbids.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use amphora_tests::list_append::{End, Key, Level, Op, Tx, Value, check};
use amphora_tests::load::{Roaming, Stop};
use amphora_tests::{Cluster, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::{Client, Error};

const WORKERS: i64 = 6;
const KEYS: Key = 6;
/// How long a statement is waited for before its client gives up.
const PATIENCE: Duration = Duration::from_secs(15);

fn parse(list: &str) -> Vec<Value> {
    list.split(',').filter(|v| !v.is_empty()).map(|v| v.parse().unwrap()).collect()
}

/// Does something random; notes what it did.
async fn step(client: &Client, rng: &mut StdRng, value: Value, ops: &mut Vec<Op>) -> Result<(), Error> {
    let key = rng.random_range(0..KEYS);
    match rng.random_range(0..10) {
        0..5 => {
            let text = value.to_string();
            let sql = "INSERT INTO lists VALUES ($1, $2)
                       ON CONFLICT (k) DO UPDATE SET v = lists.v || ',' || excluded.v";
            client.execute(sql, &[&key, &text]).await?;
            ops.push(Op::Append(key, value));
        }
        5..8 => {
            let row = client.query_opt("SELECT v FROM lists WHERE k = $1", &[&key]).await?;
            ops.push(Op::Read(key, row.map_or(Vec::new(), |row| parse(row.get(0)))));
        }
        _ => {
            // Of a list that is not there yet, this sees that it is not.
            let to = rng.random_range(key..KEYS);
            let rows = client.query("SELECT k, v FROM lists WHERE k BETWEEN $1 AND $2", &[&key, &to]).await?;
            let found: BTreeMap<Key, Vec<Value>> = rows.iter().map(|r| (r.get(0), parse(r.get(1)))).collect();
            ops.extend((key..=to).map(|k| Op::Read(k, found.get(&k).cloned().unwrap_or_default())));
        }
    }
    Ok(())
}

async fn attempt(
    client: &Client,
    level: Level,
    rng: &mut StdRng,
    value: &mut Value,
    ops: &mut Vec<Op>,
    committing: &mut bool,
) -> Result<(), Error> {
    client.batch_execute(&format!("BEGIN ISOLATION LEVEL {}", level.sql())).await?;
    for _ in 0..rng.random_range(1..=4) {
        *value += 1;
        step(client, rng, *value, ops).await?;
    }
    *committing = true;
    client.batch_execute("COMMIT").await
}

async fn worker(
    addresses: Vec<String>,
    n: i64,
    level: Level,
    seed: u64,
    start: Instant,
    stop: Stop,
) -> Vec<Tx> {
    let mut rng = StdRng::seed_from_u64(seed ^ n as u64);
    let mut connection = Roaming::new(addresses, n as usize);
    let mut value = n * 1_000_000;
    let mut history = Vec::new();
    while !stop.is_stopped() {
        let client = connection.client().await;
        let (mut ops, mut committing) = (Vec::new(), false);
        let began = start.elapsed();
        let run = attempt(client, level, &mut rng, &mut value, &mut ops, &mut committing);
        let outcome = tokio::time::timeout(PATIENCE, run).await;
        let (end, good) = match outcome {
            Ok(Ok(())) => (End::Committed, true),
            Ok(Err(e)) => match e.as_db_error().map(|d| d.code().code().to_owned()) {
                Some(code) if matches!(code.as_str(), "40001" | "40P01" | "57P03" | "55P03") => {
                    (End::Aborted, true)
                }
                _ if committing => (End::Unknown, false),
                _ => (End::Aborted, false),
            },
            Err(_) if committing => (End::Unknown, false),
            Err(_) => (End::Aborted, false),
        };
        history.push(Tx { ops, end, time: (began, start.elapsed()) });
        let rolled_back = match (good, end) {
            (true, End::Committed) => true,
            (true, _) => {
                tokio::time::sleep(Duration::from_millis(rng.random_range(1..20))).await;
                tokio::time::timeout(PATIENCE, client.batch_execute("ROLLBACK"))
                    .await
                    .is_ok_and(|r| r.is_ok())
            }
            (false, _) => false,
        };
        if !rolled_back {
            connection.move_on();
        }
    }
    history
}

/// One fault and its end.
async fn trouble(cluster: &mut Cluster, rng: &mut StdRng) {
    let victim = rng.random_range(0..3);
    let long = Duration::from_millis(rng.random_range(300..2500));
    match rng.random_range(0..3) {
        0 => {
            println!("kill -9 of node {}", victim + 1);
            cluster.node(victim).kill();
            tokio::time::sleep(long).await;
            cluster.node(victim).restart();
            cluster.wait_ready(victim).await;
        }
        1 => {
            println!("SIGSTOP of node {} for {long:?}", victim + 1);
            cluster.node(victim).pause();
            tokio::time::sleep(long).await;
            cluster.node(victim).resume();
        }
        _ => {
            println!("node {} is cut off for {long:?}", victim + 1);
            let others: Vec<usize> = (0..3).filter(|n| *n != victim).collect();
            cluster.partition(&[victim], &others).await;
            tokio::time::sleep(long).await;
            cluster.heal().await;
        }
    }
}

async fn run(level: Level, limit: Duration) {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    client.batch_execute("CREATE TABLE lists (k int PRIMARY KEY, v text NOT NULL)").await.unwrap();
    let addresses: Vec<String> = cluster.nodes().iter().map(|n| n.pg.clone()).collect();
    let (stop, start) = (Stop::default(), Instant::now());
    let workers: Vec<_> = (1..=WORKERS)
        .map(|n| tokio::spawn(worker(addresses.clone(), n, level, seed, start, stop.clone())))
        .collect();
    while start.elapsed() < limit {
        tokio::time::sleep(Duration::from_millis(rng.random_range(500..2000))).await;
        trouble(&mut cluster, &mut rng).await;
    }
    stop.stop();
    let mut history = Vec::new();
    for worker in workers {
        history.extend(worker.await.unwrap());
    }
    cluster.wait_settled().await;
    let mut seen = Vec::new();
    for node in 0..3 {
        let client = cluster.client(node).await;
        let rows = client.query("SELECT k, v FROM lists", &[]).await.unwrap();
        let lists: BTreeMap<Key, Vec<Value>> = rows.iter().map(|r| (r.get(0), parse(r.get(1)))).collect();
        seen.push(lists);
    }
    assert!(seen.iter().all(|lists| *lists == seen[0]), "the nodes differ: {seen:?}");
    let of = |end: End| history.iter().filter(|tx| tx.end == end).count();
    let (committed, aborted, unknown) = (of(End::Committed), of(End::Aborted), of(End::Unknown));
    println!("{}: {committed} committed, {aborted} refused, {unknown} unknown", level.sql());
    let broken = check(&history, &seen[0], level);
    assert!(broken.is_empty(), "AMPHORA_SEED={seed}\n{}", broken.join("\n"));
    assert!(committed > 10, "too little happened to prove anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_committed() {
    run(Level::ReadCommitted, Duration::from_secs(12)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeatable_read() {
    run(Level::RepeatableRead, Duration::from_secs(12)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable() {
    run(Level::Serializable, Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs for SOAK_MINUTES: `make soak`"]
async fn every_level_for_long() {
    let minutes: u64 = std::env::var("SOAK_MINUTES").ok().and_then(|m| m.parse().ok()).unwrap_or(10);
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    while Instant::now() < until {
        for level in [Level::ReadCommitted, Level::RepeatableRead, Level::Serializable] {
            run(level, Duration::from_secs(40)).await;
        }
    }
}

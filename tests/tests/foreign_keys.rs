//! Children come while their parents go, on three nodes, with nodes killed: no child is ever left without
//! its parent, whoever looks and whenever.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::{Duration, Instant};

use amphora_tests::load::{Roaming, Stop};
use amphora_tests::{Cluster, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const PARENTS: i32 = 12;

const SCHEMA: &str = "
    CREATE TABLE parent (id int PRIMARY KEY, note text);
    CREATE TABLE child (id bigint PRIMARY KEY, parent int NOT NULL REFERENCES parent);
    CREATE TABLE dependent (id bigint PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);
    CREATE INDEX ON dependent (parent);
    INSERT INTO parent SELECT id, 'first' FROM generate_series(1, 12) AS id;";

/// What a worker has seen done.
#[derive(Default)]
struct Done {
    children: usize,
    refused: usize,
    deletions: usize,
}

async fn step(
    client: &mut tokio_postgres::Client,
    rng: &mut StdRng,
    id: i64,
    done: &mut Done,
) -> Result<(), tokio_postgres::Error> {
    let parent = rng.random_range(1..=PARENTS);
    match rng.random_range(0..8) {
        // A statement alone, which asks for no locks.
        0 | 1 => {
            done.children +=
                client.execute("INSERT INTO child VALUES ($1, $2)", &[&id, &parent]).await? as usize
        }
        2 => {
            done.children +=
                client.execute("INSERT INTO dependent VALUES ($1, $2)", &[&id, &parent]).await? as usize
        }
        // The same in a block, where it locks.
        3 => {
            let tx = client.transaction().await?;
            tx.execute("INSERT INTO child VALUES ($1, $2), ($1 + 1, $2)", &[&id, &parent]).await?;
            tx.execute("INSERT INTO dependent VALUES ($1, $2)", &[&id, &parent]).await?;
            tx.commit().await?;
            done.children += 3;
        }
        // Parents go, once their children have.
        4 => {
            let tx = client.transaction().await?;
            tx.execute("DELETE FROM child WHERE parent = $1", &[&parent]).await?;
            done.deletions += tx.execute("DELETE FROM parent WHERE id = $1", &[&parent]).await? as usize;
            tx.commit().await?;
        }
        5 => done.deletions += client.execute("DELETE FROM parent WHERE id = $1", &[&parent]).await? as usize,
        // And come back.
        6 => {
            let sql = "INSERT INTO parent VALUES ($1, 'again') ON CONFLICT DO NOTHING";
            client.execute(sql, &[&parent]).await?;
        }
        // A parent's other columns change, which is no children's affair.
        _ => {
            client.execute("UPDATE parent SET note = note || '.' WHERE id = $1", &[&parent]).await?;
        }
    }
    Ok(())
}

async fn worker(addresses: Vec<String>, number: i64, seed: u64, stop: Stop) -> Done {
    let mut rng = StdRng::seed_from_u64(seed ^ number as u64);
    let mut connection = Roaming::new(addresses, number as usize);
    let mut done = Done::default();
    let mut id = number * 1_000_000;
    while !stop.is_stopped() {
        id += 2;
        let client = connection.client().await;
        let attempt = step(client, &mut rng, id, &mut done);
        match tokio::time::timeout(Duration::from_secs(10), attempt).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => match e.as_db_error().map(|d| d.code().code()) {
                Some("23503") => done.refused += 1,
                Some("40001" | "40P01" | "57P03") => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => connection.move_on(),
            },
            Err(_) => connection.move_on(),
        }
    }
    done
}

async fn auditor(addresses: Vec<String>, start: usize, stop: Stop) -> usize {
    let mut connection = Roaming::new(addresses, start);
    let mut audits = 0;
    while !stop.is_stopped() {
        let client = connection.client().await;
        let ask = client.query(ORPHANS, &[]);
        match tokio::time::timeout(Duration::from_secs(10), ask).await {
            Ok(Ok(rows)) => {
                let orphans: Vec<(i64, i32)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
                assert!(orphans.is_empty(), "children without their parents: {orphans:?}");
                audits += 1;
            }
            _ => connection.move_on(),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    audits
}

const ORPHANS: &str =
    "SELECT c.id, c.parent FROM child c LEFT JOIN parent p ON p.id = c.parent WHERE p.id IS NULL
    UNION ALL
    SELECT d.id, d.parent FROM dependent d LEFT JOIN parent p ON p.id = d.parent WHERE p.id IS NULL";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_child_is_left_without_its_parent() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(3).await;
    cluster.client(0).await.batch_execute(SCHEMA).await.unwrap();
    let addresses: Vec<String> = cluster.nodes().iter().map(|n| n.pg.clone()).collect();
    let stop = Stop::default();
    let workers: Vec<_> =
        (1..=6).map(|n| tokio::spawn(worker(addresses.clone(), n, seed, stop.clone()))).collect();
    let auditors: Vec<_> =
        (0..3).map(|n| tokio::spawn(auditor(addresses.clone(), n, stop.clone()))).collect();
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(rng.random_range(500..2500))).await;
        // The leader most of the time: its locks go with it.
        let victim = if rng.random_bool(0.7) { cluster.leader().await } else { rng.random_range(0..3) };
        println!("kill -9 of node {}", victim + 1);
        cluster.node(victim).kill();
        tokio::time::sleep(Duration::from_millis(rng.random_range(200..2000))).await;
        cluster.node(victim).restart();
        cluster.wait_ready(victim).await;
    }
    stop.stop();
    let mut all = Done::default();
    for worker in workers {
        let done = worker.await.unwrap();
        all.children += done.children;
        all.refused += done.refused;
        all.deletions += done.deletions;
    }
    let mut audits = 0;
    for auditor in auditors {
        audits += auditor.await.unwrap();
    }
    println!(
        "{} children, {} refusals, {} parents deleted, {audits} audits",
        all.children, all.refused, all.deletions
    );
    assert!(
        all.children > 20 && all.refused > 5 && all.deletions > 5 && audits > 20,
        "too little happened to prove anything"
    );
    for index in 0..3 {
        let rows = cluster.client(index).await.query(ORPHANS, &[]).await.unwrap();
        assert!(rows.is_empty(), "node {} has {} orphans", index + 1, rows.len());
    }
}

/// A table's shape changes under writers on all nodes. A single statement never learns of it, and nothing
/// that was acknowledged is lost when the rows are written anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_go_on_while_a_table_is_altered() {
    let cluster = Cluster::start(3).await;
    let admin = cluster.client(0).await;
    admin.batch_execute("CREATE TABLE t (id bigint NOT NULL, v int)").await.unwrap();
    let stop = Stop::default();
    let mut writers = Vec::new();
    for number in 0..3 {
        let client = cluster.client(number).await;
        let stop = stop.clone();
        writers.push(tokio::spawn(async move {
            let mut written = 0i64;
            while !stop.is_stopped() {
                let sql =
                    format!("INSERT INTO t (id, v) VALUES ({}, 1)", number as i64 * 1_000_000 + written);
                client.batch_execute(&sql).await.unwrap();
                written += 1;
            }
            written
        }));
    }
    for action in [
        "ADD COLUMN a text DEFAULT 'a'",
        "ADD PRIMARY KEY (id)",
        "ALTER COLUMN v TYPE numeric(20,2)",
        "DROP COLUMN a",
        "ADD CONSTRAINT pos CHECK (v > 0)",
        "ADD UNIQUE (id, v)",
        "DROP CONSTRAINT t_pkey",
        "ADD COLUMN r float8 DEFAULT random()",
    ] {
        tokio::time::sleep(Duration::from_millis(300)).await;
        admin
            .batch_execute(&format!("ALTER TABLE t {action}"))
            .await
            .unwrap_or_else(|e| panic!("{action}: {e}"));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.stop();
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap();
    }
    assert!(written > 50, "too little happened to prove anything");
    for index in 0..3 {
        let row = cluster
            .client(index)
            .await
            .query_one("SELECT count(*), count(DISTINCT id) FROM t", &[])
            .await
            .unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (written, written), "node {}", index + 1);
    }
}

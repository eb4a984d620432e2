//! A table as a work queue: SELECT … FOR UPDATE SKIP LOCKED, with many workers, on all nodes.
//!
//! `AMPHORA_JOBS` (200) is how many jobs there are; with `AMPHORA_BESIDE_POSTGRES` set, the figures of a private
//! PostgreSQL are printed too.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeSet;
use std::time::Instant;

use amphora_tests::Cluster;
use amphora_tests::postgres::Postgres;
use tokio_postgres::{Client, NoTls};

fn jobs() -> i32 {
    std::env::var("AMPHORA_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

const SETUP: &str = "DROP TABLE IF EXISTS jobs, done;
    CREATE TABLE jobs (id int PRIMARY KEY, state text NOT NULL DEFAULT 'new');
    CREATE TABLE done (id int PRIMARY KEY, worker int NOT NULL)";

/// How a worker takes a job.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// A transaction: choose, work, delete
    Block,
    /// One statement
    Statement,
}

/// Works until there is nothing left; the jobs done.
async fn work(client: Client, worker: i32, way: Way) -> Vec<i32> {
    let choose = client
        .prepare("SELECT id FROM jobs WHERE state = 'new' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED")
        .await
        .unwrap();
    let delete = client.prepare("DELETE FROM jobs WHERE id = $1").await.unwrap();
    let note = client.prepare("INSERT INTO done VALUES ($1, $2)").await.unwrap();
    let at_once = client
        .prepare(
            "WITH job AS (DELETE FROM jobs WHERE id =
               (SELECT id FROM jobs WHERE state = 'new' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id)
             INSERT INTO done SELECT id, $1 FROM job RETURNING id",
        )
        .await
        .unwrap();
    let mut mine = Vec::new();
    loop {
        match way {
            Way::Statement => match client.query_opt(&at_once, &[&worker]).await.unwrap() {
                Some(row) => mine.push(row.get(0)),
                None => return mine,
            },
            Way::Block => {
                client.batch_execute("BEGIN").await.unwrap();
                let Some(row) = client.query_opt(&choose, &[]).await.unwrap() else {
                    client.batch_execute("COMMIT").await.unwrap();
                    return mine;
                };
                let id: i32 = row.get(0);
                assert_eq!(client.execute(&delete, &[&id]).await.unwrap(), 1);
                client.execute(&note, &[&id, &worker]).await.unwrap();
                client.batch_execute("COMMIT").await.unwrap();
                mine.push(id);
            }
        }
    }
}

/// Fills the queue and drains it; jobs a second.
async fn drain<F: Future<Output = Client>>(connect: impl Fn(usize) -> F, workers: usize, way: Way) -> f64 {
    let jobs = jobs();
    let client = connect(0).await;
    client.batch_execute(SETUP).await.unwrap();
    client.execute("INSERT INTO jobs SELECT generate_series(1, $1::int)", &[&jobs]).await.unwrap();
    let mut clients = Vec::new();
    for worker in 0..workers {
        clients.push(connect(worker).await);
    }
    let start = Instant::now();
    let running: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(worker, client)| tokio::spawn(work(client, worker as i32, way)))
        .collect();
    let mut taken = Vec::new();
    for worker in running {
        taken.extend(worker.await.unwrap());
    }
    let elapsed = start.elapsed();
    assert_eq!(taken.len(), jobs as usize, "{workers} workers: each job once");
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), jobs as usize, "{workers} workers: no job twice");
    let noted = client.query_one("SELECT count(*) FROM done", &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(noted, i64::from(jobs));
    f64::from(jobs) / elapsed.as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_job_is_done_once_however_many_work() {
    let cluster = Cluster::start(3).await;
    let cluster = &cluster;
    let postgres = match std::env::var_os("AMPHORA_BESIDE_POSTGRES") {
        Some(_) => Some(Postgres::start().await),
        None => None,
    };
    for way in [Way::Block, Way::Statement] {
        for workers in [1, 8, 32] {
            let rate = drain(|n| async move { cluster.client(n % 3).await }, workers, way).await;
            println!("{way:?}, {workers} workers: {rate:.0} jobs/s");
            if let Some(server) = &postgres {
                let connect = |_| async {
                    let (client, connection) = server.config().connect(NoTls).await.unwrap();
                    tokio::spawn(connection);
                    client
                };
                let rate = drain(connect, workers, way).await;
                println!("{way:?}, {workers} workers: {rate:.0} jobs/s (PostgreSQL 15, without fsync)");
            }
        }
    }
}

/// LIMIT stops the locking, in the order of the query; NOWAIT does not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locks_are_taken_in_order_and_no_more_than_are_shown() {
    let cluster = Cluster::start(3).await;
    let (one, two) = (cluster.client(0).await, cluster.client(1).await);
    one.batch_execute(SETUP).await.unwrap();
    one.batch_execute("INSERT INTO jobs SELECT generate_series(1, 300)").await.unwrap();
    let ids = async |client: &Client, sql: &str| -> Vec<i32> {
        client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    one.batch_execute("BEGIN").await.unwrap();
    let first = "SELECT id FROM jobs ORDER BY id LIMIT 3 FOR UPDATE SKIP LOCKED";
    assert_eq!(ids(&one, first).await, [1, 2, 3]);
    two.batch_execute("BEGIN").await.unwrap();
    assert_eq!(ids(&two, first).await, [4, 5, 6]);
    assert_eq!(ids(&one, first).await, [1, 2, 3], "what it holds itself is not skipped");
    let last = "SELECT id FROM jobs ORDER BY id DESC LIMIT 2 OFFSET 1 FOR UPDATE SKIP LOCKED";
    assert_eq!(ids(&one, last).await, [299, 298]);
    let all = ids(&two, "SELECT id FROM jobs ORDER BY id FOR UPDATE SKIP LOCKED").await;
    assert_eq!(all, (4..=297).collect::<Vec<_>>());
    let error = one.query("SELECT id FROM jobs WHERE id = 4 FOR UPDATE NOWAIT", &[]).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "55P03");
    assert_eq!(error.message(), "could not obtain lock on row in relation \"jobs\"");
}

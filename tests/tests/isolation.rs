//! The Hermitage isolation cases (Martin Kleppmann, 2014) on Amphora beside PostgreSQL 15: `tests/isolation/`.
//!
//! `AMPHORA_RECORD=1` writes the files anew, from both.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::PathBuf;

use amphora_tests::Cluster;
use amphora_tests::isolation::{Case, LEVELS, run};
use amphora_tests::postgres::Postgres;
use tokio_postgres::{Client, NoTls};

const SETUP: &str = "DROP TABLE IF EXISTS test;
    CREATE TABLE test (id int PRIMARY KEY, value int);
    INSERT INTO test VALUES (1, 10), (2, 20)";

fn cases() -> Vec<(PathBuf, Case)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("isolation");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let case = Case::parse(&std::fs::read_to_string(&path).unwrap());
        (path, case)
    };
    paths.into_iter().map(read).collect()
}

fn sessions(case: &Case) -> usize {
    case.steps.iter().map(|(session, _)| *session).max().unwrap()
}

async fn on_postgres(server: &Postgres, case: &Case) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..sessions(case) {
        let (client, connection) = server.config().connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        clients.push(client);
    }
    clients[0].batch_execute(SETUP).await.unwrap();
    clients
}

/// Each session at a node of its own, as far as there are nodes.
async fn on_amphora(cluster: &Cluster, case: &Case) -> Vec<Client> {
    let mut clients = Vec::new();
    for session in 0..sessions(case) {
        clients.push(cluster.client(session % cluster.len()).await);
    }
    clients[0].batch_execute(SETUP).await.unwrap();
    clients
}

async fn replay(cluster: &Cluster) {
    for (path, case) in cases() {
        for level in LEVELS {
            let expected = &case.recorded[level].1;
            let clients = on_amphora(cluster, &case).await;
            let now = run(&case, level, clients, Some(expected)).await;
            assert_eq!(now, *expected, "{} at {level}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_one_node() {
    if std::env::var_os("AMPHORA_RECORD").is_none() {
        replay(&Cluster::start(1).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_every_session_at_a_node_of_its_own() {
    if std::env::var_os("AMPHORA_RECORD").is_none() {
        replay(&Cluster::start(3).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_postgresql() {
    let server = Postgres::start().await;
    let record = std::env::var_os("AMPHORA_RECORD").is_some();
    let amphora = if record { Some(Cluster::start(1).await) } else { None };
    for (path, mut case) in cases() {
        for level in LEVELS {
            let clients = on_postgres(&server, &case).await;
            let expected = case.recorded.get(level).map(|r| r.0.clone()).filter(|_| !record);
            let now = run(&case, level, clients, expected.as_deref()).await;
            match &amphora {
                Some(cluster) => {
                    let clients = on_amphora(cluster, &case).await;
                    let ours = run(&case, level, clients, None).await;
                    case.recorded.insert(level.to_owned(), (now, ours));
                }
                None => assert_eq!(now, case.recorded[level].0, "{} at {level}", path.display()),
            }
        }
        if record {
            std::fs::write(&path, case.print()).unwrap();
        }
        assert!(record || case.unexplained().is_empty(), "{}: {:?}", path.display(), case.unexplained());
    }
}

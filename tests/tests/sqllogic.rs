//! sqllogictest: the project's own files, on Amphora and on PostgreSQL, and the public corpus.
//!
//! `AMPHORA_SLT=folder` names a corpus (default: `../shared/slt` beside the checkout, if it is there);
//! `AMPHORA_SLT_FILTER=text` runs only files whose path has it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use amphora_tests::logic::{self, Database, Outcome};
use amphora_tests::postgres::Postgres;
use amphora_tests::{Cluster, Node};

fn own() -> Vec<PathBuf> {
    filtered(logic::files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("slt")))
}

fn filtered(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let filter = std::env::var("AMPHORA_SLT_FILTER").unwrap_or_default();
    files.into_iter().filter(|f| f.to_string_lossy().contains(&filter)).collect()
}

fn amphora(node: &Node) -> Database {
    let (host, port) = node.pg.rsplit_once(':').unwrap();
    let mut config = tokio_postgres::Config::new();
    config.host(host).port(port.parse().unwrap()).user("amphora").dbname("amphora");
    Database { config, name: "amphora" }
}

/// Each file on a database of its own, some at a time.
async fn on_amphora(files: Vec<PathBuf>, nodes: usize) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for file in files {
        let cluster = Cluster::start(nodes).await;
        let outcome = logic::run_file(&amphora(&cluster.nodes()[nodes - 1]), &file).await;
        println!(
            "{}: {} records in {:.1} s, slowest {} ms at {}",
            file.display(),
            outcome.records,
            outcome.elapsed.as_secs_f64(),
            outcome.slowest.0.as_millis(),
            outcome.slowest.1
        );
        outcomes.push(outcome);
    }
    outcomes
}

fn judge(outcomes: &[Outcome]) {
    let mut report = String::new();
    for outcome in outcomes.iter().filter(|o| o.failed > 0) {
        report +=
            &format!("\n{}: {} of {} failed\n", outcome.file.display(), outcome.failed, outcome.records);
        for failure in &outcome.failures {
            report += &format!("{failure}\n");
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_projects_own_files_pass() {
    let files = own();
    judge(&on_amphora(files, 1).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_projects_own_files_pass_on_postgresql() {
    let postgres = Postgres::start().await;
    let mut outcomes = Vec::new();
    for (i, file) in own().iter().enumerate() {
        let config = postgres.create_database(&format!("slt{i}")).await;
        outcomes.push(logic::run_file(&Database { config, name: "postgres" }, file).await);
    }
    judge(&outcomes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_pass_through_a_follower_of_three_nodes() {
    let names = ["amphora_modes", "transactions", "joins"];
    let files = own().into_iter().filter(|f| names.iter().any(|n| f.file_stem().is_some_and(|s| s == *n)));
    judge(&on_amphora(files.collect(), 3).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_public_corpus_passes() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/slt");
    let folder = std::env::var_os("AMPHORA_SLT").map(PathBuf::from).unwrap_or(beside);
    if !folder.is_dir() {
        println!("no corpus at {}: AMPHORA_SLT may name one", folder.display());
        return;
    }
    let outcomes = on_amphora(filtered(logic::files(&folder)), 1).await;
    let total: Duration = outcomes.iter().map(|o| o.elapsed).sum();
    println!("{} files in {:.1} s", outcomes.len(), total.as_secs_f64());
    judge(&outcomes);
}

//! Amphora against PostgreSQL, statement by statement.
//!
//! `AMPHORA_SEED=…` repeats a run; `AMPHORA_STATEMENTS=…` says how many it makes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use amphora_tests::Cluster;
use amphora_tests::differential::generate::Generator;
use amphora_tests::differential::shrink::Sent;
use amphora_tests::differential::wire::{Connection, Mode};
use amphora_tests::differential::{Pair, sweep};
use amphora_tests::postgres::Postgres;

/// The seed where none is given.
const SEED: u64 = 15;

/// Statements a generated schema lives.
const PER_SCHEMA: usize = 250;

async fn servers() -> (Postgres, Cluster, Pair) {
    let (postgres, cluster) = tokio::join!(Postgres::start(), Cluster::start(1));
    let pair = Pair::new(
        Connection::open(&postgres.address()).unwrap(),
        Connection::open(&cluster.nodes()[0].pg).unwrap(),
    );
    (postgres, cluster, pair)
}

fn judge(pair: &Pair) {
    println!("{}", pair.report());
    assert!(pair.differences.is_empty(), "{} unexplained differences", pair.differences.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_is_read_and_written_alike() {
    let (_postgres, _cluster, mut pair) = servers().await;
    pair.run_all(&sweep::inputs());
    judge(&pair);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cast_is_alike() {
    let (_postgres, _cluster, mut pair) = servers().await;
    pair.run_all(&sweep::casts());
    pair.run_all(&sweep::assignments());
    judge(&pair);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operator_is_alike() {
    let (_postgres, _cluster, mut pair) = servers().await;
    let statements = sweep::operators(&mut pair.postgres, 5);
    pair.run_all(&statements);
    judge(&pair);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_function_is_alike() {
    let (_postgres, _cluster, mut pair) = servers().await;
    let mut statements = sweep::functions(&mut pair.postgres, 3);
    statements.extend(sweep::aggregates(&mut pair.postgres));
    pair.run_all(&statements);
    judge(&pair);
}

/// Differences that are made small and printed.
const SHRUNK: usize = 5;

/// Runs generated statements, a new schema every few hundred; after a difference the schema is made anew, as
/// the tables may have come apart.
fn random(pair: &mut Pair, seed: u64, statements: usize) {
    let mut generator = Generator::new(seed);
    let mut script: Vec<Sent> = Vec::new();
    let (mut left, mut shrunk) = (0, 0);
    let target = pair.statements + statements;
    while pair.statements < target {
        if left == 0 {
            script.clear();
            for sql in generator.schema() {
                pair.run(&sql, &[], Mode::Simple, true);
                let sent = Sent { sql, parameters: Vec::new(), mode: Mode::Simple, ordered: true };
                if !sent.sql.starts_with("DROP") && sent.sql != "ROLLBACK" {
                    script.push(sent);
                }
            }
            left = PER_SCHEMA;
        }
        left -= 1;
        let made = generator.statement();
        let mode = [Mode::Simple, Mode::Text, Mode::Binary][pair.statements % 3];
        let mode = if made.parameters.is_empty() || mode != Mode::Simple { mode } else { Mode::Binary };
        let same = pair.run(&made.sql, &made.parameters, mode, made.ordered);
        let sent = Sent { sql: made.sql, parameters: made.parameters, mode, ordered: made.ordered };
        let reads = sent.sql.starts_with("SELECT") && !sent.sql.contains("val('");
        if !same {
            left = 0;
            if shrunk < SHRUNK {
                shrunk += 1;
                match pair.shrink(&script, &sent) {
                    Some(small) => println!("-- seed {seed}: the last statement differs\n{small}"),
                    None => println!("-- seed {seed}: does not differ when run again: {}", sent.sql),
                }
            }
        } else if !reads {
            script.push(sent);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_statements_are_alike() {
    let (_postgres, _cluster, mut pair) = servers().await;
    let statements = std::env::var("AMPHORA_STATEMENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    // The same statements every time; `AMPHORA_SEED` asks for others.
    let seed = std::env::var_os("AMPHORA_SEED").map_or(SEED, |_| amphora_tests::seed());
    random(&mut pair, seed, statements);
    judge(&pair);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make soak"]
async fn generated_statements_are_alike_from_any_seed() {
    let (_postgres, _cluster, mut pair) = servers().await;
    random(&mut pair, amphora_tests::seed(), 100_000);
    judge(&pair);
}

//! The tables, and how fast a million rows are copied into one.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use futures::SinkExt;
use tokio_postgres::Client;

use crate::Settings;
use crate::pgbench::Target;
use crate::report::{Comparison, Goal, Side};
use crate::workload::{COUNTERS, SCALE};

/// As the table calls it.
pub const NAME: &str = "COPY of 1,000,000 pgbench_accounts";
const ROWS: i64 = 1_000_000;
/// Rows of one INSERT: one transaction each.
const INSERT_ROWS: i64 = 50_000;

/// A connection to either side.
pub async fn connect(target: Target) -> Client {
    let config = format!("host=127.0.0.1 port={} user=amphora dbname=amphora", target.port);
    let (client, connection) =
        tokio_postgres::connect(&config, tokio_postgres::NoTls).await.expect("the server answers");
    tokio::spawn(connection);
    client
}

/// pgbench's tables, filled as `pgbench -i` fills them, and the increments' table, with these columns.
pub async fn tables(target: Target, counters: &str) {
    let client = connect(target).await;
    let run = async |sql: String| client.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    run("CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88))".into()).await;
    run("CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84))".into())
        .await;
    run("CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22))".into())
        .await;
    run(format!("CREATE TABLE pgbench_accounts {ACCOUNTS}")).await;
    run(format!("INSERT INTO pgbench_branches SELECT i, 0, '' FROM generate_series(1, {SCALE}) AS g(i)"))
        .await;
    run(format!(
        "INSERT INTO pgbench_tellers SELECT i, (i - 1) / 10 + 1, 0, '' FROM generate_series(1, {}) AS g(i)",
        SCALE * 10
    ))
    .await;
    for first in (1..=SCALE * 100_000).step_by(INSERT_ROWS as usize) {
        let last = first + INSERT_ROWS - 1;
        run(format!(
            "INSERT INTO pgbench_accounts SELECT i, (i - 1) / 100000 + 1, 0, '' \
             FROM generate_series({first}, {last}) AS g(i)"
        ))
        .await;
    }
    run(format!("CREATE TABLE counters {counters}")).await;
    run(format!("INSERT INTO counters SELECT i, 0 FROM generate_series(1, {COUNTERS}) AS g(i)")).await;
    // Statistics, where there are any to gather.
    if let Err(e) = client.batch_execute("ANALYZE").await {
        eprintln!("ANALYZE: {e}");
    }
    // What the load has left behind is not the first workload's to pay.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

const ACCOUNTS: &str = "(aid int PRIMARY KEY, bid int, abalance int, filler char(84))";

/// Copies the rows into a new table with its primary key, in turns.
pub async fn copy(settings: &Settings, amphora: Target, postgres: Target) -> Comparison {
    eprintln!("{NAME} …");
    let mut sides = [Side::default(), Side::default()];
    for _ in 0..settings.rounds {
        for (side, target) in sides.iter_mut().zip([amphora, postgres]) {
            match copy_once(target).await {
                Ok(took) => side.rounds.push(ROWS as f64 / took.as_secs_f64()),
                Err(e) => {
                    let what = match e.as_db_error() {
                        Some(e) => format!("{} {}", e.code().code(), e.message()),
                        None => e.to_string(),
                    };
                    *side.failures.entry(what).or_default() += 1;
                }
            }
        }
    }
    let [amphora, postgres] = sides;
    Comparison { name: format!("{NAME}, rows"), amphora, postgres, goal: Goal::AtLeast(0.5) }
}

async fn copy_once(target: Target) -> Result<Duration, tokio_postgres::Error> {
    let client = connect(target).await;
    client.batch_execute(&format!("DROP TABLE IF EXISTS copied; CREATE TABLE copied {ACCOUNTS}")).await?;
    let start = Instant::now();
    let sink = client.copy_in::<_, bytes::Bytes>("COPY copied FROM STDIN").await?;
    futures::pin_mut!(sink);
    let mut text = String::new();
    for aid in 1..=ROWS {
        // A million formatted rows cost the client little against what they cost the server.
        writeln!(text, "{aid}\t{}\t0\t", (aid - 1) / 100_000 + 1).expect("writing to a string");
        if text.len() > 60_000 {
            sink.send(std::mem::take(&mut text).into()).await?;
        }
    }
    sink.send(text.into()).await?;
    let rows = sink.finish().await?;
    let took = start.elapsed();
    assert_eq!(rows, ROWS as u64, "rows copied");
    client.batch_execute("DROP TABLE copied").await?;
    Ok(took)
}

//! Strong tables beside PostgreSQL, beyond pgbench's usual: TPC-B on one branch and on fifty, transactions of a thousand
//! rows, a work queue.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::Settings;
use crate::load::connect;
use crate::pgbench::{Outcome, Run, Target};
use crate::report::{Comparison, Goal, Report, Side};

/// pgbench's scales: one row that everybody updates, and so many that nobody waits.
const SCALES: [(i64, f64); 2] = [(1, 1.0), (50, 1.5)];
/// Clients of TPC-B.
const CLIENTS: usize = 32;
/// Rows of a large transaction.
const ROWS: i32 = 1_000;
/// Large transactions in a round.
const TRANSACTIONS: u32 = 10;
/// Workers at the queue, and the jobs that they find.
const WORKERS: [(usize, i32); 3] = [(1, 400), (8, 2_000), (32, 2_000)];

/// Rows of one INSERT: one transaction each.
const INSERT_ROWS: i64 = 50_000;

/// The leader, and PostgreSQL's primary.
#[derive(Clone, Copy)]
pub struct Sides {
    /// This side
    pub amphora: Target,
    /// That side
    pub postgres: Target,
}

fn scale_name(scale: i64) -> String {
    format!("TPC-B on scale {scale}, prepared, {CLIENTS} clients")
}

fn queue_name(workers: usize) -> String {
    let plural = if workers == 1 { "" } else { "s" };
    format!("work queue, {workers} worker{plural}, jobs")
}

const ONE_STATEMENT: &str = "UPDATE of 1000 rows, transactions";
const MANY_STATEMENTS: &str = "1000 INSERTs in a transaction, transactions";

/// True if any of these is wanted.
pub fn is_wanted(settings: &Settings) -> bool {
    names().iter().any(|name| settings.wants(name))
}

fn names() -> Vec<String> {
    let scales = SCALES.iter().map(|(scale, _)| scale_name(*scale));
    let queues = WORKERS.iter().map(|(workers, _)| queue_name(*workers));
    scales.chain([ONE_STATEMENT.to_owned(), MANY_STATEMENTS.to_owned()]).chain(queues).collect()
}

/// Runs all that are wanted; scripts lie in `folder`.
pub async fn run(settings: &Settings, sides: Sides, folder: &Path, report: &mut Report) {
    for (scale, goal) in SCALES {
        let name = scale_name(scale);
        if settings.wants(&name) {
            let comparison = tpc_b(settings, sides, folder, scale, name, Goal::AtLeast(goal)).await;
            report.comparisons.push(comparison);
        }
    }
    for (name, way) in [(ONE_STATEMENT, Way::OneStatement), (MANY_STATEMENTS, Way::ManyStatements)] {
        if settings.wants(name) {
            report.comparisons.push(large_transactions(settings, sides, name, way).await);
        }
    }
    for (workers, jobs) in WORKERS {
        let name = queue_name(workers);
        if settings.wants(&name) {
            report.comparisons.push(work_queue(settings, sides, name, workers, jobs).await);
        }
    }
}

/// Each side in turns, as often as there are rounds.
async fn in_turns<F: Future<Output = f64>>(
    settings: &Settings,
    sides: Sides,
    name: String,
    goal: Goal,
    once: impl Fn(Target) -> F,
) -> Comparison {
    eprintln!("{name} …");
    let (mut amphora, mut postgres) = (Side::default(), Side::default());
    for _ in 0..settings.rounds {
        amphora.rounds.push(once(sides.amphora).await);
        postgres.rounds.push(once(sides.postgres).await);
    }
    Comparison { name, amphora, postgres, goal }
}

/// pgbench's default script on tables of their own.
fn script(scale: i64) -> String {
    format!(
        "\\set aid random(1, {accounts})\n\\set bid random(1, {scale})\n\\set tid random(1, {tellers})\n\
         \\set delta random(-5000, 5000)\nBEGIN;\n\
         UPDATE accounts_{scale} SET abalance = abalance + :delta WHERE aid = :aid;\n\
         SELECT abalance FROM accounts_{scale} WHERE aid = :aid;\n\
         UPDATE tellers_{scale} SET tbalance = tbalance + :delta WHERE tid = :tid;\n\
         UPDATE branches_{scale} SET bbalance = bbalance + :delta WHERE bid = :bid;\n\
         INSERT INTO history_{scale} (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);\n\
         END;\n",
        accounts = scale * 100_000,
        tellers = scale * 10,
    )
}

async fn fill(target: Target, scale: i64) {
    let client = connect(target).await;
    let run = async |sql: String| client.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    run(format!(
        "CREATE TABLE branches_{scale} (bid int PRIMARY KEY, bbalance int, filler char(88));
         CREATE TABLE tellers_{scale} (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
         CREATE TABLE accounts_{scale} (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
         CREATE TABLE history_{scale} (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
         INSERT INTO branches_{scale} SELECT i, 0, '' FROM generate_series(1, {scale}) AS g(i);
         INSERT INTO tellers_{scale} SELECT i, (i - 1) / 10 + 1, 0, '' FROM generate_series(1, {}) AS g(i);",
        scale * 10
    ))
    .await;
    for first in (1..=scale * 100_000).step_by(INSERT_ROWS as usize) {
        let last = first + INSERT_ROWS - 1;
        run(format!(
            "INSERT INTO accounts_{scale} SELECT i, (i - 1) / 100000 + 1, 0, '' FROM generate_series({first}, {last}) AS g(i)"
        ))
        .await;
    }
    run(format!("ANALYZE branches_{scale}, tellers_{scale}, accounts_{scale}")).await;
    // What the load has left behind is not the first round's to pay.
    tokio::time::sleep(Duration::from_secs(2 + scale as u64 / 5)).await;
}

async fn tpc_b(
    settings: &Settings,
    sides: Sides,
    folder: &Path,
    scale: i64,
    name: String,
    goal: Goal,
) -> Comparison {
    eprintln!("{name} …");
    fill(sides.amphora, scale).await;
    fill(sides.postgres, scale).await;
    let path = folder.join(format!("tpc-b-{scale}.sql"));
    std::fs::write(&path, script(scale)).expect("a script");
    let (mut amphora, mut postgres) = (Side::default(), Side::default());
    for _ in 0..settings.rounds {
        for (side, target) in [(&mut amphora, sides.amphora), (&mut postgres, sides.postgres)] {
            let run = Run {
                script: vec!["-f".to_owned(), path.display().to_string()],
                clients: CLIENTS,
                protocol: "prepared",
                seconds: settings.seconds,
            };
            let Outcome { tps, failures } = run.on(target).await;
            side.rounds.push(tps);
            for (what, count) in failures {
                *side.failures.entry(what).or_default() += count;
            }
        }
    }
    Comparison { name, amphora, postgres, goal }
}

#[derive(Clone, Copy)]
enum Way {
    OneStatement,
    ManyStatements,
}

/// Transactions of [`ROWS`] rows, one after another: a second.
async fn large_transactions(settings: &Settings, sides: Sides, name: &str, way: Way) -> Comparison {
    for target in [sides.amphora, sides.postgres] {
        let client = connect(target).await;
        let sql = "DROP TABLE IF EXISTS large; CREATE TABLE large (id int PRIMARY KEY, n int, note text)";
        client.batch_execute(sql).await.expect("a table");
        let fill = "INSERT INTO large SELECT i, 0, 'row ' || i FROM generate_series(1, 100000) AS g(i)";
        client.batch_execute(fill).await.expect("rows");
    }
    let goal = Goal::AtLeast(0.33);
    in_turns(settings, sides, name.to_owned(), goal, async |target| {
        let client = connect(target).await;
        let began = Instant::now();
        for n in 0..TRANSACTIONS as i32 {
            match way {
                Way::OneStatement => {
                    let first = n * ROWS + 1;
                    let sql = "UPDATE large SET n = n + 1 WHERE id BETWEEN $1 AND $2";
                    let updated =
                        client.execute(sql, &[&first, &(first + ROWS - 1)]).await.expect("an update");
                    assert_eq!(updated, ROWS as u64);
                }
                Way::ManyStatements => {
                    let insert =
                        client.prepare("INSERT INTO large VALUES ($1, 0, 'new')").await.expect("a statement");
                    client.batch_execute("BEGIN").await.expect("a transaction");
                    for row in 0..ROWS {
                        let id = 1_000_000 + n * ROWS + row;
                        client.execute(&insert, &[&id]).await.expect("a row");
                    }
                    client.batch_execute("COMMIT").await.expect("a commit");
                }
            }
        }
        let rate = f64::from(TRANSACTIONS) / began.elapsed().as_secs_f64();
        client.batch_execute("DELETE FROM large WHERE id >= 1000000").await.expect("a deletion");
        rate
    })
    .await
}

/// Works until the queue is empty: choose, delete, note, commit.
async fn work(client: Client, worker: i32) {
    let choose = "SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED";
    let choose = client.prepare(choose).await.expect("a statement");
    let delete = client.prepare("DELETE FROM jobs WHERE id = $1").await.expect("a statement");
    let note = client.prepare("INSERT INTO done VALUES ($1, $2)").await.expect("a statement");
    loop {
        client.batch_execute("BEGIN").await.expect("a transaction");
        let Some(job) = client.query_opt(&choose, &[]).await.expect("a job or none") else {
            client.batch_execute("COMMIT").await.expect("the end");
            return;
        };
        let id: i32 = job.get(0);
        client.execute(&delete, &[&id]).await.expect("its deletion");
        client.execute(&note, &[&id, &worker]).await.expect("a note");
        client.batch_execute("COMMIT").await.expect("a commit");
    }
}

async fn work_queue(
    settings: &Settings,
    sides: Sides,
    name: String,
    workers: usize,
    jobs: i32,
) -> Comparison {
    in_turns(settings, sides, name, Goal::None, async |target| {
        let client = connect(target).await;
        let mut setup = "DROP TABLE IF EXISTS jobs, done; CREATE TABLE jobs (id int PRIMARY KEY, what text);
             CREATE TABLE done (id int PRIMARY KEY, worker int);"
            .to_owned();
        let _ = write!(setup, "INSERT INTO jobs SELECT i, 'work' FROM generate_series(1, {jobs}) AS g(i)");
        client.batch_execute(&setup).await.expect("a queue");
        let mut clients = Vec::new();
        for _ in 0..workers {
            clients.push(connect(target).await);
        }
        let began = Instant::now();
        let running: Vec<_> = (0..).zip(clients).map(|(n, client)| tokio::spawn(work(client, n))).collect();
        for worker in running {
            worker.await.expect("a worker ends well");
        }
        let rate = f64::from(jobs) / began.elapsed().as_secs_f64();
        let done: i64 = client.query_one("SELECT count(*) FROM done", &[]).await.expect("a count").get(0);
        assert_eq!(done, i64::from(jobs), "each job once");
        rate
    })
    .await
}

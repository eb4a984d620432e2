//! Figures of leaderless tables by themselves: quorums, propagation, catching up.

use std::time::{Duration, Instant};

use amphora_tests::Cluster;
use tokio_postgres::Client;

use crate::Settings;
use crate::pgbench::{Run, Target};
use crate::report::{Figure, Goal};

/// Rows that are added to.
const COUNTERS: u32 = 1000;
/// Clients that add, over all nodes that run.
const CLIENTS: usize = 32;
/// Rows whose way is timed.
const TIMED: i32 = 200;
/// How long is written while a node is away, for every second of a pgbench run.
const AWAY: u32 = 5;
/// When it must be level again.
const PATIENCE: Duration = Duration::from_secs(300);

/// The rate of increments that wait for two nodes, over that of those that wait for one.
pub async fn quorums(settings: &Settings) -> Vec<Figure> {
    eprintln!("write quorums …");
    let load = Load::begin().await;
    let client = load.cluster.client(0).await;
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        for (quorum, rates) in [(1, &mut one), (2, &mut two)] {
            let sql = format!("ALTER TABLE counters SET (write_quorum = {quorum})");
            client.batch_execute(&sql).await.expect("an option");
            rates.push(load.increments(&[0, 1, 2], settings.seconds).await);
        }
    }
    let (one, two) = (median(one), median(two));
    vec![
        Figure::new("increments, 32 clients, write quorum 1", one, "/s", Goal::None),
        Figure::new("… write quorum 2", two, "/s", Goal::None),
        Figure::new("… 2 over 1", two / one, "", Goal::AtLeast(0.7)),
    ]
}

/// From the acknowledgement of an insert on one node to its being read on another, idle and beside increments.
pub async fn propagation(settings: &Settings) -> Vec<Figure> {
    eprintln!("propagation …");
    let load = Load::begin().await;
    let (writer, reader) = (load.cluster.client(0).await, load.cluster.client(1).await);
    let table = "CREATE TABLE p (k int PRIMARY KEY, v text) WITH (replication = 'leaderless')";
    writer.batch_execute(table).await.expect("a table");
    while reader.query("SELECT count(*) FROM p", &[]).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let idle = times(&writer, &reader, 0).await;
    // Long enough for all rows, whatever their way takes.
    let seconds = settings.seconds.max(20);
    let (_, busy) = tokio::join!(load.increments(&[0, 1, 2], seconds), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        times(&writer, &reader, TIMED).await
    });
    vec![
        Figure::new("leaderless propagation, p50", idle.0, "ms", Goal::None),
        Figure::new("leaderless propagation, p99", idle.1, "ms", Goal::AtMost(20.0)),
        Figure::new("… beside 32 clients' increments, p50", busy.0, "ms", Goal::None),
        Figure::new("… beside 32 clients' increments, p99", busy.1, "ms", Goal::AtMost(250.0)),
    ]
}

/// Commits a second at which a node catches up that was away for some.
pub async fn catch_up(settings: &Settings) -> Vec<Figure> {
    eprintln!("catching up …");
    let mut load = Load::begin().await;
    let away = 2;
    let id = load.cluster.id(away).await as i64;
    let writer = load.cluster.client(0).await;
    load.cluster.node(away).kill();
    load.increments(&[0], settings.seconds * AWAY).await;
    let missed = lag(&writer, id).await;
    load.cluster.node(away).restart();
    // It has to be there before it can catch up.
    while lag(&writer, id).await == missed {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let begun = Instant::now();
    while lag(&writer, id).await > 0 {
        assert!(begun.elapsed() < PATIENCE, "the node does not catch up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rate = missed as f64 / begun.elapsed().as_secs_f64();
    vec![
        Figure::new("leaderless catch-up, commits missed", missed as f64, "", Goal::None),
        Figure::new("leaderless catch-up", rate, "/s", Goal::AtLeast(100_000.0)),
    ]
}

/// Three nodes with the table that increments are made in.
struct Load {
    cluster: Cluster,
    script: std::path::PathBuf,
}

impl Load {
    async fn begin() -> Load {
        let cluster = Cluster::start(3).await;
        let client = cluster.client(0).await;
        let table = format!(
            "CREATE TABLE counters (id int PRIMARY KEY, n crdt_counter) WITH (replication = 'leaderless');
             INSERT INTO counters SELECT id, 0 FROM generate_series(1, {COUNTERS}) AS g(id)"
        );
        client.batch_execute(&table).await.expect("a table");
        for index in 0..3 {
            let client = cluster.client(index).await;
            let all = "SELECT count(*) FROM counters";
            while !client
                .query_one(all, &[])
                .await
                .is_ok_and(|row| row.get::<_, i64>(0) == i64::from(COUNTERS))
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let script = cluster.path().join("increments.sql");
        let text = format!("\\set id random(1, {COUNTERS})\nUPDATE counters SET n = n + 1 WHERE id = :id;\n");
        std::fs::write(&script, text).expect("a script");
        Load { cluster, script }
    }

    /// Increments a second of all clients, spread over these nodes.
    async fn increments(&self, nodes: &[usize], seconds: u32) -> f64 {
        let runs = nodes.iter().enumerate().map(|(n, &node)| {
            let clients = CLIENTS / nodes.len() + usize::from(n < CLIENTS % nodes.len());
            let address = &self.cluster.nodes()[node].pg;
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("host:port");
            let script = vec!["-f".to_owned(), self.script.display().to_string()];
            async move {
                let outcome =
                    Run { script, clients, protocol: "prepared", seconds }.on(Target { port }).await;
                assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
                outcome.tps
            }
        });
        futures::future::join_all(runs).await.into_iter().sum()
    }
}

/// How many of this node's commits a peer has not acknowledged.
async fn lag(client: &Client, peer: i64) -> i64 {
    let query = "SELECT lag FROM amphora.replication WHERE mode = 'leaderless' AND node_id = $1";
    client.query_one(query, &[&peer]).await.expect("a peer").get(0)
}

/// Median and 99th percentile of rows' ways, in milliseconds.
async fn times(writer: &Client, reader: &Client, first: i32) -> (f64, f64) {
    let select = reader.prepare("SELECT v FROM p WHERE k = $1").await.expect("a statement");
    let mut times = Vec::new();
    for k in first..first + TIMED {
        writer.execute("INSERT INTO p VALUES ($1, 'x')", &[&k]).await.expect("a row");
        let start = Instant::now();
        while reader.query_opt(&select, &[&k]).await.expect("an answer").is_none() {
            assert!(start.elapsed() < Duration::from_secs(10), "row {k} has not arrived");
        }
        times.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    times.sort();
    let millis = |at: usize| times[at].as_secs_f64() * 1e3;
    (millis(times.len() / 2), millis(times.len() * 99 / 100))
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

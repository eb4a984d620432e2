//! Jobs that are done once, by workers on every node.

use std::collections::BTreeSet;
use std::time::Instant;

use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::Trouble;
use super::rows::{number, rows, single};
use super::story::{Story, ask};

/// Jobs in the queue.
const JOBS: usize = 60;
/// Jobs in the leaderless one, and each worker's part of it.
const FEW: usize = 8;

/// Takes the next job that nobody has, and gives its id.
fn take(table: &str) -> String {
    format!(
        "DELETE FROM {table} WHERE id =\n\
         (SELECT id FROM {table} ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id"
    )
}

/// Works until nothing is left; the jobs done, in their order.
async fn work(client: &Client, table: &str) -> Result<Vec<i64>, Trouble> {
    let take = take(table);
    let mut done = Vec::new();
    loop {
        let taken = rows(&ask(client, &take).await?);
        if taken.is_empty() {
            return Ok(done);
        }
        done.push(number(&taken)?);
    }
}

impl Story {
    pub(super) async fn work_queue(&mut self) -> Result<(), Trouble> {
        self.six_workers().await?;
        self.a_worker_dies().await?;
        self.the_same_queue_leaderless().await
    }

    async fn six_workers(&mut self) -> Result<(), Trouble> {
        self.chapter("A strong table is the queue; workers on all nodes");
        let client = self.cluster.node(0)?.connect().await?;
        self.show(&client, 0, "CREATE TABLE jobs (id int PRIMARY KEY, what text)").await?;
        let fill = format!("INSERT INTO jobs SELECT n, 'mail ' || n FROM generate_series(1, {JOBS}) n");
        self.show(&client, 0, &fill).await?;
        self.screen.say("Six workers, two on each node, each until nothing is left:");
        self.screen.statement("n1, n2, n3", &take("jobs"));
        let start = Instant::now();
        let mut workers = JoinSet::new();
        for node in self.cluster.nodes.iter().chain(&self.cluster.nodes) {
            let client = node.connect().await?;
            workers.spawn(async move { work(&client, "jobs").await });
        }
        let mut done = Vec::new();
        let mut busy = 0;
        for jobs in workers.join_all().await {
            let jobs = jobs?;
            busy += usize::from(!jobs.is_empty());
            done.extend(jobs);
        }
        let took = start.elapsed().as_millis();
        let distinct: BTreeSet<i64> = done.iter().copied().collect();
        self.claim(
            done.len() == JOBS && distinct.len() == JOBS,
            &format!("{JOBS} jobs, {} times done, by {busy} workers in {took} ms: each once", done.len()),
        );
        Ok(())
    }

    async fn a_worker_dies(&mut self) -> Result<(), Trouble> {
        self.chapter("A worker dies in the middle of a job");
        let client = self.cluster.node(0)?.connect().await?;
        let worker = self.cluster.node(2)?.connect().await?;
        self.show(&client, 0, "INSERT INTO jobs VALUES (101, 'invoice'), (102, 'parcel')").await?;
        let choose = "SELECT * FROM jobs ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED";
        self.show(&worker, 2, "BEGIN").await?;
        let first = self.show(&worker, 2, choose).await?;
        self.show(&client, 0, "BEGIN").await?;
        let second = self.show(&client, 0, choose).await?;
        self.show(&client, 0, "COMMIT").await?;
        self.claim(
            number(&first)? == 101 && number(&second)? == 102,
            "the worker on n3 has the first job, so another is given the second, and does not wait",
        );
        self.screen.say("The worker's connection breaks before it has committed.");
        drop(worker);
        let back = self.all_agree(choose, |rows| single(rows, &["101", "invoice"])).await?.is_some();
        self.show(&client, 0, &take("jobs")).await?;
        self.claim(back, "its job is free again: nothing is lost, and nobody has to clean up");
        Ok(())
    }

    async fn the_same_queue_leaderless(&mut self) -> Result<(), Trouble> {
        self.chapter("The same queue, leaderless");
        let (here, alone) = (self.cluster.node(0)?.connect().await?, self.cluster.node(2)?.connect().await?);
        let sql =
            "CREATE TABLE leaderless_jobs (id int PRIMARY KEY, what text)\nWITH (replication = 'leaderless')";
        self.show(&here, 0, sql).await?;
        let fill =
            format!("INSERT INTO leaderless_jobs SELECT n, 'mail ' || n FROM generate_series(1, {FEW}) n");
        self.show(&here, 0, &fill).await?;
        let all = FEW.to_string();
        self.all_agree("SELECT count(*) FROM leaderless_jobs", |rows| single(rows, &[&all])).await?;
        self.cluster.isolate(2, true).await?;
        self.screen.say("n3 is cut off. A worker on each side, with the same statement:");
        self.screen.statement("n1, n3", &take("leaderless_jobs"));
        let (one, other) = (work(&here, "leaderless_jobs").await?, work(&alone, "leaderless_jobs").await?);
        self.cluster.isolate(2, false).await?;
        self.claim(
            one.len() == FEW && one == other,
            &format!(
                "{FEW} jobs were done {} times: leaderless, a lock ends at the network's edge",
                one.len() + other.len()
            ),
        );
        self.screen.say("A queue hands out each job once: that is agreement, and agreement is what strong tables are for.");
        Ok(())
    }
}

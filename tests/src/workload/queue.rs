//! A work queue: jobs are put in, taken with SKIP LOCKED and noted as done, in one transaction. Every job is done once.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use rand::Rng;
use tokio_postgres::{Client, Error};

use super::{Notes, Outcome, Session, Verdict, Workload};

#[derive(Clone, Debug)]
enum Note {
    Put(i64, Outcome<()>),
    /// Which attempt of whom, and what it took
    Take(i64, Outcome<Option<i64>>),
}

/// The workload.
#[derive(Default)]
pub struct Queue {
    notes: Notes<Note>,
}

const CHOOSE: &str = "SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED";
const AT_ONCE: &str = "WITH job AS (DELETE FROM jobs WHERE id =
        (SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id)
    INSERT INTO done SELECT $1, id FROM job RETURNING job";

#[async_trait]
impl Workload for Queue {
    fn name(&self) -> String {
        "queue".to_owned()
    }

    fn workers(&self) -> usize {
        4
    }

    async fn prepare(&self, client: &Client) -> Result<(), Error> {
        // That a job is done once is for the transactions to see to: no constraint does.
        client
            .batch_execute(
                "CREATE TABLE jobs (id bigint PRIMARY KEY);
                 CREATE TABLE done (attempt bigint PRIMARY KEY, job bigint NOT NULL)",
            )
            .await
    }

    async fn step(&self, session: &mut Session) {
        let id = session.unique();
        if session.number == 1 {
            let outcome = session.attempt(|client, sent| async move {
                sent.now();
                client.execute("INSERT INTO jobs VALUES ($1), ($1 + 500000)", &[&id]).await.map(|_| ())
            });
            let outcome = outcome.await;
            self.notes.note(Note::Put(id, outcome.clone()));
            self.notes.note(Note::Put(id + 500_000, outcome));
            return;
        }
        let at_once = session.rng.random_bool(0.5);
        let outcome = session.attempt(|client, sent| async move {
            if at_once {
                sent.now();
                return Ok(client.query_opt(AT_ONCE, &[&id]).await?.map(|row| row.get(0)));
            }
            client.batch_execute("BEGIN").await?;
            let job = client.query_opt(CHOOSE, &[]).await?.map(|row| row.get::<_, i64>(0));
            if let Some(job) = job {
                client.execute("DELETE FROM jobs WHERE id = $1", &[&job]).await?;
                client.execute("INSERT INTO done VALUES ($1, $2)", &[&id, &job]).await?;
            }
            sent.now();
            client.batch_execute("COMMIT").await?;
            Ok(job)
        });
        let outcome = outcome.await;
        if outcome != Outcome::Done(None) {
            self.notes.note(Note::Take(id, outcome));
        }
    }

    async fn judge(&self, clients: &[Client]) -> Result<Verdict, Error> {
        let mut verdict = Verdict::default();
        let (mut put, mut not_put, mut taken) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        for note in self.notes.all() {
            match note {
                Note::Put(id, Outcome::Done(())) => _ = put.insert(id),
                Note::Put(id, Outcome::Refused(_)) => _ = not_put.insert(id),
                Note::Take(attempt, Outcome::Done(Some(job))) => _ = taken.insert(attempt, job),
                Note::Put(..) | Note::Take(..) => {}
            }
        }
        for (node, client) in clients.iter().enumerate() {
            let node = node + 1;
            let rows = client.query("SELECT attempt, job FROM done", &[]).await?;
            let done: BTreeMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            let rows = client.query("SELECT id FROM jobs", &[]).await?;
            let waiting: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
            let mut once = BTreeSet::new();
            for (attempt, job) in &done {
                if !once.insert(*job) || waiting.contains(job) {
                    verdict.broken.push(format!("node {node}: job {job} is done more than once ({attempt})"));
                }
            }
            for job in put.iter().filter(|job| !once.contains(job) && !waiting.contains(job)) {
                verdict.broken.push(format!("node {node}: job {job} is lost"));
            }
            for job in not_put.iter().filter(|job| once.contains(job) || waiting.contains(job)) {
                verdict.broken.push(format!("node {node}: job {job} was refused and is there"));
            }
            for (attempt, job) in taken.iter().filter(|(attempt, job)| done.get(attempt) != Some(*job)) {
                verdict.broken.push(format!("node {node}: {attempt} did {job}, and it is not noted"));
            }
        }
        verdict.done = taken.len();
        verdict.summary = format!("{} jobs put in, {} taken", put.len(), taken.len());
        Ok(verdict)
    }

    fn history(&self) -> String {
        self.notes.lines()
    }
}

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

/// What a node holds at the end.
#[derive(Clone, Default)]
struct Found {
    /// Attempts and their jobs
    done: BTreeMap<i64, i64>,
    waiting: BTreeSet<i64>,
}

fn verdict(notes: &[Note], found: &[Found]) -> Verdict {
    let (mut put, mut not_put) = (BTreeSet::new(), BTreeSet::new());
    let (mut taken, mut not_taken, mut broken) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    for note in notes {
        match note {
            Note::Put(id, Outcome::Done(())) => _ = put.insert(*id),
            Note::Put(id, Outcome::Refused(_)) => _ = not_put.insert(*id),
            Note::Take(attempt, Outcome::Done(Some(job))) => _ = taken.insert(*attempt, *job),
            Note::Take(attempt, Outcome::Refused(_)) => _ = not_taken.insert(*attempt),
            Note::Put(..) | Note::Take(..) => {}
        }
    }
    for (node, Found { done, waiting }) in found.iter().enumerate() {
        let node = node + 1;
        let mut once = BTreeSet::new();
        for (attempt, job) in done {
            if !once.insert(*job) || waiting.contains(job) {
                broken.push(format!("node {node}: job {job} is done more than once ({attempt})"));
            }
        }
        for job in put.iter().filter(|job| !once.contains(job) && !waiting.contains(job)) {
            broken.push(format!("node {node}: job {job} is lost"));
        }
        for job in not_put.iter().filter(|job| once.contains(job) || waiting.contains(job)) {
            broken.push(format!("node {node}: job {job} was refused and is there"));
        }
        for (attempt, job) in taken.iter().filter(|(attempt, job)| done.get(attempt) != Some(*job)) {
            broken.push(format!("node {node}: {attempt} did {job}, and it is not noted"));
        }
        for attempt in not_taken.iter().filter(|attempt| done.contains_key(attempt)) {
            broken.push(format!("node {node}: {attempt} was refused and is noted"));
        }
    }
    let summary = format!("{} jobs put in, {} taken", put.len(), taken.len());
    Verdict { done: taken.len(), summary, broken }
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
        let mut found = Vec::new();
        for client in clients {
            let rows = client.query("SELECT attempt, job FROM done", &[]).await?;
            let done = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            let rows = client.query("SELECT id FROM jobs", &[]).await?;
            found.push(Found { done, waiting: rows.iter().map(|row| row.get(0)).collect() });
        }
        Ok(verdict(&self.notes.all(), &found))
    }

    fn history(&self) -> String {
        self.notes.lines()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Job 1 is done by attempt 10, job 2 waits, job 3 was never put in; of attempt 11 nobody knows, attempt 12 failed.
    fn good() -> (Vec<Note>, Vec<Found>) {
        let notes = vec![
            Note::Put(1, Outcome::Done(())),
            Note::Put(2, Outcome::Done(())),
            Note::Put(3, Outcome::Refused(String::new())),
            Note::Put(4, Outcome::Unknown),
            Note::Take(10, Outcome::Done(Some(1))),
            Note::Take(11, Outcome::Unknown),
            Note::Take(12, Outcome::Refused(String::new())),
        ];
        let found = Found { done: BTreeMap::from([(10, 1), (11, 4)]), waiting: BTreeSet::from([2]) };
        (notes, vec![found; 3])
    }

    #[test]
    fn what_is_planted_is_found() {
        let (notes, found) = good();
        assert_eq!(verdict(&notes, &found).broken, Vec::<String>::new());
        let told = |what: &str, change: &dyn Fn(&mut Found)| {
            let (notes, mut found) = good();
            change(&mut found[0]);
            let broken = verdict(&notes, &found).broken;
            assert!(broken.iter().any(|b| b.contains(what)), "{what}: {broken:?}");
        };
        told("job 1 is done more than once", &|found| _ = found.done.insert(11, 1));
        told("job 1 is done more than once", &|found| _ = found.waiting.insert(1));
        told("job 2 is lost", &|found| _ = found.waiting.remove(&2));
        told("job 3 was refused and is there", &|found| _ = found.waiting.insert(3));
        told("job 3 was refused and is there", &|found| _ = found.done.insert(11, 3));
        told("10 did 1, and it is not noted", &|found| {
            // Undone by someone: the job waits again.
            found.done.remove(&10);
            found.waiting.insert(1);
        });
        told("10 did 1, and it is not noted", &|found| _ = found.done.insert(10, 2));
        told("12 was refused and is noted", &|found| _ = found.done.insert(12, 2));
    }
}

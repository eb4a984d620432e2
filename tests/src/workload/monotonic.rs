//! A counter grows; whoever reads it, on whatever node, sees no less than anyone has seen before.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use tokio_postgres::{Client, Error};

use super::{Notes, Outcome, Session, Verdict, Workload};

#[derive(Clone, Debug)]
#[allow(dead_code)] // the times are for whoever reads the history
enum Note {
    /// Before, the newest that anyone had seen; then what was seen
    Read { before: i64, seen: i64, time: (Duration, Duration), worker: i64 },
    /// As above; the counter was increased by one to this
    Increase { before: i64, seen: i64, time: (Duration, Duration), worker: i64 },
    /// It may have been increased
    Unknown,
}

/// The workload.
#[derive(Default)]
pub struct Monotonic {
    newest: AtomicI64,
    notes: Notes<Note>,
}

#[async_trait]
impl Workload for Monotonic {
    fn name(&self) -> String {
        "monotonic".to_owned()
    }

    fn workers(&self) -> usize {
        4
    }

    async fn prepare(&self, client: &Client) -> Result<(), Error> {
        let sql = "CREATE TABLE counters (id int PRIMARY KEY, n bigint NOT NULL); INSERT INTO counters VALUES (1, 0)";
        client.batch_execute(sql).await
    }

    async fn step(&self, session: &mut Session) {
        let (before, began, worker) = (self.newest.load(Ordering::SeqCst), session.now(), session.number);
        if session.rng.random_bool(0.2) {
            let sql = "UPDATE counters SET n = n + 1 WHERE id = 1 RETURNING n";
            let outcome = session.attempt(|client, sent| async move {
                sent.now();
                client.query_one(sql, &[]).await.map(|row| row.get::<_, i64>(0))
            });
            match outcome.await {
                Outcome::Done(seen) => {
                    self.newest.fetch_max(seen, Ordering::SeqCst);
                    let time = (began, session.now());
                    self.notes.note(Note::Increase { before, seen, time, worker });
                }
                Outcome::Unknown => self.notes.note(Note::Unknown),
                Outcome::Refused(_) => {}
            }
            return;
        }
        let outcome = session.attempt(|client, _| async move {
            let row = client.query_one("SELECT n FROM counters WHERE id = 1", &[]).await?;
            Ok(row.get::<_, i64>(0))
        });
        if let Outcome::Done(seen) = outcome.await {
            self.newest.fetch_max(seen, Ordering::SeqCst);
            self.notes.note(Note::Read { before, seen, time: (began, session.now()), worker });
        }
    }

    async fn judge(&self, clients: &[Client]) -> Result<Verdict, Error> {
        let mut verdict = Verdict::default();
        let (mut reads, mut increases, mut unknown) = (0, 0, 0);
        for note in self.notes.all() {
            match note {
                Note::Read { before, seen, .. } => {
                    reads += 1;
                    if seen < before {
                        verdict
                            .broken
                            .push(format!("{seen} was read where {before} had been seen: {note:?}"));
                    }
                }
                Note::Increase { before, seen, .. } => {
                    increases += 1;
                    if seen <= before {
                        verdict.broken.push(format!("{before} was seen, then increased to {seen}: {note:?}"));
                    }
                }
                Note::Unknown => unknown += 1,
            }
        }
        for (node, client) in clients.iter().enumerate() {
            let last: i64 = client.query_one("SELECT n FROM counters WHERE id = 1", &[]).await?.get(0);
            if last < increases || last > increases + unknown {
                let by = format!("{increases} increases and {unknown} of unknown fate");
                verdict.broken.push(format!("node {}: {last} after {by}", node + 1));
            }
        }
        verdict.done = (reads + increases) as usize;
        verdict.summary = format!("{reads} reads, {increases} increases, {unknown} unknown");
        Ok(verdict)
    }

    fn history(&self) -> String {
        self.notes.lines()
    }
}

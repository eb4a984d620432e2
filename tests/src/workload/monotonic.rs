//! A counter grows; whoever reads it, on whatever node, sees no less than anyone has seen before.

use std::collections::BTreeSet;
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

/// `found` is the counter at the end, on each node.
fn verdict(notes: &[Note], found: &[i64]) -> Verdict {
    let mut broken = Vec::new();
    let (mut reads, mut increases, mut unknown) = (0, BTreeSet::new(), 0);
    for note in notes {
        match note {
            Note::Read { before, seen, .. } => {
                reads += 1;
                if seen < before {
                    broken.push(format!("{seen} was read where {before} had been seen: {note:?}"));
                }
            }
            Note::Increase { before, seen, .. } => {
                if !increases.insert(*seen) {
                    broken.push(format!("it was increased to {seen} twice: {note:?}"));
                }
                if seen <= before {
                    broken.push(format!("{before} was seen, then increased to {seen}: {note:?}"));
                }
            }
            Note::Unknown => unknown += 1,
        }
    }
    let newest = increases.last().copied().unwrap_or(0);
    let increases = increases.len() as i64;
    for (node, last) in found.iter().enumerate() {
        if *last < increases.max(newest) || *last > increases + unknown {
            let by = format!("{increases} increases, to {newest} at most, and {unknown} of unknown fate");
            broken.push(format!("node {}: {last} after {by}", node + 1));
        }
    }
    let summary = format!("{reads} reads, {increases} increases, {unknown} unknown");
    Verdict { done: reads + increases as usize, summary, broken }
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
        let mut found = Vec::new();
        for client in clients {
            found.push(client.query_one("SELECT n FROM counters WHERE id = 1", &[]).await?.get(0));
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

    const WHEN: (Duration, Duration) = (Duration::ZERO, Duration::ZERO);

    fn read(before: i64, seen: i64) -> Note {
        Note::Read { before, seen, time: WHEN, worker: 1 }
    }

    fn increase(before: i64, seen: i64) -> Note {
        Note::Increase { before, seen, time: WHEN, worker: 1 }
    }

    #[test]
    fn what_is_planted_is_found() {
        // Increased to 1, 2 and 4; to 3 without a word; once it failed without a word.
        let good = [increase(0, 1), read(1, 1), increase(1, 2), Note::Unknown, Note::Unknown]
            .into_iter()
            .chain([read(1, 3), increase(2, 4), read(4, 4)])
            .collect::<Vec<_>>();
        assert_eq!(verdict(&good, &[4, 4, 4]).broken, Vec::<String>::new());
        assert_eq!(verdict(&good, &[5, 5, 5]).broken, Vec::<String>::new());
        let told = |what: &str, more: Option<Note>, last: i64| {
            let notes: Vec<Note> = good.iter().cloned().chain(more).collect();
            let broken = verdict(&notes, &[4, last, 4]).broken;
            assert!(broken.iter().any(|b| b.contains(what)), "{what}: {broken:?}");
        };
        told("3 was read where 4 had been seen", Some(read(4, 3)), 4);
        told("it was increased to 2 twice", Some(increase(1, 2)), 4);
        told("4 was seen, then increased to 3", Some(increase(4, 3)), 4);
        told("node 2: 3 after", None, 3);
        told("node 2: 6 after", None, 6);
    }
}

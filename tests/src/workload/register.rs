//! Registers: written, read and compared-and-set through all nodes. Their histories are linearizable.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use rand::Rng;
use tokio_postgres::{Client, Error};

use super::{Notes, Outcome, Session, Verdict, Workload};
use crate::linearizable::{self, Action, Operation};

/// Operations on one register before the next takes its place: a search must end.
const OPERATIONS: i64 = 150;
/// Registers in use at a time.
const AT_A_TIME: i64 = 3;

/// The workload.
#[derive(Default)]
pub struct Register {
    begun: AtomicI64,
    notes: Notes<(i64, Operation)>,
}

#[async_trait]
impl Workload for Register {
    fn name(&self) -> String {
        "register".to_owned()
    }

    fn workers(&self) -> usize {
        4
    }

    async fn prepare(&self, client: &Client) -> Result<(), Error> {
        client
            .batch_execute(
                "CREATE TABLE registers (k bigint PRIMARY KEY, v bigint NOT NULL);
                 INSERT INTO registers SELECT k, 0 FROM generate_series(0, 9999) k",
            )
            .await
    }

    async fn step(&self, session: &mut Session) {
        let count = self.begun.fetch_add(1, Ordering::Relaxed);
        let key = count / (OPERATIONS * AT_A_TIME) * AT_A_TIME + count % AT_A_TIME;
        let new = session.unique();
        let kind = session.rng.random_range(0..10);
        let began = session.now();
        let outcome = match kind {
            0..5 => {
                let read = session.attempt(|client, _| async move {
                    client.query_one("SELECT v FROM registers WHERE k = $1", &[&key]).await
                });
                match read.await {
                    Outcome::Done(row) => Outcome::Done(Action::Read(row.get(0))),
                    // A read that failed says nothing.
                    _ => Outcome::Refused(String::new()),
                }
            }
            5..8 => {
                let write = session.attempt(|client, sent| async move {
                    sent.now();
                    client.execute("UPDATE registers SET v = $2 WHERE k = $1", &[&key, &new]).await
                });
                match write.await {
                    Outcome::Unknown => {
                        let operation = Operation { action: Action::Write(new), began, ended: None };
                        self.notes.note((key, operation));
                        return;
                    }
                    Outcome::Done(_) => Outcome::Done(Action::Write(new)),
                    Outcome::Refused(why) => Outcome::Refused(why),
                }
            }
            _ => {
                let read = session.attempt(|client, _| async move {
                    client.query_one("SELECT v FROM registers WHERE k = $1", &[&key]).await
                });
                let Outcome::Done(row) = read.await else { return };
                let old: i64 = row.get(0);
                let read = Operation { action: Action::Read(old), began, ended: Some(session.now()) };
                self.notes.note((key, read));
                let began = session.now();
                let sql = "UPDATE registers SET v = $3 WHERE k = $1 AND v = $2";
                let set = session.attempt(|client, sent| async move {
                    sent.now();
                    client.execute(sql, &[&key, &old, &new]).await
                });
                let (equal, ended) = match set.await {
                    Outcome::Done(rows) => (Some(rows == 1), Some(session.now())),
                    Outcome::Unknown => (None, None),
                    Outcome::Refused(_) => return,
                };
                let action = Action::CompareAndSet(old, new, equal);
                self.notes.note((key, Operation { action, began, ended }));
                return;
            }
        };
        if let Outcome::Done(action) = outcome {
            self.notes.note((key, Operation { action, began, ended: Some(session.now()) }));
        }
    }

    async fn judge(&self, clients: &[Client]) -> Result<Verdict, Error> {
        let mut histories: BTreeMap<i64, Vec<Operation>> = BTreeMap::new();
        for (key, operation) in self.notes.all() {
            histories.entry(key).or_default().push(operation);
        }
        // What the nodes show now comes after everything.
        let after = histories.values().flatten().filter_map(|op| op.ended).max().unwrap_or_default();
        for client in clients {
            for (key, history) in &mut histories {
                let row = client.query_one("SELECT v FROM registers WHERE k = $1", &[key]).await?;
                let ended = Some(after + std::time::Duration::from_secs(1));
                history.push(Operation { action: Action::Read(row.get(0)), began: after, ended });
            }
        }
        let registers = histories.len();
        let done = histories.values().flatten().filter(|op| op.ended.is_some()).count();
        let mut verdict = Verdict { done, ..Verdict::default() };
        let mut undecided = 0;
        for (key, history) in histories {
            match linearizable::check(0, &history) {
                linearizable::Verdict::Linearizable => {}
                linearizable::Verdict::Broken => {
                    verdict.broken.push(format!("register {key} is not linearizable: {history:?}"));
                }
                linearizable::Verdict::Undecided => undecided += 1,
            }
        }
        verdict.summary = format!("{registers} registers, {done} operations, {undecided} undecided");
        Ok(verdict)
    }

    fn history(&self) -> String {
        self.notes.lines()
    }
}

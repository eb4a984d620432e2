//! Rows with a unique column, inserted side by side at every level: of each value there is one row at most, and it is
//! the one that was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use rand::Rng;
use tokio_postgres::{Client, Error};

use super::{Notes, Outcome, Session, Verdict, Workload};

#[derive(Clone, Debug)]
struct Insert {
    id: i64,
    value: i64,
    outcome: Outcome<()>,
}

/// The workload.
#[derive(Default)]
pub struct Unique {
    next: AtomicI64,
    notes: Notes<Insert>,
}

#[async_trait]
impl Workload for Unique {
    fn name(&self) -> String {
        "unique".to_owned()
    }

    fn workers(&self) -> usize {
        3
    }

    async fn prepare(&self, client: &Client) -> Result<(), Error> {
        client.batch_execute("CREATE TABLE names (id bigint PRIMARY KEY, name bigint UNIQUE NOT NULL)").await
    }

    async fn step(&self, session: &mut Session) {
        // Several want each value, more or less at the same time.
        let value = self.next.fetch_add(1, Ordering::Relaxed) / 3;
        let id = session.unique();
        let level = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][session.rng.random_range(0..3)];
        let alone = session.rng.random_bool(0.5);
        let outcome = session.attempt(|client, sent| async move {
            let sql = "INSERT INTO names VALUES ($1, $2)";
            if alone {
                sent.now();
                client.execute(sql, &[&id, &value]).await?;
                return Ok(());
            }
            client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).await?;
            client.execute(sql, &[&id, &value]).await?;
            sent.now();
            client.batch_execute("COMMIT").await
        });
        let outcome = outcome.await;
        self.notes.note(Insert { id, value, outcome });
    }

    async fn judge(&self, clients: &[Client]) -> Result<Verdict, Error> {
        let mut verdict = Verdict::default();
        let (mut done, mut refused) = (BTreeMap::new(), BTreeSet::new());
        for insert in self.notes.all() {
            match insert.outcome {
                Outcome::Done(()) => {
                    if let Some(other) = done.insert(insert.value, insert.id) {
                        let both = format!("{other} and {}", insert.id);
                        verdict.broken.push(format!("{} was acknowledged for {both}", insert.value));
                    }
                }
                Outcome::Refused(_) => _ = refused.insert(insert.id),
                Outcome::Unknown => {}
            }
        }
        for (node, client) in clients.iter().enumerate() {
            let node = node + 1;
            let rows = client.query("SELECT id, name FROM names", &[]).await?;
            let mut there = BTreeMap::new();
            for row in rows {
                let (id, value): (i64, i64) = (row.get(0), row.get(1));
                if let Some(other) = there.insert(value, id) {
                    verdict.broken.push(format!("node {node}: {value} is there for {other} and {id}"));
                }
                if refused.contains(&id) {
                    verdict.broken.push(format!("node {node}: {id} was refused and is there"));
                }
            }
            for (value, id) in &done {
                if there.get(value) != Some(id) {
                    let found = there.get(value);
                    verdict.broken.push(format!("node {node}: {value} is of {found:?}, not {id}"));
                }
                // The index knows what the table knows.
                let row = client.query_opt("SELECT id FROM names WHERE name = $1", &[value]).await?;
                let found = row.map(|row| row.get::<_, i64>(0));
                if found != Some(*id) {
                    verdict
                        .broken
                        .push(format!("node {node}: by its index {value} is of {found:?}, not {id}"));
                }
            }
        }
        verdict.done = done.len();
        verdict.summary = format!("{} values, {} refused", done.len(), refused.len());
        Ok(verdict)
    }

    fn history(&self) -> String {
        self.notes.lines()
    }
}

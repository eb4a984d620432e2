//! Lists that transactions append to and read, at one level: see [`crate::list_append`] for what their history says.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rand::Rng;
use tokio_postgres::{Client, Error};

use super::{Notes, Outcome, Session, Verdict, Workload};
use crate::list_append::{End, Key, Level, Op, Tx, Value, check};

const KEYS: Key = 6;

/// The workload.
pub struct Append {
    level: Level,
    table: &'static str,
    notes: Notes<Tx>,
}

/// What a transaction is going to do.
enum Plan {
    Append(Key, Value),
    Read(Key),
    Scan(Key, Key),
}

fn parse(list: &str) -> Vec<Value> {
    list.split(',').filter_map(|value| value.parse().ok()).collect()
}

impl Append {
    /// With all transactions at this level.
    pub fn new(level: Level) -> Append {
        let table = match level {
            Level::ReadCommitted => "lists_committed",
            Level::RepeatableRead => "lists_repeatable",
            Level::Serializable => "lists_serializable",
        };
        Append { level, table, notes: Notes::default() }
    }

    async fn run(&self, client: &Client, plan: &Plan, ops: &Notes<Op>) -> Result<(), Error> {
        let table = self.table;
        match plan {
            Plan::Append(key, value) => {
                let sql = format!(
                    "INSERT INTO {table} VALUES ($1, $2)
                     ON CONFLICT (k) DO UPDATE SET v = {table}.v || ',' || excluded.v"
                );
                client.execute(&sql, &[key, &value.to_string()]).await?;
                ops.note(Op::Append(*key, *value));
            }
            Plan::Read(key) => {
                let row = client.query_opt(&format!("SELECT v FROM {table} WHERE k = $1"), &[key]).await?;
                ops.note(Op::Read(*key, row.map_or(Vec::new(), |row| parse(row.get(0)))));
            }
            Plan::Scan(from, to) => {
                // Of a list that is not there yet, this sees that it is not.
                let sql = format!("SELECT k, v FROM {table} WHERE k BETWEEN $1 AND $2");
                let rows = client.query(&sql, &[from, to]).await?;
                let found: BTreeMap<Key, Vec<Value>> =
                    rows.iter().map(|row| (row.get(0), parse(row.get(1)))).collect();
                for key in *from..=*to {
                    ops.note(Op::Read(key, found.get(&key).cloned().unwrap_or_default()));
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Workload for Append {
    fn name(&self) -> String {
        self.table.to_owned()
    }

    fn workers(&self) -> usize {
        3
    }

    async fn prepare(&self, client: &Client) -> Result<(), Error> {
        client
            .batch_execute(&format!("CREATE TABLE {} (k int PRIMARY KEY, v text NOT NULL)", self.table))
            .await
    }

    async fn step(&self, session: &mut Session) {
        let mut plans = Vec::new();
        for _ in 0..session.rng.random_range(1..=4) {
            let key = session.rng.random_range(0..KEYS);
            plans.push(match session.rng.random_range(0..10) {
                0..5 => Plan::Append(key, session.unique()),
                5..8 => Plan::Read(key),
                _ => Plan::Scan(key, session.rng.random_range(key..KEYS)),
            });
        }
        let ops = Notes::default();
        let began = session.now();
        let outcome = session.attempt(|client, sent| {
            let (plans, ops) = (&plans, &ops);
            async move {
                client.batch_execute(&format!("BEGIN ISOLATION LEVEL {}", self.level.sql())).await?;
                for plan in plans {
                    self.run(&client, plan, ops).await?;
                }
                sent.now();
                client.batch_execute("COMMIT").await
            }
        });
        let end = match outcome.await {
            Outcome::Done(()) => End::Committed,
            Outcome::Refused(_) => End::Aborted,
            Outcome::Unknown => End::Unknown,
        };
        self.notes.note(Tx { ops: ops.all(), end, time: (began, session.now()) });
    }

    async fn judge(&self, clients: &[Client]) -> Result<Verdict, Error> {
        let mut seen = Vec::new();
        for client in clients {
            let rows = client.query(&format!("SELECT k, v FROM {}", self.table), &[]).await?;
            let lists: BTreeMap<Key, Vec<Value>> =
                rows.iter().map(|row| (row.get(0), parse(row.get(1)))).collect();
            seen.push(lists);
        }
        let history = self.notes.all();
        let of = |end: End| history.iter().filter(|tx| tx.end == end).count();
        let (done, refused, unknown) = (of(End::Committed), of(End::Aborted), of(End::Unknown));
        let mut broken = check(&history, &seen[0], self.level);
        if seen.iter().any(|lists| *lists != seen[0]) {
            broken.push(format!("the nodes differ: {seen:?}"));
        }
        let summary = format!("{done} committed, {refused} refused, {unknown} unknown");
        Ok(Verdict { done, summary, broken })
    }

    fn history(&self) -> String {
        self.notes.lines()
    }
}

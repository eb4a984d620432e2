//! Rows of a group are written one by one, each by a transaction of its own, and the group is read at once, everywhere.
//! No two readers may disagree about which came first (a long fork, which snapshots of replicas show that are not
//! prefixes of one order).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use rand::Rng;
use tokio_postgres::{Client, Error};

use super::{Notes, Outcome, Session, Verdict, Workload};

/// Rows of a group.
const GROUP: i64 = 4;
/// Writes begun before the next group takes a group's place.
const WRITES: i64 = 12;

#[derive(Clone, Debug)]
enum Note {
    Write(i64, Outcome<()>),
    Read(i64, BTreeSet<i64>),
}

/// The workload.
#[derive(Default)]
pub struct LongFork {
    writes: AtomicI64,
    notes: Notes<Note>,
}

#[async_trait]
impl Workload for LongFork {
    fn name(&self) -> String {
        "long_fork".to_owned()
    }

    fn workers(&self) -> usize {
        4
    }

    async fn prepare(&self, client: &Client) -> Result<(), Error> {
        client.batch_execute("CREATE TABLE forks (k bigint PRIMARY KEY)").await
    }

    async fn step(&self, session: &mut Session) {
        if session.number == 1 {
            let group = self.writes.fetch_add(1, Ordering::Relaxed) / WRITES;
            let key = group * GROUP + session.rng.random_range(0..GROUP);
            let outcome = session.attempt(|client, sent| async move {
                sent.now();
                let sql = "INSERT INTO forks VALUES ($1) ON CONFLICT DO NOTHING";
                client.execute(sql, &[&key]).await.map(|_| ())
            });
            let outcome = outcome.await;
            self.notes.note(Note::Write(key, outcome));
            return;
        }
        let group = self.writes.load(Ordering::Relaxed) / WRITES;
        let (from, to) = (group * GROUP, (group + 1) * GROUP);
        let one_by_one = session.rng.random_bool(0.5);
        let outcome = session.attempt(|client, _| async move {
            if !one_by_one {
                let sql = "SELECT k FROM forks WHERE k >= $1 AND k < $2";
                let rows = client.query(sql, &[&from, &to]).await?;
                return Ok(rows.iter().map(|row| row.get(0)).collect::<BTreeSet<i64>>());
            }
            let mut seen = BTreeSet::new();
            client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
            for key in from..to {
                let row = client.query_opt("SELECT k FROM forks WHERE k = $1", &[&key]).await?;
                seen.extend(row.map(|row| row.get::<_, i64>(0)));
            }
            client.batch_execute("COMMIT").await?;
            Ok(seen)
        });
        if let Outcome::Done(seen) = outcome.await {
            self.notes.note(Note::Read(group, seen));
        }
    }

    async fn judge(&self, clients: &[Client]) -> Result<Verdict, Error> {
        let mut verdict = Verdict::default();
        let mut reads: BTreeMap<i64, Vec<BTreeSet<i64>>> = BTreeMap::new();
        let (mut written, mut read) = (BTreeSet::new(), 0);
        for note in self.notes.all() {
            match note {
                Note::Write(key, Outcome::Done(())) => _ = written.insert(key),
                Note::Write(..) => {}
                Note::Read(group, seen) => {
                    read += 1;
                    reads.entry(group).or_default().push(seen);
                }
            }
        }
        for (node, client) in clients.iter().enumerate() {
            let rows = client.query("SELECT k FROM forks", &[]).await?;
            let there: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
            let lost: Vec<_> = written.difference(&there).collect();
            if !lost.is_empty() {
                verdict.broken.push(format!("node {} has lost {lost:?}", node + 1));
            }
            for (group, seen) in &mut reads {
                seen.push(there.range(group * GROUP..(group + 1) * GROUP).copied().collect());
            }
        }
        for (group, seen) in &mut reads {
            seen.sort_by_key(BTreeSet::len);
            for pair in seen.windows(2) {
                if !pair[0].is_subset(&pair[1]) {
                    let both = format!("{:?} and {:?}", pair[0], pair[1]);
                    verdict.broken.push(format!("group {group}: readers disagree about the order: {both}"));
                }
            }
        }
        verdict.done = written.len() + read;
        verdict.summary = format!("{} groups, {} rows, {read} reads", reads.len(), written.len());
        Ok(verdict)
    }

    fn history(&self) -> String {
        self.notes.lines()
    }
}

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

/// What a node holds at the end.
#[derive(Clone, Default)]
struct Found {
    /// Ids and values
    rows: Vec<(i64, i64)>,
    /// The id of each value, as the unique index tells it
    by_index: BTreeMap<i64, i64>,
}

fn verdict(inserts: &[Insert], found: &[Found]) -> Verdict {
    let (mut done, mut refused, mut broken) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    for Insert { id, value, outcome } in inserts {
        match outcome {
            Outcome::Done(()) => {
                if let Some(other) = done.insert(*value, *id) {
                    broken.push(format!("{value} was acknowledged for {other} and {id}"));
                }
            }
            Outcome::Refused(_) => _ = refused.insert(*id),
            Outcome::Unknown => {}
        }
    }
    for (node, Found { rows, by_index }) in found.iter().enumerate() {
        let node = node + 1;
        let mut there = BTreeMap::new();
        for (id, value) in rows {
            if let Some(other) = there.insert(*value, *id) {
                broken.push(format!("node {node}: {value} is there for {other} and {id}"));
            }
            if refused.contains(id) {
                broken.push(format!("node {node}: {id} was refused and is there"));
            }
        }
        for (value, id) in &done {
            let owner = there.get(value);
            if owner != Some(id) {
                broken.push(format!("node {node}: {value} is of {owner:?}, not {id}"));
            }
        }
        // The index knows what the table knows.
        let values: BTreeSet<&i64> = there.keys().chain(by_index.keys()).collect();
        for value in values.into_iter().filter(|value| there.get(value) != by_index.get(value)) {
            let (row, index) = (there.get(value), by_index.get(value));
            broken.push(format!("node {node}: {value} is of {row:?} by its row, of {index:?} by its index"));
        }
    }
    let summary = format!("{} values, {} refused", done.len(), refused.len());
    Verdict { done: done.len(), summary, broken }
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
        let inserts = self.notes.all();
        let values: BTreeSet<i64> = inserts.iter().map(|insert| insert.value).collect();
        let mut found = Vec::new();
        for client in clients {
            let rows = client.query("SELECT id, name FROM names", &[]).await?;
            let rows = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            let mut by_index = BTreeMap::new();
            let by_name = client.prepare("SELECT id FROM names WHERE name = $1").await?;
            for value in &values {
                let row = client.query_opt(&by_name, &[value]).await?;
                by_index.extend(row.map(|row| (*value, row.get(0))));
            }
            found.push(Found { rows, by_index });
        }
        Ok(verdict(&inserts, &found))
    }

    fn history(&self) -> String {
        self.notes.lines()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of value 7 row 1 was acknowledged, of 8 nobody knows, and row 4 is there; row 2 was refused.
    fn good() -> (Vec<Insert>, Vec<Found>) {
        let insert = |id, value, outcome| Insert { id, value, outcome };
        let inserts = vec![
            insert(1, 7, Outcome::Done(())),
            insert(2, 7, Outcome::Refused(String::new())),
            insert(3, 7, Outcome::Unknown),
            insert(4, 8, Outcome::Unknown),
        ];
        let found = Found { rows: vec![(1, 7), (4, 8)], by_index: BTreeMap::from([(7, 1), (8, 4)]) };
        (inserts, vec![found; 3])
    }

    #[test]
    fn what_is_planted_is_found() {
        let (inserts, found) = good();
        assert_eq!(verdict(&inserts, &found).broken, Vec::<String>::new());
        let told = |what: &str, change: &dyn Fn(&mut Vec<Insert>, &mut Found)| {
            let (mut inserts, mut found) = good();
            change(&mut inserts, &mut found[2]);
            let broken = verdict(&inserts, &found).broken;
            assert!(broken.iter().any(|b| b.contains(what)), "{what}: {broken:?}");
        };
        told("7 was acknowledged for 1 and 3", &|inserts, _| inserts[2].outcome = Outcome::Done(()));
        told("node 3: 7 is there for 1 and 3", &|_, found| found.rows.push((3, 7)));
        told("node 3: 2 was refused and is there", &|_, found| found.rows[0] = (2, 7));
        told("node 3: 7 is of None, not 1", &|_, found| _ = found.rows.remove(0));
        told("node 3: 7 is of Some(3), not 1", &|_, found| found.rows[0] = (3, 7));
        told("node 3: 7 is of Some(1) by its row, of None by its index", &|_, found| {
            _ = found.by_index.remove(&7);
        });
        told("node 3: 8 is of Some(4) by its row, of Some(9) by its index", &|_, found| {
            _ = found.by_index.insert(8, 9);
        });
        told("node 3: 9 is of None by its row", &|_, found| _ = found.by_index.insert(9, 9));
    }
}

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

/// `found` is what each node holds at the end: one more read of every group.
fn verdict(notes: &[Note], found: &[BTreeSet<i64>]) -> Verdict {
    let mut broken = Vec::new();
    let mut reads: BTreeMap<i64, Vec<BTreeSet<i64>>> = BTreeMap::new();
    let (mut written, mut may_be, mut read) = (BTreeSet::new(), BTreeSet::new(), 0);
    for note in notes {
        match note {
            Note::Write(key, Outcome::Done(())) => _ = (written.insert(*key), may_be.insert(*key)),
            Note::Write(key, Outcome::Unknown) => _ = may_be.insert(*key),
            Note::Write(_, Outcome::Refused(_)) => {}
            Note::Read(group, seen) => {
                read += 1;
                reads.entry(*group).or_default().push(seen.clone());
            }
        }
    }
    for (node, there) in found.iter().enumerate() {
        let lost: Vec<_> = written.difference(there).collect();
        if !lost.is_empty() {
            broken.push(format!("node {} has lost {lost:?}", node + 1));
        }
        for (group, seen) in &mut reads {
            seen.push(there.range(group * GROUP..(group + 1) * GROUP).copied().collect());
        }
    }
    let seen: BTreeSet<i64> = reads.values().flatten().chain(found).flatten().copied().collect();
    let ghosts: Vec<_> = seen.difference(&may_be).collect();
    if !ghosts.is_empty() {
        broken.push(format!("{ghosts:?} were seen, and nobody has written them"));
    }
    for (group, seen) in &mut reads {
        seen.sort_by_key(BTreeSet::len);
        for pair in seen.windows(2) {
            if !pair[0].is_subset(&pair[1]) {
                let both = format!("{:?} and {:?}", pair[0], pair[1]);
                broken.push(format!("group {group}: readers disagree about the order: {both}"));
            }
        }
    }
    let summary = format!("{} groups, {} rows, {read} reads", reads.len(), written.len());
    Verdict { done: written.len() + read, summary, broken }
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
        let mut found = Vec::new();
        for client in clients {
            let rows = client.query("SELECT k FROM forks", &[]).await?;
            found.push(rows.iter().map(|row| row.get(0)).collect());
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

    /// Rows 4, 5 and 6 of group 1 were written in this order; of 6 nobody was told, 7 was refused.
    fn good() -> (Vec<Note>, Vec<BTreeSet<i64>>) {
        let read = |keys: &[i64]| Note::Read(1, keys.iter().copied().collect());
        let notes = vec![
            Note::Write(4, Outcome::Done(())),
            Note::Write(5, Outcome::Done(())),
            Note::Write(6, Outcome::Unknown),
            Note::Write(7, Outcome::Refused(String::new())),
            read(&[]),
            read(&[4, 5]),
            read(&[4]),
            read(&[4, 5]),
        ];
        (notes, vec![BTreeSet::from([4, 5, 6]); 3])
    }

    #[test]
    fn what_is_planted_is_found() {
        let (notes, found) = good();
        assert_eq!(verdict(&notes, &found).broken, Vec::<String>::new());
        type Change<'a> = &'a dyn Fn(&mut Vec<Note>, &mut BTreeSet<i64>);
        let told = |what: &str, change: Change<'_>| {
            let (mut notes, mut found) = good();
            change(&mut notes, &mut found[2]);
            let broken = verdict(&notes, &found).broken;
            assert!(broken.iter().any(|b| b.contains(what)), "{what}: {broken:?}");
        };
        told("disagree about the order", &|notes, _| notes.push(Note::Read(1, BTreeSet::from([5]))));
        told("disagree about the order", &|notes, _| notes.push(Note::Read(1, BTreeSet::from([4, 6]))));
        // Nodes that end differently are two readers as well.
        told("disagree about the order", &|notes, found| {
            notes.retain(|note| !matches!(note, Note::Write(5, _)));
            notes.push(Note::Write(5, Outcome::Unknown));
            found.remove(&5);
        });
        told("node 3 has lost [5]", &|_, found| _ = found.remove(&5));
        told("[7] were seen", &|notes, _| notes.push(Note::Read(1, BTreeSet::from([4, 5, 6, 7]))));
        told("[7] were seen", &|_, found| _ = found.insert(7));
    }
}

//! A bank: money moves, at every level; the total is the same in every snapshot, and the ledger explains each balance.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use rand::Rng;
use tokio_postgres::{Client, Error, Row};

use super::{Notes, Outcome, Session, Verdict, Workload};

const ACCOUNTS: i32 = 8;
const EACH: i64 = 100;

#[derive(Clone, Debug)]
enum Note {
    Transfer { id: i64, from: i32, to: i32, amount: i64, outcome: Outcome<()> },
    Audit { total: i64, least: i64 },
}

/// What a node holds at the end.
#[derive(Clone, Default)]
struct Found {
    /// From, to and amount
    transfers: BTreeMap<i64, (i32, i32, i64)>,
    balances: BTreeMap<i32, i64>,
}

fn verdict(notes: &[Note], found: &[Found]) -> Verdict {
    let (mut done, mut refused, mut audits) = (BTreeMap::new(), BTreeSet::new(), 0);
    let mut broken = Vec::new();
    for note in notes {
        match note {
            Note::Transfer { id, from, to, amount, outcome: Outcome::Done(()) } => {
                done.insert(*id, (*from, *to, *amount));
            }
            Note::Transfer { id, outcome: Outcome::Refused(_), .. } => _ = refused.insert(*id),
            Note::Transfer { .. } => {}
            Note::Audit { total, least } => {
                audits += 1;
                if *total != i64::from(ACCOUNTS) * EACH || *least < 0 {
                    broken.push(format!("an audit found {total} in all, {least} at least"));
                }
            }
        }
    }
    for (node, Found { transfers, balances }) in found.iter().enumerate() {
        let node = node + 1;
        let lost: Vec<_> = done.iter().filter(|(id, what)| transfers.get(id) != Some(*what)).collect();
        if !lost.is_empty() {
            broken.push(format!("node {node} has lost acknowledged transfers {lost:?}"));
        }
        let ghosts: Vec<_> = refused.iter().filter(|id| transfers.contains_key(id)).collect();
        if !ghosts.is_empty() {
            broken.push(format!("node {node} has refused transfers {ghosts:?}"));
        }
        for account in 0..ACCOUNTS {
            let moved = |(from, to, amount): &(i32, i32, i64)| {
                i64::from(*to == account) * amount - i64::from(*from == account) * amount
            };
            let due = EACH + transfers.values().map(moved).sum::<i64>();
            let balance = balances.get(&account);
            if balance != Some(&due) {
                broken.push(format!(
                    "account {account} on node {node} has {balance:?}, and by the ledger {due}"
                ));
            }
        }
    }
    let summary = format!("{} transfers, {} refused, {audits} audits", done.len(), refused.len());
    Verdict { done: done.len(), summary, broken }
}

/// The workload.
#[derive(Default)]
pub struct Bank {
    notes: Notes<Note>,
}

#[async_trait]
impl Workload for Bank {
    fn name(&self) -> String {
        "bank".to_owned()
    }

    fn workers(&self) -> usize {
        3
    }

    async fn prepare(&self, client: &Client) -> Result<(), Error> {
        let sql = format!(
            "CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0));
             CREATE TABLE transfers (id bigint PRIMARY KEY, src int, dst int, amount bigint NOT NULL);
             INSERT INTO accounts SELECT n, {EACH} FROM generate_series(0, {ACCOUNTS} - 1) n"
        );
        client.batch_execute(&sql).await
    }

    async fn step(&self, session: &mut Session) {
        if session.rng.random_bool(0.3) {
            let sql = "SELECT sum(balance)::bigint, min(balance) FROM accounts";
            let audit = session.attempt(|client, _| async move { client.query_one(sql, &[]).await });
            if let Outcome::Done(row) = audit.await {
                self.notes.note(Note::Audit { total: row.get(0), least: row.get(1) });
            }
            return;
        }
        let id = session.unique();
        let from = session.rng.random_range(0..ACCOUNTS);
        let to = (from + session.rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let amount = session.rng.random_range(1..=30);
        let (level, lock) = match session.rng.random_range(0..3) {
            0 => ("READ COMMITTED", " FOR UPDATE"),
            1 => ("REPEATABLE READ", ""),
            _ => ("SERIALIZABLE", ""),
        };
        let outcome = session.attempt(|client, sent| async move {
            client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).await?;
            let sql = format!("SELECT id, balance FROM accounts WHERE id IN ($1, $2) ORDER BY id{lock}");
            let rows = client.query(&sql, &[&from, &to]).await?;
            let balance =
                |id: i32| rows.iter().find(|r| r.get::<_, i32>(0) == id).map(|r| r.get::<_, i64>(1));
            let (Some(source), Some(target)) = (balance(from), balance(to)) else { return Ok(false) };
            if source < amount {
                client.batch_execute("ROLLBACK").await?;
                return Ok(false);
            }
            let sql = "UPDATE accounts SET balance = $2 WHERE id = $1";
            client.execute(sql, &[&from, &(source - amount)]).await?;
            client.execute(sql, &[&to, &(target + amount)]).await?;
            client
                .execute("INSERT INTO transfers VALUES ($1, $2, $3, $4)", &[&id, &from, &to, &amount])
                .await?;
            sent.now();
            client.batch_execute("COMMIT").await?;
            Ok(true)
        });
        let outcome = match outcome.await {
            Outcome::Done(true) => Outcome::Done(()),
            Outcome::Done(false) => return,
            Outcome::Refused(why) => Outcome::Refused(why),
            Outcome::Unknown => Outcome::Unknown,
        };
        self.notes.note(Note::Transfer { id, from, to, amount, outcome });
    }

    async fn judge(&self, clients: &[Client]) -> Result<Verdict, Error> {
        let mut found = Vec::new();
        for client in clients {
            let rows = client.query("SELECT id, src, dst, amount FROM transfers", &[]).await?;
            let transfer = |row: &Row| (row.get(0), (row.get(1), row.get(2), row.get(3)));
            let transfers = rows.iter().map(transfer).collect();
            let rows = client.query("SELECT id, balance FROM accounts", &[]).await?;
            let balances = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            found.push(Found { transfers, balances });
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

    fn transfer(id: i64, outcome: Outcome<()>) -> Note {
        Note::Transfer { id, from: 0, to: 1, amount: 10, outcome }
    }

    /// Two transfers are there, one of them of unknown fate; one was refused.
    fn good() -> (Vec<Note>, Vec<Found>) {
        let notes = vec![
            transfer(1, Outcome::Done(())),
            transfer(2, Outcome::Unknown),
            transfer(3, Outcome::Refused(String::new())),
            transfer(4, Outcome::Unknown),
            Note::Audit { total: i64::from(ACCOUNTS) * EACH, least: 0 },
        ];
        let transfers = BTreeMap::from([(1, (0, 1, 10)), (2, (0, 1, 10))]);
        let mut balances: BTreeMap<i32, i64> = (0..ACCOUNTS).map(|account| (account, EACH)).collect();
        balances.extend([(0, EACH - 20), (1, EACH + 20)]);
        (notes, vec![Found { transfers, balances }; 3])
    }

    #[test]
    fn what_is_planted_is_found() {
        let (notes, found) = good();
        assert_eq!(verdict(&notes, &found).broken, Vec::<String>::new());
        let told = |what: &str, change: &dyn Fn(&mut Vec<Note>, &mut Found)| {
            let (mut notes, mut found) = good();
            change(&mut notes, &mut found[1]);
            let broken = verdict(&notes, &found).broken;
            assert!(broken.iter().any(|b| b.contains(what)), "{what}: {broken:?}");
        };
        told("an audit found 790", &|notes, _| notes.push(Note::Audit { total: 790, least: 0 }));
        told("an audit found 800", &|notes, _| notes.push(Note::Audit { total: 800, least: -10 }));
        told("node 2 has lost", &|_, found| {
            // It is gone with all that it moved: the books balance.
            found.transfers.remove(&1);
            found.balances.extend([(0, EACH - 10), (1, EACH + 10)]);
        });
        told("node 2 has lost", &|_, found| _ = found.transfers.insert(1, (0, 1, 11)));
        told("node 2 has refused transfers", &|_, found| {
            found.transfers.insert(3, (0, 1, 10));
            found.balances.extend([(0, EACH - 30), (1, EACH + 30)]);
        });
        told("account 0 on node 2 has Some(90), and by the ledger 80", &|_, found| {
            _ = found.balances.insert(0, EACH - 10);
        });
        told("account 7 on node 2 has None", &|_, found| _ = found.balances.remove(&7));
    }
}

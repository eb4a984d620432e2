//! A bank: money moves, at every level; the total is the same in every snapshot, and the ledger explains each balance.

use std::collections::BTreeSet;

use async_trait::async_trait;
use rand::Rng;
use tokio_postgres::{Client, Error};

use super::{Notes, Outcome, Session, Verdict, Workload};

const ACCOUNTS: i32 = 8;
const EACH: i64 = 100;

#[derive(Clone, Debug)]
#[allow(dead_code)] // some of it is for whoever reads the history
enum Note {
    Transfer { id: i64, from: i32, to: i32, amount: i64, outcome: Outcome<()> },
    Audit { total: i64, least: i64 },
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
        let (mut done, mut refused, mut audits) = (BTreeSet::new(), BTreeSet::new(), 0);
        let mut verdict = Verdict::default();
        for note in self.notes.all() {
            match note {
                Note::Transfer { id, outcome: Outcome::Done(()), .. } => _ = done.insert(id),
                Note::Transfer { id, outcome: Outcome::Refused(_), .. } => _ = refused.insert(id),
                Note::Transfer { .. } => {}
                Note::Audit { total, least } => {
                    audits += 1;
                    if total != i64::from(ACCOUNTS) * EACH || least < 0 {
                        verdict.broken.push(format!("an audit found {total} in all, {least} at least"));
                    }
                }
            }
        }
        for (node, client) in clients.iter().enumerate() {
            let rows = client.query("SELECT id FROM transfers", &[]).await?;
            let there: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
            let lost: Vec<_> = done.difference(&there).collect();
            if !lost.is_empty() {
                verdict.broken.push(format!("node {} has lost acknowledged transfers {lost:?}", node + 1));
            }
            let ghosts: Vec<_> = refused.intersection(&there).collect();
            if !ghosts.is_empty() {
                verdict.broken.push(format!("node {} has refused transfers {ghosts:?}", node + 1));
            }
            let sql = "SELECT a.id, a.balance, \
                       coalesce((SELECT sum(amount)::bigint FROM transfers WHERE dst = a.id), 0) \
                       - coalesce((SELECT sum(amount)::bigint FROM transfers WHERE src = a.id), 0) \
                       FROM accounts a ORDER BY a.id";
            for row in client.query(sql, &[]).await? {
                let (id, balance, moved): (i32, i64, i64) = (row.get(0), row.get(1), row.get(2));
                if balance != EACH + moved {
                    let is = format!("account {id} on node {} has {balance}", node + 1);
                    verdict.broken.push(format!("{is}, and by the ledger {}", EACH + moved));
                }
            }
        }
        verdict.done = done.len();
        verdict.summary = format!("{} transfers, {} refused, {audits} audits", done.len(), refused.len());
        Ok(verdict)
    }

    fn history(&self) -> String {
        self.notes.lines()
    }
}

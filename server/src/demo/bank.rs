//! Why money belongs in strong tables: one bank kept twice, by the same statements.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::Client;

use super::Trouble;
use super::load::{self, ACCOUNTS, Ledger, Load, OPENING};
use super::rows::{number, single};
use super::story::{Story, first_error};

/// How long clients transfer money, on each kind of table.
const LOAD: Duration = Duration::from_millis(1500);

impl Story {
    pub(super) async fn bank(&mut self) -> Result<(), Trouble> {
        self.one_bank_kept_twice().await?;
        self.the_same_transfers().await?;
        self.two_desks_one_account().await?;
        self.would_a_counter_do().await
    }

    async fn one_bank_kept_twice(&mut self) -> Result<(), Trouble> {
        self.chapter("One bank, kept twice");
        let client = self.cluster.node(0)?.connect().await?;
        self.screen.say("The same tables, strong and leaderless. Everything else will be the same.");
        let owners = ["Ada", "Bob", "Cleo", "Dio", "Eve", "Finn", "Gaia", "Hugo"];
        let values: Vec<String> =
            (1..=ACCOUNTS).zip(owners).map(|(id, owner)| format!("({id}, '{owner}', {OPENING})")).collect();
        for (ledger, with) in
            [(Ledger::STRONG, ""), (Ledger::LEADERLESS, "\nWITH (replication = 'leaderless')")]
        {
            let Ledger { accounts, transfers } = ledger;
            for sql in [
                format!("CREATE TABLE {accounts} (id int PRIMARY KEY, owner text, balance bigint){with}"),
                format!(
                    "CREATE TABLE {transfers} (id bigint PRIMARY KEY, source int, target int, amount bigint){with}"
                ),
                format!("INSERT INTO {accounts} VALUES {}", values.join(", ")),
            ] {
                self.show(&client, 0, &sql).await?;
            }
        }
        let total = (i64::from(ACCOUNTS) * OPENING).to_string();
        let mut there = true;
        for ledger in [Ledger::STRONG, Ledger::LEADERLESS] {
            let sql = format!("SELECT sum(balance) FROM {}", ledger.accounts);
            there &= self.all_agree(&sql, |rows| single(rows, &[&total])).await?.is_some();
        }
        self.claim(there, &format!("both banks hold {total}, seen from every node"));
        Ok(())
    }

    async fn the_same_transfers(&mut self) -> Result<(), Trouble> {
        self.chapter("The same transfers, on all three nodes at once");
        let client = self.cluster.node(0)?.connect().await?;
        for (ledger, id) in [(Ledger::STRONG, 1), (Ledger::LEADERLESS, 1)] {
            for sql in load::statements(ledger, id, 3, 5, 7) {
                self.show(&client, 0, &sql).await?;
            }
        }
        let mut counts = [0, 0];
        for (count, ledger) in counts.iter_mut().zip([Ledger::STRONG, Ledger::LEADERLESS]) {
            let ports = self.cluster.nodes.iter().map(|n| n.pg).collect();
            let load = Load::start(ports, 2, ledger);
            tokio::time::sleep(LOAD).await;
            let outcome = load.stop().await;
            let mut acknowledged = outcome.acknowledged;
            acknowledged.insert(1);
            *count = acknowledged.len();
            self.screen.say(&format!(
                "Six clients, two on each node, have made {count} such transfers in {} s in {}:",
                LOAD.as_secs_f64(),
                ledger.accounts
            ));
            self.claim(
                outcome.unexpected.is_empty(),
                &format!("no client saw an error{}", first_error(&outcome.unexpected)),
            );
            if ledger == Ledger::STRONG {
                self.all_is_there(&client, &acknowledged).await?;
            } else {
                self.money_is_missing(&client, &acknowledged).await?;
            }
        }
        let [strong, leaderless] = counts;
        self.screen.say(&format!(
            "Leaderless made {leaderless} transfers where strong made {strong}: that is what being right costs."
        ));
        Ok(())
    }

    async fn all_is_there(&mut self, client: &Client, acknowledged: &BTreeSet<i64>) -> Result<(), Trouble> {
        self.show(client, 0, "SELECT sum(balance) AS total FROM accounts").await?;
        let audit = load::audit(client, acknowledged, Ledger::STRONG).await?;
        self.claim(audit.is_right(), &audit.verdict(acknowledged.len()));
        Ok(())
    }

    /// The ledger of the leaderless bank is whole on every node, and says what its accounts should hold.
    async fn money_is_missing(
        &mut self,
        client: &Client,
        acknowledged: &BTreeSet<i64>,
    ) -> Result<(), Trouble> {
        let lines = acknowledged.len().to_string();
        let count = "SELECT count(*) FROM leaderless_transfers";
        let whole = self.all_agree(count, |rows| single(rows, &[&lines])).await?.is_some();
        self.claim(
            whole,
            &format!("every node has all {lines} lines of the ledger: no write was lost on its way"),
        );
        let total = "SELECT sum(balance) AS total FROM leaderless_accounts";
        self.show(client, 0, total).await?;
        let audit = load::audit(client, acknowledged, Ledger::LEADERLESS).await?;
        let difference = audit.total - i64::from(ACCOUNTS) * OPENING;
        let (what, amount) =
            (if difference < 0 { "is missing" } else { "came from nowhere" }, difference.abs());
        self.claim(
            audit.wrong > 0 && audit.missing == 0,
            &format!(
                "and the money is wrong: {amount} {what}; {} of {ACCOUNTS} accounts disagree with the ledger, by {} \
                 altogether",
                audit.wrong, audit.off
            ),
        );
        let agreed = audit.total.to_string();
        let agreed = self.all_agree(total, |rows| single(rows, &[&agreed])).await?.is_some();
        self.claim(agreed, "all three nodes agree on it: merging makes nodes equal, not right");
        Ok(())
    }

    async fn two_desks_one_account(&mut self) -> Result<(), Trouble> {
        self.chapter("Why: two cash desks pay out of one account");
        let here = self.cluster.leader().await?;
        let there = (here + 1) % 3;
        let (client, alone) =
            (self.cluster.node(here)?.connect().await?, self.cluster.node(there)?.connect().await?);
        for table in ["accounts", "leaderless_accounts"] {
            self.show(&client, here, &format!("INSERT INTO {table} VALUES (9, 'Ida', 100)")).await?;
        }
        self.screen
            .say("And a third way to keep a balance: a counter, whose concurrent changes are all added up.");
        self.purses(&client, here).await?;
        let seen = "SELECT count(*) FROM leaderless_accounts a JOIN purses p ON p.id = a.id JOIN accounts s ON s.id = a.id";
        self.all_agree(seen, |rows| single(rows, &["1"])).await?;

        self.screen.say(&format!(
            "n{} is cut off. There somebody asks for 60 of Ida's 100, and elsewhere somebody for 70.",
            there + 1
        ));
        self.cluster.isolate(there, true).await?;
        let pay = |table: &str, sum: i64| {
            format!(
                "UPDATE {table} SET balance = balance - {sum}\nWHERE id = 9 AND balance >= {sum} RETURNING balance"
            )
        };
        let paid = self.show(&client, here, &pay("accounts", 70)).await?;
        self.claim(single(&paid, &["30"]), "strong: the majority pays");
        let strong = pay("accounts", 60);
        self.refused(&alone, there, &strong, "and the minority does not, because it cannot know").await?;
        let mut both = true;
        for (client, node, sum, rest) in [(&client, here, 70, "30"), (&alone, there, 60, "40")] {
            for table in ["leaderless_accounts", "purses"] {
                both &= single(&self.show(client, node, &pay(table, sum)).await?, &[rest]);
            }
        }
        self.claim(both, "leaderless: both pay, each in good faith");
        self.cluster.isolate(there, false).await?;
        let sql = "SELECT a.balance AS accounts, l.balance AS leaderless_accounts\n\
                   FROM accounts a JOIN leaderless_accounts l ON l.id = a.id WHERE a.id = 9";
        let last = "SELECT count(*) FROM amphora.conflicts WHERE table_name = 'leaderless_accounts' AND key->>'id' = '9'";
        let met = self.all_agree(last, |rows| number(rows).is_ok_and(|n| n > 0)).await?.is_some();
        let balances = self.show(&client, here, sql).await?;
        self.claim(
            single(&balances, &["30", "40"]),
            "whole again: the leaderless bank has paid 130 out of 100, and believes that 40 are left",
        );
        let sql = "SELECT column_name, loser, winner FROM amphora.conflicts\n\
                   WHERE table_name = 'leaderless_accounts' AND key->>'id' = '9'";
        self.show(&client, here, sql).await?;
        self.claim(
            met,
            "of two concurrent writes one wins; the other is kept in amphora.conflicts, for a person",
        );
        Ok(())
    }

    /// A third way to keep a balance, and what is refused there.
    async fn purses(&mut self, client: &Client, node: usize) -> Result<(), Trouble> {
        let sql = "CREATE TABLE purses (id int PRIMARY KEY, balance crdt_counter)\nWITH (replication = 'leaderless')";
        self.show(client, node, sql).await?;
        self.show(client, node, "INSERT INTO purses VALUES (9, 100)").await?;
        Ok(())
    }

    async fn would_a_counter_do(&mut self) -> Result<(), Trouble> {
        self.chapter("Would a counter do? It loses nothing");
        let client = self.cluster.node(0)?.connect().await?;
        let sql = "SELECT balance FROM purses WHERE id = 9";
        let agreed = self.all_agree(sql, |rows| single(rows, &["-30"])).await?.is_some();
        self.show(&client, 0, sql).await?;
        self.claim(agreed, "both payments count. But nobody had allowed Ida an overdraft");
        let sql = "CREATE TABLE guarded (id int PRIMARY KEY, balance crdt_counter CHECK (balance >= 0))\n\
                   WITH (replication = 'leaderless')";
        let refused = self.show_refused(&client, 0, sql, "0A000").await?;
        self.claim(
            refused,
            "such a promise cannot be kept by merging, so it is refused and not accepted and broken",
        );
        self.screen.say("What must hold across writers belongs in a strong table. That is the default.");
        Ok(())
    }
}

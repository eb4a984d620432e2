//! The network breaks in two, and both sides do what their tables promise.

use std::time::Instant;

use tokio_postgres::Client;

use super::Trouble;
use super::rows::{Rows, elements, single};
use super::story::{Story, ask};

/// Increments on each side.
const INCREMENTS: i64 = 50;
impl Story {
    pub(super) async fn partition(&mut self) -> Result<(), Trouble> {
        self.chapter("The network breaks: two nodes here, one there");
        let leader = self.cluster.leader().await?;
        let minority = (leader + 1) % 3;
        let other = (leader + 2) % 3;
        let (many, alone) =
            (self.cluster.node(leader)?.connect().await?, self.cluster.node(minority)?.connect().await?);
        let before = ask_value(&many, "SELECT n FROM page_views WHERE page = 'home'").await?;
        let before: i64 = before.parse().map_err(|_| Trouble::new(format!("not a count: {before}")))?;
        self.cluster.isolate(minority, true).await?;
        self.screen.say(&format!(
            "n{} and n{} hear each other; n{} hears nobody.",
            leader + 1,
            other + 1,
            minority + 1
        ));

        self.screen.say("Strong tables: the majority goes on, the minority refuses rather than be wrong.");
        let deposit = "UPDATE accounts SET balance = balance + 100 WHERE id = 1 RETURNING id, balance";
        let paid = self.show(&many, leader, deposit).await?;
        self.claim(paid.len() == 1, "the majority writes accounts");
        let withdraw = "UPDATE accounts SET balance = balance - 100 WHERE id = 1 RETURNING id, balance";
        self.refused(&alone, minority, withdraw, "the minority refuses to write accounts").await?;
        let read = "SELECT sum(balance) FROM accounts";
        self.refused(&alone, minority, read, "and refuses to read what may be stale").await?;

        self.screen.say("Leaderless tables: both sides write.");
        self.write_leaderless(
            &many,
            leader,
            &[
                "UPDATE carts SET items = array_append(items, 'honey') WHERE account = 1",
                "UPDATE carts SET items = array_remove(items, 'bread') WHERE account = 1",
                "UPDATE profiles SET city = 'Paris', theme = 'dark' WHERE account = 1",
            ],
        )
        .await?;
        self.write_leaderless(
            &alone,
            minority,
            &[
                "UPDATE carts SET items = array_append(items, 'wine') WHERE account = 1",
                "UPDATE profiles SET name = 'Ada L.', theme = 'sepia' WHERE account = 1",
            ],
        )
        .await?;
        let here = self.show(&many, leader, "SELECT n FROM page_views WHERE page = 'home'").await?;
        let there = self.show(&alone, minority, "SELECT n FROM page_views WHERE page = 'home'").await?;
        let half = (before + INCREMENTS).to_string();
        self.claim(
            single(&here, &[&half]) && single(&there, &[&half]),
            &format!("both sides counted {INCREMENTS} views, and neither knows of the other's"),
        );

        self.screen.say("The network is whole again.");
        let healed = Instant::now();
        self.cluster.isolate(minority, false).await?;
        self.agreement(before + 2 * INCREMENTS, healed).await
    }

    /// After healing: the same everywhere, and nothing lost.
    async fn agreement(&mut self, views: i64, healed: Instant) -> Result<(), Trouble> {
        let views = views.to_string();
        let sql = "SELECT n FROM page_views WHERE page = 'home'";
        let agreed = self.all_agree(sql, |rows| single(rows, &[&views])).await?.is_some();
        let took = healed.elapsed().as_millis();
        self.claim(
            agreed,
            &format!("all three nodes count {views} views: no increment lost (agreed after {took} ms)"),
        );

        let sql = "SELECT items FROM carts WHERE account = 1";
        let agreed =
            self.all_agree(sql, |rows| elements(rows) == ["honey", "olives", "wine"]).await?.is_some();
        self.claim(agreed, "the cart has both sides' additions and not what was removed");

        let sql = "SELECT name, city, theme FROM profiles WHERE account = 1";
        let agreed = self.all_agree(sql, |rows| single(rows, &["Ada L.", "Paris", "sepia"])).await?.is_some();
        self.claim(agreed, "the profile has each side's own columns, and the later of two themes");

        for i in 0..self.cluster.nodes.len() {
            let client = self.cluster.node(i)?.connect().await?;
            let sql = "SELECT v.n AS views, c.items, p.name, p.city, p.theme\n\
                       FROM page_views v, carts c, profiles p\n\
                       WHERE v.page = 'home' AND c.account = 1 AND p.account = 1";
            self.show(&client, i, sql).await?;
        }
        Ok(())
    }

    /// Counts views, and runs these statements too.
    async fn write_leaderless(
        &self,
        client: &Client,
        node: usize,
        statements: &[&str],
    ) -> Result<(), Trouble> {
        let count = "UPDATE page_views SET n = n + 1 WHERE page = 'home'";
        self.screen.statement(&format!("n{}", node + 1), &format!("{count}      -- {INCREMENTS} times"));
        for _ in 0..INCREMENTS {
            ask(client, count).await?;
        }
        for sql in statements {
            self.show(client, node, sql).await?;
        }
        Ok(())
    }

    /// Both kinds in one transaction, and in one query.
    pub(super) async fn both_in_one(&mut self) -> Result<(), Trouble> {
        self.chapter("Both kinds in one transaction and in one query");
        let client = self.cluster.node(0)?.connect().await?;
        let views = ask_value(&client, "SELECT n FROM page_views WHERE page = 'home'").await?;
        let balance = ask_value(&client, "SELECT balance FROM accounts WHERE id = 1").await?;
        for sql in [
            "BEGIN",
            "UPDATE accounts SET balance = balance - 5 WHERE id = 1",
            "UPDATE page_views SET n = n + 1 WHERE page = 'home'",
            "UPDATE carts SET items = array_remove(items, 'wine') WHERE account = 1",
            "COMMIT",
        ] {
            self.show(&client, 0, sql).await?;
        }
        let number =
            |text: &str| text.parse::<i64>().map_err(|_| Trouble::new(format!("not a number: {text}")));
        let (views, balance) = ((number(&views)? + 1).to_string(), (number(&balance)? - 5).to_string());
        let sql = "SELECT a.owner, a.balance, p.city, c.items, v.n AS views\n\
                   FROM accounts a JOIN profiles p ON p.account = a.id\n\
                   JOIN carts c ON c.account = a.id JOIN page_views v ON v.page = 'home'\n\
                   WHERE a.id = 1";
        let expected = |rows: &Rows| {
            let [row] = rows.as_slice() else { return false };
            let cell = |i: usize| row.get(i).and_then(Option::as_deref).unwrap_or_default();
            let items: Rows = vec![vec![Some(cell(3).to_owned())]];
            (cell(0), cell(1), cell(4)) == ("Ada", balance.as_str(), views.as_str())
                && elements(&items) == ["honey", "olives"]
        };
        let agreed = self.all_agree(sql, expected).await?.is_some();
        for i in 0..self.cluster.nodes.len() {
            let client = self.cluster.node(i)?.connect().await?;
            self.show(&client, i, sql).await?;
        }
        self.claim(agreed, "one query joins strong and leaderless tables, and all nodes answer alike");
        Ok(())
    }
}

async fn ask_value(client: &Client, sql: &str) -> Result<String, Trouble> {
    let messages = ask(client, sql).await?;
    let value = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    value.ok_or_else(|| Trouble::new(format!("no value from: {sql}")))
}

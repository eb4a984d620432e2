//! Views counted on every node at once.

use std::time::Instant;

use tokio::task::JoinSet;

use super::Trouble;
use super::rows::single;
use super::story::{Story, ask};

/// Views counted on each node, or on each side.
const VIEWS: i64 = 200;
const COUNT: &str = "UPDATE page_views SET n = n + 1 WHERE page = 'home'";
const COUNT_PLAIN: &str = "UPDATE plain_views SET n = n + 1 WHERE page = 'home'";

impl Story {
    pub(super) async fn page_views(&mut self) -> Result<(), Trouble> {
        self.a_counter_and_a_number().await?;
        self.everybody_counts().await?;
        self.both_sides_count().await
    }

    async fn a_counter_and_a_number(&mut self) -> Result<(), Trouble> {
        self.chapter("A counter, and a plain number beside it");
        let client = self.cluster.node(0)?.connect().await?;
        for sql in [
            "CREATE TABLE page_views (page text PRIMARY KEY, n crdt_counter)\nWITH (replication = 'leaderless')",
            "CREATE TABLE plain_views (page text PRIMARY KEY, n bigint)\nWITH (replication = 'leaderless')",
            "INSERT INTO page_views VALUES ('home', 0)",
            "INSERT INTO plain_views VALUES ('home', 0)",
        ] {
            self.show(&client, 0, sql).await?;
        }
        let sql = "SELECT (SELECT count(*) FROM page_views), (SELECT count(*) FROM plain_views)";
        let there = self.all_agree(sql, |rows| single(rows, &["1", "1"])).await?.is_some();
        self.claim(there, "both tables are on every node");
        Ok(())
    }

    async fn everybody_counts(&mut self) -> Result<(), Trouble> {
        self.chapter("All three nodes count at once");
        self.screen.statement("n1, n2, n3", &format!("{COUNT}      -- {VIEWS} times on each"));
        let mut clients = JoinSet::new();
        for node in &self.cluster.nodes {
            let client = node.connect().await?;
            clients.spawn(async move {
                let start = Instant::now();
                for _ in 0..VIEWS {
                    ask(&client, COUNT).await?;
                }
                Ok::<_, Trouble>(start.elapsed())
            });
        }
        let mut slowest = 0.0f64;
        for took in clients.join_all().await {
            slowest = slowest.max(took?.as_secs_f64() * 1000.0 / VIEWS as f64);
        }
        let total = (3 * VIEWS).to_string();
        let sql = "SELECT n FROM page_views WHERE page = 'home'";
        let agreed = self.all_agree(sql, |rows| single(rows, &[&total])).await?.is_some();
        let client = self.cluster.node(2)?.connect().await?;
        self.show(&client, 2, sql).await?;
        self.claim(
            agreed,
            &format!("{total} views, and all nodes say so; a view took {slowest:.1} ms, on disk, waiting for nobody"),
        );
        Ok(())
    }

    async fn both_sides_count(&mut self) -> Result<(), Trouble> {
        self.chapter("n3 is cut off, and goes on counting");
        let (here, alone) = (self.cluster.node(0)?.connect().await?, self.cluster.node(2)?.connect().await?);
        self.cluster.isolate(2, true).await?;
        for (client, name) in [(&here, "n1"), (&alone, "n3")] {
            for sql in [COUNT, COUNT_PLAIN] {
                self.screen.statement(name, &format!("{sql}      -- {VIEWS} times"));
                for _ in 0..VIEWS {
                    ask(client, sql).await?;
                }
            }
        }
        let healed = Instant::now();
        self.cluster.isolate(2, false).await?;
        let (all, plain) = ((5 * VIEWS).to_string(), VIEWS.to_string());
        let sql = "SELECT c.n AS counter, p.n AS plain_number\nFROM page_views c JOIN plain_views p ON p.page = c.page";
        let agreed = self.all_agree(sql, |rows| single(rows, &[&all, &plain])).await?.is_some();
        let took = healed.elapsed().as_millis();
        self.show(&alone, 2, sql).await?;
        self.claim(
            agreed,
            &format!("the counter has every view, {took} ms after the network was whole again"),
        );
        self.claim(
            agreed,
            &format!("the plain number has lost {VIEWS}: two sides wrote {VIEWS}, and the last writer won"),
        );
        self.screen.say("The type says what a write means: \"one more\", or \"it is 200\".");
        Ok(())
    }
}

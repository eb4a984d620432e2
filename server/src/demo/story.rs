//! The narrator: numbered steps, statements shown as they run, and the list of claims.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, SimpleQueryMessage};

use super::cluster::DemoCluster;
use super::load::{self, ACCOUNTS, Ledger, Load, OPENING};
use super::rows::{Rows, rows};
use super::screen::Screen;
use super::{Scenario, Trouble};
use crate::cli::say;

/// A statement of the story may take this long.
const STATEMENT_LIMIT: Duration = Duration::from_secs(20);
/// How long nodes that can talk may take to agree.
const AGREE_LIMIT: Duration = Duration::from_secs(20);

/// The story while it is told.
pub struct Story {
    /// The nodes
    pub cluster: DemoCluster,
    /// Where it is told
    pub screen: Screen,
    claims: Vec<(bool, String)>,
    /// Transfers that were acknowledged, since the beginning
    acknowledged: BTreeSet<i64>,
    dir: PathBuf,
    temporary: bool,
    step: usize,
    steps: usize,
}

impl Story {
    /// Sets the stage.
    pub fn begin(dir: Option<PathBuf>, scenario: Scenario) -> Result<Story, Trouble> {
        let temporary = dir.is_none();
        let dir =
            dir.unwrap_or_else(|| std::env::temp_dir().join(format!("amphora-demo-{}", std::process::id())));
        if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Trouble::new(format!("the directory {} is not empty", dir.display())));
        }
        std::fs::create_dir_all(&dir)?;
        let cluster = DemoCluster::new(&dir, scenario.regions())?;
        let screen = Screen::new();
        Ok(Story {
            cluster,
            screen,
            claims: Vec::new(),
            acknowledged: BTreeSet::new(),
            dir,
            temporary,
            step: 0,
            steps: 0,
        })
    }

    /// Says how many chapters will be opened.
    pub fn expect_chapters(&mut self, chapters: usize) {
        self.steps = chapters;
    }

    /// Opens the next chapter.
    pub fn chapter(&mut self, title: &str) {
        self.step += 1;
        self.screen.step(self.step, self.steps, title);
    }

    /// Says whether something held, and remembers it.
    pub fn claim(&mut self, held: bool, text: &str) {
        self.screen.claim(held, text);
        self.claims.push((held, text.to_owned()));
    }

    /// Shows a statement, runs it, and shows what it gave.
    pub async fn show(&self, client: &Client, node: usize, sql: &str) -> Result<Rows, Trouble> {
        self.screen.statement(&format!("n{}", node + 1), sql);
        let messages = ask(client, sql).await?;
        self.screen.result(&messages);
        Ok(rows(&messages))
    }

    /// Asks all nodes the same until all give the same accepted answer, or time is up.
    pub async fn all_agree(
        &self,
        sql: &str,
        accept: impl Fn(&Rows) -> bool,
    ) -> Result<Option<Duration>, Trouble> {
        let start = Instant::now();
        loop {
            let mut agreed = 0;
            for node in &self.cluster.nodes {
                let Ok(client) = node.connect().await else { continue };
                let Ok(messages) = ask(&client, sql).await else { continue };
                agreed += usize::from(accept(&rows(&messages)));
            }
            if agreed == self.cluster.nodes.len() {
                return Ok(Some(start.elapsed()));
            }
            if start.elapsed() > AGREE_LIMIT {
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// A strong statement in the minority: shown with the error it must give. It takes a moment, because the node
    /// waits whether a leader can be reached after all.
    pub async fn refused(
        &mut self,
        client: &Client,
        node: usize,
        sql: &str,
        claim: &str,
    ) -> Result<(), Trouble> {
        let start = Instant::now();
        let held = self.show_refused(client, node, sql, "57P03").await?;
        self.claim(held, &format!("{claim} (57P03 after {} ms)", start.elapsed().as_millis()));
        Ok(())
    }

    /// Shows a statement that must fail with this SQLSTATE; whether it did.
    pub async fn show_refused(
        &self,
        client: &Client,
        node: usize,
        sql: &str,
        code: &str,
    ) -> Result<bool, Trouble> {
        self.screen.statement(&format!("n{}", node + 1), sql);
        let answer = tokio::time::timeout(STATEMENT_LIMIT, client.simple_query(sql)).await;
        Ok(answer.is_ok_and(|answer| self.is_error(answer, code)))
    }

    /// Shows an answer; whether it is this error.
    fn is_error(&self, answer: Result<Vec<SimpleQueryMessage>, tokio_postgres::Error>, code: &str) -> bool {
        match answer {
            Ok(messages) => {
                self.screen.result(&messages);
                false
            }
            Err(e) => {
                self.screen.error(&e);
                e.as_db_error().is_some_and(|db| db.code().code() == code)
            }
        }
    }

    /// The first chapter of every story.
    pub async fn three_processes(&mut self) -> Result<(), Trouble> {
        self.chapter("Three processes become a cluster");
        let start = Instant::now();
        self.cluster.start().await?;
        for node in &self.cluster.nodes {
            let (name, pid, pg) = (&node.name, node.pid(), node.pg);
            self.screen.say(&format!("{name}: process {pid}, SQL on 127.0.0.1:{pg}"));
        }
        let client = self.cluster.node(0)?.connect().await?;
        let sql = if self.cluster.has_regions() {
            "SELECT node_id, role, state, region FROM amphora.nodes ORDER BY node_id"
        } else {
            "SELECT node_id, role, state, pg_address FROM amphora.nodes ORDER BY node_id"
        };
        let nodes = self.show(&client, 0, sql).await?;
        let is = |row: &Vec<Option<String>>, i: usize, what: &str| {
            row.get(i).and_then(Option::as_deref).is_some_and(|v| v == what)
        };
        let leaders = nodes.iter().filter(|n| is(n, 1, "leader")).count();
        let voters = nodes.iter().filter(|n| is(n, 1, "voter")).count();
        let alive = nodes.iter().filter(|n| is(n, 2, "alive")).count();
        let took = start.elapsed().as_secs_f64();
        self.claim(
            leaders == 1 && voters == 2 && alive == 3,
            &format!("three nodes found each other: one leader, two more voters, after {took:.1} s"),
        );
        Ok(())
    }

    /// The tables of the hybrid story.
    pub async fn two_kinds_of_table(&mut self) -> Result<(), Trouble> {
        self.chapter("Two kinds of table in one database");
        let client = self.cluster.node(0)?.connect().await?;
        self.screen.say("Money must never be wrong: strong tables, ordered by Raft.");
        for sql in [
            "CREATE TABLE accounts (id int PRIMARY KEY, owner text NOT NULL, balance bigint NOT NULL)",
            "CREATE TABLE transfers (id bigint PRIMARY KEY, source int, target int, amount bigint)",
        ] {
            self.show(&client, 0, sql).await?;
        }
        self.screen.say("Carts and counters must never be down: leaderless tables, merged.");
        for sql in [
            "CREATE TABLE page_views (page text PRIMARY KEY, n crdt_counter)\nWITH (replication = 'leaderless')",
            "CREATE TABLE carts (account int PRIMARY KEY, items crdt_set(text))\nWITH (replication = 'leaderless')",
            "CREATE TABLE profiles (account int PRIMARY KEY, name text, city text, theme text)\nWITH (replication = 'leaderless')",
        ] {
            self.show(&client, 0, sql).await?;
        }
        let owners = ["Ada", "Bob", "Cleo", "Dio", "Eve", "Finn", "Gaia", "Hugo"];
        let values: Vec<String> =
            (1..=ACCOUNTS).zip(owners).map(|(id, owner)| format!("({id}, '{owner}', {OPENING})")).collect();
        self.show(&client, 0, &format!("INSERT INTO accounts VALUES {}", values.join(", "))).await?;
        for sql in [
            "INSERT INTO page_views VALUES ('home', 0)",
            "INSERT INTO carts VALUES (1, '{bread,olives}')",
            "INSERT INTO profiles VALUES (1, 'Ada', 'London', 'light')",
        ] {
            self.show(&client, 0, sql).await?;
        }
        let sql = "SELECT (SELECT count(*) FROM accounts) AS accounts, (SELECT count(*) FROM page_views) AS pages,\n\
                   (SELECT count(*) FROM carts) AS carts, (SELECT count(*) FROM profiles) AS profiles";
        let expected = [ACCOUNTS.to_string(), "1".into(), "1".into(), "1".into()].map(Some).to_vec();
        let agreed = self.all_agree(sql, |rows| rows.as_slice() == [expected.clone()]).await?;
        let last = self.cluster.node(2)?.connect().await?;
        self.show(&last, 2, sql).await?;
        self.claim(agreed.is_some(), "what was written on n1 is there on n1, n2 and n3");
        Ok(())
    }

    /// Money moves while nothing is wrong.
    pub async fn transfers_on_every_node(&mut self) -> Result<(), Trouble> {
        self.chapter("Transfers on all three nodes at once");
        self.screen
            .say("One transfer; then six clients, two on each node, make such transfers for three seconds:");
        let client = self.cluster.node(0)?.connect().await?;
        for sql in load::statements(Ledger::STRONG, 1, 3, 5, 7) {
            self.show(&client, 0, &sql).await?;
        }
        let ports = self.cluster.nodes.iter().map(|n| n.pg).collect();
        let load = Load::start(ports, 2, Ledger::STRONG);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut outcome = load.stop().await;
        outcome.acknowledged.insert(1);
        let count = outcome.acknowledged.len();
        self.claim(
            count > 0 && outcome.unexpected.is_empty(),
            &format!("{count} transfers acknowledged in 3 s{}", first_error(&outcome.unexpected)),
        );
        self.audit_all(outcome.acknowledged).await
    }

    /// Checks money and ledger through every node: nothing acknowledged so far may be missing.
    pub async fn audit_all(&mut self, acknowledged: BTreeSet<i64>) -> Result<(), Trouble> {
        self.acknowledged.extend(acknowledged);
        for i in 0..self.cluster.nodes.len() {
            let client = self.cluster.node(i)?.connect().await?;
            let sum = "SELECT count(*) AS accounts, sum(balance) AS total FROM accounts";
            self.show(&client, i, sum).await?;
            let audit = tokio::time::timeout(
                STATEMENT_LIMIT,
                load::audit(&client, &self.acknowledged, Ledger::STRONG),
            )
            .await;
            let audit =
                audit.map_err(|_| Trouble::new(format!("no answer within {STATEMENT_LIMIT:?}")))??;
            let text = format!("n{}: {}", i + 1, audit.verdict(self.acknowledged.len()));
            self.claim(audit.is_right(), &text);
        }
        Ok(())
    }

    /// Counts the claims; true if all held.
    pub fn summary(&self) -> bool {
        let failed: Vec<&String> =
            self.claims.iter().filter(|(held, _)| !held).map(|(_, text)| text).collect();
        say!("");
        let (held, all) = (self.claims.len() - failed.len(), self.claims.len());
        self.screen.claim(failed.is_empty(), &format!("{held} of {all} claims held"));
        for text in &failed {
            say!("    did not hold: {text}");
        }
        failed.is_empty()
    }

    /// Hands the cluster over to the audience.
    pub fn invite(&self) {
        say!("\n  The cluster is yours:");
        for node in &self.cluster.nodes {
            say!(
                "    psql -h 127.0.0.1 -p {} -U amphora      http://127.0.0.1:{}/status",
                node.pg,
                node.http
            );
        }
        say!("  Ctrl-C stops it.");
    }

    /// Stops the nodes. Their data and logs stay if something did not hold, or if they were asked for.
    pub async fn end(mut self, held: bool) {
        self.cluster.stop().await;
        if self.temporary && held {
            let _ = std::fs::remove_dir_all(&self.dir);
        } else {
            say!("  data and logs: {}", self.dir.display());
        }
    }
}

/// The first of some errors, to be put behind a claim.
pub fn first_error(errors: &[String]) -> String {
    match errors {
        [] => String::new(),
        [first, ..] => format!("; {} failed, the first with {first}", errors.len()),
    }
}

/// Runs a statement as psql does.
pub async fn ask(client: &Client, sql: &str) -> Result<Vec<SimpleQueryMessage>, Trouble> {
    match tokio::time::timeout(STATEMENT_LIMIT, client.simple_query(sql)).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Trouble::new(format!("no answer within {STATEMENT_LIMIT:?} to: {sql}"))),
    }
}

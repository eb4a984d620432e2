//! Load on a cluster that runs: what a speaker lets run beside while links are cut and nodes are killed.
//!
//! Each node has two clients: one transfers money between accounts of a strong table, one counts page views in a
//! leaderless one. They go at a walking pace; what matters is who goes on and who is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::Trouble;
use super::cluster::connect_to;
use super::load::{ACCOUNTS, OPENING};
use crate::cli::{HostPort, say};
use crate::process::StopSignals;

/// Between two reports.
const REPORT: Duration = Duration::from_secs(2);
/// Between two statements of a client.
const PACE: Duration = Duration::from_millis(10);
/// A statement takes no longer, or its fate is unknown.
const LIMIT: Duration = Duration::from_secs(8);
/// How long the cluster may take to have its tables.
const SETUP_LIMIT: Duration = Duration::from_secs(60);

/// What a client does, again and again.
#[derive(Clone, Copy, Debug)]
enum Work {
    Transfers,
    Views,
}

/// What a client has done.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: AtomicU64,
    reported: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Tally {
    /// Since the last report: how much a second, or why nothing.
    fn report(&self) -> String {
        let all = self.acknowledged.load(Ordering::Relaxed);
        let new = all - self.reported.swap(all, Ordering::Relaxed);
        match self.trouble.lock().take() {
            Some(trouble) if new == 0 => trouble,
            _ => format!("{}/s", new / REPORT.as_secs()),
        }
    }
}

struct Node {
    address: HostPort,
    transfers: Arc<Tally>,
    views: Arc<Tally>,
}

/// Makes the tables, and works until it is told to stop.
pub async fn put_load(addresses: Vec<HostPort>, mut signals: StopSignals) -> Result<(), Trouble> {
    set_up(&addresses).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    let mut nodes = Vec::new();
    for address in addresses {
        let node = Node { address, transfers: Arc::default(), views: Arc::default() };
        for (work, tally) in [(Work::Transfers, &node.transfers), (Work::Views, &node.views)] {
            clients.spawn(go_on(node.address.clone(), work, Arc::clone(tally), Arc::clone(&stop)));
        }
        nodes.push(node);
    }
    let mut tick = tokio::time::interval(REPORT);
    tick.tick().await;
    loop {
        tokio::select! {
            _ = tick.tick() => report(&nodes),
            _ = signals.next() => break,
        }
    }
    stop.store(true, Ordering::Release);
    while clients.join_next().await.is_some() {}
    let sum = |of: fn(&Node) -> &Tally| -> u64 {
        nodes.iter().map(|node| of(node).acknowledged.load(Ordering::Relaxed)).sum()
    };
    say!("acknowledged: {} transfers, {} views", sum(|n| &n.transfers), sum(|n| &n.views));
    Ok(())
}

fn report(nodes: &[Node]) {
    let of = |node: &Node| {
        format!(
            "{}  strong {:<8} leaderless {:<8}",
            node.address,
            node.transfers.report(),
            node.views.report()
        )
    };
    say!("{}", nodes.iter().map(of).collect::<Vec<_>>().join("  "));
}

/// The tables, through the first node that answers.
async fn set_up(addresses: &[HostPort]) -> Result<(), Trouble> {
    let values: Vec<String> = (1..=ACCOUNTS).map(|id| format!("({id}, {OPENING})")).collect();
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS accounts (id int PRIMARY KEY, balance bigint NOT NULL);
         CREATE TABLE IF NOT EXISTS page_views (page text PRIMARY KEY, n crdt_counter) WITH (replication = 'leaderless');
         INSERT INTO accounts VALUES {} ON CONFLICT DO NOTHING;
         INSERT INTO page_views VALUES ('home', 0) ON CONFLICT DO NOTHING",
        values.join(", ")
    );
    let start = Instant::now();
    loop {
        let mut last = Trouble::new("no node was named");
        for address in addresses {
            let done = async {
                let client = connect_to(&address.host, address.port, LIMIT).await?;
                Ok::<_, Trouble>(client.batch_execute(&sql).await?)
            };
            match done.await {
                Ok(()) => return Ok(()),
                Err(e) => last = e,
            }
        }
        if start.elapsed() > SETUP_LIMIT {
            return Err(last);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn go_on(address: HostPort, work: Work, tally: Arc<Tally>, stop: Arc<AtomicBool>) {
    let mut connection: Option<Client> = None;
    while !stop.load(Ordering::Acquire) {
        tokio::time::sleep(PACE).await;
        let open = match connection.take().filter(|c| !c.is_closed()) {
            Some(open) => open,
            None => match connect_to(&address.host, address.port, Duration::from_secs(1)).await {
                Ok(open) => open,
                Err(_) => {
                    *tally.trouble.lock() = Some("down".to_owned());
                    continue;
                }
            },
        };
        let (sql, undo) = statement(work);
        match tokio::time::timeout(LIMIT, open.batch_execute(&sql)).await {
            Ok(Ok(())) => {
                tally.acknowledged.fetch_add(1, Ordering::Relaxed);
                connection = Some(open);
            }
            Ok(Err(e)) => {
                let code = e.as_db_error().map(|db| db.code().code().to_owned());
                *tally.trouble.lock() = Some(code.unwrap_or_else(|| "down".to_owned()));
                connection = (!undo || open.batch_execute("ROLLBACK").await.is_ok()).then_some(open);
            }
            Err(_) => *tally.trouble.lock() = Some("silent".to_owned()),
        }
    }
}

/// The next statement, and whether a failure leaves a transaction open.
fn statement(work: Work) -> (String, bool) {
    match work {
        Work::Views => ("UPDATE page_views SET n = n + 1 WHERE page = 'home'".to_owned(), false),
        Work::Transfers => {
            let source = rand::random_range(1..ACCOUNTS);
            let target = rand::random_range(source + 1..=ACCOUNTS);
            let amount = rand::random_range(-20..=20);
            let sql = format!(
                "BEGIN; UPDATE accounts SET balance = balance - ({amount}) WHERE id = {source};
                 UPDATE accounts SET balance = balance + ({amount}) WHERE id = {target}; COMMIT"
            );
            (sql, true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_how_much_or_why_nothing() {
        let tally = Tally::default();
        tally.acknowledged.store(20, Ordering::Relaxed);
        assert_eq!(tally.report(), "10/s");
        *tally.trouble.lock() = Some("57P03".to_owned());
        assert_eq!(tally.report(), "57P03");
        assert_eq!(tally.report(), "0/s");
    }
}

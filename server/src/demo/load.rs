//! Clients that transfer money while nodes fall, and remember what was acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::Rng;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::Trouble;
use super::cluster::connect;

/// Accounts in the table `accounts`.
pub const ACCOUNTS: i32 = 8;
/// What each has at first.
pub const OPENING: i64 = 1000;
/// A bank's two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Who has how much
    pub accounts: &'static str,
    /// What was transferred
    pub transfers: &'static str,
}

impl Ledger {
    /// The bank that is right.
    pub const STRONG: Ledger = Ledger { accounts: "accounts", transfers: "transfers" };
    /// The bank that shows why.
    pub const LEADERLESS: Ledger =
        Ledger { accounts: "leaderless_accounts", transfers: "leaderless_transfers" };
}

/// Clients, spread over the nodes.
const CLIENTS: usize = 6;
/// A transfer that takes longer is given up; its fate is then unknown.
const TRANSFER_LIMIT: Duration = Duration::from_secs(8);

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    next: AtomicI64,
    acknowledged: Mutex<BTreeSet<i64>>,
    times: Mutex<Vec<Instant>>,
    unknown: AtomicI64,
    refused: Mutex<Vec<String>>,
}

/// What the clients remember.
pub struct Outcome {
    /// Transfers the cluster acknowledged
    pub acknowledged: BTreeSet<i64>,
    /// When it did
    times: Vec<Instant>,
    /// Transfers whose fate the client never learned
    pub unknown: i64,
    /// Errors that no client should see
    pub unexpected: Vec<String>,
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts clients on the nodes with these SQL ports. Transfers get ids from `first` on.
    pub fn start(ports: Vec<u16>, first: i64, ledger: Ledger) -> Load {
        let shared = Arc::new(Shared { next: AtomicI64::new(first), ..Shared::default() });
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(transfer_money(ports.clone(), client, Arc::clone(&shared), ledger));
        }
        Load { shared, clients }
    }

    /// Lets them finish what they are doing.
    pub async fn stop(mut self) -> Outcome {
        self.shared.stop.store(true, Ordering::Release);
        while self.clients.join_next().await.is_some() {}
        let mut times = std::mem::take(&mut *self.shared.times.lock());
        times.sort();
        Outcome {
            acknowledged: std::mem::take(&mut *self.shared.acknowledged.lock()),
            times,
            unknown: self.shared.unknown.load(Ordering::Relaxed),
            unexpected: std::mem::take(&mut *self.shared.refused.lock()),
        }
    }
}

impl Outcome {
    /// The longest time without an acknowledgement that ends after `moment`: from the last before it.
    pub fn gap_around(&self, moment: Instant) -> Option<Duration> {
        let after = self.times.partition_point(|t| *t <= moment);
        let from = after.saturating_sub(1);
        // What was on its way when the node fell may still have been acknowledged, so all later gaps count.
        self.times
            .get(from..)?
            .windows(2)
            .map(|w| match w {
                [a, b] => b.duration_since(*a),
                _ => Duration::ZERO,
            })
            .max()
    }
}

async fn transfer_money(ports: Vec<u16>, client: usize, shared: Arc<Shared>, ledger: Ledger) {
    let mut at = client;
    let mut connection: Option<Client> = None;
    while !shared.stop.load(Ordering::Acquire) {
        let open = match connection.take().filter(|c| !c.is_closed()) {
            Some(open) => open,
            None => {
                let Some(port) = ports.get(at % ports.len().max(1)) else { return };
                match connect(*port, Duration::from_millis(500)).await {
                    Ok(open) => open,
                    Err(_) => {
                        at += 1;
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                }
            }
        };
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        match tokio::time::timeout(TRANSFER_LIMIT, transfer(&open, id, ledger)).await {
            Ok(Ok(())) => {
                shared.acknowledged.lock().insert(id);
                shared.times.lock().push(Instant::now());
                connection = Some(open);
            }
            Ok(Err(e)) => match e.as_db_error().map(|db| db.code().code().to_owned()).as_deref() {
                // Refused for now: another id, and another try.
                Some("40001" | "40P01") => {
                    let rolled_back = open.batch_execute("ROLLBACK").await.is_ok();
                    connection = rolled_back.then_some(open);
                }
                Some("57P03") => at += 1,
                Some("08007" | "57P01") | None => {
                    shared.unknown.fetch_add(1, Ordering::Relaxed);
                    at += 1;
                }
                Some(_) => {
                    shared.refused.lock().push(super::screen::error_text(&e));
                    at += 1;
                }
            },
            Err(_) => {
                shared.unknown.fetch_add(1, Ordering::Relaxed);
                at += 1;
            }
        }
    }
}

/// One transaction between two accounts chosen at random.
async fn transfer(client: &Client, id: i64, ledger: Ledger) -> Result<(), tokio_postgres::Error> {
    let (source, target, amount) = {
        let mut rng = rand::rng();
        let source = rng.random_range(1..=ACCOUNTS);
        let target = (source + rng.random_range(1..ACCOUNTS) - 1) % ACCOUNTS + 1;
        (source, target, rng.random_range(1..=20))
    };
    for sql in statements(ledger, id, source, target, amount) {
        client.batch_execute(&sql).await?;
    }
    Ok(())
}

/// A transfer's statements: two accounts, and a line in the ledger.
pub fn statements(ledger: Ledger, id: i64, source: i32, target: i32, amount: i64) -> [String; 5] {
    let Ledger { accounts, transfers } = ledger;
    let update = |sign: char, account: i32| {
        format!("UPDATE {accounts} SET balance = balance {sign} {amount} WHERE id = {account}")
    };
    let (take, give) = (update('-', source), update('+', target));
    // Always in the order of the accounts, so that two transfers never wait for each other.
    let (first, second) = if source < target { (take, give) } else { (give, take) };
    let line = format!("INSERT INTO {transfers} VALUES ({id}, {source}, {target}, {amount})");
    ["BEGIN".to_owned(), first, second, line, "COMMIT".to_owned()]
}

/// What a node holds, compared with what was acknowledged.
pub struct Audit {
    /// Sum of all balances
    pub total: i64,
    /// Acknowledged transfers that are not in the ledger
    pub missing: usize,
    /// Accounts whose balance is not what the ledger says
    pub wrong: usize,
    /// By how much, all differences added up
    pub off: i64,
    /// Lines in the ledger
    pub transfers: usize,
}

impl Audit {
    /// Nothing is missing, and every account is what the ledger says.
    pub fn is_right(&self) -> bool {
        self.total == i64::from(ACCOUNTS) * OPENING && self.missing == 0 && self.wrong == 0
    }

    /// In words.
    pub fn verdict(&self, acknowledged: usize) -> String {
        if self.is_right() {
            return format!(
                "the total is {}; the ledger has all {acknowledged} acknowledged transfers, and every account \
                 agrees with it",
                self.total
            );
        }
        format!(
            "the total is {} instead of {}; of {acknowledged} acknowledged transfers {} are missing from the \
             ledger of {}; {} accounts disagree with it",
            self.total,
            i64::from(ACCOUNTS) * OPENING,
            self.missing,
            self.transfers,
            self.wrong
        )
    }
}

/// Reads accounts and ledger through one node, when nobody writes.
pub async fn audit(client: &Client, acknowledged: &BTreeSet<i64>, ledger: Ledger) -> Result<Audit, Trouble> {
    let Ledger { accounts, transfers } = ledger;
    let accounts = client.query(&format!("SELECT id, balance FROM {accounts}"), &[]).await?;
    let ledger = client.query(&format!("SELECT id, source, target, amount FROM {transfers}"), &[]).await?;
    let mut expected = std::collections::BTreeMap::<i32, i64>::new();
    let mut ids = BTreeSet::new();
    for line in &ledger {
        let (source, target, amount): (i32, i32, i64) =
            (line.try_get(1)?, line.try_get(2)?, line.try_get(3)?);
        ids.insert(line.try_get::<_, i64>(0)?);
        *expected.entry(source).or_default() -= amount;
        *expected.entry(target).or_default() += amount;
    }
    let (mut total, mut wrong, mut off) = (0, 0, 0);
    for account in &accounts {
        let (id, balance): (i32, i64) = (account.try_get(0)?, account.try_get(1)?);
        total += balance;
        let difference = balance - OPENING - expected.get(&id).copied().unwrap_or(0);
        wrong += usize::from(difference != 0);
        off += difference.abs();
    }
    let missing = acknowledged.difference(&ids).count();
    Ok(Audit { total, missing, wrong, off, transfers: ids.len() })
}

//! Clients that go on while nodes fall: they move to the next node, and remember what was acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Config, NoTls};

/// A connection as superuser to a PostgreSQL address that answers within `limit`.
pub async fn connect(address: &str, limit: Duration) -> Result<Client, tokio_postgres::Error> {
    let (host, port) = address.rsplit_once(':').expect("host:port");
    let mut config = Config::new();
    config.host(host).port(port.parse().expect("a port")).user("amphora").dbname("amphora");
    config.connect_timeout(limit);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The same, if it is there at once: within half a second, and ready within another.
pub async fn connect_quickly(address: &str) -> Option<Client> {
    let connect = connect(address, Duration::from_millis(500));
    tokio::time::timeout(Duration::from_secs(1), connect).await.ok()?.ok()
}

/// A connection that moves to another node when it breaks.
pub struct Roaming {
    addresses: Vec<String>,
    at: usize,
    client: Option<Client>,
}

impl Roaming {
    /// Starts at one of these PostgreSQL addresses.
    pub fn new(addresses: Vec<String>, start: usize) -> Roaming {
        let at = start % addresses.len();
        Roaming { addresses, at, client: None }
    }

    /// The connection, made if need be; moves on from nodes that do not take one.
    pub async fn client(&mut self) -> &mut Client {
        loop {
            if self.client.as_ref().is_some_and(|c| !c.is_closed()) {
                break;
            }
            self.client = connect_quickly(&self.addresses[self.at]).await;
            if self.client.is_none() {
                self.move_on();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        self.client.as_mut().expect("just made")
    }

    /// Gives up this connection and goes to the next node.
    pub fn move_on(&mut self) {
        self.client = None;
        self.at = (self.at + 1) % self.addresses.len();
    }
}

/// Whether a failed write may have taken place all the same.
pub fn is_indeterminate(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        // 08007: the server itself says that it does not know. 57P01: it went away meanwhile.
        Some(db) => matches!(db.code().code(), "08007" | "57P01" | "XX000"),
        None => true,
    }
}

/// When acknowledgements came, to find the longest gap between two.
#[derive(Clone, Default)]
pub struct Acknowledgements {
    times: Arc<std::sync::Mutex<Vec<Instant>>>,
}

impl Acknowledgements {
    /// One came now.
    pub fn note(&self) {
        self.times.lock().expect("not poisoned").push(Instant::now());
    }

    /// How many came.
    pub fn count(&self) -> usize {
        self.times.lock().expect("not poisoned").len()
    }

    /// How many came since `from`.
    pub fn count_since(&self, from: Instant) -> usize {
        self.times.lock().expect("not poisoned").iter().filter(|t| **t >= from).count()
    }

    /// The longest time around `moment` in which none came: from the last before it to the first after.
    pub fn gap_around(&self, moment: Instant) -> Option<Duration> {
        let mut times = self.times.lock().expect("not poisoned").clone();
        times.sort();
        let after = times.iter().position(|t| *t > moment)?;
        let mut longest = times[after].duration_since(if after > 0 { times[after - 1] } else { moment });
        // The first acknowledgement after the fall may have been on its way already.
        for pair in times[after..].windows(2) {
            longest = longest.max(pair[1].duration_since(pair[0]));
        }
        Some(longest)
    }
}

/// A flag that tells writers to stop.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Stop now.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// True once stopped.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

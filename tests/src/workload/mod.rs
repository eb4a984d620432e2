//! What clients do while nodes suffer, and what must be true of it afterwards.
//!
//! ```text
//!   workers ──► step, step, step …  each on its own connection, which moves on when it breaks
//!      │             │ noted: what was asked, when, what came back, or that nothing did
//!      └─ until the nemesis is done ─► judge: history + what the nodes hold now ──► what is broken
//! ```
//!
//! An answer is one of three: done, refused (then it must not have happened), or unknown (it may have, later too). An
//! error that the server itself reports is a refusal, unless it says that it does not know (08007).

mod append;
mod bank;
mod long_fork;
mod monotonic;
mod queue;
mod register;
mod unique;

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::{Client, Error};

pub use append::Append;
pub use bank::Bank;
pub use long_fork::LongFork;
pub use monotonic::Monotonic;
pub use queue::Queue;
pub use register::Register;
pub use unique::Unique;

use crate::load::{Stop, connect_quickly, is_indeterminate};

/// How long an answer is waited for before its client gives up.
const PATIENCE: Duration = Duration::from_secs(8);

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was done
    Done(T),
    /// It was not, and will not be
    Refused(String),
    /// Nobody knows
    Unknown,
}

/// What a workload found when all was over.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How many operations were acknowledged
    pub done: usize,
    /// In a few words, what happened
    pub summary: String,
    /// What must not be
    pub broken: Vec<String>,
}

/// Something that clients do.
#[async_trait]
pub trait Workload: Send + Sync {
    /// Its name, also that of its history's file
    fn name(&self) -> String;
    /// How many clients do it
    fn workers(&self) -> usize;
    /// Makes its tables
    async fn prepare(&self, client: &Client) -> Result<(), Error>;
    /// Does one thing and notes it
    async fn step(&self, session: &mut Session);
    /// Looks at what is there when all nodes are well; one client a node
    async fn judge(&self, clients: &[Client]) -> Result<Verdict, Error>;
    /// All that was noted, a line each
    fn history(&self) -> String;
}

/// All of them, in the version for short runs.
pub fn all() -> Vec<Arc<dyn Workload>> {
    use crate::list_append::Level;
    vec![
        Arc::new(Register::default()),
        Arc::new(Bank::default()),
        Arc::new(Append::new(Level::ReadCommitted)),
        Arc::new(Append::new(Level::RepeatableRead)),
        Arc::new(Append::new(Level::Serializable)),
        Arc::new(Unique::default()),
        Arc::new(Queue::default()),
        Arc::new(LongFork::default()),
        Arc::new(Monotonic::default()),
    ]
}

/// What was noted, by all workers.
pub struct Notes<T>(Mutex<Vec<T>>);

impl<T> Default for Notes<T> {
    fn default() -> Notes<T> {
        Notes(Mutex::new(Vec::new()))
    }
}

impl<T: Clone + Debug> Notes<T> {
    /// One more.
    pub fn note(&self, what: T) {
        self.0.lock().expect("not poisoned").push(what);
    }

    /// All of them so far.
    pub fn all(&self) -> Vec<T> {
        self.0.lock().expect("not poisoned").clone()
    }

    /// A line each.
    pub fn lines(&self) -> String {
        self.all().iter().map(|entry| format!("{entry:?}\n")).collect()
    }
}

/// A worker's connection, luck and clock.
pub struct Session {
    addresses: Vec<String>,
    at: usize,
    client: Option<Arc<Client>>,
    start: Instant,
    serial: i64,
    /// Which worker of its workload this is, from 1
    pub number: i64,
    /// Its luck
    pub rng: StdRng,
}

/// Whether the word that makes a transaction last has been sent.
#[derive(Clone, Default)]
pub struct Sent(Arc<AtomicBool>);

impl Sent {
    /// It is about to be.
    pub fn now(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Session {
    fn new(addresses: Vec<String>, number: i64, seed: u64, start: Instant) -> Session {
        let rng = StdRng::seed_from_u64(seed);
        let at = number as usize % addresses.len();
        Session { addresses, at, client: None, start, serial: 0, number, rng }
    }

    /// A number that no other session and no earlier call has returned.
    pub fn unique(&mut self) -> i64 {
        self.serial += 1;
        self.number * 1_000_000 + self.serial
    }

    /// The time since the run began.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The connection, made if need be; `None` if no node takes one now.
    async fn client(&mut self) -> Option<Arc<Client>> {
        if self.client.as_ref().is_none_or(|client| client.is_closed()) {
            let Some(client) = connect_quickly(&self.addresses[self.at]).await else {
                self.move_on();
                return None;
            };
            self.client = Some(Arc::new(client));
        }
        self.client.clone()
    }

    fn move_on(&mut self) {
        self.client = None;
        self.at = (self.at + 1) % self.addresses.len();
    }

    /// Tries something on this session's connection. What may have lasted although it failed says [`Sent::now`] before
    /// the statement that makes it last.
    pub async fn attempt<T, F>(&mut self, what: impl FnOnce(Arc<Client>, Sent) -> F) -> Outcome<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let Some(client) = self.client().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            return Outcome::Refused("no connection".to_owned());
        };
        let sent = Sent::default();
        let result = tokio::time::timeout(PATIENCE, what(client.clone(), sent.clone())).await;
        let sent = sent.0.load(Ordering::Acquire);
        let outcome = match &result {
            Ok(Ok(_)) => None,
            Ok(Err(e)) if !sent || !is_indeterminate(e) => Some(Outcome::Refused(e.to_string())),
            Err(_) if !sent => Some(Outcome::Refused("no answer in time".to_owned())),
            _ => Some(Outcome::Unknown),
        };
        match (outcome, result) {
            (None, Ok(Ok(value))) => {
                if self.rng.random_bool(0.03) {
                    self.move_on();
                }
                Outcome::Done(value)
            }
            (outcome, result) => {
                let pause = self.rng.random_range(2..30);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                // The connection is as good as before if the server itself has answered.
                let good = matches!(&result, Ok(Err(e)) if e.as_db_error().is_some() && !is_indeterminate(e));
                let rollback = async { client.batch_execute("ROLLBACK").await };
                if !good || !matches!(tokio::time::timeout(PATIENCE, rollback).await, Ok(Ok(()))) {
                    self.move_on();
                }
                outcome.unwrap_or(Outcome::Unknown)
            }
        }
    }
}

/// A worker: one step after another until it is told to stop.
pub async fn work(
    workload: Arc<dyn Workload>,
    addresses: Vec<String>,
    number: i64,
    seed: u64,
    start: Instant,
    stop: Stop,
) {
    let mut session = Session::new(addresses, number, seed, start);
    while !stop.is_stopped() {
        workload.step(&mut session).await;
        let pause = session.rng.random_range(1..15);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

//! What a connection holds: its settings, its transaction, its prepared statements and portals.
//!
//! ```text
//!   simple_query ─► parse ─► for each statement ─┐
//!                                                ├─► plan ─► begin_statement ─► run ─► (commit) ─► answer
//!   parse, bind, describe, execute … sync ───────┘     ▲                         │
//!                                                      │ catalog moved           │ a row moved
//!                                                      └─────────────────────────┴── (again)
//! ```
//!
//! The wire calls one method a message and sends what goes to its [`Output`]. After an error it calls
//! [`Session::error`], and in the extended protocol skips messages until Sync.
//!
//! Transactions are PostgreSQL's: a statement alone is a transaction; the statements of one simple query
//! are one, and so are the messages between two Syncs; BEGIN opens a block that only COMMIT or ROLLBACK
//! ends, and in which an error makes everything else fail with 25P02.

mod advisory;
mod alter;
mod analyze;
mod backends;
mod command;
mod constraint;
mod copy;
mod cursor;
mod ddl;
mod durability;
mod extended;
mod hook;
mod listing;
mod object;
mod object_names;
mod output;
mod point;
mod prepared;
mod query;
mod reads;
mod replication_error;
mod restore;
mod role;
mod sequence;
mod settings;
mod signal;
mod statement;
mod transaction;
mod truncate;
mod user_type;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amphora_replication::{EarlyCommit, Engine};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

pub use backends::{NodeSessions, backends};
pub use listing::{ListedCursor, ListedStatement};
pub use output::{CancelHandle, Notice, Output, TransactionStatus};
pub(crate) use settings::max_staleness;
pub use settings::{SERVER_VERSION, Settings};

use crate::error::{Result, SqlError};
use crate::frontend;
use cursor::Cursor;
use hook::EvalCache;
use prepared::{Portal, PreparedStatement, TextCache};
use sequence::SessionSequences;
use statement::Place;
use transaction::{Block, TransactionBlock};

/// Prepared statements that a session may hold at a time.
const MAX_STATEMENTS: usize = 10_000;

/// Portals that a session may hold at a time.
const MAX_PORTALS: usize = 1_000;

/// Who connects, to what, and with which settings.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The authenticated user
    pub user: String,
    /// The database
    pub database: String,
    /// What `pg_backend_pid()` gives, and cancel requests name
    pub backend_pid: i32,
    /// Settings of the startup packet
    pub settings: Vec<(String, String)>,
}

/// What does not change while a session lives, shared with the functions it runs.
pub(crate) struct SessionShared {
    pub(crate) engine: Arc<dyn Engine>,
    /// Tells the sessions of this process apart
    pub(crate) number: u64,
    pub(crate) user: Arc<str>,
    pub(crate) database: Arc<str>,
    pub(crate) backend_pid: i32,
    pub(crate) settings: Mutex<Settings>,
    pub(crate) cancel: CancelHandle,
    pub(crate) started: i64,
    pub(crate) sequences: SessionSequences,
    pub(crate) activity: Mutex<backends::Activity>,
    pub(crate) advisory: advisory::AdvisoryLocks,
    pub(crate) listing: Mutex<listing::Listing>,
    pub(crate) told: signal::Told,
}

impl Drop for Session {
    fn drop(&mut self) {
        backends::leave(&self.shared);
    }
}

/// One client's session.
pub struct Session {
    shared: Arc<SessionShared>,
    tx: TransactionBlock,
    statements: FxHashMap<String, Arc<PreparedStatement>>,
    portals: FxHashMap<String, Portal>,
    cursors: HashMap<String, Cursor>,
    texts: TextCache,
    eval: EvalCache,
    sync_follows: bool,
    /// The last commit, until it is durable
    early: Option<EarlyCommit>,
    /// What is to be told at the end of the message
    notices: Vec<Notice>,
}

impl Session {
    /// A session on this node. 22023, 42704 for a bad setting in the startup packet.
    pub fn new(engine: Arc<dyn Engine>, options: SessionOptions) -> Result<Session> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let role = crate::catalog::find_role(&engine.catalog(), &options.user);
        let superuser = role.is_some_and(|role| role.superuser);
        let settings = Settings::new(&options.user, superuser, &options.settings)?;
        let shared = Arc::new(SessionShared {
            engine,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            user: options.user.into(),
            database: options.database.into(),
            backend_pid: options.backend_pid,
            settings: Mutex::new(settings),
            cancel: CancelHandle::default(),
            started: crate::types::current_timestamp(),
            sequences: SessionSequences::default(),
            activity: Mutex::default(),
            advisory: advisory::AdvisoryLocks::default(),
            listing: Mutex::default(),
            told: signal::Told::default(),
        });
        backends::enter(&shared);
        Ok(Session {
            shared,
            tx: TransactionBlock::default(),
            statements: FxHashMap::default(),
            portals: FxHashMap::default(),
            cursors: HashMap::new(),
            texts: TextCache::default(),
            eval: EvalCache::default(),
            sync_follows: false,
            early: None,
            notices: Vec::new(),
        })
    }

    /// The settings a client is told when it connects: name, value.
    pub fn parameter_status(&self) -> Vec<(&'static str, String)> {
        self.shared.settings.lock().reported()
    }

    /// A setting's value, as SHOW prints it.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.shared.settings.lock().get(name)
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.shared.user
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.shared.database
    }

    /// What ReadyForQuery says.
    pub fn status(&self) -> TransactionStatus {
        match self.tx.block {
            Block::Idle | Block::Implicit => TransactionStatus::Idle,
            Block::Explicit => TransactionStatus::InTransaction,
            Block::Failed => TransactionStatus::Failed,
        }
    }

    /// How long the client may now be silent before the connection is to be closed, and with which error:
    /// 25P03 in a transaction block, 57P05 outside. `None` is for ever.
    pub fn idle_limit(&self) -> Option<(Duration, SqlError)> {
        let in_block = self.status() != TransactionStatus::Idle;
        let limit = {
            let settings = self.shared.settings.lock();
            let effective = settings.effective();
            if in_block { effective.idle_in_transaction_timeout } else { effective.idle_timeout }
        };
        if limit.is_zero() {
            return None;
        }
        let (sqlstate, what) =
            if in_block { ("25P03", "idle-in-transaction") } else { ("57P05", "idle-session") };
        Some((limit, SqlError::new(sqlstate, format!("terminating connection due to {what} timeout"))))
    }

    /// Stops this session's running statement; may be kept and used by any task.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.shared.cancel.clone()
    }

    /// Runs all statements of a string. They are one transaction, unless they say otherwise. After an
    /// error the transaction is already aborted.
    pub async fn simple_query(&mut self, sql: &str, out: &mut dyn Output) -> Result<()> {
        self.shared.cancel.clear();
        self.statements.remove("");
        self.portals.remove("");
        let result = self.run_text(sql, out).await;
        if result.is_err() {
            self.error().await;
        }
        self.report_settings(out);
        self.rest();
        result
    }

    /// The session waits for its client from now on.
    fn rest(&self) {
        let state = match self.tx.block {
            Block::Idle | Block::Implicit => backends::State::Idle,
            Block::Explicit => backends::State::InTransaction,
            Block::Failed => backends::State::Failed,
        };
        self.shared.activity.lock().rest(state);
    }

    async fn run_text(&mut self, sql: &str, out: &mut dyn Output) -> Result<()> {
        let statements = match self.texts.get(sql) {
            Some(statements) => statements,
            None => {
                let parsed = frontend::parse(sql)?;
                let statements: Arc<[_]> = parsed
                    .into_iter()
                    .map(|p| Arc::new(PreparedStatement::new(Some(p), Vec::new())))
                    .collect();
                self.texts.put(sql, statements.clone());
                statements
            }
        };
        let Some(last) = statements.len().checked_sub(1) else {
            out.empty_query();
            return Ok(());
        };
        for (position, statement) in statements.iter().enumerate() {
            let place = match (last, position == last) {
                (0, _) => Place::Alone,
                (_, true) => Place::Last,
                _ => Place::Middle,
            };
            self.run_simple(statement, place, out).await?;
        }
        Ok(())
    }

    /// The statement in hand has failed. The wire calls this after it has sent an error: a block becomes
    /// failed, anything less is rolled back. Calling it twice does no harm.
    pub async fn error(&mut self) {
        self.abort().await;
    }

    /// Settings that have changed go to the client, and what else it is to be told.
    fn report_settings(&mut self, out: &mut dyn Output) {
        self.notices.drain(..).for_each(|notice| out.notice(notice));
        self.shared.told.drain(|notice| out.notice(notice));
        let changes = self.shared.settings.lock().take_unreported();
        for (name, value) in changes {
            out.parameter_status(name, &value);
        }
    }
}

/// A session's work must be able to move between threads.
#[cfg(test)]
#[allow(dead_code)]
fn futures_are_send(session: &mut Session, out: &mut dyn Output) {
    fn is_send(_: impl Send) {}
    is_send(session.simple_query("", out));
    is_send(session.parse("", "", &[]));
    is_send(session.execute("", 0, out));
    is_send(session.sync(out));
    is_send(session.error());
    is_send(session.describe_statement(""));
}

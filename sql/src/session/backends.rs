//! The sessions of this node as others see them: `pg_stat_activity`, `pg_cancel_backend`, `pg_locks`.
//!
//! A session enters when it begins and is forgotten when it ends. What it does it notes in its own [`Activity`];
//! nobody else takes that lock but those who look.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};

use amphora_replication::Engine;
use parking_lot::Mutex;

use super::SessionShared;
use super::advisory::HeldLock;
use super::prepared::PreparedStatement;

/// What a session is doing.
#[derive(Default)]
pub(crate) struct Activity {
    state: State,
    statement: Option<Arc<PreparedStatement>>,
    /// Microseconds since 2000-01-01 UTC, as all times here
    query_start: i64,
    transaction_start: i64,
    state_change: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Idle,
    Active,
    InTransaction,
    Failed,
}

impl Activity {
    /// A statement begins.
    pub(super) fn begin(&mut self, statement: &Arc<PreparedStatement>, transaction_start: i64) {
        let now = crate::types::current_timestamp();
        self.state = State::Active;
        self.statement = Some(statement.clone());
        self.query_start = now;
        self.transaction_start = transaction_start;
        self.state_change = now;
    }

    /// The session waits for its client.
    pub(super) fn rest(&mut self, state: State) {
        if self.state != state {
            self.state = state;
            self.state_change = crate::types::current_timestamp();
        }
    }
}

/// A session, as a row of `pg_stat_activity`.
pub struct Backend {
    /// Process id, on this node
    pub pid: i32,
    /// Its user
    pub user: String,
    /// Its database
    pub database: String,
    /// `application_name`
    pub application: String,
    /// `active`, `idle`, `idle in transaction`, `idle in transaction (aborted)`
    pub state: &'static str,
    /// The statement it runs or ran last
    pub query: Option<String>,
    /// When the session, the transaction, the statement and the state began
    pub started: i64,
    /// See `started`
    pub transaction_start: Option<i64>,
    /// See `started`
    pub query_start: Option<i64>,
    /// See `started`
    pub state_change: Option<i64>,
    /// The advisory locks it holds
    pub locks: Vec<HeldLock>,
}

/// Sessions by node and process id.
type Sessions = HashMap<(usize, i32), Weak<SessionShared>>;

static SESSIONS: LazyLock<Mutex<Sessions>> = LazyLock::new(Mutex::default);

/// What tells the nodes of one process apart.
fn address(engine: &dyn Engine) -> usize {
    std::ptr::from_ref(engine).cast::<()>().addr()
}

pub(super) fn enter(shared: &Arc<SessionShared>) {
    let key = (address(shared.engine.as_ref()), shared.backend_pid);
    SESSIONS.lock().insert(key, Arc::downgrade(shared));
}

pub(super) fn leave(shared: &SessionShared) {
    SESSIONS.lock().remove(&(address(shared.engine.as_ref()), shared.backend_pid));
}

pub(super) fn find(engine: &dyn Engine, pid: i32) -> Option<Arc<SessionShared>> {
    SESSIONS.lock().get(&(address(engine), pid)).and_then(Weak::upgrade)
}

/// The sessions of a node, by process id.
pub fn backends(engine: &dyn Engine) -> Vec<Backend> {
    let address = address(engine);
    let mut all: Vec<Arc<SessionShared>> =
        SESSIONS.lock().iter().filter(|((a, _), _)| *a == address).filter_map(|(_, s)| s.upgrade()).collect();
    all.sort_by_key(|s| s.backend_pid);
    all.iter().map(|s| backend(s)).collect()
}

fn backend(shared: &SessionShared) -> Backend {
    let application = shared.settings.lock().get("application_name").unwrap_or_default();
    let locks = shared.advisory.held();
    let activity = shared.activity.lock();
    let known = |time: i64| (time != 0).then_some(time);
    let query = activity.statement.as_ref().and_then(|s| s.parsed.as_ref()).map(|p| p.text().to_owned());
    Backend {
        pid: shared.backend_pid,
        user: shared.user.to_string(),
        database: shared.database.to_string(),
        application,
        state: match activity.state {
            State::Idle => "idle",
            State::Active => "active",
            State::InTransaction => "idle in transaction",
            State::Failed => "idle in transaction (aborted)",
        },
        query,
        started: shared.started,
        transaction_start: known(activity.transaction_start).filter(|_| activity.state != State::Idle),
        query_start: known(activity.query_start),
        state_change: known(activity.state_change),
        locks,
    }
}

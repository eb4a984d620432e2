//! The sessions of this node as others see them: `pg_stat_activity`, `pg_cancel_backend`, `pg_locks`.
//!
//! A session enters when it begins and is forgotten when it ends. What it does it notes in its own [`Activity`];
//! nobody else takes that lock but those who look.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};

use amphora_replication::Engine;
use amphora_replication::sessions::{
    MAX_LISTED_LOCKS, MAX_QUERY_BYTES, SessionDirectory, SessionInfo, Signal, Signalled,
};
use parking_lot::Mutex;

use super::prepared::PreparedStatement;
use super::{CancelHandle, SessionShared};
use crate::catalog::find_role;

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

/// The sessions of a node, by process id.
pub fn backends(engine: &dyn Engine) -> Vec<SessionInfo> {
    let address = address(engine);
    let mut all: Vec<Arc<SessionShared>> =
        SESSIONS.lock().iter().filter(|((a, _), _)| *a == address).filter_map(|(_, s)| s.upgrade()).collect();
    all.sort_by_key(|s| s.backend_pid);
    let mut locks = MAX_LISTED_LOCKS;
    all.iter().map(|s| backend(s, &mut locks)).collect()
}

fn backend(shared: &SessionShared, locks_left: &mut usize) -> SessionInfo {
    let application = shared.settings.lock().get("application_name").unwrap_or_default();
    let mut locks = shared.advisory.held();
    locks.truncate(*locks_left);
    *locks_left -= locks.len();
    let activity = shared.activity.lock();
    let known = |time: i64| (time != 0).then_some(time);
    let query = activity.statement.as_ref().and_then(|s| s.parsed.as_ref()).map(|p| beginning(p.text()));
    let state = match activity.state {
        State::Idle => "idle",
        State::Active => "active",
        State::InTransaction => "idle in transaction",
        State::Failed => "idle in transaction (aborted)",
    };
    SessionInfo {
        node: shared.engine.node_id(),
        pid: shared.backend_pid,
        user: shared.user.to_string(),
        database: shared.database.to_string(),
        application,
        state: state.to_owned(),
        query,
        started: shared.started,
        transaction_start: known(activity.transaction_start).filter(|_| activity.state != State::Idle),
        query_start: known(activity.query_start),
        state_change: known(activity.state_change),
        locks,
    }
}

/// As much of a statement as is shown.
fn beginning(text: &str) -> String {
    let mut end = text.len().min(MAX_QUERY_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The sessions of one node, for the others.
pub struct NodeSessions {
    engine: Weak<dyn Engine>,
}

impl NodeSessions {
    /// Those that were opened on this engine.
    pub fn of(engine: &Arc<dyn Engine>) -> NodeSessions {
        NodeSessions { engine: Arc::downgrade(engine) }
    }
}

impl SessionDirectory for NodeSessions {
    fn list(&self) -> Vec<SessionInfo> {
        self.engine.upgrade().map_or_else(Vec::new, |engine| backends(engine.as_ref()))
    }

    fn signal(&self, pid: i32, signal: &Signal) -> Signalled {
        let Some(engine) = self.engine.upgrade() else { return Signalled::Unknown };
        let key = (address(engine.as_ref()), pid);
        let Some(session) = SESSIONS.lock().get(&key).and_then(Weak::upgrade) else {
            return Signalled::Unknown;
        };
        match signal {
            Signal::Probe => Signalled::Sent,
            Signal::Cancel(by) => told(&session, by, CancelHandle::cancel),
            Signal::Terminate(by) => told(&session, by, CancelHandle::terminate),
            // Secrets are the wire's.
            Signal::CancelRequest(_) => Signalled::Unknown,
        }
    }
}

/// Tells a session, if the role that asks may: a superuser may tell all, and everybody else its own.
fn told(session: &SessionShared, by: &str, tell: impl Fn(&CancelHandle)) -> Signalled {
    let catalog = session.engine.catalog();
    let is_superuser = |name: &str| find_role(&catalog, name).is_some_and(|role| role.superuser);
    if !is_superuser(by) {
        if is_superuser(&session.user) {
            return Signalled::NeedsSuperuser;
        }
        if *session.user != *by {
            return Signalled::NeedsRole;
        }
    }
    tell(&session.cancel);
    Signalled::Sent
}

//! Sessions of the whole cluster: who there is, and `pg_cancel_backend` and `pg_terminate_backend` of any of them.
//!
//! A process id names its node (`amphora_replication::sessions`). Whether the caller may stop a session is decided
//! where that session is, by its user: superusers may stop all, everybody else the sessions of their own role.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use amphora_replication::sessions::{SessionInfo, Signal, Signalled};
use amphora_storage::Datum;
use parking_lot::Mutex;

use super::advisory::wait_for;
use super::{Notice, SessionShared, backends};
use crate::error::{Result, SqlError};

/// How often it is looked whether a session has ended.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
/// Warnings of functions in one message, at most; more are left out.
const MAX_TOLD: usize = 1_000;

/// What functions have to tell the client beside their results: sent at the end of the message.
#[derive(Default)]
pub(crate) struct Told {
    any: AtomicBool,
    notices: Mutex<Vec<Notice>>,
}

impl Told {
    fn warn(&self, message: String) {
        let mut notices = self.notices.lock();
        if notices.len() < MAX_TOLD {
            notices.push(Notice::warning("01000", message));
            self.any.store(true, Ordering::Release);
        }
    }

    pub(super) fn drain(&self, tell: impl FnMut(Notice)) {
        if self.any.load(Ordering::Acquire) {
            self.any.store(false, Ordering::Release);
            std::mem::take(&mut *self.notices.lock()).into_iter().for_each(tell);
        }
    }
}

/// The sessions of all nodes that answer; the client is told of those that do not.
pub(super) fn sessions(shared: &SessionShared) -> Result<Vec<SessionInfo>> {
    let mut all = backends(shared.engine.as_ref());
    if shared.engine.status().nodes.len() > 1 {
        let limit = shared.settings.lock().effective().statement_timeout;
        let engine = shared.engine.clone();
        let remote = wait_for(&shared.cancel, limit, async { Ok(engine.remote_sessions().await) })?;
        all.extend(remote.sessions);
        for node in remote.silent {
            shared.told.warn(format!("node {node} does not answer: its sessions are left out"));
        }
        all.sort_by_key(|session| (session.pid, session.node));
    }
    Ok(all)
}

/// `pg_cancel_backend(pid)`, `pg_terminate_backend(pid [, timeout])`. 42501, 22003
pub(super) fn signal(shared: &SessionShared, function: &str, args: &[Datum]) -> Result<bool> {
    let number = |i: usize| args.get(i).and_then(Datum::as_i64);
    let Some(pid) = number(0).and_then(|pid| i32::try_from(pid).ok()) else { return Ok(false) };
    let patience = number(1).unwrap_or(0);
    let Ok(patience) = u64::try_from(patience).map(Duration::from_millis) else {
        return Err(SqlError::new("22003", "\"timeout\" must not be negative"));
    };
    let by = shared.user.to_string();
    let (cancels, signal) = match function {
        "pg_cancel_backend" => (true, Signal::Cancel(by)),
        _ => (false, Signal::Terminate(by)),
    };
    match tell(shared, pid, signal)? {
        Signalled::Sent => {}
        Signalled::Unknown => {
            shared.told.warn(format!("PID {pid} is not a PostgreSQL backend process"));
            return Ok(false);
        }
        Signalled::Silent(node) => {
            shared.told.warn(format!("could not send signal to process {pid}: node {node} does not answer"));
            return Ok(false);
        }
        Signalled::NeedsSuperuser => {
            let what = if cancels { "cancel superuser query" } else { "terminate superuser process" };
            return Err(SqlError::insufficient_privilege(format!("must be a superuser to {what}")));
        }
        Signalled::NeedsRole => {
            let what = if cancels { "query is being canceled" } else { "process is being terminated" };
            return Err(SqlError::insufficient_privilege(format!(
                "must be a member of the role whose {what} or member of pg_signal_backend"
            )));
        }
    }
    if patience.is_zero() {
        return Ok(true);
    }
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if tell(shared, pid, Signal::Probe)? == Signalled::Unknown {
            return Ok(true);
        }
        let pause = async {
            tokio::time::sleep(PROBE_INTERVAL).await;
            Ok(())
        };
        wait_for(&shared.cancel, Duration::ZERO, pause)?;
    }
    let waited = patience.as_millis();
    shared.told.warn(format!("backend with PID {pid} did not terminate within {waited} milliseconds"));
    Ok(false)
}

fn tell(shared: &SessionShared, pid: i32, signal: Signal) -> Result<Signalled> {
    let limit = shared.settings.lock().effective().statement_timeout;
    let engine = shared.engine.clone();
    wait_for(&shared.cancel, limit, async move { Ok(engine.signal_session(pid, signal).await) })
}

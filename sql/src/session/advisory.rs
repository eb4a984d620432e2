//! Advisory locks of a session: `pg_advisory_lock` and its kin.
//!
//! A key is locked once for the session, however often it asks; here is counted how often. Session-level locks last
//! until they are unlocked as often as they were locked, or until the session ends; transaction-level ones until the
//! transaction ends. The locks themselves are cluster-wide (`amphora_replication`'s advisory locks say what is
//! promised when a leader changes).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amphora_replication::sessions::HeldKey;
use amphora_replication::{AdvisoryLock, LockMode};
use amphora_storage::Datum;
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::{CancelHandle, SessionShared};
use crate::error::{Result, SqlError};
use crate::executor::blocking;

/// Keys that a session may hold at a time.
const MAX_KEYS: usize = 10_000;

/// A key as `pg_locks` shows it: class, object, and 1 for one 64-bit key or 2 for two 32-bit ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// The upper half, or the first key
    class: u32,
    /// The lower half, or the second key
    object: u32,
    /// 1 or 2
    kind: i16,
}

impl Key {
    /// Of a function's arguments.
    fn of(args: &[Datum]) -> Key {
        let number = |i: usize| args.get(i).and_then(Datum::as_i64).unwrap_or(0);
        match args {
            [Datum::Int4(_), Datum::Int4(_), ..] => {
                Key { class: number(0) as u32, object: number(1) as u32, kind: 2 }
            }
            _ => Key { class: (number(0) as u64 >> 32) as u32, object: number(0) as u32, kind: 1 },
        }
    }

    fn encode(self) -> Vec<u8> {
        [&self.kind.to_be_bytes()[..], &self.class.to_be_bytes(), &self.object.to_be_bytes()].concat()
    }
}

/// How often a key is locked: for the session and for the transaction, each shared and exclusive.
#[derive(Default)]
struct Counts {
    session: [u32; 2],
    transaction: [u32; 2],
}

struct Held {
    lock: Arc<dyn AdvisoryLock>,
    counts: Counts,
}

/// A session's advisory locks.
#[derive(Default)]
pub(crate) struct AdvisoryLocks {
    keys: Mutex<BTreeMap<Key, Held>>,
    /// Some lock is to be given back when the transaction ends
    in_transaction: AtomicBool,
}

/// What a function of the family does.
struct Request {
    wait: bool,
    mode: LockMode,
    for_transaction: bool,
}

impl Request {
    fn of(function: &str) -> Option<Request> {
        let rest = function.strip_prefix("pg_")?;
        let (wait, rest) = match rest.strip_prefix("try_") {
            Some(rest) => (false, rest),
            None => (true, rest),
        };
        let rest = rest.strip_prefix("advisory_")?;
        let (for_transaction, rest) = match rest.strip_prefix("xact_") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let mode = match rest {
            "lock" => LockMode::Exclusive,
            "lock_shared" => LockMode::Shared,
            _ => return None,
        };
        Some(Request { wait, mode, for_transaction })
    }
}

fn place(mode: LockMode) -> usize {
    usize::from(mode == LockMode::Exclusive)
}

impl AdvisoryLocks {
    /// Carries out a function of the family.
    pub(super) fn call(
        &self,
        function: &str,
        args: &[Datum],
        shared: &SessionShared,
        limits: (Duration, Duration),
    ) -> Result<Datum> {
        match function {
            "pg_advisory_unlock_all" => {
                self.unlock_all();
                return Ok(Datum::text(""));
            }
            "pg_advisory_unlock" => return Ok(Datum::Bool(self.unlock(Key::of(args), LockMode::Exclusive))),
            "pg_advisory_unlock_shared" => {
                return Ok(Datum::Bool(self.unlock(Key::of(args), LockMode::Shared)));
            }
            _ => {}
        }
        let request = Request::of(function).ok_or_else(|| {
            SqlError::feature_not_supported(format!("function {function}() is not supported"))
        })?;
        let granted = self.lock(Key::of(args), &request, shared, limits)?;
        Ok(if request.wait { Datum::text("") } else { Datum::Bool(granted) })
    }

    fn lock(
        &self,
        key: Key,
        request: &Request,
        shared: &SessionShared,
        (lock_timeout, statement_timeout): (Duration, Duration),
    ) -> Result<bool> {
        let SessionShared { engine, cancel, number, .. } = shared;
        let (known, count) = {
            let keys = self.keys.lock();
            (keys.get(&key).map(|held| held.lock.clone()), keys.len())
        };
        let lock = match known {
            Some(lock) => lock,
            None => {
                if count >= MAX_KEYS {
                    return Err(SqlError::new("53200", "out of shared memory")
                        .with_detail(format!("A session can hold {MAX_KEYS} advisory locks at a time.")));
                }
                let session = cancel.clone();
                let lost = Arc::new(move || session.terminate());
                engine.advisory_lock(*number, &key.encode(), lost).ok_or_else(|| {
                    SqlError::feature_not_supported("advisory locks are not supported by this node")
                })?
            }
        };
        let granted = wait_for(cancel, statement_timeout, {
            let lock = lock.clone();
            let (mode, wait) = (request.mode, request.wait);
            async move { lock.lock(mode, wait, lock_timeout).await }
        })?;
        if granted {
            let mut keys = self.keys.lock();
            let held = keys.entry(key).or_insert_with(|| Held { lock, counts: Counts::default() });
            if request.for_transaction {
                held.counts.transaction[place(request.mode)] += 1;
                self.in_transaction.store(true, Ordering::Release);
            } else {
                held.counts.session[place(request.mode)] += 1;
            }
        }
        Ok(granted)
    }

    /// False if the session has not locked it like that.
    fn unlock(&self, key: Key, mode: LockMode) -> bool {
        let mut keys = self.keys.lock();
        let Some(held) = keys.get_mut(&key) else { return false };
        let count = &mut held.counts.session[place(mode)];
        if *count == 0 {
            return false;
        }
        *count -= 1;
        forget_unheld(&mut keys);
        true
    }

    pub(super) fn unlock_all(&self) {
        let mut keys = self.keys.lock();
        keys.values_mut().for_each(|held| held.counts.session = [0, 0]);
        forget_unheld(&mut keys);
    }

    /// The transaction has ended.
    pub(super) fn end_transaction(&self) {
        if self.in_transaction.swap(false, Ordering::AcqRel) {
            let mut keys = self.keys.lock();
            keys.values_mut().for_each(|held| held.counts.transaction = [0, 0]);
            forget_unheld(&mut keys);
        }
    }

    /// What `pg_locks` shows.
    pub(super) fn held(&self) -> Vec<HeldKey> {
        let keys = self.keys.lock();
        let modes = |counts: &Counts| {
            [counts.session[0] + counts.transaction[0], counts.session[1] + counts.transaction[1]]
        };
        let shown = keys.iter().flat_map(|(key, held)| {
            let Key { class, object, kind } = *key;
            let modes = modes(&held.counts).into_iter().zip([true, false]);
            modes.filter(|(count, _)| *count > 0).map(move |(_, shared)| HeldKey {
                class,
                object,
                kind,
                shared,
            })
        });
        shown.collect()
    }
}

fn forget_unheld(keys: &mut BTreeMap<Key, Held>) {
    keys.retain(|_, held| held.counts.session != [0, 0] || held.counts.transaction != [0, 0]);
}

/// Waits in a function's call, which is not asynchronous, until it is done, cancelled or late.
pub(super) fn wait_for<T>(
    cancel: &CancelHandle,
    limit: Duration,
    work: impl Future<Output = amphora_replication::Result<T>>,
) -> Result<T> {
    let handle = match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => handle,
        _ => {
            return Err(SqlError::feature_not_supported(
                "functions that wait need a runtime of several threads",
            ));
        }
    };
    let limited = async {
        let late = async {
            match limit.is_zero() {
                true => std::future::pending().await,
                false => tokio::time::sleep(limit).await,
            }
        };
        tokio::select! {
            done = work => done.map_err(SqlError::from),
            () = cancel.cancelled() => {
                Err(SqlError::query_canceled("canceling statement due to user request"))
            }
            () = late => Err(crate::executor::timed_out()),
        }
    };
    blocking(|| handle.block_on(limited))
}

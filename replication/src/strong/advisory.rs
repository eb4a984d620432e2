//! Advisory locks: keys of the applications' own, locked by sessions in the leader's lock table.
//!
//! A lock is held by a transaction of its own that never commits, so all that holds for row locks holds here:
//! waiters are served in order, the node renews what it holds every second, and what a silent node held is given back.
//!
//! To the search for deadlocks a session is one, whatever it holds: a circle of sessions that wait for each other's
//! advisory locks, or of such and row locks, is refused with 40P01 when it would be closed (`locks/waits.rs`).
//!
//! The table is in the leader's memory. What is promised when the leader changes:
//!
//! ```text
//!   every second        the node asks for each lock again, without waiting
//!   ├─ still held       nothing happens
//!   ├─ a new leader     it grants the lock again, unless another session was quicker
//!   └─ another has it   the lock is lost: the session is told, and ends
//! ```
//!
//! So for about a second after a change of leader another session may get a lock that its holder has not yet lost.
//! Who must exclude that lets the guarded work write a row, which the certifier checks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::group::Group;
use super::types::{KeyLock, LockKey, LockRequest, TransactionId};
use crate::api::{AdvisoryLock, LockMode, WaitPolicy};
use crate::{Error, Result};

/// No row has a key that begins like this: it would be of table `u32::MAX`.
const PREFIX: &[u8] = b"\xff\xff\xff\xffadvisory";
/// How often a held lock is asked for again.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A lock that a session holds or asks for.
pub struct GroupLock {
    group: Group,
    session: u64,
    key: Vec<u8>,
    /// The transaction that stands for it, and what it holds
    state: Mutex<(TransactionId, Option<LockMode>)>,
    /// A request is under way: it is not the time to check
    asking: AtomicBool,
    lost: Arc<dyn Fn() + Send + Sync>,
}

impl Group {
    /// A lock of this key for a session, not yet held. `lost` is called once if it is lost later.
    pub fn advisory_lock(
        &self,
        session: u64,
        key: &[u8],
        lost: Arc<dyn Fn() + Send + Sync>,
    ) -> Arc<GroupLock> {
        let lock = Arc::new(GroupLock {
            group: self.clone(),
            session,
            key: [PREFIX, key].concat(),
            state: Mutex::new((self.transaction_id(), None)),
            asking: AtomicBool::new(false),
            lost,
        });
        tokio::spawn(check(Arc::downgrade(&lock)));
        lock
    }
}

impl GroupLock {
    async fn ask(
        &self,
        id: TransactionId,
        mode: LockMode,
        wait: WaitPolicy,
        timeout: Duration,
    ) -> Result<bool> {
        let keys = vec![LockKey { key: self.key.clone(), mode }];
        let request = LockRequest::new(id, "advisory lock");
        let request = LockRequest { session: self.session, keys, wait, timeout, ..request };
        let granted = self.group.lock(request).await?;
        Ok(matches!(granted.first(), Some(KeyLock::Granted(_))))
    }

    /// Asks again for what is held. False if it is lost.
    async fn still_held(&self) -> bool {
        let (id, Some(mode)) = *self.state.lock() else { return true };
        match self.ask(id, mode, WaitPolicy::Skip, Duration::ZERO).await {
            Ok(true) => true,
            // Without a leader nobody else gets it either.
            Err(error) if error.sqlstate != "40001" => true,
            Ok(false) => false,
            Err(_) => self.ask_anew(mode).await,
        }
    }

    /// The leader does not know the transaction any more: another one takes its place.
    async fn ask_anew(&self, mode: LockMode) -> bool {
        let old = self.state.lock().0;
        let id = self.group.transaction_id();
        let granted = self.ask(id, mode, WaitPolicy::Skip, Duration::ZERO).await;
        match granted {
            Ok(true) => {
                self.state.lock().0 = id;
                self.group.release(old);
                true
            }
            Err(error) if error.sqlstate != "40001" => true,
            _ => false,
        }
    }
}

/// A request is under way until this is dropped, also if nobody waits for its answer any more.
struct Asking<'a>(&'a AtomicBool);

impl Asking<'_> {
    fn begin(flag: &AtomicBool) -> Asking<'_> {
        flag.store(true, Ordering::Release);
        Asking(flag)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[async_trait]
impl AdvisoryLock for GroupLock {
    async fn lock(&self, mode: LockMode, wait: bool, timeout: Duration) -> Result<bool> {
        let (id, held) = *self.state.lock();
        if held.is_some_and(|held| held >= mode) {
            return Ok(true);
        }
        let policy = if wait { WaitPolicy::Wait } else { WaitPolicy::Skip };
        let granted = {
            let _asking = Asking::begin(&self.asking);
            self.ask(id, mode, policy, timeout).await
        };
        match granted {
            Ok(true) => {
                self.state.lock().1 = Some(mode);
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(error) if error.sqlstate == "40P01" => Err(Error::new("40P01", "deadlock detected")
                .detail("To wait for an advisory lock would close a circle of waiting sessions.")
                .hint("The transaction might succeed if retried.")),
            Err(error) => Err(error),
        }
    }
}

impl Drop for GroupLock {
    fn drop(&mut self) {
        self.group.release(self.state.get_mut().0);
    }
}

/// Looks after a lock for as long as it is there.
async fn check(lock: Weak<GroupLock>) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let Some(lock) = lock.upgrade() else { return };
        if !lock.asking.load(Ordering::Acquire) && !lock.still_held().await {
            tracing::info!(transaction = %lock.state.lock().0, "an advisory lock is lost: its session ends");
            (lock.lost)();
            return;
        }
    }
}

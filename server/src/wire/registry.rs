//! The connections of this node: who may cancel whom, and whose client has gone.
//!
//! A statement runs in its connection's own task, which does not look at its socket meanwhile. So that a
//! client that vanished does not leave its statement running, one task looks at the sockets of all busy
//! connections twice a second ([`Registry::cancel_orphans`]). This costs the statements nothing but one
//! flag.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use amphora_sql::session::CancelHandle;
use futures::FutureExt;
use parking_lot::Mutex;
use rand::RngCore;
use tokio::io::Interest;
use tokio::net::tcp::OwnedWriteHalf;

/// What others need to know of a connection.
pub struct Entry {
    secret: [u8; 4],
    cancel: CancelHandle,
    busy: AtomicBool,
    socket: Arc<OwnedWriteHalf>,
}

impl Entry {
    /// Whether it is working on a message now.
    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Whether the session is to end.
    pub fn is_terminated(&self) -> bool {
        self.cancel.is_terminated()
    }

    /// Resolves when the session is to end.
    pub async fn terminated(&self) {
        self.cancel.terminated().await;
    }

    /// The client's end of the connection is closed.
    fn client_is_gone(&self) -> bool {
        let socket = (*self.socket).as_ref();
        let ready = socket.ready(Interest::READABLE).now_or_never();
        matches!(ready, Some(Ok(ready)) if ready.is_read_closed())
    }
}

/// All sessions of this node.
#[derive(Default)]
pub struct Registry {
    entries: Mutex<HashMap<i32, Arc<Entry>>>,
    last: AtomicU32,
}

/// A session's place in the registry, given back when dropped.
pub struct Registration {
    registry: Arc<Registry>,
    /// The session's process id
    pub pid: i32,
}

impl Registry {
    /// A process id that no open session has, of those that `made` makes of numbers.
    pub fn reserve_pid(&self, made: impl Fn(u32) -> i32) -> i32 {
        let entries = self.entries.lock();
        loop {
            let pid = made(self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1));
            if !entries.contains_key(&pid) {
                return pid;
            }
        }
    }

    /// Enters a session. Returns its entry, its registration, and the secret for its client.
    pub fn enter(
        self: &Arc<Registry>,
        pid: i32,
        cancel: CancelHandle,
        socket: Arc<OwnedWriteHalf>,
    ) -> (Arc<Entry>, Registration, [u8; 4]) {
        let mut secret = [0; 4];
        rand::rng().fill_bytes(&mut secret);
        let entry = Arc::new(Entry { secret, cancel, busy: AtomicBool::new(false), socket });
        self.entries.lock().insert(pid, Arc::clone(&entry));
        (entry, Registration { registry: Arc::clone(self), pid }, secret)
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// Cancels what a session is running, if the secret is right; the client is not told. False if there is no
    /// such session here.
    pub fn cancel(&self, pid: i32, secret: &[u8]) -> bool {
        let Some(entry) = self.entries.lock().get(&pid).cloned() else { return false };
        if entry.secret == secret && entry.busy.load(Ordering::Relaxed) {
            entry.cancel.cancel();
        }
        true
    }

    /// Cancels what all sessions are running.
    pub fn cancel_all(&self) {
        for entry in self.entries.lock().values() {
            entry.cancel.cancel();
        }
    }

    /// Cancels the statements whose clients have gone.
    pub fn cancel_orphans(&self) {
        let busy: Vec<Arc<Entry>> =
            self.entries.lock().values().filter(|e| e.busy.load(Ordering::Relaxed)).cloned().collect();
        for entry in busy {
            if entry.client_is_gone() {
                entry.cancel.cancel();
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.entries.lock().remove(&self.pid);
    }
}

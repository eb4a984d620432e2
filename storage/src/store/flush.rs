//! The flush frontier: how far what was written without a log is durable all the same.
//!
//! RocksDB flushes a memtable when it is full, and does not say so; so the store flushes by itself, after so
//! many bytes or so much time, and remembers the applied and the joined record from *before* the flush. These
//! are durable, and the Raft log and the op log may be purged up to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::{Shared, View, start_thread};
use crate::error::Result;

/// The records of how far the logs were written into the data.
#[derive(Clone, Default)]
pub(super) struct Frontier {
    pub(super) applied: Option<Vec<u8>>,
    pub(super) joined: Option<Vec<u8>>,
}

impl Frontier {
    /// As the data has them.
    pub(super) fn of(view: &View) -> Result<Frontier> {
        Ok(Frontier { applied: view.applied()?, joined: view.joined()? })
    }
}

/// How far flushes have come.
pub(super) struct Progress {
    /// Bytes written since the last flush began
    unflushed: AtomicU64,
    /// What is known to be durable
    durable: Mutex<Frontier>,
    /// One flush at a time, so that the frontier never goes back
    turn: Mutex<()>,
}

impl Progress {
    pub(super) fn new(durable: Frontier) -> Progress {
        Progress { unflushed: AtomicU64::new(0), durable: Mutex::new(durable), turn: Mutex::new(()) }
    }

    /// Counts a write; returns the bytes that a flush would now cover.
    pub(super) fn wrote(&self, bytes: u64) -> u64 {
        self.unflushed.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    pub(super) fn durable(&self) -> Frontier {
        self.durable.lock().clone()
    }

    /// After an install, everything in the new generation is durable.
    pub(super) fn reset(&self, durable: Frontier) {
        let _turn = self.turn.lock();
        *self.durable.lock() = durable;
    }
}

impl Shared {
    /// Flushes everything and moves the frontier.
    pub(super) fn flush(&self) -> Result<()> {
        let _turn = self.flushed.turn.lock();
        let view = self.view();
        let covered = self.flushed.unflushed.load(Ordering::Relaxed);
        let frontier = Frontier::of(&view)?;
        view.generation().flush()?;
        self.flushed.unflushed.fetch_sub(covered, Ordering::Relaxed);
        *self.flushed.durable.lock() = frontier;
        Ok(())
    }
}

#[derive(Default)]
struct Signals {
    stop: bool,
    flush: bool,
    reclaim: bool,
}

/// The thread that flushes and reclaims in the background.
pub(super) struct Flusher {
    signals: Arc<(Mutex<Signals>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start(shared: Arc<Shared>) -> Result<Flusher> {
        let signals = Arc::new((Mutex::new(Signals::default()), Condvar::new()));
        let thread = start_thread("data-flush", {
            let signals = signals.clone();
            move || run(&shared, &signals)
        })?;
        Ok(Flusher { signals, thread: Some(thread) })
    }

    fn signal(&self, set: impl FnOnce(&mut Signals)) {
        let (signals, changed) = &*self.signals;
        set(&mut signals.lock());
        changed.notify_one();
    }

    /// Enough was written to flush.
    pub(super) fn wake(&self) {
        self.signal(|s| s.flush = true);
    }

    /// Dropped tables may have become reclaimable.
    pub(super) fn wake_for_reclaim(&self) {
        self.signal(|s| s.reclaim = true);
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.signal(|s| s.stop = true);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, signals: &(Mutex<Signals>, Condvar)) {
    let (signals, changed) = signals;
    let interval = shared.options.flush_interval;
    let mut next = Instant::now() + interval;
    loop {
        let now = {
            let mut signals = signals.lock();
            if !signals.stop && !signals.flush && !signals.reclaim {
                changed.wait_until(&mut signals, next);
            }
            std::mem::take(&mut *signals)
        };
        if now.stop {
            return;
        }
        let due = Instant::now() >= next;
        if due {
            next = Instant::now() + interval;
        }
        let unflushed = shared.flushed.unflushed.load(Ordering::Relaxed);
        if unflushed >= shared.options.flush_bytes || (due && unflushed > 0) {
            report("flush the data", shared.flush());
        }
        if now.reclaim {
            report("reclaim dropped tables", shared.reclaim().map(|_| ()));
        }
    }
}

fn report(what: &str, result: Result<()>) {
    if let Err(e) = result {
        tracing::error!(hint = e.hint(), "could not {what}: {e}");
    }
}

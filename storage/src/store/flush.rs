//! The flush frontier: how far what was written without a log is durable all the same.
//!
//! RocksDB flushes a memtable when it is full, and does not say so; so the store flushes by itself, after so
//! many bytes or so much time, and remembers the applied record from *before* the flush. That record is
//! durable, and the Raft log may be purged up to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::{Shared, start_thread};
use crate::error::Result;

/// How far flushes have come.
pub(super) struct Progress {
    /// Bytes written since the last flush began
    unflushed: AtomicU64,
    /// The applied record known to be durable
    applied: Mutex<Option<Vec<u8>>>,
    /// One flush at a time, so that the frontier never goes back
    turn: Mutex<()>,
}

impl Progress {
    pub(super) fn new(applied: Option<Vec<u8>>) -> Progress {
        Progress { unflushed: AtomicU64::new(0), applied: Mutex::new(applied), turn: Mutex::new(()) }
    }

    /// Counts a write; returns the bytes that a flush would now cover.
    pub(super) fn wrote(&self, bytes: u64) -> u64 {
        self.unflushed.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    pub(super) fn applied(&self) -> Option<Vec<u8>> {
        self.applied.lock().clone()
    }

    /// After an install, everything in the new generation is durable.
    pub(super) fn reset(&self, applied: Option<Vec<u8>>) {
        let _turn = self.turn.lock();
        *self.applied.lock() = applied;
    }
}

impl Shared {
    /// Flushes everything and moves the frontier.
    pub(super) fn flush(&self) -> Result<()> {
        let _turn = self.flushed.turn.lock();
        let view = self.view();
        let covered = self.flushed.unflushed.load(Ordering::Relaxed);
        let applied = view.applied()?;
        view.generation().flush()?;
        self.flushed.unflushed.fetch_sub(covered, Ordering::Relaxed);
        *self.flushed.applied.lock() = applied;
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

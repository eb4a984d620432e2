//! The two threads of a journal: one writes, one has the next file ready.

use std::mem::take;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::segment::Segment;
use super::{Chunk, Shared, State};
use crate::error::{Result, StorageError};

/// How long after a failure the next file is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A buffer that is larger is not kept.
const KEPT_BYTES: usize = 1 << 20;

/// The threads; they end when this is dropped, after what was appended is written.
pub(super) struct Threads {
    shared: Arc<Shared>,
    running: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Threads> {
        let start = |name: &str, body: fn(&Shared)| {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || body(&shared));
            thread.map_err(|e| StorageError::Engine(format!("could not start thread {name}: {e}")))
        };
        let running = vec![start("journal-write", write)?, start("journal-next", prepare)?];
        Ok(Threads { shared: shared.clone(), running })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.filled.notify_one();
        self.shared.wanted.notify_one();
        for thread in self.running.drain(..) {
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

/// Writes what was appended, for as long as someone waits for it or there is much of it.
fn write(shared: &Shared) {
    let mut state = shared.state.lock();
    loop {
        while state.waiters.is_empty() && state.pending_bytes < shared.options.write_bytes && !state.stop {
            shared.filled.wait(&mut state);
        }
        let stop = state.stop;
        let (chunks, waiters) = (take(&mut state.pending), take(&mut state.waiters));
        state.pending_bytes = 0;
        state.writing = true;
        let failed = state.failed.clone();
        drop(state);
        let result = match failed {
            Some(failed) => Err(failed),
            None => chunks.iter().try_for_each(|chunk| chunk.segment.write(&chunk.bytes, chunk.at)),
        };
        state = shared.state.lock();
        state.writing = false;
        if let Err(e) = &result
            && state.failed.is_none()
        {
            tracing::error!(hint = e.hint(), "a journal cannot be written any more: {e}");
            state.failed = Some(e.clone());
        }
        state.keep_buffer(chunks);
        if !waiters.is_empty() {
            drop(state);
            waiters.into_iter().for_each(|done| done(result.clone()));
            state = shared.state.lock();
        }
        if stop && state.pending.is_empty() {
            return;
        }
    }
}

impl State {
    /// Buffers are used again.
    fn keep_buffer(&mut self, chunks: Vec<Chunk>) {
        for Chunk { mut bytes, .. } in chunks {
            if self.buffers.len() < 2 && bytes.capacity() <= KEPT_BYTES {
                bytes.clear();
                self.buffers.push(bytes);
            }
        }
    }
}

/// Has the next file ready before the one that is written is full.
fn prepare(shared: &Shared) {
    let mut state = shared.state.lock();
    let mut told = false;
    loop {
        while !state.stop && !state.wants_next() {
            shared.wanted.wait(&mut state);
        }
        if state.stop {
            return;
        }
        let (number, old) = (state.active().number + 1, state.free.pop_front());
        let size = shared.options.segment_bytes;
        state.preparing = true;
        drop(state);
        let made = match old {
            Some(old) if old.size == size => Segment::recycle(&shared.dir, number, old),
            _ => Segment::create(&shared.dir, number, size, true),
        };
        state = shared.state.lock();
        state.preparing = false;
        shared.prepared.notify_all();
        match made {
            Ok(segment) => {
                state.next = Some(segment);
                told = false;
            }
            Err(e) => {
                // Once, however long it lasts; who needs the file meanwhile tries, and fails, for itself.
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(hint = e.hint(), "could not prepare a journal's next file: {e}");
                }
                let again = Instant::now() + RETRY;
                while !state.stop && !shared.wanted.wait_until(&mut state, again).timed_out() {}
            }
        }
    }
}

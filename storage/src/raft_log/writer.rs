//! The thread that makes the log durable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::{Flushed, Inner};
use crate::error::{Result, StorageError};

/// Everything the writer thread can be asked: make durable what was written, then say so.
pub(super) enum Action {
    /// Entries were appended.
    Append(Flushed),
    /// Entries were removed at the end.
    Truncate(Flushed),
    /// Entries were removed at the beginning.
    Purge(Flushed),
    /// A vote was saved.
    SaveVote(Flushed),
    /// Nothing new, but whoever asks wants what was written before to be durable.
    Sync(Flushed),
    /// Serve what is queued, then end.
    Shutdown,
}

struct Queue {
    actions: Mutex<VecDeque<Action>>,
    /// Something was queued.
    filled: Condvar,
    /// The queue was drained.
    drained: Condvar,
    limit: usize,
}

/// The writer thread and its queue.
pub(super) struct Writer {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(inner: Arc<Inner>, limit: usize) -> Result<Writer> {
        let queue = Arc::new(Queue {
            actions: Mutex::new(VecDeque::new()),
            filled: Condvar::new(),
            drained: Condvar::new(),
            limit: limit.max(1),
        });
        let thread = std::thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn({
                let queue = queue.clone();
                move || run(&inner, &queue)
            })
            .map_err(|e| StorageError::Engine(format!("could not start thread raft-log: {e}")))?;
        Ok(Writer { queue, thread: Some(thread) })
    }

    /// Waits until the queue is below its limit: at most as long as one fsync takes. Callers that pass
    /// together may exceed the limit by their number.
    pub(super) fn wait_for_room(&self) {
        let mut actions = self.queue.actions.lock();
        while actions.len() >= self.queue.limit {
            self.queue.drained.wait(&mut actions);
        }
    }

    pub(super) fn push(&self, action: Action) {
        self.queue.actions.lock().push_back(action);
        self.queue.filled.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.push(Action::Shutdown);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

fn run(inner: &Inner, queue: &Queue) {
    loop {
        let actions = {
            let mut actions = queue.actions.lock();
            while actions.is_empty() {
                queue.filled.wait(&mut actions);
            }
            std::mem::take(&mut *actions)
        };
        queue.drained.notify_all();
        let result = inner.sync();
        if let Err(e) = &result {
            tracing::error!(hint = e.hint(), "the raft log cannot be made durable: {e}");
        }
        for action in actions {
            match action {
                Action::Append(done)
                | Action::Truncate(done)
                | Action::Purge(done)
                | Action::SaveVote(done)
                | Action::Sync(done) => done(result.clone().map_err(Into::into)),
                Action::Shutdown => return,
            }
        }
    }
}

//! Group fsync: everyone who waits at the same moment is served by one `fdatasync`.
//!
//! ```text
//!   caller A ─ wait ──────────────┐
//!   caller B ─── wait ────────────┤ drained together
//!   thread   ──fsync──┤           ├──fsync──┤ wake A and B
//!   caller C ───────────────── wait ────────┼──fsync──┤ wake C
//! ```
//!
//! A waiter registers after its write, and a round begins by taking all who are registered; so the write
//! precedes the fsync that answers for it. The list is bounded by its callers: each waits for its answer.

use std::mem::take;
use std::sync::Arc;
use std::thread::JoinHandle;

use futures::channel::oneshot;
use parking_lot::{Condvar, Mutex};

use super::{Shared, start_thread};
use crate::error::{Result, StorageError};

type Waiter = oneshot::Sender<Result<()>>;

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiter>,
    stop: bool,
}

/// The thread that fsyncs the data's write-ahead log.
pub(super) struct SyncGroup {
    queue: Arc<(Mutex<Queue>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl SyncGroup {
    pub(super) fn start(shared: Arc<Shared>) -> Result<SyncGroup> {
        let queue = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
        let thread = start_thread("data-sync", {
            let queue = queue.clone();
            move || run(&queue, || shared.current.load().sync())
        })?;
        Ok(SyncGroup { queue, thread: Some(thread) })
    }

    fn register(&self) -> oneshot::Receiver<Result<()>> {
        let (done, answer) = oneshot::channel();
        let (queue, changed) = &*self.queue;
        let mut queue = queue.lock();
        if !queue.stop {
            queue.waiting.push(done);
            changed.notify_one();
        }
        answer
    }

    /// Registers now, and resolves when an fsync that began later has ended.
    pub(super) fn wait(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        let answer = self.register();
        async move { answer.await.unwrap_or(Err(StorageError::Closed)) }
    }

    pub(super) fn wait_blocking(&self) -> Result<()> {
        futures::executor::block_on(self.wait())
    }
}

impl Drop for SyncGroup {
    fn drop(&mut self) {
        {
            let (queue, changed) = &*self.queue;
            queue.lock().stop = true;
            changed.notify_one();
        }
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// Serves rounds until told to stop; the last round serves who was registered before.
fn run(queue: &(Mutex<Queue>, Condvar), sync: impl Fn() -> Result<()>) {
    let (queue, changed) = queue;
    loop {
        let (waiters, stop) = {
            let mut queue = queue.lock();
            while queue.waiting.is_empty() && !queue.stop {
                changed.wait(&mut queue);
            }
            (take(&mut queue.waiting), queue.stop)
        };
        if !waiters.is_empty() {
            let result = sync();
            if let Err(e) = &result {
                tracing::error!("could not make the write-ahead log durable: {e}");
            }
            for waiter in waiters {
                let _ = waiter.send(result.clone());
            }
        }
        if stop {
            return;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn those_who_wait_together_share_one_sync() {
        let queue = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
        let rounds = Arc::new(AtomicUsize::new(0));
        let thread = std::thread::spawn({
            let (queue, rounds) = (queue.clone(), rounds.clone());
            move || {
                run(&queue, || {
                    rounds.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(30));
                    Ok(())
                });
            }
        });
        let group = SyncGroup { queue, thread: Some(thread) };
        let first = group.wait();
        std::thread::sleep(Duration::from_millis(10));
        let others: Vec<_> = (0..50).map(|_| group.wait()).collect();
        futures::executor::block_on(async {
            first.await.unwrap();
            for other in others {
                other.await.unwrap();
            }
        });
        assert_eq!(rounds.load(Ordering::SeqCst), 2);
    }
}

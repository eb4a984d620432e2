//! The threads that sessions run on: as many as there are cores, each with a runtime of its own.
//!
//! ```text
//!   accept ──▶ the thread with the fewest sessions ──▶ epoll of that thread ──▶ receive, run, reply
//!   node   ──▶ the node's runtime: log, peers, upkeep
//! ```
//!
//! In one runtime for all, a thread that hears of several requests at once wakes another to share them. A point
//! read takes less time than that: with eight clients on two cores a fifth of all time went into waking threads that
//! found nothing left to do. A session's own thread takes its requests as they come.
//!
//! A statement that may take long does not hold up its neighbours: it leaves the thread to them
//! (`block_in_place`), as it does in a shared runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle, Runtime};

/// Recursion over a deep statement needs more than the usual.
const STACK_BYTES: usize = 8 << 20;

/// The threads; they end when this is dropped.
pub struct SessionThreads(Vec<SessionThread>);

struct SessionThread {
    runtime: Option<Runtime>,
    sessions: Arc<AtomicUsize>,
}

/// A session's place on a thread, until it is dropped.
pub struct Seat {
    handle: Handle,
    sessions: Arc<AtomicUsize>,
}

impl SessionThreads {
    /// Starts one thread a core.
    pub fn start() -> std::io::Result<SessionThreads> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let thread = |n| {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(1).enable_all().thread_stack_size(STACK_BYTES);
            let runtime = builder.thread_name(format!("session-{n}")).build()?;
            Ok(SessionThread { runtime: Some(runtime), sessions: Arc::default() })
        };
        Ok(SessionThreads((0..cores).map(thread).collect::<std::io::Result<_>>()?))
    }

    /// A place where there are the fewest sessions.
    pub fn seat(&self) -> Option<Seat> {
        let thread = self.0.iter().min_by_key(|thread| thread.sessions.load(Ordering::Relaxed))?;
        thread.sessions.fetch_add(1, Ordering::Relaxed);
        let handle = thread.runtime.as_ref()?.handle().clone();
        Some(Seat { handle, sessions: Arc::clone(&thread.sessions) })
    }
}

impl Drop for SessionThreads {
    fn drop(&mut self) {
        // Who drops this may be a thread that must not wait.
        self.0.iter_mut().filter_map(|thread| thread.runtime.take()).for_each(Runtime::shutdown_background);
    }
}

impl Seat {
    /// The thread's runtime.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sessions_are_spread_evenly_although_some_end() {
        let threads = SessionThreads::start().unwrap();
        let cores = threads.0.len();
        let mut seats: Vec<Seat> = (0..4 * cores).map(|_| threads.seat().unwrap()).collect();
        let counts =
            || threads.0.iter().map(|thread| thread.sessions.load(Ordering::Relaxed)).collect::<Vec<_>>();
        assert_eq!(counts(), vec![4; cores]);
        // All but one of the first thread's sessions end, and others come.
        let first = Arc::clone(&threads.0[0].sessions);
        let mut kept = 0;
        seats.retain(|seat| {
            kept += usize::from(Arc::ptr_eq(&seat.sessions, &first));
            !Arc::ptr_eq(&seat.sessions, &first) || kept == 1
        });
        assert_eq!(counts()[0], 1);
        seats.extend((0..3).map(|_| threads.seat().unwrap()));
        assert_eq!(counts(), vec![4; cores]);
    }

    #[tokio::test]
    async fn a_session_that_blocks_leaves_its_thread_to_the_others() {
        let threads = SessionThreads::start().unwrap();
        let seat = threads.seat().unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let blocked = seat.handle().spawn(async move { tokio::task::block_in_place(|| released.recv()) });
        seat.handle().spawn(async {}).await.unwrap();
        release.send(()).unwrap();
        blocked.await.unwrap().unwrap();
    }
}

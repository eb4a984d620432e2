//! Checks that run on this node for somebody who asks for them now and then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::VerifyReply;
use crate::NodeId;

/// Checks that run or wait to be asked for, at most.
const MAX_JOBS: usize = 4;
/// A job that was not asked for this long is not wanted any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// A job's state, shared with the thread that does it.
pub struct Job {
    asked: Mutex<Instant>,
    answer: Mutex<Option<VerifyReply>>,
}

impl Job {
    /// True while somebody asks for it.
    pub fn is_wanted(&self) -> bool {
        self.asked.lock().elapsed() < PATIENCE
    }

    /// It is done.
    pub fn finish(&self, answer: VerifyReply) {
        *self.answer.lock() = Some(answer);
    }
}

/// The jobs of a node, by who asked and the name it gave.
#[derive(Default)]
pub struct Jobs {
    running: Mutex<HashMap<(NodeId, u64), Arc<Job>>>,
}

/// What is to be done for somebody who asks.
pub enum Asked {
    /// Begin it
    Begin(Arc<Job>),
    /// Nothing: this is the answer
    Answer(VerifyReply),
}

impl Jobs {
    /// Somebody asks for a job.
    pub fn ask(&self, from: NodeId, job: u64) -> Asked {
        let mut running = self.running.lock();
        if let Some(known) = running.get(&(from, job)) {
            *known.asked.lock() = Instant::now();
            let answer = known.answer.lock().take();
            if answer.is_some() {
                running.remove(&(from, job));
            }
            return Asked::Answer(answer.unwrap_or(VerifyReply::Working));
        }
        running.retain(|_, job| job.is_wanted());
        if running.len() >= MAX_JOBS {
            return Asked::Answer(VerifyReply::Failed("too many checks are running on it".to_owned()));
        }
        let begun = Arc::new(Job { asked: Mutex::new(Instant::now()), answer: Mutex::default() });
        running.insert((from, job), begun.clone());
        Asked::Begin(begun)
    }
}

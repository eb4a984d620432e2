//! Snapshots that are chosen without asking the leader: stale ones, and those of the past.
//!
//! **How old is what is applied here?** A replica shows a prefix of the log, so a read at its newest applied
//! timestamp is consistent; the question is what is missing. An answer of the leader tells: if this node asked
//! for a read index at its own time `t` and was told `at`, everything that was acknowledged anywhere before `t`
//! is at most `at`. As soon as `at` is applied here, what is applied here lacks nothing acknowledged before `t`,
//! and its age is `now - t`, both read from this node's monotonic clock.
//!
//! ```text
//!   this node   ask t1 ───────► at 70 ──── 70 applied ─────── ask t2 ───────► at 90 ──── 90 applied
//!                │                             │                │                            │
//!   confirmed    │          as of t0           │           as of t1                          │ as of t2
//!   age ─────────┴─────────────────────────────┴─ now - t1 … ───────────────────────────────┴─ now - t2
//! ```
//!
//! - *Clocks.* No timestamp of a commit is compared with any clock, and no two nodes' clocks with each other: a
//!   clock that jumps changes nothing. What counts is that one node's monotonic clock runs at the rate of time.
//!   (It stands still while the machine itself sleeps; a node that wakes up is as old as it thought it was when it
//!   fell asleep.)
//! - *Heartbeats do not confirm anything.* A message that arrives may have been sent long ago, by a leader that has
//!   been deposed since. Only an answer to a question bounds the time of its sending from below.
//! - *On the leader* the question is the round of heartbeats that its own lease rests on: no other node has
//!   acknowledged anything before a majority last answered it.
//! - *Keeping it fresh.* A read that finds half-used freshness has a question asked in the background
//!   ([`renew_after`]): statements wait for none of it, and when the leader dies they go on until the bound is
//!   used up. A node where nobody reads with a bound asks nothing.
//!
//! **Going on with linearizable reads.** A stale read may have seen what the leader has not applied yet. So that a
//! session never goes back, a linearizable read on the same node takes no snapshot older than the stale ones
//! before it ([`Shown`]).
//!
//! **The past.** A timestamp at or below what is applied here names a prefix that is all here, for ever: later
//! entries have greater ones. A timestamp above may still be given to a commit, by this leader or the next, if its
//! clock is behind. Then an empty transaction is committed whose own timestamp is greater, and this node applies that
//! much ([`Group::settle`]). It is stamped with the present, so whoever goes on asking for ten seconds ago pays for
//! this once in ten seconds, and not at all while others write.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use amphora_storage::Timestamp;
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;

use super::group::Group;
use super::leases::Standing;
use super::types::CommitRequest;
use crate::{Error, Result};

/// Answers whose timestamp is not applied here yet, at most.
const MAX_AHEAD: usize = 16;
/// Freshness older than this is renewed, if the bound is not much smaller.
const RENEW: Duration = Duration::from_secs(1);
/// How long a read whose bound is used up waits for a leader: longer than a failover takes.
const FALLBACK_PATIENCE: Duration = Duration::from_secs(2);
/// How long a snapshot is waited for that has to be as new as a token.
pub const FOLLOW_PATIENCE: Duration = Duration::from_secs(10);

/// From which age on, of a bound, the leader is asked in the background.
pub fn renew_after(bound: Duration) -> Duration {
    (bound / 8).min(RENEW)
}

/// As of when what is applied here lacks nothing.
#[derive(Debug, Default)]
pub struct Freshness {
    state: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Everything acknowledged before this is applied here
    confirmed: Option<Instant>,
    /// Answers to questions asked at these times, which will confirm them once they are applied
    ahead: VecDeque<(Instant, Timestamp)>,
}

impl Freshness {
    /// The leader was asked at `asked`, and everything acknowledged before is at most `at`.
    pub fn answered(&self, asked: Instant, at: Timestamp, applied: Timestamp) {
        let mut known = self.state.lock();
        if at <= applied {
            known.confirmed = known.confirmed.max(Some(asked));
        } else if known.ahead.len() < MAX_AHEAD {
            // The ones that are applied first are kept: a node that lags has use for those.
            known.ahead.push_back((asked, at));
        }
    }

    /// Everything acknowledged before this moment is applied here.
    pub fn confirm(&self, at: Instant) {
        let mut known = self.state.lock();
        known.confirmed = known.confirmed.max(Some(at));
    }

    /// The age of what is applied here now, at most; `None` if no leader was ever heard.
    pub fn age(&self, now: Instant, applied: Timestamp) -> Option<Duration> {
        let mut known = self.state.lock();
        while let Some((asked, _)) = known.ahead.front().copied().filter(|(_, at)| *at <= applied) {
            known.ahead.pop_front();
            known.confirmed = known.confirmed.max(Some(asked));
        }
        known.confirmed.map(|confirmed| now.saturating_duration_since(confirmed))
    }
}

/// The newest timestamp that a stale read on this node was given.
#[derive(Debug, Default)]
pub struct Shown(AtomicU64);

impl Shown {
    /// A stale read is given this one.
    pub fn note(&self, at: Timestamp) {
        self.0.fetch_max(at.0, Ordering::AcqRel);
    }

    /// What a linearizable read that begins now must not go behind.
    pub fn newest(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Acquire))
    }
}

/// `72000` for a time whose history is gone, with the oldest time there is.
fn too_old(low: Timestamp) -> Error {
    let millis = i64::try_from(low.millis()).unwrap_or(i64::MAX);
    let oldest = chrono::DateTime::from_timestamp_millis(millis).unwrap_or_default();
    Error::new("72000", "snapshot too old: the rows as they were at that time have been collected")
        .detail(format!("The oldest time that can be read is {}.", oldest.format("%Y-%m-%d %H:%M:%S%.3f+00")))
        .hint("Read a time inside the retention window.")
}

/// 57P03 for a snapshot as new as a token.
pub(crate) fn not_caught_up(what: &str) -> Error {
    Error::new("57P03", format!("this node does not have all that amphora.token stands for: {what}"))
        .hint("Try again later, or on another node. RESET amphora.token reads what there is.")
        .kind(crate::ErrorKind::Unavailable)
}

impl Group {
    /// The age of what is applied here, at most; `None` if no leader was ever heard.
    pub fn staleness(&self) -> Option<Duration> {
        let now = Instant::now();
        let inner = &self.inner;
        let tenure = inner.tenure.load();
        if let Some(tenure) = tenure.as_ref() {
            if inner.lease_is_valid_for(tenure.leader(), Duration::ZERO) {
                let acked =
                    inner.data.borrow_watched().last_quorum_acked.as_ref().map(|acked| acked.elapsed());
                if let Some(acked) = acked.and_then(|elapsed| now.checked_sub(elapsed)) {
                    inner.freshness.confirm(acked);
                }
            } else if inner.lease_is_valid(tenure.leader()) {
                inner.freshness.confirm(now);
            }
        } else if inner.lease.standing() != Standing::None {
            inner.freshness.confirm(now);
        }
        inner.freshness.age(now, self.applied_timestamp())
    }

    /// The newest timestamp applied here, if nothing that was acknowledged longer than `bound` ago can be missing;
    /// [`Duration::MAX`] takes it however old. Waits for nobody.
    pub fn stale_timestamp(&self, bound: Duration) -> Option<Timestamp> {
        if bound < Duration::MAX {
            let age = self.staleness();
            if age.is_none_or(|age| age >= renew_after(bound)) && self.inner.reads.begin() {
                self.drive_reads();
            }
            if age.is_none_or(|age| age > bound) {
                return None;
            }
        }
        let at = self.applied_timestamp();
        self.inner.shown.note(at);
        Some(at)
    }

    /// A snapshot that is linearizable or, where nobody can be asked, an error that says how old what is here is.
    pub async fn read_timestamp_instead(&self, bound: Duration) -> Result<Timestamp> {
        let linearizable = tokio::time::timeout(FALLBACK_PATIENCE, self.read_timestamp()).await;
        let no_answer = || Err(Error::unavailable("no leader answered in time"));
        linearizable.unwrap_or_else(|_| no_answer()).map_err(|error| {
            if error.kind != crate::ErrorKind::Unavailable {
                return error;
            }
            let detail = match self.staleness() {
                Some(age) => format!(
                    "This node last knew itself up to date {:.1} s ago, and amphora.max_staleness allows {:.1} s.",
                    age.as_secs_f64(),
                    bound.as_secs_f64()
                ),
                None => "This node has not heard from a leader since it was started.".to_owned(),
            };
            Error::new("57P03", "no snapshot of strong tables is fresh enough, and no leader can be asked for one")
                .detail(detail)
                .hint("SET amphora.max_staleness = 'any' reads what this node has, however old it is.")
                .kind(crate::ErrorKind::Unavailable)
        })
    }

    /// Waits until everything up to a token's timestamp is applied here. 57P03
    pub async fn follow(&self, least: Timestamp) -> Result<()> {
        if self.applied_timestamp() >= least {
            return Ok(());
        }
        let applied = self.inner.replica.wait_applied(least);
        tokio::time::timeout(FOLLOW_PATIENCE, applied)
            .await
            .map_err(|_| not_caught_up("commits of strong tables are missing"))
    }

    /// A linearizable snapshot that is no older than this, which somebody has seen applied somewhere.
    pub async fn read_timestamp_after(&self, least: Timestamp) -> Result<Timestamp> {
        self.follow(least).await?;
        let until = Instant::now() + FOLLOW_PATIENCE;
        loop {
            let at = self.read_timestamp().await?;
            if at >= least {
                return Ok(at);
            }
            // Applied here and not yet on the leader: it is about to be.
            if Instant::now() >= until {
                return Err(not_caught_up("the leader has not applied them"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Sees to it that a read at `at` shows the same for ever, and that all of it is here. 72000, and 57P03 if
    /// the leader would have to be asked and cannot.
    pub async fn settle(&self, at: Timestamp) -> Result<Timestamp> {
        let low = self.inner.replica.store.history_low();
        if at < low {
            return Err(too_old(low));
        }
        if at > self.applied_timestamp() {
            let empty = CommitRequest::empty(self.transaction_id(), at.max(self.inner.replica.clock.last()));
            let passed = self.commit(empty).await?;
            let applied = self.inner.replica.wait_applied(passed);
            tokio::time::timeout(self.inner.timing.patience, applied).await.map_err(|_| {
                Error::unavailable("strong tables are not available: this node lags too far behind")
            })?;
        }
        Ok(at)
    }

    /// A snapshot of the past, held; 72000 with the oldest time there is.
    pub fn hold_past(&self, at: Timestamp) -> Result<std::sync::Arc<super::SnapshotHold>> {
        self.hold_history(at).map_err(|error| match error.sqlstate {
            "72000" => too_old(self.inner.replica.store.history_low().max(self.inner.replica.history_low())),
            _ => error,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_from_when_it_was_asked_for_and_once_it_is_applied() {
        let freshness = Freshness::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(freshness.age(at(0), Timestamp(9)), None);
        freshness.answered(at(1), Timestamp(5), Timestamp(5));
        assert_eq!(freshness.age(at(4), Timestamp(5)), Some(Duration::from_secs(3)));
        freshness.answered(at(3), Timestamp(8), Timestamp(5));
        assert_eq!(freshness.age(at(4), Timestamp(7)), Some(Duration::from_secs(3)), "8 is not here yet");
        assert_eq!(freshness.age(at(4), Timestamp(8)), Some(Duration::from_secs(1)));
        freshness.answered(at(2), Timestamp(6), Timestamp(8));
        assert_eq!(freshness.age(at(4), Timestamp(8)), Some(Duration::from_secs(1)), "it never gets older");
    }

    #[test]
    fn a_node_that_lags_for_ever_keeps_the_answers_that_it_reaches_first() {
        let freshness = Freshness::default();
        let start = Instant::now();
        for n in 0..1000 {
            freshness.answered(start + Duration::from_millis(n), Timestamp(100 + n), Timestamp(0));
        }
        let now = start + Duration::from_millis(1000);
        assert_eq!(freshness.age(now, Timestamp(99)), None);
        assert_eq!(freshness.age(now, Timestamp(103)), Some(Duration::from_millis(997)));
        let last = MAX_AHEAD as u64 - 1;
        assert_eq!(freshness.age(now, Timestamp(5000)), Some(Duration::from_millis(1000 - last)));
    }

    #[test]
    fn freshness_is_renewed_well_before_it_is_used_up() {
        assert_eq!(renew_after(Duration::from_secs(4)), Duration::from_millis(500));
        assert_eq!(renew_after(Duration::from_secs(3600)), RENEW);
    }
}

//! The hybrid logical clock (Kulkarni, Demirbas et al., 2014).
//!
//! Every version in the system, of either kind of table, is a [`Timestamp`]: 48 bits of wall-clock
//! milliseconds above 16 bits of counter. A clock never goes back, and it passes every timestamp it has
//! [observed](Hlc::observe), so that what happened before is stamped before.
//!
//! ```text
//!   63                              16 15        0
//!  ┌──────────────────────────────────┬───────────┐
//!  │ milliseconds since 1970, UTC     │  counter  │   a full counter carries into the next millisecond
//!  └──────────────────────────────────┴───────────┘
//! ```
//!
//! A machine's time of day may jump: somebody sets it, or it is set right after hours. The clock here does not: it reads
//! the time of day once and then goes on with the monotonic clock, until somebody who has compared several machines
//! [moves](Hlc::shift) it. So a jump by an hour stamps nothing an hour ahead, and no write of that node wins for an hour.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A hybrid logical timestamp. Zero is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Before every version.
    pub const ZERO: Timestamp = Timestamp(0);
    /// After every version.
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    /// Milliseconds since 1970, UTC.
    pub fn millis(self) -> u64 {
        self.0 >> 16
    }

    /// The first timestamp of a millisecond since 1970.
    pub fn from_millis(ms: u64) -> Timestamp {
        Timestamp(ms << 16)
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0 >> 16, self.0 & 0xffff)
    }
}

/// A remote clock is further ahead of ours than we allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a timestamp is {ahead_ms} ms ahead of this node's clock, more than the {limit_ms} ms allowed")]
pub struct ClockDrift {
    /// How far ahead, in milliseconds
    pub ahead_ms: u64,
    /// The limit, in milliseconds
    pub limit_ms: u64,
}

/// A node's clock. Shared by everything on the node that stamps or sees timestamps.
#[derive(Debug)]
pub struct Hlc {
    last: AtomicU64,
    limit: Duration,
    wall: fn() -> u64,
    steady: fn() -> u64,
    /// What the steady clock lacks to the time of day, in milliseconds
    offset: AtomicI64,
}

fn wall_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Milliseconds on a clock that nobody sets.
fn steady_millis() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGAN.elapsed().as_millis() as u64
}

impl Hlc {
    /// How far ahead of the local wall clock a remote timestamp may be by default.
    pub const DEFAULT_DRIFT: Duration = Duration::from_millis(500);

    /// A clock that refuses remote timestamps more than `limit` ahead of the wall clock.
    pub fn new(limit: Duration) -> Hlc {
        Hlc::with_clocks(limit, wall_millis, steady_millis)
    }

    /// A clock on a wall clock of the test's own, in milliseconds since 1970.
    pub fn with_wall(limit: Duration, wall: fn() -> u64) -> Hlc {
        Hlc::with_clocks(limit, wall, wall)
    }

    fn with_clocks(limit: Duration, wall: fn() -> u64, steady: fn() -> u64) -> Hlc {
        let offset = AtomicI64::new(wall().wrapping_sub(steady()).cast_signed());
        Hlc { last: AtomicU64::new(0), limit, wall, steady, offset }
    }

    /// What this node takes for the time of day, in milliseconds since 1970.
    pub fn millis(&self) -> u64 {
        (self.steady)().saturating_add_signed(self.offset.load(Ordering::Relaxed))
    }

    /// By how many milliseconds the machine's time of day is ahead of what this node takes for it.
    pub fn jump(&self) -> i64 {
        (self.wall)().wrapping_sub(self.millis()).cast_signed()
    }

    /// Moves what this node takes for the time of day. Timestamps never go back, all the same.
    pub fn shift(&self, millis: i64) {
        self.offset.fetch_add(millis, Ordering::Relaxed);
    }

    /// A new timestamp, greater than every one given or observed before.
    pub fn now(&self) -> Timestamp {
        let wall = self.millis() << 16;
        let mut last = self.last.load(Ordering::Acquire);
        loop {
            let next = wall.max(last + 1);
            match self.last.compare_exchange_weak(last, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Timestamp(next),
                Err(seen) => last = seen,
            }
        }
    }

    /// The newest timestamp given or observed, without making a new one.
    pub fn last(&self) -> Timestamp {
        Timestamp(self.last.load(Ordering::Acquire))
    }

    /// Moves the clock past a timestamp from elsewhere, or refuses one too far in the future. One that this
    /// clock has passed already changes nothing and is never refused: a leader whose clock was ahead may have
    /// left such timestamps to everyone, in the log.
    pub fn observe(&self, remote: Timestamp) -> Result<(), ClockDrift> {
        if remote <= self.last() {
            return Ok(());
        }
        let wall = self.millis();
        let ahead_ms = remote.millis().saturating_sub(wall);
        let limit_ms = self.limit.as_millis() as u64;
        if ahead_ms > limit_ms {
            return Err(ClockDrift { ahead_ms, limit_ms });
        }
        self.adopt(remote);
        Ok(())
    }

    /// Moves the clock past a timestamp that is already part of this node's state (a committed log
    /// entry, its own disk), however far ahead it is: to refuse it would be to diverge.
    pub fn adopt(&self, known: Timestamp) {
        self.last.fetch_max(known.0, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_back_and_passes_what_it_saw() {
        let clock = Hlc::with_wall(Duration::from_millis(500), || 1_000);
        let a = clock.now();
        let b = clock.now();
        assert!(b > a);
        let seen = Timestamp::from_millis(1_400);
        clock.observe(seen).unwrap();
        assert!(clock.now() > seen);
    }

    #[test]
    fn does_not_jump_with_the_time_of_day() {
        static WALL: AtomicU64 = AtomicU64::new(5_000_000);
        static STEADY: AtomicU64 = AtomicU64::new(70);
        let read = || WALL.load(Ordering::Relaxed);
        let clock = Hlc::with_clocks(Duration::from_millis(500), read, || STEADY.load(Ordering::Relaxed));
        assert_eq!((clock.millis(), clock.jump()), (5_000_000, 0));
        for jump in [3_600_000, -3_600_000i64] {
            WALL.fetch_add(jump.cast_unsigned(), Ordering::Relaxed);
            STEADY.fetch_add(10, Ordering::Relaxed);
            WALL.fetch_add(10, Ordering::Relaxed);
            assert_eq!(clock.jump(), if jump > 0 { jump } else { 0 });
            assert!(clock.now().millis() < 5_000_100);
        }
        // Until somebody knows that it was right.
        WALL.fetch_add(60_000, Ordering::Relaxed);
        clock.shift(clock.jump());
        assert_eq!((clock.millis(), clock.jump()), (5_060_020, 0));
        let before = clock.now();
        clock.shift(-60_000);
        assert!(clock.now() > before, "a timestamp never goes back");
    }

    #[test]
    fn refuses_a_timestamp_too_far_ahead() {
        let clock = Hlc::with_wall(Duration::from_millis(500), || 1_000);
        let before = clock.now();
        assert_eq!(
            clock.observe(Timestamp::from_millis(1_501)),
            Err(ClockDrift { ahead_ms: 501, limit_ms: 500 })
        );
        assert_eq!(clock.now().0, before.0 + 1);
        // Once it is part of this node's state it is no news from anyone.
        clock.adopt(Timestamp::from_millis(9_000));
        assert_eq!(clock.observe(Timestamp::from_millis(9_000)), Ok(()));
        assert!(clock.observe(Timestamp::from_millis(9_001)).is_err());
    }
}

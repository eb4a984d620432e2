//! Where scans find nothing: ranges of keys in which no row is alive.
//!
//! Who deletes at one end of an index, as a work queue does, leaves versions there that stay for the retention time: every scan
//! from that end steps over all of them to find the first row. So that is remembered:
//!
//! ```text
//!   key   ─┼─x──x─x──x──x──x─x──x──●──●───●──►        x deleted, ● alive
//!        start                    end                 a gap: a scan that begins in it begins at its end
//! ```
//!
//! **What a gap says:** at no timestamp from `since` on has any key of it been alive, as far as entries are applied
//! here. **Why that stays true:** only a write of a value can make a key live, and whoever applies one first cuts
//! every gap that it falls into down to what lies before it, and then writes ([`Gaps::put`]). Deletions change nothing.
//!
//! **Why it is true at first:** a range is explored, not guessed from some statement's scan. It is announced, so that writes
//! are noted from then on; what was being applied at that moment is waited for, since it may have passed before the announcement;
//! then the range is read at the newest timestamp. What came meanwhile was noted and cuts the result. The flags and
//! counters that order the two sides are sequentially consistent: either the one who applies sees the announcement, or the
//! explorer sees that something is being applied.
//!
//! A statement that waited long for its first row asks for an exploration. Gaps are in memory only; data that is replaced by a
//! snapshot takes them with it.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use amphora_storage::Timestamp;
use amphora_storage::store::Direction;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::group::Inner;
use super::replica::{Replica, storage_error};
use crate::Result;

/// A scan whose first row took longer has stepped over very many versions, or the machine is slow.
pub const SLOW: Duration = Duration::from_micros(200);
/// Gaps remembered, at most: each costs whoever applies a write a comparison.
const MAX_GAPS: usize = 32;
/// Between two explorations.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two looks whether what was being applied is applied.
const LOOK: Duration = Duration::from_micros(200);

#[derive(Debug)]
struct Gap {
    end: Vec<u8>,
    since: Timestamp,
    /// When it was of use last, in explorations
    used: AtomicU64,
}

/// A range that is being read.
#[derive(Debug)]
struct Exploring {
    range: Range<Vec<u8>>,
    /// The least key that has been written meanwhile
    written: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct State {
    /// By where they begin
    gaps: BTreeMap<Vec<u8>, Gap>,
    exploring: Option<Exploring>,
}

/// The gaps of a node's tables.
#[derive(Debug, Default)]
pub struct Gaps {
    state: RwLock<State>,
    /// Whether there is anything in `state`
    some: AtomicBool,
    /// Batches of entries whose application has begun, and has ended
    begun: AtomicU64,
    ended: AtomicU64,
    explorations: AtomicU64,
    wanted: Mutex<Option<Range<Vec<u8>>>>,
    news: Notify,
}

/// Entries are being applied until it is dropped.
pub struct Applying<'a>(&'a Gaps);

impl Drop for Applying<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// All keys up to this one.
fn upto(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

impl Gaps {
    /// Where a scan of this range at this timestamp may begin instead.
    pub fn skip(&self, range: &Range<Vec<u8>>, at: Timestamp) -> Option<Vec<u8>> {
        if !self.some.load(Ordering::SeqCst) {
            return None;
        }
        let state = self.state.read();
        let (_, gap) = state.gaps.range::<[u8], _>(upto(&range.start)).next_back()?;
        if gap.since > at || gap.end <= range.start {
            return None;
        }
        gap.used.store(self.explorations.load(Ordering::Relaxed), Ordering::Relaxed);
        let beyond = !range.end.is_empty() && gap.end > range.end;
        Some(if beyond { range.end.clone() } else { gap.end.clone() })
    }

    /// A scan waited long for its first row.
    pub fn ask(&self, range: Range<Vec<u8>>) {
        *self.wanted.lock() = Some(range);
        self.news.notify_one();
    }

    /// Entries are about to be applied.
    pub fn begin(&self) -> Applying<'_> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Applying(self)
    }

    /// These keys are about to get values. To be called between [`begin`](Gaps::begin) and the write.
    pub fn put<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        if !self.some.load(Ordering::SeqCst) {
            return;
        }
        let mut state = self.state.write();
        let mut closed = false;
        for key in keys {
            for (start, gap) in state.gaps.range_mut::<[u8], _>(upto(key)) {
                if gap.end.as_slice() > key {
                    gap.end = key.to_vec();
                    closed |= *start >= gap.end;
                }
            }
            if let Some(exploring) = &mut state.exploring {
                let inside = exploring.range.start.as_slice() <= key
                    && (exploring.range.end.is_empty() || key < exploring.range.end.as_slice());
                if inside && exploring.written.as_deref().is_none_or(|least| key < least) {
                    exploring.written = Some(key.to_vec());
                }
            }
        }
        if closed {
            state.gaps.retain(|start, gap| *start < gap.end);
        }
        self.settle(&state);
    }

    /// The data is another's.
    pub fn clear(&self) {
        let mut state = self.state.write();
        state.gaps.clear();
        // What is being explored is of the old data.
        state.exploring = None;
        self.settle(&state);
    }

    fn settle(&self, state: &State) {
        self.some.store(!state.gaps.is_empty() || state.exploring.is_some(), Ordering::SeqCst);
    }

    /// Reads a range and remembers where its first row is. Blocks.
    fn explore(&self, replica: &Replica, mut range: Range<Vec<u8>>) -> Result<()> {
        // What is known already is not read again.
        if let Some(end) = self.skip(&range, Timestamp::MAX) {
            range.start = end;
        }
        if !range.end.is_empty() && range.start >= range.end {
            return Ok(());
        }
        self.explorations.fetch_add(1, Ordering::Relaxed);
        {
            let mut state = self.state.write();
            state.exploring = Some(Exploring { range: range.clone(), written: None });
            self.settle(&state);
        }
        let begun = self.begun.load(Ordering::SeqCst);
        while self.ended.load(Ordering::SeqCst) < begun {
            std::thread::sleep(LOOK);
        }
        let at = replica.applied_timestamp();
        let first = self.first_row(replica, &range, at);
        let mut state = self.state.write();
        let explored = state.exploring.take();
        if let (Ok(first), Some(explored)) = (&first, explored) {
            let end = first.iter().chain(&explored.written).min().unwrap_or(&range.end);
            if *end > range.start {
                self.remember(&mut state, range.start, end.clone(), at);
            }
        }
        self.settle(&state);
        first.map(drop)
    }

    fn first_row(&self, replica: &Replica, range: &Range<Vec<u8>>, at: Timestamp) -> Result<Option<Vec<u8>>> {
        let mut scan = replica.store.scan(range.clone(), at, Direction::Forward).map_err(storage_error)?;
        let first = scan.next().map_err(storage_error)?;
        Ok(first.map(|entry| entry.key.to_vec()))
    }

    fn remember(&self, state: &mut State, start: Vec<u8>, end: Vec<u8>, since: Timestamp) {
        let used = AtomicU64::new(self.explorations.load(Ordering::Relaxed));
        // One that ends where this begins goes on with it.
        if let Some((_, gap)) = state.gaps.range_mut::<[u8], _>(upto(&start)).next_back()
            && gap.end >= start
        {
            *gap = Gap { end: end.max(std::mem::take(&mut gap.end)), since: since.max(gap.since), used };
            return;
        }
        if state.gaps.len() >= MAX_GAPS {
            let oldest = state.gaps.iter().min_by_key(|(_, gap)| gap.used.load(Ordering::Relaxed));
            if let Some(oldest) = oldest.map(|(start, _)| start.clone()) {
                state.gaps.remove(&oldest);
            }
        }
        state.gaps.insert(start, Gap { end, since, used });
    }
}

/// Explores what is asked for, for as long as the group lives.
pub(super) async fn explore(group: Weak<Inner>) {
    loop {
        let Some(replica) = group.upgrade().map(|inner| inner.replica.clone()) else { return };
        replica.gaps.news.notified().await;
        let wanted = replica.gaps.wanted.lock().take();
        if let Some(range) = wanted {
            let explored = tokio::task::spawn_blocking(move || replica.gaps.explore(&replica, range)).await;
            if let Ok(Err(e)) = explored {
                tracing::debug!("a range could not be explored: {e}");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::testing::{Cluster, key, put};
    use super::super::types::Write;
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn range() -> Range<Vec<u8>> {
        key("")..key("~")
    }

    fn name(n: u64) -> String {
        format!("{n:06}")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_gap_is_skipped_goes_on_and_is_cut_by_what_is_written_into_it() {
        let cluster = Cluster::one().await;
        let (group, replica) = (&cluster.node(1).group, &cluster.node(1).group.inner.replica);
        let gaps = &replica.gaps;
        let mut versions = Vec::new();
        for n in 0..30 {
            versions.push(group.commit(put(group, &name(n), Timestamp::ZERO, "x")).await.unwrap());
        }
        let before = group.applied_timestamp();
        let delete = async |n: u64| {
            let mut request = put(group, &name(n), versions[n as usize], "");
            request.writes = vec![Write { key: key(&name(n)), value: None }];
            group.commit(request).await.unwrap();
        };
        for n in 0..10 {
            delete(n).await;
        }
        assert_eq!(gaps.skip(&range(), Timestamp::MAX), None);
        gaps.explore(replica, range()).unwrap();
        assert_eq!(gaps.skip(&range(), group.applied_timestamp()), Some(key(&name(10))));
        assert_eq!(gaps.skip(&range(), before), None, "an older snapshot sees the rows");
        assert_eq!(gaps.skip(&(key(&name(3))..key(&name(7))), Timestamp::MAX), Some(key(&name(7))));
        assert_eq!(gaps.skip(&(key(&name(12))..key(&name(20))), Timestamp::MAX), None);
        for n in 10..20 {
            delete(n).await;
        }
        gaps.explore(replica, range()).unwrap();
        assert_eq!(gaps.skip(&range(), Timestamp::MAX), Some(key(&name(20))));
        assert_eq!(gaps.state.read().gaps.len(), 1, "it went on");
        group.commit(put(group, &name(5), Timestamp::ZERO, "y")).await.unwrap();
        assert_eq!(gaps.skip(&range(), Timestamp::MAX), Some(key(&name(5))));
        gaps.clear();
        assert_eq!(gaps.skip(&range(), Timestamp::MAX), None);
    }

    /// Random inserts and deletes beside explorations: a scan that begins where it may finds what one that
    /// begins at the beginning finds. `AMPHORA_SEED` repeats a run.
    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn no_row_is_ever_skipped() {
        let seed = std::env::var("AMPHORA_SEED").ok().and_then(|s| s.parse().ok());
        let seed = seed.unwrap_or_else(rand::random::<u64>);
        println!("AMPHORA_SEED={seed}");
        let cluster = Cluster::one().await;
        let (group, replica) = (cluster.node(1).group.clone(), cluster.node(1).group.inner.replica.clone());
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let explorer = std::thread::spawn({
            let (replica, stop) = (replica.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    replica.gaps.explore(&replica, range()).unwrap();
                    replica.gaps.explore(&replica, key(&name(20))..key("~")).unwrap();
                }
            }
        });
        let checker = std::thread::spawn({
            let (replica, stop) = (replica.clone(), stop.clone());
            move || {
                let mut skipped = 0;
                while !stop.load(Ordering::Relaxed) {
                    let at = replica.applied_timestamp();
                    let Some(from) = replica.gaps.skip(&range(), at) else { continue };
                    skipped += 1;
                    let whole = replica.gaps.first_row(&replica, &range(), at).unwrap();
                    let rest = replica.gaps.first_row(&replica, &(from..range().end), at).unwrap();
                    assert_eq!(whole, rest);
                }
                skipped
            }
        });
        let mut rng = StdRng::seed_from_u64(seed);
        let mut versions = [Timestamp::ZERO; 40];
        for _ in 0..1500 {
            let n = rng.random_range(0..40usize);
            let mut request = put(&group, &name(n as u64), versions[n], "x");
            // Mostly deletions at the beginning, so that there are gaps.
            let delete = rng.random_range(0..40) > n;
            if delete {
                request.writes = vec![Write { key: key(&name(n as u64)), value: None }];
            }
            let at = group.commit(request).await.unwrap();
            versions[n] = if delete { Timestamp::ZERO } else { at };
        }
        stop.store(true, Ordering::Relaxed);
        explorer.join().unwrap();
        assert!(checker.join().unwrap() > 0);
    }
}

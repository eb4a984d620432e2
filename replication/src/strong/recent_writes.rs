//! Which keys were written lately: what SERIALIZABLE transactions are certified against.
//!
//! **The rule.** A transaction that read at snapshot S and asks to commit now may commit if no commit after S
//! wrote into what it read. Then all that it read is as it was at S *and* as it is now, so it is as if it had
//! run at the moment of its commit, alone:
//!
//! ```text
//!      S ─────── commits of others ─────── C          time (= order of the log)
//!      │ reads                             │ writes
//!      └──── none of them wrote a key ─────┘
//!            in a range that was read
//! ```
//!
//! **Why this is serializable.** Commit timestamps grow strictly in log order and this check is made where they
//! are given, one transaction after another. So every SERIALIZABLE transaction that writes is equal to one that
//! runs as a whole at its commit timestamp. One that does not write is equal to one that runs as a whole at its
//! snapshot, because a snapshot is a prefix of that very order: it shows all of each transaction before it and
//! nothing of those after. There is no third kind, and so no transaction that only reads ever has to be
//! refused, nor to wait for a safe snapshot as PostgreSQL's READ ONLY DEFERRABLE does: every snapshot is safe. (PostgreSQL's
//! SSI lets a writer commit that read what was overwritten meanwhile, as if it had come earlier. That admits more, and
//! is why snapshots can be unsafe there.) The order also respects real time: a snapshot shows everything that was
//! acknowledged before it was taken.
//!
//! Writers at lower levels take part: what they write is noted like everything else.
//!
//! **What is known.** A leader has seen all commits since its tenure began. Snapshots from before then are
//! refused, and so are those from before what was forgotten: memory is bounded by [`MAX_BYTES`], and of the keyspace that takes
//! most of it the older half is forgotten but for its newest timestamp. What a staged transaction writes is not
//! looked at key by key: it counts as having written all of its keyspaces.
//!
//! This is a state machine without time or I/O of its own: [`note`](RecentWrites::note) and
//! [`have_moved`](RecentWrites::have_moved) are all that happens to it.

use std::collections::{BTreeMap, VecDeque};

use amphora_storage::Timestamp;

use super::read_set::{ReadRange, Reads};

/// Bytes of keys and of what keeping them takes, at most.
const MAX_BYTES: usize = 32 << 20;
/// What an entry takes beside its key.
const ENTRY_OVERHEAD: usize = 48;
/// Keyspaces, at most.
const MAX_KEYSPACES: usize = 65_536;
/// Bytes of a key that name its keyspace.
const KEYSPACE: usize = 4;

type KeyspaceName = [u8; KEYSPACE];

/// The keys written in one keyspace.
#[derive(Debug, Default)]
struct Keyspace {
    /// The newest commit that wrote to it
    newest: Timestamp,
    /// Commits up to here may have written anything
    forgotten: Timestamp,
    /// In the order of their commits
    writes: VecDeque<(Timestamp, Box<[u8]>)>,
    bytes: usize,
}

/// The keys written since a tenure began.
#[derive(Debug)]
pub struct RecentWrites {
    /// Commits up to here may have written anything
    floor: Timestamp,
    keyspaces: BTreeMap<KeyspaceName, Keyspace>,
    bytes: usize,
    max_bytes: usize,
}

fn keyspace_of(key: &[u8]) -> Option<KeyspaceName> {
    key.first_chunk::<KEYSPACE>().copied()
}

impl RecentWrites {
    /// Nothing is known of commits up to `floor`, and there were none after it.
    pub fn after(floor: Timestamp) -> RecentWrites {
        RecentWrites::with_limit(floor, MAX_BYTES)
    }

    /// With a bound of its own.
    pub fn with_limit(floor: Timestamp, max_bytes: usize) -> RecentWrites {
        RecentWrites { floor, keyspaces: BTreeMap::new(), bytes: 0, max_bytes }
    }

    /// A transaction commits at `at`, later than all before it, and writes these keys.
    pub fn note<'a>(&mut self, at: Timestamp, keys: impl Iterator<Item = &'a [u8]>) {
        for key in keys {
            let Some(name) = keyspace_of(key) else {
                // No such key is ever read.
                continue;
            };
            let keyspace = self.keyspaces.entry(name).or_default();
            keyspace.newest = at;
            keyspace.writes.push_back((at, key.into()));
            keyspace.bytes += key.len() + ENTRY_OVERHEAD;
            self.bytes += key.len() + ENTRY_OVERHEAD;
        }
        self.forget();
    }

    /// A transaction commits at `at` that may write any key of these keyspaces; of any at all if none is named.
    pub fn note_all_of(&mut self, at: Timestamp, keyspaces: impl ExactSizeIterator<Item = KeyspaceName>) {
        if keyspaces.len() == 0 {
            self.forget_everything(at);
        }
        for name in keyspaces {
            let keyspace = self.keyspaces.entry(name).or_default();
            self.bytes -= keyspace.bytes;
            *keyspace = Keyspace { newest: at, forgotten: at, ..Keyspace::default() };
        }
        self.forget();
    }

    fn forget_everything(&mut self, up_to: Timestamp) {
        self.floor = self.floor.max(up_to);
        self.keyspaces.clear();
        self.bytes = 0;
    }

    fn forget(&mut self) {
        while self.bytes > self.max_bytes {
            let Some(largest) = self.keyspaces.values_mut().max_by_key(|k| k.bytes) else { return };
            let before = largest.bytes;
            for _ in 0..largest.writes.len().div_ceil(2) {
                if let Some((at, key)) = largest.writes.pop_front() {
                    largest.forgotten = at;
                    largest.bytes -= key.len() + ENTRY_OVERHEAD;
                }
            }
            self.bytes -= before - largest.bytes;
        }
        if self.keyspaces.len() > MAX_KEYSPACES {
            let newest = self.keyspaces.values().map(|k| k.newest).max().unwrap_or(self.floor);
            self.forget_everything(newest);
        }
    }

    /// True if something that was read may have been written since.
    pub fn have_moved(&self, reads: &Reads) -> bool {
        let Some((first, last)) = reads.ranges.first().zip(reads.ranges.last()) else { return false };
        if reads.since < self.floor {
            return true;
        }
        let from = keyspace_of(&first.start).unwrap_or([0; KEYSPACE]);
        let to = keyspace_of(&last.end).unwrap_or([u8::MAX; KEYSPACE]);
        let moved = |(name, keyspace): (&KeyspaceName, &Keyspace)| {
            keyspace.newest > reads.since && keyspace.has_moved(reads.since, within(&reads.ranges, *name))
        };
        from <= to && self.keyspaces.range(from..=to).any(moved)
    }
}

/// Those of these ranges that reach into a keyspace.
fn within(ranges: &[ReadRange], name: KeyspaceName) -> &[ReadRange] {
    let from = ranges.partition_point(|r| r.end.as_slice() <= name.as_slice());
    let starts_in = |r: &ReadRange| r.start.get(..KEYSPACE).unwrap_or(&r.start) <= name.as_slice();
    let to = ranges.partition_point(starts_in);
    ranges.get(from..to).unwrap_or(&[])
}

impl Keyspace {
    fn has_moved(&self, since: Timestamp, ranges: &[ReadRange]) -> bool {
        if ranges.is_empty() {
            return false;
        }
        if self.forgotten > since {
            return true;
        }
        let newer = self.writes.iter().rev().take_while(|(at, _)| *at > since);
        newer.into_iter().any(|(_, key)| {
            let after = ranges.partition_point(|r| r.start.as_slice() <= &**key);
            after.checked_sub(1).and_then(|i| ranges.get(i)).is_some_and(|r| **key < *r.end)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::read_set::ReadSet;
    use super::*;

    fn key(table: u8, n: u8) -> Vec<u8> {
        vec![0, 0, 0, table, 0, 0, 0, 0, n]
    }

    fn read(since: u64, ranges: &[(u8, u8, u8)]) -> Reads {
        let mut set = ReadSet::new(Timestamp(since));
        for &(table, from, to) in ranges {
            set.add(key(table, from), key(table, to));
        }
        set.to_reads()
    }

    fn write(recent: &mut RecentWrites, at: u64, keys: &[(u8, u8)]) {
        let keys: Vec<Vec<u8>> = keys.iter().map(|&(t, n)| key(t, n)).collect();
        recent.note(Timestamp(at), keys.iter().map(Vec::as_slice));
    }

    #[test]
    fn what_was_read_before_it_was_written_has_moved() {
        let mut recent = RecentWrites::after(Timestamp(10));
        write(&mut recent, 11, &[(1, 5), (2, 5)]);
        write(&mut recent, 12, &[(1, 9)]);
        assert!(recent.have_moved(&read(10, &[(1, 3, 6)])));
        assert!(!recent.have_moved(&read(11, &[(1, 3, 6)])), "it was read after it was written");
        assert!(!recent.have_moved(&read(10, &[(1, 6, 9)])), "the end is not part of a range");
        assert!(recent.have_moved(&read(11, &[(0, 0, 9), (1, 6, 10), (3, 0, 9)])));
        assert!(!recent.have_moved(&read(10, &[(0, 0, 99), (3, 0, 99)])));
        assert!(recent.have_moved(&read(9, &[(3, 0, 1)])), "older than all that is known");
        assert!(!recent.have_moved(&read(9, &[])), "what read nothing is never too old");
    }

    #[test]
    fn what_is_forgotten_may_have_been_anything() {
        let mut recent = RecentWrites::with_limit(Timestamp(10), 40 * (9 + ENTRY_OVERHEAD));
        for n in 0..100 {
            write(&mut recent, 11 + n, &[(1, n as u8)]);
        }
        write(&mut recent, 200, &[(2, 1)]);
        assert!(recent.bytes <= recent.max_bytes);
        assert!(recent.have_moved(&read(11, &[(1, 200, 201)])));
        assert!(!recent.have_moved(&read(110, &[(1, 0, 255)])));
        assert!(!recent.have_moved(&read(11, &[(2, 2, 9)])), "another keyspace was not forgotten");
        recent.note_all_of(Timestamp(201), [[0, 0, 0, 2]].into_iter());
        assert!(recent.have_moved(&read(200, &[(2, 2, 9)])));
        assert!(!recent.have_moved(&read(200, &[(1, 2, 9)])));
        recent.note_all_of(Timestamp(202), [].into_iter());
        assert!(recent.have_moved(&read(201, &[(1, 2, 9)])));
        assert!(!recent.have_moved(&read(202, &[(1, 2, 9)])));
    }
}

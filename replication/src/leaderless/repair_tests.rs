//! Two stores with random differences: those are found and no others, and mended both ways.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use amphora_storage::schema::ColumnId;
use amphora_storage::store::{Batch, Cf, Store, StoreOptions};
use amphora_storage::{Datum, Hlc, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::cell::{Cell, Counter, Lww, Share};
use super::repair::{FoundRow, OfferedRow, RepairReply, RepairRequest};
use super::*;
use crate::NodeId;

struct Disk {
    engine: Arc<Engine>,
    store: Arc<Store>,
    _folder: tempfile::TempDir,
}

fn disk(id: NodeId) -> Disk {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    let engine = Engine::open(store.clone(), id, Arc::new(Hlc::new(Hlc::DEFAULT_DRIFT))).unwrap();
    Disk { engine, store, _folder: folder }
}

fn state(random: &mut StdRng) -> RowState {
    let mut state = RowState { cl: random.random_range(1..4), born: true, ..RowState::default() };
    let hlc = Timestamp(random.random_range(1..4));
    let lww = Lww { hlc, origin: 1, seq: hlc.0, value: Datum::Int8(hlc.0 as i64) };
    state.cells.insert(ColumnId(1), Cell::Lww(lww));
    let mut counter = Counter::default();
    for origin in 1..=3 {
        let version = random.random_range(0..3);
        counter.shares.insert(origin, Share { version, total: i128::from(version) * 5 });
    }
    state.cells.insert(ColumnId(2), Cell::Counter(counter));
    state
}

fn key(n: u32) -> Vec<u8> {
    format!("k{n:06}").into_bytes()
}

impl Disk {
    fn put(&self, key: &[u8], state: &RowState) {
        let mut batch = Batch::new();
        self.engine.log.put_state(&mut batch, key, state);
        self.store.write(batch).unwrap();
    }

    fn flip_a_bit(&self, key: &[u8], random: &mut StdRng) {
        let mut stored = self.store.get_plain(Cf::Leaderless, key).unwrap().unwrap();
        let at = random.random_range(0..stored.len());
        stored[at] ^= 1 << random.random_range(0..8);
        let mut batch = Batch::new();
        batch.put(Cf::Leaderless, key, stored);
        self.store.write(batch).unwrap();
    }

    fn ask(&self, request: RepairRequest) -> RepairReply {
        self.engine.answer_repair(request, 0)
    }

    fn found(&self, key: &[u8]) -> FoundRow {
        self.engine.found(&[key.to_vec()], 0).unwrap().0.remove(0)
    }

    /// Lets this one have a row of the other, and says whether it was news.
    fn take(&self, key: &[u8], other: &Disk, replace: bool) -> bool {
        let FoundRow::Sound(state) = other.found(key) else { return false };
        let rows = vec![OfferedRow { key: key.to_vec(), state, replace }];
        let RepairReply::Joined(news) = self.ask(RepairRequest::Join(rows, repair::Seen::default())) else {
            panic!("it could not be joined");
        };
        !news.is_empty()
    }
}

/// The keys that differ in any stretch of the table, found as the coordinator finds them.
fn differing(ours: &Disk, theirs: &Disk, all: Range<Vec<u8>>) -> BTreeSet<Vec<u8>> {
    let (mut start, mut found) = (all.start, BTreeSet::new());
    while start < all.end {
        let stretch = ours.engine.stretch(start..all.end.clone()).unwrap();
        start = stretch.leaves.end.clone();
        let request = RepairRequest::Tree(stretch.leaves.clone(), stretch.tree.root().copied());
        let tree = match theirs.ask(request) {
            RepairReply::Same(_) => continue,
            RepairReply::Tree(tree) => tree,
            other => panic!("{other:?}"),
        };
        for leaf in stretch.tree.differing(&tree).unwrap() {
            let mut range = stretch.leaves.range(leaf).unwrap();
            loop {
                let RepairReply::Hashes(there) = theirs.ask(RepairRequest::Hashes(range.clone())) else {
                    panic!("no hashes");
                };
                let until = there.next.clone().unwrap_or_else(|| range.end.clone());
                let here = ours.engine.hashes(range.start..until.clone()).unwrap();
                let here: BTreeSet<_> = here.rows.into_iter().collect();
                let there: BTreeSet<_> = there.rows.into_iter().collect();
                found.extend(here.symmetric_difference(&there).map(|(key, _)| key.clone()));
                if until >= range.end {
                    break;
                }
                range.start = until;
            }
        }
    }
    found
}

#[test]
fn exactly_what_differs_is_found_and_both_end_with_the_join_of_both() {
    let seed = std::env::var("AMPHORA_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("AMPHORA_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..6 {
        let (ours, theirs) = (disk(1), disk(2));
        // More than one tree has leaves for, now and then.
        let rows = if round == 0 { 20_000 } else { random.random_range(0..3000) };
        let (mut expected, mut joined) = (BTreeSet::new(), Vec::new());
        for n in 0..rows {
            let (key, state_here) = (key(n), state(&mut random));
            let chance = if round == 0 { 2000 } else { 12 };
            let there = match random.random_range(0..chance) {
                0 => None,
                1 => Some(state(&mut random)),
                _ => Some(state_here.clone()),
            };
            let here = (random.random_range(0..chance) != 0).then_some(state_here);
            if here != there {
                expected.insert(key.clone());
            }
            let mut both = RowState::default();
            for (disk, state) in [(&ours, &here), (&theirs, &there)] {
                if let Some(state) = state {
                    disk.put(&key, state);
                    both.join(state);
                }
            }
            if here.is_some() || there.is_some() {
                joined.push((key, both));
            }
        }
        let all = key(0)..key(999_999);
        assert_eq!(differing(&ours, &theirs, all.clone()), expected, "round {round}");
        for key in &expected {
            ours.take(key, &theirs, false);
            theirs.take(key, &ours, false);
        }
        assert!(differing(&ours, &theirs, all).is_empty());
        for (key, state) in joined {
            assert_eq!(ours.found(&key), FoundRow::Sound(state.clone()));
            assert_eq!(theirs.found(&key), FoundRow::Sound(state.clone()));
            // What is in memory is what is on disk.
            assert_eq!(*ours.engine.state(&key).unwrap().unwrap(), state);
        }
    }
}

#[test]
fn a_flipped_bit_never_spreads_and_is_replaced() {
    let seed = std::env::var("AMPHORA_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("AMPHORA_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (ours, theirs) = (disk(1), disk(2));
    for n in 0..300 {
        let state = state(&mut random);
        ours.put(&key(n), &state);
        theirs.put(&key(n), &state);
        // Wherever the bit is.
        if n % 3 == 0 {
            theirs.flip_a_bit(&key(n), &mut random);
        }
    }
    let all = key(0)..key(999_999);
    let damaged: BTreeSet<_> = (0..300).step_by(3).map(key).collect();
    assert_eq!(differing(&ours, &theirs, all.clone()), damaged);
    for key in &damaged {
        assert_eq!(theirs.found(key), FoundRow::Damaged);
        assert_eq!(theirs.engine.state(key).unwrap_err().sqlstate, "XX001");
        assert!(!ours.take(key, &theirs, false), "a damaged row is given to nobody");
        assert!(!theirs.take(key, &ours, false), "nor joined into");
        assert!(theirs.take(key, &ours, true));
        assert!(!theirs.take(key, &ours, true));
    }
    assert!(differing(&ours, &theirs, all.clone()).is_empty());
    // The one that compares notices its own.
    ours.flip_a_bit(&key(7), &mut random);
    assert_eq!(ours.engine.stretch(all).unwrap().damaged, [key(7)]);
}

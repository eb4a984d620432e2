#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::key;

fn open(dir: &Path) -> Arc<Store> {
    Store::open(dir, StoreOptions::default()).unwrap()
}

fn ts(t: u64) -> Timestamp {
    Timestamp(t)
}

fn put(store: &Store, key: &[u8], t: u64, value: &[u8]) {
    let mut batch = Batch::new();
    batch.put_strong(key, ts(t), value);
    store.write(batch).unwrap();
}

fn delete(store: &Store, key: &[u8], t: u64) {
    let mut batch = Batch::new();
    batch.delete_strong(key, ts(t));
    store.write(batch).unwrap();
}

fn scan(
    store: &Store,
    start: &[u8],
    end: &[u8],
    at: u64,
    direction: Direction,
) -> Vec<(Vec<u8>, u64, Vec<u8>)> {
    let mut scan = store.scan(start.to_vec()..end.to_vec(), ts(at), direction).unwrap();
    let mut found = Vec::new();
    while let Some(e) = scan.next().unwrap() {
        found.push((e.key.to_vec(), e.ts.0, e.value.to_vec()));
    }
    found
}

fn value(store: &Store, key: &[u8], at: u64) -> Option<(u64, Vec<u8>)> {
    store.get(key, ts(at)).unwrap().map(|v| (v.ts.0, v.value))
}

#[test]
fn reads_as_of_a_timestamp() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for flushed in [false, true] {
        if !flushed {
            put(&store, b"\x01\0\0\0k", 10, b"a");
            put(&store, b"\x01\0\0\0k", 20, b"b");
            delete(&store, b"\x01\0\0\0k", 30);
            put(&store, b"\x01\0\0\0k", 40, b"c");
            put(&store, b"\x01\0\0\0k2", 15, b"other");
        } else {
            store.flush().unwrap();
        }
        let k = b"\x01\0\0\0k";
        assert_eq!(value(&store, k, 9), None);
        assert_eq!(value(&store, k, 10), Some((10, b"a".to_vec())));
        assert_eq!(value(&store, k, 29), Some((20, b"b".to_vec())));
        assert_eq!(value(&store, k, 30), None);
        assert_eq!(value(&store, k, u64::MAX), Some((40, b"c".to_vec())));
        assert_eq!(store.newest(k).unwrap(), ts(40));
        assert_eq!(store.newest(b"\x01\0\0\0absent").unwrap(), Timestamp::ZERO);
        let many = store.multi_get(&[&k[..], b"\x01\0\0\0none", b"\x01\0\0\0k2"], ts(20)).unwrap();
        let many: Vec<_> = many.into_iter().map(|v| v.map(|v| (v.ts.0, v.value))).collect();
        assert_eq!(many, [Some((20, b"b".to_vec())), None, Some((15, b"other".to_vec()))]);
    }
    delete(&store, b"\x01\0\0\0k", 50);
    assert_eq!(store.newest(b"\x01\0\0\0k").unwrap(), Timestamp::ZERO);
}

#[test]
fn scans_both_ways_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for flushed in [false, true] {
        if !flushed {
            for (i, k) in [b"\x01\0\0\0a", b"\x01\0\0\0b", b"\x01\0\0\0c", b"\x01\0\0\0d"].iter().enumerate()
            {
                put(&store, *k, 10 + i as u64, b"1");
                put(&store, *k, 20 + i as u64, b"2");
            }
            delete(&store, b"\x01\0\0\0c", 30);
        } else {
            store.flush().unwrap();
        }
        let keys = |start: &[u8], end: &[u8], at, direction| -> String {
            let found = scan(&store, start, end, at, direction);
            found.iter().map(|(k, t, v)| format!("{}{}@{t} ", k[4] as char, v[0] as char)).collect()
        };
        use Direction::{Backward, Forward};
        let (low, high): (&[u8], &[u8]) = (b"\x01\0\0\0", b"\x01\0\0\x01");
        assert_eq!(keys(low, high, 100, Forward), "a2@20 b2@21 d2@23 ");
        assert_eq!(keys(low, high, 100, Backward), "d2@23 b2@21 a2@20 ");
        assert_eq!(keys(low, high, 12, Forward), "a1@10 b1@11 c1@12 ");
        assert_eq!(keys(low, high, 12, Backward), "c1@12 b1@11 a1@10 ");
        assert_eq!(keys(b"\x01\0\0\0b", b"\x01\0\0\0d", 25, Forward), "b2@21 c2@22 ");
        assert_eq!(keys(b"\x01\0\0\0b", b"\x01\0\0\0d", 25, Backward), "c2@22 b2@21 ");
        assert_eq!(keys(b"\x01\0\0\0d", b"\x01\0\0\0b", 25, Forward), "");
        assert_eq!(keys(b"\x01\0\0\0d", b"\x01\0\0\0b", 25, Backward), "");
        assert_eq!(keys(b"", b"", 25, Backward), "d2@23 c2@22 b2@21 a2@20 ");
        assert_eq!(keys(b"", b"", 25, Forward), "a2@20 b2@21 c2@22 d2@23 ");
    }
}

#[test]
fn a_scan_sees_its_own_moment_and_outlives_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, b"\x01\0\0\0a", 1, b"x");
    let mut scan = store.scan(Vec::new()..Vec::new(), Timestamp::MAX, Direction::Forward).unwrap();
    put(&store, b"\x01\0\0\0a", 2, b"y");
    put(&store, b"\x01\0\0\0b", 2, b"y");
    store.flush().unwrap();
    drop(store);
    assert_eq!(scan.next().unwrap().unwrap().value, b"x");
    assert!(scan.next().unwrap().is_none());
    assert!(scan.next().unwrap().is_none());
}

#[test]
fn plain_families() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut batch = Batch::new();
    for i in 0..10u8 {
        batch.put(Cf::Conflicts, [i], [i * 2]);
    }
    batch.delete(Cf::Conflicts, [3]);
    batch.delete_range(Cf::Conflicts, &(vec![5]..vec![8]));
    batch.put(Cf::Meta, b"m", b"v");
    store.write(batch).unwrap();
    let keys = |direction| {
        let mut scan = store.scan_plain(Cf::Conflicts, vec![1]..vec![9], direction).unwrap();
        let mut found = Vec::new();
        while let Some(e) = scan.next().unwrap() {
            found.push(e.key[0]);
        }
        found
    };
    assert_eq!(keys(Direction::Forward), [1, 2, 4, 8]);
    assert_eq!(keys(Direction::Backward), [8, 4, 2, 1]);
    assert_eq!(store.get_plain(Cf::Meta, b"m").unwrap().unwrap(), b"v");
    assert!(store.get_plain(Cf::Strong, b"m").is_err());
    assert!(store.get_plain(Cf::Leaderless, b"m").unwrap().is_none());
}

#[test]
fn the_applied_record_is_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(store.applied().unwrap(), None);
    for i in 1..4u8 {
        let mut batch = Batch::new();
        batch.put_strong([1, 0, 0, 0], ts(u64::from(i)), b"v");
        batch.set_applied([i]);
        store.write(batch).unwrap();
    }
    assert_eq!(store.applied().unwrap(), Some(vec![3]));
    assert_eq!(scan(&store, b"", b"", u64::MAX, Direction::Forward).len(), 1);
    assert_eq!(scan(&store, b"", b"", u64::MAX, Direction::Backward).len(), 1);
    assert_eq!(store.durable_applied(), None);
    store.flush().unwrap();
    assert_eq!(store.durable_applied(), Some(vec![3]));
    let mut batch = Batch::new();
    batch.set_applied([4]);
    store.write(batch).unwrap();
    assert_eq!(store.durable_applied(), Some(vec![3]));
    assert_eq!(store.applied().unwrap(), Some(vec![4]));
}

#[test]
fn collected_history_is_refused_and_versions_keep_their_timestamps() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let k = b"\x01\0\0\0k";
    put(&store, k, 10, b"a");
    put(&store, k, 20, b"b");
    let mut old = store.scan(Vec::new()..Vec::new(), ts(15), Direction::Forward).unwrap();
    store.advance_history(ts(30)).unwrap();
    store.advance_history(ts(25)).unwrap();
    assert_eq!(store.history_low(), ts(30));
    let too_old = |e: StorageError| matches!(e, StorageError::SnapshotTooOld { .. });
    assert!(too_old(store.get(k, ts(29)).unwrap_err()));
    assert!(store.multi_get(&[k], ts(29)).is_err_and(too_old));
    assert!(store.scan(Vec::new()..Vec::new(), ts(29), Direction::Forward).is_err_and(too_old));
    // One that was opened in time goes on.
    assert_eq!(old.next().unwrap().unwrap().value, b"a");
    // Compaction to the last level zeroes RocksDB's own timestamps of collected history; ours stay.
    store.flush().unwrap();
    compact(&store);
    assert_eq!(store.newest(k).unwrap(), ts(20));
    assert_eq!(value(&store, k, 30), Some((20, b"b".to_vec())));
    assert_eq!(scan(&store, b"", b"", 30, Direction::Forward), [(k.to_vec(), 20, b"b".to_vec())]);
    drop(old);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.history_low(), ts(30));
    assert!(too_old(store.get(k, ts(29)).unwrap_err()));
    put(&store, k, 40, b"c");
    assert_eq!(value(&store, k, 39), Some((20, b"b".to_vec())));
}

fn compact(store: &Store) {
    let generation = store.shared.current.load_full();
    let mut options = rocksdb::CompactOptions::default();
    options.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::Force);
    let none = None::<&[u8]>;
    generation.db().compact_range_cf_opt(generation.cf(Cf::Strong).unwrap(), none, none, &options);
}

#[test]
fn dropped_tables_are_reclaimed_when_their_history_has_passed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let row = |table: u32, i: u32| [&table.to_be_bytes()[..], &i.to_be_bytes()].concat();
    for table in 1..=3u32 {
        for i in 0..3000u32 {
            put(&store, &row(table, i), 10, &[7; 50]);
        }
        store.flush().unwrap();
    }
    compact(&store);
    let range = |table: u32| key::prefix_range(&table.to_be_bytes());
    assert!(store.approximate_size(Cf::Strong, &range(2)).unwrap() > 1000);
    store.drop_table_range(&2u32.to_be_bytes(), ts(20)).unwrap();
    assert_eq!(store.reclaim_dropped().unwrap(), 0);
    assert_eq!(value(&store, &row(2, 5), 19).unwrap().0, 10);
    store.advance_history(ts(21)).unwrap();
    // The background may have been faster.
    store.reclaim_dropped().unwrap();
    for _ in 0..200 {
        let mut notes =
            store.scan_plain(Cf::Meta, key::prefix_range(batch::DROPPED), Direction::Forward).unwrap();
        if notes.next().unwrap().is_none() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(value(&store, &row(2, 5), 30), None);
    compact(&store);
    assert_eq!(store.approximate_size(Cf::Strong, &range(2)).unwrap(), 0);
    for table in [1, 3] {
        let Range { start, end } = range(table);
        assert_eq!(scan(&store, &start, &end, 30, Direction::Forward).len(), 3000);
    }
}

#[test]
fn a_second_store_in_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path());
    let error = Store::open(dir.path(), StoreOptions::default()).unwrap_err();
    assert!(matches!(error, StorageError::Locked { .. }), "{error}");
}

#[test]
fn an_idle_store_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, b"\x01\0\0\0k", 10, b"a");
    assert!(store.memory_usage() < 24 << 20, "{}", store.memory_usage());
}

//! Crashes: the files of a running store are copied as the system has them, without what RocksDB still
//! buffers, and a second store is opened on the copy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use super::*;

fn open(dir: &Path) -> Arc<Store> {
    Store::open(dir, StoreOptions::default()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_name() != "LOCK" {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn crash(dir: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    copy(dir, to.path());
    to
}

/// One entry of a Raft log, as it is applied: rows, a leaderless part, and the record of it.
fn apply(store: &Store, i: u64) {
    let mut batch = Batch::new();
    batch.put_strong([&[1, 0, 0, 0], &i.to_be_bytes()[..]].concat(), Timestamp(i), [0; 64]);
    batch.put(Cf::Leaderless, [b"mixed", &i.to_be_bytes()[..]].concat(), b"joined");
    batch.set_applied(i.to_le_bytes());
    store.write(batch).unwrap();
}

fn applied(store: &Store) -> u64 {
    store.applied().unwrap().map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap()))
}

/// Everything up to the applied record is there, and nothing after it.
fn check_applied(store: &Store) -> u64 {
    let upto = applied(store);
    let mut rows = store.scan(Vec::new()..Vec::new(), Timestamp::MAX, Direction::Forward).unwrap();
    let mut expected = 1;
    while let Some(row) = rows.next().unwrap() {
        assert_eq!(row.ts, Timestamp(expected));
        expected += 1;
    }
    assert_eq!(expected, upto + 1);
    let mut mixed =
        store.scan_plain(Cf::Leaderless, crate::key::prefix_range(b"mixed"), Direction::Forward).unwrap();
    let mut count = 0;
    while mixed.next().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, upto);
    upto
}

#[test]
fn a_crash_loses_unflushed_state_and_its_applied_record_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for i in 1..=100 {
        apply(&store, i);
    }
    store.flush().unwrap();
    for i in 101..=200 {
        apply(&store, i);
    }
    let after = crash(dir.path());
    let reopened = open(after.path());
    assert_eq!(check_applied(&reopened), 100);
    assert_eq!(reopened.durable_applied(), Some(100u64.to_le_bytes().to_vec()));
    // The Raft log replays the rest.
    for i in 101..=300 {
        apply(&reopened, i);
    }
    assert_eq!(check_applied(&reopened), 300);
    drop(reopened);
    // An orderly end flushes.
    assert_eq!(check_applied(&open(after.path())), 300);
}

fn wait_until_quiet(store: &Store) {
    let generation = store.shared.current.load_full();
    let properties = [
        "rocksdb.num-running-flushes",
        "rocksdb.num-running-compactions",
        "rocksdb.mem-table-flush-pending",
        "rocksdb.compaction-pending",
    ];
    let busy = |cf: &Cf| {
        let value =
            |p: &&str| generation.db().property_int_value_cf(generation.cf(*cf).unwrap(), *p).unwrap();
        properties.iter().any(|p| value(p) != Some(0))
    };
    let mut quiet = 0;
    while quiet < 5 {
        quiet = if Cf::ALL.iter().any(busy) { 0 } else { quiet + 1 };
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn memtables_that_fill_flush_together() {
    let dir = tempfile::tempdir().unwrap();
    let small = StoreOptions {
        write_buffer_bytes: 64 << 10,
        total_write_buffer_bytes: 256 << 10,
        ..StoreOptions::default()
    };
    let store = Store::open(dir.path(), small.clone()).unwrap();
    let mut seen = 0;
    for round in 0..10u64 {
        for i in round * 2000 + 1..=(round + 1) * 2000 {
            apply(&store, i);
        }
        // A copy of files that change meanwhile would be no moment in time.
        wait_until_quiet(&store);
        let after = crash(dir.path());
        seen = check_applied(&Store::open(after.path(), small.clone()).unwrap());
        assert!(seen <= (round + 1) * 2000);
    }
    assert!(seen > 0, "nothing was flushed by itself");
}

#[test]
fn both_records_go_with_what_was_written_before_the_flush() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for i in 1..=50u64 {
        apply(&store, i);
        let mut batch = Batch::new();
        batch.put(Cf::Leaderless, [b"own", &i.to_be_bytes()[..]].concat(), b"committed");
        batch.set_joined(i.to_le_bytes());
        store.write(batch).unwrap();
        if i == 30 {
            store.flush().unwrap();
        }
    }
    let thirty = Some(30u64.to_le_bytes().to_vec());
    assert_eq!((store.durable_applied(), store.durable_joined()), (thirty.clone(), thirty.clone()));
    let after = crash(dir.path());
    let reopened = open(after.path());
    assert_eq!(check_applied(&reopened), 30);
    assert_eq!(reopened.joined().unwrap(), thirty);
    assert_eq!(reopened.durable_joined(), thirty);
    for i in 1..=50u64 {
        let own = reopened.get_plain(Cf::Leaderless, [b"own", &i.to_be_bytes()[..]].concat()).unwrap();
        assert_eq!(own.is_some(), i <= 30, "{i}");
    }
}

fn leader_and_follower() -> (tempfile::TempDir, Arc<Store>, tempfile::TempDir, Arc<Store>) {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (leader, follower) = (open(a.path()), open(b.path()));
    for i in 1..=500 {
        apply(&leader, i);
    }
    for i in 1..=10 {
        apply(&follower, i);
    }
    let mut own = Batch::new();
    own.put(Cf::Conflicts, b"own", b"op");
    follower.write(own).unwrap();
    (a, leader, b, follower)
}

fn keep_own(old: &View, new: &View) -> Result<()> {
    let mut batch = Batch::new();
    let mut scan = old.scan_plain(Cf::Conflicts, Vec::new()..Vec::new(), Direction::Forward)?;
    while let Some(e) = scan.next()? {
        batch.put(Cf::Conflicts, e.key, e.value);
    }
    new.write(&batch)
}

#[test]
fn a_checkpoint_replaces_the_data_and_keeps_what_is_joined() {
    let (_a, leader, b, follower) = leader_and_follower();
    let incoming = follower.incoming_dir();
    assert_eq!(leader.checkpoint(&incoming).unwrap(), Some(500u64.to_le_bytes().to_vec()));
    apply(&leader, 501);
    let mut open_scan = follower.scan(Vec::new()..Vec::new(), Timestamp::MAX, Direction::Forward).unwrap();
    assert!(open_scan.next().unwrap().is_some());
    follower.install(&incoming, keep_own).unwrap();
    assert_eq!(check_applied(&follower), 500);
    assert_eq!(follower.durable_applied(), Some(500u64.to_le_bytes().to_vec()));
    assert_eq!(follower.get_plain(Cf::Conflicts, b"own").unwrap().unwrap(), b"op");
    assert!(!incoming.exists());
    // A crash now finds the new data, a scan begun before goes on in the old.
    let after = crash(b.path());
    assert_eq!(check_applied(&open(after.path())), 500);
    let mut rest = 1;
    while open_scan.next().unwrap().is_some() {
        rest += 1;
    }
    assert_eq!(rest, 10);
    drop(open_scan);
    assert!(!b.path().join("data-1").exists());
    for i in 501..=510 {
        apply(&follower, i);
    }
    follower.flush().unwrap();
    drop(follower);
    assert_eq!(check_applied(&open(b.path())), 510);
}

#[test]
fn a_crash_while_installing_leaves_the_old_data() {
    let (_a, leader, b, follower) = leader_and_follower();
    follower.flush().unwrap();
    let incoming = follower.incoming_dir();
    leader.checkpoint(&incoming).unwrap();
    let mut middle = None;
    let failed = follower.install(&incoming, |old, new| {
        keep_own(old, new)?;
        middle = Some(crash(b.path()));
        Err(StorageError::Closed)
    });
    assert_eq!(failed, Err(StorageError::Closed));
    let middle = middle.unwrap();
    assert!(middle.path().join("data-2").exists());
    let reopened = open(middle.path());
    assert_eq!(check_applied(&reopened), 10);
    assert!(!middle.path().join("data-2").exists());
    // And without a crash, the store goes on, and a second attempt succeeds.
    assert_eq!(check_applied(&follower), 10);
    apply(&follower, 11);
    leader.checkpoint(&incoming).unwrap();
    follower.install(&incoming, keep_own).unwrap();
    assert_eq!(check_applied(&follower), 500);
}

#[test]
fn a_lost_pointer_or_folder_is_an_error_not_an_empty_database() {
    let (_a, leader, b, follower) = leader_and_follower();
    leader.checkpoint(&follower.incoming_dir()).unwrap();
    follower.install(&follower.incoming_dir(), keep_own).unwrap();
    drop(follower);
    let pointer = b.path().join("CURRENT-DATA");
    let kept = fs::read(&pointer).unwrap();
    fs::remove_file(&pointer).unwrap();
    let corrupt = |r: Result<Arc<Store>>| matches!(r, Err(StorageError::Corrupt { .. }));
    assert!(corrupt(Store::open(b.path(), StoreOptions::default())));
    fs::write(&pointer, "no number").unwrap();
    assert!(corrupt(Store::open(b.path(), StoreOptions::default())));
    fs::write(&pointer, "7").unwrap();
    assert!(corrupt(Store::open(b.path(), StoreOptions::default())));
    fs::write(&pointer, kept).unwrap();
    assert_eq!(check_applied(&open(b.path())), 500);
}

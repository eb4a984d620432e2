#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;

const SMALL: JournalOptions = JournalOptions { segment_bytes: 4096, write_bytes: 1 << 20, recycled: 2 };

type Records = Vec<(Position, Vec<u8>)>;

fn reopen(dir: &Path) -> Result<(Arc<Journal>, Records)> {
    let mut found = Vec::new();
    let journal = Journal::open(dir, SMALL, |at, record| {
        found.push((at, record.to_vec()));
        Ok(())
    })?;
    Ok((journal, found))
}

fn append(journal: &Journal, record: &[u8]) -> Position {
    journal.prepare(bytes_of([record.len()])).unwrap();
    let (a, b) = record.split_at(record.len() / 3);
    journal.append(&[a, b]).unwrap()
}

fn sync(journal: &Journal) {
    futures::executor::block_on(journal.sync()).unwrap();
}

fn scan(journal: &Journal, from: Position) -> Records {
    let (mut scan, mut found) = (journal.scan(from), Vec::new());
    while let Some((at, record)) = scan.next().unwrap() {
        found.push((at, record.to_vec()));
    }
    found
}

/// The files as a crash of the process would leave them, at a moment when no next file is being made: that has a
/// test of its own, and a copy that takes its time would see what no moment sees.
fn crash(journal: &Journal) -> tempfile::TempDir {
    let (shared, dir) = (&journal.shared, &journal.shared.dir);
    let mut state = shared.state.lock();
    while state.preparing {
        shared.prepared.wait(&mut state);
    }
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

/// The file that is written to, and how far.
fn last_file(dir: &Path, position: Position) -> std::fs::File {
    let path = Segment::path_of(dir, position.segment);
    std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[test]
fn records_of_all_sizes_come_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, found) = reopen(dir.path()).unwrap();
    assert!(found.is_empty());
    let mut written = Vec::new();
    for length in [0, 1, 7, 8, 9, 4000, 100, 4096, 20_000, 5, 3000, 3000] {
        let record = vec![length as u8; length];
        written.push((append(&journal, &record), record));
        if length % 2 == 0 {
            sync(&journal);
        }
    }
    sync(&journal);
    assert_eq!(scan(&journal, Position::default()), written);
    assert_eq!(scan(&journal, written[5].0), written[5..]);
    drop(journal);
    let (journal, found) = reopen(dir.path()).unwrap();
    assert_eq!(found, written);
    assert_eq!(scan(&journal, Position::default()), written);
    // And again, although nothing was written.
    drop(journal);
    assert_eq!(reopen(dir.path()).unwrap().1, written);
}

#[test]
fn an_orderly_end_writes_what_nobody_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = reopen(dir.path()).unwrap();
    append(&journal, b"record");
    drop(journal);
    assert_eq!(reopen(dir.path()).unwrap().1.len(), 1);
}

#[test]
fn without_room_nothing_is_appended() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = reopen(dir.path()).unwrap();
    assert!(journal.append(&[&[0; 5000]]).is_err());
    journal.prepare(bytes_of([100, 200])).unwrap();
    journal.append(&[&[1; 100]]).unwrap();
    journal.append(&[&[2; 200]]).unwrap();
    sync(&journal);
    assert_eq!(scan(&journal, Position::default()).len(), 2);
}

#[test]
fn files_go_round_and_stay_few() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = reopen(dir.path()).unwrap();
    let mut last = Position::default();
    for i in 0..2000u32 {
        last = append(&journal, &[i as u8; 100]);
        if i % 10 == 0 {
            sync(&journal);
            journal.release(last.segment.saturating_sub(2)).unwrap();
        }
    }
    sync(&journal);
    assert!(last.segment > 50);
    assert!(numbers(dir.path()).unwrap().len() <= 8);
    let after = crash(&journal);
    let found = reopen(after.path()).unwrap().1;
    assert_eq!(found.last().unwrap().0, last);
    assert!(found.len() < 400);
    // A reader keeps what it reads.
    let mut reader = journal.scan(Position::default());
    let first = reader.next().unwrap().unwrap().0;
    for i in 0..500u32 {
        last = append(&journal, &[i as u8; 100]);
        sync(&journal);
        journal.release(last.segment).unwrap();
    }
    assert_eq!(reader.next().unwrap().unwrap().0.segment, first.segment);
    while reader.next().unwrap().is_some() {}
}

#[test]
fn what_is_torn_at_the_end_is_dropped_and_stays_away() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = reopen(dir.path()).unwrap();
    append(&journal, b"durable");
    sync(&journal);
    let torn = append(&journal, b"torn....");
    append(&journal, b"whole...");
    sync(&journal);
    let after = crash(&journal);
    // Of one write the second half came to the disk and the first did not.
    last_file(after.path(), torn).write_all_at(&[0xee; 4], u64::from(torn.offset) + 18).unwrap();
    let (journal, found) = reopen(after.path()).unwrap();
    assert_eq!(found.len(), 1);
    append(&journal, b"another.");
    sync(&journal);
    drop(journal);
    let records: Vec<_> = reopen(after.path()).unwrap().1.into_iter().map(|(_, record)| record).collect();
    assert_eq!(records, [b"durable".to_vec(), b"another.".to_vec()]);
}

#[test]
fn a_crash_while_the_next_file_is_made_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = reopen(dir.path()).unwrap();
    let record = append(&journal, b"record");
    sync(&journal);
    for (extension, bytes) in
        [("new", 0), ("new", 1000), ("new", 4096), ("log", 0), ("log", 8), ("log", 4096)]
    {
        let after = crash(&journal);
        let next = Segment::path_of(after.path(), record.segment + 1).with_extension(extension);
        std::fs::write(&next, vec![0; bytes]).unwrap();
        let (again, found) = reopen(after.path()).unwrap();
        assert_eq!(found, [(record, b"record".to_vec())], "{extension} {bytes}");
        assert_eq!(again.active_segment(), record.segment + 1);
        assert!(!next.with_extension("new").exists());
    }
}

#[test]
fn damage_before_the_end_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = reopen(dir.path()).unwrap();
    let mut records = Vec::new();
    for i in 0..100u8 {
        records.push(append(&journal, &[i; 100]));
        sync(&journal);
    }
    for (victim, field) in [(5, 0), (5, 5), (5, 9), (5, 13), (5, 20), (60, 20), (98, 30)] {
        let after = crash(&journal);
        let file = last_file(after.path(), records[victim]);
        let at = u64::from(records[victim].offset) + field;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        let error = reopen(after.path()).err().expect("damage");
        assert_eq!(error.sqlstate(), "XX001", "{error}");
    }
    // A file that is missing.
    let after = crash(&journal);
    remove(&Segment::path_of(after.path(), records[50].segment)).unwrap();
    assert_eq!(reopen(after.path()).err().unwrap().sqlstate(), "XX001");
}

#[test]
fn one_write_serves_all_who_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = reopen(dir.path()).unwrap();
    let threads: Vec<_> = (0..8u8)
        .map(|t| {
            let journal = journal.clone();
            std::thread::spawn(move || {
                for i in 0..200u8 {
                    // Room for one is not taken by another.
                    let _turn = TURN.lock();
                    append(&journal, &[t, i]);
                    drop(_turn);
                    sync(&journal);
                    let seen = scan(&journal, Position::default());
                    assert!(seen.iter().any(|(_, record)| *record == [t, i]));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut counts = BTreeMap::new();
    for (_, record) in scan(&journal, Position::default()) {
        assert_eq!(*counts.entry(record[0]).or_insert(0), record[1]);
        *counts.entry(record[0]).or_insert(0) += 1;
    }
    assert!(counts.values().all(|count| *count == 200));
}

static TURN: Mutex<()> = Mutex::new(());

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Sync,
    Release(u64),
    /// The files after a crash, in which bytes after what was durable are garbage
    Crash(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0usize..300).prop_map(Step::Append),
        1 => (3000usize..9000).prop_map(Step::Append),
        4 => Just(Step::Sync),
        1 => (0u64..4).prop_map(Step::Release),
        1 => any::<u64>().prop_map(Step::Crash),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Every durable record that was not released is there, in order; after it come at most those that were appended.
    #[test]
    fn no_durable_record_is_lost(steps in prop::collection::vec(step(), 1..80)) {
        let mut dirs = vec![tempfile::tempdir().unwrap()];
        let (mut journal, _) = reopen(dirs[0].path()).unwrap();
        // Appended and not released, and how many of them are durable.
        let (mut model, mut durable): (Records, usize) = (Vec::new(), 0);
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append(length) => {
                    let record = vec![n as u8; length];
                    model.push((append(&journal, &record), record));
                }
                Step::Sync => {
                    sync(&journal);
                    durable = model.len();
                }
                Step::Release(but) => {
                    let before = journal.active_segment().saturating_sub(but);
                    let gone = model.iter().take_while(|(at, _)| at.segment < before).count();
                    if gone <= durable {
                        journal.release(before).unwrap();
                        model.drain(..gone);
                        durable -= gone;
                    }
                }
                Step::Crash(seed) => {
                    let copy = crash(&journal);
                    let end = model[..durable].last().map(|(at, record)| (*at, frame_bytes(record.len())));
                    if let Some((at, bytes)) = end.filter(|(at, _)| at.segment == journal.active_segment()) {
                        let file = last_file(copy.path(), at);
                        let from = u64::from(at.offset) + bytes as u64 + seed % 64;
                        let size = file.metadata().unwrap().len();
                        let garbage = vec![seed as u8; (size.saturating_sub(from)).min(200) as usize];
                        file.write_all_at(&garbage, from).unwrap();
                    }
                    let (again, found) = reopen(copy.path()).unwrap();
                    // Released ones may come back.
                    let skip = found.iter().position(|(at, _)| model.first().is_some_and(|(first, _)| at == first));
                    let found = &found[skip.unwrap_or(found.len())..];
                    prop_assert!(found.len() >= durable && found.len() <= model.len());
                    prop_assert_eq!(found, &model[..found.len()]);
                    model.truncate(found.len());
                    durable = model.len();
                    journal = again;
                    dirs.push(copy);
                }
                Step::Restart => {
                    drop(journal);
                    durable = model.len();
                    let (again, found) = reopen(dirs.last().unwrap().path()).unwrap();
                    prop_assert!(found.ends_with(&model));
                    journal = again;
                }
            }
            if let Some((first, _)) = model.first() {
                prop_assert_eq!(&scan(&journal, *first)[..durable], &model[..durable]);
            }
        }
    }
}

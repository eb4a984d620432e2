#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::sync::mpsc;

use proptest::prelude::*;

use super::*;

fn open(dir: &Path) -> Arc<RaftLog> {
    // Little in memory and small files, so that both ends of every way are gone.
    let journal = JournalOptions { segment_bytes: 4096, recycled: 2, ..JournalOptions::default() };
    RaftLog::open(dir, RaftLogOptions { recent_bytes: 100, journal }).unwrap()
}

fn ignore() -> Flushed {
    Box::new(|r| r.unwrap())
}

fn entries(range: Range<u64>) -> Vec<(u64, Vec<u8>)> {
    range.map(|i| (i, format!("entry {i}").into_bytes())).collect()
}

fn indexes(log: &RaftLog) -> Vec<u64> {
    log.read(0..u64::MAX, usize::MAX).unwrap().into_iter().map(|(i, _)| i).collect()
}

fn wait(log: &RaftLog) {
    futures::executor::block_on(log.flushed()).unwrap();
}

/// The files as a crash would leave them: what the system was given, not what is still in memory.
fn crash(dir: &Path) -> (tempfile::TempDir, PathBuf) {
    let copy = tempfile::tempdir().unwrap();
    let to = copy.path().join("raft");
    std::fs::create_dir(&to).unwrap();
    for file in std::fs::read_dir(dir.join("raft")).unwrap() {
        let file = file.unwrap();
        if file.file_name() != "LOCK" {
            // The next file gets its name when it is whole: before, it is not there.
            match std::fs::copy(file.path(), to.join(file.file_name())) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
    let path = copy.path().to_owned();
    (copy, path)
}

#[test]
fn appended_is_readable_at_once_and_survives() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    assert_eq!((log.first(), log.last()), (None, None));
    log.append(entries(1..6), ignore()).unwrap();
    assert_eq!(indexes(&log), [1, 2, 3, 4, 5]);
    assert_eq!(log.entry(3).unwrap().unwrap(), b"entry 3");
    log.save_vote(b"vote", ignore()).unwrap();
    log.save_committed(b"four").unwrap();
    wait(&log);
    drop(log);
    let log = open(dir.path());
    assert_eq!((log.first(), log.last()), (Some(1), Some(5)));
    assert_eq!(log.vote().unwrap().unwrap(), b"vote");
    assert_eq!(log.committed().unwrap().unwrap(), b"four");
}

#[test]
fn truncate_and_purge() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append(entries(1..11), ignore()).unwrap();
    log.truncate(8, ignore()).unwrap();
    assert_eq!(indexes(&log), [1, 2, 3, 4, 5, 6, 7]);
    log.append(entries(8..10), ignore()).unwrap();
    log.purge(4, b"four", ignore()).unwrap();
    assert_eq!(indexes(&log), [5, 6, 7, 8, 9]);
    assert_eq!((log.first(), log.last()), (Some(5), Some(9)));
    drop(log);
    let log = open(dir.path());
    assert_eq!(indexes(&log), [5, 6, 7, 8, 9]);
    assert_eq!(log.purged().unwrap().unwrap(), b"four");
    // A snapshot beyond the end: nothing is left, and the log goes on behind it.
    log.purge(100, b"hundred", ignore()).unwrap();
    assert_eq!((log.first(), log.last()), (None, None));
    log.append(entries(101..103), ignore()).unwrap();
    assert_eq!(indexes(&log), [101, 102]);
}

#[test]
fn a_gap_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append(entries(1..3), ignore()).unwrap();
    let error = log.append(entries(5..6), Box::new(|r| assert!(r.is_err()))).unwrap_err();
    assert_eq!(error, StorageError::LogGap { expected: 3, found: 5 });
    assert_eq!(indexes(&log), [1, 2]);
    log.append(entries(3..4), ignore()).unwrap();
}

#[test]
fn reads_stop_at_the_byte_limit_but_give_one_entry() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append((1..5).map(|i| (i, vec![0; 100])), ignore()).unwrap();
    assert_eq!(log.read(1..5, 250).unwrap().len(), 2);
    assert_eq!(log.read(2..5, 1).unwrap(), [(2, vec![0; 100])]);
    assert_eq!(log.read(5..9, 1).unwrap(), []);
}

#[test]
fn callbacks_come_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (tx, rx) = mpsc::channel();
    for i in 1..200u64 {
        let tx = tx.clone();
        log.append(entries(i..i + 1), Box::new(move |r| tx.send((i, r.is_ok())).unwrap())).unwrap();
    }
    drop(tx);
    let seen: Vec<_> = rx.iter().collect();
    assert_eq!(seen, (1..200).map(|i| (i, true)).collect::<Vec<_>>());
}

#[test]
fn what_a_callback_promised_survives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append(entries(1..100), ignore()).unwrap();
    log.save_vote(b"mine", ignore()).unwrap();
    wait(&log);
    let (_keep, copy) = crash(dir.path());
    let after = open(&copy);
    assert_eq!(after.last(), Some(99));
    assert_eq!(after.vote().unwrap().unwrap(), b"mine");
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _log = open(dir.path());
    let error = RaftLog::open(dir.path(), RaftLogOptions::default()).unwrap_err();
    assert!(matches!(error, StorageError::Locked { .. }), "{error}");
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Truncate(u64),
    Purge(u64),
    Vote(u8),
    Reopen,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..6).prop_map(Step::Append),
        2 => (0u64..6).prop_map(Step::Truncate),
        1 => (100u64..300).prop_map(Step::Append),
        2 => (0u64..6).prop_map(Step::Purge),
        1 => (100u64..200).prop_map(Step::Purge),
        1 => any::<u8>().prop_map(Step::Vote),
        1 => Just(Step::Crash),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn behaves_as_a_list(steps in proptest::collection::vec(step(), 1..60)) {
        let first = tempfile::tempdir().unwrap();
        let mut dir = first.path().to_owned();
        let mut copies = Vec::new();
        let mut log = open(&dir);
        let (mut vote, mut purged) = (None, None);
        let (mut model, mut next) = (Vec::<u64>::new(), 1u64);
        for step in steps {
            match step {
                Step::Append(n) => {
                    log.append(entries(next..next + n), ignore()).unwrap();
                    model.extend(next..next + n);
                    next += n;
                }
                Step::Truncate(back) => {
                    let from = next.saturating_sub(back).max(model.first().copied().unwrap_or(next));
                    log.truncate(from, ignore()).unwrap();
                    model.retain(|&i| i < from);
                    next = from;
                }
                Step::Purge(n) => {
                    let upto = (model.first().copied().unwrap_or(next) + n).min(next) - 1;
                    log.purge(upto, &upto.to_le_bytes(), ignore()).unwrap();
                    model.retain(|&i| i > upto);
                    purged = Some(upto.to_le_bytes().to_vec());
                }
                Step::Vote(v) => {
                    log.save_vote(&[v], ignore()).unwrap();
                    vote = Some(vec![v]);
                }
                Step::Reopen => {
                    drop(log);
                    log = open(&dir);
                }
                Step::Crash => {
                    wait(&log);
                    let (keep, copy) = crash(&dir);
                    copies.push(keep);
                    dir = copy;
                    log = open(&dir);
                }
            }
            prop_assert_eq!((log.vote().unwrap(), log.purged().unwrap()), (vote.clone(), purged.clone()));
            prop_assert_eq!(&indexes(&log), &model);
            prop_assert_eq!(log.first(), model.first().copied());
            prop_assert_eq!(log.last(), model.last().copied());
        }
    }
}

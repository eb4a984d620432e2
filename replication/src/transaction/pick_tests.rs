//! SKIP LOCKED: which rows are locked, and which are left to others.

use amphora_storage::schema::IndexId;

use super::tests::*;
use crate::ErrorKind;
use crate::api::*;

/// The first rows of the table, as this statement sees them.
fn rows(tx: &Tx, t: &std::sync::Arc<amphora_storage::schema::Table>) -> Vec<StoredRow> {
    let scan = Scan {
        table: t.clone(),
        index: IndexId::PRIMARY,
        range: KeyRange::all(),
        direction: Direction::Forward,
        columns: None,
    };
    let mut rows = Vec::new();
    tx.scan(&scan).unwrap().next_batch(100, &mut rows).unwrap();
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_free_rows_are_locked_and_what_moved_is_left_alone() {
    use RowLock::{Locked, Moved, Skipped, Untried};
    let (cluster, node, t) = one().await;
    fill(&node, &t, &[(1, 10, "a"), (2, 20, "a"), (3, 30, "a"), (4, 40, "a"), (5, 50, "a")]).await;
    let exclusive = LockMode::Exclusive;
    let mut one = begin(&node, &t, block()).await;
    let mut two = begin(&node, &t, block()).await;
    let (ours, theirs) = (rows(&one, &t), rows(&two, &t));
    let locks = one.lock_free_rows(&t, &ours, exclusive, 1).await.unwrap();
    assert_eq!(locks, [Locked, Untried, Untried, Untried, Untried]);

    let mut other = begin(&node, &t, single()).await;
    set_n(&mut other, &t, 2, 21).await.unwrap();
    other.commit().await.unwrap();
    let locks = two.lock_free_rows(&t, &theirs, exclusive, 2).await.unwrap();
    assert_eq!(locks, [Skipped, Moved, Locked, Locked, Untried]);
    // What had moved was not kept: others may have it at once.
    let mut third = begin(&node, &t, block()).await;
    let fresh = rows(&third, &t);
    let locks = third.lock_free_rows(&t, &fresh, exclusive, 9).await.unwrap();
    assert_eq!(locks, [Skipped, Locked, Skipped, Skipped, Locked]);
    // What it has it is given again.
    let locks = one.lock_free_rows(&t, &ours, exclusive, 1).await.unwrap();
    assert_eq!(locks[0], Locked);
    third.rollback().await;

    let mut snapshot = begin(&node, &t, options(IsolationLevel::RepeatableRead, false)).await;
    let old = rows(&snapshot, &t);
    let mut other = begin(&node, &t, single()).await;
    set_n(&mut other, &t, 5, 51).await.unwrap();
    other.commit().await.unwrap();
    let e = snapshot.lock_free_rows(&t, &old, exclusive, 9).await.unwrap_err();
    assert_eq!((e.sqlstate, e.kind), ("40001", ErrorKind::Retry));
    drop((one, two, third, other, snapshot, node));
    cluster.end().await;
}

//! Large transactions and crashes.

use amphora_storage::Timestamp;
use amphora_storage::store::Batch;

use super::CommitRequest;
use super::testing::{Cluster, commit, key, open_store};
use super::tests::{parts_on, stage};

/// Some of its rows are on disk and the position is not: nobody can have seen them, and the entry is applied again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_a_staged_transaction_is_applied_leaves_nothing_by_halves() {
    let cluster = Cluster::one().await;
    let group = &cluster.node(1).group;
    let id = group.transaction_id();
    let parts = stage(group, id, "a", 11).await;
    let (before, store) = (group.applied_timestamp(), &cluster.node(1).store);
    store.flush().unwrap();
    let crashed = cluster.copy_of(1);
    let request = CommitRequest { id, locked: true, staged: parts.staged(), ..commit(group) };
    let at = group.commit(request).await.unwrap();
    parts.keep();
    cluster.copy_log(1, &crashed);
    {
        let store = open_store(&crashed.path().join("1"));
        let mut batch = Batch::new();
        for n in [0, 3, 10] {
            batch.put_strong(key(&format!("a {n}")), at, vec![n as u8; 1 << 20]);
        }
        store.write(batch).unwrap();
        store.flush().unwrap();
        assert!(store.get(key("a 3"), before).unwrap().is_none(), "what is published does not reach so far");
    }
    let crashed = cluster.start_copy(1, crashed).await;
    let node = crashed.node(1);
    assert!(node.group.applied_timestamp() < at || node.store.newest(key("a 1")).unwrap() == at);
    assert!(node.group.read_timestamp().await.unwrap() >= at);
    for n in 0..11 {
        let row = node.store.get(key(&format!("a {n}")), Timestamp::MAX).unwrap().unwrap();
        assert_eq!((row.ts, row.value), (at, vec![n as u8; 1 << 20]), "a {n}");
    }
    assert_eq!(parts_on(node), 0);
}

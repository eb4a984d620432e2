use std::sync::Arc;

use amphora_storage::schema::{Index, IndexId, Replication, Table};
use amphora_storage::store::{Batch, Direction};
use amphora_storage::{Datum, Timestamp, key, row};

use crate::api::{Access, Engine, OnConflict, TransactionOptions, Verdict, Verification};
use crate::node::Node;
use crate::node::tests::{Cluster, table, the_table};

const ROWS: i64 = 300;

/// Three nodes and a table with rows and a secondary index.
async fn cluster() -> (Cluster, Arc<Table>) {
    let cluster = Cluster::start(3).await;
    let node = cluster.node(0);
    let mut tx = node.begin(TransactionOptions::default());
    tx.lock_catalog().await.unwrap();
    let mut made = table(tx.allocate_id().unwrap(), "t", Replication::Strong);
    let oid = made.id.0 + 2000;
    made.indexes.push(Index { unique: false, ..Index::of_constraint(IndexId(1), "t_n_idx", oid, vec![1]) });
    tx.put_table(made).unwrap();
    tx.commit().await.unwrap();
    let made = the_table(&node, "t").await;
    let mut tx = node.begin(TransactionOptions::default());
    tx.begin_statement(Access::Strong, std::slice::from_ref(&made)).await.unwrap();
    let rows = (0..ROWS).map(|k| vec![Datum::Int8(k), Datum::Int8(k % 7)]).collect();
    tx.insert(&made, rows, OnConflict::Error).await.unwrap();
    tx.commit().await.unwrap();
    (cluster, made)
}

async fn verify(node: &Node, table: &Table) -> Vec<Verification> {
    node.verify(table.id, None).await.unwrap()
}

fn wrong(found: &[Verification]) -> Vec<(&str, u64, Verdict, &str)> {
    let wrong = found.iter().filter(|one| one.verdict != Verdict::Ok);
    wrong.map(|one| (one.object.as_str(), one.node, one.verdict, one.detail.as_str())).collect()
}

/// The key, version and value of an entry.
fn entry(node: &Node, table: &Table, index: IndexId, skip: usize) -> (Vec<u8>, Timestamp, Vec<u8>) {
    let range = key::index_range(table.keyspace(), index);
    let mut scan = node.store().scan(range, Timestamp::MAX, Direction::Forward).unwrap();
    for _ in 0..skip {
        scan.next().unwrap().unwrap();
    }
    let found = scan.next().unwrap().unwrap();
    (found.key.to_vec(), found.ts, found.value.to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_altered_behind_the_log_is_found_and_placed() {
    let (cluster, table) = cluster().await;
    let (asked, victim) = (cluster.node(1), cluster.node(2));
    let found = verify(&asked, &table).await;
    assert_eq!(wrong(&found), []);
    assert_eq!(found.len(), 6, "two objects on three nodes: {found:?}");
    assert!(found.iter().all(|one| one.rows == Some(ROWS as u64)));
    let at = found[0].at;
    assert!(found.iter().all(|one| one.at == at));

    // Another value under the same version: the disk's fault, or ours.
    let (row_key, ts, value) = entry(&victim, &table, IndexId::PRIMARY, 5);
    let mut altered = row::decode_row(&table, &value).unwrap();
    altered[1] = Datum::Int8(6);
    let mut batch = Batch::new();
    batch.put_strong(&row_key, ts, row::encode_row(&table, &altered).unwrap());
    victim.store().write(batch).unwrap();
    let found = verify(&asked, &table).await;
    let id = victim.id();
    let misfit = "1 entry without its row: (k)=(5); 1 row without its entry: (k)=(5)";
    assert_eq!(
        wrong(&found),
        [("t", id, Verdict::Diverged, "differs from nodes 1, 2"), ("t_n_idx", id, Verdict::Damaged, misfit),]
    );
    // Everybody has been told.
    for node in [cluster.node(0), asked.clone(), victim.clone()] {
        assert_eq!(node.verifications().iter().filter(|one| one.verdict.is_wrong()).count(), 2);
    }
    let mut batch = Batch::new();
    batch.put_strong(&row_key, ts, &value);
    victim.store().write(batch).unwrap();
    assert_eq!(wrong(&verify(&asked, &table).await), []);

    // An entry that is gone from one node's index.
    let (entry_key, ts, value) = entry(&victim, &table, IndexId(1), 0);
    let mut batch = Batch::new();
    batch.delete_strong(&entry_key, ts);
    victim.store().write(batch).unwrap();
    let found = verify(&victim, &table).await;
    assert_eq!(
        wrong(&found),
        [("t_n_idx", id, Verdict::Damaged, "differs from nodes 1, 2; 1 row without its entry: (k)=(0)")]
    );
    let mut batch = Batch::new();
    batch.put_strong(&entry_key, ts, &value);
    victim.store().write(batch).unwrap();

    // The same damage everywhere: replicas agree, and the index is still wrong.
    for node in [cluster.node(0), asked.clone(), victim.clone()] {
        let mut batch = Batch::new();
        batch.delete_strong(&row_key, ts);
        node.store().write(batch).unwrap();
    }
    let found = verify(&asked, &table).await;
    let stray = "1 entry without its row: (k)=(5)";
    let damaged = |id| ("t_n_idx", id, Verdict::Damaged, stray);
    assert_eq!(wrong(&found), [damaged(1), damaged(2), damaged(3)]);
    drop((asked, victim));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_no_row_and_a_member_that_is_gone_are_reported() {
    let (mut cluster, table) = cluster().await;
    let asked = cluster.node(0);
    let (row_key, ts, _) = entry(&asked, &table, IndexId::PRIMARY, 3);
    let mut batch = Batch::new();
    batch.put_strong(&row_key, ts, [0xff, 0xff, 0xff]);
    asked.store().write(batch).unwrap();
    cluster.stop(2).await;
    let found = verify(&asked, &table).await;
    let verdicts: Vec<_> = found.iter().map(|one| (one.object.as_str(), one.node, one.verdict)).collect();
    assert_eq!(
        verdicts,
        [
            ("t", 1, Verdict::Unreadable),
            ("t", 2, Verdict::Ok),
            ("t_n_idx", 1, Verdict::Ok),
            ("t_n_idx", 2, Verdict::Ok),
            ("t", 3, Verdict::Unreachable),
        ]
    );
    let nothing = asked.verify(amphora_storage::schema::TableId(4_000_000), None).await.unwrap_err();
    assert_eq!(nothing.sqlstate, "42P01");
    drop(asked);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_do_not_disturb_a_check() {
    let (cluster, table) = cluster().await;
    let node = cluster.node(0);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = tokio::spawn({
        let (node, stop) = (node.clone(), stop.clone());
        async move {
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                // On a machine that is busy enough, leadership changes.
                if let Err(e) = crate::node::tests::add(&node, "t", n % ROWS, 1).await {
                    assert_eq!(e.kind, crate::ErrorKind::Retry, "{e:?}");
                }
            }
        }
    });
    for i in 0..10 {
        let found = verify(&cluster.node(i % 3), &table).await;
        assert_eq!(wrong(&found), []);
        assert_eq!(found.len(), 6);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.await.unwrap();
    drop(node);
    cluster.end().await;
}

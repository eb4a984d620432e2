//! Statements that cross with CREATE INDEX.

use std::sync::Arc;
use std::time::Duration;

use amphora_storage::schema::{Index, IndexId, Replication, Table};
use amphora_storage::{Datum, Row};

use crate::ErrorKind;
use crate::api::*;
use crate::node::Node;
use crate::node::tests::{Cluster, create, the_table};

fn row(k: i64, n: i64) -> Row {
    vec![Datum::Int8(k), Datum::Int8(n)]
}

/// Adds an index on `n` to the table and leaves it to the caller to commit.
async fn add_index(node: &Node, name: &str, unique: bool) -> Box<dyn Transaction> {
    let mut tx = node.begin(TransactionOptions::default());
    tx.lock_catalog().await.unwrap();
    let catalog = tx.catalog();
    let t = catalog.table("public", name).unwrap();
    tx.lock_table(t).await.unwrap();
    let mut changed = (**t).clone();
    let id = IndexId(changed.next_index_id);
    changed.next_index_id += 1;
    let oid = tx.allocate_id().unwrap().0;
    let name = format!("{name}_n");
    changed.indexes.push(Index { unique, ..Index::new(id, name, oid, vec![1]) });
    tx.put_table(changed).unwrap();
    let t = tx.catalog().table_by_id(t.id).unwrap().clone();
    tx.build_index(&t, id).unwrap();
    tx
}

async fn with_rows() -> (Cluster, Arc<Node>, Arc<Table>) {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(0);
    create(&node, "t", Replication::Strong).await;
    let t = the_table(&node, "t").await;
    let mut tx = node.begin(TransactionOptions::default());
    tx.begin_statement(Access::Strong, std::slice::from_ref(&t)).await.unwrap();
    tx.insert(&t, vec![row(1, 10), row(2, 20)], OnConflict::Error).await.unwrap();
    tx.commit().await.unwrap();
    (cluster, node, t)
}

async fn begin(node: &Node, t: &Arc<Table>, isolation: IsolationLevel) -> Box<dyn Transaction> {
    let mut tx = node.begin(TransactionOptions { isolation, ..Default::default() });
    tx.begin_statement(Access::Strong, std::slice::from_ref(t)).await.unwrap();
    tx
}

async fn set_n(tx: &mut Box<dyn Transaction>, t: &Arc<Table>, k: i64, n: i64) {
    let old = tx.get(t, &[Datum::Int8(k)]).unwrap().unwrap();
    tx.update(t, vec![(old, row(k, n))]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_written_without_an_index_are_not_committed_with_it() {
    let (cluster, node, old) = with_rows().await;
    let mut tx = begin(&node, &old, IsolationLevel::ReadCommitted).await;
    add_index(&node, "t", false).await.commit().await.unwrap();
    // Planned before the index, executed after it, and followed by a statement that knows the index.
    set_n(&mut tx, &old, 1, 11).await;
    let new = the_table(&node, "t").await;
    tx.begin_statement(Access::Strong, std::slice::from_ref(&new)).await.unwrap();
    set_n(&mut tx, &new, 2, 21).await;
    assert_eq!(tx.commit().await.unwrap_err().kind, ErrorKind::CatalogMoved);

    // Nor is that hidden by the transaction's own change of the table.
    let mut tx = begin(&node, &new, IsolationLevel::ReadCommitted).await;
    add_index(&node, "t", false).await.commit().await.unwrap();
    set_n(&mut tx, &new, 1, 11).await;
    tx.lock_catalog().await.unwrap();
    let newest = (**tx.catalog().table_by_id(new.id).unwrap()).clone();
    assert_eq!(tx.put_table(newest).unwrap_err().kind, ErrorKind::CatalogMoved);
    drop((tx, node));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_snapshot_is_not_read_through_a_new_index() {
    let (cluster, node, old) = with_rows().await;
    let mut tx = begin(&node, &old, IsolationLevel::RepeatableRead).await;
    add_index(&node, "t", false).await.commit().await.unwrap();
    let new = the_table(&node, "t").await;
    let refused = tx.begin_statement(Access::Strong, std::slice::from_ref(&new)).await;
    assert_eq!(refused.unwrap_err().sqlstate, "40001");
    drop((tx, node));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skip_locked_waits_for_the_table() {
    let (cluster, node, t) = with_rows().await;
    let mut tx = begin(&node, &t, IsolationLevel::ReadCommitted).await;
    let rows = vec![tx.get(&t, &[Datum::Int8(1)]).unwrap().unwrap()];
    let mut ddl = add_index(&node, "t", false).await;
    let mut locking = tx.lock_rows(&t, &rows, LockMode::Exclusive, WaitPolicy::Skip);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut locking).await.is_err());
    ddl.commit().await.unwrap();
    assert_eq!(locking.await.unwrap(), [true]);
    drop((tx, node));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_named_in_on_conflict_is_looked_at_first() {
    let (cluster, node, _) = with_rows().await;
    add_index(&node, "t", true).await.commit().await.unwrap();
    let t = the_table(&node, "t").await;
    let by_n = t.indexes[0].id;
    let mut tx = begin(&node, &t, IsolationLevel::ReadCommitted).await;
    // Key 1 is taken by one row and n = 20 by another.
    let outcomes = tx.insert(&t, vec![row(1, 20)], OnConflict::Report(Some(by_n))).await.unwrap();
    assert!(matches!(&outcomes[..], [InsertOutcome::Conflict(old)] if old.row == row(2, 20)));
    let refused = tx.insert(&t, vec![row(1, 30)], OnConflict::Report(Some(by_n))).await;
    assert_eq!(refused.unwrap_err().sqlstate, "23505");
    drop((tx, node));
    cluster.end().await;
}

use std::sync::Arc;
use std::time::Duration;

use amphora_storage::schema::{Column, ColumnId, Index, IndexId, Replication, Table, TableId};
use amphora_storage::types::Crdt;
use amphora_storage::{DataType, Datum, Row};

use crate::api::*;
use crate::node::Node;
use crate::node::tests::{Cluster, table, the_table};
use crate::{Error, ErrorKind, Result};

pub(super) const BY_N: IndexId = IndexId(1);
pub(super) const BY_TAG: IndexId = IndexId(2);

/// `t (k bigint primary key, n bigint unique, tag text)` with an index on `tag`.
pub(super) fn strong(id: TableId, name: &str) -> Table {
    let mut t = table(id, name, Replication::Strong);
    t.columns[1].not_null = false;
    t.columns.push(column(3, "tag", DataType::Text));
    let index = |id: IndexId, unique, position: usize| Index {
        unique,
        constraint: unique,
        ..Index::new(id, format!("{name}_{}", id.0), t.id.0 + 2000 + id.0, vec![position])
    };
    t.indexes = vec![index(BY_N, true, 1), index(BY_TAG, false, 2)];
    (t.next_column_id, t.next_index_id) = (4, 3);
    t
}

/// `c (k bigint primary key, n crdt_counter, tags crdt_set(text), note text)`, leaderless.
fn leaderless(id: TableId, name: &str) -> Table {
    let mut t = table(id, name, Replication::Leaderless);
    t.columns.push(column(3, "tags", DataType::Crdt(Crdt::Set(Box::new(DataType::Text)))));
    t.columns.push(column(4, "note", DataType::Text));
    t.next_column_id = 5;
    t
}

fn column(id: u32, name: &str, ty: DataType) -> Column {
    Column { not_null: false, default: None, ..Column::new(ColumnId(id), name, ty) }
}

pub(super) async fn make(node: &Node, name: &str, of: fn(TableId, &str) -> Table) -> Arc<Table> {
    let mut tx = node.begin(TransactionOptions::default());
    tx.lock_catalog().await.unwrap();
    let id = tx.allocate_id().unwrap();
    tx.put_table(of(id, name)).unwrap();
    tx.commit().await.unwrap();
    the_table(node, name).await
}

pub(super) async fn one() -> (Cluster, Arc<Node>, Arc<Table>) {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(0);
    let t = make(&node, "t", strong).await;
    (cluster, node, t)
}

pub(super) fn row(k: i64, n: i64, tag: &str) -> Row {
    vec![Datum::Int8(k), Datum::Int8(n), Datum::text(tag)].into_iter().collect()
}

pub(super) fn options(isolation: IsolationLevel, autocommit: bool) -> TransactionOptions {
    TransactionOptions { isolation, autocommit, lock_timeout: Duration::from_secs(5), ..Default::default() }
}

pub(super) fn block() -> TransactionOptions {
    options(IsolationLevel::ReadCommitted, false)
}

pub(super) fn single() -> TransactionOptions {
    options(IsolationLevel::ReadCommitted, true)
}

pub(super) type Tx = Box<dyn Transaction>;

/// A transaction at its first statement.
pub(super) async fn begin(node: &Node, t: &Arc<Table>, options: TransactionOptions) -> Tx {
    let mut tx = node.begin(options);
    statement(&mut tx, t).await.unwrap();
    tx
}

pub(super) async fn statement(tx: &mut Tx, t: &Arc<Table>) -> Result<()> {
    let access = if t.is_strong() { Access::Strong } else { Access::Local };
    tx.begin_statement(access, std::slice::from_ref(t)).await
}

pub(super) async fn insert(tx: &mut Tx, t: &Arc<Table>, rows: Vec<Row>) -> Result<()> {
    tx.insert(t, rows, OnConflict::Error).await.map(drop)
}

pub(super) fn get(tx: &Tx, t: &Arc<Table>, k: i64) -> Option<StoredRow> {
    tx.get(t, &[Datum::Int8(k)]).unwrap()
}

pub(super) async fn set_n(tx: &mut Tx, t: &Arc<Table>, k: i64, n: i64) -> Result<()> {
    let old = get(tx, t, k).unwrap();
    let mut new = old.row.clone();
    new[1] = Datum::Int8(n);
    tx.update(t, vec![(old, new)]).await
}

pub(super) fn int(d: &Datum) -> i64 {
    match d {
        Datum::Int8(n) => *n,
        other => panic!("{other:?}"),
    }
}

/// The primary keys of a scan, in its order, in batches of two.
pub(super) fn keys(
    tx: &Tx,
    t: &Arc<Table>,
    index: IndexId,
    range: KeyRange,
    direction: Direction,
) -> Vec<i64> {
    let scan = Scan { table: t.clone(), index, range, direction, columns: None };
    let (mut stream, mut rows) = (tx.scan(&scan).unwrap(), Vec::new());
    while stream.next_batch(2, &mut rows).unwrap() == 2 {}
    rows.iter().map(|r| int(&r.row[0])).collect()
}

pub(super) fn all(tx: &Tx, t: &Arc<Table>, index: IndexId) -> Vec<i64> {
    let forward = keys(tx, t, index, KeyRange::all(), Direction::Forward);
    let mut backward = keys(tx, t, index, KeyRange::all(), Direction::Backward);
    backward.reverse();
    assert_eq!(forward, backward, "both directions see the same");
    forward
}

pub(super) async fn committed(node: &Node, t: &Arc<Table>, k: i64) -> Option<i64> {
    let tx = begin(node, t, block()).await;
    get(&tx, t, k).map(|r| int(&r.row[1]))
}

pub(super) async fn fill(node: &Node, t: &Arc<Table>, rows: &[(i64, i64, &str)]) {
    let mut tx = begin(node, t, single()).await;
    insert(&mut tx, t, rows.iter().map(|(k, n, tag)| row(*k, *n, tag)).collect()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_writes_lie_over_what_is_stored_in_every_index_and_direction() {
    let (cluster, node, t) = one().await;
    fill(&node, &t, &[(1, 10, "b"), (2, 20, "a"), (3, 30, "c"), (5, 50, "a")]).await;
    let mut tx = begin(&node, &t, block()).await;
    insert(&mut tx, &t, vec![row(4, 5, "c"), row(6, 60, "a")]).await.unwrap();
    let three = get(&tx, &t, 3).unwrap();
    tx.delete(&t, vec![three]).await.unwrap();
    // Moves in both secondary indexes, and in the primary key.
    let (one, five) = (get(&tx, &t, 1).unwrap(), get(&tx, &t, 5).unwrap());
    tx.update(&t, vec![(one, row(1, 55, "d")), (five, row(0, 50, "a"))]).await.unwrap();

    assert_eq!(all(&tx, &t, IndexId::PRIMARY), [0, 1, 2, 4, 6]);
    assert_eq!(all(&tx, &t, BY_N), [4, 2, 0, 1, 6]);
    assert_eq!(all(&tx, &t, BY_TAG), [0, 2, 6, 4, 1]);
    let tag_a = KeyRange::prefix(vec![Datum::text("a")]);
    assert_eq!(keys(&tx, &t, BY_TAG, tag_a, Direction::Backward), [6, 2, 0]);
    let n = |lower, upper| KeyRange { prefix: vec![], lower, upper };
    let range = n(KeyBound::Excluded(Datum::Int8(20)), KeyBound::Included(Datum::Int8(55)));
    assert_eq!(keys(&tx, &t, BY_N, range, Direction::Forward), [0, 1]);

    // Others see nothing of it before the commit, and all of it after.
    let other = begin(&node, &t, block()).await;
    assert_eq!(all(&other, &t, BY_N), [1, 2, 3, 5]);
    tx.commit().await.unwrap();
    assert_eq!(all(&other, &t, BY_N), [1, 2, 3, 5], "a snapshot stays");
    let after = begin(&node, &t, block()).await;
    assert_eq!(all(&after, &t, IndexId::PRIMARY), [0, 1, 2, 4, 6]);
    assert_eq!(all(&after, &t, BY_N), [4, 2, 0, 1, 6]);
    assert_eq!(all(&after, &t, BY_TAG), [0, 2, 6, 4, 1]);
    drop((tx, other, after, node));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unique_keys_exclude_and_on_conflict_reports() {
    let (cluster, node, t) = one().await;
    fill(&node, &t, &[(1, 10, "a"), (2, 20, "a")]).await;
    for options in [block(), single()] {
        for (bad, constraint) in [(row(1, 99, "x"), "t_pkey"), (row(9, 10, "x"), "t_1")] {
            let mut tx = begin(&node, &t, options).await;
            let e = insert(&mut tx, &t, vec![bad]).await.unwrap_err();
            assert_eq!((e.sqlstate, e.constraint.as_deref()), ("23505", Some(constraint)));
            tx.rollback().await;
        }
        let mut tx = begin(&node, &t, options).await;
        let e = insert(&mut tx, &t, vec![row(7, 70, "x"), row(8, 70, "x")]).await.unwrap_err();
        assert_eq!(e.sqlstate, "23505", "two rows of one statement");
        tx.rollback().await;

        let mut tx = begin(&node, &t, options).await;
        let rows = vec![row(1, 99, "x"), row(9, 20, "x"), row(4, 40, "x")];
        let outcomes = tx.insert(&t, rows, OnConflict::Report(None)).await.unwrap();
        let met: Vec<Option<i64>> = outcomes
            .iter()
            .map(|o| match o {
                InsertOutcome::Inserted => None,
                InsertOutcome::Conflict(existing) => Some(int(&existing.row[0])),
            })
            .collect();
        assert_eq!(met, [Some(1), Some(2), None]);
        let wrong = tx.insert(&t, vec![row(9, 20, "x")], OnConflict::Report(Some(IndexId::PRIMARY))).await;
        assert_eq!(wrong.unwrap_err().sqlstate, "23505", "a conflict on another index than the one named");
        tx.rollback().await;
    }
    // Values may change places within one statement, and NULLs never collide.
    let null = |k| -> Row { vec![Datum::Int8(k), Datum::Null, Datum::text("z")].into_iter().collect() };
    let mut tx = begin(&node, &t, single()).await;
    loop {
        let (one, two) = (get(&tx, &t, 1).unwrap(), get(&tx, &t, 2).unwrap());
        tx.update(&t, vec![(one, row(1, 20, "a")), (two, row(2, 10, "a"))]).await.unwrap();
        insert(&mut tx, &t, vec![null(11), null(12)]).await.unwrap();
        match tx.commit().await {
            // The locks of those who rolled back above are given back in the background.
            Err(e) if e.kind == ErrorKind::Restart => tx.restart_statement().await.unwrap(),
            done => break done.unwrap(),
        }
    }
    let tx = begin(&node, &t, block()).await;
    assert_eq!(all(&tx, &t, BY_N), [2, 1, 11, 12], "NULLs last");
    drop((tx, node));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn savepoints_and_statements_take_back_what_came_after_them() {
    let (cluster, node, t) = one().await;
    let mut tx = begin(&node, &t, block()).await;
    insert(&mut tx, &t, vec![row(1, 1, "a")]).await.unwrap();
    let outer = tx.savepoint();
    insert(&mut tx, &t, vec![row(2, 2, "a")]).await.unwrap();
    let inner = tx.savepoint();
    set_n(&mut tx, &t, 1, 100).await.unwrap();
    tx.rollback_to(inner).unwrap();
    assert_eq!(int(&get(&tx, &t, 1).unwrap().row[1]), 1);
    tx.rollback_to(outer).unwrap();
    assert_eq!(all(&tx, &t, BY_TAG), [1]);
    assert_eq!(tx.rollback_to(inner).unwrap_err().sqlstate, "3B001");
    statement(&mut tx, &t).await.unwrap();
    insert(&mut tx, &t, vec![row(3, 3, "a")]).await.unwrap();
    tx.rollback_statement();
    statement(&mut tx, &t).await.unwrap();
    insert(&mut tx, &t, vec![row(4, 3, "a")]).await.unwrap();
    tx.commit().await.unwrap();
    let tx = begin(&node, &t, block()).await;
    assert_eq!(all(&tx, &t, BY_N), [1, 4]);
    drop((tx, node));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_committed_starts_the_statement_over_and_repeatable_read_fails() {
    let (cluster, node, t) = one().await;
    fill(&node, &t, &[(1, 10, "a")]).await;

    let mut tx = begin(&node, &t, block()).await;
    assert_eq!(int(&get(&tx, &t, 1).unwrap().row[1]), 10);
    let mut other = begin(&node, &t, single()).await;
    set_n(&mut other, &t, 1, 20).await.unwrap();
    other.commit().await.unwrap();
    let stale = set_n(&mut tx, &t, 1, 11).await.unwrap_err();
    assert_eq!(stale.kind, ErrorKind::Restart);
    tx.restart_statement().await.unwrap();
    assert_eq!(int(&get(&tx, &t, 1).unwrap().row[1]), 20);
    set_n(&mut tx, &t, 1, 21).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(committed(&node, &t, 1).await, Some(21));

    let mut tx = begin(&node, &t, options(IsolationLevel::RepeatableRead, false)).await;
    let mut other = begin(&node, &t, single()).await;
    set_n(&mut other, &t, 1, 30).await.unwrap();
    other.commit().await.unwrap();
    statement(&mut tx, &t).await.unwrap();
    assert_eq!(int(&get(&tx, &t, 1).unwrap().row[1]), 21, "one snapshot for all statements");
    let savepoint = tx.savepoint();
    for _ in 0..2 {
        // A savepoint does not make the old snapshot any newer.
        let e = set_n(&mut tx, &t, 1, 22).await.unwrap_err();
        assert_eq!((e.sqlstate, e.kind), ("40001", ErrorKind::Retry));
        tx.rollback_to(savepoint).unwrap();
    }
    tx.rollback().await;
    assert_eq!(committed(&node, &t, 1).await, Some(30));
    let mut next = begin(&node, &t, block()).await;
    set_n(&mut next, &t, 1, 31).await.unwrap();
    next.commit().await.unwrap();
    drop((tx, other, next, node));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_statement_that_lost_a_race_starts_over_and_succeeds() {
    let (cluster, node, t) = one().await;
    fill(&node, &t, &[(1, 10, "a")]).await;
    let mut tx = begin(&node, &t, single()).await;
    set_n(&mut tx, &t, 1, 11).await.unwrap();
    let mut other = begin(&node, &t, single()).await;
    set_n(&mut other, &t, 1, 20).await.unwrap();
    other.commit().await.unwrap();
    assert_eq!(tx.commit().await.unwrap_err().kind, ErrorKind::Restart);
    tx.restart_statement().await.unwrap();
    let n = int(&get(&tx, &t, 1).unwrap().row[1]);
    set_n(&mut tx, &t, 1, n + 1).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(committed(&node, &t, 1).await, Some(21));

    // Many at once: every increment counts.
    let increments = (0..16).map(|_| {
        let (node, t) = (node.clone(), t.clone());
        tokio::spawn(async move {
            let mut tx = begin(&node, &t, single()).await;
            loop {
                let n = int(&get(&tx, &t, 1).unwrap().row[1]);
                let done = match set_n(&mut tx, &t, 1, n + 1).await {
                    Ok(()) => tx.commit().await,
                    failed => failed,
                };
                match done {
                    Err(e) if e.kind == ErrorKind::Restart => tx.restart_statement().await.unwrap(),
                    done => return done.unwrap(),
                }
            }
        })
    });
    for increment in increments.collect::<Vec<_>>() {
        increment.await.unwrap();
    }
    assert_eq!(committed(&node, &t, 1).await, Some(37));
    drop((tx, other, node));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ddl_is_seen_by_its_transaction_first_and_is_rolled_back_with_it() {
    let (cluster, node, t) = one().await;
    fill(&node, &t, &[(1, 10, "a"), (2, 20, "a")]).await;

    let mut tx = node.begin(block());
    tx.lock_catalog().await.unwrap();
    let id = tx.allocate_id().unwrap();
    tx.put_table(strong(id, "fresh")).unwrap();
    let fresh = tx.catalog().table("public", "fresh").unwrap().clone();
    statement(&mut tx, &fresh).await.unwrap();
    insert(&mut tx, &fresh, vec![row(1, 1, "x")]).await.unwrap();
    assert!(node.catalog().table("public", "fresh").is_none());
    tx.rollback().await;
    assert!(node.catalog().table("public", "fresh").is_none());

    // Taken back to a savepoint, DDL leaves no trace in the commit.
    let mut tx = begin(&node, &t, block()).await;
    insert(&mut tx, &t, vec![row(3, 30, "a")]).await.unwrap();
    let savepoint = tx.savepoint();
    tx.lock_catalog().await.unwrap();
    let mut changed = (*t).clone();
    changed.name = "renamed".to_owned();
    tx.put_table(changed).unwrap();
    let renamed = tx.catalog().table("public", "renamed").unwrap().clone();
    statement(&mut tx, &renamed).await.unwrap();
    insert(&mut tx, &renamed, vec![row(4, 40, "a")]).await.unwrap();
    tx.rollback_to(savepoint).unwrap();
    assert!(tx.catalog().table("public", "renamed").is_none());
    tx.commit().await.unwrap();
    assert_eq!(committed(&node, &t, 3).await, Some(30));
    assert_eq!(committed(&node, &t, 4).await, None);

    // A new index is filled; a unique one over duplicates is refused.
    let with_index = |unique| {
        let mut changed = (*t).clone();
        let id = IndexId(changed.next_index_id);
        changed.next_index_id += 1;
        changed.indexes.push(Index { unique, ..Index::new(id, "t_new".to_owned(), 99_000, vec![2]) });
        (changed, id)
    };
    for unique in [true, false] {
        let mut tx = node.begin(block());
        tx.lock_catalog().await.unwrap();
        tx.lock_table(&t).await.unwrap();
        let (changed, index) = with_index(unique);
        tx.put_table(changed).unwrap();
        let changed = tx.catalog().table("public", "t").unwrap().clone();
        let built = tx.build_index(&changed, index);
        if unique {
            let e = built.unwrap_err();
            assert_eq!((e.sqlstate, e.constraint.as_deref()), ("23505", Some("t_new")));
            tx.rollback().await;
        } else {
            built.unwrap();
            assert_eq!(all(&tx, &changed, index), [1, 2, 3]);
            tx.commit().await.unwrap();
        }
    }
    // A plan made before is refused, and one made now works.
    let mut tx = node.begin(block());
    assert_eq!(statement(&mut tx, &t).await.unwrap_err().kind, ErrorKind::CatalogMoved);
    let t = the_table(&node, "t").await;
    statement(&mut tx, &t).await.unwrap();
    assert_eq!(all(&tx, &t, IndexId(3)), [1, 2, 3]);
    drop((tx, node));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaderless_rows_and_mixed_commits() {
    let (cluster, node, t) = one().await;
    let c = make(&node, "c", leaderless).await;
    let tags = |tags: &[&str]| Datum::array(DataType::Text, tags.iter().map(Datum::text).collect());
    let line = |k: i64, n: i64, set: &[&str], note: &str| -> Row {
        vec![Datum::Int8(k), Datum::Int8(n), tags(set), Datum::text(note)].into_iter().collect()
    };
    let update = async |tx: &mut Tx, k: i64, new: Row| {
        let old = get(tx, &c, k).unwrap();
        tx.update(&c, vec![(old, new)]).await.unwrap();
    };
    let mut tx = begin(&node, &c, block()).await;
    insert(&mut tx, &c, vec![line(1, 5, &["x"], "a"), line(2, 0, &[], "b")]).await.unwrap();
    update(&mut tx, 1, line(1, 7, &["x", "y"], "a2")).await;
    let savepoint = tx.savepoint();
    update(&mut tx, 1, line(1, 100, &[], "lost")).await;
    tx.rollback_to(savepoint).unwrap();
    assert_eq!(get(&tx, &c, 1).unwrap().row, line(1, 7, &["x", "y"], "a2"));
    let two = get(&tx, &c, 2).unwrap();
    tx.delete(&c, vec![two]).await.unwrap();
    insert(&mut tx, &c, vec![line(3, 3, &[], "c")]).await.unwrap();
    assert_eq!(all(&tx, &c, IndexId::PRIMARY), [1, 3]);
    tx.commit().await.unwrap();
    let tx = begin(&node, &c, block()).await;
    assert_eq!(all(&tx, &c, IndexId::PRIMARY), [1, 3]);

    // Two that have not seen each other both count.
    let (mut a, mut b) = (begin(&node, &c, block()).await, begin(&node, &c, block()).await);
    update(&mut a, 1, line(1, 8, &["x", "y", "z"], "a2")).await;
    update(&mut b, 1, line(1, 17, &["y"], "a2")).await;
    a.commit().await.unwrap();
    b.commit().await.unwrap();
    let tx = begin(&node, &c, block()).await;
    assert_eq!(get(&tx, &c, 1).unwrap().row, line(1, 18, &["y", "z"], "a2"));

    // Both kinds, or neither.
    let both = [t.clone(), c.clone()];
    let mixed = async |k: i64| {
        let mut tx = node.begin(block());
        tx.begin_statement(Access::Strong, &both).await.unwrap();
        insert(&mut tx, &t, vec![row(k, k, "m")]).await.unwrap();
        let old = get(&tx, &c, 3).unwrap();
        let n = int(&old.row[1]);
        tx.update(&c, vec![(old, line(3, n + 1, &[], "c"))]).await.unwrap();
        tx
    };
    mixed(1).await.commit().await.unwrap();
    let counted = || async { int(&get(&begin(&node, &c, block()).await, &c, 3).unwrap().row[1]) };
    assert_eq!((committed(&node, &t, 1).await, counted().await), (Some(1), 4));
    mixed(2).await.rollback().await;
    assert_eq!((committed(&node, &t, 2).await, counted().await), (None, 4));
    drop((tx, a, b, node));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_transaction_refuses_to_write() {
    let (cluster, node, t) = one().await;
    fill(&node, &t, &[(1, 10, "a")]).await;
    let mut tx = begin(&node, &t, TransactionOptions { read_only: true, ..block() }).await;
    let stored = get(&tx, &t, 1).unwrap();
    let refused = |e: Result<()>| assert_eq!(e.map_err(|e: Error| e.sqlstate), Err("25006"));
    refused(insert(&mut tx, &t, vec![row(2, 2, "a")]).await);
    refused(tx.update(&t, vec![(stored.clone(), row(1, 1, "a"))]).await);
    refused(tx.delete(&t, vec![stored.clone()]).await);
    refused(tx.lock_rows(&t, &[stored], LockMode::Exclusive, WaitPolicy::Wait).await.map(drop));
    refused(tx.lock_catalog().await);
    assert!(tx.is_read_only());
    tx.commit().await.unwrap();
    drop((tx, node));
    cluster.end().await;
}

/// An INSERT of a statement that began earlier collides with what is there now, and does not start over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_looks_at_what_is_there_now() {
    let (cluster, node, t) = one().await;
    let mut early = begin(&node, &t, block()).await;
    let mut other = begin(&node, &t, block()).await;
    insert(&mut other, &t, vec![row(1, 1, "a")]).await.unwrap();
    other.commit().await.unwrap();
    assert!(get(&early, &t, 1).is_none(), "what it reads stays as it was");
    let outcome = early.insert(&t, vec![row(1, 2, "b")], OnConflict::Report(None)).await.unwrap();
    assert!(matches!(&outcome[..], [InsertOutcome::Conflict(found)] if int(&found.row[1]) == 1));
    insert(&mut early, &t, vec![row(2, 2, "b")]).await.unwrap();
    let error = insert(&mut early, &t, vec![row(1, 3, "c")]).await.unwrap_err();
    assert_eq!(error.sqlstate, "23505");
    early.rollback().await;
    // Its one snapshot is all that REPEATABLE READ may go by.
    let mut early = begin(&node, &t, options(IsolationLevel::RepeatableRead, false)).await;
    let mut other = begin(&node, &t, block()).await;
    insert(&mut other, &t, vec![row(5, 5, "e")]).await.unwrap();
    other.commit().await.unwrap();
    assert_eq!(insert(&mut early, &t, vec![row(5, 6, "f")]).await.unwrap_err().sqlstate, "40001");
    drop((early, other, node));
    cluster.end().await;
}

/// Who writes very many rows gets the table to itself, if nobody else is writing; and loses nothing by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rows_lock_their_table() {
    let (cluster, node, t) = one().await;
    let many = |from: i64| (from..from + 20_000).map(|k| row(k, k, "x")).collect::<Vec<_>>();
    // Somebody else's row keeps the table open to all.
    let mut other = begin(&node, &t, block()).await;
    insert(&mut other, &t, vec![row(-1, -1, "o")]).await.unwrap();
    let mut bulk = begin(&node, &t, block()).await;
    insert(&mut bulk, &t, many(0)).await.unwrap();
    insert(&mut other, &t, vec![row(-2, -2, "o")]).await.unwrap();
    other.commit().await.unwrap();
    // Now it is alone.
    insert(&mut bulk, &t, many(20_000)).await.unwrap();
    let mut late =
        begin(&node, &t, TransactionOptions { lock_timeout: Duration::from_millis(50), ..block() }).await;
    assert_eq!(insert(&mut late, &t, vec![row(-3, -3, "l")]).await.unwrap_err().sqlstate, "55P03");
    // What was committed before is collided with.
    let error = insert(&mut bulk, &t, vec![row(-1, -9, "b")]).await.unwrap_err();
    assert_eq!(error.sqlstate, "23505");
    insert(&mut bulk, &t, vec![row(100_000, 100_000, "b")]).await.unwrap();
    bulk.commit().await.unwrap();
    late.rollback().await;
    let mut late = begin(&node, &t, block()).await;
    insert(&mut late, &t, vec![row(-3, -3, "l")]).await.unwrap();
    late.commit().await.unwrap();
    let tx = begin(&node, &t, block()).await;
    assert_eq!(all(&tx, &t, IndexId::PRIMARY).len(), 40_004);
    drop((bulk, late, other, tx, node));
    cluster.end().await;
}

//! SERIALIZABLE transactions of one cluster: what they refuse, what they let pass, whichever way it was read.

use std::sync::Arc;

use amphora_storage::schema::{IndexId, Replication, Table};
use amphora_storage::{Datum, Row};

use super::tests::*;
use crate::Result;
use crate::api::*;
use crate::node::tests::{Cluster, table};

fn serializable() -> TransactionOptions {
    options(IsolationLevel::Serializable, false)
}

fn range(from: i64, to: i64) -> KeyRange {
    KeyRange {
        prefix: Vec::new(),
        lower: KeyBound::Included(Datum::Int8(from)),
        upper: KeyBound::Excluded(Datum::Int8(to)),
    }
}

fn refused(outcome: Result<()>) {
    let e = outcome.unwrap_err();
    let message = "could not serialize access due to read/write dependencies among transactions";
    assert_eq!((e.sqlstate, e.message.as_str()), ("40001", message));
    assert_eq!(e.hint.as_deref(), Some("The transaction might succeed if retried."));
}

async fn put(node: &crate::node::Node, t: &Arc<Table>, row: Row) {
    let mut tx = begin(node, t, single()).await;
    insert(&mut tx, t, vec![row]).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_skew_is_refused_and_disjoint_reads_are_not() {
    let (cluster, node, t) = one().await;
    fill(&node, &t, &[(1, 10, "a"), (2, 20, "a"), (3, 30, "b"), (4, 40, "b")]).await;
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        let mut one = begin(&node, &t, options(level, false)).await;
        let mut two = begin(&node, &t, options(level, false)).await;
        for tx in [&one, &two] {
            get(tx, &t, 1).unwrap();
            get(tx, &t, 2).unwrap();
        }
        set_n(&mut one, &t, 1, 100 + level as i64).await.unwrap();
        set_n(&mut two, &t, 2, 200 + level as i64).await.unwrap();
        one.commit().await.unwrap();
        match level {
            IsolationLevel::Serializable => refused(two.commit().await),
            _ => two.commit().await.unwrap(),
        }
    }
    let mut one = begin(&node, &t, serializable()).await;
    let mut two = begin(&node, &t, serializable()).await;
    set_n(&mut one, &t, 1, 1000).await.unwrap();
    set_n(&mut two, &t, 3, 3000).await.unwrap();
    one.commit().await.unwrap();
    two.commit().await.unwrap();
    drop((one, two, node));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn phantoms_are_refused_in_every_index_up_to_where_the_scan_came() {
    let (cluster, node, t) = one().await;
    fill(&node, &t, &[(10, 10, "a"), (20, 20, "a"), (30, 30, "b"), (40, 40, "b")]).await;
    let by_tag = KeyRange::prefix(vec![Datum::text("a")]);
    let primary = IndexId::PRIMARY;
    // What is read, how much of it, what is inserted then, and whether that was read.
    let forward = Direction::Forward;
    let cases: Vec<(IndexId, KeyRange, Direction, usize, Row, bool)> = vec![
        (primary, range(10, 30), forward, 9, row(25, 1, "z"), true),
        (primary, range(10, 30), forward, 9, row(31, 2, "z"), false),
        (primary, KeyRange::all(), forward, 2, row(15, 3, "z"), true),
        (primary, KeyRange::all(), forward, 2, row(35, 4, "z"), false),
        (primary, range(0, 500), Direction::Backward, 2, row(36, 5, "z"), true),
        (primary, range(0, 500), Direction::Backward, 2, row(16, 6, "z"), false),
        (BY_TAG, by_tag.clone(), forward, 9, row(50, 50, "a"), true),
        (BY_TAG, by_tag, forward, 9, row(51, 51, "b"), false),
        (BY_N, range(100, 200), forward, 9, row(52, 150, "q"), true),
        (BY_N, range(100, 150), forward, 9, row(53, 151, "q"), false),
    ];
    for (n, (index, range, direction, limit, new, read)) in cases.into_iter().enumerate() {
        let mut tx = begin(&node, &t, serializable()).await;
        let scan = Scan { table: t.clone(), index, range, direction, columns: None };
        let mut rows = tx.scan(&scan).unwrap();
        rows.next_batch(limit, &mut Vec::new()).unwrap();
        insert(&mut tx, &t, vec![row(1000 + n as i64, 1000 + n as i64, "mine")]).await.unwrap();
        put(&node, &t, new).await;
        match read {
            true => refused(tx.commit().await),
            false => assert!(tx.commit().await.is_ok(), "case {n}"),
        }
    }
    drop(node);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_read_through_an_index_is_read_as_a_whole() {
    let (cluster, node, t) = one().await;
    fill(&node, &t, &[(1, 10, "a"), (2, 20, "b")]).await;
    let mut tx = begin(&node, &t, serializable()).await;
    assert_eq!(keys(&tx, &t, BY_TAG, KeyRange::prefix(vec![Datum::text("a")]), Direction::Forward), [1]);
    set_n(&mut tx, &t, 2, 21).await.unwrap();
    let mut other = begin(&node, &t, single()).await;
    set_n(&mut other, &t, 1, 11).await.unwrap();
    other.commit().await.unwrap();
    refused(tx.commit().await);
    drop((tx, other, node));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_reads_is_never_refused_and_a_single_statement_starts_over() {
    let (cluster, node, t) = one().await;
    fill(&node, &t, &[(1, 10, "a"), (2, 20, "b")]).await;
    let mut reader = begin(&node, &t, serializable()).await;
    let seen = all(&reader, &t, IndexId::PRIMARY);
    let mut other = begin(&node, &t, single()).await;
    set_n(&mut other, &t, 1, 11).await.unwrap();
    other.commit().await.unwrap();
    statement(&mut reader, &t).await.unwrap();
    assert_eq!(int(&get(&reader, &t, 1).unwrap().row[1]), 10);
    assert_eq!(all(&reader, &t, IndexId::PRIMARY), seen);
    reader.commit().await.unwrap();

    // `UPDATE t SET n = (SELECT n FROM t WHERE k = 1) + 1 WHERE k = 2`
    let mut single = begin(&node, &t, options(IsolationLevel::Serializable, true)).await;
    let mut tries = 0;
    loop {
        tries += 1;
        let n = int(&get(&single, &t, 1).unwrap().row[1]);
        set_n(&mut single, &t, 2, n + 1).await.unwrap();
        if tries == 1 {
            let mut other = begin(&node, &t, super::tests::single()).await;
            set_n(&mut other, &t, 1, 50).await.unwrap();
            other.commit().await.unwrap();
        }
        match single.commit().await {
            Ok(()) => break,
            Err(e) => assert_eq!(e.kind, crate::ErrorKind::Restart),
        }
        single.restart_statement().await.unwrap();
    }
    assert_eq!((tries, committed(&node, &t, 2).await), (2, Some(51)));
    drop((reader, other, single, node));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_in_a_table_that_is_then_written_anew_has_moved() {
    let (cluster, node, t) = one().await;
    let u = make(&node, "u", strong).await;
    fill(&node, &t, &[(1, 10, "a")]).await;
    let mut tx = begin(&node, &t, serializable()).await;
    assert_eq!(all(&tx, &t, IndexId::PRIMARY), [1]);
    tx.begin_statement(Access::Strong, std::slice::from_ref(&u)).await.unwrap();
    insert(&mut tx, &u, vec![row(1, 1, "a")]).await.unwrap();
    let mut ddl = node.begin(block());
    ddl.lock_catalog().await.unwrap();
    let moved = Table { storage: Some(ddl.allocate_id().unwrap()), ..(*t).clone() };
    ddl.put_table(moved).unwrap();
    ddl.commit().await.unwrap();
    refused(tx.commit().await);
    drop((tx, ddl, node));
    cluster.end().await;
}

/// Through followers, and over a change of leader: what another leader committed is not known to the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_and_the_next_leader_refuse_too() {
    let cluster = Cluster::start(3).await;
    let t = make(&cluster.node(0), "t", |id, name| table(id, name, Replication::Strong)).await;
    let nodes: Vec<_> = (0..3).map(|n| cluster.node(n)).collect();
    let row = |k: i64| -> Row { vec![Datum::Int8(k), Datum::Int8(0)].into_iter().collect() };
    for (n, a) in nodes.iter().enumerate() {
        let b = &nodes[(n + 1) % 3];
        let n = n as i64 * 10;
        let mut one = begin(a, &t, serializable()).await;
        let mut two = begin(b, &t, serializable()).await;
        all(&one, &t, IndexId::PRIMARY);
        all(&two, &t, IndexId::PRIMARY);
        insert(&mut one, &t, vec![row(n)]).await.unwrap();
        insert(&mut two, &t, vec![row(n + 1)]).await.unwrap();
        one.commit().await.unwrap();
        refused(two.commit().await);
    }
    let leader = nodes.iter().find(|n| n.group().is_leader()).unwrap();
    let follower = nodes.iter().find(|n| !n.group().is_leader()).unwrap();
    let mut old = begin(leader, &t, serializable()).await;
    all(&old, &t, IndexId::PRIMARY);
    let mut other = begin(leader, &t, single()).await;
    insert(&mut other, &t, vec![row(100)]).await.unwrap();
    other.commit().await.unwrap();
    leader.group().transfer_leader(follower.group().node_id()).await.unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !follower.group().is_leader() {
        assert!(std::time::Instant::now() < until, "the follower did not take over");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    insert(&mut old, &t, vec![row(101)]).await.unwrap();
    refused(old.commit().await);
    let mut fresh = begin(leader, &t, serializable()).await;
    assert_eq!(all(&fresh, &t, IndexId::PRIMARY).len(), 4);
    insert(&mut fresh, &t, vec![row(102)]).await.unwrap();
    fresh.commit().await.unwrap();
    drop((old, other, fresh, nodes));
    cluster.end().await;
}

/// What a large transaction sends ahead is not looked at key by key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_staged_transaction_counts_as_having_written_its_tables() {
    let (cluster, node, t) = one().await;
    let u = make(&node, "u", strong).await;
    for (read, is_refused) in [(&t, true), (&u, false)] {
        let mut tx = begin(&node, read, serializable()).await;
        keys(&tx, read, IndexId::PRIMARY, range(1_000_000, 1_000_001), Direction::Forward);
        tx.begin_statement(Access::Strong, std::slice::from_ref(&u)).await.unwrap();
        insert(&mut tx, &u, vec![row(i64::from(is_refused), i64::from(is_refused), "u")]).await.unwrap();
        let mut large = begin(&node, &t, block()).await;
        let text = "x".repeat(1 << 20);
        let first = if is_refused { 0 } else { 100 };
        for k in first..first + 10 {
            insert(&mut large, &t, vec![row(k, k, &format!("{k}{text}"))]).await.unwrap();
        }
        large.commit().await.unwrap();
        match is_refused {
            true => refused(tx.commit().await),
            false => tx.commit().await.unwrap(),
        }
    }
    drop(node);
    cluster.end().await;
}

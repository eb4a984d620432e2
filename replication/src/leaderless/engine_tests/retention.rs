//! The op log's limits, and members that were away for longer.

use super::*;

/// A row that takes so many bytes.
async fn write_large(engine: &Engine, k: &str, bytes: usize) {
    let mut row = PendingRow::new(engine.state(&key(k)).unwrap());
    let mut new = new_row(k, 1);
    new[1] = Datum::text("x".repeat(bytes));
    row.put(test_table(), None, &new).unwrap();
    engine.commit(vec![(test_table().clone(), key(k), row.op().unwrap().clone())]).await.unwrap();
}

async fn delete(engine: &Engine, k: &str) {
    let mut row = PendingRow::new(engine.state(&key(k)).unwrap());
    row.delete();
    engine.commit(vec![(test_table().clone(), key(k), row.op().unwrap().clone())]).await.unwrap();
}

fn isolate(cluster: &Cluster, id: NodeId) {
    (1..=3).filter(|other| *other != id).for_each(|other| cluster.net.cut_both(id, other));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_away_for_longer_than_the_log_is_sent_the_rows_and_resurrects_nothing() {
    let cluster = Cluster::new(3, 0);
    for k in ["doomed", "doomed too", "kept"] {
        add(&cluster.node(1), k, 1).await;
    }
    cluster.converge().await;
    isolate(&cluster, 3);
    let (first, away) = (cluster.node(1), cluster.node(3));
    add(&away, "doomed", 1).await;
    add(&away, "mine", 5).await;
    add(&away, "kept", 10).await;
    delete(&first, "doomed").await;
    delete(&cluster.node(2), "doomed too").await;
    add(&first, "kept", 100).await;
    for n in 0..16 {
        write_large(&first, &format!("large {n}"), 1 << 20).await;
    }
    let two = BTreeSet::from([Quorum::Nodes(2)]);
    cluster.node(2).ask_quorums(&two, Duration::from_secs(20)).await.unwrap();
    assert_eq!(first.progress()[&3], Progress::Behind);
    for engine in [&first, &cluster.node(2)] {
        engine.set_limits(OpLogLimits { bytes: 6 << 20, ..OpLogLimits::default() });
        engine.truncate().unwrap();
        assert!(engine.log.bytes() <= 6 << 20);
        assert!(engine.log.first_of(1).is_some_and(|seq| seq > 5), "what the member lacks is given up");
    }
    assert_eq!(first.progress()[&3], Progress::BehindTheLog);
    assert_eq!(counter(&first, "kept"), 101, "nobody waits for it");

    cluster.net.heal();
    cluster.converge().await;
    for id in 1..=3 {
        let node = cluster.node(id);
        assert!(read(&node, "doomed").is_none() && read(&node, "doomed too").is_none(), "node {id}");
        assert_eq!((counter(&node, "mine"), counter(&node, "kept")), (5, 111), "node {id}");
        let large = (0..16).filter(|n| read(&node, &format!("large {n}")).is_some()).count();
        assert_eq!(large, 16, "node {id}");
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while first.progress()[&3] != Progress::Level || away.progress()[&3] != Progress::Level {
        assert!(Instant::now() < deadline, "{:?} {:?}", first.progress(), away.progress());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_is_given_up_and_what_all_have_is_kept_no_longer_than_it_must() {
    let mut cluster = Cluster::new(2, 0);
    add(&cluster.node(1), "k", 1).await;
    cluster.converge().await;
    cluster.stop(2).await;
    let node = cluster.node(1);
    for n in 0..8 {
        write_large(&node, &format!("large {n}"), 1 << 20).await;
    }
    node.settle().unwrap();
    node.log.store().flush().unwrap();
    node.truncate().unwrap();
    assert_eq!(node.log.first_of(1), Some(1), "the other lacks it, and it is neither much nor old");
    node.set_limits(OpLogLimits { age: Duration::ZERO, ..OpLogLimits::default() });
    node.truncate().unwrap();
    assert!(node.log.first_of(1).is_some_and(|seq| seq > 2));
    cluster.start(2);
    cluster.converge().await;
    assert_eq!(counter(&cluster.node(2), "k"), 1);
    assert!(read(&cluster.node(2), "large 3").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_installed_from_a_checkpoint_passes_on_rows_for_the_commits_it_never_had() {
    let mut cluster = Cluster::new(3, 0);
    add(&cluster.node(1), "k", 1).await;
    cluster.converge().await;
    isolate(&cluster, 1);
    for _ in 0..20 {
        add(&cluster.node(1), "k", 1).await;
    }
    // Node 2 gets node 1's data otherwise than by its stream, and then node 1 is gone for good.
    let node = cluster.node(2);
    let received = node.log.store().incoming_dir();
    cluster.node(1).settle().unwrap();
    cluster.node(1).log.store().checkpoint(&received).unwrap();
    node.install_checkpoint(&received).unwrap();
    assert_eq!(counter(&node, "k"), 21);
    assert!(node.log.read(1, 2, 21, 1 << 20).unwrap().is_empty(), "its log has none of them");
    drop(node);
    cluster.stop(1).await;
    cluster.net.heal();
    cluster.converge().await;
    assert_eq!(counter(&cluster.node(3), "k"), 21);
    add(&cluster.node(3), "k", 1).await;
    cluster.converge().await;
    assert_eq!(counter(&cluster.node(2), "k"), 22);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catching_up_keeps_its_rate_and_delays_no_write() {
    let cluster = Cluster::new(3, 0);
    add(&cluster.node(1), "k", 1).await;
    cluster.converge().await;
    isolate(&cluster, 3);
    let node = cluster.node(1);
    for n in 0..6 {
        write_large(&node, &format!("large {n}"), 900 << 10).await;
    }
    for engine in [&node, &cluster.node(2)] {
        engine.set_limits(OpLogLimits { catch_up_rate: 2 << 20, ..OpLogLimits::default() });
    }
    cluster.net.heal();
    let begun = Instant::now();
    let mut writes = 0;
    while !cluster.node(3).vector().covers(&[(1, 7)].into_iter().collect()) {
        add(&node, "k", 1).await;
        writes += 1;
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not catch up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(begun.elapsed() > Duration::from_millis(900), "5 MB in {:?}", begun.elapsed());
    assert!(writes > 10, "{writes} writes in {:?}", begun.elapsed());
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_which_nothing_can_be_given_up_refuses_commits_in_the_end() {
    let cluster = Cluster::new(1, 0);
    let node = cluster.node(1);
    add(&node, "k", 1).await;
    node.set_limits(OpLogLimits { bytes: 1, slack: 1 << 20, ..OpLogLimits::default() });
    add(&node, "k", 1).await;
    // The file that is written to is never given up.
    node.set_limits(OpLogLimits { bytes: 1, slack: 0, ..OpLogLimits::default() });
    let refused =
        node.commit(vec![(test_table().clone(), key("k"), upsert(&node, "k", 1))]).await.unwrap_err();
    assert_eq!(refused.sqlstate, "53100");
    assert!(refused.hint.is_some());
    node.set_limits(OpLogLimits::default());
    add(&node, "k", 1).await;
    assert_eq!(counter(&node, "k"), 3, "what was refused is not there");
}

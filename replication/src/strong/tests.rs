//! Groups in one process: what a transaction sees and keeps, whoever leads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amphora_storage::schema::TableId;
use amphora_storage::{Cf, Timestamp};

use super::testing::*;
use super::types::{Command, CommitBatch};
use super::*;
use crate::ErrorKind;
use crate::api::LockMode;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_commits_and_remembers_after_a_restart() {
    let mut cluster = Cluster::one().await;
    let group = cluster.node(1).group.clone();
    let first = group.commit(put(&group, "a", Timestamp::ZERO, "1")).await.unwrap();
    let second = group.commit(put(&group, "a", first, "2")).await.unwrap();
    assert!(second > first);
    assert!(group.read_timestamp().await.unwrap() >= second);
    let mut mixed = commit(&group);
    mixed.leaderless = b"ops".to_vec();
    group.commit(mixed).await.unwrap();
    let conflict = group.commit(put(&group, "a", first, "3")).await.unwrap_err();
    assert_eq!(conflict.kind, ErrorKind::Restart);
    let id = group.allocate_node(uuid::Uuid::from_u128(7)).await.unwrap();
    assert_eq!(group.allocate_node(uuid::Uuid::from_u128(7)).await.unwrap(), id);
    assert_eq!(group.allocate_node(uuid::Uuid::from_u128(8)).await.unwrap(), id + 1);
    drop(group);
    cluster.kill(1).await;
    cluster.start(1).await;
    let node = cluster.node(1);
    assert_eq!(node.read("a").await.as_deref(), Some("2"));
    assert_eq!(node.store.get_plain(Cf::Leaderless, b"ops").unwrap().unwrap(), b"applied");
    let third = node.group.commit(put(&node.group, "a", second, "3")).await.unwrap();
    assert!(third > second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_crash_that_loses_the_tables_memory() {
    let cluster = Cluster::with_limits(LogLimits { flush_every: 30, ..LogLimits::default() }).await;
    let group = &cluster.node(1).group;
    let mut newest = Timestamp::ZERO;
    for n in 0..100 {
        let mut request = put(group, &n.to_string(), Timestamp::ZERO, "x");
        request.leaderless = format!("ops {n}").into_bytes();
        newest = group.commit(request).await.unwrap();
    }
    let crashed = cluster.crashed_copy(1).await;
    let node = crashed.node(1);
    assert!(node.group.read_timestamp().await.unwrap() >= newest);
    for n in 0..100 {
        assert_eq!(node.read(&n.to_string()).await.as_deref(), Some("x"), "{n}");
        assert!(node.store.get_plain(Cf::Leaderless, format!("ops {n}")).unwrap().is_some());
    }
    assert!(node.group.commit(put(&node.group, "more", Timestamp::ZERO, "y")).await.unwrap() > newest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_a_gateway_and_reads_what_was_acknowledged() {
    let cluster = Cluster::three().await;
    let mut version = Timestamp::ZERO;
    for round in 0..30 {
        let writer = &cluster.nodes[round % 3].group;
        version = writer.commit(put(writer, "a", version, &round.to_string())).await.unwrap();
        for node in &cluster.nodes {
            assert_eq!(node.read("a").await, Some(round.to_string()), "node {}", node.id);
        }
    }
    assert!(cluster.nodes.iter().all(|n| n.group.is_ready()));
    assert_eq!(cluster.node(1).group.peer_lag().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_conflicting_optimistic_commits_one_wins() {
    let cluster = Cluster::three().await;
    let version = {
        let group = &cluster.node(1).group;
        group.commit(put(group, "n", Timestamp::ZERO, "0")).await.unwrap()
    };
    let mut tries = Vec::new();
    for n in 0..24 {
        let group = cluster.nodes[n % 3].group.clone();
        tries.push(tokio::spawn(
            async move { group.commit(put(&group, "n", version, &format!("by {n}"))).await },
        ));
    }
    let mut winners = 0;
    for attempt in tries {
        match attempt.await.unwrap() {
            Ok(_) => winners += 1,
            Err(e) => assert_eq!(e.kind, ErrorKind::Restart, "{e:?}"),
        }
    }
    assert_eq!(winners, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_serialize_increments_from_all_gateways() {
    let cluster = Cluster::three().await;
    let mut workers = Vec::new();
    for n in 0..12 {
        let (group, store) = (cluster.nodes[n % 3].group.clone(), cluster.nodes[n % 3].store.clone());
        workers.push(tokio::spawn(async move {
            for _ in 0..10 {
                let mut request = commit(&group);
                let granted = group.lock(locks(request.id, &["n"])).await.unwrap();
                let KeyLock::Granted(version) = granted[0] else { panic!("skipped") };
                let at = group.read_timestamp().await.unwrap();
                assert!(at >= version);
                let row = store.get(key("n"), at).unwrap();
                let n: u64 = row.map_or(0, |v| String::from_utf8(v.value).unwrap().parse().unwrap());
                request.locked = true;
                request.writes = vec![Write { key: key("n"), value: Some((n + 1).to_string().into_bytes()) }];
                group.commit(request).await.unwrap();
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(cluster.node(2).read("n").await.as_deref(), Some("120"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_across_gateways_is_found() {
    let cluster = Cluster::three().await;
    let (one, two) = (cluster.node(2).group.clone(), cluster.node(3).group.clone());
    let (a, b) = (one.transaction_id(), two.transaction_id());
    one.lock(locks(a, &["a"])).await.unwrap();
    two.lock(locks(b, &["b"])).await.unwrap();
    let waiting = tokio::spawn({
        let one = one.clone();
        async move { one.lock(locks(a, &["b"])).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let error = two.lock(locks(b, &["a"])).await.unwrap_err();
    assert_eq!((error.sqlstate, error.message.as_str()), ("40P01", "deadlock detected"));
    two.release(b);
    waiting.await.unwrap().unwrap();
    let mut impatient = locks(two.transaction_id(), &["a"]);
    impatient.timeout = Duration::from_millis(100);
    let error = two.lock(impatient).await.unwrap_err();
    assert_eq!(error.sqlstate, "55P03");
    assert_eq!(error.message, "canceling statement due to lock timeout");
    let mut hasty = locks(two.transaction_id(), &["a"]);
    hasty.wait = crate::api::WaitPolicy::NoWait;
    let error = two.lock(hasty).await.unwrap_err();
    assert_eq!(error.message, "could not obtain lock on row in relation \"t\"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_outlasts_its_poll_and_locks_are_renewed() {
    let cluster = Cluster::three().await;
    let (one, two) = (cluster.node(2).group.clone(), cluster.node(3).group.clone());
    let mut holder = commit(&one);
    one.lock(locks(holder.id, &["a"])).await.unwrap();
    let waiter = two.transaction_id();
    let waiting = tokio::spawn({
        let two = two.clone();
        async move { two.lock(locks(waiter, &["a"])).await }
    });
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!waiting.is_finished());
    holder.locked = true;
    holder.writes = vec![Write { key: key("a"), value: Some(b"x".to_vec()) }];
    let version = one.commit(holder).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), [KeyLock::Granted(version)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::three().await;
    let group = cluster.node(2).group.clone();
    let mut holder = commit(&group);
    group.lock(locks(holder.id, &["held"])).await.unwrap();
    let version = group.commit(put(&group, "a", Timestamp::ZERO, "before")).await.unwrap();
    let started = Instant::now();
    // Writes go on while the leader dies.
    let writing = async { group.commit(put(&group, "b", Timestamp::ZERO, "after")).await };
    let ((), after) = tokio::join!(cluster.kill(1), writing);
    let after = after.unwrap();
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert!(after > version);
    for node in &cluster.nodes {
        assert_eq!(node.read("a").await.as_deref(), Some("before"));
        assert_eq!(node.read("b").await.as_deref(), Some("after"));
    }
    holder.locked = true;
    holder.writes = vec![Write { key: key("held"), value: Some(b"x".to_vec()) }];
    let error = group.commit(holder).await.unwrap_err();
    assert_eq!((error.sqlstate, error.kind), ("40001", ErrorKind::Retry));
    cluster.start(1).await;
    cluster.until("the old leader has caught up", |c| c.node(1).group.is_ready()).await;
    assert_eq!(cluster.node(1).read("b").await.as_deref(), Some("after"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_refuses_and_a_majority_goes_on() {
    let cluster = Cluster::three().await;
    let version = {
        let group = &cluster.node(1).group;
        group.commit(put(group, "a", Timestamp::ZERO, "1")).await.unwrap()
    };
    cluster.wire.cut(1, 2);
    cluster.wire.cut(1, 3);
    let two = &cluster.node(2).group;
    // Sent to the old leader first, its outcome is asked of the new one: certainly not committed. If that takes too
    // long to come to office, the outcome is not known; but no majority can have it.
    let next = match two.commit(put(two, "a", version, "2")).await {
        Err(e) if matches!(e.kind, ErrorKind::Restart | ErrorKind::Unknown) => {
            two.commit(put(two, "a", version, "2")).await.unwrap()
        }
        other => other.unwrap(),
    };
    assert!(next > version);
    assert_eq!(cluster.node(3).read("a").await.as_deref(), Some("2"));
    let one = &cluster.node(1).group;
    assert_eq!(one.read_timestamp().await.unwrap_err().kind, ErrorKind::Unavailable);
    let error = one.commit(put(one, "a", version, "never")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
    cluster.wire.heal();
    cluster.until("node 1 follows", |c| c.node(1).group.leader().is_some_and(|l| l != 1)).await;
    assert_eq!(cluster.node(1).read("a").await.as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_is_asked_for() {
    let cluster = Cluster::three().await;
    cluster.wire.lose_commit_replies_of(1);
    let two = &cluster.node(2).group;
    let version = two.commit(put(two, "a", Timestamp::ZERO, "1")).await.unwrap();
    let conflict = two.commit(put(two, "a", Timestamp::ZERO, "2")).await.unwrap_err();
    assert_eq!(conflict.kind, ErrorKind::Restart);
    cluster.wire.heal();
    two.commit(put(two, "a", version, "3")).await.unwrap();
    assert_eq!(cluster.node(3).read("a").await.as_deref(), Some("3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_certified_under_another_leadership_is_aborted() {
    let cluster = Cluster::one().await;
    let group = &cluster.node(1).group;
    let mut leader = group.inner.tenure.load_full().unwrap().leader();
    leader.term -= 1;
    let transaction = CommittedTransaction {
        id: group.transaction_id(),
        timestamp: group.inner.replica.clock.now(),
        writes: vec![Write { key: key("a"), value: Some(b"stale".to_vec()) }],
        staged: Staged::default(),
        leaderless: Vec::new(),
    };
    let batch = CommitBatch { leader, transactions: vec![transaction], on_disk: None };
    let response = group.inner.raft.client_write(Command::Commit(Arc::new(batch))).await.unwrap();
    assert_eq!(response.data, super::types::Applied::Aborted);
    assert_eq!(cluster.node(1).read("a").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_far_behind_gets_a_snapshot() {
    let mut cluster =
        Cluster::with_limits(LogLimits { flush_every: 50, keep: 5, ..LogLimits::default() }).await;
    let group = cluster.node(1).group.clone();
    for n in 0..300 {
        group.commit(put(&group, &n.to_string(), Timestamp::ZERO, "x")).await.unwrap();
    }
    cluster.until("the log is purged", |c| c.node(1).group.status().purged_index > 100).await;
    cluster.join().await;
    cluster
        .until("the new node is a voter", |c| {
            c.node(2).group.is_ready() && c.node(1).group.members().iter().all(|(_, _, voter)| *voter)
        })
        .await;
    assert_eq!(cluster.node(2).read("0").await.as_deref(), Some("x"));
    assert_eq!(cluster.node(2).read("299").await.as_deref(), Some("x"));
    let two = cluster.node(2).group.clone();
    two.commit(put(&two, "later", Timestamp::ZERO, "y")).await.unwrap();
    drop((group, two));
    // It lives on after a restart, from what it was given.
    cluster.kill(2).await;
    cluster.start(2).await;
    cluster.until("node 2 is back", |c| c.node(2).group.is_ready()).await;
    assert_eq!(cluster.node(2).read("later").await.as_deref(), Some("y"));
    assert_eq!(cluster.node(2).read("7").await.as_deref(), Some("x"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_bounded_by_bytes_and_a_snapshot_survives_broken_connections() {
    let many = 1_000_000;
    let limits = LogLimits {
        flush_every: many,
        keep: many,
        flush_bytes: 1 << 20,
        keep_bytes: 4 << 20,
        snapshot_rate: 16 << 20,
        ..LogLimits::default()
    };
    let mut cluster = Cluster::with_limits(limits).await;
    let group = cluster.node(1).group.clone();
    // Hard to compress, so that the snapshot has as many bytes.
    let noise = |n: u64| -> String {
        let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        (0..1 << 16).map(|_| format!("{:016x}", next())).collect()
    };
    for n in 0..12 {
        group.commit(put(&group, &n.to_string(), Timestamp::ZERO, &noise(n))).await.unwrap();
    }
    cluster.until("the log is purged", |c| c.node(1).group.status().purged_index > 5).await;
    assert!(group.inner.raft_log.bytes_after(0) < 8 << 20);
    cluster.wire.breaks_snapshots.store(true, std::sync::atomic::Ordering::Relaxed);
    let began = std::time::Instant::now();
    cluster.join().await;
    cluster.until("the new node has it all", |c| c.node(2).group.is_ready()).await;
    assert_eq!(cluster.node(2).read("0").await, Some(noise(0)));
    assert_eq!(cluster.node(2).read("11").await, Some(noise(11)));
    let (begun, pieces) = &cluster.wire.snapshots;
    assert_eq!(begun.load(std::sync::atomic::Ordering::Relaxed), 1, "it went on where it was");
    let pieces = pieces.load(std::sync::atomic::Ordering::Relaxed);
    assert!(pieces > 10, "{pieces}");
    assert!(began.elapsed() > Duration::from_millis(300), "so much takes its time at this rate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_runs_for_too_long_is_refused() {
    let limits = LogLimits {
        history: Duration::from_millis(100),
        longest_snapshot: Duration::from_millis(600),
        ..LogLimits::default()
    };
    let cluster = Cluster::with_limits(limits).await;
    let (group, store) = (&cluster.node(1).group, &cluster.node(1).store);
    let first = group.commit(put(group, "a", Timestamp::ZERO, "1")).await.unwrap();
    let hold = group.hold_history(first).unwrap();
    let mut version = first;
    while store.history_low() <= first {
        version = group.commit(put(group, "a", version, "2")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = store.get(key("a"), hold.at()).unwrap_err();
    assert_eq!(refused.sqlstate(), "72000");
    assert_eq!(group.hold_history(first).unwrap_err().sqlstate, "72000");
    assert_eq!(cluster.node(1).read("a").await.as_deref(), Some("2"));
}

pub(super) fn parts_on(node: &Node) -> usize {
    parts_of(&node.group)
}

/// The rows of the staging keyspace on a group's node.
fn parts_of(group: &Group) -> usize {
    let range =
        amphora_storage::key::index_range(TableId::STAGING, amphora_storage::schema::IndexId::PRIMARY);
    let direction = amphora_storage::store::Direction::Forward;
    let mut rows = group.store().scan(range, Timestamp::MAX, direction).unwrap();
    let mut count = 0;
    while rows.next().unwrap().is_some() {
        count += 1;
    }
    count
}

/// So many megabytes, sent ahead in parts.
pub(super) async fn stage(group: &Group, id: TransactionId, name: &str, megabytes: usize) -> StagedParts {
    let write = |n| Write { key: key(&format!("{name} {n}")), value: Some(vec![n as u8; 1 << 20]) };
    group.stage(id, (0..megabytes).map(write)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_staged_transaction_is_seen_whole_or_not_at_all() {
    let mut cluster = Cluster::three().await;
    let two = cluster.node(2).group.clone();
    let id = two.transaction_id();
    let parts = stage(&two, id, "a", 11).await;
    assert_eq!(parts.staged().parts, 6);
    assert_eq!(cluster.node(2).read("a 0").await, None, "nothing is seen before the commit");
    let writes = vec![Write { key: key("last"), value: Some(b"x".to_vec()) }];
    let request = CommitRequest { id, locked: true, staged: parts.staged(), writes, ..commit(&two) };
    let at = two.commit(request).await.unwrap();
    parts.keep();
    for node in [1, 2, 3] {
        cluster.until("it is applied", |c| c.node(node).group.applied_timestamp() >= at).await;
        for name in ["a 0", "a 10", "last"] {
            assert_eq!(cluster.node(node).store.newest(key(name)).unwrap(), at, "{name} on node {node}");
        }
        assert_eq!(parts_on(cluster.node(node)), 0);
    }
    drop(two);
    // Nothing of it was flushed: it is applied again from the log.
    cluster.kill(3).await;
    cluster.start(3).await;
    cluster.until("node 3 is back", |c| c.node(3).group.applied_timestamp() >= at).await;
    assert_eq!(cluster.node(3).store.newest(key("a 10")).unwrap(), at);
    assert_eq!(parts_on(cluster.node(3)), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_unfinished_transaction_staged_is_swept_and_nothing_else() {
    let cluster = Cluster::three().await;
    let two = cluster.node(2).group.clone();
    let leader = (1..=3).find(|n| cluster.node(*n).group.is_leader()).unwrap();
    let leader = cluster.node(leader).group.clone();
    let (alive, dead) = (two.transaction_id(), two.transaction_id());
    let kept = stage(&two, alive, "a", 5).await;
    stage(&two, dead, "b", 5).await.keep();
    leader.read_timestamp().await.unwrap();
    leader.sweep_staged().await.unwrap();
    assert_eq!(parts_of(&leader), 6, "both hold their locks");
    two.release(dead);
    for _ in 0..100 {
        leader.sweep_staged().await.unwrap();
        if parts_of(&leader) == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(parts_of(&leader), 3, "of the dead one nothing is left");
    // Who gives up deletes its own.
    drop(kept);
    cluster.until("the parts are gone", |_| parts_of(&leader) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_commits_and_a_larger_one_is_refused() {
    let cluster = Cluster::three().await;
    let two = &cluster.node(2).group;
    let large = |name: &str, megabytes: usize| CommitRequest {
        writes: (0..megabytes)
            .map(|n| Write { key: key(&format!("{name} {n}")), value: Some(vec![n as u8; 1 << 20]) })
            .collect(),
        ..commit(two)
    };
    let (a, b) = tokio::join!(two.commit(large("a", 20)), two.commit(large("b", 30)));
    let newest = a.unwrap().max(b.unwrap());
    let at = cluster.node(3).group.read_timestamp().await.unwrap();
    assert!(at >= newest);
    for name in ["a 0", "a 19", "b 29"] {
        assert_eq!(cluster.node(3).store.get(key(name), at).unwrap().unwrap().value.len(), 1 << 20);
    }
    assert_eq!(two.commit(large("c", 65)).await.unwrap_err().sqlstate, "54000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_given_up_but_not_under_a_running_snapshot() {
    let limits = LogLimits { history: Duration::from_millis(300), ..LogLimits::default() };
    let cluster = Cluster::with_limits(limits).await;
    let (group, store) = (&cluster.node(1).group, &cluster.node(1).store);
    let first = group.commit(put(group, "a", Timestamp::ZERO, "1")).await.unwrap();
    let hold = group.hold_history(first).unwrap();
    let mut version = first;
    for n in 0..10 {
        version = group.commit(put(group, "a", version, &n.to_string())).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(store.get(key("a"), first).unwrap().unwrap().value, b"1");
    drop(hold);
    cluster.until("history has passed", |c| c.node(1).store.history_low() > first).await;
    assert!(store.get(key("a"), first).is_err());
    assert_eq!(cluster.node(1).read("a").await.as_deref(), Some("9"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_is_given_up_leaves_no_trace() {
    let cluster = Cluster::three().await;
    let (one, two) = (cluster.node(1).group.clone(), cluster.node(2).group.clone());
    let holder = one.transaction_id();
    one.lock(locks(holder, &["a"])).await.unwrap();
    let gone = two.transaction_id();
    let waited = tokio::time::timeout(Duration::from_millis(300), two.lock(locks(gone, &["a"]))).await;
    assert!(waited.is_err());
    assert!(two.inner.open.is_empty());
    one.release(holder);
    let next = two.transaction_id();
    let granted = tokio::time::timeout(Duration::from_secs(2), two.lock(locks(next, &["a"]))).await;
    granted.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over() {
    let cluster = Cluster::three().await;
    cluster.node(2).group.transfer_leader(3).await.unwrap();
    cluster.until("node 3 leads", |c| c.node(3).group.is_leader()).await;
    let one = cluster.node(1).group.clone();
    one.commit(put(&one, "a", Timestamp::ZERO, "1")).await.unwrap();
    cluster.node(3).group.shutdown().await;
    cluster.until("another leads", |c| c.node(1).group.is_leader() || c.node(2).group.is_leader()).await;
    assert_eq!(cluster.node(2).read("a").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_moved_refuses_commits_planned_before() {
    let cluster = Cluster::one().await;
    let group = &cluster.node(1).group;
    let mut descriptor = TableId::CATALOG.0.to_be_bytes().to_vec();
    descriptor.extend_from_slice(b"\0\0\0\0table");
    let changed = |version| CommitRequest {
        expected: vec![Expected { key: descriptor.clone(), version, mode: LockMode::Exclusive }],
        writes: vec![Write { key: descriptor.clone(), value: Some(b"columns".to_vec()) }],
        ..commit(group)
    };
    let catalog = group.catalog_version();
    let old = group.commit(changed(Timestamp::ZERO)).await.unwrap();
    assert_eq!(*catalog.borrow(), old);
    let planned = |version| CommitRequest {
        tables: vec![TableVersion { table: TableId(20_000), key: descriptor.clone(), version }],
        ..put(group, "a", Timestamp::ZERO, "1")
    };
    let new = group.commit(changed(old)).await.unwrap();
    let error = group.commit(planned(old)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::CatalogMoved);
    group.commit(planned(new)).await.unwrap();
}

/// What became of one transfer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Committed,
    NotCommitted,
    Unknown,
}

const ACCOUNTS: usize = 6;

async fn balance(node_store: &amphora_storage::Store, at: Timestamp, account: usize) -> i64 {
    let row = node_store.get(key(&format!("account {account}")), at).unwrap();
    row.map_or(100, |v| String::from_utf8(v.value).unwrap().parse().unwrap())
}

/// Moves 1 from an account to another, with locks, and leaves a mark under the transfer's own name.
async fn transfer(group: &Group, store: &amphora_storage::Store, from: usize, to: usize, mark: &str) -> Fate {
    let mut request = commit(group);
    let names = [format!("account {from}"), format!("account {to}")];
    let wanted = locks(request.id, &[&names[0], &names[1]]);
    let locked = async {
        group.lock(wanted).await?;
        group.read_timestamp().await
    };
    let at = match locked.await {
        Ok(at) => at,
        Err(_) => {
            group.release(request.id);
            return Fate::NotCommitted;
        }
    };
    let (a, b) = (balance(store, at, from).await, balance(store, at, to).await);
    let write = |name: &str, value: String| Write { key: key(name), value: Some(value.into_bytes()) };
    request.locked = true;
    request.writes = vec![
        write(&names[0], (a - 1).to_string()),
        write(&names[1], (b + 1).to_string()),
        write(mark, "done".to_owned()),
    ];
    match group.commit(request).await {
        Ok(_) => Fate::Committed,
        Err(e) if e.kind == ErrorKind::Unknown => Fate::Unknown,
        Err(_) => Fate::NotCommitted,
    }
}

/// Leaders are cut off, again and again, while everyone moves money: the total never changes, what was
/// acknowledged is there, and what was said not to have happened has not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_is_neither_made_nor_lost_while_leaders_are_cut_off() {
    let cluster = Cluster::three().await;
    let until = Instant::now() + Duration::from_secs(12);
    let mut workers = Vec::new();
    for w in 0..6usize {
        let (group, store) = (cluster.nodes[w % 3].group.clone(), cluster.nodes[w % 3].store.clone());
        workers.push(tokio::spawn(async move {
            let mut fates = Vec::new();
            let mut n = 0;
            while Instant::now() < until {
                let (from, to) = ((w + n) % ACCOUNTS, (w + 3 * n + 1) % ACCOUNTS);
                n += 1;
                if from == to {
                    continue;
                }
                let mark = format!("mark {w} {n}");
                let fate = transfer(&group, &store, from, to, &mark).await;
                fates.push((mark, fate));
            }
            fates
        }));
    }
    let mut checks = Vec::new();
    for node in &cluster.nodes {
        let (group, store) = (node.group.clone(), node.store.clone());
        checks.push(tokio::spawn(async move {
            let mut checked = 0;
            while Instant::now() < until {
                if let Ok(at) = group.read_timestamp().await {
                    let mut total = 0;
                    for account in 0..ACCOUNTS {
                        total += balance(&store, at, account).await;
                    }
                    assert_eq!(total, 100 * ACCOUNTS as i64);
                    checked += 1;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            checked
        }));
    }
    let mut cuts = 0;
    while Instant::now() + Duration::from_secs(3) < until {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let Some(leader) = cluster.nodes.iter().find(|n| n.group.is_leader()).map(|n| n.id) else { continue };
        cluster.wire.lose_commit_replies_of(leader);
        tokio::time::sleep(Duration::from_millis(200)).await;
        for other in cluster.nodes.iter().filter(|n| n.id != leader) {
            cluster.wire.cut(leader, other.id);
        }
        cuts += 1;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        cluster.wire.heal();
    }
    let mut fates = Vec::new();
    for worker in workers {
        fates.extend(worker.await.unwrap());
    }
    for check in checks {
        assert!(check.await.unwrap() > 0);
    }
    cluster.until("all follow one leader", |c| c.nodes.iter().all(|n| n.group.is_ready())).await;
    let count = |fate| fates.iter().filter(|(_, f)| *f == fate).count();
    println!(
        "{cuts} cuts; {} committed, {} not, {} unknown",
        count(Fate::Committed),
        count(Fate::NotCommitted),
        count(Fate::Unknown)
    );
    assert!(cuts >= 2 && count(Fate::Committed) > 20);
    for node in &cluster.nodes {
        let at = node.group.read_timestamp().await.unwrap();
        for (mark, fate) in &fates {
            let there = node.store.get(key(mark), at).unwrap().is_some();
            match fate {
                Fate::Committed => assert!(there, "{mark} was acknowledged and is lost"),
                Fate::NotCommitted => assert!(!there, "{mark} was refused and is there"),
                Fate::Unknown => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn measure() {
    {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(dir.path());
        let started = Instant::now();
        for n in 0..200 {
            let (done, flushed) = tokio::sync::oneshot::channel();
            log.append([(n, vec![0; 200])], Box::new(move |r| drop(done.send(r)))).unwrap();
            flushed.await.unwrap().unwrap();
        }
        println!("commit of a log alone: {:?}", started.elapsed() / 200);
        let one = Cluster::one().await;
        let group = one.node(1).group.clone();
        let started = Instant::now();
        for n in 0..200 {
            group.commit(put(&group, &format!("{n}"), Timestamp::ZERO, "x")).await.unwrap();
        }
        println!("commit of one node: {:?}", started.elapsed() / 200);
    }
    let cluster = Cluster::three().await;
    let cpu = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let ticks: Vec<u64> = stat.split(' ').skip(13).take(2).map(|t| t.parse().unwrap()).collect();
        (ticks[0] + ticks[1]) as f64 / 100.0
    };
    let before = cpu();
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!("three idle nodes: {:.1} % of a core, messages not counted", (cpu() - before) * 10.0);
    for at in [1, 2] {
        let group = cluster.node(at).group.clone();
        let started = Instant::now();
        for n in 0..200 {
            group.commit(put(&group, &format!("{at}.{n}"), Timestamp::ZERO, "x")).await.unwrap();
        }
        println!("commit at {at}: {:?}", started.elapsed() / 200);
        let started = Instant::now();
        for _ in 0..200 {
            group.read_timestamp().await.unwrap();
        }
        println!("read timestamp at {at}: {:?}", started.elapsed() / 200);
        let started = Instant::now();
        for n in 0..100 {
            group.commit(put(&group, &format!("r{at}.{n}"), Timestamp::ZERO, "x")).await.unwrap();
            group.read_timestamp().await.unwrap();
        }
        println!("commit and read at {at}: {:?}", started.elapsed() / 100);
        for clients in [8u64, 64] {
            let started = Instant::now();
            let mut workers = Vec::new();
            for c in 0..clients {
                let group = group.clone();
                workers.push(tokio::spawn(async move {
                    for n in 0..50 {
                        let name = format!("{at}.{clients}.{c}.{n}");
                        group.commit(put(&group, &name, Timestamp::ZERO, "x")).await.unwrap();
                    }
                }));
            }
            for worker in workers {
                worker.await.unwrap();
            }
            println!(
                "{clients} clients at {at}: {:.0} commits/s",
                clients as f64 * 50.0 / started.elapsed().as_secs_f64()
            );
        }
    }
}

mod suite {
    use amphora_storage::Hlc;
    use openraft::StorageError;
    use openraft::testing::log::{StoreBuilder, Suite};
    use tempfile::TempDir;

    use super::super::log_store::LogStore;
    use super::super::replica::Replica;
    use super::super::state_machine::StateMachine;
    use super::*;

    struct Builder;

    impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
        async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
            let dir = tempfile::tempdir().unwrap();
            let log = LogStore::open(open_log(dir.path())).unwrap();
            let clock = Arc::new(Hlc::new(Hlc::DEFAULT_DRIFT));
            let snapshots = dir.path().join("snapshots");
            let replica = Replica::open(
                open_store(dir.path()),
                clock,
                snapshots,
                Arc::new(Note::default()),
                Arc::new(Note::default()),
            );
            Ok((dir, log, StateMachine::new(replica.unwrap())))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn openraft_suite() {
        Suite::test_all(Builder).await.unwrap();
    }
}

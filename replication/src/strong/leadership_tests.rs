//! Leadership moves, is lost and comes back, while others write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use amphora_storage::Timestamp;

use super::testing::*;
use crate::NodeId;

/// Cuts a node off from all others.
fn isolate(cluster: &Cluster, node: NodeId) {
    for other in (1..=3).filter(|other| *other != node) {
        cluster.wire.cut(node, other);
        cluster.wire.cut(other, node);
    }
}

/// Writers through every node, each with a key of its own, until told to stop. How often each was
/// acknowledged, and the longest time in which none was.
async fn write_everywhere(cluster: &Cluster, stop: Arc<AtomicBool>) -> (Vec<u64>, Duration) {
    let longest = Arc::new(parking_lot::Mutex::new((Instant::now(), Duration::ZERO)));
    let writers = (1..=3).map(|node| {
        let (group, stop, longest) = (cluster.node(node).group.clone(), stop.clone(), longest.clone());
        tokio::spawn(async move {
            let (key, mut version, mut count) = (format!("writer{node}"), Timestamp::ZERO, 0);
            while !stop.load(Ordering::Relaxed) {
                version = group.commit(put(&group, &key, version, "x")).await.unwrap();
                count += 1;
                let mut longest = longest.lock();
                let gap = longest.0.elapsed();
                *longest = (Instant::now(), longest.1.max(gap));
            }
            count
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut counts = Vec::new();
    for writer in writers {
        counts.push(writer.await.unwrap());
    }
    let gap = longest.lock().1;
    (counts, gap)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_under_load_and_no_commit_fails_or_is_doubtful() {
    let cluster = Cluster::three().await;
    let stop = Arc::new(AtomicBool::new(false));
    let moves = async {
        for to in [2, 3, 1, 3, 2, 1] {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cluster.node(1).group.transfer_leader(to).await.unwrap();
            assert_eq!(cluster.node(1).group.leader(), Some(to));
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (((counts, gap), ()), terms) =
        (tokio::join!(write_everywhere(&cluster, stop.clone()), moves), cluster.node(1).group.status().term);
    println!("{counts:?} commits, longest gap {gap:?}, term {terms}");
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
    assert!(gap < Duration::from_millis(500), "{gap:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_dies_when_it_is_told_leaves_nobody_waiting() {
    let cluster = Cluster::three().await;
    let (one, three) = (cluster.node(1).group.clone(), cluster.node(3).group.clone());
    one.transfer_leader(1).await.unwrap();
    let mut version = one.commit(put(&one, "a", Timestamp::ZERO, "1")).await.unwrap();
    cluster.wire.loses_successors.store(true, Ordering::Relaxed);
    let refused = one.transfer_leader(2).await.unwrap_err();
    println!("{refused}");
    cluster.until("the third leads", |c| c.node(1).group.leader() == Some(3)).await;
    version = one.commit(put(&one, "a", version, "2")).await.unwrap();
    version = three.commit(put(&three, "a", version, "3")).await.unwrap();
    cluster.wire.loses_successors.store(false, Ordering::Relaxed);
    cluster.wire.heal();
    cluster.until("the second is back", |c| c.node(2).group.leader() == Some(3)).await;
    for to in [2, 1] {
        cluster.until("it can lead", |c| c.node(3).group.silence() < Duration::from_millis(300)).await;
        let until = Instant::now() + Duration::from_secs(10);
        while let Err(e) = one.transfer_leader(to).await {
            assert!(Instant::now() < until, "{e}");
        }
        version = one.commit(put(&one, "a", version, "4")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_voters_go_on_when_the_one_that_died_of_a_handover_is_back() {
    let mut cluster = Cluster::one().await;
    cluster.join().await;
    cluster.until("both vote", |c| c.node(2).group.voters().len() == 2).await;
    let one = cluster.node(1).group.clone();
    let version = one.commit(put(&one, "a", Timestamp::ZERO, "1")).await.unwrap();
    cluster.wire.loses_successors.store(true, Ordering::Relaxed);
    assert!(one.transfer_leader(2).await.is_err());
    cluster.wire.loses_successors.store(false, Ordering::Relaxed);
    cluster.wire.heal();
    cluster
        .until("one of them leads", |c| c.nodes.iter().any(|n| n.group.is_leader() && n.group.is_ready()))
        .await;
    one.commit(put(&one, "a", version, "2")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asked_for_a_transfer_may_go_away_half_way() {
    let cluster = Cluster::three().await;
    let one = cluster.node(1).group.clone();
    let mut version = one.commit(put(&one, "a", Timestamp::ZERO, "1")).await.unwrap();
    for patience in 0..25 {
        let from = one.leader().unwrap_or(1);
        let to = from % 3 + 1;
        let asked = cluster.node(from).group.clone();
        let _ = tokio::time::timeout(Duration::from_millis(patience * 2), asked.transfer_leader(to)).await;
        version = one.commit(put(&one, "a", version, "2")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_nobody_answers_steps_aside_and_one_that_was_cut_off_disturbs_nobody() {
    let cluster = Cluster::three().await;
    cluster.node(1).group.transfer_leader(1).await.unwrap();
    let (one, three) = (cluster.node(1).group.clone(), cluster.node(3).group.clone());
    one.commit(put(&one, "a", Timestamp::ZERO, "1")).await.unwrap();
    // A follower that hears nobody asks for votes for as long as it likes, and comes back.
    let term = one.status().term;
    isolate(&cluster, 3);
    cluster.until("node 3 hears nobody", |c| c.node(3).group.silence() > Duration::from_secs(2)).await;
    cluster.wire.heal();
    cluster
        .until("node 3 hears the leader", |c| c.node(3).group.silence() < Duration::from_millis(300))
        .await;
    assert_eq!((one.leader(), one.status().term, three.status().term), (Some(1), term, term));
    // A leader that is alone says so.
    isolate(&cluster, 1);
    cluster.until("it steps aside", |c| c.node(1).group.leader().is_none()).await;
    assert!(!one.is_ready());
    cluster.until("another leads", |c| c.node(2).group.leader().is_some_and(|leader| leader != 1)).await;
    cluster.wire.heal();
    cluster.until("it follows", |c| c.node(1).group.leader().is_some_and(|leader| leader != 1)).await;
}

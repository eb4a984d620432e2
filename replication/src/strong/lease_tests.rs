//! Followers that read without asking the leader: what anyone has seen, they see.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use amphora_storage::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Group;
use super::leases::{QUIET, Standing};
use super::testing::*;
use crate::ErrorKind;

fn holds(group: &Group) -> bool {
    group.inner.lease.standing() != Standing::None
}

/// Reads until a lease has come with an answer.
async fn obtain(group: &Group) {
    let began = Instant::now();
    while !holds(group) {
        assert!(began.elapsed() < Duration::from_secs(10), "no lease is granted");
        group.read_timestamp().await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_waits_for_leases_and_is_then_seen() {
    let cluster = Cluster::three().await;
    let (leader, follower) = (&cluster.node(1).group, &cluster.node(2).group);
    let mut version = Timestamp::ZERO;
    for n in 0..5 {
        tokio::time::sleep(QUIET).await;
        obtain(follower).await;
        version = leader.commit(put(leader, "n", version, &n.to_string())).await.unwrap();
        assert!(!holds(follower), "it was recalled before the commit");
        assert_eq!(cluster.node(2).read("n").await, Some(n.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_cannot_be_reached_delays_one_commit_by_no_more_than_its_lease() {
    let cluster = Cluster::three().await;
    let (leader, follower) = (&cluster.node(1).group, &cluster.node(2).group);
    tokio::time::sleep(QUIET).await;
    obtain(follower).await;
    cluster.wire.cut(1, 2);
    assert!(follower.read_timestamp().await.is_ok(), "no one is asked");
    let version = leader.commit(put(leader, "n", Timestamp::ZERO, "1")).await.unwrap();
    assert!(!holds(follower), "a commit was acknowledged while a lease held");
    let began = Instant::now();
    leader.commit(put(leader, "n", version, "2")).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "the next does not wait again");
    // It answers late or not at all, but not with what it had.
    match follower.read_timestamp().await {
        Ok(at) => assert!(at > version),
        Err(e) => assert_eq!(e.kind, ErrorKind::Unavailable),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_after_leases_have_run_out() {
    let cluster = Cluster::three().await;
    tokio::time::sleep(QUIET).await;
    let (leader, holder) = (&cluster.node(1).group, &cluster.node(3).group);
    obtain(holder).await;
    leader.transfer_leader(2).await.unwrap();
    assert!(!holds(holder), "another leads, and a lease of the last one holds");
    let next = &cluster.node(2).group;
    let version = next.commit(put(next, "n", Timestamp::ZERO, "1")).await.unwrap();
    assert!(holder.read_timestamp().await.unwrap() >= version);
}

/// A counter grows, after pauses in which leases are granted, under leaders that come and go; readers on all
/// nodes never see less than what any of them has seen before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_anyone_has_seen_a_holder_sees() {
    let seed = std::env::var("AMPHORA_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("AMPHORA_SEED={seed}");
    let cluster = Cluster::three().await;
    let until = Instant::now() + Duration::from_secs(8);
    let seen = Arc::new(AtomicU64::new(0));
    let mut readers = Vec::new();
    for reader in 0..6usize {
        let node = &cluster.nodes[reader % 3];
        let (group, store, seen) = (node.group.clone(), node.store.clone(), seen.clone());
        readers.push(tokio::spawn(async move {
            let (mut reads, mut without_asking) = (0u64, 0u64);
            while Instant::now() < until {
                let before = seen.load(Ordering::SeqCst);
                let held = holds(&group);
                if let Ok(at) = group.read_timestamp().await {
                    let row = store.get(key("n"), at).unwrap();
                    let value =
                        row.map_or(0, |row| String::from_utf8(row.value).unwrap().parse::<u64>().unwrap());
                    assert!(value >= before, "{value} was read where {before} had been seen");
                    seen.fetch_max(value, Ordering::SeqCst);
                    reads += 1;
                    without_asking += u64::from(held);
                }
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
            (reads, without_asking)
        }));
    }
    let mut random = SmallRng::seed_from_u64(seed);
    let mut version = Timestamp::ZERO;
    let mut n = 0;
    while Instant::now() + Duration::from_millis(500) < until {
        let pause = if random.random_bool(0.3) { 0 } else { random.random_range(0..250) };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let gateway = &cluster.nodes[random.random_range(0..3)].group;
        if n % 10 == 9 {
            let to = random.random_range(1..=3);
            let _ = gateway.transfer_leader(to).await;
        }
        match gateway.commit(put(gateway, "n", version, &(n + 1).to_string())).await {
            Ok(at) => {
                n += 1;
                version = at;
                seen.fetch_max(n, Ordering::SeqCst);
            }
            // Not committed, but perhaps it was by an earlier try of the same: look.
            Err(_) => {
                let Ok(at) = gateway.read_timestamp().await else { continue };
                let node = cluster.nodes.iter().find(|node| node.group.node_id() == gateway.node_id());
                if let Some(row) = node.unwrap().store.get(key("n"), at).unwrap() {
                    version = row.ts;
                    n = String::from_utf8(row.value).unwrap().parse().unwrap();
                }
            }
        }
    }
    let mut total = (0, 0);
    for reader in readers {
        let (reads, without_asking) = reader.await.unwrap();
        total = (total.0 + reads, total.1 + without_asking);
    }
    println!("{n} writes, {} reads, {} of them under a lease", total.0, total.1);
    assert!(n > 15 && total.1 > 100, "{n} writes, {total:?} reads");
}

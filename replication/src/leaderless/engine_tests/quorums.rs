//! Write and read quorums.

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn one(quorum: Quorum) -> BTreeSet<Quorum> {
    BTreeSet::from([quorum])
}

fn nodes(n: u32) -> BTreeSet<Quorum> {
    one(Quorum::Nodes(n))
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quorums_are_reached_or_said_to_be_missed() {
    let cluster = Cluster::new(3, 0);
    let done = add(&cluster.node(1), "k", 1).await;
    cluster.node(1).wait_quorums(done.seq, &nodes(3), PATIENCE).await.unwrap();
    cluster.node(2).ask_quorums(&nodes(3), PATIENCE).await.unwrap();
    cluster.net.cut_both(1, 2);
    cluster.net.cut_both(1, 3);
    let done = add(&cluster.node(1), "k", 1).await;
    let missed = cluster.node(1).wait_quorums(done.seq, &nodes(2), ms(50)).await.unwrap_err();
    assert_eq!(missed.sqlstate, "58000");
    assert_eq!(missed.message, "write quorum of 2 nodes was not reached in time");
    assert_eq!(
        missed.detail.as_deref().unwrap(),
        "1 of 3 nodes (1) acknowledged the write. It stands, and it will spread to the others."
    );
    assert!(cluster.node(1).waiting.is_empty(), "who has given up waits no more");
    let missed = cluster.node(1).ask_quorums(&one(Quorum::Majority), ms(50)).await.unwrap_err();
    assert_eq!(missed.message, "read quorum \"quorum\" was not reached in time");
    assert_eq!(missed.detail.as_deref().unwrap(), "1 of 3 nodes (1) answered.");
    cluster.node(2).ask_quorums(&nodes(2), PATIENCE).await.unwrap();
    cluster.net.heal();
    cluster.node(3).ask_quorums(&nodes(3), PATIENCE).await.unwrap();
    assert_eq!(counter(&cluster.node(3), "k"), 2, "a read quorum sees what a peer had");
    let impossible = cluster.node(1).check_quorum("write", Quorum::Nodes(4)).unwrap_err();
    assert_eq!(
        (impossible.sqlstate, impossible.detail.as_deref()),
        ("55000", Some("The cluster has 3 nodes."))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_with_r_plus_w_beyond_n_sees_what_was_acknowledged() {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = Cluster::new(3, seed);
    cluster.net.lossy.store(true, Ordering::Relaxed);
    let (mut acknowledged, mut sum, mut seen) = (0, 0, 0);
    for round in 0..60 {
        if round % 20 == 5 {
            cluster.net.cut_both(random.random_range(1..4), random.random_range(1..4));
        }
        if round % 20 == 15 {
            cluster.net.cut.lock().clear();
        }
        let w = random.random_range(1..4);
        let (writer, reader) =
            (cluster.node(random.random_range(1..4)), cluster.node(random.random_range(1..4)));
        let done = add(&writer, "k", 1).await;
        sum += 1;
        if writer.wait_quorums(done.seq, &nodes(w), ms(150)).await.is_err() {
            continue;
        }
        acknowledged += 1;
        if reader.ask_quorums(&nodes(4 - w), ms(300)).await.is_ok() {
            assert!(reader.applied().get(writer.id) >= done.seq, "round {round}: W = {w}");
            seen += 1;
        }
    }
    assert!(acknowledged > 15 && seen > 10, "{acknowledged} acknowledged, {seen} read");
    cluster.net.heal();
    cluster.converge().await;
    assert_eq!(counter(&cluster.node(2), "k"), sum, "what missed its quorum stands");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_share_the_answers() {
    let cluster = Cluster::new(3, 0);
    add(&cluster.node(1), "k", 1).await;
    cluster.converge().await;
    cluster.net.latency.store(20, Ordering::Relaxed);
    let before = cluster.net.calls.load(Ordering::Relaxed);
    let sessions: Vec<_> = (0..64)
        .map(|session| {
            let node = cluster.node(1);
            tokio::spawn(async move {
                for round in 0..4 {
                    let done = add(&node, &format!("{session}/{round}"), 1).await;
                    node.wait_quorums(done.seq, &nodes(2), PATIENCE).await.unwrap();
                    node.ask_quorums(&nodes(2), PATIENCE).await.unwrap();
                }
            })
        })
        .collect();
    for session in sessions {
        session.await.unwrap();
    }
    let calls = cluster.net.calls.load(Ordering::Relaxed) - before;
    assert!(calls < 256, "{calls} messages for 256 commits and 256 reads");
    assert!(cluster.node(1).waiting.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regions_count_and_unknown_members_do_not() {
    let mut cluster = Cluster::new(5, 0);
    let regions: BTreeMap<NodeId, String> =
        (1..=5).map(|id| (id, if id <= 3 { "eu" } else { "us" }.to_owned())).collect();
    for id in 1..=5 {
        cluster.node(id).set_regions(regions.clone());
    }
    // Europe alone.
    for (a, b) in (1..=3).flat_map(|a| [(a, 4), (a, 5)]) {
        cluster.net.cut_both(a, b);
    }
    let node = cluster.node(1);
    let seq = add(&node, "k", 1).await.seq;
    for quorum in [Quorum::Local, Quorum::Majority, Quorum::Nodes(3)] {
        node.wait_quorums(seq, &one(quorum), PATIENCE).await.unwrap();
        node.ask_quorums(&one(quorum), PATIENCE).await.unwrap();
    }
    for quorum in [Quorum::Each, Quorum::All, Quorum::Nodes(4)] {
        assert!(node.wait_quorums(seq, &one(quorum), ms(30)).await.is_err(), "{quorum}");
        assert!(node.ask_quorums(&one(quorum), ms(30)).await.is_err(), "{quorum}");
    }
    let both = BTreeSet::from([Quorum::Local, Quorum::Each]);
    let missed = node.wait_quorums(seq, &both, ms(30)).await.unwrap_err();
    assert!(missed.message.contains("each_quorum"), "{missed:?}");
    cluster.net.heal();
    for quorum in [Quorum::Each, Quorum::All] {
        node.wait_quorums(seq, &one(quorum), PATIENCE).await.unwrap();
        node.ask_quorums(&one(quorum), PATIENCE).await.unwrap();
    }
    drop(node);
    // A node that has just started, and does not know yet who else there is, is no majority.
    cluster.stop(2).await;
    let store = cluster.disks[&2].open();
    let alone = Engine::open(store, 2, Arc::new(Hlc::new(Hlc::DEFAULT_DRIFT))).unwrap();
    let seq = add(&alone, "k", 1).await.seq;
    assert!(alone.wait_quorums(seq, &one(Quorum::Majority), ms(30)).await.is_err());
    assert!(alone.ask_quorums(&one(Quorum::All), ms(30)).await.is_err());
    alone.wait_quorums(seq, &nodes(1), ms(30)).await.unwrap();
}

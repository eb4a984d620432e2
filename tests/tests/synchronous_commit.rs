//! `synchronous_commit`: what each word promises, while nodes are killed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amphora_tests::load::{Roaming, Stop};
use amphora_tests::{Cluster, eventually};

const TABLE: &str = "CREATE TABLE ledger (session bigint, n bigint, PRIMARY KEY (session, n))";

/// How many commits of each session were acknowledged.
type Acknowledged = Arc<Mutex<BTreeMap<i64, i64>>>;

/// Commits 1, 2, 3 … of one session until it breaks or is told of a loss; then of the next session.
async fn commit(addresses: Vec<String>, writer: i64, when: &str, stop: Stop, acknowledged: Acknowledged) {
    let mut connection = Roaming::new(addresses, writer as usize);
    for session in writer * 10_000.. {
        let client = connection.client().await;
        if client.batch_execute(&format!("SET synchronous_commit = {when}")).await.is_err() {
            connection.move_on();
            continue;
        }
        for n in 1.. {
            if stop.is_stopped() {
                return;
            }
            let insert = format!("INSERT INTO ledger VALUES ({session}, {n})");
            match tokio::time::timeout(Duration::from_secs(10), client.batch_execute(&insert)).await {
                Ok(Ok(())) => acknowledged.lock().unwrap().insert(session, n),
                _ => break,
            };
        }
        connection.move_on();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_survives_of_a_session_is_a_prefix_and_all_of_it_where_that_was_promised() {
    let mut cluster = Cluster::start(3).await;
    cluster.client(0).await.batch_execute(TABLE).await.unwrap();
    let addresses: Vec<String> = cluster.nodes().iter().map(|n| n.pg.clone()).collect();
    let stop = Stop::default();
    let words = ["on", "remote_apply", "local", "off"];
    let acknowledged: Vec<Acknowledged> = words.iter().map(|_| Acknowledged::default()).collect();
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let (word, acknowledged) = (words[w % 4], acknowledged[w % 4].clone());
            tokio::spawn(commit(addresses.clone(), w as i64 + 1, word, stop.clone(), acknowledged))
        })
        .collect();
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let leader = cluster.leader().await;
        if round % 2 == 0 {
            // What the followers do not have by now dies with it.
            for follower in (0..3).filter(|&i| i != leader) {
                cluster.nodes()[follower].pause();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            cluster.node(leader).kill();
            for follower in (0..3).filter(|&i| i != leader) {
                cluster.nodes()[follower].resume();
            }
        } else {
            cluster.node(leader).kill();
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.node(leader).restart();
        cluster.wait_ready(leader).await;
    }
    stop.stop();
    for writer in writers {
        writer.await.unwrap();
    }
    let client = cluster.client(0).await;
    let mut found: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    for row in client.query("SELECT session, n FROM ledger", &[]).await.unwrap() {
        found.entry(row.get(0)).or_default().insert(row.get(1));
    }
    for (session, numbers) in &found {
        let prefix: BTreeSet<i64> = (1..=numbers.len() as i64).collect();
        assert_eq!(*numbers, prefix, "session {session} has a hole");
    }
    for (word, acknowledged) in words.iter().zip(&acknowledged) {
        let (mut lost, mut all) = (0, 0);
        for (session, acknowledged) in acknowledged.lock().unwrap().iter() {
            let survived = found.get(session).map_or(0, |numbers| numbers.len() as i64);
            all += acknowledged;
            lost += (acknowledged - survived).max(0);
            let most = if matches!(*word, "on" | "remote_apply") { 0 } else { 1 };
            assert!(
                acknowledged - survived <= most,
                "{word}: session {session} was told of {acknowledged} commits, and {survived} are there"
            );
        }
        println!("{word}: {lost} of {all} acknowledged commits were lost");
        assert!(all > 50, "{word}: {all} commits");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_commit_is_lost_is_told_so_once() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let client = cluster.client(leader).await;
    client.batch_execute(TABLE).await.unwrap();
    client.batch_execute("SET synchronous_commit = off").await.unwrap();
    client.batch_execute("INSERT INTO ledger VALUES (1, 1)").await.unwrap();
    assert_eq!(client.query("SELECT FROM ledger", &[]).await.unwrap().len(), 1, "it reads its own writes");
    // Only this node will have the next: cut off, it leads for some time yet.
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    let mut tries = 0;
    loop {
        cluster.partition(&[leader], &others).await;
        let start = Instant::now();
        let insert = client.batch_execute("INSERT INTO ledger VALUES (1, 2)");
        if let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(400), insert).await {
            println!("acknowledged without anyone else after {:?}", start.elapsed());
            break;
        }
        tries += 1;
        assert!(tries < 3, "a commit with synchronous_commit = off waits for a majority");
        cluster.heal().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        client.batch_execute("DELETE FROM ledger WHERE n = 2").await.unwrap();
    }
    let other = cluster.client(others[0]).await;
    let other = &other;
    eventually("another leader", Duration::from_secs(20), || async move {
        other.batch_execute("INSERT INTO ledger VALUES (2, 1) ON CONFLICT DO NOTHING").await.is_ok()
    })
    .await;
    cluster.heal().await;
    let told = async {
        loop {
            match client.query("SELECT FROM ledger", &[]).await {
                Ok(_) => panic!("nobody was told of the loss"),
                Err(e) if e.code().is_some_and(|c| c.code() == "57P02") => break,
                // It has not heard of the new leader yet.
                Err(e) => assert_eq!(e.code().unwrap().code(), "57P03", "{e:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told).await.expect("the session is told of its loss");
    let rows = client.query("SELECT session, n FROM ledger ORDER BY 1, 2", &[]).await.unwrap();
    let rows: Vec<(i64, i64)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    assert_eq!(rows, [(1, 1), (2, 1)]);
    client.batch_execute("INSERT INTO ledger VALUES (1, 2)").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_applied_everywhere_is_seen_by_stale_reads_and_who_is_down_is_not_waited_for() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    client.batch_execute(TABLE).await.unwrap();
    client.batch_execute("SET synchronous_commit = remote_apply").await.unwrap();
    let mut readers = Vec::new();
    for index in 0..3 {
        let reader = cluster.client(index).await;
        reader.batch_execute("SET amphora.max_staleness = 'any'").await.unwrap();
        eventually("the table is there", Duration::from_secs(5), || async {
            reader.query("SELECT FROM ledger", &[]).await.is_ok()
        })
        .await;
        readers.push(reader);
    }
    for n in 1..=100i64 {
        client.execute("INSERT INTO ledger VALUES (1, $1)", &[&n]).await.unwrap();
        for (index, reader) in readers.iter().enumerate() {
            let rows = reader.query("SELECT FROM ledger WHERE n = $1", &[&n]).await.unwrap();
            assert_eq!(rows.len(), 1, "commit {n} is not seen on node {}", index + 1);
        }
    }
    // A node that does not answer costs one commit some time, and the others none.
    let leader = cluster.leader().await;
    let victim = (0..3).find(|&i| i != leader && i != 0).unwrap();
    cluster.nodes()[victim].pause();
    let start = Instant::now();
    client.batch_execute("INSERT INTO ledger VALUES (2, 1)").await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let start = Instant::now();
    for n in 2..=20i64 {
        client.execute("INSERT INTO ledger VALUES (2, $1)", &[&n]).await.unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    cluster.nodes()[victim].resume();
    // Nor one that is down.
    tokio::time::sleep(Duration::from_secs(11)).await;
    cluster.node(victim).kill();
    let start = Instant::now();
    for n in 21..=40i64 {
        client.execute("INSERT INTO ledger VALUES (2, $1)", &[&n]).await.unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_commit_survives_the_end_of_the_only_node() {
    let mut cluster = Cluster::start(1).await;
    cluster.client(0).await.batch_execute(TABLE).await.unwrap();
    for session in 1..=5i64 {
        let client = cluster.client(0).await;
        client.batch_execute("SET synchronous_commit = local").await.unwrap();
        for n in 1..=20i64 {
            client.execute("INSERT INTO ledger VALUES ($1, $2)", &[&session, &n]).await.unwrap();
        }
        cluster.node(0).restart();
        cluster.wait_ready(0).await;
        let rows = cluster.client(0).await.query("SELECT FROM ledger", &[]).await.unwrap();
        assert_eq!(rows.len() as i64, session * 20);
    }
}

//! Advisory locks over three nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::{Duration, Instant};

use amphora_tests::{Cluster, eventually};
use tokio_postgres::Client;

async fn asks(client: &Client, sql: &str) -> bool {
    client.query_one(sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lock_excludes_on_every_node_until_it_is_given_back() {
    let cluster = Cluster::start(3).await;
    let (one, two, three) = (cluster.client(0).await, cluster.client(1).await, cluster.client(2).await);

    // One key and two keys are different locks; a session may lock again what it holds.
    one.batch_execute("SELECT pg_advisory_lock(7); SELECT pg_advisory_lock(7)").await.unwrap();
    assert!(!asks(&two, "SELECT pg_try_advisory_lock(7)").await);
    assert!(asks(&two, "SELECT pg_try_advisory_lock(0, 7)").await);
    assert!(asks(&one, "SELECT pg_advisory_unlock(7)").await);
    assert!(!asks(&three, "SELECT pg_try_advisory_lock(7)").await, "locked twice, given back once");
    let shown = "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND objsubid = 1
                 AND mode = 'ExclusiveLock' AND pid = pg_backend_pid()";
    assert!(asks(&one, shown).await);
    assert!(asks(&one, "SELECT pg_advisory_unlock(7)").await);
    assert!(!asks(&one, "SELECT pg_advisory_unlock(7)").await);
    eventually("it is free", Duration::from_secs(5), || async {
        asks(&three, "SELECT pg_try_advisory_lock(7)").await
    })
    .await;

    // A shared lock keeps out an exclusive one only.
    one.batch_execute("SELECT pg_advisory_lock_shared(8)").await.unwrap();
    assert!(asks(&two, "SELECT pg_try_advisory_lock_shared(8)").await);
    assert!(!asks(&three, "SELECT pg_try_advisory_lock(8)").await);

    // A transaction's lock ends with it, and who waits then goes on.
    one.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(9)").await.unwrap();
    let waiting = two.batch_execute("SELECT pg_advisory_lock(9)");
    let commit = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        one.batch_execute("COMMIT").await
    };
    let start = Instant::now();
    let (waited, committed) = tokio::join!(waiting, commit);
    waited.unwrap();
    committed.unwrap();
    assert!(start.elapsed() > Duration::from_millis(250), "{:?}", start.elapsed());

    // A session's locks end with it; lock_timeout and cancel end a wait.
    three.batch_execute("SET lock_timeout = '200ms'").await.unwrap();
    let error = three.batch_execute("SELECT pg_advisory_lock(9)").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55P03");
    drop(two);
    eventually("the session's locks are free", Duration::from_secs(5), || async {
        asks(&three, "SELECT pg_try_advisory_lock(9)").await
    })
    .await;
    three.batch_execute("SELECT pg_advisory_unlock_all()").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locks_outlive_their_leader_and_not_their_node() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (holder, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let (mine, theirs) = (cluster.client(holder).await, cluster.client(other).await);
    mine.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    cluster.node(leader).kill();
    // The holder asks the new leader again within a second; then it is as before.
    cluster.leader().await;
    eventually("locked at the new leader", Duration::from_secs(20), || async {
        theirs.query_one("SELECT pg_try_advisory_lock(2)", &[]).await.is_ok()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!asks(&theirs, "SELECT pg_try_advisory_lock(1)").await, "the new leader knows the lock");
    assert!(asks(&mine, "SELECT pg_advisory_unlock(1)").await);
    eventually("free", Duration::from_secs(5), || async {
        asks(&theirs, "SELECT pg_try_advisory_lock(1)").await
    })
    .await;
    theirs.batch_execute("SELECT pg_advisory_unlock_all()").await.unwrap();

    // What a node held that is gone is given back.
    cluster.node(leader).restart();
    cluster.wait_ready(leader).await;
    mine.batch_execute("SELECT pg_advisory_lock(3)").await.unwrap();
    cluster.node(holder).kill();
    eventually("the dead node's lock is free", Duration::from_secs(40), || async {
        matches!(theirs.query_one("SELECT pg_try_advisory_lock(3)", &[]).await, Ok(row) if row.get(0))
    })
    .await;
}

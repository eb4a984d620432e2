//! Reads of another age than linearizable ones: bounded staleness, causal tokens, and the past.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use amphora_tests::{Cluster, eventually};
use tokio_postgres::Client;

async fn text(client: &Client, sql: &str) -> Result<String, String> {
    let rows = client.simple_query(sql).await.map_err(|e| match e.as_db_error() {
        Some(error) => format!("{}: {}", error.code().code(), error.message()),
        None => e.to_string(),
    })?;
    let values = rows.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(values.collect::<Vec<_>>().join("\n"))
}

async fn stale(client: &Client, bound: &str) -> Result<String, String> {
    text(client, &format!("/*+ max_staleness('{bound}') */ SELECT v FROM t WHERE k = 1")).await
}

/// Three nodes with a row on all of them; the leader's index and two followers'.
async fn cluster() -> (Cluster, usize, usize, usize) {
    let cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    client
        .batch_execute("CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)")
        .await
        .unwrap();
    for index in 0..3 {
        // Linearizable, so that it is there.
        assert_eq!(text(&cluster.client(index).await, "SELECT v FROM t").await.unwrap(), "1");
    }
    let leader = cluster.leader().await;
    (cluster, leader, (leader + 1) % 3, (leader + 2) % 3)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_reads_go_on_without_a_gap_when_the_leader_and_the_quorum_are_gone() {
    let (mut cluster, leader, here, other) = cluster().await;
    let (any, bounded) = (cluster.client(here).await, cluster.client(here).await);
    any.batch_execute("SET amphora.max_staleness = 'any'").await.unwrap();
    bounded.batch_execute("SET amphora.max_staleness = '5s'").await.unwrap();
    let read = "SELECT v FROM t WHERE k = 1";
    for _ in 0..20 {
        assert_eq!(text(&bounded, read).await.unwrap(), "1");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut longest = Duration::ZERO;
    cluster.node(leader).kill();
    // A new leader is elected meanwhile; nobody who reads what is here notices.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        let start = Instant::now();
        assert_eq!(text(&any, read).await.unwrap(), "1");
        assert_eq!(text(&bounded, read).await.unwrap(), "1");
        longest = longest.max(start.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("read gap at the leader's death: {longest:?}");
    assert!(longest < Duration::from_millis(400), "two reads took {longest:?}");
    // No quorum at all.
    cluster.node(other).kill();
    let begin = Instant::now();
    let refused = loop {
        let start = Instant::now();
        assert_eq!(text(&any, read).await.unwrap(), "1");
        longest = longest.max(start.elapsed());
        match text(&bounded, read).await {
            Ok(v) => assert_eq!(v, "1"),
            Err(error) => break error,
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "a bound of 5 s was kept for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    println!("refused {:?} after the quorum was gone: {refused}", begin.elapsed());
    assert!(begin.elapsed() > Duration::from_millis(3500), "it was fresh for 5 s");
    assert!(refused.starts_with("57P03: no snapshot of strong tables is fresh enough"), "{refused}");
    assert!(longest < Duration::from_millis(400), "a read of what is here took {longest:?}");
    // A new connection, and names that are not there, wait for no leader either.
    let start = Instant::now();
    let fresh = cluster.client(here).await;
    assert_eq!(stale(&fresh, "any").await.unwrap(), "1");
    fresh.batch_execute("SET amphora.max_staleness = 'any'").await.unwrap();
    let missing = text(&fresh, "SELECT * FROM nowhere").await.unwrap_err();
    assert!(missing.starts_with("42P01"), "{missing}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // What writes does not read what is old.
    let write = text(&fresh, "UPDATE t SET v = 2").await.unwrap_err();
    assert!(write.starts_with("57P03"), "{write}");
    // And with a quorum again all is as before.
    cluster.node(other).restart();
    cluster.wait_ready(other).await;
    eventually("a bounded read is answered", Duration::from_secs(20), || async {
        text(&bounded, read).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_cut_off_answers_until_the_bound_and_no_longer() {
    let (cluster, leader, here, other) = cluster().await;
    let client = cluster.client(here).await;
    assert_eq!(stale(&client, "2s").await.unwrap(), "1");
    let cut = Instant::now();
    cluster.partition(&[here], &[leader, other]).await;
    let writer = cluster.client(leader).await;
    writer.batch_execute("UPDATE t SET v = 2").await.unwrap();
    let written = Instant::now();
    // It must not miss what was acknowledged longer than 2 s ago, by anyone's watch.
    let mut answers = 0;
    loop {
        let start = Instant::now();
        match stale(&client, "2s").await {
            Ok(v) => {
                assert_eq!(v, "1");
                let age = start.duration_since(written);
                assert!(age <= Duration::from_secs(2), "a read {age:?} after the write does not see it");
                answers += 1;
            }
            Err(error) => {
                assert!(error.starts_with("57P03"), "{error}");
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{answers} answers, the last refused {:?} after the cut", cut.elapsed());
    assert!(answers > 10, "{answers} answers");
    assert_eq!(stale(&client, "any").await.unwrap(), "1");
    cluster.heal().await;
    eventually("it catches up", Duration::from_secs(20), || async {
        stale(&client, "2s").await.is_ok_and(|v| v == "2")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_read_something_old_writes_only_what_is_right() {
    let (cluster, leader, here, other) = cluster().await;
    let (client, writer) = (cluster.client(here).await, cluster.client(leader).await);
    client.batch_execute("SET amphora.max_staleness = 'any'").await.unwrap();
    // A snapshot from before a change, as it would be on a follower that lags.
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    assert_eq!(text(&client, "SELECT v FROM t").await.unwrap(), "1");
    writer.batch_execute("UPDATE t SET v = v + 1").await.unwrap();
    assert_eq!(text(&client, "SELECT v FROM t").await.unwrap(), "1");
    let refused = text(&client, "UPDATE t SET v = v + 10").await.unwrap_err();
    assert!(refused.starts_with("40001"), "{refused}");
    client.batch_execute("ROLLBACK").await.unwrap();
    // At READ COMMITTED the statement that writes takes a new snapshot, also on a node that lags.
    client.batch_execute("BEGIN").await.unwrap();
    text(&client, "SELECT v FROM t").await.unwrap();
    writer.batch_execute("UPDATE t SET v = v + 1").await.unwrap();
    client.batch_execute("UPDATE t SET v = v + 10").await.unwrap();
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(text(&writer, "SELECT v FROM t").await.unwrap(), "13");
    // SET LOCAL is the transaction's, the hint the statement's; EXPLAIN ANALYZE says what was read.
    client
        .batch_execute("RESET amphora.max_staleness; BEGIN; SET LOCAL amphora.max_staleness = '1min'")
        .await
        .unwrap();
    let plan = text(&client, "EXPLAIN (ANALYZE) SELECT * FROM t").await.unwrap();
    assert!(plan.contains("Read Mode: stale (at most 60s)"), "{plan}");
    client.batch_execute("COMMIT").await.unwrap();
    let plan = text(&client, "EXPLAIN (ANALYZE) SELECT * FROM t").await.unwrap();
    assert!(!plan.contains("Read Mode"), "{plan}");
    let plan = text(&client, "/*+ max_staleness(any) */ EXPLAIN (ANALYZE) SELECT * FROM t").await.unwrap();
    assert!(plan.contains("Read Mode: stale (any)"), "{plan}");
    let _ = other;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_carries_what_was_seen_to_another_node() {
    let (cluster, leader, here, _) = cluster().await;
    let (writer, reader) = (cluster.client(leader).await, cluster.client(here).await);
    writer
        .batch_execute("CREATE TABLE l (k int PRIMARY KEY, v int) WITH (replication = 'leaderless')")
        .await
        .unwrap();
    reader.batch_execute("SET amphora.max_staleness = 'any'").await.unwrap();
    writer.batch_execute("INSERT INTO l VALUES (1, 0)").await.unwrap();
    let mut behind = 0;
    for n in 2..=100 {
        writer.batch_execute(&format!("UPDATE t SET v = {n}; ")).await.unwrap();
        writer.batch_execute(&format!("UPDATE l SET v = {n}")).await.unwrap();
        if text(&reader, "SELECT v FROM t").await.unwrap() != n.to_string() {
            behind += 1;
        }
        let token = text(&writer, "SHOW amphora.token").await.unwrap();
        reader.batch_execute(&format!("SET amphora.token = '{token}'")).await.unwrap();
        assert_eq!(text(&reader, "SELECT v FROM t").await.unwrap(), n.to_string(), "strong");
        assert_eq!(text(&reader, "SELECT v FROM l").await.unwrap(), n.to_string(), "leaderless");
        let carried = text(&reader, "SHOW amphora.token").await.unwrap();
        assert!(!carried.is_empty());
        reader.batch_execute("RESET amphora.token").await.unwrap();
    }
    println!("a stale read without a token was behind {behind} times of 99");
    // A node that cannot have it says so, within the statement's own time too.
    cluster.partition(&[here], &[leader, (leader + 2) % 3]).await;
    writer.batch_execute("UPDATE t SET v = 1000; UPDATE l SET v = 1000").await.ok();
    writer.batch_execute("UPDATE l SET v = 1000").await.unwrap();
    let token = text(&writer, "SHOW amphora.token").await.unwrap();
    reader
        .batch_execute(&format!("SET amphora.token = '{token}'; SET statement_timeout = '300ms'"))
        .await
        .unwrap();
    for table in ["t", "l"] {
        let start = Instant::now();
        let late = text(&reader, &format!("SELECT v FROM {table}")).await.unwrap_err();
        assert!(late.starts_with("57014"), "{late}");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    reader.batch_execute("RESET statement_timeout").await.unwrap();
    let late = text(&reader, "SELECT v FROM t").await.unwrap_err();
    assert!(late.starts_with("57P03: this node does not have all that amphora.token stands for"), "{late}");
    let bad = text(&reader, "SET amphora.token = 'nonsense'").await.unwrap_err();
    assert!(bad.starts_with("22023"), "{bad}");
    cluster.heal().await;
    assert_eq!(text(&reader, "SELECT v FROM t").await.unwrap(), "1000");
    assert_eq!(text(&reader, "SELECT v FROM l").await.unwrap(), "1000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_is_the_same_on_every_node_and_needs_no_leader() {
    let (mut cluster, leader, here, other) = cluster().await;
    let writer = cluster.client(leader).await;
    let now = "SELECT clock_timestamp()";
    let mut times = Vec::new();
    for n in 2..=6 {
        times.push((text(&writer, now).await.unwrap(), n - 1));
        tokio::time::sleep(Duration::from_millis(30)).await;
        writer.batch_execute(&format!("UPDATE t SET v = {n}")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    times.push((text(&writer, now).await.unwrap(), 6));
    // The last is newer than every commit: it is settled on the first node that asks.
    for index in [here, leader, other] {
        let client = cluster.client(index).await;
        for (time, v) in &times {
            let sql = format!("SELECT v FROM t AS OF SYSTEM TIME '{time}' WHERE k = 1");
            assert_eq!(text(&client, &sql).await.unwrap(), v.to_string(), "node {index} at {time}");
        }
    }
    let client = cluster.client(here).await;
    // A transaction, with everything in it.
    let (time, v) = &times[1];
    client.batch_execute("BEGIN").await.unwrap();
    client.batch_execute(&format!("SET TRANSACTION AS OF SYSTEM TIME '{time}'")).await.unwrap();
    assert_eq!(text(&client, "SELECT v FROM t").await.unwrap(), v.to_string());
    assert_eq!(text(&client, "SELECT count(*) FROM t a JOIN t b USING (k)").await.unwrap(), "1");
    let write = text(&client, "UPDATE t SET v = 0").await.unwrap_err();
    assert!(write.starts_with("25006"), "{write}");
    client.batch_execute("ROLLBACK").await.unwrap();
    // Parameters and expressions.
    let rows = client
        .query("SELECT v FROM t AS OF SYSTEM TIME $1::text::timestamptz ORDER BY v", &[&times[2].0])
        .await
        .unwrap();
    assert_eq!(rows[0].get::<_, i32>(0), times[2].1);
    for (sql, expected) in [
        ("SELECT v FROM t AS OF SYSTEM TIME now() + interval '1 hour'", "22023"),
        ("SELECT v FROM t AS OF SYSTEM TIME '1 hour'", "22023"),
        ("SELECT v FROM t AS OF SYSTEM TIME '2001-01-01'", "0A000"),
        ("SELECT v FROM t AS OF SYSTEM TIME 'yesteryear'", "22007"),
        ("SELECT v FROM t AS OF SYSTEM TIME '-10s' FOR UPDATE", "0A000"),
        ("SELECT v FROM (SELECT * FROM t AS OF SYSTEM TIME '-10s') s", "42601"),
        ("SELECT v FROM t AS OF SYSTEM TIME", "42601"),
        ("SELECT v FROM t AS OF SYSTEM TIME WHERE k = 1", "42601"),
    ] {
        let error = text(&client, sql).await.unwrap_err();
        assert!(error.starts_with(expected), "{sql}: {error}");
    }
    client.batch_execute("CREATE TABLE l (k int) WITH (replication = 'leaderless')").await.unwrap();
    let error = text(&client, "SELECT * FROM l AS OF SYSTEM TIME '-1s'").await.unwrap_err();
    assert!(error.starts_with("0A000"), "{error}");
    // Without a quorum.
    cluster.node(leader).kill();
    cluster.node(other).kill();
    for (time, v) in &times {
        let sql = format!("SELECT v FROM t AS OF SYSTEM TIME '{time}' WHERE k = 1");
        assert_eq!(text(&client, &sql).await.unwrap(), v.to_string(), "alone, at {time}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_been_collected_is_refused_on_every_node() {
    // Three seconds of history; snapshots run for seven.
    let cluster = Cluster::start_with(3, &["--history", "0.05", "--longest-snapshot", "0.002"]).await;
    let writer = cluster.client(0).await;
    let start = Instant::now();
    writer
        .batch_execute("CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)")
        .await
        .unwrap();
    let then = text(&writer, "SELECT clock_timestamp()").await.unwrap();
    let past = format!("SELECT v FROM t AS OF SYSTEM TIME '{then}'");
    let mut v = 1;
    for index in 0..3 {
        let client = cluster.client(index).await;
        // Commits go on, and old versions go.
        let error = loop {
            v += 1;
            writer.batch_execute(&format!("UPDATE t SET v = {v}")).await.unwrap();
            match text(&client, &past).await {
                Ok(old) => assert_eq!(old, "1", "the past has changed"),
                Err(error) => break error,
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the past is kept for ever");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert!(start.elapsed() > Duration::from_secs(2), "refused after {:?}", start.elapsed());
        assert_eq!(error, "72000: snapshot too old: the rows as they were at that time have been collected");
        let detail = client.simple_query(&past).await.unwrap_err();
        let detail = detail.as_db_error().unwrap().detail().unwrap_or_default().to_owned();
        assert!(detail.starts_with("The oldest time that can be read is "), "{detail}");
        let recent = text(&client, "SELECT v FROM t AS OF SYSTEM TIME '-200ms'").await.unwrap();
        assert!(recent.parse::<i32>().unwrap() > 1);
    }
    // A snapshot that runs keeps what it sees, for as long as it may.
    let (start, seen) = (Instant::now(), (v + 1).to_string());
    v += 1;
    writer.batch_execute(&format!("UPDATE t SET v = {v}")).await.unwrap();
    let mut readers = Vec::new();
    for index in 0..3 {
        let reader = cluster.client(index).await;
        reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
        assert_eq!(text(&reader, "SELECT v FROM t").await.unwrap(), seen);
        readers.push(reader);
    }
    for reader in &readers {
        let error = loop {
            v += 1;
            writer.batch_execute(&format!("UPDATE t SET v = {v}")).await.unwrap();
            match text(reader, "SELECT v FROM t").await {
                Ok(old) => assert_eq!(old, seen, "the snapshot has changed"),
                Err(error) => break error,
            }
            assert!(start.elapsed() < Duration::from_secs(120), "a snapshot is kept for ever");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert!(start.elapsed() > Duration::from_secs(6), "refused after {:?}", start.elapsed());
        assert!(error.starts_with("72000"), "{error}");
        reader.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(text(reader, "SELECT v FROM t").await.unwrap(), v.to_string());
    }
}

//! Real partitions, by iptables between network namespaces: strong tables refuse in the minority,
//! leaderless tables go on everywhere, and after healing all nodes agree with nothing lost.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use amphora_tests::{Cluster, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

async fn value(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_of_a_partition_do_what_their_mode_promises() {
    let cluster = Cluster::start_in_namespaces(3).await;
    let first = cluster.client(0).await;
    first
        .batch_execute(
            "CREATE TABLE accounts (id int PRIMARY KEY, balance bigint);
             INSERT INTO accounts VALUES (1, 100);
             CREATE TABLE views (page text PRIMARY KEY, n crdt_counter) WITH (replication = 'leaderless');
             CREATE TABLE carts (id int PRIMARY KEY, items crdt_set(text)) WITH (replication = 'leaderless');
             CREATE TABLE profiles (id int PRIMARY KEY, name text, city text) WITH (replication = 'leaderless');
             INSERT INTO views VALUES ('home', 0);
             INSERT INTO carts VALUES (1, '{}');
             INSERT INTO profiles VALUES (1, 'Ada', 'London'), (9, 'Zoe', 'Bonn')",
        )
        .await
        .unwrap();
    // The leader itself ends up in the minority: the hard case.
    let minority = cluster.leader().await;
    let majority: Vec<usize> = (0..3).filter(|&i| i != minority).collect();
    let alone = cluster.client(minority).await;
    let many = cluster.client(majority[0]).await;
    let query = "SELECT count(*) FROM profiles";
    let (seen, others) = (&alone, &many);
    eventually("the rows are everywhere", Duration::from_secs(5), || async move {
        value(seen, query).await == 2 && value(others, query).await == 2
    })
    .await;

    cluster.partition(&[minority], &majority).await;

    let start = Instant::now();
    loop {
        match many.batch_execute("UPDATE accounts SET balance = balance - 10 WHERE id = 1").await {
            Ok(()) => break,
            Err(e) => {
                assert!(start.elapsed() < Duration::from_secs(20), "the majority does not serve: {e:?}")
            }
        }
    }
    let started = Instant::now();
    let refused = alone
        .batch_execute("UPDATE accounts SET balance = balance - 10 WHERE id = 1")
        .await
        .expect_err("a minority must not write");
    let refused = refused.as_db_error().expect("an error of the server's own").clone();
    assert_eq!(refused.code().code(), "57P03", "{refused:?}");
    assert!(refused.hint().is_some(), "a refusal tells what to do");
    assert!(started.elapsed() < Duration::from_secs(15), "refused after {:?}", started.elapsed());
    let stale = alone.query_one("SELECT balance FROM accounts WHERE id = 1", &[]).await;
    assert!(stale.is_err(), "a minority must not serve a linearizable read: {stale:?}");

    let began = Instant::now();
    let mistyped = alone.batch_execute("SELECT * FROM no_such_table").await.expect_err("it is not there");
    assert_eq!(mistyped.as_db_error().unwrap().code().code(), "42P01");
    assert!(began.elapsed() < Duration::from_secs(4), "not found after {:?}", began.elapsed());

    let began = Instant::now();
    for _ in 0..20 {
        alone.batch_execute("UPDATE views SET n = n + 1 WHERE page = 'home'").await.unwrap();
        many.batch_execute("UPDATE views SET n = n + 1 WHERE page = 'home'").await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(5), "leaderless writes waited: {:?}", began.elapsed());
    alone
        .batch_execute("UPDATE carts SET items = array_append(items, 'amphora') WHERE id = 1")
        .await
        .unwrap();
    many.batch_execute("UPDATE carts SET items = array_append(items, 'olives') WHERE id = 1").await.unwrap();
    alone.batch_execute("UPDATE profiles SET name = 'Ada L.' WHERE id = 1").await.unwrap();
    many.batch_execute("UPDATE profiles SET city = 'Paris' WHERE id = 1").await.unwrap();
    alone.batch_execute("INSERT INTO profiles VALUES (2, 'Bob', 'Rome')").await.unwrap();
    alone.batch_execute("UPDATE profiles SET city = 'Cologne' WHERE id = 9").await.unwrap();
    // Later by any clock of this machine.
    tokio::time::sleep(Duration::from_millis(20)).await;
    many.batch_execute("UPDATE profiles SET city = 'Dresden' WHERE id = 9").await.unwrap();
    assert_eq!(value(&alone, "SELECT n FROM views").await, 20, "each side sees its own");
    assert_eq!(value(&many, "SELECT n FROM views").await, 20);

    cluster.heal().await;

    for index in 0..3 {
        let client = cluster.client(index).await;
        let client = &client;
        eventually("all increments are everywhere", Duration::from_secs(15), || async move {
            value(client, "SELECT n FROM views").await == 40
        })
        .await;
        eventually("all rows are everywhere", Duration::from_secs(15), || async move {
            value(client, "SELECT count(*) FROM profiles").await == 3
        })
        .await;
        let items: Vec<String> =
            client.query_one("SELECT items FROM carts WHERE id = 1", &[]).await.unwrap().get(0);
        assert_eq!(items, ["amphora", "olives"]);
        let row = client.query_one("SELECT name, city FROM profiles WHERE id = 1", &[]).await.unwrap();
        assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("Ada L.", "Paris"));
        let start = Instant::now();
        loop {
            match client.query_one("SELECT balance FROM accounts WHERE id = 1", &[]).await {
                Ok(row) => {
                    assert_eq!(row.get::<_, i64>(0), 90, "node {}", index + 1);
                    break;
                }
                Err(e) => assert!(start.elapsed() < Duration::from_secs(15), "strong reads stay away: {e:?}"),
            }
        }
    }

    // What both sides wrote to one column is a conflict; what each wrote to its own is none.
    let mut ids = Vec::new();
    for index in 0..3 {
        let client = cluster.client(index).await;
        let query = "SELECT conflict_id, key::text, column_name::text, kind, loser::text, winner::text
                     FROM amphora.conflicts";
        let rows = client.query(query, &[]).await.unwrap();
        assert_eq!(rows.len(), 1, "node {}", index + 1);
        let texts: Vec<&str> = (1..6).map(|i| rows[0].get(i)).collect();
        assert_eq!(
            texts,
            [r#"{"id": 9}"#, "city", "update_origin_differs", r#""Cologne""#, r#""Dresden""#],
            "node {}",
            index + 1
        );
        ids.push(rows[0].get::<_, i64>(0));
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let restored: bool = many.query_one("SELECT amphora.restore($1)", &[&ids[0]]).await.unwrap().get(0);
    assert!(restored);
    for index in 0..3 {
        let client = cluster.client(index).await;
        let client = &client;
        eventually("the loser is back everywhere", Duration::from_secs(15), || async move {
            value(client, "SELECT count(*) FROM profiles WHERE city = 'Cologne'").await == 1
        })
        .await;
        assert_eq!(
            value(client, "SELECT count(*) FROM amphora.conflicts").await,
            1,
            "a new write is no conflict"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_lose_no_increment_under_changing_partitions() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let cluster = Cluster::start_in_namespaces(3).await;
    let first = cluster.client(0).await;
    first
        .batch_execute(
            "CREATE TABLE hits (k int PRIMARY KEY, n crdt_counter) WITH (replication = 'leaderless');
             INSERT INTO hits VALUES (1, 0)",
        )
        .await
        .unwrap();
    let mut clients = Vec::new();
    for index in 0..3 {
        clients.push(cluster.client(index).await);
        let client = &clients[index];
        eventually("the row is everywhere", Duration::from_secs(5), || async move {
            client.query_opt("SELECT n FROM hits WHERE k = 1", &[]).await.is_ok_and(|r| r.is_some())
        })
        .await;
    }
    let mut expected = 0i64;
    for _ in 0..6 {
        let alone = rng.random_range(0..3);
        let others: Vec<usize> = (0..3).filter(|&i| i != alone).collect();
        cluster.partition(&[alone], &others).await;
        for _ in 0..30 {
            let (at, by) = (rng.random_range(0..3), rng.random_range(-3..=9i64));
            clients[at]
                .batch_execute(&format!("UPDATE hits SET n = n + {by} WHERE k = 1"))
                .await
                .expect("a leaderless write never waits for anyone");
            expected += by;
        }
        if rng.random_bool(0.5) {
            cluster.heal().await;
        }
    }
    cluster.heal().await;
    for (index, client) in clients.iter().enumerate() {
        let what = format!("node {} counts {expected}", index + 1);
        eventually(&what, Duration::from_secs(20), || async move {
            value(client, "SELECT n FROM hits WHERE k = 1").await == expected
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_passes_on_what_a_dead_node_wrote() {
    let mut cluster = Cluster::start_in_namespaces(3).await;
    let first = cluster.client(0).await;
    first
        .batch_execute("CREATE TABLE notes (id int PRIMARY KEY, body text) WITH (replication = 'leaderless')")
        .await
        .unwrap();
    let late = cluster.client(2).await;
    let query = "SELECT count(*) FROM notes";
    let waiting = &late;
    eventually("the table is known", Duration::from_secs(5), || async move {
        waiting.query_one(query, &[]).await.is_ok()
    })
    .await;
    // Node 3 hears neither of the others; node 1 writes, node 2 hears it, node 1 dies for good.
    cluster.partition(&[2], &[0, 1]).await;
    first.batch_execute("INSERT INTO notes VALUES (1, 'from the dead')").await.unwrap();
    let second = cluster.client(1).await;
    let survivor = &second;
    eventually("node 2 has it", Duration::from_secs(5), || async move { value(survivor, query).await == 1 })
        .await;
    cluster.node(0).kill();
    cluster.heal().await;
    eventually("node 3 has it, from node 2", Duration::from_secs(15), || async move {
        value(waiting, query).await == 1
    })
    .await;
}

/// Inserts and increments on a node until it is told to stop; how many of each.
async fn write_on(client: &Client, stop: &AtomicBool, node: i32) -> i64 {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let statement =
            format!("INSERT INTO events (who) VALUES ({node}); UPDATE totals SET n = n + 1 WHERE id = 1");
        client.batch_execute(&statement).await.unwrap();
        written += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_schema_loses_no_write_and_stops_no_writer() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let alone = (leader + 1) % 3;
    let first = cluster.client(leader).await;
    first
        .batch_execute(
            "CREATE TABLE events (id bigserial PRIMARY KEY, who int, note text, old text)
                 WITH (replication = 'leaderless');
             CREATE TABLE totals (id int PRIMARY KEY, n crdt_counter) WITH (replication = 'leaderless');
             INSERT INTO events (id, note, old) VALUES (1, 'first', 'x');
             INSERT INTO totals VALUES (1, 0)",
        )
        .await
        .unwrap();
    let mut clients = Vec::new();
    for node in 0..3 {
        clients.push(cluster.client(node).await);
        let client = &clients[node];
        eventually("the rows are everywhere", Duration::from_secs(30), || async move {
            let both = "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM totals)";
            matches!(client.query_one(both, &[]).await, Ok(row) if row.get::<_, i64>(0) == 2)
        })
        .await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(node, client)| {
            let stop = stop.clone();
            tokio::spawn(async move { write_on(&client, &stop, node as i32).await })
        })
        .collect();
    first.batch_execute("ALTER TABLE events ADD COLUMN grade int NOT NULL DEFAULT 3").await.unwrap();
    let others: Vec<usize> = (0..3).filter(|&node| node != alone).collect();
    cluster.partition(&[alone], &others).await;
    for change in [
        "ALTER TABLE events RENAME COLUMN note TO remark",
        "ALTER TABLE events DROP COLUMN old",
        "ALTER TABLE events ADD COLUMN place text DEFAULT 'here'",
        "CREATE INDEX events_who ON events (who)",
        "ALTER TABLE events ADD CONSTRAINT low CHECK (grade < 9)",
    ] {
        first.batch_execute(change).await.unwrap();
    }
    first.batch_execute("UPDATE events SET place = 'there', grade = 5 WHERE id = 1").await.unwrap();
    // It has heard of none of it.
    let cut_off = cluster.client(alone).await;
    cut_off.batch_execute("UPDATE events SET note = 'late', old = 'y' WHERE id = 1").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap();
    }
    cluster.heal().await;
    for node in 0..3 {
        let client = &cluster.client(node).await;
        eventually("the node has the new schema and all writes", Duration::from_secs(60), || async move {
            let all = "SELECT count(*) FROM events WHERE place IN ('here', 'there')";
            let sum = "SELECT n FROM totals WHERE id = 1";
            let (all, sum) = (client.query_one(all, &[]).await, client.query_one(sum, &[]).await);
            matches!((all, sum), (Ok(all), Ok(sum))
                if all.get::<_, i64>(0) == written + 1 && sum.get::<_, i64>(0) == written)
        })
        .await;
        let row =
            client.query_one("SELECT remark, grade, place FROM events WHERE id = 1", &[]).await.unwrap();
        assert_eq!((row.get(0), row.get(1), row.get(2)), ("late", 5, "there"), "on node {node}");
        client.batch_execute("SET enable_seqscan = off").await.unwrap();
        let by_index = value(client, "SELECT count(*) FROM events WHERE who = 2").await;
        client.batch_execute("SET enable_seqscan = on; SET enable_indexscan = off").await.unwrap();
        client.batch_execute("SET enable_indexonlyscan = off").await.unwrap();
        assert_eq!(value(client, "SELECT count(*) FROM events WHERE who = 2").await, by_index);
        let refused = client.batch_execute("UPDATE events SET grade = 9 WHERE id = 1").await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "23514");
    }
}

/// TRUNCATE and DROP take with them what a node wrote that had not heard of them, and nothing of it comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncate_and_drop_win_over_writes_that_had_not_seen_them() {
    let cluster = Cluster::start_in_namespaces(3).await;
    let minority = (cluster.leader().await + 1) % 3;
    let majority: Vec<usize> = (0..3).filter(|&i| i != minority).collect();
    let (many, alone) = (cluster.client(majority[0]).await, cluster.client(minority).await);
    let tables = ["emptied", "dropped"];
    for table in tables {
        let create = format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, n crdt_counter) WITH (replication = 'leaderless');
             INSERT INTO {table} VALUES (1, 1)"
        );
        many.batch_execute(&create).await.unwrap();
        let (alone, query) = (&alone, format!("SELECT count(*) FROM {table}"));
        eventually("the row is everywhere", Duration::from_secs(20), || {
            let query = query.clone();
            async move { alone.query_one(query.as_str(), &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 1) }
        })
        .await;
    }
    cluster.partition(&[minority], &majority).await;
    let write = |table: &str| {
        format!(
            "UPDATE {table} SET n = n + 1 WHERE id = 1; INSERT INTO {table} SELECT i, 5 FROM generate_series(2, 50) i"
        )
    };
    for table in tables {
        alone.batch_execute(&write(table)).await.unwrap();
    }
    let began = Instant::now();
    while let Err(e) = many.batch_execute("TRUNCATE emptied; INSERT INTO emptied VALUES (1, 100)").await {
        assert!(began.elapsed() < Duration::from_secs(60), "the majority does not serve: {e:?}");
    }
    many.batch_execute("DROP TABLE dropped").await.unwrap();
    for table in tables {
        // It has not heard of it, and goes on.
        alone.batch_execute(&write(table).replace("(2, 50)", "(51, 99)")).await.unwrap();
    }
    cluster.heal().await;
    for node in 0..3 {
        let client = &cluster.client(node).await;
        eventually("only what came after is there", Duration::from_secs(60), || async move {
            let rows = client.query_one("SELECT count(*), sum(n)::bigint FROM emptied", &[]).await;
            let gone = client.query("SELECT * FROM dropped", &[]).await;
            rows.is_ok_and(|row| (row.get(0), row.get(1)) == (1i64, Some(100i64)))
                && gone.is_err_and(|e| e.code().is_some_and(|code| code.code() == "42P01"))
        })
        .await;
    }
    // A table of the same name is another table.
    many.batch_execute("CREATE TABLE dropped (id int PRIMARY KEY) WITH (replication = 'leaderless')")
        .await
        .unwrap();
    assert_eq!(value(&many, "SELECT count(*) FROM dropped").await, 0);
    alone.batch_execute("UPDATE emptied SET n = n + 1 WHERE id = 1").await.unwrap();
    for node in 0..3 {
        let client = &cluster.client(node).await;
        eventually("writes go on", Duration::from_secs(30), || async move {
            value(client, "SELECT sum(n)::bigint FROM emptied").await == 101
        })
        .await;
    }
    let wrong = "SELECT count(*) FROM amphora.verify_table('emptied') WHERE verdict <> 'ok'";
    assert_eq!(value(&many, wrong).await, 0);
}

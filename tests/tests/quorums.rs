//! Write and read quorums of leaderless tables, as SQL sets them, with nodes in two regions and with the link cut.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use amphora_tests::{Cluster, eventually};
use tokio_postgres::Client;
use tokio_postgres::error::DbError;

const LONG: &str = "RESET ALL; SET amphora.quorum_timeout = '30s'";
const SHORT: &str = "RESET ALL; SET amphora.quorum_timeout = '300ms'";

async fn value(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

async fn shown(client: &Client, setting: &str) -> String {
    client.query_one(&format!("SHOW {setting}"), &[]).await.unwrap().get(0)
}

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
}

async fn refused(client: &Client, sql: &str) -> DbError {
    let error = client.batch_execute(sql).await.expect_err(sql);
    error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}")).clone()
}

/// Two nodes in Europe and one in America, with a table that all know.
async fn two_regions() -> Cluster {
    let mut cluster = Cluster::start_with(1, &["--region", "eu"]).await;
    cluster.add_node(&["--region", "eu"]).await;
    cluster.add_node(&["--region", "us"]).await;
    cluster.wait_settled().await;
    let table = "CREATE TABLE hits (k int PRIMARY KEY, n crdt_counter) WITH (replication = 'leaderless');
                 INSERT INTO hits VALUES (1, 0)";
    run(&cluster.client(0).await, table).await;
    for index in 0..3 {
        let client = &cluster.client(index).await;
        eventually("the row is everywhere", Duration::from_secs(20), || async move {
            client.query_opt("SELECT n FROM hits", &[]).await.is_ok_and(|row| row.is_some())
        })
        .await;
    }
    cluster
}

/// With R + W > N every kind of statement sees the latest write, on whichever node.
async fn the_latest_write_is_read_everywhere(clients: &[Client]) {
    for (n, r, w) in [(0, "2", "2"), (1, "quorum", "quorum"), (2, "1", "all"), (0, "all", "1")] {
        for client in clients {
            run(client, LONG).await;
            run(client, &format!("SET amphora.read_quorum = '{r}'; SET amphora.write_quorum = '{w}'")).await;
        }
        let (writer, reader) = (&clients[n], &clients[(n + 1) % 3]);
        for _ in 0..8 {
            let before = value(reader, "SELECT n FROM hits WHERE k = 1").await;
            run(writer, "UPDATE hits SET n = n + 1 WHERE k = 1").await;
            assert_eq!(value(reader, "SELECT n FROM hits WHERE k = 1").await, before + 1, "R {r}, W {w}");
            run(writer, "UPDATE hits SET n = n + 1 WHERE n >= 0").await;
            assert_eq!(value(reader, "SELECT sum(n)::bigint FROM hits").await, before + 2, "R {r}, W {w}");
            run(writer, "UPDATE hits SET n = n + 1 WHERE k = 1").await;
            let join = "SELECT a.n FROM hits a JOIN hits b USING (k), generate_series(1, 1) WHERE b.n > 0";
            assert_eq!(value(reader, join).await, before + 3, "R {r}, W {w}");
            // An UPDATE reads first: what it writes is the difference to that.
            let next = "UPDATE hits SET n = n * 2 WHERE k = 1 RETURNING n";
            assert_eq!(value(reader, next).await, (before + 3) * 2, "R {r}, W {w}");
            run(writer, "DELETE FROM hits; INSERT INTO hits VALUES (1, 5)").await;
            assert_eq!(value(reader, "SELECT count(*) FROM hits WHERE n = 5").await, 1, "R {r}, W {w}");
        }
    }
}

/// A node without the others: what it writes stands, and what it cannot promise it says.
async fn a_minority_says_what_it_missed(alone: &Client) {
    run(alone, SHORT).await;
    let before = value(alone, "SELECT n FROM hits WHERE k = 1").await;
    run(alone, "BEGIN; SET LOCAL amphora.write_quorum = 2; UPDATE hits SET n = n + 1 WHERE k = 1").await;
    assert_eq!(shown(alone, "amphora.write_quorum").await, "2");
    let missed = refused(alone, "COMMIT").await;
    assert_eq!(missed.code().code(), "58000");
    assert_eq!(missed.message(), "write quorum of 2 nodes was not reached in time");
    let detail = missed.detail().unwrap();
    assert!(detail.starts_with("1 of 3 nodes (") && detail.contains("It stands"), "{detail}");
    assert!(missed.hint().unwrap().contains("amphora.write_quorum"));
    assert_eq!(shown(alone, "amphora.write_quorum").await, "default", "SET LOCAL ends with the transaction");
    assert_eq!(value(alone, "SELECT n FROM hits WHERE k = 1").await, before + 1, "the write stands");

    run(alone, "SET amphora.read_quorum = 2").await;
    for statement in ["SELECT n FROM hits WHERE k = 1", "SELECT count(*) FROM hits", "DELETE FROM hits"] {
        let missed = refused(alone, statement).await;
        assert_eq!(missed.code().code(), "58000", "{statement}");
        assert!(missed.detail().unwrap().starts_with("1 of 3 nodes ("), "{missed:?}");
    }
    run(alone, "SELECT 1; RESET amphora.read_quorum").await;

    // Its region is with it.
    run(alone, "SET amphora.write_quorum = local_quorum; SET amphora.read_quorum = 'LOCAL_QUORUM'").await;
    run(alone, "UPDATE hits SET n = n + 1 WHERE k = 1").await;
    let statement = alone.prepare("UPDATE hits SET n = n + $1::int WHERE k = 1").await.unwrap();
    alone.execute(&statement, &[&1]).await.unwrap();
    run(alone, "SET amphora.write_quorum = each_quorum").await;
    let missed = alone.execute(&statement, &[&1]).await.unwrap_err();
    assert_eq!(
        missed.as_db_error().unwrap().message(),
        "write quorum \"each_quorum\" was not reached in time"
    );
    run(alone, "SET amphora.write_quorum TO 1").await;
    alone.execute(&statement, &[&1]).await.unwrap();
    assert_eq!(value(alone, "SELECT n FROM hits WHERE k = 1").await, before + 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quorums_promise_what_they_say() {
    let cluster = two_regions().await;
    let mut clients = Vec::new();
    for index in 0..3 {
        clients.push(cluster.client(index).await);
    }
    the_latest_write_is_read_everywhere(&clients).await;

    let first = &clients[0];
    let impossible = refused(first, "SET amphora.write_quorum = 4; UPDATE hits SET n = 0").await;
    assert_eq!(impossible.code().code(), "55000");
    let bad = refused(first, "SET amphora.read_quorum = some").await;
    assert_eq!((bad.code().code(), bad.hint().is_some()), ("22023", true));
    let settings = "SELECT count(*) FROM pg_settings WHERE name IN
                    ('amphora.read_quorum', 'amphora.write_quorum', 'amphora.quorum_timeout')";
    assert_eq!(value(first, settings).await, 3);

    // The table's own, until a setting says otherwise.
    run(first, "RESET ALL; ALTER TABLE hits SET (write_quorum = 'all', read_quorum = 1)").await;
    let own = "SELECT write_quorum || ' ' || read_quorum FROM amphora.tables WHERE table_name = 'hits'";
    assert_eq!(first.query_one(own, &[]).await.unwrap().get::<_, &str>(0), "all 1");
    cluster.partition(&[2], &[0, 1]).await;
    run(first, SHORT).await;
    let sum = value(first, "SELECT n FROM hits").await;
    let missed = refused(first, "UPDATE hits SET n = n + 1").await;
    assert!(missed.detail().unwrap().starts_with("2 of 3 nodes ("), "{missed:?}");
    run(first, LONG).await;
    for quorum in ["1", "2", "quorum", "local_quorum"] {
        run(first, &format!("SET amphora.write_quorum = '{quorum}'; UPDATE hits SET n = n + 1")).await;
    }
    run(first, SHORT).await;
    let missed = refused(first, "SET amphora.read_quorum = 'each_quorum'; SELECT n FROM hits").await;
    assert!(missed.message().contains("each_quorum"), "{missed:?}");
    run(first, "RESET ALL; ALTER TABLE hits SET (write_quorum = 1)").await;
    assert_eq!(value(first, "SELECT n FROM hits").await, sum + 5, "what missed its quorum stands");

    a_minority_says_what_it_missed(&clients[2]).await;

    cluster.heal().await;
    for client in &clients {
        run(client, LONG).await;
        eventually("all writes are everywhere", Duration::from_secs(30), || async move {
            value(client, "SELECT n FROM hits").await == sum + 10
        })
        .await;
        run(client, "SET amphora.write_quorum = 'all'; SET amphora.read_quorum = each_quorum").await;
        run(client, "UPDATE hits SET n = n + 0; UPDATE hits SET n = n + 1; UPDATE hits SET n = n - 1").await;
    }
}

//! The consistency check, from outside: indexes of all kinds pass it, and what a disk changed is found.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use amphora_storage::schema::{IndexId, TableId};
use amphora_storage::store::{Batch, Direction, Store, StoreOptions};
use amphora_storage::{Timestamp, key};
use amphora_tests::Cluster;
use tokio_postgres::Client;

/// (object, node, verdict) of what is not ok.
async fn wrong(client: &Client, sql: &str) -> Vec<(String, i64, String)> {
    let sql = format!("SELECT object, node_id, verdict FROM {sql} WHERE verdict <> 'ok' ORDER BY 1, 2");
    let rows = client.query(sql.as_str(), &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

const SCHEMA: &str = "
    CREATE TABLE t (k int PRIMARY KEY, a int, b text, c numeric(10, 2), d text);
    INSERT INTO t SELECT i, i % 10, 'row ' || i, i / 7.0, NULL FROM generate_series(1, 2000) i;
    CREATE INDEX plain ON t (a, b DESC);
    CREATE UNIQUE INDEX with_columns ON t (b) INCLUDE (a, c);
    CREATE INDEX of_expressions ON t (lower(b), (a + 1));
    CREATE INDEX of_some ON t (c) WHERE a > 5;
    ALTER TABLE t ALTER COLUMN a TYPE bigint;
    ALTER TABLE t ADD COLUMN e int DEFAULT 7;
    CREATE INDEX of_added ON t (e);
    UPDATE t SET a = a + 1, d = 'x' WHERE k % 3 = 0;
    DELETE FROM t WHERE k % 11 = 0;
    CREATE TABLE other (x text, y text, PRIMARY KEY (y, x));
    INSERT INTO other SELECT i, 'y' || i FROM generate_series(1, 100) i;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_altered_on_one_disk_is_found_and_placed() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    client.batch_execute(SCHEMA).await.unwrap();
    for node in 0..3 {
        let client = cluster.client(node).await;
        let all = client.query("SELECT * FROM amphora.verify_table('t')", &[]).await.unwrap();
        assert_eq!(all.len(), 6 * 3);
        assert_eq!(wrong(&client, "amphora.verify_table('t')").await, []);
        assert_eq!(wrong(&client, "amphora.verify_table('public.other')").await, []);
    }
    // Whoever joined first has the smaller id.
    let altered = cluster.id(2).await as i64;
    let oid: u32 = client.query_one("SELECT 'other'::regclass::oid", &[]).await.unwrap().get(0);

    cluster.node(2).terminate();
    {
        let store = Store::open(&cluster.nodes()[2].data_dir, StoreOptions::default()).unwrap();
        let range = key::index_range(TableId(oid), IndexId::PRIMARY);
        let mut scan = store.scan(range, Timestamp::MAX, Direction::Forward).unwrap();
        let found = scan.next().unwrap().unwrap();
        let mut value = found.value.to_vec();
        *value.last_mut().unwrap() ^= 1;
        let mut batch = Batch::new();
        batch.put_strong(found.key, found.ts, value);
        drop(scan);
        store.write(batch).unwrap();
        store.flush().unwrap();
    }
    cluster.node(2).restart();
    cluster.wait_settled().await;
    assert_eq!(wrong(&client, "amphora.verify_table('t')").await, []);
    let found = wrong(&client, "amphora.verify_table('other')").await;
    assert_eq!(found, [("other".to_owned(), altered, "diverged".to_owned())]);
    // Everybody knows, and the log says so.
    for node in 0..3 {
        let client = cluster.client(node).await;
        assert_eq!(wrong(&client, "amphora.verification").await.len(), found.len());
        assert!(cluster.nodes()[node].log().contains("a consistency check found"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_compared_is_refused() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(0).await;
    let code = |e: tokio_postgres::Error| e.code().unwrap().code().to_owned();
    client
        .batch_execute(
            "CREATE TABLE l (k int PRIMARY KEY) WITH (replication = 'leaderless'); CREATE VIEW v AS SELECT 1",
        )
        .await
        .unwrap();
    for (sql, expected) in [
        ("SELECT * FROM amphora.verify_table('nothing')", "42P01"),
        ("SELECT * FROM amphora.verify_table('l')", "0A000"),
        ("SELECT * FROM amphora.verify_table('v')", "42809"),
        ("SELECT * FROM amphora.verify_table(4000000000)", "42P01"),
    ] {
        assert_eq!(code(client.query(sql, &[]).await.unwrap_err()), expected, "{sql}");
    }
    assert!(client.query("SELECT * FROM amphora.verify_table(NULL)", &[]).await.unwrap().is_empty());
}

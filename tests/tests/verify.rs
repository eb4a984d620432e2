//! The consistency check, from outside: indexes of all kinds pass it, and what a disk changed is found.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amphora_storage::schema::{IndexId, TableId};
use amphora_storage::store::{Batch, Cf, Direction, Store, StoreOptions};
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
        ("SELECT * FROM amphora.verify_table('v')", "42809"),
        ("SELECT * FROM amphora.verify_table(4000000000)", "42P01"),
    ] {
        assert_eq!(code(client.query(sql, &[]).await.unwrap_err()), expected, "{sql}");
    }
    assert_eq!(wrong(&client, "amphora.verify_table('l')").await, []);
    assert!(client.query("SELECT * FROM amphora.verify_table(NULL)", &[]).await.unwrap().is_empty());
}

/// Asks a node until it answers so.
async fn until(cluster: &Cluster, node: usize, sql: &str, expected: &str) {
    let client = cluster.client(node).await;
    let sql = format!("SELECT ({sql})::text");
    amphora_tests::eventually(&sql, Duration::from_secs(60), || async {
        let row = client.query_one(sql.as_str(), &[]).await;
        row.is_ok_and(|row| row.get::<_, Option<String>>(0).as_deref() == Some(expected))
    })
    .await;
}

/// What is stored of a leaderless table's row, and something else in its place.
fn alter(store: &Store, oid: u32, nth: usize, change: impl Fn(&mut Batch, &[u8], Vec<u8>)) {
    let range = key::index_range(TableId(oid), IndexId::PRIMARY);
    let mut scan = store.scan_plain(Cf::Leaderless, range, Direction::Forward).unwrap();
    for _ in 0..nth {
        scan.next().unwrap().unwrap();
    }
    let found = scan.next().unwrap().unwrap();
    let mut batch = Batch::new();
    change(&mut batch, found.key, found.value.to_vec());
    drop(scan);
    store.write(batch).unwrap();
}

const LEADERLESS: &str = "
    CREATE TABLE l (k int PRIMARY KEY, n crdt_counter, note text) WITH (replication = 'leaderless');
    INSERT INTO l SELECT i, i, 'row ' || i FROM generate_series(1, 3000) i";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bit_flipped_in_a_leaderless_row_is_found_and_repaired_while_all_nodes_write() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    client.batch_execute(LEADERLESS).await.unwrap();
    client.batch_execute("DELETE FROM l WHERE k % 100 = 0").await.unwrap();
    let oid: u32 = client.query_one("SELECT 'l'::regclass::oid", &[]).await.unwrap().get(0);
    let altered = cluster.id(2).await as i64;
    until(&cluster, 2, "SELECT count(*) FROM l", "2970").await;

    cluster.node(2).terminate();
    {
        let store = Store::open(&cluster.nodes()[2].data_dir, StoreOptions::default()).unwrap();
        // One flipped bit, one row that is gone, and one that was deleted and is not any more.
        alter(&store, oid, 5, |batch, key, mut stored| {
            let middle = stored.len() / 2;
            stored[middle] ^= 4;
            batch.put(Cf::Leaderless, key, stored);
        });
        alter(&store, oid, 1500, |batch, key, _| batch.delete(Cf::Leaderless, key));
        store.flush().unwrap();
    }
    cluster.node(2).restart();
    cluster.wait_settled().await;
    let hurt = cluster.client(2).await;
    let refused = hurt.query("SELECT sum(n) FROM l", &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "XX001");

    // Writes under way are no difference.
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for node in 0..3 {
        let (client, stop) = (cluster.client(node).await, stop.clone());
        writers.push(tokio::spawn(async move {
            let (mut written, mut k) = (0i64, 2001);
            while !stop.load(Ordering::Relaxed) {
                k = 2001 + (k * 7 + node as i32) % 900;
                let update = format!("UPDATE l SET n = n + 1, note = 'by {node}' WHERE k = {k}");
                written += client.execute(update.as_str(), &[]).await.unwrap() as i64;
            }
            written
        }));
    }
    let found = client.query("SELECT node_id, verdict, detail FROM amphora.verify_table('l')", &[]);
    let found = found.await.unwrap();
    assert_eq!(found.len(), 3);
    for row in &found {
        let (node, verdict, detail): (i64, &str, &str) = (row.get(0), row.get(1), row.get(2));
        if node == altered {
            let told = "1 row had lost writes, and has them again: (k)=(1501); \
                        1 row was damaged, and is replaced: (k)=(6)";
            assert_eq!((verdict, detail), ("repaired", told));
        } else {
            assert_eq!((verdict, detail), ("ok", ""), "node {node}");
        }
    }
    for node in 0..3 {
        let client = cluster.client(node).await;
        let known = wrong(&client, "amphora.verification").await;
        assert_eq!(known, [("l".to_owned(), altered, "repaired".to_owned())]);
        assert!(cluster.nodes()[node].log().contains("1 row was damaged, and is replaced: (k)=(6)"));
    }
    let (code, told) = cluster.run(1, &["verify", "l"]).await;
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("ok") && !told.contains("repaired"), "{told}");
    stop.store(true, Ordering::Relaxed);
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap();
    }
    let sum: i64 = (1..=3000).filter(|k| k % 100 != 0).sum::<i64>() + written;
    for node in 0..3 {
        until(&cluster, node, "SELECT sum(n) FROM l", &sum.to_string()).await;
        until(&cluster, node, "SELECT n || note FROM l WHERE k = 6", "6row 6").await;
    }
    assert_eq!(wrong(&client, "amphora.verify_table('l')").await, []);
    let rows =
        client.query("SELECT DISTINCT rows, checksum FROM amphora.verify_table('l')", &[]).await.unwrap();
    assert_eq!(rows.len(), 1, "nothing is under way: {rows:?}");

    // A node that cannot be reached is said to be so, and the others are compared.
    cluster.node(2).kill();
    let found = wrong(&client, "amphora.verify_table('l')").await;
    assert_eq!(found, [("l".to_owned(), altered, "unreachable".to_owned())]);
}

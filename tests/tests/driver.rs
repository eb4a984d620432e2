//! A driver's view: parameters and results in binary, portals, cancel, transactions.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::{Duration, Instant, SystemTime};

use amphora_tests::Cluster;
use tokio_postgres::NoTls;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_goes_there_and_back_in_binary() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(0).await;
    for mode in ["strong", "leaderless"] {
        let create = format!(
            "CREATE TABLE {mode}_t (id smallint PRIMARY KEY, i int, b bigint, d double precision, t text,
                                    y boolean, ts timestamptz, u uuid, j jsonb, a text[], n numeric(12,3))
             WITH (replication = '{mode}')"
        );
        client.batch_execute(&create).await.unwrap();
        let insert = format!(
            "INSERT INTO {mode}_t VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::numeric)"
        );
        let now = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
        let id = uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let json = serde_json::json!({"k": [1, 2.5, null, "x"], "o": {"deep": true}});
        let array = vec!["a".to_owned(), "b \"c\", {d}".to_owned(), String::new()];
        let values: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
            &[&7i16, &-5i32, &i64::MAX, &1.5f64, &"käse 🧀", &true, &now, &id, &json, &array, &"123456.789"];
        assert_eq!(client.execute(&insert, values).await.unwrap(), 1);
        let select = format!("SELECT *, n::text AS nt FROM {mode}_t WHERE id = $1");
        let row = client.query_one(&select, &[&7i16]).await.unwrap();
        assert_eq!(row.get::<_, i32>("i"), -5);
        assert_eq!(row.get::<_, i64>("b"), i64::MAX);
        assert_eq!(row.get::<_, f64>("d"), 1.5);
        assert_eq!(row.get::<_, &str>("t"), "käse 🧀");
        assert!(row.get::<_, bool>("y"));
        assert_eq!(row.get::<_, SystemTime>("ts"), now);
        assert_eq!(row.get::<_, uuid::Uuid>("u"), id);
        assert_eq!(row.get::<_, serde_json::Value>("j"), json);
        assert_eq!(row.get::<_, Vec<String>>("a"), array);
        assert_eq!(row.get::<_, &str>("nt"), "123456.789");
        let nulls = format!("INSERT INTO {mode}_t (id, t) VALUES (8, $1) RETURNING t, j");
        let row = client.query_one(&nulls, &[&None::<String>]).await.unwrap();
        assert_eq!(row.get::<_, Option<String>>(0), None);
        assert_eq!(row.get::<_, Option<serde_json::Value>>(1), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_portal_gives_its_rows_in_portions() {
    let cluster = Cluster::start(1).await;
    let mut client = cluster.client(0).await;
    client.batch_execute("CREATE TABLE t (k int PRIMARY KEY)").await.unwrap();
    client.batch_execute("INSERT INTO t SELECT generate_series(1, 2500)").await.unwrap();
    let tx = client.transaction().await.unwrap();
    let portal = tx.bind("SELECT k FROM t ORDER BY k", &[]).await.unwrap();
    let mut next = 1i32;
    loop {
        let rows = tx.query_portal(&portal, 1000).await.unwrap();
        if rows.is_empty() {
            break;
        }
        for row in rows {
            assert_eq!(row.get::<_, i32>(0), next);
            next += 1;
        }
        // What the transaction does meanwhile does not disturb the portal.
        tx.execute("DELETE FROM t WHERE k = $1", &[&(next + 10)]).await.unwrap();
    }
    assert_eq!(next, 2501);
    tx.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_statement_is_cancelled() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(0).await;
    let token = client.cancel_token();
    let start = Instant::now();
    let (result, ()) =
        tokio::join!(client.query_one("SELECT count(*) FROM generate_series(1, 1000000000) a", &[]), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            token.cancel_query(NoTls).await.unwrap();
        });
    let error = result.expect_err("cancelled");
    assert_eq!(error.as_db_error().unwrap().code().code(), "57014");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // And the session goes on.
    assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolation_levels_do_what_they_promise() {
    let cluster = Cluster::start(3).await;
    let mut one = cluster.client(0).await;
    let two = cluster.client(1).await;
    one.batch_execute("CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0)")
        .await
        .unwrap();

    // READ COMMITTED waits for the other's lock and then works on the newer row: no update is lost.
    let tx = one.transaction().await.unwrap();
    tx.execute("UPDATE t SET v = v + 1 WHERE k = 1", &[]).await.unwrap();
    let other = two.execute("UPDATE t SET v = v + 10 WHERE k = 1", &[]);
    let commit = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        tx.commit().await
    };
    let (other, commit) = tokio::join!(other, commit);
    assert_eq!(other.unwrap(), 1);
    commit.unwrap();
    assert_eq!(two.query_one("SELECT v FROM t", &[]).await.unwrap().get::<_, i32>(0), 11);

    // REPEATABLE READ keeps its snapshot, and refuses to write over what it has not seen.
    let level = tokio_postgres::IsolationLevel::RepeatableRead;
    let tx = one.build_transaction().isolation_level(level).start().await.unwrap();
    assert_eq!(tx.query_one("SELECT v FROM t", &[]).await.unwrap().get::<_, i32>(0), 11);
    two.execute("UPDATE t SET v = 12 WHERE k = 1", &[]).await.unwrap();
    assert_eq!(tx.query_one("SELECT v FROM t", &[]).await.unwrap().get::<_, i32>(0), 11);
    let error = tx.execute("UPDATE t SET v = v + 1 WHERE k = 1", &[]).await.expect_err("it moved");
    assert_eq!(error.as_db_error().unwrap().code().code(), "40001");
    tx.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn contended_increments_through_all_nodes_lose_nothing_and_show_no_retry() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    client
        .batch_execute("CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0)")
        .await
        .unwrap();
    let mut tasks = Vec::new();
    for n in 0..9 {
        let client = cluster.client(n % 3).await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..30 {
                client.execute("UPDATE t SET v = v + 1 WHERE k = 1", &[]).await.expect("never 40001");
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let v: i32 = client.query_one("SELECT v FROM t", &[]).await.unwrap().get(0);
    assert_eq!(v, 270);
}

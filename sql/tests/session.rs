//! What a transcript cannot show: the extended protocol, portals, restarts, cancellation, budgets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod memory;

use std::sync::Arc;
use std::time::{Duration, Instant};

use amphora_sql::error::Result;
use amphora_sql::plan::Field;
use amphora_sql::session::{Notice, Output, Session, SessionOptions, TransactionStatus};
use amphora_sql::types::{FormatContext, to_text};
use amphora_storage::Datum;
use async_trait::async_trait;
use bytes::Bytes;

use memory::MemoryEngine;

/// Remembers answers as words: rows as `a|b`, tags as they are, `suspended`, `empty`.
#[derive(Default)]
struct Recorder {
    words: Vec<String>,
    fields: Option<Arc<[Field]>>,
    format: FormatContext,
    settings: Vec<(String, String)>,
}

#[async_trait]
impl Output for Recorder {
    fn fields(&mut self, fields: &Arc<[Field]>, _: &[i16], format: &FormatContext) {
        self.fields = Some(fields.clone());
        self.format = format.clone();
    }

    fn row(&mut self, row: &[Datum]) -> Result<()> {
        let fields = self.fields.clone().expect("columns are described before rows");
        let values: Vec<String> =
            row.iter().zip(fields.iter()).map(|(v, f)| to_text(v, &f.ty, &self.format)).collect();
        self.words.push(values.join("|"));
        Ok(())
    }

    async fn flush_if_full(&mut self) -> Result<()> {
        Ok(())
    }

    fn complete(&mut self, tag: &str) {
        self.words.push(tag.to_owned());
    }

    fn suspended(&mut self) {
        self.words.push("suspended".into());
    }

    fn empty_query(&mut self) {
        self.words.push("empty".into());
    }

    fn notice(&mut self, notice: Notice) {
        self.words.push(format!("{} {}", notice.severity, notice.sqlstate));
    }

    fn parameter_status(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }
}

fn session(engine: &MemoryEngine) -> Session {
    let options = SessionOptions {
        user: "ann".into(),
        database: "amphora".into(),
        backend_pid: 7,
        settings: vec![("application_name".into(), "test".into())],
    };
    Session::new(Arc::new(engine.clone()), options).unwrap()
}

/// Runs a simple query: its words, or the SQLSTATE.
async fn run(session: &mut Session, sql: &str) -> Vec<String> {
    let mut out = Recorder::default();
    if let Err(error) = session.simple_query(sql, &mut out).await {
        out.words.push(error.sqlstate.into());
    }
    out.words
}

/// Bind and Execute of the unnamed portal with text parameters.
async fn execute(session: &mut Session, statement: &str, params: &[Option<&str>], max: u32) -> Vec<String> {
    let params: Vec<Option<Bytes>> =
        params.iter().map(|p| p.map(|p| Bytes::copy_from_slice(p.as_bytes()))).collect();
    let mut out = Recorder::default();
    session.close_portal("");
    let result = match session.bind("", statement, &params, &[], &[]) {
        Ok(()) => session.execute("", max, &mut out).await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        session.error().await;
        out.words.push(error.sqlstate.into());
    }
    out.words
}

async fn sync(session: &mut Session) {
    session.sync(&mut Recorder::default()).await.unwrap();
}

async fn table(session: &mut Session) {
    run(session, "CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    run(session, "INSERT INTO t SELECT i, i * 10 FROM generate_series(1, 5) AS s(i)").await;
}

#[tokio::test]
async fn a_statement_is_parsed_bound_described_and_executed() {
    let mut s = session(&MemoryEngine::new());
    table(&mut s).await;
    s.parse("q", "SELECT n, id FROM t WHERE id = $1 OR n = $2", &[0, 20]).await.unwrap();
    let (parameters, fields) = s.describe_statement("q").await.unwrap();
    assert_eq!(parameters, [23, 20]);
    let names: Vec<String> = fields.unwrap().iter().map(|f| f.name.clone()).collect();
    assert_eq!(names, ["n", "id"]);
    assert_eq!(execute(&mut s, "q", &[Some("2"), None], 0).await, ["20|2", "SELECT 1"]);
    // A binary parameter.
    s.bind("p", "q", &[Some(Bytes::from_static(&[0, 0, 0, 3])), None], &[1, 0], &[1]).unwrap();
    let (_, formats) = s.describe_portal("p").unwrap().unwrap();
    assert_eq!(formats, [1]);
    let mut out = Recorder::default();
    s.execute("p", 0, &mut out).await.unwrap();
    assert_eq!(out.words, ["30|3", "SELECT 1"]);
    sync(&mut s).await;
    assert_eq!(s.describe_portal("p").unwrap_err().sqlstate, "34000");
}

#[tokio::test]
async fn a_row_is_read_by_its_key() {
    let mut s = session(&MemoryEngine::new());
    table(&mut s).await;
    s.parse("q", "SELECT n, id, n FROM t WHERE id = $1", &[]).await.unwrap();
    for (key, expected) in
        [(Some("2"), &["20|2|20", "SELECT 1"][..]), (Some("9"), &["SELECT 0"]), (None, &["SELECT 0"])]
    {
        assert_eq!(execute(&mut s, "q", &[key], 0).await, expected, "{key:?}");
        sync(&mut s).await;
    }
    // A row asked for one by one ends with it.
    assert_eq!(execute(&mut s, "q", &[Some("3")], 1).await, ["30|3|30", "SELECT 1"]);
    sync(&mut s).await;
    // What the transaction wrote itself, and what it deleted.
    run(&mut s, "BEGIN; UPDATE t SET n = 21 WHERE id = 2; DELETE FROM t WHERE id = 3").await;
    assert_eq!(execute(&mut s, "q", &[Some("2")], 0).await, ["21|2|21", "SELECT 1"]);
    assert_eq!(execute(&mut s, "q", &[Some("3")], 0).await, ["SELECT 0"]);
    run(&mut s, "ROLLBACK").await;
    // Columns that came after the row, and went.
    run(&mut s, "ALTER TABLE t ADD COLUMN late text DEFAULT 'x'; ALTER TABLE t DROP COLUMN n").await;
    assert_eq!(run(&mut s, "SELECT late, id FROM t WHERE id = 4").await, ["x|4", "SELECT 1"]);
}

#[tokio::test]
async fn bad_messages_are_refused() {
    let mut s = session(&MemoryEngine::new());
    table(&mut s).await;
    s.parse("q", "SELECT n FROM t WHERE id = $1", &[]).await.unwrap();
    assert_eq!(s.parse("q", "SELECT 1", &[]).await.unwrap_err().sqlstate, "42P05");
    assert_eq!(s.parse("", "SELECT 1; SELECT 2", &[]).await.unwrap_err().sqlstate, "42601");
    assert_eq!(s.bind("", "nosuch", &[], &[], &[]).unwrap_err().sqlstate, "26000");
    assert_eq!(s.bind("", "q", &[], &[], &[]).unwrap_err().sqlstate, "08P01");
    assert_eq!(s.bind("", "q", &[None], &[0, 0], &[]).unwrap_err().sqlstate, "08P01");
    assert_eq!(execute(&mut s, "q", &[Some("x")], 0).await, ["22P02"]);
    let short = [Some(Bytes::from_static(&[1, 2]))];
    assert!(matches!(s.bind("", "q", &short, &[1], &[]).unwrap_err().sqlstate, "22P03" | "08P01"));
    let mut out = Recorder::default();
    assert_eq!(s.execute("nosuch", 0, &mut out).await.unwrap_err().sqlstate, "34000");
    s.parse("", "", &[]).await.unwrap();
    assert_eq!(execute(&mut s, "", &[], 0).await, ["empty"]);
}

#[tokio::test]
async fn a_portal_is_suspended_and_goes_on() {
    let mut s = session(&MemoryEngine::new());
    table(&mut s).await;
    s.parse("", "SELECT id FROM t ORDER BY id", &[]).await.unwrap();
    assert_eq!(execute(&mut s, "", &[], 2).await, ["1", "2", "suspended"]);
    let mut out = Recorder::default();
    s.execute("", 2, &mut out).await.unwrap();
    assert_eq!(out.words, ["3", "4", "suspended"]);
    out.words.clear();
    s.execute("", 0, &mut out).await.unwrap();
    assert_eq!(out.words, ["5", "SELECT 1"]);
    sync(&mut s).await;
    s.parse("", "INSERT INTO t VALUES (6, 1), (7, 2), (8, 3) RETURNING id", &[]).await.unwrap();
    assert_eq!(execute(&mut s, "", &[], 2).await, ["6", "7", "suspended"]);
    out.words.clear();
    s.execute("", 2, &mut out).await.unwrap();
    assert_eq!(out.words, ["8", "INSERT 0 3"]);
    sync(&mut s).await;
    assert_eq!(run(&mut s, "SELECT count(*) FROM t").await, ["8", "SELECT 1"]);
}

#[tokio::test]
async fn what_is_between_two_syncs_is_one_transaction() {
    let engine = MemoryEngine::new();
    let (mut s, mut other) = (session(&engine), session(&engine));
    table(&mut s).await;
    s.parse("i", "INSERT INTO t VALUES ($1, 0)", &[]).await.unwrap();
    assert_eq!(execute(&mut s, "i", &[Some("10")], 0).await, ["INSERT 0 1"]);
    assert_eq!(execute(&mut s, "i", &[Some("11")], 0).await, ["INSERT 0 1"]);
    assert_eq!(run(&mut other, "SELECT count(*) FROM t").await[0], "5");
    sync(&mut s).await;
    assert_eq!(run(&mut other, "SELECT count(*) FROM t").await[0], "7");
    assert_eq!(execute(&mut s, "i", &[Some("12")], 0).await, ["INSERT 0 1"]);
    assert_eq!(execute(&mut s, "i", &[Some("12")], 0).await, ["23505"]);
    sync(&mut s).await;
    assert_eq!(run(&mut other, "SELECT count(*) FROM t").await[0], "7");
    // With Sync in sight the statement commits by itself.
    s.expect_sync();
    assert_eq!(execute(&mut s, "i", &[Some("12")], 0).await, ["INSERT 0 1"]);
    assert_eq!(run(&mut other, "SELECT count(*) FROM t").await[0], "8");
}

#[tokio::test]
async fn a_plan_follows_the_catalog() {
    let engine = MemoryEngine::new();
    let (mut s, mut other) = (session(&engine), session(&engine));
    table(&mut s).await;
    s.parse("q", "SELECT * FROM t WHERE id = $1", &[]).await.unwrap();
    assert_eq!(execute(&mut s, "q", &[Some("1")], 0).await, ["1|10", "SELECT 1"]);
    sync(&mut s).await;
    run(&mut other, "CREATE INDEX ON t (n)").await;
    assert_eq!(execute(&mut s, "q", &[Some("1")], 0).await, ["1|10", "SELECT 1"]);
    sync(&mut s).await;
    run(&mut other, "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, n text, x int)").await;
    assert_eq!(execute(&mut s, "q", &[Some("1")], 0).await, ["0A000"]);
    sync(&mut s).await;
    run(&mut other, "DROP TABLE t").await;
    assert_eq!(execute(&mut s, "q", &[Some("1")], 0).await, ["42P01"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn single_statements_never_show_a_serialization_failure() {
    let engine = MemoryEngine::new();
    table(&mut session(&engine)).await;
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let mut s = session(&engine);
            tokio::spawn(async move {
                for _ in 0..25 {
                    let words = run(&mut s, "UPDATE t SET n = n + 1 WHERE id = 1 RETURNING id").await;
                    assert_eq!(words, ["1", "UPDATE 1"]);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let mut s = session(&engine);
    assert_eq!(run(&mut s, "SELECT n FROM t WHERE id = 1").await[0], (10 + 8 * 25).to_string());
}

#[tokio::test]
async fn status_and_settings_are_reported() {
    let mut s = session(&MemoryEngine::new());
    assert!(s.parameter_status().contains(&("application_name", "test".to_owned())));
    assert_eq!(s.status(), TransactionStatus::Idle);
    run(&mut s, "BEGIN").await;
    assert_eq!(s.status(), TransactionStatus::InTransaction);
    run(&mut s, "SELECT nosuch").await;
    assert_eq!(s.status(), TransactionStatus::Failed);
    assert_eq!(run(&mut s, "SELECT 1").await, ["25P02"]);
    run(&mut s, "ROLLBACK").await;
    assert_eq!(s.status(), TransactionStatus::Idle);
    let mut out = Recorder::default();
    s.simple_query("SET timezone = 'Europe/Paris'", &mut out).await.unwrap();
    assert_eq!(out.settings, [("TimeZone".to_owned(), "Europe/Paris".to_owned())]);
    assert_eq!(run(&mut s, " ; ").await, ["empty"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_statement_is_cancelled() {
    let mut s = session(&MemoryEngine::new());
    let cancel = s.cancel_handle();
    // A request that comes when nothing runs concerns nothing.
    cancel.cancel();
    assert_eq!(run(&mut s, "SELECT 1").await, ["1", "SELECT 1"]);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cancel.cancel();
    });
    let begin = Instant::now();
    let words =
        run(&mut s, "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b").await;
    assert_eq!(words, ["57014"]);
    assert!(begin.elapsed() < Duration::from_secs(5));
    run(&mut s, "SET statement_timeout = '50ms'").await;
    assert_eq!(run(&mut s, "SELECT pg_sleep(10)").await, ["57014"]);
    assert_eq!(
        run(&mut s, "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b").await,
        ["57014"]
    );
}

#[tokio::test]
async fn a_statement_keeps_to_its_memory() {
    let mut s = session(&MemoryEngine::new());
    run(&mut s, "SET amphora.query_memory = '2MB'").await;
    assert_eq!(run(&mut s, "SELECT count(*) FROM generate_series(1, 200000)").await, ["200000", "SELECT 1"]);
    // What a join, a grouping or a DISTINCT cannot hold goes to files.
    for (sql, rows) in [
        ("SELECT count(*) FROM (SELECT DISTINCT i FROM generate_series(1, 200000) AS s(i)) t", "200000"),
        (
            "SELECT sum(n) FROM (SELECT count(*) AS n FROM generate_series(1, 200000) AS s(i) GROUP BY i) t",
            "200000",
        ),
        (
            "SELECT count(*) FROM generate_series(1, 200000) a(i) JOIN generate_series(1, 200000) b(i) ON a.i = b.i",
            "200000",
        ),
        ("SELECT count(DISTINCT i % 150000) FROM generate_series(1, 200000) AS s(i)", "150000"),
        (
            "SELECT count(*) FROM (SELECT generate_series(1, 100000) EXCEPT SELECT generate_series(5, 90000)) t",
            "10004",
        ),
    ] {
        assert_eq!(run(&mut s, sql).await, [rows, "SELECT 1"], "{sql}");
    }
    let words =
        run(&mut s, "SELECT array_length(array_agg(i), 1) FROM generate_series(1, 200000) AS s(i)").await;
    assert_eq!(words.last().map(String::as_str), Some("53200"));
    // The best few of many need little.
    let words = run(&mut s, "SELECT i FROM generate_series(1, 200000) AS s(i) ORDER BY -i LIMIT 2").await;
    assert_eq!(words, ["200000", "199999", "SELECT 2"]);
}

/// Sorts go to files when they are larger than `work_mem`, in more runs than are merged at a time.
#[tokio::test]
async fn a_large_sort_uses_files() {
    let mut s = session(&MemoryEngine::new());
    run(&mut s, "SET work_mem = '64kB'").await;
    let sql = "SELECT i FROM generate_series(1, 200000) AS s(i) ORDER BY i % 7, -i OFFSET 199997";
    assert_eq!(run(&mut s, sql).await, ["20", "13", "6", "SELECT 3"]);
    let sql = "SELECT i FROM generate_series(1, 200000) AS s(i) ORDER BY i % 7, -i OFFSET 5000 LIMIT 2";
    assert_eq!(run(&mut s, sql).await, ["164997", "164990", "SELECT 2"]);
    let words =
        run(&mut s, "EXPLAIN ANALYZE SELECT i FROM generate_series(1, 20000) AS s(i) ORDER BY -i").await;
    assert!(words.iter().any(|w| w.contains("Sort Method: external merge  Disk: ")), "{words:?}");
}

/// Orders that indexes give are used for joins, groups and the first rows of a join.
#[tokio::test]
async fn plans_use_the_order_of_indexes() {
    let mut s = session(&MemoryEngine::new());
    for sql in [
        "CREATE TABLE few (id int PRIMARY KEY, k int)",
        "CREATE TABLE many (id int PRIMARY KEY, k int NOT NULL, x int)",
        "CREATE INDEX ON many (k, id)",
        "INSERT INTO few SELECT i, i % 3 FROM generate_series(1, 40) AS s(i)",
        "INSERT INTO many SELECT i, i % 11, i % 7 FROM generate_series(1, 3000) AS s(i)",
        "ANALYZE",
    ] {
        run(&mut s, sql).await;
    }
    for (sql, wanted, unwanted) in [
        ("SELECT k, count(*) FROM many GROUP BY k", "GroupAggregate", "Sort"),
        ("SELECT DISTINCT k FROM many", "Unique", "Sort"),
        ("SELECT * FROM many a JOIN many b ON a.id = b.id", "Merge Join", "Sort"),
        ("SELECT * FROM many a LEFT JOIN many b ON a.id = b.id", "Merge Left Join", "Sort"),
        (
            "SELECT many.id FROM many JOIN few ON few.id = many.k ORDER BY many.id LIMIT 5",
            "Nested Loop",
            "Sort",
        ),
        (
            "SELECT many.id FROM many LEFT JOIN few ON few.id = many.k ORDER BY many.id LIMIT 5",
            "Limit",
            "Sort",
        ),
        (
            "SELECT * FROM (SELECT k, rank() OVER (PARTITION BY k ORDER BY id) FROM many) w WHERE k = 3",
            "Index Cond: (k = 3)",
            "Filter",
        ),
        ("SELECT id, (SELECT sum(id) FROM many m WHERE m.x = few.k) FROM few", "Hash Left Join", "SubPlan"),
    ] {
        let plan = run(&mut s, &format!("EXPLAIN {sql}")).await;
        assert!(plan.iter().any(|line| line.contains(wanted)), "{sql}: {plan:#?}");
        assert!(!plan.iter().any(|line| line.contains(unwanted)), "{sql}: {plan:#?}");
    }
}

/// `temp_file_limit` bounds the files of a statement, and they are gone when it is.
#[tokio::test]
async fn temporary_files_have_a_limit() {
    let mut s = session(&MemoryEngine::new());
    run(&mut s, "SET work_mem = '64kB'; SET temp_file_limit = '300kB'").await;
    for sql in [
        "SELECT i FROM generate_series(1, 100000) AS s(i) ORDER BY -i",
        "SELECT i % 90000, count(*) FROM generate_series(1, 100000) AS s(i) GROUP BY 1",
        "SELECT count(*) FROM generate_series(1, 100000) a(i) JOIN generate_series(1, 100000) b(i) ON a.i = b.i",
        "WITH w AS (SELECT generate_series(1, 100000) AS i) SELECT (SELECT count(*) FROM w) + (SELECT count(*) FROM w)",
    ] {
        assert_eq!(run(&mut s, sql).await, ["53400"], "{sql}");
    }
    let small = "SELECT count(*) FROM (SELECT i FROM generate_series(1, 4000) AS s(i) ORDER BY -i) t";
    assert_eq!(run(&mut s, small).await, ["4000", "SELECT 1"]);
    run(&mut s, "SET temp_file_limit = -1").await;
    let words = run(
        &mut s,
        "EXPLAIN ANALYZE SELECT a.i FROM generate_series(1, 20000) a(i) JOIN generate_series(1, 20000) b(i) ON a.i = b.i",
    )
    .await;
    let table = words.iter().find(|w| w.contains("Buckets: ")).unwrap();
    assert!(!table.contains("  Batches: 1 ") && table.contains("  Memory Usage: "), "{words:?}");
    let words =
        run(&mut s, "EXPLAIN ANALYZE SELECT i, count(*) FROM generate_series(1, 20000) AS s(i) GROUP BY i")
            .await;
    assert!(words.iter().any(|w| w.contains("  Disk Usage: ")), "{words:?}");
}

#[tokio::test]
async fn explain_analyze_counts() {
    let mut s = session(&MemoryEngine::new());
    table(&mut s).await;
    let words = run(&mut s, "EXPLAIN ANALYZE SELECT * FROM t WHERE n > 20").await;
    assert!(words[0].starts_with("Seq Scan on t  (cost=0.00.."), "{words:?}");
    assert!(words[0].contains(" rows=3 loops=1)"), "{words:?}");
    assert!(words.iter().any(|w| w.starts_with("Execution Time: ")));
    run(&mut s, "EXPLAIN ANALYZE DELETE FROM t WHERE id = 1").await;
    assert_eq!(run(&mut s, "SELECT count(*) FROM t").await[0], "4");
    run(&mut s, "EXPLAIN DELETE FROM t WHERE id = 2").await;
    assert_eq!(run(&mut s, "SELECT count(*) FROM t").await[0], "4");
}

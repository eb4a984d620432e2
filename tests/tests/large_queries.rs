//! Queries over many more rows than `work_mem` holds: their results, and the memory they take.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use amphora_tests::Cluster;

/// Runs sorts, joins, groups and the like of so many rows; none may take more than `limit` bytes beyond what
/// the idle node takes.
async fn in_bounded_memory(rows: u64, limit: u64) {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes()[0];
    let client = node.client().await;
    client.batch_execute("SET work_mem = '4MB'; SET statement_timeout = 0").await.unwrap();
    let idle = node.resident_bytes();
    let series = format!("generate_series(1, {rows})");
    let (half, sum) = (rows / 2, rows * (rows + 1) / 2);
    for (sql, expected) in [
        (format!("SELECT i FROM {series} AS s(i) ORDER BY -i OFFSET {half} LIMIT 1"), rows - half),
        (format!("SELECT count(*) FROM {series} AS a(i) JOIN {series} AS b(i) ON a.i = b.i"), rows),
        (
            format!(
                "SELECT sum(n) FROM (SELECT i % {half} AS k, count(*) AS n FROM {series} AS s(i) GROUP BY 1) t"
            ),
            rows,
        ),
        (format!("SELECT count(DISTINCT i) FROM {series} AS s(i)"), rows),
        (
            format!(
                "SELECT count(*) FROM (SELECT i FROM {series} AS s(i) EXCEPT SELECT i * 2 FROM {series} AS s(i)) t"
            ),
            rows - half,
        ),
        (
            format!(
                "WITH w AS (SELECT i FROM {series} AS s(i)) SELECT ((SELECT sum(i) FROM w) + (SELECT count(*) FROM w) - {rows})"
            ),
            sum,
        ),
    ] {
        let row = client.query_one(&format!("SELECT ({sql})::bigint"), &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), i64::try_from(expected).unwrap(), "{sql}");
        let taken = node.resident_bytes().saturating_sub(idle);
        assert!(taken < limit, "{taken} bytes after {sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_queries_use_files() {
    in_bounded_memory(60_000, 200 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make soak"]
async fn soak_five_million_rows_in_bounded_memory() {
    in_bounded_memory(5_000_000, 400 << 20).await;
}

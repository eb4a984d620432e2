//! Indexes of every kind beside none: the same random writes go to two tables, of which one has indexes, and
//! what is read from both must be the same, whichever way it is read. A unique index refuses exactly what
//! would have made two rows alike. On a leaderless table every node writes, and each keeps indexes of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use amphora_tests::{Cluster, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::{Client, SimpleQueryMessage};

const TABLE: &str = "(id integer PRIMARY KEY, name text, n integer, v numeric, gone boolean)";

const INDEXES: &[&str] = &[
    "CREATE INDEX i_lower ON t (lower(name), n)",
    "CREATE INDEX i_live ON t (n DESC) WHERE NOT gone",
    "CREATE INDEX i_named ON t (n NULLS FIRST, v DESC NULLS LAST) INCLUDE (name, gone)",
    "CREATE INDEX i_sum ON t ((n + id) DESC) WHERE n IS NOT NULL AND name IN ('a', 'B', 'c')",
    "CREATE INDEX i_mixed ON t (gone DESC, name, n DESC NULLS LAST)",
    "CREATE UNIQUE INDEX i_once ON t (lower(name), n % 50) WHERE gone IS FALSE AND n > 40",
];

/// Queries over `T`, which stands for either table. Those with an order have one that is total.
const QUERIES: &[&str] = &[
    "SELECT id, name, n FROM T WHERE lower(name) = 'b' AND n > $",
    "SELECT id FROM T WHERE lower(name) IN ('a', 'x') AND n < $",
    "SELECT id, n FROM T WHERE NOT gone AND n = $",
    "SELECT id, n FROM T WHERE gone IS FALSE AND n BETWEEN $ AND $ + 9",
    "SELECT n, v, name, gone FROM T WHERE n > $",
    "SELECT n, v, name, gone FROM T WHERE n < $ AND v >= 1",
    "SELECT id, n + id FROM T WHERE n IS NOT NULL AND name = 'c' AND n + id > $",
    "SELECT id FROM T WHERE gone AND name >= 'b' AND name < 'd'",
    "SELECT id FROM T WHERE lower(name) LIKE 'a%' OR lower(name) = 'c'",
    "SELECT n, id FROM T WHERE NOT gone ORDER BY n DESC, id LIMIT 7",
    "SELECT n, v, id FROM T ORDER BY n NULLS FIRST, v DESC NULLS LAST, id LIMIT 9",
    "SELECT n, v, id FROM T ORDER BY n DESC NULLS LAST, v NULLS FIRST, id DESC LIMIT 9",
    "SELECT gone, name, n, id FROM T WHERE gone ORDER BY gone DESC, name, n DESC NULLS LAST, id LIMIT 9",
    "SELECT max(n), min(n), count(*) FROM T WHERE NOT gone",
    "SELECT lower(name), count(*) FROM T WHERE n > $ GROUP BY lower(name)",
];

/// Rows as text, in an order of their own where the query has none.
async fn rows(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let mut rows: Vec<Vec<Option<String>>> = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect())
            }
            _ => None,
        })
        .collect();
    if !sql.contains("ORDER BY") {
        rows.sort();
    }
    rows
}

/// A statement over `T`.
fn write(random: &mut StdRng) -> String {
    let id = random.random_range(0..120);
    let name = ["'a'", "'A'", "'b'", "'B'", "'c'", "'x'", "NULL"][random.random_range(0..7)];
    let n = match random.random_range(0..8) {
        0 => "NULL".to_owned(),
        _ => random.random_range(0..100).to_string(),
    };
    let v = ["NULL", "1", "1.50", "-2", "1.5"][random.random_range(0..5)];
    let gone = ["true", "false", "NULL"][random.random_range(0..3)];
    match random.random_range(0..10) {
        0..=3 => format!(
            "INSERT INTO T VALUES ({id}, {name}, {n}, {v}, {gone}) ON CONFLICT (id) DO UPDATE SET name = excluded.name, n = excluded.n"
        ),
        4 => format!("UPDATE T SET gone = {gone} WHERE id % 7 = {}", id % 7),
        5 => format!("UPDATE T SET name = {name}, v = {v} WHERE id = {id}"),
        6 => format!("UPDATE T SET n = n + 1 WHERE n < {}", id / 2),
        7 => format!("UPDATE T SET id = id + 1000 WHERE id = {id}"),
        8 => format!("DELETE FROM T WHERE id = {id}"),
        _ => format!("DELETE FROM T WHERE n = {n}"),
    }
}

async fn compare(client: &Client, random: &mut StdRng) {
    for query in QUERIES {
        let query = query.replace('$', &random.random_range(0..100).to_string());
        let expected = rows(client, &query.replace(" T", " plain")).await;
        for seqscan in ["on", "off"] {
            client.batch_execute(&format!("SET enable_seqscan = {seqscan}")).await.unwrap();
            let got = rows(client, &query.replace(" T", " t")).await;
            assert_eq!(got, expected, "{query} (enable_seqscan = {seqscan})");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_change_no_answer() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(0).await;
    let mut random = StdRng::seed_from_u64(seed());
    client.batch_execute(&format!("CREATE TABLE plain {TABLE}; CREATE TABLE t {TABLE}")).await.unwrap();
    for index in &INDEXES[..3] {
        client.batch_execute(index).await.unwrap();
    }
    let mut refused = 0;
    for round in 0..12 {
        if round == 4 {
            // The others are made when there are rows. What is unique must be so.
            client.batch_execute("DELETE FROM plain WHERE n > 40; DELETE FROM t WHERE n > 40").await.unwrap();
            for index in &INDEXES[3..] {
                client.batch_execute(index).await.unwrap();
            }
        }
        for _ in 0..40 {
            let statement = write(&mut random);
            // Within a block now and then: reads see what the transaction has written.
            let block = random.random_bool(0.3);
            if block {
                client.batch_execute("BEGIN").await.unwrap();
            }
            match client.batch_execute(&statement.replace(" T ", " t ")).await {
                Ok(()) => client.batch_execute(&statement.replace(" T ", " plain ")).await.unwrap(),
                Err(e) => {
                    let code = e.code().unwrap_or_else(|| panic!("{statement}: {e:?}")).code();
                    assert_eq!(code, "23505", "{statement}: {e:?}");
                    refused += 1;
                    if e.as_db_error().is_some_and(|e| e.constraint() == Some("i_once")) {
                        assert_made_alike(&client, &statement, block).await;
                    }
                }
            }
            if block {
                let end = if random.random_bool(0.5) { "COMMIT" } else { "ROLLBACK" };
                client.batch_execute(end).await.unwrap();
            }
        }
        compare(&client, &mut random).await;
    }
    println!("{refused} statements refused");
    // An expression's and a partial index's plans are there to be chosen.
    client.batch_execute("SET enable_seqscan = off").await.unwrap();
    for (query, index) in [
        ("SELECT * FROM t WHERE lower(name) = 'a'", "i_lower"),
        ("SELECT * FROM t WHERE NOT gone ORDER BY n DESC LIMIT 1", "i_live"),
        ("SELECT n, name FROM t WHERE n = 5", "Index Only Scan using i_named"),
    ] {
        let plan = format!("{:?}", rows(&client, &format!("EXPLAIN {query}")).await);
        assert!(plan.contains(index), "{query}: {plan}");
    }
    let twice = "SELECT lower(name), n % 50 FROM t WHERE gone IS FALSE AND n > 40 AND name IS NOT NULL \
                 GROUP BY 1, 2 HAVING count(*) > 1";
    assert_eq!(rows(&client, twice).await, Vec::<Vec<Option<String>>>::new());
}

/// The statement would have made two rows alike: it does so where no index minds.
async fn assert_made_alike(client: &Client, statement: &str, block: bool) {
    client.batch_execute(if block { "ROLLBACK; BEGIN" } else { "BEGIN" }).await.unwrap();
    // A failure of the primary key may come first.
    let _ = client.batch_execute(&statement.replace(" T ", " plain ")).await;
    let alike = "SELECT lower(name), n % 50 FROM plain WHERE gone IS FALSE AND n > 40 AND name IS NOT NULL \
                 GROUP BY 1, 2 HAVING count(*) > 1";
    assert!(!rows(client, alike).await.is_empty(), "{statement} was refused for nothing");
    client.batch_execute(if block { "ROLLBACK; BEGIN" } else { "ROLLBACK" }).await.unwrap();
}

const LEADERLESS: &str = "CREATE TABLE t (id integer PRIMARY KEY, name text, n integer, hits crdt_counter,
    tags crdt_set(text), kept crdt_rset(text), doc jsonb) WITH (replication = 'leaderless')";

const LEADERLESS_INDEXES: &[&str] = &[
    "CREATE INDEX l_name ON t (name, n DESC)",
    "CREATE INDEX l_tags ON t USING gin (tags)",
    "CREATE INDEX CONCURRENTLY l_hits ON t (hits DESC)",
    "CREATE INDEX l_kept ON t USING gin (kept array_ops)",
    "CREATE INDEX l_lower ON t (lower(name)) WHERE n > 10",
    "CREATE INDEX l_n ON t (n NULLS FIRST) INCLUDE (name)",
    "CREATE INDEX l_doc ON t ((doc->>'k'))",
];

/// Queries over the leaderless table, and the index that is for each.
const LEADERLESS_QUERIES: &[(&str, &str)] = &[
    ("SELECT id, n FROM t WHERE name = 'b' AND n > 20", "l_name"),
    ("SELECT name, n, id FROM t ORDER BY name, n DESC, id LIMIT 20", "l_name"),
    ("SELECT * FROM t WHERE tags @> ARRAY['x']", "l_tags"),
    ("SELECT id, tags FROM t WHERE 'y' = ANY (tags) AND n < 50", "l_tags"),
    ("SELECT id FROM t WHERE tags @> '{x,z}'", "l_tags"),
    ("SELECT id FROM t WHERE tags && ARRAY['z'] ORDER BY id", "l_tags"),
    ("SELECT id, kept FROM t WHERE ARRAY['x', 'y'] <@ kept", "l_kept"),
    ("SELECT hits, id FROM t ORDER BY hits DESC, id LIMIT 15", "l_hits"),
    ("SELECT id FROM t WHERE hits BETWEEN 2 AND 5", "l_hits"),
    ("SELECT id FROM t WHERE lower(name) = 'a' AND n > 10", "l_lower"),
    ("SELECT n, name FROM t WHERE n < 30", "Index Only Scan using l_n"),
    ("SELECT id FROM t WHERE doc->>'k' = '3'", "l_doc"),
    ("SELECT count(*), sum(n) FROM t WHERE n > 90", "l_n"),
];

/// A write to one row of the leaderless table.
fn leaderless_write(random: &mut StdRng) -> String {
    let id = random.random_range(0..150);
    let name = ["'a'", "'A'", "'b'", "'c'", "NULL"][random.random_range(0..5)];
    let n = random.random_range(0..100);
    let tag = ["x", "y", "z"][random.random_range(0..3)];
    match random.random_range(0..9) {
        0..=2 => format!(
            "INSERT INTO t (id, name, n) VALUES ({id}, {name}, {n}) ON CONFLICT (id) DO UPDATE SET name = excluded.name, n = excluded.n"
        ),
        3 => format!("UPDATE t SET hits = hits + {} WHERE id = {id}", n % 7),
        4 => format!(
            "UPDATE t SET tags = array_append(tags, '{tag}'), kept = kept || '{tag}'::text WHERE id = {id}"
        ),
        5 => format!(
            "UPDATE t SET tags = array_remove(tags, '{tag}'), kept = array_remove(kept, '{tag}') WHERE id = {id}"
        ),
        6 => format!(
            "UPDATE t SET n = NULL, doc = '{{\"k\": {}}}' WHERE name = {name} AND id % 9 = {}",
            n % 5,
            id % 9
        ),
        7 => format!("DELETE FROM t WHERE '{tag}' = ANY (tags) AND id % 13 = {}", id % 13),
        _ => format!("UPDATE t SET id = id + 1000 WHERE id = {id}"),
    }
}

/// Writes on each of these nodes at once.
async fn write_everywhere(cluster: &Arc<Cluster>, nodes: &[usize], random: &mut StdRng, statements: usize) {
    let writers = nodes.iter().map(|&node| {
        let (cluster, mut random) = (cluster.clone(), StdRng::seed_from_u64(random.random()));
        tokio::spawn(async move {
            let client = cluster.client(node).await;
            for _ in 0..statements {
                let statement = leaderless_write(&mut random);
                if let Err(e) = client.batch_execute(&statement).await {
                    let code = e.code().unwrap_or_else(|| panic!("{statement}: {e:?}")).code();
                    assert_eq!(code, "23505", "{statement}: {e:?}");
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

/// On every node the indexes give what the rows say, and the nodes say the same.
async fn assert_indexes_agree(cluster: &Cluster) {
    eventually("all nodes have the same rows", Duration::from_secs(60), || async {
        let mut contents = Vec::new();
        for node in 0..cluster.len() {
            contents.push(rows(&cluster.client(node).await, "SELECT * FROM t ORDER BY id").await);
        }
        contents.windows(2).all(|two| two[0] == two[1])
    })
    .await;
    for node in 0..cluster.len() {
        let client = cluster.client(node).await;
        for (query, index) in LEADERLESS_QUERIES {
            client.batch_execute("SET enable_indexscan = off; SET enable_indexonlyscan = off").await.unwrap();
            client.batch_execute("SET enable_seqscan = on").await.unwrap();
            let expected = rows(&client, query).await;
            client.batch_execute("RESET enable_indexscan; RESET enable_indexonlyscan").await.unwrap();
            client.batch_execute("SET enable_seqscan = off").await.unwrap();
            let plan = format!("{:?}", rows(&client, &format!("EXPLAIN {query}")).await);
            assert!(plan.contains(index), "{query}: {plan}");
            assert_eq!(rows(&client, query).await, expected, "{query} on node {node}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_keeps_the_indexes_of_a_leaderless_table() {
    let mut cluster = Arc::new(Cluster::start(3).await);
    let mut random = StdRng::seed_from_u64(seed());
    let client = cluster.client(0).await;
    client.batch_execute(LEADERLESS).await.unwrap();
    let load = "INSERT INTO t (id, name, n, tags) SELECT i, chr(97 + i % 3), i % 100, ARRAY['x'] FROM generate_series(0, 149) i";
    client.batch_execute(load).await.unwrap();
    for index in &LEADERLESS_INDEXES[..2] {
        client.batch_execute(index).await.unwrap();
    }
    // Indexes come and go while all nodes write.
    let (writers, others) = (cluster.clone(), StdRng::seed_from_u64(random.random()));
    let writing = tokio::spawn(async move {
        let mut random = others;
        write_everywhere(&writers, &[0, 1, 2], &mut random, 60).await;
    });
    for index in &LEADERLESS_INDEXES[2..] {
        client.batch_execute(index).await.unwrap();
    }
    client.batch_execute("DROP INDEX l_name").await.unwrap();
    client.batch_execute("REINDEX TABLE t").await.unwrap();
    writing.await.unwrap();
    // And while one of them hears of nothing.
    let leader = cluster.leader().await;
    let (alone, many) = ((leader + 1) % 3, [leader, (leader + 2) % 3]);
    cluster.partition(&[alone], &many).await;
    write_everywhere(&cluster, &[0, 1, 2], &mut random, 30).await;
    let client = cluster.client(leader).await;
    client.batch_execute(LEADERLESS_INDEXES[0]).await.unwrap();
    client.batch_execute("ALTER TABLE t ALTER COLUMN name SET (conflict = 'max')").await.unwrap();
    write_everywhere(&cluster, &[0, 1, 2], &mut random, 30).await;
    // One that crashes finds its entries as its rows are.
    let crashed = Arc::get_mut(&mut cluster).unwrap().node(many[1]);
    crashed.kill();
    crashed.start();
    cluster.wait_ready(many[1]).await;
    cluster.heal().await;
    assert_indexes_agree(&cluster).await;
    let refused = cluster.client(0).await.batch_execute("CREATE UNIQUE INDEX ON t (name)").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "0A000");
    assert!(refused.as_db_error().unwrap().hint().is_some());
}

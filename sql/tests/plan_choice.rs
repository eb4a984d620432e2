//! Whatever plan is chosen, the rows are the same: random queries, run as the planner likes and then with
//! kinds of operators switched off, before and after ANALYZE. `AMPHORA_SEED` repeats a run.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod memory;

use std::sync::Arc;

use amphora_sql::error::Result;
use amphora_sql::plan::Field;
use amphora_sql::session::{Notice, Output, Session, SessionOptions};
use amphora_sql::types::FormatContext;
use amphora_storage::{Datum, Row};
use async_trait::async_trait;
use memory::MemoryEngine;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const TABLES: usize = 4;
const QUERIES: usize = 150;
const SWITCHES: &[&str] =
    &["hashjoin", "nestloop", "mergejoin", "indexscan", "indexonlyscan", "seqscan", "sort", "hashagg"];
/// Queries over tables that do not fit into the smallest `work_mem`.
const LARGE_QUERIES: usize = 24;

#[derive(Default)]
struct Rows(Vec<Row>);

#[async_trait]
impl Output for Rows {
    fn fields(&mut self, _: &Arc<[Field]>, _: &[i16], _: &FormatContext) {}

    fn row(&mut self, row: &[Datum]) -> Result<()> {
        self.0.push(row.to_vec());
        Ok(())
    }

    async fn flush_if_full(&mut self) -> Result<()> {
        Ok(())
    }

    fn complete(&mut self, _: &str) {}

    fn suspended(&mut self) {}

    fn empty_query(&mut self) {}

    fn notice(&mut self, _: Notice) {}

    fn parameter_status(&mut self, _: &str, _: &str) {}
}

async fn run(session: &mut Session, sql: &str) -> std::result::Result<Vec<Row>, String> {
    let mut rows = Rows::default();
    match session.simple_query(sql, &mut rows).await {
        Ok(()) => Ok(rows.0),
        Err(error) => Err(format!("{} {}", error.sqlstate, error.message)),
    }
}

struct Generator(StdRng);

impl Generator {
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.choose(&mut self.0).copied().unwrap_or("a")
    }

    fn number(&mut self) -> i32 {
        self.0.random_range(-1..12)
    }

    fn column(&mut self, aliases: &[String]) -> String {
        let alias = aliases.choose(&mut self.0).unwrap().clone();
        format!("{alias}.{}", self.pick(&["id", "a", "b", "a", "b"]))
    }

    fn condition(&mut self, aliases: &[String], depth: u32) -> String {
        let (left, n, m) = (self.column(aliases), self.number(), self.number());
        match self.0.random_range(0..if depth < 2 { 14 } else { 8 }) {
            0 => format!("{left} = {n}"),
            1 => format!("{left} {} {n}", self.pick(&["<", "<=", ">", ">=", "<>"])),
            2 => format!("{left} = {}", self.column(aliases)),
            3 => format!("{left} IN ({n}, {m}, {n})"),
            4 => format!("{left} IS {}NULL", self.pick(&["", "NOT "])),
            5 => {
                let alias = aliases.choose(&mut self.0).unwrap().clone();
                format!("{alias}.s LIKE '{}'", self.pick(&["a%", "ab%", "%b", "a_c%", "b"]))
            }
            6 => {
                let alias = aliases.choose(&mut self.0).unwrap().clone();
                format!("({alias}.a, {alias}.b) {} ({n}, {m})", self.pick(&["<", ">", "<=", ">="]))
            }
            7 => format!("{left} = ANY (ARRAY[{n}, {m}])"),
            8 | 9 => {
                format!("({} OR {})", self.condition(aliases, depth + 1), self.condition(aliases, depth + 1))
            }
            10 => format!("NOT ({})", self.condition(aliases, depth + 1)),
            kind => {
                let table = self.0.random_range(0..TABLES);
                let inner = self.condition(&["z".to_owned()], 2);
                let column = self.pick(&["a", "b"]);
                let not = self.pick(&["", "NOT "]);
                match kind {
                    11 => format!(
                        "{not}EXISTS (SELECT 1 FROM t{table} z WHERE z.{column} = {left} AND {inner})"
                    ),
                    12 => format!("{left} {not}IN (SELECT z.{column} FROM t{table} z WHERE {inner})"),
                    _ => format!("{left} = (SELECT max(z.a) FROM t{table} z WHERE z.b = {left} AND {inner})"),
                }
            }
        }
    }

    fn query(&mut self) -> (String, bool) {
        let count = *[1, 2, 2, 3, 4].choose(&mut self.0).unwrap();
        let mut aliases = vec!["x0".to_owned()];
        let mut from = format!("t{} x0", self.0.random_range(0..TABLES));
        for i in 1..count {
            let join = self.pick(&["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
            let (own, other) = (self.pick(&["a", "b", "id"]), self.column(&aliases));
            from += &format!(" {join} t{} x{i} ON x{i}.{own} = {other}", self.0.random_range(0..TABLES));
            aliases.push(format!("x{i}"));
        }
        let conditions: Vec<String> =
            (0..self.0.random_range(0..3)).map(|_| self.condition(&aliases, 0)).collect();
        if !conditions.is_empty() {
            from += &format!(" WHERE {}", conditions.join(" AND "));
        }
        let (a, b) = (self.column(&aliases), self.column(&aliases));
        match self.0.random_range(0..6) {
            0 => (format!("SELECT {a}, count(*), min({b}) FROM {from} GROUP BY {a}"), false),
            1 => (format!("SELECT max({a}) FROM {from}"), false),
            2 => (format!("SELECT DISTINCT {a}, {b} FROM {from}"), false),
            3 => (format!("SELECT {a}, {b} FROM {from} ORDER BY {a} DESC, {b} LIMIT 7"), true),
            _ => (format!("SELECT {a}, {b} FROM {from}"), false),
        }
    }
}

/// What a test makes its data and queries from (AMPHORA_SEED, or any), and an empty database.
fn seeded() -> (u64, Generator, Session) {
    let seed = std::env::var("AMPHORA_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("AMPHORA_SEED={seed}");
    let options =
        SessionOptions { user: "ann".into(), database: "d".into(), backend_pid: 1, settings: Vec::new() };
    let session = Session::new(Arc::new(MemoryEngine::new()), options).unwrap();
    (seed, Generator(StdRng::seed_from_u64(seed)), session)
}

#[tokio::test]
async fn any_plan_gives_the_same_rows() {
    let (seed, mut random, mut session) = seeded();
    for t in 0..TABLES {
        run(&mut session, &format!("CREATE TABLE t{t} (id int PRIMARY KEY, a int, b int NOT NULL, s text)"))
            .await
            .unwrap();
        for columns in ["a", "b, a", "s", "a, b"] {
            if random.0.random_bool(0.4) {
                run(&mut session, &format!("CREATE INDEX ON t{t} ({columns})")).await.unwrap();
            }
        }
        for id in 0..random.0.random_range(0..40) {
            let a = if random.0.random_bool(0.2) { "NULL".into() } else { random.number().to_string() };
            let s = random.pick(&["'a'", "'ab'", "'abc'", "'b'", "NULL"]);
            let b = random.number();
            run(&mut session, &format!("INSERT INTO t{t} VALUES ({id}, {a}, {b}, {s})")).await.unwrap();
        }
    }
    for i in 0..QUERIES {
        if i == QUERIES / 2 {
            run(&mut session, "ANALYZE").await.unwrap();
        }
        let (sql, ordered) = random.query();
        let mut expected = run(&mut session, &sql).await;
        for _ in 0..3 {
            for _ in 0..2 {
                let switch = random.pick(SWITCHES);
                run(&mut session, &format!("SET enable_{switch} = off")).await.unwrap();
            }
            let mut got = run(&mut session, &sql).await;
            if !ordered {
                for rows in [&mut expected, &mut got].into_iter().flatten() {
                    rows.sort();
                }
            }
            let plan = run(&mut session, &format!("EXPLAIN {sql}")).await;
            assert_eq!(expected, got, "AMPHORA_SEED={seed}\n{sql}\n{plan:?}");
        }
        run(&mut session, "RESET ALL").await.unwrap();
    }
}

impl Generator {
    /// A query whose rows are many. Every order in it is of all columns that could tell two ways apart.
    fn large_query(&mut self) -> (String, bool) {
        let join = self.pick(&["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let (left, right) = (self.pick(&["id", "a", "b"]), self.pick(&["id", "a", "b"]));
        let n = self.0.random_range(0..40);
        let more = match self.0.random_range(0..5) {
            0 => format!("AND l.a = r.b + {n}"),
            1 => format!("AND l.id % 40 <> {n}"),
            2 => "AND l.a = r.a".into(),
            _ => String::new(),
        };
        let from = format!("big0 l {join} big1 r ON l.{left} = r.{right} {more}");
        let not = self.pick(&["", "NOT "]);
        let set = self.pick(&["UNION", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL"]);
        match self.0.random_range(0..12) {
            0 => (format!("SELECT l.id, l.s, r.id FROM {from}"), false),
            1 => (format!("SELECT count(*), sum(l.id), sum(r.id) FROM {from}"), false),
            2 => (
                format!(
                    "SELECT l.id, l.s FROM big0 l WHERE {not}EXISTS (SELECT FROM big1 r WHERE r.{right} = l.{left} {more})"
                ),
                false,
            ),
            3 => (
                format!(
                    "SELECT id, s FROM big0 WHERE {left} {not}IN (SELECT {right} FROM big1 WHERE b > {n})"
                ),
                false,
            ),
            4 => {
                (format!("SELECT s, {left} % 900, count(*), min(id), sum(b) FROM big0 GROUP BY 1, 2"), false)
            }
            5 => (
                format!(
                    "SELECT {left}, count(DISTINCT {right}), string_agg(s, '' ORDER BY id) FROM big1 GROUP BY 1"
                ),
                false,
            ),
            6 => ("SELECT DISTINCT s, a, b FROM big0".into(), false),
            7 => (format!("SELECT {left}, s FROM big0 {set} SELECT {right}, s FROM big1"), false),
            8 => (
                format!(
                    "WITH w AS MATERIALIZED (SELECT id, {left} AS k, s FROM big0) SELECT count(*), sum(x.id) FROM w x JOIN w y ON x.k = y.id"
                ),
                false,
            ),
            9 => (format!("SELECT DISTINCT ON ({left}) {left}, id, s FROM big0 ORDER BY {left}, id"), true),
            10 => (format!("SELECT l.id, r.id FROM {from} ORDER BY l.{left}, l.id, r.id LIMIT 50"), true),
            _ => (
                format!(
                    "SELECT id, s, rank() OVER (PARTITION BY {left} ORDER BY id), sum(b) OVER (PARTITION BY {right}) FROM big0"
                ),
                false,
            ),
        }
    }
}

/// What does not fit into `work_mem` goes to files, whatever the plan: the rows are the same.
#[tokio::test]
async fn files_give_the_same_rows() {
    let (seed, mut random, mut session) = seeded();
    for t in 0..2 {
        let (rows, kinds) = (random.0.random_range(1000..3000), random.0.random_range(2..2000));
        let skew = random.0.random_range(1..20);
        for sql in [
            format!("CREATE TABLE big{t} (id int PRIMARY KEY, a int, b bigint NOT NULL, s text)"),
            format!(
                "INSERT INTO big{t} SELECT i, nullif((i * 7919) % {kinds}, 3), CASE WHEN i % {skew} = 0 THEN 5 ELSE i / 2 END, repeat(chr(97 + i % 23), i % 60) FROM generate_series(1, {rows}) AS g(i)"
            ),
            format!("CREATE INDEX ON big{t} (b)"),
            "ANALYZE".into(),
        ] {
            run(&mut session, &sql).await.unwrap();
        }
    }
    let mut files = 0;
    for _ in 0..LARGE_QUERIES {
        let (sql, ordered) = random.large_query();
        run(&mut session, "SET work_mem = '1GB'").await.unwrap();
        let mut expected = run(&mut session, &sql).await;
        run(&mut session, &format!("SET work_mem = '{}kB'", random.pick(&["64", "64", "100", "300"])))
            .await
            .unwrap();
        for round in 0..3 {
            if round > 0 {
                let switch = random.pick(SWITCHES);
                run(&mut session, &format!("SET enable_{switch} = off")).await.unwrap();
            }
            let mut got = run(&mut session, &sql).await;
            if !ordered {
                for rows in [&mut expected, &mut got].into_iter().flatten() {
                    rows.sort();
                }
            }
            let plan = run(&mut session, &format!("EXPLAIN ANALYZE {sql}")).await.unwrap();
            assert_eq!(expected, got, "AMPHORA_SEED={seed}\n{sql}\n{plan:#?}");
            let plan = format!("{plan:?}");
            files += usize::from(plan.contains("Disk") || !plan.contains("Batches: 1 "));
        }
        run(&mut session, "RESET ALL").await.unwrap();
    }
    assert!(files > LARGE_QUERIES / 2, "AMPHORA_SEED={seed}: only {files} plans used files");
}

//! What a client may send that no client should: every answer is an error with a SQLSTATE, or an orderly end
//! of that one connection. The node goes on.
//!
//! Two fuzzers mutate what is valid, from a seed that they print: `AMPHORA_SEED=… cargo nextest run -p
//! amphora-tests bad_input` repeats a run. `make soak` runs them for minutes (`SOAK_MINUTES`).
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use amphora_tests::Cluster;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// No single answer may take longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message from the server: its kind and its body.
type Reply = (u8, Vec<u8>);

struct Wire(TcpStream);

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

impl Wire {
    fn raw(address: &str) -> Wire {
        let socket = TcpStream::connect(address).expect("the node listens");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Wire(socket)
    }

    fn connect(address: &str) -> Wire {
        let mut wire = Wire::raw(address);
        let body = b"\0\x03\0\0user\0amphora\0database\0amphora\0\0";
        let mut bytes = (body.len() as u32 + 4).to_be_bytes().to_vec();
        bytes.extend(body);
        wire.0.write_all(&bytes).unwrap();
        wire.until_ready().expect("let in");
        wire
    }

    fn next(&mut self) -> Option<Reply> {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        let mut body = vec![0; length - 4];
        self.0.read_exact(&mut body).ok()?;
        Some((head[0], body))
    }

    /// Everything up to ReadyForQuery; `None` if the connection ends before.
    fn until_ready(&mut self) -> Option<Vec<Reply>> {
        let mut replies = Vec::new();
        loop {
            let reply = self.next()?;
            let ready = reply.0 == b'Z';
            replies.push(reply);
            if ready {
                return Some(replies);
            }
        }
    }

    /// The SQLSTATE of a simple query; `00000` without an error.
    fn query(&mut self, sql: &[u8]) -> String {
        let mut body = sql.to_vec();
        body.push(0);
        self.0.write_all(&message(b'Q', &body)).unwrap();
        sqlstate(&self.until_ready().unwrap_or_else(|| panic!("no answer to {}", shown(sql))))
    }

    /// The SQLSTATE of a batch that Sync ends.
    fn batch(&mut self, messages: &[Vec<u8>]) -> String {
        let mut bytes = messages.concat();
        bytes.extend(message(b'S', b""));
        self.0.write_all(&bytes).unwrap();
        sqlstate(&self.until_ready().expect("ReadyForQuery after Sync"))
    }
}

fn shown(sql: &[u8]) -> String {
    String::from_utf8_lossy(&sql[..sql.len().min(200)]).into_owned()
}

fn sqlstate(replies: &[Reply]) -> String {
    let Some((_, body)) = replies.iter().find(|(kind, _)| *kind == b'E') else { return "00000".into() };
    let code = body.split(|b| *b == 0).find(|field| field.first() == Some(&b'C'));
    String::from_utf8_lossy(&code.expect("an error has a SQLSTATE")[1..]).into_owned()
}

fn still_works(address: &str) {
    assert_eq!(Wire::connect(address).query(b"SELECT 1"), "00000", "the node goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_are_too_much_are_errors() {
    let cluster = Cluster::start(1).await;
    let address = &cluster.nodes()[0].pg;
    let mut wire = Wire::connect(address);
    let deep = 10_000;
    let nested = |open: &str, close: &str| format!("SELECT {}1{}", open.repeat(deep), close.repeat(deep));
    for (open, close) in [
        ("(", ")"),
        ("(SELECT ", ")"),
        ("ARRAY[", "]"),
        ("abs(", ")"),
        ("ROW(", ")"),
        ("CASE WHEN true THEN ", " END"),
        ("NOT ", ""),
        ("- ", ""),
        ("", "::int"),
        ("", " COLLATE \"C\""),
        ("", " IS NULL"),
    ] {
        let sql = nested(open, close);
        assert_eq!(wire.query(sql.as_bytes()), "54001", "{open}…{close}");
    }
    let from = format!("SELECT * FROM {}t{}", "(SELECT * FROM ".repeat(deep), ") x".repeat(deep));
    assert_eq!(wire.query(from.as_bytes()), "54001");
    for (first, more) in
        [("1", " + 1"), ("'a'", " || 'a'"), ("true", " AND true"), ("true", " OR true"), ("1", " = 1")]
    {
        let sql = format!("SELECT {first}{}", more.repeat(100_000));
        assert_eq!(wire.query(sql.as_bytes()), "54001", "a chain of{more}");
        let bearable = format!("SELECT {first}{}", more.repeat(if more.len() > 5 { 5_000 } else { 1 }));
        assert!(
            matches!(wire.query(bearable.as_bytes()).as_str(), "00000" | "54001"),
            "a bearable chain of{more}"
        );
    }
    let chain: Vec<String> = (1..2_000).map(|i| format!("a{i} AS (SELECT * FROM a{})", i - 1)).collect();
    let with = format!("WITH a0 AS (SELECT 1), {} SELECT * FROM a1999", chain.join(", "));
    assert_eq!(wire.query(with.as_bytes()), "54001");
    let many: Vec<String> = (0..100_000).map(|i| i.to_string()).collect();
    assert_eq!(wire.query(format!("SELECT 1 WHERE 5 IN ({})", many.join(", ")).as_bytes()), "00000");
    let rows = many.join("), (");
    assert_eq!(wire.query(format!("SELECT count(*) FROM (VALUES ({rows})) v").as_bytes()), "00000");
    assert_eq!(wire.query(format!("SELECT {}", many.join(", ")).as_bytes()), "54011");
    assert_eq!(wire.query(format!("SELECT {}", "explain ".repeat(deep)).as_bytes()).len(), 5);
    assert_eq!(wire.query("PREPARE a AS ".repeat(100).as_bytes()), "42601");
    still_works(address);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_make_no_sense_are_errors() {
    let cluster = Cluster::start(1).await;
    let address = &cluster.nodes()[0].pg;
    let mut wire = Wire::connect(address);
    for (sql, expected) in [
        (&b"SELECT no_such_function(1)"[..], "42883"),
        (b"SELECT 1::no_such_type", "42704"),
        (b"SELECT '\xc3\x28'", "22021"),
        (b"SELECT '\xff'", "22021"),
        (b"SELECT chr(0)", "54000"),
        (b"SET client_encoding TO nonsense", "22023"),
        (b"SELECT $1", "42P02"),
        (b"SELECT $99999999999", "42P02"),
        (b"SELECT 'open", "42601"),
        (b"SELECT $$open", "42601"),
        (b"/* open", "42601"),
        (b"SELECT repeat('x', 2000000000)", "54000"),
        (b"SELECT 10::numeric ^ 1000000000", "22003"),
        (b"FETCH 1 FROM nobody", "34000"),
        (b"EXECUTE nobody", "26000"),
        (b"", "00000"),
    ] {
        assert_eq!(wire.query(sql), expected, "{}", shown(sql));
    }
    let mut large = b"SELECT '".to_vec();
    large.resize(63 << 20, b'x');
    large.push(b'\'');
    assert_eq!(wire.query(&large), "00000", "63 MB");
    large.resize(65 << 20, b'x');
    assert_eq!(wire.query(&large), "54000", "65 MB");
    still_works(address);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_in_the_wrong_state_are_errors() {
    let cluster = Cluster::start(1).await;
    let address = &cluster.nodes()[0].pg;
    let mut wire = Wire::connect(address);
    for (messages, expected) in [
        (vec![message(b'B', b"\0nobody\0\0\0\0\0\0\0")], "26000"),
        (vec![message(b'E', b"nobody\0\0\0\0\0")], "34000"),
        (vec![message(b'D', b"Snobody\0")], "26000"),
        (vec![message(b'D', b"Pnobody\0")], "34000"),
        (vec![message(b'D', b"X\0")], "08P01"),
        (vec![message(b'C', b"Snobody\0")], "00000"),
        (vec![message(b'd', b"data"), message(b'c', b""), message(b'f', b"why\0")], "00000"),
        (vec![message(b'P', b"\0SELECT 1; SELECT 2\0\0\0")], "42601"),
        (vec![message(b'P', b"\0SELECT $1\0\0\x01\x7f\xff\xff\xff")], "42704"),
        (vec![message(b'P', b"\0SELECT 1\0\xff\xff")], "08P01"),
        (vec![message(b'P', b"\0SELECT 1\0\0\0"), message(b'B', b"\0\0\0\0\0\x01\0\0\0\x01x\0\0")], "08P01"),
        (
            vec![
                message(b'P', b"\0SELECT $1::int\0\0\0"),
                message(b'B', b"\0\0\0\x01\0\x01\0\x01\0\0\0\x05xxxxx\0\0"),
            ],
            "22P03",
        ),
        (
            vec![message(b'P', b"\0SELECT $1::int\0\0\0"), message(b'B', b"\0\0\0\0\0\x01\0\0\0\x01x\0\0")],
            "22P02",
        ),
        (vec![message(b'P', b"\0SELECT 1\0\0\0"), message(b'B', b"\0\0\0\x05\0")], "08P01"),
        (vec![message(b'P', b"no end")], "08P01"),
        (vec![message(b'B', b"")], "08P01"),
        (vec![message(b'E', b"\0")], "08P01"),
    ] {
        assert_eq!(wire.batch(&messages), expected, "{messages:?}");
    }
    wire.0.write_all(&message(b'F', b"\0\0\0\x01\0\0\0\0\0\0")).unwrap();
    assert_eq!(sqlstate(&wire.until_ready().unwrap()), "0A000", "the function call protocol");
    // COPY that is not given data, but something else.
    assert_eq!(wire.query(b"CREATE TABLE copied (a int)"), "00000");
    for instead in [message(b'Q', b"SELECT 1\0"), message(b'f', b"no\0"), message(b'P', b"\0\0\0\0")] {
        wire.0.write_all(&message(b'Q', b"COPY copied FROM STDIN\0")).unwrap();
        assert_eq!(wire.next().unwrap().0, b'G');
        wire.0.write_all(&message(b'd', b"1\n")).unwrap();
        let expected = if instead[0] == b'f' { "57014" } else { "08P01" };
        wire.0.write_all(&instead).unwrap();
        assert_eq!(sqlstate(&wire.until_ready().unwrap()), expected);
    }
    // Lengths that cannot be end the connection: nobody knows where the next message begins.
    for garbage in [&b"Q\xff\xff\xff\xff"[..], b"Q\0\0\0\x03", b"S\0\x10\0\0", b"\x01\0\0\0\x04"] {
        let mut wire = Wire::connect(address);
        wire.0.write_all(garbage).unwrap();
        assert_eq!(sqlstate(&[wire.next().expect("an error")]), "08P01");
        assert!(wire.next().is_none(), "the connection ends");
    }
    for opening in [&b"\0\0\0\x08\x04\xd2\x16\x2f"[..], b"\0\0\0\x08\x04\xd2\x16\x30"] {
        let mut wire = Wire::raw(address);
        wire.0.write_all(opening).unwrap();
        let mut answer = [0];
        wire.0.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"N", "TLS and GSSAPI are declined");
    }
    let mut newer = Wire::raw(address);
    newer.0.write_all(b"\0\0\0\x16\0\x03\0\x02user\0amphora\0\0").unwrap();
    assert_eq!(
        newer.until_ready().expect("let in").first().map(|r| r.0),
        Some(b'v'),
        "3.2 is negotiated down"
    );
    still_works(address);
}

/// How long a fuzzer goes on: a moment in `make test`, minutes in `make soak`.
fn seed() -> u64 {
    let given = std::env::var("AMPHORA_SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(|| rand::rng().next_u64());
    println!("AMPHORA_SEED={seed}");
    seed
}

fn soak() -> Duration {
    let minutes = std::env::var("SOAK_MINUTES").ok().and_then(|m| m.parse().ok()).unwrap_or(10);
    // Two fuzzers share the time with the fault tests.
    Duration::from_secs(60 * minutes).min(Duration::from_secs(120))
}

/// Statements whose pieces the SQL fuzzer puts together anew.
const STATEMENTS: &[&str] = &[
    "SELECT a, count(*) FILTER (WHERE b > 1) FROM f GROUP BY ROLLUP (a) HAVING sum(b) > 0 ORDER BY 1 DESC NULLS LAST LIMIT 5",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 10) SELECT * FROM r",
    "INSERT INTO f (a, b) VALUES (1, 'x'), (2, DEFAULT) ON CONFLICT (a) DO UPDATE SET b = excluded.b WHERE f.a > 1 RETURNING *",
    "UPDATE f SET b = CASE WHEN a IN (1, 2, NULL) THEN 'y' ELSE lower(b) END FROM (SELECT 1 AS k) s WHERE f.a = s.k",
    "DELETE FROM f USING f AS g WHERE f.a = g.a AND g.b LIKE '%x\\_' RETURNING f.a::text || 'q'",
    "SELECT rank() OVER (PARTITION BY a ORDER BY b ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM f",
    "SELECT ARRAY[1, 2, NULL]::int[], '{\"a\": [1, 2]}'::jsonb -> 'a' ->> 0, interval '1 day 2:03' * 1.5",
    "SELECT * FROM f x LEFT JOIN LATERAL (SELECT x.a + 1 AS c) y ON true NATURAL JOIN f z WHERE EXISTS (SELECT 1)",
    "CREATE TABLE g (a int PRIMARY KEY, b varchar(3) NOT NULL DEFAULT 'x' CHECK (length(b) < 4), UNIQUE (a, b))",
    "DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT * FROM generate_series(1, 10) AS s(i)",
    "FETCH BACKWARD 3 FROM c; MOVE ABSOLUTE -2 IN c; CLOSE ALL",
    "PREPARE p (int, text) AS SELECT $1 + 1, $2; EXECUTE p (1, 'x'); DEALLOCATE p",
    "BEGIN ISOLATION LEVEL REPEATABLE READ; SAVEPOINT s; ROLLBACK TO s; COMMIT",
    "EXPLAIN (ANALYZE, FORMAT JSON, COSTS off) SELECT DISTINCT ON (a) * FROM f ORDER BY a, b",
    "COPY f (a, b) TO STDOUT WITH (FORMAT csv, HEADER, DELIMITER ';', FORCE_QUOTE (b))",
    "SELECT extract(epoch FROM timestamptz '2020-02-30 25:00+99'), to_char(now(), 'YYYY-\"x\"DDD'), date_trunc('week', date 'infinity')",
    "SELECT regexp_replace('aab', '(a*)(b)', E'\\\\2\\\\1', 'g'), substring('abc' FROM '#\"b#\"' FOR '#'), overlay('abc' PLACING 'x' FROM 2)",
    "SET search_path TO public, \"$user\"; SHOW ALL; RESET search_path",
    "SELECT 1 UNION SELECT 2 EXCEPT ALL (VALUES (1), (3)) INTERSECT TABLE f OFFSET 1 ROW FETCH FIRST 2 ROWS ONLY",
];

/// Tokens of a text, spaces included, so that they can be put together again.
fn pieces(sql: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for c in sql.chars() {
        match pieces.last_mut() {
            Some(last) if c.is_alphanumeric() && last.chars().all(char::is_alphanumeric) => last.push(c),
            _ => pieces.push(c.to_string()),
        }
    }
    pieces
}

fn mutated(random: &mut StdRng, corpus: &[Vec<String>]) -> Vec<u8> {
    let odd = [
        "(",
        ")",
        "'",
        "\"",
        "$$",
        "--",
        "/*",
        ";",
        ",",
        "::",
        "NULL",
        "-1",
        "9223372036854775808",
        "1e309",
        "''",
        "[",
        "]",
        "{",
        "*",
        ".",
        "\\",
        "$1",
        "DEFAULT",
        "ALL",
        "\u{0}",
        "\u{fffd}",
        "é",
        "NaN",
        "infinity",
        "%",
        "~",
    ];
    let mut sql = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=sql.len());
        let other = &corpus[random.random_range(0..corpus.len())];
        match random.random_range(0..6) {
            0 if at < sql.len() => {
                sql.remove(at);
            }
            1 => sql.insert(at, odd[random.random_range(0..odd.len())].to_owned()),
            2 if at < sql.len() => sql[at] = other[random.random_range(0..other.len())].clone(),
            3 => sql.truncate(at.max(1)),
            4 => {
                let from = random.random_range(0..other.len());
                let to = (from + random.random_range(1..12)).min(other.len());
                sql.splice(at..at, other[from..to].iter().cloned());
            }
            _ if at < sql.len() => {
                let piece = sql[at].repeat(random.random_range(2..40));
                sql[at] = piece;
            }
            _ => {}
        }
    }
    let mut bytes = sql.concat().into_bytes();
    if random.random_ratio(1, 20) && !bytes.is_empty() {
        let at = random.random_range(0..bytes.len());
        bytes[at] = random.random();
    }
    bytes.retain(|b| *b != 0);
    bytes
}

fn fuzz_sql(address: &str, seed: u64, until: impl Fn(u32) -> bool) {
    let mut random = StdRng::seed_from_u64(seed);
    let corpus: Vec<Vec<String>> = STATEMENTS.iter().map(|s| pieces(s)).collect();
    let mut wire = Wire::connect(address);
    assert_eq!(wire.query(b"CREATE TABLE IF NOT EXISTS f (a int PRIMARY KEY, b text)"), "00000");
    assert_eq!(wire.query(b"SET statement_timeout = '5s'"), "00000");
    let mut round = 0;
    while until(round) {
        round += 1;
        let sql = mutated(&mut random, &corpus);
        let state = if random.random_bool(0.5) {
            let mut body = sql.clone();
            body.push(0);
            wire.0.write_all(&message(b'Q', &body)).unwrap();
            // A COPY FROM that came about waits for data.
            wire.0.write_all(&message(b'f', b"no data\0")).unwrap();
            wire.until_ready().map(|replies| sqlstate(&replies))
        } else {
            let mut parse = vec![0];
            parse.extend(&sql);
            parse.extend(b"\0\0\0");
            let rest =
                [message(b'D', b"S\0"), message(b'B', b"\0\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\x05")];
            let mut bytes = message(b'P', &parse);
            bytes.extend(rest.concat());
            bytes.extend(message(b'f', b"no data\0"));
            bytes.extend(message(b'S', b""));
            wire.0.write_all(&bytes).unwrap();
            wire.until_ready().map(|replies| sqlstate(&replies))
        };
        let state =
            state.unwrap_or_else(|| panic!("round {round} of {seed}: the connection ended: {}", shown(&sql)));
        assert!(
            !state.starts_with("XX"),
            "round {round} of {seed}: {state} for {}",
            String::from_utf8_lossy(&sql)
        );
        assert_eq!(wire.query(b"ROLLBACK"), "00000");
    }
    println!("{round} statements");
}

fn fuzz_messages(address: &str, seed: u64, until: impl Fn(u32) -> bool) {
    let mut random = StdRng::seed_from_u64(seed);
    let valid = [
        message(b'Q', b"SELECT 1\0"),
        message(b'Q', b"COPY (SELECT 1) TO STDOUT\0"),
        message(b'P', b"s\0SELECT $1::int, $2::text\0\0\x01\0\0\0\x17"),
        message(b'B', b"p\0s\0\0\x01\0\0\0\x02\0\0\0\x01\x31\xff\xff\xff\xff\0\x01\0\x01"),
        message(b'D', b"Ss\0"),
        message(b'D', b"Pp\0"),
        message(b'E', b"p\0\0\0\0\x01"),
        message(b'C', b"Ss\0"),
        message(b'C', b"Pp\0"),
        message(b'H', b""),
        message(b'S', b""),
        message(b'd', b"1\tx\n"),
        message(b'c', b""),
        message(b'f', b"why\0"),
        message(b'F', b"\0\0\0\x01\0\0\0\0\0\0"),
    ];
    let mut round = 0;
    while until(round) {
        round += 1;
        let mut wire = Wire::connect(address);
        wire.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut bytes = Vec::new();
        for _ in 0..random.random_range(1..12) {
            let mut one = valid[random.random_range(0..valid.len())].clone();
            if random.random_bool(0.5) {
                let at = random.random_range(0..one.len());
                match random.random_range(0..4) {
                    0 => one[at] = random.random(),
                    1 => one.truncate(at),
                    2 => one.insert(at, random.random()),
                    // The body is wrong, the length is right.
                    _ => {
                        let at = random.random_range(5..one.len() + 1);
                        one.insert(at, random.random());
                        let length = (one.len() as u32 - 1).to_be_bytes();
                        one[1..5].copy_from_slice(&length);
                    }
                }
            }
            bytes.extend(one);
        }
        // The node may have hung up in the middle of it.
        let _ = wire.0.write_all(&bytes);
        let _ = wire.0.shutdown(std::net::Shutdown::Write);
        while let Some((kind, body)) = wire.next() {
            if kind == b'E' {
                let state = sqlstate(&[(kind, body)]);
                assert!(!state.starts_with("XX"), "round {round} of {seed}: {state} for {bytes:?}");
            }
        }
        if round % 50 == 0 {
            still_works(address);
        }
    }
    still_works(address);
    println!("{round} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutated_statements_are_answered() {
    let cluster = Cluster::start(1).await;
    fuzz_sql(&cluster.nodes()[0].pg, seed(), |round| round < 1_500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutated_messages_are_answered() {
    let cluster = Cluster::start(1).await;
    fuzz_messages(&cluster.nodes()[0].pg, seed(), |round| round < 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make soak"]
async fn soak_mutated_statements() {
    let cluster = Cluster::start(1).await;
    let end = Instant::now() + soak();
    fuzz_sql(&cluster.nodes()[0].pg, seed(), |_| Instant::now() < end);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make soak"]
async fn soak_mutated_messages() {
    let cluster = Cluster::start(1).await;
    let end = Instant::now() + soak();
    fuzz_messages(&cluster.nodes()[0].pg, seed(), |_| Instant::now() < end);
}

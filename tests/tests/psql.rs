//! psql as people use it: the tour of the README, `\d` and its kin, and errors as PostgreSQL words them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::process::{Command, Output};

use amphora_tests::{Cluster, Node};

/// One `psql -c`. Errors come with their SQLSTATE.
fn psql(node: &Node, sql: &str) -> Output {
    let (host, port) = node.pg.rsplit_once(':').unwrap();
    Command::new("psql")
        .args(["-X", "-h", host, "-p", port, "-U", "amphora", "-d", "amphora"])
        .args(["-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-c", sql])
        .env("PGCONNECT_TIMEOUT", "5")
        .output()
        .expect("psql runs")
}

fn says(node: &Node, sql: &str) -> String {
    let output = psql(node, sql);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{sql}\n{out}{err}");
    out.into_owned()
}

fn refuses(node: &Node, sql: &str) -> String {
    let output = psql(node, sql);
    assert!(!output.status.success(), "accepted: {sql}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The SQL blocks of the README's tour, in order.
fn tour() -> Vec<String> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let tour = readme.split("## Five minutes with psql").nth(1).unwrap();
    let tour = tour.split("\n## ").next().unwrap();
    tour.split("```sql\n").skip(1).map(|b| b.split("```").next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readmes_tour_works_as_written() {
    let cluster = Cluster::start(3).await;
    let blocks = tour();
    assert!(blocks.len() >= 4, "the tour has {} blocks", blocks.len());
    for (i, block) in blocks.iter().enumerate() {
        // What the first block makes on one node, the others use on the next.
        let node = &cluster.nodes()[usize::from(i > 0)];
        if i == 1 {
            // The reader takes a moment to type; leaderless rows take a few milliseconds.
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        says(node, block);
    }
    let joined = says(&cluster.nodes()[2], "SELECT owner, balance FROM accounts ORDER BY id");
    assert!(joined.contains("Ada   |      65") && joined.contains("Bob   |     130"), "{joined}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backslash_commands_describe_what_is_there() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes()[0];
    says(
        node,
        "CREATE TABLE orders (id bigint PRIMARY KEY, item text NOT NULL DEFAULT 'jar', qty int CHECK (qty > 0),
                              code text UNIQUE);
         CREATE INDEX orders_item ON orders (item, qty);
         CREATE TABLE views (page text PRIMARY KEY, n crdt_counter) WITH (replication = 'leaderless')",
    );
    let list = says(node, "\\dt");
    assert!(list.contains("public | orders | table | amphora"), "{list}");
    assert!(list.contains("public | views  | table | amphora"), "{list}");
    let all = says(node, "\\d");
    assert!(all.contains("orders"), "{all}");
    assert!(!all.contains("replication"), "the system's own views are no one's tables: {all}");
    let described = says(node, "\\d orders");
    for line in [
        "Table \"public.orders\"",
        " id     | bigint  |           | not null | ",
        " item   | text    |           | not null | 'jar'::text",
        "\"orders_pkey\" PRIMARY KEY, btree (id)",
        "\"orders_code_key\" UNIQUE CONSTRAINT, btree (code)",
        "\"orders_item\" btree (item, qty)",
        "Check constraints:",
        "\"orders_qty_check\" CHECK (qty > 0)",
    ] {
        assert!(described.contains(line), "{line:?} is missing in\n{described}");
    }
    let views = says(node, "\\d+ views");
    assert!(views.contains("replication=leaderless"), "{views}");
    let databases = says(node, "\\l");
    assert!(databases.contains("amphora") && databases.contains("postgres"), "{databases}");
    for command in ["\\di", "\\dn", "\\du", "\\dv", "\\ds", "\\conninfo", "\\d amphora.nodes", "\\dt+"] {
        says(node, command);
    }
}

/// Every describing command of psql 15, plain and with `+`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_describing_command_has_an_answer() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes()[0];
    says(
        node,
        "CREATE SCHEMA s; CREATE TABLE s.p (id serial PRIMARY KEY, name text UNIQUE, v numeric CHECK (v > 0));
         CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES s.p ON DELETE CASCADE); CREATE INDEX ON c (p);
         CREATE VIEW v AS SELECT id, name FROM s.p; CREATE SEQUENCE q; COMMENT ON TABLE c IS 'children'",
    );
    let plain = "d dA dAc dAf dAo dAp da db dc dC dd dD ddp dE des det deu dew df dF dFd dFp dFt dg di dl dL dm dn do \
                 dO dp dP drds dRp dRs ds dt dT du dv dx dX dy l z dconfig dS dtS diS dvS dfS";
    // Those that take no `+`.
    let bare = ["dd", "ddp", "dl", "dp", "drds", "z", "dS", "dtS", "diS", "dvS", "dfS", "dX"];
    let mut commands: Vec<String> = plain.split_whitespace().map(|c| format!("\\{c}")).collect();
    commands.extend(plain.split_whitespace().filter(|c| !bare.contains(c)).map(|c| format!("\\{c}+")));
    let of_objects =
        ["d s.p", "d+ s.p", "d c", "d+ c", "d v", "d+ v", "d q", "d s.p_pkey", "d+ s.p_pkey", "d pg_class"];
    commands.extend(of_objects.map(|c| format!("\\{c}")));
    commands.extend(["\\sv v", "\\sf abs(int)", "\\d s.*", "\\dt *.p", "\\df abs"].map(str::to_owned));
    for command in &commands {
        // psql fails with a word of its own where it finds nothing of a kind; what matters is its query.
        let output = psql(node, command);
        let err = String::from_utf8_lossy(&output.stderr);
        let found = output.status.success() || err.is_empty() || err.starts_with("Did not find any");
        assert!(found && !err.contains("ERROR"), "{command}: {err}");
    }
    assert!(says(node, "\\dAo btree integer_ops").contains("<(integer,integer)"));
    assert!(says(node, "\\dx+ amphora").contains("schema amphora"));
    let described = "SELECT pg_describe_object('pg_class'::regclass, 's.p'::regclass, 2)";
    assert!(says(node, described).contains("column name of table s.p"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_leaderless_table_cannot_keep_is_refused_with_advice() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes()[0];
    says(node, "CREATE TABLE parents (id int PRIMARY KEY)");
    let leaderless = "WITH (replication = 'leaderless')";
    for definition in [
        "(id int PRIMARY KEY, email text UNIQUE)",
        "(id int PRIMARY KEY, a int, b int, UNIQUE (a, b))",
        "(id int PRIMARY KEY, parent int REFERENCES parents (id))",
        "(id int PRIMARY KEY, parent int, FOREIGN KEY (parent) REFERENCES parents (id))",
        "(id int PRIMARY KEY, a int, b int, CHECK (a < b))",
        "(id int PRIMARY KEY, n crdt_counter CHECK (n >= 0))",
    ] {
        let error = refuses(node, &format!("CREATE TABLE t {definition} {leaderless}"));
        assert!(error.contains("0A000"), "{definition}: {error}");
        assert!(error.contains("HINT:"), "{definition} is refused without advice: {error}");
    }
    says(
        node,
        &format!("CREATE TABLE t (id int PRIMARY KEY, age int NOT NULL CHECK (age >= 0)) {leaderless}"),
    );
    let error = refuses(node, "INSERT INTO t VALUES (1, -1)");
    assert!(error.contains("23514"), "{error}");
    let error = refuses(node, "INSERT INTO t VALUES (1, NULL)");
    assert!(error.contains("23502"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_postgresqls() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes()[0];
    says(node, "CREATE TABLE t (k int PRIMARY KEY, v text NOT NULL); INSERT INTO t VALUES (1, 'a')");
    for (sql, code, words) in [
        ("SELEC 1", "42601", "syntax error at or near \"SELEC\""),
        ("SELECT * FROM nowhere", "42P01", "relation \"nowhere\" does not exist"),
        ("SELECT x FROM t", "42703", "column \"x\" does not exist"),
        ("SELECT 1/0", "22012", "division by zero"),
        ("SELECT 'a'::int", "22P02", "invalid input syntax for type integer: \"a\""),
        (
            "INSERT INTO t VALUES (1, 'b')",
            "23505",
            "duplicate key value violates unique constraint \"t_pkey\"",
        ),
        ("INSERT INTO t VALUES (1, 'b')", "23505", "Key (k)=(1) already exists."),
        (
            "INSERT INTO t VALUES (2, NULL)",
            "23502",
            "null value in column \"v\" of relation \"t\" violates not-null constraint",
        ),
        ("SELECT nosuch(1)", "42883", "function nosuch(integer) does not exist"),
        ("SELECT k FROM t GROUP BY v", "42803", "must appear in the GROUP BY clause"),
        ("SELECT 2147483647 + 1", "22003", "integer out of range"),
        ("CREATE TABLE t (k int)", "42P07", "relation \"t\" already exists"),
    ] {
        let error = refuses(node, sql);
        assert!(error.contains(code) && error.contains(words), "{sql}: {error}");
    }
}

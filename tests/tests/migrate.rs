//! Moving in and out: what pg_dump writes of PostgreSQL goes into Amphora, and what it writes of Amphora goes into
//! PostgreSQL and into another Amphora, as text and as an archive. Structure and data are the same everywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;
use std::process::Command;

use amphora_tests::Cluster;
use amphora_tests::postgres::{Postgres, programs};

/// A database such as people have: keys, sequences of every kind, a view, comments, schemas, odd values.
const SHOP: &str = r#"
    CREATE TABLE customer (
        id serial PRIMARY KEY, name varchar(40) NOT NULL, mail text UNIQUE, balance numeric(12,2) DEFAULT 0,
        tags text[], made timestamptz DEFAULT '2024-01-01 00:00+00', extra jsonb, CHECK (balance >= -100));
    CREATE TABLE purchase (
        id bigserial PRIMARY KEY,
        customer_id int NOT NULL REFERENCES customer ON DELETE CASCADE, item text, data bytea, lasts interval,
        CONSTRAINT purchase_once UNIQUE (customer_id, item));
    CREATE INDEX purchase_by_item ON purchase (item, customer_id);
    CREATE VIEW rich AS SELECT id, name FROM customer WHERE balance > 5;
    CREATE SEQUENCE counter START 7 INCREMENT 3;
    CREATE SCHEMA "Other";
    CREATE TABLE "Other"."T" (a int, b date DEFAULT '2024-01-01', "C d" double precision, key uuid, flag boolean);
    COMMENT ON TABLE customer IS 'who buys';
    COMMENT ON COLUMN customer.name IS 'on letters';
    INSERT INTO customer (name, mail, balance, tags, extra)
        VALUES ('Ann', 'a@example.org', 7.5, '{a,"b c",NULL}', '{"k": [1, null]}'), (E'B\tob\\', NULL, -1, NULL, NULL);
    INSERT INTO purchase (customer_id, item, data, lasts) VALUES (1, 'jar', '\x00ff', '1 day 02:03:04'), (2, '', '', NULL);
    INSERT INTO "Other"."T" VALUES (1, 'infinity', 'NaN', '00000000-0000-0000-0000-000000000001', true), (NULL, NULL, 0.1, NULL, NULL);
    SELECT nextval('counter'), nextval('counter');
"#;

/// What a database holds, as text: rows, then structure, then what its sequences give next.
const CONTENTS: &str = r#"
    SELECT * FROM customer ORDER BY id; SELECT * FROM purchase ORDER BY id; SELECT * FROM "Other"."T" ORDER BY a;
    SELECT * FROM rich ORDER BY id;
    SELECT table_schema, table_name, column_name, data_type, is_nullable, is_identity, identity_generation, identity_increment
        FROM information_schema.columns WHERE table_schema IN ('public', 'Other') ORDER BY 1, 2, ordinal_position;
    SELECT conname, contype, conrelid::regclass, confrelid::regclass, conkey, confkey, confdeltype FROM pg_constraint
        WHERE connamespace IN ('public'::regnamespace, '"Other"'::regnamespace) ORDER BY 1;
    SELECT schemaname, tablename, indexname FROM pg_indexes WHERE schemaname IN ('public', 'Other') ORDER BY 1, 2, 3;
    SELECT obj_description('customer'::regclass), col_description('customer'::regclass, 2);
    SELECT schemaname, sequencename, start_value, increment_by, last_value FROM pg_sequences ORDER BY 1, 2;
    INSERT INTO customer (name) VALUES ('next') RETURNING id; INSERT INTO purchase (customer_id) VALUES (1) RETURNING id;
    SELECT nextval('counter');
"#;

/// Runs one of PostgreSQL's programs against a server, and gives what it prints.
fn run(program: &str, server: &str, database: &str, arguments: &[&str]) -> String {
    let (host, port) = server.rsplit_once(':').unwrap();
    let output = Command::new(programs().join(program))
        .args(arguments)
        .env("PGHOST", host)
        .env("PGPORT", port)
        .env("PGUSER", "amphora")
        .env("PGDATABASE", database)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{program} {arguments:?} on {server}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The contents. Asking takes the next value of every sequence, so each database is asked once.
fn contents(server: &str, database: &str) -> String {
    run("psql", server, database, &["-X", "-q", "-A", "-v", "ON_ERROR_STOP=1", "-c", CONTENTS])
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dumps_of_either_are_restored_in_either() {
    let (postgres, first, second) = tokio::join!(Postgres::start(), Cluster::start(1), Cluster::start(1));
    let scratch = tempfile::tempdir().unwrap();
    let file = |name: &str| scratch.path().join(name);
    let (from, first, second) = (postgres.address(), &first.nodes()[0].pg, &second.nodes()[0].pg);
    let stop = ["-X", "-q", "-v", "ON_ERROR_STOP=1"];
    let psql = |server: &str, database: &str, script: &Path| {
        run("psql", server, database, &[&stop[..], &["-o", "/dev/null", "-f", text(script)]].concat());
    };

    // PostgreSQL to Amphora, as text.
    run("psql", &from, "amphora", &[&stop[..], &["-o", "/dev/null", "-c", SHOP]].concat());
    let plain = file("plain.sql");
    run("pg_dump", &from, "amphora", &["--no-owner", "-f", text(&plain)]);
    psql(first, "amphora", &plain);

    // Amphora to Amphora, as an archive; and to PostgreSQL, as text: the structure, then the data.
    let archive = file("archive");
    run("pg_dump", first, "amphora", &["-Fc", "--no-owner", "-f", text(&archive)]);
    run("pg_restore", second, "amphora", &["-d", "amphora", "--exit-on-error", "--no-owner", text(&archive)]);
    postgres.create_database("back").await;
    let (structure, data) = (file("structure.sql"), file("data.sql"));
    run("pg_dump", first, "amphora", &["--schema-only", "--no-owner", "-f", text(&structure)]);
    run("pg_dump", first, "amphora", &["--data-only", "-f", text(&data)]);
    psql(&from, "back", &structure);
    psql(&from, "back", &data);
    postgres.create_database("archived").await;
    run("pg_restore", &from, "amphora", &["-d", "archived", "--exit-on-error", "--no-owner", text(&archive)]);

    // A restore over what is there, from PostgreSQL's archive.
    let other = file("other");
    run("pg_dump", &from, "amphora", &["-Fc", "--no-owner", "-f", text(&other)]);
    let over =
        ["-d", "amphora", "--clean", "--if-exists", "--exit-on-error", "--no-owner", "--single-transaction"];
    run("pg_restore", second, "amphora", &[&over[..], &[text(&other)]].concat());

    let expected = contents(&from, "amphora");
    assert!(expected.contains("a@example.org") && expected.contains("purchase_by_item"), "{expected}");
    for (server, database) in
        [(first.as_str(), "amphora"), (&from, "back"), (&from, "archived"), (second, "amphora")]
    {
        assert_eq!(contents(server, database), expected, "{server} {database}");
    }
}

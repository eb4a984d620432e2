//! The drivers and frameworks people use, each with its own program (`tests/drivers`), against real nodes.
//!
//! The programs know nothing of Amphora and pass on PostgreSQL 15 as they are.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

use amphora_tests::Cluster;

/// Debian's PostgreSQL JDBC driver.
const JDBC: &str = "/usr/share/java/postgresql.jar";

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers")
}

/// Where the pinned drivers are installed; installs them first if need be.
fn installed() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/drivers.sh");
    let output = Command::new(script).output().expect("scripts/drivers.sh runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the drivers are not installed (run `make setup`): {error}");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// Starts a node and runs a program against it.
async fn passes(command: &mut Command) {
    passes_on(&Cluster::start(1).await, 0, command);
}

/// Starts three nodes and runs a program against one that does not lead.
async fn passes_on_a_follower(command: &mut Command) {
    let cluster = Cluster::start(3).await;
    let follower = (cluster.leader().await + 1) % 3;
    passes_on(&cluster, follower, command);
}

fn passes_on(cluster: &Cluster, node: usize, command: &mut Command) {
    let (host, port) = cluster.nodes()[node].pg.rsplit_once(':').unwrap();
    let (user, database, password) = ("amphora", "amphora", "unasked");
    command
        .env("PGHOST", host)
        .env("PGPORT", port)
        .env("PGUSER", user)
        .env("PGDATABASE", database)
        .env("PGPASSWORD", password)
        .env("DATABASE_URL", format!("postgresql://{user}:{password}@{host}:{port}/{database}"))
        .env(
            "DATABASE_KEYWORDS",
            format!("host={host} port={port} user={user} password={password} dbname={database}"),
        );
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; run `make setup`"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
}

async fn python(program: &str) {
    let python = installed().join("python/bin/python");
    passes(Command::new(python).arg(programs().join("python").join(program))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg_3() {
    python("psycopg3_program.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_types_through_three_drivers() {
    python("user_types_program.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg2() {
    python("psycopg2_program.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asyncpg() {
    python("asyncpg_program.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlalchemy() {
    python("sqlalchemy_program.py").await;
}

async fn node(program: &str) {
    let modules = installed().join("node_modules");
    passes(Command::new("node").env("NODE_PATH", modules).arg(programs().join("node").join(program))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn django() {
    let python = installed().join("python/bin/python");
    passes_on_a_follower(Command::new(python).arg(programs().join("python/django_program.py"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alembic() {
    python("alembic_program.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_postgres() {
    node("program.js").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typeorm() {
    node("typeorm_program.js").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequelize() {
    node("sequelize_program.js").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn knex() {
    node("knex_program.js").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drizzle() {
    node("drizzle_program.js").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn active_record() {
    passes_on_a_follower(Command::new("ruby").arg(programs().join("ruby/program.rb"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jdbc() {
    assert!(Path::new(JDBC).exists(), "{JDBC} is missing: run `make setup`");
    passes(Command::new("java").args(["-cp", JDBC]).arg(programs().join("java/Program.java"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dbd_pg() {
    passes(Command::new("perl").arg(programs().join("perl/program.pl"))).await;
}

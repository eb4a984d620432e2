//! Roles and passwords: who is let in, on every node.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use amphora_tests::{Cluster, Node, eventually};
use tokio_postgres::{Client, Config, NoTls};

async fn connect(node: &Node, user: &str, password: &str) -> Result<Client, tokio_postgres::Error> {
    let (host, port) = node.pg.rsplit_once(':').unwrap();
    let mut config = Config::new();
    config.host(host).port(port.parse().unwrap()).user(user).dbname("amphora");
    if !password.is_empty() {
        config.password(password);
    }
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The SQLSTATE with which a client is sent away.
async fn refused(node: &Node, user: &str, password: &str) -> String {
    let error = connect(node, user, password).await.map(drop).expect_err("a stranger was let in");
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

async fn fails(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.expect_err(sql);
    let error = error.as_db_error().expect("an error of the server");
    format!("{} {}", error.code().code(), error.message())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_asked_for_on_every_node() {
    let cluster = Cluster::start(3).await;
    let [one, _, three] = cluster.nodes() else { panic!("three nodes") };
    let admin = cluster.client(0).await;
    assert_eq!(refused(three, "app", "secret").await, "28000", "no role, and no password anywhere");
    admin.batch_execute("CREATE ROLE app LOGIN PASSWORD 'se''cret'").await.unwrap();
    eventually("node 3 knows the role", Duration::from_secs(5), || async {
        connect(three, "app", "se'cret").await.is_ok()
    })
    .await;
    for wrong in ["secret", "x"] {
        assert_eq!(refused(three, "app", wrong).await, "28P01");
    }
    assert_eq!(refused(three, "nobody", "x").await, "28P01", "who exists is not told");
    assert!(connect(one, "amphora", "").await.is_ok(), "the first superuser stays until it has a password");

    let app = connect(three, "app", "se'cret").await.unwrap();
    app.batch_execute("CREATE TABLE mine (k int PRIMARY KEY)").await.unwrap();
    let superuser = app.query_one("SHOW is_superuser", &[]).await.unwrap();
    assert_eq!(superuser.get::<_, &str>(0), "off");
    let owner: String =
        app.query_one("SELECT tableowner FROM pg_tables WHERE tablename = 'mine'", &[]).await.unwrap().get(0);
    assert_eq!(owner, "app");
    assert_eq!(fails(&app, "CREATE ROLE other").await, "42501 permission denied to create role");
    assert!(fails(&app, "ALTER ROLE amphora PASSWORD 'x'").await.starts_with("42501"));
    app.batch_execute("ALTER ROLE app PASSWORD 'newer'").await.unwrap();
    assert_eq!(refused(three, "app", "se'cret").await, "28P01");

    // As psql's \password sends it: hashed by the client. The password is "pencil" (RFC 7677).
    let ready_made = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
         WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    admin.batch_execute(&format!("ALTER USER amphora PASSWORD '{ready_made}'")).await.unwrap();
    eventually("amphora is asked too", Duration::from_secs(5), || async {
        connect(one, "amphora", "").await.is_err()
    })
    .await;
    assert!(connect(one, "amphora", "pencil").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_are_made_altered_and_dropped() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes()[0];
    let admin = cluster.client(0).await;
    for (sql, error) in [
        ("CREATE ROLE pg_mine", "42939 role name \"pg_mine\" is reserved"),
        ("CREATE ROLE amphora", "42710 role \"amphora\" already exists"),
        ("CREATE ROLE a LOGIN NOLOGIN", "42601 conflicting or redundant options"),
        ("CREATE ROLE a WINGS", "42601 unrecognized role option \"wings\""),
        ("CREATE ROLE a PASSWORD 'md5d41d8cd98f00b204e9800998ecf8427e'", "0A000"),
        ("ALTER ROLE nobody LOGIN", "42704 role \"nobody\" does not exist"),
        ("DROP ROLE nobody", "42704 role \"nobody\" does not exist"),
        ("DROP ROLE amphora", "55006 current user cannot be dropped"),
        ("DROP ROLE postgres", "2BP01"),
        ("ALTER ROLE postgres NOLOGIN", "42501"),
    ] {
        let message = fails(&admin, sql).await;
        assert!(message.starts_with(error), "{sql}: {message}");
    }
    admin
        .batch_execute(
            "BEGIN; CREATE ROLE gone; ROLLBACK;
             CREATE USER u PASSWORD 'p'; CREATE ROLE r; ALTER ROLE r SUPERUSER CREATEDB;
             CREATE ROLE late LOGIN PASSWORD 'p' VALID UNTIL '2001-01-01'; DROP ROLE IF EXISTS gone",
        )
        .await
        .unwrap();
    let rows = admin
        .query("SELECT rolname::text, rolcanlogin, rolsuper FROM pg_roles WHERE oid >= 16384 ORDER BY 1", &[])
        .await
        .unwrap();
    let rows: Vec<(String, bool, bool)> = rows.iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect();
    let expected = [("late", true, false), ("r", false, true), ("u", true, false)];
    assert_eq!(rows, expected.map(|(name, login, superuser)| (name.to_owned(), login, superuser)));
    assert_eq!(refused(node, "late", "p").await, "28P01", "its password has expired");
    assert_eq!(refused(node, "r", "x").await, "28P01", "it has no password, and others have");

    let u = connect(node, "u", "p").await.unwrap();
    u.batch_execute("CREATE TABLE t (k int PRIMARY KEY)").await.unwrap();
    assert!(fails(&admin, "DROP ROLE u").await.starts_with("2BP01"));
    admin.batch_execute("DROP TABLE t; ALTER ROLE u RENAME TO v; ALTER ROLE v NOLOGIN").await.unwrap();
    assert_eq!(refused(node, "v", "p").await, "28000", "it may not log in");
    admin.batch_execute("DROP ROLE v, r, late").await.unwrap();
    assert_eq!(refused(node, "u", "p").await, "28000");
}

//! Sessions of all nodes: they see, cancel and end each other, as far as their roles may.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::{Duration, Instant};

use amphora_tests::{Cluster, Node, eventually};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

async fn asks(client: &Client, sql: &str) -> bool {
    client.query_one(sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
}

fn code(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

/// A session, and what it is told beside its results.
async fn connect(node: &Node, user: &str) -> (Client, mpsc::UnboundedReceiver<String>) {
    let (host, port) = node.pg.rsplit_once(':').unwrap();
    let mut config = Config::new();
    config.host(host).port(port.parse().unwrap()).user(user).dbname("amphora").application_name(user);
    let (client, mut connection) = config.connect(NoTls).await.unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = futures::stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notice(notice) = message {
                let _ = tell.send(format!("{}: {}", notice.severity(), notice.message()));
            }
        }
    });
    (client, told)
}

/// Waits until a session is told something, whatever else it is told before.
async fn hears(told: &mut mpsc::UnboundedReceiver<String>, wanted: &str) {
    let heard = async {
        while let Some(message) = told.recv().await {
            if message == wanted {
                return;
            }
        }
        panic!("the session has ended");
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, heard).await.unwrap_or_else(|_| panic!("was not told: {wanted}"));
}

async fn pid(client: &Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_see_cancel_and_end_each_other() {
    let cluster = Cluster::start(1).await;
    let (one, two) = (cluster.client(0).await, cluster.client(0).await);
    two.batch_execute("SET application_name = 'sleeper'").await.unwrap();
    two.batch_execute("BEGIN; SELECT 1").await.unwrap();
    let query = "SELECT pid, state, query FROM pg_stat_activity WHERE application_name = 'sleeper'";
    let row = one.query_one(query, &[]).await.unwrap();
    let pid: i32 = row.get(0);
    assert_eq!((row.get::<_, &str>(1), row.get::<_, &str>(2)), ("idle in transaction", "SELECT 1"));
    two.batch_execute("ROLLBACK").await.unwrap();
    let row = one.query_one(query, &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>(1), row.get::<_, &str>(2)), ("idle", "ROLLBACK"));
    let asleep = two.batch_execute("SELECT pg_sleep(30)");
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let row = one.query_one(query, &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(1), "active");
        asks(&one, &format!("SELECT pg_cancel_backend({pid})")).await
    };
    let (slept, cancelled) = tokio::join!(asleep, cancel);
    assert!(cancelled);
    assert_eq!(slept.unwrap_err().code().unwrap().code(), "57014");
    assert!(asks(&one, &format!("SELECT pg_terminate_backend({pid})")).await);
    eventually("it is gone", Duration::from_secs(5), || async {
        two.batch_execute("SELECT 1").await.is_err()
    })
    .await;
    assert!(!asks(&one, &format!("SELECT pg_terminate_backend({pid})")).await, "there is no such session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_of_other_nodes_are_seen_cancelled_and_ended() {
    let mut cluster = Cluster::start(3).await;
    cluster.client(0).await.batch_execute("CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN").await.unwrap();
    let known = "SELECT count(*) = 2 FROM pg_roles WHERE rolname IN ('ann', 'bob')";
    for index in 1..3 {
        let client = cluster.client(index).await;
        eventually("the roles are known", Duration::from_secs(10), || asks(&client, known)).await;
    }
    let (root, mut told) = connect(&cluster.nodes()[0], "amphora").await;
    let (ann, mut told_ann) = connect(&cluster.nodes()[1], "ann").await;
    let (bob, _) = connect(&cluster.nodes()[2], "bob").await;
    let (ann_pid, bob_pid, root_pid) = (pid(&ann).await, pid(&bob).await, pid(&root).await);
    let id = cluster.id(2).await;

    // Who is there: pids of different nodes differ, and say where a session is.
    bob.batch_execute("SELECT pg_advisory_lock(77)").await.unwrap();
    let soon = Duration::from_secs(20);
    let there = format!("SELECT count(*) = 1 FROM amphora.sessions WHERE pid = {bob_pid} AND node_id = {id}");
    eventually("bob is seen", soon, || asks(&root, &there)).await;
    let all = format!(
        "SELECT count(DISTINCT pid) = 3 FROM pg_stat_activity WHERE pid IN ({ann_pid}, {bob_pid}, {root_pid})"
    );
    eventually("root sees all", soon, || asks(&root, &all)).await;
    eventually("ann sees all", soon, || asks(&ann, &all)).await;
    let locked = format!("SELECT count(*) = 1 FROM pg_locks WHERE objid = 77 AND pid = {bob_pid}");
    eventually("ann sees his lock", soon, || asks(&ann, &locked)).await;
    // Others see that a session is there, and not what it does.
    for (client, query) in [(&root, "SELECT pg_advisory_lock(77)"), (&ann, "<insufficient privilege>")] {
        let shown =
            format!("SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = {bob_pid} AND query = '{query}'");
        eventually("his statement is seen as it may be", soon, || asks(client, &shown)).await;
    }

    // Who may: superusers all, others their own.
    for (function, pid, why) in [
        (
            "cancel",
            bob_pid,
            "must be a member of the role whose query is being canceled or member of pg_signal_backend",
        ),
        (
            "terminate",
            bob_pid,
            "must be a member of the role whose process is being terminated or member of pg_signal_backend",
        ),
        ("cancel", root_pid, "must be a superuser to cancel superuser query"),
        ("terminate", root_pid, "must be a superuser to terminate superuser process"),
    ] {
        let error = ann.query_one(&format!("SELECT pg_{function}_backend({pid})"), &[]).await.unwrap_err();
        assert_eq!((code(&error).as_str(), error.as_db_error().unwrap().message()), ("42501", why));
    }
    let sleeping = format!(
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = {bob_pid} AND state = 'active' AND query LIKE '%sleep%'"
    );
    let asleep = bob.batch_execute("SELECT pg_sleep(60)");
    let cancel = async {
        eventually("bob sleeps", soon, || asks(&root, &sleeping)).await;
        let cancel = format!("SELECT pg_cancel_backend({bob_pid})");
        eventually("bob is cancelled", soon, || asks(&root, &cancel)).await;
    };
    let (slept, ()) = tokio::join!(asleep, cancel);
    assert_eq!(code(&slept.unwrap_err()), "57014");
    // A client's own request may go to any node, with the secret.
    let token = bob.cancel_token();
    let asleep = bob.batch_execute("SELECT pg_sleep(60)");
    let elsewhere = cluster.nodes()[0].pg.clone();
    let cancel = async {
        eventually("bob sleeps", soon, || asks(&root, &sleeping)).await;
        let socket = tokio::net::TcpStream::connect(&elsewhere).await.unwrap();
        token.cancel_query_raw(socket, NoTls).await.unwrap();
    };
    let (slept, ()) = tokio::join!(asleep, cancel);
    assert_eq!(code(&slept.unwrap_err()), "57014");

    // His own, from another node; a lock of his is free then.
    let (bob_too, _) = connect(&cluster.nodes()[0], "bob").await;
    assert!(asks(&bob_too, &format!("SELECT pg_terminate_backend({bob_pid}, 10000)")).await);
    assert!(bob.batch_execute("SELECT 1").await.is_err());
    let free = "SELECT pg_try_advisory_lock(77)";
    eventually("his lock is free", Duration::from_secs(10), || asks(&ann, free)).await;

    // Nobody.
    assert!(!asks(&ann, &format!("SELECT pg_cancel_backend({bob_pid})")).await);
    assert!(!asks(&ann, "SELECT pg_terminate_backend(2147483647)").await);
    hears(&mut told_ann, &format!("WARNING: PID {bob_pid} is not a PostgreSQL backend process")).await;
    hears(&mut told_ann, "WARNING: PID 2147483647 is not a PostgreSQL backend process").await;
    let error = root.query_one("SELECT pg_terminate_backend(1, -1)", &[]).await.unwrap_err();
    assert_eq!(code(&error), "22003");

    // A node that stands still, or is gone, does not keep the others from answering.
    let (lost, _) = connect(&cluster.nodes()[2], "ann").await;
    let lost_pid = pid(&lost).await;
    cluster.node(2).pause();
    // The first may still have been answered.
    let silent = format!("WARNING: node {id} does not answer: its sessions are left out");
    let until = Instant::now() + soon;
    loop {
        let start = Instant::now();
        assert!(asks(&root, "SELECT count(*) > 0 FROM pg_stat_activity").await);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        if std::iter::from_fn(|| told.try_recv().ok()).any(|message| message == silent) {
            break;
        }
        assert!(Instant::now() < until, "was not told: {silent}");
    }
    assert!(!asks(&root, &format!("SELECT pg_cancel_backend({lost_pid})")).await);
    let silent = format!("WARNING: could not send signal to process {lost_pid}: node {id} does not answer");
    hears(&mut told, &silent).await;
    cluster.node(2).kill();
    let node = format!("SELECT count(*) = 0 FROM amphora.sessions WHERE node_id = {id}");
    assert!(asks(&root, &node).await);
}

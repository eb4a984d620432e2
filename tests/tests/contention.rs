//! Sessions that want the same thing at the same moment, through all nodes: constraints hold at every level, nobody waits
//! in a circle for longer than a second, and what a session held is free when it is gone.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use amphora_tests::list_append::Level;
use amphora_tests::{Cluster, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::{Client, Error};

const LEVELS: [Level; 3] = [Level::ReadCommitted, Level::RepeatableRead, Level::Serializable];

fn code(error: &Error) -> String {
    error.as_db_error().map_or_else(|| format!("{error:?}"), |e| e.code().code().to_owned())
}

/// Runs a transaction at a level; the SQLSTATE if it fails. The session is ready for the next one.
async fn transact(client: &Client, level: Level, statements: &[String]) -> Result<(), String> {
    let run = async {
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {}", level.sql())).await?;
        for statement in statements {
            client.batch_execute(statement).await?;
        }
        client.batch_execute("COMMIT").await
    };
    match run.await {
        Ok(()) => Ok(()),
        Err(e) => {
            client.batch_execute("ROLLBACK").await.unwrap();
            Err(code(&e))
        }
    }
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
}

/// One client for each of `n` workers, spread over the nodes.
async fn clients(cluster: &Cluster, n: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for worker in 0..n {
        clients.push(cluster.client(worker % cluster.len()).await);
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_each_value_one_row_gets_in_at_every_level() {
    let cluster = Cluster::start(3).await;
    let clients = clients(&cluster, 6).await;
    for level in LEVELS {
        clients[0]
            .batch_execute(
                "DROP TABLE IF EXISTS names;
                 CREATE TABLE names (id int PRIMARY KEY, name int UNIQUE, a int, b text, UNIQUE (a, b))",
            )
            .await
            .unwrap();
        for round in 0..12i32 {
            let attempts = clients.iter().enumerate().map(|(n, client)| async move {
                let id = round * 100 + n as i32;
                // By one constraint, by another, or both the same.
                let sql = match round % 3 {
                    0 => format!("INSERT INTO names VALUES ({id}, {round}, {id}, 'x')"),
                    1 => format!("INSERT INTO names VALUES ({id}, {id}, {round}, 'y')"),
                    _ => format!("INSERT INTO names VALUES ({round}, {id}, {id}, 'z')"),
                };
                transact(client, level, &[sql]).await
            });
            let outcomes = futures::future::join_all(attempts).await;
            let done = outcomes.iter().filter(|o| o.is_ok()).count();
            assert_eq!(done, 1, "{level:?}, round {round}: {outcomes:?}");
            for outcome in outcomes.into_iter().filter_map(Result::err) {
                let expected = outcome == "23505" || (level > Level::ReadCommitted && outcome == "40001");
                assert!(expected, "{level:?}, round {round}: {outcome}");
            }
        }
        for client in &clients[..3] {
            assert_eq!(number(client, "SELECT count(*) FROM names").await, 12);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_transactions_keep_references() {
    let seed = seed();
    let cluster = Cluster::start(3).await;
    let clients = clients(&cluster, 6).await;
    clients[0]
        .batch_execute(
            "CREATE TABLE parent (id int PRIMARY KEY, children int NOT NULL DEFAULT 0);
             CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL REFERENCES parent);
             CREATE TABLE leaf (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);
             INSERT INTO parent SELECT n FROM generate_series(1, 6) n",
        )
        .await
        .unwrap();
    let work = clients.iter().enumerate().map(|(n, client)| async move {
        let mut rng = StdRng::seed_from_u64(seed ^ n as u64);
        let mut codes = BTreeMap::new();
        for turn in 0..40 {
            let (id, parent) = (n * 1000 + turn, rng.random_range(1..=6));
            let statements = match rng.random_range(0..5) {
                // The number of children is written down where it was counted.
                0 | 1 => vec![
                    format!("INSERT INTO child VALUES ({id}, {parent})"),
                    format!(
                        "UPDATE parent SET children = (SELECT count(*) FROM child WHERE parent = {parent})
                         WHERE id = {parent}"
                    ),
                ],
                2 => vec![format!("INSERT INTO leaf VALUES ({id}, {parent})")],
                3 => vec![
                    format!("DELETE FROM child WHERE parent = {parent}"),
                    format!("DELETE FROM parent WHERE id = {parent}"),
                ],
                _ => vec![format!("INSERT INTO parent VALUES ({parent}) ON CONFLICT DO NOTHING")],
            };
            let outcome = transact(client, Level::Serializable, &statements).await;
            *codes.entry(outcome.err().unwrap_or_else(|| "done".to_owned())).or_insert(0) += 1;
        }
        codes
    });
    let mut all: BTreeMap<String, i32> = BTreeMap::new();
    for codes in futures::future::join_all(work).await {
        for (code, n) in codes {
            *all.entry(code).or_default() += n;
        }
    }
    println!("{all:?}");
    let expected = ["done", "23503", "40001", "40P01"];
    assert!(all.keys().all(|code| expected.contains(&code.as_str())), "AMPHORA_SEED={seed}: {all:?}");
    assert!(all["done"] > 40, "AMPHORA_SEED={seed}: {all:?}");
    for client in &clients[..3] {
        for table in ["child", "leaf"] {
            let sql = format!("SELECT count(*) FROM {table} WHERE parent NOT IN (SELECT id FROM parent)");
            assert_eq!(number(client, &sql).await, 0, "AMPHORA_SEED={seed}: orphans in {table}");
        }
        let sql = "SELECT count(*) FROM parent p
                   WHERE children <> (SELECT count(*) FROM child WHERE parent = p.id)";
        assert_eq!(number(client, sql).await, 0, "AMPHORA_SEED={seed}: miscounted children");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_refuse_no_serializable_transaction() {
    let cluster = Cluster::start(3).await;
    let clients = clients(&cluster, 6).await;
    clients[0]
        .batch_execute(
            "CREATE TABLE events (id bigserial PRIMARY KEY, worker int, n int, UNIQUE (worker, n))",
        )
        .await
        .unwrap();
    let work = clients.iter().enumerate().map(|(worker, client)| async move {
        for n in 0..25 {
            let insert = format!("INSERT INTO events (worker, n) VALUES ({worker}, {n})");
            transact(client, Level::Serializable, std::slice::from_ref(&insert)).await.unwrap();
            // A value that was drawn is drawn, whatever becomes of its transaction.
            client.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap();
            let draw = "SELECT nextval('events_id_seq')";
            let first = number(client, draw).await;
            client.batch_execute("ROLLBACK").await.unwrap();
            assert!(number(client, draw).await > first);
        }
    });
    futures::future::join_all(work).await;
    assert_eq!(number(&clients[0], "SELECT count(*) FROM events").await, 150);
    assert_eq!(number(&clients[1], "SELECT count(DISTINCT id) FROM events").await, 150);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_conflict_and_merge_lose_no_increment_at_any_level() {
    let cluster = Cluster::start(3).await;
    let clients = clients(&cluster, 6).await;
    let upsert = "INSERT INTO hits VALUES (KEY, 1) ON CONFLICT (k) DO UPDATE SET n = hits.n + excluded.n";
    let merge = "MERGE INTO hits USING (VALUES (KEY)) AS s(k) ON hits.k = s.k
                 WHEN MATCHED THEN UPDATE SET n = hits.n + 1
                 WHEN NOT MATCHED THEN INSERT VALUES (s.k, 1)";
    for level in LEVELS {
        for (name, statement) in [("ON CONFLICT", upsert), ("MERGE", merge)] {
            let table = "DROP TABLE IF EXISTS hits; CREATE TABLE hits (k int PRIMARY KEY, n int NOT NULL)";
            clients[0].batch_execute(table).await.unwrap();
            let work = clients.iter().enumerate().map(|(worker, client)| async move {
                let (mut refused, mut rng) = (0, StdRng::seed_from_u64(worker as u64));
                for turn in 0..15 {
                    let statement = statement.replace("KEY", &rng.random_range(0..3).to_string());
                    loop {
                        // Alone, and in a block.
                        let outcome = match turn % 2 {
                            0 => client.batch_execute(&statement).await.map_err(|e| code(&e)),
                            _ => transact(client, level, std::slice::from_ref(&statement)).await,
                        };
                        let Err(code) = outcome else { break };
                        // As in PostgreSQL, MERGE may find that another was quicker to insert.
                        let expected = code == "40001" || (name == "MERGE" && code == "23505");
                        assert!(expected, "{name}, {level:?}: {code}");
                        let never = level == Level::ReadCommitted && code == "40001";
                        assert!(!never, "{name}: 40001 at READ COMMITTED");
                        refused += 1;
                    }
                }
                refused
            });
            let refused: usize = futures::future::join_all(work).await.iter().sum();
            println!("{name}, {level:?}: {refused} tried again");
            for client in &clients[..3] {
                assert_eq!(number(client, "SELECT sum(n)::bigint FROM hits").await, 90, "{name}, {level:?}");
            }
        }
    }
    // DO NOTHING: of those that come together one inserts, and all know that it is there.
    clients[0].batch_execute("CREATE TABLE once (k int PRIMARY KEY, by int)").await.unwrap();
    for round in 0..10 {
        let attempts = clients.iter().enumerate().map(|(n, client)| async move {
            let sql = format!("INSERT INTO once VALUES ({round}, {n}) ON CONFLICT DO NOTHING");
            let done = client.execute(&sql, &[]).await.unwrap();
            let there = number(client, &format!("SELECT by::bigint FROM once WHERE k = {round}")).await;
            (done, there)
        });
        let outcomes = futures::future::join_all(attempts).await;
        assert_eq!(outcomes.iter().map(|(done, _)| done).sum::<u64>(), 1, "{outcomes:?}");
        assert_eq!(outcomes.iter().map(|(_, by)| by).collect::<BTreeSet<_>>().len(), 1, "{outcomes:?}");
    }
}

/// Each session holds what it is named after and wants the next one's; one of them is refused, at once.
async fn circle(clients: &[Client], take: impl Fn(usize) -> String) {
    for (n, client) in clients.iter().enumerate() {
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute(&take(n)).await.unwrap();
    }
    let start = Instant::now();
    let attempts = clients.iter().enumerate().map(|(n, client)| {
        let want = take((n + 1) % clients.len());
        async move {
            tokio::time::sleep(Duration::from_millis(50 * n as u64)).await;
            let outcome = tokio::time::timeout(Duration::from_secs(10), client.batch_execute(&want)).await;
            let waited = start.elapsed();
            let outcome = outcome.unwrap_or_else(|_| panic!("{want}: nobody has found the circle"));
            // Whoever is refused lets go of what it holds, and those behind it go on.
            client.batch_execute(if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
            client.batch_execute("SELECT pg_advisory_unlock_all()").await.unwrap();
            outcome.map_err(|e| (code(&e), waited))
        }
    });
    let outcomes = futures::future::join_all(attempts).await;
    let refused: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].0, "40P01");
    let last = Duration::from_millis(50 * clients.len() as u64);
    assert!(refused[0].1 < last + Duration::from_secs(1), "found after {:?}", refused[0].1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn circles_through_all_gateways_are_found_within_a_second() {
    let cluster = Cluster::start(3).await;
    let clients = clients(&cluster, 3).await;
    clients[0].batch_execute("CREATE TABLE t (k int PRIMARY KEY, v int DEFAULT 0)").await.unwrap();
    clients[0].batch_execute("INSERT INTO t SELECT n FROM generate_series(0, 9) n").await.unwrap();
    circle(&clients, |n| format!("UPDATE t SET v = v + 1 WHERE k = {n}")).await;
    circle(&clients, |n| format!("SELECT FROM t WHERE k = {n} FOR UPDATE")).await;
    circle(&clients[..2], |n| format!("DELETE FROM t WHERE k = {}", n + 5)).await;
    // Both have the row for sharing, and both want it for themselves.
    for client in &clients[..2] {
        client.batch_execute("BEGIN; SELECT FROM t WHERE k = 0 FOR SHARE").await.unwrap();
    }
    let update = "UPDATE t SET v = 9 WHERE k = 0";
    let start = Instant::now();
    let end = async |client: &Client| {
        let outcome = client.batch_execute(update).await;
        client.batch_execute(if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
        outcome.map_err(|e| code(&e))
    };
    let (one, two) = tokio::join!(end(&clients[0]), end(&clients[1]));
    assert!(start.elapsed() < Duration::from_secs(1), "found after {:?}", start.elapsed());
    assert_eq!([one, two].into_iter().filter_map(Result::err).collect::<Vec<_>>(), ["40P01"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn circles_through_advisory_locks_are_found_too() {
    let cluster = Cluster::start(3).await;
    let clients = clients(&cluster, 3).await;
    clients[0].batch_execute("CREATE TABLE t (k int PRIMARY KEY, v int DEFAULT 0)").await.unwrap();
    clients[0].batch_execute("INSERT INTO t SELECT n FROM generate_series(0, 9) n").await.unwrap();
    circle(&clients, |n| format!("SELECT pg_advisory_lock({n})")).await;
    circle(&clients[..2], |n| format!("SELECT pg_advisory_xact_lock({n}, 7)")).await;
    circle(&clients, |n| match n {
        0 => "UPDATE t SET v = v + 1 WHERE k = 0".to_owned(),
        1 => "SELECT pg_advisory_lock(1)".to_owned(),
        _ => "SELECT pg_advisory_xact_lock(2)".to_owned(),
    })
    .await;
    // Through a session's lock from before its transaction, and a statement without a block.
    clients[0].batch_execute("SELECT pg_advisory_lock(5)").await.unwrap();
    clients[1].batch_execute("BEGIN; UPDATE t SET v = 0 WHERE k = 5").await.unwrap();
    let waiting = clients[1].batch_execute("SELECT pg_advisory_lock(5)");
    let closing = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let start = Instant::now();
        let refused = clients[0].batch_execute("UPDATE t SET v = 1 WHERE k = 5").await.unwrap_err();
        assert_eq!(code(&refused), "40P01");
        assert!(start.elapsed() < Duration::from_secs(1), "found after {:?}", start.elapsed());
        clients[0].batch_execute("SELECT pg_advisory_unlock(5)").await.unwrap();
    };
    let (waited, ()) = tokio::join!(waiting, closing);
    waited.unwrap();
    clients[1].batch_execute("COMMIT; SELECT pg_advisory_unlock_all()").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn taking_turns_at_one_advisory_lock_is_no_deadlock() {
    let cluster = Cluster::start(3).await;
    let clients = clients(&cluster, 6).await;
    clients[0].batch_execute("CREATE TABLE t (k int PRIMARY KEY, v int)").await.unwrap();
    clients[0].batch_execute("INSERT INTO t VALUES (1, 0)").await.unwrap();
    // What is given back is asked for again at once, often before the leader has heard of it.
    let turns = clients.iter().map(async |client| {
        for _ in 0..20 {
            client.batch_execute("SELECT pg_advisory_lock(1); SELECT pg_advisory_unlock(1)").await.unwrap();
            client.batch_execute("BEGIN; UPDATE t SET v = v + 1; ROLLBACK").await.unwrap();
        }
    });
    futures::future::join_all(turns).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_held_is_free_when_it_is_gone() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (near, far) = ((leader + 1) % 3, (leader + 2) % 3);
    let watcher = cluster.client(far).await;
    watcher.batch_execute("CREATE TABLE t (k int PRIMARY KEY, v int)").await.unwrap();
    watcher.batch_execute("INSERT INTO t VALUES (1, 0); SET lock_timeout = '30s'").await.unwrap();
    let hold = "BEGIN; UPDATE t SET v = v + 1 WHERE k = 1; SELECT pg_advisory_lock(1)";
    let update = "UPDATE t SET v = v + 1 WHERE k = 1";
    let take = "SELECT pg_advisory_lock(1); SELECT pg_advisory_unlock(1)";

    // Its client goes.
    let holder = cluster.client(near).await;
    holder.batch_execute(hold).await.unwrap();
    drop(holder);
    let start = Instant::now();
    watcher.batch_execute(update).await.unwrap();
    watcher.batch_execute(take).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "free after {:?}", start.elapsed());

    // It is terminated, by another session of its node.
    let (holder, other) = (cluster.client(near).await, cluster.client(near).await);
    holder.batch_execute(hold).await.unwrap();
    let pid: i32 = holder.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let start = Instant::now();
    let terminated = other.query_one("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
    assert!(terminated.get::<_, bool>(0));
    watcher.batch_execute(update).await.unwrap();
    watcher.batch_execute(take).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "free after {:?}", start.elapsed());
    eventually("the session is gone", Duration::from_secs(5), || async {
        holder.batch_execute("SELECT 1").await.is_err()
    })
    .await;

    // One that waits at another node's leader is cancelled, and nobody is left waiting in its place.
    let (holder, waiter) = (cluster.client(near).await, cluster.client(near).await);
    holder.batch_execute(hold).await.unwrap();
    let pid: i32 = waiter.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        other.query_one("SELECT pg_cancel_backend($1)", &[&pid]).await.unwrap().get::<_, bool>(0)
    };
    let (waited, cancelled) = tokio::join!(waiter.batch_execute(update), cancel);
    assert!(cancelled);
    assert_eq!(code(&waited.unwrap_err()), "57014");
    holder.batch_execute("COMMIT; SELECT pg_advisory_unlock_all()").await.unwrap();
    let start = Instant::now();
    watcher.batch_execute(update).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "free after {:?}", start.elapsed());

    // Its node dies.
    holder.batch_execute(hold).await.unwrap();
    cluster.node(near).kill();
    let start = Instant::now();
    watcher.batch_execute(update).await.unwrap();
    watcher.batch_execute(take).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(15), "free after {:?}", start.elapsed());
    // Two that the holder committed or lost with it, and four of the watcher's.
    let v: i32 = watcher.query_one("SELECT v FROM t WHERE k = 1", &[]).await.unwrap().get(0);
    assert_eq!(v, 5);
}

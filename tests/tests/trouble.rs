//! Bad input and trouble: a clear word to the operator, and the cluster stays up.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::process::Command;
use std::time::Duration;

use amphora_tests::{Cluster, Node, eventually, free_port};
use tokio::io::AsyncWriteExt;

fn local() -> String {
    format!("127.0.0.1:{}", free_port())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_directory_is_refused() {
    let mut cluster = Cluster::start(1).await;
    let pid = cluster.node(0).pid();
    let mut second = Node::new(cluster.path(), "node-1", local(), local(), local(), vec![]);
    let output = second.command().output().unwrap();
    assert_ne!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("in use") || said.contains("another process"), "{said}");
    assert!(said.contains(&pid.to_string()), "the message names the process that has it: {said}");
    second.data_dir.clear();
    assert!(cluster.nodes()[0].is_ready().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_cluster_does_not_join() {
    let ours = Cluster::start(1).await;
    let mut theirs = Cluster::start(1).await;
    let rpc = ours.nodes()[0].rpc.clone();
    theirs.node(0).kill();
    let directory = theirs.path().to_owned();
    let mut stray = Node::new(&directory, "node-1", local(), local(), local(), vec!["--join".into(), rpc]);
    stray.start();
    let code = stray.wait_exit(Duration::from_secs(20)).await;
    assert_ne!(code, Some(0));
    let log = String::from_utf8_lossy(&std::fs::read(directory.join("node-1.log")).unwrap()).into_owned();
    assert!(log.contains("another cluster"), "{log}");
    assert!(ours.nodes()[0].is_ready().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_file_is_named_and_the_node_does_not_start() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client(0).await;
    client.batch_execute("CREATE TABLE t (k int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    cluster.node(0).terminate();
    let identity = cluster.nodes()[0].data_dir.join("IDENTITY");
    std::fs::write(&identity, b"{ not json").unwrap();
    let node = cluster.node(0);
    node.start();
    assert_ne!(node.wait_exit(Duration::from_secs(20)).await, Some(0));
    assert!(node.tail(10).contains("IDENTITY"), "{}", node.tail(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_every_port_harms_nobody() {
    let cluster = Cluster::start(3).await;
    let node = &cluster.nodes()[0];
    for address in [&node.pg, &node.rpc, &node.http] {
        for junk in [
            &b"\x00\x00\x00\x00"[..],
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
            b"GET / HTTP/9.9\r\n\r\n",
            &[0x16; 4096],
        ] {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(junk).await;
            let _ = stream.shutdown().await;
        }
    }
    // A length of two gigabytes after a proper start, and then nothing.
    let mut stream = tokio::net::TcpStream::connect(&node.pg).await.unwrap();
    let mut startup = vec![0, 3, 0, 0];
    startup.extend(b"user\0amphora\0database\0amphora\0\0");
    let mut message = ((startup.len() + 4) as u32).to_be_bytes().to_vec();
    message.extend(startup);
    message.extend(b"Q\x7f\xff\xff\xff");
    stream.write_all(&message).await.unwrap();
    let client = cluster.client(0).await;
    let n: i32 = client.query_one("SELECT 1", &[]).await.unwrap().get(0);
    assert_eq!(n, 1);
    assert!(cluster.nodes()[0].is_ready().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listening_beyond_loopback_needs_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(dir.path(), "n", format!("0.0.0.0:{}", free_port()), local(), local(), vec![]);
    let output = node.command().output().unwrap();
    assert_ne!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--insecure"), "{said}");
}

/// A small file system, for as long as this lives.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &std::path::Path, megabytes: u32) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).ok()?;
        let size = format!("size={megabytes}m");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status().ok()?;
        done.success().then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_writes_on_its_node_and_loses_nothing() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(0).await;
    client.batch_execute("CREATE TABLE t (k bigint PRIMARY KEY, v text)").await.unwrap();
    // The third node moves to a small disk.
    cluster.node(2).terminate();
    let data = cluster.nodes()[2].data_dir.clone();
    let moved = data.with_extension("moved");
    std::fs::rename(&data, &moved).unwrap();
    let _disk = SmallDisk::mount(&data, 160).expect("a small disk is mounted, which needs root");
    let copied = Command::new("cp").arg("-a").arg(moved.join(".")).arg(&data).status().unwrap();
    assert!(copied.success());
    cluster.node(2).start();
    cluster.wait_ready(2).await;
    let ballast = data.join("ballast");
    fill_up_to(&ballast, free_bytes(&data).saturating_sub(8 << 20));
    // The other two are a majority: writes go on.
    let text: String = (0..100_000).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect();
    let rows = 250i64;
    for k in 1..=rows {
        client.execute("INSERT INTO t VALUES ($1, $2)", &[&k, &text]).await.unwrap();
    }
    let count = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), rows);
    // The node says what happened and what to do, once and not with every message of the leader's.
    let told = || cluster.nodes()[2].log().matches("make room or mend it, then restart").count();
    eventually("the node says what to do", Duration::from_secs(20), || async { told() > 0 }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(told(), 1, "{}", cluster.nodes()[2].tail(20));
    let log = cluster.nodes()[2].log();
    assert!(log.contains("o space left"), "{}", cluster.nodes()[2].tail(20));
    let (status, reason) = cluster.nodes()[2].http("GET", "/ready", "").await.unwrap();
    assert!(status == 503 && reason.contains("disk is full"), "{status} {reason}");
    // Room again: the node comes back, on the same disk, with everything.
    std::fs::remove_file(ballast).unwrap();
    cluster.node(2).restart();
    cluster.wait_ready(2).await;
    let third = cluster.client(2).await;
    let count: i64 = third.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(count, rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaderless_writes_are_refused_while_the_disk_is_full_and_go_on_after() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client(0).await;
    let create = "CREATE TABLE t (k bigint PRIMARY KEY, v text) WITH (replication = 'leaderless')";
    client.batch_execute(create).await.unwrap();
    cluster.node(0).terminate();
    let data = cluster.nodes()[0].data_dir.clone();
    let moved = data.with_extension("moved");
    std::fs::rename(&data, &moved).unwrap();
    let _disk = SmallDisk::mount(&data, 160).expect("a small disk is mounted, which needs root");
    let copied = Command::new("cp").arg("-a").arg(moved.join(".")).arg(&data).status().unwrap();
    assert!(copied.success());
    cluster.node(0).start();
    cluster.wait_ready(0).await;
    let client = cluster.client(0).await;
    let ballast = data.join("ballast");
    fill_up_to(&ballast, free_bytes(&data).saturating_sub(6 << 20));
    let text: String = (0..100_000).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect();
    let insert = "INSERT INTO t VALUES ($1, $2)";
    let mut rows = 0i64;
    let refused = loop {
        match client.execute(insert, &[&rows, &text]).await {
            Ok(_) => rows += 1,
            Err(e) => break e,
        }
        assert!(rows < 300, "30 MB were taken by a disk with 6");
    };
    assert_eq!(refused.code().unwrap().code(), "53100", "{refused:?}");
    assert!(rows > 10);
    let count = async |client: &tokio_postgres::Client| {
        client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get::<_, i64>(0)
    };
    assert_eq!(count(&client).await, rows);
    // Room again, and no restart.
    std::fs::remove_file(ballast).unwrap();
    client.execute(insert, &[&rows, &text]).await.unwrap();
    cluster.node(0).kill();
    cluster.node(0).start();
    cluster.wait_ready(0).await;
    assert_eq!(count(&cluster.client(0).await).await, rows + 1);
}

fn free_bytes(path: &std::path::Path) -> u64 {
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().nth(1).and_then(|l| l.trim().parse().ok()).expect("df prints a number")
}

fn fill_up_to(path: &std::path::Path, bytes: u64) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    let block = vec![0u8; 1 << 20];
    for _ in 0..bytes >> 20 {
        file.write_all(&block).unwrap();
    }
}

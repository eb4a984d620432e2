//! The power fails: what the node had on disk is there, what the system held back is not.
//!
//! `kill -9` cannot show that: what a process has written survives it, synced or not. Here the node works on a file
//! system of its own, in an image. It is stopped in the midst of its work, the image is copied, and the node goes on from the
//! copy: without what was still in the memory of that file system.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use amphora_tests::{Cluster, Node};
use tokio_postgres::Client;

const MEGABYTES: u64 = 400;

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("the program starts");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A file system in a file, mounted.
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    fn make(image: PathBuf, at: &Path) -> Disk {
        std::fs::File::create(&image).unwrap().set_len(MEGABYTES << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
        Disk::mount(image, at)
    }

    fn mount(image: PathBuf, at: &Path) -> Disk {
        std::fs::create_dir_all(at).unwrap();
        run("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]);
        Disk { image, at: at.to_owned() }
    }

    /// What the power leaves of it, mounted in its place. Nobody may write to it, or use it afterwards.
    fn after_a_loss_of_power(self, node: &mut Node, image: PathBuf) -> Disk {
        run("cp", &["--sparse=always", self.image.to_str().unwrap(), image.to_str().unwrap()]);
        node.kill();
        let at = self.at.clone();
        drop(self);
        Disk::mount(image, &at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        let _ = std::fs::remove_file(&self.image);
    }
}

/// Runs a statement with 1, 2, 3 … for as long as that succeeds; says how often it did.
fn work(client: Client, sql: &'static str, acknowledged: Arc<AtomicI64>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let n = acknowledged.load(Ordering::SeqCst) + 1;
            if client.execute(sql, &[&n]).await.is_err() {
                return;
            }
            acknowledged.store(n, Ordering::SeqCst);
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_loss_of_power() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client(0).await;
    let schema = "CREATE TABLE strong (k bigint PRIMARY KEY);
        CREATE TABLE leaderless (k bigint PRIMARY KEY) WITH (replication = 'leaderless');
        CREATE TABLE both_a (k bigint PRIMARY KEY);
        CREATE TABLE both_b (k bigint PRIMARY KEY) WITH (replication = 'leaderless')";
    client.batch_execute(schema).await.unwrap();
    cluster.node(0).terminate();
    let data = cluster.nodes()[0].data_dir.clone();
    let moved = data.with_extension("moved");
    std::fs::rename(&data, &moved).unwrap();
    let image = |n: usize| data.with_extension(format!("image-{n}"));
    let mut disk = Disk::make(image(0), &data);
    run("cp", &["-a", moved.join(".").to_str().unwrap(), data.to_str().unwrap()]);
    run("sync", &["-f", data.to_str().unwrap()]);
    cluster.node(0).start();
    let statements = [
        "INSERT INTO strong VALUES ($1) ON CONFLICT DO NOTHING",
        "INSERT INTO leaderless VALUES ($1) ON CONFLICT DO NOTHING",
        "WITH a AS (INSERT INTO both_a VALUES ($1) ON CONFLICT DO NOTHING)
         INSERT INTO both_b VALUES ($1) ON CONFLICT DO NOTHING",
    ];
    let acknowledged: [Arc<AtomicI64>; 3] = Default::default();
    for round in 1..=4 {
        cluster.wait_ready(0).await;
        let mut workers = Vec::new();
        for (sql, acknowledged) in statements.iter().zip(&acknowledged) {
            workers.push(work(cluster.client(0).await, sql, acknowledged.clone()));
        }
        let before: i64 = acknowledged.iter().map(|n| n.load(Ordering::SeqCst)).sum();
        tokio::time::sleep(Duration::from_millis(rand::random_range(300..900))).await;
        let known: Vec<i64> = acknowledged.iter().map(|n| n.load(Ordering::SeqCst)).collect();
        assert!(known.iter().sum::<i64>() > before, "nothing was written");
        cluster.nodes()[0].pause();
        disk = disk.after_a_loss_of_power(cluster.node(0), image(round));
        for worker in workers {
            worker.await.unwrap();
        }
        cluster.node(0).start();
        cluster.wait_ready(0).await;
        let client = cluster.client(0).await;
        for (table, of) in [("strong", 0), ("leaderless", 1), ("both_a", 2), ("both_b", 2)] {
            let sql = format!("SELECT count(*) FROM {table} WHERE k <= $1");
            let found: i64 = client.query_one(sql.as_str(), &[&known[of]]).await.unwrap().get(0);
            assert_eq!(found, known[of], "round {round}: acknowledged rows of {table}");
        }
        println!("round {round}: {known:?} acknowledged");
    }
    cluster.node(0).kill();
    drop(disk);
}

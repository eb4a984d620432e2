//! pgbench against a node: its initialisation, step by step and in one, and its built-in scripts in every
//! query mode.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::PathBuf;
use std::process::Command;

use amphora_tests::{Cluster, Node};

/// Debian keeps pgbench beside the server.
fn pgbench() -> PathBuf {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let servers = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let beside = servers.map(|version| version.path().join("bin"));
    std::env::split_paths(&on_path)
        .chain(beside)
        .map(|folder| folder.join("pgbench"))
        .find(|path| path.is_file())
        .expect("pgbench is installed: make setup")
}

fn run(node: &Node, arguments: &[&str]) {
    let (host, port) = node.pg.rsplit_once(':').unwrap();
    let output = Command::new(pgbench())
        .args(["-h", host, "-p", port, "-U", "amphora"])
        .args(arguments)
        .arg("amphora")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "pgbench {arguments:?}\n{out}{err}");
    assert!(!err.contains("ERROR"), "pgbench {arguments:?}\n{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn initialisation_and_every_script_in_every_mode() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes()[0];
    run(node, &["-i", "-q", "-I", "dtGvpf"]);
    run(node, &["-i", "-q"]);
    for script in ["tpcb-like", "simple-update", "select-only"] {
        for mode in ["simple", "extended", "prepared"] {
            run(node, &["-n", "-b", script, "-M", mode, "-c", "4", "-j", "2", "-t", "15"]);
        }
    }
    let client = node.client().await;
    let sum = async |sql: &str| client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(sum("SELECT count(*) FROM pgbench_history").await, 2 * 3 * 4 * 15);
    let deltas = sum("SELECT sum(delta) FROM pgbench_history").await;
    assert_eq!(sum("SELECT sum(abalance) FROM pgbench_accounts").await, deltas);
    let tpcb = sum("SELECT sum(tbalance) FROM pgbench_tellers").await;
    assert_eq!(sum("SELECT sum(bbalance) FROM pgbench_branches").await, tpcb);
}

//! The commands as a person runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::process::Command;

use amphora_tests::{Cluster, binary};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_and_node_list_show_the_cluster() {
    let cluster = Cluster::start(3).await;
    for words in [&["status"][..], &["node", "list"]] {
        let output =
            Command::new(binary()).args(words).args(["--host", &cluster.nodes()[1].http]).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{words:?}: {out}{err}");
        for node in cluster.nodes() {
            assert!(out.contains(&node.pg), "{} is missing in\n{out}", node.pg);
        }
        assert!(out.contains("leader") && out.contains("alive"), "{out}");
        assert!(!out.contains('\u{1b}'), "colours, though no terminal looks on: {out}");
    }
    let nobody = Command::new(binary()).args(["status", "--host", "127.0.0.1:9"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("127.0.0.1:9"));
}

#[test]
fn the_demonstration_holds_all_its_claims() {
    let scratch = tempfile::tempdir().unwrap();
    let output = Command::new(binary())
        .args(["demo", "--exit", "--dir"])
        .arg(scratch.path().join("demo"))
        .current_dir(scratch.path())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("20 of 20 claims held"), "{out}");
}

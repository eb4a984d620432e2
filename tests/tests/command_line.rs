//! The commands as a person runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

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

/// A demonstration while it runs.
struct Demo {
    scenario: String,
    child: Child,
    out: BufReader<ChildStdout>,
    told: String,
    _scratch: tempfile::TempDir,
}

impl Demo {
    fn start(scenario: &str) -> Demo {
        let scratch = tempfile::tempdir().unwrap();
        let mut command = Command::new(binary());
        command.args(["demo", "--exit", "--scenario", scenario, "--dir"]).arg(scratch.path().join("demo"));
        let mut child = command.current_dir(scratch.path()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Demo { scenario: scenario.to_owned(), child, out, told: String::new(), _scratch: scratch }
    }

    /// Waits until its nodes have their ports, so that another may look for free ones.
    fn wait_for_its_nodes(&mut self) {
        while !self.told.contains("three nodes found each other") {
            let read = self.out.read_line(&mut self.told).unwrap();
            assert!(read > 0, "{} ended early:\n{}", self.scenario, self.told);
        }
    }

    /// All that it told, once it has ended, with all claims held.
    fn end(mut self) -> String {
        self.out.read_to_string(&mut self.told).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{}: {status}\n{}", self.scenario, self.told);
        self.told
    }
}

#[test]
fn the_demonstration_holds_all_its_claims() {
    let told = Demo::start("hybrid").end();
    assert!(told.contains("20 of 20 claims held"), "{told}");
}

/// The story above has what `failover` and `partition` tell; all others, and these two, two at a time.
#[test]
fn every_scenario_holds_its_claims() {
    let list = Command::new(binary()).args(["demo", "--list"]).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let names =
        list.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let names: Vec<&str> = names.filter(|name| *name != "hybrid").collect();
    let expected =
        ["bank", "profile-two-regions", "cart", "page-views", "work-queue", "failover", "partition"];
    assert_eq!(names, expected, "{list}");
    for two in names.chunks(2) {
        let mut running = Vec::new();
        for scenario in two {
            let mut demo = Demo::start(scenario);
            demo.wait_for_its_nodes();
            running.push(demo);
        }
        for demo in running {
            let scenario = demo.scenario.clone();
            let told = demo.end();
            let last = told.lines().rev().find(|line| line.contains("claims held")).unwrap_or_default();
            println!("{scenario}: {}", last.trim());
            assert!(last.contains('✓') && !told.contains('✗'), "{told}");
            if scenario == "bank" {
                assert!(
                    told.contains("the money is wrong") && told.contains("disagree with the ledger"),
                    "{told}"
                );
            }
        }
    }
}

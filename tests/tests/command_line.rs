//! The commands as a person runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use amphora_tests::{Cluster, binary, eventually};

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
    let ready = Command::new(binary())
        .args(["status", "--ready", "--host", &cluster.nodes()[2].http])
        .output()
        .unwrap();
    assert!(ready.status.success() && ready.stdout == b"ready\n", "{ready:?}");
    let nobody =
        Command::new(binary()).args(["status", "--ready", "--host", "127.0.0.1:9"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    load_says_what_was_acknowledged(&cluster).await;
    metrics_are_in_prometheus_format(&cluster).await;
    let nobody = Command::new(binary()).args(["status", "--host", "127.0.0.1:9"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("127.0.0.1:9"));
}

/// `/metrics` of every node: each sample belongs to a metric that was declared above it, and is a number.
async fn metrics_are_in_prometheus_format(cluster: &Cluster) {
    let mut leaders = 0.0;
    for node in cluster.nodes() {
        let (code, text) = node.http("GET", "/metrics", "").await.unwrap();
        assert_eq!(code, 200, "{text}");
        let mut declared = String::new();
        for line in text.lines().filter(|line| !line.starts_with("# HELP ")) {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                declared = kind.split(' ').next().unwrap().to_owned();
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
            assert_eq!(name.split('{').next(), Some(declared.as_str()), "{text}");
            match name {
                "amphora_raft_is_leader" => leaders += value,
                "amphora_nodes{state=\"alive\"}" => assert_eq!(value, 3.0, "{text}"),
                "amphora_ready" => assert_eq!(value, 1.0, "{text}"),
                "amphora_raft_applied_index" => assert!(value > 0.0, "{text}"),
                _ => {}
            }
        }
        assert!(
            text.contains("amphora_replication_lag{peer=") && text.contains("amphora_resident_memory"),
            "{text}"
        );
    }
    assert_eq!(leaders, 1.0);
}

/// `amphora demo --load`, until it is told to stop.
async fn load_says_what_was_acknowledged(cluster: &Cluster) {
    let nodes: Vec<&str> = cluster.nodes().iter().map(|n| n.pg.as_str()).collect();
    let load =
        Command::new(binary()).args(["demo", "--load", &nodes.join(",")]).stdout(Stdio::piped()).spawn();
    let mut load = load.unwrap();
    let mut out = BufReader::new(load.stdout.take().unwrap());
    let mut told = String::new();
    while !told.contains("strong") {
        assert!(out.read_line(&mut told).unwrap() > 0, "ended early: {told}");
    }
    let stopped = Command::new("kill").args(["-TERM", &load.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    out.read_to_string(&mut told).unwrap();
    assert!(load.wait().unwrap().success(), "{told}");
    let last = told.lines().last().unwrap();
    let counts: Vec<i64> = last.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [transfers, views] = counts[..] else { panic!("{told}") };
    assert!(transfers > 0 && views > 0, "{told}");
    for i in 0..cluster.len() {
        let client = cluster.client(i).await;
        let count = || async {
            let row = client.query_one("SELECT n FROM page_views WHERE page = 'home'", &[]).await.unwrap();
            row.get::<_, i64>(0) == views
        };
        eventually("all views are counted everywhere", Duration::from_secs(20), count).await;
        let sum = client.query_one("SELECT sum(balance)::bigint FROM accounts", &[]).await.unwrap();
        assert_eq!(sum.get::<_, i64>(0), 8000);
    }
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

/// The guide says nothing that cannot be run: statements, scenarios, tests and files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_to_choosing_a_mode_names_what_is_there() {
    let docs = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
    let guide = std::fs::read_to_string(docs.join("choosing-a-mode.md")).unwrap();
    let list = Command::new(binary()).args(["demo", "--list"]).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();

    let mut scenarios = 0;
    for rest in guide.split("`amphora demo --scenario ").skip(1) {
        let name = rest.split('`').next().unwrap();
        let known = list.lines().any(|line| line.split_whitespace().next() == Some(name));
        assert!(known || name == "NAME", "there is no scenario {name}:\n{list}");
        scenarios += 1;
    }
    let mut tests = 0;
    for (before, rest) in guide.match_indices("](").map(|(at, _)| guide.split_at(at)) {
        let target = rest[2..].split(')').next().unwrap();
        let file = std::fs::read_to_string(docs.join(target));
        let file = file.unwrap_or_else(|e| panic!("the guide points to {target}: {e}"));
        if target.ends_with(".rs") {
            let name = before.rsplit('[').next().unwrap().trim_matches('`');
            assert!(file.contains(&format!("fn {name}(")), "{target} has no test {name}");
            tests += 1;
        }
    }
    assert!(scenarios >= 15 && tests >= 12, "{scenarios} scenarios and {tests} tests are named");
    let makefile = std::fs::read_to_string(docs.join("../Makefile")).unwrap();
    assert!(makefile.contains("\ndocker-test:"), "the guide names make docker-test");

    let cluster = Cluster::start(3).await;
    let client = cluster.client(1).await;
    for block in guide.split("```sql\n").skip(1).map(|b| b.split("```").next().unwrap()) {
        let refused = block.strip_prefix("-- refused: ").and_then(|rest| rest.get(..5));
        let result = client.batch_execute(block).await;
        let code =
            result.err().map(|e| e.as_db_error().map_or(e.to_string(), |db| db.code().code().to_owned()));
        assert_eq!(code.as_deref(), refused, "{block}");
    }
    let row = client.query_one("SELECT o.items, c.items FROM orders o, carts c", &[]).await.unwrap();
    let (ordered, left): (Vec<String>, Vec<String>) = (row.get(0), row.get(1));
    assert!(ordered == ["olives", "wine"] && left.is_empty(), "{ordered:?} {left:?}");
}

//! Several nodes that know each other.

use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::Client;

use crate::namespaces::Network;
use crate::preload::FaultPage;
use crate::{Node, eventually, free_port};

/// A cluster under test.
pub struct Cluster {
    nodes: Vec<Node>,
    network: Option<Network>,
    pages: Vec<FaultPage>,
    disk: Option<Disk>,
    dir: TempDir,
}

/// A small file system of one node's own. Unmounted when dropped.
struct Disk {
    node: usize,
    path: std::path::PathBuf,
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a node that was killed a moment ago may still be going.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

impl Cluster {
    /// Starts `n` nodes on loopback and waits until all are voters and ready.
    pub async fn start(n: usize) -> Cluster {
        Cluster::start_with(n, &[]).await
    }

    /// As [`Cluster::start`], with more arguments for every node.
    pub async fn start_with(n: usize, extra: &[&str]) -> Cluster {
        let mut cluster = Cluster::empty(None);
        for _ in 0..n {
            cluster.add_node(extra).await;
        }
        cluster.wait_settled().await;
        cluster
    }

    /// As [`Cluster::start`], with every node in a network namespace of its own. Needs root.
    pub async fn start_in_namespaces(n: usize) -> Cluster {
        let network = Network::create(n);
        let mut cluster = Cluster::empty(Some(network));
        for _ in 0..n {
            cluster.add_node(&[]).await;
        }
        cluster.wait_settled().await;
        cluster
    }

    /// As [`Cluster::start_in_namespaces`], with clocks and disks that can be made to fail: [`Cluster::faults`] and, if
    /// `small_disk`, [`Cluster::fill_disk`] of the last node. There is room for one node more.
    pub async fn start_for_faults(n: usize, small_disk: bool) -> Cluster {
        let network = Network::create(n + 1);
        let mut cluster = Cluster::empty(Some(network));
        for node in 0..=n {
            cluster.pages.push(FaultPage::create(cluster.dir.path(), &format!("node-{}", node + 1)));
        }
        if small_disk {
            let path = cluster.dir.path().join(format!("node-{n}"));
            std::fs::create_dir(&path).expect("a directory");
            let mount = std::process::Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=512m", "tmpfs"])
                .arg(&path)
                .status();
            assert!(mount.is_ok_and(|status| status.success()), "a file system of its own needs root");
            cluster.disk = Some(Disk { node: n - 1, path });
        }
        for _ in 0..n {
            cluster.add_node(&[]).await;
        }
        cluster.wait_settled().await;
        cluster
    }

    fn empty(network: Option<Network>) -> Cluster {
        Cluster { nodes: Vec::new(), network, pages: Vec::new(), disk: None, dir: scratch() }
    }

    /// Adds one node, started and told to join those that run. Does not wait.
    pub async fn add_node(&mut self, extra: &[&str]) -> usize {
        let index = self.nodes.len();
        let (pg, rpc, http) = match &self.network {
            Some(network) => {
                let ip = network.address(index);
                (self.guest_address(), format!("{ip}:7433"), format!("{ip}:8433"))
            }
            None => (local(), local(), local()),
        };
        let mut arguments: Vec<String> = extra.iter().map(|s| (*s).to_owned()).collect();
        arguments.push("--enable-faults".into());
        if self.network.is_some() {
            arguments.push("--insecure".into());
        }
        let mut node = Node::new(self.dir.path(), &format!("node-{}", index + 1), pg, rpc, http, arguments);
        node.join = self.running();
        node.namespace = self.network.as_ref().map(|network| network.namespace(index));
        node.environment = self.pages.get(index).map(FaultPage::environment).unwrap_or_default();
        node.start();
        self.nodes.push(node);
        if index == 0 {
            self.wait_ready(0).await;
        }
        index
    }

    /// The RPC addresses of all who run.
    fn running(&self) -> Vec<String> {
        self.nodes.iter().filter(|n| n.is_running()).map(|n| n.rpc.clone()).collect()
    }

    /// Starts a node that is not running with an empty directory: it joins those that run, as somebody new.
    pub fn start_afresh(&mut self, index: usize) {
        let join = self.running();
        let node = &mut self.nodes[index];
        node.join = join;
        node.empty_directory();
        node.start();
    }

    /// Kills the node that came last, and forgets it.
    pub fn discard_last(&mut self) {
        let mut node = self.nodes.pop().expect("a node");
        if node.is_running() {
            node.kill();
        }
        node.empty_directory();
    }

    /// The scratch directory in which nodes live.
    pub fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Where clients will find the next node that is added. In namespaces only.
    pub fn guest_address(&self) -> String {
        let network = self.network.as_ref().expect("addresses are known beforehand in namespaces only");
        format!("{}:5433", network.address(self.nodes.len()))
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True of a cluster without nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A node, to do things to.
    pub fn node(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A superuser's connection to a node.
    pub async fn client(&self, index: usize) -> Client {
        self.nodes[index].client().await
    }

    /// Waits until a node is ready.
    pub async fn wait_ready(&self, index: usize) {
        let node = &self.nodes[index];
        let start = std::time::Instant::now();
        while !node.is_ready().await {
            let waited = start.elapsed();
            let reply = node.http("GET", "/ready", "").await;
            assert!(
                waited < Duration::from_secs(60),
                "node {} is not ready after {waited:?}: {reply:?}\n{}",
                index + 1,
                node.tail(60)
            );
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Waits until all running nodes are ready and all members vote.
    pub async fn wait_settled(&self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].is_running() {
                self.wait_ready(index).await;
            }
        }
        let n = self.nodes.len() as i64;
        let running = (0..self.nodes.len()).find(|&i| self.nodes[i].is_running()).expect("a running node");
        let client = self.client(running).await;
        let client = &client;
        eventually("every member votes", Duration::from_secs(60), || async move {
            let query = "SELECT count(*) FROM amphora.nodes WHERE role IN ('leader', 'voter')";
            client.query_one(query, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == n)
        })
        .await;
    }

    /// Waits until so many members vote, seen from a node.
    pub async fn wait_voters(&self, seen_from: usize, n: i64) {
        let client = self.client(seen_from).await;
        let client = &client;
        eventually(&format!("{n} members vote"), Duration::from_secs(60), || async move {
            let query = "SELECT count(*) FROM amphora.nodes WHERE role IN ('leader', 'voter')";
            client.query_one(query, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == n)
        })
        .await;
    }

    /// What a running node says at `/status`.
    pub async fn status(&self, index: usize) -> serde_json::Value {
        let (_, body) = self.nodes[index].http("GET", "/status", "").await.expect("a status");
        serde_json::from_str(&body).expect("JSON")
    }

    /// The id of a running node: nodes that join at the same time get theirs in any order.
    pub async fn id(&self, index: usize) -> u64 {
        self.status(index).await["node_id"].as_u64().expect("an id")
    }

    /// The term, as a node knows it.
    pub async fn term(&self, index: usize) -> u64 {
        self.status(index).await["cluster"]["raft"]["term"].as_u64().expect("a term")
    }

    /// Runs `amphora …` against a node: exit code, and all it said.
    pub async fn run(&self, index: usize, arguments: &[&str]) -> (i32, String) {
        let mut command = tokio::process::Command::new(crate::binary());
        command.args(arguments).env("AMPHORA_HOST", &self.nodes[index].http);
        let output = command.output().await.expect("the binary runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
    }

    /// Index of the leader, as the running nodes agree on it.
    pub async fn leader(&self) -> usize {
        let start = std::time::Instant::now();
        loop {
            for node in self.nodes.iter().filter(|n| n.is_running()) {
                let Ok(client) = node.try_client(Duration::from_secs(1)).await else { continue };
                let query = "SELECT pg_address FROM amphora.nodes WHERE role = 'leader'";
                let ask = tokio::time::timeout(Duration::from_secs(2), client.query_opt(query, &[])).await;
                let Ok(Ok(Some(row))) = ask else { continue };
                let address: String = row.get(0);
                let found = self.nodes.iter().position(|n| n.pg == address);
                if let Some(index) = found.filter(|&i| self.nodes[i].is_running()) {
                    return index;
                }
            }
            assert!(start.elapsed() < Duration::from_secs(30), "no leader within 30 s");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Cuts every link between the two groups, both ways. In namespaces by iptables, else by the nodes'
    /// own fault switches.
    pub async fn partition(&self, left: &[usize], right: &[usize]) {
        for &a in left {
            for &b in right {
                match &self.network {
                    Some(network) => {
                        network.cut(a, b);
                        network.cut(b, a);
                    }
                    None => {
                        self.set_fault(a, b, true).await;
                        self.set_fault(b, a, true).await;
                    }
                }
            }
        }
    }

    /// Node `at` hears nothing more from node `from`, which still hears it. In namespaces only.
    pub fn silence(&self, at: usize, from: usize) {
        self.network.as_ref().expect("links of one way need namespaces").cut(at, from);
    }

    /// A node's clock and disk, of a cluster that was started for it.
    pub fn faults(&self, node: usize) -> &FaultPage {
        self.pages.get(node).expect("a cluster that was started for faults")
    }

    /// Leaves no byte free on the disk of the node that has a small one. Returns the file to remove.
    pub fn fill_disk(&self, node: usize) -> std::path::PathBuf {
        let disk = self.disk.as_ref().filter(|disk| disk.node == node).expect("a small disk of its own");
        let path = disk.path.join("ballast");
        let mut file = std::fs::File::create(&path).expect("a ballast");
        let block = vec![0u8; 1 << 16];
        for size in [1 << 16, 1 << 12, 1] {
            while std::io::Write::write_all(&mut file, &block[..size]).is_ok() {}
        }
        path
    }

    /// Mends all links.
    pub async fn heal(&self) {
        match &self.network {
            Some(network) => network.heal(),
            None => {
                for a in 0..self.nodes.len() {
                    for b in 0..self.nodes.len() {
                        if a != b && self.nodes[a].is_running() {
                            self.set_fault(a, b, false).await;
                        }
                    }
                }
            }
        }
    }

    /// The id of a node, as another knows it: nodes that join at the same time are numbered in any order.
    async fn node_id(&self, at: usize, node: usize) -> i64 {
        let query = "SELECT node_id FROM amphora.nodes WHERE pg_address = $1";
        let client = self.client(at).await;
        client.query_one(query, &[&self.nodes[node].pg]).await.expect("a member").get(0)
    }

    async fn set_fault(&self, at: usize, peer: usize, cut: bool) {
        let word = if cut { "cut" } else { "heal" };
        let body = format!("{{\"{word}\": [{}]}}", self.node_id(at, peer).await);
        let reply = self.nodes[at].http("POST", "/faults", &body).await.expect("the fault switch answers");
        assert_eq!(reply.0, 200, "{}", reply.1);
    }
}

fn local() -> String {
    format!("127.0.0.1:{}", free_port())
}

fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("amphora-test-").tempdir().expect("a scratch directory")
}

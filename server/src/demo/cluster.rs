//! Three processes of this program, on free ports of loopback.

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use amphora_replication::{NodeId, NodeRole, NodeState};
use tokio_postgres::{Client, Config, NoTls};

use super::Trouble;
use crate::http::client;
use crate::http::{FaultOrder, StatusReply};

/// How long a node may take to get ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long a node may take to stop when asked.
const STOP_LIMIT: Duration = Duration::from_secs(8);
const HTTP_LIMIT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(40);

/// One node's process and addresses.
pub struct DemoNode {
    /// Its name on the screen
    pub name: String,
    /// SQL port
    pub pg: u16,
    rpc: u16,
    /// HTTP port
    pub http: u16,
    join: Option<u16>,
    region: Option<&'static str>,
    data: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// The three of them.
pub struct DemoCluster {
    /// In the order in which they were started
    pub nodes: Vec<DemoNode>,
}

impl DemoNode {
    /// Starts the process.
    pub fn start(&mut self) -> Result<(), Trouble> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let local = |port: u16| format!("127.0.0.1:{port}");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("start").arg("--data-dir").arg(&self.data);
        command.args(["--listen", &local(self.pg), "--rpc-listen", &local(self.rpc)]);
        command.args(["--http-listen", &local(self.http), "--enable-faults", "--stop-with-stdin"]);
        if let Some(port) = self.join {
            command.args(["--join", &local(port)]);
        }
        if let Some(region) = self.region {
            command.args(["--region", region]);
        }
        // It ends with its standard input, so it cannot outlive this process, whatever ends that.
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C is for the narrator, who then stops the nodes in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.child = Some(command.spawn()?);
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Its own view of the cluster.
    pub async fn status(&self) -> Result<StatusReply, Trouble> {
        let (code, body) = self.request("GET", "/status", "").await?;
        if code != 200 {
            return Err(Trouble::new(format!("{} answered {code} to /status: {body}", self.name)));
        }
        serde_json::from_str(&body).map_err(|e| Trouble::new(format!("/status of {}: {e}", self.name)))
    }

    async fn request(&self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        client::request(&format!("127.0.0.1:{}", self.http), method, path, body, HTTP_LIMIT).await
    }

    /// Cuts it off from peers, or joins it to them again.
    pub async fn order(&self, order: &FaultOrder) -> Result<(), Trouble> {
        let body = serde_json::to_string(order).map_err(|e| Trouble::new(e.to_string()))?;
        match self.request("POST", "/faults", &body).await? {
            (200, _) => Ok(()),
            (code, reply) => Err(Trouble::new(format!("{} answered {code} to /faults: {reply}", self.name))),
        }
    }

    /// Waits until it serves SQL on both kinds of table.
    pub async fn wait_ready(&mut self) -> Result<(), Trouble> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                return Err(Trouble::new(format!(
                    "{} ended by itself ({status})\n{}",
                    self.name,
                    self.tail()
                )));
            }
            let reply = self.request("GET", "/ready", "").await;
            if matches!(reply, Ok((200, _))) {
                return Ok(());
            }
            if start.elapsed() > READY_LIMIT {
                let tail = self.tail();
                return Err(Trouble::new(format!(
                    "{} is not ready after {READY_LIMIT:?}: {reply:?}\n{tail}",
                    self.name
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A superuser's connection.
    pub async fn connect(&self) -> Result<Client, Trouble> {
        connect(self.pg, Duration::from_secs(5)).await
    }

    /// The last lines of its log.
    fn tail(&self) -> String {
        let log = String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n")
    }
}

/// A superuser's connection to a port of this machine.
pub async fn connect(port: u16, limit: Duration) -> Result<Client, Trouble> {
    connect_to("127.0.0.1", port, limit).await
}

/// A superuser's connection to a node anywhere.
pub async fn connect_to(host: &str, port: u16, limit: Duration) -> Result<Client, Trouble> {
    let mut config = Config::new();
    config.host(host).port(port).user("amphora").dbname("amphora").application_name("amphora demo");
    let connecting = tokio::time::timeout(limit, config.connect(NoTls)).await;
    let (client, connection) = connecting
        .map_err(|_| Trouble::new(format!("no connection to {host}:{port} within {limit:?}")))??;
    tokio::spawn(connection);
    Ok(client)
}

impl DemoCluster {
    /// Three nodes that have not been started, with their data below `dir`.
    pub fn new(dir: &Path, regions: [Option<&'static str>; 3]) -> Result<DemoCluster, Trouble> {
        let ports = free_ports().ok_or_else(|| Trouble::new("no nine free ports on 127.0.0.1"))?;
        let node = |i: usize, [pg, rpc, http]: [u16; 3]| DemoNode {
            name: format!("n{}", i + 1),
            pg,
            rpc,
            http,
            join: (i > 0).then_some(ports[0][1]),
            region: regions[i],
            data: dir.join(format!("n{}", i + 1)),
            log: dir.join(format!("n{}.log", i + 1)),
            child: None,
        };
        Ok(DemoCluster { nodes: ports.iter().enumerate().map(|(i, p)| node(i, *p)).collect() })
    }

    /// Starts all, and waits until all are ready and each votes and is known to be alive.
    pub async fn start(&mut self) -> Result<(), Trouble> {
        for node in &mut self.nodes {
            node.start()?;
        }
        for node in &mut self.nodes {
            node.wait_ready().await?;
        }
        let start = Instant::now();
        while !self.is_settled().await? {
            if start.elapsed() > READY_LIMIT {
                return Err(Trouble::new(format!("not all three nodes vote after {READY_LIMIT:?}")));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Whether all nodes see a leader, two more voters, and each other alive.
    async fn is_settled(&self) -> Result<bool, Trouble> {
        for node in &self.nodes {
            let members = node.status().await?.cluster.nodes;
            let good = members.iter().filter(|m| m.role != NodeRole::Learner && m.state == NodeState::Alive);
            let led = members.iter().any(|m| m.role == NodeRole::Leader);
            if good.count() != self.nodes.len() || !led {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the nodes are in regions.
    pub fn has_regions(&self) -> bool {
        self.nodes.iter().any(|n| n.region.is_some())
    }

    /// A node by its position.
    pub fn node(&self, i: usize) -> Result<&DemoNode, Trouble> {
        self.nodes.get(i).ok_or_else(|| Trouble::new(format!("there is no node {}", i + 1)))
    }

    /// A node by its position, to do things to.
    pub fn node_mut(&mut self, i: usize) -> Result<&mut DemoNode, Trouble> {
        self.nodes.get_mut(i).ok_or_else(|| Trouble::new(format!("there is no node {}", i + 1)))
    }

    /// Position of the leader, as the nodes that run see it.
    pub async fn leader(&self) -> Result<usize, Trouble> {
        let start = Instant::now();
        loop {
            for node in self.nodes.iter().filter(|n| n.child.is_some()) {
                let Ok(status) = node.status().await else { continue };
                let leader = status.cluster.nodes.iter().find(|n| n.role == NodeRole::Leader);
                let Some(leader) = leader else { continue };
                let found =
                    self.nodes.iter().position(|n| leader.pg_address.ends_with(&format!(":{}", n.pg)));
                if let Some(found) = found.filter(|i| self.nodes.get(*i).is_some_and(|n| n.child.is_some())) {
                    return Ok(found);
                }
            }
            if start.elapsed() > Duration::from_secs(20) {
                return Err(Trouble::new("no leader within 20 s"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Cuts every link between one node and the others, at both ends; or mends them.
    pub async fn isolate(&self, minority: usize, cut: bool) -> Result<(), Trouble> {
        let mut ids: Vec<NodeId> = Vec::new();
        for node in &self.nodes {
            ids.push(node.status().await?.node_id);
        }
        let alone = ids.get(minority).copied().unwrap_or_default();
        for (i, node) in self.nodes.iter().enumerate() {
            let peers: Vec<NodeId> = if i == minority {
                ids.iter().copied().filter(|id| *id != alone).collect()
            } else {
                vec![alone]
            };
            let order = if cut {
                FaultOrder { cut: peers, heal: vec![] }
            } else {
                FaultOrder { cut: vec![], heal: peers }
            };
            node.order(&order).await?;
        }
        Ok(())
    }

    /// Stops all in order; kills those that take too long.
    pub async fn stop(&mut self) {
        for node in &mut self.nodes {
            // The end of its standard input is a node's word to stop.
            drop(node.child.as_mut().and_then(|c| c.stdin.take()));
        }
        let start = Instant::now();
        for node in &mut self.nodes {
            let Some(child) = &mut node.child else { continue };
            while matches!(child.try_wait(), Ok(None)) && start.elapsed() < STOP_LIMIT {
                tokio::time::sleep(POLL).await;
            }
            node.kill();
        }
    }
}

impl Drop for DemoCluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
    }
}

/// SQL, RPC and HTTP ports for three nodes: the usual ones if they are free, else higher ones.
fn free_ports() -> Option<[[u16; 3]; 3]> {
    let free = |port: u16| {
        TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok()
    };
    (0..100).map(|n| n * 10).find_map(|offset| {
        let ports = [0, 1, 2].map(|i| [5433 + offset + i, 7433 + offset + i, 8433 + offset + i]);
        ports.iter().flatten().all(|port| free(*port)).then_some(ports)
    })
}

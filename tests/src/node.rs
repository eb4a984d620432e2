//! One process under test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::Client;

use crate::load::connect;

/// A node: its directory, addresses and, while it runs, its process.
pub struct Node {
    /// Everything it keeps
    pub data_dir: PathBuf,
    /// PostgreSQL port
    pub pg: String,
    /// RPC address
    pub rpc: String,
    /// HTTP address
    pub http: String,
    /// The network namespace it lives in, if not the root's
    pub namespace: Option<String>,
    /// Environment for its process (clock skew, fault injection)
    pub environment: Vec<(String, String)>,
    /// RPC addresses of those whom it joins when its directory is empty
    pub join: Vec<String>,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// A node that has not been started. `arguments` come after the addresses.
    pub fn new(
        dir: &Path,
        name: &str,
        pg: String,
        rpc: String,
        http: String,
        arguments: Vec<String>,
    ) -> Node {
        Node {
            data_dir: dir.join(name),
            log: dir.join(format!("{name}.log")),
            pg,
            rpc,
            http,
            namespace: None,
            environment: Vec::new(),
            join: Vec::new(),
            arguments,
            child: None,
        }
    }

    /// The command line that starts it.
    pub fn command(&self) -> Command {
        let binary = crate::binary();
        let mut command = match &self.namespace {
            None => Command::new(binary),
            Some(ns) => {
                let mut c = Command::new("ip");
                c.args(["netns", "exec", ns]).arg(binary);
                c
            }
        };
        command
            .arg("start")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen", &self.pg, "--rpc-listen", &self.rpc, "--http-listen", &self.http])
            .args(&self.arguments)
            .args((!self.join.is_empty()).then(|| format!("--join={}", self.join.join(","))))
            .envs(self.environment.iter().cloned());
        command
    }

    /// Starts the process. Its output goes to the end of its log.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "the node runs already");
        let log = std::fs::File::options().create(true).append(true).open(&self.log).expect("a log file");
        let child = self
            .command()
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        self.child = Some(child);
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// True if it was started and neither killed nor stopped by this harness.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    fn signal(&self, signal: i32) {
        let pid = self.pid() as libc::pid_t;
        // SAFETY: sends a signal to a child of ours that has not been waited for, so the id is still its.
        #[allow(unsafe_code)]
        let result = unsafe { libc::kill(pid, signal) };
        assert_eq!(result, 0, "signal {signal} to node {pid}");
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        self.child.take().expect("the node runs").wait().expect("its end");
    }

    /// SIGTERM, and waits for the end; the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(libc::SIGTERM);
        self.child.take().expect("the node runs").wait().expect("its end").code()
    }

    /// SIGSTOP: the process is there and does nothing.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Starts it again on the same directory.
    pub fn restart(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        self.start();
    }

    /// Removes all that it keeps. The directory itself, which may be a file system of its own, stays.
    pub fn empty_directory(&self) {
        assert!(self.child.is_none(), "the node runs");
        for entry in std::fs::read_dir(&self.data_dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.expect("what a dead node has left can be removed");
        }
    }

    /// Waits for the process to end by itself; its exit code.
    pub async fn wait_exit(&mut self, limit: Duration) -> Option<i32> {
        let start = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().expect("the node runs").try_wait().expect("its state") {
                self.child = None;
                return status.code();
            }
            assert!(start.elapsed() < limit, "the node has not ended within {limit:?}\n{}", self.tail(40));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// All it has written to its log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of its log.
    pub fn tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// A connection as superuser, if the node takes one within `limit`.
    pub async fn try_client(&self, limit: Duration) -> Result<Client, tokio_postgres::Error> {
        connect(&self.pg, limit).await
    }

    /// A connection as superuser; waits for the node to take it.
    pub async fn client(&self) -> Client {
        let start = std::time::Instant::now();
        loop {
            match self.try_client(Duration::from_secs(5)).await {
                Ok(client) => return client,
                Err(e) if start.elapsed() > Duration::from_secs(20) => {
                    panic!("cannot connect to {}: {e}\n{}", self.pg, self.tail(40))
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// An HTTP request without a body; status and body.
    pub async fn http(&self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        self.http_from(&format!("Host: {}\r\n", self.http), method, path, body).await
    }

    /// The same, with headers that say who asks, and whom.
    pub async fn http_from(
        &self,
        headers: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> std::io::Result<(u16, String)> {
        let exchange = async {
            let mut stream = tokio::net::TcpStream::connect(&self.http).await?;
            let request = format!(
                "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(request.as_bytes()).await?;
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await?;
            let status = reply.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
            let body = reply.split_once("\r\n\r\n").map(|(_, b)| b.to_owned()).unwrap_or_default();
            Ok((status, body))
        };
        tokio::time::timeout(Duration::from_secs(5), exchange)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }

    /// True if `/ready` says so.
    pub async fn is_ready(&self) -> bool {
        matches!(self.http("GET", "/ready", "").await, Ok((200, _)))
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("proc");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number") * 1024
    }

    /// Processor time used so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("proc");
        let after = stat.rsplit_once(')').expect("the name's end").1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap_or(0) + fields[12].parse::<u64>().unwrap_or(0);
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        if std::thread::panicking() {
            eprintln!("--- last lines of {} ---\n{}", self.log.display(), self.tail(60));
        }
    }
}

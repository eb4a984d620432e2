//! A private PostgreSQL server, to compare with: made by `initdb` in a scratch directory, gone when dropped.
//!
//! PostgreSQL refuses to run as root, so under root its processes are those of the package's user
//! `postgres`. Its defaults are the ones Amphora has: text ordered by bytes, the letters of Unicode, UTF-8, the time zone UTC, and a
//! superuser `amphora` with a database of that name who need not show a password.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

use crate::free_port;

/// The version that is the specification, where the machine has several.
const WANTED: u32 = 15;

/// A running server.
pub struct Postgres {
    child: Child,
    port: u16,
    dir: TempDir,
}

/// Who may own a server: `None` if we may ourselves.
#[derive(Debug, Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// Starts a server and waits until it takes connections.
    pub async fn start() -> Postgres {
        let bin = programs();
        let dir = tempfile::Builder::new().prefix("amphora-postgres-").tempdir().expect("a directory");
        let owner = owner();
        if let Some(owner) = owner {
            std::os::unix::fs::chown(dir.path(), Some(owner.uid), Some(owner.gid)).expect("chown");
        }
        let data = dir.path().join("data");
        let made = command(&bin.join("initdb"), owner, dir.path())
            .args(["--no-sync", "--username=amphora", "--auth=trust", "--encoding=UTF8"])
            .args(["--lc-collate=C", "--lc-ctype=C.UTF-8"])
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let log = std::fs::File::create(dir.path().join("log")).expect("a log file");
        let child = command(&bin.join("postgres"), owner, dir.path())
            .arg("-D")
            .arg(&data)
            .arg(format!("-p{port}"))
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"])
            .args(["-c", "timezone=UTC", "-c", "log_timezone=UTC", "-c", "jit=off", "-c", "autovacuum=off"])
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("postgres starts");
        let server = Postgres { child, port, dir };
        let start = Instant::now();
        loop {
            match server.try_client("postgres").await {
                Ok(client) => {
                    client.batch_execute("CREATE DATABASE amphora").await.expect("a database");
                    return server;
                }
                Err(e) if start.elapsed() > Duration::from_secs(30) => {
                    let log = std::fs::read_to_string(server.dir.path().join("log")).unwrap_or_default();
                    panic!("PostgreSQL takes no connections: {e}\n{log}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(30)).await,
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How to connect to its database `amphora`.
    pub fn config(&self) -> Config {
        self.config_of("amphora")
    }

    /// How to connect to a database.
    pub fn config_of(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user("amphora").dbname(database);
        config
    }

    async fn try_client(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config_of(database).connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A new, empty database. Amphora has the collation `C` and so has this.
    pub async fn create_database(&self, name: &str) -> Config {
        let client = self.try_client("postgres").await.expect("a connection");
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database");
        self.config_of(name)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's fast shutdown; its backends end with it.
        let pid = self.child.id() as libc::pid_t;
        // SAFETY: sends a signal to a child of ours that has not been waited for, so the id is still its.
        #[allow(unsafe_code)]
        unsafe {
            libc::kill(pid, libc::SIGINT);
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(program: &Path, owner: Option<Owner>, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).stdin(Stdio::null()).env("LC_ALL", "C").env("TZ", "UTC");
    if let Some(Owner { uid, gid }) = owner {
        command.gid(gid).uid(uid);
    }
    command
}

/// The folder of PostgreSQL's programs: of version 15 if it is there, else of the newest.
pub fn programs() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<u32> =
        installed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    versions.sort_by_key(|&version| (version == WANTED, version));
    if let Some(version) = versions.last() {
        return format!("/usr/lib/postgresql/{version}/bin").into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).find(|dir| dir.join("initdb").exists());
    found.expect("PostgreSQL's initdb: `make setup` installs the package postgresql")
}

fn owner() -> Option<Owner> {
    // SAFETY: asks the kernel for a number.
    #[allow(unsafe_code)]
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = ["postgres:", "nobody:"].iter().find_map(|user| users.lines().find(|l| l.starts_with(user)));
    let fields: Vec<&str> = line.expect("a user postgres").split(':').collect();
    Some(Owner { uid: fields[2].parse().expect("a uid"), gid: fields[3].parse().expect("a gid") })
}

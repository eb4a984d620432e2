//! The opponent: PostgreSQL 15 with two streaming standbys, in a folder of its own.
//!
//! ```text
//!              ┌─► standby s1 ─┐  ANY 1 of both has flushed
//!   primary ───┤               ├─────────────────────────────► commit is acknowledged
//!              └─► standby s2 ─┘  (asynchronous: neither)
//! ```
//!
//! Which of the two it is lies in `postgresql.auto.conf` and not on the command line, so that it can be
//! changed while the servers run; `pg_stat_replication` is asked whether it has come about.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use amphora_tests::{eventually, free_port};
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::pgbench::Target;

/// Memory for pages; the operating system's cache has the rest, as PostgreSQL's manual advises.
const SETTINGS: &str = "
fsync = on
synchronous_commit = on
full_page_writes = on
shared_buffers = 512MB
max_connections = 200
wal_level = replica
max_wal_senders = 8
max_wal_size = 4GB
hot_standby = on
listen_addresses = '127.0.0.1'
log_checkpoints = off
";

/// A primary and its two standbys.
pub struct Postgres {
    bin: PathBuf,
    dir: TempDir,
    primary: u16,
}

impl Postgres {
    /// Makes and starts all three.
    pub async fn start() -> Postgres {
        let bin = binaries();
        let dir = tempfile::Builder::new().prefix("amphora-bench-pg-").tempdir().expect("a scratch folder");
        let postgres = Postgres { bin, dir, primary: free_port() };
        postgres.own_folder();
        postgres.make_primary();
        for name in ["s1", "s2"] {
            postgres.make_standby(name);
        }
        postgres.client().await.batch_execute("CREATE DATABASE amphora").await.unwrap();
        postgres
    }

    /// Where pgbench connects.
    pub fn target(&self) -> Target {
        Target { port: self.primary }
    }

    /// Makes commits wait for one of the standbys, or for neither.
    pub async fn set_synchronous(&self, synchronous: bool) {
        let names = if synchronous { "ANY 1 (s1, s2)" } else { "" };
        let client = self.client().await;
        client
            .batch_execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"))
            .await
            .unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let state = if synchronous { "quorum" } else { "async" };
        let client = &client;
        eventually("both standbys stream as told", Duration::from_secs(30), || async move {
            let query =
                "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = $1";
            client.query_one(query, &[&state]).await.is_ok_and(|row| row.get::<_, i64>(0) == 2)
        })
        .await;
    }

    async fn client(&self) -> Client {
        let config = format!("host=127.0.0.1 port={} user=amphora dbname=postgres", self.primary);
        let (client, connection) =
            tokio_postgres::connect(&config, tokio_postgres::NoTls).await.expect("PostgreSQL answers");
        tokio::spawn(connection);
        client
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// PostgreSQL refuses to run as root; who runs it must own its folder.
    fn own_folder(&self) {
        if is_root() {
            let owned = Command::new("chown").arg("postgres").arg(self.dir.path()).status();
            assert!(owned.is_ok_and(|s| s.success()), "the scratch folder is given to user postgres");
        }
    }

    fn make_primary(&self) {
        let folder = self.folder("primary");
        self.run("initdb", |c| {
            c.args(["--username=amphora", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-D"]);
            c.arg(&folder);
        });
        self.configure(&folder, SETTINGS);
        self.start_server(&folder, self.primary);
    }

    fn make_standby(&self, name: &str) {
        let folder = self.folder(name);
        let source = format!("host=127.0.0.1 port={} user=amphora application_name={name}", self.primary);
        self.run("pg_basebackup", |c| {
            c.args([
                "--checkpoint=fast",
                "--write-recovery-conf",
                "--wal-method=stream",
                "-d",
                &source,
                "-D",
            ]);
            c.arg(&folder);
        });
        self.start_server(&folder, free_port());
    }

    /// Adds settings to a folder's file, as whoever owns it.
    fn configure(&self, folder: &Path, settings: &str) {
        let path = folder.join("postgresql.conf");
        let mut text = std::fs::read_to_string(&path).expect("postgresql.conf");
        text.push_str(settings);
        std::fs::write(&path, text).expect("postgresql.conf");
    }

    fn start_server(&self, folder: &Path, port: u16) {
        let options = format!("-p {port} -c unix_socket_directories={}", self.dir.path().display());
        let log = folder.with_extension("log");
        self.run("pg_ctl", |c| {
            c.args(["start", "--wait", "--silent", "-o", &options, "-l"]).arg(&log).arg("-D").arg(folder);
        });
    }

    fn run(&self, program: &str, arguments: impl FnOnce(&mut Command)) {
        let mut command = self.command(program);
        arguments(&mut command);
        let output = command.stdin(Stdio::null()).output().expect("a program of PostgreSQL's runs");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The program, run as user postgres if this is root.
    fn command(&self, program: &str) -> Command {
        let path = self.bin.join(program);
        let mut command = if is_root() {
            let mut c = Command::new("runuser");
            c.args(["-u", "postgres", "--"]).arg(path);
            c
        } else {
            Command::new(path)
        };
        command.current_dir(self.dir.path()).stdout(Stdio::null());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        for name in ["s1", "s2", "primary"] {
            let mut stop = self.command("pg_ctl");
            let stopped = stop.args(["stop", "--mode=immediate", "-D"]).arg(self.folder(name)).output();
            if let Err(e) = stopped {
                eprintln!("PostgreSQL's {name} was not stopped: {e}");
            }
        }
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

fn binaries() -> PathBuf {
    let path = std::env::var_os("PG_BIN").map_or("/usr/lib/postgresql/15/bin".into(), PathBuf::from);
    assert!(
        path.join("initdb").exists(),
        "PostgreSQL 15's programs are not in {}: bench/run.sh installs them, or set PG_BIN",
        path.display()
    );
    path
}

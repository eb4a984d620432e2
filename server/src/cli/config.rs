//! How a node is configured: flags, over the file of `--config`, over defaults.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use amphora_replication::leaderless::OpLogLimits;
use amphora_replication::strong::LogLimits;
use amphora_replication::verify::VerifyOptions;
use amphora_sql::index::SQL_INDEXES;
use clap::Args;
use serde::Deserialize;

use super::Failure;
use super::preference::LeaderPreference;
use crate::process::LogFormat;

/// What is read from disk stays in so much memory, unless the configuration says otherwise.
const MIN_CACHE_BYTES: usize = 48 << 20;
const MAX_CACHE_BYTES: usize = 4 << 30;
/// Writes that are not committed have so much memory at least.
const MIN_WRITE_MEMORY: usize = 1152 << 20;

/// `host:port`. The host is a name or an address; IPv6 addresses stand in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address, without brackets
    pub host: String,
    /// Port; 0 lets the system choose
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<HostPort, String> {
        let expected = "expected HOST:PORT, as in 127.0.0.1:5433";
        let (host, port) = text.rsplit_once(':').ok_or(expected)?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = match bare {
            Some(v6) => v6,
            None if host.contains(':') => return Err("put an IPv6 address in brackets: [::1]:5433".into()),
            None => host,
        };
        if host.is_empty() {
            return Err(expected.into());
        }
        let port = port.parse().map_err(|_| format!("\"{port}\" is not a port (0 to 65535)"))?;
        Ok(HostPort { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<HostPort, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl HostPort {
    /// True if only this machine can reach it.
    fn is_loopback(&self) -> bool {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return ip.is_loopback();
        }
        let addresses = (self.host.as_str(), self.port).to_socket_addrs();
        addresses.is_ok_and(|addresses| {
            let addresses: Vec<SocketAddr> = addresses.collect();
            !addresses.is_empty() && addresses.iter().all(|a| a.ip().is_loopback())
        })
    }
}

/// A number greater than zero, with or without a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Amount(f64);

impl Amount {
    /// So many times so many seconds, for ten years at most.
    fn times(self, seconds: u32) -> Duration {
        Duration::from_secs_f64((self.0 * f64::from(seconds)).min(10.0 * 365.0 * 86_400.0))
    }
}

impl TryFrom<f64> for Amount {
    type Error = String;

    fn try_from(n: f64) -> Result<Amount, String> {
        match n.is_finite() && n > 0.0 {
            true => Ok(Amount(n)),
            false => Err(format!("expected a number greater than 0, not {n}")),
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Amount, String> {
        let n: f64 = text.parse().map_err(|_| format!("expected a number greater than 0, not \"{text}\""))?;
        Amount::try_from(n)
    }
}

/// The flags of `amphora start`. A configuration file has the same names without the dashes in front.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct StartArgs {
    /// Where the node keeps everything [default: ./amphora-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where SQL clients connect [default: 127.0.0.1:5433]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<HostPort>,
    /// Where the other nodes connect [default: 127.0.0.1:7433]
    #[arg(long, value_name = "HOST:PORT")]
    pub rpc_listen: Option<HostPort>,
    /// Where /health, /ready and /status are [default: 127.0.0.1:8433]
    #[arg(long, value_name = "HOST:PORT")]
    pub http_listen: Option<HostPort>,
    /// Where the others reach --rpc-listen, if not there
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_rpc: Option<HostPort>,
    /// Where clients reach --listen, if not there
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_pg: Option<HostPort>,
    /// Where clients reach --http-listen, if not there
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_http: Option<HostPort>,
    /// RPC addresses of members of the cluster to join; without it a new cluster is founded
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub join: Vec<HostPort>,
    /// The region the node is in
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// Join as a read replica: it has all data and serves all statements, and never votes
    #[arg(long)]
    pub learner: bool,
    /// Leadership moves to the healthy voter with the greatest preference; REGION=N is for nodes of that
    /// region, so that all nodes may be started with the same list [default: 0]
    #[arg(long, value_name = "N|REGION=N,…", allow_negative_numbers = true)]
    pub leader_preference: Option<LeaderPreference>,
    /// Listen beyond loopback without encryption
    #[arg(long)]
    pub insecure: bool,
    /// SQL sessions at a time [default: 1000]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<usize>,
    /// Raft log entries kept for nodes that were away; one further behind gets a snapshot [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(100..))]
    pub raft_log_keep: Option<u64>,
    /// Megabytes of them, at most [default: 512]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(16..))]
    pub raft_log_size: Option<u64>,
    /// Megabytes a second with which a snapshot is sent to a node that is too far behind [default: 64]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..))]
    pub snapshot_rate: Option<u64>,
    /// Megabytes of the op log of leaderless tables, at most, of what a node that is away lacks [default: 4096]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(16..))]
    pub op_log_size: Option<u64>,
    /// Hours that it is kept for such a node; one that is away for longer is sent the rows [default: 168]
    #[arg(long, value_name = "HOURS")]
    pub op_log_age: Option<Amount>,
    /// Megabytes a second that a node is sent that catches up with leaderless tables [default: 64]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..))]
    pub catch_up_rate: Option<u64>,
    /// Hours that a transaction's snapshot keeps old versions of rows; then its reads are refused [default: 24]
    #[arg(long, value_name = "HOURS")]
    pub longest_snapshot: Option<Amount>,
    /// Minutes that old versions of rows can be read AS OF SYSTEM TIME [default: 10]
    #[arg(long, value_name = "MINUTES")]
    pub history: Option<Amount>,
    /// Memory for what is read from disk, in MB [default: an eighth of the machine's]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(8..))]
    pub cache_size: Option<u64>,
    /// Memory for the writes of all transactions until they commit, in MB
    /// [default: a quarter of the machine's]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(16..))]
    pub write_memory: Option<u64>,
    /// Hours between two comparisons of all replicas of strong tables, in the background; 0 makes none
    /// [default: 24]
    #[arg(long, value_name = "HOURS")]
    pub verify_every: Option<u32>,
    /// MB that each node reads in a second for that, at most [default: 8]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u32).range(1..))]
    pub verify_rate: Option<u32>,
    /// How log lines look
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// A TOML file with these settings; flags win
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Lets POST /faults cut this node off from peers
    #[arg(long, hide = true)]
    pub enable_faults: bool,
    /// With the fault switch: milliseconds added to each call to a node of another region
    #[arg(long, value_name = "MS", hide = true, requires = "enable_faults", value_parser = clap::value_parser!(u64).range(..=2000))]
    pub region_latency: Option<u64>,
    /// Stops the node when its standard input ends
    #[arg(long, hide = true)]
    #[serde(skip)]
    pub stop_with_stdin: bool,
}

/// How a node is to run.
#[derive(Clone, Debug)]
pub struct StartConfig {
    /// Where it keeps everything
    pub data_dir: PathBuf,
    /// SQL
    pub listen: HostPort,
    /// Peers
    pub rpc_listen: HostPort,
    /// HTTP
    pub http_listen: HostPort,
    /// Where peers reach it
    pub advertise_rpc: Option<HostPort>,
    /// Where SQL clients reach it
    pub advertise_pg: Option<HostPort>,
    /// Where HTTP clients reach it
    pub advertise_http: Option<HostPort>,
    /// Members of the cluster to join
    pub join: Vec<HostPort>,
    /// Its region
    pub region: String,
    /// Whether it joins as a read replica
    pub learner: bool,
    /// How much it is preferred as the leader
    pub leader_preference: i32,
    /// SQL sessions at a time
    pub max_connections: usize,
    /// Raft log entries kept for nodes that were away
    pub raft_log_keep: u64,
    /// Their bytes, at most
    pub raft_log_bytes: u64,
    /// Bytes a second of a snapshot that is sent
    pub snapshot_rate: u64,
    /// How much op log is kept for nodes that are away, and how fast they are helped back
    pub op_log: OpLogLimits,
    /// How long a running snapshot keeps old versions
    pub longest_snapshot: Duration,
    /// How long old versions can be read
    pub history: Duration,
    /// Bytes of memory for what is read from disk
    pub cache_bytes: usize,
    /// Bytes of memory for the writes of all transactions until they commit
    pub write_memory: usize,
    /// How replicas are compared in the background
    pub verify: VerifyOptions,
    /// How log lines look
    pub log_format: LogFormat,
    /// The fault switch
    pub enable_faults: bool,
    /// What is added to each call to a node of another region
    pub region_latency: Option<Duration>,
    /// Stop when standard input ends
    pub stop_with_stdin: bool,
}

impl StartConfig {
    /// Flags over file over defaults, checked.
    pub fn build(args: StartArgs) -> Result<StartConfig, Failure> {
        let file = match &args.config {
            Some(path) => read_file(path)?,
            None => StartArgs::default(),
        };
        let insecure = args.insecure || file.insecure;
        let limits = LogLimits::default();
        let local = |port| HostPort { host: "127.0.0.1".into(), port };
        let region = args.region.or(file.region).unwrap_or_default();
        let preference = args.leader_preference.or(file.leader_preference);
        let config = StartConfig {
            data_dir: args.data_dir.or(file.data_dir).unwrap_or_else(|| PathBuf::from("./amphora-data")),
            listen: args.listen.or(file.listen).unwrap_or_else(|| local(5433)),
            rpc_listen: args.rpc_listen.or(file.rpc_listen).unwrap_or_else(|| local(7433)),
            http_listen: args.http_listen.or(file.http_listen).unwrap_or_else(|| local(8433)),
            advertise_rpc: args.advertise_rpc.or(file.advertise_rpc),
            advertise_pg: args.advertise_pg.or(file.advertise_pg),
            advertise_http: args.advertise_http.or(file.advertise_http),
            join: if args.join.is_empty() { file.join } else { args.join },
            region: region.clone(),
            learner: args.learner || file.learner,
            leader_preference: preference.map_or(0, |preference| preference.of(&region)),
            max_connections: args.max_connections.or(file.max_connections).unwrap_or(1000),
            raft_log_keep: args.raft_log_keep.or(file.raft_log_keep).unwrap_or(limits.keep).max(100),
            raft_log_bytes: args
                .raft_log_size
                .or(file.raft_log_size)
                .map_or(limits.keep_bytes, |mb| mb.max(16) << 20),
            snapshot_rate: args
                .snapshot_rate
                .or(file.snapshot_rate)
                .map_or(limits.snapshot_rate, |mb| mb.max(1) << 20),
            op_log: op_log_limits(
                args.op_log_size.or(file.op_log_size),
                args.op_log_age.or(file.op_log_age),
                args.catch_up_rate.or(file.catch_up_rate),
            ),
            longest_snapshot: args
                .longest_snapshot
                .or(file.longest_snapshot)
                .map_or(limits.longest_snapshot, |hours| hours.times(3600)),
            history: args.history.or(file.history).map_or(limits.history, |minutes| minutes.times(60)),
            cache_bytes: args
                .cache_size
                .or(file.cache_size)
                .map_or_else(default_cache_bytes, |mb| (mb.max(8) as usize) << 20),
            write_memory: args
                .write_memory
                .or(file.write_memory)
                .map_or_else(default_write_memory, |mb| (mb.max(16) as usize) << 20),
            verify: verify_options(
                args.verify_every.or(file.verify_every),
                args.verify_rate.or(file.verify_rate),
            ),
            log_format: args.log_format.or(file.log_format).unwrap_or_default(),
            enable_faults: args.enable_faults || file.enable_faults,
            region_latency: args.region_latency.or(file.region_latency).map(Duration::from_millis),
            stop_with_stdin: args.stop_with_stdin,
        };
        if !insecure {
            config.refuse_strangers()?;
        }
        Ok(config)
    }

    /// Beyond loopback anybody could read and write everything.
    fn refuse_strangers(&self) -> Result<(), Failure> {
        let listeners = [
            ("--listen", &self.listen),
            ("--rpc-listen", &self.rpc_listen),
            ("--http-listen", &self.http_listen),
        ];
        for (flag, address) in listeners {
            if !address.is_loopback() {
                return Err(Failure::usage(
                    format!("refuses to listen on {address} ({flag})"),
                    "this version has no encryption, and its peers' port asks for no password, so anybody who \
                     reaches that address could read and write all data",
                )
                .next(
                    "listen on 127.0.0.1, or, in a network you trust as a whole, add --insecure \
                     (certificates, --certs-dir, come in a later version)",
                ));
            }
        }
        Ok(())
    }
}

/// How often, in hours, and how fast, in MB a second, replicas are compared.
fn verify_options(hours: Option<u32>, rate: Option<u32>) -> VerifyOptions {
    let default = VerifyOptions::default();
    VerifyOptions {
        every: hours.map_or(default.every, |hours| Duration::from_secs(u64::from(hours) * 3600)),
        bytes_per_second: rate.map_or(default.bytes_per_second, |mb| u64::from(mb.max(1)) << 20),
        indexes: Some(&SQL_INDEXES),
    }
}

fn op_log_limits(size: Option<u64>, age: Option<Amount>, rate: Option<u64>) -> OpLogLimits {
    let default = OpLogLimits::default();
    OpLogLimits {
        bytes: size.map_or(default.bytes, |mb| mb.max(16) << 20),
        age: age.map_or(default.age, |hours| hours.times(3600)),
        catch_up_rate: rate.map_or(default.catch_up_rate, |mb| mb.max(1) << 20),
        ..default
    }
}

/// An eighth of the machine's memory, within reason: the operating system caches files too.
fn default_cache_bytes() -> usize {
    (total_memory() / 8).clamp(MIN_CACHE_BYTES, MAX_CACHE_BYTES)
}

/// A quarter of the machine's memory, and room for one large transaction.
fn default_write_memory() -> usize {
    (total_memory() / 4).max(MIN_WRITE_MEMORY)
}

/// The machine's memory in bytes; 0 if it does not say.
fn total_memory() -> usize {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|t| t.split_whitespace().next()?.parse::<usize>().ok()).unwrap_or(0);
    kilobytes * 1024
}

fn read_file(path: &Path) -> Result<StartArgs, Failure> {
    let failed = |why: &dyn fmt::Display| {
        Failure::usage(format!("could not read the configuration {}", path.display()), why)
            .next("the file is TOML with the flags' names: data-dir = \"…\", listen = \"127.0.0.1:5433\", join = [\"…\"]")
    };
    let text = std::fs::read_to_string(path).map_err(|e| failed(&e))?;
    toml::from_str(&text).map_err(|e| failed(&e.to_string().trim_end()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("amphora.toml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let text =
            "data-dir = \"/d\"\nlisten = \"127.0.0.1:1\"\nhttp-listen = \"[::1]:2\"\njoin = [\"a:1\"]\n";
        let (_dir, path) = file(text);
        let listen = Some("127.0.0.1:7".parse().unwrap());
        let args = StartArgs { config: Some(path), listen, ..StartArgs::default() };
        let config = StartConfig::build(args).unwrap();
        assert_eq!(config.data_dir, Path::new("/d"));
        assert_eq!(config.listen.to_string(), "127.0.0.1:7");
        assert_eq!(config.http_listen.to_string(), "[::1]:2");
        assert_eq!(config.rpc_listen.to_string(), "127.0.0.1:7433");
        assert_eq!(config.join.len(), 1);
    }

    #[test]
    fn a_bad_file_is_named() {
        for text in ["lisen = \"127.0.0.1:1\"", "listen = \"nowhere\"", "listen = 5", "]"] {
            let (_dir, path) = file(text);
            let args = StartArgs { config: Some(path), ..StartArgs::default() };
            let failure = StartConfig::build(args).expect_err("refused");
            assert!(failure.code == 2 && failure.to_string().contains("amphora.toml"), "{failure}");
        }
        let args = StartArgs { config: Some("/no/such/file".into()), ..StartArgs::default() };
        assert!(StartConfig::build(args).is_err());
    }

    #[test]
    fn beyond_loopback_needs_a_word() {
        for host in ["0.0.0.0:5433", "10.0.0.1:5433", "[::]:5433"] {
            let args = StartArgs { http_listen: Some(host.parse().unwrap()), ..StartArgs::default() };
            let failure = StartConfig::build(args.clone()).expect_err("refused");
            assert!(failure.to_string().contains("--insecure"), "{failure}");
            assert!(StartConfig::build(StartArgs { insecure: true, ..args }).is_ok());
        }
        let args = StartArgs { listen: Some("localhost:5433".parse().unwrap()), ..StartArgs::default() };
        assert!(StartConfig::build(args).is_ok());
    }

    #[test]
    fn amounts() {
        let hours = |text: &str| text.parse::<Amount>().map(|amount| amount.times(3600));
        assert_eq!(
            (hours("24"), hours("0.5")),
            (Ok(Duration::from_secs(86_400)), Ok(Duration::from_secs(1800)))
        );
        assert!(hours("1e300").is_ok());
        for bad in ["", "0", "-1", "x", "NaN", "inf", "1e400"] {
            assert!(hours(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn preference_by_region() {
        let of = |text: &str, region: &str| {
            let preference = text.parse().unwrap();
            let region = Some(region.to_owned());
            let args = StartArgs { leader_preference: Some(preference), region, ..StartArgs::default() };
            StartConfig::build(args).unwrap().leader_preference
        };
        assert_eq!((of("7", ""), of("-7", "eu")), (7, -7));
        let list = "eu=10, us-east=5,1";
        assert_eq!((of(list, "eu"), of(list, "us-east"), of(list, "ap"), of(list, "")), (10, 5, 1, 1));
        assert_eq!((of("eu=-1", "eu"), of("eu=-1", "us")), (-1, 0));
        for bad in ["", "x", "eu=", "=1", "eu=1,eu=2", "1,2", "eu=1,,us=2", "99999999999"] {
            assert!(bad.parse::<LeaderPreference>().is_err(), "{bad}");
        }
        let (_dir, path) = file("region = \"us\"\nleader-preference = \"eu=2,us=1\"\n");
        let args = StartArgs { config: Some(path), ..StartArgs::default() };
        assert_eq!(StartConfig::build(args).unwrap().leader_preference, 1);
        let (_dir, path) = file("leader-preference = 3\n");
        let args = StartArgs { config: Some(path), ..StartArgs::default() };
        assert_eq!(StartConfig::build(args).unwrap().leader_preference, 3);
    }

    #[test]
    fn addresses() {
        for bad in ["", "5433", ":5433", "host:", "host:x", "host:65536", "::1:5433", "[]:1"] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
        let v6: HostPort = "[::1]:0".parse().unwrap();
        assert_eq!((v6.host.as_str(), v6.port, v6.to_string().as_str()), ("::1", 0, "[::1]:0"));
    }
}

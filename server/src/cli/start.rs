//! `amphora start`: a node, from its configuration to its last log line.
//!
//! ```text
//!   bind HTTP and SQL ──▶ /health answers, SQL says 57P03 ──▶ Node::start (may wait to be let in)
//!     ──▶ SQL is served ──▶ a signal ──▶ leadership is handed over ──▶ sessions end ──▶ all is flushed ──▶ 0
//! ```

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use amphora_replication::node::{Node, NodeConfig};
use amphora_replication::strong::{LogLimits, Timing};
use amphora_sql::analyze::auto;
use amphora_storage::StoreOptions;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Failure, HostPort, StartArgs, StartConfig, latency, say};
use crate::http::{self, KnownHosts, NodeSlot};
use crate::process::{self, StopSignals};
use crate::sessions::{Directory, Sessions};
use crate::wire::PgServer;

/// The role that keeps statistics: it owns what the system owns.
const SYSTEM_ROLE: &str = "amphora";

/// How long the node may take to hand over and flush.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// Runs a node until it is told to stop.
pub async fn run(args: StartArgs) -> Result<(), Failure> {
    let config = StartConfig::build(args)?;
    process::start_log(config.log_format);
    process::log_panics();
    process::raise_file_limit();
    let mut signals = StopSignals::listen().map_err(|e| Failure::new("could not listen for signals", e))?;
    let parent = if config.stop_with_stdin { end_of_stdin() } else { CancellationToken::new() };

    let listeners = Listeners::bind(&config).await?;
    let slot = NodeSlot::default();
    let stop_http = CancellationToken::new();
    let advertised = config.advertise_http.iter().chain([&config.http_listen]);
    let known = KnownHosts::new(advertised.map(|at| at.host.clone()));
    let stop = stop_http.clone();
    let serving = tokio::spawn(http::serve(listeners.http, slot.clone(), known, config.enable_faults, stop));
    let sql = PgServer::start(listeners.pg, Sessions::new(slot.clone()), config.max_connections);
    let sql = Arc::new(sql.map_err(|e| Failure::new("could not start threads for sessions", e))?);

    let starting = Node::start(node_config(&config, listeners.pg_at, listeners.http_at));
    let node = tokio::select! {
        node = starting => node.map_err(|e| {
            let failure = Failure::from_error("the node could not start", &e);
            tracing::error!(sqlstate = e.sqlstate, "the node could not start: {}", failure.why);
            failure
        })?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before the node had started");
            return Ok(());
        }
        () = parent.cancelled() => return Ok(()),
    };
    node.count_sessions_by(sql.counter());
    node.list_sessions_by(Arc::new(Directory::new(&node, sql.canceller())));
    let draining = tokio::spawn(drain(node.draining(), Arc::clone(&sql)));
    // Empty until here, and set nowhere else.
    let _ = slot.set(Arc::clone(&node));
    announce(&config, &node, listeners.pg_at, listeners.http_at);

    let far = config.region_latency.map(|latency| tokio::spawn(latency::keep(Arc::clone(&node), latency)));
    let analyzing = tokio::spawn(auto::run(node.clone(), SYSTEM_ROLE));
    let why = tokio::select! {
        signal = signals.next() => signal,
        () = parent.cancelled() => "the end of its standard input",
    };
    tracing::info!(why, "stopping; a second signal stops at once");
    analyzing.abort();
    draining.abort();
    if let Some(far) = far {
        far.abort();
    }
    let stopping = async {
        node.hand_over().await;
        sql.stop().await;
        if tokio::time::timeout(SHUTDOWN_LIMIT, node.shutdown()).await.is_err() {
            tracing::warn!("the node did not stop in time; what it acknowledged is on disk");
        }
        stop_http.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
    };
    tokio::select! {
        () = stopping => tracing::info!("stopped"),
        signal = signals.next() => tracing::warn!(signal, "stopped at once"),
    }
    Ok(())
}

/// Sends clients away when the node is drained.
async fn drain(draining: CancellationToken, sql: Arc<PgServer>) {
    draining.cancelled().await;
    sql.drain();
}

/// The ports that this crate serves; the node binds its own.
struct Listeners {
    pg: TcpListener,
    pg_at: SocketAddr,
    http: TcpListener,
    http_at: SocketAddr,
}

impl Listeners {
    async fn bind(config: &StartConfig) -> Result<Listeners, Failure> {
        let (pg, pg_at) = bind("--listen", &config.listen).await?;
        let (http, http_at) = bind("--http-listen", &config.http_listen).await?;
        Ok(Listeners { pg, pg_at, http, http_at })
    }
}

async fn bind(flag: &str, address: &HostPort) -> Result<(TcpListener, SocketAddr), Failure> {
    let bound = async {
        let listener = TcpListener::bind((address.host.as_str(), address.port)).await?;
        let at = listener.local_addr()?;
        Ok::<_, std::io::Error>((listener, at))
    };
    bound.await.map_err(|e| {
        let failure = Failure::new(format!("could not listen on {address}"), &e);
        match e.kind() {
            std::io::ErrorKind::AddrInUse => failure.next(format!(
                "another process, perhaps another node, uses that port; stop it or choose another with {flag}"
            )),
            _ => failure.next(format!("give {flag} an address of this machine")),
        }
    })
}

fn node_config(config: &StartConfig, pg: SocketAddr, http: SocketAddr) -> NodeConfig {
    let advertised = |given: &Option<HostPort>, bound: SocketAddr| match given {
        Some(address) => address.to_string(),
        None => bound.to_string(),
    };
    NodeConfig {
        data_dir: config.data_dir.clone(),
        pg_address: advertised(&config.advertise_pg, pg),
        http_address: advertised(&config.advertise_http, http),
        rpc_listen: config.rpc_listen.to_string(),
        advertise_rpc: config.advertise_rpc.as_ref().map(ToString::to_string),
        join: config.join.iter().map(ToString::to_string).collect(),
        region: config.region.clone(),
        leader_preference: config.leader_preference,
        learner: config.learner,
        store: StoreOptions { block_cache_bytes: config.cache_bytes, ..StoreOptions::default() },
        timing: Timing::default(),
        log_limits: LogLimits {
            keep: config.raft_log_keep,
            keep_bytes: config.raft_log_bytes,
            flush_bytes: config.raft_log_bytes / 4,
            snapshot_rate: config.snapshot_rate,
            longest_snapshot: config.longest_snapshot,
            history: config.history,
            flush_every: config.raft_log_keep.min(LogLimits::default().flush_every),
            ..LogLimits::default()
        },
        op_log_limits: config.op_log,
        verify: config.verify.clone(),
        write_memory: config.write_memory,
    }
}

/// Says where the node listens: in the log, and to a person, if one looks on.
fn announce(config: &StartConfig, node: &Node, pg: SocketAddr, http: SocketAddr) {
    let host = if pg.ip().is_unspecified() { "127.0.0.1".to_owned() } else { pg.ip().to_string() };
    let connect = format!("psql -h {host} -p {} -U amphora", pg.port());
    let id = amphora_replication::Engine::node_id(node);
    tracing::info!(node = id, addr = %pg, connect, "ready to accept SQL connections");
    tracing::info!(addr = %http, "serving /health, /ready and /status");
    if std::io::stdout().is_terminal() {
        say!("\n  Amphora {} · node {id}", env!("CARGO_PKG_VERSION"));
        say!("  SQL      {pg}        {connect}");
        say!("  peers    {}", node.member().rpc_address);
        say!("  HTTP     http://{http}/status");
        say!("  data     {}\n", config.data_dir.display());
    }
}

/// Cancelled when standard input ends: whoever started this process has gone.
fn end_of_stdin() -> CancellationToken {
    let ended = CancellationToken::new();
    let tell = ended.clone();
    // A thread of its own: a blocked read would hold the runtime's end up.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        tell.cancel();
    });
    ended
}

//! The PostgreSQL protocol (version 3.0) over TCP.
//!
//! ```text
//!   listener ──accept──▶ task on a session's thread ──▶ startup ──▶ Connection::run
//!      │                        │                    │
//!      │                        │                    └─ enters the registry: process id, secret, cancel
//!      └─ stops first           └─ a panic inside ends this connection alone (XX000)
//! ```
//!
//! Messages are read and written here directly, not through a library's handlers: replies leave once a
//! batch, a client that vanishes has its statement cancelled, and a malformed message is an error and
//! never a panic. `docs/decisions/` says what was measured.

mod backend;
mod client;
mod connection;
mod frontend;
mod outbox;
mod registry;
mod scram;
mod session;
mod startup;
#[cfg(test)]
mod tests;
mod threads;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use amphora_sql::error::SqlError;
use futures::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use backend::Severity;
use connection::{Connection, End, Inbox};
use frontend::Opening;
use outbox::Outbox;
use registry::Registry;
use startup::Claim;
use threads::SessionThreads;

pub use session::{Authentication, SessionFactory, SqlSession, StartOptions};

/// Connections beyond the limit that are still listened to for long enough to be told so.
const REFUSALS: usize = 64;
/// How long a client may take to say who it is.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the sockets of busy connections are looked at.
const ORPHAN_INTERVAL: Duration = Duration::from_millis(500);
/// How long running statements may go on when the node stops.
const STATEMENT_GRACE: Duration = Duration::from_secs(5);
/// How long they then have to notice that they were cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// The SQL port of a node.
pub struct PgServer {
    stop: CancellationToken,
    drain: CancellationToken,
    tasks: TaskTracker,
    registry: Arc<Registry>,
    /// They run what `tasks` counts
    _threads: Arc<SessionThreads>,
}

/// What all connections share.
struct Shared<F> {
    factory: F,
    registry: Arc<Registry>,
    stop: CancellationToken,
    /// Sessions end where a client has nothing open; cancelled with `stop` too
    drain: CancellationToken,
    max_connections: usize,
    /// Makes up salts for roles that have none
    secret: amphora_sql::scram::Key,
}

impl PgServer {
    /// Serves clients of `listener` until [`stop`](PgServer::stop).
    ///
    /// Fails if the system gives it no threads.
    pub fn start<F: SessionFactory>(
        listener: TcpListener,
        factory: F,
        max_connections: usize,
    ) -> std::io::Result<PgServer> {
        let threads = Arc::new(SessionThreads::start()?);
        let (stop, tasks, registry) = (CancellationToken::new(), TaskTracker::new(), Arc::default());
        let drain = stop.child_token();
        let shared = Arc::new(Shared {
            factory,
            registry: Arc::clone(&registry),
            stop: stop.clone(),
            drain: drain.clone(),
            max_connections,
            secret: rand::random(),
        });
        tasks.spawn(accept(listener, Arc::clone(&shared), tasks.clone(), Arc::clone(&threads)));
        tasks.spawn(watch(Arc::clone(&registry), stop.clone()));
        Ok(PgServer { stop, drain, tasks, registry, _threads: threads })
    }

    /// Ends sessions as soon as they have no statement and no transaction open (57P01). New ones are the
    /// factory's to refuse.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Cancels for clients that ask another node to: by process id and secret. False if there is no such session.
    pub fn canceller(&self) -> impl Fn(i32, &[u8]) -> bool + Send + Sync + 'static {
        let registry = Arc::clone(&self.registry);
        move |pid, secret| registry.cancel(pid, secret)
    }

    /// Counts open sessions, for as long as it lives.
    pub fn counter(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let registry = Arc::clone(&self.registry);
        move || registry.len()
    }

    /// Open sessions.
    pub fn sessions(&self) -> usize {
        self.registry.len()
    }

    /// Takes no more clients, sends idle ones away (57P01), gives running statements some seconds to
    /// end, and then cancels them.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STATEMENT_GRACE, self.tasks.wait()).await.is_err() {
            self.registry.cancel_all();
            if tokio::time::timeout(CANCEL_GRACE, self.tasks.wait()).await.is_err() {
                tracing::warn!(sessions = self.sessions(), "sessions did not end in time");
            }
        }
    }
}

/// Cancels the statements of clients that have gone.
async fn watch(registry: Arc<Registry>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(ORPHAN_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => registry.cancel_orphans(),
            () = stop.cancelled() => return,
        }
    }
}

async fn accept<F: SessionFactory>(
    listener: TcpListener,
    shared: Arc<Shared<F>>,
    tasks: TaskTracker,
    threads: Arc<SessionThreads>,
) {
    let room = Arc::new(Semaphore::new(shared.max_connections + REFUSALS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of file descriptors, most likely: those that are open may close meanwhile.
                tracing::warn!(error = %e, "cannot accept a SQL connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        // Without its registration here, to be registered there.
        let (Some(seat), Ok(socket)) = (threads.seat(), socket.into_std()) else { continue };
        let (shared, handle) = (Arc::clone(&shared), seat.handle().clone());
        let session = async move {
            match TcpStream::from_std(socket) {
                Ok(socket) => serve(socket, peer, &shared).await,
                Err(e) => tracing::warn!(error = %e, "cannot serve a SQL connection"),
            }
            drop((place, seat));
        };
        tasks.spawn_on(session, &handle);
    }
}

/// Serves one client; nothing that happens in here harms another.
async fn serve<F: SessionFactory>(socket: TcpStream, peer: SocketAddr, shared: &Shared<F>) {
    if let Err(e) = prepare(&socket) {
        tracing::debug!(%peer, error = %e, "cannot set socket options");
    }
    let (reader, writer) = socket.into_split();
    let writer = Arc::new(writer);
    let mut inbox = Inbox::new(reader);
    let mut outbox = Outbox::new(Arc::clone(&writer));
    let session = converse(&mut inbox, &mut outbox, writer, shared);
    let end = AssertUnwindSafe(session).catch_unwind().await.unwrap_or_else(|panic| {
        let what = panic_message(panic.as_ref());
        tracing::error!(%peer, what, "a session failed with a bug; its connection is closed");
        End::Fatal(
            SqlError::internal(format!("internal error: {what}"))
                .with_detail("The statement met a bug of Amphora. Other sessions are not affected.")
                .with_hint("Please report it with the statement and the server's log."),
        )
    });
    match end {
        End::Client => {}
        End::Io(e) => tracing::debug!(%peer, error = %e, "connection lost"),
        End::Fatal(error) => {
            tracing::debug!(%peer, sqlstate = error.sqlstate, error = %error, "connection refused or ended");
            backend::error(outbox.buffer(), Severity::Fatal, &error);
            let _ = tokio::time::timeout(CANCEL_GRACE, outbox.flush()).await;
        }
    }
}

fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}

/// Startup, and then the session.
async fn converse<F: SessionFactory>(
    inbox: &mut Inbox,
    outbox: &mut Outbox,
    writer: Arc<tokio::net::tcp::OwnedWriteHalf>,
    shared: &Shared<F>,
) -> End {
    let opening = tokio::select! {
        opening = tokio::time::timeout(STARTUP_TIMEOUT, open(inbox, outbox)) => opening,
        () = shared.stop.cancelled() => return End::Fatal(connection::shutting_down()),
    };
    let (minor, parameters) = match opening {
        Ok(Ok(Opening::Startup { minor, parameters })) => (minor, parameters),
        Ok(Ok(Opening::Cancel { pid, secret })) => {
            if !shared.registry.cancel(pid, &secret) {
                shared.factory.cancel_elsewhere(pid, &secret).await;
            }
            return End::Client;
        }
        Ok(Ok(Opening::Encryption)) | Err(_) => return End::Client,
        Ok(Err(end)) => return end,
    };
    let claim = match Claim::read(parameters) {
        Ok(claim) => claim,
        Err(e) => return End::Fatal(e),
    };
    let admitted = tokio::select! {
        admitted = tokio::time::timeout(STARTUP_TIMEOUT, authenticate(&claim, inbox, outbox, shared)) => admitted,
        () = shared.stop.cancelled() => return End::Fatal(connection::shutting_down()),
    };
    match admitted {
        Ok(Ok(())) => {}
        Ok(Err(end)) => return end,
        Err(_) => return End::Fatal(SqlError::new("08006", "canceling authentication due to timeout")),
    }
    if let Err(e) = claim.check_database() {
        return End::Fatal(e);
    }
    if shared.registry.len() >= shared.max_connections {
        return End::Fatal(
            SqlError::too_many_connections("sorry, too many clients already")
                .with_detail(format!("This node takes {} sessions.", shared.max_connections))
                .with_hint("Use a connection pool, connect to another node, or raise --max-connections."),
        );
    }
    let pid = shared.registry.reserve_pid(|n| shared.factory.process_id(n));
    let Claim { user, database, settings, unknown_options } = claim;
    let session = match shared.factory.open(StartOptions { user, database, backend_pid: pid, settings }) {
        Ok(session) => session,
        Err(e) => return End::Fatal(e),
    };
    let (entry, _registration, secret) = shared.registry.enter(pid, session.cancel_handle(), writer);
    let unknown: Vec<&str> = unknown_options.iter().map(String::as_str).collect();
    greet(outbox, &session, minor, &unknown, pid, &secret);
    if let Err(e) = outbox.flush().await {
        return End::Io(e);
    }
    let stopped = connection::stopped(Arc::clone(&entry), shared.stop.clone());
    let drained = connection::stopped(Arc::clone(&entry), shared.drain.clone());
    Connection { inbox, outbox, session, entry, stopped, drained }.run().await
}

/// The opening packet that is not about encryption, which is refused as often as it is asked for.
async fn open(inbox: &mut Inbox, outbox: &mut Outbox) -> Result<Opening, End> {
    let mut refusals = 0;
    loop {
        match frontend::next_opening(inbox.bytes()).map_err(End::Fatal)? {
            Some(Opening::Encryption) if refusals < 2 => {
                refusals += 1;
                outbox.buffer().extend_from_slice(b"N");
                outbox.flush().await?;
            }
            Some(Opening::Encryption) => {
                return Err(End::Fatal(SqlError::protocol_violation("encryption was refused already")));
            }
            Some(opening) => return Ok(opening),
            None => inbox.receive().await?,
        }
    }
}

/// Lets the client in or not. 28000, 28P01
async fn authenticate<F: SessionFactory>(
    claim: &Claim,
    inbox: &mut Inbox,
    outbox: &mut Outbox,
    shared: &Shared<F>,
) -> Result<(), End> {
    let verifier = match shared.factory.authentication(&claim.user).map_err(End::Fatal)? {
        Authentication::Trust => return Ok(()),
        Authentication::Password(verifier) => verifier,
        Authentication::Refuse => scram::impossible(&shared.secret, &claim.user),
    };
    backend::authentication_sasl(outbox.buffer(), scram::MECHANISM);
    let answer = answer(inbox, outbox).await?;
    let (mechanism, message) = frontend::sasl_initial_response(&answer).map_err(End::Fatal)?;
    if mechanism != scram::MECHANISM {
        let message = "client selected an invalid SASL authentication mechanism";
        return Err(End::Fatal(SqlError::protocol_violation(message)));
    }
    let (exchange, reply) = scram::Exchange::first(verifier, message).map_err(End::Fatal)?;
    backend::authentication_sasl_continue(outbox.buffer(), &reply);
    let answer = self::answer(inbox, outbox).await?;
    let message = frontend::sasl_response(&answer).map_err(End::Fatal)?;
    match exchange.last(message).map_err(End::Fatal)? {
        Some(signature) => {
            backend::authentication_sasl_final(outbox.buffer(), &signature);
            Ok(())
        }
        None => {
            let message = format!("password authentication failed for user \"{}\"", claim.user);
            Err(End::Fatal(SqlError::new("28P01", message)))
        }
    }
}

/// Sends what is buffered and waits for the client's answer.
async fn answer(inbox: &mut Inbox, outbox: &mut Outbox) -> Result<bytes::Bytes, End> {
    outbox.flush().await?;
    loop {
        if let Some(answer) = frontend::next_answer(inbox.bytes()).map_err(End::Fatal)? {
            return Ok(answer);
        }
        inbox.receive().await?;
    }
}

/// Everything up to the first ReadyForQuery.
fn greet(
    outbox: &mut Outbox,
    session: &impl SqlSession,
    minor: u16,
    unknown: &[&str],
    pid: i32,
    secret: &[u8],
) {
    let buffer = outbox.buffer();
    if minor > 0 || !unknown.is_empty() {
        backend::negotiate_version(buffer, unknown);
    }
    backend::authentication_ok(buffer);
    for (name, value) in session.parameters() {
        backend::parameter_status(buffer, &name, &value);
    }
    backend::key_data(buffer, pid, secret);
    backend::ready(buffer, session.status());
}

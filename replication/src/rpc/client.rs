//! Calls to peers.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::uri::PathAndQuery;
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};

use super::faults::Faults;
use super::frame::FrameCodec;
use super::handshake::{self, Headers, Identity, RefusalLog, Versions};
use super::lane::caller::{Caller, Failure};
use super::lane::wire::Hello;
use super::message::{self, Lane, RpcRequest, RpcResponse};
use super::{
    BACKOFF_MAX, BACKOFF_MIN, CONNECT_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_CALLS_PER_LANE,
    MAX_MESSAGE_BYTES, METHOD,
};
use crate::NodeId;

/// HTTP/2 flow control: what one call and one connection may have under way.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The request was certainly not handled.
    #[error("{0}")]
    Unreachable(String),
    /// The peer will not talk to this node: another cluster, another protocol version, another node at
    /// the address. The request was certainly not handled.
    #[error("{0}")]
    Refused(String),
    /// The request may have been handled, or may yet be.
    #[error("{0}")]
    Lost(String),
}

/// Calls peers. One for each node; cheap to share by `Arc`.
pub struct Client {
    identity: Identity,
    protocol: Versions,
    headers: Headers,
    faults: Arc<Faults>,
    peers: RwLock<HashMap<NodeId, Arc<Peer>>>,
    refusals: RefusalLog,
}

/// The connections to one peer at one address.
struct Peer {
    node: NodeId,
    address: String,
    to: HeaderValue,
    /// None while this node is no member: who joins has no lane
    urgent: Option<Urgent>,
    large: Connection,
    bulk: Connection,
    /// True while connects fail: what has been said in the log
    down: AtomicBool,
}

/// The urgent lane, and when it may be tried again.
struct Urgent {
    caller: Caller,
    backoff: Backoff,
}

/// One HTTP/2 connection, made when it is first needed and remade when it is lost.
struct Connection {
    channel: Channel,
    calls: Semaphore,
    backoff: Backoff,
}

/// No connect is tried before its time.
struct Backoff {
    origin: Instant,
    failures: AtomicU32,
    not_before_ms: AtomicU64,
}

impl Backoff {
    fn new() -> Backoff {
        Backoff { origin: Instant::now(), failures: AtomicU32::new(0), not_before_ms: AtomicU64::new(0) }
    }

    fn is_over(&self) -> bool {
        let not_before = self.not_before_ms.load(Ordering::Relaxed);
        not_before == 0 || self.origin.elapsed().as_millis() as u64 >= not_before
    }

    fn failed(&self) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(8);
        let pause = (BACKOFF_MIN * (1 << failures)).min(BACKOFF_MAX);
        let not_before = self.origin.elapsed() + pause;
        self.not_before_ms.store(not_before.as_millis() as u64, Ordering::Relaxed);
    }

    fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.not_before_ms.store(0, Ordering::Relaxed);
        }
    }
}

impl Connection {
    fn new(address: &str) -> Result<Connection, RpcError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| RpcError::Unreachable(format!("\"{address}\" is not an address (host:port)")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .buffer_size(MAX_CALLS_PER_LANE);
        Ok(Connection {
            channel: endpoint.connect_lazy(),
            calls: Semaphore::new(MAX_CALLS_PER_LANE),
            backoff: Backoff::new(),
        })
    }
}

impl Peer {
    fn new(node: NodeId, address: &str, identity: Identity, protocol: Versions) -> Result<Peer, RpcError> {
        let hello = |cluster| Hello { protocol, cluster, from: identity.node, to: node };
        let urgent = identity
            .cluster
            .filter(|_| node != 0 && identity.node != 0)
            .map(|cluster| Urgent { caller: Caller::new(hello(cluster), address), backoff: Backoff::new() });
        Ok(Peer {
            node,
            address: address.to_owned(),
            to: handshake::addressee(node),
            urgent,
            large: Connection::new(address)?,
            bulk: Connection::new(address)?,
            down: AtomicBool::new(false),
        })
    }

    fn answered(&self, backoff: &Backoff) {
        backoff.succeeded();
        if self.down.load(Ordering::Relaxed) && self.down.swap(false, Ordering::Relaxed) {
            info!("node {} at {} can be reached again", self.node, self.address);
        }
    }

    fn failed(&self, backoff: &Backoff, reason: &str) {
        backoff.failed();
        // Node 0 is whoever answers at a --join address; who asks it says so itself.
        if self.node != 0 && !self.down.swap(true, Ordering::Relaxed) {
            warn!("node {} at {} cannot be reached: {reason}", self.node, self.address);
        }
    }

    /// No connect is tried before its time.
    fn may_try(&self, backoff: &Backoff) -> Result<(), RpcError> {
        if backoff.is_over() {
            return Ok(());
        }
        Err(RpcError::Unreachable(format!("{} refused the last connection", self.address)))
    }
}

impl Client {
    /// A client that calls as this node.
    pub fn new(identity: Identity, faults: Arc<Faults>) -> Client {
        Client::with_protocol(identity, faults, Versions::OWN)
    }

    pub(super) fn with_protocol(identity: Identity, faults: Arc<Faults>, protocol: Versions) -> Client {
        Client {
            identity,
            protocol,
            headers: Headers::new(identity, protocol),
            faults,
            peers: RwLock::new(HashMap::new()),
            refusals: RefusalLog::default(),
        }
    }

    /// Calls a node (0: whoever answers) at an address, and waits for its answer until the deadline.
    pub async fn call(
        &self,
        target: NodeId,
        address: &str,
        request: &RpcRequest,
        deadline: Duration,
    ) -> Result<RpcResponse, RpcError> {
        if self.faults.is_cut(target) {
            return Err(RpcError::Unreachable("cut off by the fault switch".to_owned()));
        }
        let peer = self.peer(target, address)?;
        let frame = message::encode(request)?;
        let far = self.faults.delay_to(target);
        let exchange = async {
            if let Some(delay) = far {
                tokio::time::sleep(delay).await;
            }
            match (request.lane(frame.len()), &peer.urgent) {
                (Lane::Urgent, Some(urgent)) => self.ask(&peer, urgent, &frame).await,
                (Lane::Bulk, _) => self.exchange(&peer, &peer.bulk, frame).await,
                _ => self.exchange(&peer, &peer.large, frame).await,
            }
        };
        let reply = match tokio::time::timeout(deadline, exchange).await {
            Ok(reply) => reply?,
            Err(_) => return Err(RpcError::Lost(format!("no answer within {} ms", deadline.as_millis()))),
        };
        if self.faults.is_cut(target) {
            return Err(RpcError::Lost("cut off by the fault switch".to_owned()));
        }
        message::decode(&reply).map_err(RpcError::Lost)
    }

    /// Forgets the connections to nodes that are no longer members.
    pub fn retain(&self, is_member: impl Fn(NodeId) -> bool) {
        self.peers.write().retain(|&node, _| is_member(node));
    }

    fn peer(&self, node: NodeId, address: &str) -> Result<Arc<Peer>, RpcError> {
        if let Some(peer) = self.peers.read().get(&node)
            && peer.address == address
        {
            return Ok(peer.clone());
        }
        let peer = Arc::new(Peer::new(node, address, self.identity, self.protocol)?);
        self.peers.write().insert(node, peer.clone());
        Ok(peer)
    }

    /// A call on the urgent lane.
    async fn ask(&self, peer: &Peer, urgent: &Urgent, frame: &[u8]) -> Result<bytes::Bytes, RpcError> {
        let backoff = &urgent.backoff;
        peer.may_try(backoff)?;
        match urgent.caller.call(frame).await {
            Ok(reply) => {
                peer.answered(backoff);
                Ok(reply)
            }
            Err(Failure::NoConnection(reason)) => {
                peer.failed(backoff, &reason);
                Err(RpcError::Unreachable(reason))
            }
            Err(Failure::Refused(reason)) => {
                peer.answered(backoff);
                self.refusals.report(&peer.address, &reason);
                Err(RpcError::Refused(reason))
            }
            Err(Failure::NotHandled(reason)) => Err(RpcError::Unreachable(reason)),
            Err(Failure::Lost(reason)) => Err(RpcError::Lost(reason)),
        }
    }

    /// A call over HTTP/2.
    async fn exchange(
        &self,
        peer: &Peer,
        connection: &Connection,
        frame: bytes::Bytes,
    ) -> Result<bytes::Bytes, RpcError> {
        peer.may_try(&connection.backoff)?;
        let closed = |_| RpcError::Unreachable("the client is closed".to_owned());
        let _turn = connection.calls.acquire().await.map_err(closed)?;
        let mut grpc = tonic::client::Grpc::new(connection.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        if let Err(e) = grpc.ready().await {
            let reason = innermost(&e);
            peer.failed(&connection.backoff, &reason);
            return Err(RpcError::Unreachable(reason));
        }
        let mut request = tonic::Request::new(frame);
        self.headers.write(&peer.to, request.metadata_mut().as_mut());
        match grpc.unary(request, PathAndQuery::from_static(METHOD), FrameCodec).await {
            Ok(response) => {
                peer.answered(&connection.backoff);
                Ok(response.into_inner())
            }
            Err(status) => Err(self.classify(peer, connection, &status)),
        }
    }

    fn classify(&self, peer: &Peer, connection: &Connection, status: &tonic::Status) -> RpcError {
        if handshake::is_refusal(status) {
            peer.answered(&connection.backoff);
            let reason = status.message().to_owned();
            if status.code() == tonic::Code::FailedPrecondition {
                self.refusals.report(&peer.address, &reason);
                return RpcError::Refused(reason);
            }
            return RpcError::Unreachable(reason);
        }
        if is_connect_error(status) {
            let reason = status.source().map_or_else(|| status.message().to_owned(), innermost);
            peer.failed(&connection.backoff, &reason);
            return RpcError::Unreachable(reason);
        }
        RpcError::Lost(status.source().map_or_else(|| status.message().to_owned(), innermost))
    }
}

/// True if no connection could be made, and so nothing was sent.
fn is_connect_error(status: &tonic::Status) -> bool {
    let mut source = status.source();
    while let Some(e) = source {
        if e.downcast_ref::<tonic::ConnectError>().is_some() {
            return true;
        }
        source = e.source();
    }
    false
}

/// The cause of causes: what the operating system said.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

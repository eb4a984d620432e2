//! Calls from peers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Request, Response, Status};
use tracing::{error, warn};

use super::faults::Faults;
use super::frame::FrameCodec;
use super::handshake::{self, Caller, Identity, RefusalLog};
use super::message::{self, JoinRequest, RpcRequest, RpcResponse};
use super::{
    DRAIN_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_CALLS_PER_LANE, MAX_CALLS_SERVED,
    MAX_CONNECTIONS, MAX_MESSAGE_BYTES, METHOD, lane,
};
use crate::NodeId;

/// HTTP/2 flow control: what one call and one connection may have under way.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// What HTTP/2 begins with.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// After a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers peers.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. It is not cancelled when the caller gives up.
    async fn handle(&self, from: NodeId, request: RpcRequest) -> RpcResponse;
}

/// A running server. Dropping it stops it, without waiting.
pub struct Server {
    shared: Arc<Shared>,
    /// No more connections, no more calls
    stop: CancellationToken,
    /// No connection at all any more
    end: CancellationToken,
    task: JoinHandle<()>,
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) identity: Identity,
    handler: ArcSwapOption<Box<dyn Handler>>,
    faults: Arc<Faults>,
    pub(super) refusals: RefusalLog,
    turns: Arc<Semaphore>,
    pub(super) calls: TaskTracker,
}

/// Why a request has no answer.
pub(super) enum Denial {
    /// Certainly not handled, and not to be repeated
    Refused(String),
    /// Certainly not handled, and worth repeating
    NotNow(String),
    /// It may have been handled
    Failed(String),
}

impl From<Denial> for Status {
    fn from(denial: Denial) -> Status {
        match denial {
            Denial::Refused(reason) => handshake::refusal(reason),
            Denial::NotNow(reason) => handshake::unavailable(reason),
            Denial::Failed(reason) => Status::internal(reason),
        }
    }
}

impl Server {
    /// Serves peers on a listener until [`stop`](Server::stop).
    pub fn start(
        listener: TcpListener,
        identity: Identity,
        handler: Box<dyn Handler>,
        faults: Arc<Faults>,
    ) -> Server {
        let shared = Arc::new(Shared {
            identity,
            handler: ArcSwapOption::from_pointee(handler),
            faults,
            refusals: RefusalLog::default(),
            turns: Arc::new(Semaphore::new(MAX_CALLS_SERVED)),
            calls: TaskTracker::new(),
        });
        let (stop, end) = (CancellationToken::new(), CancellationToken::new());
        let (http, incoming) = mpsc::channel(MAX_CONNECTIONS);
        let doorway = Doorway { shared: shared.clone(), http, end: end.clone() };
        tokio::spawn(stop.clone().run_until_cancelled_owned(doorway.accept(listener)));
        let incoming = futures::stream::unfold(incoming, async |mut incoming| {
            let socket: TcpStream = incoming.recv().await?;
            Some((Ok::<_, Infallible>(socket), incoming))
        });
        let service = PeerService { shared: shared.clone() };
        let serving = tonic::transport::Server::builder()
            .max_concurrent_streams(MAX_CALLS_PER_LANE as u32)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .serve_with_incoming_shutdown(service, incoming, stop.clone().cancelled_owned());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                result = serving => {
                    if let Err(e) = result {
                        error!("the peer listener failed: {e}");
                    }
                }
                () = async { stopped.cancelled().await; tokio::time::sleep(DRAIN_TIMEOUT).await } => {}
            }
        });
        Server { shared, stop, end, task }
    }

    /// Refuses new calls, waits a while for those under way, and lets go of the handler.
    pub async fn stop(mut self) {
        self.shared.handler.store(None);
        self.stop.cancel();
        self.shared.calls.close();
        let calls = self.shared.calls.clone();
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, calls.wait()).await;
        self.end.cancel();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.handler.store(None);
        self.stop.cancel();
        self.end.cancel();
    }
}

/// Where connections come in, and are told apart by their first byte.
struct Doorway {
    shared: Arc<Shared>,
    http: mpsc::Sender<TcpStream>,
    end: CancellationToken,
}

impl Doorway {
    async fn accept(self, listener: TcpListener) {
        let doorway = Arc::new(self);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let (socket, remote) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Out of file descriptors, perhaps: they come back as connections end.
                    warn!("a peer's connection could not be accepted: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // One too many is closed at once.
            if let Ok(place) = places.clone().try_acquire_owned() {
                tokio::spawn(doorway.clone().let_in(socket, remote, place));
            }
        }
    }

    async fn let_in(self: Arc<Self>, socket: TcpStream, remote: SocketAddr, place: OwnedSemaphorePermit) {
        let mut first = [0];
        let begins = tokio::time::timeout(lane::HELLO_TIMEOUT, socket.peek(&mut first)).await;
        if !matches!(begins, Ok(Ok(1))) || socket.set_nodelay(true).is_err() {
            return;
        }
        let remote = remote.ip().to_string();
        if first[0] == lane::wire::MAGIC[0] {
            lane::server::serve(self.shared.clone(), socket, remote, self.end.clone()).await;
            drop(place);
        } else if first[0] == HTTP2_PREFACE[0] {
            // It is HTTP's from here on, and counts against HTTP's limits.
            let _ = self.http.send(socket).await;
        } else {
            self.shared.refusals.report(&remote, "it does not come from an Amphora node");
        }
    }
}

/// The service as HTTP sees it: one path, and the handshake before anything is decoded.
#[derive(Clone)]
struct PeerService {
    shared: Arc<Shared>,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<http::Request<Body>> for PeerService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move {
            let response = match shared.admit(&request) {
                Ok(caller) => {
                    tonic::server::Grpc::new(FrameCodec)
                        .max_decoding_message_size(MAX_MESSAGE_BYTES)
                        .max_encoding_message_size(MAX_MESSAGE_BYTES)
                        .unary(Call { shared, caller }, request)
                        .await
                }
                Err(status) => status.into_http(),
            };
            Ok(response)
        })
    }
}

impl Shared {
    fn admit(&self, request: &http::Request<Body>) -> Result<Caller, Status> {
        let remote = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        if request.uri().path() != METHOD {
            let reason = format!("there is no {}", request.uri().path());
            self.report(remote, &reason);
            return Err(Status::unimplemented(reason));
        }
        handshake::check(self.identity, request.headers()).map_err(|reason| {
            self.report(remote, &reason);
            handshake::refusal(reason)
        })
    }

    /// Ports of the caller's side change with every connection: a refusal is told apart by host.
    fn report(&self, remote: Option<SocketAddr>, reason: &str) {
        let remote = remote.map_or_else(|| "unknown".to_owned(), |a| a.ip().to_string());
        self.refusals.report(&remote, reason);
    }

    /// Answers one request of a caller that has been let in.
    pub(super) async fn serve(self: Arc<Self>, caller: Caller, frame: Bytes) -> Result<Bytes, Denial> {
        let cut = || Denial::Failed("cut off by the fault switch".to_owned());
        if self.faults.is_cut(caller.node) {
            return Err(cut());
        }
        let Ok(_turn) = self.turns.try_acquire() else {
            return Err(Denial::NotNow("the node has too many calls under way".to_owned()));
        };
        let request: RpcRequest = message::decode(&frame).map_err(|reason| {
            self.refusals.report(&format!("node {}", caller.node), &reason);
            Denial::Refused(reason)
        })?;
        let may_ask =
            caller.same_cluster || matches!(request, RpcRequest::Join(JoinRequest::Allocate { .. }));
        if !may_ask {
            return Err(Denial::Refused("only a member of this cluster may ask that".to_owned()));
        }
        let Some(handler) = self.handler.load_full() else {
            return Err(Denial::NotNow("the node is stopping".to_owned()));
        };
        let response = handler.handle(caller.node, request).await;
        if self.faults.is_cut(caller.node) {
            return Err(cut());
        }
        message::encode(&response).map_err(|e| Denial::Failed(e.to_string()))
    }
}

/// One call that was let in. The work runs in a task of its own: a caller that gives up must not stop it
/// half-way, and a panic in it must not take the connection along.
struct Call {
    shared: Arc<Shared>,
    caller: Caller,
}

impl Service<Request<Bytes>> for Call {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = BoxFuture<Result<Response<Bytes>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (shared, caller) = (self.shared.clone(), self.caller);
        Box::pin(async move {
            let work = shared.calls.spawn(shared.clone().serve(caller, request.into_inner()));
            match work.await {
                Ok(reply) => Ok(Response::new(reply?)),
                Err(e) => {
                    error!(from = caller.node, "a call ended abnormally: {e}");
                    Err(Status::internal("the call ended abnormally"))
                }
            }
        })
    }
}

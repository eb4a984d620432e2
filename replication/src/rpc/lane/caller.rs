//! The calling end of a lane.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::outbox::{Outbox, Rejected};
use super::wire::{self, Frame, Hello, Kind};
use super::{MAX_REQUEST_BYTES, READ_BYTES};
use crate::rpc::{CONNECT_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_CALLS_PER_LANE};

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made: nothing was sent
    NoConnection(String),
    /// The server will not talk to this node
    Refused(String),
    /// The request was certainly not handled
    NotHandled(String),
    /// The request may have been handled
    Lost(String),
}

type Connecting = Shared<BoxFuture<'static, Result<Arc<Line>, Failure>>>;

#[derive(Default)]
struct State {
    line: Option<Arc<Line>>,
    /// All who call while a connection is being made wait for the same one
    connecting: Option<Connecting>,
}

/// Calls one peer, over a connection that is made when it is needed.
pub struct Caller {
    hello: Hello,
    address: String,
    calls: Semaphore,
    state: Arc<Mutex<State>>,
}

impl Caller {
    pub fn new(hello: Hello, address: &str) -> Caller {
        Caller {
            hello,
            address: address.to_owned(),
            calls: Semaphore::new(MAX_CALLS_PER_LANE),
            state: Arc::default(),
        }
    }

    /// Sends a request and waits for its answer.
    pub async fn call(&self, request: &[u8]) -> Result<Bytes, Failure> {
        debug_assert!(request.len() <= MAX_REQUEST_BYTES);
        let closed = |_| Failure::NotHandled("the client is closed".to_owned());
        let _turn = self.calls.acquire().await.map_err(closed)?;
        let known = self.state.lock().line.clone();
        let line = match known.filter(|line| !line.end.is_cancelled()) {
            Some(line) => line,
            None => self.connect().await?,
        };
        let answer = line.ask(request)?;
        let (kind, body) = answer.wait().await?;
        let reason = || String::from_utf8_lossy(&body).into_owned();
        match kind {
            Kind::Reply => Ok(body),
            Kind::Refused => Err(Failure::Refused(reason())),
            Kind::NotNow => Err(Failure::NotHandled(reason())),
            _ => Err(Failure::Lost(reason())),
        }
    }

    async fn connect(&self) -> Result<Arc<Line>, Failure> {
        let connecting = {
            let mut state = self.state.lock();
            if let Some(line) = state.line.as_ref().filter(|line| !line.end.is_cancelled()) {
                return Ok(line.clone());
            }
            match &state.connecting {
                Some(connecting) => connecting.clone(),
                None => {
                    let connecting = open(self.hello, self.address.clone(), self.state.clone());
                    let connecting = connecting.boxed().shared();
                    state.connecting = Some(connecting.clone());
                    // It goes on if those who wait for it give up.
                    tokio::spawn(connecting.clone());
                    connecting
                }
            }
        };
        connecting.await
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(line) = self.state.lock().line.take() {
            line.close();
        }
    }
}

async fn open(hello: Hello, address: String, state: Arc<Mutex<State>>) -> Result<Arc<Line>, Failure> {
    let opened = match tokio::time::timeout(CONNECT_TIMEOUT, Line::open(hello, &address)).await {
        Ok(opened) => opened,
        Err(_) => Err(Failure::NoConnection("the connection could not be made in time".to_owned())),
    };
    let mut state = state.lock();
    state.connecting = None;
    state.line = opened.as_ref().ok().cloned();
    opened
}

/// Whom to tell of the answer to which call.
type Waiting = HashMap<u64, oneshot::Sender<(Kind, Bytes)>>;

/// One connection and the calls on it.
struct Line {
    outbox: Outbox,
    /// Who waits for the answer to which call; `None` once the connection has ended
    waiting: Mutex<Option<Waiting>>,
    next: AtomicU64,
    /// When something was read last, in milliseconds since `opened`
    heard: AtomicU64,
    opened: Instant,
    end: CancellationToken,
}

/// A call that has been sent.
struct Answer {
    line: Arc<Line>,
    id: u64,
    answer: oneshot::Receiver<(Kind, Bytes)>,
}

impl Answer {
    async fn wait(mut self) -> Result<(Kind, Bytes), Failure> {
        (&mut self.answer).await.map_err(|_| Failure::Lost("the connection was lost".to_owned()))
    }
}

impl Drop for Answer {
    /// Who gave up is not looked for when the answer comes.
    fn drop(&mut self) {
        if !self.answer.is_terminated()
            && let Some(waiting) = self.line.waiting.lock().as_mut()
        {
            waiting.remove(&self.id);
        }
    }
}

impl Line {
    async fn open(hello: Hello, address: &str) -> Result<Arc<Line>, Failure> {
        let failed = |e: std::io::Error| Failure::NoConnection(e.to_string());
        let mut socket = TcpStream::connect(address).await.map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        socket.write_all(&hello.encode()).await.map_err(failed)?;
        wire::read_verdict(&mut socket).await.map_err(failed)?.map_err(Failure::Refused)?;
        let (reader, writer) = socket.into_split();
        let line = Arc::new(Line {
            outbox: Outbox::new(writer),
            waiting: Mutex::new(Some(Waiting::new())),
            next: AtomicU64::new(1),
            heard: AtomicU64::new(0),
            opened: Instant::now(),
            end: CancellationToken::new(),
        });
        let reading = line.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = reading.end.cancelled() => {}
                reason = reading.read(reader) => tracing::debug!("a connection to a peer ended: {reason}"),
            }
            reading.close();
        });
        let keeping = line.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = keeping.end.cancelled() => {}
                e = keeping.outbox.drain() => tracing::debug!("a connection to a peer cannot be written: {e}"),
                () = keeping.watch() => tracing::debug!("a peer has fallen silent"),
            }
            keeping.close();
        });
        Ok(line)
    }

    fn ask(self: Arc<Self>, request: &[u8]) -> Result<Answer, Failure> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            let Some(waiting) = waiting.as_mut() else {
                return Err(Failure::NotHandled("the connection has just ended".to_owned()));
            };
            waiting.insert(id, sender);
        }
        // Made before anything can fail: it takes the call back when it is dropped.
        let answer = Answer { line: self.clone(), id, answer };
        if let Err(why) = self.outbox.push(id, Kind::Request, request) {
            let why = match why {
                Rejected::Closed => "the connection has just ended",
                Rejected::Full => "too much waits to be sent to it",
                Rejected::TooLong => "the request is too long",
            };
            return Err(Failure::NotHandled(why.to_owned()));
        }
        if self.outbox.flush().is_err() {
            self.close();
        }
        Ok(answer)
    }

    async fn read(&self, mut socket: OwnedReadHalf) -> String {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        loop {
            loop {
                match wire::take(&mut buffer) {
                    Ok(Some(frame)) => self.deliver(frame),
                    Ok(None) => break,
                    Err(reason) => return reason,
                }
            }
            buffer.reserve(READ_BYTES);
            match socket.read_buf(&mut buffer).await {
                Ok(0) => return "closed by the peer".to_owned(),
                Ok(_) => {}
                Err(e) => return e.to_string(),
            }
            self.heard.store(self.opened.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
    }

    fn deliver(&self, frame: Frame) {
        let waiter = self.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&frame.id));
        // A pong has none, and who gave up is gone.
        if let Some(waiter) = waiter {
            let _ = waiter.send((frame.kind, frame.body));
        }
    }

    /// Asks a silent peer for a sign of life; ends when there is none.
    async fn watch(&self) {
        loop {
            tokio::time::sleep(KEEPALIVE_INTERVAL).await;
            if self.silence() < KEEPALIVE_INTERVAL {
                continue;
            }
            if self.outbox.push(0, Kind::Ping, &[]).is_err() || self.outbox.flush().is_err() {
                return;
            }
            tokio::time::sleep(KEEPALIVE_TIMEOUT).await;
            if self.silence() >= KEEPALIVE_TIMEOUT {
                return;
            }
        }
    }

    fn silence(&self) -> Duration {
        self.opened.elapsed().saturating_sub(Duration::from_millis(self.heard.load(Ordering::Relaxed)))
    }

    /// Ends the connection: every call on it is lost.
    fn close(&self) {
        self.end.cancel();
        self.outbox.close();
        drop(self.waiting.lock().take());
    }
}

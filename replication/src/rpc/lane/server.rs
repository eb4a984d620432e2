//! The answering end of a lane.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::outbox::Outbox;
use super::wire::{self, HELLO_BYTES, Hello, Kind};
use super::{HELLO_TIMEOUT, INLINE_BYTES, READ_BYTES};
use crate::rpc::handshake::Caller;
use crate::rpc::server::{Denial, Shared};
use crate::rpc::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};

/// Callers ask for signs of life; one that does not even do that is gone.
const SILENCE_LIMIT: Duration =
    Duration::from_millis(2 * (KEEPALIVE_INTERVAL.as_millis() + KEEPALIVE_TIMEOUT.as_millis()) as u64);

/// Serves one connection until it ends or `stop` says so.
pub async fn serve(shared: Arc<Shared>, mut socket: TcpStream, remote: String, stop: CancellationToken) {
    let greeting = tokio::time::timeout(HELLO_TIMEOUT, greet(&shared, &mut socket, &remote));
    let Some(caller) = greeting.await.ok().flatten() else { return };
    let (reader, writer) = socket.into_split();
    let line = Arc::new(Line { shared, caller, outbox: Outbox::new(writer), end: CancellationToken::new() });
    tokio::select! {
        () = stop.cancelled() => {}
        () = line.end.cancelled() => {}
        reason = line.clone().read(reader) => debug!(from = caller.node, "a peer's connection ended: {reason}"),
        e = line.outbox.drain() => debug!(from = caller.node, "a peer's connection cannot be written: {e}"),
    }
    line.close();
}

/// Lets a caller in, or tells it why not.
async fn greet(shared: &Shared, socket: &mut TcpStream, remote: &str) -> Option<Caller> {
    let mut hello = [0; HELLO_BYTES];
    socket.read_exact(&mut hello).await.ok()?;
    let checked = match Hello::decode(&hello) {
        None => Err("it does not come from an Amphora node".to_owned()),
        Some(hello) => hello.claim().check(shared.identity),
    };
    let checked = checked.and_then(|caller| {
        let known = caller.same_cluster && caller.node != 0;
        if known { Ok(caller) } else { Err("only a member of this cluster may ask that".to_owned()) }
    });
    if let Err(reason) = &checked {
        shared.refusals.report(remote, reason);
    }
    let verdict = checked.as_ref().map(|_| ()).map_err(String::clone);
    socket.write_all(&wire::encode_verdict(&verdict)).await.ok()?;
    checked.ok()
}

struct Line {
    shared: Arc<Shared>,
    caller: Caller,
    outbox: Outbox,
    end: CancellationToken,
}

impl Line {
    /// Reads requests and sees to their answers; returns why it cannot go on.
    async fn read(self: Arc<Self>, mut socket: OwnedReadHalf) -> String {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        loop {
            loop {
                match wire::take(&mut buffer) {
                    Ok(Some(frame)) => match frame.kind {
                        Kind::Request => self.begin(frame.id, frame.body).await,
                        Kind::Ping => self.answer(0, Kind::Pong, &[]),
                        kind => return format!("a frame of kind {kind:?} is none of a caller's"),
                    },
                    Ok(None) => break,
                    Err(reason) => {
                        self.shared.refusals.report(&format!("node {}", self.caller.node), &reason);
                        return reason;
                    }
                }
            }
            // All that could be answered at once leaves together.
            self.flush();
            buffer.reserve(READ_BYTES);
            match tokio::time::timeout(SILENCE_LIMIT, socket.read_buf(&mut buffer)).await {
                Ok(Ok(0)) => return "closed by the peer".to_owned(),
                Ok(Ok(_)) => {}
                Ok(Err(e)) => return e.to_string(),
                Err(_) => return "silent for too long".to_owned(),
            }
        }
    }

    /// Begins to serve a request here, and leaves it to a task of its own if it has to wait: a caller that
    /// gives up must not stop it half-way.
    async fn begin(self: &Arc<Self>, id: u64, request: Bytes) {
        let small = request.len() <= INLINE_BYTES;
        let work = AssertUnwindSafe(self.shared.clone().serve(self.caller, request)).catch_unwind();
        let mut work = Box::pin(work);
        if small && let Poll::Ready(result) = futures::poll!(work.as_mut()) {
            return self.finish(id, result.unwrap_or_else(|_| Err(self.panicked())));
        }
        let line = self.clone();
        self.shared.calls.spawn(async move {
            let result = work.await.unwrap_or_else(|_| Err(line.panicked()));
            line.finish(id, result);
            line.flush();
        });
    }

    fn panicked(&self) -> Denial {
        error!(from = self.caller.node, "a call ended abnormally");
        Denial::Failed("the call ended abnormally".to_owned())
    }

    fn finish(&self, id: u64, result: Result<Bytes, Denial>) {
        match result {
            Ok(reply) => self.answer(id, Kind::Reply, &reply),
            Err(Denial::Refused(reason)) => self.answer(id, Kind::Refused, reason.as_bytes()),
            Err(Denial::NotNow(reason)) => self.answer(id, Kind::NotNow, reason.as_bytes()),
            Err(Denial::Failed(reason)) => self.answer(id, Kind::Failed, reason.as_bytes()),
        }
    }

    /// An answer that cannot be given ends the connection: its caller must not wait for nothing.
    fn answer(&self, id: u64, kind: Kind, body: &[u8]) {
        if self.outbox.push(id, kind, body).is_err() {
            self.close();
        }
    }

    fn flush(&self) {
        if self.outbox.flush().is_err() {
            self.close();
        }
    }

    fn close(&self) {
        self.end.cancel();
        self.outbox.close();
    }
}

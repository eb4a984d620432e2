//! The urgent lane: small messages that someone waits for, on a plain TCP connection.
//!
//! ```text
//!   caller (caller.rs)                                              server (server.rs)
//!  ┌──────────────────────────┐   hello ─────────────────────────►  ┌─────────────────────────────┐
//!  │ one connection a peer    │  ◄───────────────────────── verdict │ handshake, once             │
//!  │                          │                                     │                             │
//!  │ calls ─► outbox ─────────┼─► length id kind bytes … ──────────►│ reader ─► answered at once, │
//!  │          (outbox.rs)     │                                     │           else in a task    │
//!  │ calls ◄─ reader ◄────────┼── length id kind bytes … ◄──────────┼ outbox ◄──┘                 │
//!  └──────────────────────────┘                                     └─────────────────────────────┘
//! ```
//!
//! HTTP/2 costs two writes a call, a handful of tasks and their wakeups, and a header block; where a
//! question takes 20 µs to answer that is most of the time. Here a call is one frame and one write, made by
//! whoever calls: the first to find the socket free writes, and what others add meanwhile leaves with its
//! next write ([`outbox`]). An answer that is there at once (a read index, a lock nobody holds) is written
//! by the task that read the question.
//!
//! * **Who may talk** is decided once a connection, by the same check as every call of the other lanes
//!   ([`handshake`](super::handshake)): cluster, protocol, sender, addressee. Neither end changes what it is
//!   while it lives. The lane is for members only: who joins has no lane.
//! * **The port** is the same. HTTP/2 begins with `PRI`, a lane with [`wire::MAGIC`]; what begins with
//!   anything else is closed.
//! * **Bounds.** A request of more than [`MAX_REQUEST_BYTES`] takes another lane, so nothing urgent waits
//!   behind it; a frame announced as longer than [`MAX_FRAME_BYTES`] ends the connection; calls in flight and
//!   bytes that wait to be written have limits.
//! * **Silence** is found by pings: the caller asks for a sign of life, both ends drop a connection without.
//! * **A connection that ends** ends its calls: each may have been handled, so each is
//!   [`Lost`](super::RpcError::Lost). Only what was never handed to a connection is unreachable.

pub(super) mod caller;
mod outbox;
pub(super) mod server;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
pub(super) mod wire;

use std::time::Duration;

/// The longest request that takes this lane, in bytes.
pub const MAX_REQUEST_BYTES: usize = 64 << 10;
/// The longest frame that is accepted or sent, in bytes: answers may be longer than their questions.
pub const MAX_FRAME_BYTES: usize = 4 << 20;
/// Bytes that may wait for one socket; a caller that would add more is refused, a peer that reads no answers
/// is dropped.
pub const MAX_OUTBOX_BYTES: usize = 16 << 20;
/// How long whoever connects may take to say who it is.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests up to so many bytes are begun by the task that read them: most can be answered without waiting.
const INLINE_BYTES: usize = 2 << 10;
/// What a reader makes room for.
const READ_BYTES: usize = 16 << 10;

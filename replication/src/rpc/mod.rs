//! How nodes talk: one unary call, typed at both ends, on one of three lanes a peer.
//!
//! ```text
//!    Client (client.rs)                              Server (server.rs), one port
//!   ┌────────────────────────────┐                  ┌─────────────────────────────┐
//!   │ call(target, address,      │                  │ first byte: which lane?     │
//!   │      RpcRequest, deadline) │                  │ handshake (handshake.rs):   │
//!   │                            │   frames (lane/) │   cluster, protocol,        │
//!   │   urgent: small   ─────────┼─────────────────►│   from, to                  │
//!   │   large           ─────────┼──── HTTP/2 ─────►│                             │
//!   │   bulk: snapshots ─────────┼──── HTTP/2 ─────►│ decode ─► Handler::handle   │
//!   └────────────────────────────┘                  └─────────────────────────────┘
//! ```
//!
//! What holds for every call, so that no caller has to think of it:
//!
//! * It ends by its deadline, whatever the peer does. Raft's liveness and every statement's patience hang
//!   on that.
//! * The cluster, the protocol version, the sender and the addressee are named, in the headers of a call over
//!   HTTP/2 and at the beginning of an urgent lane, and checked before a byte of a message is decoded: a node
//!   of another cluster or of another version, or another node at an address that was given to someone
//!   else, is refused with words.
//! * An error says whether the request may have been delivered ([`RpcError::Lost`]) or certainly was not
//!   ([`RpcError::Unreachable`]): who may repeat what depends on it.
//! * Messages, calls in flight and connections are bounded by the constants below.
//!
//! What is small and waited for has a lane of its own ([`lane`]), large entries another, snapshots and large
//! op-log batches a third: a heartbeat never waits behind a megabyte. A connection that goes silent is
//! found by pings and replaced, so a partition that heals is noticed in seconds and not at TCP's own pace.

pub mod address;
pub mod client;
pub mod faults;
mod frame;
pub mod handshake;
pub mod lane;
pub mod message;
pub mod server;
pub mod transport;

use std::time::Duration;

pub use address::AddressBook;
pub use client::{Client, RpcError};
pub use faults::Faults;
pub use handshake::{Identity, PROTOCOL_VERSION, REPLACED};
pub use message::{JoinReply, JoinRequest, RpcRequest, RpcResponse};
pub use server::{Handler, Server};
pub use transport::RpcTransport;

/// The greatest message, in bytes, that is sent or accepted: the largest transaction of strong tables
/// ([`MAX_COMMIT_BYTES`](crate::strong::MAX_COMMIT_BYTES)) and what surrounds it.
pub const MAX_MESSAGE_BYTES: usize = crate::strong::MAX_COMMIT_BYTES + (16 << 20);
/// Calls in flight to one peer on one lane; more wait for their turn until their deadline.
pub const MAX_CALLS_PER_LANE: usize = 1024;
/// Connections that a server has, at most; more are closed as they come.
pub const MAX_CONNECTIONS: usize = 1024;
/// Calls that a server works on at a time, from all peers; more are refused.
pub const MAX_CALLS_SERVED: usize = 8192;
/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that is silent for so long is asked for a sign of life …
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// … and dropped if it gives none for so long.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// After a failed connect no other is tried for so long, doubled with each failure …
pub const BACKOFF_MIN: Duration = Duration::from_millis(25);
/// … up to this.
pub const BACKOFF_MAX: Duration = Duration::from_millis(400);
/// How long a server that stops waits for the calls it is working on.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The one method.
const METHOD: &str = "/amphora.Peer/Call";

#[cfg(test)]
mod tests;

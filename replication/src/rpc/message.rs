//! What nodes say to each other.

use amphora_storage::codec;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::client::RpcError;
use super::{MAX_MESSAGE_BYTES, PROTOCOL_VERSION, lane};
use crate::NodeId;
use crate::api::ClusterStatus;
use crate::leaderless::{PeerBody, PeerMessage, VersionVector};
use crate::node::DrainProgress;
use crate::sessions::{SessionsReply, SessionsRequest};
use crate::strong::{self, Member};
use crate::verify::{VerifyReply, VerifyRequest};

/// A request to a peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RpcRequest {
    /// To the Raft group
    Strong(strong::Request),
    /// To the leaderless engine
    Leaderless(PeerMessage),
    /// From a node that wants to be, or to stay, a member
    Join(JoinRequest),
    /// What does the cluster look like from where you are?
    Status,
    /// What time is it where you are?
    Clock,
    /// About a consistency check
    Verify(VerifyRequest),
    /// Send your clients away; how far are you?
    Drain,
    /// About your sessions
    Sessions(SessionsRequest),
}

/// A peer's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RpcResponse {
    /// From the Raft group
    Strong(strong::Reply),
    /// From the leaderless engine: what it has on disk
    Leaderless(VersionVector),
    /// To a node that joins
    Join(JoinReply),
    /// The cluster, seen from the node that was asked
    Status(Box<ClusterStatus>),
    /// Milliseconds since 1970 by the wall clock of the node that was asked
    Clock(u64),
    /// About a consistency check
    Verify(VerifyReply),
    /// How far the node is with sending its clients away
    Drain(DrainProgress),
    /// About sessions
    Sessions(SessionsReply),
    /// The request could not be served here and now
    Failed(String),
}

/// The steps of joining. Every step may be repeated: it is the same for the same token or id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum JoinRequest {
    /// Give me an id. The only request that a node without an identity may make.
    Allocate {
        /// Chosen and kept on disk by the node that joins
        token: Uuid,
    },
    /// I am here, at these addresses: add me if I am no member, or correct what you know of me.
    Announce {
        /// Who
        node: NodeId,
        /// Where
        member: Member,
        /// It has been a member before: if it is none now, it was removed
        was_member: bool,
    },
}

/// What a node that joins is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum JoinReply {
    /// Its identity
    Allocated {
        /// The cluster
        cluster: Uuid,
        /// Its id for ever
        node: NodeId,
    },
    /// The announcement is part of the membership.
    Announced,
    /// Not now: ask again, here or elsewhere.
    Later(String),
    /// Never: the operator must act.
    Refused(String),
}

/// Which connection a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Heartbeats, votes, locks, read indexes, commits: small, and someone is waiting
    Urgent,
    /// Large entries and commits: someone is waiting, but nobody else is to wait for them
    Large,
    /// Snapshots and batches
    Bulk,
}

impl RpcRequest {
    /// Which connection it takes, when it has so many bytes.
    pub fn lane(&self, bytes: usize) -> Lane {
        let small = bytes <= lane::MAX_REQUEST_BYTES;
        match self {
            RpcRequest::Strong(strong::Request::Snapshot(_)) => Lane::Bulk,
            RpcRequest::Leaderless(PeerMessage { body: PeerBody::Reseed(_), .. }) => Lane::Bulk,
            RpcRequest::Leaderless(_) if !small => Lane::Bulk,
            // Their answers may be of any size.
            RpcRequest::Status | RpcRequest::Join(_) | RpcRequest::Verify(_) | RpcRequest::Sessions(_) => {
                Lane::Large
            }
            _ if small => Lane::Urgent,
            _ => Lane::Large,
        }
    }
}

/// Encodes a message, or says that it is too large to send.
pub(super) fn encode<T: Serialize>(message: &T) -> Result<Bytes, RpcError> {
    let bytes = codec::encode(message);
    if bytes.len() > MAX_MESSAGE_BYTES {
        let reason = format!("a message of {} bytes exceeds the limit of {MAX_MESSAGE_BYTES}", bytes.len());
        return Err(RpcError::Unreachable(reason));
    }
    Ok(Bytes::from(bytes))
}

/// Decodes a message, or says why it is none.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    codec::decode(bytes).map_err(|e| format!("malformed message (protocol version {PROTOCOL_VERSION}): {e}"))
}

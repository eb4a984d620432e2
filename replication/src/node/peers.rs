//! What this node answers its peers, and how its leaderless engine reaches them.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use super::Node;
use crate::leaderless::{PeerBody, PeerMessage, PeerTransport, VersionVector};
use crate::rpc::{AddressBook, Client, Handler, JoinReply, JoinRequest, RpcRequest, RpcResponse};
use crate::strong::REMOVED;
use crate::{Error, ErrorKind, NodeId, Result};

/// How long a peer may take to take a batch or a page, its fsync included.
const PUSH_DEADLINE: Duration = Duration::from_secs(10);
/// How long a peer may take to say what it has.
const VECTOR_DEADLINE: Duration = Duration::from_secs(2);

/// This machine's wall clock, in milliseconds since 1970.
pub(super) fn wall_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Answers peers for as long as the node lives.
pub(super) struct PeerHandler {
    pub(super) node: Weak<Node>,
}

#[async_trait]
impl Handler for PeerHandler {
    async fn handle(&self, from: NodeId, request: RpcRequest) -> RpcResponse {
        let Some(node) = self.node.upgrade() else {
            return RpcResponse::Failed("the node is stopping".to_owned());
        };
        match request {
            RpcRequest::Strong(request) => RpcResponse::Strong(node.group.handle(from, request).await),
            RpcRequest::Leaderless(message) if message.from != from => {
                RpcResponse::Failed(format!("node {from} speaks for node {}", message.from))
            }
            RpcRequest::Leaderless(message) => match node.leaderless.handle(message).await {
                Ok(vector) => RpcResponse::Leaderless(vector),
                Err(e) => RpcResponse::Failed(e.to_string()),
            },
            RpcRequest::Join(request) => RpcResponse::Join(node.admit(from, request).await),
            RpcRequest::Status => RpcResponse::Status(Box::new(node.cluster_status())),
            RpcRequest::Sessions(request) => RpcResponse::Sessions(node.handle_sessions(request)),
            RpcRequest::Drain => RpcResponse::Drain(node.drain().await),
            RpcRequest::Clock => RpcResponse::Clock(wall_millis()),
            RpcRequest::Verify(request) => RpcResponse::Verify(node.handle_verify(from, request).await),
        }
    }
}

impl Node {
    async fn admit(&self, from: NodeId, request: JoinRequest) -> JoinReply {
        match request {
            JoinRequest::Allocate { token } => match self.group.allocate_node(token).await {
                Ok(node) => JoinReply::Allocated { cluster: self.cluster, node },
                Err(e) => JoinReply::Later(e.to_string()),
            },
            JoinRequest::Announce { node, .. } if node != from => {
                JoinReply::Refused(format!("node {from} cannot announce node {node}"))
            }
            JoinRequest::Announce { node, was_member: true, .. } if !self.group.is_member(node) => {
                if self.group.is_leader() {
                    JoinReply::Refused(format!("node {node} has been removed from the cluster"))
                } else {
                    JoinReply::Later("only the leader knows whether it has been removed".to_owned())
                }
            }
            JoinRequest::Announce { node, member, .. } => match self.group.add_member(node, member).await {
                Ok(()) => JoinReply::Announced,
                Err(e) if e.sqlstate == REMOVED => JoinReply::Refused(e.message),
                Err(e) => JoinReply::Later(e.to_string()),
            },
        }
    }
}

/// Carries the leaderless engine's messages.
pub(super) struct LeaderlessTransport {
    pub(super) client: Arc<Client>,
    pub(super) book: Arc<AddressBook>,
}

#[async_trait]
impl PeerTransport for LeaderlessTransport {
    async fn call(&self, peer: NodeId, message: PeerMessage) -> Result<VersionVector> {
        let failed = |reason: String| {
            Error::new("08006", format!("node {peer} did not answer: {reason}")).kind(ErrorKind::Unavailable)
        };
        let Some(address) = self.book.get(peer) else {
            return Err(failed("its address is not known".to_owned()));
        };
        let deadline = match message.body {
            PeerBody::Vector { .. } => VECTOR_DEADLINE,
            _ => PUSH_DEADLINE,
        };
        match self.client.call(peer, &address, &RpcRequest::Leaderless(message), deadline).await {
            Ok(RpcResponse::Leaderless(vector)) => Ok(vector),
            Ok(RpcResponse::Failed(reason)) => Err(failed(reason)),
            Ok(_) => Err(failed("its answer is of another kind".to_owned())),
            Err(e) => Err(failed(e.to_string())),
        }
    }
}

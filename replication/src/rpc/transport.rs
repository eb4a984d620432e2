//! The wire as the Raft group sees it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::address::AddressBook;
use super::client::{Client, RpcError};
use super::message::{RpcRequest, RpcResponse};
use crate::NodeId;
use crate::strong::{Reply, Request, Transport, TransportError};

/// Carries the group's requests over RPC.
pub struct RpcTransport {
    client: Arc<Client>,
    book: Arc<AddressBook>,
}

impl RpcTransport {
    /// Over this client. Where a node is, the book knows better than a log entry, if it knows the node.
    pub fn new(client: Arc<Client>, book: Arc<AddressBook>) -> RpcTransport {
        RpcTransport { client, book }
    }
}

#[async_trait]
impl Transport for RpcTransport {
    async fn call(
        &self,
        target: NodeId,
        address: &str,
        request: Request,
        deadline: Duration,
    ) -> Result<Reply, TransportError> {
        let known = self.book.get(target);
        let address = known.as_deref().unwrap_or(address);
        match self.client.call(target, address, &RpcRequest::Strong(request), deadline).await {
            Ok(RpcResponse::Strong(reply)) => Ok(reply),
            Ok(RpcResponse::Failed(reason)) => Ok(Reply::Failed(reason)),
            Ok(_) => Err(TransportError::Lost(target, "the answer is of another kind".to_owned())),
            Err(RpcError::Unreachable(reason) | RpcError::Refused(reason)) => {
                Err(TransportError::Unreachable(target, reason))
            }
            Err(RpcError::Lost(reason)) => Err(TransportError::Lost(target, reason)),
        }
    }
}

//! The wire as the Raft group sees it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::client::{Client, RpcError};
use super::message::{RpcRequest, RpcResponse};
use crate::NodeId;
use crate::strong::{Reply, Request, Transport, TransportError};

/// Carries the group's requests over RPC.
pub struct RpcTransport {
    client: Arc<Client>,
}

impl RpcTransport {
    /// Over this client.
    pub fn new(client: Arc<Client>) -> RpcTransport {
        RpcTransport { client }
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

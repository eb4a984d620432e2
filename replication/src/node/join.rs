//! How a node without an identity gets one.
//!
//! ```text
//!   new node                         any member                       leader
//!     │ token on disk                    │                               │
//!     ├── Allocate{token} ──────────────►├── AllocateNode(token) ───────►│ an entry: token → id
//!     │◄───────── cluster, id ───────────┤◄──────────────────────────────┤
//!     │ IDENTITY on disk                 │                               │
//!     │ starts, an empty learner         │                               │
//!     ├── Announce{id, addresses} ──────►├── AddLearner ────────────────►│ replicates to it, and makes it
//!     │                                  │                               │ a voter when it has caught up
//! ```
//!
//! Each step may be cut short and repeated. The token is on disk before it is sent, so a node that crashes
//! anywhere asks for the same id again; the identity is on disk before the node is announced, so no id is
//! ever in the membership that its node does not know of.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};
use uuid::Uuid;

use crate::rpc::{Client, Faults, Identity, JoinReply, JoinRequest, RpcError, RpcRequest, RpcResponse};
use crate::{Error, NodeId, Result};

/// How long one member may take to allocate an id: it may have to wait for an election.
const ALLOCATE_DEADLINE: Duration = Duration::from_secs(8);
/// Between two rounds over the addresses.
const RETRY: Duration = Duration::from_millis(500);
/// Rounds after which the log says again that the node is still trying.
const REMIND_EVERY: u32 = 20;
/// How long a node that restarts waits for a member to object to it.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// Asks the addresses in turn, until one gives an identity or refuses for good.
pub(super) async fn obtain_identity(addresses: &[String], token: Uuid) -> Result<(Uuid, NodeId)> {
    info!("joining the cluster at {}", addresses.join(", "));
    let mut round = 0;
    loop {
        let client = Client::new(Identity::JOINING, Arc::new(Faults::new()));
        for address in addresses {
            let reason = match allocate(&client, address, token).await {
                Ok(identity) => return Ok(identity),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Temporary(reason)) => reason,
            };
            if round % REMIND_EVERY == 0 {
                warn!("{address} cannot let this node in yet: {reason}; trying on");
            }
        }
        round += 1;
        tokio::time::sleep(RETRY).await;
    }
}

enum Failure {
    Temporary(String),
    Final(Error),
}

async fn allocate(
    client: &Client,
    address: &str,
    token: Uuid,
) -> std::result::Result<(Uuid, NodeId), Failure> {
    let request = RpcRequest::Join(JoinRequest::Allocate { token });
    match client.call(0, address, &request, ALLOCATE_DEADLINE).await {
        Ok(RpcResponse::Join(JoinReply::Allocated { cluster, node })) => Ok((cluster, node)),
        Ok(RpcResponse::Join(JoinReply::Later(reason)) | RpcResponse::Failed(reason)) => {
            Err(Failure::Temporary(reason))
        }
        Ok(RpcResponse::Join(JoinReply::Refused(reason))) | Err(RpcError::Refused(reason)) => {
            Err(Failure::Final(refused(address, reason)))
        }
        Ok(_) => Err(Failure::Temporary("it gave an answer of another kind".to_owned())),
        Err(RpcError::Unreachable(reason) | RpcError::Lost(reason)) => Err(Failure::Temporary(reason)),
    }
}

fn refused(address: &str, reason: String) -> Error {
    Error::new("F0000", format!("{address} refused this node")).detail(reason).hint(
        "Check --join and --data-dir, and that all nodes run the same release. An empty data directory \
         joins as a new node.",
    )
}

/// A node that has an identity asks the addresses it was given whether they know its cluster. Who is
/// silent does not matter; who belongs to another cluster, or speaks another protocol, does.
pub(super) async fn check_cluster(client: &Client, addresses: &[String]) -> Result<()> {
    let probes = addresses.iter().map(|address| async move {
        match client.call(0, address, &RpcRequest::Clock, PROBE_DEADLINE).await {
            Err(RpcError::Refused(reason)) => Err(refused(address, reason)),
            _ => Ok(()),
        }
    });
    // One at a time: all probes are calls to node 0, of which a client knows one address at a time.
    for probe in probes {
        probe.await?;
    }
    Ok(())
}

//! The HTTP port: is this node alive, is it ready, and what does it know of the cluster.
//!
//! | path | answers |
//! |---|---|
//! | `GET /health` | 200 as long as the process runs |
//! | `GET /ready` | 200 if the node is a member, has caught up and serves SQL; else 503 and why |
//! | `GET /status` | the cluster as this node sees it |
//! | `GET /metrics` | figures, for Prometheus (`metrics.rs`) |
//! | `POST /node/…` | an operator's orders (`operations.rs`) |
//! | `POST /verify` | compare the replicas of a table (`verify.rs`) |
//! | `GET`, `POST /faults` | which peers it is cut off from; only with the fault switch on |
//!
//! What a web page has sent is refused (`origin.rs`), but for the first two.
//!
//! The port answers from the first moment, also while the node still waits to be let into a cluster.

pub mod client;
pub mod metrics;
pub mod operations;
pub mod origin;
pub mod verify;

use std::sync::{Arc, OnceLock};

use amphora_replication::node::Node;
use amphora_replication::{ClusterStatus, Engine, NodeId};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use origin::KnownHosts;

/// The node, once it has started.
pub type NodeSlot = Arc<OnceLock<Arc<Node>>>;

/// `GET /status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusReply {
    /// The node that answers
    pub node_id: NodeId,
    /// Whether it serves SQL on both kinds of table
    pub ready: bool,
    /// Why not
    pub reason: Option<String>,
    /// What it knows
    pub cluster: ClusterStatus,
}

/// `GET /health`, `GET /ready`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HealthReply {
    /// `ok`, `ready` or `not ready`
    pub status: String,
    /// Why not
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Amphora's version
    pub version: String,
}

/// `POST /faults`: cuts this node off from peers, in both directions, or joins it to them again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultOrder {
    /// Peers to be cut off from
    #[serde(default)]
    pub cut: Vec<NodeId>,
    /// Peers to be joined to again
    #[serde(default)]
    pub heal: Vec<NodeId>,
}

/// `GET /faults`, and the answer to an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FaultReply {
    /// Peers this node is cut off from
    pub cut: Vec<NodeId>,
}

/// Serves until `stop`. With `faults` the fault switch is there too.
pub async fn serve(
    listener: TcpListener,
    node: NodeSlot,
    known: KnownHosts,
    faults: bool,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new().route("/status", get(status)).route("/metrics", get(figures));
    let mut guarded = verify::routes(operations::routes(router));
    if faults {
        guarded = guarded.route("/faults", get(show_faults).post(set_faults));
    }
    let guarded = guarded.layer(axum::middleware::from_fn_with_state(known, origin::guard));
    let router = guarded.route("/health", get(health)).route("/ready", get(ready));
    let stopped = async move { stop.cancelled().await };
    axum::serve(listener, router.with_state(node)).with_graceful_shutdown(stopped).await
}

fn health_reply(status: &str, reason: Option<String>) -> Json<HealthReply> {
    let (status, version) = (status.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    Json(HealthReply { status, reason, version })
}

async fn health() -> Json<HealthReply> {
    health_reply("ok", None)
}

fn readiness(node: &NodeSlot) -> Result<(), String> {
    match node.get() {
        Some(node) => node.ready(),
        None => Err("the node is starting, or waits for a member to let it into the cluster".to_owned()),
    }
}

async fn ready(State(node): State<NodeSlot>) -> Response {
    match readiness(&node) {
        Ok(()) => health_reply("ready", None).into_response(),
        Err(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, health_reply("not ready", Some(reason))).into_response()
        }
    }
}

fn starting() -> Response {
    let reason = "the node is starting, or waits for a member to let it into the cluster".to_owned();
    (StatusCode::SERVICE_UNAVAILABLE, health_reply("not ready", Some(reason))).into_response()
}

async fn status(State(slot): State<NodeSlot>) -> Response {
    let Some(node) = slot.get() else { return starting() };
    let reason = node.ready().err();
    let (node_id, ready) = (node.node_id(), reason.is_none());
    Json(StatusReply { node_id, ready, reason, cluster: node.status() }).into_response()
}

async fn figures(State(slot): State<NodeSlot>) -> Response {
    metrics::reply(slot.get().map(Arc::as_ref))
}

async fn show_faults(State(slot): State<NodeSlot>) -> Response {
    let Some(node) = slot.get() else { return starting() };
    Json(FaultReply { cut: node.faults().all() }).into_response()
}

async fn set_faults(State(slot): State<NodeSlot>, Json(order): Json<FaultOrder>) -> Response {
    let Some(node) = slot.get() else { return starting() };
    for peer in &order.cut {
        node.faults().cut(*peer);
    }
    for peer in &order.heal {
        node.faults().heal(*peer);
    }
    tracing::warn!(cut = ?node.faults().all(), "the fault switch was used");
    Json(FaultReply { cut: node.faults().all() }).into_response()
}

//! An operator's orders to the cluster, as `amphora node …` sends them.
//!
//! | path | body | answers with 200 |
//! |---|---|---|
//! | `POST /node/transfer-leader` | `{"to": 2}` or `{}` | who leads now |
//! | `POST /node/remove` | `{"node": 3, "force": false}` | when it is done |
//! | `POST /node/promote` | `{"node": 3}` | when it is accepted |
//! | `POST /node/drain` | `{"node": 3}` | at once, with how far it is: ask again |
//!
//! What cannot be done is 409, with the reason. The port asks for no password, so it listens on loopback, or with
//! `--insecure` in a network that is trusted as a whole; a web page cannot send these orders (`origin.rs`).

use amphora_replication::node::DrainProgress;
use amphora_replication::{Error, NodeId};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::{NodeSlot, starting};

/// `POST /node/transfer-leader`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferOrder {
    /// To which node; the fittest if to none in particular
    #[serde(default)]
    pub to: Option<NodeId>,
}

/// The other orders.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeOrder {
    /// Which node
    pub node: NodeId,
    /// Also where that leaves no node to spare
    #[serde(default)]
    pub force: bool,
}

/// What came of an order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OrderReply {
    /// To `transfer-leader`: who leads now
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<NodeId>,
    /// To `drain`: how far it is
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainProgress>,
}

/// Why an order was not carried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OrderFailure {
    /// What went wrong
    pub error: String,
    /// What to do about it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Adds the orders to the port.
pub(super) fn routes(router: Router<NodeSlot>) -> Router<NodeSlot> {
    router
        .route("/node/transfer-leader", post(transfer_leader))
        .route("/node/remove", post(remove))
        .route("/node/promote", post(promote))
        .route("/node/drain", post(drain))
}

fn answer(result: Result<OrderReply, Error>) -> Response {
    match result {
        Ok(reply) => Json(reply).into_response(),
        Err(e) => refused(e),
    }
}

/// An order that cannot be carried out.
pub(super) fn refused(e: Error) -> Response {
    let failure = OrderFailure { error: e.message, hint: e.hint.map(Into::into) };
    (StatusCode::CONFLICT, Json(failure)).into_response()
}

async fn transfer_leader(State(slot): State<NodeSlot>, Json(order): Json<TransferOrder>) -> Response {
    let Some(node) = slot.get() else { return starting() };
    tracing::info!(to = order.to, "an operator moves leadership");
    let leader = node.transfer_leader(order.to).await;
    answer(leader.map(|leader| OrderReply { leader: Some(leader), ..OrderReply::default() }))
}

async fn remove(State(slot): State<NodeSlot>, Json(order): Json<NodeOrder>) -> Response {
    let Some(node) = slot.get() else { return starting() };
    tracing::warn!(node = order.node, force = order.force, "an operator removes a node");
    answer(node.remove_node(order.node, order.force).await.map(|()| OrderReply::default()))
}

async fn promote(State(slot): State<NodeSlot>, Json(order): Json<NodeOrder>) -> Response {
    let Some(node) = slot.get() else { return starting() };
    tracing::info!(node = order.node, "an operator promotes a read replica");
    answer(node.promote_node(order.node).await.map(|()| OrderReply::default()))
}

async fn drain(State(slot): State<NodeSlot>, Json(order): Json<NodeOrder>) -> Response {
    let Some(node) = slot.get() else { return starting() };
    let progress = node.drain_node(order.node).await;
    answer(progress.map(|progress| OrderReply { drain: Some(progress), ..OrderReply::default() }))
}

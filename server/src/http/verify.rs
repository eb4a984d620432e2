//! The consistency check for operators: `POST /verify` with `{"table": "t"}`, which `amphora verify t` sends.
//!
//! The answer is what was found, an object for each of the table's objects and nodes. It takes as long as reading the table
//! takes. A table that is not there is 409, as all orders that cannot be carried out are.

use amphora_replication::Error;
use amphora_replication::api::{Engine, Verdict, Verification};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::operations::refused;
use super::{NodeSlot, starting};

/// `POST /verify`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyOrder {
    /// `table` or `schema.table`
    pub table: String,
}

/// What was found of a table's rows, or of an index, on a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    /// The table, or the index
    pub object: String,
    /// Whose
    pub node: u64,
    /// How many rows or entries
    pub rows: Option<u64>,
    /// What to think of it
    pub verdict: String,
    /// Whether somebody must look after it
    pub wrong: bool,
    /// Why
    pub detail: String,
}

impl From<&Verification> for Found {
    fn from(one: &Verification) -> Found {
        Found {
            object: one.object.clone(),
            node: one.node,
            rows: one.rows,
            verdict: one.verdict.as_str().to_owned(),
            wrong: one.verdict.is_wrong() && one.verdict != Verdict::Repaired,
            detail: one.detail.clone(),
        }
    }
}

pub(super) fn routes(router: Router<NodeSlot>) -> Router<NodeSlot> {
    router.route("/verify", post(verify))
}

async fn verify(State(slot): State<NodeSlot>, Json(order): Json<VerifyOrder>) -> Response {
    let Some(node) = slot.get() else { return starting() };
    let (schema, name) = order.table.split_once('.').unwrap_or(("public", &order.table));
    let catalog = node.catalog();
    let Some(table) = catalog.tables().find(|table| table.schema == schema && table.name == name) else {
        return refused(Error::new("42P01", format!("relation \"{}\" does not exist", order.table)));
    };
    match node.verify_table(table.id).await {
        Ok(found) => Json(found.iter().map(Found::from).collect::<Vec<_>>()).into_response(),
        Err(e) => refused(e),
    }
}

//! `amphora node transfer-leader`, `remove`, `promote`, `drain`: orders to the cluster, through any of its nodes.

use std::time::{Duration, Instant};

use amphora_replication::NodeId;
use serde::Serialize;

use super::{Failure, HostPort, say};
use crate::http::client;
use crate::http::operations::{NodeOrder, OrderFailure, OrderReply, TransferOrder};

/// How long an order may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two questions how far a node is.
const INTERVAL: Duration = Duration::from_millis(200);

async fn order(
    host: &HostPort,
    what: &str,
    path: &str,
    order: &impl Serialize,
) -> Result<OrderReply, Failure> {
    let body = serde_json::to_string(order).map_err(|e| Failure::new(what, e))?;
    let answer = client::request(&host.to_string(), "POST", path, &body, LIMIT).await;
    let (code, body) = answer.map_err(|e| {
        Failure::new(what, format!("the node at {host} did not answer: {e}"))
            .next("check that it runs and that --host is its HTTP address, or ask another node")
    })?;
    if code == 200 {
        return serde_json::from_str(&body).map_err(|e| {
            Failure::new(what, format!("the answer of {host} cannot be read: {e}"))
                .next("use the amphora binary of the node's own version")
        });
    }
    match serde_json::from_str::<OrderFailure>(&body) {
        Ok(OrderFailure { error, hint: Some(hint) }) => Err(Failure::new(what, error).next(hint)),
        Ok(OrderFailure { error, hint: None }) => Err(Failure::new(what, error)),
        Err(_) => Err(Failure::new(what, format!("the node at {host} answered {code}: {body}"))),
    }
}

/// `amphora node transfer-leader`.
pub async fn transfer_leader(host: &HostPort, to: Option<NodeId>) -> Result<(), Failure> {
    let what = "could not move leadership";
    let reply = order(host, what, "/node/transfer-leader", &TransferOrder { to }).await?;
    if let Some(leader) = reply.leader {
        say!("node {leader} leads");
    }
    Ok(())
}

/// `amphora node remove`.
pub async fn remove(host: &HostPort, node: NodeId, force: bool) -> Result<(), Failure> {
    let what = format!("could not remove node {node}");
    order(host, &what, "/node/remove", &NodeOrder { node, force }).await?;
    say!("node {node} has been removed; stop it and empty its data directory");
    Ok(())
}

/// `amphora node promote`.
pub async fn promote(host: &HostPort, node: NodeId) -> Result<(), Failure> {
    let what = format!("could not promote node {node}");
    order(host, &what, "/node/promote", &NodeOrder { node, force: false }).await?;
    say!("node {node} votes as soon as it has caught up");
    Ok(())
}

/// `amphora node drain`: waits until the node can be stopped.
pub async fn drain(host: &HostPort, node: NodeId, patience: Duration) -> Result<(), Failure> {
    let what = format!("could not drain node {node}");
    let until = Instant::now() + patience;
    loop {
        let reply = order(host, &what, "/node/drain", &NodeOrder { node, force: false }).await?;
        let Some(progress) = reply.drain else {
            return Err(Failure::new(what, "its answer says nothing of how far it is"));
        };
        if progress.is_done() {
            say!("node {node} is drained: it leads nothing and has no sessions; stop it when you like");
            return Ok(());
        }
        if Instant::now() >= until {
            let why = match progress.leads {
                true => "it still leads: no other voter is fit to".to_owned(),
                false => {
                    format!("{} sessions still have a statement or a transaction open", progress.sessions)
                }
            };
            return Err(Failure::new(what, why).next(
                "it takes no new sessions; run the command again to wait longer, or stop the node, which ends \
                 what is open",
            ));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

//! `amphora status` and `amphora node list`: the cluster as one node sees it, quorum or not.

use std::io::IsTerminal;
use std::time::Duration;

use super::{Failure, HostPort, Table, say};
use crate::http::client;
use crate::http::{HealthReply, StatusReply};

const LIMIT: Duration = Duration::from_secs(5);

/// Asks a node what it knows.
async fn ask(host: &HostPort) -> Result<StatusReply, Failure> {
    let what = format!("could not ask the node at {host}");
    let (code, body) =
        client::request(&host.to_string(), "GET", "/status", "", LIMIT).await.map_err(|e| {
            Failure::new(&what, e).next(
                "check that the node runs and that --host is its HTTP address (amphora start --http-listen, \
             by default 127.0.0.1:8433)",
            )
        })?;
    if code != 200 {
        return Err(Failure::new(what, format!("it answered {code}: {body}"))
            .next("ask again in a moment, or ask another node with --host"));
    }
    serde_json::from_str(&body).map_err(|e| {
        Failure::new(what, format!("its answer cannot be read: {e}"))
            .next("use the amphora binary of the node's own version")
    })
}

fn show(title: &str, table: &Table) {
    if std::io::stdout().is_terminal() {
        say!("\x1b[1m{title}\x1b[0m\n{}", table.aligned(""));
    } else {
        super::print(format_args!("{}", table.plain()));
    }
}

fn nodes(reply: &StatusReply) -> Table {
    let mut table = Table::new(&[
        "node_id",
        "role",
        "state",
        "pg_address",
        "rpc_address",
        "http_address",
        "region",
        "version",
        "clock_skew_ms",
        "leader_preference",
    ]);
    for node in &reply.cluster.nodes {
        table.row(vec![
            node.node_id.to_string(),
            node.role.as_str().to_owned(),
            node.state.as_str().to_owned(),
            node.pg_address.clone(),
            node.rpc_address.clone(),
            node.http_address.clone(),
            node.region.clone(),
            node.version.clone(),
            node.clock_skew_ms.to_string(),
            node.leader_preference.to_string(),
        ]);
    }
    table
}

/// `amphora node list`.
pub async fn node_list(host: &HostPort) -> Result<(), Failure> {
    let reply = ask(host).await?;
    show("nodes", &nodes(&reply));
    Ok(())
}

/// `amphora status --ready`: for scripts, and for containers that have no other client in them.
pub async fn ready(host: &HostPort) -> Result<(), Failure> {
    let what = format!("the node at {host} is not ready");
    let answer = client::request(&host.to_string(), "GET", "/ready", "", LIMIT).await;
    let (code, body) = answer.map_err(|e| Failure::new(&what, e))?;
    if code == 200 {
        say!("ready");
        return Ok(());
    }
    let reply = serde_json::from_str::<HealthReply>(&body).ok();
    let reason = reply.and_then(|reply| reply.reason);
    Err(Failure::new(what, reason.unwrap_or_else(|| format!("it answered {code}: {body}"))))
}

/// `amphora status`.
pub async fn status(host: &HostPort) -> Result<(), Failure> {
    let reply = ask(host).await?;
    let mut summary = Table::new(&["cluster", "seen_from_node", "serving", "tables"]);
    summary.row(vec![
        reply.cluster.cluster_id.to_string(),
        reply.node_id.to_string(),
        match &reply.reason {
            None => "strong and leaderless tables".to_owned(),
            Some(reason) => format!("not ready: {reason}"),
        },
        reply.cluster.tables.len().to_string(),
    ]);
    show("cluster", &summary);
    show("nodes", &nodes(&reply));
    let raft = &reply.cluster.raft;
    let mut group = Table::new(&[
        "term",
        "leader",
        "last_log_index",
        "committed_index",
        "applied_index",
        "snapshot_index",
    ]);
    group.row(vec![
        raft.term.to_string(),
        raft.leader.map(|id| id.to_string()).unwrap_or_default(),
        raft.last_log_index.to_string(),
        raft.committed_index.to_string(),
        raft.applied_index.to_string(),
        raft.snapshot_index.to_string(),
    ]);
    show("raft", &group);
    let mut lag = Table::new(&["peer", "mode", "lag", "lag_bytes", "lag_ms"]);
    for peer in &reply.cluster.replication {
        lag.row(vec![
            peer.node_id.to_string(),
            peer.mode.clone(),
            peer.lag.to_string(),
            peer.lag_bytes.to_string(),
            peer.lag_ms.to_string(),
        ]);
    }
    show("replication", &lag);
    Ok(())
}

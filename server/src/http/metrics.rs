//! `GET /metrics`: what this node knows, in Prometheus' text format.
//!
//! Nothing is counted for it: it is read, when somebody asks, from what the node keeps anyway, so a node that nobody asks pays
//! nothing. [`METRICS`] declares every name once; `docs/metrics.md` is compared with it.

use std::collections::BTreeMap;
use std::fmt::Write;

use amphora_replication::node::Node;
use amphora_replication::{Engine, NodeState};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

/// The format's own name.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Name, type and meaning of all metrics.
pub const METRICS: [(&str, &str, &str); 14] = [
    ("amphora_build_info", "gauge", "1, with the version as a label"),
    ("amphora_ready", "gauge", "1 if /ready says 200, else 0"),
    ("amphora_nodes", "gauge", "Members of the cluster by state, as this node sees them"),
    ("amphora_clock_skew_seconds", "gauge", "A peer's clock minus this node's, when last heard"),
    ("amphora_raft_is_leader", "gauge", "1 if this node orders the writes of strong tables"),
    ("amphora_raft_term", "gauge", "The Raft group's term; it grows with every election"),
    ("amphora_raft_last_index", "gauge", "The last entry in this node's log"),
    ("amphora_raft_committed_index", "gauge", "The last entry known to be on a majority"),
    ("amphora_raft_applied_index", "gauge", "The last entry applied to this node's tables"),
    (
        "amphora_replication_lag",
        "gauge",
        "Entries (strong) or batches (leaderless) that a peer has not acknowledged",
    ),
    ("amphora_replication_lag_bytes", "gauge", "Their bytes, where known"),
    ("amphora_replication_lag_seconds", "gauge", "The age of the oldest of them"),
    ("amphora_conflicts_total", "counter", "Writes to leaderless tables that lost, by table and kind"),
    ("amphora_resident_memory_bytes", "gauge", "Memory of the process"),
];

/// Samples under their metrics, in the order of [`METRICS`].
#[derive(Default)]
struct Page {
    samples: BTreeMap<&'static str, String>,
}

impl Page {
    /// One value, with its labels. What is not declared is a mistake of the code's.
    fn add(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        debug_assert!(METRICS.iter().any(|(known, ..)| *known == name), "{name} is not declared");
        let labels: Vec<String> =
            labels.iter().map(|(key, text)| format!("{key}=\"{}\"", escaped(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.samples.entry(name).or_default(), "{name}{labels} {value}");
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, kind, help) in METRICS {
            let Some(samples) = self.samples.get(name) else { continue };
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
        }
        text
    }
}

/// A label's value, as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The answer of a node that has started, or of one that has not.
pub(super) fn reply(node: Option<&Node>) -> Response {
    let mut page = Page::default();
    page.add("amphora_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    page.add("amphora_ready", &[], f64::from(u8::from(node.is_some_and(|node| node.ready().is_ok()))));
    if let Some(bytes) = resident_memory() {
        page.add("amphora_resident_memory_bytes", &[], bytes as f64);
    }
    if let Some(node) = node {
        of_the_node(&mut page, node);
    }
    ([(CONTENT_TYPE, FORMAT)], page.text()).into_response()
}

fn of_the_node(page: &mut Page, node: &Node) {
    let status = node.status();
    for state in [NodeState::Alive, NodeState::Draining, NodeState::Suspect, NodeState::Dead] {
        let count = status.nodes.iter().filter(|n| n.state == state).count();
        page.add("amphora_nodes", &[("state", state.as_str())], count as f64);
    }
    for peer in status.nodes.iter().filter(|n| n.node_id != node.node_id()) {
        let seconds = peer.clock_skew_ms as f64 / 1000.0;
        page.add("amphora_clock_skew_seconds", &[("peer", &peer.node_id.to_string())], seconds);
    }
    let leads = status.raft.leader == Some(node.node_id());
    page.add("amphora_raft_is_leader", &[], f64::from(u8::from(leads)));
    page.add("amphora_raft_term", &[], status.raft.term as f64);
    page.add("amphora_raft_last_index", &[], status.raft.last_log_index as f64);
    page.add("amphora_raft_committed_index", &[], status.raft.committed_index as f64);
    page.add("amphora_raft_applied_index", &[], status.raft.applied_index as f64);
    for lag in &status.replication {
        let peer = lag.node_id.to_string();
        let labels = [("peer", peer.as_str()), ("mode", lag.mode.as_str())];
        page.add("amphora_replication_lag", &labels, lag.lag as f64);
        page.add("amphora_replication_lag_bytes", &labels, lag.lag_bytes as f64);
        page.add("amphora_replication_lag_seconds", &labels, lag.lag_ms as f64 / 1000.0);
    }
    for (schema, table, kind, count) in node.conflict_counts() {
        let labels = [("schema", schema.as_str()), ("table", table.as_str()), ("kind", kind.as_str())];
        page.add("amphora_conflicts_total", &labels, count as f64);
    }
}

/// Bytes of this process in memory, where the system tells.
fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_is_what_is_documented() {
        let doc = include_str!("../../../docs/metrics.md");
        let rows = doc.lines().filter_map(|line| line.strip_prefix("| `amphora_"));
        let documented: Vec<(String, &str)> = rows
            .map(|row| {
                let mut cells = row.split('|').map(str::trim);
                let name = cells.next().unwrap().split(['`', '{']).next().unwrap();
                (format!("amphora_{name}"), cells.next().unwrap())
            })
            .collect();
        let declared: Vec<(String, &str)> =
            METRICS.iter().map(|(name, kind, _)| ((*name).to_owned(), *kind)).collect();
        assert_eq!(documented, declared);
    }

    #[test]
    fn a_page_is_in_the_text_format() {
        let mut page = Page::default();
        page.add("amphora_ready", &[], 1.0);
        page.add("amphora_nodes", &[("state", "a\"b\\c\nd")], 2.0);
        let text = page.text();
        let ready = "# HELP amphora_ready 1 if /ready says 200, else 0\n# TYPE amphora_ready gauge\namphora_ready 1\n";
        assert!(text.starts_with(ready), "{text}");
        assert!(text.ends_with("amphora_nodes{state=\"a\\\"b\\\\c\\nd\"} 2\n"), "{text}");
    }
}

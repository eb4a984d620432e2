//! Regions far from each other, on one machine: `--region-latency`.
//!
//! A real network does this better (`tc … netem`), but needs a kernel that can, and rights over it. Here each node adds the time
//! to its own calls to nodes of other regions, whoever they are and whenever they come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use amphora_replication::node::Node;
use amphora_replication::{Engine, NodeId, NodeStatus};

/// How often it is looked who is there.
const LOOK: Duration = Duration::from_millis(500);

/// Delays calls to other regions for as long as the node runs.
pub(super) async fn keep(node: Arc<Node>, latency: Duration) {
    let mut known = BTreeMap::new();
    loop {
        let delays = far(&node.status().nodes, node.node_id(), latency);
        if delays != known {
            tracing::warn!(ms = latency.as_millis() as u64, nodes = ?delays.keys(), "calls to other regions are delayed");
            node.faults().delay(delays.clone());
            known = delays;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The nodes in other regions than this one's.
fn far(nodes: &[NodeStatus], own: NodeId, latency: Duration) -> BTreeMap<NodeId, Duration> {
    let Some(here) = nodes.iter().find(|n| n.node_id == own) else { return BTreeMap::new() };
    nodes.iter().filter(|n| n.region != here.region).map(|n| (n.node_id, latency)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use amphora_replication::leaderless::Progress;
    use amphora_replication::{NodeRole, NodeState};

    #[test]
    fn only_nodes_of_other_regions_are_far() {
        let node = |node_id, region: &str| NodeStatus {
            node_id,
            role: NodeRole::Voter,
            state: NodeState::Alive,
            pg_address: String::new(),
            rpc_address: String::new(),
            http_address: String::new(),
            region: region.to_owned(),
            leader_preference: 0,
            version: String::new(),
            clock_skew_ms: 0,
            leaderless: Progress::Level,
        };
        let nodes = [node(1, "eu"), node(2, "eu"), node(3, "us")];
        let ms = Duration::from_millis(40);
        assert_eq!(far(&nodes, 1, ms), BTreeMap::from([(3, ms)]));
        assert_eq!(far(&nodes, 3, ms), BTreeMap::from([(1, ms), (2, ms)]));
        assert!(far(&nodes, 9, ms).is_empty(), "a node that is not a member yet");
    }
}

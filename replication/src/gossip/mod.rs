//! Who is alive, and where: what nodes tell each other without asking anyone's leave.
//!
//! Membership is the Raft group's to say. But a node that has lost the quorum still wants to know which
//! peers it can reach, and a view of the cluster should not wait for a leader, so every node also gossips
//! (`chitchat`: Scuttlebutt reconciliation over UDP, on the same port number as peer RPC) its id and its
//! addresses, and counts heartbeats.
//!
//! ```text
//!   heartbeats of a peer      │ │ │  │ │ │  │ │
//!   silence                                    ├────────┬────────┬──────► time
//!   state                     alive            │  alive │ suspect│ dead
//!                                              0       T/2       T
//! ```
//!
//! T is the phi-accrual failure detector's (Hayashibara et al., 2004; the exponential form that Cassandra
//! uses): some multiple of the mean interval between the heartbeats seen from that peer.
//!
//! Nothing that must be right depends on gossip: it is for views, for choosing whom to ask first, and for
//! the operator.

mod socket;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use chitchat::{
    Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ProtocolVersion,
};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::api::NodeState;
use crate::rpc::Faults;
use crate::strong::Member;
use crate::{Error, NodeId, Result};

use socket::GossipTransport;

/// Between two rounds of gossip.
const INTERVAL: Duration = Duration::from_secs(1);
/// Phi above which a node is taken for dead.
const PHI_DEAD: f64 = 8.0;
/// Heartbeats that the mean interval is taken over.
const SAMPLES: usize = 200;
/// How long what a dead node said is kept and passed on.
const DEAD_NODE_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// Silence that makes a node suspect before the detector knows its rhythm.
const UNSAMPLED_SUSPECT: Duration = Duration::from_secs(5);

/// What gossip needs to start.
pub struct GossipConfig {
    /// The cluster; others are not listened to
    pub cluster: Uuid,
    /// This node
    pub node: NodeId,
    /// Where to listen (UDP)
    pub listen: SocketAddr,
    /// Where peers reach that
    pub advertise: SocketAddr,
    /// Peers to begin with, `host:port`
    pub seeds: Vec<String>,
    /// What to tell of this node
    pub member: Member,
    /// Whom not to hear
    pub faults: Arc<Faults>,
}

/// A node as gossip knows it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Liveness
    pub state: NodeState,
    /// What it tells of itself
    pub member: Member,
}

/// This node's part in gossip. Dropping it ends it.
pub struct Gossip {
    handle: ChitchatHandle,
    watcher: JoinHandle<()>,
    peers: Arc<ArcSwap<HashMap<NodeId, Peer>>>,
}

impl Gossip {
    /// Starts to gossip.
    pub async fn start(config: GossipConfig) -> Result<Gossip> {
        let transport = GossipTransport::new(config.cluster, config.faults);
        let addresses = transport.addresses();
        // A restarted node is a new generation of the same node: what its old life said is outdone.
        let generation = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let id = ChitchatId::new(config.node.to_string(), generation, config.advertise);
        let chitchat = ChitchatConfig {
            chitchat_id: id,
            cluster_id: config.cluster.to_string(),
            gossip_interval: INTERVAL,
            listen_addr: config.listen,
            seed_nodes: config.seeds,
            failure_detector_config: FailureDetectorConfig::new(
                PHI_DEAD,
                SAMPLES,
                INTERVAL * 10,
                INTERVAL,
                DEAD_NODE_GRACE,
            ),
            marked_for_deletion_grace_period: DEAD_NODE_GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V1,
        };
        let handle =
            chitchat::spawn_chitchat(chitchat, describe(&config.member), &transport).await.map_err(|e| {
                Error::new("58030", format!("could not listen for gossip on {} (UDP): {e:#}", config.listen))
                    .hint("Another process uses the port; choose another with --rpc-listen.")
            })?;
        let peers = Arc::new(ArcSwap::default());
        let watcher = Watcher { own: config.node, heard: HashMap::new(), peers: peers.clone(), addresses };
        let watcher = tokio::spawn(watcher.run(handle.chitchat()));
        Ok(Gossip { handle, watcher, peers })
    }

    /// All nodes heard of, this one excepted. Immediate.
    pub fn peers(&self) -> Arc<HashMap<NodeId, Peer>> {
        self.peers.load_full()
    }

    /// Gossips with an address that membership knows and gossip may not.
    pub fn introduce(&self, address: SocketAddr) {
        // The only failure is that gossip has ended.
        let _ = self.handle.gossip(address);
    }

    /// Tells everyone that this node sends its clients away.
    pub async fn announce_draining(&self) {
        self.handle.with_chitchat(|chitchat| chitchat.self_node_state().set(DRAINING, "yes")).await;
    }

    /// Ends it.
    pub fn stop(&self) {
        self.watcher.abort();
        let _ = self.handle.initiate_shutdown();
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Keys of what a node tells of itself.
const RPC: &str = "rpc";
const PG: &str = "pg";
const HTTP: &str = "http";
const REGION: &str = "region";
const VERSION: &str = "version";
const DRAINING: &str = "draining";

fn describe(member: &Member) -> Vec<(String, String)> {
    [
        (RPC, &member.rpc_address),
        (PG, &member.pg_address),
        (HTTP, &member.http_address),
        (REGION, &member.region),
        (VERSION, &member.version),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.clone()))
    .collect()
}

fn member_of(state: &chitchat::NodeState) -> Member {
    let get = |key| state.get(key).unwrap_or_default().to_owned();
    Member {
        rpc_address: get(RPC),
        pg_address: get(PG),
        http_address: get(HTTP),
        region: get(REGION),
        version: get(VERSION),
        // Membership says these.
        ..Member::default()
    }
}

/// Turns chitchat's state into the view, once a round.
struct Watcher {
    own: NodeId,
    /// The last heartbeat of each peer's life, and when it was first seen
    heard: HashMap<NodeId, (u64, u64, Instant)>,
    peers: Arc<ArcSwap<HashMap<NodeId, Peer>>>,
    addresses: Arc<ArcSwap<HashMap<SocketAddr, NodeId>>>,
}

impl Watcher {
    async fn run(mut self, chitchat: Arc<tokio::sync::Mutex<Chitchat>>) {
        let mut rounds = tokio::time::interval(INTERVAL);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            let (peers, addresses) = self.look(&*chitchat.lock().await);
            self.peers.store(Arc::new(peers));
            if **self.addresses.load() != addresses {
                self.addresses.store(Arc::new(addresses));
            }
        }
    }

    fn look(&mut self, chitchat: &Chitchat) -> (HashMap<NodeId, Peer>, HashMap<SocketAddr, NodeId>) {
        let mut newest: HashMap<NodeId, &chitchat::NodeState> = HashMap::new();
        for state in chitchat.node_states().values() {
            let Ok(node) = state.chitchat_id().node_id.parse::<NodeId>() else { continue };
            let generation = |s: &chitchat::NodeState| s.chitchat_id().generation_id;
            match newest.get(&node) {
                Some(known) if generation(known) > generation(state) => {}
                _ => drop(newest.insert(node, state)),
            }
        }
        newest.remove(&self.own);
        let dead: Vec<&ChitchatId> = chitchat.dead_nodes().collect();
        let mut peers = HashMap::with_capacity(newest.len());
        let mut addresses = HashMap::with_capacity(newest.len());
        for (node, state) in newest {
            let id = state.chitchat_id();
            let silence = self.silence(node, id.generation_id, state.heartbeat().into());
            let patience = chitchat.failure_detection_timeout(id).map_or(UNSAMPLED_SUSPECT, |t| t / 2);
            let liveness = if dead.contains(&id) {
                NodeState::Dead
            } else if silence > patience {
                NodeState::Suspect
            } else if state.get(DRAINING).is_some() {
                NodeState::Draining
            } else {
                NodeState::Alive
            };
            addresses.insert(id.gossip_advertise_addr, node);
            peers.insert(node, Peer { state: liveness, member: member_of(state) });
        }
        self.heard.retain(|node, _| peers.contains_key(node));
        (peers, addresses)
    }

    fn silence(&mut self, node: NodeId, generation: u64, heartbeat: u64) -> Duration {
        let now = Instant::now();
        let heard = self.heard.entry(node).or_insert((generation, heartbeat, now));
        if (heard.0, heard.1) != (generation, heartbeat) {
            *heard = (generation, heartbeat, now);
        }
        heard.2.elapsed()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn free_address() -> SocketAddr {
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    async fn gossip(cluster: u128, node: NodeId, at: SocketAddr, seeds: &[SocketAddr]) -> Gossip {
        let member = Member { region: format!("r{node}"), ..Member::default() };
        let config = GossipConfig {
            cluster: Uuid::from_u128(cluster),
            node,
            listen: at,
            advertise: at,
            seeds: seeds.iter().map(SocketAddr::to_string).collect(),
            member,
            faults: Arc::default(),
        };
        Gossip::start(config).await.unwrap()
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(30), "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    #[tokio::test]
    async fn nodes_learn_of_each_other_and_of_a_death_and_not_of_another_cluster() {
        let (a, b, c, x) = (free_address(), free_address(), free_address(), free_address());
        let one = gossip(1, 1, a, &[]).await;
        let two = gossip(1, 2, b, &[a]).await;
        let three = gossip(1, 3, c, &[a]).await;
        let stranger = gossip(2, 9, x, &[a]).await;
        let state = |g: &Gossip, node| g.peers().get(&node).map(|p| p.state);
        until("all alive", || {
            state(&one, 2) == Some(NodeState::Alive) && state(&two, 3) == Some(NodeState::Alive)
        })
        .await;
        assert_eq!(two.peers()[&3].member.region, "r3");

        three.stop();
        until("suspect", || state(&one, 3) == Some(NodeState::Suspect)).await;
        until("dead", || state(&one, 3) == Some(NodeState::Dead)).await;
        assert_eq!(state(&one, 2), Some(NodeState::Alive));
        assert!(stranger.peers().is_empty() && !one.peers().contains_key(&9));
    }
}

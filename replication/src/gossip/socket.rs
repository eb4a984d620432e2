//! The datagrams under gossip, with the fault switch, and deaf to other clusters.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpTransport};
use chitchat::{ChitchatEnvelope, ChitchatMessage};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::NodeId;
use crate::rpc::Faults;

/// Pause after a receive that failed: the socket outlives what went wrong.
const RECEIVE_PAUSE: Duration = Duration::from_millis(200);

/// UDP, as chitchat wants it.
pub(super) struct GossipTransport {
    cluster: Uuid,
    faults: Arc<Faults>,
    addresses: Arc<ArcSwap<HashMap<SocketAddr, NodeId>>>,
}

impl GossipTransport {
    pub(super) fn new(cluster: Uuid, faults: Arc<Faults>) -> GossipTransport {
        GossipTransport { cluster, faults, addresses: Arc::default() }
    }

    /// Whose addresses are whose, for the fault switch; kept up to date by who knows.
    pub(super) fn addresses(&self) -> Arc<ArcSwap<HashMap<SocketAddr, NodeId>>> {
        self.addresses.clone()
    }
}

#[async_trait]
impl Transport for GossipTransport {
    async fn open(&self, listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(GossipSocket {
            udp: UdpTransport.open(listen).await?,
            cluster: self.cluster.to_string(),
            faults: self.faults.clone(),
            addresses: self.addresses.clone(),
            strangers_reported: false,
        }))
    }
}

struct GossipSocket {
    udp: Box<dyn Socket>,
    cluster: String,
    faults: Arc<Faults>,
    addresses: Arc<ArcSwap<HashMap<SocketAddr, NodeId>>>,
    strangers_reported: bool,
}

impl GossipSocket {
    fn is_cut(&self, address: &SocketAddr) -> bool {
        self.addresses.load().get(address).is_some_and(|&node| self.faults.is_cut(node))
    }

    /// Reports the first node of another cluster; all of them are ignored.
    fn stranger(&mut self, from: SocketAddr, whose: &str) {
        if !std::mem::replace(&mut self.strangers_reported, true) {
            warn!("{from} gossips for {whose}, this node belongs to cluster {}; ignored", self.cluster);
        }
    }
}

#[async_trait]
impl Socket for GossipSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.udp.local_addr()
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        let nothing = SendOutcome { num_bytes_sent: 0 };
        if self.is_cut(&to) {
            return Ok(nothing);
        }
        // A datagram that cannot be sent is a datagram lost: gossip expects that of a network.
        Ok(self.udp.send(to, envelope).await.unwrap_or_else(|e| {
            debug!("could not send gossip to {to}: {e:#}");
            nothing
        }))
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            let outcome = match self.udp.recv().await {
                Ok(outcome) => outcome,
                Err(e) => {
                    warn!("could not receive gossip: {e:#}");
                    tokio::time::sleep(RECEIVE_PAUSE).await;
                    continue;
                }
            };
            match &outcome.envelope.message {
                ChitchatMessage::Syn { cluster_id, .. } if *cluster_id != self.cluster => {
                    let whose = format!("cluster {cluster_id}");
                    self.stranger(outcome.from_addr, &whose);
                }
                ChitchatMessage::BadCluster => self.stranger(outcome.from_addr, "another cluster"),
                _ if self.is_cut(&outcome.from_addr) => {}
                _ => return Ok(outcome),
            }
        }
    }
}

//! What an operator does to the cluster: moves leadership, removes nodes, promotes and drains them.
//!
//! Every order may be given to any node: it finds the leader, or the node that is meant. And every order may be
//! given twice; what is done already is not done again.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::Node;
use crate::api::NodeState;
use crate::rpc::{RpcRequest, RpcResponse};
use crate::strong::REMOVED;
use crate::{Error, NodeId, Result};

/// How long another node may take to answer an order.
const ORDER_DEADLINE: Duration = Duration::from_secs(8);

/// How far a node is that sends its clients away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainProgress {
    /// It still leads
    pub leads: bool,
    /// Sessions that have a statement or a transaction open
    pub sessions: usize,
}

impl DrainProgress {
    /// True if the node can be stopped without anyone noticing.
    pub fn is_done(&self) -> bool {
        !self.leads && self.sessions == 0
    }
}

impl Node {
    /// Hands leadership to a voter, or to the fittest other one. Who leads then.
    pub async fn transfer_leader(&self, to: Option<NodeId>) -> Result<NodeId> {
        match to {
            Some(to) => self.group.transfer_leader(to).await.map(|()| to),
            None => {
                self.group.move_leader().await?;
                self.group.leader().ok_or_else(|| Error::new("55000", "no leader is known"))
            }
        }
    }

    /// Removes a member for ever: from the Raft group, and from those that leaderless tables wait for. A
    /// leader hands over first. 55000 where strong tables would stop, or where what the node has acknowledged
    /// would be lost.
    pub async fn remove_node(&self, id: NodeId, force: bool) -> Result<()> {
        if !force {
            self.check_it_is_passed_on(id).await?;
        }
        self.group.remove_member(id, force).await
    }

    /// Lets a read replica vote.
    pub async fn promote_node(&self, id: NodeId) -> Result<()> {
        self.group.promote_member(id).await
    }

    /// A node that is alive has to have passed on what it has committed to leaderless tables.
    async fn check_it_is_passed_on(&self, id: NodeId) -> Result<()> {
        if id == self.id || !matches!(self.liveness(id), NodeState::Alive | NodeState::Draining) {
            return Ok(());
        }
        let Some(address) = self.book.get(id) else { return Ok(()) };
        let Ok(RpcResponse::Status(status)) =
            self.client.call(id, &address, &RpcRequest::Status, ORDER_DEADLINE).await
        else {
            return Ok(());
        };
        let behind = status.replication.iter().filter(|peer| peer.mode == "leaderless").map(|peer| peer.lag);
        match behind.min() {
            Some(lag) if lag > 0 => Err(Error::new(
                "55000",
                format!("node {id} has committed to leaderless tables what no other node has yet"),
            )
            .hint("Drain it, wait until it has passed that on, and remove it then; --force gives it up.")),
            _ => Ok(()),
        }
    }

    /// Tells a node, this or another, to send its clients away, and asks how far it is.
    pub async fn drain_node(&self, id: NodeId) -> Result<DrainProgress> {
        if id == self.id {
            return Ok(self.drain().await);
        }
        let Some(address) = self.book.get(id) else {
            return Err(Error::new("42704", format!("node {id} is not a member of the cluster")));
        };
        let failed = |reason: String| Error::new("08006", format!("node {id} did not answer: {reason}"));
        match self.client.call(id, &address, &RpcRequest::Drain, ORDER_DEADLINE).await {
            Ok(RpcResponse::Drain(progress)) => Ok(progress),
            Ok(RpcResponse::Failed(reason)) => Err(failed(reason)),
            Ok(_) => Err(failed("its answer is of another kind".to_owned())),
            Err(e) => Err(failed(e.to_string())),
        }
    }

    /// Sends this node's clients away and leadership with them. Returns at once; to be asked again.
    pub(super) async fn drain(&self) -> DrainProgress {
        if !self.draining.is_cancelled() {
            info!(
                "draining: no new sessions, no leadership; running statements and transactions end by themselves"
            );
            self.draining.cancel();
            self.gossip.announce_draining().await;
            self.avoid_draining_leaders();
            self.hand_over().await;
        }
        // Who votes alone leads on.
        let leads = self.group.leader() == Some(self.id) && self.group.voters().len() > 1;
        DrainProgress { leads, sessions: self.busy_sessions.get().map_or(0, |count| count()) }
    }

    /// Keeps leadership away from nodes that are being drained.
    pub(super) fn avoid_draining_leaders(&self) {
        let peers = self.gossip.peers();
        let draining = peers.iter().filter(|(_, peer)| peer.state == NodeState::Draining).map(|(id, _)| *id);
        let own = self.draining.is_cancelled().then_some(self.id);
        self.group.avoid_leading(draining.chain(own).collect::<BTreeSet<NodeId>>());
    }

    /// Cancelled when this node is to send its clients away.
    pub fn draining(&self) -> tokio_util::sync::CancellationToken {
        self.draining.clone()
    }

    /// Says how many sessions have a statement or a transaction open. To be set once.
    pub fn count_sessions_by(&self, count: impl Fn() -> usize + Send + Sync + 'static) {
        let _ = self.busy_sessions.set(Box::new(count));
    }

    /// Why this node takes no clients, if it takes none: it has been removed, or is being drained.
    pub fn turns_clients_away(&self) -> Option<Error> {
        if let Some(why) = self.removed.lock().clone() {
            return Some(removed(&why));
        }
        self.draining.is_cancelled().then(|| {
            let others = self.group.members().into_iter().filter(|(id, ..)| *id != self.id);
            let others: Vec<String> = others.map(|(_, member, _)| member.pg_address).collect();
            Error::new("57P03", format!("node {} is being drained and takes no new sessions", self.id))
                .hint(format!("Connect to another node: {}.", others.join(", ")))
        })
    }

    /// The cluster does not want this node any more: nothing is served here, now and after a restart.
    pub(super) fn retire(&self, why: String) {
        // The disk last: nobody is served while it is slow.
        self.group.refuse(removed(&why));
        *self.removed.lock() = Some(why.clone());
        self.draining.cancel();
        if let Err(e) = self.data_dir.mark_removed(&why) {
            warn!("could not note that this node has been removed: {e}");
        }
    }
}

/// What clients are told, and whoever starts the node again.
pub(super) fn removed(why: &str) -> Error {
    Error::new(REMOVED, why.to_owned())
        .hint("Stop this node and empty its data directory; it can join anew, under another id.")
}

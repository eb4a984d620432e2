//! What a node does with its days: follows the membership, makes itself known.
//!
//! The membership is the Raft group's. From it, and from what gossip hears, come the address book, the
//! leaderless engine's peers and this node's own announcement: as long as the membership does not name
//! this node with the addresses it has now (it is new, or has been moved), it tells the members so.
//!
//! Nothing here waits for Raft on behalf of a leaderless statement: without a quorum the last known
//! members stay the members.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::Node;
use crate::NodeId;
use crate::api::NodeState;
use crate::rpc::{JoinReply, JoinRequest, RpcRequest, RpcResponse};
use crate::strong::{Member, REMOVED};

/// Between two looks at the membership.
const TICK: Duration = Duration::from_millis(200);
/// Between two announcements that did not succeed.
const ANNOUNCE_RETRY: Duration = Duration::from_millis(500);
/// A member that has heard no leader for so long asks whether it still is one.
const DOUBT: Duration = Duration::from_secs(3);
/// How long a member may take to have an announcement committed.
const ANNOUNCE_DEADLINE: Duration = Duration::from_secs(8);

/// What became of an announcement.
enum Announcement {
    Accepted,
    Later(String),
    Removed(String),
}

/// Whom the membership names, and as what.
#[derive(Default)]
struct Known {
    members: Vec<(NodeId, Member, bool)>,
    was_member: bool,
    was_voter: bool,
}

impl Node {
    /// Follows the membership.
    pub(super) async fn follow_membership(self: Arc<Self>) {
        let mut known = Known::default();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look_at_members(&mut known);
        }
    }

    fn look_at_members(&self, known: &mut Known) {
        let members = self.group.members();
        if members != known.members {
            self.members_changed(known, members);
        }
        self.update_addresses(&known.members);
        let peers = self.gossip.peers();
        let dead: BTreeSet<NodeId> =
            peers.iter().filter(|(_, p)| p.state == NodeState::Dead).map(|(id, _)| *id).collect();
        self.leaderless.set_dead(dead);
        self.avoid_draining_leaders();
    }

    fn members_changed(&self, known: &mut Known, members: Vec<(NodeId, Member, bool)>) {
        let own = members.iter().find(|(id, ..)| *id == self.id);
        let (is_member, is_voter) = (own.is_some(), own.is_some_and(|(.., voter)| *voter));
        if is_member && !known.was_member {
            info!("node {} is a member of the cluster ({} members)", self.id, members.len());
        }
        if is_voter && !known.was_voter {
            info!("node {} is a voter", self.id);
            if self.member.learner {
                warn!("--learner counts when a node joins; this one votes");
            }
        }
        if known.was_member && !is_member && !members.is_empty() {
            warn!("node {} has been removed from the cluster; stop it and empty its data directory", self.id);
        }
        (known.was_member, known.was_voter) = (is_member, is_voter);
        self.leaderless.set_regions(members.iter().map(|(id, m, _)| (*id, m.region.clone())).collect());
        self.leaderless.set_members(members.iter().map(|(id, ..)| *id).filter(|id| *id != self.id));
        if !members.is_empty() {
            let ids: BTreeSet<NodeId> = members.iter().map(|(id, ..)| *id).collect();
            // 0 is whoever answers at an address that no member is known at.
            self.client.retain(|id| id == 0 || ids.contains(&id));
        }
        let heard = self.gossip.peers();
        for (id, member, _) in &members {
            if *id != self.id
                && !heard.contains_key(id)
                && let Ok(address) = member.rpc_address.parse::<SocketAddr>()
            {
                self.gossip.introduce(address);
            }
        }
        known.members = members;
    }

    /// Where members are: as the membership says, or, newer than that, as they say themselves.
    fn update_addresses(&self, members: &[(NodeId, Member, bool)]) {
        let heard = self.gossip.peers();
        let addresses = members.iter().filter(|(id, ..)| *id != self.id).map(|(id, member, _)| {
            let is_heard = |state| matches!(state, NodeState::Alive | NodeState::Draining);
            let own_word = heard.get(id).filter(|p| is_heard(p.state)).map(|p| &p.member);
            let address = own_word.unwrap_or(member).rpc_address.clone();
            (*id, if address.is_empty() { member.rpc_address.clone() } else { address })
        });
        self.book.replace(addresses);
    }

    /// Announces this node until the membership names it as it is; then watches that it stays so. Who hears no
    /// leader for a while asks whether it still belongs: a node that is removed while it is away is told by nobody.
    pub(super) async fn announce(self: Arc<Self>) {
        let (mut said, mut was_member) = (false, false);
        loop {
            tokio::time::sleep(if said { ANNOUNCE_RETRY } else { TICK }).await;
            let members = self.group.members();
            let own = members.iter().find(|(id, ..)| *id == self.id).map(|(_, member, _)| member);
            was_member |= own.is_some();
            let is_named = own.is_some_and(|own| own.says_the_same(&self.member));
            if is_named && self.group.silence() < DOUBT {
                said = false;
                continue;
            }
            if !std::mem::replace(&mut said, true) && !is_named {
                info!("announcing node {} at {} to the cluster", self.id, self.member.rpc_address);
            }
            let (node, member) = (self.id, self.member.clone());
            match self.announce_once(&members, JoinRequest::Announce { node, member, was_member }).await {
                Announcement::Accepted => {}
                Announcement::Later(reason) => debug!("the announcement is not accepted yet: {reason}"),
                Announcement::Removed(reason) => {
                    error!("{reason}; stop this node and empty its data directory to let it join anew");
                    self.retire(reason);
                    return;
                }
            }
        }
    }

    async fn announce_once(
        &self,
        members: &[(NodeId, Member, bool)],
        announcement: JoinRequest,
    ) -> Announcement {
        if self.group.is_leader() {
            return match self.group.add_member(self.id, self.member.clone()).await {
                Ok(()) => Announcement::Accepted,
                Err(e) if e.sqlstate == REMOVED => Announcement::Removed(e.message),
                Err(e) => Announcement::Later(e.to_string()),
            };
        }
        let request = RpcRequest::Join(announcement);
        let mut reason = "there is nobody to announce it to".to_owned();
        for (target, address) in self.whom_to_ask(members) {
            match self.client.call(target, &address, &request, ANNOUNCE_DEADLINE).await {
                Ok(RpcResponse::Join(JoinReply::Announced)) => return Announcement::Accepted,
                Ok(RpcResponse::Join(JoinReply::Refused(r))) => return Announcement::Removed(r),
                Ok(RpcResponse::Join(JoinReply::Later(r)) | RpcResponse::Failed(r)) => reason = r,
                Ok(_) => reason = "an answer of another kind".to_owned(),
                Err(e) => reason = e.to_string(),
            }
        }
        Announcement::Later(reason)
    }

    /// The leader first, then the other members, then the addresses given with `--join`.
    fn whom_to_ask(&self, members: &[(NodeId, Member, bool)]) -> Vec<(NodeId, String)> {
        let leader = self.group.leader();
        let others = members.iter().filter(|(id, ..)| *id != self.id);
        let mut targets: Vec<(NodeId, String)> = others
            .map(|(id, member, _)| {
                (*id, self.book.get(*id).map_or_else(|| member.rpc_address.clone(), |a| a.to_string()))
            })
            .collect();
        targets.sort_by_key(|(id, _)| Some(*id) != leader);
        targets.extend(self.join.iter().map(|address| (0, address.clone())));
        targets
    }
}

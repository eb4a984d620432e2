//! Sessions of this node for the others, and of the others for this one.

use std::sync::Arc;
use std::time::Duration;

use super::Node;
use crate::NodeId;
use crate::api::NodeState;
use crate::rpc::{RpcRequest, RpcResponse};
use crate::sessions::{
    RemoteSessions, SessionDirectory, SessionsReply, SessionsRequest, Signal, Signalled, may_be_of,
};

/// How long another node may take to answer.
const DEADLINE: Duration = Duration::from_secs(2);

impl Node {
    /// Says who knows this node's sessions. To be called once.
    pub fn list_sessions_by(&self, directory: Arc<dyn SessionDirectory>) {
        let _ = self.sessions.set(directory);
    }

    /// Answers a peer.
    pub(super) fn handle_sessions(&self, request: SessionsRequest) -> SessionsReply {
        match request {
            SessionsRequest::List => {
                SessionsReply::List(self.sessions.get().map_or_else(Vec::new, |own| own.list()))
            }
            SessionsRequest::Signal(pid, signal) => SessionsReply::Signalled(self.signal_here(pid, &signal)),
        }
    }

    fn signal_here(&self, pid: i32, signal: &Signal) -> Signalled {
        self.sessions.get().map_or(Signalled::Unknown, |own| own.signal(pid, signal))
    }

    async fn ask_for_sessions(&self, node: NodeId, request: SessionsRequest) -> Option<SessionsReply> {
        let address = self.book.get(node)?;
        match self.client.call(node, &address, &RpcRequest::Sessions(request), DEADLINE).await {
            Ok(RpcResponse::Sessions(reply)) => Some(reply),
            _ => None,
        }
    }

    /// Members other than this node, and whether they are taken for dead.
    fn others(&self) -> impl Iterator<Item = (NodeId, bool)> {
        let members = self.group.members().into_iter().map(|(id, ..)| id);
        members.filter(|id| *id != self.id).map(|id| (id, self.liveness(id) == NodeState::Dead))
    }

    pub(super) async fn sessions_elsewhere(&self) -> RemoteSessions {
        let alive = self.others().filter(|(_, dead)| !dead);
        let asked =
            alive.map(|(id, _)| async move { (id, self.ask_for_sessions(id, SessionsRequest::List).await) });
        let mut remote = RemoteSessions::default();
        for (id, reply) in futures::future::join_all(asked).await {
            match reply {
                Some(SessionsReply::List(sessions)) => remote.sessions.extend(sessions),
                _ => remote.silent.push(id),
            }
        }
        remote
    }

    pub(super) async fn signal_anywhere(&self, pid: i32, signal: Signal) -> Signalled {
        if may_be_of(self.id, pid) {
            let here = self.signal_here(pid, &signal);
            if here != Signalled::Unknown {
                return here;
            }
        }
        let mut outcome = Signalled::Unknown;
        for (id, dead) in self.others().filter(|(id, _)| may_be_of(*id, pid)) {
            // What is dead has no sessions; what is merely cut off may have.
            let reply = match dead {
                true => None,
                false => self.ask_for_sessions(id, SessionsRequest::Signal(pid, signal.clone())).await,
            };
            match reply {
                Some(SessionsReply::Signalled(Signalled::Unknown)) => {}
                Some(SessionsReply::Signalled(told)) => return told,
                _ => outcome = Signalled::Silent(id),
            }
        }
        outcome
    }
}

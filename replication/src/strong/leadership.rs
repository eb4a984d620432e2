//! Who leads: handing leadership over, moving it to where it is preferred, and noticing that it is worth
//! nothing any more.
//!
//! ```text
//!   leader    … commits ─┬─ reads stop ─┬─ commits pause ─┬─ hand over ──► NotLeader, whatever is asked
//!                        │  relying on  │  what is in     │
//!                        │  leases      │  flight ends    │ all of the log is there
//!   successor            │              │                 └► vote ─► first entry ─► locks, commits, reads
//!                        └ ≤ 33 ms,     └ a few ms ────────────────────────────────┘
//!                          nobody waits    what clients notice
//! ```
//!
//! **Why nobody is told of an error.** While commits pause, the leader answers `NotLeader`: nothing was done,
//! and the gateway asks again, here or wherever leadership is by then. What was accepted before gets its
//! answer before the handover begins, so no commit's outcome is ever in doubt. What is lost is the lock
//! table. A statement that is a transaction of its own then has written nothing, its 40001 stands for "certainly not
//! committed", and the session runs it again; a client's open transaction that held locks gets the 40001.
//!
//! **Why it succeeds under load.** A successor takes over only if it has all of the log. So nothing is
//! appended any more before it is told, and it is told again until it leads: entries on their way to it
//! may arrive after the first message. Should it have died meanwhile, the others are already free to elect
//! someone, because who hands over gives up its lease everywhere.
//!
//! **Who may disturb a leader.** Nobody whose log or connection is worse. A node that hears no leader asks
//! first whether it would be elected (Raft dissertation, 9.6, "pre-vote"; openraft's), and no one who hears
//! the leader says yes, so a node that was cut off comes back without a word about terms. A leader that no
//! majority answers accepts nothing after its lease, says so in the log, counts for views and for `/ready` as no leader
//! at all, and falls silent for a while, so that followers who hear it and whom it does not hear elect another.

use std::collections::BTreeSet;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;

use super::group::{Group, Inner, known_leader};
use super::membership::change_failed;
use super::roster::FITTEST;
use super::tenure::Tenure;
use super::transport::{Reply, Request};
use crate::{Error, NodeId, Result};

/// How long commits in flight and the successor's log are waited for, commits paused meanwhile.
const PAUSE_LIMIT: Duration = Duration::from_millis(500);
/// How long to wait for a successor to lead.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(3);
/// A successor that does not yet lead is told again so often.
const TELL_AGAIN: Duration = Duration::from_millis(30);
/// How long a caller then waits for its own node to hear of it.
const NEWS_PATIENCE: Duration = Duration::from_secs(1);
/// How long a caller waits for a transfer.
const CALL_PATIENCE: Duration = Duration::from_secs(5);
/// How often the leader looks for a voter that is preferred to it.
const PREFERENCE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a preferred voter must have been fit without a break.
const PREFERENCE_PATIENCE: u32 = 3;
/// How often a leader looks whether a majority still answers.
const QUORUM_INTERVAL: Duration = Duration::from_millis(100);

impl Group {
    /// Hands leadership to a voter, and returns once it leads.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<()> {
        match self.members().iter().find(|(id, _, _)| *id == to) {
            Some((_, _, true)) => self.transfer(to).await,
            Some(_) => Err(Error::new("55000", format!("node {to} is not a voter"))
                .hint("A learner never leads; a new node becomes a voter when it has caught up.")),
            None => Err(Error::new("42704", format!("node {to} is not a member of the cluster"))),
        }
    }

    /// Moves leadership away from whoever has it, to the fittest other voter. Returns once it leads.
    pub async fn move_leader(&self) -> Result<()> {
        self.transfer(FITTEST).await
    }

    async fn transfer(&self, to: NodeId) -> Result<()> {
        match self.ask_leader(Request::TransferTo(to), CALL_PATIENCE).await? {
            Reply::Done => {
                self.hear_of_leader(to).await;
                Ok(())
            }
            other => Err(change_failed(&other)),
        }
    }

    /// Waits until this node, too, knows who leads: the answer of the old leader may be here before the new one's
    /// first message. It is true whether this node has heard or not, so there is no error.
    async fn hear_of_leader(&self, to: NodeId) {
        let until = Instant::now() + NEWS_PATIENCE;
        let heard = |leader| to == FITTEST || leader == to;
        while !self.leader().is_some_and(heard) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Hands leadership over if this node has it and another voter is fit. Who has taken it.
    pub async fn hand_over(&self) -> Option<NodeId> {
        let tenure = self.inner.tenure.load_full().filter(|t| !t.has_ended())?;
        if self.voters().len() < 2 {
            return None;
        }
        match self.transfer_as_leader(&tenure, FITTEST).await {
            Reply::Done => self.leader(),
            Reply::Failed(reason) => {
                tracing::warn!("leadership could not be handed over: {reason}");
                None
            }
            _ => None,
        }
    }

    /// Nodes that leadership is to stay away from: those that are being drained.
    pub fn avoid_leading(&self, nodes: BTreeSet<NodeId>) {
        let mut avoided = self.inner.avoided.lock();
        if *avoided != nodes {
            *avoided = nodes;
        }
    }

    pub(super) async fn transfer_as_leader(&self, tenure: &Tenure, to: NodeId) -> Reply {
        let current = self.inner.tenure.load_full().filter(|current| current.leader() == tenure.leader());
        let Some(tenure) = current else { return Reply::NotLeader(self.leader()) };
        let group = self.clone();
        // Whoever asked may go away half-way. What has begun comes to an end, or commits would wait for ever.
        let transfer = tokio::spawn(async move { group.transfer_of(&tenure, to).await });
        transfer.await.unwrap_or_else(|e| Reply::Failed(e.to_string()))
    }

    /// Stops serving, and tells a successor until another leads.
    ///
    /// *A tenure that is paused here ends.* From the first message on this node neither proposes nor sends
    /// heartbeats, grants its vote at once, and has asked the others to do so; what it has appended it still sends.
    /// So if the successor has died, any other voter that has, or gets, all of the log is elected after an election
    /// timeout, by this node's vote among others. If there is none, no majority of the voters is alive, and whoever
    /// comes back first has all of the log soon, and is elected.
    async fn transfer_of(&self, tenure: &Tenure, to: NodeId) -> Reply {
        if to == self.inner.node_id {
            return Reply::Done;
        }
        let Ok(_alone) = self.inner.transfers.try_lock() else {
            return Reply::Failed("leadership is being handed over already".to_owned());
        };
        let avoided = self.inner.avoided.lock().clone();
        let to = match self.roster().successor(to, self.lately(), &avoided) {
            Ok(to) => to,
            Err(reason) => return Reply::Failed(reason),
        };
        // Whoever takes over does not wait for our lease to end: stop relying on it first.
        tenure.suspend_lease().await;
        if !tenure.pause(PAUSE_LIMIT).await || !self.has_all(to, PAUSE_LIMIT).await {
            tenure.resume();
            return Reply::Failed(format!("node {to} is too far behind to take over leadership now"));
        }
        tracing::info!(successor = to, "handing over leadership");
        let until = Instant::now() + TRANSFER_PATIENCE;
        while Instant::now() < until {
            // From the first of these on nothing is proposed here any more, come what may.
            if let Err(e) = self.inner.raft.trigger().transfer_leader(to).await {
                return Reply::Failed(e.to_string());
            }
            match tokio::time::timeout(TELL_AGAIN, self.led_by_another()).await {
                Ok(leader) if leader == to => return Reply::Done,
                Ok(leader) => {
                    return Reply::Failed(format!("node {leader} took over leadership, not node {to}"));
                }
                Err(_) => {}
            }
        }
        Reply::Failed(format!("node {to} did not take over leadership in time"))
    }

    /// Waits until a node has all of the log; false if that takes too long.
    async fn has_all(&self, node: NodeId, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            let (last, peers) = self.peer_positions();
            if peers.iter().any(|(id, matched, _)| *id == node && *matched >= last) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until another leads.
    async fn led_by_another(&self) -> NodeId {
        let mut server = self.inner.server.clone();
        loop {
            let leader = known_leader(&server.borrow_and_update()).map(|leader| leader.node_id);
            if let Some(leader) = leader.filter(|leader| *leader != self.inner.node_id) {
                return leader;
            }
            if server.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Ids of the voters.
    pub fn voters(&self) -> Vec<NodeId> {
        self.members().into_iter().filter(|(_, _, voter)| *voter).map(|(id, _, _)| id).collect()
    }

    /// True if this node has led, and no majority has answered it for longer than its lease.
    pub(super) fn has_lost_quorum(&self) -> bool {
        self.inner.cut_off.load(Ordering::Acquire)
    }
}

/// Moves leadership to a voter with a higher preference, once it has been fit for a while.
pub(super) async fn prefer(group: Weak<Inner>) {
    let mut fit_for = (FITTEST, 0);
    loop {
        tokio::time::sleep(PREFERENCE_INTERVAL).await;
        let Some(inner) = group.upgrade() else { return };
        let group = Group { inner };
        let own = group.inner.member.preference;
        let Some(tenure) = group.inner.tenure.load_full().filter(|t| !t.has_ended()) else { continue };
        if group.inner.avoided.lock().contains(&group.inner.node_id) {
            group.hand_over().await;
            continue;
        }
        let avoided = group.inner.avoided.lock().clone();
        let Some(better) =
            group.roster().fit(group.lately(), &avoided).into_iter().filter(|c| c.preference > own).max()
        else {
            fit_for = (FITTEST, 0);
            continue;
        };
        fit_for = if fit_for.0 == better.id { (better.id, fit_for.1 + 1) } else { (better.id, 1) };
        if fit_for.1 < PREFERENCE_PATIENCE {
            continue;
        }
        fit_for = (FITTEST, 0);
        tracing::info!(node = better.id, preference = better.preference, "leadership is preferred elsewhere");
        if let Reply::Failed(reason) = group.transfer_as_leader(&tenure, better.id).await {
            tracing::warn!(node = better.id, "leadership stays here: {reason}");
        }
    }
}

/// Notices, on a leader, that no majority answers any more, and that one does again.
pub(super) async fn watch_quorum(group: Weak<Inner>) {
    loop {
        tokio::time::sleep(QUORUM_INTERVAL).await;
        let Some(inner) = group.upgrade() else { return };
        let leads = known_leader(&inner.server.borrow_watched()).is_some_and(|l| l.node_id == inner.node_id);
        let group = Group { inner };
        let alone = group.voters().len() < 2;
        let acked = group.inner.data.borrow_watched().last_quorum_acked.map(|at| at.elapsed());
        let silent = acked.is_none_or(|silence| silence > group.inner.timing.election.1 * 2);
        let lost = leads && !alone && silent && group.inner.tenure.load().is_some();
        if group.inner.cut_off.swap(lost, Ordering::AcqRel) == lost {
            continue;
        }
        if lost {
            tracing::warn!(
                "this node led, and no majority of the voters answers it any more: it steps aside; strong tables \
                 wait for a majority, leaderless tables work on"
            );
        } else if leads {
            tracing::info!("a majority of the voters answers again: this node leads on");
        }
    }
}

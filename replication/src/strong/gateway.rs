//! What any node asks of the leader on behalf of its transactions: snapshots, locks, commits.
//!
//! The leader may be this node, another, or nobody for a second or two. Requests that certainly had no
//! effect are sent again to whoever leads next, until patience runs out. A commit whose reply was lost is
//! never sent again: its outcome is asked for.
//!
//! ```text
//!   Commit ──► Committed                                              ──► Ok
//!          ──► Refused                                                ──► an error of its own
//!          ──► NotLeader, unreachable         certainly not committed ──► again, at the next leader
//!          ──► reply lost, leader deposed     ──► Outcome ──► Committed      ──► Ok
//!                                                         ──► NotCommitted   ──► 40001 (or run again)
//!                                                         ──► nobody knows   ──► 08007
//! ```

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use amphora_storage::Timestamp;
use amphora_storage::schema::TableId;
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::mpsc;

use super::early::EarlyCommit;
use super::group::{Group, Inner, known_leader};
use super::leases::{GRANTED, Standing};
use super::network::time_to_send;
use super::sequences::{SequenceAnswer, SequenceCall};
use super::tenure::Tenure;
use super::transport::{LockRefusal, Refusal, Reply, Request, TransportError};
use super::types::{CommitRequest, KeyLock, LeaderId, LockRequest, TransactionId};
use crate::api::WaitPolicy;
use crate::{Error, NodeId, Result};

/// How long a leader holds back its answer to a lock request that waits.
const LOCK_POLL: Duration = Duration::from_secs(2);
/// How long to wait for a commit's reply before its outcome is asked for.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);
/// How long to go on asking for an outcome.
const OUTCOME_PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for the reply to anything short.
const CALL_PATIENCE: Duration = Duration::from_secs(1);
/// How long a deposed leader's reply is waited for.
const LATE_REPLY: Duration = Duration::from_millis(200);
/// Between two looks for a leader.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Before the first of them: leadership may be on its way to another node.
const FIRST_LOOK: Duration = Duration::from_millis(2);
/// How often the locks of open transactions are renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);
/// Releases in one message.
const MAX_RELEASE_BATCH: usize = 1_024;
/// Bytes that one commit, or one part of a staged one, may have: its entry has to fit a message.
pub const MAX_COMMIT_BYTES: usize = 64 << 20;

/// Where the leader is.
pub(super) enum Route {
    Local(Arc<Tenure>),
    Remote { node: NodeId, address: String, leader: LeaderId },
}

impl Route {
    fn leader(&self) -> LeaderId {
        match self {
            Route::Local(tenure) => tenure.leader(),
            Route::Remote { leader, .. } => *leader,
        }
    }
}

/// The looks for a leader of one request: soon at first, since leadership may just be handed over.
struct Looks(Duration);

impl Default for Looks {
    fn default() -> Looks {
        Looks(FIRST_LOOK)
    }
}

impl Looks {
    async fn pause(&mut self) {
        let pause = self.0;
        self.0 = (pause * 2).min(LOOK_INTERVAL);
        tokio::time::sleep(pause).await;
    }
}

fn no_leader() -> Error {
    Error::unavailable(
        "strong tables are not available: no leader or no quorum can be reached from this node",
    )
}

fn locks_lost() -> Error {
    Error::new("40001", "could not serialize access: the transaction's row locks were lost")
        .detail("The leader of the Raft group changed, or this node was cut off from it for a while.")
        .hint("The transaction might succeed if retried.")
}

impl Group {
    pub(super) fn route(&self) -> Option<Route> {
        let server = self.inner.server.borrow_watched();
        let leader = known_leader(&server)?;
        if leader.node_id == self.inner.node_id {
            let tenure = self.inner.tenure.load_full()?;
            return (tenure.leader() == leader).then_some(Route::Local(tenure));
        }
        let address = server.membership_config.membership().get_node(&leader.node_id)?.rpc_address.clone();
        Some(Route::Remote { node: leader.node_id, address, leader })
    }

    async fn find_leader(&self, until: Instant) -> Result<Route> {
        let mut looks = Looks::default();
        loop {
            if let Some(why) = &*self.inner.refused.load() {
                return Err(Error::clone(why));
            }
            if let Some(route) = self.route() {
                return Ok(route);
            }
            if Instant::now() >= until || self.inner.stop.is_cancelled() {
                return Err(no_leader());
            }
            looks.pause().await;
        }
    }

    async fn ask(
        &self,
        route: &Route,
        request: Request,
        wait: Duration,
    ) -> std::result::Result<Reply, TransportError> {
        match route {
            Route::Local(tenure) => {
                match tokio::time::timeout(wait, self.serve(tenure, self.inner.node_id, request)).await {
                    Ok(reply) => Ok(reply),
                    Err(_) => {
                        Err(TransportError::Lost(self.inner.node_id, "no quorum answered in time".to_owned()))
                    }
                }
            }
            Route::Remote { node, address, leader } => {
                let call = self.inner.transport.call(*node, address, request, wait);
                tokio::select! {
                    reply = call => reply,
                    () = self.deposed(*leader) => {
                        Err(TransportError::Lost(*node, "another node leads now".to_owned()))
                    }
                }
            }
        }
    }

    /// Waits until another leadership is known, and then a little for replies on their way.
    async fn deposed(&self, leader: LeaderId) {
        let mut server = self.inner.server.clone();
        loop {
            let known = known_leader(&server.borrow_and_update());
            if known.is_some_and(|known| known != leader) {
                return tokio::time::sleep(LATE_REPLY).await;
            }
            if server.changed().await.is_err() {
                return tokio::time::sleep(LATE_REPLY).await;
            }
        }
    }

    /// Asks whoever leads, again and again until patience runs out: for requests that may be repeated.
    pub(super) async fn ask_leader(&self, request: Request, wait: Duration) -> Result<Reply> {
        let until = Instant::now() + self.inner.timing.patience;
        let mut looks = Looks::default();
        loop {
            let route = self.find_leader(until).await?;
            match self.ask(&route, request.clone(), wait).await {
                Ok(Reply::NotLeader(_)) | Err(_) if Instant::now() < until => looks.pause().await,
                Ok(Reply::NotLeader(_)) | Err(_) => return Err(no_leader()),
                Ok(reply) => return Ok(reply),
            }
        }
    }

    /// Waits until a commit is applied on this node too, for what is read without asking the leader. Gives
    /// up after a while without an error: the commit stands, this node is merely late.
    pub async fn wait_applied(&self, timestamp: Timestamp) {
        let patience = self.inner.timing.patience;
        let _ = tokio::time::timeout(patience, self.inner.replica.wait_applied(timestamp)).await;
    }

    /// A timestamp at which reads see every commit acknowledged anywhere before the call; all up to it is
    /// applied here. Looks for a leader as long as it is configured to, then fails with kind `Unavailable`.
    pub async fn read_timestamp(&self) -> Result<Timestamp> {
        {
            let tenure = self.inner.tenure.load();
            if let Some(tenure) = tenure.as_ref()
                && tenure.may_use_lease()
                && self.inner.lease_is_valid(tenure.leader())
            {
                return Ok(tenure.applied_timestamp());
            }
        }
        match self.inner.lease.standing() {
            Standing::None => {}
            Standing::Holds => return Ok(self.applied_timestamp()),
            Standing::Ending => {
                // Its answer is a matter of the next statements.
                if self.inner.reads.begin() {
                    self.drive_reads();
                }
                return Ok(self.applied_timestamp());
            }
        }
        let least = self.inner.shown.newest();
        loop {
            let at = self.ask_and_apply().await?;
            // No further, even if more is applied here: the leader may not have, and then who reads there
            // next would see less. But plans rest on the newest catalog that is applied here, and rows as
            // they were before it may not be what it says: then the leader is about to have applied it too. So
            // it is with what a stale read here has shown.
            if at >= self.inner.replica.catalog_version().max(least) {
                return Ok(at);
            }
        }
    }

    /// Asks the leader how far this node must have applied, and waits until it has.
    async fn ask_and_apply(&self) -> Result<Timestamp> {
        let (answer, drive) = self.inner.reads.join()?;
        if drive {
            self.drive_reads();
        }
        // Twice: a question may have to wait for the one before it.
        let patience = self.inner.timing.patience * 2;
        let wanted = match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answer)) => answer?,
            _ => return Err(no_leader()),
        };
        match tokio::time::timeout(patience, self.inner.replica.wait_applied(wanted)).await {
            Ok(()) => Ok(wanted),
            Err(_) => {
                Err(Error::unavailable("strong tables are not available: this node lags too far behind"))
            }
        }
    }

    /// Asks the leader once, and again for as long as statements wait.
    pub(super) fn drive_reads(&self) {
        let group = self.clone();
        tokio::spawn(async move {
            while let Some(batch) = group.inner.reads.next_batch() {
                batch.answer(group.ask_read_index().await);
            }
        });
    }

    /// How far this node must have applied. A lease that comes with the answer is taken when it has.
    async fn ask_read_index(&self) -> Result<Timestamp> {
        let asked = Instant::now();
        let (at, lease) = match self.ask_leader(Request::ReadIndex, CALL_PATIENCE).await? {
            Reply::ReadIndex { at, lease } => (at, lease),
            _ => return Err(no_leader()),
        };
        self.inner.freshness.answered(asked, at, self.applied_timestamp());
        // What is behind now will not be much less so before the lease has run out: no one waits for it.
        if let Some(lease) = lease.filter(|_| self.applied_timestamp() >= at) {
            self.inner.lease.take(lease, asked);
        }
        Ok(at)
    }

    /// The leader's answer to a read index: its applied timestamp, once it is certain that it leads; and a
    /// lease, if another node asks and it is quiet.
    pub(super) async fn read_index(&self, tenure: &Tenure, from: NodeId) -> Reply {
        if !self.certainly_leads(tenure).await {
            return Reply::NotLeader(None);
        }
        let leads = || self.inner.lease_is_valid_for(tenure.leader(), GRANTED);
        let lease = if from != self.inner.node_id && leads() { tenure.grant_lease(from) } else { None };
        // After the grant: whatever is applied by now goes with it, and nothing comes while it holds.
        Reply::ReadIndex { at: tenure.applied_timestamp(), lease }
    }

    /// True if no other leader can have acknowledged anything until now: by the lease, or else a round of
    /// heartbeats shows it. Everything acknowledged under this tenure is applied already.
    pub(super) async fn certainly_leads(&self, tenure: &Tenure) -> bool {
        if tenure.may_use_lease() && self.inner.lease_is_valid(tenure.leader()) {
            return true;
        }
        let confirm = self.inner.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        matches!(tokio::time::timeout(CALL_PATIENCE, confirm).await, Ok(Ok(_confirmed)))
    }

    /// Asks the leader about a sequence, and again while another transaction is changing it. `lock_timeout`
    /// is how long that is waited for (55P03); zero waits for ever.
    ///
    /// A question whose answer was lost is asked again: values that nobody has seen are a gap.
    pub async fn sequence(
        &self,
        id: TableId,
        call: SequenceCall,
        lock_timeout: Duration,
    ) -> Result<SequenceAnswer> {
        let until = (!lock_timeout.is_zero()).then(|| Instant::now() + lock_timeout);
        loop {
            match self.ask_leader(Request::Sequence(id, call), COMMIT_PATIENCE).await? {
                Reply::Sequence(SequenceAnswer::Busy) => {
                    if until.is_some_and(|until| Instant::now() >= until) {
                        return Err(Error::new("55P03", "canceling statement due to lock timeout"));
                    }
                    tokio::time::sleep(LOOK_INTERVAL / 4).await;
                }
                Reply::Sequence(answer) => return Ok(answer),
                Reply::Failed(message) => return Err(Error::new("58000", message)),
                _ => return Err(no_leader()),
            }
        }
    }

    /// Locks keys for a transaction. One answer per key, in the request's order. Whatever comes of it, even
    /// if the call is given up, the transaction must be ended with [`commit`](Group::commit) or
    /// [`release`](Group::release).
    pub async fn lock(&self, mut request: LockRequest) -> Result<Vec<KeyLock>> {
        let id = request.id;
        // A caller that gives up, or fails, before anything was granted knows of nothing to release.
        let _unheld = ReleaseUnheld { group: self, id };
        let until = (!request.timeout.is_zero()).then(|| Instant::now() + request.timeout);
        let mut patience = Instant::now() + self.inner.timing.patience;
        let mut looks = Looks::default();
        loop {
            let held_under = self.inner.open.enter(id, request.session);
            if request.wait == WaitPolicy::Wait {
                request.partners = self.inner.open.partners(id);
            }
            if let Some(until) = until {
                let left = until.saturating_duration_since(Instant::now());
                request.timeout = left.max(Duration::from_millis(1));
            }
            let route = self.find_leader(patience).await?;
            let ask = Request::Lock { held_under, patience: LOCK_POLL, request: request.clone() };
            match self.ask(&route, ask, LOCK_POLL + CALL_PATIENCE).await {
                Ok(Reply::Locked { leader, keys }) => {
                    // What was seen under one leader is not protected by another's locks.
                    if !self.inner.open.granted(id, leader) {
                        return Err(locks_lost());
                    }
                    return Ok(keys);
                }
                Ok(Reply::LockWaiting) => patience = Instant::now() + self.inner.timing.patience,
                Ok(Reply::LockRefused(why)) => return Err(lock_error(why, &request.relation)),
                Ok(Reply::Failed(message)) => return Err(Error::new("58000", message)),
                Ok(_) | Err(_) => {
                    if Instant::now() >= patience {
                        return Err(no_leader());
                    }
                    looks.pause().await;
                }
            }
        }
    }

    /// Commits, and gives back all locks. Returns the commit timestamp once it is applied on the leader.
    ///
    /// Errors: kind `Restart` for an optimistic transaction that met a conflict, `CatalogMoved`, 40001 for
    /// a locked transaction that lost its locks, 08007 if the outcome cannot be learnt, 57P03 without a
    /// quorum. In all cases but 08007 nothing was written.
    pub async fn commit(&self, request: CommitRequest) -> Result<Timestamp> {
        self.commit_early(request).await.map(|commit| commit.timestamp)
    }

    /// As [`commit`](Group::commit), and says what is to be known of a commit that is acknowledged early.
    pub async fn commit_early(&self, request: CommitRequest) -> Result<EarlyCommit> {
        let id = request.id;
        let result = self.commit_somewhere(request).await;
        match &result {
            // The leader that refused it has released it; the one that never saw the commit has not.
            Err(_) => self.release(id),
            Ok(commit) => {
                self.inner.acknowledged.fetch_max(commit.timestamp.0, Ordering::AcqRel);
                self.inner.open.leave(id);
            }
        }
        result
    }

    async fn commit_somewhere(&self, request: CommitRequest) -> Result<EarlyCommit> {
        let id = request.id;
        let size = request.size();
        if size > MAX_COMMIT_BYTES {
            return Err(Error::too_large(MAX_COMMIT_BYTES));
        }
        // What went ahead does not travel again, but it is applied only now.
        let patience = COMMIT_PATIENCE + time_to_send(size) + time_to_send(request.staged.bytes as usize);
        let held_under = self.inner.open.held_under(id);
        let optimistic = !request.locked;
        // Whatever entry carries it comes after what is applied here now.
        let after = self.inner.replica.applied_index();
        let until = Instant::now() + self.inner.timing.patience;
        let mut looks = Looks::default();
        loop {
            let route = self.find_leader(until).await?;
            let ask = Request::Commit { leader: route.leader(), held_under, request: request.clone() };
            match self.ask(&route, ask, patience).await {
                Ok(Reply::Committed(timestamp)) => {
                    return Ok(EarlyCommit { id, after, leader: route.leader(), timestamp });
                }
                Ok(Reply::Refused(why)) => return Err(commit_error(why, optimistic)),
                Ok(Reply::Failed(message)) => return Err(Error::new("58000", message)),
                Ok(Reply::Unknown) | Err(TransportError::Lost(..)) => {
                    let timestamp = self.resolve(id, after, optimistic).await?;
                    return Ok(EarlyCommit { id, after, leader: route.leader(), timestamp });
                }
                Ok(_) | Err(TransportError::Unreachable(..)) => {
                    if Instant::now() >= until {
                        return Err(no_leader());
                    }
                    looks.pause().await;
                }
            }
        }
    }

    /// Learns what became of a commit.
    pub(super) async fn resolve(&self, id: TransactionId, after: u64, optimistic: bool) -> Result<Timestamp> {
        let until = Instant::now() + OUTCOME_PATIENCE;
        while Instant::now() < until {
            let Ok(route) = self.find_leader(until).await else { break };
            let ask = Request::Outcome { leader: route.leader(), id, after };
            match self.ask(&route, ask, CALL_PATIENCE * 3).await {
                Ok(Reply::Committed(timestamp)) => return Ok(timestamp),
                Ok(Reply::NotCommitted) if optimistic => return Err(Error::restart()),
                Ok(Reply::NotCommitted) => return Err(locks_lost()),
                _ => tokio::time::sleep(LOOK_INTERVAL * 2).await,
            }
        }
        Err(Error::new("08007", "transaction resolution unknown")
            .detail("The connection to the leader was lost while the transaction committed.")
            .hint("Find out whether its effects are there before you run it again."))
    }

    /// Gives back all locks of a transaction that will not commit. Returns at once; harmless if it has none.
    pub fn release(&self, id: TransactionId) {
        if self.inner.open.leave(id) && self.inner.releases.try_send(id).is_err() {
            tracing::debug!(transaction = %id, "its locks will expire: too many releases are waiting");
        }
    }
}

/// Releases a transaction that turns out to hold nothing, wherever a queue may still know it.
struct ReleaseUnheld<'a> {
    group: &'a Group,
    id: TransactionId,
}

impl Drop for ReleaseUnheld<'_> {
    fn drop(&mut self) {
        if self.group.inner.open.held_under(self.id).is_none() {
            self.group.release(self.id);
        }
    }
}

fn lock_error(why: LockRefusal, relation: &str) -> Error {
    match why {
        LockRefusal::Timeout => Error::new("55P03", "canceling statement due to lock timeout"),
        LockRefusal::NotAvailable => {
            Error::new("55P03", format!("could not obtain lock on row in relation \"{relation}\""))
        }
        LockRefusal::Deadlock => Error::new("40P01", "deadlock detected")
            .detail(format!(
                "To wait for a lock in relation \"{relation}\" would close a circle of waiting transactions."
            ))
            .hint("The transaction might succeed if retried."),
        LockRefusal::LocksLost => locks_lost(),
        LockRefusal::Overloaded => {
            Error::new("53200", "out of shared memory").hint("The leader's lock table is full.")
        }
    }
}

fn commit_error(why: Refusal, optimistic: bool) -> Error {
    match why {
        Refusal::Conflict if optimistic => Error::restart(),
        Refusal::Conflict => Error::serialization(),
        Refusal::ReadsMoved if optimistic => Error::restart(),
        Refusal::ReadsMoved => Error::not_serializable(),
        Refusal::CatalogMoved => Error::catalog_moved(),
        Refusal::LocksLost | Refusal::Fenced => locks_lost(),
        Refusal::Overloaded => Error::new("53300", "too many commits are waiting")
            .hint("The leader cannot keep up. Try again later, or with fewer clients."),
        Refusal::ClockDrift => Error::new("58000", "this node's clock is too far ahead of the leader's")
            .hint("Synchronize the nodes' clocks (NTP)."),
    }
}

/// Tells the leader every second which transactions of this node are alive.
pub(super) async fn renew(group: Weak<Inner>) {
    loop {
        tokio::time::sleep(RENEW_INTERVAL).await;
        let Some(inner) = group.upgrade() else { return };
        let ids = inner.open.ids();
        if ids.is_empty() {
            continue;
        }
        let group = Group { inner };
        if let Some(route) = group.route() {
            // Lost, it is followed by another before the locks expire.
            let _ = group.ask(&route, Request::Renew(ids), CALL_PATIENCE).await;
        }
    }
}

/// Sends releases to the leader, all that have gathered in one message.
pub(super) async fn release(group: Weak<Inner>, mut releases: mpsc::Receiver<TransactionId>) {
    let mut ids = Vec::new();
    while releases.recv_many(&mut ids, MAX_RELEASE_BATCH).await > 0 {
        let Some(inner) = group.upgrade() else { return };
        let group = Group { inner };
        let ids = std::mem::take(&mut ids);
        if let Some(route) = group.route() {
            // Lost, the locks expire.
            let _ = group.ask(&route, Request::Release(ids), CALL_PATIENCE).await;
        }
    }
}

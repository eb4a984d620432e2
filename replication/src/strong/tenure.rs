//! One leadership of this node: what it holds in memory from its first applied entry until it is deposed.
//!
//! ```text
//!     vote won        first entry of the term applied            higher vote seen
//!  ──────┼───────────────────────┼──────────────────────────────────────┼────────►
//!        │   nothing is granted  │   locks, commits, reads by lease      │ all gone
//!        │                       └── Tenure::begin                       └── Tenure::end
//! ```
//!
//! Nothing in here outlives the leadership, and nothing in here is needed for safety by the next one: who
//! held locks under this tenure learns at its next step that they are lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use amphora_storage::Timestamp;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::admission::{Admission, Turned};
use super::certification::Ground;
use super::certifier::{self, Item, QueuedBytes};
use super::leases::{Granted, Lease, Recall};
use super::locks::{Ask, Event, LockTable, Progress};
use super::replica::Replica;
use super::sequences::Sequences;
use super::transport::{LockRefusal, Refusal, Reply, Request, Transport};
use super::types::{CommitRequest, KeyLock, LeaderId, LockKey, LockRequest, Pick, TransactionId, TypeConfig};
use super::{RaftHandle, outcomes::Outcome};
use crate::NodeId;
use crate::api::{LockMode, WaitPolicy};

/// Commits waiting for the certifier, at most.
pub const MAX_QUEUED_COMMITS: usize = 16_384;
/// Their bytes, and those of commits in flight, at most, but for a single one that has more.
pub const MAX_QUEUED_BYTES: usize = 256 << 20;
/// A transaction not heard of for so long loses its locks.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(5);
/// How long a question for an outcome waits for a commit in flight.
const OUTCOME_PATIENCE: Duration = Duration::from_secs(2);

/// The lock table and those who wait for it to answer.
#[derive(Default)]
struct Locks {
    table: LockTable,
    waiters: HashMap<TransactionId, oneshot::Sender<Progress>>,
    ended: bool,
}

impl Locks {
    /// Locks a key if it is free. True if the transaction has it now.
    fn try_one(&mut self, id: TransactionId, key: &LockKey) -> Result<bool, LockRefusal> {
        let mut events = Vec::new();
        let (now, keys) = (Instant::now(), std::slice::from_ref(key));
        let progress = self.table.request(now, id, keys, WaitPolicy::Skip, &mut events);
        self.deliver(events);
        match progress {
            Progress::Granted { skipped } => Ok(skipped.is_empty()),
            Progress::Refused(why) => Err(why),
            Progress::Waiting => Ok(false),
        }
    }

    fn deliver(&mut self, events: Vec<Event>) {
        for event in events {
            if let Some(waiter) = self.waiters.remove(&event.id) {
                // A waiter that has gone away asks again, and finds its locks held.
                let _ = waiter.send(event.progress);
            }
        }
    }
}

/// How a leader reaches those who hold its leases.
pub struct Peers {
    /// The wire
    pub transport: Arc<dyn Transport>,
    /// Who is where
    pub server: openraft::alias::WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
}

impl Peers {
    /// Waits until no one relies on leases any more.
    pub async fn recall(&self, recall: Recall) {
        let each = recall.holders.into_iter().map(|(node, until)| async move {
            let address = {
                let server = self.server.borrow_watched();
                let known = server.membership_config.membership().get_node(&node);
                known.map(|member| member.rpc_address.clone())
            };
            if let Some(address) = address {
                let patience = until.saturating_duration_since(Instant::now());
                let told = self.transport.call(node, &address, Request::Recall(recall.lease), patience);
                if let Ok(Reply::Done) = told.await {
                    return;
                }
            }
            tokio::time::sleep_until(until.into()).await;
        });
        futures::future::join_all(each).await;
    }
}

/// What the certifier and the handlers of one tenure share.
pub struct TenureState {
    /// Which leadership this is
    pub leader: LeaderId,
    /// What has been applied here
    pub replica: Arc<Replica>,
    /// How the others are reached
    pub peers: Peers,
    /// What followers may read without asking
    pub leases: Granted,
    locks: Mutex<Locks>,
    active: Mutex<Admission>,
    ended: AtomicBool,
}

/// One leadership of this node.
pub struct Tenure {
    state: Arc<TenureState>,
    queue: mpsc::Sender<Item>,
    /// Bytes of commits that wait or are in flight
    queued: Arc<AtomicUsize>,
    lease_suspended: AtomicBool,
    sequences: Sequences,
}

impl TenureState {
    /// True once this node has been deposed.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Gives back locks and wakes those who waited for them.
    pub fn release(&self, ids: impl IntoIterator<Item = TransactionId>) {
        let mut locks = self.locks.lock();
        let mut events = Vec::new();
        for id in ids {
            locks.waiters.remove(&id);
            locks.table.release(id, &mut events);
        }
        locks.deliver(events);
    }

    /// Takes the locks of transactions whose gateway has fallen silent.
    pub fn expire(&self) {
        let mut locks = self.locks.lock();
        let mut events = Vec::new();
        let silent = locks.table.expire(Instant::now(), SILENCE_LIMIT, &mut events);
        let mut active = self.active.lock();
        for id in silent {
            tracing::info!(transaction = %id, "its node fell silent: its locks are given back");
            locks.waiters.remove(&id);
            // A request of its from before may still come and lock again, after others have written.
            active.fence(id);
        }
        drop(active);
        locks.deliver(events);
    }

    /// A commit has its answer.
    pub fn finish(&self, id: TransactionId) {
        self.active.lock().finish(id);
    }
}

impl Ground for TenureState {
    fn hold(&self, id: TransactionId, held_under: Option<LeaderId>) -> bool {
        let mut locks = self.locks.lock();
        if held_under != Some(self.leader) || !locks.table.knows(id) {
            return false;
        }
        locks.table.set_committing(id);
        true
    }

    fn try_lock(&self, id: TransactionId, keys: &[LockKey]) -> bool {
        self.locks.lock().table.try_lock(Instant::now(), id, keys)
    }

    fn newest(&self, key: &[u8]) -> Result<Timestamp, String> {
        self.replica.newest(key).map_err(|e| e.to_string())
    }

    fn catalog_version(&self) -> Timestamp {
        self.replica.catalog_version()
    }
}

impl Tenure {
    /// Begins to lead. To be called when an entry of this leadership has been applied here.
    pub fn begin(leader: LeaderId, replica: Arc<Replica>, raft: RaftHandle, peers: Peers) -> Tenure {
        let state = Arc::new(TenureState {
            leader,
            replica,
            peers,
            leases: Granted::new(leader, Instant::now()),
            locks: Mutex::default(),
            active: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let (queue, items) = mpsc::channel(MAX_QUEUED_COMMITS);
        tokio::spawn(certifier::run(state.clone(), raft, items));
        let queued = Arc::default();
        Tenure {
            state,
            queue,
            queued,
            lease_suspended: AtomicBool::new(false),
            sequences: Sequences::default(),
        }
    }

    /// Deposed: those who wait for locks are told to look for the next leader.
    pub fn end(&self) {
        self.state.ended.store(true, Ordering::Release);
        let mut locks = self.state.locks.lock();
        locks.ended = true;
        locks.waiters.clear();
        locks.table = LockTable::new();
    }

    /// Which leadership this is.
    pub fn leader(&self) -> LeaderId {
        self.state.leader
    }

    /// True once this node has been deposed.
    pub fn has_ended(&self) -> bool {
        self.state.has_ended()
    }

    /// From now on reads need a round of heartbeats: leadership is being handed over, and who takes it
    /// does not wait for the lease to run out. Nor for followers': that is done here.
    pub async fn suspend_lease(&self) {
        self.lease_suspended.store(true, Ordering::Release);
        if let Some(until) = self.state.leases.suspend() {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// Lets no commit and no new lock in, so that those in flight are the last. True when they have had their
    /// answers, false if that takes too long. Whoever is turned away is told [`Reply::NotLeader`].
    pub async fn pause(&self, limit: Duration) -> bool {
        self.state.active.lock().set_paused(true);
        let until = Instant::now() + limit;
        while !self.state.active.lock().is_idle() {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        true
    }

    /// Leadership was not handed over after all: this node serves on. Not to be called once the successor
    /// has been told.
    pub fn resume(&self) {
        self.state.active.lock().set_paused(false);
        self.state.leases.resume();
        self.lease_suspended.store(false, Ordering::Release);
    }

    /// A lease for a follower, if it is quiet.
    pub fn grant_lease(&self, node: NodeId) -> Option<Lease> {
        if !self.may_use_lease() {
            return None;
        }
        self.state.leases.grant(Instant::now(), node)
    }

    /// True if reads may rely on the lease, when it is valid.
    pub fn may_use_lease(&self) -> bool {
        !self.lease_suspended.load(Ordering::Acquire) && !self.state.has_ended()
    }

    /// All transactions of a gateway are alive.
    pub fn renew(&self, ids: &[TransactionId]) {
        let now = Instant::now();
        let mut locks = self.state.locks.lock();
        for id in ids {
            locks.table.touch(now, *id);
        }
    }

    /// Transactions that ended without a commit.
    pub fn release(&self, ids: Vec<TransactionId>) {
        // A commit in flight gives its locks back itself.
        let active = self.state.active.lock();
        let over: Vec<TransactionId> = ids.into_iter().filter(|id| !active.is_active(*id)).collect();
        drop(active);
        self.state.release(over);
    }

    /// Locks keys, waiting for `patience` at most before it says that it is still waiting.
    pub async fn lock(
        &self,
        held_under: Option<LeaderId>,
        patience: Duration,
        request: LockRequest,
    ) -> Reply {
        // Locks are not handed over: a transaction that has none yet gets them from the successor.
        if held_under.is_none() && self.state.active.lock().is_paused() {
            return Reply::NotLeader(None);
        }
        if let Some(pick) = &request.pick {
            return self.pick(held_under, &request, pick);
        }
        let waiting = {
            let mut locks = self.state.locks.lock();
            if locks.ended {
                return Reply::NotLeader(None);
            }
            if held_under.is_some_and(|l| l != self.state.leader || !locks.table.knows(request.id)) {
                return Reply::LockRefused(LockRefusal::LocksLost);
            }
            let mut events = Vec::new();
            let name = |counter: &u64| TransactionId { counter: *counter, ..request.id };
            let partners: Vec<TransactionId> = request.partners.iter().map(name).collect();
            let ask = Ask { id: request.id, partners: &partners, keys: &request.keys, wait: request.wait };
            let progress = locks.table.ask(Instant::now(), ask, &mut events);
            locks.deliver(events);
            if progress == Progress::Waiting {
                let (tx, rx) = oneshot::channel();
                locks.waiters.insert(request.id, tx);
                Err(rx)
            } else {
                Ok(progress)
            }
        };
        let progress = match waiting {
            Ok(progress) => progress,
            Err(woken) => {
                let limit = if request.timeout.is_zero() { patience } else { patience.min(request.timeout) };
                match tokio::time::timeout(limit, woken).await {
                    Ok(Ok(progress)) => progress,
                    Ok(Err(_)) if self.state.has_ended() => return Reply::NotLeader(None),
                    Ok(Err(_)) => return Reply::LockWaiting,
                    Err(_) if request.timeout.is_zero() || patience < request.timeout => {
                        return Reply::LockWaiting;
                    }
                    Err(_) => return self.give_up_waiting(request.id),
                }
            }
        };
        match progress {
            Progress::Granted { skipped } => self.granted(&request, &skipped),
            Progress::Refused(why) => Reply::LockRefused(why),
            Progress::Waiting => Reply::LockWaiting,
        }
    }

    /// Locks the first keys that are free and have not moved.
    fn pick(&self, held_under: Option<LeaderId>, request: &LockRequest, pick: &Pick) -> Reply {
        let id = request.id;
        let mut picked = Vec::with_capacity(request.keys.len());
        let mut wanted = {
            let mut locks = self.state.locks.lock();
            if locks.ended {
                return Reply::NotLeader(None);
            }
            if held_under.is_some_and(|l| l != self.state.leader || !locks.table.knows(id)) {
                return Reply::LockRefused(LockRefusal::LocksLost);
            }
            let table = LockKey { key: pick.table.clone(), mode: LockMode::Shared };
            match locks.try_one(id, &table) {
                Ok(true) => pick.wanted,
                Ok(false) => 0,
                Err(why) => return Reply::LockRefused(why),
            }
        };
        for (key, version) in request.keys.iter().zip(&pick.versions) {
            if wanted == 0 {
                picked.push(KeyLock::Untried);
                continue;
            }
            let (held, free) = {
                let mut locks = self.state.locks.lock();
                if locks.ended {
                    return Reply::NotLeader(None);
                }
                (locks.table.holds(id, &key.key, key.mode), locks.try_one(id, key))
            };
            match free {
                Ok(true) => {}
                Ok(false) => {
                    picked.push(KeyLock::Skipped);
                    continue;
                }
                Err(why) => return Reply::LockRefused(why),
            }
            match self.state.replica.newest(&key.key) {
                Ok(newest) if newest == *version => {
                    wanted -= 1;
                    picked.push(KeyLock::Granted(newest));
                }
                Ok(_) => {
                    if !held {
                        let mut locks = self.state.locks.lock();
                        let mut events = Vec::new();
                        locks.table.unlock(id, &key.key, &mut events);
                        locks.deliver(events);
                    }
                    picked.push(KeyLock::Moved);
                }
                Err(e) => return Reply::Failed(e.to_string()),
            }
        }
        Reply::Locked { leader: self.state.leader, keys: picked }
    }

    fn give_up_waiting(&self, id: TransactionId) -> Reply {
        let mut locks = self.state.locks.lock();
        if locks.table.is_waiting(id) {
            let mut events = Vec::new();
            locks.table.cancel(id, &mut events);
            locks.waiters.remove(&id);
            locks.deliver(events);
        } else if locks.table.knows(id) {
            // Granted at the last moment: the gateway asks once more and finds it so.
            return Reply::LockWaiting;
        }
        Reply::LockRefused(LockRefusal::Timeout)
    }

    /// No one else can commit to a key once it is locked, so its newest version now is its newest version
    /// until we commit.
    fn granted(&self, request: &LockRequest, skipped: &[Arc<[u8]>]) -> Reply {
        let mut keys = Vec::with_capacity(request.keys.len());
        for key in &request.keys {
            if skipped.iter().any(|s| **s == *key.key) {
                keys.push(KeyLock::Skipped);
                continue;
            }
            match self.state.replica.newest(&key.key) {
                Ok(version) => keys.push(KeyLock::Granted(version)),
                Err(e) => return Reply::Failed(e.to_string()),
            }
        }
        Reply::Locked { leader: self.state.leader, keys }
    }

    /// Certifies and commits.
    pub async fn commit(
        &self,
        leader: LeaderId,
        held_under: Option<LeaderId>,
        request: CommitRequest,
    ) -> Reply {
        if leader != self.state.leader || self.state.has_ended() {
            return Reply::NotLeader(None);
        }
        let id = request.id;
        let Some(bytes) = QueuedBytes::take(&self.queued, request.size(), MAX_QUEUED_BYTES) else {
            self.state.release([id]);
            return Reply::Refused(Refusal::Overloaded);
        };
        let admitted = self.state.active.lock().admit(id);
        match admitted {
            Ok(()) => {}
            Err(Turned::Paused) => return Reply::NotLeader(None),
            Err(Turned::Fenced) => return Reply::Refused(Refusal::Fenced),
            // The same commit is in flight: whoever sent it twice has to ask for the outcome.
            Err(Turned::Twice) => return Reply::Unknown,
        }
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Item { request, held_under, reply, bytes }) {
            Ok(()) => answer.await.unwrap_or(Reply::Unknown),
            Err(e) => {
                self.state.finish(id);
                self.state.release([id]);
                match e {
                    mpsc::error::TrySendError::Full(_) => Reply::Refused(Refusal::Overloaded),
                    mpsc::error::TrySendError::Closed(_) => Reply::NotLeader(None),
                }
            }
        }
    }

    /// What became of a commit. If it has not arrived it never will have: it is refused from now on.
    pub async fn outcome(&self, leader: LeaderId, id: TransactionId, after: u64) -> Reply {
        let deadline = Instant::now() + OUTCOME_PATIENCE;
        loop {
            if leader != self.state.leader || self.state.has_ended() {
                return Reply::NotLeader(None);
            }
            {
                let mut active = self.state.active.lock();
                if active.settle(id) {
                    // What is no longer on its way is among the outcomes if it was committed, and what was
                    // committed before this tenure was applied before it began.
                    return match self.state.replica.outcome(id, after) {
                        Outcome::Committed(timestamp) => Reply::Committed(timestamp),
                        Outcome::NotCommitted => Reply::NotCommitted,
                        Outcome::Unknown => Reply::Unknown,
                    };
                }
            }
            if Instant::now() >= deadline {
                return Reply::Unknown;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What this leader knows of sequences.
    pub(super) fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// What is applied here.
    pub(super) fn replica(&self) -> &Replica {
        &self.state.replica
    }

    /// True if a transaction holds this key, `own` aside.
    pub(super) fn is_locked_by_other(&self, key: &[u8], own: Option<TransactionId>) -> bool {
        self.state.locks.lock().table.is_held_by_other(key, own)
    }

    /// The newest commit that anyone has been told of under this tenure or before it.
    pub fn applied_timestamp(&self) -> Timestamp {
        self.state.replica.applied_timestamp()
    }
}

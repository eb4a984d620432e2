//! The one task of a leader that decides which transactions commit, and in which order.
//!
//! ```text
//!   requests ──► drain all that are ready ──► check each ──► stamp ──► ONE entry ──► raft
//!                      ▲                        │ refused                     │ applied here
//!                      │                        ▼                             ▼
//!                      └── up to 16 entries   reply             release locks, then reply
//!                          in flight
//! ```
//!
//! While entries are in flight, more requests gather and go into the next one together: the busier the
//! group, the larger its entries. A transaction's locks are held until its entry is applied here, so what
//! two transactions in flight write never overlaps and versions read from storage are never about to move.
//! The decision itself is a state machine without I/O, in `certification.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use amphora_storage::Timestamp;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use tokio::sync::{mpsc, oneshot};

use super::RaftHandle;
use super::certification::{Certification, Denied};
use super::early::{Durability, OnDisk};
use super::tenure::TenureState;
use super::transport::{Refusal, Reply};
use super::types::{
    Applied, Command, CommitBatch, CommitRequest, CommittedTransaction, LeaderId, TransactionId,
};

/// Entries proposed and not yet applied here, at most.
const MAX_IN_FLIGHT: usize = 16;
/// Transactions in one entry, at most.
const MAX_BATCH: usize = 1_024;
/// Bytes in one entry, at most, unless a single transaction has more.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// How often silent gateways are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// A commit on its way through the certifier.
pub struct Item {
    /// What to commit
    pub request: CommitRequest,
    /// The leadership under which it holds locks
    pub held_under: Option<LeaderId>,
    /// Who waits
    pub reply: oneshot::Sender<Reply>,
    /// What it takes of the leader's memory
    pub bytes: QueuedBytes,
}

/// Bytes of a commit, counted until it has its answer.
pub struct QueuedBytes {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl QueuedBytes {
    /// Counts a commit; `None` if there is no room for it. One that is alone always fits.
    pub fn take(all: &Arc<AtomicUsize>, bytes: usize, limit: usize) -> Option<QueuedBytes> {
        let fits = |queued: usize| (queued == 0 || queued + bytes <= limit).then_some(queued + bytes);
        all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(QueuedBytes { all: all.clone(), bytes })
    }
}

impl Drop for QueuedBytes {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A transaction in an entry in flight.
struct Proposed {
    id: TransactionId,
    timestamp: Timestamp,
    catalog_keys: Vec<Vec<u8>>,
    /// Taken once it has its answer, or has been left with [`OnDisk`]
    reply: Option<oneshot::Sender<Reply>>,
    durability: Durability,
    _bytes: QueuedBytes,
}

/// What became of an entry.
struct Done {
    transactions: Vec<Proposed>,
    on_disk: Option<Arc<OnDisk>>,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Committed,
    NotCommitted,
    Unknown,
}

struct Certifier {
    tenure: Arc<TenureState>,
    raft: RaftHandle,
    in_flight: FuturesUnordered<BoxFuture<'static, Done>>,
    certification: Certification,
}

/// Certifies until the queue is closed and everything in flight has its answer.
pub async fn run(tenure: Arc<TenureState>, raft: RaftHandle, mut queue: mpsc::Receiver<Item>) {
    // Nothing is accepted but by this certifier, so all that was before it is applied.
    let certification = Certification::after(tenure.replica.applied_timestamp());
    let mut certifier = Certifier { tenure, raft, in_flight: FuturesUnordered::new(), certification };
    let mut expiry = tokio::time::interval(EXPIRY_INTERVAL);
    expiry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut items = Vec::new();
    let mut open = true;
    while open || !certifier.in_flight.is_empty() {
        tokio::select! {
            biased;
            Some(done) = certifier.in_flight.next(), if !certifier.in_flight.is_empty() => certifier.finish(done),
            n = queue.recv_many(&mut items, MAX_BATCH), if open && certifier.in_flight.len() < MAX_IN_FLIGHT => {
                if n == 0 {
                    open = false;
                } else {
                    certifier.take(&mut items).await;
                }
            }
            _ = expiry.tick(), if open => certifier.tenure.expire(),
        }
    }
}

/// The acknowledgements that this node's own disk gives.
fn left_with_disk(transactions: &mut [Proposed]) -> Option<Arc<OnDisk>> {
    let local = transactions.iter_mut().filter(|t| t.durability == Durability::Leader);
    let waiting: Vec<_> = local.filter_map(|t| Some((t.timestamp, t.reply.take()?))).collect();
    (!waiting.is_empty()).then(|| Arc::new(OnDisk::new(waiting)))
}

impl Certifier {
    /// Certifies what has arrived and proposes what may commit, in as few entries as their size allows.
    async fn take(&mut self, items: &mut Vec<Item>) {
        let mut accepted = Vec::with_capacity(items.len());
        let mut transactions = Vec::with_capacity(items.len());
        let mut bytes = 0;
        for item in items.drain(..) {
            if self.tenure.has_ended() {
                self.answer(item.request.id, Some(item.reply), Reply::NotLeader(None));
                continue;
            }
            match self.certify(&item.request, item.held_under) {
                Ok(timestamp) => {
                    // A large transaction has an entry for itself: an entry must fit a message.
                    let size = item.request.size();
                    if bytes + size > MAX_BATCH_BYTES && !accepted.is_empty() {
                        bytes = 0;
                        self.propose(std::mem::take(&mut accepted), std::mem::take(&mut transactions)).await;
                    }
                    bytes += size;
                    let (proposed, transaction) = self.accept(item, timestamp);
                    accepted.push(proposed);
                    transactions.push(transaction);
                }
                Err(refusal) => {
                    self.tenure.release([item.request.id]);
                    self.answer(item.request.id, Some(item.reply), refusal);
                }
            }
        }
        if !accepted.is_empty() {
            self.propose(accepted, transactions).await;
        }
    }

    fn certify(&mut self, request: &CommitRequest, held_under: Option<LeaderId>) -> Result<Timestamp, Reply> {
        if self.tenure.replica.clock.observe(request.clock).is_err() {
            return Err(Reply::Refused(Refusal::ClockDrift));
        }
        self.certification.certify(&*self.tenure, request, held_under).map_err(|denied| match denied {
            Denied::Refused(why) => Reply::Refused(why),
            Denied::Failed(message) => Reply::Failed(message),
        })?;
        // The clock has passed every commit applied here, and the commits in flight were stamped by it.
        Ok(self.tenure.replica.clock.now())
    }

    fn accept(&mut self, item: Item, timestamp: Timestamp) -> (Proposed, CommittedTransaction) {
        let catalog_keys = self.certification.accept(&item.request, timestamp);
        let CommitRequest { id, writes, staged, leaderless, durability, .. } = item.request;
        let proposed =
            Proposed { id, timestamp, catalog_keys, reply: Some(item.reply), durability, _bytes: item.bytes };
        (proposed, CommittedTransaction { id, timestamp, writes, staged, leaderless })
    }

    async fn propose(&mut self, mut transactions: Vec<Proposed>, committed: Vec<CommittedTransaction>) {
        let leader = self.tenure.leader;
        // Followers that read without asking must not miss what is proposed here: see `leases.rs`.
        if let Some(recall) = self.tenure.leases.begin_write(Instant::now()) {
            self.tenure.peers.recall(recall).await;
        }
        let on_disk = left_with_disk(&mut transactions);
        let batch = CommitBatch { leader, transactions: committed, on_disk: on_disk.clone() };
        let command = Command::Commit(Arc::new(batch));
        let (responder, result) = ProgressResponder::complete_only();
        let sent = self.raft.write(command).with_leader(leader).responder(responder).await;
        if sent.is_ok() {
            for proposed in transactions.iter_mut().filter(|t| t.durability == Durability::Queued) {
                if let Some(reply) = proposed.reply.take() {
                    let _ = reply.send(Reply::Committed(proposed.timestamp));
                }
            }
        }
        self.in_flight.push(Box::pin(async move {
            let fate = if sent.is_err() {
                Fate::NotCommitted
            } else {
                match result.await {
                    Ok(Ok(response)) if response.data == Applied::Committed => Fate::Committed,
                    Ok(Ok(_)) => Fate::NotCommitted,
                    Ok(Err(ClientWriteError::ForwardToLeader(_))) => Fate::NotCommitted,
                    Ok(Err(_)) | Err(_) => Fate::Unknown,
                }
            };
            Done { transactions, on_disk, fate }
        }));
    }

    fn finish(&mut self, done: Done) {
        self.tenure.leases.end_write(done.fate == Fate::Committed);
        self.tenure.release(done.transactions.iter().map(|t| t.id));
        for transaction in done.transactions {
            self.certification.finish(&transaction.catalog_keys);
            let on_disk = done.on_disk.as_ref();
            let to = transaction.reply.or_else(|| on_disk?.take(transaction.timestamp));
            let reply = match done.fate {
                Fate::Committed => Reply::Committed(transaction.timestamp),
                Fate::NotCommitted => Reply::NotLeader(None),
                Fate::Unknown => {
                    // It stays active: this tenure must never say that it was not committed.
                    to.map(|to| to.send(Reply::Unknown));
                    continue;
                }
            };
            self.answer(transaction.id, to, reply);
        }
    }

    fn answer(&self, id: TransactionId, to: Option<oneshot::Sender<Reply>>, reply: Reply) {
        self.tenure.finish(id);
        // Whoever asked may have given up; the outcome can be asked for.
        let _ = to.map(|to| to.send(reply));
    }
}

//! The group as the rest of the node sees it.
//!
//! A [`Group`] is an ordinary value: its id-less messages, its storage and its transport are all it knows,
//! so a process can hold several. What a node asks of the leader lies in `gateway.rs`, what the leader does
//! in `tenure.rs` and `certifier.rs`, who belongs to the group in `membership.rs`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use amphora_storage::raft_log::RaftLog;
use amphora_storage::store::Store;
use amphora_storage::{Hlc, Timestamp};
use arc_swap::ArcSwapOption;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::{RaftDataMetrics, RaftServerMetrics};
use openraft::{Instant as _, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::RaftHandle;
use super::early::Late;
use super::gaps::Gaps;
use super::history::SnapshotHold;
use super::leases::{Held, leads_for};
use super::log_store::LogStore;
use super::network::{NetworkFactory, Outgoings};
use super::open::OpenTransactions;
use super::reads::ReadIndex;
use super::replica::{ApplyHook, InstallHook, Replica};
use super::roster::Change;
use super::snapshot::Incoming;
use super::staleness::{Freshness, Shown};
use super::state_machine::StateMachine;
use super::tenure::{Peers, Tenure};
use super::transport::{Reply, Request, SnapshotPart, Transport};
use super::types::{LeaderId, LogId, Member, TransactionId, TypeConfig};
use crate::api::{PeerLag, RaftStatus};
use crate::{Error, NodeId, Result};

/// Releases waiting to be sent to the leader, at most; what does not fit expires there.
const MAX_RELEASES: usize = 16_384;
/// Entries whose bytes are counted for a peer that lags, at most.
const MAX_MEASURED_ENTRIES: usize = 10_000;
/// How often a failed disk is looked for, to report it.
const FAILURE_INTERVAL: Duration = Duration::from_millis(500);

/// Raft's clocks, in one place. The defaults give a failover within a second: a follower waits for the lease
/// of the leader it heard last, and then for a time of its own between the two of [`election`](Timing::election).
#[derive(Clone, Debug)]
pub struct Timing {
    /// Between two heartbeats
    pub heartbeat: Duration,
    /// Least and greatest election timeout; the greatest is also the leader's lease
    pub election: (Duration, Duration),
    /// How long reads, locks and commits look for a leader before they fail
    pub patience: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(250), Duration::from_millis(450)),
            patience: Duration::from_secs(4),
        }
    }
}

/// How much log and history is kept.
#[derive(Clone, Debug)]
pub struct LogLimits {
    /// Entries after which tables are flushed, so that the log before can go …
    pub flush_every: u64,
    /// … or bytes of them
    pub flush_bytes: u64,
    /// Entries kept for peers that are a little behind; those further behind get a snapshot …
    pub keep: u64,
    /// … and their bytes. Twice as much of both for peers that are about to get them
    pub keep_bytes: u64,
    /// Entries that are committed and not yet applied here, beyond which a follower takes no more for now …
    pub unapplied: u64,
    /// … and their bytes
    pub unapplied_bytes: u64,
    /// Bytes of a snapshot that are sent to a peer in a second, at most
    pub snapshot_rate: u64,
    /// How long versions of rows stay readable after newer ones have been committed
    pub history: Duration,
    /// How long a running snapshot keeps the versions that it sees; later its reads are refused (72000)
    pub longest_snapshot: Duration,
}

impl Default for LogLimits {
    fn default() -> LogLimits {
        LogLimits {
            flush_every: 10_000,
            flush_bytes: 128 << 20,
            keep: 10_000,
            keep_bytes: 512 << 20,
            unapplied: 16_384,
            unapplied_bytes: 64 << 20,
            snapshot_rate: 64 << 20,
            history: Duration::from_secs(600),
            longest_snapshot: Duration::from_secs(24 * 3600),
        }
    }
}

/// All that a group is made of.
pub struct GroupConfig {
    /// This node
    pub node_id: NodeId,
    /// Its addresses
    pub member: Member,
    /// The node's data
    pub store: Arc<Store>,
    /// The group's log
    pub raft_log: Arc<RaftLog>,
    /// A directory of the group's own for snapshots in transit, on the data's file system
    pub snapshots: PathBuf,
    /// The node's clock
    pub clock: Arc<Hlc>,
    /// The wire
    pub transport: Arc<dyn Transport>,
    /// Applies leaderless operations
    pub hook: Arc<dyn ApplyHook>,
    /// Merges this node's leaderless state into a snapshot that replaces its data
    pub install: Arc<dyn InstallHook>,
    /// Clocks
    pub timing: Timing,
    /// Log retention
    pub log_limits: LogLimits,
}

/// This node's part in the Raft group. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    pub(super) inner: Arc<Inner>,
}

type Receiver<T> = openraft::alias::WatchReceiverOf<TypeConfig, T>;

pub(super) struct Inner {
    pub node_id: NodeId,
    pub member: Member,
    pub raft: RaftHandle,
    pub server: Receiver<RaftServerMetrics<TypeConfig>>,
    pub data: Receiver<RaftDataMetrics<TypeConfig>>,
    pub replica: Arc<Replica>,
    pub raft_log: Arc<RaftLog>,
    pub transport: Arc<dyn Transport>,
    pub timing: Timing,
    pub log_limits: LogLimits,
    pub tenure: ArcSwapOption<Tenure>,
    pub reads: ReadIndex,
    /// Whether reads need not ask the leader, if this is a follower
    pub lease: Held,
    /// How old what is applied here can be
    pub freshness: Freshness,
    /// What stale reads have shown
    pub shown: Shown,
    /// Who need not be waited for
    pub late: Late,
    /// The newest commit that was acknowledged through this node
    pub acknowledged: AtomicU64,
    /// Transactions of this node that may hold locks, and under which leadership
    pub open: OpenTransactions,
    pub releases: mpsc::Sender<TransactionId>,
    incoming: tokio::sync::Mutex<Option<Incoming>>,
    /// One handover of leadership at a time
    pub transfers: tokio::sync::Mutex<()>,
    /// Nodes that are not to lead
    pub avoided: Mutex<BTreeSet<NodeId>>,
    /// This node leads, and no majority answers it
    pub cut_off: AtomicBool,
    /// When the leader was last heard, in milliseconds since the start
    heard: AtomicU64,
    /// Why nothing may be asked of the leader from here any more
    pub refused: ArcSwapOption<Error>,
    epoch: u64,
    counter: AtomicU64,
    started: Instant,
    pub stop: CancellationToken,
}

fn millis(d: Duration) -> u64 {
    d.as_millis() as u64
}

fn raft_config(timing: &Timing, limits: &LogLimits) -> Result<Arc<openraft::Config>> {
    let config = openraft::Config {
        cluster_name: "amphora".to_owned(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election.0),
        election_timeout_max: millis(timing.election.1),
        enable_pre_vote: Some(true),
        // A leader that hears nobody falls silent now and then: those who hear it may elect another.
        quorum_loss_probe_interval: Some(millis(timing.election.1) * 2 + millis(timing.heartbeat)),
        // A restarted leader is elected like everyone else: its lease may have passed to another.
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(limits.flush_every),
        // What goes is `retention.rs`'s to say.
        max_in_snapshot_log_to_keep: u64::MAX,
        // Followers sync their disks while this node syncs its own.
        broadcast_submitted_on_append: Some(true),
        // Whether the log still reaches back decides, not how far a peer is behind.
        replication_lag_threshold: u64::MAX / 2,
        install_snapshot_timeout: 3_600_000,
        state_machine_channel_size: Some(super::apply_queue::COMMANDS),
        ..openraft::Config::default()
    };
    let config = config.validate().map_err(|e| Error::new("22023", format!("raft settings: {e}")))?;
    Ok(Arc::new(config))
}

impl Group {
    /// Opens the group from disk and takes part in it. Must be called within a Tokio runtime.
    pub async fn start(config: GroupConfig) -> Result<Group> {
        let fatal = |e: &dyn std::fmt::Display| Error::new("58000", format!("could not start raft: {e}"));
        let raft_config = raft_config(&config.timing, &config.log_limits)?;
        let replica =
            Replica::open(config.store, config.clock, config.snapshots, config.hook, config.install)?;
        let raft_log = config.raft_log.clone();
        let log = LogStore::open(config.raft_log)?;
        let network = NetworkFactory {
            transport: config.transport.clone(),
            snapshots: Outgoings::new(config.log_limits.snapshot_rate),
        };
        let outgoing = network.snapshots.clone();
        let machine = StateMachine::new(replica.clone());
        let raft: RaftHandle = openraft::Raft::new(config.node_id, raft_config, network, log, machine)
            .await
            .map_err(|e| fatal(&e))?;
        let (releases, to_release) = mpsc::channel(MAX_RELEASES);
        let inner = Arc::new(Inner {
            node_id: config.node_id,
            member: config.member,
            server: raft.server_metrics(),
            data: raft.data_metrics(),
            raft,
            replica,
            raft_log,
            transport: config.transport,
            timing: config.timing,
            log_limits: config.log_limits.clone(),
            tenure: ArcSwapOption::empty(),
            reads: ReadIndex::default(),
            lease: Held::default(),
            freshness: Freshness::default(),
            shown: Shown::default(),
            late: Late::default(),
            acknowledged: AtomicU64::new(0),
            open: OpenTransactions::default(),
            releases,
            incoming: tokio::sync::Mutex::default(),
            transfers: tokio::sync::Mutex::default(),
            avoided: Mutex::default(),
            cut_off: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            refused: ArcSwapOption::empty(),
            epoch: rand::random(),
            counter: AtomicU64::new(1),
            started: Instant::now(),
            stop: CancellationToken::new(),
        });
        let group = Group { inner };
        group.spawn(watch_leadership(Arc::downgrade(&group.inner)));
        group.spawn(super::gateway::renew(Arc::downgrade(&group.inner)));
        group.spawn(super::gateway::release(Arc::downgrade(&group.inner), to_release));
        group.spawn(super::membership::promote(Arc::downgrade(&group.inner)));
        group.spawn(super::leadership::prefer(Arc::downgrade(&group.inner)));
        group.spawn(super::leadership::watch_quorum(Arc::downgrade(&group.inner)));
        group.spawn(forget_history(group.inner.replica.clone(), config.log_limits.clone()));
        group.spawn(report_failure(group.clone()));
        group.spawn(super::gaps::explore(Arc::downgrade(&group.inner)));
        group.spawn(super::staging::sweep(Arc::downgrade(&group.inner)));
        group.spawn(super::retention::trim(Arc::downgrade(&group.inner), config.log_limits, outgoing));
        Ok(group)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.inner.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(task).await });
    }

    /// A new transaction's name.
    pub fn transaction_id(&self) -> TransactionId {
        let counter = self.inner.counter.fetch_add(1, Ordering::Relaxed);
        TransactionId { node: self.inner.node_id, epoch: self.inner.epoch, counter }
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.inner.node_id
    }

    /// This node's data.
    pub(super) fn store(&self) -> &Store {
        &self.inner.replica.store
    }

    /// The newest commit applied here. Immediate, and possibly stale.
    pub fn applied_timestamp(&self) -> Timestamp {
        self.inner.replica.applied_timestamp()
    }

    /// The newest commit applied here or acknowledged through this node: nothing that its sessions have seen or
    /// written is newer.
    pub fn seen_timestamp(&self) -> Timestamp {
        self.applied_timestamp().max(Timestamp(self.inner.acknowledged.load(Ordering::Acquire)))
    }

    /// Keeps the versions that a snapshot at this timestamp sees until the returned value is dropped; 72000
    /// if they may be gone already.
    pub fn hold_history(&self, at: Timestamp) -> Result<Arc<SnapshotHold>> {
        self.inner.replica.hold_history(at)
    }

    /// Where scans of this node's tables find nothing.
    pub fn gaps(&self) -> &Arc<Gaps> {
        &self.inner.replica.gaps
    }

    /// The last entry applied here: this node's part of the group's component in version vectors.
    pub fn applied_index(&self) -> u64 {
        self.inner.replica.applied_index()
    }

    /// Why the group has stopped by itself, if it has: a disk that fails or is full. The node has to be
    /// restarted once that is mended.
    pub fn failure(&self) -> Option<String> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        match metrics.running_state.as_ref().err()? {
            // It was told to.
            openraft::error::Fatal::Stopped => None,
            failed => Some(failed.to_string()),
        }
    }

    /// Rows of a table that were written since this node started.
    pub fn table_changes(&self, table: amphora_storage::schema::TableId) -> u64 {
        self.inner.replica.table_changes(table)
    }

    /// Changes with every applied commit that wrote to the catalog's keyspace.
    pub fn catalog_version(&self) -> watch::Receiver<Timestamp> {
        self.inner.replica.watch_catalog()
    }

    /// Serves a request from a peer.
    pub async fn handle(&self, from: NodeId, request: Request) -> Reply {
        let raft = &self.inner.raft;
        let failed = |e: &dyn std::fmt::Display| Reply::Failed(e.to_string());
        // It has been reported; the leader's every message need not be.
        if let Some(reason) = self.failure() {
            return Reply::Failed(reason);
        }
        match request {
            Request::AppendEntries(rpc) => {
                self.inner.heard.store(millis(self.inner.started.elapsed()), Ordering::Relaxed);
                if !rpc.entries.is_empty() && !self.room_to_apply().await {
                    return Reply::Failed("too much waits to be applied here".to_owned());
                }
                raft.append_entries(rpc).await.map_or_else(|e| failed(&e), Reply::AppendEntries)
            }
            Request::Vote(rpc) => {
                // Before the last life of this process ended it may have promised a leader a lease.
                if self.inner.started.elapsed() < self.inner.timing.election.1 && !rpc.leadership_transfer {
                    return Reply::Failed("this node has just started".to_owned());
                }
                raft.vote(rpc).await.map_or_else(|e| failed(&e), Reply::Vote)
            }
            Request::PreVote(rpc) => raft.pre_vote(rpc).await.map_or_else(|e| failed(&e), Reply::Vote),
            Request::TransferLeader(rpc) => {
                raft.handle_transfer_leader(rpc).await.map_or_else(|e| failed(&e), Reply::TransferLeader)
            }
            Request::Snapshot(part) => self.receive_snapshot(part).await,
            Request::WaitApplied(timestamp) => match self.applied_in_time(timestamp).await {
                true => Reply::Done,
                false => Reply::Failed("it is not applied yet".to_owned()),
            },
            Request::Recall(lease) => {
                self.inner.lease.recall(lease);
                Reply::Done
            }
            to_leader => match self.inner.tenure.load_full() {
                // Who has been removed may not have heard of it.
                Some(_) if !self.is_member(from) && !matches!(to_leader, Request::AddLearner(..)) => {
                    Reply::Removed(from)
                }
                Some(tenure) => self.serve(&tenure, from, to_leader).await,
                None => Reply::NotLeader(self.leader()),
            },
        }
    }

    /// Serves a request that is meant for the leader.
    pub(super) async fn serve(&self, tenure: &Tenure, from: NodeId, request: Request) -> Reply {
        match request {
            Request::ReadIndex => self.read_index(tenure, from).await,
            Request::Lock { held_under, patience, request } => {
                tenure.lock(held_under, patience, request).await
            }
            Request::Commit { leader, held_under, request } => {
                tenure.commit(leader, held_under, request).await
            }
            Request::Outcome { leader, id, after } => tenure.outcome(leader, id, after).await,
            Request::Release(ids) => {
                tenure.release(ids);
                Reply::Done
            }
            Request::Renew(ids) => {
                tenure.renew(&ids);
                Reply::Done
            }
            Request::Sequence(id, call) => self.sequence_as_leader(tenure, id, call).await,
            Request::AllocateNode(token) => self.allocate_as_leader(tenure, token).await,
            Request::AddLearner(id, member) => self.change_as_leader(tenure, Change::Add(id, member)).await,
            Request::RemoveMember(id, force) => {
                self.change_as_leader(tenure, Change::Remove(id, force)).await
            }
            Request::Promote(id) => self.change_as_leader(tenure, Change::Promote(id)).await,
            Request::TransferTo(to) => self.transfer_as_leader(tenure, to).await,
            _ => Reply::Failed("this is not a request to a leader".to_owned()),
        }
    }

    async fn receive_snapshot(&self, part: SnapshotPart) -> Reply {
        let mut incoming = self.inner.incoming.lock().await;
        let result = match part {
            SnapshotPart::Begin { transfer, vote, meta, files } => {
                *incoming = None;
                let snapshots = &self.inner.replica.snapshots;
                Incoming::begin(snapshots, transfer, vote, meta, files)
                    .await
                    .map(|begun| *incoming = Some(begun))
            }
            SnapshotPart::Chunk { transfer, file, offset, crc, bytes } => match incoming.as_mut() {
                Some(begun) if begun.is(transfer) => begun.write(file, offset, crc, bytes).await,
                _ => return Reply::Failed("no such snapshot transfer".to_owned()),
            },
            SnapshotPart::Install { transfer } => {
                let Some(begun) = incoming.take_if(|begun| begun.is(transfer)) else {
                    return Reply::Failed("no such snapshot transfer".to_owned());
                };
                match begun.finish().await {
                    Ok((vote, snapshot)) => {
                        return match self.inner.raft.install_full_snapshot(vote, snapshot).await {
                            Ok(response) => Reply::SnapshotInstalled(response),
                            Err(e) => Reply::Failed(e.to_string()),
                        };
                    }
                    Err(e) => Err(e),
                }
            }
        };
        match result {
            Ok(()) => Reply::SnapshotPart,
            Err(e) => {
                *incoming = None;
                Reply::Failed(e.to_string())
            }
        }
    }

    /// True if this node leads and may grant and commit.
    pub fn is_leader(&self) -> bool {
        self.inner.tenure.load().as_ref().is_some_and(|t| !t.has_ended())
    }

    /// The leader, if one is known; not this node while no majority answers it.
    pub fn leader(&self) -> Option<NodeId> {
        let leader = known_leader(&self.inner.server.borrow_watched()).map(|leader| leader.node_id);
        leader.filter(|leader| *leader != self.inner.node_id || !self.has_lost_quorum())
    }

    /// All members: id, addresses, true if a voter.
    pub fn members(&self) -> Vec<(NodeId, Member, bool)> {
        let membership = self.inner.server.borrow_watched().membership_config.clone();
        let voters: Vec<NodeId> = membership.membership().voter_ids().collect();
        membership.membership().nodes().map(|(id, m)| (*id, m.clone(), voters.contains(id))).collect()
    }

    /// True if the membership, as this node knows it, names that node.
    pub fn is_member(&self, node: NodeId) -> bool {
        let server = self.inner.server.borrow_watched();
        server.membership_config.membership().get_node(&node).is_some()
    }

    /// For how long this node has not heard a leader; zero on the leader.
    pub fn silence(&self) -> Duration {
        if self.is_leader() {
            return Duration::ZERO;
        }
        let heard = Duration::from_millis(self.inner.heard.load(Ordering::Relaxed));
        self.inner.started.elapsed().saturating_sub(heard)
    }

    /// From now on strong tables cannot be used here, for this reason.
    pub fn refuse(&self, why: Error) {
        self.inner.refused.store(Some(Arc::new(why)));
    }

    /// True if this node is a member that has caught up and knows a leader.
    pub fn is_ready(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        if self.failure().is_some() {
            return false;
        }
        if !self.members().iter().any(|(id, _, _)| *id == self.inner.node_id) {
            return false;
        }
        if leader == self.inner.node_id {
            return self.is_leader();
        }
        let data = self.inner.data.borrow_watched();
        let index = |id: &Option<super::types::LogId>| id.as_ref().map_or(0, |l| l.index);
        data.cluster_committed.is_some()
            && index(&data.last_applied) + super::membership::CAUGHT_UP >= index(&data.cluster_committed)
    }

    /// Where this node is in the log.
    pub fn status(&self) -> RaftStatus {
        let term = self.inner.server.borrow_watched().vote.leader_id.term;
        let leader = self.leader();
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: &Option<super::types::LogId>| id.as_ref().map_or(0, |l| l.index);
        RaftStatus {
            term,
            leader,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed_index: index(&metrics.cluster_committed),
            applied_index: index(&metrics.last_applied),
            snapshot_index: index(&metrics.snapshot),
            purged_index: index(&metrics.purged),
            applied_timestamp: self.applied_timestamp(),
        }
    }

    /// On the leader, how far each peer is behind; empty elsewhere.
    pub fn peer_lag(&self) -> Vec<PeerLag> {
        let (last, peers) = self.peer_positions();
        let lag_of = |(id, matched, silent): (NodeId, u64, u64)| {
            let lag = last.saturating_sub(matched);
            // A number to look at: not worth failing a view for.
            let missing = matched.saturating_add(1)..last.saturating_add(1);
            let lag_bytes = self.inner.raft_log.size(missing, MAX_MEASURED_ENTRIES).unwrap_or(0);
            let lag_ms = if lag == 0 { 0 } else { silent };
            PeerLag { node_id: id, mode: "strong".to_owned(), lag, lag_bytes, lag_ms }
        };
        peers.into_iter().map(lag_of).collect()
    }

    /// The last entry, and for each peer the last it has and for how many milliseconds it has been silent.
    /// Read in one go: Raft waits while its metrics are looked at.
    pub(super) fn peer_positions(&self) -> (u64, Vec<(NodeId, u64, u64)>) {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let (Some(replication), Some(heartbeat)) = (&metrics.replication, &metrics.heartbeat) else {
            return (0, Vec::new());
        };
        let peers = replication.iter().filter(|(id, _)| **id != self.inner.node_id);
        let position = |(id, matched): (&NodeId, &Option<LogId>)| {
            let silent = heartbeat.get(id).cloned().flatten().map_or(0, |at| millis(at.elapsed()));
            (*id, matched.as_ref().map_or(0, |l| l.index), silent)
        };
        (metrics.last_log_index.unwrap_or(0), peers.map(position).collect())
    }

    /// Hands over leadership, if it has it, and stops. Nothing can be asked of the group afterwards.
    pub async fn shutdown(&self) {
        self.hand_over().await;
        self.abort().await;
    }

    /// Stops at once, without a handover.
    pub async fn abort(&self) {
        self.inner.stop.cancel();
        if let Some(tenure) = self.inner.tenure.swap(None) {
            tenure.end();
        }
        if let Err(e) = self.inner.raft.shutdown().await {
            tracing::warn!("raft did not stop cleanly: {e}");
        }
    }
}

/// Who leads, as far as this node knows. That it led before it was restarted does not count.
pub(super) fn known_leader(server: &RaftServerMetrics<TypeConfig>) -> Option<LeaderId> {
    let vote = &server.vote;
    let led_before = vote.leader_id.node_id == server.id && !server.state.is_leader();
    (vote.committed && !led_before).then_some(vote.leader_id)
}

impl Inner {
    /// True if no other node can become the leader for as long as this, whoever else is a voter.
    pub fn lease_is_valid_for(&self, leader: LeaderId, time: Duration) -> bool {
        if known_leader(&self.server.borrow_watched()) != Some(leader) {
            return false;
        }
        let acked = self.data.borrow_watched().last_quorum_acked;
        acked.is_some_and(|acked| leads_for(acked.elapsed(), time, self.timing.election.1))
    }

    /// True while no other node can have become the leader. `leader` is the leadership that asks: a lease
    /// that a later one has won is not its own.
    pub fn lease_is_valid(&self, leader: LeaderId) -> bool {
        if self.lease_is_valid_for(leader, Duration::ZERO) {
            return true;
        }
        if known_leader(&self.server.borrow_watched()) != Some(leader) {
            return false;
        }
        let server = self.server.borrow_watched();
        let mut voters = server.membership_config.membership().voter_ids();
        voters.next() == Some(self.node_id) && voters.next().is_none()
    }
}

/// Lets old versions be collected, but for those that a running snapshot can see, unless that has run for too long.
async fn forget_history(replica: Arc<Replica>, limits: LogLimits) {
    let keep = limits.history;
    let interval = (keep / 10).max(Duration::from_millis(100));
    loop {
        tokio::time::sleep(interval).await;
        let now = replica.clock.last().max(replica.applied_timestamp());
        let ago = |age| Timestamp::from_millis(now.millis().saturating_sub(millis(age)));
        let (age, limit) = (ago(keep), ago(limits.longest_snapshot.max(keep)));
        let replica = replica.clone();
        let done = tokio::task::spawn_blocking(move || replica.forget_before(age, limit)).await;
        if let Ok(Err(e)) = done {
            tracing::warn!("old versions could not be given up: {e}");
        }
    }
}

/// Begins a tenure when this node has been elected and has applied an entry of its own term, and ends it
/// when it is deposed.
async fn watch_leadership(group: Weak<Inner>) {
    let Some((mut server, mut applied)) =
        group.upgrade().map(|g| (g.server.clone(), g.replica.watch_applied()))
    else {
        return;
    };
    loop {
        let waiting = {
            let Some(group) = group.upgrade() else { return };
            let mine = known_leader(&server.borrow_and_update()).filter(|l| l.node_id == group.node_id);
            let current = group.tenure.load_full();
            if let Some(tenure) = &current
                && Some(tenure.leader()) != mine
            {
                tracing::info!(term = tenure.leader().term, "this node no longer leads");
                group.tenure.store(None);
                tenure.end();
            }
            let held = group.tenure.load().is_some();
            let ready = applied.borrow_and_update().log_id.is_some_and(|id| Some(id.leader_id) == mine);
            if let (Some(leader), false, true) = (mine, held, ready) {
                tracing::info!(term = leader.term, "this node leads");
                let peers = Peers { transport: group.transport.clone(), server: group.server.clone() };
                let tenure = Tenure::begin(leader, group.replica.clone(), group.raft.clone(), peers);
                group.tenure.store(Some(Arc::new(tenure)));
            }
            mine.is_some() && !held && !ready
        };
        let changed = tokio::select! {
            changed = server.changed() => changed.is_ok(),
            changed = applied.changed(), if waiting => changed.is_ok(),
        };
        if !changed {
            return;
        }
    }
}

/// Tells the operator, once, that this node's disk has failed it.
async fn report_failure(group: Group) {
    // Looked at now and then: its metrics change several times with every commit.
    loop {
        if let Some(reason) = group.failure() {
            tracing::error!(
                "this node takes no part in strong tables any more: its disk is full or fails ({reason}); \
                 make room or mend it, then restart the node: nothing acknowledged is lost"
            );
            return;
        }
        tokio::time::sleep(FAILURE_INTERVAL).await;
    }
}

//! openraft's network, on our [`Transport`].
//!
//! Three clients a peer, so that a heartbeat never queues behind entries or a snapshot. How long a call
//! may take is openraft's to say where it is about liveness (votes, heartbeats); entries get longer than
//! openraft's default of one heartbeat, because a large one takes a peer a while to sync.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::alias::SnapshotOf;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EntryPayload, OptionalSend, RaftNetworkFactory};
use parking_lot::Mutex;

use super::snapshot::{self, SnapshotData};
use super::transport::{Reply, Request, SnapshotPart, Transport, TransportError};
use super::types::{Entry, Member, TypeConfig, Vote};
use crate::NodeId;

/// How long a peer may take to sync a batch of entries …
const APPEND_DEADLINE: Duration = Duration::from_secs(2);
/// … and as many seconds more as it has times these bytes.
const BYTES_PER_SECOND: usize = 8 << 20;
/// How long a peer may take for one piece of a snapshot.
const CHUNK_DEADLINE: Duration = Duration::from_secs(20);
/// How long a snapshot waits for a connection that broke before it begins anew.
const RESUME_PATIENCE: Duration = Duration::from_secs(120);
/// How long a peer may take to put a snapshot in the place of its data.
const INSTALL_DEADLINE: Duration = Duration::from_secs(600);
/// Between two tries of an unreachable peer.
const RETRY_INTERVAL: Duration = Duration::from_millis(150);

/// Makes a client for each peer.
pub struct NetworkFactory {
    /// The wire
    pub transport: Arc<dyn Transport>,
    /// Snapshots on their way
    pub snapshots: Outgoings,
}

/// Snapshots on their way to peers: how fast they may go, and which entries their receivers will need next.
#[derive(Clone)]
pub struct Outgoings {
    rate: u64,
    running: Arc<Mutex<Vec<(u64, u64)>>>,
}

/// One of them, for as long as it is sent.
struct Sending {
    all: Outgoings,
    name: u64,
}

impl Outgoings {
    /// So many bytes a second each, at most.
    pub fn new(rate: u64) -> Outgoings {
        Outgoings { rate: rate.max(1), running: Arc::default() }
    }

    /// The first entry that a receiver will need once it has what is being sent.
    pub fn first_needed(&self) -> Option<u64> {
        self.running.lock().iter().map(|(_, index)| index + 1).min()
    }

    fn begin(&self, snapshot_ends_with: u64) -> Sending {
        let name = rand::random();
        self.running.lock().push((name, snapshot_ends_with));
        Sending { all: self.clone(), name }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.all.running.lock().retain(|(name, _)| *name != self.name);
    }
}

/// A client of one peer.
pub struct Network {
    transport: Arc<dyn Transport>,
    snapshots: Outgoings,
    target: NodeId,
    address: String,
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> Network {
        Network {
            transport: self.transport.clone(),
            snapshots: self.snapshots.clone(),
            target,
            address: node.rpc_address.clone(),
        }
    }
}

/// How long so many bytes may take on a slow link and a slow disk.
pub(super) fn time_to_send(bytes: usize) -> Duration {
    Duration::from_secs((bytes / BYTES_PER_SECOND) as u64)
}

fn unexpected(target: NodeId, reply: &Reply) -> RPCError<TypeConfig> {
    let message = match reply {
        Reply::Failed(message) => message.clone(),
        _ => "unexpected kind of reply".to_owned(),
    };
    RPCError::Network(NetworkError::from_string(format!("node {target}: {message}")))
}

impl Network {
    async fn call(&self, request: Request, deadline: Duration) -> Result<Reply, RPCError<TypeConfig>> {
        match self.transport.call(self.target, &self.address, request, deadline).await {
            Ok(reply) => Ok(reply),
            Err(e @ TransportError::Unreachable(..)) => Err(RPCError::Unreachable(Unreachable::new(&e))),
            Err(e @ TransportError::Lost(..)) => Err(RPCError::Network(NetworkError::new(&e))),
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let failed =
            |e: std::io::Error| StreamingError::Network(NetworkError::from_string(format!("snapshot: {e}")));
        let _sending = self.snapshots.begin(snapshot.meta.last_log_id.map_or(0, |last| last.index));
        let mut outgoing = snapshot::Outgoing::open(vote, snapshot).await.map_err(failed)?;
        let (began, mut sent) = (Instant::now(), 0);
        while let Some(part) = outgoing.next().await.map_err(failed)? {
            sent += part.bytes();
            self.send_part(part).await?;
            // The disks and the links are for the others too.
            let due = Duration::from_secs_f64(sent as f64 / self.snapshots.rate as f64);
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
        tracing::info!(node = self.target, bytes = sent, "a snapshot has been sent");
        match self.call(Request::Snapshot(outgoing.install()), INSTALL_DEADLINE).await? {
            Reply::SnapshotInstalled(response) => Ok(response),
            other => Err(unexpected(self.target, &other).into()),
        }
    }
}

impl Network {
    /// Sends a part until it arrives: what broke on the way is a connection, and the receiver still has what came
    /// before. It knows a part that comes twice.
    async fn send_part(&self, part: SnapshotPart) -> Result<(), StreamingError<TypeConfig>> {
        let until = Instant::now() + RESUME_PATIENCE;
        loop {
            match self.call(Request::Snapshot(part.clone()), CHUNK_DEADLINE).await {
                Ok(Reply::SnapshotPart) => return Ok(()),
                Ok(other) => return Err(unexpected(self.target, &other).into()),
                Err(e) if Instant::now() >= until => return Err(e.into()),
                Err(e) => {
                    tracing::debug!(node = self.target, "a piece of a snapshot is sent again: {e}");
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = if rpc.entries.is_empty() {
            option.hard_ttl()
        } else {
            let size = |entry: &Entry| match &entry.payload {
                EntryPayload::Normal(command) => command.size(),
                _ => 0,
            };
            APPEND_DEADLINE + time_to_send(rpc.entries.iter().map(size).sum())
        };
        match self.call(Request::AppendEntries(rpc), deadline).await? {
            Reply::AppendEntries(response) => Ok(response),
            other => Err(unexpected(self.target, &other)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Request::Vote(rpc), option.soft_ttl()).await? {
            Reply::Vote(response) => Ok(response),
            other => Err(unexpected(self.target, &other)),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Request::PreVote(rpc), option.soft_ttl()).await? {
            Reply::Vote(response) => Ok(response),
            other => Err(unexpected(self.target, &other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            sent = self.send_snapshot(vote, snapshot) => sent,
            closed = cancel => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(Request::TransferLeader(rpc), option.soft_ttl()).await? {
            Reply::TransferLeader(response) => Ok(response),
            other => Err(unexpected(self.target, &other)),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(RETRY_INTERVAL)))
    }
}

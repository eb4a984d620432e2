//! The tasks that drive [`PeerStream`]s: one a peer, asleep until there is something to say.

use std::sync::Arc;
use std::time::Duration;

use amphora_storage::Timestamp;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::dots::VersionVector;
use super::engine::{Engine, Peer, decode_body};
use super::messages::{PUSH_BYTES, PeerBody, PeerMessage, PeerTransport, ReseedPage};
use super::oplog::RETAIN_BYTES;
use super::peer_stream::Step;
use crate::api::PeerLag;
use crate::{Error, NodeId, Result};

/// A peer that does not answer for this long is taken for unreachable.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the log is looked at for what can go.
const TRUNCATE_EVERY: Duration = Duration::from_secs(5);
/// How often the store gets what it is owed, so that its flushes cover it, and little is replayed after a crash.
const SETTLE_EVERY: Duration = Duration::from_secs(1);
/// Most records that a status looks at to count a lagging peer's bytes.
const STATUS_BYTES: usize = 8 << 20;

impl Engine {
    /// Gives the engine its wire, and starts the streams to all members.
    pub fn start(self: &Arc<Self>, transport: Arc<dyn PeerTransport>) {
        if self.transport.set(transport).is_err() {
            return;
        }
        for (id, peer) in &self.members.lock().peers {
            self.spawn_stream(*id, peer);
        }
        self.spawn_upkeep(TRUNCATE_EVERY, "the op log could not be truncated", Engine::truncate);
        self.spawn_upkeep(SETTLE_EVERY, "leaderless rows could not be written", Engine::settle);
    }

    /// Does something now and then until the engine stops.
    fn spawn_upkeep(
        self: &Arc<Self>,
        every: Duration,
        failed: &'static str,
        work: fn(&Engine) -> Result<()>,
    ) {
        let engine = self.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(every);
            loop {
                tokio::select! {
                    () = engine.stopped.cancelled() => return,
                    _ = ticks.tick() => {}
                }
                if let Err(e) = work(&engine) {
                    tracing::warn!("{failed}: {e}");
                }
            }
        });
    }

    /// Starts a peer's stream, once there is a wire.
    pub(super) fn spawn_stream(self: &Arc<Self>, id: NodeId, peer: &Peer) {
        let Some(transport) = self.transport.get().cloned() else { return };
        let (wake, removed) = (peer.wake.clone(), peer.removed.clone());
        let engine = self.clone();
        tokio::spawn(async move {
            let mut durable = engine.durable.subscribe();
            loop {
                let step = {
                    let have = durable.borrow_and_update().clone();
                    let members = &mut *engine.members.lock();
                    let Some(peer) = members.peers.get_mut(&id) else { return };
                    peer.stream.next(Instant::now(), &have, &members.dead)
                };
                let work = async {
                    match step {
                        Step::Wait(until) => tokio::select! {
                            _ = durable.changed() => {}
                            () = wake.notified() => {}
                            () = tokio::time::sleep_until(until) => {}
                        },
                        Step::Gather(until) => tokio::select! {
                            () = wake.notified() => {}
                            () = tokio::time::sleep_until(until) => {}
                        },
                        Step::Ask => {
                            let body = PeerBody::Vector { wanting: false };
                            let _ = engine.exchange(&*transport, id, body).await;
                        }
                        Step::Push(from) => engine.push(&*transport, id, &from).await,
                    }
                };
                tokio::select! {
                    () = removed.cancelled() => return,
                    () = work => {}
                }
            }
        });
    }

    /// Sends a message and takes note of the answer, or of there being none.
    async fn exchange(
        &self,
        transport: &dyn PeerTransport,
        peer: NodeId,
        body: PeerBody,
    ) -> Result<VersionVector> {
        let message = PeerMessage { from: self.id, clock: self.clock.last(), vector: self.vector(), body };
        let answer = match tokio::time::timeout(CALL_TIMEOUT, transport.call(peer, message)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new("08006", format!("node {peer} does not answer"))),
        };
        if let Some(peer) = self.members.lock().peers.get_mut(&peer) {
            match &answer {
                Ok(vector) => {
                    peer.stream.on_vector(Instant::now(), vector);
                }
                Err(_) => peer.stream.on_failure(Instant::now()),
            }
        }
        match &answer {
            Ok(vector) => {
                self.note_claim(vector);
                self.heard.send_modify(|n| *n = n.wrapping_add(1));
            }
            Err(e) => tracing::debug!(peer, "leaderless stream: {e}"),
        }
        answer
    }

    /// Sends what fits of these origins' commits.
    async fn push(&self, transport: &dyn PeerTransport, peer: NodeId, from: &[(NodeId, u64)]) {
        let have = self.vector();
        let mut batches = Vec::new();
        let mut room = PUSH_BYTES;
        for &(origin, seq) in from {
            let read = match self.log.read(origin, seq, have.get(origin), room) {
                Ok(read) => read,
                Err(e) => {
                    tracing::error!(peer, "the op log cannot be read: {e}");
                    return self.stall(peer);
                }
            };
            // Not there any more: truncated before this peer came, or never logged here.
            if read.is_empty() {
                return self.reseed(transport, peer).await;
            }
            let bytes: usize = read.iter().map(|b| b.body.len()).sum();
            batches.extend(read);
            room = room.saturating_sub(bytes);
            if room == 0 {
                break;
            }
        }
        if let Ok(vector) = self.exchange(transport, peer, PeerBody::Push(batches)).await
            && from.iter().all(|&(origin, seq)| vector.get(origin) < seq)
        {
            self.stall(peer);
        }
    }

    /// Nothing got through although the peer answered: not to be tried again at once.
    fn stall(&self, peer: NodeId) {
        if let Some(peer) = self.members.lock().peers.get_mut(&peer) {
            peer.stream.on_failure(Instant::now());
        }
    }

    /// Sends all rows, and then what they cover.
    async fn reseed(&self, transport: &dyn PeerTransport, peer: NodeId) {
        // Before the first row is read: every row read later has at least this in it.
        let covered = self.vector();
        tracing::info!(peer, "sending all leaderless rows: the peer is behind the beginning of the op log");
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = self.settle().and_then(|()| self.log.states(after.as_deref(), PUSH_BYTES));
            let rows = match rows {
                Ok(rows) => rows,
                Err(e) => {
                    tracing::error!(peer, "leaderless rows cannot be read: {e}");
                    return self.stall(peer);
                }
            };
            // A row may hold what is not on disk yet: no one may be told of that.
            if let Err(e) = self.log.sync().await {
                tracing::error!(peer, "leaderless rows cannot be made durable: {e}");
                return self.stall(peer);
            }
            after = rows.last().map(|(key, _)| key.clone());
            let complete = rows.is_empty().then(|| covered.clone());
            let done = complete.is_some();
            let page = PeerBody::Reseed(ReseedPage { rows, complete });
            if self.exchange(transport, peer, page).await.is_err() || done {
                return;
            }
        }
    }

    /// Before a read of `r` nodes, this one included: learns what `r - 1` peers have and waits until
    /// local reads see it too.
    pub async fn read_quorum(&self, r: u32, timeout: Duration) -> Result<()> {
        let missed = || {
            Error::new("58000", format!("read quorum of {r} nodes was not reached in time"))
                .hint("Check the nodes of the cluster, or lower the table's read_quorum.")
        };
        let wanted = r.saturating_sub(1) as usize;
        if wanted == 0 {
            return Ok(());
        }
        let transport = self.transport.get().cloned().ok_or_else(missed)?;
        let peers: Vec<NodeId> = self.members.lock().peers.keys().copied().collect();
        let deadline = Instant::now() + timeout;
        let learn = async {
            let body = PeerBody::Vector { wanting: true };
            let mut answers: FuturesUnordered<_> =
                peers.iter().map(|&p| self.exchange(&*transport, p, body.clone())).collect();
            let (mut target, mut answered) = (VersionVector::new(), 0);
            while answered < wanted {
                match answers.next().await {
                    Some(Ok(vector)) => {
                        target.join(&vector);
                        answered += 1;
                    }
                    Some(Err(_)) => {}
                    None => return Err(missed()),
                }
            }
            Ok(target)
        };
        let target = tokio::time::timeout_at(deadline, learn).await.map_err(|_| missed())??;
        self.wait_covers(&target, deadline.saturating_duration_since(Instant::now())).await
    }

    /// Removes from the op log what every member has and what is beyond the bytes to be retained. What
    /// some member has not acknowledged stays, however much it is.
    pub fn truncate(&self) -> Result<()> {
        match self.acked_by_all() {
            Some(acked) => self.log.truncate_to(&acked, RETAIN_BYTES),
            None => Ok(()),
        }
    }

    /// What every member has on disk; `None` while some member has not been heard.
    pub(super) fn acked_by_all(&self) -> Option<VersionVector> {
        let mut acked = self.vector();
        for peer in self.members.lock().peers.values() {
            peer.stream.heard()?;
            acked.meet(peer.stream.acked());
        }
        Some(acked)
    }

    /// How far each peer is behind this node's own commits, for `amphora.replication`.
    pub fn lag(&self) -> Vec<PeerLag> {
        let have = self.vector().get(self.id);
        let peers: Vec<(NodeId, u64)> =
            self.members.lock().peers.iter().map(|(id, p)| (*id, p.stream.acked().get(self.id))).collect();
        let lag = |(node_id, acked): (NodeId, u64)| {
            let missing = if have > acked {
                self.log.read(self.id, acked + 1, have, STATUS_BYTES)
            } else {
                Ok(Vec::new())
            };
            let missing = missing.unwrap_or_default();
            let oldest =
                missing.first().and_then(|b| decode_body(b.origin, b.seq, &b.body).ok()).map(|b| b.hlc);
            let now = self.clock.last().max(Timestamp::from_millis(unix_millis()));
            PeerLag {
                node_id,
                mode: "leaderless".to_owned(),
                lag: have.saturating_sub(acked),
                lag_bytes: missing.iter().map(|b| b.body.len() as u64).sum(),
                lag_ms: oldest.map_or(0, |hlc| now.millis().saturating_sub(hlc.millis())),
            }
        };
        peers.into_iter().map(lag).collect()
    }
}

fn unix_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}

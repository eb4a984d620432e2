//! The tasks that drive [`PeerStream`]s: one a peer, asleep until there is something to say.

use std::sync::Arc;
use std::time::Duration;

use amphora_storage::Timestamp;
use tokio::time::Instant;

use super::dots::VersionVector;
use super::engine::{Engine, Peer, decode_body};
use super::messages::{PUSH_BYTES, PeerBody, PeerMessage, PeerTransport, ReseedPage};
use super::peer_stream::Step;
use crate::api::PeerLag;
use crate::{Error, NodeId, Result};

/// A peer that does not answer for this long is taken for unreachable.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the log is looked at for what can go.
const TRUNCATE_EVERY: Duration = Duration::from_secs(5);
/// How often the store gets what it is owed, so that its flushes cover it, and little is replayed after a crash.
const SETTLE_EVERY: Duration = Duration::from_secs(1);
/// After an index could not be built.
const TEND_AGAIN: Duration = Duration::from_secs(5);
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
        self.spawn_upkeep(SETTLE_EVERY, "leaderless rows could not be written", Engine::settle);
        self.spawn_truncation();
        tokio::spawn(self.clone().tend_indexes_always());
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

    /// Truncates the op log now and then, and when it is beyond its limits. That may have to wait for the disk.
    fn spawn_truncation(self: &Arc<Self>) {
        let engine = self.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TRUNCATE_EVERY);
            loop {
                tokio::select! {
                    () = engine.stopped.cancelled() => return,
                    _ = ticks.tick() => {}
                    () = engine.beyond.notified() => {}
                }
                let log = engine.clone();
                let truncated = tokio::task::spawn_blocking(move || log.truncate()).await;
                if let Ok(Err(e)) = truncated {
                    tracing::warn!("the op log could not be truncated: {e}");
                }
            }
        });
    }

    /// Builds and erases indexes whenever there is something to do.
    async fn tend_indexes_always(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stopped.cancelled() => return,
                () = self.indexes.wake.notified() => {}
            }
            let engine = self.clone();
            let outcome = tokio::task::spawn_blocking(move || engine.tend_indexes()).await;
            let Ok(Err(e)) = outcome else { continue };
            tracing::error!("an index of a leaderless table could not be built, and is tried again: {e}");
            tokio::select! {
                () = self.stopped.cancelled() => return,
                () = tokio::time::sleep(TEND_AGAIN) => self.indexes.wake.notify_one(),
            }
        }
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
    pub(super) async fn exchange(
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
                self.release_waiting();
                self.heard.send_modify(|n| *n = n.wrapping_add(1));
            }
            Err(e) => tracing::debug!(peer, "leaderless stream: {e}"),
        }
        answer
    }

    /// Sends what fits of these origins' commits.
    async fn push(&self, transport: &dyn PeerTransport, peer: NodeId, from: &[(NodeId, u64)]) {
        let have = self.vector();
        let pace = Pace::begin(self.limits.lock().catch_up_rate);
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
        // A full message is followed by the next: the peer has much to catch up with.
        if room < PUSH_BYTES / 2 {
            pace.keep(PUSH_BYTES - room).await;
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
        let _sending = self.sending(peer);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let pace = Pace::begin(self.limits.lock().catch_up_rate);
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
            pace.keep(PUSH_BYTES).await;
        }
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

/// When something was begun that may take only so many bytes a second.
struct Pace {
    begun: Instant,
    rate: u64,
}

impl Pace {
    fn begin(rate: u64) -> Pace {
        Pace { begun: Instant::now(), rate: rate.max(1) }
    }

    /// Waits until these bytes may have been sent.
    async fn keep(self, bytes: usize) {
        let takes = Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / self.rate);
        tokio::time::sleep_until(self.begun + takes).await;
    }
}

fn unix_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}

//! The leaderless engine: commits of this node, batches of its peers, and the state that both join into.
//!
//! All that changes rows here holds the store's *merge lock* while it reads states, joins and writes them
//! back: a commit, a received batch, a mixed transaction applied from the Raft log. The lock covers no
//! fsync. What is written becomes visible to local reads when the lock is given back, and is acknowledged,
//! streamed and counted in this node's version vector only when it is on disk: a node must never have
//! told anyone of a commit that a crash can take back, because it would then give its number to another.
//!
//! ```text
//!   commit ─┐                      ┌─ applied vector: what local reads see
//!   receive ┼─► merge lock: join ──┤                      group fsync
//!   group  ─┘    (store.write)     └─ durable vector ◄────────┘ acknowledged, streamed, relayed
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use amphora_storage::schema::{Catalog, Table, TableId};
use amphora_storage::store::{Batch, Store};
use amphora_storage::{Hlc, Timestamp, codec};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::conflicts::{self, Arrival, Conflict, ConflictKind, Conflicts, Contexts, Lost, TableOf};
use super::dots::VersionVector;
use super::hot_rows::HotRows;
use super::indexes::{Indexes, Maintained};
use super::messages::{
    BatchBody, MAX_COMMIT_BYTES, OpBatch, PeerBody, PeerMessage, PeerTransport, ReseedPage,
};
use super::op::{Author, RowOp};
use super::oplog::{Joined, OpLog, OpLogLimits, Record, join_stores};
use super::peer_stream::PeerStream;
use super::quorums::{Questions, Waiting};
use super::row_state::RowState;
use crate::api::IndexFunctions;
use crate::{Error, NodeId, Result};

/// Received batches that are joined under one holding of the merge lock.
const JOIN_CHUNK: usize = 128;
/// What is on disk is not what was written.
const DAMAGED: &str = "XX001";
/// Rows that are written together when the log is replayed.
const REPLAY_ROWS: usize = 1000;
/// Bytes of commits after which the store gets what it is owed: they bound how far rows grow meanwhile.
const OWED_BYTES: usize = 4 << 20;

/// What a commit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its number among this node's commits; 0 if it changed nothing
    pub seq: u64,
    /// Its time
    pub hlc: Timestamp,
}

/// A node's leaderless tables.
pub struct Engine {
    pub(super) id: NodeId,
    pub(super) clock: Arc<Hlc>,
    pub(super) log: OpLog,
    pub(super) hot: HotRows,
    pub(super) conflicts: Conflicts,
    pub(super) limits: Mutex<OpLogLimits>,
    /// The log has come beyond its limit
    pub(super) beyond: Notify,
    /// When rows were received last that are part of a transfer which is not over
    pub(super) reseeded: Mutex<Option<Instant>>,
    pub(super) indexes: Indexes,
    /// Everything joined into the rows. Written under the merge lock.
    applied: Mutex<VersionVector>,
    /// Bytes of commits since the store got all rows and the vector. Written under the merge lock
    owed: AtomicUsize,
    /// Everything joined and on disk
    pub(super) durable: watch::Sender<VersionVector>,
    pub(super) members: Mutex<Members>,
    /// How many of this node's commits some peer has: more than this node itself only if its disk lost some
    claimed: AtomicU64,
    /// Ticks whenever a peer has said what it has
    pub(super) heard: watch::Sender<u64>,
    /// Commits that wait for peers to have them
    pub(super) waiting: Waiting,
    pub(super) transport: std::sync::OnceLock<Arc<dyn PeerTransport>>,
    pub(super) stopped: CancellationToken,
    /// Rows come page by page, and what they contain is told with the last of them
    pub(super) in_transfer: AtomicBool,
    /// The keyspaces of damaged rows that were met
    damaged: watch::Sender<BTreeSet<TableId>>,
}

/// The nodes that the catalog calls members, this one excluded.
#[derive(Default)]
pub(super) struct Members {
    pub(super) own: NodeId,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    pub(super) dead: BTreeSet<NodeId>,
    /// Where the nodes are, this one included
    pub(super) regions: BTreeMap<NodeId, String>,
    /// False until the catalog has been looked into
    pub(super) known: bool,
}

/// One peer and its running stream.
pub(super) struct Peer {
    pub(super) stream: PeerStream,
    pub(super) questions: Questions,
    /// It is being sent rows
    pub(super) reseeding: bool,
    /// It lacks what the log has given up
    pub(super) left_behind: bool,
    pub(super) wake: Arc<Notify>,
    /// Stops the stream when the peer is removed
    pub(super) removed: CancellationToken,
}

impl Engine {
    /// Opens the leaderless tables of a node, without a catalog: none of them has an index.
    pub fn open(store: Arc<Store>, id: NodeId, clock: Arc<Hlc>) -> Result<Arc<Engine>> {
        Engine::open_indexed(store, id, clock, None, &Catalog::default())
    }

    /// Opens the leaderless tables of a node. `catalog` is what the store has of it: what is joined again from the
    /// log is joined into the indexes, too. `functions` compute what of indexes is no column.
    pub fn open_indexed(
        store: Arc<Store>,
        id: NodeId,
        clock: Arc<Hlc>,
        functions: Option<&'static dyn IndexFunctions>,
        catalog: &Catalog,
    ) -> Result<Arc<Engine>> {
        let indexes = Indexes::open(&store, functions, catalog)?;
        let log = OpLog::open(store)?;
        let Joined { vector, clock: last } = log.joined()?;
        clock.adopt(last);
        let engine = Engine {
            id,
            clock,
            log,
            hot: HotRows::new(),
            conflicts: Conflicts::default(),
            limits: Mutex::default(),
            beyond: Notify::new(),
            reseeded: Mutex::default(),
            indexes,
            applied: Mutex::new(vector.clone()),
            owed: AtomicUsize::new(0),
            durable: watch::Sender::new(vector),
            members: Mutex::new(Members { own: id, ..Members::default() }),
            claimed: AtomicU64::new(0),
            heard: watch::Sender::new(0),
            waiting: Waiting::default(),
            transport: std::sync::OnceLock::new(),
            stopped: CancellationToken::new(),
            in_transfer: AtomicBool::new(false),
            damaged: watch::Sender::default(),
        };
        engine.replay()?;
        Ok(Arc::new(engine))
    }

    /// Joins what the log has and the rows may not have: a crash took it from memory.
    fn replay(&self) -> Result<()> {
        let _lock = self.log.store().merge_lock();
        let mut vector = self.applied();
        let (mut rows, mut lost, mut joined) = (Rows::new(self), Lost::default(), 0u64);
        self.log.replay(|record| {
            match record {
                Record::Covered(covered) => vector.join(&covered),
                Record::Conflict(id, encoded) => conflicts::replay(&mut lost.batch, id, encoded),
                // A number that does not follow is either in the rows, or was never joined.
                Record::Commit(origin, seq, _) if vector.get(origin) + 1 != seq => return Ok(()),
                Record::Commit(origin, seq, body) => {
                    let body = decode_body(origin, seq, body)?;
                    self.clock.adopt(body.hlc);
                    for (key, delta) in &body.rows {
                        match rows.get(key) {
                            Ok(state) => state.join(delta),
                            // It is of no use until it is replaced, by what has seen this commit too.
                            Err(e) if e.sqlstate == DAMAGED => tracing::error!("{e}"),
                            Err(e) => return Err(e),
                        }
                    }
                    vector.advance(origin, seq);
                    joined += 1;
                }
            }
            if rows.len() + lost.batch.len() >= REPLAY_ROWS {
                let rows = std::mem::replace(&mut rows, Rows::new(self));
                self.write_beside(std::mem::take(&mut lost), rows, &vector, Vec::new())?;
                self.settle_owed()?;
            }
            Ok(())
        })?;
        self.write_beside(lost, rows, &vector, Vec::new())?;
        self.settle_owed()?;
        if joined > 0 {
            tracing::info!(
                "joined {joined} leaderless commits again that were in the log and not in the tables"
            );
        }
        self.durable.send_replace(vector);
        Ok(())
    }

    /// The state kept under a row key.
    pub fn state(&self, key: &[u8]) -> Result<Option<Arc<RowState>>> {
        match self.hot.get(key) {
            Some(state) => Ok(Some(state)),
            None => Ok(self.log.state(key).inspect_err(|e| self.note_damage(key, e))?.map(Arc::new)),
        }
    }

    /// A row could not be read. If that is because it is damaged, its table is to be compared with the other nodes'.
    fn note_damage(&self, key: &[u8], e: &Error) {
        if e.sqlstate == DAMAGED
            && let Some((keyspace, ..)) = amphora_storage::key::split_prefix(key)
        {
            self.damaged.send_if_modified(|damaged| damaged.insert(keyspace));
        }
    }

    /// Waits until damaged rows have been met, and tells the keyspaces that they are in, once.
    pub async fn met_damage(&self) -> BTreeSet<TableId> {
        let mut damaged = self.damaged.subscribe();
        let met = damaged.wait_for(|damaged| !damaged.is_empty()).await.is_ok();
        let mut taken = BTreeSet::new();
        if met {
            self.damaged.send_modify(|damaged| taken = std::mem::take(damaged));
        }
        taken
    }

    /// Lets it look into the catalog, for what is said of conflicts.
    pub fn set_tables(&self, tables: TableOf) {
        self.conflicts.set_tables(tables);
    }

    /// The conflicts that this node found, the oldest first.
    pub fn conflicts(&self) -> Result<Vec<Conflict>> {
        self.conflicts.list(&self.log, self.clock.now())
    }

    /// One of them.
    pub fn conflict(&self, id: i64) -> Result<Option<Conflict>> {
        self.conflicts.get(&self.log, id)
    }

    /// How many were found since the node started: schema, table, kind, count.
    pub fn conflict_counts(&self) -> Vec<(String, String, ConflictKind, u64)> {
        self.conflicts.counts()
    }

    /// Lets someone else change rows in the store, under the merge lock.
    pub fn change_store(&self, change: impl FnOnce(&Store) -> Result<()>) -> Result<()> {
        let _no_writes = self.log.store().merge_lock();
        self.settle_owed()?;
        let changed = change(self.log.store());
        self.hot.clear();
        changed
    }

    /// Lets the store have all that was joined before: for whoever reads rows there.
    pub fn settle(&self) -> Result<()> {
        if self.owed.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let _lock = self.log.store().merge_lock();
        self.settle_owed()
    }

    /// The same, under the merge lock.
    pub(super) fn settle_owed(&self) -> Result<()> {
        if self.owed.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let mut batch = Batch::new();
        self.hot.stage_owed(|key, state| self.log.put_state(&mut batch, key, state));
        self.log.write_joined(batch, &self.at(&self.applied()))?;
        self.hot.settled();
        self.owed.store(0, Ordering::Release);
        Ok(())
    }

    /// The time here, later than all that this node knows of.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What this node has on disk, by origin.
    pub fn vector(&self) -> VersionVector {
        self.durable.borrow().clone()
    }

    /// What local reads see, by origin.
    pub fn applied(&self) -> VersionVector {
        self.applied.lock().clone()
    }

    /// Commits a transaction that touched leaderless tables only: table, row key, operation.
    ///
    /// Returns when it is on this node's disk. Who wants it on others' too
    /// [waits](Engine::wait_quorums) for that. Fails with 23505 if a row that a plain INSERT did not find exists now, and with 54000 if it is larger
    /// than [`MAX_COMMIT_BYTES`]; nothing is written then.
    pub async fn commit(&self, ops: Vec<(Arc<Table>, Vec<u8>, RowOp)>) -> Result<Committed> {
        self.check_room()?;
        let Some((committed, vector)) = self.join_own(&ops)? else {
            return Ok(Committed { seq: 0, hlc: self.clock.last() });
        };
        self.make_durable(&vector).await?;
        Ok(committed)
    }

    /// Joins a commit's rows and logs it. `None` if there is nothing to change.
    fn join_own(&self, ops: &[(Arc<Table>, Vec<u8>, RowOp)]) -> Result<Option<(Committed, VersionVector)>> {
        let _lock = self.log.store().merge_lock();
        let hlc = self.clock.now();
        let mut rows = Rows::new(self);
        let mut deltas: BTreeMap<&[u8], RowState> = BTreeMap::new();
        let mut vector = self.applied.lock().clone();
        let seq = vector.get(self.id) + 1;
        let author = Author { origin: self.id, seq, hlc };
        for (table, key, op) in ops {
            let state = rows.get(key)?;
            if op.must_not_exist && state.is_visible() {
                return Err(Error::unique_violation(table, &table.primary));
            }
            if op.is_empty(state) {
                continue;
            }
            let delta = op.resolve(state, author);
            state.join(&delta);
            deltas.entry(key).or_default().join(&delta);
        }
        if deltas.is_empty() {
            return Ok(None);
        }
        if self.claimed.load(Ordering::Acquire) >= seq {
            return Err(Error::new(
                "57P03",
                "this node is getting back commits of its own that its disk has lost",
            )
            .detail(format!("Its next commit is number {seq}, and a peer has that already."))
            .hint("Try again in a moment. If it stays so, check the disk and whether fsync is honoured."));
        }
        let body = BatchBody {
            hlc,
            context: vector.clone(),
            rows: deltas.into_iter().map(|(key, delta)| (key.to_vec(), delta)).collect(),
        };
        let body = codec::encode(&body);
        if body.len() > MAX_COMMIT_BYTES {
            return Err(Error::new("54000", "transaction is too large for leaderless tables")
                .detail(format!(
                    "It can write at most {} MB, and this is {}.",
                    MAX_COMMIT_BYTES >> 20,
                    body.len() >> 20
                ))
                .hint("Split it into several transactions."));
        }
        vector.advance(self.id, seq);
        self.write(rows, &vector, vec![OpBatch { origin: self.id, seq, body: body.into() }])?;
        Ok(Some((Committed { seq, hlc }, vector)))
    }

    /// Writes under the merge lock: rows, the vector that this brings the node to, and the commits that did it.
    pub(super) fn write(&self, rows: Rows<'_>, vector: &VersionVector, commits: Vec<OpBatch>) -> Result<()> {
        self.write_beside(Lost::default(), rows, vector, commits)
    }

    /// The same, together with the conflicts that they met.
    pub(super) fn write_beside(
        &self,
        mut lost: Lost,
        mut rows: Rows<'_>,
        vector: &VersionVector,
        commits: Vec<OpBatch>,
    ) -> Result<()> {
        if self.owed.load(Ordering::Acquire) >= OWED_BYTES {
            self.settle_owed()?;
        }
        let bytes: usize = commits.iter().map(|commit| commit.body.len()).sum();
        rows.stage(&mut lost.batch);
        self.log.write(lost.batch, commits, &lost.records)?;
        // Before the rows are owed: whoever sees one of them must find that there is something to settle.
        self.owed.fetch_add(bytes.max(1), Ordering::Release);
        rows.keep();
        self.applied.lock().clone_from(vector);
        Ok(())
    }

    fn at(&self, vector: &VersionVector) -> Joined {
        Joined { vector: vector.clone(), clock: self.clock.last() }
    }

    /// A peer told what it has: a word about what this node has told it before.
    pub(super) fn note_claim(&self, vector: &VersionVector) {
        self.claimed.fetch_max(vector.get(self.id), Ordering::AcqRel);
    }

    /// Waits until everything up to `vector`, which was written before, is on disk.
    async fn make_durable(&self, vector: &VersionVector) -> Result<()> {
        if !self.durable.borrow().covers(vector) {
            self.log.sync().await?;
            self.durable.send_if_modified(|durable| {
                let news = !durable.covers(vector);
                durable.join(vector);
                news
            });
        }
        Ok(())
    }

    /// Puts another node's checkpoint into the place of the store's data, and joins the old data into it.
    pub fn install_checkpoint(&self, directory: &Path) -> Result<()> {
        let store = self.log.store();
        let _no_writes = store.merge_lock();
        self.settle_owed()?;
        store.install(directory, join_stores)?;
        let vector = self.log.joined()?.vector;
        self.hot.clear();
        self.indexes.installed();
        self.applied.lock().clone_from(&vector);
        // All of it is flushed.
        self.durable.send_modify(|durable| durable.clone_from(&vector));
        Ok(())
    }

    /// Answers a peer.
    pub async fn handle(self: &Arc<Self>, message: PeerMessage) -> Result<VersionVector> {
        // Before anything else: a clock too far ahead must not get into any row.
        self.clock.observe(message.clock).map_err(|e| {
            tracing::warn!("refused a message of node {}: {e}", message.from);
            Error::from(e)
        })?;
        self.note_claim(&message.vector);
        if let Some(peer) = self.members.lock().peers.get_mut(&message.from) {
            let news = peer.stream.on_vector(Instant::now(), &message.vector);
            let wanting = message.body == PeerBody::Vector { wanting: true };
            if wanting {
                peer.stream.on_wanting();
            }
            if news || wanting {
                peer.wake.notify_one();
            }
        }
        self.release_waiting();
        self.heard.send_modify(|n| *n = n.wrapping_add(1));
        match message.body {
            PeerBody::Push(batches) => self.receive(batches).await,
            PeerBody::Vector { .. } => Ok(self.vector()),
            PeerBody::Reseed(page) => self.receive_page(message.from, page).await,
        }
    }

    /// Joins batches of other origins, durably, and returns what this node has then.
    ///
    /// Takes of each origin what continues what is here, once; what lies beyond a gap is left for later.
    pub async fn receive(&self, batches: Vec<OpBatch>) -> Result<VersionVector> {
        let mut outcome = Ok(());
        for chunk in batches.chunks(JOIN_CHUNK) {
            outcome = self.join_others(chunk);
            if outcome.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        // Also what came before a batch that was refused, and what another call has just written.
        self.make_durable(&self.applied()).await?;
        outcome.map(|()| self.vector())
    }

    /// Stops at the first batch that is not admitted, and keeps what came before it.
    fn join_others(&self, batches: &[OpBatch]) -> Result<()> {
        let _lock = self.log.store().merge_lock();
        let mut vector = self.applied.lock().clone();
        let mut rows = Rows::new(self);
        let (mut commits, mut lost, mut outcome) = (Vec::new(), Lost::default(), Ok(()));
        let contexts = Contexts::default();
        for received in batches {
            if Some(received.seq) != vector.get(received.origin).checked_add(1) {
                continue;
            }
            let body = match self.admit(received) {
                Ok(body) => body,
                Err(e) => {
                    outcome = Err(e);
                    break;
                }
            };
            let arrival = Arrival { chunk: batches, received, body: &body, contexts: &contexts };
            for (key, delta) in &body.rows {
                let state = rows.get(key)?;
                self.conflicts.observe(&self.log, &mut lost, &arrival, (key, delta), state)?;
                state.join(delta);
            }
            commits.push(received.clone());
            vector.advance(received.origin, received.seq);
        }
        if vector != *self.applied.lock() {
            self.write_beside(lost, rows, &vector, commits)?;
        }
        outcome
    }

    /// Decodes a received batch and lets its time into the clock.
    fn admit(&self, received: &OpBatch) -> Result<BatchBody> {
        if received.origin == super::GROUP {
            return Err(Error::new("08P01", "a peer sent a batch of no node"));
        }
        if received.origin == self.id {
            tracing::warn!(
                seq = received.seq,
                "a peer knows a commit of this node that this node does not: its disk has lost data"
            );
        }
        let body = decode_body(received.origin, received.seq, &received.body)?;
        self.clock.observe(body.hlc).map_err(|e| {
            tracing::warn!("refused commit {} of node {}: {e}", received.seq, received.origin);
            Error::from(e)
        })?;
        Ok(body)
    }

    /// Joins one page of a table transfer. The last one says what all pages cover.
    pub(super) async fn receive_page(
        self: &Arc<Self>,
        from: NodeId,
        page: ReseedPage,
    ) -> Result<VersionVector> {
        self.note_transfer(from, page.complete.is_none());
        {
            let _lock = self.log.store().merge_lock();
            self.in_transfer.store(true, Ordering::Release);
            let vector = self.applied();
            let mut rows = Rows::new(self);
            for (key, state) in &page.rows {
                rows.get(key)?.join(state);
            }
            self.write(rows, &vector, Vec::new())?;
            // The log does not have them.
            self.settle_owed()?;
        }
        if let Some(covered) = page.complete {
            let engine = self.clone();
            let cover = tokio::task::spawn_blocking(move || engine.cover(&covered)).await;
            cover.map_err(|e| Error::new("XX000", format!("the end of a table transfer failed: {e}")))??;
            self.make_durable(&self.applied()).await?;
        }
        Ok(self.vector())
    }

    /// Takes note that the rows contain all that `covered` covers. Blocks.
    fn cover(&self, covered: &VersionVector) -> Result<()> {
        // The log lacks what came with the pages: it may say that it is there once it is on disk.
        self.log.store().flush()?;
        let _lock = self.log.store().merge_lock();
        self.settle_owed()?;
        let mut vector = self.applied();
        vector.join(covered);
        self.log.write_covered(&self.at(&vector))?;
        *self.applied.lock() = vector;
        self.in_transfer.store(false, Ordering::Release);
        Ok(())
    }

    /// Waits until local reads see everything that `vector` covers.
    pub async fn wait_covers(&self, vector: &VersionVector, timeout: Duration) -> Result<()> {
        let mut durable = self.durable.subscribe();
        let covered = tokio::time::timeout(timeout, durable.wait_for(|v| v.covers(vector))).await;
        match covered {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new("58000", "this node did not catch up with its peers in time").hint(
                "Check the nodes of the cluster, or lower amphora.read_quorum or the table's read_quorum.",
            )),
        }
    }

    /// Starts or stops streams so that they are with these nodes, this one excepted.
    pub fn set_members(self: &Arc<Self>, members: impl IntoIterator<Item = NodeId>) {
        let wanted: BTreeSet<NodeId> = members.into_iter().filter(|&n| n != self.id).collect();
        let mut members = self.members.lock();
        members.known = true;
        members.peers.retain(|id, peer| {
            let stays = wanted.contains(id);
            if !stays {
                peer.removed.cancel();
            }
            stays
        });
        for id in wanted {
            if members.peers.contains_key(&id) {
                continue;
            }
            let peer = Peer {
                stream: PeerStream::new(self.id),
                questions: Questions::default(),
                reseeding: false,
                left_behind: false,
                wake: Arc::new(Notify::new()),
                removed: self.stopped.child_token(),
            };
            self.spawn_stream(id, &peer);
            members.peers.insert(id, peer);
        }
        drop(members);
        self.release_waiting();
    }

    /// Nodes whose commits their peers pass on without waiting.
    pub fn set_dead(&self, dead: BTreeSet<NodeId>) {
        let mut members = self.members.lock();
        if members.dead != dead {
            members.dead = dead;
            members.peers.values().for_each(|p| p.wake.notify_one());
        }
    }

    /// Stops all streams. Commits still work, and spread when the node starts again.
    pub fn stop(&self) {
        self.stopped.cancel();
    }
}

/// Row states by key.
type States = BTreeMap<Vec<u8>, RowState>;

/// Row states under change: read once, joined in memory, written together. All of it under the merge lock.
pub(super) struct Rows<'a> {
    engine: &'a Engine,
    states: States,
    /// The lengths of the encoded states, once they are staged. `None`: the row will be owed
    staged: Vec<Option<usize>>,
    /// The indexes there are, and the rows of their tables as they were
    indexes: Option<(Arc<Maintained>, States)>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(engine: &'a Engine) -> Rows<'a> {
        let indexes = engine.indexes.maintained().map(|maintained| (maintained, BTreeMap::new()));
        Rows { engine, states: BTreeMap::new(), staged: Vec::new(), indexes }
    }

    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    /// The row as it is now, changes made here included.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<&mut RowState> {
        if !self.states.contains_key(key) {
            let state = match self.engine.hot.get(key) {
                Some(state) => RowState::clone(&state),
                None => {
                    let stored = self.engine.log.state(key);
                    stored.inspect_err(|e| self.engine.note_damage(key, e))?.unwrap_or_default()
                }
            };
            if let Some((maintained, before)) = &mut self.indexes
                && maintained.concerns(key)
            {
                before.insert(key.to_vec(), state.clone());
            }
            self.states.insert(key.to_vec(), state);
        }
        Ok(self.states.entry(key.to_vec()).or_default())
    }

    /// The row is to be this, and was that.
    pub(super) fn put(&mut self, key: &[u8], before: RowState, state: RowState) {
        if let Some((maintained, old)) = &mut self.indexes
            && maintained.concerns(key)
        {
            old.insert(key.to_vec(), before);
        }
        self.states.insert(key.to_vec(), state);
    }

    /// Adds the states to what is written next, but for those that will be owed; and what that makes of the entries
    /// of indexes. A row that has entries is written with them, and never owed.
    fn stage(&mut self, batch: &mut Batch) {
        for (key, state) in &self.states {
            let has_entries = self.indexes.as_ref().is_some_and(|(_, before)| before.contains_key(key));
            let owed = !has_entries && self.engine.hot.has(key);
            if has_entries {
                self.engine.hot.vacate(key);
            }
            self.staged.push((!owed).then(|| self.engine.log.put_state(batch, key, state)));
        }
        self.stage_entries(batch);
    }

    fn stage_entries(&self, batch: &mut Batch) {
        let Some((maintained, before)) = &self.indexes else { return };
        for (key, old) in before {
            if let Some(new) = self.states.get(key) {
                maintained.stage(batch, key, old, new);
            }
        }
    }

    /// Adds all states to what is written next. Nothing may be owed.
    pub(super) fn stage_all(&mut self, batch: &mut Batch) {
        for (key, state) in &self.states {
            self.engine.hot.vacate(key);
            self.engine.log.put_state(batch, key, state);
        }
        self.stage_entries(batch);
    }

    /// What was staged has been written, and the rest is logged.
    fn keep(self) {
        let hot = &self.engine.hot;
        let mut written = Vec::new();
        for ((key, state), staged) in self.states.into_iter().zip(self.staged) {
            match staged {
                Some(length) => written.push((key, state, length)),
                None => hot.owe(&key, state),
            }
        }
        // Last: to fill in one row may take another's place, and not that of one that is owed.
        written.into_iter().for_each(|(key, state, length)| hot.fill(&key, state, length));
    }
}

pub(super) fn decode_body(origin: NodeId, seq: u64, body: &[u8]) -> Result<BatchBody> {
    codec::decode(body).map_err(|e| {
        Error::new("XX001", format!("commit {seq} of node {origin} cannot be decoded")).detail(e.to_string())
    })
}

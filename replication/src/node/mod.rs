//! A node: everything on the floors below put together, and kept together until it stops.
//!
//! ```text
//!                     ┌───────────────────────── Node ─────────────────────────┐
//!   sessions ────────►│ Engine ─► HybridTransaction ─┬─► Group ──────┐         │
//!                     │   CatalogCache, UniqueIds    └─► leaderless ─┤         │
//!                     │                                    Engine    │         │
//!   peers ◄──────────►│ rpc::Server, rpc::Client ◄───────────────────┤         │
//!                     │ Gossip, AddressBook                          ▼         │
//!                     │                                 DataDir: Store, RaftLog│
//!                     └────────────────────────────────────────────────────────┘
//! ```
//!
//! A node starts in one of three ways, and the data directory decides which: with an identity on disk it
//! restarts; without one it asks the `--join` addresses for one; without those it founds a cluster. The
//! identity is written when what it stands for is on disk: a founder's after its first membership is, a
//! joiner's after its id is allocated. A crash before that leaves a directory that starts over.

mod address;
mod catalog;
mod clocks;
mod hooks;
mod ids;
mod join;
mod membership;
mod operations;
mod peers;
mod recovery;
mod sessions;
mod status;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
pub(crate) mod tests;
mod upkeep;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use amphora_storage::schema::{Catalog, TableId};
use amphora_storage::{
    DataDir, Hlc, Identity as StoredIdentity, RaftLog, RaftLogOptions, Store, StoreOptions, Timestamp,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;
use uuid::Uuid;

pub use catalog::{CatalogCache, catalog_key, load_catalog};
pub use ids::{MAX_NODE_ID, UniqueIds};
pub use operations::DrainProgress;
pub use recovery::{Survivor, recover, survey};

use crate::api::{AdvisoryLock, ClusterStatus, Engine, Transaction, TransactionOptions, Verification};
use crate::gossip::{Gossip, GossipConfig};
use crate::leaderless::{Conflict, ConflictKind, OpLogLimits};
use crate::rpc::{AddressBook, Client, Faults, Identity, RpcTransport, Server};
use crate::sessions::{RemoteSessions, SessionDirectory, Signal, Signalled};
use crate::strong::{EarlyCommit, Group, GroupConfig, LogLimits, Member, Timing};
use crate::transaction::{HybridTransaction, TransactionContext, WriteMemory};
use crate::verify::{self, VerifyOptions};
use crate::{NodeId, Result, Token, leaderless};

use peers::{LeaderlessTransport, PeerHandler};
use status::TableSizes;

/// The founder's id.
const FOUNDER: NodeId = 1;

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where its data is
    pub data_dir: PathBuf,
    /// Where SQL clients connect, `host:port`
    pub pg_address: String,
    /// Where `/health`, `/ready` and the console are, `host:port`
    pub http_address: String,
    /// Where to listen for peers (TCP and, for gossip, UDP), `host:port`
    pub rpc_listen: String,
    /// Where peers reach that, if not there
    pub advertise_rpc: Option<String>,
    /// Members of the cluster to join, `host:port` of their peer listeners; none founds a cluster
    pub join: Vec<String>,
    /// `--region`
    pub region: String,
    /// `--leader-preference`
    pub leader_preference: i32,
    /// `--learner`: joins as a read replica that never votes
    pub learner: bool,
    /// How much memory the store takes
    pub store: StoreOptions,
    /// Raft's clocks
    pub timing: Timing,
    /// How much Raft log is kept
    pub log_limits: LogLimits,
    /// How much op log is kept
    pub op_log_limits: OpLogLimits,
    /// How tables are checked
    pub verify: VerifyOptions,
    /// Bytes of memory for the writes of all transactions until they commit
    pub write_memory: usize,
}

/// Counts the sessions of this node that are at something.
type SessionCount = Box<dyn Fn() -> usize + Send + Sync>;

/// A running node. [`shutdown`](Node::shutdown) stops it; merely dropping it does not.
pub struct Node {
    id: NodeId,
    cluster: Uuid,
    member: Member,
    join: Vec<String>,
    store: Arc<Store>,
    group: Group,
    leaderless: Arc<leaderless::Engine>,
    catalog: Arc<CatalogCache>,
    ids: Arc<UniqueIds>,
    context: Arc<TransactionContext>,
    client: Arc<Client>,
    book: Arc<AddressBook>,
    faults: Arc<Faults>,
    gossip: Gossip,
    server: Mutex<Option<Server>>,
    /// Peers' clocks minus ours, in milliseconds
    skew: Mutex<HashMap<NodeId, i64>>,
    sizes: TableSizes,
    verify: VerifyOptions,
    verify_jobs: verify::Jobs,
    /// What the last check of each table found
    pub(crate) verifications: Mutex<Vec<Verification>>,
    /// Why the cluster does not want this node any more
    removed: Mutex<Option<String>>,
    /// Cancelled when this node is to send its clients away
    draining: CancellationToken,
    busy_sessions: OnceLock<SessionCount>,
    sessions: OnceLock<Arc<dyn SessionDirectory>>,
    started: Instant,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Holds the lock on the directory
    data_dir: DataDir,
}

impl Node {
    /// Starts a node, and returns when it can serve leaderless tables; [`ready`](Node::ready) says when it
    /// can serve strong ones. A node that has yet to join waits here for a member to let it in.
    pub async fn start(config: NodeConfig) -> Result<Arc<Node>> {
        let data_dir = DataDir::open(&config.data_dir)?;
        if let Some(why) = data_dir.removed()? {
            return Err(operations::removed(&why));
        }
        let listener = address::bind(&config.rpc_listen).await?;
        let listen = listener.local_addr().map_err(|e| crate::Error::new("58030", e.to_string()))?;
        let member = member(&config, &listen.to_string());
        let join: Vec<String> = config.join.iter().filter(|a| **a != member.rpc_address).cloned().collect();

        let (identity, founding) = identify(&data_dir, &config, &join).await?;
        let (cluster, id) = (identity.cluster.unwrap_or_default(), identity.node);
        let faults = Arc::new(Faults::new());
        let client = Arc::new(Client::new(identity, faults.clone()));
        if !founding {
            join::check_cluster(&client, &join).await?;
        }

        let clock = Arc::new(Hlc::new(Hlc::DEFAULT_DRIFT));
        let store = Store::open(data_dir.path(), config.store.clone())?;
        let raft_log = RaftLog::open(data_dir.path(), RaftLogOptions::default())?;
        let leaderless = leaderless::Engine::open_indexed(
            store.clone(),
            id,
            clock.clone(),
            config.verify.indexes,
            &load_catalog(&store, Timestamp::MAX)?,
        )?;
        leaderless.set_limits(config.op_log_limits);
        let book = Arc::new(AddressBook::new());
        let group = Group::start(GroupConfig {
            node_id: id,
            member: member.clone(),
            store: store.clone(),
            raft_log,
            snapshots: store.incoming_dir(),
            clock: clock.clone(),
            transport: Arc::new(RpcTransport::new(client.clone(), book.clone())),
            hook: leaderless.clone(),
            install: leaderless.clone(),
            timing: config.timing.clone(),
            log_limits: config.log_limits.clone(),
        })
        .await?;
        if founding {
            group.bootstrap().await?;
            data_dir.write_identity(&StoredIdentity::new(cluster, id, Uuid::new_v4()))?;
            info!("founded cluster {cluster} with node {id}");
        }

        let catalog = Arc::new(CatalogCache::open(store.clone(), group.clone(), leaderless.clone())?);
        // The catalog holds the group, and the group the engine.
        let tables = Arc::downgrade(&catalog);
        leaderless.set_tables(Arc::new(move |key: &[u8]| {
            let (keyspace, ..) = amphora_storage::key::split_prefix(key)?;
            tables.upgrade()?.current().tables().find(|t| t.keyspace() == keyspace).cloned()
        }));
        let ids = Arc::new(UniqueIds::new(id, clock.clone())?);
        let seeds = group.members().into_iter().map(|(_, m, _)| m.rpc_address);
        let gossip = Gossip::start(GossipConfig {
            cluster,
            node: id,
            listen,
            advertise: address::resolve(&member.rpc_address).await?,
            seeds: seeds.chain(join.iter().cloned()).filter(|a| *a != member.rpc_address).collect(),
            member: member.clone(),
            faults: faults.clone(),
        })
        .await?;
        let context = Arc::new(TransactionContext {
            cluster,
            store: store.clone(),
            group: group.clone(),
            leaderless: leaderless.clone(),
            catalog: catalog.clone(),
            ids: ids.clone(),
            clock,
            memory: Arc::new(WriteMemory::new(config.write_memory)),
        });
        let node = Arc::new(Node {
            id,
            cluster,
            member,
            join,
            store,
            group,
            leaderless,
            catalog,
            ids,
            context,
            client,
            book,
            faults,
            gossip,
            server: Mutex::new(None),
            skew: Mutex::default(),
            sizes: TableSizes::default(),
            verify: config.verify,
            verify_jobs: verify::Jobs::default(),
            verifications: Mutex::default(),
            removed: Mutex::default(),
            draining: CancellationToken::new(),
            busy_sessions: OnceLock::new(),
            sessions: OnceLock::new(),
            started: Instant::now(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            data_dir,
        });
        node.take_the_clusters_time().await;
        node.run(listener, identity);
        info!("node {id} of cluster {cluster} listens for peers on {listen} ({})", node.member.rpc_address);
        Ok(node)
    }

    /// Starts what runs beside the statements.
    fn run(self: &Arc<Self>, listener: tokio::net::TcpListener, identity: Identity) {
        let handler = PeerHandler { node: Arc::downgrade(self) };
        let server = Server::start(listener, identity, Box::new(handler), self.faults.clone());
        *self.server.lock() = Some(server);
        self.leaderless
            .start(Arc::new(LeaderlessTransport { client: self.client.clone(), book: self.book.clone() }));
        self.spawn(self.clone().follow_membership());
        self.spawn(self.clone().announce());
        self.spawn(self.clone().watch_clocks());
        self.spawn(self.clone().keep_up());
        self.spawn(self.clone().verify_now_and_then());
        self.spawn(self.clone().mend_damage());
        self.spawn(self.catalog.clone().follow());
    }

    /// Runs something until the node stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// Hands leadership over, if this node has it and another can take it: the first step of a stop, while
    /// sessions still run, so that none of them meets a leader that is gone.
    pub async fn hand_over(&self) {
        if let Some(leader) = self.group.hand_over().await {
            info!("handed leadership over to node {leader}");
        }
    }

    /// Stops the node: hands over leadership, stops taking calls, flushes.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.group.shutdown().await;
        self.leaderless.stop();
        self.gossip.stop();
        let server = self.server.lock().take();
        if let Some(server) = server {
            server.stop().await;
        }
        self.tasks.close();
        self.tasks.wait().await;
        let (store, leaderless) = (self.store.clone(), self.leaderless.clone());
        let flush = move || leaderless.settle().and_then(|()| Ok(store.flush()?));
        match tokio::task::spawn_blocking(flush).await {
            Ok(Ok(())) => info!("node {} has stopped", self.id),
            Ok(Err(e)) => tracing::error!("could not flush the store: {e}"),
            Err(e) => tracing::error!("could not flush the store: {e}"),
        }
    }

    /// Its id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Where a member is, if that is known.
    pub(crate) fn address_of(&self, member: NodeId) -> Option<String> {
        let known = self.book.get(member).map(|address| address.to_string());
        // The book is written a few times a second: who has just joined is only in the membership.
        let named = || self.group.members().into_iter().find(|(id, ..)| *id == member);
        known.or_else(|| named().map(|(_, member, _)| member.rpc_address))
    }

    /// How peers are called.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// How tables are checked.
    pub(crate) fn verify_options(&self) -> &VerifyOptions {
        &self.verify
    }

    /// The checks that run here.
    pub(crate) fn verify_jobs(&self) -> &verify::Jobs {
        &self.verify_jobs
    }

    /// The Raft group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The leaderless tables' engine.
    pub fn leaderless(&self) -> &Arc<leaderless::Engine> {
        &self.leaderless
    }

    /// The node's data.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The switch that cuts this node off from peers, for tests and demonstrations.
    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> Uuid {
        self.cluster
    }

    /// What the cluster knows of this node.
    pub fn member(&self) -> &Member {
        &self.member
    }
}

#[async_trait::async_trait]
impl Engine for Node {
    fn begin(&self, options: TransactionOptions) -> Box<dyn Transaction> {
        Box::new(HybridTransaction::new(self.context.clone(), options))
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.catalog.current()
    }

    fn unique_id(&self) -> i64 {
        self.ids.next()
    }

    fn node_id(&self) -> NodeId {
        self.id
    }

    async fn settle(&self, commit: EarlyCommit) -> Result<()> {
        self.group.settle_early(commit).await
    }

    async fn token(&self) -> Result<Token> {
        let strong = self.group.seen_timestamp();
        let leaderless = self.leaderless.applied();
        // What is read here before it is on disk may not be carried elsewhere: a crash could take it back.
        self.leaderless.wait_covers(&leaderless, leaderless::QUORUM_TIMEOUT).await?;
        Ok(Token { cluster: self.cluster, strong, leaderless })
    }

    fn status(&self) -> ClusterStatus {
        self.cluster_status()
    }

    fn temp_dir(&self) -> Option<PathBuf> {
        Some(self.data_dir.temp_dir())
    }

    fn table_changes(&self, table: TableId) -> Option<u64> {
        let catalog = self.catalog.current();
        Some(self.group.table_changes(catalog.table_by_id(table)?.keyspace()))
    }

    fn advisory_lock(
        &self,
        session: u64,
        key: &[u8],
        lost: Arc<dyn Fn() + Send + Sync>,
    ) -> Option<Arc<dyn AdvisoryLock>> {
        Some(self.group.advisory_lock(session, key, lost))
    }

    fn remote_sessions(&self) -> BoxFuture<'_, RemoteSessions> {
        Box::pin(self.sessions_elsewhere())
    }

    fn signal_session(&self, pid: i32, signal: Signal) -> BoxFuture<'_, Signalled> {
        Box::pin(self.signal_anywhere(pid, signal))
    }

    fn verify_table(&self, table: TableId) -> BoxFuture<'_, Result<Vec<Verification>>> {
        Box::pin(self.verify(table, None))
    }

    fn verifications(&self) -> Vec<Verification> {
        self.verifications.lock().clone()
    }

    fn conflicts(&self) -> Result<Vec<Conflict>> {
        self.leaderless.conflicts()
    }

    fn conflict(&self, id: i64) -> Result<Option<Conflict>> {
        self.leaderless.conflict(id)
    }

    fn conflict_counts(&self) -> Vec<(String, String, ConflictKind, u64)> {
        self.leaderless.conflict_counts()
    }

    fn table_size(&self, table: TableId) -> Option<u64> {
        self.sizes.of(table, || self.measure(table))
    }
}

/// What the cluster is told of this node.
fn member(config: &NodeConfig, rpc_listen: &str) -> Member {
    let advertised = |listen: &str| address::advertised(listen, &config.join);
    Member {
        rpc_address: config.advertise_rpc.clone().unwrap_or_else(|| advertised(rpc_listen)),
        pg_address: advertised(&config.pg_address),
        http_address: advertised(&config.http_address),
        region: config.region.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: crate::rpc::PROTOCOL_VERSION,
        preference: config.leader_preference,
        learner: config.learner,
    }
}

/// Which node of which cluster this is, and whether it founds it.
async fn identify(data_dir: &DataDir, config: &NodeConfig, join: &[String]) -> Result<(Identity, bool)> {
    if let Some(known) = data_dir.identity()? {
        return Ok((Identity::of(known.cluster_id, known.node_id).made_of(&known.former_clusters), false));
    }
    if config.join.is_empty() && config.learner {
        return Err(crate::Error::new("22023", "a learner cannot found a cluster")
            .hint("Name a member of the cluster it is to join with --join, or leave --learner out."));
    }
    if config.join.is_empty() {
        return Ok((Identity::of(Uuid::new_v4(), FOUNDER), true));
    }
    if join.is_empty() {
        return Err(crate::Error::new("22023", "--join names only this node itself")
            .hint("Name another member, or leave --join out to found a new cluster."));
    }
    let token = data_dir.join_token()?;
    let (cluster, node) = join::obtain_identity(join, token).await?;
    data_dir.write_identity(&StoredIdentity::new(cluster, node, token))?;
    info!("this node is node {node} of cluster {cluster}");
    Ok((Identity::of(cluster, node), false))
}

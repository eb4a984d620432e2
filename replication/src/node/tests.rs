use std::path::Path;
use std::time::{Duration, Instant};

use amphora_storage::schema::{Column, ColumnId, Index, IndexId, Quorum, Replication, Table, TableId};
use amphora_storage::types::Crdt;
use amphora_storage::{DataType, Datum, Row};
use tempfile::TempDir;

use super::*;
use crate::api::{Access, NodeRole, NodeState, OnConflict, StoredRow};

/// Nodes of one cluster in this process, over real sockets.
pub(crate) struct Cluster {
    dirs: Vec<TempDir>,
    nodes: Vec<Option<Arc<Node>>>,
}

fn config(dir: &Path, rpc_listen: &str, join: Vec<String>) -> NodeConfig {
    NodeConfig {
        data_dir: dir.to_owned(),
        pg_address: "127.0.0.1:5433".to_owned(),
        http_address: "127.0.0.1:8433".to_owned(),
        rpc_listen: rpc_listen.to_owned(),
        advertise_rpc: None,
        join,
        region: "here".to_owned(),
        leader_preference: 0,
        learner: false,
        store: StoreOptions::default(),
        timing: Timing::default(),
        log_limits: LogLimits::default(),
        op_log_limits: Default::default(),
        verify: VerifyOptions::default(),
        write_memory: 1 << 30,
    }
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_voter(node: &Node) -> bool {
    node.group().members().iter().any(|(id, _, voter)| *id == node.node_id() && *voter)
}

impl Cluster {
    pub(crate) async fn start(n: usize) -> Cluster {
        let mut cluster = Cluster { dirs: Vec::new(), nodes: Vec::new() };
        let mut join = Vec::new();
        for _ in 0..n {
            let dir = tempfile::tempdir().unwrap();
            let node = Node::start(config(dir.path(), "127.0.0.1:0", join.clone())).await.unwrap();
            join = vec![node.member().rpc_address.clone()];
            cluster.dirs.push(dir);
            cluster.nodes.push(Some(node));
        }
        cluster.settled().await;
        cluster
    }

    pub(crate) fn node(&self, i: usize) -> Arc<Node> {
        self.nodes[i].clone().unwrap()
    }

    fn running(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.iter().flatten()
    }

    /// Every running node is a voter and ready.
    async fn settled(&self) {
        until("all are voters and ready", || self.running().all(|n| is_voter(n) && n.ready().is_ok())).await;
    }

    pub(crate) async fn stop(&mut self, i: usize) {
        let node = self.nodes[i].take().unwrap();
        node.shutdown().await;
        let weak = Arc::downgrade(&node);
        drop(node);
        until("nothing holds a stopped node", || weak.strong_count() == 0).await;
    }

    async fn restart(&mut self, i: usize, rpc_listen: &str) {
        let node = Node::start(config(self.dirs[i].path(), rpc_listen, Vec::new())).await.unwrap();
        self.nodes[i] = Some(node);
    }

    /// Restarts a stopped node so that it purges its log as soon as it may.
    async fn restart_with_short_log(&mut self, i: usize) {
        let mut config = config(self.dirs[i].path(), "127.0.0.1:0", Vec::new());
        config.log_limits = LogLimits { flush_every: 10, keep: 0, ..LogLimits::default() };
        self.nodes[i] = Some(Node::start(config).await.unwrap());
    }

    pub(crate) async fn end(mut self) {
        for i in 0..self.nodes.len() {
            if self.nodes[i].is_some() {
                self.stop(i).await;
            }
        }
    }
}

pub(crate) fn table(id: TableId, name: &str, replication: Replication) -> Table {
    let value = match replication {
        Replication::Strong => DataType::Int8,
        Replication::Leaderless => DataType::Crdt(Crdt::Counter),
    };
    let column =
        |id, name: &str, ty| Column { not_null: true, default: None, ..Column::new(ColumnId(id), name, ty) };
    Table {
        id,
        version: amphora_storage::Timestamp::ZERO,
        schema: "public".to_owned(),
        name: name.to_owned(),
        owner: "amphora".to_owned(),
        replication,
        columns: vec![column(1, "k", DataType::Int8), column(2, "n", value)],
        primary: Index::of_constraint(IndexId::PRIMARY, format!("{name}_pkey"), id.0 + 1000, vec![0]),
        hidden_key: false,
        indexes: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        comment: None,
        next_column_id: 3,
        next_index_id: 1,
        storage: None,
        write_quorum: Quorum::ONE,
        read_quorum: Quorum::ONE,
    }
}

pub(crate) async fn create(node: &Node, name: &str, replication: Replication) {
    let mut tx = node.begin(TransactionOptions::default());
    tx.lock_catalog().await.unwrap();
    let id = tx.allocate_id().unwrap();
    tx.put_table(table(id, name, replication)).unwrap();
    tx.commit().await.unwrap();
}

pub(crate) async fn the_table(node: &Node, name: &str) -> Arc<Table> {
    until("the table is known", || node.catalog().table("public", name).is_some()).await;
    node.catalog().table("public", name).unwrap().clone()
}

fn access(table: &Table) -> Access {
    if table.is_strong() { Access::Strong } else { Access::Local }
}

fn row(k: i64, n: i64) -> Row {
    vec![Datum::Int8(k), Datum::Int8(n)].into_iter().collect()
}

/// Adds to a row, or inserts it; one transaction.
pub(crate) async fn add(node: &Node, name: &str, k: i64, by: i64) -> Result<()> {
    let table = the_table(node, name).await;
    let mut tx = node.begin(TransactionOptions::default());
    tx.begin_statement(access(&table), std::slice::from_ref(&table)).await?;
    loop {
        let done = match tx.get(&table, &[Datum::Int8(k)])? {
            None => tx.insert(&table, vec![row(k, by)], OnConflict::Error).await.map(drop),
            Some(old) => {
                let Datum::Int8(n) = old.row[1] else { panic!("{old:?}") };
                tx.update(&table, vec![(old, row(k, n + by))]).await
            }
        };
        match done {
            Err(e) if e.kind == crate::ErrorKind::Restart => tx.restart_statement().await?,
            done => break done?,
        }
    }
    tx.commit().await
}

async fn read(node: &Node, name: &str, k: i64) -> Result<Option<i64>> {
    let table = the_table(node, name).await;
    let mut tx = node.begin(TransactionOptions::default());
    tx.begin_statement(access(&table), std::slice::from_ref(&table)).await?;
    let found = tx.get(&table, &[Datum::Int8(k)])?;
    tx.rollback().await;
    Ok(found.map(|StoredRow { row, .. }| match row[1] {
        Datum::Int8(n) => n,
        ref other => panic!("{other:?}"),
    }))
}

/// Every running node reads this locally, sooner or later.
async fn agree(cluster: &Cluster, name: &str, k: i64, n: i64) {
    for node in cluster.running() {
        let began = Instant::now();
        while read(node, name, k).await.unwrap() != Some(n) {
            assert!(began.elapsed() < Duration::from_secs(20), "node {} never reads {n}", node.node_id());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_join_and_every_one_is_a_gateway_to_both_kinds() {
    let cluster = Cluster::start(3).await;
    assert_eq!(cluster.running().map(|n| n.node_id()).collect::<Vec<_>>(), [1, 2, 3]);
    create(&cluster.node(2), "accounts", Replication::Strong).await;
    create(&cluster.node(0), "views", Replication::Leaderless).await;
    add(&cluster.node(0), "views", 1, 0).await.unwrap();
    agree(&cluster, "views", 1, 0).await;
    for node in cluster.running() {
        add(node, "accounts", 1, 10).await.unwrap();
        add(node, "views", 1, 100).await.unwrap();
    }
    for node in cluster.running() {
        // Linearizable everywhere at once.
        assert_eq!(read(node, "accounts", 1).await.unwrap(), Some(30));
    }
    agree(&cluster, "views", 1, 300).await;

    until("gossip has gone round", || {
        cluster.running().all(|n| n.status().nodes.iter().all(|m| m.state == NodeState::Alive))
    })
    .await;
    let status = cluster.node(1).status();
    assert_eq!(status.nodes.len(), 3);
    assert_eq!(status.nodes.iter().filter(|n| n.role == NodeRole::Leader).count(), 1);
    assert_eq!(status.nodes[0].region, "here");
    assert_eq!(status.tables.len(), 2);
    assert!(status.nodes.iter().all(|n| n.clock_skew_ms.abs() < 100), "{:?}", status.nodes);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_leader_is_replaced_and_comes_back_at_another_address() {
    let mut cluster = Cluster::start(3).await;
    create(&cluster.node(0), "accounts", Replication::Strong).await;
    create(&cluster.node(0), "views", Replication::Leaderless).await;
    add(&cluster.node(0), "accounts", 1, 1).await.unwrap();
    let leader = cluster.nodes.iter().position(|n| n.as_ref().unwrap().group().is_leader()).unwrap();
    cluster.stop(leader).await;
    let survivor = (leader + 1) % 3;
    add(&cluster.node(survivor), "accounts", 1, 1).await.unwrap();
    add(&cluster.node(survivor), "views", 1, 5).await.unwrap();

    cluster.restart(leader, "127.0.0.1:0").await;
    cluster.settled().await;
    let moved = cluster.node(leader).member().rpc_address.clone();
    let id = cluster.node(leader).node_id();
    until("the new address is part of the membership", || {
        cluster
            .running()
            .all(|n| n.group().members().iter().any(|(m, member, _)| *m == id && member.rpc_address == moved))
    })
    .await;
    assert_eq!(read(&cluster.node(leader), "accounts", 1).await.unwrap(), Some(2));
    add(&cluster.node(leader), "accounts", 1, 1).await.unwrap();
    agree(&cluster, "views", 1, 5).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_stop_and_start_again_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3).await;
    create(&cluster.node(0), "accounts", Replication::Strong).await;
    create(&cluster.node(1), "views", Replication::Leaderless).await;
    add(&cluster.node(1), "accounts", 7, 42).await.unwrap();
    add(&cluster.node(2), "views", 7, 43).await.unwrap();
    let addresses: Vec<String> = cluster.running().map(|n| n.member().rpc_address.clone()).collect();
    for i in 0..3 {
        cluster.stop(i).await;
    }
    for (i, address) in addresses.iter().enumerate() {
        cluster.restart(i, address).await;
    }
    cluster.settled().await;
    for node in cluster.running() {
        assert_eq!(read(node, "accounts", 7).await.unwrap(), Some(42));
    }
    agree(&cluster, "views", 7, 43).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_goes_on_with_leaderless_tables_and_refuses_strong_ones() {
    let cluster = Cluster::start(3).await;
    create(&cluster.node(0), "accounts", Replication::Strong).await;
    create(&cluster.node(0), "views", Replication::Leaderless).await;
    add(&cluster.node(0), "accounts", 1, 1).await.unwrap();
    add(&cluster.node(0), "views", 1, 1).await.unwrap();
    agree(&cluster, "views", 1, 1).await;
    agree(&cluster, "accounts", 1, 1).await;

    let alone = cluster.node(2);
    let others: Vec<Arc<Node>> = vec![cluster.node(0), cluster.node(1)];
    for other in &others {
        alone.faults().cut(other.node_id());
        other.faults().cut(alone.node_id());
    }
    let refused = add(&alone, "accounts", 1, 1).await.unwrap_err();
    assert_eq!(refused.kind, crate::ErrorKind::Unavailable, "{refused:?}");
    let began = Instant::now();
    add(&alone, "views", 1, 10).await.unwrap();
    assert_eq!(read(&alone, "views", 1).await.unwrap(), Some(11));
    assert!(began.elapsed() < Duration::from_secs(1), "a leaderless commit waited for someone");
    add(&others[0], "accounts", 1, 1).await.unwrap();
    add(&others[1], "views", 1, 100).await.unwrap();

    alone.faults().heal_all();
    others.iter().for_each(|o| o.faults().heal_all());
    agree(&cluster, "views", 1, 111).await;
    cluster.settled().await;
    assert_eq!(read(&alone, "accounts", 1).await.unwrap(), Some(2));
    drop((alone, others));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_cluster_and_a_second_process_are_refused() {
    let (one, other) = (Cluster::start(1).await, Cluster::start(1).await);
    let address = one.node(0).member().rpc_address.clone();

    let error = Node::start(config(other.dirs[0].path(), "127.0.0.1:0", vec![address.clone()])).await;
    let error = error.err().unwrap();
    assert_eq!(error.sqlstate, "55006", "{error:?}");

    let dir = other.dirs[0].path().to_owned();
    let mut other = other;
    other.stop(0).await;
    let error = Node::start(config(&dir, "127.0.0.1:0", vec![address])).await.err().unwrap();
    assert!(error.message.contains("refused this node"), "{error:?}");
    assert!(error.detail.as_ref().unwrap().contains("another cluster"), "{error:?}");
    assert!(error.hint.is_some());
    one.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_knows_it_and_does_not_come_back() {
    let mut cluster = Cluster::start(3).await;
    create(&cluster.node(0), "views", Replication::Leaderless).await;
    let leader = cluster.nodes.iter().position(|n| n.as_ref().unwrap().group().is_leader()).unwrap();
    let (gone, address) = ((leader + 1) % 3, cluster.node((leader + 1) % 3).member().rpc_address.clone());
    let id = cluster.node(gone).node_id();
    cluster.node((leader + 2) % 3).remove_node(id, false).await.unwrap();
    until("it is removed", || cluster.node(leader).group().members().len() == 2).await;
    cluster.stop(gone).await;

    // At another address it would announce itself.
    cluster.restart(gone, "127.0.0.1:0").await;
    assert_ne!(cluster.node(gone).member().rpc_address, address);
    until("it knows", || cluster.node(gone).ready().is_err_and(|reason| reason.contains("has been removed")))
        .await;
    assert_eq!(cluster.node(leader).group().members().len(), 2);
    cluster.stop(gone).await;
    // From then on its directory says so.
    let error =
        Node::start(config(cluster.dirs[gone].path(), "127.0.0.1:0", Vec::new())).await.err().unwrap();
    assert!(error.message.contains("has been removed") && error.hint.is_some(), "{error:?}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_removed_while_it_runs_and_serves_nobody_any_more() {
    let cluster = Cluster::start(3).await;
    create(&cluster.node(0), "accounts", Replication::Strong).await;
    create(&cluster.node(0), "views", Replication::Leaderless).await;
    let leader = cluster.nodes.iter().position(|n| n.as_ref().unwrap().group().is_leader()).unwrap();
    let (gone, other) = (cluster.node(leader), cluster.node((leader + 1) % 3));
    other.remove_node(gone.node_id(), false).await.unwrap();
    other.remove_node(gone.node_id(), false).await.unwrap();
    let error = other.remove_node(77, false).await.unwrap_err();
    assert!(error.message.contains("not a member"), "{error:?}");
    until("it knows", || gone.turns_clients_away().is_some_and(|e| e.message.contains("has been removed")))
        .await;
    let error = add(&gone, "accounts", 1, 1).await.unwrap_err();
    assert_eq!(error.sqlstate, crate::strong::REMOVED, "{error:?}");
    // The leaderless side waits for it no more.
    add(&other, "views", 1, 1).await.unwrap();
    let peers = other.cluster_status().replication;
    assert!(peers.iter().all(|peer| peer.node_id != gone.node_id()), "{peers:?}");
    add(&other, "accounts", 1, 1).await.unwrap();
    // Of two, one may go; the last may not.
    let left = cluster.node((leader + 2) % 3);
    until("it hears the others", || other.liveness(left.node_id()) == NodeState::Alive).await;
    other.remove_node(other.node_id(), false).await.unwrap();
    let error = left.remove_node(left.node_id(), true).await.unwrap_err();
    assert!(error.message.contains("the only voter"), "{error:?}");
    add(&left, "accounts", 1, 1).await.unwrap();
    assert_eq!(read(&left, "accounts", 1).await.unwrap(), Some(2));
    drop((gone, other, left));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_replica_serves_and_votes_only_when_it_is_promoted() {
    let mut cluster = Cluster::start(1).await;
    create(&cluster.node(0), "accounts", Replication::Strong).await;
    create(&cluster.node(0), "views", Replication::Leaderless).await;
    let dir = tempfile::tempdir().unwrap();
    let mut replica = config(dir.path(), "127.0.0.1:0", Vec::new());
    replica.learner = true;
    assert_eq!(Node::start(replica.clone()).await.err().unwrap().sqlstate, "22023");
    replica.join = vec![cluster.node(0).member().rpc_address.clone()];
    let node = Node::start(replica).await.unwrap();
    cluster.dirs.push(dir);
    cluster.nodes.push(Some(node.clone()));
    until("it is ready", || node.ready().is_ok()).await;
    add(&node, "accounts", 1, 5).await.unwrap();
    add(&node, "views", 1, 5).await.unwrap();
    agree(&cluster, "accounts", 1, 5).await;
    agree(&cluster, "views", 1, 5).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!is_voter(&node));
    let role = |id| cluster.node(0).cluster_status().nodes.iter().find(|n| n.node_id == id).unwrap().role;
    assert_eq!(role(2), NodeRole::Learner);
    assert!(node.transfer_leader(Some(2)).await.is_err());
    // The others do not need it.
    drop(node);
    cluster.stop(1).await;
    add(&cluster.node(0), "accounts", 1, 1).await.unwrap();
    cluster.restart(1, "127.0.0.1:0").await;
    until("it is ready again", || cluster.node(1).ready().is_ok()).await;
    assert!(!is_voter(&cluster.node(1)), "it stays what it is, whatever it is started with");
    cluster.node(1).promote_node(2).await.unwrap();
    until("it votes", || is_voter(&cluster.node(1))).await;
    cluster.node(1).transfer_leader(Some(2)).await.unwrap();
    add(&cluster.node(0), "accounts", 1, 1).await.unwrap();
    assert_eq!(read(&cluster.node(1), "accounts", 1).await.unwrap(), Some(7));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_where_it_is_preferred_and_away_from_who_is_drained() {
    let mut cluster = Cluster::start(3).await;
    create(&cluster.node(0), "accounts", Replication::Strong).await;
    cluster.node(0).transfer_leader(Some(1)).await.unwrap();
    cluster.stop(2).await;
    let mut preferred = config(cluster.dirs[2].path(), "127.0.0.1:0", Vec::new());
    preferred.leader_preference = 10;
    cluster.nodes[2] = Some(Node::start(preferred).await.unwrap());
    until("it leads", || cluster.node(2).group().is_leader()).await;
    let progress = cluster.node(0).drain_node(3).await.unwrap();
    assert_eq!(progress, DrainProgress { leads: false, sessions: 0 });
    assert!(cluster.node(2).turns_clients_away().is_some_and(|e| e.sqlstate == "57P03"));
    until("all know", || cluster.node(0).liveness(3) == NodeState::Draining).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_ne!(cluster.node(0).group().leader(), Some(3), "it is drained, however preferred");
    add(&cluster.node(0), "accounts", 1, 1).await.unwrap();
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_far_behind_catches_up_by_snapshot_and_keeps_its_own_leaderless_commits() {
    let mut cluster = Cluster::start(3).await;
    create(&cluster.node(0), "accounts", Replication::Strong).await;
    create(&cluster.node(0), "views", Replication::Leaderless).await;
    add(&cluster.node(0), "views", 1, 3).await.unwrap();
    agree(&cluster, "views", 1, 3).await;
    let late = cluster.node(2);
    for i in 0..2 {
        late.faults().cut(cluster.node(i).node_id());
        cluster.node(i).faults().cut(late.node_id());
    }
    add(&late, "views", 1, 1000).await.unwrap();
    cluster.stop(0).await;
    cluster.restart_with_short_log(0).await;
    cluster.node(0).faults().cut(late.node_id());
    for k in 0..40 {
        add(&cluster.node(1), "accounts", k, k).await.unwrap();
        add(&cluster.node(1), "views", 1, 1).await.unwrap();
    }
    // A leader with a short log has purged what the late node lacks.
    let short = cluster.node(0);
    let _ = cluster.node(1).group().transfer_leader(short.node_id()).await;
    until("it leads", || short.group().is_leader()).await;
    // It purges by the hundred.
    for k in 40..400 {
        add(&short, "accounts", k, k).await.unwrap();
    }
    until("it has purged its log", || {
        short.group().status().purged_index > late.group().status().applied_index
    })
    .await;

    for node in cluster.running() {
        node.faults().heal_all();
    }
    agree(&cluster, "views", 1, 1043).await;
    until("it has applied all", || {
        late.group().status().applied_index >= short.group().status().committed_index
    })
    .await;
    assert!(late.group().status().snapshot_index > 0, "{:?}", late.group().status());
    assert_eq!(read(&late, "accounts", 399).await.unwrap(), Some(399));
    add(&late, "views", 1, 1).await.unwrap();
    agree(&cluster, "views", 1, 1044).await;
    drop((late, short));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_many_megabytes_reaches_everyone() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.nodes.iter().position(|n| n.as_ref().unwrap().group().is_leader()).unwrap();
    let node = cluster.node((leader + 1) % 3);
    let key = amphora_storage::key::table_prefix(TableId(20_000), IndexId::PRIMARY).to_vec();
    let value = vec![7; 24 << 20];
    let request = crate::strong::CommitRequest {
        id: node.group().transaction_id(),
        locked: false,
        expected: Vec::new(),
        tables: Vec::new(),
        intents: Vec::new(),
        writes: vec![crate::strong::Write { key: key.clone(), value: Some(value) }],
        staged: crate::strong::Staged::default(),
        staged_into: Vec::new(),
        reads: None,
        leaderless: Vec::new(),
        clock: node.context.clock.last(),
        durability: Default::default(),
    };
    let at = node.group().commit(request).await.unwrap();
    for node in cluster.running() {
        until("it is applied", || node.group().applied_timestamp() >= at).await;
        assert_eq!(node.store().newest(&key).unwrap(), at);
    }
    drop(node);
    cluster.end().await;
}

/// Not assertions about time, but the way to measure:
/// `cargo nextest run -p amphora-replication --run-ignored only node::tests::figures --no-capture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn figures() {
    let cluster = Cluster::start(3).await;
    create(&cluster.node(0), "accounts", Replication::Strong).await;
    create(&cluster.node(0), "views", Replication::Leaderless).await;
    let leader = cluster.nodes.iter().position(|n| n.as_ref().unwrap().group().is_leader()).unwrap();
    let follower = (leader + 1) % 3;
    for (what, i) in [("leader", leader), ("follower", follower)] {
        let node = cluster.node(i);
        add(&node, "accounts", i as i64, 0).await.unwrap();
        let began = Instant::now();
        for _ in 0..300 {
            add(&node, "accounts", i as i64, 1).await.unwrap();
        }
        println!("strong read-modify-write by the {what}: {:?}", began.elapsed() / 300);
    }
    let mut worst = Duration::ZERO;
    let (here, there) = (cluster.node(leader), cluster.node(follower));
    for n in 1..=50 {
        add(&here, "views", 1, 1).await.unwrap();
        let began = Instant::now();
        while read(&there, "views", 1).await.unwrap() != Some(n) {
            tokio::task::yield_now().await;
        }
        worst = worst.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("a leaderless commit is read by another node after at most {worst:?}");
    let ticks = || -> u64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat.split(' ').collect();
        fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap()
    };
    let before = ticks();
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!("three idle nodes use {:.1} % of a core", (ticks() - before) as f64 / 10.0);
    drop((here, there));
    cluster.end().await;
}

/// Writes this many rows of a megabyte, in one transaction.
async fn write_large(node: &Node, name: &str, first: i64, megabytes: i64) -> Result<()> {
    let table = the_table(node, name).await;
    let mut tx = node.begin(TransactionOptions::default());
    tx.begin_statement(Access::Strong, std::slice::from_ref(&table)).await?;
    for k in first..first + megabytes {
        let row = vec![Datum::Int8(k), Datum::text("x".repeat(1 << 20))];
        tx.insert(&table, vec![row.into_iter().collect()], OnConflict::Error).await?;
    }
    tx.commit().await
}

/// Writes one row of so many bytes.
async fn write_row(node: &Node, name: &str, k: i64, bytes: usize) -> Result<()> {
    let table = the_table(node, name).await;
    let mut tx = node.begin(TransactionOptions::default());
    tx.begin_statement(Access::Strong, std::slice::from_ref(&table)).await?;
    let row = vec![Datum::Int8(k), Datum::text("x".repeat(bytes))];
    tx.insert(&table, vec![row.into_iter().collect()], OnConflict::Error).await?;
    tx.commit().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_transactions_commit_through_a_follower_and_a_too_large_row_is_refused() {
    let cluster = Cluster::start(3).await;
    let follower = cluster.running().find(|n| !n.group().is_leader()).unwrap().clone();
    let mut tx = follower.begin(TransactionOptions::default());
    tx.lock_catalog().await.unwrap();
    let mut documents = table(tx.allocate_id().unwrap(), "documents", Replication::Strong);
    documents.columns[1].ty = DataType::Text;
    tx.put_table(documents).unwrap();
    tx.commit().await.unwrap();

    write_large(&follower, "documents", 0, 30).await.unwrap();
    write_large(&follower, "documents", 100, 60).await.unwrap();
    write_large(&follower, "documents", 200, 80).await.unwrap();
    let refused = write_row(&follower, "documents", 300, 65 << 20).await.unwrap_err();
    assert_eq!(refused.sqlstate, "54000", "{refused:?}");
    assert!(refused.hint.is_some());

    cluster.settled().await;
    for node in cluster.running() {
        let table = the_table(node, "documents").await;
        let mut tx = node.begin(TransactionOptions::default());
        tx.begin_statement(Access::Strong, std::slice::from_ref(&table)).await.unwrap();
        for (k, there) in
            [(0, true), (29, true), (100, true), (159, true), (200, true), (279, true), (300, false)]
        {
            assert_eq!(tx.get(&table, &[Datum::Int8(k)]).unwrap().is_some(), there, "{k}");
        }
        tx.rollback().await;
    }
    write_large(&follower, "documents", 300, 1).await.unwrap();
    drop(follower);
    cluster.end().await;
}

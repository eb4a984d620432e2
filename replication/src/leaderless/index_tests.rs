//! Indexes on every node under random histories: entries are always those that the rows ask for.
//!
//! Three nodes write, deliver, transfer rows, apply mixed transactions, crash, and take each other's data; each learns
//! of indexes that come and go at a time of its own, as a node that was cut off does. After every step each index that
//! says it is ready is compared with its node's rows.

use std::sync::Arc;

use amphora_storage::schema::{Catalog, Descriptor, Index, IndexId, IndexMethod, KeyOrder, Table};
use amphora_storage::store::{Batch, Cf, Store, StoreOptions};
use amphora_storage::{Datum, Hlc, Timestamp, codec, key};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::cell::{Cell, Lww};
use super::convergence::{new_row, table};
use super::engine_tests::copy;
use super::messages::{OpBatch, ReseedPage};
use super::repair::OfferedRow;
use super::*;

const NODES: usize = 3;
const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const TAGS: [&str; 4] = ["x", "y", "z", ""];

/// What the catalog says, one version after the other.
fn versions() -> Vec<Arc<Table>> {
    let index = |id: u32, columns: Vec<usize>| Index::new(IndexId(id), format!("i{id}"), id, columns);
    let gin = |id, column| Index { method: IndexMethod::Gin, ..index(id, vec![column]) };
    let descending = KeyOrder { descending: true, nulls_first: true };
    let text = || Index { include: vec![3], ..index(1, vec![1]) };
    let counter = || Index { orders: vec![descending], ..index(2, vec![2, 1]) };
    let sets = vec![
        vec![],
        vec![text()],
        vec![text(), gin(3, 5)],
        vec![counter(), gin(3, 5), gin(4, 9)],
        vec![counter(), gin(5, 5), gin(4, 9)],
        vec![gin(5, 5), index(6, vec![6])],
        vec![],
        vec![index(7, vec![3, 1]), gin(8, 9)],
    ];
    let with = |indexes| Arc::new(Table { indexes, ..Table::clone(&table()) });
    sets.into_iter().map(with).collect()
}

fn catalog(table: &Table) -> Catalog {
    let mut catalog = Catalog::default();
    catalog.put_object(Descriptor::Table(table.clone()));
    catalog
}

struct Node {
    folder: tempfile::TempDir,
    engine: Arc<Engine>,
    /// Which version of the catalog it has
    version: usize,
    /// How many mixed transactions it has applied
    mixed: usize,
}

struct History {
    random: StdRng,
    versions: Vec<Arc<Table>>,
    nodes: Vec<Node>,
    mixed: Vec<Vec<u8>>,
}

fn open(folder: &std::path::Path, id: usize, table: &Table) -> Arc<Engine> {
    let store = Store::open(folder, StoreOptions::default()).unwrap();
    let clock = Arc::new(Hlc::new(Hlc::DEFAULT_DRIFT));
    Engine::open_indexed(store, id as u64 + 1, clock, None, &catalog(table)).unwrap()
}

impl History {
    fn new(seed: u64) -> History {
        let versions = versions();
        let node = |id| {
            let folder = tempfile::tempdir().unwrap();
            let engine = open(folder.path(), id, &versions[0]);
            Node { folder, engine, version: 0, mixed: 0 }
        };
        let nodes = (0..NODES).map(node).collect();
        History { random: StdRng::seed_from_u64(seed), versions, nodes, mixed: Vec::new() }
    }

    /// A random change of a random row, as this node sees it.
    fn change(&mut self, node: usize) -> Option<(Vec<u8>, RowOp)> {
        let table = self.versions[self.nodes[node].version].clone();
        let random = &mut self.random;
        let k = KEYS[random.random_range(0..KEYS.len())];
        let row_key = key::row_key(&table, &[Datum::text(k)]).unwrap();
        let mut row = PendingRow::new(self.nodes[node].engine.state(&row_key).unwrap());
        let old = row.row(&table).unwrap();
        if old.is_some() && random.random_bool(0.15) {
            row.delete();
        } else {
            let mut new = old.clone().unwrap_or_else(|| new_row(k, 0));
            for _ in 0..random.random_range(1..4) {
                let tag = TAGS[random.random_range(0..TAGS.len())];
                let set = |datum: &Datum, random: &mut StdRng| {
                    let Datum::Array(array) = datum else { unreachable!() };
                    let mut items: Vec<Datum> = array.items.to_vec();
                    items.retain(|item| *item != Datum::text(tag) || random.random_bool(0.3));
                    if random.random_bool(0.6) {
                        items.push(Datum::text(tag));
                    }
                    Datum::array(array.element.clone(), items)
                };
                match random.random_range(0..6) {
                    0 => new[1] = if random.random_bool(0.2) { Datum::Null } else { Datum::text(tag) },
                    1 => new[2] = Datum::Int8(new[2].as_i64().unwrap() + random.random_range(-3..4)),
                    2 => new[3] = Datum::Int4(random.random_range(0..9)),
                    3 => new[5] = set(&new[5], random),
                    4 => new[6] = Datum::Bool(random.random_bool(0.5)),
                    _ => new[9] = set(&new[9], random),
                }
            }
            row.put(&table, old.as_deref(), &new).unwrap();
        }
        row.op().cloned().map(|op| (row_key, op))
    }

    fn apply_mixed(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        let Some(ops) = self.mixed.get(at.mixed) else { return };
        at.mixed += 1;
        let mut batch = Batch::default();
        let mut group = at.engine.begin_group();
        group.apply(at.mixed as u64, Timestamp(at.mixed as u64), ops).unwrap();
        group.stage(&mut batch);
        at.engine.log.store().write(batch).unwrap();
    }

    fn missing(&self, from: usize, to: usize, origin: u64) -> Vec<OpBatch> {
        let (source, target) = (&self.nodes[from].engine, &self.nodes[to].engine);
        let (has, wants) = (source.vector().get(origin), target.vector().get(origin) + 1);
        if has < wants { Vec::new() } else { source.log.read(origin, wants, has, 1 << 20).unwrap() }
    }

    fn learn(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        at.version = (at.version + 1).min(self.versions.len() - 1);
        at.engine.follow_catalog(&catalog(&self.versions[at.version])).unwrap();
    }

    /// It loses what it has in memory.
    fn crash(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        at.engine.stop();
        let after = loop {
            let copied = tempfile::tempdir().unwrap();
            if copy(at.folder.path(), copied.path()).unwrap_or(false) {
                break copied;
            }
        };
        let engine = open(after.path(), node, &self.versions[at.version]);
        // The Raft log brings again what was in memory only; what was flushed, no entry of it is applied twice.
        at.mixed = 0;
        at.engine = engine;
        at.folder = after;
    }

    fn take_data(&mut self, from: usize, to: usize) {
        let (theirs, mine) = (&self.nodes[from].engine, &self.nodes[to].engine);
        let received = mine.log.store().incoming_dir();
        theirs.settle().unwrap();
        theirs.log.store().checkpoint(&received).unwrap();
        mine.install_checkpoint(&received).unwrap();
    }

    async fn step(&mut self) {
        let (node, other) = (self.random.random_range(0..NODES), self.random.random_range(0..NODES));
        match self.random.random_range(0..100) {
            0..40 => {
                let table = self.versions[self.nodes[node].version].clone();
                let Some((key, op)) = self.change(node) else { return };
                self.nodes[node].engine.commit(vec![(table, key, op)]).await.unwrap();
            }
            40..60 => {
                let origin = self.random.random_range(1..=NODES as u64);
                let batches = self.missing(node, other, origin);
                self.nodes[other].engine.receive(batches).await.unwrap();
            }
            60..70 => {
                let Some((key, op)) = self.change(node) else { return };
                let op = RowOp { must_not_exist: false, ..op };
                self.mixed.push(codec::encode(&vec![(table().id, key, op)]));
            }
            70..80 => self.apply_mixed(node),
            80..86 => self.learn(node),
            86..92 => self.nodes[node].engine.tend_indexes().unwrap(),
            92..95 => {
                self.nodes[node].engine.settle().unwrap();
                let rows = self.nodes[node].engine.log.states(None, 1 << 20).unwrap();
                let page = ReseedPage { rows, complete: None };
                self.nodes[other].engine.receive_page(node as u64 + 1, page).await.unwrap();
            }
            95..98 => self.crash(node),
            98 => self.nodes[node].engine.log.store().flush().unwrap(),
            _ if node != other => self.take_data(node, other),
            _ => {}
        }
    }

    /// How many indexes were compared.
    fn check(&self, all: bool) -> usize {
        let mut compared = 0;
        for (id, node) in self.nodes.iter().enumerate() {
            let table = &self.versions[node.version];
            for index in &table.indexes {
                match node.engine.compare_index(table, index.id).unwrap() {
                    Some((expected, found, differing)) => {
                        assert_eq!(
                            differing, 0,
                            "{} on node {id}: {expected} expected, {found} found",
                            index.name
                        );
                        compared += 1;
                    }
                    None => assert!(!all, "{} on node {id} is not ready", index.name),
                }
            }
        }
        compared
    }

    async fn finish(&mut self) {
        for node in 0..NODES {
            while self.nodes[node].version + 1 < self.versions.len() {
                self.learn(node);
            }
            while self.nodes[node].mixed < self.mixed.len() {
                self.apply_mixed(node);
            }
        }
        for (from, to) in (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))) {
            for origin in 1..=NODES as u64 {
                let batches = self.missing(from, to, origin);
                self.nodes[to].engine.receive(batches).await.unwrap();
            }
        }
        for node in &self.nodes {
            node.engine.tend_indexes().unwrap();
        }
        self.check(true);
    }
}

#[tokio::test]
async fn entries_are_those_of_the_rows_after_any_history() {
    let seed: u64 =
        std::env::var("AMPHORA_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    let mut compared = 0;
    for number in 0..5u64 {
        let seed: u64 = seed ^ number;
        println!("AMPHORA_SEED={seed}");
        let mut history = History::new(seed);
        for _ in 0..120 {
            history.step().await;
            compared += history.check(false);
        }
        history.finish().await;
    }
    assert!(compared > 200, "only {compared} comparisons");
}

#[tokio::test]
async fn an_index_is_kept_while_it_is_built_and_erased_when_it_is_gone() {
    let mut history = History::new(1);
    let engine = history.nodes[0].engine.clone();
    let (before, with) = (history.versions[0].clone(), history.versions[1].clone());
    let insert = |table: &Arc<Table>, n: usize| {
        let k = format!("k{n:04}");
        let key = key::row_key(table, &[Datum::text(&k)]).unwrap();
        (table.clone(), key, plan_insert(table, None, &new_row(&k, 0)).unwrap())
    };
    for first in (0..1000).step_by(100) {
        engine.commit((first..first + 100).map(|n| insert(&before, n)).collect()).await.unwrap();
    }
    history.learn(0);
    assert!(engine.compare_index(&with, IndexId(1)).unwrap().is_none());
    let (builder, writer) = (engine.clone(), engine.clone());
    let build = tokio::task::spawn_blocking(move || builder.tend_indexes().unwrap());
    for n in 1000..1100 {
        writer.commit(vec![insert(&with, n)]).await.unwrap();
    }
    build.await.unwrap();
    engine.indexes_ready(&with).await;
    assert_eq!(engine.compare_index(&with, IndexId(1)).unwrap(), Some((1100, 1100, 0)));
    engine.follow_catalog(&catalog(&before)).unwrap();
    assert!(engine.compare_index(&with, IndexId(1)).unwrap().is_none());
    engine.tend_indexes().unwrap();
    let all = engine.log.store().scan_plain(
        Cf::LeaderlessIndex,
        Vec::new()..Vec::new(),
        amphora_storage::store::Direction::Forward,
    );
    assert!(all.unwrap().next().unwrap().is_none());
}

#[tokio::test]
async fn a_damaged_row_that_is_replaced_leaves_no_entry_of_what_it_was() {
    let mut history = History::new(2);
    let engine = history.nodes[0].engine.clone();
    let with = history.versions[1].clone();
    history.learn(0);
    let key = key::row_key(&with, &[Datum::text("k")]).unwrap();
    let insert = plan_insert(&with, None, &new_row("k", 0)).unwrap();
    engine.commit(vec![(with.clone(), key.clone(), insert)]).await.unwrap();
    engine.tend_indexes().unwrap();
    assert_eq!(engine.compare_index(&with, IndexId(1)).unwrap(), Some((1, 1, 0)));
    // Another node knows a later value of the indexed column; here the row is damaged.
    let mut state = RowState::clone(&engine.state(&key).unwrap().unwrap());
    let value = Datum::text("of another node");
    let lww = Lww { hlc: engine.clock.now(), origin: 9, seq: 1, value };
    state.cells.insert(with.columns[1].id, Cell::Lww(lww));
    let damage = |store: &Store| {
        let mut stored = store.get_plain(Cf::Leaderless, &key)?.unwrap();
        stored[5] ^= 4;
        let mut batch = Batch::new();
        batch.put(Cf::Leaderless, &key, stored);
        Ok(store.write(batch)?)
    };
    engine.change_store(damage).unwrap();
    let offered = OfferedRow { key: key.clone(), state, replace: true };
    assert_eq!(engine.join_offered(&[offered]).unwrap(), std::slice::from_ref(&key));
    assert!(engine.compare_index(&with, IndexId(1)).unwrap().is_none(), "it is made anew");
    engine.tend_indexes().unwrap();
    assert_eq!(engine.compare_index(&with, IndexId(1)).unwrap(), Some((1, 1, 0)));
}

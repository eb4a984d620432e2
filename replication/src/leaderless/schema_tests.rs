//! Batches of an older and of a newer version of a table meet: nodes learn of a change of the schema at different times.
//!
//! Every node writes with the columns that it knows of. Whatever the order in which batches and versions arrive, all
//! nodes end with the same rows, and what was written to a column that is there in the end is in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use amphora_storage::schema::{Column, ColumnId, Table};
use amphora_storage::store::{Store, StoreOptions};
use amphora_storage::{DataType, Datum, Hlc, Row, key};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::convergence::table;
use super::*;

const NODES: usize = 3;

/// A table, changed once: a column with a default comes, one goes, one is renamed; then a namesake of the one
/// that went.
fn versions() -> [Arc<Table>; 3] {
    let old = table();
    let mut new = Table::clone(&old);
    let column = |id, name, missing| Column {
        missing,
        not_null: false,
        ..Column::new(ColumnId(id), name, DataType::Int4)
    };
    new.columns.retain(|c| c.name != "a");
    new.columns.iter_mut().filter(|c| c.name == "n").for_each(|c| c.name = "visits".into());
    new.columns.push(column(13, "grade", Datum::Int4(7)));
    let mut last = new.clone();
    last.columns.push(column(14, "a", Datum::Null));
    [old, Arc::new(new), Arc::new(last)]
}

struct Node {
    engine: Arc<Engine>,
    version: usize,
    _folder: tempfile::TempDir,
}

fn nodes() -> Vec<Node> {
    let node = |id| {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        let engine = Engine::open(store, id, Arc::new(Hlc::new(Hlc::DEFAULT_DRIFT))).unwrap();
        Node { engine, version: 0, _folder: folder }
    };
    (1..=NODES as u64).map(node).collect()
}

fn row_key(k: &str) -> Vec<u8> {
    key::row_key(&table(), &[Datum::text(k)]).unwrap()
}

fn read(node: &Node, table: &Table, k: &str) -> Option<BTreeMap<String, Datum>> {
    let row: Row = visible(table, &*node.engine.state(&row_key(k)).unwrap()?).unwrap()?;
    Some(table.columns.iter().map(|c| c.name.clone()).zip(row).collect())
}

/// Sets columns by name, of a row that is made if it is not there. Adds to the counter.
async fn write(node: &Node, table: &Arc<Table>, k: &str, values: &[(&str, Datum)]) {
    let mut row = PendingRow::new(node.engine.state(&row_key(k)).unwrap());
    let old = row.row(table).unwrap();
    let blank = || {
        let value = |c: &Column| if c.missing.is_null() { initial(&c.ty) } else { c.missing.clone() };
        let mut row: Row = table.columns.iter().map(value).collect();
        row[0] = Datum::text(k);
        row
    };
    let mut new = old.clone().unwrap_or_else(blank);
    for (name, value) in values {
        let place = table.columns.iter().position(|c| c.name == *name).unwrap();
        new[place] = match &new[place] {
            Datum::Int8(n) => Datum::Int8(n + value.as_i64().unwrap()),
            _ => value.clone(),
        };
    }
    row.put(table, old.as_deref(), &new).unwrap();
    if let Some(op) = row.op() {
        node.engine.commit(vec![(table.clone(), row_key(k), op.clone())]).await.unwrap();
    }
}

async fn deliver(nodes: &[Node], from: usize, to: usize) {
    for origin in 1..=NODES as u64 {
        let (has, wants) =
            (nodes[from].engine.vector().get(origin), nodes[to].engine.vector().get(origin) + 1);
        if has >= wants {
            let batches = nodes[from].engine.log.read(origin, wants, has, 1 << 20).unwrap();
            nodes[to].engine.receive(batches).await.unwrap();
        }
    }
}

async fn deliver_all(nodes: &[Node]) {
    for (from, to) in (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))) {
        deliver(nodes, from, to).await;
    }
}

#[tokio::test]
async fn writers_of_an_older_and_a_newer_schema_lose_nothing() {
    let [old, new, last] = versions();
    let nodes = nodes();
    write(&nodes[0], &old, "k", &[("a", Datum::text("old")), ("n", Datum::Int8(1))]).await;
    deliver_all(&nodes).await;
    // One node knows of the change, the other two do not.
    write(&nodes[1], &new, "k", &[("grade", Datum::Int4(3)), ("visits", Datum::Int8(10))]).await;
    write(&nodes[1], &new, "none", &[("grade", Datum::Null)]).await;
    write(&nodes[0], &old, "k", &[("a", Datum::text("late")), ("n", Datum::Int8(100))]).await;
    write(&nodes[2], &old, "other", &[("a", Datum::text("x")), ("n", Datum::Int8(5))]).await;
    deliver_all(&nodes).await;
    // Who has not heard of the change passes on what it cannot read.
    assert_eq!(read(&nodes[2], &old, "k").unwrap()["a"], Datum::text("late"));
    for node in &nodes {
        let k = read(node, &new, "k").unwrap();
        assert_eq!((&k["grade"], &k["visits"]), (&Datum::Int4(3), &Datum::Int8(111)));
        assert!(!k.contains_key("a"));
        // A row of who did not know of the column has its default; a NULL that was written is one.
        assert_eq!(read(node, &new, "other").unwrap()["grade"], Datum::Int4(7));
        assert_eq!(read(node, &new, "none").unwrap()["grade"], Datum::Null);
        // A column of the same name is another one.
        assert_eq!(read(node, &last, "k").unwrap()["a"], Datum::Null);
    }
}

#[tokio::test]
async fn nodes_of_any_versions_converge() {
    let seed: u64 =
        std::env::var("AMPHORA_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("AMPHORA_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (versions, mut nodes) = (versions(), nodes());
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for _ in 0..400 {
        let at = random.random_range(0..NODES);
        let table = &versions[nodes[at].version];
        let k = ["k", "l", "m"][random.random_range(0..3)];
        let n = random.random_range(1..9);
        match random.random_range(0..20) {
            0..10 => {
                let counter = if nodes[at].version == 0 { "n" } else { "visits" };
                write(&nodes[at], table, k, &[(counter, Datum::Int8(n))]).await;
                *sums.entry(k).or_default() += n;
            }
            10..14 => {
                let (name, value) = match nodes[at].version {
                    0 => ("a", Datum::text(n.to_string())),
                    1 => ("grade", Datum::Int4(n as i32)),
                    _ => ("a", Datum::Int4(n as i32)),
                };
                write(&nodes[at], table, k, &[(name, value)]).await;
            }
            14..19 => deliver(&nodes, at, random.random_range(0..NODES)).await,
            _ => nodes[at].version = (nodes[at].version + 1).min(2),
        }
    }
    deliver_all(&nodes).await;
    for (k, sum) in sums {
        let rows: Vec<_> = nodes.iter().map(|node| read(node, &versions[2], k).unwrap()).collect();
        assert!(rows.windows(2).all(|two| two[0] == two[1]), "{rows:?}");
        assert_eq!(rows[0]["visits"], Datum::Int8(sum), "{k}");
    }
}

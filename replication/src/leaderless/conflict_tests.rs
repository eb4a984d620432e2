//! Nodes that write at the same time, and what each of them reports.

use std::sync::Arc;

use amphora_storage::schema::{ConflictPolicy, Table};
use amphora_storage::store::{Store, StoreOptions};
use amphora_storage::{Datum, Hlc, key};

use super::convergence::{new_row, table};
use super::engine_tests::copy;
use super::*;
use crate::NodeId;

struct Node {
    engine: Arc<Engine>,
    folder: tempfile::TempDir,
}

/// Nodes without a network: what arrives where is said one by one.
struct Nodes {
    table: Arc<Table>,
    nodes: Vec<Node>,
}

impl Nodes {
    fn new(policy: ConflictPolicy) -> Nodes {
        let mut described = (*table()).clone();
        described.columns[1].conflict = policy;
        let table = Arc::new(described);
        let nodes = (1..=3).map(|id| {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
            let engine = Engine::open(store, id, Arc::new(Hlc::new(Hlc::DEFAULT_DRIFT))).unwrap();
            let known = table.clone();
            engine.set_tables(Arc::new(move |_| Some(known.clone())));
            Node { engine, folder }
        });
        Nodes { nodes: nodes.collect(), table }
    }

    fn engine(&self, node: NodeId) -> &Arc<Engine> {
        &self.nodes[node as usize - 1].engine
    }

    fn key(&self) -> Vec<u8> {
        key::row_key_of(&self.table, &new_row("k", 0)).unwrap()
    }

    fn note(&self, node: NodeId) -> Option<Datum> {
        let state = self.engine(node).state(&self.key()).unwrap()?;
        visible(&self.table, &state).unwrap().map(|row| row[1].clone())
    }

    /// Commits on a node; `None` deletes, and a row that is not there is inserted.
    async fn write(&self, node: NodeId, note: Option<&str>) -> u64 {
        let engine = self.engine(node);
        let mut row = PendingRow::new(engine.state(&self.key()).unwrap());
        let old = row.row(&self.table).unwrap();
        match note {
            Some(note) => {
                let mut new = old.clone().unwrap_or_else(|| new_row("k", 0));
                new[1] = Datum::text(note);
                row.put(&self.table, old.as_deref(), &new).unwrap();
            }
            None => row.delete(),
        }
        let op = row.op().unwrap().clone();
        engine.commit(vec![(self.table.clone(), self.key(), op)]).await.unwrap().seq
    }

    /// One commit arrives at another node.
    async fn send(&self, origin: NodeId, seq: u64, to: NodeId) {
        let batch = self.engine(origin).log.read(origin, seq, seq, 1).unwrap().remove(0);
        self.engine(to).receive(vec![batch]).await.unwrap();
    }

    fn conflicts(&self, node: NodeId) -> Vec<Conflict> {
        self.engine(node).conflicts().unwrap()
    }
}

fn value(side: &Side) -> Option<&Datum> {
    side.values.first().map(|(_, value)| value)
}

/// All nodes have the row.
async fn with_row(policy: ConflictPolicy) -> Nodes {
    let nodes = Nodes::new(policy);
    let seq = nodes.write(1, Some("first")).await;
    nodes.send(1, seq, 2).await;
    nodes.send(1, seq, 3).await;
    nodes
}

#[tokio::test]
async fn the_loser_of_two_concurrent_updates_is_kept_under_the_same_id_everywhere() {
    let nodes = with_row(ConflictPolicy::Lww).await;
    let a = nodes.write(1, Some("a")).await;
    let b = nodes.write(2, Some("b")).await;
    nodes.send(1, a, 2).await;
    nodes.send(2, b, 1).await;
    // At once, in one chunk.
    let both = [(1, a), (2, b)].map(|(o, s)| nodes.engine(o).log.read(o, s, s, 1).unwrap().remove(0));
    nodes.engine(3).receive(both.to_vec()).await.unwrap();
    let (one, two, three) = (nodes.conflicts(1), nodes.conflicts(2), nodes.conflicts(3));
    assert_eq!((one.len(), two.len(), three.len()), (1, 1, 1));
    for found in [&two[0], &three[0]] {
        assert_eq!((found.id, &found.loser, &found.winner), (one[0].id, &one[0].loser, &one[0].winner));
    }
    assert_eq!(one[0].kind, ConflictKind::UpdateOriginDiffers);
    assert!(one[0].winner.hlc >= one[0].loser.hlc);
    assert_eq!(value(&one[0].winner), nodes.note(1).as_ref());
    assert_eq!((one[0].loser.vector.get(1), one[0].loser.vector.get(2)), (1, 0));
    assert_eq!(nodes.engine(1).conflict(one[0].id).unwrap().as_ref(), Some(&one[0]));
    let counts = nodes.engine(1).conflict_counts();
    assert_eq!(counts, [("public".into(), "t".into(), ConflictKind::UpdateOriginDiffers, 1)]);
}

#[tokio::test]
async fn a_write_that_had_seen_the_other_is_no_conflict_in_whatever_order_they_arrive() {
    let nodes = with_row(ConflictPolicy::Lww).await;
    let a = nodes.write(1, Some("a")).await;
    nodes.send(1, a, 2).await;
    let b = nodes.write(2, Some("b")).await;
    nodes.send(2, b, 1).await;
    nodes.send(2, b, 3).await;
    nodes.send(1, a, 3).await;
    assert_eq!(nodes.note(3), Some(Datum::text("b")));
    let a = nodes.write(1, None).await;
    nodes.send(1, a, 2).await;
    for node in 1..=3 {
        assert_eq!(nodes.conflicts(node), [], "node {node}");
    }
}

#[tokio::test]
async fn two_inserts_of_one_key_are_a_conflict_of_what_they_wrote_differently() {
    let nodes = Nodes::new(ConflictPolicy::Lww);
    let a = nodes.write(1, Some("a")).await;
    let b = nodes.write(2, Some("b")).await;
    nodes.send(1, a, 2).await;
    nodes.send(2, b, 1).await;
    let found = nodes.conflicts(1);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(
        (found[0].kind, found[0].column),
        (ConflictKind::InsertExists, Some(nodes.table.columns[1].id))
    );
    assert_eq!(found[0].id, nodes.conflicts(2)[0].id);
}

#[tokio::test]
async fn what_a_concurrent_delete_takes_with_it_is_kept() {
    let nodes = with_row(ConflictPolicy::Lww).await;
    let update = nodes.write(1, Some("a")).await;
    let delete = nodes.write(2, None).await;
    nodes.send(1, update, 2).await;
    nodes.send(2, delete, 1).await;
    assert_eq!((nodes.note(1), nodes.note(2)), (None, None));
    let (one, two) = (nodes.conflicts(1), nodes.conflicts(2));
    assert_eq!((one.len(), one[0].kind), (1, ConflictKind::DeleteOriginDiffers));
    assert_eq!((two.len(), two[0].kind), (1, ConflictKind::UpdateMissing));
    assert_eq!(one[0].id, two[0].id);
    let kept = |found: &Conflict| {
        let note = found.loser.values.iter().find(|(id, _)| *id == nodes.table.columns[1].id);
        note.map(|(_, value)| value.clone())
    };
    assert_eq!((kept(&one[0]), kept(&two[0])), (Some(Datum::text("a")), Some(Datum::text("a"))));
    assert!(one[0].winner.values.is_empty());
    assert_eq!(one[0].winner.origin, 2);
}

#[tokio::test]
async fn a_crash_takes_no_conflict_away() {
    let nodes = with_row(ConflictPolicy::Lww).await;
    let (one, two) = (nodes.write(1, Some("a")).await, nodes.write(2, Some("b")).await);
    nodes.send(1, one, 2).await;
    nodes.send(2, two, 1).await;
    for id in 1..=2 {
        let found = nodes.conflicts(id);
        assert_eq!(found.len(), 1);
        // Nothing is flushed: what a crash leaves is the log.
        let after = loop {
            let copied = tempfile::tempdir().unwrap();
            if copy(nodes.nodes[id as usize - 1].folder.path(), copied.path()).unwrap_or(false) {
                break copied;
            }
        };
        let store = Store::open(after.path(), StoreOptions::default()).unwrap();
        let engine = Engine::open(store, id, Arc::new(Hlc::new(Hlc::DEFAULT_DRIFT))).unwrap();
        assert_eq!(engine.vector(), nodes.engine(id).vector());
        assert_eq!(engine.conflicts().unwrap(), found);
    }
}

#[tokio::test]
async fn a_policy_decides_among_concurrent_writes_and_not_among_others() {
    for (policy, expected) in [
        (ConflictPolicy::Lww, "m"),
        (ConflictPolicy::ErrorLog, "m"),
        (ConflictPolicy::First, "z"),
        (ConflictPolicy::Max, "z"),
        (ConflictPolicy::Min, "b"),
    ] {
        let nodes = with_row(policy).await;
        let mut sent = Vec::new();
        for (node, note) in [(1, "z"), (2, "b"), (3, "m")] {
            sent.push((node, nodes.write(node, Some(note)).await));
            // The clocks' order is the order of the statements.
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        }
        for (origin, seq) in sent {
            for to in 1..=3 {
                nodes.send(origin, seq, to).await;
            }
        }
        for node in 1..=3 {
            assert_eq!(nodes.note(node), Some(Datum::text(expected)), "{policy:?} on node {node}");
        }
        let found = nodes.conflicts(1);
        assert!(!found.is_empty());
        // A last write that wins may lose to one that comes later still, and is then reported itself.
        let lasting = if policy == ConflictPolicy::Lww { &found[found.len() - 1..] } else { &found[..] };
        for conflict in lasting {
            assert_eq!(value(&conflict.winner), Some(&Datum::text(expected)), "{policy:?}: {conflict:#?}");
        }
        // Who has seen them all overwrites them all.
        let seq = nodes.write(1, Some("c")).await;
        nodes.send(1, seq, 2).await;
        assert_eq!(
            (nodes.note(1), nodes.note(2)),
            (Some(Datum::text("c")), Some(Datum::text("c"))),
            "{policy:?}"
        );
    }
}

//! Three replicas of one row, every order of delivery: the properties that `join` must have.
//!
//! A run is a list of actions: a statement on a node, a mixed transaction into the Raft log, a delivery of some
//! delta to some node (perhaps again), a replica applying its next Raft entry, one replica sending its whole
//! state to another. Everything goes through the surface that SQL uses. At the end all that is missing is
//! delivered, and the replicas must be equal.

use std::sync::Arc;

use amphora_storage::schema::{Column, ColumnId, Index, IndexId, Quorum, Replication, Table, TableId};
use amphora_storage::types::Crdt;
use amphora_storage::{DataType, Datum, Row, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

use super::difference::initial;
use super::op::Author;
use super::{GroupIndex, PendingRow, RowOp, RowState, visible};
use crate::NodeId;

pub(super) fn table() -> Arc<Table> {
    let text = || Box::new(DataType::Text);
    let types = [
        ("k", DataType::Text),
        ("a", DataType::Text),
        ("n", DataType::Crdt(Crdt::Counter)),
        ("hi", DataType::Crdt(Crdt::Max(Box::new(DataType::Int4)))),
        ("lo", DataType::Crdt(Crdt::Min(Box::new(DataType::Numeric(None))))),
        ("s", DataType::Crdt(Crdt::Set(text()))),
        ("f", DataType::Crdt(Crdt::Flag)),
        ("g", DataType::Crdt(Crdt::Gcounter)),
        ("m", DataType::Crdt(Crdt::Sum(None))),
        ("rs", DataType::Crdt(Crdt::RemoveSet(text()))),
        ("r", DataType::Crdt(Crdt::Register(text()))),
        ("d", DataType::Crdt(Crdt::Map)),
    ];
    let columns = types.into_iter().enumerate().map(|(i, (name, ty))| Column {
        not_null: false,
        default: None,
        ..Column::new(ColumnId(i as u32 + 1), name, ty)
    });
    let primary = Index::of_constraint(IndexId::PRIMARY, "t_pkey", 1, vec![0]);
    Arc::new(Table {
        id: TableId(16384),
        version: Timestamp::ZERO,
        schema: "public".into(),
        name: "t".into(),
        owner: "amphora".into(),
        replication: Replication::Leaderless,
        columns: columns.collect(),
        primary,
        hidden_key: false,
        indexes: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        comment: None,
        next_column_id: 13,
        next_index_id: 1,
        storage: None,
        write_quorum: Quorum::ONE,
        read_quorum: Quorum::ONE,
    })
}

/// A row of [`table`] as it is inserted.
pub(super) fn new_row(key: &str, n: i64) -> Row {
    let columns = table();
    let mut row: Row = columns.columns.iter().map(|c| initial(&c.ty)).collect();
    row[0] = Datum::text(key);
    row[2] = Datum::Int8(n);
    row
}

/// A statement on the row.
#[derive(Clone, Debug)]
enum Statement {
    Insert,
    Delete,
    Replace,
    Write(u8),
    Add(i8),
    High(i8),
    Low(i8),
    Put(u8),
    Take(u8),
    Enable,
    Disable,
    Grow(u8),
    Pay(i8),
    Admit(u8),
    Ban(u8),
    Choose(u8),
    Edit(u8, u8),
    Erase(u8),
    Reset(u8),
}

#[derive(Clone, Debug)]
enum Action {
    Run(usize, Vec<Statement>),
    Mixed(usize, Vec<Statement>),
    Deliver(usize, prop::sample::Index),
    Apply(usize),
    Transfer(usize, usize),
}

fn statement() -> impl Strategy<Value = Statement> {
    prop_oneof![
        2 => Just(Statement::Insert),
        1 => Just(Statement::Delete),
        1 => Just(Statement::Replace),
        2 => (0u8..4).prop_map(Statement::Write),
        3 => any::<i8>().prop_map(Statement::Add),
        1 => any::<i8>().prop_map(Statement::High),
        1 => any::<i8>().prop_map(Statement::Low),
        3 => (0u8..3).prop_map(Statement::Put),
        2 => (0u8..3).prop_map(Statement::Take),
        1 => Just(Statement::Enable),
        1 => Just(Statement::Disable),
        1 => any::<u8>().prop_map(Statement::Grow),
        2 => any::<i8>().prop_map(Statement::Pay),
        3 => (0u8..3).prop_map(Statement::Admit),
        2 => (0u8..3).prop_map(Statement::Ban),
        2 => (0u8..3).prop_map(Statement::Choose),
        4 => (0u8..6, 0u8..3).prop_map(|(path, v)| Statement::Edit(path, v)),
        2 => (0u8..6).prop_map(Statement::Erase),
        1 => (2u8..12).prop_map(Statement::Reset),
    ]
}

/// Paths that stand in each other's way, and such that do not.
const PATHS: [&[&str]; 6] = [&["a"], &["a", "b"], &["a", "c"], &["b"], &["b", "c", "d"], &["c"]];

/// `jsonb_set` that makes objects on its way, and `#-`.
fn edited(document: &Datum, path: &[&str], value: Option<serde_json::Value>) -> Datum {
    let Datum::Jsonb(json) = document else { panic!("not a document: {document:?}") };
    let mut root = json.0.clone();
    let (last, way) = path.split_last().unwrap();
    let mut at = &mut root;
    for key in way {
        if !at.get(key).is_some_and(serde_json::Value::is_object) {
            if value.is_none() {
                return document.clone();
            }
            at.as_object_mut().unwrap().insert((*key).to_owned(), serde_json::json!({}));
        }
        at = at.get_mut(key).unwrap();
    }
    let object = at.as_object_mut().unwrap();
    match value {
        Some(value) => object.insert((*last).to_owned(), value),
        None => object.remove(*last),
    };
    Datum::jsonb(amphora_storage::Json(root))
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0usize..3, vec(statement(), 1..4)).prop_map(|(n, s)| Action::Run(n, s)),
        2 => (0usize..3, vec(statement(), 1..3)).prop_map(|(n, s)| Action::Mixed(n, s)),
        6 => (0usize..3, any::<prop::sample::Index>()).prop_map(|(n, i)| Action::Deliver(n, i)),
        2 => (0usize..3).prop_map(Action::Apply),
        1 => (0usize..3, 0usize..3).prop_map(|(a, b)| Action::Transfer(a, b)),
    ]
}

/// What one transaction of these statements does to the row that `state` shows.
fn plan(state: &RowState, statements: &[Statement]) -> Option<RowOp> {
    let table = table();
    let mut row = PendingRow::new(Some(state.clone()));
    for statement in statements {
        let old = row.row(&table).unwrap();
        let Some(mut new) = old.clone() else {
            if matches!(statement, Statement::Insert) {
                row.put(&table, None, &new_row("k", 0)).unwrap();
            }
            continue;
        };
        let edit_set = |d: &Datum, f: &dyn Fn(&mut Vec<Datum>)| {
            let Datum::Array(a) = d else { panic!("not a set: {d:?}") };
            let mut items = a.items.clone();
            f(&mut items);
            Datum::array(DataType::Text, items)
        };
        match statement {
            Statement::Insert => continue,
            Statement::Delete => {
                row.delete();
                continue;
            }
            Statement::Replace => {
                row.delete();
                row.put(&table, None, &new_row("k", 1)).unwrap();
                continue;
            }
            Statement::Write(v) => new[1] = if *v == 0 { Datum::Null } else { Datum::text(v.to_string()) },
            Statement::Add(n) => new[2] = Datum::Int8(new[2].as_i64().unwrap() + i64::from(*n)),
            Statement::High(n) => new[3] = Datum::Int4(i32::from(*n)),
            Statement::Low(n) => new[4] = Datum::numeric(amphora_storage::Numeric::from(i64::from(*n))),
            Statement::Put(v) => new[5] = edit_set(&new[5], &|s| s.push(Datum::text(v.to_string()))),
            Statement::Take(v) => {
                new[5] = edit_set(&new[5], &|s| s.retain(|d| *d != Datum::text(v.to_string())));
            }
            Statement::Enable => new[6] = Datum::Bool(true),
            Statement::Disable => new[6] = Datum::Bool(false),
            Statement::Grow(n) => new[7] = Datum::Int8(new[7].as_i64().unwrap() + i64::from(*n)),
            Statement::Pay(n) => {
                let Datum::Numeric(sum) = &new[8] else { panic!("not a sum: {:?}", new[8]) };
                let paid = bigdecimal::BigDecimal::new(i64::from(*n).into(), i64::from(*n % 3).abs());
                new[8] = Datum::numeric(amphora_storage::Numeric::finite(sum.as_finite().unwrap() + paid));
            }
            Statement::Admit(v) => new[9] = edit_set(&new[9], &|s| s.push(Datum::text(v.to_string()))),
            Statement::Ban(v) => {
                new[9] = edit_set(&new[9], &|s| s.retain(|d| *d != Datum::text(v.to_string())));
            }
            Statement::Choose(v) => {
                new[10] = Datum::array(DataType::Text, vec![Datum::text(v.to_string())]);
            }
            Statement::Edit(path, v) => {
                let value = if *v == 0 { serde_json::json!({}) } else { serde_json::json!(v) };
                new[11] = edited(&new[11], PATHS[usize::from(*path)], Some(value));
            }
            Statement::Erase(path) => new[11] = edited(&new[11], PATHS[usize::from(*path)], None),
            Statement::Reset(column) => {
                let column = usize::from(*column);
                new[column] = initial(&table.columns[column].ty);
                row.reset(&table, &[column]);
            }
        }
        row.put(&table, old.as_deref(), &new).unwrap();
    }
    row.op().cloned()
}

fn author(node: usize, clock: u64) -> Author {
    Author { origin: node as NodeId + 1, seq: clock, hlc: Timestamp(clock) }
}

/// Three replicas, all deltas ever made, and the Raft log.
#[derive(Default)]
struct Cluster {
    replicas: [RowState; 3],
    applied: [usize; 3],
    deltas: Vec<RowState>,
    log: Vec<RowOp>,
    clock: u64,
    /// Every state a replica has been in
    history: Vec<RowState>,
}

impl Cluster {
    fn run(actions: &[Action]) -> Cluster {
        let mut cluster = Cluster::default();
        for action in actions {
            cluster.act(action);
        }
        cluster
    }

    fn commit(&mut self, node: usize, statements: &[Statement]) {
        if let Some(op) = plan(&self.replicas[node], statements) {
            self.clock += 1;
            let delta = op.resolve(&self.replicas[node], author(node, self.clock));
            self.replicas[node].join(&delta);
            self.deltas.push(delta);
        }
    }

    fn apply(&mut self, node: usize) {
        if let Some(op) = self.log.get(self.applied[node]) {
            self.applied[node] += 1;
            // Two transactions an entry.
            let at = self.applied[node] as u64;
            let at = GroupIndex { log_index: 1 + at / 2, commit: Timestamp(at) };
            op.apply_group(&mut self.replicas[node], at);
            // A crash replays the last entry.
            let once = self.replicas[node].clone();
            op.apply_group(&mut self.replicas[node], at);
            assert_eq!(once, self.replicas[node]);
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Run(node, statements) => self.commit(*node, statements),
            Action::Mixed(node, statements) => {
                self.log.extend(plan(&self.replicas[*node], statements));
            }
            Action::Deliver(node, which) => {
                if !self.deltas.is_empty() {
                    let delta = which.get(&self.deltas);
                    self.replicas[*node].join(delta);
                }
            }
            Action::Apply(node) => self.apply(*node),
            Action::Transfer(from, to) => {
                let state = self.replicas[*from].clone();
                self.replicas[*to].join(&state);
                // What comes with a transfer may be ahead of the receiver's own log.
            }
        }
        self.history.extend(self.replicas.iter().cloned());
    }

    /// Delivers everything to everyone, each replica in an order of its own.
    fn heal(&mut self) -> RowState {
        for node in 0..3 {
            let n = self.deltas.len();
            for i in 0..n {
                let i = match node {
                    0 => i,
                    1 => n - 1 - i,
                    _ => (i * 7 + 3) % n,
                };
                self.replicas[node].join(&self.deltas[i].clone());
                if i % 3 == node {
                    self.apply(node);
                }
            }
            for delta in &self.deltas {
                self.replicas[node].join(delta);
            }
            while self.applied[node] < self.log.len() {
                self.apply(node);
            }
        }
        for other in &self.replicas[1..] {
            assert_eq!(&self.replicas[0], other);
            // Equal to the letter: SQL's `=` does not tell 1.0 from 1.00.
            assert_eq!(format!("{:?}", self.replicas[0]), format!("{other:?}"));
        }
        self.replicas[0].clone()
    }
}

fn joined(a: &RowState, b: &RowState) -> RowState {
    let mut out = a.clone();
    out.join(b);
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn join_is_associative_commutative_and_idempotent(
        actions in vec(action(), 1..30),
        picks in vec(any::<[prop::sample::Index; 3]>(), 12),
    ) {
        let cluster = Cluster::run(&actions);
        let all: Vec<&RowState> = cluster.history.iter().chain(&cluster.deltas).collect();
        for [a, b, c] in picks {
            let (a, b, c) = (*a.get(&all), *b.get(&all), *c.get(&all));
            prop_assert_eq!(joined(a, b), joined(b, a));
            prop_assert_eq!(joined(&joined(a, b), c), joined(a, &joined(b, c)));
            prop_assert_eq!(&joined(a, a), a);
            prop_assert_eq!(&joined(&joined(a, b), b), &joined(a, b));
            prop_assert_eq!(&joined(&RowState::default(), a), a);
        }
    }

    #[test]
    fn replicas_converge_whatever_the_order(actions in vec(action(), 1..60)) {
        let state = Cluster::run(&actions).heal();
        visible(&table(), &state).unwrap();
    }

    #[test]
    fn counters_lose_no_increment(
        rounds in vec((0usize..3, any::<i8>(), any::<bool>(), 0usize..3, any::<prop::sample::Index>()), 1..60),
    ) {
        let mut cluster = Cluster::default();
        cluster.commit(0, &[Statement::Insert]);
        let born = cluster.replicas[0].clone();
        cluster.replicas = [born.clone(), born.clone(), born];
        let mut sum = 0i64;
        for (node, n, mixed, to, which) in rounds {
            let add = vec![Statement::Add(n)];
            cluster.act(&if mixed { Action::Mixed(node, add) } else { Action::Run(node, add) });
            cluster.act(&Action::Deliver(to, which));
            if mixed {
                cluster.act(&Action::Apply(to));
            }
            sum += i64::from(n);
        }
        let row = visible(&table(), &cluster.heal()).unwrap().unwrap();
        prop_assert_eq!(&row[2], &Datum::Int8(sum));
    }

    #[test]
    fn states_survive_their_encoding(actions in vec(action(), 1..30)) {
        let cluster = Cluster::run(&actions);
        for state in cluster.history.iter().chain(&cluster.deltas) {
            let bytes = amphora_storage::codec::encode(state);
            prop_assert_eq!(&amphora_storage::codec::decode::<RowState>(&bytes).unwrap(), state);
        }
        for op in &cluster.log {
            let bytes = amphora_storage::codec::encode(op);
            prop_assert_eq!(&amphora_storage::codec::decode::<RowOp>(&bytes).unwrap(), op);
        }
    }
}

/// A cluster whose replicas all hold the row, with this set and flag.
fn with_row(statements: &[Statement]) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.commit(0, &[Statement::Insert]);
    cluster.commit(0, statements);
    let state = cluster.replicas[0].clone();
    cluster.replicas = [state.clone(), state.clone(), state];
    cluster
}

fn read(state: &RowState) -> Option<Row> {
    visible(&table(), state).unwrap()
}

#[test]
fn deletes_of_three_origins_at_once_converge() {
    let mut cluster = with_row(&[]);
    for node in 0..3 {
        cluster.commit(node, &[Statement::Delete]);
    }
    assert_eq!(read(&cluster.heal()), None);
    // And all three insert it again, at the very same time.
    for node in 0..3 {
        cluster.clock = 100;
        cluster.commit(node, &[Statement::Insert, Statement::Write(node as u8 + 1)]);
    }
    let row = read(&cluster.heal()).unwrap();
    assert_eq!(row[1], Datum::text("3"), "equal clocks are decided by the origin");
}

#[test]
fn a_delete_beats_concurrent_updates_and_an_insert_beats_the_delete() {
    let mut cluster = with_row(&[Statement::Add(5), Statement::Put(1)]);
    cluster.commit(0, &[Statement::Delete]);
    cluster.commit(1, &[Statement::Add(1), Statement::Write(2)]);
    assert_eq!(read(&cluster.heal()), None);
    cluster.commit(2, &[Statement::Insert]);
    cluster.commit(1, &[Statement::Delete]);
    let row = read(&cluster.heal()).unwrap();
    assert_eq!(row, new_row("k", 0), "nothing of the old generation is left");
}

#[test]
fn an_addition_wins_over_a_concurrent_removal() {
    let mut cluster = with_row(&[Statement::Put(1), Statement::Put(2)]);
    cluster.commit(0, &[Statement::Take(1), Statement::Take(2)]);
    cluster.commit(1, &[Statement::Put(1)]);
    let row = read(&cluster.heal()).unwrap();
    assert_eq!(row[5], Datum::array(DataType::Text, vec![Datum::text("1")]));
    // A removal that has seen all additions takes the element out.
    cluster.commit(2, &[Statement::Take(1)]);
    assert_eq!(read(&cluster.heal()).unwrap()[5], Datum::array(DataType::Text, vec![]));
}

#[test]
fn an_enable_wins_over_a_concurrent_disable() {
    let mut cluster = with_row(&[Statement::Enable]);
    cluster.commit(0, &[Statement::Disable]);
    cluster.commit(1, &[Statement::Disable]);
    cluster.commit(1, &[Statement::Enable]);
    assert_eq!(read(&cluster.heal()).unwrap()[6], Datum::Bool(true));
    cluster.commit(2, &[Statement::Disable]);
    assert_eq!(read(&cluster.heal()).unwrap()[6], Datum::Bool(false));
}

#[test]
fn an_update_that_overtakes_its_insert_waits_for_it() {
    let mut cluster = Cluster::default();
    cluster.commit(0, &[Statement::Insert]);
    let insert = cluster.deltas[0].clone();
    cluster.replicas[1].join(&insert);
    cluster.commit(1, &[Statement::Add(3)]);
    let update = cluster.deltas[1].clone();
    cluster.replicas[2].join(&update);
    assert_eq!(read(&cluster.replicas[2]), None);
    cluster.replicas[2].join(&insert);
    assert_eq!(read(&cluster.replicas[2]).unwrap()[2], Datum::Int8(3));
}

#[test]
fn the_groups_dots_do_not_depend_on_when_a_removal_arrives() {
    let mut cluster = with_row(&[]);
    cluster.act(&Action::Mixed(0, vec![Statement::Put(1)]));
    cluster.act(&Action::Mixed(0, vec![Statement::Put(2)]));
    cluster.apply(0);
    cluster.commit(0, &[Statement::Take(1)]);
    let removal = cluster.deltas.last().unwrap().clone();
    // Before the entry that added what it removes.
    cluster.replicas[1].join(&removal);
    let row = read(&cluster.heal()).unwrap();
    assert_eq!(row[5], Datum::array(DataType::Text, vec![Datum::text("2")]));
}

#[test]
fn counters_beyond_a_bigint_are_an_error_and_not_a_wrap() {
    let mut cluster = Cluster::default();
    let op = RowOp {
        cl: 1,
        insert: true,
        must_not_exist: false,
        cells: vec![(ColumnId(3), super::CellOp::Add(i128::from(i64::MAX)))],
    };
    for node in 0..2 {
        let delta = op.resolve(&cluster.replicas[node], author(node, 1));
        cluster.deltas.push(delta);
    }
    assert_eq!(visible(&table(), &cluster.heal()).unwrap_err().sqlstate, "22003");
}

#[test]
fn a_statement_that_read_an_older_row_writes_only_what_it_changed() {
    let table = table();
    let mut cluster = with_row(&[Statement::Add(5), Statement::Put(1)]);
    let old = read(&cluster.replicas[0]).unwrap();
    let mut new = old.clone();
    new[2] = Datum::Int8(6);
    new[5] = Datum::array(DataType::Text, vec![Datum::text("1"), Datum::text("2")]);
    // Another session commits between the read and the write.
    cluster.commit(0, &[Statement::Add(10), Statement::Put(3), Statement::Write(1)]);
    let mut row = PendingRow::new(Some(cluster.replicas[0].clone()));
    row.put(&table, Some(&old), &new).unwrap();
    let row = row.row(&table).unwrap().unwrap();
    assert_eq!((&row[1], &row[2]), (&Datum::text("1"), &Datum::Int8(16)));
    let set = ["1", "2", "3"].map(Datum::text);
    assert_eq!(row[5], Datum::array(DataType::Text, set.into()));
    // And one that is deleted meanwhile stays deleted.
    cluster.commit(0, &[Statement::Delete]);
    let mut row = PendingRow::new(Some(cluster.replicas[0].clone()));
    row.put(&table, Some(&old), &new).unwrap();
    assert_eq!(row.op(), None);
}

#[test]
fn an_insert_of_a_row_that_came_to_be_meanwhile_stays_an_insert() {
    let cluster = with_row(&[]);
    let mut row = PendingRow::new(Some(cluster.replicas[0].clone()));
    row.put(&table(), None, &new_row("k", 1)).unwrap();
    assert!(row.op().unwrap().must_not_exist);
}

#[test]
fn a_counter_to_which_three_nodes_add_is_small() {
    let mut described = (*table()).clone();
    described.columns.truncate(3);
    let mut state = RowState::default();
    let hlc = Timestamp::from_millis(1_800_000_000_000);
    for origin in 1..=3 {
        let mut row = PendingRow::new(Some(state.clone()));
        let old = row.row(&described).unwrap();
        let mut new = old.clone().unwrap_or_else(|| new_row("/a/page/of/a/site", 0)[..3].to_vec());
        new[2] = Datum::Int8(new[2].as_i64().unwrap() + 12_345_678);
        row.put(&described, old.as_deref(), &new).unwrap();
        let mut delta = row.op().unwrap().resolve(&state, Author { origin, seq: 1_000_000, hlc });
        if let Some(super::cell::Cell::Counter(counter)) = delta.cells.get_mut(&ColumnId(3)) {
            counter.shares.values_mut().for_each(|share| share.version = 1_000_000);
        }
        state.join(&delta);
    }
    let key = amphora_storage::key::row_key_of(&described, &new_row("/a/page/of/a/site", 0)).unwrap();
    let bytes = key.len() + amphora_storage::codec::encode(&state).len();
    assert!(bytes <= 120, "{bytes} bytes");
}

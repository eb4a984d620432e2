//! Random histories of one mergeable column, against what its type means.
//!
//! Two to five nodes write one row. Every write becomes a delta that reaches the others in any order, several
//! times, or only at the very end (lost, and sent again). Beside them a plain list remembers each write and
//! which writes its author had seen. At the end all nodes must be equal to the letter and read what the list
//! says: where nobody wrote at the same time, that is what the statements say one after the other.
//!
//! ```text
//!   node 1    + x ───────────────► reads {x}
//!   node 2         − x (saw it) ─►                     an add-wins set:    x is out, nobody else put it in
//!   node 3    + x (saw nothing)  ─►                    …but this one did:  x is in
//! ```

use std::collections::{BTreeMap, BTreeSet};

use amphora_storage::schema::{Column, ColumnId, Table};
use amphora_storage::types::Crdt;
use amphora_storage::{DataType, Datum, Json, Numeric, Timestamp, codec};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::difference::initial;
use super::op::Author;
use super::{PendingRow, RowState, convergence, visible};
use crate::NodeId;

/// Histories of each type; there are eleven.
const HISTORIES: u64 = 10_000;

/// What a write does, as its author means it.
#[derive(Clone, Debug)]
enum Write {
    Add(i64),
    Value(i64),
    Put(i64),
    Take(i64),
    Under(String, i64),
    Erase(String),
    Reset,
}

/// A write that was made.
struct Event {
    author: usize,
    write: Write,
    /// The writes that its author had seen, as bits
    seen: u64,
    /// What the author read
    before: Datum,
}

fn table_of(ty: &DataType) -> Table {
    let mut table = (*convergence::table()).clone();
    table.columns.truncate(1);
    table.columns.push(Column::new(ColumnId(2), "c", ty.clone()));
    table
}

fn number(v: &Datum) -> i64 {
    match v {
        Datum::Numeric(n) => n.to_string().parse().unwrap(),
        other => other.as_i64().unwrap(),
    }
}

fn numbers(v: &Datum) -> Vec<i64> {
    let Datum::Array(array) = v else { panic!("not an array: {v:?}") };
    array.items.iter().map(number).collect()
}

fn array(items: impl IntoIterator<Item = i64>) -> Datum {
    Datum::array(DataType::Int8, items.into_iter().map(Datum::Int8).collect())
}

fn document(v: &Datum) -> serde_json::Map<String, Value> {
    let Datum::Jsonb(json) = v else { panic!("not a document: {v:?}") };
    json.0.as_object().unwrap().clone()
}

fn like(ty: &DataType, n: i64) -> Datum {
    match ty {
        DataType::Crdt(Crdt::Sum(_)) => Datum::numeric(Numeric::from(n)),
        _ => Datum::Int8(n),
    }
}

/// The statement's new value: what SQL would compute from the one it read.
fn assigned(ty: &DataType, old: &Datum, write: &Write) -> Datum {
    match write {
        Write::Reset => initial(ty),
        Write::Add(n) => like(ty, number(old) + n),
        Write::Value(n) if matches!(ty, DataType::Crdt(Crdt::Register(_))) => array([*n]),
        Write::Value(n) if matches!(ty, DataType::Crdt(Crdt::Flag)) => Datum::Bool(*n != 0),
        Write::Value(n) => like(ty, *n),
        Write::Put(n) => array(numbers(old).into_iter().chain([*n])),
        Write::Take(n) => array(numbers(old).into_iter().filter(|v| v != n)),
        Write::Under(key, n) => {
            let mut object = document(old);
            object.insert(key.clone(), Value::from(*n));
            Datum::jsonb(Json(Value::Object(object)))
        }
        Write::Erase(key) => {
            let mut object = document(old);
            object.remove(key);
            Datum::jsonb(Json(Value::Object(object)))
        }
    }
}

fn random_write(ty: &DataType, rng: &mut StdRng) -> Write {
    let DataType::Crdt(crdt) = ty else { return Write::Value(rng.random_range(0..5)) };
    if rng.random_ratio(1, 12) {
        return Write::Reset;
    }
    match crdt {
        Crdt::Gcounter => Write::Add(rng.random_range(1..100)),
        Crdt::Counter | Crdt::Sum(_) => Write::Add(rng.random_range(-100..100)),
        Crdt::Max(_) | Crdt::Min(_) => Write::Value(rng.random_range(-20..20)),
        Crdt::Set(_) | Crdt::RemoveSet(_) => match rng.random_range(0..5) {
            0..3 => Write::Put(rng.random_range(0..3)),
            _ => Write::Take(rng.random_range(0..3)),
        },
        Crdt::Flag => Write::Value(rng.random_range(0..2)),
        Crdt::Register(_) => Write::Value(rng.random_range(0..4)),
        Crdt::Map => {
            let key = ["a", "b"][rng.random_range(0..2)].to_owned();
            if rng.random_ratio(1, 3) { Write::Erase(key) } else { Write::Under(key, rng.random_range(0..5)) }
        }
    }
}

/// What the type makes of the writes. Events are in the order of their clocks.
fn meaning(ty: &DataType, events: &[Event]) -> Datum {
    let seen_by_later = |i: usize, by: &dyn Fn(&Event) -> bool| {
        events.iter().any(|later| later.seen & (1 << i) != 0 && by(later))
    };
    let is_reset = |e: &Event| matches!(e.write, Write::Reset);
    let DataType::Crdt(crdt) = ty else {
        return events.last().map_or(Datum::Null, |e| assigned(ty, &e.before, &e.write));
    };
    match crdt {
        Crdt::Counter | Crdt::Gcounter | Crdt::Sum(_) => {
            // Who has seen an author's total has seen all that led to it.
            let seen = |reset: &Event, i: usize| {
                let from = |j: usize| j >= i && events[j].author == events[i].author;
                (0..events.len()).any(|j| reset.seen & (1 << j) != 0 && from(j))
            };
            let total = events.iter().enumerate().map(|(i, e)| match e.write {
                Write::Add(n) if !events.iter().any(|r| is_reset(r) && seen(r, i)) => n,
                _ => 0,
            });
            like(ty, total.sum())
        }
        Crdt::Max(_) | Crdt::Min(_) => {
            // A reset takes the place of all that has not seen it.
            let epoch = |e: &Event| {
                let mut epochs = vec![0_u64; events.len()];
                for (i, event) in events.iter().enumerate() {
                    let seen = (0..i).filter(|j| event.seen & (1 << j) != 0).map(|j| epochs[j]).max();
                    epochs[i] = seen.unwrap_or(0) + u64::from(is_reset(event));
                    if std::ptr::eq(event, e) {
                        return epochs[i];
                    }
                }
                0
            };
            let last = events.iter().map(epoch).max().unwrap_or(0);
            let values = events.iter().filter(|e| epoch(e) == last).filter_map(|e| match e.write {
                Write::Value(n) => Some(n),
                _ => None,
            });
            let value = if matches!(crdt, Crdt::Max(_)) { values.max() } else { values.min() };
            value.map_or(Datum::Null, Datum::Int8)
        }
        Crdt::Set(_) => array((0..3).filter(|x| {
            let puts = |e: &Event| matches!(e.write, Write::Put(y) if y == *x);
            let takes = |e: &Event| is_reset(e) || matches!(e.write, Write::Take(y) if y == *x);
            // An author's later addition of an element stands for the earlier ones.
            let seen = |taker: &Event, i: usize| {
                let stands_for_it =
                    |j: usize| j >= i && events[j].author == events[i].author && puts(&events[j]);
                (0..events.len()).any(|j| taker.seen & (1 << j) != 0 && stands_for_it(j))
            };
            let taken = |i: usize| events.iter().any(|taker| takes(taker) && seen(taker, i));
            events.iter().enumerate().any(|(i, e)| puts(e) && !taken(i))
        })),
        Crdt::RemoveSet(_) => array((0..3).filter(|x| {
            let about = |e: &Event| matches!(e.write, Write::Put(y) | Write::Take(y) if y == *x);
            let standing: Vec<&Event> = events
                .iter()
                .enumerate()
                .filter(|(i, e)| about(e) && !seen_by_later(*i, &|l| is_reset(l) || about(l)))
                .map(|(_, e)| e)
                .collect();
            !standing.is_empty() && standing.iter().all(|e| matches!(e.write, Write::Put(_)))
        })),
        Crdt::Flag => Datum::Bool(events.iter().enumerate().any(|(i, e)| {
            matches!(e.write, Write::Value(1))
                && !seen_by_later(i, &|l| is_reset(l) || matches!(l.write, Write::Value(0)))
        })),
        Crdt::Register(_) => {
            let standing = events.iter().enumerate().filter(|(i, _)| !seen_by_later(*i, &|_| true));
            let values: BTreeSet<i64> = standing
                .filter_map(|(_, e)| match e.write {
                    Write::Value(n) => Some(n),
                    _ => None,
                })
                .collect();
            array(values)
        }
        Crdt::Map => {
            let mut object: BTreeMap<&str, i64> = BTreeMap::new();
            for (i, e) in events.iter().enumerate() {
                let about = |l: &Event, key: &str| {
                    is_reset(l) || matches!(&l.write, Write::Under(k, _) | Write::Erase(k) if k == key)
                };
                if let Write::Under(key, n) = &e.write
                    && !seen_by_later(i, &|l| about(l, key))
                {
                    object.insert(key, *n);
                }
            }
            let object = object.into_iter().map(|(k, v)| (k.to_owned(), Value::from(v)));
            Datum::jsonb(Json(Value::Object(object.collect())))
        }
    }
}

struct Node {
    state: RowState,
    /// The writes it has seen, as bits
    seen: u64,
}

fn run(ty: &DataType, seed: u64) -> std::result::Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let table = table_of(ty);
    // In a history of one after the other everyone hears of everything at once.
    let sequential = rng.random_ratio(1, 5);
    let mut insert = PendingRow::new(None::<RowState>);
    let row = vec![Datum::text("k"), Datum::Null];
    insert.put(&table, None, &row).map_err(|e| e.to_string())?;
    let op = insert.op().cloned().ok_or("the insert inserts nothing")?;
    let born = op.resolve(&RowState::default(), Author { origin: 9, seq: 1, hlc: Timestamp(1) });
    let mut nodes: Vec<Node> =
        (0..rng.random_range(2..=5)).map(|_| Node { state: born.clone(), seen: 0 }).collect();
    let (mut events, mut deltas): (Vec<Event>, Vec<RowState>) = (Vec::new(), Vec::new());
    for _ in 0..rng.random_range(1..16) {
        let at = rng.random_range(0..nodes.len());
        let node = &mut nodes[at];
        let old = visible(&table, &node.state).map_err(|e| e.to_string())?.ok_or("the row is gone")?;
        let write = random_write(ty, &mut rng);
        let mut new = old.clone();
        new[1] = assigned(ty, &old[1], &write);
        let mut pending = PendingRow::new(Some(node.state.clone()));
        if matches!(write, Write::Reset) {
            pending.reset(&table, &[1]);
        }
        pending.put(&table, Some(&old), &new).map_err(|e| format!("{write:?} of {old:?}: {e}"))?;
        if let Some(op) = pending.op() {
            let clock = events.len() as u64 + 2;
            let author = Author { origin: at as NodeId + 1, seq: clock, hlc: Timestamp(clock) };
            let delta = op.resolve(&node.state, author);
            node.state.join(&delta);
            let bit = 1 << events.len();
            events.push(Event { author: at, write, seen: node.seen, before: old[1].clone() });
            node.seen |= bit;
            deltas.push(delta);
        }
        if sequential {
            for node in &mut nodes {
                if let Some(delta) = deltas.last() {
                    node.state.join(delta);
                    node.seen = (1 << events.len()) - 1;
                }
            }
            let expected = meaning(ty, &events);
            let plain = events.last().map(|e| assigned(ty, &e.before, &e.write));
            let read = visible(&table, &nodes[0].state).map_err(|e| e.to_string())?;
            let read = read.ok_or("the row is gone")?[1].clone();
            if read != expected {
                return Err(format!("one after the other: {read:?}, not {expected:?}"));
            }
            // And, but for types that have a say in it, that is what the last statement wrote.
            if let (Some(plain), false) = (plain, matches!(ty, DataType::Crdt(Crdt::Max(_) | Crdt::Min(_))))
                && !sets_alike(&plain, &read)
            {
                return Err(format!("wrote {plain:?}, and {read:?} is read"));
            }
        }
        // Some deltas arrive somewhere, perhaps again; sometimes a whole state does.
        for _ in 0..rng.random_range(0..4) {
            let to = rng.random_range(0..nodes.len());
            if rng.random_ratio(1, 6) {
                let from = rng.random_range(0..nodes.len());
                let (state, seen) = (nodes[from].state.clone(), nodes[from].seen);
                nodes[to].state.join(&state);
                nodes[to].seen |= seen;
            } else if !deltas.is_empty() {
                let which = rng.random_range(0..deltas.len());
                nodes[to].state.join(&deltas[which]);
                nodes[to].seen |= 1 << which;
            }
        }
    }
    laws(&nodes, &deltas, &mut rng)?;
    for node in &mut nodes {
        let mut order: Vec<usize> = (0..deltas.len()).collect();
        for i in 0..order.len() {
            let j = rng.random_range(0..order.len());
            order.swap(i, j);
        }
        order.iter().for_each(|&i| node.state.join(&deltas[i]));
    }
    let first = codec::encode(&nodes[0].state);
    if nodes.iter().any(|n| codec::encode(&n.state) != first) {
        let states: Vec<&RowState> = nodes.iter().map(|n| &n.state).collect();
        return Err(format!("the nodes differ: {states:#?}"));
    }
    let read = visible(&table, &nodes[0].state).map_err(|e| e.to_string())?.ok_or("the row is gone")?;
    let expected = meaning(ty, &events);
    if read[1] != expected {
        let events: Vec<_> = events.iter().map(|e| (&e.write, format!("{:b}", e.seen))).collect();
        return Err(format!("{:?} is read, not {expected:?}, after {events:#?}", read[1]));
    }
    Ok(())
}

/// The same, but for the order of a set and elements that were put in twice.
fn sets_alike(a: &Datum, b: &Datum) -> bool {
    match (a, b) {
        (Datum::Array(a), Datum::Array(b)) => {
            a.items.iter().collect::<BTreeSet<_>>() == b.items.iter().collect::<BTreeSet<_>>()
        }
        (a, b) => a == b,
    }
}

/// Associative, commutative, idempotent, to the letter.
fn laws(nodes: &[Node], deltas: &[RowState], rng: &mut StdRng) -> std::result::Result<(), String> {
    let all: Vec<&RowState> = nodes.iter().map(|n| &n.state).chain(deltas).collect();
    let mut pick = || all[rng.random_range(0..all.len())];
    let (a, b, c) = (pick(), pick(), pick());
    let joined = |a: &RowState, b: &RowState| {
        let mut out = a.clone();
        out.join(b);
        out
    };
    let law = |name: &str, x: &RowState, y: &RowState| {
        (codec::encode(x) == codec::encode(y)).then_some(()).ok_or(format!("not {name}: {x:#?}\n{y:#?}"))
    };
    let ab = joined(a, b);
    law("commutative", &ab, &joined(b, a))?;
    law("associative", &joined(&ab, c), &joined(a, &joined(b, c)))?;
    law("idempotent", &joined(&ab, b), &ab)?;
    law("idempotent", &joined(a, a), a)
}

fn check(ty: DataType) {
    let given = std::env::var("AMPHORA_SEED").ok().and_then(|s| s.parse::<u64>().ok());
    let first = given.unwrap_or_else(|| rand::rng().random());
    let count = if given.is_some() { 1 } else { HISTORIES };
    for seed in (0..count).map(|i| first.wrapping_add(i)) {
        if let Err(why) = run(&ty, seed) {
            panic!("AMPHORA_SEED={seed}, a history of {ty}: {why}");
        }
    }
}

fn integers() -> Box<DataType> {
    Box::new(DataType::Int8)
}

#[test]
fn an_ordinary_column_shows_the_last_write() {
    check(DataType::Int8);
}

#[test]
fn a_counter_is_the_sum_of_all_additions() {
    check(DataType::Crdt(Crdt::Counter));
}

#[test]
fn a_growing_counter_is_the_sum_of_all_additions() {
    check(DataType::Crdt(Crdt::Gcounter));
}

#[test]
fn a_decimal_sum_is_the_sum_of_all_additions() {
    check(DataType::Crdt(Crdt::Sum(None)));
}

#[test]
fn a_maximum_and_a_minimum_are_of_all_since_the_last_reset() {
    check(DataType::Crdt(Crdt::Max(integers())));
    check(DataType::Crdt(Crdt::Min(integers())));
}

#[test]
fn a_set_keeps_every_addition_that_nobody_saw_and_removed() {
    check(DataType::Crdt(Crdt::Set(integers())));
}

#[test]
fn a_remove_wins_set_keeps_what_no_standing_removal_names() {
    check(DataType::Crdt(Crdt::RemoveSet(integers())));
}

#[test]
fn a_flag_is_up_while_an_enable_stands() {
    check(DataType::Crdt(Crdt::Flag));
}

#[test]
fn a_register_shows_all_writes_that_no_other_has_seen() {
    check(DataType::Crdt(Crdt::Register(integers())));
}

#[test]
fn a_map_merges_key_by_key() {
    check(DataType::Crdt(Crdt::Map));
}

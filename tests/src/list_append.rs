//! Histories of transactions that append to lists and read them, and what they give away (Kingsbury and Alvaro,
//! "Elle", VLDB 2020).
//!
//! Every value is appended once, so a list that was read says who wrote it, in which order, and who came after
//! the reader:
//!
//! ```text
//!   read [1 2]          1 ──ww──► 2 ──ww──► 3       order of the writers, by the longest list
//!   read [1 2 3]            wr │       ▲
//!                              ▼       │ rw          the reader saw 2 and not 3: it comes between them
//!                            reader ───┘
//! ```
//!
//! | anomaly | a cycle of | forbidden from |
//! |---|---|---|
//! | G0 | write-write | READ COMMITTED |
//! | G1a, G1b | (a read of what was rolled back, or overwritten by its own writer) | READ COMMITTED |
//! | G1c | write-write and write-read | READ COMMITTED |
//! | G-single | these and one read-write | REPEATABLE READ |
//! | G2 | any, and "ended before it began" | SERIALIZABLE |

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// A key of a list.
pub type Key = i32;
/// A value, appended once.
pub type Value = i64;

/// What a transaction did, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Appended to a list
    Append(Key, Value),
    /// Saw a list
    Read(Key, Vec<Value>),
}

/// What is known of a transaction's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Acknowledged
    Committed,
    /// Refused, or never asked to commit
    Aborted,
    /// The answer was lost
    Unknown,
}

/// A transaction of a history.
#[derive(Clone, Debug)]
pub struct Tx {
    /// What it did
    pub ops: Vec<Op>,
    /// How it ended
    pub end: End,
    /// When it began and when its end was known, since the history began
    pub time: (Duration, Duration),
}

/// How a history was isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// READ COMMITTED
    ReadCommitted,
    /// REPEATABLE READ
    RepeatableRead,
    /// SERIALIZABLE
    Serializable,
}

impl Level {
    /// As BEGIN names it.
    pub fn sql(self) -> &'static str {
        match self {
            Level::ReadCommitted => "READ COMMITTED",
            Level::RepeatableRead => "REPEATABLE READ",
            Level::Serializable => "SERIALIZABLE",
        }
    }
}

type Edges = BTreeMap<usize, BTreeSet<usize>>;

/// What a history breaks at a level; empty if nothing. `last` is what the lists are after it.
pub fn check(history: &[Tx], last: &BTreeMap<Key, Vec<Value>>, level: Level) -> Vec<String> {
    let mut broken = Vec::new();
    let mut writers: HashMap<Value, usize> = HashMap::new();
    for (id, tx) in history.iter().enumerate() {
        for op in &tx.ops {
            if let Op::Append(_, value) = op {
                assert!(writers.insert(*value, id).is_none(), "value {value} was appended twice");
            }
        }
    }
    let visible: BTreeSet<usize> = last.values().flatten().filter_map(|v| writers.get(v).copied()).collect();
    let lasts = |tx: &Tx| -> BTreeMap<Key, Value> {
        let appends = tx.ops.iter().filter_map(|op| match op {
            Op::Append(key, value) => Some((*key, *value)),
            Op::Read(..) => None,
        });
        appends.collect()
    };
    // Nothing acknowledged is lost, nothing is there in part, nothing comes back from a rollback.
    for (id, tx) in history.iter().enumerate() {
        let there = |op: &Op| match op {
            Op::Append(key, value) => last.get(key).is_some_and(|list| list.contains(value)),
            Op::Read(..) => true,
        };
        match tx.end {
            End::Aborted if visible.contains(&id) => {
                broken.push(format!("G1a: {id} was rolled back: {tx:?}"))
            }
            End::Committed if !tx.ops.iter().all(there) => broken.push(format!("lost: {id}: {tx:?}")),
            End::Unknown if visible.contains(&id) && !tx.ops.iter().all(there) => {
                broken.push(format!("torn: {id}: {tx:?}"));
            }
            _ => {}
        }
    }
    let happened = |id: usize| match history[id].end {
        End::Committed => true,
        End::Aborted => false,
        End::Unknown => visible.contains(&id),
    };
    let (mut ww, mut wr, mut rw) = (Edges::new(), Edges::new(), Edges::new());
    for list in last.values() {
        for pair in list.windows(2) {
            if let (Some(&a), Some(&b)) = (writers.get(&pair[0]), writers.get(&pair[1])) {
                add(&mut ww, a, b);
            }
        }
    }
    for (id, tx) in history.iter().enumerate() {
        let mut own: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
        for op in &tx.ops {
            let (key, seen) = match op {
                Op::Append(key, value) => {
                    own.entry(*key).or_default().push(*value);
                    continue;
                }
                Op::Read(key, seen) => (key, seen),
            };
            let mine = own.get(key).map_or(&[][..], Vec::as_slice);
            let Some(others) = seen.strip_suffix(mine) else {
                broken.push(format!("internal: {id} does not see its own appends: {tx:?}"));
                continue;
            };
            for value in others {
                match writers.get(value) {
                    Some(&writer) if history[writer].end == End::Aborted => {
                        broken.push(format!("G1a: {id} saw {value}, which was rolled back: {tx:?}"));
                    }
                    Some(_) => {}
                    None => broken.push(format!("garbage: {id} saw {value}: {tx:?}")),
                }
            }
            if let Some((&newest, &writer)) = others.last().and_then(|v| Some((v, writers.get(v)?)))
                && lasts(&history[writer]).get(key) != Some(&newest)
            {
                broken.push(format!("G1b: {id} saw {newest}, in the middle of {writer}: {tx:?}"));
            }
            if !happened(id) {
                continue;
            }
            let list = last.get(key).map_or(&[][..], Vec::as_slice);
            let Some(after) = list.strip_prefix(others) else {
                broken.push(format!("order: {id} saw {others:?} of list {key}, which is {list:?}"));
                continue;
            };
            if let Some(&writer) = others.last().and_then(|v| writers.get(v)) {
                add(&mut wr, writer, id);
            }
            if let Some(&next) = after.iter().find_map(|v| writers.get(v).filter(|w| **w != id)) {
                add(&mut rw, id, next);
            }
        }
    }
    if let Some(cycle) = cycle(&[&ww]) {
        broken.push(format!("G0: {}", show(history, &cycle)));
    } else if let Some(cycle) = cycle(&[&ww, &wr]) {
        broken.push(format!("G1c: {}", show(history, &cycle)));
    }
    if level >= Level::RepeatableRead {
        for (&a, nexts) in &rw {
            if let Some(path) = nexts.iter().find_map(|&b| path(&[&ww, &wr], b, a)) {
                broken.push(format!("G-single: {}", show(history, &path)));
                break;
            }
        }
    }
    if level >= Level::Serializable {
        let time = in_time(history, &happened);
        if let Some(cycle) = cycle(&[&ww, &wr, &rw, &time]) {
            broken.push(format!("G2: {}", show(history, &cycle)));
        }
    }
    broken
}

fn add(edges: &mut Edges, a: usize, b: usize) {
    if a != b {
        edges.entry(a).or_default().insert(b);
    }
}

/// Whoever ended before another began comes before it. What follows from two such edges is left out.
fn in_time(history: &[Tx], happened: &dyn Fn(usize) -> bool) -> Edges {
    let mut events: Vec<(Duration, bool, usize)> = Vec::new();
    for (id, tx) in history.iter().enumerate().filter(|(id, _)| happened(*id)) {
        events.push((tx.time.0, true, id));
        // Of an unknown one it is not known when it took place.
        if tx.end == End::Committed {
            events.push((tx.time.1, false, id));
        }
    }
    events.sort_unstable();
    let mut edges = Edges::new();
    let mut newest: Vec<usize> = Vec::new();
    for (_, begins, id) in events {
        if begins {
            newest.iter().for_each(|&before| add(&mut edges, before, id));
        } else {
            newest.retain(|&before| history[before].time.1 >= history[id].time.0);
            newest.push(id);
        }
    }
    edges
}

fn next<'a>(graphs: &'a [&Edges], from: usize) -> impl Iterator<Item = usize> + 'a {
    graphs.iter().filter_map(move |g| g.get(&from)).flatten().copied()
}

/// A way from one to another.
fn path(graphs: &[&Edges], from: usize, to: usize) -> Option<Vec<usize>> {
    let mut came: BTreeMap<usize, usize> = BTreeMap::from([(from, from)]);
    let mut queue = std::collections::VecDeque::from([from]);
    while let Some(at) = queue.pop_front() {
        if at == to {
            let mut path = vec![to];
            while let Some(&before) =
                path.last().and_then(|at| came.get(at)).filter(|b| Some(*b) != path.last())
            {
                path.push(before);
            }
            path.reverse();
            return Some(path);
        }
        for after in next(graphs, at) {
            if let std::collections::btree_map::Entry::Vacant(slot) = came.entry(after) {
                slot.insert(at);
                queue.push_back(after);
            }
        }
    }
    None
}

/// A cycle, if there is one: takes away whoever nobody left must come before, and looks at the rest.
fn cycle(graphs: &[&Edges]) -> Option<Vec<usize>> {
    let mut waits: BTreeMap<usize, usize> = BTreeMap::new();
    for graph in graphs {
        for (&from, tos) in *graph {
            waits.entry(from).or_default();
            tos.iter().for_each(|to| *waits.entry(*to).or_default() += 1);
        }
    }
    let mut free: Vec<usize> = waits.iter().filter(|(_, n)| **n == 0).map(|(id, _)| *id).collect();
    while let Some(id) = free.pop() {
        waits.remove(&id);
        for to in next(graphs, id) {
            if let Some(n) = waits.get_mut(&to) {
                *n -= 1;
                if *n == 0 {
                    free.push(to);
                }
            }
        }
    }
    // What is left lies on a cycle or after one.
    waits.keys().find_map(|&id| next(graphs, id).find_map(|after| path(graphs, after, id)))
}

fn show(history: &[Tx], ids: &[usize]) -> String {
    let lines: Vec<String> = ids.iter().map(|id| format!("\n  {id}: {:?}", history[*id])).collect();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tx(ops: &[Op]) -> Tx {
        Tx { ops: ops.to_vec(), end: End::Committed, time: (Duration::ZERO, Duration::MAX) }
    }

    fn finds(history: &[Tx], last: &[(Key, &[Value])], level: Level) -> Vec<String> {
        let last = last.iter().map(|(k, list)| (*k, list.to_vec())).collect();
        let name = |s: String| s.split(':').next().unwrap_or_default().to_owned();
        check(history, &last, level).into_iter().map(name).collect()
    }

    use Level::*;
    use Op::{Append as A, Read as R};

    #[test]
    fn each_anomaly_is_named() {
        let g0 = [tx(&[A(1, 1), A(2, 2)]), tx(&[A(1, 3), A(2, 4)])];
        assert_eq!(finds(&g0, &[(1, &[1, 3]), (2, &[4, 2])], ReadCommitted), ["G0"]);
        assert!(finds(&g0, &[(1, &[1, 3]), (2, &[2, 4])], Serializable).is_empty());

        let mut g1a = [tx(&[A(1, 1)]), tx(&[R(1, vec![1])])];
        g1a[0].end = End::Aborted;
        assert!(finds(&g1a, &[], ReadCommitted).contains(&"G1a".to_owned()));
        let g1b = [tx(&[A(1, 1), A(1, 2)]), tx(&[R(1, vec![1])])];
        assert!(finds(&g1b, &[(1, &[1, 2])], ReadCommitted).contains(&"G1b".to_owned()));
        let g1c = [tx(&[A(1, 1), R(2, vec![2])]), tx(&[A(2, 2), R(1, vec![1])])];
        assert_eq!(finds(&g1c, &[(1, &[1]), (2, &[2])], ReadCommitted), ["G1c"]);

        let skew = [tx(&[R(1, vec![]), R(2, vec![2])]), tx(&[A(1, 1), A(2, 2)])];
        let lists: &[(Key, &[Value])] = &[(1, &[1]), (2, &[2])];
        assert!(finds(&skew, lists, ReadCommitted).is_empty());
        assert_eq!(finds(&skew, lists, RepeatableRead), ["G-single"]);

        let write_skew = [tx(&[R(1, vec![]), A(2, 2)]), tx(&[R(2, vec![]), A(1, 1)])];
        assert!(finds(&write_skew, lists, RepeatableRead).is_empty());
        assert_eq!(finds(&write_skew, lists, Serializable), ["G2"]);
    }

    #[test]
    fn losses_and_stale_reads_are_found() {
        let lost = [tx(&[A(1, 1)])];
        assert_eq!(finds(&lost, &[], ReadCommitted), ["lost"]);
        let mut unknown = lost.clone();
        unknown[0].end = End::Unknown;
        assert!(finds(&unknown, &[], Serializable).is_empty());
        let mut torn = [tx(&[A(1, 1), A(2, 2)])];
        torn[0].end = End::Unknown;
        assert_eq!(finds(&torn, &[(1, &[1])], ReadCommitted), ["torn"]);
        let at = |from, to| (Duration::from_secs(from), Duration::from_secs(to));
        let mut stale = [tx(&[A(1, 1)]), tx(&[R(1, vec![])])];
        (stale[0].time, stale[1].time) = (at(0, 1), at(2, 3));
        assert_eq!(finds(&stale, &[(1, &[1])], Serializable), ["G2"]);
        stale[1].time = at(0, 3);
        assert!(finds(&stale, &[(1, &[1])], Serializable).is_empty());
    }
}

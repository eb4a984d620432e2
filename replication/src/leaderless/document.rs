//! `crdt_map`: a JSON document as the values under its paths, and back.
//!
//! ```text
//!   {"a": {"b": 1, "c": [2]}, "d": {}}      a.b → 1     a.c → [2]     d → {}
//! ```
//!
//! What two nodes write under different paths merges; arrays are values and are replaced as a whole. A
//! document is the sum of its paths, except where one node wrote a value at a path and another wrote something
//! beneath it: then the later write shows, and the other is still there for who writes next to take out.

use std::collections::BTreeMap;

use amphora_storage::{Datum, Json, Timestamp};
use serde_json::{Map, Value};

use super::cell::{Document, Path};
use super::dots::Dot;
use super::op::CellOp;

/// When and by whom something was written; greater wins.
type Stamp = (Timestamp, Option<Dot>);
/// Values under their paths, in the order of the paths: what is beneath a path follows it at once.
pub(super) type Values = BTreeMap<Path, Value>;

/// The values of a document; `None` if it is not an object.
pub(super) fn flatten(document: &Datum) -> Option<Values> {
    let Datum::Jsonb(json) = document else { return None };
    let Value::Object(root) = &json.0 else { return None };
    let mut values = Values::new();
    let mut path = Path::new();
    collect(root, &mut path, &mut values);
    Some(values)
}

fn collect(object: &Map<String, Value>, path: &mut Path, into: &mut Values) {
    for (key, value) in object {
        path.push(key.clone());
        match value {
            Value::Object(inner) if !inner.is_empty() => collect(inner, path, into),
            value => {
                into.insert(path.clone(), value.clone());
            }
        }
        path.pop();
    }
}

/// The document that a cell shows.
pub(super) fn read(cell: &Document) -> Datum {
    let latest: Vec<(&Path, Stamp, &Value)> = cell
        .entries
        .iter()
        .filter_map(|(path, writes)| {
            let (dot, written) = writes.iter().max_by_key(|(dot, w)| (w.hlc, **dot))?;
            let Datum::Jsonb(json) = &written.value else { return None };
            Some((path, (written.hlc, Some(*dot)), &json.0))
        })
        .collect();
    Datum::jsonb(Json(Value::Object(assemble(&latest, 0))))
}

/// The document of these values.
pub(super) fn unflatten(values: &Values) -> Datum {
    let values: Vec<(&Path, Stamp, &Value)> =
        values.iter().map(|(path, v)| (path, (Timestamp::ZERO, None), v)).collect();
    Datum::jsonb(Json(Value::Object(assemble(&values, 0))))
}

/// The object at one depth. All paths given are the same up to there.
fn assemble(mut values: &[(&Path, Stamp, &Value)], depth: usize) -> Map<String, Value> {
    let mut object = Map::new();
    while let Some(key) = values.first().and_then(|(path, ..)| path.get(depth)) {
        let same = values.partition_point(|(path, ..)| path.get(depth).is_some_and(|k| k <= key));
        let (group, rest) = values.split_at(same);
        values = rest;
        let (at, beneath) = match group.split_first() {
            Some((first, beneath)) if first.0.len() == depth + 1 => (Some(first), beneath),
            _ => (None, group),
        };
        let newest = beneath.iter().map(|(_, stamp, _)| *stamp).max();
        let value = match at {
            Some((_, stamp, value)) if newest.is_none_or(|n| *stamp > n && !is_empty_object(value)) => {
                (*value).clone()
            }
            _ => Value::Object(assemble(beneath, depth + 1)),
        };
        object.insert(key.clone(), value);
    }
    object
}

fn is_empty_object(value: &Value) -> bool {
    matches!(value, Value::Object(o) if o.is_empty())
}

/// What a writer changed: the paths that it wrote, and those that it took out.
fn changes<'a>(before: &'a Values, after: &'a Values) -> (Vec<(&'a Path, &'a Value)>, Vec<&'a Path>) {
    // Numbers are equal if they are spelled alike: 1.0 is not 1.00.
    let put = after.iter().filter(|(path, v)| before.get(*path) != Some(v));
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    (put.collect(), gone.collect())
}

/// True if one of the paths leads to, or through, the other.
fn in_the_way(a: &Path, b: &Path) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

/// The operation that takes a document from `before`, which `cell` showed, to `after`.
pub(super) fn difference(cell: Option<&Document>, before: &Values, after: &Values) -> Option<CellOp> {
    let (put, gone) = changes(before, after);
    if put.is_empty() && gone.is_empty() {
        return None;
    }
    let mut seen = Vec::new();
    for (path, writes) in cell.into_iter().flat_map(|c| &c.entries) {
        if gone.contains(&path) || put.iter().any(|(p, _)| in_the_way(p, path)) {
            seen.extend(writes.keys().copied());
        }
    }
    let put = put.into_iter().map(|(path, v)| (path.clone(), Datum::jsonb(Json(v.clone())))).collect();
    Some(CellOp::Edit { seen, put })
}

/// What a writer changed between `before` and `after`, done to `current`.
pub(super) fn rebase(before: &Values, after: &Values, mut current: Values) -> Values {
    let (put, gone) = changes(before, after);
    current.retain(|path, _| !gone.contains(&path) && !put.iter().any(|(p, _)| in_the_way(p, path)));
    current.extend(put.into_iter().map(|(path, v)| (path.clone(), v.clone())));
    current
}

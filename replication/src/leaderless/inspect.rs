//! `crdt_inspect`: what is kept of a column, as a document for people.

use std::collections::BTreeMap;

use amphora_storage::schema::Column;
use amphora_storage::types::Crdt;
use amphora_storage::{DataType, Datum, Timestamp};
use serde_json::{Map, Value, json};

use super::cell::{Cell, DecimalShare, Extreme, Share, Written};
use super::dots::{Context, Dot, GROUP};
use super::row_state::RowState;
use crate::NodeId;

/// The state of one column: its type, and per origin or per dot what the type keeps. A column never written has
/// no `kind`.
///
/// Values are shown by `text`; a transaction over both kinds of table shows as origin `group`.
pub fn inspect(column: &Column, state: &RowState, text: &dyn Fn(&Datum, &DataType) -> Value) -> Value {
    let mut out = Map::new();
    out.insert("type".into(), column.ty.to_string().into());
    out.insert("causal_length".into(), state.cl.into());
    let element = match &column.ty {
        DataType::Crdt(Crdt::Set(t) | Crdt::RemoveSet(t) | Crdt::Register(t)) => (**t).clone(),
        ty => ty.base(),
    };
    let show = |value: &Datum| text(value, &element);
    let Some(cell) = state.cells.get(&column.id) else { return Value::Object(out) };
    let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
    match cell {
        Cell::Lww(lww) => {
            put("kind", "last write".into());
            put("value", show(&lww.value));
            put("written", at(lww.hlc));
            put("origin", origin(lww.origin));
        }
        Cell::Counter(counter) => {
            put("kind", "totals".into());
            let list = |shares: &BTreeMap<NodeId, Share>| -> Value {
                let total = |s: &Share| number(s.total.to_string());
                shares.iter().map(|(o, s)| share(*o, s.version, total(s))).collect()
            };
            put("origins", list(&counter.shares));
            if !counter.cleared.is_empty() {
                put("reset", list(&counter.cleared));
            }
        }
        Cell::Sum(sum) => {
            put("kind", "totals".into());
            let list = |shares: &BTreeMap<NodeId, DecimalShare>| -> Value {
                let total = |s: &DecimalShare| number(s.total.to_string());
                shares.iter().map(|(o, s)| share(*o, s.version, total(s))).collect()
            };
            put("origins", list(&sum.shares));
            if !sum.cleared.is_empty() {
                put("reset", list(&sum.cleared));
            }
        }
        Cell::Max(Extreme { resets, value }) | Cell::Min(Extreme { resets, value }) => {
            put("kind", "extreme".into());
            put("value", value.as_ref().map_or(Value::Null, show));
            put("resets", (*resets).into());
        }
        Cell::Set(set) => {
            put("kind", "add-wins set".into());
            let elements = set.entries.iter();
            let elements =
                elements.map(|(e, dots)| json!({"value": show(&e.0), "added": dots_of(dots.keys())}));
            put("elements", elements.collect());
            put("seen", context(&set.context));
        }
        Cell::RemoveSet(set) => {
            put("kind", "remove-wins set".into());
            let elements = set.entries.iter().map(|(e, dots)| {
                let of = |is_in| dots_of(dots.iter().filter(|(_, v)| **v == is_in).map(|(d, _)| d));
                json!({"value": show(&e.0), "added": of(true), "removed": of(false)})
            });
            put("elements", elements.collect());
            put("seen", context(&set.context));
        }
        Cell::Flag(flag) => {
            put("kind", "enable-wins flag".into());
            put("enables", flag.dots().map(dot).collect());
            put("seen", context(&flag.context));
        }
        Cell::Register(register) => {
            put("kind", "concurrent writes".into());
            let writes = register.iter();
            put("writes", writes.map(|(_, d, w)| written(d, w, show(&w.value))).collect());
            put("seen", context(&register.context));
        }
        Cell::Map(map) => {
            put("kind", "map".into());
            let paths = map.entries.iter().map(|(path, writes)| {
                let writes: Value = writes.iter().map(|(d, w)| written(*d, w, show(&w.value))).collect();
                json!({"path": path, "writes": writes})
            });
            put("paths", paths.collect());
            put("seen", context(&map.context));
        }
    }
    Value::Object(out)
}

fn origin(id: NodeId) -> Value {
    if id == GROUP { "group".into() } else { id.into() }
}

fn dot(d: Dot) -> Value {
    json!([origin(d.origin), d.counter])
}

fn dots_of<'a>(dots: impl Iterator<Item = &'a Dot>) -> Value {
    dots.map(|d| dot(*d)).collect()
}

fn share(of: NodeId, version: u64, total: Value) -> Value {
    json!({"origin": origin(of), "total": total, "additions": version})
}

fn number(digits: String) -> Value {
    serde_json::from_str(&digits).unwrap_or(Value::String(digits))
}

fn written(by: Dot, w: &Written, value: Value) -> Value {
    json!({"value": value, "written": at(w.hlc), "dot": dot(by)})
}

/// A clock's time as people read it, with the counter that orders what happened in one millisecond.
fn at(hlc: Timestamp) -> Value {
    let time = i64::try_from(hlc.millis()).ok().and_then(chrono::DateTime::from_timestamp_millis);
    match time {
        Some(time) => time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string().into(),
        None => hlc.0.into(),
    }
}

/// The dots seen: up to which one of each origin, and those beyond its gaps.
fn context(seen: &Context) -> Value {
    let vector: Map<String, Value> = seen
        .vector()
        .iter()
        .map(|(o, n)| (if o == GROUP { "group".to_owned() } else { o.to_string() }, n.into()))
        .collect();
    let beyond: Vec<Value> = seen.cloud().map(dot).collect();
    if beyond.is_empty() { json!({"up_to": vector}) } else { json!({"up_to": vector, "beyond": beyond}) }
}

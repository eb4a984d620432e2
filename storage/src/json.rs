//! `jsonb`: a parsed JSON document, printed, ordered and hashed as PostgreSQL does.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A `jsonb` value.
#[derive(Clone, Debug)]
pub struct Json(pub Value);

impl Json {
    /// Bytes held on the heap, about.
    pub fn memory(&self) -> usize {
        fn size(v: &Value) -> usize {
            32 + match v {
                Value::String(s) => s.len(),
                Value::Array(a) => a.iter().map(size).sum(),
                Value::Object(o) => o.iter().map(|(k, v)| k.len() + 24 + size(v)).sum(),
                _ => 0,
            }
        }
        size(&self.0)
    }
}

/// Messages carry the document's text: bincode cannot carry a self-describing value.
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.to_string().serialize(s)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Json, D::Error> {
        let text = String::deserialize(d)?;
        serde_json::from_str(&text).map(Json).map_err(serde::de::Error::custom)
    }
}

/// PostgreSQL's order: Object > Array > Boolean > Number > String > Null; containers by size first.
fn compare(a: &Value, b: &Value) -> Ordering {
    fn rank(v: &Value) -> u8 {
        match v {
            Value::Null => 0,
            Value::String(_) => 1,
            Value::Number(_) => 2,
            Value::Bool(_) => 3,
            Value::Array(_) => 4,
            Value::Object(_) => 5,
        }
    }
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => number(a).cmp(&number(b)),
        (Value::Array(a), Value::Array(b)) => a.len().cmp(&b.len()).then_with(|| {
            let mut pairs = a.iter().zip(b).map(|(x, y)| compare(x, y));
            pairs.find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        }),
        (Value::Object(a), Value::Object(b)) => a.len().cmp(&b.len()).then_with(|| {
            let (a, b) = (sorted(a), sorted(b));
            let mut pairs = a.iter().zip(&b).map(|(x, y)| by_key(x.0, y.0).then_with(|| compare(x.1, y.1)));
            pairs.find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        }),
        _ => rank(a).cmp(&rank(b)),
    }
}

/// jsonb's order of keys: the shorter first, then by bytes.
fn by_key(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

pub(crate) fn sorted(object: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_by(|a, b| by_key(a.0, b.0));
    entries
}

pub(crate) fn number(n: &serde_json::Number) -> bigdecimal::BigDecimal {
    n.to_string().parse().unwrap_or_default()
}

impl Ord for Json {
    fn cmp(&self, other: &Json) -> Ordering {
        // An empty array comes before every scalar, but only where neither is inside anything.
        let empty = |v: &Value| matches!(v, Value::Array(items) if items.is_empty());
        let scalar = |v: &Value| !matches!(v, Value::Array(_) | Value::Object(_));
        match (&self.0, &other.0) {
            (a, b) if empty(a) && scalar(b) => Ordering::Less,
            (a, b) if scalar(a) && empty(b) => Ordering::Greater,
            (a, b) => compare(a, b),
        }
    }
}

impl PartialOrd for Json {
    fn partial_cmp(&self, other: &Json) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Json) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Json {}

impl Hash for Json {
    fn hash<H: Hasher>(&self, state: &mut H) {
        fn walk<H: Hasher>(v: &Value, state: &mut H) {
            match v {
                Value::Null => 0u8.hash(state),
                Value::Bool(b) => b.hash(state),
                Value::Number(n) => number(n).normalized().hash(state),
                Value::String(s) => s.hash(state),
                Value::Array(a) => {
                    a.len().hash(state);
                    a.iter().for_each(|v| walk(v, state));
                }
                Value::Object(o) => {
                    o.len().hash(state);
                    for (k, v) in sorted(o) {
                        k.hash(state);
                        walk(v, state);
                    }
                }
            }
        }
        walk(&self.0, state);
    }
}

/// jsonb's text: keys by length then bytes, `", "` and `": "` between parts.
impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        fn walk(v: &Value, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            match v {
                Value::Number(n) => f.write_str(&number(n).to_plain_string()),
                Value::Array(a) => {
                    f.write_str("[")?;
                    for (i, v) in a.iter().enumerate() {
                        if i > 0 {
                            f.write_str(", ")?;
                        }
                        walk(v, f)?;
                    }
                    f.write_str("]")
                }
                Value::Object(o) => {
                    f.write_str("{")?;
                    for (i, (k, v)) in sorted(o).into_iter().enumerate() {
                        if i > 0 {
                            f.write_str(", ")?;
                        }
                        write!(f, "{}: ", Value::String(k.clone()))?;
                        walk(v, f)?;
                    }
                    f.write_str("}")
                }
                scalar => write!(f, "{scalar}"),
            }
        }
        walk(&self.0, f)
    }
}

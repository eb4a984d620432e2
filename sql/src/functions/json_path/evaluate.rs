//! What a path gives of a document.
//!
//! Every expression gives a sequence. In lax mode an array where a value is wanted is unwrapped, and what
//! is missing is nothing; in strict mode both are errors. Inside a predicate an error is neither: the
//! predicate is unknown.

use std::cmp::Ordering;

use amphora_storage::{Json as Document, Numeric};
use serde_json::{Map, Value};

use super::super::decimal;
use super::parse::{Comparison, Expr, Method, Operator, Path, Step};
use crate::error::{Result, SqlError};

/// Values a path may give, or hold on its way.
const MAX_VALUES: usize = 10_000_000;

struct Evaluation<'a> {
    strict: bool,
    root: &'a Value,
    variables: &'a Value,
}

/// Where an expression stands: the value that `@` is, and the length of the array that is subscripted.
#[derive(Clone, Copy)]
struct Place<'v> {
    current: &'v Value,
    last: Option<usize>,
}

/// The sequence a path gives.
pub(super) fn evaluate(path: &Path, root: &Value, variables: &Value) -> Result<Vec<Value>> {
    let evaluation = Evaluation { strict: path.strict, root, variables };
    evaluation.values(&path.expr, Place { current: root, last: None })
}

fn number(value: &Value) -> Option<Numeric> {
    match value {
        Value::Number(n) => n.to_string().parse::<bigdecimal::BigDecimal>().ok().map(Numeric::finite),
        _ => None,
    }
}

fn from_number(n: &Numeric) -> Value {
    serde_json::from_str(&n.to_string()).unwrap_or(Value::Null)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Evaluation<'_> {
    fn values(&self, e: &Expr, place: Place<'_>) -> Result<Vec<Value>> {
        Ok(match e {
            Expr::Root => vec![self.root.clone()],
            Expr::Current => vec![place.current.clone()],
            Expr::Last => match place.last {
                Some(length) => vec![Value::from(length as i64 - 1)],
                None => return Err(SqlError::internal("LAST outside of an array subscript")),
            },
            Expr::Variable(name) => match self.variables.get(name) {
                Some(value) => vec![value.clone()],
                None => {
                    let message = format!("could not find jsonpath variable \"{name}\"");
                    return Err(SqlError::undefined_object(message));
                }
            },
            Expr::Null => vec![Value::Null],
            Expr::Bool(b) => vec![Value::Bool(*b)],
            Expr::Text(s) => vec![Value::String(s.clone())],
            Expr::Number(n) => vec![serde_json::from_str(n).unwrap_or(Value::Null)],
            Expr::Steps(start, steps) => {
                let mut values = self.values(start, place)?;
                for step in steps {
                    values = self.step(step, values, place)?;
                    if values.len() > MAX_VALUES {
                        return Err(SqlError::program_limit_exceeded("a jsonpath gives too many values"));
                    }
                }
                values
            }
            Expr::Arithmetic(operator, left, right) => {
                let left = self.operand(left, place, *operator, "left")?;
                let right = self.operand(right, place, *operator, "right")?;
                let result = match operator {
                    Operator::Add => decimal::add(&left, &right)?,
                    Operator::Subtract => decimal::subtract(&left, &right)?,
                    Operator::Multiply => decimal::multiply(&left, &right)?,
                    Operator::Divide => decimal::divide(&left, &right)?,
                    Operator::Modulo => decimal::modulo(&left, &right)?,
                };
                vec![from_number(&result)]
            }
            Expr::Sign(minus, inner) => {
                let mut out = Vec::new();
                for value in self.unwrapped(self.values(inner, place)?) {
                    let Some(n) = number(&value) else {
                        let sign = if *minus { '-' } else { '+' };
                        return Err(SqlError::new(
                            "2203B",
                            format!("operand of unary jsonpath operator {sign} is not a numeric value"),
                        ));
                    };
                    out.push(if *minus { from_number(&decimal::negate(&n)) } else { value });
                }
                out
            }
            predicate => vec![self.truth(predicate, place).map_or(Value::Null, Value::Bool)],
        })
    }

    /// One number, for an operator.
    fn operand(&self, e: &Expr, place: Place<'_>, operator: Operator, side: &str) -> Result<Numeric> {
        let values = self.unwrapped(self.values(e, place)?);
        match &values[..] {
            [one] => number(one),
            _ => None,
        }
        .ok_or_else(|| {
            let symbol = operator.symbol();
            SqlError::new(
                "22038",
                format!("{side} operand of jsonpath operator {symbol} is not a single numeric value"),
            )
        })
    }

    /// In lax mode, the elements of arrays instead of them.
    fn unwrapped(&self, values: Vec<Value>) -> Vec<Value> {
        if self.strict {
            return values;
        }
        let mut out = Vec::with_capacity(values.len());
        for value in values {
            match value {
                Value::Array(items) => out.extend(items),
                other => out.push(other),
            }
        }
        out
    }

    fn step(&self, step: &Step, values: Vec<Value>, place: Place<'_>) -> Result<Vec<Value>> {
        let mut out = Vec::new();
        match step {
            Step::Key(key) => {
                for value in self.unwrapped(values) {
                    match value {
                        Value::Object(mut map) => match map.remove(key) {
                            Some(found) => out.push(found),
                            None if self.strict => {
                                let message = format!("JSON object does not contain key \"{key}\"");
                                return Err(SqlError::new("2203A", message));
                            }
                            None => {}
                        },
                        _ if self.strict => {
                            let message = "jsonpath member accessor can only be applied to an object";
                            return Err(SqlError::new("2203A", message));
                        }
                        _ => {}
                    }
                }
            }
            Step::AnyKey => {
                for value in self.unwrapped(values) {
                    match value {
                        Value::Object(map) => out.extend(in_order(map).into_iter().map(|(_, v)| v)),
                        _ if self.strict => {
                            let message =
                                "jsonpath wildcard member accessor can only be applied to an object";
                            return Err(SqlError::new("2203C", message));
                        }
                        _ => {}
                    }
                }
            }
            Step::Descend(from, to) => {
                for value in &values {
                    descend(value, 0, *from, *to, &mut out);
                }
            }
            Step::AnyElement => {
                for value in values {
                    match value {
                        Value::Array(items) => out.extend(items),
                        _ if self.strict => {
                            let message = "jsonpath wildcard array accessor can only be applied to an array";
                            return Err(SqlError::new("22039", message));
                        }
                        other => out.push(other),
                    }
                }
            }
            Step::Elements(ranges) => {
                for value in values {
                    self.elements(ranges, value, place, &mut out)?;
                }
            }
            Step::Filter(condition) => {
                for value in self.unwrapped(values) {
                    let inner = Place { current: &value, last: place.last };
                    if self.truth(condition, inner) == Some(true) {
                        out.push(value);
                    }
                }
            }
            Step::Method(method) => self.method(*method, values, &mut out)?,
        }
        Ok(out)
    }

    fn elements(
        &self,
        ranges: &[(Expr, Option<Expr>)],
        value: Value,
        place: Place<'_>,
        out: &mut Vec<Value>,
    ) -> Result<()> {
        let items = match value {
            Value::Array(items) => items,
            _ if self.strict => {
                let message = "jsonpath array accessor can only be applied to an array";
                return Err(SqlError::new("22039", message));
            }
            other => vec![other],
        };
        let inner = Place { current: place.current, last: Some(items.len()) };
        for (from, to) in ranges {
            let from = self.subscript(from, inner)?;
            let to = to.as_ref().map_or(Ok(from), |to| self.subscript(to, inner))?;
            let count = items.len() as i64;
            if self.strict && (from < 0 || from > to || to >= count) {
                return Err(SqlError::new("22033", "jsonpath array subscript is out of bounds"));
            }
            for i in from.max(0)..=to.min(count - 1) {
                if let Some(item) = items.get(i as usize) {
                    out.push(item.clone());
                }
            }
        }
        Ok(())
    }

    fn subscript(&self, e: &Expr, place: Place<'_>) -> Result<i64> {
        let values = self.values(e, place)?;
        let one = match &values[..] {
            [one] => number(one),
            _ => None,
        };
        let whole = one.and_then(|n| n.as_finite().map(|d| decimal::truncate(d, 0).to_string()));
        whole
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| SqlError::new("22033", "jsonpath array subscript is not a single numeric value"))
    }

    fn method(&self, method: Method, values: Vec<Value>, out: &mut Vec<Value>) -> Result<()> {
        match method {
            Method::Type => out.extend(values.iter().map(|v| Value::from(type_name(v)))),
            Method::Size => {
                for value in values {
                    match value {
                        Value::Array(items) => out.push(Value::from(items.len())),
                        _ if self.strict => {
                            let message = "jsonpath item method .size() can only be applied to an array";
                            return Err(SqlError::new("22039", message));
                        }
                        _ => out.push(Value::from(1)),
                    }
                }
            }
            Method::Keyvalue => {
                for value in self.unwrapped(values) {
                    let Value::Object(map) = value else {
                        let message = "jsonpath item method .keyvalue() can only be applied to an object";
                        return Err(SqlError::new("2203C", message));
                    };
                    for (key, value) in in_order(map) {
                        let mut pair = Map::new();
                        pair.insert("id".into(), Value::from(0));
                        pair.insert("key".into(), Value::String(key));
                        pair.insert("value".into(), value);
                        out.push(Value::Object(pair));
                    }
                }
            }
            Method::Double => {
                for value in self.unwrapped(values) {
                    let text = match &value {
                        Value::String(s) => s.trim().to_owned(),
                        Value::Number(n) => n.to_string(),
                        _ => {
                            let message = "jsonpath item method .double() can only be applied to a string or numeric value";
                            return Err(SqlError::new("22036", message));
                        }
                    };
                    let finite = text.parse::<f64>().ok().filter(|v| v.is_finite());
                    let Some(n) = finite else {
                        let kind = if value.is_string() { "string" } else { "numeric" };
                        return Err(SqlError::new(
                            "22036",
                            format!(
                                "{kind} argument of jsonpath item method .double() is not a valid representation of a double precision number"
                            ),
                        ));
                    };
                    out.push(serde_json::from_str(&n.to_string()).unwrap_or(Value::Null));
                }
            }
            Method::Abs | Method::Ceiling | Method::Floor => {
                for value in self.unwrapped(values) {
                    let Some(n) = number(&value) else {
                        let name = match method {
                            Method::Abs => "abs",
                            Method::Ceiling => "ceiling",
                            _ => "floor",
                        };
                        let message =
                            format!("jsonpath item method .{name}() can only be applied to a numeric value");
                        return Err(SqlError::new("22036", message));
                    };
                    out.push(from_number(&rounded(method, n)?));
                }
            }
        }
        Ok(())
    }

    /// A predicate's value; unknown where an error is met.
    fn truth(&self, e: &Expr, place: Place<'_>) -> Option<bool> {
        match e {
            Expr::And(left, right) => match (self.truth(left, place), self.truth(right, place)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Expr::Or(left, right) => match (self.truth(left, place), self.truth(right, place)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Expr::Not(inner) => self.truth(inner, place).map(|b| !b),
            Expr::IsUnknown(inner) => Some(self.truth(inner, place).is_none()),
            Expr::Exists(inner) => self.values(inner, place).ok().map(|v| !v.is_empty()),
            Expr::Compare(comparison, left, right) => {
                let left = self.unwrapped(self.values(left, place).ok()?);
                let right = self.unwrapped(self.values(right, place).ok()?);
                self.any_pair(&left, &right, |a, b| compare(*comparison, a, b))
            }
            Expr::StartsWith(left, initial) => {
                let left = self.unwrapped(self.values(left, place).ok()?);
                let initial = self.values(initial, place).ok()?;
                self.any_pair(&left, &initial, |a, b| Some(a.as_str()?.starts_with(b.as_str()?)))
            }
            Expr::LikeRegex(left, regex) => {
                let left = self.unwrapped(self.values(left, place).ok()?);
                self.any_pair(&left, &[Value::Null], |a, _| Some(regex.is_match(a.as_str()?)))
            }
            value => match &self.values(value, place).ok()?[..] {
                [Value::Bool(b)] => Some(*b),
                _ => None,
            },
        }
    }

    /// True if a pair satisfies the test. One that cannot be tested makes the whole unknown: in strict
    /// mode always, in lax mode unless a satisfying one came before it.
    fn any_pair(
        &self,
        left: &[Value],
        right: &[Value],
        test: impl Fn(&Value, &Value) -> Option<bool>,
    ) -> Option<bool> {
        let (mut found, mut unknown) = (false, false);
        for a in left {
            for b in right {
                match test(a, b) {
                    Some(true) if !self.strict => return Some(true),
                    Some(true) => found = true,
                    Some(false) => {}
                    None if self.strict => return None,
                    None => unknown = true,
                }
            }
        }
        match (found, unknown) {
            (true, _) => Some(true),
            (_, true) => None,
            _ => Some(false),
        }
    }
}

fn rounded(method: Method, n: Numeric) -> Result<Numeric> {
    if matches!(method, Method::Abs) {
        return Ok(if decimal::sign(&n) < 0 { decimal::negate(&n) } else { n });
    }
    let Some(d) = n.as_finite() else { return Ok(n) };
    let whole = Numeric::finite(decimal::truncate(d, 0));
    let rest = decimal::sign(&decimal::subtract(&n, &whole)?);
    match (method, rest) {
        (Method::Ceiling, 1) => decimal::add(&whole, &Numeric::from(1)),
        (Method::Floor, -1) => decimal::subtract(&whole, &Numeric::from(1)),
        _ => Ok(whole),
    }
}

/// An object's entries in jsonb's order: shorter keys first.
fn in_order(map: Map<String, Value>) -> Vec<(String, Value)> {
    let mut entries: Vec<(String, Value)> = map.into_iter().collect();
    entries.sort_by(|a, b| a.0.len().cmp(&b.0.len()).then_with(|| a.0.cmp(&b.0)));
    entries
}

/// A value and all below it, those between two levels.
fn descend(value: &Value, level: u32, from: u32, to: u32, out: &mut Vec<Value>) {
    let leaf = !matches!(value, Value::Array(_) | Value::Object(_));
    // `last` means the leaves, wherever they are.
    if level >= from && level <= to && (from != u32::MAX) || from == u32::MAX && leaf {
        out.push(value.clone());
    }
    if level < to {
        match value {
            Value::Array(items) => items.iter().for_each(|v| descend(v, level + 1, from, to, out)),
            Value::Object(map) => {
                let mut entries: Vec<(&String, &Value)> = map.iter().collect();
                entries.sort_by(|a, b| a.0.len().cmp(&b.0.len()).then_with(|| a.0.cmp(b.0)));
                entries.iter().for_each(|(_, v)| descend(v, level + 1, from, to, out));
            }
            _ => {}
        }
    }
}

/// Two values compared; unknown for values of different or composite types.
fn compare(comparison: Comparison, a: &Value, b: &Value) -> Option<bool> {
    let order = match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Number(_), Value::Number(_)) => Document(a.clone()).cmp(&Document(b.clone())),
        // NULL equals nothing else, and is not more nor less either.
        (Value::Null, _) | (_, Value::Null) => return Some(matches!(comparison, Comparison::NotEqual)),
        _ => return None,
    };
    Some(match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    })
}

//! Which share of rows a condition keeps.
//!
//! ```text
//!   value          share of rows
//!   ─────────────────────────────────────────────────────────────
//!   NULL           null_fraction
//!   'DE'           its frequency among the most common values
//!   anything else  what is left, evenly over the other values ( = ),
//!                  or by where it falls in the histogram ( < > )
//! ```
//!
//! PostgreSQL's way (`selfuncs.c`), and its guesses where nothing is known.

use std::cmp::Ordering;

use amphora_storage::{DataType, Datum};
use bigdecimal::ToPrimitive;

use super::planner::{KnownColumn, MILLION, Planner};
use crate::expr::Expr;
use crate::plan::Field;

/// Share that one bound keeps, if nothing is known.
const BOUND: f64 = 1.0 / 3.0;
/// Share that a range between two unknown bounds keeps.
const RANGE: f64 = 0.005;
/// Share that a pattern keeps.
const PATTERN: f64 = 0.005;
/// Elements of an array whose length is not known.
const ARRAY_LENGTH: f64 = 10.0;
/// Share that a condition keeps of which nothing is known.
const UNKNOWN: f64 = 0.33;

/// What two conditions on one column leave between them.
struct Span<'a> {
    column: usize,
    lower: Option<(f64, &'a Expr)>,
    upper: Option<(f64, &'a Expr)>,
}

impl Planner<'_> {
    /// The share of rows of this schema that a condition keeps.
    pub(super) fn selectivity(&self, condition: &Expr, schema: &[Field]) -> f64 {
        let share = match condition {
            Expr::And(operands) => self.all(operands, schema),
            Expr::Or(operands) => {
                1.0 - operands.iter().map(|e| 1.0 - self.selectivity(e, schema)).product::<f64>()
            }
            Expr::Not(input) => 1.0 - self.selectivity(input, schema),
            Expr::Literal(Datum::Bool(true), _) => 1.0,
            Expr::Literal(..) => 0.0,
            Expr::Column(i, _) => match schema.get(*i).and_then(|f| self.column(f)) {
                Some(column) => equal(&column, Some(&Datum::Bool(true))),
                None => 0.5,
            },
            Expr::Call { function, args, .. } => match &args[..] {
                [left, right] => self.comparison(function.name, left, right, schema),
                _ => UNKNOWN,
            },
            Expr::InList { input, list, negated } => {
                let each = list.iter().map(|e| self.comparison("=", input, e, schema));
                let share = each.sum::<f64>().min(1.0);
                if *negated { 1.0 - share } else { share }
            }
            Expr::AnyAll { left, function, array, all } => {
                self.any_all(left, function.name, array, *all, schema)
            }
            Expr::IsNull { input, negated } => {
                let nulls = match self.known(input, schema) {
                    Some(column) => column.null_fraction(),
                    None => 0.005,
                };
                if *negated { 1.0 - nulls } else { nulls }
            }
            Expr::IsBool { input, value: Some(true), negated: false }
            | Expr::IsBool { input, value: Some(false), negated: true } => self.selectivity(input, schema),
            Expr::IsBool { input, value: Some(_), .. } => 1.0 - self.selectivity(input, schema),
            _ => 0.5,
        };
        share.clamp(0.0, 1.0)
    }

    /// The share that all of these conditions keep together.
    pub(super) fn all(&self, conditions: &[Expr], schema: &[Field]) -> f64 {
        let mut share = 1.0;
        let mut spans: Vec<Span<'_>> = Vec::new();
        for condition in conditions {
            let Some((column, is_lower, bound)) = one_bound(condition) else {
                share *= self.selectivity(condition, schema);
                continue;
            };
            let own = (self.selectivity(condition, schema), bound);
            let place = match spans.iter().position(|s| s.column == column) {
                Some(place) => place,
                None => {
                    spans.push(Span { column, lower: None, upper: None });
                    spans.len() - 1
                }
            };
            let span = &mut spans[place];
            let side = if is_lower { &mut span.lower } else { &mut span.upper };
            if side.as_ref().is_none_or(|(known, _)| own.0 < *known) {
                *side = Some(own);
            }
        }
        for span in spans {
            share *= match (span.lower, span.upper) {
                (Some((a, low)), Some((b, high))) => {
                    let known = matches!(low, Expr::Literal(..)) && matches!(high, Expr::Literal(..));
                    let has_histogram = schema
                        .get(span.column)
                        .and_then(|f| self.column(f))
                        .and_then(|c| c.statistics)
                        .is_some();
                    if known && has_histogram { (a + b - 1.0).max(1e-5) } else { RANGE }
                }
                (Some((a, _)), None) | (None, Some((a, _))) => a,
                (None, None) => 1.0,
            };
        }
        share
    }

    /// The share of all pairs of rows for which two keys are equal.
    pub(super) fn equi_join(&self, left: (&Expr, &[Field], f64), right: (&Expr, &[Field], f64)) -> f64 {
        let l = self.distinct(left.0, left.1, left.2);
        let r = self.distinct(right.0, right.1, right.2);
        let nulls =
            |(e, schema, _): (&Expr, &[Field], f64)| self.known(e, schema).map_or(0.0, |c| c.null_fraction());
        (1.0 - nulls(left)) * (1.0 - nulls(right)) / l.max(r).max(1.0)
    }

    fn known(&self, e: &Expr, schema: &[Field]) -> Option<KnownColumn<'_>> {
        match e {
            Expr::Column(i, _) => schema.get(*i).and_then(|f| self.column(f)),
            Expr::Cast { input, .. } => self.known(input, schema),
            _ => None,
        }
    }

    fn comparison(&self, operator: &str, left: &Expr, right: &Expr, schema: &[Field]) -> f64 {
        let is_constant = |e: &Expr| e.is_row_free();
        let (column, other, operator) = match (is_constant(left), is_constant(right)) {
            (false, true) => (left, right, operator),
            (true, false) => (right, left, mirrored(operator)),
            (false, false) if operator == "=" || operator == "<>" => {
                let most = f64::INFINITY;
                let distinct = self.distinct(left, schema, most).max(self.distinct(right, schema, most));
                let share = 1.0 / distinct.max(1.0);
                return if operator == "=" { share } else { 1.0 - share };
            }
            _ => return default_share(operator),
        };
        let known = self.known(column, schema);
        let value = match other {
            Expr::Literal(Datum::Null, _) => return 0.0,
            Expr::Literal(value, _) => Some(value),
            _ => None,
        };
        let of_equal = || match &known {
            Some(known) => equal(known, value),
            None if column.ty() == DataType::Bool => 0.5,
            None => 0.005,
        };
        match operator {
            "=" => of_equal(),
            "<>" => {
                let nulls = known.as_ref().map_or(0.0, KnownColumn::null_fraction);
                1.0 - of_equal() - nulls
            }
            "<" | "<=" | ">" | ">=" => match (&known, value) {
                (Some(known), Some(value)) => range(known, operator, value).unwrap_or(BOUND),
                _ => BOUND,
            },
            "~~" => match (&known, value.and_then(Datum::as_str)) {
                (Some(known), Some(pattern)) => like(known, pattern),
                _ => PATTERN,
            },
            other => default_share(other),
        }
    }

    fn any_all(&self, left: &Expr, operator: &str, array: &Expr, all: bool, schema: &[Field]) -> f64 {
        let each: Vec<f64> = match array {
            Expr::Literal(Datum::Array(array), _) => array
                .items
                .iter()
                .map(|v| {
                    let value = Expr::Literal(v.clone(), array.element.clone());
                    self.comparison(operator, left, &value, schema)
                })
                .collect(),
            _ => {
                let one = self.comparison(operator, left, &Expr::Parameter(0, left.ty()), schema);
                vec![one; ARRAY_LENGTH as usize]
            }
        };
        if all {
            each.iter().product()
        } else if operator == "=" {
            each.iter().sum::<f64>().min(1.0)
        } else {
            1.0 - each.iter().map(|s| 1.0 - s).product::<f64>()
        }
    }
}

/// A column compared with one bound: the column, whether the bound is a lower one, and the bound.
fn one_bound(condition: &Expr) -> Option<(usize, bool, &Expr)> {
    let Expr::Call { function, args, .. } = condition else { return None };
    let [left, right] = &args[..] else { return None };
    let (column, bound, operator) = match (left, right) {
        (Expr::Column(i, _), e) if e.is_row_free() => (*i, e, function.name),
        (e, Expr::Column(i, _)) if e.is_row_free() => (*i, e, mirrored(function.name)),
        _ => return None,
    };
    match operator {
        ">" | ">=" => Some((column, true, bound)),
        "<" | "<=" => Some((column, false, bound)),
        _ => None,
    }
}

fn mirrored(operator: &str) -> &str {
    match operator {
        "<" => ">",
        "<=" => ">=",
        ">" => "<",
        ">=" => "<=",
        other => other,
    }
}

fn default_share(operator: &str) -> f64 {
    match operator {
        "=" => 0.005,
        "<>" => 0.995,
        "<" | "<=" | ">" | ">=" => BOUND,
        "~~" | "~" | "~~*" | "~*" => PATTERN,
        "@>" | "<@" => 0.005,
        "&&" => 0.01,
        "!~~" | "!~" | "!~~*" | "!~*" => 1.0 - PATTERN,
        _ => UNKNOWN,
    }
}

/// The share of rows that have this value; `None` is a value that is not known yet.
fn equal(column: &KnownColumn<'_>, value: Option<&Datum>) -> f64 {
    if column.unique {
        return 1.0 / column.rows.max(1.0);
    }
    let Some(statistics) = column.statistics else {
        return 1.0 / column.distinct().max(1.0);
    };
    let common: f64 = statistics.most_common.iter().map(|(_, share)| f64::from(*share) / MILLION).sum();
    let others = (column.distinct() - statistics.most_common.len() as f64).max(1.0);
    let rest = (1.0 - column.null_fraction() - common).max(0.0);
    match value {
        None => (1.0 - column.null_fraction()) / column.distinct().max(1.0),
        Some(value) => match statistics.most_common.iter().find(|(v, _)| v == value) {
            Some((_, share)) => f64::from(*share) / MILLION,
            None if rest == 0.0 => 0.5 / column.rows.max(1.0),
            None => {
                let least = statistics.most_common.last().map_or(1.0, |(_, s)| f64::from(*s) / MILLION);
                (rest / others).min(least)
            }
        },
    }
}

/// The share of rows on one side of a value; `None` without statistics.
fn range(column: &KnownColumn<'_>, operator: &str, value: &Datum) -> Option<f64> {
    let statistics = column.statistics?;
    let holds = |order: Ordering| match operator {
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    };
    let mut common = 0.0;
    let mut in_common = 0.0;
    for (v, share) in &statistics.most_common {
        let share = f64::from(*share) / MILLION;
        common += share;
        if holds(v.cmp(value)) {
            in_common += share;
        }
    }
    let rest = (1.0 - column.null_fraction() - common).max(0.0);
    if statistics.histogram.len() < 2 {
        return if common > 0.0 { Some(in_common + rest * BOUND) } else { None };
    }
    let below = below(&statistics.histogram, value);
    let side = if matches!(operator, "<" | "<=") { below } else { 1.0 - below };
    // A histogram is never so good that nothing at all is beyond its ends.
    Some(in_common + rest * side.clamp(1e-4, 1.0))
}

/// The share of a histogram that lies below a value.
fn below(histogram: &[Datum], value: &Datum) -> f64 {
    let buckets = (histogram.len() - 1) as f64;
    let position = histogram.partition_point(|bound| bound < value);
    if position == 0 {
        return 0.0;
    }
    let Some(upper) = histogram.get(position) else { return 1.0 };
    let lower = &histogram[position - 1];
    let inside = match (number(lower), number(value), number(upper)) {
        (Some(l), Some(v), Some(u)) if u > l => ((v - l) / (u - l)).clamp(0.0, 1.0),
        _ => 0.5,
    };
    ((position - 1) as f64 + inside) / buckets
}

/// A value as a number that grows as it does, for interpolation.
fn number(value: &Datum) -> Option<f64> {
    Some(match value {
        Datum::Int2(v) => f64::from(*v),
        Datum::Int4(v) => f64::from(*v),
        Datum::Int8(v) | Datum::Time(v) | Datum::Timestamp(v) | Datum::Timestamptz(v) => *v as f64,
        Datum::Oid(v) => f64::from(*v),
        Datum::Float4(v) => f64::from(*v),
        Datum::Float8(v) => *v,
        Datum::Date(v) => f64::from(*v),
        Datum::Numeric(v) => v.as_finite()?.to_f64()?,
        Datum::Text(v) => leading(v.as_bytes()),
        Datum::Bytea(v) => leading(v),
        Datum::Uuid(v) => leading(&v[..]),
        _ => return None,
    })
}

/// The first bytes as a fraction in base 256.
fn leading(bytes: &[u8]) -> f64 {
    bytes.iter().take(12).rev().fold(0.0, |sum, b| (sum + f64::from(*b)) / 256.0)
}

/// LIKE: the range of its fixed prefix, and a guess for the rest of the pattern.
fn like(column: &KnownColumn<'_>, pattern: &str) -> f64 {
    let fixed = like_prefix(pattern);
    if fixed.len() == pattern.len() {
        return equal(column, Some(&Datum::text(fixed)));
    }
    let nulls = column.null_fraction();
    let wild = pattern.trim_matches('%').len().saturating_sub(fixed.len());
    let rest = 0.2_f64.powi(i32::try_from(wild.min(5)).unwrap_or(5));
    if fixed.is_empty() {
        return if pattern.bytes().all(|b| b == b'%') { 1.0 - nulls } else { rest.max(PATTERN) };
    }
    let Some(end) = prefix_end(fixed) else { return PATTERN };
    let above = range(column, ">=", &Datum::text(fixed));
    let under = range(column, "<", &Datum::text(end));
    match (above, under) {
        (Some(a), Some(u)) => (a + u + nulls - 1.0).clamp(1e-5, 1.0) * rest,
        _ => PATTERN,
    }
}

/// What every text begins with that a LIKE pattern matches.
pub(super) fn like_prefix(pattern: &str) -> &str {
    let end = pattern.find(['%', '_', '\\']).unwrap_or(pattern.len());
    &pattern[..end]
}

/// The least text greater than all that begin with this one.
pub(super) fn prefix_end(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // UTF-8 sorts by bytes as code points do by number; the surrogates are no characters.
        let next = match u32::from(last) + 1 {
            0xd800 => 0xe000,
            next => next,
        };
        if let Some(next) = char::from_u32(next) {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

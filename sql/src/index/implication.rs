//! What follows from what: may a partial index be used for rows that satisfy these conditions?
//!
//! Nothing is guessed. A condition is implied if it is there word for word, if it follows from a comparison
//! of the same thing with constants, or if it says IS NOT NULL of something that another condition could
//! not be true of otherwise:
//!
//! ```text
//!   conditions                    predicate                 why
//!   state = 'new'                 state IN ('new', 'old')   it is one of them
//!   n > 10                        n > 5                     10 ≥ 5
//!   lower(email) = $1             email IS NOT NULL         lower and = give NULL for NULL
//!   active                        active IS TRUE            the same, of what is true
//!   state = $1                    state = 'new'             not implied: $1 may be anything
//! ```
//!
//! (PostgreSQL's `predtest.c` does the same at greater length.)

use std::cmp::Ordering;

use amphora_storage::{DataType, Datum};

use crate::expr::Expr;
use crate::walk::same_expr;

/// How deep conditions are taken apart.
const MAX_DEPTH: usize = 16;

/// True if `wanted` is true of every row of which all `conditions` are. `not_null` says which columns have no
/// NULLs.
pub(crate) fn implied(wanted: &Expr, conditions: &[Expr], not_null: &dyn Fn(usize) -> bool) -> bool {
    match wanted {
        Expr::And(parts) => parts.iter().all(|part| implied(part, conditions, not_null)),
        Expr::Or(parts) if parts.iter().any(|part| implied(part, conditions, not_null)) => true,
        Expr::IsNull { input, negated: true } if matches!(**input, Expr::Column(c, _) if not_null(c)) => true,
        Expr::Literal(Datum::Bool(true), _) => true,
        wanted => conditions.iter().any(|condition| implies(condition, wanted, 0)),
    }
}

/// True if `wanted` is true whenever `known` is.
fn implies(known: &Expr, wanted: &Expr, depth: usize) -> bool {
    if depth > MAX_DEPTH {
        return false;
    }
    let next = depth + 1;
    if same_expr(known, wanted) {
        return true;
    }
    match known {
        Expr::And(parts) => return parts.iter().any(|part| implies(part, wanted, next)),
        Expr::Or(parts) => return parts.iter().all(|part| implies(part, wanted, next)),
        _ => {}
    }
    match wanted {
        Expr::And(parts) => return parts.iter().all(|part| implies(known, part, next)),
        Expr::Or(parts) => return parts.iter().any(|part| implies(known, part, next)),
        Expr::IsNull { input, negated: true } => return is_strict_in(known, input),
        _ => {}
    }
    let (a, b) = (Truth::of(known), Truth::of(wanted));
    if a.value == b.value && same_expr(a.subject, b.subject) {
        return true;
    }
    match Comparison::all_of(known) {
        Some(known) => known.iter().all(|one| one.implies(wanted)),
        None => false,
    }
}

/// A condition that is true exactly if something boolean is true, or false.
struct Truth<'a> {
    subject: &'a Expr,
    value: bool,
}

impl<'a> Truth<'a> {
    fn of(e: &'a Expr) -> Truth<'a> {
        match e {
            Expr::Not(inner) => Truth { subject: inner, value: false },
            Expr::IsBool { input, value: Some(value), negated: false } => {
                Truth { subject: input, value: *value }
            }
            Expr::Call { function, args, .. } if function.name == "=" => match &args[..] {
                [subject, Expr::Literal(Datum::Bool(value), _)]
                | [Expr::Literal(Datum::Bool(value), _), subject] => Truth { subject, value: *value },
                _ => Truth { subject: e, value: true },
            },
            _ => Truth { subject: e, value: true },
        }
    }
}

/// A comparison of something with a constant that is not NULL.
struct Comparison<'a> {
    subject: &'a Expr,
    operator: &'a str,
    value: &'a Datum,
    ty: &'a DataType,
}

impl<'a> Comparison<'a> {
    fn of(e: &'a Expr) -> Option<Comparison<'a>> {
        let Expr::Call { function, args, .. } = e else { return None };
        let [left, right] = &args[..] else { return None };
        let mirrored = |name| match name {
            "<" => ">",
            "<=" => ">=",
            ">" => "<",
            ">=" => "<=",
            other => other,
        };
        if !matches!(function.name, "=" | "<>" | "<" | "<=" | ">" | ">=") {
            return None;
        }
        match (left, right) {
            (subject, Expr::Literal(value, ty)) if !value.is_null() => {
                Some(Comparison { subject, operator: function.name, value, ty })
            }
            (Expr::Literal(value, ty), subject) if !value.is_null() => {
                Some(Comparison { subject, operator: mirrored(function.name), value, ty })
            }
            _ => None,
        }
    }

    /// The comparisons of which one holds if the condition does.
    fn all_of(e: &'a Expr) -> Option<Vec<Comparison<'a>>> {
        match e {
            Expr::InList { input, list, negated: false } => list
                .iter()
                .filter(|item| !matches!(item, Expr::Literal(Datum::Null, _)))
                .map(|item| match item {
                    Expr::Literal(value, ty) => Some(Comparison { subject: input, operator: "=", value, ty }),
                    _ => None,
                })
                .collect(),
            other => Comparison::of(other).map(|one| vec![one]),
        }
    }

    fn implies(&self, wanted: &Expr) -> bool {
        match wanted {
            Expr::InList { input, list, negated } => {
                let equals = |item: &Expr| match item {
                    Expr::Literal(value, ty) => same_kind(self.ty, ty).then(|| value == self.value),
                    _ => None,
                };
                if self.operator != "=" || !same_expr(self.subject, input) {
                    return false;
                }
                match negated {
                    false => list.iter().any(|item| equals(item) == Some(true)),
                    true => list.iter().all(|item| equals(item) == Some(false)),
                }
            }
            other => Comparison::of(other).is_some_and(|other| self.implies_comparison(&other)),
        }
    }

    fn implies_comparison(&self, wanted: &Comparison<'_>) -> bool {
        if !same_expr(self.subject, wanted.subject) || !same_kind(self.ty, wanted.ty) {
            return false;
        }
        let order = self.value.cmp(wanted.value);
        match (self.operator, wanted.operator) {
            ("=", "=") => order == Ordering::Equal,
            ("=", "<>") => order != Ordering::Equal,
            ("=" | "<=", "<") | ("<=", "<>") => order == Ordering::Less,
            ("=" | "<" | "<=", "<=") | ("<", "<" | "<>") => order != Ordering::Greater,
            ("=" | ">=", ">") | (">=", "<>") => order == Ordering::Greater,
            ("=" | ">" | ">=", ">=") | (">", ">" | "<>") => order != Ordering::Less,
            ("<>", "<>") => order == Ordering::Equal,
            _ => false,
        }
    }
}

/// True if the order of constants of these types is the order that SQL's comparisons have.
fn same_kind(a: &DataType, b: &DataType) -> bool {
    let kind = |ty: &DataType| match ty.base() {
        DataType::Int2 | DataType::Int4 | DataType::Int8 => Some(20),
        DataType::Text | DataType::Varchar(_) | DataType::Name => Some(25),
        DataType::Char(_) | DataType::Unknown => None,
        other => Some(other.oid()),
    };
    kind(a).is_some() && kind(a) == kind(b)
}

/// True if the condition can only be true where `input` is not NULL.
fn is_strict_in(condition: &Expr, input: &Expr) -> bool {
    match condition {
        Expr::InList { input: tested, .. } => is_null_with(tested, input),
        Expr::AnyAll { left, function, all: false, .. } => function.strict && is_null_with(left, input),
        Expr::IsNull { input: tested, negated: true } => is_null_with(tested, input),
        Expr::IsBool { input: tested, value: Some(_), negated: false } => is_null_with(tested, input),
        Expr::Not(inner) => is_strict_in(inner, input),
        other => is_null_with(other, input),
    }
}

/// True if `e` is NULL where `input` is.
fn is_null_with(e: &Expr, input: &Expr) -> bool {
    if same_expr(e, input) {
        return true;
    }
    match e {
        Expr::Call { function, args, .. } => function.strict && args.iter().any(|a| is_null_with(a, input)),
        Expr::Cast { input: inner, .. } => is_null_with(inner, input),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use amphora_storage::schema::{Column, ColumnId};

    use super::*;
    use crate::index::folded;

    /// A condition over (n integer, state text, email text, active boolean, k integer NOT NULL).
    fn condition(text: &str) -> Expr {
        let columns = [
            ("n", DataType::Int4),
            ("state", DataType::Text),
            ("email", DataType::Text),
            ("active", DataType::Bool),
            ("k", DataType::Int4),
        ];
        let columns = columns.into_iter().enumerate();
        let columns = columns.map(|(i, (name, ty))| Column::new(ColumnId(i as u32), name, ty)).collect();
        folded(&crate::binder::condition_over(columns, text).unwrap()).unwrap()
    }

    fn follows(known: &str, wanted: &str) -> bool {
        let known = match condition(known) {
            Expr::And(parts) => parts,
            one => vec![one],
        };
        implied(&condition(wanted), &known, &|column| column == 4)
    }

    #[test]
    fn what_follows() {
        for (known, wanted) in [
            ("n = 5", "n = 5"),
            ("n = 5 AND state = 'x'", "state = 'x'"),
            ("n > 10", "n > 5"),
            ("n > 10", "n >= 10"),
            ("n > 10", "n <> 10"),
            ("n >= 10", "n > 9"),
            ("10 < n", "n > 5"),
            ("n = 7", "n BETWEEN 5 AND 10"),
            ("n = 7", "n <> 8"),
            ("state = 'new'", "state IN ('new', 'old')"),
            ("state IN ('a', 'b')", "state IN ('a', 'b', 'c')"),
            ("state IN ('a', 'b')", "state >= 'a'"),
            ("state = 'a'", "state NOT IN ('b', 'c')"),
            ("n = 1 OR n = 2", "n < 3"),
            ("n = 1", "n = 1 OR n = 2"),
            ("lower(email) = 'x'", "email IS NOT NULL"),
            ("email LIKE 'x%'", "email IS NOT NULL"),
            ("email IN ('a', 'b')", "email IS NOT NULL"),
            ("NOT (n > 3)", "n IS NOT NULL"),
            ("active", "active IS TRUE"),
            ("active = true", "active"),
            ("NOT active", "active IS FALSE"),
            ("active IS FALSE", "NOT active"),
            ("n = 1", "k IS NOT NULL"),
            ("email IS NULL AND n = 3", "email IS NULL"),
        ] {
            assert!(follows(known, wanted), "{known} ⇒ {wanted}");
        }
    }

    #[test]
    fn what_does_not() {
        for (known, wanted) in [
            ("n > 5", "n > 10"),
            ("n >= 10", "n > 10"),
            ("n <> 5", "n > 5"),
            ("state IN ('a', 'z')", "state IN ('a', 'b', 'c')"),
            ("n = 1 OR n = 9", "n < 3"),
            ("email IS NULL", "email IS NOT NULL"),
            ("coalesce(email, 'x') = 'x'", "email IS NOT NULL"),
            ("email IS DISTINCT FROM 'x'", "email IS NOT NULL"),
            ("active", "NOT active"),
            ("active IS NOT TRUE", "NOT active"),
            ("n = 1", "state = 'x'"),
            ("lower(state) = 'x'", "state = 'x'"),
        ] {
            assert!(!follows(known, wanted), "{known} does not imply {wanted}");
        }
    }
}

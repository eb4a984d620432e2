//! Differences that are meant, each with its reason.

use super::wire::{Answer, Mode};

/// A statement and what both made of it.
pub struct Case<'a> {
    /// The statement
    pub sql: &'a str,
    /// How it was sent
    pub mode: Mode,
    /// PostgreSQL's answer
    pub expected: &'a Answer,
    /// Amphora's
    pub actual: &'a Answer,
}

impl Case<'_> {
    fn sqlstates(&self) -> (&str, &str) {
        (
            self.expected.failure.as_ref().map_or("", |f| f.sqlstate.as_str()),
            self.actual.failure.as_ref().map_or("", |f| f.sqlstate.as_str()),
        )
    }
}

/// Why Amphora's answer may differ from PostgreSQL's here, or `None` if it may not.
pub fn explain(case: &Case<'_>) -> Option<&'static str> {
    if modifier_after_folding(case) {
        return Some("the modifier of a result column is the expression's, not its folded remainder's");
    }
    if several_wrong_rows(case) {
        return Some("of several rows that break constraints, NOT NULL is reported first");
    }
    if case.sql.contains("''::\"char\"::char(4)") {
        return Some("PostgreSQL pads the zero byte of an empty \"char\", and shows nothing of it");
    }
    if case.sql.contains("::interval") && case.sqlstates() == ("22015", "22007") {
        return Some("text that is no interval is not said to be one out of range");
    }
    None
}

/// PostgreSQL describes the result of a simple query after planning: where `coalesce(a::numeric(10,2), 1.25)`
/// has become a constant, the column has its modifier. The same statement prepared has none there.
fn modifier_after_folding(case: &Case<'_>) -> bool {
    let (expected, actual) = (case.expected, case.actual);
    case.mode == Mode::Simple
        && expected.failure.is_none()
        && actual.failure.is_none()
        && expected.columns.len() == actual.columns.len()
        && expected.columns != actual.columns
        && expected.columns.iter().zip(&actual.columns).all(|(e, a)| (&e.name, e.oid) == (&a.name, a.oid))
        && expected.rows == actual.rows
}

/// An INSERT or UPDATE of several rows checks NOT NULL and CHECK of them all before it looks for their keys,
/// which saves a round over the network; PostgreSQL goes row by row.
fn several_wrong_rows(case: &Case<'_>) -> bool {
    let (expected, actual) = case.sqlstates();
    let writes = case.sql.starts_with("INSERT") || case.sql.starts_with("UPDATE");
    let constraint = |state: &str| state.starts_with("23") || state == "21000";
    writes && constraint(expected) && constraint(actual)
}

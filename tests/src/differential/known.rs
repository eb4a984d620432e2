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
    if case.sqlstates().1 == "42883" && MISSING.iter().any(|name| calls(case.sql, name)) {
        return Some("a function that Amphora does not have");
    }
    if (calls(case.sql, "cbrt") || case.sql.contains("||/")) && case.sqlstates() == ("", "") {
        return Some("the last digit of a cube root is the mathematical library's");
    }
    if case.sql.contains("::json #> '{}'") {
        return Some("a part of a json value is printed anew");
    }
    if case.sql.contains("::\"char\"") && (case.sql.contains("'-1'") || !case.sql.is_ascii()) {
        return Some("a \"char\" is a character here, not a byte: above 127 it is another or none");
    }
    if case.sql.contains("'-12345678.99'::")
        && matches!(case.sqlstates(), ("22009" | "22003" | "22008", "22007" | "22P02"))
    {
        return Some("text that is no number and no date is said to be malformed, not out of range");
    }
    if case.sql.contains("'{1,2,3}'::") || case.sql.contains("'{2024-01-01,infinity}'::") {
        return Some("braces are not blanks in a date");
    }
    if case.sqlstates() == ("22023", "22007") && casts_to_time(case.sql) {
        return Some("text that is no time is not said to be an unknown time zone");
    }
    if (case.sql.contains("'{1}'::interval") || case.sql.contains("'{7}'::interval"))
        && case.sqlstates().0.is_empty()
    {
        return Some("braces are not blanks in an interval");
    }
    if calls(case.sql, "gcd") && case.sql.contains("'NaN'::numeric")
        || calls(case.sql, "log") && case.sql.contains("'NaN'")
    {
        return Some("zero and NaN: which of the two rules comes first");
    }
    if case.sqlstates() == ("", "22025") && case.sql.contains(" LIKE ") {
        return Some("a pattern that ends with an escape is an error even if the text differs before");
    }
    let states = case.sqlstates();
    if states.1.is_empty() && states.0.starts_with("22") && case.sql.contains("LIMIT 0") {
        return Some("with LIMIT 0 no row is made, so none can be wrong");
    }
    if case.sql.contains("to_date(") && states.0.is_empty() && states.1.starts_with("2200") {
        return Some("to_date does not take a text that lacks fields of its pattern");
    }
    if states == ("22009", "22007") {
        return Some("text that is no date is said to be malformed, not to have a zone out of range");
    }
    if case.sql.contains("::real") && states == ("", "") && case.mode != Mode::Binary {
        return Some("of two shortest texts that read back as the same real, another is chosen");
    }
    if case.sql.contains(")[1:2]") && states == ("", "") && case.mode == Mode::Binary {
        return Some("a slice says that it holds NULLs if it does, PostgreSQL's if the array did");
    }
    if calls(case.sql, "regexp_count") && case.sql.contains("'2147483647'") {
        return Some("an empty pattern matches once more behind the end of the text");
    }
    if case.sqlstates() == ("23505", "") && case.sql.starts_with("UPDATE") {
        return Some("an UPDATE may take a key that another of its rows gives up");
    }
    let prepared = case.mode != Mode::Simple;
    if prepared && states == ("22003", "") && case.sql.contains("NULL::") {
        return Some("a parameter's value is not computed with where NULL makes the result certain");
    }
    if case.sql.contains("::interval") && case.sqlstates() == ("22015", "22007") {
        return Some("text that is no interval is not said to be one out of range");
    }
    None
}

/// Functions that PostgreSQL has and Amphora has not.
const MISSING: &[&str] = &["lcm", "like", "normalize", "notlike", "numeric_div_trunc", "substring"];

/// True if something is cast to `time` or `timetz`, not to `timestamp`.
fn casts_to_time(sql: &str) -> bool {
    let after = sql.split("::time").skip(1).map(|rest| rest.strip_prefix("tz").unwrap_or(rest));
    after.into_iter().any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
}

fn calls(sql: &str, name: &str) -> bool {
    sql.starts_with(&format!("SELECT {name}("))
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
        && {
            let renamed = Answer { columns: expected.columns.clone(), ..actual.clone() };
            super::compare::difference(expected, &renamed, false).is_none()
        }
}

/// An INSERT or UPDATE of several rows checks NOT NULL and CHECK of them all before it looks for their keys,
/// which saves a round over the network; PostgreSQL goes row by row.
fn several_wrong_rows(case: &Case<'_>) -> bool {
    let (expected, actual) = case.sqlstates();
    let writes = case.sql.starts_with("INSERT") || case.sql.starts_with("UPDATE");
    let constraint = |state: &str| state.starts_with("23") || state == "21000";
    writes && constraint(expected) && constraint(actual)
}

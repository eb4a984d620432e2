//! The same statements on Amphora and on PostgreSQL, and what differs.
//!
//! ```text
//!   seed ──▶ generator ──▶ statement ──┬──▶ PostgreSQL ──▶ answer ──┐
//!             ▲                        └──▶ Amphora ─────▶ answer ──┴─▶ compare ──▶ known.rs ──▶ report
//!             └── the tables as both have them
//! ```
//!
//! An answer is what the wire carries: columns with their type OIDs, rows in text or binary, the command's
//! tag, the SQLSTATE. PostgreSQL is right by definition. What is different on purpose stands in `known.rs`,
//! each entry as narrow as it can be and with its reason.
//!
//! A case that differs is made small by [`shrink`] and printed as SQL that can be run.
//!
//! Two sources of statements: [`sweep`] takes every operator, cast and function of PostgreSQL's catalog;
//! [`generate`] makes schemas, rows, queries and
//! stories (transactions, altered tables, foreign keys, sequences, views, cursors) from a seed.

pub mod compare;
pub mod generate;
pub mod known;
pub mod samples;
pub mod shrink;
pub mod sweep;
pub mod template;
pub mod wire;

use std::collections::BTreeMap;

use wire::{Answer, Connection, Mode};

/// Differences that are shown in full; `AMPHORA_SHOWN` may ask for more.
const SHOWN: usize = 50;

/// Both servers, and what has been found.
pub struct Pair {
    /// The specification
    pub postgres: Connection,
    /// What is tested
    pub amphora: Connection,
    /// How many statements ran
    pub statements: usize,
    /// Statement and difference
    pub differences: Vec<(String, String)>,
    /// Explained differences: how many of which reason
    pub explained: BTreeMap<&'static str, usize>,
}

impl Pair {
    /// Two sessions.
    pub fn new(postgres: Connection, amphora: Connection) -> Pair {
        Pair { postgres, amphora, statements: 0, differences: Vec::new(), explained: BTreeMap::new() }
    }

    /// Runs a statement on both; false if they differ.
    pub fn run(&mut self, sql: &str, parameters: &[Option<String>], mode: Mode, ordered: bool) -> bool {
        let (expected, actual) = self.both(sql, parameters, mode);
        self.statements += 1;
        let Some(difference) = compare::difference(&expected, &actual, ordered) else { return true };
        let case = known::Case { sql, mode, expected: &expected, actual: &actual };
        if let Some(reason) = known::explain(&case) {
            *self.explained.entry(reason).or_default() += 1;
            return true;
        }
        let sent = if parameters.is_empty() { String::new() } else { format!("\n  with {parameters:?}") };
        self.differences.push((format!("[{mode:?}] {sql}{sent}"), difference));
        false
    }

    /// Runs a statement on both.
    pub fn both(&mut self, sql: &str, parameters: &[Option<String>], mode: Mode) -> (Answer, Answer) {
        let expected = self.postgres.run(sql, parameters, mode).expect("PostgreSQL answers");
        let actual = match self.amphora.run(sql, parameters, mode) {
            Ok(actual) => actual,
            Err(error) => panic!("Amphora is gone ({error}) after: {sql}"),
        };
        (expected, actual)
    }

    /// Runs many, binary and text by turns.
    pub fn run_all(&mut self, statements: &[String]) {
        for (i, sql) in statements.iter().enumerate() {
            let mode = [Mode::Simple, Mode::Binary, Mode::Text][i % 3];
            self.run(sql, &[], mode, true);
        }
    }

    /// All differences, in words.
    pub fn report(&self) -> String {
        let mut report = format!(
            "{} statements, {} differences, explained: {:?}\n",
            self.statements,
            self.differences.len(),
            self.explained
        );
        let shown = std::env::var("AMPHORA_SHOWN").ok().and_then(|n| n.parse().ok()).unwrap_or(SHOWN);
        for (sql, difference) in self.differences.iter().take(shown) {
            report += &format!("{sql}\n  {difference}\n");
        }
        report
    }
}

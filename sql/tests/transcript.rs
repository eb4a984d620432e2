//! Runs every `tests/transcripts/NAME.sql` and compares what a client sees with `NAME.out`.
//!
//! The outputs are PostgreSQL 15's own, taken with `sql/tests/oracle.py`. A file whose name begins with
//! `amphora_` is about what only Amphora has; its output is written by this test when `UPDATE_TRANSCRIPTS`
//! is set, and read by a person.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod memory;

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use amphora_sql::error::{Result, SqlError};
use amphora_sql::plan::Field;
use amphora_sql::session::{Notice, Output, Session, SessionOptions};
use amphora_sql::types::{FormatContext, to_text};
use amphora_storage::Datum;
use async_trait::async_trait;

use memory::MemoryEngine;

/// Prints answers as `psql -A -F '|' -P null=NULL -P footer=off` does.
#[derive(Default)]
struct Terminal {
    text: String,
    notices: String,
    fields: Option<Arc<[Field]>>,
    format: FormatContext,
}

#[async_trait]
impl Output for Terminal {
    fn fields(&mut self, fields: &Arc<[Field]>, _: &[i16], format: &FormatContext) {
        let names: Vec<&str> = fields.iter().map(|f| f.name.as_str()).collect();
        writeln!(self.text, "{}", names.join("|")).unwrap();
        self.fields = Some(fields.clone());
        self.format = format.clone();
    }

    fn row(&mut self, row: &[Datum]) -> Result<()> {
        let fields = self.fields.clone().unwrap();
        let values: Vec<String> = row
            .iter()
            .zip(fields.iter())
            .map(|(v, f)| if v.is_null() { "NULL".into() } else { to_text(v, &f.ty.base(), &self.format) })
            .collect();
        writeln!(self.text, "{}", values.join("|")).unwrap();
        Ok(())
    }

    async fn flush_if_full(&mut self) -> Result<()> {
        Ok(())
    }

    fn complete(&mut self, tag: &str) {
        let fields = self.fields.take();
        if fields.is_none()
            || !(tag.starts_with("SELECT") || tag.starts_with("FETCH") || tag == "SHOW" || tag == "EXPLAIN")
        {
            writeln!(self.text, "{tag}").unwrap();
        }
    }

    fn suspended(&mut self) {}

    fn empty_query(&mut self) {}

    fn notice(&mut self, notice: Notice) {
        writeln!(self.notices, "{}:  {}: {}", notice.severity, notice.sqlstate, notice.message).unwrap();
        if let Some(detail) = &notice.detail {
            writeln!(self.notices, "DETAIL:  {detail}").unwrap();
        }
    }

    fn parameter_status(&mut self, _: &str, _: &str) {}
}

fn print_error(text: &mut String, error: &SqlError) {
    writeln!(text, "ERROR:  {}: {}", error.sqlstate, error.message).unwrap();
    if let Some(detail) = &error.detail {
        writeln!(text, "DETAIL:  {detail}").unwrap();
    }
    if let Some(hint) = &error.hint {
        writeln!(text, "HINT:  {hint}").unwrap();
    }
}

/// Statements end with a semicolon at the end of a line; `\;` joins two into one message, as in psql.
fn statements(sql: &str) -> Vec<String> {
    let (mut all, mut current) = (Vec::new(), String::new());
    for line in sql.lines().filter(|l| !l.trim_start().starts_with("--") && !l.trim().is_empty()) {
        current.push_str(line);
        current.push('\n');
        if line.trim_end().ends_with(';') && !line.trim_end().ends_with("\\;") {
            all.push(std::mem::take(&mut current));
        }
    }
    all
}

async fn transcript(sql: &str) -> String {
    let options = SessionOptions {
        user: "postgres".into(),
        database: "oracle".into(),
        backend_pid: 1,
        settings: Vec::new(),
    };
    let mut session = Session::new(Arc::new(MemoryEngine::new()), options).unwrap();
    let mut text = String::new();
    for statement in statements(sql) {
        for line in statement.lines() {
            writeln!(text, "> {line}").unwrap();
        }
        let mut terminal = Terminal::default();
        let result = session.simple_query(&statement.replace("\\;", ";"), &mut terminal).await;
        // psql shows a message's notices before its results.
        text.push_str(&terminal.notices);
        text.push_str(&terminal.text);
        if let Err(error) = result {
            print_error(&mut text, &error);
        }
    }
    text
}

#[tokio::test]
async fn transcripts_are_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let only = std::env::var("TRANSCRIPT").ok();
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "sql"))
        .filter(|p| only.as_ref().is_none_or(|o| p.file_stem().unwrap().to_str() == Some(o)))
        .collect();
    names.sort();
    let mut failures = String::new();
    for path in names {
        let got = transcript(&std::fs::read_to_string(&path).unwrap()).await;
        let expected_path = path.with_extension("out");
        let ours = path.file_name().unwrap().to_str().unwrap().starts_with("amphora_");
        if ours && std::env::var("UPDATE_TRANSCRIPTS").is_ok() {
            std::fs::write(&expected_path, &got).unwrap();
        }
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if got != expected {
            writeln!(failures, "--- {}", path.display()).unwrap();
            let (mut e, mut g) = (expected.lines(), got.lines());
            let mut statement = "";
            loop {
                match (e.next(), g.next()) {
                    (None, None) => break,
                    (a, b) if a == b => {
                        if a.is_some_and(|l| l.starts_with("> ")) {
                            statement = a.unwrap();
                        }
                    }
                    (a, b) => {
                        writeln!(failures, "{statement}\n  expected {a:?}\n  got      {b:?}").unwrap();
                        // The rest of this answer is of no interest; go on where both begin the next.
                        let next = |l: &mut std::str::Lines<'_>| {
                            l.clone().take_while(|l| !l.starts_with("> ")).count()
                        };
                        let (n, m) = (next(&mut e), next(&mut g));
                        e.by_ref().take(n).for_each(|_| ());
                        g.by_ref().take(m).for_each(|_| ());
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

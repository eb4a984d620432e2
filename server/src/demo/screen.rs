//! What is seen: numbered steps, statements as in psql, and claims with their marks.

use std::io::IsTerminal;

use tokio_postgres::SimpleQueryMessage;

use crate::cli::{Table, print, say};

const INDENT: &str = "    ";

/// The terminal, or whatever stands in for it.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    color: bool,
}

impl Screen {
    /// Colors only where somebody can see them.
    pub fn new() -> Screen {
        Screen { color: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The next chapter.
    pub fn step(self, number: usize, of: usize, title: &str) {
        say!("\n{}", self.paint("1;36", &format!("── {number}/{of}  {title}")));
    }

    /// A sentence of the narrator's.
    pub fn say(self, text: &str) {
        say!("  {text}");
    }

    /// A claim and whether it held.
    pub fn claim(self, held: bool, text: &str) {
        let mark = if held { self.paint("32", "✓") } else { self.paint("1;31", "✗") };
        say!("  {mark} {text}");
    }

    /// A statement, under the name of the node it is sent to.
    pub fn statement(self, node: &str, sql: &str) {
        let lines: Vec<&str> = sql.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        for (i, line) in lines.iter().enumerate() {
            let prompt = if i == 0 { format!("{node}=>") } else { format!("{node}->") };
            say!("{INDENT}{} {line}", self.paint("2", &prompt));
        }
    }

    /// What it gave.
    pub fn result(self, messages: &[SimpleQueryMessage]) {
        let mut table: Option<(Table, usize)> = None;
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    let head: Vec<&str> = columns.iter().map(tokio_postgres::SimpleColumn::name).collect();
                    table = Some((Table::new(&head), 0));
                }
                SimpleQueryMessage::Row(row) => {
                    if let Some((table, count)) = &mut table {
                        table.row((0..row.len()).map(|i| row.get(i).unwrap_or("").to_owned()).collect());
                        *count += 1;
                    }
                }
                SimpleQueryMessage::CommandComplete(written) => {
                    if table.is_none() && *written > 0 {
                        say!("{INDENT}({written} row{} written)", if *written == 1 { "" } else { "s" });
                    }
                    if let Some((table, count)) = table.take() {
                        print(format_args!("{}", table.aligned(INDENT)));
                        say!("{INDENT}({count} row{})", if count == 1 { "" } else { "s" });
                    }
                }
                _ => {}
            }
        }
    }

    /// An error, as the server worded it.
    pub fn error(self, error: &tokio_postgres::Error) {
        for line in error_text(error).lines() {
            say!("{INDENT}{}", self.paint("33", line));
        }
    }
}

/// An error with its SQLSTATE, detail and hint.
pub fn error_text(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else { return error.to_string() };
    let mut text = format!("{}:  {}: {}", db.severity(), db.code().code(), db.message());
    for (name, value) in [("DETAIL", db.detail()), ("HINT", db.hint())] {
        if let Some(value) = value {
            text.push_str(&format!("\n{name}:  {value}"));
        }
    }
    text
}

//! Rows for people: aligned columns on a terminal, tab-separated lines otherwise.

use std::fmt::Write;

/// A table to be printed.
#[derive(Clone, Debug, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub fn new(head: &[&str]) -> Table {
        Table { head: head.iter().map(|h| (*h).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Tab-separated, the head first: for programs.
    pub fn plain(&self) -> String {
        let line = |row: &Vec<String>| row.join("\t") + "\n";
        std::iter::once(&self.head).chain(&self.rows).map(line).collect()
    }

    /// As psql prints it, each line after `indent`. Numbers stand right.
    pub fn aligned(&self, indent: &str) -> String {
        let columns = self.head.len();
        let cell = |row: &Vec<String>, i: usize| row.get(i).cloned().unwrap_or_default();
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |i| all().map(|row| cell(row, i).chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let numeric = |i| {
            !self.rows.is_empty()
                && self.rows.iter().all(|row| cell(row, i).parse::<f64>().is_ok() || cell(row, i).is_empty())
        };
        let mut text = String::new();
        for (n, row) in all().enumerate() {
            let mut line = String::new();
            for (i, &width) in widths.iter().enumerate() {
                let value = cell(row, i);
                let separator = if i > 0 { " │ " } else { " " };
                let _ = match n {
                    0 => write!(line, "{separator}{value:^width$}"),
                    _ if numeric(i) => write!(line, "{separator}{value:>width$}"),
                    _ => write!(line, "{separator}{value:<width$}"),
                };
            }
            let _ = writeln!(text, "{indent}{}", line.trim_end());
            if n == 0 {
                let rule: Vec<String> = widths.iter().map(|w| "─".repeat(w + 2)).collect();
                let _ = writeln!(text, "{indent}{}", rule.join("┼"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_programs_and_for_people() {
        let mut table = Table::new(&["id", "name"]);
        table.row(vec!["1".into(), "Ada".into()]);
        table.row(vec!["12".into(), "Zoë".into()]);
        assert_eq!(table.plain(), "id\tname\n1\tAda\n12\tZoë\n");
        assert_eq!(table.aligned("  "), "   id │ name\n  ────┼──────\n    1 │ Ada\n   12 │ Zoë\n");
    }
}

//! Where in the text a token stands, as clients want it: in characters, from 1.

use sqlparser::ast::BinaryOperator;
use sqlparser::tokenizer::{Location, Span, TokenWithSpan};

/// The start of every line of a text, in characters and in bytes.
#[derive(Debug)]
pub struct Positions {
    lines: Vec<(usize, usize)>,
    ascii: bool,
    text: Box<str>,
}

impl Positions {
    /// The lines of a text.
    pub fn of(sql: &str) -> Positions {
        let mut lines = vec![(0, 0)];
        for (characters, (bytes, c)) in sql.char_indices().enumerate() {
            if c == '\n' {
                lines.push((characters + 1, bytes + 1));
            }
        }
        Positions { lines, ascii: sql.is_ascii(), text: sql.into() }
    }

    /// The position of a line and column, both from 1.
    pub fn at(&self, line: u64, column: u64) -> Option<usize> {
        let (start, _) = self.lines.get(usize::try_from(line).ok()?.checked_sub(1)?)?;
        Some(start + usize::try_from(column).ok()?)
    }

    /// The position where a span begins; none for a span that stands for nothing in the text.
    pub fn of_span(&self, span: &Span) -> Option<usize> {
        self.at(span.start.line, span.start.column).filter(|_| span.start.column > 0)
    }

    /// Where an operator stands, if it is the next thing after its left operand's end.
    pub fn operator_after(&self, end: Location, op: &BinaryOperator) -> Option<usize> {
        let byte = self.byte(&self.text, end.line, end.column)?;
        let rest = self.text.get(byte..)?;
        let skipped =
            rest.len() - rest.trim_start_matches(|c: char| c.is_whitespace() || c == ')' || c == ']').len();
        let written = op.to_string();
        let found =
            rest[skipped..].starts_with(&written) || written == "<>" && rest[skipped..].starts_with("!=");
        let characters = rest[..skipped].chars().count();
        self.at(end.line, end.column)
            .filter(|_| found && !rest[..skipped].contains('\n'))
            .map(|p| p + characters)
    }

    /// The byte offset of a line and column.
    fn byte(&self, sql: &str, line: u64, column: u64) -> Option<usize> {
        let (_, start) = self.lines.get(usize::try_from(line).ok()?.checked_sub(1)?)?;
        let column = usize::try_from(column).ok()?.checked_sub(1)?;
        if self.ascii {
            return Some((start + column).min(sql.len()));
        }
        let rest = sql.get(*start..)?;
        Some(start + rest.char_indices().nth(column).map_or(rest.len(), |(i, _)| i))
    }

    /// The text of a span of tokens, from the first to the last.
    pub fn slice<'a>(&self, sql: &'a str, tokens: &[TokenWithSpan]) -> &'a str {
        let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
            return "";
        };
        let start = self.byte(sql, first.span.start.line, first.span.start.column);
        let end = self.byte(sql, last.span.end.line, last.span.end.column);
        match (start, end) {
            (Some(start), Some(end)) => sql.get(start..end).unwrap_or(sql),
            _ => sql,
        }
    }

    /// The text of one token.
    pub fn token_text<'a>(&self, sql: &'a str, token: &TokenWithSpan) -> &'a str {
        self.slice(sql, std::slice::from_ref(token))
    }
}

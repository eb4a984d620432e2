//! Cuts a stream of bytes into lines.
//!
//! The first line's end decides what ends all of them: `\n`, `\r\n` or `\r`. A line end inside CSV quotes,
//! or after a backslash in text, is data. The line `\.` ends the data before the stream does.

use super::MAX_RECORD;
use super::options::CopyOptions;
use crate::error::{Result, SqlError};

/// What ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    Newline,
    Return,
    Both,
}

/// What the next look gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// A line: from where to where in [`Lines::bytes`], its end not included
    Line(usize, usize),
    /// More bytes are needed
    More,
    /// There are no more
    End,
}

/// A stream of bytes that is cut into lines.
#[derive(Debug)]
pub(super) struct Lines {
    /// What has come and is not yet consumed, from `start`
    bytes: Vec<u8>,
    start: usize,
    /// How far the line that begins at `start` has been looked through
    scanned: usize,
    csv: bool,
    quote: u8,
    /// 0 if it is the quote itself
    escape: u8,
    line_end: Option<LineEnd>,
    in_quote: bool,
    escaped: bool,
    at_end: bool,
    finished: bool,
    /// Lines begun so far: the number of the line cut last
    pub(super) number: u64,
}

fn bad(message: &str) -> SqlError {
    SqlError::new("22P04", message)
}

impl Lines {
    pub(super) fn new(options: &CopyOptions) -> Lines {
        Lines {
            bytes: Vec::new(),
            start: 0,
            scanned: 0,
            csv: options.is_csv(),
            quote: options.quote,
            escape: if options.escape == options.quote { 0 } else { options.escape },
            line_end: None,
            in_quote: false,
            escaped: false,
            at_end: false,
            finished: false,
            number: 0,
        }
    }

    /// More bytes of the stream. 54000
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        if self.finished {
            return Ok(());
        }
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        if self.bytes.len() + bytes.len() > MAX_RECORD {
            return Err(SqlError::program_limit_exceeded("a line of COPY data is too long")
                .with_detail(format!("A line may have {MAX_RECORD} bytes.")));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The stream has ended.
    pub(super) fn end(&mut self) {
        self.at_end = true;
    }

    /// The bytes that a [`Cut::Line`] is about.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The next line.
    pub(super) fn cut(&mut self) -> Result<Cut> {
        if self.finished {
            return Ok(Cut::End);
        }
        let cut = if self.csv { self.scan_csv()? } else { self.scan_text()? };
        let Some((end, next)) = cut else {
            if !self.at_end {
                return Ok(Cut::More);
            }
            if self.start == self.bytes.len() {
                self.finished = true;
                return Ok(Cut::End);
            }
            self.number += 1;
            return Ok(self.take(self.bytes.len(), self.bytes.len()));
        };
        self.number += 1;
        Ok(self.take(end, next))
    }

    /// Hands out the line up to `end`; what follows begins at `next`.
    fn take(&mut self, end: usize, next: usize) -> Cut {
        let line = (self.start, end);
        self.start = next;
        self.scanned = next;
        self.in_quote = false;
        self.escaped = false;
        if self.bytes.get(line.0..line.1) == Some(b"\\.") {
            self.finished = true;
            return Cut::End;
        }
        Cut::Line(line.0, line.1)
    }

    /// The end of the line and the start of the next; `None` if it is not complete.
    fn scan_text(&mut self) -> Result<Option<(usize, usize)>> {
        let mut i = self.scanned;
        while let Some(skip) =
            self.bytes.get(i..).and_then(|rest| rest.iter().position(|b| matches!(b, b'\n' | b'\r' | b'\\')))
        {
            i += skip;
            if self.bytes[i] == b'\\' {
                // Whatever comes next is part of the value, a line end too.
                if i + 1 >= self.bytes.len() {
                    self.scanned = i;
                    return Ok(None);
                }
                if self.bytes[i + 1] == b'\n' && self.line_end != Some(LineEnd::Return) {
                    self.number += 1;
                }
                i += 2;
                continue;
            }
            match self.line_end_at(i)? {
                LineEndAt::Here(next) => return Ok(Some((i, next))),
                LineEndAt::Unknown => {
                    self.scanned = i;
                    return Ok(None);
                }
            }
        }
        self.scanned = self.bytes.len().max(i);
        Ok(None)
    }

    fn scan_csv(&mut self) -> Result<Option<(usize, usize)>> {
        let mut i = self.scanned;
        while let Some(&byte) = self.bytes.get(i) {
            if self.in_quote && self.escape != 0 && byte == self.escape {
                self.escaped = !self.escaped;
            }
            if byte == self.quote && !self.escaped {
                self.in_quote = !self.in_quote;
            }
            if byte != self.escape || self.escape == 0 {
                self.escaped = false;
            }
            if matches!(byte, b'\n' | b'\r') {
                if self.in_quote {
                    let counted = if self.line_end == Some(LineEnd::Newline) { b'\n' } else { b'\r' };
                    self.number += u64::from(byte == counted);
                } else {
                    match self.line_end_at(i)? {
                        LineEndAt::Here(next) => return Ok(Some((i, next))),
                        LineEndAt::Unknown => {
                            self.scanned = i;
                            return Ok(None);
                        }
                    }
                }
            }
            i += 1;
        }
        self.scanned = i;
        Ok(None)
    }

    /// What the `\n` or `\r` at `i` is. 22P04 if lines end otherwise here.
    fn line_end_at(&mut self, i: usize) -> Result<LineEndAt> {
        let newline = self.bytes[i] == b'\n';
        let next = self.bytes.get(i + 1).copied();
        if !newline && next.is_none() && !self.at_end && self.line_end != Some(LineEnd::Return) {
            return Ok(LineEndAt::Unknown);
        }
        let here = match (newline, next) {
            (true, _) => LineEnd::Newline,
            (false, Some(b'\n')) => LineEnd::Both,
            (false, _) => LineEnd::Return,
        };
        let expected = *self.line_end.get_or_insert(here);
        match (here, expected) {
            (LineEnd::Newline, LineEnd::Newline) | (LineEnd::Return | LineEnd::Both, LineEnd::Return) => {
                Ok(LineEndAt::Here(i + 1))
            }
            (LineEnd::Both, LineEnd::Both) => Ok(LineEndAt::Here(i + 2)),
            (LineEnd::Newline, _) => Err(self.literal("newline", "\\n")),
            (_, _) => Err(self.literal("carriage return", "\\r")),
        }
    }

    fn literal(&mut self, what: &str, escape: &str) -> SqlError {
        self.number += 1;
        let hint = format!("Use quoted CSV field to represent {what}.");
        if self.csv {
            bad(&format!("unquoted {what} found in data")).with_hint(hint)
        } else {
            bad(&format!("literal {what} found in data"))
                .with_hint(format!("Use \"{escape}\" to represent {what}."))
        }
    }
}

enum LineEndAt {
    /// The line ends; the next begins there
    Here(usize),
    /// The next byte decides, and it has not come
    Unknown,
}

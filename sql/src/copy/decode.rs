//! From bytes to rows of datums, and where in the data an error is.

use std::sync::Arc;

use amphora_storage::schema::Table;
use amphora_storage::{DataType, Datum, Row};

use super::binary::{self, Records};
use super::line::{self, Lines};
use super::options::{CopyFormat, CopyOptions, Header};
use super::{CopyFrom, csv, text};
use crate::error::{Result, SqlError};
use crate::types::{self, FormatContext, coerce_to_modifier};

/// Bytes of a value or a line that CONTEXT shows.
const SHOWN: usize = 100;

/// The values of one record, unescaped.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) bytes: Vec<u8>,
    values: Vec<(usize, usize, bool)>,
    force_not_null: Vec<bool>,
    force_null: Vec<bool>,
}

impl Record {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.values.clear();
    }

    /// Ends the value that began at `start`.
    pub(super) fn push(&mut self, start: usize, null: bool) {
        self.values.push((start, self.bytes.len(), null));
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The values as texts.
    #[cfg(test)]
    pub(super) fn texts(&self) -> Vec<Option<String>> {
        let text = |&(from, to, null): &(usize, usize, bool)| {
            (!null).then(|| String::from_utf8_lossy(&self.bytes[from..to]).into_owned())
        };
        self.values.iter().map(text).collect()
    }

    pub(super) fn force_not_null(&self, column: usize) -> bool {
        self.force_not_null.get(column).copied().unwrap_or(false)
    }

    pub(super) fn force_null(&self, column: usize) -> bool {
        self.force_null.get(column).copied().unwrap_or(false)
    }
}

/// Where the bytes come from.
#[derive(Debug)]
enum Source {
    Lines(Lines),
    Binary(Records, binary::Places),
}

/// A column of the records.
#[derive(Debug)]
struct Column {
    name: String,
    ty: DataType,
}

/// Makes rows of a stream of bytes.
#[derive(Debug)]
pub struct Decoder {
    options: CopyOptions,
    table: Arc<Table>,
    columns: Vec<Column>,
    source: Source,
    record: Record,
    header: Header,
    /// The line last cut, while it is of use for CONTEXT
    line: Option<(usize, usize)>,
    ended: bool,
}

impl Decoder {
    /// A decoder for COPY's columns.
    pub fn new(copy: &CopyFrom, options: &CopyOptions) -> Decoder {
        let column = |&c: &usize| {
            let column = &copy.table.columns[c];
            Column { name: column.name.clone(), ty: column.ty.base() }
        };
        let source = match options.format {
            CopyFormat::Binary => Source::Binary(Records::new(), Vec::new()),
            CopyFormat::Text | CopyFormat::Csv => Source::Lines(Lines::new(options)),
        };
        Decoder {
            options: options.clone(),
            table: copy.table.clone(),
            columns: copy.columns.iter().map(column).collect(),
            source,
            record: Record {
                force_not_null: copy.force_not_null.clone(),
                force_null: copy.force_null.clone(),
                ..Record::default()
            },
            header: options.header,
            line: None,
            ended: false,
        }
    }

    /// More bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.line = None;
        let fed = match &mut self.source {
            Source::Lines(lines) => lines.feed(bytes),
            Source::Binary(records, _) => records.feed(bytes),
        };
        fed.map_err(|error| self.in_line(error))
    }

    /// The stream has ended: what is left is the last record.
    pub fn end(&mut self) {
        match &mut self.source {
            Source::Lines(lines) => lines.end(),
            Source::Binary(records, _) => records.end(),
        }
    }

    /// The number of the record last read.
    pub fn line_number(&self) -> u64 {
        match &self.source {
            Source::Lines(lines) => lines.number,
            Source::Binary(records, _) => records.number,
        }
    }

    /// True once the data's end was met, be it the stream's or a marker.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next row's input columns; `None` if more bytes are needed, or at the end. 22P02, 22P03, 22P04 …,
    /// with CONTEXT.
    pub fn next(&mut self, format: &FormatContext) -> Result<Option<Row>> {
        match &mut self.source {
            Source::Binary(records, places) => {
                match records.cut(self.columns.len(), places) {
                    Ok(binary::Cut::Record) => {}
                    Ok(binary::Cut::More) => return Ok(None),
                    Ok(binary::Cut::End) => {
                        self.ended = true;
                        return Ok(None);
                    }
                    Err(error) => return Err(self.in_line(error)),
                }
                self.binary_row().map(Some)
            }
            Source::Lines(_) => self.text_row(format),
        }
    }

    fn binary_row(&self) -> Result<Row> {
        let Source::Binary(records, places) = &self.source else { return Ok(Row::new()) };
        let mut row = Row::with_capacity(self.columns.len());
        for (place, column) in places.iter().zip(&self.columns) {
            row.push(match place {
                None => Datum::Null,
                Some((from, to)) => {
                    let bytes = records.bytes().get(*from..*to).unwrap_or_default();
                    types::parse_binary(bytes, &column.ty)
                        .and_then(|value| coerce_to_modifier(value, &column.ty, false))
                        .map_err(|error| self.context(error, &format!(", column {}", column.name)))?
                }
            });
        }
        Ok(row)
    }

    fn text_row(&mut self, format: &FormatContext) -> Result<Option<Row>> {
        loop {
            let Source::Lines(lines) = &mut self.source else { return Ok(None) };
            self.line = None;
            let (from, to) = match lines.cut() {
                Ok(line::Cut::Line(from, to)) => (from, to),
                Ok(line::Cut::More) => return Ok(None),
                Ok(line::Cut::End) => {
                    self.ended = true;
                    return Ok(None);
                }
                Err(error) => return Err(self.in_line(error)),
            };
            self.line = Some((from, to));
            let header = std::mem::take(&mut self.header);
            if header == Header::On {
                continue;
            }
            let Source::Lines(lines) = &self.source else { return Ok(None) };
            let line = lines.bytes().get(from..to).unwrap_or_default();
            let split = match self.options.format {
                CopyFormat::Csv => csv::split(line, &self.options, &mut self.record),
                _ => {
                    text::split(line, &self.options, &mut self.record);
                    Ok(())
                }
            };
            split.map_err(|error| self.in_line(error))?;
            if header == Header::Match {
                self.match_header().map_err(|error| self.in_line(error))?;
                continue;
            }
            return self.values(format).map(Some);
        }
    }

    /// The values of the record that was cut.
    fn values(&self, format: &FormatContext) -> Result<Row> {
        let record = &self.record;
        let whole = std::str::from_utf8(&record.bytes).ok().filter(|text| !text.contains('\0'));
        if whole.is_none() {
            return Err(self.in_line(not_text(&record.bytes)));
        }
        let mut row = Row::with_capacity(self.columns.len());
        for (i, column) in self.columns.iter().enumerate() {
            let Some(&(from, to, null)) = record.values.get(i) else {
                // An empty line is one empty value, which is one value too few only where there are more.
                let message = format!("missing data for column \"{}\"", column.name);
                return Err(self.in_line(SqlError::new("22P04", message)));
            };
            if null {
                row.push(Datum::Null);
                continue;
            }
            let Some(text) = whole.and_then(|text| text.get(from..to)) else {
                // The values are valid together and not one by one: a character was cut by a delimiter.
                return Err(self.in_line(not_text(record.bytes.get(from..to).unwrap_or_default())));
            };
            let value = types::parse(text, &column.ty, format)
                .and_then(|value| coerce_to_modifier(value, &column.ty, false))
                .map_err(|error| {
                    self.context(error, &format!(", column {}: \"{}\"", column.name, shown(text.as_bytes())))
                })?;
            row.push(value);
        }
        if record.len() > self.columns.len() {
            return Err(self.in_line(SqlError::new("22P04", "extra data after last expected column")));
        }
        Ok(row)
    }

    fn match_header(&self) -> Result<()> {
        let record = &self.record;
        if record.len() != self.columns.len() {
            return Err(SqlError::new(
                "22P04",
                format!(
                    "wrong number of fields in header line: got {}, expected {}",
                    record.len(),
                    self.columns.len()
                ),
            ));
        }
        for (i, (column, (from, to, null))) in self.columns.iter().zip(&record.values).enumerate() {
            let name = record.bytes.get(*from..*to).unwrap_or_default();
            let got = if *null {
                format!("null value (\"{}\")", self.options.null)
            } else if name == column.name.as_bytes() {
                continue;
            } else {
                format!("\"{}\"", String::from_utf8_lossy(name))
            };
            return Err(SqlError::new(
                "22P04",
                format!(
                    "column name mismatch in header line field {}: got {got}, expected \"{}\"",
                    i + 1,
                    column.name
                ),
            ));
        }
        Ok(())
    }

    /// The error, with the line it is in.
    pub fn in_line(&self, error: SqlError) -> SqlError {
        let line = match (&self.source, self.line) {
            (Source::Lines(lines), Some((from, to))) => lines.bytes().get(from..to),
            _ => None,
        };
        match line {
            Some(line) => self.context(error, &format!(": \"{}\"", shown(line))),
            None => self.context(error, ""),
        }
    }

    fn context(&self, error: SqlError, rest: &str) -> SqlError {
        self.at_line(error, self.line_number(), rest)
    }

    /// The error, in the record of this number.
    pub fn at_line(&self, mut error: SqlError, number: u64, rest: &str) -> SqlError {
        if error.context.is_none() {
            error.context = Some(format!("COPY {}, line {number}{rest}", self.table.name));
            error.position = None;
        }
        error
    }
}

/// As much of a value as CONTEXT shows.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.len() <= SHOWN {
        return text.into_owned();
    }
    let end = (0..=SHOWN).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    format!("{}...", &text[..end])
}

/// 22021
fn not_text(bytes: &[u8]) -> SqlError {
    let wrong: Vec<u8> = match std::str::from_utf8(bytes) {
        Ok(_) => vec![0],
        Err(e) => {
            let rest = bytes.get(e.valid_up_to()..).unwrap_or_default();
            rest.iter().take(e.error_len().unwrap_or(rest.len()).clamp(1, 4)).copied().collect()
        }
    };
    let wrong: Vec<String> = wrong.iter().map(|b| format!("0x{b:02x}")).collect();
    let message = format!("invalid byte sequence for encoding \"UTF8\": {}", wrong.join(" "));
    SqlError::character_not_in_repertoire(message)
}

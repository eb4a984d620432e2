//! The CSV format: RFC 4180 with PostgreSQL's NULL.

use super::decode::Record;
use super::options::CopyOptions;
use crate::error::{Result, SqlError};

/// Cuts a line into values. 22P04
pub(super) fn split(line: &[u8], options: &CopyOptions, record: &mut Record) -> Result<()> {
    record.clear();
    let mut bytes = line.iter().copied().peekable();
    loop {
        let value = record.bytes.len();
        let (mut quoted, mut more) = (false, false);
        'value: while let Some(c) = bytes.next() {
            if c == options.delimiter {
                more = true;
                break;
            }
            if c != options.quote {
                record.bytes.push(c);
                continue;
            }
            quoted = true;
            loop {
                let Some(c) = bytes.next() else {
                    return Err(SqlError::new("22P04", "unterminated CSV quoted field"));
                };
                if c == options.escape
                    && let Some(&next) = bytes.peek()
                    && (next == options.escape || next == options.quote)
                {
                    record.bytes.push(next);
                    bytes.next();
                } else if c == options.quote {
                    continue 'value;
                } else {
                    record.bytes.push(c);
                }
            }
        }
        let null = options.null.as_bytes();
        let is_null = &record.bytes[value..] == null;
        let column = record.len();
        if is_null && !quoted && !record.force_not_null(column) || is_null && record.force_null(column) {
            record.bytes.truncate(value);
            record.push(value, true);
        } else {
            record.push(value, false);
        }
        if !more {
            return Ok(());
        }
    }
}

/// Appends a value, in quotes where it needs them.
pub(super) fn write(value: &[u8], options: &CopyOptions, force: bool, alone: bool, out: &mut Vec<u8>) {
    let special = |b: &u8| *b == options.delimiter || *b == options.quote || matches!(b, b'\n' | b'\r');
    let quoted =
        force || value == options.null.as_bytes() || (alone && value == b"\\.") || value.iter().any(special);
    if !quoted {
        out.extend_from_slice(value);
        return;
    }
    out.push(options.quote);
    for &b in value {
        if b == options.quote || b == options.escape {
            out.push(options.escape);
        }
        out.push(b);
    }
    out.push(options.quote);
}

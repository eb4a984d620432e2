//! The text format: values between delimiters, backslash escapes.

use super::decode::Record;
use super::options::CopyOptions;

/// Cuts a line into values.
pub(super) fn split(line: &[u8], options: &CopyOptions, record: &mut Record) {
    record.clear();
    let delimiter = options.delimiter;
    let mut i = 0;
    loop {
        let (raw, value) = (i, record.bytes.len());
        loop {
            let rest = line.get(i..).unwrap_or_default();
            let stop = rest.iter().position(|b| *b == delimiter || *b == b'\\').unwrap_or(rest.len());
            record.bytes.extend_from_slice(&rest[..stop]);
            i += stop;
            if line.get(i) != Some(&b'\\') {
                break;
            }
            i = unescape(line, i + 1, &mut record.bytes);
        }
        let is_null = line.get(raw..i) == Some(options.null.as_bytes());
        if is_null {
            record.bytes.truncate(value);
        }
        record.push(value, is_null);
        if i >= line.len() {
            return;
        }
        i += 1;
    }
}

/// What the backslash before `i` says; returns where it ends.
fn unescape(line: &[u8], i: usize, out: &mut Vec<u8>) -> usize {
    let Some(&c) = line.get(i) else {
        out.push(b'\\');
        return i;
    };
    let digits = |from: usize, most: usize, radix: u32| {
        let mut value = 0_u32;
        let mut at = from;
        while at < from + most
            && let Some(digit) = line.get(at).and_then(|b| (*b as char).to_digit(radix))
        {
            value = value * radix + digit;
            at += 1;
        }
        (value as u8, at)
    };
    match c {
        b'0'..=b'7' => {
            let (value, next) = digits(i, 3, 8);
            out.push(value);
            return next;
        }
        b'x' => {
            let (value, next) = digits(i + 1, 2, 16);
            if next > i + 1 {
                out.push(value);
                return next;
            }
            out.push(b'x');
        }
        b'b' => out.push(8),
        b'f' => out.push(12),
        b'n' => out.push(b'\n'),
        b'r' => out.push(b'\r'),
        b't' => out.push(b'\t'),
        b'v' => out.push(11),
        other => out.push(other),
    }
    i + 1
}

/// Appends a value, escaped.
pub(super) fn write(value: &[u8], delimiter: u8, out: &mut Vec<u8>) {
    let mut rest = value;
    while let Some(stop) = rest.iter().position(|b| *b == delimiter || *b == b'\\' || (8..=13).contains(b)) {
        out.extend_from_slice(&rest[..stop]);
        out.push(b'\\');
        out.push(match rest[stop] {
            8 => b'b',
            9 => b't',
            10 => b'n',
            11 => b'v',
            12 => b'f',
            13 => b'r',
            other => other,
        });
        rest = &rest[stop + 1..];
    }
    out.extend_from_slice(rest);
}

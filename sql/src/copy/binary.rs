//! The binary format: a signature, records of counted values, a count of −1.

use super::MAX_RECORD;
use crate::error::{Result, SqlError};

/// What the stream begins with.
pub(super) const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Flag bits that must be understood; that OIDs are there is one nobody sets any more.
const CRITICAL_FLAGS: u32 = 0xffff_0000;

/// What comes next in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Header,
    Records,
    Nothing,
}

/// A stream of binary records.
#[derive(Debug)]
pub(super) struct Records {
    bytes: Vec<u8>,
    start: usize,
    expect: Expect,
    at_end: bool,
    /// Records begun so far
    pub(super) number: u64,
}

/// A record's values, as places in [`Records::bytes`]; `None` is NULL.
pub(super) type Places = Vec<Option<(usize, usize)>>;

/// What the next look gave.
pub(super) enum Cut {
    /// A record is in the places
    Record,
    /// More bytes are needed
    More,
    /// There are no more
    End,
}

fn bad(message: impl Into<String>) -> SqlError {
    SqlError::new("22P04", message)
}

impl Records {
    pub(super) fn new() -> Records {
        Records { bytes: Vec::new(), start: 0, expect: Expect::Header, at_end: false, number: 0 }
    }

    /// More bytes of the stream. 22P04, 54000
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        if self.expect == Expect::Nothing && !bytes.is_empty() {
            return Err(bad("received copy data after EOF marker"));
        }
        self.bytes.drain(..self.start);
        self.start = 0;
        if self.bytes.len() + bytes.len() > MAX_RECORD {
            return Err(SqlError::program_limit_exceeded("a record of COPY data is too long")
                .with_detail(format!("A record may have {MAX_RECORD} bytes.")));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The stream has ended.
    pub(super) fn end(&mut self) {
        self.at_end = true;
    }

    /// The bytes that the places are about.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn short(&self) -> Result<Cut> {
        if self.at_end { Err(bad("unexpected EOF in COPY data")) } else { Ok(Cut::More) }
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    /// The next record of so many columns. 22P04
    pub(super) fn cut(&mut self, columns: usize, places: &mut Places) -> Result<Cut> {
        if self.expect == Expect::Header && !self.header()? {
            return Ok(Cut::More);
        }
        if self.expect == Expect::Nothing {
            return Ok(Cut::End);
        }
        let Some(count) = self.bytes.get(self.start..self.start + 2) else {
            if self.at_end && self.start == self.bytes.len() {
                // PostgreSQL takes the end of the stream for the end of the data.
                self.expect = Expect::Nothing;
                return Ok(Cut::End);
            }
            return self.short();
        };
        let count = i16::from_be_bytes(count.try_into().map_err(|_| bad("unexpected EOF in COPY data"))?);
        if count == -1 {
            self.start += 2;
            self.expect = Expect::Nothing;
            if self.start < self.bytes.len() {
                return Err(bad("received copy data after EOF marker"));
            }
            return Ok(Cut::End);
        }
        if usize::try_from(count) != Ok(columns) {
            self.number += 1;
            return Err(bad(format!("row field count is {count}, expected {columns}")));
        }
        places.clear();
        let mut at = self.start + 2;
        for _ in 0..columns {
            let Some(length) = self.word(at) else { return self.short() };
            at += 4;
            let length = length as i32;
            if length == -1 {
                places.push(None);
                continue;
            }
            let Ok(length) = usize::try_from(length) else { return Err(bad("invalid field size")) };
            if length > MAX_RECORD {
                return Err(bad("invalid field size"));
            }
            if self.bytes.len() < at + length {
                return self.short();
            }
            places.push(Some((at, at + length)));
            at += length;
        }
        self.start = at;
        self.number += 1;
        Ok(Cut::Record)
    }

    /// False if it is not complete.
    fn header(&mut self) -> Result<bool> {
        let known = self.bytes.len().min(SIGNATURE.len());
        if self.bytes[..known] != SIGNATURE[..known] || (self.at_end && known < SIGNATURE.len()) {
            return Err(bad("COPY file signature not recognized"));
        }
        let Some(flags) = self.word(SIGNATURE.len()) else {
            return if self.at_end {
                Err(bad("invalid COPY file header (missing flags)"))
            } else {
                Ok(false)
            };
        };
        if flags & (1 << 16) != 0 {
            return Err(bad("invalid COPY file header (WITH OIDS)"));
        }
        if flags & CRITICAL_FLAGS != 0 {
            return Err(bad("unrecognized critical flags in COPY file header"));
        }
        let Some(extension) = self.word(SIGNATURE.len() + 4) else {
            return if self.at_end {
                Err(bad("invalid COPY file header (missing length)"))
            } else {
                Ok(false)
            };
        };
        let end = SIGNATURE.len() + 8 + extension as usize;
        if extension as i32 != 0 && extension as usize > MAX_RECORD {
            return Err(bad("invalid COPY file header (wrong length)"));
        }
        if self.bytes.len() < end {
            return if self.at_end { Err(bad("invalid COPY file header (wrong length)")) } else { Ok(false) };
        }
        self.start = end;
        self.expect = Expect::Records;
        Ok(true)
    }
}

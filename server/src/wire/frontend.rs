//! What clients send: frames cut out of the byte stream, and the messages inside them.
//!
//! ```text
//!   inbox   51 00 00 00 0d  "SELECT 1" 00 │ 53 00 00 00 04 │ 50 00 …
//!           Q  length       body          │ S              │ P (not all of it here yet)
//! ```
//!
//! A frame is cut only once it is complete, and its length is judged before a byte of it is stored, so a
//! length that lies costs nothing. A message is then read inside its own frame: it cannot reach into the
//! next one, and a body that is too short or too long is an error of that message alone. Strings are
//! borrowed from the frame, and parameters share its memory.

use bytes::{Bytes, BytesMut};

use amphora_sql::error::{Result, SqlError};

/// The longest message that is accepted, in bytes. PostgreSQL takes 1 GB; a statement or parameter of more
/// than this would not survive the executor's memory budget either.
pub const MAX_MESSAGE: usize = 256 << 20;
/// The longest message of the kinds that hold only names and numbers.
pub const MAX_SMALL_MESSAGE: usize = 10_000;
/// The longest startup packet (PostgreSQL's `MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_STARTUP: usize = 10_000;

/// A complete message: its kind and its body.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The type byte
    pub kind: u8,
    /// What follows the length
    pub body: Bytes,
}

/// What `Close` and `Describe` are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement
    Statement,
    /// A portal
    Portal,
}

/// A message of an established connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Simple query
    Query(&'a str),
    /// Prepares a statement
    Parse {
        /// Its name; empty for the unnamed one
        name: &'a str,
        /// The statement
        sql: &'a str,
        /// OIDs of the parameters' types, 0 where not given
        types: Vec<u32>,
    },
    /// Makes a portal from a statement
    Bind {
        /// The portal's name; empty for the unnamed one
        portal: &'a str,
        /// The statement's name
        statement: &'a str,
        /// Formats of the parameters: none, one for all, or one each
        formats: Vec<i16>,
        /// The parameters; `None` is NULL
        parameters: Vec<Option<Bytes>>,
        /// Formats of the result's columns: none, one for all, or one each
        results: Vec<i16>,
    },
    /// Asks what a statement or portal gives
    Describe(Target, &'a str),
    /// Runs a portal
    Execute {
        /// The portal
        portal: &'a str,
        /// At most so many rows; 0 is all
        max_rows: u32,
    },
    /// Forgets a statement or portal
    Close(Target, &'a str),
    /// Sends what is buffered
    Flush,
    /// Ends a batch
    Sync,
    /// The client says good-bye
    Terminate,
    /// A part of COPY's data. Outside COPY PostgreSQL ignores it and what follows, since a client may have
    /// sent it before it learned of an error.
    CopyData(Bytes),
    /// All of COPY's data has been sent
    CopyDone,
    /// The client gives COPY up, and why
    CopyFail(&'a str),
    /// The function call protocol of version 3.0, obsolete since PostgreSQL 7.4
    FunctionCall,
}

/// Cuts the next complete frame out of `inbox`; `None` if more bytes are needed. An error is fatal: where
/// the next message begins is not known any more.
pub fn next_frame(inbox: &mut BytesMut) -> Result<Option<Frame>> {
    let Some(&kind) = inbox.first() else { return Ok(None) };
    let limit = match kind {
        b'Q' | b'P' | b'B' | b'F' | b'd' | b'f' => MAX_MESSAGE,
        b'D' | b'E' | b'C' | b'H' | b'S' | b'X' | b'c' => MAX_SMALL_MESSAGE,
        other => return Err(SqlError::protocol_violation(format!("invalid frontend message type {other}"))),
    };
    let Some(length) = big_endian(inbox, 1) else { return Ok(None) };
    let length = length as usize;
    if length < 4 || length > limit {
        return Err(SqlError::protocol_violation(format!("invalid message length {length}"))
            .with_detail(format!("Messages of type \"{}\" may have 4 to {limit} bytes.", kind as char)));
    }
    if inbox.len() < length + 1 {
        return Ok(None);
    }
    let frame = inbox.split_to(length + 1).freeze();
    Ok(Some(Frame { kind, body: frame.slice(5..) }))
}

/// Cuts the next answer to an authentication request (`p`) out of `inbox`. Nothing else may come before the
/// session has begun.
pub fn next_answer(inbox: &mut BytesMut) -> Result<Option<Bytes>> {
    match inbox.first() {
        None => return Ok(None),
        Some(b'p') => {}
        Some(other) => {
            return Err(SqlError::protocol_violation(format!(
                "expected SASL response, got message type {other}"
            )));
        }
    }
    let Some(length) = big_endian(inbox, 1) else { return Ok(None) };
    let length = length as usize;
    if !(4..=MAX_SMALL_MESSAGE).contains(&length) {
        return Err(SqlError::protocol_violation(format!("invalid message length {length}")));
    }
    if inbox.len() < length + 1 {
        return Ok(None);
    }
    Ok(Some(inbox.split_to(length + 1).freeze().slice(5..)))
}

/// The mechanism and the data of a client's first answer.
pub fn sasl_initial_response(answer: &[u8]) -> Result<(&str, &str)> {
    let malformed = || SqlError::protocol_violation("malformed SASL response");
    let end = answer.iter().position(|b| *b == 0).ok_or_else(malformed)?;
    let (mechanism, rest) = answer.split_at(end);
    let length = big_endian(rest, 1).ok_or_else(malformed)? as usize;
    let data = rest.get(5..).filter(|data| data.len() == length).ok_or_else(malformed)?;
    Ok((text(mechanism)?, text(data)?))
}

/// The data of a client's later answer.
pub fn sasl_response(answer: &[u8]) -> Result<&str> {
    text(answer)
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| SqlError::protocol_violation("malformed SASL response"))
}

fn big_endian(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(word.try_into().ok()?))
}

impl Frame {
    /// Reads the message. An error concerns this message alone.
    pub fn message(&self) -> Result<Message<'_>> {
        let mut body = Body { bytes: &self.body, frame: &self.body };
        let message = match self.kind {
            b'Q' => Message::Query(body.text()?),
            b'P' => {
                let (name, sql) = (body.text()?, body.text()?);
                let count = body.u16()?;
                body.holds(usize::from(count), 4)?;
                let types = (0..count).map(|_| body.u32()).collect::<Result<_>>()?;
                Message::Parse { name, sql, types }
            }
            b'B' => {
                let (portal, statement) = (body.text()?, body.text()?);
                let formats = body.formats()?;
                let count = body.u16()?;
                body.holds(usize::from(count), 4)?;
                let parameters = (0..count).map(|_| body.value()).collect::<Result<_>>()?;
                let results = body.formats()?;
                Message::Bind { portal, statement, formats, parameters, results }
            }
            b'D' => Message::Describe(body.target()?, body.text()?),
            b'E' => {
                let portal = body.text()?;
                // A negative limit is no limit, as in PostgreSQL.
                let max_rows = body.u32()?;
                Message::Execute { portal, max_rows: if max_rows > i32::MAX as u32 { 0 } else { max_rows } }
            }
            b'C' => Message::Close(body.target()?, body.text()?),
            b'H' => Message::Flush,
            b'S' => Message::Sync,
            b'X' => Message::Terminate,
            b'F' => return Ok(Message::FunctionCall),
            b'd' => return Ok(Message::CopyData(self.body.clone())),
            b'c' => Message::CopyDone,
            b'f' => Message::CopyFail(body.text()?),
            other => {
                return Err(SqlError::protocol_violation(format!("invalid frontend message type {other}")));
            }
        };
        if body.bytes.is_empty() {
            Ok(message)
        } else {
            Err(SqlError::protocol_violation("invalid message format"))
        }
    }
}

/// The rest of a body.
struct Body<'a> {
    bytes: &'a [u8],
    frame: &'a Bytes,
}

fn short() -> SqlError {
    SqlError::protocol_violation("insufficient data left in message")
}

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.bytes.split_at_checked(count).ok_or_else(short)?;
        self.bytes = rest;
        Ok(head)
    }

    /// Refuses a count of elements that the rest of the message cannot hold, before memory is set aside.
    fn holds(&self, count: usize, width: usize) -> Result<()> {
        if count * width <= self.bytes.len() { Ok(()) } else { Err(short()) }
    }

    fn u16(&mut self) -> Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes(bytes.try_into().map_err(|_| short())?))
    }

    fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes(bytes.try_into().map_err(|_| short())?))
    }

    fn formats(&mut self) -> Result<Vec<i16>> {
        let count = self.u16()?;
        self.holds(usize::from(count), 2)?;
        (0..count).map(|_| self.u16().map(|f| f as i16)).collect()
    }

    fn value(&mut self) -> Result<Option<Bytes>> {
        let length = self.u32()? as i32;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| short())?;
        Ok(Some(self.frame.slice_ref(self.take(length)?)))
    }

    fn target(&mut self) -> Result<Target> {
        match self.take(1)? {
            b"S" => Ok(Target::Statement),
            b"P" => Ok(Target::Portal),
            other => Err(SqlError::protocol_violation(format!("invalid target of a message: {other:?}"))),
        }
    }

    /// A string up to its zero byte.
    fn text(&mut self) -> Result<&'a str> {
        let end = self.bytes.iter().position(|b| *b == 0);
        let end = end.ok_or_else(|| SqlError::protocol_violation("invalid string in message"))?;
        let text = utf8(self.take(end)?)?;
        self.take(1)?;
        Ok(text)
    }
}

/// UTF-8, or PostgreSQL's error that shows the first bytes that are not.
pub fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|e| {
        let wrong = bytes.get(e.valid_up_to()..).unwrap_or_default();
        let shown = e.error_len().unwrap_or(wrong.len()).clamp(1, 4);
        let shown: Vec<String> = wrong.iter().take(shown).map(|b| format!("0x{b:02x}")).collect();
        SqlError::character_not_in_repertoire(format!(
            "invalid byte sequence for encoding \"UTF8\": {}",
            shown.join(" ")
        ))
    })
}

/// The first packet of a connection, which has no type byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Asks for TLS, or for GSSAPI encryption
    Encryption,
    /// Asks to stop what another connection is running
    Cancel {
        /// Its process id, from BackendKeyData
        pid: i32,
        /// Its secret, from BackendKeyData
        secret: Bytes,
    },
    /// Opens a session
    Startup {
        /// Minor version of protocol 3
        minor: u16,
        /// Everything the client wants: user, database, settings
        parameters: Vec<(String, String)>,
    },
}

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// Cuts the opening packet out of `inbox`; `None` if more bytes are needed. An error is fatal.
pub fn next_opening(inbox: &mut BytesMut) -> Result<Option<Opening>> {
    let Some(length) = big_endian(inbox, 0) else { return Ok(None) };
    let length = length as usize;
    if !(8..=MAX_STARTUP).contains(&length) {
        return Err(SqlError::protocol_violation("invalid length of startup packet"));
    }
    if inbox.len() < length {
        return Ok(None);
    }
    let packet = inbox.split_to(length).freeze();
    let packet = packet.slice(4..);
    let mut body = Body { bytes: &packet, frame: &packet };
    match body.u32()? {
        SSL_REQUEST | GSS_REQUEST => Ok(Some(Opening::Encryption)),
        CANCEL_REQUEST => {
            let pid = body.u32()? as i32;
            Ok(Some(Opening::Cancel { pid, secret: Bytes::copy_from_slice(body.bytes) }))
        }
        version if version >> 16 == 3 => {
            let mut parameters = Vec::new();
            loop {
                let name = body.text()?;
                if name.is_empty() {
                    break;
                }
                parameters.push((name.to_owned(), body.text()?.to_owned()));
            }
            if !body.bytes.is_empty() {
                return Err(SqlError::protocol_violation(
                    "invalid startup packet layout: expected terminator as last byte",
                ));
            }
            Ok(Some(Opening::Startup { minor: version as u16, parameters }))
        }
        version => Err(SqlError::feature_not_supported(format!(
            "unsupported frontend protocol {}.{}: server supports 3.0 to 3.0",
            version >> 16,
            version & 0xffff
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &[u8]) -> BytesMut {
        let mut inbox = BytesMut::new();
        inbox.extend_from_slice(&[kind]);
        inbox.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        inbox.extend_from_slice(body);
        inbox
    }

    fn state(result: Result<Message<'_>>) -> &'static str {
        result.expect_err("refused").sqlstate
    }

    #[test]
    fn a_frame_is_cut_only_when_it_is_complete() {
        let mut whole = frame(b'Q', b"SELECT 1\0");
        whole.extend_from_slice(b"S\0\0");
        for cut in 0..14 {
            let mut part = BytesMut::from(&whole[..cut]);
            assert!(next_frame(&mut part).unwrap().is_none());
        }
        let first = next_frame(&mut whole).unwrap().unwrap();
        assert_eq!(first.message().unwrap(), Message::Query("SELECT 1"));
        assert!(next_frame(&mut whole).unwrap().is_none());
        assert_eq!(whole.len(), 3);
    }

    #[test]
    fn lengths_that_lie_are_refused_before_anything_is_stored() {
        for length in [0_u32, 3, 0x7fff_ffff, 0xffff_ffff] {
            let mut inbox = BytesMut::from(&b"Q"[..]);
            inbox.extend_from_slice(&length.to_be_bytes());
            assert_eq!(next_frame(&mut inbox).expect_err("refused").sqlstate, "08P01");
        }
        let mut sync = BytesMut::from(&b"S\0\x01\0\0"[..]);
        assert!(next_frame(&mut sync).is_err(), "a Sync of 64 KB");
        assert!(next_frame(&mut BytesMut::from(&b"\xff"[..])).is_err(), "an unknown type");
    }

    #[test]
    fn no_body_panics_wherever_it_is_cut() {
        let bind = b"portal\0stmt\0\0\x02\0\0\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x01\0\x01";
        let whole = frame(b'B', bind);
        let mut complete = whole.clone();
        let complete = next_frame(&mut complete).unwrap().unwrap();
        let Message::Bind { parameters, formats, results, .. } = complete.message().unwrap() else {
            panic!("a bind")
        };
        assert_eq!(parameters, vec![Some(Bytes::from_static(b"ab")), None]);
        assert_eq!((formats, results), (vec![0, 1], vec![1]));
        for cut in 0..bind.len() {
            let mut inbox = frame(b'B', &bind[..cut]);
            assert_eq!(state(next_frame(&mut inbox).unwrap().unwrap().message()), "08P01");
        }
        for kind in [b'Q', b'P', b'B', b'D', b'E', b'C'] {
            for body in
                [&b""[..], b"\xff", b"\xff\xff\xff\xff", b"a\0\xff\xff", b"\0\0\xff\xff\0\0", b"a\0\0"]
            {
                let mut inbox = frame(kind, body);
                let message = next_frame(&mut inbox).unwrap().unwrap();
                assert!(message.message().is_err(), "{} {body:?}", kind as char);
            }
        }
    }

    #[test]
    fn text_must_be_utf8() {
        let mut inbox = frame(b'Q', b"SELECT '\xc3\x28'\0");
        let frame = next_frame(&mut inbox).unwrap().unwrap();
        let error = frame.message().expect_err("refused");
        assert_eq!(error.sqlstate, "22021");
        assert!(error.message.contains("0xc3"), "{}", error.message);
    }

    #[test]
    fn openings() {
        let mut ssl = BytesMut::from(&[0, 0, 0, 8, 4, 210, 22, 47][..]);
        assert_eq!(next_opening(&mut ssl).unwrap(), Some(Opening::Encryption));
        let mut start = BytesMut::from(&b"\0\0\0\x13\0\x03\0\0user\0ada\0\0 rest"[..]);
        start[3] = 18;
        let parameters = vec![("user".to_owned(), "ada".to_owned())];
        assert_eq!(next_opening(&mut start).unwrap(), Some(Opening::Startup { minor: 0, parameters }));
        for bad in [&b"\0\0\0\0\0\x03\0\0"[..], b"\x7f\xff\xff\xff\0\x03\0\0", b"\0\0\0\x0a\0\x03\0\0ab"] {
            let error = next_opening(&mut BytesMut::from(bad)).expect_err("refused");
            assert_eq!(error.sqlstate, "08P01");
        }
        let error = next_opening(&mut BytesMut::from(&b"\0\0\0\x08\0\x02\0\0"[..])).expect_err("version 2");
        assert_eq!(error.sqlstate, "0A000");
    }
}

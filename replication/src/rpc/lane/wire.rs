//! What stands on the wire of a lane. All numbers are little endian.
//!
//! ```text
//!   hello    magic 8 │ protocol 2+2 │ cluster 16 │ from 8 │ to 8          once, from the caller
//!   verdict  0                                                        once, from the server: welcome
//!            1 │ length 2 │ why, in words                                  or not
//!   frame    length of the body 4 │ id of the call 8 │ kind 1 │ body
//! ```
//!
//! The hello and the verdict stay as they are in all versions, so that nodes of different versions
//! can tell each other so.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use uuid::Uuid;

use super::MAX_FRAME_BYTES;
use crate::NodeId;
use crate::rpc::handshake::{Claim, Versions};

/// What a lane begins with. Its first byte is not HTTP/2's.
pub const MAGIC: [u8; 8] = *b"AMPHORA\n";
/// Bytes of a hello.
pub const HELLO_BYTES: usize = 8 + 4 + 16 + 8 + 8;
/// Bytes before a frame's body.
pub const HEADER_BYTES: usize = 4 + 8 + 1;
/// The longest refusal, in bytes.
const MAX_REASON_BYTES: usize = 1 << 10;

/// Who calls whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The versions of the messages that the caller speaks
    pub protocol: Versions,
    /// The caller's cluster
    pub cluster: Uuid,
    /// The caller
    pub from: NodeId,
    /// Whom it means to reach
    pub to: NodeId,
}

impl Hello {
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        let mut rest = &mut bytes[..];
        rest.put_slice(&MAGIC);
        rest.put_u32_le(self.protocol.pack());
        rest.put_slice(self.cluster.as_bytes());
        rest.put_u64_le(self.from);
        rest.put_u64_le(self.to);
        bytes
    }

    /// `None` if it is no hello.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Option<Hello> {
        let mut rest = bytes.strip_prefix(&MAGIC)?;
        let protocol = Versions::unpack(rest.get_u32_le());
        let mut cluster = [0; 16];
        rest.copy_to_slice(&mut cluster);
        let (from, to) = (rest.get_u64_le(), rest.get_u64_le());
        Some(Hello { protocol, cluster: Uuid::from_bytes(cluster), from, to })
    }

    /// The same in the words of the other lanes' headers.
    pub fn claim(&self) -> Claim {
        Claim {
            protocol: self.protocol.to_string(),
            cluster: self.cluster.to_string(),
            from: self.from.to_string(),
            to: self.to.to_string(),
        }
    }
}

/// A server's answer to a hello.
pub fn encode_verdict(verdict: &Result<(), String>) -> BytesMut {
    let mut bytes = BytesMut::new();
    match verdict {
        Ok(()) => bytes.put_u8(0),
        Err(reason) => {
            let reason = &reason.as_bytes()[..reason.floor_char_boundary(MAX_REASON_BYTES)];
            bytes.put_u8(1);
            bytes.put_u16_le(reason.len() as u16);
            bytes.put_slice(reason);
        }
    }
    bytes
}

/// Reads a server's answer to a hello. The inner error is its refusal.
pub async fn read_verdict(socket: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Result<(), String>> {
    if socket.read_u8().await? == 0 {
        return Ok(Ok(()));
    }
    let length = usize::from(socket.read_u16_le().await?).min(MAX_REASON_BYTES);
    let mut reason = vec![0; length];
    socket.read_exact(&mut reason).await?;
    Ok(Err(String::from_utf8_lossy(&reason).into_owned()))
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request, encoded
    Request,
    /// Its answer, encoded
    Reply,
    /// The request was certainly not handled, and is not to be repeated: why
    Refused,
    /// The request was certainly not handled, and may be repeated: why
    NotNow,
    /// The request may have been handled: why there is no answer
    Failed,
    /// Are you there?
    Ping,
    /// I am.
    Pong,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::*;
        [Request, Reply, Refused, NotNow, Failed, Ping, Pong].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which call it belongs to; 0 for pings
    pub id: u64,
    /// What it is
    pub kind: Kind,
    /// What it says
    pub body: Bytes,
}

/// Adds a frame.
pub fn put(buffer: &mut BytesMut, id: u64, kind: Kind, body: &[u8]) {
    debug_assert!(body.len() <= MAX_FRAME_BYTES);
    buffer.reserve(HEADER_BYTES + body.len());
    buffer.put_u32_le(body.len() as u32);
    buffer.put_u64_le(id);
    buffer.put_u8(kind as u8);
    buffer.put_slice(body);
}

/// Takes the next frame, if all of it is here. The error is what is wrong with it: the connection cannot be
/// read any further.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, String> {
    if buffer.len() < HEADER_BYTES {
        return Ok(None);
    }
    let mut header = &buffer[..HEADER_BYTES];
    let length = header.get_u32_le() as usize;
    let id = header.get_u64_le();
    let kind = header.get_u8();
    let kind = Kind::from_byte(kind).ok_or_else(|| format!("there is no frame of kind {kind}"))?;
    if length > MAX_FRAME_BYTES {
        return Err(format!("a frame of {length} bytes exceeds the limit of {MAX_FRAME_BYTES}"));
    }
    if buffer.len() < HEADER_BYTES + length {
        // What is announced is made room for as it arrives, not before.
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    Ok(Some(Frame { id, kind, body: buffer.split_to(length).freeze() }))
}

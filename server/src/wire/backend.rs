//! What the server says: messages written one after the other into a buffer.
//!
//! Every message is a type byte, a length and a body. The length is filled in when the body is written, so
//! nothing is built twice.

use amphora_sql::error::SqlError;
use amphora_sql::plan::Field;
use amphora_sql::session::{Notice, TransactionStatus};
use bytes::{BufMut, BytesMut};

/// How bad an error is for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed; the session goes on.
    Error,
    /// The session ends.
    Fatal,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        }
    }
}

/// Writes one message: `body` appends to the buffer, and the length is set afterwards.
pub fn message(buffer: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    buffer.put_u8(kind);
    let at = buffer.len();
    buffer.put_u32(0);
    body(buffer);
    set_length(buffer, at, at);
}

/// Sets the length word at `at` to the number of bytes from `from` to the end.
pub fn set_length(buffer: &mut BytesMut, at: usize, from: usize) {
    let length = (buffer.len() - from) as u32;
    if let Some(word) = buffer.get_mut(at..at + 4) {
        word.copy_from_slice(&length.to_be_bytes());
    }
}

fn cstring(buffer: &mut BytesMut, text: &str) {
    // A zero byte would end the string early, and what follows would be taken for the next field.
    if text.as_bytes().contains(&0) {
        buffer.put_slice(text.replace('\0', "").as_bytes());
    } else {
        buffer.put_slice(text.as_bytes());
    }
    buffer.put_u8(0);
}

/// AuthenticationOk.
pub fn authentication_ok(buffer: &mut BytesMut) {
    message(buffer, b'R', |b| b.put_u32(0));
}

/// AuthenticationSASL: the one mechanism offered.
pub fn authentication_sasl(buffer: &mut BytesMut, mechanism: &str) {
    message(buffer, b'R', |b| {
        b.put_u32(10);
        cstring(b, mechanism);
        b.put_u8(0);
    });
}

/// AuthenticationSASLContinue.
pub fn authentication_sasl_continue(buffer: &mut BytesMut, data: &str) {
    message(buffer, b'R', |b| {
        b.put_u32(11);
        b.put_slice(data.as_bytes());
    });
}

/// AuthenticationSASLFinal.
pub fn authentication_sasl_final(buffer: &mut BytesMut, data: &str) {
    message(buffer, b'R', |b| {
        b.put_u32(12);
        b.put_slice(data.as_bytes());
    });
}

/// BackendKeyData: what a client sends back to cancel.
pub fn key_data(buffer: &mut BytesMut, pid: i32, secret: &[u8]) {
    message(buffer, b'K', |b| {
        b.put_i32(pid);
        b.put_slice(secret);
    });
}

/// NegotiateProtocolVersion: protocol 3.0, and the options that are not known.
pub fn negotiate_version(buffer: &mut BytesMut, unknown: &[&str]) {
    message(buffer, b'v', |b| {
        b.put_u32(3 << 16);
        b.put_u32(unknown.len() as u32);
        for option in unknown {
            cstring(b, option);
        }
    });
}

/// ParameterStatus.
pub fn parameter_status(buffer: &mut BytesMut, name: &str, value: &str) {
    message(buffer, b'S', |b| {
        cstring(b, name);
        cstring(b, value);
    });
}

/// ReadyForQuery.
pub fn ready(buffer: &mut BytesMut, status: TransactionStatus) {
    message(buffer, b'Z', |b| {
        b.put_u8(match status {
            TransactionStatus::Idle => b'I',
            TransactionStatus::InTransaction => b'T',
            TransactionStatus::Failed => b'E',
        });
    });
}

/// A message without a body: ParseComplete `1`, BindComplete `2`, CloseComplete `3`, NoData `n`,
/// PortalSuspended `s`, EmptyQueryResponse `I`.
pub fn bare(buffer: &mut BytesMut, kind: u8) {
    message(buffer, kind, |_| {});
}

/// CommandComplete.
pub fn complete(buffer: &mut BytesMut, tag: &str) {
    message(buffer, b'C', |b| cstring(b, tag));
}

/// CopyInResponse `G`, CopyOutResponse `H`.
pub fn copy_response(buffer: &mut BytesMut, kind: u8, binary: bool, columns: usize) {
    message(buffer, kind, |b| {
        b.put_u8(u8::from(binary));
        b.put_u16(columns as u16);
        (0..columns).for_each(|_| b.put_u16(u16::from(binary)));
    });
}

/// ParameterDescription.
pub fn parameter_description(buffer: &mut BytesMut, types: &[u32]) {
    message(buffer, b't', |b| {
        b.put_u16(types.len() as u16);
        for oid in types {
            b.put_u32(*oid);
        }
    });
}

/// RowDescription. A CRDT column is described as its base type.
pub fn row_description(buffer: &mut BytesMut, fields: &[Field], formats: &[i16]) {
    message(buffer, b'T', |b| {
        b.put_u16(fields.len() as u16);
        for (i, field) in fields.iter().enumerate() {
            let (table, attribute) = field.origin.unwrap_or((0, 0));
            cstring(b, &field.name);
            b.put_u32(table);
            b.put_i16(attribute);
            b.put_u32(field.ty.oid());
            b.put_i16(field.ty.len());
            b.put_i32(field.ty.modifier());
            b.put_i16(format_of(formats, i));
        }
    });
}

/// The format of column `i`: formats are none (all text), one for all, or one each.
pub fn format_of(formats: &[i16], i: usize) -> i16 {
    match formats {
        [] => 0,
        [all] => *all,
        each => each.get(i).copied().unwrap_or(0),
    }
}

/// ErrorResponse.
pub fn error(buffer: &mut BytesMut, severity: Severity, error: &SqlError) {
    message(buffer, b'E', |b| {
        head(b, severity.as_str(), error.sqlstate, &error.message);
        field(b, b'D', error.detail.as_deref());
        field(b, b'H', error.hint.as_deref());
        if let Some(position) = error.position {
            field(b, b'P', Some(&position.to_string()));
        }
        field(b, b'W', error.context.as_deref());
        field(b, b's', error.schema.as_deref());
        field(b, b't', error.table.as_deref());
        field(b, b'c', error.column.as_deref());
        field(b, b'd', error.data_type.as_deref());
        field(b, b'n', error.constraint.as_deref());
        // JDBC and asyncpg know by PostgreSQL's routine that this one is mended by preparing again.
        if error.sqlstate == "0A000" && error.message == "cached plan must not change result type" {
            field(b, b'R', Some("RevalidateCachedQuery"));
        }
        b.put_u8(0);
    });
}

/// NoticeResponse.
pub fn notice(buffer: &mut BytesMut, notice: &Notice) {
    message(buffer, b'N', |b| {
        head(b, notice.severity, notice.sqlstate, &notice.message);
        field(b, b'D', notice.detail.as_deref());
        field(b, b'H', notice.hint.as_deref());
        b.put_u8(0);
    });
}

fn head(buffer: &mut BytesMut, severity: &str, sqlstate: &str, message: &str) {
    field(buffer, b'S', Some(severity));
    field(buffer, b'V', Some(severity));
    field(buffer, b'C', Some(sqlstate));
    field(buffer, b'M', Some(message));
}

fn field(buffer: &mut BytesMut, kind: u8, text: Option<&str>) {
    if let Some(text) = text {
        buffer.put_u8(kind);
        cstring(buffer, text);
    }
}

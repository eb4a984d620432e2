//! What waits to be sent to a client.
//!
//! Replies gather here and leave in one write, at Sync, at Flush, or when they have grown to
//! [`FULL`]: a system call a message would cost more than most statements. A statement with many rows is
//! held back here by a client that reads slowly ([`Output::flush_if_full`]), so a result is never in memory
//! as a whole.

use std::sync::Arc;

use amphora_sql::error::{Result, SqlError};
use amphora_sql::plan::Field;
use amphora_sql::session::{Notice, Output};
use amphora_sql::types::{self, FormatContext};
use amphora_storage::{DataType, Datum};
use async_trait::async_trait;
use bytes::{BufMut, BytesMut};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::backend;

/// So many bytes are sent without waiting for the end of the batch.
const FULL: usize = 64 << 10;
/// An empty buffer larger than this is given back.
const KEEP: usize = 16 << 10;
/// The longest row, and the longest value: lengths are signed 32-bit numbers on the wire.
const MAX_ROW: usize = 1 << 30;

/// The sending half of a connection.
pub struct Outbox {
    socket: Arc<OwnedWriteHalf>,
    buffer: BytesMut,
    rows: RowEncoder,
    /// In the simple protocol rows are described as they come; in the extended one Describe does it.
    describe: bool,
    broken: bool,
}

impl Outbox {
    /// Sends to this socket.
    pub fn new(socket: Arc<OwnedWriteHalf>) -> Outbox {
        Outbox {
            socket,
            buffer: BytesMut::new(),
            rows: RowEncoder::default(),
            describe: false,
            broken: false,
        }
    }

    /// Where messages are written.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether rows that come are described first.
    pub fn describe_rows(&mut self, describe: bool) {
        self.describe = describe;
    }

    /// Sends all that is buffered.
    pub async fn flush(&mut self) -> std::io::Result<()> {
        if self.broken {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        if !self.buffer.is_empty() {
            if let Err(e) = write_all((*self.socket).as_ref(), &self.buffer).await {
                self.broken = true;
                return Err(e);
            }
            if self.buffer.capacity() > KEEP {
                self.buffer = BytesMut::new();
            } else {
                self.buffer.clear();
            }
        }
        Ok(())
    }

    /// Sends what is buffered, if it is much.
    pub async fn relieve(&mut self) -> std::io::Result<()> {
        if self.buffer.len() >= FULL { self.flush().await } else { Ok(()) }
    }
}

async fn write_all(socket: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match socket.try_write(bytes) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[async_trait]
impl Output for Outbox {
    fn fields(&mut self, fields: &Arc<[Field]>, formats: &[i16], format: &FormatContext) {
        if self.describe {
            backend::row_description(&mut self.buffer, fields, formats);
        }
        self.rows.set(fields, formats, format);
    }

    fn row(&mut self, row: &[Datum]) -> Result<()> {
        self.rows.encode(row, &mut self.buffer)
    }

    async fn flush_if_full(&mut self) -> Result<()> {
        self.relieve().await.map_err(|_| connection_lost())
    }

    fn complete(&mut self, tag: &str) {
        backend::complete(&mut self.buffer, tag);
    }

    fn suspended(&mut self) {
        backend::bare(&mut self.buffer, b's');
    }

    fn empty_query(&mut self) {
        backend::bare(&mut self.buffer, b'I');
    }

    fn notice(&mut self, notice: Notice) {
        backend::notice(&mut self.buffer, &notice);
    }

    fn parameter_status(&mut self, name: &str, value: &str) {
        backend::parameter_status(&mut self.buffer, name, value);
    }
}

impl Outbox {
    /// CopyInResponse, sent at once: the client waits for it before it sends anything.
    pub async fn copy_in(&mut self, binary: bool, columns: usize) -> Result<()> {
        backend::copy_response(&mut self.buffer, b'G', binary, columns);
        self.flush().await.map_err(|_| connection_lost())
    }

    /// CopyOutResponse.
    pub fn copy_out(&mut self, binary: bool, columns: usize) {
        backend::copy_response(&mut self.buffer, b'H', binary, columns);
    }

    /// CopyData.
    pub fn copy_out_data(&mut self, data: &[u8]) {
        backend::message(&mut self.buffer, b'd', |b| b.put_slice(data));
    }

    /// CopyDone.
    pub fn copy_done(&mut self) {
        backend::bare(&mut self.buffer, b'c');
    }
}

/// 08006
pub fn connection_lost() -> SqlError {
    SqlError::new("08006", "connection to client lost")
}

/// Writes rows as DataRow messages, each column in the format the client asked for.
#[derive(Default)]
struct RowEncoder {
    fields: Option<Arc<[Field]>>,
    formats: Vec<i16>,
    columns: Vec<(DataType, bool)>,
    context: FormatContext,
}

impl RowEncoder {
    fn set(&mut self, fields: &Arc<[Field]>, formats: &[i16], context: &FormatContext) {
        self.context.clone_from(context);
        let same = self.fields.as_ref().is_some_and(|known| Arc::ptr_eq(known, fields));
        if same && self.formats == formats {
            return;
        }
        self.columns.clear();
        let column = |(i, field): (usize, &Field)| (field.ty.base(), backend::format_of(formats, i) == 1);
        self.columns.extend(fields.iter().enumerate().map(column));
        self.formats.clear();
        self.formats.extend_from_slice(formats);
        self.fields = Some(Arc::clone(fields));
    }

    /// Appends a row. On an error the buffer is as it was.
    fn encode(&self, row: &[Datum], buffer: &mut BytesMut) -> Result<()> {
        let start = buffer.len();
        if row.len() != self.columns.len() {
            return Err(SqlError::internal(format!(
                "a row of {} columns was described with {}",
                row.len(),
                self.columns.len()
            )));
        }
        buffer.put_u8(b'D');
        buffer.put_u32(0);
        buffer.put_u16(row.len() as u16);
        for (value, (data_type, binary)) in row.iter().zip(&self.columns) {
            let at = buffer.len();
            if value.is_null() {
                buffer.put_i32(-1);
                continue;
            }
            buffer.put_u32(0);
            if *binary {
                types::format_binary(value, data_type, buffer);
            } else {
                types::format(value, data_type, &self.context, buffer);
            }
            backend::set_length(buffer, at, at + 4);
        }
        if buffer.len() - start > MAX_ROW {
            buffer.truncate(start);
            return Err(SqlError::program_limit_exceeded("the row is too large to be sent")
                .with_detail(format!("A row may have {MAX_ROW} bytes.")));
        }
        backend::set_length(buffer, start + 1, start + 1);
        Ok(())
    }
}

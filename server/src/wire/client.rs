//! Both halves of a connection, as a running statement sees them: where its answer goes, and where COPY's
//! data comes from.

use std::sync::Arc;

use amphora_sql::error::{Result, SqlError};
use amphora_sql::plan::Field;
use amphora_sql::session::{Notice, Output};
use amphora_sql::types::FormatContext;
use amphora_storage::Datum;
use async_trait::async_trait;
use bytes::Bytes;

use super::connection::{End, Inbox};
use super::frontend::Message;
use super::outbox::{Outbox, connection_lost};

/// The client of a running statement.
pub struct Client<'a> {
    /// Receives
    pub inbox: &'a mut Inbox,
    /// Sends
    pub outbox: &'a mut Outbox,
}

#[async_trait]
impl Output for Client<'_> {
    fn fields(&mut self, fields: &Arc<[Field]>, formats: &[i16], format: &FormatContext) {
        self.outbox.fields(fields, formats, format);
    }

    fn row(&mut self, row: &[Datum]) -> Result<()> {
        self.outbox.row(row)
    }

    async fn flush_if_full(&mut self) -> Result<()> {
        self.outbox.flush_if_full().await
    }

    fn complete(&mut self, tag: &str) {
        self.outbox.complete(tag);
    }

    fn suspended(&mut self) {
        self.outbox.suspended();
    }

    fn empty_query(&mut self) {
        self.outbox.empty_query();
    }

    fn notice(&mut self, notice: Notice) {
        self.outbox.notice(notice);
    }

    fn parameter_status(&mut self, name: &str, value: &str) {
        self.outbox.parameter_status(name, value);
    }

    async fn copy_in(&mut self, binary: bool, columns: usize) -> Result<()> {
        self.outbox.copy_in(binary, columns).await
    }

    async fn copy_in_data(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = self.inbox.expected().await.map_err(|end| match end {
                End::Fatal(error) => error,
                End::Client | End::Io(_) => connection_lost(),
            })?;
            match frame.message()? {
                Message::CopyData(data) => return Ok(Some(data)),
                Message::CopyDone => return Ok(None),
                Message::CopyFail(why) => {
                    return Err(SqlError::query_canceled(format!("COPY from stdin failed: {why}")));
                }
                // A client that did not know that this is COPY has sent them after Execute.
                Message::Flush | Message::Sync => {}
                _ => {
                    return Err(SqlError::protocol_violation(format!(
                        "unexpected message type 0x{:02X} during COPY from stdin",
                        frame.kind
                    )));
                }
            }
        }
    }

    fn copy_out(&mut self, binary: bool, columns: usize) {
        self.outbox.copy_out(binary, columns);
    }

    fn copy_out_data(&mut self, data: &[u8]) {
        self.outbox.copy_out_data(data);
    }

    fn copy_done(&mut self) {
        self.outbox.copy_done();
    }
}

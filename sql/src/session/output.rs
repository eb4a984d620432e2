//! Where a session's answers go, and how a running statement is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use amphora_storage::Datum;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::error::{Result, SqlError};
use crate::plan::Field;
use crate::types::FormatContext;

/// The receiver of what statements produce. The wire implements it; so do the tests.
///
/// One statement's answer is
///
/// ```text
///   notice* ( fields row* )? ( complete | suspended | empty_query )
/// ```
///
/// or an error returned by the session's method, which ends the answer wherever it stands.
#[async_trait]
pub trait Output: Send {
    /// Rows of these columns follow, in these formats (0 text, 1 binary; one per column, or one for all,
    /// or none for all text). Called before the first row of every statement that gives rows, and again
    /// when a suspended portal goes on. The simple protocol sends a RowDescription here; the extended
    /// one has sent it for Describe and only remembers how to encode.
    fn fields(&mut self, fields: &Arc<[Field]>, formats: &[i16], format: &FormatContext);

    /// One row.
    fn row(&mut self, row: &[Datum]) -> Result<()>;

    /// Called between batches of rows: waits until the client has taken what is buffered, if that is much.
    async fn flush_if_full(&mut self) -> Result<()>;

    /// The statement is done: its command tag.
    fn complete(&mut self, tag: &str);

    /// The portal has more rows than were asked for.
    fn suspended(&mut self);

    /// The string held no statement.
    fn empty_query(&mut self);

    /// A notice or a warning.
    fn notice(&mut self, notice: Notice);

    /// A setting that clients are told of has changed.
    fn parameter_status(&mut self, name: &str, value: &str);

    /// COPY FROM STDIN begins: asks the client for data of so many columns, all text or all binary.
    async fn copy_in(&mut self, _binary: bool, _columns: usize) -> Result<()> {
        Err(SqlError::feature_not_supported("COPY FROM STDIN needs a client that sends data"))
    }

    /// The next of the client's data; `None` once it has sent all. 57014 if it gives up, 08P01 if it sends
    /// something else.
    async fn copy_in_data(&mut self) -> Result<Option<Bytes>> {
        Err(SqlError::feature_not_supported("COPY FROM STDIN needs a client that sends data"))
    }

    /// COPY TO STDOUT begins: data of so many columns follows.
    fn copy_out(&mut self, _binary: bool, _columns: usize) {}

    /// One piece of COPY TO's data.
    fn copy_out_data(&mut self, _data: &[u8]) {}

    /// COPY TO's data is complete.
    fn copy_done(&mut self) {}
}

/// What is told beside a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `NOTICE`, `WARNING`, `INFO`
    pub severity: &'static str,
    /// Five characters
    pub sqlstate: &'static str,
    /// The message
    pub message: String,
    /// DETAIL
    pub detail: Option<String>,
    /// HINT
    pub hint: Option<String>,
}

impl Notice {
    /// A NOTICE: of class 42P07 if it is about something that is there already, else 00000.
    pub fn plain(message: impl Into<String>) -> Notice {
        let message = message.into();
        let sqlstate = if message.ends_with("already exists, skipping") { "42P07" } else { "00000" };
        Notice { severity: "NOTICE", sqlstate, message, detail: None, hint: None }
    }

    /// A WARNING.
    pub fn warning(sqlstate: &'static str, message: impl Into<String>) -> Notice {
        Notice { severity: "WARNING", sqlstate, message: message.into(), detail: None, hint: None }
    }
}

/// What ReadyForQuery says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: no transaction block
    Idle,
    /// `T`: in a transaction block
    InTransaction,
    /// `E`: in a failed transaction block
    Failed,
}

/// Stops the session's running statement from another task. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct CancelHandle {
    shared: Arc<CancelState>,
}

#[derive(Debug, Default)]
struct CancelState {
    requested: AtomicBool,
    terminated: AtomicBool,
    notify: Notify,
}

impl CancelHandle {
    /// The running statement, if there is one, fails with 57014.
    pub fn cancel(&self) {
        self.shared.requested.store(true, Ordering::Release);
        self.shared.notify.notify_waiters();
    }

    /// The running statement fails, and then the session ends (57P01).
    pub fn terminate(&self) {
        self.shared.terminated.store(true, Ordering::Release);
        self.cancel();
    }

    /// True once [`terminate`](CancelHandle::terminate) has been called.
    pub fn is_terminated(&self) -> bool {
        self.shared.terminated.load(Ordering::Relaxed)
    }

    /// Resolves when the session is to end.
    pub async fn terminated(&self) {
        loop {
            let notified = self.shared.notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.is_terminated() {
                return;
            }
            notified.await;
        }
    }

    /// True once [`cancel`](CancelHandle::cancel) has been called for the current statement.
    pub fn is_cancelled(&self) -> bool {
        self.shared.requested.load(Ordering::Relaxed)
    }

    /// A new statement begins: an older request does not concern it.
    pub(crate) fn clear(&self) {
        self.shared.requested.store(false, Ordering::Release);
    }

    /// Resolves when the statement is cancelled.
    pub(crate) async fn cancelled(&self) {
        let notified = self.shared.notify.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if self.is_cancelled() {
            return;
        }
        notified.await;
    }
}

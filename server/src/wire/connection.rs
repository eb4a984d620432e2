//! One client's connection, from startup to its end.
//!
//! ```text
//!   socket ──▶ inbox ──frame──▶ message ──▶ session ──▶ outbox ──▶ socket
//!                                  │ fails in the extended protocol:
//!                                  └──▶ ErrorResponse, then everything up to Sync is skipped
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use amphora_sql::error::{Result, SqlError};
use amphora_sql::session::TransactionStatus;
use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio_util::sync::CancellationToken;

use super::backend::{self, Severity};
use super::client::Client;
use super::frontend::{self, Frame, Message, Target};
use super::outbox::Outbox;
use super::registry::Entry;
use super::session::SqlSession;

/// So much room is made before each read.
const READ: usize = 8 << 10;
/// An empty inbox larger than this is given back.
const KEEP: usize = 16 << 10;

/// Why a connection ends.
#[derive(Debug)]
pub enum End {
    /// The client said good-bye, or closed its end
    Client,
    /// The network failed
    Io(std::io::Error),
    /// The server ends it: what the client is told
    Fatal(SqlError),
}

impl From<std::io::Error> for End {
    fn from(e: std::io::Error) -> End {
        End::Io(e)
    }
}

/// The receiving half of a connection.
pub struct Inbox {
    socket: OwnedReadHalf,
    bytes: BytesMut,
}

impl Inbox {
    /// Receives from this socket.
    pub fn new(socket: OwnedReadHalf) -> Inbox {
        Inbox { socket, bytes: BytesMut::new() }
    }

    /// What has been received and not yet taken.
    pub fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Whether Sync has been received and is the next message.
    fn sync_is_next(&self) -> bool {
        self.bytes.first() == Some(&b'S')
    }

    /// Waits for more.
    pub async fn receive(&mut self) -> Result<(), End> {
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP {
            self.bytes = BytesMut::new();
        }
        self.bytes.reserve(READ);
        match self.socket.read_buf(&mut self.bytes).await? {
            0 => Err(End::Client),
            _ => Ok(()),
        }
    }

    /// The next message, which a running statement waits for.
    pub async fn expected(&mut self) -> Result<Frame, End> {
        loop {
            if let Some(frame) = frontend::next_frame(&mut self.bytes).map_err(End::Fatal)? {
                return Ok(frame);
            }
            self.receive().await?;
        }
    }

    /// The next message.
    async fn frame(
        &mut self,
        entry: &Entry,
        stopped: &mut Stopped,
        limit: Option<(Duration, SqlError)>,
    ) -> Result<Frame, End> {
        let mut idle = None;
        let mut limit = limit;
        loop {
            if let Some(frame) = frontend::next_frame(&mut self.bytes).map_err(End::Fatal)? {
                return Ok(frame);
            }
            entry.set_busy(false);
            // The client's silence begins when there is nothing to do.
            if let Some((limit, error)) = limit.take() {
                idle = Some((tokio::time::Instant::now() + limit, error));
            }
            let silent_until = idle.as_ref().map(|(until, _)| *until);
            tokio::select! {
                biased;
                received = self.receive() => received?,
                error = silence(silent_until, &mut idle) => return Err(End::Fatal(error)),
                () = &mut *stopped => return Err(End::Fatal(shutting_down())),
            }
            entry.set_busy(true);
        }
    }
}

/// Resolves when the node stops or the session is to end. One future for all of a connection's life: who
/// waits for a message would otherwise enter two queues each time, and leave them again.
pub type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

/// See [`Stopped`].
pub fn stopped(entry: Arc<Entry>, shutdown: CancellationToken) -> Stopped {
    Box::pin(async move {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = entry.terminated() => {}
        }
    })
}

/// Resolves with the error when the client has been silent until then; never if there is no limit.
async fn silence(
    until: Option<tokio::time::Instant>,
    idle: &mut Option<(tokio::time::Instant, SqlError)>,
) -> SqlError {
    if let Some(until) = until {
        tokio::time::sleep_until(until).await;
        if let Some((_, error)) = idle.take() {
            return error;
        }
    }
    std::future::pending().await
}

/// What clients are told when this node stops.
pub fn shutting_down() -> SqlError {
    SqlError::admin_shutdown("terminating connection due to administrator command")
}

/// An established connection.
pub struct Connection<'a, S> {
    /// Receives
    pub inbox: &'a mut Inbox,
    /// Sends
    pub outbox: &'a mut Outbox,
    /// Runs statements
    pub session: S,
    /// Its public part
    pub entry: Arc<Entry>,
    /// Ends it, once: the node stops
    pub stopped: Stopped,
    /// Ends it, once, where nothing is open: the node stops, or sends its clients away
    pub drained: Stopped,
}

impl<S: SqlSession> Connection<'_, S> {
    /// Serves until one side ends it.
    pub async fn run(&mut self) -> End {
        let mut skipping = false;
        loop {
            let limit = self.session.idle_limit();
            let end = match self.session.status() {
                TransactionStatus::Idle => &mut self.drained,
                _ => &mut self.stopped,
            };
            let frame = match self.inbox.frame(&self.entry, end, limit).await {
                Ok(frame) => frame,
                Err(end) => return end,
            };
            // After an error nothing counts but Sync and good-bye.
            if skipping && !matches!(frame.kind, b'S' | b'X') {
                continue;
            }
            match self.serve(&frame, &mut skipping).await {
                Ok(true) if self.entry.is_terminated() => return End::Fatal(shutting_down()),
                Ok(true) => {}
                Ok(false) => return End::Client,
                Err(e) => return End::Io(e),
            }
        }
    }

    /// Serves one message; false if the client said good-bye.
    async fn serve(&mut self, frame: &Frame, skipping: &mut bool) -> std::io::Result<bool> {
        match frame.kind {
            b'X' => return Ok(false),
            b'Q' => {
                self.outbox.describe_rows(true);
                let result = match frame.message() {
                    Ok(Message::Query(sql)) => {
                        let mut client = Client { inbox: self.inbox, outbox: self.outbox };
                        self.session.simple_query(sql, &mut client).await
                    }
                    Ok(_) => Ok(()),
                    Err(e) => Err(e),
                };
                self.report(result).await;
                self.ready().await?;
            }
            b'S' => {
                *skipping = false;
                let result = self.session.sync(self.outbox).await;
                self.report(result).await;
                self.ready().await?;
            }
            b'F' => {
                let error = SqlError::feature_not_supported("the function call protocol is not supported")
                    .with_hint("Use SELECT to call a function.");
                self.report(Err(error)).await;
                self.ready().await?;
            }
            b'H' => self.outbox.flush().await?,
            _ => {
                self.outbox.describe_rows(false);
                let result = match frame.message() {
                    Ok(message) => self.extended(message).await,
                    Err(e) => Err(e),
                };
                *skipping = self.report(result).await;
                // An error leaves at once, as PostgreSQL's does: a client that only asked for Flush
                // (asyncpg when it prepares) sends Sync when it has seen it.
                if *skipping && !self.inbox.sync_is_next() {
                    self.outbox.flush().await?;
                } else {
                    self.outbox.relieve().await?;
                }
            }
        }
        Ok(true)
    }

    /// Serves a message of the extended protocol.
    async fn extended(&mut self, message: Message<'_>) -> Result<()> {
        match message {
            Message::Parse { name, sql, types } => {
                self.session.parse(name, sql, &types).await?;
                backend::bare(self.outbox.buffer(), b'1');
            }
            Message::Bind { portal, statement, formats, parameters, results } => {
                self.session.bind(portal, statement, &parameters, &formats, &results)?;
                backend::bare(self.outbox.buffer(), b'2');
            }
            Message::Describe(Target::Statement, name) => {
                let (types, fields) = self.session.describe_statement(name).await?;
                backend::parameter_description(self.outbox.buffer(), &types);
                match fields {
                    Some(fields) => backend::row_description(self.outbox.buffer(), &fields, &[]),
                    None => backend::bare(self.outbox.buffer(), b'n'),
                }
            }
            Message::Describe(Target::Portal, name) => match self.session.describe_portal(name)? {
                Some((fields, formats)) => {
                    backend::row_description(self.outbox.buffer(), &fields, &formats);
                }
                None => backend::bare(self.outbox.buffer(), b'n'),
            },
            Message::Execute { portal, max_rows } => {
                if self.inbox.sync_is_next() {
                    self.session.expect_sync();
                }
                let mut client = Client { inbox: self.inbox, outbox: self.outbox };
                self.session.execute(portal, max_rows, &mut client).await?;
            }
            Message::Close(target, name) => {
                match target {
                    Target::Statement => self.session.close_statement(name),
                    Target::Portal => self.session.close_portal(name),
                }
                backend::bare(self.outbox.buffer(), b'3');
            }
            Message::CopyData(_)
            | Message::CopyDone
            | Message::CopyFail(_)
            | Message::Query(_)
            | Message::Flush
            | Message::Sync
            | Message::Terminate
            | Message::FunctionCall => {}
        }
        Ok(())
    }

    /// Tells the client of an error, and the session too. True if there was one.
    async fn report(&mut self, result: Result<()>) -> bool {
        let Err(error) = result else { return false };
        backend::error(self.outbox.buffer(), Severity::Error, &error);
        self.session.failed().await;
        true
    }

    async fn ready(&mut self) -> std::io::Result<()> {
        let status: TransactionStatus = self.session.status();
        backend::ready(self.outbox.buffer(), status);
        self.outbox.flush().await
    }
}

//! What the wire asks of a SQL session: the seam between this floor and the one below.
//!
//! The wire knows messages and nothing of statements; a session knows statements and nothing of messages.
//! The real session is [`amphora_sql::session::Session`]; the wire's own tests put a small one in its place.

use std::sync::Arc;
use std::time::Duration;

use amphora_sql::error::{Result, SqlError};
use amphora_sql::plan::Field;
use amphora_sql::scram::Verifier;
use amphora_sql::session::{CancelHandle, Output, TransactionStatus};
use bytes::Bytes;

/// What a client said when it connected, once it has been let in.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// The role it is
    pub user: String,
    /// The database it asked for
    pub database: String,
    /// This connection's process id, as `pg_backend_pid()` gives it
    pub backend_pid: i32,
    /// Settings from the startup packet, in its order
    pub settings: Vec<(String, String)>,
}

/// How a client shows that it is the role it says.
#[derive(Clone, Debug)]
pub enum Authentication {
    /// Not at all
    Trust,
    /// With this password
    Password(Verifier),
    /// It cannot, and is not told why before it has tried
    Refuse,
}

/// Opens sessions.
pub trait SessionFactory: Send + Sync + 'static {
    /// The sessions it opens
    type Session: SqlSession;

    /// What the role must show. 28000 if it may not log in in any case.
    fn authentication(&self, user: &str) -> Result<Authentication>;

    /// The process id of the n-th session here; never 0. Others may have it too, if so many are open.
    fn process_id(&self, n: u32) -> i32 {
        i32::try_from(n & 0x7fff_ffff).unwrap_or(i32::MAX).max(1)
    }

    /// A client asks to cancel a session that is not here.
    fn cancel_elsewhere(&self, pid: i32, secret: &[u8]) -> impl Future<Output = ()> + Send {
        let _ = (pid, secret);
        async {}
    }

    /// Opens one; an error ends the connection.
    fn open(&self, options: StartOptions) -> Result<Self::Session>;
}

/// A SQL session, in the wire's words. Every method that fails is followed by [`failed`](SqlSession::failed).
pub trait SqlSession: Send {
    /// The settings a client is told when it connects, by name.
    fn parameters(&self) -> Vec<(String, String)>;

    /// Runs all statements of a string.
    fn simple_query(&mut self, sql: &str, out: &mut dyn Output) -> impl Future<Output = Result<()>> + Send;

    /// Prepares a statement.
    fn parse(&mut self, name: &str, sql: &str, types: &[u32]) -> impl Future<Output = Result<()>> + Send;

    /// Makes a portal.
    fn bind(
        &mut self,
        portal: &str,
        statement: &str,
        parameters: &[Option<Bytes>],
        formats: &[i16],
        results: &[i16],
    ) -> Result<()>;

    /// A statement's parameters' type OIDs, and the columns it gives, if it gives rows.
    #[allow(clippy::type_complexity)]
    fn describe_statement(
        &mut self,
        name: &str,
    ) -> impl Future<Output = Result<(Vec<u32>, Option<Arc<[Field]>>)>> + Send;

    /// The columns a portal gives and their formats, if it gives rows.
    #[allow(clippy::type_complexity)]
    fn describe_portal(&mut self, name: &str) -> Result<Option<(Arc<[Field]>, Vec<i16>)>>;

    /// Tells the next [`execute`](SqlSession::execute) that Sync follows directly, so that its statement
    /// may commit by itself.
    fn expect_sync(&mut self);

    /// Runs a portal, up to `max_rows` rows (0 is all).
    fn execute(
        &mut self,
        portal: &str,
        max_rows: u32,
        out: &mut dyn Output,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Forgets a statement, if it is there.
    fn close_statement(&mut self, name: &str);

    /// Forgets a portal, if it is there.
    fn close_portal(&mut self, name: &str);

    /// Ends a batch: commits what is not in a transaction block.
    fn sync(&mut self, out: &mut dyn Output) -> impl Future<Output = Result<()>> + Send;

    /// A message has failed: the open transaction fails, an implicit one is rolled back.
    fn failed(&mut self) -> impl Future<Output = ()> + Send;

    /// How long the client may now be silent, and the error that then ends the connection.
    fn idle_limit(&self) -> Option<(Duration, SqlError)> {
        None
    }

    /// What ReadyForQuery says.
    fn status(&self) -> TransactionStatus;

    /// Stops the running statement from outside.
    fn cancel_handle(&self) -> CancelHandle;
}

//! Sessions of the SQL engine, as the wire asks for them.

use std::sync::Arc;
use std::time::Duration;

use amphora_replication::Engine;
use amphora_replication::node::Node;
use amphora_replication::sessions::{SessionDirectory, SessionInfo, Signal, Signalled, process_id};
use amphora_sql::catalog::{find_role, is_built_in};
use amphora_sql::error::{Result, SqlError};
use amphora_sql::plan::Field;
use amphora_sql::scram::Verifier;
use amphora_sql::session::{CancelHandle, NodeSessions, Output, Session, SessionOptions, TransactionStatus};
use amphora_sql::types::current_timestamp;
use bytes::Bytes;

use crate::http::NodeSlot;
use crate::wire::{Authentication, SessionFactory, SqlSession, StartOptions};

/// Opens sessions on this process's node, once it has started.
pub struct Sessions {
    node: NodeSlot,
}

impl Sessions {
    /// Sessions on the node that will be put here.
    pub fn new(node: NodeSlot) -> Sessions {
        Sessions { node }
    }

    /// 57P03 while the node starts or is drained
    fn node(&self) -> Result<Arc<Node>> {
        let node = self.node.get().cloned().ok_or_else(|| {
            SqlError::cannot_connect_now("the database system is starting up")
                .with_hint("The node may be waiting for a member to let it into the cluster: see its log.")
        })?;
        match node.turns_clients_away() {
            Some(why) => Err(why.into()),
            None => Ok(node),
        }
    }
}

impl SessionFactory for Sessions {
    type Session = Session;

    /// A role that has a password must show it. One without is let in by its name alone, but once any role
    /// has a password, the cluster is closed to roles without one; `amphora` and `postgres` stay open until
    /// they have one themselves, so that nobody locks everybody out.
    fn authentication(&self, user: &str) -> Result<Authentication> {
        let catalog = self.node()?.catalog();
        let closed = catalog.roles().any(|role| role.verifier.is_some());
        let Some(role) = find_role(&catalog, user) else {
            if closed {
                return Ok(Authentication::Refuse);
            }
            return Err(SqlError::new("28000", format!("role \"{user}\" does not exist"))
                .with_hint("Connect as amphora, or make the role with CREATE ROLE … LOGIN."));
        };
        let expired = role.valid_until.is_some_and(|until| until < current_timestamp());
        let stored = role.verifier.as_deref().filter(|_| !expired);
        match stored.and_then(Verifier::parse) {
            Some(verifier) => Ok(Authentication::Password(verifier)),
            None if expired || (closed && !is_built_in(user)) => Ok(Authentication::Refuse),
            None => Ok(Authentication::Trust),
        }
    }

    fn process_id(&self, n: u32) -> i32 {
        process_id(self.node.get().map_or(0, |node| node.node_id()), n)
    }

    async fn cancel_elsewhere(&self, pid: i32, secret: &[u8]) {
        if let Some(node) = self.node.get() {
            node.signal_session(pid, Signal::CancelRequest(secret.to_vec())).await;
        }
    }

    fn open(&self, options: StartOptions) -> Result<Session> {
        let engine: Arc<dyn Engine> = self.node()?;
        if find_role(&engine.catalog(), &options.user).is_some_and(|role| !role.login) {
            let message = format!("role \"{}\" is not permitted to log in", options.user);
            return Err(SqlError::new("28000", message));
        }
        Session::new(
            engine,
            SessionOptions {
                user: options.user,
                database: options.database,
                backend_pid: options.backend_pid,
                settings: options.settings,
            },
        )
    }
}

/// The sessions of this process's node, for the others: what SQL knows of them, and the secrets of the wire.
pub struct Directory<F> {
    sessions: NodeSessions,
    cancel: F,
}

impl<F: Fn(i32, &[u8]) -> bool> Directory<F> {
    /// The sessions of this node; `cancel` does what a client's request to cancel asks for.
    pub fn new(node: &Arc<Node>, cancel: F) -> Directory<F> {
        let engine: Arc<dyn Engine> = node.clone();
        Directory { sessions: NodeSessions::of(&engine), cancel }
    }
}

impl<F: Fn(i32, &[u8]) -> bool + Send + Sync> SessionDirectory for Directory<F> {
    fn list(&self) -> Vec<SessionInfo> {
        self.sessions.list()
    }

    fn signal(&self, pid: i32, signal: &Signal) -> Signalled {
        match signal {
            Signal::CancelRequest(secret) if (self.cancel)(pid, secret) => Signalled::Sent,
            Signal::CancelRequest(_) => Signalled::Unknown,
            signal => self.sessions.signal(pid, signal),
        }
    }
}

impl SqlSession for Session {
    fn parameters(&self) -> Vec<(String, String)> {
        self.parameter_status().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    async fn simple_query(&mut self, sql: &str, out: &mut dyn Output) -> Result<()> {
        Session::simple_query(self, sql, out).await
    }

    async fn parse(&mut self, name: &str, sql: &str, types: &[u32]) -> Result<()> {
        Session::parse(self, name, sql, types).await
    }

    fn bind(
        &mut self,
        portal: &str,
        statement: &str,
        parameters: &[Option<Bytes>],
        formats: &[i16],
        results: &[i16],
    ) -> Result<()> {
        Session::bind(self, portal, statement, parameters, formats, results)
    }

    async fn describe_statement(&mut self, name: &str) -> Result<(Vec<u32>, Option<Arc<[Field]>>)> {
        Session::describe_statement(self, name).await
    }

    fn describe_portal(&mut self, name: &str) -> Result<Option<(Arc<[Field]>, Vec<i16>)>> {
        Session::describe_portal(self, name)
    }

    fn expect_sync(&mut self) {
        Session::expect_sync(self);
    }

    async fn execute(&mut self, portal: &str, max_rows: u32, out: &mut dyn Output) -> Result<()> {
        Session::execute(self, portal, max_rows, out).await
    }

    fn close_statement(&mut self, name: &str) {
        Session::close_statement(self, name);
    }

    fn close_portal(&mut self, name: &str) {
        Session::close_portal(self, name);
    }

    async fn sync(&mut self, out: &mut dyn Output) -> Result<()> {
        Session::sync(self, out).await
    }

    async fn failed(&mut self) {
        self.error().await;
    }

    fn idle_limit(&self) -> Option<(Duration, SqlError)> {
        Session::idle_limit(self)
    }

    fn status(&self) -> TransactionStatus {
        Session::status(self)
    }

    fn cancel_handle(&self) -> CancelHandle {
        Session::cancel_handle(self)
    }
}

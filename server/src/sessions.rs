//! Sessions of the SQL engine, as the wire asks for them.

use std::sync::Arc;
use std::time::Duration;

use amphora_replication::Engine;
use amphora_sql::error::{Result, SqlError};
use amphora_sql::plan::Field;
use amphora_sql::session::{CancelHandle, Output, Session, SessionOptions, TransactionStatus};
use bytes::Bytes;

use crate::http::NodeSlot;
use crate::wire::{SessionFactory, SqlSession, StartOptions};

/// Opens sessions on this process's node, once it has started.
pub struct Sessions {
    node: NodeSlot,
}

impl Sessions {
    /// Sessions on the node that will be put here.
    pub fn new(node: NodeSlot) -> Sessions {
        Sessions { node }
    }
}

impl SessionFactory for Sessions {
    type Session = Session;

    fn open(&self, options: StartOptions) -> Result<Session> {
        let node = self.node.get().ok_or_else(|| {
            SqlError::cannot_connect_now("the database system is starting up")
                .with_hint("The node may be waiting for a member to let it into the cluster: see its log.")
        })?;
        let engine: Arc<dyn Engine> = node.clone();
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

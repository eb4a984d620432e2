//! Sessions of the SQL engine, as the wire asks for them.

use std::sync::Arc;

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
        Session::new(engine, SessionOptions {
            user: options.user,
            database: options.database,
            backend_pid: options.backend_pid,
            settings: options.settings,
        })
    }
}

//! The transaction block: what BEGIN, COMMIT, ROLLBACK and savepoints do.
//!
//! ```text
//!             statement among several              BEGIN                error
//!     Idle ───────────────────────────► Implicit ────────► Explicit ─────────► Failed
//!      ▲ ▲                                 │ end of query,   │  ▲                │
//!      │ └─────────────────────────────────┘ Sync            │  └─ ROLLBACK TO ──┤
//!      └──────────────────────── COMMIT, ROLLBACK ───────────┴───────────────────┘
//! ```
//!
//! The engine's transaction begins when the first statement needs it: until then BEGIN costs nothing, and
//! SET TRANSACTION may still choose how it begins.

use amphora_replication::{IsolationLevel, SavepointId, Transaction, TransactionOptions};
use amphora_storage::Timestamp;

use super::settings::SettingsMark;
use super::{Notice, Output, Session};
use crate::command::TransactionModes;
use crate::error::{Result, SqlError};
use crate::executor::SharedDeferred;

/// Savepoints that may be open at a time.
const MAX_SAVEPOINTS: usize = 1_000;

/// Where the session stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Block {
    /// No transaction
    #[default]
    Idle,
    /// A transaction that ends with the query or at Sync
    Implicit,
    /// After BEGIN
    Explicit,
    /// After BEGIN and an error
    Failed,
}

/// The session's transaction.
#[derive(Default)]
pub(super) struct TransactionBlock {
    pub(super) block: Block,
    /// The engine's transaction, once something needed it
    pub(super) txn: Option<Box<dyn Transaction>>,
    /// It was begun to commit by itself
    pub(super) autocommit: bool,
    isolation: Option<IsolationLevel>,
    read_only: Option<bool>,
    deferrable: Option<bool>,
    /// SET TRANSACTION AS OF SYSTEM TIME
    pub(super) as_of: Option<Timestamp>,
    /// The engine's transaction follows a token
    pub(super) follows: bool,
    /// `now()`: microseconds since 2000-01-01 UTC
    pub(super) started: i64,
    /// A query has run: the isolation level is fixed
    queried: bool,
    /// What to return to on rollback
    mark: Option<SettingsMark>,
    savepoints: Vec<Savepoint>,
    /// Foreign keys to check at COMMIT
    pub(super) deferred: SharedDeferred,
}

struct Savepoint {
    name: String,
    /// `None` if the engine's transaction had not begun
    id: Option<SavepointId>,
    mark: SettingsMark,
}

impl Session {
    /// A statement begins: outside a block it is the beginning of a transaction too.
    pub(super) fn enter_statement(&mut self, alone: bool) {
        if self.tx.block == Block::Idle && self.tx.txn.is_none() {
            self.tx.started = crate::types::current_timestamp();
            self.tx.mark = Some(self.shared.settings.lock().mark());
            if !alone {
                self.tx.block = Block::Implicit;
            }
        }
    }

    pub(super) fn isolation(&self) -> IsolationLevel {
        self.tx.isolation.unwrap_or_else(|| self.shared.settings.lock().effective().isolation)
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.tx.read_only.unwrap_or_else(|| self.shared.settings.lock().effective().read_only)
    }

    /// Every snapshot is safe for who only reads, so there is nothing that DEFERRABLE would have to wait for.
    pub(super) fn is_deferrable(&self) -> bool {
        let default = || self.shared.settings.lock().get("default_transaction_deferrable");
        self.tx.deferrable.unwrap_or_else(|| default().as_deref() == Some("on"))
    }

    /// The engine's transaction, begun if it has not been.
    pub(super) fn transaction(&mut self, autocommit: bool) -> &mut Box<dyn Transaction> {
        let TransactionBlock { txn, autocommit: begun_autocommit, isolation, read_only, .. } = &mut self.tx;
        txn.get_or_insert_with(|| {
            *begun_autocommit = autocommit;
            let options = {
                let settings = self.shared.settings.lock();
                let effective = settings.effective();
                TransactionOptions {
                    isolation: isolation.unwrap_or(effective.isolation),
                    read_only: read_only.unwrap_or(effective.read_only),
                    autocommit,
                    session: self.shared.number,
                    lock_timeout: effective.lock_timeout,
                    write_memory: effective.transaction_memory,
                    indexes: Some(&crate::index::SQL_INDEXES),
                }
            };
            self.shared.engine.begin(options)
        })
    }

    /// The first query of a transaction fixes how it is isolated.
    pub(super) fn mark_queried(&mut self) {
        self.tx.queried = true;
    }

    /// 25006
    pub(super) fn check_writable(&self, statement: &str) -> Result<()> {
        if self.is_read_only() {
            return Err(SqlError::read_only_sql_transaction(format!(
                "cannot execute {statement} in a read-only transaction"
            )));
        }
        Ok(())
    }

    /// 25001 for what is a transaction, or several, of its own.
    pub(super) fn prevent_in_block(&self, statement: &str) -> Result<()> {
        if matches!(self.tx.block, Block::Explicit | Block::Failed) {
            return Err(SqlError::active_sql_transaction(format!(
                "{statement} cannot run inside a transaction block"
            )));
        }
        Ok(())
    }

    /// BEGIN
    pub(super) fn begin_block(&mut self, modes: &TransactionModes, out: &mut dyn Output) -> Result<()> {
        match self.tx.block {
            Block::Idle | Block::Implicit => self.tx.block = Block::Explicit,
            Block::Explicit | Block::Failed => {
                out.notice(Notice::warning("25001", "there is already a transaction in progress"))
            }
        }
        self.set_modes(modes)
    }

    /// SET TRANSACTION and its kin.
    pub(super) fn set_modes(&mut self, modes: &TransactionModes) -> Result<()> {
        if let Some(isolation) = modes.isolation
            && isolation != self.isolation()
        {
            if self.tx.queried {
                return Err(SqlError::active_sql_transaction(
                    "SET TRANSACTION ISOLATION LEVEL must be called before any query",
                ));
            }
            if !self.tx.savepoints.is_empty() {
                return Err(SqlError::active_sql_transaction(
                    "SET TRANSACTION ISOLATION LEVEL must not be called in a subtransaction",
                ));
            }
            self.tx.isolation = Some(isolation);
        }
        if let Some(read_only) = modes.read_only {
            if !read_only && self.tx.queried && self.is_read_only() {
                return Err(SqlError::active_sql_transaction(
                    "transaction read-write mode must be set before any query",
                ));
            }
            self.tx.read_only = Some(read_only);
        }
        if let Some(deferrable) = modes.deferrable {
            if !self.tx.savepoints.is_empty() {
                return Err(SqlError::active_sql_transaction(
                    "SET TRANSACTION [NOT] DEFERRABLE cannot be called within a subtransaction",
                ));
            }
            if self.tx.queried {
                return Err(SqlError::active_sql_transaction(
                    "SET TRANSACTION [NOT] DEFERRABLE must be called before any query",
                ));
            }
            self.tx.deferrable = Some(deferrable);
        }
        if let Some(time) = &modes.as_of {
            if self.tx.queried {
                return Err(SqlError::active_sql_transaction(
                    "SET TRANSACTION AS OF SYSTEM TIME must be called before any query",
                ));
            }
            let catalog = self.catalog();
            let format = self.eval.context(&self.shared, &catalog, self.tx.started).format;
            self.tx.as_of = Some(self.time_of_text(time, &format)?);
            // What has passed is not written.
            self.tx.read_only = Some(true);
        }
        Ok(())
    }

    /// COMMIT: gives the command tag.
    pub(super) async fn commit_block(&mut self, out: &mut dyn Output) -> Result<&'static str> {
        match self.tx.block {
            Block::Failed => {
                self.rollback_all().await;
                return Ok("ROLLBACK");
            }
            Block::Idle | Block::Implicit => {
                out.notice(Notice::warning("25P01", "there is no transaction in progress"));
            }
            Block::Explicit => {}
        }
        self.commit().await?;
        Ok("COMMIT")
    }

    /// ROLLBACK
    pub(super) async fn rollback_block(&mut self, out: &mut dyn Output) {
        if matches!(self.tx.block, Block::Idle | Block::Implicit) {
            out.notice(Notice::warning("25P01", "there is no transaction in progress"));
        }
        self.rollback_all().await;
    }

    /// Commits what there is. On an error everything is rolled back, unless the error is that the statement
    /// must run again (autocommit): then the transaction is kept for that.
    pub(super) async fn commit(&mut self) -> Result<()> {
        if let Err(error) = self.check_deferred(None).await {
            use amphora_replication::ErrorKind;
            if !(self.tx.autocommit && error.retry == Some(ErrorKind::Restart)) {
                self.rollback_all().await;
            }
            return Err(error);
        }
        if let Err(error) = self.hold_cursors() {
            self.rollback_all().await;
            return Err(error);
        }
        self.choose_durability();
        if let Some(txn) = &mut self.tx.txn
            && !txn.commit_nothing()
            && let Err(error) = txn.commit().await
        {
            use amphora_replication::ErrorKind;
            let again = self.tx.autocommit && error.kind == ErrorKind::Restart;
            if !again {
                self.rollback_all().await;
            }
            return Err(error.into());
        }
        self.note_durability();
        self.tx = TransactionBlock::default();
        self.shared.settings.lock().end_transaction();
        self.shared.advisory.end_transaction();
        self.portals.clear();
        self.drop_cursors();
        Ok(())
    }

    /// Forgets the transaction, and the settings made in it.
    pub(super) async fn rollback_all(&mut self) {
        if let Some(mut txn) = self.tx.txn.take() {
            txn.rollback().await;
        }
        if let Some(mark) = self.tx.mark.take() {
            self.shared.settings.lock().restore(&mark);
        }
        self.tx = TransactionBlock::default();
        self.shared.settings.lock().end_transaction();
        self.shared.advisory.end_transaction();
        self.portals.clear();
        self.drop_cursors();
    }

    /// Savepoints that are open.
    pub(super) fn savepoint_depth(&self) -> usize {
        self.tx.savepoints.len()
    }

    /// After an error.
    pub(super) async fn abort(&mut self) {
        match self.tx.block {
            Block::Idle | Block::Implicit => {
                if self.tx.txn.is_some() || self.tx.mark.is_some() {
                    self.rollback_all().await;
                }
            }
            Block::Explicit => {
                self.tx.block = Block::Failed;
                self.portals.clear();
                if let Some(txn) = &mut self.tx.txn {
                    txn.rollback_statement();
                }
                // Nothing can be returned to: others need not wait for our locks until ROLLBACK comes.
                if self.tx.savepoints.is_empty()
                    && let Some(mut txn) = self.tx.txn.take()
                {
                    txn.rollback().await;
                    self.drop_cursors();
                }
            }
            Block::Failed => {}
        }
    }

    fn check_in_block(&self, statement: &str) -> Result<()> {
        match self.tx.block {
            Block::Idle | Block::Implicit => Err(SqlError::no_active_sql_transaction(format!(
                "{statement} can only be used in transaction blocks"
            ))),
            Block::Explicit | Block::Failed => Ok(()),
        }
    }

    /// SAVEPOINT
    pub(super) fn savepoint(&mut self, name: &str) -> Result<()> {
        self.check_in_block("SAVEPOINT")?;
        if self.tx.savepoints.len() >= MAX_SAVEPOINTS {
            return Err(SqlError::program_limit_exceeded(format!(
                "a transaction can have at most {MAX_SAVEPOINTS} savepoints at a time"
            ))
            .with_hint("Release savepoints that are no longer needed."));
        }
        let id = self.tx.txn.as_mut().map(|txn| txn.savepoint());
        let mark = self.shared.settings.lock().mark();
        self.tx.savepoints.push(Savepoint { name: name.to_owned(), id, mark });
        Ok(())
    }

    fn find_savepoint(&self, name: &str) -> Result<usize> {
        self.tx
            .savepoints
            .iter()
            .rposition(|s| s.name == name)
            .ok_or_else(|| SqlError::invalid_savepoint(format!("savepoint \"{name}\" does not exist")))
    }

    /// RELEASE SAVEPOINT
    pub(super) fn release(&mut self, name: &str) -> Result<()> {
        self.check_in_block("RELEASE SAVEPOINT")?;
        let position = self.find_savepoint(name)?;
        self.tx.savepoints.truncate(position);
        Ok(())
    }

    /// ROLLBACK TO SAVEPOINT
    pub(super) async fn rollback_to(&mut self, name: &str) -> Result<()> {
        self.check_in_block("ROLLBACK TO SAVEPOINT")?;
        let position = self.find_savepoint(name)?;
        self.tx.savepoints.truncate(position + 1);
        self.portals.clear();
        self.drop_cursors_since(position);
        if let Some(savepoint) = self.tx.savepoints.last() {
            self.shared.settings.lock().restore(&savepoint.mark);
            match (savepoint.id, &mut self.tx.txn) {
                (Some(id), Some(txn)) => txn.rollback_to(id)?,
                // The savepoint is older than the engine's transaction: nothing of that is to be kept.
                (None, txn) => {
                    if let Some(mut txn) = txn.take() {
                        txn.rollback().await;
                    }
                }
                (Some(_), None) => {}
            }
        }
        self.tx.block = Block::Explicit;
        Ok(())
    }
}

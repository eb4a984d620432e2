//! What a function may know besides its arguments.

use std::sync::Arc;

use amphora_storage::{DataType, Datum, Row};

use amphora_replication::Transaction;
use amphora_replication::sessions::SessionInfo;

use crate::error::{Result, SqlError};
use crate::types::{FormatContext, TimeZone};

/// What functions ask of the session and the catalog. Every method has a default that knows nothing.
pub trait SessionHook: Send + Sync {
    /// The value of a setting, as `SHOW` prints it.
    fn setting(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }

    /// Sets a setting; `local` ends with the transaction. Gives the new value.
    fn set_setting(&self, name: &str, value: &str, local: bool) -> Result<String> {
        let _ = (value, local);
        Err(SqlError::undefined_object(format!("unrecognized configuration parameter \"{name}\"")))
    }

    /// Answers `nextval`, `setval` and what else asks where a sequence stands, in this transaction.
    fn sequence(&self, txn: &dyn Transaction, function: &str, args: &[Datum]) -> Result<Datum> {
        let _ = (txn, args);
        Err(SqlError::feature_not_supported(format!("function {function} is not available here")))
    }

    /// The session's prepared statements that have names.
    fn prepared_statements(&self) -> Vec<crate::session::ListedStatement> {
        Vec::new()
    }

    /// The session's cursors.
    fn cursors(&self) -> Vec<crate::session::ListedCursor> {
        Vec::new()
    }

    /// The sessions of the cluster, as far as nodes answer, by process id.
    fn sessions(&self) -> Result<Vec<SessionInfo>> {
        Ok(Vec::new())
    }

    /// `amphora.verify_table`: what a check of a strong table finds, a row for each object and node.
    fn verify_table(&self, table: u32) -> Result<Vec<Row>> {
        let _ = table;
        Err(SqlError::feature_not_supported("function verify_table is not available here"))
    }

    /// Answers one of the functions of `functions/system.rs` that need the session or the catalog:
    /// `pg_get_indexdef`, `nextval`, `pg_relation_size`, …
    fn call(&self, function: &str, args: &[Datum]) -> Result<Datum> {
        let _ = args;
        Err(SqlError::feature_not_supported(format!("function {function} is not available here")))
    }
}

/// A session that knows nothing: for constant expressions and tests.
#[derive(Debug)]
pub struct NoSession;

impl SessionHook for NoSession {}

/// What the evaluation of one statement's expressions depends on.
#[derive(Clone)]
pub struct EvalContext {
    /// When the statement came: microseconds since 2000-01-01 UTC
    pub statement_timestamp: i64,
    /// When the transaction began, which is `now()`
    pub transaction_timestamp: i64,
    /// Time zone and the other settings of text input and output
    pub format: FormatContext,
    /// `current_user`
    pub user: Arc<str>,
    /// `session_user`
    pub session_user: Arc<str>,
    /// `current_database()`
    pub database: Arc<str>,
    /// The schemas that exist among `search_path`, without the implicit `pg_catalog`
    pub schemas: Arc<[String]>,
    /// The session and the catalog
    pub session: Arc<dyn SessionHook>,
}

impl EvalContext {
    /// The session's time zone.
    pub fn timezone(&self) -> &TimeZone {
        &self.format.timezone
    }
}

impl Default for EvalContext {
    fn default() -> EvalContext {
        let format = FormatContext::default();
        EvalContext {
            statement_timestamp: format.now,
            transaction_timestamp: format.now,
            format,
            user: Arc::from("amphora"),
            session_user: Arc::from("amphora"),
            database: Arc::from("amphora"),
            schemas: Arc::from(vec!["public".to_string()]),
            session: Arc::new(NoSession),
        }
    }
}

/// One call: the context, and the types that resolution found.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The statement's context
    pub context: &'a EvalContext,
    /// The arguments' types, after coercion
    pub arg_types: &'a [DataType],
    /// The result's type
    pub return_type: &'a DataType,
}

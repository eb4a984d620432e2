//! The life of one statement: planned, begun, run, restarted where it must be, committed, answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amphora_replication::{Access, ErrorKind};
use amphora_storage::schema::{Catalog, View};
use amphora_storage::{Datum, Row};

use super::command::{Answer, no_statement};
use super::prepared::PreparedStatement;
use super::transaction::Block;
use super::{CancelHandle, Output, Session};
use crate::command::Command;
use crate::error::{Result, SqlError};
use crate::executor::{Guard, Query, Runtime, timed_out};
use crate::frontend::{self, PlannerContext, TableSizes};
use crate::plan::{Explain, Field, Prepared, Statement};
use crate::types::{CastContext, cast};

/// How often one statement is planned anew because the catalog moved.
const MAX_REPLANS: u32 = 60;

/// Between two of them, once it has happened more than a few times: a change of the catalog is on its way
/// into the log, which takes as long as the change is large.
const REPLAN_PAUSE: Duration = Duration::from_millis(250);

/// How often one statement is run anew because a row moved.
pub(super) const MAX_RESTARTS: u32 = 100;

/// Restarts before each next one waits a little.
const EAGER_RESTARTS: u32 = 3;

/// How deep EXECUTE may lead to EXECUTE.
const MAX_EXECUTE_DEPTH: u32 = 8;

/// Where a statement stands among others, which decides when its transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is all there is: outside a block it commits by itself
    Alone,
    /// More statements follow in the same implicit transaction
    Middle,
    /// The last of several
    Last,
}

/// A statement to run: what, with which parameters, and how its rows are to be shown.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) statement: Arc<PreparedStatement>,
    pub(super) params: Arc<[Datum]>,
    pub(super) formats: Arc<[i16]>,
    pub(super) place: Place,
    /// Rows to show before the portal is suspended; 0 is all
    pub(super) max_rows: u32,
    /// The columns that the client was told of
    pub(super) described: Option<Arc<[Field]>>,
}

/// How a statement ended.
pub(super) enum Outcome {
    /// Its answer has been given
    Complete,
    /// There are more rows, in this query: and some that were read and not shown
    Running(Box<Query>, Vec<Row>),
    /// There are more rows, all made
    Buffered(std::vec::IntoIter<Row>, String),
}

impl Session {
    /// Runs a statement of a simple query.
    pub(super) async fn run_simple(
        &mut self,
        statement: &Arc<PreparedStatement>,
        place: Place,
        out: &mut dyn Output,
    ) -> Result<()> {
        let job = Job {
            statement: statement.clone(),
            params: Arc::from([]),
            formats: Arc::from([]),
            place,
            max_rows: 0,
            described: None,
        };
        self.run_job(job, out).await.map(drop)
    }

    /// Runs a statement to its end, or to where its portal is suspended.
    pub(super) async fn run_job(&mut self, job: Job, out: &mut dyn Output) -> Result<Outcome> {
        self.check_not_failed(&job.statement)?;
        let alone = job.place == Place::Alone;
        let command = job.statement.parsed.as_ref().and_then(|p| p.command());
        self.enter_statement(alone);
        self.shared.activity.lock().begin(&job.statement, self.tx.started);
        if let Some(Command::Fetch(fetch)) = command {
            let deadline = self.deadline();
            return self.fetch(&job, fetch, deadline, out).await;
        }
        if let Some(command) = command
            && let Some(answer) = self.run_command(command, out).await?
        {
            return self.answer_command(&job, answer, out).await;
        }
        self.mark_queried();
        let job = self.resolve_execute(job).await?;
        let deadline = self.deadline();
        let mut attempts = Attempts { alone: alone && self.tx.block == Block::Idle, ..Attempts::default() };
        loop {
            let sent = &mut false;
            let error = match self.attempt(&job, &mut attempts, deadline, sent, out).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            if *sent || !self.recover(&job, &error, &mut attempts, deadline).await? {
                self.shared.sequences.settle().await;
                return Err(error);
            }
        }
    }

    /// A command's answer, after the commit where one is due.
    async fn answer_command(&mut self, job: &Job, answer: Answer, out: &mut dyn Output) -> Result<Outcome> {
        if !answer.rows.is_empty() {
            let prepared = self.plan(&job.statement).await?;
            return self.show_rows(job, &prepared.schema, answer.rows, answer.tag, out).await;
        }
        self.end_statement(job.place).await?;
        let text = job.statement.parsed.as_ref().map_or("", |p| p.text());
        // BEGIN has two spellings, and each its own tag.
        let start = answer.tag == "BEGIN" && text.get(..5).is_some_and(|w| w.eq_ignore_ascii_case("start"));
        out.complete(if start { "START TRANSACTION" } else { &answer.tag });
        Ok(Outcome::Complete)
    }

    /// 25P02: after an error only the end of the transaction is accepted.
    pub(super) fn check_not_failed(&self, statement: &PreparedStatement) -> Result<()> {
        let ends = statement.parsed.as_ref().is_some_and(|p| p.ends_transaction());
        if self.tx.block == Block::Failed && !ends {
            return Err(SqlError::in_failed_sql_transaction(
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let timeout = self.shared.settings.lock().effective().statement_timeout;
        self.deadline_after(timeout)
    }

    /// Where a statement that begins now must end; zero is never.
    pub(super) fn deadline_after(&self, timeout: Duration) -> Option<Instant> {
        (!timeout.is_zero()).then(|| Instant::now() + timeout)
    }

    /// The schemas of the search path that there are.
    pub(super) fn search_path(&mut self, catalog: &Arc<Catalog>) -> Arc<[String]> {
        self.eval.context(&self.shared, catalog, self.tx.started).schemas
    }

    /// The catalog that this statement sees.
    pub(super) fn catalog(&self) -> Arc<Catalog> {
        match &self.tx.txn {
            Some(txn) => txn.catalog(),
            None => self.shared.engine.catalog(),
        }
    }

    /// The statement's plan: the one it has, if nothing has changed, or a new one.
    pub(super) async fn plan(&mut self, statement: &Arc<PreparedStatement>) -> Result<Arc<Prepared>> {
        let catalog = self.catalog();
        let generation = self.shared.settings.lock().generation();
        if let Some(prepared) = statement.cached(&catalog, generation) {
            return Ok(prepared);
        }
        match self.plan_with(statement, &catalog) {
            Ok(prepared) => Ok(prepared),
            // Perhaps it was made on another node a moment ago.
            Err(error) if may_be_news(&error) => {
                let newer = self.newer_catalog(statement.parsed.as_ref().and_then(|p| p.staleness())).await;
                if Arc::ptr_eq(&newer, &catalog) || newer.version == catalog.version {
                    return Err(error);
                }
                self.plan_with(statement, &newer)
            }
            Err(error) => Err(error),
        }
    }

    /// The newest catalog; for a statement that would read what is here, the newest that is here.
    async fn newer_catalog(&mut self, hint: Option<Duration>) -> Arc<Catalog> {
        let mode = self.wanted_mode(hint);
        if let Some(txn) = &mut self.tx.txn {
            txn.set_read_mode(mode);
            txn.refresh_catalog().await;
            return txn.catalog();
        }
        let mut txn = self.shared.engine.begin(Default::default());
        txn.set_read_mode(mode);
        txn.refresh_catalog().await;
        let catalog = txn.catalog();
        txn.rollback().await;
        catalog
    }

    pub(super) fn plan_with(
        &mut self,
        statement: &PreparedStatement,
        catalog: &Arc<Catalog>,
    ) -> Result<Arc<Prepared>> {
        let Some(parsed) = &statement.parsed else {
            return Err(SqlError::internal("an empty statement has no plan"));
        };
        let (generation, mut context) = self.planner(catalog);
        context.parameters = statement.declared.clone();
        let begin = Instant::now();
        let prepared = Arc::new(frontend::prepare(parsed, &context)?);
        statement.store(catalog.clone(), generation, prepared.clone(), begin.elapsed());
        Ok(prepared)
    }

    /// What statements are bound against now, and the settings' generation that it is of.
    pub(super) fn planner(&mut self, catalog: &Arc<Catalog>) -> (u64, PlannerContext) {
        let eval = self.eval.context(&self.shared, catalog, self.tx.started);
        let (generation, options) = {
            let settings = self.shared.settings.lock();
            (settings.generation(), settings.effective().planner.clone())
        };
        let context = PlannerContext {
            catalog: catalog.clone(),
            search_path: eval.schemas.to_vec(),
            parameters: Vec::new(),
            format: eval.format,
            options,
            sizes: TableSizes::new(self.shared.engine.clone()),
        };
        (generation, context)
    }

    /// Follows EXECUTE to the statement it names, with its arguments as parameters.
    async fn resolve_execute(&mut self, mut job: Job) -> Result<Job> {
        for _ in 0..MAX_EXECUTE_DEPTH {
            let prepared = self.plan(&job.statement).await?;
            let (command, explain) = match &prepared.statement {
                Statement::Command(command) => (command, None),
                Statement::Explain(explain) => match &explain.statement {
                    Statement::Command(command) => (command, Some(explain)),
                    _ => return Ok(job),
                },
                _ => return Ok(job),
            };
            let Command::Execute { name, args } = &**command else { return Ok(job) };
            let statement = self.statements.get(name).cloned().ok_or_else(|| no_statement(name))?;
            if statement.parsed.is_none() {
                return Err(no_statement(name));
            }
            let target = self.plan(&statement).await?;
            if target.parameters.len() != args.len() {
                return Err(SqlError::syntax_error(format!(
                    "wrong number of parameters for prepared statement \"{name}\""
                ))
                .with_detail(format!(
                    "Expected {} parameters but got {}.",
                    target.parameters.len(),
                    args.len()
                )));
            }
            let run = self.runtime(&job.params, None);
            let txn = self.shared.engine.begin(Default::default());
            let params = crate::executor::constants(args, &run, txn.as_ref())?;
            drop(txn);
            let params = params
                .iter()
                .zip(args)
                .zip(&target.parameters)
                .map(|((value, arg), ty)| {
                    cast(value, &arg.ty(), ty, CastContext::Assignment, &run.eval.format)
                })
                .collect::<Result<Vec<_>>>()?;
            let statement = match explain {
                Some(explain) => explaining(explain, &statement, &target)?,
                None => statement,
            };
            job = Job { statement, params: params.into(), ..job };
        }
        Err(SqlError::statement_too_complex("EXECUTE is nested too deeply"))
    }

    /// The state of an execution that begins now.
    pub(super) fn runtime(&mut self, params: &Arc<[Datum]>, deadline: Option<Instant>) -> Runtime {
        let catalog = self.catalog();
        let eval = self.eval.context(&self.shared, &catalog, self.tx.started);
        let (memory, work_memory, temp_limit) = {
            let settings = self.shared.settings.lock();
            let effective = settings.effective();
            (effective.query_memory, effective.work_memory, effective.temp_limit)
        };
        let guard = Guard::new(self.shared.cancel.clone(), deadline, memory)
            .with_work_memory(work_memory)
            .with_temp_limit(temp_limit);
        let shared = self.shared.clone();
        let settings = Arc::new(move || shared.settings.lock().all());
        let deferred = self.tx.deferred.clone();
        let mut run =
            Runtime::new(params.clone(), eval, self.shared.engine.clone(), catalog, settings, guard);
        run.deferred = deferred;
        run
    }

    /// One try. `sent` becomes true once the client has been given something that cannot be taken back.
    async fn attempt(
        &mut self,
        job: &Job,
        attempts: &mut Attempts,
        deadline: Option<Instant>,
        sent: &mut bool,
        out: &mut dyn Output,
    ) -> Result<Outcome> {
        let prepared = self.plan(&job.statement).await?;
        let declares = job.statement.parsed.as_ref().and_then(|p| p.declares());
        if let Some(described) = &job.described
            && declares.is_none()
        {
            check_same_result(described, &prepared.schema)?;
        }
        let autocommit = attempts.alone;
        let cancel = self.shared.cancel.clone();
        if !std::mem::take(&mut attempts.restarted) {
            let access = if prepared.strong { Access::Strong } else { Access::Local };
            // What can only be read once cannot be run again: it locks as it goes.
            let once = matches!(&prepared.statement, Statement::Command(_) | Statement::Copy(_));
            if prepared.strong && self.early.is_some() {
                self.settle_early(deadline).await?;
            }
            let (mode, followed) = self.reads(job, &prepared)?;
            let follows = followed.is_some() || self.tx.follows;
            self.tx.follows = followed.is_some();
            let leaderless = prepared.tables.iter().any(|table| !table.is_strong());
            let quorums = leaderless.then(|| self.shared.settings.lock().effective().quorums);
            let txn = self.transaction(autocommit && !once);
            txn.set_read_mode(mode);
            if let Some(quorums) = quorums {
                txn.set_quorums(quorums);
            }
            if follows {
                txn.follow(followed)?;
            }
            interruptible(&cancel, deadline, txn.begin_statement(access, &prepared.tables)).await?;
            check_views(&prepared, &txn.catalog())?;
        }
        match &prepared.statement {
            Statement::Query(plan) if declares.is_some() => {
                let options = declares.cloned().unwrap_or_default();
                self.open_cursor(job, &options, plan, &prepared, deadline, out).await
            }
            Statement::Query(plan) => match &prepared.point {
                Some(point) => self.run_point(job, point, &prepared, deadline, sent, out).await,
                None => self.run_query(job, plan, &prepared, deadline, sent, out).await,
            },
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_) => {
                self.run_write(job, &prepared, deadline, out).await
            }
            Statement::Copy(copy) => self.run_copy(job, copy, &prepared, deadline, sent, out).await,
            Statement::Explain(explain) => {
                let rows = self.run_explain(job, explain, &prepared, deadline).await?;
                self.show_rows(job, &prepared.schema, rows, "EXPLAIN".into(), out).await
            }
            Statement::Command(command) => {
                let answer = match self.run_ddl(command, out).await? {
                    Some(answer) => answer,
                    None => match &**command {
                        Command::Prepare { name, parameters, sql } => {
                            let text = job.statement.parsed.as_ref().map_or("", |p| p.text());
                            self.prepare_statement(name, parameters, sql, text).await?
                        }
                        other => match self.run_command(other, out).await? {
                            Some(answer) => answer,
                            None => return Err(SqlError::internal("a command that nobody carries out")),
                        },
                    },
                };
                self.answer_command(job, answer, out).await
            }
        }
    }

    /// After an error of the statement, before anything was shown: true if it should be tried again.
    async fn recover(
        &mut self,
        job: &Job,
        error: &SqlError,
        attempts: &mut Attempts,
        deadline: Option<Instant>,
    ) -> Result<bool> {
        let Some(kind) = error.retry else { return Ok(false) };
        let cancel = self.shared.cancel.clone();
        match kind {
            ErrorKind::Restart if attempts.restarts < MAX_RESTARTS && self.tx.txn.is_some() => {
                attempts.restarts += 1;
                back_off(&cancel, attempts.restarts, deadline).await?;
                if let Some(txn) = &mut self.tx.txn {
                    txn.restart_statement().await?;
                    attempts.restarted = true;
                    if attempts.alone {
                        self.tx.deferred.lock().clear();
                    }
                }
                Ok(true)
            }
            ErrorKind::CatalogMoved if attempts.replans < MAX_REPLANS => {
                attempts.replans += 1;
                if attempts.replans > EAGER_RESTARTS {
                    let pause = REPLAN_PAUSE.min(Duration::from_millis(1 << attempts.replans.min(16)));
                    interruptible(&cancel, deadline, async {
                        tokio::time::sleep(pause).await;
                        Ok::<(), SqlError>(())
                    })
                    .await?;
                }
                if attempts.alone {
                    let hint = job.statement.parsed.as_ref().and_then(|p| p.staleness());
                    self.start_anew().await;
                    self.newer_catalog(hint).await;
                    return Ok(true);
                }
                let Some(txn) = &mut self.tx.txn else { return Ok(false) };
                txn.rollback_statement();
                txn.refresh_catalog().await;
                Ok(true)
            }
            // A statement alone is a transaction that can be started anew without anyone noticing.
            ErrorKind::Retry
                if attempts.alone && attempts.restarts < MAX_RESTARTS && error.sqlstate == "40001" =>
            {
                attempts.restarts += 1;
                back_off(&cancel, attempts.restarts, deadline).await?;
                self.start_anew().await;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Forgets the transaction of a statement alone, and begins its next.
    async fn start_anew(&mut self) {
        if let Some(mut txn) = self.tx.txn.take() {
            txn.rollback().await;
        }
        self.enter_statement(true);
    }

    /// The statement is done: outside a block, and unless more follow, so is its transaction.
    pub(super) async fn end_statement(&mut self, place: Place) -> Result<()> {
        self.shared.sequences.settle().await;
        match (self.tx.block, place) {
            (Block::Idle, _) | (Block::Implicit, Place::Last) => self.commit().await,
            _ => Ok(()),
        }
    }

    /// Shows rows that are at hand, once the transaction has ended where it should.
    pub(super) async fn show_rows(
        &mut self,
        job: &Job,
        schema: &Arc<[Field]>,
        rows: Vec<Row>,
        tag: String,
        out: &mut dyn Output,
    ) -> Result<Outcome> {
        let catalog = self.catalog();
        let format = self.eval.format(&self.shared, &catalog, self.tx.started);
        let suspended = job.max_rows > 0 && rows.len() > job.max_rows as usize;
        if !suspended {
            self.end_statement(job.place).await?;
        }
        out.fields(schema, &job.formats, &format);
        let mut rows = rows.into_iter();
        let count = if suspended { job.max_rows as usize } else { rows.len() };
        show(&mut rows, count, out).await?;
        if suspended {
            out.suspended();
            return Ok(Outcome::Buffered(rows, tag));
        }
        out.complete(&tag);
        Ok(Outcome::Complete)
    }
}

/// Gives the client some of these rows.
pub(super) async fn show(
    rows: &mut std::vec::IntoIter<Row>,
    count: usize,
    out: &mut dyn Output,
) -> Result<()> {
    let mut left = count;
    while left > 0 {
        let batch = left.min(crate::executor::BATCH);
        for row in rows.by_ref().take(batch) {
            out.row(&row)?;
        }
        left -= batch;
        out.flush_if_full().await?;
    }
    Ok(())
}

/// EXPLAIN of a prepared statement, as a statement with its parameters.
fn explaining(
    explain: &Explain,
    statement: &PreparedStatement,
    target: &Prepared,
) -> Result<Arc<PreparedStatement>> {
    let text = statement.parsed.as_ref().map_or("", |p| p.text());
    let Explain { analyze, verbose, costs, format, conflicts, .. } = explain;
    let format = format.as_str();
    let options = format!(
        "ANALYZE {analyze}, VERBOSE {verbose}, COSTS {costs}, FORMAT {format}, CONFLICTS {conflicts}"
    );
    let parsed = frontend::parse(&format!("EXPLAIN ({options}) {text}"))?.pop();
    let declared = target.parameters.iter().cloned().map(Some).collect();
    Ok(Arc::new(PreparedStatement::new(parsed, declared)))
}

/// Waits a random while, longer after many restarts, so that writers of one row do not march in step.
pub(super) async fn back_off(cancel: &CancelHandle, restarts: u32, deadline: Option<Instant>) -> Result<()> {
    if restarts <= EAGER_RESTARTS {
        return Ok(());
    }
    let most = 1u64 << (restarts - EAGER_RESTARTS).min(5);
    let wait = Duration::from_micros(rand::random_range(100..=most * 500));
    interruptible(cancel, deadline, async {
        tokio::time::sleep(wait).await;
        Ok::<(), SqlError>(())
    })
    .await
}

/// 0A000: a client must not be sent other columns than it was told of.
fn check_same_result(described: &[Field], now: &[Field]) -> Result<()> {
    let same =
        now.len() == described.len() && now.iter().zip(described).all(|(a, b)| a.ty.oid() == b.ty.oid());
    if same {
        Ok(())
    } else {
        Err(SqlError::feature_not_supported("cached plan must not change result type"))
    }
}

/// How often a statement has been tried, and why.
#[derive(Debug, Default)]
struct Attempts {
    restarts: u32,
    replans: u32,
    /// The transaction has a new snapshot already
    restarted: bool,
    /// The statement is a transaction by itself
    alone: bool,
}

/// The views a plan was made with are still those of the catalog.
fn check_views(prepared: &Prepared, catalog: &Catalog) -> Result<()> {
    let current = |view: &Arc<View>| {
        catalog.view_by_id(view.id).is_some_and(|now| Arc::ptr_eq(now, view) || now.version == view.version)
    };
    if prepared.views.iter().all(current) {
        Ok(())
    } else {
        Err(amphora_replication::Error::catalog_moved().into())
    }
}

/// Names that were not found may have been made elsewhere since this node's catalog.
fn may_be_news(error: &SqlError) -> bool {
    matches!(error.sqlstate, "42P01" | "42703" | "42704" | "42P10")
}

/// Waits for something that may take long, unless the statement is cancelled or its time runs out. 57014
pub(super) async fn interruptible<T, E: Into<SqlError>>(
    cancel: &CancelHandle,
    deadline: Option<Instant>,
    work: impl Future<Output = std::result::Result<T, E>>,
) -> Result<T> {
    let timeout = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        result = work => result.map_err(Into::into),
        () = cancel.cancelled() => Err(SqlError::query_canceled("canceling statement due to user request")),
        () = timeout => Err(timed_out()),
    }
}

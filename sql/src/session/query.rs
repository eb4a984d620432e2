//! Queries and writes, run in the session's transaction.

use std::sync::Arc;
use std::time::Instant;

use amphora_replication::ReadMode;
use amphora_storage::{Datum, Row};

use super::statement::{Job, Outcome, Place, interruptible};
use super::transaction::Block;
use super::{Output, Session};
use crate::error::{Result, SqlError};
use crate::executor::{self, LockedQuery, Query, Shared, Written, blocking, blocking_unless};
use crate::explain;
use crate::plan::{Explain, Plan, Prepared, Statement};

impl Session {
    /// Runs a query and shows its rows as they come.
    pub(super) async fn run_query(
        &mut self,
        job: &Job,
        plan: &Plan,
        prepared: &Arc<Prepared>,
        deadline: Option<Instant>,
        sent: &mut bool,
        out: &mut dyn Output,
    ) -> Result<Outcome> {
        if runs_with_first(prepared) {
            let rows = self.query_among_writes(plan, prepared, &job.params, deadline).await?;
            let tag = format!("SELECT {}", rows.len());
            return self.show_rows(job, &prepared.schema, rows, tag, out).await;
        }
        let run = self.runtime(&job.params, deadline);
        let format = run.eval.format.clone();
        let query = if LockedQuery::is_needed(plan) {
            self.check_writable("SELECT FOR UPDATE")?;
            self.lock_rows(plan, prepared, run, deadline).await?
        } else {
            Query::new(plan, prepared, run)?
        };
        let quick = executor::is_quick(plan);
        let mut rows = Vec::new();
        let mut query = Box::new(query);
        let mut described = false;
        let mut shown: u64 = 0;
        loop {
            if !quick {
                tokio::task::yield_now().await;
            }
            let Some(txn) = &self.tx.txn else { return Err(SqlError::internal("no transaction")) };
            let more = blocking_unless(quick, || query.next(txn.as_ref(), &mut rows))?;
            let wanted = match job.max_rows {
                0 => usize::MAX,
                most => most as usize - shown as usize,
            };
            if !described && (!rows.is_empty() || !more) {
                described = true;
                *sent = true;
                out.fields(&prepared.schema, &job.formats, &format);
            }
            let count = rows.len().min(wanted);
            for row in rows.drain(..count) {
                out.row(&row)?;
            }
            shown += count as u64;
            if !rows.is_empty() || (more && count == wanted) {
                out.suspended();
                return Ok(Outcome::Running(query, rows));
            }
            if !more {
                break;
            }
            out.flush_if_full().await?;
        }
        self.end_statement(job.place).await?;
        out.complete(&format!("SELECT {shown}"));
        Ok(Outcome::Complete)
    }

    pub(super) async fn lock_rows(
        &mut self,
        plan: &Plan,
        prepared: &Prepared,
        run: executor::Runtime,
        deadline: Option<Instant>,
    ) -> Result<Query> {
        let cancel = self.shared.cancel.clone();
        let locked = LockedQuery::new(plan, prepared, run)?;
        match (locked, &mut self.tx.txn) {
            (Some(locked), Some(txn)) => interruptible(&cancel, deadline, locked.lock(txn.as_mut())).await,
            _ => Err(SqlError::internal("nothing to lock")),
        }
    }

    /// Runs INSERT, UPDATE or DELETE. What it returns is shown when it can no longer be restarted.
    pub(super) async fn run_write(
        &mut self,
        job: &Job,
        prepared: &Arc<Prepared>,
        deadline: Option<Instant>,
        out: &mut dyn Output,
    ) -> Result<Outcome> {
        let (name, written) = self.write(&prepared.statement, prepared, &job.params, deadline).await?;
        let tag = match name {
            "INSERT" => format!("INSERT 0 {}", written.count),
            name => format!("{name} {}", written.count),
        };
        if prepared.schema.is_empty() {
            self.end_statement(job.place).await?;
            out.complete(&tag);
            return Ok(Outcome::Complete);
        }
        self.show_rows(job, &prepared.schema, written.rows, tag, out).await
    }

    /// Runs what stands in a WITH of which some writes or locks: each part once, in order, to its end. Where it
    /// writes, reads are held, so that the parts and the statement after them all see the state before.
    async fn run_writes(
        &mut self,
        prepared: &Prepared,
        params: &Arc<[Datum]>,
        deadline: Option<Instant>,
    ) -> Result<Shared> {
        let mut shared = Shared::default();
        if !prepared.writes.is_empty()
            && let Some(txn) = &mut self.tx.txn
        {
            txn.hold_reads(true);
        }
        // Where nothing writes, what comes after the last that locks is run when it is read.
        let run = match prepared.writes.is_empty() {
            true => prepared.locks.last().map_or(0, |last| last + 1),
            false => prepared.ctes.len(),
        };
        for (id, plan) in prepared.ctes.iter().enumerate().take(run) {
            let rows = match prepared.writes.iter().find(|(write, _)| *write == id) {
                Some((_, statement)) => {
                    let part = self.write_part(statement, prepared, params, deadline, Some(&shared)).await?;
                    part.1.rows
                }
                None if prepared.locks.contains(&id) => {
                    self.check_writable("SELECT FOR UPDATE")?;
                    let mut run = self.runtime(params, deadline);
                    run.share(shared.clone());
                    let mut query = self.lock_rows(plan, prepared, run, deadline).await?;
                    let Some(txn) = &self.tx.txn else { return Err(SqlError::internal("no transaction")) };
                    blocking(|| query.all(txn.as_ref()))?
                }
                None => self.collect(plan, prepared, params, deadline, &shared)?,
            };
            shared.push(rows);
        }
        Ok(shared)
    }

    /// All rows of a query that belongs to a statement with writes in its WITH.
    fn collect(
        &mut self,
        plan: &Plan,
        prepared: &Prepared,
        params: &Arc<[Datum]>,
        deadline: Option<Instant>,
        shared: &Shared,
    ) -> Result<Vec<Row>> {
        let mut run = self.runtime(params, deadline);
        run.share(shared.clone());
        let mut query = Query::new(plan, prepared, run)?;
        let Some(txn) = &self.tx.txn else { return Err(SqlError::internal("no transaction")) };
        blocking(|| query.all(txn.as_ref()))
    }

    /// The rows of a query whose WITH writes. They are shown when the writes can no longer be restarted.
    async fn query_among_writes(
        &mut self,
        plan: &Plan,
        prepared: &Prepared,
        params: &Arc<[Datum]>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Row>> {
        if LockedQuery::is_needed(plan) {
            return Err(SqlError::feature_not_supported(
                "SELECT FOR UPDATE with a statement that writes or locks in WITH is not supported",
            ));
        }
        let shared = self.run_writes(prepared, params, deadline).await?;
        let rows = self.collect(plan, prepared, params, deadline, &shared)?;
        self.release_reads();
        Ok(rows)
    }

    fn release_reads(&mut self) {
        if let Some(txn) = &mut self.tx.txn {
            txn.hold_reads(false);
        }
    }

    pub(super) async fn write(
        &mut self,
        statement: &Statement,
        prepared: &Prepared,
        params: &Arc<[Datum]>,
        deadline: Option<Instant>,
    ) -> Result<(&'static str, Written)> {
        if !runs_with_first(prepared) {
            return self.write_part(statement, prepared, params, deadline, None).await;
        }
        let shared = self.run_writes(prepared, params, deadline).await?;
        let written = self.write_part(statement, prepared, params, deadline, Some(&shared)).await?;
        self.release_reads();
        Ok(written)
    }

    async fn write_part(
        &mut self,
        statement: &Statement,
        prepared: &Prepared,
        params: &Arc<[Datum]>,
        deadline: Option<Instant>,
        shared: Option<&Shared>,
    ) -> Result<(&'static str, Written)> {
        let name = match statement {
            Statement::Insert(_) => "INSERT",
            Statement::Update(_) => "UPDATE",
            Statement::Merge(_) => "MERGE",
            _ => "DELETE",
        };
        self.check_writable(name)?;
        let mut run = self.runtime(params, deadline);
        if let Some(shared) = shared {
            run.share(shared.clone());
        }
        let cancel = self.shared.cancel.clone();
        let Some(txn) = &mut self.tx.txn else { return Err(SqlError::internal("no transaction")) };
        let txn = txn.as_mut();
        let written = match statement {
            Statement::Insert(insert) => {
                interruptible(&cancel, deadline, executor::run_insert(insert, prepared, run, txn)).await?
            }
            Statement::Update(update) => {
                interruptible(&cancel, deadline, executor::run_update(update, prepared, run, txn)).await?
            }
            Statement::Delete(delete) => {
                interruptible(&cancel, deadline, executor::run_delete(delete, prepared, run, txn)).await?
            }
            Statement::Merge(merge) => {
                interruptible(&cancel, deadline, executor::run_merge(merge, prepared, run, txn)).await?
            }
            _ => return Err(SqlError::internal("not a writing statement")),
        };
        Ok((name, written))
    }

    /// EXPLAIN: the plan, and with ANALYZE what it did.
    pub(super) async fn run_explain(
        &mut self,
        job: &Job,
        explain: &Explain,
        prepared: &Prepared,
        deadline: Option<Instant>,
    ) -> Result<Vec<Row>> {
        let params = &job.params;
        let mut report = explain::Report::new(explain, &prepared.ctes, job.statement.planning_time());
        if explain.analyze {
            let begin = Instant::now();
            match &explain.statement {
                Statement::Query(plan) if runs_with_first(prepared) => {
                    self.query_among_writes(plan, prepared, params, deadline).await?;
                    report.ran(executor::Statistics::default(), begin.elapsed());
                }
                Statement::Query(plan) => {
                    let run = self.runtime(params, deadline);
                    let (mut query, statistics) = match LockedQuery::is_needed(plan) {
                        true => {
                            self.check_writable("SELECT FOR UPDATE")?;
                            let query = self.lock_rows(plan, prepared, run, deadline).await?;
                            (query, executor::Statistics::default())
                        }
                        false => Query::measured(plan, prepared, run)?,
                    };
                    let Some(txn) = &self.tx.txn else { return Err(SqlError::internal("no transaction")) };
                    let mut rows = Vec::new();
                    blocking(|| {
                        while query.next(txn.as_ref(), &mut rows)? {
                            rows.clear();
                        }
                        Ok::<(), SqlError>(())
                    })?;
                    report.ran(statistics, begin.elapsed());
                }
                other => {
                    self.write(other, prepared, params, deadline).await?;
                    report.ran(executor::Statistics::default(), begin.elapsed());
                }
            }
        }
        let (mode, _) = self.reads(job, prepared)?;
        if explain.analyze
            && mode != ReadMode::Linearizable
            && prepared.strong
            && let Some(txn) = &self.tx.txn
        {
            report.read(super::reads::shown(txn.read_mode()));
        }
        Ok(report.rows())
    }

    /// More rows of a suspended query.
    pub(super) async fn resume(
        &mut self,
        query: &mut Query,
        waiting: &mut Vec<Row>,
        max_rows: u32,
        out: &mut dyn Output,
    ) -> Result<bool> {
        let mut shown: u64 = 0;
        loop {
            let wanted = match max_rows {
                0 => usize::MAX,
                most => most as usize - shown as usize,
            };
            let count = waiting.len().min(wanted);
            for row in waiting.drain(..count) {
                out.row(&row)?;
            }
            shown += count as u64;
            if count == wanted {
                out.suspended();
                return Ok(true);
            }
            out.flush_if_full().await?;
            let Some(txn) = &self.tx.txn else {
                return Err(SqlError::invalid_cursor_name("the portal's transaction has ended"));
            };
            let more = blocking(|| query.next(txn.as_ref(), waiting))?;
            if !more && waiting.is_empty() {
                out.complete(&format!("SELECT {shown}"));
                return Ok(false);
            }
        }
    }

    /// Where an Execute message stands: alone if the wire knows that Sync follows.
    pub(super) fn place_of_execute(&mut self, max_rows: u32) -> Place {
        let alone = std::mem::take(&mut self.sync_follows) && max_rows == 0;
        if alone && self.tx.block == Block::Idle && self.tx.txn.is_none() {
            Place::Alone
        } else {
            Place::Middle
        }
    }
}

/// True if something in WITH has to be run before the statement: it writes, or it locks.
fn runs_with_first(prepared: &Prepared) -> bool {
    !prepared.writes.is_empty() || !prepared.locks.is_empty()
}

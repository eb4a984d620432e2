//! COPY, run in the session's transaction.
//!
//! FROM reads its data once, so it cannot be restarted as other statements are when a row has moved. Each
//! of its batches can: a batch is kept until it is written, and begins as a statement of its own, with a
//! snapshot of its own.
//!
//! A large COPY locks its table instead of its rows, if nobody else is writing there at that moment. The
//! leader then keeps one lock for it and not a million, and whoever comes to write to the table meanwhile
//! waits, as they would for any of the rows.

use std::sync::Arc;
use std::time::Instant;

use amphora_replication::{Access, ErrorKind};
use amphora_storage::Row;

use super::statement::{Job, MAX_RESTARTS, Outcome, back_off, interruptible};
use super::{Output, Session};
use crate::copy::{Copy, CopyFormat, CopyFrom, CopyOptions, CopyTo, Decoder, Direction, Encoder};
use crate::error::{Result, SqlError};
use crate::executor::Loader;
use crate::plan::{Prepared, Statement};

/// Rows written at a time, at most.
const BATCH_ROWS: usize = 1000;
/// Bytes of input in a batch, about, at most.
const BATCH_BYTES: usize = 1 << 20;
/// Rows after which COPY tries to lock its table, and again after so many more.
const ROWS_PER_TABLE_LOCK: u64 = 4_000;

/// Rows on their way to the table.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    /// The lines they come from
    lines: Vec<u64>,
    bytes: usize,
}

/// A COPY FROM that is running.
struct Load<'a> {
    copy: &'a CopyFrom,
    prepared: &'a Prepared,
    loader: Loader,
    decoder: Decoder,
    batch: Batch,
    deadline: Option<Instant>,
    /// Rows written
    count: u64,
    /// The table is locked, and its rows need no locks
    table_locked: bool,
    /// Rows at which the table's lock is tried next
    lock_at: u64,
}

impl Session {
    /// Runs COPY. `sent` becomes true once data flows.
    pub(super) async fn run_copy(
        &mut self,
        job: &Job,
        copy: &Copy,
        prepared: &Arc<Prepared>,
        deadline: Option<Instant>,
        sent: &mut bool,
        out: &mut dyn Output,
    ) -> Result<Outcome> {
        match &copy.direction {
            Direction::To(to) => self.copy_to(job, to, &copy.options, prepared, deadline, sent, out).await,
            Direction::From(from) => {
                self.check_writable("COPY FROM")?;
                let loader = Loader::new(from, prepared, self.runtime(&job.params, deadline))?;
                let load = Load {
                    copy: from,
                    prepared,
                    loader,
                    decoder: Decoder::new(from, &copy.options),
                    batch: Batch::default(),
                    deadline,
                    count: 0,
                    table_locked: !from.table.is_strong(),
                    lock_at: ROWS_PER_TABLE_LOCK,
                };
                *sent = true;
                out.copy_in(copy.options.format == CopyFormat::Binary, from.columns.len()).await?;
                let count = self.copy_from(load, out).await?;
                self.end_statement(job.place).await?;
                out.complete(&format!("COPY {count}"));
                Ok(Outcome::Complete)
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    async fn copy_to(
        &mut self,
        job: &Job,
        to: &CopyTo,
        options: &CopyOptions,
        prepared: &Arc<Prepared>,
        deadline: Option<Instant>,
        sent: &mut bool,
        out: &mut dyn Output,
    ) -> Result<Outcome> {
        let encoder = &mut Encoder::new(out, options, &to.force_quote);
        let rows = Arc::new(Prepared { schema: to.schema.clone(), ..Prepared::clone(prepared) });
        match &to.statement {
            Statement::Query(plan) => self.run_query(job, plan, &rows, deadline, sent, encoder).await,
            write => {
                let (name, written) = self.write(write, prepared, &job.params, deadline).await?;
                *sent = true;
                self.show_rows(job, &to.schema, written.rows, name.to_owned(), encoder).await
            }
        }
    }

    async fn copy_from(&mut self, mut load: Load<'_>, out: &mut dyn Output) -> Result<u64> {
        let cancel = self.shared.cancel.clone();
        if let Some(txn) = self.tx.txn.as_deref() {
            load.loader.begin(txn);
        }
        loop {
            let data = interruptible(&cancel, load.deadline, out.copy_in_data()).await;
            let data =
                data.map_err(|error| load.decoder.at_line(error, load.decoder.line_number() + 1, ""))?;
            match &data {
                Some(bytes) => {
                    load.decoder.feed(bytes)?;
                    load.batch.bytes += bytes.len();
                }
                None => load.decoder.end(),
            }
            loop {
                let more = load.gather(self)?;
                if load.batch.is_full() || (data.is_none() && !load.batch.rows.is_empty()) {
                    self.write_batch(&mut load).await?;
                } else if !more {
                    break;
                }
            }
            if data.is_none() {
                break;
            }
        }
        let Some(txn) = self.tx.txn.as_deref_mut() else { return Err(SqlError::internal("no transaction")) };
        interruptible(&cancel, load.deadline, load.loader.finish(txn)).await?;
        Ok(load.count)
    }

    /// Writes the batch, again and again while others' rows move.
    async fn write_batch(&mut self, load: &mut Load<'_>) -> Result<()> {
        let batch = std::mem::take(&mut load.batch);
        self.lock_table_of(load).await?;
        let outcome = self.insert_batch(load, &batch.rows).await;
        load.count += batch.rows.len() as u64;
        match outcome {
            Err(error) if error.context.is_none() => {
                let line = self.guilty_line(load, &batch, &error).await;
                Err(load.decoder.at_line(error, line, ""))
            }
            other => other,
        }
    }

    async fn insert_batch(&mut self, load: &mut Load<'_>, rows: &[Row]) -> Result<()> {
        let cancel = self.shared.cancel.clone();
        let access = if load.prepared.strong { Access::Strong } else { Access::Local };
        let Some(txn) = &mut self.tx.txn else { return Err(SqlError::internal("no transaction")) };
        let txn = txn.as_mut();
        let begin = txn.begin_statement(access, &load.prepared.tables);
        interruptible(&cancel, load.deadline, begin).await?;
        let mut restarts = 0;
        loop {
            let insert = load.loader.insert(rows.to_vec(), txn);
            match interruptible(&cancel, load.deadline, insert).await {
                Err(error) if error.retry == Some(ErrorKind::Restart) && restarts < MAX_RESTARTS => {
                    restarts += 1;
                    back_off(&cancel, restarts, load.deadline).await?;
                    txn.restart_statement().await?;
                }
                outcome => return outcome,
            }
        }
    }

    /// The line of the row that the batch could not be written for: the first that cannot be written alone.
    async fn guilty_line(&mut self, load: &mut Load<'_>, batch: &Batch, error: &SqlError) -> u64 {
        let last = batch.lines.last().copied().unwrap_or_default();
        if !error.sqlstate.starts_with("23") {
            return last;
        }
        if let Some(txn) = &mut self.tx.txn {
            txn.rollback_statement();
        }
        for (row, line) in batch.rows.iter().zip(&batch.lines) {
            let Some(txn) = &mut self.tx.txn else { break };
            if load.loader.insert(vec![row.clone()], txn.as_mut()).await.is_err() {
                return *line;
            }
        }
        last
    }

    /// Locks the table once much has been written to it, if nobody else is writing.
    async fn lock_table_of(&mut self, load: &mut Load<'_>) -> Result<()> {
        if load.table_locked || load.count < load.lock_at {
            return Ok(());
        }
        load.lock_at = load.count + ROWS_PER_TABLE_LOCK;
        if let Some(txn) = &mut self.tx.txn {
            load.table_locked = txn.try_lock_table(&load.copy.table).await?;
        }
        Ok(())
    }
}

impl Batch {
    fn is_full(&self) -> bool {
        self.rows.len() >= BATCH_ROWS || (self.bytes >= BATCH_BYTES && !self.rows.is_empty())
    }
}

impl Load<'_> {
    /// Fills the batch from what has been received. False if more data is needed, or there is none.
    fn gather(&mut self, session: &Session) -> Result<bool> {
        let Some(txn) = &session.tx.txn else { return Err(SqlError::internal("no transaction")) };
        self.loader.check()?;
        while !self.batch.is_full() {
            let Some(record) = self.decoder.next(self.loader.format())? else { return Ok(false) };
            let row = self.loader.row(record, txn.as_ref()).map_err(|error| self.decoder.in_line(error))?;
            if let Some(row) = row {
                self.batch.rows.push(row);
                self.batch.lines.push(self.decoder.line_number());
            }
        }
        Ok(true)
    }
}

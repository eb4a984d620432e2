//! The limits of one running statement: its memory, its time, and the user's patience.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use amphora_storage::Datum;

use super::spill::TempSpace;
use crate::error::{Result, SqlError};
use crate::session::CancelHandle;

/// Bytes of rows that one statement may hold at a time, by default.
pub const DEFAULT_MEMORY: usize = 256 << 20;

/// How many rows an inner loop may turn over between two looks at the clock.
const ROWS_PER_CHECK: u32 = 1024;

/// 57014 if the statement was cancelled or has run out of time.
pub(crate) fn check_interrupt(cancel: &CancelHandle, deadline: Option<Instant>) -> Result<()> {
    if cancel.is_cancelled() {
        return Err(SqlError::query_canceled("canceling statement due to user request"));
    }
    match deadline {
        Some(deadline) if Instant::now() >= deadline => Err(timed_out()),
        _ => Ok(()),
    }
}

/// What a statement may use, and what it has used.
#[derive(Debug)]
pub struct Guard {
    cancel: CancelHandle,
    deadline: Option<Instant>,
    limit: usize,
    work_memory: usize,
    used: Cell<usize>,
    peak: Cell<usize>,
    turns: Cell<u32>,
    temp_space: Arc<TempSpace>,
}

impl Guard {
    /// A guard that obeys this handle, this deadline and this budget in bytes.
    pub fn new(cancel: CancelHandle, deadline: Option<Instant>, limit: usize) -> Guard {
        Guard {
            cancel,
            deadline,
            limit,
            work_memory: limit,
            used: Cell::new(0),
            peak: Cell::new(0),
            turns: Cell::new(0),
            temp_space: Arc::new(TempSpace::new(u64::MAX)),
        }
    }

    /// 57014 if the statement was cancelled or has run out of time.
    pub fn check(&self) -> Result<()> {
        check_interrupt(&self.cancel, self.deadline)
    }

    /// [`check`](Guard::check), most times for free: for loops that turn over one row.
    pub fn tick(&self) -> Result<()> {
        let turns = self.turns.get() + 1;
        if turns < ROWS_PER_CHECK {
            self.turns.set(turns);
            return Ok(());
        }
        self.turns.set(0);
        self.check()
    }

    /// Takes `bytes` from the budget. 53200 if there are not so many left.
    pub fn grow(&self, bytes: usize) -> Result<()> {
        let used = self.used.get().saturating_add(bytes);
        if used > self.limit {
            return Err(SqlError::out_of_memory("out of memory")
                .with_detail(format!(
                    "The statement needs more than its budget of {} MB for rows in sorts, joins and groups.",
                    self.limit >> 20
                ))
                .with_hint("Select fewer rows or columns, or raise amphora.query_memory."));
        }
        self.used.set(used);
        if used > self.peak.get() {
            self.peak.set(used);
        }
        Ok(())
    }

    /// The same, with a limit in bytes for each operator that can use files instead.
    #[must_use]
    pub fn with_work_memory(self, work_memory: usize) -> Guard {
        Guard { work_memory, ..self }
    }

    /// The same, with a limit in bytes for its temporary files.
    #[must_use]
    pub fn with_temp_limit(self, limit: u64) -> Guard {
        Guard { temp_space: Arc::new(TempSpace::new(limit)), ..self }
    }

    /// What temporary files take.
    pub(super) fn temp_space(&self) -> &Arc<TempSpace> {
        &self.temp_space
    }

    /// Bytes after which an operator should use files.
    pub fn work_memory(&self) -> usize {
        self.work_memory
    }

    /// True if so many bytes are left in the budget, and an eighth of it for those who cannot use files.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.used.get().saturating_add(bytes) <= self.limit - self.limit / 8
    }

    /// Gives `bytes` back.
    pub fn shrink(&self, bytes: usize) {
        self.used.set(self.used.get().saturating_sub(bytes));
    }

    /// The most that was held at a time, in bytes.
    pub fn peak(&self) -> usize {
        self.peak.get()
    }
}

/// 57014, for `statement_timeout`.
pub(crate) fn timed_out() -> SqlError {
    SqlError::query_canceled("canceling statement due to statement timeout")
}

/// Bytes that a row holds.
pub(crate) fn row_memory(row: &[Datum]) -> usize {
    std::mem::size_of::<Vec<Datum>>() + row.iter().map(Datum::memory).sum::<usize>()
}

/// Rows that are held, and counted against the budget until they are dropped or handed on.
#[derive(Debug, Default)]
pub(crate) struct Held {
    bytes: usize,
}

impl Held {
    /// Counts one more row.
    pub(crate) fn add(&mut self, guard: &Guard, row: &[Datum]) -> Result<()> {
        self.add_bytes(guard, row_memory(row))
    }

    /// Counts so many more bytes.
    pub(crate) fn add_bytes(&mut self, guard: &Guard, bytes: usize) -> Result<()> {
        guard.grow(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// What is counted now.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self, guard: &Guard) {
        guard.shrink(std::mem::take(&mut self.bytes));
    }
}

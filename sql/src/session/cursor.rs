//! Cursors: DECLARE, FETCH, MOVE, CLOSE.
//!
//! A cursor is a query that waits for its rows to be wanted, and a window over the rows it has given:
//!
//! ```text
//!   row      1  2  3  4  5  6  7  8  9 …
//!            forgotten │◄─ window ─►│◄─ still in the query
//!                      base     ▲   read
//!                            position
//! ```
//!
//! NO SCROLL forgets each row when it has been passed, so it streams in constant memory. SCROLL keeps all
//! rows, within the memory of a query. A cursor that says neither goes backward as long as its rows are few,
//! and then forgets as NO SCROLL does.
//!
//! What a cursor gives is what was there when it was declared, whatever the transaction writes meanwhile.
//! A query that reads each table once is begun at once and then waits; one that comes back to a table for
//! every row of another would meet newer rows, and is read to its end when it is declared. WITH HOLD is
//! read to its end when the transaction commits.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use amphora_replication::Transaction;
use amphora_storage::schema::TableId;
use amphora_storage::{Datum, Row};
use async_trait::async_trait;

use super::statement::{Job, Outcome, Place};
use super::transaction::Block;
use super::{ListedCursor, MAX_PORTALS, Notice, Output, Session};
use crate::command::{Command, CursorOptions, Fetch, Motion};
use crate::error::{Result, SqlError};
use crate::executor::{LockedQuery, Query, blocking, row_memory, timed_out};
use crate::expr::Expr;
use crate::plan::{Field, Node, Plan, Prepared};
use crate::types::FormatContext;

/// Bytes of rows that a cursor keeps which was not declared SCROLL.
const UNASKED_MEMORY: usize = 4 << 20;

/// An open cursor.
pub(super) struct Cursor {
    options: CursorOptions,
    /// The columns that it shows; what its rows have behind them are keys
    schema: Arc<[Field]>,
    keys: Vec<(TableId, usize)>,
    text: String,
    created: i64,
    /// Savepoints that were open when it was declared
    depth: usize,
    /// Its transaction has committed, and it is `WITH HOLD`
    held: bool,
    /// Gives the rows after the window; `None` once there are no more
    query: Option<Box<Query>>,
    window: VecDeque<Row>,
    /// Rows before the window
    base: u64,
    /// 0 is before the first row; one more than there are rows is after the last
    position: u64,
    /// Bytes of the window
    bytes: usize,
    /// Bytes the window may have
    memory: usize,
}

fn forward_only() -> SqlError {
    SqlError::object_not_in_prerequisite_state("cursor can only scan forward")
        .with_hint("Declare it with SCROLL option to enable backward scan.")
}

impl Cursor {
    /// Its columns and their formats, as Describe of a portal gives them.
    pub(super) fn description(&self) -> (Arc<[Field]>, Vec<i16>) {
        (self.schema.clone(), if self.options.binary { vec![1] } else { Vec::new() })
    }

    /// As it is listed.
    fn listed(&self) -> ListedCursor {
        let tables: Vec<TableId> = self.keys.iter().map(|(table, _)| *table).collect();
        let place = self.position.checked_sub(self.base + 1).and_then(|i| usize::try_from(i).ok());
        let row = place.filter(|_| !self.keys.is_empty()).and_then(|i| self.window.get(i));
        let current = row.map(|row| {
            let mut rest = row.get(self.schema.len()..).unwrap_or_default();
            let mut keys = Vec::with_capacity(self.keys.len());
            for (table, parts) in &self.keys {
                let (key, after) = rest.split_at((*parts).min(rest.len()));
                keys.push((*table, key.to_vec()));
                rest = after;
            }
            keys
        });
        ListedCursor {
            name: self.options.name.clone(),
            text: self.text.clone(),
            hold: self.options.hold,
            binary: self.options.binary,
            scroll: self.options.scroll.unwrap_or(true),
            created: self.created,
            held: self.held,
            current,
            tables,
        }
    }

    /// Rows that have come from the query.
    fn read(&self) -> u64 {
        self.base + self.window.len() as u64
    }

    /// Pulls rows until row `n` has come or there are no more.
    fn pull_to(&mut self, n: u64, txn: Option<&dyn Transaction>) -> Result<()> {
        let mut batch = Vec::new();
        while self.read() < n
            && let Some(query) = &mut self.query
        {
            let Some(txn) = txn else { return Err(SqlError::internal("a cursor without its transaction")) };
            let more = query.next(txn, &mut batch)?;
            for row in batch.drain(..) {
                self.bytes += row_memory(&row);
                self.window.push_back(row);
            }
            if !more {
                self.query = None;
            }
            self.forget()?;
        }
        Ok(())
    }

    /// Gives up rows that have been passed, where they need not be kept or are too many.
    fn forget(&mut self) -> Result<()> {
        let limit = match self.options.scroll {
            Some(true) => {
                if self.bytes > self.memory {
                    return Err(SqlError::out_of_memory("out of memory")
                        .with_detail(format!("A cursor keeps at most {} MB of rows.", self.memory >> 20))
                        .with_hint("Declare it with NO SCROLL, or raise amphora.query_memory."));
                }
                return Ok(());
            }
            Some(false) => 0,
            None => UNASKED_MEMORY,
        };
        if self.bytes > limit {
            while self.base + 1 < self.position
                && let Some(row) = self.window.pop_front()
            {
                self.bytes -= row_memory(&row);
                self.base += 1;
            }
        }
        Ok(())
    }

    /// Row `n`, if there is one. 55000 if it has been forgotten.
    fn row(&mut self, n: u64, txn: Option<&dyn Transaction>) -> Result<Option<&Row>> {
        if n == 0 {
            return Ok(None);
        }
        if n <= self.base {
            return Err(forward_only());
        }
        self.pull_to(n, txn)?;
        Ok(self.window.get((n - self.base - 1) as usize))
    }

    /// Goes to row `n`; true if there is one.
    fn go(&mut self, n: u64, txn: Option<&dyn Transaction>) -> Result<bool> {
        let found = self.row(n, txn)?.is_some();
        self.position = if n == 0 || found { n } else { self.read() + 1 };
        Ok(found)
    }

    fn may_go_back(&self) -> Result<()> {
        if self.options.scroll == Some(false) { Err(forward_only()) } else { Ok(()) }
    }

    /// One step of a motion: to the next row (or the one before), if there is one.
    fn step(&mut self, backward: bool, txn: Option<&dyn Transaction>) -> Result<bool> {
        if !backward {
            let found = self.go(self.position + 1, txn)?;
            self.forget()?;
            return Ok(found);
        }
        self.may_go_back()?;
        let to = self.position.saturating_sub(1);
        self.go(to, txn)
    }

    /// The rows of ABSOLUTE and RELATIVE are one at most: goes there.
    fn jump(&mut self, motion: Motion, shows: bool, txn: Option<&dyn Transaction>) -> Result<bool> {
        if matches!(motion, Motion::Relative(0)) {
            let stands = self.position > 0 && self.position <= self.read();
            // To show a row again is to go back to it; to count it is not.
            if stands && shows {
                self.may_go_back()?;
            }
            return Ok(stands);
        }
        let target = match motion {
            Motion::Absolute(n) if n >= 0 => n.unsigned_abs(),
            Motion::Absolute(n) => {
                self.may_go_back()?;
                self.pull_to(u64::MAX, txn)?;
                (self.read() + 1).saturating_sub(n.unsigned_abs())
            }
            Motion::Relative(n) if n >= 0 => self.position + n.unsigned_abs(),
            Motion::Relative(n) => self.position.saturating_sub(n.unsigned_abs()),
            Motion::Forward(_) | Motion::Backward(_) => self.position,
        };
        if target <= self.position && target != 0 || target < self.position {
            self.may_go_back()?;
        }
        if target == 0 && self.base > 0 {
            return Err(forward_only());
        }
        self.go(target, txn)
    }
}

impl Session {
    /// DECLARE, whose statement has begun.
    pub(super) async fn open_cursor(
        &mut self,
        job: &Job,
        options: &CursorOptions,
        plan: &Plan,
        prepared: &Arc<Prepared>,
        deadline: Option<Instant>,
        out: &mut dyn Output,
    ) -> Result<Outcome> {
        let in_block = self.tx.block == Block::Explicit
            || (self.tx.block == Block::Implicit && job.place != Place::Alone && job.described.is_none());
        if !options.hold && !in_block {
            return Err(SqlError::no_active_sql_transaction(
                "DECLARE CURSOR can only be used in transaction blocks",
            ));
        }
        if self.cursors.contains_key(&options.name) || self.portals.contains_key(&options.name) {
            let message = format!("cursor \"{}\" already exists", options.name);
            return Err(SqlError::new("42P03", message));
        }
        if self.cursors.len() >= MAX_PORTALS {
            return Err(SqlError::new("53400", format!("a session can have at most {MAX_PORTALS} cursors"))
                .with_hint("Close cursors that are no longer read."));
        }
        let locks = LockedQuery::is_needed(plan);
        for (given, what, detail) in [
            (options.hold, "WITH HOLD", "Holdable cursors must be READ ONLY."),
            (options.scroll == Some(true), "SCROLL CURSOR", "Scrollable cursors must be READ ONLY."),
        ] {
            if locks && given {
                let what = if given && what == "WITH HOLD" { "CURSOR WITH HOLD" } else { what };
                let message = format!("DECLARE {what} ... FOR UPDATE is not supported");
                return Err(SqlError::feature_not_supported(message).with_detail(detail));
            }
        }
        let run = self.runtime(&job.params, None);
        let query = if locks {
            self.check_writable("SELECT FOR UPDATE")?;
            self.lock_rows(plan, prepared, run, deadline).await?
        } else {
            Query::new(plan, prepared, run)?
        };
        let memory = self.shared.settings.lock().effective().query_memory;
        let mut cursor = Cursor {
            options: options.clone(),
            schema: prepared.schema.clone(),
            keys: keys_behind(plan, prepared.schema.len()),
            text: job.statement.parsed.as_ref().map_or("", |p| p.text()).to_owned(),
            created: crate::types::current_timestamp(),
            depth: self.savepoint_depth(),
            held: false,
            query: Some(Box::new(query)),
            window: VecDeque::new(),
            base: 0,
            position: 0,
            bytes: 0,
            memory,
        };
        // The first batch opens what the query reads, at this statement's snapshot.
        let once = prepared.ctes.is_empty() && reads_once(plan);
        self.pull(&mut cursor, if once { 1 } else { u64::MAX })?;
        if !once && cursor.bytes > memory {
            return Err(SqlError::out_of_memory("out of memory")
                .with_detail(format!("A cursor keeps at most {} MB of rows.", memory >> 20))
                .with_hint("Select fewer rows or columns, or raise amphora.query_memory."));
        }
        self.cursors.insert(options.name.clone(), cursor);
        self.list_cursors();
        self.end_statement(job.place).await?;
        out.complete("DECLARE CURSOR");
        Ok(Outcome::Complete)
    }

    fn pull(&self, cursor: &mut Cursor, to: u64) -> Result<()> {
        blocking(|| cursor.pull_to(to, self.tx.txn.as_deref()))
    }

    /// The columns that a FETCH gives.
    pub(super) fn fetched(&self, command: &Command) -> Option<Arc<[Field]>> {
        match command {
            Command::Fetch(Fetch { name, shows: true, .. }) => {
                self.cursors.get(name).map(|c| c.schema.clone())
            }
            _ => None,
        }
    }

    /// FETCH and MOVE.
    pub(super) async fn fetch(
        &mut self,
        job: &Job,
        fetch: &Fetch,
        deadline: Option<Instant>,
        out: &mut dyn Output,
    ) -> Result<Outcome> {
        if !self.cursors.contains_key(&fetch.name) && self.portals.contains_key(&fetch.name) {
            return self.fetch_portal(job, fetch, out).await;
        }
        // Taken out while it moves: its rows are read with the session's transaction.
        let mut cursor = self.cursors.remove(&fetch.name).ok_or_else(|| no_cursor(&fetch.name))?;
        let result = self.move_cursor(job, fetch, &mut cursor, deadline, out).await;
        let schema = cursor.schema.clone();
        self.cursors.insert(fetch.name.clone(), cursor);
        self.list_cursors();
        let (moved, kept) = result?;
        let tag = format!("{} {moved}", if fetch.shows { "FETCH" } else { "MOVE" });
        if let Some(rows) = kept {
            return self.show_rows(job, &schema, rows, tag, out).await;
        }
        self.end_statement(job.place).await?;
        out.complete(&tag);
        Ok(Outcome::Complete)
    }

    /// FETCH and MOVE of a portal that Bind made: the next rows.
    async fn fetch_portal(&mut self, job: &Job, fetch: &Fetch, out: &mut dyn Output) -> Result<Outcome> {
        let count = match fetch.motion {
            Motion::Forward(None) => 0,
            Motion::Forward(Some(n)) if n > 0 => u32::try_from(n).unwrap_or(u32::MAX),
            _ => return Err(forward_only()),
        };
        let mut passing = Passing { out, shows: fetch.shows, rows: 0 };
        self.go_on_with(&fetch.name, count, &mut passing).await?;
        let moved = passing.rows;
        self.end_statement(job.place).await?;
        out.complete(&format!("{} {moved}", if fetch.shows { "FETCH" } else { "MOVE" }));
        Ok(Outcome::Complete)
    }

    /// [`run_portal`](Session::run_portal), which may lead back here.
    fn go_on_with<'a>(
        &'a mut self,
        name: &'a str,
        count: u32,
        out: &'a mut dyn Output,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>> {
        Box::pin(self.run_portal(name, count, out))
    }

    /// Moves and shows. Returns how many rows it passed, and the rows themselves where only some of them are
    /// wanted at a time.
    async fn move_cursor(
        &mut self,
        job: &Job,
        fetch: &Fetch,
        cursor: &mut Cursor,
        deadline: Option<Instant>,
        out: &mut dyn Output,
    ) -> Result<(u64, Option<Vec<Row>>)> {
        let keeps = fetch.shows && job.max_rows > 0;
        let mut kept = Vec::new();
        if fetch.shows && !keeps {
            let catalog = self.catalog();
            let format = self.eval.context(&self.shared, &catalog, self.tx.started).format;
            let binary: &[i16] = &[1];
            let simple = job.described.is_none();
            let formats = if cursor.options.binary && simple { binary } else { &job.formats };
            out.fields(&cursor.schema, formats, &format);
        }
        let (backward, count) = match fetch.motion {
            Motion::Forward(Some(n)) if n < 0 => (true, Some(n.unsigned_abs())),
            Motion::Backward(Some(n)) if n < 0 => (false, Some(n.unsigned_abs())),
            Motion::Forward(n) => (false, n.map(i64::unsigned_abs)),
            Motion::Backward(n) => (true, n.map(i64::unsigned_abs)),
            Motion::Absolute(_) | Motion::Relative(_) => (false, Some(0)),
        };
        // A count of zero is the row it stands on.
        let jump = match fetch.motion {
            Motion::Absolute(_) | Motion::Relative(_) => Some(fetch.motion),
            _ if count == Some(0) => Some(Motion::Relative(0)),
            _ => None,
        };
        let mut moved = 0;
        loop {
            self.shared.cancel_check(deadline)?;
            let mut done = false;
            let mut batch = Vec::new();
            blocking(|| {
                let txn = self.tx.txn.as_deref();
                while !done && batch.len() < crate::executor::BATCH {
                    let found = match jump {
                        Some(motion) => {
                            done = true;
                            cursor.jump(motion, fetch.shows, txn)?
                        }
                        None if count.is_some_and(|n| moved >= n) => {
                            done = true;
                            false
                        }
                        None => {
                            let found = cursor.step(backward, txn)?;
                            done = !found;
                            found
                        }
                    };
                    if found {
                        moved += 1;
                        if fetch.shows {
                            let position = cursor.position;
                            let width = cursor.schema.len();
                            batch.extend(cursor.row(position, txn)?.map(|row| row[..width].to_vec()));
                        } else if moved % crate::executor::BATCH as u64 == 0 {
                            break;
                        }
                    }
                }
                Ok::<(), SqlError>(())
            })?;
            if keeps {
                kept.append(&mut batch);
            } else {
                for row in &batch {
                    out.row(row)?;
                }
                out.flush_if_full().await?;
            }
            if done {
                return Ok((moved, keeps.then_some(kept)));
            }
        }
    }

    /// CLOSE. 34000
    pub(super) fn close_cursor(&mut self, name: Option<&str>) -> Result<&'static str> {
        match name {
            None => {
                self.cursors.clear();
                self.portals.clear();
                self.list_cursors();
                Ok("CLOSE CURSOR ALL")
            }
            Some(name) => {
                let closed = self.cursors.remove(name).is_some() || self.portals.remove(name).is_some();
                self.list_cursors();
                if closed { Ok("CLOSE CURSOR") } else { Err(no_cursor(name)) }
            }
        }
    }

    /// The transaction is about to commit: cursors that outlive it take the rows they have not given yet.
    pub(super) fn hold_cursors(&mut self) -> Result<()> {
        let txn = self.tx.txn.as_deref();
        for cursor in self.cursors.values_mut().filter(|c| c.options.hold && !c.held) {
            blocking(|| cursor.pull_to(u64::MAX, txn))?;
            if cursor.bytes > cursor.memory {
                return Err(SqlError::out_of_memory("out of memory")
                    .with_detail(format!(
                        "A cursor WITH HOLD keeps at most {} MB of rows.",
                        cursor.memory >> 20
                    ))
                    .with_hint("Read it before COMMIT, or raise amphora.query_memory."));
            }
            cursor.held = true;
        }
        Ok(())
    }

    /// The transaction has ended: its cursors with it, but for those held.
    pub(super) fn drop_cursors(&mut self) {
        if !self.cursors.is_empty() {
            self.cursors.retain(|_, cursor| cursor.held);
            self.list_cursors();
        }
    }

    /// A savepoint was returned to: cursors declared after it are gone.
    pub(super) fn drop_cursors_since(&mut self, depth: usize) {
        if !self.cursors.is_empty() {
            self.cursors.retain(|_, cursor| cursor.held || cursor.depth <= depth);
            self.list_cursors();
        }
    }

    /// What `pg_cursors` and CURRENT OF see.
    fn list_cursors(&self) {
        let listed = |(name, cursor): (&String, &Cursor)| (name.clone(), cursor.listed());
        self.shared.listing.lock().cursors = self.cursors.iter().map(listed).collect();
    }
}

/// The tables whose keys stand behind the columns that a cursor shows, and of how many parts each is.
fn keys_behind(plan: &Plan, shown: usize) -> Vec<(TableId, usize)> {
    let mut keys: Vec<(TableId, usize)> = Vec::new();
    for field in plan.schema.iter().skip(shown) {
        let Some((table, _)) = field.origin else { continue };
        match keys.last_mut() {
            Some((last, parts)) if last.0 == table => *parts += 1,
            _ => keys.push((TableId(table), 1)),
        }
    }
    keys
}

/// 34000
fn no_cursor(name: &str) -> SqlError {
    SqlError::invalid_cursor_name(format!("cursor \"{name}\" does not exist"))
}

/// True of a plan that opens everything it reads when its first row is wanted, and never again.
fn reads_once(plan: &Plan) -> bool {
    let mut once = !matches!(
        plan.node,
        Node::NestedLoop { .. } | Node::Recursive { .. } | Node::Append(_) | Node::SetOperation { .. }
    );
    if let Node::TableScan(scan) = &plan.node {
        once &= scan.ranges.len() <= 1;
    }
    plan.node.exprs(&mut |e| once &= !e.any(&mut |e| matches!(e, Expr::Subquery(_))));
    plan.node.inputs(&mut |input, _| once &= reads_once(input));
    once
}

impl super::SessionShared {
    /// 57014 if the statement was cancelled or has run out of time.
    fn cancel_check(&self, deadline: Option<Instant>) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(SqlError::query_canceled("canceling statement due to user request"));
        }
        match deadline {
            Some(deadline) if Instant::now() >= deadline => Err(timed_out()),
            _ => Ok(()),
        }
    }
}

/// Rows of a portal on their way to the client, or counted only; how the portal itself ends is not told.
struct Passing<'a> {
    out: &'a mut dyn Output,
    shows: bool,
    rows: u64,
}

#[async_trait]
impl Output for Passing<'_> {
    fn fields(&mut self, fields: &Arc<[Field]>, formats: &[i16], format: &FormatContext) {
        if self.shows {
            self.out.fields(fields, formats, format);
        }
    }

    fn row(&mut self, row: &[Datum]) -> Result<()> {
        self.rows += 1;
        if self.shows { self.out.row(row) } else { Ok(()) }
    }

    async fn flush_if_full(&mut self) -> Result<()> {
        self.out.flush_if_full().await
    }

    fn complete(&mut self, _: &str) {}

    fn suspended(&mut self) {}

    fn empty_query(&mut self) {}

    fn notice(&mut self, notice: Notice) {
        self.out.notice(notice);
    }

    fn parameter_status(&mut self, name: &str, value: &str) {
        self.out.parameter_status(name, value);
    }
}

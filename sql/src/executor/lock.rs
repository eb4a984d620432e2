//! SELECT … FOR UPDATE: its rows are locked before the first of them is shown.
//!
//! ```text
//!        Limit, Project, …         above: runs over the rows that were locked
//!   ───────── Lock ─────────       here, async: read a batch, lock it, keep what was locked
//!        TableScan, Filter, …      below: runs first
//! ```
//!
//! Locking a row that has moved since the statement's snapshot is an error of kind `Restart`, upon which
//! the session runs the whole statement again on a newer snapshot.

use amphora_replication::{LockMode, RowLock, StoredRow, Transaction, WaitPolicy};
use amphora_storage::Row;

use super::guard::Held;
use super::projection::{limit_value, offset_value};
use super::{Builder, Context, Expression, Operator, Query, Runtime, blocking_unless, is_quick};
use crate::error::Result;
use crate::plan::{LockTarget, Node, Plan, Prepared};

/// Rows read and locked at a time.
const LOCK_BATCH: usize = 1000;
/// With SKIP LOCKED, so many more rows are offered than are wanted: the first may be others'.
const OTHERS: usize = 63;

/// Stands for the `Lock` node in the upper part: gives the rows that were locked.
pub(super) struct LockedRows;

impl Operator for LockedRows {
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool> {
        out.append(&mut context.take_locked()?);
        Ok(false)
    }

    fn reset(&mut self, _: &Context<'_>) {}
}

/// A query with a `Lock` node, before its rows are locked.
pub struct LockedQuery {
    query: Query,
    input: Box<dyn Operator>,
    targets: Vec<LockTarget>,
    mode: LockMode,
    wait: WaitPolicy,
    /// LIMIT and OFFSET that stand directly above, so that no more rows are locked than are shown
    limit: Option<Expression>,
    offset: Option<Expression>,
    /// The rows are found by key
    quick: bool,
    held: Held,
}

impl LockedQuery {
    /// True of a plan with a `Lock` node at its top.
    pub fn is_needed(plan: &Plan) -> bool {
        find(plan).is_some()
    }

    /// Builds it; `None` if the plan locks nothing.
    pub fn new(plan: &Plan, prepared: &Prepared, run: Runtime) -> Result<Option<LockedQuery>> {
        let Some((lock, limit)) = find(plan) else { return Ok(None) };
        let Node::Lock { input, targets, mode, wait } = &lock.node else { return Ok(None) };
        let mut builder = Builder::new();
        let compile =
            |e: Option<&crate::expr::Expr>, b: &mut Builder| e.map(|e| Expression::compile(e, b)).transpose();
        let (mut limit_expr, mut offset_expr) = (None, None);
        if let Some(Node::Limit { limit, offset, .. }) = limit.map(|p| &p.node) {
            limit_expr = compile(limit.as_ref(), &mut builder)?;
            offset_expr = compile(offset.as_ref(), &mut builder)?;
        }
        Ok(Some(LockedQuery {
            input: builder.build(input)?,
            quick: is_quick(input),
            targets: targets.clone(),
            mode: *mode,
            wait: *wait,
            limit: limit_expr,
            offset: offset_expr,
            held: Held::default(),
            query: Query::new(plan, prepared, run)?,
        }))
    }

    /// Locks the rows and gives the query that shows them.
    pub async fn lock(mut self, txn: &mut dyn Transaction) -> Result<Query> {
        let wanted = self.wanted(txn)?;
        let mut locked: Vec<Row> = Vec::new();
        let mut rows: Vec<Row> = Vec::new();
        let mut more = true;
        let mut moved = false;
        while locked.len() < wanted && (more || !rows.is_empty()) {
            while more && rows.is_empty() {
                let read = || self.input.next(&self.query.run.context(&*txn), &mut rows);
                more = blocking_unless(self.quick, read)?;
            }
            if self.wait == WaitPolicy::Skip && self.targets.len() == 1 {
                moved |= self.lock_free(&mut rows, wanted, &mut locked, txn).await?;
                continue;
            }
            let count = rows.len().min(LOCK_BATCH).min(wanted - locked.len());
            let mut batch: Vec<Option<Row>> = rows.drain(..count).map(Some).collect();
            for target in 0..self.targets.len() {
                let (positions, stored) = self.stored(target, &mut batch, txn)?;
                let table = self.targets[target].table.clone();
                let outcome = txn.lock_rows(&table, &stored, self.mode, self.wait).await?;
                for (position, _) in positions.iter().zip(outcome).filter(|(_, locked)| !locked) {
                    batch[*position] = None;
                }
            }
            for row in batch.into_iter().flatten() {
                self.held.add(&self.query.run.guard, &row)?;
                locked.push(row);
            }
        }
        // What had moved may be free and wanted: it is looked at again.
        if moved && locked.len() < wanted {
            return Err(amphora_replication::Error::restart().into());
        }
        self.query.run.set_locked(locked);
        Ok(self.query)
    }

    /// Of the next rows, locks as many as are wanted of those that are free: in one round, also if the first are
    /// all being worked on by others. True if some had moved.
    async fn lock_free(
        &mut self,
        rows: &mut Vec<Row>,
        wanted: usize,
        locked: &mut Vec<Row>,
        txn: &mut dyn Transaction,
    ) -> Result<bool> {
        let wanted = wanted - locked.len();
        let count = rows.len().min(wanted.saturating_add(OTHERS)).min(LOCK_BATCH);
        let mut batch: Vec<Option<Row>> = rows.drain(..count).map(Some).collect();
        let (positions, stored) = self.stored(0, &mut batch, txn)?;
        let table = self.targets[0].table.clone();
        let outcome = txn.lock_free_rows(&table, &stored, self.mode, wanted).await?;
        let mut moved = false;
        let mut untried = Vec::new();
        for (position, outcome) in positions.into_iter().zip(outcome) {
            let Some(row) = batch[position].take() else { continue };
            match outcome {
                RowLock::Locked => {
                    self.held.add(&self.query.run.guard, &row)?;
                    locked.push(row);
                }
                RowLock::Untried => untried.push(row),
                RowLock::Skipped => {}
                RowLock::Moved => moved = true,
            }
        }
        rows.splice(0..0, untried);
        Ok(moved)
    }

    fn wanted(&self, txn: &dyn Transaction) -> Result<usize> {
        let context = self.query.run.context(txn);
        let Some(limit) = limit_value(self.limit.as_ref(), &context)? else { return Ok(usize::MAX) };
        let offset = offset_value(self.offset.as_ref(), &context)?;
        Ok(usize::try_from(limit.saturating_add(offset)).unwrap_or(usize::MAX))
    }

    /// The stored rows that a batch was made of, and which row of the batch each belongs to. A row that
    /// was joined to nothing has nothing to lock.
    fn stored(
        &self,
        target: usize,
        batch: &mut [Option<Row>],
        txn: &dyn Transaction,
    ) -> Result<(Vec<usize>, Vec<StoredRow>)> {
        let LockTarget { table, key } = &self.targets[target];
        let (mut positions, mut stored) = (Vec::new(), Vec::new());
        for (position, slot) in batch.iter_mut().enumerate() {
            let Some(row) = slot else { continue };
            let key: Vec<_> = key.iter().filter_map(|&k| row.get(k).cloned()).collect();
            if key.iter().any(|k| k.is_null()) {
                continue;
            }
            match txn.get(table, &key)? {
                Some(row) => {
                    positions.push(position);
                    stored.push(row);
                }
                None => *slot = None,
            }
        }
        Ok((positions, stored))
    }
}

/// The `Lock` node, and the LIMIT that is directly above it but for projections.
fn find(plan: &Plan) -> Option<(&Plan, Option<&Plan>)> {
    let (mut plan, mut limit, mut direct) = (plan, None, true);
    loop {
        match &plan.node {
            Node::Lock { .. } => return Some((plan, limit)),
            Node::Project { input, .. } => plan = input,
            Node::Limit { input, .. } => {
                if direct && limit.is_none() {
                    limit = Some(plan);
                }
                plan = input;
            }
            Node::Sort { input, .. }
            | Node::Filter { input, .. }
            | Node::ProjectSet { input, .. }
            | Node::Distinct { input, .. } => {
                direct = false;
                limit = None;
                plan = input;
            }
            _ => return None,
        }
    }
}

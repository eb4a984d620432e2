//! Runs plans.
//!
//! A [`Plan`] becomes a tree of [`Operator`]s, and each gives its rows in batches when it is asked:
//!
//! ```text
//!            next ▲ rows                     next: "append some rows; is there more?"
//!   ┌─────────────┴───────────┐
//!   │ Sort                    │              reset: "from the beginning, the outer row has changed"
//!   └─────────────┬───────────┘
//!            next ▲ rows
//!   ┌─────────────┴───────────┐
//!   │ HashJoin                │
//!   └──┬──────────────────┬───┘
//!      ▲                  ▲
//!   TableScan          TableScan   ──get/scan──► api::Transaction
//! ```
//!
//! Everything here is synchronous: once a statement has its snapshot, all it can see is on this node. What
//! may wait — locks and writes — stands at the top of a statement ([`write`], [`lock`]), and is async.
//!
//! Operators own what they need and borrow the rest from the [`Context`] of each call, so that a query
//! can lie in a portal between two calls. Expressions are compiled once ([`expression`]); a subquery, or
//! the right side of a nested loop, is built once and reset for every outer row.

mod aggregate;
mod buffer;
mod build;
mod copy;
mod distinct;
mod expression;
mod foreign_key;
mod guard;
mod hash_aggregate;
mod hash_join;
mod lock;
mod merge;
mod merge_join;
mod nested_loop;
mod partition;
mod projection;
mod recursive;
mod runtime;
mod scan;
mod set_operation;
mod sort;
mod sorted_aggregate;
mod spill;
mod statistics;
mod subquery;
mod table_scan;
mod window;
mod write;

pub use build::Builder;
pub use copy::Loader;
pub use expression::Expression;
pub use foreign_key::{Deferred, SharedDeferred};
pub use guard::{DEFAULT_MEMORY, Guard};
pub use lock::LockedQuery;
pub use merge::run_merge;
pub use runtime::{Context, OuterRow, Query, Runtime, Shared};
pub use statistics::{NodeStatistics, Statistics};
pub use write::{Written, run_delete, run_insert, run_update};

pub(crate) use expression::eval_all;
pub(crate) use foreign_key::{check_deferred, validate as validate_foreign_key};
pub(crate) use guard::{check_interrupt, row_memory, timed_out};

use amphora_replication::Transaction;
use amphora_storage::{Datum, Row};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::error::Result;
use crate::expr::Expr;
use crate::plan::{Node, Plan};

/// Rows an operator aims to give at a time.
pub const BATCH: usize = 1024;

/// A running node of a plan.
pub trait Operator: Send {
    /// Appends a batch of rows to `out`, perhaps an empty one. False once there are no more: `out` may
    /// still have been given the last ones.
    fn next(&mut self, context: &Context<'_>, out: &mut Vec<Row>) -> Result<bool>;

    /// Starts anew, for another outer row.
    fn reset(&mut self, context: &Context<'_>);

    /// What it has done, for EXPLAIN ANALYZE: asked once it has given rows.
    fn notes(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Reads all rows of an operator.
pub(crate) fn drain(
    operator: &mut dyn Operator,
    context: &Context<'_>,
    mut each: impl FnMut(Row) -> Result<()>,
) -> Result<()> {
    let mut batch = Vec::new();
    loop {
        context.run.guard.check()?;
        let more = operator.next(context, &mut batch)?;
        for row in batch.drain(..) {
            each(row)?;
        }
        if !more {
            return Ok(());
        }
    }
}

/// The values of expressions that read no rows.
pub(crate) fn constants(exprs: &[Expr], run: &Runtime, txn: &dyn Transaction) -> Result<Vec<Datum>> {
    let compiled = Expression::compile_all(exprs, &mut Builder::new())?;
    expression::eval_all(&compiled, &[], &run.context(txn))
}

/// Does work that may take long, so that the runtime's other tasks go on meanwhile.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Waits, in synchronous code, for something that the floor below does asynchronously. Most often it is done
/// at once.
pub(crate) fn wait_for<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = std::pin::pin!(work);
    let mut idle = std::task::Context::from_waker(std::task::Waker::noop());
    if let std::task::Poll::Ready(done) = work.as_mut().poll(&mut idle) {
        return done;
    }
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(|| handle.block_on(work))
        }
        _ => Err(crate::error::SqlError::internal("there is no runtime to wait on")),
    }
}

/// [`blocking`], unless the work is quick and the change of threads would cost more than it.
pub(crate) fn blocking_unless<T>(quick: bool, work: impl FnOnce() -> T) -> T {
    if quick { work() } else { blocking(work) }
}

/// Rows of VALUES, or ranges of a scan, up to which a plan is quick.
const QUICK_ROWS: usize = 100;

/// True of a plan that touches a few rows by key and need not leave the async threads.
pub(crate) fn is_quick(plan: &Plan) -> bool {
    match &plan.node {
        Node::Values(rows) => rows.len() <= QUICK_ROWS,
        Node::TableScan(scan) => {
            scan.point && scan.ranges.len() <= QUICK_ROWS && scan.ranges.iter().all(|r| r.each.is_empty())
        }
        Node::Filter { input, .. }
        | Node::Project { input, .. }
        | Node::Limit { input, .. }
        | Node::Lock { input, .. } => is_quick(input),
        _ => false,
    }
}

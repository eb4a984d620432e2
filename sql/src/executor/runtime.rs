//! What the operators of one execution share.

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use amphora_replication::{Engine, Transaction};
use amphora_storage::schema::{Catalog, Table, TableId};
use amphora_storage::{Datum, Row};
use parking_lot::Mutex;

use super::buffer::RowBuffer;
use super::foreign_key::SharedDeferred;
use super::guard::{Guard, Held};
use super::spill::Spill;
use super::{Builder, Operator, Statistics, drain};
use crate::error::{Result, SqlError};
use crate::functions::EvalContext;
use crate::plan::{Plan, Prepared};

/// Name, value and description of every setting.
pub type ListSettings = Arc<dyn Fn() -> Vec<(String, String, String)> + Send + Sync>;

/// The state of one execution of one statement.
pub struct Runtime {
    /// `$1 …`
    pub params: Arc<[Datum]>,
    /// What functions may know
    pub eval: EvalContext,
    /// The node, for the system views
    pub engine: Arc<dyn Engine>,
    /// The catalog, for the system views
    pub catalog: Arc<Catalog>,
    /// The settings, for `pg_settings`
    pub settings: ListSettings,
    /// Memory, time, cancellation
    pub guard: Guard,
    /// Foreign keys that are to be checked later
    pub deferred: SharedDeferred,
    ctes: RefCell<Vec<Cte>>,
    work: RefCell<HashMap<usize, Arc<RowBuffer>>>,
    /// Where temporary files are, if there may be any
    temp_dir: OnceCell<Option<PathBuf>>,
    locked: RefCell<Option<Vec<Row>>>,
    shared: Option<Shared>,
}

/// A row: its table and its primary key.
type RowId = (TableId, Vec<Datum>);

/// What the statements of one WITH that writes share: the rows of those that have run, in order, and the
/// rows they changed, which no other of them may change again.
#[derive(Clone, Default)]
pub struct Shared {
    ctes: Vec<Arc<RowBuffer>>,
    changed: Arc<Mutex<HashSet<RowId>>>,
}

impl Shared {
    /// The next WITH query has run.
    pub fn push(&mut self, rows: Vec<Row>) {
        self.ctes.push(Arc::new(RowBuffer::of(rows)));
    }
}

/// A WITH query: run when it is first read.
enum Cte {
    Waiting(Box<dyn Operator>),
    Running,
    Done(Arc<RowBuffer>),
}

/// What an operator's call may use: the transaction, the execution, and the rows of enclosing queries.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Where stored rows are read
    pub txn: &'a dyn Transaction,
    /// The execution
    pub run: &'a Runtime,
    /// The row of the nearest enclosing query
    pub outer: Option<&'a OuterRow<'a>>,
}

/// A row of an enclosing query, and those further out.
#[derive(Clone, Copy)]
pub struct OuterRow<'a> {
    row: &'a [Datum],
    next: Option<&'a OuterRow<'a>>,
}

impl<'a> Context<'a> {
    /// The column of an enclosing row; depth 1 is the nearest.
    pub(crate) fn outer_column(&self, depth: usize, position: usize) -> Result<&'a Datum> {
        let mut outer = self.outer;
        for _ in 1..depth {
            outer = outer.and_then(|o| o.next);
        }
        outer
            .and_then(|o| o.row.get(position))
            .ok_or_else(|| SqlError::internal(format!("no outer column {position} at depth {depth}")))
    }

    /// Calls `work` one level further in, where `row` is the nearest enclosing row.
    pub(crate) fn inside<T>(&self, row: &[Datum], work: impl FnOnce(&Context<'_>) -> T) -> T {
        let outer = OuterRow { row, next: self.outer };
        work(&Context { txn: self.txn, run: self.run, outer: Some(&outer) })
    }

    /// The rows of a WITH query, which is run now if nobody has read it yet.
    pub(crate) fn cte(&self, id: usize) -> Result<Arc<RowBuffer>> {
        let state = match self.run.ctes.borrow_mut().get_mut(id) {
            Some(state) => std::mem::replace(state, Cte::Running),
            None => return Err(SqlError::internal(format!("no WITH query {id}"))),
        };
        let rows = match state {
            Cte::Done(rows) => rows,
            Cte::Running => return Err(SqlError::internal("a WITH query reads itself")),
            Cte::Waiting(mut operator) => {
                let mut rows = RowBuffer::default();
                let outermost = Context { txn: self.txn, run: self.run, outer: None };
                drain(operator.as_mut(), &outermost, |row| rows.push(self.run, row))?;
                rows.finish()?;
                Arc::new(rows)
            }
        };
        if let Some(state) = self.run.ctes.borrow_mut().get_mut(id) {
            *state = Cte::Done(rows.clone());
        }
        Ok(rows)
    }

    /// The rows that the last step of a recursive query gave.
    pub(crate) fn work_table(&self, id: usize) -> Arc<RowBuffer> {
        self.run.work.borrow().get(&id).cloned().unwrap_or_default()
    }

    pub(crate) fn set_work_table(&self, id: usize, rows: Arc<RowBuffer>) {
        self.run.work.borrow_mut().insert(id, rows);
    }

    /// The rows that FOR UPDATE has locked; given once. 0A000 where nobody has locked them.
    pub(crate) fn take_locked(&self) -> Result<Vec<Row>> {
        match &mut *self.run.locked.borrow_mut() {
            Some(rows) => Ok(std::mem::take(rows)),
            None => Err(SqlError::feature_not_supported("FOR UPDATE is not supported here")),
        }
    }
}

impl Runtime {
    /// The state of an execution that has not begun.
    pub fn new(
        params: Arc<[Datum]>,
        eval: EvalContext,
        engine: Arc<dyn Engine>,
        catalog: Arc<Catalog>,
        settings: ListSettings,
        guard: Guard,
    ) -> Runtime {
        Runtime {
            params,
            eval,
            engine,
            catalog,
            settings,
            guard,
            deferred: SharedDeferred::default(),
            ctes: RefCell::default(),
            work: RefCell::default(),
            temp_dir: OnceCell::new(),
            locked: RefCell::default(),
            shared: None,
        }
    }

    fn temp_dir(&self) -> Option<&PathBuf> {
        self.temp_dir.get_or_init(|| self.engine.temp_dir()).as_ref()
    }

    /// True if an operator that holds so much should use files instead of taking `bytes` more.
    pub(super) fn is_over(&self, held: &Held, bytes: usize) -> bool {
        (held.bytes() + bytes > self.guard.work_memory() || !self.guard.has_room(bytes))
            && self.temp_dir().is_some()
    }

    /// A new temporary file.
    pub(super) fn new_spill(&self) -> Result<Spill> {
        match self.temp_dir() {
            Some(directory) => Spill::new(directory, self.guard.temp_space()),
            None => Err(SqlError::internal("there is no place for temporary files")),
        }
    }

    /// Makes this execution one of a statement whose WITH queries write.
    pub fn share(&mut self, shared: Shared) {
        self.shared = Some(shared);
    }

    /// True if the row has not been changed by another part of the same statement; now it has been.
    pub(crate) fn may_change(&self, table: &Table, row: &[Datum]) -> bool {
        match &self.shared {
            None => true,
            Some(shared) => shared.changed.lock().insert((table.id, table.key_of(row))),
        }
    }

    /// Makes the WITH queries ready to be read.
    pub(crate) fn set_ctes(&mut self, plans: &[Plan], builder: &mut Builder) -> Result<()> {
        let done = self.shared.as_ref().map_or(&[][..], |shared| &shared.ctes);
        let mut ctes: Vec<Cte> = done.iter().take(plans.len()).cloned().map(Cte::Done).collect();
        for plan in &plans[ctes.len()..] {
            ctes.push(Cte::Waiting(builder.build(plan)?));
        }
        self.ctes = RefCell::new(ctes);
        Ok(())
    }

    /// The rows that the `Lock` node gives.
    pub(crate) fn set_locked(&mut self, rows: Vec<Row>) {
        self.locked = RefCell::new(Some(rows));
    }

    /// A context without enclosing rows.
    pub fn context<'a>(&'a self, txn: &'a dyn Transaction) -> Context<'a> {
        Context { txn, run: self, outer: None }
    }
}

/// A query that is running, or waits in a portal for its next rows to be wanted.
pub struct Query {
    /// Its state
    pub run: Runtime,
    root: Box<dyn Operator>,
    done: bool,
}

impl Query {
    /// Builds a query's operators. Nothing is read yet.
    pub fn new(plan: &Plan, prepared: &Prepared, run: Runtime) -> Result<Query> {
        Query::with_builder(plan, prepared, run, &mut Builder::new())
    }

    /// Builds a query whose operators count what they do.
    pub fn measured(plan: &Plan, prepared: &Prepared, run: Runtime) -> Result<(Query, Statistics)> {
        let mut builder = Builder::measuring();
        let query = Query::with_builder(plan, prepared, run, &mut builder)?;
        Ok((query, builder.take_statistics()))
    }

    fn with_builder(
        plan: &Plan,
        prepared: &Prepared,
        mut run: Runtime,
        builder: &mut Builder,
    ) -> Result<Query> {
        run.set_ctes(&prepared.ctes, builder)?;
        let root = builder.build(plan)?;
        Ok(Query { run, root, done: false })
    }

    /// All rows, kept within the statement's budget of memory.
    pub fn all(&mut self, txn: &dyn Transaction) -> Result<Vec<Row>> {
        let (mut rows, mut held) = (Vec::new(), Held::default());
        drain(self.root.as_mut(), &self.run.context(txn), |row| {
            held.add(&self.run.guard, &row)?;
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    /// Appends a batch of rows to `out`; false once there are no more.
    pub fn next(&mut self, txn: &dyn Transaction, out: &mut Vec<Row>) -> Result<bool> {
        if self.done {
            return Ok(false);
        }
        self.run.guard.check()?;
        let more = self.root.next(&self.run.context(txn), out)?;
        self.done = !more;
        Ok(more)
    }
}

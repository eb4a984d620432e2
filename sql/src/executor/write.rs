//! INSERT, UPDATE, DELETE: the writing node at the top of a statement.
//!
//! The rows to write are read to their end before the first is written, wherever reading could meet what
//! was written (the Halloween problem). Then everything goes to the transaction in batches. RETURNING is
//! gathered, and shown by the session once the statement can no longer be restarted.

use std::collections::HashSet;
use std::sync::Arc;

use amphora_replication::{InsertOutcome, OnConflict, StoredRow, Transaction};
use amphora_storage::schema::{Index, Table};
use amphora_storage::{Datum, Row, Timestamp};

use super::expression::eval_all;
use super::foreign_key::Enforcer;
use super::guard::Held;
use super::{Builder, Context, Expression, Operator, Runtime, blocking_unless, is_quick};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::plan::{Delete, DoUpdate, Insert, Node, Plan, Prepared, Rule, Update};
use crate::types::{FormatContext, to_text};

/// Rows handed to the transaction at a time.
const WRITE_BATCH: usize = 1000;

/// Characters of a value shown in "Failing row contains".
const SHOWN_VALUE: usize = 64;

/// What a statement has written.
#[derive(Debug, Default)]
pub struct Written {
    /// Rows, for the command tag
    pub count: u64,
    /// What RETURNING gives
    pub rows: Vec<Row>,
}

/// What every new row of a table must be.
pub(super) struct Constraints {
    table: Arc<Table>,
    generated: Vec<(usize, Expression)>,
    checks: Vec<(String, Expression)>,
}

impl Constraints {
    pub(super) fn compile(
        table: &Arc<Table>,
        rules: &[(Rule, Expr)],
        builder: &mut Builder,
    ) -> Result<Constraints> {
        let (mut generated, mut checks) = (Vec::new(), Vec::new());
        for (rule, e) in rules {
            let e = Expression::compile(e, builder)?;
            match rule {
                Rule::Generated(column) => generated.push((*column, e)),
                Rule::Check(name) => checks.push((name.clone(), e)),
            }
        }
        Ok(Constraints { table: table.clone(), generated, checks })
    }

    /// Computes what is generated, and looks at the rest. 23502, 23514
    pub(super) fn complete(&self, row: &mut Row, context: &Context<'_>) -> Result<()> {
        for (column, e) in &self.generated {
            let value = e.eval(row, context)?;
            if let Some(slot) = row.get_mut(*column) {
                *slot = value;
            }
        }
        let table = &self.table;
        for (column, value) in table.visible_columns().iter().zip(row.iter()) {
            if column.not_null && value.is_null() {
                return Err(SqlError::not_null_violation(format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    column.name, table.name
                ))
                .with_detail(self.failing(row, context))
                .with_table(&table.schema, &table.name)
                .with_column(&column.name));
            }
        }
        for (name, condition) in &self.checks {
            if condition.value(row, context)?.as_bool() == Some(false) {
                return Err(SqlError::check_violation(format!(
                    "new row for relation \"{}\" violates check constraint \"{name}\"",
                    table.name
                ))
                .with_detail(self.failing(row, context))
                .with_table(&table.schema, &table.name)
                .with_constraint(name));
            }
        }
        Ok(())
    }

    fn failing(&self, row: &[Datum], context: &Context<'_>) -> String {
        let columns = self.table.visible_columns().iter().zip(row);
        let values: Vec<String> =
            columns.map(|(c, v)| shown(v, &c.ty.base(), &context.run.eval.format)).collect();
        format!("Failing row contains ({}).", values.join(", "))
    }
}

/// A value as DETAIL shows it.
pub(super) fn shown(value: &Datum, ty: &amphora_storage::DataType, format: &FormatContext) -> String {
    if value.is_null() {
        return "null".into();
    }
    let text = to_text(value, ty, format);
    match text.char_indices().nth(SHOWN_VALUE) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Runs an INSERT.
pub async fn run_insert(
    insert: &Insert,
    prepared: &Prepared,
    run: Runtime,
    txn: &mut dyn Transaction,
) -> Result<Written> {
    let mut inserter = Inserter::new(insert, prepared, run)?;
    inserter.enforcer = Enforcer::new(&insert.table, &*txn, &inserter.run);
    if let (Some(enforcer), Some(_)) = (&inserter.enforcer, &inserter.do_update) {
        enforcer.before_change(txn);
    }
    let quick = is_quick(&insert.source);
    let mut more = true;
    while more {
        let rows = blocking_unless(quick, || inserter.pull(&*txn, &mut more))?;
        if !rows.is_empty() {
            inserter.write(rows, txn).await?;
        }
    }
    if let Some(enforcer) = &mut inserter.enforcer {
        enforcer.finish(txn, &mut inserter.run).await?;
    }
    Ok(inserter.written)
}

pub(super) struct Inserter {
    pub(super) run: Runtime,
    source: Box<dyn Operator>,
    /// The source reads the table it is inserted into
    reads_target: bool,
    pub(super) table: Arc<Table>,
    pub(super) constraints: Constraints,
    on_conflict: OnConflict,
    do_update: Option<ConflictUpdate>,
    returning: Vec<Expression>,
    /// Arbiter keys this command has written: DO UPDATE must not meet them again
    touched: HashSet<Vec<Datum>>,
    waiting: Vec<Row>,
    source_done: bool,
    held: Held,
    written: Written,
    pub(super) enforcer: Option<Enforcer>,
}

struct ConflictUpdate {
    assignments: Vec<(usize, Expression)>,
    /// Columns that it begins anew
    resets: Vec<usize>,
    condition: Option<Expression>,
    /// Columns of the index that decides what a conflict is
    table: Arc<Table>,
    arbiter: Option<Index>,
}

impl Inserter {
    pub(super) fn new(insert: &Insert, prepared: &Prepared, mut run: Runtime) -> Result<Inserter> {
        let builder = &mut Builder::new();
        run.set_ctes(&prepared.ctes, builder)?;
        let table = &insert.table;
        let do_update = match &insert.do_update {
            Some(update) => Some(ConflictUpdate::compile(update, insert, builder)?),
            None => None,
        };
        let reads_target = reads(&insert.source, table) || prepared.ctes.iter().any(|cte| reads(cte, table));
        Ok(Inserter {
            source: builder.build(&insert.source)?,
            reads_target,
            constraints: Constraints::compile(table, &insert.checks, builder)?,
            table: table.clone(),
            on_conflict: insert.on_conflict.clone(),
            do_update,
            returning: Expression::compile_all(&insert.returning, builder)?,
            touched: HashSet::new(),
            waiting: Vec::new(),
            source_done: false,
            held: Held::default(),
            written: Written::default(),
            enforcer: None,
            run,
        })
    }

    /// The next rows to insert, whole and checked.
    fn pull(&mut self, txn: &dyn Transaction, more: &mut bool) -> Result<Vec<Row>> {
        let context = self.run.context(txn);
        let enough = if self.reads_target { usize::MAX } else { WRITE_BATCH };
        let width = self.table.columns.len();
        let mut batch = Vec::new();
        while !self.source_done && self.waiting.len() < enough {
            context.run.guard.check()?;
            self.source_done = !self.source.next(&context, &mut batch)?;
            for mut row in batch.drain(..) {
                row.resize(width, Datum::Null);
                self.constraints.complete(&mut row, &context)?;
                self.held.add(&context.run.guard, &row)?;
                self.waiting.push(row);
            }
        }
        let rest = self.waiting.split_off(self.waiting.len().min(WRITE_BATCH));
        let rows = std::mem::replace(&mut self.waiting, rest);
        *more = !self.source_done || !self.waiting.is_empty();
        Ok(rows)
    }

    pub(super) async fn write(&mut self, rows: Vec<Row>, txn: &mut dyn Transaction) -> Result<()> {
        let plain = self.on_conflict == OnConflict::Error;
        let keep =
            !self.returning.is_empty() || self.do_update.is_some() || (self.enforcer.is_some() && !plain);
        if let (Some(enforcer), true) = (&mut self.enforcer, plain) {
            // All of them, or the statement fails.
            enforcer.inserted(&self.table, rows.iter(), &self.run)?;
        }
        let kept = if keep { rows.clone() } else { Vec::new() };
        let table = self.table.clone();
        let outcomes = txn.insert(&table, rows, self.on_conflict.clone()).await?;
        if !keep {
            let inserted = outcomes.iter().filter(|o| matches!(o, InsertOutcome::Inserted)).count();
            self.written.count += inserted as u64;
        } else {
            let changes = self.resolve(kept, outcomes, &*txn)?;
            if let Some(enforcer) = &mut self.enforcer {
                for (old, new) in &changes {
                    enforcer.updated(&table, &old.row, new, &self.run)?;
                }
            }
            if !changes.is_empty() {
                let resets = self.do_update.as_ref().map_or(&[][..], |update| &update.resets);
                write_changes(txn, &table, changes, resets).await?;
            }
        }
        if let Some(enforcer) = &mut self.enforcer {
            enforcer.between_batches(txn, &mut self.run).await?;
        }
        Ok(())
    }

    /// Counts and returns what was inserted, and makes the updates for what was not.
    fn resolve(
        &mut self,
        rows: Vec<Row>,
        outcomes: Vec<InsertOutcome>,
        txn: &dyn Transaction,
    ) -> Result<Vec<(StoredRow, Row)>> {
        let context = self.run.context(txn);
        let mut changes = Vec::new();
        for (row, outcome) in rows.into_iter().zip(outcomes) {
            let written = match (outcome, &self.do_update) {
                (InsertOutcome::Inserted, update) => {
                    if let (Some(enforcer), false) =
                        (&mut self.enforcer, self.on_conflict == OnConflict::Error)
                    {
                        enforcer.inserted(&self.table, std::iter::once(&row), &self.run)?;
                    }
                    if let Some(update) = update {
                        self.touched.extend(update.key(&row)?);
                    }
                    row
                }
                (InsertOutcome::Conflict(_), None) => continue,
                (InsertOutcome::Conflict(old), Some(update)) => {
                    if update.key(&old.row)?.is_some_and(|key| self.touched.contains(&key)) {
                        return Err(SqlError::cardinality_violation(
                            "ON CONFLICT DO UPDATE command cannot affect row a second time",
                        )
                        .with_hint(
                            "Ensure that no rows proposed for insertion within the same command have duplicate constrained values.",
                        ));
                    }
                    let Some(mut new) = update.apply(&old.row, &row, &context)? else { continue };
                    self.constraints.complete(&mut new, &context)?;
                    self.run.may_change(&self.table, &old.row);
                    self.touched.extend(update.key(&old.row)?);
                    self.touched.extend(update.key(&new)?);
                    changes.push((old, new.clone()));
                    new
                }
            };
            self.written.count += 1;
            if !self.returning.is_empty() {
                let row = eval_all(&self.returning, &written, &context)?;
                self.held.add(&context.run.guard, &row)?;
                self.written.rows.push(row);
            }
        }
        Ok(changes)
    }
}

impl ConflictUpdate {
    fn compile(update: &DoUpdate, insert: &Insert, builder: &mut Builder) -> Result<ConflictUpdate> {
        let index = match &insert.on_conflict {
            OnConflict::Report(Some(id)) => insert.table.index(*id),
            _ => Some(&insert.table.primary),
        };
        let arbiter = index.cloned();
        let condition = update.condition.as_ref().map(|c| Expression::compile(c, builder)).transpose()?;
        let table = insert.table.clone();
        let resets = resets(&update.assignments);
        let assignments = assignments(&update.assignments, builder)?;
        Ok(ConflictUpdate { assignments, resets, condition, table, arbiter })
    }

    /// The row's key in the arbiter; `None` if it has none there.
    fn key(&self, row: &[Datum]) -> Result<Option<Vec<Datum>>> {
        match &self.arbiter {
            Some(index) => crate::index::key_of(&self.table, index, row),
            None => Ok(None),
        }
    }

    /// The existing row's new image; `None` if WHERE leaves it alone.
    fn apply(&self, existing: &[Datum], excluded: &[Datum], context: &Context<'_>) -> Result<Option<Row>> {
        let both: Row = existing.iter().chain(excluded).cloned().collect();
        if let Some(condition) = &self.condition
            && !condition.is_true(&both, context)?
        {
            return Ok(None);
        }
        let mut new = existing.to_vec();
        for (column, expr) in &self.assignments {
            new[*column] = expr.eval(&both, context)?;
        }
        Ok(Some(new))
    }
}

pub(super) fn assignments(list: &[(usize, Expr)], builder: &mut Builder) -> Result<Vec<(usize, Expression)>> {
    list.iter().map(|(column, e)| Ok((*column, Expression::compile(e, builder)?))).collect()
}

/// True if a plan reads this table.
fn reads(plan: &Plan, table: &Table) -> bool {
    let mut found = matches!(&plan.node, Node::TableScan(scan) if scan.table.id == table.id);
    plan.node.exprs(&mut |e| {
        found |= e.any(&mut |e| matches!(e, Expr::Subquery(s) if reads(&s.plan, table)));
    });
    plan.node.inputs(&mut |input, _| found |= reads(input, table));
    found
}

/// The rows that an UPDATE or DELETE concerns.
struct Targets {
    source: Box<dyn Operator>,
    /// The source's rows carry their versions at their end
    versioned: bool,
    table: Arc<Table>,
    /// Keys met so far: a join may give a row twice, and it is changed once
    seen: HashSet<Vec<Datum>>,
}

impl Targets {
    fn new(source: &Plan, table: &Arc<Table>, builder: &mut Builder) -> Result<Targets> {
        let versioned = builder.build_versioned(source)?;
        let (versioned, source) = match versioned {
            Some(operator) => (true, operator),
            None => (false, builder.build(source)?),
        };
        Ok(Targets { source, versioned, table: table.clone(), seen: HashSet::new() })
    }

    /// Calls `each` with every target: the stored row, and the source row it came in.
    fn each(
        &mut self,
        context: &Context<'_>,
        mut each: impl FnMut(StoredRow, Row) -> Result<()>,
    ) -> Result<()> {
        let width = self.table.columns.len();
        let (table, versioned, seen) = (&self.table, self.versioned, &mut self.seen);
        super::drain(self.source.as_mut(), context, |mut row| {
            if versioned {
                let version = row.pop().and_then(|v| v.as_i64()).unwrap_or(0);
                if !context.run.may_change(table, &row) {
                    return Ok(());
                }
                let stored = StoredRow { row: row.clone(), version: Timestamp(version.cast_unsigned()) };
                return each(stored, row);
            }
            if row.len() < width {
                return Err(SqlError::internal("a row to change is narrower than its table"));
            }
            let key = table.key_of(&row);
            if key.iter().any(Datum::is_null) || !seen.insert(key.clone()) {
                return Ok(());
            }
            match context.txn.get(table, &key)? {
                Some(stored) if context.run.may_change(table, &stored.row) => each(stored, row),
                _ => Ok(()),
            }
        })
    }
}

/// The columns that assignments begin anew: `SET n = crdt_reset(n)`.
fn resets(assignments: &[(usize, Expr)]) -> Vec<usize> {
    assignments.iter().filter(|(_, e)| e.is_reset()).map(|(column, _)| *column).collect()
}

/// Writes the new rows; first begins anew what is to be begun anew.
async fn write_changes(
    txn: &mut dyn Transaction,
    table: &Arc<Table>,
    changes: Vec<(StoredRow, Row)>,
    resets: &[usize],
) -> Result<()> {
    if !resets.is_empty() {
        let rows: Vec<StoredRow> = changes.iter().map(|(old, _)| old.clone()).collect();
        txn.reset_columns(table, &rows, resets)?;
    }
    Ok(txn.update(table, changes).await?)
}

/// Runs an UPDATE.
pub async fn run_update(
    update: &Update,
    prepared: &Prepared,
    mut run: Runtime,
    txn: &mut dyn Transaction,
) -> Result<Written> {
    let quick = is_quick(&update.source);
    let gather = || gather_updates(update, prepared, &mut run, &*txn);
    let (changes, written) = blocking_unless(quick, gather)?;
    if changes.is_empty() {
        return Ok(written);
    }
    let Some(mut enforcer) = Enforcer::new(&update.table, &*txn, &run) else {
        write_changes(txn, &update.table, changes, &resets(&update.assignments)).await?;
        return Ok(written);
    };
    enforcer.before_change(txn);
    for (old, new) in &changes {
        enforcer.updated(&update.table, &old.row, new, &run)?;
    }
    txn.update(&update.table, changes).await?;
    enforcer.finish(txn, &mut run).await?;
    Ok(written)
}

type Changes = Vec<(StoredRow, Row)>;

fn gather_updates(
    update: &Update,
    prepared: &Prepared,
    run: &mut Runtime,
    txn: &dyn Transaction,
) -> Result<(Changes, Written)> {
    let builder = &mut Builder::new();
    run.set_ctes(&prepared.ctes, builder)?;
    let mut targets = Targets::new(&update.source, &update.table, builder)?;
    let assignments = assignments(&update.assignments, builder)?;
    let constraints = Constraints::compile(&update.table, &update.checks, builder)?;
    let returning = Expression::compile_all(&update.returning, builder)?;
    let width = update.table.columns.len();
    let (mut changes, mut written, mut held) = (Vec::new(), Written::default(), Held::default());
    let context = run.context(txn);
    targets.each(&context, |old, mut row| {
        let mut new = old.row.clone();
        for (column, expr) in &assignments {
            new[*column] = expr.eval(&row, &context)?;
        }
        constraints.complete(&mut new, &context)?;
        held.add(&context.run.guard, &old.row)?;
        held.add(&context.run.guard, &new)?;
        written.count += 1;
        if !returning.is_empty() {
            row.splice(..width, new.iter().cloned());
            let row = eval_all(&returning, &row, &context)?;
            held.add(&context.run.guard, &row)?;
            written.rows.push(row);
        }
        changes.push((old, new));
        Ok(())
    })?;
    Ok((changes, written))
}

/// Runs a DELETE.
pub async fn run_delete(
    delete: &Delete,
    prepared: &Prepared,
    mut run: Runtime,
    txn: &mut dyn Transaction,
) -> Result<Written> {
    let quick = is_quick(&delete.source);
    let gather = || gather_deletes(delete, prepared, &mut run, &*txn);
    let (rows, written) = blocking_unless(quick, gather)?;
    if rows.is_empty() {
        return Ok(written);
    }
    let Some(mut enforcer) = Enforcer::new(&delete.table, &*txn, &run) else {
        txn.delete(&delete.table, rows).await?;
        return Ok(written);
    };
    enforcer.before_change(txn);
    for old in &rows {
        enforcer.deleted(&delete.table, &old.row, &run)?;
    }
    txn.delete(&delete.table, rows).await?;
    enforcer.finish(txn, &mut run).await?;
    Ok(written)
}

fn gather_deletes(
    delete: &Delete,
    prepared: &Prepared,
    run: &mut Runtime,
    txn: &dyn Transaction,
) -> Result<(Vec<StoredRow>, Written)> {
    let builder = &mut Builder::new();
    run.set_ctes(&prepared.ctes, builder)?;
    let mut targets = Targets::new(&delete.source, &delete.table, builder)?;
    let returning = Expression::compile_all(&delete.returning, builder)?;
    let (mut rows, mut written, mut held) = (Vec::new(), Written::default(), Held::default());
    let context = run.context(txn);
    targets.each(&context, |old, row| {
        held.add(&context.run.guard, &old.row)?;
        written.count += 1;
        if !returning.is_empty() {
            let row = eval_all(&returning, &row, &context)?;
            held.add(&context.run.guard, &row)?;
            written.rows.push(row);
        }
        rows.push(old);
        Ok(())
    })?;
    Ok((rows, written))
}

//! MERGE: its rows are read to their end, then written: deletes, updates, inserts.

use std::collections::HashSet;

use amphora_replication::{OnConflict, StoredRow, Transaction};
use amphora_storage::{Datum, Row};

use super::expression::eval_all;
use super::foreign_key::Enforcer;
use super::guard::Held;
use super::write::{Constraints, Written, assignments};
use super::{Builder, Context, Expression, Runtime, blocking_unless, drain, is_quick};
use crate::error::{Result, SqlError};
use crate::plan::{Merge, MergeAction, Prepared};

/// One WHEN, compiled.
struct Clause {
    matched: bool,
    condition: Option<Expression>,
    action: Action,
}

enum Action {
    Nothing,
    Delete,
    Update(Vec<(usize, Expression)>),
    Insert(Vec<Expression>),
}

/// What is to be written.
#[derive(Default)]
struct Gathered {
    deleted: Vec<StoredRow>,
    updated: Vec<(StoredRow, Row)>,
    inserted: Vec<Row>,
    held: Held,
}

/// Runs a MERGE.
pub async fn run_merge(
    merge: &Merge,
    prepared: &Prepared,
    mut run: Runtime,
    txn: &mut dyn Transaction,
) -> Result<Written> {
    let quick = is_quick(&merge.source);
    let gathered = blocking_unless(quick, || gather(merge, prepared, &mut run, &*txn))?;
    let Gathered { deleted, updated, inserted, .. } = gathered;
    let count = deleted.len() + updated.len() + inserted.len();
    let table = &merge.table;
    let mut enforcer = Enforcer::new(table, &*txn, &run);
    if let Some(enforcer) = &mut enforcer {
        if !deleted.is_empty() || !updated.is_empty() {
            enforcer.before_change(txn);
        }
        for old in &deleted {
            enforcer.deleted(table, &old.row, &run)?;
        }
        for (old, new) in &updated {
            enforcer.updated(table, &old.row, new, &run)?;
        }
        enforcer.inserted(table, inserted.iter(), &run)?;
    }
    if !deleted.is_empty() {
        txn.delete(table, deleted).await?;
    }
    if !updated.is_empty() {
        txn.update(table, updated).await?;
    }
    if !inserted.is_empty() {
        txn.insert(table, inserted, OnConflict::Error).await?;
    }
    if let (Some(enforcer), true) = (&mut enforcer, count > 0) {
        enforcer.finish(txn, &mut run).await?;
    }
    Ok(Written { count: count as u64, rows: Vec::new() })
}

fn compile(merge: &Merge, builder: &mut Builder) -> Result<Vec<Clause>> {
    let mut clauses = Vec::with_capacity(merge.clauses.len());
    for clause in &merge.clauses {
        let condition = clause.condition.as_ref().map(|c| Expression::compile(c, builder)).transpose()?;
        let action = match &clause.action {
            MergeAction::Nothing => Action::Nothing,
            MergeAction::Delete => Action::Delete,
            MergeAction::Update(list) => Action::Update(assignments(list, builder)?),
            MergeAction::Insert(row) => Action::Insert(Expression::compile_all(row, builder)?),
        };
        clauses.push(Clause { matched: clause.matched, condition, action });
    }
    Ok(clauses)
}

fn gather(merge: &Merge, prepared: &Prepared, run: &mut Runtime, txn: &dyn Transaction) -> Result<Gathered> {
    let builder = &mut Builder::new();
    run.set_ctes(&prepared.ctes, builder)?;
    let mut source = builder.build(&merge.source)?;
    let clauses = compile(merge, builder)?;
    let table = &merge.table;
    let constraints = Constraints::compile(table, &merge.checks, builder)?;
    let width = table.columns.len();
    let mut gathered = Gathered::default();
    // Keys of rows that were changed: each is changed once.
    let mut seen: HashSet<Vec<Datum>> = HashSet::new();
    let context = run.context(txn);
    drain(source.as_mut(), &context, |row| {
        if row.len() < width {
            return Err(SqlError::internal("a row to merge is narrower than its table"));
        }
        let key = table.key_of(&row);
        let matched = !key.iter().any(Datum::is_null);
        let Some(clause) = first(&clauses, matched, &row, &context)? else { return Ok(()) };
        if let Action::Insert(values) = &clause.action {
            let mut new = eval_all(values, &row, &context)?;
            new.resize(width, Datum::Null);
            constraints.complete(&mut new, &context)?;
            gathered.held.add(&context.run.guard, &new)?;
            gathered.inserted.push(new);
            return Ok(());
        }
        if matches!(clause.action, Action::Nothing) {
            return Ok(());
        }
        if seen.contains(&key) {
            return Err(SqlError::cardinality_violation("MERGE command cannot affect row a second time")
                .with_hint("Ensure that not more than one source row matches any one target row."));
        }
        let old = match context.txn.get(table, &key)? {
            Some(stored) if context.run.may_change(table, &stored.row) => stored,
            _ => return Ok(()),
        };
        seen.insert(key);
        gathered.held.add(&context.run.guard, &old.row)?;
        if let Action::Update(assignments) = &clause.action {
            let mut new = old.row.clone();
            for (column, expr) in assignments {
                new[*column] = expr.eval(&row, &context)?;
            }
            constraints.complete(&mut new, &context)?;
            gathered.held.add(&context.run.guard, &new)?;
            gathered.updated.push((old, new));
        } else {
            gathered.deleted.push(old);
        }
        Ok(())
    })?;
    Ok(gathered)
}

/// The first WHEN that fits the row.
fn first<'c>(
    clauses: &'c [Clause],
    matched: bool,
    row: &[Datum],
    context: &Context<'_>,
) -> Result<Option<&'c Clause>> {
    for clause in clauses.iter().filter(|c| c.matched == matched) {
        match &clause.condition {
            Some(condition) if !condition.is_true(row, context)? => {}
            _ => return Ok(Some(clause)),
        }
    }
    Ok(None)
}

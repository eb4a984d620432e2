//! The writing half of COPY FROM: whole rows of input columns, and in batches to the transaction.

use amphora_replication::Transaction;
use amphora_storage::{Datum, Row};

use super::foreign_key::Enforcer;
use super::write::Inserter;
use super::{Builder, Expression, Runtime};
use crate::copy::CopyFrom;
use crate::error::Result;
use crate::expr::Expr;
use crate::plan::Prepared;
use crate::types::FormatContext;

/// Where a column of a row comes from.
enum Slot {
    /// The record
    Input(usize),
    /// A DEFAULT, or a value that is made of the record's
    Computed(Expression),
}

/// Makes rows of records and writes them.
pub struct Loader {
    inserter: Inserter,
    slots: Vec<Slot>,
    /// The record is the row
    plain: bool,
    filter: Option<Expression>,
}

impl Loader {
    /// Compiles what COPY computes for every row.
    pub fn new(copy: &CopyFrom, prepared: &Prepared, run: Runtime) -> Result<Loader> {
        let builder = &mut Builder::new();
        let slots = copy
            .row
            .iter()
            .map(|e| match e {
                Expr::Column(i, _) => Ok(Slot::Input(*i)),
                e => Expression::compile(e, builder).map(Slot::Computed),
            })
            .collect::<Result<Vec<Slot>>>()?;
        let plain = slots.iter().enumerate().all(|(i, slot)| matches!(slot, Slot::Input(j) if i == *j));
        let filter = copy.filter.as_ref().map(|e| Expression::compile(e, builder)).transpose()?;
        Ok(Loader { inserter: Inserter::new(&copy.insert, prepared, run)?, slots, plain, filter })
    }

    /// The statement begins.
    pub fn begin(&mut self, txn: &dyn Transaction) {
        self.inserter.enforcer = Enforcer::new(&self.inserter.table, txn, &self.inserter.run);
    }

    /// All rows are written: what they refer to must be there. 23503
    pub async fn finish(&mut self, txn: &mut dyn Transaction) -> Result<()> {
        match &mut self.inserter.enforcer {
            Some(enforcer) => enforcer.finish(txn, &mut self.inserter.run).await,
            None => Ok(()),
        }
    }

    /// How values are read.
    pub fn format(&self) -> &FormatContext {
        &self.inserter.run.eval.format
    }

    /// 57014 if the statement was cancelled or has run out of time.
    pub fn check(&self) -> Result<()> {
        self.inserter.run.guard.check()
    }

    /// The row of a record; `None` if WHERE leaves it out. 23502, 23514
    pub fn row(&self, mut record: Row, txn: &dyn Transaction) -> Result<Option<Row>> {
        let context = self.inserter.run.context(txn);
        let mut row = if self.plain {
            record
        } else {
            let mut row = Row::with_capacity(self.inserter.table.columns.len());
            for slot in &self.slots {
                if let Slot::Computed(e) = slot {
                    row.push(e.eval(&record, &context)?);
                } else {
                    row.push(Datum::Null);
                }
            }
            for (value, slot) in row.iter_mut().zip(&self.slots) {
                if let Slot::Input(i) = slot
                    && let Some(given) = record.get_mut(*i)
                {
                    *value = std::mem::replace(given, Datum::Null);
                }
            }
            row
        };
        row.resize(self.inserter.table.columns.len(), Datum::Null);
        if let Some(filter) = &self.filter
            && !filter.is_true(&row, &context)?
        {
            return Ok(None);
        }
        self.inserter.constraints.complete(&mut row, &context)?;
        Ok(Some(row))
    }

    /// Writes rows.
    pub async fn insert(&mut self, rows: Vec<Row>, txn: &mut dyn Transaction) -> Result<()> {
        self.inserter.write(rows, txn).await
    }
}

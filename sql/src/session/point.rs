//! Reads of one row by its whole primary key.
//!
//! Most statements of most applications are this one. What a query needs in general (operators, a budget of
//! memory, a place for rows between two calls) costs more than such a read itself, so it does without.

use std::sync::Arc;
use std::time::Instant;

use amphora_replication::Transaction;
use amphora_storage::{Datum, Row};

use super::statement::{Job, Outcome};
use super::{Output, Session};
use crate::error::{Result, SqlError};
use crate::executor::check_interrupt;
use crate::plan::{PointKey, PointRead, Prepared};

impl PointRead {
    /// The row's output columns, if there is such a row. No row has a key that is NULL.
    fn row(&self, txn: &dyn Transaction, params: &[Datum]) -> Result<Option<Row>> {
        let mut key = Vec::with_capacity(self.key.len());
        for part in &self.key {
            let value = match part {
                PointKey::Parameter(index) => params.get(*index),
                PointKey::Constant(value) => Some(value),
            };
            match value {
                None => return Err(SqlError::internal("a parameter has no value")),
                Some(Datum::Null) => return Ok(None),
                Some(value) => key.push(value.clone()),
            }
        }
        Ok(txn.get_columns(&self.table, &key, &self.columns)?)
    }
}

impl Session {
    /// Runs a point read and shows its row.
    pub(super) async fn run_point(
        &mut self,
        job: &Job,
        point: &PointRead,
        prepared: &Arc<Prepared>,
        deadline: Option<Instant>,
        sent: &mut bool,
        out: &mut dyn Output,
    ) -> Result<Outcome> {
        check_interrupt(&self.shared.cancel, deadline)?;
        let Some(txn) = &self.tx.txn else { return Err(SqlError::internal("no transaction")) };
        let row = point.row(txn.as_ref(), &job.params)?;
        let catalog = txn.catalog();
        let format = self.eval.format(&self.shared, &catalog, self.tx.started);
        *sent = true;
        out.fields(&prepared.schema, &job.formats, &format);
        if let Some(row) = &row {
            out.row(row)?;
        }
        self.end_statement(job.place).await?;
        out.complete(if row.is_some() { "SELECT 1" } else { "SELECT 0" });
        Ok(Outcome::Complete)
    }
}

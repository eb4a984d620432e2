//! ANALYZE: what the planner knows of a table's contents.
//!
//! ```text
//!   rows ──► sample of 30,000 ──► sorted by each column ──► NULLs · different values · the commonest ones
//!            (sample.rs)          (column.rs)                · a histogram of the rest · correlation
//! ```
//!
//! The rows are read once, at the statement's snapshot; the sample has a fixed size and so has the work
//! after it. What comes of it is a descriptor of its own beside the table's, so that writing it moves no
//! table that others are writing to: their transactions go on, and only plans are made anew.
//!
//! [`auto`] does the same by itself where much has changed.

pub mod auto;
mod column;
mod sample;

use amphora_replication::Transaction;
use amphora_storage::schema::{ColumnStatistics, Table, TableId, TableStatistics};

use crate::error::Result;
use crate::executor::Guard;
use sample::Sample;

/// How fine statistics are: most common values, and buckets of a histogram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detail(pub(crate) usize);

/// Looks at some columns (positions) of a table. `known` is what an earlier look learned of the others.
pub(crate) fn analyze(
    txn: &dyn Transaction,
    guard: &Guard,
    table: &std::sync::Arc<Table>,
    positions: &[usize],
    detail: Detail,
    size: Option<u64>,
    known: Option<&TableStatistics>,
) -> Result<TableStatistics> {
    let sample = Sample::take(txn, guard, table, positions, detail, size)?;
    let mut columns: Vec<ColumnStatistics> = positions
        .iter()
        .enumerate()
        .filter_map(|(i, &position)| {
            let column = table.columns.get(position)?;
            Some(column::statistics(column, &sample.column(i), sample.rows, detail))
        })
        .collect();
    let others = known.into_iter().flat_map(|k| &k.columns).filter(|old| {
        table.columns.iter().any(|c| c.id == old.column) && !columns.iter().any(|c| c.column == old.column)
    });
    let others: Vec<ColumnStatistics> = others.cloned().collect();
    columns.extend(others);
    Ok(TableStatistics {
        id: TableId(0),
        table: table.id,
        rows: sample.rows,
        bytes: size.unwrap_or(0),
        columns,
    })
}

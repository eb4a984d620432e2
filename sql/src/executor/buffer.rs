//! Rows that are kept and read more than once: WITH queries, the right side of a nested loop, equal rows
//! of a merge join.
//!
//! The first `work_mem` of them stay in memory, the others go to a file. Every reader has its own place.

use amphora_storage::Row;

use super::Runtime;
use super::guard::{Held, row_memory};
use super::spill::{Spill, SpillFile, Spilled};
use crate::error::Result;

/// Rows in the order in which they were added. They are read once all have been added.
#[derive(Default)]
pub(crate) struct RowBuffer {
    rows: Vec<Row>,
    rest: Rest,
    held: Held,
}

#[derive(Default)]
enum Rest {
    #[default]
    None,
    Writing(Spill),
    Complete(SpillFile),
}

/// A place among the rows of a [`RowBuffer`].
#[derive(Default)]
pub(crate) struct Reader {
    position: usize,
    file: Option<Spilled>,
}

impl RowBuffer {
    /// Rows that are there already, and counted by whoever made them.
    pub(crate) fn of(rows: Vec<Row>) -> RowBuffer {
        RowBuffer { rows, ..RowBuffer::default() }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, run: &Runtime, row: Row) -> Result<()> {
        if let Rest::Writing(file) = &mut self.rest {
            return file.write(&row);
        }
        let bytes = row_memory(&row);
        if run.is_over(&self.held, bytes) && !self.rows.is_empty() {
            let mut file = run.new_spill()?;
            file.write(&row)?;
            self.rest = Rest::Writing(file);
            return Ok(());
        }
        self.held.add_bytes(&run.guard, bytes)?;
        self.rows.push(row);
        Ok(())
    }

    /// All rows have been added.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.rest = match std::mem::take(&mut self.rest) {
            Rest::Writing(file) => Rest::Complete(file.finish()?),
            other => other,
        };
        Ok(())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        let rest = match &self.rest {
            Rest::Complete(file) => usize::try_from(file.rows()).unwrap_or(usize::MAX),
            _ => 0,
        };
        self.rows.len() + rest
    }

    /// True if there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What the rows in memory take, to be released by the caller.
    pub(crate) fn take_held(&mut self) -> Held {
        std::mem::take(&mut self.held)
    }

    /// Forgets all rows.
    pub(crate) fn clear(&mut self, run: &Runtime) {
        self.rows.clear();
        self.rest = Rest::None;
        self.held.release(&run.guard);
    }
}

impl Reader {
    /// The next row.
    pub(crate) fn next(&mut self, buffer: &RowBuffer) -> Result<Option<Row>> {
        if let Some(row) = buffer.rows.get(self.position) {
            self.position += 1;
            return Ok(Some(row.clone()));
        }
        let Rest::Complete(file) = &buffer.rest else { return Ok(None) };
        let row = self.file.get_or_insert_with(|| file.read()).next()?;
        self.position += usize::from(row.is_some());
        Ok(row)
    }

    /// Appends up to `most` rows; false once there are no more.
    pub(crate) fn read(&mut self, buffer: &RowBuffer, most: usize, out: &mut Vec<Row>) -> Result<bool> {
        let end = (self.position + most).min(buffer.rows.len());
        let mut taken = 0;
        if self.position < end {
            taken = end - self.position;
            out.extend_from_slice(&buffer.rows[self.position..end]);
            self.position = end;
        }
        while taken < most
            && let Some(row) = self.next(buffer)?
        {
            out.push(row);
            taken += 1;
        }
        Ok(self.position < buffer.len())
    }

    /// How many rows have been read.
    pub(crate) fn position(&self) -> usize {
        self.position
    }
}

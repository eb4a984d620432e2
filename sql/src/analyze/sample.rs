//! A random sample of a table's rows, of bounded size.
//!
//! Every row has the same chance (Vitter 1985, algorithm R). Values that are wide count only by their
//! width: as common values they are unlikely, and as bounds expensive.

use std::sync::Arc;

use amphora_replication::{Direction, KeyRange, Scan, Transaction};
use amphora_storage::schema::{IndexId, Table};
use amphora_storage::{Datum, Row};
use rand::{Rng, SeedableRng};

use super::Detail;
use crate::error::Result;
use crate::executor::{BATCH, Guard};

/// Rows sampled for each most common value and bucket: PostgreSQL's (Chaudhuri, Motwani, Narasayya 1998).
const ROWS_PER_BUCKET: usize = 300;

/// Rows that are read. What lies beyond is counted by the table's size.
const MAX_READ: u64 = 5_000_000;

/// Bytes above which a value counts as wide.
const WIDE: usize = 512;

/// A value of the sample.
pub(super) enum Sampled {
    /// As it is
    Value(Datum),
    /// One too wide to be kept, with its bytes
    Wide(usize),
}

/// The sample.
pub(super) struct Sample {
    /// Rows of the whole table
    pub(super) rows: u64,
    /// Rows in the order in which they are stored
    kept: Vec<(u64, Vec<Sampled>)>,
}

impl Sample {
    /// Reads the table.
    pub(super) fn take(
        txn: &dyn Transaction,
        guard: &Guard,
        table: &Arc<Table>,
        positions: &[usize],
        detail: Detail,
        size: Option<u64>,
    ) -> Result<Sample> {
        let wanted = detail.0.max(1) * ROWS_PER_BUCKET;
        let mut columns = positions.to_vec();
        columns.sort_unstable();
        let mut stream = txn.scan(&Scan {
            table: table.clone(),
            index: IndexId::PRIMARY,
            range: KeyRange::all(),
            direction: Direction::Forward,
            columns: Some(columns.into()),
        })?;
        // One table gives one sample: plans should not change by chance.
        let mut random = rand::rngs::StdRng::seed_from_u64(u64::from(table.id.0));
        let mut kept: Vec<(u64, Vec<Sampled>)> = Vec::new();
        let (mut read, mut width) = (0u64, 0u64);
        let mut batch = Vec::new();
        loop {
            guard.check()?;
            let got = stream.next_batch(BATCH, &mut batch)?;
            for stored in batch.drain(..) {
                read += 1;
                if kept.len() < wanted {
                    width += stored.row.iter().map(|d| d.memory() as u64).sum::<u64>();
                    kept.push((read, sampled(stored.row, positions)));
                    continue;
                }
                let place = random.random_range(0..read);
                if let Some(slot) = usize::try_from(place).ok().and_then(|i| kept.get_mut(i)) {
                    *slot = (read, sampled(stored.row, positions));
                }
            }
            if got < BATCH || read >= MAX_READ {
                break;
            }
        }
        kept.sort_by_key(|(place, _)| *place);
        let mut rows = read;
        if read >= MAX_READ
            && let Some(size) = size
        {
            let each = (width / wanted as u64).max(1);
            rows = rows.max(size / each);
        }
        Ok(Sample { rows, kept })
    }

    /// The sampled values of one column, in the order in which they are stored.
    pub(super) fn column(&self, i: usize) -> Vec<&Sampled> {
        self.kept.iter().filter_map(|(_, row)| row.get(i)).collect()
    }
}

fn sampled(mut row: Row, positions: &[usize]) -> Vec<Sampled> {
    positions
        .iter()
        .map(|&p| {
            let value = row.get_mut(p).map_or(Datum::Null, |slot| std::mem::replace(slot, Datum::Null));
            match value.memory() {
                bytes if bytes > WIDE => Sampled::Wide(bytes),
                _ => Sampled::Value(value),
            }
        })
        .collect()
}

//! ANALYZE, carried out: tables are read first and the catalog is locked last, for as short as can be.

use amphora_storage::schema::{Descriptor, TableId, TableStatistics};

use super::Session;
use crate::analyze::{Detail, analyze};
use crate::error::{Result, SqlError};
use crate::executor::{Guard, blocking};

impl Session {
    pub(super) async fn analyze(&mut self, tag: &str, tables: &[(TableId, Vec<usize>)]) -> Result<()> {
        if tables.is_empty() {
            return Ok(());
        }
        self.check_writable(tag)?;
        let (deadline, memory, detail) = {
            let settings = self.shared.settings.lock();
            let effective = settings.effective();
            (
                self.deadline_after(effective.statement_timeout),
                effective.query_memory,
                effective.statistics_target,
            )
        };
        let guard = Guard::new(self.shared.cancel.clone(), deadline, memory);
        let mut found: Vec<TableStatistics> = Vec::with_capacity(tables.len());
        for (id, positions) in tables {
            let Some(txn) = &self.tx.txn else { return Err(SqlError::internal("no transaction")) };
            let catalog = txn.catalog();
            let Some(table) = catalog.table_by_id(*id) else { continue };
            let size = self.shared.engine.table_size(*id);
            let known = catalog.statistics(*id).map(|s| &**s);
            let statistics =
                blocking(|| analyze(txn.as_ref(), &guard, table, positions, Detail(detail), size, known))?;
            found.push(statistics);
            tokio::task::yield_now().await;
        }
        let txn = self.transaction(false);
        txn.lock_catalog().await?;
        for mut statistics in found {
            let catalog = txn.catalog();
            if catalog.table_by_id(statistics.table).is_none() {
                continue;
            }
            statistics.id = match catalog.statistics(statistics.table) {
                Some(known) => known.id,
                None => txn.allocate_id()?,
            };
            txn.put_object(Descriptor::Statistics(statistics))?;
        }
        Ok(())
    }
}

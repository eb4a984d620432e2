//! ANALYZE by itself.
//!
//! The leader applies every write of strong tables and counts them; leaderless tables are watched by their
//! size. A table is looked at again once a tenth of it, and at least fifty rows, may be different: the
//! thresholds of PostgreSQL's autovacuum. One table at a time, and at most one look a [`PERIOD`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use amphora_replication::Engine;
use amphora_storage::schema::{Catalog, Table, TableId};
use async_trait::async_trait;

use crate::catalog::quoted;
use crate::error::Result;
use crate::plan::Field;
use crate::session::{Notice, Output, Session, SessionOptions};
use crate::types::FormatContext;
use amphora_storage::Datum;

/// Between two looks at what has changed.
const PERIOD: Duration = Duration::from_secs(10);

/// Changed rows below which a table is left alone.
const THRESHOLD: f64 = 50.0;

/// The share of a table that must have changed.
const SHARE: f64 = 0.1;

/// Growth of files after which a table is looked at whose changes are not counted.
const GROWTH: f64 = 1.2;

/// Bytes below which growth says nothing.
const SMALLEST: u64 = 64 << 10;

/// Looks at tables for as long as it is polled.
pub async fn run(engine: Arc<dyn Engine>, user: &str) {
    let mut seen: HashMap<TableId, u64> = HashMap::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let leads = engine.status().raft.leader == Some(engine.node_id());
        if !leads {
            // Counts are this node's own: as a leader it will begin with what it sees then.
            seen.clear();
            continue;
        }
        let catalog = engine.catalog();
        seen.retain(|id, _| catalog.table_by_id(*id).is_some());
        let due = catalog.tables().find(|table| is_due(engine.as_ref(), &catalog, table, &mut seen));
        let Some(table) = due.cloned() else { continue };
        if let Some(changes) = engine.table_changes(table.id) {
            seen.insert(table.id, changes);
        }
        if let Err(error) = look(&engine, user, &table).await {
            tracing::warn!(table = table.name, "automatic analyze: {}", error.message);
        }
    }
}

fn is_due(engine: &dyn Engine, catalog: &Catalog, table: &Table, seen: &mut HashMap<TableId, u64>) -> bool {
    let known = catalog.statistics(table.id);
    let rows = known.map_or(0.0, |s| s.rows as f64);
    if let Some(changes) = engine.table_changes(table.id).filter(|_| table.is_strong()) {
        let before = seen.entry(table.id).or_insert(0);
        return changes.saturating_sub(*before) as f64 > THRESHOLD + SHARE * rows;
    }
    let size = engine.table_size(table.id).unwrap_or(0);
    size > SMALLEST && size as f64 > known.map_or(0.0, |s| s.bytes as f64) * GROWTH
}

async fn look(engine: &Arc<dyn Engine>, user: &str, table: &Table) -> Result<()> {
    let options = SessionOptions {
        user: user.to_owned(),
        database: user.to_owned(),
        backend_pid: 0,
        settings: vec![("application_name".into(), "auto-analyze".into())],
    };
    let mut session = Session::new(engine.clone(), options)?;
    let sql = format!("ANALYZE {}.{}", quoted(&table.schema), quoted(&table.name));
    session.simple_query(&sql, &mut Nobody).await
}

/// Nobody reads what it answers.
struct Nobody;

#[async_trait]
impl Output for Nobody {
    fn fields(&mut self, _: &Arc<[Field]>, _: &[i16], _: &FormatContext) {}

    fn row(&mut self, _: &[Datum]) -> Result<()> {
        Ok(())
    }

    async fn flush_if_full(&mut self) -> Result<()> {
        Ok(())
    }

    fn complete(&mut self, _: &str) {}

    fn suspended(&mut self) {}

    fn empty_query(&mut self) {}

    fn notice(&mut self, _: Notice) {}

    fn parameter_status(&mut self, _: &str, _: &str) {}
}

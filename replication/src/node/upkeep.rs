//! What nobody waits for: the rows of dropped tables and indexes are found and their space given back.
//!
//! DROP writes the catalog and nothing else. The rows are found by looking: one seek per keyspace that has
//! any, compared with the catalog *at the timestamp of the look*. So rows and catalog are of one moment, and
//! a table made a moment later is not taken for one that is gone.
//!
//! ```text
//!   16384|0 …rows…   16384|1 …entries…   16385|0 …rows…   16390|0 …
//!   ▲ seek           ▲ seek              ▲ seek           ▲ seek       in the catalog? no: reclaim
//! ```
//!
//! It takes no memory of what was dropped and when, so a crash, a restart or a snapshot installed from
//! another node needs no special care: what was missed is found by the next look. A strong keyspace is
//! handed to the store, which keeps its history readable until the retention time has passed since the look and no snapshot is
//! older (`strong/history.rs`). A
//! leaderless table has no history and is erased at once. A delta of it that is still on its way from another
//! node may bring rows back; the next look finds them again, and since ids are never given twice they can
//! be nobody else's. This node may learn of rows of a leaderless table before it learns of the table: an
//! id that the catalog has not given out yet is left alone.
//!
//! Old versions, the op log and the Raft log are trimmed by those who write them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use amphora_storage::schema::{Catalog, IndexId, TableId};
use amphora_storage::store::{Batch, Cf, Direction, Store, View};
use amphora_storage::{Timestamp, codec, key};
use tracing::{error, info};

use super::{Node, catalog_key, load_catalog};
use crate::strong::Group;
use crate::{Result, leaderless};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(30);
/// A look comes up to this much sooner, so that the nodes of a cluster do not compact in step.
const JITTER: Duration = Duration::from_secs(10);
/// How long after a change of the catalog dropped tables are looked for.
const SETTLE: Duration = Duration::from_secs(2);

/// A range of keys that are reclaimed together: a table, or one index of it.
type Prefix = Vec<u8>;

/// Finds dropped tables of one node.
pub(super) struct Upkeep {
    store: Arc<Store>,
    group: Group,
    leaderless: Arc<leaderless::Engine>,
    /// Strong keyspaces handed to the store, and as of when they are gone
    handed_over: BTreeMap<Prefix, Timestamp>,
}

impl Upkeep {
    pub(super) fn new(node: &Node) -> Upkeep {
        Upkeep {
            store: node.store.clone(),
            group: node.group.clone(),
            leaderless: node.leaderless.clone(),
            handed_over: BTreeMap::new(),
        }
    }

    /// Looks for keyspaces that have rows and no descriptor. Blocks.
    pub(super) fn run(&mut self) -> Result<()> {
        let at = self.group.applied_timestamp();
        let catalog = load_catalog(&self.store, at)?;
        let Some(next) = self.store.get(catalog_key(TableId(0)), at)? else { return Ok(()) };
        let next_id = TableId(codec::decode::<u32>(&next.value)?);
        let view = self.store.view();
        for (table, index) in strong_keyspaces(&view, at)? {
            if let Some(prefix) = dropped(&catalog, table, index).filter(|_| table < next_id) {
                self.hand_over(prefix, at)?;
            }
        }
        for table in leaderless_keyspaces(&view)? {
            if table < next_id && !catalog.tables().any(|known| known.keyspace() == table) {
                self.erase_leaderless(table)?;
            }
        }
        Ok(())
    }

    /// Lets the store reclaim a strong keyspace once its history has passed.
    fn hand_over(&mut self, prefix: Prefix, at: Timestamp) -> Result<()> {
        // Still here although its time has come: another node's data took the place of ours meanwhile.
        let waits = |since: &Timestamp| *since >= self.store.history_low();
        if self.handed_over.get(&prefix).is_some_and(waits) {
            return Ok(());
        }
        info!(prefix = %Hex(&prefix), "a dropped table or index will be reclaimed");
        self.store.drop_table_range(&prefix, at)?;
        self.handed_over.insert(prefix, at);
        Ok(())
    }

    fn erase_leaderless(&self, table: TableId) -> Result<()> {
        info!(table = table.0, "erasing the rows of a dropped leaderless table");
        let mut batch = Batch::new();
        batch.delete_range(Cf::Leaderless, &key::table_range(table));
        // No one may read a row before and write it back after.
        self.leaderless.change_store(|store| Ok(store.write(batch)?))
    }
}

/// What of this keyspace the catalog does not know: the table, the index, or nothing.
fn dropped(catalog: &Catalog, table: TableId, index: IndexId) -> Option<Prefix> {
    match catalog.tables().find(|known| known.keyspace() == table) {
        None => Some(table.0.to_be_bytes().to_vec()),
        Some(known) if known.index(index).is_none() => Some(key::table_prefix(table, index).to_vec()),
        Some(_) => None,
    }
}

/// The users' tables and indexes that have a row or an entry at `at`.
fn strong_keyspaces(view: &View, at: Timestamp) -> Result<Vec<(TableId, IndexId)>> {
    let mut found = Vec::new();
    let mut from = key::table_prefix(TableId::FIRST_USER, IndexId::PRIMARY).to_vec();
    while !from.is_empty() {
        let mut scan = view.scan(to_end(from), at, Direction::Forward)?;
        let Some((table, index, _)) = scan.next()?.and_then(|entry| key::split_prefix(entry.key)) else {
            break;
        };
        found.push((table, index));
        from = key::prefix_successor(&key::table_prefix(table, index));
    }
    Ok(found)
}

/// The keyspaces that have a row of a leaderless table, deleted ones included.
fn leaderless_keyspaces(view: &View) -> Result<Vec<TableId>> {
    let mut found = Vec::new();
    let mut from = key::table_range(TableId::FIRST_USER).start;
    while !from.is_empty() {
        let mut scan = view.scan_plain(Cf::Leaderless, to_end(from), Direction::Forward)?;
        let Some((table, ..)) = scan.next()?.and_then(|entry| key::split_prefix(entry.key)) else { break };
        found.push(table);
        from = key::table_range(table).end;
    }
    Ok(found)
}

fn to_end(from: Vec<u8>) -> Range<Vec<u8>> {
    from..Vec::new()
}

/// Bytes as an operator reads them.
struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Node {
    /// Runs the upkeep until the node stops.
    pub(super) async fn keep_up(self: Arc<Self>) {
        let mut upkeep = Upkeep::new(&self);
        let mut changes = self.group.catalog_version();
        loop {
            let pause = INTERVAL - JITTER.mul_f64(rand::random::<f64>());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(()) = changes.changed() => {
                    // One look for a script that drops many.
                    tokio::time::sleep(SETTLE).await;
                    changes.mark_unchanged();
                }
            }
            let run = tokio::task::spawn_blocking(move || (upkeep.run(), upkeep));
            let Ok((result, returned)) = run.await else { return };
            upkeep = returned;
            if let Err(e) = result {
                error!("dropped tables could not be reclaimed: {e}");
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use amphora_storage::schema::{Replication, Table};

    use super::super::tests::{Cluster, add, create, the_table, until};
    use super::*;
    use crate::api::{Engine, TransactionOptions};

    fn has_rows(store: &Store, table: TableId, replication: Replication) -> bool {
        let range = key::table_range(table);
        match replication {
            Replication::Strong => {
                store.scan(range, Timestamp::MAX, Direction::Forward).unwrap().next().unwrap().is_some()
            }
            Replication::Leaderless => {
                store.scan_plain(Cf::Leaderless, range, Direction::Forward).unwrap().next().unwrap().is_some()
            }
        }
    }

    async fn drop_it(node: &Node, id: TableId) {
        let mut tx = node.begin(TransactionOptions::default());
        tx.lock_catalog().await.unwrap();
        tx.drop_table(id).unwrap();
        tx.commit().await.unwrap();
    }

    /// What the group does now and then.
    fn forget_all(node: &Node) {
        node.store.advance_history(node.group.applied_timestamp()).unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn dropped_tables_of_both_kinds_are_reclaimed_and_others_are_not() {
        let cluster = Cluster::start(1).await;
        let node = cluster.node(0);
        let mut ids = Vec::new();
        for (name, replication) in [
            ("a", Replication::Strong),
            ("b", Replication::Strong),
            ("c", Replication::Leaderless),
            ("d", Replication::Leaderless),
        ] {
            create(&node, name, replication).await;
            add(&node, name, 1, 1).await.unwrap();
            ids.push((the_table(&node, name).await.id, replication));
        }
        drop_it(&node, ids[0].0).await;
        drop_it(&node, ids[2].0).await;
        let mut upkeep = Upkeep::new(&node);
        upkeep.run().unwrap();
        assert_eq!(upkeep.handed_over.len(), 1);
        // Time goes on, so the drop passes out of history.
        add(&node, "b", 1, 1).await.unwrap();
        forget_all(&node);
        node.store.reclaim_dropped().unwrap();
        let left: Vec<bool> = ids.iter().map(|(id, r)| has_rows(&node.store, *id, *r)).collect();
        assert_eq!(left, [false, true, false, true]);

        // TRUNCATE: the table goes on in another keyspace, and the old one is nobody's.
        let emptied = the_table(&node, "d").await;
        let mut tx = node.begin(TransactionOptions::default());
        tx.lock_catalog().await.unwrap();
        let storage = tx.allocate_id().unwrap();
        tx.put_table(Table { storage: Some(storage), ..Table::clone(&emptied) }).unwrap();
        tx.commit().await.unwrap();
        until("the table is empty", || node.catalog().table("public", "d").unwrap().keyspace() == storage)
            .await;
        add(&node, "d", 7, 1).await.unwrap();
        upkeep.run().unwrap();
        assert!(has_rows(&node.store, storage, Replication::Leaderless));
        assert!(!has_rows(&node.store, emptied.id, Replication::Leaderless));

        // A late delta brings a row back, until the next look; one of a table not yet known stays.
        let late = |id: TableId| [key::table_prefix(id, IndexId::PRIMARY).as_slice(), &[1]].concat();
        let (dead, unborn) = (ids[2].0, TableId(storage.0 + 100));
        let mut batch = Batch::new();
        batch.put(Cf::Leaderless, late(dead), b"x");
        batch.put(Cf::Leaderless, late(unborn), b"x");
        node.store.write(batch).unwrap();
        upkeep.run().unwrap();
        assert!(!has_rows(&node.store, dead, Replication::Leaderless));
        assert!(has_rows(&node.store, unborn, Replication::Leaderless));
        drop(node);
        cluster.end().await;
    }
}

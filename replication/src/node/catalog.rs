//! The catalog as stored, and the newest of it that this node has applied.
//!
//! An object's descriptor (a table's, a view's, …) is one row of a strong keyspace of its own, so DDL is replicated, versioned and
//! rolled back by the same means as data:
//!
//! ```text
//!   CATALOG | PRIMARY | 00000000   →  next free id (u32)
//!   CATALOG | PRIMARY | 00004000   →  table 16384, whose version is its row's commit timestamp
//!   CATALOG | PRIMARY | 00004001   →  sequence 16385, …
//! ```
//!
//! [`CatalogCache`] holds the decoded whole. It is read on every statement (one atomic load) and rebuilt
//! only after a commit that wrote here.

use std::sync::Arc;

use amphora_storage::schema::{Catalog, Descriptor, IndexId, TableId};
use amphora_storage::store::{Direction, Store};
use amphora_storage::{Timestamp, codec, key};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::error;

use crate::strong::Group;
use crate::{Result, leaderless};

/// The key of a table's descriptor; of the counter of free ids if the id is 0.
pub fn catalog_key(table: TableId) -> Vec<u8> {
    let mut key = key::table_prefix(TableId::CATALOG, IndexId::PRIMARY).to_vec();
    key.extend_from_slice(&table.0.to_be_bytes());
    key
}

/// The catalog at a timestamp that this node has applied.
pub fn load_catalog(store: &Store, at: Timestamp) -> Result<Catalog> {
    let range = key::index_range(TableId::CATALOG, IndexId::PRIMARY);
    let mut rows = store.scan(range, at, Direction::Forward)?;
    let mut catalog = Catalog::default();
    while let Some(row) = rows.next()? {
        catalog.version = catalog.version.max(row.ts);
        if row.key.ends_with(&TableId(0).0.to_be_bytes()) {
            continue;
        }
        let mut object: Descriptor = codec::decode(row.value)?;
        object.set_version(row.ts);
        catalog.put_object(object);
    }
    Ok(catalog)
}

/// The newest catalog applied on this node.
pub struct CatalogCache {
    store: Arc<Store>,
    group: Group,
    /// Whose indexes it names
    leaderless: Arc<leaderless::Engine>,
    changes: watch::Receiver<Timestamp>,
    current: ArcSwap<Catalog>,
    /// The change that `current` includes. Held while it is rebuilt, so that an older catalog never
    /// replaces a newer one.
    loaded: Mutex<Timestamp>,
}

impl CatalogCache {
    /// Loads the catalog from disk.
    pub fn open(
        store: Arc<Store>,
        group: Group,
        leaderless: Arc<leaderless::Engine>,
    ) -> Result<CatalogCache> {
        let changes = group.catalog_version();
        let seen = *changes.borrow();
        let catalog = load_catalog(&store, group.applied_timestamp())?;
        leaderless.follow_catalog(&catalog)?;
        Ok(CatalogCache {
            store,
            group,
            leaderless,
            changes,
            current: ArcSwap::from_pointee(catalog),
            loaded: Mutex::new(seen),
        })
    }

    /// The newest catalog, as of the last refresh.
    pub fn current(&self) -> Arc<Catalog> {
        self.current.load_full()
    }

    /// Brings the catalog up to all that is applied on this node. Cheap if nothing has changed.
    pub fn refresh(&self) {
        if let Err(e) = self.try_refresh() {
            error!("could not read the catalog: {e}");
        }
    }

    fn try_refresh(&self) -> Result<()> {
        let mut loaded = self.loaded.lock();
        let changed = *self.changes.borrow();
        if changed == *loaded {
            return Ok(());
        }
        // The change is applied before it is announced, so what is applied now includes it.
        let mut catalog = load_catalog(&self.store, self.group.applied_timestamp())?;
        // A dropped table leaves no row that could tell when.
        catalog.version = catalog.version.max(changed);
        self.leaderless.follow_catalog(&catalog)?;
        self.current.store(Arc::new(catalog));
        *loaded = changed;
        Ok(())
    }

    /// Follows the changes until the group ends.
    pub async fn follow(self: Arc<Self>) {
        let mut changes = self.changes.clone();
        // What changed between `open` and now is a change too.
        changes.mark_changed();
        while changes.changed().await.is_ok() {
            let cache = self.clone();
            // Reading the disk may block.
            if tokio::task::spawn_blocking(move || cache.refresh()).await.is_err() {
                return;
            }
        }
    }
}

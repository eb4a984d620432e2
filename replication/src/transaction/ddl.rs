//! Data definition: the catalog is rows of a strong keyspace, written like any others.

use std::sync::Arc;

use amphora_storage::schema::{Catalog, Descriptor, IndexId, TableId};
use amphora_storage::{Timestamp, codec, key};

use super::HybridTransaction;
use crate::api::{LockMode, WaitPolicy};
use crate::node::{catalog_key, load_catalog};
use crate::strong::LockKey;
use crate::{Error, Result};

/// The catalog with this transaction's own changes.
pub(super) struct CatalogDraft {
    /// As it was when DDL began
    base: Arc<Catalog>,
    current: Arc<Catalog>,
    /// Ids of tables written by this transaction
    touched: Vec<TableId>,
}

impl CatalogDraft {
    pub(super) fn catalog(&self) -> Arc<Catalog> {
        self.current.clone()
    }

    /// True of a table whose descriptor this transaction wrote: no committed version of it to compare.
    pub(super) fn touches(&self, id: TableId) -> bool {
        self.touched.contains(&id)
    }
}

/// Where the next free id is kept.
fn next_id_key() -> Vec<u8> {
    catalog_key(TableId(0))
}

impl HybridTransaction {
    /// Waits for all other DDL, then reads the catalog as it is now.
    pub(super) async fn begin_ddl(&mut self) -> Result<()> {
        self.pessimistic = true;
        if self.ddl.is_some() {
            return Ok(());
        }
        let lock = LockKey { key: next_id_key(), mode: LockMode::Exclusive };
        self.request_locks("pg_class", vec![lock], WaitPolicy::Wait).await?;
        self.take_snapshot().await?;
        let catalog = Arc::new(load_catalog(&self.context.store, self.snapshot())?);
        self.ddl = Some(CatalogDraft { base: catalog.clone(), current: catalog, touched: Vec::new() });
        Ok(())
    }

    fn draft(&mut self) -> Result<&mut CatalogDraft> {
        self.ddl.as_mut().ok_or_else(|| Error::new("XX000", "the catalog is changed without its lock"))
    }

    pub(super) fn allocate_table_id(&mut self) -> Result<TableId> {
        self.draft()?;
        let key = next_id_key();
        let next = match self.strong_value(&key)? {
            Some((_, bytes)) => codec::decode::<u32>(&bytes)?,
            None => TableId::FIRST_USER.0,
        };
        let Some(after) = next.checked_add(1) else {
            return Err(Error::new("54000", "no object ids are left"));
        };
        self.buffer.put(key, Some(codec::encode(&after)))?;
        Ok(TableId(next))
    }

    pub(super) fn put_descriptor(&mut self, mut object: Descriptor) -> Result<()> {
        let id = object.id();
        if let Descriptor::Table(_) = object {
            self.check_not_stale(id)?;
        }
        object.set_version(Timestamp::ZERO);
        self.buffer.put(catalog_key(id), Some(codec::encode(&object)))?;
        let draft = self.draft()?;
        draft.touched.push(id);
        Arc::make_mut(&mut draft.current).put_object(object);
        Ok(())
    }

    /// What this transaction wrote to the table before was planned with the descriptor that is replaced
    /// now. The certifier cannot see that any more: it compares no descriptors that the transaction writes.
    fn check_not_stale(&mut self, id: TableId) -> Result<()> {
        let written_with = self.buffer.touched(id).filter(|version| *version != Timestamp::ZERO);
        let known = self.draft()?.base.table_by_id(id).map(|table| table.version);
        match written_with {
            Some(version) if known != Some(version) => Err(Error::catalog_moved()),
            _ => Ok(()),
        }
    }

    pub(super) fn drop_descriptor(&mut self, id: TableId) -> Result<()> {
        self.buffer.put(catalog_key(id), None)?;
        let draft = self.draft()?;
        draft.touched.push(id);
        Arc::make_mut(&mut draft.current).remove(id);
        Ok(())
    }

    /// After writes were taken back: the draft is what the base and the remaining writes make it.
    pub(super) fn rebuild_draft(&mut self) -> Result<()> {
        let Some(draft) = &mut self.ddl else { return Ok(()) };
        let prefix = key::table_prefix(TableId::CATALOG, IndexId::PRIMARY);
        let mut catalog = (*draft.base).clone();
        draft.touched.clear();
        for (key, value) in self.buffer.range(&prefix, &key::prefix_successor(&prefix)) {
            let Some(id) = key.last_chunk::<4>().map(|b| TableId(u32::from_be_bytes(*b))) else { continue };
            if id == TableId(0) {
                continue;
            }
            draft.touched.push(id);
            match value {
                Some(bytes) => catalog.put_object(codec::decode::<Descriptor>(&bytes)?),
                None => catalog.remove(id),
            }
        }
        draft.current = Arc::new(catalog);
        Ok(())
    }
}

//! CREATE and DROP, carried out.
//!
//! DDL takes the catalog's lock first, which brings the catalog up to date, and then checks again what the
//! binder checked against an older one.

use std::sync::Arc;

use amphora_storage::Timestamp;
use amphora_storage::schema::{Catalog, Check, Column, ColumnId, Index, IndexId, Table, TableId};
use amphora_storage::types::DataType;

use super::command::Answer;
use super::{Notice, Output, Session};
use crate::binder::made_up_name;
use crate::command::{Command, CreateIndex, CreateTable, NewSequence};
use crate::error::{Result, SqlError};

/// The column that is the key of a table without one.
pub(super) const HIDDEN_KEY: &str = "amphora_rowid";

impl Session {
    /// Carries out DDL in the open transaction. `None` if the command is something else.
    pub(super) async fn run_ddl(
        &mut self,
        command: &Command,
        out: &mut dyn Output,
    ) -> Result<Option<Answer>> {
        if let Command::Role(role) = command {
            self.check_writable("CREATE ROLE")?;
            return Ok(Some(Answer::tag(self.run_role(role, out).await?)));
        }
        if let Command::Object(object) = command {
            return self.run_object(object, out).await.map(Some);
        }
        let name = match command {
            Command::CreateTable(_) => "CREATE TABLE",
            Command::AlterTable(_) => "ALTER TABLE",
            Command::RenameIndex { .. } | Command::SetIndexOptions { .. } => "ALTER INDEX",
            Command::CreateIndex(_) => "CREATE INDEX",
            Command::DropIndexes { .. } => "DROP INDEX",
            Command::Reindex { renew, .. } if !renew.is_empty() => "REINDEX",
            Command::Analyze { tag, tables, warnings } => {
                for warning in warnings {
                    out.notice(Notice::warning("01000", warning.clone()));
                }
                self.analyze(tag, tables).await?;
                return Ok(Some(Answer::tag(*tag)));
            }
            _ => return Ok(None),
        };
        self.check_writable(name)?;
        let notices = match command {
            Command::CreateTable(create) => {
                let mut notices = create.notices.clone();
                notices.extend(self.create_table(create).await?);
                notices
            }
            Command::AlterTable(alter) => {
                self.alter_table(alter, out).await?;
                Vec::new()
            }
            Command::RenameIndex { table, old, new } => {
                self.rename_index(*table, old, new).await?;
                Vec::new()
            }
            Command::SetIndexOptions { table, index, options } => {
                self.lock_catalog().await?;
                let catalog = self.transaction(false).catalog();
                self.change_table(&catalog, *table, |table| {
                    let indexes = std::iter::once(&mut table.primary).chain(&mut table.indexes);
                    indexes.filter(|i| i.id == *index).for_each(|i| i.options.clone_from(options));
                })
                .await?;
                Vec::new()
            }
            Command::Reindex { alone, renew } => {
                if let Some(statement) = alone {
                    self.prevent_in_block(statement)?;
                }
                self.renew_indexes(renew).await?;
                Vec::new()
            }
            Command::CreateIndex(create) => self.create_index(create).await?.into_iter().collect(),
            Command::DropIndexes { indexes, notices, concurrently } => {
                if *concurrently {
                    self.prevent_in_block("DROP INDEX CONCURRENTLY")?;
                }
                self.drop_indexes(indexes).await?;
                notices.clone()
            }
            _ => Vec::new(),
        };
        for notice in notices {
            out.notice(Notice::plain(notice));
        }
        Ok(Some(Answer::tag(name)))
    }

    pub(super) async fn lock_catalog(&mut self) -> Result<Arc<Catalog>> {
        let txn = self.transaction(false);
        txn.lock_catalog().await?;
        Ok(txn.catalog())
    }

    pub(super) async fn create_table(&mut self, create: &CreateTable) -> Result<Option<String>> {
        let catalog = self.lock_catalog().await?;
        if relation_exists(&catalog, &create.schema, &create.name) {
            let message = format!("relation \"{}\" already exists", create.name);
            if create.if_not_exists {
                return Ok(Some(format!("{message}, skipping")));
            }
            return Err(SqlError::duplicate_table(message));
        }
        let constraints = create.primary_key.iter().chain(&create.uniques);
        for Index { name, .. } in constraints.chain(&create.indexes) {
            if relation_exists(&catalog, &create.schema, name) || *name == create.name {
                return Err(SqlError::duplicate_table(format!("relation \"{name}\" already exists")));
            }
        }
        let owner = self.shared.user.to_string();
        self.lock_parents(&catalog, &create.parents).await?;
        let id = self.transaction(false).allocate_id()?;
        let mut columns: Vec<Column> = Vec::with_capacity(create.columns.len() + 1);
        for (i, c) in create.columns.iter().enumerate() {
            let mut column = Column {
                not_null: c.not_null,
                default: c.default.clone(),
                identity: c.identity,
                generated: c.generated.clone(),
                ..Column::new(column_id(i), c.name.clone(), c.ty.clone())
            };
            if let Some(sequence) = &c.sequence {
                let owner = (id, column.id);
                let default = self
                    .create_owned_sequence((&create.schema, &create.name), &c.name, owner, sequence)
                    .await?;
                column.default = Some(default);
            }
            columns.push(column);
        }
        let txn = self.transaction(false);
        let mut primary = match &create.primary_key {
            Some(key) => {
                for &position in &key.columns {
                    if let Some(column) = columns.get_mut(position) {
                        column.not_null = true;
                    }
                }
                key.clone()
            }
            None => {
                columns.push(Column {
                    not_null: true,
                    default: None,
                    ..Column::new(column_id(columns.len()), HIDDEN_KEY, DataType::Int8)
                });
                let name = format!("{}_{HIDDEN_KEY}", create.name);
                Index { unique: true, ..Index::new(IndexId::PRIMARY, name, 0, vec![columns.len() - 1]) }
            }
        };
        primary.oid = txn.allocate_id()?.0;
        let mut indexes = Vec::with_capacity(create.uniques.len());
        for (position, index) in create.uniques.iter().chain(&create.indexes).enumerate() {
            let (id, oid) = (index_id(position + 1), txn.allocate_id()?.0);
            indexes.push(Index { id, oid, ..index.clone() });
        }
        let mut foreign_keys = create.foreign_keys.clone();
        for key in &mut foreign_keys {
            key.oid = txn.allocate_id()?.0;
            if key.parent == TableId(0) {
                key.parent = id;
            }
        }
        let checks = create.checks.iter();
        txn.put_table(Table {
            id,
            version: Timestamp::ZERO,
            schema: create.schema.clone(),
            name: create.name.clone(),
            owner,
            replication: create.replication,
            next_column_id: column_id(columns.len()).0,
            next_index_id: index_id(indexes.len() + 1).0,
            storage: None,
            columns,
            primary,
            hidden_key: create.primary_key.is_none(),
            indexes,
            checks: checks
                .map(|(name, e)| Check { name: name.clone(), expression: e.clone(), validated: true })
                .collect(),
            foreign_keys,
            comment: None,
            write_quorum: create.write_quorum,
            read_quorum: create.read_quorum,
        })?;
        Ok(None)
    }

    /// Before a foreign key is made: excludes writers of the tables it refers to, and moves their
    /// descriptors, so that no statement planned without the key deletes what it refers to.
    pub(super) async fn lock_parents(&mut self, catalog: &Catalog, parents: &[Arc<Table>]) -> Result<()> {
        for parent in parents {
            let now = catalog.table_by_id(parent.id).filter(|now| now.version == parent.version);
            let now = now.ok_or_else(amphora_replication::Error::catalog_moved)?;
            let txn = self.transaction(false);
            txn.lock_table(now).await?;
            txn.put_table((**now).clone())?;
        }
        Ok(())
    }

    /// Takes a foreign key off its table.
    pub(super) async fn drop_foreign_key(&mut self, child: TableId, name: &str) -> Result<()> {
        let catalog = self.transaction(false).catalog();
        self.change_table(&catalog, child, |table| table.foreign_keys.retain(|key| key.name != name)).await
    }

    async fn create_index(&mut self, create: &CreateIndex) -> Result<Option<String>> {
        if create.concurrently {
            self.prevent_in_block("CREATE INDEX CONCURRENTLY")?;
        }
        let catalog = self.lock_catalog().await?;
        let table = catalog.table_by_id(create.table).ok_or_else(table_gone)?;
        let name = &create.index.name;
        if relation_exists(&catalog, &table.schema, name) {
            let message = format!("relation \"{name}\" already exists");
            if create.if_not_exists {
                return Ok(Some(format!("{message}, skipping")));
            }
            return Err(SqlError::duplicate_table(message));
        }
        let txn = self.transaction(false);
        if table.is_strong() {
            txn.lock_table(table).await?;
        }
        let id = IndexId(table.next_index_id);
        let mut changed = (**table).clone();
        changed.next_index_id += 1;
        changed.indexes.push(Index { id, oid: txn.allocate_id()?.0, ..create.index.clone() });
        txn.put_table(changed)?;
        let catalog = txn.catalog();
        let table = catalog.table_by_id(create.table).ok_or_else(table_gone)?;
        txn.build_index(table, id)?;
        Ok(None)
    }

    /// REINDEX of leaderless tables: every node makes the entries anew.
    async fn renew_indexes(&mut self, which: &[(TableId, Option<String>)]) -> Result<()> {
        let catalog = self.lock_catalog().await?;
        for (table, name) in which {
            self.change_table(&catalog, *table, |table| {
                table.renew_indexes(|index| name.as_ref().is_none_or(|name| index.name == *name));
            })
            .await?;
        }
        Ok(())
    }

    async fn drop_indexes(&mut self, indexes: &[(TableId, String)]) -> Result<()> {
        if indexes.is_empty() {
            return Ok(());
        }
        self.lock_catalog().await?;
        for (id, name) in indexes {
            let txn = self.transaction(false);
            let catalog = txn.catalog();
            let table = catalog.table_by_id(*id).ok_or_else(table_gone)?;
            if let Some(index) = table.all_indexes().find(|i| i.name == *name && i.constraint) {
                return Err(SqlError::dependent_objects_still_exist(format!(
                    "cannot drop index {name} because constraint {} on table {} requires it",
                    index.name, table.name
                ))
                .with_hint(format!(
                    "You can drop constraint {} on table {} instead.",
                    index.name, table.name
                )));
            }
            if let Some(index) = table.indexes.iter().find(|i| i.name == *name) {
                let keys = catalog.referencing(*id).into_iter();
                let keys = keys.filter(|(_, key)| {
                    crate::catalog::referenced_index(table, key).is_some_and(|i| i.id == index.id)
                });
                let lines: Vec<String> = keys
                    .map(|(child, key)| {
                        format!("constraint {} on table {} depends on index {name}", key.name, child.name)
                    })
                    .collect();
                if !lines.is_empty() {
                    return Err(still_needed(&format!("index {name}"), lines));
                }
            }
            let txn = self.transaction(false);
            if table.is_strong() {
                txn.lock_table(table).await?;
            }
            let mut changed = (**table).clone();
            changed.indexes.retain(|i| i.name != *name);
            txn.put_table(changed)?;
        }
        Ok(())
    }
}

impl Session {
    /// Makes the sequence of a serial or identity column, in the open transaction that holds the catalog's
    /// lock. Gives the column's DEFAULT.
    pub(super) async fn create_owned_sequence(
        &mut self,
        (schema, table): (&str, &str),
        column: &str,
        owner: (TableId, ColumnId),
        sequence: &NewSequence,
    ) -> Result<String> {
        let catalog = self.transaction(false).catalog();
        let taken = |name: &str| relation_exists(&catalog, schema, name);
        let name = made_up_name(table, &[column], "seq", taken);
        let id = self.create_sequence(schema, &name, Some(owner), sequence).await?;
        Ok(format!("nextval('{}'::regclass)", id.0))
    }
}

fn column_id(position: usize) -> ColumnId {
    ColumnId(u32::try_from(position).unwrap_or(u32::MAX))
}

pub(super) fn index_id(position: usize) -> IndexId {
    IndexId(u32::try_from(position).unwrap_or(u32::MAX))
}

/// Tables and indexes share one space of names in a schema.
pub(super) fn relation_exists(catalog: &Catalog, schema: &str, name: &str) -> bool {
    catalog.relation(schema, name).is_some()
        || catalog
            .tables()
            .filter(|t| t.schema == schema)
            .any(|t| t.all_indexes().any(|i| i.name == name && !(t.hidden_key && i.id == IndexId::PRIMARY)))
}

/// 2BP01: others need it.
pub(super) fn still_needed(what: &str, needed_by: Vec<String>) -> SqlError {
    let message = format!("cannot drop {what} because other objects depend on it");
    SqlError::dependent_objects_still_exist(message)
        .with_detail(needed_by.join("\n"))
        .with_hint("Use DROP ... CASCADE to drop the dependent objects too.")
}

/// What DROP … CASCADE tells of what went too.
pub(super) fn cascades_to(gone: Vec<String>) -> Option<Notice> {
    let lines: Vec<String> = gone.iter().map(|what| format!("drop cascades to {what}")).collect();
    match &lines[..] {
        [] => None,
        [one] => Some(Notice::plain(one.clone())),
        many => Some(Notice {
            detail: Some(many.join("\n")),
            ..Notice::plain(format!("drop cascades to {} other objects", many.len()))
        }),
    }
}

/// Dropped by someone else since the statement was bound.
pub(super) fn table_gone() -> SqlError {
    SqlError::undefined_table("the table was dropped while the statement ran")
        .with_hint("The statement might succeed, or say more, if run again.")
}

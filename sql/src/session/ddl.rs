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
use crate::command::{Command, CreateIndex, CreateTable};
use crate::error::{Result, SqlError};

/// The column that is the key of a table without one.
const HIDDEN_KEY: &str = "amphora_rowid";

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
        let name = match command {
            Command::CreateTable(_) => "CREATE TABLE",
            Command::DropTables { .. } => "DROP TABLE",
            Command::CreateIndex(_) => "CREATE INDEX",
            Command::DropIndexes { .. } => "DROP INDEX",
            _ => return Ok(None),
        };
        self.check_writable(name)?;
        let notices = match command {
            Command::CreateTable(create) => {
                let mut notices = create.notices.clone();
                notices.extend(self.create_table(create).await?);
                notices
            }
            Command::DropTables { tables, notices } => {
                self.drop_tables(tables).await?;
                notices.clone()
            }
            Command::CreateIndex(create) => self.create_index(create).await?.into_iter().collect(),
            Command::DropIndexes { indexes, notices } => {
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

    async fn create_table(&mut self, create: &CreateTable) -> Result<Option<String>> {
        let catalog = self.lock_catalog().await?;
        if relation_exists(&catalog, &create.schema, &create.name) {
            let message = format!("relation \"{}\" already exists", create.name);
            if create.if_not_exists {
                return Ok(Some(format!("{message}, skipping")));
            }
            return Err(SqlError::duplicate_table(message));
        }
        let constraints = create.primary_key.iter().chain(&create.uniques);
        for (name, _) in constraints {
            if relation_exists(&catalog, &create.schema, name) || *name == create.name {
                return Err(SqlError::duplicate_table(format!("relation \"{name}\" already exists")));
            }
        }
        let owner = self.shared.user.to_string();
        let txn = self.transaction(false);
        let id = txn.allocate_id()?;
        let mut columns: Vec<Column> = create
            .columns
            .iter()
            .enumerate()
            .map(|(i, c)| Column {
                not_null: c.not_null,
                default: c.default.clone(),
                ..Column::new(column_id(i), c.name.clone(), c.ty.clone())
            })
            .collect();
        let (key_name, key_columns) = match &create.primary_key {
            Some((name, key)) => {
                for &position in key {
                    if let Some(column) = columns.get_mut(position) {
                        column.not_null = true;
                    }
                }
                (name.clone(), key.clone())
            }
            None => {
                columns.push(Column {
                    not_null: true,
                    default: None,
                    ..Column::new(column_id(columns.len()), HIDDEN_KEY, DataType::Int8)
                });
                (format!("{}_{HIDDEN_KEY}", create.name), vec![columns.len() - 1])
            }
        };
        let primary = Index {
            id: IndexId::PRIMARY,
            name: key_name,
            oid: txn.allocate_id()?.0,
            columns: key_columns,
            unique: true,
            constraint: create.primary_key.is_some(),
            comment: None,
        };
        let mut indexes = Vec::with_capacity(create.uniques.len());
        for (position, (name, columns)) in create.uniques.iter().enumerate() {
            indexes.push(Index {
                id: index_id(position + 1),
                name: name.clone(),
                oid: txn.allocate_id()?.0,
                columns: columns.clone(),
                unique: true,
                constraint: true,
                comment: None,
            });
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
            columns,
            primary,
            hidden_key: create.primary_key.is_none(),
            indexes,
            checks: checks.map(|(name, e)| Check { name: name.clone(), expression: e.clone() }).collect(),
            foreign_keys: Vec::new(),
            comment: None,
            write_quorum: create.write_quorum,
            read_quorum: create.read_quorum,
        })?;
        Ok(None)
    }

    async fn drop_tables(&mut self, tables: &[TableId]) -> Result<()> {
        if tables.is_empty() {
            return Ok(());
        }
        let catalog = self.lock_catalog().await?;
        for id in tables {
            let table = catalog.table_by_id(*id).ok_or_else(table_gone)?;
            let txn = self.transaction(false);
            if table.is_strong() {
                txn.lock_table(table).await?;
            }
            txn.drop_table(*id)?;
        }
        Ok(())
    }

    async fn create_index(&mut self, create: &CreateIndex) -> Result<Option<String>> {
        let catalog = self.lock_catalog().await?;
        let table = catalog.table_by_id(create.table).ok_or_else(table_gone)?;
        if relation_exists(&catalog, &table.schema, &create.name) {
            let message = format!("relation \"{}\" already exists", create.name);
            if create.if_not_exists {
                return Ok(Some(format!("{message}, skipping")));
            }
            return Err(SqlError::duplicate_table(message));
        }
        let txn = self.transaction(false);
        txn.lock_table(table).await?;
        let id = IndexId(table.next_index_id);
        let mut changed = (**table).clone();
        changed.next_index_id += 1;
        changed.indexes.push(Index {
            id,
            name: create.name.clone(),
            oid: txn.allocate_id()?.0,
            columns: create.columns.clone(),
            unique: create.unique,
            constraint: false,
            comment: None,
        });
        txn.put_table(changed)?;
        let catalog = txn.catalog();
        let table = catalog.table_by_id(create.table).ok_or_else(table_gone)?;
        txn.build_index(table, id)?;
        Ok(None)
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
            txn.lock_table(table).await?;
            let mut changed = (**table).clone();
            changed.indexes.retain(|i| i.name != *name);
            txn.put_table(changed)?;
        }
        Ok(())
    }
}

fn column_id(position: usize) -> ColumnId {
    ColumnId(u32::try_from(position).unwrap_or(u32::MAX))
}

fn index_id(position: usize) -> IndexId {
    IndexId(u32::try_from(position).unwrap_or(u32::MAX))
}

/// Tables and indexes share one space of names in a schema.
fn relation_exists(catalog: &Catalog, schema: &str, name: &str) -> bool {
    catalog.table(schema, name).is_some()
        || catalog
            .tables()
            .filter(|t| t.schema == schema)
            .any(|t| t.all_indexes().any(|i| i.name == name && !(t.hidden_key && i.id == IndexId::PRIMARY)))
}

/// Dropped by someone else since the statement was bound.
fn table_gone() -> SqlError {
    SqlError::undefined_table("the table was dropped while the statement ran")
        .with_hint("The statement might succeed, or say more, if run again.")
}

//! New names, and which views read a column. Views know what they read by ids: new names are none of their
//! business.

use std::sync::Arc;

use amphora_storage::schema::{ColumnId, Table, TableId};

use super::super::Session;
use super::super::ddl::{relation_exists, table_gone};
use crate::binder::alter::rename_column_in;
use crate::error::{Result, SqlError};

impl Session {
    pub(super) fn rename_column(&mut self, id: TableId, old: &str, new: &str) -> Result<()> {
        let table = self.altered(id)?;
        let position = table
            .column_position(old)
            .ok_or_else(|| SqlError::undefined_column(format!("column \"{old}\" does not exist")))?;
        if table.column_position(new).is_some() {
            let message = format!("column \"{new}\" of relation \"{}\" already exists", table.name);
            return Err(SqlError::duplicate_column(message));
        }
        let mut changed = (*table).clone();
        changed.columns[position].name = new.to_owned();
        for expression in changed.columns.iter_mut().filter_map(|column| column.generated.as_mut()) {
            *expression = rename_column_in(expression, old, new)?;
        }
        for check in &mut changed.checks {
            check.expression = rename_column_in(&check.expression, old, new)?;
        }
        for index in &mut changed.indexes {
            for expression in &mut index.expressions {
                expression.text = rename_column_in(&expression.text, old, new)?;
            }
            if let Some(predicate) = &mut index.predicate {
                *predicate = rename_column_in(predicate, old, new)?;
            }
        }
        Ok(self.transaction(false).put_table(changed)?)
    }

    pub(super) fn rename_table(&mut self, id: TableId, new: &str) -> Result<()> {
        let table = self.altered(id)?;
        let catalog = self.transaction(false).catalog();
        if relation_exists(&catalog, &table.schema, new) {
            return Err(SqlError::duplicate_table(format!("relation \"{new}\" already exists")));
        }
        let changed = Table { name: new.to_owned(), ..(*table).clone() };
        Ok(self.transaction(false).put_table(changed)?)
    }

    pub(super) fn rename_constraint(&mut self, id: TableId, old: &str, new: &str) -> Result<()> {
        let table = self.altered(id)?;
        let indexes = table.all_indexes().filter(|i| i.constraint).map(|i| i.name.as_str());
        let checks = table.checks.iter().map(|check| check.name.as_str());
        let keys = table.foreign_keys.iter().map(|key| key.name.as_str());
        let names: Vec<&str> = indexes.chain(checks).chain(keys).collect();
        if !names.contains(&old) {
            return Err(SqlError::undefined_object(format!(
                "constraint \"{old}\" for table \"{}\" does not exist",
                table.name
            )));
        }
        let is_index = table.all_indexes().any(|i| i.constraint && i.name == old);
        if is_index {
            return self.rename_index_of(&table, old, new);
        }
        if names.contains(&new) {
            return Err(SqlError::duplicate_object(format!(
                "constraint \"{new}\" for relation \"{}\" already exists",
                table.name
            )));
        }
        let mut changed = (*table).clone();
        let checks = changed.checks.iter_mut().map(|check| &mut check.name);
        let keys = changed.foreign_keys.iter_mut().map(|key| &mut key.name);
        checks.chain(keys).filter(|name| *name == old).for_each(|name| *name = new.to_owned());
        Ok(self.transaction(false).put_table(changed)?)
    }

    fn rename_index_of(&mut self, table: &Arc<Table>, old: &str, new: &str) -> Result<()> {
        let catalog = self.transaction(false).catalog();
        if relation_exists(&catalog, &table.schema, new) {
            return Err(SqlError::duplicate_table(format!("relation \"{new}\" already exists")));
        }
        let mut changed = (**table).clone();
        let indexes = std::iter::once(&mut changed.primary).chain(&mut changed.indexes);
        indexes.filter(|index| index.name == old).for_each(|index| index.name = new.to_owned());
        Ok(self.transaction(false).put_table(changed)?)
    }

    /// ALTER INDEX … RENAME TO
    pub(in crate::session) async fn rename_index(
        &mut self,
        table: TableId,
        old: &str,
        new: &str,
    ) -> Result<()> {
        let catalog = self.lock_catalog().await?;
        let table = catalog.table_by_id(table).ok_or_else(table_gone)?;
        if table.is_strong() {
            self.transaction(false).lock_table(table).await?;
        }
        self.rename_index_of(table, old, new)
    }

    /// The views that cannot do without a column: those whose query is none when the column is not there.
    pub(super) fn views_reading(&mut self, table: &Table, column: &str) -> Result<Vec<(TableId, String)>> {
        let catalog = self.transaction(false).catalog();
        let views: Vec<_> =
            catalog.views().filter(|view| view.relations.iter().any(|r| r.id == table.id)).cloned().collect();
        if views.is_empty() {
            return Ok(Vec::new());
        }
        let mut without = table.clone();
        let hidden = without.columns.iter_mut().filter(|c| c.name == column);
        // No column has this id yet.
        let none = ColumnId(table.next_column_id);
        hidden.for_each(|c| c.id = none);
        let mut trial = (*catalog).clone();
        trial.put(Arc::new(without));
        let (_, planner) = self.planner(&Arc::new(trial));
        let mut reading = Vec::new();
        for view in views {
            if crate::binder::view_is_broken(&view, &planner) {
                reading.push((view.id, view.name.clone()));
            }
        }
        Ok(reading)
    }
}

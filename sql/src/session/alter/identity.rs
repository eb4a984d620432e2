//! Columns that number themselves: ADD GENERATED … AS IDENTITY, SET GENERATED, the options of the sequence, and
//! DROP IDENTITY. Stored generated columns lose their expression here too.

use amphora_storage::schema::Index;
use std::sync::Arc;

use amphora_storage::schema::{Identity, Sequence, Table, TableId};
use sqlparser::ast;

use super::super::{Notice, Session};
use crate::binder::alter::{changed_sequence, new_identity};
use crate::error::{Result, SqlError};
use crate::index::columns_read;
use crate::parser::{ColumnAction, SequenceOption};

impl Session {
    pub(super) async fn add_identity(
        &mut self,
        table: &Arc<Table>,
        position: usize,
        kind: Identity,
        options: &[ast::SequenceOptions],
    ) -> Result<()> {
        let new = new_identity(&self.altered_planner(), table, position, options)?;
        let column = &table.columns[position];
        let refused = |what: &str| {
            SqlError::object_not_in_prerequisite_state(format!(
                "column \"{}\" of relation \"{}\" {what}",
                column.name, table.name
            ))
        };
        if !column.not_null {
            return Err(refused("must be declared NOT NULL before identity can be added"));
        }
        if column.identity.is_some() {
            return Err(refused("is already an identity column"));
        }
        if column.default.is_some() || column.generated.is_some() {
            return Err(refused("already has a default value"));
        }
        let default = match &new.sequence {
            Some(sequence) => {
                let names = (table.schema.as_str(), table.name.as_str());
                let owner = (table.id, column.id);
                Some(self.create_owned_sequence(names, &column.name, owner, sequence).await?)
            }
            None => new.default,
        };
        let mut changed = (**table).clone();
        changed.columns[position].default = default;
        changed.columns[position].identity = Some(kind);
        Ok(self.transaction(false).put_table(changed)?)
    }

    pub(super) async fn column_action(
        &mut self,
        id: TableId,
        name: &str,
        action: &ColumnAction,
    ) -> Result<Option<Notice>> {
        let table = self.altered(id)?;
        let position = table.column_position(name).ok_or_else(|| super::no_column(&table, name))?;
        let column = &table.columns[position];
        let not = |what: &str| format!("column \"{name}\" of relation \"{}\" is not {what}", table.name);
        let skipped = |message: String, if_exists: bool| match if_exists {
            true => Ok(Some(Notice::plain(format!("{message}, skipping")))),
            false => Err(SqlError::object_not_in_prerequisite_state(message)),
        };
        match action {
            ColumnAction::Options(options) => {
                let mut changed = (*table).clone();
                changed.columns[position].conflict =
                    super::conflict::conflict_policy(&table, position, options)?;
                // What the column reads as may be another value now.
                let reads = |index: &Index| columns_read(&table, index).contains(&position);
                changed.renew_indexes(reads);
                self.transaction(false).put_table(changed)?;
            }
            ColumnAction::DropExpression { if_exists } if column.generated.is_none() => {
                return skipped(not("a stored generated column"), *if_exists);
            }
            ColumnAction::DropExpression { .. } => {
                let mut changed = (*table).clone();
                changed.columns[position].generated = None;
                self.transaction(false).put_table(changed)?;
            }
            ColumnAction::DropIdentity { if_exists } if column.identity.is_none() => {
                return skipped(not("an identity column"), *if_exists);
            }
            ColumnAction::DropIdentity { .. } => {
                let mut changed = (*table).clone();
                changed.columns[position].identity = None;
                changed.columns[position].default = None;
                let sequence = self.identity_sequence(&table, position).map(|s| s.id);
                let txn = self.transaction(false);
                txn.put_table(changed)?;
                if let Some(sequence) = sequence {
                    txn.write_sequence(sequence, None).await?;
                    txn.drop_object(sequence)?;
                }
            }
            ColumnAction::Identity { .. } if column.identity.is_none() => {
                return Err(SqlError::object_not_in_prerequisite_state(not("an identity column")));
            }
            ColumnAction::Identity { generated, options } => {
                self.change_identity(&table, position, *generated, options).await?;
            }
        }
        Ok(None)
    }

    async fn change_identity(
        &mut self,
        table: &Arc<Table>,
        position: usize,
        generated: Option<Identity>,
        options: &[SequenceOption],
    ) -> Result<()> {
        if !options.is_empty() {
            let options = changed_sequence(&self.altered_planner(), options)?;
            let Some(sequence) = self.identity_sequence(table, position) else {
                return Err(SqlError::feature_not_supported(
                    "the identity column of a leaderless table has no sequence",
                )
                .with_hint("Its numbers are made of the node's id and time; there is nothing to set."));
            };
            let catalog = self.transaction(false).catalog();
            self.alter_sequence(&catalog, sequence.id, &options).await?;
        }
        if generated.is_some() {
            let mut changed = (*self.altered(table.id)?).clone();
            changed.columns[position].identity = generated;
            self.transaction(false).put_table(changed)?;
        }
        Ok(())
    }

    /// The sequence that belongs to a column.
    fn identity_sequence(&mut self, table: &Table, position: usize) -> Option<Arc<Sequence>> {
        let owner = (table.id, table.columns.get(position)?.id);
        let catalog = self.transaction(false).catalog();
        catalog.sequences().find(|sequence| sequence.owned_by == Some(owner)).cloned()
    }
}

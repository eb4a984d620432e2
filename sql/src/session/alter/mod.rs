//! ALTER TABLE, carried out.
//!
//! The table is locked first, so that its writers are done and no new ones begin, and then the actions are
//! done one after the other, each on the descriptor that the last one left in the transaction's catalog.
//! Most change the descriptor and nothing else:
//!
//! ```text
//!   ADD COLUMN, constant default     rows that lack the column read as `Column::missing`
//!   DROP COLUMN                      its id is never used again, and what rows hold for it is not read
//!   integer → bigint, varchar → text old values read in the new type (storage/src/row)
//! ```
//!
//! What cannot be told by the descriptor writes the rows anew ([`rewrite`]). All of it is rows of one
//! transaction: a rollback, a savepoint or a crash leaves the table as it was. Statements of other sessions
//! that were planned before are refused at their commit, because the descriptor moved, and planned again.

mod column;
mod conflict;
mod constraint;
mod identity;
mod rename;
mod rewrite;

use std::sync::Arc;

use amphora_storage::schema::{Identity, Table, TableId};
use sqlparser::ast::{self, AlterColumnOperation, AlterTableOperation, RenameTableNameKind};

use super::ddl::table_gone;
use super::{Notice, Output, Session};
use crate::binder::fold;
use crate::command::AlterTable;
use crate::error::{Result, SqlError};
use crate::frontend::PlannerContext;
use crate::parser::TableAction;

impl Session {
    pub(super) async fn alter_table(&mut self, alter: &AlterTable, out: &mut dyn Output) -> Result<()> {
        let catalog = self.lock_catalog().await?;
        let table = catalog.table_by_id(alter.table).ok_or_else(table_gone)?;
        if table.is_strong() {
            self.transaction(false).lock_table(table).await?;
        }
        for action in &alter.actions {
            let notice = match action {
                TableAction::Parsed(operation) => self.alter(alter.table, operation, out).await?,
                TableAction::Column(name, action) => {
                    self.column_action(alter.table, &fold(name), action).await?
                }
            };
            if let Some(notice) = notice {
                out.notice(notice);
            }
        }
        Ok(())
    }

    /// The table as the actions so far have left it.
    fn altered(&mut self, id: TableId) -> Result<Arc<Table>> {
        let catalog = self.transaction(false).catalog();
        catalog.table_by_id(id).cloned().ok_or_else(table_gone)
    }

    fn altered_planner(&mut self) -> PlannerContext {
        let catalog = self.transaction(false).catalog();
        self.planner(&catalog).1
    }

    async fn alter(
        &mut self,
        id: TableId,
        operation: &AlterTableOperation,
        out: &mut dyn Output,
    ) -> Result<Option<Notice>> {
        use AlterTableOperation as Op;
        let cascades = |behavior: &Option<ast::DropBehavior>| *behavior == Some(ast::DropBehavior::Cascade);
        match operation {
            Op::AddColumn { if_not_exists, column_def, .. } => {
                self.add_column(id, column_def, *if_not_exists, out).await
            }
            Op::DropColumn { column_names, if_exists, drop_behavior, .. } => {
                for name in column_names {
                    let dropped =
                        self.drop_column(id, &fold(name), *if_exists, cascades(drop_behavior)).await?;
                    dropped.into_iter().for_each(|notice| out.notice(notice));
                }
                Ok(None)
            }
            Op::RenameColumn { old_column_name, new_column_name } => {
                self.rename_column(id, &fold(old_column_name), &fold(new_column_name)).map(|()| None)
            }
            Op::RenameTable { table_name: RenameTableNameKind::To(name) | RenameTableNameKind::As(name) } => {
                let parts = crate::binder::name_parts(name)?;
                let [new] = &parts[..] else {
                    return Err(SqlError::syntax_error("a table keeps its schema"));
                };
                self.rename_table(id, &fold(new)).map(|()| None)
            }
            Op::RenameConstraint { old_name, new_name } => {
                self.rename_constraint(id, &fold(old_name), &fold(new_name)).map(|()| None)
            }
            Op::AlterColumn { column_name, op } => {
                self.alter_column(id, &fold(column_name), op).await.map(|()| None)
            }
            Op::AddConstraint { constraint, not_valid } => {
                self.add_constraint(id, constraint, *not_valid, out).await.map(|()| None)
            }
            Op::DropConstraint { if_exists, name, drop_behavior } => {
                self.drop_constraint(id, &fold(name), *if_exists, cascades(drop_behavior)).await
            }
            Op::ValidateConstraint { name } => self.validate_constraint(id, &fold(name)).await.map(|()| None),
            Op::OwnerTo { new_owner } => self.change_owner(id, new_owner).map(|()| None),
            Op::SetOptionsParens { options } => self.set_table_options(id, options).map(|()| None),
            // Tables are always logged.
            Op::SetLogged => Ok(None),
            other => Err(SqlError::feature_not_supported(format!("ALTER TABLE … {other} is not supported"))),
        }
    }

    async fn alter_column(&mut self, id: TableId, name: &str, op: &AlterColumnOperation) -> Result<()> {
        let table = self.altered(id)?;
        let position = table.column_position(name).ok_or_else(|| no_column(&table, name))?;
        match op {
            AlterColumnOperation::SetNotNull => self.set_not_null(&table, position),
            AlterColumnOperation::DropNotNull => self.drop_not_null(&table, position),
            AlterColumnOperation::SetDefault { value } => self.set_default(&table, position, value),
            AlterColumnOperation::DropDefault => self.drop_default(&table, position),
            AlterColumnOperation::SetDataType { data_type, using, .. } => {
                self.change_type(&table, position, data_type, using.as_ref())
            }
            AlterColumnOperation::AddGenerated { generated_as, sequence_options, .. } => {
                let kind = match generated_as {
                    Some(ast::GeneratedAs::Always) => Identity::Always,
                    _ => Identity::ByDefault,
                };
                let options = sequence_options.as_deref().unwrap_or_default();
                self.add_identity(&table, position, kind, options).await
            }
        }
    }

    fn change_owner(&mut self, id: TableId, owner: &ast::Owner) -> Result<()> {
        let name = match owner {
            ast::Owner::Ident(ident) => fold(ident),
            _ => self.shared.user.to_string(),
        };
        let table = self.altered(id)?;
        let catalog = self.transaction(false).catalog();
        if crate::catalog::find_role(&catalog, &name).is_none() {
            return Err(SqlError::undefined_object(format!("role \"{name}\" does not exist")));
        }
        let changed = Table { owner: name, ..(*table).clone() };
        Ok(self.transaction(false).put_table(changed)?)
    }

    fn set_table_options(&mut self, id: TableId, options: &[ast::SqlOption]) -> Result<()> {
        let table = self.altered(id)?;
        let (write_quorum, read_quorum) = crate::binder::changed_options(&table, options)?;
        let changed = Table { write_quorum, read_quorum, ..(*table).clone() };
        Ok(self.transaction(false).put_table(changed)?)
    }
}

/// 42703
fn no_column(table: &Table, name: &str) -> SqlError {
    SqlError::undefined_column(format!("column \"{name}\" of relation \"{}\" does not exist", table.name))
}

/// 42704
fn no_constraint(table: &Table, name: &str) -> SqlError {
    let message = format!("constraint \"{name}\" of relation \"{}\" does not exist", table.name);
    SqlError::undefined_object(message)
}

//! FOREIGN KEY, in CREATE TABLE and ALTER TABLE: what refers to what, and whether it can.

use std::sync::Arc;

use amphora_storage::DataType;
use amphora_storage::schema::{ColumnId, ForeignKey, Index, IndexId, ReferentialAction, Replication, Table};
use sqlparser::ast;
use sqlparser::ast::{ConstraintReferenceMatchKind, DeferrableInitial};

use super::coerce::type_name;
use super::from::Found;
use super::{Binder, fold, name_parts};
use crate::error::{Result, SqlError};

/// When a constraint is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timing {
    pub(super) deferrable: bool,
    pub(super) deferred: bool,
}

impl Binder<'_> {
    /// A foreign key of `child`. Its OID is given when it is made; a parent that is the child itself, which
    /// may not have an id yet, has the child's.
    ///
    /// Errors: 42P01, 42703, 42704, 42830 for what is referred to; 42804 for types that do not fit; 0A000
    /// for leaderless tables.
    pub(super) fn foreign_key(
        &mut self,
        child: &Arc<Table>,
        key: &ast::ForeignKeyConstraint,
        columns: &[String],
        name: impl FnOnce(&[&str]) -> String,
    ) -> Result<ForeignKey> {
        let parent = self.parent(child, &key.foreign_table)?;
        if child.replication == Replication::Leaderless || parent.replication == Replication::Leaderless {
            return Err(on_leaderless());
        }
        let columns = key_columns(child, columns)?;
        let (index, order) = match &key.referred_columns[..] {
            [] => {
                if parent.hidden_key || parent.primary.columns.is_empty() {
                    let message = format!("there is no primary key for referenced table \"{}\"", parent.name);
                    return Err(SqlError::undefined_object(message));
                }
                (&parent.primary, parent.primary.columns.clone())
            }
            names => {
                let names: Vec<String> = names.iter().map(fold).collect();
                let order = key_columns(&parent, &names)?;
                if order.len() != columns.len() {
                    return Err(disagree());
                }
                let index = unique_index(&parent, &order).ok_or_else(|| {
                    SqlError::invalid_foreign_key(format!(
                        "there is no unique constraint matching given keys for referenced table \"{}\"",
                        parent.name
                    ))
                })?;
                (index, order)
            }
        };
        debug_assert!(index.unique);
        if order.len() != columns.len() {
            return Err(disagree());
        }
        let names: Vec<&str> = columns.iter().map(|&c| child.columns[c].name.as_str()).collect();
        let name = match &key.name {
            Some(name) => fold(name),
            None => name(&names),
        };
        for (&own, &other) in columns.iter().zip(&order) {
            check_types(&name, (child, own), (&parent, other))?;
        }
        let timing = timing(key.characteristics.as_ref())?;
        let match_full = match &key.match_kind {
            None | Some(ConstraintReferenceMatchKind::Simple) => false,
            Some(ConstraintReferenceMatchKind::Full) => true,
            Some(ConstraintReferenceMatchKind::Partial) => {
                return Err(SqlError::feature_not_supported("MATCH PARTIAL not yet implemented"));
            }
        };
        let ids = |table: &Table, positions: &[usize]| -> Vec<ColumnId> {
            positions.iter().map(|&c| table.columns[c].id).collect()
        };
        Ok(ForeignKey {
            name,
            oid: 0,
            columns: ids(child, &columns),
            parent: parent.id,
            parent_columns: ids(&parent, &order),
            on_delete: action(key.on_delete.as_ref()),
            on_update: action(key.on_update.as_ref()),
            match_full,
            deferrable: timing.deferrable,
            deferred: timing.deferred,
            validated: true,
            comment: None,
        })
    }

    /// The table that is referred to: the child itself, if it is about to be made under that name.
    fn parent(&mut self, child: &Arc<Table>, name: &ast::ObjectName) -> Result<Arc<Table>> {
        let parts = name_parts(name)?;
        let own = match &parts[..] {
            [last] => fold(last) == child.name,
            [.., schema, last] => fold(schema) == child.schema && fold(last) == child.name,
            [] => false,
        };
        if own {
            return Ok(child.clone());
        }
        let found = self.find_relation(name).map_err(|mut error| {
            error.position = None;
            error
        });
        match found? {
            Found::Table(table) => {
                self.use_table(&table);
                Ok(table)
            }
            #[allow(unreachable_patterns)]
            _ => Err(SqlError::wrong_object_type(format!(
                "referenced relation \"{}\" is not a table",
                parts.last().map(|p| fold(p)).unwrap_or_default()
            ))),
        }
    }
}

/// The unique index over exactly these columns, in whatever order; constraints' before others'.
fn unique_index<'a>(table: &'a Table, columns: &[usize]) -> Option<&'a Index> {
    let mut wanted = columns.to_vec();
    wanted.sort_unstable();
    let fits = |index: &&Index| {
        let mut own = index.columns.clone();
        own.sort_unstable();
        index.is_key() && own == wanted && !(table.hidden_key && index.id == IndexId::PRIMARY)
    };
    table.all_indexes().filter(fits).max_by_key(|index| index.constraint)
}

fn key_columns(table: &Table, names: &[String]) -> Result<Vec<usize>> {
    names
        .iter()
        .map(|name| {
            table.column_position(name).ok_or_else(|| {
                SqlError::undefined_column(format!(
                    "column \"{name}\" referenced in foreign key constraint does not exist"
                ))
            })
        })
        .collect()
}

/// Values of both columns must be equal exactly where their keys are.
fn check_types(name: &str, child: (&Table, usize), parent: (&Table, usize)) -> Result<()> {
    let (own, other) = (&child.0.columns[child.1], &parent.0.columns[parent.1]);
    let kind = |ty: &DataType| match ty.base() {
        DataType::Int2 | DataType::Int4 | DataType::Int8 => 20,
        DataType::Float4 | DataType::Float8 => 701,
        DataType::Text | DataType::Varchar(_) | DataType::Name => 25,
        other => other.oid(),
    };
    if kind(&own.ty) == kind(&other.ty) {
        return Ok(());
    }
    let error =
        SqlError::datatype_mismatch(format!("foreign key constraint \"{name}\" cannot be implemented"));
    let columns = format!("Key columns \"{}\" and \"{}\" are of", own.name, other.name);
    let types = format!("{} and {}", type_name(&own.ty.base()), type_name(&other.ty.base()));
    if own.ty.base().is_numeric() && other.ty.base().is_numeric() {
        return Err(SqlError::feature_not_supported(error.message.clone())
            .with_detail(format!("{columns} different types: {types}."))
            .with_hint("Give both columns the same type."));
    }
    Err(error.with_detail(format!("{columns} incompatible types: {types}.")))
}

fn action(action: Option<&ast::ReferentialAction>) -> ReferentialAction {
    match action {
        None | Some(ast::ReferentialAction::NoAction) => ReferentialAction::NoAction,
        Some(ast::ReferentialAction::Restrict) => ReferentialAction::Restrict,
        Some(ast::ReferentialAction::Cascade) => ReferentialAction::Cascade,
        Some(ast::ReferentialAction::SetNull) => ReferentialAction::SetNull,
        Some(ast::ReferentialAction::SetDefault) => ReferentialAction::SetDefault,
    }
}

/// DEFERRABLE and INITIALLY.
pub(super) fn timing(characteristics: Option<&ast::ConstraintCharacteristics>) -> Result<Timing> {
    let Some(given) = characteristics else { return Ok(Timing::default()) };
    if given.enforced == Some(false) {
        return Err(SqlError::feature_not_supported("NOT ENFORCED is not supported"));
    }
    let deferred = given.initially == Some(DeferrableInitial::Deferred);
    if deferred && given.deferrable == Some(false) {
        return Err(SqlError::syntax_error("constraint declared INITIALLY DEFERRED must be DEFERRABLE"));
    }
    Ok(Timing { deferrable: given.deferrable.unwrap_or(deferred), deferred })
}

fn disagree() -> SqlError {
    SqlError::invalid_foreign_key("number of referencing and referenced columns for foreign key disagree")
}

fn on_leaderless() -> SqlError {
    SqlError::feature_not_supported("foreign keys are not supported on leaderless tables").with_hint(
        "A referenced row may be deleted on another node at the same moment; make both tables strong (replication = 'strong').",
    )
}

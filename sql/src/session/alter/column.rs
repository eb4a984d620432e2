//! Columns that come, go and change.

use std::collections::BTreeSet;
use std::sync::Arc;

use amphora_storage::schema::{Column, ColumnId, Index, IndexId, Table, TableId};
use amphora_storage::{DataType, Datum};
use sqlparser::ast;

use super::super::ddl::{cascades_to, still_needed};
use super::super::{Notice, Output, Session};
use super::no_column;
use super::rewrite::{Verify, copy_columns};
use crate::binder::alter::{Addition, additions, conversion, new_default};
use crate::binder::{columns_of, is_constrained, stored_expressions};
use crate::catalog::referenced_index;
use crate::dependency::{Names, Object, plan_drop};
use crate::error::{Result, SqlError};
use crate::executor::constants;
use crate::expr::Expr;
use crate::index::{columns_computed, columns_read};
use crate::optimizer::is_volatile;
use crate::plan::Rule;

impl Session {
    pub(super) async fn add_column(
        &mut self,
        id: TableId,
        definition: &ast::ColumnDef,
        if_not_exists: bool,
        out: &mut dyn Output,
    ) -> Result<Option<Notice>> {
        let table = self.altered(id)?;
        let name = crate::binder::fold(&definition.name);
        if table.column_position(&name).is_some() {
            let message = format!("column \"{name}\" of relation \"{}\" already exists", table.name);
            if if_not_exists {
                let sqlstate = "42701";
                return Ok(Some(Notice { sqlstate, ..Notice::plain(format!("{message}, skipping")) }));
            }
            return Err(SqlError::duplicate_column(message));
        }
        let mut planner = self.altered_planner();
        let mut added = additions(&planner, &table, &Addition::Column(definition))?;
        added.notices.drain(..).for_each(|notice| out.notice(Notice::plain(notice)));
        let Some(new) = added.column.take() else {
            return Err(SqlError::internal("ADD COLUMN without a column"));
        };
        let column = ColumnId(table.next_column_id);
        let mut new = new;
        if let Some(sequence) = &new.sequence {
            let names = (table.schema.as_str(), table.name.as_str());
            new.default = Some(self.create_owned_sequence(names, &new.name, (id, column), sequence).await?);
            planner = self.altered_planner();
        }
        let place = table.visible_columns().len();
        let mut changed = (*table).clone();
        changed.columns.insert(
            place,
            Column {
                // A key is looked at when its constraint is added.
                not_null: new.not_null && added.primary_key.is_none(),
                default: new.default.clone(),
                identity: new.identity,
                generated: new.generated.clone(),
                ..Column::new(column, new.name.clone(), new.ty.clone())
            },
        );
        changed.next_column_id += 1;
        for index in std::iter::once(&mut changed.primary).chain(&mut changed.indexes) {
            index.move_columns(|c| if c >= place { c + 1 } else { c });
        }
        let changed = Arc::new(changed);
        let stored = stored_expressions(&planner, &changed, &[place])?;
        let computed = stored.checks.into_iter().find(|(rule, _)| *rule == Rule::Generated(place));
        let mut defaults = stored.defaults;
        let default = computed.map(|(_, e)| e).or_else(|| defaults.pop());
        let default = default.unwrap_or(Expr::Literal(Datum::Null, new.ty.base()));
        let mut final_table = (*changed).clone();
        if !table.is_strong() {
            // Nodes that do not know of the column yet go on writing rows without it.
            let fixed = !is_volatile(&default) && new.generated.is_none() && !is_constrained(&new.ty);
            let plain = !matches!(new.ty, DataType::Crdt(_));
            if (new.default.is_some() || new.not_null) && !(fixed && plain) {
                return Err(SqlError::feature_not_supported(format!(
                    "column \"{}\" cannot be added to a leaderless table with this default, nor NOT NULL",
                    new.name
                ))
                .with_hint("A row written by a node that has not heard of it must read the same everywhere: give an ordinary column a constant, or add it without, then ALTER COLUMN … SET DEFAULT."));
            }
            let run = self.runtime(&Arc::from([]), None);
            let value = constants(&[default], &run, self.transaction(false).as_ref())?.pop();
            let missing = value.unwrap_or(Datum::Null);
            if new.not_null && missing.is_null() {
                return Err(SqlError::feature_not_supported(format!(
                    "column \"{}\" cannot be added to a leaderless table NOT NULL without a default",
                    new.name
                ))
                .with_hint("Give it a DEFAULT: what rows of nodes that have not heard of the column read."));
            }
            final_table.columns[place].missing = missing;
            self.transaction(false).put_table(final_table)?;
        } else if is_volatile(&default) || new.generated.is_some() || is_constrained(&new.ty) {
            let mut values = copy_columns(&table, &changed);
            values[place] = default;
            self.rewrite(&table, final_table, &values)?;
        } else {
            let run = self.runtime(&Arc::from([]), None);
            let value = constants(&[default], &run, self.transaction(false).as_ref())?.pop();
            final_table.columns[place].missing = value.unwrap_or(Datum::Null);
            self.transaction(false).put_table(final_table)?;
        }
        let table = self.altered(id)?;
        let not_null: Vec<usize> = table.columns[place].not_null.then_some(place).into_iter().collect();
        self.verify(&table, &Verify { not_null, ..Verify::default() })?;
        self.add_constraints(id, added, true).await?;
        Ok(None)
    }

    pub(in crate::session) async fn drop_column(
        &mut self,
        id: TableId,
        name: &str,
        if_exists: bool,
        cascade: bool,
    ) -> Result<Vec<Notice>> {
        let table = self.altered(id)?;
        let Some(position) = table.column_position(name) else {
            let error = no_column(&table, name);
            if if_exists {
                return Ok(vec![Notice::plain(format!("{}, skipping", error.message))]);
            }
            return Err(error);
        };
        let catalog = self.transaction(false).catalog();
        let column = table.columns[position].id;
        // Others' foreign keys that refer to it, and views that read it.
        let mut needed_by = Vec::new();
        let mut keys = Vec::new();
        for (child, key) in catalog.referencing(id) {
            if key.parent_columns.contains(&column) && !(child.id == id && key.columns.contains(&column)) {
                needed_by.push(format!("constraint {} on table {}", key.name, child.name));
                keys.push((child.id, key.name.clone()));
            }
        }
        let reads = |c: &Column| {
            let expression = c.generated.as_ref().filter(|_| c.id != column);
            expression.is_some_and(|e| columns_of(&table, e).contains(&position))
        };
        let computed: Vec<String> =
            table.visible_columns().iter().filter(|c| reads(c)).map(|c| c.name.clone()).collect();
        needed_by.extend(computed.iter().map(|c| format!("column {c} of table {}", table.name)));
        let views = self.views_reading(&table, name)?;
        needed_by.extend(views.iter().map(|(_, view)| format!("view {view}")));
        if !cascade && !needed_by.is_empty() {
            let what = format!("column {name} of table {}", table.name);
            let lines = needed_by.iter().map(|who| format!("{who} depends on {what}")).collect();
            return Err(still_needed(&what, lines));
        }
        for (child, key) in keys {
            self.drop_foreign_key(child, &key).await?;
        }
        if !views.is_empty() {
            let catalog = self.transaction(false).catalog();
            let views: Vec<Object> = views.iter().map(|(view, _)| Object::Relation(*view)).collect();
            let path = self.search_path(&catalog);
            let plan = plan_drop(&Names { catalog: &catalog, search_path: &path }, &views, cascade)?;
            self.drop_objects(&plan).await?;
        }
        for other in &computed {
            Box::pin(self.drop_column(id, other, true, true)).await?;
        }
        let mut table = self.altered(id)?;
        let position = table.columns.iter().position(|c| c.id == column).unwrap_or(position);
        if !table.hidden_key && table.primary.columns.contains(&position) {
            if !table.is_strong() {
                return Err(SqlError::feature_not_supported(
                    "a column of a leaderless table's primary key cannot be dropped",
                )
                .with_hint("Create the table anew with the key it should have."));
            }
            self.drop_primary_key(&table)?;
            table = self.altered(id)?;
        }
        let mut changed = (*table).clone();
        changed.columns.remove(position);
        changed.indexes.retain(|index| !columns_read(&table, index).contains(&position));
        // INCLUDE of a key that is the rows themselves is but a list of names.
        changed.primary.include.retain(|c| *c != position);
        changed.foreign_keys.retain(|key| !key.columns.contains(&column));
        changed.checks.retain(|check| !columns_of(&table, &check.expression).contains(&position));
        for index in std::iter::once(&mut changed.primary).chain(&mut changed.indexes) {
            index.move_columns(|c| if c > position { c - 1 } else { c });
        }
        let txn = self.transaction(false);
        txn.put_table(changed)?;
        let catalog = txn.catalog();
        let owned = catalog.sequences().filter(|sequence| sequence.owned_by == Some((id, column)));
        for sequence in owned {
            txn.write_sequence(sequence.id, None).await?;
            txn.drop_object(sequence.id)?;
        }
        Ok(cascades_to(needed_by).into_iter().collect())
    }

    pub(super) fn set_not_null(&mut self, table: &Arc<Table>, position: usize) -> Result<()> {
        if !table.is_strong() {
            return Err(SqlError::feature_not_supported(
                "SET NOT NULL is not supported on leaderless tables",
            )
            .with_hint(
                "Another node may be writing a NULL at the same moment. Declare it when the column is made, or ADD CHECK (… IS NOT NULL).",
            ));
        }
        self.verify(table, &Verify { not_null: vec![position], ..Verify::default() })?;
        let mut changed = (**table).clone();
        changed.columns[position].not_null = true;
        Ok(self.transaction(false).put_table(changed)?)
    }

    pub(super) fn drop_not_null(&mut self, table: &Arc<Table>, position: usize) -> Result<()> {
        let mut changed = (**table).clone();
        let column = &mut changed.columns[position];
        if !table.hidden_key && table.primary.columns.contains(&position) {
            let message = format!("column \"{}\" is in a primary key", column.name);
            return Err(SqlError::invalid_table_definition(message));
        }
        if column.identity.is_some() {
            let message =
                format!("column \"{}\" of relation \"{}\" is an identity column", column.name, table.name);
            return Err(SqlError::syntax_error(message));
        }
        column.not_null = false;
        Ok(self.transaction(false).put_table(changed)?)
    }

    /// 42601: what is computed has no default.
    fn check_not_generated(table: &Table, column: &Column) -> Result<()> {
        if column.generated.is_none() {
            return Ok(());
        }
        let message =
            format!("column \"{}\" of relation \"{}\" is a generated column", column.name, table.name);
        Err(SqlError::syntax_error(message))
    }

    pub(super) fn set_default(
        &mut self,
        table: &Arc<Table>,
        position: usize,
        value: &ast::Expr,
    ) -> Result<()> {
        let mut changed = (**table).clone();
        let column = &mut changed.columns[position];
        if column.identity.is_some() {
            let message =
                format!("column \"{}\" of relation \"{}\" is an identity column", column.name, table.name);
            return Err(SqlError::syntax_error(message));
        }
        Self::check_not_generated(table, column)?;
        let null = matches!(value, ast::Expr::Value(v) if v.value == ast::Value::Null);
        column.default = match null {
            true => None,
            false => Some(new_default(&self.altered_planner(), table, position, value)?),
        };
        Ok(self.transaction(false).put_table(changed)?)
    }

    pub(super) fn drop_default(&mut self, table: &Arc<Table>, position: usize) -> Result<()> {
        let mut changed = (**table).clone();
        let column = &mut changed.columns[position];
        if column.identity.is_some() {
            let message =
                format!("column \"{}\" of relation \"{}\" is an identity column", column.name, table.name);
            return Err(SqlError::syntax_error(message)
                .with_hint("Use ALTER TABLE ... ALTER COLUMN ... DROP IDENTITY instead."));
        }
        Self::check_not_generated(table, column).map_err(|error| {
            error.with_hint("Use ALTER TABLE ... ALTER COLUMN ... DROP EXPRESSION instead.")
        })?;
        column.default = None;
        Ok(self.transaction(false).put_table(changed)?)
    }

    pub(super) fn change_type(
        &mut self,
        table: &Arc<Table>,
        position: usize,
        to: &ast::DataType,
        using: Option<&ast::Expr>,
    ) -> Result<()> {
        let planner = self.altered_planner();
        let column = &table.columns[position];
        let new = conversion(&planner, table, position, to, using)?;
        if !table.is_strong() {
            return Err(SqlError::feature_not_supported(
                "the type of a leaderless table's column cannot be changed",
            )
            .with_hint("Add a column of the new type, fill it, and drop this one."));
        }
        if let Some((_, view)) = self.views_reading(table, &column.name)?.into_iter().next() {
            return Err(SqlError::feature_not_supported(
                "cannot alter type of a column used by a view or rule",
            )
            .with_detail(format!("rule _RETURN on view {view} depends on column \"{}\"", column.name)));
        }
        let reads =
            |c: &&Column| c.generated.as_ref().is_some_and(|e| columns_of(table, e).contains(&position));
        if let Some(computed) = table.columns.iter().find(reads) {
            return Err(SqlError::feature_not_supported(
                "cannot alter type of a column used by a generated column",
            )
            .with_detail(format!(
                "Column \"{}\" is used by generated column \"{}\".",
                column.name, computed.name
            )));
        }
        let mut changed = (**table).clone();
        changed.columns[position].ty = new.ty.clone();
        if let Some(default) = &column.default {
            let mut plain = (**table).clone();
            plain.columns[position].ty = new.ty.clone();
            let bound = stored_expressions(&planner, &Arc::new(plain), &[position]);
            bound.map_err(|_| {
                SqlError::datatype_mismatch(format!(
                    "default for column \"{}\" cannot be cast automatically to type {}",
                    column.name,
                    new.ty.base()
                ))
            })?;
            // A plain string's own type is part of what is kept.
            let was = format!("::{}", column.ty.base().unmodified());
            if let Some(value) = default.strip_suffix(&was).filter(|value| value.starts_with('\'')) {
                changed.columns[position].default = Some(format!("{value}::{}", new.ty.base().unmodified()));
            }
        }
        let in_key = table.foreign_keys.iter().any(|key| key.columns.contains(&column.id));
        let catalog = self.transaction(false).catalog();
        let referred =
            catalog.referencing(table.id).iter().any(|(_, key)| key.parent_columns.contains(&column.id));
        if (in_key || referred) && !same_key(&column.ty, &new.ty) {
            return Err(SqlError::feature_not_supported(format!(
                "the type of column \"{}\", which takes part in a foreign key, cannot be changed",
                column.name
            ))
            .with_hint("Drop the constraint, change both columns, and add it again."));
        }
        if table.all_indexes().any(|i| i.columns.contains(&position)) {
            crate::binder::check_key_type(&new.ty, &column.name)?;
        }
        let computed = table.indexes.iter().any(|i| columns_computed(table, i).contains(&position));
        if computed {
            retype_expressions(&mut changed)?;
        }
        if using.is_none() && !computed && is_safe(&column.ty, &new.ty) {
            let value = changed.columns[position].missing.clone();
            changed.columns[position].missing = widened(value, &new.ty);
            return Ok(self.transaction(false).put_table(changed)?);
        }
        let mut values = copy_columns(table, &changed);
        values[position] = new.value;
        // What is missing is filled in by now.
        changed.columns[position].missing = Datum::Null;
        let not_null = changed.columns[position].not_null.then_some(position).into_iter().collect();
        self.rewrite(table, changed, &values)?;
        let table = self.altered(table.id)?;
        let checks: BTreeSet<String> = table
            .checks
            .iter()
            .filter(|check| columns_of(&table, &check.expression).contains(&position))
            .map(|check| check.name.clone())
            .collect();
        self.verify(&table, &Verify { not_null, checks })
    }

    /// Writes the rows anew under a hidden key.
    pub(super) fn drop_primary_key(&mut self, table: &Arc<Table>) -> Result<()> {
        debug_assert!(!table.hidden_key);
        let mut changed = (**table).clone();
        changed.columns.push(Column {
            not_null: true,
            ..Column::new(ColumnId(table.next_column_id), super::super::ddl::HIDDEN_KEY, DataType::Int8)
        });
        changed.next_column_id += 1;
        changed.hidden_key = true;
        changed.primary.name = format!("{}_{}", table.name, super::super::ddl::HIDDEN_KEY);
        let (name, oid) = (changed.primary.name.clone(), changed.primary.oid);
        let columns = vec![changed.columns.len() - 1];
        changed.primary = Index { unique: true, ..Index::new(IndexId::PRIMARY, name, oid, columns) };
        let values = copy_columns(table, &changed);
        self.rewrite(table, changed, &values)
    }

    /// Foreign keys that refer to an index of a table: the tables that have them, and their names.
    pub(super) fn keys_on_index(
        &mut self,
        table: &Arc<Table>,
        index: &Index,
    ) -> Vec<(TableId, String, String)> {
        let catalog = self.transaction(false).catalog();
        let keys = catalog.referencing(table.id).into_iter();
        keys.filter(|(_, key)| referenced_index(table, key).is_some_and(|i| i.id == index.id))
            .map(|(child, key)| (child.id, child.name.clone(), key.name.clone()))
            .collect()
    }
}

/// The expressions of indexes over columns of new types: they must still bind, and may have new types too.
fn retype_expressions(table: &mut Table) -> Result<()> {
    let now = table.clone();
    for (index, known) in table.indexes.iter_mut().zip(&now.indexes) {
        let program = crate::index::program(&now, known)?;
        for (expression, bound) in index.expressions.iter_mut().zip(&program.expressions) {
            expression.ty = bound.ty();
        }
    }
    Ok(())
}

/// True if keys of both types are equal where their values are.
fn same_key(old: &DataType, new: &DataType) -> bool {
    let kind = |ty: &DataType| match ty.base() {
        DataType::Int2 | DataType::Int4 | DataType::Int8 => 20,
        DataType::Text | DataType::Varchar(_) => 25,
        other => other.oid(),
    };
    kind(old) == kind(new)
}

/// True if what rows and indexes hold of the old type is right for the new one.
fn is_safe(old: &DataType, new: &DataType) -> bool {
    match (old.base(), new.base()) {
        (a, b) if a == b => true,
        (DataType::Int2, DataType::Int4 | DataType::Int8) | (DataType::Int4, DataType::Int8) => true,
        (DataType::Varchar(_) | DataType::Text, DataType::Text | DataType::Varchar(None)) => true,
        (DataType::Varchar(Some(a)), DataType::Varchar(Some(b))) => a <= b,
        (DataType::Numeric(Some(_)), DataType::Numeric(None)) => true,
        (DataType::Numeric(Some((p, s))), DataType::Numeric(Some((q, t)))) => s == t && p <= q,
        _ => false,
    }
}

/// A missing value, in a wider type.
fn widened(value: Datum, ty: &DataType) -> Datum {
    match (value, ty.base()) {
        (Datum::Int2(v), DataType::Int4) => Datum::Int4(v.into()),
        (Datum::Int2(v), DataType::Int8) => Datum::Int8(v.into()),
        (Datum::Int4(v), DataType::Int8) => Datum::Int8(v.into()),
        (value, _) => value,
    }
}

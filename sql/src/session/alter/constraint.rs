//! Constraints that come and go.

use amphora_storage::schema::{Check, Index, IndexId, KeyOrder, Table, TableId};
use sqlparser::ast::TableConstraint;

use super::super::ddl::{cascades_to, relation_exists, still_needed};
use super::super::{Notice, Output, Session};
use super::no_constraint;
use super::rewrite::{Verify, copy_columns};
use crate::binder::alter::{Addition, Additions, additions};
use crate::error::{Result, SqlError};
use crate::executor::{blocking, validate_foreign_key};

impl Session {
    pub(super) async fn add_constraint(
        &mut self,
        id: TableId,
        constraint: &TableConstraint,
        not_valid: bool,
        out: &mut dyn Output,
    ) -> Result<()> {
        match constraint {
            TableConstraint::UniqueUsingIndex(using) | TableConstraint::PrimaryKeyUsingIndex(using) => {
                let primary = matches!(constraint, TableConstraint::PrimaryKeyUsingIndex(_));
                let index = crate::binder::fold(&using.index_name);
                let name = using.name.as_ref().map_or_else(|| index.clone(), crate::binder::fold);
                if name != index {
                    out.notice(Notice::plain(format!(
                        "ALTER TABLE / ADD CONSTRAINT USING INDEX will rename index \"{index}\" to \"{name}\""
                    )));
                }
                return self.constraint_using_index(id, &index, &name, primary);
            }
            _ => {}
        }
        let table = self.altered(id)?;
        let planner = self.altered_planner();
        let mut added = additions(&planner, &table, &Addition::Constraint(constraint))?;
        added.notices.drain(..).for_each(|notice| out.notice(Notice::plain(notice)));
        let only_checks =
            added.primary_key.is_none() && added.uniques.is_empty() && added.foreign_keys.is_empty();
        if !table.is_strong() && !only_checks {
            return Err(SqlError::feature_not_supported(
                "constraints other than CHECK cannot be added to a leaderless table",
            )
            .with_hint("Another node may be writing against it at the same moment. Declare the PRIMARY KEY when the table is made."));
        }
        self.add_constraints(id, added, !not_valid).await
    }

    /// Adds what was checked, looking at existing rows.
    pub(super) async fn add_constraints(
        &mut self,
        id: TableId,
        added: Additions,
        validate: bool,
    ) -> Result<()> {
        let indexes = added.primary_key.iter().chain(&added.uniques).map(|index| &index.name);
        let table = self.altered(id)?;
        let catalog = self.transaction(false).catalog();
        for name in indexes {
            if relation_exists(&catalog, &table.schema, name) {
                return Err(SqlError::duplicate_table(format!("relation \"{name}\" already exists")));
            }
        }
        if let Some(key) = added.primary_key {
            self.add_primary_key(id, key)?;
        }
        for index in added.uniques {
            self.add_unique(id, index)?;
        }
        if !added.checks.is_empty() {
            let mut changed = (*self.altered(id)?).clone();
            let check = |(name, e): &(String, String)| Check {
                name: name.clone(),
                expression: e.clone(),
                validated: validate,
            };
            changed.checks.extend(added.checks.iter().map(check));
            self.transaction(false).put_table(changed)?;
            if validate {
                let table = self.altered(id)?;
                let checks = added.checks.into_iter().map(|(name, _)| name).collect();
                self.verify(&table, &Verify { checks, ..Verify::default() })?;
            }
        }
        if added.foreign_keys.is_empty() {
            return Ok(());
        }
        // Its own actions may have moved this table since the parents were looked up.
        let others: Vec<_> = added.parents.into_iter().filter(|parent| parent.id != id).collect();
        let catalog = self.transaction(false).catalog();
        self.lock_parents(&catalog, &others).await?;
        for mut key in added.foreign_keys {
            key.oid = self.transaction(false).allocate_id()?.0;
            key.validated = validate;
            let mut changed = (*self.altered(id)?).clone();
            changed.foreign_keys.push(key.clone());
            self.transaction(false).put_table(changed)?;
            if validate {
                self.check_references(id, &key.name)?;
            }
        }
        Ok(())
    }

    fn check_references(&mut self, id: TableId, name: &str) -> Result<()> {
        let table = self.altered(id)?;
        let Some(key) = table.foreign_keys.iter().find(|key| key.name == name) else { return Ok(()) };
        let run = self.runtime(&std::sync::Arc::from([]), None);
        let txn = self.transaction(false);
        blocking(|| validate_foreign_key(&table, key, txn.as_ref(), &run))
    }

    fn add_primary_key(&mut self, id: TableId, key: Index) -> Result<()> {
        let table = self.altered(id)?;
        self.verify(&table, &Verify { not_null: key.columns.clone(), ..Verify::default() })?;
        let mut changed = (*table).clone();
        if changed.hidden_key {
            changed.columns.pop();
        }
        changed.hidden_key = false;
        key.columns.iter().for_each(|&c| changed.columns[c].not_null = true);
        let oid = self.transaction(false).allocate_id()?.0;
        changed.primary = Index { id: IndexId::PRIMARY, oid, constraint: true, ..key };
        let values = copy_columns(&table, &changed);
        self.rewrite(&table, changed, &values)
    }

    fn add_unique(&mut self, id: TableId, unique: Index) -> Result<()> {
        let mut changed = (*self.altered(id)?).clone();
        let index = IndexId(changed.next_index_id);
        changed.next_index_id += 1;
        changed.indexes.push(Index { id: index, oid: self.transaction(false).allocate_id()?.0, ..unique });
        self.transaction(false).put_table(changed)?;
        let table = self.altered(id)?;
        let txn = self.transaction(false);
        Ok(blocking(|| txn.build_index(&table, index))?)
    }

    /// ADD … USING INDEX: an index that is there becomes the constraint's.
    fn constraint_using_index(&mut self, id: TableId, index: &str, name: &str, primary: bool) -> Result<()> {
        let table = self.altered(id)?;
        let Some(found) = table.indexes.iter().find(|i| i.name == index).cloned() else {
            return Err(SqlError::undefined_object(format!("index \"{index}\" does not exist")));
        };
        if found.constraint {
            let message = format!("index \"{index}\" is already associated with a constraint");
            return Err(SqlError::object_not_in_prerequisite_state(message));
        }
        let refused = |what: &str| {
            SqlError::wrong_object_type(what)
                .with_detail("Cannot create a primary key or unique constraint using such an index.")
        };
        if !found.unique {
            return Err(refused(&format!("\"{index}\" is not a unique index")));
        }
        if !found.expressions.is_empty() {
            return Err(refused(&format!("index \"{index}\" contains expressions")));
        }
        if found.predicate.is_some() {
            return Err(refused(&format!("\"{index}\" is a partial index")));
        }
        if let Some(place) = (0..found.columns.len()).find(|&i| {
            found.order(i) != KeyOrder::default() || found.classes.get(i).is_some_and(Option::is_some)
        }) {
            return Err(refused(&format!(
                "index \"{index}\" column number {} does not have default sorting behavior",
                place + 1
            )));
        }
        let catalog = self.transaction(false).catalog();
        if name != index && relation_exists(&catalog, &table.schema, name) {
            return Err(SqlError::duplicate_table(format!("relation \"{name}\" already exists")));
        }
        if !primary {
            let mut changed = (*table).clone();
            for own in changed.indexes.iter_mut().filter(|i| i.id == found.id) {
                own.name = name.to_owned();
                own.constraint = true;
            }
            return Ok(self.transaction(false).put_table(changed)?);
        }
        if !table.hidden_key {
            return Err(SqlError::invalid_table_definition(format!(
                "multiple primary keys for table \"{}\" are not allowed",
                table.name
            )));
        }
        let mut changed = (*table).clone();
        changed.indexes.retain(|i| i.id != found.id);
        self.transaction(false).put_table(changed)?;
        self.add_primary_key(id, Index { name: name.to_owned(), ..found })
    }

    pub(super) async fn drop_constraint(
        &mut self,
        id: TableId,
        name: &str,
        if_exists: bool,
        cascade: bool,
    ) -> Result<Option<Notice>> {
        let table = self.altered(id)?;
        let mut changed = (*table).clone();
        changed.checks.retain(|check| check.name != name);
        changed.foreign_keys.retain(|key| key.name != name);
        if changed != *table {
            self.transaction(false).put_table(changed)?;
            return Ok(None);
        }
        let Some(index) = table.all_indexes().find(|i| i.constraint && i.name == name).cloned() else {
            let error = no_constraint(&table, name);
            if if_exists {
                return Ok(Some(Notice::plain(format!("{}, skipping", error.message))));
            }
            return Err(error);
        };
        let keys = self.keys_on_index(&table, &index);
        if !cascade && !keys.is_empty() {
            let what = format!("constraint {name} on table {}", table.name);
            let lines = keys
                .iter()
                .map(|(_, child, key)| format!("constraint {key} on table {child} depends on index {name}"));
            return Err(still_needed(&what, lines.collect()));
        }
        let gone = keys.iter().map(|(_, child, key)| format!("constraint {key} on table {child}")).collect();
        for (child, _, key) in &keys {
            self.drop_foreign_key(*child, key).await?;
        }
        let table = self.altered(id)?;
        if index.id == IndexId::PRIMARY {
            if !table.is_strong() {
                return Err(SqlError::feature_not_supported(
                    "the primary key of a leaderless table cannot be dropped",
                )
                .with_hint("A row is known by its key on every node. Create the table anew."));
            }
            self.drop_primary_key(&table)?;
        } else {
            let mut changed = (*table).clone();
            changed.indexes.retain(|i| i.id != index.id);
            self.transaction(false).put_table(changed)?;
        }
        Ok(cascades_to(gone))
    }

    pub(super) async fn validate_constraint(&mut self, id: TableId, name: &str) -> Result<()> {
        let table = self.altered(id)?;
        let Some(key) = table.foreign_keys.iter().find(|key| key.name == name) else {
            if let Some(check) = table.checks.iter().find(|check| check.name == name) {
                if check.validated {
                    return Ok(());
                }
                let checks = std::iter::once(name.to_owned()).collect();
                self.verify(&table, &Verify { checks, ..Verify::default() })?;
                let mut changed: Table = (*table).clone();
                changed.checks.iter_mut().filter(|c| c.name == name).for_each(|c| c.validated = true);
                return Ok(self.transaction(false).put_table(changed)?);
            }
            if table.all_indexes().any(|index| index.constraint && index.name == name) {
                return Err(SqlError::wrong_object_type(format!(
                    "constraint \"{name}\" of relation \"{}\" is not a foreign key or check constraint",
                    table.name
                )));
            }
            return Err(no_constraint(&table, name));
        };
        if key.validated {
            return Ok(());
        }
        let catalog = self.transaction(false).catalog();
        if let Some(parent) = catalog.table_by_id(key.parent).filter(|parent| parent.id != id) {
            self.transaction(false).lock_table(parent).await?;
        }
        self.check_references(id, name)?;
        let mut changed: Table = (*self.altered(id)?).clone();
        changed.foreign_keys.iter_mut().filter(|key| key.name == name).for_each(|key| key.validated = true);
        Ok(self.transaction(false).put_table(changed)?)
    }
}

//! Enumerated types and domains, carried out.
//!
//! Whoever uses a type has its labels or constraints in the plans they were made with, so a type never changes
//! alone: the tables that have columns of it are locked and put anew, unchanged, in the same transaction.
//! Statements that were planned before then fail at their commit as after any ALTER TABLE, and are planned again.

use std::sync::Arc;

use amphora_replication::{Direction, KeyRange, Scan};
use amphora_storage::DataType;
use amphora_storage::schema::{Catalog, Check, Descriptor, IndexId, Table, TableId, UserType, UserTypeKind};
use amphora_storage::user_type::{DomainType, GAP};

use super::object::schema_exists;
use super::{Notice, Session};
use crate::binder::{domain_test, stored_breaks};
use crate::command::{DomainChange, NewDomain, TypeCommand};
use crate::dependency::uses;
use crate::error::{Result, SqlError};
use crate::executor::{Builder, Expression, blocking};

/// Rows looked at in one go.
const ROWS: usize = 1024;

impl Session {
    pub(super) async fn run_type(
        &mut self,
        catalog: &Arc<Catalog>,
        command: &TypeCommand,
    ) -> Result<Option<Notice>> {
        match command {
            TypeCommand::CreateEnum { schema, name, labels } => {
                let mut stored = Vec::with_capacity(labels.len());
                for (i, label) in labels.iter().enumerate() {
                    let oid = self.transaction(false).allocate_id()?.0;
                    let place = i64::try_from(i).unwrap_or(i64::MAX).saturating_add(1).checked_mul(GAP);
                    let place = place.ok_or_else(|| SqlError::program_limit_exceeded("too many labels"))?;
                    stored.push((oid, place, label.clone()));
                }
                self.create_type(catalog, schema, name, UserTypeKind::Enum(stored))?;
            }
            TypeCommand::CreateDomain(new) => {
                let NewDomain { schema, name, base, not_null, default, checks } = &**new;
                let check = |(name, e): &(String, String)| Check {
                    name: name.clone(),
                    expression: e.clone(),
                    validated: true,
                };
                let kind = UserTypeKind::Domain {
                    base: base.clone(),
                    not_null: *not_null,
                    default: default.clone(),
                    checks: checks.iter().map(check).collect(),
                };
                self.create_type(catalog, schema, name, kind)?;
            }
            TypeCommand::AddValue { id, label, if_not_exists, neighbour } => {
                return self.add_value(catalog, *id, label, *if_not_exists, neighbour.as_ref()).await;
            }
            TypeCommand::RenameValue { id, from, to } => {
                self.rename_value(catalog, *id, from, to).await?;
            }
            TypeCommand::AlterDomain { id, change } => {
                return self.alter_domain(catalog, *id, change).await;
            }
            TypeCommand::Rename { id, schema, name, .. } => {
                let mut ty = found(catalog, *id)?;
                let schema = schema.clone().unwrap_or_else(|| ty.schema.clone());
                let name = name.clone().unwrap_or_else(|| ty.name.clone());
                if !schema_exists(catalog, &schema) {
                    let message = format!("schema \"{schema}\" does not exist");
                    return Err(SqlError::invalid_schema_name(message));
                }
                if (&schema, &name) == (&ty.schema, &ty.name) {
                    return Ok(None);
                }
                self.check_type_name(catalog, &schema, &name)?;
                (ty.schema, ty.name) = (schema, name);
                self.put_type(catalog, ty).await?;
            }
        }
        Ok(None)
    }

    fn check_type_name(&self, catalog: &Catalog, schema: &str, name: &str) -> Result<()> {
        if catalog.type_named(schema, name).is_some() || catalog.relation(schema, name).is_some() {
            return Err(SqlError::duplicate_object(format!("type \"{name}\" already exists")));
        }
        Ok(())
    }

    fn create_type(&mut self, catalog: &Catalog, schema: &str, name: &str, kind: UserTypeKind) -> Result<()> {
        self.check_type_name(catalog, schema, name)?;
        let owner = self.shared.user.to_string();
        let txn = self.transaction(false);
        let ty = UserType {
            id: txn.allocate_id()?,
            array: txn.allocate_id()?.0,
            schema: schema.to_owned(),
            name: name.to_owned(),
            owner,
            kind,
            comment: None,
        };
        Ok(txn.put_object(Descriptor::Type(ty))?)
    }

    /// Puts a changed type in place of the one it was, and the tables that use it.
    pub(super) async fn put_type(&mut self, catalog: &Catalog, ty: UserType) -> Result<()> {
        let id = ty.id;
        self.transaction(false).put_object(Descriptor::Type(ty))?;
        let using: Vec<TableId> =
            catalog.tables().filter(|t| t.columns.iter().any(|c| uses(&c.ty, id))).map(|t| t.id).collect();
        for table in using {
            let now = self.transaction(false).catalog();
            self.change_table(&now, table, |_| {}).await?;
        }
        Ok(())
    }

    async fn add_value(
        &mut self,
        catalog: &Catalog,
        id: TableId,
        label: &str,
        if_not_exists: bool,
        neighbour: Option<&(bool, String)>,
    ) -> Result<Option<Notice>> {
        let mut ty = found(catalog, id)?;
        let oid = self.transaction(false).allocate_id()?.0;
        let UserTypeKind::Enum(labels) = &mut ty.kind else { return Err(super::object::moved()) };
        if labels.iter().any(|(_, _, known)| known == label) {
            let message = format!("enum label \"{label}\" already exists");
            if if_not_exists {
                let notice = Notice::plain(format!("{message}, skipping"));
                return Ok(Some(Notice { sqlstate: "42710", ..notice }));
            }
            return Err(SqlError::duplicate_object(message));
        }
        let at = match neighbour {
            None => labels.len(),
            Some((before, other)) => {
                let at = labels.iter().position(|(_, _, known)| known == other).ok_or_else(|| {
                    let message = format!("\"{other}\" is not an existing enum label");
                    SqlError::invalid_parameter_value(message)
                })?;
                at + usize::from(!before)
            }
        };
        let place = |i: usize| labels.get(i).map(|(_, place, _)| *place);
        let middle = match (at.checked_sub(1).and_then(place), place(at)) {
            (None, None) => Some(GAP),
            (Some(last), None) => last.checked_add(GAP),
            (None, Some(first)) => first.checked_sub(GAP),
            (Some(a), Some(b)) => i64::try_from((i128::from(a) + i128::from(b)).div_euclid(2))
                .ok()
                .filter(|middle| *middle != a),
        };
        let middle = middle.ok_or_else(|| {
            SqlError::program_limit_exceeded(format!("there is no place left beside label \"{label}\""))
                .with_detail("About 40 labels can be added one after the other at the same place of an enum.")
                .with_hint("Create a new type with all the labels, and change the columns to it.")
        })?;
        labels.insert(at, (oid, middle, label.to_owned()));
        self.put_type(catalog, ty).await?;
        Ok(None)
    }

    async fn rename_value(
        &mut self,
        catalog: &Arc<Catalog>,
        id: TableId,
        from: &str,
        to: &str,
    ) -> Result<()> {
        let mut ty = found(catalog, id)?;
        let UserTypeKind::Enum(labels) = &mut ty.kind else { return Err(super::object::moved()) };
        let taken = labels.iter().any(|(_, _, known)| known == to);
        let Some(label) = labels.iter_mut().find(|(_, _, known)| known == from) else {
            let message = format!("\"{from}\" is not an existing enum label");
            return Err(SqlError::invalid_parameter_value(message));
        };
        if taken {
            return Err(SqlError::duplicate_object(format!("enum label \"{to}\" already exists")));
        }
        to.clone_into(&mut label.2);
        // Defaults that are the label itself follow it.
        let literal = |label: &str| format!("'{}'::\"{}\"", label.replace('\'', "''"), id.0);
        let (old, new) = (literal(from), literal(to));
        self.put_type(catalog, ty).await?;
        for table in catalog.tables() {
            let is_it = |column: &amphora_storage::schema::Column| column.default.as_ref() == Some(&old);
            if table.columns.iter().any(is_it) {
                let now = self.transaction(false).catalog();
                self.change_table(&now, table.id, |t| {
                    t.columns.iter_mut().filter(|c| is_it(c)).for_each(|c| c.default = Some(new.clone()));
                })
                .await?;
            }
        }
        // Other expressions are kept as they were written.
        let now = self.transaction(false).catalog();
        let (before, after) = (self.planner(catalog).1, self.planner(&now).1);
        match stored_breaks(&before, &after) {
            None => Ok(()),
            Some(what) => Err(SqlError::feature_not_supported(format!(
                "label \"{from}\" cannot be renamed because {what} names it"
            ))
            .with_hint("Drop that, rename the label, and make it again.")),
        }
    }

    async fn alter_domain(
        &mut self,
        catalog: &Catalog,
        id: TableId,
        change: &DomainChange,
    ) -> Result<Option<Notice>> {
        let mut ty = found(catalog, id)?;
        let domain_name = ty.name.clone();
        let UserTypeKind::Domain { not_null, default, checks, .. } = &mut ty.kind else {
            return Err(super::object::moved());
        };
        let missing =
            |name: &str| format!("constraint \"{name}\" of domain \"{domain_name}\" does not exist");
        let mut look = None;
        match change {
            DomainChange::Default(new) => default.clone_from(new),
            DomainChange::NotNull(set) => {
                if *set && !*not_null {
                    look = Some(Look::NotNull);
                }
                *not_null = *set;
            }
            DomainChange::AddCheck { name, check, validate } => {
                if checks.iter().any(|known| known.name == *name) {
                    return Err(SqlError::duplicate_object(format!(
                        "constraint \"{name}\" for domain \"{domain_name}\" already exists"
                    )));
                }
                checks.push(Check { name: name.clone(), expression: check.clone(), validated: *validate });
                look = validate.then(|| Look::Check(name.clone()));
            }
            DomainChange::DropCheck { name, if_exists } => {
                let before = checks.len();
                checks.retain(|known| known.name != *name);
                if checks.len() == before {
                    if *if_exists {
                        return Ok(Some(Notice::plain(format!("{}, skipping", missing(name)))));
                    }
                    return Err(SqlError::undefined_object(missing(name)));
                }
            }
            DomainChange::RenameCheck { name, to } => {
                if checks.iter().any(|known| known.name == *to) {
                    return Err(SqlError::duplicate_object(format!(
                        "constraint \"{to}\" for domain {domain_name} already exists"
                    )));
                }
                let known = checks.iter_mut().find(|known| known.name == *name);
                let known = known.ok_or_else(|| {
                    let message = format!("constraint \"{name}\" for domain {domain_name} does not exist");
                    SqlError::undefined_object(message)
                })?;
                known.name.clone_from(to);
            }
            DomainChange::Validate(name) => {
                let known = checks.iter_mut().find(|known| known.name == *name);
                known.ok_or_else(|| SqlError::undefined_object(missing(name)))?.validated = true;
                look = Some(Look::Check(name.clone()));
            }
        }
        self.put_type(catalog, ty).await?;
        if let Some(look) = look {
            self.look_at_values(id, &look)?;
        }
        Ok(None)
    }

    /// Existing values must satisfy a new constraint. 23502, 23514
    fn look_at_values(&mut self, id: TableId, look: &Look) -> Result<()> {
        let catalog = self.transaction(false).catalog();
        let Some((_, DataType::Domain(domain))) = catalog.type_by_id(id) else { return Ok(()) };
        let (not_null, checks) = match look {
            Look::NotNull => (true, Vec::new()),
            Look::Check(name) => (false, domain.checks.iter().filter(|(n, _)| n == name).cloned().collect()),
        };
        let only = DomainType { not_null, checks, ..DomainType::clone(domain) };
        let planner = self.planner(&catalog).1;
        let test = Expression::compile(&domain_test(&planner, &only)?, &mut Builder::new())?;
        let run = self.runtime(&Arc::from([]), None);
        let txn = self.transaction(false);
        let context = run.context(txn.as_ref());
        for table in catalog.tables() {
            let columns = table.columns.iter().enumerate().filter(|(_, c)| uses(&c.ty, id));
            let columns: Vec<usize> = columns.map(|(i, _)| i).collect();
            if columns.is_empty() {
                continue;
            }
            blocking(|| {
                let mut rows = txn.scan(&all_rows(table))?;
                let mut batch = Vec::new();
                while rows.next_batch(ROWS, &mut batch)? > 0 {
                    run.guard.check()?;
                    for stored in batch.drain(..) {
                        for &column in &columns {
                            let value = std::slice::from_ref(&stored.row[column]);
                            test.eval(value, &context).map_err(|error| refused(error, table, column))?;
                        }
                    }
                }
                Ok::<(), SqlError>(())
            })?;
        }
        Ok(())
    }
}

/// What is looked for in existing values.
enum Look {
    NotNull,
    Check(String),
}

fn all_rows(table: &Arc<Table>) -> Scan {
    Scan {
        table: table.clone(),
        index: IndexId::PRIMARY,
        range: KeyRange::all(),
        direction: Direction::Forward,
        columns: None,
    }
}

/// A constraint that an existing value breaks, in PostgreSQL's words.
fn refused(error: SqlError, table: &Table, column: usize) -> SqlError {
    let name = &table.columns[column].name;
    let told = |what: &str| format!("column \"{name}\" of table \"{}\" contains {what}", table.name);
    let error = match error.sqlstate {
        "23502" => SqlError::not_null_violation(told("null values")),
        "23514" => SqlError::check_violation(told("values that violate the new constraint")),
        _ => return error,
    };
    error.with_table(&table.schema, &table.name).with_column(name)
}

fn found(catalog: &Catalog, id: TableId) -> Result<UserType> {
    catalog.type_by_id(id).map(|(ty, _)| UserType::clone(ty)).ok_or_else(super::object::moved)
}

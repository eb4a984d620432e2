//! Schemas, sequences, views and comments, carried out; DROP, TRUNCATE and CREATE TABLE AS.
//!
//! As all DDL: the catalog is locked first, and what the binder found is looked at again.

use std::sync::Arc;

use amphora_storage::schema::{
    Catalog, ColumnId, Descriptor, Relation, Schema, Sequence, SequenceState, Table, TableId, UserType, View,
};
use amphora_storage::{DataType, Timestamp};

use super::command::Answer;
use super::ddl::relation_exists;
use super::sequence::{altered_state, define};
use super::{Notice, Output, Session};
use crate::catalog::quoted;
use crate::command::{Commented, CreateView, NewSequence, ObjectCommand};
use crate::dependency::{DropPlan, Names, Object, column_of, plan_drop};
use crate::error::{Result, SqlError};

impl Session {
    /// Carries out the command.
    pub(super) async fn run_object(
        &mut self,
        command: &ObjectCommand,
        out: &mut dyn Output,
    ) -> Result<Answer> {
        self.check_writable(command.tag())?;
        let catalog = self.lock_catalog().await?;
        let mut notices = Vec::new();
        match command {
            ObjectCommand::CreateSchema { name, owner, if_not_exists } => {
                if schema_exists(&catalog, name) {
                    let message = format!("schema \"{name}\" already exists");
                    if !if_not_exists {
                        return Err(SqlError::duplicate_schema(message));
                    }
                    notices
                        .push(Notice { sqlstate: "42P06", ..Notice::plain(format!("{message}, skipping")) });
                } else {
                    let owner = self.owner(&catalog, owner.as_deref())?;
                    let txn = self.transaction(false);
                    let id = txn.allocate_id()?;
                    let schema = Schema { id, name: name.clone(), owner, comment: None };
                    txn.put_object(Descriptor::Schema(schema))?;
                }
            }
            ObjectCommand::RenameSchema { name, to } => self.rename_schema(&catalog, name, to).await?,
            ObjectCommand::CreateSequence { schema, name, if_not_exists, sequence } => {
                if relation_exists(&catalog, schema, name) {
                    let message = format!("relation \"{name}\" already exists");
                    if !if_not_exists {
                        return Err(SqlError::duplicate_table(message));
                    }
                    notices.push(Notice::plain(format!("{message}, skipping")));
                } else {
                    self.check_owner_column(&catalog, schema, sequence)?;
                    let owned_by = sequence.owned_by.flatten();
                    self.create_sequence(schema, name, owned_by, sequence).await?;
                }
            }
            ObjectCommand::AlterSequence { id, sequence } => {
                self.alter_sequence(&catalog, *id, sequence).await?;
            }
            ObjectCommand::Rename { id, schema, name, .. } => {
                self.rename_relation(&catalog, *id, schema.as_deref(), name.as_deref()).await?;
            }
            ObjectCommand::RenameViewColumn { id, column, to, .. } => {
                let mut view = View::clone(catalog.view_by_id(*id).ok_or_else(moved)?);
                if view.columns.iter().any(|(name, _)| name == to) {
                    return Err(SqlError::duplicate_column(format!(
                        "column \"{to}\" of relation \"{}\" already exists",
                        view.name
                    )));
                }
                match view.columns.iter_mut().find(|(name, _)| name == column) {
                    Some((name, _)) => name.clone_from(to),
                    None => {
                        return Err(SqlError::undefined_column(format!(
                            "column \"{column}\" does not exist"
                        )));
                    }
                }
                self.transaction(false).put_object(Descriptor::View(view))?;
            }
            ObjectCommand::SetOwner { object, owner, .. } => {
                self.set_owner(&catalog, object, owner)?;
            }
            ObjectCommand::Type(command) => notices.extend(self.run_type(&catalog, command).await?),
            ObjectCommand::Comment { on, text } => self.comment(&catalog, on, text.clone()).await?,
            ObjectCommand::CreateView(create) => self.create_view(&catalog, create)?,
            ObjectCommand::CreateTableAs(create) => return self.create_table_as(create, out).await,
            ObjectCommand::Truncate { tables, restart, cascade } => {
                notices = self.truncate(&catalog, tables, *restart, *cascade).await?;
            }
            ObjectCommand::Drop { objects, cascade, notices: missing, .. } => {
                notices.extend(missing.iter().map(Notice::plain));
                if !objects.is_empty() {
                    let plan = self.plan_drop(&catalog, objects, *cascade)?;
                    if let Some((message, detail)) = &plan.notice {
                        notices.push(Notice { detail: detail.clone(), ..Notice::plain(message) });
                    }
                    self.drop_objects(&plan).await?;
                }
            }
        }
        for notice in notices {
            out.notice(notice);
        }
        Ok(Answer::tag(command.tag()))
    }

    /// The owner of something new. 42704
    fn owner(&self, catalog: &Catalog, named: Option<&str>) -> Result<String> {
        let name = match named {
            None | Some("current_user" | "current_role" | "session_user") => self.shared.user.to_string(),
            Some(name) => name.to_owned(),
        };
        if name != *self.shared.user && crate::catalog::find_role(catalog, &name).is_none() {
            return Err(SqlError::undefined_object(format!("role \"{name}\" does not exist")));
        }
        Ok(name)
    }

    fn set_owner(&mut self, catalog: &Catalog, object: &Object, owner: &str) -> Result<()> {
        let owner = self.owner(catalog, Some(owner))?;
        let changed = match object {
            Object::Schema(id) => {
                let schema = catalog.schema_by_id(*id).ok_or_else(moved)?;
                Descriptor::Schema(Schema { owner, ..Schema::clone(schema) })
            }
            Object::Relation(id) => match catalog.relation_by_id(*id).ok_or_else(moved)? {
                Relation::View(view) => Descriptor::View(View { owner, ..View::clone(view) }),
                Relation::Sequence(sequence) => {
                    Descriptor::Sequence(Sequence { owner, ..Sequence::clone(sequence) })
                }
                Relation::Table(_) => return Err(moved()),
            },
            Object::Type(id) => {
                let (ty, _) = catalog.type_by_id(*id).ok_or_else(moved)?;
                Descriptor::Type(UserType { owner, ..UserType::clone(ty) })
            }
            Object::Default(..) | Object::ForeignKey(..) | Object::Column(..) => return Err(moved()),
        };
        self.transaction(false).put_object(changed).map_err(Into::into)
    }

    async fn rename_schema(&mut self, catalog: &Catalog, name: &str, to: &str) -> Result<()> {
        let Some(schema) = catalog.schema(name) else {
            if schema_exists(catalog, name) {
                return Err(SqlError::feature_not_supported(format!(
                    "schema {} cannot be renamed",
                    quoted(name)
                )));
            }
            return Err(SqlError::invalid_schema_name(format!("schema \"{name}\" does not exist")));
        };
        if schema_exists(catalog, to) {
            return Err(SqlError::duplicate_schema(format!("schema \"{to}\" already exists")));
        }
        let renamed = Schema { name: to.to_owned(), ..Schema::clone(schema) };
        self.transaction(false).put_object(Descriptor::Schema(renamed))?;
        let inside: Vec<TableId> =
            catalog.relations().filter(|r| r.name().0 == name).map(Relation::id).collect();
        for id in inside {
            self.put_renamed(catalog, id, Some(to), None).await?;
        }
        let types = catalog.types().filter(|(ty, _)| ty.schema == name).map(|(ty, _)| UserType::clone(ty));
        for ty in types.collect::<Vec<_>>() {
            let now = self.transaction(false).catalog();
            self.put_type(&now, UserType { schema: to.to_owned(), ..ty }).await?;
        }
        Ok(())
    }

    /// Another name, or another schema. 42P07
    pub(super) async fn rename_relation(
        &mut self,
        catalog: &Catalog,
        id: TableId,
        schema: Option<&str>,
        name: Option<&str>,
    ) -> Result<()> {
        let relation = catalog.relation_by_id(id).ok_or_else(moved)?;
        let (old_schema, old_name) = relation.name();
        let (new_schema, new_name) = (schema.unwrap_or(old_schema), name.unwrap_or(old_name));
        if !schema_exists(catalog, new_schema) {
            return Err(SqlError::invalid_schema_name(format!("schema \"{new_schema}\" does not exist")));
        }
        let same = (new_schema, new_name) == (old_schema, old_name);
        if same && schema.is_some() {
            return Ok(());
        }
        if relation_exists(catalog, new_schema, new_name) {
            let message = match schema {
                Some(_) => format!("relation \"{new_name}\" already exists in schema \"{new_schema}\""),
                None => format!("relation \"{new_name}\" already exists"),
            };
            return Err(SqlError::duplicate_table(message));
        }
        if let (Some(_), Relation::Sequence(sequence)) = (schema, relation)
            && let Some(table) = sequence.owned_by.and_then(|(table, _)| catalog.table_by_id(table))
        {
            return Err(SqlError::feature_not_supported("cannot move an owned sequence into another schema")
                .with_detail(format!(
                    "Sequence \"{}\" is linked to table \"{}\".",
                    sequence.name, table.name
                )));
        }
        self.put_renamed(catalog, id, schema, name).await?;
        if schema.is_none() || catalog.table_by_id(id).is_none() {
            return Ok(());
        }
        // What belongs to a table goes with it.
        let table = catalog.table_by_id(id).ok_or_else(moved)?;
        let indexes = table.all_indexes().skip(usize::from(table.hidden_key)).map(|index| &index.name);
        let owned = catalog.sequences().filter(|s| s.owned_by.is_some_and(|(owner, _)| owner == id));
        let owned: Vec<_> = owned.cloned().collect();
        for name in indexes.chain(owned.iter().map(|sequence| &sequence.name)) {
            if relation_exists(catalog, new_schema, name) {
                return Err(SqlError::duplicate_table(format!(
                    "relation \"{name}\" already exists in schema \"{new_schema}\""
                )));
            }
        }
        for sequence in &owned {
            self.put_renamed(catalog, sequence.id, schema, None).await?;
        }
        Ok(())
    }

    async fn put_renamed(
        &mut self,
        catalog: &Catalog,
        id: TableId,
        schema: Option<&str>,
        name: Option<&str>,
    ) -> Result<()> {
        fn change(schema: &mut String, name: &mut String, to: (Option<&str>, Option<&str>)) {
            if let Some(to) = to.0 {
                to.clone_into(schema);
            }
            if let Some(to) = to.1 {
                to.clone_into(name);
            }
        }
        let to = (schema, name);
        let changed = match catalog.relation_by_id(id).ok_or_else(moved)? {
            Relation::Table(table) => {
                let mut changed = Table::clone(table);
                change(&mut changed.schema, &mut changed.name, to);
                if table.is_strong() {
                    self.transaction(false).lock_table(table).await?;
                }
                Descriptor::Table(changed)
            }
            Relation::View(view) => {
                let mut changed = View::clone(view);
                change(&mut changed.schema, &mut changed.name, to);
                Descriptor::View(changed)
            }
            Relation::Sequence(sequence) => {
                let mut changed = Sequence::clone(sequence);
                change(&mut changed.schema, &mut changed.name, to);
                Descriptor::Sequence(changed)
            }
        };
        self.transaction(false).put_object(changed).map_err(Into::into)
    }

    // Sequences.

    /// 55000: a sequence and its owner belong together.
    fn check_owner_column(&self, catalog: &Catalog, schema: &str, options: &NewSequence) -> Result<()> {
        let Some(Some((table, _))) = options.owned_by else { return Ok(()) };
        let table = catalog.table_by_id(table).ok_or_else(moved)?;
        if table.schema != schema {
            return Err(SqlError::object_not_in_prerequisite_state(
                "sequence must be in same schema as table it is linked to",
            ));
        }
        Ok(())
    }

    /// Makes a sequence in the open transaction, which holds the catalog's lock; nobody has its name.
    pub(super) async fn create_sequence(
        &mut self,
        schema: &str,
        name: &str,
        owned_by: Option<(TableId, ColumnId)>,
        options: &NewSequence,
    ) -> Result<TableId> {
        let owner = self.shared.user.to_string();
        let txn = self.transaction(false);
        let blank = Sequence {
            id: txn.allocate_id()?,
            version: Timestamp::ZERO,
            schema: schema.to_owned(),
            name: name.to_owned(),
            owner,
            ty: DataType::Int8,
            start: 1,
            increment: 1,
            min: 1,
            max: i64::MAX,
            cache: 1,
            cycle: false,
            owned_by,
            comment: None,
        };
        let sequence = define(blank, true, options)?;
        let id = sequence.id;
        let state = SequenceState::start_of(&sequence);
        let state = match options.restart {
            Some(_) => altered_state(&sequence, state, options)?,
            None => state,
        };
        txn.put_object(Descriptor::Sequence(sequence))?;
        txn.write_sequence(id, Some(state)).await?;
        Ok(id)
    }

    pub(super) async fn alter_sequence(
        &mut self,
        catalog: &Catalog,
        id: TableId,
        options: &NewSequence,
    ) -> Result<()> {
        let sequence = catalog.sequence_by_id(id).ok_or_else(moved)?;
        if options.owned_by.is_some() && is_identity(catalog, sequence) {
            return Err(SqlError::feature_not_supported("cannot change ownership of identity sequence")
                .with_detail(format!(
                    "Sequence \"{}\" is linked to table \"{}\".",
                    sequence.name,
                    sequence
                        .owned_by
                        .and_then(|(t, _)| catalog.table_by_id(t))
                        .map_or_else(String::new, |t| t.name.clone())
                )));
        }
        self.check_owner_column(catalog, &sequence.schema, options)?;
        let mut changed = define(Sequence::clone(sequence), false, options)?;
        if let Some(owner) = options.owned_by {
            changed.owned_by = owner;
        }
        let only_owner = NewSequence { owned_by: None, ..options.clone() } == NewSequence::default();
        if !only_owner {
            // The sequence's lock is held from the first write, and what stands there then is what counts.
            let txn = self.transaction(false);
            let before = txn.sequences().read(sequence).await?.0;
            txn.write_sequence(id, Some(before)).await?;
            let (now, _) = txn.sequences().read(sequence).await?;
            let state = altered_state(&changed, now, options)?;
            txn.write_sequence(id, Some(state)).await?;
        }
        self.transaction(false).put_object(Descriptor::Sequence(changed)).map_err(Into::into)
    }

    // DROP.

    fn plan_drop(&mut self, catalog: &Arc<Catalog>, objects: &[Object], cascade: bool) -> Result<DropPlan> {
        for object in objects {
            let known = match object {
                Object::Schema(id) => catalog.schema_by_id(*id).is_some(),
                Object::Relation(id) => catalog.relation_by_id(*id).is_some(),
                Object::Type(id) => catalog.type_by_id(*id).is_some(),
                Object::Default(..) | Object::ForeignKey(..) | Object::Column(..) => true,
            };
            if !known {
                return Err(moved());
            }
        }
        let path = self.search_path(catalog);
        plan_drop(&Names { catalog, search_path: &path }, objects, cascade)
    }

    /// Drops everything a plan names, in its order.
    pub(super) async fn drop_objects(&mut self, plan: &DropPlan) -> Result<()> {
        for object in &plan.objects {
            let catalog = self.transaction(false).catalog();
            match object {
                Object::Schema(id) | Object::Type(id) => self.transaction(false).drop_object(*id)?,
                Object::Column(table, column) => {
                    let table = catalog.table_by_id(*table).ok_or_else(moved)?;
                    if table.is_strong() {
                        self.transaction(false).lock_table(table).await?;
                    }
                    let name = column_of(table, *column).map(|c| c.name.clone());
                    if let Some(name) = name {
                        Box::pin(self.drop_column(table.id, &name, true, true)).await?;
                    }
                }
                Object::Relation(id) => match catalog.relation_by_id(*id).ok_or_else(moved)? {
                    Relation::Table(table) => self.drop_table(&catalog, table).await?,
                    Relation::View(_) => self.transaction(false).drop_object(*id)?,
                    Relation::Sequence(_) => {
                        let txn = self.transaction(false);
                        txn.write_sequence(*id, None).await?;
                        txn.drop_object(*id)?;
                    }
                },
                Object::Default(table, column) => {
                    self.change_table(&catalog, *table, |t| {
                        t.columns.iter_mut().filter(|c| c.id == *column).for_each(|c| c.default = None);
                    })
                    .await?;
                }
                Object::ForeignKey(table, oid) => {
                    self.change_table(&catalog, *table, |t| t.foreign_keys.retain(|k| k.oid != *oid)).await?;
                }
            }
        }
        Ok(())
    }

    async fn drop_table(&mut self, catalog: &Catalog, table: &Arc<Table>) -> Result<()> {
        let txn = self.transaction(false);
        if table.is_strong() {
            txn.lock_table(table).await?;
        }
        if let Some(statistics) = catalog.statistics(table.id) {
            txn.drop_object(statistics.id)?;
        }
        txn.drop_table(table.id).map_err(Into::into)
    }

    /// Puts a changed table in place of the one it was, with its writers kept out.
    pub(super) async fn change_table(
        &mut self,
        catalog: &Catalog,
        id: TableId,
        change: impl FnOnce(&mut Table),
    ) -> Result<()> {
        let table = catalog.table_by_id(id).ok_or_else(moved)?;
        let txn = self.transaction(false);
        if table.is_strong() {
            txn.lock_table(table).await?;
        }
        let mut changed = Table::clone(table);
        change(&mut changed);
        txn.put_table(changed).map_err(Into::into)
    }

    // Comments.

    async fn comment(&mut self, catalog: &Catalog, on: &Commented, text: Option<String>) -> Result<()> {
        let changed = match on {
            Commented::Schema(id) => {
                let schema = catalog.schema_by_id(*id).ok_or_else(moved)?;
                Descriptor::Schema(Schema { comment: text, ..Schema::clone(schema) })
            }
            Commented::Type(id) => {
                let (ty, _) = catalog.type_by_id(*id).ok_or_else(moved)?;
                Descriptor::Type(UserType { comment: text, ..UserType::clone(ty) })
            }
            Commented::Relation(id) => match catalog.relation_by_id(*id).ok_or_else(moved)? {
                Relation::Table(_) => {
                    return self.change_table(catalog, *id, |t| t.comment = text).await;
                }
                Relation::View(view) => Descriptor::View(View { comment: text, ..View::clone(view) }),
                Relation::Sequence(sequence) => {
                    Descriptor::Sequence(Sequence { comment: text, ..Sequence::clone(sequence) })
                }
            },
            Commented::Column(table, column) => {
                let change = |t: &mut Table| {
                    if let Some(c) = t.columns.iter_mut().find(|c| c.id == *column) {
                        c.comment = text;
                    }
                };
                return self.change_table(catalog, *table, change).await;
            }
            Commented::Index(table, name) => {
                let change = |t: &mut Table| {
                    let indexes = std::iter::once(&mut t.primary).chain(&mut t.indexes);
                    if let Some(index) = indexes.into_iter().find(|i| i.name == *name) {
                        index.comment = text;
                    }
                };
                return self.change_table(catalog, *table, change).await;
            }
            Commented::ForeignKey(table, name) => {
                let change = |t: &mut Table| {
                    if let Some(key) = t.foreign_keys.iter_mut().find(|k| k.name == *name) {
                        key.comment = text;
                    }
                };
                return self.change_table(catalog, *table, change).await;
            }
        };
        self.transaction(false).put_object(changed).map_err(Into::into)
    }

    // Views.

    fn create_view(&mut self, catalog: &Catalog, create: &CreateView) -> Result<()> {
        let mut view = View {
            id: TableId(0),
            version: Timestamp::ZERO,
            schema: create.schema.clone(),
            name: create.name.clone(),
            owner: self.shared.user.to_string(),
            columns: create.columns.clone(),
            query: create.query.clone(),
            relations: create.relations.clone(),
            sequences: create.sequences.clone(),
            comment: None,
        };
        match catalog.relation(&create.schema, &create.name) {
            Some(Relation::View(old)) if create.or_replace => {
                check_replacement(old, &view)?;
                (view.id, view.owner, view.comment) = (old.id, old.owner.clone(), old.comment.clone());
            }
            Some(_) if create.or_replace => {
                return Err(SqlError::wrong_object_type(format!("\"{}\" is not a view", create.name)));
            }
            _ if relation_exists(catalog, &create.schema, &create.name) => {
                return Err(SqlError::duplicate_table(format!(
                    "relation \"{}\" already exists",
                    create.name
                )));
            }
            _ => view.id = self.transaction(false).allocate_id()?,
        }
        self.transaction(false).put_object(Descriptor::View(view)).map_err(Into::into)
    }
}

/// 42P16: a replaced view keeps its columns, and may have more at the end.
fn check_replacement(old: &View, new: &View) -> Result<()> {
    if new.columns.len() < old.columns.len() {
        return Err(SqlError::invalid_table_definition("cannot drop columns from view"));
    }
    for ((old_name, old_type), (new_name, new_type)) in old.columns.iter().zip(&new.columns) {
        if old_name != new_name {
            return Err(SqlError::invalid_table_definition(format!(
                "cannot change name of view column \"{old_name}\" to \"{new_name}\""
            ))
            .with_hint("Use ALTER VIEW ... RENAME COLUMN ... to change name of view column instead."));
        }
        if old_type != new_type {
            return Err(SqlError::invalid_table_definition(format!(
                "cannot change data type of view column \"{old_name}\" from {old_type} to {new_type}"
            )));
        }
    }
    Ok(())
}

fn is_identity(catalog: &Catalog, sequence: &Sequence) -> bool {
    sequence.owned_by.is_some_and(|(table, column)| {
        let column = catalog.table_by_id(table).and_then(|t| column_of(t, column));
        column.is_some_and(|c| c.identity.is_some())
    })
}

/// True of the schemas there are.
pub(super) fn schema_exists(catalog: &Catalog, name: &str) -> bool {
    matches!(name, "public" | "pg_catalog" | "information_schema" | "amphora")
        || catalog.schema(name).is_some()
}

/// What the binder found is not there any more: the statement is bound again.
pub(super) fn moved() -> SqlError {
    amphora_replication::Error::catalog_moved().into()
}

//! Statements about schemas, sequences, comments, and DROP and TRUNCATE: names resolved to objects.

use amphora_storage::DataType;
use amphora_storage::schema::{ColumnId, Relation, TableId};
use sqlparser::ast;
use sqlparser::ast::{CascadeOption, ObjectType, SequenceOptions, Spanned, TruncateIdentityOption};

use super::ddl::is_system_schema;
use super::{Binder, fold, name_parts};
use crate::catalog::{quoted, system_view};
use crate::command::{Command, Commented, NewSequence, ObjectCommand};
use crate::dependency::Object;
use crate::error::{Result, SqlError};
use crate::parser::{CommentTarget, ObjectAst, SequenceOption};

/// What a DROP or ALTER names, and what it is found to be.
enum Named {
    Relation(Relation),
    /// A relation of the system's
    System,
}

impl Binder<'_> {
    /// A statement about an object of the catalog.
    pub(super) fn object(&mut self, statement: &ObjectAst) -> Result<Command> {
        let command = match statement {
            ObjectAst::CreateSchema { name, owner, if_not_exists } => {
                let name = match (name, owner) {
                    (Some(name), _) => fold(name),
                    (None, Some(owner)) => owner.clone(),
                    (None, None) => return Err(SqlError::syntax_error("a schema needs a name")),
                };
                if name.starts_with("pg_") {
                    return Err(SqlError::new("42939", format!("unacceptable schema name \"{name}\""))
                        .with_detail("The prefix \"pg_\" is reserved for system schemas."));
                }
                ObjectCommand::CreateSchema { name, owner: owner.clone(), if_not_exists: *if_not_exists }
            }
            ObjectAst::RenameSchema { name, to } => {
                let to = fold(to);
                if to.starts_with("pg_") {
                    return Err(SqlError::new("42939", format!("unacceptable schema name \"{to}\""))
                        .with_detail("The prefix \"pg_\" is reserved for system schemas."));
                }
                ObjectCommand::RenameSchema { name: fold(name), to }
            }
            ObjectAst::CreateSequence { name, if_not_exists, options } => {
                let (schema, name) = self.new_name(name)?;
                let sequence = self.sequence_options(options, Some(&schema))?;
                ObjectCommand::CreateSequence { schema, name, if_not_exists: *if_not_exists, sequence }
            }
            ObjectAst::AlterSequence { name, if_exists, options } => {
                match self.named("SEQUENCE", name, *if_exists)? {
                    Ok(id) => {
                        ObjectCommand::AlterSequence { id, sequence: self.sequence_options(options, None)? }
                    }
                    Err(notice) => return Ok(Command::Notice("ALTER SEQUENCE", notice)),
                }
            }
            ObjectAst::Rename { kind: kind @ ("TYPE" | "DOMAIN"), name, to, .. } => {
                return self.rename_type(kind, name, (None, Some(fold(to))));
            }
            ObjectAst::Rename { kind, name, if_exists, to } => match self.named(kind, name, *if_exists)? {
                Ok(id) => {
                    ObjectCommand::Rename { id, tag: alter_tag(kind), schema: None, name: Some(fold(to)) }
                }
                Err(notice) => return Ok(Command::Notice(alter_tag(kind), notice)),
            },
            ObjectAst::SetSchema { kind: kind @ ("TYPE" | "DOMAIN"), name, to, .. } => {
                return self.rename_type(kind, name, (Some(fold(to)), None));
            }
            ObjectAst::SetSchema { kind, name, if_exists, to } => {
                if is_system_schema(&fold(to)) {
                    let message = format!("permission denied for schema {}", fold(to));
                    return Err(SqlError::insufficient_privilege(message));
                }
                match self.named(kind, name, *if_exists)? {
                    Ok(id) => {
                        ObjectCommand::Rename { id, tag: alter_tag(kind), schema: Some(fold(to)), name: None }
                    }
                    Err(notice) => return Ok(Command::Notice(alter_tag(kind), notice)),
                }
            }
            ObjectAst::RenameViewColumn { name, if_exists, column, to } => {
                match self.named("VIEW", name, *if_exists)? {
                    Ok(id) => ObjectCommand::RenameViewColumn {
                        id,
                        tag: "ALTER VIEW",
                        column: fold(column),
                        to: fold(to),
                    },
                    Err(notice) => return Ok(Command::Notice("ALTER VIEW", notice)),
                }
            }
            ObjectAst::SetOwner { kind, name, if_exists, owner } => {
                let object = if *kind == "SCHEMA" {
                    Object::Schema(self.schema_named(name)?)
                } else if matches!(*kind, "TYPE" | "DOMAIN") {
                    Object::Type(self.type_of_kind(kind, name)?.0.id)
                } else {
                    match self.named(kind, name, *if_exists)? {
                        Ok(id) => Object::Relation(id),
                        Err(notice) => return Ok(Command::Notice(alter_tag(kind), notice)),
                    }
                };
                ObjectCommand::SetOwner { object, tag: alter_tag(kind), owner: owner.clone() }
            }
            ObjectAst::Comment { target, text } => match self.commented(target)? {
                Some(on) => ObjectCommand::Comment { on, text: text.clone() },
                None => return Ok(Command::Nothing("COMMENT")),
            },
            ObjectAst::CreateTableAs(create) => return self.create_table_as(create),
            ObjectAst::Index(index) => return self.index_statement(index),
            ObjectAst::Type(statement) => return self.type_statement(statement),
            ObjectAst::CreateTableLike { create, likes } => return self.create_table(create, likes),
            ObjectAst::AlterTable { name, if_exists, actions } => {
                return self.alter_table_by(name, *if_exists, actions.clone());
            }
        };
        Ok(Command::Object(Box::new(command)))
    }

    /// A relation of this kind, or the notice that says that there is none. 42P01, 42809
    fn named(
        &self,
        kind: &'static str,
        name: &ast::ObjectName,
        if_exists: bool,
    ) -> Result<std::result::Result<TableId, String>> {
        let (shown, found) = self.look_up(name)?;
        match found {
            Some(Named::Relation(relation)) => {
                // ALTER TABLE takes every relation.
                if kind != "TABLE" && !kind.eq_ignore_ascii_case(relation.kind()) {
                    let (_, name) = relation.name();
                    let message = format!("\"{name}\" is not a {}", kind.to_lowercase());
                    return Err(SqlError::wrong_object_type(message));
                }
                Ok(Ok(relation.id()))
            }
            Some(Named::System) => Err(system_relation(&shown)),
            None => {
                let message = format!("relation \"{shown}\" does not exist");
                if if_exists {
                    return Ok(Err(format!("{message}, skipping")));
                }
                Err(SqlError::undefined_table(message))
            }
        }
    }

    /// What a name means, if anything, and how it is shown.
    fn look_up(&self, name: &ast::ObjectName) -> Result<(String, Option<Named>)> {
        let parts = name_parts(name)?;
        let (schema, last) = match &parts[..] {
            [last] => (None, fold(last)),
            [schema, last] | [_, schema, last] => (Some(fold(schema)), fold(last)),
            _ => return Err(SqlError::syntax_error("improper relation name (too many dotted names)")),
        };
        let catalog = &self.context.catalog;
        let relation_in = |schema: &str| match catalog.relation(schema, &last) {
            Some(relation) => Some(Named::Relation(relation.clone())),
            None => system_view(Some(schema), &last).map(|_| Named::System),
        };
        Ok(match &schema {
            Some(schema) => (format!("{schema}.{last}"), relation_in(schema)),
            None => {
                let found = self.schemas().find_map(relation_in);
                (last.clone(), found)
            }
        })
    }

    /// Schemas in which unqualified names are looked for, the implicit one too.
    pub(super) fn schemas(&self) -> impl Iterator<Item = &str> {
        let path = &self.context.search_path;
        let implicit = if path.iter().any(|s| s == "pg_catalog") { None } else { Some("pg_catalog") };
        implicit.into_iter().chain(path.iter().map(String::as_str))
    }

    fn schema_named(&self, name: &ast::ObjectName) -> Result<TableId> {
        let parts = name_parts(name)?;
        let [ident] = &parts[..] else {
            return Err(SqlError::syntax_error("a schema's name has one part"));
        };
        let name = fold(ident);
        match self.context.catalog.schema(&name) {
            Some(schema) => Ok(schema.id),
            None if is_system_schema(&name) || name == "public" => Err(built_in_schema(&name)),
            None => Err(SqlError::invalid_schema_name(format!("schema \"{name}\" does not exist"))),
        }
    }

    /// The options of a sequence; its schema, if it is new.
    pub(super) fn sequence_options(
        &self,
        options: &[SequenceOption],
        _schema: Option<&str>,
    ) -> Result<NewSequence> {
        let mut sequence = NewSequence::default();
        for option in options {
            match option {
                SequenceOption::As(ty) => {
                    let ty = self.data_type(ty)?;
                    if !matches!(ty, DataType::Int2 | DataType::Int4 | DataType::Int8) {
                        return Err(SqlError::invalid_parameter_value(
                            "sequence type must be smallint, integer, or bigint",
                        ));
                    }
                    sequence.ty = Some(ty);
                }
                SequenceOption::Increment(by) => sequence.increment = Some(*by),
                SequenceOption::MinValue(min) => sequence.min = Some(*min),
                SequenceOption::MaxValue(max) => sequence.max = Some(*max),
                SequenceOption::Start(start) => sequence.start = Some(*start),
                SequenceOption::Cache(cache) => sequence.cache = Some(*cache),
                SequenceOption::Cycle(cycle) => sequence.cycle = Some(*cycle),
                SequenceOption::Restart(at) => sequence.restart = Some(*at),
                SequenceOption::OwnedBy(None) => sequence.owned_by = Some(None),
                SequenceOption::OwnedBy(Some(column)) => {
                    sequence.owned_by = Some(Some(self.owner_column(column)?));
                }
            }
        }
        Ok(sequence)
    }

    /// The options in parentheses after AS IDENTITY.
    pub(super) fn identity_options(&self, options: &[SequenceOptions]) -> Result<NewSequence> {
        let mut sequence = NewSequence::default();
        for option in options {
            match option {
                SequenceOptions::IncrementBy(by, _) => sequence.increment = Some(integer(by)?),
                SequenceOptions::MinValue(min) => sequence.min = Some(min.as_ref().map(integer).transpose()?),
                SequenceOptions::MaxValue(max) => sequence.max = Some(max.as_ref().map(integer).transpose()?),
                SequenceOptions::StartWith(start, _) => sequence.start = Some(integer(start)?),
                SequenceOptions::Cache(cache) => sequence.cache = Some(integer(cache)?),
                // The flag says NO.
                SequenceOptions::Cycle(no) => sequence.cycle = Some(!no),
            }
        }
        Ok(sequence)
    }

    /// OWNED BY table.column
    fn owner_column(&self, name: &ast::ObjectName) -> Result<(TableId, ColumnId)> {
        let mut parts = name.0.clone();
        let column = parts.pop().and_then(|p| p.as_ident().map(fold));
        let (Some(column), false) = (column, parts.is_empty()) else {
            return Err(SqlError::syntax_error("invalid OWNED BY option")
                .with_hint("Specify OWNED BY table.column or OWNED BY NONE."));
        };
        let (shown, found) = self.look_up(&ast::ObjectName(parts))?;
        match found {
            Some(Named::Relation(Relation::Table(table))) => match table.column_position(&column) {
                Some(position) => Ok((table.id, table.columns[position].id)),
                None => Err(SqlError::undefined_column(format!(
                    "column \"{column}\" of relation \"{}\" does not exist",
                    table.name
                ))),
            },
            Some(Named::Relation(_)) | Some(Named::System) => {
                Err(SqlError::wrong_object_type(format!("sequence cannot be owned by relation \"{shown}\"")))
            }
            None => Err(SqlError::undefined_table(format!("relation \"{shown}\" does not exist"))),
        }
    }

    /// What COMMENT ON names; `None` if comments on it are accepted and not kept.
    fn commented(&self, target: &CommentTarget) -> Result<Option<Commented>> {
        Ok(Some(match target {
            CommentTarget::Type(name) => Commented::Type(self.type_of_kind("TYPE", name)?.0.id),
            CommentTarget::Relation("INDEX", name) => {
                let (table, index) = self.index_named(name)?;
                Commented::Index(table, index)
            }
            CommentTarget::Relation("TABLE", name) => match self.look_up(name)? {
                (_, Some(Named::Relation(Relation::Table(table)))) => Commented::Relation(table.id),
                (shown, Some(_)) => {
                    return Err(SqlError::wrong_object_type(format!("\"{shown}\" is not a table")));
                }
                (shown, None) => {
                    return Err(SqlError::undefined_table(format!("relation \"{shown}\" does not exist")));
                }
            },
            CommentTarget::Relation(kind, name) => match self.named(kind, name, false)? {
                Ok(id) => Commented::Relation(id),
                Err(_) => return Ok(None),
            },
            CommentTarget::Column(name) => {
                let mut parts = name.0.clone();
                let column = parts.pop().and_then(|p| p.as_ident().map(fold)).unwrap_or_default();
                if parts.is_empty() {
                    return Err(SqlError::syntax_error("column name must be qualified"));
                }
                let relation = ast::ObjectName(parts);
                let (shown, found) = self.look_up(&relation)?;
                match found {
                    Some(Named::Relation(Relation::Table(table))) => {
                        let position = table.column_position(&column).ok_or_else(|| {
                            let name = &table.name;
                            SqlError::undefined_column(format!(
                                "column \"{column}\" of relation \"{name}\" does not exist"
                            ))
                        })?;
                        Commented::Column(table.id, table.columns[position].id)
                    }
                    Some(Named::Relation(other)) => {
                        return Err(SqlError::feature_not_supported(format!(
                            "comments on columns of a {} are not supported",
                            other.kind()
                        )));
                    }
                    Some(Named::System) => return Err(system_relation(&shown)),
                    None => {
                        let error = SqlError::undefined_table(format!("relation \"{shown}\" does not exist"));
                        return Err(self.at(error, relation.span()));
                    }
                }
            }
            CommentTarget::Constraint(name, table) => {
                let name = fold(name);
                let (shown, found) = self.look_up(table)?;
                let Some(Named::Relation(Relation::Table(table))) = found else {
                    return Err(SqlError::undefined_table(format!("relation \"{shown}\" does not exist")));
                };
                if table.all_indexes().any(|i| i.constraint && i.name == name) {
                    Commented::Index(table.id, name)
                } else if table.foreign_keys.iter().any(|k| k.name == name) {
                    Commented::ForeignKey(table.id, name)
                } else if table.checks.iter().any(|c| c.name == name) {
                    return Err(SqlError::feature_not_supported(
                        "comments on CHECK constraints are not supported",
                    ));
                } else {
                    return Err(SqlError::undefined_object(format!(
                        "constraint \"{name}\" for table \"{}\" does not exist",
                        table.name
                    )));
                }
            }
            CommentTarget::Schema(name) => {
                let folded = fold(name);
                if folded == "public" {
                    return Ok(None);
                }
                Commented::Schema(self.schema_named(&ast::ObjectName::from(vec![name.clone()]))?)
            }
            CommentTarget::Database(name) => {
                return Err(SqlError::feature_not_supported(format!(
                    "a comment on database \"{}\" cannot be kept",
                    fold(name)
                )));
            }
        }))
    }

    /// An index by its name: its table and its own name. 42P01
    fn index_named(&self, name: &ast::ObjectName) -> Result<(TableId, String)> {
        let parts = name_parts(name)?;
        let schema = parts.len().checked_sub(2).map(|i| fold(parts[i]));
        let bare = parts.last().map(|i| fold(i)).unwrap_or_default();
        match self.find_index(&bare) {
            Some((table, index)) if schema.as_ref().is_none_or(|s| *s == table.schema) => {
                Ok((table.id, index.name.clone()))
            }
            _ => Err(SqlError::undefined_table(format!("relation \"{bare}\" does not exist"))),
        }
    }

    /// DROP TABLE | VIEW | SEQUENCE | SCHEMA.
    pub(super) fn drop_objects(
        &mut self,
        object_type: &ObjectType,
        if_exists: bool,
        names: &[ast::ObjectName],
        cascade: bool,
    ) -> Result<Command> {
        let (kind, tag) = match object_type {
            ObjectType::Table => ("TABLE", "DROP TABLE"),
            ObjectType::View => ("VIEW", "DROP VIEW"),
            ObjectType::Sequence => ("SEQUENCE", "DROP SEQUENCE"),
            _ => ("SCHEMA", "DROP SCHEMA"),
        };
        let (mut objects, mut notices) = (Vec::new(), Vec::new());
        for name in names {
            let found = if kind == "SCHEMA" {
                match self.schema_named(name) {
                    Ok(id) => Ok(Object::Schema(id)),
                    Err(error) if error.sqlstate == "3F000" => Err(error),
                    Err(error) => return Err(error),
                }
            } else {
                let (shown, found) = self.look_up(name)?;
                match found {
                    Some(Named::Relation(relation)) if kind.eq_ignore_ascii_case(relation.kind()) => {
                        if let Relation::Table(table) = &relation {
                            self.use_table(table);
                        }
                        Ok(Object::Relation(relation.id()))
                    }
                    Some(Named::Relation(relation)) => return Err(wrong_kind(kind, &relation)),
                    Some(Named::System) => return Err(system_relation(&shown)),
                    None => {
                        let missing = self.missing_schema(name)?.filter(|_| if_exists);
                        let message = match missing {
                            Some(schema) => format!("schema \"{schema}\" does not exist"),
                            None => {
                                let bare = name_parts(name)?.last().map(|i| fold(i)).unwrap_or_default();
                                let bare = if if_exists { bare } else { shown_name(name)? };
                                format!("{} \"{bare}\" does not exist", kind.to_lowercase())
                            }
                        };
                        Err(SqlError::undefined_table(message))
                    }
                }
            };
            match found {
                Ok(object) if objects.contains(&object) => {}
                Ok(object) => objects.push(object),
                Err(error) if if_exists => notices.push(format!("{}, skipping", error.message)),
                Err(error) => return Err(error),
            }
        }
        Ok(Command::Object(Box::new(ObjectCommand::Drop { tag, objects, cascade, notices })))
    }

    /// The schema that a name is qualified with, if there is no such schema.
    fn missing_schema(&self, name: &ast::ObjectName) -> Result<Option<String>> {
        let parts = name_parts(name)?;
        let schema = parts.len().checked_sub(2).map(|i| fold(parts[i]));
        Ok(schema.filter(|s| !self.schema_exists(s)))
    }

    /// TRUNCATE.
    pub(super) fn truncate(&mut self, truncate: &ast::Truncate) -> Result<Command> {
        if truncate.partitions.is_some() || truncate.on_cluster.is_some() || truncate.if_exists {
            return Err(SqlError::syntax_error("this form of TRUNCATE is not PostgreSQL"));
        }
        let mut tables = Vec::new();
        for target in &truncate.table_names {
            let (shown, found) = self.look_up(&target.name)?;
            match found {
                Some(Named::Relation(Relation::Table(table))) => {
                    self.use_table(&table);
                    if !tables.contains(&table.id) {
                        tables.push(table.id);
                    }
                }
                Some(Named::Relation(other)) => {
                    return Err(SqlError::wrong_object_type(format!(
                        "\"{}\" is not a table",
                        other.name().1
                    )));
                }
                Some(Named::System) => return Err(system_relation(&shown)),
                None => {
                    return Err(SqlError::undefined_table(format!("relation \"{shown}\" does not exist")));
                }
            }
        }
        let restart = matches!(truncate.identity, Some(TruncateIdentityOption::Restart));
        let cascade = matches!(truncate.cascade, Some(CascadeOption::Cascade));
        Ok(Command::Object(Box::new(ObjectCommand::Truncate { tables, restart, cascade })))
    }

    /// True of the schemas there are.
    pub(super) fn schema_exists(&self, name: &str) -> bool {
        name == "public" || is_system_schema(name) || self.context.catalog.schema(name).is_some()
    }
}

/// `s.t`, or `t`: as the statement has it.
fn shown_name(name: &ast::ObjectName) -> Result<String> {
    let parts = name_parts(name)?;
    let from = parts.len().saturating_sub(2);
    Ok(parts[from..].iter().map(|i| fold(i)).collect::<Vec<_>>().join("."))
}

/// A whole number of an identity's option.
fn integer(e: &ast::Expr) -> Result<i64> {
    let (negative, e) = match e {
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => (true, &**expr),
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Plus, expr } => (false, &**expr),
        other => (false, other),
    };
    let digits = match e {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(digits, _) => Some(digits),
            _ => None,
        },
        _ => None,
    };
    let digits = digits.ok_or_else(|| SqlError::syntax_error("a sequence's option is a whole number"))?;
    let text = if negative { format!("-{digits}") } else { digits.clone() };
    text.parse().map_err(|_| {
        SqlError::numeric_value_out_of_range(format!("value \"{text}\" is out of range for type bigint"))
    })
}

fn alter_tag(kind: &str) -> &'static str {
    match kind {
        "VIEW" => "ALTER VIEW",
        "SEQUENCE" => "ALTER SEQUENCE",
        "TABLE" => "ALTER TABLE",
        "TYPE" => "ALTER TYPE",
        "DOMAIN" => "ALTER DOMAIN",
        _ => "ALTER SCHEMA",
    }
}

/// 42809: a table where a view was named, and the like.
fn wrong_kind(wanted: &str, found: &Relation) -> SqlError {
    let (_, name) = found.name();
    let kind = found.kind();
    let wanted = wanted.to_lowercase();
    let article = if kind == "index" { "an" } else { "a" };
    SqlError::wrong_object_type(format!("\"{name}\" is not a {wanted}"))
        .with_hint(format!("Use DROP {} to remove {article} {kind}.", kind.to_uppercase()))
}

fn system_relation(name: &str) -> SqlError {
    SqlError::insufficient_privilege(format!("permission denied: \"{name}\" is a system catalog"))
}

fn built_in_schema(name: &str) -> SqlError {
    SqlError::dependent_objects_still_exist(format!(
        "cannot drop schema {} because it is required by the database system",
        quoted(name)
    ))
}

//! CREATE INDEX and DROP.

use amphora_storage::schema::IndexId;
use sqlparser::ast;
use sqlparser::ast::ObjectType;

use super::ddl::{MAX_KEY_COLUMNS, check_key_type, made_up_name};
use super::from::Found;
use super::{Binder, fold, name_parts};
use crate::command::{Command, CreateIndex};
use crate::error::{Result, SqlError};

impl Binder<'_> {
    pub(super) fn create_index(&mut self, create: &ast::CreateIndex) -> Result<Command> {
        let table = match self.find_relation(&create.table_name)? {
            Found::Table(table) => table,
            Found::View(view) => return Err(no_index_on(view.name, "views")),
            Found::UserView(view) => return Err(no_index_on(&view.name, "views")),
            Found::Sequence(sequence) => return Err(no_index_on(&sequence.name, "sequences")),
        };
        self.use_table(&table);
        if !table.is_strong() {
            return Err(SqlError::feature_not_supported(
                "CREATE INDEX is not yet supported on leaderless tables",
            )
            .with_hint("Choose a PRIMARY KEY whose first columns are what you search by."));
        }
        let what = match &create.using {
            Some(ast::IndexType::BTree | ast::IndexType::Hash) | None => None,
            Some(other) => Some(format!("access method {}", other.to_string().to_lowercase())),
        };
        let what = what
            .or(create.predicate.as_ref().map(|_| "a partial index".to_owned()))
            .or((!create.include.is_empty()).then(|| "INCLUDE".to_owned()))
            .or((create.nulls_distinct == Some(false)).then(|| "NULLS NOT DISTINCT".to_owned()));
        if let Some(what) = what {
            return Err(SqlError::feature_not_supported(format!("{what} is not supported")).with_hint(
                "An index has columns of its table, for all of the rows; a btree is what there is.",
            ));
        }
        let mut columns: Vec<usize> = Vec::with_capacity(create.columns.len());
        for column in &create.columns {
            let ast::Expr::Identifier(ident) = &column.column.expr else {
                return Err(SqlError::feature_not_supported("indexes on expressions are not yet supported")
                    .with_hint("Keep the expression's value in a column of its own, and index that."));
            };
            let name = fold(ident);
            let position = table.column_position(&name).ok_or_else(|| {
                self.at(SqlError::undefined_column(format!("column \"{name}\" does not exist")), ident.span)
            })?;
            check_key_type(&table.columns[position].ty, &name)?;
            if !columns.contains(&position) {
                columns.push(position);
            }
        }
        if columns.len() > MAX_KEY_COLUMNS {
            return Err(SqlError::new(
                "54011",
                format!("cannot use more than {MAX_KEY_COLUMNS} columns in an index"),
            ));
        }
        let taken = |name: &str| {
            self.context.catalog.table(&table.schema, name).is_some() || self.find_index(name).is_some()
        };
        let name = match &create.name {
            Some(name) => {
                let parts = name_parts(name)?;
                let name = parts.last().map(|i| fold(i)).unwrap_or_default();
                if taken(&name) {
                    let message = format!("relation \"{name}\" already exists");
                    if create.if_not_exists {
                        return Ok(Command::Notice("CREATE INDEX", format!("{message}, skipping")));
                    }
                    return Err(SqlError::duplicate_table(message));
                }
                name
            }
            None => {
                let names: Vec<&str> = columns.iter().map(|&c| table.columns[c].name.as_str()).collect();
                made_up_name(&table.name, &names, "idx", taken)
            }
        };
        Ok(Command::CreateIndex(Box::new(CreateIndex {
            table: table.id,
            name,
            if_not_exists: create.if_not_exists,
            columns,
            unique: create.unique,
        })))
    }

    pub(super) fn drop(
        &mut self,
        object_type: &ObjectType,
        if_exists: bool,
        names: &[ast::ObjectName],
        cascade: bool,
    ) -> Result<Command> {
        match object_type {
            ObjectType::Table | ObjectType::View | ObjectType::Sequence | ObjectType::Schema => {
                self.drop_objects(object_type, if_exists, names, cascade)
            }
            ObjectType::Index => self.drop_indexes(if_exists, names),
            other => {
                // There are no objects of these kinds, so none of this name either.
                let kind = other.to_string().to_lowercase();
                let name = names.first().map(|n| n.to_string()).unwrap_or_default();
                let message = format!("{kind} \"{name}\" does not exist");
                if if_exists {
                    return Ok(Command::Notice(drop_tag(other), format!("{message}, skipping")));
                }
                Err(match other {
                    ObjectType::MaterializedView => SqlError::undefined_table(message),
                    ObjectType::Database | ObjectType::Role | ObjectType::User => {
                        SqlError::feature_not_supported(format!(
                            "DROP {} is not supported",
                            kind.to_uppercase()
                        ))
                    }
                    _ => SqlError::undefined_object(message),
                })
            }
        }
    }

    fn drop_indexes(&mut self, if_exists: bool, names: &[ast::ObjectName]) -> Result<Command> {
        let (mut indexes, mut notices, mut used) = (Vec::new(), Vec::new(), Vec::new());
        for name in names {
            let parts = name_parts(name)?;
            let bare = parts.last().map(|i| fold(i)).unwrap_or_default();
            match self.find_index(&bare) {
                Some((table, index)) if index.constraint || index.id == IndexId::PRIMARY => {
                    return Err(SqlError::dependent_objects_still_exist(format!(
                        "cannot drop index {bare} because constraint {bare} on table {} requires it",
                        table.name
                    ))
                    .with_hint(format!("You can drop constraint {bare} on table {} instead.", table.name)));
                }
                Some((table, _)) => {
                    indexes.push((table.id, bare));
                    used.push(table.clone());
                }
                None => {
                    let message = format!("index \"{bare}\" does not exist");
                    if !if_exists {
                        return Err(SqlError::undefined_object(message));
                    }
                    notices.push(format!("{message}, skipping"));
                }
            }
        }
        used.iter().for_each(|table| self.use_table(table));
        Ok(Command::DropIndexes { indexes, notices })
    }
}

fn no_index_on(name: &str, kind: &str) -> SqlError {
    SqlError::wrong_object_type(format!("cannot create index on relation \"{name}\""))
        .with_detail(format!("This operation is not supported for {kind}."))
}

fn drop_tag(object: &ObjectType) -> &'static str {
    match object {
        ObjectType::MaterializedView => "DROP MATERIALIZED VIEW",
        ObjectType::Role | ObjectType::User => "DROP ROLE",
        ObjectType::Type => "DROP TYPE",
        ObjectType::Database => "DROP DATABASE",
        _ => "DROP",
    }
}

//! CREATE INDEX and DROP.

use std::sync::Arc;

use amphora_storage::DataType;
use amphora_storage::schema::{Index, IndexExpression, IndexId, IndexMethod, KeyOrder, Table, TableId};
use sqlparser::ast;
use sqlparser::ast::{ObjectType, Spanned};

use super::ddl::{MAX_KEY_COLUMNS, check_key_type, made_up_name};
use super::from::Found;
use super::level::Clause;
use super::select::output_name;
use super::{Binder, fold, name_parts};
use crate::catalog::operator_class_fits;
use crate::command::{Command, CreateIndex};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::frontend::PlannerContext;
use crate::index::is_mutable;
use crate::parser::{IndexAst, IndexChange};

/// Binds what an index's texts say: its expressions and its predicate, over the table's row.
pub(crate) fn index_texts(table: &Table, index: &Index) -> Result<(Vec<Expr>, Option<Expr>)> {
    let context = PlannerContext::new(Arc::default());
    let mut binder = Binder::new(&context, None);
    let table = Arc::new(table.clone());
    let mut expressions = Vec::with_capacity(index.expressions.len());
    for expression in &index.expressions {
        let bound = binder.stored_expr(&expression.text, Some(&table), &DataType::Unknown)?;
        expressions.push(binder.settle(bound)?);
    }
    let predicate = match &index.predicate {
        Some(text) => Some(binder.stored_expr(text, Some(&table), &DataType::Bool)?),
        None => None,
    };
    Ok((expressions, predicate))
}

/// Binds a condition over a row of these columns.
#[cfg(test)]
pub(crate) fn condition_over(columns: Vec<amphora_storage::schema::Column>, text: &str) -> Result<Expr> {
    let context = PlannerContext::new(Arc::default());
    let table = Arc::new(row_of(columns));
    Binder::new(&context, None).stored_expr(text, Some(&table), &DataType::Bool)
}

/// A table of which nothing is known but its columns.
#[cfg(test)]
fn row_of(columns: Vec<amphora_storage::schema::Column>) -> Table {
    use amphora_storage::schema::{Quorum, Replication, TableId};
    Table {
        id: TableId(0),
        version: amphora_storage::Timestamp::ZERO,
        schema: "public".into(),
        name: "t".into(),
        owner: String::new(),
        replication: Replication::Strong,
        columns,
        primary: Index::of_constraint(IndexId::PRIMARY, "t_pkey", 0, Vec::new()),
        hidden_key: false,
        indexes: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        comment: None,
        next_column_id: 0,
        next_index_id: 0,
        storage: None,
        write_quorum: Quorum::ONE,
        read_quorum: Quorum::ONE,
    }
}

impl Binder<'_> {
    pub(super) fn create_index(&mut self, create: &ast::CreateIndex) -> Result<Command> {
        let table = match self.find_relation(&create.table_name)? {
            Found::Table(table) => table,
            Found::View(view) => return Err(no_index_on(view.name, "views")),
            Found::UserView(view) => return Err(no_index_on(&view.name, "views")),
            Found::Sequence(sequence) => return Err(no_index_on(&sequence.name, "sequences")),
        };
        self.use_table(&table);
        let method = match &create.using {
            Some(ast::IndexType::BTree | ast::IndexType::Hash) | None => IndexMethod::BTree,
            Some(ast::IndexType::GIN) if !table.is_strong() => IndexMethod::Gin,
            Some(other) => {
                let method = other.to_string().to_lowercase();
                let error = match method.as_str() {
                    "gin" | "gist" | "spgist" | "brin" => no_method(&method),
                    _ => SqlError::undefined_object(format!("access method \"{method}\" does not exist")),
                };
                return Err(error);
            }
        };
        if !table.is_strong() {
            leaderless_index(create, method, &table)?;
        }
        let mut index = Index::new(IndexId::PRIMARY, "", 0, Vec::with_capacity(create.columns.len()));
        index.method = method;
        let mut names = Vec::with_capacity(create.columns.len() + create.include.len());
        for column in &create.columns {
            self.index_column(&table, column, &mut index, &mut names)?;
        }
        for ident in &create.include {
            let name = fold(ident);
            let position = table
                .column_position(&name)
                .ok_or_else(|| SqlError::undefined_column(format!("column \"{name}\" does not exist")))?;
            if let DataType::Crdt(_) = table.columns[position].ty {
                return Err(SqlError::feature_not_supported(format!(
                    "the CRDT column \"{name}\" cannot be included in an index"
                ))
                .with_hint("Index it, or leave it out: the row is fetched for it."));
            }
            index.include.push(position);
            names.push(unused_name(name, &names));
        }
        if index.columns.len() + index.include.len() > MAX_KEY_COLUMNS {
            return Err(SqlError::new(
                "54011",
                format!("cannot use more than {MAX_KEY_COLUMNS} columns in an index"),
            ));
        }
        if let Some(predicate) = &create.predicate {
            let bound = self
                .table_expr(predicate, Some(&table), &DataType::Unknown, Clause::IndexPredicate)
                .and_then(|bound| self.boolean(bound, "WHERE"))
                .map_err(|error| self.at(error, predicate.span()))?;
            if is_mutable(&bound) {
                return Err(SqlError::new("42P17", "functions in index predicate must be marked IMMUTABLE"));
            }
            index.predicate = Some(predicate.to_string());
        }
        index.options = index_options(&create.with)?;
        index.unique = create.unique;
        index.nulls_not_distinct = create.nulls_distinct == Some(false);
        let taken = |name: &str| {
            self.context.catalog.relation(&table.schema, name).is_some()
                || self.find_index(name).is_some_and(|(other, _)| other.schema == table.schema)
        };
        index.name = match &create.name {
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
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                made_up_name(&table.name, &names, "idx", taken)
            }
        };
        Ok(Command::CreateIndex(Box::new(CreateIndex {
            table: table.id,
            index,
            if_not_exists: create.if_not_exists,
            concurrently: create.concurrently,
        })))
    }

    /// One of the things that are indexed. `names` are what the index's attributes are called so far.
    fn index_column(
        &mut self,
        table: &Arc<Table>,
        column: &ast::IndexColumn,
        index: &mut Index,
        names: &mut Vec<String>,
    ) -> Result<()> {
        let mut e = &column.column.expr;
        if let ast::Expr::Collate { expr, collation } = e {
            check_collation(collation)?;
            e = expr;
        }
        let (position, ty) = match e {
            ast::Expr::Identifier(ident) => {
                let name = fold(ident);
                let position = table
                    .column_position(&name)
                    .ok_or_else(|| SqlError::undefined_column(format!("column \"{name}\" does not exist")))?;
                names.push(unused_name(name, names));
                (position, table.columns[position].ty.clone())
            }
            e => {
                let bound = self
                    .table_expr(e, Some(table), &DataType::Unknown, Clause::IndexExpression)
                    .and_then(|bound| self.settle(bound))
                    .map_err(|error| self.at(error, e.span()))?;
                match bound {
                    Expr::Column(position, _) => {
                        names.push(unused_name(table.columns[position].name.clone(), names));
                        (position, table.columns[position].ty.clone())
                    }
                    bound => {
                        if is_mutable(&bound) {
                            let message = "functions in index expression must be marked IMMUTABLE";
                            return Err(SqlError::new("42P17", message));
                        }
                        let name = match output_name(e) {
                            name if name == "?column?" => "expr".to_owned(),
                            name => name,
                        };
                        let name = unused_name(name, names);
                        names.push(name.clone());
                        let ty = bound.ty();
                        let inner = match e {
                            ast::Expr::Nested(inner) => inner,
                            other => other,
                        };
                        let place = Index::EXPRESSION + index.expressions.len();
                        let text = inner.to_string();
                        index.expressions.push(IndexExpression { text, name, ty: ty.clone() });
                        (place, ty)
                    }
                }
            }
        };
        check_key_type(&ty, "")?;
        let name = names.last().map_or("", |n| n);
        if index.is_of_elements() {
            elements_of(&ty, position, name)?;
        } else if let DataType::Crdt(_) = &ty
            && matches!(ty.base(), DataType::Array(_) | DataType::Jsonb)
        {
            return Err(whole_document(&ty, name));
        }
        if matches!(ty, DataType::Record | DataType::Row(_) | DataType::Void) {
            let message = format!("column \"{}\" has pseudo-type {ty}", names.last().map_or("", |n| n));
            return Err(SqlError::new("42P16", message));
        }
        let class = match &column.operator_class {
            Some(class) => {
                let name = name_parts(class)?.last().map(|i| fold(i)).unwrap_or_default();
                match index.is_of_elements() {
                    true if name != "array_ops" => {
                        return Err(SqlError::undefined_object(format!(
                            "operator class \"{name}\" does not exist for access method \"gin\""
                        )));
                    }
                    true => {}
                    false => operator_class_fits(&name, &ty)?,
                }
                Some(name)
            }
            None => None,
        };
        if class.is_some() {
            index.classes.resize(index.columns.len(), None);
            index.classes.push(class);
        } else if !index.classes.is_empty() {
            index.classes.push(None);
        }
        let descending = match &column.column.options.sort {
            Some(ast::OrderBySort::Desc) => true,
            Some(ast::OrderBySort::Asc) | None => false,
            Some(_) => return Err(SqlError::syntax_error("an index's column is ordered ASC or DESC")),
        };
        let options = &column.column.options;
        if index.is_of_elements() && (options.sort.is_some() || options.nulls_first.is_some()) {
            return Err(SqlError::feature_not_supported(
                "access method \"gin\" does not support ASC/DESC options",
            ));
        }
        let nulls_first = column.column.options.nulls_first.unwrap_or(descending);
        let order = KeyOrder { descending, nulls_first };
        if order != KeyOrder::default() {
            index.orders.resize(index.columns.len(), KeyOrder::default());
            index.orders.push(order);
        } else if !index.orders.is_empty() {
            index.orders.push(order);
        }
        index.columns.push(position);
        Ok(())
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

    /// DROP INDEX, ALTER INDEX, REINDEX.
    pub(super) fn index_statement(&mut self, statement: &IndexAst) -> Result<Command> {
        match statement {
            IndexAst::Drop { names, if_exists, concurrently, cascade } => {
                let refused = match (names.len() > 1, *cascade) {
                    (true, _) => Some("dropping multiple objects"),
                    (_, true) => Some("CASCADE"),
                    _ => None,
                };
                if let Some(what) = refused.filter(|_| *concurrently) {
                    return Err(SqlError::feature_not_supported(format!(
                        "DROP INDEX CONCURRENTLY does not support {what}"
                    )));
                }
                self.drop_indexes(*if_exists, *concurrently, names)
            }
            IndexAst::Alter { name, if_exists, change } => self.alter_index(name, *if_exists, change),
            IndexAst::Reindex { kind, name, concurrently } => {
                self.reindex(kind, name.as_ref(), *concurrently)
            }
        }
    }

    fn alter_index(
        &mut self,
        name: &ast::ObjectName,
        if_exists: bool,
        change: &IndexChange,
    ) -> Result<Command> {
        let old = name_parts(name)?.last().map(|i| fold(i)).unwrap_or_default();
        let Some((table, index)) = self.find_index(&old) else {
            let message = format!("relation \"{old}\" does not exist");
            if if_exists {
                return Ok(Command::Notice("ALTER INDEX", format!("{message}, skipping")));
            }
            return Err(match self.find_relation(name) {
                Ok(_) => SqlError::wrong_object_type(format!("\"{old}\" is not an index")),
                Err(_) => SqlError::undefined_table(message),
            });
        };
        let (table, index) = (table.clone(), index.clone());
        self.use_table(&table);
        let mut options = index.options.clone();
        match change {
            IndexChange::Rename(new) => {
                return Ok(Command::RenameIndex { table: table.id, old, new: fold(new) });
            }
            IndexChange::Set(new) => {
                for (name, value) in new {
                    check_index_option(name, value)?;
                    options.retain(|(known, _)| known != name);
                    options.push((name.clone(), value.clone()));
                }
            }
            IndexChange::Reset(names) => options.retain(|(known, _)| !names.contains(known)),
            IndexChange::Statistics(number) => {
                let place = usize::try_from(number - 1).ok();
                let column = place.and_then(|place| index.columns.get(place));
                return match column {
                    None => Err(SqlError::undefined_column(format!(
                        "column number {number} of relation \"{old}\" does not exist"
                    ))),
                    Some(column) if *column < Index::EXPRESSION => {
                        Err(SqlError::feature_not_supported(format!(
                            "cannot alter statistics on non-expression column \"{}\" of index \"{old}\"",
                            table.columns[*column].name
                        ))
                        .with_hint("Alter statistics on table column instead."))
                    }
                    Some(_) => Ok(Command::Nothing("ALTER INDEX")),
                };
            }
        }
        Ok(Command::SetIndexOptions { table: table.id, index: index.id, options })
    }

    fn reindex(&mut self, kind: &str, name: Option<&ast::ObjectName>, concurrently: bool) -> Result<Command> {
        let bare = match name {
            Some(name) => name_parts(name)?.last().map(|i| fold(i)).unwrap_or_default(),
            None => String::new(),
        };
        match (kind, name) {
            ("index", Some(name)) if self.find_index(&bare).is_none() => {
                return Err(match self.find_relation(name) {
                    Ok(_) => SqlError::wrong_object_type(format!("\"{bare}\" is not an index")),
                    Err(_) => SqlError::undefined_table(format!("relation \"{bare}\" does not exist")),
                });
            }
            ("table", Some(name)) => match self.find_relation(name) {
                Ok(Found::Table(_)) => {}
                Err(_) if self.find_index(&bare).is_none() => {
                    return Err(SqlError::undefined_table(format!("relation \"{bare}\" does not exist")));
                }
                _ => {
                    let message = format!("\"{bare}\" is not a table or materialized view");
                    return Err(SqlError::wrong_object_type(message));
                }
            },
            ("schema", Some(_)) if !self.schema_exists(&bare) => {
                return Err(SqlError::invalid_schema_name(format!("schema \"{bare}\" does not exist")));
            }
            _ => {}
        }
        let alone = match (kind, concurrently) {
            (_, true) => Some("REINDEX CONCURRENTLY"),
            ("schema", _) => Some("REINDEX SCHEMA"),
            ("database", _) => Some("REINDEX DATABASE"),
            ("system", _) => Some("REINDEX SYSTEM"),
            _ => None,
        };
        let renew = self.reindexed(kind, &bare);
        Ok(Command::Reindex { alone, renew })
    }

    /// The indexes of leaderless tables that REINDEX names.
    fn reindexed(&mut self, kind: &str, name: &str) -> Vec<(TableId, Option<String>)> {
        if kind == "index" {
            let found = self
                .find_index(name)
                .filter(|(table, index)| !table.is_strong() && index.id != IndexId::PRIMARY);
            return found.map(|(table, index)| (table.id, Some(index.name.clone()))).into_iter().collect();
        }
        let tables = self.context.catalog.tables().filter(|t| !t.is_strong() && !t.indexes.is_empty());
        let named = |table: &&Arc<Table>| match kind {
            "table" => table.name == name,
            "schema" => table.schema == name,
            _ => true,
        };
        tables.filter(named).map(|table| (table.id, None)).collect()
    }

    fn drop_indexes(
        &mut self,
        if_exists: bool,
        concurrently: bool,
        names: &[ast::ObjectName],
    ) -> Result<Command> {
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
        Ok(Command::DropIndexes { indexes, notices, concurrently })
    }
}

/// What an index of a leaderless table cannot be: nodes write at the same time, so that none of them could keep rows
/// apart. 0A000
fn leaderless_index(create: &ast::CreateIndex, method: IndexMethod, table: &Table) -> Result<()> {
    if create.unique {
        return Err(no_unique_index(&table.name));
    }
    if method == IndexMethod::BTree {
        return Ok(());
    }
    if !create.include.is_empty() {
        return Err(SqlError::feature_not_supported(
            "access method \"gin\" does not support included columns",
        ));
    }
    if create.columns.len() > 1 {
        return Err(SqlError::feature_not_supported("an index USING gin is of one column here")
            .with_hint("Make an index of each column."));
    }
    Ok(())
}

/// 0A000
pub(super) fn no_unique_index(table: &str) -> SqlError {
    SqlError::feature_not_supported(format!(
        "UNIQUE indexes are not supported on leaderless table \"{table}\""
    ))
    .with_hint("Make these columns the PRIMARY KEY, or make the table strong (replication = 'strong').")
}

/// 0A000
pub(super) fn no_method(method: &str) -> SqlError {
    SqlError::feature_not_supported(format!("access method {method} is not supported")).with_hint(
        "A btree is what there is; an expression of what you search for can be indexed, like (data->>'key').",
    )
}

/// 0A000 for what has no elements.
fn elements_of(ty: &DataType, position: usize, name: &str) -> Result<()> {
    if position >= Index::EXPRESSION {
        return Err(SqlError::feature_not_supported(
            "an index USING gin is of a column here, not of an expression",
        )
        .with_hint("Keep what you search for in a column of its own, a crdt_set for example."));
    }
    match ty.base() {
        DataType::Array(_) => Ok(()),
        base => Err(SqlError::feature_not_supported(format!(
            "column \"{name}\" of type {base} cannot be indexed USING gin"
        ))
        .with_hint(
            "Sets and arrays can; of a document, an expression of what you search for can be indexed, like (data->>'key').",
        )),
    }
}

/// 0A000 for a column that is searched by parts.
fn whole_document(ty: &DataType, name: &str) -> SqlError {
    let error = SqlError::feature_not_supported(format!(
        "column \"{name}\" of type {ty} cannot be indexed as a whole"
    ));
    match ty.base() {
        DataType::Array(_) => error.with_hint("Index its elements: CREATE INDEX … USING gin (…)."),
        _ => error.with_hint("Index an expression of what you search for, like ((data->>'key'))."),
    }
}

/// A name that no attribute of the index has yet.
pub(crate) fn unused_name(name: String, names: &[String]) -> String {
    let mut made = name.clone();
    let mut number = 0;
    while names.contains(&made) {
        number += 1;
        made = format!("{name}{number}");
    }
    made
}

/// 42704
pub(super) fn check_collation(collation: &ast::ObjectName) -> Result<()> {
    let last = collation.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
    if matches!(last.as_str(), "default" | "C" | "c" | "POSIX" | "ucs_basic") {
        return Ok(());
    }
    let message = format!("collation \"{last}\" for encoding \"UTF8\" does not exist");
    Err(SqlError::undefined_object(message))
}

/// The options in WITH: known by name, kept, and without effect. 22023
fn index_options(with: &[ast::Expr]) -> Result<Vec<(String, String)>> {
    let mut options = Vec::with_capacity(with.len());
    for option in with {
        let (name, value) = match option {
            ast::Expr::BinaryOp { left, op: ast::BinaryOperator::Eq, right } => {
                let value = match &**right {
                    ast::Expr::Value(v) => v.value.clone().into_string().unwrap_or_else(|| right.to_string()),
                    other => other.to_string(),
                };
                (left.to_string().to_lowercase(), value)
            }
            other => (other.to_string().to_lowercase(), "true".to_owned()),
        };
        check_index_option(&name, &value)?;
        options.push((name, value));
    }
    Ok(options)
}

/// 22023 for an option that no btree has, or a value that it cannot have.
fn check_index_option(name: &str, value: &str) -> Result<()> {
    match name {
        "fillfactor" => {
            let number = value.parse::<i64>().map_err(|_| {
                SqlError::invalid_parameter_value(format!(
                    "invalid value for integer option \"fillfactor\": {value}"
                ))
            })?;
            if !(10..=100).contains(&number) {
                return Err(SqlError::invalid_parameter_value(format!(
                    "value {value} out of bounds for option \"fillfactor\""
                ))
                .with_detail("Valid values are between \"10\" and \"100\"."));
            }
            Ok(())
        }
        "deduplicate_items" => Ok(()),
        other => Err(SqlError::invalid_parameter_value(format!("unrecognized parameter \"{other}\""))),
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

//! CREATE TABLE: checked here, carried out by the session.
//!
//! What concurrent writers could break on a leaderless table is refused here, when the table is made, with
//! a hint that says what to do instead: unique constraints beyond the key, foreign keys, and checks that
//! see more than one last-writer-wins column.

use std::sync::Arc;

use amphora_storage::schema::{
    Column, ColumnId, Identity, Index, IndexId, Quorum, Replication, Table, TableId,
};
use amphora_storage::{DataType, Timestamp};
use sqlparser::ast;
use sqlparser::ast::{ColumnOption, GeneratedAs, Spanned, TableConstraint};

use super::foreign_key::timing;
use super::level::Clause;
use super::table_option::{TableOptions, table_options};
use super::{Binder, fold, name_parts};
use crate::command::{Command, CreateTable, NewColumn, NewSequence};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::functions::Volatility;
use crate::parser::LikeClause;

/// PostgreSQL's limit.
const MAX_COLUMNS: usize = 1600;
/// PostgreSQL's limit.
pub(super) const MAX_KEY_COLUMNS: usize = 32;

/// A table being described.
pub(super) struct Draft {
    pub(super) table: CreateTable,
    /// Every constraint name so far
    names: Vec<String>,
    /// Names made up here must not be these either
    taken: Vec<String>,
}

impl Binder<'_> {
    pub(super) fn create_table(
        &mut self,
        create: &ast::CreateTable,
        likes: &[LikeClause],
    ) -> Result<Command> {
        reject(create)?;
        let (schema, name) = self.new_name(&create.name)?;
        let index = self.find_index(&name).is_some_and(|(table, _)| table.schema == schema);
        if self.context.catalog.relation(&schema, &name).is_some() || index {
            let message = format!("relation \"{name}\" already exists");
            if create.if_not_exists {
                return Ok(Command::Notice("CREATE TABLE", format!("{message}, skipping")));
            }
            return Err(SqlError::duplicate_table(message));
        }
        let TableOptions { replication, write_quorum, read_quorum } = table_options(&create.table_options)?;
        let table = CreateTable {
            schema,
            name,
            if_not_exists: create.if_not_exists,
            replication,
            columns: Vec::with_capacity(create.columns.len()),
            primary_key: None,
            uniques: Vec::new(),
            indexes: Vec::new(),
            checks: Vec::new(),
            foreign_keys: Vec::new(),
            parents: Vec::new(),
            write_quorum,
            read_quorum,
            notices: Vec::new(),
        };
        let mut draft = Draft { table, names: Vec::new(), taken: Vec::new() };
        if create.columns.len() > MAX_COLUMNS {
            return Err(SqlError::new("54011", format!("tables can have at most {MAX_COLUMNS} columns")));
        }
        // Where the statement's own columns are among those of LIKE.
        let mut own = Vec::with_capacity(create.columns.len());
        for at in 0..=create.columns.len() {
            for like in likes.iter().filter(|like| like.at == at) {
                self.like_columns(&mut draft, like)?;
            }
            if let Some(column) = create.columns.get(at) {
                own.push((draft.table.columns.len(), column));
                self.new_column(&mut draft, column)?;
            }
        }
        for &(position, column) in &own {
            self.check_generated(&draft, position, column)?;
        }
        for like in likes {
            self.like_constraints(&mut draft, like)?;
        }
        for &(position, column) in &own {
            for option in &column.options {
                self.column_constraint(&mut draft, position, option)?;
            }
        }
        for constraint in &create.constraints {
            self.table_constraint(&mut draft, constraint)?;
        }
        // Last, for they may refer to the table's own keys.
        for &(position, column) in &own {
            for option in &column.options {
                if let ColumnOption::ForeignKey(key) = &option.option {
                    let own = [draft.table.columns[position].name.clone()];
                    let mut key = key.clone();
                    key.name = key.name.or_else(|| option.name.clone());
                    self.new_foreign_key(&mut draft, &key, &own)?;
                }
            }
        }
        for constraint in &create.constraints {
            if let TableConstraint::ForeignKey(key) = constraint {
                let own: Vec<String> = key.columns.iter().map(fold).collect();
                self.new_foreign_key(&mut draft, key, &own)?;
            }
        }
        draft.table.parents = self.tables.clone();
        Ok(Command::CreateTable(Box::new(draft.table)))
    }

    /// Schema and name for a new relation.
    pub(super) fn new_name(&self, name: &ast::ObjectName) -> Result<(String, String)> {
        let parts = name_parts(name)?;
        let (schema, last) = match &parts[..] {
            [last] => (None, last),
            [schema, last] | [_, schema, last] => (Some(fold(schema)), last),
            _ => return Err(SqlError::syntax_error("improper relation name (too many dotted names)")),
        };
        let schema = match schema {
            Some(schema) => schema,
            None => self.context.search_path.first().cloned().ok_or_else(|| {
                let error = SqlError::invalid_schema_name("no schema has been selected to create in");
                self.at(error, parts[0].span)
            })?,
        };
        if is_system_schema(&schema) {
            let message = format!("permission denied to create \"{schema}.{}\"", fold(last));
            return Err(SqlError::insufficient_privilege(message)
                .with_detail("System catalog modifications are currently disallowed."));
        }
        if !self.schema_exists(&schema) {
            let error = SqlError::invalid_schema_name(format!("schema \"{schema}\" does not exist"));
            return Err(self.at(error, parts[0].span));
        }
        Ok((schema, fold(last)))
    }

    /// An index anywhere, by name.
    pub(super) fn find_index(&self, name: &str) -> Option<(&Arc<Table>, &Index)> {
        self.context.catalog.tables().find_map(|table| {
            table
                .all_indexes()
                .find(|i| i.name == name && !(table.hidden_key && i.id == IndexId::PRIMARY))
                .map(|i| (table, i))
        })
    }

    pub(super) fn new_column(&mut self, draft: &mut Draft, column: &ast::ColumnDef) -> Result<()> {
        let name = fold(&column.name);
        if draft.table.columns.iter().any(|c| c.name == name) {
            let error = SqlError::duplicate_column(format!("column \"{name}\" specified more than once"));
            return Err(self.at(error, column.name.span));
        }
        if is_system_column(&name) {
            let message = format!("column name \"{name}\" conflicts with a system column name");
            return Err(self.at(SqlError::duplicate_column(message), column.name.span));
        }
        let leaderless = draft.table.replication == Replication::Leaderless;
        let serial = match &column.data_type {
            ast::DataType::Custom(name, _) => match name.to_string().to_lowercase().as_str() {
                "bigserial" | "serial8" => Some(DataType::Int8),
                "serial" | "serial4" => Some(DataType::Int4),
                "smallserial" | "serial2" => Some(DataType::Int2),
                _ => None,
            },
            _ => None,
        };
        let is_serial = serial.is_some();
        let mut new = NewColumn {
            name,
            ty: match &serial {
                Some(ty) => ty.clone(),
                None => self.data_type(&column.data_type)?,
            },
            not_null: is_serial,
            default: None,
            sequence: None,
            identity: None,
            generated: None,
        };
        if is_serial {
            numbered(&mut new, NewSequence::default(), leaderless)?;
        }
        if matches!(new.ty, DataType::Unknown | DataType::Record | DataType::Row(_) | DataType::Void) {
            let message = format!("column \"{}\" has pseudo-type {}", new.name, new.ty);
            return Err(SqlError::invalid_table_definition(message));
        }
        if let (DataType::Crdt(_), false) = (&new.ty, leaderless) {
            let base = new.ty.base();
            draft.table.notices.push(format!(
                "column \"{}\" of type {} becomes {base}: a strong table has no concurrent writes to merge",
                new.name, new.ty
            ));
            new.ty = base;
        }
        for option in &column.options {
            match &option.option {
                ColumnOption::NotNull => new.not_null = true,
                ColumnOption::Null | ColumnOption::Comment(_) => {}
                ColumnOption::Default(e) => {
                    if is_serial {
                        let message = format!(
                            "multiple default values specified for column \"{}\" of table \"{}\"",
                            new.name, draft.table.name
                        );
                        return Err(SqlError::syntax_error(message));
                    }
                    if new.identity.is_some() || new.generated.is_some() {
                        let other = if new.identity.is_some() { "identity" } else { "generation expression" };
                        return Err(SqlError::syntax_error(format!(
                            "both default and {other} specified for column \"{}\" of table \"{}\"",
                            new.name, draft.table.name
                        )));
                    }
                    self.check_default(e, &new.name, &new.ty)?;
                    new.default = Some(self.default_text(e, &new.ty)?);
                }
                ColumnOption::Generated { generated_as, generation_expr: Some(e), .. } => {
                    if *generated_as != GeneratedAs::ExpStored {
                        return Err(SqlError::syntax_error(
                            "for a generated column, GENERATED ALWAYS … STORED must be specified",
                        ));
                    }
                    let other = if new.identity.is_some() {
                        Some("both identity and generation expression")
                    } else if new.default.is_some() || new.sequence.is_some() {
                        Some("both default and generation expression")
                    } else {
                        new.generated.is_some().then_some("multiple generation clauses")
                    };
                    if let Some(other) = other {
                        return Err(SqlError::syntax_error(format!(
                            "{other} specified for column \"{}\" of table \"{}\"",
                            new.name, draft.table.name
                        )));
                    }
                    if leaderless {
                        return Err(SqlError::feature_not_supported(
                            "generated columns are not supported on leaderless tables",
                        )
                        .with_hint("Concurrent writes to the columns it is made of merge, and nobody would compute it again; compute it in a view."));
                    }
                    new.generated = Some(self.stored_text(e));
                }
                ColumnOption::Generated { generated_as, sequence_options, .. } => {
                    if new.default.is_some() || new.sequence.is_some() || new.generated.is_some() {
                        let what = if new.generated.is_some() {
                            "both identity and generation expression specified"
                        } else if new.identity.is_some() {
                            "multiple identity specifications"
                        } else {
                            "both default and identity specified"
                        };
                        return Err(SqlError::syntax_error(format!(
                            "{what} for column \"{}\" of table \"{}\"",
                            new.name, draft.table.name
                        )));
                    }
                    let options = self.identity_options(sequence_options.as_deref().unwrap_or(&[]))?;
                    new.identity = Some(match generated_as {
                        GeneratedAs::Always => Identity::Always,
                        _ => Identity::ByDefault,
                    });
                    numbered(&mut new, options, leaderless)?;
                }
                ColumnOption::Collation(name) => {
                    let last = name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
                    if !matches!(last.as_str(), "default" | "C" | "c" | "POSIX" | "ucs_basic") {
                        let message = format!("collation \"{last}\" for encoding \"UTF8\" does not exist");
                        return Err(SqlError::undefined_object(message));
                    }
                }
                ColumnOption::PrimaryKey(_)
                | ColumnOption::Unique(_)
                | ColumnOption::ForeignKey(_)
                | ColumnOption::Check(_) => {}
                other => {
                    return Err(SqlError::feature_not_supported(format!(
                        "column option {other} is not supported"
                    )));
                }
            }
        }
        draft.table.columns.push(new);
        Ok(())
    }

    /// A DEFAULT must bind, without columns, to the column's type.
    pub(super) fn check_default(&mut self, e: &ast::Expr, name: &str, ty: &DataType) -> Result<()> {
        let bound = self.table_expr(e, None, &DataType::Unknown, Clause::Default);
        let bound = bound.map_err(|error| match error.sqlstate {
            "42703" => SqlError::feature_not_supported("cannot use column reference in DEFAULT expression"),
            _ => error,
        });
        let from = match bound {
            Ok(bound) => {
                let from = bound.ty();
                self.assign(bound, name, ty).map_err(|_| from)
            }
            Err(error) if error.sqlstate == "42804" || error.sqlstate == "42846" => Err(DataType::Unknown),
            Err(error) => return Err(self.at(error, e.span())),
        };
        match from {
            Ok(_) => Ok(()),
            Err(DataType::Unknown) => self
                .table_expr(e, None, ty, Clause::Default)
                .map(|_| ())
                .map_err(|error| self.at(error, e.span())),
            Err(from) => Err(SqlError::datatype_mismatch(format!(
                "column \"{}\" is of type {} but default expression is of type {}",
                name,
                super::coerce::type_name(&ty.base()),
                super::coerce::type_name(&from)
            ))
            .with_hint("You will need to rewrite or cast the expression.")),
        }
    }

    /// A generated column's expression must bind, over the table's other columns alone, to the column's type.
    /// 42P17, 42804
    pub(super) fn check_generated(
        &mut self,
        draft: &Draft,
        position: usize,
        column: &ast::ColumnDef,
    ) -> Result<()> {
        let expression = column.options.iter().find_map(|option| match &option.option {
            ColumnOption::Generated { generation_expr, .. } => generation_expr.as_ref(),
            _ => None,
        });
        let Some(e) = expression else { return Ok(()) };
        let invalid = |message: &str| SqlError::new("42P17", message);
        let table = Arc::new(draft.provisional());
        let bound = self
            .table_expr(e, Some(&table), &DataType::Unknown, Clause::Generated)
            .map_err(|error| self.at(error, e.span()))?;
        let mut of_generated = None;
        bound.columns(&mut |c| {
            let known = table.columns.get(c).filter(|column| column.generated.is_some());
            of_generated = of_generated.take().or(known);
        });
        if let Some(other) = of_generated {
            let name = &other.name;
            let message = format!("cannot use generated column \"{name}\" in column generation expression");
            let error = invalid(&message)
                .with_detail("A generated column cannot reference another generated column.");
            return Err(self.at(error, e.span()));
        }
        if bound.any(&mut changes_with_session) {
            return Err(invalid("generation expression is not immutable"));
        }
        let (from, column) = (bound.ty(), &table.columns[position]);
        self.assign(bound, &column.name, &column.ty).map(drop).map_err(|error| match error.sqlstate {
            "42804" => SqlError::datatype_mismatch(format!(
                "column \"{}\" is of type {} but default expression is of type {}",
                column.name,
                super::coerce::type_name(&column.ty.base()),
                super::coerce::type_name(&from)
            ))
            .with_hint("You will need to rewrite or cast the expression."),
            _ => error,
        })
    }

    pub(super) fn new_foreign_key(
        &mut self,
        draft: &mut Draft,
        key: &ast::ForeignKeyConstraint,
        columns: &[String],
    ) -> Result<()> {
        let table = Arc::new(draft.provisional());
        let key = self.foreign_key(&table, key, columns, |columns| {
            made_up_name(&table.name, columns, "fkey", |name| draft.is_known(name))
        })?;
        draft.claim(&key.name)?;
        draft.table.foreign_keys.push(key);
        Ok(())
    }

    pub(super) fn column_constraint(
        &mut self,
        draft: &mut Draft,
        position: usize,
        option: &ast::ColumnOptionDef,
    ) -> Result<()> {
        let name = option.name.as_ref().map(fold);
        match &option.option {
            ColumnOption::PrimaryKey(key) => {
                draft.primary_key(name, key_index(vec![position], key.characteristics.as_ref())?)
            }
            ColumnOption::Unique(unique) => {
                let mut index = key_index(vec![position], unique.characteristics.as_ref())?;
                index.nulls_not_distinct = unique.nulls_distinct == ast::NullsDistinctOption::NotDistinct;
                draft.unique(name, index)
            }
            ColumnOption::Check(check) => self.check(draft, name, &check.expr, Some(position)),
            _ => Ok(()),
        }
    }

    pub(super) fn table_constraint(&mut self, draft: &mut Draft, constraint: &TableConstraint) -> Result<()> {
        match constraint {
            TableConstraint::PrimaryKey(key) => {
                let columns = self.key_columns(draft, &key.columns)?;
                let mut index = key_index(columns, key.characteristics.as_ref())?;
                index.include = included(draft, &key.include)?;
                draft.primary_key(key.name.as_ref().map(fold), index)
            }
            TableConstraint::Unique(unique) => {
                let columns = self.key_columns(draft, &unique.columns)?;
                let mut index = key_index(columns, unique.characteristics.as_ref())?;
                index.nulls_not_distinct = unique.nulls_distinct == ast::NullsDistinctOption::NotDistinct;
                index.include = included(draft, &unique.include)?;
                draft.unique(unique.name.as_ref().map(fold), index)
            }
            TableConstraint::Check(check) => {
                self.check(draft, check.name.as_ref().map(fold), &check.expr, None)
            }
            TableConstraint::ForeignKey(_) => Ok(()),
            TableConstraint::Exclude(_) => Err(no_exclusion()),
            _ => Err(SqlError::feature_not_supported("this table constraint is not supported")),
        }
    }

    fn key_columns(&self, draft: &Draft, columns: &[ast::IndexColumn]) -> Result<Vec<usize>> {
        let mut positions = Vec::with_capacity(columns.len());
        for column in columns {
            let ast::Expr::Identifier(ident) = &column.column.expr else {
                return Err(SqlError::syntax_error("a key is made of column names"));
            };
            let name = fold(ident);
            let position = draft.table.columns.iter().position(|c| c.name == name).ok_or_else(|| {
                let error =
                    SqlError::undefined_column(format!("column \"{name}\" named in key does not exist"));
                self.at(error, ident.span)
            })?;
            if positions.contains(&position) {
                let message = format!("column \"{name}\" appears twice in a key");
                return Err(self.at(SqlError::duplicate_column(message), ident.span));
            }
            positions.push(position);
        }
        Ok(positions)
    }

    /// A CHECK must bind to a condition over this table's columns alone.
    fn check(
        &mut self,
        draft: &mut Draft,
        name: Option<String>,
        e: &ast::Expr,
        of: Option<usize>,
    ) -> Result<()> {
        let table = Arc::new(draft.provisional());
        let bound = self
            .table_expr(e, Some(&table), &DataType::Unknown, Clause::Check)
            .and_then(|bound| self.boolean(bound, "CHECK"))
            .map_err(|error| self.at(error, e.span()))?;
        let mut columns: Vec<usize> = Vec::new();
        bound.columns(&mut |c| {
            if !columns.contains(&c) {
                columns.push(c);
            }
        });
        if draft.table.replication == Replication::Leaderless {
            if columns.len() > 1 {
                return Err(SqlError::feature_not_supported(
                    "CHECK over several columns is not supported on leaderless tables",
                )
                .with_hint(
                    "Concurrent writes to different columns merge, so no node can keep such a check; make the table strong, or check in the application.",
                ));
            }
            if let Some(&c) =
                columns.iter().find(|&&c| matches!(draft.table.columns[c].ty, DataType::Crdt(_)))
            {
                let name = &draft.table.columns[c].name;
                return Err(SqlError::feature_not_supported(format!(
                    "CHECK over the CRDT column \"{name}\" is not supported"
                ))
                .with_hint(
                    "Merged values can pass any bound that each writer keeps; make the table strong.",
                ));
            }
        }
        if bound.any(&mut is_not_immutable) {
            return Err(SqlError::new("42P17", "functions in a check constraint must not be volatile")
                .with_hint("A row that is valid now must stay valid; use a DEFAULT or set the value in the statement."));
        }
        let only = match (of, &columns[..]) {
            (Some(of), _) => Some(of),
            (None, [one]) => Some(*one),
            _ => None,
        };
        let name = match name {
            Some(name) => name,
            None => draft.choose(only.as_slice(), "check"),
        };
        draft.claim(&name)?;
        draft.table.checks.push((name, self.stored_text(e)));
        Ok(())
    }
}

/// What fills a column that numbers itself.
const UNIQUE_ID: &str = "amphora.unique_id()";

impl Draft {
    /// A table that is there, to be added to. `taken` are the names of relations.
    pub(super) fn of(table: &Table, taken: Vec<String>) -> Draft {
        let column = |column: &Column| NewColumn {
            name: column.name.clone(),
            ty: column.ty.clone(),
            not_null: column.not_null,
            default: column.default.clone(),
            sequence: None,
            identity: column.identity,
            generated: column.generated.clone(),
        };
        let key = (!table.hidden_key).then(|| table.primary.clone());
        let uniques = table.indexes.iter().filter(|index| index.is_key());
        let indexes = table.all_indexes().filter(|index| index.constraint).map(|index| &index.name);
        let checks = table.checks.iter().map(|check| &check.name);
        let names = indexes.chain(checks).chain(table.foreign_keys.iter().map(|key| &key.name));
        let draft = CreateTable {
            schema: table.schema.clone(),
            name: table.name.clone(),
            if_not_exists: false,
            replication: table.replication,
            columns: table.visible_columns().iter().map(column).collect(),
            primary_key: key,
            uniques: uniques.cloned().collect(),
            indexes: Vec::new(),
            checks: table.checks.iter().map(|c| (c.name.clone(), c.expression.clone())).collect(),
            foreign_keys: Vec::new(),
            parents: Vec::new(),
            write_quorum: table.write_quorum,
            read_quorum: table.read_quorum,
            notices: Vec::new(),
        };
        let names = names.cloned().collect();
        Draft { table: draft, names, taken }
    }

    fn is_known(&self, name: &str) -> bool {
        self.names.iter().chain(&self.taken).any(|known| known == name)
    }

    pub(super) fn primary_key(&mut self, name: Option<String>, mut index: Index) -> Result<()> {
        if self.table.primary_key.is_some() {
            return Err(SqlError::invalid_table_definition(format!(
                "multiple primary keys for table \"{}\" are not allowed",
                self.table.name
            )));
        }
        self.check_key(&index)?;
        for &c in &index.columns {
            self.table.columns[c].not_null = true;
        }
        index.name = match name {
            Some(name) => name,
            None => self.choose(&[], "pkey"),
        };
        self.claim_relation(&index.name)?;
        // Its entries are the rows: they hold everything as it is.
        self.table.primary_key = Some(index);
        Ok(())
    }

    pub(super) fn unique(&mut self, name: Option<String>, mut index: Index) -> Result<()> {
        if self.table.replication == Replication::Leaderless {
            return Err(SqlError::feature_not_supported(
                "UNIQUE constraints beyond the primary key are not supported on leaderless tables",
            )
            .with_hint(
                "Make these columns the PRIMARY KEY, or make the table strong (replication = 'strong').",
            ));
        }
        self.check_key(&index)?;
        index.name = match name {
            Some(name) => name,
            None => {
                let columns: Vec<usize> = index.columns.iter().chain(&index.include).copied().collect();
                self.choose(&columns, "key")
            }
        };
        self.claim_relation(&index.name)?;
        self.table.uniques.push(index);
        Ok(())
    }

    fn check_key(&self, index: &Index) -> Result<()> {
        if index.columns.len() + index.include.len() > MAX_KEY_COLUMNS {
            return Err(SqlError::new(
                "54011",
                format!("cannot use more than {MAX_KEY_COLUMNS} columns in an index"),
            ));
        }
        if self.table.replication == Replication::Leaderless
            && (index.deferrable || !index.include.is_empty())
        {
            return Err(SqlError::feature_not_supported(
                "the primary key of a leaderless table cannot be DEFERRABLE, nor INCLUDE columns",
            )
            .with_hint("Leave that out: it is checked at once, and the row lies under its key."));
        }
        for &c in &index.columns {
            let column = &self.table.columns[c];
            if matches!(column.ty, DataType::Crdt(_)) {
                return Err(SqlError::feature_not_supported(format!(
                    "column \"{}\" of type {} cannot be part of a key",
                    column.name, column.ty
                ))
                .with_hint("A key names a row, so it cannot change by merging; use a plain type."));
            }
            check_key_type(&column.ty, &column.name)?;
        }
        Ok(())
    }

    /// A constraint's name as PostgreSQL makes it up.
    fn choose(&self, columns: &[usize], suffix: &str) -> String {
        let names: Vec<&str> = columns.iter().map(|&c| self.table.columns[c].name.as_str()).collect();
        made_up_name(&self.table.name, &names, suffix, |name| self.is_known(name))
    }

    /// An index that is no constraint.
    pub(super) fn index(&mut self, mut index: Index) {
        let columns = index.columns.iter().chain(&index.include).filter(|c| **c < Index::EXPRESSION);
        let columns: Vec<usize> = columns.copied().collect();
        index.name = self.choose(&columns, "idx");
        self.names.push(index.name.clone());
        self.table.indexes.push(index);
    }

    /// A CHECK that another table has.
    pub(super) fn add_check(&mut self, name: &str, expression: &str) -> Result<()> {
        self.claim(name)?;
        self.table.checks.push((name.to_owned(), expression.to_owned()));
        Ok(())
    }

    /// A name that is also its index's: 42P07 if another index has it, 42710 if a constraint of another kind has.
    fn claim_relation(&mut self, name: &str) -> Result<()> {
        let indexes = self.table.primary_key.iter().chain(&self.table.uniques);
        if indexes.into_iter().any(|index| index.name == name) {
            return Err(SqlError::duplicate_table(format!("relation \"{name}\" already exists")));
        }
        self.claim(name)
    }

    /// 42710 if the name is taken.
    fn claim(&mut self, name: &str) -> Result<()> {
        if self.names.iter().any(|n| n == name) {
            return Err(SqlError::duplicate_object(format!(
                "constraint \"{name}\" for relation \"{}\" already exists",
                self.table.name
            )));
        }
        self.names.push(name.to_owned());
        Ok(())
    }

    /// The table as far as a CHECK, or a foreign key that refers to it, needs it.
    fn provisional(&self) -> Table {
        let index = |position: usize, index: &Index| Index {
            id: IndexId(u32::try_from(position).unwrap_or(u32::MAX)),
            ..index.clone()
        };
        let no_key = Index::of_constraint(IndexId::PRIMARY, "", 0, Vec::new());
        let column = |(i, c): (usize, &NewColumn)| Column {
            not_null: c.not_null,
            default: None,
            generated: c.generated.clone(),
            ..Column::new(ColumnId(u32::try_from(i).unwrap_or(u32::MAX)), c.name.clone(), c.ty.clone())
        };
        Table {
            id: TableId(0),
            version: Timestamp::ZERO,
            schema: self.table.schema.clone(),
            name: self.table.name.clone(),
            owner: String::new(),
            replication: self.table.replication,
            columns: self.table.columns.iter().enumerate().map(column).collect(),
            primary: index(0, self.table.primary_key.as_ref().unwrap_or(&no_key)),
            hidden_key: false,
            indexes: self.table.uniques.iter().enumerate().map(|(i, u)| index(i + 1, u)).collect(),
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
}

/// The index of a PRIMARY KEY or UNIQUE over these columns. 0A000 if it is to be checked later.
fn key_index(columns: Vec<usize>, characteristics: Option<&ast::ConstraintCharacteristics>) -> Result<Index> {
    if timing(characteristics)?.deferrable {
        return Err(SqlError::feature_not_supported("only foreign keys can be DEFERRABLE")
            .with_hint("A unique key is checked at the end of each statement; leave DEFERRABLE out."));
    }
    Ok(Index::of_constraint(IndexId::PRIMARY, "", 0, columns))
}

/// INCLUDE of a constraint. 42703
fn included(draft: &Draft, names: &[ast::Ident]) -> Result<Vec<usize>> {
    let position = |ident: &ast::Ident| {
        let name = fold(ident);
        let position = draft.table.columns.iter().position(|c| c.name == name);
        position.ok_or_else(|| {
            SqlError::undefined_column(format!("column \"{name}\" named in key does not exist"))
        })
    };
    names.iter().map(position).collect()
}

/// 0A000
fn no_exclusion() -> SqlError {
    SqlError::feature_not_supported("exclusion constraints are not supported").with_hint(
        "UNIQUE excludes equal values, partially with CREATE UNIQUE INDEX … WHERE; for ranges, lock the row that they belong to (SELECT … FOR UPDATE) and look for what overlaps.",
    )
}

/// `table_column_suffix`, with a number if that is taken.
pub(crate) fn made_up_name(
    table: &str,
    columns: &[&str],
    suffix: &str,
    taken: impl Fn(&str) -> bool,
) -> String {
    let mut parts = vec![table];
    parts.extend(columns);
    let mut stem = parts.join("_");
    // PostgreSQL's names have at most 63 bytes.
    let room = 63 - suffix.len() - 4;
    while stem.len() > room {
        stem.pop();
    }
    let base = format!("{stem}_{suffix}");
    let mut name = base.clone();
    let mut number = 0;
    while taken(&name) {
        number += 1;
        name = format!("{base}{number}");
    }
    name
}

/// True of a call whose result may change while the row does not.
fn is_not_immutable(e: &Expr) -> bool {
    matches!(e, Expr::Call { function, .. } if function.volatility == Volatility::Volatile)
}

/// True of what may give another value at another time or in another session: functions that are not immutable,
/// and casts that depend on the time zone or on names.
fn changes_with_session(e: &Expr) -> bool {
    use DataType as T;
    match e {
        Expr::Call { function, .. } => function.volatility != Volatility::Immutable,
        Expr::Cast { from, to, .. } => {
            let timed = |t: &T| {
                matches!(t, T::Date | T::Time(_) | T::Timetz(_) | T::Timestamp(_) | T::Timestamptz(_))
                    || t.is_oid_like() && *t != T::Oid
            };
            let fixed = matches!(
                (from, to),
                (T::Date, T::Timestamp(_))
                    | (T::Timestamp(_), T::Date | T::Time(_))
                    | (T::Time(_), T::Interval(_))
                    | (T::Interval(_), T::Time(_))
                    | (T::Timetz(_), T::Time(_))
            );
            from.oid() != to.oid() && (timed(from) || timed(to)) && !fixed
        }
        _ => false,
    }
}

/// 42704 for a type that has no order.
pub(crate) fn check_key_type(ty: &DataType, _column: &str) -> Result<()> {
    match ty {
        DataType::Json => Err(SqlError::undefined_object(
            "data type json has no default operator class for access method \"btree\"",
        )
        .with_hint("Use jsonb, or a column of what you search for.")),
        _ => Ok(()),
    }
}

pub(super) fn is_system_schema(schema: &str) -> bool {
    matches!(schema, "pg_catalog" | "information_schema" | "amphora")
}

fn is_system_column(name: &str) -> bool {
    matches!(name, "tableoid" | "ctid" | "xmin" | "xmax" | "cmin" | "cmax")
}

/// The parts of CREATE TABLE that are not there yet, or are other databases'.
fn reject(create: &ast::CreateTable) -> Result<()> {
    let what = if create.query.is_some() {
        "CREATE TABLE AS"
    } else if create.temporary {
        return Err(no_temporary_tables());
    } else if create.unlogged {
        "CREATE UNLOGGED TABLE"
    } else if create.like.is_some() {
        "CREATE TABLE … LIKE"
    } else if let Some(error) = super::table_like::unsupported(create) {
        return Err(error);
    } else if create.or_replace {
        "CREATE OR REPLACE TABLE"
    } else {
        return Ok(());
    };
    Err(SqlError::feature_not_supported(format!("{what} is not yet supported")))
}

/// Makes a column number itself: from a sequence of its own, or, on a leaderless table, where there is nobody
/// to ask, with ids that no other node gives.
pub(super) fn numbered(column: &mut NewColumn, options: NewSequence, leaderless: bool) -> Result<()> {
    column.not_null = true;
    if !leaderless {
        if !matches!(column.ty, DataType::Int2 | DataType::Int4 | DataType::Int8) {
            return Err(SqlError::invalid_parameter_value(
                "identity column type must be smallint, integer, or bigint",
            ));
        }
        column.sequence = Some(NewSequence { ty: Some(column.ty.clone()), ..options });
        return Ok(());
    }
    if column.ty != DataType::Int8 {
        return Err(SqlError::feature_not_supported(format!(
            "an identity column of a leaderless table cannot be of type {}",
            column.ty
        ))
        .with_hint(
            "Node-unique ids have 64 bits; use bigserial, or bigint GENERATED BY DEFAULT AS IDENTITY.",
        ));
    }
    column.default = Some(UNIQUE_ID.into());
    Ok(())
}

/// 0A000
pub(super) fn no_temporary_tables() -> SqlError {
    SqlError::feature_not_supported("temporary tables are not supported").with_hint(
        "Create the table without TEMPORARY, in a schema of the session's own, and drop it at the end.",
    )
}

impl Binder<'_> {
    /// A default as it is kept. A plain string says its type, as `pg_get_expr` shows it: `'jar'::text`. A
    /// sequence is named by its OID, so that the default follows it when it is renamed.
    pub(super) fn default_text(&self, e: &ast::Expr, ty: &DataType) -> Result<String> {
        let plain = |v: &ast::ValueWithSpan| matches!(v.value, ast::Value::SingleQuotedString(_));
        if let ast::Expr::Value(v) = e
            && plain(v)
        {
            return Ok(format!("{e}::{}", Self::stored_type(&ty.base())));
        }
        let text = self.stored_text(e);
        let lower = text.to_ascii_lowercase();
        let Some(start) = lower.find("nextval('") else { return Ok(text) };
        let (before, rest) = text.split_at(start + "nextval('".len());
        let Some((name, after)) = rest.split_once('\'') else { return Ok(text) };
        let names = self.context.format.names.as_ref();
        let Some(oid) = names.and_then(|n| n.oid_of(&DataType::Regclass, name).ok().flatten()) else {
            return Ok(text);
        };
        let after = after.strip_prefix("::regclass").or(after.strip_prefix("::REGCLASS")).unwrap_or(after);
        Ok(format!("{before}{oid}'::regclass{after}"))
    }
}

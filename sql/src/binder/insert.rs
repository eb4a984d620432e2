//! INSERT.

use std::sync::Arc;

use amphora_replication::OnConflict;
use amphora_storage::schema::{Column, Identity, Index, IndexId, Table};
use amphora_storage::{DataType, Datum};
use sqlparser::ast;
use sqlparser::ast::{ConflictTarget, OnConflictAction, OnInsert, SetExpr, Spanned, TableObject};

use super::expr::table_fields;
use super::from::{Found, table_scan};
use super::level::{Clause, Level};
use super::query::{node, project};
use super::scope::Scope;
use super::updatable::{Target, no_such_column};
use super::user_type::domain_default_of;
use super::{Binder, fold, name_parts};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::parser::{self, Overriding};
use crate::plan::{DoUpdate, Field, Insert, Node, Plan, Rule, Rules, Statement};
use crate::types::CastContext;
use crate::walk::same_expr;

impl Binder<'_> {
    pub(super) fn insert(&mut self, insert: &ast::Insert) -> Result<(Statement, Arc<[Field]>)> {
        let TableObject::TableName(name) = &insert.table else {
            return Err(SqlError::syntax_error("INSERT needs a table"));
        };
        // What other databases have in this place.
        if insert.or.is_some() || insert.replace_into || insert.ignore {
            return Err(SqlError::syntax_error("syntax error at or near \"OR\"")
                .with_hint("Use INSERT … ON CONFLICT."));
        }
        if !insert.into {
            let error = SqlError::syntax_error(format!("syntax error at or near \"{name}\""));
            return Err(self.at(error, name.span()));
        }
        let alias = insert.table_alias.as_ref().map(|a| fold(&a.alias));
        let Target { table, scope, columns: shown, .. } =
            self.write_target(name, alias.clone(), "insert into")?;
        let through_view = shown.is_some();
        self.written = shown.map(|columns| (table.id, columns));
        let alias = alias.unwrap_or_else(|| table.name.clone());
        let columns = self.insert_columns(&table, &insert.columns)?;
        let overriding = self.overriding.take();
        let explicit = !insert.columns.is_empty();
        let source = match &insert.source {
            None => {
                let row = self.full_row(&table, &[], Vec::new())?;
                node(Node::Values(vec![row]), full_fields(&table))
            }
            Some(query) => self.insert_source(&table, &columns, (explicit, overriding), query)?,
        };
        let (on_conflict, do_update) = match &insert.on {
            None => (OnConflict::Error, None),
            Some(OnInsert::OnConflict(_)) if through_view => {
                return Err(SqlError::feature_not_supported("ON CONFLICT is not supported through a view")
                    .with_hint("Insert into the view's table."));
            }
            Some(OnInsert::OnConflict(clause)) => self.on_conflict(&table, &alias, clause)?,
            Some(_) => {
                return Err(SqlError::syntax_error("ON DUPLICATE KEY UPDATE is not PostgreSQL")
                    .with_hint("Use ON CONFLICT … DO UPDATE."));
            }
        };
        let checks = self.checks(&table)?;
        let (returning, schema) = self.returning(insert.returning.as_deref(), scope)?;
        let insert = Insert { table, source, on_conflict, do_update, checks, returning };
        Ok((Statement::Insert(Box::new(insert)), schema))
    }

    /// What a statement writes: a table, or a view whose rows are a table's.
    pub(super) fn write_target(
        &mut self,
        name: &ast::ObjectName,
        alias: Option<String>,
        verb: &str,
    ) -> Result<Target> {
        if let Found::UserView(view) = self.find_relation(name)? {
            let alias = alias.unwrap_or_else(|| view.name.clone());
            return self.target_of_view(&view, &alias, verb);
        }
        let table = self.writable(name, verb)?;
        let alias = alias.unwrap_or_else(|| table.name.clone());
        let scope = table_scope(&table, &alias);
        let plan = table_scan(table.clone(), table_fields(&table).into());
        Ok(Target { table, plan, scope, columns: None })
    }

    /// The stored table that a statement writes.
    pub(super) fn writable(&mut self, name: &ast::ObjectName, verb: &str) -> Result<Arc<Table>> {
        match self.find_relation(name)? {
            Found::Table(table) => {
                self.use_table(&table);
                Ok(table)
            }
            Found::UserView(view) => Err(super::view::not_updatable(verb, &view.name)),
            Found::Sequence(sequence) => {
                Err(SqlError::wrong_object_type(format!("cannot change sequence \"{}\"", sequence.name)))
            }
            Found::View(view) => {
                Err(SqlError::wrong_object_type(format!("cannot {verb} view \"{}\"", view.name))
                    .with_detail("System views are computed from the cluster's state and cannot be written."))
            }
        }
    }

    /// Positions of the named columns; all visible ones if none are named.
    pub(super) fn insert_columns(&self, table: &Table, names: &[ast::ObjectName]) -> Result<Vec<usize>> {
        if names.is_empty() {
            return Ok(match &self.written {
                Some((id, columns)) if *id == table.id => columns.iter().map(|(_, c)| *c).collect(),
                _ => (0..table.visible_columns().len()).collect(),
            });
        }
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            let column = self.target_column(table, name)?;
            if columns.contains(&column) {
                let bare = &table.columns[column].name;
                let error = SqlError::duplicate_column(format!("column \"{bare}\" specified more than once"));
                return Err(self.at(error, name.span()));
            }
            columns.push(column);
        }
        Ok(columns)
    }

    /// The column an INSERT or UPDATE writes. 42703.
    pub(super) fn target_column(&self, table: &Table, name: &ast::ObjectName) -> Result<usize> {
        let parts = name_parts(name)?;
        let bare = parts.last().map(|i| fold(i)).unwrap_or_default();
        let found = self.written_column(table, &bare);
        found.ok_or_else(|| self.at(no_such_column(&bare, &table.name), name.span()))
    }

    /// The source of rows, widened to the whole row.
    fn insert_source(
        &mut self,
        table: &Arc<Table>,
        columns: &[usize],
        (explicit, overriding): (bool, Option<Overriding>),
        query: &ast::Query,
    ) -> Result<Plan> {
        let plain = query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none();
        if let (SetExpr::Values(values), true) = (&*query.body, plain) {
            return self.insert_values(table, columns, (explicit, overriding), values);
        }
        let types: Vec<DataType> = columns.iter().map(|&c| table.columns[c].ty.base()).collect();
        let source = self.query(query, Some(&types))?;
        let source = self.settle_output(source)?;
        check_width(source.width(), columns.len(), explicit)?;
        let (mut given, mut taken) = (Vec::new(), Vec::new());
        for ((i, field), &column) in source.schema.iter().enumerate().zip(columns) {
            if takes_given(&table.columns[column], overriding)? {
                given.push(Expr::Column(i, field.ty.clone()));
                taken.push(column);
            }
        }
        let row = self.full_row(table, &taken, given)?;
        Ok(project(source, row, full_fields(table)))
    }

    fn insert_values(
        &mut self,
        table: &Arc<Table>,
        columns: &[usize],
        (explicit, overriding): (bool, Option<Overriding>),
        values: &ast::Values,
    ) -> Result<Plan> {
        let (rows, _) = self.in_level(Level::new(Scope::default(), Clause::Values), |b| {
            b.values_rows(table, columns, (explicit, overriding), values)
        })?;
        Ok(node(Node::Values(rows), full_fields(table)))
    }

    /// The rows of VALUES, widened to whole rows, in the innermost level.
    pub(super) fn values_rows(
        &mut self,
        table: &Arc<Table>,
        columns: &[usize],
        (explicit, overriding): (bool, Option<Overriding>),
        values: &ast::Values,
    ) -> Result<Vec<Vec<Expr>>> {
        let width = values.rows.first().map_or(0, |row| row.content.len());
        let mut rows = Vec::with_capacity(values.rows.len());
        for row in &values.rows {
            if row.content.len() != width {
                return Err(SqlError::syntax_error("VALUES lists must all be the same length"));
            }
            check_width(width, columns.len(), explicit)?;
            let mut given = Vec::with_capacity(width);
            for (e, &column) in row.content.iter().zip(columns) {
                let by_default = is_default(e) || !takes_given(&table.columns[column], overriding)?;
                given.push(if by_default {
                    self.default_value(table, column)?
                } else {
                    let bound = self.expr(e)?;
                    let target = &table.columns[column];
                    self.assign(bound, &target.name, &target.ty).map_err(|error| match error.sqlstate {
                        // What does not fit is found when the row is made, not where it is written.
                        "22001" => error,
                        _ => self.at(error, e.span()),
                    })?
                });
            }
            rows.push(self.full_row(table, columns, given)?);
        }
        Ok(rows)
    }

    /// A whole row (without hidden key): what is given, and defaults.
    pub(super) fn full_row(
        &mut self,
        table: &Arc<Table>,
        columns: &[usize],
        given: Vec<Expr>,
    ) -> Result<Vec<Expr>> {
        let mut row: Vec<Option<Expr>> = vec![None; table.visible_columns().len()];
        for (value, &column) in given.into_iter().zip(columns) {
            let target = &table.columns[column];
            row[column] = Some(self.assign(value, &target.name, &target.ty)?);
        }
        let mut full = Vec::with_capacity(row.len());
        for (column, value) in row.into_iter().enumerate() {
            full.push(match value {
                Some(value) => value,
                None => self.default_value(table, column)?,
            });
        }
        Ok(full)
    }

    /// A column's DEFAULT, or NULL.
    pub(super) fn default_value(&mut self, table: &Table, column: usize) -> Result<Expr> {
        let target = &table.columns[column];
        let Some(sql) = target.default.as_ref().or_else(|| domain_default_of(&target.ty)) else {
            let null = Expr::Literal(Datum::Null, target.ty.base());
            return match &target.ty {
                DataType::Domain(domain) => {
                    self.coerce_to_domain(null, &domain.clone(), CastContext::Assignment)
                }
                _ => Ok(null),
            };
        };
        if let Some(known) = self.defaults.get(&(table.id, column)) {
            return Ok(known.clone());
        }
        let bound = self.stored_expr(sql, None, &target.ty)?;
        self.defaults.insert((table.id, column), bound.clone());
        Ok(bound)
    }

    /// Generated columns and CHECK constraints over the full row.
    pub(super) fn checks(&mut self, table: &Arc<Table>) -> Result<Rules> {
        let mut rules = Vec::with_capacity(table.checks.len());
        for (position, column) in table.columns.iter().enumerate() {
            if let Some(expression) = &column.generated {
                let value = self.stored_expr(expression, Some(table), &DataType::Unknown)?;
                let value = self.assign(value, &column.name, &column.ty)?;
                rules.push((Rule::Generated(position), value));
            }
        }
        for check in &table.checks {
            let condition = self.stored_expr(&check.expression, Some(table), &DataType::Bool)?;
            rules.push((Rule::Check(check.name.clone()), condition));
        }
        Ok(rules)
    }

    fn on_conflict(
        &mut self,
        table: &Arc<Table>,
        alias: &str,
        clause: &ast::OnConflict,
    ) -> Result<(OnConflict, Option<DoUpdate>)> {
        let index = match &clause.conflict_target {
            None => None,
            Some(ConflictTarget::Columns(names)) => {
                let mut wanted = Vec::with_capacity(names.len());
                for name in names {
                    let column = table.column_position(&fold(name)).ok_or_else(|| {
                        let message = format!("column \"{}\" does not exist", fold(name));
                        self.at(SqlError::undefined_column(message), name.span)
                    })?;
                    wanted.push(column);
                }
                Some(Inference { columns: wanted, ..Inference::default() }.index(table)?)
            }
            Some(ConflictTarget::OnConstraint(name)) => {
                let parts = name_parts(name)?;
                let bare = parts.last().map(|i| fold(i)).unwrap_or_default();
                if let Some(target) = bare.strip_prefix(parser::CONFLICT_TARGET) {
                    let index = self.inference(table, target)?.index(table)?;
                    return self.conflict_action(table, alias, Some(index), &clause.action);
                }
                let found = table.all_indexes().find(|i| i.name == bare && i.constraint);
                Some(found.map(|i| i.id).ok_or_else(|| {
                    SqlError::undefined_object(format!(
                        "constraint \"{bare}\" for table \"{}\" does not exist",
                        table.name
                    ))
                })?)
            }
        };
        self.conflict_action(table, alias, index, &clause.action)
    }

    /// `(lower(email)) WHERE deleted_at IS NULL`: what is to conflict.
    fn inference(&mut self, table: &Arc<Table>, target: &str) -> Result<Inference> {
        let statement = parser::parse_index_target(target)?;
        let mut inference = Inference::default();
        for column in &statement.columns {
            let e = match &column.column.expr {
                ast::Expr::Collate { expr, collation } => {
                    super::index::check_collation(collation)?;
                    expr
                }
                e => e,
            };
            let bound = self.table_expr(e, Some(table), &DataType::Unknown, Clause::IndexExpression)?;
            match self.settle(bound)? {
                Expr::Column(position, _) => inference.columns.push(position),
                bound => inference.expressions.push(crate::index::folded(&bound)?),
            }
        }
        if let Some(predicate) = &statement.predicate {
            let bound =
                self.table_expr(predicate, Some(table), &DataType::Unknown, Clause::IndexPredicate)?;
            inference.conditions = match crate::index::folded(&self.boolean(bound, "WHERE")?)? {
                Expr::And(parts) => parts,
                one => vec![one],
            };
        }
        Ok(inference)
    }

    fn conflict_action(
        &mut self,
        table: &Arc<Table>,
        alias: &str,
        index: Option<IndexId>,
        action: &OnConflictAction,
    ) -> Result<(OnConflict, Option<DoUpdate>)> {
        let update = match action {
            OnConflictAction::DoNothing => return Ok((OnConflict::Report(index), None)),
            OnConflictAction::DoUpdate(update) => update,
        };
        if index.is_none() {
            return Err(SqlError::syntax_error(
                "ON CONFLICT DO UPDATE requires inference specification or constraint name",
            )
            .with_hint("For example, ON CONFLICT (column_name)."));
        }
        let mut excluded = table_scope(table, "excluded");
        excluded.columns.iter_mut().for_each(|c| c.qualified_only = true);
        let scope = table_scope(table, alias).join(excluded)?;
        let (do_update, _) = self.in_level(Level::new(scope, Clause::Set), |b| {
            let assignments = b.assignments(table, &update.assignments)?;
            let condition = match &update.selection {
                Some(e) => Some(b.condition(e, "WHERE")?),
                None => None,
            };
            Ok(DoUpdate { assignments, condition })
        })?;
        Ok((OnConflict::Report(index), Some(do_update)))
    }

    /// RETURNING, over a row of this scope.
    pub(super) fn returning(
        &mut self,
        items: Option<&[ast::SelectItem]>,
        scope: Scope,
    ) -> Result<(Vec<Expr>, Arc<[Field]>)> {
        let Some(items) = items else {
            return Ok((Vec::new(), Arc::from([])));
        };
        let (items, _) = self.in_level(Level::new(scope, Clause::Returning), |b| {
            let mut items = b.items(items)?;
            for item in &mut items {
                let expr = std::mem::replace(&mut item.expr, Expr::Literal(Datum::Null, DataType::Unknown));
                item.expr = b.settle(expr)?;
            }
            Ok(items)
        })?;
        let schema =
            items.iter().map(|i| Field { name: i.name.clone(), ty: i.expr.ty(), origin: i.origin }).collect();
        Ok((items.into_iter().map(|i| i.expr).collect(), schema))
    }
}

/// What ON CONFLICT says of the index that it means.
#[derive(Default)]
struct Inference {
    /// Positions of columns, in any order
    columns: Vec<usize>,
    /// Expressions over the table's row
    expressions: Vec<Expr>,
    /// What holds for all rows that are meant
    conditions: Vec<Expr>,
}

impl Inference {
    /// The index. 42P10 if there is none, or none that has all the rows that are meant.
    fn index(mut self, table: &Table) -> Result<IndexId> {
        self.columns.sort_unstable();
        self.columns.dedup();
        let fits = |index: &&Index| {
            let mut columns: Vec<usize> =
                index.columns.iter().copied().filter(|c| *c < Index::EXPRESSION).collect();
            columns.sort_unstable();
            columns.dedup();
            if !index.unique || columns != self.columns {
                return false;
            }
            if index.is_plain() {
                return self.expressions.is_empty();
            }
            let Ok(program) = crate::index::program(table, index) else { return false };
            let within = |a: &[Expr], b: &[Expr]| a.iter().all(|e| b.iter().any(|other| same_expr(e, other)));
            within(&self.expressions, &program.folded)
                && within(&program.folded, &self.expressions)
                && program.conditions.iter().all(|c| crate::index::implied(c, &self.conditions, &|_| false))
        };
        // One that has all rows finds every conflict that a partial one does.
        let found = table.all_indexes().filter(fits).min_by_key(|index| index.predicate.is_some());
        let Some(index) = found else {
            return Err(SqlError::invalid_column_reference(
                "there is no unique or exclusion constraint matching the ON CONFLICT specification",
            ));
        };
        if index.deferrable {
            return Err(SqlError::object_not_in_prerequisite_state(
                "ON CONFLICT does not support deferrable unique constraints/exclusion constraints as arbiters",
            ));
        }
        Ok(index.id)
    }
}

/// The scope of a table's full row; a hidden key is there but not seen.
pub(super) fn table_scope(table: &Arc<Table>, alias: &str) -> Scope {
    let visible = table.visible_columns().len();
    let mut scope = Scope::relation(alias.to_owned(), None, &table_fields(table));
    if alias == table.name {
        scope.relations[0].schema = Some(table.schema.clone());
    }
    scope.relations[0].table = Some(table.clone());
    scope.star.truncate(visible);
    scope.columns[visible..].iter_mut().for_each(|c| c.hidden = true);
    scope
}

/// True if a value given for this column is what is stored: not for an identity column with OVERRIDING USER
/// VALUE. 428C9 for one that is GENERATED ALWAYS, or computed.
fn takes_given(column: &Column, overriding: Option<Overriding>) -> Result<bool> {
    if column.generated.is_some() {
        let message = format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name);
        return Err(SqlError::new("428C9", message).with_detail(generated(column)));
    }
    match (column.identity, overriding) {
        (None, _) | (Some(_), Some(Overriding::System)) | (Some(Identity::ByDefault), None) => Ok(true),
        (Some(_), Some(Overriding::User)) => Ok(false),
        (Some(Identity::Always), None) => Err(SqlError::new(
            "428C9",
            format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name),
        )
        .with_detail(always(column))
        .with_hint("Use OVERRIDING SYSTEM VALUE to override.")),
    }
}

/// What is said of a column that is computed of others.
pub(super) fn generated(column: &Column) -> String {
    format!("Column \"{}\" is a generated column.", column.name)
}

/// What is said of a column that is GENERATED ALWAYS.
pub(super) fn always(column: &Column) -> String {
    format!("Column \"{}\" is an identity column defined as GENERATED ALWAYS.", column.name)
}

/// The fields of a row to insert.
pub(super) fn full_fields(table: &Table) -> Arc<[Field]> {
    table_fields(table)[..table.visible_columns().len()].into()
}

/// 42601 if the numbers of values and columns do not fit.
fn check_width(values: usize, columns: usize, explicit: bool) -> Result<()> {
    if values > columns {
        return Err(SqlError::syntax_error("INSERT has more expressions than target columns"));
    }
    if values < columns && explicit {
        return Err(SqlError::syntax_error("INSERT has more target columns than expressions"));
    }
    Ok(())
}

/// True of the keyword DEFAULT where a value stands.
pub(super) fn is_default(e: &ast::Expr) -> bool {
    matches!(e, ast::Expr::Identifier(i) if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("default"))
}

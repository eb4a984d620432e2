//! FROM: tables, subqueries, functions, and how they are joined.

use std::sync::Arc;

use amphora_replication::Direction;
use amphora_storage::DataType;
use amphora_storage::schema::{IndexId, Relation, Sequence, Table, View, ViewRelation};
use sqlparser::ast;
use sqlparser::ast::{JoinConstraint, JoinOperator, Spanned, TableFactor};

use super::expr::table_fields;
use super::level::{Clause, Level};
use super::query::{CteSource, node, project, rename};
use super::scope::{Scope, ScopeColumn};
use super::{Binder, fold, name_parts};
use crate::catalog::{SystemView, system_view};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::functions;
use crate::parser::{NO_RELATION, ROWS_FROM, using_alias};
use crate::plan::{Field, JoinKind, Node, Plan, ScanRange, TableScan};

/// What a name in FROM means.
pub(super) enum Found {
    /// A stored table
    Table(Arc<Table>),
    /// A view of the system's
    View(&'static SystemView),
    /// A user's view
    UserView(Arc<View>),
    /// A sequence
    Sequence(Arc<Sequence>),
}

impl Binder<'_> {
    /// The rows of FROM, and their names. Without FROM: one row of no columns.
    pub(super) fn from(&mut self, from: &[ast::TableWithJoins]) -> Result<(Plan, Scope)> {
        let mut items = from.iter();
        let Some(first) = items.next() else {
            return Ok((node(Node::Values(vec![Vec::new()]), Arc::from([])), Scope::default()));
        };
        let mut joined = self.table_with_joins(first)?;
        for item in items {
            joined = self.add_from(joined, item)?;
        }
        Ok(joined)
    }

    /// One more item after a comma.
    pub(super) fn add_from(
        &mut self,
        left: (Plan, Scope),
        item: &ast::TableWithJoins,
    ) -> Result<(Plan, Scope)> {
        let level = Level::lateral(left.1.clone());
        let (right, _) = self.in_level(level, |b| b.table_with_joins(item))?;
        self.join(left, right, JoinKind::Inner, &JoinConstraint::None)
            .map_err(|error| self.at(error, item.span()))
    }

    pub(super) fn table_with_joins(&mut self, item: &ast::TableWithJoins) -> Result<(Plan, Scope)> {
        let mut joined = self.factor(&item.relation)?;
        for join in &item.joins {
            let (kind, constraint) = join_kind(&join.join_operator)?;
            let level = Level::lateral(joined.1.clone());
            let (right, _) = self.in_level(level, |b| b.factor(&join.relation))?;
            joined =
                self.join(joined, right, kind, constraint).map_err(|e| self.at(e, join.relation.span()))?;
        }
        Ok(joined)
    }

    /// Joins two inputs, the right one bound one level inside the left one.
    fn join(
        &mut self,
        (left, left_scope): (Plan, Scope),
        (right, right_scope): (Plan, Scope),
        kind: JoinKind,
        constraint: &JoinConstraint,
    ) -> Result<(Plan, Scope)> {
        if matches!(kind, JoinKind::Right | JoinKind::Full) && right.reads_nearest_row() {
            return Err(SqlError::invalid_column_reference(
                "the combining JOIN type must be INNER or LEFT for a LATERAL reference",
            ));
        }
        let mut alias = None;
        let pairs = match constraint {
            JoinConstraint::Using(names) => {
                let mut pairs = Vec::with_capacity(names.len());
                for name in names {
                    let parts = name_parts(name)?;
                    if let Some(name) = parts.last().and_then(|part| using_alias(part)) {
                        alias = Some(name.to_owned());
                        continue;
                    }
                    let name = parts.last().map(|i| fold(i)).unwrap_or_default();
                    pairs.push(using_pair(&left_scope, &right_scope, &name)?);
                }
                pairs
            }
            JoinConstraint::Natural => natural_pairs(&left_scope, &right_scope)?,
            _ => Vec::new(),
        };
        let width = left.width();
        let schema: Arc<[Field]> = left.schema.iter().chain(right.schema.iter()).cloned().collect();
        let scope = left_scope.join(right_scope)?;
        let (condition, scope) = match constraint {
            JoinConstraint::On(e) => {
                let level = Level::new(scope, Clause::On);
                let (condition, level) = self.in_level(level, |b| b.condition(e, "JOIN/ON"))?;
                (Some(condition), level.scope)
            }
            _ => {
                let mut conditions = Vec::with_capacity(pairs.len());
                for &(l, r) in &pairs {
                    let column = |i: usize| Expr::Column(i, scope.columns[i].ty.clone());
                    conditions.push(self.operator("=", Some(column(l)), column(r + width))?);
                }
                let condition = match conditions.len() {
                    0 => None,
                    1 => conditions.pop(),
                    _ => Some(Expr::And(conditions)),
                };
                (condition, scope)
            }
        };
        let plan =
            node(Node::NestedLoop { left: Box::new(left), right: Box::new(right), kind, condition }, schema);
        let (plan, scope) = self.merge_columns(plan, scope, &pairs, width, kind)?;
        match alias {
            Some(alias) => alias_merged(plan, scope, alias, pairs.len()),
            None => Ok((plan, scope)),
        }
    }

    /// USING's columns appear once, first.
    fn merge_columns(
        &mut self,
        mut plan: Plan,
        mut scope: Scope,
        pairs: &[(usize, usize)],
        width: usize,
        kind: JoinKind,
    ) -> Result<(Plan, Scope)> {
        if pairs.is_empty() {
            return Ok((plan, scope));
        }
        let mut merged = Vec::with_capacity(pairs.len());
        let mut added = Vec::new();
        for &(l, r) in pairs {
            let r = r + width;
            match kind {
                JoinKind::Full => {
                    let both = [l, r].map(|i| Expr::Column(i, scope.columns[i].ty.clone()));
                    let name = scope.columns[l].name.clone();
                    let (both, ty) = self.unify(both.into(), "JOIN/USING")?;
                    scope.columns[l].qualified_only = true;
                    scope.columns[r].qualified_only = true;
                    merged.push(scope.columns.len() + added.len());
                    added.push((name, Expr::Coalesce(both, ty.clone()), ty));
                }
                JoinKind::Right => {
                    scope.columns[l].qualified_only = true;
                    merged.push(r);
                }
                _ => {
                    scope.columns[r].qualified_only = true;
                    merged.push(l);
                }
            }
        }
        scope.star.retain(|i| !merged.contains(i) && !pairs.iter().any(|&(l, r)| *i == l || *i == r + width));
        let rest = std::mem::take(&mut scope.star);
        scope.star = merged.into_iter().chain(rest).collect();
        if !added.is_empty() {
            let mut fields = plan.schema.to_vec();
            let mut exprs: Vec<Expr> =
                fields.iter().enumerate().map(|(i, f)| Expr::Column(i, f.ty.clone())).collect();
            for (name, expr, ty) in added {
                scope.columns.push(ScopeColumn {
                    relation: None,
                    name: name.clone(),
                    ty: ty.clone(),
                    origin: None,
                    qualified_only: false,
                    hidden: false,
                    system: false,
                });
                fields.push(Field { name, ty, origin: None });
                exprs.push(expr);
            }
            plan = project(plan, exprs, Arc::from(fields));
        }
        Ok((plan, scope))
    }

    pub(super) fn factor(&mut self, factor: &TableFactor) -> Result<(Plan, Scope)> {
        match factor {
            TableFactor::Table { name, args: None, .. } if is_mark(name, NO_RELATION) => {
                Ok((node(Node::Values(vec![Vec::new()]), Arc::from([])), Scope::default()))
            }
            TableFactor::Table {
                name,
                alias,
                args: None,
                with_ordinality: false,
                sample: None,
                version: None,
                ..
            } => self.named_relation(name, alias.as_ref()),
            TableFactor::Table { version: Some(_), .. } => {
                Err(SqlError::feature_not_supported("AS OF SYSTEM TIME is not yet supported"))
            }
            TableFactor::Table { name, alias, args: None, sample: Some(sample), .. } => {
                let rows = self.named_relation(name, alias.as_ref())?;
                self.sampled(rows, sample)
            }
            TableFactor::Table { name, alias, args, with_ordinality, .. } => {
                let args = args.as_ref().map_or(&[][..], |a| &a.args);
                self.function_relation(name, args, alias.as_ref(), *with_ordinality)
            }
            TableFactor::Function { name, args, with_ordinality, alias, .. } => {
                self.function_relation(name, args, alias.as_ref(), *with_ordinality)
            }
            TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality, .. } => {
                let args: Vec<ast::FunctionArg> = array_exprs
                    .iter()
                    .map(|e| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e.clone())))
                    .collect();
                let name = ast::ObjectName::from(vec![ast::Ident::new("unnest")]);
                self.function_relation(&name, &args, alias.as_ref(), *with_ordinality)
            }
            TableFactor::Derived { subquery, alias: None, .. } => {
                let body = match &*subquery.body {
                    ast::SetExpr::Values(_) => "VALUES",
                    _ => "subquery",
                };
                let hint = match body {
                    "VALUES" => "For example, FROM (VALUES ...) [AS] foo.",
                    _ => "For example, FROM (SELECT ...) [AS] foo.",
                };
                let error = SqlError::syntax_error(format!("{body} in FROM must have an alias"));
                Err(error.with_hint(hint))
            }
            TableFactor::Derived { sample: Some(_), .. } => {
                Err(SqlError::syntax_error("syntax error at or near \"TABLESAMPLE\""))
            }
            TableFactor::Derived { lateral, subquery, alias, sample: None } => {
                let plan = if *lateral {
                    self.with_lateral(|b| b.query(subquery, None))?
                } else {
                    self.query(subquery, None)?
                };
                let plan = self.settle_output(plan)?;
                let name = alias.as_ref().map(|a| fold(&a.name)).unwrap_or_default();
                let names = alias_columns(alias.as_ref())?;
                let schema = rename(&plan.schema, &names, &name)?;
                let scope = Scope::relation(name, None, &schema);
                Ok((Plan { schema, ..plan }, scope))
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                let (plan, scope) = self.table_with_joins(table_with_joins)?;
                match alias {
                    None => Ok((plan, scope)),
                    Some(alias) => {
                        let fields: Vec<Field> = scope.star.iter().map(|&i| plan.schema[i].clone()).collect();
                        let exprs =
                            scope.star.iter().map(|&i| Expr::Column(i, plan.schema[i].ty.clone())).collect();
                        let name = fold(&alias.name);
                        let schema = rename(&fields, &alias_columns(Some(alias))?, &name)?;
                        let scope = Scope::relation(name, None, &schema);
                        Ok((project(plan, exprs, schema), scope))
                    }
                }
            }
            other => {
                let text: String = other.to_string().chars().take(40).collect();
                Err(SqlError::feature_not_supported(format!("FROM {text} is not supported")))
            }
        }
    }

    /// Binds with the left rows of enclosing joins in sight.
    fn with_lateral<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let top = self.levels.len();
        let first = self.levels.iter().rposition(|l| !l.lateral).map_or(0, |i| i + 1);
        let before: Vec<bool> = self.levels[first..top].iter().map(|l| l.visible).collect();
        self.levels[first..top].iter_mut().for_each(|l| l.visible = true);
        let result = f(self);
        for (level, visible) in self.levels[first..].iter_mut().zip(before) {
            level.visible = visible;
        }
        result
    }

    /// A WITH query, a stored table or a system view.
    fn named_relation(
        &mut self,
        name: &ast::ObjectName,
        alias: Option<&ast::TableAlias>,
    ) -> Result<(Plan, Scope)> {
        let parts = name_parts(name)?;
        let names = alias_columns(alias)?;
        if let [part] = &parts[..] {
            let bare = fold(part);
            if let Some(cte) = self.cte_names.iter().rev().find(|c| c.name == bare).cloned() {
                self.with_depth = self.with_depth.max(cte.depth);
                let shown = alias.map_or(bare, |a| fold(&a.name));
                let schema = rename(&cte.fields, &names, &shown)?;
                let unlisted = match cte.source {
                    CteSource::Working(_) => self.unlisted,
                    _ => 0,
                };
                let plan = match cte.source {
                    CteSource::Shared(id) => node(Node::CteScan(id), schema.clone()),
                    CteSource::Working(id) => node(Node::WorkTable(id), schema.clone()),
                    CteSource::Silent => {
                        let error = SqlError::feature_not_supported(format!(
                            "WITH query \"{}\" does not have a RETURNING clause",
                            cte.name
                        ));
                        return Err(self.at(error, part.span));
                    }
                    CteSource::Inline(plan, levels) => {
                        let mut plan = *plan;
                        plan.shift_outer(
                            isize::try_from(self.levels.len()).unwrap_or(0)
                                - isize::try_from(levels).unwrap_or(0),
                        );
                        Plan { schema: schema.clone(), ..plan }
                    }
                };
                let mut scope = Scope::relation(shown, None, &schema);
                let listed = schema.len().saturating_sub(unlisted);
                scope.star.truncate(listed);
                scope.columns[listed..].iter_mut().for_each(|c| c.system = true);
                return Ok((plan, scope));
            }
        }
        if let Some((relation, known)) = self.relation_of_view(name)? {
            return self.relation_as_it_was(name, &relation, &known, alias, &names);
        }
        let found = self.find_relation(name)?;
        let (own_name, own_schema) = match &found {
            Found::Table(table) => (table.name.clone(), table.schema.clone()),
            Found::View(view) => (view.name.to_owned(), view.schema.to_owned()),
            Found::UserView(view) => return self.view_relation(name, &view.clone(), alias, &names),
            Found::Sequence(sequence) => (sequence.name.clone(), sequence.schema.clone()),
        };
        let (shown, schema_name) = match alias {
            Some(alias) => (fold(&alias.name), None),
            None => (own_name, Some(own_schema)),
        };
        match found {
            Found::Table(table) => {
                self.use_table(&table);
                self.note_table(name, &table);
                let visible = table.visible_columns().len();
                if names.len() > visible {
                    rename(&table_fields(&table)[..visible], &names, &shown)?;
                }
                let schema = rename(&table_fields(&table), &names, &shown)?;
                let mut scope = Scope::relation(shown, schema_name, &schema);
                scope.relations[0].table = Some(table.clone());
                scope.star.truncate(visible);
                scope.columns[visible..].iter_mut().for_each(|c| c.hidden = true);
                Ok((table_scan(table, schema), scope))
            }
            Found::Sequence(sequence) => {
                let plan = self.sequence_row(&sequence)?;
                let schema = rename(&plan.schema, &names, &shown)?;
                let scope = Scope::relation(shown, schema_name, &schema);
                Ok((Plan { schema, ..plan }, scope))
            }
            Found::UserView(_) => Err(SqlError::internal("a view was expanded already")),
            Found::View(view) => {
                self.note_system(name, view.schema, view.name);
                let field = |(i, (name, ty)): (usize, &(&'static str, DataType))| Field {
                    name: (*name).to_owned(),
                    ty: ty.clone(),
                    origin: Some((view.oid, i16::try_from(i + 1).unwrap_or(i16::MAX))),
                };
                let fields: Vec<Field> = view.columns.iter().enumerate().map(field).collect();
                if names.len() > view.visible {
                    rename(&fields[..view.visible], &names, &shown)?;
                }
                let schema = rename(&fields, &names, &shown)?;
                let mut scope = Scope::relation(shown, schema_name, &schema);
                scope.star.truncate(view.visible);
                scope.columns[view.visible..].iter_mut().for_each(|c| c.system = true);
                Ok((node(Node::SystemScan { view, equal: Vec::new() }, schema), scope))
            }
        }
    }

    /// Looks a relation up. 42P01.
    pub(super) fn find_relation(&self, name: &ast::ObjectName) -> Result<Found> {
        let parts = name_parts(name)?;
        let (schema, last) = match &parts[..] {
            [last] => (None, last),
            [schema, last] | [_, schema, last] => (Some(fold(schema)), last),
            _ => return Err(SqlError::syntax_error("improper relation name (too many dotted names)")),
        };
        let bare = fold(last);
        let found = match &schema {
            Some(schema) => self.relation_in(schema, &bare),
            None => {
                let path = &self.context.search_path;
                let implicit = if path.iter().any(|s| s == "pg_catalog") { None } else { Some("pg_catalog") };
                let mut schemas = implicit.into_iter().chain(path.iter().map(String::as_str));
                schemas.find_map(|s| self.relation_in(s, &bare))
            }
        };
        found.ok_or_else(|| {
            let shown = match &schema {
                Some(schema) => format!("{schema}.{bare}"),
                None => bare,
            };
            let span = parts.first().map_or(last.span, |p| p.span);
            self.at(SqlError::undefined_table(format!("relation \"{shown}\" does not exist")), span)
        })
    }

    fn relation_in(&self, schema: &str, name: &str) -> Option<Found> {
        match self.context.catalog.relation(schema, name) {
            Some(Relation::Table(table)) => return Some(Found::Table(table.clone())),
            Some(Relation::View(view)) => return Some(Found::UserView(view.clone())),
            Some(Relation::Sequence(sequence)) => return Some(Found::Sequence(sequence.clone())),
            None => {}
        }
        system_view(Some(schema), name).map(Found::View)
    }

    /// A relation that a stored view reads: the columns it had when the view was made, by their names then.
    fn relation_as_it_was(
        &mut self,
        name: &ast::ObjectName,
        relation: &Relation,
        known: &ViewRelation,
        alias: Option<&ast::TableAlias>,
        names: &[String],
    ) -> Result<(Plan, Scope)> {
        let shown = alias.map_or_else(|| relation.name().1.to_owned(), |a| fold(&a.name));
        let (plan, mut scope, ids) = match relation {
            Relation::Table(table) => {
                self.use_table(table);
                let schema: Arc<[Field]> = table_fields(table).into();
                let mut scope = Scope::relation(shown, None, &schema);
                scope.relations[0].table = Some(table.clone());
                let ids: Vec<_> = table.columns.iter().map(|c| c.id).collect();
                (table_scan(table.clone(), schema), scope, ids)
            }
            Relation::View(view) => {
                let (plan, scope) = self.view_relation(name, view, alias, &[])?;
                let ids = (0..plan.width()).map(super::view::position_id).collect();
                (plan, scope, ids)
            }
            Relation::Sequence(_) => return Err(SqlError::internal("a view reads a sequence as a table")),
        };
        scope.star.clear();
        for column in &mut scope.columns {
            column.hidden = true;
        }
        for (i, (id, name)) in known.columns.iter().enumerate() {
            if let Some(position) = ids.iter().position(|known| known == id) {
                let column = &mut scope.columns[position];
                column.hidden = false;
                column.name.clone_from(names.get(i).unwrap_or(name));
                scope.star.push(position);
            }
        }
        Ok((plan, scope))
    }

    /// The row of a sequence: `last_value`, `log_cnt`, `is_called`.
    fn sequence_row(&mut self, sequence: &Sequence) -> Result<Plan> {
        let oid = || Expr::Literal(amphora_storage::Datum::Oid(sequence.id.0), DataType::Oid);
        let part = |b: &mut Self, part: i32| {
            let part = Expr::Literal(amphora_storage::Datum::Int4(part), DataType::Int4);
            b.call_named("sequence_state", vec![oid(), part])
        };
        let (last, ahead, called) = (part(self, 0)?, part(self, 1)?, part(self, 2)?);
        let one = Expr::Literal(amphora_storage::Datum::Int8(1), DataType::Int8);
        let called = self.operator("=", Some(called), one)?;
        let field = |name: &str, number: i16, ty: DataType| Field {
            name: name.to_owned(),
            ty,
            origin: Some((sequence.id.0, number)),
        };
        let schema: Arc<[Field]> = Arc::from([
            field("last_value", 1, DataType::Int8),
            field("log_cnt", 2, DataType::Int8),
            field("is_called", 3, DataType::Bool),
        ]);
        Ok(node(Node::Values(vec![vec![last, ahead, called]]), schema))
    }

    /// A function in FROM; it may always see what stands left of it.
    pub(super) fn function_relation(
        &mut self,
        name: &ast::ObjectName,
        args: &[ast::FunctionArg],
        alias: Option<&ast::TableAlias>,
        ordinality: bool,
    ) -> Result<(Plan, Scope)> {
        if is_mark(name, ROWS_FROM) {
            return self.rows_from(args, alias, ordinality);
        }
        let parts = name_parts(name)?;
        let own = parts.last().map(|i| fold(i)).unwrap_or_default();
        let shown = alias.map_or_else(|| own.clone(), |a| fold(&a.name));
        let definitions = self.column_definitions(alias)?;
        let names = match definitions {
            Some(_) => Vec::new(),
            None => alias_columns(alias)?,
        };
        if own == "unnest" && args.len() > 1 {
            let (arrays, _) = self.with_lateral(|b| {
                b.in_level(Level::new(Scope::default(), Clause::From), |b| b.call_args(args))
            })?;
            let mut plan = self.unnest_together(arrays)?;
            if !ordinality {
                let columns = 0..plan.width() - 1;
                let exprs = columns.clone().map(|i| Expr::Column(i, plan.schema[i].ty.clone())).collect();
                let schema: Arc<[Field]> = plan.schema[columns].into();
                plan = project(plan, exprs, schema);
            }
            let schema = rename(&plan.schema, &names, &shown)?;
            return Ok((Plan { schema: schema.clone(), ..plan }, Scope::relation(shown, None, &schema)));
        }
        let (bound, _) = self
            .with_lateral(|b| {
                b.in_level(Level::new(Scope::default(), Clause::From), |b| {
                    let args = b.call_args(args)?;
                    if !functions::is_set_function(&own) {
                        let call = b.call_named(&own, args)?;
                        return Ok((None, vec![call], Vec::new()));
                    }
                    let actual: Vec<DataType> = args.iter().map(|a| a.ty().base()).collect();
                    let resolved = functions::resolve_set_function(&own, &actual)?;
                    let args = b.arguments(args, &resolved.arg_types)?;
                    Ok((Some(resolved.function), args, resolved.columns))
                })
            })
            .map_err(|error| self.at(error, name.span()))?;
        let (function, args, mut columns) = bound;
        let ty = args.first().map_or(DataType::Void, Expr::ty);
        match (&function, ty.fields()) {
            (None, Some(fields)) => columns.extend_from_slice(fields),
            (None, None) => columns.push((own.clone(), ty.clone())),
            (Some(_), _) => {}
        }
        match (definitions, function.is_some_and(|f| f.needs_definitions())) {
            (Some(definitions), true) => columns = definitions,
            (None, true) => {
                let message = "a column definition list is required for functions returning \"record\"";
                return Err(self.at(SqlError::syntax_error(message), name.span()));
            }
            (Some(_), false) => {
                let message = "a column definition list is only allowed for functions returning \"record\"";
                return Err(self.at(SqlError::syntax_error(message), name.span()));
            }
            (None, false) => {}
        }
        let scalar = columns.len() == 1 && !ordinality && ty.fields().is_none();
        // A function of one column that has no name names it as the alias, if there is one.
        if let ([column], Some(_)) = (&mut columns[..], alias)
            && column.0 == own
        {
            column.0 = shown.clone();
        }
        if ordinality {
            columns.push(("ordinality".into(), DataType::Int8));
        }
        let schema = rename(&super::query::fields_of(&columns), &names, &shown)?;
        let plan = match function {
            Some(function) => node(Node::FunctionScan { function, args, ordinality }, schema.clone()),
            None if ty.fields().is_some() => {
                let row = node(Node::Values(vec![args]), super::query::fields_of(&[(own, ty.clone())]));
                let whole = Expr::Column(0, ty);
                let mut exprs: Vec<Expr> = self.every_field(&whole)?.into_iter().map(|i| i.expr).collect();
                if ordinality {
                    exprs.push(Expr::Literal(amphora_storage::Datum::Int8(1), DataType::Int8));
                }
                project(row, exprs, schema.clone())
            }
            None => {
                let mut exprs = args;
                if ordinality {
                    exprs.push(Expr::Literal(amphora_storage::Datum::Int8(1), DataType::Int8));
                }
                node(Node::Values(vec![exprs]), schema.clone())
            }
        };
        let mut scope = Scope::relation(shown, None, &schema);
        scope.relations[0].scalar = scalar;
        Ok((plan, scope))
    }

    /// `AS x(a integer, b text)`: what the columns of a function that returns `record` are.
    fn column_definitions(&self, alias: Option<&ast::TableAlias>) -> Result<Option<Vec<(String, DataType)>>> {
        let Some(alias) = alias.filter(|a| a.columns.iter().any(|c| c.data_type.is_some())) else {
            return Ok(None);
        };
        let mut columns = Vec::with_capacity(alias.columns.len());
        for column in &alias.columns {
            let Some(ty) = &column.data_type else {
                return Err(self.at(SqlError::syntax_error("a column without a type"), column.name.span));
            };
            columns.push((fold(&column.name), self.data_type(ty)?));
        }
        Ok(Some(columns))
    }
}

/// USING (…) AS alias: the merged columns, which `*` gives first, once more under a name of their own.
fn alias_merged(plan: Plan, scope: Scope, alias: String, count: usize) -> Result<(Plan, Scope)> {
    let merged: Vec<usize> = scope.star.iter().take(count).copied().collect();
    let mut fields = plan.schema.to_vec();
    let mut exprs: Vec<Expr> =
        fields.iter().enumerate().map(|(i, f)| Expr::Column(i, f.ty.clone())).collect();
    let own: Vec<Field> = merged.iter().map(|&i| Field { origin: None, ..fields[i].clone() }).collect();
    exprs.extend(merged.iter().map(|&i| Expr::Column(i, fields[i].ty.clone())));
    let mut named = Scope::relation(alias, None, &own);
    named.star.clear();
    for (column, &i) in named.columns.iter_mut().zip(&merged) {
        column.qualified_only = true;
        column.name.clone_from(&scope.columns[i].name);
    }
    fields.extend(own);
    Ok((project(plan, exprs, Arc::from(fields)), scope.join(named)?))
}

/// A scan of all rows and columns of a table.
pub(super) fn table_scan(table: Arc<Table>, schema: Arc<[Field]>) -> Plan {
    let scan = TableScan {
        columns: (0..table.columns.len()).collect(),
        table,
        index: IndexId::PRIMARY,
        ranges: vec![ScanRange { prefix: Vec::new(), each: Vec::new(), lower: None, upper: None }],
        direction: Direction::Forward,
        filter: None,
        point: false,
    };
    node(Node::TableScan(scan), schema)
}

/// True of a name that the parser put in a place.
fn is_mark(name: &ast::ObjectName, mark: &str) -> bool {
    matches!(&name.0[..], [part] if part.as_ident().is_some_and(|i| i.quote_style.is_none() && i.value == mark))
}

/// The column names of an alias.
pub(super) fn alias_columns(alias: Option<&ast::TableAlias>) -> Result<Vec<String>> {
    let Some(alias) = alias else { return Ok(Vec::new()) };
    if alias.columns.iter().any(|c| c.data_type.is_some()) {
        return Err(SqlError::feature_not_supported("column definition lists are not supported"));
    }
    Ok(alias.columns.iter().map(|c| fold(&c.name)).collect())
}

fn join_kind(operator: &JoinOperator) -> Result<(JoinKind, &JoinConstraint)> {
    Ok(match operator {
        JoinOperator::Join(c) | JoinOperator::Inner(c) | JoinOperator::CrossJoin(c) => (JoinKind::Inner, c),
        JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => (JoinKind::Left, c),
        JoinOperator::Right(c) | JoinOperator::RightOuter(c) => (JoinKind::Right, c),
        JoinOperator::FullOuter(c) => (JoinKind::Full, c),
        _ => return Err(SqlError::feature_not_supported("this kind of JOIN is not supported")),
    })
}

/// The positions of a column that both sides have.
fn using_pair(left: &Scope, right: &Scope, name: &str) -> Result<(usize, usize)> {
    let find = |scope: &Scope, side: &str| {
        let found: Vec<usize> = (0..scope.columns.len())
            .filter(|&i| {
                let c = &scope.columns[i];
                c.name == name && !c.qualified_only && !c.hidden
            })
            .collect();
        match found[..] {
            [i] => Ok(i),
            [] => Err(SqlError::undefined_column(format!(
                "column \"{name}\" specified in USING clause does not exist in {side} table"
            ))),
            _ => Err(SqlError::ambiguous_column(format!(
                "common column name \"{name}\" appears more than once in {side} table"
            ))),
        }
    };
    Ok((find(left, "left")?, find(right, "right")?))
}

fn natural_pairs(left: &Scope, right: &Scope) -> Result<Vec<(usize, usize)>> {
    let mut pairs = Vec::new();
    for &i in &left.star {
        let name = &left.columns[i].name;
        if right.columns.iter().any(|c| c.name == *name && !c.qualified_only && !c.hidden) {
            pairs.push(using_pair(left, right, name)?);
        }
    }
    Ok(pairs)
}

//! CREATE VIEW, and views in FROM.
//!
//! A view is stored as text, and the text must go on meaning what it meant: tables are renamed, columns are
//! added, search paths differ. So the query is rewritten once, when the view is made:
//!
//! ```text
//!   SELECT * FROM app.t, u AS x WHERE app.t.id = x.id
//!      │ *  is written out, relations become their ids under an alias, three-part names lose their schema
//!      ▼
//!   SELECT t.id, t.name, x.id FROM "16385" AS t, "16390" AS x WHERE t.id = x.id
//! ```
//!
//! and beside it stands which columns the relations had then, and under which names ([`ViewRelation`]). When
//! the view is used, its text is bound in a binder state of its own: no names of the outside, no search path,
//! no positions. It becomes a subquery, and the optimizer goes through it as through any other.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use amphora_storage::DataType;
use amphora_storage::schema::{ColumnId, Relation, Table, TableId, View, ViewRelation};
use sqlparser::ast;
use sqlparser::ast::{Expr as AstExpr, Ident, ObjectName, SelectItem, TableFactor, VisitMut, VisitorMut};
use sqlparser::tokenizer::{Location, Span};

use super::query::rename;
use super::scope::Scope;
use super::table_option::{TableOptions, options_of};
use super::{Binder, fold, name_parts};
use crate::command::{Command, CreateTable, CreateTableAs, CreateView, NewColumn, ObjectCommand};
use crate::error::{Result, SqlError};
use crate::frontend::PlannerContext;
use crate::parser;
use crate::plan::{Field, Plan};

/// How deep views may lead to views.
const MAX_DEPTH: usize = 64;

/// What is noted while a view's query is bound for the first time.
#[derive(Debug, Default)]
pub(super) struct Recording {
    /// What names in FROM mean, by their place
    relations: HashMap<Location, Meaning>,
    /// What `*` stands for, by its place
    stars: HashMap<Location, Vec<(Option<String>, String)>>,
    /// Every relation read, once
    read: Vec<ViewRelation>,
}

#[derive(Clone, Debug)]
enum Meaning {
    /// A table or view of a user
    Stored(TableId, String),
    /// A relation of the system
    System(&'static str, &'static str),
}

/// The view whose stored text is being bound.
#[derive(Clone, Debug)]
pub(super) struct Expanding {
    view: Arc<View>,
    depth: usize,
}

impl Binder<'_> {
    // What binding a query tells, if a view is being made of it.

    fn recording(&mut self) -> Option<&mut Recording> {
        if self.expanding.is_some() { None } else { self.recording.as_mut() }
    }

    /// A name in FROM means this table.
    pub(super) fn note_table(&mut self, name: &ObjectName, table: &Table) {
        let columns = table.visible_columns().iter().map(|c| (c.id, c.name.clone()));
        let relation = ViewRelation { id: table.id, columns: columns.collect() };
        self.note(name, Meaning::Stored(table.id, table.name.clone()), Some(relation));
    }

    fn note_view(&mut self, name: &ObjectName, view: &View) {
        let columns = view.columns.iter().enumerate().map(|(i, (name, _))| (position_id(i), name.clone()));
        let relation = ViewRelation { id: view.id, columns: columns.collect() };
        self.note(name, Meaning::Stored(view.id, view.name.clone()), Some(relation));
    }

    /// A name in FROM means a relation of the system.
    pub(super) fn note_system(&mut self, name: &ObjectName, schema: &'static str, relation: &'static str) {
        self.note(name, Meaning::System(schema, relation), None);
    }

    fn note(&mut self, name: &ObjectName, meaning: Meaning, relation: Option<ViewRelation>) {
        let Some(recording) = self.recording() else { return };
        if let Some(place) = place_of(name) {
            recording.relations.insert(place, meaning);
        }
        if let Some(relation) = relation
            && recording.read.iter().all(|r| r.id != relation.id)
        {
            recording.read.push(relation);
        }
    }

    /// `*` at this place stands for these columns of the innermost level.
    pub(super) fn note_star(&mut self, span: Span, columns: &[usize]) {
        if self.expanding.is_some() || self.recording.is_none() {
            return;
        }
        let Ok(level) = self.level() else { return };
        let names = columns
            .iter()
            .map(|&c| {
                let column = &level.scope.columns[c];
                let relation = column.relation.and_then(|r| level.scope.relations.get(r));
                let relation = relation.map(|r| r.name.clone()).filter(|n| !n.is_empty());
                (relation, column.name.clone())
            })
            .collect();
        if let Some(recording) = self.recording() {
            recording.stars.insert(span.start, names);
        }
    }

    // Making views.

    /// CREATE VIEW.
    pub(super) fn create_view(&mut self, create: &ast::CreateView) -> Result<Command> {
        if create.materialized {
            return Err(SqlError::feature_not_supported("materialized views are not supported")
                .with_hint("Use CREATE TABLE AS, and fill it again when it is to be renewed."));
        }
        if create.temporary {
            return Err(SqlError::feature_not_supported("temporary views are not supported")
                .with_hint("Create it without TEMPORARY, and drop it when it is no longer needed."));
        }
        if create.if_not_exists || create.or_alter || create.with_no_schema_binding || create.to.is_some() {
            return Err(SqlError::syntax_error("this form of CREATE VIEW is not PostgreSQL"));
        }
        let (schema, name) = self.new_name(&create.name)?;
        self.recording = Some(Recording::default());
        let plan = self.top_query(&create.query);
        let recording = self.recording.take().unwrap_or_default();
        let plan = plan?;
        if create.columns.len() > plan.width() {
            return Err(SqlError::syntax_error("CREATE VIEW specifies more column names than columns"));
        }
        let mut columns: Vec<(String, DataType)> =
            plan.schema.iter().map(|f| (f.name.clone(), f.ty.clone())).collect();
        for (column, given) in columns.iter_mut().zip(&create.columns) {
            column.0 = fold(&given.name);
        }
        for (i, (name, ty)) in columns.iter().enumerate() {
            if columns[..i].iter().any(|(other, _)| other == name) {
                return Err(SqlError::duplicate_column(format!(
                    "column \"{name}\" specified more than once"
                )));
            }
            if matches!(ty, DataType::Record | DataType::Void) {
                return Err(SqlError::invalid_table_definition(format!(
                    "column \"{name}\" has pseudo-type {ty}"
                )));
            }
        }
        let mut query = (*create.query).clone();
        let mut rewriter = Rewriter { recording: &recording };
        let _: ControlFlow<()> = query.visit(&mut rewriter);
        self.types_by_id(&mut query);
        let text = query.to_string();
        let sequences = self.sequences_in(&text);
        let view = View {
            id: TableId(0),
            version: amphora_storage::Timestamp::ZERO,
            schema: schema.clone(),
            name: name.clone(),
            owner: String::new(),
            columns: columns.clone(),
            query: text.clone(),
            relations: recording.read.clone(),
            sequences: sequences.clone(),
            comment: None,
        };
        // The text must say what the statement said.
        let again = self.expand(&Arc::new(view))?;
        let same = again.schema.iter().map(|f| &f.ty).eq(columns.iter().map(|(_, ty)| ty));
        if !same {
            return Err(SqlError::feature_not_supported("this query cannot be stored as a view"));
        }
        Ok(Command::Object(Box::new(ObjectCommand::CreateView(Box::new(CreateView {
            schema,
            name,
            or_replace: create.or_replace,
            columns,
            query: text,
            relations: recording.read,
            sequences,
        })))))
    }

    /// Sequences named by `nextval('…')` in a stored text.
    fn sequences_in(&self, text: &str) -> Vec<TableId> {
        let mut found = Vec::new();
        for part in text.split("nextval('").skip(1) {
            let Some((name, _)) = part.split_once('\'') else { continue };
            let oid = self.context.format.names.as_ref();
            let oid = oid.and_then(|n| n.oid_of(&DataType::Regclass, name).ok().flatten());
            if let Some(id) = oid.map(TableId)
                && !found.contains(&id)
            {
                found.push(id);
            }
        }
        found
    }

    // Using views.

    /// A user's view in FROM.
    pub(super) fn view_relation(
        &mut self,
        name: &ObjectName,
        view: &Arc<View>,
        alias: Option<&ast::TableAlias>,
        names: &[String],
    ) -> Result<(Plan, Scope)> {
        self.note_view(name, view);
        let plan = self.expand(view)?;
        let (shown, schema_name) = match alias {
            Some(alias) => (fold(&alias.name), None),
            None => (view.name.clone(), Some(view.schema.clone())),
        };
        let schema = rename(&plan.schema, names, &shown)?;
        Ok((Plan { schema: schema.clone(), ..plan }, Scope::relation(shown, schema_name, &schema)))
    }

    /// The plan of a view's query, its columns named as the view's.
    pub(super) fn expand(&mut self, view: &Arc<View>) -> Result<Plan> {
        let depth = self.expanding.as_ref().map_or(0, |e| e.depth) + 1;
        if depth > MAX_DEPTH {
            return Err(SqlError::statement_too_complex(format!(
                "views are nested more than {MAX_DEPTH} deep"
            )));
        }
        let query = parser::parse_query(&view.query)?;
        let plan = self.inside(view, |b| parser::with_enough_stack(depth > 1, || b.top_query(&query)));
        let plan = plan?;
        let fields = plan.schema.iter().zip(&view.columns).enumerate().map(|(i, (field, (name, _)))| Field {
            name: name.clone(),
            ty: field.ty.clone(),
            origin: Some((view.id.0, i16::try_from(i + 1).unwrap_or(i16::MAX))),
        });
        let schema: Arc<[Field]> = fields.collect();
        if schema.len() != plan.width() {
            return Err(SqlError::internal("a view's columns are not its query's"));
        }
        Ok(Plan { schema, ..plan })
    }

    /// Binds a part of a view's text: with the names of that, and none of the statement's.
    pub(super) fn inside<T>(
        &mut self,
        view: &Arc<View>,
        bind: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        if view.id != TableId(0) && self.views.iter().all(|v| v.id != view.id) {
            self.views.push(view.clone());
        }
        let depth = self.expanding.as_ref().map_or(0, |e| e.depth) + 1;
        let outer = self.expanding.replace(Expanding { view: view.clone(), depth });
        let positions = self.positions.take();
        let names = std::mem::take(&mut self.cte_names);
        // Names of the outside mean nothing inside.
        let visible: Vec<bool> =
            self.levels.iter_mut().map(|l| std::mem::replace(&mut l.visible, false)).collect();
        let bound = bind(self);
        for (level, visible) in self.levels.iter_mut().zip(visible) {
            level.visible = visible;
        }
        self.cte_names = names;
        self.positions = positions;
        self.expanding = outer;
        bound
    }

    /// While a view's text is bound: the relation that an id stands for, and the names its columns had.
    pub(super) fn relation_of_view(&self, name: &ObjectName) -> Result<Option<(Relation, ViewRelation)>> {
        let Some(expanding) = &self.expanding else { return Ok(None) };
        let parts = name_parts(name)?;
        let [part] = &parts[..] else { return Ok(None) };
        let Some(id) = part.quote_style.and_then(|_| part.value.parse().ok()).map(TableId) else {
            return Ok(None);
        };
        let known = expanding.view.relations.iter().find(|r| r.id == id);
        match (known, self.context.catalog.relation_by_id(id)) {
            (Some(known), Some(relation)) => Ok(Some((relation.clone(), known.clone()))),
            _ => Err(SqlError::undefined_table(format!(
                "view \"{}\" reads a relation that does not exist",
                expanding.view.name
            ))),
        }
    }

    // CREATE TABLE AS.

    /// CREATE TABLE … AS and SELECT … INTO.
    pub(super) fn create_table_as(&mut self, create: &parser::CreateTableAs) -> Result<Command> {
        if create.temporary {
            return Err(super::ddl::no_temporary_tables());
        }
        let (schema, name) = self.new_name(&create.name)?;
        let TableOptions { replication, write_quorum, read_quorum } = options_of(&create.options)?;
        let plan = self.top_query(&create.query)?;
        if create.columns.len() > plan.width() {
            return Err(SqlError::syntax_error("too many column names were specified"));
        }
        let mut columns: Vec<NewColumn> = Vec::with_capacity(plan.width());
        for (i, field) in plan.schema.iter().enumerate() {
            let name = create.columns.get(i).map_or_else(|| field.name.clone(), fold);
            if columns.iter().any(|c| c.name == name) {
                return Err(SqlError::duplicate_column(format!(
                    "column \"{name}\" specified more than once"
                )));
            }
            if matches!(field.ty, DataType::Record | DataType::Void) {
                return Err(SqlError::invalid_table_definition(format!(
                    "column \"{name}\" has pseudo-type {}",
                    field.ty
                )));
            }
            let ty = field.ty.base();
            columns.push(NewColumn::plain(name, ty));
        }
        let table = CreateTable {
            schema,
            name,
            if_not_exists: create.if_not_exists,
            replication,
            columns,
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
        let query = create.with_data.then(|| Arc::new(create.query.clone()));
        Ok(Command::Object(Box::new(ObjectCommand::CreateTableAs(Box::new(CreateTableAs { table, query })))))
    }
}

/// `SELECT … INTO table`: CREATE TABLE AS, said otherwise.
pub(super) fn select_into(query: &ast::Query) -> Result<Option<parser::CreateTableAs>> {
    let ast::SetExpr::Select(select) = &*query.body else { return Ok(None) };
    let Some(into) = &select.into else { return Ok(None) };
    let name = match &into.targets[..] {
        [AstExpr::Identifier(name)] => ObjectName::from(vec![name.clone()]),
        [AstExpr::CompoundIdentifier(parts)] => ObjectName::from(parts.clone()),
        _ => return Err(SqlError::syntax_error("SELECT INTO names one table")),
    };
    let temporary = into.temporary;
    let mut query = query.clone();
    if let ast::SetExpr::Select(select) = &mut *query.body {
        select.into = None;
    }
    let (columns, options) = (Vec::new(), Vec::new());
    Ok(Some(parser::CreateTableAs {
        name,
        temporary,
        if_not_exists: false,
        columns,
        options,
        query,
        with_data: true,
    }))
}

/// True if a view's query means nothing in this catalog.
pub(crate) fn view_is_broken(view: &Arc<View>, context: &PlannerContext) -> bool {
    Binder::new(context, None).expand(view).is_err()
}

/// A view's column as a [`ViewRelation`] knows it.
pub(super) fn position_id(position: usize) -> ColumnId {
    ColumnId(u32::try_from(position).unwrap_or(u32::MAX))
}

fn place_of(name: &ObjectName) -> Option<Location> {
    let place = name.0.first()?.as_ident()?.span.start;
    (place.line > 0).then_some(place)
}

/// Writes what was noted into the query.
struct Rewriter<'a> {
    recording: &'a Recording,
}

impl VisitorMut for Rewriter<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, alias, .. } = factor
            && let Some(meaning) = place_of(name).and_then(|p| self.recording.relations.get(&p))
        {
            let shown = match meaning {
                Meaning::Stored(id, shown) => {
                    *name = ObjectName::from(vec![Ident::with_quote('"', id.0.to_string())]);
                    shown.as_str()
                }
                Meaning::System(schema, relation) => {
                    *name = ObjectName::from(vec![Ident::new(*schema), Ident::new(*relation)]);
                    relation
                }
            };
            if alias.is_none() {
                *alias = Some(ast::TableAlias {
                    explicit: true,
                    name: quoted_ident(shown),
                    columns: Vec::new(),
                    at: None,
                });
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, e: &mut AstExpr) -> ControlFlow<()> {
        if let AstExpr::CompoundIdentifier(parts) = e
            && parts.len() > 2
        {
            parts.drain(..parts.len() - 2);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
        let mut items = Vec::with_capacity(select.projection.len());
        for item in std::mem::take(&mut select.projection) {
            let span = match &item {
                SelectItem::Wildcard(options) => Some(options.wildcard_token.0.span),
                SelectItem::QualifiedWildcard(_, options) => Some(options.wildcard_token.0.span),
                _ => None,
            };
            match span.and_then(|s| self.recording.stars.get(&s.start)) {
                Some(columns) => items.extend(columns.iter().map(|(relation, column)| {
                    let column = quoted_ident(column);
                    SelectItem::UnnamedExpr(match relation {
                        Some(relation) => AstExpr::CompoundIdentifier(vec![quoted_ident(relation), column]),
                        None => AstExpr::Identifier(column),
                    })
                })),
                None => items.push(item),
            }
        }
        select.projection = items;
        ControlFlow::Continue(())
    }
}

/// An identifier that reads back as this name.
fn quoted_ident(name: &str) -> Ident {
    if crate::catalog::quoted(name) == name && !is_keyword(name) {
        Ident::new(name)
    } else {
        Ident::with_quote('"', name)
    }
}

/// True of words that may not stand where an identifier does.
fn is_keyword(name: &str) -> bool {
    let token = sqlparser::tokenizer::Token::make_keyword(name);
    matches!(token, sqlparser::tokenizer::Token::Word(w) if w.keyword != sqlparser::keywords::Keyword::NoKeyword)
}

/// 55000, or 0A000 where PostgreSQL could do it: views cannot be written yet.
pub(super) fn not_updatable(verb: &str, name: &str) -> SqlError {
    let (event, gerund) = match verb {
        "insert into" => ("INSERT", "inserting into"),
        "delete from" => ("DELETE", "deleting from"),
        _ => ("UPDATE", "updating"),
    };
    SqlError::object_not_in_prerequisite_state(format!("cannot {verb} view \"{name}\""))
        .with_detail("Views are not automatically updatable.")
        .with_hint(format!(
            "To enable {gerund} the view, provide an INSTEAD OF {event} trigger or an unconditional ON {event} DO INSTEAD rule."
        ))
}

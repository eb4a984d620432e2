//! From a syntax tree to a typed plan: names resolved, types decided, casts made explicit.
//!
//! ```text
//!   statement ─► query.rs   WITH, set operations, ORDER BY, LIMIT
//!                  └─► select.rs   FROM ─► WHERE ─► GROUP BY ─► HAVING ─► window ─► SELECT ─► DISTINCT
//!                        ├─► from.rs      tables, joins, functions, LATERAL       scope.rs  names
//!                        └─► expr.rs      expressions ─► operator.rs, call.rs      coerce.rs types
//!            ─► insert.rs, modify.rs       INSERT, UPDATE, DELETE
//!            ─► ddl.rs, index.rs           CREATE and DROP, as commands
//! ```
//!
//! The plan made here is the plainest one: whole tables are scanned, joins are nested loops with their
//! condition on top. What to do about that is the optimizer's affair.
//!
//! Query levels form a stack (`level::Level`). A name is looked for in the innermost level first; found
//! further out it becomes [`Expr::Outer`] with the distance. The right side of a join is one level in, so
//! that LATERAL is no special case.

mod aggregate;
pub(crate) mod alter;
mod analyze;
mod call;
mod coerce;
mod copy;
mod crdt;
mod current_of;
mod data_type;
mod ddl;
mod expr;
mod foreign_key;
mod from;
mod grouping_sets;
mod index;
mod insert;
mod level;
mod literal;
mod merge;
mod modify;
mod object;
mod operator;
mod predicate;
mod query;
mod record;
mod recursion;
mod rows_from;
mod sample;
mod scope;
mod select;
mod subquery;
mod table_like;
mod table_option;
#[cfg(test)]
mod tests;
mod updatable;
mod user_type;
mod view;
mod window;

use std::collections::HashMap;
use std::sync::Arc;

use amphora_storage::DataType;
use amphora_storage::schema::{Table, TableId, View};
use sqlparser::ast;
use sqlparser::tokenizer::Span;

pub(crate) use self::ddl::{check_key_type, made_up_name};
#[cfg(test)]
pub(crate) use self::index::condition_over;
pub(crate) use self::index::{index_texts, unused_name};
pub(crate) use self::user_type::{domain_test, is_constrained, stored_breaks};
pub(crate) use self::view::view_is_broken;

use self::level::Level;
pub(crate) use self::table_option::{QUORUM_HINT, changed_options};
use crate::command::Command;
use crate::copy::Direction;
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::frontend::PlannerContext;
use crate::parser::{Ast, Overriding, ParsedStatement, Positions};
use crate::plan::{Explain, Field, Plan, Prepared, Rules, Statement};

/// Binds one statement, without optimizing it.
pub(crate) fn bind(statement: &ParsedStatement, context: &PlannerContext) -> Result<Prepared> {
    let mut binder = Binder::new(context, Some(statement.positions().clone()));
    let (bound, schema) = binder.ast(statement.ast()?)?;
    binder.finish(bound, schema)
}

/// What a table says of its own values, bound.
pub(crate) struct StoredExpressions {
    /// What its rows must be, over the full row
    pub(crate) checks: Rules,
    /// DEFAULTs of the columns asked for, cast to their types
    pub(crate) defaults: Vec<Expr>,
}

/// Binds a table's CHECKs, and the defaults of columns at these positions.
pub(crate) fn stored_expressions(
    context: &PlannerContext,
    table: &Arc<Table>,
    columns: &[usize],
) -> Result<StoredExpressions> {
    let mut binder = Binder::new(context, None);
    let checks = binder.checks(table)?;
    let defaults = columns.iter().map(|&c| binder.default_value(table, c)).collect::<Result<_>>()?;
    Ok(StoredExpressions { checks, defaults })
}

/// A stored condition over a table's row, as PostgreSQL shows it; as it was written, if it does not bind.
pub(crate) fn shown_condition(table: &Arc<Table>, condition: &str, pretty: bool) -> String {
    let context = PlannerContext::new(Arc::default());
    match Binder::new(&context, None).stored_expr(condition, Some(table), &DataType::Unknown) {
        Ok(bound) => crate::deparse::over_table(table, &bound, pretty),
        Err(_) => condition.to_owned(),
    }
}

/// The columns that a stored expression over a table's row reads: positions, ascending.
pub(crate) fn columns_of(table: &Arc<Table>, expression: &str) -> Vec<usize> {
    let context = PlannerContext::new(Arc::default());
    let mut columns = std::collections::BTreeSet::new();
    // It was bound when it was stored. A user's type cannot be bound without the catalog: then every column
    // that is named counts.
    let bound = Binder::new(&context, None).stored_expr(expression, Some(table), &DataType::Unknown);
    match bound {
        Ok(bound) => bound.columns(&mut |c| {
            columns.insert(c);
        }),
        Err(_) => columns.extend(alter::columns_named(table, expression)),
    }
    columns.into_iter().collect()
}

/// The state of binding one statement.
pub(crate) struct Binder<'a> {
    context: &'a PlannerContext,
    positions: Option<Arc<Positions>>,
    /// Types of `$1 …`, as they become known
    parameters: Vec<Option<DataType>>,
    /// Stored tables used
    tables: Vec<Arc<Table>>,
    /// Views that were expanded
    views: Vec<Arc<View>>,
    /// What is noted for a view that is being made
    recording: Option<view::Recording>,
    /// The view whose stored query is being bound
    expanding: Option<view::Expanding>,
    /// INSERT … OVERRIDING … VALUE
    overriding: Option<Overriding>,
    /// AS OF SYSTEM TIME
    as_of: Option<Expr>,
    /// The table that is written through a view, and the view's names for its columns
    written: Option<(TableId, updatable::Columns)>,
    /// Finished WITH queries
    ctes: Vec<Plan>,
    /// Those of them that write, by position
    writes: Vec<(usize, Statement)>,
    /// How many queries are being bound, one inside another
    nesting: usize,
    /// Names of WITH queries in scope
    cte_names: Vec<query::CteName>,
    /// How deep the WITH queries lie that the one being bound has read from
    with_depth: usize,
    /// How many columns at the end of a working table `*` does not give: those of SEARCH and CYCLE
    unlisted: usize,
    /// Next id of a recursive working table
    recursions: usize,
    /// Query levels, outermost first
    levels: Vec<Level>,
    /// Parameters are not allowed here (DDL)
    no_parameters: bool,
    /// Defaults already bound, by table and column: rows of one INSERT share them
    defaults: HashMap<(TableId, usize), Expr>,
}

impl<'a> Binder<'a> {
    fn new(context: &'a PlannerContext, positions: Option<Arc<Positions>>) -> Binder<'a> {
        Binder {
            context,
            positions,
            parameters: context
                .parameters
                .iter()
                .map(|t| t.clone().filter(|t| *t != DataType::Unknown))
                .collect(),
            tables: Vec::new(),
            views: Vec::new(),
            recording: None,
            expanding: None,
            overriding: None,
            as_of: None,
            written: None,
            ctes: Vec::new(),
            writes: Vec::new(),
            nesting: 0,
            cte_names: Vec::new(),
            with_depth: 0,
            unlisted: 0,
            recursions: 0,
            levels: Vec::new(),
            no_parameters: false,
            defaults: HashMap::new(),
        }
    }

    /// The finished statement: every parameter has a type now.
    fn finish(mut self, mut statement: Statement, schema: Arc<[Field]>) -> Result<Prepared> {
        let mut parameters = Vec::with_capacity(self.parameters.len());
        for (i, ty) in self.parameters.iter().enumerate() {
            parameters.push(ty.clone().ok_or_else(|| {
                SqlError::indeterminate_datatype(format!(
                    "could not determine data type of parameter ${}",
                    i + 1
                ))
            })?);
        }
        if !parameters.is_empty() {
            let mut resolve = |e: &mut Expr| {
                if let Expr::Parameter(i, ty @ DataType::Unknown) = e {
                    *ty = parameters.get(*i).cloned().unwrap_or(DataType::Text);
                }
            };
            visit_statement(&mut statement, &mut resolve);
            self.ctes.iter_mut().for_each(|plan| plan.visit_exprs_mut(&mut resolve));
            self.as_of.iter_mut().for_each(|time| time.visit_mut(&mut resolve));
            self.writes.iter_mut().for_each(|(_, write)| visit_statement(write, &mut resolve));
        }
        let ddl = matches!(&statement, Statement::Command(c) if is_ddl(c));
        let strong = ddl || self.tables.iter().any(|t| t.is_strong());
        Ok(Prepared {
            statement,
            ctes: self.ctes,
            writes: self.writes,
            locks: Vec::new(),
            as_of: self.as_of,
            parameters,
            schema,
            tables: self.tables,
            views: self.views,
            strong,
            point: None,
        })
    }

    fn ast(&mut self, ast: &Ast) -> Result<(Statement, Arc<[Field]>)> {
        match ast {
            Ast::Statement(statement) => self.statement(statement),
            Ast::Command(command) => Ok(self.command(command.clone())),
            Ast::Object(object) => self.ddl(|b| b.object(object)),
            Ast::Overriding { statement, overriding } => {
                self.overriding = Some(*overriding);
                self.ast(statement)
            }
            Ast::Prepare { name, types, sql } => {
                let parameters = types.iter().map(|t| self.data_type(t)).collect::<Result<_>>()?;
                Ok(self.command(Command::Prepare { name: name.clone(), parameters, sql: sql.clone() }))
            }
            Ast::Execute { name, args } => {
                let args =
                    args.iter().map(|a| self.constant_expr(a, "EXECUTE parameter")).collect::<Result<_>>()?;
                Ok(self.command(Command::Execute { name: name.clone(), args }))
            }
            Ast::AsOf { query, time } => {
                self.as_of = Some(self.constant_expr(time, "AS OF SYSTEM TIME")?);
                self.ast(query)
            }
            Ast::Analyze(analyze) => self.ddl(|b| b.analyze(analyze)),
            Ast::Lock(names) => self.ddl(|b| b.lock(names)),
            Ast::Copy(copy) => self.copy(copy),
            Ast::Declare { query, .. } => {
                let (mut statement, schema) = self.ast(query)?;
                if let Statement::Query(plan) = &mut statement {
                    current_of::carry_keys(plan);
                }
                Ok((statement, schema))
            }
            Ast::Explain { statement, options } => {
                // What EXECUTE stands for is known when it runs.
                let executes = matches!(**statement, Ast::Execute { .. });
                let (statement, _) = self.ast(statement)?;
                let planned =
                    !matches!(statement, Statement::Command(_) | Statement::Explain(_) | Statement::Copy(_));
                if !planned && !executes {
                    return Err(SqlError::syntax_error("EXPLAIN takes a SELECT, INSERT, UPDATE or DELETE"));
                }
                let explain = Explain {
                    statement,
                    analyze: options.analyze,
                    verbose: options.verbose,
                    format: options.format,
                    costs: options.costs,
                    summary: options.summary.unwrap_or(options.analyze),
                    timing: options.timing.unwrap_or(options.analyze),
                    conflicts: options.conflicts,
                };
                let json = options.format == crate::plan::ExplainFormat::Json;
                let ty = if json { DataType::Json } else { DataType::Text };
                let field = Field { name: "QUERY PLAN".into(), ty, origin: None };
                Ok((Statement::Explain(Box::new(explain)), Arc::from([field])))
            }
        }
    }

    fn command(&self, command: Command) -> (Statement, Arc<[Field]>) {
        let schema: Arc<[Field]> = match &command {
            Command::Show(name) if name == "all" => {
                ["name", "setting", "description"].into_iter().map(text_field).collect()
            }
            Command::Show(name) => Arc::from([text_field(display_name(name))]),
            _ => Arc::from([]),
        };
        (Statement::Command(Box::new(command)), schema)
    }

    fn statement(&mut self, statement: &ast::Statement) -> Result<(Statement, Arc<[Field]>)> {
        use ast::Statement as S;
        match statement {
            S::Query(query) => {
                if let Some(writing) = query::writing_body(query) {
                    return self.under_with(query.with.as_ref(), |b| b.statement(writing));
                }
                if let Some(create) = view::select_into(query)? {
                    return self.ddl(|b| b.create_table_as(&create));
                }
                let plan = self.top_query(query)?;
                let schema = plan.schema.clone();
                Ok((Statement::Query(plan), schema))
            }
            S::Insert(insert) => self.insert(insert),
            S::Update(update) => self.update(update),
            S::Delete(delete) => self.delete(delete),
            S::Merge(merge) => self.merge(merge),
            S::CreateTable(create) => self.ddl(|b| b.create_table(create, &[])),
            S::CreateView(create) => self.ddl(|b| b.create_view(create)),
            S::Truncate(truncate) => self.ddl(|b| b.truncate(truncate)),
            S::CreateIndex(create) => self.ddl(|b| b.create_index(create)),
            S::AlterTable(alter) => self.ddl(|b| b.alter_table(alter)),
            S::Drop { object_type, if_exists, names, cascade, .. } => {
                self.ddl(|b| b.drop(object_type, *if_exists, names, *cascade))
            }
            other => Err(unsupported_statement(other)),
        }
    }

    fn ddl(&mut self, f: impl FnOnce(&mut Self) -> Result<Command>) -> Result<(Statement, Arc<[Field]>)> {
        self.no_parameters = true;
        let command = f(self)?;
        Ok(self.command(command))
    }

    /// Where in the statement a span begins.
    fn position(&self, span: Span) -> Option<usize> {
        self.positions.as_ref().and_then(|p| p.of_span(&span))
    }

    /// The error, with the position of a span if it has one.
    fn at(&self, error: SqlError, span: Span) -> SqlError {
        match self.position(span) {
            Some(position) if error.position.is_none() => error.at(position),
            _ => error,
        }
    }

    /// Remembers that a stored table is used.
    fn use_table(&mut self, table: &Arc<Table>) {
        if !self.tables.iter().any(|t| t.id == table.id) {
            self.tables.push(table.clone());
        }
    }
}

fn is_ddl(command: &Command) -> bool {
    matches!(
        command,
        Command::CreateTable(_)
            | Command::AlterTable(_)
            | Command::RenameIndex { .. }
            | Command::SetIndexOptions { .. }
            | Command::Object(_)
            | Command::CreateIndex(_)
            | Command::DropIndexes { .. }
            | Command::Analyze { .. }
            | Command::Role(_)
    )
}

fn text_field(name: &str) -> Field {
    Field { name: name.to_owned(), ty: DataType::Text, origin: None }
}

/// A setting's name as the heading of SHOW prints it.
fn display_name(name: &str) -> &str {
    match name {
        "timezone" => "TimeZone",
        "datestyle" => "DateStyle",
        "intervalstyle" => "IntervalStyle",
        other => other,
    }
}

/// An identifier as PostgreSQL keeps it: folded unless quoted, at most 63 bytes.
pub(crate) fn fold(ident: &ast::Ident) -> String {
    let mut name = match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    };
    if name.len() > 63 {
        let end = (0..=63).rev().find(|i| name.is_char_boundary(*i)).unwrap_or(0);
        name.truncate(end);
    }
    name
}

/// The identifiers of a name. 0A000 for a name with a function in it.
pub(crate) fn name_parts(name: &ast::ObjectName) -> Result<Vec<&ast::Ident>> {
    name.0
        .iter()
        .map(|part| part.as_ident().ok_or_else(|| SqlError::syntax_error("syntax error in a name")))
        .collect()
}

/// 0A000, naming the statement by its first words.
fn unsupported_statement(statement: &ast::Statement) -> SqlError {
    let text = statement.to_string();
    let words: Vec<&str> =
        text.split_whitespace().take_while(|w| w.chars().all(|c| c.is_ascii_uppercase())).take(2).collect();
    let name = if words.is_empty() { "this statement".to_owned() } else { words.join(" ") };
    SqlError::feature_not_supported(format!("{name} is not supported"))
}

/// Calls `f` with every expression of a statement.
fn visit_statement(statement: &mut Statement, f: &mut dyn FnMut(&mut Expr)) {
    match statement {
        Statement::Query(plan) => plan.visit_exprs_mut(f),
        Statement::Insert(insert) => {
            insert.source.visit_exprs_mut(f);
            if let Some(update) = &mut insert.do_update {
                update.assignments.iter_mut().for_each(|(_, e)| e.visit_mut(f));
                update.condition.iter_mut().for_each(|e| e.visit_mut(f));
            }
            insert.returning.iter_mut().for_each(|e| e.visit_mut(f));
        }
        Statement::Update(update) => {
            update.source.visit_exprs_mut(f);
            update.assignments.iter_mut().for_each(|(_, e)| e.visit_mut(f));
            update.returning.iter_mut().for_each(|e| e.visit_mut(f));
        }
        Statement::Delete(delete) => {
            delete.source.visit_exprs_mut(f);
            delete.returning.iter_mut().for_each(|e| e.visit_mut(f));
        }
        Statement::Merge(merge) => {
            merge.source.visit_exprs_mut(f);
            merge.exprs_mut(&mut |e| e.visit_mut(f));
        }
        Statement::Copy(copy) => {
            if let Direction::To(to) = &mut copy.direction {
                visit_statement(&mut to.statement, f);
            }
        }
        Statement::Explain(explain) => visit_statement(&mut explain.statement, f),
        Statement::Command(command) => {
            if let Command::Execute { args, .. } = &mut **command {
                args.iter_mut().for_each(|e| e.visit_mut(f));
            }
        }
    }
}

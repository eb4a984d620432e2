//! Queries around their SELECTs: WITH, UNION and its kin, VALUES, ORDER BY, LIMIT.

use std::sync::Arc;

use amphora_storage::DataType;
use sqlparser::ast;
use sqlparser::ast::{SetExpr, SetOperator, SetQuantifier, Spanned};

use super::call::sort_key;
use super::level::{Clause, Level};
use super::scope::Scope;
use super::{Binder, fold};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::parser::{Recursion, recursion_of};
use crate::plan::{Field, Frame, Node, Plan, SortKey, WindowCall, WindowFunction};
use crate::types::{self, CastContext};

/// WITH queries that read from each other in a row, at most: one is planned and run inside the other.
const MAX_WITH_DEPTH: usize = 64;

/// A WITH query in scope.
#[derive(Clone, Debug)]
pub(super) struct CteName {
    pub(super) name: String,
    pub(super) fields: Arc<[Field]>,
    pub(super) source: CteSource,
    /// How many WITH queries stand on each other in it
    pub(super) depth: usize,
}

/// Where a WITH query's rows come from.
#[derive(Clone, Debug)]
pub(super) enum CteSource {
    /// Run once for the statement
    Shared(usize),
    /// It reads outer rows: a copy for every use. With the number of levels it was bound under.
    Inline(Box<Plan>, usize),
    /// The working table of the recursive query being bound
    Working(usize),
    /// It writes and returns nothing
    Silent,
}

/// A recursive WITH query, but for its two sides.
struct Recursive<'q> {
    name: &'q str,
    aliases: &'q [String],
    clauses: Option<&'q Recursion>,
}

/// What follows a query's body.
pub(super) struct Tail<'q> {
    pub(super) order_by: &'q [ast::OrderByExpr],
    pub(super) limit: Option<&'q ast::Expr>,
    pub(super) offset: Option<&'q ast::Expr>,
    /// FETCH … WITH TIES
    pub(super) ties: bool,
    pub(super) locks: &'q [ast::LockClause],
}

/// The statement in `WITH … INSERT`, `WITH … UPDATE`, `WITH … DELETE`.
pub(super) fn writing_body(query: &ast::Query) -> Option<&ast::Statement> {
    match &*query.body {
        SetExpr::Insert(statement)
        | SetExpr::Update(statement)
        | SetExpr::Delete(statement)
        | SetExpr::Merge(statement) => Some(statement),
        _ => None,
    }
}

impl Binder<'_> {
    /// A statement's query: every output column has a type.
    pub(super) fn top_query(&mut self, query: &ast::Query) -> Result<Plan> {
        let plan = self.query(query, None)?;
        self.settle_output(plan)
    }

    /// What WITH stands in front of, when that is not a query: its names are known there.
    pub(super) fn under_with<T>(
        &mut self,
        with: Option<&ast::With>,
        bind: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let names = self.cte_names.len();
        if let Some(with) = with {
            self.with(with)?;
        }
        let bound = bind(self);
        self.cte_names.truncate(names);
        bound
    }

    /// A query. Output columns that are untyped literals stay so, unless `expected` has a type for them.
    pub(super) fn query(&mut self, query: &ast::Query, expected: Option<&[DataType]>) -> Result<Plan> {
        let names = self.cte_names.len();
        self.nesting += 1;
        let plan = match &query.with {
            Some(with) => self.with(with).and_then(|()| self.query_body(query, expected)),
            None => self.query_body(query, expected),
        };
        self.nesting -= 1;
        self.cte_names.truncate(names);
        plan
    }

    fn query_body(&mut self, query: &ast::Query, expected: Option<&[DataType]>) -> Result<Plan> {
        let tail = self.tail(query)?;
        match &*query.body {
            SetExpr::Select(select) => self.select(select, &tail, expected),
            SetExpr::Query(inner) if tail.is_empty() => self.query(inner, expected),
            body => {
                let plan = self.set_expr(body, expected)?;
                self.finish_query(plan, &tail)
            }
        }
    }

    fn tail<'q>(&self, query: &'q ast::Query) -> Result<Tail<'q>> {
        let order_by: &[ast::OrderByExpr] = match &query.order_by {
            None => &[],
            Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(keys), .. }) => keys,
            Some(_) => return Err(SqlError::feature_not_supported("ORDER BY ALL is not supported")),
        };
        let (mut limit, mut offset) = (None, None);
        match &query.limit_clause {
            None => {}
            Some(ast::LimitClause::LimitOffset { limit: l, offset: o, .. }) => {
                limit = l.as_ref();
                offset = o.as_ref().map(|o| &o.value);
            }
            Some(ast::LimitClause::OffsetCommaLimit { .. }) => {
                return Err(SqlError::syntax_error("LIMIT #,# syntax is not supported")
                    .with_hint("Use separate LIMIT and OFFSET clauses."));
            }
        }
        let mut ties = false;
        if let Some(fetch) = &query.fetch {
            if fetch.percent {
                return Err(SqlError::syntax_error("FETCH … PERCENT is not supported"));
            }
            if fetch.with_ties && order_by.is_empty() {
                let message = "WITH TIES cannot be specified without ORDER BY clause";
                return Err(SqlError::syntax_error(message));
            }
            ties = fetch.with_ties;
            limit = fetch.quantity.as_ref().or(limit);
        }
        Ok(Tail { order_by, limit, offset, ties, locks: &query.locks })
    }

    /// ORDER BY and LIMIT over a body that is not one SELECT: only its output columns are known.
    fn finish_query(&mut self, plan: Plan, tail: &Tail<'_>) -> Result<Plan> {
        if !tail.locks.is_empty() {
            return Err(SqlError::feature_not_supported(
                "FOR UPDATE is not allowed with UNION/INTERSECT/EXCEPT",
            ));
        }
        let mut plan = plan;
        if !tail.order_by.is_empty() {
            plan = self.settle_output(plan)?;
            let scope = Scope::relation(String::new(), None, &plan.schema);
            let (keys, _) = self.in_level(Level::new(scope, Clause::OrderBy), |b| {
                let width = b.level()?.scope.columns.len();
                let mut keys: Vec<SortKey> = Vec::new();
                for key in tail.order_by {
                    let expr =
                        match ordinal(&key.expr, width, "ORDER BY").map_err(|e| b.at(e, key.expr.span()))? {
                            Some(i) => Expr::Column(i, b.level()?.scope.columns[i].ty.clone()),
                            None => b.typed(&key.expr)?,
                        };
                    keys.push(sort_key(expr, &key.options)?);
                }
                Ok(keys)
            })?;
            let schema = plan.schema.clone();
            plan = node(Node::Sort { input: Box::new(plan), keys, limit: None }, schema);
        }
        self.limit(plan, tail)
    }

    /// LIMIT and OFFSET.
    pub(super) fn limit(&mut self, plan: Plan, tail: &Tail<'_>) -> Result<Plan> {
        if tail.limit.is_none() && tail.offset.is_none() {
            return Ok(plan);
        }
        let limit = self.row_count(tail.limit, "LIMIT")?;
        let offset = self.row_count(tail.offset, "OFFSET")?;
        if limit.is_none() && offset.is_none() {
            return Ok(plan);
        }
        if let (true, Some(limit)) = (tail.ties, &limit) {
            return self.limit_with_ties(plan, limit.clone(), offset);
        }
        let schema = plan.schema.clone();
        Ok(node(Node::Limit { input: Box::new(plan), limit, offset }, schema))
    }

    /// FETCH … WITH TIES: rows after the offset whose rank is within it and the limit. The plan is sorted.
    fn limit_with_ties(&mut self, plan: Plan, limit: Expr, offset: Option<Expr>) -> Result<Plan> {
        let keys = match &plan.node {
            Node::Sort { keys, .. } => keys.clone(),
            _ => return Err(SqlError::feature_not_supported("FETCH … WITH TIES is not supported here")),
        };
        let call = |function: WindowFunction| WindowCall {
            function,
            args: Vec::new(),
            filter: None,
            partition_by: Vec::new(),
            order_by: keys.clone(),
            frame: Frame::standard(),
            ty: DataType::Int8,
        };
        let functions = vec![call(WindowFunction::RowNumber), call(WindowFunction::Rank)];
        let (schema, width) = (plan.schema.clone(), plan.width());
        let number = Field { name: "?column?".into(), ty: DataType::Int8, origin: None };
        let wide = schema.iter().cloned().chain([number.clone(), number]).collect();
        let ranked = node(Node::Window { input: Box::new(plan), functions }, wide);
        let column = |i: usize| Expr::Column(width + i, DataType::Int8);
        let zero = Expr::Literal(amphora_storage::Datum::Int8(0), DataType::Int8);
        let offset = Expr::Coalesce(vec![offset.unwrap_or(zero.clone()), zero], DataType::Int8);
        let after = self.operator(">", Some(column(0)), offset.clone())?;
        let last = self.operator("+", Some(offset), limit)?;
        let within = self.operator("<=", Some(column(1)), last)?;
        let kept = super::select::filter(ranked, Expr::And(vec![after, within]));
        let exprs = schema.iter().enumerate().map(|(i, f)| Expr::Column(i, f.ty.clone())).collect();
        Ok(project(kept, exprs, schema))
    }

    fn row_count(&mut self, e: Option<&ast::Expr>, what: &str) -> Result<Option<Expr>> {
        let Some(e) = e else { return Ok(None) };
        if let ast::Expr::Identifier(ident) = e
            && ident.quote_style.is_none()
            && ident.value.eq_ignore_ascii_case("all")
        {
            return Ok(None);
        }
        let (expr, _) = self.in_level(Level::new(Scope::default(), Clause::Limit), |b| {
            let expr = b.expr(e)?;
            b.coerce(expr, &DataType::Int8, CastContext::Assignment)
                .map_err(|error| match error.sqlstate {
                    "42804" => SqlError::datatype_mismatch(format!("argument of {what} must be type bigint")),
                    _ => error,
                })
                .map_err(|error| b.at(error, e.span()))
        })?;
        Ok(Some(expr))
    }

    /// A body: SELECT, VALUES, a set operation, or a query in parentheses.
    fn set_expr(&mut self, body: &SetExpr, expected: Option<&[DataType]>) -> Result<Plan> {
        match body {
            SetExpr::Select(select) => self.select(
                select,
                &Tail { order_by: &[], limit: None, offset: None, ties: false, locks: &[] },
                expected,
            ),
            SetExpr::Query(query) => self.query(query, expected),
            SetExpr::Values(values) => self.values(values, expected),
            SetExpr::SetOperation { .. } => self.set_operation(body),
            SetExpr::Table(table) => {
                let name = table.table_name.clone().unwrap_or_default();
                Err(SqlError::feature_not_supported(format!("TABLE {name} is not supported here"))
                    .with_hint("Write SELECT * FROM the table."))
            }
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                Err(SqlError::feature_not_supported("statements that write are not supported in FROM"))
            }
        }
    }

    /// A chain of one operator is bound flat, so that a long UNION ALL is not a deep plan.
    fn set_operation(&mut self, body: &SetExpr) -> Result<Plan> {
        let SetExpr::SetOperation { op, set_quantifier, .. } = body else {
            return Err(SqlError::internal("not a set operation"));
        };
        let all = match set_quantifier {
            SetQuantifier::All => true,
            SetQuantifier::None | SetQuantifier::Distinct => false,
            _ => return Err(SqlError::feature_not_supported("BY NAME is not supported")),
        };
        let mut branches = Vec::new();
        let mut rest = body;
        loop {
            match rest {
                SetExpr::SetOperation { left, op: o, set_quantifier: q, right }
                    if o == op
                        && q == set_quantifier
                        && (*op == SetOperator::Union || branches.is_empty()) =>
                {
                    branches.push(&**right);
                    rest = left;
                }
                other => {
                    branches.push(other);
                    break;
                }
            }
        }
        let name = match op {
            SetOperator::Union => "UNION",
            SetOperator::Intersect => "INTERSECT",
            SetOperator::Except | SetOperator::Minus => "EXCEPT",
        };
        let plans = branches.into_iter().rev().map(|b| self.set_expr(b, None)).collect::<Result<Vec<_>>>()?;
        let mut plans = self.unify_plans(plans, name)?;
        let schema: Arc<[Field]> = match plans.first() {
            Some(first) => first.schema.iter().map(|f| Field { origin: None, ..f.clone() }).collect(),
            None => return Err(SqlError::internal("a set operation has two sides")),
        };
        if *op == SetOperator::Union {
            let append = node(Node::Append(plans), schema);
            return Ok(if all { append } else { distinct(append) });
        }
        let (right, left) = (plans.pop(), plans.pop());
        match (left, right) {
            (Some(left), Some(right)) => {
                let intersect = *op == SetOperator::Intersect;
                let operation =
                    Node::SetOperation { left: Box::new(left), right: Box::new(right), intersect, all };
                Ok(node(operation, schema))
            }
            _ => Err(SqlError::internal("a set operation has two sides")),
        }
    }

    /// Brings the columns of several plans to common types.
    pub(super) fn unify_plans(&mut self, plans: Vec<Plan>, name: &str) -> Result<Vec<Plan>> {
        let width = plans.first().map_or(0, Plan::width);
        if plans.iter().any(|p| p.width() != width) {
            let message = format!("each {name} query must have the same number of columns");
            return Err(SqlError::syntax_error(message));
        }
        let mut common = Vec::with_capacity(width);
        for column in 0..width {
            let types: Vec<DataType> = plans.iter().map(|p| p.schema[column].ty.base()).collect();
            let ty = types::common_type(&types).map_err(|mut error| {
                if error.message.starts_with("types ") {
                    error.message = format!("{name} {}", error.message);
                }
                error
            })?;
            common.push(ty);
        }
        plans.into_iter().map(|p| self.coerce_output(p, &common, CastContext::Implicit)).collect()
    }

    /// `VALUES (…), (…)`
    pub(super) fn values(&mut self, values: &ast::Values, expected: Option<&[DataType]>) -> Result<Plan> {
        let width = values.rows.first().map_or(0, |row| row.content.len());
        let mut columns: Vec<Vec<Expr>> = vec![Vec::with_capacity(values.rows.len()); width];
        let (_, _) = self.in_level(Level::new(Scope::default(), Clause::Values), |b| {
            for row in &values.rows {
                if row.content.len() != width {
                    let error = SqlError::syntax_error("VALUES lists must all be the same length");
                    return Err(row.content.first().map_or(error.clone(), |e| b.at(error, e.span())));
                }
                for (i, e) in row.content.iter().enumerate() {
                    let bound = b.expr(e)?;
                    let bound = match expected.and_then(|types| types.get(i)) {
                        Some(ty) if bound.ty() == DataType::Unknown => b
                            .coerce(bound, ty, CastContext::Assignment)
                            .map_err(|error| b.at(error, e.span()))?,
                        _ => bound,
                    };
                    columns[i].push(bound);
                }
            }
            Ok(())
        })?;
        let mut types = Vec::with_capacity(width);
        for column in &mut columns {
            let exprs = std::mem::take(column);
            let untyped = exprs.iter().all(|e| e.ty() == DataType::Unknown);
            // One row alone decides nothing: its literals may still take another type from outside.
            let (exprs, ty) = if untyped { (exprs, DataType::Unknown) } else { self.unify(exprs, "VALUES")? };
            *column = exprs;
            types.push(ty);
        }
        let mut columns: Vec<std::vec::IntoIter<Expr>> = columns.into_iter().map(Vec::into_iter).collect();
        let rows =
            (0..values.rows.len()).map(|_| columns.iter_mut().filter_map(Iterator::next).collect()).collect();
        let names: Vec<(String, DataType)> =
            types.into_iter().enumerate().map(|(i, ty)| (format!("column{}", i + 1), ty)).collect();
        Ok(node(Node::Values(rows), fields_of(&names)))
    }

    // WITH.

    fn with(&mut self, with: &ast::With) -> Result<()> {
        let first = self.cte_names.len();
        for cte in &with.cte_tables {
            let name = fold(&cte.alias.name);
            if self.cte_names[first..].iter().any(|c| c.name == name) {
                let error =
                    SqlError::duplicate_alias(format!("WITH query name \"{name}\" specified more than once"));
                return Err(self.at(error, cte.alias.name.span));
            }
            let mut aliases: Vec<String> = cte.alias.columns.iter().map(|c| fold(&c.name)).collect();
            let clauses = match cte.alias.columns.last() {
                Some(last) => recursion_of(&last.name)?,
                None => None,
            };
            if clauses.is_some() {
                aliases.pop();
            }
            if let Some(statement) = writing_body(&cte.query) {
                self.writing_cte(cte, name, &aliases, statement)?;
                continue;
            }
            let outside = std::mem::take(&mut self.with_depth);
            let plan = match self.recursive_parts(with.recursive, &name, &cte.query) {
                Some((base, step, distinct)) => {
                    let aliases = aliases.as_slice();
                    let named = Recursive { name: &name, aliases, clauses: clauses.as_ref() };
                    self.recursive(&named, base, step, distinct)?
                }
                None if clauses.is_some() => {
                    return Err(SqlError::syntax_error("WITH query is not recursive"));
                }
                None => {
                    let plan = self.query(&cte.query, None).map_err(|error| {
                        let own =
                            with.recursive && error.sqlstate == "42P01" && mentions(&cte.query.body, &name);
                        if own { self.at(not_recursive(&name), cte.alias.name.span) } else { error }
                    })?;
                    self.settle_output(plan)?
                }
            };
            let fields = match clauses {
                Some(_) => plan.schema.clone(),
                None => rename(&plan.schema, &aliases, &name)?,
            };
            let source = if plan.is_correlated() {
                CteSource::Inline(Box::new(plan), self.levels.len())
            } else {
                self.ctes.push(plan);
                CteSource::Shared(self.ctes.len() - 1)
            };
            let depth = self.with_depth + 1;
            if depth > MAX_WITH_DEPTH {
                return Err(SqlError::statement_too_complex("stack depth limit exceeded").with_hint(
                    format!("At most {MAX_WITH_DEPTH} WITH queries may read from each other in a row."),
                ));
            }
            self.with_depth = outside;
            self.cte_names.push(CteName { name, fields, source, depth });
        }
        Ok(())
    }

    /// A WITH query that writes: its rows are what RETURNING gives.
    fn writing_cte(
        &mut self,
        cte: &ast::Cte,
        name: String,
        aliases: &[String],
        statement: &ast::Statement,
    ) -> Result<()> {
        if matches!(statement, ast::Statement::Merge(_)) {
            return Err(SqlError::feature_not_supported("MERGE not supported in WITH query"));
        }
        if self.nesting > 1 || !self.levels.is_empty() {
            let error = SqlError::feature_not_supported(
                "WITH clause containing a data-modifying statement must be at the top level",
            );
            return Err(self.at(error, cte.alias.name.span));
        }
        let (bound, schema) = self.under_with(cte.query.with.as_ref(), |b| b.statement(statement))?;
        self.ctes.push(node(Node::Values(Vec::new()), schema.clone()));
        let id = self.ctes.len() - 1;
        self.writes.push((id, bound));
        let source = if schema.is_empty() { CteSource::Silent } else { CteSource::Shared(id) };
        let fields = rename(&schema, aliases, &name)?;
        self.cte_names.push(CteName { name, fields, source, depth: 1 });
        Ok(())
    }

    /// The two sides of a recursive WITH query, if it is one.
    fn recursive_parts<'q>(
        &self,
        recursive: bool,
        name: &str,
        query: &'q ast::Query,
    ) -> Option<(&'q SetExpr, &'q SetExpr, bool)> {
        if !recursive {
            return None;
        }
        match &*query.body {
            SetExpr::SetOperation { left, op: SetOperator::Union, set_quantifier, right }
                if mentions(right, name) =>
            {
                Some((left, right, *set_quantifier != SetQuantifier::All))
            }
            _ => None,
        }
    }

    fn recursive(
        &mut self,
        query: &Recursive<'_>,
        base: &SetExpr,
        step: &SetExpr,
        distinct: bool,
    ) -> Result<Plan> {
        let name = query.name;
        let base = self.set_expr(base, None)?;
        let mut base = self.settle_output(base)?;
        let mut fields = rename(&base.schema, query.aliases, name)?;
        let additions = match query.clauses {
            Some(clauses) => Some(self.additions(clauses, &fields)?),
            None => None,
        };
        let mut carrying = None;
        if let Some(additions) = &additions {
            let own = fields.len();
            fields = additions.fields(&fields);
            let added: Vec<String> = fields[own..].iter().map(|f| f.name.clone()).collect();
            carrying = Some(super::recursion::carrying(step, name, &added)?);
        }
        let step = carrying.as_ref().unwrap_or(step);
        let id = self.recursions;
        self.recursions += 1;
        let source = CteSource::Working(id);
        let depth = self.with_depth;
        let added = additions.as_ref().map_or(0, |a| a.width());
        self.cte_names.push(CteName { name: name.to_owned(), fields: fields.clone(), source, depth });
        self.unlisted = added;
        let step = self.set_expr(step, None);
        self.unlisted = 0;
        self.cte_names.pop();
        let step = step?;
        if step.width() != base.width() + added {
            return Err(SqlError::syntax_error("each UNION query must have the same number of columns"));
        }
        for (i, (b, s)) in base.schema.iter().zip(step.schema.iter()).enumerate() {
            let (from, to) = (s.ty.base(), b.ty.base());
            let fits = from == DataType::Unknown
                || from.oid() == to.oid()
                || types::can_coerce(&from, &to, CastContext::Implicit);
            if !fits {
                return Err(SqlError::datatype_mismatch(format!(
                    "recursive query \"{name}\" column {} has type {to} in non-recursive term but type {from} overall",
                    i + 1
                ))
                .with_hint("Cast the output of the non-recursive term to the correct type."));
            }
        }
        let own = base.schema.iter().map(|f| f.ty.clone());
        let types: Vec<DataType> = own.chain(fields[base.width()..].iter().map(|f| f.ty.clone())).collect();
        let mut step = self.coerce_output(step, &types, CastContext::Implicit)?;
        if let Some(additions) = &additions {
            base = additions.begin(base);
            step = additions.go_on(step);
        }
        Ok(node(Node::Recursive { id, base: Box::new(base), step: Box::new(step), distinct }, fields))
    }

    // Output columns.

    /// Untyped output columns become `text`.
    pub(super) fn settle_output(&mut self, plan: Plan) -> Result<Plan> {
        if plan.schema.iter().all(|f| f.ty != DataType::Unknown) {
            return Ok(plan);
        }
        let types: Vec<DataType> = plan
            .schema
            .iter()
            .map(|f| if f.ty == DataType::Unknown { DataType::Text } else { f.ty.clone() })
            .collect();
        self.coerce_output(plan, &types, CastContext::Implicit)
    }

    /// Casts output columns. Where the plan computes them anyway it computes them cast.
    pub(super) fn coerce_output(
        &mut self,
        plan: Plan,
        types: &[DataType],
        context: CastContext,
    ) -> Result<Plan> {
        let same = plan.schema.iter().zip(types).all(|(f, ty)| f.ty == ty.base());
        if same {
            return Ok(plan);
        }
        let schema: Arc<[Field]> = plan
            .schema
            .iter()
            .zip(types)
            .map(|(f, ty)| Field { name: f.name.clone(), ty: ty.base(), origin: f.origin })
            .collect();
        let Plan { node: inner, schema: old, rows, cost } = plan;
        match inner {
            Node::Project { input, exprs } => {
                let mut cast = Vec::with_capacity(exprs.len());
                for (e, ty) in exprs.into_iter().zip(types) {
                    cast.push(self.coerce(e, ty, context)?);
                }
                Ok(node(Node::Project { input, exprs: cast }, schema))
            }
            Node::Values(values) => {
                let mut cast = Vec::with_capacity(values.len());
                for row in values {
                    let mut out = Vec::with_capacity(row.len());
                    for (e, ty) in row.into_iter().zip(types) {
                        out.push(self.coerce(e, ty, context)?);
                    }
                    cast.push(out);
                }
                Ok(node(Node::Values(cast), schema))
            }
            Node::Limit { input, limit, offset } => {
                let input = Box::new(self.coerce_output(*input, types, context)?);
                Ok(node(Node::Limit { input, limit, offset }, schema))
            }
            Node::Distinct { input, mut on, sorted } if old.iter().any(|f| f.ty == DataType::Unknown) => {
                let input = Box::new(self.coerce_output(*input, types, context)?);
                on.iter_mut().for_each(|e| retype(e, types));
                Ok(node(Node::Distinct { input, on, sorted }, schema))
            }
            Node::Sort { input, mut keys, limit } if old.iter().any(|f| f.ty == DataType::Unknown) => {
                let input = Box::new(self.coerce_output(*input, types, context)?);
                keys.iter_mut().for_each(|k| retype(&mut k.expr, types));
                Ok(node(Node::Sort { input, keys, limit }, schema))
            }
            inner => {
                let mut exprs = Vec::with_capacity(types.len());
                for (i, (field, ty)) in old.iter().zip(types).enumerate() {
                    exprs.push(self.coerce(Expr::Column(i, field.ty.clone()), ty, context)?);
                }
                Ok(project(Plan { node: inner, schema: old, rows, cost }, exprs, schema))
            }
        }
    }
}

impl Tail<'_> {
    fn is_empty(&self) -> bool {
        self.order_by.is_empty() && self.limit.is_none() && self.offset.is_none() && self.locks.is_empty()
    }
}

/// A plan whose estimates are still to be made.
pub(super) fn node(node: Node, schema: Arc<[Field]>) -> Plan {
    Plan { node, schema, rows: 0.0, cost: 0.0 }
}

/// A projection.
pub(super) fn project(input: Plan, exprs: Vec<Expr>, schema: Arc<[Field]>) -> Plan {
    node(Node::Project { input: Box::new(input), exprs }, schema)
}

/// DISTINCT over all columns.
pub(super) fn distinct(input: Plan) -> Plan {
    let on = input.schema.iter().enumerate().map(|(i, f)| Expr::Column(i, f.ty.clone())).collect();
    let schema = input.schema.clone();
    node(Node::Distinct { input: Box::new(input), on, sorted: false }, schema)
}

/// Fields that are no stored columns.
pub(super) fn fields_of(columns: &[(String, DataType)]) -> Arc<[Field]> {
    columns.iter().map(|(name, ty)| Field { name: name.clone(), ty: ty.clone(), origin: None }).collect()
}

/// Fields under other names; 42P10 if there are too many names.
pub(super) fn rename(fields: &[Field], names: &[String], relation: &str) -> Result<Arc<[Field]>> {
    if names.len() > fields.len() {
        return Err(SqlError::invalid_column_reference(format!(
            "table \"{relation}\" has {} columns available but {} columns specified",
            fields.len(),
            names.len()
        )));
    }
    let renamed = fields
        .iter()
        .enumerate()
        .map(|(i, field)| Field { name: names.get(i).unwrap_or(&field.name).clone(), ..field.clone() });
    Ok(renamed.collect())
}

/// `ORDER BY 2`: the position, from 0. 42P10 if there is no such column.
pub(super) fn ordinal(e: &ast::Expr, width: usize, clause: &str) -> Result<Option<usize>> {
    let ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Number(digits, _), .. }) = e else {
        return Ok(None);
    };
    let Ok(position) = digits.parse::<usize>() else {
        return Err(SqlError::syntax_error(format!("non-integer constant in {clause}")));
    };
    if position == 0 || position > width {
        let message = format!("{clause} position {position} is not in select list");
        return Err(SqlError::invalid_column_reference(message));
    }
    Ok(Some(position - 1))
}

/// Gives references to output columns their new types.
fn retype(e: &mut Expr, types: &[DataType]) {
    e.references_mut(0, &mut |e, _| {
        if let Expr::Column(i, ty) = e
            && let Some(new) = types.get(*i)
        {
            *ty = new.base();
        }
    });
}

/// A WITH query reads itself, but not as the second part of a UNION.
fn not_recursive(name: &str) -> SqlError {
    SqlError::invalid_recursion(format!(
        "recursive query \"{name}\" does not have the form non-recursive-term UNION [ALL] recursive-term"
    ))
}

/// True if a query body names this relation in some FROM.
fn mentions(body: &SetExpr, name: &str) -> bool {
    use std::ops::ControlFlow;
    ast::visit_relations(body, |relation| {
        let found = matches!(&relation.0[..], [part] if part.as_ident().is_some_and(|i| fold(i) == name));
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .is_break()
}

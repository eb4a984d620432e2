//! One SELECT, from FROM to LIMIT.
//!
//! ```text
//!   FROM ─ WHERE ─ GROUP BY/aggregates ─ HAVING ─ windows ─ set-returning functions ─┐
//!        ┌───────────────────────────────────────────────────────────────────────────┘
//!        ├─ sort, lock, limit, then compute the SELECT list          (the usual way)
//!        └─ compute the SELECT list and keys, DISTINCT, sort, limit  (DISTINCT, sets, volatile keys)
//! ```
//!
//! Aggregates, window calls and set-returning calls met inside expressions are collected in the level and
//! stand there as columns of numbers that no row has; when the operator that computes them is in the
//! plan, they become its columns.

use std::sync::Arc;

use amphora_replication::{LockMode, WaitPolicy};
use amphora_storage::{DataType, Datum};
use sqlparser::ast;
use sqlparser::ast::{SelectItem, SelectItemQualifiedWildcardKind, Spanned};

use super::aggregate::Grouping;
use super::call::sort_key;
use super::grouping_sets::has_sets;
use super::level::{Clause, Level, SET_BASE, WINDOW_BASE};
use super::query::{Tail, distinct, node, ordinal, project};
use super::record::is_star;
use super::{Binder, fold, name_parts};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::functions::Volatility;
use crate::plan::{Field, LockTarget, Node, Plan, ProjectItem, SortKey};
use crate::types::CastContext;
use crate::walk::same_expr;

/// One column of a SELECT list.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) expr: Expr,
    pub(super) name: String,
    pub(super) origin: Option<(u32, i16)>,
}

/// A key of ORDER BY or DISTINCT ON: an output column, or another expression.
enum Key {
    Item(usize),
    Expr(Expr),
}

/// All that a SELECT's clauses were bound to.
struct Bound {
    items: Vec<Item>,
    condition: Option<Expr>,
    grouping: Option<Grouping>,
    having: Option<Expr>,
    order: Vec<(Key, ast::OrderByOptions)>,
    distinct: Option<Vec<Key>>,
}

/// Columns of a result, at most, as in PostgreSQL (`MaxTupleAttributeNumber`).
const MAX_ITEMS: usize = 1664;

impl Binder<'_> {
    pub(super) fn select(
        &mut self,
        select: &ast::Select,
        tail: &Tail<'_>,
        expected: Option<&[DataType]>,
    ) -> Result<Plan> {
        reject(select)?;
        let (plan, scope) = self.from(&select.from)?;
        let level = Level::new(scope, Clause::Where);
        let (bound, level) = self.in_level(level, |b| b.clauses(select, tail, expected))?;
        self.assemble(plan, bound, level, tail)
    }

    fn clauses(
        &mut self,
        select: &ast::Select,
        tail: &Tail<'_>,
        expected: Option<&[DataType]>,
    ) -> Result<Bound> {
        self.define_windows(&select.named_window)?;
        let condition = match &select.selection {
            Some(e) => Some(self.condition(e, "WHERE")?),
            None => None,
        };
        let mut items = self.in_clause(Clause::Select, |b| b.items(&select.projection))?;
        if let Some(types) = expected {
            for (item, ty) in items.iter_mut().zip(types) {
                if item.expr.ty() == DataType::Unknown {
                    let untyped =
                        std::mem::replace(&mut item.expr, Expr::Literal(Datum::Null, DataType::Unknown));
                    item.expr = self.coerce(untyped, ty, CastContext::Assignment)?;
                }
            }
        }
        let mut keys = Vec::new();
        let mut sets = None;
        if let ast::GroupByExpr::Expressions(exprs, modifiers) = &select.group_by {
            if !modifiers.is_empty() {
                return Err(SqlError::feature_not_supported(
                    "ROLLUP, CUBE and GROUPING SETS are not supported",
                ));
            }
            let distinct = exprs.first().is_some_and(is_distinct_mark);
            let exprs = &exprs[usize::from(distinct)..];
            if has_sets(exprs) {
                let mut found = self.grouping_sets(exprs, &items)?;
                if distinct {
                    found.distinct();
                }
                sets = Some(found);
            } else {
                for e in exprs {
                    keys.push(self.in_clause(Clause::GroupBy, |b| b.group_key(e, &items))?);
                }
            }
        } else {
            return Err(SqlError::feature_not_supported("GROUP BY ALL is not supported"));
        }
        let having = match &select.having {
            Some(e) => Some(self.in_clause(Clause::Having, |b| b.condition(e, "HAVING"))?),
            None => None,
        };
        let mut order = Vec::with_capacity(tail.order_by.len());
        for key in tail.order_by {
            let bound =
                self.in_clause(Clause::OrderBy, |b| b.order_key(&key.expr, &mut items, "ORDER BY"))?;
            order.push((bound, key.options.clone()));
        }
        let distinct =
            match &select.distinct {
                None | Some(ast::Distinct::All) => None,
                Some(ast::Distinct::Distinct) => Some(Vec::new()),
                Some(ast::Distinct::On(exprs)) => {
                    let mut on = Vec::with_capacity(exprs.len());
                    for e in exprs {
                        on.push(self.in_clause(Clause::OrderBy, |b| {
                            b.order_key(e, &mut items, "SELECT DISTINCT ON")
                        })?);
                    }
                    Some(on)
                }
            };
        let grouped = !keys.is_empty() || having.is_some() || !self.level()?.aggregates.is_empty();
        let width = self.level()?.scope.columns.len();
        let grouping = match sets {
            Some(sets) => Some(Grouping::sets(sets, width)),
            None => grouped.then(|| Grouping::new(keys)),
        };
        Ok(Bound { items, condition, grouping, having, order, distinct })
    }

    /// The SELECT list, with its stars written out.
    pub(super) fn items(&mut self, projection: &[SelectItem]) -> Result<Vec<Item>> {
        let mut items = Vec::with_capacity(projection.len());
        for item in projection {
            match item {
                SelectItem::UnnamedExpr(e) if is_row_star(e) => {
                    let row = self.expr(e)?;
                    items.extend(self.every_field(&row)?);
                }
                SelectItem::UnnamedExpr(e) => {
                    let expr = self.expr(e)?;
                    items.push(self.item(expr, output_name(e))?);
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    let expr = self.expr(expr)?;
                    items.push(self.item(expr, fold(alias))?);
                }
                SelectItem::Wildcard(options) => {
                    let level = self.level()?;
                    if level.scope.relations.is_empty() {
                        return Err(SqlError::syntax_error("SELECT * with no tables specified is not valid"));
                    }
                    let star = level.scope.star.clone();
                    self.note_star(options.wildcard_token.0.span, &star);
                    for column in star {
                        items.push(self.column_item(column)?);
                    }
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                    let parts = name_parts(name)?;
                    let Some((last, schema)) = parts.split_last() else {
                        return Err(SqlError::syntax_error("a relation has no name"));
                    };
                    let schema = schema.last().map(|s| fold(s));
                    let relation = fold(last);
                    let found = self.level()?.scope.find_relation(schema.as_deref(), &relation);
                    let Some(found) = found else {
                        return Err(self.missing_relation(&relation, false, last));
                    };
                    let star = self.level()?.scope.star_of(found);
                    self.note_star(options.wildcard_token.0.span, &star);
                    for column in star {
                        items.push(self.column_item(column)?);
                    }
                }
                _ => {
                    return Err(SqlError::feature_not_supported("this form of SELECT item is not supported"));
                }
            }
        }
        if items.len() > MAX_ITEMS {
            let message = format!("target lists can have at most {MAX_ITEMS} entries");
            return Err(SqlError::new("54011", message));
        }
        Ok(items)
    }

    fn item(&mut self, expr: Expr, name: String) -> Result<Item> {
        let origin = match &expr {
            Expr::Column(i, _) => self.level()?.scope.columns.get(*i).and_then(|c| c.origin),
            _ => None,
        };
        Ok(Item { expr, name, origin })
    }

    fn column_item(&mut self, column: usize) -> Result<Item> {
        let c = &self.level()?.scope.columns[column];
        Ok(Item { expr: Expr::Column(column, c.ty.clone()), name: c.name.clone(), origin: c.origin })
    }

    /// A GROUP BY key: an input column before an output name, a position, or any expression.
    pub(super) fn group_key(&mut self, e: &ast::Expr, items: &[Item]) -> Result<Expr> {
        let expr = match ordinal(e, items.len(), "GROUP BY").map_err(|error| self.at(error, e.span()))? {
            Some(i) => items[i].expr.clone(),
            None => match e {
                ast::Expr::Identifier(ident) => match self.bare_name(ident) {
                    Err(error) if error.sqlstate == "42703" => {
                        let name = fold(ident);
                        let found = items.iter().find(|item| item.name == name);
                        found.map(|item| item.expr.clone()).ok_or(error)?
                    }
                    other => other?,
                },
                _ => self.typed(e)?,
            },
        };
        let mut aggregate = false;
        expr.columns(&mut |c| aggregate |= c >= super::level::AGGREGATE_BASE);
        if aggregate {
            return Err(self.at(Clause::GroupBy.no_aggregates(), e.span()));
        }
        self.settle(expr)
    }

    /// A key of ORDER BY: an output name, a position, or an expression over the input.
    fn order_key(&mut self, e: &ast::Expr, items: &mut [Item], clause: &str) -> Result<Key> {
        if let Some(i) = ordinal(e, items.len(), clause).map_err(|error| self.at(error, e.span()))? {
            return self.item_key(i, items);
        }
        if let ast::Expr::Identifier(ident) = e {
            let name = fold(ident);
            let mut named = (0..items.len()).filter(|&i| items[i].name == name);
            if let Some(first) = named.next() {
                if named.any(|other| !same_expr(&items[first].expr, &items[other].expr)) {
                    let error = SqlError::ambiguous_column(format!("{clause} \"{name}\" is ambiguous"));
                    return Err(self.at(error, ident.span));
                }
                return self.item_key(first, items);
            }
        }
        let expr = self.typed(e)?;
        Ok(match items.iter().position(|item| same_expr(&item.expr, &expr)) {
            Some(i) => Key::Item(i),
            None => Key::Expr(expr),
        })
    }

    fn item_key(&mut self, i: usize, items: &mut [Item]) -> Result<Key> {
        let expr = items[i].expr.clone();
        items[i].expr = self.settle(expr)?;
        Ok(Key::Item(i))
    }

    /// Puts the operators on top of each other.
    fn assemble(&mut self, plan: Plan, mut bound: Bound, mut level: Level, tail: &Tail<'_>) -> Result<Plan> {
        let mut plan = match bound.condition.take() {
            Some(condition) => filter(plan, condition),
            None => plan,
        };
        let grouped = bound.grouping.is_some();
        if let Some(mut grouping) = bound.grouping.take() {
            self.regroup(&mut grouping, &mut bound, &mut level)?;
            plan = grouping.plan(plan, std::mem::take(&mut level.aggregates))?;
            if let Some(having) = bound.having.take() {
                plan = filter(plan, having);
            }
        }
        plan = add_windows(plan, &mut bound, &mut level);
        let has_sets = !level.sets.is_empty();
        plan = add_sets(plan, &mut bound, &mut level);

        let locks = if tail.locks.is_empty() {
            Vec::new()
        } else {
            if grouped || has_sets || bound.distinct.is_some() {
                let clause = if bound.distinct.is_some() { "DISTINCT clause" } else { "GROUP BY clause" };
                return Err(SqlError::feature_not_supported(format!(
                    "FOR UPDATE is not allowed with {clause}"
                )));
            }
            self.locks(&level, tail)?
        };
        let volatile = bound.order.iter().any(|(key, _)| match key {
            Key::Item(i) => is_volatile(&bound.items[*i].expr),
            Key::Expr(e) => is_volatile(e),
        });
        let schema: Arc<[Field]> = bound
            .items
            .iter()
            .map(|item| Field { name: item.name.clone(), ty: item.expr.ty(), origin: item.origin })
            .collect();
        if bound.distinct.is_some() || has_sets || volatile && locks.is_empty() {
            return self.project_then_sort(plan, bound, schema, tail);
        }
        let items = bound.items;
        let mut keys = Vec::with_capacity(bound.order.len());
        for (key, options) in bound.order {
            let expr = match key {
                Key::Item(i) => items[i].expr.clone(),
                Key::Expr(e) => e,
            };
            keys.push(sort_key(expr, &options)?);
        }
        plan = sort(plan, keys);
        for (targets, mode, wait) in locks {
            let schema = plan.schema.clone();
            plan = node(Node::Lock { input: Box::new(plan), targets, mode, wait }, schema);
        }
        plan = self.limit(plan, tail)?;
        Ok(project(plan, items.into_iter().map(|i| i.expr).collect(), schema))
    }

    /// The SELECT list first; keys that are no output column are computed beside it and cut off last.
    fn project_then_sort(
        &mut self,
        plan: Plan,
        bound: Bound,
        schema: Arc<[Field]>,
        tail: &Tail<'_>,
    ) -> Result<Plan> {
        let mut bound = bound;
        let width = bound.items.len();
        let mut exprs = Vec::with_capacity(width);
        for item in &mut bound.items {
            let expr = std::mem::replace(&mut item.expr, Expr::Literal(Datum::Null, DataType::Unknown));
            // DISTINCT compares values, so they must have types.
            exprs.push(if bound.distinct.is_some() { self.settle(expr)? } else { expr });
        }
        let plain_distinct = matches!(&bound.distinct, Some(on) if on.is_empty());
        let mut place = |key: Key| -> Result<Expr> {
            let i = match key {
                Key::Item(i) => i,
                Key::Expr(_) if plain_distinct => {
                    return Err(SqlError::invalid_column_reference(
                        "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
                    ));
                }
                Key::Expr(e) => match exprs.iter().position(|known| same_expr(known, &e)) {
                    Some(i) => i,
                    None => {
                        exprs.push(e);
                        exprs.len() - 1
                    }
                },
            };
            Ok(Expr::Column(i, exprs[i].ty()))
        };
        let mut keys = Vec::with_capacity(bound.order.len());
        for (key, options) in bound.order {
            keys.push(sort_key(place(key)?, &options)?);
        }
        let on = match bound.distinct {
            Some(on) => Some(on.into_iter().map(&mut place).collect::<Result<Vec<_>>>()?),
            None => None,
        };
        let visible = schema;
        let fields: Arc<[Field]> = exprs
            .iter()
            .enumerate()
            .map(|(i, e)| match visible.get(i) {
                Some(field) => Field { ty: e.ty(), ..field.clone() },
                None => Field { name: "?column?".into(), ty: e.ty(), origin: None },
            })
            .collect();
        let total = exprs.len();
        let mut plan = project(plan, exprs, fields.clone());
        match on {
            None => plan = sort(plan, keys),
            Some(on) if on.is_empty() => plan = sort(distinct(plan), keys),
            Some(on) => {
                let covered = keys.iter().take(on.len()).all(|k| on.iter().any(|o| same_expr(o, &k.expr)));
                if !covered {
                    return Err(SqlError::invalid_column_reference(
                        "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
                    ));
                }
                // Rows of one kind must come one after the other.
                let mut keys = keys;
                let first = keys.iter().take_while(|k| on.iter().any(|o| same_expr(o, &k.expr))).count();
                let missing: Vec<SortKey> = on
                    .iter()
                    .filter(|o| !keys[..first].iter().any(|k| same_expr(o, &k.expr)))
                    .map(|o| SortKey { expr: o.clone(), descending: false, nulls_first: false })
                    .collect();
                keys.splice(first..first, missing);
                plan = sort(plan, keys);
                plan = node(Node::Distinct { input: Box::new(plan), on, sorted: true }, fields.clone());
            }
        }
        plan = self.limit(plan, tail)?;
        if total > width {
            let exprs = (0..width).map(|i| Expr::Column(i, fields[i].ty.clone())).collect();
            plan = project(plan, exprs, fields[..width].into());
        }
        Ok(plan)
    }

    /// Everything above the grouping is rewritten to its output.
    fn regroup(&mut self, grouping: &mut Grouping, bound: &mut Bound, level: &mut Level) -> Result<()> {
        let mut exprs: Vec<&mut Expr> = bound.items.iter_mut().map(|i| &mut i.expr).collect();
        exprs.extend(bound.having.iter_mut());
        let order = bound.order.iter_mut().map(|(key, _)| key);
        for key in order.chain(bound.distinct.iter_mut().flatten()) {
            if let Key::Expr(e) = key {
                exprs.push(e);
            }
        }
        for call in &mut level.windows {
            exprs.extend(call.args.iter_mut().chain(&mut call.filter).chain(&mut call.partition_by));
            exprs.extend(call.order_by.iter_mut().map(|k| &mut k.expr));
        }
        exprs.extend(level.sets.iter_mut().flat_map(|s| &mut s.args));
        let scope = &level.scope;
        let mentions = &level.mentions;
        // Keys that a primary key implies are found first, because they widen the group's row.
        for e in &mut exprs {
            grouping.resolve(e)?;
        }
        for e in &exprs {
            grouping.complete(e, scope, mentions)?;
        }
        for e in exprs {
            grouping.rewrite(e);
        }
        Ok(())
    }

    /// The tables that FOR UPDATE and its kin lock.
    fn locks(&self, level: &Level, tail: &Tail<'_>) -> Result<Vec<(Vec<LockTarget>, LockMode, WaitPolicy)>> {
        let mut locks = Vec::with_capacity(tail.locks.len());
        for clause in tail.locks {
            let mode = match clause.lock_type {
                ast::LockType::Share => LockMode::Shared,
                ast::LockType::Update => LockMode::Exclusive,
            };
            let wait = match clause.nonblock {
                None => WaitPolicy::Wait,
                Some(ast::NonBlock::Nowait) => WaitPolicy::NoWait,
                Some(ast::NonBlock::SkipLocked) => WaitPolicy::Skip,
            };
            let of = match &clause.of {
                None => None,
                Some(name) => {
                    let parts = name_parts(name)?;
                    let wanted = parts.last().map(|i| fold(i)).unwrap_or_default();
                    let Some(found) = level.scope.find_relation(None, &wanted) else {
                        return Err(SqlError::undefined_table(format!(
                            "relation \"{wanted}\" in FOR UPDATE clause not found in FROM clause"
                        )));
                    };
                    Some(found)
                }
            };
            let mut targets = Vec::new();
            for (i, relation) in level.scope.relations.iter().enumerate() {
                if of.is_some_and(|of| of != i) {
                    continue;
                }
                if let Some(table) = &relation.table {
                    let key = table.primary.columns.iter().map(|c| relation.columns.start + c).collect();
                    targets.push(LockTarget { table: table.clone(), key });
                }
            }
            locks.push((targets, mode, wait));
        }
        Ok(locks)
    }
}

/// Window calls become columns after the input's.
fn add_windows(plan: Plan, bound: &mut Bound, level: &mut Level) -> Plan {
    if level.windows.is_empty() {
        return plan;
    }
    let functions = std::mem::take(&mut level.windows);
    let width = plan.width();
    let mut fields = plan.schema.to_vec();
    fields.extend(functions.iter().map(|call| unnamed(call.ty.clone())));
    renumber(bound, level, WINDOW_BASE, width);
    node(Node::Window { input: Box::new(plan), functions }, Arc::from(fields))
}

/// Set-returning calls become columns after the input's.
fn add_sets(plan: Plan, bound: &mut Bound, level: &mut Level) -> Plan {
    if level.sets.is_empty() {
        return plan;
    }
    let width = plan.width();
    renumber(bound, level, SET_BASE, width);
    let sets = std::mem::take(&mut level.sets);
    let mut fields = plan.schema.to_vec();
    let mut exprs: Vec<ProjectItem> =
        fields.iter().enumerate().map(|(i, f)| ProjectItem::Scalar(Expr::Column(i, f.ty.clone()))).collect();
    for set in sets {
        fields.push(unnamed(set.ty));
        exprs.push(ProjectItem::Set { function: set.function, args: set.args });
    }
    node(Node::ProjectSet { input: Box::new(plan), exprs }, Arc::from(fields))
}

/// Placeholders from `base` on become columns from `width` on.
fn renumber(bound: &mut Bound, level: &mut Level, base: usize, width: usize) {
    let f = |e: &mut Expr| {
        e.map_columns(&mut |c| if (base..2 * base).contains(&c) { c - base + width } else { c });
    };
    bound.items.iter_mut().for_each(|i| f(&mut i.expr));
    for (key, _) in &mut bound.order {
        if let Key::Expr(e) = key {
            f(e);
        }
    }
    for key in bound.distinct.iter_mut().flatten() {
        if let Key::Expr(e) = key {
            f(e);
        }
    }
    level.sets.iter_mut().flat_map(|s| &mut s.args).for_each(f);
}

fn unnamed(ty: DataType) -> Field {
    Field { name: "?column?".into(), ty, origin: None }
}

/// A filter.
pub(super) fn filter(input: Plan, condition: Expr) -> Plan {
    let schema = input.schema.clone();
    node(Node::Filter { input: Box::new(input), condition }, schema)
}

fn sort(input: Plan, keys: Vec<SortKey>) -> Plan {
    if keys.is_empty() {
        return input;
    }
    let schema = input.schema.clone();
    node(Node::Sort { input: Box::new(input), keys, limit: None }, schema)
}

/// True if it must not be evaluated twice.
fn is_volatile(e: &Expr) -> bool {
    e.any(&mut |e| match e {
        Expr::Call { function, .. } => function.volatility == Volatility::Volatile,
        Expr::Subquery(_) => true,
        _ => false,
    })
}

/// The parts of a SELECT that other databases have.
fn reject(select: &ast::Select) -> Result<()> {
    let what = if select.into.is_some() {
        "SELECT INTO"
    } else if select.top.is_some() {
        "TOP"
    } else if select.qualify.is_some() {
        "QUALIFY"
    } else if !select.lateral_views.is_empty() {
        "LATERAL VIEW"
    } else if !select.connect_by.is_empty() {
        "CONNECT BY"
    } else {
        return Ok(());
    };
    Err(SqlError::feature_not_supported(format!("{what} is not supported")))
}

/// True of `(row).*`.
fn is_row_star(e: &ast::Expr) -> bool {
    use ast::{AccessExpr, Expr};
    matches!(e, Expr::CompoundFieldAccess { access_chain, .. }
        if matches!(access_chain.last(), Some(AccessExpr::Dot(Expr::Identifier(name))) if is_star(name)))
}

/// The name PostgreSQL gives an output column without AS.
pub(super) fn output_name(e: &ast::Expr) -> String {
    name_of(e).map_or_else(|| "?column?".into(), |(name, _)| name)
}

/// The name, and whether it is a good one: a column's or function's. One that is only a type's or a
/// keyword's gives way to the name of a cast around it.
fn name_of(e: &ast::Expr) -> Option<(String, bool)> {
    use ast::Expr as E;
    let good = |name: &str| Some((name.to_owned(), true));
    let weak = |name: &str| Some((name.to_owned(), false));
    let last = |name: &ast::ObjectName| name.0.last().and_then(|p| p.as_ident()).map(fold);
    match e {
        E::Identifier(ident) => Some((fold(ident), true)),
        E::CompoundIdentifier(idents) => Some((fold(idents.last()?), true)),
        E::Nested(inner) | E::Collate { expr: inner, .. } => name_of(inner),
        E::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                ast::AccessExpr::Dot(E::Identifier(name)) => Some(fold(name)),
                _ => None,
            });
            field.map(|name| (name, true)).or_else(|| name_of(root))
        }
        E::Cast { expr, data_type, .. } => match name_of(expr) {
            Some((name, true)) => Some((name, true)),
            _ => Some((type_column_name(data_type), false)),
        },
        E::TypedString(typed) => Some((type_column_name(&typed.data_type), false)),
        E::Interval(_) => weak("interval"),
        E::Function(function) => Some((last(&function.name)?, true)),
        E::Case { else_result, .. } => match else_result.as_ref().and_then(|e| name_of(e)) {
            Some((name, true)) => Some((name, true)),
            _ => weak("case"),
        },
        E::BinaryOp { op: ast::BinaryOperator::Overlaps, .. } => good("overlaps"),
        E::Exists { negated: false, .. } => good("exists"),
        E::Array(_) => good("array"),
        E::Tuple(_) => good("row"),
        E::Extract { .. } => good("extract"),
        E::Ceil { .. } => good("ceil"),
        E::Floor { .. } => good("floor"),
        E::Position { .. } => good("position"),
        E::Substring { shorthand, .. } => good(if *shorthand { "substr" } else { "substring" }),
        E::Overlay { .. } => good("overlay"),
        E::Trim { trim_where, .. } => good(match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim",
            Some(ast::TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        E::AtTimeZone { .. } => good("timezone"),
        E::Subquery(query) => match &*query.body {
            ast::SetExpr::Select(select) => match select.projection.first()? {
                SelectItem::UnnamedExpr(e) => name_of(e),
                SelectItem::ExprWithAlias { alias, .. } => Some((fold(alias), true)),
                _ => None,
            },
            ast::SetExpr::Values(_) => good("column1"),
            _ => None,
        },
        _ => None,
    }
}

/// GROUP BY DISTINCT, as the parser leaves it.
fn is_distinct_mark(e: &ast::Expr) -> bool {
    matches!(e, ast::Expr::Identifier(i) if i.quote_style.is_none() && i.value == crate::parser::GROUP_BY_DISTINCT)
}

/// `'1'::int` is called `int4`: types go by their internal names.
fn type_column_name(ty: &ast::DataType) -> String {
    let text = ty.to_string().to_lowercase();
    // Its modifiers may stand in the middle: `timestamp(3) with time zone`.
    let whole = text.split('[').next().unwrap_or_default();
    let bare = match (whole.find('('), whole.find(')')) {
        (Some(open), Some(close)) if open < close => format!("{}{}", &whole[..open], &whole[close + 1..]),
        _ => whole.to_owned(),
    };
    let bare = bare.trim();
    let name = match bare {
        fields if fields.starts_with("interval ") => "interval",
        "int" | "integer" | "int4" => "int4",
        "bigint" | "int8" => "int8",
        "smallint" | "int2" => "int2",
        "double precision" | "float8" | "float" => "float8",
        "real" | "float4" => "float4",
        "boolean" | "bool" => "bool",
        "character varying" | "varchar" => "varchar",
        "character" | "char" => "bpchar",
        "\"char\"" => "char",
        "time with time zone" => "timetz",
        "time without time zone" => "time",
        "decimal" | "dec" | "numeric" => "numeric",
        "timestamp with time zone" => "timestamptz",
        "timestamp without time zone" => "timestamp",
        other => other.rsplit('.').next().unwrap_or(other),
    };
    name.to_owned()
}

//! MERGE: a source joined with a table, and for every row of it what the first fitting WHEN says.
//!
//! ```text
//!   source LEFT JOIN target ON …          the target's columns are NULL where nothing matched
//!        │
//!   rows: target's columns ++ source's    conditions, SET and VALUES are bound over this row
//! ```
//!
//! Without a WHEN NOT MATCHED the join is an inner one. What WHEN NOT MATCHED does sees only the source.

use std::sync::Arc;

use amphora_storage::schema::Table;
use sqlparser::ast;
use sqlparser::ast::{
    MergeAction as AstAction, MergeClauseKind, MergeInsertKind, MergeUpdateKind, TableFactor,
};

use super::from::Found;
use super::level::{Clause, Level};
use super::query::{node, project};
use super::scope::Scope;
use super::{Binder, fold};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::parser::Overriding;
use crate::plan::{Field, JoinKind, Merge, MergeAction, MergeClause, Node, Plan, Statement};

impl Binder<'_> {
    pub(super) fn merge(&mut self, merge: &ast::Merge) -> Result<(Statement, Arc<[Field]>)> {
        if merge.output.is_some() {
            return Err(SqlError::syntax_error("syntax error at or near \"RETURNING\""));
        }
        let TableFactor::Table { name, alias, args: None, .. } = &merge.table else {
            return Err(SqlError::syntax_error("MERGE needs a table"));
        };
        if let Found::UserView(view) = self.find_relation(name)? {
            let message = format!("cannot execute MERGE on relation \"{}\"", view.name);
            return Err(SqlError::feature_not_supported(message)
                .with_detail("This operation is not supported for views."));
        }
        let alias = alias.as_ref().map(|a| fold(&a.name));
        let target = self.write_target(name, alias, "merge into")?;
        let table = target.table;
        let (source, source_scope) = self.factor(&merge.source)?;
        let overriding = self.overriding.take();

        let inserts = merge.clauses.iter().any(|c| c.clause_kind == MergeClauseKind::NotMatched);
        let kind = if inserts { JoinKind::Left } else { JoinKind::Inner };
        let condition_scope = source_scope.clone().join(target.scope.clone()).map_err(|error| {
            let message = error.message.replacen("table name", "name", 1);
            SqlError::duplicate_alias(message)
                .with_detail("The name is used both as MERGE target table and data source.")
        })?;
        let (condition, _) =
            self.in_level(Level::new(condition_scope, Clause::On), |b| b.condition(&merge.on, "JOIN/ON"))?;
        let rows = joined(source, target.plan, kind, condition);

        let scopes = Scopes {
            matched: target.scope.clone().join(source_scope.clone())?,
            unmatched: hidden(target.scope.clone()).join(source_scope)?,
            target: target.scope,
        };
        let mut clauses = Vec::with_capacity(merge.clauses.len());
        let mut always = [false; 2];
        for clause in &merge.clauses {
            let matched = match clause.clause_kind {
                MergeClauseKind::Matched => true,
                MergeClauseKind::NotMatched => false,
                _ => return Err(SqlError::syntax_error("syntax error at or near \"BY\"")),
            };
            if std::mem::replace(&mut always[usize::from(matched)], false) {
                return Err(SqlError::syntax_error(
                    "unreachable WHEN clause specified after unconditional WHEN clause",
                ));
            }
            always[usize::from(matched)] = clause.predicate.is_none();
            clauses.push(self.merge_clause(&table, clause, matched, &scopes, overriding)?);
        }
        let checks = self.checks(&table)?;
        let merge = Merge { table, source: rows, clauses, checks };
        Ok((Statement::Merge(Box::new(merge)), Arc::from([])))
    }

    fn merge_clause(
        &mut self,
        table: &Arc<Table>,
        clause: &ast::MergeClause,
        matched: bool,
        scopes: &Scopes,
        overriding: Option<Overriding>,
    ) -> Result<MergeClause> {
        let condition = match &clause.predicate {
            None => None,
            Some(e) => {
                let bind = |b: &mut Self| b.condition(e, "WHEN");
                Some(self.over(scopes, matched, Clause::MergeWhen, bind)?)
            }
        };
        let action = match &clause.action {
            AstAction::DoNothing { .. } => MergeAction::Nothing,
            AstAction::Delete { .. } if matched => MergeAction::Delete,
            AstAction::Update(update) if matched => {
                let MergeUpdateKind::Set(list) = &update.kind else {
                    return Err(SqlError::syntax_error("syntax error at or near \"*\""));
                };
                if update.update_predicate.is_some() || update.delete_predicate.is_some() {
                    return Err(SqlError::syntax_error("syntax error at or near \"WHERE\""));
                }
                let bind = |b: &mut Self| {
                    let assignments = b.assignments(table, list)?;
                    if assignments.iter().any(|(_, e)| e.is_reset()) {
                        return Err(SqlError::feature_not_supported("crdt_reset is not supported in MERGE")
                            .with_hint("Use UPDATE, or INSERT … ON CONFLICT DO UPDATE."));
                    }
                    Ok(assignments)
                };
                MergeAction::Update(self.over(scopes, true, Clause::Set, bind)?)
            }
            AstAction::Insert(insert) if !matched => {
                if insert.insert_predicate.is_some() {
                    return Err(SqlError::syntax_error("syntax error at or near \"WHERE\""));
                }
                let row = match &insert.kind {
                    // DEFAULT VALUES (see `parser/rewrite.rs`)
                    MergeInsertKind::Values(values) if is_default_values(values) => {
                        Some(self.full_row(table, &[], Vec::new())?)
                    }
                    MergeInsertKind::Values(values) if values.rows.len() == 1 => {
                        let columns = self.insert_columns(table, &insert.columns)?;
                        let explicit = !insert.columns.is_empty();
                        let bind =
                            |b: &mut Self| b.values_rows(table, &columns, (explicit, overriding), values);
                        self.over(scopes, false, Clause::Values, bind)?.pop()
                    }
                    _ => return Err(SqlError::syntax_error("syntax error at or near \",\"")),
                };
                MergeAction::Insert(row.unwrap_or_default())
            }
            AstAction::Insert(_) => return Err(SqlError::syntax_error("syntax error at or near \"INSERT\"")),
            AstAction::Update(_) => return Err(SqlError::syntax_error("syntax error at or near \"UPDATE\"")),
            AstAction::Delete { .. } => {
                return Err(SqlError::syntax_error("syntax error at or near \"DELETE\""));
            }
        };
        Ok(MergeClause { matched, condition, action })
    }

    /// Binds over the joined row; where nothing matched, without the target in sight.
    fn over<T>(
        &mut self,
        scopes: &Scopes,
        matched: bool,
        clause: Clause,
        bind: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        if matched {
            return self.in_level(Level::new(scopes.matched.clone(), clause), bind).map(|(bound, _)| bound);
        }
        // Outside, and unseen: for the error that says so. Nothing can refer to it.
        let unseen = Level { lateral: false, ..Level::lateral(scopes.target.clone()) };
        let scope = scopes.unmatched.clone();
        let bound = self.in_level(unseen, |b| b.in_level(Level::new(scope, clause), bind))?;
        Ok(bound.0.0)
    }
}

fn is_default_values(values: &ast::Values) -> bool {
    let [row] = &values.rows[..] else { return false };
    matches!(&row.content[..], [ast::Expr::Identifier(i)]
        if i.quote_style.is_none() && i.value == crate::parser::DEFAULT_VALUES)
}

/// What the parts of a MERGE see.
struct Scopes {
    /// Target and source
    matched: Scope,
    /// The source, in the same row
    unmatched: Scope,
    /// The target alone
    target: Scope,
}

/// A target whose columns are in the row and have no names.
fn hidden(mut scope: Scope) -> Scope {
    scope.star.clear();
    scope.columns.iter_mut().for_each(|c| c.hidden = true);
    scope.relations.iter_mut().for_each(|r| r.name.clear());
    scope
}

/// The join's rows, the target's columns first.
fn joined(source: Plan, target: Plan, kind: JoinKind, condition: Expr) -> Plan {
    let width = source.width();
    let (before, after) = (source.schema.clone(), target.schema.clone());
    let schema: Arc<[Field]> = before.iter().chain(after.iter()).cloned().collect();
    let join = Node::NestedLoop {
        left: Box::new(source),
        right: Box::new(target),
        kind,
        condition: Some(condition),
    };
    let order: Vec<usize> = (width..schema.len()).chain(0..width).collect();
    let exprs = order.iter().map(|&i| Expr::Column(i, schema[i].ty.clone())).collect();
    let fields = order.iter().map(|&i| schema[i].clone()).collect();
    project(node(join, schema), exprs, fields)
}

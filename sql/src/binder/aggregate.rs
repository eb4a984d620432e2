//! What remains of a row after GROUP BY: the keys, the aggregates, and what a primary key implies.

use std::collections::HashMap;
use std::sync::Arc;

use amphora_storage::DataType;

use super::grouping_sets::{self, Sets, resolve_grouping};
use super::level::{AGGREGATE_BASE, WINDOW_BASE};
use super::query::node;
use super::scope::Scope;
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::plan::{Aggregate, Field, Node, Plan};
use crate::walk::same_expr;

/// The keys of a GROUP BY.
pub(super) struct Grouping {
    keys: Vec<Expr>,
    /// The keys of each grouping set, where there are several; then the last key is the set's number
    sets: Option<Vec<Vec<usize>>>,
}

impl Grouping {
    pub(super) fn new(keys: Vec<Expr>) -> Grouping {
        let mut unique: Vec<Expr> = Vec::with_capacity(keys.len());
        for key in keys {
            if !unique.iter().any(|k| same_expr(k, &key)) {
                unique.push(key);
            }
        }
        Grouping { keys: unique, sets: None }
    }

    /// A grouping by several sets of keys, over rows of this width.
    pub(super) fn sets(found: Sets, width: usize) -> Grouping {
        let mut keys = found.keys;
        keys.push(Expr::Column(width, DataType::Int4));
        Grouping { keys, sets: Some(found.sets) }
    }

    /// Replaces GROUPING calls.
    pub(super) fn resolve(&self, e: &mut Expr) -> Result<()> {
        match &self.sets {
            None => resolve_grouping(e, &self.keys, &[(0..self.keys.len()).collect()], None),
            Some(sets) => resolve_grouping(e, &self.keys, sets, self.keys.last()),
        }
    }

    fn key(&self, e: &Expr) -> Option<usize> {
        self.keys.iter().position(|k| same_expr(k, e))
    }

    /// Checks that an expression over the ungrouped row is also one over groups. A column whose table's
    /// primary key is grouped by becomes a key itself: it splits no group. 42803 otherwise.
    pub(super) fn complete(
        &mut self,
        e: &Expr,
        scope: &Scope,
        mentions: &HashMap<usize, usize>,
    ) -> Result<()> {
        if self.key(e).is_some() {
            return Ok(());
        }
        let mut columns = Vec::new();
        match e {
            Expr::Column(i, ty) => columns.push((*i, ty.clone())),
            _ => {
                let mut result = Ok(());
                e.children(&mut |child| {
                    if result.is_ok() {
                        result = self.complete(child, scope, mentions);
                    }
                });
                result?;
                if let Expr::Subquery(subquery) = e {
                    subquery.plan.references(1, &mut |r, level| match r {
                        Expr::Outer { depth, position, ty } if *depth == level => {
                            columns.push((*position, ty.clone()))
                        }
                        _ => {}
                    });
                }
            }
        }
        for (i, ty) in columns {
            let column = Expr::Column(i, ty);
            if i >= AGGREGATE_BASE || self.key(&column).is_some() {
                continue;
            }
            if self.sets.is_some() || !self.implied(i, scope) {
                let error = SqlError::grouping_error(format!(
                    "column \"{}\" must appear in the GROUP BY clause or be used in an aggregate function",
                    scope.display(i)
                ));
                return Err(match mentions.get(&i) {
                    Some(position) => error.at(*position),
                    None => error,
                });
            }
            self.keys.push(column);
        }
        Ok(())
    }

    /// True if the column's table's whole primary key is among the keys.
    fn implied(&self, column: usize, scope: &Scope) -> bool {
        scope.relations.iter().any(|relation| {
            relation.columns.contains(&column)
                && relation.table.as_ref().is_some_and(|table| {
                    !table.hidden_key
                        && table.primary.columns.iter().all(|k| {
                            let position = relation.columns.start + k;
                            self.keys.iter().any(|key| matches!(key, Expr::Column(i, _) if *i == position))
                        })
                })
        })
    }

    /// Rewrites a completed expression to the grouped row: keys, then aggregates.
    pub(super) fn rewrite(&self, e: &mut Expr) {
        if let Some(i) = self.key(e) {
            *e = Expr::Column(i, e.ty());
            return;
        }
        match e {
            Expr::Column(i, _) if (AGGREGATE_BASE..WINDOW_BASE).contains(i) => {
                *i = *i - AGGREGATE_BASE + self.keys.len();
            }
            Expr::Column(..) => {}
            _ => {
                e.children_mut(&mut |child| self.rewrite(child));
                if let Expr::Subquery(subquery) = e {
                    Arc::make_mut(&mut subquery.plan).references_mut(1, &mut |r, level| match r {
                        Expr::Outer { depth, position, ty } if *depth == level => {
                            if let Some(i) = self.key(&Expr::Column(*position, ty.clone())) {
                                *position = i;
                            }
                        }
                        _ => {}
                    });
                }
            }
        }
    }

    /// The operator.
    pub(super) fn plan(self, input: Plan, aggregates: Vec<Aggregate>) -> Result<Plan> {
        if let Some(sets) = &self.sets {
            let keys = self.keys.len().saturating_sub(1);
            return grouping_sets::plan(input, &self.keys[..keys], sets, aggregates);
        }
        let unnamed = |ty| Field { name: "?column?".into(), ty, origin: None };
        let fields = self.keys.iter().map(|key| match key {
            Expr::Column(i, _) => input.schema.get(*i).cloned().unwrap_or_else(|| unnamed(key.ty())),
            other => unnamed(other.ty()),
        });
        let schema: Arc<[Field]> = fields.chain(aggregates.iter().map(|a| unnamed(a.ty.clone()))).collect();
        Ok(node(
            Node::Aggregate { input: Box::new(input), keys: self.keys, aggregates, sorted: false },
            schema,
        ))
    }
}

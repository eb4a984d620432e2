//! TABLESAMPLE.

use amphora_storage::DataType;
use sqlparser::ast;
use sqlparser::ast::{TableSampleKind, TableSampleMethod};

use super::Binder;
use super::level::{Clause, Level};
use super::scope::Scope;
use super::select::filter;
use crate::error::{Result, SqlError};
use crate::expr::{Expr, Subquery, SubqueryKind};
use crate::functions::SAMPLE;
use crate::plan::Plan;
use crate::types::CastContext;

impl Binder<'_> {
    /// The rows of a table that are in a sample of it.
    pub(super) fn sampled(
        &mut self,
        (plan, scope): (Plan, Scope),
        sample: &TableSampleKind,
    ) -> Result<(Plan, Scope)> {
        let (TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) = sample;
        let Some(table) = scope.relations.first().and_then(|r| r.table.clone()) else {
            return Err(SqlError::feature_not_supported(
                "TABLESAMPLE clause can only be applied to tables and materialized views",
            ));
        };
        match &sample.name {
            Some(TableSampleMethod::Bernoulli | TableSampleMethod::System) => {}
            Some(other) => {
                let name = other.to_string().to_lowercase();
                let message = format!("tablesample method {name} does not exist");
                return Err(SqlError::undefined_object(message));
            }
            None => return Err(SqlError::syntax_error("TABLESAMPLE needs a method")),
        }
        let Some(quantity) = sample.quantity.as_ref().filter(|q| q.unit.is_none()) else {
            return Err(SqlError::syntax_error("TABLESAMPLE needs a percentage"));
        };
        let level = Level::new(Scope::default(), Clause::From);
        let (percentage, _) = self.in_level(level, |b| {
            let e = b.expr(&quantity.value)?;
            b.coerce(e, &DataType::Float8, CastContext::Assignment)
        })?;
        let seed = match &sample.seed {
            Some(seed) => {
                let e = ast::Expr::Value(seed.value.clone());
                let bound = self.constant_expr(&e, "REPEATABLE")?;
                self.coerce(bound, &DataType::Float8, CastContext::Assignment)?
            }
            None => self.one_draw()?,
        };
        let mut args = vec![percentage, seed];
        args.extend(table.primary.columns.iter().map(|&c| Expr::Column(c, plan.schema[c].ty.clone())));
        let condition = Expr::Call { function: &SAMPLE, args, ty: DataType::Bool };
        Ok((filter(plan, condition), scope))
    }

    /// A random number, the same for all rows of an execution: a subquery that reads none is run once.
    fn one_draw(&mut self) -> Result<Expr> {
        let random = self.call_named("random", Vec::new())?;
        let schema = super::query::fields_of(&[("random".into(), DataType::Float8)]);
        let plan = super::query::node(crate::plan::Node::Values(vec![vec![random]]), schema);
        Ok(Expr::Subquery(Box::new(Subquery {
            kind: SubqueryKind::Scalar,
            plan: plan.into(),
            correlated: false,
            ty: DataType::Float8,
        })))
    }
}

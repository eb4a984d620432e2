//! Subqueries in expressions.

use amphora_storage::DataType;
use sqlparser::ast;

use super::Binder;
use crate::error::{Result, SqlError};
use crate::expr::{Expr, Subquery, SubqueryKind};
use crate::plan::Plan;

impl Binder<'_> {
    /// A query one level in, and whether it reads rows outside itself.
    pub(super) fn subplan(&mut self, query: &ast::Query) -> Result<(Plan, bool)> {
        let clause = self.level()?.clause;
        if clause.forbids_subqueries() {
            // One of those.
            let name = clause.name();
            let name = name.strip_suffix('s').unwrap_or(name);
            return Err(SqlError::feature_not_supported(format!("cannot use subquery in {name}")));
        }
        let plan = self.query(query, None)?;
        let plan = self.settle_output(plan)?;
        let correlated = plan.is_correlated();
        Ok((plan, correlated))
    }

    fn subquery(&mut self, kind: SubqueryKind, plan: Plan, correlated: bool, ty: DataType) -> Expr {
        Expr::Subquery(Box::new(Subquery { kind, plan: plan.into(), correlated, ty }))
    }

    pub(super) fn scalar_subquery(&mut self, query: &ast::Query) -> Result<Expr> {
        let (plan, correlated) = self.subplan(query)?;
        let ty = single_column(&plan)?;
        Ok(self.subquery(SubqueryKind::Scalar, plan, correlated, ty))
    }

    pub(super) fn exists(&mut self, query: &ast::Query, negated: bool) -> Result<Expr> {
        let (plan, correlated) = self.subplan(query)?;
        let exists = self.subquery(SubqueryKind::Exists, plan, correlated, DataType::Bool);
        Ok(if negated { Expr::Not(Box::new(exists)) } else { exists })
    }

    pub(super) fn array_subquery(&mut self, query: &ast::Query) -> Result<Expr> {
        let (plan, correlated) = self.subplan(query)?;
        let ty = single_column(&plan)?;
        Ok(self.subquery(SubqueryKind::Array, plan, correlated, ty.array()))
    }
}

fn single_column(plan: &Plan) -> Result<DataType> {
    match &plan.schema[..] {
        [field] => Ok(field.ty.clone()),
        _ => Err(SqlError::syntax_error("subquery must return only one column")),
    }
}

//! IS, IN, BETWEEN, LIKE.

use amphora_storage::{DataType, Datum};
use sqlparser::ast;
use sqlparser::ast::{Expr as Ast, Spanned};

use super::Binder;
use super::expr::unwrap_nested;
use super::record::row_items;
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::functions;
use crate::parser;

impl Binder<'_> {
    pub(super) fn is_null(&mut self, e: &Ast, negated: bool) -> Result<Expr> {
        let input = self.expr(e)?;
        // A parameter's type may still follow from another place.
        let input = match input {
            Expr::Parameter(_, DataType::Unknown) => input,
            other => self.settle(other)?,
        };
        Ok(Expr::IsNull { input: Box::new(input), negated })
    }

    pub(super) fn is_bool(&mut self, e: &Ast, value: Option<bool>, negated: bool) -> Result<Expr> {
        let what = match value {
            Some(true) => "IS TRUE",
            Some(false) => "IS FALSE",
            None => "IS UNKNOWN",
        };
        let input = self.condition(e, what)?;
        Ok(Expr::IsBool { input: Box::new(input), value, negated })
    }

    pub(super) fn is_distinct(&mut self, left: &Ast, right: &Ast, negated: bool) -> Result<Expr> {
        let left = self.expr(left)?;
        let right = self.expr(right)?;
        let resolved = functions::resolve_operator("=", Some(&left.ty().base()), &right.ty().base())?;
        let mut args = self.arguments(vec![left, right], &resolved.arg_types)?.into_iter();
        match (args.next(), args.next()) {
            (Some(left), Some(right)) => {
                Ok(Expr::IsDistinct { left: Box::new(left), right: Box::new(right), negated })
            }
            _ => Err(SqlError::internal("a binary operator has two operands")),
        }
    }

    pub(super) fn between(&mut self, e: &Ast, negated: bool, low: &Ast, high: &Ast) -> Result<Expr> {
        let input = self.expr(e)?;
        if let Some(low) = super::call::marked(low, parser::SYMMETRIC) {
            let (low, high) = (self.expr(low)?, self.expr(high)?);
            let both = |b: &mut Self, low: &Expr, high: &Expr| {
                let above = b.operator(">=", Some(input.clone()), low.clone())?;
                let below = b.operator("<=", Some(input.clone()), high.clone())?;
                Ok::<Expr, SqlError>(Expr::And(vec![above, below]))
            };
            let between = Expr::Or(vec![both(self, &low, &high)?, both(self, &high, &low)?]);
            return Ok(if negated { Expr::Not(Box::new(between)) } else { between });
        }
        let low = self.expr(low)?;
        let high = self.expr(high)?;
        let above = self.operator(">=", Some(input.clone()), low)?;
        let below = self.operator("<=", Some(input), high)?;
        let between = Expr::And(vec![above, below]);
        Ok(if negated { Expr::Not(Box::new(between)) } else { between })
    }

    pub(super) fn in_list(&mut self, e: &Ast, list: &[Ast], negated: bool) -> Result<Expr> {
        if let Some(left) = row_items(e) {
            return self.row_in_list(&left, list, negated);
        }
        let mut exprs = Vec::with_capacity(list.len() + 1);
        exprs.push(self.expr(e)?);
        for item in list {
            exprs.push(self.expr(item).map_err(|error| self.at(error, item.span()))?);
        }
        if list.len() == 1 {
            let symbol = if negated { "<>" } else { "=" };
            let right = exprs.pop();
            let left = exprs.pop();
            if let (Some(left), Some(right)) = (left, right) {
                return self.operator(symbol, Some(left), right);
            }
            return Err(SqlError::internal("IN without operands"));
        }
        let types: Vec<DataType> = exprs.iter().map(|x| x.ty().base()).collect();
        if crate::types::common_type(&types).is_err() {
            // No one type: each is compared by its own operator.
            let input = exprs.remove(0);
            let each = exprs
                .into_iter()
                .map(|item| self.operator("=", Some(input.clone()), item))
                .collect::<Result<_>>()?;
            let any = Expr::Or(each);
            return Ok(if negated { Expr::Not(Box::new(any)) } else { any });
        }
        let (mut list, ty) = self.unify(exprs, "IN")?;
        functions::resolve_operator("=", Some(&ty), &ty)?;
        let input = Box::new(list.remove(0));
        Ok(Expr::InList { input, list, negated })
    }

    /// `(a, b) IN ((1, 2), (3, 4))`
    fn row_in_list(&mut self, left: &[&Ast], list: &[Ast], negated: bool) -> Result<Expr> {
        let left = left.iter().map(|e| self.expr(e)).collect::<Result<Vec<_>>>()?;
        let mut each = Vec::with_capacity(list.len());
        for item in list {
            let Some(right) = row_items(item) else {
                return Err(SqlError::syntax_error("unequal number of entries in row expressions"));
            };
            if right.len() != left.len() {
                return Err(SqlError::syntax_error("unequal number of entries in row expressions"));
            }
            let right = right.iter().map(|e| self.expr(e)).collect::<Result<Vec<_>>>()?;
            each.push(self.compare_rows("=", left.clone(), right)?);
        }
        let any = Expr::Or(each);
        Ok(if negated { Expr::Not(Box::new(any)) } else { any })
    }

    pub(super) fn in_subquery(&mut self, e: &Ast, query: &ast::Query, negated: bool) -> Result<Expr> {
        let left = match row_items(e) {
            Some(items) => Expr::Row(items.iter().map(|i| self.expr(i)).collect::<Result<_>>()?),
            None => self.expr(unwrap_nested(e))?,
        };
        if negated {
            self.quantified(left, "<>", query, true)
        } else {
            self.quantified(left, "=", query, false)
        }
    }

    pub(super) fn like(
        &mut self,
        symbol: &str,
        e: &Ast,
        pattern: &Ast,
        escape: Option<&Ast>,
    ) -> Result<Expr> {
        let input = self.expr(e)?;
        let mut pattern = self.expr(pattern)?;
        if let Some(escape) = escape {
            let escape = self.expr(escape)?;
            pattern = self.call_named("like_escape", vec![pattern, escape])?;
        }
        self.operator(symbol, Some(input), pattern)
    }

    pub(super) fn similar(
        &mut self,
        negated: bool,
        e: &Ast,
        pattern: &Ast,
        escape: Option<&Ast>,
    ) -> Result<Expr> {
        let input = self.expr(e)?;
        let mut args = vec![self.expr(pattern)?];
        if let Some(escape) = escape {
            args.push(self.expr(escape)?);
        }
        let pattern = self.call_named("similar_to_escape", args)?;
        self.operator(if negated { "!~" } else { "~" }, Some(input), pattern)
    }

    /// NULLIF: null where both are equal.
    pub(super) fn nullif(&mut self, left: Expr, right: Expr) -> Result<Expr> {
        let left = match left.ty() {
            DataType::Unknown if right.ty() == DataType::Unknown => self.settle(left)?,
            _ => left,
        };
        let equal = self.operator("=", Some(left.clone()), right)?;
        // The value is the left side as it was compared: nullif(1, 2.5) is numeric.
        let left = match &equal {
            Expr::Call { args, .. } => args.first().cloned().unwrap_or(left),
            _ => left,
        };
        let ty = left.ty();
        let null = Expr::Literal(Datum::Null, ty.clone());
        Ok(Expr::Case { branches: vec![(equal, null)], otherwise: Box::new(left), ty })
    }
}

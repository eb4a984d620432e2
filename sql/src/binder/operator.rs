//! Operators.

use amphora_storage::{DataType, Datum};
use sqlparser::ast;
use sqlparser::ast::{BinaryOperator, Expr as Ast, Spanned, UnaryOperator};

use super::Binder;
use super::expr::unwrap_nested;
use super::record::row_items;
use crate::error::{Result, SqlError};
use crate::expr::{Expr, Subquery, SubqueryKind};
use crate::functions::{self, ScalarFunction};
use crate::types::CastContext;

impl Binder<'_> {
    pub(super) fn binary(&mut self, left: &Ast, op: &BinaryOperator, right: &Ast) -> Result<Expr> {
        let symbol = symbol(op);
        if let Some(l) = row_items(left) {
            let compares = matches!(symbol.as_str(), "=" | "<>" | "<" | "<=" | ">" | ">=");
            match (row_items(right), unwrap_nested(right)) {
                (Some(r), _) if compares => return self.row_comparison(&symbol, &l, &r),
                (Some(r), _) if *op == BinaryOperator::Overlaps => return self.overlaps(&l, &r),
                (None, Ast::Subquery(query)) if compares => return self.row_and_query(&symbol, &l, query),
                _ => {}
            }
        }
        let bound_left = self.expr(left)?;
        let bound_right = self.expr(right)?;
        self.operator(&symbol, Some(bound_left), bound_right).map_err(|error| {
            // A literal that does not read as the other side's type is what is wrong.
            let quoted =
                |e: &&Ast| matches!(e, Ast::Value(v) if matches!(v.value, ast::Value::SingleQuotedString(_)));
            let literal = [right, left].into_iter().find(quoted);
            match literal {
                Some(e) if error.sqlstate.starts_with("22") => self.at(error, e.span()),
                None if matches!(error.sqlstate, "42883" | "42725") && error.position.is_none() => {
                    match self.positions.as_ref().and_then(|p| p.operator_after(left.span().end, op)) {
                        Some(position) => error.at(position),
                        None => error,
                    }
                }
                _ => error,
            }
        })
    }

    /// An operator over bound operands; a prefix operator has no left one.
    pub(super) fn operator(&mut self, symbol: &str, left: Option<Expr>, right: Expr) -> Result<Expr> {
        let left_type = left.as_ref().map(|e| e.ty().base());
        let resolved = functions::resolve_operator(symbol, left_type.as_ref(), &right.ty().base())?;
        let operands: Vec<Expr> = left.into_iter().chain([right]).collect();
        let args = self.arguments(operands, &resolved.arg_types)?;
        Ok(Expr::Call { function: resolved.function, args, ty: resolved.return_type })
    }

    /// Arguments cast to what was resolved.
    pub(super) fn arguments(&mut self, args: Vec<Expr>, types: &[DataType]) -> Result<Vec<Expr>> {
        args.into_iter().zip(types).map(|(arg, ty)| self.coerce(arg, ty, CastContext::Implicit)).collect()
    }

    pub(super) fn unary(&mut self, op: UnaryOperator, e: &Ast) -> Result<Expr> {
        match op {
            UnaryOperator::Not | UnaryOperator::BangNot => {
                let condition = self.condition(e, "NOT")?;
                Ok(match condition {
                    Expr::InList { input, list, negated } => Expr::InList { input, list, negated: !negated },
                    other => Expr::Not(Box::new(other)),
                })
            }
            UnaryOperator::Minus => {
                if let Ast::Value(ast::ValueWithSpan { value: ast::Value::Number(digits, _), .. }) = e {
                    return super::literal::number(&format!("-{digits}"));
                }
                let operand = self.expr(e)?;
                self.operator("-", None, operand)
            }
            UnaryOperator::Plus => {
                let operand = self.expr(e)?;
                if operand.ty().is_numeric() {
                    return Ok(operand);
                }
                self.operator("+", None, operand)
            }
            other => {
                let operand = self.expr(e)?;
                self.operator(&other.to_string(), None, operand)
            }
        }
    }

    /// `(a, b) < (c, d)`, compared from the left.
    fn row_comparison(&mut self, symbol: &str, left: &[&Ast], right: &[&Ast]) -> Result<Expr> {
        if left.len() != right.len() {
            return Err(SqlError::syntax_error("unequal number of entries in row expressions"));
        }
        let left = left.iter().map(|e| self.expr(e)).collect::<Result<Vec<_>>>()?;
        let right = right.iter().map(|e| self.expr(e)).collect::<Result<Vec<_>>>()?;
        self.compare_rows(symbol, left, right)
    }

    /// `(a, b) = (SELECT x, y …)`: the query gives one row at most.
    fn row_and_query(&mut self, symbol: &str, left: &[&Ast], query: &ast::Query) -> Result<Expr> {
        let left = left.iter().map(|e| self.expr(e)).collect::<Result<Vec<_>>>()?;
        let (plan, correlated) = self.subplan(query)?;
        if plan.width() != left.len() {
            let many = if plan.width() > left.len() { "many" } else { "few" };
            return Err(SqlError::syntax_error(format!("subquery has too {many} columns")));
        }
        let right = (0..plan.width()).map(|i| {
            let field = plan.schema[i].clone();
            let ty = field.ty.clone();
            let one = super::query::project(plan.clone(), vec![Expr::Column(i, ty.clone())], [field].into());
            let kind = SubqueryKind::Scalar;
            Expr::Subquery(Box::new(Subquery { kind, plan: one.into(), correlated, ty }))
        });
        let right = right.collect();
        self.compare_rows(symbol, left, right)
    }

    /// `(start, end) OVERLAPS (start, length)`
    fn overlaps(&mut self, left: &[&Ast], right: &[&Ast]) -> Result<Expr> {
        let ([_, _], [_, _]) = (left, right) else {
            let side = if left.len() == 2 { "right" } else { "left" };
            return Err(SqlError::syntax_error(format!(
                "wrong number of parameters on {side} side of OVERLAPS expression"
            )));
        };
        let mut args = left.iter().chain(right).map(|e| self.expr(e)).collect::<Result<Vec<_>>>()?;
        // A length beside an end: each period gets its end.
        let lengths = [1, 3].map(|i| matches!(args[i].ty().base(), DataType::Interval(_)));
        if lengths[0] != lengths[1] {
            for (i, is_length) in [1, 3].into_iter().zip(lengths) {
                if is_length {
                    args[i] = self.operator("+", Some(args[i - 1].clone()), args[i].clone())?;
                }
            }
        }
        self.call_named("overlaps", args)
    }

    pub(super) fn compare_rows(&mut self, symbol: &str, left: Vec<Expr>, right: Vec<Expr>) -> Result<Expr> {
        let mut pairs: Vec<(Expr, Expr)> = left.into_iter().zip(right).collect();
        if symbol == "=" || symbol == "<>" {
            let each =
                pairs.into_iter().map(|(l, r)| self.operator(symbol, Some(l), r)).collect::<Result<_>>()?;
            return Ok(if symbol == "=" { Expr::And(each) } else { Expr::Or(each) });
        }
        let strict = &symbol[..1];
        let Some((l, r)) = pairs.pop() else {
            return Err(SqlError::syntax_error("cannot compare rows of zero length"));
        };
        let mut result = self.operator(symbol, Some(l), r)?;
        for (l, r) in pairs.into_iter().rev() {
            let less = self.operator(strict, Some(l.clone()), r.clone())?;
            let equal = self.operator("=", Some(l), r)?;
            result = Expr::Or(vec![less, Expr::And(vec![equal, result])]);
        }
        Ok(result)
    }

    /// `left op ANY|ALL (array or subquery)`
    pub(super) fn any_all(
        &mut self,
        left: &Ast,
        op: &BinaryOperator,
        right: &Ast,
        all: bool,
    ) -> Result<Expr> {
        self.any_of(left, &symbol(op), right, all)
    }

    /// Like [`any_all`](Self::any_all), the operator by its symbol.
    pub(super) fn any_of(&mut self, left: &Ast, symbol: &str, right: &Ast, all: bool) -> Result<Expr> {
        let left = self.expr(left)?;
        if let Ast::Subquery(query) = unwrap_nested(right) {
            return self.quantified(left, symbol, query, all);
        }
        let array = self.expr(right)?;
        // A parameter's array type follows from the left side's type.
        let element = match array.ty().base() {
            known if known.element().is_some() => known.element().unwrap_or(DataType::Unknown),
            DataType::Unknown => match left.ty().base() {
                DataType::Unknown => DataType::Text,
                known => known,
            },
            _ => return Err(SqlError::wrong_object_type("op ANY/ALL (array) requires array on right side")),
        };
        let resolved = functions::resolve_operator(symbol, Some(&left.ty().base()), &element)?;
        check_boolean(&resolved.return_type, "op ANY/ALL (array) requires operator to yield boolean")?;
        let [left_type, element_type] = &resolved.arg_types[..] else {
            return Err(SqlError::internal("a binary operator has two operands"));
        };
        let left = self.coerce(left, left_type, CastContext::Implicit)?;
        let same_strings =
            element_type.is_string() && element.is_string() && !matches!(element, DataType::Char(_));
        let array = if same_strings && array.ty().base() != DataType::Unknown {
            array
        } else {
            self.coerce(array, &element_type.clone().array(), CastContext::Implicit)?
        };
        Ok(Expr::AnyAll { left: Box::new(left), function: resolved.function, array: Box::new(array), all })
    }

    /// `left op ANY|ALL (SELECT …)`
    pub(super) fn quantified(
        &mut self,
        left: Expr,
        symbol: &str,
        query: &ast::Query,
        all: bool,
    ) -> Result<Expr> {
        let (mut plan, correlated) = self.subplan(query)?;
        let width = match &left {
            Expr::Row(items) => items.len(),
            _ => 1,
        };
        if plan.width() != width {
            let many = if plan.width() > width { "many" } else { "few" };
            return Err(SqlError::syntax_error(format!("subquery has too {many} columns")));
        }
        if let Expr::Row(items) = left {
            return self.quantified_row(items, symbol, plan, all);
        }
        let right_type = plan.schema[0].ty.base();
        let resolved = functions::resolve_operator(symbol, Some(&left.ty().base()), &right_type)?;
        check_boolean(&resolved.return_type, "row comparison operator must yield type boolean")?;
        let [left_type, right_type] = &resolved.arg_types[..] else {
            return Err(SqlError::internal("a binary operator has two operands"));
        };
        let left = self.coerce(left, left_type, CastContext::Implicit)?;
        plan = self.coerce_output(plan, std::slice::from_ref(right_type), CastContext::Implicit)?;
        let function = resolved.function;
        Ok(Expr::Subquery(Box::new(Subquery {
            kind: SubqueryKind::AnyAll { left, function, all },
            plan: plan.into(),
            correlated,
            ty: DataType::Bool,
        })))
    }

    /// `(a, b) IN (SELECT x, y …)`: true if some row has a = x AND b = y, null if only nulls prevent it.
    fn quantified_row(
        &mut self,
        items: Vec<Expr>,
        symbol: &str,
        plan: crate::plan::Plan,
        all: bool,
    ) -> Result<Expr> {
        let negated = match (symbol, all) {
            ("=", false) => false,
            ("<>", true) => true,
            _ => {
                return Err(SqlError::feature_not_supported(format!(
                    "rows cannot be compared by {symbol} with a subquery's rows"
                )));
            }
        };
        // The comparison moves into the subquery: = ANY over it is TRUE = ANY (SELECT (a, b) = (x, y)).
        let right: Vec<Expr> =
            plan.schema.iter().enumerate().map(|(i, f)| Expr::Column(i, f.ty.clone())).collect();
        let left: Vec<Expr> = items.into_iter().map(Expr::into_outer).collect();
        let comparison = self.compare_rows("=", left, right)?;
        let schema = super::query::fields_of(&[("?column?".to_owned(), DataType::Bool)]);
        let plan = super::query::project(plan, vec![comparison], schema);
        let function = boolean_equality()?;
        let subquery = Expr::Subquery(Box::new(Subquery {
            kind: SubqueryKind::AnyAll {
                left: Expr::Literal(Datum::Bool(true), DataType::Bool),
                function,
                all: false,
            },
            plan: plan.into(),
            correlated: true,
            ty: DataType::Bool,
        }));
        Ok(if negated { Expr::Not(Box::new(subquery)) } else { subquery })
    }
}

/// `=` over booleans.
fn boolean_equality() -> Result<&'static ScalarFunction> {
    Ok(functions::resolve_operator("=", Some(&DataType::Bool), &DataType::Bool)?.function)
}

fn check_boolean(ty: &DataType, message: &str) -> Result<()> {
    if *ty == DataType::Bool { Ok(()) } else { Err(SqlError::wrong_object_type(message)) }
}

/// An operator's symbol, out of `OPERATOR(schema.op)` too.
pub(super) fn symbol(op: &BinaryOperator) -> String {
    match op {
        BinaryOperator::PGCustomBinaryOperator(parts) => parts.last().cloned().unwrap_or_default(),
        other => other.to_string(),
    }
}

//! Expressions, form by form.

use std::sync::Arc;

use amphora_storage::array::MAX_DIMENSIONS;
use amphora_storage::schema::Table;
use amphora_storage::{DataType, Datum};
use sqlparser::ast;
use sqlparser::ast::{BinaryOperator, Expr as Ast, Spanned};

use super::level::{Clause, Level};
use super::scope::Scope;
use super::{Binder, fold, name_parts};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::parser;
use crate::plan::Field;
use crate::types::CastContext;

impl Binder<'_> {
    /// Binds an expression in the innermost level.
    pub(super) fn expr(&mut self, e: &Ast) -> Result<Expr> {
        match e {
            Ast::Identifier(ident) => self.identifier(ident),
            Ast::CompoundIdentifier(idents) => self.qualified_name(idents),
            Ast::Value(value) => self.value(value),
            Ast::Nested(inner) => self.expr(inner),
            Ast::BinaryOp { left, op, right } => match op {
                BinaryOperator::And | BinaryOperator::Or => self.connective(e, op),
                _ => self.binary(left, op, right),
            },
            Ast::UnaryOp { op, expr } => self.unary(*op, expr),
            Ast::Cast { expr, data_type, .. } => self.cast(expr, data_type),
            Ast::TypedString(typed) => {
                let to = self.data_type(&typed.data_type)?;
                let value = self.value(&typed.value)?;
                self.coerce(value, &to, CastContext::Explicit)
                    .map_err(|error| self.at(error, typed.value.span))
            }
            Ast::Interval(interval) => self.interval(interval),
            Ast::IsNull(inner) => self.is_null(inner, false),
            Ast::IsNotNull(inner) => self.is_null(inner, true),
            Ast::IsTrue(inner) => self.is_bool(inner, Some(true), false),
            Ast::IsNotTrue(inner) => self.is_bool(inner, Some(true), true),
            Ast::IsFalse(inner) => self.is_bool(inner, Some(false), false),
            Ast::IsNotFalse(inner) => self.is_bool(inner, Some(false), true),
            Ast::IsUnknown(inner) => self.is_bool(inner, None, false),
            Ast::IsNotUnknown(inner) => self.is_bool(inner, None, true),
            Ast::IsDistinctFrom(left, right) => self.is_distinct(left, right, false),
            Ast::IsNotDistinctFrom(left, right) => self.is_distinct(left, right, true),
            Ast::Between { expr, negated, low, high } => self.between(expr, *negated, low, high),
            Ast::InList { expr, list, negated } => self.in_list(expr, list, *negated),
            Ast::InSubquery { expr, subquery, negated } => self.in_subquery(expr, subquery, *negated),
            Ast::Like { negated, any: false, expr, pattern, escape_char } => {
                self.like(if *negated { "!~~" } else { "~~" }, expr, pattern, escape_char.as_deref())
            }
            Ast::ILike { negated, any: false, expr, pattern, escape_char } => {
                self.like(if *negated { "!~~*" } else { "~~*" }, expr, pattern, escape_char.as_deref())
            }
            Ast::Like { negated, any: true, expr, pattern, escape_char: None } => {
                self.any_of(expr, if *negated { "!~~" } else { "~~" }, pattern, false)
            }
            Ast::ILike { negated, any: true, expr, pattern, escape_char: None } => {
                self.any_of(expr, if *negated { "!~~*" } else { "~~*" }, pattern, false)
            }
            Ast::SimilarTo { negated, expr, pattern, escape_char } => {
                self.similar(*negated, expr, pattern, escape_char.as_deref())
            }
            Ast::AnyOp { left, compare_op, right, .. } => self.any_all(left, compare_op, right, false),
            Ast::AllOp { left, compare_op, right } => self.any_all(left, compare_op, right, true),
            Ast::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())
            }
            Ast::Exists { subquery, negated } => self.exists(subquery, *negated),
            Ast::Subquery(query) => self.scalar_subquery(query),
            Ast::Tuple(items) => {
                let items = items.iter().map(|i| self.typed(i)).collect::<Result<_>>()?;
                Ok(Expr::Row(items))
            }
            Ast::Array(array) => self.array(&array.elem),
            Ast::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain),
            Ast::Function(function) => self.function(function),
            Ast::AtTimeZone { timestamp, time_zone } => {
                let args = vec![self.expr(time_zone)?, self.expr(timestamp)?];
                self.call_named("timezone", args)
            }
            Ast::Extract { field, expr, .. } => {
                let field = Expr::Literal(Datum::text(field.to_string().to_lowercase()), DataType::Text);
                let value = self.expr(expr)?;
                let name = if crate::functions::is_function("extract") { "extract" } else { "date_part" };
                self.call_named(name, vec![field, value])
            }
            Ast::Ceil { expr, field: ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime) } => {
                let arg = self.expr(expr)?;
                self.call_named("ceil", vec![arg])
            }
            Ast::Floor { expr, field: ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime) } => {
                let arg = self.expr(expr)?;
                self.call_named("floor", vec![arg])
            }
            Ast::Position { expr, r#in } => {
                let args = vec![self.expr(r#in)?, self.expr(expr)?];
                let name = if crate::functions::is_function("position") { "position" } else { "strpos" };
                self.call_named(name, args)
            }
            Ast::Substring { expr, substring_from, substring_for, shorthand, .. } => {
                let mut args = vec![self.expr(expr)?];
                match (substring_from, substring_for) {
                    (None, Some(_)) => args.push(Expr::Literal(Datum::Int4(1), DataType::Int4)),
                    (from, _) => {
                        if let Some(from) = from {
                            args.push(self.expr(from)?);
                        }
                    }
                }
                if let Some(count) = substring_for {
                    args.push(self.expr(count)?);
                }
                let short = *shorthand && crate::functions::is_function("substr");
                self.call_named(if short { "substr" } else { "substring" }, args)
            }
            Ast::Trim { trim_where, trim_what, expr, trim_characters } => {
                let name = match trim_where {
                    Some(ast::TrimWhereField::Leading) => "ltrim",
                    Some(ast::TrimWhereField::Trailing) => "rtrim",
                    _ => "btrim",
                };
                let mut args = vec![self.expr(expr)?];
                for what in trim_what.iter().map(|b| &**b).chain(trim_characters.iter().flatten()) {
                    args.push(self.expr(what)?);
                }
                self.call_named(name, args)
            }
            Ast::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
                let mut args = vec![self.expr(expr)?, self.expr(overlay_what)?, self.expr(overlay_from)?];
                if let Some(count) = overlay_for {
                    args.push(self.expr(count)?);
                }
                self.call_named("overlay", args)
            }
            Ast::Collate { expr, collation } => {
                self.collation(collation)?;
                self.expr(expr)
            }
            Ast::IsJson { .. } => Err(SqlError::syntax_error("syntax error at or near \"json\"")),
            other => {
                let text: String = other.to_string().chars().take(60).collect();
                let error = SqlError::feature_not_supported(format!("expression is not supported: {text}"));
                Err(self.at(error, other.span()))
            }
        }
    }

    /// Binds an expression and gives it a type.
    pub(super) fn typed(&mut self, e: &Ast) -> Result<Expr> {
        let expr = self.expr(e)?;
        self.settle(expr)
    }

    /// Binds a condition.
    pub(super) fn condition(&mut self, e: &Ast, what: &str) -> Result<Expr> {
        let expr = self.expr(e)?;
        self.boolean(expr, what).map_err(|error| self.at(error, e.span()))
    }

    /// A bare name, or one of the functions that are called without parentheses.
    fn identifier(&mut self, ident: &ast::Ident) -> Result<Expr> {
        if ident.quote_style.is_none()
            && let Some(bound) = self.niladic(&ident.value.to_lowercase())?
        {
            return Ok(bound);
        }
        self.bare_name(ident)
    }

    /// Only the collations that order by bytes exist here.
    fn collation(&self, name: &ast::ObjectName) -> Result<()> {
        let parts = name_parts(name)?;
        let last = parts.last().map(|i| fold(i)).unwrap_or_default();
        if matches!(last.as_str(), "default" | "C" | "POSIX" | "c" | "ucs_basic") {
            return Ok(());
        }
        let message = format!("collation \"{last}\" for encoding \"UTF8\" does not exist");
        Err(SqlError::undefined_object(message).with_hint("Text is ordered by its bytes; use COLLATE \"C\"."))
    }

    fn cast(&mut self, e: &Ast, data_type: &ast::DataType) -> Result<Expr> {
        let to = self.data_type(data_type)?;
        // ARRAY[]::int[] and ARRAY[…]::T[]: the elements take the target's type.
        if let (Ast::Array(array), DataType::Array(element)) = (unwrap_nested(e), &to) {
            let items = array.elem.iter().map(|i| self.expr(i)).collect::<Result<Vec<_>>>()?;
            if items.iter().all(|i| !matches!(i.ty(), DataType::Array(_))) {
                let items = items
                    .into_iter()
                    .map(|i| self.coerce(i, element, CastContext::Explicit))
                    .collect::<Result<_>>()?;
                return Ok(Expr::Array { items, element: (**element).clone() });
            }
        }
        let input = self.expr(e)?;
        self.coerce(input, &to, CastContext::Explicit).map_err(|error| self.at(error, e.span()))
    }

    /// AND and OR, flattened along their left side without recursion.
    fn connective(&mut self, e: &Ast, op: &BinaryOperator) -> Result<Expr> {
        let mut operands = Vec::new();
        let mut rest = e;
        while let Ast::BinaryOp { left, op: o, right } = rest {
            if o != op {
                break;
            }
            operands.push(&**right);
            rest = left;
        }
        operands.push(rest);
        let is_and = *op == BinaryOperator::And;
        let what = if is_and { "AND" } else { "OR" };
        let mut bound = Vec::with_capacity(operands.len());
        for operand in operands.into_iter().rev() {
            match self.condition(operand, what)? {
                Expr::And(inner) if is_and => bound.extend(inner),
                Expr::Or(inner) if !is_and => bound.extend(inner),
                other => bound.push(other),
            }
        }
        Ok(if is_and { Expr::And(bound) } else { Expr::Or(bound) })
    }

    fn case(
        &mut self,
        operand: Option<&Ast>,
        conditions: &[ast::CaseWhen],
        otherwise: Option<&Ast>,
    ) -> Result<Expr> {
        let mut tests = Vec::with_capacity(conditions.len());
        let mut values = Vec::with_capacity(conditions.len() + 1);
        let operand = operand.map(|o| self.expr(o)).transpose()?;
        for when in conditions {
            tests.push(match &operand {
                Some(operand) => {
                    let value = self.expr(&when.condition)?;
                    self.operator("=", Some(operand.clone()), value)?
                }
                None => self.condition(&when.condition, "CASE/WHEN")?,
            });
            values.push(self.expr(&when.result)?);
        }
        // ELSE counts first when a type is chosen that all share.
        let otherwise = match otherwise {
            Some(otherwise) => self.expr(otherwise)?,
            None => Expr::Literal(Datum::Null, DataType::Unknown),
        };
        values.insert(0, otherwise);
        let (mut values, ty) = self.unify(values, "CASE")?;
        let otherwise = values.remove(0);
        let branches = tests.into_iter().zip(values).collect();
        Ok(Expr::Case { branches, otherwise: Box::new(otherwise), ty })
    }

    fn array(&mut self, elements: &[Ast]) -> Result<Expr> {
        if elements.is_empty() {
            return Err(SqlError::indeterminate_datatype("cannot determine type of empty array")
                .with_hint("Explicitly cast to the desired type, for example ARRAY[]::integer[]."));
        }
        let items = elements.iter().map(|e| self.expr(e)).collect::<Result<_>>()?;
        let (items, element) = self.unify(items, "ARRAY")?;
        if matches!(element, DataType::Array(_)) {
            return Ok(Expr::Call { function: &crate::functions::STACK, args: items, ty: element });
        }
        Ok(Expr::Array { items, element })
    }

    /// `a[1]`, `(row).field`
    fn access(&mut self, root: &Ast, chain: &[ast::AccessExpr]) -> Result<Expr> {
        // `t.a[1]` names a column of a relation, even if a column is called `t` too.
        let mut name = Vec::new();
        if let Ast::Identifier(first) = root {
            let parts = chain.iter().map_while(|access| match access {
                ast::AccessExpr::Dot(Ast::Identifier(part)) if !super::record::is_star(part) => Some(part),
                _ => None,
            });
            name = std::iter::once(first).chain(parts).cloned().collect();
        }
        let (mut bound, chain) = match name.len() {
            0 | 1 => (self.expr(root)?, chain),
            n => (self.expr(&Ast::CompoundIdentifier(name))?, chain.get(n - 1..).unwrap_or_default()),
        };
        let mut next = 0;
        while let Some(access) = chain.get(next) {
            next += 1;
            if let (DataType::Array(element), ast::AccessExpr::Subscript(_)) = (bound.ty().base(), access) {
                // All of them together: a second subscript is of a second dimension.
                let run =
                    chain[next..].iter().take_while(|a| matches!(a, ast::AccessExpr::Subscript(_))).count();
                let subscripts = &chain[next - 1..next + run];
                next += run;
                bound = self.subscripts(bound, &element, subscripts)?;
                continue;
            }
            bound = match access {
                ast::AccessExpr::Subscript(ast::Subscript::Index { index }) => {
                    let index = self.expr(index)?;
                    self.subscript(bound, index)?
                }
                ast::AccessExpr::Subscript(ast::Subscript::Slice { .. }) => {
                    return Err(match bound.ty().base() {
                        DataType::Jsonb => {
                            SqlError::datatype_mismatch("jsonb subscript does not support slices")
                        }
                        other => not_subscriptable(&other),
                    });
                }
                ast::AccessExpr::Dot(Ast::Identifier(name)) if super::record::is_star(name) => bound,
                ast::AccessExpr::Dot(Ast::Identifier(name)) => self.select_field(bound, name)?,
                ast::AccessExpr::Dot(_) => {
                    return Err(SqlError::feature_not_supported("this field selection is not supported"));
                }
            };
        }
        Ok(bound)
    }

    /// `array[i]`, `array[i][j]`, `array[low:high]…`. If one of them is a slice, all are: `[n]` is `[1:n]`.
    fn subscripts(&mut self, array: Expr, element: &DataType, chain: &[ast::AccessExpr]) -> Result<Expr> {
        let subscripts = chain.iter().map(|access| match access {
            ast::AccessExpr::Subscript(subscript) => Ok(subscript),
            ast::AccessExpr::Dot(_) => Err(SqlError::internal("a field among subscripts")),
        });
        let subscripts = subscripts.collect::<Result<Vec<_>>>()?;
        if subscripts.len() > MAX_DIMENSIONS {
            return Err(crate::types::too_many_dimensions(subscripts.len()));
        }
        if let [ast::Subscript::Index { index }] = subscripts[..] {
            let index = self.expr(index)?;
            return self.subscript(array, index);
        }
        let sliced = subscripts.iter().any(|s| matches!(s, ast::Subscript::Slice { .. }));
        let ty = if sliced { array.ty().base() } else { element.clone() };
        let int = |n: i32| Expr::Literal(Datum::Int4(n), DataType::Int4);
        let mut args = vec![array];
        for subscript in subscripts {
            match subscript {
                ast::Subscript::Index { index } => {
                    if sliced {
                        args.push(int(1));
                    }
                    args.push(self.subscript_bound(Some(index), 0)?);
                }
                ast::Subscript::Slice { lower_bound, upper_bound, stride: None } => {
                    args.push(self.subscript_bound(lower_bound.as_ref(), i32::MIN)?);
                    args.push(self.subscript_bound(upper_bound.as_ref(), i32::MAX)?);
                }
                ast::Subscript::Slice { .. } => return Err(SqlError::syntax_error("a slice has two bounds")),
            }
        }
        let function = if sliced { &crate::functions::SLICE } else { &crate::functions::SUBSCRIPTS };
        Ok(Expr::Call { function, args, ty })
    }

    /// A subscript, or what stands for one that is not written.
    pub(super) fn subscript_bound(&mut self, e: Option<&Ast>, absent: i32) -> Result<Expr> {
        match e {
            None => Ok(Expr::Literal(Datum::Int4(absent), DataType::Int4)),
            Some(e) => {
                let e = self.expr(e)?;
                self.coerce(e, &DataType::Int4, CastContext::Assignment)
            }
        }
    }

    fn subscript(&mut self, array: Expr, index: Expr) -> Result<Expr> {
        match array.ty().base() {
            DataType::Array(element) => {
                let index = self.coerce(index, &DataType::Int4, CastContext::Assignment)?;
                Ok(Expr::Subscript { array: Box::new(array), index: Box::new(index), ty: *element })
            }
            vector @ (DataType::Int2vector | DataType::Oidvector) => {
                let one = Expr::Literal(Datum::Int4(1), DataType::Int4);
                let index = self.coerce(index, &DataType::Int4, CastContext::Assignment)?;
                let index = self.operator("+", Some(index), one)?;
                let ty = vector.element().unwrap_or(DataType::Unknown);
                Ok(Expr::Subscript { array: Box::new(array), index: Box::new(index), ty })
            }
            DataType::Jsonb => self.operator("->", Some(array), index),
            // A name is an array of characters, counted from 0.
            DataType::Name => {
                let one = || Expr::Literal(Datum::Int4(1), DataType::Int4);
                let index = self.coerce(index, &DataType::Int4, CastContext::Assignment)?;
                let index = self.operator("+", Some(index), one())?;
                let text = self.coerce(array, &DataType::Text, CastContext::Implicit)?;
                let character = self.call_named("substr", vec![text, index, one()])?;
                self.coerce(character, &DataType::InternalChar, CastContext::Explicit)
            }
            other => Err(not_subscriptable(&other)),
        }
    }

    /// An expression that sees no row at all.
    pub(super) fn constant_expr(&mut self, e: &Ast, _what: &str) -> Result<Expr> {
        let level = Level::new(Scope::default(), Clause::Constant);
        let (expr, _) = self.in_level(level, |b| b.typed(e))?;
        Ok(expr)
    }

    /// A stored DEFAULT or CHECK, over the columns of its table.
    pub(super) fn stored_expr(
        &mut self,
        sql: &str,
        table: Option<&Arc<Table>>,
        ty: &DataType,
    ) -> Result<Expr> {
        let tree = parser::parse_expression(sql)?;
        self.table_expr(&tree, table, ty, if table.is_some() { Clause::Check } else { Clause::Default })
    }

    /// An expression over the columns of one table, cast to a type.
    pub(super) fn table_expr(
        &mut self,
        tree: &Ast,
        table: Option<&Arc<Table>>,
        ty: &DataType,
        clause: Clause,
    ) -> Result<Expr> {
        let scope = match table {
            Some(table) => {
                let fields: Vec<Field> = table_fields(table);
                Scope::relation(table.name.clone(), Some(table.schema.clone()), &fields)
            }
            None => Scope::default(),
        };
        let positions = self.positions.take();
        let bound = self.in_level(Level::new(scope, clause), |b| {
            let expr = b.expr(tree)?;
            b.coerce(expr, ty, CastContext::Assignment)
        });
        self.positions = positions;
        Ok(bound?.0)
    }
}

/// The fields of all columns of a table, the hidden key too.
pub(super) fn table_fields(table: &Table) -> Vec<Field> {
    let field = |(i, column): (usize, &amphora_storage::schema::Column)| Field {
        name: column.name.clone(),
        ty: column.ty.base(),
        origin: Some((table.id.0, table.attribute_number(i))),
    };
    table.columns.iter().enumerate().map(field).collect()
}

/// Without its parentheses.
pub(super) fn unwrap_nested(mut e: &Ast) -> &Ast {
    while let Ast::Nested(inner) = e {
        e = inner;
    }
    e
}

fn not_subscriptable(ty: &DataType) -> SqlError {
    SqlError::datatype_mismatch(format!(
        "cannot subscript type {} because it does not support subscripting",
        super::coerce::type_name(ty)
    ))
}

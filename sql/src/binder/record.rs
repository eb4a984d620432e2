//! Rows as values: their fields' names, `(row).field`, `(row).*`.
//!
//! A row that FROM gives carries its columns' names in its type ([`DataType::Row`]), through subqueries and
//! functions, to whoever asks for a field or makes an object of it.

use amphora_storage::{DataType, Datum};
use sqlparser::ast;

use super::select::Item;
use super::{Binder, fold};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::functions::FIELD;

/// A row under a type that names its fields.
pub(super) fn named(row: Expr, ty: &DataType) -> Expr {
    Expr::Cast { input: Box::new(row), from: DataType::Record, to: ty.clone(), explicit: false }
}

/// The expressions of a row's fields, where they are at hand.
pub(super) fn parts(row: &Expr) -> Option<&[Expr]> {
    match row {
        Expr::Row(items) => Some(items),
        Expr::Cast { input, to, .. } if to.is_record() => parts(input),
        // A table's whole row, NULL where its key is: then its fields are NULL too.
        Expr::Case { branches, otherwise, ty } if ty.is_record() => match (&branches[..], &**otherwise) {
            ([(_, row)], Expr::Literal(Datum::Null, _)) => parts(row),
            _ => None,
        },
        _ => None,
    }
}

/// The items of a row that is written out: `(a, b)`, `ROW(a)`.
pub(super) fn row_items(e: &ast::Expr) -> Option<Vec<&ast::Expr>> {
    use ast::{FunctionArg, FunctionArgExpr, FunctionArguments};
    match super::expr::unwrap_nested(e) {
        ast::Expr::Tuple(items) => Some(items.iter().collect()),
        ast::Expr::Function(call) if call.name.to_string().eq_ignore_ascii_case("row") => {
            let FunctionArguments::List(list) = &call.args else { return None };
            let item = |arg| match arg {
                &FunctionArg::Unnamed(FunctionArgExpr::Expr(ref e)) => Some(e),
                _ => None,
            };
            list.args.iter().map(item).collect()
        }
        _ => None,
    }
}

/// The field at a position.
fn field(row: &Expr, position: usize, ty: &DataType) -> Expr {
    if let Some(part) = parts(row).and_then(|parts| parts.get(position)) {
        return part.clone();
    }
    let index = Expr::Literal(Datum::Int4(i32::try_from(position).unwrap_or(i32::MAX)), DataType::Int4);
    Expr::Call { function: &FIELD, args: vec![row.clone(), index], ty: ty.clone() }
}

impl Binder<'_> {
    /// `(row).name`. 42703, 42809.
    pub(super) fn select_field(&mut self, row: Expr, name: &ast::Ident) -> Result<Expr> {
        let folded = fold(name);
        let ty = row.ty();
        let Some(fields) = ty.fields() else {
            let shown = super::coerce::type_name(&ty);
            let error = if ty.is_record() {
                SqlError::undefined_column(format!(
                    "could not identify column \"{folded}\" in record data type"
                ))
            } else {
                SqlError::wrong_object_type(format!(
                    "column notation .{folded} applied to type {shown}, which is not a composite type"
                ))
            };
            return Err(self.at(error, name.span));
        };
        match fields.iter().position(|(n, _)| *n == folded) {
            Some(position) => Ok(field(&row, position, &fields[position].1)),
            None => {
                let message = format!("could not identify column \"{folded}\" in record data type");
                Err(self.at(SqlError::undefined_column(message), name.span))
            }
        }
    }

    /// `(row).*` of a SELECT list.
    pub(super) fn every_field(&mut self, row: &Expr) -> Result<Vec<Item>> {
        let ty = row.ty();
        let Some(fields) = ty.fields() else {
            return Err(SqlError::wrong_object_type(format!(
                "type {} is not composite",
                super::coerce::type_name(&ty)
            )));
        };
        let item = |(i, (name, ty)): (usize, &(String, DataType))| Item {
            expr: field(row, i, ty),
            name: name.clone(),
            origin: None,
        };
        Ok(fields.iter().enumerate().map(item).collect())
    }
}

/// True of the star that stands for all fields of a row; the parser's tokens were rewritten to it.
pub(super) fn is_star(ident: &ast::Ident) -> bool {
    ident.quote_style.is_none() && ident.value == "*"
}

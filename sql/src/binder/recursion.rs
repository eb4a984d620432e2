//! SEARCH and CYCLE of a recursive WITH query (PostgreSQL manual, section 7.8.2).
//!
//! Each adds columns behind the query's own. What the base gives begins them, and the step makes them longer
//! from the row it comes from:
//!
//! ```text
//!                    base                      step, from row r of the query
//!   DEPTH FIRST      ARRAY[ROW(by)]            r.column || ROW(by)
//!   BREADTH FIRST    ROW(0, by)                ROW(r.depth + 1, by)
//!   CYCLE  mark      default                   CASE WHEN ROW(by) = ANY (r.path) THEN value ELSE default END
//!          path      ARRAY[ROW(by)]            r.path || ROW(by)           only rows r with r.mark <> value
//! ```
//!
//! The step's SELECT is bound with the added columns of r in its list, behind its own.

use std::sync::Arc;

use amphora_storage::{DataType, Datum};
use sqlparser::ast;
use sqlparser::ast::{SelectItem, SetExpr, TableFactor};

use super::query::project;
use super::{Binder, fold};
use crate::error::{Result, SqlError};
use crate::expr::Expr;
use crate::parser::{self, Cycle, Recursion, Search};
use crate::plan::{Field, Plan};
use crate::types::CastContext;

/// A column that is added.
struct Added {
    name: String,
    ty: DataType,
    /// Over the base's row
    first: Expr,
    /// Over the step's row, behind which stand the added columns of the row it comes from
    next: Expr,
}

/// What both clauses add.
pub(super) struct Additions {
    columns: Vec<Added>,
    /// Over the step's row: the row it comes from is no cycle's end
    goes_on: Option<Expr>,
}

fn wrong(message: String) -> SqlError {
    SqlError::syntax_error(message)
}

/// The columns by which rows are ordered or compared, as one value.
fn row_of(fields: &[Field], by: &[String], clause: &str) -> Result<(Expr, Vec<(String, DataType)>)> {
    let (mut items, mut parts) = (Vec::with_capacity(by.len()), Vec::with_capacity(by.len()));
    for (i, name) in by.iter().enumerate() {
        if by[..i].contains(name) {
            return Err(SqlError::duplicate_column(format!(
                "{clause} column \"{name}\" specified more than once"
            )));
        }
        let Some(position) = fields.iter().position(|f| f.name == *name) else {
            return Err(wrong(format!("{clause} column \"{name}\" not in WITH query column list")));
        };
        items.push(Expr::Column(position, fields[position].ty.base()));
        parts.push((format!("f{}", i + 1), fields[position].ty.base()));
    }
    Ok((Expr::Row(items), parts))
}

impl Additions {
    /// The query's columns and the added ones.
    pub(super) fn fields(&self, own: &[Field]) -> Arc<[Field]> {
        let added =
            self.columns.iter().map(|c| Field { name: c.name.clone(), ty: c.ty.clone(), origin: None });
        own.iter().cloned().chain(added).collect()
    }

    /// How many columns are added.
    pub(super) fn width(&self) -> usize {
        self.columns.len()
    }

    /// The base with the added columns.
    pub(super) fn begin(&self, base: Plan) -> Plan {
        let schema = self.fields(&base.schema);
        let mut exprs: Vec<Expr> =
            base.schema.iter().enumerate().map(|(i, f)| Expr::Column(i, f.ty.clone())).collect();
        exprs.extend(self.columns.iter().map(|c| c.first.clone()));
        project(base, exprs, schema)
    }

    /// The step with the added columns; its row has those of the row it comes from behind its own.
    pub(super) fn go_on(&self, step: Plan) -> Plan {
        let width = step.width() - self.columns.len();
        let step = match &self.goes_on {
            Some(condition) => super::select::filter(step, condition.clone()),
            None => step,
        };
        let schema = self.fields(&step.schema[..width]);
        let mut exprs: Vec<Expr> =
            step.schema[..width].iter().enumerate().map(|(i, f)| Expr::Column(i, f.ty.clone())).collect();
        exprs.extend(self.columns.iter().map(|c| c.next.clone()));
        project(step, exprs, schema)
    }
}

impl Binder<'_> {
    /// What SEARCH and CYCLE add to a query of these columns.
    pub(super) fn additions(&mut self, clauses: &Recursion, fields: &[Field]) -> Result<Additions> {
        let mut additions = Additions { columns: Vec::new(), goes_on: None };
        if let Some(search) = &clauses.search {
            self.check_new(fields, &search.column, "search sequence")?;
            additions.columns.push(self.search(search, fields)?);
        }
        if let Some(cycle) = &clauses.cycle {
            self.check_new(fields, &cycle.mark, "cycle mark")?;
            self.check_new(fields, &cycle.path, "cycle path")?;
            if cycle.mark == cycle.path {
                return Err(wrong("cycle mark column name and cycle path column name are the same".into()));
            }
            for (what, name) in [("cycle mark", &cycle.mark), ("cycle path", &cycle.path)] {
                if clauses.search.as_ref().is_some_and(|s| s.column == *name) {
                    return Err(wrong(format!(
                        "search sequence column name and {what} column name are the same"
                    )));
                }
            }
            self.cycle(cycle, fields, &mut additions)?;
        }
        Ok(additions)
    }

    fn check_new(&self, fields: &[Field], name: &str, what: &str) -> Result<()> {
        if fields.iter().any(|f| f.name == name) {
            let message = format!("{what} column name \"{name}\" already used in WITH query column list");
            return Err(wrong(message));
        }
        Ok(())
    }

    fn search(&mut self, search: &Search, fields: &[Field]) -> Result<Added> {
        let (row, parts) = row_of(fields, &search.by, "search")?;
        let before = fields.len();
        if search.depth_first {
            let ty = DataType::Record.array();
            let next = self.longer(Expr::Column(before, ty.clone()), &row);
            let first = Expr::Array { items: vec![row], element: DataType::Record };
            return Ok(Added { name: search.column.clone(), ty, first, next });
        }
        let depths = [("f1".to_owned(), DataType::Int8)];
        let all = depths.into_iter().chain(parts.into_iter().map(|(_, ty)| (String::new(), ty)));
        let ty = DataType::Row(all.enumerate().map(|(i, (_, ty))| (format!("f{}", i + 1), ty)).collect());
        let with_depth = |depth: Expr| {
            let mut items = vec![depth];
            if let Expr::Row(by) = &row {
                items.extend(by.iter().cloned());
            }
            Expr::Row(items)
        };
        let one = |n: i64| Expr::Literal(Datum::Int8(n), DataType::Int8);
        let depth = Expr::Call {
            function: &crate::functions::FIELD,
            args: vec![Expr::Column(before, ty.clone()), Expr::Literal(Datum::Int4(0), DataType::Int4)],
            ty: DataType::Int8,
        };
        let deeper = self.operator("+", Some(depth), one(1))?;
        let next = with_depth(deeper);
        Ok(Added { name: search.column.clone(), ty, first: with_depth(one(0)), next })
    }

    fn cycle(&mut self, cycle: &Cycle, fields: &[Field], additions: &mut Additions) -> Result<()> {
        let (row, _) = row_of(fields, &cycle.by, "cycle")?;
        let (value, default) = match &cycle.values {
            None => [true, false].map(|b| Expr::Literal(Datum::Bool(b), DataType::Bool)).into(),
            Some((value, default)) => {
                let mut bound = Vec::with_capacity(2);
                for text in [value, default] {
                    bound.push(self.constant_expr(&parser::parse_expression(text)?, "CYCLE")?);
                }
                let (mut both, ty) = self.unify(bound, "CYCLE")?;
                if ty == DataType::Unknown {
                    both = both
                        .into_iter()
                        .map(|e| self.coerce(e, &DataType::Text, CastContext::Implicit))
                        .collect::<Result<_>>()?;
                }
                let default = both.pop();
                both.pop().zip(default).ok_or_else(|| SqlError::internal("CYCLE without its values"))?
            }
        };
        let (mark_ty, path_ty) = (value.ty().base(), DataType::Record.array());
        let mark_at = fields.len() + additions.columns.len();
        let path = Expr::Column(mark_at + 1, path_ty.clone());
        let known = crate::functions::resolve_operator("=", Some(&DataType::Record), &DataType::Record)?;
        let again = Expr::AnyAll {
            left: Box::new(row.clone()),
            function: known.function,
            array: Box::new(path.clone()),
            all: false,
        };
        let marked = Expr::Case {
            branches: vec![(again, value.clone())],
            otherwise: Box::new(default.clone()),
            ty: mark_ty.clone(),
        };
        let ends = self.operator("<>", Some(Expr::Column(mark_at, mark_ty.clone())), value)?;
        additions.goes_on = Some(ends);
        let longer = self.longer(path, &row);
        additions.columns.push(Added { name: cycle.mark.clone(), ty: mark_ty, first: default, next: marked });
        additions.columns.push(Added {
            name: cycle.path.clone(),
            ty: path_ty,
            first: Expr::Array { items: vec![row], element: DataType::Record },
            next: longer,
        });
        Ok(())
    }

    /// An array of rows with one more.
    fn longer(&mut self, array: Expr, row: &Expr) -> Expr {
        let ty = array.ty();
        Expr::Call { function: &crate::functions::APPEND_ROW, args: vec![array, row.clone()], ty }
    }
}

/// The step's SELECT with the added columns of the recursive reference behind its own. 42601 if that is not
/// in its FROM.
pub(super) fn carrying(step: &SetExpr, query: &str, added: &[String]) -> Result<SetExpr> {
    let apart =
        || wrong("with a SEARCH or CYCLE clause, the right side of the UNION must be a SELECT".to_owned());
    let SetExpr::Select(select) = step else { return Err(apart()) };
    let mut alias = None;
    for item in &select.from {
        for factor in std::iter::once(&item.relation).chain(item.joins.iter().map(|j| &j.relation)) {
            if let TableFactor::Table { name, alias: given, args: None, .. } = factor
                && let [part] = &name.0[..]
                && part.as_ident().is_some_and(|i| fold(i) == query)
            {
                alias = Some(given.as_ref().map_or_else(|| query.to_owned(), |a| fold(&a.name)));
            }
        }
    }
    let Some(alias) = alias else {
        return Err(SqlError::feature_not_supported(format!(
            "with a SEARCH or CYCLE clause, the recursive reference to WITH query \"{query}\" must be at the top level of its right-hand SELECT"
        )));
    };
    let mut select = (**select).clone();
    for name in added {
        let column = [&alias, name].map(|part| ast::Ident::with_quote('"', part));
        select.projection.push(SelectItem::UnnamedExpr(ast::Expr::CompoundIdentifier(column.to_vec())));
    }
    Ok(SetExpr::Select(Box::new(select)))
}

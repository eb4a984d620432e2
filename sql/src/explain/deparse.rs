//! Expressions back to SQL, for EXPLAIN.

use amphora_storage::{DataType, Datum};

use crate::catalog::quoted;
use crate::expr::{Expr, SubqueryKind};
use crate::plan::Field;
use crate::types::{FormatContext, to_text};

/// Prints expressions over rows of a schema.
pub(super) struct Deparser<'a> {
    schema: &'a [Field],
}

impl<'a> Deparser<'a> {
    pub(super) fn new(schema: &'a [Field]) -> Deparser<'a> {
        Deparser { schema }
    }

    pub(super) fn expr(&self, expr: &Expr) -> String {
        match expr {
            Expr::Literal(value, ty) => literal(value, ty),
            Expr::Column(position, _) => match self.schema.get(*position) {
                Some(field) => quoted(&field.name),
                None => format!("column{}", position + 1),
            },
            // An outer row's names are not at hand here.
            Expr::Outer { depth, position, .. } => format!("outer{depth}.column{}", position + 1),
            Expr::Parameter(index, _) => format!("${}", index + 1),
            Expr::Call { function, args, .. } => self.call(function.name, args),
            Expr::Cast { input, to, explicit, .. } => {
                let input = self.expr(input);
                if *explicit { format!("({input})::{to}") } else { input }
            }
            Expr::Domain { input, .. } => self.expr(input),
            Expr::And(args) => self.joined(args, " AND "),
            Expr::Or(args) => self.joined(args, " OR "),
            Expr::Not(input) => format!("(NOT {})", self.expr(input)),
            Expr::IsNull { input, negated } => {
                format!("({} IS {}NULL)", self.expr(input), if *negated { "NOT " } else { "" })
            }
            Expr::IsBool { input, value, negated } => {
                let value = match value {
                    Some(true) => "TRUE",
                    Some(false) => "FALSE",
                    None => "UNKNOWN",
                };
                format!("({} IS {}{value})", self.expr(input), if *negated { "NOT " } else { "" })
            }
            Expr::IsDistinct { left, right, negated } => {
                let not = if *negated { "NOT " } else { "" };
                format!("({} IS {not}DISTINCT FROM {})", self.expr(left), self.expr(right))
            }
            Expr::Case { branches, otherwise, .. } => {
                let branches: Vec<String> = branches
                    .iter()
                    .map(|(when, then)| format!("WHEN {} THEN {}", self.expr(when), self.expr(then)))
                    .collect();
                format!("CASE {} ELSE {} END", branches.join(" "), self.expr(otherwise))
            }
            Expr::Coalesce(args, _) => format!("COALESCE({})", self.list(args)),
            Expr::Extreme { greatest, args, .. } => {
                format!("{}({})", if *greatest { "GREATEST" } else { "LEAST" }, self.list(args))
            }
            Expr::InList { input, list, negated } => {
                let (op, quantifier) = if *negated { ("<>", "ALL") } else { ("=", "ANY") };
                format!("({} {op} {quantifier} (ARRAY[{}]))", self.expr(input), self.list(list))
            }
            Expr::AnyAll { left, function, array, all } => {
                let quantifier = if *all { "ALL" } else { "ANY" };
                format!("({} {} {quantifier} ({}))", self.expr(left), function.name, self.expr(array))
            }
            Expr::Subquery(subquery) => match &subquery.kind {
                SubqueryKind::Exists => "(EXISTS (subplan))".into(),
                SubqueryKind::AnyAll { left, function, all } => {
                    let quantifier = if *all { "ALL" } else { "ANY" };
                    format!("({} {} {quantifier} (subplan))", self.expr(left), function.name)
                }
                SubqueryKind::Scalar | SubqueryKind::Array => "(subplan)".into(),
            },
            Expr::Array { items, .. } => format!("ARRAY[{}]", self.list(items)),
            Expr::Row(fields) => format!("ROW({})", self.list(fields)),
            Expr::Subscript { array, index, .. } => format!("{}[{}]", self.expr(array), self.expr(index)),
        }
    }

    fn call(&self, name: &str, args: &[Expr]) -> String {
        let is_operator = !name.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        match args {
            [left, right] if is_operator => format!("({} {name} {})", self.expr(left), self.expr(right)),
            [operand] if is_operator => format!("({name} {})", self.expr(operand)),
            args => format!("{name}({})", self.list(args)),
        }
    }

    fn list(&self, exprs: &[Expr]) -> String {
        exprs.iter().map(|e| self.expr(e)).collect::<Vec<_>>().join(", ")
    }

    fn joined(&self, exprs: &[Expr], with: &str) -> String {
        format!("({})", exprs.iter().map(|e| self.expr(e)).collect::<Vec<_>>().join(with))
    }
}

fn literal(value: &Datum, ty: &DataType) -> String {
    let text = || to_text(value, &ty.base(), &FormatContext::default());
    match value {
        Datum::Null => format!("NULL::{ty}"),
        Datum::Bool(b) => b.to_string(),
        Datum::Int4(_) | Datum::Numeric(_) => text(),
        _ => format!("'{}'::{ty}", text().replace('\'', "''")),
    }
}

//! Bound expressions back to SQL, worded as PostgreSQL words them (`ruleutils.c`): what `pg_get_indexdef`,
//! `pg_get_constraintdef` and psql's `\d` show.
//!
//! There are two ways to print. Plainly, every operator stands in parentheses of its own; pretty (the last
//! argument of `pg_get_expr` is true), only where its surroundings need them:
//!
//! ```text
//!   plain    ((a + b) > (c)::bigint)         pretty   (a + b) > c::bigint
//! ```
//!
//! Implicit casts are shown within operators and calls, and nowhere else.

use amphora_storage::{DataType, Datum};

use crate::catalog::quoted;
use crate::expr::Expr;
use crate::functions::{ScalarFunction, Ty};
use crate::types::{CastContext, FormatContext, cast, to_text};

/// How far the parts of a CASE stand in.
const INDENT: usize = 4;

/// Words that are functions' names and keywords too.
const QUOTED_NAMES: [&str; 12] = [
    "substring",
    "position",
    "overlay",
    "left",
    "right",
    "trim",
    "char",
    "time",
    "timestamp",
    "interval",
    "values",
    "row",
];

/// Prints expressions over the columns of one row.
pub(crate) struct Deparser<'a> {
    /// The columns' names
    pub(crate) names: &'a dyn Fn(usize) -> String,
    /// Which of them are of type `varchar`
    pub(crate) is_varchar: &'a dyn Fn(usize) -> bool,
    /// Only the parentheses that are needed
    pub(crate) pretty: bool,
}

/// Prints an expression over a table's row.
pub(crate) fn over_table(table: &amphora_storage::schema::Table, e: &Expr, pretty: bool) -> String {
    let names = |position: usize| match table.columns.get(position) {
        Some(column) => quoted(&column.name),
        None => format!("column{}", position + 1),
    };
    let is_varchar = |position: usize| {
        table.columns.get(position).is_some_and(|c| matches!(c.ty.base(), DataType::Varchar(_)))
    };
    Deparser { names: &names, is_varchar: &is_varchar, pretty }.text(e)
}

/// True of what looks like a function call, which needs no parentheses in an index's definition.
pub(crate) fn looks_like_function(e: &Expr) -> bool {
    match e {
        Expr::Call { function, .. } => !is_operator(function.name),
        Expr::Coalesce(..) | Expr::Extreme { .. } => true,
        _ => false,
    }
}

fn is_operator(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// What stands around an expression.
#[derive(Clone, Copy)]
enum Around<'a> {
    /// An operator with these operands
    Operator(&'a Expr),
    /// AND, OR
    Junction { or: bool },
    /// NOT
    Not,
    /// A cast
    Cast,
    /// Anything else that needs parentheses around operators
    Other,
}

impl Deparser<'_> {
    /// The expression's text.
    pub(crate) fn text(&self, e: &Expr) -> String {
        let mut out = String::new();
        self.expr(e, false, 0, &mut out);
        out
    }

    /// In the parentheses that a pretty text needs.
    fn within(&self, e: &Expr, around: Around<'_>, implicit: bool, indent: usize, out: &mut String) {
        let parentheses = self.pretty && !is_simple(e, around);
        if parentheses {
            out.push('(');
        }
        self.expr(e, implicit, indent, out);
        if parentheses {
            out.push(')');
        }
    }

    /// In its own parentheses, unless the text is pretty.
    fn own(&self, out: &mut String, inside: impl FnOnce(&mut String)) {
        if !self.pretty {
            out.push('(');
        }
        inside(out);
        if !self.pretty {
            out.push(')');
        }
    }

    fn expr(&self, e: &Expr, implicit: bool, indent: usize, out: &mut String) {
        match e {
            Expr::Literal(value, ty) => out.push_str(&literal(value, ty, true)),
            // A varchar taken as text is a column of another type.
            Expr::Column(position, DataType::Text) if implicit && (self.is_varchar)(*position) => {
                let name = (self.names)(*position);
                let name = if self.pretty { name } else { format!("({name})") };
                out.push_str(&format!("{name}::text"));
            }
            Expr::Column(position, _) => out.push_str(&(self.names)(*position)),
            Expr::Outer { depth, position, .. } => {
                out.push_str(&format!("outer{depth}.column{}", position + 1));
            }
            Expr::Parameter(index, _) => out.push_str(&format!("${}", index + 1)),
            Expr::Call { function, args, .. } if takes_text(function, args) => {
                let args = function.signature.args.iter().zip(args).map(|(ty, arg)| as_text(*ty, arg));
                self.call(e, function.name, &args.collect::<Vec<_>>(), indent, out);
            }
            Expr::Call { function, args, .. } => self.call(e, function.name, args, indent, out),
            Expr::Cast { input, explicit, .. }
                if !explicit && !implicit && !matches!(**input, Expr::Literal(Datum::Text(_), _)) =>
            {
                self.within(input, Around::Cast, false, indent, out);
            }
            Expr::Cast { input, to, .. } => self.cast(input, &shown_type(to), Some(to), indent, out),
            Expr::Domain { input, .. } => self.expr(input, implicit, indent, out),
            Expr::And(args) => self.junction(args, false, indent, out),
            Expr::Or(args) => self.junction(args, true, indent, out),
            Expr::Not(input) => self.own(out, |out| {
                out.push_str("NOT ");
                self.within(input, Around::Not, false, indent, out);
            }),
            Expr::IsNull { input, negated } => {
                self.tested(input, if *negated { " IS NOT NULL" } else { " IS NULL" }, indent, out);
            }
            Expr::IsBool { input, value, negated } => {
                let value = match value {
                    Some(true) => "TRUE",
                    Some(false) => "FALSE",
                    None => "UNKNOWN",
                };
                let not = if *negated { "NOT " } else { "" };
                self.tested(input, &format!(" IS {not}{value}"), indent, out);
            }
            Expr::IsDistinct { left, right, negated } => {
                let distinct = |out: &mut String| {
                    self.own(out, |out| {
                        self.within(left, Around::Other, true, indent, out);
                        out.push_str(" IS DISTINCT FROM ");
                        self.within(right, Around::Other, true, indent, out);
                    });
                };
                match negated {
                    false => distinct(out),
                    true => self.own(out, |out| {
                        out.push_str("NOT ");
                        distinct(out);
                    }),
                }
            }
            Expr::Case { branches, otherwise, .. } => {
                let line = |out: &mut String, indent: usize, word: &str| {
                    out.truncate(out.trim_end_matches(' ').len());
                    out.push('\n');
                    out.extend(std::iter::repeat_n(' ', indent));
                    out.push_str(word);
                };
                line(out, indent, "CASE");
                for (when, then) in branches {
                    line(out, indent + INDENT, "WHEN ");
                    self.expr(when, false, indent + INDENT, out);
                    out.push_str(" THEN ");
                    self.expr(then, true, indent + INDENT, out);
                }
                line(out, indent + INDENT, "ELSE ");
                self.expr(otherwise, true, indent + INDENT, out);
                line(out, indent, "END");
            }
            Expr::Coalesce(args, _) => self.named("COALESCE", args, indent, out),
            Expr::Extreme { greatest, args, .. } => {
                self.named(if *greatest { "GREATEST" } else { "LEAST" }, args, indent, out);
            }
            Expr::InList { input, list, negated } => self.own(out, |out| {
                self.within(&as_text(Ty::Text, input), Around::Other, true, indent, out);
                out.push_str(if *negated { " <> ALL (" } else { " = ANY (" });
                self.in_list(input, list, indent, out);
                out.push(')');
            }),
            Expr::AnyAll { left, function, array, all } => self.own(out, |out| {
                self.within(left, Around::Other, true, indent, out);
                out.push_str(&format!(" {} {} (", function.name, if *all { "ALL" } else { "ANY" }));
                self.within(array, Around::Other, true, indent, out);
                out.push(')');
            }),
            Expr::Subquery(_) => out.push_str("(SELECT …)"),
            Expr::Array { items, .. } => self.array(items, indent, out),
            Expr::Row(fields) => self.named("ROW", fields, indent, out),
            Expr::Subscript { array, index, .. } => {
                let plain = matches!(**array, Expr::Column(..) | Expr::Parameter(..));
                if !plain {
                    out.push('(');
                }
                self.expr(array, true, indent, out);
                if !plain {
                    out.push(')');
                }
                out.push('[');
                self.expr(index, false, indent, out);
                out.push(']');
            }
        }
    }

    fn tested(&self, input: &Expr, test: &str, indent: usize, out: &mut String) {
        self.own(out, |out| {
            self.within(input, Around::Other, true, indent, out);
            out.push_str(test);
        });
    }

    fn junction(&self, args: &[Expr], or: bool, indent: usize, out: &mut String) {
        self.own(out, |out| {
            for (i, arg) in args.iter().enumerate() {
                if i > 0 {
                    out.push_str(if or { " OR " } else { " AND " });
                }
                self.within(arg, Around::Junction { or }, false, indent, out);
            }
        });
    }

    fn call(&self, e: &Expr, name: &str, args: &[Expr], indent: usize, out: &mut String) {
        match args {
            [left, right] if is_operator(name) => self.own(out, |out| {
                self.within(left, Around::Operator(e), true, indent, out);
                out.push_str(&format!(" {name} "));
                self.within(right, Around::Operator(e), true, indent, out);
            }),
            [operand] if is_operator(name) => self.own(out, |out| {
                out.push_str(&format!("{name} "));
                self.within(operand, Around::Operator(e), true, indent, out);
            }),
            [Expr::Literal(Datum::Text(field), _), from] if name == "extract" => {
                out.push_str(&format!("EXTRACT({field} FROM "));
                self.expr(from, false, indent, out);
                out.push(')');
            }
            [zone, of] if name == "timezone" => {
                out.push('(');
                self.within(of, Around::Other, false, indent, out);
                out.push_str(" AT TIME ZONE ");
                self.within(zone, Around::Other, false, indent, out);
                out.push(')');
            }
            args if QUOTED_NAMES.contains(&name) => self.named(&format!("\"{name}\""), args, indent, out),
            args => self.named(name, args, indent, out),
        }
    }

    fn named(&self, name: &str, args: &[Expr], indent: usize, out: &mut String) {
        out.push_str(name);
        out.push('(');
        self.list(args, indent, out);
        out.push(')');
    }

    fn list(&self, args: &[Expr], indent: usize, out: &mut String) {
        for (i, arg) in args.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            self.expr(arg, true, indent, out);
        }
    }

    fn array(&self, items: &[Expr], indent: usize, out: &mut String) {
        out.push_str("ARRAY[");
        self.list(items, indent, out);
        out.push(']');
    }

    /// The list of an IN. What is compared with a `varchar` was one itself before both became `text`.
    fn in_list(&self, input: &Expr, list: &[Expr], indent: usize, out: &mut String) {
        let varchar = match input {
            Expr::Cast { from, to: DataType::Text, explicit: false, .. } => {
                matches!(from.base(), DataType::Varchar(_))
            }
            other => matches!(other.ty().base(), DataType::Varchar(_)),
        };
        let texts = list.iter().all(|e| matches!(e, Expr::Literal(Datum::Text(_), _)));
        if !varchar || !texts {
            return self.array(list, indent, out);
        }
        let ty = DataType::Varchar(None);
        let items: Vec<Expr> = list
            .iter()
            .map(|e| match e {
                Expr::Literal(value, _) => Expr::Literal(value.clone(), ty.clone()),
                other => other.clone(),
            })
            .collect();
        let array = Expr::Array { items, element: ty };
        self.cast(&array, "text[]", None, indent, out);
    }

    fn cast(&self, input: &Expr, to: &str, of: Option<&DataType>, indent: usize, out: &mut String) {
        match input {
            Expr::Literal(value, ty) if shown_type(ty) == to && !value.is_null() => {
                out.push_str(&literal(value, ty, false));
            }
            // What was read as a value of this type from the statement's text.
            Expr::Literal(value @ Datum::Text(_), from) => {
                let constant = of.and_then(|of| {
                    let context = CastContext::Explicit;
                    Some((cast(value, from, of, context, &FormatContext::default()).ok()?, of))
                });
                match constant {
                    Some((value, of)) => out.push_str(&literal(&value, of, false)),
                    None => out.push_str(&literal(value, from, false)),
                }
            }
            input => {
                if !self.pretty {
                    out.push('(');
                }
                self.within(input, Around::Cast, false, indent, out);
                if !self.pretty {
                    out.push(')');
                }
            }
        }
        out.push_str("::");
        out.push_str(to);
    }
}

/// True if a `varchar` stands where a function takes `text`: every such value is one, so nothing says so, but
/// PostgreSQL shows it.
fn takes_text(function: &ScalarFunction, args: &[Expr]) -> bool {
    let relabelled = |(ty, arg): (&Ty, &Expr)| *ty == Ty::Text && is_varchar(arg);
    !function.signature.variadic && function.signature.args.iter().zip(args).any(relabelled)
}

fn is_varchar(e: &Expr) -> bool {
    matches!(e.ty().base(), DataType::Varchar(_)) && !matches!(e, Expr::Literal(..))
}

/// The argument as it is passed.
fn as_text(ty: Ty, arg: &Expr) -> Expr {
    if ty != Ty::Text || !is_varchar(arg) {
        return arg.clone();
    }
    Expr::Cast { input: Box::new(arg.clone()), from: arg.ty(), to: DataType::Text, explicit: false }
}

/// A type as `format_type` shows it.
fn shown_type(ty: &DataType) -> String {
    ty.to_string()
}

/// A constant, with its type where it would be read back as another's.
fn literal(value: &Datum, ty: &DataType, labelled: bool) -> String {
    let text = || to_text(value, &ty.base(), &FormatContext::default());
    let quote = |text: String| {
        let doubled = text.replace('\'', "''");
        match doubled.contains('\\') {
            true => format!("E'{}'", doubled.replace('\\', "\\\\")),
            false => format!("'{doubled}'"),
        }
    };
    let (shown, label) = match value {
        Datum::Null => ("NULL".to_owned(), true),
        Datum::Bool(b) => return b.to_string(),
        Datum::Int4(v) if *v >= 0 => return text(),
        Datum::Numeric(_) => {
            let text = text();
            let plain = text.starts_with(|c: char| c.is_ascii_digit()) && text.contains(['e', 'E', '.']);
            if plain { (text, ty.modifier() >= 0) } else { (quote(text), true) }
        }
        _ => (quote(text()), *ty != DataType::Unknown),
    };
    if label && labelled { format!("{shown}::{}", shown_type(ty)) } else { shown }
}

/// True if a pretty text needs no parentheses around it: `isSimpleNode`.
fn is_simple(e: &Expr, around: Around<'_>) -> bool {
    match e {
        Expr::Call { function, args, .. } if is_operator(function.name) => match around {
            Around::Operator(parent) => binds_tighter(e, function.name, args.len(), parent),
            Around::Junction { .. } | Around::Not => true,
            Around::Cast | Around::Other => false,
        },
        Expr::IsNull { .. } | Expr::IsBool { .. } | Expr::IsDistinct { negated: false, .. } => {
            matches!(around, Around::Junction { .. } | Around::Not)
        }
        Expr::And(_) | Expr::Not(_) | Expr::IsDistinct { negated: true, .. } => {
            matches!(around, Around::Junction { .. })
        }
        Expr::Or(_) => matches!(around, Around::Junction { or: true }),
        Expr::InList { .. } | Expr::AnyAll { .. } => false,
        Expr::Cast { input, explicit: true, .. } => is_simple(input, Around::Cast),
        Expr::Cast { input, explicit: false, .. } => match around {
            Around::Operator(_) | Around::Other => is_simple(input, Around::Cast),
            around => is_simple(input, around),
        },
        _ => true,
    }
}

/// True of `a * b` in `a * b + c`, and of `a - b` in `a - b - c`.
fn binds_tighter(e: &Expr, name: &str, operands: usize, parent: &Expr) -> bool {
    let Expr::Call { function, args, .. } = parent else { return false };
    let rank = |name: &str, operands: usize| match name {
        "+" | "-" if operands == 2 => Some(1),
        "*" | "/" | "%" if operands == 2 => Some(2),
        _ => None,
    };
    match (rank(name, operands), rank(function.name, args.len())) {
        (Some(own), Some(other)) if own == other => args.first().is_some_and(|first| std::ptr::eq(first, e)),
        (Some(own), Some(other)) => own > other,
        _ => false,
    }
}

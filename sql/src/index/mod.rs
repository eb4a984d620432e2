//! Indexes on expressions, and on some of a table's rows.
//!
//! A descriptor has the text of an index's expressions and of its predicate. Here the text becomes a
//! [`Program`], once for as long as the descriptor lives, which everybody shares who needs to know what the
//! text means:
//!
//! ```text
//!                    ┌─► evaluate.rs      writers: the values of a row's entry, or that it has none
//!   text ─► Program ─┼─► optimizer        readers: lower(email) = $1 is a range of this index
//!                    ├─► implication.rs   readers, ON CONFLICT: does WHERE say what the predicate says?
//!                    └─► deparse.rs       pg_get_indexdef, and the details of errors
//! ```
//!
//! Only immutable functions may stand in an index ([`is_mutable`]). An entry is computed when a row comes
//! and again when it goes, perhaps years later on another node; if the two differed, the entry would stay.

mod evaluate;
mod implication;

use std::sync::Arc;

use amphora_replication::IndexFunctions;
use amphora_storage::schema::{Index, Table};
use amphora_storage::{DataType, Datum};

use crate::binder;
use crate::deparse::{looks_like_function, over_table};
use crate::error::Result;
use crate::expr::Expr;
use crate::functions::Volatility;
use crate::optimizer::fold;

pub(crate) use implication::implied;

/// What an index's texts say, bound to positions in its table's rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    /// The expressions, as they were written
    pub(crate) expressions: Vec<Expr>,
    /// The predicate, as it was written
    pub(crate) predicate: Option<Expr>,
    /// The expressions with what is constant computed: what a statement's are compared with
    pub(crate) folded: Vec<Expr>,
    /// Conditions that all hold for the rows of the index
    pub(crate) conditions: Vec<Expr>,
}

/// What an index's texts say.
pub(crate) fn program(table: &Table, index: &Index) -> Result<Arc<Program>> {
    index.derived.get_or_make(|| {
        let (expressions, predicate) = binder::index_texts(table, index)?;
        let folded = expressions.iter().map(folded).collect::<Result<Vec<_>>>()?;
        let conditions = match &predicate {
            Some(predicate) => match self::folded(predicate)? {
                Expr::And(parts) => parts,
                one => vec![one],
            },
            None => Vec::new(),
        };
        Ok(Program { expressions, predicate, folded, conditions })
    })
}

/// With what is constant computed.
pub(crate) fn folded(e: &Expr) -> Result<Expr> {
    let mut e = e.clone();
    fold(&mut e)?;
    Ok(e)
}

/// Columns that an index reads in whatever way: positions.
pub(crate) fn columns_read(table: &Table, index: &Index) -> Vec<usize> {
    let mut columns: Vec<usize> = index.columns.iter().chain(&index.include).copied().collect();
    columns.retain(|c| *c < Index::EXPRESSION);
    columns.extend(columns_computed(table, index));
    columns
}

/// Columns that its expressions and its predicate read.
pub(crate) fn columns_computed(table: &Table, index: &Index) -> Vec<usize> {
    let mut columns = Vec::new();
    if let Ok(program) = program(table, index) {
        for e in program.expressions.iter().chain(&program.predicate) {
            e.columns(&mut |c| columns.push(c));
        }
    }
    columns
}

/// The values of a row's entry in an index; `None` if it has none.
pub(crate) fn key_of(table: &Table, index: &Index, row: &[Datum]) -> Result<Option<Vec<Datum>>> {
    let computed = match index.is_plain() {
        true => Vec::new(),
        false => match compute(table, index, row)? {
            Some(computed) => computed,
            None => return Ok(None),
        },
    };
    let value = |&c: &usize| amphora_storage::key::indexed(row, &computed, c).clone();
    Ok(Some(index.columns.iter().map(value).collect()))
}

fn compute(table: &Table, index: &Index, row: &[Datum]) -> Result<Option<Vec<Datum>>> {
    let program = program(table, index)?;
    if let Some(predicate) = &program.predicate
        && !evaluate::is_true(predicate, row)?
    {
        return Ok(None);
    }
    program.expressions.iter().map(|e| evaluate::evaluate(e, row)).collect::<Result<_>>().map(Some)
}

/// What is indexed at this place, as `pg_get_indexdef` shows it: a column's name, `lower(name)`, `(a + b)`.
pub(crate) fn key_text(table: &Table, index: &Index, column: usize, pretty: bool) -> String {
    if let Some(known) = table.columns.get(column) {
        return crate::catalog::quoted(&known.name);
    }
    let place = column.wrapping_sub(Index::EXPRESSION);
    let Ok(program) = program(table, index) else { return "?".into() };
    let Some(e) = program.expressions.get(place) else { return "?".into() };
    let text = over_table(table, e, pretty);
    if looks_like_function(e) { text } else { format!("({text})") }
}

/// An expression of an index as it is, as `pg_get_expr` shows it.
pub(crate) fn expression_text(table: &Table, index: &Index, column: usize, pretty: bool) -> String {
    let place = column.wrapping_sub(Index::EXPRESSION);
    let text =
        program(table, index).ok().and_then(|p| Some(over_table(table, p.expressions.get(place)?, pretty)));
    text.unwrap_or_default()
}

/// The predicate, as it is shown.
pub(crate) fn predicate_text(table: &Table, index: &Index, pretty: bool) -> Option<String> {
    let program = program(table, index).ok()?;
    program.predicate.as_ref().map(|predicate| over_table(table, predicate, pretty))
}

/// True of an expression that is not the same for the same row everywhere and for ever: what it calls is not
/// immutable, or a cast in it depends on the session's settings.
pub(crate) fn is_mutable(e: &Expr) -> bool {
    e.any(&mut |e| match e {
        Expr::Call { function, args, .. } => match function.volatility {
            Volatility::Immutable => false,
            Volatility::Volatile => true,
            // What compares dates and char(n), or takes dates apart, asks the session for its time zone only
            // if there is one to ask for.
            Volatility::Stable => {
                let zones = args.iter().filter(|a| matches!(a.ty().base(), DataType::Timestamptz(_))).count();
                match function.name {
                    "=" | "<>" | "<" | "<=" | ">" | ">=" => zones == 1,
                    "extract" | "date_part" => zones > 0,
                    _ => true,
                }
            }
        },
        Expr::Cast { input, from, to, .. } => {
            !matches!(**input, Expr::Literal(..)) && depends_on_settings(&from.base(), &to.base())
        }
        Expr::Subquery(_) | Expr::Parameter(..) | Expr::Outer { .. } => true,
        _ => false,
    })
}

/// Casts that DateStyle, TimeZone or the catalog have a part in.
fn depends_on_settings(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    let element = |ty: &DataType| ty.element().unwrap_or_else(|| ty.clone());
    let (from, to) = (&element(from), &element(to));
    if from == to {
        return false;
    }
    let zoned = |ty: &DataType| matches!(ty, T::Timestamptz(_));
    let dated = |ty: &DataType| matches!(ty, T::Date | T::Timestamp(_) | T::Timestamptz(_));
    let timed = |ty: &DataType| dated(ty) || matches!(ty, T::Time(_) | T::Timetz(_) | T::Interval(_));
    let named = |ty: &DataType| ty.is_oid_like() && *ty != T::Oid;
    if zoned(from) != zoned(to) && timed(from) && timed(to) {
        return true;
    }
    (from.is_string() && (timed(to) || named(to)))
        || (to.is_string() && (dated(from) || named(from)))
        || matches!((from, to), (T::Time(_), T::Timetz(_)))
}

/// What the transactions of sessions compute entries with.
#[derive(Debug)]
pub struct SqlIndexes;

/// The one there is: it holds nothing.
pub static SQL_INDEXES: SqlIndexes = SqlIndexes;

impl IndexFunctions for SqlIndexes {
    fn compute(
        &self,
        table: &Table,
        index: &Index,
        row: &[Datum],
    ) -> amphora_replication::Result<Option<Vec<Datum>>> {
        compute(table, index, row).map_err(|error| {
            let mut converted = amphora_replication::Error::new(error.sqlstate, error.message.clone());
            converted.detail = error.detail.clone().map(Into::into);
            converted.hint = error.hint.clone().map(Into::into);
            converted
        })
    }

    fn columns(&self, table: &Table, index: &Index) -> Vec<usize> {
        columns_read(table, index)
    }

    fn names(&self, table: &Table, index: &Index) -> Vec<String> {
        index.columns.iter().map(|&c| key_text(table, index, c, true)).collect()
    }
}

//! What the planner knows beside the statement: the catalog's statistics, the sizes of tables, and which
//! kinds of operators the session wants.

use std::cell::RefCell;
use std::collections::HashMap;

use amphora_storage::DataType;
use amphora_storage::schema::{ColumnStatistics, Table, TableId};

use crate::expr::Expr;
use crate::frontend::{PlannerContext, PlannerOptions};
use crate::plan::Field;

/// Rows of a table of which nothing is known.
const UNKNOWN_ROWS: f64 = 1000.0;

/// Different values of an expression of which nothing is known; PostgreSQL's guess.
const UNKNOWN_DISTINCT: f64 = 200.0;

/// Bytes of a stored row beside its values, compressed.
const ROW_OVERHEAD: f64 = 16.0;

/// What ANALYZE counts in millionths.
pub(super) const MILLION: f64 = 1e6;

/// The planner of one statement.
pub(super) struct Planner<'a> {
    context: &'a PlannerContext,
    /// Rows of tables that were asked for before
    rows: RefCell<HashMap<TableId, f64>>,
}

/// A stored column, as far as it is known.
pub(super) struct KnownColumn<'a> {
    /// Rows of its table
    pub(super) rows: f64,
    /// No two rows have the same value
    pub(super) unique: bool,
    /// NOT NULL
    pub(super) not_null: bool,
    /// What ANALYZE learned
    pub(super) statistics: Option<&'a ColumnStatistics>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(context: &'a PlannerContext) -> Planner<'a> {
        Planner { context, rows: RefCell::default() }
    }

    /// Which operators are wanted.
    pub(super) fn options(&self) -> &PlannerOptions {
        &self.context.options
    }

    /// Rows of a table, about: what ANALYZE counted, grown as the table has since; or what its size allows.
    pub(super) fn table_rows(&self, table: &Table) -> f64 {
        if let Some(rows) = self.rows.borrow().get(&table.id) {
            return *rows;
        }
        let size = self.context.sizes.of(table.id).map(|bytes| bytes as f64);
        let rows = match (self.context.catalog.statistics(table.id), size) {
            (Some(known), Some(size)) if known.bytes > 0 && known.rows > 0 && size > 0.0 => {
                // What lies in memory is not part of a size: a table does not shrink by being restarted.
                known.rows as f64 * (size / known.bytes as f64).clamp(0.5, 1000.0)
            }
            (Some(known), _) => (known.rows as f64).max(1.0),
            (None, Some(size)) if size > 0.0 => {
                (size / (ROW_OVERHEAD + f64::from(row_width(table)))).max(UNKNOWN_ROWS)
            }
            (None, _) => UNKNOWN_ROWS,
        };
        self.rows.borrow_mut().insert(table.id, rows);
        rows
    }

    /// The stored column behind an output column, if it is one.
    pub(super) fn column(&self, field: &Field) -> Option<KnownColumn<'_>> {
        let (table, attribute) = field.origin?;
        let table = self.context.catalog.table_by_id(TableId(table))?;
        let position = (0..table.columns.len()).find(|&i| table.attribute_number(i) == attribute)?;
        self.stored_column(table, position)
    }

    /// A column of a table.
    pub(super) fn stored_column(&self, table: &Table, position: usize) -> Option<KnownColumn<'_>> {
        let column = table.columns.get(position)?;
        let statistics = self.context.catalog.statistics(table.id);
        Some(KnownColumn {
            rows: self.table_rows(table),
            unique: table.all_indexes().any(|i| i.is_key() && i.columns == [position]),
            not_null: column.not_null,
            statistics: statistics.and_then(|s| s.columns.iter().find(|c| c.column == column.id)),
        })
    }

    /// How many different values an expression has among `rows` rows of this schema.
    pub(super) fn distinct(&self, e: &Expr, schema: &[Field], rows: f64) -> f64 {
        let most = rows.max(1.0);
        match e {
            Expr::Literal(..) | Expr::Parameter(..) | Expr::Outer { .. } => 1.0,
            Expr::Cast { input, .. } => self.distinct(input, schema, rows),
            _ if e.ty() == DataType::Bool => most.min(2.0),
            Expr::Column(i, _) => match schema.get(*i).and_then(|f| self.column(f)) {
                Some(column) => column.distinct().min(most),
                None => most.min(UNKNOWN_DISTINCT),
            },
            _ => {
                // A function of columns has at most as many values as they have together.
                let mut product = 1.0_f64;
                let mut any = false;
                e.columns(&mut |i| {
                    any = true;
                    let column = schema.get(i).and_then(|f| self.column(f));
                    product *= column.map_or(UNKNOWN_DISTINCT, |c| c.distinct());
                });
                if any { product.clamp(1.0, most) } else { 1.0 }
            }
        }
    }

    /// How many groups these keys make of `rows` rows.
    pub(super) fn groups(&self, keys: &[Expr], schema: &[Field], rows: f64) -> f64 {
        if keys.is_empty() {
            return 1.0;
        }
        let mut product = 1.0_f64;
        for key in keys {
            product *= self.distinct(key, schema, rows);
            if product >= rows {
                break;
            }
        }
        // Several columns are seldom independent.
        let most = if keys.len() > 1 { rows * 0.5 } else { rows };
        product.min(most.max(1.0)).max(1.0)
    }
}

impl KnownColumn<'_> {
    /// How many different values it has.
    pub(super) fn distinct(&self) -> f64 {
        if self.unique {
            return self.rows.max(1.0);
        }
        match self.statistics {
            Some(s) if s.distinct_scales => (s.distinct as f64 / MILLION * self.rows).max(1.0),
            Some(s) if s.distinct > 0 => s.distinct as f64,
            _ => UNKNOWN_DISTINCT.min(self.rows.max(1.0)),
        }
    }

    /// The share of NULLs.
    pub(super) fn null_fraction(&self) -> f64 {
        match self.statistics {
            Some(s) => f64::from(s.null_fraction) / MILLION,
            None if self.not_null => 0.0,
            None => 0.005,
        }
    }
}

/// Bytes of a row, about.
fn row_width(table: &Table) -> u32 {
    table.columns.iter().map(|c| u32::try_from(c.ty.len()).unwrap_or(16)).sum()
}

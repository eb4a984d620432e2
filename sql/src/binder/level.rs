//! One level of a query: the row that its expressions see, and what they collect besides.

use std::collections::HashMap;

use super::scope::Scope;
use crate::error::SqlError;
use crate::expr::Expr;
use crate::plan::{Aggregate, WindowCall};

/// Columns from here on stand for aggregates until the plan has an Aggregate operator.
pub(super) const AGGREGATE_BASE: usize = 1 << 40;
/// Columns from here on stand for window calls.
pub(super) const WINDOW_BASE: usize = 1 << 41;
/// Columns from here on stand for set-returning functions of the SELECT list.
pub(super) const SET_BASE: usize = 1 << 42;

/// Which clause is being bound; it decides what may be used and how errors are worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clause {
    /// SELECT list
    Select,
    /// ORDER BY
    OrderBy,
    /// HAVING
    Having,
    /// WHERE
    Where,
    /// GROUP BY
    GroupBy,
    /// JOIN … ON
    On,
    /// Arguments of functions in FROM
    From,
    /// Inside an aggregate's arguments
    Aggregate,
    /// Inside an aggregate's FILTER
    Filter,
    /// Inside a window function
    Window,
    /// VALUES
    Values,
    /// LIMIT, OFFSET
    Limit,
    /// SET of UPDATE
    Set,
    /// RETURNING
    Returning,
    /// DEFAULT of a column
    Default,
    /// CHECK
    Check,
    /// What is indexed
    IndexExpression,
    /// WHERE of CREATE INDEX
    IndexPredicate,
    /// GENERATED ALWAYS AS (…) STORED
    Generated,
    /// EXECUTE's arguments
    Constant,
    /// WHERE of COPY FROM
    CopyWhere,
    /// AND … of MERGE's WHEN
    MergeWhen,
}

impl Clause {
    /// As error messages name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Clause::Select => "SELECT",
            Clause::OrderBy => "ORDER BY",
            Clause::Having => "HAVING",
            Clause::Where => "WHERE",
            Clause::GroupBy => "GROUP BY",
            Clause::On => "JOIN conditions",
            Clause::From => "functions in FROM",
            Clause::Aggregate => "aggregate function calls",
            Clause::Filter => "FILTER",
            Clause::Window => "window definitions",
            Clause::Values => "VALUES",
            Clause::Limit => "LIMIT",
            Clause::Set => "UPDATE",
            Clause::Returning => "RETURNING",
            Clause::Default => "DEFAULT expressions",
            Clause::Check => "check constraints",
            Clause::IndexExpression => "index expressions",
            Clause::IndexPredicate => "index predicates",
            Clause::Generated => "column generation expressions",
            Clause::Constant => "EXECUTE parameters",
            Clause::MergeWhen => "MERGE WHEN conditions",
            Clause::CopyWhere => "COPY FROM WHERE conditions",
        }
    }

    /// Aggregates may stand here.
    pub(super) fn allows_aggregates(self) -> bool {
        matches!(self, Clause::Select | Clause::OrderBy | Clause::Having | Clause::Window)
    }

    /// Window functions may stand here.
    pub(super) fn allows_windows(self) -> bool {
        matches!(self, Clause::Select | Clause::OrderBy)
    }

    /// Set-returning functions may stand here.
    pub(super) fn allows_sets(self) -> bool {
        matches!(self, Clause::Select | Clause::OrderBy)
    }

    /// 42803
    pub(super) fn no_aggregates(self) -> SqlError {
        if self == Clause::Aggregate {
            return SqlError::grouping_error("aggregate function calls cannot be nested");
        }
        SqlError::grouping_error(format!("aggregate functions are not allowed in {}", self.name()))
    }

    /// 42P20
    pub(super) fn no_windows(self) -> SqlError {
        if self == Clause::Aggregate {
            return SqlError::grouping_error("aggregate function calls cannot contain window function calls");
        }
        SqlError::new("42P20", format!("window functions are not allowed in {}", self.name()))
    }

    /// 0A000
    pub(super) fn no_sets(self) -> SqlError {
        SqlError::feature_not_supported(format!("set-returning functions are not allowed in {}", self.name()))
    }

    /// Subqueries may not stand here.
    pub(super) fn forbids_subqueries(self) -> bool {
        matches!(
            self,
            Clause::Default
                | Clause::Check
                | Clause::Generated
                | Clause::IndexExpression
                | Clause::IndexPredicate
                | Clause::Constant
                | Clause::CopyWhere
        )
    }
}

/// A set-returning call of a SELECT list.
#[derive(Clone, Debug)]
pub(super) struct SetCall {
    pub(super) function: &'static crate::functions::SetFunction,
    pub(super) args: Vec<Expr>,
    pub(super) ty: amphora_storage::DataType,
}

/// One level.
#[derive(Debug)]
pub(super) struct Level {
    /// The row
    pub(super) scope: Scope,
    /// False where the row is only counted, not seen: beside a derived table that is not LATERAL
    pub(super) visible: bool,
    /// True of a join's left row while its right side is bound
    pub(super) lateral: bool,
    /// The clause being bound
    pub(super) clause: Clause,
    /// Aggregates met so far
    pub(super) aggregates: Vec<Aggregate>,
    /// Window calls met so far
    pub(super) windows: Vec<WindowCall>,
    /// Set-returning calls met so far
    pub(super) sets: Vec<SetCall>,
    /// Where a column was first named, for errors found later
    pub(super) mentions: HashMap<usize, usize>,
    /// WINDOW name AS (…)
    pub(super) named_windows: Vec<(String, sqlparser::ast::WindowSpec)>,
}

impl Level {
    pub(super) fn new(scope: Scope, clause: Clause) -> Level {
        Level {
            scope,
            visible: true,
            lateral: false,
            clause,
            aggregates: Vec::new(),
            windows: Vec::new(),
            sets: Vec::new(),
            mentions: HashMap::new(),
            named_windows: Vec::new(),
        }
    }

    /// The left row of a join, seen from its right side: only by what is LATERAL.
    pub(super) fn lateral(scope: Scope) -> Level {
        Level { visible: false, lateral: true, ..Level::new(scope, Clause::From) }
    }
}

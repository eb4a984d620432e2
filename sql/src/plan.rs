//! What the optimizer hands to the executor.
//!
//! A [`Plan`] is a tree of operators, each giving rows of [`Plan::schema`]'s width. Statements that write
//! have one writing node at the top ([`Statement`]); everything below only reads, synchronously.

use std::sync::Arc;

use amphora_replication::{Direction, LockMode, OnConflict, WaitPolicy};
use amphora_storage::schema::{IndexId, Table, View};
use amphora_storage::{DataType, Datum};

use crate::expr::Expr;
use crate::functions::{AggregateFunction, SetFunction};

/// One output column of a plan.
#[derive(Clone, Debug)]
pub struct Field {
    /// Name as the client sees it
    pub name: String,
    /// Type, modifier included
    pub ty: DataType,
    /// The stored column it is, for RowDescription: table OID and attribute number
    pub origin: Option<(u32, i16)>,
}

/// A plan that gives rows.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it does
    pub node: Node,
    /// Its output columns
    pub schema: Arc<[Field]>,
    /// Estimated rows
    pub rows: f64,
    /// Estimated cost, in PostgreSQL's unit (a sequential page read)
    pub cost: f64,
}

/// An operator.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // a variant's comment says what its fields are
pub enum Node {
    /// Rows of constants or expressions without input; `SELECT 1` is one row of no columns
    Values(Vec<Vec<Expr>>),
    /// Rows of one range, or several, of one index of a stored table. Output: the columns of `columns`,
    /// in that order.
    TableScan(TableScan),
    /// Rows of a system view. Output: all its columns.
    SystemScan {
        /// The view
        view: &'static crate::catalog::SystemView,
        /// Constants a column must equal, to narrow what is made: (column, value)
        equal: Vec<(usize, Expr)>,
    },
    /// Rows of a set-returning function in FROM; LATERAL through `Outer`
    FunctionScan {
        /// The function
        function: &'static SetFunction,
        /// Its arguments
        args: Vec<Expr>,
        /// WITH ORDINALITY
        ordinality: bool,
    },
    /// Rows of a common table expression, by its index in `Prepared::ctes`
    CteScan(usize),
    /// Rows of the working table of a recursive CTE
    WorkTable(usize),
    /// Rows for which the condition is true
    Filter { input: Box<Plan>, condition: Expr },
    /// One expression per output column
    Project { input: Box<Plan>, exprs: Vec<Expr> },
    /// Projection in which some columns are set-returning functions
    ProjectSet { input: Box<Plan>, exprs: Vec<ProjectItem> },
    /// Nested loop: for every left row the right side anew. The right side's `Outer { depth: 1 }` is the
    /// left row, which makes LATERAL and index lookups. Output: left columns, then right's (not for
    /// semi/anti). `condition` sees both.
    NestedLoop { left: Box<Plan>, right: Box<Plan>, kind: JoinKind, condition: Option<Expr> },
    /// Hash join on equal keys; the right side is built. `condition` is what remains.
    HashJoin {
        /// Probe side
        left: Box<Plan>,
        /// Build side
        right: Box<Plan>,
        /// Inner, left, …
        kind: JoinKind,
        /// Keys on the left row
        left_keys: Vec<Expr>,
        /// Keys on the right row
        right_keys: Vec<Expr>,
        /// Remaining condition over left and right columns
        condition: Option<Expr>,
    },
    /// Merge join on equal keys, by which both sides come ordered, in the same directions. `condition` is
    /// what remains.
    MergeJoin {
        /// One side
        left: Box<Plan>,
        /// The side whose rows of one key are gathered
        right: Box<Plan>,
        /// Inner, left, …
        kind: JoinKind,
        /// Keys on the left row
        left_keys: Vec<SortKey>,
        /// Keys on the right row
        right_keys: Vec<SortKey>,
        /// Remaining condition over left and right columns
        condition: Option<Expr>,
    },
    /// Groups. Output: the group keys, then the aggregates. No keys: exactly one row. `sorted`: rows of one
    /// group come one after the other.
    Aggregate { input: Box<Plan>, keys: Vec<Expr>, aggregates: Vec<Aggregate>, sorted: bool },
    /// Window functions are added as columns after the input's
    Window { input: Box<Plan>, functions: Vec<WindowCall> },
    /// All rows in order; with `limit`, only that many are kept (top-N)
    Sort { input: Box<Plan>, keys: Vec<SortKey>, limit: Option<Expr> },
    /// LIMIT and OFFSET; NULL or absent means none
    Limit { input: Box<Plan>, limit: Option<Expr>, offset: Option<Expr> },
    /// DISTINCT over these columns (DISTINCT ON keeps the first row of each). `sorted`: rows that are equal
    /// come one after the other; otherwise the order of the input may be lost.
    Distinct { input: Box<Plan>, on: Vec<Expr>, sorted: bool },
    /// UNION ALL
    Append(Vec<Plan>),
    /// INTERSECT, EXCEPT (UNION is `Distinct` over `Append`)
    SetOperation { left: Box<Plan>, right: Box<Plan>, intersect: bool, all: bool },
    /// WITH RECURSIVE: `base`, then `step` over `WorkTable(id)` until it gives nothing
    Recursive { id: usize, base: Box<Plan>, step: Box<Plan>, distinct: bool },
    /// SELECT … FOR UPDATE: locks the rows of stored tables that the input was made of. The input carries
    /// each such row's primary key columns at `key` positions; the executor re-reads versions itself.
    Lock { input: Box<Plan>, targets: Vec<LockTarget>, mode: LockMode, wait: WaitPolicy },
}

/// A read of a stored table.
#[derive(Clone, Debug)]
pub struct TableScan {
    /// The table
    pub table: Arc<Table>,
    /// Positions in `Table::columns`, ascending
    pub columns: Vec<usize>,
    /// The index to walk
    pub index: IndexId,
    /// Which parts, in any order; several for an IN list or an OR. Bounds may hold parameters and `Outer`
    /// columns. Ranges may overlap; no row is given twice.
    pub ranges: Vec<ScanRange>,
    /// Which way
    pub direction: Direction,
    /// What must also hold, over the output columns
    pub filter: Option<Expr>,
    /// True if `ranges` pins the whole primary key or a whole unique index: at most one row a range
    pub point: bool,
}

/// A range whose bounds are expressions without input columns. A NULL in prefix, array or bound: no rows.
#[derive(Clone, Debug)]
pub struct ScanRange {
    /// Equal on the first index columns
    pub prefix: Vec<Expr>,
    /// Positions in `prefix` that hold an array, every element of which makes a range; ascending
    pub each: Vec<usize>,
    /// Lower bound of the next, and whether it is inclusive
    pub lower: Option<(Expr, bool)>,
    /// Upper bound of the next, and whether it is inclusive
    pub upper: Option<(Expr, bool)>,
}

/// A column of a projection that may give many rows.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // a variant's comment says what its fields are
pub enum ProjectItem {
    /// One value
    Scalar(Expr),
    /// As many rows as the function gives
    Set { function: &'static SetFunction, args: Vec<Expr> },
}

/// How two inputs are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// INNER and CROSS
    Inner,
    /// LEFT
    Left,
    /// RIGHT
    Right,
    /// FULL
    Full,
    /// Left rows that have a match
    Semi,
    /// Left rows that have none
    Anti,
}

/// One aggregate call.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// The function
    pub function: &'static AggregateFunction,
    /// Arguments over the input row
    pub args: Vec<Expr>,
    /// DISTINCT
    pub distinct: bool,
    /// FILTER (WHERE …)
    pub filter: Option<Expr>,
    /// ORDER BY inside the call
    pub order_by: Vec<SortKey>,
    /// Result type
    pub ty: DataType,
}

/// One window function call.
#[derive(Clone, Debug)]
pub struct WindowCall {
    /// The function
    pub function: WindowFunction,
    /// Arguments
    pub args: Vec<Expr>,
    /// FILTER (WHERE …), of an aggregate
    pub filter: Option<Expr>,
    /// PARTITION BY
    pub partition_by: Vec<Expr>,
    /// ORDER BY
    pub order_by: Vec<SortKey>,
    /// Which rows of the partition it sees
    pub frame: Frame,
    /// Result type
    pub ty: DataType,
}

impl WindowCall {
    /// Calls `f` with every expression of the call.
    pub fn exprs(&self, f: &mut dyn FnMut(&Expr)) {
        self.args.iter().chain(&self.filter).chain(&self.partition_by).for_each(&mut *f);
        self.order_by.iter().for_each(|k| f(&k.expr));
        self.frame.start.offset().into_iter().chain(self.frame.end.offset()).for_each(f);
    }

    /// Like [`WindowCall::exprs`]; `f` may change what it is given.
    pub fn exprs_mut(&mut self, f: &mut dyn FnMut(&mut Expr)) {
        self.args.iter_mut().chain(&mut self.filter).chain(&mut self.partition_by).for_each(&mut *f);
        self.order_by.iter_mut().for_each(|k| f(&mut k.expr));
        for bound in [&mut self.frame.start, &mut self.frame.end] {
            if let FrameBound::Preceding(e) | FrameBound::Following(e) = bound {
                f(e);
            }
        }
    }
}

/// The rows around the current one that a window call sees (PostgreSQL manual, section 4.2.8).
#[derive(Clone, Debug)]
pub struct Frame {
    /// In what offsets count
    pub units: FrameUnits,
    /// The first row
    pub start: FrameBound,
    /// The last row
    pub end: FrameBound,
    /// Rows that are left out again
    pub exclude: FrameExclusion,
}

impl Frame {
    /// RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW.
    pub fn standard() -> Frame {
        Frame {
            units: FrameUnits::Range,
            start: FrameBound::UnboundedPreceding,
            end: FrameBound::CurrentRow,
            exclude: FrameExclusion::NoOthers,
        }
    }
}

/// What the offsets of a frame count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameUnits {
    /// Rows
    Rows,
    /// Distance of the ORDER BY value
    Range,
    /// Groups of rows that are equal in ORDER BY
    Groups,
}

/// Where a frame begins or ends. Offsets read no column; they are `bigint`, or for RANGE what
/// [`crate::functions::range_offset_type`] says.
#[derive(Clone, Debug)]
pub enum FrameBound {
    /// The partition's first row
    UnboundedPreceding,
    /// So far before the current row
    Preceding(Expr),
    /// The current row; its first or last peer, unless units are rows
    CurrentRow,
    /// So far after the current row
    Following(Expr),
    /// The partition's last row
    UnboundedFollowing,
}

impl FrameBound {
    /// How far from the current row.
    pub fn offset(&self) -> Option<&Expr> {
        match self {
            FrameBound::Preceding(e) | FrameBound::Following(e) => Some(e),
            _ => None,
        }
    }
}

/// EXCLUDE
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameExclusion {
    /// Nothing
    NoOthers,
    /// The current row
    CurrentRow,
    /// The current row and its peers
    Group,
    /// The current row's peers
    Ties,
}

/// What a window call computes.
#[derive(Clone, Copy, Debug)]
pub enum WindowFunction {
    /// `row_number`
    RowNumber,
    /// `rank`
    Rank,
    /// `dense_rank`
    DenseRank,
    /// `percent_rank`
    PercentRank,
    /// `cume_dist`
    CumeDist,
    /// `ntile`
    Ntile,
    /// `lag` and `lead` (true)
    Shift(bool),
    /// `first_value`
    FirstValue,
    /// `last_value`
    LastValue,
    /// `nth_value`
    NthValue,
    /// Any aggregate
    Aggregate(&'static AggregateFunction),
}

/// One key of an order.
#[derive(Clone, Debug)]
pub struct SortKey {
    /// The value
    pub expr: Expr,
    /// DESC
    pub descending: bool,
    /// NULLS FIRST
    pub nulls_first: bool,
}

/// A stored table whose rows FOR UPDATE locks.
#[derive(Clone, Debug)]
pub struct LockTarget {
    /// The table
    pub table: Arc<Table>,
    /// Where its primary key columns are in the input row, in key order
    pub key: Vec<usize>,
}

/// A statement ready to run.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What to do
    pub statement: Statement,
    /// WITH queries, each run once, in order
    pub ctes: Vec<Plan>,
    /// The WITH queries that write: the position in `ctes`, whose plan has only the columns, and what it
    /// does. With any of them, everything in WITH runs before the statement, and nobody sees the writes.
    pub writes: Vec<(usize, Statement)>,
    /// The positions in `ctes` of queries that lock their rows: they run before the statement, in order
    pub locks: Vec<usize>,
    /// AS OF SYSTEM TIME: a time, an interval from now, or a text that says either
    pub as_of: Option<Expr>,
    /// Types of `$1 …`
    pub parameters: Vec<DataType>,
    /// Output columns; empty if it gives no rows
    pub schema: Arc<[Field]>,
    /// Stored tables it was planned with
    pub tables: Vec<Arc<Table>>,
    /// Views that were expanded
    pub views: Vec<Arc<View>>,
    /// True if one of `tables` is strong, or if it is DDL
    pub strong: bool,
    /// What the statement is, if it is no more than this
    pub point: Option<PointRead>,
}

/// A query of one row by its whole primary key: it is run without operators.
#[derive(Clone, Debug)]
pub struct PointRead {
    /// The table
    pub table: Arc<Table>,
    /// The key's values, in its order
    pub key: Vec<PointKey>,
    /// Positions in `Table::columns` of the output columns
    pub columns: Vec<usize>,
}

/// A value of a primary key that is asked for.
#[derive(Clone, Debug)]
pub enum PointKey {
    /// `$1` is index 0
    Parameter(usize),
    /// A constant
    Constant(Datum),
}

/// What a statement does.
#[derive(Clone, Debug)]
pub enum Statement {
    /// SELECT, VALUES, TABLE
    Query(Plan),
    /// INSERT. `source` gives one value per `columns` entry; the rest are defaults.
    Insert(Box<Insert>),
    /// UPDATE
    Update(Box<Update>),
    /// DELETE
    Delete(Box<Delete>),
    /// MERGE
    Merge(Box<Merge>),
    /// COPY
    Copy(Box<crate::copy::Copy>),
    /// EXPLAIN
    Explain(Box<Explain>),
    /// Everything that is not planned: DDL, SET, BEGIN, … (`sql/src/command.rs`)
    Command(Box<crate::command::Command>),
}

/// INSERT.
#[derive(Clone, Debug)]
pub struct Insert {
    /// Into
    pub table: Arc<Table>,
    /// Rows of full table width minus the hidden key, defaults and casts applied
    pub source: Plan,
    /// What to do with a row whose key is taken
    pub on_conflict: OnConflict,
    /// DO UPDATE SET …, over (existing row ++ excluded row), full width each; `None` is DO NOTHING
    pub do_update: Option<DoUpdate>,
    /// What its rows must be, over the full row
    pub checks: Rules,
    /// RETURNING over the full row; empty if there is none
    pub returning: Vec<Expr>,
}

/// What a table says of its rows, each with an expression over the full row: first the columns that are
/// computed of the others, then the conditions.
pub type Rules = Vec<(Rule, Expr)>;

/// A rule for the rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// GENERATED ALWAYS AS (…) STORED: the value of the column at this position
    Generated(usize),
    /// CHECK, by name
    Check(String),
}

/// ON CONFLICT DO UPDATE.
#[derive(Clone, Debug)]
pub struct DoUpdate {
    /// (column position, new value over existing ++ excluded)
    pub assignments: Vec<(usize, Expr)>,
    /// WHERE, over existing ++ excluded
    pub condition: Option<Expr>,
}

/// UPDATE. `source` gives the full stored row, then whatever FROM added.
#[derive(Clone, Debug)]
pub struct Update {
    /// The table
    pub table: Arc<Table>,
    /// Rows to change: all of `Table::columns` first
    pub source: Plan,
    /// (column position, new value over the source row)
    pub assignments: Vec<(usize, Expr)>,
    /// What its rows must be, over the new full row
    pub checks: Rules,
    /// RETURNING over (new full row ++ the rest of the source row)
    pub returning: Vec<Expr>,
}

/// DELETE. `source` gives the full stored row, then whatever USING added.
#[derive(Clone, Debug)]
pub struct Delete {
    /// The table
    pub table: Arc<Table>,
    /// Rows to delete
    pub source: Plan,
    /// RETURNING over the source row
    pub returning: Vec<Expr>,
}

/// MERGE. `source` gives the target's full stored row, all NULL where nothing matched, then the source's.
#[derive(Clone, Debug)]
pub struct Merge {
    /// The target
    pub table: Arc<Table>,
    /// The joined rows
    pub source: Plan,
    /// The WHENs, in order
    pub clauses: Vec<MergeClause>,
    /// CHECK constraints over the new full row, with their names
    pub checks: Rules,
}

/// `WHEN [NOT] MATCHED AND condition THEN action`
#[derive(Clone, Debug)]
pub struct MergeClause {
    /// MATCHED
    pub matched: bool,
    /// AND …, over the joined row
    pub condition: Option<Expr>,
    /// What is done
    pub action: MergeAction,
}

/// What MERGE does with a row. Expressions are over the joined row.
#[derive(Clone, Debug)]
pub enum MergeAction {
    /// DO NOTHING
    Nothing,
    /// DELETE
    Delete,
    /// UPDATE SET: column positions and new values
    Update(Vec<(usize, Expr)>),
    /// INSERT: the whole row, minus the hidden key
    Insert(Vec<Expr>),
}

impl Merge {
    /// Calls `f` with every expression outside of the source.
    pub fn exprs_mut(&mut self, f: &mut dyn FnMut(&mut Expr)) {
        for clause in &mut self.clauses {
            clause.condition.iter_mut().for_each(&mut *f);
            match &mut clause.action {
                MergeAction::Nothing | MergeAction::Delete => {}
                MergeAction::Update(list) => list.iter_mut().for_each(|(_, e)| f(e)),
                MergeAction::Insert(row) => row.iter_mut().for_each(&mut *f),
            }
        }
        self.checks.iter_mut().for_each(|(_, e)| f(e));
    }
}

/// How EXPLAIN shows a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainFormat {
    /// Lines
    Text,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
    /// One XML document
    Xml,
}

impl ExplainFormat {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            ExplainFormat::Text => "TEXT",
            ExplainFormat::Json => "JSON",
            ExplainFormat::Yaml => "YAML",
            ExplainFormat::Xml => "XML",
        }
    }
}

/// EXPLAIN.
#[derive(Clone, Debug)]
pub struct Explain {
    /// The statement
    pub statement: Statement,
    /// ANALYZE
    pub analyze: bool,
    /// VERBOSE
    pub verbose: bool,
    /// FORMAT
    pub format: ExplainFormat,
    /// COSTS
    pub costs: bool,
    /// SUMMARY: the times of planning and execution
    pub summary: bool,
    /// TIMING: the times of each node
    pub timing: bool,
    /// CONFLICTS: what a concurrent write on another node would do
    pub conflicts: bool,
}

//! Bound scalar expressions: names resolved, types decided, casts explicit.
//!
//! An expression is evaluated against one input row. What lies outside that row is explicit: a parameter,
//! or a column of a row of an enclosing query ([`Expr::Outer`]).

use std::sync::Arc;

use amphora_storage::{DataType, Datum};

use crate::error::SqlError;
use crate::functions::ScalarFunction;
use crate::plan::Plan;

/// The function that begins a mergeable column anew; what it gives is what such a column is at first.
pub const CRDT_RESET: &str = "crdt_reset";

/// A bound expression.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // a variant's comment says what its fields are
pub enum Expr {
    /// A constant
    Literal(Datum, DataType),
    /// A column of the input row
    Column(usize, DataType),
    /// A column of the row of the `depth`-th enclosing query, 1 being the nearest
    Outer { depth: usize, position: usize, ty: DataType },
    /// `$1` is index 0
    Parameter(usize, DataType),
    /// A function or operator; arguments are already cast to what it takes
    Call { function: &'static ScalarFunction, args: Vec<Expr>, ty: DataType },
    /// A cast that may do work, modifiers included
    Cast { input: Box<Expr>, from: DataType, to: DataType, explicit: bool },
    /// AND with three-valued logic
    And(Vec<Expr>),
    /// OR with three-valued logic
    Or(Vec<Expr>),
    /// NOT
    Not(Box<Expr>),
    /// `IS [NOT] NULL`
    IsNull { input: Box<Expr>, negated: bool },
    /// `IS [NOT] TRUE | FALSE | UNKNOWN` (`None`)
    IsBool { input: Box<Expr>, value: Option<bool>, negated: bool },
    /// `IS [NOT] DISTINCT FROM`; both sides of one type
    IsDistinct { left: Box<Expr>, right: Box<Expr>, negated: bool },
    /// Searched CASE (the simple form is rewritten)
    Case { branches: Vec<(Expr, Expr)>, otherwise: Box<Expr>, ty: DataType },
    /// COALESCE
    Coalesce(Vec<Expr>, DataType),
    /// `GREATEST` (true) or `LEAST` (false)
    Extreme { greatest: bool, args: Vec<Expr>, ty: DataType },
    /// `input [NOT] IN (list)`, all of one type
    InList { input: Box<Expr>, list: Vec<Expr>, negated: bool },
    /// `left op ANY|ALL (array)`
    AnyAll { left: Box<Expr>, function: &'static ScalarFunction, array: Box<Expr>, all: bool },
    /// A subquery in an expression
    Subquery(Box<Subquery>),
    /// `ARRAY[…]`
    Array { items: Vec<Expr>, element: DataType },
    /// `ROW(…)`
    Row(Vec<Expr>),
    /// `array[i]`
    Subscript { array: Box<Expr>, index: Box<Expr>, ty: DataType },
    /// A value of a domain's base type that must satisfy the domain's constraints
    Domain { input: Box<Expr>, checks: Arc<DomainChecks> },
}

/// What values of a domain must satisfy.
#[derive(Clone, Debug)]
pub struct DomainChecks {
    /// The domain's name as messages show it
    pub name: String,
    /// NOT NULL
    pub not_null: bool,
    /// CHECK: names, and conditions over a row of one column, which is the value
    pub checks: Vec<(String, Expr)>,
}

impl DomainChecks {
    /// 23502
    pub fn refuses_null(&self) -> SqlError {
        let message = format!("domain {} does not allow null values", self.name);
        SqlError::not_null_violation(message).with_data_type(&self.name)
    }

    /// 23514
    pub fn refuses(&self, constraint: &str) -> SqlError {
        let message = format!("value for domain {} violates check constraint \"{constraint}\"", self.name);
        SqlError::check_violation(message).with_data_type(&self.name).with_constraint(constraint)
    }
}

/// A subquery in an expression.
#[derive(Clone, Debug)]
pub struct Subquery {
    /// What is made of its rows
    pub kind: SubqueryKind,
    /// The query. Its `Outer { depth: 1, .. }` are columns of the row this expression is evaluated on.
    pub plan: Arc<Plan>,
    /// Whether it reads outer rows; if not it runs once per statement
    pub correlated: bool,
    /// Result type
    pub ty: DataType,
}

/// What a subquery's rows become.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // a variant's comment says what its fields are
pub enum SubqueryKind {
    /// The single value of its single row; 21000 on more
    Scalar,
    /// `EXISTS`
    Exists,
    /// `left op ANY|ALL (SELECT …)`; IN is `= ANY`, NOT IN is `<> ALL`
    AnyAll { left: Expr, function: &'static ScalarFunction, all: bool },
    /// `ARRAY(SELECT …)`
    Array,
}

impl Expr {
    /// True of `crdt_reset(column)`, perhaps cast.
    pub fn is_reset(&self) -> bool {
        match self {
            Expr::Call { function, .. } => function.name == CRDT_RESET,
            Expr::Cast { input, .. } | Expr::Domain { input, .. } => input.is_reset(),
            _ => false,
        }
    }

    /// The type of the value.
    pub fn ty(&self) -> DataType {
        match self {
            Expr::Literal(_, ty)
            | Expr::Column(_, ty)
            | Expr::Outer { ty, .. }
            | Expr::Parameter(_, ty)
            | Expr::Call { ty, .. }
            | Expr::Case { ty, .. }
            | Expr::Coalesce(_, ty)
            | Expr::Extreme { ty, .. }
            | Expr::Subscript { ty, .. } => ty.clone(),
            Expr::Cast { to, .. } => to.clone(),
            Expr::Domain { input, .. } => input.ty(),
            Expr::Array { element, .. } => element.clone().array(),
            Expr::Row(items) => {
                let fields = items.iter().enumerate();
                DataType::Row(fields.map(|(i, e)| (format!("f{}", i + 1), e.ty().base())).collect())
            }
            Expr::Subquery(s) => s.ty.clone(),
            Expr::And(_)
            | Expr::Or(_)
            | Expr::Not(_)
            | Expr::IsNull { .. }
            | Expr::IsBool { .. }
            | Expr::IsDistinct { .. }
            | Expr::InList { .. }
            | Expr::AnyAll { .. } => DataType::Bool,
        }
    }
}

//! Functions, operators and aggregates: tables of signatures, and the search through them.
//!
//! ```text
//!   name, [DataType] ──resolve_function──▶ Resolved ──eval([Datum], EvalContext)──▶ Datum
//!   op, left, right  ──resolve_operator──▶     "
//!   name, [DataType] ──resolve_aggregate─▶ ResolvedAggregate ──new_state()──▶ AggregateState
//!   name, [DataType] ──resolve_set_function─▶ ResolvedSetFunction ──eval──▶ rows
//! ```
//!
//! Every family is a file that ends in a static table. A row says what PostgreSQL's `pg_proc` or
//! `pg_operator` says: name, argument types, result, strictness, volatility, and the Rust function that
//! does it. The caller casts its arguments to [`Resolved::arg_types`] before it calls.

mod aggregate;
mod arithmetic;
mod array;
mod array_shape;
mod binary_string;
mod comparison;
mod context;
mod datetime;
mod datetime_operator;
mod decimal;
mod enumeration;
mod identifier;
mod json;
mod json_build;
pub(crate) use json_build::json_value;
mod json_path;
mod json_span;
mod keywords;
mod math;
mod ordered_set;
mod pattern;
mod range_offset;
mod record;
mod resolve;
mod sample;
mod set_returning;
mod signature;
mod statistics;
mod string;
mod system;
#[cfg(test)]
mod tests;
mod to_char;
mod to_char_number;
mod trigonometry;

pub(crate) use datetime_operator::add_interval;
use std::collections::HashMap;
use std::sync::LazyLock;

use amphora_storage::{DataType, Datum};

use crate::error::{Result, SqlError};
pub use aggregate::{AggregateFunction, AggregateState, NewState};
pub(crate) use array::APPEND_ROW;
pub(crate) use array_shape::{ASSIGN, ASSIGN_SLICE, SLICE, STACK, SUBSCRIPTS};
pub use comparison::{compare, is_distinct};
pub use context::{Call, EvalContext, NoSession, SessionHook};
pub use ordered_set::{hypothetical, is_ordered_set};
pub use pattern::{LikePattern, compile_regex};
pub use range_offset::{check_range_offset, range_bound, range_key, range_offset_type};
pub(crate) use record::{FIELD, GROUPING};
use resolve::{Choice, bind, choose};
pub(crate) use sample::SAMPLE;
pub use set_returning::{Rows, SetFunction};
pub use signature::{Signature, Ty};
pub(crate) use system::CURRENT_OF;
pub(crate) use system::format_type;

/// When two calls with the same arguments give the same result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volatility {
    /// Always
    Immutable,
    /// Within a statement
    Stable,
    /// Never to be relied on
    Volatile,
}

/// The Rust function behind a SQL function.
pub type Eval = fn(&[Datum], &Call<'_>) -> Result<Datum>;

/// A function or operator that gives one value.
#[derive(Clone, Copy)]
pub struct ScalarFunction {
    /// Its name, or the operator's symbol
    pub name: &'static str,
    /// Its types
    pub signature: Signature,
    /// NULL if any argument is NULL, without being called
    pub strict: bool,
    /// Whether calls may be folded
    pub volatility: Volatility,
    /// What it does
    pub eval: Eval,
}

/// A row of a function table: immutable and strict.
pub(super) const fn function(
    name: &'static str,
    args: &'static [Ty],
    returns: Ty,
    eval: Eval,
) -> ScalarFunction {
    let signature = Signature { args, variadic: false, returns };
    ScalarFunction { name, signature, strict: true, volatility: Volatility::Immutable, eval }
}

impl std::fmt::Debug for ScalarFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({:?})", self.name, self.signature.args)
    }
}

impl ScalarFunction {
    const fn stable(mut self) -> ScalarFunction {
        self.volatility = Volatility::Stable;
        self
    }

    const fn volatile(mut self) -> ScalarFunction {
        self.volatility = Volatility::Volatile;
        self
    }

    const fn called_on_null(mut self) -> ScalarFunction {
        self.strict = false;
        self
    }

    const fn variadic(mut self) -> ScalarFunction {
        self.signature.variadic = true;
        self
    }
}

/// A function or operator chosen for actual argument types.
#[derive(Clone)]
pub struct Resolved {
    /// What was chosen
    pub function: &'static ScalarFunction,
    /// What the arguments must be cast to
    pub arg_types: Vec<DataType>,
    /// What comes out
    pub return_type: DataType,
}

impl std::fmt::Debug for Resolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({:?}) -> {}", self.function.name, self.arg_types, self.return_type)
    }
}

impl Resolved {
    /// Calls it with arguments already cast to `arg_types`.
    pub fn eval(&self, args: &[Datum], context: &EvalContext) -> Result<Datum> {
        if self.function.strict && args.iter().any(Datum::is_null) {
            return Ok(Datum::Null);
        }
        let call = Call { context, arg_types: &self.arg_types, return_type: &self.return_type };
        (self.function.eval)(args, &call)
    }
}

/// An aggregate chosen for actual argument types.
#[derive(Clone)]
pub struct ResolvedAggregate {
    /// What was chosen
    pub function: &'static AggregateFunction,
    /// What the arguments must be cast to
    pub arg_types: Vec<DataType>,
    /// What comes out
    pub return_type: DataType,
}

impl ResolvedAggregate {
    /// A fresh state, for one group.
    pub fn new_state(&self, context: &EvalContext) -> Box<dyn AggregateState> {
        (self.function.new_state)(&self.arg_types, context)
    }
}

/// A set-returning function chosen for actual argument types.
#[derive(Clone)]
pub struct ResolvedSetFunction {
    /// What was chosen
    pub function: &'static SetFunction,
    /// What the arguments must be cast to
    pub arg_types: Vec<DataType>,
    /// The columns it gives: names and types
    pub columns: Vec<(String, DataType)>,
}

impl ResolvedSetFunction {
    /// Calls it with arguments already cast to `arg_types`; a strict one gives no row if one is NULL.
    pub fn eval(&self, args: &[Datum], context: &EvalContext) -> Result<Rows> {
        if self.function.strict && args.iter().any(Datum::is_null) {
            return Ok(Box::new(std::iter::empty()));
        }
        let return_type = self.columns.first().map_or(DataType::Void, |c| c.1.clone());
        let call = Call { context, arg_types: &self.arg_types, return_type: &return_type };
        (self.function.eval)(args, &call)
    }
}

type Index<T> = HashMap<&'static str, Vec<&'static T>>;

static FUNCTIONS: LazyLock<Index<ScalarFunction>> = LazyLock::new(|| index(all_functions(), |f| f.name));
static OPERATORS: LazyLock<Index<ScalarFunction>> = LazyLock::new(|| index(all_operators(), |f| f.name));
static AGGREGATES: LazyLock<Index<AggregateFunction>> = LazyLock::new(|| index(all_aggregates(), |f| f.name));
static SET_FUNCTIONS: LazyLock<Index<SetFunction>> = LazyLock::new(|| index(all_set_functions(), |f| f.name));

fn index<T>(all: impl Iterator<Item = &'static T>, name: impl Fn(&T) -> &'static str) -> Index<T> {
    let mut by_name: Index<T> = HashMap::new();
    for item in all {
        by_name.entry(name(item)).or_default().push(item);
    }
    by_name
}

/// Every scalar function, for `pg_proc`.
pub fn all_functions() -> impl Iterator<Item = &'static ScalarFunction> {
    let families = [
        math::FUNCTIONS,
        trigonometry::FUNCTIONS,
        string::FUNCTIONS,
        binary_string::FUNCTIONS,
        pattern::FUNCTIONS,
        datetime::CLOCKS,
        datetime::FIELDS,
        datetime::FUNCTIONS,
        to_char::FUNCTIONS,
        json::FUNCTIONS,
        json_build::FUNCTIONS,
        array::FUNCTIONS,
        array_shape::FUNCTIONS,
        identifier::FUNCTIONS,
        enumeration::FUNCTIONS,
        json_path::FUNCTIONS,
        record::FUNCTIONS,
        system::FUNCTIONS,
        system::PRIVILEGES,
    ];
    families.into_iter().flatten()
}

/// Every operator, for `pg_operator`. A prefix operator has one argument.
pub fn all_operators() -> impl Iterator<Item = &'static ScalarFunction> {
    let families = [
        comparison::ORDERED,
        comparison::ACROSS,
        comparison::PADDED,
        comparison::PATTERN,
        arithmetic::INTEGER,
        arithmetic::FLOAT,
        arithmetic::OPERATORS,
        datetime_operator::OPERATORS,
        string::OPERATORS,
        binary_string::OPERATORS,
        binary_string::LIKE,
        pattern::OPERATORS,
        json::OPERATORS,
        json_path::OPERATORS,
        array::OPERATORS,
    ];
    families.into_iter().flatten()
}

/// Every aggregate.
pub fn all_aggregates() -> impl Iterator<Item = &'static AggregateFunction> {
    let families = [
        aggregate::AGGREGATES,
        aggregate::EXTREMES,
        aggregate::STATISTICAL,
        ordered_set::ORDERED_SET,
        ordered_set::REGRESSION,
    ];
    families.into_iter().flatten()
}

/// Every set-returning function.
pub fn all_set_functions() -> impl Iterator<Item = &'static SetFunction> {
    set_returning::SET_FUNCTIONS.iter().chain(record::SET_FUNCTIONS).chain(json_path::SET_FUNCTIONS)
}

/// True if a scalar function of this name exists, with whatever arguments.
pub fn is_function(name: &str) -> bool {
    FUNCTIONS.contains_key(name)
}

/// True if an aggregate of this name exists.
pub fn is_aggregate(name: &str) -> bool {
    AGGREGATES.contains_key(name)
}

/// True if a set-returning function of this name exists.
pub fn is_set_function(name: &str) -> bool {
    SET_FUNCTIONS.contains_key(name)
}

fn base_types(types: &[DataType]) -> Vec<DataType> {
    types.iter().map(DataType::base).collect()
}

fn list(types: &[DataType]) -> String {
    let names: Vec<String> = types.iter().map(|t| t.unmodified_name()).collect();
    names.join(", ")
}

/// A type's name without its modifier.
trait UnmodifiedName {
    fn unmodified_name(&self) -> String;
}

impl UnmodifiedName for DataType {
    fn unmodified_name(&self) -> String {
        match self {
            DataType::Char(_) => "character".to_string(),
            other => other.unmodified().to_string(),
        }
    }
}

fn undefined(name: &str, types: &[DataType]) -> SqlError {
    SqlError::undefined_function(format!("function {name}({}) does not exist", list(types))).with_hint(
        "No function matches the given name and argument types. You might need to add explicit type casts.",
    )
}

fn ambiguous(name: &str, types: &[DataType]) -> SqlError {
    SqlError::ambiguous_function(format!("function {name}({}) is not unique", list(types)))
        .with_hint("Could not choose a best candidate function. You might need to add explicit type casts.")
}

/// Chooses among overloads and binds their types.
fn select<T>(
    overloads: &[&'static T],
    signature: impl Fn(&T) -> Signature,
    name: &str,
    types: &[DataType],
) -> Result<(&'static T, Vec<DataType>, DataType)> {
    let signatures: Vec<Signature> = overloads.iter().map(|f| signature(f)).collect();
    match choose(&signatures, types, false) {
        Choice::One(c) => match bind(&signatures[c], types) {
            Some(_) if resolve::is_undetermined(&signatures[c], types) => Err(SqlError::datatype_mismatch(
                "could not determine polymorphic type because input has type unknown",
            )),
            Some((args, returns)) => Ok((overloads[c], args, returns)),
            None => Err(undefined(name, types)),
        },
        Choice::None => Err(undefined(name, types)),
        Choice::Ambiguous => Err(ambiguous(name, types)),
    }
}

/// The scalar function of this name (lower case) for these argument types. 42883, 42725.
pub fn resolve_function(name: &str, types: &[DataType]) -> Result<Resolved> {
    let types = base_types(types);
    let overloads = FUNCTIONS.get(name).ok_or_else(|| undefined(name, &types))?;
    let (function, arg_types, return_type) = select(overloads, |f| f.signature, name, &types)?;
    Ok(Resolved { function, arg_types, return_type })
}

/// The aggregate of this name (lower case) for these argument types; `count(*)` has none.
pub fn resolve_aggregate(name: &str, types: &[DataType]) -> Result<ResolvedAggregate> {
    let types = base_types(types);
    let overloads = AGGREGATES.get(name).ok_or_else(|| undefined(name, &types))?;
    let (function, arg_types, return_type) = select(overloads, |f| f.signature, name, &types)?;
    Ok(ResolvedAggregate { function, arg_types, return_type })
}

/// The set-returning function of this name (lower case) for these argument types.
pub fn resolve_set_function(name: &str, types: &[DataType]) -> Result<ResolvedSetFunction> {
    let types = base_types(types);
    let overloads = SET_FUNCTIONS.get(name).ok_or_else(|| undefined(name, &types))?;
    let (function, arg_types, return_type) = select(overloads, |f| f.signature, name, &types)?;
    let columns = match function.columns {
        [] => match return_type.fields() {
            Some(fields) => fields.to_vec(),
            None => vec![(function.name.to_string(), return_type)],
        },
        columns => {
            let real = |ty: Ty| ty.data_type().unwrap_or_else(|| return_type.clone());
            columns.iter().map(|(name, ty)| (name.to_string(), real(*ty))).collect()
        }
    };
    Ok(ResolvedSetFunction { function, arg_types, columns })
}

/// The operator for these operand types; a prefix operator has no left side. 42883, 42725.
pub fn resolve_operator(op: &str, left: Option<&DataType>, right: &DataType) -> Result<Resolved> {
    let mut types: Vec<DataType> = left.into_iter().map(DataType::base).collect();
    types.push(right.base());
    let op = match op {
        "!=" => "<>",
        other => other,
    };
    let shown = || match types.as_slice() {
        [left, right] => format!("{} {op} {}", left.unmodified_name(), right.unmodified_name()),
        _ => format!("{op} {}", right.unmodified_name()),
    };
    let undefined = || {
        let plural = if types.len() == 1 { "argument type" } else { "argument types" };
        SqlError::undefined_function(format!("operator does not exist: {}", shown())).with_hint(format!(
            "No operator matches the given name and {plural}. You might need to add {}.",
            if types.len() == 1 { "an explicit type cast" } else { "explicit type casts" }
        ))
    };
    let overloads = OPERATORS.get(op).ok_or_else(undefined)?;
    let signatures: Vec<Signature> = overloads.iter().map(|f| f.signature).collect();
    match choose(&signatures, &types, true) {
        Choice::One(c) => match bind(&signatures[c], &types) {
            Some((arg_types, return_type)) => Ok(Resolved { function: overloads[c], arg_types, return_type }),
            None => Err(undefined()),
        },
        Choice::None => Err(undefined()),
        Choice::Ambiguous => {
            Err(SqlError::ambiguous_function(format!("operator is not unique: {}", shown())).with_hint(
                "Could not choose a best candidate operator. You might need to add explicit type casts.",
            ))
        }
    }
}

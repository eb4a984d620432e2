//! Compiled expressions.
//!
//! An [`Expr`] is compiled once a statement: argument types are gathered, constant IN lists become hash
//! sets, comparisons of values whose own order is SQL's become one comparison, and subqueries get their
//! operators. Evaluation then walks a tree that borrows columns, constants and parameters instead of
//! copying them.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use amphora_storage::schema::{ColumnId, Relation, TableId};
use amphora_storage::{DataType, Datum, Json};
use smallvec::SmallVec;

use super::subquery::CompiledSubquery;
use super::{Builder, Context};
use crate::error::{Result, SqlError};
use crate::expr::{DomainChecks, Expr};
use crate::functions::{Call, ScalarFunction, Volatility};
use crate::types::{CastContext, cast};

/// A constant IN list longer than this is looked up in a hash set.
const HASHED_LIST: usize = 8;

/// An expression ready to be evaluated. It belongs to one execution.
pub struct Expression(Node);

enum Node {
    Literal(Datum),
    Column(usize),
    Outer {
        depth: usize,
        position: usize,
    },
    Parameter(usize),
    Compare {
        op: Comparison,
        left: Box<Node>,
        right: Box<Node>,
    },
    Call(Box<CallNode>),
    /// A function that needs the transaction
    Sequence(Box<CallNode>),
    /// `crdt_inspect`
    Inspect(Box<CallNode>),
    Cast(Box<CastNode>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    IsNull {
        input: Box<Node>,
        negated: bool,
    },
    IsBool {
        input: Box<Node>,
        value: Option<bool>,
        negated: bool,
    },
    IsDistinct {
        left: Box<Node>,
        right: Box<Node>,
        negated: bool,
    },
    Case {
        branches: Vec<(Node, Node)>,
        otherwise: Box<Node>,
    },
    Coalesce(Vec<Node>),
    Extreme {
        greatest: bool,
        args: Vec<Node>,
    },
    InSet {
        input: Box<Node>,
        set: HashSet<Datum>,
        null: bool,
        negated: bool,
    },
    InList {
        input: Box<Node>,
        list: Vec<Node>,
        negated: bool,
    },
    AnyAll(Box<AnyAllNode>),
    Subquery(Box<CompiledSubquery>),
    Array {
        items: Vec<Node>,
        element: DataType,
    },
    Row(Vec<Node>),
    Domain(Box<DomainNode>),
    Subscript {
        array: Box<Node>,
        index: Box<Node>,
    },
    /// What has one value in all of an execution, kept once somebody has asked for it
    Once(Box<Node>, OnceCell<Datum>),
}

#[derive(Clone, Copy)]
enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Comparison {
    fn from_name(name: &str) -> Option<Comparison> {
        Some(match name {
            "=" => Comparison::Eq,
            "<>" => Comparison::Ne,
            "<" => Comparison::Lt,
            "<=" => Comparison::Le,
            ">" => Comparison::Gt,
            ">=" => Comparison::Ge,
            _ => return None,
        })
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Eq => order.is_eq(),
            Comparison::Ne => order.is_ne(),
            Comparison::Lt => order.is_lt(),
            Comparison::Le => order.is_le(),
            Comparison::Gt => order.is_gt(),
            Comparison::Ge => order.is_ge(),
        }
    }
}

struct CallNode {
    function: &'static ScalarFunction,
    args: Vec<Node>,
    arg_types: Vec<DataType>,
    ty: DataType,
}

struct CastNode {
    input: Node,
    from: DataType,
    to: DataType,
    context: CastContext,
}

/// A value that a domain's constraints are looked at for.
struct DomainNode {
    of: Arc<DomainChecks>,
    input: Node,
    /// Names, and conditions over a row that is the value alone
    checks: Vec<(String, Node)>,
}

impl DomainNode {
    /// 23502, 23514
    fn eval(&self, row: &[Datum], context: &Context<'_>) -> Result<Datum> {
        let value = [self.input.eval(row, context)?];
        if self.of.not_null && value[0].is_null() {
            return Err(self.of.refuses_null());
        }
        for (name, condition) in &self.checks {
            if condition.truth(&value, context)? == Some(false) {
                return Err(self.of.refuses(name));
            }
        }
        let [value] = value;
        Ok(value)
    }
}

struct AnyAllNode {
    left: Node,
    array: Node,
    operator: Operation,
    all: bool,
}

/// A binary operator over values at hand: what ANY and ALL apply to each element.
pub(super) struct Operation {
    function: &'static ScalarFunction,
    arg_types: [DataType; 2],
}

impl Operation {
    pub(super) fn new(function: &'static ScalarFunction, left: DataType, right: DataType) -> Operation {
        Operation { function, arg_types: [left, right] }
    }

    /// True of `= ANY` and `<> ALL` where equal datums are equal values, so that a hash finds them.
    pub(super) fn is_membership(&self, all: bool) -> bool {
        self.function.name == (if all { "<>" } else { "=" })
            && orders_itself(&self.arg_types[0], &self.arg_types[1])
    }

    /// Applies it; NULL if either side is.
    pub(super) fn apply(&self, left: &Datum, right: &Datum, context: &Context<'_>) -> Result<Option<bool>> {
        if left.is_null() || right.is_null() {
            return Ok(None);
        }
        let call =
            Call { context: &context.run.eval, arg_types: &self.arg_types, return_type: &DataType::Bool };
        Ok((self.function.eval)(&[left.clone(), right.clone()], &call)?.as_bool())
    }
}

/// True if the order of the datums of these two types is SQL's order: not so for `char(n)`, whose
/// trailing blanks do not count, and not across kinds (`date` with `timestamptz`).
fn orders_itself(left: &DataType, right: &DataType) -> bool {
    use DataType as T;
    let integer = |t: &DataType| matches!(t, T::Int2 | T::Int4 | T::Int8);
    let text = |t: &DataType| matches!(t, T::Text | T::Varchar(_) | T::Name);
    let (left, right) = (&left.base(), &right.base());
    (integer(left) && integer(right))
        || (text(left) && text(right))
        || match (left, right) {
            (T::Bool, T::Bool)
            | (T::Float8, T::Float8)
            | (T::Float4, T::Float4)
            | (T::Bytea, T::Bytea)
            | (T::Date, T::Date)
            | (T::Time(_), T::Time(_))
            | (T::Timetz(_), T::Timetz(_))
            | (T::Timestamp(_), T::Timestamp(_))
            | (T::Timestamptz(_), T::Timestamptz(_))
            | (T::Interval(_), T::Interval(_))
            | (T::Uuid, T::Uuid)
            | (T::Jsonb, T::Jsonb)
            | (T::Oid, T::Oid)
            | (T::InternalChar, T::InternalChar)
            | (T::Numeric(_), T::Numeric(_)) => true,
            (a, b) => a.is_oid_like() && b.is_oid_like(),
        }
}

impl Expression {
    /// Compiles an expression.
    pub fn compile(expr: &Expr, builder: &mut Builder) -> Result<Expression> {
        compile(expr, builder).map(Expression)
    }

    /// Compiles several.
    pub fn compile_all(exprs: &[Expr], builder: &mut Builder) -> Result<Vec<Expression>> {
        exprs.iter().map(|e| Expression::compile(e, builder)).collect()
    }

    /// The value for this row.
    pub fn eval(&self, row: &[Datum], context: &Context<'_>) -> Result<Datum> {
        self.0.eval(row, context)
    }

    /// The value for this row, borrowed where it is a column, a constant or a parameter.
    pub fn value<'a>(&'a self, row: &'a [Datum], context: &Context<'a>) -> Result<Cow<'a, Datum>> {
        self.0.value(row, context)
    }

    /// As a condition: true, and neither false nor NULL.
    pub fn is_true(&self, row: &[Datum], context: &Context<'_>) -> Result<bool> {
        Ok(self.0.truth(row, context)? == Some(true))
    }

    /// The column it is, if it is nothing more.
    pub fn as_column(&self) -> Option<usize> {
        match &self.0 {
            Node::Column(position) => Some(*position),
            _ => None,
        }
    }
}

/// The values of several expressions for one row.
pub(crate) fn eval_all(exprs: &[Expression], row: &[Datum], context: &Context<'_>) -> Result<Vec<Datum>> {
    let mut values = Vec::with_capacity(exprs.len());
    for expr in exprs {
        values.push(expr.eval(row, context)?);
    }
    Ok(values)
}

fn compile(expr: &Expr, builder: &mut Builder) -> Result<Node> {
    let node = compile_anew(expr, builder)?;
    let once = matches!(expr, Expr::Call { .. } | Expr::Cast { .. }) && is_constant(expr, CONSTANT_DEPTH);
    Ok(if once { Node::Once(Box::new(node), OnceCell::new()) } else { node })
}

/// Levels of operands that are looked at to see whether an expression is constant.
const CONSTANT_DEPTH: u32 = 6;

/// True of what has one value in all of an execution: made of constants and parameters by functions that are
/// not volatile.
fn is_constant(expr: &Expr, depth: u32) -> bool {
    match expr {
        Expr::Literal(..) | Expr::Parameter(..) => true,
        // A setting may be changed by the same statement.
        Expr::Call { function, args, .. } if depth > 0 && function.name != "current_setting" => {
            function.volatility != Volatility::Volatile && args.iter().all(|e| is_constant(e, depth - 1))
        }
        Expr::Cast { input, .. } if depth > 0 => is_constant(input, depth - 1),
        _ => false,
    }
}

fn compile_anew(expr: &Expr, builder: &mut Builder) -> Result<Node> {
    let boxed = |e: &Expr, b: &mut Builder| compile(e, b).map(Box::new);
    Ok(match expr {
        Expr::Literal(value, _) => Node::Literal(value.clone()),
        Expr::Column(position, _) => Node::Column(*position),
        Expr::Outer { depth, position, .. } => Node::Outer { depth: *depth, position: *position },
        Expr::Parameter(index, _) => Node::Parameter(*index),
        Expr::Call { function, args, ty } => compile_call(function, args, ty, builder)?,
        // Only the fields' names are new.
        Expr::Cast { input, from, to, .. } if from.is_record() && to.is_record() => compile(input, builder)?,
        Expr::Cast { input, from, to, explicit } => {
            let context = if *explicit { CastContext::Explicit } else { CastContext::Assignment };
            let input = compile(input, builder)?;
            Node::Cast(Box::new(CastNode { input, from: from.clone(), to: to.clone(), context }))
        }
        Expr::And(args) => Node::And(compile_list(args, builder)?),
        Expr::Or(args) => Node::Or(compile_list(args, builder)?),
        Expr::Not(input) => Node::Not(boxed(input, builder)?),
        Expr::IsNull { input, negated } => Node::IsNull { input: boxed(input, builder)?, negated: *negated },
        Expr::IsBool { input, value, negated } => {
            Node::IsBool { input: boxed(input, builder)?, value: *value, negated: *negated }
        }
        Expr::IsDistinct { left, right, negated } => {
            Node::IsDistinct { left: boxed(left, builder)?, right: boxed(right, builder)?, negated: *negated }
        }
        Expr::Case { branches, otherwise, .. } => {
            let branches = branches
                .iter()
                .map(|(when, then)| Ok((compile(when, builder)?, compile(then, builder)?)))
                .collect::<Result<_>>()?;
            Node::Case { branches, otherwise: boxed(otherwise, builder)? }
        }
        Expr::Coalesce(args, _) => Node::Coalesce(compile_list(args, builder)?),
        Expr::Extreme { greatest, args, .. } => {
            Node::Extreme { greatest: *greatest, args: compile_list(args, builder)? }
        }
        Expr::InList { input, list, negated } => compile_in(input, list, *negated, builder)?,
        Expr::AnyAll { left, function, array, all } => {
            let ty = array.ty().base();
            let element = ty.element().unwrap_or(ty);
            let operator = Operation::new(function, left.ty(), element);
            let (left, array) = (compile(left, builder)?, compile(array, builder)?);
            Node::AnyAll(Box::new(AnyAllNode { left, array, operator, all: *all }))
        }
        Expr::Subquery(subquery) => Node::Subquery(Box::new(CompiledSubquery::compile(subquery, builder)?)),
        Expr::Array { items, element } => {
            Node::Array { items: compile_list(items, builder)?, element: element.clone() }
        }
        Expr::Row(fields) => Node::Row(compile_list(fields, builder)?),
        Expr::Domain { input, checks } => {
            let input = compile(input, builder)?;
            let compiled = checks.checks.iter().map(|(name, e)| Ok((name.clone(), compile(e, builder)?)));
            let compiled = compiled.collect::<Result<_>>()?;
            Node::Domain(Box::new(DomainNode { of: checks.clone(), input, checks: compiled }))
        }
        Expr::Subscript { array, index, .. } => {
            Node::Subscript { array: boxed(array, builder)?, index: boxed(index, builder)? }
        }
    })
}

fn compile_list(exprs: &[Expr], builder: &mut Builder) -> Result<Vec<Node>> {
    exprs.iter().map(|e| compile(e, builder)).collect()
}

fn compile_call(
    function: &'static ScalarFunction,
    args: &[Expr],
    ty: &DataType,
    builder: &mut Builder,
) -> Result<Node> {
    if let [left, right] = args
        && let Some(op) = Comparison::from_name(function.name)
        && orders_itself(&left.ty(), &right.ty())
    {
        let (left, right) = (Box::new(compile(left, builder)?), Box::new(compile(right, builder)?));
        return Ok(Node::Compare { op, left, right });
    }
    let arg_types = args.iter().map(Expr::ty).collect();
    let args = compile_list(args, builder)?;
    let call = Box::new(CallNode { function, args, arg_types, ty: ty.clone() });
    Ok(match function.name {
        "crdt_state" => Node::Inspect(call),
        "nextval" | "setval" | "pg_sequence_last_value" | "sequence_state" => Node::Sequence(call),
        _ => Node::Call(call),
    })
}

fn compile_in(input: &Expr, list: &[Expr], negated: bool, builder: &mut Builder) -> Result<Node> {
    let ty = input.ty();
    let constants: Option<Vec<&Datum>> = list
        .iter()
        .map(|e| match e {
            Expr::Literal(value, _) => Some(value),
            _ => None,
        })
        .collect();
    let input = Box::new(compile(input, builder)?);
    match constants {
        Some(values) if values.len() > HASHED_LIST && orders_itself(&ty, &ty) => {
            let null = values.iter().any(|v| v.is_null());
            let set = values.into_iter().filter(|v| !v.is_null()).cloned().collect();
            Ok(Node::InSet { input, set, null, negated })
        }
        _ => Ok(Node::InList { input, list: compile_list(list, builder)?, negated }),
    }
}

fn bool_or_null(value: Option<bool>) -> Datum {
    value.map_or(Datum::Null, Datum::Bool)
}

impl Node {
    fn value<'a>(&'a self, row: &'a [Datum], context: &Context<'a>) -> Result<Cow<'a, Datum>> {
        Ok(match self {
            Node::Literal(value) => Cow::Borrowed(value),
            Node::Column(position) => Cow::Borrowed(column(row, *position)?),
            Node::Outer { depth, position } => Cow::Borrowed(context.outer_column(*depth, *position)?),
            Node::Parameter(index) => Cow::Borrowed(parameter(context, *index)?),
            Node::Once(node, value) => match value.get() {
                Some(value) => Cow::Borrowed(value),
                None => {
                    let first = node.eval(row, context)?;
                    Cow::Borrowed(value.get_or_init(|| first))
                }
            },
            other => Cow::Owned(other.eval(row, context)?),
        })
    }

    fn eval(&self, row: &[Datum], context: &Context<'_>) -> Result<Datum> {
        Ok(match self {
            Node::Literal(value) => value.clone(),
            Node::Column(position) => column(row, *position)?.clone(),
            Node::Outer { depth, position } => context.outer_column(*depth, *position)?.clone(),
            Node::Parameter(index) => parameter(context, *index)?.clone(),
            Node::Once(..) => self.value(row, context)?.into_owned(),
            Node::Call(call) => call.eval(row, context)?,
            Node::Sequence(call) => call.eval_sequence(row, context)?,
            Node::Inspect(call) => call.eval_inspect(row, context)?,
            Node::Cast(node) => {
                let value = node.input.value(row, context)?;
                cast(&value, &node.from, &node.to, node.context, &context.run.eval.format)?
            }
            Node::Case { branches, otherwise } => {
                for (when, then) in branches {
                    if when.truth(row, context)? == Some(true) {
                        return then.eval(row, context);
                    }
                }
                otherwise.eval(row, context)?
            }
            Node::Coalesce(args) => {
                for arg in args {
                    let value = arg.eval(row, context)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Datum::Null
            }
            Node::Extreme { greatest, args } => {
                let mut best = Datum::Null;
                for arg in args {
                    let value = arg.eval(row, context)?;
                    let better = if *greatest { value > best } else { value < best };
                    if !value.is_null() && (best.is_null() || better) {
                        best = value;
                    }
                }
                best
            }
            Node::Array { items, element } => {
                let items = items.iter().map(|i| i.eval(row, context)).collect::<Result<Vec<_>>>()?;
                Datum::array(element.clone(), items)
            }
            Node::Row(fields) => {
                let fields = fields.iter().map(|f| f.eval(row, context)).collect::<Result<Vec<_>>>()?;
                Datum::Record(fields.into())
            }
            Node::Domain(domain) => domain.eval(row, context)?,
            Node::Subscript { array, index } => {
                let (array, index) = (array.value(row, context)?, index.value(row, context)?);
                match (array.as_ref(), index.as_i64()) {
                    (Datum::Array(array), Some(index)) => array.at(&[index]).cloned().unwrap_or(Datum::Null),
                    _ => Datum::Null,
                }
            }
            Node::Subquery(subquery) => subquery.eval(row, context)?,
            Node::Compare { .. }
            | Node::And(_)
            | Node::Or(_)
            | Node::Not(_)
            | Node::IsNull { .. }
            | Node::IsBool { .. }
            | Node::IsDistinct { .. }
            | Node::InSet { .. }
            | Node::InList { .. }
            | Node::AnyAll(_) => bool_or_null(self.truth(row, context)?),
        })
    }

    /// The value of a condition; `None` is NULL.
    fn truth(&self, row: &[Datum], context: &Context<'_>) -> Result<Option<bool>> {
        Ok(match self {
            Node::Compare { op, left, right } => {
                let (left, right) = (left.value(row, context)?, right.value(row, context)?);
                if left.is_null() || right.is_null() {
                    return Ok(None);
                }
                Some(op.holds(left.as_ref().cmp(right.as_ref())))
            }
            Node::And(args) => {
                let mut all = Some(true);
                for arg in args {
                    match arg.truth(row, context)? {
                        Some(false) => return Ok(Some(false)),
                        Some(true) => {}
                        None => all = None,
                    }
                }
                all
            }
            Node::Or(args) => {
                let mut any = Some(false);
                for arg in args {
                    match arg.truth(row, context)? {
                        Some(true) => return Ok(Some(true)),
                        Some(false) => {}
                        None => any = None,
                    }
                }
                any
            }
            Node::Not(input) => input.truth(row, context)?.map(|b| !b),
            Node::IsNull { input, negated } => Some(is_null(&*input.value(row, context)?, *negated)),
            Node::IsBool { input, value, negated } => {
                Some((input.truth(row, context)? == *value) != *negated)
            }
            Node::IsDistinct { left, right, negated } => {
                let (left, right) = (left.value(row, context)?, right.value(row, context)?);
                Some((left != right) != *negated)
            }
            Node::InSet { input, set, null, negated } => {
                let value = input.value(row, context)?;
                if value.is_null() {
                    None
                } else if set.contains(value.as_ref()) {
                    Some(!negated)
                } else if *null {
                    None
                } else {
                    Some(*negated)
                }
            }
            Node::InList { input, list, negated } => {
                let value = input.value(row, context)?;
                if value.is_null() {
                    return Ok(None);
                }
                let mut null = false;
                for item in list {
                    let item = item.value(row, context)?;
                    if item.is_null() {
                        null = true;
                    } else if item == value {
                        return Ok(Some(!negated));
                    }
                }
                if null { None } else { Some(*negated) }
            }
            Node::AnyAll(node) => node.truth(row, context)?,
            other => other.eval(row, context)?.as_bool(),
        })
    }
}

/// IS NULL is true of a row whose fields are all NULL, and IS NOT NULL of one without a NULL.
fn is_null(value: &Datum, negated: bool) -> bool {
    match value {
        Datum::Record(fields) if negated => fields.iter().all(|f| !f.is_null()),
        Datum::Record(fields) => fields.iter().all(Datum::is_null),
        other => other.is_null() != negated,
    }
}

fn column(row: &[Datum], position: usize) -> Result<&Datum> {
    row.get(position)
        .ok_or_else(|| SqlError::internal(format!("no column {position} in a row of {} columns", row.len())))
}

fn parameter<'a>(context: &Context<'a>, index: usize) -> Result<&'a Datum> {
    context
        .run
        .params
        .get(index)
        .ok_or_else(|| SqlError::undefined_parameter(format!("there is no parameter ${}", index + 1)))
}

impl CallNode {
    fn eval(&self, row: &[Datum], context: &Context<'_>) -> Result<Datum> {
        let mut args: SmallVec<[Datum; 4]> = SmallVec::with_capacity(self.args.len());
        let mut null = false;
        for arg in &self.args {
            let value = arg.eval(row, context)?;
            null = null || value.is_null();
            args.push(value);
        }
        if null && self.function.strict {
            return Ok(Datum::Null);
        }
        let call = Call { context: &context.run.eval, arg_types: &self.arg_types, return_type: &self.ty };
        (self.function.eval)(&args, &call)
    }

    /// Values of sequences are the transaction's to ask for.
    fn eval_sequence(&self, row: &[Datum], context: &Context<'_>) -> Result<Datum> {
        let mut args: SmallVec<[Datum; 4]> = SmallVec::with_capacity(self.args.len());
        for arg in &self.args {
            let value = arg.eval(row, context)?;
            if value.is_null() {
                return Ok(Datum::Null);
            }
            args.push(value);
        }
        context.run.eval.session.sequence(context.txn, self.function.name, &args)
    }
}

impl CallNode {
    /// What a leaderless table keeps is the transaction's to tell. Arguments: the table, the column's id, the key.
    fn eval_inspect(&self, row: &[Datum], context: &Context<'_>) -> Result<Datum> {
        let args = self.args.iter().map(|arg| arg.eval(row, context)).collect::<Result<Vec<Datum>>>()?;
        let number = |i: usize| args.get(i).and_then(Datum::as_i64).and_then(|n| u32::try_from(n).ok());
        let table = number(0).and_then(|oid| match context.txn.catalog().relation_by_id(TableId(oid)) {
            Some(Relation::Table(table)) => Some(table.clone()),
            _ => None,
        });
        let (Some(table), Some(column), Some(key)) = (table, number(1), args.get(2..)) else {
            return Ok(Datum::Null);
        };
        let position = table.columns.iter().position(|c| c.id == ColumnId(column));
        let (Some(position), false) = (position, key.iter().any(Datum::is_null)) else {
            return Ok(Datum::Null);
        };
        let format = &context.run.eval.format;
        let text = |value: &Datum, ty: &DataType| crate::functions::json_value(value, ty, format);
        let state = context.txn.inspect(&table, key, position, &text)?;
        Ok(state.map_or(Datum::Null, |state| Datum::jsonb(Json(state))))
    }
}

impl AnyAllNode {
    fn truth(&self, row: &[Datum], context: &Context<'_>) -> Result<Option<bool>> {
        let (left, array) = (self.left.value(row, context)?, self.array.value(row, context)?);
        let Datum::Array(array) = array.as_ref() else { return Ok(None) };
        let mut result = Some(self.all);
        for item in &array.items {
            match self.operator.apply(&left, item, context)? {
                Some(held) if held != self.all => return Ok(Some(held)),
                Some(_) => {}
                None => result = None,
            }
        }
        Ok(result)
    }
}

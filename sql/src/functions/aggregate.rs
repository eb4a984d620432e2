//! Aggregates: a table of signatures, and the states that groups are folded into.
//!
//! A state sees every row of its group once ([`AggregateState::update`]) and gives its value at the end.
//! DISTINCT, FILTER and ORDER BY are the caller's: it decides which rows a state sees, and in what order.
//! Strict states skip rows whose first argument is NULL, as PostgreSQL's do.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use amphora_storage::array::{Array as ArrayValue, Dimension, MAX_DIMENSIONS};
use amphora_storage::datum::Interval as Span;
use amphora_storage::{DataType, Datum, Numeric as Number};

use super::arithmetic::{float, int, numeric, wrong_kind};
use super::signature::Signature;
use super::signature::Ty::{self, *};
use super::statistics::{FloatMoments, Moment, NumericMoments};
use super::{EvalContext, decimal, json_build};
use crate::error::{Result, SqlError};
use crate::types::{FormatContext, to_text};

/// What one group is folded into.
pub trait AggregateState: Send {
    /// Takes one row's arguments, cast to the aggregate's types.
    fn update(&mut self, args: &[Datum]) -> Result<()>;
    /// Takes back one row it was given before, the oldest; false if it cannot, and must start anew.
    fn retract(&mut self, args: &[Datum]) -> Result<bool> {
        let _ = args;
        Ok(false)
    }
    /// The value of what was seen so far; the state may go on afterwards, as window frames need.
    fn finish(&self) -> Result<Datum>;
    /// Bytes held, for the memory budget.
    fn memory(&self) -> usize {
        64
    }
}

/// A row of the aggregate table.
pub struct AggregateFunction {
    /// Its name
    pub name: &'static str,
    /// Its types; `count(*)` has no arguments
    pub signature: Signature,
    /// A fresh state, given the arguments' types after coercion
    pub new_state: NewState,
}

impl fmt::Debug for AggregateFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?})", self.name, self.signature.args)
    }
}

/// Makes the state of a new group.
pub type NewState = fn(&[DataType], &EvalContext) -> Box<dyn AggregateState>;

pub(super) const fn aggregate(
    name: &'static str,
    args: &'static [Ty],
    returns: Ty,
    new_state: NewState,
) -> AggregateFunction {
    AggregateFunction { name, signature: Signature { args, variadic: false, returns }, new_state }
}

/// `count(*)` and `count(x)`
struct Count {
    rows: i64,
}

impl AggregateState for Count {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        if args.first().is_none_or(|d| !d.is_null()) {
            self.rows += 1;
        }
        Ok(())
    }

    fn retract(&mut self, args: &[Datum]) -> Result<bool> {
        if args.first().is_none_or(|d| !d.is_null()) {
            self.rows -= 1;
        }
        Ok(true)
    }

    fn finish(&self) -> Result<Datum> {
        Ok(Datum::Int8(self.rows))
    }
}

/// What a sum of integers becomes at the end.
#[derive(Clone, Copy)]
enum SumAs {
    Int8,
    Numeric,
    Average,
}

/// Sums of integers of every width: 128 bits hold 2^64 of them.
struct IntSum {
    sum: i128,
    count: i64,
    result: SumAs,
}

impl IntSum {
    fn boxed(result: SumAs) -> Box<dyn AggregateState> {
        Box::new(IntSum { sum: 0, count: 0, result })
    }
}

impl AggregateState for IntSum {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        match &args[0] {
            Datum::Int4(v) => self.sum += i128::from(*v),
            Datum::Int8(v) => self.sum += i128::from(*v),
            Datum::Int2(v) => self.sum += i128::from(*v),
            Datum::Null => return Ok(()),
            _ => return Err(wrong_kind()),
        }
        self.count += 1;
        Ok(())
    }

    fn retract(&mut self, args: &[Datum]) -> Result<bool> {
        if let Some(v) = args[0].as_i64() {
            self.sum -= i128::from(v);
            self.count -= 1;
        }
        Ok(true)
    }

    fn finish(&self) -> Result<Datum> {
        if self.count == 0 {
            return Ok(Datum::Null);
        }
        let sum = || Number::Finite(bigdecimal::BigDecimal::from(self.sum));
        Ok(match self.result {
            SumAs::Int8 => match i64::try_from(self.sum) {
                Ok(v) => Datum::Int8(v),
                Err(_) => return Err(SqlError::numeric_value_out_of_range("bigint out of range")),
            },
            SumAs::Numeric => Datum::numeric(sum()),
            SumAs::Average => Datum::numeric(decimal::divide(&sum(), &Number::from(self.count))?),
        })
    }
}

/// `sum` and `avg` of numeric
struct NumericSum {
    sum: Number,
    count: i64,
    average: bool,
    /// The greatest scale of a value, and how many have it: the sum's scale must not outlive them
    scale: i64,
    at_scale: i64,
}

impl NumericSum {
    fn boxed(average: bool) -> Box<dyn AggregateState> {
        Box::new(NumericSum { sum: Number::from(0), count: 0, average, scale: 0, at_scale: 0 })
    }
}

impl AggregateState for NumericSum {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        if args[0].is_null() {
            return Ok(());
        }
        let value = numeric(&args[0])?;
        self.sum = decimal::add(&self.sum, value)?;
        self.count += 1;
        if let Some(d) = value.as_finite() {
            let scale = decimal::scale(d);
            if scale > self.scale || self.at_scale == 0 {
                (self.scale, self.at_scale) = (scale, 1);
            } else if scale == self.scale {
                self.at_scale += 1;
            }
        }
        Ok(())
    }

    fn retract(&mut self, args: &[Datum]) -> Result<bool> {
        if args[0].is_null() {
            return Ok(true);
        }
        let value = numeric(&args[0])?;
        let (Some(d), Some(_)) = (value.as_finite(), self.sum.as_finite()) else { return Ok(false) };
        if decimal::scale(d) == self.scale {
            if self.at_scale == 1 {
                return Ok(false);
            }
            self.at_scale -= 1;
        }
        self.sum = decimal::subtract(&self.sum, value)?;
        self.count -= 1;
        Ok(true)
    }

    fn finish(&self) -> Result<Datum> {
        match (self.count, self.average) {
            (0, _) => Ok(Datum::Null),
            (_, false) => Ok(Datum::numeric(self.sum.clone())),
            (n, true) => Ok(Datum::numeric(decimal::divide(&self.sum, &Number::from(n))?)),
        }
    }
}

/// `sum` and `avg` of floats
struct FloatSum {
    sum: f64,
    count: i64,
    average: bool,
    single: bool,
}

impl FloatSum {
    fn boxed(average: bool, single: bool) -> Box<dyn AggregateState> {
        Box::new(FloatSum { sum: 0.0, count: 0, average, single })
    }
}

impl AggregateState for FloatSum {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        if args[0].is_null() {
            return Ok(());
        }
        let v = float(&args[0])?;
        let sum = if self.single { f64::from(self.sum as f32 + v as f32) } else { self.sum + v };
        if sum.is_infinite() && !v.is_infinite() && !self.sum.is_infinite() {
            return Err(SqlError::numeric_value_out_of_range("value out of range: overflow"));
        }
        self.sum = sum;
        self.count += 1;
        Ok(())
    }

    fn finish(&self) -> Result<Datum> {
        Ok(match (self.count, self.average) {
            (0, _) => Datum::Null,
            (n, true) => Datum::Float8(self.sum / n as f64),
            _ if self.single => Datum::Float4(self.sum as f32),
            _ => Datum::Float8(self.sum),
        })
    }
}

/// `sum` and `avg` of intervals
struct IntervalSum {
    months: i64,
    days: i64,
    micros: i128,
    count: i64,
    average: bool,
}

impl IntervalSum {
    fn boxed(average: bool) -> Box<dyn AggregateState> {
        Box::new(IntervalSum { months: 0, days: 0, micros: 0, count: 0, average })
    }
}

impl AggregateState for IntervalSum {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        if let Datum::Interval(i) = &args[0] {
            self.months += i64::from(i.months);
            self.days += i64::from(i.days);
            self.micros += i128::from(i.micros);
            self.count += 1;
        }
        Ok(())
    }

    fn retract(&mut self, args: &[Datum]) -> Result<bool> {
        if let Datum::Interval(i) = &args[0] {
            self.months -= i64::from(i.months);
            self.days -= i64::from(i.days);
            self.micros -= i128::from(i.micros);
            self.count -= 1;
        }
        Ok(true)
    }

    fn finish(&self) -> Result<Datum> {
        if self.count == 0 {
            return Ok(Datum::Null);
        }
        let range = || SqlError::datetime_field_overflow("interval out of range");
        let sum = Span {
            months: i32::try_from(self.months).map_err(|_| range())?,
            days: i32::try_from(self.days).map_err(|_| range())?,
            micros: i64::try_from(self.micros).map_err(|_| range())?,
        };
        match self.average {
            true => super::datetime_operator::divide_interval(&sum, self.count as f64),
            false => Ok(Datum::Interval(Arc::new(sum))),
        }
    }
}

/// `min` and `max` of any ordered type
struct Extreme {
    best: Datum,
    greatest: bool,
}

impl Extreme {
    fn min(_: &[DataType], _: &EvalContext) -> Box<dyn AggregateState> {
        Box::new(Extreme { best: Datum::Null, greatest: false })
    }

    fn max(_: &[DataType], _: &EvalContext) -> Box<dyn AggregateState> {
        Box::new(Extreme { best: Datum::Null, greatest: true })
    }
}

impl AggregateState for Extreme {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        let candidate = &args[0];
        if candidate.is_null() {
            return Ok(());
        }
        // Of values that are equal and not the same (`1.0` and `1.00`, `1 mon` and `30 days`) the last is kept.
        let better = match candidate.cmp(&self.best) {
            _ if self.best.is_null() => true,
            Ordering::Equal => !matches!(candidate, Datum::Text(_) | Datum::Int8(_) | Datum::Int4(_)),
            order => (order == Ordering::Greater) == self.greatest,
        };
        if better {
            self.best = candidate.clone();
        }
        Ok(())
    }

    fn finish(&self) -> Result<Datum> {
        Ok(self.best.clone())
    }

    fn memory(&self) -> usize {
        64 + self.best.memory()
    }
}

/// A fold of two values into one, without NULLs: `bool_and`, `bit_or`, …
struct Fold {
    value: Datum,
    fold: fn(&Datum, &Datum) -> Datum,
}

impl AggregateState for Fold {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        if args[0].is_null() {
            return Ok(());
        }
        self.value = match self.value.is_null() {
            true => args[0].clone(),
            false => (self.fold)(&self.value, &args[0]),
        };
        Ok(())
    }

    fn finish(&self) -> Result<Datum> {
        Ok(self.value.clone())
    }
}

fn fold(fold: fn(&Datum, &Datum) -> Datum) -> Box<dyn AggregateState> {
    Box::new(Fold { value: Datum::Null, fold })
}

fn bool_and(a: &Datum, b: &Datum) -> Datum {
    Datum::Bool(a.as_bool() == Some(true) && b.as_bool() == Some(true))
}

fn bool_or(a: &Datum, b: &Datum) -> Datum {
    Datum::Bool(a.as_bool() == Some(true) || b.as_bool() == Some(true))
}

macro_rules! bits {
    ($name:ident, $op:tt) => {
        fn $name(a: &Datum, b: &Datum) -> Datum {
            match (a, b) {
                (Datum::Int2(x), Datum::Int2(y)) => Datum::Int2(x $op y),
                (Datum::Int4(x), Datum::Int4(y)) => Datum::Int4(x $op y),
                (Datum::Int8(x), Datum::Int8(y)) => Datum::Int8(x $op y),
                _ => Datum::Null,
            }
        }
    };
}

bits!(bit_and, &);
bits!(bit_or, |);
bits!(bit_xor, ^);

/// `string_agg(text, text)`
#[derive(Default)]
struct StringAgg {
    text: Option<String>,
}

impl AggregateState for StringAgg {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        let Some(value) = args[0].as_str() else { return Ok(()) };
        match &mut self.text {
            None => self.text = Some(value.to_string()),
            Some(text) => {
                text.push_str(args[1].as_str().unwrap_or(""));
                text.push_str(value);
            }
        }
        Ok(())
    }

    fn finish(&self) -> Result<Datum> {
        Ok(self.text.as_ref().map_or(Datum::Null, Datum::text))
    }

    fn memory(&self) -> usize {
        64 + self.text.as_ref().map_or(0, String::capacity)
    }
}

/// `string_agg(bytea, bytea)`
#[derive(Default)]
struct BytesAgg {
    bytes: Option<Vec<u8>>,
}

impl AggregateState for BytesAgg {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        let Datum::Bytea(value) = &args[0] else { return Ok(()) };
        match &mut self.bytes {
            None => self.bytes = Some(value.to_vec()),
            Some(bytes) => {
                if let Datum::Bytea(separator) = &args[1] {
                    bytes.extend_from_slice(separator);
                }
                bytes.extend_from_slice(value);
            }
        }
        Ok(())
    }

    fn finish(&self) -> Result<Datum> {
        Ok(self.bytes.as_deref().map_or(Datum::Null, |b| Datum::Bytea(Arc::from(b))))
    }

    fn memory(&self) -> usize {
        64 + self.bytes.as_ref().map_or(0, Vec::capacity)
    }
}

/// `array_agg(array)`: arrays of one shape, stacked
struct StackAgg {
    element: DataType,
    items: Vec<Datum>,
    inner: Vec<Dimension>,
    count: usize,
    bytes: usize,
}

impl AggregateState for StackAgg {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        let Datum::Array(part) = &args[0] else {
            return Err(SqlError::null_value_not_allowed("cannot accumulate null arrays"));
        };
        let dimensions = part.dimensions();
        if dimensions.is_empty() {
            return Err(SqlError::array_subscript_error("cannot accumulate empty arrays"));
        }
        if self.count == 0 {
            if dimensions.len() >= MAX_DIMENSIONS {
                return Err(crate::types::too_many_dimensions(dimensions.len() + 1));
            }
            self.inner = dimensions;
        } else if self.inner != dimensions {
            let message = "cannot accumulate arrays of different dimensionality";
            return Err(SqlError::array_subscript_error(message));
        }
        self.bytes += args[0].memory();
        self.items.extend_from_slice(&part.items);
        self.count += 1;
        Ok(())
    }

    fn finish(&self) -> Result<Datum> {
        if self.count == 0 {
            return Ok(Datum::Null);
        }
        let mut shape = vec![Dimension::from_one(self.count)];
        shape.extend_from_slice(&self.inner);
        let array = ArrayValue::shaped(self.element.clone(), self.items.clone(), &shape);
        array
            .map(|a| Datum::Array(Arc::new(a)))
            .ok_or_else(|| SqlError::internal("stacked arrays do not fit their dimensions"))
    }

    fn memory(&self) -> usize {
        64 + self.bytes
    }
}

/// `array_agg(x)`, NULLs included
struct ArrayAgg {
    element: DataType,
    items: Vec<Datum>,
    bytes: usize,
}

impl AggregateState for ArrayAgg {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        self.bytes += args[0].memory();
        self.items.push(args[0].clone());
        Ok(())
    }

    fn finish(&self) -> Result<Datum> {
        if self.items.is_empty() {
            return Ok(Datum::Null);
        }
        Ok(Datum::array(self.element.clone(), self.items.clone()))
    }

    fn memory(&self) -> usize {
        64 + self.bytes
    }
}

/// `json_agg`, `jsonb_agg`, `json_object_agg`, `jsonb_object_agg`: text that grows
struct JsonAgg {
    text: String,
    types: Vec<DataType>,
    format: FormatContext,
    object: bool,
    binary: bool,
}

impl JsonAgg {
    fn boxed(
        types: &[DataType],
        context: &EvalContext,
        object: bool,
        binary: bool,
    ) -> Box<dyn AggregateState> {
        let format = context.format.clone();
        Box::new(JsonAgg { text: String::new(), types: types.to_vec(), format, object, binary })
    }
}

impl AggregateState for JsonAgg {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        if !self.text.is_empty() {
            self.text.push_str(", ");
            if !self.object && !self.binary && matches!(args[0], Datum::Array(_) | Datum::Record(_)) {
                self.text.push_str("\n ");
            }
        }
        if self.object {
            if args[0].is_null() {
                return Err(SqlError::invalid_parameter_value("field name must not be null"));
            }
            crate::types::write_json_string(&to_text(&args[0], &self.types[0], &self.format), &mut self.text);
            self.text.push_str(" : ");
        }
        let value = args.len() - 1;
        json_build::write_json(&args[value], &self.types[value], &self.format, &mut self.text)
    }

    fn finish(&self) -> Result<Datum> {
        if self.text.is_empty() {
            return Ok(Datum::Null);
        }
        let text = match self.object {
            true => format!("{{ {} }}", self.text),
            false => format!("[{}]", self.text),
        };
        match self.binary {
            true => Ok(Datum::jsonb(crate::types::parse_json(&text)?)),
            false => Ok(Datum::text(text)),
        }
    }

    fn memory(&self) -> usize {
        128 + self.text.capacity()
    }
}

/// Variance and its like of integers and numeric
struct NumericVariance(NumericMoments, Moment);

impl AggregateState for NumericVariance {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        match &args[0] {
            Datum::Null => Ok(()),
            Datum::Numeric(n) => self.0.add(n),
            other => self.0.add(&Number::from(int(other)?)),
        }
    }

    fn finish(&self) -> Result<Datum> {
        self.0.moment(self.1)
    }
}

/// Variance and its like of floats
struct FloatVariance(FloatMoments, Moment);

impl AggregateState for FloatVariance {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        if !args[0].is_null() {
            self.0.add(float(&args[0])?);
        }
        Ok(())
    }

    fn finish(&self) -> Result<Datum> {
        Ok(self.0.moment(self.1))
    }
}

fn numeric_variance(moment: Moment) -> Box<dyn AggregateState> {
    Box::new(NumericVariance(NumericMoments::default(), moment))
}

fn float_variance(moment: Moment) -> Box<dyn AggregateState> {
    Box::new(FloatVariance(FloatMoments::default(), moment))
}

/// One statistical aggregate over every numeric type.
macro_rules! moments {
    ($($name:literal => $moment:expr),* $(,)?) => {
        &[$(
            aggregate($name, &[Int2], Numeric, |_, _| numeric_variance($moment)),
            aggregate($name, &[Int4], Numeric, |_, _| numeric_variance($moment)),
            aggregate($name, &[Int8], Numeric, |_, _| numeric_variance($moment)),
            aggregate($name, &[Numeric], Numeric, |_, _| numeric_variance($moment)),
            aggregate($name, &[Float4], Float8, |_, _| float_variance($moment)),
            aggregate($name, &[Float8], Float8, |_, _| float_variance($moment)),
        )*]
    };
}

/// Variance and standard deviation.
pub(super) static STATISTICAL: &[AggregateFunction] = moments![
    "variance" => Moment::VarSamp,
    "var_samp" => Moment::VarSamp,
    "var_pop" => Moment::VarPop,
    "stddev" => Moment::StddevSamp,
    "stddev_samp" => Moment::StddevSamp,
    "stddev_pop" => Moment::StddevPop,
];

/// `min` and `max` by type.
macro_rules! extremes {
    ($($ty:expr),* $(,)?) => {
        &[$(
            aggregate("min", &[$ty], $ty, Extreme::min),
            aggregate("max", &[$ty], $ty, Extreme::max),
        )*]
    };
}

/// `min` and `max`.
pub(super) static EXTREMES: &[AggregateFunction] = extremes![
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Text,
    Bpchar,
    Oid,
    Date,
    Time,
    Timetz,
    Timestamp,
    Timestamptz,
    Interval,
    AnyArray,
    AnyEnum,
];

/// The others.
pub(super) static AGGREGATES: &[AggregateFunction] = &[
    aggregate("count", &[], Int8, |_, _| Box::new(Count { rows: 0 })),
    aggregate("count", &[Any], Int8, |_, _| Box::new(Count { rows: 0 })),
    aggregate("sum", &[Int2], Int8, |_, _| IntSum::boxed(SumAs::Int8)),
    aggregate("sum", &[Int4], Int8, |_, _| IntSum::boxed(SumAs::Int8)),
    aggregate("sum", &[Int8], Numeric, |_, _| IntSum::boxed(SumAs::Numeric)),
    aggregate("sum", &[Numeric], Numeric, |_, _| NumericSum::boxed(false)),
    aggregate("sum", &[Float4], Float4, |_, _| FloatSum::boxed(false, true)),
    aggregate("sum", &[Float8], Float8, |_, _| FloatSum::boxed(false, false)),
    aggregate("sum", &[Interval], Interval, |_, _| IntervalSum::boxed(false)),
    aggregate("avg", &[Int2], Numeric, |_, _| IntSum::boxed(SumAs::Average)),
    aggregate("avg", &[Int4], Numeric, |_, _| IntSum::boxed(SumAs::Average)),
    aggregate("avg", &[Int8], Numeric, |_, _| IntSum::boxed(SumAs::Average)),
    aggregate("avg", &[Numeric], Numeric, |_, _| NumericSum::boxed(true)),
    aggregate("avg", &[Float4], Float8, |_, _| FloatSum::boxed(true, false)),
    aggregate("avg", &[Float8], Float8, |_, _| FloatSum::boxed(true, false)),
    aggregate("avg", &[Interval], Interval, |_, _| IntervalSum::boxed(true)),
    aggregate("bool_and", &[Bool], Bool, |_, _| fold(bool_and)),
    aggregate("every", &[Bool], Bool, |_, _| fold(bool_and)),
    aggregate("bool_or", &[Bool], Bool, |_, _| fold(bool_or)),
    aggregate("bit_and", &[Int2], Int2, |_, _| fold(bit_and)),
    aggregate("bit_and", &[Int4], Int4, |_, _| fold(bit_and)),
    aggregate("bit_and", &[Int8], Int8, |_, _| fold(bit_and)),
    aggregate("bit_or", &[Int2], Int2, |_, _| fold(bit_or)),
    aggregate("bit_or", &[Int4], Int4, |_, _| fold(bit_or)),
    aggregate("bit_or", &[Int8], Int8, |_, _| fold(bit_or)),
    aggregate("bit_xor", &[Int2], Int2, |_, _| fold(bit_xor)),
    aggregate("bit_xor", &[Int4], Int4, |_, _| fold(bit_xor)),
    aggregate("bit_xor", &[Int8], Int8, |_, _| fold(bit_xor)),
    aggregate("string_agg", &[Bytea, Bytea], Bytea, |_, _| Box::new(BytesAgg::default())),
    aggregate("string_agg", &[Text, Text], Text, |_, _| Box::new(StringAgg::default())),
    aggregate("array_agg", &[AnyArray], AnyArray, |types, _| {
        let element = types.first().and_then(DataType::element).unwrap_or(DataType::Text);
        Box::new(StackAgg { element, items: Vec::new(), inner: Vec::new(), count: 0, bytes: 0 })
    }),
    aggregate("array_agg", &[AnyElement], Array(&AnyElement), |types, _| {
        let element = types.first().cloned().unwrap_or(DataType::Text);
        Box::new(ArrayAgg { element, items: Vec::new(), bytes: 0 })
    }),
    aggregate("json_agg", &[Any], Json, |types, c| JsonAgg::boxed(types, c, false, false)),
    aggregate("jsonb_agg", &[Any], Jsonb, |types, c| JsonAgg::boxed(types, c, false, true)),
    aggregate("json_object_agg", &[Any, Any], Json, |types, c| JsonAgg::boxed(types, c, true, false)),
    aggregate("jsonb_object_agg", &[Any, Any], Jsonb, |types, c| JsonAgg::boxed(types, c, true, true)),
];

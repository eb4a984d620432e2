//! Arithmetic and bitwise operators of numbers.

use amphora_storage::{Datum, Numeric as Number};

use super::signature::Ty::*;
use super::{Call, ScalarFunction, decimal, function};
use crate::error::{Result, SqlError};

pub(super) fn wrong_kind() -> SqlError {
    SqlError::internal("an argument was not cast to the type its function takes")
}

/// Any integer, widened.
pub(super) fn int(d: &Datum) -> Result<i64> {
    d.as_i64().ok_or_else(wrong_kind)
}

pub(super) fn float(d: &Datum) -> Result<f64> {
    match d {
        Datum::Float8(v) => Ok(*v),
        Datum::Float4(v) => Ok(f64::from(*v)),
        _ => Err(wrong_kind()),
    }
}

pub(super) fn numeric(d: &Datum) -> Result<&Number> {
    match d {
        Datum::Numeric(v) => Ok(v),
        _ => Err(wrong_kind()),
    }
}

fn int2(v: Option<i64>) -> Result<Datum> {
    let fit = v.and_then(|v| i16::try_from(v).ok()).map(Datum::Int2);
    fit.ok_or_else(|| SqlError::numeric_value_out_of_range("smallint out of range"))
}

fn int4(v: Option<i64>) -> Result<Datum> {
    let fit = v.and_then(|v| i32::try_from(v).ok()).map(Datum::Int4);
    fit.ok_or_else(|| SqlError::numeric_value_out_of_range("integer out of range"))
}

fn int8(v: Option<i64>) -> Result<Datum> {
    v.map(Datum::Int8).ok_or_else(|| SqlError::numeric_value_out_of_range("bigint out of range"))
}

/// A float result, which may be infinite only if an argument was.
pub(super) fn checked_float8(v: f64, infinite_input: bool) -> Result<Datum> {
    if v.is_infinite() && !infinite_input {
        return Err(SqlError::numeric_value_out_of_range("value out of range: overflow"));
    }
    Ok(Datum::Float8(v))
}

fn checked_float4(v: f32, infinite_input: bool) -> Result<Datum> {
    if v.is_infinite() && !infinite_input {
        return Err(SqlError::numeric_value_out_of_range("value out of range: overflow"));
    }
    Ok(Datum::Float4(v))
}

fn underflow(zero: bool) -> Result<()> {
    match zero {
        true => Err(SqlError::numeric_value_out_of_range("value out of range: underflow")),
        false => Ok(()),
    }
}

/// An operator of two integers with overflow check, by the width of the result.
macro_rules! int_op {
    ($width:ident, $method:ident) => {
        |a, _| $width(int(&a[0])?.$method(int(&a[1])?))
    };
}

fn divisor(d: &Datum) -> Result<i64> {
    match int(d)? {
        0 => Err(SqlError::division_by_zero()),
        v => Ok(v),
    }
}

macro_rules! int_div {
    ($width:ident) => {
        |a, _| $width(int(&a[0])?.checked_div(divisor(&a[1])?))
    };
}

macro_rules! int_mod {
    ($width:ident) => {
        // The least integer modulo -1 is 0, though its quotient overflows.
        |a, _| $width(Some(int(&a[0])?.wrapping_rem(divisor(&a[1])?)))
    };
}

fn float_pair(a: &[Datum]) -> Result<(f64, f64, bool)> {
    let (x, y) = (float(&a[0])?, float(&a[1])?);
    Ok((x, y, x.is_infinite() || y.is_infinite()))
}

fn float8_add(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (x, y, inf) = float_pair(a)?;
    checked_float8(x + y, inf)
}

fn float8_sub(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (x, y, inf) = float_pair(a)?;
    checked_float8(x - y, inf)
}

fn float8_mul(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (x, y, inf) = float_pair(a)?;
    underflow(x * y == 0.0 && x != 0.0 && y != 0.0)?;
    checked_float8(x * y, inf)
}

fn float8_div(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (x, y, inf) = float_pair(a)?;
    if y == 0.0 && !x.is_nan() {
        return Err(SqlError::division_by_zero());
    }
    underflow(x / y == 0.0 && x != 0.0 && !y.is_infinite())?;
    checked_float8(x / y, inf)
}

fn float4_op(a: &[Datum], op: fn(f32, f32) -> f32) -> Result<Datum> {
    let (x, y, inf) = float_pair(a)?;
    checked_float4(op(x as f32, y as f32), inf)
}

/// A product or quotient that is too small to be told from zero is an error, unless a factor is zero or the
/// divisor infinite.
fn float4_scaled(a: &[Datum], op: fn(f32, f32) -> f32) -> Result<Datum> {
    let (x, y, _) = float_pair(a)?;
    if op(x as f32, y as f32) == 0.0 && x != 0.0 && y != 0.0 && y.is_finite() {
        return Err(SqlError::numeric_value_out_of_range("value out of range: underflow"));
    }
    float4_op(a, op)
}

/// Shifts of `smallint` are made in 32 bits, and the rest is cut off.
fn shift_int2(a: &[Datum], op: fn(i32, u32) -> i32) -> Result<Datum> {
    Ok(Datum::Int2(op(int(&a[0])? as i32, int(&a[1])? as u32) as i16))
}

fn float4_div(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    if float(&a[1])? == 0.0 && !float(&a[0])?.is_nan() {
        return Err(SqlError::division_by_zero());
    }
    float4_scaled(a, |x, y| x / y)
}

pub(super) fn float_power(x: f64, y: f64) -> Result<Datum> {
    let domain = |message: &str| Err(SqlError::new("2201F", message));
    if x == 0.0 && y < 0.0 {
        return domain("zero raised to a negative power is undefined");
    }
    if x < 0.0 && x.is_finite() && y.is_finite() && y.fract() != 0.0 {
        return domain("a negative number raised to a non-integer power yields a complex result");
    }
    let result = x.powf(y);
    underflow(result == 0.0 && x != 0.0 && x.is_finite() && y.is_finite())?;
    checked_float8(result, x.is_infinite() || y.is_infinite())
}

macro_rules! numeric_op {
    ($op:ident) => {
        |a, _| Ok(Datum::numeric(decimal::$op(numeric(&a[0])?, numeric(&a[1])?)?))
    };
}

/// Shifts by the distance modulo the width, as the processor does for PostgreSQL.
macro_rules! shift {
    ($variant:ident, $method:ident) => {
        |a, _| match (&a[0], &a[1]) {
            (Datum::$variant(x), Datum::Int4(n)) => Ok(Datum::$variant(x.$method(*n as u32))),
            _ => Err(wrong_kind()),
        }
    };
}

macro_rules! bits {
    ($variant:ident, $op:tt) => {
        |a, _| match (&a[0], &a[1]) {
            (Datum::$variant(x), Datum::$variant(y)) => Ok(Datum::$variant(x $op y)),
            _ => Err(wrong_kind()),
        }
    };
}

macro_rules! prefix {
    ($variant:ident, |$x:ident| $body:expr) => {
        |a, _| match &a[0] {
            Datum::$variant($x) => $body,
            _ => Err(wrong_kind()),
        }
    };
}

fn same(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    Ok(a[0].clone())
}

/// Four operators over three widths, mixed: the result is the wider.
macro_rules! integer_family {
    ($(($left:expr, $right:expr, $result:expr, $width:ident)),* $(,)?) => {
        &[$(
            function("+", &[$left, $right], $result, int_op!($width, checked_add)),
            function("-", &[$left, $right], $result, int_op!($width, checked_sub)),
            function("*", &[$left, $right], $result, int_op!($width, checked_mul)),
            function("/", &[$left, $right], $result, int_div!($width)),
        )*]
    };
}

/// `+ - * /` of integers.
pub(super) static INTEGER: &[ScalarFunction] = integer_family![
    (Int2, Int2, Int2, int2),
    (Int2, Int4, Int4, int4),
    (Int4, Int2, Int4, int4),
    (Int4, Int4, Int4, int4),
    (Int2, Int8, Int8, int8),
    (Int8, Int2, Int8, int8),
    (Int4, Int8, Int8, int8),
    (Int8, Int4, Int8, int8),
    (Int8, Int8, Int8, int8),
];

macro_rules! float8_family {
    ($(($left:expr, $right:expr)),* $(,)?) => {
        &[$(
            function("+", &[$left, $right], Float8, float8_add),
            function("-", &[$left, $right], Float8, float8_sub),
            function("*", &[$left, $right], Float8, float8_mul),
            function("/", &[$left, $right], Float8, float8_div),
        )*]
    };
}

/// `+ - * /` of floats with a double among them.
pub(super) static FLOAT: &[ScalarFunction] =
    float8_family![(Float8, Float8), (Float4, Float8), (Float8, Float4)];

/// Everything else.
pub(super) static OPERATORS: &[ScalarFunction] = &[
    function("+", &[Float4, Float4], Float4, |a, _| float4_op(a, |x, y| x + y)),
    function("-", &[Float4, Float4], Float4, |a, _| float4_op(a, |x, y| x - y)),
    function("*", &[Float4, Float4], Float4, |a, _| float4_scaled(a, |x, y| x * y)),
    function("/", &[Float4, Float4], Float4, float4_div),
    function("+", &[Numeric, Numeric], Numeric, numeric_op!(add)),
    function("-", &[Numeric, Numeric], Numeric, numeric_op!(subtract)),
    function("*", &[Numeric, Numeric], Numeric, numeric_op!(multiply)),
    function("/", &[Numeric, Numeric], Numeric, numeric_op!(divide)),
    function("%", &[Numeric, Numeric], Numeric, numeric_op!(modulo)),
    function("^", &[Numeric, Numeric], Numeric, numeric_op!(power)),
    function("^", &[Float8, Float8], Float8, |a, _| float_power(float(&a[0])?, float(&a[1])?)),
    function("%", &[Int2, Int2], Int2, int_mod!(int2)),
    function("%", &[Int4, Int4], Int4, int_mod!(int4)),
    function("%", &[Int8, Int8], Int8, int_mod!(int8)),
    function("&", &[Int2, Int2], Int2, bits!(Int2, &)),
    function("&", &[Int4, Int4], Int4, bits!(Int4, &)),
    function("&", &[Int8, Int8], Int8, bits!(Int8, &)),
    function("|", &[Int2, Int2], Int2, bits!(Int2, |)),
    function("|", &[Int4, Int4], Int4, bits!(Int4, |)),
    function("|", &[Int8, Int8], Int8, bits!(Int8, |)),
    function("#", &[Int2, Int2], Int2, bits!(Int2, ^)),
    function("#", &[Int4, Int4], Int4, bits!(Int4, ^)),
    function("#", &[Int8, Int8], Int8, bits!(Int8, ^)),
    function("<<", &[Int2, Int4], Int2, |a, _| shift_int2(a, i32::wrapping_shl)),
    function("<<", &[Int4, Int4], Int4, shift!(Int4, wrapping_shl)),
    function("<<", &[Int8, Int4], Int8, shift!(Int8, wrapping_shl)),
    function(">>", &[Int2, Int4], Int2, |a, _| shift_int2(a, i32::wrapping_shr)),
    function(">>", &[Int4, Int4], Int4, shift!(Int4, wrapping_shr)),
    function(">>", &[Int8, Int4], Int8, shift!(Int8, wrapping_shr)),
    function("~", &[Int2], Int2, prefix!(Int2, |x| Ok(Datum::Int2(!x)))),
    function("~", &[Int4], Int4, prefix!(Int4, |x| Ok(Datum::Int4(!x)))),
    function("~", &[Int8], Int8, prefix!(Int8, |x| Ok(Datum::Int8(!x)))),
    function("-", &[Int2], Int2, prefix!(Int2, |x| int2(Some(-i64::from(*x))))),
    function("-", &[Int4], Int4, prefix!(Int4, |x| int4(Some(-i64::from(*x))))),
    function("-", &[Int8], Int8, prefix!(Int8, |x| int8(x.checked_neg()))),
    function("-", &[Float4], Float4, prefix!(Float4, |x| Ok(Datum::Float4(-x)))),
    function("-", &[Float8], Float8, prefix!(Float8, |x| Ok(Datum::Float8(-x)))),
    function("-", &[Numeric], Numeric, prefix!(Numeric, |x| Ok(Datum::numeric(decimal::negate(x))))),
    function("+", &[Int2], Int2, same),
    function("+", &[Int4], Int4, same),
    function("+", &[Int8], Int8, same),
    function("+", &[Float4], Float4, same),
    function("+", &[Float8], Float8, same),
    function("+", &[Numeric], Numeric, same),
    function("@", &[Int2], Int2, prefix!(Int2, |x| int2(Some(i64::from(*x).abs())))),
    function("@", &[Int4], Int4, prefix!(Int4, |x| int4(Some(i64::from(*x).abs())))),
    function("@", &[Int8], Int8, prefix!(Int8, |x| int8(x.checked_abs()))),
    function("@", &[Float4], Float4, prefix!(Float4, |x| Ok(Datum::Float4(x.abs())))),
    function("@", &[Float8], Float8, prefix!(Float8, |x| Ok(Datum::Float8(x.abs())))),
    function("@", &[Numeric], Numeric, prefix!(Numeric, |x| Ok(Datum::numeric(super::math::numeric_abs(x))))),
    function("|/", &[Float8], Float8, prefix!(Float8, |x| super::math::float_sqrt(*x))),
    function("||/", &[Float8], Float8, prefix!(Float8, |x| Ok(Datum::Float8(x.cbrt())))),
];

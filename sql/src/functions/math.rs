//! Mathematical functions.

use amphora_storage::{Datum, Numeric as Number};
use bigdecimal::{BigDecimal, RoundingMode};
use num_traits::{Signed, Zero};
use rand::Rng;

use super::arithmetic::{checked_float8, float, float_power, int, numeric};
use super::signature::Ty::*;
use super::{Call, ScalarFunction, decimal, function};
use crate::error::{Result, SqlError};

pub(super) fn numeric_abs(n: &Number) -> Number {
    match n {
        Number::Finite(d) => Number::Finite(d.abs()),
        Number::NegInfinity => Number::Infinity,
        other => other.clone(),
    }
}

pub(super) fn float_sqrt(v: f64) -> Result<Datum> {
    if v < 0.0 {
        return Err(SqlError::new("2201F", "cannot take square root of a negative number"));
    }
    Ok(Datum::Float8(v.sqrt()))
}

fn numeric_sqrt(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let n = numeric(&a[0])?;
    if decimal::sign(n) < 0 {
        return Err(SqlError::new("2201F", "cannot take square root of a negative number"));
    }
    Ok(Datum::numeric(match n {
        Number::Finite(d) => Number::Finite(decimal::square_root(d)),
        other => other.clone(),
    }))
}

/// A finite number through a function; infinities and NaN stay.
fn finite(d: &Datum, f: impl FnOnce(&BigDecimal) -> BigDecimal) -> Result<Datum> {
    Ok(Datum::numeric(match numeric(d)? {
        Number::Finite(d) => Number::finite(f(d)),
        other => other.clone(),
    }))
}

/// The second argument of `round` and `trunc`, within numeric's limits.
fn places(d: &Datum) -> Result<i64> {
    Ok(int(d)?.clamp(-131_072, 16_383))
}

fn width_bucket(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (value, low, high, count) = (float(&a[0])?, float(&a[1])?, float(&a[2])?, int(&a[3])?);
    let bad = |message: &str| Err(SqlError::new("2201G", message));
    if count <= 0 {
        return bad("count must be greater than zero");
    }
    if value.is_nan() || low.is_nan() || high.is_nan() {
        return bad("operand, lower bound, and upper bound cannot be NaN");
    }
    if !low.is_finite() || !high.is_finite() {
        return bad("lower and upper bounds must be finite");
    }
    if low == high {
        return bad("lower bound cannot equal upper bound");
    }
    let (position, before, after) = if low < high {
        ((value - low) / (high - low), value < low, value >= high)
    } else {
        ((low - value) / (low - high), value > low, value <= high)
    };
    let bucket = if before {
        0
    } else if after {
        count + 1
    } else {
        (position * count as f64) as i64 + 1
    };
    i32::try_from(bucket)
        .map(Datum::Int4)
        .map_err(|_| SqlError::numeric_value_out_of_range("integer out of range"))
}

fn greatest_divisor(a: i128, b: i128) -> i128 {
    if b == 0 { a.abs() } else { greatest_divisor(b, a % b) }
}

fn least_multiple(a: i128, b: i128) -> i128 {
    if a == 0 || b == 0 { 0 } else { (a / greatest_divisor(a, b) * b).abs() }
}

fn int4_of(v: i128) -> Result<Datum> {
    let fit = i32::try_from(v).map(Datum::Int4);
    fit.map_err(|_| SqlError::numeric_value_out_of_range("integer out of range"))
}

fn int8_of(v: i128) -> Result<Datum> {
    let fit = i64::try_from(v).map(Datum::Int8);
    fit.map_err(|_| SqlError::numeric_value_out_of_range("bigint out of range"))
}

fn wide(d: &Datum) -> Result<i128> {
    Ok(i128::from(int(d)?))
}

fn numeric_div(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (x, y) = (numeric(&a[0])?, numeric(&a[1])?);
    match (x, y) {
        (Number::Finite(m), Number::Finite(n)) if !n.is_zero() => {
            let rest = decimal::modulo(x, y)?;
            let rest = rest.as_finite().cloned().unwrap_or_default();
            let exact = decimal::divide(&Number::finite(m - rest), y)?;
            Ok(Datum::numeric(Number::finite(decimal::round(exact.as_finite().unwrap_or(m), 0))))
        }
        _ => Ok(Datum::numeric(decimal::divide(x, y)?)),
    }
}

fn numeric_gcd(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (mut x, mut y) = (numeric_abs(numeric(&a[0])?), numeric_abs(numeric(&a[1])?));
    while decimal::sign(&y) != 0 && x.as_finite().is_some() && y.as_finite().is_some() {
        let rest = decimal::modulo(&x, &y)?;
        (x, y) = (y, rest);
    }
    Ok(Datum::numeric(x))
}

fn factorial(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let n = int(&a[0])?;
    if n < 0 {
        return Err(SqlError::numeric_value_out_of_range("factorial of a negative number is undefined"));
    }
    if n > 32_177 {
        return Err(SqlError::numeric_value_out_of_range("value overflows numeric format"));
    }
    let product = (1..=n).fold(num_bigint::BigInt::from(1), |p, i| p * i);
    Ok(Datum::numeric(Number::Finite(BigDecimal::from(product))))
}

fn log_domain(v: f64) -> Result<f64> {
    match v {
        0.0 => Err(SqlError::new("2201E", "cannot take logarithm of zero")),
        v if v < 0.0 => Err(SqlError::new("2201E", "cannot take logarithm of a negative number")),
        v => Ok(v),
    }
}

/// A function of one double that is defined everywhere.
macro_rules! plain {
    ($method:ident) => {
        |a, _| {
            let v = float(&a[0])?;
            checked_float8(v.$method(), v.is_infinite())
        }
    };
}

/// A trigonometric function of an angle, which must be finite.
macro_rules! angle {
    (|$x:ident| $body:expr) => {
        |a, _| {
            let $x = float(&a[0])?;
            if $x.is_infinite() {
                return Err(SqlError::numeric_value_out_of_range("input is out of range"));
            }
            Ok(Datum::Float8($body))
        }
    };
}

fn unit_interval(v: f64) -> Result<f64> {
    match v {
        v if v.is_nan() || (-1.0..=1.0).contains(&v) => Ok(v),
        _ => Err(SqlError::numeric_value_out_of_range("input is out of range")),
    }
}

fn exp(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let v = float(&a[0])?;
    let result = v.exp();
    if result == 0.0 && v.is_finite() {
        return Err(SqlError::numeric_value_out_of_range("value out of range: underflow"));
    }
    checked_float8(result, v.is_infinite())
}

/// The functions of this family.
pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    function("abs", &[Int2], Int2, absolute),
    function("abs", &[Int4], Int4, absolute),
    function("abs", &[Int8], Int8, absolute),
    function("abs", &[Float4], Float4, absolute),
    function("abs", &[Float8], Float8, absolute),
    function("abs", &[Numeric], Numeric, absolute),
    function("ceil", &[Float8], Float8, plain!(ceil)),
    function("ceil", &[Numeric], Numeric, |a, _| {
        finite(&a[0], |d| d.with_scale_round(0, RoundingMode::Ceiling))
    }),
    function("ceiling", &[Float8], Float8, plain!(ceil)),
    function("ceiling", &[Numeric], Numeric, |a, _| {
        finite(&a[0], |d| d.with_scale_round(0, RoundingMode::Ceiling))
    }),
    function("floor", &[Float8], Float8, plain!(floor)),
    function("floor", &[Numeric], Numeric, |a, _| {
        finite(&a[0], |d| d.with_scale_round(0, RoundingMode::Floor))
    }),
    function("round", &[Float8], Float8, plain!(round_ties_even)),
    function("round", &[Numeric], Numeric, |a, _| finite(&a[0], |d| decimal::round(d, 0))),
    function("round", &[Numeric, Int4], Numeric, |a, _| {
        let places = places(&a[1])?;
        finite(&a[0], |d| decimal::round(d, places))
    }),
    function("trunc", &[Float8], Float8, plain!(trunc)),
    function("trunc", &[Numeric], Numeric, |a, _| finite(&a[0], |d| decimal::truncate(d, 0))),
    function("trunc", &[Numeric, Int4], Numeric, |a, _| {
        let places = places(&a[1])?;
        finite(&a[0], |d| decimal::truncate(d, places))
    }),
    function("sign", &[Float8], Float8, |a, _| {
        let v = float(&a[0])?;
        Ok(Datum::Float8(if v > 0.0 {
            1.0
        } else if v < 0.0 {
            -1.0
        } else {
            0.0
        }))
    }),
    function("sign", &[Numeric], Numeric, |a, _| {
        let n = numeric(&a[0])?;
        Ok(match n {
            Number::NaN => a[0].clone(),
            n => Datum::numeric(Number::from(i64::from(decimal::sign(n)))),
        })
    }),
    function("sqrt", &[Float8], Float8, |a, _| float_sqrt(float(&a[0])?)),
    function("sqrt", &[Numeric], Numeric, numeric_sqrt),
    function("cbrt", &[Float8], Float8, plain!(cbrt)),
    function("power", &[Float8, Float8], Float8, |a, _| float_power(float(&a[0])?, float(&a[1])?)),
    function("power", &[Numeric, Numeric], Numeric, |a, _| {
        Ok(Datum::numeric(decimal::power(numeric(&a[0])?, numeric(&a[1])?)?))
    }),
    function("pow", &[Float8, Float8], Float8, |a, _| float_power(float(&a[0])?, float(&a[1])?)),
    function("pow", &[Numeric, Numeric], Numeric, |a, _| {
        Ok(Datum::numeric(decimal::power(numeric(&a[0])?, numeric(&a[1])?)?))
    }),
    function("exp", &[Float8], Float8, exp),
    function("exp", &[Numeric], Numeric, |a, _| Ok(Datum::numeric(decimal::exp(numeric(&a[0])?)?))),
    function("ln", &[Float8], Float8, |a, _| Ok(Datum::Float8(log_domain(float(&a[0])?)?.ln()))),
    function("ln", &[Numeric], Numeric, |a, _| Ok(Datum::numeric(decimal::ln(numeric(&a[0])?)?))),
    function("log", &[Float8], Float8, |a, _| Ok(Datum::Float8(log_domain(float(&a[0])?)?.log10()))),
    function("log10", &[Float8], Float8, |a, _| Ok(Datum::Float8(log_domain(float(&a[0])?)?.log10()))),
    function("log", &[Numeric], Numeric, |a, _| {
        Ok(Datum::numeric(decimal::log(&Number::from(10), numeric(&a[0])?)?))
    }),
    function("log10", &[Numeric], Numeric, |a, _| {
        Ok(Datum::numeric(decimal::log(&Number::from(10), numeric(&a[0])?)?))
    }),
    function("log", &[Numeric, Numeric], Numeric, |a, _| {
        Ok(Datum::numeric(decimal::log(numeric(&a[0])?, numeric(&a[1])?)?))
    }),
    function("mod", &[Int2, Int2], Int2, remainder),
    function("mod", &[Int4, Int4], Int4, remainder),
    function("mod", &[Int8, Int8], Int8, remainder),
    function("mod", &[Numeric, Numeric], Numeric, |a, _| {
        Ok(Datum::numeric(decimal::modulo(numeric(&a[0])?, numeric(&a[1])?)?))
    }),
    function("div", &[Numeric, Numeric], Numeric, numeric_div),
    function("gcd", &[Int4, Int4], Int4, |a, _| int4_of(greatest_divisor(wide(&a[0])?, wide(&a[1])?))),
    function("gcd", &[Int8, Int8], Int8, |a, _| int8_of(greatest_divisor(wide(&a[0])?, wide(&a[1])?))),
    function("gcd", &[Numeric, Numeric], Numeric, numeric_gcd),
    function("lcm", &[Int4, Int4], Int4, |a, _| int4_of(least_multiple(wide(&a[0])?, wide(&a[1])?))),
    function("lcm", &[Int8, Int8], Int8, |a, _| int8_of(least_multiple(wide(&a[0])?, wide(&a[1])?))),
    function("factorial", &[Int8], Numeric, factorial),
    function("pi", &[], Float8, |_, _| Ok(Datum::Float8(std::f64::consts::PI))),
    function("degrees", &[Float8], Float8, plain!(to_degrees)),
    function("radians", &[Float8], Float8, plain!(to_radians)),
    function("sin", &[Float8], Float8, angle!(|x| x.sin())),
    function("cos", &[Float8], Float8, angle!(|x| x.cos())),
    function("tan", &[Float8], Float8, angle!(|x| x.tan())),
    function("cot", &[Float8], Float8, angle!(|x| 1.0 / x.tan())),
    function("asin", &[Float8], Float8, |a, _| Ok(Datum::Float8(unit_interval(float(&a[0])?)?.asin()))),
    function("acos", &[Float8], Float8, |a, _| Ok(Datum::Float8(unit_interval(float(&a[0])?)?.acos()))),
    function("atan", &[Float8], Float8, |a, _| Ok(Datum::Float8(float(&a[0])?.atan()))),
    function("atan2", &[Float8, Float8], Float8, |a, _| {
        Ok(Datum::Float8(float(&a[0])?.atan2(float(&a[1])?)))
    }),
    function("sinh", &[Float8], Float8, |a, _| Ok(Datum::Float8(float(&a[0])?.sinh()))),
    function("cosh", &[Float8], Float8, |a, _| Ok(Datum::Float8(float(&a[0])?.cosh()))),
    function("tanh", &[Float8], Float8, |a, _| Ok(Datum::Float8(float(&a[0])?.tanh()))),
    function("width_bucket", &[Float8, Float8, Float8, Int4], Int4, width_bucket),
    function("scale", &[Numeric], Int4, |a, _| match numeric(&a[0])? {
        Number::Finite(d) => Ok(Datum::Int4(decimal::scale(d) as i32)),
        _ => Ok(Datum::Null),
    }),
    function("min_scale", &[Numeric], Int4, |a, _| match numeric(&a[0])? {
        Number::Finite(d) => Ok(Datum::Int4(decimal::scale(&d.normalized()) as i32)),
        _ => Ok(Datum::Null),
    }),
    function("trim_scale", &[Numeric], Numeric, |a, _| finite(&a[0], |d| d.normalized())),
    function("random", &[], Float8, |_, _| Ok(Datum::Float8(rand::rng().random::<f64>()))).volatile(),
    function("setseed", &[Float8], Void, |_, _| Ok(Datum::text(""))).volatile(),
    function("width_bucket", &[AnyElement, AnyArray], Int4, |a, _| match &a[1] {
        Datum::Array(bounds) if bounds.items.iter().any(Datum::is_null) => {
            Err(SqlError::null_value_not_allowed("thresholds array must not contain NULLs"))
        }
        Datum::Array(bounds) => Ok(Datum::Int4(bounds.items.partition_point(|b| *b <= a[0]) as i32)),
        _ => Err(super::arithmetic::wrong_kind()),
    }),
];

fn absolute(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let range = |what: &str| SqlError::numeric_value_out_of_range(format!("{what} out of range"));
    Ok(match &a[0] {
        Datum::Int2(v) => Datum::Int2(v.checked_abs().ok_or_else(|| range("smallint"))?),
        Datum::Int4(v) => Datum::Int4(v.checked_abs().ok_or_else(|| range("integer"))?),
        Datum::Int8(v) => Datum::Int8(v.checked_abs().ok_or_else(|| range("bigint"))?),
        Datum::Float4(v) => Datum::Float4(v.abs()),
        Datum::Float8(v) => Datum::Float8(v.abs()),
        other => Datum::numeric(numeric_abs(numeric(other)?)),
    })
}

fn remainder(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (x, y) = (int(&a[0])?, int(&a[1])?);
    if y == 0 {
        return Err(SqlError::division_by_zero());
    }
    let rest = x.wrapping_rem(y);
    Ok(match &a[0] {
        Datum::Int2(_) => Datum::Int2(rest as i16),
        Datum::Int4(_) => Datum::Int4(rest as i32),
        _ => Datum::Int8(rest),
    })
}

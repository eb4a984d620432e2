//! Hyperbolic functions, and trigonometry in degrees.
//!
//! In degrees the angles of the clock's dial are exact: `sind(30)` is 0.5 and not the float beside it. As
//! PostgreSQL does, an angle is first brought into the first octant, and what is found there is scaled so
//! that 30°, 45° and 60° come out even.

use amphora_storage::Datum;

use super::arithmetic::float;
use super::signature::Ty::*;
use super::{Call, Eval, ScalarFunction, function};
use crate::error::{Result, SqlError};

fn out_of_range() -> SqlError {
    SqlError::numeric_value_out_of_range("input is out of range")
}

/// Sine of 0° to 30°.
fn low_sine(x: f64) -> f64 {
    (x.to_radians().sin() / 30f64.to_radians().sin()) / 2.0
}

/// Cosine of 0° to 60°.
fn low_cosine(x: f64) -> f64 {
    let one_minus = 1.0 - x.to_radians().cos();
    1.0 - (one_minus / (1.0 - 60f64.to_radians().cos())) / 2.0
}

/// Sine of 0° to 90°.
fn quadrant_sine(x: f64) -> f64 {
    if x <= 30.0 { low_sine(x) } else { low_cosine(90.0 - x) }
}

/// Cosine of 0° to 90°.
fn quadrant_cosine(x: f64) -> f64 {
    if x <= 60.0 { low_cosine(x) } else { low_sine(90.0 - x) }
}

/// Where an angle is in the first quadrant, and the signs that sine and cosine have there.
fn folded(x: f64) -> (f64, f64, f64) {
    let mut x = x % 360.0;
    let (mut sine, mut cosine) = (1.0, 1.0);
    if x < 0.0 {
        x = -x;
        sine = -sine;
    }
    if x > 180.0 {
        x = 360.0 - x;
        sine = -sine;
    }
    if x > 90.0 {
        x = 180.0 - x;
        cosine = -cosine;
    }
    (x, sine, cosine)
}

fn angle(a: &[Datum], f: fn(f64, f64, f64) -> f64) -> Result<Datum> {
    let x = float(&a[0])?;
    if x.is_nan() {
        return Ok(Datum::Float8(f64::NAN));
    }
    if x.is_infinite() {
        return Err(out_of_range());
    }
    let (x, sine, cosine) = folded(x);
    let found = f(x, sine, cosine);
    // 0 has no sign here.
    Ok(Datum::Float8(if found == 0.0 { 0.0 } else { found }))
}

fn tangent(x: f64) -> f64 {
    (quadrant_sine(x) / quadrant_cosine(x)) / (quadrant_sine(45.0) / quadrant_cosine(45.0))
}

fn cotangent(x: f64) -> f64 {
    (quadrant_cosine(x) / quadrant_sine(x)) / (quadrant_cosine(45.0) / quadrant_sine(45.0))
}

/// Arc sine of 0 to 1, in degrees.
fn quadrant_arcsine(x: f64) -> f64 {
    if x <= 0.5 { (x.asin() / 0.5f64.asin()) * 30.0 } else { 90.0 - (x.acos() / 0.5f64.acos()) * 60.0 }
}

/// Arc cosine of 0 to 1, in degrees.
fn quadrant_arccosine(x: f64) -> f64 {
    if x <= 0.5 { 90.0 - (x.asin() / 0.5f64.asin()) * 30.0 } else { (x.acos() / 0.5f64.acos()) * 60.0 }
}

fn arc(a: &[Datum], f: fn(f64) -> f64) -> Result<Datum> {
    let x = float(&a[0])?;
    if x.is_nan() {
        return Ok(Datum::Float8(f64::NAN));
    }
    if !(-1.0..=1.0).contains(&x) {
        return Err(out_of_range());
    }
    Ok(Datum::Float8(f(x)))
}

fn arctangent(x: f64) -> f64 {
    (x / 1f64.atan()) * 45.0
}

fn acosh(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let x = float(&a[0])?;
    if x < 1.0 { Err(out_of_range()) } else { Ok(Datum::Float8(x.acosh())) }
}

fn atanh(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let x = float(&a[0])?;
    if !(-1.0..=1.0).contains(&x) && !x.is_nan() { Err(out_of_range()) } else { Ok(Datum::Float8(x.atanh())) }
}

const fn of_float(name: &'static str, eval: Eval) -> ScalarFunction {
    function(name, &[Float8], Float8, eval)
}

/// All of them.
pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    of_float("asinh", |a, _| Ok(Datum::Float8(float(&a[0])?.asinh()))),
    of_float("acosh", acosh),
    of_float("atanh", atanh),
    of_float("sind", |a, _| angle(a, |x, sine, _| sine * quadrant_sine(x))),
    of_float("cosd", |a, _| angle(a, |x, _, cosine| cosine * quadrant_cosine(x))),
    of_float("tand", |a, _| angle(a, |x, sine, cosine| sine * cosine * tangent(x))),
    of_float("cotd", |a, _| angle(a, |x, sine, cosine| sine * cosine * cotangent(x))),
    of_float("asind", |a, _| arc(a, |x| if x >= 0.0 { quadrant_arcsine(x) } else { -quadrant_arcsine(-x) })),
    of_float("acosd", |a, _| {
        arc(a, |x| if x >= 0.0 { quadrant_arccosine(x) } else { 90.0 + quadrant_arcsine(-x) })
    }),
    of_float("atand", |a, _| Ok(Datum::Float8(arctangent(float(&a[0])?.atan())))),
    function("atan2d", &[Float8, Float8], Float8, |a, _| {
        Ok(Datum::Float8(arctangent(float(&a[0])?.atan2(float(&a[1])?))))
    }),
];

//! Arithmetic on `numeric` with PostgreSQL's result scales.
//!
//! Addition and multiplication are exact. Division and the functions that cannot be exact give at least
//! 16 significant digits and never fewer decimals than their operands show (`select_div_scale` and its
//! kin in PostgreSQL's `numeric.c`).

use amphora_storage::Numeric;
use bigdecimal::{BigDecimal, RoundingMode};
use num_bigint::BigInt;
use num_traits::{One, Signed, ToPrimitive, Zero};

use crate::error::{Result, SqlError};

/// The significant digits an inexact result has at least.
const MIN_SIGNIFICANT: i64 = 16;
/// The most decimals an inexact result is given.
const MAX_DISPLAY_SCALE: i64 = 1000;

/// Rounds half away from zero to so many decimals.
pub(super) fn round(d: &BigDecimal, scale: i64) -> BigDecimal {
    d.with_scale_round(scale, RoundingMode::HalfUp)
}

/// Decimals the number shows.
pub(super) fn scale(d: &BigDecimal) -> i64 {
    d.fractional_digit_count().max(0)
}

/// The power of ten of the first digit: 1234.5 is 3, 0.01 is -2. Zero for zero.
fn exponent(d: &BigDecimal) -> i64 {
    if d.is_zero() { 0 } else { d.digits() as i64 - 1 - d.fractional_digit_count() }
}

/// The weight and value of the first digit in base 10000.
fn first_digit(d: &BigDecimal) -> (i64, i64) {
    if d.is_zero() {
        return (0, 0);
    }
    let weight = exponent(d).div_euclid(4);
    let (unscaled, scale) = d.as_bigint_and_exponent();
    let shift = weight * 4 + scale;
    let digit = if shift >= 0 { unscaled.abs() / pow10(shift) } else { unscaled.abs() * pow10(-shift) };
    (weight, digit.to_i64().unwrap_or(0))
}

fn pow10(n: i64) -> BigInt {
    BigInt::from(10).pow(u32::try_from(n).unwrap_or(0))
}

/// The scale of a quotient.
fn quotient_scale(a: &BigDecimal, b: &BigDecimal) -> i64 {
    let ((weight_a, first_a), (weight_b, first_b)) = (first_digit(a), first_digit(b));
    let mut weight = weight_a - weight_b;
    if first_a <= first_b {
        weight -= 1;
    }
    (MIN_SIGNIFICANT - weight * 4).max(scale(a)).max(scale(b)).clamp(0, MAX_DISPLAY_SCALE)
}

/// a / b of finite numbers, rounded to so many decimals.
fn divide_to(a: &BigDecimal, b: &BigDecimal, scale: i64) -> BigDecimal {
    let (x, x_scale) = a.as_bigint_and_exponent();
    let (y, y_scale) = b.as_bigint_and_exponent();
    let shift = scale - x_scale + y_scale;
    let (numerator, denominator) = if shift >= 0 { (x * pow10(shift), y) } else { (x, y * pow10(-shift)) };
    let negative = numerator.is_negative() != denominator.is_negative();
    let (numerator, denominator) = (numerator.abs(), denominator.abs());
    let mut quotient = &numerator / &denominator;
    let remainder = &numerator - &quotient * &denominator;
    if remainder * 2 >= denominator {
        quotient += 1;
    }
    BigDecimal::new(if negative { -quotient } else { quotient }, scale)
}

/// Sign of a value: -1, 0, 1; of NaN 1, which callers have dealt with.
pub(super) fn sign(n: &Numeric) -> i32 {
    match n {
        Numeric::NegInfinity => -1,
        Numeric::Finite(d) if d.is_zero() => 0,
        Numeric::Finite(d) if d.is_negative() => -1,
        _ => 1,
    }
}

fn infinity(sign: i32) -> Numeric {
    if sign < 0 { Numeric::NegInfinity } else { Numeric::Infinity }
}

/// A finite result within the limits of the type.
pub(super) fn checked(d: BigDecimal) -> Result<Numeric> {
    if exponent(&d) >= 131_072 {
        return Err(SqlError::numeric_value_out_of_range("value overflows numeric format"));
    }
    Ok(Numeric::finite(if scale(&d) > 16_383 { round(&d, 16_383) } else { d }))
}

/// a + b
pub(super) fn add(a: &Numeric, b: &Numeric) -> Result<Numeric> {
    use Numeric::*;
    match (a, b) {
        (Finite(x), Finite(y)) => checked(x + y),
        (NaN, _) | (_, NaN) => Ok(NaN),
        (Infinity, NegInfinity) | (NegInfinity, Infinity) => Ok(NaN),
        (Finite(_), other) | (other, _) => Ok(other.clone()),
    }
}

/// -a
pub(super) fn negate(a: &Numeric) -> Numeric {
    match a {
        Numeric::Finite(d) => Numeric::Finite(-d),
        Numeric::Infinity => Numeric::NegInfinity,
        Numeric::NegInfinity => Numeric::Infinity,
        Numeric::NaN => Numeric::NaN,
    }
}

/// a - b
pub(super) fn subtract(a: &Numeric, b: &Numeric) -> Result<Numeric> {
    match (a, b) {
        (Numeric::Finite(x), Numeric::Finite(y)) => checked(x - y),
        _ => add(a, &negate(b)),
    }
}

/// a * b
pub(super) fn multiply(a: &Numeric, b: &Numeric) -> Result<Numeric> {
    use Numeric::*;
    match (a, b) {
        (Finite(x), Finite(y)) => {
            // BigDecimal's own product forgets the scale of a factor that is one.
            let ((x, a), (y, b)) = (x.as_bigint_and_exponent(), y.as_bigint_and_exponent());
            checked(BigDecimal::new(x * y, a + b))
        }
        (NaN, _) | (_, NaN) => Ok(NaN),
        _ if sign(a) == 0 || sign(b) == 0 => Ok(NaN),
        _ => Ok(infinity(sign(a) * sign(b))),
    }
}

/// a / b, 22012 if b is zero.
pub(super) fn divide(a: &Numeric, b: &Numeric) -> Result<Numeric> {
    use Numeric::*;
    match (a, b) {
        (NaN, _) | (_, NaN) => Ok(NaN),
        (_, Finite(y)) if y.is_zero() => Err(SqlError::division_by_zero()),
        (Finite(x), Finite(y)) => checked(divide_to(x, y, quotient_scale(x, y))),
        (Finite(_), _) => Ok(Finite(BigDecimal::zero())),
        (_, Finite(_)) => Ok(infinity(sign(a) * sign(b))),
        _ => Ok(NaN),
    }
}

/// The remainder of a / b, with a's sign. 22012 if b is zero.
pub(super) fn modulo(a: &Numeric, b: &Numeric) -> Result<Numeric> {
    use Numeric::*;
    match (a, b) {
        (NaN, _) | (_, NaN) => Ok(NaN),
        (_, Finite(y)) if y.is_zero() => Err(SqlError::division_by_zero()),
        (Finite(x), Finite(y)) => {
            let scale = scale(x).max(scale(y));
            let (m, n) = (to_scale(x, scale), to_scale(y, scale));
            Ok(Finite(BigDecimal::new(m % n, scale)))
        }
        (Finite(_), _) => Ok(a.clone()),
        _ => Ok(NaN),
    }
}

/// The unscaled integer at a scale no smaller than the number's own.
fn to_scale(d: &BigDecimal, scale: i64) -> BigInt {
    let (unscaled, own) = d.as_bigint_and_exponent();
    if scale >= own { unscaled * pow10(scale - own) } else { unscaled / pow10(own - scale) }
}

/// Truncates toward zero to so many decimals.
pub(super) fn truncate(d: &BigDecimal, scale: i64) -> BigDecimal {
    d.with_scale_round(scale, RoundingMode::Down)
}

/// The square root of a number not negative.
pub(super) fn square_root(d: &BigDecimal) -> BigDecimal {
    let (weight, _) = first_digit(d);
    let result_weight = (weight * 4).div_euclid(2) + 1;
    square_root_to(d, (MIN_SIGNIFICANT - result_weight).max(scale(d)).clamp(0, MAX_DISPLAY_SCALE))
}

/// The square root of a number not negative, to so many decimals.
pub(super) fn square_root_to(d: &BigDecimal, scale: i64) -> BigDecimal {
    // One more digit than shown, then round.
    let unscaled = to_scale(d, (scale + 1) * 2).sqrt();
    round(&BigDecimal::new(unscaled, scale + 1), scale)
}

/// Numbers as integers times 10^-digits, for series.
struct Fixed {
    digits: i64,
    one: BigInt,
}

impl Fixed {
    fn new(digits: i64) -> Fixed {
        Fixed { digits, one: pow10(digits) }
    }

    fn from(&self, d: &BigDecimal) -> BigInt {
        let (unscaled, scale) = d.as_bigint_and_exponent();
        let shift = self.digits - scale;
        if shift >= 0 { unscaled * pow10(shift) } else { unscaled / pow10(-shift) }
    }

    fn mul(&self, a: &BigInt, b: &BigInt) -> BigInt {
        a * b / &self.one
    }

    fn into(self, value: BigInt) -> BigDecimal {
        BigDecimal::new(value, self.digits)
    }

    /// e^x by halving x until it is small, Taylor's series, and squaring back.
    fn exp(&self, x: &BigInt) -> BigInt {
        let mut halvings = 0u32;
        let mut small = x.clone();
        while small.abs() > &self.one / 256 {
            small /= 2;
            halvings += 1;
        }
        let (mut sum, mut term, mut n) = (self.one.clone(), self.one.clone(), 1u32);
        loop {
            term = self.mul(&term, &small) / n;
            if term.is_zero() {
                break;
            }
            sum += &term;
            n += 1;
        }
        for _ in 0..halvings {
            sum = self.mul(&sum, &sum);
        }
        sum
    }

    /// ln x by square roots until x is near 1, and the series of 2 artanh((x-1)/(x+1)).
    fn ln(&self, x: &BigInt) -> BigInt {
        let mut roots = 0u32;
        let mut near = x.clone();
        while (&near - &self.one).abs() > &self.one / 64 {
            near = (near * &self.one).sqrt();
            roots += 1;
        }
        let z = (&near - &self.one) * &self.one / (&near + &self.one);
        let square = self.mul(&z, &z);
        let (mut sum, mut power, mut n) = (z.clone(), z, 3u32);
        loop {
            power = self.mul(&power, &square);
            let term = &power / n;
            if term.is_zero() {
                break;
            }
            sum += term;
            n += 2;
        }
        (sum * 2) << roots
    }
}

/// ln of a positive number to so many decimals.
fn ln_to(d: &BigDecimal, scale: i64) -> BigDecimal {
    let fixed = Fixed::new(scale + exponent(d).abs() + 20);
    let x = fixed.from(d);
    let result = fixed.ln(&x);
    round(&fixed.into(result), scale)
}

/// The power of ten of ln(d)'s first digit, about.
fn ln_exponent(d: &BigDecimal) -> i64 {
    let near_one = (d - BigDecimal::one()).abs();
    if *d >= BigDecimal::new(9.into(), 1) && *d <= BigDecimal::new(11.into(), 1) {
        return if near_one.is_zero() { 0 } else { exponent(&near_one) };
    }
    let ln = exponent(d) as f64 * std::f64::consts::LN_10 + mantissa(d).ln();
    ln.abs().log10().trunc() as i64
}

/// d as m × 10^exponent with m in 1..10.
fn mantissa(d: &BigDecimal) -> f64 {
    let (unscaled, _) = d.as_bigint_and_exponent();
    let digits = unscaled.abs().to_string();
    let head: String = digits.chars().take(17).collect();
    let value: f64 = head.parse().unwrap_or(1.0);
    value / 10f64.powi(head.len() as i32 - 1)
}

fn log_domain(n: &Numeric) -> Result<()> {
    match sign(n) {
        0 => Err(SqlError::new("2201E", "cannot take logarithm of zero")),
        -1 => Err(SqlError::new("2201E", "cannot take logarithm of a negative number")),
        _ => Ok(()),
    }
}

/// The natural logarithm. 2201E outside its domain.
pub(super) fn ln(n: &Numeric) -> Result<Numeric> {
    log_domain(n)?;
    let Some(d) = n.as_finite() else { return Ok(n.clone()) };
    let scale = (MIN_SIGNIFICANT - ln_exponent(d)).max(scale(d)).clamp(0, MAX_DISPLAY_SCALE);
    Ok(Numeric::Finite(ln_to(d, scale)))
}

/// The logarithm of n to a base. 2201E outside its domain, 22012 for base 1.
pub(super) fn log(base: &Numeric, n: &Numeric) -> Result<Numeric> {
    log_domain(base)?;
    log_domain(n)?;
    let (Some(b), Some(x)) = (base.as_finite(), n.as_finite()) else {
        return match (base, n) {
            (Numeric::NaN, _) | (_, Numeric::NaN) => Ok(Numeric::NaN),
            (Numeric::Infinity, Numeric::Infinity) => Ok(Numeric::NaN),
            (Numeric::Infinity, _) => Ok(Numeric::Finite(BigDecimal::zero())),
            _ => Ok(Numeric::Infinity),
        };
    };
    let result_exponent = ln_exponent(x) - ln_exponent(b);
    let scale = (MIN_SIGNIFICANT - result_exponent).max(scale(b)).max(scale(x)).clamp(0, MAX_DISPLAY_SCALE);
    let working = scale + ln_exponent(b).abs() + ln_exponent(x).abs() + 20;
    let (top, bottom) = (ln_to(x, working), ln_to(b, working));
    if bottom.is_zero() {
        return Err(SqlError::division_by_zero());
    }
    Ok(Numeric::Finite(divide_to(&top, &bottom, scale)))
}

/// e^n.
pub(super) fn exp(n: &Numeric) -> Result<Numeric> {
    let d = match n {
        Numeric::Finite(d) => d,
        Numeric::NegInfinity => return Ok(Numeric::Finite(BigDecimal::zero())),
        other => return Ok(other.clone()),
    };
    let approximate = d.to_f64().unwrap_or(f64::INFINITY) * std::f64::consts::LOG10_E;
    if approximate >= 131_072.0 {
        return Err(SqlError::numeric_value_out_of_range("value overflows numeric format"));
    }
    let weight = approximate.clamp(-2000.0, 131_072.0) as i64;
    let scale = (MIN_SIGNIFICANT - weight).max(scale(d)).clamp(0, MAX_DISPLAY_SCALE);
    if approximate < -2000.0 {
        return Ok(Numeric::Finite(BigDecimal::new(BigInt::zero(), scale)));
    }
    let fixed = Fixed::new(scale + weight.abs() + 30);
    let x = fixed.from(d);
    let result = fixed.exp(&x);
    Ok(Numeric::Finite(round(&fixed.into(result), scale)))
}

/// The most digits an integer power may have before it is refused.
const MAX_POWER_DIGITS: f64 = 131_072.0;

/// a^b. 2201F outside its domain.
pub(super) fn power(a: &Numeric, b: &Numeric) -> Result<Numeric> {
    let domain = |message: &str| SqlError::new("2201F", message);
    let one = || Numeric::Finite(BigDecimal::one());
    let (x, y) = match (a, b) {
        (Numeric::Finite(x), Numeric::Finite(y)) => (x, y),
        (_, Numeric::Finite(y)) if y.is_zero() => return Ok(one()),
        (Numeric::Finite(x), _) if x.is_one() => return Ok(one()),
        (Numeric::NaN, _) | (_, Numeric::NaN) => return Ok(Numeric::NaN),
        _ => {
            let as_f64 = |n: &Numeric| n.to_string().parse::<f64>().unwrap_or(f64::NAN);
            let result = as_f64(a).powf(as_f64(b));
            return Ok(match result {
                r if r.is_nan() => Numeric::NaN,
                r if r == f64::INFINITY => Numeric::Infinity,
                r if r == f64::NEG_INFINITY => Numeric::NegInfinity,
                _ => Numeric::Finite(BigDecimal::zero()),
            });
        }
    };
    if x.is_zero() && y.is_negative() {
        return Err(domain("zero raised to a negative power is undefined"));
    }
    let integer = y.with_scale_round(0, RoundingMode::Down) == *y;
    if x.is_negative() && !integer {
        return Err(domain("a negative number raised to a non-integer power yields a complex result"));
    }
    if x.is_zero() {
        return Ok(Numeric::Finite(BigDecimal::new(
            BigInt::from(i32::from(y.is_zero())) * pow10(MIN_SIGNIFICANT),
            MIN_SIGNIFICANT,
        )));
    }
    let log10 = exponent(x) as f64 + mantissa(x).log10();
    let approximate = log10 * y.to_f64().unwrap_or(f64::INFINITY);
    if approximate >= MAX_POWER_DIGITS {
        return Err(SqlError::numeric_value_out_of_range("value overflows numeric format"));
    }
    let weight = if approximate.is_nan() { 0 } else { approximate.max(-2000.0).trunc() as i64 };
    let scale = (MIN_SIGNIFICANT - weight).max(scale(x)).max(scale(y)).clamp(0, MAX_DISPLAY_SCALE);
    if approximate < -2000.0 {
        return Ok(Numeric::Finite(BigDecimal::new(BigInt::zero(), scale)));
    }
    let working = scale + weight.abs() + 30;
    let result = match y.to_i64().filter(|_| integer) {
        // Integer powers show as many decimals as their base, and at least 16.
        Some(n) if i32::try_from(n).is_ok() => {
            let scale = MIN_SIGNIFICANT.max(self::scale(x)).min(MAX_DISPLAY_SCALE);
            return checked(round(&integer_power(x, n, scale + weight.abs() + 30), scale));
        }
        _ => {
            let digits = working + y.to_f64().map_or(0, |v| v.abs().log10().max(0.0) as i64) + 10;
            let ln = ln_to(&x.abs(), digits);
            let fixed = Fixed::new(digits);
            let exponent = fixed.from(&(ln * y));
            let magnitude = fixed.exp(&exponent);
            let value = fixed.into(magnitude);
            let odd = integer && !(y / BigDecimal::from(2)).is_integer();
            if x.is_negative() && odd { -value } else { value }
        }
    };
    checked(round(&result, scale))
}

/// x^n by squaring, each step cut to the digits that matter.
fn integer_power(x: &BigDecimal, n: i64, working: i64) -> BigDecimal {
    let (mut result, mut base, mut left) = (BigDecimal::one(), x.clone(), n.unsigned_abs());
    let digits = u64::try_from(working).unwrap_or(0) + 30;
    while left > 0 {
        if left & 1 == 1 {
            result = (result * &base).with_prec_limit(digits);
        }
        left >>= 1;
        if left > 0 {
            base = (&base * &base).with_prec_limit(digits);
        }
    }
    if n < 0 { divide_to(&BigDecimal::one(), &result, working) } else { result }
}

/// Cuts a number's digits without ever adding any.
trait PrecisionLimit {
    fn with_prec_limit(self, digits: u64) -> BigDecimal;
}

impl PrecisionLimit for BigDecimal {
    fn with_prec_limit(self, digits: u64) -> BigDecimal {
        if self.digits() > digits + 131_072 { self.with_prec(digits + 131_072) } else { self }
    }
}

//! `numeric`: arbitrary precision, with the display scale that PostgreSQL keeps.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use bigdecimal::BigDecimal;
use serde::{Deserialize, Serialize};

/// A `numeric` value. The scale of the `BigDecimal` is the display scale: `1.50` keeps two digits.
/// Invariant: a finite value's scale is never negative.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Numeric {
    /// `-Infinity`
    NegInfinity,
    /// A number
    Finite(#[serde(with = "digits")] BigDecimal),
    /// `Infinity`
    Infinity,
    /// `NaN`, which equals itself and is greater than everything
    NaN,
}

impl Numeric {
    /// A finite value; a negative scale is made zero.
    pub fn finite(d: BigDecimal) -> Numeric {
        if d.fractional_digit_count() < 0 {
            return Numeric::Finite(d.with_scale(0));
        }
        Numeric::Finite(d)
    }

    /// The number, if it is finite.
    pub fn as_finite(&self) -> Option<&BigDecimal> {
        match self {
            Numeric::Finite(d) => Some(d),
            _ => None,
        }
    }

    /// Bytes held on the heap, about.
    pub fn memory(&self) -> usize {
        match self {
            Numeric::Finite(d) => (d.digits() as usize) / 2 + 24,
            _ => 0,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Numeric::NegInfinity => 0,
            Numeric::Finite(_) => 1,
            Numeric::Infinity => 2,
            Numeric::NaN => 3,
        }
    }
}

impl Ord for Numeric {
    fn cmp(&self, other: &Numeric) -> Ordering {
        match (self, other) {
            (Numeric::Finite(a), Numeric::Finite(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Numeric) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Numeric {
    fn eq(&self, other: &Numeric) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Numeric {}

impl Hash for Numeric {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
        if let Numeric::Finite(d) = self {
            d.normalized().hash(state);
        }
    }
}

impl From<i64> for Numeric {
    fn from(v: i64) -> Numeric {
        Numeric::Finite(BigDecimal::from(v))
    }
}

/// The digits as PostgreSQL prints them, trailing zeros of the display scale included.
impl std::fmt::Display for Numeric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Numeric::Finite(d) => f.write_str(&d.to_plain_string()),
            Numeric::NaN => f.write_str("NaN"),
            Numeric::Infinity => f.write_str("Infinity"),
            Numeric::NegInfinity => f.write_str("-Infinity"),
        }
    }
}

/// `BigDecimal`'s own serde asks the format what comes next, which a compact format cannot say.
mod digits {
    use bigdecimal::BigDecimal;
    use num_bigint::BigInt;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(d: &BigDecimal, s: S) -> Result<S::Ok, S::Error> {
        let (unscaled, scale) = d.as_bigint_and_exponent();
        (unscaled.to_signed_bytes_le(), scale).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BigDecimal, D::Error> {
        let (unscaled, scale) = <(Vec<u8>, i64)>::deserialize(d)?;
        // The scale bounds what printing allocates.
        if !(0..=1 << 16).contains(&scale) {
            return Err(serde::de::Error::custom("numeric scale out of range"));
        }
        Ok(BigDecimal::from_bigint(BigInt::from_signed_bytes_le(&unscaled), scale))
    }
}

//! Variance and standard deviation.
//!
//! Numeric input keeps n, Σx and Σx² exactly; float input uses Youngs and Cramer's update (1971), which
//! PostgreSQL uses too, so that the last digits agree.

use amphora_storage::{Datum, Numeric};
use num_traits::Zero;

use super::decimal;
use crate::error::Result;

/// Which statistic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Of a sample
    VarSamp,
    /// Of the population
    VarPop,
    /// Of a sample
    StddevSamp,
    /// Of the population
    StddevPop,
}

impl Moment {
    fn is_sample(self) -> bool {
        matches!(self, Moment::VarSamp | Moment::StddevSamp)
    }

    fn is_root(self) -> bool {
        matches!(self, Moment::StddevSamp | Moment::StddevPop)
    }
}

/// Exact sums.
pub(super) struct NumericMoments {
    count: i64,
    sum: Numeric,
    squares: Numeric,
}

impl Default for NumericMoments {
    fn default() -> NumericMoments {
        NumericMoments { count: 0, sum: Numeric::from(0), squares: Numeric::from(0) }
    }
}

impl NumericMoments {
    pub(super) fn add(&mut self, x: &Numeric) -> Result<()> {
        self.count += 1;
        self.sum = decimal::add(&self.sum, x)?;
        self.squares = decimal::add(&self.squares, &decimal::multiply(x, x)?)?;
        Ok(())
    }

    pub(super) fn moment(&self, moment: Moment) -> Result<Datum> {
        if self.count < 1 + i64::from(moment.is_sample()) {
            return Ok(Datum::Null);
        }
        let n = Numeric::from(self.count);
        // n Σx² - (Σx)², over n (n - 1) or n².
        let top = decimal::subtract(
            &decimal::multiply(&n, &self.squares)?,
            &decimal::multiply(&self.sum, &self.sum)?,
        )?;
        let top = match top {
            Numeric::Finite(d) if d.sign() == num_bigint::Sign::Minus || d.is_zero() => {
                return Ok(Datum::numeric(Numeric::from(0)));
            }
            Numeric::Finite(d) => Numeric::Finite(d),
            _ => return Ok(Datum::numeric(Numeric::NaN)),
        };
        let below = if moment.is_sample() { Numeric::from(self.count - 1) } else { n.clone() };
        let variance = decimal::divide(&top, &decimal::multiply(&n, &below)?)?;
        Ok(Datum::numeric(match variance {
            // To as many decimals as the variance has.
            Numeric::Finite(d) if moment.is_root() => {
                let scale = d.as_bigint_and_exponent().1.max(0);
                Numeric::Finite(decimal::square_root_to(&d, scale))
            }
            other => other,
        }))
    }
}

/// Running sums of floats.
#[derive(Default)]
pub(super) struct FloatMoments {
    count: f64,
    sum: f64,
    deviation: f64,
}

impl FloatMoments {
    pub(super) fn add(&mut self, x: f64) {
        let before = self.count;
        self.count += 1.0;
        self.sum += x;
        if before > 0.0 {
            let difference = x * self.count - self.sum;
            self.deviation += difference * difference / (self.count * before);
        } else if !x.is_finite() {
            self.deviation = f64::NAN;
        }
    }

    pub(super) fn moment(&self, moment: Moment) -> Datum {
        let least = if moment.is_sample() { 2.0 } else { 1.0 };
        if self.count < least {
            return Datum::Null;
        }
        let below = if moment.is_sample() { self.count - 1.0 } else { self.count };
        let variance = self.deviation / below;
        Datum::Float8(if moment.is_root() { variance.sqrt() } else { variance })
    }
}

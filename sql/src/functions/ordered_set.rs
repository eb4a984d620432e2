//! Ordered-set aggregates (`percentile_cont(0.5) WITHIN GROUP (ORDER BY x)`) and two-variable statistics.
//!
//! The caller hands rows over in the order of WITHIN GROUP; each has the direct arguments first, which are
//! the same in every row, and the ordered values after them. Hypothetical-set aggregates (`rank(5) WITHIN
//! GROUP …`) get, after those, how each key is ordered: descending, NULLs first.

use std::cmp::Ordering;
use std::sync::Arc;

use amphora_storage::datum::Interval as Span;
use amphora_storage::{DataType, Datum};

use super::EvalContext;
use super::aggregate::{AggregateFunction, AggregateState, aggregate};
use super::arithmetic::{float, wrong_kind};
use super::signature::Signature;
use super::signature::Ty::*;
use crate::error::{Result, SqlError};

/// Sorted values that are not NULL, and the fractions asked for.
struct Percentile {
    fraction: Datum,
    values: Vec<Datum>,
    bytes: usize,
    element: DataType,
    continuous: bool,
}

impl Percentile {
    fn boxed(types: &[DataType], continuous: bool) -> Box<dyn AggregateState> {
        let element = types.get(1).cloned().unwrap_or(DataType::Float8);
        Box::new(Percentile { fraction: Datum::Null, values: Vec::new(), bytes: 0, element, continuous })
    }

    fn at(&self, fraction: &Datum) -> Result<Datum> {
        if fraction.is_null() {
            return Ok(Datum::Null);
        }
        let p = float(fraction)?;
        if !(0.0..=1.0).contains(&p) {
            return Err(SqlError::numeric_value_out_of_range(format!(
                "percentile value {p} is not between 0 and 1"
            )));
        }
        let count = self.values.len();
        if count == 0 {
            return Ok(Datum::Null);
        }
        if !self.continuous {
            let row = (p * count as f64).ceil() as usize;
            return Ok(self.values[row.max(1) - 1].clone());
        }
        let place = p * (count - 1) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        if low == high {
            return Ok(self.values[low].clone());
        }
        between(&self.values[low], &self.values[high], place - low as f64)
    }
}

/// The value at a share of the way from one to another.
fn between(low: &Datum, high: &Datum, share: f64) -> Result<Datum> {
    match (low, high) {
        (Datum::Float8(a), Datum::Float8(b)) => Ok(Datum::Float8(a + (b - a) * share)),
        (Datum::Interval(a), Datum::Interval(b)) => {
            let range = || SqlError::datetime_field_overflow("interval out of range");
            let difference = Span {
                months: b.months.checked_sub(a.months).ok_or_else(range)?,
                days: b.days.checked_sub(a.days).ok_or_else(range)?,
                micros: b.micros.checked_sub(a.micros).ok_or_else(range)?,
            };
            let Datum::Interval(part) = super::datetime_operator::multiply_interval(&difference, share)?
            else {
                return Err(wrong_kind());
            };
            Ok(Datum::Interval(Arc::new(Span {
                months: a.months.checked_add(part.months).ok_or_else(range)?,
                days: a.days.checked_add(part.days).ok_or_else(range)?,
                micros: a.micros.checked_add(part.micros).ok_or_else(range)?,
            })))
        }
        _ => Err(wrong_kind()),
    }
}

impl AggregateState for Percentile {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        self.fraction = args[0].clone();
        if !args[1].is_null() {
            self.bytes += args[1].memory();
            self.values.push(args[1].clone());
        }
        Ok(())
    }

    fn finish(&self) -> Result<Datum> {
        match &self.fraction {
            Datum::Array(fractions) if !self.values.is_empty() => {
                let values = fractions.items.iter().map(|f| self.at(f)).collect::<Result<_>>()?;
                Ok(Datum::array(self.element.clone(), values))
            }
            Datum::Array(_) => Ok(Datum::Null),
            fraction => self.at(fraction),
        }
    }

    fn memory(&self) -> usize {
        64 + self.bytes
    }
}

/// `mode()`: the value met most often, the first of them if several are.
#[derive(Default)]
struct Mode {
    best: Option<Datum>,
    best_count: u64,
    current: Option<Datum>,
    count: u64,
}

impl AggregateState for Mode {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        if args[0].is_null() {
            return Ok(());
        }
        if self.current.as_ref() == Some(&args[0]) {
            self.count += 1;
        } else {
            self.current = Some(args[0].clone());
            self.count = 1;
        }
        if self.count > self.best_count {
            self.best_count = self.count;
            self.best = self.current.clone();
        }
        Ok(())
    }

    fn finish(&self) -> Result<Datum> {
        Ok(self.best.clone().unwrap_or(Datum::Null))
    }

    fn memory(&self) -> usize {
        64 + self.best.iter().chain(&self.current).map(Datum::memory).sum::<usize>()
    }
}

/// Where a row would stand among the others.
#[derive(Clone, Copy)]
enum Standing {
    Rank,
    DenseRank,
    PercentRank,
    CumeDist,
}

struct Hypothetical {
    result: Standing,
    rows: i64,
    before: i64,
    equal: i64,
    /// Distinct keys before, rows coming in order
    groups: i64,
    last: Option<Vec<Datum>>,
}

impl Hypothetical {
    fn boxed(result: Standing) -> Box<dyn AggregateState> {
        Box::new(Hypothetical { result, rows: 0, before: 0, equal: 0, groups: 0, last: None })
    }
}

impl AggregateState for Hypothetical {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        let keys = args.len() / 4;
        let (direct, key) = (&args[..keys], &args[keys..2 * keys]);
        let flag = |i: usize| args.get(i).and_then(Datum::as_bool) == Some(true);
        let mut order = Ordering::Equal;
        for i in 0..keys {
            let (a, b) = (&key[i], &direct[i]);
            let nulls_first = flag(3 * keys + i);
            let one = match (a.is_null(), b.is_null()) {
                (true, true) => Ordering::Equal,
                (true, false) => {
                    if nulls_first {
                        Ordering::Less
                    } else {
                        Ordering::Greater
                    }
                }
                (false, true) => {
                    if nulls_first {
                        Ordering::Greater
                    } else {
                        Ordering::Less
                    }
                }
                _ if flag(2 * keys + i) => b.cmp(a),
                _ => a.cmp(b),
            };
            if one.is_ne() {
                order = one;
                break;
            }
        }
        self.rows += 1;
        match order {
            Ordering::Less => {
                self.before += 1;
                if self.last.as_deref() != Some(key) {
                    self.groups += 1;
                    self.last = Some(key.to_vec());
                }
            }
            Ordering::Equal => self.equal += 1,
            Ordering::Greater => {}
        }
        Ok(())
    }

    fn finish(&self) -> Result<Datum> {
        Ok(match self.result {
            Standing::Rank => Datum::Int8(self.before + 1),
            Standing::DenseRank => Datum::Int8(self.groups + 1),
            Standing::PercentRank if self.rows == 0 => Datum::Float8(0.0),
            Standing::PercentRank => Datum::Float8(self.before as f64 / self.rows as f64),
            Standing::CumeDist => {
                Datum::Float8((self.before + self.equal + 1) as f64 / (self.rows + 1) as f64)
            }
        })
    }
}

/// Two-variable statistics, by Youngs and Cramer's update as in PostgreSQL.
#[derive(Default)]
struct Regression {
    n: f64,
    x: f64,
    xx: f64,
    y: f64,
    yy: f64,
    xy: f64,
}

struct Statistic(Regression, fn(&Regression) -> Option<f64>);

impl AggregateState for Statistic {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        if args[0].is_null() || args[1].is_null() {
            return Ok(());
        }
        let (y, x) = (float(&args[0])?, float(&args[1])?);
        let s = &mut self.0;
        let before = s.n;
        s.n += 1.0;
        s.x += x;
        s.y += y;
        if before > 0.0 {
            let (dx, dy) = (x * s.n - s.x, y * s.n - s.y);
            let scale = 1.0 / (s.n * before);
            s.xx += dx * dx * scale;
            s.yy += dy * dy * scale;
            s.xy += dx * dy * scale;
        } else {
            if !x.is_finite() {
                (s.xx, s.xy) = (f64::NAN, f64::NAN);
            }
            if !y.is_finite() {
                (s.yy, s.xy) = (f64::NAN, f64::NAN);
            }
        }
        Ok(())
    }

    fn finish(&self) -> Result<Datum> {
        Ok(match self.0.n {
            n if n < 1.0 => Datum::Null,
            _ => (self.1)(&self.0).map_or(Datum::Null, Datum::Float8),
        })
    }
}

/// `regr_count`
struct PairCount(i64);

impl AggregateState for PairCount {
    fn update(&mut self, args: &[Datum]) -> Result<()> {
        self.0 += i64::from(!args[0].is_null() && !args[1].is_null());
        Ok(())
    }

    fn finish(&self) -> Result<Datum> {
        Ok(Datum::Int8(self.0))
    }
}

macro_rules! regression {
    ($($name:literal => $value:expr),* $(,)?) => {
        &[
            aggregate("regr_count", &[Float8, Float8], Int8, |_, _| Box::new(PairCount(0))),
            $(aggregate($name, &[Float8, Float8], Float8, |_, _| {
                Box::new(Statistic(Regression::default(), $value))
            }),)*
        ]
    };
}

/// Two-variable statistics.
pub(super) static REGRESSION: &[AggregateFunction] = regression![
    "regr_sxx" => |s| Some(s.xx),
    "regr_syy" => |s| Some(s.yy),
    "regr_sxy" => |s| Some(s.xy),
    "regr_avgx" => |s| Some(s.x / s.n),
    "regr_avgy" => |s| Some(s.y / s.n),
    "covar_pop" => |s| Some(s.xy / s.n),
    "covar_samp" => |s| (s.n >= 2.0).then(|| s.xy / (s.n - 1.0)),
    "corr" => |s| (s.xx != 0.0 && s.yy != 0.0).then(|| s.xy / (s.xx * s.yy).sqrt()),
    "regr_r2" => |s| match (s.xx == 0.0, s.yy == 0.0) {
        (true, _) => None,
        (_, true) => Some(1.0),
        _ => Some((s.xy * s.xy) / (s.xx * s.yy)),
    },
    "regr_slope" => |s| (s.xx != 0.0).then(|| s.xy / s.xx),
    "regr_intercept" => |s| (s.xx != 0.0).then(|| (s.y - s.x * s.xy / s.xx) / s.n),
];

/// The ordered-set aggregates.
pub(super) static ORDERED_SET: &[AggregateFunction] = &[
    aggregate("percentile_cont", &[Float8, Float8], Float8, |t, _| Percentile::boxed(t, true)),
    aggregate("percentile_cont", &[Float8, Interval], Interval, |t, _| Percentile::boxed(t, true)),
    aggregate("percentile_cont", &[Array(&Float8), Float8], Array(&Float8), |t, _| {
        Percentile::boxed(t, true)
    }),
    aggregate("percentile_cont", &[Array(&Float8), Interval], Array(&Interval), |t, _| {
        Percentile::boxed(t, true)
    }),
    aggregate("percentile_disc", &[Float8, AnyElement], AnyElement, |t, _| Percentile::boxed(t, false)),
    aggregate("percentile_disc", &[Array(&Float8), AnyElement], Array(&AnyElement), |t, _| {
        Percentile::boxed(t, false)
    }),
    aggregate("mode", &[AnyElement], AnyElement, |_, _| Box::new(Mode::default())),
];

const fn standing(
    name: &'static str,
    returns: super::signature::Ty,
    new_state: super::NewState,
) -> AggregateFunction {
    AggregateFunction { name, signature: Signature { args: &[Any], variadic: true, returns }, new_state }
}

/// The hypothetical-set aggregates, whose names are window functions' too.
static HYPOTHETICAL: &[AggregateFunction] = &[
    standing("rank", Int8, |_, _: &EvalContext| Hypothetical::boxed(Standing::Rank)),
    standing("dense_rank", Int8, |_, _: &EvalContext| Hypothetical::boxed(Standing::DenseRank)),
    standing("percent_rank", Float8, |_, _: &EvalContext| Hypothetical::boxed(Standing::PercentRank)),
    standing("cume_dist", Float8, |_, _: &EvalContext| Hypothetical::boxed(Standing::CumeDist)),
];

/// True of an aggregate that needs WITHIN GROUP.
pub fn is_ordered_set(name: &str) -> bool {
    matches!(name, "percentile_cont" | "percentile_disc" | "mode")
}

/// The hypothetical-set aggregate of this name.
pub fn hypothetical(name: &str) -> Option<&'static AggregateFunction> {
    HYPOTHETICAL.iter().find(|f| f.name == name)
}

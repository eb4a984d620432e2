//! What a sample says of one column: PostgreSQL's `compute_scalar_stats`, in brief.

use amphora_storage::schema::{Column, ColumnStatistics};
use amphora_storage::{DataType, Datum};

use super::Detail;
use super::sample::Sampled;

const MILLION: f64 = 1e6;

/// A column of which at least this share of the rows is different grows with the table.
const SCALES_FROM: f64 = 0.1;

/// How much commoner than the average a value must be to be kept.
const COMMON: f64 = 1.25;

/// A value's occurrences in the sample.
struct Run<'a> {
    value: &'a Datum,
    count: usize,
}

pub(super) fn statistics(
    column: &Column,
    sample: &[&Sampled],
    rows: u64,
    detail: Detail,
) -> ColumnStatistics {
    let taken = sample.len().max(1) as f64;
    let mut values: Vec<(&Datum, usize)> = Vec::with_capacity(sample.len());
    let (mut nulls, mut wide, mut width) = (0usize, 0usize, 0usize);
    for (place, sampled) in sample.iter().enumerate() {
        match sampled {
            Sampled::Value(Datum::Null) => nulls += 1,
            Sampled::Value(value) => {
                width += bytes(value);
                values.push((value, place));
            }
            Sampled::Wide(bytes) => {
                width += bytes;
                wide += 1;
            }
        }
    }
    let present = values.len() + wide;
    let mut statistics = ColumnStatistics {
        column: column.id,
        null_fraction: millionths(nulls as f64 / taken),
        width: u32::try_from(width / present.max(1)).unwrap_or(u32::MAX),
        distinct: 0,
        distinct_scales: false,
        most_common: Vec::new(),
        histogram: Vec::new(),
        correlation: 0,
    };
    // Without an order of its own (json), nothing more can be said.
    if matches!(column.ty.base(), DataType::Json) || present == 0 {
        return statistics;
    }
    values.sort_by(|a, b| a.0.cmp(b.0).then(a.1.cmp(&b.1)));
    let runs = runs(&values);
    statistics.correlation = correlation(&values);
    let once = runs.iter().filter(|r| r.count == 1).count() + wide;
    let different = runs.len() + wide;
    let total = rows as f64 * present as f64 / taken;
    let all = if once == different {
        // All different: so is the rest.
        total
    } else if once == 0 {
        different as f64
    } else {
        // Haas and Stokes 1998, "Duj1".
        let (n, f1, d) = (present as f64, once as f64, different as f64);
        let estimate = n * d / (n - f1 + f1 * n / total.max(n));
        estimate.clamp(d, total.max(d))
    };
    let whole_table = sample.len() as u64 >= rows;
    let all = if whole_table && once != different { different as f64 } else { all };
    if all > rows as f64 * SCALES_FROM {
        statistics.distinct_scales = true;
        statistics.distinct = u64::from(millionths(all / (rows as f64).max(1.0)));
    } else {
        statistics.distinct = all.round().max(1.0) as u64;
    }
    let common = most_common(&runs, values.len(), detail.0, whole_table && wide == 0);
    statistics.most_common =
        common.iter().map(|&i| (runs[i].value.clone(), millionths(runs[i].count as f64 / taken))).collect();
    statistics.histogram = histogram(&runs, &common, detail.0);
    statistics
}

fn millionths(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * MILLION).round() as u32
}

/// Bytes of a value as it is stored, about.
fn bytes(value: &Datum) -> usize {
    value.memory().saturating_sub(std::mem::size_of::<Datum>()).max(match value {
        Datum::Bool(_) => 1,
        Datum::Int2(_) => 2,
        Datum::Int4(_) | Datum::Date(_) | Datum::Float4(_) | Datum::Oid(_) => 4,
        _ => 8,
    })
}

/// Equal values together.
fn runs<'a>(sorted: &[(&'a Datum, usize)]) -> Vec<Run<'a>> {
    let mut runs: Vec<Run<'a>> = Vec::new();
    for &(value, _) in sorted {
        match runs.last_mut() {
            Some(run) if run.value == value => run.count += 1,
            _ => runs.push(Run { value, count: 1 }),
        }
    }
    runs
}

/// Which runs are kept as most common values, commonest first.
fn most_common(runs: &[Run<'_>], values: usize, most: usize, complete: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..runs.len()).filter(|&i| runs[i].count > 1 || complete).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(runs[i].count));
    if complete && runs.len() <= most {
        // A column of few values is known completely, unless each is there once.
        return if runs.iter().any(|r| r.count > 1) { order } else { Vec::new() };
    }
    order.retain(|&i| runs[i].count > 1);
    order.truncate(most);
    let average = values as f64 / runs.len().max(1) as f64;
    order.retain(|&i| runs[i].count as f64 > average * COMMON);
    order
}

/// Bounds of buckets that hold equally many of the values that are not among the most common.
fn histogram(runs: &[Run<'_>], common: &[usize], buckets: usize) -> Vec<Datum> {
    let mut is_common = vec![false; runs.len()];
    common.iter().for_each(|&i| is_common[i] = true);
    let rest: Vec<&Run<'_>> = runs.iter().zip(&is_common).filter(|(_, c)| !**c).map(|(r, _)| r).collect();
    if rest.len() < 2 {
        return Vec::new();
    }
    let total: usize = rest.iter().map(|r| r.count).sum();
    let bounds = (buckets + 1).min(rest.len());
    let mut out = Vec::with_capacity(bounds);
    let (mut seen, mut next) = (0usize, 0usize);
    for run in rest {
        seen += run.count;
        // The bound `next` is the value at this place of all.
        while next < bounds && next * (total - 1) / (bounds - 1) < seen {
            out.push(run.value.clone());
            next += 1;
        }
    }
    out
}

/// How far the order of the values follows the order in which they are stored: Pearson's coefficient of
/// the two ranks.
fn correlation(sorted: &[(&Datum, usize)]) -> i32 {
    let n = sorted.len() as f64;
    if sorted.len() < 2 {
        return 0;
    }
    let mut places: Vec<usize> = sorted.iter().map(|(_, place)| *place).collect();
    places.sort_unstable();
    let rank = |place: usize| places.partition_point(|p| *p < place) as f64;
    let product: f64 = sorted.iter().enumerate().map(|(i, (_, place))| i as f64 * rank(*place)).sum();
    let sum = n * (n - 1.0) / 2.0;
    let squares = n * (n - 1.0) * (2.0 * n - 1.0) / 6.0;
    let coefficient = (n * product - sum * sum) / (n * squares - sum * sum);
    (coefficient.clamp(-1.0, 1.0) * MILLION).round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use amphora_storage::schema::ColumnId;

    fn look(values: Vec<Datum>, rows: u64) -> ColumnStatistics {
        let sample: Vec<Sampled> = values.into_iter().map(Sampled::Value).collect();
        let column = Column::new(ColumnId(0), "c", DataType::Int4);
        statistics(&column, &sample.iter().collect::<Vec<_>>(), rows, Detail(10))
    }

    #[test]
    fn a_key_is_all_different_and_in_order() {
        let s = look((0..1000).map(Datum::Int4).collect(), 1_000_000);
        assert!(s.distinct_scales);
        assert_eq!(s.distinct, 1_000_000);
        assert!(s.most_common.is_empty());
        assert_eq!(s.histogram.len(), 11);
        assert_eq!(s.histogram.first(), Some(&Datum::Int4(0)));
        assert_eq!(s.histogram.last(), Some(&Datum::Int4(999)));
        assert_eq!(s.correlation, 1_000_000);
    }

    #[test]
    fn few_values_are_known_with_their_frequencies() {
        let values = (0..1000).map(|i| if i % 4 == 0 { Datum::Null } else { Datum::Int4(i % 4) }).collect();
        let s = look(values, 1000);
        assert_eq!(s.null_fraction, 250_000);
        assert_eq!((s.distinct, s.distinct_scales), (3, false));
        assert_eq!(s.most_common.len(), 3);
        assert!(s.most_common.iter().all(|(_, share)| *share == 250_000));
        assert!(s.histogram.is_empty());
    }

    #[test]
    fn an_empty_column_says_nothing() {
        let s = look(Vec::new(), 0);
        assert_eq!((s.distinct, s.null_fraction), (0, 0));
    }
}

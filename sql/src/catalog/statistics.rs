//! `pg_stats`: what ANALYZE learned.

use amphora_storage::schema::ColumnStatistics;
use amphora_storage::{DataType, Datum, Row};

use super::{Columns, Definition, SystemContext, Ty, pg, row, text};
use crate::error::Result;
use crate::types::{FormatContext, to_text};

pub(super) const DEFINITIONS: &[Definition] = &[pg("pg_stats", 12_110, STATS, stats)];

const STATS: Columns = &[
    ("schemaname", Ty::Name),
    ("tablename", Ty::Name),
    ("attname", Ty::Name),
    ("inherited", Ty::Bool),
    ("null_frac", Ty::Float4),
    ("avg_width", Ty::Int4),
    ("n_distinct", Ty::Float4),
    ("most_common_vals", Ty::Text),
    ("most_common_freqs", Ty::Float4s),
    ("histogram_bounds", Ty::Text),
    ("correlation", Ty::Float4),
    ("most_common_elems", Ty::Text),
    ("most_common_elem_freqs", Ty::Float4s),
    ("elem_count_histogram", Ty::Float4s),
];

fn share(millionths: f64) -> Datum {
    Datum::Float4((millionths / 1e6) as f32)
}

fn stats(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for table in context.catalog.tables() {
        let Some(known) = context.catalog.statistics(table.id) else { continue };
        for s in &known.columns {
            let Some(column) = table.visible_columns().iter().find(|c| c.id == s.column) else { continue };
            let frequencies =
                s.most_common.iter().map(|(_, millionths)| share(f64::from(*millionths))).collect();
            let frequencies = Datum::array(DataType::Float4, frequencies);
            rows.push(row(
                STATS,
                &[
                    ("schemaname", text(&table.schema)),
                    ("tablename", text(&table.name)),
                    ("attname", text(&column.name)),
                    ("inherited", Datum::Bool(false)),
                    ("null_frac", share(f64::from(s.null_fraction))),
                    ("avg_width", Datum::Int4(i32::try_from(s.width).unwrap_or(i32::MAX))),
                    ("n_distinct", distinct(s)),
                    (
                        "most_common_vals",
                        values(s.most_common.iter().map(|(v, _)| v.clone()).collect(), &column.ty),
                    ),
                    ("most_common_freqs", if s.most_common.is_empty() { Datum::Null } else { frequencies }),
                    ("histogram_bounds", values(s.histogram.clone(), &column.ty)),
                    ("correlation", share(f64::from(s.correlation))),
                ],
            ));
        }
    }
    Ok(rows)
}

/// As PostgreSQL shows it: a number that grows with the table is a negative share of its rows.
fn distinct(s: &ColumnStatistics) -> Datum {
    match s.distinct_scales {
        true => share(-(s.distinct as f64)),
        false => Datum::Float4(s.distinct as f32),
    }
}

fn values(values: Vec<Datum>, ty: &DataType) -> Datum {
    if values.is_empty() {
        return Datum::Null;
    }
    let array = Datum::array(ty.base(), values);
    text(to_text(&array, &ty.base().array(), &FormatContext::default()))
}

//! `amphora.conflicts`: concurrent writes to leaderless tables of which one lost, as this node found them, and
//! `amphora.conflict_counts`.

use amphora_replication::leaderless::{Conflict, Side};
use amphora_storage::schema::{Column, ColumnId, IndexId, Table};
use amphora_storage::{Datum, Json, Row, key};
use serde_json::{Map, Value};

use super::cluster::time_of;
use super::{Columns, SystemContext, Ty, text};
use crate::error::Result;
use crate::functions::json_value;
use crate::types::FormatContext;

pub(super) const CONFLICTS: Columns = &[
    ("conflict_id", Ty::Int8),
    ("schema_name", Ty::Name),
    ("table_name", Ty::Name),
    ("key", Ty::Jsonb),
    ("column_name", Ty::Name),
    ("kind", Ty::Text),
    ("loser", Ty::Jsonb),
    ("winner", Ty::Jsonb),
    ("loser_origin", Ty::Int8),
    ("winner_origin", Ty::Int8),
    ("loser_at", Ty::Timestamptz),
    ("winner_at", Ty::Timestamptz),
    ("loser_vector", Ty::Jsonb),
    ("winner_vector", Ty::Jsonb),
];

pub(super) const COUNTS: Columns =
    &[("schema_name", Ty::Name), ("table_name", Ty::Name), ("kind", Ty::Text), ("conflicts", Ty::Int8)];

pub(super) fn conflicts(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let found = context.engine.conflicts()?;
    // Of a table that is gone, nothing can be shown.
    let shown = found.iter().filter_map(|conflict| {
        let table = context.catalog.tables().find(|t| holds(t, &conflict.key))?;
        Some(row(table, conflict))
    });
    Ok(shown.collect())
}

pub(super) fn counts(context: &SystemContext<'_>, _: &[(usize, Datum)]) -> Result<Vec<Row>> {
    let counts = context.engine.conflict_counts().into_iter();
    Ok(counts
        .map(|(schema, table, kind, n)| {
            vec![text(&schema), text(&table), text(kind.as_str()), Datum::Int8(n.cast_signed())]
        })
        .collect())
}

/// True if a row key is one of this table's.
pub(crate) fn holds(table: &Table, row_key: &[u8]) -> bool {
    matches!(key::split_prefix(row_key), Some((id, IndexId::PRIMARY, _)) if id == table.keyspace())
}

/// The key's values, in the key's order; fewer if it cannot be read.
pub(crate) fn key_values(table: &Table, row_key: &[u8]) -> Vec<Datum> {
    let mut rest = key::split_prefix(row_key).map_or(&[][..], |(_, _, rest)| rest);
    let mut values = Vec::new();
    for (i, &c) in table.primary.columns.iter().enumerate() {
        let Some(column) = table.columns.get(c) else { break };
        match key::decode_ordered(rest, &column.ty, table.primary.order(i)) {
            Ok((value, length)) => {
                values.push(value);
                rest = rest.get(length..).unwrap_or_default();
            }
            Err(_) => break,
        }
    }
    values
}

fn row(table: &Table, conflict: &Conflict) -> Row {
    let keys = key_values(table, &conflict.key).into_iter().zip(&table.primary.columns);
    let key: Map<String, Value> = keys
        .filter_map(|(value, &c)| {
            let column = table.columns.get(c)?;
            Some((column.name.clone(), shown(column, &value)))
        })
        .collect();
    let column = conflict.column.and_then(|id| column(table, id));
    let of = |side: &Side| match conflict.column {
        Some(_) => {
            let value = side.values.first().and_then(|(id, v)| Some(shown(self::column(table, *id)?, v)));
            jsonb(value.unwrap_or(Value::Null))
        }
        // Who deleted the row has no values.
        None if side.values.is_empty() => Datum::Null,
        None => {
            let values = side.values.iter().filter_map(|(id, v)| {
                let column = self::column(table, *id)?;
                Some((column.name.clone(), shown(column, v)))
            });
            jsonb(Value::Object(values.collect()))
        }
    };
    let vector = |side: &Side| {
        let seen = side.vector.iter().map(|(origin, seq)| (origin.to_string(), Value::from(seq)));
        jsonb(Value::Object(seen.collect()))
    };
    vec![
        Datum::Int8(conflict.id),
        text(&table.schema),
        text(&table.name),
        jsonb(Value::Object(key)),
        column.map_or(Datum::Null, |c| text(&c.name)),
        text(conflict.kind.as_str()),
        of(&conflict.loser),
        of(&conflict.winner),
        Datum::Int8(conflict.loser.origin.cast_signed()),
        Datum::Int8(conflict.winner.origin.cast_signed()),
        time_of(conflict.loser.hlc),
        time_of(conflict.winner.hlc),
        vector(&conflict.loser),
        vector(&conflict.winner),
    ]
}

fn column(table: &Table, id: ColumnId) -> Option<&Column> {
    table.columns.iter().find(|c| c.id == id)
}

fn shown(column: &Column, value: &Datum) -> Value {
    json_value(value, &column.ty.base(), &FormatContext::default())
}

fn jsonb(value: Value) -> Datum {
    Datum::jsonb(Json(value))
}

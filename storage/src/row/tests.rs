#![allow(clippy::unwrap_used, clippy::expect_used)]

use bigdecimal::BigDecimal;
use proptest::prelude::*;

use super::*;
use crate::array::{Array, Dimension};
use crate::datum::Interval;
use crate::numeric::Numeric;
use crate::schema::{Column, Index, IndexId, Quorum, Replication, TableId};
use crate::{Json, Timestamp};

fn table(ids: &[u32]) -> Table {
    Table {
        id: TableId(20000),
        version: Timestamp::ZERO,
        schema: "public".into(),
        name: "t".into(),
        owner: "amphora".into(),
        replication: Replication::Strong,
        columns: ids
            .iter()
            .map(|&id| Column {
                not_null: false,
                default: None,
                ..Column::new(ColumnId(id), format!("c{id}"), DataType::Unknown)
            })
            .collect(),
        primary: Index::of_constraint(IndexId::PRIMARY, "t_pkey", 20001, vec![0]),
        hidden_key: false,
        indexes: vec![],
        checks: vec![],
        foreign_keys: Vec::new(),
        comment: None,
        next_column_id: ids.iter().max().map_or(0, |m| m + 1),
        next_index_id: 1,
        storage: None,
        write_quorum: Quorum::ONE,
        read_quorum: Quorum::ONE,
    }
}

fn scalar() -> impl Strategy<Value = Datum> {
    prop_oneof![
        Just(Datum::Null),
        any::<bool>().prop_map(Datum::Bool),
        any::<i16>().prop_map(Datum::Int2),
        any::<i32>().prop_map(Datum::Int4),
        any::<i64>().prop_map(Datum::Int8),
        (-300i64..300).prop_map(Datum::Int8),
        any::<u32>().prop_map(Datum::Oid),
        any::<f32>().prop_map(Datum::Float4),
        any::<f64>().prop_map(Datum::Float8),
        (any::<i128>(), 0i64..30)
            .prop_map(|(v, s)| Datum::numeric(Numeric::finite(BigDecimal::new(v.into(), s)))),
        (-200i32..200, 0i64..4)
            .prop_map(|(v, s)| Datum::numeric(Numeric::finite(BigDecimal::new(v.into(), s)))),
        Just(Datum::numeric(Numeric::NaN)),
        Just(Datum::numeric(Numeric::NegInfinity)),
        ".{0,12}".prop_map(Datum::text),
        proptest::collection::vec(any::<u8>(), 0..12).prop_map(|b| Datum::Bytea(b.into())),
        any::<i32>().prop_map(Datum::Date),
        any::<i64>().prop_map(Datum::Time),
        any::<i64>().prop_map(Datum::Timestamp),
        any::<i64>().prop_map(Datum::Timestamptz),
        (any::<i32>(), any::<i32>(), any::<i64>())
            .prop_map(|(months, days, micros)| Datum::Interval(Interval { months, days, micros }.into())),
        any::<[u8; 16]>().prop_map(Datum::uuid),
        (any::<i32>(), ".{0,4}").prop_map(|(n, s)| Datum::jsonb(Json(
            serde_json::json!({ "n": n, "list": [s, null, true, 1.50], "empty": {} })
        ))),
    ]
}

fn datum() -> impl Strategy<Value = Datum> {
    scalar().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|i| Datum::array(DataType::Text, i)),
            (proptest::collection::vec(inner.clone(), 4), -2i32..3).prop_map(|(items, lower)| {
                let dimensions = [Dimension { length: 2, lower }, Dimension { length: 2, lower: 1 }];
                Datum::Array(Array::shaped(DataType::Text, items, &dimensions).unwrap().into())
            }),
            proptest::collection::vec(inner, 0..4).prop_map(|i| Datum::Record(i.into())),
        ]
    })
}

/// Equal to the last detail: `==` would forget widths and scales.
fn shown(row: &[Datum]) -> String {
    format!("{row:?}")
}

proptest! {
    #[test]
    fn round_trip(row in proptest::collection::vec(datum(), 1..8)) {
        let t = table(&(0..row.len() as u32).collect::<Vec<_>>());
        let bytes = encode_row(&t, &row).unwrap();
        prop_assert_eq!(shown(&decode_row(&t, &bytes).unwrap()), shown(&row));
        let view = RowView::new(&bytes).unwrap();
        for (c, d) in t.columns.iter().zip(&row) {
            prop_assert_eq!(shown(&[view.column(c.id, &c.ty).unwrap().unwrap()]), shown(std::slice::from_ref(d)));
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..60), tag in 0u8..26) {
        let t = table(&[0, 1, 2]);
        let _ = decode_row(&t, &bytes);
        if bytes.len() > 3 {
            bytes[..3].copy_from_slice(&[SMALL, 1, 0]);
            let _ = decode_row(&t, &bytes);
            bytes[0] = tag;
            let _ = decode_value(&bytes);
        }
    }

    #[test]
    fn damage_never_panics(row in proptest::collection::vec(datum(), 1..4), at in any::<proptest::sample::Index>(), b in any::<u8>()) {
        let t = table(&(0..row.len() as u32).collect::<Vec<_>>());
        let mut bytes = encode_row(&t, &row).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = b;
        let _ = decode_row(&t, &bytes);
        let _ = decode_row(&t, &bytes[..at]);
    }
}

#[test]
fn columns_come_and_go() {
    let before = table(&[0, 1, 2]);
    let bytes = encode_row(&before, &[Datum::Int4(1), Datum::text("dropped"), Datum::text("kept")]).unwrap();
    let after = table(&[0, 2, 5]);
    let row = decode_row(&after, &bytes).unwrap();
    assert_eq!(row, [Datum::Int4(1), Datum::text("kept"), Datum::Null]);
    assert_eq!(RowView::new(&bytes).unwrap().column(ColumnId(5), &DataType::Text).unwrap(), None);
    // Written anew, the dropped column's slot is empty, and so are those between.
    let bytes = encode_row(&after, &row).unwrap();
    let view = RowView::new(&bytes).unwrap();
    assert!(view.raw(ColumnId(1)).unwrap().is_none());
    assert!(view.raw(ColumnId(4)).unwrap().is_none());
    assert_eq!(view.column(ColumnId(5), &DataType::Text).unwrap(), Some(Datum::Null));
}

#[test]
fn columns_out_of_order_and_long_rows() {
    let t = table(&[2, 0]);
    let row = [Datum::text("x".repeat(70_000)), Datum::Int4(-1)];
    let bytes = encode_row(&t, &row).unwrap();
    assert_eq!(decode_row(&t, &bytes).unwrap(), row);
    let mut out = vec![Datum::Int4(9)];
    decode_columns(&t, &bytes, &[1], &mut out).unwrap();
    assert_eq!(out, [Datum::Int4(9), Datum::Int4(-1)]);
}

#[test]
fn widened_integers_read_on() {
    let mut t = table(&[0]);
    let bytes = encode_row(&t, &[Datum::Int4(-70_000)]).unwrap();
    t.columns[0].ty = DataType::Int8;
    assert!(matches!(decode_row(&t, &bytes).unwrap()[0], Datum::Int8(-70_000)));
}

#[test]
fn small_values_are_small() {
    let t = table(&[0, 1, 2]);
    let bytes = encode_row(&t, &[Datum::Int8(0), Datum::Int8(-1), Datum::text("ab")]).unwrap();
    assert_eq!(bytes.len(), 3 + 6 + 1 + 2 + 3);
}

#[test]
fn spaces_at_the_end_are_counted_and_come_back() {
    for (kept, padding) in [("", 0), ("", 3), ("", 4), ("a", 84), ("é b", 200), ("x ", 1_000), ("a", 3)] {
        let text = format!("{kept}{}", " ".repeat(padding));
        let mut bytes = Vec::new();
        encode_value(&mut bytes, &Datum::text(&text)).unwrap();
        assert!(bytes.len() <= kept.len() + 5, "{} bytes for {text:?}", bytes.len());
        assert_eq!(decode_value(&bytes).unwrap(), Datum::text(&text));
    }
    // A count that no text has been written with.
    assert!(decode_value(&[24, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    assert!(decode_value(&[24]).is_err());
}

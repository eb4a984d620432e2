#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::str::FromStr;

use bigdecimal::BigDecimal;
use proptest::prelude::*;

use super::*;
use crate::array::{Array, Dimension};
use crate::schema::{Column, ColumnId, Quorum, Replication};

fn encoded(datums: &[Datum]) -> Vec<u8> {
    let mut out = Vec::new();
    for d in datums {
        encode_datum(&mut out, d).unwrap();
    }
    out
}

fn numeric(s: &str) -> Datum {
    Datum::numeric(Numeric::finite(BigDecimal::from_str(s).unwrap()))
}

fn any_numeric() -> impl Strategy<Value = Datum> {
    prop_oneof![
        12 => (any::<i128>(), 0i64..40).prop_map(|(v, s)| Datum::numeric(Numeric::finite(BigDecimal::new(v.into(), s)))),
        12 => (-2000i64..2000, 0i64..6).prop_map(|(v, s)| Datum::numeric(Numeric::finite(BigDecimal::new(v.into(), s)))),
        1 => Just(Datum::numeric(Numeric::NaN)),
        1 => Just(Datum::numeric(Numeric::Infinity)),
        1 => Just(Datum::numeric(Numeric::NegInfinity)),
    ]
}

fn any_float() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), Just(0.0), Just(-0.0), Just(f64::NAN), Just(f64::INFINITY), -3.0..3.0]
}

fn short_bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()], 0..6)
}

fn scalar() -> BoxedStrategy<Datum> {
    prop_oneof![
        Just(Datum::Null),
        any::<bool>().prop_map(Datum::Bool),
        any::<i16>().prop_map(Datum::Int2),
        any::<i32>().prop_map(Datum::Int4),
        any::<i64>().prop_map(Datum::Int8),
        (-3i64..3).prop_map(Datum::Int8),
        any::<u32>().prop_map(Datum::Oid),
        any_float().prop_map(|v| Datum::Float4(v as f32)),
        any_float().prop_map(Datum::Float8),
        any_numeric(),
        "[\\x00-\\x02a-b\u{e9}]{0,5}".prop_map(Datum::text),
        short_bytes().prop_map(|b| Datum::Bytea(b.into())),
        any::<i32>().prop_map(Datum::Date),
        any::<i64>().prop_map(Datum::Time),
        any::<i64>().prop_map(Datum::Timestamp),
        any::<i64>().prop_map(Datum::Timestamptz),
        (any::<i32>(), any::<i32>(), any::<i64>())
            .prop_map(|(months, days, micros)| Datum::Interval(Interval { months, days, micros }.into())),
        (-2i32..2, -40i32..40, -2i64..2).prop_map(|(months, days, h)| Datum::Interval(
            Interval { months, days, micros: h * 86_400_000_000 }.into()
        )),
        any::<[u8; 16]>().prop_map(Datum::uuid),
    ]
    .boxed()
}

/// Pairs of one kind are where order can go wrong, so they are made on purpose.
fn same_kind() -> BoxedStrategy<(Datum, Datum)> {
    let pair = |s: BoxedStrategy<Datum>| (s.clone(), s).boxed();
    let ints = prop_oneof![any::<i16>().prop_map(Datum::Int2), any::<i64>().prop_map(Datum::Int8)].boxed();
    let floats = any_float().prop_map(Datum::Float8).boxed();
    let texts = "[\\x00-\\x02a-b]{0,5}".prop_map(Datum::text).boxed();
    let bytes = short_bytes().prop_map(|b| Datum::Bytea(b.into())).boxed();
    let arrays =
        proptest::collection::vec(prop_oneof![Just(Datum::Null), (0i32..3).prop_map(Datum::Int4)], 0..4)
            .prop_map(|items| Datum::array(DataType::Int4, items))
            .boxed();
    let shaped = (proptest::collection::vec((1u32..3, -1i32..3), 1..3), 0i32..3)
        .prop_map(|(shape, first)| {
            let dimensions: Vec<Dimension> =
                shape.into_iter().map(|(length, lower)| Dimension { length, lower }).collect();
            let count = dimensions.iter().map(|d| d.length as i32).product::<i32>();
            let items = (0..count).map(|i| Datum::Int4((first + i) % 3)).collect();
            Datum::Array(Array::shaped(DataType::Int4, items, &dimensions).unwrap().into())
        })
        .boxed();
    let records =
        proptest::collection::vec(prop_oneof![Just(Datum::Null), "[a-b]{0,2}".prop_map(Datum::text)], 0..3)
            .prop_map(|items| Datum::Record(items.into()))
            .boxed();
    prop_oneof![
        pair(ints),
        pair(floats),
        pair(any_numeric().boxed()),
        pair(texts),
        pair(bytes),
        pair(arrays),
        pair(shaped),
        pair(records),
        pair(scalar())
    ]
    .boxed()
}

fn type_of(d: &Datum) -> DataType {
    match d {
        Datum::Int2(_) => DataType::Int2,
        Datum::Int4(_) => DataType::Int4,
        Datum::Float4(_) => DataType::Float4,
        Datum::Array(a) => DataType::Array(Box::new(a.element.clone())),
        _ => DataType::Unknown,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn order_of_keys_is_order_of_values((a, b) in same_kind()) {
        prop_assert_eq!(encoded(std::slice::from_ref(&a)).cmp(&encoded(std::slice::from_ref(&b))), a.cmp(&b), "{:?} {:?}", a, b);
    }

    #[test]
    fn order_of_tuples(a in proptest::collection::vec(scalar(), 3), b in proptest::collection::vec(scalar(), 3), shared in 0usize..3) {
        let mut b = b;
        b[..shared].clone_from_slice(&a[..shared]);
        prop_assert_eq!(encoded(&a).cmp(&encoded(&b)), a.cmp(&b));
    }

    #[test]
    fn decodes_to_an_equal_value((a, b) in same_kind()) {
        let bytes = encoded(&[a.clone(), b.clone()]);
        let (first, rest) = decode_datum(&bytes, &type_of(&a)).unwrap();
        let (second, rest) = decode_datum(rest, &type_of(&b)).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(first, a);
        prop_assert_eq!(second, b);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), tag in 0x0fu8..0x21) {
        let _ = decode_datum(&bytes, &DataType::Int2);
        let mut tagged = vec![tag];
        tagged.extend_from_slice(&bytes);
        let _ = decode_datum(&tagged, &DataType::Int4);
    }
}

#[test]
fn equal_values_of_other_scale_or_width_are_one_key() {
    assert_eq!(encoded(&[numeric("1.0")]), encoded(&[numeric("1.000")]));
    assert_eq!(encoded(&[numeric("100")]), encoded(&[numeric("100.0")]));
    assert_eq!(encoded(&[numeric("0")]), encoded(&[numeric("0.000")]));
    assert_eq!(encoded(&[Datum::Int2(7)]), encoded(&[Datum::Int8(7)]));
    assert_eq!(encoded(&[Datum::Float8(-0.0)]), encoded(&[Datum::Float4(0.0)]));
    assert_eq!(encoded(&[Datum::Float8(f64::NAN)]), encoded(&[Datum::Float8(-f64::NAN)]));
}

#[test]
fn numerics_around_zero_and_powers_of_ten() {
    let sorted = [
        "-1000", "-100.5", "-100", "-99.9", "-10", "-9.99", "-1.1", "-1", "-0.5", "-0.01", "-0.001", "0",
        "0.001", "0.01", "0.011", "0.1", "0.5", "1", "1.01", "1.1", "9.99", "10", "99.9", "100", "100.5",
        "1000",
    ];
    for pair in sorted.windows(2) {
        assert!(encoded(&[numeric(pair[0])]) < encoded(&[numeric(pair[1])]), "{pair:?}");
    }
}

#[test]
fn successors() {
    assert_eq!(prefix_successor(&[1, 2]), [1, 3]);
    assert_eq!(prefix_successor(&[1, 0xff]), [2]);
    assert_eq!(prefix_successor(&[0xff, 0xff]), Vec::<u8>::new());
    assert_eq!(prefix_successor(&[]), Vec::<u8>::new());
}

#[test]
fn jsonb_orders_as_postgresql_orders_it_and_reads_back() {
    let ordered = [
        "[]",
        "null",
        "\"\"",
        "\"a\"",
        "\"b\"",
        "-1.5",
        "0",
        "1",
        "1.00",
        "10",
        "false",
        "true",
        "[null]",
        "[[]]",
        "[1, 2]",
        "[1, 3]",
        "{}",
        "{\"b\": 1}",
        "{\"b\": 2}",
        "{\"aa\": 0}",
        "{\"a\": 1, \"b\": 2}",
    ];
    let parse = |text: &str| Datum::jsonb(crate::Json(serde_json::from_str(text).unwrap()));
    let key = |datum: &Datum| {
        let mut out = Vec::new();
        encode_datum(&mut out, datum).unwrap();
        out
    };
    for (i, a) in ordered.iter().enumerate() {
        let encoded = key(&parse(a));
        let (back, rest) = decode_datum(&encoded, &DataType::Jsonb).unwrap();
        assert_eq!((back, rest.len()), (parse(a), 0), "{a}");
        for (j, b) in ordered.iter().enumerate() {
            let expected = if parse(a) == parse(b) { std::cmp::Ordering::Equal } else { i.cmp(&j) };
            assert_eq!(key(&parse(a)).cmp(&key(&parse(b))), expected, "{a} and {b}");
            assert_eq!(parse(a).cmp(&parse(b)), expected, "{a} and {b}");
        }
    }
}

#[test]
fn a_time_with_a_zone_orders_by_its_instant() {
    let time = |hours: i64, west: i32| {
        Datum::Timetz(crate::datum::Timetz { micros: hours * 3_600_000_000, west: west * 3600 })
    };
    let ordered = [time(0, -14), time(10, -2), time(8, 0), time(9, 0), time(0, 9), time(24, 8)];
    for pair in ordered.windows(2) {
        let mut keys = pair.iter().map(|datum| {
            let mut out = Vec::new();
            encode_datum(&mut out, datum).unwrap();
            assert_eq!(&decode_datum(&out, &DataType::Timetz(None)).unwrap().0, datum);
            out
        });
        assert!(keys.next() < keys.next(), "{pair:?}");
        assert!(pair[0] < pair[1], "{pair:?}");
    }
}

fn table() -> Table {
    let column = |id: u32, name: &str| Column {
        not_null: false,
        default: None,
        ..Column::new(ColumnId(id), name, DataType::Int4)
    };
    let index = |id: u32, unique: bool, columns: Vec<usize>| Index {
        unique,
        ..Index::new(IndexId(id), format!("i{id}"), id, columns)
    };
    Table {
        id: TableId(20000),
        version: crate::Timestamp::ZERO,
        schema: "public".into(),
        name: "t".into(),
        owner: "amphora".into(),
        replication: Replication::Strong,
        columns: vec![column(0, "id"), column(1, "a"), column(2, "b")],
        primary: index(0, true, vec![0]),
        hidden_key: false,
        indexes: vec![index(1, true, vec![1]), index(2, false, vec![2, 1])],
        checks: vec![],
        foreign_keys: Vec::new(),
        comment: None,
        next_column_id: 3,
        next_index_id: 3,
        storage: None,
        write_quorum: Quorum::ONE,
        read_quorum: Quorum::ONE,
    }
}

#[test]
fn index_entries() {
    let t = table();
    let row =
        |id, a: Option<i32>, b| vec![Datum::Int4(id), a.map_or(Datum::Null, Datum::Int4), Datum::Int4(b)];
    let (unique, plain) = (&t.indexes[0], &t.indexes[1]);
    // Unique: the same value is the same key, NULLs are apart.
    assert_eq!(
        index_key(&t, unique, &row(1, Some(5), 0), &[]),
        index_key(&t, unique, &row(2, Some(5), 0), &[])
    );
    assert_ne!(index_key(&t, unique, &row(1, None, 0), &[]), index_key(&t, unique, &row(2, None, 0), &[]));
    assert_ne!(
        index_key(&t, plain, &row(1, Some(5), 7), &[]),
        index_key(&t, plain, &row(2, Some(5), 7), &[])
    );
    let key = row_key_of(&t, &row(1, None, 0)).unwrap();
    assert_eq!(key, row_key(&t, &[Datum::Int4(1)]).unwrap());
    assert_eq!(split_prefix(&key).unwrap().0, t.id);
    assert!(table_range(t.id).contains(&key));
    assert!(!index_range(t.id, IndexId(1)).contains(&key));
}

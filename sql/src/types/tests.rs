//! Casts against `pg_cast`, and properties of the text and binary forms.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use amphora_storage::array::{Array, Dimension};
use amphora_storage::datum::{Interval, Timetz};
use amphora_storage::types::Crdt;
use amphora_storage::{DataType, Datum};
use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

fn named(name: &str) -> DataType {
    type_from_name(None, name, &[]).unwrap_or_else(|| panic!("no type {name}"))
}

#[test]
fn cast_matrix_is_pg_cast() {
    for line in include_str!("golden/casts.txt").lines().filter(|l| !l.starts_with("--")) {
        let (from, rest) = line.split_once(" -> ").unwrap();
        let (to, context) = rest.rsplit_once(' ').unwrap();
        let expected = match context {
            "i" => CastContext::Implicit,
            "a" => CastContext::Assignment,
            _ => CastContext::Explicit,
        };
        assert_eq!(can_cast(&named(from), &named(to)), Some(expected), "{line}");
    }
}

#[test]
fn casts_that_do_not_exist() {
    assert_eq!(can_cast(&DataType::Uuid, &DataType::Int4), None);
    assert_eq!(can_cast(&DataType::Bool, &DataType::Int8), None);
    assert_eq!(can_cast(&DataType::Date, &DataType::Int4), None);
    assert_eq!(can_cast(&DataType::Int4, &DataType::Text), Some(CastContext::Assignment));
    assert_eq!(can_cast(&DataType::Text, &DataType::Int4), Some(CastContext::Explicit));
}

#[test]
fn common_types_follow_union_rules() {
    let common = |names: &[&str]| {
        let types: Vec<DataType> = names.iter().map(|n| named(n)).collect();
        common_type(&types).map(|t| t.to_string()).map_err(|e| e.sqlstate)
    };
    assert_eq!(common(&["int", "bigint"]), Ok("bigint".to_string()));
    assert_eq!(common(&["numeric", "int"]), Ok("numeric".to_string()));
    assert_eq!(common(&["numeric", "float8"]), Ok("double precision".to_string()));
    assert_eq!(common(&["unknown", "unknown"]), Ok("text".to_string()));
    assert_eq!(common(&["unknown", "date"]), Ok("date".to_string()));
    assert_eq!(common(&["date", "timestamptz"]), Ok("timestamp with time zone".to_string()));
    assert_eq!(common(&["text", "varchar(3)"]), Ok("text".to_string()));
    assert_eq!(common(&["varchar(3)", "varchar(3)"]), Ok("character varying(3)".to_string()));
    assert_eq!(common(&["varchar(3)", "varchar(5)"]), Ok("character varying".to_string()));
    assert_eq!(common(&["crdt_counter", "int"]), Ok("bigint".to_string()));
    assert_eq!(common(&["int", "text"]), Err("42804"));
    assert_eq!(common(&["bool", "int"]), Err("42804"));
}

#[test]
fn names_of_types() {
    assert_eq!(type_from_name(None, "numeric", &["8", "2"]), Some(DataType::Numeric(Some((8, 2)))));
    assert_eq!(named("numeric(8)"), DataType::Numeric(Some((8, 0))));
    assert_eq!(named("VARCHAR(10)"), DataType::Varchar(Some(10)));
    assert_eq!(named("_int4"), DataType::Int4.array());
    assert_eq!(named("int[][]"), DataType::Int4.array());
    assert_eq!(named("crdt_set(text)"), DataType::Crdt(Crdt::Set(Box::new(DataType::Text))));
    assert_eq!(
        type_from_name(None, "crdt_max", &["int8"]),
        Some(DataType::Crdt(Crdt::Max(Box::new(DataType::Int8))))
    );
    assert_eq!(type_from_name(Some("pg_catalog"), "int4", &[]), Some(DataType::Int4));
    assert_eq!(type_from_name(Some("other"), "int4", &[]), None);
    assert_eq!(type_from_name(None, "serial", &[]), None);
    assert_eq!(type_from_name(None, "varchar", &["0"]), None);
    assert_eq!(type_from_name(None, "numeric", &["1001"]), None);
}

#[test]
fn modifiers_fit_or_refuse() {
    let fit = |text: &str, to: &str, explicit: bool| {
        coerce_to_modifier(Datum::text(text), &named(to), explicit)
            .map(|d| d.as_str().unwrap().to_string())
            .map_err(|e| (e.sqlstate, e.message.clone()))
    };
    assert_eq!(fit("abcdef", "varchar(3)", true), Ok("abc".to_string()));
    assert_eq!(fit("abc   ", "varchar(3)", false), Ok("abc".to_string()));
    let error = ("22001", "value too long for type character varying(3)".to_string());
    assert_eq!(fit("abcdef", "varchar(3)", false), Err(error));
    assert_eq!(fit("é", "char(3)", false), Ok("é  ".to_string()));
}

#[test]
fn records_and_binary_numeric() {
    let record = parse_record(
        "(1,\"a \"\"b\",)",
        &[DataType::Int4, DataType::Text, DataType::Text],
        &FormatContext::default(),
    );
    let record = record.unwrap();
    assert_eq!(to_text(&record, &DataType::Record, &FormatContext::default()), "(1,\"a \"\"b\",)");
    let mut out = BytesMut::new();
    format_binary(&Datum::numeric(parse_numeric("-12345.678").unwrap()), &DataType::Numeric(None), &mut out);
    // As PostgreSQL's numeric_send gives it.
    assert_eq!(&out[..], [0, 3, 0, 1, 0x40, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1A, 0x7C]);
}

/// A value of each type that has a text form of its own.
fn value() -> impl Strategy<Value = (DataType, Datum)> {
    let micros = -200_000_000_000_000_000i64..200_000_000_000_000_000;
    let day = -2_000_000i32..2_000_000;
    prop_oneof![
        any::<bool>().prop_map(|v| (DataType::Bool, Datum::Bool(v))),
        any::<i16>().prop_map(|v| (DataType::Int2, Datum::Int2(v))),
        any::<i32>().prop_map(|v| (DataType::Int4, Datum::Int4(v))),
        any::<i64>().prop_map(|v| (DataType::Int8, Datum::Int8(v))),
        any::<u32>().prop_map(|v| (DataType::Oid, Datum::Oid(v))),
        any::<f32>().prop_map(|v| (DataType::Float4, Datum::Float4(v))),
        any::<f64>().prop_map(|v| (DataType::Float8, Datum::Float8(v))),
        (any::<i128>(), 0i64..40).prop_map(|(n, s)| {
            let number = bigdecimal::BigDecimal::new(n.into(), s);
            (DataType::Numeric(None), Datum::numeric(amphora_storage::Numeric::Finite(number)))
        }),
        "[^\0]{0,20}".prop_map(|s| (DataType::Text, Datum::text(s))),
        proptest::collection::vec(any::<u8>(), 0..20)
            .prop_map(|b| (DataType::Bytea, Datum::Bytea(Arc::from(b)))),
        day.prop_map(|d| (DataType::Date, Datum::Date(d))),
        (0..=DAY).prop_map(|t| (DataType::Time(None), Datum::Time(t))),
        (0..=DAY, -57_540..57_540i32)
            .prop_map(|(micros, west)| (DataType::Timetz(None), Datum::Timetz(Timetz { micros, west }))),
        micros.clone().prop_map(|t| (DataType::Timestamp(None), Datum::Timestamp(t))),
        micros.prop_map(|t| (DataType::Timestamptz(None), Datum::Timestamptz(t))),
        (-100_000i32..100_000, any::<i32>(), -1_000_000_000_000i64..1_000_000_000_000).prop_map(
            |(m, d, u)| {
                let interval = Interval { months: m, days: d, micros: u };
                (DataType::Interval(None), Datum::Interval(Arc::new(interval)))
            }
        ),
        any::<[u8; 16]>().prop_map(|u| (DataType::Uuid, Datum::uuid(u))),
        proptest::collection::vec(proptest::option::of("[^\0]{0,8}"), 0..5).prop_map(|items| {
            let items = items.into_iter().map(|i| i.map_or(Datum::Null, Datum::text)).collect();
            (DataType::Text.array(), Datum::array(DataType::Text, items))
        }),
        (proptest::collection::vec((1u32..4, -3i32..4), 1..5), "[^\0]{0,4}").prop_map(|(shape, text)| {
            let dimensions: Vec<Dimension> =
                shape.into_iter().map(|(length, lower)| Dimension { length, lower }).collect();
            let count = dimensions.iter().map(|d| d.length).product::<u32>();
            let item = |i| if i % 5 == 4 { Datum::Null } else { Datum::text(format!("{text}{i}")) };
            let array = Array::shaped(DataType::Text, (0..count).map(item).collect(), &dimensions).unwrap();
            (DataType::Text.array(), Datum::Array(Arc::new(array)))
        }),
        "[a-z ]{0,8}".prop_map(|s| {
            let json = serde_json::json!({ "k": s, "list": [1, null, true] });
            (DataType::Jsonb, Datum::jsonb(amphora_storage::Json(json)))
        }),
    ]
}

/// Interval comparison ignores how the fields divide; the forms must not.
fn identical(a: &Datum, b: &Datum) -> bool {
    match (a, b) {
        (Datum::Interval(a), Datum::Interval(b)) => a == b,
        (Datum::Numeric(a), Datum::Numeric(b)) => a.to_string() == b.to_string(),
        (a, b) => a == b,
    }
}

proptest! {
    #[test]
    fn text_form_reads_back((data_type, datum) in value(), zone in 0usize..3) {
        let timezone = ["UTC", "America/New_York", "Asia/Kolkata"][zone];
        let ctx = FormatContext { timezone: TimeZone::parse(timezone).unwrap(), ..FormatContext::default() };
        let text = to_text(&datum, &data_type, &ctx);
        let back = parse(&text, &data_type, &ctx);
        prop_assert!(back.as_ref().is_ok_and(|b| identical(b, &datum)), "{} {:?} {:?}", text, datum, back);
    }

    #[test]
    fn binary_form_reads_back((data_type, datum) in value()) {
        let mut out = BytesMut::new();
        format_binary(&datum, &data_type, &mut out);
        let back = parse_binary(&out, &data_type).unwrap();
        prop_assert!(identical(&back, &datum), "{:?} {:?}", datum, back);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,24}", which in 0usize..18) {
        let names = ["int", "float8", "numeric", "bool", "date", "time", "timestamp", "timestamptz", "interval",
            "uuid", "jsonb", "bytea", "text[]", "int[]", "oid", "regtype", "float4", "json"];
        let _ = parse(&text, &named(names[which]), &FormatContext::default());
    }

    #[test]
    fn no_array_text_panics(text in "[\\[\\]{}:=,\"\\\\ a0-2-]{0,24}") {
        let _ = parse(&text, &named("int[]"), &FormatContext::default());
        let _ = parse(&text, &named("text[]"), &FormatContext::default());
    }

    #[test]
    fn no_datetime_text_panics(text in "[0-9:+./ TZPJa-y-]{0,24}", which in 0usize..5) {
        let names = ["date", "time", "timestamp", "timestamptz", "interval"];
        let _ = parse(&text, &named(names[which]), &FormatContext::default());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), which in 0usize..10) {
        let names = ["int", "numeric", "int[]", "text[]", "timestamptz", "interval", "uuid", "jsonb", "text", "record"];
        let _ = parse_binary(&bytes, &named(names[which]));
    }

    #[test]
    fn calendar_is_a_bijection(days in -2_451_545i64..200_000_000) {
        let Civil { year, month, day } = civil_from_days(days);
        prop_assert_eq!(days_from_civil(year, month, day), days);
        prop_assert!((1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month));
    }
}

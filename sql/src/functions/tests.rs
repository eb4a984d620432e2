//! Golden tests: every line of `golden/*.txt` is a call and what PostgreSQL 15 says to it.
//! `golden/regenerate.py` explains the lines and writes the answers from a PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::types::{CastContext, can_cast, cast, to_text, type_from_name};

/// A literal of a golden line: its type and value.
fn literal(text: &str, context: &EvalContext) -> (DataType, Datum) {
    let (name, value) = text.split_once(':').expect("type:text");
    let data_type = type_from_name(None, name, &[]).unwrap_or_else(|| panic!("no type {name}"));
    let unknown = DataType::Unknown;
    let datum = match value {
        "\\N" => Datum::Null,
        text => {
            cast(&Datum::text(text), &unknown, &data_type, CastContext::Explicit, &context.format).unwrap()
        }
    };
    (data_type, datum)
}

fn coerce(values: &[Datum], from: &[DataType], to: &[DataType], context: &EvalContext) -> Result<Vec<Datum>> {
    let pairs = from.iter().zip(to);
    values
        .iter()
        .zip(pairs)
        .map(|(v, (from, to))| cast(v, from, to, CastContext::Implicit, &context.format))
        .collect()
}

fn shown(value: &Datum, data_type: &DataType, context: &EvalContext) -> String {
    if value.is_null() && *data_type != DataType::Void {
        return "\\N".to_string();
    }
    to_text(value, data_type, &context.format)
}

fn aggregate_case(name: &str, args: &[&str], context: &EvalContext) -> Result<String> {
    let mut columns = Vec::new();
    for arg in args {
        let (name, values) = arg.split_once(':').expect("type:values");
        let values: Vec<_> = values.split(';').map(|v| literal(&format!("{name}:{v}"), context)).collect();
        columns.push(values);
    }
    let types: Vec<DataType> = columns.iter().map(|c| c[0].0.clone()).collect();
    let resolved = resolve_aggregate(name, &types)?;
    let mut state = resolved.new_state(context);
    for row in 0..columns[0].len() {
        let values: Vec<Datum> = columns.iter().map(|c| c[row].1.clone()).collect();
        state.update(&coerce(&values, &types, &resolved.arg_types, context)?)?;
    }
    Ok(shown(&state.finish()?, &resolved.return_type, context))
}

fn set_case(name: &str, types: &[DataType], values: &[Datum], context: &EvalContext) -> Result<String> {
    let resolved = resolve_set_function(name, types)?;
    let args = coerce(values, types, &resolved.arg_types, context)?;
    let mut lines = Vec::new();
    for row in resolved.eval(&args, context)? {
        let row = row?;
        let fields = row.iter().zip(&resolved.columns).map(|(v, (_, t))| shown(v, t, context));
        lines.push(fields.collect::<Vec<_>>().join(", "));
    }
    Ok(lines.join(" ; "))
}

fn run(case: &str, context: &EvalContext) -> Result<String> {
    let mut parts = case.split(" | ").map(|p| p.trim_matches(' '));
    let name = parts.next().expect("a name");
    let args: Vec<&str> = parts.collect();
    let lettered = |prefix: char| {
        name.strip_prefix(prefix).filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    if let Some(name) = lettered('@') {
        return aggregate_case(name, &args, context);
    }
    if name == "::" {
        let (from, value) = literal(args[0], context);
        let to = type_from_name(None, args[1], &[]).expect("a type");
        if can_cast(&from, &to).is_none() {
            return Err(SqlError::cannot_coerce(format!("cannot cast type {from} to {to}")));
        }
        let cast = cast(&value, &from, &to, CastContext::Explicit, &context.format)?;
        return Ok(shown(&cast, &to, context));
    }
    let literals: Vec<(DataType, Datum)> = args.iter().map(|a| literal(a, context)).collect();
    let (types, values): (Vec<DataType>, Vec<Datum>) = literals.into_iter().unzip();
    if let Some(name) = lettered('#') {
        return set_case(name, &types, &values, context);
    }
    let resolved = match (name.starts_with(|c: char| c.is_ascii_lowercase()), types.as_slice()) {
        (true, types) => resolve_function(name, types)?,
        (false, [right]) => resolve_operator(name, None, right)?,
        (false, [left, right]) => resolve_operator(name, Some(left), right)?,
        _ => panic!("{case}"),
    };
    let args = coerce(&values, &types, &resolved.arg_types, context)?;
    Ok(shown(&resolved.eval(&args, context)?, &resolved.return_type, context))
}

fn golden(text: &str) {
    let context = EvalContext::default();
    let mut wrong = Vec::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with("--")) {
        let (case, expected) = line.split_once(" => ").expect("case => result");
        let actual = match run(case, &context) {
            Ok(text) => text,
            Err(e) => format!("!{} {}", e.sqlstate, e.message),
        };
        // Functions are called with their schema there.
        let expected = expected.replace("function pg_catalog.", "function ");
        if actual.replace('\n', "\\n") != expected.replace('\n', "\\n") {
            wrong.push(format!("{case}\n     is {actual}\n should {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn numbers_are_postgresqls() {
    golden(include_str!("golden/numbers.txt"));
}

#[test]
fn strings_are_postgresqls() {
    golden(include_str!("golden/strings.txt"));
}

#[test]
fn datetimes_are_postgresqls() {
    golden(include_str!("golden/datetimes.txt"));
}

#[test]
fn documents_are_postgresqls() {
    golden(include_str!("golden/documents.txt"));
}

/// Edge values of every kind of type, and NULL.
fn edges(ty: Ty) -> Vec<Datum> {
    let context = EvalContext::default();
    let texts: &[&str] = match ty {
        Ty::Bool => &["t", "f"],
        Ty::Int2 => &["0", "-32768", "32767"],
        Ty::Int4 => &["0", "1", "-1", "-2147483648", "2147483647"],
        Ty::Int8 => &["0", "7", "-9223372036854775808", "9223372036854775807"],
        Ty::Float4 => &["0", "-1.5", "NaN", "Infinity"],
        Ty::Float8 => &["0", "-1.5", "1e308", "1e-308", "NaN", "Infinity", "-Infinity"],
        Ty::Numeric => &["0", "-1.50", "1e40", "1e-40", "NaN", "Infinity", "-Infinity", "0.99"],
        Ty::Bytea => &["", "\\x00ff"],
        Ty::Date => &["infinity", "-infinity", "4714-11-24 BC", "5874897-12-31", "2024-02-29"],
        Ty::Timetz => &["00:00+00", "24:00-08", "12:34:56.789+05:30"],
        Ty::Time => &["00:00", "24:00", "12:34:56.789"],
        Ty::Timestamp | Ty::Timestamptz => &[
            "infinity",
            "-infinity",
            "4714-11-24 00:00:00+00 BC",
            "294276-12-31 23:59:59+00",
            "2024-02-29 01:02:03.4",
        ],
        Ty::Interval => {
            &["0", "1 mon", "-178000000 years", "2147483647 days", "-1 day 02:00", "2562047788 hours"]
        }
        Ty::Uuid => &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
        Ty::Json | Ty::Jsonb => &["null", "[1,[2]]", "{\"a\":{\"b\":1}}", "\"x\""],
        Ty::Oid
        | Ty::Regclass
        | Ty::Regtype
        | Ty::Regproc
        | Ty::Regprocedure
        | Ty::Regoper
        | Ty::Regoperator
        | Ty::Regcollation
        | Ty::Regnamespace
        | Ty::Regrole => &["0", "4294967295"],
        Ty::Array(_) | Ty::AnyArray => &["{}", "{1,NULL,2}"],
        Ty::Int2vector | Ty::Oidvector => &["", "1 2"],
        Ty::AnyElement | Ty::AnyNonArray | Ty::AnyEnum | Ty::Any | Ty::Record | Ty::Void => &["1"],
        Ty::Text | Ty::Varchar | Ty::Bpchar | Ty::Name | Ty::Char => &[
            "",
            "é%_\\",
            "(a|b",
            "YYYY-MM-DD HH24:MI:SS.US TZH",
            "FM999,999.99S",
            "%1$s %I",
            "1",
            "year",
            "hex",
        ],
    };
    let data_type = match ty {
        Ty::AnyArray => DataType::Int4.array(),
        Ty::AnyElement | Ty::AnyNonArray | Ty::AnyEnum | Ty::Any => DataType::Int4,
        Ty::Record | Ty::Void => DataType::Int4,
        real => real.data_type().unwrap(),
    };
    let parse = |t: &&str| crate::types::parse(t, &data_type, &context.format).unwrap();
    let mut values: Vec<Datum> = texts.iter().map(parse).collect();
    if ty == Ty::Record {
        values = vec![Datum::Record(values.into())];
    }
    values.push(Datum::Null);
    values
}

/// Numbers whose cost, not whose value, is what the other edges are about.
fn affordable(name: &str) -> bool {
    !matches!(name, "repeat" | "lpad" | "rpad" | "array_fill" | "factorial")
}

#[test]
fn no_function_panics_on_edge_values() {
    let context = EvalContext::default();
    let mut panics = Vec::new();
    for function in all_functions().chain(all_operators()).filter(|f| affordable(f.name)) {
        let columns: Vec<Vec<Datum>> = function.signature.args.iter().map(|t| edges(*t)).collect();
        let combinations: usize = columns.iter().map(Vec::len).product();
        let types: Vec<DataType> = function
            .signature
            .args
            .iter()
            .map(|t| match t {
                Ty::AnyArray => DataType::Int4.array(),
                other => other.data_type().unwrap_or(DataType::Int4),
            })
            .collect();
        let Some((arg_types, return_type)) = bind(&function.signature, &types) else { continue };
        let resolved = Resolved { function, arg_types, return_type };
        // A prime step visits a spread of what may be too many combinations.
        let step = if combinations > 20_000 { 97 } else { 1 };
        for i in (0..combinations).step_by(step) {
            let mut rest = i;
            let args: Vec<Datum> = columns
                .iter()
                .map(|c| {
                    let value = c[rest % c.len()].clone();
                    rest /= c.len();
                    value
                })
                .collect();
            let call = || {
                // What comes out can be shown.
                resolved.eval(&args, &context).map(|v| to_text(&v, &resolved.return_type, &context.format))
            };
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err() {
                panics.push(format!("{resolved:?} of {args:?}"));
                break;
            }
        }
    }
    assert!(panics.is_empty(), "{} functions panic:\n{}", panics.len(), panics.join("\n"));
}

#[test]
fn names_are_found_once() {
    for function in all_functions() {
        let same = all_functions()
            .filter(|f| f.name == function.name && f.signature.args == function.signature.args)
            .filter(|f| f.signature.variadic == function.signature.variadic);
        assert_eq!(same.count(), 1, "{function:?}");
    }
    for operator in all_operators() {
        let same = all_operators()
            .filter(|f| f.name == operator.name && f.signature.args == operator.signature.args);
        assert_eq!(same.count(), 1, "{operator:?}");
    }
}

#[test]
fn crdt_types_resolve_as_their_base() {
    use amphora_storage::types::Crdt;
    let counter = DataType::Crdt(Crdt::Counter);
    let sum = resolve_operator("+", Some(&counter), &DataType::Int4).unwrap();
    assert_eq!((sum.arg_types, sum.return_type), (vec![DataType::Int8, DataType::Int4], DataType::Int8));
    let set = DataType::Crdt(Crdt::Set(Box::new(DataType::Text)));
    let append = resolve_function("array_append", &[set, DataType::Unknown]).unwrap();
    assert_eq!(append.return_type, DataType::Text.array());
}

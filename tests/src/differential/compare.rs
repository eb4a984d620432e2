//! Whether two answers are the same, and if not, what is different.

use super::wire::Answer;

/// The first thing that differs, or `None`. Rows are compared as they came only if `ordered`.
pub fn difference(expected: &Answer, actual: &Answer, ordered: bool) -> Option<String> {
    match (&expected.failure, &actual.failure) {
        (Some(e), Some(a)) if e.sqlstate == a.sqlstate => return None,
        (None, None) => {}
        (e, a) => {
            let word = |f: &Option<super::wire::Failure>, answer: &Answer| match f {
                Some(f) => format!("{} {}", f.sqlstate, f.message),
                None => format!("{} {}", answer.tag, first_row(answer)),
            };
            return Some(format!(
                "outcome: expected {}\n         but got {}",
                word(e, expected),
                word(a, actual)
            ));
        }
    }
    if expected.parameters != actual.parameters {
        return Some(format!("parameters: {:?} but got {:?}", expected.parameters, actual.parameters));
    }
    if expected.columns != actual.columns {
        return Some(format!("columns: {:?}\n but got {:?}", expected.columns, actual.columns));
    }
    if expected.tag != actual.tag {
        return Some(format!("tag: {} but got {}", expected.tag, actual.tag));
    }
    if expected.rows == actual.rows {
        return None;
    }
    let (mut e, mut a) = (expected.rows.clone(), actual.rows.clone());
    if !ordered {
        e.sort();
        a.sort();
        if e == a {
            return None;
        }
    }
    let place = e.iter().zip(&a).position(|(e, a)| e != a).unwrap_or(e.len().min(a.len()));
    Some(format!(
        "rows ({} and {}): at {place} expected {}\n              but got {}",
        e.len(),
        a.len(),
        e.get(place).map_or("nothing".into(), |r| row(r)),
        a.get(place).map_or("nothing".into(), |r| row(r))
    ))
}

fn first_row(answer: &Answer) -> String {
    answer.rows.first().map(|r| row(r)).unwrap_or_default()
}

/// A row for human eyes.
pub fn row(values: &[Option<Vec<u8>>]) -> String {
    let value = |v: &Option<Vec<u8>>| match v {
        None => "NULL".to_owned(),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n') => format!("<{text}>"),
            _ => bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(""),
        },
    };
    values.iter().map(value).collect::<Vec<_>>().join(" ")
}

//! Text functions and operators.

use amphora_storage::{DataType, Datum};

use super::arithmetic::{int, wrong_kind};
use super::signature::Ty::*;
use super::{Call, ScalarFunction, function};
use crate::error::{Result, SqlError};
use crate::types::to_text;

/// The longest text a function makes: PostgreSQL's limit of a value.
const MAX_TEXT: usize = 1 << 30;

pub(super) fn str_of(d: &Datum) -> Result<&str> {
    d.as_str().ok_or_else(wrong_kind)
}

fn text(s: impl AsRef<str>) -> Result<Datum> {
    Ok(Datum::text(s))
}

fn length(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    Ok(Datum::Int4(str_of(&a[0])?.chars().count() as i32))
}

fn padded_length(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    Ok(Datum::Int4(str_of(&a[0])?.trim_end_matches(' ').chars().count() as i32))
}

fn octet_length(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    Ok(Datum::Int4(str_of(&a[0])?.len() as i32))
}

/// The letter's capital, if that is one letter: `ß` stays, as in the C library.
fn upper(c: char) -> char {
    let mut letters = c.to_uppercase();
    match (letters.next(), letters.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// The capital's small letter; `İ` gives `i` without its dot.
fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

fn initcap(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let mut out = String::new();
    let mut inside = false;
    for c in str_of(&a[0])?.chars() {
        match inside {
            true => out.push(lower(c)),
            false => out.push(upper(c)),
        }
        inside = c.is_alphanumeric();
    }
    text(out)
}

/// The characters `trim` takes away: the second argument's, or space.
fn trim_set(a: &[Datum]) -> Result<Vec<char>> {
    a.get(1).map_or(Ok(vec![' ']), |d| Ok(str_of(d)?.chars().collect()))
}

fn btrim(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let set = trim_set(a)?;
    text(str_of(&a[0])?.trim_matches(set.as_slice()))
}

fn ltrim(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let set = trim_set(a)?;
    text(str_of(&a[0])?.trim_start_matches(set.as_slice()))
}

fn rtrim(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let set = trim_set(a)?;
    text(str_of(&a[0])?.trim_end_matches(set.as_slice()))
}

/// The part of a text by character positions from 1; positions outside it are allowed.
fn slice(s: &str, start: i64, length: Option<i64>) -> Result<&str> {
    let end = match length {
        Some(l) if l < 0 => return Err(SqlError::new("22011", "negative substring length not allowed")),
        Some(l) => start.saturating_add(l),
        None => i64::MAX,
    };
    let first = start.max(1);
    if end <= first {
        return Ok("");
    }
    let skip = usize::try_from(first - 1).unwrap_or(usize::MAX);
    let count = usize::try_from(end - first).unwrap_or(usize::MAX);
    let mut bounds = s.char_indices().map(|(i, _)| i).chain(std::iter::once(s.len()));
    let Some(from) = bounds.nth(skip) else { return Ok("") };
    let to = bounds.nth(count.saturating_sub(1)).unwrap_or(s.len());
    Ok(&s[from..to])
}

fn substring(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let length = a.get(2).map(int).transpose()?;
    text(slice(str_of(&a[0])?, int(&a[1])?, length)?)
}

fn strpos(s: &str, part: &str) -> Datum {
    Datum::Int4(s.find(part).map_or(0, |i| s[..i].chars().count() as i32 + 1))
}

/// The first n characters; all but the last -n if n is negative.
fn left(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (s, n) = (str_of(&a[0])?, int(&a[1])?);
    let n = if n < 0 { s.chars().count() as i64 + n } else { n };
    text(slice(s, 1, Some(n.max(0)))?)
}

/// The last n characters; all but the first -n if n is negative.
fn right(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (s, n) = (str_of(&a[0])?, int(&a[1])?);
    let count = s.chars().count() as i64;
    let skip = if n < 0 { -n } else { (count - n).max(0) };
    text(slice(s, skip + 1, None)?)
}

fn too_long() -> SqlError {
    SqlError::program_limit_exceeded("requested length too large")
}

fn pad(a: &[Datum], at_left: bool) -> Result<Datum> {
    let s = str_of(&a[0])?;
    let target = usize::try_from(int(&a[1])?).unwrap_or(0);
    let fill: Vec<char> = a.get(2).map_or(Ok(" "), str_of)?.chars().collect();
    // With nothing to fill with, nothing grows.
    if target.saturating_mul(4) > MAX_TEXT && !fill.is_empty() {
        return Err(too_long());
    }
    let length = s.chars().count();
    if length >= target {
        return text(s.chars().take(target).collect::<String>());
    }
    let padding: String =
        fill.iter().cycle().take(if fill.is_empty() { 0 } else { target - length }).collect();
    text(if at_left { padding + s } else { s.to_string() + &padding })
}

fn repeat(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let s = str_of(&a[0])?;
    let n = usize::try_from(int(&a[1])?).unwrap_or(0);
    if s.len().saturating_mul(n) > MAX_TEXT {
        return Err(too_long());
    }
    text(s.repeat(n))
}

fn replace(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (s, from, to) = (str_of(&a[0])?, str_of(&a[1])?, str_of(&a[2])?);
    if from.is_empty() { Ok(a[0].clone()) } else { text(s.replace(from, to)) }
}

fn split_part(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (s, separator, n) = (str_of(&a[0])?, str_of(&a[1])?, int(&a[2])?);
    if n == 0 {
        return Err(SqlError::invalid_parameter_value("field position must not be zero"));
    }
    if separator.is_empty() {
        return text(if n == 1 || n == -1 { s } else { "" });
    }
    let index = usize::try_from(n.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let part = if n > 0 { s.split(separator).nth(index) } else { s.rsplit(separator).nth(index) };
    text(part.unwrap_or(""))
}

fn translate(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let from: Vec<char> = str_of(&a[1])?.chars().collect();
    let to: Vec<char> = str_of(&a[2])?.chars().collect();
    let mapped = str_of(&a[0])?.chars().filter_map(|c| match from.iter().position(|f| *f == c) {
        Some(i) => to.get(i).copied(),
        None => Some(c),
    });
    text(mapped.collect::<String>())
}

fn chr(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let code = int(&a[0])?;
    if code == 0 {
        return Err(SqlError::program_limit_exceeded("null character not permitted"));
    }
    if code < 0 {
        return Err(SqlError::invalid_parameter_value("character number must be positive"));
    }
    match u32::try_from(code).ok().and_then(char::from_u32) {
        Some(c) => text(c.to_string()),
        None => {
            let message = format!("requested character not valid for encoding: {code}");
            Err(SqlError::program_limit_exceeded(message))
        }
    }
}

/// Any value as text concatenates it; NULL is nothing.
fn shown(a: &[Datum], c: &Call<'_>, i: usize) -> Option<String> {
    let value = a.get(i).filter(|d| !d.is_null())?;
    let data_type = c.arg_types.get(i).cloned().unwrap_or(DataType::Text);
    Some(to_text(value, &data_type, &c.context.format))
}

fn concat(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    text((0..a.len()).filter_map(|i| shown(a, c, i)).collect::<String>())
}

fn concat_ws(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let Some(separator) = a[0].as_str() else { return Ok(Datum::Null) };
    text((1..a.len()).filter_map(|i| shown(a, c, i)).collect::<Vec<_>>().join(separator))
}

/// `||` of a text and anything.
fn append(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    if let (Datum::Text(x), Datum::Text(y)) = (&a[0], &a[1]) {
        let padded = |i: usize| matches!(c.arg_types.get(i), Some(DataType::Char(_)));
        if !padded(0) && !padded(1) {
            let mut out = String::with_capacity(x.len() + y.len());
            out.push_str(x);
            out.push_str(y);
            return text(out);
        }
    }
    let side = |i: usize| match c.arg_types.get(i) {
        Some(DataType::Char(_)) => shown(a, c, i).map(|s| s.trim_end_matches(' ').to_string()),
        Some(DataType::Bool) => Some(if a[i].as_bool() == Some(true) { "true" } else { "false" }.to_string()),
        _ => shown(a, c, i),
    };
    text(side(0).unwrap_or_default() + &side(1).unwrap_or_default())
}

/// Words that must be quoted to be names.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "national",
    "natural",
    "nchar",
    "none",
    "normalize",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "outer",
    "overlaps",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "setof",
    "similar",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

/// A name as SQL reads it back, quoted only if it must be.
pub(crate) fn quote_identifier(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && RESERVED.binary_search(&name).is_err();
    if plain { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A text as a SQL literal.
pub(crate) fn quote_text(s: &str) -> String {
    let quoted = s.replace('\'', "''");
    match quoted.contains('\\') {
        true => format!(" E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

fn quoted_literal(s: &str) -> String {
    quote_text(s).trim_start().to_string()
}

fn quote_nullable(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    text(shown(a, c, 0).map_or("NULL".to_string(), |s| quoted_literal(&s)))
}

/// `format('%s %I %L %%', …)` with positions (`%2$s`) and widths (`%-10s`).
fn format(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let Some(template) = a[0].as_str() else { return Ok(Datum::Null) };
    let bad = |message: String| SqlError::invalid_parameter_value(message);
    let (mut out, mut next) = (String::new(), 1usize);
    let mut chars = template.chars().peekable();
    while let Some(ch) = chars.next() {
        if ch != '%' {
            out.push(ch);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let unterminated = || {
            bad("unterminated format() type specifier".to_string())
                .with_hint("For a single \"%\" use \"%%\".")
        };
        let mut spec = String::new();
        while let Some(d) = chars.next_if(|d| d.is_ascii_digit() || matches!(d, '$' | '-' | '*')) {
            spec.push(d);
        }
        let kind = chars.next().ok_or_else(unterminated)?;
        let (position, width) = match spec.split_once('$') {
            Some((p, w)) => (p.parse::<usize>().ok(), w.to_string()),
            None => (None, spec),
        };
        if position == Some(0) {
            return Err(bad("format specifies argument 0, but arguments are numbered from 1".to_string()));
        }
        let (minus, width) = match width.strip_prefix('-') {
            Some(rest) => (true, rest.to_string()),
            None => (false, width),
        };
        let mut take = |position: Option<usize>| {
            let index = position.unwrap_or(next);
            next = index + 1;
            if index >= a.len() { Err(bad("too few arguments for format()".to_string())) } else { Ok(index) }
        };
        let (mut at_left, mut width) = match width.as_str() {
            "" => (minus, 0i64),
            "*" => (minus, a[take(None)?].as_i64().unwrap_or(0)),
            digits => (minus, digits.parse().map_err(|_| bad("number is out of range".to_string()))?),
        };
        if width < 0 {
            (at_left, width) = (true, -width);
        }
        if width > 1_000_000 {
            return Err(bad("number is out of range".to_string()));
        }
        let index = take(position)?;
        let value = shown(a, c, index);
        let piece = match (kind, value) {
            ('s', value) => value.unwrap_or_default(),
            ('I', Some(value)) => quote_identifier(&value),
            ('I', None) => {
                let message = "null values cannot be formatted as an SQL identifier";
                return Err(SqlError::null_value_not_allowed(message));
            }
            ('L', value) => value.map_or("NULL".to_string(), |v| quoted_literal(&v)),
            (other, _) => {
                return Err(bad(format!("unrecognized format() type specifier \"{other}\""))
                    .with_hint("For a single \"%\" use \"%%\"."));
            }
        };
        let padding = " ".repeat((width as usize).saturating_sub(piece.chars().count()));
        out.push_str(&if at_left { piece + &padding } else { padding + &piece });
    }
    text(out)
}

fn overlay(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (s, new, start) = (str_of(&a[0])?, str_of(&a[1])?, int(&a[2])?);
    let length = a.get(3).map_or(Ok(new.chars().count() as i64), int)?;
    if start <= 0 {
        return Err(SqlError::new("22011", "negative substring length not allowed"));
    }
    text(format!("{}{new}{}", slice(s, 1, Some(start - 1))?, slice(s, start + length, None)?))
}

fn to_hex(v: i64, narrow: bool) -> Result<Datum> {
    text(if narrow { format!("{:x}", v as i32) } else { format!("{v:x}") })
}

/// The functions of this family.
pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    function("length", &[Text], Int4, length),
    function("length", &[Bpchar], Int4, padded_length),
    function("char_length", &[Text], Int4, length),
    function("char_length", &[Bpchar], Int4, padded_length),
    function("character_length", &[Text], Int4, length),
    function("octet_length", &[Text], Int4, octet_length),
    function("octet_length", &[Bpchar], Int4, octet_length),
    function("bit_length", &[Text], Int4, |a, _| Ok(Datum::Int4(str_of(&a[0])?.len() as i32 * 8))),
    function("lower", &[Text], Text, |a, _| text(str_of(&a[0])?.chars().map(lower).collect::<String>())),
    function("upper", &[Text], Text, |a, _| text(str_of(&a[0])?.chars().map(upper).collect::<String>())),
    function("initcap", &[Text], Text, initcap),
    function("btrim", &[Text], Text, btrim),
    function("btrim", &[Text, Text], Text, btrim),
    function("trim", &[Text], Text, btrim),
    function("trim", &[Text, Text], Text, btrim),
    function("ltrim", &[Text], Text, ltrim),
    function("ltrim", &[Text, Text], Text, ltrim),
    function("rtrim", &[Text], Text, rtrim),
    function("rtrim", &[Text, Text], Text, rtrim),
    function("substring", &[Text, Int4], Text, substring),
    function("substring", &[Text, Int4, Int4], Text, substring),
    function("substr", &[Text, Int4], Text, substring),
    function("substr", &[Text, Int4, Int4], Text, substring),
    function("overlay", &[Text, Text, Int4], Text, overlay),
    function("overlay", &[Text, Text, Int4, Int4], Text, overlay),
    function("strpos", &[Text, Text], Int4, |a, _| Ok(strpos(str_of(&a[0])?, str_of(&a[1])?))),
    // POSITION(part IN text) is position(text, part).
    function("position", &[Text, Text], Int4, |a, _| Ok(strpos(str_of(&a[0])?, str_of(&a[1])?))),
    function("left", &[Text, Int4], Text, left),
    function("right", &[Text, Int4], Text, right),
    function("lpad", &[Text, Int4], Text, |a, _| pad(a, true)),
    function("lpad", &[Text, Int4, Text], Text, |a, _| pad(a, true)),
    function("rpad", &[Text, Int4], Text, |a, _| pad(a, false)),
    function("rpad", &[Text, Int4, Text], Text, |a, _| pad(a, false)),
    function("repeat", &[Text, Int4], Text, repeat),
    function("reverse", &[Text], Text, |a, _| text(str_of(&a[0])?.chars().rev().collect::<String>())),
    function("replace", &[Text, Text, Text], Text, replace),
    function("split_part", &[Text, Text, Int4], Text, split_part),
    function("translate", &[Text, Text, Text], Text, translate),
    function("ascii", &[Text], Int4, |a, _| {
        Ok(Datum::Int4(str_of(&a[0])?.chars().next().map_or(0, |c| c as i32)))
    }),
    function("chr", &[Int4], Text, chr),
    function("starts_with", &[Text, Text], Bool, |a, _| {
        Ok(Datum::Bool(str_of(&a[0])?.starts_with(str_of(&a[1])?)))
    }),
    function("to_hex", &[Int4], Text, |a, _| to_hex(int(&a[0])?, true)),
    function("to_hex", &[Int8], Text, |a, _| to_hex(int(&a[0])?, false)),
    function("concat", &[Any], Text, concat).variadic().called_on_null().stable(),
    function("concat_ws", &[Text, Any], Text, concat_ws).variadic().called_on_null().stable(),
    function("format", &[Text], Text, format).called_on_null().stable(),
    function("format", &[Text, Any], Text, format).variadic().called_on_null().stable(),
    function("quote_ident", &[Text], Text, |a, _| text(quote_identifier(str_of(&a[0])?))),
    function("quote_literal", &[Text], Text, |a, _| text(quoted_literal(str_of(&a[0])?))),
    function("quote_literal", &[AnyElement], Text, quote_nullable).stable(),
    function("quote_nullable", &[Text], Text, quote_nullable).called_on_null(),
    function("quote_nullable", &[AnyElement], Text, quote_nullable).called_on_null().stable(),
];

/// The operators of this family.
pub(super) static OPERATORS: &[ScalarFunction] = &[
    function("||", &[Text, Text], Text, append),
    function("||", &[Text, AnyNonArray], Text, append).stable(),
    function("||", &[AnyNonArray, Text], Text, append).stable(),
    function("^@", &[Text, Text], Bool, |a, _| Ok(Datum::Bool(str_of(&a[0])?.starts_with(str_of(&a[1])?)))),
];

//! Arrays and records as text: `{a,"b c",NULL}` and `(1,"b c",)`.

use std::fmt::{self, Write};
use std::sync::Arc;

use amphora_storage::{Array, DataType, Datum};

use super::number::is_space;
use super::text::{parse, write_value};
use super::{FormatContext, to_text};
use crate::error::{Result, SqlError};

/// A one-dimensional array of elements of a type, from its text.
pub fn parse_array(text: &str, element: &DataType, ctx: &FormatContext) -> Result<Datum> {
    let malformed = |detail: &str| {
        SqlError::invalid_text_representation(format!("malformed array literal: \"{text}\""))
            .with_detail(detail)
    };
    let mut rest = text.trim_matches(is_space);
    // Bounds are read and dropped when they start at 1: `[1:2]={a,b}`.
    if rest.starts_with('[') {
        let (bounds, body) =
            rest.split_once('=').ok_or_else(|| malformed("Missing \"=\" after array dimensions."))?;
        if !bounds.trim_end().starts_with("[1:") {
            return Err(SqlError::feature_not_supported(
                "arrays whose lower bound is not 1 are not supported",
            ));
        }
        rest = body.trim_start();
    }
    let Some(body) = rest.strip_prefix('{') else {
        return Err(malformed("Array value must start with \"{\" or dimension information."));
    };
    let mut chars = body.char_indices().peekable();
    let mut items = Vec::new();
    let mut closed = None;
    while closed.is_none() {
        while chars.next_if(|(_, c)| is_space(*c)).is_some() {}
        let (mut word, mut quoted) = (String::new(), false);
        // Trailing space of an unquoted element is not part of it, unless escaped.
        let mut keep = 0;
        let end = loop {
            match chars.next() {
                None => return Err(malformed("Unexpected end of input.")),
                Some((_, '{')) if word.is_empty() && !quoted => {
                    return Err(SqlError::feature_not_supported("multidimensional arrays are not supported"));
                }
                Some((_, '"')) => {
                    if quoted || !word.is_empty() {
                        return Err(malformed("Incorrectly quoted array element."));
                    }
                    quoted = true;
                    loop {
                        match chars.next() {
                            Some((_, '"')) => break,
                            Some((_, '\\')) => match chars.next() {
                                Some((_, c)) => word.push(c),
                                None => return Err(malformed("Unexpected end of input.")),
                            },
                            Some((_, c)) => word.push(c),
                            None => return Err(malformed("Unexpected end of input.")),
                        }
                    }
                    keep = word.len();
                }
                Some((i, c @ (',' | '}'))) => break (i, c),
                Some((_, '\\')) => match chars.next() {
                    Some((_, c)) => {
                        word.push(c);
                        keep = word.len();
                    }
                    None => return Err(malformed("Unexpected end of input.")),
                },
                Some((_, c)) if is_space(c) => {
                    if !quoted {
                        word.push(c);
                    }
                }
                Some((_, _)) if quoted => return Err(malformed("Incorrectly quoted array element.")),
                Some((_, c)) => {
                    word.push(c);
                    keep = word.len();
                }
            }
        };
        word.truncate(keep);
        if word.is_empty() && !quoted {
            if end.1 == '}' && items.is_empty() {
                closed = Some(end.0);
                break;
            }
            return Err(malformed(&format!("Unexpected \"{}\" character.", end.1)));
        }
        items.push(match !quoted && word.eq_ignore_ascii_case("null") {
            true => Datum::Null,
            false => parse(&word, element, ctx)?,
        });
        if end.1 == '}' {
            closed = Some(end.0);
        }
    }
    let tail = closed.and_then(|i| body.get(i + 1..)).unwrap_or("");
    if !tail.trim_matches(is_space).is_empty() {
        return Err(malformed("Junk after closing right brace."));
    }
    Ok(Datum::array(element.clone(), items))
}

/// Writes an array's text.
pub(super) fn write_array(
    array: &Array,
    ctx: &FormatContext,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    out.write_char('{')?;
    for (i, item) in array.items.iter().enumerate() {
        if i > 0 {
            out.write_char(',')?;
        }
        if item.is_null() {
            out.write_str("NULL")?;
            continue;
        }
        let text = to_text(item, &array.element, ctx);
        let special = |c: char| is_space(c) || matches!(c, '{' | '}' | ',' | '"' | '\\');
        if text.is_empty() || text.eq_ignore_ascii_case("null") || text.contains(special) {
            out.write_char('"')?;
            for c in text.chars() {
                if matches!(c, '"' | '\\') {
                    out.write_char('\\')?;
                }
                out.write_char(c)?;
            }
            out.write_char('"')?;
        } else {
            out.write_str(&text)?;
        }
    }
    out.write_char('}')
}

/// Writes a record's text. Its fields print as their kind's own type does.
pub(super) fn write_record(
    fields: &[Datum],
    ctx: &FormatContext,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    out.write_char('(')?;
    for (i, field) in fields.iter().enumerate() {
        if i > 0 {
            out.write_char(',')?;
        }
        if field.is_null() {
            continue;
        }
        let mut text = String::new();
        write_value(field, &DataType::Unknown, ctx, &mut text)?;
        let special = |c: char| is_space(c) || matches!(c, '(' | ')' | ',' | '"' | '\\');
        if text.is_empty() || text.contains(special) {
            out.write_char('"')?;
            for c in text.chars() {
                if matches!(c, '"' | '\\') {
                    out.write_char(c)?;
                }
                out.write_char(c)?;
            }
            out.write_char('"')?;
        } else {
            out.write_str(&text)?;
        }
    }
    out.write_char(')')
}

/// A record of fields of the given types, from its text.
pub fn parse_record(text: &str, types: &[DataType], ctx: &FormatContext) -> Result<Datum> {
    let malformed = || SqlError::invalid_text_representation(format!("malformed record literal: \"{text}\""));
    let body = text.trim_matches(is_space).strip_prefix('(').and_then(|t| t.strip_suffix(')'));
    let mut chars = body.ok_or_else(malformed)?.chars().peekable();
    let mut fields = Vec::with_capacity(types.len());
    for (i, data_type) in types.iter().enumerate() {
        let (mut word, mut quoted) = (String::new(), false);
        let mut in_quotes = false;
        loop {
            match chars.peek().copied() {
                None => break,
                Some(',') if !in_quotes => break,
                Some(c) => {
                    chars.next();
                    match c {
                        '"' if in_quotes && chars.peek() == Some(&'"') => {
                            chars.next();
                            word.push('"');
                        }
                        '"' => {
                            in_quotes = !in_quotes;
                            quoted = true;
                        }
                        '\\' => word.push(chars.next().ok_or_else(malformed)?),
                        c => word.push(c),
                    }
                }
            }
        }
        let last = i + 1 == types.len();
        if in_quotes || chars.next().is_some() == last {
            return Err(malformed());
        }
        fields.push(match word.is_empty() && !quoted {
            true => Datum::Null,
            false => parse(&word, data_type, ctx)?,
        });
    }
    Ok(Datum::Record(Arc::from(fields)))
}

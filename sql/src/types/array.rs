//! Arrays and records as text: `{a,"b c",NULL}`, `[0:1][1:2]={{1,2},{3,4}}` and `(1,"b c",)`.

use std::fmt::{self, Write};
use std::sync::Arc;

use amphora_storage::array::{Dimension, MAX_DIMENSIONS};
use amphora_storage::datum::Array;
use amphora_storage::{DataType, Datum};

use super::number::is_space;
use super::text::{parse, write_value};
use super::{FormatContext, to_text};
use crate::error::{Result, SqlError};

const SUB_ARRAYS: &str = "Multidimensional arrays must have sub-arrays with matching dimensions.";

/// 54000
pub(crate) fn too_many_dimensions(count: usize) -> SqlError {
    SqlError::program_limit_exceeded(format!(
        "number of array dimensions ({count}) exceeds the maximum allowed ({MAX_DIMENSIONS})"
    ))
}

/// An array of elements of a type, from its text.
pub fn parse_array(text: &str, element: &DataType, ctx: &FormatContext) -> Result<Datum> {
    let malformed = |detail: &str| {
        SqlError::invalid_text_representation(format!("malformed array literal: \"{text}\""))
            .with_detail(detail)
    };
    let mut rest = text.trim_matches(is_space);
    let mut bounds = Vec::new();
    if rest.starts_with('[') {
        (bounds, rest) = parse_bounds(rest, malformed)?;
        if !rest.starts_with('{') {
            return Err(malformed("Array contents must start with \"{\"."));
        }
    }
    if !rest.starts_with('{') {
        return Err(malformed("Array value must start with \"{\" or dimension information."));
    }
    let mut reader = Elements { rest, shape: Shape::default(), words: Vec::new() };
    reader.read().map_err(|wrong| match wrong {
        Wrong::Detail(detail) => malformed(&detail),
        Wrong::Deep(depth) => too_many_dimensions(depth),
    })?;
    let mut items = Vec::with_capacity(reader.words.len());
    for word in &reader.words {
        items.push(match word {
            None => Datum::Null,
            Some(word) => parse(word, element, ctx)?,
        });
    }
    let lengths = &reader.shape.lengths;
    if items.is_empty() && bounds.is_empty() {
        return Ok(Datum::array(element.clone(), items));
    }
    if bounds.is_empty() {
        bounds = lengths.iter().map(|n| Dimension::from_one(*n)).collect();
    } else if bounds.len() != lengths.len()
        || !bounds.iter().zip(lengths).all(|(b, n)| b.length as usize == *n)
    {
        return Err(malformed("Specified array dimensions do not match array contents."));
    }
    match Array::shaped(element.clone(), items, &bounds) {
        Some(array) => Ok(Datum::Array(Arc::new(array))),
        None => Err(malformed(SUB_ARRAYS)),
    }
}

/// `[0:2][1:3]=`, and what follows it.
fn parse_bounds<'t>(
    text: &'t str,
    malformed: impl Fn(&str) -> SqlError,
) -> Result<(Vec<Dimension>, &'t str)> {
    let mut bounds = Vec::new();
    let mut rest = text;
    while let Some(inside) = rest.strip_prefix('[') {
        if bounds.len() >= MAX_DIMENSIONS {
            return Err(too_many_dimensions(bounds.len() + 1));
        }
        let number = |text: &'t str, missing: &str| -> Result<(i64, &'t str)> {
            let sign = usize::from(text.starts_with(['-', '+']));
            let end = text[sign..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |i| i + sign);
            if end == sign {
                return Err(malformed(missing));
            }
            let out_of_range = || SqlError::program_limit_exceeded("array bound is out of integer range");
            let value: i32 = text[..end].parse().map_err(|_| out_of_range())?;
            Ok((i64::from(value), &text[end..]))
        };
        let (first, after) = number(inside, "\"[\" must introduce explicitly-specified array dimensions.")?;
        let (lower, upper, after) = match after.strip_prefix(':') {
            Some(after) => {
                let (upper, after) = number(after, "Missing array dimension value.")?;
                (first, upper, after)
            }
            None => (1, first, after),
        };
        rest = after
            .strip_prefix(']')
            .ok_or_else(|| malformed("Missing \"]\" after array dimensions."))?
            .trim_start_matches(is_space);
        if upper < lower {
            return Err(SqlError::array_subscript_error("upper bound cannot be less than lower bound"));
        }
        let length = u32::try_from(upper - lower + 1).unwrap_or(u32::MAX);
        bounds.push(Dimension { length, lower: i32::try_from(lower).unwrap_or(i32::MAX) });
    }
    let rest = rest.strip_prefix('=').ok_or_else(|| malformed("Missing \"=\" after array dimensions."))?;
    Ok((bounds, rest.trim_start_matches(is_space)))
}

/// What is wrong with an array's text.
enum Wrong {
    Detail(String),
    Deep(usize),
}

fn wrong<T>(detail: impl Into<String>) -> std::result::Result<T, Wrong> {
    Err(Wrong::Detail(detail.into()))
}

/// The lengths of dimensions, as they become known.
#[derive(Default)]
struct Shape {
    /// Of each dimension, once one of its sub-arrays is closed
    lengths: Vec<usize>,
    closed: Vec<bool>,
    /// How many there are so far in each that is open
    counts: Vec<usize>,
    /// The depth at which elements are
    leaves: Option<usize>,
}

impl Shape {
    fn open(&mut self) -> std::result::Result<(), Wrong> {
        if let Some(count) = self.counts.last_mut() {
            *count += 1;
        }
        let depth = self.counts.len() + 1;
        if depth > MAX_DIMENSIONS {
            return Err(Wrong::Deep(depth));
        }
        if self.leaves.is_some_and(|leaves| depth > leaves) {
            return wrong("Unexpected \"{\" character.");
        }
        self.counts.push(0);
        if self.lengths.len() < depth {
            self.lengths.push(0);
            self.closed.push(false);
        }
        Ok(())
    }

    fn element(&mut self) -> std::result::Result<(), Wrong> {
        let depth = self.counts.len();
        if *self.leaves.get_or_insert(depth) != depth || self.lengths.len() > depth {
            return wrong("Unexpected array element.");
        }
        if let Some(count) = self.counts.last_mut() {
            *count += 1;
        }
        Ok(())
    }

    fn close(&mut self) -> std::result::Result<(), Wrong> {
        let Some(count) = self.counts.pop() else { return wrong("Unexpected \"}\" character.") };
        let depth = self.counts.len();
        if self.closed[depth] && self.lengths[depth] != count {
            return wrong(SUB_ARRAYS);
        }
        self.lengths[depth] = count;
        self.closed[depth] = true;
        Ok(())
    }
}

/// Reads what stands between braces.
struct Elements<'t> {
    rest: &'t str,
    shape: Shape,
    /// The elements' texts; `None` is NULL
    words: Vec<Option<String>>,
}

impl Elements<'_> {
    fn read(&mut self) -> std::result::Result<(), Wrong> {
        // Whether a sub-array or an element may come now, and whether a comma or a brace may.
        let (mut may_begin, mut may_end) = (true, false);
        loop {
            self.rest = self.rest.trim_start_matches(is_space);
            let Some(c) = self.rest.chars().next() else { return wrong("Unexpected end of input.") };
            match c {
                '{' => {
                    if !may_begin {
                        return wrong("Unexpected \"{\" character.");
                    }
                    self.shape.open()?;
                    self.rest = &self.rest[1..];
                    // Only the whole array may be empty.
                    (may_begin, may_end) = (true, self.shape.counts.len() == 1);
                }
                '}' => {
                    if !may_end {
                        return wrong("Unexpected \"}\" character.");
                    }
                    self.shape.close()?;
                    self.rest = &self.rest[1..];
                    (may_begin, may_end) = (false, true);
                    if self.shape.counts.is_empty() {
                        return match self.rest.trim_matches(is_space) {
                            "" => Ok(()),
                            _ => wrong("Junk after closing right brace."),
                        };
                    }
                }
                ',' => {
                    if may_begin || !may_end {
                        return wrong("Unexpected \",\" character.");
                    }
                    self.rest = &self.rest[1..];
                    (may_begin, may_end) = (true, false);
                }
                _ => {
                    if !may_begin {
                        return wrong("Unexpected array element.");
                    }
                    let word = self.word()?;
                    self.shape.element()?;
                    self.words.push(word);
                    (may_begin, may_end) = (false, true);
                }
            }
        }
    }

    /// One element; `None` is NULL.
    fn word(&mut self) -> std::result::Result<Option<String>, Wrong> {
        let (mut word, mut quoted, mut escaped) = (String::new(), false, false);
        // Trailing space of an unquoted element is not part of it, unless escaped.
        let mut keep = 0;
        let mut characters = self.rest.char_indices();
        loop {
            match characters.next() {
                None => return wrong("Unexpected end of input."),
                Some((_, '"')) => {
                    if quoted || !word.is_empty() {
                        return wrong("Incorrectly quoted array element.");
                    }
                    quoted = true;
                    loop {
                        match characters.next() {
                            Some((_, '"')) => break,
                            Some((_, '\\')) => match characters.next() {
                                Some((_, c)) => word.push(c),
                                None => return wrong("Unexpected end of input."),
                            },
                            Some((_, c)) => word.push(c),
                            None => return wrong("Unexpected end of input."),
                        }
                    }
                    keep = word.len();
                }
                Some((i, ',' | '}')) => {
                    self.rest = &self.rest[i..];
                    break;
                }
                Some((_, '{')) => return wrong("Unexpected \"{\" character."),
                Some((_, '\\')) => match characters.next() {
                    Some((_, c)) => {
                        word.push(c);
                        escaped = true;
                        keep = word.len();
                    }
                    None => return wrong("Unexpected end of input."),
                },
                Some((_, c)) if is_space(c) => {
                    if !quoted {
                        word.push(c);
                    }
                }
                Some((_, _)) if quoted => return wrong("Incorrectly quoted array element."),
                Some((_, c)) => {
                    word.push(c);
                    keep = word.len();
                }
            }
        }
        word.truncate(keep);
        let null = !quoted && !escaped && word.eq_ignore_ascii_case("null");
        Ok((!null).then_some(word))
    }
}

/// Writes an array's text.
pub(super) fn write_array(
    array: &Array,
    ctx: &FormatContext,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let Some(shape) = &array.shape else { return write_items(array, &array.items, &[], ctx, out) };
    if shape.iter().any(|d| d.lower != 1) {
        for dimension in shape.iter() {
            write!(out, "[{}:{}]", dimension.lower, dimension.upper())?;
        }
        out.write_char('=')?;
    }
    write_items(array, &array.items, &shape[1..], ctx, out)
}

/// The items of one place of the dimensions before `inner`.
fn write_items(
    array: &Array,
    items: &[Datum],
    inner: &[Dimension],
    ctx: &FormatContext,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    out.write_char('{')?;
    if let Some((_, deeper)) = inner.split_first() {
        let size = inner.iter().map(|d| d.length as usize).product::<usize>().max(1);
        for (i, part) in items.chunks(size).enumerate() {
            if i > 0 {
                out.write_char(',')?;
            }
            write_items(array, part, deeper, ctx, out)?;
        }
        return out.write_char('}');
    }
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.write_char(',')?;
        }
        write_item(array, item, ctx, out)?;
    }
    out.write_char('}')
}

/// One element: quoted where it would be read as something else.
fn write_item(
    array: &Array,
    item: &Datum,
    ctx: &FormatContext,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    if item.is_null() {
        out.write_str("NULL")?;
        return Ok(());
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
    Ok(())
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

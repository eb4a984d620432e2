//! LIKE and regular expressions.
//!
//! PostgreSQL's advanced regular expressions are mostly the `regex` crate's syntax. What differs is
//! translated: word boundaries `\m \M \y`, `\Z`, `[[:<:]]`; back references and look-around are refused
//! (2201B), which keeps matching linear in the text. Compiled expressions are kept per thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use amphora_storage::{DataType, Datum};
use regex::{Captures, Regex, RegexBuilder};

use super::arithmetic::int;
use super::signature::Ty::*;
use super::string::str_of;
use super::{Call, ScalarFunction, function};
use crate::error::{Result, SqlError};

/// A LIKE pattern: `%` is any text, `_` any one character, a backslash takes the next literally.
#[derive(Clone, Debug)]
pub struct LikePattern {
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Any,
    One,
    Literal(char),
}

impl LikePattern {
    /// Compiles a pattern; `fold` makes it ignore case. 22025 if it ends in an escape.
    pub fn new(pattern: &str, escape: Option<char>, fold: bool) -> Result<LikePattern> {
        let mut parts = Vec::with_capacity(pattern.len());
        let mut chars = pattern.chars();
        let literal = |c: char, parts: &mut Vec<Part>| match fold {
            true => parts.extend(c.to_lowercase().map(Part::Literal)),
            false => parts.push(Part::Literal(c)),
        };
        while let Some(c) = chars.next() {
            match c {
                c if Some(c) == escape => match chars.next() {
                    Some(c) => literal(c, &mut parts),
                    None => {
                        return Err(SqlError::new(
                            "22025",
                            "LIKE pattern must not end with escape character",
                        ));
                    }
                },
                '%' if parts.last() == Some(&Part::Any) => {}
                '%' => parts.push(Part::Any),
                '_' => parts.push(Part::One),
                c => literal(c, &mut parts),
            }
        }
        Ok(LikePattern { parts })
    }

    /// True if the text matches. Only the last `%` is ever gone back to, so time is at most the product of
    /// the lengths.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut t, mut p) = (0, 0);
        let mut back: Option<(usize, usize)> = None;
        loop {
            match self.parts.get(p) {
                Some(Part::Any) => {
                    back = Some((p + 1, t));
                    p += 1;
                    continue;
                }
                Some(Part::One) if t < text.len() => {
                    t += 1;
                    p += 1;
                    continue;
                }
                Some(Part::Literal(c)) if text.get(t) == Some(c) => {
                    t += 1;
                    p += 1;
                    continue;
                }
                None if t == text.len() => return true,
                _ => {}
            }
            match &mut back {
                Some((after, from)) if *from < text.len() => {
                    *from += 1;
                    (p, t) = (*after, *from);
                }
                _ => return false,
            }
        }
    }

    /// The literal text every match starts with, for index ranges.
    pub fn prefix(&self) -> String {
        let literal = |p: &Part| match p {
            Part::Literal(c) => Some(*c),
            _ => None,
        };
        self.parts.iter().map_while(literal).collect()
    }
}

/// Translates PostgreSQL's escapes to the `regex` crate's.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let body = match pattern.strip_prefix("***=") {
        Some(literal) => return regex::escape(literal),
        None => pattern.strip_prefix("***:").unwrap_or(pattern),
    };
    let body = body.replace("[[:<:]]", "\\b{start}").replace("[[:>:]]", "\\b{end}");
    let mut chars = body.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('m') if !in_class => out.push_str("\\b{start}"),
                Some('M') if !in_class => out.push_str("\\b{end}"),
                Some('y') if !in_class => out.push_str("\\b"),
                Some('Y') if !in_class => out.push_str("\\B"),
                Some('A') => out.push_str("\\A"),
                Some('Z') => out.push_str("\\z"),
                Some('e') => out.push_str("\\x1B"),
                Some(c @ ('b' | 'B')) if in_class => out.push_str(if c == 'b' { "\\x08" } else { "\\\\" }),
                Some('b') => match chars.peek() {
                    // `\b{start}` was put here above.
                    Some('{') => out.push_str("\\b"),
                    _ => out.push_str("\\x08"),
                },
                Some(c) if c.is_ascii_alphanumeric() => {
                    out.push('\\');
                    out.push(c);
                }
                Some(c) if c.is_ascii() => {
                    out.push('\\');
                    out.push(c);
                }
                Some(c) => out.push(c),
                None => out.push('\\'),
            },
            '[' if in_class && chars.peek() != Some(&':') => out.push_str("\\["),
            '[' if in_class => {
                out.push('[');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '[' => {
                in_class = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                // A bracket that comes first is itself.
                if chars.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            c @ ('&' | '~') if in_class => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// The options of a flags argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Flags {
    fold: bool,
    lines: bool,
    dot_stops: bool,
    extended: bool,
    global: bool,
    literal: bool,
}

impl Flags {
    fn parse(text: &str) -> Result<Flags> {
        let mut flags = Flags::default();
        for c in text.chars() {
            match c {
                'i' => flags.fold = true,
                'c' => flags.fold = false,
                'n' | 'm' => (flags.lines, flags.dot_stops) = (true, true),
                'p' => flags.dot_stops = true,
                'w' => flags.lines = true,
                's' => (flags.lines, flags.dot_stops) = (false, false),
                'x' => flags.extended = true,
                't' | 'e' | 'b' => {}
                'q' => flags.literal = true,
                'g' => flags.global = true,
                other => {
                    let message = format!("invalid regular expression option: \"{other}\"");
                    return Err(SqlError::invalid_parameter_value(message));
                }
            }
        }
        Ok(flags)
    }
}

/// Compiled expressions a thread keeps.
const CACHE: usize = 64;

thread_local! {
    static COMPILED: RefCell<HashMap<(String, Flags), Rc<Regex>>> = RefCell::new(HashMap::new());
}

fn compile(pattern: &str, flags: Flags) -> Result<Rc<Regex>> {
    let flags = Flags { global: false, ..flags };
    let key = (pattern.to_string(), flags);
    if let Some(found) = COMPILED.with_borrow(|c| c.get(&key).cloned()) {
        return Ok(found);
    }
    let regex = Rc::new(build(pattern, flags)?);
    COMPILED.with_borrow_mut(|c| {
        if c.len() >= CACHE {
            c.clear();
        }
        c.insert(key, Rc::clone(&regex));
    });
    Ok(regex)
}

fn build(pattern: &str, flags: Flags) -> Result<Regex> {
    // Options may also stand at the beginning: `(?i)`.
    let translated = if flags.literal { regex::escape(pattern) } else { translate(pattern) };
    RegexBuilder::new(&translated)
        .case_insensitive(flags.fold)
        .multi_line(flags.lines)
        .dot_matches_new_line(!flags.dot_stops)
        .ignore_whitespace(flags.extended)
        .size_limit(4 << 20)
        .build()
        .map_err(|e| {
            let text = e.to_string();
            let reason = text.lines().last().unwrap_or("").trim().trim_start_matches("error: ").to_string();
            SqlError::invalid_regular_expression(format!(
                "invalid regular expression: {}",
                in_postgres_words(&reason)
            ))
        })
}

/// The commonest complaints about an expression, as PostgreSQL puts them.
fn in_postgres_words(reason: &str) -> &str {
    match reason {
        "unclosed group" | "unopened group" => "parentheses () not balanced",
        "unclosed character class" => "brackets [] not balanced",
        "repetition operator missing expression" => "quantifier operand invalid",
        "unclosed counted repetition" => "braces {} not balanced",
        "invalid character class range, the start must be <= the end" => "invalid character range",
        "backreferences are not supported" => "invalid backreference number",
        r if r.starts_with("incomplete escape") => "invalid escape \\ sequence",
        r if r.starts_with("unrecognized escape") => "invalid escape \\ sequence",
        other => other,
    }
}

/// A PostgreSQL regular expression, compiled; `fold` ignores case. 2201B if it is none.
pub fn compile_regex(pattern: &str, fold: bool) -> Result<Regex> {
    build(pattern, Flags { fold, ..Flags::default() })
}

thread_local! {
    static LIKES: RefCell<HashMap<(String, bool), Rc<LikePattern>>> = RefCell::new(HashMap::new());
}

fn like(a: &[Datum], fold: bool) -> Result<bool> {
    let (text, pattern) = (str_of(&a[0])?, str_of(&a[1])?);
    let key = (pattern.to_string(), fold);
    let compiled = match LIKES.with_borrow(|c| c.get(&key).cloned()) {
        Some(found) => found,
        None => {
            let new = Rc::new(LikePattern::new(pattern, Some('\\'), fold)?);
            LIKES.with_borrow_mut(|c| {
                if c.len() >= CACHE {
                    c.clear();
                }
                c.insert(key, Rc::clone(&new));
            });
            new
        }
    };
    Ok(if fold { compiled.matches(&text.to_lowercase()) } else { compiled.matches(text) })
}

/// `like_escape(pattern, escape)`: the pattern with a backslash in place of another escape character.
fn like_escape(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let (pattern, escape) = (str_of(&a[0])?, str_of(&a[1])?);
    let mut escapes = escape.chars();
    let escape = escapes.next();
    if escapes.next().is_some() {
        return Err(SqlError::new("22019", "invalid escape string")
            .with_hint("Escape string must be empty or one character."));
    }
    let mut out = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            out.push('\\');
            out.extend(chars.next());
        } else if c == '\\' {
            out.push_str("\\\\");
        } else {
            out.push(c);
        }
    }
    Ok(Datum::text(out))
}

/// `similar_to_escape(pattern[, escape])`: SQL's SIMILAR TO as a regular expression.
fn similar_to_escape(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let pattern = str_of(&a[0])?;
    let escape = a.get(1).map_or(Ok("\\"), str_of)?.chars().next();
    let mut out = String::from("^(?:");
    let mut chars = pattern.chars();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => {
                out.push('\\');
                out.extend(chars.next());
            }
            '[' => {
                in_class = true;
                out.push(c);
            }
            ']' => {
                in_class = false;
                out.push(c);
            }
            '%' if !in_class => out.push_str(".*"),
            '_' if !in_class => out.push('.'),
            '.' | '^' | '$' | '\\' if !in_class => {
                out.push('\\');
                out.push(c);
            }
            '(' if !in_class => out.push_str("(?:"),
            c => out.push(c),
        }
    }
    out.push_str(")$");
    Ok(Datum::text(out))
}

fn regex_matches(a: &[Datum], fold: bool) -> Result<bool> {
    let regex = compile(str_of(&a[1])?, Flags { fold, ..Flags::default() })?;
    Ok(regex.is_match(str_of(&a[0])?))
}

fn flags_at(a: &[Datum], i: usize) -> Result<Flags> {
    a.get(i).map_or(Ok(Flags::default()), |d| Flags::parse(str_of(d)?))
}

/// The groups of a match, or the whole match where there are none.
fn groups(captures: &Captures<'_>) -> Datum {
    let text = |i: usize| captures.get(i).map_or(Datum::Null, |m| Datum::text(m.as_str()));
    let items = match captures.len() {
        1 => vec![text(0)],
        n => (1..n).map(text).collect(),
    };
    Datum::array(DataType::Text, items)
}

fn regexp_match(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let flags = flags_at(a, 2)?;
    if flags.global {
        return Err(SqlError::invalid_parameter_value(
            "regexp_match() does not support the \"global\" option",
        )
        .with_hint("Use the regexp_matches function instead."));
    }
    let regex = compile(str_of(&a[1])?, flags)?;
    Ok(regex.captures(str_of(&a[0])?).map_or(Datum::Null, |c| groups(&c)))
}

/// All matches (`g`) or the first: arrays of groups.
pub(super) fn matches(a: &[Datum]) -> Result<Vec<Datum>> {
    let flags = flags_at(a, 2)?;
    let regex = compile(str_of(&a[1])?, flags)?;
    let limit = if flags.global { usize::MAX } else { 1 };
    Ok(regex.captures_iter(str_of(&a[0])?).take(limit).map(|c| groups(&c)).collect())
}

/// Appends a replacement, in which `\1` is a group and `\&` the whole match.
fn expand(replacement: &str, captures: &Captures<'_>, out: &mut String) {
    let mut chars = replacement.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('&') => out.push_str(&captures[0]),
            Some(d @ '0'..='9') => {
                let group = d.to_digit(10).and_then(|i| captures.get(i as usize));
                out.push_str(group.map_or("", |m| m.as_str()));
            }
            Some('\\') => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
}

/// Replaces from the `start`-th character: the `occurrence`-th match, or all if that is 0.
fn replace(text: &str, regex: &Regex, replacement: &str, start: i64, occurrence: i64) -> Datum {
    let skip = usize::try_from(start - 1).unwrap_or(0);
    let from = text.char_indices().nth(skip).map_or(text.len(), |(i, _)| i);
    let (mut out, mut last) = (text[..from].to_string(), from);
    for (i, captures) in (1..).zip(regex.captures_iter(&text[from..])) {
        if occurrence != 0 && i != occurrence {
            continue;
        }
        let Some(whole) = captures.get(0) else { continue };
        out.push_str(&text[last..from + whole.start()]);
        expand(replacement, &captures, &mut out);
        last = from + whole.end();
        if occurrence != 0 {
            break;
        }
    }
    out.push_str(&text[last..]);
    Datum::text(out)
}

fn regexp_replace(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let flags = flags_at(a, 3)?;
    let regex = compile(str_of(&a[1])?, flags)?;
    Ok(replace(str_of(&a[0])?, &regex, str_of(&a[2])?, 1, i64::from(!flags.global)))
}

fn positive(d: &Datum, least: i64, name: &str) -> Result<i64> {
    let v = int(d)?;
    match v >= least {
        true => Ok(v),
        false => {
            Err(SqlError::invalid_parameter_value(format!("invalid value for parameter \"{name}\": {v}")))
        }
    }
}

fn regexp_replace_at(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let start = positive(&a[3], 1, "start")?;
    let flags = flags_at(a, 5)?;
    let occurrence = match a.get(4) {
        Some(n) => positive(n, 0, "n")?,
        None => 1,
    };
    let regex = compile(str_of(&a[1])?, flags)?;
    Ok(replace(str_of(&a[0])?, &regex, str_of(&a[2])?, start, occurrence))
}

/// The pieces between matches; a match of nothing splits between characters.
pub(super) fn regexp_split(a: &[Datum]) -> Result<Vec<Option<String>>> {
    let text = str_of(&a[0])?;
    let flags = flags_at(a, 2)?;
    if flags.global {
        return Err(SqlError::invalid_parameter_value(
            "regexp_split_to_table() does not support the \"global\" option",
        ));
    }
    let regex = compile(str_of(&a[1])?, flags)?;
    let (mut pieces, mut last) = (Vec::new(), 0);
    for m in regex.find_iter(text) {
        let empty_at_edge = m.is_empty() && (m.start() == 0 || m.end() == text.len());
        if empty_at_edge || (m.is_empty() && m.start() == last && last != 0 && m.start() == 0) {
            continue;
        }
        pieces.push(Some(text[last..m.start()].to_string()));
        last = m.end();
    }
    pieces.push(Some(text[last..].to_string()));
    Ok(pieces)
}

/// `string_to_array`'s pieces: by a separator, by characters if it is NULL, whole if it is empty.
pub(super) fn split_text(a: &[Datum]) -> Result<Vec<Option<String>>> {
    let text = str_of(&a[0])?;
    let null = a.get(2).and_then(Datum::as_str);
    let pieces: Vec<&str> = match a[1].as_str() {
        _ if text.is_empty() => Vec::new(),
        None => text.char_indices().map(|(i, c)| &text[i..i + c.len_utf8()]).collect(),
        Some("") => vec![text],
        Some(separator) => text.split(separator).collect(),
    };
    Ok(pieces.into_iter().map(|p| if Some(p) == null { None } else { Some(p.to_string()) }).collect())
}

fn regexp_count(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let text = str_of(&a[0])?;
    let start = a.get(2).map_or(Ok(1), |d| positive(d, 1, "start"))?;
    let regex = compile(str_of(&a[1])?, flags_at(a, 3)?)?;
    let from = text.char_indices().nth((start - 1) as usize).map_or(text.len(), |(i, _)| i);
    Ok(Datum::Int4(regex.find_iter(&text[from..]).count() as i32))
}

/// `regexp_instr(text, pattern, start, N, endoption, flags, group)`: where the N-th match (or its group)
/// begins, or the place after it.
fn regexp_instr(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let text = str_of(&a[0])?;
    let start = a.get(2).map_or(Ok(1), |d| positive(d, 1, "start"))?;
    let nth = a.get(3).map_or(Ok(1), |d| positive(d, 1, "n"))?;
    let after = a.get(4).map_or(Ok(0), super::arithmetic::int)?;
    let regex = compile(str_of(&a[1])?, flags_at(a, 5)?)?;
    let group = a.get(6).map_or(Ok(0), super::arithmetic::int)?;
    if !(0..=1).contains(&after) {
        return Err(SqlError::invalid_parameter_value(format!(
            "invalid value for parameter \"endoption\": {after}"
        )));
    }
    let Some(from) = start_at(text, start) else { return Ok(Datum::Int4(0)) };
    let found = regex.captures_iter(&text[from..]).nth((nth - 1) as usize);
    let part = found.and_then(|c| c.get(usize::try_from(group).unwrap_or(usize::MAX)).map(|m| m.range()));
    Ok(Datum::Int4(part.map_or(0, |r| {
        let byte = from + if after == 1 { r.end } else { r.start };
        text[..byte].chars().count() as i32 + 1
    })))
}

/// Where the character `start`, counted from 1, begins; its end counts as one more, and then there is none.
fn start_at(text: &str, start: i64) -> Option<usize> {
    let mut starts = text.char_indices().map(|(at, _)| at).chain(std::iter::once(text.len()));
    starts.nth(usize::try_from(start - 1).ok()?)
}

/// `regexp_substr(text, pattern, start, N, flags, group)`
fn regexp_substr_at(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let text = str_of(&a[0])?;
    let start = positive(&a[2], 1, "start")?;
    let nth = a.get(3).map_or(Ok(1), |d| positive(d, 1, "n"))?;
    let regex = compile(str_of(&a[1])?, flags_at(a, 4)?)?;
    let group = a.get(5).map_or(Ok(0), super::arithmetic::int)?;
    let Some(from) = start_at(text, start) else { return Ok(Datum::Null) };
    let found = regex.captures_iter(&text[from..]).nth((nth - 1) as usize);
    let part = found.and_then(|c| c.get(usize::try_from(group).unwrap_or(usize::MAX)).map(|m| m.as_str()));
    Ok(part.map_or(Datum::Null, Datum::text))
}

fn regexp_like(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let regex = compile(str_of(&a[1])?, flags_at(a, 2)?)?;
    Ok(Datum::Bool(regex.is_match(str_of(&a[0])?)))
}

fn regexp_substr(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let regex = compile(str_of(&a[1])?, Flags::default())?;
    Ok(regex.find(str_of(&a[0])?).map_or(Datum::Null, |m| Datum::text(m.as_str())))
}

/// `substring(text from pattern)`: the first group, or the whole match.
fn substring(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let regex = compile(str_of(&a[1])?, Flags::default())?;
    let found = regex.captures(str_of(&a[0])?);
    Ok(match found {
        Some(c) if c.len() > 1 => c.get(1).map_or(Datum::Null, |m| Datum::text(m.as_str())),
        Some(c) => Datum::text(&c[0]),
        None => Datum::Null,
    })
}

fn split_to_array(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let items = regexp_split(a)?.into_iter().map(|s| s.map_or(Datum::Null, Datum::text)).collect();
    Ok(Datum::array(DataType::Text, items))
}

/// The functions of this family.
pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    function("like_escape", &[Text, Text], Text, like_escape),
    function("similar_to_escape", &[Text], Text, similar_to_escape),
    function("similar_to_escape", &[Text, Text], Text, similar_to_escape),
    function("substring", &[Text, Text], Text, substring),
    function("regexp_match", &[Text, Text], Array(&Text), regexp_match),
    function("regexp_match", &[Text, Text, Text], Array(&Text), regexp_match),
    function("regexp_replace", &[Text, Text, Text], Text, regexp_replace),
    function("regexp_replace", &[Text, Text, Text, Text], Text, regexp_replace),
    function("regexp_replace", &[Text, Text, Text, Int4], Text, regexp_replace_at),
    function("regexp_replace", &[Text, Text, Text, Int4, Int4], Text, regexp_replace_at),
    function("regexp_replace", &[Text, Text, Text, Int4, Int4, Text], Text, regexp_replace_at),
    function("regexp_split_to_array", &[Text, Text], Array(&Text), split_to_array),
    function("regexp_split_to_array", &[Text, Text, Text], Array(&Text), split_to_array),
    function("regexp_count", &[Text, Text], Int4, regexp_count),
    function("regexp_count", &[Text, Text, Int4], Int4, regexp_count),
    function("regexp_count", &[Text, Text, Int4, Text], Int4, regexp_count),
    function("regexp_instr", &[Text, Text], Int4, regexp_instr),
    function("regexp_instr", &[Text, Text, Int4], Int4, regexp_instr),
    function("regexp_instr", &[Text, Text, Int4, Int4], Int4, regexp_instr),
    function("regexp_instr", &[Text, Text, Int4, Int4, Int4], Int4, regexp_instr),
    function("regexp_instr", &[Text, Text, Int4, Int4, Int4, Text], Int4, regexp_instr),
    function("regexp_instr", &[Text, Text, Int4, Int4, Int4, Text, Int4], Int4, regexp_instr),
    function("regexp_substr", &[Text, Text, Int4], Text, regexp_substr_at),
    function("regexp_substr", &[Text, Text, Int4, Int4], Text, regexp_substr_at),
    function("regexp_substr", &[Text, Text, Int4, Int4, Text], Text, regexp_substr_at),
    function("regexp_substr", &[Text, Text, Int4, Int4, Text, Int4], Text, regexp_substr_at),
    function("regexp_like", &[Text, Text], Bool, regexp_like),
    function("regexp_like", &[Text, Text, Text], Bool, regexp_like),
    function("regexp_substr", &[Text, Text], Text, regexp_substr),
];

macro_rules! matching {
    ($($ty:expr),*) => {
        &[$(
            function("~~", &[$ty, Text], Bool, |a, _| Ok(Datum::Bool(like(a, false)?))),
            function("!~~", &[$ty, Text], Bool, |a, _| Ok(Datum::Bool(!like(a, false)?))),
            function("~~*", &[$ty, Text], Bool, |a, _| Ok(Datum::Bool(like(a, true)?))),
            function("!~~*", &[$ty, Text], Bool, |a, _| Ok(Datum::Bool(!like(a, true)?))),
            function("~", &[$ty, Text], Bool, |a, _| Ok(Datum::Bool(regex_matches(a, false)?))),
            function("!~", &[$ty, Text], Bool, |a, _| Ok(Datum::Bool(!regex_matches(a, false)?))),
            function("~*", &[$ty, Text], Bool, |a, _| Ok(Datum::Bool(regex_matches(a, true)?))),
            function("!~*", &[$ty, Text], Bool, |a, _| Ok(Datum::Bool(!regex_matches(a, true)?))),
        )*]
    };
}

/// `LIKE`, `ILIKE` and the regular expression operators.
pub(super) static OPERATORS: &[ScalarFunction] = matching![Text, Name, Bpchar];

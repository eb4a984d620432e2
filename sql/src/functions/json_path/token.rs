//! The tokens of a path.

use crate::error::{Result, SqlError};

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `name`, a key or a word of the language
    Word(String),
    /// `"text"`
    Text(String),
    /// `$name` and `$"name"`
    Variable(String),
    /// A number as it was written
    Number(String),
    /// Anything else: `$ @ . ** [ ] ( ) ? , == != <> < <= > >= && || ! + - * / %`
    Symbol(&'static str),
}

const SYMBOLS: [&str; 26] = [
    "**", "&&", "||", "==", "!=", "<>", "<=", ">=", "$", "@", ".", "[", "]", "(", ")", "{", "}", "?", ",",
    "<", ">", "!", "+", "-", "*", "/",
];

/// 42601, where the text goes wrong.
pub(super) fn syntax_error(rest: &str) -> SqlError {
    let word: String = rest.chars().take_while(|c| !c.is_whitespace()).take(40).collect();
    match word.as_str() {
        "" => SqlError::syntax_error("syntax error at end of jsonpath input"),
        word => SqlError::syntax_error(format!("syntax error at or near \"{word}\" of jsonpath input")),
    }
}

/// Cuts a path into tokens, each with the text from it on (for errors).
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, &str)>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let start = rest;
        let token = if c == '"' {
            let (text, after) = string(rest)?;
            rest = after;
            Token::Text(text)
        } else if c == '$' && rest[1..].starts_with('"') {
            let (text, after) = string(&rest[1..])?;
            rest = after;
            Token::Variable(text)
        } else if c == '$' && rest[1..].starts_with(is_word) {
            let (name, after) = word(&rest[1..]);
            rest = after;
            Token::Variable(name)
        } else if c.is_ascii_digit() || c == '.' && rest[1..].starts_with(|d: char| d.is_ascii_digit()) {
            let (number, after) = number(rest)?;
            rest = after;
            Token::Number(number)
        } else if is_word(c) {
            let (name, after) = word(rest);
            rest = after;
            Token::Word(name)
        } else if c == '%' {
            rest = &rest[1..];
            Token::Symbol("%")
        } else {
            let symbol =
                SYMBOLS.into_iter().find(|s| rest.starts_with(s)).ok_or_else(|| syntax_error(rest))?;
            rest = &rest[symbol.len()..];
            Token::Symbol(symbol)
        };
        out.push((token, start));
        rest = rest.trim_start();
    }
    Ok(out)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word(text: &str) -> (String, &str) {
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    (text[..end].to_owned(), &text[end..])
}

fn number(text: &str) -> Result<(String, &str)> {
    let bytes = text.as_bytes();
    let digits = |mut i: usize| {
        while bytes.get(i).is_some_and(u8::is_ascii_digit) {
            i += 1;
        }
        i
    };
    let mut end = digits(0);
    // `$[0].x` and `1..`: a point belongs to the number only if a digit follows it.
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let after = digits(end + 1 + sign);
        if after > end + 1 + sign {
            end = after;
        }
    }
    if text[end..].starts_with(is_word) {
        let shown: String = text.chars().take_while(|c| is_word(*c) || *c == '.').collect();
        return Err(SqlError::syntax_error(format!(
            "trailing junk after numeric literal at or near \"{shown}\" of jsonpath input"
        )));
    }
    Ok((text[..end].to_owned(), &text[end..]))
}

/// A quoted string, with JSON's escapes.
fn string(text: &str) -> Result<(String, &str)> {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => {
                let value = serde_json::from_str(&text[..=i]).map_err(|_| syntax_error(text))?;
                return Ok((value, &text[i + 1..]));
            }
            _ => {}
        }
    }
    Err(SqlError::syntax_error("unterminated quoted string at end of jsonpath input"))
}

//! Clauses of PostgreSQL's that `sqlparser` does not read, rewritten to what it does.
//!
//! ```text
//!   r (a) AS (…) CYCLE a SET c USING p       r (a, "cycle a set c using p") AS (…)
//!   ROWS FROM (f(1), g(2))                   "rows from"(f(1), g(2))
//!   JOIN u USING (id) AS j                   JOIN u USING (id, "using as j")
//!   GROUP BY DISTINCT a, ROLLUP (b)          GROUP BY "group by distinct", a, ROLLUP (b)
//!   SELECT WHERE true                        SELECT FROM "no relation" WHERE true
//!   UNION TABLE t                            UNION SELECT * FROM t
//!   U&"d!0061t" UESCAPE '!'                  "dat"
//! ```
//!
//! What stands in quotes on the right has none: such a name has blanks in it, and no statement can spell it.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::rewrite::{keyword, word};
use crate::error::{Result, SqlError};

/// What the last column of a WITH query's list begins with that has SEARCH or CYCLE.
const RECURSION: &str = "search or cycle ";
/// The function that ROWS FROM is.
pub(crate) const ROWS_FROM: &str = "rows from";
/// What the last column of USING begins with that has an alias.
const USING_AS: &str = "using as ";
/// The first key of GROUP BY DISTINCT.
pub(crate) const GROUP_BY_DISTINCT: &str = "group by distinct";
/// The relation of a SELECT without a list and without FROM.
pub(crate) const NO_RELATION: &str = "no relation";

/// SEARCH … FIRST BY … SET …
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Search {
    pub(crate) depth_first: bool,
    pub(crate) by: Vec<String>,
    pub(crate) column: String,
}

/// CYCLE … SET … TO … DEFAULT … USING …
#[derive(Clone, Debug)]
pub(crate) struct Cycle {
    pub(crate) by: Vec<String>,
    pub(crate) mark: String,
    /// The mark's values; `None` is TRUE and FALSE
    pub(crate) values: Option<(String, String)>,
    pub(crate) path: String,
}

/// Both clauses of a WITH query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recursion {
    pub(crate) search: Option<Search>,
    pub(crate) cycle: Option<Cycle>,
}

fn made(token: Token) -> TokenWithSpan {
    TokenWithSpan::new(token, Span::empty())
}

fn name_of(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) if word.quote_style.is_some() => Some(word.value.clone()),
        Token::Word(word) => Some(word.value.to_lowercase()),
        _ => None,
    }
}

/// The alias in a column of USING that stands for one.
pub(crate) fn using_alias(ident: &sqlparser::ast::Ident) -> Option<&str> {
    ident.value.strip_prefix(USING_AS).filter(|_| ident.quote_style.is_none())
}

/// SEARCH and CYCLE in a column of a WITH query that stands for them.
pub(crate) fn recursion_of(ident: &sqlparser::ast::Ident) -> Result<Option<Recursion>> {
    let Some(text) = ident.value.strip_prefix(RECURSION).filter(|_| ident.quote_style.is_none()) else {
        return Ok(None);
    };
    let positions = super::Positions::of(text);
    let tokens = super::tokenize(text, &super::AmphoraDialect::new(), &positions)?;
    read_recursion(&tokens).map(|(found, _)| Some(found))
}

/// Reads tokens one after the other.
struct Reader<'t> {
    tokens: &'t [TokenWithSpan],
    next: usize,
}

impl Reader<'_> {
    fn accept(&mut self, expected: &str) -> bool {
        let found = word(self.tokens.get(self.next)).as_deref() == Some(expected);
        self.next += usize::from(found);
        found
    }

    fn wrong(&self) -> SqlError {
        match self.tokens.get(self.next) {
            Some(token) => SqlError::syntax_error(format!("syntax error at or near \"{}\"", token.token)),
            None => SqlError::syntax_error("syntax error at end of input"),
        }
    }

    fn expect(&mut self, expected: &str) -> Result<()> {
        if self.accept(expected) { Ok(()) } else { Err(self.wrong()) }
    }

    fn name(&mut self) -> Result<String> {
        let name = self.tokens.get(self.next).and_then(|t| name_of(&t.token)).ok_or_else(|| self.wrong())?;
        self.next += 1;
        Ok(name)
    }

    fn names(&mut self) -> Result<Vec<String>> {
        let mut names = vec![self.name()?];
        while self.tokens.get(self.next).is_some_and(|t| t.token == Token::Comma) {
            self.next += 1;
            names.push(self.name()?);
        }
        Ok(names)
    }

    /// A constant, up to one of these words.
    fn constant(&mut self, ends: &[&str]) -> Result<String> {
        let start = self.next;
        while let Some(token) = self.tokens.get(self.next) {
            if word(Some(token)).is_some_and(|w| ends.contains(&w.as_str())) {
                break;
            }
            self.next += 1;
        }
        let text: Vec<String> = self.tokens[start..self.next].iter().map(|t| t.token.to_string()).collect();
        if text.is_empty() { Err(self.wrong()) } else { Ok(text.join(" ")) }
    }
}

/// The clauses that tokens begin with, and how many tokens they are.
fn read_recursion(tokens: &[TokenWithSpan]) -> Result<(Recursion, usize)> {
    let mut reader = Reader { tokens, next: 0 };
    let mut found = Recursion::default();
    if reader.accept("search") {
        let depth_first = reader.accept("depth");
        if !depth_first {
            reader.expect("breadth")?;
        }
        reader.expect("first")?;
        reader.expect("by")?;
        let by = reader.names()?;
        reader.expect("set")?;
        found.search = Some(Search { depth_first, by, column: reader.name()? });
    }
    if reader.accept("cycle") {
        let by = reader.names()?;
        reader.expect("set")?;
        let mark = reader.name()?;
        let values = match reader.accept("to") {
            false => None,
            true => {
                let value = reader.constant(&["default"])?;
                reader.expect("default")?;
                Some((value, reader.constant(&["using"])?))
            }
        };
        reader.expect("using")?;
        found.cycle = Some(Cycle { by, mark, values, path: reader.name()? });
    }
    Ok((found, reader.next))
}

/// Rewrites all of them.
pub(super) fn rewrite(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let mut tokens = unicode(tokens)?;
    let has = |tokens: &[TokenWithSpan], wanted: &str| {
        tokens.iter().any(|t| matches!(&t.token, Token::Word(w) if w.value.eq_ignore_ascii_case(wanted)))
    };
    if has(&tokens, "recursive") && (has(&tokens, "search") || has(&tokens, "cycle")) {
        tokens = recursions(tokens)?;
    }
    let inserts = keyword(tokens.first()) == Keyword::INSERT;
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        let token = &tokens[i];
        let is = |n: usize, wanted: &Token| tokens.get(i + n).is_some_and(|t| t.token == *wanted);
        match keyword(Some(token)) {
            Keyword::ROWS if keyword(tokens.get(i + 1)) == Keyword::FROM && is(2, &Token::LParen) => {
                out.push(TokenWithSpan::new(Token::make_word(ROWS_FROM, None), token.span));
                i += 2;
                continue;
            }
            Keyword::USING if is(1, &Token::LParen) => {
                if let Some((end, alias)) = using_list(&tokens[i + 2..]) {
                    out.extend_from_slice(&tokens[i..i + 2 + end]);
                    out.push(made(Token::Comma));
                    out.push(made(Token::make_word(&format!("{USING_AS}{alias}"), None)));
                    out.push(made(Token::RParen));
                    i += 2 + end + 3;
                    continue;
                }
                out.push(token.clone());
            }
            Keyword::BY if keyword(out.last()) == Keyword::GROUP => {
                out.push(token.clone());
                match keyword(tokens.get(i + 1)) {
                    Keyword::DISTINCT => {
                        out.push(made(Token::make_word(GROUP_BY_DISTINCT, None)));
                        out.push(made(Token::Comma));
                        i += 1;
                    }
                    Keyword::ALL if i + 2 < tokens.len() => i += 1,
                    _ => {}
                }
            }
            Keyword::SELECT => {
                out.push(token.clone());
                let nothing = match tokens.get(i + 1) {
                    None => true,
                    Some(next) if next.token == Token::RParen => true,
                    next => matches!(
                        keyword(next),
                        Keyword::WHERE
                            | Keyword::UNION
                            | Keyword::INTERSECT
                            | Keyword::EXCEPT
                            | Keyword::GROUP
                            | Keyword::HAVING
                            | Keyword::ORDER
                            | Keyword::LIMIT
                    ),
                };
                if nothing {
                    out.push(made(Token::make_keyword("FROM")));
                    out.push(made(Token::make_word(NO_RELATION, None)));
                }
            }
            Keyword::TABLE if begins_query(out.last(), tokens.get(i + 1), inserts && i > 0) => {
                for word in ["SELECT", "*", "FROM"] {
                    out.push(made(if word == "*" { Token::Mul } else { Token::make_keyword(word) }));
                }
            }
            _ => out.push(token.clone()),
        }
        i += 1;
    }
    Ok(out)
}

/// True of TABLE where a query may begin.
fn begins_query(before: Option<&TokenWithSpan>, after: Option<&TokenWithSpan>, inserts: bool) -> bool {
    let named = matches!(after.map(|t| &t.token), Some(Token::Word(_)));
    let Some(before) = before else { return false };
    let follows = matches!(
        keyword(Some(before)),
        Keyword::UNION
            | Keyword::INTERSECT
            | Keyword::EXCEPT
            | Keyword::ALL
            | Keyword::DISTINCT
            | Keyword::AS
    );
    let part = before.token == Token::LParen || follows;
    let source = inserts
        && (before.token == Token::RParen
            || matches!(&before.token, Token::Word(w) if w.keyword != Keyword::INTO));
    named && (part || source)
}

/// Where the list of columns that USING begins with ends, and the alias behind it.
fn using_list(tokens: &[TokenWithSpan]) -> Option<(usize, String)> {
    let mut end = 0;
    loop {
        name_of(&tokens.get(end)?.token)?;
        end += 1;
        match &tokens.get(end)?.token {
            Token::Comma => end += 1,
            Token::RParen => break,
            _ => return None,
        }
    }
    if keyword(tokens.get(end + 1)) != Keyword::AS {
        return None;
    }
    Some((end, name_of(&tokens.get(end + 2)?.token)?))
}

/// Puts every SEARCH and CYCLE into the list of columns of its WITH query.
fn recursions(mut tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let mut i = 1;
    while i < tokens.len() {
        let begins = tokens[i - 1].token == Token::RParen
            && match word(tokens.get(i)).as_deref() {
                Some("search") => {
                    matches!(word(tokens.get(i + 1)).as_deref(), Some("depth" | "breadth"))
                }
                Some("cycle") => matches!(tokens.get(i + 1).map(|t| &t.token), Some(Token::Word(_))),
                _ => false,
            };
        let Some(open) = begins.then(|| opening(&tokens, i - 1)).flatten() else {
            i += 1;
            continue;
        };
        let Some(list_end) = columns_end(&tokens, open) else {
            i += 1;
            continue;
        };
        let (_, length) = read_recursion(&tokens[i..])?;
        let text: Vec<String> = tokens[i..i + length].iter().map(|t| t.token.to_string()).collect();
        let mark = made(Token::make_word(&format!("{RECURSION}{}", text.join(" ")), None));
        tokens.drain(i..i + length);
        if tokens[list_end].token == Token::RParen {
            tokens.splice(list_end..list_end, [made(Token::Comma), mark]);
        } else {
            let list = [made(Token::LParen), mark, made(Token::RParen)];
            tokens.splice(list_end + 1..list_end + 1, list);
        }
        i += 2;
    }
    Ok(tokens)
}

/// The parenthesis that this one closes.
fn opening(tokens: &[TokenWithSpan], close: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for i in (0..=close).rev() {
        match tokens[i].token {
            Token::RParen => depth += 1,
            Token::LParen => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

/// The last token of `name` or `name (columns)` before `AS [[NOT] MATERIALIZED] (`.
fn columns_end(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut i = open.checked_sub(1)?;
    if keyword(tokens.get(i)) == Keyword::MATERIALIZED {
        i = i.checked_sub(1)?;
        if keyword(tokens.get(i)) == Keyword::NOT {
            i = i.checked_sub(1)?;
        }
    }
    if keyword(tokens.get(i)) != Keyword::AS {
        return None;
    }
    i.checked_sub(1)
}

/// `U&"…"` and `U&'…'`, with UESCAPE or without.
fn unicode(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let any = tokens.iter().any(|t| {
        matches!(&t.token, Token::UnicodeStringLiteral(_))
            || matches!(&t.token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case("u"))
    });
    if !any {
        return Ok(tokens);
    }
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        let token = &tokens[i];
        // How many tokens it is, its text, whether it is a name, and whether escapes are read already.
        let found = match &token.token {
            Token::UnicodeStringLiteral(text) => Some((1, text.clone(), false)),
            Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case("u") => {
                match (tokens.get(i + 1), tokens.get(i + 2)) {
                    (Some(and), Some(name))
                        if and.token == Token::Ampersand
                            && and.span.start == token.span.end
                            && name.span.start == and.span.end =>
                    {
                        match &name.token {
                            Token::Word(w) if w.quote_style == Some('"') => Some((3, w.value.clone(), true)),
                            _ => None,
                        }
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        let Some((length, text, is_name)) = found else {
            out.push(token.clone());
            i += 1;
            continue;
        };
        i += length;
        let mut escape = None;
        if word(tokens.get(i)).as_deref() == Some("uescape") {
            let Some(Token::SingleQuotedString(c)) = tokens.get(i + 1).map(|t| &t.token) else {
                return Err(SqlError::syntax_error("UESCAPE must be followed by a simple string literal"));
            };
            let mut characters = c.chars();
            escape = match (characters.next(), characters.next()) {
                (Some(c), None)
                    if !c.is_ascii_hexdigit() && !matches!(c, '+' | '\'' | '"') && !c.is_whitespace() =>
                {
                    Some(c)
                }
                _ => {
                    let message = format!("invalid Unicode escape character at or near \"'{c}'\"");
                    return Err(SqlError::syntax_error(message));
                }
            };
            i += 2;
        }
        // The tokenizer has read a string's escapes by backslash.
        let text = match (escape, is_name) {
            (None, false) => text,
            (escape, _) => unescape(&text, escape.unwrap_or('\\'))?,
        };
        let new = match is_name {
            true => Token::make_word(&text, Some('"')),
            false => Token::SingleQuotedString(text),
        };
        out.push(TokenWithSpan::new(new, token.span));
    }
    Ok(out)
}

/// `\0061`, `\+000061` and `\\`, with this character in the backslash's place.
fn unescape(text: &str, escape: char) -> Result<String> {
    let wrong = || {
        SqlError::syntax_error("invalid Unicode escape")
            .with_hint("Unicode escapes must be \\XXXX or \\+XXXXXX.")
    };
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let mut high: Option<u32> = None;
    while let Some(c) = characters.next() {
        if c != escape {
            if high.is_some() {
                return Err(SqlError::syntax_error("invalid Unicode surrogate pair"));
            }
            out.push(c);
            continue;
        }
        if characters.next_if_eq(&escape).is_some() {
            out.push(escape);
            continue;
        }
        let digits = if characters.next_if_eq(&'+').is_some() { 6 } else { 4 };
        let mut code = 0;
        for _ in 0..digits {
            code = code * 16 + characters.next().and_then(|c| c.to_digit(16)).ok_or_else(wrong)?;
        }
        match (high.take(), code) {
            (None, 0xd800..=0xdbff) => high = Some(code),
            (Some(first), 0xdc00..=0xdfff) => {
                let joined = 0x10000 + ((first - 0xd800) << 10) + (code - 0xdc00);
                out.extend(char::from_u32(joined));
            }
            (Some(_), _) | (None, 0xdc00..=0xdfff) => {
                return Err(SqlError::syntax_error("invalid Unicode surrogate pair"));
            }
            (None, 0) => return Err(SqlError::syntax_error("invalid Unicode escape value")),
            (None, code) => {
                let c = char::from_u32(code);
                out.push(c.ok_or_else(|| SqlError::syntax_error("invalid Unicode escape value"))?);
            }
        }
    }
    if high.is_some() {
        return Err(SqlError::syntax_error("invalid Unicode surrogate pair"));
    }
    Ok(out)
}

//! Small rewrites of tokens, for what PostgreSQL writes and `sqlparser` does not read.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

/// The unquoted keyword of a token.
pub(super) fn keyword(token: Option<&TokenWithSpan>) -> Keyword {
    match token.map(|t| &t.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

/// The unquoted word of a token, in lower case.
pub(super) fn word(token: Option<&TokenWithSpan>) -> Option<String> {
    match token.map(|t| &t.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => Some(word.value.to_ascii_lowercase()),
        _ => None,
    }
}

/// Rewrites, keeping the place of every token that stays:
///
/// - `TABLE t` → `SELECT * FROM t`
/// - `IN ((SELECT …), …)` → `IN (coalesce((SELECT …)), …)`, lest the list be read as one query
/// - strings with a line break between them become one
/// - `EXCLUDE` of a window frame becomes a mark (`exclusion`)
/// - `FOR NO KEY UPDATE` → `FOR UPDATE`, `FOR KEY SHARE` → `FOR SHARE`: Amphora has two strengths of lock
pub(super) fn rewrite(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let tokens = super::exclusion::mark(mark_lists(join_strings(tokens)));
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut tokens = tokens.into_iter().peekable();
    let mut first = true;
    while let Some(token) = tokens.next() {
        match keyword(Some(&token)) {
            Keyword::TABLE if first => {
                for word in ["SELECT", "*", "FROM"] {
                    let made = if word == "*" { Token::Mul } else { Token::make_keyword(word) };
                    out.push(TokenWithSpan::new(made, Span::empty()));
                }
            }
            Keyword::NO if keyword(out.last()) == Keyword::FOR && keyword(tokens.peek()) == Keyword::KEY => {
                tokens.next();
            }
            Keyword::KEY
                if keyword(out.last()) == Keyword::FOR && keyword(tokens.peek()) == Keyword::SHARE => {}
            _ => out.push(token),
        }
        first = false;
    }
    out
}

/// Wraps a subquery that begins an IN list.
fn mark_lists(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is = |i: usize, token: &Token| tokens.get(i).is_some_and(|t| t.token == *token);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for i in 0..tokens.len() {
        let begins = keyword(tokens.get(i)) == Keyword::IN
            && is(i + 1, &Token::LParen)
            && is(i + 2, &Token::LParen)
            && matches!(keyword(tokens.get(i + 3)), Keyword::SELECT | Keyword::WITH | Keyword::VALUES);
        if !begins {
            continue;
        }
        let mut depth = 0_usize;
        for (j, token) in tokens.iter().enumerate().skip(i + 2) {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                if !is(j + 1, &Token::RParen) {
                    before.push(i + 2);
                    after.push(j);
                }
                break;
            }
        }
    }
    if before.is_empty() {
        return tokens;
    }
    after.sort_unstable();
    let made = |token: Token| TokenWithSpan::new(token, Span::empty());
    let mut out = Vec::with_capacity(tokens.len() + 3 * before.len());
    for (i, token) in tokens.into_iter().enumerate() {
        if before.binary_search(&i).is_ok() {
            out.push(made(Token::make_word("coalesce", None)));
            out.push(made(Token::LParen));
        }
        out.push(token);
        if after.binary_search(&i).is_ok() {
            out.push(made(Token::RParen));
        }
    }
    out
}

/// True of a string that follows another on the same line, which SQL does not allow.
pub(super) fn is_misplaced_string(before: &TokenWithSpan, token: &TokenWithSpan) -> bool {
    let string = |t: &TokenWithSpan| matches!(t.token, Token::SingleQuotedString(_));
    string(before) && string(token) && before.span.end.line == token.span.start.line
}

/// Joins strings that only a line break separates.
fn join_strings(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for token in tokens {
        if let (
            Some(TokenWithSpan { token: Token::SingleQuotedString(before), span }),
            Token::SingleQuotedString(more),
        ) = (out.last_mut(), &token.token)
        {
            before.push_str(more);
            span.end = token.span.end;
        } else {
            out.push(token);
        }
    }
    out
}

//! Small rewrites of tokens, for what PostgreSQL writes and `sqlparser` does not read.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

/// The unquoted keyword of a token.
fn keyword(token: Option<&TokenWithSpan>) -> Keyword {
    match token.map(|t| &t.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

/// Rewrites, keeping the place of every token that stays:
///
/// - `TABLE t` → `SELECT * FROM t`
/// - `FOR NO KEY UPDATE` → `FOR UPDATE`, `FOR KEY SHARE` → `FOR SHARE`: Amphora has two strengths of lock
pub(super) fn rewrite(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
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

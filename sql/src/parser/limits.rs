//! What a statement may not exceed, measured on its tokens before anything recurses over them.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Result, SqlError};

/// Bytes of a statement string.
const MAX_LENGTH: usize = 64 << 20;
/// Tokens of a statement string.
const MAX_TOKENS: usize = 4_000_000;
/// Parentheses, brackets and CASEs inside each other.
const MAX_NESTING: usize = 200;
/// Operators in a row that a tree can only nest: `a + b + c …`.
const MAX_CHAIN: usize = 1_000;
/// Operands of one AND, OR or UNION chain: parsed nested, bound flat.
const MAX_FLAT_CHAIN: usize = 20_000;
/// From here on a statement counts as deep.
const DEEP_NESTING: usize = 16;
/// From here on a statement counts as deep.
const DEEP_CHAIN: usize = 64;
/// Stack for deep statements, in bytes; only what is touched is committed.
pub(super) const DEEP_STACK: usize = 256 << 20;
/// sqlparser's own limit, never reached before ours.
pub(super) const PARSER_RECURSION: usize = 8 * MAX_NESTING + 2 * MAX_CHAIN;

/// 54000 for a text too long.
pub(super) fn check_length(sql: &str) -> Result<()> {
    if sql.len() > MAX_LENGTH {
        return Err(SqlError::program_limit_exceeded("statement is too long")
            .with_detail(format!("A statement string may have {MAX_LENGTH} bytes.")));
    }
    Ok(())
}

/// 54000 for too many tokens.
pub(super) fn check_tokens(count: usize) -> Result<()> {
    if count > MAX_TOKENS {
        return Err(SqlError::program_limit_exceeded("statement is too long")
            .with_detail(format!("A statement string may have {MAX_TOKENS} tokens.")));
    }
    Ok(())
}

/// 54001, as PostgreSQL says it.
pub(super) fn too_deep() -> SqlError {
    SqlError::statement_too_complex("stack depth limit exceeded").with_hint(format!(
        "Write the statement with less than {MAX_NESTING} levels of nesting and less than {MAX_CHAIN} operators in a row."
    ))
}

/// One level of nesting.
#[derive(Default)]
struct Level {
    /// Operators since the last comma, AND or OR
    chain: usize,
    /// ANDs, ORs and set operations since the last comma
    flat: usize,
}

/// Measures one statement: 54001 if it is too deep, true if it is deep.
pub(super) fn measure(tokens: &[TokenWithSpan]) -> Result<bool> {
    let mut levels = vec![Level::default()];
    let mut deep = false;
    for token in tokens {
        let depth = levels.len();
        let Some(level) = levels.last_mut() else { return Err(too_deep()) };
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => levels.push(Level::default()),
            Token::RParen | Token::RBracket | Token::RBrace if depth > 1 => {
                levels.pop();
            }
            Token::Comma => *level = Level::default(),
            Token::Word(word) if word.quote_style.is_none() => match word.keyword {
                Keyword::CASE => levels.push(Level::default()),
                Keyword::END if depth > 1 => {
                    levels.pop();
                }
                Keyword::AND | Keyword::OR => {
                    level.chain = 0;
                    level.flat += 1;
                }
                Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT => {
                    level.chain = 0;
                    level.flat += 1;
                }
                Keyword::NOT
                | Keyword::IS
                | Keyword::COLLATE
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::IN
                | Keyword::OVERLAPS
                | Keyword::EXPLAIN
                | Keyword::PREPARE
                | Keyword::AT => level.chain += 1,
                _ => {}
            },
            Token::Word(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Placeholder(_)
            | Token::Period => {}
            _ => level.chain += 1,
        }
        let Some(level) = levels.last() else { return Err(too_deep()) };
        if levels.len() > MAX_NESTING || level.chain > MAX_CHAIN || level.flat > MAX_FLAT_CHAIN {
            return Err(too_deep());
        }
        deep |= levels.len() > DEEP_NESTING || level.chain > DEEP_CHAIN || level.flat > DEEP_CHAIN;
    }
    Ok(deep)
}

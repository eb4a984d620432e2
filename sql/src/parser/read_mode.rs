//! How a query says how old its rows may be: a hint before it, or AS OF SYSTEM TIME after its FROM.
//!
//! ```sql
//! /*+ max_staleness('5s') */ SELECT balance FROM accounts WHERE id = 7;
//! SELECT balance FROM accounts AS OF SYSTEM TIME '-10s' WHERE id = 7;
//! ```
//!
//! A hint is a comment that begins with `/*+` and stands before the statement's first word. Hints of other names are
//! other programs' and passed over. AS OF SYSTEM TIME is CockroachDB's clause, and as there it holds for the whole
//! statement: it stands in the outermost query.

use std::time::Duration;

use sqlparser::ast::Expr;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Whitespace};

use super::dialect::AmphoraDialect;
use super::rewrite::{keyword, word};
use super::{Positions, near, parser, syntax_error};
use crate::error::{Result, SqlError};
use crate::session::max_staleness;

/// The hints of a text, in its order, and where each stands.
#[derive(Default)]
pub(super) struct Hints(Vec<(Location, Duration)>);

impl Hints {
    /// Looks at one token of the text. 22023 for a bound that is none.
    pub(super) fn look_at(&mut self, token: &TokenWithSpan) -> Result<()> {
        if let Token::Whitespace(Whitespace::MultiLineComment(comment)) = &token.token
            && let Some(hint) = comment.strip_prefix('+')
            && let Some(bound) = staleness_of(hint)?
        {
            self.0.push((token.span.start, bound));
        }
        Ok(())
    }

    /// The hint before a statement: the last that stands after `from`, where the statement before it ended, and before
    /// its own first token.
    pub(super) fn before(&self, from: Option<Location>, tokens: &[TokenWithSpan]) -> Option<Duration> {
        let first = tokens.first()?.span.start;
        let inside = |at: &Location| *at < first && from.is_none_or(|from| *at > from);
        self.0.iter().rev().find(|(at, _)| inside(at)).map(|(_, bound)| *bound)
    }
}

/// The bound in `max_staleness('5s')`.
fn staleness_of(hint: &str) -> Result<Option<Duration>> {
    let Some(at) = hint.to_ascii_lowercase().find("max_staleness") else { return Ok(None) };
    let rest = hint.get(at + "max_staleness".len()..).unwrap_or_default().trim_start();
    let argument = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|(argument, _)| argument);
    let Some(argument) = argument else {
        return Err(SqlError::syntax_error("hint max_staleness takes a bound in parentheses")
            .with_hint("Write, for example, /*+ max_staleness('5s') */."));
    };
    max_staleness(argument.trim().trim_matches('\'')).map(Some)
}

/// Takes `AS OF SYSTEM TIME expression` out of a query.
pub(super) fn take_as_of(
    mut tokens: Vec<TokenWithSpan>,
    sql: &str,
    positions: &Positions,
) -> Result<(Vec<TokenWithSpan>, Option<Expr>)> {
    if !matches!(keyword(tokens.first()), Keyword::SELECT | Keyword::WITH) {
        return Ok((tokens, None));
    }
    let is = |at: usize, wanted: &str| word(tokens.get(at)).is_some_and(|word| word == wanted);
    let clause = |at: usize| is(at, "as") && is(at + 1, "of") && is(at + 2, "system") && is(at + 3, "time");
    let mut depth = 0_usize;
    let mut found = None;
    for (at, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Word(_) if clause(at) && depth > 0 => {
                return Err(SqlError::syntax_error("AS OF SYSTEM TIME must stand in the outermost query")
                    .with_hint("It holds for the whole statement, its subqueries included."));
            }
            Token::Word(_) if clause(at) && found.is_some() => return Err(near(token, positions, sql)),
            Token::Word(_) if clause(at) => found = Some(at),
            _ => {}
        }
    }
    let Some(at) = found else { return Ok((tokens, None)) };
    let mut end = at + 4;
    let mut depth = 0_usize;
    while let Some(token) = tokens.get(end) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => break,
            Token::RParen => depth -= 1,
            _ if depth == 0 && ends_from(keyword(Some(token))) => break,
            _ => {}
        }
        end += 1;
    }
    let mut clause: Vec<TokenWithSpan> = tokens.drain(at..end).skip(4).collect();
    if clause.is_empty() {
        return Err(match tokens.get(at) {
            Some(token) => near(token, positions, sql),
            None => SqlError::syntax_error(super::AT_END).at(sql.chars().count() + 1),
        });
    }
    clause = super::rewrite::rewrite(clause);
    let dialect = AmphoraDialect::new();
    let mut parser = parser(&dialect, clause);
    let time = parser.parse_expr().map_err(|e| syntax_error(e, &mut parser, positions, sql))?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        return Err(near(&next, positions, sql));
    }
    Ok((tokens, Some(time)))
}

/// What comes after FROM in a query.
fn ends_from(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::WHERE
            | Keyword::GROUP
            | Keyword::HAVING
            | Keyword::ORDER
            | Keyword::LIMIT
            | Keyword::OFFSET
            | Keyword::FETCH
            | Keyword::UNION
            | Keyword::INTERSECT
            | Keyword::EXCEPT
            | Keyword::WINDOW
            | Keyword::FOR
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Ast, parse};
    use super::*;

    fn bounds(sql: &str) -> Vec<Option<Duration>> {
        parse(sql).unwrap().iter().map(|statement| statement.staleness()).collect()
    }

    #[test]
    fn a_hint_is_of_the_statement_that_it_stands_before() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(bounds("/*+ max_staleness('5s') */ SELECT 1; SELECT 2"), [seconds(5), None]);
        assert_eq!(bounds("SELECT 1; /*+ MAX_STALENESS ( 2s ) */ SELECT 2"), [None, seconds(2)]);
        assert_eq!(bounds("/*+ max_staleness(any) */ /* why */ -- here\nSELECT 1"), [Some(Duration::MAX)]);
        assert_eq!(bounds("/*+ max_staleness(0) */ SELECT 1"), [Some(Duration::ZERO)]);
        for none in [
            "SELECT /*+ max_staleness('5s') */ 1",
            "SELECT 1 /*+ max_staleness('5s') */",
            "/* max_staleness('5s') */ SELECT 1",
            "/*+ SeqScan(t) */ SELECT 1",
            "SELECT '/*+ max_staleness(''5s'') */'",
        ] {
            assert_eq!(bounds(none), [None], "{none}");
        }
        assert_eq!(parse("/*+ max_staleness(soon) */ SELECT 1").unwrap_err().sqlstate, "22023");
        assert_eq!(parse("/*+ max_staleness */ SELECT 1").unwrap_err().sqlstate, "42601");
    }

    #[test]
    fn as_of_system_time_is_taken_out_of_the_outermost_query() {
        let time = |sql: &str| match parse(sql).unwrap().pop().unwrap().ast().unwrap() {
            Ast::AsOf { time, query } => Some((time.to_string(), matches!(**query, Ast::Statement(_)))),
            _ => None,
        };
        let found = |text: &str| Some((text.to_owned(), true));
        assert_eq!(time("SELECT * FROM t AS OF SYSTEM TIME '-10s'"), found("'-10s'"));
        assert_eq!(
            time(
                "SELECT a FROM t, u AS OF SYSTEM TIME now() - interval '1 s' WHERE a = 1 ORDER BY a LIMIT 1"
            ),
            found("now() - INTERVAL '1 s'")
        );
        assert_eq!(time("WITH x AS (SELECT 1) SELECT * FROM x AS OF SYSTEM TIME $1 FOR UPDATE"), found("$1"));
        // `of` is a name like any other.
        assert_eq!(time("SELECT of.a FROM t AS of"), None);
        for bad in [
            "SELECT * FROM t AS OF SYSTEM TIME",
            "SELECT * FROM t AS OF SYSTEM TIME WHERE a = 1",
            "SELECT * FROM t AS OF SYSTEM TIME '-1s' u",
            "SELECT * FROM t AS OF SYSTEM TIME '-1s' AS OF SYSTEM TIME '-2s'",
            "SELECT * FROM (SELECT * FROM t AS OF SYSTEM TIME '-1s') s",
        ] {
            assert_eq!(parse(bad).unwrap_err().sqlstate, "42601", "{bad}");
        }
    }
}

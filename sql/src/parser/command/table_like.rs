//! `CREATE TABLE … (LIKE other INCLUDING …, …)`: the LIKE clauses are taken out of the list, and sqlparser reads
//! the rest.

use sqlparser::ast;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::super::{Ast, parse_tokens};
use super::{CommandParser, ObjectAst};
use crate::error::Result;

/// LIKE in a table's definition.
#[derive(Clone, Debug)]
pub(crate) struct LikeClause {
    /// What it is like
    pub(crate) name: ast::ObjectName,
    /// How many of the statement's own columns stand before it
    pub(crate) at: usize,
    /// INCLUDING DEFAULTS
    pub(crate) defaults: bool,
    /// INCLUDING IDENTITY
    pub(crate) identity: bool,
    /// INCLUDING GENERATED
    pub(crate) generated: bool,
    /// INCLUDING CONSTRAINTS
    pub(crate) constraints: bool,
    /// INCLUDING INDEXES
    pub(crate) indexes: bool,
}

/// Words with which a constraint begins in a table's definition.
const CONSTRAINTS: [&str; 6] = ["constraint", "primary", "unique", "check", "foreign", "exclude"];

impl CommandParser<'_> {
    /// CREATE TABLE with LIKE among its columns; `None` if there is none.
    pub(super) fn create_table_like(&mut self) -> Result<Option<ObjectAst>> {
        let Some(open) = self.tokens.iter().position(|t| t.token == Token::LParen) else { return Ok(None) };
        let first = |tokens: &[TokenWithSpan]| match tokens.first().map(|t| &t.token) {
            Some(Token::Word(word)) if word.quote_style.is_none() => word.value.to_ascii_lowercase(),
            _ => String::new(),
        };
        let inside = &self.tokens[open + 1..];
        let mut close = None;
        let (mut depth, mut from) = (0usize, 0);
        let mut pieces: Vec<&[TokenWithSpan]> = Vec::new();
        for (i, token) in inside.iter().enumerate() {
            match &token.token {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen if depth == 0 => {
                    pieces.push(&inside[from..i]);
                    close = Some(open + 1 + i);
                    break;
                }
                Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
                Token::Comma if depth == 0 => {
                    pieces.push(&inside[from..i]);
                    from = i + 1;
                }
                _ => {}
            }
        }
        let Some(close) = close else { return Ok(None) };
        if !pieces.iter().any(|piece| first(piece) == "like") {
            return Ok(None);
        }
        let (mut likes, mut columns, mut rest) = (Vec::new(), 0, Vec::new());
        for piece in pieces {
            let word = first(piece);
            if word == "like" {
                likes.push(CommandParser::new(piece, self.sql, self.positions).like(columns)?);
                continue;
            }
            columns += usize::from(!CONSTRAINTS.contains(&word.as_str()));
            if !rest.is_empty() {
                rest.push(TokenWithSpan::wrap(Token::Comma));
            }
            rest.extend_from_slice(piece);
        }
        let tokens = [&self.tokens[..=open], &rest, &self.tokens[close..]].concat();
        let Ast::Statement(statement) = parse_tokens(tokens, self.sql, self.positions)? else {
            return Err(self.error_at(open));
        };
        let ast::Statement::CreateTable(create) = *statement else { return Err(self.error_at(open)) };
        self.index = self.tokens.len();
        Ok(Some(ObjectAst::CreateTableLike { create: Box::new(create), likes }))
    }

    fn like(&mut self, at: usize) -> Result<LikeClause> {
        self.expect("like")?;
        let name = self.object_name()?;
        let mut clause = LikeClause {
            name,
            at,
            defaults: false,
            identity: false,
            generated: false,
            constraints: false,
            indexes: false,
        };
        while !self.at_end() {
            let including = self.accept("including");
            if !including {
                self.expect("excluding")?;
            }
            let place = self.index;
            match self.word()?.as_str() {
                "all" => {
                    clause.defaults = including;
                    clause.identity = including;
                    clause.generated = including;
                    clause.constraints = including;
                    clause.indexes = including;
                }
                "defaults" => clause.defaults = including,
                "identity" => clause.identity = including,
                "generated" => clause.generated = including,
                "constraints" => clause.constraints = including,
                "indexes" => clause.indexes = including,
                // Comments are not copied; the others mean nothing here.
                "comments" | "compression" | "statistics" | "storage" => {}
                _ => return Err(self.error_at(place)),
            }
        }
        Ok(clause)
    }
}

//! ALTER TABLE, as far as sqlparser does not read it: actions about identity and generated columns, and SET
//! SCHEMA. Actions stand between commas; those that sqlparser knows are given to it one by one.

use std::ops::Range;

use amphora_storage::schema::Identity;
use sqlparser::ast;
use sqlparser::tokenizer::Token;

use super::super::dialect::AmphoraDialect;
use super::super::{Ast, parse_tokens};
use super::{CommandParser, ObjectAst, SequenceOption};
use crate::error::Result;

/// An action of ALTER TABLE.
#[allow(clippy::large_enum_variant)] // there is one for a clause of a statement, and it is looked into by pattern
#[derive(Clone, Debug)]
pub(crate) enum TableAction {
    /// One that sqlparser reads
    Parsed(ast::AlterTableOperation),
    /// ALTER COLUMN, otherwise
    Column(ast::Ident, ColumnAction),
}

/// What is done to a column.
#[derive(Clone, Debug)]
pub(crate) enum ColumnAction {
    /// SET GENERATED, SET or RESTART of its sequence's options
    Identity { generated: Option<Identity>, options: Vec<SequenceOption> },
    /// DROP IDENTITY
    DropIdentity { if_exists: bool },
    /// DROP EXPRESSION
    DropExpression { if_exists: bool },
    /// SET (name = value, …), RESET (name, …): `None` is the default
    Options(Vec<(String, Option<String>)>),
}

impl CommandParser<'_> {
    /// ALTER TABLE; `None` if sqlparser can read all of it.
    pub(super) fn alter_table(&mut self, dialect: &AmphoraDialect) -> Result<Option<ObjectAst>> {
        let start = self.index;
        self.index += 2;
        let if_exists = self.if_exists()?;
        self.accept("only");
        let name = self.object_name()?;
        let _ = self.token(&Token::Mul);
        if self.peek_word() == "set" && self.peek_word_at(1) == "schema" {
            self.index += 2;
            let to = self.identifier()?;
            return Ok(Some(ObjectAst::SetSchema { kind: "TABLE", name, if_exists, to }));
        }
        let head = start..self.index;
        let pieces = self.pieces();
        if !pieces.iter().any(|piece| self.is_own_action(piece.start)) {
            self.index = start;
            return Ok(None);
        }
        let mut actions = Vec::with_capacity(pieces.len());
        for piece in pieces {
            if self.is_own_action(piece.start) {
                let tokens = &self.tokens[piece];
                actions.push(CommandParser::new(tokens, self.sql, self.positions).column_action(dialect)?);
                continue;
            }
            let tokens = [&self.tokens[head.clone()], &self.tokens[piece.clone()]].concat();
            match parse_tokens(tokens, self.sql, self.positions)? {
                Ast::Statement(statement) => match *statement {
                    ast::Statement::AlterTable(alter) => {
                        actions.extend(alter.operations.into_iter().map(TableAction::Parsed));
                    }
                    _ => return Err(self.error_at(piece.start)),
                },
                _ => return Err(self.error_at(piece.start)),
            }
        }
        self.index = self.tokens.len();
        Ok(Some(ObjectAst::AlterTable { name, if_exists, actions }))
    }

    /// What stands between commas outside of parentheses.
    fn pieces(&self) -> Vec<Range<usize>> {
        let (mut pieces, mut depth, mut from) = (Vec::new(), 0usize, self.index);
        for (i, token) in self.tokens.iter().enumerate().skip(self.index) {
            match &token.token {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
                Token::Comma if depth == 0 => {
                    pieces.push(from..i);
                    from = i + 1;
                }
                _ => {}
            }
        }
        pieces.push(from..self.tokens.len());
        pieces
    }

    /// True of `ALTER [COLUMN] name` and then one of the actions that are read here.
    fn is_own_action(&self, at: usize) -> bool {
        let word = |i: usize| self.peek_word_at(i.wrapping_sub(self.index));
        if word(at) != "alter" {
            return false;
        }
        let column = at + 1 + usize::from(word(at + 1) == "column");
        let (verb, object) = (word(column + 1), word(column + 2));
        match verb.as_str() {
            "restart" => true,
            "set" | "reset" if self.tokens.get(column + 2).is_some_and(|t| t.token == Token::LParen) => true,
            "drop" => matches!(object.as_str(), "identity" | "expression"),
            "set" => matches!(
                object.as_str(),
                "generated"
                    | "increment"
                    | "minvalue"
                    | "maxvalue"
                    | "start"
                    | "cache"
                    | "cycle"
                    | "no"
                    | "restart"
            ),
            _ => false,
        }
    }

    /// `SET (name = value, …)` or `RESET (name, …)`
    fn column_options(&mut self) -> Result<Vec<(String, Option<String>)>> {
        let set = self.accept("set");
        if !set {
            self.expect("reset")?;
        }
        let mut options = Vec::new();
        let _ = self.token(&Token::LParen);
        loop {
            let name = self.word()?;
            let value = match set && self.token(&Token::Eq) {
                true => Some(self.word()?),
                false if set => return Err(self.error_at(self.index)),
                false => None,
            };
            options.push((name, value));
            if self.token(&Token::RParen) {
                break;
            }
            if !self.token(&Token::Comma) {
                return Err(self.error_at(self.index));
            }
        }
        self.finish()?;
        Ok(options)
    }

    fn column_action(&mut self, dialect: &AmphoraDialect) -> Result<TableAction> {
        self.expect("alter")?;
        self.accept("column");
        let column = self.identifier()?;
        if self.accept("drop") {
            let identity = self.accept("identity");
            if !identity {
                self.expect("expression")?;
            }
            let if_exists = self.if_exists()?;
            self.finish()?;
            let action = match identity {
                true => ColumnAction::DropIdentity { if_exists },
                false => ColumnAction::DropExpression { if_exists },
            };
            return Ok(TableAction::Column(column, action));
        }
        let opens = |at: usize| self.tokens.get(at).is_some_and(|t| t.token == Token::LParen);
        if matches!(self.peek_word().as_str(), "set" | "reset") && opens(self.index + 1) {
            return Ok(TableAction::Column(column, ColumnAction::Options(self.column_options()?)));
        }
        let (mut generated, mut options) = (None, Vec::new());
        while !self.at_end() {
            let place = self.index;
            if self.peek_word() != "restart" {
                self.expect("set")?;
            }
            if self.accept("generated") {
                let kind = if self.accept("always") {
                    Identity::Always
                } else {
                    self.expect("by")?;
                    self.expect("default")?;
                    Identity::ByDefault
                };
                if generated.replace(kind).is_some() {
                    return Err(self.conflicting(place));
                }
            } else {
                let option = self.sequence_option(dialect)?;
                self.add_sequence_option(&mut options, option, place)?;
            }
        }
        Ok(TableAction::Column(column, ColumnAction::Identity { generated, options }))
    }
}

//! DROP INDEX, ALTER INDEX and REINDEX.

use sqlparser::ast;
use sqlparser::tokenizer::Token;

use super::CommandParser;
use super::object::ObjectAst;
use crate::error::Result;

/// A statement about indexes that are there.
#[derive(Clone, Debug)]
pub(crate) enum IndexAst {
    /// DROP INDEX
    Drop { names: Vec<ast::ObjectName>, if_exists: bool, concurrently: bool, cascade: bool },
    /// ALTER INDEX
    Alter { name: ast::ObjectName, if_exists: bool, change: IndexChange },
    /// REINDEX: INDEX, TABLE, SCHEMA, DATABASE or SYSTEM
    Reindex { kind: String, name: Option<ast::ObjectName>, concurrently: bool },
}

/// What ALTER INDEX changes.
#[derive(Clone, Debug)]
pub(crate) enum IndexChange {
    /// RENAME TO
    Rename(ast::Ident),
    /// SET (…)
    Set(Vec<(String, String)>),
    /// RESET (…)
    Reset(Vec<String>),
    /// ALTER COLUMN … SET STATISTICS: of the attribute with this number
    Statistics(i64),
}

impl CommandParser<'_> {
    /// The statement, if it is one of these.
    pub(super) fn index_statement(&mut self) -> Result<Option<ObjectAst>> {
        let statement = match (self.peek_word().as_str(), self.peek_word_at(1).as_str()) {
            ("drop", "index") => self.drop_index()?,
            ("alter", "index") => match self.alter_index()? {
                Some(statement) => statement,
                None => return Ok(None),
            },
            ("reindex", _) => self.reindex()?,
            _ => return Ok(None),
        };
        Ok(Some(ObjectAst::Index(statement)))
    }

    fn drop_index(&mut self) -> Result<IndexAst> {
        self.index += 2;
        let concurrently = self.accept("concurrently");
        let if_exists = self.if_exists()?;
        let (names, cascade) = self.dropped_names()?;
        Ok(IndexAst::Drop { names, if_exists, concurrently, cascade })
    }

    /// `None` for what is left to others to refuse.
    fn alter_index(&mut self) -> Result<Option<IndexAst>> {
        let start = self.index;
        self.index += 2;
        let if_exists = self.if_exists()?;
        let name = self.object_name()?;
        let change = match (self.peek_word().as_str(), self.peek_word_at(1).as_str()) {
            ("rename", "to") => {
                self.index += 2;
                IndexChange::Rename(self.identifier()?)
            }
            ("set", "") => {
                self.index += 1;
                IndexChange::Set(self.storage_options()?)
            }
            ("reset", _) => {
                self.index += 1;
                IndexChange::Reset(self.storage_options()?.into_iter().map(|(name, _)| name).collect())
            }
            ("alter", _) => {
                self.index += 1;
                self.accept("column");
                let number = self.integer()?;
                self.expect("set")?;
                self.expect("statistics")?;
                self.integer()?;
                IndexChange::Statistics(number)
            }
            _ => {
                self.index = start;
                return Ok(None);
            }
        };
        Ok(Some(IndexAst::Alter { name, if_exists, change }))
    }

    /// `(name [= value] [, …])`
    pub(in crate::parser) fn storage_options(&mut self) -> Result<Vec<(String, String)>> {
        if !self.token(&Token::LParen) {
            return Err(self.error_at(self.index));
        }
        let mut options = Vec::new();
        loop {
            let mut name = self.name()?.to_lowercase();
            while self.token(&Token::Period) {
                name = format!("{name}.{}", self.name()?.to_lowercase());
            }
            let value = match self.token(&Token::Eq) {
                true => {
                    let negative = self.token(&Token::Minus);
                    let value = match self.tokens.get(self.index).map(|t| t.token.clone()) {
                        Some(Token::Number(value, _) | Token::SingleQuotedString(value)) => value,
                        Some(Token::Word(word)) => word.value,
                        _ => return Err(self.error_at(self.index)),
                    };
                    self.index += 1;
                    if negative { format!("-{value}") } else { value }
                }
                false => "true".to_owned(),
            };
            options.push((name, value));
            if self.token(&Token::RParen) {
                return Ok(options);
            }
            if !self.token(&Token::Comma) {
                return Err(self.error_at(self.index));
            }
        }
    }

    fn reindex(&mut self) -> Result<IndexAst> {
        self.index += 1;
        let mut concurrently = false;
        if self.token(&Token::LParen) {
            loop {
                let (option, on) = self.option_switch()?;
                match option.as_str() {
                    "concurrently" => concurrently = on,
                    "verbose" | "tablespace" => {}
                    other => {
                        let message = format!("unrecognized REINDEX option \"{other}\"");
                        return Err(crate::error::SqlError::syntax_error(message));
                    }
                }
                if self.token(&Token::RParen) {
                    break;
                }
                if !self.token(&Token::Comma) {
                    return Err(self.error_at(self.index));
                }
            }
        }
        let kind = self.peek_word();
        if !matches!(kind.as_str(), "index" | "table" | "schema" | "database" | "system") {
            return Err(self.error_at(self.index));
        }
        self.index += 1;
        concurrently |= self.accept("concurrently");
        let name = match kind.as_str() {
            "database" | "system" if self.index == self.tokens.len() => None,
            _ => Some(self.object_name()?),
        };
        Ok(IndexAst::Reindex { kind, name, concurrently })
    }
}

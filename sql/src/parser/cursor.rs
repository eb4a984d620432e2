//! DECLARE, FETCH, MOVE and CLOSE.

use sqlparser::tokenizer::Token;

use super::command::CommandParser;
use super::{Ast, parse_tokens};
use crate::command::{Command, CursorOptions, Fetch, Motion};
use crate::error::{Result, SqlError};

impl CommandParser<'_> {
    /// `DECLARE name [BINARY] [INSENSITIVE] [[NO] SCROLL] CURSOR [WITH | WITHOUT HOLD] FOR query`
    pub(super) fn declare(&mut self) -> Result<Ast> {
        self.index += 1;
        let mut options = CursorOptions { name: self.name()?, ..CursorOptions::default() };
        let mut insensitive = None;
        loop {
            match self.word()?.as_str() {
                "binary" => options.binary = true,
                word @ ("insensitive" | "asensitive") => {
                    if insensitive
                        .replace(word == "insensitive")
                        .is_some_and(|i| i != (word == "insensitive"))
                    {
                        return Err(SqlError::syntax_error("cannot specify both INSENSITIVE and ASENSITIVE"));
                    }
                }
                "scroll" if options.scroll != Some(false) => options.scroll = Some(true),
                "no" if self.accept("scroll") && options.scroll != Some(true) => options.scroll = Some(false),
                "scroll" | "no" => {
                    return Err(SqlError::new("42P11", "cannot specify both SCROLL and NO SCROLL"));
                }
                "cursor" => break,
                _ => return Err(self.error_at(self.index - 1)),
            }
        }
        if self.accept("with") {
            self.expect("hold")?;
            options.hold = true;
        } else if self.accept("without") {
            self.expect("hold")?;
        }
        self.expect("for")?;
        let rest = &self.tokens[self.index..];
        let first = match rest.first().map(|t| &t.token) {
            Some(Token::LParen) => "select".to_owned(),
            _ => self.peek_word(),
        };
        if !matches!(first.as_str(), "select" | "values" | "table" | "with") {
            return Err(self.error_at(self.index));
        }
        let query = Box::new(parse_tokens(rest.to_vec(), self.sql, self.positions)?);
        Ok(Ast::Declare { options, query })
    }

    /// FETCH, and MOVE, which shows nothing.
    pub(super) fn fetch(&mut self, shows: bool) -> Result<Command> {
        self.index += 1;
        let last = self.index + 1 >= self.tokens.len();
        let word = if last { String::new() } else { self.peek_word() };
        let mut motion = Motion::Forward(Some(1));
        match word.as_str() {
            "next" => self.index += 1,
            "prior" => {
                self.index += 1;
                motion = Motion::Backward(Some(1));
            }
            "first" => {
                self.index += 1;
                motion = Motion::Absolute(1);
            }
            "last" => {
                self.index += 1;
                motion = Motion::Absolute(-1);
            }
            "absolute" => {
                self.index += 1;
                motion = Motion::Absolute(self.count()?);
            }
            "relative" => {
                self.index += 1;
                motion = Motion::Relative(self.count()?);
            }
            "all" => {
                self.index += 1;
                motion = Motion::Forward(None);
            }
            "forward" | "backward" => {
                self.index += 1;
                let count = if self.accept("all") {
                    None
                } else if self.has_count() {
                    Some(self.count()?)
                } else {
                    Some(1)
                };
                motion = if word == "forward" { Motion::Forward(count) } else { Motion::Backward(count) };
            }
            _ if !last && self.has_count() => motion = Motion::Forward(Some(self.count()?)),
            _ => {}
        }
        let _ = self.accept("from") || self.accept("in");
        let name = self.name()?;
        self.finish()?;
        Ok(Command::Fetch(Fetch { name, motion, shows }))
    }

    fn has_count(&self) -> bool {
        matches!(
            self.tokens.get(self.index).map(|t| &t.token),
            Some(Token::Number(..) | Token::Minus | Token::Plus)
        )
    }

    fn count(&mut self) -> Result<i64> {
        let negative = self.token(&Token::Minus);
        let _ = !negative && self.token(&Token::Plus);
        match self.next()? {
            Token::Number(digits, _) => match digits.parse::<i32>() {
                Ok(count) => Ok(i64::from(if negative { -count } else { count })),
                Err(_) => Err(self.error_at(self.index - 1)),
            },
            _ => Err(self.error_at(self.index - 1)),
        }
    }

    /// CLOSE name, CLOSE ALL.
    pub(super) fn close(&mut self) -> Result<Command> {
        self.index += 1;
        let all = self.index + 1 == self.tokens.len() && self.accept("all");
        let name = if all { None } else { Some(self.name()?) };
        self.finish()?;
        Ok(Command::CloseCursor(name))
    }
}

//! Statements about users' types: enumerated types and domains.

use sqlparser::ast;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::super::dialect::AmphoraDialect;
use super::super::{parser, rewrite, syntax_error};
use super::{CommandParser, ObjectAst, near, unsupported};
use crate::error::Result;

/// A statement about a user's type.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // a variant's comment says what its fields are
pub(crate) enum TypeAst {
    /// CREATE TYPE … AS ENUM
    CreateEnum { name: ast::ObjectName, labels: Vec<String> },
    /// CREATE DOMAIN
    CreateDomain { name: ast::ObjectName, ty: ast::DataType, clauses: Vec<DomainClause> },
    /// ALTER TYPE … ADD VALUE; before (true) or after another
    AddValue { name: ast::ObjectName, label: String, if_not_exists: bool, neighbour: Option<(bool, String)> },
    /// ALTER TYPE … RENAME VALUE
    RenameValue { name: ast::ObjectName, from: String, to: String },
    /// ALTER DOMAIN
    AlterDomain { name: ast::ObjectName, action: Box<DomainAction> },
    /// DROP TYPE, DROP DOMAIN (true)
    Drop { domain: bool, if_exists: bool, names: Vec<ast::ObjectName>, cascade: bool },
}

/// A clause of CREATE DOMAIN.
#[derive(Clone, Debug)]
pub(crate) enum DomainClause {
    NotNull,
    Null,
    Default(ast::Expr),
    Check(Option<ast::Ident>, ast::Expr),
}

/// What ALTER DOMAIN does.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub(crate) enum DomainAction {
    /// SET DEFAULT; `None` is DROP DEFAULT
    Default(Option<ast::Expr>),
    /// SET (true) or DROP NOT NULL
    NotNull(bool),
    /// ADD CONSTRAINT … CHECK
    AddCheck { name: Option<ast::Ident>, check: ast::Expr, validate: bool },
    /// DROP CONSTRAINT
    DropCheck { name: ast::Ident, if_exists: bool },
    /// RENAME CONSTRAINT
    RenameCheck { name: ast::Ident, to: ast::Ident },
    /// VALIDATE CONSTRAINT
    Validate(ast::Ident),
}

impl CommandParser<'_> {
    /// CREATE, ALTER or DROP, of TYPE or DOMAIN.
    pub(super) fn user_type(&mut self, dialect: &AmphoraDialect) -> Result<ObjectAst> {
        let (verb, domain) = (self.word()?, self.word()? == "domain");
        let parsed = match (verb.as_str(), domain) {
            ("drop", _) => self.drop_type(domain)?,
            ("create", true) => self.create_domain(dialect)?,
            ("create", false) => self.create_type()?,
            (_, true) => return self.alter_domain(dialect),
            _ => return self.alter_type(),
        };
        Ok(ObjectAst::Type(parsed))
    }

    fn create_type(&mut self) -> Result<TypeAst> {
        let name = self.object_name()?;
        if !self.accept("as") {
            return Err(unsupported("CREATE TYPE of a base type"));
        }
        if self.peek_word() == "range" {
            return Err(unsupported("CREATE TYPE … AS RANGE"));
        }
        if !self.accept("enum") {
            return Err(unsupported("CREATE TYPE of a composite type")
                .with_hint("Use a table, or jsonb for a value of several fields."));
        }
        if !self.token(&Token::LParen) {
            return Err(self.error_at(self.index));
        }
        let mut labels = Vec::new();
        while !self.token(&Token::RParen) {
            if !labels.is_empty() && !self.token(&Token::Comma) {
                return Err(self.error_at(self.index));
            }
            labels.push(self.string()?);
        }
        Ok(TypeAst::CreateEnum { name, labels })
    }

    fn create_domain(&mut self, dialect: &AmphoraDialect) -> Result<TypeAst> {
        let name = self.object_name()?;
        self.accept("as");
        let mut types = parser(dialect, self.tokens[self.index..].to_vec());
        let ty = types.parse_data_type();
        let ty = ty.map_err(|e| syntax_error(e, &mut types, self.positions, self.sql))?;
        self.index += types.index();
        let mut clauses = Vec::new();
        while !self.at_end() {
            let constraint = if self.accept("constraint") { Some(self.identifier()?) } else { None };
            let place = self.index;
            clauses.push(match self.word()?.as_str() {
                "not" => {
                    self.expect("null")?;
                    DomainClause::NotNull
                }
                "null" => DomainClause::Null,
                "check" => DomainClause::Check(constraint, self.condition(dialect)?),
                "default" => {
                    let end = self.default_end();
                    DomainClause::Default(self.expression_to(dialect, end)?)
                }
                "collate" => {
                    self.object_name()?;
                    continue;
                }
                _ => return Err(self.error_at(place)),
            });
        }
        Ok(TypeAst::CreateDomain { name, ty, clauses })
    }

    fn alter_type(&mut self) -> Result<ObjectAst> {
        let name = self.object_name()?;
        if self.peek_word() == "rename" && self.peek_word_at(1) == "value" {
            self.index += 2;
            let from = self.string()?;
            self.expect("to")?;
            return Ok(ObjectAst::Type(TypeAst::RenameValue { name, from, to: self.string()? }));
        }
        if self.peek_word() == "add" && self.peek_word_at(1) == "value" {
            self.index += 2;
            let if_not_exists = self.if_not_exists()?;
            let label = self.string()?;
            let before = self.accept("before");
            let neighbour =
                if before || self.accept("after") { Some((before, self.string()?)) } else { None };
            return Ok(ObjectAst::Type(TypeAst::AddValue { name, label, if_not_exists, neighbour }));
        }
        match self.rename_or_move("TYPE", &name, false)? {
            Some(changed) => Ok(changed),
            None => Err(unsupported("this form of ALTER TYPE")),
        }
    }

    fn alter_domain(&mut self, dialect: &AmphoraDialect) -> Result<ObjectAst> {
        let name = self.object_name()?;
        let words = [self.peek_word(), self.peek_word_at(1)];
        let action = match [words[0].as_str(), words[1].as_str()] {
            ["rename", "constraint"] => {
                self.index += 2;
                let from = self.identifier()?;
                self.expect("to")?;
                DomainAction::RenameCheck { name: from, to: self.identifier()? }
            }
            ["set" | "drop", "not"] => {
                self.index += 2;
                self.expect("null")?;
                DomainAction::NotNull(words[0] == "set")
            }
            ["drop", "default"] => {
                self.index += 2;
                DomainAction::Default(None)
            }
            ["set", "default"] => {
                self.index += 2;
                DomainAction::Default(Some(self.expression_to(dialect, self.tokens.len())?))
            }
            ["validate", "constraint"] => {
                self.index += 2;
                DomainAction::Validate(self.identifier()?)
            }
            ["drop", "constraint"] => {
                self.index += 2;
                let if_exists = self.if_exists()?;
                let name = self.identifier()?;
                let _ = self.accept("cascade") || self.accept("restrict");
                DomainAction::DropCheck { name, if_exists }
            }
            ["add", _] => {
                self.index += 1;
                let name = if self.accept("constraint") { Some(self.identifier()?) } else { None };
                self.expect("check")?;
                let check = self.condition(dialect)?;
                let validate = !self.accept("not");
                if !validate {
                    self.expect("valid")?;
                }
                DomainAction::AddCheck { name, check, validate }
            }
            _ => {
                return match self.rename_or_move("DOMAIN", &name, false)? {
                    Some(changed) => Ok(changed),
                    None => Err(self.error_at(self.index)),
                };
            }
        };
        Ok(ObjectAst::Type(TypeAst::AlterDomain { name, action: Box::new(action) }))
    }

    fn drop_type(&mut self, domain: bool) -> Result<TypeAst> {
        let if_exists = self.if_exists()?;
        let (names, cascade) = self.dropped_names()?;
        Ok(TypeAst::Drop { domain, if_exists, names, cascade })
    }

    /// A condition in parentheses.
    fn condition(&mut self, dialect: &AmphoraDialect) -> Result<ast::Expr> {
        if !self.token(&Token::LParen) {
            return Err(self.error_at(self.index));
        }
        let mut depth = 0usize;
        let mut end = self.index;
        while let Some(token) = self.tokens.get(end) {
            match &token.token {
                Token::LParen => depth += 1,
                Token::RParen if depth == 0 => break,
                Token::RParen => depth -= 1,
                _ => {}
            }
            end += 1;
        }
        let condition = self.expression_to(dialect, end)?;
        if !self.token(&Token::RParen) {
            return Err(self.error_at(self.index));
        }
        Ok(condition)
    }

    /// The expression that ends before a token.
    fn expression_to(&mut self, dialect: &AmphoraDialect, end: usize) -> Result<ast::Expr> {
        let tokens = rewrite::rewrite(self.tokens[self.index..end].to_vec());
        let mut expressions = parser(dialect, tokens);
        let parsed = expressions.parse_expr();
        let parsed = parsed.map_err(|e| syntax_error(e, &mut expressions, self.positions, self.sql))?;
        let next = expressions.peek_token();
        if next.token != Token::EOF {
            return Err(near(&next, self.positions, self.sql));
        }
        self.index = end;
        Ok(parsed)
    }

    /// Where the expression of a DEFAULT ends: at the next clause outside of parentheses.
    fn default_end(&self) -> usize {
        let mut depth = 0usize;
        for (i, token) in self.tokens.iter().enumerate().skip(self.index) {
            match &token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                Token::Word(word) if depth == 0 && i > self.index && word.quote_style.is_none() => {
                    let ends = [
                        Keyword::CONSTRAINT,
                        Keyword::CHECK,
                        Keyword::NOT,
                        Keyword::NULL,
                        Keyword::DEFAULT,
                        Keyword::COLLATE,
                    ];
                    if ends.contains(&word.keyword) {
                        return i;
                    }
                }
                _ => {}
            }
        }
        self.tokens.len()
    }
}

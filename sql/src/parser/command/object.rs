//! Statements about schemas, sequences and comments, and CREATE TABLE AS: token by token, because sqlparser
//! reads them in part or not at all.

use sqlparser::ast;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::super::dialect::AmphoraDialect;
use super::super::{Ast, parser, syntax_error};
use super::{CommandParser, IndexAst, LikeClause, TableAction, TypeAst, near, unsupported};
use crate::error::Result;

/// A statement about an object of the catalog.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // a variant's comment says what its fields are
pub(crate) enum ObjectAst {
    /// CREATE SCHEMA; without a name it is the owner's
    CreateSchema { name: Option<ast::Ident>, owner: Option<String>, if_not_exists: bool },
    /// ALTER SCHEMA … RENAME TO
    RenameSchema { name: ast::Ident, to: ast::Ident },
    /// CREATE SEQUENCE
    CreateSequence { name: ast::ObjectName, if_not_exists: bool, options: Vec<SequenceOption> },
    /// ALTER SEQUENCE with options
    AlterSequence { name: ast::ObjectName, if_exists: bool, options: Vec<SequenceOption> },
    /// ALTER VIEW | SEQUENCE … RENAME TO
    Rename { kind: &'static str, name: ast::ObjectName, if_exists: bool, to: ast::Ident },
    /// ALTER VIEW … RENAME COLUMN
    RenameViewColumn { name: ast::ObjectName, if_exists: bool, column: ast::Ident, to: ast::Ident },
    /// ALTER VIEW | SEQUENCE … SET SCHEMA
    SetSchema { kind: &'static str, name: ast::ObjectName, if_exists: bool, to: ast::Ident },
    /// ALTER … OWNER TO
    SetOwner { kind: &'static str, name: ast::ObjectName, if_exists: bool, owner: String },
    /// COMMENT ON
    Comment { target: CommentTarget, text: Option<String> },
    /// CREATE TABLE … AS, SELECT … INTO
    CreateTableAs(Box<CreateTableAs>),
    /// DROP INDEX, ALTER INDEX, REINDEX
    Index(IndexAst),
    /// Enumerated types and domains
    Type(TypeAst),
    /// CREATE TABLE … (LIKE …)
    CreateTableLike { create: Box<ast::CreateTable>, likes: Vec<LikeClause> },
    /// ALTER TABLE with actions that sqlparser does not read
    AlterTable { name: ast::ObjectName, if_exists: bool, actions: Vec<TableAction> },
}

/// CREATE TABLE … AS.
#[derive(Clone, Debug)]
pub(crate) struct CreateTableAs {
    pub(crate) name: ast::ObjectName,
    pub(crate) temporary: bool,
    pub(crate) if_not_exists: bool,
    pub(crate) columns: Vec<ast::Ident>,
    pub(crate) options: Vec<ast::SqlOption>,
    pub(crate) query: ast::Query,
    pub(crate) with_data: bool,
}

/// What a comment is on.
#[derive(Clone, Debug)]
pub(crate) enum CommentTarget {
    /// TABLE, VIEW, SEQUENCE, INDEX
    Relation(&'static str, ast::ObjectName),
    /// TYPE, DOMAIN
    Type(ast::ObjectName),
    /// COLUMN relation.column
    Column(ast::ObjectName),
    /// CONSTRAINT name ON table
    Constraint(ast::Ident, ast::ObjectName),
    /// SCHEMA
    Schema(ast::Ident),
    /// DATABASE
    Database(ast::Ident),
}

/// An option of CREATE or ALTER SEQUENCE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SequenceOption {
    As(ast::DataType),
    Increment(i64),
    /// `None` is NO MINVALUE
    MinValue(Option<i64>),
    MaxValue(Option<i64>),
    Start(i64),
    Cache(i64),
    Cycle(bool),
    /// `None` is OWNED BY NONE
    OwnedBy(Option<ast::ObjectName>),
    /// `None` restarts at the start value
    Restart(Option<i64>),
}

impl SequenceOption {
    /// The option's name as error messages give it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            SequenceOption::As(_) => "as",
            SequenceOption::Increment(_) => "increment",
            SequenceOption::MinValue(_) => "minvalue",
            SequenceOption::MaxValue(_) => "maxvalue",
            SequenceOption::Start(_) => "start",
            SequenceOption::Cache(_) => "cache",
            SequenceOption::Cycle(_) => "cycle",
            SequenceOption::OwnedBy(_) => "owned by",
            SequenceOption::Restart(_) => "restart",
        }
    }
}

impl CommandParser<'_> {
    /// The statement, if it is one of these.
    pub(super) fn object(&mut self, dialect: &AmphoraDialect) -> Result<Option<Ast>> {
        let words = [0, 1, 2].map(|ahead| self.peek_word_at(ahead));
        let parsed = match [words[0].as_str(), words[1].as_str(), words[2].as_str()] {
            ["create", "schema", _] => self.create_schema()?,
            ["create", "sequence", _] => self.create_sequence(dialect, 2)?,
            ["create", "temp" | "temporary", "sequence"] => {
                return Err(unsupported("CREATE TEMPORARY SEQUENCE")
                    .with_hint("Create it without TEMPORARY, and drop it when it is no longer needed."));
            }
            ["create", "unlogged", "sequence"] => self.create_sequence(dialect, 3)?,
            ["create", "table" | "temp" | "temporary" | "unlogged" | "global" | "local", _] => {
                match self.create_table_as(dialect)? {
                    Some(parsed) => parsed,
                    None => match self.create_table_like()? {
                        Some(parsed) => parsed,
                        None => return Ok(None),
                    },
                }
            }
            ["alter", "table", _] => match self.alter_table(dialect)? {
                Some(parsed) => parsed,
                None => return Ok(None),
            },
            ["create" | "alter" | "drop", "type" | "domain", _] => self.user_type(dialect)?,
            ["alter", "schema", _] => self.alter_schema()?,
            ["alter", "sequence", _] => self.alter_sequence(dialect)?,
            ["alter", "view", _] => self.alter_view()?,
            ["comment", "on", _] => self.comment()?,
            _ => match self.index_statement()? {
                Some(parsed) => parsed,
                None => return Ok(None),
            },
        };
        self.finish()?;
        Ok(Some(Ast::Object(Box::new(parsed))))
    }

    fn create_schema(&mut self) -> Result<ObjectAst> {
        self.index += 2;
        let if_not_exists = self.if_not_exists()?;
        let name = if self.peek_word() == "authorization" { None } else { Some(self.identifier()?) };
        let owner = if self.accept("authorization") { Some(self.name()?) } else { None };
        if self.index < self.tokens.len() && matches!(self.peek_word().as_str(), "create" | "grant") {
            return Err(unsupported("CREATE SCHEMA with schema elements")
                .with_hint("Create the schema first, and then what is in it."));
        }
        Ok(ObjectAst::CreateSchema { name, owner, if_not_exists })
    }

    fn alter_schema(&mut self) -> Result<ObjectAst> {
        self.index += 2;
        let name = self.identifier()?;
        if self.accept("owner") {
            self.expect("to")?;
            let owner = self.name()?;
            let name = ast::ObjectName::from(vec![name]);
            return Ok(ObjectAst::SetOwner { kind: "SCHEMA", name, if_exists: false, owner });
        }
        self.expect("rename")?;
        self.expect("to")?;
        Ok(ObjectAst::RenameSchema { name, to: self.identifier()? })
    }

    fn create_sequence(&mut self, dialect: &AmphoraDialect, words: usize) -> Result<ObjectAst> {
        self.index += words;
        let if_not_exists = self.if_not_exists()?;
        let name = self.object_name()?;
        let options = self.sequence_options(dialect)?;
        Ok(ObjectAst::CreateSequence { name, if_not_exists, options })
    }

    fn alter_sequence(&mut self, dialect: &AmphoraDialect) -> Result<ObjectAst> {
        self.index += 2;
        let if_exists = self.if_exists()?;
        let name = self.object_name()?;
        if let Some(changed) = self.rename_or_move("SEQUENCE", &name, if_exists)? {
            return Ok(changed);
        }
        let options = self.sequence_options(dialect)?;
        if options.is_empty() {
            return Err(self.error_at(self.index));
        }
        Ok(ObjectAst::AlterSequence { name, if_exists, options })
    }

    fn alter_view(&mut self) -> Result<ObjectAst> {
        self.index += 2;
        let if_exists = self.if_exists()?;
        let name = self.object_name()?;
        if self.peek_word() == "rename" && self.peek_word_at(1) != "to" {
            self.index += 1;
            self.accept("column");
            let column = self.identifier()?;
            self.expect("to")?;
            return Ok(ObjectAst::RenameViewColumn { name, if_exists, column, to: self.identifier()? });
        }
        match self.rename_or_move("VIEW", &name, if_exists)? {
            Some(changed) => Ok(changed),
            None => Err(unsupported("this form of ALTER VIEW")
                .with_hint("Use CREATE OR REPLACE VIEW, or ALTER VIEW … RENAME TO.")),
        }
    }

    pub(super) fn rename_or_move(
        &mut self,
        kind: &'static str,
        name: &ast::ObjectName,
        if_exists: bool,
    ) -> Result<Option<ObjectAst>> {
        let name = name.clone();
        if self.accept("rename") {
            self.expect("to")?;
            return Ok(Some(ObjectAst::Rename { kind, name, if_exists, to: self.identifier()? }));
        }
        if self.accept("owner") {
            self.expect("to")?;
            return Ok(Some(ObjectAst::SetOwner { kind, name, if_exists, owner: self.name()? }));
        }
        if self.peek_word() == "set" && self.peek_word_at(1) == "schema" {
            self.index += 2;
            return Ok(Some(ObjectAst::SetSchema { kind, name, if_exists, to: self.identifier()? }));
        }
        Ok(None)
    }

    /// Options up to the end of the statement.
    fn sequence_options(&mut self, dialect: &AmphoraDialect) -> Result<Vec<SequenceOption>> {
        let mut options: Vec<SequenceOption> = Vec::new();
        while self.index < self.tokens.len() {
            let place = self.index;
            let option = self.sequence_option(dialect)?;
            self.add_sequence_option(&mut options, option, place)?;
        }
        Ok(options)
    }

    /// 42601 if the option was given before.
    pub(super) fn add_sequence_option(
        &self,
        options: &mut Vec<SequenceOption>,
        option: SequenceOption,
        place: usize,
    ) -> Result<()> {
        if options.iter().any(|o| o.name() == option.name()) {
            return Err(self.conflicting(place));
        }
        options.push(option);
        Ok(())
    }

    /// 42601
    pub(super) fn conflicting(&self, place: usize) -> crate::error::SqlError {
        let error = crate::error::SqlError::syntax_error("conflicting or redundant options");
        match self.tokens.get(place).and_then(|token| self.positions.of_span(&token.span)) {
            Some(position) => error.at(position),
            None => error,
        }
    }

    /// One option.
    pub(super) fn sequence_option(&mut self, dialect: &AmphoraDialect) -> Result<SequenceOption> {
        let place = self.index;
        Ok(match self.word()?.as_str() {
            "as" => {
                let mut parser = parser(dialect, self.tokens[self.index..].to_vec());
                let ty = parser.parse_data_type();
                let ty = ty.map_err(|e| syntax_error(e, &mut parser, self.positions, self.sql))?;
                self.index += parser.index();
                SequenceOption::As(ty)
            }
            "increment" => {
                self.accept("by");
                SequenceOption::Increment(self.integer()?)
            }
            "minvalue" => SequenceOption::MinValue(Some(self.integer()?)),
            "maxvalue" => SequenceOption::MaxValue(Some(self.integer()?)),
            "start" => {
                self.accept("with");
                SequenceOption::Start(self.integer()?)
            }
            "cache" => SequenceOption::Cache(self.integer()?),
            "cycle" => SequenceOption::Cycle(true),
            "no" => match self.word()?.as_str() {
                "minvalue" => SequenceOption::MinValue(None),
                "maxvalue" => SequenceOption::MaxValue(None),
                "cycle" => SequenceOption::Cycle(false),
                _ => return Err(self.error_at(self.index - 1)),
            },
            "owned" => {
                self.expect("by")?;
                match self.object_name()? {
                    name if name.to_string().eq_ignore_ascii_case("none") => SequenceOption::OwnedBy(None),
                    name => SequenceOption::OwnedBy(Some(name)),
                }
            }
            "restart" => {
                let with = self.accept("with");
                let number = matches!(
                    self.tokens.get(self.index).map(|t| &t.token),
                    Some(Token::Number(..) | Token::Minus | Token::Plus)
                );
                SequenceOption::Restart(if with || number { Some(self.integer()?) } else { None })
            }
            _ => return Err(self.error_at(place)),
        })
    }

    fn comment(&mut self) -> Result<ObjectAst> {
        self.index += 2;
        let place = self.index;
        let target = match self.word()?.as_str() {
            "table" => CommentTarget::Relation("TABLE", self.object_name()?),
            "view" => CommentTarget::Relation("VIEW", self.object_name()?),
            "sequence" => CommentTarget::Relation("SEQUENCE", self.object_name()?),
            "type" | "domain" => CommentTarget::Type(self.object_name()?),
            "index" => CommentTarget::Relation("INDEX", self.object_name()?),
            "column" => CommentTarget::Column(self.object_name()?),
            "schema" => CommentTarget::Schema(self.identifier()?),
            "database" => CommentTarget::Database(self.identifier()?),
            "constraint" => {
                let name = self.identifier()?;
                self.expect("on")?;
                if self.peek_word() == "domain" {
                    return Err(unsupported("COMMENT ON CONSTRAINT … ON DOMAIN"));
                }
                CommentTarget::Constraint(name, self.object_name()?)
            }
            other => {
                let known = ["function", "trigger", "extension", "role", "materialized"];
                return Err(if known.contains(&other) {
                    unsupported(&format!("COMMENT ON {}", other.to_uppercase()))
                } else {
                    self.error_at(place)
                });
            }
        };
        self.expect("is")?;
        let text = match self.next()? {
            Token::SingleQuotedString(s) | Token::EscapedStringLiteral(s) => Some(s.clone()),
            Token::DollarQuotedString(s) => Some(s.value.clone()),
            Token::Word(word) if word.keyword == Keyword::NULL => None,
            _ => return Err(self.error_at(self.index - 1)),
        };
        // As PostgreSQL does: an empty comment is none.
        Ok(ObjectAst::Comment { target, text: text.filter(|t| !t.is_empty()) })
    }

    /// CREATE TABLE … AS; `None` if it is a plain CREATE TABLE.
    fn create_table_as(&mut self, dialect: &AmphoraDialect) -> Result<Option<ObjectAst>> {
        let Some(at) = self.outermost_as() else { return Ok(None) };
        let start = self.index;
        self.index += 1;
        let _ = self.accept("global") || self.accept("local");
        let temporary = self.accept("temp") || self.accept("temporary");
        if self.peek_word() == "unlogged" {
            return Err(unsupported("CREATE UNLOGGED TABLE"));
        }
        if !self.accept("table") {
            self.index = start;
            return Ok(None);
        }
        let if_not_exists = self.if_not_exists()?;
        let name = self.object_name()?;
        let mut columns = Vec::new();
        if self.token(&Token::LParen) {
            loop {
                columns.push(self.identifier()?);
                if self.token(&Token::RParen) {
                    break;
                }
                if !self.token(&Token::Comma) {
                    return Err(self.error_at(self.index));
                }
            }
        }
        let mut options = Vec::new();
        if self.peek_word() == "with" {
            let mut parser = parser(dialect, self.tokens[self.index..at].to_vec());
            let read = parser.parse_options(Keyword::WITH);
            options = read.map_err(|e| syntax_error(e, &mut parser, self.positions, self.sql))?;
            self.index += parser.index();
        }
        if self.peek_word() == "on" {
            return Err(unsupported("ON COMMIT"));
        }
        if self.index != at {
            return Err(self.error_at(self.index));
        }
        self.index += 1;
        let mut end = self.tokens.len();
        let word = |back: usize| self.peek_word_at((end - self.index).wrapping_sub(back));
        let mut with_data = true;
        if word(1) == "data" && word(2) == "with" {
            end -= 2;
        } else if word(1) == "data" && word(2) == "no" && word(3) == "with" {
            end -= 3;
            with_data = false;
        }
        if self.peek_word() == "execute" {
            return Err(unsupported("CREATE TABLE AS EXECUTE"));
        }
        let body = super::super::rewrite::rewrite(self.tokens[self.index..end].to_vec());
        let mut parser = parser(dialect, body);
        let query = parser.parse_query();
        let query = query.map_err(|e| syntax_error(e, &mut parser, self.positions, self.sql))?;
        let next = parser.peek_token();
        if next.token != Token::EOF {
            return Err(near(&next, self.positions, self.sql));
        }
        self.index = self.tokens.len();
        let query = *query;
        let create = CreateTableAs { name, temporary, if_not_exists, columns, options, query, with_data };
        Ok(Some(ObjectAst::CreateTableAs(Box::new(create))))
    }

    /// Where AS stands outside of all parentheses.
    fn outermost_as(&self) -> Option<usize> {
        let mut depth = 0usize;
        for (i, token) in self.tokens.iter().enumerate().skip(self.index) {
            match &token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                Token::Word(word)
                    if depth == 0 && word.keyword == Keyword::AS && word.quote_style.is_none() =>
                {
                    return Some(i);
                }
                _ => {}
            }
        }
        None
    }

    pub(super) fn if_not_exists(&mut self) -> Result<bool> {
        let given = self.peek_word() == "if" && self.peek_word_at(1) == "not";
        if given {
            self.index += 2;
            self.expect("exists")?;
        }
        Ok(given)
    }

    pub(super) fn if_exists(&mut self) -> Result<bool> {
        let given = self.peek_word() == "if" && self.peek_word_at(1) == "exists";
        self.index += if given { 2 } else { 0 };
        Ok(given)
    }

    /// A whole number with its sign. 22003 if it is no bigint.
    pub(super) fn integer(&mut self) -> Result<i64> {
        let negative = self.token(&Token::Minus);
        let _ = !negative && self.token(&Token::Plus);
        let place = self.index;
        match self.next()? {
            Token::Number(digits, _) => {
                let text = if negative { format!("-{digits}") } else { digits.clone() };
                text.parse().map_err(|_| {
                    crate::error::SqlError::numeric_value_out_of_range(format!(
                        "value \"{text}\" is out of range for type bigint"
                    ))
                })
            }
            _ => Err(self.error_at(place)),
        }
    }
}

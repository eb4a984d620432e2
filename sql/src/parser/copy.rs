//! COPY, in the syntax of today and in the two that came before it.
//!
//! ```text
//!   COPY t (a, b) FROM STDIN (FORMAT csv, HEADER)  WHERE a > 0        since 9.0
//!   COPY t (a, b) FROM STDIN WITH CSV HEADER                          before
//!   COPY BINARY t FROM STDIN USING DELIMITERS '|' WITH NULL AS ''     before 7.3
//! ```

use sqlparser::ast;
use sqlparser::tokenizer::{Span, Token};

use super::command::CommandParser;
use super::dialect::AmphoraDialect;
use super::{Ast, near, parse_tokens, parser, rewrite, syntax_error};
use crate::error::Result;

/// COPY, as written.
#[derive(Clone, Debug)]
pub(crate) struct CopyStatement {
    pub(crate) subject: CopySubject,
    /// FROM, not TO
    pub(crate) from: bool,
    pub(crate) place: CopyPlace,
    pub(crate) options: Vec<CopyOption>,
    /// WHERE
    pub(crate) filter: Option<ast::Expr>,
}

/// What is copied.
#[derive(Clone, Debug)]
pub(crate) enum CopySubject {
    /// A table, and the columns named; none is all
    Table { name: ast::ObjectName, columns: Vec<ast::ObjectName> },
    /// What a statement gives
    Query(Box<Ast>),
}

/// Where it is copied from or to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyPlace {
    /// STDIN, STDOUT: the connection
    Client,
    /// A file of the server
    File,
    /// A program of the server
    Program,
}

/// One option: its name in lower case, its value, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct CopyOption {
    pub(crate) name: String,
    pub(crate) value: OptionValue,
    pub(crate) position: Option<usize>,
}

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OptionValue {
    /// None was given
    Absent,
    /// A word, a number or a string
    Text(String),
    /// `*`
    Star,
    /// `(a, b)`
    List(Vec<String>),
}

impl CommandParser<'_> {
    /// Everything from COPY on.
    pub(super) fn copy(&mut self, dialect: &AmphoraDialect) -> Result<Ast> {
        self.index += 1;
        let mut options = Vec::new();
        let subject = if self.token(&Token::LParen) {
            CopySubject::Query(Box::new(self.copied_query()?))
        } else {
            if self.peek_word() == "binary" && !matches!(self.peek_word_at(1).as_str(), "from" | "to") {
                options.push(self.flag("format", OptionValue::Text("binary".into())));
                self.index += 1;
            }
            CopySubject::Table { name: self.object_name()?, columns: self.column_list()? }
        };
        let from = self.accept("from");
        if !from {
            self.expect("to")?;
        }
        if from && matches!(subject, CopySubject::Query(_)) {
            return Err(self.error_at(self.index - 1));
        }
        let place = self.place()?;
        if self.accept("using") {
            options.push(self.flag("delimiter", OptionValue::Absent));
            self.expect("delimiters")?;
            self.last_value(&mut options)?;
        } else if self.peek_word() == "delimiters" {
            options.push(self.flag("delimiter", OptionValue::Absent));
            self.index += 1;
            self.last_value(&mut options)?;
        }
        self.accept("with");
        if self.token(&Token::LParen) {
            self.options(&mut options)?;
        } else {
            self.old_options(&mut options)?;
        }
        let mut filter = None;
        if from && self.accept("where") {
            let tokens = rewrite::rewrite(self.tokens[self.index..].to_vec());
            let mut parser = parser(dialect, tokens);
            let condition = parser.parse_expr();
            filter = Some(condition.map_err(|e| syntax_error(e, &mut parser, self.positions, self.sql))?);
            let next = parser.peek_token();
            if next.token != Token::EOF {
                return Err(near(&next, self.positions, self.sql));
            }
            self.index = self.tokens.len();
        }
        self.finish()?;
        Ok(Ast::Copy(Box::new(CopyStatement { subject, from, place, options, filter })))
    }

    /// The statement between the parentheses, the first of which is taken.
    fn copied_query(&mut self) -> Result<Ast> {
        let start = self.index;
        let mut depth = 1;
        loop {
            match self.next()? {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        let inner = &self.tokens[start..self.index - 1];
        if inner.is_empty() {
            return Err(self.error_at(self.index - 1));
        }
        parse_tokens(inner.to_vec(), self.sql, self.positions)
    }

    /// A name, qualified or not.
    pub(super) fn object_name(&mut self) -> Result<ast::ObjectName> {
        let mut parts = vec![self.identifier()?];
        while self.token(&Token::Period) {
            parts.push(self.identifier()?);
        }
        Ok(ast::ObjectName::from(parts))
    }

    pub(super) fn identifier(&mut self) -> Result<ast::Ident> {
        let span = self.tokens.get(self.index).map(|t| t.span);
        match self.next()? {
            Token::Word(word) => Ok(ast::Ident {
                value: word.value.clone(),
                quote_style: word.quote_style,
                span: span.unwrap_or_else(Span::empty),
            }),
            _ => Err(self.error_at(self.index - 1)),
        }
    }

    fn column_list(&mut self) -> Result<Vec<ast::ObjectName>> {
        let mut columns = Vec::new();
        if self.token(&Token::LParen) {
            loop {
                columns.push(ast::ObjectName::from(vec![self.identifier()?]));
                if self.token(&Token::RParen) {
                    break;
                }
                if !self.token(&Token::Comma) {
                    return Err(self.error_at(self.index));
                }
            }
        }
        Ok(columns)
    }

    fn place(&mut self) -> Result<CopyPlace> {
        let program = self.accept("program");
        match self.tokens.get(self.index).map(|t| &t.token) {
            Some(Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_)) => {
                self.index += 1;
                Ok(if program { CopyPlace::Program } else { CopyPlace::File })
            }
            _ if program => Err(self.error_at(self.index)),
            // PostgreSQL takes either word with either direction.
            _ if self.accept("stdin") || self.accept("stdout") => Ok(CopyPlace::Client),
            _ => Err(self.error_at(self.index)),
        }
    }

    /// An option that begins at the next token.
    fn flag(&self, name: &str, value: OptionValue) -> CopyOption {
        let position = self.tokens.get(self.index).and_then(|t| self.positions.of_span(&t.span));
        CopyOption { name: name.to_owned(), value, position }
    }

    /// `name [value], …)`
    fn options(&mut self, options: &mut Vec<CopyOption>) -> Result<()> {
        loop {
            let mut option = self.flag("", OptionValue::Absent);
            option.name = self.name()?;
            option.value = match self.tokens.get(self.index).map(|t| &t.token) {
                Some(Token::Comma | Token::RParen) => OptionValue::Absent,
                Some(Token::Mul) => {
                    self.index += 1;
                    OptionValue::Star
                }
                Some(Token::LParen) => {
                    self.index += 1;
                    OptionValue::List(self.names_to_paren()?)
                }
                _ => OptionValue::Text(self.option_text()?),
            };
            options.push(option);
            if self.token(&Token::RParen) {
                return Ok(());
            }
            if !self.token(&Token::Comma) {
                return Err(self.error_at(self.index));
            }
        }
    }

    fn option_text(&mut self) -> Result<String> {
        let negative = self.token(&Token::Minus);
        let text = match self.next()? {
            Token::Word(word) if word.quote_style.is_some() => word.value.clone(),
            Token::Word(word) => word.value.to_lowercase(),
            Token::Number(s, _) | Token::SingleQuotedString(s) | Token::EscapedStringLiteral(s) => s.clone(),
            _ => return Err(self.error_at(self.index - 1)),
        };
        Ok(if negative { format!("-{text}") } else { text })
    }

    fn names_to_paren(&mut self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        loop {
            names.push(self.name()?);
            if self.token(&Token::RParen) {
                return Ok(names);
            }
            if !self.token(&Token::Comma) {
                return Err(self.error_at(self.index));
            }
        }
    }

    /// The string that is the value of the option pushed last; AS may stand before it.
    fn last_value(&mut self, options: &mut [CopyOption]) -> Result<()> {
        self.accept("as");
        match self.next()? {
            Token::SingleQuotedString(s) | Token::EscapedStringLiteral(s) => {
                if let Some(last) = options.last_mut() {
                    last.value = OptionValue::Text(s.clone());
                }
                Ok(())
            }
            _ => Err(self.error_at(self.index - 1)),
        }
    }

    fn old_options(&mut self, options: &mut Vec<CopyOption>) -> Result<()> {
        loop {
            let word = self.peek_word();
            let (name, flag) = match word.as_str() {
                "binary" | "csv" => ("format", Some(word.as_str())),
                "header" | "freeze" => (word.as_str(), Some("true")),
                "delimiter" | "null" | "quote" | "escape" | "encoding" => (word.as_str(), None),
                "force" => {
                    let option = self.flag("", OptionValue::Absent);
                    self.index += 1;
                    options.push(self.force(option)?);
                    continue;
                }
                _ => return Ok(()),
            };
            let value = flag.map_or(OptionValue::Absent, |f| OptionValue::Text(f.to_owned()));
            options.push(self.flag(name, value));
            self.index += 1;
            if flag.is_none() {
                self.last_value(options)?;
            }
        }
    }

    /// What follows FORCE in the old syntax.
    fn force(&mut self, mut option: CopyOption) -> Result<CopyOption> {
        option.name = if self.accept("quote") {
            "force_quote".into()
        } else if self.accept("null") {
            "force_null".into()
        } else {
            self.expect("not")?;
            self.expect("null")?;
            "force_not_null".into()
        };
        option.value = if option.name == "force_quote" && self.token(&Token::Mul) {
            OptionValue::Star
        } else {
            let mut names = vec![self.name()?];
            while self.token(&Token::Comma) {
                names.push(self.name()?);
            }
            OptionValue::List(names)
        };
        Ok(option)
    }
}

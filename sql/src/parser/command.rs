//! The statements that are read here, token by token: transaction control, settings, prepared statements,
//! EXPLAIN, and those that are accepted and change nothing.

mod alter_table;
pub(super) mod index;
mod lock;
mod object;
mod table_like;
mod user_type;

use amphora_replication::IsolationLevel;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::dialect::AmphoraDialect;
use super::position::Positions;
use super::{Analyze, Ast, ExplainOptions, near, parse_tokens, parser, syntax_error};
pub(crate) use alter_table::{ColumnAction, TableAction};
pub(crate) use index::{IndexAst, IndexChange};
pub(crate) use object::{CommentTarget, CreateTableAs, ObjectAst, SequenceOption};
pub(crate) use table_like::LikeClause;
pub(crate) use user_type::{DomainAction, DomainClause, TypeAst};

use crate::command::{Command, TransactionModes};
use crate::error::{Result, SqlError};
use crate::plan::ExplainFormat;
use crate::types::{IntervalStyle, format_interval, parse_interval};

/// A cursor over the tokens of one statement.
pub(super) struct CommandParser<'a> {
    pub(super) tokens: &'a [TokenWithSpan],
    pub(super) index: usize,
    pub(super) sql: &'a str,
    pub(super) positions: &'a Positions,
}

impl<'a> CommandParser<'a> {
    pub(super) fn new(tokens: &'a [TokenWithSpan], sql: &'a str, positions: &'a Positions) -> Self {
        CommandParser { tokens, index: 0, sql, positions }
    }

    /// The statement, if it is one of ours.
    pub(super) fn parse(&mut self, dialect: &AmphoraDialect) -> Result<Option<Ast>> {
        if let Some(object) = self.object(dialect)? {
            return Ok(Some(object));
        }
        let command = match self.peek_word().as_str() {
            "begin" => {
                self.index += 1;
                let _ = self.accept("work") || self.accept("transaction");
                Command::Begin(self.modes()?)
            }
            "start" => {
                self.index += 1;
                self.expect("transaction")?;
                Command::Begin(self.modes()?)
            }
            "commit" | "end" => {
                self.index += 1;
                if self.accept("prepared") {
                    return Err(unsupported("COMMIT PREPARED"));
                }
                self.and_chain()?;
                Command::Commit
            }
            "abort" => {
                self.index += 1;
                self.and_chain()?;
                Command::Rollback
            }
            "rollback" => {
                self.index += 1;
                if self.accept("prepared") {
                    return Err(unsupported("ROLLBACK PREPARED"));
                }
                self.and_chain()?;
                if self.accept("to") {
                    self.accept("savepoint");
                    Command::RollbackTo(self.name()?)
                } else {
                    Command::Rollback
                }
            }
            "savepoint" => {
                self.index += 1;
                Command::Savepoint(self.name()?)
            }
            "release" => {
                self.index += 1;
                self.accept("savepoint");
                Command::Release(self.name()?)
            }
            "set" => {
                self.index += 1;
                self.set()?
            }
            "show" => {
                self.index += 1;
                Command::Show(self.setting_name()?)
            }
            "reset" => {
                self.index += 1;
                if self.accept("all") {
                    Command::ResetAll
                } else {
                    Command::Set { name: self.setting_name()?, value: None, local: false }
                }
            }
            "discard" => {
                self.index += 1;
                match self.word()?.as_str() {
                    "all" => Command::Discard,
                    "plans" => Command::Nothing("DISCARD PLANS"),
                    "sequences" => Command::Nothing("DISCARD SEQUENCES"),
                    "temp" | "temporary" => Command::Nothing("DISCARD TEMP"),
                    _ => return Err(self.error_at(self.index - 1)),
                }
            }
            "deallocate" => {
                self.index += 1;
                self.accept("prepare");
                if self.accept("all") {
                    Command::Deallocate(None)
                } else {
                    Command::Deallocate(Some(self.name()?))
                }
            }
            "vacuum" => return self.analyze("VACUUM").map(Some),
            "analyze" | "analyse" => return self.analyze("ANALYZE").map(Some),
            "lock" => return self.lock().map(Some),
            "create" if self.is_own_extension() => {
                self.index = self.tokens.len();
                Command::Notice("CREATE EXTENSION", "extension \"amphora\" already exists, skipping".into())
            }
            "checkpoint" => return Ok(Some(Ast::Command(Command::Nothing("CHECKPOINT")))),
            "unlisten" => return Ok(Some(Ast::Command(Command::Nothing("UNLISTEN")))),
            "create" | "alter" | "drop" => match self.role()? {
                Some(command) => command,
                None => return Ok(None),
            },
            "prepare" => return self.prepare(dialect).map(Some),
            "execute" => return self.execute(dialect).map(Some),
            "explain" => return self.explain().map(Some),
            "copy" => return self.copy(dialect).map(Some),
            "declare" => return self.declare().map(Some),
            "fetch" => self.fetch(true)?,
            "move" => self.fetch(false)?,
            "close" => self.close()?,
            _ => return Ok(None),
        };
        self.finish()?;
        Ok(Some(Ast::Command(command)))
    }

    /// `[AND [NO] CHAIN]`, after an optional WORK or TRANSACTION.
    fn and_chain(&mut self) -> Result<()> {
        let _ = self.accept("work") || self.accept("transaction");
        if self.accept("and") {
            let no = self.accept("no");
            self.expect("chain")?;
            if !no {
                return Err(unsupported("AND CHAIN").with_hint("Begin the next transaction with BEGIN."));
            }
        }
        Ok(())
    }

    fn modes(&mut self) -> Result<TransactionModes> {
        let mut modes = TransactionModes::default();
        while self.index < self.tokens.len() {
            match self.word()?.as_str() {
                "isolation" => {
                    self.expect("level")?;
                    modes.isolation = Some(self.isolation()?);
                }
                "read" => match self.word()?.as_str() {
                    "only" => modes.read_only = Some(true),
                    "write" => modes.read_only = Some(false),
                    _ => return Err(self.error_at(self.index - 1)),
                },
                "not" => {
                    self.expect("deferrable")?;
                    modes.deferrable = Some(false);
                }
                "deferrable" => modes.deferrable = Some(true),
                "as" => {
                    ["of", "system", "time"].into_iter().try_for_each(|word| self.expect(word))?;
                    modes.as_of = Some(self.string()?.into());
                }
                _ => return Err(self.error_at(self.index - 1)),
            }
            self.token(&Token::Comma);
        }
        Ok(modes)
    }

    fn isolation(&mut self) -> Result<IsolationLevel> {
        match self.word()?.as_str() {
            "serializable" => Ok(IsolationLevel::Serializable),
            "repeatable" => self.expect("read").map(|()| IsolationLevel::RepeatableRead),
            "read" => match self.word()?.as_str() {
                "committed" | "uncommitted" => Ok(IsolationLevel::ReadCommitted),
                _ => Err(self.error_at(self.index - 1)),
            },
            _ => Err(self.error_at(self.index - 1)),
        }
    }

    /// `SET CONSTRAINTS { ALL | name [, …] } { DEFERRED | IMMEDIATE }`
    fn set_constraints(&mut self) -> Result<Command> {
        let names = if self.accept("all") {
            None
        } else {
            let mut names = Vec::new();
            loop {
                let first = self.name()?;
                names.push(match self.token(&Token::Period) {
                    true => (Some(first), self.name()?),
                    false => (None, first),
                });
                if !self.token(&Token::Comma) {
                    break Some(names);
                }
            }
        };
        match self.word()?.as_str() {
            "deferred" => Ok(Command::SetConstraints { names, deferred: true }),
            "immediate" => Ok(Command::SetConstraints { names, deferred: false }),
            _ => Err(self.error_at(self.index - 1)),
        }
    }

    fn set(&mut self) -> Result<Command> {
        let mut local = false;
        match (self.peek_word().as_str(), self.peek_word_at(1).as_str()) {
            ("local", _) => {
                local = true;
                self.index += 1;
            }
            ("session", "characteristics") => {
                self.index += 2;
                self.expect("as")?;
                self.expect("transaction")?;
                return Ok(Command::SetTransaction(self.modes()?, true));
            }
            ("session", "authorization") => {
                return Err(unsupported("SET SESSION AUTHORIZATION"));
            }
            ("session", _) => self.index += 1,
            _ => {}
        }
        match self.peek_word().as_str() {
            "constraints" => {
                self.index += 1;
                return self.set_constraints();
            }
            "transaction" => {
                self.index += 1;
                if self.peek_word() == "snapshot" {
                    return Err(unsupported("SET TRANSACTION SNAPSHOT"));
                }
                return Ok(Command::SetTransaction(self.modes()?, false));
            }
            "time" if self.peek_word_at(1) == "zone" => {
                self.index += 2;
                let value = self.time_zone()?;
                return Ok(Command::Set { name: "timezone".into(), value, local });
            }
            "names" => {
                self.index += 1;
                let value = if self.index == self.tokens.len() { None } else { self.values()? };
                return Ok(Command::Set { name: "client_encoding".into(), value, local });
            }
            "role" => {
                self.index += 1;
                let value = self.values()?;
                return Ok(Command::Set { name: "role".into(), value, local });
            }
            _ => {}
        }
        let name = self.setting_name()?;
        if !self.token(&Token::Eq) {
            self.expect("to")?;
        }
        Ok(Command::Set { name, value: self.values()?, local })
    }

    /// A setting's name; the spellings that are several words become their one-word names.
    fn setting_name(&mut self) -> Result<String> {
        let mut name = self.name()?;
        match (name.as_str(), self.peek_word().as_str()) {
            ("time", "zone") => {
                self.index += 1;
                return Ok("timezone".into());
            }
            ("transaction", "isolation") => {
                self.index += 1;
                self.expect("level")?;
                return Ok("transaction_isolation".into());
            }
            ("session", "authorization") => {
                self.index += 1;
                return Ok("session_authorization".into());
            }
            _ => {}
        }
        while self.token(&Token::Period) {
            name.push('.');
            name.push_str(&self.name()?);
        }
        Ok(name.to_lowercase())
    }

    /// The values of SET, joined as the setting keeps them; `None` is DEFAULT.
    fn values(&mut self) -> Result<Option<String>> {
        if self.peek_word() == "default" && self.index + 1 == self.tokens.len() {
            self.index += 1;
            return Ok(None);
        }
        let mut values: Vec<String> = Vec::new();
        loop {
            let negative = self.token(&Token::Minus);
            let _ = !negative && self.token(&Token::Plus);
            let value = match self.next()? {
                Token::Word(word) if word.quote_style.is_some() => word.value.clone(),
                Token::Word(word) => word.value.to_lowercase(),
                Token::Number(n, _) => n.clone(),
                Token::SingleQuotedString(s) | Token::EscapedStringLiteral(s) => s.clone(),
                _ => return Err(self.error_at(self.index - 1)),
            };
            values.push(if negative { format!("-{value}") } else { value });
            if !self.token(&Token::Comma) {
                return Ok(Some(values.join(", ")));
            }
        }
    }

    /// True of `CREATE EXTENSION IF NOT EXISTS amphora`, as dumps of schemas say: it is always there.
    fn is_own_extension(&self) -> bool {
        let words = ["extension", "if", "not", "exists"];
        words.iter().enumerate().all(|(i, word)| self.peek_word_at(i + 1) == *word)
            && matches!(self.tokens.get(self.index + 5).map(|t| &t.token), Some(Token::Word(w)) if w.value == "amphora")
            && self.tokens.len() == self.index + 6
    }

    /// What follows SET TIME ZONE: a name, a number of hours, an interval, LOCAL or DEFAULT (both `None`).
    fn time_zone(&mut self) -> Result<Option<String>> {
        if self.accept("local") {
            return Ok(None);
        }
        if !self.accept("interval") {
            return self.values();
        }
        let Token::SingleQuotedString(text) = self.next()? else {
            return Err(self.error_at(self.index - 1));
        };
        let mut text = text.clone();
        let at = self.index;
        let field = if self.index < self.tokens.len() { self.name()? } else { String::new() };
        if !field.is_empty() && !(field == "hour" && (!self.accept("to") || self.accept("minute"))) {
            let error = SqlError::syntax_error("time zone interval must be HOUR or HOUR TO MINUTE");
            return Err(match self.tokens.get(at).and_then(|t| self.positions.of_span(&t.span)) {
                Some(position) => error.at(position),
                None => error,
            });
        }
        if field == "hour" && text.trim().parse::<f64>().is_ok() {
            text.push_str(" hours");
        }
        let mut value = String::from("INTERVAL '");
        let _ = format_interval(&parse_interval(&text)?, IntervalStyle::Postgres, &mut value);
        Ok(Some(value + "'"))
    }

    fn prepare(&mut self, dialect: &AmphoraDialect) -> Result<Ast> {
        self.index += 1;
        if self.accept("transaction") {
            return Err(unsupported("PREPARE TRANSACTION"));
        }
        let name = self.name()?;
        let mut types = Vec::new();
        if self.token(&Token::LParen) {
            let mut parser = parser(dialect, self.tokens[self.index..].to_vec());
            loop {
                let ty = parser.parse_data_type();
                types.push(ty.map_err(|e| syntax_error(e, &mut parser, self.positions, self.sql))?);
                if !parser.consume_token(&Token::Comma) {
                    break;
                }
            }
            if !parser.consume_token(&Token::RParen) {
                return Err(near(&parser.peek_token(), self.positions, self.sql));
            }
            self.index += parser.index();
        }
        self.expect("as")?;
        let rest = &self.tokens[self.index..];
        if rest.is_empty() {
            return Err(self.error_at(self.index));
        }
        let preparable = ["select", "insert", "update", "delete", "merge", "values", "table", "with"];
        if rest[0].token != Token::LParen && !preparable.contains(&self.peek_word().as_str()) {
            return Err(self.error_at(self.index));
        }
        // Parsed once now for its syntax errors; EXECUTE's text is parsed again where it is kept.
        drop(parse_tokens(rest.to_vec(), self.sql, self.positions)?);
        Ok(Ast::Prepare { name, types, sql: self.positions.slice(self.sql, rest).to_owned() })
    }

    fn execute(&mut self, dialect: &AmphoraDialect) -> Result<Ast> {
        self.index += 1;
        let name = self.name()?;
        let mut args = Vec::new();
        if self.token(&Token::LParen) && !self.token(&Token::RParen) {
            let mut parser = parser(dialect, self.tokens[self.index..].to_vec());
            loop {
                let arg = parser.parse_expr();
                args.push(arg.map_err(|e| syntax_error(e, &mut parser, self.positions, self.sql))?);
                if !parser.consume_token(&Token::Comma) {
                    break;
                }
            }
            if !parser.consume_token(&Token::RParen) {
                return Err(near(&parser.peek_token(), self.positions, self.sql));
            }
            self.index += parser.index();
        }
        self.finish()?;
        Ok(Ast::Execute { name, args })
    }

    /// An option in parentheses and whether it is on, as it is without a word: `VERBOSE`, `ANALYZE off`.
    fn option_switch(&mut self) -> Result<(String, bool)> {
        let option = self.word()?;
        let on = match self.tokens.get(self.index).map(|t| &t.token) {
            Some(Token::Comma | Token::RParen) | None => true,
            Some(_) => !matches!(self.word()?.as_str(), "off" | "false" | "0"),
        };
        Ok((option, on))
    }

    /// The objects of a DROP, and whether CASCADE follows them.
    fn dropped_names(&mut self) -> Result<(Vec<sqlparser::ast::ObjectName>, bool)> {
        let mut names = vec![self.object_name()?];
        while self.token(&Token::Comma) {
            names.push(self.object_name()?);
        }
        let cascade = self.accept("cascade");
        if !cascade {
            self.accept("restrict");
        }
        Ok((names, cascade))
    }

    /// `ANALYZE [(options)] [table [(columns)], …]`, and VACUUM, whose other options change nothing here.
    fn analyze(&mut self, tag: &'static str) -> Result<Ast> {
        self.index += 1;
        let mut looks = tag == "ANALYZE";
        if self.token(&Token::LParen) {
            loop {
                let (option, on) = self.option_switch()?;
                match option.as_str() {
                    "analyze" | "analyse" if tag == "VACUUM" => looks = on,
                    "verbose" | "skip_locked" => {}
                    "full"
                    | "freeze"
                    | "disable_page_skipping"
                    | "index_cleanup"
                    | "process_toast"
                    | "truncate"
                    | "parallel"
                        if tag == "VACUUM" => {}
                    other => {
                        return Err(SqlError::syntax_error(format!("unrecognized {tag} option \"{other}\"")));
                    }
                }
                if self.token(&Token::RParen) {
                    break;
                }
                if !self.token(&Token::Comma) {
                    return Err(self.error_at(self.index));
                }
            }
        } else {
            while (tag == "VACUUM" && (self.accept("full") || self.accept("freeze")))
                || self.accept("verbose")
            {}
            looks |= tag == "VACUUM" && (self.accept("analyze") || self.accept("analyse"));
        }
        let mut targets = Vec::new();
        while self.index < self.tokens.len() {
            let mut parts = vec![self.name()?];
            while self.token(&Token::Period) {
                parts.push(self.name()?);
            }
            let quoted = |name: String| sqlparser::ast::Ident::with_quote('"', name);
            let name = sqlparser::ast::ObjectName::from(parts.into_iter().map(quoted).collect::<Vec<_>>());
            let mut columns = Vec::new();
            if self.token(&Token::LParen) {
                loop {
                    columns.push(self.name()?);
                    if self.token(&Token::RParen) {
                        break;
                    }
                    if !self.token(&Token::Comma) {
                        return Err(self.error_at(self.index));
                    }
                }
            }
            targets.push((name, columns));
            if self.index < self.tokens.len() && !self.token(&Token::Comma) {
                return Err(self.error_at(self.index));
            }
        }
        Ok(Ast::Analyze(Analyze { tag, looks, targets }))
    }

    fn explain(&mut self) -> Result<Ast> {
        self.index += 1;
        let mut options = ExplainOptions {
            analyze: false,
            verbose: false,
            costs: true,
            format: ExplainFormat::Text,
            summary: None,
            timing: None,
            wal: false,
            conflicts: false,
        };
        if self.tokens.get(self.index).is_some_and(|t| t.token == Token::LParen)
            && !matches!(self.peek_word_at(1).as_str(), "select" | "with" | "values" | "")
        {
            self.index += 1;
            loop {
                self.explain_option(&mut options)?;
                if self.token(&Token::RParen) {
                    break;
                }
                if !self.token(&Token::Comma) {
                    return Err(self.error_at(self.index));
                }
            }
        } else {
            options.analyze = self.accept("analyze") || self.accept("analyse");
            options.verbose = self.accept("verbose");
        }
        if options.wal && !options.analyze {
            return Err(SqlError::invalid_parameter_value("EXPLAIN option WAL requires ANALYZE"));
        }
        if options.timing == Some(true) && !options.analyze {
            return Err(SqlError::invalid_parameter_value("EXPLAIN option TIMING requires ANALYZE"));
        }
        let rest = &self.tokens[self.index..];
        if rest.is_empty() {
            return Err(self.error_at(self.index));
        }
        let statement = Box::new(parse_tokens(rest.to_vec(), self.sql, self.positions)?);
        Ok(Ast::Explain { statement, options })
    }

    fn explain_option(&mut self, options: &mut ExplainOptions) -> Result<()> {
        let name = self.word()?;
        let value = match self.tokens.get(self.index).map(|t| &t.token) {
            Some(Token::Word(_) | Token::Number(..) | Token::SingleQuotedString(_)) => self.word()?,
            _ => "on".into(),
        };
        let on = matches!(value.as_str(), "on" | "true" | "1");
        if !on && name != "format" && !matches!(value.as_str(), "off" | "false" | "0") {
            return Err(SqlError::syntax_error(format!("{name} requires a Boolean value")));
        }
        match name.as_str() {
            "analyze" | "analyse" => options.analyze = on,
            "verbose" => options.verbose = on,
            "costs" => options.costs = on,
            "summary" => options.summary = Some(on),
            "timing" => options.timing = Some(on),
            "buffers" | "settings" => {}
            "wal" => options.wal = on,
            "conflicts" => options.conflicts = on,
            "format" => match value.as_str() {
                "text" => options.format = ExplainFormat::Text,
                "json" => options.format = ExplainFormat::Json,
                "yaml" => options.format = ExplainFormat::Yaml,
                "xml" => options.format = ExplainFormat::Xml,
                other => {
                    return Err(SqlError::invalid_parameter_value(format!(
                        "unrecognized value for EXPLAIN option \"format\": \"{other}\""
                    )));
                }
            },
            other => {
                return Err(SqlError::syntax_error(format!("unrecognized EXPLAIN option \"{other}\"")));
            }
        }
        Ok(())
    }

    // The cursor.

    pub(super) fn peek_word(&self) -> String {
        self.peek_word_at(0)
    }

    /// The unquoted word `ahead` tokens from here, in lower case; empty if there is none.
    pub(super) fn peek_word_at(&self, ahead: usize) -> String {
        match self.tokens.get(self.index + ahead).map(|t| &t.token) {
            Some(Token::Word(word)) if word.quote_style.is_none() => word.value.to_lowercase(),
            _ => String::new(),
        }
    }

    pub(super) fn accept(&mut self, word: &str) -> bool {
        let found = self.peek_word() == word;
        self.index += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, word: &str) -> Result<()> {
        if self.accept(word) { Ok(()) } else { Err(self.error_at(self.index)) }
    }

    pub(super) fn token(&mut self, token: &Token) -> bool {
        let found = self.tokens.get(self.index).is_some_and(|t| t.token == *token);
        self.index += usize::from(found);
        found
    }

    pub(super) fn next(&mut self) -> Result<&'a Token> {
        match self.tokens.get(self.index) {
            Some(token) => {
                self.index += 1;
                Ok(&token.token)
            }
            None => Err(self.error_at(self.index)),
        }
    }

    /// A word, number or string, in lower case.
    pub(super) fn word(&mut self) -> Result<String> {
        match self.next()? {
            Token::Word(word) => Ok(word.value.to_lowercase()),
            Token::Number(s, _) | Token::SingleQuotedString(s) => Ok(s.to_lowercase()),
            _ => Err(self.error_at(self.index - 1)),
        }
    }

    /// An identifier, folded as PostgreSQL folds it.
    pub(super) fn name(&mut self) -> Result<String> {
        match self.next()? {
            Token::Word(word) if word.quote_style.is_some() => Ok(word.value.clone()),
            Token::Word(word) => Ok(word.value.to_ascii_lowercase()),
            _ => Err(self.error_at(self.index - 1)),
        }
    }

    /// A string constant.
    pub(super) fn string(&mut self) -> Result<String> {
        match self.next()? {
            Token::SingleQuotedString(s) | Token::EscapedStringLiteral(s) => Ok(s.clone()),
            Token::DollarQuotedString(s) => Ok(s.value.clone()),
            _ => Err(self.error_at(self.index - 1)),
        }
    }

    pub(super) fn advance(&mut self, tokens: usize) {
        self.index += tokens;
    }

    pub(super) fn at_end(&self) -> bool {
        self.index >= self.tokens.len()
    }

    pub(super) fn finish(&self) -> Result<()> {
        if self.index < self.tokens.len() { Err(self.error_at(self.index)) } else { Ok(()) }
    }

    pub(super) fn error_at(&self, index: usize) -> SqlError {
        match self.tokens.get(index) {
            Some(token) => near(token, self.positions, self.sql),
            None => near(&TokenWithSpan::new_eof(), self.positions, self.sql),
        }
    }
}

pub(super) fn unsupported(what: &str) -> SqlError {
    SqlError::feature_not_supported(format!("{what} is not supported"))
}

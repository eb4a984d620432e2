//! LOCK TABLE: in ACCESS SHARE mode, which pg_dump asks for. It keeps a table from being dropped or altered
//! while it is read, and a transaction's snapshot, catalog included, does that by itself.

use sqlparser::ast::{Ident, ObjectName};
use sqlparser::tokenizer::Token;

use super::super::Ast;
use super::CommandParser;
use crate::error::{Result, SqlError};

impl CommandParser<'_> {
    /// `LOCK [TABLE] [ONLY] name [*], … [IN mode MODE] [NOWAIT]`. 0A000 for modes that would keep writers away.
    pub(super) fn lock(&mut self) -> Result<Ast> {
        self.index += 1;
        self.accept("table");
        let mut names = Vec::new();
        loop {
            self.accept("only");
            let mut parts = vec![Ident::with_quote('"', self.name()?)];
            while self.token(&Token::Period) {
                parts.push(Ident::with_quote('"', self.name()?));
            }
            self.token(&Token::Mul);
            names.push(ObjectName::from(parts));
            if !self.token(&Token::Comma) {
                break;
            }
        }
        let mut mode = Vec::new();
        if self.accept("in") {
            while !self.accept("mode") {
                mode.push(self.word()?);
            }
        }
        self.accept("nowait");
        if self.index < self.tokens.len() {
            return Err(self.error_at(self.index));
        }
        let mode =
            if mode.is_empty() { "ACCESS EXCLUSIVE".to_owned() } else { mode.join(" ").to_uppercase() };
        match mode.as_str() {
            "ACCESS SHARE" => Ok(Ast::Lock(names)),
            "ROW SHARE"
            | "ROW EXCLUSIVE"
            | "SHARE UPDATE EXCLUSIVE"
            | "SHARE"
            | "SHARE ROW EXCLUSIVE"
            | "EXCLUSIVE"
            | "ACCESS EXCLUSIVE" => {
                Err(SqlError::feature_not_supported(format!("LOCK TABLE IN {mode} MODE is not supported"))
                    .with_hint("Lock rows with SELECT FOR UPDATE, or agree on an advisory lock."))
            }
            _ => Err(SqlError::syntax_error(format!("syntax error at or near \"{mode}\""))),
        }
    }
}

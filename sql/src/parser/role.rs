//! CREATE, ALTER and DROP of ROLE, USER and GROUP.

use sqlparser::tokenizer::Token;

use super::command::{CommandParser, unsupported};
use crate::command::{Command, RoleCommand, RoleOptions};
use crate::error::{Result, SqlError};

impl CommandParser<'_> {
    /// The command, if the statement is about a role.
    pub(super) fn role(&mut self) -> Result<Option<Command>> {
        let (verb, kind) = (self.peek_word(), self.peek_word_at(1));
        if !matches!(kind.as_str(), "role" | "user" | "group") || self.peek_word_at(2) == "mapping" {
            return Ok(None);
        }
        self.advance(2);
        let command = match verb.as_str() {
            "create" => {
                let name = self.role_name()?;
                self.accept("with");
                RoleCommand::Create { name, user: kind == "user", options: self.role_options()? }
            }
            "alter" => {
                let name = self.role_name()?;
                if self.accept("rename") {
                    self.expect("to")?;
                    RoleCommand::Rename { name, to: self.role_name()? }
                } else if matches!(self.peek_word().as_str(), "set" | "reset" | "in") {
                    return Err(unsupported("ALTER ROLE … SET").with_hint(
                        "Put the setting in the connection string, for example options=-csearch_path=app.",
                    ));
                } else if matches!(self.peek_word().as_str(), "add" | "drop") {
                    return Err(no_membership());
                } else {
                    self.accept("with");
                    RoleCommand::Alter { name, options: self.role_options()? }
                }
            }
            "drop" => {
                let if_exists = self.accept("if");
                if if_exists {
                    self.expect("exists")?;
                }
                let mut names = vec![self.role_name()?];
                while self.token(&Token::Comma) {
                    names.push(self.role_name()?);
                }
                RoleCommand::Drop { names, if_exists }
            }
            _ => return Ok(None),
        };
        Ok(Some(Command::Role(Box::new(command))))
    }

    /// A role's name, or one of the words that stand for the session's own.
    fn role_name(&mut self) -> Result<String> {
        // A name in quotes stands for itself.
        match self.peek_word().as_str() {
            "public" | "none" => {
                let word = self.peek_word();
                Err(SqlError::new("42939", format!("role name \"{word}\" is reserved")))
            }
            _ => self.name(),
        }
    }

    fn role_options(&mut self) -> Result<RoleOptions> {
        let mut options = RoleOptions::default();
        while !self.at_end() {
            let word = self.word()?;
            match word.as_str() {
                "password" => {
                    let value = if self.accept("null") { None } else { Some(self.string()?) };
                    once(&mut options.password, value)?;
                }
                "encrypted" => {
                    self.expect("password")?;
                    let value = Some(self.string()?);
                    once(&mut options.password, value)?;
                }
                "unencrypted" => {
                    return Err(SqlError::feature_not_supported(
                        "UNENCRYPTED PASSWORD is no longer supported",
                    )
                    .with_hint("Remove UNENCRYPTED to store the password in encrypted form instead."));
                }
                "valid" => {
                    self.expect("until")?;
                    let value = self.string()?;
                    once(&mut options.valid_until, value)?;
                }
                "connection" => {
                    self.expect("limit")?;
                    return Err(unsupported("CONNECTION LIMIT").with_hint(
                        "A node's limit is --max-connections; a connection pool can limit a role.",
                    ));
                }
                "in" | "role" | "admin" | "user" => return Err(no_membership()),
                _ => {
                    let (word, given) = match word.strip_prefix("no") {
                        Some(rest) => (rest, false),
                        None => (word.as_str(), true),
                    };
                    let slot = match word {
                        "login" => &mut options.login,
                        "superuser" => &mut options.superuser,
                        "createrole" => &mut options.create_role,
                        "createdb" => &mut options.create_database,
                        "inherit" => &mut options.inherit,
                        "replication" => &mut options.replication,
                        "bypassrls" => &mut options.bypass_rls,
                        _ => {
                            let word = if given { word.to_owned() } else { format!("no{word}") };
                            let message = format!("unrecognized role option \"{word}\"");
                            return Err(SqlError::syntax_error(message));
                        }
                    };
                    once(slot, given)?;
                }
            }
        }
        Ok(options)
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(SqlError::syntax_error("conflicting or redundant options")),
    }
}

fn no_membership() -> SqlError {
    unsupported("membership in roles").with_hint("A role stands for one user or application here.")
}

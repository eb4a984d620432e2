//! Statements that are carried out rather than planned: transaction control, settings, PREPARE.

use std::sync::Arc;

use amphora_storage::{DataType, Datum, Row};

use super::prepared::PreparedStatement;
use super::settings::{isolation_level, isolation_name};
use super::transaction::Block;
use super::{ListedStatement, MAX_STATEMENTS, Notice, Output, Session};
use crate::command::{Command, TransactionModes};
use crate::error::{Result, SqlError};
use crate::frontend;

/// What a command gives.
pub(super) struct Answer {
    pub(super) tag: String,
    pub(super) rows: Vec<Row>,
}

impl Answer {
    pub(super) fn tag(tag: impl Into<String>) -> Answer {
        Answer { tag: tag.into(), rows: Vec::new() }
    }
}

impl Session {
    /// Carries out a command that needs no snapshot. `None` if it is not one of those.
    pub(super) async fn run_command(
        &mut self,
        command: &Command,
        out: &mut dyn Output,
    ) -> Result<Option<Answer>> {
        Ok(Some(match command {
            Command::Begin(modes) => {
                self.begin_block(modes, out)?;
                Answer::tag("BEGIN")
            }
            Command::Commit => Answer::tag(self.commit_block(out).await?),
            Command::Rollback => {
                self.rollback_block(out).await;
                Answer::tag("ROLLBACK")
            }
            Command::Savepoint(name) => {
                self.savepoint(name)?;
                Answer::tag("SAVEPOINT")
            }
            Command::Release(name) => {
                self.release(name)?;
                Answer::tag("RELEASE")
            }
            Command::RollbackTo(name) => {
                self.rollback_to(name).await?;
                Answer::tag("ROLLBACK")
            }
            Command::SetTransaction(modes, true) => {
                self.set_characteristics(modes)?;
                Answer::tag("SET")
            }
            Command::SetTransaction(modes, false) => {
                if self.outside_block() {
                    out.notice(Notice::warning(
                        "25P01",
                        "SET TRANSACTION can only be used in transaction blocks",
                    ));
                } else {
                    self.set_modes(modes)?;
                }
                Answer::tag("SET")
            }
            Command::Set { name, value, local } => {
                self.set(name, value.as_deref(), *local, out)?;
                Answer::tag(if value.is_none() && !local { "RESET" } else { "SET" })
            }
            Command::SetConstraints { names, deferred } => {
                if self.outside_block() {
                    out.notice(Notice::warning(
                        "25P01",
                        "SET CONSTRAINTS can only be used in transaction blocks",
                    ));
                }
                self.set_constraints(names.as_deref(), *deferred).await?;
                Answer::tag("SET CONSTRAINTS")
            }
            Command::ResetAll => {
                self.shared.settings.lock().reset_all();
                Answer::tag("RESET")
            }
            Command::Show(name) if name == "amphora.token" => {
                let token = self.token().await?;
                Answer { tag: "SHOW".into(), rows: vec![vec![Datum::text(token)]] }
            }
            Command::Show(name) => self.show(name)?,
            Command::Discard => {
                if !self.outside_block() {
                    return Err(SqlError::active_sql_transaction(
                        "DISCARD ALL cannot run inside a transaction block",
                    ));
                }
                self.statements.clear();
                self.portals.clear();
                self.cursors.clear();
                *self.shared.listing.lock() = Default::default();
                self.shared.advisory.unlock_all();
                self.shared.sequences.discard();
                self.shared.settings.lock().reset_all();
                Answer::tag("DISCARD ALL")
            }
            Command::Deallocate(None) => {
                self.statements.clear();
                self.shared.listing.lock().statements.clear();
                Answer::tag("DEALLOCATE ALL")
            }
            Command::Deallocate(Some(name)) => {
                if self.statements.remove(name).is_none() {
                    return Err(no_statement(name));
                }
                self.shared.listing.lock().statements.remove(name);
                Answer::tag("DEALLOCATE")
            }
            Command::Notice(tag, message) => {
                out.notice(Notice::plain(message.clone()));
                Answer::tag(*tag)
            }
            Command::CloseCursor(name) => Answer::tag(self.close_cursor(name.as_deref())?),
            Command::Reindex { alone, renew } if renew.is_empty() => {
                if let Some(statement) = alone {
                    self.prevent_in_block(statement)?;
                }
                Answer::tag("REINDEX")
            }
            Command::Nothing("VACUUM") if !matches!(self.tx.block, Block::Idle) => {
                return Err(SqlError::active_sql_transaction("VACUUM cannot run inside a transaction block"));
            }
            Command::Nothing("LOCK TABLE") if self.outside_block() => {
                return Err(SqlError::no_active_sql_transaction(
                    "LOCK TABLE can only be used in transaction blocks",
                ));
            }
            Command::Nothing(tag) => {
                if *tag == "DISCARD SEQUENCES" {
                    self.shared.sequences.discard();
                }
                Answer::tag(*tag)
            }
            _ => return Ok(None),
        }))
    }

    fn outside_block(&self) -> bool {
        matches!(self.tx.block, Block::Idle | Block::Implicit)
    }

    fn set(&mut self, name: &str, value: Option<&str>, local: bool, out: &mut dyn Output) -> Result<()> {
        if local && self.outside_block() {
            out.notice(Notice::warning("25P01", "SET LOCAL can only be used in transaction blocks"));
            return Ok(());
        }
        match (name, value) {
            ("transaction_isolation", Some(level)) => {
                // Checked as the default is, and then put to this transaction.
                let level = self.shared.settings.lock().check(name, level)?;
                let isolation = Some(isolation_level(&level));
                self.set_modes(&TransactionModes { isolation, ..TransactionModes::default() })
            }
            ("transaction_read_only", Some(value)) => {
                let read_only = self.shared.settings.lock().check(name, value)? == "on";
                let read_only = Some(read_only);
                self.set_modes(&TransactionModes { read_only, ..TransactionModes::default() })
            }
            ("transaction_deferrable", Some(value)) => {
                let deferrable = Some(self.shared.settings.lock().check(name, value)? == "on");
                self.set_modes(&TransactionModes { deferrable, ..TransactionModes::default() })
            }
            _ => self.shared.settings.lock().set(name, value, local).map(drop),
        }
    }

    fn set_characteristics(&mut self, modes: &TransactionModes) -> Result<()> {
        if modes.as_of.is_some() {
            return Err(SqlError::feature_not_supported(
                "AS OF SYSTEM TIME cannot be a characteristic of a session",
            )
            .with_hint("Use SET TRANSACTION AS OF SYSTEM TIME in each transaction."));
        }
        let mut settings = self.shared.settings.lock();
        if let Some(level) = modes.isolation {
            settings.set("default_transaction_isolation", Some(isolation_name(level)), false)?;
        }
        if let Some(read_only) = modes.read_only {
            let value = if read_only { "on" } else { "off" };
            settings.set("default_transaction_read_only", Some(value), false)?;
        }
        if let Some(deferrable) = modes.deferrable {
            let value = if deferrable { "on" } else { "off" };
            settings.set("default_transaction_deferrable", Some(value), false)?;
        }
        Ok(())
    }

    fn show(&self, name: &str) -> Result<Answer> {
        if name == "all" {
            let all = self.shared.settings.lock().all();
            let rows = all.into_iter().map(|(n, v, d)| vec![Datum::text(n), Datum::text(v), Datum::text(d)]);
            return Ok(Answer { tag: "SHOW".into(), rows: rows.collect() });
        }
        let value = match name {
            "transaction_isolation" => Some(isolation_name(self.isolation()).to_owned()),
            "transaction_read_only" => Some(if self.is_read_only() { "on" } else { "off" }.to_owned()),
            "transaction_deferrable" => Some(if self.is_deferrable() { "on" } else { "off" }.to_owned()),
            _ => self.shared.settings.lock().get(name),
        };
        let value = value.ok_or_else(|| {
            SqlError::undefined_object(format!("unrecognized configuration parameter \"{name}\""))
        })?;
        Ok(Answer { tag: "SHOW".into(), rows: vec![vec![Datum::text(value)]] })
    }

    /// PREPARE
    pub(super) async fn prepare_statement(
        &mut self,
        name: &str,
        parameters: &[DataType],
        sql: &str,
        text: &str,
    ) -> Result<Answer> {
        if self.statements.contains_key(name) {
            return Err(SqlError::duplicate_prepared_statement(format!(
                "prepared statement \"{name}\" already exists"
            )));
        }
        self.check_statement_count()?;
        let parsed = frontend::parse(sql)?.into_iter().next();
        let declared = parameters.iter().cloned().map(Some).collect();
        let statement = Arc::new(PreparedStatement::new(parsed, declared));
        self.plan(&statement).await?;
        self.list_statement(name, text.to_owned(), &statement, true);
        self.statements.insert(name.to_owned(), statement);
        Ok(Answer::tag("PREPARE"))
    }

    /// A statement with a name has been prepared: `pg_prepared_statements` has it.
    pub(super) fn list_statement(
        &self,
        name: &str,
        text: String,
        statement: &PreparedStatement,
        from_sql: bool,
    ) {
        let plan = statement.last();
        let parameters = plan.map(|p| p.parameters.iter().map(DataType::oid).collect());
        let listed = ListedStatement {
            name: name.to_owned(),
            text,
            prepared: crate::types::current_timestamp(),
            parameters: parameters.unwrap_or_default(),
            from_sql,
        };
        self.shared.listing.lock().statements.insert(name.to_owned(), listed);
    }

    /// 53400
    pub(super) fn check_statement_count(&self) -> Result<()> {
        if self.statements.len() >= MAX_STATEMENTS {
            return Err(SqlError::new(
                "53400",
                format!("a session can have at most {MAX_STATEMENTS} prepared statements"),
            )
            .with_hint("Use DEALLOCATE, or fewer distinct statements."));
        }
        Ok(())
    }
}

/// 26000
pub(super) fn no_statement(name: &str) -> SqlError {
    if name.is_empty() {
        return SqlError::invalid_statement_name("unnamed prepared statement does not exist");
    }
    SqlError::invalid_statement_name(format!("prepared statement \"{name}\" does not exist"))
}

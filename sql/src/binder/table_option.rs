//! `WITH (replication = 'leaderless', …)` of CREATE TABLE.

use amphora_storage::schema::{Quorum, Replication, Table};
use sqlparser::ast;
use sqlparser::ast::{CreateTableOptions, SqlOption};

use super::fold;
use crate::error::{Result, SqlError};

/// The options, checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableOptions {
    pub(super) replication: Replication,
    pub(super) write_quorum: Quorum,
    pub(super) read_quorum: Quorum,
}

/// What a quorum can be.
pub(crate) const QUORUM_HINT: &str =
    "A quorum is a number of nodes, from 1, or quorum, all, local_quorum or each_quorum.";

/// Reads the options. 22023 for an unknown name or value.
pub(super) fn table_options(options: &CreateTableOptions) -> Result<TableOptions> {
    let options = match options {
        CreateTableOptions::None => &[][..],
        CreateTableOptions::With(options) => options,
        _ => return Err(SqlError::feature_not_supported("these table options are not supported")),
    };
    options_of(options)
}

/// Reads the options in parentheses of a new table.
pub(super) fn options_of(options: &[SqlOption]) -> Result<TableOptions> {
    let (write_quorum, read_quorum) = (Quorum::ONE, Quorum::ONE);
    read_options(options, TableOptions { replication: Replication::Strong, write_quorum, read_quorum })
}

/// ALTER TABLE … SET (…): the write quorum and the read quorum as they are to be.
pub(crate) fn changed_options(table: &Table, options: &[SqlOption]) -> Result<(Quorum, Quorum)> {
    let (replication, write_quorum, read_quorum) = (table.replication, table.write_quorum, table.read_quorum);
    let new = read_options(options, TableOptions { replication, write_quorum, read_quorum })?;
    if new.replication != replication {
        return Err(SqlError::feature_not_supported("a table cannot change its kind of replication")
            .with_hint("Create another table of that kind, and copy the rows with INSERT … SELECT."));
    }
    Ok((new.write_quorum, new.read_quorum))
}

fn read_options(options: &[SqlOption], mut read: TableOptions) -> Result<TableOptions> {
    let mut quorum = None;
    for option in options {
        let SqlOption::KeyValue { key, value } = option else {
            return Err(SqlError::syntax_error("table options are written name = value"));
        };
        let name = fold(key);
        let text = option_text(value)?;
        match name.as_str() {
            "replication" => {
                read.replication = match text.to_lowercase().as_str() {
                    "strong" => Replication::Strong,
                    "leaderless" => Replication::Leaderless,
                    _ => {
                        return Err(invalid_value("replication", &text)
                            .with_hint("Available values: strong, leaderless."));
                    }
                };
            }
            "write_quorum" | "read_quorum" => {
                let wanted =
                    text.parse::<Quorum>().map_err(|_| invalid_value(&name, &text).with_hint(QUORUM_HINT))?;
                match name.as_str() {
                    "write_quorum" => read.write_quorum = wanted,
                    _ => read.read_quorum = wanted,
                }
                quorum = Some(name);
            }
            // Storage parameters of PostgreSQL's that mean nothing here and change nothing a client sees.
            "fillfactor" => {}
            other if other.starts_with("autovacuum_") || other.starts_with("toast") => {}
            other => {
                return Err(SqlError::invalid_parameter_value(format!("unrecognized parameter \"{other}\""))
                    .with_hint("Available parameters: replication, write_quorum, read_quorum."));
            }
        }
    }
    if let (Some(name), Replication::Strong) = (&quorum, read.replication) {
        return Err(SqlError::invalid_parameter_value(format!(
            "parameter \"{name}\" is for leaderless tables"
        ))
        .with_hint(
            "Every commit to a strong table is on a majority already; add replication = 'leaderless'.",
        ));
    }
    Ok(read)
}

fn option_text(value: &ast::Expr) -> Result<String> {
    use ast::Value as V;
    match value {
        ast::Expr::Identifier(ident) => Ok(fold(ident)),
        ast::Expr::Value(value) => match &value.value {
            V::SingleQuotedString(s) | V::EscapedStringLiteral(s) => Ok(s.clone()),
            V::Number(n, _) => Ok(n.clone()),
            V::Boolean(b) => Ok(b.to_string()),
            _ => Err(SqlError::syntax_error("a table option's value is a word, a string or a number")),
        },
        _ => Err(SqlError::syntax_error("a table option's value is a word, a string or a number")),
    }
}

fn invalid_value(name: &str, value: &str) -> SqlError {
    SqlError::invalid_parameter_value(format!("invalid value for parameter \"{name}\": \"{value}\""))
}

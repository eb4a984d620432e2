//! The extended protocol: Parse, Bind, Describe, Execute, Close, Sync.

use std::sync::Arc;

use amphora_storage::schema::Catalog;
use amphora_storage::{DataType, Datum};
use bytes::Bytes;

use super::command::no_statement;
use super::prepared::{Portal, PortalState, PreparedStatement};
use super::statement::{Job, Outcome, show};
use super::transaction::Block;
use super::{MAX_PORTALS, Output, Session};
use crate::error::{Result, SqlError};
use crate::frontend;
use crate::plan::{Field, Prepared};
use crate::types::{self, FormatContext};

impl Session {
    /// Parse: prepares a statement. 42601, 42P05, and what binding finds.
    pub async fn parse(&mut self, name: &str, sql: &str, param_oids: &[u32]) -> Result<()> {
        if name.is_empty() {
            self.statements.remove("");
        } else if self.statements.contains_key(name) {
            return Err(SqlError::duplicate_prepared_statement(format!(
                "prepared statement \"{name}\" already exists"
            )));
        }
        self.check_statement_count()?;
        let mut parsed = frontend::parse(sql)?;
        if parsed.len() > 1 {
            return Err(SqlError::syntax_error("cannot insert multiple commands into a prepared statement"));
        }
        let catalog = self.catalog();
        let declared = param_oids.iter().map(|&oid| declared_type(oid, &catalog)).collect::<Result<_>>()?;
        let statement = Arc::new(PreparedStatement::new(parsed.pop(), declared));
        self.check_not_failed(&statement)?;
        if statement.parsed.is_some() {
            self.enter_plan_time();
            self.plan(&statement).await?;
        }
        if !name.is_empty() {
            self.list_statement(name, sql.to_owned(), &statement, false);
        }
        self.statements.insert(name.to_owned(), statement);
        Ok(())
    }

    /// Literals such as `'now'` are read when a statement is planned.
    fn enter_plan_time(&mut self) {
        if self.tx.block == Block::Idle && self.tx.txn.is_none() {
            self.tx.started = types::current_timestamp();
        }
    }

    /// Bind: makes a portal. Formats are none (all text), one for all, or one each. 08P01, 22P03, 26000
    pub fn bind(
        &mut self,
        portal: &str,
        statement: &str,
        params: &[Option<Bytes>],
        param_formats: &[i16],
        result_formats: &[i16],
    ) -> Result<()> {
        let prepared = self.statements.get(statement).cloned().ok_or_else(|| no_statement(statement))?;
        self.check_not_failed(&prepared)?;
        if !portal.is_empty() && (self.portals.contains_key(portal) || self.cursors.contains_key(portal)) {
            return Err(SqlError::new("42P03", format!("cursor \"{portal}\" already exists")));
        }
        if self.portals.len() >= MAX_PORTALS {
            return Err(SqlError::new("53400", format!("a session can have at most {MAX_PORTALS} portals"))
                .with_hint("Close portals that are no longer read."));
        }
        let plan = prepared.last();
        let types: &[DataType] = plan.as_ref().map_or(&[], |p| &p.parameters);
        if params.len() != types.len() {
            return Err(SqlError::protocol_violation(format!(
                "bind message supplies {} parameters, but prepared statement \"{statement}\" requires {}",
                params.len(),
                types.len()
            )));
        }
        if param_formats.len() > 1 && param_formats.len() != params.len() {
            return Err(SqlError::protocol_violation(format!(
                "bind message has {} parameter formats but {} parameters",
                param_formats.len(),
                params.len()
            )));
        }
        let schema = self.described(&prepared, plan.as_deref());
        if result_formats.len() > 1 && result_formats.len() != schema.len() {
            return Err(SqlError::protocol_violation(format!(
                "bind message has {} result formats but query has {} columns",
                result_formats.len(),
                schema.len()
            )));
        }
        let catalog = self.catalog();
        let format = self.eval.format(&self.shared, &catalog, self.tx.started);
        let values = params
            .iter()
            .zip(types)
            .enumerate()
            .map(|(i, (bytes, ty))| {
                parameter(bytes.as_ref(), ty, format_of(param_formats, i), &format).map_err(|mut error| {
                    error.context = Some(match portal {
                        "" => format!("unnamed portal parameter ${}", i + 1),
                        name => format!("portal \"{name}\" parameter ${}", i + 1),
                    });
                    error
                })
            })
            .collect::<Result<Vec<Datum>>>()?;
        let portal_state = Portal {
            statement: prepared,
            params: values.into(),
            formats: result_formats.into(),
            schema,
            state: PortalState::Ready,
        };
        self.portals.insert(portal.to_owned(), portal_state);
        Ok(())
    }

    /// Describe of a statement: its parameters' types, and its columns if it gives rows. 26000
    pub async fn describe_statement(&mut self, name: &str) -> Result<(Vec<u32>, Option<Arc<[Field]>>)> {
        let statement = self.statements.get(name).cloned().ok_or_else(|| no_statement(name))?;
        self.check_not_failed(&statement)?;
        if statement.parsed.is_none() {
            return Ok((Vec::new(), None));
        }
        let prepared = self.plan(&statement).await?;
        let oids = prepared.parameters.iter().map(DataType::oid).collect();
        let schema = self.described(&statement, Some(&prepared));
        Ok((oids, gives_rows(&schema)))
    }

    /// The columns that a statement gives: those of its plan, but for the statements about cursors.
    fn described(&self, statement: &PreparedStatement, plan: Option<&Prepared>) -> Arc<[Field]> {
        let Some(parsed) = &statement.parsed else { return Arc::from([]) };
        if let Some(fetched) = parsed.command().and_then(|command| self.fetched(command)) {
            return fetched;
        }
        match plan {
            Some(plan) if parsed.declares().is_none() => plan.schema.clone(),
            _ => Arc::from([]),
        }
    }

    /// Describe of a portal: its columns and their formats if it gives rows. 34000
    #[allow(clippy::type_complexity)]
    pub fn describe_portal(&mut self, name: &str) -> Result<Option<(Arc<[Field]>, Vec<i16>)>> {
        if let Some(cursor) = self.cursors.get(name) {
            return Ok(Some(cursor.description()));
        }
        let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
        Ok(gives_rows(&portal.schema).map(|schema| (schema, portal.formats.to_vec())))
    }

    /// Tells the next [`execute`](Session::execute) that Sync follows directly: the statement may then
    /// commit by itself, which is cheaper. Without it the transaction ends at Sync.
    pub fn expect_sync(&mut self) {
        self.sync_follows = true;
    }

    /// Execute: runs a portal, or goes on with it, for up to `max_rows` rows (0 is all). 34000
    pub async fn execute(&mut self, portal: &str, max_rows: u32, out: &mut dyn Output) -> Result<()> {
        self.shared.cancel.clear();
        let result = self.run_portal(portal, max_rows, out).await;
        self.report_settings(out);
        result
    }

    pub(super) async fn run_portal(&mut self, name: &str, max_rows: u32, out: &mut dyn Output) -> Result<()> {
        let Some(portal) = self.portals.get_mut(name) else { return Err(no_portal(name)) };
        let state = std::mem::replace(&mut portal.state, PortalState::Done);
        let (statement, schema, formats) =
            (portal.statement.clone(), portal.schema.clone(), portal.formats.clone());
        let params = portal.params.clone();
        if statement.parsed.is_none() {
            out.empty_query();
            return Ok(());
        }
        let state = match state {
            PortalState::Ready => {
                let place = self.place_of_execute(max_rows);
                let described = Some(schema);
                match self
                    .run_job(Job { statement, params, formats, place, max_rows, described }, out)
                    .await?
                {
                    Outcome::Complete => PortalState::Done,
                    Outcome::Running(query, rows) => PortalState::Running(query, rows),
                    Outcome::Buffered(rows, tag) => PortalState::Buffered { rows, tag },
                }
            }
            PortalState::Running(mut query, mut rows) => {
                self.check_not_failed(&statement)?;
                out.fields(&schema, &formats, &query.run.eval.format.clone());
                let more = self.resume(&mut query, &mut rows, max_rows, out).await?;
                if more { PortalState::Running(query, rows) } else { PortalState::Done }
            }
            PortalState::Buffered { mut rows, tag } => {
                self.check_not_failed(&statement)?;
                let catalog = self.catalog();
                let format = self.eval.format(&self.shared, &catalog, self.tx.started);
                out.fields(&schema, &formats, &format);
                let count = if max_rows == 0 { rows.len() } else { rows.len().min(max_rows as usize) };
                show(&mut rows, count, out).await?;
                if rows.len() == 0 {
                    out.complete(&tag);
                    PortalState::Done
                } else {
                    out.suspended();
                    PortalState::Buffered { rows, tag }
                }
            }
            PortalState::Done => {
                self.check_not_failed(&statement)?;
                if gives_rows(&schema).is_none() {
                    return Err(SqlError::object_not_in_prerequisite_state(format!(
                        "portal \"{name}\" cannot be run"
                    )));
                }
                out.complete("SELECT 0");
                PortalState::Done
            }
        };
        // The statement may have ended the transaction, and its portals with it.
        if let Some(portal) = self.portals.get_mut(name) {
            portal.state = state;
        }
        Ok(())
    }

    /// Close of a statement: no error if there is none of that name.
    pub fn close_statement(&mut self, name: &str) {
        self.statements.remove(name);
        if !name.is_empty() {
            self.shared.listing.lock().statements.remove(name);
        }
    }

    /// Close of a portal: no error if there is none of that name.
    pub fn close_portal(&mut self, name: &str) {
        self.portals.remove(name);
    }

    /// Sync: the end of an implicit transaction.
    pub async fn sync(&mut self, out: &mut dyn Output) -> Result<()> {
        self.sync_follows = false;
        let result = match self.tx.block {
            Block::Idle | Block::Implicit => {
                self.portals.clear();
                if self.tx.txn.is_some() || self.tx.block == Block::Implicit {
                    self.commit().await
                } else {
                    Ok(())
                }
            }
            Block::Explicit | Block::Failed => Ok(()),
        };
        self.report_settings(out);
        self.rest();
        result
    }
}

/// 34000
fn no_portal(name: &str) -> SqlError {
    SqlError::invalid_cursor_name(format!("portal \"{name}\" does not exist"))
}

fn gives_rows(schema: &Arc<[Field]>) -> Option<Arc<[Field]>> {
    (!schema.is_empty()).then(|| schema.clone())
}

/// A parameter type by OID; 0 leaves it to the binder. 42704
fn declared_type(oid: u32, catalog: &Catalog) -> Result<Option<DataType>> {
    match oid {
        0 | 705 => Ok(None),
        oid => match catalog.type_of_oid(oid) {
            Some(ty) => Ok(Some(ty)),
            None => Err(SqlError::undefined_object(format!("type with OID {oid} does not exist"))),
        },
    }
}

/// The format of the i-th column: none given is text, one given is for all.
fn format_of(formats: &[i16], i: usize) -> i16 {
    match formats {
        [] => 0,
        [one] => *one,
        many => many.get(i).copied().unwrap_or(0),
    }
}

/// A parameter's value. 08P01, 22021, 22P02, 22P03
fn parameter(bytes: Option<&Bytes>, ty: &DataType, format: i16, context: &FormatContext) -> Result<Datum> {
    let Some(bytes) = bytes else { return Ok(Datum::Null) };
    match format {
        0 => {
            let text = std::str::from_utf8(bytes).map_err(|_| {
                SqlError::character_not_in_repertoire("invalid byte sequence for encoding \"UTF8\"")
            })?;
            types::parse(text, &ty.base(), context)
        }
        1 => types::parse_binary(bytes, &ty.base()),
        other => Err(SqlError::invalid_parameter_value(format!("unsupported format code: {other}"))),
    }
}

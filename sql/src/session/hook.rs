//! What functions ask of the session: settings, and facts about the catalog.

use std::sync::Arc;
use std::time::Duration;

use amphora_replication::Transaction;
use amphora_replication::sessions::SessionInfo;
use amphora_storage::schema::{Catalog, Index, Sequence, Table, TableId};
use amphora_storage::{DataType, Datum, Row};

use super::SessionShared;
use super::advisory::wait_for;
use super::object::schema_exists;
use super::object_names::CatalogNames;
use super::sequence::SessionSequences;
use crate::catalog::{self, index_definition};
use crate::error::{Result, SqlError};
use crate::executor::blocking;
use crate::functions::{EvalContext, SessionHook};
use crate::types::{FormatContext, ObjectNames};

/// How often `pg_sleep` looks whether it was cancelled.
const SLEEP_SLICE: Duration = Duration::from_millis(10);

/// Made once for a version of the catalog and of the settings, and then copied for each statement.
#[derive(Default)]
pub(super) struct EvalCache {
    cached: Option<(Arc<Catalog>, u64, EvalContext)>,
}

impl EvalCache {
    /// The context of a statement that begins now.
    pub(super) fn context(
        &mut self,
        shared: &Arc<SessionShared>,
        catalog: &Arc<Catalog>,
        transaction_timestamp: i64,
    ) -> EvalContext {
        let mut context = self.current(shared, catalog).clone();
        context.statement_timestamp = crate::types::current_timestamp();
        context.transaction_timestamp = transaction_timestamp;
        context.format.now = transaction_timestamp;
        context
    }

    /// Only what texts depend on.
    pub(super) fn format(
        &mut self,
        shared: &Arc<SessionShared>,
        catalog: &Arc<Catalog>,
        transaction_timestamp: i64,
    ) -> FormatContext {
        FormatContext { now: transaction_timestamp, ..self.current(shared, catalog).format.clone() }
    }

    fn current(&mut self, shared: &Arc<SessionShared>, catalog: &Arc<Catalog>) -> &EvalContext {
        let generation = shared.settings.lock().generation();
        let fresh = |c: &Arc<Catalog>, g: u64| Arc::ptr_eq(c, catalog) && g == generation;
        let kept = self.cached.take().filter(|(c, g, _)| fresh(c, *g));
        let made = || (catalog.clone(), generation, context(shared, catalog));
        &self.cached.insert(kept.unwrap_or_else(made)).2
    }
}

fn context(shared: &Arc<SessionShared>, catalog: &Arc<Catalog>) -> EvalContext {
    let effective = shared.settings.lock().effective().clone();
    let schemas = existing(catalog, &effective.search_path);
    let names = Arc::new(CatalogNames::new(catalog.clone(), schemas.clone()));
    EvalContext {
        statement_timestamp: 0,
        transaction_timestamp: 0,
        format: FormatContext {
            timezone: effective.timezone.clone(),
            extra_float_digits: effective.extra_float_digits,
            interval_style: effective.interval_style,
            now: 0,
            names: Some(names.clone()),
        },
        user: shared.user.clone(),
        session_user: shared.user.clone(),
        database: shared.database.clone(),
        schemas,
        session: Arc::new(Facts { shared: shared.clone(), catalog: catalog.clone(), names }),
    }
}

/// The schemas of a search path that there are, each once.
fn existing(catalog: &Catalog, path: &[String]) -> Arc<[String]> {
    let mut schemas: Vec<String> = Vec::with_capacity(path.len());
    for schema in path {
        if schema_exists(catalog, schema) && !schemas.contains(schema) {
            schemas.push(schema.clone());
        }
    }
    schemas.into()
}

/// The session and the catalog, as functions see them.
struct Facts {
    shared: Arc<SessionShared>,
    catalog: Arc<Catalog>,
    names: Arc<CatalogNames>,
}

impl SessionHook for Facts {
    fn prepared_statements(&self) -> Vec<super::ListedStatement> {
        self.shared.listing.lock().statements.values().cloned().collect()
    }

    fn cursors(&self) -> Vec<super::ListedCursor> {
        self.shared.listing.lock().cursors.values().cloned().collect()
    }

    fn sessions(&self) -> Result<Vec<SessionInfo>> {
        super::signal::sessions(&self.shared)
    }

    fn setting(&self, name: &str) -> Option<String> {
        self.shared.settings.lock().get(name)
    }

    fn set_setting(&self, name: &str, value: &str, local: bool) -> Result<String> {
        self.shared.settings.lock().set(name, Some(value), local)
    }

    fn sequence(&self, txn: &dyn Transaction, function: &str, args: &[Datum]) -> Result<Datum> {
        let (catalog, sequences) = (&self.catalog, &self.shared.sequences);
        let id = args.first().and_then(Datum::as_i64).and_then(|o| u32::try_from(o).ok()).unwrap_or(0);
        let sequence = sequence_of(catalog, TableId(id))?;
        let number = |i: usize| args.get(i).and_then(Datum::as_i64).unwrap_or(0);
        Ok(match function {
            "nextval" => Datum::Int8(sequences.next(&self.shared, txn, sequence)?),
            "setval" => {
                let called = args.get(2).and_then(Datum::as_bool).unwrap_or(true);
                Datum::Int8(sequences.set(&self.shared, txn, sequence, number(1), called)?)
            }
            _ => {
                let (state, ahead) = SessionSequences::read(&self.shared, txn, sequence)?;
                match (function, number(1)) {
                    ("pg_sequence_last_value", _) if !state.called => Datum::Null,
                    ("pg_sequence_last_value", _) | (_, 0) => Datum::Int8(state.last),
                    (_, 1) => Datum::Int8(i64::from(ahead)),
                    _ => Datum::Int8(i64::from(state.called)),
                }
            }
        })
    }

    fn verify_table(&self, table: u32) -> Result<Vec<Row>> {
        if self.table(table).is_none() {
            return Err(match self.catalog.relation_by_id(TableId(table)) {
                Some(other) => SqlError::wrong_object_type(format!("\"{}\" is not a table", other.name().1)),
                None => SqlError::undefined_table(format!("could not open relation with OID {table}")),
            });
        }
        let limit = self.shared.settings.lock().effective().statement_timeout;
        let engine = &self.shared.engine;
        let found = wait_for(&self.shared.cancel, limit, engine.verify_table(TableId(table)))?;
        Ok(found.iter().map(catalog::verification_row).collect())
    }

    fn call(&self, function: &str, args: &[Datum]) -> Result<Datum> {
        let oid = || args.first().and_then(Datum::as_i64).and_then(|o| u32::try_from(o).ok()).unwrap_or(0);
        let pretty = |i: usize| args.get(i).and_then(Datum::as_bool).unwrap_or_default();
        Ok(match function {
            "pg_backend_pid" => Datum::Int4(self.shared.backend_pid),
            "pg_postmaster_start_time" => Datum::Timestamptz(self.shared.started),
            "restore" => {
                let id = args.first().and_then(Datum::as_i64).unwrap_or(0);
                let limit = self.shared.settings.lock().effective().statement_timeout;
                let restored = super::restore::restore(self.shared.engine.as_ref(), id);
                Datum::Bool(wait_for(&self.shared.cancel, limit, restored)?)
            }
            "unique_id" | "amphora.unique_id" => Datum::Int8(self.shared.engine.unique_id()),
            "node_id" | "amphora.node_id" => Datum::Int8(self.shared.engine.node_id().cast_signed()),
            "pg_get_userbyid" => match catalog::role_name(&self.catalog, oid()) {
                Some(name) => Datum::text(name),
                None => Datum::text(format!("unknown (OID={})", oid())),
            },
            "acldefault" => {
                let role =
                    args.get(1).and_then(Datum::as_i64).and_then(|o| u32::try_from(o).ok()).unwrap_or(0);
                let role = catalog::role_name(&self.catalog, role).unwrap_or_else(|| role.to_string());
                default_privileges(args.first().and_then(Datum::as_str).unwrap_or(""), &role)?
            }
            "pg_table_is_visible" => self.names.relation_is_visible(oid()).map_or(Datum::Null, Datum::Bool),
            // Amphora's own functions are in its schema, all else of these in pg_catalog.
            "pg_function_is_visible" => {
                let name = catalog::function_name(oid(), false);
                let visible =
                    |name: String| !name.starts_with("amphora.") || self.names.is_visible("amphora");
                name.map_or(Datum::Null, |name| Datum::Bool(visible(name)))
            }
            "pg_type_is_visible" => Datum::Bool(self.names.type_is_visible(oid()).unwrap_or(true)),
            "pg_operator_is_visible"
            | "pg_opclass_is_visible"
            | "pg_opfamily_is_visible"
            | "pg_conversion_is_visible"
            | "pg_statistics_obj_is_visible"
            | "pg_ts_config_is_visible"
            | "pg_ts_dict_is_visible"
            | "pg_ts_parser_is_visible"
            | "pg_ts_template_is_visible"
            | "pg_collation_is_visible" => Datum::Bool(true),
            "pg_get_functiondef" => optional(catalog::function_definition(oid())),
            "pg_get_function_result" => optional(catalog::function_result(oid())),
            "pg_get_function_arguments" => optional(catalog::function_arguments(oid(), false)),
            "pg_get_function_identity_arguments" => optional(catalog::function_arguments(oid(), true)),
            "pg_get_expr" => match args.first().and_then(Datum::as_str) {
                Some(text) => self.expression(text, args.get(1).and_then(Datum::as_i64), pretty(2)),
                None => Datum::Null,
            },
            "currval" => {
                Datum::Int8(self.shared.sequences.current(sequence_of(&self.catalog, TableId(oid()))?)?)
            }
            "lastval" => Datum::Int8(self.shared.sequences.last()?),
            "pg_get_serial_sequence" => self.serial_sequence(args)?,
            "pg_get_viewdef" => match self.catalog.view_by_id(TableId(oid())) {
                Some(view) => Datum::text(catalog::view_definition(&self.catalog, self.names.as_ref(), view)),
                None => Datum::Null,
            },
            "obj_description" | "shobj_description" => {
                let class = args.get(1).and_then(Datum::as_str);
                catalog::object_comment(&self.catalog, oid(), class).map_or(Datum::Null, Datum::text)
            }
            "pg_describe_object" => {
                let object = args.get(1).and_then(Datum::as_i64).and_then(|oid| u32::try_from(oid).ok());
                let column = args.get(2).and_then(Datum::as_i64).unwrap_or(0);
                optional(object.and_then(|object| {
                    catalog::describe_object(&self.catalog, self.names.as_ref(), oid(), object, column)
                }))
            }
            "col_description" => {
                let number = args.get(1).and_then(Datum::as_i64).unwrap_or(0);
                catalog::column_comment(&self.catalog, oid(), number).map_or(Datum::Null, Datum::text)
            }
            "pg_get_indexdef" => {
                self.index_definition(oid(), args.get(1).and_then(Datum::as_i64).unwrap_or(0), pretty(2))
            }
            "pg_get_constraintdef" => self.constraint_definition(oid(), pretty(1)),
            "pg_get_triggerdef"
            | "pg_get_ruledef"
            | "pg_get_partkeydef"
            | "pg_get_statisticsobjdef_columns"
            | "pg_get_function_sqlbody"
            | "pg_tablespace_location"
            | "inet_client_addr"
            | "inet_server_addr"
            | "pg_index_column_has_property" => Datum::Null,
            "pg_get_replica_identity_index" => Datum::Null,
            "pg_relation_is_publishable" => Datum::Bool(self.table(oid()).is_some()),
            "pg_relation_size" | "pg_table_size" | "pg_total_relation_size" => Datum::Int8(self.size(oid())),
            // Index entries are counted with their table.
            "pg_indexes_size" => Datum::Int8(0),
            "pg_database_size" | "pg_tablespace_size" => {
                let bytes = self.shared.engine.status().tables.iter().map(|t| t.size_bytes).sum::<u64>();
                Datum::Int8(bytes.cast_signed())
            }
            "pg_cancel_backend" | "pg_terminate_backend" => {
                Datum::Bool(super::signal::signal(&self.shared, function, args)?)
            }
            // Who waits for whom is known to the leader only.
            "pg_blocking_pids" => Datum::array(amphora_storage::DataType::Int4, Vec::new()),
            advisory if advisory.contains("_advisory_") => {
                let limits = {
                    let settings = self.shared.settings.lock();
                    (settings.effective().lock_timeout, settings.effective().statement_timeout)
                };
                let shared = &self.shared;
                return shared.advisory.call(advisory, args, shared, limits);
            }
            "current_of" => {
                let [Datum::Text(cursor), Datum::Oid(table), part] = args else { return Ok(Datum::Null) };
                let table = self
                    .table(*table)
                    .ok_or_else(|| SqlError::internal("CURRENT OF in a table that is gone"))?;
                let key = self.shared.listing.lock().current(cursor, table)?;
                let part = part.as_i64().and_then(|i| usize::try_from(i).ok()).unwrap_or(0);
                key.get(part).cloned().unwrap_or(Datum::Null)
            }
            "pg_sleep" => {
                self.sleep(args)?;
                Datum::text("")
            }
            other => {
                return Err(SqlError::feature_not_supported(format!(
                    "function {other}() is not yet supported"
                )));
            }
        })
    }
}

fn optional(text: Option<String>) -> Datum {
    text.map_or(Datum::Null, Datum::text)
}

/// A sequence by its OID. 42P01, 42809
fn sequence_of(catalog: &Catalog, id: TableId) -> Result<&Arc<Sequence>> {
    catalog.sequence_by_id(id).ok_or_else(|| match catalog.relation_by_id(id) {
        Some(other) => SqlError::wrong_object_type(format!("\"{}\" is not a sequence", other.name().1)),
        None => SqlError::undefined_table(format!("could not open relation with OID {}", id.0)),
    })
}

impl Facts {
    /// `pg_get_serial_sequence(table, column)`: the sequence that the column owns.
    fn serial_sequence(&self, args: &[Datum]) -> Result<Datum> {
        let text = |i: usize| args.get(i).and_then(Datum::as_str).unwrap_or("");
        let (table, column) = (text(0), text(1));
        let oid = self.names.oid_of(&DataType::Regclass, table)?;
        let Some(found) = oid.and_then(|oid| self.table(oid)) else {
            return Err(SqlError::undefined_table(format!("relation \"{table}\" does not exist")));
        };
        let Some(position) = found.column_position(column) else {
            return Err(SqlError::undefined_column(format!(
                "column \"{column}\" of relation \"{}\" does not exist",
                found.name
            )));
        };
        let owner = Some((found.id, found.columns[position].id));
        let sequence = self.catalog.sequences().find(|s| s.owned_by == owner);
        Ok(sequence.map_or(Datum::Null, |s| {
            Datum::text(format!("{}.{}", catalog::quoted(&s.schema), catalog::quoted(&s.name)))
        }))
    }

    fn table(&self, oid: u32) -> Option<&Arc<Table>> {
        self.catalog.table_by_id(TableId(oid))
    }

    fn index(&self, oid: u32) -> Option<(&Arc<Table>, &Index)> {
        self.catalog.tables().find_map(|t| t.all_indexes().find(|i| i.oid == oid).map(|i| (t, i)))
    }

    /// An expression that a catalog has, over the rows of a relation.
    fn expression(&self, text: &str, relation: Option<i64>, pretty: bool) -> Datum {
        let table = relation.and_then(|oid| u32::try_from(oid).ok()).and_then(|oid| self.table(oid));
        let found = table.filter(|_| pretty).and_then(|table| catalog::pretty_expression(table, text));
        let shown = found.unwrap_or_else(|| catalog::shown_default(self.names.as_ref(), text));
        Datum::text(catalog::shown_types(&self.catalog, &shown))
    }

    /// The whole definition, or that of one attribute.
    fn index_definition(&self, oid: u32, column: i64, pretty: bool) -> Datum {
        let Some((table, index)) = self.index(oid) else { return Datum::Null };
        if column == 0 {
            return Datum::text(index_definition(table, index, pretty));
        }
        let place = usize::try_from(column - 1).ok();
        let attribute = place.and_then(|place| catalog::index_attribute(table, index, place, pretty));
        attribute.map_or(Datum::text(""), Datum::text)
    }

    fn constraint_definition(&self, oid: u32, pretty: bool) -> Datum {
        let mut tables = self.catalog.tables();
        let visible = |oid| self.names.relation_is_visible(oid).unwrap_or(false);
        let found =
            tables.find_map(|t| catalog::constraint_definition(&self.catalog, t, oid, pretty, &visible));
        let found = found.or_else(|| catalog::domain_constraint_definition(&self.catalog, oid));
        found.map_or(Datum::Null, Datum::text)
    }

    fn size(&self, oid: u32) -> i64 {
        let tables = self.shared.engine.status().tables;
        tables.iter().find(|t| t.table_id.0 == oid).map_or(0, |t| t.size_bytes.cast_signed())
    }

    fn sleep(&self, args: &[Datum]) -> Result<()> {
        let seconds = match args.first() {
            Some(Datum::Float8(seconds)) => *seconds,
            _ => 0.0,
        };
        let total = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        let timeout = self.shared.settings.lock().effective().statement_timeout;
        let begin = std::time::Instant::now();
        blocking(|| {
            while let Some(left) = total.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
                if self.shared.cancel.is_cancelled() {
                    return Err(SqlError::query_canceled("canceling statement due to user request"));
                }
                if !timeout.is_zero() && begin.elapsed() >= timeout {
                    return Err(crate::executor::timed_out());
                }
                std::thread::sleep(left.min(SLEEP_SLICE));
            }
            Ok(())
        })
    }
}

/// What an owner and everybody may do with an object of a kind before anything is granted: `acldefault`.
fn default_privileges(kind: &str, owner: &str) -> Result<Datum> {
    let (public, own) = match kind {
        "c" => ("", ""),
        "r" => ("", "arwdDxt"),
        "s" => ("", "rwU"),
        "d" => ("Tc", "CTc"),
        "f" => ("X", "X"),
        "l" | "T" => ("U", "U"),
        "L" => ("", "rw"),
        "n" => ("", "UC"),
        "p" => ("", "sA"),
        "t" => ("", "C"),
        "F" | "S" => ("", "U"),
        _ => return Err(SqlError::new("XX000", format!("unrecognized object type abbreviation: {kind}"))),
    };
    let owner = catalog::quoted(owner);
    let granted = [("", public), (owner.as_str(), own)].into_iter().filter(|(_, what)| !what.is_empty());
    Ok(Datum::array(
        DataType::Text,
        granted.map(|(to, what)| Datum::text(format!("{to}={what}/{owner}"))).collect(),
    ))
}

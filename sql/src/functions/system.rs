//! Functions about the session, the server and the catalog.
//!
//! What follows from the context alone is answered here. What needs the session or the catalog is passed
//! to [`SessionHook::call`](super::SessionHook::call) by name, with its arguments.

use amphora_storage::schema::TableId;
use amphora_storage::{DataType, Datum, Numeric as Number};
use num_traits::ToPrimitive;

use super::arithmetic::{int, numeric, wrong_kind};
use super::signature::Ty::*;
use super::string::str_of;
use super::{Call, ScalarFunction, function};
use crate::error::{Result, SqlError};
use crate::types::FormatContext;

/// The version of PostgreSQL whose behaviour this is.
pub(crate) const POSTGRES_VERSION: &str = "15.0";

/// A function that the session or the catalog answers.
macro_rules! hook {
    ($name:literal, $args:expr, $returns:expr) => {
        function($name, $args, $returns, |a, c| c.context.session.call($name, a)).stable()
    };
}

/// A function that the session carries out, and that does something.
macro_rules! act {
    ($name:literal, $args:expr, $returns:expr) => {
        function($name, $args, $returns, |a, c| c.context.session.call($name, a)).volatile()
    };
}

/// A privilege test; there is one kind of user, who may do everything.
macro_rules! privilege {
    ($($name:literal: $args:expr),* $(,)?) => {
        &[$(function($name, $args, Bool, |_, _| Ok(Datum::Bool(true))).stable()),*]
    };
}

/// The part of the primary key, of the row of a table, that a cursor stands on.
pub(crate) static CURRENT_OF: ScalarFunction =
    function("current_of", &[Text, Oid, Int4], AnyElement, |a, c| c.context.session.call("current_of", a))
        .stable();

/// `format_type(oid, typmod)`: the type's name with its modifier.
pub(crate) fn format_type(oid: u32, modifier: Option<i32>) -> String {
    let Some(data_type) = DataType::from_oid(oid) else {
        return match oid {
            0 => "-".to_string(),
            oid => crate::catalog::pseudo_type_name(oid).unwrap_or_else(|| "???".to_string()),
        };
    };
    let m = modifier.unwrap_or(-1);
    with_modifier(&data_type, m, modifier.is_some())
}

fn with_modifier(data_type: &DataType, m: i32, given: bool) -> String {
    match data_type {
        DataType::Array(element) => format!("{}[]", with_modifier(element, m, given)),
        DataType::Char(_) if m >= 4 => format!("character({})", m - 4),
        DataType::Char(_) => if given { "bpchar" } else { "character" }.to_string(),
        DataType::Varchar(_) if m >= 4 => format!("character varying({})", m - 4),
        DataType::Numeric(_) if m >= 4 => {
            let scale = ((m - 4) & 0x7ff) as i16;
            let scale = if scale >= 1024 { scale - 2048 } else { scale };
            format!("numeric({},{scale})", (m - 4) >> 16)
        }
        other => match other.with_time_modifier(m) {
            Some(modified) => modified.to_string(),
            None => other.to_string(),
        },
    }
}

fn format_type_call(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let modifier = if a[1].is_null() { None } else { Some(int(&a[1])? as i32) };
    let oid = int(&a[0])? as u32;
    let own = c.context.format.names.as_ref().filter(|_| oid >= TableId::FIRST_USER.0);
    if let Some(name) = own.and_then(|names| names.name_of(&DataType::Regtype, oid)) {
        return Ok(Datum::text(name));
    }
    Ok(Datum::text(format_type(oid, modifier)))
}

fn current_setting(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let name = str_of(&a[0])?;
    let missing_ok = a.get(1).and_then(Datum::as_bool) == Some(true);
    match c.context.session.setting(&name.to_ascii_lowercase()) {
        Some(value) => Ok(Datum::text(value)),
        None if missing_ok => Ok(Datum::Null),
        None => {
            let message = format!("unrecognized configuration parameter \"{name}\"");
            Err(SqlError::undefined_object(message))
        }
    }
}

fn set_config(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let Some(name) = a[0].as_str() else {
        return Err(SqlError::null_value_not_allowed("SET requires parameter name"));
    };
    let value = a[1].as_str().unwrap_or("");
    let local = a[2].as_bool() == Some(true);
    Ok(Datum::text(c.context.session.set_setting(&name.to_ascii_lowercase(), value, local)?))
}

fn names(items: impl Iterator<Item = String>) -> Datum {
    Datum::array(DataType::Name, items.map(Datum::text).collect())
}

fn current_schemas(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let implicit = a[0].as_bool() == Some(true);
    let listed = c.context.schemas.iter().any(|s| s == "pg_catalog");
    let first = (implicit && !listed).then(|| "pg_catalog".to_string());
    Ok(names(first.into_iter().chain(c.context.schemas.iter().cloned())))
}

/// Bytes as a person reads them.
fn size_pretty(bytes: i128) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let (mut size, mut unit) = (bytes, 0);
    // Units change at ten of the next, rounding half up at each step.
    let mut half = false;
    while unit + 1 < UNITS.len() && size.unsigned_abs() >= if unit == 0 { 10 * 1024 } else { 20 * 1024 - 1 } {
        let shift = if unit == 0 { 9 } else { 10 };
        size >>= shift;
        half = true;
        unit += 1;
    }
    if half {
        size = (size + size.signum()) / 2;
    }
    format!("{size} {}", UNITS[unit])
}

/// `pg_size_pretty` of a numeric: parts of a byte are shown while bytes are. 22003
fn numeric_size_pretty(a: &[Datum], _: &Call<'_>) -> Result<Datum> {
    let out_of_range = || SqlError::numeric_value_out_of_range("value out of range for pg_size_pretty");
    let number = numeric(&a[0])?;
    let Number::Finite(size) = number else { return Ok(Datum::text(format!("{number} PB"))) };
    let whole = size.with_scale(0).to_i128().ok_or_else(out_of_range)?;
    if whole.unsigned_abs() < 10 * 1024 {
        return Ok(Datum::text(format!("{number} bytes")));
    }
    Ok(Datum::text(size_pretty(whole)))
}

/// `to_regclass` and its like: NULL where the cast would fail.
fn to_reg(a: &[Datum], c: &Call<'_>) -> Result<Datum> {
    let format: &FormatContext = &c.context.format;
    match crate::types::parse(str_of(&a[0])?, c.return_type, format) {
        Ok(found) => Ok(found),
        Err(_) => Ok(Datum::Null),
    }
}

fn nulls(a: &[Datum], wanted: bool) -> Datum {
    Datum::Int4(a.iter().filter(|d| d.is_null() == wanted).count() as i32)
}

fn random_uuid(_: &[Datum], _: &Call<'_>) -> Result<Datum> {
    Ok(Datum::uuid(*uuid::Uuid::new_v4().as_bytes()))
}

/// The functions of this family.
pub(super) static FUNCTIONS: &[ScalarFunction] = &[
    function("pg_typeof", &[Any], Regtype, |_, c| {
        c.arg_types.first().map(|t| Datum::Oid(t.oid())).ok_or_else(wrong_kind)
    })
    .called_on_null()
    .stable(),
    function("format_type", &[Oid, Int4], Text, format_type_call).called_on_null().stable(),
    function("current_setting", &[Text], Text, current_setting).stable(),
    function("current_setting", &[Text, Bool], Text, current_setting).stable(),
    function("set_config", &[Text, Text, Bool], Text, set_config).called_on_null().volatile(),
    function("current_database", &[], Name, |_, c| Ok(Datum::Text(c.context.database.clone()))).stable(),
    function("current_catalog", &[], Name, |_, c| Ok(Datum::Text(c.context.database.clone()))).stable(),
    function("current_schema", &[], Name, |_, c| {
        Ok(c.context.schemas.first().map_or(Datum::Null, Datum::text))
    })
    .called_on_null()
    .stable(),
    function("current_schemas", &[Bool], Array(&Name), current_schemas).stable(),
    function("current_user", &[], Name, |_, c| Ok(Datum::Text(c.context.user.clone()))).stable(),
    function("current_role", &[], Name, |_, c| Ok(Datum::Text(c.context.user.clone()))).stable(),
    function("user", &[], Name, |_, c| Ok(Datum::Text(c.context.user.clone()))).stable(),
    function("session_user", &[], Name, |_, c| Ok(Datum::Text(c.context.session_user.clone()))).stable(),
    function("version", &[], Text, |_, _| {
        let version = env!("CARGO_PKG_VERSION");
        Ok(Datum::text(format!(
            "PostgreSQL {POSTGRES_VERSION} (Amphora {version}, {})",
            std::env::consts::ARCH
        )))
    })
    .stable(),
    function("pg_encoding_to_char", &[Int4], Name, |a, _| {
        Ok(Datum::text(if int(&a[0])? == 6 { "UTF8" } else { "" }))
    }),
    function("pg_char_to_encoding", &[Name], Int4, |a, _| {
        let name = str_of(&a[0])?.replace('-', "");
        Ok(Datum::Int4(if name.eq_ignore_ascii_case("utf8") { 6 } else { -1 }))
    }),
    function("pg_client_encoding", &[], Name, |_, _| Ok(Datum::text("UTF8"))).stable(),
    function("getdatabaseencoding", &[], Name, |_, _| Ok(Datum::text("UTF8"))).stable(),
    function("pg_size_pretty", &[Int8], Text, |a, _| Ok(Datum::text(size_pretty(int(&a[0])?.into())))),
    function("pg_size_pretty", &[Numeric], Text, numeric_size_pretty),
    function("gen_random_uuid", &[], Uuid, random_uuid).volatile(),
    function("uuidv4", &[], Uuid, random_uuid).volatile(),
    function("uuidv7", &[], Uuid, |_, _| Ok(Datum::uuid(*uuid::Uuid::now_v7().as_bytes()))).volatile(),
    function("pg_is_in_recovery", &[], Bool, |_, _| Ok(Datum::Bool(false))).stable(),
    function("pg_is_other_temp_schema", &[Oid], Bool, |_, _| Ok(Datum::Bool(false))).stable(),
    function("pg_my_temp_schema", &[], Oid, |_, _| Ok(Datum::Oid(0))).stable(),
    function("inet_server_addr", &[], Text, |_, c| c.context.session.call("inet_server_addr", &[])).stable(),
    function("inet_client_addr", &[], Text, |_, c| c.context.session.call("inet_client_addr", &[])).stable(),
    function("pg_column_size", &[Any], Int4, |a, _| Ok(Datum::Int4(a[0].memory() as i32))).stable(),
    function("to_regclass", &[Text], Regclass, to_reg).stable(),
    function("to_regtype", &[Text], Regtype, to_reg).stable(),
    function("to_regproc", &[Text], Regproc, to_reg).stable(),
    function("to_regprocedure", &[Text], Regprocedure, to_reg).stable(),
    function("to_regoper", &[Text], Regoper, to_reg).stable(),
    function("to_regoperator", &[Text], Regoperator, to_reg).stable(),
    function("to_regcollation", &[Text], Regcollation, to_reg).stable(),
    function("to_regnamespace", &[Text], Regnamespace, to_reg).stable(),
    function("to_regrole", &[Text], Regrole, to_reg).stable(),
    function("restore", &[Int8], Bool, |a, c| c.context.session.call("restore", a)).volatile(),
    // What `crdt_inspect(column)` is bound to, and what `SET column = crdt_reset(column)` leaves.
    function("crdt_state", &[Oid, Int4, Any], Jsonb, |_, _| {
        Err(SqlError::feature_not_supported("function crdt_inspect is not available here"))
    })
    .variadic()
    .volatile(),
    function("crdt_reset", &[Any], Jsonb, |_, c| {
        Ok(c.arg_types.first().map_or(Datum::Null, amphora_replication::leaderless::initial))
    })
    .called_on_null()
    .volatile(),
    hook!("pg_backend_pid", &[], Int4),
    hook!("node_id", &[], Int8),
    function("unique_id", &[], Int8, |a, c| c.context.session.call("unique_id", a)).volatile(),
    function("num_nulls", &[Any], Int4, |a, _| Ok(nulls(a, true))).variadic().called_on_null(),
    function("num_nonnulls", &[Any], Int4, |a, _| Ok(nulls(a, false))).variadic().called_on_null(),
    hook!("pg_postmaster_start_time", &[], Timestamptz),
    hook!("txid_current", &[], Int8),
    hook!("pg_current_xact_id", &[], Int8),
    hook!("pg_get_userbyid", &[Oid], Name),
    hook!("acldefault", &[Char, Oid], Array(&Text)),
    hook!("pg_table_is_visible", &[Oid], Bool),
    hook!("pg_type_is_visible", &[Oid], Bool),
    hook!("pg_function_is_visible", &[Oid], Bool),
    hook!("pg_operator_is_visible", &[Oid], Bool),
    hook!("pg_opclass_is_visible", &[Oid], Bool),
    hook!("pg_collation_is_visible", &[Oid], Bool),
    hook!("pg_get_expr", &[Text, Oid], Text),
    hook!("pg_get_expr", &[Text, Oid, Bool], Text),
    hook!("pg_get_indexdef", &[Oid], Text),
    hook!("pg_get_indexdef", &[Oid, Int4, Bool], Text),
    hook!("pg_get_constraintdef", &[Oid], Text),
    hook!("pg_get_constraintdef", &[Oid, Bool], Text),
    hook!("pg_get_viewdef", &[Oid], Text),
    hook!("pg_get_viewdef", &[Oid, Bool], Text),
    hook!("pg_get_triggerdef", &[Oid, Bool], Text),
    hook!("pg_get_ruledef", &[Oid, Bool], Text),
    hook!("pg_get_partkeydef", &[Oid], Text),
    hook!("pg_get_statisticsobjdef_columns", &[Oid], Text),
    hook!("pg_get_functiondef", &[Oid], Text),
    hook!("pg_get_function_result", &[Oid], Text),
    hook!("pg_get_function_arguments", &[Oid], Text),
    hook!("pg_get_function_identity_arguments", &[Oid], Text),
    hook!("pg_get_function_sqlbody", &[Oid], Text),
    hook!("pg_tablespace_size", &[Oid], Int8),
    hook!("pg_tablespace_size", &[Name], Int8),
    hook!("pg_statistics_obj_is_visible", &[Oid], Bool),
    hook!("pg_opfamily_is_visible", &[Oid], Bool),
    hook!("pg_conversion_is_visible", &[Oid], Bool),
    hook!("pg_ts_config_is_visible", &[Oid], Bool),
    hook!("pg_ts_dict_is_visible", &[Oid], Bool),
    hook!("pg_ts_parser_is_visible", &[Oid], Bool),
    hook!("pg_ts_template_is_visible", &[Oid], Bool),
    hook!("pg_get_serial_sequence", &[Text, Text], Text),
    hook!("pg_get_replica_identity_index", &[Regclass], Regclass),
    hook!("pg_relation_is_publishable", &[Regclass], Bool),
    hook!("obj_description", &[Oid], Text),
    hook!("obj_description", &[Oid, Name], Text),
    hook!("pg_describe_object", &[Oid, Oid, Int4], Text),
    hook!("col_description", &[Oid, Int4], Text),
    hook!("shobj_description", &[Oid, Name], Text),
    hook!("pg_relation_size", &[Regclass], Int8),
    hook!("pg_relation_size", &[Regclass, Text], Int8),
    hook!("pg_table_size", &[Regclass], Int8),
    hook!("pg_indexes_size", &[Regclass], Int8),
    hook!("pg_total_relation_size", &[Regclass], Int8),
    hook!("pg_database_size", &[Name], Int8),
    hook!("pg_database_size", &[Oid], Int8),
    hook!("pg_tablespace_location", &[Oid], Text),
    hook!("pg_index_column_has_property", &[Regclass, Int4, Text], Bool),
    function("nextval", &[Regclass], Int8, |a, c| c.context.session.call("nextval", a)).volatile(),
    function("currval", &[Regclass], Int8, |a, c| c.context.session.call("currval", a)).volatile(),
    function("lastval", &[], Int8, |a, c| c.context.session.call("lastval", a)).volatile(),
    function("setval", &[Regclass, Int8], Int8, |a, c| c.context.session.call("setval", a)).volatile(),
    function("setval", &[Regclass, Int8, Bool], Int8, |a, c| c.context.session.call("setval", a)).volatile(),
    function("pg_sequence_last_value", &[Regclass], Int8, |a, c| {
        c.context.session.call("pg_sequence_last_value", a)
    })
    .volatile(),
    function("sequence_state", &[Oid, Int4], Int8, |a, c| c.context.session.call("sequence_state", a))
        .volatile(),
    function("pg_sleep_for", &[Interval], Void, |a, c| {
        let seconds = match &a[0] {
            Datum::Interval(i) => i.comparable() as f64 / 1e6,
            _ => return Err(wrong_kind()),
        };
        c.context.session.call("pg_sleep", &[Datum::Float8(seconds)])
    })
    .volatile(),
    function("pg_sleep_until", &[Timestamptz], Void, |a, c| {
        let micros = match &a[0] {
            Datum::Timestamptz(t) => t.saturating_sub(crate::types::current_timestamp()),
            _ => return Err(wrong_kind()),
        };
        c.context.session.call("pg_sleep", &[Datum::Float8(micros as f64 / 1e6)])
    })
    .volatile(),
    function("pg_trigger_depth", &[], Int4, |_, _| Ok(Datum::Int4(0))).stable(),
    function("pg_sleep", &[Float8], Void, |a, c| c.context.session.call("pg_sleep", a)).volatile(),
    function("pg_cancel_backend", &[Int4], Bool, |a, c| c.context.session.call("pg_cancel_backend", a))
        .volatile(),
    function("pg_terminate_backend", &[Int4], Bool, |a, c| c.context.session.call("pg_terminate_backend", a))
        .volatile(),
    act!("pg_advisory_lock", &[Int8], Void),
    act!("pg_advisory_lock", &[Int4, Int4], Void),
    act!("pg_advisory_lock_shared", &[Int8], Void),
    act!("pg_advisory_lock_shared", &[Int4, Int4], Void),
    act!("pg_advisory_xact_lock", &[Int8], Void),
    act!("pg_advisory_xact_lock", &[Int4, Int4], Void),
    act!("pg_advisory_xact_lock_shared", &[Int8], Void),
    act!("pg_advisory_xact_lock_shared", &[Int4, Int4], Void),
    act!("pg_try_advisory_lock", &[Int8], Bool),
    act!("pg_try_advisory_lock", &[Int4, Int4], Bool),
    act!("pg_try_advisory_lock_shared", &[Int8], Bool),
    act!("pg_try_advisory_lock_shared", &[Int4, Int4], Bool),
    act!("pg_try_advisory_xact_lock", &[Int8], Bool),
    act!("pg_try_advisory_xact_lock", &[Int4, Int4], Bool),
    act!("pg_try_advisory_xact_lock_shared", &[Int8], Bool),
    act!("pg_try_advisory_xact_lock_shared", &[Int4, Int4], Bool),
    act!("pg_advisory_unlock", &[Int8], Bool),
    act!("pg_advisory_unlock", &[Int4, Int4], Bool),
    act!("pg_advisory_unlock_shared", &[Int8], Bool),
    act!("pg_advisory_unlock_shared", &[Int4, Int4], Bool),
    act!("pg_advisory_unlock_all", &[], Void),
    act!("pg_terminate_backend", &[Int4, Int8], Bool),
    hook!("pg_blocking_pids", &[Int4], Array(&Int4)),
];

/// Tests of privileges.
pub(super) static PRIVILEGES: &[ScalarFunction] = privilege![
    "has_table_privilege": &[Text, Text],
    "has_table_privilege": &[Oid, Text],
    "has_table_privilege": &[Name, Text, Text],
    "has_table_privilege": &[Name, Oid, Text],
    "has_column_privilege": &[Oid, Text, Text],
    "has_column_privilege": &[Text, Text, Text],
    "has_any_column_privilege": &[Oid, Text],
    "has_schema_privilege": &[Text, Text],
    "has_schema_privilege": &[Oid, Text],
    "has_schema_privilege": &[Name, Oid, Text],
    "has_schema_privilege": &[Name, Text, Text],
    "has_database_privilege": &[Text, Text],
    "has_database_privilege": &[Oid, Text],
    "has_database_privilege": &[Name, Text, Text],
    "has_sequence_privilege": &[Text, Text],
    "has_sequence_privilege": &[Oid, Text],
    "has_function_privilege": &[Oid, Text],
    "has_type_privilege": &[Oid, Text],
    "has_tablespace_privilege": &[Oid, Text],
    "pg_has_role": &[Oid, Text],
    "pg_has_role": &[Name, Text],
    "pg_has_role": &[Name, Oid, Text],
    "row_security_active": &[Oid],
];

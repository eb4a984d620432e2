//! The settings there are, and what values they take.

use std::time::Duration;

use amphora_replication::Token;
use amphora_storage::schema::Quorum;

use crate::binder::QUORUM_HINT;
use crate::error::{Result, SqlError};
use crate::session::SERVER_VERSION;
use crate::types::TimeZone;

/// A known setting.
pub(super) struct Definition {
    /// As it is looked up: lower case
    pub(super) name: &'static str,
    /// As it is shown
    pub(super) shown: &'static str,
    pub(super) default: &'static str,
    pub(super) kind: Kind,
    /// Clients are told when it changes
    pub(super) report: bool,
    pub(super) description: &'static str,
}

/// What values a setting takes.
pub(super) enum Kind {
    /// Cannot be changed
    Fixed,
    Text,
    Bool,
    Int(i64, i64),
    /// A duration in milliseconds
    Milliseconds,
    /// An amount in kilobytes
    Kilobytes,
    Enum(&'static [&'static str]),
    /// Checks the value and gives it as SHOW prints it
    Checked(fn(&str) -> Result<String>),
}

const fn setting(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    description: &'static str,
) -> Definition {
    Definition { name, shown: name, default, kind, report: false, description }
}

impl Definition {
    const fn reported(mut self, shown: &'static str) -> Definition {
        self.shown = shown;
        self.report = true;
        self
    }
}

use Kind::{Bool, Checked, Enum, Fixed, Int, Kilobytes, Milliseconds, Text};

/// All known settings, by name.
pub(super) static DEFINITIONS: &[Definition] = &[
    setting(
        "amphora.max_staleness",
        "0",
        Checked(max_staleness),
        "How old rows of strong tables may be that are read without asking the leader: a time, or any.",
    ),
    setting("amphora.query_memory", "256MB", Kilobytes, "Memory for the rows of one statement."),
    setting(
        "amphora.quorum_timeout",
        "5s",
        Checked(quorum_timeout),
        "How long a statement over leaderless tables waits for its quorum.",
    ),
    setting(
        "amphora.read_quorum",
        "default",
        Checked(read_quorum),
        "Nodes that statements over leaderless tables ask before they read: a number, quorum, all, local_quorum, \
         each_quorum, or default for what each table says.",
    ),
    setting(
        "amphora.token",
        "",
        Checked(token),
        "What reads must see at least: what SHOW amphora.token gave, here or on another node.",
    ),
    setting(
        "amphora.transaction_memory",
        "1GB",
        Kilobytes,
        "Memory for the writes of one transaction until it commits.",
    ),
    setting(
        "amphora.write_quorum",
        "default",
        Checked(write_quorum),
        "Nodes that must have a commit to leaderless tables on disk before it is acknowledged: a number, quorum, all, \
         local_quorum, each_quorum, or default for what each table says.",
    ),
    setting("application_name", "", Text, "Sets the application name to be reported in statistics and logs.")
        .reported("application_name"),
    setting("bytea_output", "hex", Enum(&["hex"]), "Sets the output format for bytea."),
    setting("check_function_bodies", "on", Bool, "Check routine bodies during CREATE FUNCTION."),
    setting("client_encoding", "UTF8", Checked(encoding), "Sets the client's character set encoding.")
        .reported("client_encoding"),
    setting(
        "client_min_messages",
        "notice",
        Enum(&["debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error"]),
        "Sets the message levels that are sent to the client.",
    ),
    setting(
        "datestyle",
        "ISO, MDY",
        Checked(date_style),
        "Sets the display format for date and time values.",
    )
    .reported("DateStyle"),
    setting("default_statistics_target", "100", Int(1, 1000), "Sets the default statistics target."),
    setting("default_table_access_method", "heap", Text, "Sets the default table access method."),
    setting("default_tablespace", "", Text, "Sets the default tablespace to create tables in."),
    setting(
        "default_text_search_config",
        "pg_catalog.english",
        Text,
        "Sets default text search configuration.",
    ),
    setting(
        "default_transaction_deferrable",
        "off",
        Bool,
        "Sets the default deferrable status of new transactions.",
    ),
    setting(
        "default_transaction_isolation",
        "read committed",
        Checked(isolation),
        "Sets the transaction isolation level of each new transaction.",
    ),
    setting(
        "default_transaction_read_only",
        "off",
        Bool,
        "Sets the default read-only status of new transactions.",
    )
    .reported("default_transaction_read_only"),
    setting("enable_hashagg", "on", Bool, "Enables the planner's use of hashed aggregation plans."),
    setting("enable_hashjoin", "on", Bool, "Enables the planner's use of hash join plans."),
    setting("enable_indexonlyscan", "on", Bool, "Enables the planner's use of index-only-scan plans."),
    setting("enable_indexscan", "on", Bool, "Enables the planner's use of index-scan plans."),
    setting("enable_mergejoin", "on", Bool, "Enables the planner's use of merge join plans."),
    setting("enable_nestloop", "on", Bool, "Enables the planner's use of nested-loop join plans."),
    setting("enable_seqscan", "on", Bool, "Enables the planner's use of sequential-scan plans."),
    setting("enable_sort", "on", Bool, "Enables the planner's use of explicit sort steps."),
    setting("escape_string_warning", "on", Bool, "Warn about backslash escapes in ordinary string literals."),
    setting(
        "extra_float_digits",
        "1",
        Int(-15, 3),
        "Sets the number of digits displayed for floating-point values.",
    ),
    setting(
        "idle_in_transaction_session_timeout",
        "0",
        Milliseconds,
        "Sets the maximum allowed idle time between queries, when in a transaction.",
    ),
    setting("idle_session_timeout", "0", Milliseconds, "Sets the maximum allowed idle time between queries."),
    setting("in_hot_standby", "off", Fixed, "Shows whether hot standby is currently active.")
        .reported("in_hot_standby"),
    setting("integer_datetimes", "on", Fixed, "Shows whether datetimes are integer based.")
        .reported("integer_datetimes"),
    setting(
        "intervalstyle",
        "postgres",
        Enum(&["postgres", "postgres_verbose", "sql_standard", "iso_8601"]),
        "Sets the display format for interval values.",
    )
    .reported("IntervalStyle"),
    setting("is_superuser", "on", Fixed, "Shows whether the current user is a superuser.")
        .reported("is_superuser"),
    setting("jit", "off", Bool, "Allow JIT compilation."),
    setting("lc_collate", "C", Fixed, "Shows the collation order locale."),
    setting("lc_ctype", "C.UTF-8", Fixed, "Shows the character classification and case conversion locale."),
    setting("lc_messages", "C", Text, "Sets the language in which messages are displayed."),
    setting("lc_monetary", "C", Text, "Sets the locale for formatting monetary amounts."),
    setting("lc_numeric", "C", Text, "Sets the locale for formatting numbers."),
    setting("lc_time", "C", Text, "Sets the locale for formatting date and time values."),
    setting("lock_timeout", "0", Milliseconds, "Sets the maximum allowed duration of any wait for a lock."),
    setting(
        "maintenance_work_mem",
        "64MB",
        Kilobytes,
        "Sets the maximum memory to be used for maintenance operations.",
    ),
    setting("max_connections", "1000", Fixed, "Sets the maximum number of concurrent connections."),
    setting("max_identifier_length", "63", Fixed, "Shows the maximum identifier length."),
    setting("max_index_keys", "32", Fixed, "Shows the maximum number of index keys."),
    setting(
        "max_parallel_workers_per_gather",
        "0",
        Int(0, 1024),
        "Sets the maximum number of parallel processes per executor node.",
    ),
    setting(
        "password_encryption",
        "scram-sha-256",
        Enum(&["scram-sha-256"]),
        "Chooses the algorithm for encrypting passwords.",
    ),
    setting(
        "random_page_cost",
        "4",
        Text,
        "Sets the planner's estimate of the cost of a nonsequentially fetched disk page.",
    ),
    setting("role", "none", Enum(&["none"]), "Sets the current role."),
    setting("row_security", "on", Bool, "Enable row security."),
    setting(
        "search_path",
        "\"$user\", public",
        Checked(search_path),
        "Sets the schema search order for names that are not schema-qualified.",
    ),
    setting("server_encoding", "UTF8", Fixed, "Shows the server (database) character set encoding.")
        .reported("server_encoding"),
    setting("server_version", SERVER_VERSION, Fixed, "Shows the server version.").reported("server_version"),
    setting("server_version_num", "150000", Fixed, "Shows the server version as an integer."),
    setting("session_authorization", "", Fixed, "Sets the session user name.")
        .reported("session_authorization"),
    setting(
        "session_replication_role",
        "origin",
        Enum(&["origin"]),
        "Sets the session's behavior for triggers and rewrite rules.",
    ),
    setting(
        "standard_conforming_strings",
        "on",
        Enum(&["on"]),
        "Causes '...' strings to treat backslashes literally.",
    )
    .reported("standard_conforming_strings"),
    setting("statement_timeout", "0", Milliseconds, "Sets the maximum allowed duration of any statement."),
    setting(
        "synchronous_commit",
        "on",
        Checked(synchronous_commit),
        "Sets the current transaction's synchronization level.",
    ),
    setting("synchronize_seqscans", "on", Bool, "Enable synchronized sequential scans."),
    setting(
        "temp_buffers",
        "8MB",
        Kilobytes,
        "Sets the maximum number of temporary buffers used by each session.",
    ),
    setting(
        "temp_file_limit",
        "-1",
        Checked(temp_file_limit),
        "Limits the total size of all temporary files used by each process.",
    ),
    setting(
        "timezone",
        "UTC",
        Checked(time_zone),
        "Sets the time zone for displaying and interpreting time stamps.",
    )
    .reported("TimeZone"),
    setting("transaction_deferrable", "off", Bool, "Whether to defer a read-only serializable transaction."),
    setting(
        "transaction_isolation",
        "read committed",
        Checked(isolation),
        "Sets the current transaction's isolation level.",
    ),
    setting("transaction_read_only", "off", Bool, "Sets the current transaction's read-only status."),
    setting("wal_level", "replica", Fixed, "Sets the level of information written to the WAL."),
    setting("work_mem", "32MB", Kilobytes, "Sets the maximum memory to be used for query workspaces."),
    setting(
        "xmlbinary",
        "base64",
        Enum(&["base64", "hex"]),
        "Sets how binary values are to be encoded in XML.",
    ),
    setting(
        "xmloption",
        "content",
        Enum(&["content", "document"]),
        "Sets whether XML data is to be considered as documents or content fragments.",
    ),
];

pub(super) fn definition(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|d| d.name == name)
}

/// `enable_seqscan` and its kin steer PostgreSQL's planner; ours has no more than the listed ones to steer, and
/// tools set them.
pub(super) fn is_planner_switch(name: &str) -> bool {
    name.starts_with("enable_")
}

/// 42704
pub(super) fn unrecognized(name: &str) -> SqlError {
    SqlError::undefined_object(format!("unrecognized configuration parameter \"{name}\""))
}

fn invalid(name: &str, value: &str) -> SqlError {
    SqlError::invalid_parameter_value(format!("invalid value for parameter \"{name}\": \"{value}\""))
}

fn encoding(value: &str) -> Result<String> {
    // As PostgreSQL, only letters and digits count: asyncpg says 'utf-8', with the quotes.
    let name: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
    match name.to_ascii_uppercase().as_str() {
        "UTF8" | "UNICODE" => Ok("UTF8".into()),
        "SQLASCII" => Ok("SQL_ASCII".into()),
        _ => Err(invalid("client_encoding", value).with_hint("Use UTF8.")),
    }
}

fn date_style(value: &str) -> Result<String> {
    let mut order = "MDY";
    for word in value.split([',', ' ']).filter(|w| !w.is_empty()) {
        match word.to_ascii_lowercase().as_str() {
            "iso" | "default" => {}
            "mdy" | "us" | "noneuro" | "noneuropean" => order = "MDY",
            _ => {
                return Err(invalid("DateStyle", value).with_hint("Dates are read and written as ISO, MDY."));
            }
        }
    }
    Ok(format!("ISO, {order}"))
}

fn isolation(value: &str) -> Result<String> {
    match value.to_ascii_lowercase().as_str() {
        "read committed" | "read uncommitted" => Ok("read committed".into()),
        "repeatable read" => Ok("repeatable read".into()),
        "serializable" => Ok("serializable".into()),
        _ => Err(invalid("default_transaction_isolation", value)
            .with_hint("Available values: serializable, repeatable read, read committed, read uncommitted.")),
    }
}

fn synchronous_commit(value: &str) -> Result<String> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Ok("on".into()),
        "off" | "false" | "no" | "0" => Ok("off".into()),
        word @ ("local" | "remote_write" | "remote_apply") => Ok(word.into()),
        _ => Err(invalid("synchronous_commit", value)
            .with_hint("Available values: local, remote_write, remote_apply, on, off.")),
    }
}

/// `amphora.max_staleness` as a time; [`Duration::MAX`] is any. 22023
pub(crate) fn staleness(value: &str) -> Result<Duration> {
    const NAME: &str = "amphora.max_staleness";
    if value.trim().eq_ignore_ascii_case("any") {
        return Ok(Duration::MAX);
    }
    let ms = match parse_amount(NAME, value, TIME_UNITS) {
        Ok(ms) => ms,
        // An interval that is no amount of one unit: `1 min 30 s`.
        Err(error) => match crate::types::parse_interval(value) {
            Ok(i) if i.months == 0 && i.days >= 0 && i.micros >= 0 => {
                i64::from(i.days).saturating_mul(86_400_000).saturating_add(i.micros / 1000)
            }
            _ => {
                let hint = "Give a time, such as '5s', or 'any'.";
                return Err(if error.hint.is_some() { error } else { error.with_hint(hint) });
            }
        },
    };
    Ok(Duration::from_millis(ms.unsigned_abs()))
}

fn max_staleness(value: &str) -> Result<String> {
    match staleness(value)? {
        Duration::MAX => Ok("any".into()),
        bound => Ok(show_amount(i64::try_from(bound.as_millis()).unwrap_or(i64::MAX), TIME_UNITS)),
    }
}

/// The value of `amphora.read_quorum` and `amphora.write_quorum`; `None` is the table's own. 22023
pub(super) fn quorum(name: &str, value: &str) -> Result<Option<Quorum>> {
    if value.trim().eq_ignore_ascii_case("default") {
        return Ok(None);
    }
    let quorum = value.parse().map(Some);
    quorum.map_err(|_| {
        invalid(name, value).with_hint(format!("{QUORUM_HINT} default is what each table says."))
    })
}

/// Nobody can be asked in no time, and a commit does not wait for ever.
fn quorum_timeout(value: &str) -> Result<String> {
    const NAME: &str = "amphora.quorum_timeout";
    match parse_amount(NAME, value, TIME_UNITS)? {
        0 => Err(invalid(NAME, value).with_hint("Give a time, such as '5s'.")),
        ms => Ok(show_amount(ms, TIME_UNITS)),
    }
}

fn show_quorum(quorum: Option<Quorum>) -> String {
    quorum.map_or_else(|| "default".to_owned(), |quorum| quorum.to_string())
}

fn read_quorum(value: &str) -> Result<String> {
    quorum("amphora.read_quorum", value).map(show_quorum)
}

fn write_quorum(value: &str) -> Result<String> {
    quorum("amphora.write_quorum", value).map(show_quorum)
}

fn token(value: &str) -> Result<String> {
    let value = value.trim();
    match value.is_empty() || value.parse::<Token>().is_ok() {
        true => Ok(value.to_owned()),
        false => Err(invalid("amphora.token", value).with_hint("Give what SHOW amphora.token showed.")),
    }
}

fn time_zone(value: &str) -> Result<String> {
    let value = value.trim();
    TimeZone::setting(value)?.map(|zone| zone.name()).ok_or_else(|| invalid("TimeZone", value))
}

fn temp_file_limit(value: &str) -> Result<String> {
    match value.trim() {
        "-1" => Ok("-1".into()),
        value => Ok(show_amount(parse_amount("temp_file_limit", value, MEMORY_UNITS)?, MEMORY_UNITS)),
    }
}

fn search_path(value: &str) -> Result<String> {
    Ok(value.trim().to_owned())
}

pub(super) fn parse_bool(name: &str, value: &str) -> Result<String> {
    let value = value.trim().to_ascii_lowercase();
    let is = |word: &str| !value.is_empty() && word.starts_with(&value);
    if is("true") || is("yes") || value == "on" || value == "1" {
        return Ok("on".into());
    }
    if is("false") || is("no") || value == "of" || value == "off" || value == "0" {
        return Ok("off".into());
    }
    Err(SqlError::invalid_parameter_value(format!("parameter \"{name}\" requires a Boolean value")))
}

/// A number with one of these units (name, how many base units it is; the base unit first).
pub(super) fn parse_amount(name: &str, value: &str, units: &[(&str, f64)]) -> Result<i64> {
    let value = value.trim();
    let end =
        value.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(value.len());
    let (digits, unit) = value.split_at(end);
    let number: f64 = digits.parse().map_err(|_| invalid(name, value))?;
    let unit = unit.trim();
    let factor = if unit.is_empty() {
        1.0
    } else {
        let known = units.iter().find(|u| u.0 == unit);
        known.map(|u| u.1).ok_or_else(|| {
            let names: Vec<String> = units.iter().map(|u| format!("\"{}\"", u.0)).collect();
            invalid(name, value)
                .with_hint(format!("Valid units for this parameter are {}.", names.join(", ")))
        })?
    };
    let amount = (number * factor).round();
    if !(0.0..=f64::from(i32::MAX)).contains(&amount) {
        let base = units.first().map_or("", |u| u.0);
        return Err(SqlError::invalid_parameter_value(format!(
            "{amount} {base} is outside the valid range for parameter \"{name}\" (0 .. {})",
            i32::MAX
        )));
    }
    Ok(amount as i64)
}

pub(super) const TIME_UNITS: &[(&str, f64)] =
    &[("ms", 1.0), ("us", 0.001), ("s", 1e3), ("min", 6e4), ("h", 3.6e6), ("d", 8.64e7)];
pub(super) const MEMORY_UNITS: &[(&str, f64)] =
    &[("kB", 1.0), ("B", 1.0 / 1024.0), ("MB", 1024.0), ("GB", 1_048_576.0), ("TB", 1_073_741_824.0)];

/// An amount in the largest unit that divides it.
pub(super) fn show_amount(amount: i64, units: &[(&str, f64)]) -> String {
    if amount == 0 {
        return "0".into();
    }
    let mut best = (amount, units.first().map_or("", |u| u.0));
    for (unit, factor) in units.iter().filter(|u| u.1 >= 1.0) {
        let factor = *factor as i64;
        if amount % factor == 0 {
            best = (amount / factor, unit);
        }
    }
    format!("{}{}", best.0, best.1)
}

/// A value as it is kept and shown. 22023, 55P02
pub(super) fn normalize(definition: &Definition, value: &str) -> Result<String> {
    let shown = definition.shown;
    match &definition.kind {
        Fixed => Err(SqlError::new("55P02", format!("parameter \"{shown}\" cannot be changed"))),
        Text => Ok(value.to_owned()),
        Bool => parse_bool(shown, value),
        Int(least, most) => {
            let number: i64 = value.trim().parse().map_err(|_| invalid(shown, value))?;
            if !(*least..=*most).contains(&number) {
                return Err(SqlError::invalid_parameter_value(format!(
                    "{number} is outside the valid range for parameter \"{shown}\" ({least} .. {most})"
                )));
            }
            Ok(number.to_string())
        }
        Milliseconds => Ok(show_amount(parse_amount(shown, value, TIME_UNITS)?, TIME_UNITS)),
        Kilobytes => Ok(show_amount(parse_amount(shown, value, MEMORY_UNITS)?, MEMORY_UNITS)),
        Enum(values) => {
            let lower = value.trim().to_ascii_lowercase();
            let lower = if values.contains(&"on") && lower == "true" { "on".into() } else { lower };
            match values.iter().find(|v| **v == lower) {
                Some(value) => Ok((*value).to_owned()),
                None => Err(invalid(definition.name, value)
                    .with_hint(format!("Available values: {}.", values.join(", ")))),
            }
        }
        Checked(check) => check(value),
    }
}

//! What SET changes and SHOW shows.
//!
//! A setting's value is, in this order: what SET LOCAL gave it in this transaction, what SET gave it in
//! this session, what the client asked for when it connected, its default. A rollback takes back what the
//! transaction had set.

mod definition;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use amphora_replication::{IsolationLevel, Quorums, SynchronousCommit, Token};

use crate::error::{Result, SqlError};
use crate::frontend::PlannerOptions;
use crate::types::{IntervalStyle, TimeZone};
pub(crate) use definition::staleness as max_staleness;
use definition::{
    DEFINITIONS, MEMORY_UNITS, TIME_UNITS, definition, is_planner_switch, normalize, parse_amount,
    parse_bool, quorum, staleness, unrecognized,
};

/// The version clients are told: PostgreSQL's, so that they know what to expect, and ours.
pub const SERVER_VERSION: &str = concat!("15.0 (Amphora ", env!("CARGO_PKG_VERSION"), ")");

/// Values of settings by name.
type Values = Arc<BTreeMap<String, String>>;

/// The settings of a session.
#[derive(Debug)]
pub struct Settings {
    user: String,
    startup: Values,
    session: Values,
    local: Values,
    generation: u64,
    /// What the client was told last, and at which generation
    told: Vec<(&'static str, String)>,
    told_generation: u64,
    effective: Effective,
}

/// What was set at some point, to return to.
#[derive(Clone, Debug)]
pub(super) struct SettingsMark {
    session: Values,
    local: Values,
}

/// The settings that the engine itself looks at.
#[derive(Clone, Debug)]
pub(super) struct Effective {
    pub(super) timezone: TimeZone,
    pub(super) extra_float_digits: i32,
    pub(super) interval_style: IntervalStyle,
    pub(super) statement_timeout: Duration,
    pub(super) lock_timeout: Duration,
    pub(super) idle_in_transaction_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) query_memory: usize,
    pub(super) transaction_memory: usize,
    pub(super) search_path: Arc<[String]>,
    pub(super) isolation: IsolationLevel,
    pub(super) read_only: bool,
    pub(super) planner: PlannerOptions,
    pub(super) statistics_target: usize,
    pub(super) work_memory: usize,
    /// Bytes of a statement's temporary files
    pub(super) temp_limit: u64,
    /// How old rows may be; zero is not at all, [`Duration::MAX`] any age
    pub(super) max_staleness: Duration,
    pub(super) synchronous_commit: SynchronousCommit,
    pub(super) quorums: Quorums,
    /// What reads must see
    pub(super) token: Option<Arc<Token>>,
}

impl Settings {
    /// The settings of a new session. Names and values come from the client's startup packet.
    pub fn new(user: &str, superuser: bool, startup: &[(String, String)]) -> Result<Settings> {
        let mut values = BTreeMap::from([
            ("session_authorization".to_owned(), user.to_owned()),
            ("is_superuser".to_owned(), if superuser { "on" } else { "off" }.to_owned()),
        ]);
        for (name, value) in startup {
            let (name, value) = checked(name, value)?;
            values.insert(name, value);
        }
        let mut settings = Settings {
            user: user.to_owned(),
            startup: Arc::new(values),
            session: Values::default(),
            local: Values::default(),
            generation: 0,
            told: Vec::new(),
            told_generation: 0,
            effective: Effective {
                timezone: TimeZone::UTC,
                extra_float_digits: 1,
                interval_style: IntervalStyle::Postgres,
                statement_timeout: Duration::ZERO,
                lock_timeout: Duration::ZERO,
                idle_in_transaction_timeout: Duration::ZERO,
                idle_timeout: Duration::ZERO,
                query_memory: crate::executor::DEFAULT_MEMORY,
                transaction_memory: 0,
                search_path: Arc::from([]),
                isolation: IsolationLevel::ReadCommitted,
                read_only: false,
                planner: PlannerOptions::default(),
                statistics_target: 100,
                work_memory: crate::executor::DEFAULT_MEMORY,
                temp_limit: u64::MAX,
                max_staleness: Duration::ZERO,
                synchronous_commit: SynchronousCommit::On,
                quorums: Quorums::default(),
                token: None,
            },
        };
        settings.refresh();
        settings.told = settings.reported();
        Ok(settings)
    }

    /// Changes whenever a value does.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn effective(&self) -> &Effective {
        &self.effective
    }

    /// A value as SHOW prints it; `None` for a name that is not known.
    pub fn get(&self, name: &str) -> Option<String> {
        let set = self.local.get(name).or_else(|| self.session.get(name)).or_else(|| self.startup.get(name));
        match set {
            Some(value) => Some(value.clone()),
            None => match definition(name) {
                Some(definition) => Some(definition.default.to_owned()),
                None if is_planner_switch(name) => Some("on".into()),
                None => None,
            },
        }
    }

    /// Sets a value (`None` is the default), for the transaction or for the session. Gives the new value.
    pub fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<String> {
        let name = name.to_ascii_lowercase();
        match value {
            Some(value) => {
                let (name, value) = checked(&name, value)?;
                if local {
                    Arc::make_mut(&mut self.local).insert(name, value);
                } else {
                    Arc::make_mut(&mut self.local).remove(&name);
                    Arc::make_mut(&mut self.session).insert(name, value);
                }
            }
            None => {
                if definition(&name).is_none() && !name.contains('.') && !is_planner_switch(&name) {
                    return Err(unrecognized(&name));
                }
                Arc::make_mut(&mut self.local).remove(&name);
                Arc::make_mut(&mut self.session).remove(&name);
            }
        }
        self.changed();
        Ok(self.get(&name).unwrap_or_default())
    }

    /// A value as it would be kept, without setting it. 22023
    pub(super) fn check(&self, name: &str, value: &str) -> Result<String> {
        checked(name, value).map(|(_, value)| value)
    }

    /// RESET ALL.
    pub fn reset_all(&mut self) {
        self.local = Values::default();
        self.session = Values::default();
        self.changed();
    }

    /// Where a transaction or savepoint began.
    pub(super) fn mark(&self) -> SettingsMark {
        SettingsMark { session: self.session.clone(), local: self.local.clone() }
    }

    /// Takes back everything set since the mark.
    pub(super) fn restore(&mut self, mark: &SettingsMark) {
        if Arc::ptr_eq(&self.session, &mark.session) && Arc::ptr_eq(&self.local, &mark.local) {
            return;
        }
        self.session = mark.session.clone();
        self.local = mark.local.clone();
        self.changed();
    }

    /// The transaction has ended: SET LOCAL with it.
    pub(super) fn end_transaction(&mut self) {
        if !self.local.is_empty() {
            self.local = Values::default();
            self.changed();
        }
    }

    /// Name, value and description of every setting.
    pub fn all(&self) -> Vec<(String, String, String)> {
        DEFINITIONS
            .iter()
            .map(|d| (d.shown.to_owned(), self.get(d.name).unwrap_or_default(), d.description.to_owned()))
            .collect()
    }

    /// What a client is told when it connects.
    pub fn reported(&self) -> Vec<(&'static str, String)> {
        let reported = DEFINITIONS.iter().filter(|d| d.report);
        reported.map(|d| (d.shown, self.get(d.name).unwrap_or_default())).collect()
    }

    /// Changes that the client should be told of now.
    pub(super) fn take_unreported(&mut self) -> Vec<(&'static str, String)> {
        if self.told_generation == self.generation {
            return Vec::new();
        }
        self.told_generation = self.generation;
        let now = self.reported();
        let changes = now.iter().zip(&self.told).filter(|(new, old)| new != old).map(|(new, _)| new.clone());
        let changes = changes.collect();
        self.told = now;
        changes
    }

    fn changed(&mut self) {
        self.generation += 1;
        self.refresh();
    }

    fn refresh(&mut self) {
        let get = |name: &str| self.get(name).unwrap_or_default();
        let duration = |name: &str| {
            let ms = parse_amount(name, &get(name), TIME_UNITS).unwrap_or(0);
            Duration::from_millis(ms.unsigned_abs())
        };
        let memory = parse_amount("amphora.query_memory", &get("amphora.query_memory"), MEMORY_UNITS);
        let writes =
            parse_amount("amphora.transaction_memory", &get("amphora.transaction_memory"), MEMORY_UNITS);
        let bytes = |amount: Result<i64>| {
            usize::try_from(amount.unwrap_or(0)).unwrap_or(0).saturating_mul(1024).max(1 << 20)
        };
        let work_memory = parse_amount("work_mem", &get("work_mem"), MEMORY_UNITS);
        let temp_limit = get("temp_file_limit");
        let temp_limit = match temp_limit.as_str() {
            "-1" => None,
            limit => parse_amount("temp_file_limit", limit, MEMORY_UNITS).ok(),
        };
        let work_memory = usize::try_from(work_memory.unwrap_or(0)).unwrap_or(0).saturating_mul(1024);
        let work_memory = work_memory.max(64 << 10);
        self.effective = Effective {
            timezone: TimeZone::parse(&get("timezone")).unwrap_or(TimeZone::UTC),
            extra_float_digits: get("extra_float_digits").parse().unwrap_or(1),
            interval_style: IntervalStyle::parse(&get("intervalstyle")).unwrap_or_default(),
            statement_timeout: duration("statement_timeout"),
            lock_timeout: duration("lock_timeout"),
            idle_in_transaction_timeout: duration("idle_in_transaction_session_timeout"),
            idle_timeout: duration("idle_session_timeout"),
            query_memory: bytes(memory),
            transaction_memory: bytes(writes),
            search_path: path_entries(&get("search_path"), &self.user).into(),
            isolation: isolation_level(&get("default_transaction_isolation")),
            read_only: get("default_transaction_read_only") == "on",
            work_memory,
            temp_limit: temp_limit
                .map_or(u64::MAX, |kilobytes| kilobytes.unsigned_abs().saturating_mul(1024)),
            statistics_target: get("default_statistics_target").parse().unwrap_or(100),
            max_staleness: staleness(&get("amphora.max_staleness")).unwrap_or_default(),
            synchronous_commit: match get("synchronous_commit").as_str() {
                "off" => SynchronousCommit::Off,
                "local" => SynchronousCommit::Local,
                "remote_apply" => SynchronousCommit::RemoteApply,
                _ => SynchronousCommit::On,
            },
            quorums: Quorums {
                read: quorum("amphora.read_quorum", &get("amphora.read_quorum")).unwrap_or_default(),
                write: quorum("amphora.write_quorum", &get("amphora.write_quorum")).unwrap_or_default(),
                patience: duration("amphora.quorum_timeout"),
            },
            token: get("amphora.token").parse().ok().map(Arc::new),
            planner: PlannerOptions {
                hashjoin: get("enable_hashjoin") == "on",
                mergejoin: get("enable_mergejoin") == "on",
                nestloop: get("enable_nestloop") == "on",
                indexscan: get("enable_indexscan") == "on",
                indexonlyscan: get("enable_indexonlyscan") == "on",
                seqscan: get("enable_seqscan") == "on",
                sort: get("enable_sort") == "on",
                hashagg: get("enable_hashagg") == "on",
                work_memory,
            },
        };
    }
}

/// The name a setting is kept under and its value, if both are good.
fn checked(name: &str, value: &str) -> Result<(String, String)> {
    let name = name.to_ascii_lowercase();
    let value = match definition(&name) {
        Some(definition) => normalize(definition, value)?,
        None if is_planner_switch(&name) => parse_bool(&name, value)?,
        None if name.starts_with("amphora.") => {
            return Err(SqlError::new("42602", format!("invalid configuration parameter name \"{name}\""))
                .with_detail("\"amphora\" is a reserved prefix."));
        }
        None if name.contains('.') => value.to_owned(),
        None => return Err(unrecognized(&name)),
    };
    Ok((name, value))
}

/// The level of this name.
pub(super) fn isolation_level(name: &str) -> IsolationLevel {
    match name {
        "repeatable read" => IsolationLevel::RepeatableRead,
        "serializable" => IsolationLevel::Serializable,
        _ => IsolationLevel::ReadCommitted,
    }
}

/// The level's name.
pub(super) fn isolation_name(level: IsolationLevel) -> &'static str {
    match level {
        IsolationLevel::ReadCommitted => "read committed",
        IsolationLevel::RepeatableRead => "repeatable read",
        IsolationLevel::Serializable => "serializable",
    }
}

/// The schemas of a search path, `"$user"` replaced.
fn path_entries(path: &str, user: &str) -> Vec<String> {
    let mut entries = Vec::new();
    let (mut entry, mut quoted, mut any) = (String::new(), false, false);
    for c in path.chars().chain([',']) {
        match c {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            ',' if !quoted => {
                let name = if any { entry.clone() } else { entry.trim().to_lowercase() };
                if !name.trim().is_empty() {
                    match name.trim() {
                        // The role `amphora` has no schema of its own: the one of its name is the system's.
                        "$user" if user == "amphora" => {}
                        "$user" => entries.push(user.to_owned()),
                        name => entries.push(name.to_owned()),
                    }
                }
                entry.clear();
                any = false;
            }
            c => entry.push(c),
        }
    }
    entries
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new("ann", true, &[("application_name".into(), "psql".into())]).unwrap()
    }

    #[test]
    fn values_are_shown_as_postgresql_shows_them() {
        let mut s = settings();
        assert_eq!(s.get("application_name").unwrap(), "psql");
        assert_eq!(s.set("statement_timeout", Some("30000"), false).unwrap(), "30s");
        assert_eq!(s.effective().statement_timeout, Duration::from_secs(30));
        assert_eq!(s.set("work_mem", Some("65536"), false).unwrap(), "64MB");
        assert_eq!(s.set("jit", Some("tr"), false).unwrap(), "on");
        assert_eq!(s.set("app.anything", Some("x"), false).unwrap(), "x");
    }

    #[test]
    fn bad_names_and_values_are_refused() {
        let mut s = settings();
        assert_eq!(s.set("amphora.nonsense", Some("1"), false).unwrap_err().sqlstate, "42602");
        assert_eq!(s.set("nonsense", Some("1"), false).unwrap_err().sqlstate, "42704");
        assert_eq!(s.set("server_version", Some("1"), false).unwrap_err().sqlstate, "55P02");
        assert_eq!(s.set("extra_float_digits", Some("9"), false).unwrap_err().sqlstate, "22023");
        assert_eq!(s.set("statement_timeout", Some("5 apples"), false).unwrap_err().sqlstate, "22023");
        assert_eq!(s.set("synchronous_commit", Some("maybe"), false).unwrap_err().sqlstate, "22023");
        for bad in ["-5s", "soon", "", "5 apples", "-1 min 3 s", "1 month"] {
            let error = s.set("amphora.max_staleness", Some(bad), false).unwrap_err();
            assert_eq!(error.sqlstate, "22023", "{bad}");
        }
        assert_eq!(s.set("amphora.token", Some("00"), false).unwrap_err().sqlstate, "22023");
    }

    #[test]
    fn staleness_is_a_time_or_any() {
        let mut s = settings();
        for (given, shown, bound) in [
            ("5s", "5s", Duration::from_secs(5)),
            ("5000", "5s", Duration::from_secs(5)),
            ("5 seconds", "5s", Duration::from_secs(5)),
            ("1 min 30 s", "90s", Duration::from_secs(90)),
            ("Any", "any", Duration::MAX),
            ("0", "0", Duration::ZERO),
        ] {
            assert_eq!(s.set("amphora.max_staleness", Some(given), false).unwrap(), shown);
            assert_eq!(s.effective().max_staleness, bound);
        }
    }

    #[test]
    fn synchronous_commit_takes_postgresql_s_words() {
        let mut s = settings();
        for (given, shown, when) in [
            ("OFF", "off", SynchronousCommit::Off),
            ("local", "local", SynchronousCommit::Local),
            ("remote_write", "remote_write", SynchronousCommit::On),
            ("remote_apply", "remote_apply", SynchronousCommit::RemoteApply),
            ("true", "on", SynchronousCommit::On),
        ] {
            assert_eq!(s.set("synchronous_commit", Some(given), false).unwrap(), shown);
            assert_eq!(s.effective().synchronous_commit, when);
        }
    }

    #[test]
    fn a_token_is_followed_until_it_is_reset() {
        let mut s = settings();
        let token = Token { strong: amphora_storage::Timestamp(7), ..Token::default() };
        s.set("amphora.token", Some(&token.to_string()), true).unwrap();
        assert_eq!(s.effective().token.as_deref(), Some(&token));
        s.end_transaction();
        assert_eq!(s.effective().token, None);
    }

    #[test]
    fn local_values_end_with_the_transaction_and_marks_take_all_back() {
        let mut s = settings();
        let mark = s.mark();
        s.set("timezone", Some("Europe/Berlin"), true).unwrap();
        assert_eq!(s.get("timezone").unwrap(), "Europe/Berlin");
        s.end_transaction();
        assert_eq!(s.get("timezone").unwrap(), "UTC");
        s.set("timezone", Some("Asia/Tokyo"), false).unwrap();
        s.restore(&mark);
        assert_eq!(s.get("timezone").unwrap(), "UTC");
    }

    #[test]
    fn the_search_path_is_read_as_identifiers() {
        let mut s = settings();
        assert_eq!(s.effective().search_path.as_ref(), ["ann", "public"]);
        s.set("search_path", Some("App, \"Odd, Name\""), false).unwrap();
        assert_eq!(s.effective().search_path.as_ref(), ["app", "Odd, Name"]);
    }
}

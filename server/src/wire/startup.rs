//! From the first byte to the first ReadyForQuery.

use amphora_sql::error::{Result, SqlError};

/// The databases of a new cluster: two names of one catalog.
const DATABASES: [&str; 2] = ["amphora", "postgres"];

/// Who wants in, and with which settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The role
    pub user: String,
    /// The database
    pub database: String,
    /// Run-time settings, in the order given
    pub settings: Vec<(String, String)>,
    /// Protocol options (`_pq_.…`) that are not known here
    pub unknown_options: Vec<String>,
}

impl Claim {
    /// Reads a startup packet's parameters.
    pub fn read(parameters: Vec<(String, String)>) -> Result<Claim> {
        let (mut user, mut database) = (String::new(), String::new());
        let (mut settings, mut unknown_options) = (Vec::new(), Vec::new());
        for (name, value) in parameters {
            match name.as_str() {
                "user" => user = value,
                "database" => database = value,
                "options" => settings.extend(command_line(&value)?),
                "replication" => {
                    if !matches!(value.as_str(), "false" | "off" | "no" | "0") {
                        return Err(SqlError::feature_not_supported(
                            "replication connections are not supported",
                        )
                        .with_hint("Amphora replicates by itself: see \"amphora start --join\"."));
                    }
                }
                option if option.starts_with("_pq_.") => unknown_options.push(name),
                _ => settings.push((name, value)),
            }
        }
        if user.is_empty() {
            return Err(SqlError::new("28000", "no PostgreSQL user name specified in startup packet"));
        }
        if database.is_empty() {
            database.clone_from(&user);
        }
        Ok(Claim { user, database, settings, unknown_options })
    }

    /// Whether there is such a database.
    pub fn check_database(&self) -> Result<()> {
        if !DATABASES.contains(&self.database.as_str()) {
            return Err(SqlError::new("3D000", format!("database \"{}\" does not exist", self.database))
                .with_hint("Connect to the database amphora."));
        }
        Ok(())
    }
}

/// Settings given as a command line: `-c name=value`, `-cname=value`, `--name=value`; a backslash keeps the
/// next character.
fn command_line(options: &str) -> Result<Vec<(String, String)>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let setting = if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("-c").or_else(|| word.strip_prefix("--")).map(str::to_owned)
        };
        let setting = setting.as_deref().and_then(|s| s.split_once('='));
        let (name, value) = setting.ok_or_else(|| {
            SqlError::syntax_error(format!("invalid command-line argument for server process: {word}"))
        })?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn claim(parameters: &[(&str, &str)]) -> Result<Claim> {
        Claim::read(parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn the_database_is_the_role_s_unless_named() {
        let c = claim(&[("user", "postgres"), ("application_name", "psql"), ("_pq_.x", "1")]).unwrap();
        assert_eq!((c.user.as_str(), c.database.as_str()), ("postgres", "postgres"));
        assert_eq!(c.settings, vec![("application_name".to_owned(), "psql".to_owned())]);
        assert_eq!(c.unknown_options, vec!["_pq_.x"]);
        assert!(c.check_database().is_ok());
    }

    #[test]
    fn what_does_not_exist_is_not_opened() {
        assert_eq!(claim(&[]).expect_err("nobody").sqlstate, "28000");
        let error = claim(&[("user", "amphora"), ("database", "x")])
            .unwrap()
            .check_database()
            .expect_err("no database");
        assert_eq!((error.sqlstate, error.message.as_str()), ("3D000", "database \"x\" does not exist"));
        assert_eq!(claim(&[("user", "a"), ("replication", "true")]).expect_err("refused").sqlstate, "0A000");
    }

    #[test]
    fn options_are_a_command_line() {
        let options = r"-c lock_timeout=5s --statement-timeout=1\ min -csearch_path=a";
        let c = claim(&[("user", "amphora"), ("options", options)]).unwrap();
        let expected = [("lock_timeout", "5s"), ("statement_timeout", "1 min"), ("search_path", "a")];
        assert_eq!(c.settings, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert!(claim(&[("user", "amphora"), ("options", "-c nonsense")]).is_err());
        assert!(claim(&[("user", "amphora"), ("options", "-c")]).is_err());
    }
}

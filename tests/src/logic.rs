//! sqllogictest files over the wire.
//!
//! A record is a statement or a query with what it must give, as the public sqllogictest corpus has them:
//! one line a row, columns parted by blanks, everything as text. An error is expected by its SQLSTATE,
//! `statement error db error 23505`. Two labels tell databases apart: `postgresql` is everyone, as Amphora means
//! to be PostgreSQL; `onlyif amphora` is what only Amphora has.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// Failed records that are shown of a file.
const SHOWN: usize = 20;

/// A database that a file runs on.
#[derive(Debug, Clone)]
pub struct Database {
    /// Where it listens
    pub config: Config,
    /// `amphora` or `postgres`, as `skipif` and `onlyif` name it
    pub name: &'static str,
}

/// An error; it shows as `db error` and its SQLSTATE, which is what files expect.
#[derive(Debug)]
pub struct Failure(tokio_postgres::Error);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.code() {
            Some(code) => write!(f, "db error {}", code.code()),
            None => write!(f, "{}", self.0),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Failure {
        Failure(error)
    }
}

/// A connection of the runner's.
pub struct Session {
    client: Client,
    name: &'static str,
}

impl Session {
    async fn open(database: Database) -> Result<Session, Failure> {
        let (client, connection) = database.config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(Session { client, name: database.name })
    }
}

#[async_trait::async_trait]
impl AsyncDB for Session {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let mut rows = Vec::new();
        let mut width = 0;
        let mut count = 0;
        for message in self.client.simple_query(sql).await? {
            match message {
                SimpleQueryMessage::Row(row) => {
                    width = row.len();
                    rows.push((0..row.len()).map(|i| cell(row.get(i))).collect());
                }
                SimpleQueryMessage::CommandComplete(n) => count = n,
                _ => {}
            }
        }
        if rows.is_empty() {
            return Ok(DBOutput::StatementComplete(count));
        }
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; width], rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        self.name
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn error_sql_state(error: &Failure) -> Option<String> {
        error.0.code().map(|code| code.code().to_owned())
    }
}

fn cell(value: Option<&str>) -> String {
    match value {
        None => "NULL".into(),
        Some("") => "(empty)".into(),
        Some(value) => value.into(),
    }
}

fn runner(
    database: &Database,
) -> Runner<Session, impl FnMut() -> futures::future::BoxFuture<'static, Result<Session, Failure>>> {
    let database = database.clone();
    let mut runner = Runner::new(move || {
        let open: futures::future::BoxFuture<'static, _> = Box::pin(Session::open(database.clone()));
        open
    });
    runner.add_label("postgresql");
    runner
}

/// What became of a file.
#[derive(Debug)]
pub struct Outcome {
    /// The file
    pub file: PathBuf,
    /// Its records
    pub records: usize,
    /// Those that failed, in words; of very many only the first
    pub failures: Vec<String>,
    /// How many failed
    pub failed: usize,
    /// How long all took
    pub elapsed: Duration,
    /// The slowest record, and where it stands
    pub slowest: (Duration, String),
}

/// Runs a file's records, one after the other; a failed one does not keep the next from being run.
pub async fn run_file(database: &Database, file: &Path) -> Outcome {
    let begin = Instant::now();
    let mut outcome = Outcome {
        file: file.to_owned(),
        records: 0,
        failures: Vec::new(),
        failed: 0,
        elapsed: Duration::ZERO,
        slowest: (Duration::ZERO, String::new()),
    };
    let mut runner = runner(database);
    let records = match sqllogictest::parse_file::<DefaultColumnType>(file) {
        Ok(records) => records,
        Err(error) => {
            outcome.failed = 1;
            outcome.failures.push(error.to_string());
            return outcome;
        }
    };
    for record in records {
        if matches!(record, sqllogictest::Record::Halt { .. }) {
            break;
        }
        let place = match &record {
            sqllogictest::Record::Statement { loc, .. } | sqllogictest::Record::Query { loc, .. } => {
                outcome.records += 1;
                Some(loc.to_string())
            }
            _ => None,
        };
        let start = Instant::now();
        if let Err(error) = runner.run_async(record).await {
            outcome.failed += 1;
            if outcome.failures.len() < SHOWN {
                outcome.failures.push(error.to_string());
            }
        }
        let elapsed = start.elapsed();
        if let Some(place) = place.filter(|_| elapsed > outcome.slowest.0) {
            outcome.slowest = (elapsed, place);
        }
    }
    outcome.elapsed = begin.elapsed();
    outcome
}

/// Writes into a file what this database answers.
pub async fn record_file(database: &Database, file: &Path) {
    let done = runner(database)
        .update_test_file(
            file,
            " ",
            sqllogictest::default_validator,
            sqllogictest::runner::default_normalizer,
            sqllogictest::default_column_validator,
        )
        .await;
    if let Err(error) = done {
        panic!("{}: {error}", file.display());
    }
}

/// All `.slt` files of a folder and the folders in it, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "slt" || e == "test") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

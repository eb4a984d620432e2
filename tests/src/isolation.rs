//! Transcripts of several sessions, as two databases give them: who waits, who is woken, what each sees.
//!
//! A file has the steps of a case, and below them what became of them at each level, on PostgreSQL 15 and on Amphora:
//!
//! ```text
//!   # what it is about
//!   differs at READ COMMITTED: why Amphora's result is another
//!   1: BEGIN
//!   1: UPDATE test SET value = 11 WHERE id = 1
//!   == READ COMMITTED, both
//!   1: BEGIN
//!      0
//! ```
//!
//! Whether a step waits cannot be seen at a glance, so the recorded transcript says what to expect: a step that
//! should finish is waited for patiently, and one that should wait is given a moment to do something else.
//! Only while recording, time alone decides.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// The levels, as BEGIN names them.
pub const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

/// How long a step is waited for that should finish.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a step is watched that should wait.
const GLANCE: Duration = Duration::from_millis(250);
/// After so long a step counts as waiting, while recording.
const RECORDING: Duration = Duration::from_millis(1500);

/// What a step is that waits.
const WAITS: &str = "waits";

/// A case and its transcripts.
#[derive(Debug, Default)]
pub struct Case {
    /// Everything above the steps
    pub head: String,
    /// Session and statement
    pub steps: Vec<(usize, String)>,
    /// By level: PostgreSQL's and Amphora's
    pub recorded: BTreeMap<String, (String, String)>,
}

impl Case {
    /// Reads a file.
    pub fn parse(text: &str) -> Case {
        let mut case = Case::default();
        let mut sections = text.split("\n== ");
        for line in sections.next().unwrap_or_default().lines() {
            match line.split_once(": ").map(|(n, sql)| (n.parse(), sql)) {
                Some((Ok(session), sql)) => case.steps.push((session, sql.to_owned())),
                _ => writeln!(case.head, "{line}").unwrap(),
            }
        }
        case.head = case.head.trim().to_owned();
        for section in sections {
            let (title, body) = section.split_once('\n').expect("a section has a body");
            let (level, whose) = title.split_once(", ").expect("a section is LEVEL, whose");
            let body = body.trim_end().to_owned() + "\n";
            let recorded = case.recorded.entry(level.to_owned()).or_default();
            if whose != "Amphora" {
                recorded.0.clone_from(&body);
            }
            if whose != "PostgreSQL 15" {
                recorded.1 = body;
            }
        }
        case
    }

    /// The file.
    pub fn print(&self) -> String {
        let mut text = format!("{}\n\n", self.head);
        for (session, sql) in &self.steps {
            writeln!(text, "{session}: {sql}").unwrap();
        }
        for level in LEVELS {
            let (postgres, amphora) = &self.recorded[level];
            if postgres == amphora {
                write!(text, "\n== {level}, both\n{postgres}").unwrap();
            } else {
                write!(text, "\n== {level}, PostgreSQL 15\n{postgres}").unwrap();
                write!(text, "\n== {level}, Amphora\n{amphora}").unwrap();
            }
        }
        text
    }

    /// Levels at which the two differ although the head does not say why, or the other way round.
    pub fn unexplained(&self) -> Vec<&'static str> {
        let explained = |level: &str| self.head.contains(&format!("differs at {level}: "));
        let differs = |level: &str| self.recorded[level].0 != self.recorded[level].1;
        LEVELS.into_iter().filter(|level| explained(level) != differs(level)).collect()
    }
}

type Running = JoinHandle<Result<Vec<SimpleQueryMessage>, Error>>;

/// Sessions in the middle of a case.
struct Sessions {
    clients: Vec<Arc<Client>>,
    waiting: BTreeMap<usize, Running>,
    transcript: String,
}

/// Runs a case at a level; one client a session. With `expected`, as it was recorded.
pub async fn run(case: &Case, level: &str, clients: Vec<Client>, expected: Option<&str>) -> String {
    let clients = clients.into_iter().map(Arc::new).collect();
    let mut sessions = Sessions { clients, waiting: BTreeMap::new(), transcript: String::new() };
    let expected = expected.map(|text| text.lines().collect::<Vec<_>>());
    for (session, sql) in &case.steps {
        let sql = if sql == "BEGIN" { format!("BEGIN ISOLATION LEVEL {level}") } else { sql.clone() };
        sessions.step(*session, &sql, expected.as_deref()).await;
    }
    sessions.transcript
}

impl Sessions {
    async fn step(&mut self, session: usize, sql: &str, expected: Option<&[&str]>) {
        writeln!(self.transcript, "{session}: {sql}").unwrap();
        let client = self.clients[session - 1].clone();
        let owned = sql.to_owned();
        let mut running = tokio::spawn(async move { client.simple_query(&owned).await });
        let at = self.transcript.lines().count();
        let limit = match expected {
            None => RECORDING,
            Some(lines) if lines.get(at).is_some_and(|l| l.trim() == WAITS) => GLANCE,
            Some(_) => PATIENCE,
        };
        match tokio::time::timeout(limit, &mut running).await {
            Ok(done) => {
                writeln!(self.transcript, "   {}", outcome(done.unwrap())).unwrap();
            }
            Err(_) => {
                writeln!(self.transcript, "   {WAITS}").unwrap();
                self.waiting.insert(session, running);
                return;
            }
        }
        for (session, mut running) in std::mem::take(&mut self.waiting) {
            let at = self.transcript.lines().count();
            let woken = format!("{session} goes on");
            let limit = match expected {
                None => RECORDING,
                Some(lines) if lines.get(at).is_some_and(|l| *l == woken) => PATIENCE,
                Some(_) => GLANCE,
            };
            match tokio::time::timeout(limit, &mut running).await {
                Ok(done) => {
                    writeln!(self.transcript, "{woken}\n   {}", outcome(done.unwrap())).unwrap();
                }
                Err(_) => drop(self.waiting.insert(session, running)),
            }
        }
    }
}

/// Rows, or how many were touched, or the error: in one line.
fn outcome(result: Result<Vec<SimpleQueryMessage>, Error>) -> String {
    let messages = match result {
        Ok(messages) => messages,
        Err(e) => {
            let Some(e) = e.as_db_error() else { return format!("{e}") };
            let hint = e.hint().map(|hint| format!(" HINT: {hint}")).unwrap_or_default();
            return format!("ERROR {}: {}{hint}", e.code().code(), e.message());
        }
    };
    let mut rows = Vec::new();
    let mut count = 0;
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                let values: Vec<&str> = (0..row.len()).map(|i| row.get(i).unwrap_or("NULL")).collect();
                rows.push(format!("({})", values.join(",")));
            }
            SimpleQueryMessage::CommandComplete(n) => count = n,
            _ => {}
        }
    }
    if rows.is_empty() { count.to_string() } else { rows.join(" ") }
}

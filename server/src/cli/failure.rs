//! A failure, as a person at a terminal or a log is told of it.

use std::fmt::Display;
use std::process::ExitCode;

/// What happened, why, and what to do next.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What could not be done
    pub what: String,
    /// Why
    pub why: String,
    /// What to do next
    pub next: Option<String>,
    /// 1, or 2 where the command was asked wrongly
    pub code: u8,
}

impl Failure {
    /// Something could not be done, for this reason.
    pub fn new(what: impl Into<String>, why: impl Display) -> Failure {
        Failure { what: what.into(), why: why.to_string(), next: None, code: 1 }
    }

    /// The command was asked wrongly.
    pub fn usage(what: impl Into<String>, why: impl Display) -> Failure {
        Failure { code: 2, ..Failure::new(what, why) }
    }

    /// The same, with what to do about it.
    pub fn next(mut self, next: impl Into<String>) -> Failure {
        self.next = Some(next.into());
        self
    }

    /// A floor below could not do something.
    pub fn from_error(what: impl Into<String>, error: &amphora_replication::Error) -> Failure {
        let why = match &error.detail {
            Some(detail) => format!("{}\n  {detail}", error.message),
            None => error.message.clone(),
        };
        let failure = Failure::new(what, why);
        match &error.hint {
            Some(hint) => failure.next(hint.clone()),
            None => failure,
        }
    }

    /// Tells stderr, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        eprintln!("{self}");
        ExitCode::from(self.code)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "amphora: {}\n  why:  {}", self.what, self.why)?;
        match &self.next {
            Some(next) => write!(f, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}

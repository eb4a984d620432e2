//! What can go wrong on this floor, in PostgreSQL's words.

use amphora_storage::hlc::ClockDrift;
use amphora_storage::schema::{Index, Table};
use amphora_storage::{DataType, Datum, Row, key};

/// The result of everything fallible on this floor.
pub type Result<T> = std::result::Result<T, Error>;

/// An error that may reach a client: message, detail, hint and SQLSTATE in PostgreSQL's style.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What the layers above may do about it
    pub kind: ErrorKind,
    /// Five characters, from PostgreSQL's appendix A
    pub sqlstate: &'static str,
    /// Primary message, lower case, no full stop
    pub message: String,
    /// What exactly, in a sentence
    pub detail: Option<Box<str>>,
    /// What to do, in a sentence
    pub hint: Option<Box<str>>,
    /// The constraint that was violated
    pub constraint: Option<Box<str>>,
    /// The table it is about
    pub table: Option<Box<str>>,
    /// The key that is taken, for the floor that can print values to make the detail of
    pub key: Option<Box<ConflictingKey>>,
}

/// The key of a unique violation.
#[derive(Clone, Debug)]
pub struct ConflictingKey {
    /// Names and types of the key's columns
    pub columns: Vec<(String, DataType)>,
    /// Their values
    pub values: Row,
    /// How the detail ends: `already exists`, `is duplicated`
    pub verb: &'static str,
}

/// How an error is to be handled by the floor above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Reported to the client; the transaction is aborted.
    Failed,
    /// A row moved under a READ COMMITTED statement: call [`Transaction::restart_statement`] and run the
    /// statement again. Never reaches a client.
    ///
    /// [`Transaction::restart_statement`]: crate::Transaction::restart_statement
    Restart,
    /// The catalog moved since the statement was planned: plan and run it again. Never reaches a client
    /// from a statement that can be retried.
    CatalogMoved,
    /// The transaction can only be started anew (40001, 40P01).
    Retry,
    /// It is not known whether the commit took place (08007).
    Unknown,
    /// The Raft quorum cannot be reached from here (57P03 …): strong tables cannot be used now,
    /// leaderless ones can.
    Unavailable,
}

impl Error {
    /// An error of the ordinary kind.
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Error {
        let kind = match sqlstate {
            "40001" | "40P01" => ErrorKind::Retry,
            "08007" => ErrorKind::Unknown,
            _ => ErrorKind::Failed,
        };
        let message = message.into();
        Error { kind, sqlstate, message, detail: None, hint: None, constraint: None, table: None, key: None }
    }

    /// With this detail.
    pub fn detail(mut self, detail: impl Into<String>) -> Error {
        self.detail = Some(detail.into().into());
        self
    }

    /// With this hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into().into());
        self
    }

    /// Of this kind.
    pub fn kind(mut self, kind: ErrorKind) -> Error {
        self.kind = kind;
        self
    }

    /// 54000 for a transaction that writes more than it may.
    pub fn too_large(limit: usize) -> Error {
        Error::new("54000", "the transaction is too large")
            .detail(format!("A commit can have at most {} MB.", limit >> 20))
            .hint("Split it into several transactions.")
    }

    /// 54000 for a transaction whose writes take more memory than it may have.
    pub fn too_much_memory(limit: usize) -> Error {
        Error::new("54000", "the transaction is too large")
            .detail(format!(
                "Its writes would take more than {} MB of memory before it commits.",
                limit >> 20
            ))
            .hint("Split it into several transactions, or raise amphora.transaction_memory.")
    }

    /// 53200 if the writes of all transactions together take all memory that there is for them.
    pub fn out_of_write_memory(limit: usize) -> Error {
        Error::new("53200", "out of memory")
            .detail(format!(
                "The writes of all transactions that have not committed would take more than {} MB on this node.",
                limit >> 20
            ))
            .hint("Try again when others have committed, or start the node with a greater --write-memory.")
    }

    /// 54000 for a row that fits no message.
    pub fn row_too_large(limit: usize) -> Error {
        Error::new("54000", "the row is too large")
            .detail(format!("A row of a strong table can have at most {} MB.", limit >> 20))
            .hint("Keep large values in several rows, or outside the database.")
    }

    /// 23505 on an index of a table, worded as PostgreSQL words it.
    pub fn unique_violation(table: &Table, index: &Index) -> Error {
        let message = format!("duplicate key value violates unique constraint \"{}\"", index.name);
        let mut error = Error::new("23505", message);
        error.constraint = Some(index.name.as_str().into());
        error.table = Some(table.name.as_str().into());
        error
    }

    /// With the key of `row` that is taken. Its values are worded by SQL, which knows how they print in a
    /// session; `verb` is how the detail ends.
    pub fn key(self, table: &Table, index: &Index, row: &[Datum], verb: &'static str) -> Error {
        let names = index.columns.iter().map(|&c| table.columns.get(c).map_or("?", |c| &c.name).to_owned());
        let names = names.collect();
        self.computed_key(table, index, row, &[], names, verb)
    }

    /// Like [`Error::key`], for an index that has expressions: their values, and what everything is called.
    pub fn computed_key(
        mut self,
        table: &Table,
        index: &Index,
        row: &[Datum],
        computed: &[Datum],
        names: Vec<String>,
        verb: &'static str,
    ) -> Error {
        let ty = |&c: &usize| index.type_of(table, c).map_or(DataType::Text, DataType::base);
        let columns = names.into_iter().zip(index.columns.iter().map(ty)).collect();
        let values = index.columns.iter().map(|&c| key::indexed(row, computed, c).clone()).collect();
        self.key = Some(Box::new(ConflictingKey { columns, values, verb }));
        self
    }

    /// The statement must run again on a newer snapshot.
    pub fn restart() -> Error {
        Error::new("40001", "could not serialize access due to concurrent update").kind(ErrorKind::Restart)
    }

    /// A transaction with one snapshot met a newer row.
    pub fn serialization() -> Error {
        Error::new("40001", "could not serialize access due to concurrent update")
    }

    /// A transaction with one snapshot met a row that is gone.
    pub fn serialization_deleted() -> Error {
        Error::new("40001", "could not serialize access due to concurrent delete")
    }

    /// What a SERIALIZABLE transaction read is not so any more.
    pub fn not_serializable() -> Error {
        Error::new("40001", "could not serialize access due to read/write dependencies among transactions")
            .detail("Reason code: Canceled during commit attempt, what it read was written by a later transaction.")
            .hint("The transaction might succeed if retried.")
    }

    /// The catalog moved under the statement's plan.
    pub fn catalog_moved() -> Error {
        Error::new("40001", "the table definition changed while the statement ran")
            .hint("The transaction might succeed if retried.")
            .kind(ErrorKind::CatalogMoved)
    }

    /// No quorum: strong tables cannot be read or written here and now.
    pub fn unavailable(what: impl Into<String>) -> Error {
        Error::new("57P03", what)
            .hint("Strong tables need a majority of the voters. Leaderless tables can still be read and written on this node.")
            .kind(ErrorKind::Unavailable)
    }
}

impl From<ClockDrift> for Error {
    fn from(e: ClockDrift) -> Error {
        Error::new("58000", e.to_string()).hint("Synchronize the nodes' clocks (NTP).")
    }
}

impl From<amphora_storage::error::StorageError> for Error {
    fn from(e: amphora_storage::error::StorageError) -> Error {
        let mut error = Error::new(e.sqlstate(), e.to_string());
        error.hint = e.hint().map(Into::into);
        error
    }
}

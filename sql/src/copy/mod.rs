//! COPY: rows as a stream of bytes, in and out.
//!
//! ```text
//!   CopyData ──► Reader ──record──► Decoder ──datums──► Loader (executor) ──batches──► Transaction::insert
//!                lines, quotes      types               defaults, WHERE, CHECK
//!
//!   Query ──rows──► Encoder ──CopyData──► client
//! ```
//!
//! Nothing holds more than one record and one batch of rows: a message is cut into records where it lies,
//! and a record that is not complete waits for the next message. Line numbers are counted as PostgreSQL
//! counts them, for the CONTEXT of errors.

mod binary;
mod csv;
mod decode;
mod encode;
mod line;
mod options;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
mod text;

use std::sync::Arc;

use amphora_storage::schema::Table;

pub use decode::Decoder;
pub use encode::Encoder;
pub(crate) use options::Columns;
pub use options::{CopyFormat, CopyOptions, Header};

use crate::expr::Expr;
use crate::plan::{Field, Insert, Statement};

/// The longest record that is read, in bytes.
pub const MAX_RECORD: usize = 256 << 20;

/// COPY, bound.
#[derive(Clone, Debug)]
pub struct Copy {
    /// How the bytes are laid out
    pub options: CopyOptions,
    /// Which way they go
    pub direction: Direction,
}

/// Which way rows go.
#[derive(Clone, Debug)]
pub enum Direction {
    /// FROM STDIN
    From(Box<CopyFrom>),
    /// TO STDOUT
    To(Box<CopyTo>),
}

/// COPY … FROM.
#[derive(Clone, Debug)]
pub struct CopyFrom {
    /// The table
    pub table: Arc<Table>,
    /// The columns of a record, as positions in the table
    pub columns: Vec<usize>,
    /// The full row without hidden key: an input column is `Column(i)`, the i-th value of the record
    pub row: Vec<Expr>,
    /// WHERE, over the full row
    pub filter: Option<Expr>,
    /// How a row is written: an INSERT whose source is not used
    pub insert: Insert,
    /// Columns of the record whose unquoted NULL string is not NULL
    pub force_not_null: Vec<bool>,
    /// Columns of the record whose quoted NULL string is NULL too
    pub force_null: Vec<bool>,
}

/// COPY … TO.
#[derive(Clone, Debug)]
pub struct CopyTo {
    /// A query, or a write with RETURNING
    pub statement: Statement,
    /// The table, where it is one
    pub table: Option<Arc<Table>>,
    /// Its columns
    pub schema: Arc<[Field]>,
    /// Columns that are quoted always
    pub force_quote: Vec<bool>,
}

//! Amphora's bottom floor.
//!
//! Everything a node keeps is kept here: the values and schemas that rows are made of, the
//! order-preserving keys under which they lie, the MVCC versions of strong tables, the merge states of
//! leaderless ones, the Raft log and checkpoints. This crate knows nothing of networks or SQL.

pub mod array;
pub mod codec;
pub mod data_dir;
pub mod datum;
pub mod error;
mod file;
pub mod hlc;
pub mod journal;
pub mod json;
pub mod key;
pub mod numeric;
pub mod raft_log;
pub mod row;
pub mod schema;
pub mod store;
pub mod types;
pub mod user_type;

pub use data_dir::{DataDir, Identity};
pub use datum::{Array, Datum, Row};
pub use error::{Result, StorageError};
pub use hlc::{Hlc, Timestamp};
pub use json::Json;
pub use numeric::Numeric;
pub use raft_log::{RaftLog, RaftLogOptions};
pub use store::{Batch, Cf, Direction, PlainSnapshot, Store, StoreOptions};
pub use types::DataType;

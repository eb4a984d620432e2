//! Amphora's SQL floor: from a statement's text to its rows, with PostgreSQL's rules.
//!
//! ```text
//!   text ─parser─► syntax tree ─binder─► typed plan ─optimizer─► plan::Prepared ─executor─► rows
//!                                  ▲                                                  ▲
//!                        catalog, types, functions                     replication::Transaction
//! ```
//!
//! [`frontend`] is the left half, [`executor`] the right one, and [`session`] what a connection holds.
//! The contract between the halves is [`plan`], [`expr`] and [`command`].

pub mod analyze;
pub mod binder;
pub mod catalog;
pub mod command;
pub mod copy;
pub(crate) mod deparse;
pub mod dependency;
pub mod error;
pub mod executor;
pub mod explain;
pub mod expr;
pub mod frontend;
pub mod functions;
pub mod index;
pub mod optimizer;
pub mod parser;
pub mod plan;
pub mod scram;
pub mod session;
pub mod types;
pub mod walk;

pub use error::{Result, SqlError};

//! Amphora's SQL floor.

pub mod error;
pub mod functions;
pub mod types;

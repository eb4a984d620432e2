//! Amphora's process: the command line, the PostgreSQL wire, HTTP, and the demonstration.

pub mod wire;

//! Amphora's process: the command line, the PostgreSQL wire, HTTP, and the demonstration.
//!
//! ```text
//!   cli ──start──▶ process (signals, log, limits) ──▶ Node ◀── http
//!    │                                                 ▲
//!    ├──status──▶ another node's HTTP port             └── sessions ◀── wire
//!    └──demo────▶ three processes of this very program, and a story told with them
//! ```

pub mod cli;
pub mod demo;
pub mod http;
pub mod process;
pub mod sessions;
pub mod wire;

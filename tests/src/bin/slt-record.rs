//! Records what PostgreSQL answers into sqllogictest files: `slt-record FILE…`, or all of `tests/slt`.
//!
//! Each file runs in an empty database of a private server. What only Amphora has (`onlyif amphora`) stays.

use std::path::{Path, PathBuf};

use amphora_tests::logic::{self, Database};
use amphora_tests::postgres::Postgres;

#[tokio::main]
async fn main() {
    let mut files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if files.is_empty() {
        files = logic::files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("slt"));
    }
    let postgres = Postgres::start().await;
    for (i, file) in files.iter().enumerate() {
        let config = postgres.create_database(&format!("slt{i}")).await;
        logic::record_file(&Database { config, name: "postgres" }, file).await;
        println!("{}", file.display());
    }
}

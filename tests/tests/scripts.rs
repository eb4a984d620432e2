//! Whole psql scripts, with what psql prints compared to what it prints on PostgreSQL 15: for what the SQL
//! floor's transcripts cannot show, such as COPY's data and cursors.
//!
//! `tests/scripts/NAME.sql` has its expected output beside it in `NAME.out`. To take that from a PostgreSQL,
//! name a database of it that may be written to: `RECORD_FROM='host=/tmp dbname=scratch' cargo nextest run -p
//! amphora-tests scripts`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

use amphora_tests::Cluster;

/// What psql prints, without the lines in which PostgreSQL speaks of its own sources.
fn run(connection: &str, script: &Path) -> String {
    let output = Command::new("psql")
        .args(["-X", "-a", "-q", "-v", "VERBOSITY=verbose", "-d", connection, "-f"])
        .arg(script.file_name().unwrap())
        .current_dir(script.parent().unwrap())
        .env("PGCONNECT_TIMEOUT", "5")
        .env("LC_ALL", "C.UTF-8")
        .stderr(std::process::Stdio::piped())
        .output()
        .expect("psql runs");
    let mut text = String::new();
    // Errors and answers come on two streams; only their order within each is certain.
    for (name, bytes) in [("answers", &output.stdout), ("errors", &output.stderr)] {
        text.push_str(&format!("== {name}\n"));
        for line in String::from_utf8_lossy(bytes).lines() {
            let internal = ["LOCATION:", "SCHEMA NAME:", "TABLE NAME:", "COLUMN NAME:", "CONSTRAINT NAME:"];
            if !internal.iter().any(|start| line.starts_with(start)) {
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
    }
    text
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "sql"))
        .collect();
    scripts.sort();
    scripts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_print_what_they_print_on_postgresql() {
    let scripts = scripts();
    assert!(!scripts.is_empty());
    if let Ok(postgres) = std::env::var("RECORD_FROM") {
        for script in &scripts {
            std::fs::write(script.with_extension("out"), run(&postgres, script)).unwrap();
        }
        return;
    }
    let cluster = Cluster::start(1).await;
    let (host, port) = cluster.nodes()[0].pg.rsplit_once(':').unwrap();
    let connection = format!("host={host} port={port} user=amphora dbname=amphora");
    let mut failures = String::new();
    for script in &scripts {
        let expected = std::fs::read_to_string(script.with_extension("out")).unwrap();
        let got = run(&connection, script);
        if got == expected {
            continue;
        }
        let differs = expected.lines().zip(got.lines()).position(|(a, b)| a != b);
        let at = differs.unwrap_or_else(|| expected.lines().count().min(got.lines().count()));
        let around =
            |text: &str| text.lines().skip(at.saturating_sub(5)).take(12).collect::<Vec<_>>().join("\n");
        failures.push_str(&format!(
            "{} differs at line {}\n--- expected\n{}\n--- got\n{}\n",
            script.display(),
            at + 1,
            around(&expected),
            around(&got)
        ));
    }
    assert!(failures.is_empty(), "{failures}");
}

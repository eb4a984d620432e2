//! Runs pgbench and reads what it says.

use std::collections::BTreeMap;
use std::process::Stdio;

use tokio::process::Command;

/// A server to measure, on this machine.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its PostgreSQL port
    pub port: u16,
}

/// What pgbench is told.
pub struct Run<'a> {
    /// Its script: `-S`, `-N`, or `-f` and a file
    pub script: Vec<String>,
    /// Clients
    pub clients: usize,
    /// `simple`, `extended` or `prepared`
    pub protocol: &'a str,
    /// How long, in seconds
    pub seconds: u32,
}

/// What pgbench said.
#[derive(Default)]
pub struct Outcome {
    /// Transactions per second, without the time it took to connect
    pub tps: f64,
    /// SQLSTATE or message, and how often
    pub failures: BTreeMap<String, u64>,
}

/// pgbench on a target, with the variables libpq reads.
pub fn command(target: Target) -> Command {
    let mut command = Command::new("pgbench");
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", target.port.to_string())
        .env("PGUSER", "amphora")
        .env("PGDATABASE", "amphora")
        .env("PGSSLMODE", "disable")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

impl Run<'_> {
    /// Runs it once.
    pub async fn on(&self, target: Target) -> Outcome {
        let mut command = command(target);
        command
            .args(["--no-vacuum", "--failures-detailed", "--verbose-errors"])
            .args(["-M", self.protocol, "-c", &self.clients.to_string()])
            .args(["-j", &self.clients.min(2).to_string(), "-T", &self.seconds.to_string()])
            .args(&self.script);
        let output = command.output().await.expect("pgbench runs");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        parse(&out, &err)
    }
}

fn parse(out: &str, err: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in out.lines() {
        if let Some(tps) = line.strip_prefix("tps = ") {
            outcome.tps = tps.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
        }
        for (name, sqlstate) in [
            ("number of serialization failures: ", "40001 serialization_failure"),
            ("number of deadlock failures: ", "40P01 deadlock_detected"),
        ] {
            let count =
                line.strip_prefix(name).and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            if let Some(count) = count.filter(|n| *n > 0) {
                *outcome.failures.entry(sqlstate.to_owned()).or_default() += count;
            }
        }
    }
    // Any other error ends its client. What pgbench says of it ends with the server's words.
    for line in err.lines().filter(|l| l.contains("error:") || l.contains("ERROR:") || l.contains("FATAL:")) {
        if line.contains("could not serialize access") || line.contains("deadlock detected") {
            continue;
        }
        let words = line.rsplit_once("ERROR:").map_or(line, |(_, words)| words);
        *outcome.failures.entry(words.trim().to_owned()).or_default() += 1;
    }
    if outcome.tps == 0.0 && outcome.failures.is_empty() {
        *outcome.failures.entry(format!("pgbench measured nothing: {}", err.trim())).or_default() += 1;
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_sqlstate() {
        let out = "number of transactions actually processed: 10\n\
                   number of failed transactions: 3 (23.077%)\n\
                   number of serialization failures: 2 (15.385%)\n\
                   number of deadlock failures: 1 (7.692%)\n\
                   tps = 123.456 (without initial connection time)\n";
        let err = "pgbench: error: client 1 script 0 aborted in command 4 query 0: ERROR:  out of disk\n";
        let outcome = parse(out, err);
        assert!((outcome.tps - 123.456).abs() < 1e-9);
        assert_eq!(outcome.failures["40001 serialization_failure"], 2);
        assert_eq!(outcome.failures["40P01 deadlock_detected"], 1);
        assert_eq!(outcome.failures["out of disk"], 1);
    }
}

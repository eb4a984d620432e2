//! Measures a cluster of the binary in `AMPHORA_BIN`, side by side with PostgreSQL (see `bench/README.md`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bulk;
mod cluster;
mod contest;
mod failover;
mod leaderless;
mod learner;
mod load;
mod memory;
mod pgbench;
mod postgres;
mod report;
mod strong;
mod workload;

use report::Report;

/// How much is measured. A default run takes about ten minutes.
struct Settings {
    /// Where results are kept
    results: std::path::PathBuf,
    /// Rounds, each once on either side (`BENCH_ROUNDS`)
    rounds: usize,
    /// Seconds of one pgbench run (`BENCH_SECONDS`)
    seconds: u32,
    /// Only what has this in its name (`BENCH_ONLY`)
    only: Option<String>,
    /// How often a leader is killed (`BENCH_KILLS`)
    kills: usize,
}

impl Settings {
    fn from_environment() -> Settings {
        let number = |name: &str, default: u32| match std::env::var(name) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
            Err(_) => default,
        };
        Settings {
            results: std::env::args_os().nth(1).expect("usage: amphora-bench RESULTS_FOLDER").into(),
            rounds: number("BENCH_ROUNDS", 3).max(1) as usize,
            seconds: number("BENCH_SECONDS", 3).max(1),
            kills: number("BENCH_KILLS", 10).max(1) as usize,
            only: std::env::var("BENCH_ONLY").ok().filter(|s| !s.is_empty()),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.split(',').any(|part| name.contains(part)))
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let settings = Settings::from_environment();
    let mut report = Report::new(settings.rounds, settings.seconds);
    contest::run(&settings, &mut report).await;
    report.figures.extend(report.followers_over_leader());
    if settings.wants("memory") {
        report.figures.extend(memory::figures().await);
    }
    if settings.wants("cluster") {
        report.figures.extend(cluster::figures().await);
    }
    if settings.wants("failover") {
        report.figures.extend(failover::figures(settings.kills).await);
    }
    if settings.wants("bulk") {
        report.figures.extend(bulk::figures(&settings).await);
    }
    if settings.wants("learner") {
        report.figures.extend(learner::figures(&settings).await);
    }
    if settings.wants("quorums") {
        report.figures.extend(leaderless::quorums(&settings).await);
    }
    if settings.wants("propagation") {
        report.figures.extend(leaderless::propagation(&settings).await);
    }
    if settings.wants("leaderless catch-up") {
        report.figures.extend(leaderless::catch_up(&settings).await);
    }
    report.print();
    let path = report.write(&settings.results);
    println!("written to {}", path.display());
}

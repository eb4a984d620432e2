//! Amphora and PostgreSQL in turns, on the same data: A B A B …, so that what else the machine does meets
//! both alike.

use std::path::PathBuf;
use std::time::Duration;

use amphora_tests::Cluster;
use futures::future::join_all;

use crate::Settings;
use crate::load;
use crate::pgbench::{Outcome, Run, Target};
use crate::postgres::Postgres;
use crate::report::{Comparison, Report, Side};
use crate::strong::{self, Sides};
use crate::workload::{self, COUNTERS, Place, Script, Workload};

/// Between two runs, for what the one before has left to be done.
const BREATH: Duration = Duration::from_millis(300);

struct Contest {
    cluster: Cluster,
    /// The leader first
    nodes: Vec<Target>,
    postgres: Postgres,
    increments: PathBuf,
}

/// Runs every workload that is wanted.
pub async fn run(settings: &Settings, report: &mut Report) {
    let workloads: Vec<Workload> =
        workload::all().into_iter().filter(|w| settings.wants(&w.name())).collect();
    let bulk = settings.wants(load::NAME);
    let strong = strong::is_wanted(settings);
    if workloads.is_empty() && !bulk && !strong {
        return;
    }
    let contest = Contest::begin(!workloads.is_empty()).await;
    if bulk {
        report.comparisons.push(load::copy(settings, contest.nodes[0], contest.postgres.target()).await);
    }
    if strong {
        let sides = Sides { amphora: contest.nodes[0], postgres: contest.postgres.target() };
        strong::run(settings, sides, contest.cluster.path(), report).await;
    }
    let mut synchronous = true;
    for workload in workloads {
        if synchronous != (workload.place != Place::Everywhere) {
            synchronous = !synchronous;
            contest.postgres.set_synchronous(synchronous).await;
        }
        let name = workload.name();
        eprintln!("{name} …");
        let (mut amphora, mut postgres) = (Side::default(), Side::default());
        for _ in 0..settings.rounds {
            note(&mut amphora, contest.on_amphora(&workload, settings.seconds).await);
            note(&mut postgres, contest.on_postgres(&workload, settings.seconds).await);
        }
        report.comparisons.push(Comparison { name, amphora, postgres, goal: workload.goal() });
    }
}

fn note(side: &mut Side, outcome: Outcome) {
    side.rounds.push(outcome.tps);
    for (what, count) in outcome.failures {
        *side.failures.entry(what).or_default() += count;
    }
}

impl Contest {
    /// Both sides, with pgbench's tables if somebody needs them.
    async fn begin(with_tables: bool) -> Contest {
        eprintln!("starting three Amphora nodes, and PostgreSQL with two standbys …");
        let cluster = Cluster::start(3).await;
        let postgres = Postgres::start().await;
        postgres.set_synchronous(true).await;
        let leader = cluster.leader().await;
        let port = |i: usize| {
            let address = &cluster.nodes()[i % cluster.len()].pg;
            address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("host:port")
        };
        let nodes: Vec<Target> = (0..cluster.len()).map(|i| Target { port: port(leader + i) }).collect();
        let increments = cluster.path().join("increments.sql");
        let script =
            format!("\\set id random(1, {COUNTERS})\nUPDATE counters SET n = n + 1 WHERE id = :id;\n");
        std::fs::write(&increments, script).unwrap();
        if with_tables {
            eprintln!("loading both …");
            load::tables(nodes[0], "(id int PRIMARY KEY, n crdt_counter) WITH (replication = 'leaderless')")
                .await;
            load::tables(postgres.target(), "(id int PRIMARY KEY, n bigint)").await;
        }
        Contest { cluster, nodes, postgres, increments }
    }

    fn script(&self, script: Script) -> Vec<String> {
        match script {
            Script::SelectOnly => vec!["-S".to_owned()],
            Script::SimpleUpdate => vec!["-N".to_owned()],
            Script::TpcB => Vec::new(),
            Script::Increment => vec!["-f".to_owned(), self.increments.display().to_string()],
        }
    }

    async fn on_amphora(&self, workload: &Workload, seconds: u32) -> Outcome {
        let targets = match workload.place {
            Place::Leader => &self.nodes[..1],
            Place::Follower => &self.nodes[1..2],
            Place::Everywhere => &self.nodes[..],
        };
        debug_assert_eq!(self.nodes.len(), self.cluster.len());
        self.on(workload, seconds, targets).await
    }

    async fn on_postgres(&self, workload: &Workload, seconds: u32) -> Outcome {
        self.on(workload, seconds, &[self.postgres.target()]).await
    }

    /// One pgbench a target, at the same time, with its share of the clients; what they did together.
    async fn on(&self, workload: &Workload, seconds: u32, targets: &[Target]) -> Outcome {
        tokio::time::sleep(BREATH).await;
        let runs = targets.iter().enumerate().map(|(i, target)| {
            let share = workload.clients / targets.len();
            let rest = usize::from(i < workload.clients % targets.len());
            let run = Run {
                script: self.script(workload.script),
                clients: share + rest,
                protocol: workload.protocol,
                seconds,
            };
            async move { run.on(*target).await }
        });
        let mut together = Outcome::default();
        for outcome in join_all(runs).await {
            together.tps += outcome.tps;
            for (what, count) in outcome.failures {
                *together.failures.entry(what).or_default() += count;
            }
        }
        together
    }
}

//! What was measured, as one table and one file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// What a figure should be.
#[derive(Clone, Copy)]
pub enum Goal {
    /// It is only shown
    None,
    /// No less
    AtLeast(f64),
    /// No more
    AtMost(f64),
}

impl Goal {
    fn text(self) -> String {
        match self {
            Goal::None => String::new(),
            Goal::AtLeast(x) => format!("≥ {x}"),
            Goal::AtMost(x) => format!("≤ {x}"),
        }
    }

    fn verdict(self, value: f64) -> &'static str {
        let met = match self {
            Goal::None => return "",
            Goal::AtLeast(x) => value >= x,
            Goal::AtMost(x) => value <= x,
        };
        if met { "pass" } else { "FAIL" }
    }
}

/// One figure of Amphora alone.
pub struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    goal: Goal,
}

impl Figure {
    /// A figure with its goal.
    pub fn new(name: &str, value: f64, unit: &'static str, goal: Goal) -> Figure {
        Figure { name: name.to_owned(), value, unit, goal }
    }
}

/// What one side did in one workload.
#[derive(Default)]
pub struct Side {
    /// One value a round: transactions (or rows) per second
    pub rounds: Vec<f64>,
    /// SQLSTATEs, or messages where there is none, and how often
    pub failures: BTreeMap<String, u64>,
}

impl Side {
    fn median(&self) -> f64 {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[n / 2],
            n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
        }
    }

    fn json(&self) -> Value {
        json!({ "median": self.median(), "rounds": self.rounds, "failures": self.failures })
    }
}

/// One workload on both sides.
pub struct Comparison {
    /// What was run
    pub name: String,
    /// This side
    pub amphora: Side,
    /// That side
    pub postgres: Side,
    /// Of the ratio of medians
    pub goal: Goal,
}

impl Comparison {
    fn ratio(&self) -> f64 {
        self.amphora.median() / self.postgres.median()
    }

    /// A goal is not met by transactions that fail.
    fn verdict(&self) -> &'static str {
        match self.goal {
            Goal::None => "",
            _ if !self.amphora.failures.is_empty() => "FAIL",
            goal => goal.verdict(self.ratio()),
        }
    }
}

/// All that a run has measured.
pub struct Report {
    rounds: usize,
    seconds: u32,
    /// Side by side
    pub comparisons: Vec<Comparison>,
    /// Amphora alone
    pub figures: Vec<Figure>,
}

impl Report {
    /// An empty report of a run with so many rounds of so many seconds.
    pub fn new(rounds: usize, seconds: u32) -> Report {
        Report { rounds, seconds, comparisons: Vec::new(), figures: Vec::new() }
    }

    /// Point reads on a follower, over those on the leader of the same run, if both were measured.
    pub fn followers_over_leader(&self) -> Option<Figure> {
        let median =
            |name: &str| self.comparisons.iter().find(|c| c.name == name).map(|c| c.amphora.median());
        let follower = median("select-only, follower, prepared, 32 clients")?;
        let leader = median("select-only, prepared, 32 clients")?;
        let name = "point reads on a follower over the leader's, 32";
        Some(Figure::new(name, follower / leader, "", Goal::AtLeast(0.8)))
    }

    /// The table.
    pub fn print(&self) {
        if !self.comparisons.is_empty() {
            println!(
                "\n{:<46} {:>10} {:>10} {:>6}  {:<6}",
                "per second, medians", "Amphora", "PostgreSQL", "ratio", "goal"
            );
        }
        for c in &self.comparisons {
            println!(
                "{:<46} {:>10.0} {:>10.0} {:>6.2}  {:<6} {}",
                c.name,
                c.amphora.median(),
                c.postgres.median(),
                c.ratio(),
                c.goal.text(),
                c.verdict()
            );
            for (side, failures) in [("Amphora", &c.amphora.failures), ("PostgreSQL", &c.postgres.failures)] {
                for (what, count) in failures {
                    println!("    {side} failed {count} times: {what}");
                }
            }
        }
        if !self.figures.is_empty() {
            println!("\n{:<46} {:>10}  {:<12} goal", "Amphora alone", "measured", "");
        }
        for f in &self.figures {
            let (goal, verdict) = (f.goal.text(), f.goal.verdict(f.value));
            println!("{:<46} {:>10.2}  {:<12} {goal:<6} {verdict}", f.name, f.value, f.unit);
        }
    }

    /// Writes the run to a file named after its commit and time.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let comparisons: Vec<Value> = self
            .comparisons
            .iter()
            .map(|c| {
                json!({
                    "name": c.name, "amphora": c.amphora.json(), "postgres": c.postgres.json(),
                    "ratio": c.ratio(), "goal": c.goal.text(), "verdict": c.verdict(),
                })
            })
            .collect();
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|f| {
                json!({
                    "name": f.name, "value": f.value, "unit": f.unit, "goal": f.goal.text(),
                    "verdict": f.goal.verdict(f.value),
                })
            })
            .collect();
        let commit = output("git", &["rev-parse", "--short", "HEAD"]);
        let time = output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]);
        let run = json!({
            "time": time, "commit": commit, "rounds": self.rounds, "seconds": self.seconds,
            "machine": machine(),
            "versions": {
                "amphora": output(&amphora_tests::binary().to_string_lossy(), &["--version"]),
                "postgres": output("pgbench", &["--version"]),
            },
            "comparisons": comparisons, "figures": figures,
        });
        std::fs::create_dir_all(folder).unwrap();
        let path = folder.join(format!("{}-{commit}.json", time.replace(':', "")));
        std::fs::write(&path, format!("{run:#}\n")).unwrap();
        path
    }
}

fn machine() -> Value {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|l| l.starts_with(name));
        line.and_then(|l| l.split_once(':')).map(|(_, v)| v.trim().to_owned()).unwrap_or_default()
    };
    json!({
        "processor": field(&file("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, |n| n.get()),
        "memory": field(&file("/proc/meminfo"), "MemTotal"),
        "kernel": output("uname", &["-r"]),
        "load_at_end": file("/proc/loadavg").trim(),
    })
}

fn output(program: &str, arguments: &[&str]) -> String {
    match std::process::Command::new(program).args(arguments).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(_) => String::new(),
    }
}

//! What is run, and what is hoped of it.

use crate::report::Goal;

/// pgbench's scale: branches, tens of tellers, and hundreds of thousands of accounts.
pub const SCALE: i64 = 10;
/// Rows of the increments' table.
pub const COUNTERS: i64 = 1_000;

/// Which servers a workload runs on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Amphora's leader; PostgreSQL's primary
    Leader,
    /// An Amphora follower; PostgreSQL's primary, since its standbys' reads are not linearizable
    Follower,
    /// All Amphora nodes, with a share of the clients each; PostgreSQL's primary with asynchronous standbys
    Everywhere,
}

/// What a transaction does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// pgbench `-S`
    SelectOnly,
    /// pgbench `-N`
    SimpleUpdate,
    /// pgbench's default
    TpcB,
    /// One row of a leaderless table
    Increment,
}

impl Script {
    fn name(self) -> &'static str {
        match self {
            Script::SelectOnly => "select-only",
            Script::SimpleUpdate => "simple-update",
            Script::TpcB => "TPC-B",
            Script::Increment => "leaderless increments",
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy)]
pub struct Workload {
    /// What
    pub script: Script,
    /// Where
    pub place: Place,
    /// By how many
    pub clients: usize,
    /// pgbench's `-M`
    pub protocol: &'static str,
}

impl Workload {
    /// As the table calls it.
    pub fn name(&self) -> String {
        let place = match self.place {
            Place::Follower => ", follower",
            _ => "",
        };
        let plural = if self.clients == 1 { "" } else { "s" };
        format!("{}{place}, {}, {} client{plural}", self.script.name(), self.protocol, self.clients)
    }

    /// Of the ratio to PostgreSQL.
    pub fn goal(&self) -> Goal {
        match (self.script, self.place, self.protocol, self.clients) {
            (Script::SelectOnly, Place::Leader, "prepared", 8 | 32) => Goal::AtLeast(1.1),
            (Script::SelectOnly, Place::Follower, "prepared", 8 | 32) => Goal::AtLeast(0.7),
            (Script::SimpleUpdate, _, "prepared", 32) => Goal::AtLeast(1.0),
            (Script::SimpleUpdate, _, "prepared", 1) => Goal::AtLeast(0.8),
            (Script::TpcB, _, "prepared", 32) => Goal::AtLeast(1.0),
            (Script::Increment, ..) => Goal::AtLeast(1.2),
            _ => Goal::None,
        }
    }
}

/// All of them, those that only read first: every one finds the tables as the one before has left them,
/// on both sides.
pub fn all() -> Vec<Workload> {
    let mut all = Vec::new();
    let mut add = |script, place, protocol| {
        all.extend([1, 8, 32].map(|clients| Workload { script, place, clients, protocol }));
    };
    add(Script::SelectOnly, Place::Leader, "prepared");
    add(Script::SelectOnly, Place::Leader, "simple");
    add(Script::SelectOnly, Place::Follower, "prepared");
    for protocol in ["prepared", "simple"] {
        add(Script::SimpleUpdate, Place::Leader, protocol);
        add(Script::TpcB, Place::Leader, protocol);
    }
    all.push(Workload {
        script: Script::Increment,
        place: Place::Everywhere,
        clients: 32,
        protocol: "prepared",
    });
    all
}

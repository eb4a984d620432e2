//! The command line.
//!
//! Exit codes: 0 done, 1 it failed, 2 it was asked wrongly. A failure says what happened, why, and what to
//! do next.

mod config;
mod failure;
mod latency;
mod node;
mod preference;
mod recover;
mod start;
mod status;
mod stdout;
mod table;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

pub use config::{HostPort, StartArgs, StartConfig};
pub use failure::Failure;
pub use stdout::print;
pub(crate) use stdout::say;
pub use table::Table;

use crate::demo::{self, DemoArgs};

/// Threads need room for deeply nested expressions; the memory is touched only when used.
const STACK_BYTES: usize = 8 << 20;

/// A PostgreSQL-compatible database in which every table chooses its replication: strong or leaderless.
#[derive(Debug, Parser)]
#[command(name = "amphora", version, about, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a node
    Start(Box<StartArgs>),
    /// Start three nodes on this machine and show what they can do
    Demo(DemoArgs),
    /// Show the cluster as one of its nodes sees it
    Status {
        /// Only say whether the node is ready, by the exit code: 0 or 1
        #[arg(long)]
        ready: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Make a new cluster of what one node has, when the majority is lost for ever
    Recover(recover::RecoverArgs),
    /// Compare the replicas of a table on all nodes; those of a leaderless table are mended
    Verify {
        /// `table` or `schema.table`
        #[arg(value_name = "TABLE")]
        table: String,
        #[command(flatten)]
        target: Target,
    },
    /// Look after the cluster's nodes
    #[command(subcommand)]
    Node(NodeCommand),
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// List the nodes
    List(Target),
    /// Move leadership, to the fittest other voter or to a certain one
    TransferLeader {
        /// The node that is to lead
        #[arg(long, value_name = "ID")]
        to: Option<u64>,
        #[command(flatten)]
        target: Target,
    },
    /// Send a node's clients and its leadership away, and wait until it can be stopped
    Drain {
        /// The node
        #[arg(value_name = "ID")]
        node: u64,
        /// How long to wait for what is running
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        timeout: u64,
        #[command(flatten)]
        target: Target,
    },
    /// Remove a node for ever
    Remove {
        /// The node
        #[arg(value_name = "ID")]
        node: u64,
        /// Also where no other node may fail afterwards, or where writes to leaderless tables are given up
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Make a voter of a read replica
    Promote {
        /// The node
        #[arg(value_name = "ID")]
        node: u64,
        #[command(flatten)]
        target: Target,
    },
}

impl NodeCommand {
    async fn run(self) -> Result<(), Failure> {
        match self {
            NodeCommand::List(target) => status::node_list(&target.host).await,
            NodeCommand::TransferLeader { to, target } => node::transfer_leader(&target.host, to).await,
            NodeCommand::Drain { node, timeout, target } => {
                node::drain(&target.host, node, Duration::from_secs(timeout)).await
            }
            NodeCommand::Remove { node, force, target } => node::remove(&target.host, node, force).await,
            NodeCommand::Promote { node, target } => node::promote(&target.host, node).await,
        }
    }
}

/// Which node is asked.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// HTTP address of any node
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8433", env = "AMPHORA_HOST")]
    host: HostPort,
}

/// Runs what the process was started for.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("amphora")
        .thread_stack_size(STACK_BYTES)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return Failure::new("could not start the runtime", e).report(),
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Start(args) => start::run(*args).await.map(|()| ExitCode::SUCCESS),
            Command::Demo(args) => demo::run(args).await,
            Command::Recover(args) => recover::run(args).await.map(|()| ExitCode::SUCCESS),
            Command::Status { ready: true, target } => {
                status::ready(&target.host).await.map(|()| ExitCode::SUCCESS)
            }
            Command::Status { ready: false, target } => {
                status::status(&target.host).await.map(|()| ExitCode::SUCCESS)
            }
            Command::Verify { table, target } => verify::run(&target.host, table).await,
            Command::Node(command) => command.run().await.map(|()| ExitCode::SUCCESS),
        }
    });
    // What still runs in the background has had its time.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result.unwrap_or_else(|failure| failure.report())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_serve() {
        let cli = Cli::try_parse_from(["amphora", "start"]).unwrap();
        let Command::Start(args) = cli.command else { panic!("start") };
        let config = StartConfig::build(*args).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:5433");
        assert_eq!(config.rpc_listen.to_string(), "127.0.0.1:7433");
        assert_eq!(config.http_listen.to_string(), "127.0.0.1:8433");
        assert_eq!(config.data_dir, std::path::Path::new("./amphora-data"));
        assert!(config.join.is_empty());
    }

    #[test]
    fn bad_flags_are_refused_with_two() {
        for line in [
            &["amphora"][..],
            &["amphora", "dance"],
            &["amphora", "start", "--listen", "5433"],
            &["amphora", "start", "--listen", "host:99999"],
            &["amphora", "start", "--jion", "a:1"],
            &["amphora", "demo", "--scenario", "miracle"],
            &["amphora", "node"],
        ] {
            let error = Cli::try_parse_from(line).expect_err("refused");
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
        assert_eq!(Cli::try_parse_from(["amphora", "--version"]).expect_err("shown").exit_code(), 0);
    }

    #[test]
    fn several_members_may_be_named() {
        let cli =
            Cli::try_parse_from(["amphora", "start", "--join", "a:1,b:2", "--join", "[::1]:3"]).unwrap();
        let Command::Start(args) = cli.command else { panic!("start") };
        let join: Vec<String> = args.join.iter().map(ToString::to_string).collect();
        assert_eq!(join, ["a:1", "b:2", "[::1]:3"]);
    }
}

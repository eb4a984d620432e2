//! `amphora recover`: a new cluster of one node, of what one survivor has, when the majority is lost for ever.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amphora_replication::node::{self, Survivor};
use clap::Args;

use super::{Failure, Table, say};

/// The flags of `amphora recover`.
#[derive(Clone, Debug, Args)]
pub struct RecoverArgs {
    /// The directory of a node that does not run
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Make a new cluster of this node alone
    #[arg(long)]
    force_new_cluster: bool,
    /// Do it, not only say what would be done
    #[arg(long)]
    yes: bool,
}

fn failure(e: &amphora_replication::Error) -> Failure {
    Failure::from_error("could not recover", e)
}

/// Says what is there; with `--yes` makes a cluster of it.
pub async fn run(args: RecoverArgs) -> Result<(), Failure> {
    if !args.force_new_cluster {
        return Err(Failure::usage(
            "there is one way to recover, and it has to be asked for",
            "as long as a majority of the voters can be started again, nothing needs to be recovered: start them",
        )
        .next("if they are lost for ever, add --force-new-cluster"));
    }
    if !args.yes {
        let survivor = node::survey(&args.data_dir).map_err(|e| failure(&e))?;
        tell(&survivor);
        return Err(Failure::new("nothing has been changed", "this has to be confirmed").next(
            "run it without --yes on every directory that survived; then with --yes on the one with the greatest \
             term and, of those, the greatest last entry, and on no other",
        ));
    }
    let (cluster, before) = node::recover(&args.data_dir).await.map_err(|e| failure(&e))?;
    tell(&before);
    say!("\nnode {} is now the only member of a new cluster, {cluster}", before.node);
    say!("  1. start it as before, without --join");
    say!("  2. empty the data directories of all other nodes of the old cluster");
    say!("  3. start them with --join: they come in as new nodes");
    Ok(())
}

fn tell(survivor: &Survivor) {
    let mut table =
        Table::new(&["cluster", "node_id", "term", "last_log_index", "applied_index", "newest_commit"]);
    table.row(vec![
        survivor.cluster.to_string(),
        survivor.node.to_string(),
        survivor.term.to_string(),
        survivor.last_log_index.to_string(),
        survivor.applied_index.to_string(),
        age(survivor.newest.millis()),
    ]);
    super::print(format_args!("{}", table.plain()));
    let others: Vec<String> = survivor
        .members
        .iter()
        .filter(|(id, ..)| *id != survivor.node)
        .map(|(id, member, voter)| {
            format!("node {id} ({}{})", member.rpc_address, if *voter { "" } else { ", a learner" })
        })
        .collect();
    say!("other members: {}", if others.is_empty() { "none".to_owned() } else { others.join(", ") });
    say!("\nWhat may be lost:");
    say!(
        "  - strong tables: transactions that were acknowledged, and that this node had not received when it"
    );
    say!("    stopped; its newest is given above. What it received and was never acknowledged is kept.");
    say!("  - leaderless tables: what was acknowledged by other nodes and had not reached this one.");
    say!(
        "What must not happen: that other nodes of the old cluster are started again on their data. A majority of"
    );
    say!("them would be a second cluster. Those that reach this node are told so, and retire.");
}

/// How long ago, for a person.
fn age(millis: u64) -> String {
    if millis == 0 {
        return "none".to_owned();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = now.saturating_sub(Duration::from_millis(millis)).as_secs();
    match age {
        0..120 => format!("{age} s ago"),
        120..7200 => format!("{} min ago", age / 60),
        _ => format!("{} h ago", age / 3600),
    }
}

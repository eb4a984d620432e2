//! `amphora demo`: three real processes of this program, and what a hybrid cluster does, shown with real
//! statements and their real results.
//!
//! Nothing on the screen is prepared: every result is what a node answered, and every claim (✓ or ✗) is
//! checked against the data. With `--exit` the program ends with 0 only if all of them held.
//!
//! A [`Scenario`] is a list of chapters; a chapter is a method of [`Story`], in the file of the scenario that it
//! belongs to. What a chapter shows it runs through [`Story::show`], which prints the statement it sends.

mod bank;
mod cart;
mod cluster;
mod failover;
mod live;
mod load;
mod page_views;
mod partition;
mod profile;
mod rows;
mod scenario;
mod screen;
mod story;
mod work_queue;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::cli::{Failure, HostPort, say};
use crate::process::StopSignals;
pub use scenario::Scenario;
use story::Story;

/// The whole story may take this long.
const STORY_LIMIT: Duration = Duration::from_secs(300);

/// `amphora demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// What to show
    #[arg(long, value_enum, default_value_t)]
    scenario: Scenario,
    /// Say what there is to show, and end
    #[arg(long, conflicts_with_all = ["scenario", "exit", "dir"])]
    list: bool,
    /// Put load on a cluster that runs, strong and leaderless through each of these nodes, and say every two
    /// seconds what each of them did
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', conflicts_with_all = ["scenario", "exit", "dir", "list"])]
    load: Vec<HostPort>,
    /// Stop everything at the end; exit with 0 only if every claim held
    #[arg(long)]
    exit: bool,
    /// Keep the nodes' data and logs here [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<std::path::PathBuf>,
}

/// Something that keeps the story from going on.
#[derive(Debug)]
pub struct Trouble(String);

impl Trouble {
    fn new(what: impl Into<String>) -> Trouble {
        Trouble(what.into())
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(e: tokio_postgres::Error) -> Trouble {
        Trouble(screen::error_text(&e))
    }
}

impl From<std::io::Error> for Trouble {
    fn from(e: std::io::Error) -> Trouble {
        Trouble(e.to_string())
    }
}

/// Tells the story; the nodes are stopped whichever way this ends.
pub async fn run(args: DemoArgs) -> Result<ExitCode, Failure> {
    if args.list {
        scenario::list();
        return Ok(ExitCode::SUCCESS);
    }
    let mut signals = StopSignals::listen().map_err(|e| Failure::new("could not listen for signals", e))?;
    if !args.load.is_empty() {
        let put = live::put_load(args.load, signals);
        return put.await.map(|()| ExitCode::SUCCESS).map_err(|e| {
            Failure::new("there is no load", e)
                .next("check that the nodes run; --load takes their SQL addresses")
        });
    }
    let mut story = Story::begin(args.dir, args.scenario).map_err(|e| {
        Failure::new("the demonstration could not start", e).next("give it a directory with --dir")
    })?;
    let told = tokio::select! {
        told = tokio::time::timeout(STORY_LIMIT, args.scenario.tell(&mut story)) => told,
        signal = signals.next() => {
            say!("\n  Stopped by {signal}.");
            story.end(true).await;
            return Ok(ExitCode::FAILURE);
        }
    };
    let told = told.unwrap_or_else(|_| Err(Trouble::new(format!("not done within {STORY_LIMIT:?}"))));
    let finished = told.is_ok();
    if let Err(trouble) = told {
        story.claim(false, &format!("the story was told to its end: {trouble}"));
    }
    let held = story.summary();
    if !args.exit && finished {
        story.invite();
        signals.next().await;
    }
    story.end(held).await;
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

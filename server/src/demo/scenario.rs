//! What can be told, and in which chapters.

use clap::ValueEnum;

use super::Trouble;
use super::story::Story;
use crate::cli::say;

/// A story. What is said of each here is what `--list` and `--help` say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Everything: strong and leaderless tables, a killed leader, a partition
    #[default]
    Hybrid,
    /// Why money belongs in strong tables: the same transfers, leaderless, and what goes missing
    Bank,
    /// One profile edited on both sides of an ocean: columns merge, the loser can be restored
    ProfileTwoRegions,
    /// A cart that never says no, and a checkout that is never wrong, in one transaction
    Cart,
    /// Views counted on every node at once; a plain number beside a counter
    PageViews,
    /// Jobs that are done once, by workers on every node; and the same queue, leaderless
    WorkQueue,
    /// Transfers go on while the leader is killed
    Failover,
    /// Both sides of a partition do what their tables promise
    Partition,
}

impl Scenario {
    /// How many chapters it has.
    fn chapters(self) -> usize {
        match self {
            Scenario::Hybrid => 6,
            Scenario::Bank => 5,
            Scenario::Failover | Scenario::Partition => 3,
            Scenario::ProfileTwoRegions | Scenario::Cart | Scenario::PageViews | Scenario::WorkQueue => 4,
        }
    }

    /// The regions of the three nodes, where the story is about regions.
    pub fn regions(self) -> [Option<&'static str>; 3] {
        match self {
            Scenario::ProfileTwoRegions => [Some("eu"), Some("eu"), Some("us")],
            _ => [None; 3],
        }
    }

    /// Tells all of it.
    pub async fn tell(self, story: &mut Story) -> Result<(), Trouble> {
        story.expect_chapters(self.chapters());
        story.three_processes().await?;
        match self {
            Scenario::Hybrid => {
                story.two_kinds_of_table().await?;
                story.transfers_on_every_node().await?;
                story.kill_the_leader().await?;
                story.partition().await?;
                story.both_in_one().await
            }
            Scenario::Bank => story.bank().await,
            Scenario::ProfileTwoRegions => story.profile_in_two_regions().await,
            Scenario::Cart => story.cart().await,
            Scenario::PageViews => story.page_views().await,
            Scenario::WorkQueue => story.work_queue().await,
            Scenario::Failover => {
                story.two_kinds_of_table().await?;
                story.kill_the_leader().await
            }
            Scenario::Partition => {
                story.two_kinds_of_table().await?;
                story.partition().await
            }
        }
    }
}

/// `amphora demo --list`.
pub fn list() {
    let scenarios = Scenario::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    for scenario in scenarios {
        let about = scenario.get_help().map(ToString::to_string).unwrap_or_default();
        say!("  {:<20} {about}", scenario.get_name());
    }
    say!("\n  amphora demo --scenario NAME           tells it and leaves the cluster to you");
    say!("  amphora demo --scenario NAME --exit    ends by itself, with 0 only if every claim held");
}

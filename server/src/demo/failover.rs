//! The leader is killed while clients write.

use std::time::{Duration, Instant};

use super::Trouble;
use super::load::{Ledger, Load};
use super::story::{Story, first_error};

/// How long writes may be interrupted. The aim is 2 s; a claim that fails should mean more than a machine
/// that was busy with something else for a moment.
const GAP_LIMIT: Duration = Duration::from_secs(5);
/// Transfers of this chapter have ids of their own.
const FIRST_ID: i64 = 1_000_000;

impl Story {
    pub(super) async fn kill_the_leader(&mut self) -> Result<(), Trouble> {
        self.chapter("The leader is killed while clients write");
        let leader = self.cluster.leader().await?;
        let ports = self.cluster.nodes.iter().map(|n| n.pg).collect();
        let load = Load::start(ports, FIRST_ID, Ledger::STRONG);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let pid = self.cluster.node(leader)?.pid();
        self.screen.say(&format!("n{} is the leader: kill -9 {pid}", leader + 1));
        let killed = Instant::now();
        self.cluster.node_mut(leader)?.kill();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let outcome = load.stop().await;
        let successor = self.cluster.leader().await?;
        self.screen.say(&format!(
            "n{} leads now; clients of n{} went to other nodes.",
            successor + 1,
            leader + 1
        ));
        let gap = outcome.gap_around(killed);
        self.claim(
            gap.is_some_and(|gap| gap < GAP_LIMIT),
            &match gap {
                Some(gap) => format!("writes went on after a gap of {} ms", gap.as_millis()),
                None => format!("writes went on within {GAP_LIMIT:?}"),
            },
        );
        let (count, unknown) = (outcome.acknowledged.len(), outcome.unknown);
        self.claim(
            outcome.unexpected.is_empty(),
            &format!(
                "{count} transfers acknowledged; {unknown} were cut off, and their clients know that they do not \
                 know{}",
                first_error(&outcome.unexpected)
            ),
        );
        self.screen.say(&format!("n{} is started again on its own data.", leader + 1));
        let node = self.cluster.node_mut(leader)?;
        let start = Instant::now();
        node.start()?;
        node.wait_ready().await?;
        self.claim(
            true,
            &format!(
                "n{} is back and has caught up, {} ms after its start",
                leader + 1,
                start.elapsed().as_millis()
            ),
        );
        self.audit_all(outcome.acknowledged).await
    }
}

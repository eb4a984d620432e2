//! Snapshots of another age than linearizable ones, and those that follow a token.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use amphora_storage::Timestamp;
use amphora_storage::schema::{Quorum, Table};

use super::HybridTransaction;
use crate::api::ReadMode;
use crate::strong::{FOLLOW_PATIENCE, not_caught_up};
use crate::{Error, Result};

/// Between two looks at what has been merged.
const MERGE_INTERVAL: Duration = Duration::from_millis(5);

impl HybridTransaction {
    /// A snapshot as the read mode and the token want it.
    pub(super) async fn take_chosen_snapshot(&mut self) -> Result<()> {
        let group = self.context.group.clone();
        let least = self.token.as_ref().map_or(Timestamp::ZERO, |token| token.strong);
        if let ReadMode::AsOf(at) = self.mode {
            let at = group.settle(at).await?;
            self.snapshot = Some(group.hold_past(at)?);
            self.taken = self.mode;
        } else {
            let (at, taken) = self.choose_timestamp(least).await?;
            self.snapshot = Some(match group.hold_history(at) {
                // History moved past it meanwhile. The next is newer than that.
                Err(e) if e.sqlstate == "72000" => {
                    group.hold_history(self.choose_timestamp(least).await?.0)?
                }
                held => held?,
            });
            self.taken = taken;
        }
        self.begin_snapshot();
        Ok(())
    }

    async fn choose_timestamp(&self, least: Timestamp) -> Result<(Timestamp, ReadMode)> {
        let group = &self.context.group;
        group.follow(least).await?;
        if let ReadMode::Stale(bound) = self.mode {
            return match group.stale_timestamp(bound) {
                Some(at) => Ok((at, self.mode)),
                None => Ok((group.read_timestamp_instead(bound).await?, ReadMode::Linearizable)),
            };
        }
        Ok((group.read_timestamp_after(least).await?, ReadMode::Linearizable))
    }

    /// Waits until this node has merged what the token stands for. What transactions over both kinds of table wrote
    /// comes with the strong part of it.
    pub(super) async fn follow_leaderless(&self) -> Result<()> {
        let Some(token) = &self.token else { return Ok(()) };
        self.context.group.follow(token.strong).await?;
        let caught_up = async {
            while !self.context.leaderless.applied().covers(&token.leaderless) {
                tokio::time::sleep(MERGE_INTERVAL).await;
            }
        };
        tokio::time::timeout(FOLLOW_PATIENCE, caught_up)
            .await
            .map_err(|_| not_caught_up("commits of leaderless tables are missing"))
    }

    pub(super) fn read_quorum_of(&self, table: &Table) -> Quorum {
        self.quorums.read.unwrap_or(table.read_quorum)
    }

    /// Learns what the read quorums of these tables have, and waits until it is here.
    pub(super) async fn ask_read_quorums(&self, tables: &[Arc<Table>]) -> Result<()> {
        let leaderless = tables.iter().filter(|table| !table.is_strong());
        let quorums: BTreeSet<Quorum> = leaderless.map(|table| self.read_quorum_of(table)).collect();
        for quorum in &quorums {
            self.context.leaderless.check_quorum("read", *quorum)?;
        }
        self.context.leaderless.ask_quorums(&quorums, self.quorums.patience).await
    }

    /// Tables have a past only as far back as they looked as they do now.
    pub(super) fn check_past(&self, tables: &[Arc<Table>]) -> Result<()> {
        for table in tables {
            if table.version > self.snapshot() {
                let message =
                    format!("the definition of table \"{}\" has changed since that time", table.name);
                return Err(Error::new("0A000", message)
                    .hint("A table can be read as of a time after its last CREATE, ALTER or TRUNCATE."));
            }
        }
        Ok(())
    }
}

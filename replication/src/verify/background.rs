//! All tables, one after another, now and then, by whoever leads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amphora_storage::schema::TableId;

use crate::api::Verification;
use crate::node::Node;

/// Between two attempts to mend what was met damaged.
const AFTER_DAMAGE: Duration = Duration::from_secs(2);
/// How often it is looked whether it is time.
const LOOK: Duration = Duration::from_secs(60);
/// The first check of a leadership comes after so long, if the period is not shorter.
const FIRST: Duration = Duration::from_secs(600);

impl Node {
    /// Checks all tables every so often while this node leads.
    pub(crate) async fn verify_now_and_then(self: Arc<Self>) {
        let every = self.verify_options().every;
        if every.is_zero() {
            return;
        }
        let look = LOOK.min(every);
        let mut next = Instant::now() + FIRST.min(every);
        loop {
            tokio::time::sleep(look).await;
            if !self.group().is_leader() {
                next = Instant::now() + FIRST.min(every);
                continue;
            }
            if Instant::now() >= next {
                self.verify_all().await;
                next = Instant::now() + every;
            }
        }
    }

    /// Compares leaderless tables in which damaged rows were met: until they are replaced, commits that change them
    /// cannot be joined.
    pub(crate) async fn mend_damage(self: Arc<Self>) {
        loop {
            let keyspaces = self.leaderless().met_damage().await;
            let catalog = crate::api::Engine::catalog(&*self);
            for table in catalog.tables().filter(|table| keyspaces.contains(&table.keyspace())) {
                if let Err(e) = self.verify(table.id, None).await {
                    tracing::warn!(table = %table.name, "a damaged table could not be compared: {e}");
                }
            }
            // Who is needed for it may be away.
            tokio::time::sleep(AFTER_DAMAGE).await;
        }
    }

    async fn verify_all(&self) {
        let began = Instant::now();
        let rate = self.verify_options().bytes_per_second;
        let tables: Vec<TableId> = crate::api::Engine::catalog(self).tables().map(|t| t.id).collect();
        let (mut checked, mut wrong) = (0, 0);
        for table in tables {
            if !self.group().is_leader() {
                return;
            }
            match self.verify(table, Some(rate)).await {
                Ok(found) => {
                    checked += 1;
                    wrong += usize::from(found.iter().any(|one| one.verdict.is_wrong()));
                }
                // Dropped meanwhile, or nobody leads: the next look is soon enough.
                Err(e) => tracing::debug!(table = table.0, "could not be checked: {e}"),
            }
        }
        tracing::info!(checked, wrong, seconds = began.elapsed().as_secs(), "all tables were checked");
    }

    /// Keeps the newest findings of each table that there is.
    pub(super) fn remember_verifications(&self, found: Vec<Verification>) {
        let catalog = crate::api::Engine::catalog(self);
        let news: BTreeSet<TableId> = found.iter().map(|one| one.table).collect();
        let mut known = self.verifications.lock();
        known.retain(|one| !news.contains(&one.table) && catalog.table_by_id(one.table).is_some());
        known.extend(found);
    }
}

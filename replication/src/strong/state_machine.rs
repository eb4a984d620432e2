//! openraft's state machine: [`Replica`] in openraft's words.

use std::io;
use std::sync::Arc;

use futures::{Stream, TryStreamExt};
use openraft::alias::SnapshotOf;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use tokio::task::spawn_blocking;

use super::replica::Replica;
use super::snapshot::{self, SnapshotData};
use super::types::{LogId, SnapshotMeta, StoredMembership, TypeConfig};

/// Entries applied in one go, at most.
const MAX_ENTRIES: usize = 256;

/// See the module's text.
#[derive(Clone)]
pub struct StateMachine {
    replica: Arc<Replica>,
}

impl StateMachine {
    /// The state machine of a replica.
    pub fn new(replica: Arc<Replica>) -> StateMachine {
        StateMachine { replica }
    }
}

type Snapshot = SnapshotOf<TypeConfig, SnapshotData>;

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let replica = self.replica.clone();
        let meta = spawn_blocking(move || replica.flush())
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        Ok(Snapshot { meta, snapshot: SnapshotData::Own(self.replica.clone()) })
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = StateMachine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let position = self.replica.position();
        Ok((position.log_id, position.membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut ready = Vec::new();
        while let Some(entry) = entries.try_next().await? {
            ready.push(entry);
            if ready.len() >= MAX_ENTRIES {
                self.replica.apply(std::mem::take(&mut ready)).map_err(io::Error::other)?;
            }
        }
        if !ready.is_empty() {
            self.replica.apply(ready).map_err(io::Error::other)?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> StateMachine {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let directory = snapshot::directory(snapshot).await?;
        let (replica, meta) = (self.replica.clone(), meta.clone());
        spawn_blocking(move || replica.install(&meta, &directory.path))
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshot = SnapshotData::Own(self.replica.clone());
        Ok(self.replica.snapshot().map(|meta| Snapshot { meta, snapshot }))
    }
}

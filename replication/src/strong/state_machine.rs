//! openraft's state machine: [`Replica`] in openraft's words.

use std::io;
use std::sync::Arc;

use futures::{Stream, TryStreamExt};
use openraft::EntryPayload;
use openraft::alias::SnapshotOf;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use tokio::task::spawn_blocking;

use super::replica::{Replica, ToApply};
use super::snapshot::{self, SnapshotData};
use super::types::{Command, LogId, SnapshotMeta, StoredMembership, TypeConfig};

/// Entries applied in one go, at most.
const MAX_ENTRIES: usize = 256;
/// Bytes applied in one go, at most, unless one entry has more.
const MAX_BYTES: usize = 4 << 20;
/// From so many bytes on, entries are applied off the async threads.
const HEAVY: usize = 256 << 10;

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

/// Bytes that applying an entry writes, about.
fn weight((entry, _): &ToApply) -> usize {
    match &entry.payload {
        EntryPayload::Normal(Command::Commit(batch)) => {
            let staged = batch.transactions.iter().map(|t| t.staged.bytes as usize).sum::<usize>();
            batch.size() + staged
        }
        _ => 0,
    }
}

impl StateMachine {
    /// Small batches are applied here and now, which costs less than to hand them over; large ones where
    /// they may take their time.
    async fn apply_ready(&self, ready: Vec<ToApply>, bytes: usize) -> Result<(), io::Error> {
        if bytes < HEAVY {
            return self.replica.apply(ready).map_err(io::Error::other);
        }
        let replica = self.replica.clone();
        let applied = spawn_blocking(move || replica.apply(ready)).await;
        applied.map_err(io::Error::other)?.map_err(io::Error::other)
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
        Ok((position.log_id, (*position.membership).clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut ready = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = entries.try_next().await? {
            bytes += weight(&entry);
            ready.push(entry);
            if ready.len() >= MAX_ENTRIES || bytes >= MAX_BYTES {
                self.apply_ready(std::mem::take(&mut ready), std::mem::take(&mut bytes)).await?;
            }
        }
        if !ready.is_empty() {
            self.apply_ready(ready, bytes).await?;
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

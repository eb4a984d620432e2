//! Recovery of a cluster that has lost its majority for ever, from the directory of one survivor.
//!
//! First the cluster gets another id, then the group another membership ([`strong::recovery`](crate::strong::recovery)).
//! In this order: cut short, the node belongs to no one's majority, and the command is run again. The old id is kept,
//! so that members of the old cluster that come back after all are told what has happened, and retire.

use std::path::Path;

use amphora_storage::{
    DataDir, Identity as StoredIdentity, RaftLog, RaftLogOptions, Store, StoreOptions, Timestamp,
};
use uuid::Uuid;

use super::operations::removed;
use crate::strong::{Member, recovery};
use crate::{Error, NodeId, Result};

/// What a data directory tells of its cluster.
#[derive(Clone, Debug)]
pub struct Survivor {
    /// The cluster, before a recovery
    pub cluster: Uuid,
    /// Whose directory it is
    pub node: NodeId,
    /// The members it knows, true if a voter
    pub members: Vec<(NodeId, Member, bool)>,
    /// The greatest term it has heard of
    pub term: u64,
    /// The last entry of its log: of several survivors, the one with the greatest term and entry has the most
    pub last_log_index: u64,
    /// The last entry applied to its tables
    pub applied_index: u64,
    /// The newest commit it has
    pub newest: Timestamp,
}

struct Opened {
    dir: DataDir,
    identity: StoredIdentity,
    store: std::sync::Arc<Store>,
    log: std::sync::Arc<RaftLog>,
}

fn open(path: &Path) -> Result<Opened> {
    if !path.exists() {
        return Err(Error::new("58P01", format!("there is no directory \"{}\"", path.display())));
    }
    let dir = DataDir::open(path)?;
    if let Some(why) = dir.removed()? {
        return Err(removed(&why));
    }
    let Some(identity) = dir.identity()? else {
        return Err(Error::new("58P01", format!("\"{}\" is not the directory of a member", path.display()))
            .hint("Give the --data-dir that the node was started with."));
    };
    let store = Store::open(dir.path(), StoreOptions::default())?;
    let log = RaftLog::open(dir.path(), RaftLogOptions::default())?;
    Ok(Opened { dir, identity, store, log })
}

fn describe(opened: &Opened) -> Result<Survivor> {
    let remains = recovery::survey(&opened.store, &opened.log)?;
    Ok(Survivor {
        cluster: opened.identity.cluster_id,
        node: opened.identity.node_id,
        members: remains.members,
        term: remains.term,
        last_log_index: remains.last,
        applied_index: remains.applied,
        newest: remains.newest,
    })
}

/// Looks at the directory of a node that does not run, and changes nothing.
pub fn survey(path: &Path) -> Result<Survivor> {
    describe(&open(path)?)
}

/// Makes a cluster of its own of the directory of a node that does not run. Its new id, and what it was before.
pub async fn recover(path: &Path) -> Result<(Uuid, Survivor)> {
    let opened = open(path)?;
    let before = describe(&opened)?;
    let cluster = Uuid::new_v4();
    let mut former_clusters = opened.identity.former_clusters.clone();
    former_clusters.push(before.cluster);
    let identity = StoredIdentity { cluster_id: cluster, former_clusters, ..opened.identity.clone() };
    opened.dir.write_identity(&identity)?;
    recovery::force_single(&opened.store, &opened.log, before.node).await?;
    let store = opened.store.clone();
    let flushed = tokio::task::spawn_blocking(move || store.flush()).await;
    flushed.map_err(|e| Error::new("58000", e.to_string()))??;
    Ok((cluster, before))
}

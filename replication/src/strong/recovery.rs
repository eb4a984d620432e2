//! Recovery from the permanent loss of the majority: a group of one, made of what one node has.
//!
//! A group that has lost its majority for ever cannot decide anything, not even to go on without. So somebody
//! decides for it: the log of one survivor gets an entry that no majority has agreed to, a membership with that node
//! alone, under a leadership above all that it knows of. When the node starts it finds itself the only voter,
//! elects itself and commits its whole log.
//!
//! ```text
//!   survivor's log   1 2 3 … 40 41 42 │ 43: members = {this node}, term + 1
//!                    ▲ committed  ▲   ▲
//!                    └ applied    └ not known to be committed: they are now
//!   a lost majority  1 2 3 … 40 41 42   43' 44'   ← acknowledged, never seen here: lost
//! ```
//!
//! The others must never speak to it again, since they may be a majority of the old group among themselves.
//! So the cluster gets a new id first ([`node::recover`](crate::node::recover)), and whoever has the old one is refused.

use std::collections::{BTreeMap, BTreeSet};

use amphora_storage::raft_log::RaftLog;
use amphora_storage::store::Store;
use amphora_storage::{Timestamp, codec};
use openraft::{EntryPayload, Membership};

use super::replica::{Position, storage_error};
use super::types::{Command, Entry, LeaderId, LogId, Member, Vote};
use crate::{Error, NodeId, Result};

/// Bytes of the log read at a time.
const READ_BYTES: usize = 4 << 20;

/// How a group stands on the disk of one node.
#[derive(Clone, Debug, Default)]
pub struct Remains {
    /// Members, addresses, true if a voter: as this node last heard
    pub members: Vec<(NodeId, Member, bool)>,
    /// The greatest term it has heard of
    pub term: u64,
    /// The last entry it has
    pub last: u64,
    /// The last entry it has applied
    pub applied: u64,
    /// The newest commit it has
    pub newest: Timestamp,
}

/// What [`survey`] has found out.
struct Found {
    remains: Remains,
    last: Option<LogId>,
    vote: Option<Vote>,
}

fn look(store: &Store, log: &RaftLog) -> Result<Found> {
    let position: Position = match store.applied().map_err(storage_error)? {
        Some(bytes) => codec::decode(&bytes).map_err(storage_error)?,
        None => Position::default(),
    };
    let vote: Option<Vote> = match log.vote().map_err(storage_error)? {
        Some(bytes) => Some(codec::decode(&bytes).map_err(storage_error)?),
        None => None,
    };
    let mut membership = position.membership.membership().clone();
    let mut last = position.log_id;
    let mut newest = position.timestamp;
    let mut next = last.map_or(0, |id| id.index + 1).max(log.first().unwrap_or(0));
    while log.last().is_some_and(|end| next <= end) {
        for (index, bytes) in log.read(next..u64::MAX, READ_BYTES).map_err(storage_error)? {
            let entry: Entry = codec::decode(&bytes).map_err(storage_error)?;
            last = Some(entry.log_id);
            next = index + 1;
            match entry.payload {
                EntryPayload::Membership(newer) => membership = newer,
                EntryPayload::Normal(Command::Commit(batch)) => {
                    newest = newest.max(batch.transactions.last().map_or(newest, |t| t.timestamp));
                }
                EntryPayload::Blank => {}
            }
        }
    }
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let members = membership.nodes().map(|(id, m)| (*id, m.clone(), voters.contains(id))).collect();
    let terms = [vote.map(|v| v.leader_id.term), last.map(|id| id.leader_id.term)];
    let remains = Remains {
        members,
        term: terms.into_iter().flatten().max().unwrap_or(0),
        last: last.map_or(0, |id| id.index),
        applied: position.log_id.map_or(0, |id| id.index),
        newest,
    };
    Ok(Found { remains, last, vote })
}

/// How the group stands on this node's disk.
pub fn survey(store: &Store, log: &RaftLog) -> Result<Remains> {
    look(store, log).map(|found| found.remains)
}

/// Makes this node the only member, durably. May be repeated.
pub async fn force_single(store: &Store, log: &RaftLog, node: NodeId) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| Error::new("58000", format!("the log cannot be changed: {e}"));
    let found = look(store, log)?;
    let Some((_, member, _)) = found.remains.members.iter().find(|(id, ..)| *id == node) else {
        return Err(Error::new(
            "55000",
            format!("node {node} is not a member of the group its log tells of"),
        ));
    };
    let member = Member { learner: false, ..member.clone() };
    let membership = Membership::new(vec![BTreeSet::from([node])], BTreeMap::from([(node, member)]));
    let membership = membership.map_err(|e| failed(&e))?;
    let leader_id = LeaderId { term: found.remains.term + 1, node_id: node };
    let index = found.last.map_or(0, |id| id.index + 1);
    let entry = Entry { log_id: LogId { leader_id, index }, payload: EntryPayload::Membership(membership) };
    let vote = Vote { leader_id, committed: true };
    debug_assert!(found.vote.is_none_or(|known| known < vote));
    log.save_vote(&codec::encode(&vote), Box::new(drop)).map_err(storage_error)?;
    log.append([(index, codec::encode(&entry))], Box::new(drop)).map_err(storage_error)?;
    log.flushed().await.map_err(|e| failed(&e))
}

//! Where nodes differ that should not, and what mends it: what a node answers to whoever compares.
//!
//! While nodes write, two of them are never equal, and that is no fault. What must hold at any moment is this:
//!
//! > *What a node has of a row when it has seen V, changes nothing by being joined on a node that has seen V.*
//!
//! V is the node's version vector together with its place in the Raft log. So a difference is located by hashes
//! ([`merkle`](super::merkle)), which may well be of writes under way, and then tried: the state goes to the other node together with V, that
//! node waits until it has seen V, and joins. If that changes anything, something was lost there, and is mended by the same
//! join. It is tried in both directions, and no writer waits for it.
//!
//! ```text
//!     A (compares)                                 B
//!     tree over [a, z) ─────────────────────────►  the same ranges, hashed
//!     rows that differ ─────────────────────────►  states, and V(B)
//!     waits until V(A) ≥ V(B), joins               news to A? then A had lost it
//!     states, and V(A) ─────────────────────────►  waits until V(B) ≥ V(A), joins: news to B? then B had lost it
//! ```
//!
//! A row whose checksum is wrong is never sent and never joined into: it is replaced by what a node has that has seen
//! all that the damaged one had seen. Nothing was joined into the row meanwhile, because that fails.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use amphora_storage::key::split_prefix;
use amphora_storage::store::{Cf, Direction, PlainEntry};
use serde::{Deserialize, Serialize};

use super::conflicts::Lost;
use super::dots::VersionVector;
use super::engine::{Engine, Rows};
use super::merkle::{Hash, Leaves, MAX_LEAVES, MerkleTree, TreeBuilder, row_hash};
use super::row_state::RowState;
use super::stored_row::{self, StoredRow};
use crate::{Error, Result};

/// Rows asked for, or sent, at a time.
pub const ROWS_AT_A_TIME: usize = 64;
/// Bytes of states sent at a time, unless one row has more.
const STATE_BYTES: usize = 2 << 20;
/// Hashes of rows sent at a time.
const HASHES_AT_A_TIME: usize = 4096;

/// Up to where a node has seen everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Commits of nodes
    pub vector: VersionVector,
    /// The entry of the Raft log
    pub group: u64,
}

/// What is asked of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RepairRequest {
    /// The tree of these ranges over your rows, if its root is not this
    Tree(Leaves, Option<Hash>),
    /// The rows of a range, hashed
    Hashes(Range<Vec<u8>>),
    /// The states of some rows, once you have seen this
    States(Vec<Vec<u8>>, Seen),
    /// Here are states: join them, once you have seen this
    Join(Vec<OfferedRow>, Seen),
    /// Put on disk what you joined so
    Keep,
}

/// A row to be joined.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OfferedRow {
    /// Its key
    pub key: Vec<u8>,
    /// What somebody has of it
    pub state: RowState,
    /// The receiver has said that it is damaged there
    pub replace: bool,
}

/// What a node answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RepairReply {
    /// The same root, over so many rows
    Same(u64),
    /// Another tree
    Tree(MerkleTree),
    /// Rows in the order of their keys
    Hashes(RowHashes),
    /// The states of the first of the rows asked for
    States(Vec<FoundRow>, Seen),
    /// Those of the rows to which it was news
    Joined(Vec<Vec<u8>>),
    /// It has not seen enough yet: ask again
    Behind,
    /// It could not be done
    Failed(String),
    /// It could not be done, because of what is on the node's disk
    Unreadable(String),
}

/// Some rows of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowHashes {
    /// Keys and hashes, in the order of keys
    pub rows: Vec<(Vec<u8>, Hash)>,
    /// Where to go on, if these are not all
    pub next: Option<Vec<u8>>,
}

/// What a node has of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FoundRow {
    /// Nothing
    Absent,
    /// A state
    Sound(RowState),
    /// Something that is no state
    Damaged,
}

/// A stretch of this node's rows, cut into leaves.
pub struct Stretch {
    /// The leaves
    pub leaves: Leaves,
    /// Their tree
    pub tree: MerkleTree,
    /// Bytes that were read
    pub bytes: usize,
    /// Rows whose checksum is wrong
    pub damaged: Vec<Vec<u8>>,
}

impl Engine {
    /// Cuts what this node has from a key on into leaves, up to the end of a range or as many as a tree has. Blocks.
    pub fn stretch(&self, range: Range<Vec<u8>>) -> Result<Stretch> {
        let mut starts = vec![range.start.clone()];
        let (mut tree, mut bytes, mut damaged) = (TreeBuilder::default(), 0, Vec::new());
        let mut end = range.end.clone();
        self.each_stored(range, |key, stored| {
            if tree.is_leaf_full() {
                tree.close_leaf();
                if tree.closed() == MAX_LEAVES {
                    end = key.to_vec();
                    return false;
                }
                starts.push(key.to_vec());
            }
            bytes += key.len() + stored.len();
            if !stored_row::is_sound(key, stored) {
                damaged.push(key.to_vec());
            }
            tree.add(&row_hash(key, stored), key.len() + stored.len());
            true
        })?;
        if tree.closed() < MAX_LEAVES {
            tree.close_leaf();
        }
        Ok(Stretch { leaves: Leaves { starts, end }, tree: tree.finish(), bytes, damaged })
    }

    /// The tree of these ranges. Blocks.
    fn tree(&self, leaves: &Leaves) -> Result<MerkleTree> {
        let whole = leaves.starts.first().cloned().unwrap_or_default()..leaves.end.clone();
        let (mut tree, mut leaf) = (TreeBuilder::default(), 0);
        self.each_stored(whole, |key, stored| {
            while leaves.starts.get(leaf + 1).is_some_and(|next| next.as_slice() <= key) {
                tree.close_leaf();
                leaf += 1;
            }
            tree.add(&row_hash(key, stored), key.len() + stored.len());
            true
        })?;
        for _ in leaf..leaves.starts.len() {
            tree.close_leaf();
        }
        Ok(tree.finish())
    }

    /// The rows of a range, hashed, as many as are sent at a time. Blocks.
    pub fn hashes(&self, range: Range<Vec<u8>>) -> Result<RowHashes> {
        let mut found = RowHashes { rows: Vec::new(), next: None };
        self.each_stored(range, |key, stored| {
            if found.rows.len() == HASHES_AT_A_TIME {
                found.next = Some(key.to_vec());
                return false;
            }
            found.rows.push((key.to_vec(), row_hash(key, stored)));
            true
        })?;
        Ok(found)
    }

    /// Shows the rows of a range as they are stored, until there is enough.
    fn each_stored(&self, range: Range<Vec<u8>>, mut visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        if range.start >= range.end {
            return Ok(());
        }
        self.settle()?;
        let mut scan = self.log.store().scan_plain(Cf::Leaderless, range, Direction::Forward)?;
        while let Some(PlainEntry { key, value }) = scan.next()? {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    /// The states of the first of some rows, and what this node has seen then at the most. `group` is the entry of the
    /// Raft log that it is known to have applied. Blocks.
    pub fn found(&self, keys: &[Vec<u8>], group: u64) -> Result<(Vec<FoundRow>, Seen)> {
        if self.in_transfer.load(Ordering::Acquire) {
            let message = "it is getting whole tables from another node";
            return Err(Error::new("57P03", message));
        }
        // No batch is half in rows that are read under the lock.
        let _lock = self.log.store().merge_lock();
        self.settle_owed()?;
        let mut seen = Seen { vector: self.applied(), group };
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for key in keys {
            let stored = self.log.store().get_plain(Cf::Leaderless, key)?;
            bytes += stored.as_ref().map_or(0, Vec::len);
            if bytes > STATE_BYTES && !rows.is_empty() {
                break;
            }
            rows.push(match stored.map(|stored| stored_row::decode(key, &stored)) {
                None => FoundRow::Absent,
                Some(StoredRow::Damaged) => FoundRow::Damaged,
                Some(StoredRow::Sound(state)) => {
                    seen.group = seen.group.max(state.group_index.log_index);
                    FoundRow::Sound(state)
                }
            });
        }
        Ok((rows, seen))
    }

    /// Joins rows of a node that had seen no more than this one has now, and returns those that should not have changed
    /// by that, and did. Blocks.
    pub fn join_offered(&self, offered: &[OfferedRow]) -> Result<Vec<Vec<u8>>> {
        let _lock = self.log.store().merge_lock();
        self.settle_owed()?;
        let (mut rows, mut news, mut replaced) = (Rows::new(self), Vec::new(), BTreeSet::new());
        for OfferedRow { key, state, replace } in offered {
            let stored = self.log.store().get_plain(Cf::Leaderless, key)?;
            let mut joined = match (self.hot.get(key), &stored) {
                // In memory is what was written, whatever has become of it on disk.
                (Some(hot), _) => RowState::clone(&hot),
                (None, None) => RowState::default(),
                (None, Some(stored)) => match stored_row::decode(key, stored) {
                    StoredRow::Sound(state) => state,
                    StoredRow::Damaged if *replace => {
                        replaced.extend(split_prefix(key).map(|(keyspace, ..)| keyspace));
                        RowState::default()
                    }
                    // It was not yet when its owner told what it had seen.
                    StoredRow::Damaged => continue,
                },
            };
            // Entries of indexes follow it.
            let before = joined.clone();
            joined.join(state);
            let unknown = stored.is_none() && joined == RowState::default();
            if !unknown && stored.as_deref() != Some(stored_row::encode(key, &joined).as_slice()) {
                rows.put(key, before, joined);
                news.push(key.clone());
            }
        }
        if !news.is_empty() {
            let mut beside = Lost::default();
            self.indexes.renew(&replaced, &mut beside.batch);
            self.write_beside(beside, rows, &self.applied(), Vec::new())?;
            // The log does not have them.
            self.settle_owed()?;
        }
        Ok(news)
    }

    /// Answers whoever compares. `group` is what this node has applied of the Raft log. Blocks.
    pub fn answer_repair(&self, request: RepairRequest, group: u64) -> RepairReply {
        let answer = match request {
            RepairRequest::Tree(leaves, root) => {
                self.tree(&leaves).map(|tree| match tree.root() == root.as_ref() {
                    true => RepairReply::Same(tree.rows),
                    false => RepairReply::Tree(tree),
                })
            }
            RepairRequest::Hashes(range) => self.hashes(range).map(RepairReply::Hashes),
            RepairRequest::States(keys, _) => {
                self.found(&keys, group).map(|(rows, seen)| RepairReply::States(rows, seen))
            }
            RepairRequest::Join(rows, _) => self.join_offered(&rows).map(RepairReply::Joined),
            RepairRequest::Keep => {
                self.log.store().flush().map_err(Error::from).map(|()| RepairReply::Joined(Vec::new()))
            }
        };
        answer.unwrap_or_else(|e| match e.sqlstate {
            "XX001" | "58030" => RepairReply::Unreadable(e.to_string()),
            _ => RepairReply::Failed(e.to_string()),
        })
    }

    /// True as soon as this node has seen that much of the nodes' commits; false if not in time.
    pub async fn wait_seen(&self, seen: &Seen, limit: Duration) -> bool {
        self.wait_covers(&seen.vector, limit).await.is_ok()
    }
}

//! How much of the op log is kept, and what becomes of a member that was away for longer.
//!
//! ```text
//!   oldest                                                              newest
//!   ├── every member has it ──┼── 64 MB more ──┼── some member lacks it ──┤
//!   │      given up                             │                          │
//!   └───────── beyond --op-log-size, --op-log-age: given up, whoever lacks it
//! ```
//!
//! What every member has is given up, but for the newest of it. What a member lacks is kept for it until the log is
//! larger or older than its limits. From then on the member is *behind the log*: when it comes back it is sent the rows
//! themselves, tombstones included. It keeps what only it has, which it sends as commits, like anything else it wrote; and
//! what was deleted while it was away stays deleted, because rows are joined and its older ones cannot win. Until
//! the transfer is over it serves what it has, and says in its log and in `amphora.nodes` that it is not level.
//!
//! A local write never waits for a member. Only if the log grows to twice its limit because not even flushed rows
//! are to be had, so that nothing can be given up, it is refused (53100).

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::dots::VersionVector;
use super::engine::Engine;
pub use super::oplog::OpLogLimits;
use crate::{Error, NodeId, Result};

/// A transfer of rows of which nothing was heard for so long is one no more.
const TRANSFER_IDLE: Duration = Duration::from_secs(30);

/// How far a member is with leaderless tables, as one node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Progress {
    /// It has all that this node has committed
    Level,
    /// It is sent the commits that it lacks
    Behind,
    /// What it lacks is not in the op log any more: it will be sent rows
    BehindTheLog,
    /// It is being sent rows
    Reseeding,
    /// It has not been heard
    Unknown,
}

impl Progress {
    /// As the views print it.
    pub fn as_str(self) -> &'static str {
        match self {
            Progress::Level => "level",
            Progress::Behind => "behind",
            Progress::BehindTheLog => "behind the op log",
            Progress::Reseeding => "re-seeding",
            Progress::Unknown => "unknown",
        }
    }
}

/// A transfer of rows to a peer. It is over when this is dropped.
pub(super) struct Sending<'a> {
    engine: &'a Engine,
    peer: NodeId,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(peer) = self.engine.members.lock().peers.get_mut(&self.peer) {
            peer.reseeding = false;
        }
    }
}

impl Engine {
    /// How much of the log is kept, and how fast members are helped back.
    pub fn set_limits(&self, limits: OpLogLimits) {
        *self.limits.lock() = limits;
    }

    /// Removes from the op log what nobody needs, and what is beyond its limits. Blocks.
    pub fn truncate(&self) -> Result<()> {
        let mut limits = *self.limits.lock();
        if self.log.bytes() > limits.bytes {
            // Only what is in flushed rows can go. So that this is not to be done again at once, more goes than has to.
            self.settle()?;
            self.log.store().flush()?;
            limits.bytes -= limits.bytes / 8;
        }
        let acked = self.acked_by_all().unwrap_or_default();
        let given_up = self.log.truncate(&acked, &limits)?;
        self.note_left_behind(&given_up);
        Ok(())
    }

    /// 53100 if the log cannot be brought back to its limit, because rows cannot be flushed.
    pub(super) fn check_room(&self) -> Result<()> {
        let (bytes, limits) = (self.log.bytes(), *self.limits.lock());
        if bytes <= limits.bytes {
            return Ok(());
        }
        self.beyond.notify_one();
        if bytes <= limits.bytes.saturating_mul(2).saturating_add(limits.slack) {
            return Ok(());
        }
        Err(Error::new("53100", "the op log of leaderless tables is full")
            .detail(format!("It has {} MB, and --op-log-size is {} MB.", bytes >> 20, limits.bytes >> 20))
            .hint("Nothing of it can be given up before rows are flushed. Look in the log for a full or failing disk."))
    }

    /// Says once of each member that it lacks what was given up.
    fn note_left_behind(&self, given_up: &VersionVector) {
        for (id, peer) in &mut self.members.lock().peers {
            let left_behind = peer.stream.heard().is_some() && !peer.stream.acked().covers(given_up);
            if left_behind && !std::mem::replace(&mut peer.left_behind, true) {
                tracing::warn!(
                    peer = id,
                    "the op log has come to its limits, and what the peer lacks of it is given up: when it is back it \
                     will be sent the rows"
                );
            }
        }
    }

    /// What every member has on disk; `None` while some member has not been heard.
    pub(super) fn acked_by_all(&self) -> Option<VersionVector> {
        let mut acked = self.vector();
        for peer in self.members.lock().peers.values() {
            peer.stream.heard()?;
            acked.meet(peer.stream.acked());
        }
        Some(acked)
    }

    /// A transfer of rows to a peer begins.
    pub(super) fn sending(&self, peer: NodeId) -> Sending<'_> {
        if let Some(peer) = self.members.lock().peers.get_mut(&peer) {
            peer.reseeding = true;
            peer.left_behind = false;
        }
        Sending { engine: self, peer }
    }

    /// A page of rows has come: the last of a transfer, or one before that.
    pub(super) fn note_transfer(&self, from: NodeId, goes_on: bool) {
        let now = Instant::now();
        let before = std::mem::replace(&mut *self.reseeded.lock(), goes_on.then_some(now));
        let is_first = goes_on && before.is_none_or(|before| now > before + TRANSFER_IDLE);
        if is_first {
            tracing::warn!(
                from,
                "this node was away for longer than its peers keep their op logs: it is sent all leaderless rows. What it \
                 wrote itself stays, and what was deleted meanwhile does not come back"
            );
        }
        if before.is_some() && !goes_on {
            tracing::info!(from, "all leaderless rows have come");
        }
    }

    /// How far the members are, this node included.
    pub fn progress(&self) -> BTreeMap<NodeId, Progress> {
        let receiving = self.reseeded.lock().is_some_and(|last| last.elapsed() < TRANSFER_IDLE);
        let have = self.vector().get(self.id);
        let first = self.log.first_of(self.id);
        let of = |peer: &super::engine::Peer| match peer.stream.heard() {
            _ if peer.reseeding => Progress::Reseeding,
            None => Progress::Unknown,
            Some(_) => {
                let acked = peer.stream.acked().get(self.id);
                match first {
                    _ if acked >= have => Progress::Level,
                    Some(first) if acked + 1 >= first => Progress::Behind,
                    _ => Progress::BehindTheLog,
                }
            }
        };
        let mut all: BTreeMap<NodeId, Progress> =
            self.members.lock().peers.iter().map(|(id, peer)| (*id, of(peer))).collect();
        all.insert(self.id, if receiving { Progress::Reseeding } else { Progress::Level });
        all
    }
}

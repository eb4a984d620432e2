//! Whether a transaction may commit now: the decision of the certifier, without queue, clock, log or disk.
//!
//! ```text
//!   accepted, in this order:  … ── X ── Y ── Z ──►  in the log, in this order, or lost from some point on
//!                                  └─ in flight ─┘
//!   a request is compared with what is applied, with what is in flight, and with who holds which locks
//! ```
//!
//! Locks of a transaction in flight are held until it is applied, so what two of them write never overlaps, and the
//! versions that are looked up ([`Ground::newest`]) are not about to move. Only descriptors of the catalog, which
//! statements do not lock, and what SERIALIZABLE transactions read need notes of their own.

use std::collections::{HashMap, HashSet};

use amphora_storage::Timestamp;

use super::recent_writes::RecentWrites;
use super::replica::in_catalog;
use super::transport::Refusal;
use super::types::{CommitRequest, LeaderId, LockKey, TransactionId};
use crate::api::LockMode;

/// What a request is compared with.
pub trait Ground {
    /// True if the transaction still holds what it locked under that leadership; it will then until it is released.
    fn hold(&self, id: TransactionId, held_under: Option<LeaderId>) -> bool;
    /// Locks an optimistic commit's keys, if all are free.
    fn try_lock(&self, id: TransactionId, keys: &[LockKey]) -> bool;
    /// The newest version of a key that is applied.
    fn newest(&self, key: &[u8]) -> Result<Timestamp, String>;
    /// The newest change of the catalog that is applied.
    fn catalog_version(&self) -> Timestamp;
}

/// Why a transaction may not commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The gateway is to be told why
    Refused(Refusal),
    /// Something is out of order
    Failed(String),
}

/// What the certifier knows beside what is applied and who holds locks.
pub struct Certification {
    /// Descriptors written by entries in flight
    moving: HashSet<Vec<u8>>,
    /// Newest versions of descriptors, as of `catalog_version`
    descriptors: HashMap<Vec<u8>, Timestamp>,
    catalog_version: Timestamp,
    /// What this tenure has accepted, for those who read it before
    recent: RecentWrites,
}

impl Certification {
    /// Nothing is in flight, and what is applied goes up to `applied`.
    pub fn after(applied: Timestamp) -> Certification {
        Certification {
            moving: HashSet::new(),
            descriptors: HashMap::new(),
            catalog_version: Timestamp::ZERO,
            recent: RecentWrites::after(applied),
        }
    }

    /// Whether a transaction may commit as the next of all. Its locks are held then.
    pub fn certify(
        &mut self,
        ground: &impl Ground,
        request: &CommitRequest,
        held_under: Option<LeaderId>,
    ) -> Result<(), Denied> {
        let refused = |why| Err(Denied::Refused(why));
        for table in &request.tables {
            if self.moving.contains(&table.key) || self.descriptor(ground, &table.key)? != table.version {
                return refused(Refusal::CatalogMoved);
            }
        }
        if request.locked {
            if !ground.hold(request.id, held_under) {
                return refused(Refusal::LocksLost);
            }
        } else if request.staged.parts > 0 {
            // What went ahead is safe from the sweep only while its transaction holds its lock.
            return Err(Denied::Failed("a staged commit must hold locks".to_owned()));
        } else {
            let expected = request.expected.iter().map(|e| LockKey { key: e.key.clone(), mode: e.mode });
            let intents =
                request.intents.iter().map(|key| LockKey { key: key.clone(), mode: LockMode::Shared });
            let keys: Vec<LockKey> = expected.chain(intents).collect();
            if !ground.try_lock(request.id, &keys) {
                return refused(Refusal::Conflict);
            }
            for expected in &request.expected {
                if ground.newest(&expected.key).map_err(Denied::Failed)? != expected.version {
                    return refused(Refusal::Conflict);
                }
            }
        }
        if request.reads.as_ref().is_some_and(|reads| self.recent.have_moved(reads)) {
            return refused(Refusal::ReadsMoved);
        }
        Ok(())
    }

    fn descriptor(&mut self, ground: &impl Ground, key: &[u8]) -> Result<Timestamp, Denied> {
        let version = ground.catalog_version();
        if version != self.catalog_version {
            self.descriptors.clear();
            self.catalog_version = version;
        }
        if let Some(version) = self.descriptors.get(key) {
            return Ok(*version);
        }
        let version = ground.newest(key).map_err(Denied::Failed)?;
        self.descriptors.insert(key.to_vec(), version);
        Ok(version)
    }

    /// A transaction is accepted with this timestamp, greater than all before it. Which descriptors it writes:
    /// they are to be given back when it is applied, or lost.
    pub fn accept(&mut self, request: &CommitRequest, timestamp: Timestamp) -> Vec<Vec<u8>> {
        let CommitRequest { writes, staged, staged_into, .. } = request;
        self.recent.note(timestamp, writes.iter().map(|w| w.key.as_slice()));
        if staged.parts > 0 {
            self.recent.note_all_of(timestamp, staged_into.iter().map(|id| id.0.to_be_bytes()));
        }
        let catalog_keys: Vec<Vec<u8>> =
            writes.iter().filter(|w| in_catalog(&w.key)).map(|w| w.key.clone()).collect();
        self.moving.extend(catalog_keys.iter().cloned());
        catalog_keys
    }

    /// A transaction that wrote these descriptors is not in flight any more.
    pub fn finish(&mut self, catalog_keys: &[Vec<u8>]) {
        for key in catalog_keys {
            self.moving.remove(key);
        }
    }
}

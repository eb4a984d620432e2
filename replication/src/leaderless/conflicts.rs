//! Concurrent writes of which one lost, and what was lost.
//!
//! Two commits are concurrent if neither's author had seen the other. A commit's causal context, the version
//! vector in its batch, says what its author had seen; so does the context of the commit that wrote what is here.
//!
//! ```text
//!   here: note = 'a'   written by (1, 7)          context of (1, 7): {2: 4}
//!   comes: note = 'b'  written by (2, 5)          context of (2, 5): {1: 6}
//!                                                 neither covers the other: concurrent, one of them loses
//! ```
//!
//! A write that merely arrives late, after another that had seen it, is no conflict; that is looked up in the log, and
//! only when something is about to be lost. If the log no longer has that commit, every member has long acknowledged
//! it, and nothing is reported. Every node finds the conflicts among what it
//! receives and has at that moment; a loser has the same id on all nodes that find it. What a transaction over both kinds of table writes has no vector, and is not looked at.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use amphora_storage::schema::{ColumnId, ConflictPolicy, Table};
use amphora_storage::store::{Batch, Cf, Direction};
use amphora_storage::{Datum, Timestamp, codec};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::cell::{Cell, Lww, Register, total_cmp};
use super::difference::shown;
use super::dots::{Dot, GROUP, VersionVector};
use super::engine::decode_body;
use super::messages::{BatchBody, OpBatch};
use super::oplog::OpLog;
use super::row_state::RowState;
use crate::{NodeId, Result};

/// Bytes of conflicts that a node keeps; the oldest go.
pub const KEEP_BYTES: u64 = 32 << 20;
/// How long it keeps them, in milliseconds: thirty days.
pub const KEEP_MS: u64 = 30 * 24 * 3_600_000;

/// What kind of conflict it was, by PostgreSQL's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConflictKind {
    /// Both inserted the row
    InsertExists,
    /// Both updated the column
    UpdateOriginDiffers,
    /// An update came to a row that had been deleted
    UpdateMissing,
    /// A delete came to a row that had been updated
    DeleteOriginDiffers,
}

impl ConflictKind {
    /// As PostgreSQL 18 calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            ConflictKind::InsertExists => "insert_exists",
            ConflictKind::UpdateOriginDiffers => "update_origin_differs",
            ConflictKind::UpdateMissing => "update_missing",
            ConflictKind::DeleteOriginDiffers => "delete_origin_differs",
        }
    }
}

/// One of the two writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// What it wrote; nothing if it deleted the row
    pub values: Vec<(ColumnId, Datum)>,
    /// When
    pub hlc: Timestamp,
    /// Who
    pub origin: NodeId,
    /// In the how-manieth of its commits
    pub seq: u64,
    /// What it had seen
    pub vector: VersionVector,
}

/// A write that lost to one that it had not seen, and that had not seen it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The same on all nodes
    pub id: i64,
    /// The row's key, as it is stored
    pub key: Vec<u8>,
    /// Which column; `None` if it is about the row
    pub column: Option<ColumnId>,
    /// Of what kind
    pub kind: ConflictKind,
    /// When this node found it
    pub found: Timestamp,
    /// The write that is not shown
    pub loser: Side,
    /// The write that is
    pub winner: Side,
}

/// The catalog, as far as conflicts need it: the table that a row key belongs to.
pub type TableOf = Arc<dyn Fn(&[u8]) -> Option<Arc<Table>> + Send + Sync>;

/// A node's conflicts.
#[derive(Default)]
pub struct Conflicts {
    tables: std::sync::OnceLock<TableOf>,
    /// Bytes kept; `None` until they were counted
    bytes: Mutex<Option<u64>>,
    /// How many were found since the start, by table and kind
    counts: Mutex<BTreeMap<(String, String, ConflictKind), u64>>,
}

/// A commit that is being joined.
pub(super) struct Arrival<'a> {
    /// All that arrived with it
    pub(super) chunk: &'a [OpBatch],
    /// It
    pub(super) received: &'a OpBatch,
    /// Its contents
    pub(super) body: &'a BatchBody,
    /// What was looked up since the chunk began: a commit of many rows is read once
    pub(super) contexts: &'a Contexts,
}

/// Commits with their times and contexts; `None` if the log does not have them.
pub(super) type Contexts = RefCell<BTreeMap<(NodeId, u64), Option<Arc<(Timestamp, VersionVector)>>>>;

/// A write as it is compared.
struct Write<'a> {
    author: (NodeId, u64),
    hlc: Timestamp,
    value: &'a Datum,
}

impl Conflicts {
    /// Lets it look into the catalog. Without it, nothing is reported.
    pub fn set_tables(&self, tables: TableOf) {
        let _ = self.tables.set(tables);
    }

    /// How many were found since the node started: schema, table, kind, count.
    pub fn counts(&self) -> Vec<(String, String, ConflictKind, u64)> {
        let counts = self.counts.lock();
        counts.iter().map(|((schema, table, kind), n)| (schema.clone(), table.clone(), *kind, *n)).collect()
    }

    /// Adds to `lost` what is lost when a row's delta is joined into its state.
    pub(super) fn observe(
        &self,
        log: &OpLog,
        lost: &mut Lost,
        arrival: &Arrival<'_>,
        (key, delta): (&[u8], &RowState),
        state: &RowState,
    ) -> Result<()> {
        // A row that nothing is known of has nothing to lose.
        if state.cl == 0 || (delta.cl == state.cl && delta.cells.is_empty()) {
            return Ok(());
        }
        let author = (arrival.received.origin, arrival.received.seq);
        let mut found = Vec::new();
        let Arrival { chunk, body, contexts, .. } = *arrival;
        let look = Look { log, key, author, body, chunk, contexts };
        if delta.cl == state.cl {
            look.columns(state, delta, self.tables.get(), &mut found)?;
        } else {
            look.lengths(state, delta, self.tables.get(), &mut found)?;
        }
        for conflict in found {
            self.keep(log, lost, conflict)?;
        }
        Ok(())
    }

    fn keep(&self, log: &OpLog, lost: &mut Lost, conflict: Conflict) -> Result<()> {
        let Some(table) = self.tables.get().and_then(|tables| tables(&conflict.key)) else { return Ok(()) };
        let column = conflict.column.and_then(|id| table.columns.iter().find(|c| c.id == id));
        if column.is_some_and(|c| c.conflict == ConflictPolicy::ErrorLog) {
            tracing::error!(
                conflict = conflict.id,
                "conflict on column \"{}\" of table \"{}\".\"{}\": the write of node {} lost to that of node {}",
                column.map_or("", |c| &c.name),
                table.schema,
                table.name,
                conflict.loser.origin,
                conflict.winner.origin,
            );
        }
        *self.counts.lock().entry((table.schema.clone(), table.name.clone(), conflict.kind)).or_default() +=
            1;
        let mut bytes = self.bytes.lock();
        let kept = match *bytes {
            Some(kept) => kept,
            None => stored(log)?.iter().map(|(_, length)| length).sum(),
        };
        let encoded = codec::encode(&conflict);
        let kept = kept + encoded.len() as u64;
        lost.put(conflict.id, encoded);
        *bytes = Some(match kept > KEEP_BYTES {
            true => trim(log, &mut lost.batch)?,
            false => kept,
        });
        Ok(())
    }

    /// All that are kept, the oldest first.
    pub(super) fn list(&self, log: &OpLog, now: Timestamp) -> Result<Vec<Conflict>> {
        let mut all: Vec<Conflict> = stored(log)?.into_iter().map(|(conflict, _)| conflict).collect();
        all.retain(|c| now.millis().saturating_sub(c.found.millis()) <= KEEP_MS);
        all.sort_by_key(|c| (c.found, c.id));
        Ok(all)
    }

    /// One of them.
    pub(super) fn get(&self, log: &OpLog, id: i64) -> Result<Option<Conflict>> {
        match log.store().get_plain(Cf::Conflicts, stored_key(id))? {
            Some(bytes) => Ok(Some(codec::decode(&bytes)?)),
            None => Ok(None),
        }
    }
}

/// Removes the oldest until three quarters of the room are used, and all that are too old. Gives the bytes left.
fn trim(log: &OpLog, batch: &mut Batch) -> Result<u64> {
    let mut all = stored(log)?;
    all.sort_by_key(|(c, _)| std::cmp::Reverse(c.found));
    let newest = all.first().map_or(0, |(c, _)| c.found.millis());
    let mut kept = 0;
    for (conflict, length) in all {
        let old = newest.saturating_sub(conflict.found.millis()) > KEEP_MS;
        if old || kept + length > KEEP_BYTES / 4 * 3 {
            batch.delete(Cf::Conflicts, stored_key(conflict.id));
        } else {
            kept += length;
        }
    }
    Ok(kept)
}

/// What is written of conflicts beside the rows: to the store, and to the log from which the store is rebuilt.
#[derive(Default)]
pub(super) struct Lost {
    pub(super) batch: Batch,
    /// Ids and encoded conflicts
    pub(super) records: Vec<(i64, Vec<u8>)>,
}

impl Lost {
    fn put(&mut self, id: i64, encoded: Vec<u8>) {
        replay(&mut self.batch, id, &encoded);
        self.records.push((id, encoded));
    }
}

/// Puts a conflict where it is kept.
pub(super) fn replay(batch: &mut Batch, id: i64, encoded: &[u8]) {
    batch.put(Cf::Conflicts, stored_key(id), encoded);
}

/// Where it is kept: by its id.
fn stored_key(id: i64) -> [u8; 8] {
    id.to_be_bytes()
}

fn stored(log: &OpLog) -> Result<Vec<(Conflict, u64)>> {
    let everything = Vec::new()..Vec::new();
    let mut scan = log.store().scan_plain(Cf::Conflicts, everything, Direction::Forward)?;
    let mut all = Vec::new();
    while let Some(entry) = scan.next()? {
        all.push((codec::decode(entry.value)?, entry.value.len() as u64));
    }
    Ok(all)
}

/// A received delta beside what is here.
struct Look<'a> {
    log: &'a OpLog,
    key: &'a [u8],
    author: (NodeId, u64),
    body: &'a BatchBody,
    chunk: &'a [OpBatch],
    contexts: &'a Contexts,
}

impl Look<'_> {
    /// When a commit was, and what its author had seen. What arrived together with it is not in the log yet.
    fn context_of(&self, (origin, seq): (NodeId, u64)) -> Result<Option<Arc<(Timestamp, VersionVector)>>> {
        if let Some(known) = self.contexts.borrow().get(&(origin, seq)) {
            return Ok(known.clone());
        }
        let logged;
        let record = match self.chunk.iter().find(|b| (b.origin, b.seq) == (origin, seq)) {
            Some(batch) => Some(batch),
            None => {
                logged = self.log.read(origin, seq, seq, 1)?;
                logged.first()
            }
        };
        let body = record.map(|batch| decode_body(origin, seq, &batch.body)).transpose()?;
        let context = body.map(|body| Arc::new((body.hlc, body.context)));
        self.contexts.borrow_mut().insert((origin, seq), context.clone());
        Ok(context)
    }

    /// Two rows of one generation: column by column.
    fn columns(
        &self,
        state: &RowState,
        delta: &RowState,
        tables: Option<&TableOf>,
        found: &mut Vec<Conflict>,
    ) -> Result<()> {
        let kind = match delta.born && state.born {
            true => ConflictKind::InsertExists,
            false => ConflictKind::UpdateOriginDiffers,
        };
        for (column, theirs) in &delta.cells {
            match (state.cells.get(column), theirs) {
                (Some(Cell::Lww(ours)), Cell::Lww(theirs)) => {
                    let theirs_wins = (theirs.hlc, theirs.origin) > (ours.hlc, ours.origin);
                    self.pair(*column, kind, &write(ours), &write(theirs), theirs_wins, found)?;
                }
                (Some(Cell::Register(ours)), Cell::Register(theirs)) => {
                    let table = tables.and_then(|tables| tables(self.key));
                    let column = table.as_ref().and_then(|t| t.columns.iter().find(|c| c.id == *column));
                    if let Some(column) = column
                        && !matches!(column.ty, amphora_storage::DataType::Crdt(_))
                    {
                        self.registers(column.id, column.conflict, kind, ours, theirs, found)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn registers(
        &self,
        column: ColumnId,
        policy: ConflictPolicy,
        kind: ConflictKind,
        ours: &Register,
        theirs: &Register,
        found: &mut Vec<Conflict>,
    ) -> Result<()> {
        let mut joined = ours.clone();
        joined.join(theirs);
        let Some((winner, _)) = shown(policy, &joined) else { return Ok(()) };
        let news = theirs.iter().filter(|(_, dot, _)| !ours.context.contains(*dot));
        for (_, new, written) in news {
            let standing = ours.iter().filter(|(_, dot, _)| !theirs.context.contains(*dot));
            for (_, old, before) in standing {
                // Of three or more, each loser is reported beside the one that is shown.
                if old != winner && new != winner {
                    continue;
                }
                let side = |dot: Dot, w: &super::cell::Written| Lww {
                    hlc: w.hlc,
                    origin: dot.origin,
                    seq: w.seq,
                    value: w.value.clone(),
                };
                let (old, new) = (side(old, before), side(new, written));
                self.pair(column, kind, &write(&old), &write(&new), winner.origin == new.origin, found)?;
            }
        }
        Ok(())
    }

    /// Two writes to one column, of which the second is being joined.
    fn pair(
        &self,
        column: ColumnId,
        kind: ConflictKind,
        ours: &Write<'_>,
        theirs: &Write<'_>,
        theirs_wins: bool,
        found: &mut Vec<Conflict>,
    ) -> Result<()> {
        if total_cmp(ours.value, theirs.value).is_eq() {
            return Ok(());
        }
        let Some(vector) = self.concurrent(ours.author, theirs.author)? else { return Ok(()) };
        let side = |write: &Write<'_>, vector: VersionVector| Side {
            values: vec![(column, write.value.clone())],
            hlc: write.hlc,
            origin: write.author.0,
            seq: write.author.1,
            vector,
        };
        let (ours, theirs) = (side(ours, vector), side(theirs, self.body.context.clone()));
        let (loser, winner) = if theirs_wins { (ours, theirs) } else { (theirs, ours) };
        found.push(self.conflict(Some(column), kind, loser, winner));
        Ok(())
    }

    /// Two generations: one side deleted the row (and perhaps inserted it again).
    fn lengths(
        &self,
        state: &RowState,
        delta: &RowState,
        tables: Option<&TableOf>,
        found: &mut Vec<Conflict>,
    ) -> Result<()> {
        let arrives_late = delta.cl < state.cl;
        let lost = if arrives_late { delta } else { state };
        // What the other side had not seen, and that had not seen it.
        let mut newest: Option<(Timestamp, (NodeId, u64), VersionVector)> = None;
        let ender = match arrives_late {
            true => state.ended,
            false => Some(Dot { origin: self.author.0, counter: self.author.1 }),
        };
        let Some(ender) = ender.filter(|dot| dot.origin != GROUP) else { return Ok(()) };
        let ender = (ender.origin, ender.counter);
        let writes: Vec<((NodeId, u64), Timestamp)> = match arrives_late {
            true if delta.cells.is_empty() => Vec::new(),
            true => vec![(self.author, self.body.hlc)],
            false => lost.cells.values().flat_map(authors).collect(),
        };
        for (by, hlc) in writes {
            let vector = match arrives_late {
                true => self.concurrent(ender, by)?.map(|_| self.body.context.clone()),
                false => self.concurrent(by, ender)?,
            };
            if let Some(vector) = vector
                && newest.as_ref().is_none_or(|(at, ..)| hlc > *at)
            {
                newest = Some((hlc, by, vector));
            }
        }
        let Some((hlc, (origin, seq), vector)) = newest else { return Ok(()) };
        let table = tables.and_then(|tables| tables(self.key));
        let values = |table: &Arc<Table>| {
            let cells = table.columns.iter().filter_map(|c| Some((c, lost.cells.get(&c.id)?)));
            cells
                .filter_map(|(c, cell)| Some((c.id, super::difference::read(c, Some(cell)).ok()?)))
                .collect::<Vec<_>>()
        };
        let loser = Side { values: table.as_ref().map(values).unwrap_or_default(), hlc, origin, seq, vector };
        let (kind, context, at) = match arrives_late {
            true => {
                let Some(known) = self.context_of(ender)? else { return Ok(()) };
                (ConflictKind::UpdateMissing, known.1.clone(), known.0)
            }
            false => (ConflictKind::DeleteOriginDiffers, self.body.context.clone(), self.body.hlc),
        };
        let winner = Side { values: Vec::new(), hlc: at, origin: ender.0, seq: ender.1, vector: context };
        found.push(self.conflict(None, kind, loser, winner));
        Ok(())
    }

    /// If neither of two commits had seen the other, what the first had seen. One of them is the one that is being
    /// joined.
    fn concurrent(&self, ours: (NodeId, u64), theirs: (NodeId, u64)) -> Result<Option<VersionVector>> {
        let seen = |vector: &VersionVector, (origin, seq): (NodeId, u64)| vector.get(origin) >= seq;
        let unknown = |(origin, seq): (NodeId, u64)| origin == GROUP || seq == 0;
        if unknown(ours) || unknown(theirs) || ours.0 == theirs.0 {
            return Ok(None);
        }
        let (received, other) = if theirs == self.author { (theirs, ours) } else { (ours, theirs) };
        if seen(&self.body.context, other) {
            return Ok(None);
        }
        let Some(known) = self.context_of(other)? else { return Ok(None) };
        let context = &known.1;
        if seen(context, received) {
            return Ok(None);
        }
        Ok(Some(if received == theirs { context.clone() } else { self.body.context.clone() }))
    }

    fn conflict(&self, column: Option<ColumnId>, kind: ConflictKind, loser: Side, winner: Side) -> Conflict {
        let mut hasher = rustc_hash::FxHasher::default();
        (self.key, column, loser.origin, loser.seq).hash(&mut hasher);
        // Without the sign, as people will have to type it.
        let id = (hasher.finish() >> 1).cast_signed();
        Conflict { id, key: self.key.to_vec(), column, kind, found: self.body.hlc, loser, winner }
    }
}

fn write(lww: &Lww) -> Write<'_> {
    Write { author: (lww.origin, lww.seq), hlc: lww.hlc, value: &lww.value }
}

/// The commits that wrote a cell, as far as it tells, and when.
fn authors(cell: &Cell) -> Vec<((NodeId, u64), Timestamp)> {
    match cell {
        Cell::Lww(lww) => vec![((lww.origin, lww.seq), lww.hlc)],
        Cell::Register(writes) => writes.iter().map(|(_, d, w)| ((d.origin, w.seq), w.hlc)).collect(),
        Cell::Map(map) => map.iter().map(|(_, d, w)| ((d.origin, w.seq), w.hlc)).collect(),
        _ => Vec::new(),
    }
}

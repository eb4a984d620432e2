//! The Raft log, in a [journal](crate::journal) of its own.
//!
//! Raft counts an entry of this node only once it is on its disk, and a vote likewise. So every change has two
//! moments: when it is *written* (readable, in memory) and when it is *durable* (its callback is called).
//!
//! ```text
//!   append 5,6 ─► record, in memory ─┐                                ┌─► callback 5,6
//!   vote       ─► record, in memory ─┼─► journal: ONE write that waits ─┼─► callback vote
//!   append 7   ─► record, in memory ─┘       for the disk             └─► callback 7        in this order
//!
//!   records: Entry 5 │ Entry 6 │ Vote │ Entry 7 │ Truncate from 6 │ Entry 6 │ Purge up to 5, and all facts │ …
//!   places:                                                                   ▲ where each living entry lies
//! ```
//!
//! What is on disk is a history, and the log is what it leads to: an entry that was truncated stays in its file until the
//! file goes. A file goes when all that lives begins behind it; for that the single facts (vote, committed and purged
//! position) are in every record of a purge, which is durable before a file goes for its sake.
//!
//! The newest entries are kept in memory too, because they are what is sent to followers and applied.
//! A write that fails is final, because what is on disk is unknown from then on: that error is what every later action
//! and callback gets.

mod sizes;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::error::{Result, StorageError};
use crate::journal::{self, Journal, JournalOptions, Position, Scan};
use sizes::Sizes;

/// Called once what it was given with is durable, or can never be.
pub type Flushed = Box<dyn FnOnce(io::Result<()>) + Send>;

/// How much memory and disk the log takes.
#[derive(Clone, Debug)]
pub struct RaftLogOptions {
    /// Newest entries that are kept in memory, in bytes
    pub recent_bytes: usize,
    /// Its files
    pub journal: JournalOptions,
}

impl Default for RaftLogOptions {
    fn default() -> RaftLogOptions {
        // Files go when tables are flushed, which is after some 50 MB: so many are there to be written over.
        let journal = JournalOptions { segment_bytes: 8 << 20, recycled: 8, ..JournalOptions::default() };
        RaftLogOptions { recent_bytes: 16 << 20, journal }
    }
}

// Records begin with their kind; an entry's index follows.
const ENTRY: u8 = 1;
const TRUNCATE: u8 = 2;
const FACTS: u8 = 3;
const COMMITTED: u8 = 4;
const ENTRY_HEAD: usize = 9;

/// What is known beside the entries. Opaque here, but for where the log begins.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Facts {
    vote: Option<Vec<u8>>,
    committed: Option<Vec<u8>>,
    purged: Option<Vec<u8>>,
    /// Entries up to this one are gone
    purged_upto: Option<u64>,
}

/// What the log holds. Whoever changes the log holds it.
struct State {
    facts: Facts,
    /// Index of the first entry, or of the next if there is none
    first: u64,
    /// Where the entries lie
    places: VecDeque<Position>,
    /// The newest entries
    recent: VecDeque<Bytes>,
    recent_bytes: usize,
    sizes: Sizes,
}

/// A node's Raft log. Entries, votes and positions are bytes to it. Shared; used from any thread.
pub struct RaftLog {
    journal: Arc<Journal>,
    options: RaftLogOptions,
    state: Mutex<State>,
}

/// The number after a record's kind.
fn number(record: &[u8]) -> Result<u64> {
    let bytes = record.get(1..).and_then(|rest| rest.first_chunk());
    bytes.map(|bytes| u64::from_le_bytes(*bytes)).ok_or_else(|| damaged("without its index"))
}

fn damaged(what: &str) -> StorageError {
    StorageError::corrupt(format!("a record of the raft log {what}"))
}

fn head(kind: u8, index: u64) -> [u8; ENTRY_HEAD] {
    let mut head = [kind; ENTRY_HEAD];
    head[1..].copy_from_slice(&index.to_le_bytes());
    head
}

impl State {
    fn new() -> State {
        State {
            facts: Facts::default(),
            first: 0,
            places: VecDeque::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            sizes: Sizes::new(None, 0),
        }
    }

    /// Index of the entry that comes next.
    fn next(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    fn bounds(&self) -> Option<(u64, u64)> {
        (!self.places.is_empty()).then(|| (self.first, self.next() - 1))
    }

    /// Index of the first entry in memory.
    fn first_recent(&self) -> u64 {
        self.next() - self.recent.len() as u64
    }

    fn push(&mut self, index: u64, at: Position, bytes: u64) {
        if self.places.is_empty() {
            self.first = index;
        }
        self.places.push_back(at);
        self.sizes.append(index, bytes);
    }

    /// Keeps an entry in memory, and as many before it as fit. What is not durable can't be read but from here.
    fn remember(&mut self, entry: Bytes, limit: usize, journal: &Journal) {
        self.recent_bytes += entry.len();
        self.recent.push_back(entry);
        while self.recent_bytes > limit
            && let Some(oldest) = self.places.get(self.places.len() - self.recent.len())
            && journal.is_durable(*oldest)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(entry) = self.recent.pop_front() {
            self.recent_bytes -= entry.len();
        }
    }

    fn truncate(&mut self, from: u64) {
        let before = self.places.len();
        self.places.truncate(from.saturating_sub(self.first) as usize);
        for _ in self.places.len()..before {
            let Some(entry) = self.recent.pop_back() else { break };
            self.recent_bytes -= entry.len();
        }
        self.sizes.truncate(from);
    }

    fn purge(&mut self, upto: u64) {
        let gone = (upto.saturating_add(1).saturating_sub(self.first) as usize).min(self.places.len());
        self.places.drain(..gone);
        self.first += gone as u64;
        while self.recent.len() > self.places.len() {
            self.forget_oldest();
        }
        self.sizes.purge(upto);
    }

    /// What a record of the journal does.
    fn replay(&mut self, at: Position, record: &[u8]) -> Result<()> {
        match record.first() {
            Some(&ENTRY) => {
                let index = number(record)?;
                if !self.places.is_empty() && index != self.next() {
                    return Err(damaged(&format!("is entry {index} where {} is next", self.next())));
                }
                self.push(index, at, (record.len() - ENTRY_HEAD) as u64);
            }
            Some(&TRUNCATE) => self.truncate(number(record)?),
            Some(&FACTS) => {
                self.facts = codec::decode(&record[1..])?;
                if let Some(upto) = self.facts.purged_upto {
                    self.purge(upto);
                }
            }
            Some(&COMMITTED) => self.facts.committed = Some(record[1..].to_vec()),
            _ => return Err(damaged("of no known kind")),
        }
        Ok(())
    }
}

/// A callback in the journal's words.
fn durable(done: Flushed) -> journal::Done {
    Box::new(move |result| done(result.map_err(Into::into)))
}

impl RaftLog {
    /// Opens the log in the folder `raft` of a node's data directory, or makes it.
    pub fn open(dir: &Path, options: RaftLogOptions) -> Result<Arc<RaftLog>> {
        let mut state = State::new();
        let path = dir.join("raft");
        let journal = Journal::open(&path, options.journal, |at, record| state.replay(at, record))?;
        Ok(Arc::new(RaftLog { journal, options, state: Mutex::new(state) }))
    }

    /// Runs a change under the lock. If it fails, `done` is told too.
    fn change(&self, done: Flushed, change: impl FnOnce(&mut State) -> Result<Option<u64>>) -> Result<()> {
        let mut state = self.state.lock();
        let changed = change(&mut state);
        drop(state);
        match changed {
            Ok(release) => {
                self.journal.when_durable(durable(done));
                if let Some(before) = release {
                    self.journal.release_when_durable(before);
                }
                Ok(())
            }
            Err(error) => {
                done(Err(error.clone().into()));
                Err(error)
            }
        }
    }

    /// Appends entries, whose indexes follow each other and the log's last. Readable on return; `done` is
    /// called when they are durable.
    pub fn append(&self, entries: impl IntoIterator<Item = (u64, Vec<u8>)>, done: Flushed) -> Result<()> {
        let entries: Vec<(u64, Vec<u8>)> = entries.into_iter().collect();
        self.change(done, |state| {
            let mut next = state.bounds().map(|(_, last)| last + 1);
            for (index, _) in &entries {
                if let Some(expected) = next.filter(|next| next != index) {
                    return Err(StorageError::LogGap { expected, found: *index });
                }
                next = Some(index + 1);
            }
            self.journal
                .prepare(journal::bytes_of(entries.iter().map(|(_, entry)| ENTRY_HEAD + entry.len())))?;
            for (index, entry) in entries {
                let at = self.journal.append(&[&head(ENTRY, index), &entry])?;
                state.push(index, at, entry.len() as u64);
                state.remember(entry.into(), self.options.recent_bytes, &self.journal);
            }
            Ok(None)
        })
    }

    /// Removes the entries at `from` and after it.
    pub fn truncate(&self, from: u64, done: Flushed) -> Result<()> {
        self.change(done, |state| {
            self.record(&[&head(TRUNCATE, from)])?;
            state.truncate(from);
            Ok(None)
        })
    }

    /// Removes the entries up to and including `upto` and records what Raft calls the last purged id.
    pub fn purge(&self, upto: u64, purged: &[u8], done: Flushed) -> Result<()> {
        self.change(done, |state| {
            let before = state.facts.purged_upto;
            let facts = Facts {
                purged: Some(purged.to_vec()),
                purged_upto: Some(before.map_or(upto, |before| before.max(upto))),
                ..state.facts.clone()
            };
            self.record_facts(state, facts)?;
            state.purge(upto);
            let oldest = state.places.front().map(|at| at.segment);
            Ok(Some(oldest.unwrap_or_else(|| self.journal.active_segment())))
        })
    }

    /// Records this node's vote. It counts only once `done` is called.
    pub fn save_vote(&self, vote: &[u8], done: Flushed) -> Result<()> {
        self.change(done, |state| {
            let facts = Facts { vote: Some(vote.to_vec()), ..state.facts.clone() };
            self.record_facts(state, facts)?;
            Ok(None)
        })
    }

    /// Records how far the log is known to be committed. A hint for the next start: it becomes durable with
    /// whatever is made durable next.
    pub fn save_committed(&self, committed: &[u8]) -> Result<()> {
        let mut state = self.state.lock();
        self.record(&[&[COMMITTED], committed])?;
        state.facts.committed = Some(committed.to_vec());
        Ok(())
    }

    fn record(&self, parts: &[&[u8]]) -> Result<Position> {
        self.journal.prepare(journal::bytes_of([parts.iter().map(|part| part.len()).sum()]))?;
        self.journal.append(parts)
    }

    fn record_facts(&self, state: &mut State, facts: Facts) -> Result<()> {
        self.record(&[&[FACTS], &codec::encode(&facts)])?;
        state.facts = facts;
        Ok(())
    }

    /// The entries of a range that exist, in order; it stops early once they hold `max_bytes`, but never
    /// before the first.
    pub fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<(u64, Vec<u8>)>> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        self.visit(range, |index, entry| {
            if !found.is_empty() && bytes + entry.len() > max_bytes {
                return false;
            }
            bytes += entry.len();
            found.push((index, entry.to_vec()));
            true
        })?;
        Ok(found)
    }

    /// Bytes of the entries of a range, as far as they exist; `limit` entries are looked at, at most.
    pub fn size(&self, range: Range<u64>, limit: usize) -> Result<u64> {
        let (mut bytes, mut seen) = (0, 0);
        self.visit(range, |_, entry| {
            bytes += entry.len() as u64;
            seen += 1;
            seen < limit
        })?;
        Ok(bytes)
    }

    /// Bytes of the entries after an index, about. Nothing is read.
    pub fn bytes_after(&self, index: u64) -> u64 {
        self.state.lock().sizes.after(index)
    }

    /// The first of the newest entries that have no more than so many bytes together, about; `None` if all the
    /// log has no more. Nothing is read.
    pub fn first_within(&self, bytes: u64) -> Option<u64> {
        self.state.lock().sizes.first_within(bytes)
    }

    /// Shows the entries of a range that exist, in order, for as long as `visitor` says so.
    fn visit(&self, range: Range<u64>, mut visitor: impl FnMut(u64, &[u8]) -> bool) -> Result<()> {
        let mut index = {
            let state = self.state.lock();
            range.start.max(state.first)
        };
        let mut scan: Option<Scan> = None;
        while index < range.end {
            match self.find(index) {
                Some(Found::Recent(entry)) => {
                    if !visitor(index, &entry) {
                        return Ok(());
                    }
                }
                Some(Found::At(place)) => {
                    let scan = scan.get_or_insert_with(|| self.journal.scan(place));
                    match entry_at(scan, place)? {
                        Some(entry) if !visitor(index, entry) => return Ok(()),
                        Some(_) => {}
                        // Purged or replaced since it was found.
                        None => return Ok(()),
                    }
                }
                None => return Ok(()),
            }
            index += 1;
        }
        Ok(())
    }

    fn find(&self, index: u64) -> Option<Found> {
        let state = self.state.lock();
        let place = *state.places.get(index.checked_sub(state.first)? as usize)?;
        let recent = index.checked_sub(state.first_recent());
        Some(match recent.and_then(|n| state.recent.get(n as usize)) {
            Some(entry) => Found::Recent(entry.clone()),
            None => Found::At(place),
        })
    }

    /// One entry.
    pub fn entry(&self, index: u64) -> Result<Option<Vec<u8>>> {
        let mut found = None;
        self.visit(index..index.saturating_add(1), |at, entry| {
            found = (at == index).then(|| entry.to_vec());
            false
        })?;
        Ok(found)
    }

    /// Index of the first entry, if there are any.
    pub fn first(&self) -> Option<u64> {
        self.state.lock().bounds().map(|(first, _)| first)
    }

    /// Index of the last entry, if there are any.
    pub fn last(&self) -> Option<u64> {
        self.state.lock().bounds().map(|(_, last)| last)
    }

    /// The vote as it was saved last.
    pub fn vote(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.state.lock().facts.vote.clone())
    }

    /// The committed position as it was saved last.
    pub fn committed(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.state.lock().facts.committed.clone())
    }

    /// What Raft called the last purged id when entries were purged last.
    pub fn purged(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.state.lock().facts.purged.clone())
    }

    /// Resolves once everything written so far is durable.
    pub fn flushed(&self) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let synced = self.journal.sync();
        async move { Ok(synced.await?) }
    }
}

/// Where an entry is.
enum Found {
    Recent(Bytes),
    At(Position),
}

/// The entry at a place that the scan has not passed; `None` if it is not there any more.
fn entry_at(scan: &mut Scan, place: Position) -> Result<Option<&[u8]>> {
    while let Some((at, _)) = scan.next()? {
        if at >= place {
            let record = scan.current();
            let is_it = at == place && record.first() == Some(&ENTRY);
            return Ok(is_it.then(|| &record[ENTRY_HEAD..]));
        }
    }
    Ok(None)
}

impl std::fmt::Debug for RaftLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftLog")
            .field("first", &self.first())
            .field("last", &self.last())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

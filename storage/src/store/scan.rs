//! Iterators that own what they iterate over.

use std::ops::Range;
use std::sync::Arc;

use rocksdb::{DB, DBRawIterator, ReadOptions};

use super::batch::{Cf, FIRST_STRONG_KEY};
use super::generation::Generation;
use super::view::split_version;
use crate::error::{Result, StorageError};
use crate::hlc::Timestamp;

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys
    Forward,
    /// Descending keys
    Backward,
}

/// One key of a strong table as a scan found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key, without its timestamp
    pub key: &'a [u8],
    /// The commit that wrote it
    pub ts: Timestamp,
    /// What it wrote
    pub value: &'a [u8],
}

/// One key of a plain column family as a scan found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainEntry<'a> {
    /// The key
    pub key: &'a [u8],
    /// The value
    pub value: &'a [u8],
}

/// A RocksDB iterator and the database under it.
struct Cursor {
    // Declared, and so dropped, before the database that it points into.
    iter: DBRawIterator<'static>,
    _generation: Arc<Generation>,
    direction: Direction,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Unstarted,
    Running,
    Finished,
}

impl Cursor {
    fn new(
        generation: Arc<Generation>,
        cf: Cf,
        mut options: ReadOptions,
        range: Range<Vec<u8>>,
        direction: Direction,
    ) -> Result<Cursor> {
        let empty = !range.end.is_empty() && range.start >= range.end;
        options.set_iterate_lower_bound(range.start);
        if !range.end.is_empty() {
            options.set_iterate_upper_bound(range.end);
        }
        let family = generation.cf(cf)?;
        let iter = extend(&generation).raw_iterator_cf_opt(family, options);
        let state = if empty { State::Finished } else { State::Unstarted };
        Ok(Cursor { iter, _generation: generation, direction, state })
    }

    /// Moves to the next key; false at the end.
    fn advance(&mut self) -> std::result::Result<bool, rocksdb::Error> {
        match (&self.state, self.direction) {
            (State::Finished, _) => return Ok(false),
            (State::Unstarted, Direction::Forward) => self.iter.seek_to_first(),
            (State::Unstarted, Direction::Backward) => self.iter.seek_to_last(),
            (State::Running, Direction::Forward) => self.iter.next(),
            (State::Running, Direction::Backward) => self.iter.prev(),
        }
        if self.iter.valid() {
            self.state = State::Running;
            return Ok(true);
        }
        self.state = State::Finished;
        self.iter.status()?;
        Ok(false)
    }
}

/// The database with a lifetime of its own, for what is stored beside it.
#[allow(unsafe_code)]
pub(super) fn extend(generation: &Arc<Generation>) -> &'static DB {
    // SAFETY: the two callers store what they make from this reference (an iterator in a `Cursor`, a snapshot in
    // a `PlainSnapshot`) together with a clone of the same `Arc`. The `Generation` inside the `Arc` never moves,
    // the `Arc` is never replaced, and what points into it is declared first, so it is dropped before the database
    // can be. Nothing borrowed from it outlives the borrow of its owner.
    unsafe { &*std::ptr::from_ref(generation.db()) }
}

/// The keys of a strong range that are alive at a timestamp, with the data of the moment it was opened.
pub struct Scan {
    cursor: Cursor,
    at: Timestamp,
}

impl Scan {
    pub(super) fn new(
        generation: Arc<Generation>,
        options: ReadOptions,
        at: Timestamp,
        mut range: Range<Vec<u8>>,
        direction: Direction,
    ) -> Result<Scan> {
        if range.start.as_slice() < FIRST_STRONG_KEY {
            range.start = FIRST_STRONG_KEY.to_vec();
        }
        Ok(Scan { cursor: Cursor::new(generation, Cf::Strong, options, range, direction)?, at })
    }

    /// The next entry; `None` at the end of the range. It lives until the next call.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>> {
        let (at, low) = (self.at, self.cursor._generation.history_low());
        // An iterator is refused by RocksDB when it is made too late; one made in time keeps its data.
        let more = self.cursor.advance().map_err(|e| {
            if at < low { StorageError::SnapshotTooOld { at, low } } else { StorageError::from(e) }
        })?;
        if !more {
            return Ok(None);
        }
        match self.cursor.iter.item() {
            None => Ok(None),
            Some((key, stored)) => {
                let (ts, value) = split_version(stored)?;
                Ok(Some(Entry { key, ts, value }))
            }
        }
    }
}

/// The keys of a range of a plain column family, with the data of the moment it was opened.
pub struct PlainScan {
    cursor: Cursor,
}

impl PlainScan {
    pub(super) fn new(
        generation: Arc<Generation>,
        cf: Cf,
        range: Range<Vec<u8>>,
        direction: Direction,
    ) -> Result<PlainScan> {
        PlainScan::with(generation, ReadOptions::default(), cf, range, direction)
    }

    pub(super) fn with(
        generation: Arc<Generation>,
        options: ReadOptions,
        cf: Cf,
        range: Range<Vec<u8>>,
        direction: Direction,
    ) -> Result<PlainScan> {
        generation.plain(cf)?;
        Ok(PlainScan { cursor: Cursor::new(generation, cf, options, range, direction)? })
    }

    /// The next entry; `None` at the end of the range. It lives until the next call.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<PlainEntry<'_>>> {
        if !self.cursor.advance()? {
            return Ok(None);
        }
        Ok(self.cursor.iter.item().map(|(key, value)| PlainEntry { key, value }))
    }
}

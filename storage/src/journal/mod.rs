//! A write-ahead log of our own: records in files that are written over and over.
//!
//! ```text
//!   append ─► frames in memory ─┐                        ┌─► 0000…07.log   oldest
//!   append ─► frames in memory ─┼─► writer thread: ONE ──┤   0000…08.log
//!   sync   ─► who waits        ─┘   write that waits     ├─► 0000…09.log   written now
//!                 ▲                 for the disk         └   0000…0a.log   prepared, empty
//!                 └── all who waited when the write began
//! ```
//!
//! RocksDB's log grows as it is written, and each `fdatasync` of a file that grows waits for the journal of the
//! file system too: here it took 0.5 ms, against 0.2 ms for a file whose blocks are all there (its own remedy,
//! recycled logs, it refuses beside writes without a log, and the data is written without a log). So a journal's
//! files have their whole size before the first record, filled by a thread ahead of need, and go round: when all that
//! a file holds is [released](Journal::release), the file becomes the next one.
//!
//! A record is *appended*, in memory, and *durable* after the next [`sync`](Journal::sync). After a crash the
//! journal holds every durable record, in order, and perhaps some that were appended after them; it never has a hole. What
//! a crash tore is at its end, and is told from damage: see [`segment`].
//!
//! Room is found before anything depends on it: what [`prepare`](Journal::prepare) has promised can be appended.
//! A disk that is full therefore refuses a record, and never takes half of one. A write that fails is final,
//! because what is on disk is unknown from then on: every later call gets its error.

mod scan;
mod segment;
mod threads;

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Condvar, Mutex};

use crate::error::{Result, StorageError};
pub use scan::Scan;
use segment::{Found, Segment, frame_bytes};
use threads::Threads;

/// Called once what was appended before is durable, or can never be.
pub type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// Where a record lies. Later records have greater positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which file, counted from the journal's beginning
    pub segment: u64,
    /// Where in it, in bytes
    pub offset: u32,
}

/// How large a journal's pieces are.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// Bytes of a file. A file for a larger record is made as large as it needs
    pub segment_bytes: u32,
    /// Bytes that are written although nobody waits for them
    pub write_bytes: usize,
    /// Files kept to be written over
    pub recycled: usize,
}

impl Default for JournalOptions {
    fn default() -> JournalOptions {
        JournalOptions { segment_bytes: 4 << 20, write_bytes: 1 << 20, recycled: 4 }
    }
}

/// Bytes on their way to one place.
struct Chunk {
    segment: Arc<Segment>,
    at: u32,
    bytes: Vec<u8>,
}

struct State {
    /// Oldest first. The last is written to
    segments: VecDeque<Arc<Segment>>,
    /// The one that comes next, if it is made already
    next: Option<Segment>,
    /// Somebody makes the next one
    preparing: bool,
    /// Released ones, oldest first: their numbers run up to those in use, so that no file seems to be missing
    free: VecDeque<Segment>,
    /// Where the next frame goes
    tail: u32,
    pending: Vec<Chunk>,
    pending_bytes: usize,
    /// Buffers of chunks that are written
    buffers: Vec<Vec<u8>>,
    waiters: Vec<Done>,
    /// The writer thread has taken something that is not durable yet
    writing: bool,
    failed: Option<StorageError>,
    stop: bool,
}

struct Shared {
    dir: PathBuf,
    options: JournalOptions,
    state: Mutex<State>,
    /// There is something to write, or an end
    filled: Condvar,
    /// There is a segment to prepare, or an end
    wanted: Condvar,
    /// It is prepared, or cannot be
    prepared: Condvar,
}

/// A log of records. Shared, and used from any thread.
pub struct Journal {
    shared: Arc<Shared>,
    _threads: Threads,
    _lock: File,
}

/// The bytes of a journal that records with these payloads take together, at most.
pub fn bytes_of(payloads: impl IntoIterator<Item = usize>) -> usize {
    payloads.into_iter().map(frame_bytes).sum()
}

impl Journal {
    /// Opens the journal in a directory, or makes it, and shows `visit` every record in it. What it shows is
    /// durable.
    ///
    /// Fails with XX001 if a record that was durable is not whole.
    pub fn open(
        dir: &Path,
        options: JournalOptions,
        mut visit: impl FnMut(Position, &[u8]) -> Result<()>,
    ) -> Result<Arc<Journal>> {
        std::fs::create_dir_all(dir).map_err(|e| StorageError::io("create directory", dir, &e))?;
        let lock = lock(dir)?;
        remove_unfinished(dir)?;
        let mut segments = VecDeque::new();
        let numbers = numbers(dir)?;
        for (n, number) in numbers.iter().enumerate() {
            let later_is_used = || match numbers.get(n + 1) {
                Some(next) => holds_records(dir, *next),
                None => Ok(false),
            };
            let segment = Segment::existing(dir, *number)?;
            match recover(segment, &mut visit, later_is_used)? {
                Some(segment) => segments.push_back(Arc::new(segment)),
                None => break,
            }
        }
        if let Some(hole) = holes(&segments) {
            return Err(StorageError::corrupt(format!(
                "file {} is missing",
                Segment::path_of(dir, hole).display()
            )));
        }
        let number = numbers.last().map_or(1, |last| last + 1);
        // Prepared and never used, or torn from the first byte on.
        let used = segments.back().map_or(0, |segment| segment.number);
        for number in numbers.into_iter().filter(|number| *number > used) {
            remove(&Segment::path_of(dir, number))?;
        }
        let number = if segments.is_empty() { number } else { used + 1 };
        segments.push_back(Arc::new(Segment::create(dir, number, options.segment_bytes, true)?));
        let state = State {
            segments,
            next: None,
            preparing: false,
            free: VecDeque::new(),
            tail: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            buffers: Vec::new(),
            waiters: Vec::new(),
            writing: false,
            failed: None,
            stop: false,
        };
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            options,
            state: Mutex::new(state),
            filled: Condvar::new(),
            wanted: Condvar::new(),
            prepared: Condvar::new(),
        });
        let threads = Threads::start(&shared)?;
        Ok(Arc::new(Journal { shared, _threads: threads, _lock: lock }))
    }

    /// Makes sure that records of so many [bytes](bytes_of) together can be appended before the next `prepare`.
    ///
    /// Fails with 53100 if the disk has no room for them; nothing has changed then.
    pub fn prepare(&self, bytes: usize) -> Result<()> {
        let mut state = self.shared.state.lock();
        if let Some(failed) = &state.failed {
            return Err(failed.clone());
        }
        if state.has_room(bytes) {
            if state.wants_next() {
                self.shared.wanted.notify_one();
            }
            return Ok(());
        }
        while state.preparing {
            self.shared.prepared.wait(&mut state);
        }
        // Others may have gone on meanwhile.
        if state.has_room(bytes) {
            return Ok(());
        }
        let number = state.active().number + 1;
        let size = bytes.max(self.shared.options.segment_bytes as usize);
        let size =
            u32::try_from(size).map_err(|_| StorageError::Engine("a record of over 4 GB".to_owned()))?;
        let next = match state.next.take() {
            Some(next) if next.size >= size => next,
            // A file that is too small is written anew under the same name.
            _ => {
                let standard = size == self.shared.options.segment_bytes;
                Segment::create(&self.shared.dir, number, size, standard)?
            }
        };
        state.end_segment();
        state.segments.push_back(Arc::new(next));
        state.tail = 0;
        Ok(())
    }

    /// Appends a record, given in parts, for which there is room: see [`prepare`](Journal::prepare).
    pub fn append(&self, parts: &[&[u8]]) -> Result<Position> {
        let mut state = self.shared.state.lock();
        let length = frame_bytes(parts.iter().map(|part| part.len()).sum());
        let active = state.active().clone();
        let at = state.tail;
        if at as usize + length > active.size as usize {
            return Err(StorageError::Engine("a record was appended for which no room was made".to_owned()));
        }
        let synced = active.written.load(Ordering::Acquire);
        let bytes = state.chunk(&active, at);
        segment::encode_frame(bytes, active.number, at, synced, parts);
        state.tail += length as u32;
        state.pending_bytes += length;
        if state.pending_bytes >= self.shared.options.write_bytes {
            self.shared.filled.notify_one();
        }
        Ok(Position { segment: active.number, offset: at })
    }

    /// Calls `done` once everything that was appended before is durable. The order of calls is kept.
    pub fn when_durable(&self, done: Done) {
        let mut state = self.shared.state.lock();
        let result = match &state.failed {
            Some(failed) => Err(failed.clone()),
            None if state.stop => Err(StorageError::Closed),
            None if state.pending.is_empty() && !state.writing && state.waiters.is_empty() => Ok(()),
            None => {
                state.waiters.push(done);
                self.shared.filled.notify_one();
                return;
            }
        };
        drop(state);
        done(result);
    }

    /// Resolves once everything that was appended before is durable. One write serves all who wait.
    pub fn sync(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        let (done, answer) = futures::channel::oneshot::channel();
        self.when_durable(Box::new(move |result| {
            let _ = done.send(result);
        }));
        async move { answer.await.unwrap_or(Err(StorageError::Closed)) }
    }

    /// True if the record at a position is on disk.
    pub fn is_durable(&self, at: Position) -> bool {
        let state = self.shared.state.lock();
        let segment = state.segments.iter().rev().find(|segment| segment.number <= at.segment);
        segment.is_none_or(|segment| {
            segment.number < at.segment || segment.written.load(Ordering::Acquire) > at.offset
        })
    }

    /// The records from a position on, or from the first that is there, up to what is durable when they are read.
    pub fn scan(&self, from: Position) -> Scan {
        Scan::new(self.shared.clone(), from)
    }

    /// The file that is written to: it can't be released.
    pub fn active_segment(&self) -> u64 {
        self.shared.state.lock().active().number
    }

    /// Gives up the files before this one. Their records are gone.
    pub fn release(&self, before: u64) -> Result<()> {
        self.shared.release(before)
    }

    /// As [`release`](Journal::release), once everything that was appended before this call is durable.
    pub fn release_when_durable(&self, before: u64) {
        let shared = self.shared.clone();
        self.when_durable(Box::new(move |result| {
            if let Err(e) = result.and_then(|()| shared.release(before)) {
                tracing::warn!(hint = e.hint(), "could not give up a journal's old files: {e}");
            }
        }));
    }
}

impl Shared {
    fn release(&self, before: u64) -> Result<()> {
        let mut state = self.state.lock();
        while state.segments.len() > 1 && state.segments.front().is_some_and(|oldest| oldest.number < before)
        {
            let Some(oldest) = state.segments.pop_front() else { break };
            let path = oldest.path.clone();
            // Whoever still reads or writes it must find what it was.
            match Arc::try_unwrap(oldest) {
                Ok(segment) if segment.size == self.options.segment_bytes => {
                    state.free.push_back(segment);
                }
                _ => {
                    state.forget_free(0)?;
                    remove(&path)?;
                }
            }
        }
        state.forget_free(self.options.recycled)
    }
}

/// Held for as long as the journal is open.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("LOCK");
    let file = File::create(&path).map_err(|e| StorageError::io("create file", &path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked { path: dir.to_owned(), holder: None }),
        Err(TryLockError::Error(e)) => Err(StorageError::io("lock file", &path, &e)),
    }
}

fn remove(path: &Path) -> Result<()> {
    std::fs::remove_file(path).map_err(|e| StorageError::io("delete file", path, &e))
}

impl State {
    fn active(&self) -> &Arc<Segment> {
        // There is always one: it is pushed when the journal is opened and never released.
        &self.segments[self.segments.len() - 1]
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.tail as usize + bytes <= self.active().size as usize
    }

    fn wants_next(&self) -> bool {
        self.next.is_none() && !self.preparing && self.tail > self.active().size / 2
    }

    /// Deletes released files, oldest first, but for so many.
    fn forget_free(&mut self, but: usize) -> Result<()> {
        while self.free.len() > but
            && let Some(segment) = self.free.pop_front()
        {
            remove(&segment.path)?;
        }
        Ok(())
    }

    /// Where bytes for this place are gathered.
    fn chunk(&mut self, segment: &Arc<Segment>, at: u32) -> &mut Vec<u8> {
        let same = self.pending.last().is_some_and(|chunk| chunk.segment.number == segment.number);
        if !same {
            let bytes = self.buffers.pop().unwrap_or_default();
            self.pending.push(Chunk { segment: segment.clone(), at, bytes });
        }
        let last = self.pending.len() - 1;
        &mut self.pending[last].bytes
    }

    /// Marks the end of the active segment, if there is room for the mark.
    fn end_segment(&mut self) {
        let active = self.active().clone();
        let at = self.tail;
        if at as usize + segment::HEADER <= active.size as usize {
            let synced = active.written.load(Ordering::Acquire);
            segment::encode_end(self.chunk(&active, at), active.number, at, synced);
            self.pending_bytes += segment::HEADER;
        }
    }
}

fn paths(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    entries.map_err(|e| StorageError::io("read directory", dir, &e))
}

/// Deletes files that were being made when the process ended.
fn remove_unfinished(dir: &Path) -> Result<()> {
    let ends = |path: &PathBuf| path.extension().is_some_and(|extension| extension == segment::UNFINISHED);
    paths(dir)?.iter().filter(|path| ends(path)).try_for_each(|path| remove(path))
}

/// The numbers of the files in a directory, ascending.
fn numbers(dir: &Path) -> Result<Vec<u64>> {
    let name = |path: &PathBuf| path.file_name()?.to_str().and_then(Segment::number_of);
    let mut numbers: Vec<u64> = paths(dir)?.iter().filter_map(name).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn holes(segments: &VecDeque<Arc<Segment>>) -> Option<u64> {
    let numbers = segments.iter().map(|segment| segment.number);
    numbers
        .clone()
        .zip(numbers.skip(1))
        .find(|(before, after)| before + 1 != *after)
        .map(|(before, _)| before + 1)
}

fn holds_records(dir: &Path, number: u64) -> Result<bool> {
    let segment = Segment::existing(dir, number)?;
    Ok(segment::decode(&segment.read_all()?, number, 0) != Found::Nothing)
}

/// Shows what a segment holds. `None` if that is nothing.
///
/// If the segment does not end where its frames do, its end is marked now, and the file cut off there: what a crash
/// left behind must not look whole once something else is written before it.
fn recover(
    segment: Segment,
    visit: &mut impl FnMut(Position, &[u8]) -> Result<()>,
    later_is_used: impl FnOnce() -> Result<bool>,
) -> Result<Option<Segment>> {
    let bytes = segment.read_all()?;
    let mut at = 0;
    let ended = loop {
        match segment::decode(bytes.get(at as usize..).unwrap_or_default(), segment.number, at) {
            Found::Frame { payload, next } => {
                visit(Position { segment: segment.number, offset: at }, payload)?;
                at = next;
            }
            Found::End => break true,
            Found::Nothing => break false,
        }
    };
    // What was read may be in the system's memory only.
    let failed = |e: std::io::Error| StorageError::io("write file", &segment.path, &e);
    segment.file.sync_all().map_err(failed)?;
    if ended {
        segment.written.store(segment.size, Ordering::Release);
        return Ok(Some(segment));
    }
    if later_is_used()? || segment::was_durable(&bytes, segment.number, at) {
        let what = format!("\"{}\" has no whole record at byte {at}", segment.path.display());
        return Err(StorageError::corrupt(what));
    }
    if at == 0 {
        return Ok(None);
    }
    let mut end = Vec::new();
    segment::encode_end(&mut end, segment.number, at, at);
    let size = at + end.len() as u32;
    segment.write(&end, at)?;
    segment.file.set_len(u64::from(size)).and_then(|()| segment.file.sync_all()).map_err(failed)?;
    Ok(Some(Segment { size, ..segment }))
}

#[cfg(test)]
mod tests;

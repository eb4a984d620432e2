//! The files of a journal, and the frames in them.
//!
//! ```text
//!   0000000000000007.log    │frame│frame│frame│END│ what an older segment left here …      │
//!                            ▲
//!   frame = length 4 │ synced 4 │ check of the header 4 │ check of the payload 4 │ payload │ to a multiple of 8
//! ```
//!
//! A file is written over and over under new numbers. The header's check covers the segment's number and the
//! frame's place in it, so that what an older segment left is never taken for a frame of this one.
//! `synced` says how far the segment was known to be on disk when the frame was made: a whole frame behind a broken
//! one is harmless if they were written together, and damage if the broken one was on disk before.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use crate::error::{Result, StorageError};

/// Bytes before a payload.
pub(super) const HEADER: usize = 16;
/// The length that ends a segment before its file ends.
const END: u32 = u32::MAX;
/// Zeros are written in pieces of so many bytes.
const ZEROS: usize = 256 << 10;
/// How the name of a file ends that is being made.
pub(super) const UNFINISHED: &str = "new";

/// One file of the journal.
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Bytes of the file
    pub(super) size: u32,
    /// Up to where it holds frames that are on disk
    pub(super) written: AtomicU32,
}

/// Bytes that a payload takes with its frame.
pub(super) fn frame_bytes(payload: usize) -> usize {
    HEADER + payload.next_multiple_of(8)
}

fn header_check(segment: u64, at: u32, length: u32, synced: u32) -> u32 {
    let mut check = crc32fast::Hasher::new();
    check.update(&segment.to_le_bytes());
    for part in [at, length, synced] {
        check.update(&part.to_le_bytes());
    }
    check.finalize()
}

/// Adds a frame that will lie at `at` of a segment.
pub(super) fn encode_frame(out: &mut Vec<u8>, segment: u64, at: u32, synced: u32, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut check = crc32fast::Hasher::new();
    parts.iter().for_each(|part| check.update(part));
    push_header(out, segment, at, length as u32, synced, check.finalize());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.resize(out.len() + (length.next_multiple_of(8) - length), 0);
}

/// Adds the mark that ends a segment at `at`.
pub(super) fn encode_end(out: &mut Vec<u8>, segment: u64, at: u32, synced: u32) {
    push_header(out, segment, at, END, synced, 0);
}

fn push_header(out: &mut Vec<u8>, segment: u64, at: u32, length: u32, synced: u32, payload_check: u32) {
    for part in [length, synced, header_check(segment, at, length, synced), payload_check] {
        out.extend_from_slice(&part.to_le_bytes());
    }
}

/// What lies at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Frame {
        payload: &'a [u8],
        /// Where the next one begins
        next: u32,
    },
    /// The segment's end, by its mark or because no frame fits any more
    End,
    /// No frame of this segment
    Nothing,
}

fn field(bytes: &[u8], n: usize) -> u32 {
    bytes[n * 4..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The length and the `synced` of the header that the bytes begin with, if it is one of this segment at this place.
fn header(bytes: &[u8], segment: u64, at: u32) -> Option<(u32, u32)> {
    let bytes = bytes.get(..HEADER)?;
    let (length, synced) = (field(bytes, 0), field(bytes, 1));
    (field(bytes, 2) == header_check(segment, at, length, synced)).then_some((length, synced))
}

/// Looks at the place `at` of a segment, where these bytes begin. They must hold the whole frame if there is one.
pub(super) fn decode(bytes: &[u8], segment: u64, at: u32) -> Found<'_> {
    if bytes.len() < HEADER {
        // A file too short for any frame holds nothing; one too short for another frame ends.
        return if at == 0 { Found::Nothing } else { Found::End };
    }
    let Some((length, _)) = header(bytes, segment, at) else { return Found::Nothing };
    if length == END {
        return Found::End;
    }
    let Some(payload) = bytes.get(HEADER..HEADER + length as usize) else { return Found::Nothing };
    if crc32fast::hash(payload) != field(bytes, 3) {
        return Found::Nothing;
    }
    Found::Frame { payload, next: at + frame_bytes(length as usize) as u32 }
}

/// Bytes of the frame whose header these are, if they are one.
pub(super) fn frame_length(bytes: &[u8], segment: u64, at: u32) -> usize {
    match header(bytes, segment, at) {
        Some((length, _)) if length != END => frame_bytes(length as usize),
        _ => HEADER,
    }
}

/// True if a header behind `broken` says that `broken` was on disk when it was made.
pub(super) fn was_durable(bytes: &[u8], segment: u64, broken: u32) -> bool {
    let end = bytes.len() as u32;
    (broken..end).step_by(8).skip(1).any(|at| match header(&bytes[at as usize..], segment, at) {
        // Among so many places some bytes may look like a header by chance: what they say must be possible too.
        Some((length, synced)) => (length == END || length < end - at) && synced > broken && synced <= at,
        None => false,
    })
}

impl Segment {
    pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
        dir.join(format!("{number:016x}.log"))
    }

    /// The number in a file's name.
    pub(super) fn number_of(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok()
    }

    fn open(path: &Path, new: bool) -> Result<File> {
        // Every write waits for the disk: one call in the place of two, and no journal of the file system,
        // because the file's size does not change.
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(new)
            .custom_flags(OFlags::DSYNC.bits() as i32)
            .open(path)
            .map_err(|e| StorageError::io("open file", path, &e))
    }

    /// Makes a file of zeros: a file that has no blocks yet would get them when it is written, at the price of
    /// the file system's journal. Without `zeros` that price is paid: for what is written at once, and once.
    ///
    /// It gets its name when it is whole: half of it, with records in the file before it, would look like damage.
    pub(super) fn create(dir: &Path, number: u64, size: u32, zeros: bool) -> Result<Segment> {
        let path = Segment::path_of(dir, number);
        let unfinished = path.with_extension(UNFINISHED);
        let made = fill(&unfinished, size, zeros).and_then(|()| std::fs::rename(&unfinished, &path));
        if let Err(e) = made {
            let _ = std::fs::remove_file(&unfinished);
            return Err(StorageError::io("write file", &path, &e));
        }
        let file = Segment::open(&path, false)?;
        crate::file::sync_dir(dir)?;
        Ok(Segment { number, path, file, size, written: AtomicU32::new(0) })
    }

    /// Makes a segment of one whose content is not needed any more.
    pub(super) fn recycle(dir: &Path, number: u64, old: Segment) -> Result<Segment> {
        let path = Segment::path_of(dir, number);
        if let Err(e) = std::fs::rename(&old.path, &path) {
            // It must not stay behind those that are recycled after it.
            let _ = std::fs::remove_file(&old.path);
            return Err(StorageError::io("rename file to", &path, &e));
        }
        crate::file::sync_dir(dir)?;
        Ok(Segment { number, path, file: old.file, size: old.size, written: AtomicU32::new(0) })
    }

    /// Opens a file that is there.
    pub(super) fn existing(dir: &Path, number: u64) -> Result<Segment> {
        let path = Segment::path_of(dir, number);
        let file = Segment::open(&path, false)?;
        let size = file.metadata().map_err(|e| StorageError::io("read file", &path, &e))?.len();
        let size = u32::try_from(size).map_err(|_| StorageError::corrupt("a journal file of over 4 GB"))?;
        Ok(Segment { number, path, file, size, written: AtomicU32::new(0) })
    }

    /// Writes what lies at `at` and waits for the disk.
    pub(super) fn write(&self, bytes: &[u8], at: u32) -> Result<()> {
        let write = self.file.write_all_at(bytes, u64::from(at));
        write.map_err(|e| StorageError::io("write file", &self.path, &e))?;
        self.written.fetch_max(at + bytes.len() as u32, Ordering::Release);
        Ok(())
    }

    /// Reads all of it.
    pub(super) fn read_all(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.size as usize];
        self.read(&mut bytes, 0)?;
        Ok(bytes)
    }

    pub(super) fn read(&self, bytes: &mut [u8], at: u32) -> Result<()> {
        let read = self.file.read_exact_at(bytes, u64::from(at));
        read.map_err(|e| StorageError::io("read file", &self.path, &e))
    }
}

fn fill(path: &Path, size: u32, zeros: bool) -> std::io::Result<()> {
    let file = File::create(path)?;
    // Room is found now, or the disk is said to be full.
    allocate(&file, size)?;
    let piece = vec![0; if zeros { ZEROS } else { 0 }];
    for at in (0..size).step_by(ZEROS) {
        let length = piece.len().min((size - at) as usize);
        file.write_all_at(&piece[..length], u64::from(at))?;
    }
    file.sync_all()
}

fn allocate(file: &File, size: u32) -> std::io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, u64::from(size)) {
        // A file system that cannot do it beforehand does it when it is written.
        Err(Errno::OPNOTSUPP) => file.set_len(u64::from(size)),
        other => Ok(other?),
    }
}
